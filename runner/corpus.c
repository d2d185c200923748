/* What a stage learns from: data files as token caches, and the tokenizer they were cut with. */
#include "runner/corpus.h"

#include "core/base/file.h"
#include "core/data/synth.h"
#include "core/nn/pool.h"
#include "runner/load.h"
#include "runner/progress.h"
#include "runner/signals.h"
#include "store/query.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char SYNTH_DIR[] = "dataset";
enum {
    SYNTH_VOCAB = 1024,
    TRAINED_VOCAB = 6400,
    TOKENIZER_ROWS = 20000, // rows a tokenizer is trained on when none is given
    // A micro-batch of whole rows holds about this many tokens; memory is all it decides.
    MICRO_TOKENS = 4096
};

// What a stage learns from when it is given no file.
typedef struct self_made {
    mm_synth_kind kind;
    int64_t rows;
    int64_t val_rows;
    const char *what;
} self_made;

static self_made self_made_of(const char *stage)
{
    if (strcmp(stage, "pretrain") == 0)
        return (self_made){MM_SYNTH_PRETRAIN, 20000, 500, "bilingual corpus"};
    if (strcmp(stage, "dpo") == 0)
        return (self_made){MM_SYNTH_PREFERENCE, 2000, 200, "preferences"};
    if (strcmp(stage, "lora") == 0) return (self_made){MM_SYNTH_PERSONA, 400, 60, "persona"};
    return (self_made){MM_SYNTH_SFT, 4000, 200, "conversations"};
}

static mm_status write_synth(const self_made *made, bool held_out, char **path, mm_err *err)
{
    mm_str text = {0};
    mm_status status = MM_OK;
    const mm_synth_options options = {.kind = made->kind,
                                      .seed = 42,
                                      .rows = held_out ? made->val_rows : made->rows,
                                      .held_out = held_out};
    mm_str_addf(&text, "%s/synth-%s%s.jsonl", SYNTH_DIR, mm_synth_kind_name(made->kind),
                held_out ? "_val" : "");
    // A pure function of its options: what is there already is what would be written.
    if (!mm_file_exists(mm_str_text(&text)))
        MM_GO(mm_synth_file(&options, mm_str_text(&text), err));
    MM_GO(mm_str_take(&text, path, NULL, err));
done:
    mm_str_drop(&text);
    return status;
}

static mm_status feed_messages(mm_bpe_trainer *trainer, const mm_conversation *chat, mm_err *err)
{
    for (size_t i = 0; i < chat->count; i++) {
        const mm_message *message = &chat->messages[i];
        MM_TRY(mm_bpe_trainer_feed(trainer, message->content, strlen(message->content), err));
        if (!message->reasoning_content) continue;
        MM_TRY(mm_bpe_trainer_feed(trainer, message->reasoning_content,
                                   strlen(message->reasoning_content), err));
    }
    return MM_OK;
}

static mm_status feed_file(mm_bpe_trainer *trainer, const char *path, mm_row_format format,
                           bool skip_bad_rows, mm_err *err)
{
    mm_row_reader *reader = NULL;
    mm_status status = MM_OK;
    MM_TRY(mm_row_reader_open(&reader, path, format, err));
    for (int64_t i = 0; i < TOKENIZER_ROWS; i++) {
        const mm_row *row = NULL;
        MM_GO(mm_row_reader_next(reader, &row, err));
        if (!row) {
            // Said here, before a tokenizer is learned from what the run would refuse.
            MM_GO(mm_row_report_check(mm_row_reader_report(reader), path, skip_bad_rows, err));
            break;
        }
        if (row->kind == MM_ROW_TEXT) {
            MM_GO(mm_bpe_trainer_feed(trainer, row->text, row->text_bytes, err));
        } else {
            MM_GO(feed_messages(trainer, &row->chat, err));
        }
    }
done:
    mm_row_reader_close(reader);
    return status;
}

static void show_merges(void *context, int64_t done, int64_t total)
{
    mm_progress_count(context, (uint64_t)done, (uint64_t)total, "merges");
}

