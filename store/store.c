/* Opening and closing a database, facts about it, checking it, copying it. See store.h. */
#include "store/store.h"

#include "core/base/file.h"
#include "store/claim.h"
#include "store/chunk.h"
#include "store/db.h"
#include "store/lock.h"
#include "store/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *mm_sqlite_version(void) { return sqlite3_libversion(); }

bool mm_sqlite_has_wal_reset_bug(void)
{
    const int version = sqlite3_libversion_number();
    const bool is_backported =
        (version >= 3044006 && version < 3045000) || (version >= 3050007 && version < 3051000);
    return version >= 3007000 && version < 3051003 && !is_backported;
}

const char *mm_store_path(const mm_store *store) { return store->path; }

// Absolute, with links followed: all names of one file must find the same lock.
static mm_status resolve_path(const char *path, bool must_exist, char **out, mm_err *err)
{
    *out = NULL;
    char resolved[PATH_MAX];
    if (realpath(path, resolved)) {
        *out = mm_strdup(resolved);
        return *out ? MM_OK : MM_FAIL(err, MM_ENOMEM, "out of memory");
    }
    if (errno != ENOENT) return MM_FAIL_ERRNO(err, "cannot open %s", path);
    if (must_exist) {
        return MM_FAIL(err, MM_ENOTFOUND,
                       "%s: there is no database; a training command makes one, --db or MMRUN_DB "
                       "names another place",
                       path);
    }
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (*name == '\0') return MM_FAIL(err, MM_EUSAGE, "%s: not the name of a file", path);
    char *folder = mm_path_folder(path);
    if (!folder) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    mm_status status = MM_OK;
    if (!realpath(folder, resolved)) {
        status = MM_FAIL_ERRNO(err, "%s: cannot find the folder %s", path, folder);
    } else {
        status = mm_path_join(out, resolved, name, err);
    }
    mm_free(folder);
    return status;
}

static mm_status check_file(const mm_store *store, mm_err *err)
{
    struct stat info;
    if (stat(store->real_path, &info) != 0) return MM_OK; // it will be made
    if (S_ISDIR(info.st_mode)) return MM_FAIL(err, MM_EUSAGE, "%s: is a folder", store->path);
    if (!S_ISREG(info.st_mode)) return MM_FAIL(err, MM_EUSAGE, "%s: not a file", store->path);
    if (info.st_size > 0) return MM_OK;
    // SQLite would take an empty file for a new database and throw the WAL away.
    if (mm_db_has_wal(store)) {
        return MM_FAIL(
            err, MM_ECORRUPT,
            "%s: the file is empty but %s-wal is not: it was cut short; restore a backup",
            store->path, store->path);
    }
    return MM_OK;
}

static mm_status open_for_writing(mm_store *store, mm_err *err)
{
    const char *kind;
    char *folder = mm_path_folder(store->real_path);
    if (!folder) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    mm_status status = MM_OK;
    if (mm_is_network_file_system(folder, &kind)) {
        status =
            MM_FAIL(err, MM_EIO,
                    "%s: %s is on a network file system (%s), where a database can be damaged by "
                    "two machines; keep it on a local disk",
                    store->path, folder, kind);
        goto done;
    }
    status = mm_lock_open(&store->lock_fd, store->real_path, true, err);
    if (status != MM_OK) {
        mm_err_context(err, "%s: the folder %s must be writable", store->path, folder);
        goto done;
    }
    MM_GO(mm_db_open(store, err));
    MM_GO(mm_schema_update(store, store->mode == MM_STORE_CREATE, mm_schema_migrations,
                           mm_schema_migration_count, mm_schema_views, err));
    status = mm_runs_repair(store, err);
    // A full disk must not keep people from removing something: the repair waits for the next time.
    if (status == MM_ENOSPC) status = MM_OK;
done:
    mm_free(folder);
    return status;
}

mm_status mm_store_open(mm_store **out, const char *path, mm_store_mode mode, mm_err *err)
{
    *out = NULL;
    mm_store *store = mm_calloc(1, sizeof *store);
    if (!store) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    store->mode = mode;
    store->lock_fd = -1;
    store->path = mm_strdup(path);
    mm_status status = MM_OK;
    if (!store->path) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory");
        goto done;
    }
    MM_GO(resolve_path(path, mode != MM_STORE_CREATE, &store->real_path, err));
    MM_GO(check_file(store, err));
    if (mode == MM_STORE_READ) {
        MM_GO(mm_lock_open(&store->lock_fd, store->real_path, false, err));
        MM_GO(mm_db_open(store, err));
        MM_GO(mm_schema_check(store, err));
    } else {
        MM_GO(open_for_writing(store, err));
    }
    *out = store;
done:
    if (status != MM_OK) mm_store_close(store);
    return status;
}

