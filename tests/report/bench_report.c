/* Time and size of a report of 100 runs × 10,000 steps × 8 metrics. Prints, never judges. */
#include "core/base/clock.h"
#include "core/base/file.h"
#include "report/report.h"
#include "tests/report/fixture.h"

#include <stdio.h>
#include <stdlib.h>

enum { RUNS = 100, METRICS = 8, ROUNDS = 5 };

static mm_status measure(const char *folder, int64_t n_steps, mm_err *err)
{
    int64_t runs[RUNS];
    char *path = NULL;
    mm_store *store = NULL;
    mm_str page = {0};
    mm_status status = MM_OK;
    MM_GO(mm_path_join(&path, folder, "bench.db", err));
    int64_t start = mm_mono_ns();
    MM_GO(fixture_bulk(path, RUNS, n_steps, METRICS, runs, err));
    printf("report: database of %d runs x %lld steps x %d metrics made in %.1f s\n", RUNS,
           (long long)n_steps, METRICS, (double)(mm_mono_ns() - start) / 1e9);
    MM_GO(mm_store_open(&store, path, MM_STORE_READ, err));
    const mm_report_options options = {.run_ids = runs, .n_runs = RUNS};
    double best = 1e9;
    double first = 0;
    for (int i = 0; i < ROUNDS; i++) {
        mm_str_clear(&page);
        start = mm_mono_ns();
        MM_GO(mm_report_html(store, &options, &page, err));
        const double seconds = (double)(mm_mono_ns() - start) / 1e9;
        if (i == 0) first = seconds;
        best = seconds < best ? seconds : best;
    }
    printf("report: first %.3f s, best of %d %.3f s, %.2f MB\n", first, ROUNDS, best,
           (double)page.length / 1e6);
done:
    mm_str_drop(&page);
    mm_store_close(store);
    mm_free(path);
    return status;
}

int main(void)
{
    const char *steps = getenv("MM_BENCH_STEPS");
    char *folder = fixture_folder();
    mm_err err = {0};
    if (!folder) return 1;
    const mm_status status = measure(folder, steps ? strtoll(steps, NULL, 10) : 10000, &err);
    if (status != MM_OK) fprintf(stderr, "%s\n", err.message);
    fixture_remove(folder);
    return status == MM_OK ? 0 : 1;
}
