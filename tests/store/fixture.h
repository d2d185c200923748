/* What every test of the store needs: a folder of its own, checked calls, and plain sqlite3 beside
 * the store, to look at and to damage files the way another program would. */
#ifndef TESTS_STORE_FIXTURE_H
#define TESTS_STORE_FIXTURE_H

#include "store/metrics.h"
#include "store/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A call that must succeed; the message of the error otherwise. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        mm_err ok_err_ = {0};                                                                      \
        mm_err *const err = &ok_err_;                                                              \
        if ((call) != MM_OK) fail_msg("%s: %s", #call, ok_err_.message);                           \
    } while (0)

/* A call that must fail with this status and a message that holds the text. */
#define FAILS(expected, text, call)                                                                \
    do {                                                                                           \
        mm_err fails_err_ = {0};                                                                   \
        mm_err *const err = &fails_err_;                                                           \
        const mm_status fails_status_ = (call);                                                    \
        if (fails_status_ != (expected)) {                                                         \
            fail_msg("%s: status %d (%s), expected %d", #call, (int)fails_status_,                 \
                     fails_err_.message, (int)(expected));                                         \
        }                                                                                          \
        if (!strstr(fails_err_.message, text)) {                                                   \
            fail_msg("%s: message '%s' lacks '%s'", #call, fails_err_.message, text);              \
        }                                                                                          \
    } while (0)

typedef struct fixture {
    char folder[64];
    char path[96]; /* of the database */
} fixture;

static inline int fixture_make(void **state)
{
    fixture *fix = calloc(1, sizeof *fix);
    if (!fix) return 1;
    snprintf(fix->folder, sizeof fix->folder, "/tmp/mmrun-store-XXXXXX");
    if (!mkdtemp(fix->folder)) return 1;
    snprintf(fix->path, sizeof fix->path, "%s/test.db", fix->folder);
    *state = fix;
    return 0;
}

static inline int fixture_remove(void **state)
{
    fixture *fix = *state;
    DIR *dir = opendir(fix->folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", fix->folder, entry->d_name);
        if (entry->d_name[0] != '.') unlink(name);
    }
    if (dir) closedir(dir);
    rmdir(fix->folder);
    free(fix);
    return 0;
}

/* First column of the first row by plain SQLite, as text ("" for NULL or no row). */
static inline const char *sql_text(const char *path, const char *sql)
{
    static char out[4096];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    out[0] = '\0';
    if (sqlite3_open(path, &db) != SQLITE_OK) fail_msg("cannot open %s", path);
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    }
    if (sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_text(statement, 0)) {
        snprintf(out, sizeof out, "%s", (const char *)sqlite3_column_text(statement, 0));
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return out;
}

static inline int64_t sql_int(const char *path, const char *sql)
{
    return strtoll(sql_text(path, sql), NULL, 10);
}

/* Any statements, by plain SQLite, with foreign keys off: for doing damage. */
static inline void sql_run(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    char *message = NULL;
    if (sqlite3_open(path, &db) != SQLITE_OK) fail_msg("cannot open %s", path);
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) fail_msg("%s: %s", sql, message);
    sqlite3_close(db);
}

static inline mm_store *open_store(const char *path, mm_store_mode mode)
{
    mm_store *store = NULL;
    OK(mm_store_open(&store, path, mode, err));
    return store;
}

static inline int64_t make_run(mm_store *store, const char *name)
{
    int64_t id = 0;
    const mm_run_new run = {.name = name, .stage = "pretrain", .seed = 42, .parent_step = -1};
    OK(mm_store_run_create(store, &run, &id, err));
    return id;
}

static inline mm_claim *claim_run(mm_store *store, int64_t id, int64_t rewind_step)
{
    mm_claim *claim = NULL;
    OK(mm_run_claim(&claim, store, id, rewind_step, err));
    return claim;
}

static inline int32_t add_metric(mm_metrics *metrics, const char *name)
{
    int32_t series = -1;
    OK(mm_metrics_series(metrics, name, &series, err));
    return series;
}

#endif
