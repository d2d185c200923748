/* Tests of core/data/rows.h: every shape, every bad reason with its line, thresholds, compressed
 * and damaged files, and the limits. */
#include "tests/data/fixtures.h"

#include "core/base/rng.h"
#include "core/base/utf8.h"

/* Reads a whole file; *report may be NULL. The rows' description is appended to `out`. */
static mm_status read_all(const char *path, mm_row_format format, mm_str *out,
                          mm_row_report *report, mm_err *err)
{
    mm_row_reader *reader;
    mm_status status = MM_OK;
    const mm_row *row;
    MM_TRY(mm_row_reader_open(&reader, path, format, err));
    do {
        MM_GO(mm_row_reader_next(reader, &row, err));
        if (row) describe_row(row, out);
    } while (row);
    if (report) *report = *mm_row_reader_report(reader);
done:
    mm_row_reader_close(reader);
    return status;
}

#define HI   "{\"role\":\"user\",\"content\":\"hi\"}"
#define YO   "{\"role\":\"assistant\",\"content\":\"yo\"}"
#define NO   "{\"role\":\"assistant\",\"content\":\"no\"}"
#define TOOL "{\"name\":\"f\"}"

typedef struct good_case {
    const char *file; /* its name */
    const char *content;
    mm_row_format found;
    const char *rows;
} good_case;

static const good_case GOOD[] = {
    {"t.jsonl", "{\"text\":\"a b\"}\n{\"text\":\"雨\"}\n", MM_ROWS_TEXT, "1 a b\n2 雨\n"},
    {"bom.jsonl", "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n  \n{\"text\":\"b\\r\"}\r\n", MM_ROWS_TEXT,
     "1 a\n4 b\r\n"},
    {"noend.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}", MM_ROWS_TEXT, "1 a\n2 b\n"},
    {"array.json", "[{\"text\":\"a]\\\",\"},\n{\"text\":\"b\"} ]\n ", MM_ROWS_TEXT,
     "1 a]\",\n2 b\n"},
    {"bom.json", "\xEF\xBB\xBF\n [\n {\n \"text\": \"a\" } ]", MM_ROWS_TEXT, "1 a\n"},
    {"chat.jsonl", "{\"conversations\":[" HI "," YO "]}", MM_ROWS_CONVERSATIONS, "1 u:hi a:yo\n"},
    {"messages.jsonl", "{\"messages\":[" HI "," YO "],\"tools\":[" TOOL "]}", MM_ROWS_CONVERSATIONS,
     "1 u:hi a:yo #[{\"name\":\"f\"}]\n"},
    {"think.jsonl",
     "{\"conversations\":[" HI
     ",{\"role\":\"assistant\",\"content\":\"yo\",\"reasoning_content\":\"hm\",\"tools\":null}]}",
     MM_ROWS_CONVERSATIONS, "1 u:hi a:yo(hm)\n"},
    {"tools.jsonl",
     "{\"conversations\":[{\"role\":\"system\",\"content\":\"\",\"tools\":\"[{\\\"name\\\":"
     "\\\"f\\\"}]"
     "\"}," HI
     ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":\"[{\\\"name\\\":\\\"f\\\","
     "\\\"arguments\\\":{}}]\"},{\"role\":\"tool\",\"content\":\"7\"}]}",
     MM_ROWS_CONVERSATIONS,
     "1 s: u:hi a:![{\"name\":\"f\",\"arguments\":{}}] t:7 #[{\"name\":\"f\"}]\n"},
    {"openai.jsonl",
     "{\"messages\":[" HI
     ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{"
     "\"name\":\"f\"}}]}]}",
     MM_ROWS_CONVERSATIONS, "1 u:hi a:![{\"function\":{\"name\":\"f\"}}]\n"},
    {"norole.jsonl", "{\"conversations\":[{\"content\":\"q\"},{\"content\":\"a\"}]}",
     MM_ROWS_CONVERSATIONS, "1 u:q a:a\n"},
    {"gt.jsonl",
     "{\"conversations\":[" HI ",{\"role\":\"assistant\",\"content\":\"\"}],\"gt\":[\"42\"]}",
     MM_ROWS_CONVERSATIONS, "1 u:hi a: =[\"42\"]\n"},
    {"sharegpt.jsonl",
     "{\"system\":\"be "
     "good\",\"tools\":\"[{\\\"name\\\":\\\"f\\\"}]\",\"conversations\":[{\"from\":"
     "\"human\",\"value\":\"hi\"},{\"from\":\"function_call\",\"value\":\"{\\\"name\\\":\\\"f\\\"}"
     "\"},{"
     "\"from\":\"observation\",\"value\":\"7\"},{\"from\":\"gpt\",\"value\":\"yo\"}]}",
     MM_ROWS_SHAREGPT, "1 s:be good u:hi a:![{\"name\":\"f\"}] t:7 a:yo #[{\"name\":\"f\"}]\n"},
    {"own_system.jsonl",
     "{\"system\":\"outer\",\"conversations\":[{\"from\":\"system\",\"value\":\"inner\"},{\"from\":"
     "\"human\",\"value\":\"q\"}]}",
     MM_ROWS_SHAREGPT, "1 s:inner u:q\n"},
    {"alpaca.json",
     "[{\"instruction\":\"add\",\"input\":\"1 "
     "2\",\"output\":\"3\"},{\"instruction\":\"hi\",\"input\":"
     "\"\",\"output\":\"yo\",\"system\":\"s\",\"history\":[[\"q\",\"a\"]]}]",
     MM_ROWS_ALPACA, "1 u:add\n1 2 a:3\n2 s:s u:q a:a u:hi a:yo\n"},
    {"prompt.jsonl",
     "{\"prompt\":\"q\",\"completion\":\"a\"}\n{\"prompt\":[" HI "],\"completion\":[" YO "]}",
     MM_ROWS_PROMPT, "1 u:q a:a\n2 u:hi a:yo\n"},
    {"dpo.jsonl", "{\"chosen\":[" HI "," YO "],\"rejected\":[" HI "," NO "]}", MM_ROWS_PREFERENCE,
     "1 u:hi a:yo / u:hi a:no\n"},
    {"triple.jsonl",
     "{\"prompt\":\"q\",\"chosen\":\"yes\",\"rejected\":\"no\"}\n{\"instruction\":\"q\",\"input\":"
     "\"i\","
     "\"chosen\":\"yes\",\"rejected\":\"no\"}\n{\"prompt\":\"hi\",\"chosen\":[" HI "," YO
     "],\"rejected\":[" HI "," NO "]}",
     MM_ROWS_TRIPLE,
     "1 u:q a:yes / u:q a:no\n2 u:q\ni a:yes / u:q\ni a:no\n3 u:hi a:yo / u:hi a:no\n"},
    {"pair.json",
     "[{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"}],\"chosen\":{\"from\":\"gpt\","
     "\"value\":\"yes\"},\"rejected\":{\"from\":\"gpt\",\"value\":\"no\"}}]",
     MM_ROWS_TRIPLE, "1 u:q a:yes / u:q a:no\n"},
    {"book.txt", "one\r\n\r\ntwo\n\n\n", MM_ROWS_JOINED, "1 one\n\ntwo\n"},
    // The name decides for plain text, whatever it holds.
    {"odd.txt", "{\"text\":\"a\"}\n", MM_ROWS_JOINED, "1 {\"text\":\"a\"}\n"}};

