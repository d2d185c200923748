/* Checkpoints: what goes in comes out, equal parts cost nothing, damage is found, the background
 * saver and the rules of keeping. */
#include "store/chunk.h"
#include "store/db.h"
#include "tests/store/fixture.h"

#include <zstd.h>

enum { N_FLOATS = 700000 }; /* 2.8 MB: three chunks, the last one short */

static float *make_weights(uint32_t seed)
{
    float *weights = malloc(N_FLOATS * sizeof *weights);
    if (!weights) fail();
    uint32_t x = seed;
    for (size_t i = 0; i < N_FLOATS; i++) {
        x = x * 1664525u + 1013904223u;
        weights[i] = 0.02f * ((float)(x >> 8) / (float)(1 << 24) - 0.5f);
    }
    return weights;
}

static mm_blob float_blob(const char *name, const float *data, int64_t n)
{
    return (mm_blob){.name = name,
                     .dtype = "F32",
                     .element_bytes = 4,
                     .ndim = 2,
                     .shape = {n / 100, 100},
                     .data = data,
                     .bytes = (size_t)n * sizeof *data};
}

static int64_t write_one(mm_store *store, int64_t run_id, int64_t step, const mm_blob *blobs,
                         size_t n_blobs, double val_loss)
{
    int64_t id = 0;
    const mm_checkpoint_new checkpoint = {.run_id = run_id,
                                          .step = step,
                                          .kind = "full",
                                          .state = "{\"epoch\":1}",
                                          .val_loss = val_loss,
                                          .blobs = blobs,
                                          .n_blobs = n_blobs};
    OK(mm_checkpoint_write(store, &checkpoint, &id, err));
    return id;
}

// The description in the manifest and every byte of the content.
static void expect_same(mm_store *store, int64_t id, const mm_blob *found, const mm_blob *blob)
{
    assert_string_equal(found->name, blob->name);
    assert_string_equal(found->dtype, blob->dtype);
    assert_int_equal(found->ndim, blob->ndim);
    assert_memory_equal(found->shape, blob->shape, sizeof found->shape);
    assert_int_equal(found->bytes, blob->bytes);
    assert_null(found->data);
    uint8_t *back = malloc(blob->bytes + 1);
    assert_non_null(back);
    memset(back, 0xA5, blob->bytes + 1);
    OK(mm_checkpoint_read(store, id, blob->name, back, blob->bytes, err));
    if (blob->bytes) assert_memory_equal(back, blob->data, blob->bytes);
    assert_int_equal(back[blob->bytes], 0xA5);
    free(back);
}

static void blobs_come_back_exactly(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    float *weights = make_weights(1);
    // Every element size, lengths around the chunk, a length that is no multiple of the element.
    const mm_blob blobs[] = {
        float_blob("model.norm.weight", weights, N_FLOATS),
        {.name = "bytes",
         .dtype = "U8",
         .element_bytes = 1,
         .ndim = 1,
         .shape = {12345},
         .data = weights,
         .bytes = 12345},
        {.name = "bf16",
         .dtype = "BF16",
         .element_bytes = 2,
         .ndim = 1,
         .shape = {MM_CHUNK_BYTES / 2},
         .data = weights,
         .bytes = MM_CHUNK_BYTES},
        {.name = "f64",
         .dtype = "F64",
         .element_bytes = 8,
         .ndim = 4,
         .shape = {1, 2, 3, 5},
         .data = weights,
         .bytes = 240},
        {.name = "odd",
         .dtype = "F32",
         .element_bytes = 4,
         .ndim = 1,
         .shape = {262145},
         .data = weights,
         .bytes = MM_CHUNK_BYTES + 3},
        {.name = "scalar", .dtype = "F32", .element_bytes = 4, .data = weights, .bytes = 4},
        {.name = "empty", .dtype = "F32", .element_bytes = 4, .ndim = 1, .shape = {0}},
    };
    const size_t n_blobs = sizeof blobs / sizeof blobs[0];
    const int64_t id = write_one(store, run_id, 5, blobs, n_blobs, (double)NAN);
    mm_store_close(store);

    store = open_store(fix->path, MM_STORE_READ);
    mm_arena arena = {0};
    mm_blob *found;
    size_t count;
    OK(mm_checkpoint_blobs(store, id, &arena, &found, &count, err));
    assert_int_equal(count, n_blobs);
    for (size_t i = 0; i < n_blobs; i++) {
        expect_same(store, id, &found[i], &blobs[i]);
    }
    OK(mm_store_check(store, NULL, NULL, err));
    mm_arena_drop(&arena);
    mm_store_close(store);
    free(weights);
}

