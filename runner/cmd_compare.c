/* `mmrun compare RUN RUN...`: what differs, what came out, which is best.
 *
 * Losses per token are comparable only under one tokenizer; across tokenizers bits per byte decide.
 * Where neither is there the command says so and names no winner. */
#include "core/base/clock.h"
#include "runner/commands.h"
#include "runner/load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE_BY_SIDE_MAX = 6, ROWS_MAX = 256, GRID_COLUMNS_MAX = 38 };

typedef struct entry {
    mm_run_info run;
    mm_param *params;
    size_t n_params;
    mm_dataset *datasets;
    size_t n_datasets;
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
    MM_TRY(mm_store_datasets(store, id, arena, &out->datasets, &out->n_datasets, err));
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

static bool same_tokenizer(const entry *entries, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (strcmp(value_of(&entries[i], "tokenizer_hash"),
                   value_of(&entries[0], "tokenizer_hash")) != 0)
            return false;
    return true;
}

static const char *sha_of(const entry *e, const char *role)
{
    for (size_t i = 0; i < e->n_datasets; i++)
        if (e->datasets[i].role && e->datasets[i].sha256 && strcmp(e->datasets[i].role, role) == 0)
            return e->datasets[i].sha256;
    return "";
}

/* Held-out text: the val files, or rows of the training files where there are none. */
static bool same_held_out(const entry *entries, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (strcmp(sha_of(&entries[i], "val"), sha_of(&entries[0], "val")) != 0 ||
            (!*sha_of(&entries[0], "val") &&
             strcmp(sha_of(&entries[i], "train"), sha_of(&entries[0], "train")) != 0))
            return false;
    return true;
}

static double best_val_of(const entry *e) { return e->run.best_val_loss; }
static double val_bpb_of(const entry *e) { return e->val_bpb; }

typedef struct verdict {
    const char *metric; /* NULL: not comparable */
    size_t best;
    double values[64];
} verdict;

static bool judge_by(verdict *v, const entry *entries, size_t n, const char *metric,
                     double (*value)(const entry *))
{
    v->best = 0;
    for (size_t i = 0; i < n; i++) {
        v->values[i] = value(&entries[i]);
        if (!isfinite(v->values[i])) return false;
        if (v->values[i] < v->values[v->best]) v->best = i;
    }
    v->metric = metric;
    return true;
}

static void judge(verdict *v, const entry *entries, size_t n)
{
    *v = (verdict){0};
    if (!same_held_out(entries, n)) return;
    if (same_tokenizer(entries, n) && judge_by(v, entries, n, "val_loss", best_val_of)) return;
    (void)judge_by(v, entries, n, "val_bpb", val_bpb_of);
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
                                    const verdict *v, mm_err *err)
{
    const char *headers[SIDE_BY_SIDE_MAX + 1] = {""};
    char names[SIDE_BY_SIDE_MAX][128];
    for (size_t k = 0; k < g->n_runs; k++) {
        snprintf(names[k], sizeof names[k], "%s%s", entries[k].run.name,
                 v->metric && v->best == k ? " *" : "");
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
            if (is_judged && v->best == k) mm_table_color(table, MM_COLOR_GREEN);
        }
    }
    mm_table_print(table, context);
    return MM_OK;
}

/* Many runs: a line each; hyperparameters beyond the room of a table are left to --json. */
static mm_status print_by_run(const mm_context *context, const grid *g, const entry *entries,
                              const verdict *v, mm_err *err)
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
        const bool is_best = v->metric && v->best == k;
        mm_table_cell(table, "%s%s", entries[k].run.name, is_best ? " *" : "");
        if (is_best) mm_table_color(table, MM_COLOR_GREEN);
        for (size_t c = 0; c < n; c++)
            mm_table_cell(table, "%s", g->cells[picked[c]][k]);
    }
    mm_table_print(table, context);
    return MM_OK;
}

static void print_verdict(const mm_context *context, const entry *entries, size_t n,
                          const verdict *v)
{
    mm_out("\n");
    if (!v->metric) {
        mm_out("No winner is named: %s.\n",
               same_held_out(entries, n)
                   ? (same_tokenizer(entries, n) ? "not every run was evaluated"
                                                 : "the tokenizers differ and not every run has "
                                                   "val_bpb")
                   : "the runs were scored on different text; `mmrun eval RUN --data FILE` scores "
                     "them on the same");
        return;
    }
    size_t second = v->best == 0 ? 1 : 0;
    for (size_t i = 0; i < n; i++)
        if (i != v->best && v->values[i] < v->values[second]) second = i;
    char best[MM_NUMBER_BYTES];
    mm_real_text(v->values[v->best], best);
    mm_out("* best ");
    mm_out_color(context, MM_COLOR_GREEN);
    mm_out("%s", entries[v->best].run.name);
    mm_out_color(context, MM_COLOR_NONE);
    const double gap = v->values[second] - v->values[v->best];
    mm_out(": %s %s, %.2g below %s", v->metric, best, gap, entries[second].run.name);
    mm_out(".\n  Another seed may change the order; `mmrun sweep --seed 1,2,3 ...` shows by how "
           "much.\n");
}

static void print_json(const grid *g, const entry *entries, const verdict *v)
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
                               v->metric ? json_integer(entries[v->best].run.id) : json_null());
    mm_out_json(object);
    json_decref(object);
}

mm_status mm_cmd_compare(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    grid g = {.n_runs = mm_args_count(args)};
    verdict v;
    mm_status status = MM_OK;
    entry *entries = mm_arena_alloc(&arena, g.n_runs * sizeof *entries);
    if (!entries) return MM_FAIL(err, MM_ENOMEM, "out of memory for the comparison");
    MM_ASSERT(g.n_runs <= sizeof v.values / sizeof v.values[0]); // the command's args_max
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    for (size_t i = 0; i < g.n_runs; i++)
        MM_GO(read_entry(store, mm_args_at(args, i), &arena, &entries[i], err));
    MM_GO(add_differing(&g, &arena, entries, err));
    judge(&v, entries, g.n_runs);
    if (context->json) {
        print_json(&g, entries, &v);
        goto done;
    }
    MM_GO(add_results(&g, &arena, entries, err));
    if (g.n_params == 0) mm_out("The hyperparameters are the same.\n\n");
    if (g.n_runs <= SIDE_BY_SIDE_MAX)
        MM_GO(print_side_by_side(context, &g, entries, &v, err));
    else
        MM_GO(print_by_run(context, &g, entries, &v, err));
    print_verdict(context, entries, g.n_runs, &v);
done:
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}
