/* Files: reading whole, mapping read-only, and replacing atomically. Durable order on replacement:
 * write the temporary file beside the target, fsync it, rename it, fsync the folder. A failed fsync
 * is never retried. */
#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

// First guess for files that do not know their size.
enum { UNSIZED_FILE_BYTES = 4096 };

// Reads up to the end into *buffer, growing it: the size of a file in /proc is said to be 0, and a
// file may grow while it is read. One byte of room is kept for the final NUL.
static mm_status read_to_end(int fd, const char *path, size_t limit, char **buffer, size_t *used,
                             size_t capacity, mm_err *err)
{
    for (;;) {
        const size_t room = capacity - 1 - *used;
        if (room == 0) {
            if (!mm_mul_ok(capacity, 2, &capacity))
                return MM_FAIL(err, MM_ELIMIT, "%s: too large", path);
            char *grown = mm_realloc(*buffer, capacity);
            if (!grown)
                return MM_FAIL(err, MM_ENOMEM, "%s: no memory for %zu bytes", path, capacity);
            *buffer = grown;
            continue;
        }
        const ssize_t got = read(fd, *buffer + *used, room);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return MM_FAIL_ERRNO(err, "%s: cannot read", path);
        if (got == 0) return MM_OK;
        *used += (size_t)got;
        if (*used > limit)
            return MM_FAIL(err, MM_ELIMIT, "%s: file has more than %zu bytes, at most %zu are read",
                           path, limit, limit);
    }
}

mm_status mm_file_read(const char *path, size_t limit, char **data, size_t *bytes, mm_err *err)
{
    mm_status status = MM_OK;
    char *buffer = NULL;
    size_t used = 0;
    size_t capacity = 0;
    struct stat info;
    *data = NULL;
    *bytes = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return MM_FAIL_ERRNO(err, "%s: cannot open", path);
    if (fstat(fd, &info) != 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot stat", path);
        goto done;
    }
    if (S_ISDIR(info.st_mode)) {
        status = MM_FAIL(err, MM_EFORMAT, "%s: expected a file, found a folder", path);
        goto done;
    }
    capacity = info.st_size > 0 ? (size_t)info.st_size : 0;
    if (capacity > limit) {
        status = MM_FAIL(err, MM_ELIMIT, "%s: file has %zu bytes, at most %zu are read", path,
                         capacity, limit);
        goto done;
    }
    // One byte more than the size, so that the end is seen without growing; and the NUL.
    capacity = capacity > 0 ? capacity + 2 : UNSIZED_FILE_BYTES;
    buffer = mm_alloc(capacity);
    if (!buffer) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory for %zu bytes", path, capacity);
        goto done;
    }
    MM_GO(read_to_end(fd, path, limit, &buffer, &used, capacity, err));
    buffer[used] = '\0';
    *data = buffer;
    *bytes = used;
    buffer = NULL;
done:
    mm_free(buffer);
    close(fd);
    return status;
}

mm_status mm_dir_check_writable_of(const char *path, mm_err *err)
{
    char *dir = mm_path_folder(path);
    if (!dir) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    mm_status status = MM_OK;
    if (access(dir, W_OK | X_OK) != 0)
        status = MM_FAIL_ERRNO(err, "%s: cannot create: folder %s", path, dir);
    else if (!mm_file_is_dir(dir))
        status = MM_FAIL(err, MM_EUSAGE, "%s: cannot create: %s is no folder", path, dir);
    mm_free(dir);
    return status;
}

mm_status mm_dir_sync_of(const char *path, mm_err *err)
{
    char *dir = mm_path_folder(path);
    if (!dir) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    mm_status status = MM_OK;
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot open folder", dir);
    } else {
        // Some file systems refuse fsync on folders with EINVAL; there the rename is as durable as
        // it gets.
        if (fsync(fd) != 0 && errno != EINVAL)
            status = MM_FAIL_ERRNO(err, "%s: cannot flush folder", dir);
        close(fd);
    }
    mm_free(dir);
    return status;
}

mm_status mm_file_writer_open(mm_file_writer *writer, const char *path, mm_err *err)
{
    *writer = (mm_file_writer){.fd = -1};
    mm_str temp = {0};
    mm_str_addf(&temp, "%s.tmp-%ld", path, (long)getpid());
    MM_TRY(mm_str_take(&temp, &writer->temp_path, NULL, err));
    writer->path = mm_strdup(path);
    if (!writer->path) {
        mm_file_writer_drop(writer);
        return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    }
    writer->fd = open(writer->temp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (writer->fd < 0) {
        const mm_status status = MM_FAIL_ERRNO(err, "%s: cannot create", path);
        mm_file_writer_drop(writer);
        return status;
    }
    return MM_OK;
}

static mm_status write_all(int fd, const char *path, const void *data, size_t bytes, mm_err *err)
{
    const char *next = data;
    while (bytes > 0) {
        const ssize_t put = write(fd, next, bytes);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return MM_FAIL_ERRNO(err, "%s: cannot write", path);
        next += put;
        bytes -= (size_t)put;
    }
    return MM_OK;
}

mm_status mm_file_writer_write(mm_file_writer *writer, const void *data, size_t bytes, mm_err *err)
{
    return write_all(writer->fd, writer->path, data, bytes, err);
}

mm_status mm_file_writer_commit(mm_file_writer *writer, mm_err *err)
{
    mm_status status = MM_OK;
    if (fsync(writer->fd) != 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot flush", writer->path);
        goto done;
    }
    const int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot close", writer->path);
        goto done;
    }
    if (rename(writer->temp_path, writer->path) != 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot put in place", writer->path);
        goto done;
    }
    mm_free(writer->temp_path);
    writer->temp_path = NULL;
    status = mm_dir_sync_of(writer->path, err);
done:
    mm_file_writer_drop(writer);
    return status;
}