static void a_checkpoint_says_what_it_holds(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    float *weights = make_weights(1);
    const mm_blob blob = float_blob("w", weights, N_FLOATS);
    const int64_t id = write_one(store, run_id, 5, &blob, 1, (double)NAN);
    FAILS(MM_ENOTFOUND, "'missing'", mm_checkpoint_read(store, id, "missing", weights, 4, err));
    FAILS(MM_EFORMAT, "2800000", mm_checkpoint_read(store, id, "w", weights, 4, err));
    FAILS(MM_ENOTFOUND, "77", mm_checkpoint_read(store, 77, "w", weights, blob.bytes, err));
    mm_arena arena = {0};
    mm_checkpoint_info *list;
    size_t count;
    OK(mm_checkpoint_list(store, run_id, &arena, &list, &count, err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].state, "{\"epoch\":1}");
    assert_string_equal(list[0].kind, "full");
    assert_int_equal(strlen(list[0].sha256), 64);
    assert_int_equal(list[0].raw_bytes, blob.bytes);
    assert_true(list[0].stored_bytes < list[0].raw_bytes);
    assert_true(isnan(list[0].val_loss) && !list[0].is_best && !list[0].is_final);
    mm_arena_drop(&arena);
    mm_store_close(store);
    free(weights);
}

static void an_equal_tensor_costs_nothing(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "base");
    const int64_t other_id = make_run(store, "lora");
    float *weights = make_weights(1);
    const float adapter[100] = {1.0f};
    const mm_blob base = float_blob("w", weights, N_FLOATS);
    write_one(store, run_id, 1, &base, 1, (double)NAN);
    const int64_t before = sql_int(fix->path, "SELECT sum(stored_bytes) FROM chunk");
    const mm_blob tuned[] = {float_blob("model.w", weights, N_FLOATS),
                             float_blob("lora", adapter, 100)};
    for (int64_t step = 1; step <= 10; step++) {
        write_one(store, other_id, step, tuned, 2, (double)NAN);
    }
    const int64_t after = sql_int(fix->path, "SELECT sum(stored_bytes) FROM chunk");
    assert_true(after - before <= 400);
    OK(mm_store_check(store, NULL, NULL, err));
    // Removing one owner keeps what the other needs; removing both frees all.
    OK(mm_store_run_remove(store, run_id, err));
    assert_int_equal(sql_int(fix->path, "SELECT sum(stored_bytes) FROM chunk"), after);
    OK(mm_store_check(store, NULL, NULL, err));
    OK(mm_store_run_remove(store, other_id, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 0);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM tensor_chunk"), 0);
    assert_int_equal(sql_int(fix->path, "PRAGMA freelist_count"), 0); // given back
    mm_store_close(store);
    free(weights);
}

static void the_same_step_is_replaced(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    float *first = make_weights(1);
    float *second = make_weights(2);
    mm_blob blob = float_blob("w", first, N_FLOATS);
    const int64_t old_id = write_one(store, run_id, 5, &blob, 1, 2.0);
    blob.data = second;
    const int64_t new_id = write_one(store, run_id, 5, &blob, 1, 1.0);
    assert_int_not_equal(old_id, new_id);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM checkpoint"), 1);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 3);
    FAILS(MM_ENOTFOUND, "", mm_checkpoint_read(store, old_id, "w", first, blob.bytes, err));
    OK(mm_checkpoint_read(store, new_id, "w", first, blob.bytes, err));
    assert_memory_equal(first, second, blob.bytes);
    mm_store_close(store);
    free(first);
    free(second);
}