static mm_status train_tokenizer(mm_corpus *corpus, const mm_context *context,
                                 const mm_config *config, mm_row_format format, mm_err *err)
{
    mm_status status = MM_OK;
    mm_bpe_trainer *trainer = NULL;
    mm_progress *progress = NULL;
    int32_t vocab = corpus->is_synthetic ? SYNTH_VOCAB : TRAINED_VOCAB;
    if (mm_config_is_set(config, "vocab_size"))
        vocab = (int32_t)mm_config_int(config, "vocab_size");
    mm_say(context, "No --tokenizer given: training one of %d tokens on the data.", vocab);
    MM_GO(mm_bpe_trainer_new(&trainer, vocab, err));
    const bool skip = strcmp(mm_config_text(config, "on_bad_row"), "skip") == 0;
    for (size_t i = 0; i < corpus->n_train; i++)
        MM_GO(feed_file(trainer, corpus->train_path[i], format, skip, err));
    MM_GO(mm_progress_new(&progress, context, "tokenizer", err));
    status = mm_bpe_trainer_finish(trainer, &corpus->tokenizer, show_merges, progress, err);
    if (status != MM_OK) {
        mm_err_context(err, "%s", corpus->train_path[0]);
        goto done;
    }
    corpus->tokenizer_is_trained = true;
done:
    mm_progress_end(progress);
    mm_bpe_trainer_free(trainer);
    return status;
}

static bool show_bytes(void *context, uint64_t done, uint64_t total)
{
    mm_progress_count(context, done, total, "bytes");
    return mm_signals_stop() == 0;
}

static mm_status open_cache(mm_token_cache **out, const mm_context *context, const char *path,
                            const mm_corpus *corpus, const mm_corpus_spec *spec,
                            const mm_config *config, mm_row_format format, mm_err *err)
{
    mm_progress *progress = NULL;
    const int32_t threads = (int32_t)mm_config_int(config, "threads");
    mm_mask_kind mask = MM_MASK_ALL; // pretraining learns all of a conversation
    const char *mask_name = mm_config_text(config, "mask");
    if (*mask_name) MM_TRY(mm_mask_kind_parse(mask_name, &mask, err));
    MM_TRY(mm_progress_new(&progress, context, "tokenize", err));
    const mm_cache_options options = {.path = path,
                                      .mask = mask,
                                      .pairs = strcmp(mm_config_stage(config), "dpo") == 0,
                                      .dir = spec->cache_dir,
                                      .format = format,
                                      .skip_bad_rows =
                                          strcmp(mm_config_text(config, "on_bad_row"), "skip") == 0,
                                      .threads = threads > 0 ? threads : mm_cpu_count(),
                                      .progress = show_bytes,
                                      .context = progress};
    const mm_status status = mm_token_cache_open(out, &options, corpus->tokenizer, err);
    mm_progress_end(progress);
    MM_TRY(status);
    const mm_cache_info *info = mm_token_cache_info(*out);
    if (info->was_built)
        mm_say(context, "%s: %lld rows (%s), %lld tokens%s.", path, (long long)info->documents,
               mm_row_format_name(info->format), (long long)info->tokens,
               info->bad_rows ? ", bad rows skipped" : "");
    if (info->bad_rows)
        mm_warn(context, "%s: %lld bad rows were skipped; `mmrun data check %s` lists them.", path,
                (long long)info->bad_rows, path);
    return MM_OK;
}

// Absolute, so that a run can be resumed from another folder.
static mm_status absolute_path(char **out, const char *path, mm_err *err)
{
    char *resolved = realpath(path, NULL);
    if (!resolved) return MM_FAIL_ERRNO(err, "%s: cannot open", path);
    *out = mm_strdup(resolved);
    mm_free(resolved);
    return *out ? MM_OK : MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
}

static mm_status make_files(mm_corpus *out, const mm_context *context, const mm_config *config,
                            bool has_val, mm_err *err)
{
    const self_made made = self_made_of(mm_config_stage(config));
    char *train = NULL;
    char *val = NULL;
    mm_status status = MM_OK;
    out->is_synthetic = true;
    MM_TRY(mm_dir_make(SYNTH_DIR, err));
    MM_GO(write_synth(&made, false, &train, err));
    MM_GO(write_synth(&made, true, &val, err));
    mm_say(context, "No --data given: using the self-made %s %s (%lld rows).", made.what, train,
           (long long)made.rows);
    MM_GO(absolute_path(&out->train_path[0], train, err));
    out->n_train = 1;
    if (!has_val) MM_GO(absolute_path(&out->val_path, val, err));
done:
    mm_free(train);
    mm_free(val);
    return status;
}

static mm_status choose_files(mm_corpus *out, const mm_context *context, const mm_corpus_spec *spec,
                              const mm_config *config, mm_err *err)
{
    if (spec->n_train > MM_CORPUS_FILES_MAX)
        return MM_FAIL(err, MM_EUSAGE, "--data: at most %d files, found %zu", MM_CORPUS_FILES_MAX,
                       spec->n_train);
    if (spec->n_train == 0) MM_TRY(make_files(out, context, config, spec->val != NULL, err));
    for (size_t i = 0; i < spec->n_train; i++, out->n_train++)
        MM_TRY(absolute_path(&out->train_path[i], spec->train[i], err));
    return spec->val ? absolute_path(&out->val_path, spec->val, err) : MM_OK;
}

