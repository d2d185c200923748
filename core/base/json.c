/* JSON over jansson, the strictest of the C libraries: it refuses every malformed probe we know. */
#include "core/base/json.h"

#include "core/base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mm_status mm_json_parse(const char *text, size_t length, const char *what, json_t **out,
                        mm_err *err)
{
    json_error_t detail;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &detail);
    if (*out) return MM_OK;
    const mm_status status =
        json_error_code(&detail) == json_error_out_of_memory ? MM_ENOMEM : MM_EFORMAT;
    return MM_FAIL(err, status, "%s: not valid JSON at line %d column %d: %s", what, detail.line,
                   detail.column, detail.text);
}

static int append(const char *buffer, size_t size, void *data)
{
    mm_str_add_bytes(data, buffer, size);
    return ((mm_str *)data)->status == MM_OK ? 0 : -1;
}

void mm_json_write(const json_t *value, mm_str *out)
{
    if (json_dump_callback(value, append, out, JSON_COMPACT | JSON_ENCODE_ANY) != 0 &&
        out->status == MM_OK)
        out->status = MM_ENOMEM;
}

void mm_json_add_number(mm_str *out, double value)
{
    if (isnan(value)) {
        mm_str_add(out, "\"NaN\"");
    } else if (isinf(value)) {
        mm_str_add(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    } else {
        char text[32];
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, value);
            if (memcmp(&(double){strtod(text, NULL)}, &value, sizeof value) == 0) break;
        }
        mm_str_add(out, text);
    }
}

void mm_json_add_string(mm_str *out, const char *text, size_t length)
{
    mm_str_add_char(out, '"');
    size_t at = 0;
    while (at < length) {
        uint32_t code;
        const int size = mm_utf8_next(text + at, length - at, &code);
        if (size <= 0) {
            mm_str_add(out, "\\ufffd");
            at += 1;
            continue;
        }
        const bool escaped = code < 0x20 || code == 0x7F || code == '<' || code == '>' ||
                             code == '&' || code == 0x2028 || code == 0x2029;
        if (code == '"' || code == '\\') mm_str_add_char(out, '\\');
        if (escaped)
            mm_str_addf(out, "\\u%04x", code);
        else
            mm_str_add_bytes(out, text + at, (size_t)size);
        at += (size_t)size;
    }
    mm_str_add_char(out, '"');
}
