/* Tests of runner/match.h: which answers count as the expected one. */
#include "runner/match.h"
#include "tests/runner/check.h"

static void check(mm_match_kind kind, const char *answer, const char *expected, bool verdict)
{
    bool found = !verdict;
    mm_err err = {0};
    if (mm_match(kind, answer, expected, &found, &err) != MM_OK)
        fail_msg("'%s' and '%s': %s", answer, expected, err.message);
    if (found != verdict)
        fail_msg("'%s' and '%s': expected %s", answer, expected, verdict ? "a match" : "none");
}

static void test_exact_text(void **state)
{
    (void)state;
    check(MM_MATCH_EXACT, "56", "56", true);
    check(MM_MATCH_EXACT, " 56\n", "56", true);
    check(MM_MATCH_EXACT, "５６", "56", true);
    check(MM_MATCH_EXACT, "　北京　", "北京", true);
    check(MM_MATCH_EXACT, "Ａ＋Ｂ", "A+B", true);
    check(MM_MATCH_EXACT, "<think>\n7x8\n</think>\n\n56", "56", true);
    check(MM_MATCH_EXACT, "56.", "56", false);
    check(MM_MATCH_EXACT, "北京市", "北京", false);
    check(MM_MATCH_EXACT, "", "56", false);
    check(MM_MATCH_EXACT, "", "", true);
    check(MM_MATCH_EXACT,
          "\xff"
          "56",
          "56", false);
}

static void test_contained_text(void **state)
{
    (void)state;
    check(MM_MATCH_CONTAINS, "答案是北京。", "北京", true);
    check(MM_MATCH_CONTAINS, "７ × ８ ＝ ５６", "56", true);
    check(MM_MATCH_CONTAINS, "<think>北京</think>上海", "北京", false);
    check(MM_MATCH_CONTAINS, "beijing", "Beijing", false);
}

static void test_numbers(void **state)
{
    (void)state;
    check(MM_MATCH_NUMBER, "7 times 8 is 56.", "56", true);
    check(MM_MATCH_NUMBER, "7×8=５６", "56", true);
    check(MM_MATCH_NUMBER, "56, since 7 times 8", "56", false); // the last one counts
    check(MM_MATCH_NUMBER, "about 1,234.50 yuan", "1234.5", true);
    check(MM_MATCH_NUMBER, "1,23", "23", true); // no thousands: two numbers
    check(MM_MATCH_NUMBER, "3 - 5 = -2", "-2", true);
    check(MM_MATCH_NUMBER, "3-5=−2", "-2", true);
    check(MM_MATCH_NUMBER, "5-2", "2", true); // a term, not a sign
    check(MM_MATCH_NUMBER, "5 -2", "-2", false);
    check(MM_MATCH_NUMBER, "2.", "2", true);
    check(MM_MATCH_NUMBER, "none", "2", false);
    check(MM_MATCH_NUMBER, "", "2", false);
    check(MM_MATCH_NUMBER, "0.30", "0.3", true);
    bool found;
    mm_err err = {0};
    assert_int_equal(mm_match(MM_MATCH_NUMBER, "2", "two", &found, &err), MM_EFORMAT);
    assert_non_null(strstr(err.message, "no number in 'two'"));
}

static void test_scripts(void **state)
{
    (void)state;
    assert_int_equal(mm_script_of("3 + 4 = ?"), MM_SCRIPT_NONE);
    assert_int_equal(mm_script_of(""), MM_SCRIPT_NONE);
    assert_int_equal(mm_script_of("What is 3 + 4?"), MM_SCRIPT_LATIN);
    assert_int_equal(mm_script_of("三加四等于几？"), MM_SCRIPT_HAN);
    assert_int_equal(mm_script_of("我是 MiniMind，一个助手。"), MM_SCRIPT_HAN);
    assert_int_equal(mm_script_of("The word 好 means good."), MM_SCRIPT_LATIN);
    assert_int_equal(mm_script_of("<think>so it is seven</think>七"), MM_SCRIPT_HAN);
    assert_int_equal(mm_script_of("\xff\xfe好"), MM_SCRIPT_HAN); // stray bytes are no letters
}

static void test_names(void **state)
{
    (void)state;
    mm_match_kind kind;
    mm_err err = {0};
    assert_int_equal(mm_match_kind_parse("number", &kind, &err), MM_OK);
    assert_int_equal(kind, MM_MATCH_NUMBER);
    assert_int_equal(mm_match_kind_parse("close", &kind, &err), MM_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_text), cmocka_unit_test(test_contained_text),
        cmocka_unit_test(test_numbers),    cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
