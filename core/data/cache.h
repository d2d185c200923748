/* Packed token cache: a data file tokenised once, memory-mapped ever after.
 *
 * A row is one document, or two: a preference pair has a chosen and a rejected side. A conversation
 * whose rendering has an empty think block has a second variant without it, so that a batcher can
 * draw between them. Every token carries whether it is learned.
 *
 * The file name is the hash of (content of the data file, tokenizer hash, row format, mask of
 * conversations, pairs or not, cache version), so a stale cache cannot be used by mistake.
 * Published by rename, so a killed build leaves nothing that could be taken for one. Opening
 * verifies everything, down to the checksum and every id; a damaged cache is built anew. Processes
 * that want the same cache at once wait for one of them to build it.
 *
 * A text is one document, bos + text + eos. A conversation is what the chat template renders, which
 * brings its own marks. An open cache is read-only and may be shared between threads.
 *
 * File (little-endian): header, tokens (u16 below 32768 ids, else u32; one bit tells whether the
 * token is learned) filled up to 8 bytes, then per row {u64 key, u32 number of renderings so far,
 * u32 flags}, then per rendering {u64 end in tokens, u32 first learned, u32 learned}.
 */
#ifndef MM_DATA_CACHE_H
#define MM_DATA_CACHE_H

#include "core/data/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_token_cache mm_token_cache;

typedef struct mm_cache_options {
    const char *path; /* the data file */
    const char *dir;  /* cache folder; NULL: $MMRUN_CACHE, $XDG_CACHE_HOME/mmrun, ~/.cache/mmrun,
                         ./.mmrun-cache */
    mm_row_format format;
    mm_mask_kind mask; /* of conversations; a text is learned as a whole */
    bool pairs; /* the stage wants preference pairs; other rows are an error, and vice versa */
    bool skip_bad_rows;
    int32_t
        threads; /* at most that many tokenize, below 2 only the caller's; decides nothing else */
    /* Called on the caller's thread about every MiB; false stops the build with MM_ECANCELED. May
     * be NULL. */
    bool (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total);
    void *context;
} mm_cache_options;

/* Opens the cache, building it if it is not there. */
MM_NODISCARD mm_status mm_token_cache_open(mm_token_cache **out, const mm_cache_options *options,
                                           const mm_tokenizer *tokenizer, mm_err *err);
void mm_token_cache_close(mm_token_cache *cache);

typedef struct mm_cache_info {
    char data_sha256[MM_SHA256_HEX_BYTES]; /* of the data file */
    uint64_t data_bytes;
    int64_t documents; /* rows */
    int64_t tokens;    /* of the rows' first variants, both sides of a pair */
    int64_t bad_rows;
    mm_row_format format;
    mm_mask_kind mask; /* MM_MASK_ALL for texts */
    bool pairs;
    bool was_built; /* false: found */
} mm_cache_info;
const mm_cache_info *mm_token_cache_info(const mm_token_cache *cache);

/* One rendering of a row. */
typedef struct mm_cached {
    int64_t row;
    bool is_rejected;        /* the other side of a pair */
    bool has_no_empty_think; /* the variant without the empty think block; where there is none, the
                                only one is meant */
} mm_cached;
/* Length in tokens, and the tokens from `first` on, copied as int32. `learned` (may be NULL) gets 1
 * for each that is learned. */
int64_t mm_token_cache_length(const mm_token_cache *cache, mm_cached which);
void mm_token_cache_copy(const mm_token_cache *cache, mm_cached which, int64_t first, int32_t count,
                         int32_t *out, uint8_t *learned);
/* Place of the first token that is learned, the length where there is none. */
int64_t mm_token_cache_first_learned(const mm_token_cache *cache, mm_cached which);
/* How many of its tokens are learned. */
int64_t mm_token_cache_n_learned(const mm_token_cache *cache, mm_cached which);
/* Hash of the row's text, of a pair's two: decides the split, so that a row never changes side. */
uint64_t mm_token_cache_key(const mm_token_cache *cache, int64_t row);
/* Whether the row opens with a system turn, names tools or is plain text: then no system prompt is
 * put before it. */
bool mm_token_cache_has_system(const mm_token_cache *cache, int64_t row);
/* Hash of the tokenizer that made it (mm_tokenizer_hash), borrowed. */
const char *mm_token_cache_tokenizer_hash(const mm_token_cache *cache);
/* Where the cache file is, borrowed. */
const char *mm_token_cache_path(const mm_token_cache *cache);

#ifdef __cplusplus
}
#endif
#endif
