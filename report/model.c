/* Reads the records of the runs that a report shows. */
#include "report/page.h"

#include "report/fmt.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

bool mm_page_is_finished(const mm_page_run *run)
{
    return strcmp(run->info.status, "finished") == 0;
}

const mm_series_info *mm_page_series(const mm_page_run *run, const char *name)
{
    for (size_t i = 0; i < run->n_series; i++)
        if (strcmp(run->series[i].name, name) == 0) return &run->series[i];
    return NULL;
}

const char *mm_page_private(mm_page *page, const mm_page_run *run, const char *text)
{
    if (page->options->include_host || !text) return text;
    const char *copy = mm_fmt_private(&page->arena, text, run->info.host);
    return copy ? copy : "…";
}

const char *mm_page_digest(mm_page *page, const char *digest)
{
    if (!digest) return NULL;
    size_t length = 0;
    while (isxdigit((unsigned char)digest[length]))
        length++;
    if (digest[length] != '\0' || length < 16) return mm_fmt_fit(&page->arena, digest, 24);
    const char *copy = mm_arena_strndup(&page->arena, digest, 8);
    return copy ? copy : "…";
}

static void newer(mm_page *page, int64_t time_ms)
{
    if (time_ms > page->newest_ms) page->newest_ms = time_ms;
}

static const char *tokenizer_of(const mm_page_run *run)
{
    for (size_t i = 0; i < run->n_datasets; i++)
        if (run->datasets[i].role && strcmp(run->datasets[i].role, "tokenizer") == 0)
            return run->datasets[i].sha256;
    static const char *const names[] = {"tokenizer_hash", "tokenizer_sha256", "tokenizer"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = mm_run_param(run, names[i]);
        if (value && *value) return value;
    }
    return NULL;
}

static void derive(mm_page_run *run)
{
    const mm_series_info *bpb = mm_page_series(run, "val_bpb");
    run->bpb = bpb && bpb->n > 0 ? bpb->min : (double)NAN;
    const mm_series_info *perplexity = mm_page_series(run, "perplexity");
    if (perplexity && perplexity->n > 0)
        run->perplexity = perplexity->min;
    else if (mm_run_is_preference(run)) // its loss is of pairs, not of tokens
        run->perplexity = (double)NAN;
    else
        run->perplexity = exp(run->info.best_val_loss); // NaN stays NaN
    run->tokenizer = tokenizer_of(run);
}

static mm_status load_run(mm_page *page, int64_t id, mm_page_run *run, mm_err *err)
{
    mm_store *store = page->store;
    mm_arena *arena = &page->arena;
    run->style = MM_STYLE_NONE;
    MM_TRY(mm_store_run(store, id, arena, &run->info, err));
    run->label = run->info.name ? run->info.name : "?";
    if (!run->info.stage) run->info.stage = "?";
    if (!run->info.status) run->info.status = "?";
    MM_TRY(mm_store_params(store, id, arena, &run->params, &run->n_params, err));
    MM_TRY(mm_store_series(store, id, arena, &run->series, &run->n_series, err));
    MM_TRY(mm_store_datasets(store, id, arena, &run->datasets, &run->n_datasets, err));
    MM_TRY(mm_store_events(store, id, arena, &run->events, &run->n_events, err));
    MM_TRY(mm_store_results(store, id, arena, &run->results, &run->n_results, err));
    MM_TRY(mm_store_attempts(store, id, arena, &run->attempts, &run->n_attempts, err));
    if (mm_page_series(run, "val_loss"))
        MM_TRY(mm_store_curve(store, id, "val_loss", MM_REPORT_BUCKETS_MAX, arena, &run->val_curve,
                              &run->n_val, err));
    derive(run);
    newer(page, run->info.created_ms);
    newer(page, run->info.started_ms);
    newer(page, run->info.ended_ms);
    for (size_t i = 0; i < run->n_events; i++)
        newer(page, run->events[i].time_ms);
    for (size_t i = 0; i < run->n_results; i++)
        newer(page, run->results[i].created_ms);
    for (size_t i = 0; i < run->n_attempts; i++)
        newer(page, run->attempts[i].ended_ms);
    return MM_OK;
}

