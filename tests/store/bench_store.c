/* Benchmark of the store: prints one line per measure. Not part of the tests: nothing here can fail
 * for being slow. Usage: bench_store [folder [number of one measure]]. */
#include "core/base/clock.h"
#include "core/base/rng.h"
#include "store/metrics.h"
#include "store/query.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_METRICS = 8, N_STEPS = 250000, N_RUNS = 100, N_RUN_STEPS = 10000, N_FLOATS = 26 << 20 };

static const char *const NAMES[N_METRICS] = {"loss",         "lr",      "grad_norm", "tokens",
                                             "tokens_per_s", "step_ms", "mem_bytes", "val_loss"};

static void must(mm_status status, const mm_err *err)
{
    if (status == MM_OK) return;
    fprintf(stderr, "bench_store: %s\n", err->message);
    exit(1);
}

static double seconds_since(int64_t start_ns) { return (double)(mm_mono_ns() - start_ns) / 1e9; }

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

// What training logs: a falling noisy loss, a schedule, rates.
static double value_of(int metric, int64_t step)
{
    const double noise = (double)((step * 2654435761) % 1000) / 1000.0;
    switch (metric) {
    case 0:
        return 2.0 + 6.0 * exp(-(double)step / 5000.0) + 0.1 * noise;
    case 1:
        return 5e-4 * (1.0 + cos((double)step * 1e-5));
    case 3:
        return (double)step * 16384.0;
    case 6:
        return 1073741824.0;
    default:
        return 100.0 * noise + (double)metric;
    }
}

static int64_t new_run(mm_store *store, mm_claim **claim)
{
    mm_err err;
    int64_t id;
    const mm_run_new run = {.stage = "pretrain", .seed = 42, .parent_step = -1};
    must(mm_store_run_create(store, &run, &id, &err), &err);
    must(mm_run_claim(claim, store, id, -1, &err), &err);
    return id;
}

static void register_all(mm_metrics *metrics, int32_t series[N_METRICS])
{
    mm_err err;
    for (int m = 0; m < N_METRICS; m++) {
        must(mm_metrics_series(metrics, NAMES[m], &series[m], &err), &err);
    }
}

static void bench_sustained(const char *path)
{
    mm_err err;
    mm_store *store;
    mm_claim *claim;
    mm_metrics *metrics;
    int32_t series[N_METRICS];
    must(mm_store_open(&store, path, MM_STORE_CREATE, &err), &err);
    new_run(store, &claim);
    must(mm_metrics_open(&metrics, claim, &err), &err);
    register_all(metrics, series);
    const int64_t start = mm_mono_ns();
    for (int64_t step = 0; step < N_STEPS; step++) {
        for (int m = 0; m < N_METRICS; m++) {
            mm_metric_log(metrics, series[m], step, value_of(m, step));
        }
    }
    must(mm_metrics_flush(metrics, &err), &err);
    const double seconds = seconds_since(start);
    must(mm_metrics_close(metrics, &err), &err);
    must(mm_run_end(claim, "finished", NULL, &err), &err);
    mm_store_close(store);
    struct stat info;
    if (stat(path, &info) != 0) exit(1);
    const double n_points = (double)N_STEPS * N_METRICS;
    printf("metrics sustained       %10.0f points/s (%.0f points in %.2f s, committed)\n",
           n_points / seconds, n_points, seconds);
    printf("bytes per point         %10.2f (whole file, pyramid and summary included)\n",
           (double)info.st_size / n_points);
}

