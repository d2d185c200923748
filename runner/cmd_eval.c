/* mmrun eval: what one run or several can do. Loss on held-out rows, multiple choice, answers to
 * prompts; every number is recorded with its run. */
#include "runner/commands.h"
#include "runner/eval_parts.h"
#include "runner/match.h"
#include "runner/train.h"

#include "core/base/stat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const mm_option mm_eval_options[] = {
    {.name = "data",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .repeats = true,
     .help = "rows to score: texts, conversations or preference pairs (what the run held out)"},
    {.name = "mask",
     .type = MM_OPTION_CHOICE,
     .value = "MASK",
     .choices = MM_MASK_KINDS,
     .help = "what of a conversation is scored (the run's, else all-answers)"},
    {.name = "reference",
     .type = MM_OPTION_TEXT,
     .value = "RUN",
     .help = "of preference pairs (what a dpo run started from); none: the run's own "
             "log-probabilities decide"},
    {.name = "limit",
     .type = MM_OPTION_INT,
     .value = "ROWS",
     .min = 1,
     .max = 1e12,
     .help = "only the first rows, questions and prompts"},
    {.name = "pack",
     .type = MM_OPTION_CHOICE,
     .value = "on|off",
     .choices = "on,off",
     .help = "off: cut rows as MiniMind cuts them (the run's)"},
    {.name = "seq-len",
     .aliases = "max_seq_len",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 4,
     .max = 1048576,
     .help = "context to score with (the run's)"},
    {.name = "no-loss", .type = MM_OPTION_FLAG, .help = "leave the held-out loss out"},
    {.name = "choices",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .group = "Multiple choice",
     .help = "questions: {\"question\", \"A\", \"B\" …, \"answer\"} or {\"question\", \"choices\", "
             "\"answer\"}"},
    {.name = "score",
     .type = MM_OPTION_CHOICE,
     .value = "letter|text",
     .choices = "letter,text",
     .group = "Multiple choice",
     .help = "by the letter of a listed option, or by an option's own words (letter)"},
    {.name = "dev",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .group = "Multiple choice",
     .help = "questions shown as examples"},
    {.name = "shots",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 100,
     .group = "Multiple choice",
     .help = "examples per question (5 with --dev)"},
    {.name = "prompts",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .group = "Prompts",
     .help = "to answer: one per line, rows {\"prompt\", \"expected\"?} or conversations with "
             "\"gt\""},
    {.name = "match",
     .type = MM_OPTION_CHOICE,
     .value = "HOW",
     .choices = MM_MATCH_KINDS,
     .group = "Prompts",
     .help = "when an answer counts as the expected one (exact)"},
    {.name = "max-new-tokens",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1000000,
     .group = "Prompts",
     .help = "length of an answer (64)"},
    {.name = "temperature",
     .type = MM_OPTION_REAL,
     .value = "X",
     .min = 0,
     .max = 100,
     .group = "Prompts",
     .help = "0: greedy (0.85; 0 where an answer is expected)"},
    {.name = "style",
     .type = MM_OPTION_CHOICE,
     .value = "text|chat",
     .choices = "text,chat",
     .group = "How",
     .help = "questions and prompts as text to be continued or as a user's turn (as the run's "
             "stage was taught)"},
    {.name = "on-bad-row",
     .aliases = "on_bad_row",
     .type = MM_OPTION_CHOICE,
     .value = "stop|skip",
     .choices = "stop,skip",
     .group = "How",
     .help = "stop when over 0.1 % of the rows are bad, or skip them (the run's)"},
    {.name = "cache",
     .type = MM_OPTION_PATH,
     .value = "DIR",
     .group = "How",
     .help = "folder of the token caches"},
    {0},
};

/* ---- what the parts share ----------------------------------------------------------------------
 */

mm_status mm_eval_add(mm_eval *eval, const mm_result *result, mm_err *err)
{
    if (eval->n_results == MM_EVAL_RESULTS_MAX)
        return MM_FAIL(err, MM_ELIMIT, "more than %d results", MM_EVAL_RESULTS_MAX);
    mm_result *kept = &eval->results[eval->n_results];
    *kept = *result;
    kept->run_id = eval->loaded.run.id;
    kept->step = eval->loaded.checkpoint.step;
    kept->task = mm_arena_strdup(&eval->arena, result->task);
    kept->metric = mm_arena_strdup(&eval->arena, result->metric);
    kept->data_sha256 = mm_arena_strdup(&eval->arena, result->data_sha256);
    if (!kept->task || !kept->metric) return MM_FAIL(err, MM_ENOMEM, "no memory for results");
    eval->n_results++;
    return eval->records ? mm_store_result_add(eval->store, kept, err) : MM_OK;
}

