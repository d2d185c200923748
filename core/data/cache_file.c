/* The cache file: building it in one pass over the rows, and proving that one is whole.
 *
 * Tokens stream into the file while the two tables of the index stream into unnamed temporary
 * files, which are copied behind them at the end: memory stays bounded however many documents there
 * are. The header is written last, over the zeros that hold its place. */
#include "core/data/cache_file.h"

#include "core/data/documents.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 1 << 20,
    SPILL_BYTES = 1 << 18,
    PROGRESS_BYTES = 1 << 20,  // of the data file, between two calls
    NARROW_VOCAB_MAX = 1 << 15 // the sixteenth bit tells whether the token is learned
};

static const char MAGIC[8] = {'M', 'M', 'T', 'O', 'K', 'E', 'N', '\n'};

_Static_assert(sizeof(mm_cache_header) == 288, "the header is a file format");
_Static_assert(sizeof(mm_cache_header) % 8 == 0, "what follows it is aligned");
_Static_assert(sizeof(mm_cache_document) == 16, "the index is a file format");
_Static_assert(sizeof(mm_cache_rendering) == 16, "the index is a file format");
_Static_assert((int)MM_CACHE_WIDE_LEARNED == (int)MM_ID_LEARNED, "wide tokens are written as made");
_Static_assert(offsetof(mm_cache_header, header_sha256) + MM_SHA256_BYTES ==
                   sizeof(mm_cache_header),
               "the header's checksum covers all of it");

/* A table that is not known in full until the end. */
typedef struct spill {
    int fd; // unnamed: vanishes with the process
    size_t used;
    unsigned char *buffer;
    uint64_t bytes; // in the file
} spill;

typedef struct cache_build {
    mm_cache_header *header;
    mm_file_writer file;
    mm_sha256 payload;
    bool is_hashing;
    spill documents;
    spill renderings;
    uint64_t token_count;
    size_t used; // bytes of the buffer
    unsigned char *buffer;
    const mm_cache_options *options;
    uint64_t told; // bytes of the data file at the last call for progress
} cache_build;

static mm_status flush(cache_build *build, mm_err *err)
{
    mm_sha256_update(&build->payload, build->buffer, build->used);
    MM_TRY(mm_file_writer_write(&build->file, build->buffer, build->used, err));
    build->used = 0;
    return MM_OK;
}

static mm_status put(cache_build *build, const void *data, size_t bytes, mm_err *err)
{
    if (build->used + bytes > BUFFER_BYTES) MM_TRY(flush(build, err));
    MM_ASSERT(bytes <= BUFFER_BYTES);
    memcpy(build->buffer + build->used, data, bytes);
    build->used += bytes;
    return MM_OK;
}

static mm_status put_tokens(cache_build *build, const int32_t *ids, size_t count, mm_err *err)
{
    const size_t token_bytes = build->header->token_bytes;
    const uint32_t vocab_size = build->header->vocab_size;
    build->token_count += count;
    while (count > 0) {
        if (BUFFER_BYTES - build->used < token_bytes) MM_TRY(flush(build, err));
        const size_t room = (BUFFER_BYTES - build->used) / token_bytes;
        const size_t n = count < room ? count : room;
        unsigned char *out = build->buffer + build->used;
        uint32_t most = 0;
        for (size_t i = 0; i < n; i++) {
            const uint32_t wide = (uint32_t)ids[i]; // one below zero is a large one here
            const uint32_t id = wide & ~(uint32_t)MM_ID_LEARNED;
            const uint16_t narrow = (uint16_t)(id | (id != wide ? MM_CACHE_NARROW_LEARNED : 0));
            most = id > most ? id : most;
            if (token_bytes == sizeof narrow)
                memcpy(out + i * sizeof narrow, &narrow, sizeof narrow);
            else
                memcpy(out + i * sizeof wide, &wide, sizeof wide);
        }
        MM_ASSERT(most < vocab_size);
        build->used += n * token_bytes;
        ids += n;
        count -= n;
    }
    return MM_OK;
}