// The cost in the training thread at 2 ms per step: each step's 8 calls are timed by themselves.
static void bench_log(const char *path)
{
    enum { STEPS = 1500 };
    static double ns[STEPS];
    mm_err err;
    mm_store *store;
    mm_claim *claim;
    mm_metrics *metrics;
    int32_t series[N_METRICS];
    must(mm_store_open(&store, path, MM_STORE_CREATE, &err), &err);
    new_run(store, &claim);
    must(mm_metrics_open(&metrics, claim, &err), &err);
    register_all(metrics, series);
    for (int64_t step = 0; step < STEPS; step++) {
        const int64_t start = mm_mono_ns();
        for (int m = 0; m < N_METRICS; m++) {
            mm_metric_log(metrics, series[m], step, 1.0);
        }
        ns[step] = (double)(mm_mono_ns() - start);
        while (mm_mono_ns() - start < 2000000) {
        }
    }
    must(mm_metrics_close(metrics, &err), &err);
    must(mm_run_end(claim, "finished", NULL, &err), &err);
    mm_store_close(store);
    double sum = 0.0;
    for (int i = 0; i < STEPS; i++) {
        sum += ns[i];
    }
    qsort(ns, STEPS, sizeof ns[0], compare);
    printf("log 8 metrics           %10.0f ns median (mean %.0f, p99 %.0f), 2 ms steps\n",
           ns[STEPS / 2], sum / STEPS, ns[STEPS * 99 / 100]);
}

static void bench_first_point(const char *path)
{
    mm_err err;
    const int64_t start = mm_mono_ns();
    mm_store *store;
    mm_claim *claim;
    mm_metrics *metrics;
    int32_t series;
    must(mm_store_open(&store, path, MM_STORE_CREATE, &err), &err);
    new_run(store, &claim);
    must(mm_metrics_open(&metrics, claim, &err), &err);
    must(mm_metrics_series(metrics, "loss", &series, &err), &err);
    mm_metric_log(metrics, series, 1, 1.0);
    must(mm_metrics_flush(metrics, &err), &err);
    const double seconds = seconds_since(start);
    must(mm_metrics_close(metrics, &err), &err);
    must(mm_run_end(claim, "finished", NULL, &err), &err);
    mm_store_close(store);
    printf("start to first point    %10.1f ms (new file to committed point)\n", seconds * 1e3);
}

static void bench_checkpoint(const char *path)
{
    mm_err err;
    mm_store *store;
    mm_claim *claim;
    float *weights = malloc(N_FLOATS * sizeof *weights);
    float *back = malloc(N_FLOATS * sizeof *weights);
    if (!weights || !back) exit(1);
    mm_rng rng;
    mm_rng_init(&rng, 42, MM_RNG_TEST, 0);
    for (size_t i = 0; i < N_FLOATS; i++) {
        weights[i] = 0.02f * (float)mm_rng_normal(&rng);
    }
    memset(back, 1, N_FLOATS * sizeof *back);
    must(mm_store_open(&store, path, MM_STORE_CREATE, &err), &err);
    const int64_t run_id = new_run(store, &claim);
    const mm_blob blob = {.name = "w",
                          .dtype = "F32",
                          .element_bytes = 4,
                          .ndim = 1,
                          .shape = {N_FLOATS},
                          .data = weights,
                          .bytes = N_FLOATS * sizeof *weights};
    mm_checkpoint_new checkpoint = {.run_id = run_id,
                                    .step = 1,
                                    .kind = "full",
                                    .val_loss = (double)NAN,
                                    .blobs = &blob,
                                    .n_blobs = 1};
    int64_t id;
    int64_t start = mm_mono_ns();
    must(mm_checkpoint_write(store, &checkpoint, &id, &err), &err);
    const double write_s = seconds_since(start);
    start = mm_mono_ns();
    must(mm_checkpoint_read(store, id, "w", back, blob.bytes, &err), &err);
    const double read_s = seconds_since(start);
    checkpoint.step = 2;
    start = mm_mono_ns();
    must(mm_checkpoint_write(store, &checkpoint, &id, &err), &err);
    const double again_s = seconds_since(start);
    if (memcmp(weights, back, blob.bytes) != 0) exit(1);
    mm_arena arena = {0};
    mm_checkpoint_info *list;
    size_t count;
    must(mm_checkpoint_list(store, run_id, &arena, &list, &count, &err), &err);
    const double mb = (double)blob.bytes / 1e6;
    printf("checkpoint write        %10.0f MB/s (%.0f MB, stored at %.3f)\n", mb / write_s, mb,
           (double)list[0].stored_bytes / (double)list[0].raw_bytes);
    printf("checkpoint write again  %10.0f MB/s (all known)\n", mb / again_s);
    printf("checkpoint read         %10.0f MB/s (verified)\n", mb / read_s);
    mm_arena_drop(&arena);

    mm_saver *saver;
    must(mm_saver_open(&saver, path, 2, &err), &err);
    for (int64_t step = 3; step < 6; step++) {
        weights[step] += 1.0f;
        checkpoint.step = step;
        must(mm_saver_submit(saver, &checkpoint, &err), &err);
        must(mm_saver_wait(saver, &err), &err);
    }
    must(mm_saver_close(saver, &err), &err);
    start = mm_mono_ns();
    must(mm_run_end(claim, "finished", NULL, &err), &err);
    must(mm_store_run_remove(store, run_id, &err), &err);
    printf("remove the run          %10.0f ms\n", seconds_since(start) * 1e3);
    mm_store_close(store);
    free(weights);
    free(back);
}

