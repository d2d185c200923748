/* Broken, strange and full: every way a file or a disk can be bad gives a clear error and loses
 * nothing that was there. The parts that need a file system of their own mount a small tmpfs in a
 * private namespace, and are skipped, saying so, where that is not allowed. */
#include "tests/store/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sched.h>

enum { N_FLOATS = 300000 };

static float weights[N_FLOATS];
static float back[N_FLOATS];

static int64_t save(mm_store *store, int64_t run_id, int64_t step, mm_err *err, mm_status *status)
{
    for (size_t i = 0; i < N_FLOATS; i++) {
        weights[i] = sinf((float)i + (float)step);
    }
    const mm_blob blob = {.name = "w",
                          .dtype = "F32",
                          .element_bytes = 4,
                          .ndim = 1,
                          .shape = {N_FLOATS},
                          .data = weights,
                          .bytes = sizeof weights};
    const mm_checkpoint_new one = {.run_id = run_id,
                                   .step = step,
                                   .kind = "full",
                                   .state = "{}",
                                   .val_loss = (double)NAN,
                                   .blobs = &blob,
                                   .n_blobs = 1};
    int64_t id = 0;
    *status = mm_checkpoint_write(store, &one, &id, err);
    return id;
}

// A finished run with 500 points and checkpoint 1 at step 1.
static void make_database(const char *path)
{
    mm_store *store = open_store(path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_claim *claim = claim_run(store, id, -1);
    mm_metrics *metrics;
    OK(mm_metrics_open(&metrics, claim, err));
    const int32_t series = add_metric(metrics, "loss");
    for (int64_t step = 1; step <= 500; step++) {
        mm_metric_log(metrics, series, step, (double)step);
    }
    OK(mm_metrics_close(metrics, err));
    mm_status status;
    mm_err failure;
    save(store, id, 1, &failure, &status);
    assert_int_equal(status, MM_OK);
    OK(mm_run_end(claim, "finished", NULL, err));
    mm_store_close(store);
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static char *read_file(const char *path, size_t *bytes)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    *bytes = (size_t)info.st_size;
    char *data = malloc(*bytes + 1);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    fclose(file);
    return data;
}

static void what_is_no_database_is_named(void **state)
{
    const fixture *fix = *state;
    mm_store *store;
    char other[128];
    static const mm_store_mode MODES[] = {MM_STORE_READ, MM_STORE_WRITE, MM_STORE_CREATE};
    snprintf(other, sizeof other, "%s/other.db", fix->folder);
    sql_run(other, "CREATE TABLE t (a)");
    write_file(fix->path, "{\"text\":\"hello\"}\n", 17);
    for (size_t i = 0; i < 3; i++) {
        FAILS(MM_EFORMAT, "test.db: not an SQLite",
              mm_store_open(&store, fix->path, MODES[i], err));
        assert_null(store);
        FAILS(MM_EFORMAT, "another program", mm_store_open(&store, other, MODES[i], err));
        FAILS(MM_EUSAGE, "is a folder", mm_store_open(&store, fix->folder, MODES[i], err));
    }
    // What was there is untouched.
    size_t bytes;
    char *data = read_file(fix->path, &bytes);
    assert_int_equal(bytes, 17);
    assert_memory_equal(data, "{\"text\"", 7);
    free(data);
    write_file(fix->path, "", 0);
    FAILS(MM_EFORMAT, "is empty", mm_store_open(&store, fix->path, MM_STORE_READ, err));
    FAILS(MM_EFORMAT, "is empty", mm_store_open(&store, fix->path, MM_STORE_WRITE, err));
    mm_store_close(open_store(fix->path, MM_STORE_CREATE)); // as after `touch`
    snprintf(other, sizeof other, "%s/none.db", fix->folder);
    FAILS(MM_ENOTFOUND, "none.db", mm_store_open(&store, other, MM_STORE_READ, err));
    FAILS(MM_ENOTFOUND, "none.db", mm_store_open(&store, other, MM_STORE_WRITE, err));
    assert_int_not_equal(access(other, F_OK), 0);
    snprintf(other, sizeof other, "%s/no/folder.db", fix->folder);
    FAILS(MM_ENOTFOUND, "folder", mm_store_open(&store, other, MM_STORE_CREATE, err));
}

static void a_newer_schema_is_refused(void **state)
{
    const fixture *fix = *state;
    make_database(fix->path);
    sql_run(fix->path, "PRAGMA user_version = 99");
    mm_store *store;
    FAILS(MM_EVERSION, "schema 99", mm_store_open(&store, fix->path, MM_STORE_READ, err));
    FAILS(MM_EVERSION, "schema 99", mm_store_open(&store, fix->path, MM_STORE_CREATE, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), 500);
}

// Opens, reads everything there is, and checks: the first failure.
static mm_status read_everything(const char *path, mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    mm_run_info *runs;
    mm_bucket *buckets;
    mm_checkpoint_info *list;
    mm_blob *blobs;
    size_t count;
    mm_status status;
    MM_GO(mm_store_open(&store, path, MM_STORE_READ, err));
    MM_GO(mm_store_runs(store, NULL, &arena, &runs, &count, err));
    MM_GO(mm_store_curve(store, 1, "loss", 1000, &arena, &buckets, &count, err));
    MM_GO(mm_checkpoint_list(store, 1, &arena, &list, &count, err));
    MM_GO(mm_checkpoint_blobs(store, 1, &arena, &blobs, &count, err));
    MM_GO(mm_checkpoint_read(store, 1, "w", back, sizeof back, err));
    MM_GO(mm_store_check(store, NULL, NULL, err));
done:
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}

static void a_file_cut_short_is_corrupt(void **state)
{
    const fixture *fix = *state;
    make_database(fix->path);
    OK(read_everything(fix->path, err));
    size_t bytes;
    char *data = read_file(fix->path, &bytes);
    mm_store *store;
    for (size_t keep = bytes - 1; keep > 8192; keep -= keep / 3) {
        write_file(fix->path, data, keep);
        FAILS(MM_ECORRUPT, fix->path, read_everything(fix->path, err));
        FAILS(MM_ECORRUPT, "damaged or cut short",
              mm_store_open(&store, fix->path, MM_STORE_WRITE, err));
    }
    // Down to nothing while the WAL is still there: SQLite alone would start afresh and drop it.
    char wal[128];
    snprintf(wal, sizeof wal, "%s-wal", fix->path);
    write_file(fix->path, data, 0);
    write_file(wal, data, 4096);
    FAILS(MM_ECORRUPT, "cut short", mm_store_open(&store, fix->path, MM_STORE_CREATE, err));
    assert_int_equal(access(wal, F_OK), 0);
    free(data);
}

static void a_flipped_byte_never_gives_wrong_weights(void **state)
{
    enum { FLIPS = 400 };
    const fixture *fix = *state;
    make_database(fix->path);
    size_t bytes;
    char *data = read_file(fix->path, &bytes);
    int n_found = 0;
    uint32_t x = 7;
    for (int i = 0; i < FLIPS; i++) {
        x = x * 1664525u + 1013904223u;
        // The first pages hold the schema and the small tables; most of the rest is weights.
        const size_t range = i % 2 ? bytes : (bytes < 400000 ? bytes : 400000);
        const size_t place = (size_t)(((uint64_t)x * range) >> 32);
        data[place] = (char)(data[place] ^ (1 << (i % 8)));
        write_file(fix->path, data, bytes);
        mm_err found = {0};
        memset(back, 0, sizeof back);
        const mm_status status = read_everything(fix->path, &found);
        // Either the byte did not matter, or it was noticed.
        if (status == MM_OK && memcmp(back, weights, sizeof back) != 0) {
            fail_msg("byte %zu flipped: wrong weights without an error", place);
        }
        if (status != MM_OK && found.message[0] == '\0')
            fail_msg("no message for status %d", status);
        n_found += status != MM_OK;
        data[place] = (char)(data[place] ^ (1 << (i % 8)));
    }
    write_file(fix->path, data, bytes);
    OK(read_everything(fix->path, err));
    assert_true(n_found > FLIPS / 4);
    print_message("  %d of %d flips mattered and were noticed\n", n_found, FLIPS);
    free(data);
}

/* ---- file systems of our own -------------------------------------------------------------------
 */

static bool mount_small(const char *folder, const char *options)
{
    if (unshare(CLONE_NEWNS) != 0) return false;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return false;
    return mount("none", folder, "tmpfs", 0, options) == 0;
}

static void fill_disk(const char *path)
{
    static char block[65536];
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t size = sizeof block; size > 0;) {
        if (write(fd, block, size) <= 0) size /= 2;
    }
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

static void a_full_disk_loses_nothing(void **state)
{
    const fixture *fix = *state;
    if (!mount_small(fix->folder, "size=32m")) {
        print_message("  skipped: mounting a tmpfs is not allowed here\n");
        skip();
    }
    char filler[128];
    snprintf(filler, sizeof filler, "%s/filler", fix->folder);
    mm_err failure = {0};
    mm_status status;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "a");
    mm_claim *claim = claim_run(store, 1, -1);
    mm_metrics *metrics;
    OK(mm_metrics_open(&metrics, claim, err));
    const int32_t series = add_metric(metrics, "loss");
    mm_metric_log(metrics, series, 1, 1.0);
    OK(mm_metrics_flush(metrics, err));
    save(store, 1, 1, &failure, &status);
    assert_int_equal(status, MM_OK);

    fill_disk(filler);
    save(store, 1, 2, &failure, &status);
    assert_int_equal(status, MM_ENOSPC);
    assert_non_null(strstr(failure.message, "step 2"));
    assert_non_null(strstr(failure.message, "no space left"));
    // More points than the reserve of a WAL that already has its size.
    mm_status log_status = MM_OK;
    int64_t last = 1;
    for (int round = 0; round < 200 && log_status == MM_OK; round++) {
        for (int i = 0; i < 1000; i++) {
            mm_metric_log(metrics, series, ++last, 1.0);
        }
        log_status = mm_metrics_flush(metrics, &failure);
    }
    assert_int_equal(log_status, MM_ENOSPC);
    FAILS(MM_ENOSPC, "no space left", mm_metrics_status(metrics, err));
    FAILS(MM_ENOSPC, "no space left", mm_store_event(store, 1, "info", "x", "y", err));
    // Reading goes on, and the earlier checkpoint is whole.
    OK(mm_checkpoint_read(store, 1, "w", back, sizeof back, err));
    mm_store *reader = open_store(fix->path, MM_STORE_READ);
    OK(mm_store_check(reader, NULL, NULL, err));
    mm_store_close(reader);

    assert_int_equal(unlink(filler), 0);
    mm_metric_log(metrics, series, ++last, 1.0);
    OK(mm_metrics_flush(metrics, err));
    OK(mm_metrics_status(metrics, err));
    save(store, 1, 3, &failure, &status);
    assert_int_equal(status, MM_OK);
    OK(mm_metrics_close(metrics, err));
    OK(mm_run_end(claim, "finished", NULL, err));
    OK(mm_store_check(store, NULL, NULL, err));
    mm_store_close(store);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), last);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM checkpoint"), 2);
    assert_string_equal(sql_text(fix->path, "PRAGMA integrity_check"), "ok");
    assert_int_equal(umount2(fix->folder, MNT_DETACH), 0);
}

