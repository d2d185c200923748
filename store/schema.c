/* Recognising, making and migrating a database file. See schema.h. */
#include "store/schema.h"

#include "core/base/clock.h"
#include "store/db.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

typedef struct schema_state {
    int64_t application_id;
    int64_t version;
    int64_t n_objects;
} schema_state;

static mm_status read_state(mm_store *store, schema_state *state, mm_err *err)
{
    *state = (schema_state){0};
    MM_TRY(mm_db_int(store, &state->application_id, "PRAGMA application_id", MM_NO_VALUES, err));
    MM_TRY(mm_db_int(store, &state->version, "PRAGMA user_version", MM_NO_VALUES, err));
    return mm_db_int(store, &state->n_objects, "SELECT count(*) FROM sqlite_schema", MM_NO_VALUES,
                     err);
}

static mm_status check_ours(const mm_store *store, const schema_state *state, int32_t known,
                            mm_err *err)
{
    const char *path = mm_store_path(store);
    if (state->application_id != MM_APPLICATION_ID) {
        if (state->n_objects == 0) {
            return MM_FAIL(err, MM_EFORMAT, "%s: is empty, not an mmrun database", path);
        }
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: an SQLite database of another program, not of mmrun (application_id "
                       "0x%" PRIx64 ", expected 0x%x)",
                       path, (uint64_t)state->application_id, (unsigned)MM_APPLICATION_ID);
    }
    if (state->version > known) {
        return MM_FAIL(err, MM_EVERSION,
                       "%s: made by a newer mmrun (schema %" PRId64 ", this one knows %" PRId32
                       "); use the newer program",
                       path, state->version, known);
    }
    return MM_OK;
}

mm_status mm_schema_check(mm_store *store, mm_err *err)
{
    schema_state state;
    MM_TRY(read_state(store, &state, err));
    MM_TRY(check_ours(store, &state, mm_schema_migration_count, err));
    if (state.version < mm_schema_migration_count) {
        return MM_FAIL(err, MM_EVERSION,
                       "%s: made by an older mmrun (schema %" PRId64 ", this one writes %" PRId32
                       "); any writing command brings it up to date and keeps a backup",
                       mm_store_path(store), state.version, mm_schema_migration_count);
    }
    return MM_OK;
}

// What can only be chosen before the first table: page size and returning freed space.
static mm_status prepare_empty(mm_store *store, mm_err *err)
{
    return mm_db_script(store, "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;", err);
}

static mm_status use_wal(mm_store *store, mm_err *err)
{
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, "PRAGMA journal_mode = WAL", MM_NO_VALUES, err));
    bool has_row;
    MM_TRY(mm_db_step(store, statement, &has_row, err));
    const char *mode = has_row ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    const bool is_wal = mode && strcmp(mode, "wal") == 0;
    mm_db_end(statement);
    if (is_wal) return MM_OK;
    return MM_FAIL(err, MM_EDB, "%s: write-ahead logging is not possible here",
                   mm_store_path(store));
}

static mm_status make_views(mm_store *store, const char *views, mm_err *err)
{
    mm_str drops = {0};
    mm_status status = MM_OK;
    sqlite3_stmt *statement;
    MM_GO(mm_db_query(store, &statement, "SELECT name FROM sqlite_schema WHERE type = 'view'",
                      MM_NO_VALUES, err));
    for (;;) {
        bool has_row;
        MM_GO(mm_db_step(store, statement, &has_row, err));
        if (!has_row) break;
        char *drop = sqlite3_mprintf("DROP VIEW \"%w\";", sqlite3_column_text(statement, 0));
        mm_str_add(&drops, drop ? drop : "");
        sqlite3_free(drop);
    }
    MM_GO(mm_str_check(&drops, err));
    MM_GO(mm_db_script(store, mm_str_text(&drops), err));
    MM_GO(mm_db_script(store, views, err));
done:
    mm_str_drop(&drops);
    return status;
}

