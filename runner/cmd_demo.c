/* mmrun demo: the whole story offline in under two minutes. Self-made data, a tokenizer, a training
 * that is killed in the middle and resumed, a sweep, then the stages that teach it to answer, what
 * each of them changed, and the report. Every part is the command a user would type, run as a
 * process of its own. */
#include "runner/child.h"
#include "runner/commands.h"
#include "runner/signals.h"

#include "core/base/clock.h"
#include "core/base/file.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

const mm_option mm_demo_options[] = {
    {.name = "out",
     .type = MM_OPTION_PATH,
     .value = "DIR",
     .help = "folder for everything it makes (./mmrun-demo)"},
    {.name = "steps",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 20,
     .max = 1e6,
     .help = "steps of the main run (150); the stages after it take a share of that"},
    {.name = "threads",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1024,
     .help = "worker threads (all)"},
    {0},
};

enum { ARGUMENTS_MAX = 48, PARTS = 10, DEFAULT_STEPS = 150 };

// The runs, in the order of their table.
static const char *const RUNS[] = {"demo", "demo-sft", "demo-persona", "demo-dpo", NULL};
#define DPO "demo-dpo"
enum { N_RUNS = sizeof RUNS / sizeof RUNS[0] - 1 };

typedef struct demo {
    mm_context context; // with the demo's own database
    mm_arena arena;
    const char *dir;
    const char *data_dir;
    const char *tokenizer;
    const char *cache;
    int64_t steps;
    const char *threads;
    int part;
} demo;

// A command line as it grows; what follows the words is NULL.
typedef struct command {
    const char *words[ARGUMENTS_MAX + 1];
    size_t n;
} command;

static void add_words(command *c, const char *const *words)
{
    for (; *words; words++) {
        MM_ASSERT(c->n < ARGUMENTS_MAX);
        c->words[c->n++] = *words;
    }
}
#define ADD(c, ...) add_words((c), (const char *const[]){__VA_ARGS__, NULL})

// "<dir>/<name>", kept until the end.
static const char *in_dir(demo *d, const char *name)
{
    mm_str path = {0};
    mm_str_addf(&path, "%s/%s", d->dir, name);
    const char *kept = mm_arena_strdup(&d->arena, mm_str_text(&path));
    mm_str_drop(&path);
    return kept ? kept : name;
}

// A number as an argument, kept until the end.
static const char *number(demo *d, int64_t value)
{
    mm_str text = {0};
    mm_str_addf(&text, "%" PRId64, value);
    const char *kept = mm_arena_strdup(&d->arena, mm_str_text(&text));
    mm_str_drop(&text);
    return kept ? kept : "0";
}

// A file of `data synth`.
static const char *data_file(demo *d, const char *kind, const char *side)
{
    mm_str name = {0};
    mm_str_addf(&name, "data/%s%s.jsonl", kind, side);
    const char *path = in_dir(d, mm_str_text(&name));
    mm_str_drop(&name);
    return path;
}

static void heading(demo *d, const char *text)
{
    d->part++;
    mm_say(&d->context, " ");
    mm_say(&d->context, "[%d/%d] %s", d->part, PARTS, text);
}

static void say_command(const demo *d, const char *const *arguments)
{
    mm_str line = {0};
    mm_str_add(&line, "  $ mmrun");
    for (; *arguments; arguments++)
        mm_str_addf(&line, strchr(*arguments, ' ') ? " '%s'" : " %s", *arguments);
    mm_say(&d->context, "%s", mm_str_text(&line));
    mm_str_drop(&line);
}

static mm_status run_to(const demo *d, const char *const *arguments, mm_child_stdout to,
                        mm_err *err)
{
    pid_t pid = 0;
    int code = 0;
    say_command(d, arguments);
    MM_TRY(mm_child_start(&d->context, arguments, to, &pid, err));
    MM_TRY(mm_child_wait(pid, &code, err));
    if (mm_signals_stop() != 0)
        return MM_FAIL(err, MM_ECANCELED, "the demo was stopped; %s keeps what it made", d->dir);
    if (code == 0) return MM_OK;
    return MM_FAIL(err, MM_EIO, "mmrun %s ended with exit code %d", arguments[0], code);
}

