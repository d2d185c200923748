/* Files: reading whole, mapping read-only, and replacing atomically (write, fsync, rename, fsync
 * folder).
 *
 * Every message names the path. A returned buffer is owned by the caller (mm_free).
 */
#ifndef MM_BASE_FILE_H
#define MM_BASE_FILE_H

#include "core/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a whole file of at most `limit` bytes, also one that hides its size (/proc); *data is
 * NUL-terminated beyond *bytes. */
MM_NODISCARD mm_status mm_file_read(const char *path, size_t limit, char **data, size_t *bytes,
                                    mm_err *err);

/* Replaces `path` with these bytes so that a reader sees the old or the new content, never a
 * mixture, also after a power cut. The temporary file is removed on failure. */
MM_NODISCARD mm_status mm_file_write_atomic(const char *path, const void *data, size_t bytes,
                                            mm_err *err);

/* Streaming form of the same: open, write any number of times, commit. mm_file_writer_drop without
 * commit leaves nothing behind. Zero-initialise; drop is idempotent. */
typedef struct mm_file_writer {
    int fd; /* valid while temp_path is set */
    char *path;
    char *temp_path;
} mm_file_writer;

MM_NODISCARD mm_status mm_file_writer_open(mm_file_writer *writer, const char *path, mm_err *err);
MM_NODISCARD mm_status mm_file_writer_write(mm_file_writer *writer, const void *data, size_t bytes,
                                            mm_err *err);
MM_NODISCARD mm_status mm_file_writer_commit(mm_file_writer *writer, mm_err *err);
void mm_file_writer_drop(mm_file_writer *writer);

/* Appending: what has been flushed stays, so that a long piece of work can go on where it was
 * killed. Opening makes the file or cuts it to its first `keep` bytes. Zero-initialise; drop is
 * idempotent and does not flush. */
typedef struct mm_file_appender {
    int fd; /* valid while path is set */
    char *path;
} mm_file_appender;

MM_NODISCARD mm_status mm_file_appender_open(mm_file_appender *appender, const char *path,
                                             uint64_t keep, mm_err *err);
/* Writes and flushes: after MM_OK the bytes survive a power cut. */
MM_NODISCARD mm_status mm_file_appender_add(mm_file_appender *appender, const void *data,
                                            size_t bytes, mm_err *err);
void mm_file_appender_drop(mm_file_appender *appender);

/* A read-only map of a whole file; data is NULL for an empty file. Zero-initialise; drop is
 * idempotent. */
typedef struct mm_file_map {
    const unsigned char *data;
    size_t bytes;
} mm_file_map;

MM_NODISCARD mm_status mm_file_map_open(mm_file_map *map, const char *path, mm_err *err);
void mm_file_map_drop(mm_file_map *map);

bool mm_file_exists(const char *path);
bool mm_file_is_dir(const char *path);
/* mkdir -p. */
MM_NODISCARD mm_status mm_dir_make(const char *path, mm_err *err);
/* Fails when no file could be made beside `path`: folder missing, no folder, or not writable. */
MM_NODISCARD mm_status mm_dir_check_writable_of(const char *path, mm_err *err);
/* "dir/name" in *out, to be freed; an empty dir gives "name". */
MM_NODISCARD mm_status mm_path_join(char **out, const char *dir, const char *name, mm_err *err);
/* The folder that holds `path`, "." where it names none; NULL when out of memory. Caller frees. */
char *mm_path_folder(const char *path);
/* Bytes a non-root user may still write in the file system that holds `path`; 0 when unknown. */
uint64_t mm_disk_free(const char *path);
/* Flushes the folder that holds `path`, so that a rename in it survives a power cut. */
MM_NODISCARD mm_status mm_dir_sync_of(const char *path, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
