/* Byte-pair merging of one word: the inner loop of encoding. Internal to core/text.
 *
 * Built once, then read-only but for what is remembered of words and characters, whose slots are
 * filled atomically; so one mm_bpe may serve any number of threads, and the ids never depend on
 * what is remembered.
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
    uint64_t *seams; /* see mm_bpe_add_seam: bits, a power of two of them */
    int seam_shift;
    uint64_t short_seams[65536 / 64]; /* bit of (last byte of the left, first byte of the right) */
    struct mm_bpe_cached *cache;
    atomic_uint_fast64_t *characters; /* ids of the characters of three bytes, 0: not known yet */
} mm_bpe;

/* Zero-initialise, then init with room for n_merges pairs. drop is idempotent. */
MM_NODISCARD mm_status mm_bpe_init(mm_bpe *bpe, size_t n_merges, mm_err *err);
void mm_bpe_drop(mm_bpe *bpe);
/* False if the pair is in the table already. */
bool mm_bpe_add(mm_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);
/* The bytes that the two sides of an added pair stand for. A text is cut where no pair could ever
 * join what stands there, so a pair without its seam would never be merged across characters of
 * three bytes. */
void mm_bpe_add_seam(mm_bpe *bpe, const char *left, size_t left_bytes, const char *right,
                     size_t right_bytes);
/* Appends the ids of one word of 1..MM_TEXT_BYTES_MAX bytes, whole characters of UTF-8.
 * O(n log n). */
MM_NODISCARD mm_status mm_bpe_word(const mm_bpe *bpe, const unsigned char *word, size_t length,
                                   mm_ids *out, mm_err *err);

/* Makes room for `more` ids beyond count. */
MM_NODISCARD mm_status mm_ids_reserve(mm_ids *ids, size_t more, mm_err *err);

/* Longest text that is encoded in one call; positions fit in 32 bits. */
#define MM_TEXT_BYTES_MAX ((size_t)1 << 31)

#endif
