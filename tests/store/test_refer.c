/* Checkpoints that refer to the arrays of another one: what they cost, who owns a chunk, and that
 * nothing which is referred to goes away, in whatever order things are removed. */
#include "store/chunk.h"
#include "store/db.h"
#include "store/lock.h"
#include "tests/store/fixture.h"

enum { N_BASE = 700000, N_ADAPTER = 400 }; /* 2.8 MB: three chunks */

// A frozen base with two arrays, one of them in three chunks, and an adapter with its moment.
typedef struct lora {
    float *wide;
    float norm[64];
    float a[N_ADAPTER];
    float m[N_ADAPTER];
    mm_blob blobs[4];
} lora;

static mm_blob blob_of(const char *name, const float *data, int64_t n, bool is_frozen)
{
    return (mm_blob){.name = name,
                     .dtype = "F32",
                     .element_bytes = 4,
                     .ndim = 2,
                     .shape = {n / 4, 4},
                     .data = data,
                     .bytes = (size_t)n * sizeof *data,
                     .is_frozen = is_frozen};
}

static void lora_make(lora *model)
{
    *model = (lora){.wide = malloc(N_BASE * sizeof(float))};
    assert_non_null(model->wide);
    uint32_t x = 7;
    for (size_t i = 0; i < N_BASE; i++) {
        x = x * 1664525u + 1013904223u;
        model->wide[i] = 0.02f * ((float)(x >> 8) / (float)(1 << 24) - 0.5f);
    }
    for (size_t i = 0; i < 64; i++) {
        model->norm[i] = 1.0f + (float)i;
    }
    model->blobs[0] = blob_of("w", model->wide, N_BASE, true);
    model->blobs[1] = blob_of("norm", model->norm, 64, true);
    model->blobs[2] = blob_of("a", model->a, N_ADAPTER, false);
    model->blobs[3] = blob_of("adam.m/a", model->m, N_ADAPTER, false);
}

// Trains a step: the adapter and its moment are other numbers in every step.
static void lora_move(lora *model, int64_t step)
{
    for (size_t i = 0; i < N_ADAPTER; i++) {
        model->a[i] = sinf((float)i + (float)step);
        model->m[i] = cosf((float)i - (float)step);
    }
}

static mm_checkpoint_new lora_checkpoint(const lora *model, int64_t run_id, int64_t step,
                                         int64_t base_id)
{
    return (mm_checkpoint_new){.run_id = run_id,
                               .step = step,
                               .kind = "full",
                               .state = "{}",
                               .val_loss = (double)NAN,
                               .blobs = model->blobs,
                               .n_blobs = 4,
                               .base_id = base_id};
}

static int64_t write_base(mm_store *store, const lora *model, int64_t run_id)
{
    int64_t id;
    mm_checkpoint_new base = lora_checkpoint(model, run_id, 100, 0);
    base.n_blobs = 2;
    OK(mm_checkpoint_write(store, &base, &id, err));
    return id;
}

static int64_t write_lora(mm_store *store, lora *model, int64_t run_id, int64_t step,
                          int64_t base_id, int64_t expected_written)
{
    int64_t id;
    int64_t written;
    lora_move(model, step);
    const mm_checkpoint_new one = lora_checkpoint(model, run_id, step, base_id);
    OK(mm_checkpoint_put(store, &one, &id, &written, err));
    assert_int_equal(written, expected_written);
    return id;
}

enum { OWN = 2 * N_ADAPTER * (int)sizeof(float), ALL = OWN + (N_BASE + 64) * (int)sizeof(float) };

static void expect_loads(mm_store *store, int64_t id, lora *model, int64_t step)
{
    lora_move(model, step);
    for (size_t i = 0; i < 4; i++) {
        const mm_blob *blob = &model->blobs[i];
        void *back = malloc(blob->bytes);
        assert_non_null(back);
        OK(mm_checkpoint_read(store, id, blob->name, back, blob->bytes, err));
        assert_memory_equal(back, blob->data, blob->bytes);
        free(back);
    }
}

