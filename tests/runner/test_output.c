/* What goes to stdout: tables, JSON, and nothing that steers the terminal. */
#include "check.h"

#include "runner/output.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

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
        cmocka_unit_test(aligns_tables),
        cmocka_unit_test(fits_tables),
        cmocka_unit_test(writes_json),
        cmocka_unit_test(makes_control_characters_visible),
    };
    return cmocka_run_group_tests_name("runner/output", tests, NULL, NULL);
}
