/* `mmrun compare RUN RUN...`: what differs, what came out, which is best.
 *
 * The verdict is that of the report, by the same rules. */
#include "core/base/clock.h"
#include "report/report.h"
#include "runner/commands.h"
#include "runner/help.h"
#include "runner/load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE_BY_SIDE_MAX = 6, ROWS_MAX = 256, GRID_COLUMNS_MAX = 38 };

typedef struct entry {
    mm_run_info run;
    mm_param *params;
    size_t n_params;
    double val_bpb; /* best; NaN: none */
} entry;

/* Rows of texts, one cell per run; printed either way round. */
typedef struct grid {
    size_t n_runs;
    size_t n_rows;
    const char *label[ROWS_MAX];
    const char **cells[ROWS_MAX]; /* n_runs each */
    size_t n_params;              /* the first rows are hyperparameters */
} grid;

static mm_status read_entry(mm_store *store, const char *text, mm_arena *arena, entry *out,
                            mm_err *err)
{
    int64_t id = 0;
    mm_series_info *series = NULL;
    size_t n_series = 0;
    MM_TRY(mm_store_resolve_run(store, text, &id, err));
    MM_TRY(mm_store_run(store, id, arena, &out->run, err));
    MM_TRY(mm_store_params(store, id, arena, &out->params, &out->n_params, err));
    MM_TRY(mm_store_series(store, id, arena, &series, &n_series, err));
    out->val_bpb = (double)NAN;
    for (size_t i = 0; i < n_series; i++)
        if (strcmp(series[i].name, "val_bpb") == 0) out->val_bpb = series[i].min;
    return MM_OK;
}

static const char **add_row(grid *g, mm_arena *arena, const char *label)
{
    if (g->n_rows == ROWS_MAX) return NULL;
    const char **cells = mm_arena_alloc(arena, g->n_runs * sizeof *cells);
    if (!cells) return NULL;
    g->label[g->n_rows] = label;
    g->cells[g->n_rows++] = cells;
    return cells;
}

static const char *value_of(const entry *e, const char *name)
{
    const char *value = mm_param_find(e->params, e->n_params, name);
    return value ? value : "-";
}

/* Facts about the record rather than choices: long, and shown in another form. */
static bool is_fact(const char *name)
{
    return strcmp(name, "prompts") == 0 || strcmp(name, "tokenizer_hash") == 0;
}

static bool is_seen(const entry *entries, size_t n_runs, const char *name)
{
    for (size_t i = 0; i < n_runs; i++)
        if (mm_param_find(entries[i].params, entries[i].n_params, name)) return true;
    return false;
}

static mm_status add_differing(grid *g, mm_arena *arena, const entry *entries, mm_err *err)
{
    for (size_t i = 0; i < g->n_runs; i++)
        for (size_t p = 0; p < entries[i].n_params; p++) {
            const char *name = entries[i].params[p].name;
            if (is_fact(name) || is_seen(entries, i, name)) continue;
            bool differs = false;
            for (size_t k = 0; k < g->n_runs; k++)
                differs |= strcmp(value_of(&entries[k], name), value_of(&entries[0], name)) != 0;
            if (!differs) continue;
            const char **cells = add_row(g, arena, name);
            if (!cells) return MM_FAIL(err, MM_ENOMEM, "out of memory for the comparison");
            for (size_t k = 0; k < g->n_runs; k++)
                cells[k] = value_of(&entries[k], name);
        }
    g->n_params = g->n_rows;
    return MM_OK;
}

static bool is_best(const mm_verdict *verdict, const entry *e)
{
    return verdict->best_id == e->run.id;
}

static const char *kept(mm_arena *arena, const char *text)
{
    const char *copy = mm_arena_strdup(arena, text);
    return copy ? copy : "?";
}

static mm_status add_results(grid *g, mm_arena *arena, const entry *entries, mm_err *err)
{
    static const char *const LABELS[] = {"status",  "steps", "tokens",     "loss",    "val_loss",
                                         "val_bpb", "tok/s", "parameters", "duration"};
    enum { N = sizeof LABELS / sizeof LABELS[0] };
    const char **rows[N];
    for (size_t i = 0; i < N; i++) {
        rows[i] = add_row(g, arena, LABELS[i]);
        if (!rows[i]) return MM_FAIL(err, MM_ENOMEM, "out of memory for the comparison");
    }
    for (size_t k = 0; k < g->n_runs; k++) {
        const mm_run_info *run = &entries[k].run;
        char text[MM_NUMBER_BYTES];
        char duration[MM_TIME_ISO_BYTES];
        rows[0][k] = run->status;
        snprintf(text, sizeof text, "%lld", (long long)run->steps);
        rows[1][k] = kept(arena, text);
        const double numbers[] = {(double)run->tokens, run->final_loss,
                                  run->best_val_loss,  entries[k].val_bpb,
                                  run->tokens_per_s,   (double)run->params_total};
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            const bool is_count = i == 0 || i >= 4;
            if (is_count)
                mm_count_text(numbers[i], text);
            else
                mm_real_text(numbers[i], text);
            rows[2 + i][k] = kept(arena, text);
        }
        mm_duration_text(run->duration_s, duration);
        rows[8][k] = kept(arena, duration);
    }
    return MM_OK;
}