static void test_every_shape_is_found_and_read(void **state)
{
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        char *path = path_in(*state, GOOD[i].file);
        mm_str rows = {0};
        mm_row_report report;
        mm_err err = {0};
        write_text(path, GOOD[i].content);
        if (read_all(path, MM_ROWS_AUTO, &rows, &report, &err) != MM_OK)
            fail_msg("%s: %s", GOOD[i].file, err.message);
        if (report.bad)
            fail_msg("%s: %s: %s", GOOD[i].file, mm_bad_reason_text(report.first[0].reason),
                     report.first[0].detail);
        assert_string_equal(mm_row_format_name(report.format), mm_row_format_name(GOOD[i].found));
        assert_string_equal(mm_str_text(&rows), GOOD[i].rows);
        assert_int_equal(mm_row_report_check(&report, path, false, NULL), MM_OK);
        mm_str_drop(&rows);
        mm_free(path);
    }
}

static void test_lines_and_joined_cut_as_they_say(void **state)
{
    char *path = path_in(*state, "text");
    mm_str rows = {0};
    mm_str content = {0};
    write_text(path, "one\n\n  \ntwo\r\nthree");
    CHECK_OK(read_all(path, MM_ROWS_LINES, &rows, NULL, ok_err));
    assert_string_equal(mm_str_text(&rows), "1 one\n4 two\n5 three\n");
    for (int i = 0; i < 1000; i++)
        mm_str_addf(&content, "line %03d\n", i);
    write_bytes(path, content.data, content.length);
    mm_row_reader *reader;
    const mm_row *row;
    mm_str joined = {0};
    int count = 0;
    CHECK_OK(mm_row_reader_open(&reader, path, MM_ROWS_JOINED, ok_err));
    for (;;) {
        CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
        if (!row) break;
        if (count < 4) assert_in_range(row->text_bytes, 2048, 2048 + 16);
        mm_str_add_bytes(&joined, row->text, row->text_bytes);
        mm_str_add_char(&joined, '\n');
        count++;
    }
    assert_int_equal(count, 5);
    assert_string_equal(mm_str_text(&joined), mm_str_text(&content)); // nothing lost, nothing twice
    mm_row_reader_close(reader);
    mm_str_drop(&joined);
    mm_str_drop(&content);
    mm_str_drop(&rows);
    mm_free(path);
}