void mm_store_close(mm_store *store)
{
    if (!store) return;
    mm_db_close(store);
    if (store->lock_fd >= 0) close(store->lock_fd);
    mm_free(store->real_path);
    mm_free(store->path);
    mm_free(store);
}

static int64_t file_bytes(const char *path, const char *suffix)
{
    mm_str name = {0};
    mm_str_addf(&name, "%s%s", path, suffix);
    struct stat info;
    const bool is_there = name.status == MM_OK && stat(name.data, &info) == 0;
    mm_str_drop(&name);
    return is_there ? (int64_t)info.st_size : 0;
}

mm_status mm_store_info_get(mm_store *store, mm_store_info *info, mm_err *err)
{
    *info = (mm_store_info){
        .sqlite_version = mm_sqlite_version(),
        .sqlite_has_wal_reset_bug = mm_sqlite_has_wal_reset_bug(),
        .file_bytes = file_bytes(store->real_path, ""),
        .wal_bytes = file_bytes(store->real_path, "-wal"),
    };
    int64_t version = 0;
    MM_TRY(mm_db_int(store, &version, "PRAGMA user_version", MM_NO_VALUES, err));
    info->schema_version = (int32_t)version;
    const struct {
        int64_t *out;
        const char *sql;
    } counts[] = {
        {&info->runs, "SELECT count(*) FROM run"},
        {&info->points, "SELECT coalesce(sum(n), 0) FROM series"},
        {&info->checkpoints, "SELECT count(*) FROM checkpoint WHERE state = 'complete'"},
        {&info->chunk_bytes, "SELECT coalesce(sum(stored_bytes), 0) FROM chunk"},
        {&info->generations, "SELECT count(*) FROM generation WHERE superseded_by IS NULL"},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        MM_TRY(mm_db_int(store, counts[i].out, counts[i].sql, MM_NO_VALUES, err));
    }
    return MM_OK;
}

/* ---- check and backup --------------------------------------------------------------------------
 */

typedef struct check_report {
    void (*report)(void *context, const char *finding);
    void *context;
    int64_t n_findings;
    mm_str first;
} check_report;

static void find(check_report *check, const char *finding)
{
    if (check->n_findings++ == 0) mm_str_add(&check->first, finding);
    if (check->report) check->report(check->context, finding);
}

static mm_status check_integrity(mm_store *store, check_report *check, mm_err *err)
{
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, "PRAGMA integrity_check", MM_NO_VALUES, err));
    for (;;) {
        bool has_row;
        MM_TRY(mm_db_step(store, statement, &has_row, err));
        if (!has_row) return MM_OK;
        const char *line = (const char *)sqlite3_column_text(statement, 0);
        if (line && strcmp(line, "ok") != 0) find(check, line);
    }
}

static mm_status check_foreign_keys(mm_store *store, check_report *check, mm_err *err)
{
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, "PRAGMA foreign_key_check", MM_NO_VALUES, err));
    for (;;) {
        bool has_row;
        MM_TRY(mm_db_step(store, statement, &has_row, err));
        if (!has_row) return MM_OK;
        mm_str finding = {0};
        mm_str_addf(&finding, "table %s: row %" PRId64 " refers to a missing row of %s",
                    (const char *)sqlite3_column_text(statement, 0),
                    (int64_t)sqlite3_column_int64(statement, 1),
                    (const char *)sqlite3_column_text(statement, 2));
        find(check, mm_str_text(&finding));
        mm_str_drop(&finding);
    }
}

static void find_chunk(void *context, const char *finding) { find(context, finding); }

mm_status mm_store_check(mm_store *store, void (*report)(void *context, const char *finding),
                         void *context, mm_err *err)
{
    check_report check = {.report = report, .context = context};
    mm_status status = MM_OK;
    MM_GO(check_integrity(store, &check, err));
    MM_GO(check_foreign_keys(store, &check, err));
    MM_GO(mm_chunks_check(store, find_chunk, &check, err));
    if (check.n_findings > 0) {
        status =
            MM_FAIL(err, MM_ECORRUPT, "%s: %" PRId64 " finding%s, the first: %s", store->path,
                    check.n_findings, check.n_findings == 1 ? "" : "s", mm_str_text(&check.first));
    }
done:
    mm_str_drop(&check.first);
    return status;
}

mm_status mm_store_backup(mm_store *store, const char *path, mm_err *err)
{
    MM_TRY(mm_db_copy(store, path, err));
    // A backup that has not been read back is a hope.
    mm_store *copy = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&copy, path, MM_STORE_READ, err));
    MM_GO(mm_store_check(copy, NULL, NULL, err));
done:
    mm_store_close(copy);
    if (status != MM_OK) {
        unlink(path);
        mm_err_context(err, "the copy did not pass its check and was removed");
    }
    return status;
}
