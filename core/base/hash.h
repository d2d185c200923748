/* SHA-256, one-shot and streaming, over libcrypto. */
#ifndef MM_BASE_HASH_H
#define MM_BASE_HASH_H

#include "core/base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_SHA256_BYTES = 32, MM_SHA256_HEX_BYTES = 65 };

typedef struct mm_sha256 {
    void *context; /* EVP_MD_CTX */
} mm_sha256;

MM_NODISCARD mm_status mm_sha256_init(mm_sha256 *hash, mm_err *err);
void mm_sha256_update(mm_sha256 *hash, const void *data, size_t bytes);
void mm_sha256_final(mm_sha256 *hash, uint8_t digest[MM_SHA256_BYTES]); /* also drops */
void mm_sha256_drop(mm_sha256 *hash);

void mm_sha256_of(const void *data, size_t bytes, uint8_t digest[MM_SHA256_BYTES]);
/* Lower-case hexadecimal with the final NUL. */
void mm_sha256_hex(const uint8_t digest[MM_SHA256_BYTES], char hex[MM_SHA256_HEX_BYTES]);
/* Digest of a file's content, read in pieces. */
MM_NODISCARD mm_status mm_sha256_file(const char *path, uint8_t digest[MM_SHA256_BYTES],
                                      uint64_t *bytes, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
