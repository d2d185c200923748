/* SHA-256 over libcrypto's EVP interface. A context belongs to one thread. */
#include "core/base/hash.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 18 };

mm_status mm_sha256_init(mm_sha256 *hash, mm_err *err)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(context);
        hash->context = NULL;
        return MM_FAIL(err, MM_ENOMEM, "SHA-256 is not available in libcrypto");
    }
    hash->context = context;
    return MM_OK;
}

void mm_sha256_update(mm_sha256 *hash, const void *data, size_t bytes)
{
    MM_ASSERT(EVP_DigestUpdate(hash->context, data, bytes) == 1);
}

void mm_sha256_final(mm_sha256 *hash, uint8_t digest[MM_SHA256_BYTES])
{
    unsigned length = 0;
    MM_ASSERT(EVP_DigestFinal_ex(hash->context, digest, &length) == 1);
    MM_ASSERT(length == MM_SHA256_BYTES);
    mm_sha256_drop(hash);
}

void mm_sha256_drop(mm_sha256 *hash)
{
    if (!hash) return;
    EVP_MD_CTX_free(hash->context);
    hash->context = NULL;
}

void mm_sha256_of(const void *data, size_t bytes, uint8_t digest[MM_SHA256_BYTES])
{
    unsigned length = 0;
    MM_ASSERT(EVP_Digest(data, bytes, digest, &length, EVP_sha256(), NULL) == 1);
    MM_ASSERT(length == MM_SHA256_BYTES);
}

void mm_sha256_hex(const uint8_t digest[MM_SHA256_BYTES], char hex[MM_SHA256_HEX_BYTES])
{
    static const char DIGITS[] = "0123456789abcdef";
    for (int i = 0; i < MM_SHA256_BYTES; i++) {
        hex[2 * i] = DIGITS[digest[i] >> 4];
        hex[2 * i + 1] = DIGITS[digest[i] & 15];
    }
    hex[2 * MM_SHA256_BYTES] = '\0';
}

mm_status mm_sha256_file(const char *path, uint8_t digest[MM_SHA256_BYTES], uint64_t *bytes,
                         mm_err *err)
{
    mm_status status = MM_OK;
    mm_sha256 hash = {0};
    uint64_t total = 0;
    char *buffer = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return MM_FAIL_ERRNO(err, "%s: cannot open", path);
    buffer = mm_alloc(READ_BYTES);
    if (!buffer) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
        goto done;
    }
    MM_GO(mm_sha256_init(&hash, err));
    for (;;) {
        const ssize_t got = read(fd, buffer, READ_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = MM_FAIL_ERRNO(err, "%s: cannot read", path);
            goto done;
        }
        if (got == 0) break;
        mm_sha256_update(&hash, buffer, (size_t)got);
        total += (uint64_t)got;
    }
    mm_sha256_final(&hash, digest);
    if (bytes) *bytes = total;
done:
    mm_sha256_drop(&hash);
    mm_free(buffer);
    close(fd);
    return status;
}