typedef struct bad_case {
    const char *row; /* the second of three lines; the others are good */
    mm_bad_reason reason;
    const char *detail;
} bad_case;

#define CHAT_GOOD "{\"conversations\":[" HI "," YO "]}"

static const bad_case BAD_CHATS[] = {
    {"{\"conversations\":[", MM_BAD_JSON, "column"},
    {"{\"conversations\":[],\"conversations\":[]}", MM_BAD_JSON, "duplicate"},
    {CHAT_GOOD " x", MM_BAD_JSON, "end of file expected"},
    {"{\"conversations\":[{\"role\":\"user\",\"content\":\"\xFF\"}]}", MM_BAD_UTF8, "byte 45"},
    {"[1]", MM_BAD_FIELD, "not a JSON object"},
    {"{\"id\":1}", MM_BAD_FIELD, "no \"conversations\""},
    {"{\"conversations\":\"x\"}", MM_BAD_FIELD, "not a list"},
    {"{\"conversations\":[1]}", MM_BAD_FIELD, "message 1 is not an object"},
    {"{\"conversations\":[{\"role\":\"user\"}]}", MM_BAD_FIELD, "no \"content\""},
    {"{\"conversations\":[{\"role\":\"user\",\"content\":3}]}", MM_BAD_FIELD, "\"content\" is not"},
    {"{\"conversations\":[" HI ",{\"content\":\"x\"}]}", MM_BAD_FIELD, "no \"role\""},
    {"{\"conversations\":[{\"role\":\"user\",\"content\":\"x\",\"tools\":\"[{\"}]}", MM_BAD_FIELD,
     "tools: not valid JSON"},
    {"{\"conversations\":[{\"role\":\"user\",\"content\":\"x\",\"tools\":[1]}]}", MM_BAD_FIELD,
     "entry 1 is not an object"},
    {"{\"conversations\":[" HI "],\"gt\":\"42\"}", MM_BAD_FIELD, "\"gt\" is not a list"},
    {"{\"conversations\":[]}", MM_BAD_EMPTY, "no messages"},
    {"{\"conversations\":[{\"role\":\"user\",\"content\":\" \"}]}", MM_BAD_EMPTY, "all messages"},
    {"{\"conversations\":[{\"role\":\"moderator\",\"content\":\"x\"}]}", MM_BAD_ROLE, "moderator"},
    {"{\"text\":\"x\"}", MM_BAD_SHAPE, "a text row in a file of conversations rows"},
    {"{\"conversations\":[{\"from\":\"human\",\"value\":\"x\"}]}", MM_BAD_SHAPE, "a sharegpt row"},
    {"{\"conversations\":[" HI "],\"chosen\":[" YO "],\"rejected\":[" NO "]}", MM_BAD_SHAPE,
     "a triple row"}};

static const bad_case BAD_TEXTS[] = {{"{\"text\":1}", MM_BAD_FIELD, "\"text\" is not a string"},
                                     {"{\"text\":null}", MM_BAD_FIELD, "no \"text\""},
                                     {"{\"text\":\" \\n\"}", MM_BAD_EMPTY, "\"text\" is empty"},
                                     {"{\"text\":\"a\\u0000b\"}", MM_BAD_JSON, "\\u0000"},
                                     {"{\"text\":\"\\ud800\"}", MM_BAD_JSON, "D800"},
                                     {"nonsense", MM_BAD_JSON, "invalid token"}};

static const bad_case BAD_PAIRS[] = {
    {"{\"chosen\":[" HI "],\"rejected\":[" HI "," NO "]}", MM_BAD_ROLE, "end with the assistant"},
    {"{\"chosen\":[" YO "],\"rejected\":[" NO "]}", MM_BAD_FIELD, "no question"},
    {"{\"chosen\":[],\"rejected\":[" HI "," NO "]}", MM_BAD_EMPTY, "\"chosen\" is empty"},
    {"{\"chosen\":[" HI ",{\"role\":\"assistant\",\"content\":\"\"}],\"rejected\":[" HI "," NO "]}",
     MM_BAD_EMPTY, "chosen answer is empty"},
    {"{\"chosen\":4,\"rejected\":[" HI "," NO "]}", MM_BAD_FIELD, "neither text nor messages"},
    {"{\"chosen\":[" HI "," YO "]}", MM_BAD_FIELD, "no \"rejected\""}};

