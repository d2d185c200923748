/* Tests of runner/quiz.h: shapes that are read, rows that are refused with their line. */
#include "runner/quiz.h"
#include "tests/runner/check.h"

#include "core/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = P_tmpdir "/mmrun-quiz-XXXXXX";

static mm_status read_text(mm_quiz *quiz, const char *text, bool skip_bad, mm_err *err)
{
    mm_err failure = {0};
    assert_int_equal(mm_file_write_atomic(path, text, strlen(text), &failure), MM_OK);
    *err = (mm_err){0};
    return mm_quiz_read(quiz, path, 0, skip_bad, err);
}

static void test_shapes(void **state)
{
    (void)state;
    static const char ROWS[] =
        "{\"question\":\"一加一？\",\"A\":\"一\",\"B\":\"二\",\"C\":\"三\",\"D\":\"四\",\"answer\":"
        "\"B\",\"subject\":\"算术\"}\n"
        "\n"
        "{\"question\":\"Up?\",\"choices\":[\"yes\",\"no\",\"both\"],\"answer\":2,\"id\":7}\n"
        "{\"question\":\"Down?\",\"choices\":[\"yes\",\"no\"],\"answer\":\" b. "
        "\",\"subject\":null}\n";
    mm_quiz quiz;
    mm_err err;
    if (read_text(&quiz, ROWS, false, &err) != MM_OK) fail_msg("%s", err.message);
    assert_int_equal(quiz.count, 3);
    assert_string_equal(quiz.questions[0].text, "一加一？");
    assert_string_equal(quiz.questions[0].options[3], "四");
    assert_string_equal(quiz.questions[0].subject, "算术");
    assert_int_equal(quiz.questions[0].n_options, 4);
    assert_int_equal(quiz.questions[0].answer, 1);
    assert_int_equal(quiz.questions[1].answer, 2);
    assert_int_equal(quiz.questions[1].line, 3);
    assert_null(quiz.questions[1].subject);
    assert_int_equal(quiz.questions[2].answer, 1);
    assert_int_equal(strlen(quiz.sha256), 64);
    mm_quiz_drop(&quiz);

    if (read_text(&quiz, "[{\"question\":\"q\",\"A\":\"a\",\"B\":\"b\",\"answer\":\"A\"}]", false,
                  &err) != MM_OK)
        fail_msg("%s", err.message);
    assert_int_equal(quiz.count, 1);
    mm_quiz_drop(&quiz);
}

static void test_bad_rows_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *row;
        const char *why;
    } ROWS[] = {
        {"nonsense", "not valid JSON"},
        {"[1]", "expected an object"},
        {"{\"A\":\"a\",\"B\":\"b\",\"answer\":\"A\"}", "question: expected a text"},
        {"{\"question\":\" \",\"A\":\"a\",\"B\":\"b\",\"answer\":\"A\"}", "question: expected"},
        {"{\"question\":\"q\",\"A\":\"a\",\"answer\":\"A\"}", "two options or more"},
        {"{\"question\":\"q\",\"A\":\"a\",\"B\":\"\",\"answer\":\"A\"}", "B: expected a text"},
        {"{\"question\":\"q\",\"A\":\"a\",\"B\":\"b\",\"answer\":\"C\"}", "from A to B"},
        {"{\"question\":\"q\",\"A\":\"a\",\"B\":\"b\"}", "answer: expected a letter"},
        {"{\"question\":\"q\",\"A\":\"a\",\"B\":\"b\",\"answer\":\"AB\"}", "answer: expected"},
        {"{\"question\":\"q\",\"choices\":\"a\",\"answer\":0}", "choices: expected a list"},
        {"{\"question\":\"q\",\"choices\":[\"a\",1],\"answer\":0}", "choices[1]: expected a text"},
        {"{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":2}", "or a place from 0"},
        {"{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":-1}", "answer: expected"},
        {"{\"question\":\"q\",\"A\":\"a\",\"B\":\"b\",\"answer\":\"A\",\"subject\":3}",
         "subject: expected"},
    };
    static const char GOOD[] = "{\"question\":\"q\",\"A\":\"a\",\"B\":\"b\",\"answer\":\"A\"}\n";
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        mm_str text = {0};
        mm_quiz quiz;
        mm_err err;
        mm_str_addf(&text, "%s%s\n", GOOD, ROWS[i].row);
        assert_int_equal(read_text(&quiz, mm_str_text(&text), true, &err), MM_OK);
        assert_int_equal(quiz.count, 1);
        assert_int_equal(quiz.bad, 1);
        assert_int_equal(quiz.first_bad[0].line, 2);
        if (!strstr(quiz.first_bad[0].detail, ROWS[i].why))
            fail_msg("%s: expected '%s', found '%s'", ROWS[i].row, ROWS[i].why,
                     quiz.first_bad[0].detail);
        mm_quiz_drop(&quiz);
        assert_int_equal(read_text(&quiz, mm_str_text(&text), false, &err), MM_EFORMAT);
        assert_non_null(strstr(err.message, "1 of 2 questions are bad, first at line 2: "));
        mm_quiz_drop(&quiz);
        mm_str_drop(&text);
    }
}

static void test_a_file_without_questions(void **state)
{
    (void)state;
    mm_quiz quiz;
    mm_err err;
    assert_int_equal(read_text(&quiz, "\n\n", true, &err), MM_EFORMAT);
    mm_quiz_drop(&quiz);
    assert_int_equal(read_text(&quiz, "{}\n", true, &err), MM_EFORMAT);
    mm_quiz_drop(&quiz);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_bad_rows_are_named),
        cmocka_unit_test(test_a_file_without_questions),
    };
    const int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
