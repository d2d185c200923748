/* JSON over jansson: one strict way to parse, one way to write. */
#ifndef MM_BASE_JSON_H
#define MM_BASE_JSON_H

#include "core/base/mem.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Parses exactly one JSON value; refuses duplicate keys, bad UTF-8, lone surrogates, NaN, trailing
 * text. `what` names the source in the message ("data.jsonl line 7"). *out is a new reference
 * (json_decref). */
MM_NODISCARD mm_status mm_json_parse(const char *text, size_t length, const char *what,
                                     json_t **out, mm_err *err);
/* Compact text with keys in insertion order, not ASCII-escaped; appended to `out`. */
void mm_json_write(const json_t *value, mm_str *out);
/* A double as JSON text that reads back equal ("%.17g" shortened); "NaN", "Infinity", "-Infinity"
 * in quotes. */
void mm_json_add_number(mm_str *out, double value);
/* A string as JSON text with quotes; control characters, '<', '>', '&', U+2028 and U+2029 are
 * \u-escaped, so that the result may stand inside an HTML script element. Invalid UTF-8 becomes
 * U+FFFD. */
void mm_json_add_string(mm_str *out, const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif
