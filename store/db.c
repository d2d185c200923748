/* The connection: settings, statements, transactions, the write lock, checkpoints of the WAL.
 *
 * The only file that steps statements, checkpoints or opens SQLite. See db.h for the invariant.
 */
#include "store/db.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/utf8.h"
#include "store/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 8192,
    WAL_LIMIT_PAGES = 4 * 1024 * 1024 / PAGE_BYTES,
    BUSY_SECONDS = 30,
};

// The error of the connection's last call, with what to do about it.
static mm_status fail(mm_store *store, int code, const char *sql, mm_err *err)
{
    // The beginning of a statement says enough to find it.
    char doing[48];
    snprintf(doing, sizeof doing, "%.*s", (int)strcspn(sql, "\n("), sql);
    const char *path = store->path;
    const int number = store->db ? sqlite3_system_errno(store->db) : 0;
    const char *text = store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(code);
    const int primary = code & 0xff;
    const bool is_full =
        primary == SQLITE_FULL ||
        (primary == SQLITE_IOERR && (number == ENOSPC || number == EDQUOT || number == EFBIG));
    if (is_full) {
        return MM_FAIL(err, MM_ENOSPC,
                       "%s: no space left on the disk while %s; nothing is lost, "
                       "free some space and repeat",
                       path, doing);
    }
    switch (primary) {
    case SQLITE_NOMEM:
        return MM_FAIL(err, MM_ENOMEM, "%s: out of memory while %s", path, doing);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return MM_FAIL(err, MM_EBUSY, "%s: locked by another program for %d s while %s", path,
                       BUSY_SECONDS, doing);
    case SQLITE_CORRUPT:
        return MM_FAIL(err, MM_ECORRUPT,
                       "%s: the database is damaged or cut short (%s, while %s); "
                       "restore a backup, or salvage it with: sqlite3 %s .recover",
                       path, text, doing, path);
    case SQLITE_NOTADB:
        return MM_FAIL(err, MM_EFORMAT, "%s: not an SQLite database", path);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return MM_FAIL(err, MM_EIO,
                       "%s: cannot be opened for this (%s%s%s, while %s); the file and its "
                       "folder must be writable",
                       path, text, number ? ": " : "", number ? strerror(number) : "", doing);
    case SQLITE_IOERR:
        return MM_FAIL(err, MM_EIO, "%s: %s (%s) while %s", path, text,
                       number ? strerror(number) : "unknown cause", doing);
    case SQLITE_TOOBIG:
        return MM_FAIL(err, MM_ELIMIT, "%s: value too large while %s", path, doing);
    default:
        return MM_FAIL(err, MM_EDB, "%s: %s while %s", path, text, doing);
    }
}

/* ---- values ------------------------------------------------------------------------------------
 */

mm_value mm_v_int(int64_t value) { return (mm_value){.type = MM_VALUE_INT, .integer = value}; }

mm_value mm_v_id(int64_t value)
{
    return (mm_value){.type = value ? MM_VALUE_INT : MM_VALUE_NULL, .integer = value};
}

mm_value mm_v_real(double value) { return (mm_value){.type = MM_VALUE_REAL, .real = value}; }

mm_value mm_v_text(const char *text)
{
    return text ? mm_v_text_bytes(text, strlen(text)) : (mm_value){.type = MM_VALUE_NULL};
}

mm_value mm_v_text_bytes(const char *text, size_t length)
{
    return (mm_value){.type = MM_VALUE_TEXT, .bytes = text, .length = length};
}

mm_value mm_v_bytes(const void *bytes, size_t length)
{
    return (mm_value){.type = MM_VALUE_BLOB, .bytes = bytes ? bytes : "", .length = length};
}

// Text from data and models need not be UTF-8, but what is in the database always is.
static int bind_text(sqlite3_stmt *statement, int index, const mm_value *value)
{
    const char *text = value->bytes;
    if (mm_utf8_valid(text, value->length) == value->length) {
        return sqlite3_bind_text64(statement, index, text, value->length, SQLITE_STATIC,
                                   SQLITE_UTF8);
    }
    mm_str valid = {0};
    mm_utf8_add_valid(&valid, text, value->length);
    int code = SQLITE_NOMEM;
    if (valid.status == MM_OK) {
        code = sqlite3_bind_text64(statement, index, mm_str_text(&valid), valid.length,
                                   SQLITE_TRANSIENT, SQLITE_UTF8);
    }
    mm_str_drop(&valid);
    return code;
}

