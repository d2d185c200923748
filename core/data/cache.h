/* Packed token cache: a data file tokenised once, memory-mapped ever after.
 *
 * The file name is the hash of (content of the data file, tokenizer hash, row format, cache
 * version), so a stale cache cannot be used by mistake. Published by rename, so a killed build
 * leaves nothing that could be taken for one. Opening verifies everything, down to the checksum and
 * every id; a damaged cache is built anew. Processes that want the same cache at once wait for one
 * of them to build it.
 *
 * A text is one document, bos + text + eos. A conversation is what the chat template renders, which
 * brings its own marks. An open cache is read-only and may be shared between threads.
 *
 * File (little-endian): header, tokens (u16 or u32) filled up to 8 bytes, then per document
 * {u64 end in tokens, u64 key}.
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
    int64_t documents;
    int64_t tokens;
    int64_t bad_rows;
    mm_row_format format;
    bool was_built; /* false: found */
} mm_cache_info;
const mm_cache_info *mm_token_cache_info(const mm_token_cache *cache);

/* Length of document `i` in tokens, and its tokens from `first` on, copied as int32. */
int64_t mm_token_cache_length(const mm_token_cache *cache, int64_t document);
void mm_token_cache_copy(const mm_token_cache *cache, int64_t document, int64_t first,
                         int32_t count, int32_t *out);
/* Hash of the document's text: decides the split, so that a row never changes side. */
uint64_t mm_token_cache_key(const mm_token_cache *cache, int64_t document);
/* Hash of the tokenizer that made it (mm_tokenizer_hash), borrowed. */
const char *mm_token_cache_tokenizer_hash(const mm_token_cache *cache);
/* Where the cache file is, borrowed. */
const char *mm_token_cache_path(const mm_token_cache *cache);

#ifdef __cplusplus
}
#endif
#endif
