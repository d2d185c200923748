/* Packed token cache: finding, building and reading one. The order that makes it safe: look without
 * a lock (the common case), take the lock of this cache's name, look again, build, let go. */
#include "core/data/cache.h"

#include "core/base/file.h"
#include "core/data/cache_file.h"
#include "core/data/documents.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct mm_token_cache {
    mm_file_map map;
    mm_cache_info info;
    char *path;
    char tokenizer_hash[MM_CACHE_TOKENIZER_BYTES + 1];
    uint32_t token_bytes;
    const uint16_t *narrow; // one of the two is set
    const uint32_t *wide;
    const mm_cache_document *documents;
    const mm_cache_rendering *renderings;
};

// A folder of our own choosing may turn out not to be usable; then the next one is tried.
static mm_status choose_default_dir(char **out, mm_err *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    mm_str candidates[2] = {{0}, {0}};
    mm_status status = MM_OK;
    *out = NULL;
    if (xdg && xdg[0] == '/') mm_str_addf(&candidates[0], "%s/mmrun", xdg);
    if (home && home[0] == '/') mm_str_addf(&candidates[1], "%s/.cache/mmrun", home);
    for (int i = 0; i < 2 && !*out && status == MM_OK; i++) {
        if (candidates[i].length == 0) continue;
        if (mm_dir_make(candidates[i].data, NULL) != MM_OK) continue;
        if (access(candidates[i].data, R_OK | W_OK | X_OK) != 0) continue;
        status = mm_str_take(&candidates[i], out, NULL, err);
    }
    if (status == MM_OK && !*out) {
        *out = mm_strdup("./.mmrun-cache");
        if (!*out) status = MM_FAIL(err, MM_ENOMEM, "no memory for a path");
    }
    mm_str_drop(&candidates[0]);
    mm_str_drop(&candidates[1]);
    return status;
}

static mm_status choose_dir(const char *wanted, char **out, mm_err *err)
{
    const char *dir = wanted ? wanted : getenv("MMRUN_CACHE");
    if (!dir || !dir[0]) return choose_default_dir(out, err);
    *out = mm_strdup(dir);
    return *out ? MM_OK : MM_FAIL(err, MM_ENOMEM, "no memory for a path");
}

/* What the content of a cache depends on. A format that was given is read more leniently than one
 * that was found, so the two do not share a cache. */
static mm_status make_key(mm_cache_header *header, bool is_forced, mm_err *err)
{
    mm_str text = {0};
    char data[MM_SHA256_HEX_BYTES];
    mm_sha256_hex(header->data_sha256, data);
    mm_str_addf(&text, "cache %d\ndata %s\ntokenizer %.*s\nformat %s%s\nmask %s\npairs %u\n",
                MM_CACHE_VERSION, data, MM_CACHE_TOKENIZER_BYTES, header->tokenizer,
                mm_row_format_name((mm_row_format)header->format), is_forced ? " forced" : "",
                mm_mask_kind_name((mm_mask_kind)header->mask), header->pairs);
    const mm_status status = mm_str_check(&text, err);
    if (status == MM_OK) mm_sha256_of(text.data, text.length, header->key);
    mm_str_drop(&text);
    return status;
}

// Takes the map if it is a sound cache of these options; otherwise leaves *out NULL.
static mm_status try_open(mm_token_cache **out, const char *path, const mm_cache_header *wanted,
                          bool skip_bad_rows, mm_err *err)
{
    mm_file_map map = {0};
    *out = NULL;
    if (!mm_file_exists(path)) return MM_OK;
    // A cache that cannot even be mapped is treated as damaged: building says what is wrong.
    if (mm_file_map_open(&map, path, NULL) != MM_OK || !mm_cache_is_valid(&map, wanted->key)) {
        mm_file_map_drop(&map);
        return MM_OK;
    }
    mm_cache_header header;
    memcpy(&header, map.data, sizeof header);
    const mm_row_report report = {.rows = (int64_t)header.documents,
                                  .bad = (int64_t)header.bad_rows};
    // Built with bad rows skipped, but now they count: reading again tells which they are.
    if (mm_row_report_check(&report, path, skip_bad_rows, NULL) != MM_OK) {
        mm_file_map_drop(&map);
        return MM_OK;
    }
    mm_token_cache *cache = mm_calloc(1, sizeof *cache);
    if (cache) cache->path = mm_strdup(path);
    if (!cache || !cache->path) {
        mm_file_map_drop(&map);
        mm_free(cache);
        return MM_FAIL(err, MM_ENOMEM, "%s: no memory to open it", path);
    }
    cache->map = map;
    cache->token_bytes = header.token_bytes;
    const void *tokens = map.data + sizeof header;
    cache->narrow = header.token_bytes == 2 ? tokens : NULL;
    cache->wide = header.token_bytes == 4 ? tokens : NULL;
    const void *tables = map.data + header.index_offset;
    cache->documents = tables;
    cache->renderings =
        (const mm_cache_rendering *)(const void *)(cache->documents + header.documents);
    cache->info = (mm_cache_info){.data_bytes = header.data_bytes,
                                  .documents = (int64_t)header.documents,
                                  .tokens = (int64_t)header.row_tokens,
                                  .bad_rows = (int64_t)header.bad_rows,
                                  .format = (mm_row_format)header.format,
                                  .mask = (mm_mask_kind)header.mask,
                                  .pairs = header.pairs != 0};
    mm_sha256_hex(header.data_sha256, cache->info.data_sha256);
    memcpy(cache->tokenizer_hash, header.tokenizer, MM_CACHE_TOKENIZER_BYTES);
    *out = cache;
    return MM_OK;
}

