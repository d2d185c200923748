/* Metrics: the ring, the writer, summaries, the pyramid, rewinding, curves. */
#include "store/ring.h"
#include "tests/store/fixture.h"

#include <fcntl.h>

typedef struct live_run {
    mm_store *store;
    mm_claim *claim;
    mm_metrics *metrics;
    int64_t run_id;
} live_run;

static live_run start(const fixture *fix)
{
    live_run live = {.store = open_store(fix->path, MM_STORE_CREATE)};
    live.run_id = make_run(live.store, "a");
    live.claim = claim_run(live.store, live.run_id, -1);
    OK(mm_metrics_open(&live.metrics, live.claim, err));
    return live;
}

static void finish(live_run *live)
{
    OK(mm_metrics_close(live->metrics, err));
    OK(mm_run_end(live->claim, "finished", NULL, err));
    mm_store_close(live->store);
}

static mm_series_info series_info(const char *path, int64_t run_id, const char *name)
{
    mm_store *store = open_store(path, MM_STORE_READ);
    mm_arena arena = {0};
    mm_series_info *list;
    size_t count;
    mm_series_info found = {.n = -1};
    OK(mm_store_series(store, run_id, &arena, &list, &count, err));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0) found = list[i];
    }
    found.name = name;
    mm_arena_drop(&arena);
    mm_store_close(store);
    return found;
}

// What the summary and the pyramid must be, computed by plain SQL from the points.
static void assert_consistent(const char *path)
{
    assert_int_equal(
        sql_int(path, "SELECT count(*) FROM series s JOIN (SELECT series_id, count(*) AS n, "
                      "sum(value IS NULL OR abs(value) = 9e999) AS bad, min(step) AS first, "
                      "max(step) AS last FROM point GROUP BY series_id) p ON p.series_id = s.id "
                      "WHERE s.n <> p.n OR s.n_bad <> p.bad OR s.first_step <> p.first "
                      "OR s.last_step <> p.last"),
        0);
    assert_int_equal(
        sql_int(path, "SELECT count(*) FROM series s WHERE "
                      "s.min IS NOT (SELECT min(value) FROM point p WHERE p.series_id = s.id "
                      "AND abs(value) < 9e999) OR s.max IS NOT (SELECT max(value) FROM point p "
                      "WHERE p.series_id = s.id AND abs(value) < 9e999)"),
        0);
    assert_int_equal(sql_int(path, "SELECT count(*) FROM series s WHERE s.n <> (SELECT "
                                   "coalesce(sum(n), 0) FROM lod l WHERE l.series_id = s.id "
                                   "AND level = 1)"),
                     0);
    assert_int_equal(
        sql_int(path,
                "SELECT count(*) FROM lod l JOIN (SELECT series_id, l.level, step / w AS bucket, "
                "count(*) AS n, sum(value IS NULL OR abs(value) = 9e999) AS bad, "
                "min(CASE WHEN abs(value) < 9e999 THEN value END) AS lo, "
                "max(CASE WHEN abs(value) < 9e999 THEN value END) AS hi, min(step) AS first, "
                "max(step) AS last FROM point, (SELECT 1 AS level, 64 AS w UNION SELECT 2, 4096) l "
                "GROUP BY 1, 2, 3) p USING (series_id, level, bucket) "
                "WHERE l.n <> p.n OR l.n_bad <> p.bad OR l.min IS NOT p.lo OR l.max IS NOT p.hi "
                "OR l.first_step <> p.first OR l.last_step <> p.last"),
        0);
}

static void points_come_back_with_nan_and_infinity(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t loss = add_metric(live.metrics, "loss");
    assert_int_equal(add_metric(live.metrics, "loss"), loss);
    const double values[6] = {1.25, (double)NAN, (double)INFINITY, -(double)INFINITY, -0.0, 1e-300};
    for (int i = 0; i < 6; i++) {
        mm_metric_log(live.metrics, loss, i + 1, values[i]);
    }
    OK(mm_metrics_flush(live.metrics, err));
    // Visible to everybody as soon as flush returns.
    assert_string_equal(sql_text(fix->path, "SELECT group_concat(coalesce(value, flag), ' ') FROM "
                                            "(SELECT * FROM metrics ORDER BY step)"),
                        "1.25 nan +inf -inf 0.0 1.0e-300");
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics WHERE run_id = 1 AND "
                                        "name = 'loss' AND time LIKE '2%T%.___Z'"),
                     6);
    finish(&live);
    const mm_series_info info = series_info(fix->path, 1, "loss");
    assert_int_equal(info.n, 6);
    assert_int_equal(info.n_bad, 3);
    assert_int_equal(info.first_bad_step, 2);
    assert_true(info.min <= 0.0 && info.max >= 1.25 && info.max_step == 1);
    assert_true(fabs(info.mean - 1.25 / 3.0) < 1e-12);
    assert_consistent(fix->path);
}

