/* `mmrun show RUN`: everything about one run, in sections, as text or as one JSON value.
 *
 * All of it is read first; printing cannot fail half-way for want of the database. */
#include "core/base/clock.h"
#include "core/base/utf8.h"
#include "core/base/width.h"
#include "runner/commands.h"
#include "runner/show_family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const mm_option mm_show_options[] = {
    {.name = "config", .help = "only the hyperparameters, each with its origin"},
    {.name = "all", .aliases = "a", .help = "every hyperparameter, event and sample"},
    {0},
};

enum {
    SPARK_BUCKETS = 48,
    LAST_EVENTS = 8,
    LAST_GENERATIONS = 4,
    TEXT_COLUMNS = 72,
    VALUE_COLUMNS = 28
};

typedef struct record {
    mm_arena arena;
    mm_run_info run;
    mm_family family;
    mm_param *params;
    size_t n_params;
    mm_series_info *series;
    size_t n_series;
    mm_bucket *curve; /* of the loss */
    size_t n_curve;
    mm_checkpoint_info *checkpoints;
    size_t n_checkpoints;
    mm_dataset *datasets;
    size_t n_datasets;
    mm_generation_row *generations;
    size_t n_generations;
    mm_result *results;
    size_t n_results;
    mm_attempt *attempts;
    size_t n_attempts;
    mm_event *events;
    size_t n_events;
    mm_env *env;
    size_t n_env;
} record;

static mm_status read_record(mm_store *store, int64_t id, record *r, mm_err *err)
{
    mm_arena *arena = &r->arena;
    MM_TRY(mm_store_run(store, id, arena, &r->run, err));
    MM_TRY(mm_store_family(store, &id, 1, true, arena, &r->family, err));
    MM_TRY(mm_store_params(store, id, arena, &r->params, &r->n_params, err));
    MM_TRY(mm_store_series(store, id, arena, &r->series, &r->n_series, err));
    MM_TRY(mm_store_curve(store, id, "loss", SPARK_BUCKETS, arena, &r->curve, &r->n_curve, err));
    MM_TRY(mm_checkpoint_list(store, id, arena, &r->checkpoints, &r->n_checkpoints, err));
    MM_TRY(mm_store_datasets(store, id, arena, &r->datasets, &r->n_datasets, err));
    MM_TRY(mm_store_generations(store, id, arena, &r->generations, &r->n_generations, err));
    MM_TRY(mm_store_results(store, id, arena, &r->results, &r->n_results, err));
    MM_TRY(mm_store_attempts(store, id, arena, &r->attempts, &r->n_attempts, err));
    MM_TRY(mm_store_events(store, id, arena, &r->events, &r->n_events, err));
    return mm_store_environment(store, id, arena, &r->env, &r->n_env, err);
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static json_t *params_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_params; i++)
        json_array_append_new(list, json_pack("{s:o, s:o, s:b, s:o}", "name",
                                              mm_json_of_text(r->params[i].name), "value",
                                              mm_json_of_text(r->params[i].value), "is_default",
                                              (int)r->params[i].is_default, "origin",
                                              mm_json_of_text(r->params[i].origin)));
    return list;
}

static json_t *series_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_series; i++) {
        const mm_series_info *s = &r->series[i];
        json_array_append_new(
            list, json_pack("{s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:I, s:o}", "name",
                            mm_json_of_text(s->name), "n", (json_int_t)s->n, "n_bad",
                            (json_int_t)s->n_bad, "first_step", (json_int_t)s->first_step,
                            "last_step", (json_int_t)s->last_step, "last", mm_json_of_real(s->last),
                            "min", mm_json_of_real(s->min), "min_step", (json_int_t)s->min_step,
                            "max", mm_json_of_real(s->max), "max_step", (json_int_t)s->max_step,
                            "mean", mm_json_of_real(s->mean)));
    }
    return list;
}