static const bad_case BAD_ALPACAS[] = {
    {"{\"instruction\":\"x\",\"output\":\"\"}", MM_BAD_EMPTY, "\"output\" is empty"},
    {"{\"instruction\":\"\",\"output\":\"x\"}", MM_BAD_EMPTY, "\"instruction\" is empty"},
    {"{\"instruction\":\"x\"}", MM_BAD_FIELD, "no \"output\""},
    {"{\"instruction\":\"x\",\"output\":\"y\",\"history\":[[\"q\"]]}", MM_BAD_FIELD, "entry 1"}};

static const bad_case BAD_SHAREGPTS[] = {
    {"{\"conversations\":[{\"from\":\"robot\",\"value\":\"x\"}]}", MM_BAD_ROLE, "robot"},
    {"{\"conversations\":[{\"from\":\"human\"}]}", MM_BAD_FIELD, "no \"value\""},
    {"{\"conversations\":[{\"from\":\"function_call\",\"value\":\"f(x)\"}]}", MM_BAD_FIELD,
     "function_call: not valid JSON"}};

static void check_bad(const char *dir, const char *good, const bad_case *cases, size_t count)
{
    char *path = path_in(dir, "bad.jsonl");
    for (size_t i = 0; i < count; i++) {
        mm_str content = {0};
        mm_str rows = {0};
        mm_row_report report;
        mm_err err = {0};
        mm_str_addf(&content, "%s\n%s\n%s\n", good, cases[i].row, good);
        write_bytes(path, content.data, content.length);
        CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
        if (report.rows != 2 || report.bad != 1) fail_msg("%s: not refused", cases[i].row);
        if (report.first[0].reason != cases[i].reason || report.first[0].line != 2 ||
            !strstr(report.first[0].detail, cases[i].detail))
            fail_msg("%s: line %lld, %s: %s", cases[i].row, (long long)report.first[0].line,
                     mm_bad_reason_text(report.first[0].reason), report.first[0].detail);
        assert_int_equal(report.bad_by_reason[cases[i].reason], 1);
        assert_int_equal(mm_row_report_check(&report, path, false, &err), MM_EFORMAT);
        check_message(&err, "bad.jsonl: 1 of 3 rows are bad");
        check_message(&err, "line 2");
        check_message(&err, mm_bad_reason_text(cases[i].reason));
        assert_int_equal(mm_row_report_check(&report, path, true, &err), MM_OK);
        mm_str_drop(&rows);
        mm_str_drop(&content);
    }
    mm_free(path);
}

static void test_every_bad_row_is_named_with_its_line(void **state)
{
    static const char TEXT[] = "{\"text\":\"good\"}";
    static const char PAIR[] = "{\"chosen\":[" HI "," YO "],\"rejected\":[" HI "," NO "]}";
    static const char ALPACA[] = "{\"instruction\":\"q\",\"output\":\"a\"}";
    static const char SHAREGPT[] = "{\"conversations\":[{\"from\":\"human\",\"value\":\"x\"}]}";
    check_bad(*state, CHAT_GOOD, BAD_CHATS, sizeof BAD_CHATS / sizeof BAD_CHATS[0]);
    check_bad(*state, TEXT, BAD_TEXTS, sizeof BAD_TEXTS / sizeof BAD_TEXTS[0]);
    check_bad(*state, PAIR, BAD_PAIRS, sizeof BAD_PAIRS / sizeof BAD_PAIRS[0]);
    check_bad(*state, ALPACA, BAD_ALPACAS, sizeof BAD_ALPACAS / sizeof BAD_ALPACAS[0]);
    check_bad(*state, SHAREGPT, BAD_SHAREGPTS, sizeof BAD_SHAREGPTS / sizeof BAD_SHAREGPTS[0]);
}

