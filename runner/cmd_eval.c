/* mmrun eval: score a checkpoint on text and let it answer prompts. */
#include "runner/commands.h"
#include "runner/corpus.h"
#include "runner/load.h"
#include "runner/sample.h"
#include "runner/score.h"

#include "core/base/file.h"
#include "core/base/utf8.h"

#include <inttypes.h>
#include <string.h>

enum { PROMPT_FILE_BYTES = 16 << 20 };

const mm_option mm_eval_options[] = {
    {.name = "data",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .repeats = true,
     .help = "text to score (none: what the run held out)"},
    {.name = "limit",
     .type = MM_OPTION_INT,
     .value = "ROWS",
     .min = 1,
     .max = 1e12,
     .help = "score only the first rows"},
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
    {.name = "prompts",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .help = "prompts to answer, one per line"},
    {.name = "max-new-tokens",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1000000,
     .help = "length of an answer (64)"},
    {.name = "temperature",
     .type = MM_OPTION_REAL,
     .value = "X",
     .min = 0,
     .max = 100,
     .help = "0: greedy (0.85)"},
    {.name = "cache", .type = MM_OPTION_PATH, .value = "DIR", .help = "folder of the token caches"},
    {.name = "dtype",
     .type = MM_OPTION_CHOICE,
     .value = "fp32|bf16",
     .choices = "fp32,bf16",
     .help = "precision of products and activations (the run's)"},
    {.name = "threads",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1024,
     .help = "worker threads (all)"},
    {0},
};

// What the run held out: its val file, or the held-out rows of its training files.
static mm_status recorded_files(mm_store *store, mm_loaded *loaded, mm_corpus_spec *spec,
                                mm_err *err)
{
    mm_dataset *datasets = NULL;
    size_t n = 0;
    MM_TRY(mm_store_datasets(store, loaded->run.id, &loaded->arena, &datasets, &n, err));
    const char **paths = mm_arena_alloc(&loaded->arena, (n + 1) * sizeof *paths);
    if (!paths) return MM_FAIL(err, MM_ENOMEM, "no memory for the list of files");
    for (size_t i = 0; i < n; i++) {
        if (strcmp(datasets[i].role, "val") == 0) spec->val = datasets[i].path;
        if (strcmp(datasets[i].role, "train") == 0) paths[spec->n_train++] = datasets[i].path;
    }
    spec->train = paths;
    if (spec->n_train > 0) return MM_OK;
    return MM_FAIL(err, MM_EUSAGE, "run '%s' has no data on record\nmmrun eval %s --data FILE",
                   loaded->run.name, loaded->run.name);
}

static mm_status open_batcher(const mm_context *context, const mm_args *args, mm_store *store,
                              mm_loaded *loaded, mm_corpus *corpus, mm_batcher **out, mm_err *err)
{
    mm_corpus_spec spec = {.cache_dir = mm_args_text(args, "cache")};
    mm_param *params = NULL;
    size_t n = 0;
    const char *pack = mm_args_text(args, "pack");
    MM_TRY(mm_store_params(store, loaded->run.id, &loaded->arena, &params, &n, err));
    spec.tokenizer_hash = mm_param_find(params, n, "tokenizer_hash");
    spec.train = mm_args_list(args, "data", &spec.n_train);
    const bool is_given = spec.n_train > 0;
    if (!is_given) MM_TRY(recorded_files(store, loaded, &spec, err));
    if (pack) MM_TRY(mm_config_set(loaded->config, "pack", pack, "command line", err));
    if (mm_args_has(args, "seq-len"))
        MM_TRY(mm_config_set(loaded->config, "max_seq_len", mm_args_text(args, "seq-len"),
                             "command line", err));
    MM_TRY(mm_corpus_open(corpus, context, store, &spec, loaded->config, err));
    const bool is_split = !is_given && !corpus->val;
    const mm_batcher_options options = {
        .batch_size = (int32_t)mm_config_int(loaded->config, "batch_size"),
        .seq_len = (int32_t)mm_config_int(loaded->config, "max_seq_len"),
        .mode = mm_config_bool(loaded->config, "pack") ? MM_BATCH_PACKED : MM_BATCH_PADDED,
        .seed = loaded->run.seed,
        .split = is_split ? MM_SPLIT_VAL : MM_SPLIT_ALL,
        .val_fraction = is_split ? mm_config_real(loaded->config, "val_fraction") : 0,
        .max_documents = mm_args_int(args, "limit", 0)};
    mm_token_cache *const *caches = corpus->val ? &corpus->val : corpus->train;
    const mm_status status = mm_batcher_new(out, caches, corpus->val ? 1 : corpus->n_train,
                                            corpus->tokenizer, &options, err);
    if (status != MM_EFORMAT || !is_split) return status;
    return MM_FAIL(err, MM_EUSAGE, "run '%s' held nothing out\nmmrun eval %s --data FILE",
                   loaded->run.name, loaded->run.name);
}

