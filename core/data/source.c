/* Bytes of a data file: plain, gzip (zlib) or zstd behind one read function. The subtle rule: a
 * compressed file must end at the end of a member or frame, otherwise it was cut short and is
 * refused instead of being read as a smaller data set. */
#include "core/data/source.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { INPUT_BYTES = 1 << 17, GZIP_WINDOW_BITS = 15 + 16 /* 16: gzip header and checksum */ };

typedef enum source_kind { SOURCE_UNKNOWN = 0, SOURCE_PLAIN, SOURCE_GZIP, SOURCE_ZSTD } source_kind;

struct mm_source {
    int fd;
    source_kind kind;
    char *path;
    uint64_t bytes_done;
    mm_sha256 hash;
    bool is_hashing;
    z_stream gzip;
    bool is_gzip_open;
    ZSTD_DCtx *zstd;
    bool is_inside; // of a gzip member or zstd frame: the end of the file here means damage
    bool is_at_end; // of the file
    size_t next;    // unread input is input[next .. limit)
    size_t limit;
    unsigned char input[INPUT_BYTES];
};

mm_status mm_source_open(mm_source **out, const char *path, mm_err *err)
{
    mm_status status = MM_OK;
    mm_source *source = NULL;
    struct stat info;
    *out = NULL;
    // The kind is looked at before opening: opening a named pipe would wait for its writer.
    if (stat(path, &info) != 0) {
        if (errno == ENOENT) return MM_FAIL(err, MM_ENOTFOUND, "%s: no such file", path);
        return MM_FAIL_ERRNO(err, "%s: cannot open", path);
    }
    if (S_ISDIR(info.st_mode))
        return MM_FAIL(err, MM_EFORMAT, "%s: expected a data file, found a folder", path);
    if (!S_ISREG(info.st_mode))
        return MM_FAIL(err, MM_EFORMAT, "%s: expected a regular file", path);
    if (info.st_size == 0) return MM_FAIL(err, MM_EFORMAT, "%s: file is empty", path);
    source = mm_calloc(1, sizeof *source);
    if (!source) return MM_FAIL(err, MM_ENOMEM, "%s: no memory to read it", path);
    source->path = mm_strdup(path);
    source->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot open", path);
        goto done;
    }
    if (!source->path) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory to read it", path);
        goto done;
    }
    // Advice only: a failure changes nothing but speed.
    (void)posix_fadvise(source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *out = source;
    source = NULL;
done:
    mm_source_close(source);
    return status;
}

mm_status mm_source_hash_start(mm_source *source, mm_err *err)
{
    MM_ASSERT(source->kind == SOURCE_UNKNOWN && !source->is_hashing);
    MM_TRY(mm_sha256_init(&source->hash, err));
    source->is_hashing = true;
    return MM_OK;
}

// Puts more of the file behind the unread input.
static mm_status fill(mm_source *source, mm_err *err)
{
    memmove(source->input, source->input + source->next, source->limit - source->next);
    source->limit -= source->next;
    source->next = 0;
    while (!source->is_at_end && source->limit < INPUT_BYTES) {
        unsigned char *at = source->input + source->limit;
        const ssize_t got = read(source->fd, at, INPUT_BYTES - source->limit);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return MM_FAIL_ERRNO(err, "%s: cannot read", source->path);
        if (got == 0) source->is_at_end = true;
        if (source->is_hashing) mm_sha256_update(&source->hash, at, (size_t)got);
        source->limit += (size_t)got;
        source->bytes_done += (uint64_t)got;
    }
    return MM_OK;
}

// Of the unread input; needs at least four bytes of it where the file has them.
static source_kind kind_of_input(const mm_source *source)
{
    const unsigned char *in = source->input + source->next;
    const size_t bytes = source->limit - source->next;
    if (bytes >= 2 && in[0] == 0x1F && in[1] == 0x8B) return SOURCE_GZIP;
    if (bytes >= 4 && in[0] == 0x28 && in[1] == 0xB5 && in[2] == 0x2F && in[3] == 0xFD)
        return SOURCE_ZSTD;
    // A skippable frame; parallel compressors write one first.
    if (bytes >= 4 && (in[0] & 0xF0) == 0x50 && in[1] == 0x2A && in[2] == 0x4D && in[3] == 0x18)
        return SOURCE_ZSTD;
    return SOURCE_PLAIN;
}