// Up to eight runs keep their order; of more, the eight best ranked get colours.
static void give_styles(mm_page *page)
{
    int next = 0;
    if (page->n_runs <= MM_STYLES) {
        for (size_t i = 0; i < page->n_runs; i++)
            page->runs[i].style = next++;
    }
    for (size_t rank = 1; rank <= page->n_runs && next < MM_STYLES; rank++)
        for (size_t i = 0; i < page->n_runs && next < MM_STYLES; i++)
            if (page->runs[i].rank == rank && page->runs[i].style == MM_STYLE_NONE)
                page->runs[i].style = next++;
    for (size_t i = 0; i < page->n_runs && next < MM_STYLES; i++)
        if (page->runs[i].style == MM_STYLE_NONE) page->runs[i].style = next++;
    page->n_coloured = (size_t)next;
}

static mm_status load_generations(mm_page *page, mm_err *err)
{
    for (size_t i = 0; i < page->n_runs; i++) {
        mm_page_run *run = &page->runs[i];
        if (run->style == MM_STYLE_NONE) continue;
        MM_TRY(mm_store_generations(page->store, run->info.id, &page->arena, &run->generations,
                                    &run->n_generations, err));
        for (size_t j = 0; j < run->n_generations; j++)
            newer(page, run->generations[j].created_ms);
    }
    return MM_OK;
}

// The records of each run once, in the order asked for.
static mm_status load_runs(mm_page *page, mm_err *err)
{
    const mm_report_options *options = page->options;
    if (options->n_runs == 0) return MM_FAIL(err, MM_EUSAGE, "a report needs at least one run");
    if (options->n_runs > MM_REPORT_RUNS_MAX)
        return MM_FAIL(err, MM_ELIMIT, "a report of %zu runs; at most %d fit", options->n_runs,
                       MM_REPORT_RUNS_MAX);
    page->runs = mm_arena_alloc(&page->arena, options->n_runs * sizeof *page->runs);
    if (!page->runs) return MM_FAIL(err, MM_ENOMEM, "reading %zu runs", options->n_runs);
    for (size_t i = 0; i < options->n_runs; i++) {
        bool is_repeated = false;
        for (size_t j = 0; j < i; j++)
            is_repeated = is_repeated || options->run_ids[j] == options->run_ids[i];
        if (is_repeated) continue;
        MM_TRY(load_run(page, options->run_ids[i], &page->runs[page->n_runs], err));
        page->n_runs++;
    }
    MM_TRY(mm_settings_collect(page->runs, page->n_runs, &page->arena, &page->settings,
                               &page->n_settings, err));
    return mm_verdict_make(page->runs, page->n_runs, page->settings, page->n_settings, &page->arena,
                           &page->verdict, err);
}

mm_status mm_report_verdict(mm_store *store, const int64_t *run_ids, size_t n_runs, mm_arena *arena,
                            mm_verdict *out, mm_err *err)
{
    const mm_report_options options = {.run_ids = run_ids, .n_runs = n_runs};
    mm_page *page = mm_arena_alloc(arena, sizeof *page);
    if (!page) return MM_FAIL(err, MM_ENOMEM, "comparing %zu runs", n_runs);
    page->store = store;
    page->options = &options;
    page->arena = *arena; // lent while the page is read
    const mm_status status = load_runs(page, err);
    *arena = page->arena;
    *out = page->verdict;
    return status;
}

mm_status mm_page_load(mm_page *page, mm_err *err)
{
    const mm_report_options *options = page->options;
    MM_TRY(load_runs(page, err));
    if (options->sweep_id > 0) {
        char id[24];
        snprintf(id, sizeof id, "%" PRId64, options->sweep_id);
        MM_TRY(mm_store_sweep(page->store, id, &page->arena, &page->sweep, err));
        page->has_sweep = true;
    }
    mm_store_info info = {0};
    MM_TRY(mm_store_info_get(page->store, &info, err));
    page->schema_version = info.schema_version;
    give_styles(page);
    return load_generations(page, err);
}
