/* mmrun bench: how fast this machine trains, generates and tokenizes, beside what it could do.
 *
 * Every number stands between two probes of the machine. Nothing is recorded: no database is
 * opened, and self-made text lives in a folder that is gone before the first step. */
#include "runner/bench.h"
#include "runner/commands.h"

#include "core/base/file.h"
#include "core/data/synth.h"
#include "core/nn/pool.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 5, PROBE_MS = 150, SYNTH_ROWS = 4000, ROWS_MAX = 1024, TOKENS_MAX = 32768 };

// clang-format off
#define ROUNDS_OPTION                                                                              \
    {.name = "rounds", .type = MM_OPTION_INT, .value = "N", .min = 1, .max = MM_BENCH_ROUNDS_MAX,   \
     .group = "Measurement", .help = "counted rounds, after one to warm up (5)"}
// clang-format on

const mm_option mm_bench_train_options[] = {
    ROUNDS_OPTION,
    {.name = "data",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .repeats = true,
     .group = "Measurement",
     .help = "text to train on (none: self-made)"},
    {.name = "tokenizer",
     .type = MM_OPTION_PATH,
     .value = "PATH",
     .group = "Measurement",
     .help = "tokenizer.json or its folder (none: one is trained on the text)"},
    {.name = "cache",
     .type = MM_OPTION_PATH,
     .value = "DIR",
     .group = "Measurement",
     .help = "folder of the token caches ($MMRUN_CACHE, ~/.cache/mmrun)"},
    {0},
};

const mm_option mm_bench_generate_options[] = {
    ROUNDS_OPTION,
    {.name = "rows",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = ROWS_MAX,
     .group = "Measurement",
     .help = "prompts answered together (1)"},
    {.name = "prompt-tokens",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = TOKENS_MAX,
     .group = "Measurement",
     .help = "length of each prompt (64)"},
    {.name = "new-tokens",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 2, // the first one ends the prefill
     .max = TOKENS_MAX,
     .group = "Measurement",
     .help = "length of each answer (128)"},
    {0},
};

const mm_option mm_bench_tokenizer_options[] = {
    {.name = "data",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .help = "text to encode and to learn from, in any row shape"},
    {.name = "tokenizer",
     .aliases = "t",
     .type = MM_OPTION_PATH,
     .value = "PATH|RUN",
     .help = "tokenizer.json, a folder with one, or a run"},
    {0},
};

// ---- probes
// --------------------------------------------------------------------------------------

static void keep_higher(double *best, double value)
{
    if (value > *best) *best = value;
}

void mm_bench_probe_flops(mm_bench_probe *probe)
{
    keep_higher(&probe->fp32_flops, mm_engine_probe_flops(MM_F32, probe->threads, PROBE_MS));
    keep_higher(&probe->bf16_flops, mm_engine_probe_flops(MM_BF16, probe->threads, PROBE_MS));
}

void mm_bench_probe_memory(mm_bench_probe *probe)
{
    keep_higher(&probe->read_bytes, mm_engine_probe_bandwidth(probe->threads, PROBE_MS));
    keep_higher(&probe->read_bytes, mm_engine_probe_bandwidth(probe->threads, PROBE_MS));
}

double mm_bench_probe_peak(const mm_bench_probe *probe, mm_dtype dtype)
{
    return dtype == MM_BF16 ? probe->bf16_flops : probe->fp32_flops;
}

static json_t *json_of_probe(const mm_bench_probe *probe)
{
    return json_pack("{s:o, s:o, s:o}", "fp32_gflops", mm_json_of_real(probe->fp32_flops * 1e-9),
                     "bf16_gflops", mm_json_of_real(probe->bf16_flops * 1e-9), "read_gbs",
                     probe->read_bytes > 0 ? mm_json_of_real(probe->read_bytes * 1e-9)
                                           : json_null());
}

// ---- what is measured
// ----------------------------------------------------------------------------

