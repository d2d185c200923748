/* The database file: what it promises, backup, migration, the lock and the rules of the folder. */
#include "core/base/clock.h"
#include "store/db.h"
#include "store/lock.h"
#include "store/schema.h"
#include "tests/store/fixture.h"

/* ---- files -------------------------------------------------------------------------------------
 */

static void new_file_has_the_promised_properties(void **state)
{
    const fixture *fix = *state;
    mm_store_close(open_store(fix->path, MM_STORE_CREATE));
    assert_int_equal(sql_int(fix->path, "PRAGMA application_id"), 0x6d6d726e);
    assert_int_equal(sql_int(fix->path, "PRAGMA user_version"), mm_schema_migration_count);
    assert_int_equal(sql_int(fix->path, "PRAGMA page_size"), 8192);
    assert_string_equal(sql_text(fix->path, "PRAGMA journal_mode"), "wal");
    assert_string_equal(sql_text(fix->path, "PRAGMA integrity_check"), "ok");
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM schema_history"),
                     mm_schema_migration_count);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' "
                                        "AND name NOT LIKE 'sqlite_%' AND sql NOT LIKE '%STRICT%'"),
                     0);
}

static void one_file_is_left_behind_by_the_last_one_out(void **state)
{
    const fixture *fix = *state;
    mm_store *first = open_store(fix->path, MM_STORE_CREATE);
    mm_store *second = open_store(fix->path, MM_STORE_WRITE);
    make_run(first, "a");
    mm_store_close(first);
    make_run(second, "b");
    mm_store_close(second);
    char wal[128];
    snprintf(wal, sizeof wal, "%s-wal", fix->path);
    assert_int_not_equal(access(wal, F_OK), 0);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM runs"), 2);
}

static void every_stable_view_has_its_columns(void **state)
{
    static const struct {
        const char *view;
        const char *columns;
    } VIEWS[] = {
        {"runs",
         "id, name, stage, status, parent_id, parent_step, sweep_id, seed, device, dtype, "
         "params_total, params_trainable, steps, tokens, final_loss, best_val_loss, "
         "tokens_per_s, created_at, started_at, ended_at, duration_s, error, command, host, "
         "version, git_commit, notes"},
        {"params", "run_id, name, value, is_default"},
        {"metrics", "run_id, step, name, value, time"},
        {"metric_last", "run_id, name, step, value"},
        {"checkpoints",
         "id, run_id, step, kind, raw_bytes, stored_bytes, sha256, created_at, own_bytes"},
        {"generations", "id, run_id, step, prompt_idx, prompt, text, tokens, finish_reason, "
                        "temperature, top_p, top_k, seed, tokens_per_s, created_at, task, "
                        "expected, is_correct"},
        {"results", "run_id, step, task, metric, value, low, high, n, correct, data_sha256, "
                    "created_at"},
        {"datasets", "id, path, source, sha256, bytes, rows, tokens"},
        {"run_datasets", "run_id, dataset_id, role"},
        {"sweeps", "id, name, stage, search, space, status, created_at"},
        {"sweep_leaderboard", "sweep_id, rank, run_id, name, status, objective, params"},
        {"run_wide", "id, name, status, hidden_size, num_hidden_layers, learning_rate, batch_size"},
        {"events", "run_id, time, level, kind, message"},
    };
    const fixture *fix = *state;
    mm_store_close(open_store(fix->path, MM_STORE_CREATE));
    for (size_t i = 0; i < sizeof VIEWS / sizeof VIEWS[0]; i++) {
        char sql[1024];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM (SELECT %s FROM %s)", VIEWS[i].columns,
                 VIEWS[i].view);
        assert_int_equal(sql_int(fix->path, sql), 0);
    }
}

static void views_work_where_the_schema_is_not_trusted(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    sqlite3_stmt *statement;
    OK(mm_db_query(store, &statement, "SELECT name FROM sqlite_schema WHERE type = 'view'",
                   MM_NO_VALUES, err));
    int n_views = 0;
    for (bool has_row = true;; n_views++) {
        OK(mm_db_step(store, statement, &has_row, err));
        if (!has_row) break;
        char *sql = sqlite3_mprintf("SELECT * FROM %w", sqlite3_column_text(statement, 0));
        OK(mm_db_script(store, sql, err));
        sqlite3_free(sql);
    }
    assert_true(n_views >= 13);
    mm_store_close(store);
}

/* ---- check, backup, migration ------------------------------------------------------------------
 */