/* Waits for the lock file; whoever held it may have removed it, then the lock is on a file that
 * nobody else sees and the attempt is repeated. */
static mm_status lock_take(const char *lock_path, int *fd, mm_err *err)
{
    for (;;) {
        *fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*fd < 0) return MM_FAIL_ERRNO(err, "%s: cannot create", lock_path);
        int code = flock(*fd, LOCK_EX);
        while (code != 0 && errno == EINTR)
            code = flock(*fd, LOCK_EX);
        // Some network file systems have no locks; the rename alone still keeps readers safe there.
        if (code != 0 && errno != ENOLCK && errno != ENOTSUP && errno != ENOSYS) {
            const mm_status status = MM_FAIL_ERRNO(err, "%s: cannot lock", lock_path);
            close(*fd);
            *fd = -1;
            return status;
        }
        struct stat held;
        struct stat seen;
        if (fstat(*fd, &held) == 0 && stat(lock_path, &seen) == 0 && held.st_ino == seen.st_ino &&
            held.st_dev == seen.st_dev)
            return MM_OK;
        close(*fd);
        *fd = -1;
    }
}

static void lock_release(const char *lock_path, int fd)
{
    if (fd < 0) return;
    unlink(lock_path);
    close(fd);
}

// What a killed build left; called under the lock.
static void remove_leftovers(const char *dir, const char *name)
{
    DIR *folder = opendir(dir);
    if (!folder) return;
    mm_str prefix = {0};
    mm_str_addf(&prefix, "%s.tmp-", name);
    for (struct dirent *entry = readdir(folder); entry && prefix.data; entry = readdir(folder))
        if (strncmp(entry->d_name, prefix.data, prefix.length) == 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    mm_str_drop(&prefix);
    closedir(folder);
}

static mm_status build_and_open(mm_token_cache **out, const char *dir, const char *name,
                                mm_cache_header *header, mm_row_reader *reader,
                                const mm_cache_options *options, const mm_tokenizer *tokenizer,
                                mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    mm_str lock_path = {0};
    int lock = -1;
    MM_GO(mm_dir_make(dir, err));
    MM_GO(mm_path_join(&path, dir, name, err));
    mm_str_addf(&lock_path, "%s.lock", path);
    MM_GO(mm_str_check(&lock_path, err));
    MM_GO(lock_take(lock_path.data, &lock, err));
    MM_GO(try_open(out, path, header, options->skip_bad_rows, err));
    if (*out) goto done; // Somebody else built it while we waited.
    remove_leftovers(dir, name);
    MM_GO(mm_cache_build(header, path, reader, options, tokenizer, err));
    MM_GO(try_open(out, path, header, options->skip_bad_rows, err));
    if (!*out)
        status = MM_FAIL(err, MM_ECORRUPT, "%s: damaged right after it was written", path);
    else
        (*out)->info.was_built = true;
done:
    lock_release(lock_path.data, lock);
    mm_str_drop(&lock_path);
    mm_free(path);
    return status;
}

static bool is_of_texts(mm_row_format format)
{
    return format == MM_ROWS_TEXT || format == MM_ROWS_LINES || format == MM_ROWS_JOINED;
}

mm_status mm_token_cache_open(mm_token_cache **out, const mm_cache_options *options,
                              const mm_tokenizer *tokenizer, mm_err *err)
{
    mm_status status = MM_OK;
    mm_row_reader *reader = NULL;
    mm_cache_header header = {0};
    char hex[MM_SHA256_HEX_BYTES];
    char *dir = NULL;
    char *path = NULL;
    mm_str name = {0};
    const char *hash = mm_tokenizer_hash(tokenizer);
    *out = NULL;
    MM_ASSERT(strlen(hash) == MM_CACHE_TOKENIZER_BYTES);
    MM_ASSERT(mm_tokenizer_vocab(tokenizer) > 0);
    MM_GO(choose_dir(options->dir, &dir, err));
    MM_GO(mm_row_reader_open(&reader, options->path, options->format, err));
    MM_GO(mm_sha256_file(options->path, header.data_sha256, &header.data_bytes, err));
    header.format = (uint32_t)mm_row_reader_report(reader)->format;
    // A text is learned as a whole, so stages with different masks share its cache.
    header.mask = is_of_texts((mm_row_format)header.format) ? MM_MASK_ALL : options->mask;
    header.pairs = options->pairs;
    header.vocab_size = (uint32_t)mm_tokenizer_vocab(tokenizer);
    memcpy(header.tokenizer, hash, MM_CACHE_TOKENIZER_BYTES);
    MM_GO(make_key(&header, options->format != MM_ROWS_AUTO, err));
    mm_sha256_hex(header.key, hex);
    mm_str_addf(&name, "%s.tokens", hex);
    MM_GO(mm_str_check(&name, err));
    MM_GO(mm_path_join(&path, dir, name.data, err));
    MM_GO(try_open(out, path, &header, options->skip_bad_rows, err));
    if (!*out)
        status = build_and_open(out, dir, name.data, &header, reader, options, tokenizer, err);
done:
    mm_row_reader_close(reader);
    mm_str_drop(&name);
    mm_free(path);
    mm_free(dir);
    return status;
}

void mm_token_cache_close(mm_token_cache *cache)
{
    if (!cache) return;
    mm_file_map_drop(&cache->map);
    mm_free(cache->path);
    mm_free(cache);
}

const mm_cache_info *mm_token_cache_info(const mm_token_cache *cache) { return &cache->info; }

static const mm_cache_document *document_of(const mm_token_cache *cache, int64_t row)
{
    MM_ASSERT(row >= 0 && row < cache->info.documents);
    return &cache->documents[row];
}

// The number of a rendering among those of all rows.
static uint32_t rendering_of(const mm_token_cache *cache, mm_cached which)
{
    const mm_cache_document *document = document_of(cache, which.row);
    const uint32_t flags = document->flags;
    MM_ASSERT(!which.is_rejected || flags & MM_DOCUMENT_IS_PAIR);
    uint32_t number = document->renderings_end - mm_cache_renderings(flags);
    if (which.is_rejected) number += flags & MM_DOCUMENT_VARIES ? 2 : 1;
    const uint32_t varies = which.is_rejected ? MM_DOCUMENT_REJECTED_VARIES : MM_DOCUMENT_VARIES;
    return which.has_no_empty_think && flags & varies ? number + 1 : number;
}

static uint64_t start_of(const mm_token_cache *cache, uint32_t rendering)
{
    return rendering == 0 ? 0 : cache->renderings[rendering - 1].end;
}

int64_t mm_token_cache_length(const mm_token_cache *cache, mm_cached which)
{
    const uint32_t rendering = rendering_of(cache, which);
    return (int64_t)(cache->renderings[rendering].end - start_of(cache, rendering));
}

void mm_token_cache_copy(const mm_token_cache *cache, mm_cached which, int64_t first, int32_t count,
                         int32_t *out, uint8_t *learned)
{
    MM_ASSERT(first >= 0 && count >= 0);
    MM_ASSERT(first + count <= mm_token_cache_length(cache, which));
    const uint64_t from = start_of(cache, rendering_of(cache, which)) + (uint64_t)first;
    if (cache->narrow) {
        const uint16_t *tokens = cache->narrow + from;
        for (int32_t i = 0; i < count; i++)
            out[i] = tokens[i] & (MM_CACHE_NARROW_LEARNED - 1);
        for (int32_t i = 0; learned && i < count; i++)
            learned[i] = (tokens[i] & MM_CACHE_NARROW_LEARNED) != 0;
    } else {
        const uint32_t *tokens = cache->wide + from;
        for (int32_t i = 0; i < count; i++)
            out[i] = (int32_t)(tokens[i] & ~(uint32_t)MM_CACHE_WIDE_LEARNED);
        for (int32_t i = 0; learned && i < count; i++)
            learned[i] = (tokens[i] & MM_CACHE_WIDE_LEARNED) != 0;
    }
}

int64_t mm_token_cache_first_learned(const mm_token_cache *cache, mm_cached which)
{
    return cache->renderings[rendering_of(cache, which)].first_learned;
}

int64_t mm_token_cache_n_learned(const mm_token_cache *cache, mm_cached which)
{
    return cache->renderings[rendering_of(cache, which)].n_learned;
}

uint64_t mm_token_cache_key(const mm_token_cache *cache, int64_t row)
{
    return document_of(cache, row)->key;
}

bool mm_token_cache_has_system(const mm_token_cache *cache, int64_t row)
{
    return (document_of(cache, row)->flags & MM_DOCUMENT_HAS_SYSTEM) != 0;
}

const char *mm_token_cache_tokenizer_hash(const mm_token_cache *cache)
{
    return cache->tokenizer_hash;
}

const char *mm_token_cache_path(const mm_token_cache *cache) { return cache->path; }