static mm_status run(const demo *d, const char *const *arguments, mm_err *err)
{
    return run_to(d, arguments, MM_CHILD_TO_STDERR, err);
}

// Steps the run has logged and its newest checkpoint, without disturbing the process that writes.
static void look(const demo *d, int64_t *steps, int64_t *checkpoint)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    mm_run_info info;
    mm_checkpoint_info *list = NULL;
    size_t n = 0;
    *steps = *checkpoint = 0;
    if (mm_store_open(&store, d->context.db_path, MM_STORE_READ, NULL) == MM_OK &&
        mm_store_run(store, 1, &arena, &info, NULL) == MM_OK) {
        *steps = info.steps;
        if (mm_checkpoint_list(store, 1, &arena, &list, &n, NULL) == MM_OK && n > 0)
            *checkpoint = list[n - 1].step;
    }
    mm_store_close(store);
    mm_arena_drop(&arena);
}

// Starts the training, waits until it is well past a checkpoint, and kills it without warning.
static mm_status train_and_kill(demo *d, const char *const *arguments, int64_t kill_after,
                                mm_err *err)
{
    enum { POLL_US = 20000 };
    pid_t pid = 0;
    int state = 0;
    int64_t steps = 0;
    int64_t checkpoint = 0;
    say_command(d, arguments);
    MM_TRY(mm_child_start(&d->context, arguments, MM_CHILD_TO_STDERR, &pid, err));
    while (waitpid(pid, &state, WNOHANG) == 0) {
        if (mm_signals_stop() != 0) kill(pid, SIGTERM);
        look(d, &steps, &checkpoint);
        if (steps >= kill_after && checkpoint > 0 && steps > checkpoint) {
            kill(pid, SIGKILL);
            waitpid(pid, &state, 0);
            break;
        }
        usleep(POLL_US);
    }
    if (mm_signals_stop() != 0)
        return MM_FAIL(err, MM_ECANCELED, "the demo was stopped; %s keeps what it made", d->dir);
    if (!WIFSIGNALED(state))
        return MM_FAIL(err, MM_EIO,
                       "the training ended by itself (exit code %d) before it could be killed",
                       WEXITSTATUS(state));
    mm_say(&d->context,
           "  kill -9 after step %" PRId64 "; the newest checkpoint is that of step %" PRId64 ".",
           steps, checkpoint);
    return MM_OK;
}

static mm_status make_data(demo *d, mm_err *err)
{
    const struct {
        const char *dir;
        const char *kind;
        const char *rows;
    } files[] = {{d->data_dir, "pretrain", "8000"},
                 {d->data_dir, "arithmetic", "12000"},
                 {d->data_dir, "persona", "1200"},
                 {in_dir(d, "data/again"), "arithmetic", "1200"}, // the first rows of those above
                 {d->data_dir, "preference", "4000"}};
    heading(d, "Self-made data: bilingual stories, sums, who the model is, good and bad answers");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *const arguments[] = {"data",       "synth",       "--out",
                                         files[i].dir, "--kind",      files[i].kind,
                                         "--rows",     files[i].rows, NULL};
        MM_TRY(run(d, arguments, err));
    }
    return MM_OK;
}

static mm_status make_tokenizer(demo *d, mm_err *err)
{
    const char *const arguments[] = {"tokenizer", "train", "--data", data_file(d, "pretrain", ""),
                                     "--vocab",   "2048",  "-o",     d->tokenizer,
                                     NULL};
    heading(d, "A tokenizer for it");
    return run(d, arguments, err);
}

// What was trained twice must have come out the same: the proof of the heading.
static mm_status compare_bits(const demo *d, mm_err *err)
{
    mm_store *store = NULL;
    mm_recomputed again;
    MM_TRY(mm_store_open(&store, d->context.db_path, MM_STORE_READ, err));
    const mm_status status = mm_store_recomputed(store, 1, &again, err);
    mm_store_close(store);
    MM_TRY(status);
    if (again.different > 0)
        return MM_FAIL(err, MM_ECORRUPT,
                       "%" PRId64 " of %" PRId64 " points trained twice came out different",
                       again.different, again.points);
    mm_say(&d->context,
           "  %" PRId64
           " points of lost steps were trained again: each is the same to the last bit.",
           again.points);
    return MM_OK;
}

