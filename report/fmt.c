/* Numbers, times and paths as a reader of the report sees them. */
#include "report/fmt.h"

#include "core/base/clock.h"
#include "core/base/utf8.h"
#include "core/base/width.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void mm_fmt_number(double value, char out[MM_FMT_BYTES])
{
    if (isnan(value)) {
        snprintf(out, MM_FMT_BYTES, "NaN");
        return;
    }
    if (isinf(value)) {
        snprintf(out, MM_FMT_BYTES, value > 0 ? "inf" : "-inf");
        return;
    }
    const double size = fabs(value);
    if (size >= 1e5 && size < 1e15 && value == floor(value)) {
        mm_fmt_count((int64_t)value, out);
    } else if (size >= 1000 && size < 1e6) {
        snprintf(out, MM_FMT_BYTES, "%.0f", value);
    } else if (size >= 1 && size < 1000) {
        const int decimals = size >= 100 ? 1 : size >= 10 ? 2 : 3;
        if (value == floor(value))
            snprintf(out, MM_FMT_BYTES, "%.0f", value);
        else
            snprintf(out, MM_FMT_BYTES, "%.*f", decimals, value);
    } else {
        snprintf(out, MM_FMT_BYTES, "%.4g", value);
    }
}

void mm_fmt_count(int64_t value, char out[MM_FMT_BYTES])
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRId64, value);
    size_t at = 0;
    for (int i = 0; i < length; i++) {
        const int left = length - i;
        if (i > 0 && digits[i - 1] != '-' && left % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

void mm_fmt_time(int64_t epoch_ms, char out[MM_FMT_BYTES])
{
    if (epoch_ms == 0) {
        snprintf(out, MM_FMT_BYTES, "–");
        return;
    }
    char iso[MM_TIME_ISO_BYTES];
    mm_time_iso(epoch_ms, iso);
    snprintf(out, MM_FMT_BYTES, "%.10s %.8s UTC", iso, iso + 11);
}

// Decimals that show a multiple of `spacing` exactly: 1 for 0.5 and for 2.5, 0 for 200.
static int decimals_of(double spacing)
{
    int decimals = 0;
    if (!(spacing > 0)) return 3;
    while (decimals < 6 && fabs(spacing - round(spacing)) > spacing * 1e-6) {
        spacing *= 10;
        decimals++;
    }
    return decimals;
}

void mm_fmt_tick(double value, double spacing, char out[MM_FMT_BYTES])
{
    static const char *const suffixes[] = {"", "k", "M", "G", "T"};
    if (fabs(value) < spacing * 1e-6) value = 0;
    const double size = fabs(value);
    if (size >= 1e4 && size < 1e15) {
        const int level = size >= 1e12 ? 4 : size >= 1e9 ? 3 : size >= 1e6 ? 2 : 1;
        const double unit = pow(1000, level);
        snprintf(out, MM_FMT_BYTES, "%.*f%s", decimals_of(spacing / unit), value / unit,
                 suffixes[level]);
    } else if (value == 0) {
        snprintf(out, MM_FMT_BYTES, "0");
    } else if (size >= 1e15 || size < 1e-3) {
        snprintf(out, MM_FMT_BYTES, "%.3g", value);
    } else {
        snprintf(out, MM_FMT_BYTES, "%.*f", decimals_of(spacing), value);
    }
}

void mm_fmt_json(mm_str *out, double value, int digits)
{
    if (!isfinite(value)) {
        mm_str_add(out, "null");
        return;
    }
    char text[MM_FMT_BYTES];
    snprintf(text, sizeof text, "%.*g", digits, value);
    mm_str_add(out, text);
}

static bool ends_path(char c) { return (unsigned char)c <= ' ' || strchr("\"'`,;:()[]{}<>|=&", c); }

const char *mm_fmt_private(mm_arena *arena, const char *text, const char *host)
{
    if (!text) return NULL;
    mm_str out;
    mm_str_init(&out, 0);
    const size_t host_length = host ? strlen(host) : 0;
    for (const char *at = text; *at;) {
        if (host_length >= 2 && strncmp(at, host, host_length) == 0) {
            mm_str_add(&out, "[host]");
            at += host_length;
            continue;
        }
        const bool may_start = at == text || (ends_path(at[-1]) && at[-1] != '<'); // not "</b>"
        if (!may_start || *at != '/' || at[1] == '/' || at[1] == '\0' || ends_path(at[1])) {
            mm_str_add_char(&out, *at++);
            continue;
        }
        const char *end = at + 1;
        const char *last = at; // the last slash that has a name behind it
        while (*end && !ends_path(*end)) {
            if (*end == '/' && end[1] && !ends_path(end[1])) last = end;
            end++;
        }
        mm_str_add(&out, "…");
        mm_str_add_bytes(&out, last, (size_t)(end - last));
        at = end;
    }
    const char *copy = out.status == MM_OK ? mm_arena_strdup(arena, mm_str_text(&out)) : NULL;
    mm_str_drop(&out);
    return copy;
}

// Next code point of a NUL-terminated text; ill-formed bytes count as U+FFFD of one byte.
static size_t step_over(const char *text, size_t left, uint32_t *code)
{
    const int size = mm_utf8_next(text, left, code);
    if (size > 0) return (size_t)size;
    *code = 0xFFFD;
    return 1;
}

const char *mm_fmt_fit(mm_arena *arena, const char *text, int columns)
{
    MM_ASSERT(columns >= 2);
    const size_t length = strlen(text);
    if (mm_text_width(text, length) <= columns) return text;
    const size_t kept = mm_text_fit(text, length, columns - 1);
    char *copy = mm_arena_alloc(arena, kept + sizeof "…");
    if (!copy) return "…";
    memcpy(copy, text, kept);
    memcpy(copy + kept, "…", sizeof "…");
    return copy;
}

const char *mm_fmt_language(const char *text)
{
    const char *language = NULL;
    for (size_t left = strlen(text); left > 0;) {
        uint32_t code;
        const size_t size = step_over(text, left, &code);
        if (code >= 0x3040 && code <= 0x30FF) return "ja";
        if (code >= 0xAC00 && code <= 0xD7A3) return "ko";
        if (code >= 0x4E00 && code <= 0x9FFF) language = "zh";
        text += size;
        left -= size;
    }
    return language;
}
