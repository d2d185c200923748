/* Byte-pair merging of one word: the inner loop of encoding. Internal to core/text.
 *
 * Built once, then read-only but for the word cache, whose slots are filled atomically; so one
 * mm_bpe may serve any number of threads, and the ids never depend on what is cached.
 */
#ifndef MM_TEXT_BPE_H
#define MM_TEXT_BPE_H

#include "core/text/tokenizer.h"

#include <stdatomic.h>

typedef struct mm_bpe_pair {
    uint64_t pair;  /* left id in the upper half, right id in the lower */
    uint64_t merge; /* rank in the upper half, resulting id in the lower */
} mm_bpe_pair;

typedef struct mm_bpe {
    mm_bpe_pair *pairs; /* open addressing, at most half full */
    size_t n_slots;     /* power of two */
    int shift;
    int32_t byte_ids[256];
    _Atomic(struct mm_bpe_cached *) *cache;
} mm_bpe;

/* Zero-initialise, then init with room for n_merges pairs. drop is idempotent. */
MM_NODISCARD mm_status mm_bpe_init(mm_bpe *bpe, size_t n_merges, mm_err *err);
void mm_bpe_drop(mm_bpe *bpe);
/* False if the pair is in the table already. */
bool mm_bpe_add(mm_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);
/* Appends the ids of one word of 1..MM_TEXT_BYTES_MAX bytes. O(n log n). */
MM_NODISCARD mm_status mm_bpe_word(const mm_bpe *bpe, const unsigned char *word, size_t length,
                                   mm_ids *out, mm_err *err);

/* Makes room for `more` ids beyond count. */
MM_NODISCARD mm_status mm_ids_reserve(mm_ids *ids, size_t more, mm_err *err);

/* Longest text that is encoded in one call; positions fit in 32 bits. */
#define MM_TEXT_BYTES_MAX ((size_t)1 << 31)

#endif