// What all trainings share.
static void add_training(command *c, demo *d, const char *stage, const char *name, const char *kind)
{
    ADD(c, "--db", d->context.db_path, stage, "--name", name);
    ADD(c, "--data", data_file(d, kind, ""), "--val", data_file(d, kind, "_val"));
    ADD(c, "--cache", d->cache, "--threads", d->threads, "--gen-tokens", "32");
}

// The shape and the text that is learned first.
static void add_pretraining(command *c, demo *d, const char *stage, const char *name)
{
    add_training(c, d, stage, name, "pretrain");
    ADD(c, "--tokenizer", d->tokenizer, "--heads", "4", "--kv-heads", "2", "--batch", "8");
    ADD(c, "--seq-len", "256", "--lr", "2e-3", "--eval-rows", "64");
    ADD(c, "--prompt", "Once upon a time", "--prompt", "从前", "--prompt", "3+4=");
}

static mm_status pretrain(demo *d, mm_err *err)
{
    command training = {0};
    add_pretraining(&training, d, "pretrain", RUNS[0]);
    ADD(&training, "--hidden", "128", "--layers", "4", "--warmup", "10", "--steps",
        number(d, d->steps));
    heading(d, "Pretraining a small model, until somebody pulls the plug");
    MM_TRY(train_and_kill(d, training.words, d->steps / 2, err));
    const char *const list[] = {"--db", d->context.db_path, "runs", NULL};
    MM_TRY(run(d, list, err));
    const char *const resume[] = {"--db",    d->context.db_path, "resume", RUNS[0],
                                  "--cache", d->cache,           NULL};
    heading(d, "Resume: the same losses, bit for bit, as if nothing had happened");
    MM_TRY(run(d, resume, err));
    return compare_bits(d, err);
}

static mm_status sweep(demo *d, mm_err *err)
{
    command training = {0};
    add_pretraining(&training, d, "sweep", "width");
    ADD(&training, "--hidden", "32,64", "--layers", "2", "--steps", "20");
    heading(d, "A sweep over two widths");
    return run(d, training.words, err);
}

// A stage that learns from answers: its parent, its steps, its prompts. So short a training has no
// time for variety, so nothing is drawn.
static void add_stage(command *c, demo *d, const char *from, int64_t steps, const char *lr)
{
    ADD(c, "--from", from, "--seq-len", "128", "--steps", number(d, steps), "--lr", lr);
    ADD(c, "--drop-think-share", "0", "--eval-rows", "64");
    ADD(c, "--eval-every", number(d, (steps + 2) / 3));
    ADD(c, "--prompt", "What is 7 plus 5?", "--prompt", "7加5等于几？", "--prompt", "你是谁？");
}

static mm_status teach_answers(demo *d, mm_err *err)
{
    command training = {0};
    add_training(&training, d, "sft", RUNS[1], "arithmetic");
    add_stage(&training, d, RUNS[0], 2 * d->steps, "3e-3");
    ADD(&training, "--batch", "64", "--system-prompt-share", "0");
    heading(d, "SFT: it learns to answer, and to compute");
    return run(d, training.words, err);
}

static mm_status teach_persona(demo *d, mm_err *err)
{
    command training = {0};
    add_training(&training, d, "lora", RUNS[2], "persona");
    ADD(&training, "--data", data_file(d, "again/arithmetic", ""));
    add_stage(&training, d, RUNS[1], 5 * d->steps / 3, "7e-3");
    ADD(&training, "--batch", "16", "--rank", "16", "--targets", "all");
    ADD(&training, "--system-prompt-share", "0");
    heading(d, "LoRA: a name for it, in adapters beside the frozen weights");
    mm_say(&d->context,
           "  Half of its rows are sums again: taught the name alone, it forgets how to "
           "compute.");
    return run(d, training.words, err);
}