// A model that is done within a minute on any machine, unless one is asked for.
static mm_status configure(const mm_args *args, mm_config **config, mm_err *err)
{
    static const char ORIGIN[] = "bench";
    MM_TRY(mm_config_new(config, "pretrain", err));
    MM_TRY(mm_config_set(*config, "max_seq_len", "512", ORIGIN, err));
    MM_TRY(mm_config_set(*config, "val_fraction", "0", ORIGIN, err));
    if (!mm_args_has(args, "preset") && !mm_args_has(args, "hidden") &&
        !mm_args_has(args, "layers")) {
        MM_TRY(mm_config_set(*config, "hidden_size", "256", ORIGIN, err));
        MM_TRY(mm_config_set(*config, "num_hidden_layers", "4", ORIGIN, err));
    }
    MM_TRY(mm_config_from_args(*config, args, false, err));
    mm_config_dtype(*config);
    if (strcmp(mm_config_text(*config, "device"), "cpu") != 0)
        return MM_FAIL(err, MM_ECONFIG,
                       "--device cuda: this build has no CUDA backend; use --device cpu");
    return MM_OK;
}

// Files of one folder, then the folder: nothing of a measurement stays.
static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        if (entry->d_name[0] != '.') unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(path);
}

static mm_status open_synthetic(mm_corpus *corpus, const mm_context *context, const mm_args *args,
                                const mm_config *config, mm_err *err)
{
    const char *base = getenv("TMPDIR");
    char folder[1024];
    char file[1100];
    const int length =
        snprintf(folder, sizeof folder, "%s/mmrun-bench-XXXXXX", base && *base ? base : P_tmpdir);
    if (length < 0 || (size_t)length >= sizeof folder)
        return MM_FAIL(err, MM_ELIMIT, "TMPDIR: a path of at most 1,000 bytes is expected");
    if (!mkdtemp(folder)) return MM_FAIL_ERRNO(err, "%s: cannot make a folder", folder);
    snprintf(file, sizeof file, "%s/text.jsonl", folder);
    const mm_synth_options options = {.kind = MM_SYNTH_PRETRAIN, .seed = 42, .rows = SYNTH_ROWS};
    const char *const files[] = {file};
    const mm_corpus_spec spec = {.train = files,
                                 .n_train = 1,
                                 .tokenizer = mm_args_text(args, "tokenizer"),
                                 .cache_dir = folder};
    // What it says of files would name a folder that is gone by then.
    mm_context calm = *context;
    calm.quiet = true;
    calm.progress = MM_PROGRESS_NONE;
    mm_status status = mm_synth_file(&options, file, err);
    if (status == MM_OK) status = mm_corpus_open(corpus, &calm, NULL, &spec, config, err);
    // The cache is mapped by now.
    remove_folder(folder);
    return status;
}

static mm_status open_corpus(mm_corpus *corpus, const mm_context *context, const mm_args *args,
                             const mm_config *config, mm_err *err)
{
    mm_corpus_spec spec = {.tokenizer = mm_args_text(args, "tokenizer"),
                           .cache_dir = mm_args_text(args, "cache")};
    spec.train = mm_args_list(args, "data", &spec.n_train);
    if (spec.n_train > 0) return mm_corpus_open(corpus, context, NULL, &spec, config, err);
    return open_synthetic(corpus, context, args, config, err);
}

// ---- output
// --------------------------------------------------------------------------------------

static void print_probe(const mm_bench_probe *probe, mm_dtype dtype)
{
    mm_out("%s on %s, %d thread%s. Peaks: fp32 %.1f GFLOP/s (%s), bf16 %.1f GFLOP/s (%s)",
           dtype == MM_BF16 ? "bf16" : "fp32", mm_engine_isa(dtype), (int)probe->threads,
           probe->threads == 1 ? "" : "s", probe->fp32_flops * 1e-9, mm_engine_isa(MM_F32),
           probe->bf16_flops * 1e-9, mm_engine_isa(MM_BF16));
    if (probe->read_bytes > 0) mm_out(", memory %.1f GB/s", probe->read_bytes * 1e-9);
    mm_out(".\n");
}