static void bad_requests_leave_nothing(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    const float w[100] = {0};
    const mm_blob twice[] = {float_blob("w", w, 100), float_blob("w", w, 100)};
    int64_t id;
    mm_checkpoint_new checkpoint = {
        .run_id = run_id, .step = 1, .kind = "half", .val_loss = (double)NAN};
    FAILS(MM_EUSAGE, "half", mm_checkpoint_write(store, &checkpoint, &id, err));
    checkpoint.kind = "full";
    checkpoint.blobs = twice;
    checkpoint.n_blobs = 2;
    FAILS(MM_EDB, "step 1", mm_checkpoint_write(store, &checkpoint, &id, err));
    checkpoint.run_id = 99;
    FAILS(MM_ENOTFOUND, "99", mm_checkpoint_write(store, &checkpoint, &id, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM checkpoint"), 0);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 0);
    mm_store_close(store);
}

/* ---- damage ------------------------------------------------------------------------------------
 */

// Reads the manifest and the tensor of checkpoint 1 as a resume would.
static mm_status read_all(const char *path, void *data, size_t bytes, mm_err *err)
{
    mm_store *store;
    MM_TRY(mm_store_open(&store, path, MM_STORE_READ, err));
    mm_arena arena = {0};
    mm_blob *blobs;
    size_t count;
    mm_status status = mm_checkpoint_blobs(store, 1, &arena, &blobs, &count, err);
    if (status == MM_OK) status = mm_checkpoint_read(store, 1, "w", data, bytes, err);
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}

// Every column that a resume depends on, at its beginning, in the middle and at the end.
static const char *const DAMAGE[] = {
    "UPDATE chunk SET data = CAST(zeroblob(1) || substr(data, 2) AS BLOB) WHERE id = 1",
    "UPDATE chunk SET data = CAST(substr(data, 1, 5000) || x'5A' || substr(data, 5002) AS "
    "BLOB) WHERE id = 1",
    "UPDATE chunk SET data = CAST(substr(data, 1, length(data) - 1) || x'5A' AS BLOB) WHERE id "
    "= 1",
    "UPDATE chunk SET data = substr(data, 1, length(data) - 1) WHERE id = 1",
    "UPDATE chunk SET data = x'' WHERE id = 2",
    "UPDATE chunk SET sha256 = CAST(x'00' || substr(sha256, 2) AS BLOB) WHERE id = 1",
    "UPDATE chunk SET sha256 = CAST(substr(sha256, 1, 31) || x'5A' AS BLOB) WHERE id = 3",
    "UPDATE chunk SET codec = 0 WHERE id = 1",
    "UPDATE chunk SET codec = 2 WHERE id = 1",
    "UPDATE chunk SET codec = 3 WHERE id = 1",
    "UPDATE chunk SET codec = -4 WHERE id = 1",
    "UPDATE chunk SET raw_bytes = raw_bytes - 1 WHERE id = 1",
    "UPDATE chunk SET raw_bytes = raw_bytes - 1 WHERE id = 3",
    "DELETE FROM chunk WHERE id = 2",
    "UPDATE tensor_chunk SET chunk_id = 2 WHERE seq = 0",
    "UPDATE tensor_chunk SET seq = 9 WHERE seq = 0",
    "DELETE FROM tensor_chunk WHERE seq = 2",
    "UPDATE tensor SET sha256 = CAST(x'00' || substr(sha256, 2) AS BLOB)",
    "UPDATE tensor SET sha256 = x'00'",
    "UPDATE tensor SET shape = '[70000,11]'",
    "UPDATE tensor SET shape = '[7000,100'",
    "UPDATE tensor SET shape = '[1,2,3,4,5]'",
    "UPDATE tensor SET dtype = 'F31'",
    "UPDATE tensor SET element_bytes = 2",
    "UPDATE tensor SET bytes = bytes - 4",
    "UPDATE tensor SET name = 'v'",
    "UPDATE checkpoint SET details = '{\"epoch\":2}'",
    "UPDATE checkpoint SET step = 6",
    "UPDATE checkpoint SET kind = 'weights'",
    "UPDATE checkpoint SET sha256 = NULL",
    "UPDATE checkpoint SET sha256 = '0' || substr(sha256, 2)",
};

static void one_wrong_byte_anywhere_is_found(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    float *weights = make_weights(1);
    const mm_blob blob = float_blob("w", weights, N_FLOATS);
    write_one(store, run_id, 5, &blob, 1, (double)NAN);
    mm_store_close(store);
    float *back = malloc(blob.bytes);
    assert_non_null(back);
    char copy[128];
    snprintf(copy, sizeof copy, "%s/copy.db", fix->folder);
    OK(read_all(fix->path, back, blob.bytes, err));
    for (size_t i = 0; i < sizeof DAMAGE / sizeof DAMAGE[0]; i++) {
        char sql[256];
        snprintf(sql, sizeof sql, "VACUUM INTO '%s'", copy);
        sql_run(fix->path, sql);
        sql_run(copy, DAMAGE[i]);
        mm_err found = {0};
        const mm_status status = read_all(copy, back, blob.bytes, &found);
        if (status != MM_ECORRUPT) {
            fail_msg("%s: status %d %s", DAMAGE[i], (int)status, found.message);
        }
        // The message leads to the place.
        assert_non_null(strstr(found.message, "run 1"));
        assert_non_null(strstr(found.message, "step"));
        store = open_store(copy, MM_STORE_READ);
        FAILS(MM_ECORRUPT, "finding", mm_store_check(store, NULL, NULL, err));
        mm_store_close(store);
        unlink(copy);
    }
    OK(read_all(fix->path, back, blob.bytes, err));
    free(back);
    free(weights);
}

static void a_decompression_bomb_is_refused(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    const float w[100] = {1.0f};
    const mm_blob blob = float_blob("w", w, 100);
    write_one(store, run_id, 5, &blob, 1, (double)NAN);
    // 64 MiB of zeros in a few kilobytes.
    const size_t bomb_bytes = 64 << 20;
    uint8_t *zeros = calloc(1, bomb_bytes);
    uint8_t *bomb = malloc(ZSTD_compressBound(bomb_bytes));
    assert_non_null(zeros);
    assert_non_null(bomb);
    const size_t n = ZSTD_compress(bomb, ZSTD_compressBound(bomb_bytes), zeros, bomb_bytes, 1);
    assert_false(ZSTD_isError(n));
    OK(mm_db_begin(store, MM_SYNC_NORMAL, err));
    OK(mm_db_run(store, "UPDATE chunk SET codec = 4, data = ?1", MM_VALUES(mm_v_bytes(bomb, n)),
                 err));
    OK(mm_db_commit(store, err));
    float back[100];
    FAILS(MM_ECORRUPT, "decompress", mm_checkpoint_read(store, 1, "w", back, sizeof back, err));
    mm_store_close(store);
    free(zeros);
    free(bomb);
}

/* ---- keeping -----------------------------------------------------------------------------------
 */

static void pruning_keeps_newest_best_and_final(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    static const double LOSS[6] = {5.0, 1.0, 4.0, 3.0, 2.0, (double)NAN};
    for (int i = 0; i < 6; i++) {
        int64_t id;
        const float w[100] = {(float)i};
        const mm_blob blob = float_blob("w", w, 100);
        const mm_checkpoint_new one = {.run_id = run_id,
                                       .step = i + 1,
                                       .kind = "full",
                                       .val_loss = LOSS[i],
                                       .is_final = i == 2,
                                       .blobs = &blob,
                                       .n_blobs = 1};
        OK(mm_checkpoint_write(store, &one, &id, err));
    }
    OK(mm_checkpoints_prune(store, run_id, 2, err));
    assert_string_equal(
        sql_text(fix->path,
                 "SELECT group_concat(step || iif(is_best, 'b', '') || "
                 "iif(is_final, 'f', '')) FROM (SELECT * FROM checkpoints ORDER BY step)"),
        "2b,3f,5,6");
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 4);
    mm_store_close(store);
}

static void the_saver_writes_from_a_copy(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    float *weights = make_weights(1);
    float *expected = make_weights(1);
    mm_saver *saver;
    OK(mm_saver_open(&saver, fix->path, 2, err));
    for (int64_t step = 1; step <= 5; step++) {
        char name[16] = "w";
        weights[0] = (float)step;
        const mm_blob blob = float_blob(name, weights, N_FLOATS);
        const mm_checkpoint_new one = {.run_id = run_id,
                                       .step = step,
                                       .kind = "full",
                                       .state = "{}",
                                       .val_loss = (double)NAN,
                                       .blobs = &blob,
                                       .n_blobs = 1};
        OK(mm_saver_submit(saver, &one, err));
        memset(name, 'x', 3); // the caller goes on at once
        memset(weights, 0, 4096);
        memcpy(weights, expected, 4096);
    }
    OK(mm_saver_wait(saver, err));
    double stall_s;
    double write_s;
    int64_t raw_bytes;
    mm_saver_stats(saver, &stall_s, &write_s, &raw_bytes);
    assert_int_equal(raw_bytes, 5 * (int64_t)N_FLOATS * 4);
    assert_true(stall_s > 0.0 && write_s > 0.0);
    OK(mm_saver_close(saver, err));
    assert_string_equal(sql_text(fix->path, "SELECT group_concat(step) FROM checkpoints"), "4,5");
    mm_run_ref ref = {.run_id = run_id};
    mm_arena arena = {0};
    mm_checkpoint_info info;
    OK(mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
    OK(mm_checkpoint_read(store, info.id, "w", weights, N_FLOATS * sizeof(float), err));
    expected[0] = 5.0f;
    assert_memory_equal(weights, expected, N_FLOATS * sizeof(float));
    mm_arena_drop(&arena);
    mm_store_close(store);
    free(weights);
    free(expected);
}

static void the_saver_reports_its_failure_once(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run_id = make_run(store, "a");
    mm_saver *saver;
    OK(mm_saver_open(&saver, fix->path, 0, err));
    mm_checkpoint_new one = {.run_id = 99, .step = 1, .kind = "full", .val_loss = (double)NAN};
    OK(mm_saver_submit(saver, &one, err));
    FAILS(MM_ENOTFOUND, "99", mm_saver_wait(saver, err));
    one.run_id = run_id;
    OK(mm_saver_submit(saver, &one, err));
    OK(mm_saver_close(saver, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM checkpoints"), 1);
    mm_store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blobs_come_back_exactly),         TEST(a_checkpoint_says_what_it_holds),
        TEST(an_equal_tensor_costs_nothing),   TEST(the_same_step_is_replaced),
        TEST(bad_requests_leave_nothing),      TEST(one_wrong_byte_anywhere_is_found),
        TEST(a_decompression_bomb_is_refused), TEST(pruning_keeps_newest_best_and_final),
        TEST(the_saver_writes_from_a_copy),    TEST(the_saver_reports_its_failure_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
