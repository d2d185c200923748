/* Tests of core/base/utf8.h: table 3-7 of the Unicode standard byte by byte, prefixes, and escaping
 * for a terminal. */
#include "core/base/utf8.h"
#include "tests/base/check.h"

static void test_table(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int length;
        int result;
        uint32_t code;
    } rows[] = {
        {"\x00", 1, 1, 0},
        {"A", 1, 1, 'A'},
        {"\x7F", 1, 1, 0x7F},
        {"\xC2\x80", 2, 2, 0x80},
        {"\xDF\xBF", 2, 2, 0x7FF},
        {"\xE0\xA0\x80", 3, 3, 0x800},
        {"\xE4\xB8\xAD", 3, 3, 0x4E2D},
        {"\xED\x9F\xBF", 3, 3, 0xD7FF},
        {"\xEE\x80\x80", 3, 3, 0xE000},
        {"\xEF\xBF\xBF", 3, 3, 0xFFFF},
        {"\xF0\x90\x80\x80", 4, 4, 0x10000},
        {"\xF0\x9F\x98\x80", 4, 4, 0x1F600},
        {"\xF4\x8F\xBF\xBF", 4, 4, 0x10FFFF},
        // What follows the sequence does not matter.
        {"\xC3\xA9z", 3, 2, 0xE9},
        {"A\xFF", 2, 1, 'A'},
        // Ill-formed: stray, overlong, surrogates, above U+10FFFF, bytes that never occur.
        {"\x80", 1, 0, 0},
        {"\xBF", 1, 0, 0},
        {"\xC0\x80", 2, 0, 0},
        {"\xC1\xBF", 2, 0, 0},
        {"\xC2\x7F", 2, 0, 0},
        {"\xC2\xC0", 2, 0, 0},
        {"\xE0\x9F\xBF", 3, 0, 0},
        {"\xE4\xB8\x41", 3, 0, 0},
        {"\xE4\x41\xAD", 3, 0, 0},
        {"\xED\xA0\x80", 3, 0, 0},
        {"\xED\xBF\xBF", 3, 0, 0},
        {"\xF0\x8F\xBF\xBF", 4, 0, 0},
        {"\xF0\x9F\x98\x41", 4, 0, 0},
        {"\xF4\x90\x80\x80", 4, 0, 0},
        {"\xF5\x80\x80\x80", 4, 0, 0},
        {"\xFE", 1, 0, 0},
        {"\xFF", 1, 0, 0},
        // Cut short: a proper beginning only.
        {"", 0, -1, 0},
        {"\xC3", 1, -1, 0},
        {"\xE4", 1, -1, 0},
        {"\xE4\xB8", 2, -1, 0},
        {"\xF0\x9F\x98", 3, -1, 0},
        {"\xE0\x80", 2, 0, 0},
        {"\xED\xA0", 2, 0, 0},
        {"\xF4\x90", 2, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t code = 0;
        // On the heap with its exact size, so that a sanitizer sees any read beyond it.
        char *exact = mm_strndup(rows[i].text, (size_t)rows[i].length);
        char *copy = mm_alloc((size_t)rows[i].length);
        memcpy(copy, exact, (size_t)rows[i].length);
        const int result = mm_utf8_next(copy, (size_t)rows[i].length, &code);
        CHECK_ROW(result == rows[i].result, i);
        if (result > 0) CHECK_ROW(code == rows[i].code, i);
        mm_free(copy);
        mm_free(exact);
    }
}