static void test_array_elements_are_counted(void **state)
{
    char *path = path_in(*state, "a.json");
    mm_str rows = {0};
    mm_row_report report;
    mm_err err = {0};
    write_text(path, "[{\"text\":\"a\"},\n{\"text\":3},{\"text\":\"c\"} {},]");
    CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
    assert_string_equal(mm_str_text(&rows), "1 a\n");
    assert_true(report.is_array);
    assert_int_equal(report.bad, 3); // wrong type, missing comma, nothing after the last comma
    assert_int_equal(report.first[0].line, 2);
    assert_int_equal(report.first[1].reason, MM_BAD_JSON);
    assert_int_equal(mm_row_report_check(&report, path, false, &err), MM_EFORMAT);
    check_message(&err, "first at element 2");
    mm_str_drop(&rows);
    mm_free(path);
}

static void test_one_in_a_thousand_may_be_bad(void **state)
{
    char *path = path_in(*state, "t.jsonl");
    for (int extra = 0; extra < 2; extra++) {
        mm_str content = {0};
        mm_str rows = {0};
        mm_row_report report;
        mm_err err = {0};
        for (int i = 0; i < 1998; i++)
            mm_str_add(&content, "{\"text\":\"a\"}\n");
        for (int i = 0; i < 2 + extra; i++)
            mm_str_add(&content, "{\"text\":1}\n");
        write_bytes(path, content.data, content.length);
        CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
        assert_int_equal(report.bad, 2 + extra);
        assert_int_equal(mm_row_report_check(&report, path, false, &err),
                         extra ? MM_EFORMAT : MM_OK);
        if (extra) check_message(&err, "3 of 2001 rows are bad");
        mm_str_drop(&content);
        mm_str_drop(&rows);
    }
    // Skipping cannot make a data set of nothing.
    const mm_row_report nothing_good = {.bad = 4, .n_first = 1};
    assert_int_equal(mm_row_report_check(&nothing_good, path, true, NULL), MM_EFORMAT);
    mm_free(path);
}

static void test_the_first_ten_bad_rows_are_kept(void **state)
{
    char *path = path_in(*state, "t.jsonl");
    mm_str content = {0};
    mm_str rows = {0};
    mm_row_report report;
    mm_str_add(&content, "{\"text\":\"a\"}\n");
    for (int i = 0; i < 25; i++)
        mm_str_add(&content, "?\n");
    write_bytes(path, content.data, content.length);
    CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
    assert_int_equal(report.bad, 25);
    assert_int_equal(report.n_first, MM_BAD_ROWS_KEPT);
    for (int i = 0; i < MM_BAD_ROWS_KEPT; i++)
        assert_int_equal(report.first[i].line, i + 2);
    mm_str_drop(&content);
    mm_str_drop(&rows);
    mm_free(path);
}

