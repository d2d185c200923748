/* Locks on bytes of the lock file, process identity, kind of file system. See lock.h. */
#include "store/lock.h"

#include "core/base/clock.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_WAIT_SECONDS = 30 };

// Ids grow by one per run or checkpoint: the ranges never meet.
static off_t byte_of(mm_lock_kind kind, int64_t id)
{
    MM_ASSERT(id >= 0 && id < ((int64_t)1 << 40));
    return (off_t)(((int64_t)kind << 40) + id);
}

mm_status mm_lock_open(int *fd, const char *real_path, bool create, mm_err *err)
{
    *fd = -1;
    mm_str path = {0};
    mm_str_addf(&path, "%s.lock", real_path);
    mm_status status = mm_str_check(&path, err);
    if (status == MM_OK) {
        const int flags = O_CLOEXEC | (create ? O_RDWR | O_CREAT : O_RDONLY);
        *fd = open(path.data, flags, 0666);
        if (*fd < 0 && create) status = MM_FAIL_ERRNO(err, "cannot open %s for writing", path.data);
    }
    mm_str_drop(&path);
    return status;
}

mm_status mm_lock_try(int fd, mm_lock_kind kind, int64_t id, bool *is_ours, mm_err *err)
{
    MM_ASSERT(fd >= 0);
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte_of(kind, id), .l_len = 1};
    int result;
    do {
        result = fcntl(fd, F_OFD_SETLK, &range);
    } while (result != 0 && errno == EINTR);
    *is_ours = result == 0;
    if (result == 0 || errno == EAGAIN || errno == EACCES) return MM_OK;
    return MM_FAIL_ERRNO(err, "cannot lock");
}

mm_status mm_lock_wait(int fd, mm_lock_kind kind, int64_t id, mm_err *err)
{
    const int64_t deadline = mm_mono_ns() + (int64_t)LOCK_WAIT_SECONDS * 1000000000;
    for (;;) {
        bool is_ours;
        MM_TRY(mm_lock_try(fd, kind, id, &is_ours, err));
        if (is_ours) return MM_OK;
        if (mm_mono_ns() > deadline) {
            return MM_FAIL(err, MM_EBUSY, "another process has been writing for %d s",
                           LOCK_WAIT_SECONDS);
        }
        mm_sleep_jittered(1.0);
    }
}

void mm_lock_release(int fd, mm_lock_kind kind, int64_t id)
{
    struct flock range = {
        .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = byte_of(kind, id), .l_len = 1};
    const int result = fcntl(fd, F_OFD_SETLK, &range);
    MM_ASSERT(result == 0);
}

bool mm_lock_is_held(int fd, mm_lock_kind kind, int64_t id)
{
    if (fd < 0) return false;
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte_of(kind, id), .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}

void mm_sleep_jittered(double max_ms)
{
    // The low bits of the clock are random enough to keep two waiters from meeting again.
    const uint64_t bits =
        ((uint64_t)mm_mono_ns() ^ ((uint64_t)getpid() << 20)) * 0x9E3779B97F4A7C15u;
    const double ms = 0.2 + (max_ms - 0.2) * (double)(bits >> 40) / (double)(1 << 24);
    const struct timespec pause = {.tv_nsec = (long)(ms * 1e6)};
    nanosleep(&pause, NULL);
}

// First line of a small kernel file; "" when it cannot be read.
static void read_line(const char *path, char *out, size_t capacity)
{
    out[0] = '\0';
    FILE *file = fopen(path, "re");
    if (!file) return;
    if (!fgets(out, (int)capacity, file)) out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    fclose(file);
}

void mm_process_get(mm_process *process)
{
    *process = (mm_process){.pid = getpid()};
    if (gethostname(process->host, sizeof process->host - 1) != 0) process->host[0] = '\0';
    read_line("/proc/sys/kernel/random/boot_id", process->boot_id, sizeof process->boot_id);
    char stat[1024];
    read_line("/proc/self/stat", stat, sizeof stat);
    // Field 22, counted after the command name, which may itself hold spaces and parentheses.
    const char *field = strrchr(stat, ')');
    for (int i = 2; field && i < 22; i++) {
        field = strchr(field + 1, ' ');
    }
    if (field) process->pid_start = strtoll(field, NULL, 10);
}

const char *mm_network_file_system_name(uint64_t magic)
{
    static const struct {
        uint64_t magic;
        const char *name;
    } KINDS[] = {
        {0x6969, "NFS"},      {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB"},   {0x517B, "SMB"},
        {0x01021997, "9p"},   {0x65735546, "FUSE"}, {0x00C36400, "Ceph"},  {0x0BD00BD0, "Lustre"},
        {0x5346414F, "AFS"},  {0x01161970, "GFS2"}, {0x7461636F, "OCFS2"}, {0x47504653, "GPFS"},
        {0x73757245, "Coda"},
    };
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (KINDS[i].magic == magic) return KINDS[i].name;
    }
    return NULL;
}

bool mm_is_network_file_system(const char *path, const char **name)
{
    *name = NULL;
    struct statfs info;
    if (statfs(path, &info) != 0) return false;
    // The kernel's type is signed and as wide as a long; the numbers are 32 bits.
    *name = mm_network_file_system_name((uint32_t)info.f_type);
    return *name != NULL;
}
