/* mmrun eval: loss of what a run held out or of given files, and how it prefers pairs. */
#include "runner/corpus.h"
#include "runner/eval_parts.h"
#include "runner/score.h"

#include "core/nn/pool.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PASS_TOKENS = 2048, PASS_ROWS = 64, ROWS_MAX = 1000000000 };

// What is scored: files that were given, or what the run held out.
typedef struct held_out {
    mm_corpus corpus; // of the run's record
    mm_token_cache *given[MM_CORPUS_FILES_MAX];
    size_t n_given;
    mm_batcher *batcher;
    bool is_pairs;
    const char *task;
    const char *sha256; // of a single file, else NULL
} held_out;

static void drop_held_out(held_out *data)
{
    mm_batcher_free(data->batcher);
    for (size_t i = 0; i < data->n_given; i++)
        mm_token_cache_close(data->given[i]);
    mm_corpus_close(&data->corpus);
}

/* ---- given files -------------------------------------------------------------------------------
 */

typedef enum file_kind { FILE_TEXT, FILE_CHAT, FILE_PAIRS } file_kind;

static mm_status find_kind(const mm_eval *eval, const char *path, mm_row_format *format,
                           file_kind *kind, mm_err *err)
{
    mm_row_reader *reader = NULL;
    mm_row_format of_run = MM_ROWS_AUTO;
    MM_TRY(mm_row_format_parse(mm_config_text(eval->loaded.config, "row_format"), &of_run, err));
    MM_TRY(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, err));
    *format = mm_row_reader_report(reader)->format;
    mm_row_reader_close(reader);
    // Plain text is cut into rows as the run cut its own.
    const bool is_plain = *format == MM_ROWS_LINES || *format == MM_ROWS_JOINED;
    if (is_plain && (of_run == MM_ROWS_LINES || of_run == MM_ROWS_JOINED)) *format = of_run;
    const bool is_pairs = *format == MM_ROWS_PREFERENCE || *format == MM_ROWS_TRIPLE;
    *kind = is_pairs ? FILE_PAIRS : is_plain || *format == MM_ROWS_TEXT ? FILE_TEXT : FILE_CHAT;
    return MM_OK;
}

// --mask, or as the run learned; a run that learned all of a conversation is scored on answers.
static mm_status mask_of(const mm_eval *eval, mm_mask_kind *mask, mm_err *err)
{
    const char *given = mm_args_text(eval->args, "mask");
    const char *of_run = mm_config_text(eval->loaded.config, "mask");
    *mask = MM_MASK_ANSWERS;
    if (given || *of_run) MM_TRY(mm_mask_kind_parse(given ? given : of_run, mask, err));
    return MM_OK;
}

static bool show_bytes(void *context, uint64_t done, uint64_t total)
{
    mm_progress_count(context, done, total, "bytes");
    return true;
}

static mm_status open_cache(const mm_eval *eval, const char *path, mm_row_format format,
                            bool is_pairs, mm_token_cache **out, mm_err *err)
{
    mm_progress *progress = NULL;
    const int32_t threads = (int32_t)mm_args_int(eval->args, "threads", 0);
    mm_cache_options options = {.path = path,
                                .dir = mm_args_text(eval->args, "cache"),
                                .format = format,
                                .pairs = is_pairs,
                                .skip_bad_rows = mm_eval_skips_bad(eval),
                                .threads = threads > 0 ? threads : mm_cpu_count(),
                                .progress = show_bytes};
    MM_TRY(mask_of(eval, &options.mask, err));
    MM_TRY(mm_progress_new(&progress, eval->context, "tokenize", err));
    options.context = progress;
    const mm_status status = mm_token_cache_open(out, &options, eval->loaded.tokenizer, err);
    mm_progress_end(progress);
    if (status == MM_OK && mm_token_cache_info(*out)->bad_rows > 0)
        mm_warn(eval->context, "%s: %" PRId64 " bad rows were skipped.", path,
                mm_token_cache_info(*out)->bad_rows);
    return status;
}