static mm_status open_parts(mm_corpus *out, const mm_context *context, mm_store *store,
                            const mm_corpus_spec *spec, const mm_config *config, mm_err *err)
{
    mm_row_format format;
    MM_TRY(mm_row_format_parse(mm_config_text(config, "row_format"), &format, err));
    MM_TRY(choose_files(out, context, spec, config, err));
    if (spec->tokenizer)
        MM_TRY(mm_tokenizer_load(&out->tokenizer, spec->tokenizer, err));
    else if (spec->tokenizer_hash)
        MM_TRY(mm_load_tokenizer(&out->tokenizer, store, spec->tokenizer_hash, err));
    else
        MM_TRY(train_tokenizer(out, context, config, format, err));
    for (size_t i = 0; i < out->n_train; i++)
        MM_TRY(open_cache(&out->train[i], context, out->train_path[i], out, spec, config, format,
                          err));
    if (out->val_path)
        MM_TRY(open_cache(&out->val, context, out->val_path, out, spec, config, format, err));
    return MM_OK;
}

mm_status mm_corpus_open(mm_corpus *out, const mm_context *context, mm_store *store,
                         const mm_corpus_spec *spec, const mm_config *config, mm_err *err)
{
    *out = (mm_corpus){0};
    const mm_status status = open_parts(out, context, store, spec, config, err);
    if (status != MM_OK) mm_corpus_close(out);
    return status;
}

void mm_corpus_close(mm_corpus *corpus)
{
    if (!corpus) return;
    for (size_t i = 0; i < MM_CORPUS_FILES_MAX; i++) {
        mm_token_cache_close(corpus->train[i]);
        mm_free(corpus->train_path[i]);
    }
    mm_token_cache_close(corpus->val);
    mm_free(corpus->val_path);
    mm_tokenizer_free(corpus->tokenizer);
    *corpus = (mm_corpus){0};
}

void mm_corpus_decide(const mm_corpus *corpus, mm_config *config)
{
    enum { WANTED_ROWS = 64, STEPS_OF_SHARE = 1000 };
    static const double LEAST = 0.01;
    static const double MOST = 0.1;
    double rows = 1;
    if (corpus->val || *mm_config_text(config, "val_fraction")) return;
    for (size_t i = 0; i < corpus->n_train; i++)
        rows += (double)mm_token_cache_info(corpus->train[i])->documents;
    const double share = ceil(WANTED_ROWS / rows * STEPS_OF_SHARE) / STEPS_OF_SHARE;
    mm_config_decide(config, "val_fraction", fmin(fmax(share, LEAST), MOST));
}

// How a stage cuts its rows into batches.
static mm_batch_mode mode_of(const mm_config *config)
{
    const char *stage = mm_config_stage(config);
    if (strcmp(stage, "dpo") == 0) return MM_BATCH_PAIRS;
    if (!mm_config_bool(config, "pack")) return MM_BATCH_PADDED;
    return strcmp(stage, "pretrain") == 0 ? MM_BATCH_PACKED : MM_BATCH_ROWS;
}

// Tokens of a micro-batch of whole rows: enough to keep the processor busy, never less than the
// longest row, never more than a step.
static int32_t micro_tokens(const mm_config *config, mm_batch_mode mode)
{
    const int64_t sides = mode == MM_BATCH_PAIRS ? 2 : 1;
    const int64_t longest = sides * mm_config_int(config, "max_seq_len");
    const int64_t step =
        longest * mm_config_int(config, "batch_size") * mm_config_int(config, "accumulation_steps");
    int64_t tokens = sides * MICRO_TOKENS;
    if (tokens < longest) tokens = longest;
    return (int32_t)(tokens < step ? tokens : step);
}

static mm_batcher_options batcher_options(const mm_corpus *corpus, const mm_config *config)
{
    const double fraction = corpus->val ? 0 : mm_config_real(config, "val_fraction");
    const mm_batch_mode mode = mode_of(config);
    const bool is_whole = mode == MM_BATCH_ROWS || mode == MM_BATCH_PAIRS;
    return (mm_batcher_options){
        .mode = mode,
        .batch_size = (int32_t)mm_config_int(config, "batch_size"),
        .accumulation = (int32_t)mm_config_int(config, "accumulation_steps"),
        .seq_len = (int32_t)mm_config_int(config, "max_seq_len"),
        .max_tokens = is_whole ? micro_tokens(config, mode) : 0,
        .shuffle = true,
        .seed = (uint64_t)mm_config_int(config, "seed"),
        .system_prompt_share = mm_config_real(config, "system_prompt_share"),
        .drop_think_share = mm_config_real(config, "drop_think_share"),
        .draws_sides_apart = strcmp(mm_config_text(config, "compat"), "minimind") == 0,
        .split = fraction > 0 ? MM_SPLIT_TRAIN : MM_SPLIT_ALL,
        .val_fraction = fraction};
}