static mm_status score(const mm_context *context, const mm_args *args, mm_store *store,
                       mm_loaded *loaded, mm_score *out, mm_err *err)
{
    mm_corpus corpus = {0};
    mm_batcher *batcher = NULL;
    mm_engine *engine = NULL;
    mm_progress *progress = NULL;
    mm_status status = MM_OK;
    MM_GO(open_batcher(context, args, store, loaded, &corpus, &batcher, err));
    const mm_engine_options options = {
        .max_tokens = (int32_t)(mm_config_int(loaded->config, "batch_size") *
                                mm_config_int(loaded->config, "max_seq_len")),
        .threads = (int32_t)mm_args_int(args, "threads", 0),
        .bf16 = mm_loaded_dtype(loaded, mm_args_text(args, "dtype")) == MM_BF16};
    MM_GO(mm_engine_new(&engine, loaded->model, &options, err));
    MM_GO(mm_progress_new(&progress, context, "eval", err));
    MM_GO(mm_score_batches(engine, batcher, corpus.tokenizer, progress, out, err));
done:
    mm_progress_end(progress);
    mm_engine_free(engine);
    mm_batcher_free(batcher);
    mm_corpus_close(&corpus);
    return status;
}

// The lines of a file with their prompts; empty lines are none.
static mm_status split_prompts(char *lines, const char *path, mm_sample *samples, size_t *n,
                               mm_err *err)
{
    int line_number = 0;
    *n = 0;
    for (char *line = lines; line && *line;) {
        char *newline = strchr(line, '\n');
        line_number++;
        if (newline) *newline = '\0';
        line[strcspn(line, "\r")] = '\0';
        if (mm_utf8_valid(line, strlen(line)) != strlen(line))
            return MM_FAIL(err, MM_EFORMAT, "%s line %d: not valid UTF-8", path, line_number);
        if (*line) samples[(*n)++].prompt = line;
        line = newline ? newline + 1 : NULL;
    }
    return MM_OK;
}

static size_t count_lines(const char *text)
{
    size_t n = 1;
    for (const char *at = strchr(text, '\n'); at; at = strchr(at + 1, '\n'))
        n++;
    return n;
}

static void show_answer(const mm_sample *sample)
{
    mm_str shown = {0};
    mm_utf8_add_printable(&shown, sample->prompt, strlen(sample->prompt));
    mm_str_add(&shown, " → ");
    mm_utf8_add_printable(&shown, mm_str_text(&sample->text), sample->text.length);
    mm_str_add_char(&shown, '\n');
    mm_out_text(&shown);
    mm_str_drop(&shown);
}

// Records and shows answers [first, first + n) of all.
static mm_status keep_answers(const mm_context *context, mm_store *store, const mm_loaded *loaded,
                              const mm_sampling *sampling, const mm_sample *samples, size_t first,
                              size_t n, json_t *answers, mm_err *err)
{
    for (size_t i = 0; i < n; i++) {
        const mm_sample *sample = &samples[i];
        MM_TRY(mm_sample_record(store, loaded->run.id, loaded->checkpoint.step,
                                (int32_t)(first + i), sample->prompt, &sample->text, sampling,
                                &sample->generation, err));
        if (!context->json) show_answer(sample);
        json_array_append_new(answers, json_pack("{s:s,s:s,s:i,s:s}", "prompt", sample->prompt,
                                                 "text", mm_str_text(&sample->text), "tokens",
                                                 sample->generation.n_tokens, "finish_reason",
                                                 mm_finish_text(sample->generation.finish)));
    }
    return MM_OK;
}