static int bind(sqlite3_stmt *statement, int index, const mm_value *value)
{
    switch (value->type) {
    case MM_VALUE_INT:
        return sqlite3_bind_int64(statement, index, value->integer);
    case MM_VALUE_REAL:
        return sqlite3_bind_double(statement, index, value->real);
    case MM_VALUE_TEXT:
        return bind_text(statement, index, value);
    case MM_VALUE_BLOB:
        return sqlite3_bind_blob64(statement, index, value->bytes, value->length, SQLITE_STATIC);
    case MM_VALUE_NULL:
        break;
    }
    return sqlite3_bind_null(statement, index);
}

char *mm_db_text(sqlite3_stmt *statement, int column, mm_arena *arena)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text ? mm_arena_strndup(arena, text, (size_t)sqlite3_column_bytes(statement, column))
                : NULL;
}

double mm_db_real(sqlite3_stmt *statement, int column)
{
    return sqlite3_column_type(statement, column) == SQLITE_NULL
               ? (double)NAN
               : sqlite3_column_double(statement, column);
}

int64_t mm_db_int_or(sqlite3_stmt *statement, int column, int64_t otherwise)
{
    return sqlite3_column_type(statement, column) == SQLITE_NULL
               ? otherwise
               : sqlite3_column_int64(statement, column);
}

/* ---- statements --------------------------------------------------------------------------------
 */

mm_status mm_db_step(mm_store *store, sqlite3_stmt *statement, bool *has_row, mm_err *err)
{
    // The one place that runs SQL. Writing without the lock is a programmer error.
    MM_ASSERT(sqlite3_stmt_readonly(statement) || store->lock_depth > 0 || store->is_copying);
    const int code = sqlite3_step(statement);
    *has_row = code == SQLITE_ROW;
    if (code == SQLITE_ROW) return MM_OK;
    mm_status status = MM_OK;
    if (code != SQLITE_DONE) status = fail(store, code, sqlite3_sql(statement), err);
    mm_db_end(statement);
    return status;
}

void mm_db_end(sqlite3_stmt *statement)
{
    if (!statement) return;
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

static mm_status prepare(mm_store *store, const char *sql, sqlite3_stmt **out, mm_err *err)
{
    for (size_t i = 0; i < store->n_statements; i++) {
        if (store->statements[i].sql == sql) {
            *out = store->statements[i].handle;
            return MM_OK;
        }
    }
    MM_ASSERT(store->n_statements < MM_DB_STATEMENTS_MAX);
    const int code = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    if (code != SQLITE_OK) return fail(store, code, sql, err);
    store->statements[store->n_statements++] = (mm_statement){.sql = sql, .handle = *out};
    return MM_OK;
}

mm_status mm_db_query(mm_store *store, sqlite3_stmt **statement, const char *sql,
                      const mm_value *values, size_t n_values, mm_err *err)
{
    *statement = NULL;
    MM_TRY(prepare(store, sql, statement, err));
    mm_db_end(*statement);
    MM_ASSERT((size_t)sqlite3_bind_parameter_count(*statement) == n_values);
    for (size_t i = 0; i < n_values; i++) {
        const int code = bind(*statement, (int)i + 1, &values[i]);
        if (code != SQLITE_OK) return fail(store, code, sql, err);
    }
    return MM_OK;
}

mm_status mm_db_run(mm_store *store, const char *sql, const mm_value *values, size_t n_values,
                    mm_err *err)
{
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, sql, values, n_values, err));
    bool has_row;
    do {
        MM_TRY(mm_db_step(store, statement, &has_row, err));
    } while (has_row);
    return MM_OK;
}

mm_status mm_db_int(mm_store *store, int64_t *out, const char *sql, const mm_value *values,
                    size_t n_values, mm_err *err)
{
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, sql, values, n_values, err));
    bool has_row;
    MM_TRY(mm_db_step(store, statement, &has_row, err));
    if (has_row) *out = mm_db_int_or(statement, 0, *out);
    mm_db_end(statement);
    return MM_OK;
}

