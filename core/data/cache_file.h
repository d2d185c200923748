/* The cache file: its header, and building one. Internal to core/data. */
#ifndef MM_DATA_CACHE_FILE_H
#define MM_DATA_CACHE_FILE_H

#include "core/base/file.h"
#include "core/data/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_CACHE_VERSION = 2, MM_CACHE_TOKENIZER_BYTES = 64 };

typedef struct mm_cache_header {
    char magic[8];
    uint32_t version;
    uint32_t token_bytes; /* 2 or 4 */
    uint32_t vocab_size;  /* every id is below */
    uint32_t format;      /* mm_row_format */
    uint32_t mask;        /* mm_mask_kind, of conversations */
    uint32_t pairs;       /* 1: every row is a preference pair */
    uint64_t documents;
    uint64_t renderings;
    uint64_t tokens;
    uint64_t row_tokens; /* of the first variants alone */
    uint64_t bad_rows;
    uint64_t data_bytes;
    uint64_t index_offset; /* of the documents, in bytes; the renderings follow them */
    uint64_t file_bytes;
    uint8_t data_sha256[MM_SHA256_BYTES];
    uint8_t key[MM_SHA256_BYTES];             /* the file's name */
    char tokenizer[MM_CACHE_TOKENIZER_BYTES]; /* hexadecimal, no NUL */
    uint8_t payload_sha256[MM_SHA256_BYTES];  /* of everything behind the header */
    uint8_t header_sha256[MM_SHA256_BYTES];   /* of everything before this field */
} mm_cache_header;

/* In a token that is learned. The wide one is MM_ID_LEARNED of documents.h. */
enum { MM_CACHE_NARROW_LEARNED = 1 << 15, MM_CACHE_WIDE_LEARNED = 1 << 30 };

/* One per document, behind the tokens. */
typedef struct mm_cache_document {
    uint64_t key;
    uint32_t renderings_end; /* counted from the first document's */
    uint32_t flags;          /* mm_document_flag */
} mm_cache_document;

/* One per rendering, behind the documents. */
typedef struct mm_cache_rendering {
    uint64_t end;           /* of its tokens, counted from the first rendering's start */
    uint32_t first_learned; /* place within the rendering; its length: none */
    uint32_t n_learned;
} mm_cache_rendering;

/* Tokenises the rows of `reader` (fresh, format known) into the file `path`. `header` carries
 * data_sha256, data_bytes, key, format, mask, pairs, vocab_size and tokenizer; the rest is filled
 * in. A data file that is not the one of data_sha256 any more is MM_EFORMAT. Leaves nothing on
 * failure. */
MM_NODISCARD mm_status mm_cache_build(mm_cache_header *header, const char *path,
                                      mm_row_reader *reader, const mm_cache_options *options,
                                      const mm_tokenizer *tokenizer, mm_err *err);
/* Renderings of a document with these flags. */
uint32_t mm_cache_renderings(uint32_t flags);
/* Whether a mapped file is a whole and undamaged cache with this key. */
bool mm_cache_is_valid(const mm_file_map *map, const uint8_t key[MM_SHA256_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