static mm_status answer(const mm_context *context, const mm_args *args, mm_store *store,
                        mm_loaded *loaded, json_t *answers, mm_err *err)
{
    enum { PROMPTS_AT_A_TIME = 256 }; // recorded together
    const char *path = mm_args_text(args, "prompts");
    char *lines = NULL;
    size_t bytes = 0;
    size_t n = 0;
    mm_generator *generator = NULL;
    mm_sample *samples = NULL;
    mm_status status = MM_OK;
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = (int32_t)mm_args_int(args, "max-new-tokens", 64);
    sampling.temperature = mm_args_real(args, "temperature", sampling.temperature);
    sampling.seed = loaded->run.seed;
    const int32_t room =
        (int32_t)mm_config_int(loaded->config, "max_seq_len") + sampling.max_new_tokens;
    MM_GO(mm_file_read(path, PROMPT_FILE_BYTES, &lines, &bytes, err));
    samples = mm_calloc(count_lines(lines), sizeof *samples);
    if (!samples) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory for its lines", path);
        goto done;
    }
    MM_GO(split_prompts(lines, path, samples, &n, err));
    MM_GO(mm_sample_generator(&generator, loaded->model, n, room,
                              (int32_t)mm_args_int(args, "threads", 0),
                              mm_loaded_dtype(loaded, mm_args_text(args, "dtype")), err));
    for (size_t first = 0; first < n; first += PROMPTS_AT_A_TIME) {
        const size_t count = n - first < PROMPTS_AT_A_TIME ? n - first : PROMPTS_AT_A_TIME;
        MM_GO(mm_sample_texts(generator, room, loaded->tokenizer,
                              mm_sample_style_of(loaded->run.stage), samples + first, count,
                              &sampling, err));
        MM_GO(keep_answers(context, store, loaded, &sampling, samples + first, first, count,
                           answers, err));
    }
done:
    for (size_t i = 0; i < n; i++)
        mm_str_drop(&samples[i].text);
    mm_free(samples);
    mm_generator_free(generator);
    mm_free(lines);
    return status;
}

static void print_score(const mm_context *context, const mm_loaded *loaded, const mm_score *score,
                        json_t *answers)
{
    if (!context->json) {
        mm_out("%s@%" PRId64 ": val_loss %.6f  perplexity %.*g  bits per byte %.4f  tokens %" PRId64
               "\n",
               loaded->run.name, loaded->checkpoint.step, score->loss,
               score->perplexity < 1e6 ? 8 : 4, score->perplexity, score->bits_per_byte,
               score->tokens);
        return;
    }
    // A model that has gone astray has a perplexity beyond all numbers: each may be not finite.
    json_t *out =
        json_pack("{s:I,s:s,s:I,s:o,s:o,s:o,s:I,s:I,s:O}", "run_id", (json_int_t)loaded->run.id,
                  "run", loaded->run.name, "step", (json_int_t)loaded->checkpoint.step, "val_loss",
                  mm_json_of_real(score->loss), "perplexity", mm_json_of_real(score->perplexity),
                  "bpb", mm_json_of_real(score->bits_per_byte), "tokens", (json_int_t)score->tokens,
                  "bytes", (json_int_t)score->bytes, "generations", answers);
    mm_out_json(out);
    json_decref(out);
}

mm_status mm_cmd_eval(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_loaded loaded = {0};
    mm_score result = {0};
    json_t *answers = json_array();
    mm_status status = MM_OK;
    // Only answers are recorded; scoring alone also works on a database that cannot be written.
    const bool writes = mm_args_has(args, "prompts");
    MM_GO(mm_context_store(context, writes ? MM_STORE_WRITE : MM_STORE_READ, &store, err));
    MM_GO(mm_load_run(&loaded, store, mm_args_at(args, 0), err));
    MM_GO(score(context, args, store, &loaded, &result, err));
    if (writes) MM_GO(answer(context, args, store, &loaded, answers, err));
    print_score(context, &loaded, &result, answers);
done:
    json_decref(answers);
    mm_loaded_drop(&loaded);
    mm_store_close(store);
    return status;
}
