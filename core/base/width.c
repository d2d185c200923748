/* Terminal width of text, by binary search in the range tables. */
#include "core/base/width.h"

#include "core/base/utf8.h"

static bool is_in(const mm_code_range *ranges, size_t count, uint32_t code)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (code < ranges[middle].first)
            high = middle;
        else if (code > ranges[middle].last)
            low = middle + 1;
        else
            return true;
    }
    return false;
}

static int width_of(uint32_t code)
{
    if (code < 0x20 || (code >= 0x7F && code < 0xA0)) return 0;
    if (code < 0x300) return 1;
    if (is_in(mm_width_none, mm_width_none_count, code)) return 0;
    return is_in(mm_width_wide, mm_width_wide_count, code) ? 2 : 1;
}

/* Width of the character at `text`, *size its bytes. */
static int next_width(const char *text, size_t length, size_t *size)
{
    uint32_t code = 0;
    const int bytes = mm_utf8_next(text, length, &code);
    *size = bytes > 0 ? (size_t)bytes : 1;
    return bytes > 0 ? width_of(code) : 1;
}

int mm_text_width(const char *text, size_t length)
{
    int columns = 0;
    size_t size;
    for (size_t at = 0; at < length; at += size)
        columns += next_width(text + at, length - at, &size);
    return columns;
}

size_t mm_text_fit(const char *text, size_t length, int columns)
{
    size_t at = 0;
    while (at < length) {
        size_t size;
        const int width = next_width(text + at, length - at, &size);
        if (width > columns) break;
        columns -= width;
        at += size;
    }
    return at;
}