static mm_status spill_flush(spill *table, const char *path, mm_err *err)
{
    const unsigned char *next = table->buffer;
    while (table->used > 0) {
        const ssize_t got = write(table->fd, next, table->used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return MM_FAIL_ERRNO(err, "%s: cannot write its index", path);
        next += got;
        table->used -= (size_t)got;
        table->bytes += (uint64_t)got;
    }
    return MM_OK;
}

static mm_status spill_put(spill *table, const void *entry, size_t bytes, const char *path,
                           mm_err *err)
{
    if (table->used + bytes > SPILL_BYTES) MM_TRY(spill_flush(table, path, err));
    memcpy(table->buffer + table->used, entry, bytes);
    table->used += bytes;
    return MM_OK;
}

static mm_status spill_open(spill *table, const char *path, mm_err *err)
{
    mm_str name = {0};
    table->buffer = mm_alloc(SPILL_BYTES);
    if (!table->buffer) return MM_FAIL(err, MM_ENOMEM, "%s: no memory to build it", path);
    mm_str_addf(&name, "%s.tmp-index-XXXXXX", path);
    mm_status status = mm_str_check(&name, err);
    if (status == MM_OK) {
        table->fd = mkostemp(name.data, O_CLOEXEC);
        if (table->fd < 0)
            status = MM_FAIL_ERRNO(err, "%s: cannot create", path);
        else
            unlink(name.data);
    }
    mm_str_drop(&name);
    return status;
}

static void spill_drop(spill *table)
{
    if (table->fd >= 0) close(table->fd);
    mm_free(table->buffer);
}

// Copies a table behind what is written.
static mm_status append_table(cache_build *build, spill *table, mm_err *err)
{
    const char *path = build->file.path;
    MM_TRY(spill_flush(table, path, err));
    if (lseek(table->fd, 0, SEEK_SET) != 0)
        return MM_FAIL_ERRNO(err, "%s: cannot rewind its index", path);
    for (uint64_t left = table->bytes; left > 0;) {
        MM_TRY(flush(build, err));
        const size_t wanted = left < BUFFER_BYTES ? (size_t)left : BUFFER_BYTES;
        const ssize_t got = read(table->fd, build->buffer, wanted);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return MM_FAIL_ERRNO(err, "%s: cannot read its index", path);
        if (got == 0) return MM_FAIL(err, MM_EIO, "%s: its index is cut short", path);
        build->used = (size_t)got;
        left -= (uint64_t)got;
    }
    return flush(build, err);
}

static mm_status tell_progress(cache_build *build, uint64_t bytes_done, mm_err *err)
{
    const mm_cache_options *options = build->options;
    build->told = bytes_done;
    if (!options->progress ||
        options->progress(options->context, bytes_done, build->header->data_bytes))
        return MM_OK;
    return MM_FAIL(err, MM_ECANCELED, "%s: tokenizing was stopped", options->path);
}

// The document's entry and those of its renderings, which begin at renderings[first].
static mm_status put_document(cache_build *build, const mm_document_block *block,
                              const mm_document *document, size_t first, mm_err *err)
{
    mm_cache_header *header = build->header;
    const char *path = build->file.path;
    size_t begin = first > 0 ? block->renderings[first - 1].end : 0;
    for (size_t i = first; i < document->renderings_end; i++) {
        const mm_rendering *made = &block->renderings[i];
        const mm_cache_rendering entry = {.end = build->token_count + made->end,
                                          .first_learned = made->first_learned,
                                          .n_learned = made->n_learned};
        // The first rendering of each side counts.
        const size_t place = i - first;
        const size_t rejected = document->flags & MM_DOCUMENT_VARIES ? 2 : 1;
        if (place == 0 || (place == rejected && document->flags & MM_DOCUMENT_IS_PAIR))
            header->row_tokens += made->end - begin;
        begin = made->end;
        MM_TRY(spill_put(&build->renderings, &entry, sizeof entry, path, err));
    }
    header->renderings += document->renderings_end - first;
    if (header->renderings > UINT32_MAX)
        return MM_FAIL(err, MM_ELIMIT, "%s: more than %u rows", build->options->path, UINT32_MAX);
    const mm_cache_document entry = {.key = document->key,
                                     .renderings_end = (uint32_t)header->renderings,
                                     .flags = document->flags};
    header->documents++;
    return spill_put(&build->documents, &entry, sizeof entry, path, err);
}

static mm_status put_block(void *context, const mm_document_block *block, mm_err *err)
{
    cache_build *build = context;
    size_t first = 0;
    for (size_t i = 0; i < block->count; i++) {
        MM_TRY(put_document(build, block, &block->documents[i], first, err));
        first = block->documents[i].renderings_end;
    }
    if (first > 0) MM_TRY(put_tokens(build, block->ids, block->renderings[first - 1].end, err));
    if (block->bytes_done - build->told < PROGRESS_BYTES) return MM_OK;
    return tell_progress(build, block->bytes_done, err);
}

static mm_status put_rows(cache_build *build, mm_row_reader *reader, const mm_tokenizer *tokenizer,
                          mm_err *err)
{
    const mm_documents documents = {.path = build->options->path,
                                    .tokenizer = tokenizer,
                                    .mask = (mm_mask_kind)build->header->mask,
                                    .pairs = build->options->pairs,
                                    .threads = build->options->threads,
                                    .take = put_block,
                                    .context = build};
    MM_TRY(mm_documents_each(&documents, reader, err));
    return tell_progress(build, mm_row_reader_bytes_done(reader), err);
}

static void seal_header(mm_cache_header *header)
{
    mm_sha256_of(header, offsetof(mm_cache_header, header_sha256), header->header_sha256);
}

// The counts, the layout and the checksums; then the header goes over its place.
static mm_status finish(cache_build *build, const mm_row_report *report, mm_err *err)
{
    static const unsigned char ZEROS[8] = {0};
    mm_cache_header *header = build->header;
    const uint64_t token_bytes = build->token_count * header->token_bytes;
    const size_t padding = (size_t)((8 - token_bytes % 8) % 8);
    MM_TRY(put(build, ZEROS, padding, err));
    MM_TRY(append_table(build, &build->documents, err));
    MM_TRY(append_table(build, &build->renderings, err));
    mm_sha256_final(&build->payload, header->payload_sha256);
    build->is_hashing = false;
    header->tokens = build->token_count;
    header->bad_rows = (uint64_t)report->bad;
    header->index_offset = sizeof *header + token_bytes + padding;
    header->file_bytes = header->index_offset + header->documents * sizeof(mm_cache_document) +
                         header->renderings * sizeof(mm_cache_rendering);
    seal_header(header);
    if (pwrite(build->file.fd, header, sizeof *header, 0) != (ssize_t)sizeof *header)
        return MM_FAIL_ERRNO(err, "%s: cannot write", build->file.path);
    return mm_file_writer_commit(&build->file, err);
}

static mm_status build_open(cache_build *build, const char *path, mm_err *err)
{
    static const mm_cache_header ZERO = {0};
    build->buffer = mm_alloc(BUFFER_BYTES);
    if (!build->buffer) return MM_FAIL(err, MM_ENOMEM, "%s: no memory to build it", path);
    MM_TRY(mm_sha256_init(&build->payload, err));
    build->is_hashing = true;
    MM_TRY(mm_file_writer_open(&build->file, path, err));
    MM_TRY(spill_open(&build->documents, path, err));
    MM_TRY(spill_open(&build->renderings, path, err));
    return mm_file_writer_write(&build->file, &ZERO, sizeof ZERO, err);
}

mm_status mm_cache_build(mm_cache_header *header, const char *path, mm_row_reader *reader,
                         const mm_cache_options *options, const mm_tokenizer *tokenizer,
                         mm_err *err)
{
    mm_status status = MM_OK;
    uint8_t digest[MM_SHA256_BYTES];
    cache_build build = {.header = header,
                         .documents = {.fd = -1},
                         .renderings = {.fd = -1},
                         .file = {.fd = -1},
                         .options = options};
    memcpy(header->magic, MAGIC, sizeof header->magic);
    header->version = MM_CACHE_VERSION;
    header->token_bytes = header->vocab_size <= NARROW_VOCAB_MAX ? 2 : 4;
    header->documents = header->renderings = header->row_tokens = 0;
    MM_GO(build_open(&build, path, err));
    MM_GO(mm_row_reader_hash_start(reader, err));
    MM_GO(put_rows(&build, reader, tokenizer, err));
    MM_GO(mm_row_report_check(mm_row_reader_report(reader), options->path, options->skip_bad_rows,
                              err));
    mm_row_reader_hash_end(reader, digest);
    if (memcmp(digest, header->data_sha256, sizeof digest) != 0) {
        status =
            MM_FAIL(err, MM_EFORMAT, "%s: the file changed while it was being read", options->path);
        goto done;
    }
    MM_GO(finish(&build, mm_row_reader_report(reader), err));
done:
    if (build.is_hashing) mm_sha256_drop(&build.payload);
    spill_drop(&build.documents);
    spill_drop(&build.renderings);
    mm_file_writer_drop(&build.file);
    mm_free(build.buffer);
    return status;
}

static bool is_layout_sound(const mm_cache_header *header, uint64_t file_bytes)
{
    if (header->token_bytes != 2 && header->token_bytes != 4) return false;
    if (header->token_bytes == 2 && header->vocab_size > NARROW_VOCAB_MAX) return false;
    if (header->vocab_size == 0 || header->vocab_size > MM_CACHE_WIDE_LEARNED) return false;
    if (header->file_bytes != file_bytes || header->documents == 0) return false;
    if (header->documents > file_bytes / sizeof(mm_cache_document) ||
        header->renderings > file_bytes / sizeof(mm_cache_rendering) ||
        header->tokens > file_bytes / header->token_bytes)
        return false;
    const uint64_t tokens = header->tokens * header->token_bytes;
    return header->index_offset == sizeof *header + tokens + (8 - tokens % 8) % 8 &&
           header->file_bytes == header->index_offset +
                                     header->documents * sizeof(mm_cache_document) +
                                     header->renderings * sizeof(mm_cache_rendering);
}

// Every id is below the vocabulary: the engine indexes tables with them.
static bool are_tokens_sound(const mm_cache_header *header, const unsigned char *payload)
{
    uint32_t most = 0;
    if (header->token_bytes == 2) {
        const uint16_t *tokens = (const uint16_t *)(const void *)payload;
        for (uint64_t i = 0; i < header->tokens; i++) {
            const uint32_t id = tokens[i] & (MM_CACHE_NARROW_LEARNED - 1);
            most = id > most ? id : most;
        }
    } else {
        const uint32_t *tokens = (const uint32_t *)(const void *)payload;
        for (uint64_t i = 0; i < header->tokens; i++) {
            const uint32_t id = tokens[i] & ~(uint32_t)MM_CACHE_WIDE_LEARNED;
            most = id > most ? id : most;
        }
    }
    return most < header->vocab_size;
}

// Renderings end where the next begins, and each document has as many as its flags say.
static bool are_tables_sound(const mm_cache_header *header, const unsigned char *tables)
{
    const mm_cache_document *documents = (const mm_cache_document *)(const void *)tables;
    const mm_cache_rendering *renderings =
        (const mm_cache_rendering *)(const void *)(documents + header->documents);
    uint64_t end = 0;
    for (uint64_t i = 0; i < header->documents; i++) {
        if (documents[i].flags & ~(uint32_t)MM_DOCUMENT_FLAGS) return false;
        if (!(documents[i].flags & MM_DOCUMENT_IS_PAIR) != !header->pairs) return false;
        end += mm_cache_renderings(documents[i].flags);
        if (documents[i].renderings_end != end) return false;
    }
    if (end != header->renderings) return false;
    end = 0;
    for (uint64_t i = 0; i < header->renderings; i++) {
        const mm_cache_rendering *r = &renderings[i];
        if (r->end <= end || r->end - end > UINT32_MAX) return false;
        const uint64_t length = r->end - end;
        if (r->first_learned > length || r->n_learned > length - r->first_learned) return false;
        end = r->end;
    }
    return end == header->tokens;
}

uint32_t mm_cache_renderings(uint32_t flags)
{
    return 1 + (flags & MM_DOCUMENT_VARIES ? 1U : 0U) + (flags & MM_DOCUMENT_IS_PAIR ? 1U : 0U) +
           (flags & MM_DOCUMENT_REJECTED_VARIES ? 1U : 0U);
}

bool mm_cache_is_valid(const mm_file_map *map, const uint8_t key[MM_SHA256_BYTES])
{
    mm_cache_header header;
    uint8_t digest[MM_SHA256_BYTES];
    if (map->bytes < sizeof header) return false;
    memcpy(&header, map->data, sizeof header);
    mm_sha256_of(&header, offsetof(mm_cache_header, header_sha256), digest);
    if (memcmp(header.magic, MAGIC, sizeof header.magic) != 0 ||
        header.version != MM_CACHE_VERSION ||
        memcmp(digest, header.header_sha256, sizeof digest) != 0 ||
        memcmp(key, header.key, sizeof header.key) != 0 || !is_layout_sound(&header, map->bytes))
        return false;
    const unsigned char *payload = map->data + sizeof header;
    mm_sha256_of(payload, map->bytes - sizeof header, digest);
    if (memcmp(digest, header.payload_sha256, sizeof digest) != 0) return false;
    return are_tables_sound(&header, map->data + header.index_offset) &&
           are_tokens_sound(&header, payload);
}