static mm_status print_side_by_side(const mm_context *context, const grid *g, const entry *entries,
                                    const mm_verdict *v, mm_err *err)
{
    const char *headers[SIDE_BY_SIDE_MAX + 1] = {""};
    char names[SIDE_BY_SIDE_MAX][128];
    for (size_t k = 0; k < g->n_runs; k++) {
        snprintf(names[k], sizeof names[k], "%s%s", entries[k].run.name,
                 is_best(v, &entries[k]) ? " *" : "");
        headers[k + 1] = names[k];
    }
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, headers, g->n_runs + 1, err));
    for (size_t i = 0; i < g->n_rows; i++) {
        const bool is_judged = v->metric && i >= g->n_params && strcmp(g->label[i], v->metric) == 0;
        mm_table_cell(table, "%s", g->label[i]);
        mm_table_color(table, i < g->n_params ? MM_COLOR_CYAN : MM_COLOR_NONE);
        for (size_t k = 0; k < g->n_runs; k++) {
            mm_table_cell(table, "%s", g->cells[i][k]);
            if (is_judged && is_best(v, &entries[k])) mm_table_color(table, MM_COLOR_GREEN);
        }
    }
    mm_table_print(table, context);
    return MM_OK;
}

/* Many runs: a line each; hyperparameters beyond the room of a table are left to --json. */
static mm_status print_by_run(const mm_context *context, const grid *g, const entry *entries,
                              const mm_verdict *v, mm_err *err)
{
    const char *headers[GRID_COLUMNS_MAX + 1] = {"RUN"};
    const size_t n_results = g->n_rows - g->n_params;
    size_t n_params = g->n_params;
    if (n_params + n_results > GRID_COLUMNS_MAX) n_params = GRID_COLUMNS_MAX - n_results;
    size_t picked[GRID_COLUMNS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < g->n_rows; i++) {
        if (i >= n_params && i < g->n_params) continue;
        headers[n + 1] = g->label[i];
        picked[n++] = i;
    }
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, headers, n + 1, err));
    // On a narrow terminal the differences and the losses stay longest.
    for (size_t c = 0; c < n; c++)
        if (picked[c] >= g->n_params && !strstr(g->label[picked[c]], "loss"))
            mm_table_drops(table, c + 1, (int)(picked[c] - g->n_params) + 1);
    for (size_t k = 0; k < g->n_runs; k++) {
        const bool has_won = is_best(v, &entries[k]);
        mm_table_cell(table, "%s%s", entries[k].run.name, has_won ? " *" : "");
        if (has_won) mm_table_color(table, MM_COLOR_GREEN);
        for (size_t c = 0; c < n; c++)
            mm_table_cell(table, "%s", g->cells[picked[c]][k]);
    }
    mm_table_print(table, context);
    return MM_OK;
}

static void print_verdict(const mm_context *context, const mm_verdict *v)
{
    mm_out("\n");
    for (size_t i = 0; i < v->count; i++) {
        const mm_remark *remark = &v->remarks[i];
        const bool is_head = remark->kind == MM_REMARK_HEADLINE;
        mm_str text = {0};
        if (remark->lead) mm_str_addf(&text, "%s ", remark->lead);
        mm_str_add(&text, remark->text);
        mm_out("%s", is_head ? (v->best_id > 0 && i == 0 ? "* " : "") : "  ");
        if (is_head && v->best_id > 0) mm_out_color(context, MM_COLOR_GREEN);
        if (remark->kind == MM_REMARK_WARNING) mm_out_color(context, MM_COLOR_YELLOW);
        mm_out_wrapped(context, mm_str_text(&text), 2, is_head && v->best_id == 0 ? 0 : 2);
        mm_out_color(context, MM_COLOR_NONE);
        mm_str_drop(&text);
    }
}

static void print_json(const grid *g, const entry *entries, const mm_verdict *v)
{
    json_t *runs = json_array();
    for (size_t k = 0; k < g->n_runs; k++) {
        json_t *run = mm_json_of_run(&entries[k].run);
        json_object_set_new(run, "val_bpb", mm_json_of_real(entries[k].val_bpb));
        json_array_append_new(runs, run);
    }
    json_t *params = json_object();
    for (size_t i = 0; i < g->n_params; i++) {
        json_t *values = json_array();
        for (size_t k = 0; k < g->n_runs; k++) {
            const char *value = mm_param_find(entries[k].params, entries[k].n_params, g->label[i]);
            json_array_append_new(values, mm_json_of_text(value));
        }
        json_object_set_new(params, g->label[i], values);
    }
    json_t *object = json_pack("{s:o, s:o, s:o, s:o}", "runs", runs, "params", params, "metric",
                               mm_json_of_text(v->metric), "best",
                               v->best_id > 0 ? json_integer(v->best_id) : json_null());
    mm_out_json(object);
    json_decref(object);
}

mm_status mm_cmd_compare(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    grid g = {.n_runs = mm_args_count(args)};
    mm_status status = MM_OK;
    entry *entries = mm_arena_alloc(&arena, g.n_runs * sizeof *entries);
    int64_t *ids = mm_arena_alloc(&arena, g.n_runs * sizeof *ids);
    mm_verdict *verdict = mm_arena_alloc(&arena, sizeof *verdict);
    if (!entries || !ids || !verdict) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory for the comparison");
        goto done;
    }
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    for (size_t i = 0; i < g.n_runs; i++) {
        MM_GO(read_entry(store, mm_args_at(args, i), &arena, &entries[i], err));
        ids[i] = entries[i].run.id;
    }
    MM_GO(mm_report_verdict(store, ids, g.n_runs, &arena, verdict, err));
    MM_GO(add_differing(&g, &arena, entries, err));
    if (context->json) {
        print_json(&g, entries, verdict);
        goto done;
    }
    MM_GO(add_results(&g, &arena, entries, err));
    if (g.n_params == 0) mm_out("The hyperparameters are the same.\n\n");
    if (g.n_runs <= SIDE_BY_SIDE_MAX)
        MM_GO(print_side_by_side(context, &g, entries, verdict, err));
    else
        MM_GO(print_by_run(context, &g, entries, verdict, err));
    print_verdict(context, verdict);
done:
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}