// The definition written out again, the slow way: decode, then look at the value.
static int reference(const unsigned char *s, int length)
{
    const int size = s[0] < 0x80 ? 1 : s[0] < 0xC0 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (size == 0 || size > length || s[0] >= 0xF8) return 0;
    uint32_t value = size == 1 ? s[0] : s[0] & (0x7Fu >> size);
    for (int i = 1; i < size; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        value = value << 6 | (s[i] & 63u);
    }
    if (value < least[size] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return 0;
    return size;
}

static void test_all_lead_and_second_bytes(void **state)
{
    (void)state;
    static const unsigned char tails[] = {0x00, 0x7F, 0x80, 0x9F, 0xBF, 0xC0, 0xFF};
    for (int lead = 0; lead < 256; lead++) {
        for (int second = 0; second < 256; second++) {
            for (size_t t = 0; t < sizeof tails; t++) {
                const unsigned char s[4] = {(unsigned char)lead, (unsigned char)second, tails[t],
                                            0x80};
                uint32_t code;
                CHECK_ROW(mm_utf8_next((const char *)s, 4, &code) == reference(s, 4),
                          lead << 16 | second << 8 | tails[t]);
            }
        }
    }
}

static void test_valid_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t prefix;
    } rows[] = {
        {"", 0},
        {"abc", 3},
        {"ab\xFF", 2},
        {"\xE4\xB8\xAD\xE6\x96", 3},
        {"\xE4\xB8\xAD\xE6\x96\x87", 6},
        {"\x80", 0},
        {"a\xED\xA0\x80z", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_ROW(mm_utf8_valid(rows[i].text, strlen(rows[i].text)) == rows[i].prefix, i);
}

/* One bad byte, or a good character, at every place of an otherwise plain text of every length. */
static void test_valid_prefix_of_plain_text(void **state)
{
    (void)state;
    char text[40];
    for (size_t length = 1; length <= sizeof text; length++) {
        for (size_t at = 0; at < length; at++) {
            memset(text, 'a', sizeof text);
            assert_int_equal(mm_utf8_valid(text, length), length);
            text[at] = '\xFF';
            assert_int_equal(mm_utf8_valid(text, length), at);
            memcpy(text + at, "\xC3\xA9", at + 1 < length ? 2 : 1);
            assert_int_equal(mm_utf8_valid(text, length), at + 1 < length ? length : at);
        }
    }
}

static void test_printable_and_valid(void **state)
{
    (void)state;
#define ROW(text, printable, valid)                                                                \
    {                                                                                              \
        text, sizeof text - 1, printable, valid                                                    \
    }
    static const struct {
        const char *text;
        size_t length;
        const char *printable;
        const char *valid;
    } rows[] = {
        ROW("", "", ""),
        ROW("a\tb\n", "a\tb\n", "a\tb\n"),
        ROW("\xE4\xB8\xAD\xF0\x9F\x98\x80", "\xE4\xB8\xAD\xF0\x9F\x98\x80",
            "\xE4\xB8\xAD\xF0\x9F\x98\x80"),
        ROW("\x1B[31mred", "\\x1b[31mred", "\x1B[31mred"),
        ROW("a\rb\x07", "a\\x0db\\x07", "a\rb\x07"),
        ROW("\x7F", "\\x7f", "\x7F"),
        ROW("\xC2\x9B"
            "31m",
            "\\x9b31m",
            "\xC2\x9B"
            "31m"), // the one-character CSI
        ROW("\xC2\xA0", "\xC2\xA0", "\xC2\xA0"),
        ROW("a\xE2\x80\xAE"
            "b",
            "a\\u{202e}b",
            "a\xE2\x80\xAE"
            "b"), // right-to-left override
        ROW("\xE2\x81\xA6\xE2\x81\xA9", "\\u{2066}\\u{2069}", "\xE2\x81\xA6\xE2\x81\xA9"),
        ROW("a\xFF\x80z", "a\xEF\xBF\xBD\xEF\xBF\xBDz", "a\xEF\xBF\xBD\xEF\xBF\xBDz"),
        ROW("\xE4\xB8", "\xEF\xBF\xBD\xEF\xBF\xBD", "\xEF\xBF\xBD\xEF\xBF\xBD"),
    };
#undef ROW
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mm_str out = {0};
        mm_utf8_add_printable(&out, rows[i].text, rows[i].length);
        if (strcmp(mm_str_text(&out), rows[i].printable) != 0)
            fail_msg("row %zu: printable %s", i, mm_str_text(&out));
        mm_str_clear(&out);
        mm_utf8_add_valid(&out, rows[i].text, rows[i].length);
        if (strcmp(mm_str_text(&out), rows[i].valid) != 0) fail_msg("row %zu: valid", i);
        assert_int_equal(mm_utf8_valid(mm_str_text(&out), out.length), out.length);
        mm_str_drop(&out);
    }
    mm_str out = {0};
    mm_utf8_add_printable(&out, "a\0b", 3);
    assert_string_equal(mm_str_text(&out), "a\\x00b");
    mm_str_drop(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_all_lead_and_second_bytes),
        cmocka_unit_test(test_valid_prefix),
        cmocka_unit_test(test_valid_prefix_of_plain_text),
        cmocka_unit_test(test_printable_and_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