static void a_disk_too_small_for_the_ring_is_an_error(void **state)
{
    const fixture *fix = *state;
    if (!mount_small(fix->folder, "size=4m")) skip();
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "a");
    mm_claim *claim = claim_run(store, 1, -1);
    mm_metrics *metrics;
    FAILS(MM_ENOSPC, "ring-1", mm_metrics_open(&metrics, claim, err));
    assert_null(metrics);
    char ring[128];
    snprintf(ring, sizeof ring, "%s-ring-1", fix->path);
    assert_int_not_equal(access(ring, F_OK), 0); // no half of it left
    OK(mm_run_end(claim, "failed", "disk full", err));
    mm_store_close(store);
    assert_int_equal(umount2(fix->folder, MNT_DETACH), 0);
}

static void points_left_by_a_full_disk_come_back(void **state)
{
    const fixture *fix = *state;
    if (!mount_small(fix->folder, "size=16m")) skip();
    char filler[128];
    snprintf(filler, sizeof filler, "%s/filler", fix->folder);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "a");
    mm_claim *claim = claim_run(store, 1, -1);
    mm_metrics *metrics;
    OK(mm_metrics_open(&metrics, claim, err));
    const int32_t series = add_metric(metrics, "loss");
    fill_disk(filler);
    const int64_t n = 200000;
    for (int64_t step = 1; step <= n; step++) {
        mm_metric_log(metrics, series, step, 1.0);
    }
    FAILS(MM_ENOSPC, "no space", mm_metrics_close(metrics, err)); // the ring stays
    mm_claim_drop(claim);
    mm_store_close(store);
    assert_int_equal(unlink(filler), 0);
    mm_store_close(open_store(fix->path, MM_STORE_WRITE));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), n);
    assert_int_equal(umount2(fix->folder, MNT_DETACH), 0);
}

static void a_read_only_folder_can_be_read(void **state)
{
    const fixture *fix = *state;
    if (!mount_small(fix->folder, "size=32m")) skip();
    make_database(fix->path);
    assert_int_equal(mount("none", fix->folder, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    OK(read_everything(fix->path, err));
    mm_store *store;
    FAILS(MM_EIO, fix->folder, mm_store_open(&store, fix->path, MM_STORE_WRITE, err));
    char other[128];
    snprintf(other, sizeof other, "%s/new.db", fix->folder);
    FAILS(MM_EIO, "must be writable", mm_store_open(&store, other, MM_STORE_CREATE, err));
    assert_int_equal(umount2(fix->folder, MNT_DETACH), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_database_is_named),
        TEST(a_newer_schema_is_refused),
        TEST(a_file_cut_short_is_corrupt),
        TEST(a_flipped_byte_never_gives_wrong_weights),
        TEST(a_full_disk_loses_nothing),
        TEST(a_disk_too_small_for_the_ring_is_an_error),
        TEST(points_left_by_a_full_disk_come_back),
        TEST(a_read_only_folder_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
