/* Whether an answer is the expected one. Numbers are compared as numbers: 1,000 = 1000.0. */
#include "runner/match.h"

#include "core/base/utf8.h"

#include <stdlib.h>
#include <string.h>

static const char THINK_CLOSE[] = "</think>";

mm_status mm_match_kind_parse(const char *name, mm_match_kind *out, mm_err *err)
{
    static const char *const NAMES[] = {"exact", "contains", "number"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (strcmp(name, NAMES[i]) != 0) continue;
        *out = (mm_match_kind)i;
        return MM_OK;
    }
    return MM_FAIL(err, MM_EUSAGE, "expected one of %s, found '%s'", MM_MATCH_KINDS, name);
}

static void add_code(mm_str *out, uint32_t code, const char *bytes, size_t length)
{
    if (code >= 0xFF01 && code <= 0xFF5E)
        mm_str_add_char(out, (char)(code - 0xFF01 + '!')); // full-width forms
    else if (code == 0x3000 || code == 0xA0)
        mm_str_add_char(out, ' ');
    else if (code == 0x2212)
        mm_str_add_char(out, '-'); // the sign of mathematics
    else
        mm_str_add_bytes(out, bytes, length);
}

/* Appends the text in the form that is compared. */
static void normalise(const char *text, mm_str *out)
{
    size_t left = strlen(text);
    while (left > 0) {
        uint32_t code = 0;
        const int bytes = mm_utf8_next(text, left, &code);
        const size_t step = bytes > 0 ? (size_t)bytes : 1;
        add_code(out, bytes > 0 ? code : 0, text, step);
        text += step;
        left -= step;
    }
    size_t begin = 0;
    while (begin < out->length && strchr(" \t\r\n", out->data[begin]))
        begin++;
    while (out->length > begin && strchr(" \t\r\n", out->data[out->length - 1]))
        out->length--;
    if (!out->data) return;
    out->length -= begin;
    memmove(out->data, out->data + begin, out->length);
    out->data[out->length] = '\0';
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Reads the number that begins at `text`, with commas between thousands; NULL: there is none. */
static const char *read_number(const char *text, double *value)
{
    char digits[64];
    size_t n = 0;
    const char *at = text;
    if (*at == '-' || *at == '+') digits[n++] = *at++;
    if (!is_digit(*at)) return NULL;
    bool has_point = false;
    for (; n + 1 < sizeof digits; at++) {
        const bool is_separator = !has_point && *at == ',' && is_digit(at[1]) && is_digit(at[2]) &&
                                  is_digit(at[3]) && !is_digit(at[4]);
        if (is_separator) continue;
        if (!is_digit(*at) && !(*at == '.' && !has_point && is_digit(at[1]))) break;
        has_point |= *at == '.';
        digits[n++] = *at;
    }
    digits[n] = '\0';
    *value = strtod(digits, NULL);
    return at;
}

/* Whether the sign at `at` stands behind a term, as in 5 - 3. */
static bool is_operator(const char *text, const char *at)
{
    while (at > text && at[-1] == ' ')
        at--;
    return at > text && (is_digit(at[-1]) || at[-1] == ')');
}

static bool last_number(const char *text, double *value)
{
    bool is_found = false;
    for (const char *at = text; *at;) {
        const bool is_sign = *at == '-' || *at == '+';
        const char *end = is_sign && is_operator(text, at) ? NULL : read_number(at, value);
        is_found |= end != NULL;
        at = end ? end : at + 1;
    }
    return is_found;
}

static bool is_latin(uint32_t code)
{
    return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
}

// The unified ideographs and their first extension.
static bool is_han(uint32_t code)
{
    return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF);
}

static const char *behind_thoughts(const char *answer)
{
    for (const char *at = strstr(answer, THINK_CLOSE); at; at = strstr(answer, THINK_CLOSE))
        answer = at + strlen(THINK_CLOSE);
    return answer;
}

// An ideograph says about as much as a word: letters are weighed accordingly.
mm_script mm_script_of(const char *text)
{
    enum { LETTERS_PER_IDEOGRAPH = 4 };
    text = behind_thoughts(text);
    const size_t bytes = strlen(text);
    int64_t latin = 0;
    int64_t han = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        const int length = mm_utf8_next(text + at, bytes - at, &code);
        at += length > 0 ? (size_t)length : 1;
        latin += length > 0 && is_latin(code);
        han += length > 0 && is_han(code);
    }
    if (latin == 0 && han == 0) return MM_SCRIPT_NONE;
    return LETTERS_PER_IDEOGRAPH * han > latin ? MM_SCRIPT_HAN : MM_SCRIPT_LATIN;
}

static mm_status compare(mm_match_kind kind, const char *answer, const char *expected,
                         bool *is_match, mm_err *err)
{
    double right = 0;
    double found = 0;
    if (kind == MM_MATCH_EXACT) *is_match = strcmp(answer, expected) == 0;
    if (kind == MM_MATCH_CONTAINS) *is_match = strstr(answer, expected) != NULL;
    if (kind != MM_MATCH_NUMBER) return MM_OK;
    if (!last_number(expected, &right))
        return MM_FAIL(err, MM_EFORMAT, "expected: there is no number in '%.60s'", expected);
    // Both come from decimal text; equal values read equal.
    *is_match = last_number(answer, &found) && !(found < right) && !(found > right);
    return MM_OK;
}

mm_status mm_match(mm_match_kind kind, const char *answer, const char *expected, bool *is_match,
                   mm_err *err)
{
    mm_str left = {0};
    mm_str right = {0};
    mm_status status = MM_OK;
    *is_match = false;
    normalise(behind_thoughts(answer), &left);
    normalise(expected, &right);
    MM_GO(mm_str_check(&left, err));
    MM_GO(mm_str_check(&right, err));
    MM_GO(compare(kind, mm_str_text(&left), mm_str_text(&right), is_match, err));
done:
    mm_str_drop(&right);
    mm_str_drop(&left);
    return status;
}
