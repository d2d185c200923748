/* The parts of a batcher: which rows there are and what is drawn for them (batch_rows.c), where the
 * micro-batches of an epoch start (batch_plan.c), and filling them (batch.c). Internal to
 * core/data.
 */
#ifndef MM_DATA_BATCH_PARTS_H
#define MM_DATA_BATCH_PARTS_H

#include "core/data/batch.h"
#include "core/data/system_prompts.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a micro-batch starts. */
typedef struct mm_batch_start {
    uint32_t order_idx;
    int32_t piece; /* of a document that is cut into several */
} mm_batch_start;

/* What a row gets in an epoch. */
typedef struct mm_row_draw {
    int32_t prompt;      /* system prompt put before it; -1: none */
    bool drops_think[2]; /* of each side */
} mm_row_draw;

struct mm_batcher {
    const mm_token_cache **caches;
    size_t n_caches;
    const mm_tokenizer *tokenizer;
    mm_batcher_options options;
    int32_t sides;           /* of a row: 2 with pairs */
    int64_t *first_document; /* (n_caches + 1), number of the first document of each cache */
    uint32_t *documents;     /* of the split, in file order */
    uint32_t *order;         /* of the epoch */
    int64_t n_documents;
    int64_t n_left_out;
    int64_t n_labels; /* of one epoch, without system prompts */
    /* System prompts as ids, one behind the other; learned by the mask that learns system turns. */
    int32_t prompt_begins[MM_SYSTEM_PROMPTS + 1];
    mm_ids prompt_ids;
    mm_str prompt_learned;
    /* Of the plan. */
    int64_t room; /* tokens of a micro-batch */
    int64_t max_tokens;
    int64_t max_segments;
    int64_t max_step_batches;
    int64_t epoch; /* that `order` and `starts` are of; -1: none yet */
    int64_t n_batches;
    mm_batch_start *starts;
    int64_t starts_max;
    int32_t unlearned_id; /* never a label in a row that MiniMind would pad; -1: none */
    /* The batch. */
    int32_t *tokens;
    int32_t *labels;
    int32_t *segments;
    int64_t *rows;
    int32_t *row_tokens; /* (seq_len + 1), one row or piece */
    uint8_t *row_learned;
    mm_batch batch;
};

/* Whether rows are cut at seq_len (otherwise they are cut into pieces). */
static inline bool mm_batcher_cuts_rows(const mm_batcher *batcher)
{
    return batcher->options.mode != MM_BATCH_PACKED;
}

static inline int64_t mm_batcher_step_rows(const mm_batcher *batcher)
{
    return (int64_t)batcher->options.batch_size * batcher->options.accumulation;
}

/* Takes the caches, chooses the documents of the split, encodes the prompts. */
MM_NODISCARD mm_status mm_batch_rows_choose(mm_batcher *batcher, mm_token_cache *const *caches,
                                            mm_err *err);
/* A pure function of (seed, epoch, document). Never leaves a row without labels. */
mm_row_draw mm_batch_row_draw(const mm_batcher *batcher, uint32_t document, int64_t epoch);
/* Tokens of one side, with the system prompt and without any cut. */
int64_t mm_batch_row_length(const mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                            int32_t side);
/* Those from `first` on. */
void mm_batch_row_copy(const mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                       int32_t side, int64_t first, int32_t count, int32_t *tokens,
                       uint8_t *learned);
/* One side cut at seq_len into row_tokens and row_learned; returns the number of tokens. A token
 * that is not to be a label is not learned. */
int32_t mm_batch_row_cut(mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                         int32_t side);
/* Labels of an uncut document, as it is without draws. */
int64_t mm_batch_row_labels(const mm_batcher *batcher, uint32_t document);
/* Predictions of a row, both sides together: the shortest and longest any draw can give. */
void mm_batch_row_range(const mm_batcher *batcher, uint32_t document, int64_t *shortest,
                        int64_t *longest);

/* Sizes: how large batches can become, and room for the plan. */
MM_NODISCARD mm_status mm_batch_plan_sizes(mm_batcher *batcher, mm_err *err);
/* Order and starts of an epoch. */
void mm_batch_plan_epoch(mm_batcher *batcher, int64_t epoch);
/* Pieces of a document: as few as possible, lengths differing by one at most, so that no piece is a
 * stump that predicts without context. */
int32_t mm_batch_piece_count(const mm_batcher *batcher, int64_t length);
/* Predictions of a piece; *first is where it begins. */
int32_t mm_batch_piece_bounds(int64_t length, int32_t piece, int32_t pieces, int64_t *first);

#ifdef __cplusplus
}
#endif
#endif