static void the_last_value_may_be_bad(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t loss = add_metric(live.metrics, "loss");
    const int32_t only_bad = add_metric(live.metrics, "val_loss");
    mm_metric_log(live.metrics, loss, 1, 2.0);
    mm_metric_log(live.metrics, loss, 2, (double)INFINITY);
    mm_metric_log(live.metrics, only_bad, 1, (double)NAN);
    finish(&live);
    assert_string_equal(sql_text(fix->path, "SELECT flag FROM metric_last WHERE name = 'loss'"),
                        "+inf");
    assert_string_equal(sql_text(fix->path, "SELECT flag FROM metric_last WHERE name = 'val_loss'"),
                        "nan");
    assert_string_equal(sql_text(fix->path, "SELECT best_val_loss IS NULL FROM runs"), "1");
    const mm_series_info info = series_info(fix->path, 1, "val_loss");
    assert_true(isnan(info.min) && isnan(info.max) && isnan(info.mean) && isnan(info.last));
}

static void many_points_keep_summary_and_pyramid_right(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t a = add_metric(live.metrics, "loss");
    const int32_t b = add_metric(live.metrics, "tokens");
    for (int64_t step = 0; step < 20000; step++) {
        mm_metric_log(live.metrics, a, step, step == 7777 ? (double)NAN : sin((double)step));
        mm_metric_log(live.metrics, b, step, (double)(step * 512));
    }
    finish(&live);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), 40000);
    assert_int_equal(sql_int(fix->path, "SELECT tokens FROM runs"), 19999 * 512);
    assert_int_equal(sql_int(fix->path, "SELECT steps FROM runs"), 19999);
    assert_consistent(fix->path);
}

static void steps_may_come_in_any_order(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t series = add_metric(live.metrics, "loss");
    for (int64_t i = 0; i < 5000; i++) {
        mm_metric_log(live.metrics, series, (i * 2741) % 5000, (double)i);
    }
    OK(mm_metrics_flush(live.metrics, err));
    mm_metric_log(live.metrics, series, 10, -5.0); // once more: the last one counts
    mm_metric_log(live.metrics, series, 5000, 7.0);
    finish(&live);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), 5001);
    assert_string_equal(sql_text(fix->path, "SELECT value FROM metrics WHERE step = 10"), "-5.0");
    assert_string_equal(sql_text(fix->path, "SELECT value FROM metric_last"), "7.0");
    assert_consistent(fix->path);
}

static void a_rewind_leaves_no_duplicate_and_no_hole(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    int32_t loss = add_metric(live.metrics, "loss");
    int32_t late = add_metric(live.metrics, "val_loss");
    for (int64_t step = 1; step <= 9000; step++) {
        mm_metric_log(live.metrics, loss, step, 1000.0 + (double)step);
    }
    mm_metric_log(live.metrics, late, 9000, 3.0);
    for (int64_t step = 50; step <= 9000; step += 4475) {
        OK(mm_store_generation_add(
            live.store, &(mm_generation_row){.run_id = 1, .step = step, .prompt = "p"}, err));
        int64_t id;
        OK(mm_checkpoint_write(
            live.store,
            &(mm_checkpoint_new){
                .run_id = 1, .step = step, .kind = "full", .val_loss = (double)NAN},
            &id, err));
    }
    OK(mm_metrics_close(live.metrics, err));
    OK(mm_run_end(live.claim, "stopped", NULL, err));

    live.claim = claim_run(live.store, 1, 4525);
    assert_consistent(fix->path);
    assert_int_equal(sql_int(fix->path, "SELECT max(step) FROM metrics"), 4525);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metric_last"), 1);
    assert_int_equal(sql_int(fix->path, "SELECT max(step) FROM checkpoints"), 4525);
    assert_int_equal(sql_int(fix->path, "SELECT max(step) FROM generations"), 4525);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM point_old WHERE attempt = 2"), 4476);
    assert_int_equal(sql_int(fix->path, "SELECT max FROM metric_last"), 5525);
    OK(mm_metrics_open(&live.metrics, live.claim, err));
    loss = add_metric(live.metrics, "loss");
    for (int64_t step = 4526; step <= 9100; step++) {
        mm_metric_log(live.metrics, loss, step, (double)step);
    }
    finish(&live);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics WHERE name = 'loss'"), 9100);
    assert_int_equal(sql_int(fix->path, "SELECT count(DISTINCT step) FROM metrics"), 9100);
    assert_string_equal(sql_text(fix->path, "SELECT value FROM metrics WHERE step = 5000"),
                        "5000.0");
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM events WHERE kind = 'resume'"), 1);
    assert_consistent(fix->path);
}

