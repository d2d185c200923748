/* Tests of core/base/width.h: columns of scripts, marks and ill-formed bytes. */
#include "core/base/width.h"
#include "tests/base/check.h"

static void measures_width(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int width;
    } ROWS[] = {{"", 0},
                {"abc", 3},
                {"\xE5\xB0\x8F\xE6\xA8\xA1", 4}, // two ideographs
                {"e\xCC\x81", 1},                // e and a combining acute
                {"\xED\x95\x9C", 2},             // a Hangul syllable
                {"\xE3\x81\x82", 2},             // hiragana
                {"\xEF\xBC\xA1", 2},             // full-width A
                {"\xF0\x9F\x98\x80", 2},         // an emoji
                {"\xE2\x80\xA6\xC2\xB7", 2},     // ellipsis, middle dot
                {"a\xE2\x80\x8D"
                 "b",
                 2},             // zero-width joiner
                {"\xFF\xFE", 2}, // ill-formed: two replacement characters
                {"\x1b[31m", 4}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++)
        CHECK_ROW(mm_text_width(ROWS[i].text, strlen(ROWS[i].text)) == ROWS[i].width, i);
    for (size_t i = 1; i < mm_width_wide_count; i++)
        CHECK_ROW(mm_width_wide[i - 1].last < mm_width_wide[i].first, i);
    for (size_t i = 1; i < mm_width_none_count; i++)
        CHECK_ROW(mm_width_none[i - 1].last < mm_width_none[i].first, i);
}

static void cuts_between_characters(void **state)
{
    (void)state;
    const char *text = "a\xE5\xB0\x8F\xE6\xA8\xA1z"; // widths 1 2 2 1
    static const size_t BYTES[] = {0, 1, 1, 4, 4, 7, 8, 8};
    for (size_t columns = 0; columns < sizeof BYTES / sizeof BYTES[0]; columns++)
        CHECK_ROW(mm_text_fit(text, strlen(text), (int)columns) == BYTES[columns], columns);
    // A combining mark stays with its letter.
    assert_int_equal(mm_text_fit("e\xCC\x81x", 4, 1), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measures_width),
        cmocka_unit_test(cuts_between_characters),
    };
    return cmocka_run_group_tests_name("base/width", tests, NULL, NULL);
}