static json_t *checkpoints_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_checkpoints; i++) {
        const mm_checkpoint_info *c = &r->checkpoints[i];
        json_array_append_new(
            list,
            json_pack("{s:I, s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:b, s:b, s:I}", "id",
                      (json_int_t)c->id, "step", (json_int_t)c->step, "kind",
                      mm_json_of_text(c->kind), "raw_bytes", (json_int_t)c->raw_bytes,
                      "stored_bytes", (json_int_t)c->stored_bytes, "sha256",
                      mm_json_of_text(c->sha256), "created_at", mm_json_of_time(c->created_ms),
                      "val_loss", mm_json_of_real(c->val_loss), "is_best", (int)c->is_best,
                      "is_final", (int)c->is_final, "own_bytes", (json_int_t)c->own_bytes));
    }
    return list;
}

static json_t *datasets_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_datasets; i++) {
        const mm_dataset *d = &r->datasets[i];
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "role", mm_json_of_text(d->role),
                            "path", mm_json_of_text(d->path), "source", mm_json_of_text(d->source),
                            "sha256", mm_json_of_text(d->sha256), "bytes", (json_int_t)d->bytes,
                            "rows", (json_int_t)d->rows, "tokens", (json_int_t)d->tokens));
    }
    return list;
}

static json_t *generations_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_generations; i++) {
        const mm_generation_row *g = &r->generations[i];
        json_array_append_new(
            list,
            json_pack("{s:I, s:i, s:o, s:o, s:I, s:o, s:o, s:o, s:o}", "step", (json_int_t)g->step,
                      "prompt_idx", (int)g->prompt_idx, "prompt", mm_json_of_text(g->prompt),
                      "text", mm_json_of_text(g->text), "tokens", (json_int_t)g->tokens,
                      "finish_reason", mm_json_of_text(g->finish_reason), "task",
                      mm_json_of_text(g->task), "expected", mm_json_of_text(g->expected),
                      "is_correct", g->is_correct < 0 ? json_null() : json_boolean(g->is_correct)));
    }
    return list;
}

static json_t *results_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_results; i++) {
        const mm_result *e = &r->results[i];
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o}", "step",
                            (json_int_t)e->step, "task", mm_json_of_text(e->task), "metric",
                            mm_json_of_text(e->metric), "value", mm_json_of_real(e->value), "low",
                            mm_json_of_real(e->low), "high", mm_json_of_real(e->high), "n",
                            (json_int_t)e->n, "correct",
                            e->correct < 0 ? json_null() : json_integer(e->correct), "data_sha256",
                            mm_json_of_text(e->data_sha256), "created_at",
                            mm_json_of_time(e->created_ms)));
    }
    return list;
}

static json_t *attempts_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_attempts; i++) {
        const mm_attempt *a = &r->attempts[i];
        json_array_append_new(list, json_pack("{s:i, s:I, s:o, s:o, s:o}", "number", (int)a->number,
                                              "from_step", (json_int_t)a->from_step, "started_at",
                                              mm_json_of_time(a->started_ms), "ended_at",
                                              mm_json_of_time(a->ended_ms), "ended",
                                              mm_json_of_text(a->ended)));
    }
    return list;
}

static json_t *events_json(const record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_events; i++) {
        const mm_event *e = &r->events[i];
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:o, s:o}", "time", mm_json_of_time(e->time_ms), "level",
                            mm_json_of_text(e->level), "kind", mm_json_of_text(e->kind), "message",
                            mm_json_of_text(e->message)));
    }
    return list;
}

