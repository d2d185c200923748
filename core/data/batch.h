/* Batches: which documents, in which order, packed how. Every batch is a pure function of (options,
 * epoch, position), so resuming needs two integers.
 *
 * Packed (default): documents in shuffled order fill micro-batches of batch_size × seq_len tokens
 * without padding (next-fit: a piece that does not fit any more opens the next micro-batch). A
 * document of L tokens gives L-1 pairs of input and label; if that is more than seq_len, it is cut
 * into the fewest pieces of nearly equal length. Each piece is a segment of its own, and together
 * they predict every token once.
 *
 * Padded: one document per row, cut to seq_len as MiniMind cuts ([bos] + first seq_len-2 tokens +
 * [eos]) and padded; each row is a segment. Pads are never learned, nor is the pad's id inside the
 * text. The last micro-batch of an epoch may have fewer rows.
 *
 * Rows: a step is batch_size × accumulation rows of the order, each with the tokens its padded row
 * would have, without the pads. Next-fit cuts the step into micro-batches of at most max_tokens,
 * which never decides what the step holds; the last step of an epoch may have fewer rows. Pairs:
 * the same, the sides of a pair being neighbours of one row number, chosen first.
 *
 * A row (of a pair: a side) without any label, all of it lying behind seq_len, is left out.
 *
 * The sides of the split depend on the documents' text alone, not on the seed, so every run and
 * every tokenizer validates on the same rows, and rows of equal text are on the same side. Each
 * side has a document as soon as there are two different texts. A batcher belongs to one thread;
 * memory is about 12 bytes per document. After the first call mm_batcher_get allocates nothing.
 */
#ifndef MM_DATA_BATCH_H
#define MM_DATA_BATCH_H

#include "core/data/cache.h"
#include "core/nn/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_split { MM_SPLIT_ALL = 0, MM_SPLIT_TRAIN, MM_SPLIT_VAL } mm_split;

typedef enum mm_batch_mode {
    MM_BATCH_PACKED = 0, /* a budget of tokens; long documents are cut into pieces */
    MM_BATCH_PADDED,     /* one row each of seq_len tokens */
    MM_BATCH_ROWS,       /* a number of rows per step, cut at seq_len, packed without padding */
    MM_BATCH_PAIRS       /* the same with preference pairs, each whole in one micro-batch */
} mm_batch_mode;

typedef struct mm_batcher_options {
    mm_batch_mode mode;
    int32_t batch_size;   /* rows (or pairs) per micro-batch */
    int32_t accumulation; /* micro-batches per optimizer step; 0 = 1 */
    int32_t seq_len;      /* tokens per row */
    /* ROWS and PAIRS: most tokens of a micro-batch, a single row aside; 0: batch_size × seq_len, ×
     * 2 for pairs. */
    int32_t max_tokens;
    bool shuffle;
    uint64_t seed;
    /* Conversations, drawn anew each epoch from (seed, epoch, row). What is evaluated on draws
     * nothing: give 0; the validation side does so itself. */
    double system_prompt_share; /* get one of ten system prompts, where they have none */
    double drop_think_share;    /* lose their empty think blocks */
    bool draws_sides_apart;     /* MiniMind draws the latter for each side of a pair */
    mm_split split;
    double val_fraction;   /* of documents, by key; 0: none */
    int64_t max_documents; /* 0: all; the first ones of the split in file order */
} mm_batcher_options;

typedef struct mm_batcher mm_batcher;
typedef struct mm_data_position {
    int64_t epoch;
    int64_t micro_batch; /* within the epoch, the next one to be read */
} mm_data_position;

/* Keeps borrowed pointers to caches and tokenizer. No document on the chosen side is MM_EFORMAT,
 * impossible options MM_ECONFIG. */
MM_NODISCARD mm_status mm_batcher_new(mm_batcher **out, mm_token_cache *const *caches,
                                      size_t n_caches, const mm_tokenizer *tokenizer,
                                      const mm_batcher_options *options, mm_err *err);
void mm_batcher_free(mm_batcher *batcher);
/* Micro-batches in an epoch (packing depends on the order, so it may differ a little between
 * epochs). */
MM_NODISCARD mm_status mm_batcher_epoch_batches(mm_batcher *batcher, int64_t epoch, int64_t *count,
                                                mm_err *err);
/* Tokens that are predicted in one epoch (without what is drawn), and documents of the split that
 * are used. */
int64_t mm_batcher_labels(const mm_batcher *batcher);
int64_t mm_batcher_documents(const mm_batcher *batcher);
/* Rows left out because nothing of them is learned: all that is, lies behind seq_len. */
int64_t mm_batcher_left_out(const mm_batcher *batcher);
/* Most tokens and segments a micro-batch can have, and most micro-batches a step can. */
int32_t mm_batcher_max_tokens(const mm_batcher *batcher);
int32_t mm_batcher_max_segments(const mm_batcher *batcher);
int32_t mm_batcher_max_step_batches(const mm_batcher *batcher);
/* Optimizer steps of an epoch. */
MM_NODISCARD mm_status mm_batcher_epoch_steps(mm_batcher *batcher, int64_t epoch, int64_t *count,
                                              mm_err *err);
/* The micro-batch at `position`; borrowed until the next call. Steps `position` on, into the next
 * epoch at the end. Another epoch than that of the last call costs one pass over the documents'
 * lengths, everything else is direct. A position that the epoch does not have is MM_EFORMAT. */
MM_NODISCARD mm_status mm_batcher_get(mm_batcher *batcher, mm_data_position *position,
                                      const mm_batch **batch, mm_err *err);
/* Bytes of text the labels of a batch stand for (special tokens count 0): the denominator of bits
 * per byte. */
int64_t mm_batch_label_bytes(const mm_batch *batch, const mm_tokenizer *tokenizer);

#ifdef __cplusplus
}
#endif
#endif