static mm_blob blob_of(const char *name, const float *data, int64_t n, bool is_frozen)
{
    return (mm_blob){.name = name,
                     .dtype = "F32",
                     .element_bytes = 4,
                     .ndim = 1,
                     .shape = {n},
                     .data = data,
                     .bytes = (size_t)n * sizeof *data,
                     .is_frozen = is_frozen};
}

// Median milliseconds of a submit and of the write behind it.
static void time_saver(const char *path, mm_checkpoint_new *one, float *adapter, const char *what)
{
    enum { REPEATS = 9 };
    mm_err err;
    mm_saver *saver;
    double submit_ms[REPEATS];
    double write_ms[REPEATS];
    must(mm_saver_open(&saver, path, 0, &err), &err);
    for (int i = 0; i < REPEATS; i++) {
        for (size_t at = (size_t)i; at < one->blobs[one->n_blobs - 1].bytes / 4; at += 97) {
            adapter[at] += 1.0f;
        }
        one->step++;
        const int64_t start = mm_mono_ns();
        must(mm_saver_submit(saver, one, &err), &err);
        submit_ms[i] = seconds_since(start) * 1e3;
        must(mm_saver_wait(saver, &err), &err);
        write_ms[i] = seconds_since(start) * 1e3;
    }
    must(mm_saver_close(saver, &err), &err);
    qsort(submit_ms, REPEATS, sizeof submit_ms[0], compare);
    qsort(write_ms, REPEATS, sizeof write_ms[0], compare);
    printf("%-23s %10.1f ms written, %.1f ms in the training thread\n", what, write_ms[REPEATS / 2],
           submit_ms[REPEATS / 2]);
}