static void print_json(const record *r, bool only_config)
{
    json_t *object = json_object();
    if (!only_config) json_object_set_new(object, "run", mm_json_of_run(&r->run));
    json_object_set_new(object, "params", params_json(r));
    if (!only_config) {
        json_object_set_new(object, "metrics", series_json(r));
        json_object_set_new(object, "checkpoints", checkpoints_json(r));
        json_object_set_new(object, "datasets", datasets_json(r));
        json_object_set_new(object, "generations", generations_json(r));
        json_object_set_new(object, "results", results_json(r));
        json_object_set_new(object, "lineage", mm_family_json(&r->family));
        json_object_set_new(object, "attempts", attempts_json(r));
        json_object_set_new(object, "events", events_json(r));
        json_t *env = json_object();
        for (size_t i = 0; i < r->n_env; i++)
            json_object_set_new(env, r->env[i].key, mm_json_of_text(r->env[i].value));
        json_object_set_new(object, "environment", env);
    }
    mm_out_json(object);
    json_decref(object);
}

/* ---- text --------------------------------------------------------------------------------------
 */

static void heading(const mm_context *context, const char *text)
{
    mm_out("\n");
    mm_out_color(context, MM_COLOR_BOLD);
    mm_out("%s", text);
    mm_out_color(context, MM_COLOR_NONE);
    mm_out("\n");
}

static const char *dash(const mm_context *context) { return context->utf8_out ? "\xC2\xB7" : "-"; }

static void print_spark(const mm_context *context, const record *r)
{
    static const char *const BARS[] = {"\xE2\x96\x81", "\xE2\x96\x82", "\xE2\x96\x83",
                                       "\xE2\x96\x84", "\xE2\x96\x85", "\xE2\x96\x86",
                                       "\xE2\x96\x87", "\xE2\x96\x88"};
    if (!context->utf8_out || r->n_curve < 2) return;
    double low = (double)INFINITY;
    double high = -(double)INFINITY;
    for (size_t i = 0; i < r->n_curve; i++) {
        if (!isfinite(r->curve[i].mean)) continue;
        low = fmin(low, r->curve[i].mean);
        high = fmax(high, r->curve[i].mean);
    }
    if (!(low <= high)) return;
    mm_out("  ");
    mm_out_color(context, MM_COLOR_GREEN);
    for (size_t i = 0; i < r->n_curve; i++) {
        const double mean = r->curve[i].mean;
        const double share = high > low ? (mean - low) / (high - low) : 0;
        mm_out("%s", isfinite(mean) ? BARS[(int)(share * 7.999)] : " ");
    }
    mm_out_color(context, MM_COLOR_NONE);
    char first[MM_NUMBER_BYTES];
    char last[MM_NUMBER_BYTES];
    mm_real_text(r->curve[0].mean, first);
    mm_real_text(r->run.final_loss, last);
    mm_out("  loss %s \xE2\x86\x92 %s\n", first, last);
}

static void print_summary(const mm_context *context, const record *r)
{
    const mm_run_info *run = &r->run;
    const char *dot = dash(context);
    char number[MM_NUMBER_BYTES];
    char duration[MM_TIME_ISO_BYTES];
    mm_out_color(context, MM_COLOR_BOLD);
    mm_out("%s", run->name);
    mm_out_color(context, MM_COLOR_NONE);
    mm_out("  run %lld %s %s %s ", (long long)run->id, dot, run->stage, dot);
    mm_out_color(context, mm_status_color(run->status));
    mm_out("%s", run->status);
    mm_out_color(context, MM_COLOR_NONE);
    if (run->tags && *run->tags) mm_out(" %s %s", dot, run->tags);
    mm_out("\n");
    if (run->error && *run->error) {
        mm_out_color(context, MM_COLOR_RED);
        mm_out("  %s\n", run->error);
        mm_out_color(context, MM_COLOR_NONE);
    }
    print_spark(context, r);
    mm_real_text(run->final_loss, number);
    mm_out("  step %lld", (long long)run->steps);
    if (run->steps_planned > 0) mm_out(" of %lld", (long long)run->steps_planned);
    mm_out("  loss %s", number);
    mm_real_text(run->best_val_loss, number);
    if (!isnan(run->best_val_loss)) mm_out("  best val %s", number);
    mm_count_text((double)run->params_total, number);
    if (run->params_total > 0) mm_out("  %s parameters", number);
    mm_out("\n  ");
    mm_count_text((double)run->tokens, number);
    if (run->tokens > 0) mm_out("%s tokens  ", number);
    mm_count_text(run->tokens_per_s, number);
    if (run->tokens_per_s > 0) mm_out("%s tok/s  ", number);
    mm_duration_text(run->duration_s, duration);
    if (run->started_ms > 0) mm_out("%s  ", duration);
    mm_out("%s %s  seed %llu\n", run->device ? run->device : "", run->dtype ? run->dtype : "",
           (unsigned long long)run->seed);
    if (run->notes && *run->notes) {
        heading(context, "Notes");
        mm_out("%s\n", run->notes);
    }
}

