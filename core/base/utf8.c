/* UTF-8: validation and safe cutting. Well-formed means table 3-7 of the Unicode standard. */
#include "core/base/utf8.h"

#include <string.h>

int mm_utf8_next(const char *text, size_t length, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    if (length == 0) return -1;
    const unsigned char lead = s[0];
    if (lead < 0x80) {
        *code = lead;
        return 1;
    }
    int size;
    unsigned char low =
        0x80; // bounds of the second byte exclude overlong forms, surrogates and > U+10FFFF
    unsigned char high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        size = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        size = 3;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        size = 4;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    } else {
        return 0;
    }
    uint32_t value = lead & (0x7Fu >> size);
    for (int i = 1; i < size; i++) {
        if ((size_t)i >= length) return -1;
        if (s[i] < low || s[i] > high) return 0;
        low = 0x80;
        high = 0xBF;
        value = value << 6 | (s[i] & 0x3Fu);
    }
    *code = value;
    return size;
}

/* Bytes of ASCII at the start of the text, eight at a time and no further. */
static size_t ascii_bytes(const char *text, size_t length)
{
    size_t at = 0;
    uint64_t eight;
    for (; length - at >= sizeof eight; at += sizeof eight) {
        memcpy(&eight, text + at, sizeof eight);
        if (eight & 0x8080808080808080u) break;
    }
    return at;
}

size_t mm_utf8_valid(const char *text, size_t length)
{
    size_t at = 0;
    uint32_t code;
    while (at < length) {
        if ((unsigned char)text[at] < 0x80) at += ascii_bytes(text + at, length - at);
        if (at == length) break;
        const int size = mm_utf8_next(text + at, length - at, &code);
        if (size <= 0) break;
        at += (size_t)size;
    }
    return at;
}

static bool is_unsafe_on_terminal(uint32_t code)
{
    if (code == '\n' || code == '\t') return false;
    if (code < 0x20 || (code >= 0x7F && code < 0xA0)) return true;
    // Bidirectional overrides and isolates can make text read differently from what it is.
    return (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

static void add(mm_str *out, const char *text, size_t length, bool printable)
{
    size_t at = 0;
    while (at < length) {
        uint32_t code;
        const int size = mm_utf8_next(text + at, length - at, &code);
        if (size <= 0) {
            mm_str_add(out, "\xEF\xBF\xBD");
            at += 1;
            continue;
        }
        if (!printable || !is_unsafe_on_terminal(code))
            mm_str_add_bytes(out, text + at, (size_t)size);
        else if (code < 0x100)
            mm_str_addf(out, "\\x%02x", code);
        else
            mm_str_addf(out, "\\u{%04x}", code);
        at += (size_t)size;
    }
}

void mm_utf8_add_printable(mm_str *out, const char *text, size_t length)
{
    add(out, text, length, true);
}

void mm_utf8_add_valid(mm_str *out, const char *text, size_t length)
{
    add(out, text, length, false);
}
