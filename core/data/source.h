/* Bytes of a data file, decompressed while they are read. Internal to core/data.
 *
 * Plain, gzip and zstd are told apart by their first bytes, not by the name. Memory is bounded
 * whatever the file holds. Damage in a compressed file is MM_ECORRUPT. Belongs to one thread.
 */
#ifndef MM_DATA_SOURCE_H
#define MM_DATA_SOURCE_H

#include "core/base/hash.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_source mm_source;

/* A folder, a device and an empty file are errors that say so. */
MM_NODISCARD mm_status mm_source_open(mm_source **out, const char *path, mm_err *err);
/* From now on (before the first read) takes the SHA-256 of the file's own bytes, as stored. */
MM_NODISCARD mm_status mm_source_hash_start(mm_source *source, mm_err *err);
/* Up to `capacity` bytes; *got is 0 only at the end. */
MM_NODISCARD mm_status mm_source_read(mm_source *source, void *buffer, size_t capacity, size_t *got,
                                      mm_err *err);
/* Valid once after the end was reached, if hashing was started. */
void mm_source_hash_end(mm_source *source, uint8_t digest[MM_SHA256_BYTES]);
const char *mm_source_path(const mm_source *source);
/* Bytes of the file that are consumed. */
uint64_t mm_source_bytes_done(const mm_source *source);
void mm_source_close(mm_source *source);

#ifdef __cplusplus
}
#endif
#endif