/* Hashes and prompts are cut: they would push the origin out of sight. --json has them whole. */
static void add_value(mm_table *table, const char *value)
{
    const size_t length = strlen(value);
    const size_t bytes = mm_text_fit(value, length, VALUE_COLUMNS);
    mm_table_cell(table, "%.*s%s", (int)bytes, value, bytes < length ? "..." : "");
}

/* All hyperparameters, or those that somebody chose. */
static mm_status print_config(const mm_context *context, const record *r, bool only_chosen,
                              mm_err *err)
{
    static const char *const HEADERS[] = {"NAME", "VALUE", "ORIGIN"};
    mm_table *table = NULL;
    size_t n_left_out = 0;
    MM_TRY(mm_table_new(&table, HEADERS, 3, err));
    mm_table_indent(table, 2);
    for (size_t i = 0; i < r->n_params; i++) {
        const mm_param *p = &r->params[i];
        if (only_chosen && p->is_default) {
            n_left_out++;
            continue;
        }
        mm_table_cell(table, "%s", p->name);
        add_value(table, p->value ? p->value : "");
        if (!p->is_default) mm_table_color(table, MM_COLOR_BOLD);
        mm_table_cell(table, "%s", p->origin ? p->origin : "");
        mm_table_color(table, MM_COLOR_DIM);
    }
    mm_table_print(table, context);
    if (n_left_out > 0) mm_out("  (%zu at their defaults: --config)\n", n_left_out);
    return MM_OK;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* The unit is the end of a metric's name. */
static void metric_text(const char *name, double value, char out[MM_NUMBER_BYTES])
{
    if (ends_with(name, "_bytes"))
        mm_bytes_text(value, out);
    else if (ends_with(name, "tokens") || ends_with(name, "tokens_per_s"))
        mm_count_text(value, out);
    else
        mm_real_text(value, out);
}

static mm_status print_metrics(const mm_context *context, const record *r, mm_err *err)
{
    static const char *const HEADERS[] = {"NAME", "LAST",    "MIN",    "AT STEP",
                                          "MAX",  "AT STEP", "POINTS", "NOT FINITE"};
    if (r->n_series == 0) return MM_OK;
    heading(context, "Metrics");
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, 8, err));
    mm_table_indent(table, 2);
    mm_table_drops(table, 6, 2);
    mm_table_drops(table, 7, 1);
    for (size_t i = 0; i < r->n_series; i++) {
        const mm_series_info *s = &r->series[i];
        char number[MM_NUMBER_BYTES];
        mm_table_cell(table, "%s", s->name);
        metric_text(s->name, s->last, number);
        mm_table_cell(table, "%s", number);
        metric_text(s->name, s->min, number);
        mm_table_cell(table, "%s", number);
        mm_table_cell(table, "%lld", (long long)s->min_step);
        metric_text(s->name, s->max, number);
        mm_table_cell(table, "%s", number);
        mm_table_cell(table, "%lld", (long long)s->max_step);
        mm_table_cell(table, "%lld", (long long)s->n);
        if (s->n_bad > 0)
            mm_table_cell(table, "%lld from step %lld", (long long)s->n_bad,
                          (long long)s->first_bad_step);
        else
            mm_table_cell(table, "-");
        if (s->n_bad > 0) mm_table_color(table, MM_COLOR_RED);
    }
    mm_table_print(table, context);
    return MM_OK;
}

