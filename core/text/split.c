/* GPT-2's splitting rule. The alternatives of the expression are tried in its order; none needs to
 * look further back than one white-space character. */
#include "core/text/split.h"

#include "core/text/unicode.h"

#include <stdbool.h>

/* Class of the character at `text` and its size in bytes. The text is known to be well-formed. */
static inline mm_char_class class_at(const unsigned char *text, size_t *size)
{
    const uint32_t lead = text[0];
    if (lead < 0x80) {
        *size = 1;
        return mm_unicode_class(lead);
    }
    if (lead < 0xE0) {
        *size = 2;
        return mm_unicode_class((lead & 0x1F) << 6 | (text[1] & 0x3F));
    }
    if (lead < 0xF0) {
        *size = 3;
        return mm_unicode_class((lead & 0x0F) << 12 | (text[1] & 0x3Fu) << 6 | (text[2] & 0x3F));
    }
    *size = 4;
    return mm_unicode_class((lead & 0x07) << 18 | (text[1] & 0x3Fu) << 12 | (text[2] & 0x3Fu) << 6 |
                            (text[3] & 0x3F));
}

/* Bytes of the contraction that `text` begins with, 0 if there is none. */
static size_t contraction(const unsigned char *text, size_t length)
{
    if (length < 2 || text[0] != '\'') return 0;
    const unsigned char a = text[1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (length < 3) return 0;
    const unsigned char b = text[2];
    const bool is_long = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    return is_long ? 3 : 0;
}

/* Where the run of characters of one class that starts at `at` ends; *last receives the start of
 * its last character. */
static size_t run_end(const unsigned char *text, size_t length, size_t at, mm_char_class class,
                      size_t *last)
{
    while (at < length) {
        size_t size;
        if (class_at(text + at, &size) != class) break;
        *last = at;
        at += size;
    }
    return at;
}

size_t mm_split_next(const char *bytes, size_t length)
{
    const unsigned char *text = (const unsigned char *)bytes;
    const size_t short_form = contraction(text, length);
    if (short_form > 0) return short_form;

    size_t size;
    size_t last = 0;
    mm_char_class class = class_at(text, &size);
    if (class != MM_CHAR_SPACE) return run_end(text, length, size, class, &last);
    if (text[0] == ' ' && length > 1) {
        // One plain space belongs to the word after it.
        class = class_at(text + 1, &size);
        if (class != MM_CHAR_SPACE) return run_end(text, length, 1 + size, class, &last);
    }
    const size_t end = run_end(text, length, 0, MM_CHAR_SPACE, &last);
    // \s+(?!\S): a run before a non-space leaves its last character to the next word, if it has
    // two.
    return end < length && last > 0 ? last : end;
}