static void a_backup_is_a_whole_database(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_claim *claim = claim_run(store, id, -1);
    const float weights[3] = {1, 2, 3};
    const mm_blob blob = {.name = "w",
                          .dtype = "F32",
                          .element_bytes = 4,
                          .ndim = 1,
                          .shape = {3},
                          .data = weights,
                          .bytes = sizeof weights};
    int64_t checkpoint_id;
    OK(mm_checkpoint_write(store,
                           &(mm_checkpoint_new){.run_id = id,
                                                .step = 1,
                                                .kind = "full",
                                                .val_loss = (double)NAN,
                                                .blobs = &blob,
                                                .n_blobs = 1},
                           &checkpoint_id, err));
    char copy[128];
    snprintf(copy, sizeof copy, "%s/copy.db", fix->folder);
    OK(mm_store_backup(store, copy, err)); // while the run is alive
    FAILS(MM_EEXISTS, "copy.db", mm_store_backup(store, copy, err));
    OK(mm_store_check(store, NULL, NULL, err));
    mm_store_info info;
    OK(mm_store_info_get(store, &info, err));
    assert_int_equal(info.runs, 1);
    assert_int_equal(info.checkpoints, 1);
    assert_true(info.file_bytes > 0 && info.chunk_bytes == 12);
    OK(mm_run_end(claim, "finished", NULL, err));
    mm_store_close(store);
    store = open_store(copy, MM_STORE_READ);
    float back[3] = {0};
    OK(mm_checkpoint_read(store, checkpoint_id, "w", back, sizeof back, err));
    assert_memory_equal(back, weights, sizeof back);
    mm_store_close(store);
    store = open_store(copy, MM_STORE_WRITE);
    assert_string_equal(sql_text(copy, "PRAGMA journal_mode"), "wal");
    make_run(store, "b");
    mm_store_close(store);
}

// Path of the backup that a migration made, "" if there is none.
static const char *find_backup(const fixture *fix)
{
    static char path[512];
    path[0] = '\0';
    DIR *dir = opendir(fix->folder);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strstr(entry->d_name, ".backup")) {
            snprintf(path, sizeof path, "%s/%s", fix->folder, entry->d_name);
        }
    }
    closedir(dir);
    return path;
}

// A file as the program of that schema made it, without any rows.
static void make_old_file(const char *path, int32_t version)
{
    char sql[256];
    sql_run(path, "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;");
    for (int32_t i = 0; i < version; i++) {
        sql_run(path, mm_schema_migrations[i].sql);
        snprintf(sql, sizeof sql, "INSERT INTO schema_history VALUES (%d, '%s', 0, 1, 'old')",
                 (int)i + 1, mm_schema_migrations[i].name);
        sql_run(path, sql);
    }
    sql_run(path, "CREATE VIEW runs AS SELECT id, name FROM run;"
                  "CREATE VIEW forgotten AS SELECT 1;");
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             (int)MM_APPLICATION_ID, (int)version);
    sql_run(path, sql);
}

// One more migration than this program has.
static mm_status migrate_with(mm_store *store, const char *name, const char *sql, const char *views,
                              mm_err *err)
{
    mm_migration migrations[16];
    const int32_t count = mm_schema_migration_count;
    assert_true(count < 16);
    memcpy(migrations, mm_schema_migrations, (size_t)count * sizeof *migrations);
    migrations[count] = (mm_migration){count + 1, name, sql};
    return mm_schema_update(store, false, migrations, count + 1, views, err);
}

static void an_older_file_is_backed_up_and_migrated(void **state)
{
    const fixture *fix = *state;
    const int32_t known = mm_schema_migration_count;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "old");
    OK(migrate_with(store, "9999_colour",
                    "ALTER TABLE run ADD COLUMN colour TEXT; UPDATE run SET colour = 'red';",
                    "CREATE VIEW runs AS SELECT id, name, colour FROM run;", err));
    mm_store_close(store);
    assert_int_equal(sql_int(fix->path, "PRAGMA user_version"), known + 1);
    assert_string_equal(sql_text(fix->path, "SELECT name || colour FROM runs"), "oldred");
    assert_int_equal(sql_int(fix->path, "SELECT from_version FROM schema_history "
                                        "WHERE name = '9999_colour'"),
                     known);
    // The backup beside it is the old one, and whole.
    char backup[512];
    snprintf(backup, sizeof backup, "%s", find_backup(fix));
    assert_string_not_equal(backup, "");
    assert_int_equal(sql_int(backup, "PRAGMA user_version"), known);
    assert_string_equal(sql_text(backup, "SELECT name FROM runs"), "old");
    // This program does not know that schema.
    char message[64];
    snprintf(message, sizeof message, "schema %d, this one knows %d", (int)known + 1, (int)known);
    FAILS(MM_EVERSION, message, mm_store_open(&store, fix->path, MM_STORE_WRITE, err));
    FAILS(MM_EVERSION, "made by a newer mmrun",
          mm_store_open(&store, fix->path, MM_STORE_READ, err));
    assert_null(store);
}