void mm_file_writer_drop(mm_file_writer *writer)
{
    if (!writer) return;
    if (writer->path || writer->temp_path) {
        if (writer->fd >= 0) close(writer->fd);
        if (writer->temp_path) unlink(writer->temp_path);
    }
    mm_free(writer->path);
    mm_free(writer->temp_path);
    *writer = (mm_file_writer){.fd = -1};
}

mm_status mm_file_write_atomic(const char *path, const void *data, size_t bytes, mm_err *err)
{
    mm_file_writer writer;
    mm_status status;
    MM_TRY(mm_file_writer_open(&writer, path, err));
    MM_GO(mm_file_writer_write(&writer, data, bytes, err));
    MM_GO(mm_file_writer_commit(&writer, err));
done:
    mm_file_writer_drop(&writer);
    return status;
}

mm_status mm_file_appender_open(mm_file_appender *appender, const char *path, uint64_t keep,
                                mm_err *err)
{
    mm_status status = MM_OK;
    *appender = (mm_file_appender){.fd = -1, .path = mm_strdup(path)};
    if (!appender->path) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    appender->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (appender->fd < 0 || ftruncate(appender->fd, (off_t)keep) != 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot open for writing", path);
        goto done;
    }
    MM_GO(mm_dir_sync_of(path, err));
done:
    if (status != MM_OK) mm_file_appender_drop(appender);
    return status;
}

mm_status mm_file_appender_add(mm_file_appender *appender, const void *data, size_t bytes,
                               mm_err *err)
{
    MM_TRY(write_all(appender->fd, appender->path, data, bytes, err));
    if (fsync(appender->fd) != 0) return MM_FAIL_ERRNO(err, "%s: cannot flush", appender->path);
    return MM_OK;
}

void mm_file_appender_drop(mm_file_appender *appender)
{
    if (!appender || !appender->path) return;
    if (appender->fd >= 0) close(appender->fd);
    mm_free(appender->path);
    *appender = (mm_file_appender){.fd = -1};
}

mm_status mm_file_map_open(mm_file_map *map, const char *path, mm_err *err)
{
    *map = (mm_file_map){0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return MM_FAIL_ERRNO(err, "%s: cannot open", path);
    mm_status status = MM_OK;
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = MM_FAIL_ERRNO(err, "%s: cannot stat", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = MM_FAIL(err, MM_EFORMAT, "%s: expected a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            status = MM_FAIL_ERRNO(err, "%s: cannot map", path);
        } else {
            map->data = data;
            map->bytes = (size_t)info.st_size;
        }
    }
    close(fd);
    return status;
}

void mm_file_map_drop(mm_file_map *map)
{
    if (!map) return;
    // munmap takes a plain pointer although nothing is written through it.
    if (map->data) munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (mm_file_map){0};
}

bool mm_file_exists(const char *path) { return access(path, F_OK) == 0; }

bool mm_file_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

mm_status mm_dir_make(const char *path, mm_err *err)
{
    if (path[0] == '\0') return MM_FAIL(err, MM_ENOTFOUND, "cannot make a folder without a name");
    char *copy = mm_strdup(path);
    if (!copy) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    mm_status status = MM_OK;
    for (char *at = copy + 1; status == MM_OK; at++) {
        if (*at != '/' && *at != '\0') continue;
        const char kept = *at;
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && !(errno == EEXIST && mm_file_is_dir(copy)))
            status = MM_FAIL_ERRNO(err, "%s: cannot make folder", copy);
        *at = kept;
        if (kept == '\0') break;
    }
    mm_free(copy);
    return status;
}

mm_status mm_path_join(char **out, const char *dir, const char *name, mm_err *err)
{
    mm_str path = {0};
    const size_t length = strlen(dir);
    const bool needs_slash = length > 0 && dir[length - 1] != '/';
    mm_str_addf(&path, "%s%s%s", dir, needs_slash ? "/" : "", name);
    return mm_str_take(&path, out, NULL, err);
}

char *mm_path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return mm_strdup(".");
    return mm_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

uint64_t mm_disk_free(const char *path)
{
    struct statvfs info;
    if (statvfs(path, &info) != 0) return 0;
    return (uint64_t)info.f_bavail * info.f_frsize;
}
