/* Chunks: byte planes, zstd, content addresses.
 *
 * The high bytes of neighbouring floats (sign and exponent) look alike, the low ones are noise:
 * apart from each other the first compress and the second do not spoil them. What does not shrink
 * by 3 % is stored as it is. Everything read is verified: sizes before decompressing, the hash
 * after.
 */
#include "store/chunk.h"

#include "store/db.h"

#include <inttypes.h>
#include <string.h>
#include <zstd.h>

enum { ZSTD_LEVEL = 1 };
static const double RATIO_RAW = 0.97;

mm_status mm_chunk_codec_init(mm_chunk_codec *codec, mm_err *err)
{
    codec->packed_bytes = ZSTD_compressBound(MM_CHUNK_BYTES);
    codec->compressor = ZSTD_createCCtx();
    codec->decompressor = ZSTD_createDCtx();
    codec->planes = mm_alloc(MM_CHUNK_BYTES);
    codec->packed = mm_alloc(codec->packed_bytes);
    if (codec->compressor && codec->decompressor && codec->planes && codec->packed) return MM_OK;
    mm_chunk_codec_drop(codec);
    return MM_FAIL(err, MM_ENOMEM, "out of memory for compressing");
}

void mm_chunk_codec_drop(mm_chunk_codec *codec)
{
    ZSTD_freeCCtx(codec->compressor);
    ZSTD_freeDCtx(codec->decompressor);
    mm_free(codec->planes);
    mm_free(codec->packed);
    *codec = (mm_chunk_codec){0};
}

// Byte b of element i goes to plane b, place i; what is left over of a broken element follows.
// Inlined with a constant element size, so that the compiler makes vector code of it.
static inline __attribute__((always_inline)) void
split(uint8_t *restrict planes, const uint8_t *restrict raw, size_t bytes, size_t element_bytes)
{
    const size_t n = bytes / element_bytes;
    for (size_t b = 0; b < element_bytes; b++) {
        uint8_t *restrict plane = planes + b * n;
        for (size_t i = 0; i < n; i++) {
            plane[i] = raw[i * element_bytes + b];
        }
    }
    memcpy(planes + n * element_bytes, raw + n * element_bytes, bytes - n * element_bytes);
}

static inline __attribute__((always_inline)) void
join(uint8_t *restrict raw, const uint8_t *restrict planes, size_t bytes, size_t element_bytes)
{
    const size_t n = bytes / element_bytes;
    for (size_t i = 0; i < n; i++) {
        for (size_t b = 0; b < element_bytes; b++) {
            raw[i * element_bytes + b] = planes[b * n + i];
        }
    }
    memcpy(raw + n * element_bytes, planes + n * element_bytes, bytes - n * element_bytes);
}

static void split_planes(uint8_t *planes, const uint8_t *raw, size_t bytes, size_t element_bytes)
{
    switch (element_bytes) {
    case 2:
        split(planes, raw, bytes, 2);
        break;
    case 4:
        split(planes, raw, bytes, 4);
        break;
    default:
        split(planes, raw, bytes, 8);
    }
}

static void join_planes(uint8_t *raw, const uint8_t *planes, size_t bytes, size_t element_bytes)
{
    switch (element_bytes) {
    case 2:
        join(raw, planes, bytes, 2);
        break;
    case 4:
        join(raw, planes, bytes, 4);
        break;
    default:
        join(raw, planes, bytes, 8);
    }
}

static bool is_element_size(int64_t bytes)
{
    return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
}

static mm_status compress(mm_chunk_codec *codec, mm_chunk *chunk, mm_err *err)
{
    const int32_t element = is_element_size(chunk->element_bytes) ? chunk->element_bytes : 1;
    const uint8_t *source = chunk->raw;
    if (element > 1) {
        split_planes(codec->planes, chunk->raw, chunk->raw_bytes, (size_t)element);
        source = codec->planes;
    }
    const size_t bytes = ZSTD_compressCCtx(codec->compressor, codec->packed, codec->packed_bytes,
                                           source, chunk->raw_bytes, ZSTD_LEVEL);
    if (ZSTD_isError(bytes)) {
        return MM_FAIL(err, MM_ENOMEM, "cannot compress: %s", ZSTD_getErrorName(bytes));
    }
    if ((double)bytes > RATIO_RAW * (double)chunk->raw_bytes) {
        chunk->codec = 0;
        chunk->bytes = chunk->raw_bytes;
        return MM_OK;
    }
    chunk->codec = element;
    chunk->bytes = bytes;
    chunk->data = mm_alloc(bytes);
    if (!chunk->data) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    memcpy(chunk->data, codec->packed, bytes);
    return MM_OK;
}

static mm_status find_chunk(mm_store *store, const mm_chunk *chunk, int64_t *id, mm_err *err)
{
    *id = 0;
    return mm_db_int(store, id, "SELECT id FROM chunk WHERE sha256 = ?1",
                     MM_VALUES(mm_v_bytes(chunk->sha256, sizeof chunk->sha256)), err);
}

