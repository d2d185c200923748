/* Tests of core/base/json.h: what the parser must refuse, numbers that read back equal, and text
 * that may stand inside an HTML script element. */
#include "core/base/json.h"
#include "tests/base/check.h"

#include <float.h>
#include <math.h>

static void test_accepts(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "{}",
        " [1, 2.5, -3e2, true, false, null] ",
        "\"text\"",
        "7",
        "null",
        "{\"a\":{\"a\":[]}}",
        "\"\\ud83d\\ude00 \xF0\x9F\x98\x80\"",
        "9223372036854775807",
        "-9223372036854775808",
        "\"\xE4\xB8\xAD\xE6\x96\x87\"\n",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *value = NULL;
        mm_err err = {0};
        if (mm_json_parse(rows[i], strlen(rows[i]), "probe", &value, &err) != MM_OK)
            fail_msg("row %zu: %s", i, err.message);
        assert_non_null(value);
        json_decref(value);
    }
}

static void test_refuses(void **state)
{
    (void)state;
#define ROW(text)                                                                                  \
    {                                                                                              \
        text, sizeof text - 1                                                                      \
    }
    static const struct {
        const char *text;
        size_t length;
    } rows[] = {
        ROW(""),
        ROW("  "),
        ROW("{"),
        ROW("{\"a\":1,}"),
        ROW("[1,]"),
        ROW("{'a':1}"),
        ROW("{a:1}"),
        ROW("{\"a\":1} x"),
        ROW("{\"a\":1}{\"b\":2}"),
        ROW("{\"a\":1,\"a\":2}"), // duplicate key
        ROW("NaN"),
        ROW("[Infinity]"),
        ROW("[-Infinity]"),
        ROW("[1e999]"),
        ROW("[9223372036854775808]"), // does not fit 64 bits
        ROW("[01]"),
        ROW("[+1]"),
        ROW("[.5]"),
        ROW("[1.]"),
        ROW("[0x10]"),
        ROW("[tru]"),
        ROW("\"\\x41\""),
        ROW("\"\\ud800\""), // lone surrogates
        ROW("\"\\udc00\\ud800\""),
        ROW("\"\\u0000\""), // a NUL inside a C string
        ROW("\"a\0b\""),
        ROW("\"a\nb\""), // raw control characters
        ROW("\"a\x01\""),
        ROW("\"\xC0\xAF\""),         // overlong
        ROW("\"\xED\xA0\x80\""),     // surrogate as UTF-8
        ROW("\"\xF4\x90\x80\x80\""), // above U+10FFFF
        ROW("\"\xFF\""),
        ROW("\"\xE4\xB8\""), // cut short
        ROW("// comment\n1"),
        ROW("\xEF\xBB\xBF{}"), // byte order mark
    };
#undef ROW
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *value = (json_t *)&value;
        mm_err err = {0};
        const mm_status status =
            mm_json_parse(rows[i].text, rows[i].length, "data.jsonl line 7", &value, &err);
        CHECK_ROW(status == MM_EFORMAT, i);
        CHECK_ROW(!value, i);
        check_message(&err, "data.jsonl line 7: not valid JSON at line ");
        check_message(&err, " column ");
    }
}

static void test_length_bounds_the_text(void **state)
{
    (void)state;
    json_t *value = NULL;
    assert_int_equal(mm_json_parse("[1]garbage", 3, "probe", &value, NULL), MM_OK);
    assert_int_equal(json_array_size(value), 1);
    json_decref(value);
}

static void test_deep_nesting_is_an_error_not_a_crash(void **state)
{
    (void)state;
    mm_str deep = {0};
    for (int i = 0; i < 1000000; i++)
        mm_str_add_char(&deep, '[');
    json_t *value = NULL;
    assert_int_equal(mm_json_parse(deep.data, deep.length, "probe", &value, NULL), MM_EFORMAT);
    mm_str_drop(&deep);
}

static void test_write_keeps_order_and_bytes(void **state)
{
    (void)state;
    static const char text[] =
        "{\"z\":1,\"a\":[true,null,-5,\"\xE4\xB8\xAD\"],\"m\":{\"k\":9223372036854775807}}";
    json_t *value = NULL;
    assert_int_equal(mm_json_parse(text, strlen(text), "probe", &value, NULL), MM_OK);
    mm_str out = {0};
    mm_str_add(&out, ">");
    mm_json_write(value, &out);
    assert_string_equal(mm_str_text(&out) + 1, text);
    assert_int_equal(out.data[0], '>'); // appended
    mm_str_drop(&out);

    mm_str small;
    mm_str_init(&small, 8);
    mm_json_write(value, &small);
    assert_int_equal(small.status, MM_ELIMIT);
    mm_str_drop(&small);
    json_decref(value);
}

static double number_back(const char *text)
{
    json_t *value = NULL;
    mm_err err = {0};
    if (mm_json_parse(text, strlen(text), "number", &value, &err) != MM_OK)
        fail_msg("%s: %s", text, err.message);
    const double number = json_number_value(value);
    json_decref(value);
    return number;
}

