/* Hyperparameters side by side: what every run was set to, and which settings differ. */
#include "report/page.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const mm_param *param;
    size_t run_idx;
} entry;

static int by_name(const void *a, const void *b)
{
    const entry *x = a;
    const entry *y = b;
    const int order = strcmp(x->param->name, y->param->name);
    if (order != 0) return order;
    return (x->run_idx > y->run_idx) - (x->run_idx < y->run_idx);
}

const char *mm_run_param(const mm_page_run *run, const char *name)
{
    for (size_t i = 0; i < run->n_params; i++)
        if (strcmp(run->params[i].name, name) == 0) return run->params[i].value;
    return NULL;
}

const char *mm_setting_value(const mm_setting *setting, size_t run_idx)
{
    const mm_param *param = setting->by_run[run_idx];
    return param ? param->value : NULL;
}

static bool is_same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : !a && !b; }

static void find_difference(mm_setting *setting, size_t n_runs)
{
    for (size_t i = 1; i < n_runs; i++)
        if (!is_same(mm_setting_value(setting, 0), mm_setting_value(setting, i)))
            setting->differs = true;
}

// A setting nobody made: the number of parameters, or the product of three that were.
static mm_status add_derived(const char *name, const mm_page_run *runs, size_t n_runs,
                             int64_t (*value_of)(const mm_page_run *), mm_arena *arena,
                             mm_setting *out, size_t *count, mm_err *err)
{
    const mm_param **row = mm_arena_alloc(arena, (n_runs + 1) * sizeof *row);
    if (!row) return MM_FAIL(err, MM_ENOMEM, "comparing settings");
    bool has_any = false;
    for (size_t i = 0; i < n_runs; i++) {
        const int64_t value = value_of(&runs[i]);
        if (value <= 0) continue;
        char text[24];
        snprintf(text, sizeof text, "%" PRId64, value);
        mm_param *param = mm_arena_alloc(arena, sizeof *param);
        const char *copy = mm_arena_strdup(arena, text);
        if (!param || !copy) return MM_FAIL(err, MM_ENOMEM, "comparing settings");
        *param = (mm_param){.name = name, .value = copy, .is_default = true, .origin = "derived"};
        row[i] = param;
        has_any = true;
    }
    if (!has_any) return MM_OK;
    out[*count] = (mm_setting){.name = name, .by_run = row, .is_derived = true};
    find_difference(&out[*count], n_runs);
    *count += 1;
    return MM_OK;
}

static int64_t parameters_of(const mm_page_run *run) { return run->info.params_total; }

static int64_t whole(const char *text) { return text ? strtoll(text, NULL, 10) : 0; }

static int64_t tokens_per_step_of(const mm_page_run *run)
{
    const int64_t batch = whole(mm_run_param(run, "batch_size"));
    const int64_t length = whole(mm_run_param(run, "max_seq_len"));
    const int64_t accumulated = whole(mm_run_param(run, "accumulation_steps"));
    int64_t product;
    if (batch <= 0 || length <= 0 || __builtin_mul_overflow(batch, length, &product)) return 0;
    if (accumulated > 1 && __builtin_mul_overflow(product, accumulated, &product)) return 0;
    return product;
}

mm_status mm_settings_collect(const mm_page_run *runs, size_t n_runs, mm_arena *arena,
                              mm_setting **out, size_t *count, mm_err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < n_runs; i++)
        total += runs[i].n_params;
    entry *entries = mm_arena_alloc(arena, (total + 1) * sizeof *entries);
    *out = mm_arena_alloc(arena, (total + 2) * sizeof **out);
    *count = 0;
    if (!entries || !*out) return MM_FAIL(err, MM_ENOMEM, "comparing settings");
    size_t n = 0;
    for (size_t i = 0; i < n_runs; i++)
        for (size_t j = 0; j < runs[i].n_params; j++)
            entries[n++] = (entry){.param = &runs[i].params[j], .run_idx = i};
    qsort(entries, n, sizeof *entries, by_name);
    for (size_t from = 0; from < n;) {
        mm_setting setting = {.name = entries[from].param->name};
        setting.by_run = mm_arena_alloc(arena, (n_runs + 1) * sizeof *setting.by_run);
        if (!setting.by_run) return MM_FAIL(err, MM_ENOMEM, "comparing settings");
        for (; from < n && strcmp(entries[from].param->name, setting.name) == 0; from++)
            setting.by_run[entries[from].run_idx] = entries[from].param;
        find_difference(&setting, n_runs);
        (*out)[(*count)++] = setting;
    }
    MM_TRY(add_derived("parameters", runs, n_runs, parameters_of, arena, *out, count, err));
    return add_derived("tokens_per_step", runs, n_runs, tokens_per_step_of, arena, *out, count,
                       err);
}