static void the_limit_of_metrics_is_an_error(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    int32_t series;
    for (int i = 0; i < MM_SERIES_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "m/%d", i);
        assert_int_equal(add_metric(live.metrics, name), i);
    }
    FAILS(MM_ELIMIT, "64", mm_metrics_series(live.metrics, "one/more", &series, err));
    FAILS(MM_EUSAGE, "name", mm_metrics_series(live.metrics, "", &series, err));
    finish(&live);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metric_last"), 0); // nothing logged
}

/* ---- the ring ----------------------------------------------------------------------------------
 */

static void copy_file(const char *from, const char *to)
{
    char command[512];
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    for (size_t n; (n = fread(command, 1, sizeof command, in)) > 0;) {
        assert_int_equal(fwrite(command, 1, n, out), n);
    }
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

// A ring as a process that was killed leaves it: made by hand, so that what it holds is known.
static void leave_ring(const fixture *fix, int64_t run_id, int32_t attempt, int64_t series_id,
                       uint64_t first, uint64_t last)
{
    mm_ring ring;
    OK(mm_ring_create(&ring, fix->path, run_id, attempt, err));
    ring.header->series_ids[0] = series_id;
    for (uint64_t number = first; number <= last; number++) {
        mm_ring_record *record = &ring.records[(number - 1) % MM_RING_RECORDS];
        record->step = (int64_t)number;
        record->value = (double)number;
        record->where = 5;
        record->tag = mm_ring_tag(attempt, number);
    }
    mm_ring_drop(&ring, false);
}

static void a_left_ring_is_replayed_once(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t series = add_metric(live.metrics, "loss");
    for (int64_t step = 1; step <= 100; step++) {
        mm_metric_log(live.metrics, series, step, (double)step);
    }
    OK(mm_metrics_close(live.metrics, err));
    mm_claim_drop(live.claim); // as if killed
    mm_store_close(live.store);
    leave_ring(fix, 1, 1, 1, 90, 150);
    char ring[128];
    char copy[128];
    snprintf(ring, sizeof ring, "%s-ring-1", fix->path);
    snprintf(copy, sizeof copy, "%s/kept", fix->folder);
    copy_file(ring, copy);
    for (int i = 0; i < 2; i++) {
        mm_store_close(open_store(fix->path, MM_STORE_WRITE));
        assert_int_not_equal(access(ring, F_OK), 0);
        assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), 150);
        assert_int_equal(sql_int(fix->path, "SELECT sum(value) FROM metrics"), 150 * 151 / 2);
        assert_int_equal(sql_int(fix->path, "SELECT ring_seq FROM attempt"), 150);
        assert_consistent(fix->path);
        copy_file(copy, ring); // found again, as after a crash between commit and removal
    }
}

static void a_strange_ring_does_no_harm(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    add_metric(live.metrics, "loss");
    finish(&live);
    char ring[128];
    snprintf(ring, sizeof ring, "%s-ring-1", fix->path);
    for (int kind = 0; kind < 5; kind++) {
        switch (kind) {
        case 0: // of an older attempt
            leave_ring(fix, 1, 7, 1, 1, 10);
            break;
        case 1: // of a series that does not exist
            leave_ring(fix, 1, 1, 999, 1, 10);
            break;
        case 2: // cut short
            leave_ring(fix, 1, 1, 1, 1, 10);
            assert_int_equal(truncate(ring, 5000), 0);
            break;
        case 3: // of a run that does not exist
            leave_ring(fix, 33, 1, 1, 1, 10);
            break;
        default: { // empty
            const int fd = open(ring, O_CREAT | O_WRONLY, 0600);
            assert_true(fd >= 0);
            close(fd);
        }
        }
        mm_store_close(open_store(fix->path, MM_STORE_WRITE));
        assert_int_not_equal(access(ring, F_OK), 0);
        assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), 0);
    }
}