// Room for one more, zeroed.
static void *add_row(mm_rows *rows)
{
    if (rows->count == rows->capacity) {
        const size_t capacity = rows->capacity ? 2 * rows->capacity : 16;
        void *items = mm_arena_alloc(rows->arena, capacity * rows->item_bytes);
        if (!items) return NULL;
        if (rows->count > 0) memcpy(items, rows->items, rows->count * rows->item_bytes);
        rows->items = items;
        rows->capacity = capacity;
    }
    return (char *)rows->items + rows->item_bytes * rows->count++;
}

mm_status mm_rows_read(mm_store *store, const char *sql, const mm_value *values, size_t n_values,
                       mm_read_row *read, mm_rows *rows, mm_err *err)
{
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, sql, values, n_values, err));
    mm_status status = MM_OK;
    for (;;) {
        bool has_row;
        MM_GO(mm_db_step(store, statement, &has_row, err));
        if (!has_row) break;
        void *item = add_row(rows);
        if (!item) {
            status = MM_FAIL(err, MM_ENOMEM, "out of memory");
            goto done;
        }
        read(statement, item, rows->arena);
    }
done:
    mm_db_end(statement);
    return status;
}

mm_status mm_db_script(mm_store *store, const char *sql, mm_err *err)
{
    while (*sql) {
        sqlite3_stmt *statement = NULL;
        const char *rest = NULL;
        const int code = sqlite3_prepare_v2(store->db, sql, -1, &statement, &rest);
        if (code != SQLITE_OK) return fail(store, code, sql, err);
        mm_status status = MM_OK;
        bool has_row = statement != NULL; // NULL: only a comment was left
        while (has_row && status == MM_OK) {
            status = mm_db_step(store, statement, &has_row, err);
        }
        sqlite3_finalize(statement);
        MM_TRY(status);
        sql = rest;
    }
    return MM_OK;
}

/* ---- transactions ------------------------------------------------------------------------------
 */

mm_status mm_db_lock(mm_store *store, mm_err *err)
{
    MM_ASSERT(store->mode != MM_STORE_READ);
    if (store->lock_depth == 0) {
        const mm_status status = mm_lock_wait(store->lock_fd, MM_LOCK_WRITE, 0, err);
        if (status != MM_OK) {
            mm_err_context(err, "%s", store->path);
            return status;
        }
    }
    store->lock_depth++;
    return MM_OK;
}

void mm_db_unlock(mm_store *store)
{
    MM_ASSERT(store->lock_depth > 0);
    if (--store->lock_depth == 0) mm_lock_release(store->lock_fd, MM_LOCK_WRITE, 0);
}

// Copies the WAL into the file. Failure costs nothing: the WAL stays and the next commit tries
// again.
static void checkpoint(mm_store *store)
{
    MM_ASSERT(store->lock_depth > 0 && !store->in_transaction);
    int pages = 0;
    int pages_done = 0;
    const int code =
        sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &pages_done);
    // A reader that holds an old snapshot stops a checkpoint short: wait for another 4 MiB, do not
    // flush the disk at every commit meanwhile.
    const bool is_done = code == SQLITE_OK && pages == pages_done;
    store->wal_pages_limit = WAL_LIMIT_PAGES + (is_done ? 0 : store->wal_pages);
}

mm_status mm_db_begin(mm_store *store, mm_sync sync, mm_err *err)
{
    if (store->in_group) return MM_OK;
    MM_ASSERT(!store->in_transaction);
    MM_TRY(mm_db_lock(store, err));
    mm_status status = MM_OK;
    const bool is_full = sync == MM_SYNC_FULL;
    if (is_full != store->is_full_sync) {
        MM_GO(mm_db_run(store,
                        is_full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                        MM_NO_VALUES, err));
        store->is_full_sync = is_full;
    }
    MM_GO(mm_db_run(store, "BEGIN IMMEDIATE", MM_NO_VALUES, err));
    store->in_transaction = true;
done:
    if (status != MM_OK) mm_db_unlock(store);
    return status;
}

