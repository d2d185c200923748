/* What a stage learns from: the data files as token caches, and the tokenizer they were cut with.
 *
 * With no file given the self-made data of the stage are written and used; with no tokenizer given
 * one is trained on the data. Both are announced. An opened corpus owns everything in it.
 */
#ifndef MM_RUNNER_CORPUS_H
#define MM_RUNNER_CORPUS_H

#include "core/data/batch.h"
#include "runner/config.h"

enum { MM_CORPUS_FILES_MAX = 64 };

typedef struct mm_corpus_spec {
    const char *const *train; /* data files; none: self-made ones */
    size_t n_train;
    const char *val;            /* NULL: rows held out of the training files (val_fraction) */
    const char *tokenizer;      /* file or folder; NULL: `tokenizer_hash`, else train one */
    const char *tokenizer_hash; /* of a tokenizer in the store; NULL: none */
    const char *cache_dir;      /* NULL: the usual place */
} mm_corpus_spec;

typedef struct mm_corpus {
    mm_tokenizer *tokenizer;
    bool tokenizer_is_trained; /* made here, not loaded */
    bool is_synthetic;
    size_t n_train;
    mm_token_cache *train[MM_CORPUS_FILES_MAX];
    char *train_path[MM_CORPUS_FILES_MAX]; /* absolute */
    mm_token_cache *val;                   /* NULL: split of the training files */
    char *val_path;
} mm_corpus;

/* `store` may be NULL when no tokenizer_hash is given. Progress goes to stderr as the context says.
 */
MM_NODISCARD mm_status mm_corpus_open(mm_corpus *out, const mm_context *context, mm_store *store,
                                      const mm_corpus_spec *spec, const mm_config *config,
                                      mm_err *err);
void mm_corpus_close(mm_corpus *corpus);

/* Decides the share of rows held out, where it is open: a hundredth tells nothing of a file of 300
 * rows. */
void mm_corpus_decide(const mm_corpus *corpus, mm_config *config);
/* Batches to learn from and to be scored on; *val is NULL when nothing is held out. */
MM_NODISCARD mm_status mm_corpus_batchers(const mm_corpus *corpus, const mm_config *config,
                                          mm_batcher **train, mm_batcher **val, mm_err *err);
/* What of the training rows the stage cannot use, in words; nothing where it uses all. */
MM_NODISCARD mm_status mm_corpus_say_left_out(const mm_corpus *corpus, const mm_context *context,
                                              const mm_config *config, mm_err *err);
/* Records tokenizer and files with the run. */
MM_NODISCARD mm_status mm_corpus_record(const mm_corpus *corpus, mm_store *store, int64_t run_id,
                                        mm_err *err);
/* Refuses files whose content is not what the run was started with. */
MM_NODISCARD mm_status mm_corpus_verify(const mm_corpus *corpus, mm_store *store, int64_t run_id,
                                        mm_err *err);

#endif