static void test_the_most_frequent_shape_decides(void **state)
{
    char *path = path_in(*state, "t.jsonl");
    mm_str rows = {0};
    mm_row_report report;
    write_text(path, "{\"id\":1}\n" CHAT_GOOD "\n{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
    CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
    assert_int_equal(report.format, MM_ROWS_TEXT);
    assert_int_equal(report.bad_by_reason[MM_BAD_SHAPE], 1);
    assert_int_equal(report.bad_by_reason[MM_BAD_FIELD], 1);
    // A format that is given reads every row that has what it needs.
    mm_str_clear(&rows);
    write_text(path, "{\"text\":\"a\",\"conversations\":[" HI "]}\n");
    CHECK_OK(read_all(path, MM_ROWS_TEXT, &rows, &report, ok_err));
    assert_string_equal(mm_str_text(&rows), "1 a\n");
    mm_str_drop(&rows);
    mm_free(path);
}

static void check_open_fails(const char *path, mm_row_format format, mm_status expected,
                             const char *message)
{
    mm_str rows = {0};
    mm_err err = {0};
    const mm_status status = read_all(path, format, &rows, NULL, &err);
    if (status != expected) fail_msg("%s: %s (%s)", path, mm_status_text(status), err.message);
    check_message(&err, message);
    check_message(&err, path);
    mm_str_drop(&rows);
}

static void test_files_that_are_no_data_are_refused(void **state)
{
    static const struct {
        const char *file;
        const char *content;
        size_t bytes;
        const char *message;
    } CASES[] = {
        {"a.jsonl", "", 0, "file is empty"},
        {"b.jsonl", " \n\n", 3, "no rows in it"},
        {"c.json", "[ ]", 3, "no rows in it"},
        {"d.bin",
         "\x7F"
         "ELF\0\0\0",
         7, "not a text file (NUL at byte 4)"},
        {"e.parquet", "PAR1\x15\x04", 6, "Parquet is not read"},
        {"f.txt",
         "\xFF\xFE"
         "a\0",
         4, "UTF-16"},
        {"g.jsonl", "{\"prompt_text\":\"x\",\"score\":1}\n", 30, "fields: prompt_text, score"},
        {"h.csv", "a,b\n1,2\n", 8, "for plain text give --format lines or joined"},
        {"i.json", "[{\"text\":\"a\"}", 13, "i.json:1: the array is not closed"},
        {"j.json", "[{\"text\":\"a\"}]\n[]", 17, "j.json:2: text after the end of the array"},
        {"k.json", "{\n \"text\": \"a\"\n}\n", 17, "none of the first 3 lines is recognised"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *path = path_in(*state, CASES[i].file);
        write_bytes(path, CASES[i].content, CASES[i].bytes);
        check_open_fails(path, MM_ROWS_AUTO, MM_EFORMAT, CASES[i].message);
        mm_free(path);
    }
    check_open_fails(*state, MM_ROWS_AUTO, MM_EFORMAT, "found a folder");
    check_open_fails("/dev/null", MM_ROWS_AUTO, MM_EFORMAT, "expected a regular file");
    check_open_fails("/nonexistent/x.jsonl", MM_ROWS_TEXT, MM_ENOTFOUND, "no such file");
}

static void test_bad_lines_of_plain_text_are_counted(void **state)
{
    static const char CONTENT[] = "good\n\xC3\x28\nalso good\na\0b\n";
    char *path = path_in(*state, "t.dat");
    mm_str content = {0};
    mm_str rows = {0};
    mm_row_report report;
    // Behind the bytes that are searched for signs of a binary file.
    for (int i = 0; i < 1000; i++)
        mm_str_add(&content, "filler\n");
    mm_str_add_bytes(&content, CONTENT, sizeof CONTENT - 1);
    write_bytes(path, content.data, content.length);
    CHECK_OK(read_all(path, MM_ROWS_LINES, &rows, &report, ok_err));
    assert_int_equal(report.rows, 1002);
    assert_int_equal(report.bad_by_reason[MM_BAD_UTF8], 2);
    assert_int_equal(report.first[0].line, 1002);
    assert_string_equal(report.first[0].detail, "ill-formed at byte 1");
    assert_int_equal(report.first[1].line, 1004);
    assert_string_equal(report.first[1].detail, "NUL at byte 2");
    mm_str_drop(&content);
    mm_str_drop(&rows);
    mm_free(path);
}

// A row of `bytes` bytes, between two short ones.
static void write_long(const char *path, size_t bytes, bool is_array)
{
    mm_str content = {0};
    mm_str_add(&content, is_array ? "[{\"text\":\"a\"},\n" : "{\"text\":\"a\"}\n");
    const size_t start = content.length;
    mm_str_add(&content, "{\"text\":\"");
    while (content.length - start < bytes - 2)
        mm_str_add_char(&content, 'x');
    mm_str_add(&content, is_array ? "\"},\n{\"text\":\"b\"}]\n" : "\"}\n{\"text\":\"b\"}\n");
    write_bytes(path, content.data, content.length);
    mm_str_drop(&content);
}

static void test_long_rows_are_stepped_over(void **state)
{
    char *path = path_in(*state, "long.json");
    for (int is_array = 0; is_array < 2; is_array++) {
        for (int over = 0; over < 3; over++) {
            // 16 MiB fits; one byte more and 17 MiB do not.
            static const size_t SIZES[] = {16u << 20, (16u << 20) + 1, 17u << 20};
            mm_str rows = {0};
            mm_row_report report;
            // An array's element begins with the newline before it.
            write_long(path, SIZES[over] - (size_t)is_array, is_array);
            CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
            assert_int_equal(report.rows, over ? 2 : 3);
            assert_int_equal(report.bad_by_reason[MM_BAD_LONG], over ? 1 : 0);
            if (over) {
                assert_int_equal(report.first[0].line, 2);
                assert_string_equal(mm_str_text(&rows), "1 a\n3 b\n");
            }
            mm_str_drop(&rows);
        }
    }
    mm_free(path);
}

// Rows that do not compress away.
static void make_rows(mm_str *out, int count)
{
    const mm_synth_options options = {.kind = MM_SYNTH_PRETRAIN, .seed = 3};
    for (int i = 0; i < count; i++)
        mm_synth_row(&options, i, out);
}

static void test_compressed_files_are_read_through(void **state)
{
    static void (*const COMPRESS[])(mm_str *, const char *, size_t) = {gzip_to, zstd_to};
    static const char *const NAMES[] = {"r.jsonl.gz", "r.jsonl.zst"};
    mm_str plain = {0};
    mm_str expected = {0};
    char *plain_path = path_in(*state, "r.jsonl");
    make_rows(&plain, 2000);
    write_bytes(plain_path, plain.data, plain.length);
    CHECK_OK(read_all(plain_path, MM_ROWS_AUTO, &expected, NULL, ok_err));
    for (int i = 0; i < 2; i++) {
        char *path = path_in(*state, NAMES[i]);
        mm_str packed = {0};
        mm_str rows = {0};
        // Two members or frames behind one another, cut inside a row.
        const size_t half = plain.length / 2;
        COMPRESS[i](&packed, plain.data, half);
        COMPRESS[i](&packed, plain.data + half, plain.length - half);
        write_bytes(path, packed.data, packed.length);
        CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, NULL, ok_err));
        assert_string_equal(mm_str_text(&rows), mm_str_text(&expected));
        // Cut short anywhere: never read as a smaller file.
        static const int CUTS[] = {1, 4, 9, 100};
        for (size_t k = 0; k < sizeof CUTS / sizeof CUTS[0]; k++) {
            write_bytes(path, packed.data, packed.length - (size_t)CUTS[k]);
            check_open_fails(path, MM_ROWS_TEXT, MM_ECORRUPT, "ends too early");
        }
        // A flipped bit is found by the checksum.
        packed.data[packed.length / 3] ^= 0x10;
        write_bytes(path, packed.data, packed.length);
        check_open_fails(path, MM_ROWS_TEXT, MM_ECORRUPT, "");
        packed.data[packed.length / 3] ^= 0x10;
        mm_str_add(&packed, "more than a header");
        write_bytes(path, packed.data, packed.length);
        check_open_fails(path, MM_ROWS_TEXT, MM_ECORRUPT, "");
        write_text(path, "{\"text\":\"not compressed\"}\n");
        check_open_fails(path, MM_ROWS_TEXT, MM_ECORRUPT, "the content is not");
        mm_str_drop(&rows);
        mm_str_drop(&packed);
        mm_free(path);
    }
    mm_str_drop(&expected);
    mm_str_drop(&plain);
    mm_free(plain_path);
}