mm_status mm_db_commit(mm_store *store, mm_err *err)
{
    MM_ASSERT(store->in_transaction && store->lock_depth > 0);
    if (store->in_group) return MM_OK;
    const mm_status status = mm_db_run(store, "COMMIT", MM_NO_VALUES, err);
    if (status != MM_OK) {
        mm_db_rollback(store);
        return status;
    }
    store->in_transaction = false;
    if (store->wal_pages > store->wal_pages_limit) checkpoint(store);
    mm_db_unlock(store);
    return MM_OK;
}

void mm_db_rollback(mm_store *store)
{
    // Within a group only its owner can take everything back.
    if (!store->in_transaction || store->in_group) return;
    // A full disk or an I/O error may have rolled back already.
    if (!sqlite3_get_autocommit(store->db)) {
        const mm_status status = mm_db_run(store, "ROLLBACK", MM_NO_VALUES, NULL);
        (void)status; // nothing more can be done; SQLite rolls back when the connection closes
    }
    store->in_transaction = false;
    mm_db_unlock(store);
}

mm_status mm_store_begin(mm_store *store, mm_err *err)
{
    MM_ASSERT(!store->in_group);
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    store->in_group = true;
    return MM_OK;
}

mm_status mm_store_commit(mm_store *store, mm_err *err)
{
    MM_ASSERT(store->in_group);
    store->in_group = false;
    return mm_db_commit(store, err);
}

void mm_store_abort(mm_store *store)
{
    if (!store || !store->in_group) return;
    store->in_group = false;
    mm_db_rollback(store);
}

// A copy under a name of its own, flushed; the caller puts it in place.
static mm_status copy_to(mm_store *store, const char *path, mm_err *err)
{
    store->is_copying = true;
    mm_status status = mm_db_run(store, "VACUUM INTO ?1", MM_VALUES(mm_v_text(path)), err);
    store->is_copying = false;
    // SQLite does not promise that the copy has reached the disk.
    const int fd = status == MM_OK ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (status == MM_OK && (fd < 0 || fsync(fd) != 0)) {
        status = MM_FAIL_ERRNO(err, "cannot flush %s", path);
    }
    if (fd >= 0) close(fd);
    return status;
}

mm_status mm_db_copy(mm_store *store, const char *path, mm_err *err)
{
    MM_ASSERT(!store->in_transaction);
    struct stat info;
    if (lstat(path, &info) == 0) return MM_FAIL(err, MM_EEXISTS, "%s: exists already", path);
    mm_str part = {0};
    mm_str_addf(&part, "%s.tmp-%ld", path, (long)getpid());
    mm_status status = mm_str_check(&part, err);
    if (status == MM_OK) {
        unlink(part.data); // left by a killed copy of an earlier process of this number
        status = copy_to(store, part.data, err);
    }
    // link, unlike rename, never replaces what somebody else has put there meanwhile.
    if (status == MM_OK && link(part.data, path) != 0) {
        status = errno == EEXIST ? MM_FAIL(err, MM_EEXISTS, "%s: exists already", path)
                                 : MM_FAIL_ERRNO(err, "%s: cannot put in place", path);
    }
    if (part.data) unlink(part.data);
    if (status == MM_OK) status = mm_dir_sync_of(path, err);
    mm_str_drop(&part);
    return status;
}

/* ---- opening and closing -----------------------------------------------------------------------
 */

static int on_busy(void *context, int n_calls)
{
    (void)context;
    static _Thread_local int64_t first_ns;
    const int64_t now = mm_mono_ns();
    if (n_calls == 0) first_ns = now;
    if (now - first_ns > (int64_t)BUSY_SECONDS * 1000000000) return 0;
    mm_sleep_jittered(5.0);
    return 1;
}

static int on_wal(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    mm_store *store = context;
    store->wal_pages = pages;
    return SQLITE_OK;
}

static mm_status open_handle(mm_store *store, const char *name, int flags, mm_err *err)
{
    const int code = sqlite3_open_v2(name, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) return fail(store, code, "opening", err);
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_handler(store->db, on_busy, NULL);
    // Replaces the automatic checkpoint, which would run after the lock is gone.
    sqlite3_wal_autocheckpoint(store->db, 0);
    sqlite3_wal_hook(store->db, on_wal, store);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_FKEY, 1, NULL);
    // A file from elsewhere may be hostile: bound what a query over it can cost.
    sqlite3_limit(store->db, SQLITE_LIMIT_LENGTH, 256 * 1024 * 1024);
    sqlite3_limit(store->db, SQLITE_LIMIT_EXPR_DEPTH, 200);
    sqlite3_limit(store->db, SQLITE_LIMIT_ATTACHED, 1); // VACUUM INTO attaches its target
    int64_t ignored = 0;
    // The first read: tells a file that is no database, or one that cannot be read where it stands.
    return mm_db_int(store, &ignored, "SELECT count(*) FROM sqlite_schema", MM_NO_VALUES, err);
}