// Every chunk has an owner, the owners' bytes add up, nothing is kept that nobody refers to.
static void expect_sound(const fixture *fix, mm_store *store)
{
    OK(mm_store_check(store, NULL, NULL, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk WHERE id NOT IN "
                                        "(SELECT chunk_id FROM tensor_chunk)"),
                     0);
    assert_int_equal(sql_int(fix->path, "SELECT (SELECT coalesce(sum(own_bytes), 0) FROM "
                                        "checkpoints) - (SELECT coalesce(sum(stored_bytes), 0) "
                                        "FROM chunk)"),
                     0);
    // By the definition, counted afresh.
    assert_int_equal(sql_int(fix->path,
                             "SELECT count(*) FROM checkpoint k WHERE own_bytes <> (SELECT "
                             "coalesce(sum(c.stored_bytes), 0) FROM chunk c WHERE k.id = (SELECT "
                             "min(t.checkpoint_id) FROM tensor_chunk t WHERE t.chunk_id = c.id))"),
                     0);
}

/* ---- what is taken over ------------------------------------------------------------------------
 */

static void a_frozen_base_costs_only_its_rows(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t base = write_base(store, &model, make_run(store, "base"));
    const int64_t run = make_run(store, "lora");
    const int64_t before = sql_int(fix->path, "SELECT sum(stored_bytes) FROM chunk");
    const int64_t first = write_lora(store, &model, run, 1, base, OWN);
    const int64_t second = write_lora(store, &model, run, 2, base, OWN);
    expect_loads(store, first, &model, 1);
    expect_loads(store, second, &model, 2);
    const int64_t after = sql_int(fix->path, "SELECT sum(stored_bytes) FROM chunk");
    assert_true(after - before <= 2 * OWN);
    mm_arena arena = {0};
    mm_checkpoint_info *list;
    size_t count;
    OK(mm_checkpoint_list(store, run, &arena, &list, &count, err));
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(list[i].raw_bytes, ALL); // what it names, not what it wrote
        assert_true(list[i].own_bytes > 0 && list[i].own_bytes <= OWN);
        assert_int_equal(list[i].stored_bytes - list[i].own_bytes, before);
    }
    mm_blob *blobs;
    OK(mm_checkpoint_blobs(store, second, &arena, &blobs, &count, err));
    assert_int_equal(count, 4);
    assert_string_equal(blobs[0].name, "w");
    mm_arena_drop(&arena);
    expect_sound(fix, store);
    mm_store_close(store);
    free(model.wide);
}

// The manifest says the same whether an array was taken over or written.
static void the_manifest_does_not_depend_on_the_way(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t base = write_base(store, &model, make_run(store, "base"));
    write_lora(store, &model, make_run(store, "taken"), 5, base, OWN);
    write_lora(store, &model, make_run(store, "written"), 5, 0, ALL);
    assert_int_equal(sql_int(fix->path, "SELECT count(DISTINCT sha256) FROM checkpoints "
                                        "WHERE step = 5"),
                     1);
    expect_sound(fix, store);
    mm_store_close(store);
    free(model.wide);
}

static void what_differs_is_written(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t base = write_base(store, &model, make_run(store, "base"));
    const int64_t run = make_run(store, "lora");
    const int64_t norm_bytes = 64 * (int64_t)sizeof(float);
    mm_blob *norm = &model.blobs[1];
    const mm_blob same = *norm;
    norm->is_frozen = false;
    write_lora(store, &model, run, 1, base, OWN + norm_bytes);
    *norm = same;
    norm->name = "other";
    write_lora(store, &model, run, 2, base, OWN + norm_bytes);
    *norm = same;
    norm->dtype = "I32";
    write_lora(store, &model, run, 3, base, OWN + norm_bytes);
    *norm = same;
    norm->shape[0] = 4;
    norm->shape[1] = 16;
    write_lora(store, &model, run, 4, base, OWN + norm_bytes);
    *norm = same;
    write_lora(store, &model, run, 5, base, OWN);
    // A base that lost a chunk is not taken over: the data at hand are whole.
    sql_run(fix->path, "UPDATE tensor_chunk SET seq = 7 WHERE checkpoint_id = 1 AND idx = 0 "
                       "AND seq = 1; DELETE FROM tensor_chunk WHERE checkpoint_id = 1 AND seq = 7");
    const int64_t whole = write_lora(store, &model, run, 6, base, ALL - norm_bytes);
    expect_loads(store, whole, &model, 6);
    mm_store_close(store);
    free(model.wide);
}