static mm_status print_checkpoints(const mm_context *context, const record *r, mm_err *err)
{
    static const char *const HEADERS[] = {"STEP",   "KIND", "VAL LOSS", "SIZE",
                                          "STORED", "OWN",  "CREATED",  ""};
    if (r->n_checkpoints == 0) return MM_OK;
    heading(context, "Checkpoints");
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, 8, err));
    mm_table_indent(table, 2);
    mm_table_drops(table, 6, 1);
    for (size_t i = 0; i < r->n_checkpoints; i++) {
        const mm_checkpoint_info *c = &r->checkpoints[i];
        char text[MM_TIME_ISO_BYTES];
        char number[MM_NUMBER_BYTES];
        mm_table_cell(table, "%lld", (long long)c->step);
        mm_table_cell(table, "%s", c->kind);
        mm_real_text(c->val_loss, number);
        mm_table_cell(table, "%s", number);
        mm_bytes_text((double)c->raw_bytes, number);
        mm_table_cell(table, "%s", number);
        mm_bytes_text((double)c->stored_bytes, number);
        mm_table_cell(table, "%s", number);
        mm_bytes_text((double)c->own_bytes, number);
        mm_table_cell(table, "%s", number);
        mm_time_iso(c->created_ms, text);
        mm_table_cell(table, "%s", text);
        mm_table_cell(table, "%s%s", c->is_best ? "@best " : "", c->is_final ? "@final" : "");
        mm_table_color(table, MM_COLOR_GREEN);
    }
    mm_table_print(table, context);
    return MM_OK;
}

static mm_status print_datasets(const mm_context *context, const record *r, mm_err *err)
{
    static const char *const HEADERS[] = {"ROLE", "FILE", "ROWS", "TOKENS", "SIZE", "SHA-256"};
    if (r->n_datasets == 0) return MM_OK;
    heading(context, "Data");
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, 6, err));
    mm_table_indent(table, 2);
    mm_table_drops(table, 5, 1);
    for (size_t i = 0; i < r->n_datasets; i++) {
        const mm_dataset *d = &r->datasets[i];
        char number[MM_NUMBER_BYTES];
        mm_table_cell(table, "%s", d->role ? d->role : "");
        mm_table_cell(table, "%s", d->path ? d->path : "");
        mm_count_text((double)d->rows, number);
        mm_table_cell(table, "%s", number);
        mm_count_text((double)d->tokens, number);
        mm_table_cell(table, "%s", number);
        mm_bytes_text((double)d->bytes, number);
        mm_table_cell(table, "%s", number);
        mm_table_cell(table, "%.12s", d->sha256 ? d->sha256 : "");
    }
    mm_table_print(table, context);
    return MM_OK;
}

/* One line of a text, cut to the width of the page. */
static void print_line_of(const mm_context *context, const char *text)
{
    mm_str line = {.limit = 1 << 16};
    for (const char *c = text ? text : ""; *c && line.length < 4 * TEXT_COLUMNS; c++)
        mm_str_add_char(&line, *c == '\n' || *c == '\t' ? ' ' : *c);
    const int room = context->columns > 0 ? context->columns - 4 : TEXT_COLUMNS;
    const size_t bytes = mm_text_fit(mm_str_text(&line), line.length, room - 3);
    mm_out("%.*s%s", (int)bytes, mm_str_text(&line), bytes < line.length ? "..." : "");
    mm_str_drop(&line);
}