mm_status mm_eval_add_share(mm_eval *eval, const char *task, const char *metric, int64_t correct,
                            int64_t n, const char *sha256, mm_err *err)
{
    const mm_interval interval = mm_wilson_interval(correct, n);
    const mm_result result = {.task = task,
                              .metric = metric,
                              .value = (double)correct / (double)n,
                              .low = interval.low,
                              .high = interval.high,
                              .n = n,
                              .correct = correct,
                              .data_sha256 = sha256};
    return mm_eval_add(eval, &result, err);
}

const char *mm_eval_task(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

mm_sample_style mm_eval_style(const mm_eval *eval)
{
    const char *style = mm_args_text(eval->args, "style");
    if (!style) return mm_sample_style_of(eval->loaded.run.stage);
    return strcmp(style, "chat") == 0 ? MM_SAMPLE_CHAT : MM_SAMPLE_TEXT;
}

mm_dtype mm_eval_dtype(const mm_eval *eval)
{
    return mm_loaded_dtype(&eval->loaded, mm_args_text(eval->args, "dtype"));
}

bool mm_eval_skips_bad(const mm_eval *eval)
{
    const char *given = mm_args_text(eval->args, "on-bad-row");
    return strcmp(given ? given : mm_config_text(eval->loaded.config, "on_bad_row"), "skip") == 0;
}

/* ---- one run -----------------------------------------------------------------------------------
 */

static mm_status evaluate(mm_eval *eval, const char *reference, mm_err *err)
{
    const mm_args *args = eval->args;
    const bool has_tasks = mm_args_has(args, "choices") || mm_args_has(args, "prompts");
    MM_TRY(mm_load_run_as_asked(&eval->loaded, eval->store, reference, args, err));
    json_object_set_new(eval->json, "run_id", json_integer(eval->loaded.run.id));
    json_object_set_new(eval->json, "run", mm_json_of_text(eval->loaded.run.name));
    json_object_set_new(eval->json, "step", json_integer(eval->loaded.checkpoint.step));
    // Always there: shapes do not depend on what was asked.
    static const char *const NUMBERS[] = {"val_loss", "perplexity", "bpb"};
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++)
        json_object_set_new(eval->json, NUMBERS[i], json_null());
    json_object_set_new(eval->json, "tokens", json_integer(0));
    json_object_set_new(eval->json, "bytes", json_integer(0));
    json_object_set_new(eval->json, "generations", json_array());
    if (!mm_args_has(args, "no-loss")) {
        const mm_status status = mm_eval_loss(eval, err);
        // Nothing held out is no obstacle to what was asked for besides.
        const bool may_miss = has_tasks && !mm_args_has(args, "data");
        if (status != MM_OK && !(may_miss && status == MM_EUSAGE)) return status;
    }
    if (mm_args_has(args, "choices")) MM_TRY(mm_eval_choices(eval, err));
    if (mm_args_has(args, "prompts")) MM_TRY(mm_eval_prompts(eval, err));
    return MM_OK;
}

// How the results came about stands among the run's events.
static mm_status record_command(const mm_eval *eval, mm_err *err)
{
    mm_str command = {0};
    mm_status status = MM_OK;
    if (!eval->records || eval->n_results == 0) return MM_OK;
    MM_GO(mm_command_text(eval->context, &command, err));
    MM_GO(mm_store_event(eval->store, eval->loaded.run.id, "info", "eval", mm_str_text(&command),
                         err));
done:
    mm_str_drop(&command);
    return status;
}