mm_status mm_chunk_encode(mm_store *store, mm_chunk_codec *codec, mm_chunk *chunk, mm_err *err)
{
    MM_ASSERT(chunk->raw_bytes <= MM_CHUNK_BYTES && !chunk->data);
    mm_sha256_of(chunk->raw, chunk->raw_bytes, chunk->sha256);
    int64_t id;
    MM_TRY(find_chunk(store, chunk, &id, err));
    chunk->is_known = id != 0;
    return chunk->is_known ? MM_OK : compress(codec, chunk, err);
}

void mm_chunk_drop(mm_chunk *chunk)
{
    mm_free(chunk->data);
    *chunk = (mm_chunk){0};
}

mm_status mm_chunk_put(mm_store *store, mm_chunk_codec *codec, mm_chunk *chunk, int64_t *chunk_id,
                       mm_err *err)
{
    MM_TRY(find_chunk(store, chunk, chunk_id, err));
    if (*chunk_id != 0) return MM_OK;
    // It was there when it was encoded and has been removed since.
    if (chunk->is_known) {
        MM_TRY(compress(codec, chunk, err));
        chunk->is_known = false;
    }
    MM_TRY(
        mm_db_run(store,
                  "INSERT INTO chunk (sha256, codec, raw_bytes, stored_bytes, data) "
                  "VALUES (?1, ?2, ?3, ?4, ?5)",
                  MM_VALUES(mm_v_bytes(chunk->sha256, sizeof chunk->sha256), mm_v_int(chunk->codec),
                            mm_v_int((int64_t)chunk->raw_bytes), mm_v_int((int64_t)chunk->bytes),
                            mm_v_bytes(chunk->data ? chunk->data : chunk->raw, chunk->bytes)),
                  err));
    return mm_db_int(store, chunk_id, "SELECT last_insert_rowid()", MM_NO_VALUES, err);
}

typedef struct packed_row {
    const uint8_t *sha256; /* borrowed from the statement, as is data */
    const uint8_t *data;
    size_t bytes;
    int64_t codec;
} packed_row;

static mm_status unpack(mm_chunk_codec *codec, int64_t id, const packed_row *row, uint8_t *raw,
                        size_t raw_bytes, mm_err *err)
{
    if (row->codec == 0) {
        if (row->bytes != raw_bytes) {
            return MM_FAIL(err, MM_ECORRUPT, "chunk %" PRId64 ": %zu bytes, expected %zu", id,
                           row->bytes, raw_bytes);
        }
        if (raw_bytes > 0) memcpy(raw, row->data, raw_bytes);
        return MM_OK;
    }
    if (!is_element_size(row->codec)) {
        return MM_FAIL(err, MM_ECORRUPT, "chunk %" PRId64 ": unknown codec %" PRId64, id,
                       row->codec);
    }
    const size_t element = (size_t)row->codec;
    // The target is as large as the row says, at most 1 MiB, whatever the compressed data claims.
    uint8_t *target = element > 1 ? codec->planes : raw;
    const size_t bytes =
        ZSTD_decompressDCtx(codec->decompressor, target, raw_bytes, row->data, row->bytes);
    if (ZSTD_isError(bytes) || bytes != raw_bytes) {
        return MM_FAIL(err, MM_ECORRUPT, "chunk %" PRId64 ": does not decompress (%s)", id,
                       ZSTD_isError(bytes) ? ZSTD_getErrorName(bytes) : "wrong length");
    }
    if (element > 1) join_planes(raw, codec->planes, raw_bytes, element);
    return MM_OK;
}

mm_status mm_chunk_get(mm_store *store, mm_chunk_codec *codec, int64_t chunk_id, uint8_t *raw,
                       size_t raw_bytes, uint8_t sha256[MM_SHA256_BYTES], mm_err *err)
{
    MM_ASSERT(raw_bytes <= MM_CHUNK_BYTES);
    sqlite3_stmt *s;
    MM_TRY(mm_db_query(store, &s, "SELECT sha256, codec, raw_bytes, data FROM chunk WHERE id = ?1",
                       MM_VALUES(mm_v_int(chunk_id)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, s, &has_row, err));
    if (!has_row) return MM_FAIL(err, MM_ECORRUPT, "chunk %" PRId64 " is missing", chunk_id);
    mm_status status = MM_OK;
    const packed_row row = {
        .sha256 = sqlite3_column_blob(s, 0),
        .codec = sqlite3_column_int64(s, 1),
        .data = sqlite3_column_blob(s, 3),
        .bytes = (size_t)sqlite3_column_bytes(s, 3),
    };
    if (sqlite3_column_bytes(s, 0) != MM_SHA256_BYTES ||
        sqlite3_column_int64(s, 2) != (int64_t)raw_bytes) {
        status = MM_FAIL(err, MM_ECORRUPT,
                         "chunk %" PRId64 ": its row says %lld bytes, %zu were expected", chunk_id,
                         (long long)sqlite3_column_int64(s, 2), raw_bytes);
        goto done;
    }
    MM_GO(unpack(codec, chunk_id, &row, raw, raw_bytes, err));
    mm_sha256_of(raw, raw_bytes, sha256);
    if (memcmp(sha256, row.sha256, MM_SHA256_BYTES) != 0) {
        status = MM_FAIL(err, MM_ECORRUPT,
                         "chunk %" PRId64 ": its content does not match its SHA-256", chunk_id);
    }
done:
    mm_db_end(s);
    return status;
}
