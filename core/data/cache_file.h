/* The cache file: its header, and building one. Internal to core/data. */
#ifndef MM_DATA_CACHE_FILE_H
#define MM_DATA_CACHE_FILE_H

#include "core/base/file.h"
#include "core/data/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_CACHE_VERSION = 1, MM_CACHE_TOKENIZER_BYTES = 64 };

typedef struct mm_cache_header {
    char magic[8];
    uint32_t version;
    uint32_t token_bytes; /* 2 or 4 */
    uint32_t vocab_size;  /* every id is below */
    uint32_t format;      /* mm_row_format */
    uint64_t documents;
    uint64_t tokens;
    uint64_t bad_rows;
    uint64_t data_bytes;
    uint64_t index_offset; /* of the documents' index, in bytes */
    uint64_t file_bytes;
    uint8_t data_sha256[MM_SHA256_BYTES];
    uint8_t key[MM_SHA256_BYTES];             /* the file's name */
    char tokenizer[MM_CACHE_TOKENIZER_BYTES]; /* hexadecimal, no NUL */
    uint8_t payload_sha256[MM_SHA256_BYTES];  /* of everything behind the header */
    uint8_t header_sha256[MM_SHA256_BYTES];   /* of everything before this field */
} mm_cache_header;

/* One per document, behind the tokens. */
typedef struct mm_cache_entry {
    uint64_t end; /* of its tokens, counted from the first document's start */
    uint64_t key;
} mm_cache_entry;

/* Tokenises the rows of `reader` (fresh, format known) into the file `path`. `header` carries
 * data_sha256, data_bytes, key, format, vocab_size and tokenizer; the rest is filled in. A data
 * file that is not the one of data_sha256 any more is MM_EFORMAT. Leaves nothing on failure. */
MM_NODISCARD mm_status mm_cache_build(mm_cache_header *header, const char *path,
                                      mm_row_reader *reader, const mm_cache_options *options,
                                      const mm_tokenizer *tokenizer, mm_err *err);
/* Whether a mapped file is a whole and undamaged cache with this key. */
bool mm_cache_is_valid(const mm_file_map *map, const uint8_t key[MM_SHA256_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
