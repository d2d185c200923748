/* Character classes as GPT-2's splitting rule asks for them, pinned to one Unicode version so that
 * a text gives the same ids on every machine. The table is written by scripts/make_unicode.py.
 */
#ifndef MM_TEXT_UNICODE_H
#define MM_TEXT_UNICODE_H

#include <stdint.h>

enum { MM_UNICODE_BLOCK = 128 };

typedef enum mm_char_class {
    MM_CHAR_OTHER = 0,
    MM_CHAR_LETTER = 1, /* general category L* */
    MM_CHAR_NUMBER = 2, /* general category N* */
    MM_CHAR_SPACE = 3   /* property White_Space: what \s means in Rust and Oniguruma */
} mm_char_class;

extern const uint32_t mm_unicode_blocks;
extern const uint8_t mm_unicode_index[];
extern const uint32_t mm_unicode_rows[];

static inline mm_char_class mm_unicode_class(uint32_t code)
{
    const uint32_t block = code / MM_UNICODE_BLOCK;
    if (block >= mm_unicode_blocks) return MM_CHAR_OTHER;
    const uint32_t at = code % MM_UNICODE_BLOCK;
    const uint32_t word =
        mm_unicode_rows[mm_unicode_index[block] * (MM_UNICODE_BLOCK / 16) + at / 16];
    return (mm_char_class)(word >> (at % 16 * 2) & 3);
}

#endif