// A frozen base of 64 M weights and adapters of rank 16 with their moments.
static void bench_refer(const char *path)
{
    enum { N_BASE = 64 << 20, N_ADAPTER = 3 * 393216, N_BLOBS = 9 };
    mm_err err;
    mm_store *store;
    mm_claim *claim;
    float *base = malloc(N_BASE * sizeof *base);
    float *adapter = malloc(N_ADAPTER * sizeof *adapter);
    if (!base || !adapter) exit(1);
    mm_rng rng;
    mm_rng_init(&rng, 42, MM_RNG_TEST, 0);
    for (size_t i = 0; i < N_BASE; i++) {
        base[i] = 0.02f * (float)mm_rng_normal(&rng);
        if (i < N_ADAPTER) adapter[i] = base[i] + 1.0f;
    }
    static const char *const NAME[N_BLOBS] = {"w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "a"};
    mm_blob blobs[N_BLOBS];
    for (int i = 0; i < 8; i++) {
        blobs[i] = blob_of(NAME[i], base + (size_t)i * (N_BASE / 8), N_BASE / 8, true);
    }
    blobs[8] = blob_of(NAME[8], adapter, N_ADAPTER, false);
    must(mm_store_open(&store, path, MM_STORE_CREATE, &err), &err);
    mm_checkpoint_new one = {.run_id = new_run(store, &claim),
                             .step = 1,
                             .kind = "full",
                             .state = "{}",
                             .val_loss = (double)NAN,
                             .blobs = blobs,
                             .n_blobs = 8};
    const int64_t start = mm_mono_ns();
    int64_t base_id;
    must(mm_checkpoint_write(store, &one, &base_id, &err), &err);
    printf("base of 64 M weights    %10.1f ms written\n", seconds_since(start) * 1e3);
    one.n_blobs = N_BLOBS;
    one.base_id = base_id;
    time_saver(path, &one, adapter, "adapter beside it");
    mm_arena arena = {0};
    mm_checkpoint_info *list;
    size_t count;
    must(mm_checkpoint_list(store, one.run_id, &arena, &list, &count, &err), &err);
    printf("adapter's own bytes     %10.2f MB of %.2f MB (%.0f MB named)\n",
           (double)list[count - 1].own_bytes / 1e6, (double)blobs[8].bytes / 1e6,
           (double)list[count - 1].raw_bytes / 1e6);
    for (int i = 0; i < 8; i++) {
        blobs[i].is_frozen = false;
    }
    time_saver(path, &one, adapter, "the same, not frozen");
    must(mm_run_end(claim, "finished", NULL, &err), &err);
    mm_arena_drop(&arena);
    mm_store_close(store);
    free(base);
    free(adapter);
}

static void bench_compare(const char *path)
{
    mm_err err;
    mm_store *store;
    must(mm_store_open(&store, path, MM_STORE_CREATE, &err), &err);
    for (int run = 0; run < N_RUNS; run++) {
        mm_claim *claim;
        mm_metrics *metrics;
        int32_t series[N_METRICS];
        new_run(store, &claim);
        must(mm_metrics_open(&metrics, claim, &err), &err);
        register_all(metrics, series);
        for (int64_t step = 1; step <= N_RUN_STEPS; step++) {
            for (int m = 0; m < N_METRICS; m++) {
                mm_metric_log(metrics, series[m], step, value_of(m, step));
            }
        }
        must(mm_metrics_close(metrics, &err), &err);
        must(mm_run_end(claim, "finished", NULL, &err), &err);
    }
    mm_store_close(store);
    double curve_ms[5];
    double table_ms[5];
    size_t n_buckets = 0;
    for (int repeat = 0; repeat < 5; repeat++) {
        mm_arena arena = {0};
        must(mm_store_open(&store, path, MM_STORE_READ, &err), &err);
        int64_t start = mm_mono_ns();
        mm_run_info *runs;
        size_t n_runs;
        must(mm_store_runs(store, NULL, &arena, &runs, &n_runs, &err), &err);
        table_ms[repeat] = seconds_since(start) * 1e3;
        n_buckets = 0;
        start = mm_mono_ns();
        for (size_t i = 0; i < n_runs; i++) {
            mm_bucket *buckets;
            size_t count;
            must(mm_store_curve(store, runs[i].id, "loss", 400, &arena, &buckets, &count, &err),
                 &err);
            n_buckets += count;
        }
        curve_ms[repeat] = seconds_since(start) * 1e3;
        mm_arena_drop(&arena);
        mm_store_close(store);
    }
    qsort(curve_ms, 5, sizeof curve_ms[0], compare);
    qsort(table_ms, 5, sizeof table_ms[0], compare);
    printf("curves of one metric    %10.2f ms (%d runs x %d steps, %zu buckets; best %.2f)\n",
           curve_ms[2], N_RUNS, N_RUN_STEPS, n_buckets, curve_ms[0]);
    printf("run table               %10.2f ms (%d runs; best %.2f)\n", table_ms[2], N_RUNS,
           table_ms[0]);
}

int main(int argc, char **argv)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s/mmrun-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (!mkdtemp(folder)) return 1;
    const char *only = argc > 2 ? argv[2] : NULL; /* number of one measure */
    void (*const benches[])(const char *) = {bench_first_point, bench_log,   bench_sustained,
                                             bench_checkpoint,  bench_refer, bench_compare};
    printf("SQLite %s\n", mm_sqlite_version());
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
        char path[300];
        if (only && strtoul(only, NULL, 10) != i) continue;
        snprintf(path, sizeof path, "%s/%zu.db", folder, i);
        benches[i](path);
        // A last reader leaves an empty log behind.
        static const char *const SUFFIXES[] = {"", ".lock", "-wal", "-shm"};
        for (size_t k = 0; k < sizeof SUFFIXES / sizeof SUFFIXES[0]; k++) {
            char file[310];
            snprintf(file, sizeof file, "%s%s", path, SUFFIXES[k]);
            unlink(file);
        }
    }
    return rmdir(folder) == 0 ? 0 : 1;
}