// A wrong byte in the base is found in every checkpoint that refers to it, by its own name.
static void damage_in_the_base_is_found(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t base = write_base(store, &model, make_run(store, "base"));
    const int64_t id = write_lora(store, &model, make_run(store, "lora"), 1, base, OWN);
    sql_run(fix->path, "UPDATE chunk SET data = CAST(zeroblob(1) || substr(data, 2) AS BLOB) "
                       "WHERE id = 1");
    float *back = malloc(model.blobs[0].bytes);
    assert_non_null(back);
    FAILS(MM_ECORRUPT, "run 2 at step 1, tensor 'w'",
          mm_checkpoint_read(store, id, "w", back, model.blobs[0].bytes, err));
    OK(mm_checkpoint_read(store, id, "a", back, model.blobs[2].bytes, err));
    free(back);
    mm_store_close(store);
    free(model.wide);
}

/* ---- what keeps chunks alive -------------------------------------------------------------------
 */

static void a_parent_may_go_before_or_after(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t parent = make_run(store, "base");
    const int64_t base = write_base(store, &model, parent);
    const int64_t lora_run = make_run(store, "lora");
    const int64_t first = write_lora(store, &model, lora_run, 1, base, OWN);
    const int64_t second = write_lora(store, &model, lora_run, 2, base, OWN);
    OK(mm_store_run_remove(store, parent, err)); // after
    expect_loads(store, first, &model, 1);
    expect_sound(fix, store);
    // The first that refers to the base owns it now.
    assert_true(sql_int(fix->path, "SELECT own_bytes FROM checkpoints WHERE step = 1") >
                N_BASE * 2);
    assert_true(sql_int(fix->path, "SELECT own_bytes FROM checkpoints WHERE step = 2") <= OWN);
    const int64_t third = write_lora(store, &model, lora_run, 3, base, ALL); // before
    expect_loads(store, third, &model, 3);
    OK(mm_checkpoints_prune(store, lora_run, 2, err));
    FAILS(MM_ENOTFOUND, "", mm_checkpoint_read(store, first, "a", model.a, 4, err));
    expect_loads(store, second, &model, 2);
    expect_sound(fix, store);
    OK(mm_checkpoints_prune(store, lora_run, 1, err));
    expect_loads(store, third, &model, 3);
    expect_sound(fix, store);
    OK(mm_store_run_remove(store, lora_run, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 0);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM tensor_chunk"), 0);
    mm_store_close(store);
    free(model.wide);
}

// The parent goes after its arrays were taken over and before the checkpoint is published: what a
// writer does between its transactions, done here by hand.
static void a_parent_may_go_while_it_is_referred_to(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t parent = make_run(store, "base");
    const int64_t base = write_base(store, &model, parent);
    const int64_t run = make_run(store, "lora");
    int fd;
    bool is_ours;
    OK(mm_db_begin(store, MM_SYNC_NORMAL, err));
    OK(mm_db_run(store,
                 "INSERT INTO checkpoint (id, run_id, step, kind, state, created_ms) "
                 "VALUES (50, ?1, 1, 'full', 'writing', 1)",
                 MM_VALUES(mm_v_int(run)), err));
    OK(mm_db_commit(store, err));
    OK(mm_lock_open(&fd, fix->path, true, err));
    OK(mm_lock_try(fd, MM_LOCK_CHECKPOINT, 50, &is_ours, err));
    assert_true(is_ours);
    const mm_checkpoint_new one = lora_checkpoint(&model, run, 1, base);
    bool is_taken[4] = {false};
    uint8_t digests[4][MM_SHA256_BYTES];
    OK(mm_checkpoint_take_over(store, 50, &one, is_taken, digests, err));
    assert_true(is_taken[0] && is_taken[1] && !is_taken[2] && !is_taken[3]);
    OK(mm_store_run_remove(store, parent, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 4); // three and one
    // A second one now finds the parent gone and takes nothing.
    memset(is_taken, 0, sizeof is_taken);
    OK(mm_checkpoint_take_over(store, 50, &one, is_taken, digests, err));
    assert_false(is_taken[0] || is_taken[1]);
    // The writer dies: all of it goes.
    close(fd);
    OK(mm_checkpoints_collect(store, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM chunk"), 0);
    mm_store_close(store);
    free(model.wide);
}

// One that is half removed is not a base: its chunks may be going.
static void a_checkpoint_that_is_being_removed_is_no_base(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t base = write_base(store, &model, make_run(store, "base"));
    sql_run(fix->path, "UPDATE checkpoint SET state = 'removing'");
    const int64_t run = make_run(store, "lora");
    const int64_t id = write_lora(store, &model, run, 1, base, ALL);
    expect_loads(store, id, &model, 1); // the write collected the other one
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM checkpoint"), 1);
    expect_sound(fix, store);
    mm_store_close(store);
    free(model.wide);
}

// Published later than a newer one that shares its chunks: the smaller id owns them all the same.
static void ownership_does_not_depend_on_the_order_of_publishing(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t run = make_run(store, "a");
    const int64_t first = write_base(store, &model, run);
    const int64_t second = write_base(store, &model, make_run(store, "b"));
    // As if the first were still being written.
    OK(mm_db_begin(store, MM_SYNC_NORMAL, err));
    OK(mm_db_run(store, "UPDATE checkpoint SET state = 'writing', own_bytes = 0 WHERE id = ?1",
                 MM_VALUES(mm_v_int(first)), err));
    OK(mm_checkpoint_count_own(store, second, err));
    OK(mm_db_commit(store, err));
    const int64_t all = sql_int(fix->path, "SELECT sum(stored_bytes) FROM chunk");
    assert_int_equal(sql_int(fix->path, "SELECT own_bytes FROM checkpoint WHERE id = 2"), all);
    OK(mm_db_begin(store, MM_SYNC_NORMAL, err));
    OK(mm_db_run(store, "UPDATE checkpoint SET state = 'complete' WHERE id = ?1",
                 MM_VALUES(mm_v_int(first)), err));
    OK(mm_checkpoint_count_own(store, first, err));
    OK(mm_db_commit(store, err));
    assert_int_equal(sql_int(fix->path, "SELECT own_bytes FROM checkpoint WHERE id = 1"), all);
    assert_int_equal(sql_int(fix->path, "SELECT own_bytes FROM checkpoint WHERE id = 2"), 0);
    expect_sound(fix, store);
    mm_store_close(store);
    free(model.wide);
}

/* ---- the saver ---------------------------------------------------------------------------------
 */

static void the_saver_copies_only_what_changes(void **state)
{
    const fixture *fix = *state;
    lora model;
    lora_make(&model);
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t parent = make_run(store, "base");
    const int64_t base = write_base(store, &model, parent);
    const int64_t run = make_run(store, "lora");
    mm_saver *saver;
    double stall_s;
    double write_s;
    int64_t written;
    OK(mm_saver_open(&saver, fix->path, 2, err));
    for (int64_t step = 1; step <= 6; step++) {
        lora_move(&model, step);
        const mm_checkpoint_new one = lora_checkpoint(&model, run, step, base);
        OK(mm_saver_submit(saver, &one, err));
        lora_move(&model, 0); // training goes on
        if (step != 3) continue;
        // From here on the base is gone; the run's own last checkpoint has what it had.
        OK(mm_saver_wait(saver, err));
        OK(mm_store_run_remove(store, parent, err));
    }
    OK(mm_saver_wait(saver, err));
    mm_saver_stats(saver, &stall_s, &write_s, &written);
    assert_int_equal(written, 6 * OWN);
    OK(mm_saver_close(saver, err));
    assert_string_equal(sql_text(fix->path, "SELECT group_concat(step) FROM checkpoints"), "5,6");
    for (int64_t step = 5; step <= 6; step++) {
        const mm_run_ref ref = {.run_id = run, .at = MM_AT_STEP, .step = step};
        mm_arena arena = {0};
        mm_checkpoint_info info;
        OK(mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
        expect_loads(store, info.id, &model, step);
        mm_arena_drop(&arena);
    }
    expect_sound(fix, store);
    mm_store_close(store);
    free(model.wide);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_frozen_base_costs_only_its_rows),
        TEST(the_manifest_does_not_depend_on_the_way),
        TEST(what_differs_is_written),
        TEST(damage_in_the_base_is_found),
        TEST(a_parent_may_go_before_or_after),
        TEST(a_parent_may_go_while_it_is_referred_to),
        TEST(a_checkpoint_that_is_being_removed_is_no_base),
        TEST(ownership_does_not_depend_on_the_order_of_publishing),
        TEST(the_saver_copies_only_what_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