static void a_failed_migration_changes_nothing(void **state)
{
    const fixture *fix = *state;
    const int32_t known = mm_schema_migration_count;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "old");
    FAILS(MM_EDB, "migrating from schema",
          migrate_with(store, "9999_broken", "CREATE TABLE extra (a) STRICT; DROP TABLE run;",
                       mm_schema_views, err));
    make_run(store, "still works");
    mm_store_close(store);
    assert_int_equal(sql_int(fix->path, "PRAGMA user_version"), known);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM runs"), 2);
    assert_string_equal(sql_text(fix->path, "PRAGMA integrity_check"), "ok");
}

// Two checkpoints that share chunk 1, a third that was being written, an answer.
static const char SCHEMA_1_ROWS[] =
    "INSERT INTO run (id, uid, name, stage, seed, created_ms, host) "
    "VALUES (1, 'u', 'old', 'pretrain', 42, 5, 'h');"
    "INSERT INTO generation (run_id, step, prompt_idx, prompt, text, tokens, seed, created_ms) "
    "VALUES (1, 3, 0, 'p', 'a', 1, 42, 6);"
    "INSERT INTO chunk (id, sha256, codec, raw_bytes, stored_bytes, data) VALUES "
    "(1, zeroblob(32), 0, 100, 100, zeroblob(100)),"
    "(2, randomblob(32), 0, 20, 20, zeroblob(20));"
    "INSERT INTO checkpoint (id, run_id, step, kind, state, stored_bytes, created_ms) VALUES "
    "(1, 1, 1, 'full', 'writing', 0, 7), (2, 1, 2, 'full', 'complete', 100, 7),"
    "(3, 1, 3, 'full', 'complete', 120, 7);"
    "INSERT INTO tensor_chunk VALUES (1, 0, 0, 1), (2, 0, 0, 1), (2, 1, 0, 1), (3, 0, 0, 1), "
    "(3, 1, 0, 2);";

static void schema_1_becomes_the_newest(void **state)
{
    const fixture *fix = *state;
    make_old_file(fix->path, 1);
    sql_run(fix->path, SCHEMA_1_ROWS);
    mm_store *store;
    FAILS(MM_EVERSION, "made by an older mmrun",
          mm_store_open(&store, fix->path, MM_STORE_READ, err));
    store = open_store(fix->path, MM_STORE_WRITE);
    assert_int_equal(sql_int(find_backup(fix), "PRAGMA user_version"), 1);
    assert_int_equal(sql_int(fix->path, "PRAGMA user_version"), mm_schema_migration_count);
    // The oldest that is complete owns what both have; what was half written is gone.
    assert_string_equal(sql_text(fix->path, "SELECT group_concat(id || ':' || own_bytes) "
                                            "FROM (SELECT * FROM checkpoints ORDER BY id)"),
                        "2:100,3:20");
    mm_arena arena = {0};
    mm_generation_row *rows;
    size_t count;
    OK(mm_store_generations(store, 1, &arena, &rows, &count, err));
    assert_int_equal(count, 1);
    assert_null(rows[0].task);
    assert_null(rows[0].expected);
    assert_int_equal(rows[0].is_correct, -1);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM results"), 0);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM sqlite_schema "
                                        "WHERE name = 'forgotten'"),
                     0);
    assert_string_equal(sql_text(fix->path, "PRAGMA integrity_check"), "ok");
    make_run(store, "new");
    mm_arena_drop(&arena);
    mm_store_close(store);
}

/* ---- rules of the folder -----------------------------------------------------------------------
 */

static int count_in_file(const char *path, const char *word)
{
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("cannot read %s", path);
    char line[1024];
    int n = 0;
    while (fgets(line, sizeof line, file)) {
        n += strstr(line, word) != NULL;
    }
    fclose(file);
    return n;
}

static void all_writes_go_through_one_function(void **state)
{
    (void)state;
    // Each of these changes the file or copies the WAL; each stands once, behind an assertion that
    // the write lock is held.
    static const char *const ONCE[] = {"sqlite3_step(", "sqlite3_wal_checkpoint_v2(",
                                       "sqlite3_open_v2("};
    static const char *const NEVER[] = {"sqlite3_exec(",         "sqlite3_wal_checkpoint(",
                                        "sqlite3_backup_step(",  "sqlite3_blob_write(",
                                        "sqlite3_deserialize(",  "sqlite3_get_table(",
                                        "wal_autocheckpoint = 1"};
    DIR *dir = opendir(MM_STORE_SOURCE);
    assert_non_null(dir);
    int n_files = 0;
    int n_once[3] = {0};
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || (strcmp(dot, ".c") != 0 && strcmp(dot, ".h") != 0)) continue;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", MM_STORE_SOURCE, entry->d_name);
        n_files++;
        for (size_t i = 0; i < 3; i++) {
            const int n = count_in_file(path, ONCE[i]);
            n_once[i] += n;
            if (n > 0) assert_string_equal(entry->d_name, "db.c");
        }
        for (size_t i = 0; i < sizeof NEVER / sizeof NEVER[0]; i++) {
            assert_int_equal(count_in_file(path, NEVER[i]), 0);
        }
    }
    closedir(dir);
    assert_true(n_files > 15);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(n_once[i], 1);
    }
}