static void close_handle(mm_store *store)
{
    for (size_t i = 0; i < store->n_statements; i++) {
        sqlite3_finalize(store->statements[i].handle);
    }
    store->n_statements = 0;
    sqlite3_close_v2(store->db);
    store->db = NULL;
}

bool mm_db_has_wal(const mm_store *store)
{
    mm_str name = {0};
    mm_str_addf(&name, "%s-wal", store->real_path);
    struct stat info;
    const bool has = name.status == MM_OK && stat(name.data, &info) == 0 && info.st_size > 0;
    mm_str_drop(&name);
    return has;
}

// A database in WAL mode in a folder that cannot be written is read as one that does not change,
// which is only right when no WAL holds newer pages.
static mm_status open_immutable(mm_store *store, mm_err *err)
{
    mm_str name = {0};
    mm_status status = MM_OK;
    if (mm_db_has_wal(store)) {
        return MM_FAIL(
            err, MM_EIO,
            "%s: its newest changes are still in %s-wal and the folder cannot be written; "
            "copy both files to a folder that can",
            store->path, store->path);
    }
    mm_str_add(&name, "file:");
    for (const char *c = store->real_path; *c; c++) {
        if (*c == '%' || *c == '?' || *c == '#') {
            mm_str_addf(&name, "%%%02X", (unsigned)(unsigned char)*c);
        } else {
            mm_str_add_char(&name, *c);
        }
    }
    mm_str_add(&name, "?immutable=1");
    MM_GO(mm_str_check(&name, err));
    close_handle(store);
    MM_GO(open_handle(store, name.data, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err));
done:
    mm_str_drop(&name);
    return status;
}

mm_status mm_db_open(mm_store *store, mm_err *err)
{
    store->wal_pages_limit = WAL_LIMIT_PAGES;
    int flags = SQLITE_OPEN_READONLY;
    if (store->mode != MM_STORE_READ) flags = SQLITE_OPEN_READWRITE;
    if (store->mode == MM_STORE_CREATE) flags |= SQLITE_OPEN_CREATE;
    const char *kind;
    const bool is_network = mm_is_network_file_system(store->real_path, &kind);
    mm_status status = MM_OK;
    if (!is_network || store->mode != MM_STORE_READ) {
        status = open_handle(store, store->real_path, flags, err);
    }
    const int code = store->db ? sqlite3_errcode(store->db) : SQLITE_OK;
    const bool is_locked_out =
        status != MM_OK && (code == SQLITE_CANTOPEN || code == SQLITE_READONLY);
    if (store->mode == MM_STORE_READ && (is_network || is_locked_out)) {
        status = open_immutable(store, err);
    }
    MM_TRY(status);
    store->is_full_sync = true;
    return mm_db_script(store,
                        "PRAGMA synchronous = FULL;"
                        "PRAGMA cell_size_check = ON;"
                        "PRAGMA mmap_size = 0;"
                        "PRAGMA cache_size = -20000;"
                        "PRAGMA temp_store = MEMORY;"
                        "PRAGMA secure_delete = OFF;" // else deleting a checkpoint writes its size
                        "PRAGMA journal_size_limit = 67108864;",
                        err);
}

void mm_db_close(mm_store *store)
{
    if (!store->db) return;
    mm_store_abort(store);
    mm_db_rollback(store);
    const bool is_locked =
        store->mode != MM_STORE_READ && store->lock_fd >= 0 && mm_db_lock(store, NULL) == MM_OK;
    if (is_locked) {
        // Passive: never waits for a reader. The last connection of all, which SQLite finds out by
        // an exclusive file lock, then empties and removes the WAL; still under our lock.
        checkpoint(store);
        sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    }
    close_handle(store);
    if (is_locked) mm_db_unlock(store);
}