mm_status mm_corpus_batchers(const mm_corpus *corpus, const mm_config *config, mm_batcher **train,
                             mm_batcher **val, mm_err *err)
{
    mm_batcher_options options = batcher_options(corpus, config);
    MM_TRY(mm_batcher_new(train, corpus->train, corpus->n_train, corpus->tokenizer, &options, err));
    if (!corpus->val && options.split == MM_SPLIT_ALL) return MM_OK;
    options.shuffle = false;
    options.system_prompt_share = 0;
    options.drop_think_share = 0;
    options.split = corpus->val ? MM_SPLIT_ALL : MM_SPLIT_VAL;
    options.max_documents = mm_config_int(config, "eval_rows");
    mm_token_cache *const *caches = corpus->val ? &corpus->val : corpus->train;
    const size_t n = corpus->val ? 1 : corpus->n_train;
    const mm_status status = mm_batcher_new(val, caches, n, corpus->tokenizer, &options, err);
    // A single text cannot be parted: it is trained on, and nothing is held out.
    return status == MM_EFORMAT && !corpus->val ? MM_OK : status;
}

mm_status mm_corpus_say_left_out(const mm_corpus *corpus, const mm_context *context,
                                 const mm_config *config, mm_err *err)
{
    mm_batcher *train = NULL;
    const mm_batcher_options options = batcher_options(corpus, config);
    MM_TRY(
        mm_batcher_new(&train, corpus->train, corpus->n_train, corpus->tokenizer, &options, err));
    const int64_t left_out = mm_batcher_left_out(train);
    if (left_out > 0)
        mm_warn(context,
                "%lld of %lld rows are left out: nothing of their answers lies within --seq-len "
                "%lld.",
                (long long)left_out, (long long)(left_out + mm_batcher_documents(train)),
                (long long)mm_config_int(config, "max_seq_len"));
    mm_batcher_free(train);
    return MM_OK;
}

static mm_status record_file(const mm_corpus *corpus, mm_store *store, int64_t run_id,
                             const mm_token_cache *cache, const char *path, const char *role,
                             mm_err *err)
{
    const mm_cache_info *info = mm_token_cache_info(cache);
    const mm_dataset dataset = {.path = path,
                                .source = corpus->is_synthetic ? "synth" : "file",
                                .sha256 = info->data_sha256,
                                .bytes = (int64_t)info->data_bytes,
                                .rows = info->documents,
                                .tokens = info->tokens,
                                .role = role};
    return mm_store_dataset_use(store, run_id, &dataset, err);
}

mm_status mm_corpus_record(const mm_corpus *corpus, mm_store *store, int64_t run_id, mm_err *err)
{
    for (size_t i = 0; i < corpus->n_train; i++)
        MM_TRY(record_file(corpus, store, run_id, corpus->train[i], corpus->train_path[i], "train",
                           err));
    if (!corpus->val) return MM_OK;
    return record_file(corpus, store, run_id, corpus->val, corpus->val_path, "val", err);
}

static bool has_digest(const mm_corpus *corpus, const char *sha256)
{
    for (size_t i = 0; i < corpus->n_train; i++)
        if (strcmp(mm_token_cache_info(corpus->train[i])->data_sha256, sha256) == 0) return true;
    return corpus->val && strcmp(mm_token_cache_info(corpus->val)->data_sha256, sha256) == 0;
}

mm_status mm_corpus_verify(const mm_corpus *corpus, mm_store *store, int64_t run_id, mm_err *err)
{
    mm_arena arena = {0};
    mm_dataset *datasets = NULL;
    size_t count = 0;
    mm_status status = mm_store_datasets(store, run_id, &arena, &datasets, &count, err);
    for (size_t i = 0; status == MM_OK && i < count; i++) {
        if (has_digest(corpus, datasets[i].sha256)) continue;
        status =
            MM_FAIL(err, MM_ECONFIG,
                    "%s: the file has changed since the run started (SHA-256 %.12s… expected); put "
                    "the old file back or start a new run",
                    datasets[i].path, datasets[i].sha256);
    }
    mm_arena_drop(&arena);
    return status;
}