static mm_status open_given(const mm_eval *eval, held_out *data, const char *const *paths, size_t n,
                            mm_err *err)
{
    const mm_config *config = eval->loaded.config;
    file_kind kind = FILE_TEXT;
    if (n > MM_CORPUS_FILES_MAX)
        return MM_FAIL(err, MM_EUSAGE, "--data: at most %d files, found %zu", MM_CORPUS_FILES_MAX,
                       n);
    for (size_t i = 0; i < n; i++) {
        mm_row_format format;
        file_kind of_file;
        MM_TRY(find_kind(eval, paths[i], &format, &of_file, err));
        if (i > 0 && of_file != kind)
            return MM_FAIL(err, MM_EUSAGE,
                           "%s: texts, conversations and pairs are scored apart from each other",
                           paths[i]);
        kind = of_file;
        MM_TRY(open_cache(eval, paths[i], format, kind == FILE_PAIRS, &data->given[i], err));
        data->n_given++;
    }
    const int32_t seq_len = (int32_t)mm_config_int(config, "max_seq_len");
    const int32_t row = kind == FILE_PAIRS ? 2 * seq_len : seq_len;
    mm_batcher_options options = {.mode = kind == FILE_PAIRS  ? MM_BATCH_PAIRS
                                          : kind == FILE_CHAT ? MM_BATCH_ROWS
                                                              : MM_BATCH_PACKED,
                                  .batch_size = PASS_ROWS,
                                  .seq_len = seq_len,
                                  .max_tokens = row > PASS_TOKENS ? row : PASS_TOKENS,
                                  .seed = eval->loaded.run.seed,
                                  .max_documents = mm_args_int(eval->args, "limit", 0)};
    const bool is_padded = kind != FILE_PAIRS && !mm_config_bool(config, "pack");
    if (is_padded) options.mode = MM_BATCH_PADDED;
    if (is_padded || kind == FILE_TEXT) {
        options.batch_size = (int32_t)mm_config_int(config, "batch_size");
        options.max_tokens = 0;
    }
    data->is_pairs = kind == FILE_PAIRS;
    data->task = mm_eval_task(paths[0]);
    data->sha256 = n == 1 ? mm_token_cache_info(data->given[0])->data_sha256 : NULL;
    return mm_batcher_new(&data->batcher, data->given, n, eval->loaded.tokenizer, &options, err);
}

/* ---- what the run held out ---------------------------------------------------------------------
 */