static void test_no_memory_is_reported_wherever_it_runs_out(void **state)
{
    char *path = path_in(*state, "m.jsonl");
    write_text(path, "{\"prompt\":\"q\",\"chosen\":\"yes\",\"rejected\":\"no\"}\n");
    bool was_refused = false;
    for (uint64_t nth = 1;; nth++) {
        mm_str rows = {0};
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = read_all(path, MM_ROWS_AUTO, &rows, NULL, &err);
        mm_alloc_fail_at(0);
        const bool is_complete = rows.length > 0 && rows.status == MM_OK;
        mm_str_drop(&rows);
        if (status == MM_OK && is_complete) break;
        // The test's own description may be what found no memory.
        if (status != MM_OK) assert_int_equal(status, MM_ENOMEM);
        was_refused = was_refused || status == MM_ENOMEM;
        assert_true(nth < 200);
    }
    assert_true(was_refused);
    mm_free(path);
}

// Without the flush to disk that thousands of files would wait for.
static void write_plain(const char *path, const mm_str *content)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content->data, 1, content->length, file), content->length);
    assert_int_equal(fclose(file), 0);
}

/* Damages files at random and reads them: whatever comes, the call returns, counts agree, and a
 * failure has a message. Sanitizers watch the rest. */
static void test_random_damage_is_an_error_or_a_bad_row(void **state)
{
    enum { ROUNDS = 150 };
    char *path = path_in(*state, "fuzz.jsonl");
    char *text_path = path_in(*state, "fuzz.txt");
    static const char SIGNS[] = "{}[]\",:\\\n\0\xFF 0eu";
    mm_rng rng;
    mm_rng_init(&rng, 77, MM_RNG_TEST, 0);
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            mm_str content = {0};
            mm_str_add(&content, GOOD[i].content);
            for (uint32_t edits = 1 + mm_rng_below(&rng, 4); edits > 0; edits--) {
                const uint32_t at = mm_rng_below(&rng, (uint32_t)content.length);
                content.data[at] = SIGNS[mm_rng_below(&rng, sizeof SIGNS - 1)];
            }
            if (mm_rng_below(&rng, 4) == 0)
                content.length = 1 + mm_rng_below(&rng, (uint32_t)content.length);
            const mm_row_format format = (mm_row_format)mm_rng_below(&rng, MM_ROWS_JOINED + 1);
            const char *used = mm_rng_below(&rng, 8) == 0 ? text_path : path;
            mm_str rows = {0};
            mm_row_report report = {0};
            mm_err err = {0};
            write_plain(used, &content);
            const mm_status status = read_all(used, format, &rows, &report, &err);
            if (status == MM_OK) {
                int64_t bad = 0;
                for (int k = 0; k < MM_BAD_REASONS; k++)
                    bad += report.bad_by_reason[k];
                assert_int_equal(bad, report.bad);
                assert_int_equal(report.n_first, bad < MM_BAD_ROWS_KEPT ? bad : MM_BAD_ROWS_KEPT);
                assert_int_equal(mm_utf8_valid(mm_str_text(&rows), rows.length), rows.length);
            } else {
                assert_int_equal(status, MM_EFORMAT);
                check_message(&err, used);
            }
            mm_str_drop(&rows);
            mm_str_drop(&content);
        }
    }
    mm_free(path);
    mm_free(text_path);
}