static bool has_suffix(const char *text, const char *suffix)
{
    const size_t length = strlen(text);
    const size_t tail = strlen(suffix);
    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

static mm_status start(mm_source *source, mm_err *err)
{
    MM_TRY(fill(source, err));
    source->kind = kind_of_input(source);
    if (source->kind == SOURCE_PLAIN &&
        (has_suffix(source->path, ".gz") || has_suffix(source->path, ".zst")))
        return MM_FAIL(err, MM_ECORRUPT, "%s: the name says compressed, the content is not",
                       source->path);
    if (source->kind == SOURCE_GZIP) {
        if (inflateInit2(&source->gzip, GZIP_WINDOW_BITS) != Z_OK)
            return MM_FAIL(err, MM_ENOMEM, "%s: no memory to decompress", source->path);
        source->is_gzip_open = true;
    }
    if (source->kind == SOURCE_ZSTD) {
        source->zstd = ZSTD_createDCtx();
        if (!source->zstd)
            return MM_FAIL(err, MM_ENOMEM, "%s: no memory to decompress", source->path);
    }
    return MM_OK;
}

static mm_status fail_truncated(const mm_source *source, mm_err *err)
{
    return MM_FAIL(err, MM_ECORRUPT,
                   "%s: compressed data ends too early, after %llu bytes (a broken download?)",
                   source->path, (unsigned long long)source->bytes_done);
}

static mm_status read_gzip(mm_source *source, void *buffer, size_t capacity, size_t *got,
                           mm_err *err)
{
    z_stream *gzip = &source->gzip;
    gzip->next_out = buffer;
    gzip->avail_out = capacity > INT_MAX ? INT_MAX : (unsigned)capacity;
    const unsigned wanted = gzip->avail_out;
    while (gzip->avail_out == wanted) {
        if (source->limit - source->next < 4) MM_TRY(fill(source, err));
        if (source->next == source->limit) {
            if (source->is_inside) return fail_truncated(source, err);
            break;
        }
        if (!source->is_inside) {
            // Members may follow one another; anything else behind one is damage.
            if (kind_of_input(source) != SOURCE_GZIP)
                return MM_FAIL(err, MM_ECORRUPT, "%s: something else follows the gzip data",
                               source->path);
            inflateReset(gzip);
            source->is_inside = true;
        }
        gzip->next_in = source->input + source->next;
        gzip->avail_in = (unsigned)(source->limit - source->next);
        const int code = inflate(gzip, Z_NO_FLUSH);
        const size_t used = source->limit - source->next - gzip->avail_in;
        source->next += used;
        if (code == Z_STREAM_END) {
            source->is_inside = false;
        } else if (code == Z_BUF_ERROR || (code == Z_OK && used == 0)) {
            if (source->is_at_end && source->next == source->limit)
                return fail_truncated(source, err);
        } else if (code == Z_MEM_ERROR) {
            return MM_FAIL(err, MM_ENOMEM, "%s: no memory to decompress", source->path);
        } else if (code != Z_OK) {
            return MM_FAIL(err, MM_ECORRUPT, "%s: gzip data is damaged before byte %llu: %s",
                           source->path, (unsigned long long)source->bytes_done,
                           gzip->msg ? gzip->msg : "unknown");
        }
    }
    *got = wanted - gzip->avail_out;
    return MM_OK;
}

static mm_status read_zstd(mm_source *source, void *buffer, size_t capacity, size_t *got,
                           mm_err *err)
{
    ZSTD_outBuffer output = {.dst = buffer, .size = capacity};
    while (output.pos == 0) {
        if (source->next == source->limit) MM_TRY(fill(source, err));
        const bool is_dry = source->next == source->limit;
        if (is_dry && !source->is_inside) break;
        ZSTD_inBuffer input = {.src = source->input, .size = source->limit, .pos = source->next};
        const size_t code = ZSTD_decompressStream(source->zstd, &output, &input);
        if (ZSTD_isError(code))
            return MM_FAIL(err, MM_ECORRUPT, "%s: zstd data is damaged before byte %llu: %s",
                           source->path, (unsigned long long)source->bytes_done,
                           ZSTD_getErrorName(code));
        source->next = input.pos;
        source->is_inside = code != 0;
        // Without input, output can only be what the decoder still held.
        if (is_dry && output.pos == 0) return fail_truncated(source, err);
    }
    *got = output.pos;
    return MM_OK;
}

mm_status mm_source_read(mm_source *source, void *buffer, size_t capacity, size_t *got, mm_err *err)
{
    MM_ASSERT(capacity > 0);
    *got = 0;
    if (source->kind == SOURCE_UNKNOWN) MM_TRY(start(source, err));
    if (source->kind == SOURCE_GZIP) return read_gzip(source, buffer, capacity, got, err);
    if (source->kind == SOURCE_ZSTD) return read_zstd(source, buffer, capacity, got, err);
    if (source->next == source->limit) MM_TRY(fill(source, err));
    const size_t unread = source->limit - source->next;
    *got = unread < capacity ? unread : capacity;
    memcpy(buffer, source->input + source->next, *got);
    source->next += *got;
    return MM_OK;
}

void mm_source_hash_end(mm_source *source, uint8_t digest[MM_SHA256_BYTES])
{
    MM_ASSERT(source->is_hashing && source->is_at_end);
    source->is_hashing = false;
    mm_sha256_final(&source->hash, digest);
}

const char *mm_source_path(const mm_source *source) { return source->path; }
uint64_t mm_source_bytes_done(const mm_source *source) { return source->bytes_done; }

void mm_source_close(mm_source *source)
{
    if (!source) return;
    if (source->is_gzip_open) inflateEnd(&source->gzip);
    ZSTD_freeDCtx(source->zstd);
    if (source->is_hashing) mm_sha256_drop(&source->hash);
    if (source->fd >= 0) close(source->fd);
    mm_free(source->path);
    mm_free(source);
}
