/* Numbers, widths and tables. */
#include "check.h"

#include "runner/output.h"
#include "runner/width.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static void writes_counts(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } ROWS[] = {{0, "0"},         {7, "7"},          {999, "999"},      {999.4, "999"},
                {1000, "1.00k"},  {1234, "1.23k"},   {12345, "12.3k"},  {123456, "123k"},
                {999499, "999k"}, {999500, "1.00M"}, {1.23e6, "1.23M"}, {63912192, "63.9M"},
                {2.5e9, "2.50G"}, {0.5, "0.50"},     {-1500, "-1.50k"}, {1e18, "1000P"},
                {9.996, "10.0"},  {(double)NAN, "-"}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[MM_NUMBER_BYTES];
        mm_count_text(ROWS[i].value, text);
        if (strcmp(text, ROWS[i].text) != 0)
            fail_msg("%.15g: expected %s, found %s", ROWS[i].value, ROWS[i].text, text);
    }
}

static void writes_bytes(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } ROWS[] = {{0, "0 B"},
                {1023, "1023 B"},
                {1024, "1.0 KiB"},
                {1536, "1.5 KiB"},
                {1048575, "1.0 MiB"},
                {200.0 * 1048576, "200 MiB"},
                {1.5 * 1073741824.0, "1.5 GiB"}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[MM_NUMBER_BYTES];
        mm_bytes_text(ROWS[i].value, text);
        if (strcmp(text, ROWS[i].text) != 0)
            fail_msg("%.15g: expected %s, found %s", ROWS[i].value, ROWS[i].text, text);
    }
}

static void writes_reals(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } ROWS[] = {{2.3144, "2.314"},  {6.19998, "6.200"},  {0.4742, "0.4742"},
                {12.345, "12.35"},  {387.06, "387.1"},   {1234.4, "1234"},
                {5e-4, "0.0005"},   {4.1e-5, "4.1e-05"}, {1e6, "1e+06"},
                {-2.5, "-2.500"},   {(double)NAN, "-"},  {(double)INFINITY, "inf"},
                {9.99996, "10.00"}, {999.96, "1000"},    {0, "0"}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[MM_NUMBER_BYTES];
        mm_real_text(ROWS[i].value, text);
        if (strcmp(text, ROWS[i].text) != 0)
            fail_msg("%.15g: expected %s, found %s", ROWS[i].value, ROWS[i].text, text);
    }
}

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

/* Runs `print` with standard output in a file and returns what it wrote. */
static void captured(void (*print)(const mm_context *), const mm_context *context, char *out,
                     size_t bytes)
{
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    dup2(fileno(file), STDOUT_FILENO);
    print(context);
    mm_out_flush();
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    const size_t got = fread(out, 1, bytes - 1, file);
    out[got] = '\0';
    fclose(file);
}

static void print_table(const mm_context *context)
{
    static const char *const HEADERS[] = {"ID", "NAME", "LOSS"};
    mm_table *table = NULL;
    assert_int_equal(mm_table_new(&table, HEADERS, 3, NULL), MM_OK);
    mm_table_drops(table, 2, 1);
    mm_table_cell(table, "%d", 7);
    mm_table_cell(table, "%s", "\xE5\xB0\x8F\xE6\xA8\xA1\xE5\x9E\x8B");
    mm_table_color(table, MM_COLOR_GREEN);
    mm_table_cell(table, "%s", "2.5");
    mm_table_cell(table, "%d", 12);
    mm_table_cell(table, "%s", "a\x1b[31m\nb");
    mm_table_cell(table, "-");
    mm_table_print(table, context);
}

static void aligns_tables(void **state)
{
    (void)state;
    char text[1024];
    captured(print_table, &(mm_context){0}, text, sizeof text);
    assert_string_equal(text, "ID  NAME         LOSS\n"
                              " 7  \xE5\xB0\x8F\xE6\xA8\xA1\xE5\x9E\x8B        2.5\n"
                              "12  a\\x1b[31m b     -\n");
}

static void fits_tables(void **state)
{
    (void)state;
    char text[1024];
    // Too narrow for all: the column that may go is left out.
    captured(print_table, &(mm_context){.columns = 17}, text, sizeof text);
    assert_string_equal(text, "ID  NAME\n 7  \xE5\xB0\x8F\xE6\xA8\xA1\xE5\x9E\x8B\n"
                              "12  a\\x1b[31m b\n");
    // Narrower still: the text is cut, and says so.
    captured(print_table, &(mm_context){.columns = 12, .utf8_out = true}, text, sizeof text);
    assert_string_equal(text, "ID  NAME\n 7  \xE5\xB0\x8F\xE6\xA8\xA1\xE5\x9E\x8B\n"
                              "12  a\\x1b[3\xE2\x80\xA6\n");
}

static void print_json_values(const mm_context *context)
{
    (void)context;
    json_t *value =
        json_pack("{s:f, s:o, s:o, s:o, s:o, s:[i,n]}", "rate", 0.1, "nan",
                  mm_json_of_real((double)NAN), "inf", mm_json_of_real((double)INFINITY), "bad",
                  mm_json_of_text("\xFF<"), "none", mm_json_of_text(NULL), "list", 1);
    mm_out_json(value);
    json_decref(value);
}

static void writes_json(void **state)
{
    (void)state;
    char text[1024];
    captured(print_json_values, &(mm_context){0}, text, sizeof text);
    assert_string_equal(text, "{\"rate\":0.1,\"nan\":null,\"inf\":\"Infinity\","
                              "\"bad\":\"\xEF\xBF\xBD<\",\"none\":null,\"list\":[1,null]}\n");
}

static void print_hostile(const mm_context *context)
{
    mm_out("%s\n", "a\x1b]0;title\x07\r\xE2\x80\xAE"
                   "b\tc");
    mm_out_color(context, MM_COLOR_RED);
}

static void makes_control_characters_visible(void **state)
{
    (void)state;
    char text[1024];
    captured(print_hostile, &(mm_context){0}, text, sizeof text);
    assert_string_equal(text, "a\\x1b]0;title\\x07\\x0d\\u{202e}b\tc\n");
    captured(print_hostile, &(mm_context){.color_out = true}, text, sizeof text);
    assert_non_null(strstr(text, "\x1b[31m"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_counts),
        cmocka_unit_test(writes_bytes),
        cmocka_unit_test(writes_reals),
        cmocka_unit_test(measures_width),
        cmocka_unit_test(cuts_between_characters),
        cmocka_unit_test(aligns_tables),
        cmocka_unit_test(fits_tables),
        cmocka_unit_test(writes_json),
        cmocka_unit_test(makes_control_characters_visible),
    };
    return cmocka_run_group_tests_name("runner/text", tests, NULL, NULL);
}