static void a_full_ring_makes_the_producer_wait(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t series = add_metric(live.metrics, "loss");
    // Twice the ring, as fast as it goes: the writer is slower.
    const int64_t n = 2 * MM_RING_RECORDS;
    for (int64_t step = 1; step <= n; step++) {
        mm_metric_log(live.metrics, series, step, 1.0);
    }
    finish(&live);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), n);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM events WHERE kind = 'ring_full'"), 1);
}

static void an_idle_run_beats(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int64_t before = sql_int(fix->path, "SELECT heartbeat_ms FROM attempt");
    sleep(6);
    const int64_t after = sql_int(fix->path, "SELECT heartbeat_ms FROM attempt");
    assert_true(after - before >= 4000);
    finish(&live);
}

/* ---- curves ------------------------------------------------------------------------------------
 */

static void a_curve_keeps_every_spike(void **state)
{
    const fixture *fix = *state;
    enum { N = 30000 };
    live_run live = start(fix);
    const int32_t series = add_metric(live.metrics, "loss");
    for (int64_t step = 1; step <= N; step++) {
        double value = 1.0 + 0.001 * (double)(step % 7);
        if (step == 12345) value = 1e9;
        if (step == 12346) value = -1e9;
        if (step == 23456) value = (double)NAN;
        mm_metric_log(live.metrics, series, step, value);
    }
    finish(&live);
    mm_store *store = open_store(fix->path, MM_STORE_READ);
    static const size_t SIZES[] = {1, 7, 100, 400, 2000, N, 3 * N};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        mm_arena arena = {0};
        mm_bucket *buckets;
        size_t count;
        OK(mm_store_curve(store, 1, "loss", SIZES[i], &arena, &buckets, &count, err));
        assert_true(count >= 1 && count <= SIZES[i]);
        int64_t n = 0;
        int64_t n_bad = 0;
        double low = 0.0;
        double high = 0.0;
        double sum = 0.0;
        int64_t last = 0;
        for (size_t b = 0; b < count; b++) {
            assert_true(buckets[b].step_first > last &&
                        buckets[b].step_last >= buckets[b].step_first);
            last = buckets[b].step_last;
            n += buckets[b].n;
            n_bad += buckets[b].n_bad;
            if (buckets[b].min < low) low = buckets[b].min;
            if (buckets[b].max > high) high = buckets[b].max;
            if (buckets[b].n > buckets[b].n_bad) {
                sum += buckets[b].mean * (double)(buckets[b].n - buckets[b].n_bad);
            }
        }
        assert_int_equal(n, N);
        assert_int_equal(n_bad, 1);
        assert_int_equal(last, N);
        assert_true(high > 9e8 && low < -9e8);
        assert_true(fabs(sum - 30087.0) < 1.0);
        mm_arena_drop(&arena);
    }
    mm_arena arena = {0};
    mm_bucket *buckets;
    size_t count = 9;
    OK(mm_store_curve(store, 1, "no such metric", 10, &arena, &buckets, &count, err));
    assert_int_equal(count, 0);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void a_short_curve_is_its_points(void **state)
{
    const fixture *fix = *state;
    live_run live = start(fix);
    const int32_t series = add_metric(live.metrics, "val_loss");
    for (int64_t i = 1; i <= 50; i++) {
        mm_metric_log(live.metrics, series, 100 * i, (double)i);
    }
    finish(&live);
    mm_store *store = open_store(fix->path, MM_STORE_READ);
    mm_arena arena = {0};
    mm_bucket *buckets;
    size_t count;
    OK(mm_store_curve(store, 1, "val_loss", 400, &arena, &buckets, &count, err));
    assert_int_equal(count, 50);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(buckets[i].n, 1);
        assert_int_equal(buckets[i].step_first, 100 * (int64_t)(i + 1));
        assert_true(buckets[i].mean == (double)(i + 1)); // stored, not computed
    }
    mm_arena_drop(&arena);
    mm_store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(points_come_back_with_nan_and_infinity),
        TEST(the_last_value_may_be_bad),
        TEST(many_points_keep_summary_and_pyramid_right),
        TEST(steps_may_come_in_any_order),
        TEST(a_rewind_leaves_no_duplicate_and_no_hole),
        TEST(the_limit_of_metrics_is_an_error),
        TEST(a_left_ring_is_replayed_once),
        TEST(a_strange_ring_does_no_harm),
        TEST(a_full_ring_makes_the_producer_wait),
        TEST(an_idle_run_beats),
        TEST(a_curve_keeps_every_spike),
        TEST(a_short_curve_is_its_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
