/* Tests of core/base/err.h: texts and exit codes, message formatting, context, errno mapping,
 * assertions, and the two control-flow macros. */
#include "tests/base/check.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static void test_every_status_has_text_and_exit_code(void **state)
{
    (void)state;
    for (int i = 0; i < MM_STATUS_COUNT; i++) {
        CHECK_ROW(mm_status_text((mm_status)i)[0] != '\0', i);
        const int code = mm_status_exit_code((mm_status)i);
        // The contract knows 0 1 2 3 4 6; only success is 0.
        CHECK_ROW(code >= 0 && code <= 6 && code != 5, i);
        CHECK_ROW((code == 0) == (i == MM_OK), i);
    }
    assert_string_equal(mm_status_text(MM_STATUS_COUNT), "unknown status");
    assert_int_equal(mm_status_exit_code(MM_STATUS_COUNT), 1);
}

static void test_exit_codes_of_the_contract(void **state)
{
    (void)state;
    static const struct {
        mm_status status;
        int code;
    } rows[] = {
        {MM_OK, 0},       {MM_EIO, 1},    {MM_EDB, 1},    {MM_ENAN, 1},     {MM_EFORMAT, 2},
        {MM_ECONFIG, 2},  {MM_EUSAGE, 2}, {MM_ELIMIT, 2}, {MM_EVERSION, 2}, {MM_ECANCELED, 3},
        {MM_ECORRUPT, 4}, {MM_ENOMEM, 6}, {MM_ENOSPC, 6},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_ROW(mm_status_exit_code(rows[i].status) == rows[i].code, i);
}

static void test_set_records_everything(void **state)
{
    (void)state;
    mm_err err = {0};
    const int line = __LINE__ + 1;
    assert_int_equal(MM_FAIL(&err, MM_EFORMAT, "%s line %d: expected a list", "x.jsonl", 7),
                     MM_EFORMAT);
    assert_int_equal(err.status, MM_EFORMAT);
    assert_string_equal(err.message, "x.jsonl line 7: expected a list");
    assert_string_equal(err.file, __FILE__);
    assert_in_range(err.line, line, line + 1);
    assert_int_equal(MM_FAIL(NULL, MM_EBUSY, "nobody listens"), MM_EBUSY);
}

static void test_long_messages_are_cut_and_terminated(void **state)
{
    (void)state;
    char text[3 * MM_ERR_MESSAGE_BYTES];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    mm_err err = {0};
    assert_int_equal(MM_FAIL(&err, MM_EIO, "%s", text), MM_EIO);
    assert_int_equal(strlen(err.message), MM_ERR_MESSAGE_BYTES - 1);
    mm_err_context(&err, "%s", text);
    assert_int_equal(strlen(err.message), MM_ERR_MESSAGE_BYTES - 1);
    errno = EIO;
    assert_int_equal(MM_FAIL_ERRNO(&err, "%s", text), MM_EIO);
    assert_int_equal(strlen(err.message), MM_ERR_MESSAGE_BYTES - 1);
}

static void test_context_goes_in_front(void **state)
{
    (void)state;
    mm_err err = {0};
    assert_int_equal(MM_FAIL(&err, MM_ECORRUPT, "chunk 3 has the wrong digest"), MM_ECORRUPT);
    mm_err_context(&err, "checkpoint %d", 1200);
    mm_err_context(&err, "resuming run %d", 7);
    assert_string_equal(err.message,
                        "resuming run 7: checkpoint 1200: chunk 3 has the wrong digest");
    assert_int_equal(err.status, MM_ECORRUPT);
    mm_err_context(NULL, "nobody listens");
}

static void test_errno_mapping(void **state)
{
    (void)state;
    static const struct {
        int number;
        mm_status status;
        const char *part;
    } rows[] = {
        {ENOSPC, MM_ENOSPC, "No space left"}, {EDQUOT, MM_ENOSPC, "quota"},
        {EFBIG, MM_ENOSPC, "too large"},      {ENOMEM, MM_ENOMEM, "allocate memory"},
        {ENOENT, MM_ENOTFOUND, "No such"},    {EACCES, MM_EIO, "Permission"},
        {EROFS, MM_EIO, "Read-only"},         {EIO, MM_EIO, "Input/output"},
        {EMFILE, MM_EIO, "Too many open"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mm_err err = {0};
        errno = rows[i].number;
        const mm_status status = MM_FAIL_ERRNO(&err, "a/b: cannot open");
        CHECK_ROW(status == rows[i].status && err.status == status, i);
        check_message(&err, "a/b: cannot open: ");
        check_message(&err, rows[i].part);
        errno = rows[i].number;
        CHECK_ROW(MM_FAIL_ERRNO(NULL, "nobody listens") == rows[i].status, i);
    }
}

static mm_status steps(int failing, int *reached, mm_err *err)
{
    mm_status status = MM_OK;
    *reached = 1;
    MM_GO(failing == 1 ? MM_FAIL(err, MM_EIO, "first") : MM_OK);
    *reached = 2;
    MM_GO(failing == 2 ? MM_FAIL(err, MM_EDB, "second") : MM_OK);
    *reached = 3;
done:
    *reached += 10;
    return status;
}

static mm_status forward(int failing, int *reached, mm_err *err)
{
    MM_TRY(steps(failing, reached, err));
    *reached += 100;
    return MM_OK;
}

static void test_try_and_go(void **state)
{
    (void)state;
    static const struct {
        mm_status status;
        int reached;
    } rows[] = {{MM_OK, 113}, {MM_EIO, 11}, {MM_EDB, 12}};
    for (int i = 0; i < 3; i++) {
        int reached = 0;
        mm_err err;
        CHECK_ROW(forward(i, &reached, &err) == rows[i].status, i);
        CHECK_ROW(reached == rows[i].reached, i);
    }
}

static void test_assert_aborts_and_names_the_place(void **state)
{
    (void)state;
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        // cmocka's handler would report the abort as a failure of this test.
        signal(SIGABRT, SIG_DFL);
        MM_ASSERT(1 + 1 == 2);
        MM_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    close(pipe_fds[1]);
    char text[512] = {0};
    size_t used = 0;
    for (;;) {
        const ssize_t got = read(pipe_fds[0], text + used, sizeof text - 1 - used);
        if (got <= 0) break;
        used += (size_t)got;
    }
    close(pipe_fds[0]);
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGABRT);
    assert_non_null(strstr(text, "1 + 1 == 3"));
    assert_non_null(strstr(text, "test_err.c:"));
    assert_null(strstr(text, "1 + 1 == 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_text_and_exit_code),
        cmocka_unit_test(test_exit_codes_of_the_contract),
        cmocka_unit_test(test_set_records_everything),
        cmocka_unit_test(test_long_messages_are_cut_and_terminated),
        cmocka_unit_test(test_context_goes_in_front),
        cmocka_unit_test(test_errno_mapping),
        cmocka_unit_test(test_try_and_go),
        cmocka_unit_test(test_assert_aborts_and_names_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
