/* The HTML writer: nothing gets past the escaping, and what is opened is closed. */
#include "report/html.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void check_escape(const char *text, size_t length, const char *expected)
{
    mm_str out = {0};
    mm_html_escape(&out, text, length);
    assert_string_equal(mm_str_text(&out), expected);
    mm_str_drop(&out);
}

static void test_escape(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", ""},
        {"plain text", "plain text"},
        {"<b>&\"'</b>", "&lt;b&gt;&amp;&quot;&#39;&lt;/b&gt;"},
        {"&lt;", "&amp;lt;"},
        {"a\tb\nc", "a\tb\nc"},
        {"\x1b[31mred", "\\x1b[31mred"},
        {"cr\rlf", "cr\\x0dlf"},
        {"\x7f", "\\x7f"},
        {"\xC2\x85", "\\x85"},                       // a C1 control
        {"\xE2\x80\xAEgpj.exe", "\\u{202e}gpj.exe"}, // right-to-left override
        {"\xE2\x81\xA6x", "\\u{2066}x"},             // isolate
        {"\xEF\xBF\xBE", "\\u{fffe}"},               // noncharacter
        {"明月松间照", "明月松间照"},
        {"caf\xC3\xA9", "caf\xC3\xA9"},
        {"\xFF", "\xEF\xBF\xBD"},
        {"\xC0\xAFx", "\xEF\xBF\xBD\xEF\xBF\xBDx"},               // overlong slash
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, // surrogate
        {"\xE6\x98", "\xEF\xBF\xBD\xEF\xBF\xBD"},                 // cut in the middle
        {"\xE6<script>", "\xEF\xBF\xBD&lt;script&gt;"},           // a lead byte hides nothing
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_escape(cases[i].text, strlen(cases[i].text), cases[i].expected);
    check_escape("a\0b", 3, "a\\x00b");
}

// No byte, alone or after any other, may leave the writer as markup.
static void test_escape_pairs(void **state)
{
    (void)state;
    mm_str out = {0};
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            const char text[2] = {(char)a, (char)b};
            mm_str_clear(&out);
            mm_html_escape(&out, text, 2);
            assert_null(strpbrk(mm_str_text(&out), "<>\"'"));
        }
    }
    mm_str_drop(&out);
}

static void test_writer(void **state)
{
    (void)state;
    mm_str out = {0};
    mm_html html;
    mm_html_init(&html, &out);
    mm_html_begin(&html, "div", "a\"b");
    mm_html_attrf(&html, "data-n", "%d<", 3);
    mm_html_open(&html, "br");
    mm_html_leaf(&html, "p", NULL, "x < y");
    mm_html_leaf(&html, "bdi", NULL, NULL);
    mm_html_open(&html, "details");
    mm_html_attr(&html, "open", NULL);
    mm_html_raw_static(&html, "<i>raw</i>");
    assert_int_equal(html.depth, 2);
    mm_html_close_to(&html, 0);
    assert_string_equal(mm_str_text(&out), "<div class=\"a&quot;b\" data-n=\"3&lt;\"><br>"
                                           "<p>x &lt; y</p><bdi></bdi><details open><i>raw</i>"
                                           "</details></div>");
    mm_str_drop(&out);
}

static void test_json_cannot_close_its_script(void **state)
{
    (void)state;
    mm_str out = {0};
    mm_str json = {0};
    mm_str_add(&json, "[\"</script><!--<script>\"]");
    mm_html html;
    mm_html_init(&html, &out);
    mm_html_json(&html, "d", &json);
    assert_string_equal(mm_str_text(&out),
                        "<script type=\"application/json\" id=\"d\">[\"\\u003c/script>\\u003c!--"
                        "\\u003cscript>\"]</script>");
    mm_str_drop(&json);
    mm_str_drop(&out);
}

static void test_failure_sticks(void **state)
{
    (void)state;
    mm_str out;
    mm_str_init(&out, 16);
    mm_html html;
    mm_html_init(&html, &out);
    mm_html_leaf(&html, "p", NULL, "more than sixteen bytes");
    mm_html_leaf(&html, "p", NULL, "and again");
    assert_int_equal(mm_str_check(&out, NULL), MM_ELIMIT);
    mm_str_drop(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape),         cmocka_unit_test(test_escape_pairs),
        cmocka_unit_test(test_writer),         cmocka_unit_test(test_json_cannot_close_its_script),
        cmocka_unit_test(test_failure_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
