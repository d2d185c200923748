/* Private to store: one SQLite connection, its statements, its transactions and its locks.
 *
 * Invariant: everything that may change the database file or copy the WAL into it goes through
 * mm_db_step and the checkpoint in db.c, and both assert that this connection holds byte 0 of
 * "<db>.lock". That is the whole answer to the WAL-reset bug (see store.h): no checkpoint of one
 * connection ever overlaps a commit of another.
 */
#ifndef MM_STORE_DB_H
#define MM_STORE_DB_H

#include "store/store.h"

#include <sqlite3.h>

enum { MM_DB_STATEMENTS_MAX = 256 }; /* the folder has about 160 */

typedef struct mm_statement {
    const char *sql; /* a string literal: compared by address */
    sqlite3_stmt *handle;
} mm_statement;

struct mm_store {
    sqlite3 *db;
    char *path;      /* as given, for messages */
    char *real_path; /* absolute: the lock, ring and backup files stand beside it */
    mm_store_mode mode;
    int lock_fd;    /* "<db>.lock"; -1: none (reading only) */
    int lock_depth; /* > 0: byte 0 of it is ours */
    bool in_transaction;
    bool in_group; /* a transaction of several calls: mm_store_begin */
    bool is_full_sync;
    bool is_copying;     /* VACUUM INTO reads this database but SQLite calls it a write */
    int wal_pages;       /* after the last commit of this connection */
    int wal_pages_limit; /* beyond it a commit is followed by a checkpoint */
    mm_statement statements[MM_DB_STATEMENTS_MAX];
    size_t n_statements;
};

typedef enum mm_sync { MM_SYNC_NORMAL = 0, MM_SYNC_FULL } mm_sync;

/* One bound parameter. Text that is not UTF-8 is stored with U+FFFD; NaN becomes NULL. */
typedef enum mm_value_type {
    MM_VALUE_NULL = 0,
    MM_VALUE_INT,
    MM_VALUE_REAL,
    MM_VALUE_TEXT,
    MM_VALUE_BLOB
} mm_value_type;
typedef struct mm_value {
    mm_value_type type;
    int64_t integer;
    double real;
    const void *bytes; /* must live until the statement has run */
    size_t length;
} mm_value;

mm_value mm_v_int(int64_t value);
mm_value mm_v_id(int64_t value); /* 0 is NULL */
mm_value mm_v_real(double value);
mm_value mm_v_text(const char *text);                      /* NULL is NULL */
mm_value mm_v_bytes(const void *bytes, size_t length);     /* a BLOB */
mm_value mm_v_text_bytes(const char *text, size_t length); /* text of known length */

#define MM_VALUES(...)                                                                             \
    (const mm_value[]){__VA_ARGS__}, sizeof((const mm_value[]){__VA_ARGS__}) / sizeof(mm_value)
#define MM_NO_VALUES NULL, 0

/* Opens the connection and sets everything that holds for every connection. */
MM_NODISCARD mm_status mm_db_open(mm_store *store, mm_err *err);
/* Closes; a writer first empties the WAL into the file, and the last one out removes it. */
void mm_db_close(mm_store *store);

/* The prepared statement of a string literal, reset and bound. Ends by itself when mm_db_step gives
 * no more rows; mm_db_end for leaving early (an unfinished read keeps the WAL from shrinking). */
MM_NODISCARD mm_status mm_db_query(mm_store *store, sqlite3_stmt **statement, const char *sql,
                                   const mm_value *values, size_t n_values, mm_err *err);
MM_NODISCARD mm_status mm_db_step(mm_store *store, sqlite3_stmt *statement, bool *has_row,
                                  mm_err *err);
void mm_db_end(sqlite3_stmt *statement);
/* A statement without a result. */
MM_NODISCARD mm_status mm_db_run(mm_store *store, const char *sql, const mm_value *values,
                                 size_t n_values, mm_err *err);
/* First column of the first row; *out is left alone where there is none. */
MM_NODISCARD mm_status mm_db_int(mm_store *store, int64_t *out, const char *sql,
                                 const mm_value *values, size_t n_values, mm_err *err);
/* Any number of statements, not cached. */
MM_NODISCARD mm_status mm_db_script(mm_store *store, const char *sql, mm_err *err);

/* Columns; text is copied into the arena (NULL stays NULL). */
char *mm_db_text(sqlite3_stmt *statement, int column, mm_arena *arena);
double mm_db_real(sqlite3_stmt *statement, int column); /* NULL is NaN */
int64_t mm_db_int_or(sqlite3_stmt *statement, int column, int64_t otherwise);

/* A write transaction: lock, BEGIN IMMEDIATE ... COMMIT, checkpoint if the WAL is long, unlock.
 * rollback does nothing outside one, so it may stand at every `done:`. A failed commit has rolled
 * back. FULL: on the disk before commit returns. NORMAL: survives the process, not a power cut. */
MM_NODISCARD mm_status mm_db_begin(mm_store *store, mm_sync sync, mm_err *err);
MM_NODISCARD mm_status mm_db_commit(mm_store *store, mm_err *err);
void mm_db_rollback(mm_store *store);
/* The lock alone, for what happens outside a transaction (creating, migrating). Counts. */
MM_NODISCARD mm_status mm_db_lock(mm_store *store, mm_err *err);
void mm_db_unlock(mm_store *store);

/* Whether "<db>-wal" exists and holds something. */
bool mm_db_has_wal(const mm_store *store);

/* Rows of a query as an array of items in an arena, which has no count before they are read.
 * Doubling wastes at most as much again. Zero-initialise but for the first two. */
typedef struct mm_rows {
    mm_arena *arena;
    size_t item_bytes;
    size_t count;
    size_t capacity;
    void *items;
} mm_rows;
/* Fills one item, zeroed, from one row; texts go to the arena. */
typedef void mm_read_row(sqlite3_stmt *statement, void *item, mm_arena *arena);
MM_NODISCARD mm_status mm_rows_read(mm_store *store, const char *sql, const mm_value *values,
                                    size_t n_values, mm_read_row *read, mm_rows *rows, mm_err *err);

/* A consistent, compact copy into a new file, flushed to the disk. */
MM_NODISCARD mm_status mm_db_copy(mm_store *store, const char *path, mm_err *err);

#endif