static mm_status recorded_files(mm_eval *eval, mm_corpus_spec *spec, mm_err *err)
{
    mm_loaded *loaded = &eval->loaded;
    mm_dataset *datasets = NULL;
    size_t n = 0;
    MM_TRY(mm_store_datasets(eval->store, loaded->run.id, &loaded->arena, &datasets, &n, err));
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

static mm_status open_recorded(mm_eval *eval, held_out *data, mm_err *err)
{
    mm_loaded *loaded = &eval->loaded;
    mm_corpus_spec spec = {.cache_dir = mm_args_text(eval->args, "cache")};
    mm_batcher *train = NULL;
    mm_param *params = NULL;
    size_t n = 0;
    char rows[24];
    MM_TRY(recorded_files(eval, &spec, err));
    MM_TRY(mm_store_params(eval->store, loaded->run.id, &loaded->arena, &params, &n, err));
    spec.tokenizer_hash = mm_param_find(params, n, "tokenizer_hash");
    const char *mask = mm_args_text(eval->args, "mask");
    if (mask) MM_TRY(mm_config_set(loaded->config, "mask", mask, "command line", err));
    const int64_t limit = mm_args_int(eval->args, "limit", ROWS_MAX);
    snprintf(rows, sizeof rows, "%" PRId64, limit < ROWS_MAX ? limit : ROWS_MAX);
    MM_TRY(mm_config_set(loaded->config, "eval_rows", rows, "command line", err));
    MM_TRY(mm_corpus_open(&data->corpus, eval->context, eval->store, &spec, loaded->config, err));
    const mm_status status =
        mm_corpus_batchers(&data->corpus, loaded->config, &train, &data->batcher, err);
    mm_batcher_free(train);
    MM_TRY(status);
    data->is_pairs = strcmp(mm_config_stage(loaded->config), "dpo") == 0;
    data->task = "held-out";
    if (data->batcher) return MM_OK;
    return MM_FAIL(err, MM_EUSAGE, "run '%s' held nothing out\nmmrun eval %s --data FILE",
                   loaded->run.name, loaded->run.name);
}

static mm_status open_data(mm_eval *eval, held_out *data, mm_err *err)
{
    size_t n = 0;
    const char *const *paths = mm_args_list(eval->args, "data", &n);
    const char *pack = mm_args_text(eval->args, "pack");
    const char *seq_len = mm_args_text(eval->args, "seq-len");
    mm_config *config = eval->loaded.config;
    if (pack) MM_TRY(mm_config_set(config, "pack", pack, "command line", err));
    if (seq_len) MM_TRY(mm_config_set(config, "max_seq_len", seq_len, "command line", err));
    return n > 0 ? open_given(eval, data, paths, n, err) : open_recorded(eval, data, err);
}

/* ---- scores ------------------------------------------------------------------------------------
 */

static mm_engine_options engine_options(const mm_eval *eval, const mm_batcher *batcher)
{
    return (mm_engine_options){.max_tokens = mm_batcher_max_tokens(batcher),
                               .max_segments = mm_batcher_max_segments(batcher),
                               .threads = (int32_t)mm_args_int(eval->args, "threads", 0),
                               .bf16 = mm_eval_dtype(eval) == MM_BF16};
}

static mm_status add_text_score(mm_eval *eval, const held_out *data, const mm_score *score,
                                mm_err *err)
{
    const struct {
        const char *metric;
        double value;
    } rows[] = {{"val_loss", score->loss},
                {"perplexity", score->perplexity},
                {"bpb", score->bits_per_byte}};
    const char *mask = mm_args_text(eval->args, "mask");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char metric[64];
        // A mask that was asked for counts other words: another number.
        snprintf(metric, sizeof metric, "%s%s%s", rows[i].metric, mask ? "/" : "",
                 mask ? mask : "");
        const mm_result result = {.task = data->task,
                                  .metric = metric,
                                  .value = rows[i].value,
                                  .low = (double)NAN,
                                  .high = (double)NAN,
                                  .n = score->tokens,
                                  .correct = -1,
                                  .data_sha256 = data->sha256};
        MM_TRY(mm_eval_add(eval, &result, err));
        json_object_set_new(eval->json, rows[i].metric, mm_json_of_real(rows[i].value));
    }
    json_object_set_new(eval->json, "tokens", json_integer(score->tokens));
    json_object_set_new(eval->json, "bytes", json_integer(score->bytes));
    return MM_OK;
}

static mm_status score_text(mm_eval *eval, const held_out *data, mm_err *err)
{
    mm_engine *engine = NULL;
    mm_progress *progress = NULL;
    mm_score score;
    mm_status status = MM_OK;
    const mm_engine_options options = engine_options(eval, data->batcher);
    MM_GO(mm_engine_new(&engine, eval->loaded.model, &options, err));
    MM_GO(mm_progress_new(&progress, eval->context, eval->loaded.run.name, err));
    MM_GO(mm_score_batches(engine, data->batcher, eval->loaded.tokenizer, progress, &score, err));
    MM_GO(add_text_score(eval, data, &score, err));
done:
    mm_progress_end(progress);
    mm_engine_free(engine);
    return status;
}

// The loss of the run's own stage, or that of the paper where the stage has none.
static mm_status preference_of(const mm_config *config, mm_preference *out, mm_err *err)
{
    const char *kind = mm_config_text(config, "dpo_loss");
    *out = (mm_preference){.beta = 0.1};
    if (!*kind) return MM_OK;
    out->mean = strcmp(mm_config_text(config, "logp"), "mean") == 0;
    out->beta = mm_config_real(config, "beta");
    out->label_smoothing = mm_config_real(config, "label_smoothing");
    out->gamma = mm_config_real(config, "simpo_gamma");
    return mm_preference_kind_parse(kind, &out->kind, err);
}