static mm_status teach_preference(demo *d, mm_err *err)
{
    command training = {0};
    add_training(&training, d, "dpo", RUNS[3], "preference");
    add_stage(&training, d, RUNS[1], 2 * d->steps / 5, "1e-4");
    ADD(&training, "--batch", "16");
    heading(d, "DPO: rather short, right and in the language asked");
    return run(d, training.words, err);
}

// The newest share of a metric among a run's results.
static const mm_result *find_share(const mm_result *results, size_t n, const char *task,
                                   const char *metric)
{
    const mm_result *found = NULL;
    for (size_t i = 0; i < n; i++)
        if (strcmp(results[i].metric, metric) == 0 && results[i].correct >= 0 &&
            strncmp(results[i].task, task, strlen(task)) == 0)
            found = &results[i];
    return found;
}

static mm_status add_scores(mm_table *table, mm_store *store, const char *run, mm_err *err)
{
    static const struct {
        const char *task;
        const char *metric;
    } COLUMNS[] = {{"arithmetic", "number_match"},
                   {"arithmetic", "language_match"},
                   {"persona", "contains_match"},
                   {"preference", "preference_accuracy/alone"}};
    mm_arena arena = {0};
    mm_result *results = NULL;
    size_t n = 0;
    int64_t id = 0;
    mm_status status = MM_OK;
    MM_GO(mm_store_resolve_run(store, run, &id, err));
    MM_GO(mm_store_results(store, id, &arena, &results, &n, err));
    mm_table_cell(table, "%s", run);
    for (size_t i = 0; i < sizeof COLUMNS / sizeof COLUMNS[0]; i++) {
        const mm_result *share = find_share(results, n, COLUMNS[i].task, COLUMNS[i].metric);
        if (!share) {
            status = MM_FAIL(err, MM_ENOTFOUND, "%s has no %s on record", run, COLUMNS[i].metric);
            goto done;
        }
        mm_table_cell(table, "%.0f %%", 100 * share->value);
        mm_table_cell(table, "%.0f-%.0f", 100 * share->low, 100 * share->high);
    }
done:
    mm_arena_drop(&arena);
    return status;
}

static mm_status print_scores(const demo *d, mm_err *err)
{
    static const char *const HEADERS[] = {"run",  "number right", "95 %",    "language", "95 %",
                                          "name", "95 %",         "prefers", "95 %"};
    mm_table *table = NULL;
    mm_store *store = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&store, d->context.db_path, MM_STORE_READ, err));
    MM_GO(mm_table_new(&table, HEADERS, sizeof HEADERS / sizeof HEADERS[0], err));
    mm_table_indent(table, 2);
    for (int i = 0; i < N_RUNS; i++)
        MM_GO(add_scores(table, store, RUNS[i], err));
    mm_table_print(table, &d->context);
    mm_out_flush();
    mm_say(&d->context, "  Shares of held-out questions, with Wilson's 95 %% interval: the sum is "
                        "right; the answer");
    mm_say(&d->context, "  is in the question's language; it holds the name; of two answers the "
                        "better one is the likelier.");
done:
    mm_store_close(store);
    return status;
}

// How many pairs DPO moved, which says more than how many it turned: a long bad answer is the
// unlikelier one before any training.
static mm_status say_moved(const demo *d, mm_err *err)
{
    mm_arena arena = {0};
    mm_store *store = NULL;
    mm_result *results = NULL;
    size_t n = 0;
    int64_t id = 0;
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&store, d->context.db_path, MM_STORE_READ, err));
    MM_GO(mm_store_resolve_run(store, DPO, &id, err));
    MM_GO(mm_store_results(store, id, &arena, &results, &n, err));
    const mm_result *share = find_share(results, n, "preference", "preference_accuracy");
    if (share)
        mm_say(
            &d->context,
            "  Beside demo-sft, %.0f %% (%.0f-%.0f) of the pairs moved towards the better answer.",
            100 * share->value, 100 * share->low, 100 * share->high);
done:
    mm_store_close(store);
    mm_arena_drop(&arena);
    return status;
}

static void add_eval(command *c, demo *d, const char *const *runs)
{
    ADD(c, "--db", d->context.db_path, "eval");
    add_words(c, runs);
    ADD(c, "--cache", d->cache, "--threads", d->threads);
}