static void print_generations(const mm_context *context, const record *r, bool is_all)
{
    if (r->n_generations == 0) return;
    heading(context, "Samples");
    // The latest answers: those of the last step that has any.
    const int64_t last = r->generations[r->n_generations - 1].step;
    size_t first = r->n_generations;
    while (first > 0 && r->generations[first - 1].step == last)
        first--;
    if (is_all) first = 0;
    if (r->n_generations - first > LAST_GENERATIONS && !is_all)
        first = r->n_generations - LAST_GENERATIONS;
    if (first > 0) mm_out("  (%zu earlier ones: --all)\n", first);
    for (size_t i = first; i < r->n_generations; i++) {
        const mm_generation_row *g = &r->generations[i];
        mm_out_color(context, MM_COLOR_DIM);
        mm_out("  step %lld: ", (long long)g->step);
        mm_out_color(context, MM_COLOR_NONE);
        mm_out_color(context, MM_COLOR_CYAN);
        if (is_all)
            mm_out("%s", g->prompt ? g->prompt : "");
        else
            print_line_of(context, g->prompt);
        mm_out_color(context, MM_COLOR_NONE);
        if (g->is_correct >= 0) {
            mm_out_color(context, g->is_correct ? MM_COLOR_GREEN : MM_COLOR_RED);
            mm_out("  %s", g->is_correct ? "right" : "wrong");
            mm_out_color(context, MM_COLOR_NONE);
        }
        mm_out("\n    ");
        if (is_all)
            mm_out("%s", g->text ? g->text : "");
        else
            print_line_of(context, g->text);
        mm_out("\n");
    }
}

static void print_events(const mm_context *context, const record *r, bool is_all)
{
    char time[MM_TIME_ISO_BYTES];
    if (r->n_attempts > 1) {
        heading(context, "Attempts");
        for (size_t i = 0; i < r->n_attempts; i++) {
            const mm_attempt *a = &r->attempts[i];
            mm_time_iso(a->started_ms, time);
            mm_out("  %d  %s  from step %lld  %s\n", (int)a->number, time, (long long)a->from_step,
                   a->ended ? a->ended : "running");
        }
    }
    if (r->n_events == 0) return;
    heading(context, "Events");
    size_t first = 0;
    if (!is_all && r->n_events > LAST_EVENTS) first = r->n_events - LAST_EVENTS;
    if (first > 0) mm_out("  (%zu earlier ones: --all)\n", first);
    for (size_t i = first; i < r->n_events; i++) {
        const mm_event *e = &r->events[i];
        const bool is_bad = e->level && strcmp(e->level, "info") != 0;
        mm_time_iso(e->time_ms, time);
        mm_out("  %s  ", time);
        if (is_bad) mm_out_color(context, MM_COLOR_YELLOW);
        mm_out("%s", e->kind ? e->kind : "");
        if (is_bad) mm_out_color(context, MM_COLOR_NONE);
        mm_out("  %s\n", e->message ? e->message : "");
    }
}

static mm_status print_environment(const mm_context *context, const record *r, mm_err *err)
{
    static const char *const HEADERS[] = {"", ""};
    if (r->n_env == 0) return MM_OK;
    heading(context, "Environment");
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, 2, err));
    mm_table_indent(table, 2);
    for (size_t i = 0; i < r->n_env; i++) {
        mm_table_cell(table, "%s", r->env[i].key);
        mm_table_cell(table, "%s", r->env[i].value ? r->env[i].value : "");
    }
    mm_table_print(table, context);
    return MM_OK;
}

static bool has_full_checkpoint(const record *r)
{
    for (size_t i = 0; i < r->n_checkpoints; i++)
        if (strcmp(r->checkpoints[i].kind, "full") == 0) return true;
    return false;
}