// --reference, or what a dpo run started from; nothing is loaded where there is neither, or "none"
// is asked for.
static mm_status load_reference(const mm_eval *eval, mm_loaded *out, mm_err *err)
{
    const mm_run_info *run = &eval->loaded.run;
    const char *name = mm_args_text(eval->args, "reference");
    char parent[64];
    if (!name && strcmp(run->stage, "dpo") == 0 && run->parent_id > 0) {
        snprintf(parent, sizeof parent, run->parent_step >= 0 ? "%" PRId64 "@%" PRId64 : "%" PRId64,
                 run->parent_id, run->parent_step);
        name = parent;
    }
    if (!name || strcmp(name, "none") == 0) return MM_OK;
    const mm_status status = mm_load_run(out, eval->store, name, err);
    if (status != MM_OK) {
        mm_err_context(err, "reference %s", name);
        return status;
    }
    if (strcmp(mm_tokenizer_hash(out->tokenizer), mm_tokenizer_hash(eval->loaded.tokenizer)) == 0)
        return MM_OK;
    return MM_FAIL(err, MM_EUSAGE, "--reference: run '%s' has another tokenizer than '%s'",
                   out->run.name, run->name);
}

static mm_status add_pair_score(mm_eval *eval, const held_out *data, const mm_pair_score *score,
                                const char *reference, mm_err *err)
{
    const struct {
        const char *metric;
        double value;
    } rows[] = {{reference ? "preference_margin" : "preference_margin/alone", score->margin},
                {"preference_loss", score->loss}};
    // Without a reference it is another question, so another number.
    MM_TRY(mm_eval_add_share(eval, data->task,
                             reference ? "preference_accuracy" : "preference_accuracy/alone",
                             score->correct, score->pairs, data->sha256, err));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (isnan(rows[i].value) && i == 1) continue; // a loss that needs a reference
        const mm_result result = {.task = data->task,
                                  .metric = rows[i].metric,
                                  .value = rows[i].value,
                                  .low = (double)NAN,
                                  .high = (double)NAN,
                                  .n = score->pairs,
                                  .correct = -1,
                                  .data_sha256 = data->sha256};
        MM_TRY(mm_eval_add(eval, &result, err));
    }
    json_object_set_new(eval->json, "val_loss", mm_json_of_real(score->loss));
    json_object_set_new(eval->json, "tokens", json_integer(score->tokens));
    json_object_set_new(
        eval->json, "preference",
        json_pack("{s:s,s:I,s:I,s:o,s:o,s:o,s:o}", "task", data->task, "n",
                  (json_int_t)score->pairs, "correct", (json_int_t)score->correct, "accuracy",
                  mm_json_of_real((double)score->correct / (double)score->pairs), "margin",
                  mm_json_of_real(score->margin), "loss", mm_json_of_real(score->loss), "reference",
                  mm_json_of_text(reference)));
    return MM_OK;
}

static mm_status score_pairs(mm_eval *eval, const held_out *data, mm_err *err)
{
    mm_loaded other = {0};
    mm_engine *engine = NULL;
    mm_engine *reference = NULL;
    mm_progress *progress = NULL;
    mm_preference preference;
    mm_pair_score score;
    mm_status status = MM_OK;
    const mm_engine_options options = engine_options(eval, data->batcher);
    MM_GO(preference_of(eval->loaded.config, &preference, err));
    MM_GO(load_reference(eval, &other, err));
    MM_GO(mm_engine_new(&engine, eval->loaded.model, &options, err));
    if (other.model)
        MM_GO(mm_engine_new(&reference, other.model, &options, err));
    else if (!mm_args_has(eval->args, "reference"))
        mm_say(eval->context,
               "%s: without --reference RUN the answers are compared by their own "
               "log-probabilities.",
               eval->loaded.run.name);
    MM_GO(mm_progress_new(&progress, eval->context, eval->loaded.run.name, err));
    MM_GO(mm_score_pairs(engine, reference, data->batcher, &preference, progress, &score, err));
    MM_GO(add_pair_score(eval, data, &score, other.model ? other.run.name : NULL, err));
done:
    mm_progress_end(progress);
    mm_engine_free(reference);
    mm_engine_free(engine);
    mm_loaded_drop(&other);
    return status;
}

mm_status mm_eval_loss(mm_eval *eval, mm_err *err)
{
    held_out data = {0};
    mm_status status = open_data(eval, &data, err);
    if (status == MM_OK && data.is_pairs)
        status = score_pairs(eval, &data, err);
    else if (status == MM_OK)
        status = score_text(eval, &data, err);
    drop_held_out(&data);
    return status;
}
