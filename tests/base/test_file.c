/* Tests of core/base/file.h: whole reads, atomic replacement that leaves the old file on any
 * failure, mapping, folders, paths. Each test has its own folder. */
#include "core/base/file.h"
#include "tests/base/check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char *path_in(void **state, const char *name)
{
    char *path = NULL;
    assert_int_equal(mm_path_join(&path, *state, name, NULL), MM_OK);
    return path;
}

static void put(const char *path, const char *text, size_t bytes)
{
    mm_err err = {0};
    if (mm_file_write_atomic(path, text, bytes, &err) != MM_OK) fail_msg("%s", err.message);
}

static void expect_content(const char *path, const char *text, size_t bytes)
{
    char *data = NULL;
    size_t got = 0;
    mm_err err = {0};
    if (mm_file_read(path, 1 << 24, &data, &got, &err) != MM_OK) fail_msg("%s", err.message);
    assert_int_equal(got, bytes);
    assert_memory_equal(data, text, bytes);
    assert_int_equal(data[bytes], '\0');
    mm_free(data);
}

static void test_write_then_read(void **state)
{
    char *path = path_in(state, "a file \xE4\xB8\xAD");
    put(path, "one\0two", 7);
    expect_content(path, "one\0two", 7);
    put(path, "", 0);
    expect_content(path, "", 0);
    put(path, "longer than before", 18);
    expect_content(path, "longer than before", 18);
    assert_int_equal(count_entries(*state), 1); // no temporary file stays
    mm_free(path);
}

static void test_read_refuses(void **state)
{
    char *path = path_in(state, "file");
    put(path, "0123456789", 10);
    char *data = path;
    size_t bytes = 99;
    mm_err err = {0};
    assert_int_equal(mm_file_read(path, 9, &data, &bytes, &err), MM_ELIMIT);
    assert_null(data);
    assert_int_equal(bytes, 0);
    check_message(&err, path);
    check_message(&err, "10 bytes");
    assert_int_equal(mm_file_read(path, 10, &data, &bytes, &err), MM_OK);
    mm_free(data);
    assert_int_equal(mm_file_read(*state, 1 << 20, &data, &bytes, &err), MM_EFORMAT);
    check_message(&err, "folder");
    mm_free(path);
    path = path_in(state, "absent");
    assert_int_equal(mm_file_read(path, 10, &data, &bytes, &err), MM_ENOTFOUND);
    check_message(&err, path);
    mm_free(path);
}

static void test_read_of_files_without_a_size(void **state)
{
    (void)state;
    // Files of /proc say that they have 0 bytes.
    char *data = NULL;
    size_t bytes = 0;
    mm_err err = {0};
    if (mm_file_read("/proc/self/stat", 1 << 20, &data, &bytes, &err) != MM_OK)
        fail_msg("%s", err.message);
    assert_true(bytes > 10);
    assert_int_equal(strtol(data, NULL, 10), getpid());
    mm_free(data);
    assert_int_equal(mm_file_read("/proc/self/stat", 5, &data, &bytes, &err), MM_ELIMIT);
    assert_null(data);
}

static void test_failed_write_leaves_the_old_file(void **state)
{
    char *path = path_in(state, "file");
    put(path, "old", 3);
    enum { BIG = 1 << 16 };
    char *big = mm_calloc(1, BIG);
    // A file size limit makes write() fail half-way, as a full disk does.
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = {.rlim_cur = 4096, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    mm_err err = {0};
    const mm_status status = mm_file_write_atomic(path, big, BIG, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(status, MM_ENOSPC);
    check_message(&err, path);
    expect_content(path, "old", 3);
    assert_int_equal(count_entries(*state), 1);
    mm_free(big);
    mm_free(path);
}

static void test_failed_rename_leaves_nothing(void **state)
{
    char *path = path_in(state, "folder");
    assert_int_equal(mm_dir_make(path, NULL), MM_OK);
    mm_err err = {0};
    assert_int_equal(mm_file_write_atomic(path, "x", 1, &err), MM_EUSAGE);
    check_message(&err, "cannot put in place");
    assert_true(mm_file_is_dir(path));
    assert_int_equal(count_entries(*state), 1);
    mm_free(path);
    path = path_in(state, "no/such/folder/file");
    assert_int_equal(mm_file_write_atomic(path, "x", 1, &err), MM_ENOTFOUND);
    check_message(&err, path);
    mm_free(path);
}

static void test_out_of_memory_leaves_nothing(void **state)
{
    char *path = path_in(state, "file");
    put(path, "old", 3);
    bool succeeded = false;
    for (uint64_t nth = 1; !succeeded && nth < 20; nth++) {
        mm_alloc_fail_at(nth);
        const mm_status status = mm_file_write_atomic(path, "new", 3, NULL);
        mm_alloc_fail_at(0);
        succeeded = status == MM_OK;
        CHECK_ROW(succeeded || status == MM_ENOMEM, nth);
        CHECK_ROW(count_entries(*state) == 1, nth);
        // The last allocation comes after the rename, where either content is right.
        if (nth <= 2) expect_content(path, "old", 3);
    }
    assert_true(succeeded);
    expect_content(path, "new", 3);
    mm_free(path);
}

static void test_appender_goes_on_behind_what_is_kept(void **state)
{
    char *path = path_in(state, "appended");
    mm_file_appender appender;
    assert_int_equal(mm_file_appender_open(&appender, path, 0, NULL), MM_OK);
    assert_int_equal(mm_file_appender_add(&appender, "one\nto", 6, NULL), MM_OK);
    assert_int_equal(mm_file_appender_add(&appender, "rn", 2, NULL), MM_OK);
    expect_content(path, "one\ntorn", 8);
    mm_file_appender_drop(&appender);
    mm_file_appender_drop(&appender);
    assert_int_equal(mm_file_appender_open(&appender, path, 4, NULL), MM_OK);
    assert_int_equal(mm_file_appender_add(&appender, "two\n", 4, NULL), MM_OK);
    mm_file_appender_drop(&appender);
    expect_content(path, "one\ntwo\n", 8);
    mm_free(path);

    char *missing = path_in(state, "nowhere/file");
    mm_err err = {0};
    assert_int_equal(mm_file_appender_open(&appender, missing, 0, &err), MM_ENOTFOUND);
    check_message(&err, missing);
    mm_file_appender_drop(&appender);
    mm_free(missing);
}

static void test_writer_streams_and_drops(void **state)
{
    char *path = path_in(state, "stream");
    mm_file_writer writer;
    assert_int_equal(mm_file_writer_open(&writer, path, NULL), MM_OK);
    assert_int_equal(mm_file_writer_write(&writer, "ab", 2, NULL), MM_OK);
    assert_int_equal(mm_file_writer_write(&writer, "", 0, NULL), MM_OK);
    assert_int_equal(mm_file_writer_write(&writer, "cde", 3, NULL), MM_OK);
    assert_false(mm_file_exists(path)); // not before the commit
    assert_int_equal(mm_file_writer_commit(&writer, NULL), MM_OK);
    expect_content(path, "abcde", 5);
    mm_file_writer_drop(&writer);
    mm_file_writer_drop(&writer);

    assert_int_equal(mm_file_writer_open(&writer, path, NULL), MM_OK);
    assert_int_equal(mm_file_writer_write(&writer, "zzzzzzz", 7, NULL), MM_OK);
    mm_file_writer_drop(&writer); // given up
    expect_content(path, "abcde", 5);
    assert_int_equal(count_entries(*state), 1);

    const bool stdin_open = fcntl(0, F_GETFD) != -1;
    // Dropping what was never opened touches nothing, least of all file descriptor 0.
    mm_file_writer never = {0};
    mm_file_writer_drop(&never);
    mm_file_writer_drop(NULL);
    assert_int_equal(fcntl(0, F_GETFD) != -1, stdin_open);
    mm_free(path);
}

static void test_map(void **state)
{
    char *path = path_in(state, "map");
    mm_file_map map;
    mm_err err = {0};
    put(path, "mapped", 6);
    assert_int_equal(mm_file_map_open(&map, path, &err), MM_OK);
    assert_int_equal(map.bytes, 6);
    assert_memory_equal(map.data, "mapped", 6);
    // A replacement does not change what is mapped.
    put(path, "others", 6);
    assert_memory_equal(map.data, "mapped", 6);
    mm_file_map_drop(&map);
    assert_null(map.data);
    mm_file_map_drop(&map);
    mm_file_map_drop(NULL);
    put(path, "", 0);
    assert_int_equal(mm_file_map_open(&map, path, &err), MM_OK);
    assert_null(map.data);
    assert_int_equal(map.bytes, 0);
    mm_file_map_drop(&map);
    assert_int_equal(mm_file_map_open(&map, *state, &err), MM_EFORMAT);
    check_message(&err, *state);
    mm_free(path);
    path = path_in(state, "absent");
    assert_int_equal(mm_file_map_open(&map, path, &err), MM_ENOTFOUND);
    check_message(&err, path);
    mm_free(path);
}

static void test_dir_make(void **state)
{
    mm_err err = {0};
    char *deep = path_in(state, "a/b//c/d/");
    assert_int_equal(mm_dir_make(deep, &err), MM_OK);
    assert_true(mm_file_is_dir(deep));
    assert_int_equal(mm_dir_make(deep, &err), MM_OK); // again is fine
    assert_int_equal(mm_dir_make("/", &err), MM_OK);
    assert_int_equal(mm_dir_make(".", &err), MM_OK);
    mm_free(deep);

    char *file = path_in(state, "file");
    put(file, "x", 1);
    char *below = path_in(state, "file/sub");
    assert_int_equal(mm_dir_make(file, &err), MM_EIO);
    assert_int_equal(mm_dir_make(below, &err), MM_EIO);
    check_message(&err, "file");
    assert_int_equal(mm_dir_make("", &err), MM_ENOTFOUND);
    expect_content(file, "x", 1);
    mm_free(below);
    mm_free(file);
}

static void test_path_join(void **state)
{
    (void)state;
    static const struct {
        const char *dir;
        const char *name;
        const char *path;
    } rows[] = {
        {"a", "b", "a/b"},         {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"},
        {"a/b", "c/d", "a/b/c/d"}, {".", "x", "./x"},  {"a", "", "a/"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *path = NULL;
        assert_int_equal(mm_path_join(&path, rows[i].dir, rows[i].name, NULL), MM_OK);
        if (strcmp(path, rows[i].path) != 0) fail_msg("row %zu: %s", i, path);
        mm_free(path);
    }
    mm_alloc_fail_at(1);
    char *path = NULL;
    const mm_status status = mm_path_join(&path, "a", "b", NULL);
    mm_alloc_fail_at(0);
    assert_int_equal(status, MM_ENOMEM);
    assert_null(path);
}

static void test_questions_about_files(void **state)
{
    char *path = path_in(state, "file");
    assert_false(mm_file_exists(path));
    assert_false(mm_file_is_dir(path));
    put(path, "x", 1);
    assert_true(mm_file_exists(path));
    assert_false(mm_file_is_dir(path));
    assert_true(mm_file_is_dir(*state));
    assert_true(mm_disk_free(*state) > 0);
    assert_int_equal(mm_disk_free("/no/such/place"), 0);
    assert_int_equal(mm_dir_sync_of(path, NULL), MM_OK);
    assert_int_equal(mm_dir_sync_of("plain-name", NULL), MM_OK);
    assert_int_equal(mm_dir_sync_of("/name-in-root", NULL), MM_OK);
    mm_err err = {0};
    assert_int_equal(mm_dir_sync_of("/no/such/place", &err), MM_ENOTFOUND);
    check_message(&err, "/no/such");
    mm_free(path);
}

static void test_new_files_obey_the_umask(void **state)
{
    char *path = path_in(state, "private");
    const mode_t before = umask(077);
    put(path, "x", 1);
    umask(before);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    mm_free(path);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, temp_dir_make, temp_dir_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_write_then_read),
        TEST(test_read_refuses),
        TEST(test_read_of_files_without_a_size),
        TEST(test_failed_write_leaves_the_old_file),
        TEST(test_failed_rename_leaves_nothing),
        TEST(test_out_of_memory_leaves_nothing),
        TEST(test_appender_goes_on_behind_what_is_kept),
        TEST(test_writer_streams_and_drops),
        TEST(test_map),
        TEST(test_dir_make),
        TEST(test_path_join),
        TEST(test_questions_about_files),
        TEST(test_new_files_obey_the_umask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