static void add_json_results(mm_eval *eval)
{
    json_t *list = json_array();
    for (size_t i = 0; i < eval->n_results; i++) {
        const mm_result *r = &eval->results[i];
        json_t *row = json_object();
        json_object_set_new(row, "task", mm_json_of_text(r->task));
        json_object_set_new(row, "metric", mm_json_of_text(r->metric));
        json_object_set_new(row, "value", mm_json_of_real(r->value));
        json_object_set_new(row, "low", mm_json_of_real(r->low));
        json_object_set_new(row, "high", mm_json_of_real(r->high));
        json_object_set_new(row, "n", json_integer(r->n));
        json_object_set_new(row, "correct",
                            r->correct >= 0 ? json_integer(r->correct) : json_null());
        json_array_append_new(list, row);
    }
    json_object_set_new(eval->json, "results", list);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

// "25.3 % (22.1 to 28.7)" of a share, else a number.
static void value_text(const mm_result *r, char *out, size_t bytes)
{
    if (r->correct >= 0)
        snprintf(out, bytes, "%.1f %% (%.1f to %.1f)", 100 * r->value, 100 * r->low, 100 * r->high);
    else
        snprintf(out, bytes, fabs(r->value) < 1e6 ? "%.4f" : "%.4g", r->value);
}

static const mm_result *find_result(const mm_eval *eval, const mm_result *like)
{
    for (size_t i = 0; i < eval->n_results; i++) {
        const mm_result *r = &eval->results[i];
        // What a run held out has one name for all of them.
        if (strcmp(r->task, like->task) == 0 && strcmp(r->metric, like->metric) == 0) return r;
    }
    return NULL;
}

static mm_status fill_row(mm_table *table, const mm_eval *evals, size_t n, const mm_result *like)
{
    mm_table_cell(table, "%s", like->task);
    mm_table_cell(table, "%s", like->metric);
    // What runs held out may differ in length; then each has another n.
    bool is_same = true;
    for (size_t i = 0; i < n; i++) {
        const mm_result *r = find_result(&evals[i], like);
        is_same &= !r || r->n == like->n;
    }
    if (is_same)
        mm_table_cell(table, "%" PRId64, like->n);
    else
        mm_table_cell(table, "differs");
    for (size_t i = 0; i < n; i++) {
        const mm_result *r = find_result(&evals[i], like);
        char text[64] = "-";
        if (r) value_text(r, text, sizeof text);
        mm_table_cell(table, "%s", text);
    }
    return MM_OK;
}

// Whether an earlier run has the same result, so that its row stands in the table already.
static bool is_listed(const mm_eval *evals, size_t of, const mm_result *like)
{
    for (size_t before = 0; before < of; before++)
        if (find_result(&evals[before], like)) return true;
    return false;
}

// A row per result, a column per run.
static mm_status print_side_by_side(const mm_context *context, const mm_eval *evals, size_t n,
                                    mm_err *err)
{
    const size_t n_fixed = 3;
    mm_table *table = NULL;
    mm_status status = MM_OK;
    const char **headers = mm_calloc(n_fixed + n, sizeof *headers);
    if (!headers) return MM_FAIL(err, MM_ENOMEM, "no memory for the table");
    headers[0] = "task";
    headers[1] = "metric";
    headers[2] = "n";
    for (size_t i = 0; i < n; i++)
        headers[n_fixed + i] = evals[i].loaded.run.name;
    MM_GO(mm_table_new(&table, headers, n_fixed + n, err));
    for (size_t of = 0; of < n; of++)
        for (size_t i = 0; i < evals[of].n_results; i++) {
            const mm_result *like = &evals[of].results[i];
            if (!is_listed(evals, of, like)) MM_GO(fill_row(table, evals, n, like));
        }
    mm_table_print(table, context);
done:
    mm_free((void *)headers);
    return status;
}

// A row per result and run, for terminals on which the columns would not fit.
static mm_status print_below_each_other(const mm_context *context, const mm_eval *evals, size_t n,
                                        mm_err *err)
{
    static const char *const HEADERS[] = {"task", "run", "n", "value"};
    mm_table *table = NULL;
    const char *task = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, sizeof HEADERS / sizeof HEADERS[0], err));
    for (size_t of = 0; of < n; of++)
        for (size_t i = 0; i < evals[of].n_results; i++) {
            const mm_result *like = &evals[of].results[i];
            if (is_listed(evals, of, like)) continue;
            if (!task || strcmp(task, like->task) != 0) {
                mm_table_cell(table, "%s", like->task);
                for (size_t blank = 1; blank < sizeof HEADERS / sizeof HEADERS[0]; blank++)
                    mm_table_cell(table, " ");
            }
            task = like->task;
            for (size_t run = of; run < n; run++) {
                const mm_result *r = find_result(&evals[run], like);
                char text[64];
                if (!r) continue;
                value_text(r, text, sizeof text);
                mm_table_cell(table, "  %s", run == of ? r->metric : "");
                mm_table_cell(table, "%s", evals[run].loaded.run.name);
                mm_table_cell(table, "%" PRId64, r->n);
                mm_table_cell(table, "%s", text);
            }
        }
    mm_table_print(table, context);
    return MM_OK;
}