static mm_status apply(mm_store *store, int64_t from, const mm_migration *migrations, int32_t count,
                       const char *views, mm_err *err)
{
    mm_str pragmas = {0};
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    for (int32_t i = (int32_t)from; i < count; i++) {
        MM_ASSERT(migrations[i].version == i + 1);
        MM_GO(mm_db_script(store, migrations[i].sql, err));
        MM_GO(mm_db_run(store, "INSERT INTO schema_history VALUES (?1, ?2, ?3, ?4, ?5)",
                        MM_VALUES(mm_v_int(i + 1), mm_v_text(migrations[i].name), mm_v_int(from),
                                  mm_v_int(mm_now_ms()), mm_v_text(mm_sqlite_version())),
                        err));
    }
    MM_GO(make_views(store, views, err));
    mm_str_addf(&pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
                MM_APPLICATION_ID, (int)count);
    MM_GO(mm_str_check(&pragmas, err));
    MM_GO(mm_db_script(store, mm_str_text(&pragmas), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    mm_str_drop(&pragmas);
    return status;
}

static mm_status backup_before(mm_store *store, int64_t version, mm_err *err)
{
    mm_str path = {0};
    char time[MM_TIME_ISO_BYTES];
    mm_time_iso(mm_now_ms(), time);
    for (char *c = time; *c; c++) {
        if (*c == ':') *c = '-';
    }
    mm_str_addf(&path, "%s.v%" PRId64 "-%s.backup", store->real_path, version, time);
    mm_status status = mm_str_check(&path, err);
    if (status == MM_OK) status = mm_db_copy(store, path.data, err);
    if (status != MM_OK) mm_err_context(err, "cannot make the backup before migrating");
    mm_str_drop(&path);
    return status;
}

// SQLite counts a last page that is cut in two as whole. Under the lock, and with nothing in the
// WAL, the file has exactly the length that its header says.
static mm_status check_length(mm_store *store, mm_err *err)
{
    int64_t n_pages = 0;
    int64_t page_bytes = 0;
    MM_TRY(mm_db_int(store, &n_pages, "PRAGMA page_count", MM_NO_VALUES, err));
    MM_TRY(mm_db_int(store, &page_bytes, "PRAGMA page_size", MM_NO_VALUES, err));
    struct stat info;
    if (stat(store->real_path, &info) != 0) {
        return MM_FAIL_ERRNO(err, "cannot look at %s", store->path);
    }
    const int64_t expected = n_pages * page_bytes;
    if ((int64_t)info.st_size >= expected || mm_db_has_wal(store)) return MM_OK;
    return MM_FAIL(err, MM_ECORRUPT,
                   "%s: the database is damaged or cut short (%" PRId64 " bytes, its header says "
                   "%" PRId64 "); restore a backup",
                   store->path, (int64_t)info.st_size, expected);
}

mm_status mm_schema_update(mm_store *store, bool may_create, const mm_migration *migrations,
                           int32_t count, const char *views, mm_err *err)
{
    // Under the lock from the first look to the last change: two programs may start at once.
    MM_TRY(mm_db_lock(store, err));
    mm_status status = MM_OK;
    schema_state state;
    MM_GO(read_state(store, &state, err));
    if (may_create && state.application_id == 0 && state.n_objects == 0) {
        MM_GO(prepare_empty(store, err));
        MM_GO(use_wal(store, err));
        MM_GO(apply(store, 0, migrations, count, views, err));
        goto done;
    }
    MM_GO(check_ours(store, &state, count, err));
    MM_GO(check_length(store, err));
    MM_GO(use_wal(store, err));
    if (state.version < count) {
        MM_GO(backup_before(store, state.version, err));
        status = apply(store, state.version, migrations, count, views, err);
        if (status != MM_OK) {
            mm_err_context(err, "migrating from schema %" PRId64 " to %" PRId32, state.version,
                           count);
        }
    }
done:
    mm_db_unlock(store);
    return status;
}