// Held-out questions to each run: before and after every stage. Only shares are shown; the answers
// are in the report.
static mm_status ask_all(demo *d, mm_err *err)
{
    command sums = {0};
    command names = {0};
    command moved = {0};
    const char *pairs = data_file(d, "preference", "_val");
    add_eval(&sums, d, RUNS);
    ADD(&sums, "--data", pairs, "--reference", "none", "--seq-len", "256", "--limit", "200");
    ADD(&sums, "--prompts", data_file(d, "arithmetic", "_val"), "--match", "number");
    ADD(&sums, "--max-new-tokens", "32");
    add_eval(&names, d, RUNS);
    ADD(&names, "--prompts", data_file(d, "persona", "_val"), "--match", "contains");
    ADD(&names, "--max-new-tokens", "32", "--no-loss");
    add_eval(&moved, d, (const char *const[]){DPO, NULL});
    ADD(&moved, "--data", pairs, "--seq-len", "256", "--limit", "200");
    heading(d, "Before and after: the same held-out questions to each of them, answered greedily");
    MM_TRY(run_to(d, sums.words, MM_CHILD_TO_NOWHERE, err));
    MM_TRY(run_to(d, names.words, MM_CHILD_TO_NOWHERE, err));
    MM_TRY(run_to(d, moved.words, MM_CHILD_TO_NOWHERE, err));
    MM_TRY(print_scores(d, err));
    return say_moved(d, err);
}

static mm_status report(demo *d, const char *path, mm_err *err)
{
    const char *const arguments[] = {"--db", d->context.db_path, "report", "--all", "-o", path,
                                     NULL};
    heading(d, "The report");
    return run(d, arguments, err);
}

static mm_status tell_story(demo *d, mm_err *err)
{
    d->data_dir = in_dir(d, "data");
    d->tokenizer = in_dir(d, "tokenizer");
    d->cache = in_dir(d, "cache");
    const char *page = in_dir(d, "report.html");
    char seconds[MM_TIME_ISO_BYTES];
    const int64_t start = mm_mono_ns();
    MM_TRY(make_data(d, err));
    MM_TRY(make_tokenizer(d, err));
    MM_TRY(pretrain(d, err));
    MM_TRY(sweep(d, err));
    MM_TRY(teach_answers(d, err));
    MM_TRY(teach_persona(d, err));
    MM_TRY(teach_preference(d, err));
    MM_TRY(ask_all(d, err));
    MM_TRY(report(d, page, err));
    mm_duration_text((double)(mm_mono_ns() - start) / 1e9, seconds);
    mm_say(&d->context, " ");
    mm_say(&d->context, "Done in %s. Everything is in %s:", seconds, d->dir);
    mm_say(&d->context, "  open the report       %s", page);
    mm_say(&d->context,
           "  ask the database      sqlite3 %s 'SELECT name, status, best_val_loss FROM runs'",
           d->context.db_path);
    mm_say(&d->context, "  let it write          mmrun --db %s generate demo 'Once upon a time'",
           d->context.db_path);
    mm_say(&d->context, "  talk to it            mmrun --db %s chat demo-persona",
           d->context.db_path);
    mm_out("%s\n", page);
    return MM_OK;
}

mm_status mm_cmd_demo(const mm_context *context, const mm_args *args, mm_err *err)
{
    demo d = {.context = *context};
    mm_status status = MM_OK;
    const char *dir = mm_args_text(args, "out");
    d.dir = dir ? dir : "mmrun-demo";
    d.steps = mm_args_int(args, "steps", DEFAULT_STEPS);
    d.threads = mm_args_has(args, "threads") ? mm_args_text(args, "threads") : "0";
    const char *db = in_dir(&d, "demo.db");
    if (mm_file_exists(db)) {
        status = MM_FAIL(err, MM_EEXISTS,
                         "%s: a demo has been here\nrm -r %s, or give another folder with --out",
                         db, d.dir);
        goto done;
    }
    d.context.db_path = db;
    mm_signals_install();
    MM_GO(mm_dir_make(d.dir, err));
    MM_GO(tell_story(&d, err));
done:
    mm_arena_drop(&d.arena);
    return status;
}