static mm_status print_results(const mm_context *context, const record *r, mm_err *err)
{
    static const char *const HEADERS[] = {"TASK", "METRIC", "STEP", "VALUE", "95 %", "OF"};
    if (r->n_results == 0) return MM_OK;
    heading(context, "Results");
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, 6, err));
    mm_table_indent(table, 2);
    for (size_t i = 0; i < r->n_results; i++) {
        const mm_result *e = &r->results[i];
        char number[MM_NUMBER_BYTES];
        mm_table_cell(table, "%s", e->task);
        mm_table_cell(table, "%s", e->metric);
        mm_table_cell(table, "%lld", (long long)e->step);
        mm_real_text(e->value, number);
        if (e->correct >= 0)
            mm_table_cell(table, "%.1f %%", 100 * e->value);
        else
            mm_table_cell(table, "%s", number);
        if (isfinite(e->low) && isfinite(e->high))
            mm_table_cell(table, "%.1f to %.1f %%", 100 * e->low, 100 * e->high);
        else
            mm_table_cell(table, "-");
        if (e->correct >= 0)
            mm_table_cell(table, "%lld/%lld", (long long)e->correct, (long long)e->n);
        else
            mm_table_cell(table, "%lld", (long long)e->n);
    }
    mm_table_print(table, context);
    return MM_OK;
}

// The tree, where there is more to it than this run and its files, which stand under Data.
static void print_lineage(const mm_context *context, const record *r)
{
    if (r->family.count < 2) return;
    heading(context, "Lineage");
    mm_show_family(context, &r->family);
}

static bool has_parent(const record *r)
{
    for (size_t i = 0; i < r->family.count; i++)
        if (r->family.runs[i].info.id == r->run.parent_id) return true;
    return false;
}

static void print_origin(const mm_context *context, const record *r)
{
    const mm_run_info *run = &r->run;
    heading(context, "Origin");
    char time[MM_TIME_ISO_BYTES];
    mm_time_iso(run->created_ms, time);
    mm_out("  created %s%s%s by mmrun %s%s%s\n", time, run->host ? " on " : "",
           run->host ? run->host : "", run->version ? run->version : "?",
           run->git_commit ? ", commit " : "", run->git_commit ? run->git_commit : "");
    // With the parent its id has gone from the record; the step stays.
    if (run->parent_step >= 0 && !has_parent(r))
        mm_out("  started from step %lld of a run that was removed\n", (long long)run->parent_step);
    if (run->sweep_id > 0) mm_out("  part of sweep %lld\n", (long long)run->sweep_id);
    if (run->command) mm_out("  reproduce: %s\n", run->command);
    const bool is_open = strcmp(run->status, "killed") == 0 ||
                         strcmp(run->status, "stopped") == 0 || strcmp(run->status, "failed") == 0;
    if (is_open && has_full_checkpoint(r)) {
        mm_out("  continue:  ");
        mm_out_color(context, MM_COLOR_CYAN);
        mm_out("mmrun resume %s", run->name);
        mm_out_color(context, MM_COLOR_NONE);
        mm_out("\n");
    }
}

static mm_status print_text(const mm_context *context, const record *r, bool is_all, mm_err *err)
{
    print_summary(context, r);
    MM_TRY(print_metrics(context, r, err));
    heading(context, "Hyperparameters");
    MM_TRY(print_config(context, r, !is_all, err));
    MM_TRY(print_checkpoints(context, r, err));
    MM_TRY(print_datasets(context, r, err));
    MM_TRY(print_results(context, r, err));
    print_generations(context, r, is_all);
    print_events(context, r, is_all);
    MM_TRY(print_environment(context, r, err));
    print_lineage(context, r);
    print_origin(context, r);
    return MM_OK;
}

mm_status mm_cmd_show(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    record r = {0};
    int64_t run_id = 0;
    mm_status status = MM_OK;
    const bool only_config = mm_args_has(args, "config");
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    MM_GO(mm_store_resolve_run(store, mm_args_at(args, 0), &run_id, err));
    MM_GO(read_record(store, run_id, &r, err));
    if (context->json)
        print_json(&r, only_config);
    else if (only_config)
        MM_GO(print_config(context, &r, false, err));
    else
        MM_GO(print_text(context, &r, mm_args_has(args, "all"), err));
done:
    mm_arena_drop(&r.arena);
    mm_store_close(store);
    return status;
}
