/* UTF-8: validation and safe cutting, for anything that comes from data or from a model. */
#ifndef MM_BASE_UTF8_H
#define MM_BASE_UTF8_H

#include "core/base/mem.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Length in bytes (1-4) of the well-formed sequence at `text`; *code receives the code point. 0
 * when the bytes are ill-formed (overlong, surrogate, above U+10FFFF, stray byte); -1 when they are
 * a proper beginning cut short by `length`. */
int mm_utf8_next(const char *text, size_t length, uint32_t *code);
/* Bytes of the longest well-formed prefix; equals `length` for valid text. */
size_t mm_utf8_valid(const char *text, size_t length);
/* Appends with each ill-formed byte as U+FFFD and, for a terminal, control, escape and
 * bidirectional-override characters as visible \xNN / \u{NNNN}; newline and tab stay. */
void mm_utf8_add_printable(mm_str *out, const char *text, size_t length);
/* Appends with each ill-formed byte as U+FFFD, nothing else changed. */
void mm_utf8_add_valid(mm_str *out, const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif
