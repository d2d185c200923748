/* What the tests of core/base share: cmocka's headers in the order it wants them, a temporary
 * folder per test, and checks that name the table row that failed. */
#ifndef MM_TESTS_BASE_CHECK_H
#define MM_TESTS_BASE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* cmocka reports a source line; in a loop over a table that is not enough. */
#define CHECK_ROW(condition, row)                                                                  \
    do {                                                                                           \
        if (!(condition)) fail_msg("row %d: %s", (int)(row), #condition);                          \
    } while (0)

/* `part` stands somewhere in the message. */
static inline void check_message(const mm_err *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("message \"%s\" does not contain \"%s\"", err->message, part);
}

/* cmocka set-up and tear-down: *state is the path of a fresh folder, removed with its files. */
static inline int temp_dir_make(void **state)
{
    const char *base = getenv("TMPDIR");
    mm_str path = {0};
    mm_str_addf(&path, "%s/mmrun-test-XXXXXX", base ? base : "/tmp");
    *state = mkdtemp(path.data);
    return *state ? 0 : -1;
}

static inline void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        unlink(path);
        return;
    }
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        mm_str child = {0};
        mm_str_addf(&child, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR)
            remove_tree(child.data);
        else
            unlink(child.data);
        mm_str_drop(&child);
    }
    closedir(dir);
    rmdir(path);
}

static inline int temp_dir_remove(void **state)
{
    mm_alloc_fail_at(0); // a failed test may have left it on
    remove_tree(*state);
    mm_free(*state);
    return 0;
}

/* Number of entries of a folder, to see that nothing was left behind. */
static inline int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int count = 0;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

#endif
