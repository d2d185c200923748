/* mmrun demo: the whole story offline in under two minutes. Self-made data, a tokenizer, a training
 * that is killed in the middle and resumed, a sweep, the report. Every part is the command a user
 * would type, run as a process of its own; nothing here is special to the demo. */
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
     .help = "steps of the main run (300)"},
    {.name = "threads",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1024,
     .help = "worker threads (all)"},
    {0},
};

enum { ARGUMENTS_MAX = 48, PARTS = 7 };

typedef struct demo {
    mm_context context; // with the demo's own database
    mm_arena arena;
    const char *dir;
    const char *data_dir;
    const char *data;
    const char *val;
    const char *tokenizer;
    const char *cache;
    const char *steps;
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

static mm_status run(const demo *d, const char *const *arguments, mm_err *err)
{
    pid_t pid = 0;
    int code = 0;
    say_command(d, arguments);
    MM_TRY(mm_child_start(&d->context, arguments, true, &pid, err));
    MM_TRY(mm_child_wait(pid, &code, err));
    if (mm_signals_stop() != 0)
        return MM_FAIL(err, MM_ECANCELED, "the demo was stopped; %s keeps what it made", d->dir);
    if (code == 0) return MM_OK;
    return MM_FAIL(err, MM_EIO, "mmrun %s ended with exit code %d", arguments[0], code);
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
    MM_TRY(mm_child_start(&d->context, arguments, true, &pid, err));
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
    const char *const arguments[] = {"data",     "synth",  "--out", d->data_dir, "--kind",
                                     "pretrain", "--rows", "8000",  NULL};
    heading(d, "Self-made data: bilingual stories and arithmetic");
    return run(d, arguments, err);
}

static mm_status make_tokenizer(demo *d, mm_err *err)
{
    const char *const arguments[] = {"tokenizer", "train", "--data",     d->data, "--vocab",
                                     "2048",      "-o",    d->tokenizer, NULL};
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

// What both trainings share: the data, the shape but for the width, the questions asked.
static void add_training(command *c, const demo *d, const char *stage, const char *name)
{
    ADD(c, "--db", d->context.db_path, stage, "--name", name);
    ADD(c, "--data", d->data, "--val", d->val, "--tokenizer", d->tokenizer, "--cache", d->cache);
    ADD(c, "--heads", "4", "--kv-heads", "2", "--batch", "8", "--seq-len", "256");
    ADD(c, "--lr", "2e-3", "--threads", d->threads, "--gen-tokens", "40");
    ADD(c, "--prompt", "Once upon a time", "--prompt", "从前", "--prompt", "3+4=");
}

static mm_status pretrain(demo *d, mm_err *err)
{
    command training = {0};
    add_training(&training, d, "pretrain", "demo");
    ADD(&training, "--hidden", "128", "--layers", "4", "--warmup", "10", "--steps", d->steps);
    heading(d, "Pretraining a small model, until somebody pulls the plug");
    MM_TRY(train_and_kill(d, training.words, strtoll(d->steps, NULL, 10) / 2, err));
    const char *const list[] = {"--db", d->context.db_path, "runs", NULL};
    MM_TRY(run(d, list, err));
    const char *const resume[] = {"--db",    d->context.db_path, "resume", "demo",
                                  "--cache", d->cache,           NULL};
    heading(d, "Resume: the same losses, bit for bit, as if nothing had happened");
    MM_TRY(run(d, resume, err));
    return compare_bits(d, err);
}

static mm_status sweep(demo *d, mm_err *err)
{
    command training = {0};
    add_training(&training, d, "sweep", "width");
    ADD(&training, "--hidden", "64,96", "--layers", "2", "--steps", "60");
    heading(d, "A sweep over two widths");
    return run(d, training.words, err);
}

static mm_status speak(demo *d, mm_err *err)
{
    const char *const arguments[] = {
        "--db", d->context.db_path, "generate", "demo", "从前", "--max-new-tokens",
        "60",   "--temperature",    "0.7",      NULL};
    heading(d, "What it has learned to say");
    return run(d, arguments, err);
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
    d->data = in_dir(d, "data/pretrain.jsonl");
    d->val = in_dir(d, "data/pretrain_val.jsonl");
    d->tokenizer = in_dir(d, "tokenizer");
    d->cache = in_dir(d, "cache");
    const char *page = in_dir(d, "report.html");
    char seconds[MM_TIME_ISO_BYTES];
    const int64_t start = mm_mono_ns();
    MM_TRY(make_data(d, err));
    MM_TRY(make_tokenizer(d, err));
    MM_TRY(pretrain(d, err));
    MM_TRY(sweep(d, err));
    MM_TRY(speak(d, err));
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
    mm_out("%s\n", page);
    return MM_OK;
}

mm_status mm_cmd_demo(const mm_context *context, const mm_args *args, mm_err *err)
{
    demo d = {.context = *context};
    mm_status status = MM_OK;
    const char *dir = mm_args_text(args, "out");
    d.dir = dir ? dir : "mmrun-demo";
    d.steps = mm_args_has(args, "steps") ? mm_args_text(args, "steps") : "300";
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
