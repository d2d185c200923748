/* Writes a database and its report for tests in other languages and for looking at.
 *
 * report_render demo|stages|hostile|bulk FOLDER: FOLDER/runs.db, FOLDER/report.html (every run)
 * and, for the demo, FOLDER/pair.html (two runs) and FOLDER/one.html. For hostile also
 * FOLDER/payloads.json.
 */
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "report/report.h"
#include "tests/report/fixture.h"

#include <stdio.h>
#include <string.h>

enum { BULK_RUNS = 100 };

static mm_status write_report(const char *folder, mm_store *store, const mm_report_options *options,
                              const char *name, mm_err *err)
{
    char *path = NULL;
    MM_TRY(mm_path_join(&path, folder, name, err));
    const int64_t start = mm_mono_ns();
    const mm_status status = mm_report_write(store, options, path, err);
    printf("%s: %.1f ms\n", path, (double)(mm_mono_ns() - start) / 1e6);
    mm_free(path);
    return status;
}

static mm_status write_payloads(const char *folder, mm_err *err)
{
    mm_str text = {0};
    char *path = NULL;
    mm_status status = MM_OK;
    mm_str_add(&text, "[");
    for (size_t i = 0; i < FIXTURE_PAYLOADS; i++) {
        if (i > 0) mm_str_add(&text, ",");
        mm_json_add_string(&text, fixture_payloads[i], strlen(fixture_payloads[i]));
    }
    mm_str_add(&text, "]");
    MM_GO(mm_path_join(&path, folder, "payloads.json", err));
    MM_GO(mm_file_write_atomic(path, text.data, text.length, err));
done:
    mm_free(path);
    mm_str_drop(&text);
    return status;
}

static mm_status render(const char *what, const char *folder, mm_err *err)
{
    int64_t runs[BULK_RUNS];
    int64_t sweep_id = 0;
    size_t n_runs = FIXTURE_RUNS;
    char *path = NULL;
    mm_store *store = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_dir_make(folder, err));
    MM_GO(mm_path_join(&path, folder, "runs.db", err));
    if (strcmp(what, "bulk") == 0) {
        n_runs = BULK_RUNS;
        MM_GO(fixture_bulk(path, n_runs, 10000, 8, runs, err));
    } else if (strcmp(what, "hostile") == 0) {
        n_runs = 2;
        MM_GO(fixture_hostile(path, runs, &sweep_id, err));
        MM_GO(write_payloads(folder, err));
    } else if (strcmp(what, "stages") == 0) {
        n_runs = FIXTURE_STAGES;
        MM_GO(fixture_stages(path, runs, err));
    } else {
        MM_GO(fixture_demo(path, runs, &sweep_id, err));
    }
    MM_GO(mm_store_open(&store, path, MM_STORE_READ, err));
    mm_report_options options = {.run_ids = runs,
                                 .n_runs = n_runs,
                                 .sweep_id = sweep_id,
                                 .command = "mmrun report --all -o report.html"};
    if (strcmp(what, "hostile") == 0) {
        options.include_host = true; // nothing left out: every payload must be found again
        options.command = fixture_payloads[1];
    }
    MM_GO(write_report(folder, store, &options, "report.html", err));
    if (strcmp(what, "demo") == 0) {
        options.sweep_id = 0;
        options.n_runs = 2;
        MM_GO(write_report(folder, store, &options, "pair.html", err));
        options.n_runs = 1;
        MM_GO(write_report(folder, store, &options, "one.html", err));
    }
done:
    mm_store_close(store);
    mm_free(path);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: report_render demo|stages|hostile|bulk FOLDER\n");
        return 2;
    }
    mm_err err = {0};
    if (render(argv[1], argv[2], &err) == MM_OK) return 0;
    fprintf(stderr, "%s\n", err.message);
    return 1;
}