static void the_lock_is_held_during_a_transaction_and_not_after(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    int fd;
    OK(mm_lock_open(&fd, fix->path, true, err));
    assert_false(mm_lock_is_held(fd, MM_LOCK_WRITE, 0));
    OK(mm_db_begin(store, MM_SYNC_NORMAL, err));
    assert_true(mm_lock_is_held(fd, MM_LOCK_WRITE, 0));
    bool is_ours = true;
    OK(mm_lock_try(fd, MM_LOCK_WRITE, 0, &is_ours, err));
    assert_false(is_ours);
    OK(mm_db_commit(store, err));
    assert_false(mm_lock_is_held(fd, MM_LOCK_WRITE, 0));
    OK(mm_db_begin(store, MM_SYNC_FULL, err));
    mm_db_rollback(store);
    assert_false(mm_lock_is_held(fd, MM_LOCK_WRITE, 0));
    close(fd);
    mm_store_close(store);
}

static void the_wal_stays_short(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    static uint8_t noise[24 << 20];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof noise; i++) {
        x = x * 1664525u + 1013904223u;
        noise[i] = (uint8_t)(x >> 24);
    }
    const mm_blob blob = {.name = "w",
                          .dtype = "U8",
                          .element_bytes = 1,
                          .ndim = 1,
                          .shape = {sizeof noise},
                          .data = noise,
                          .bytes = sizeof noise};
    int64_t checkpoint_id;
    OK(mm_checkpoint_write(store,
                           &(mm_checkpoint_new){.run_id = id,
                                                .step = 1,
                                                .kind = "weights",
                                                .val_loss = (double)NAN,
                                                .blobs = &blob,
                                                .n_blobs = 1},
                           &checkpoint_id, err));
    mm_store_info info;
    OK(mm_store_info_get(store, &info, err));
    assert_true(info.file_bytes > (int64_t)sizeof noise);
    assert_true(info.wal_bytes < 16 << 20);
    mm_store_close(store);
}

static void a_reader_with_an_old_snapshot_stops_nobody(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "a");
    sqlite3 *reader;
    assert_int_equal(sqlite3_open(fix->path, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT * FROM runs", NULL, NULL, NULL),
                     SQLITE_OK);
    const int64_t start = mm_mono_ns();
    make_run(store, "b");
    mm_store_close(store);
    store = open_store(fix->path, MM_STORE_WRITE);
    make_run(store, "c");
    mm_store_close(store);
    assert_true(mm_mono_ns() - start < INT64_C(10000000000)); // a wait would be 30 s
    assert_int_equal(sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(reader);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM runs"), 3);
}

static void file_systems_and_versions_are_known(void **state)
{
    (void)state;
    assert_string_equal(mm_network_file_system_name(0x6969), "NFS");
    assert_string_equal(mm_network_file_system_name(0x65735546), "FUSE");
    assert_null(mm_network_file_system_name(0xEF53)); // ext4
    const char *kind;
    assert_false(mm_is_network_file_system("/tmp", &kind));
    const int version = sqlite3_libversion_number();
    if (version < 3044006) assert_true(mm_sqlite_has_wal_reset_bug());
    if (version >= 3051003) assert_false(mm_sqlite_has_wal_reset_bug());
    assert_string_equal(mm_sqlite_version(), sqlite3_libversion());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new_file_has_the_promised_properties),
        TEST(one_file_is_left_behind_by_the_last_one_out),
        TEST(every_stable_view_has_its_columns),
        TEST(views_work_where_the_schema_is_not_trusted),
        TEST(a_backup_is_a_whole_database),
        TEST(an_older_file_is_backed_up_and_migrated),
        TEST(a_failed_migration_changes_nothing),
        TEST(schema_1_becomes_the_newest),
        TEST(all_writes_go_through_one_function),
        TEST(the_lock_is_held_during_a_transaction_and_not_after),
        TEST(the_wal_stays_short),
        TEST(a_reader_with_an_old_snapshot_stops_nobody),
        TEST(file_systems_and_versions_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