static void test_numbers_read_back_equal(void **state)
{
    (void)state;
    static const double rows[] = {
        0.0,
        1.0,
        -1.0,
        0.1,
        1.0 / 3,
        2.5e-7,
        1e22,
        1e23,
        1e300,
        DBL_MAX,
        DBL_MIN,
        5e-324,
        123456789.123456789,
        4.35,
        0.3,
        DBL_EPSILON,
        1e15,
        1e16,
        9007199254740991.0,
        1.7976931348623155e308,
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mm_str out = {0};
        mm_json_add_number(&out, rows[i]);
        const double back = number_back(mm_str_text(&out));
        if (memcmp(&back, &rows[i], sizeof back) != 0)
            fail_msg("row %zu: %s", i, mm_str_text(&out));
        mm_str_drop(&out);
    }
    // Every bit pattern that is finite, by a walk through them.
    uint64_t bits = 0x123456789abcdef;
    for (int i = 0; i < 20000; i++) {
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) continue;
        mm_str out = {0};
        mm_json_add_number(&out, value);
        const double back = strtod(mm_str_text(&out), NULL);
        CHECK_ROW(memcmp(&back, &value, sizeof back) == 0, i);
        mm_str_drop(&out);
    }
}

static void test_number_texts(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } rows[] = {
        {0.1, "0.1"},
        {1, "1"},
        {-0.0, "-0"},
        {0.0005, "0.0005"},
        {5e-324, "4.94065645841247e-324"},
        {(double)NAN, "\"NaN\""},
        {(double)INFINITY, "\"Infinity\""},
        {-(double)INFINITY, "\"-Infinity\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mm_str out = {0};
        mm_json_add_number(&out, rows[i].value);
        if (strcmp(mm_str_text(&out), rows[i].text) != 0)
            fail_msg("row %zu: %s", i, mm_str_text(&out));
        mm_str_drop(&out);
    }
}

static void test_strings_are_safe_in_a_script_element(void **state)
{
    (void)state;
#define ROW(text, out)                                                                             \
    {                                                                                              \
        text, sizeof text - 1, out                                                                 \
    }
    static const struct {
        const char *text;
        size_t length;
        const char *out;
    } rows[] = {
        ROW("", "\"\""),
        ROW("plain \xE4\xB8\xAD \xF0\x9F\x98\x80", "\"plain \xE4\xB8\xAD \xF0\x9F\x98\x80\""),
        ROW("a\"b\\c/", "\"a\\\"b\\\\c/\""),
        ROW("\n\t\r\b\f\x7F", "\"\\u000a\\u0009\\u000d\\u0008\\u000c\\u007f\""),
        ROW("a\0b", "\"a\\u0000b\""),
        ROW("</script><!--&", "\"\\u003c/script\\u003e\\u003c!--\\u0026\""),
        ROW("\xE2\x80\xA8\xE2\x80\xA9", "\"\\u2028\\u2029\""),
        ROW("a\xFFz\xE4\xB8", "\"a\\ufffdz\\ufffd\\ufffd\""),
        ROW("\xED\xA0\x80", "\"\\ufffd\\ufffd\\ufffd\""),
    };
#undef ROW
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mm_str out = {0};
        mm_json_add_string(&out, rows[i].text, rows[i].length);
        if (strcmp(mm_str_text(&out), rows[i].out) != 0)
            fail_msg("row %zu: %s", i, mm_str_text(&out));
        mm_str_drop(&out);
    }
}

static void test_strings_read_back(void **state)
{
    (void)state;
    // Every code point but NUL, which the parser refuses by design, in one string.
    mm_str text = {0};
    for (uint32_t code = 1; code < 0x110000; code += code < 0x3000 ? 1 : 97) {
        if (code >= 0xD800 && code < 0xE000) continue;
        if (code < 0x80) {
            mm_str_add_char(&text, (char)code);
        } else if (code < 0x800) {
            mm_str_add_char(&text, (char)(0xC0 | code >> 6));
            mm_str_add_char(&text, (char)(0x80 | (code & 63)));
        } else if (code < 0x10000) {
            mm_str_add_char(&text, (char)(0xE0 | code >> 12));
            mm_str_add_char(&text, (char)(0x80 | (code >> 6 & 63)));
            mm_str_add_char(&text, (char)(0x80 | (code & 63)));
        } else {
            mm_str_add_char(&text, (char)(0xF0 | code >> 18));
            mm_str_add_char(&text, (char)(0x80 | (code >> 12 & 63)));
            mm_str_add_char(&text, (char)(0x80 | (code >> 6 & 63)));
            mm_str_add_char(&text, (char)(0x80 | (code & 63)));
        }
    }
    mm_str out = {0};
    mm_json_add_string(&out, text.data, text.length);
    json_t *value = NULL;
    mm_err err = {0};
    if (mm_json_parse(out.data, out.length, "string", &value, &err) != MM_OK)
        fail_msg("%s", err.message);
    assert_int_equal(json_string_length(value), text.length);
    assert_memory_equal(json_string_value(value), text.data, text.length);
    json_decref(value);
    mm_str_drop(&out);
    mm_str_drop(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_length_bounds_the_text),
        cmocka_unit_test(test_deep_nesting_is_an_error_not_a_crash),
        cmocka_unit_test(test_write_keeps_order_and_bytes),
        cmocka_unit_test(test_numbers_read_back_equal),
        cmocka_unit_test(test_number_texts),
        cmocka_unit_test(test_strings_are_safe_in_a_script_element),
        cmocka_unit_test(test_strings_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