static void print_json(const mm_bench_probe *probe, mm_dtype dtype, const char *const *names,
                       json_t *const *parts, size_t n)
{
    json_t *object = json_pack("{s:s, s:s, s:i, s:o}", "isa", mm_engine_isa(dtype), "dtype",
                               dtype == MM_BF16 ? "bf16" : "fp32", "threads", (int)probe->threads,
                               "probe", json_of_probe(probe));
    for (size_t i = 0; i < n; i++)
        json_object_set_new(object, names[i], parts[i]);
    mm_out_json(object);
    json_decref(object);
}

static mm_bench_probe probe_of(const mm_config *config)
{
    mm_bench_probe probe = {.threads = (int32_t)mm_config_int(config, "threads")};
    if (probe.threads == 0) probe.threads = mm_cpu_count();
    mm_bench_probe_flops(&probe);
    return probe;
}

static mm_bench_decode decode_of(const mm_args *args)
{
    return (mm_bench_decode){.rows = (int32_t)mm_args_int(args, "rows", 1),
                             .prompt_tokens = (int32_t)mm_args_int(args, "prompt-tokens", 64),
                             .new_tokens = (int32_t)mm_args_int(args, "new-tokens", 128),
                             .rounds = (int32_t)mm_args_int(args, "rounds", ROUNDS)};
}

static mm_status run(const mm_context *context, const mm_args *args, bool trains, bool generates,
                     mm_err *err)
{
    static const char *const NAMES[] = {"train", "generate"};
    mm_status status = MM_OK;
    mm_config *config = NULL;
    mm_corpus corpus = {0};
    json_t *parts[2] = {NULL, NULL};
    const mm_bench_decode size = decode_of(args);
    MM_GO(configure(args, &config, err));
    const mm_dtype dtype = mm_config_dtype(config);
    if (trains) MM_GO(open_corpus(&corpus, context, args, config, err));
    mm_bench_probe probe = probe_of(config);
    if (!context->json) print_probe(&probe, dtype);
    if (trains)
        MM_GO(mm_bench_train(context, &corpus, config, (int32_t)mm_args_int(args, "rounds", ROUNDS),
                             &probe, context->json ? &parts[0] : NULL, err));
    if (generates)
        MM_GO(mm_bench_generate(context, config, &size, &probe, context->json ? &parts[1] : NULL,
                                err));
    if (context->json)
        print_json(&probe, dtype, trains ? NAMES : NAMES + 1, trains ? parts : parts + 1,
                   trains && generates ? 2 : 1);
    parts[0] = parts[1] = NULL;
done:
    json_decref(parts[0]);
    json_decref(parts[1]);
    mm_corpus_close(&corpus);
    mm_config_free(config);
    return status;
}

mm_status mm_cmd_bench(const mm_context *context, const mm_args *args, mm_err *err)
{
    return run(context, args, true, true, err);
}

mm_status mm_cmd_bench_train(const mm_context *context, const mm_args *args, mm_err *err)
{
    return run(context, args, true, false, err);
}

mm_status mm_cmd_bench_generate(const mm_context *context, const mm_args *args, mm_err *err)
{
    return run(context, args, false, true, err);
}

mm_status mm_cmd_bench_tokenizer(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_tokenizer *tokenizer = NULL;
    json_t *part = NULL;
    mm_status status = MM_OK;
    const char *path = mm_args_text(args, "data");
    const char *named = mm_args_text(args, "tokenizer");
    if (!path || !named)
        return MM_FAIL(err, MM_EUSAGE,
                       "`mmrun bench tokenizer` needs --data FILE and --tokenizer PATH\n"
                       "`mmrun data synth` and `mmrun tokenizer train` make them");
    mm_bench_probe probe = {.threads = 1};
    MM_GO(mm_context_tokenizer(context, named, &tokenizer, err));
    mm_bench_probe_flops(&probe);
    MM_GO(mm_bench_tokenizer(context, path, tokenizer, &probe, context->json ? &part : NULL, err));
    if (context->json) {
        static const char *const NAMES[] = {"tokenizer"};
        print_json(&probe, MM_F32, NAMES, &part, 1);
    }
done:
    mm_tokenizer_free(tokenizer);
    return status;
}