static mm_status print_table(const mm_context *context, const mm_eval *evals, size_t n, mm_err *err)
{
    enum { NAMES = 48, A_VALUE = 25 }; // task, metric and n; a share with its interval
    const bool fits = context->columns <= 0 || NAMES + n * A_VALUE <= (size_t)context->columns;
    if (n == 1 || fits) return print_side_by_side(context, evals, n, err);
    return print_below_each_other(context, evals, n, err);
}

static bool print_loss(const mm_eval *eval)
{
    const json_t *loss = json_object_get(eval->json, "val_loss");
    const mm_loaded *loaded = &eval->loaded;
    if (json_object_get(eval->json, "preference") || eval->n_results < 3 || !loss) return false;
    const mm_result *r = eval->results;
    if (strncmp(r[0].metric, "val_loss", 8) != 0) return false;
    mm_out("%s@%" PRId64 ": val_loss %.6f  perplexity %.*g  bits per byte %.4f  tokens %" PRId64
           "\n",
           loaded->run.name, loaded->checkpoint.step, r[0].value, r[1].value < 1e6 ? 8 : 4,
           r[1].value, r[2].value, r[0].n);
    return eval->n_results == 3;
}

static mm_status print_all(const mm_context *context, mm_eval *evals, size_t n, mm_err *err)
{
    if (!context->json) {
        const bool is_all = n == 1 && print_loss(&evals[0]);
        size_t n_results = 0;
        for (size_t i = 0; i < n; i++)
            n_results += evals[i].n_results;
        return is_all || n_results == 0 ? MM_OK : print_table(context, evals, n, err);
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        add_json_results(&evals[i]);
        json_array_append(list, evals[i].json);
    }
    json_t *out = n == 1 ? json_incref(evals[0].json) : json_pack("{s:O}", "runs", list);
    mm_out_json(out);
    json_decref(out);
    json_decref(list);
    return MM_OK;
}

/* ---- the command -------------------------------------------------------------------------------
 */

// For writing where that is possible: scoring also works on a database that cannot be written.
// Weights with the adapters of other runs are no run's, and what they do belongs to none.
static mm_status open_store(const mm_context *context, const mm_args *args, mm_store **out,
                            bool *records, mm_err *err)
{
    *records = false;
    if (mm_args_has(args, "lora")) return mm_context_store(context, MM_STORE_READ, out, err);
    return mm_context_store_to_record(context, out, records, err);
}

static void drop_eval(mm_eval *eval)
{
    json_decref(eval->json);
    mm_free(eval->results);
    mm_arena_drop(&eval->arena);
    mm_loaded_drop(&eval->loaded);
}

// Weights and data are not needed any more, names are.
static void release(mm_eval *eval)
{
    mm_model_free(eval->loaded.model);
    eval->loaded.model = NULL;
}

mm_status mm_cmd_eval(const mm_context *context, const mm_args *args, mm_err *err)
{
    const size_t n = mm_args_count(args);
    mm_store *store = NULL;
    bool records = false;
    mm_status status = MM_OK;
    mm_eval *evals = mm_calloc(n, sizeof *evals);
    if (!evals) return MM_FAIL(err, MM_ENOMEM, "no memory for %zu runs", n);
    MM_GO(open_store(context, args, &store, &records, err));
    for (size_t i = 0; i < n; i++) {
        mm_eval *eval = &evals[i];
        eval->context = context;
        eval->args = args;
        eval->store = store;
        eval->records = records;
        eval->json = json_object();
        eval->results = mm_calloc(MM_EVAL_RESULTS_MAX, sizeof *eval->results);
        if (!eval->json || !eval->results) {
            status = MM_FAIL(err, MM_ENOMEM, "no memory for results");
            goto done;
        }
        if (n > 1 && !context->json && mm_args_has(args, "prompts"))
            mm_out("%s\n", mm_args_at(args, i));
        MM_GO(evaluate(eval, mm_args_at(args, i), err));
        MM_GO(record_command(eval, err));
        release(eval);
    }
    MM_GO(print_all(context, evals, n, err));
done:
    for (size_t i = 0; i < n; i++)
        drop_eval(&evals[i]);
    mm_free(evals);
    mm_store_close(store);
    return status;
}