static void test_formats_have_names(void **state)
{
    (void)state;
    mm_str names = {0};
    for (int i = MM_ROWS_AUTO; i <= MM_ROWS_JOINED; i++) {
        mm_row_format format;
        CHECK_OK(mm_row_format_parse(mm_row_format_name((mm_row_format)i), &format, ok_err));
        assert_int_equal(format, i);
        mm_str_addf(&names, "%s%s", i > MM_ROWS_AUTO ? "," : "", mm_row_format_name(format));
    }
    assert_string_equal(mm_str_text(&names), MM_ROW_FORMATS);
    mm_str_drop(&names);
    mm_row_format format;
    mm_err err = {0};
    assert_int_equal(mm_row_format_parse("csv", &format, &err), MM_EUSAGE);
    check_message(&err, "\"csv\"");
    check_message(&err, "conversations");
}

static void test_real_files_read_as_they_are(void **state)
{
    static const struct {
        const char *file;
        mm_row_format format;
        int64_t rows;
    } FILES[] = {{"pretrain_poetry.jsonl", MM_ROWS_TEXT, 29929},
                 {"sft_zh.jsonl", MM_ROWS_CONVERSATIONS, 1000},
                 {"lora_identity.jsonl", MM_ROWS_CONVERSATIONS, 91},
                 {"dpo_zh.jsonl", MM_ROWS_PREFERENCE, 300},
                 {"rlaif.jsonl", MM_ROWS_CONVERSATIONS, 2000},
                 {"raw/alpaca_zh_demo.json", MM_ROWS_ALPACA, 1000},
                 {"raw/dpo_zh_demo.json", MM_ROWS_TRIPLE, 300},
                 {"raw/glaive_toolcall_zh_demo.json", MM_ROWS_SHAREGPT, 300},
                 {"tinyshakespeare.txt", MM_ROWS_JOINED, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char *path = shared_file(FILES[i].file);
        mm_str rows = {0};
        mm_row_report report;
        CHECK_OK(read_all(path, MM_ROWS_AUTO, &rows, &report, ok_err));
        if (report.bad)
            fail_msg("%s: %lld: %s", path, (long long)report.first[0].line, report.first[0].detail);
        assert_string_equal(mm_row_format_name(report.format), mm_row_format_name(FILES[i].format));
        if (FILES[i].rows)
            assert_int_equal(report.rows, FILES[i].rows);
        else
            assert_in_range(report.rows, 500, 560); // 1.1 MB in pieces of 2 KiB
        mm_str_drop(&rows);
        mm_free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_shape_is_found_and_read),
        cmocka_unit_test(test_lines_and_joined_cut_as_they_say),
        cmocka_unit_test(test_every_bad_row_is_named_with_its_line),
        cmocka_unit_test(test_array_elements_are_counted),
        cmocka_unit_test(test_one_in_a_thousand_may_be_bad),
        cmocka_unit_test(test_the_first_ten_bad_rows_are_kept),
        cmocka_unit_test(test_the_most_frequent_shape_decides),
        cmocka_unit_test(test_files_that_are_no_data_are_refused),
        cmocka_unit_test(test_bad_lines_of_plain_text_are_counted),
        cmocka_unit_test(test_long_rows_are_stepped_over),
        cmocka_unit_test(test_compressed_files_are_read_through),
        cmocka_unit_test(test_no_memory_is_reported_wherever_it_runs_out),
        cmocka_unit_test(test_random_damage_is_an_error_or_a_bad_row),
        cmocka_unit_test(test_formats_have_names),
        cmocka_unit_test(test_real_files_read_as_they_are)};
    // One folder for the program: the tests overwrite what they need.
    return cmocka_run_group_tests_name("data/rows", tests, temp_dir_make, temp_dir_remove);
}
