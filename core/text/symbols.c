/* How bytes are spelled: GPT-2's printable characters in tokenizer.json, and JSON strings. */
#include "core/text/tokenizer_internal.h"

/* Bytes that are printable characters of Latin-1 stand for themselves; the others take the
 * characters from U+0100 on, in byte order. */
static bool is_own_symbol(uint32_t code)
{
    return (code >= '!' && code <= '~') || (code >= 0xA1 && code <= 0xAC) ||
           (code >= 0xAE && code <= 0xFF);
}

static uint32_t byte_symbol(uint8_t byte)
{
    if (is_own_symbol(byte)) return byte;
    uint32_t code = 0x100;
    for (uint32_t other = 0; other < byte; other++)
        code += is_own_symbol(other) ? 0 : 1;
    return code;
}

int mm_symbol_byte(uint32_t code)
{
    if (is_own_symbol(code)) return (int)code;
    if (code < 0x100 || code >= 0x100 + 68) return -1;
    uint32_t skip = code - 0x100;
    for (int byte = 0; byte < 256; byte++) {
        if (is_own_symbol((uint32_t)byte)) continue;
        if (skip == 0) return byte;
        skip--;
    }
    return -1;
}

uint8_t mm_byte_of_order(int32_t order)
{
    MM_ASSERT(order >= 0 && order < MM_BYTE_SYMBOLS);
    uint32_t code = 0;
    for (;; code++) {
        if (mm_symbol_byte(code) < 0) continue;
        if (order == 0) return (uint8_t)mm_symbol_byte(code);
        order--;
    }
}

void mm_byte_symbol_text(uint8_t byte, char out[MM_SYMBOL_TEXT_BYTES])
{
    const uint32_t code = byte_symbol(byte); // below U+0800: two bytes at most
    size_t at = 0;
    if (code < 0x80) {
        out[at++] = (char)code;
    } else {
        out[at++] = (char)(0xC0 | code >> 6);
        out[at++] = (char)(0x80 | (code & 0x3F));
    }
    out[at] = '\0';
}

void mm_byte_symbols_add(mm_str *out, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        char symbol[MM_SYMBOL_TEXT_BYTES];
        mm_byte_symbol_text((uint8_t)bytes[i], symbol);
        mm_str_add(out, symbol);
    }
}

void mm_text_add_json_string(mm_str *out, const char *text, size_t length)
{
    static const char letters[] = "btn\0fr"; // for U+0008..U+000D
    mm_str_add_char(out, '"');
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') {
            mm_str_add_char(out, '\\');
            mm_str_add_char(out, (char)c);
        } else if (c >= 8 && c <= 13 && c != 11) {
            mm_str_add_char(out, '\\');
            mm_str_add_char(out, letters[c - 8]);
        } else if (c < 0x20) {
            mm_str_addf(out, "\\u%04x", c);
        } else {
            mm_str_add_char(out, (char)c);
        }
    }
    mm_str_add_char(out, '"');
}
