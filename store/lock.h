/* Private to store: kernel locks that die with their process, and who this process is.
 *
 * Open-file-description locks on single bytes of "<db>.lock": byte 0 is held by whoever writes the
 * database, one byte per run by the process that owns the run, one byte per checkpoint by the one
 * that writes it, one byte per sweep by the process that runs its arms. The file is never read,
 * written or removed. A child process that inherits a descriptor would inherit the lock: every
 * descriptor is close-on-exec, and nobody forks without exec.
 */
#ifndef MM_STORE_LOCK_H
#define MM_STORE_LOCK_H

#include "core/base/mem.h"

typedef enum mm_lock_kind {
    MM_LOCK_WRITE = 0,
    MM_LOCK_RUN,
    MM_LOCK_CHECKPOINT,
    MM_LOCK_SWEEP
} mm_lock_kind;

/* Descriptor of "<real_path>.lock". With create false, *fd is -1 where there is no such file. */
MM_NODISCARD mm_status mm_lock_open(int *fd, const char *real_path, bool create, mm_err *err);
/* Takes the lock if nobody else has it. */
MM_NODISCARD mm_status mm_lock_try(int fd, mm_lock_kind kind, int64_t id, bool *is_ours,
                                   mm_err *err);
/* The same with patience: MM_EBUSY after 30 s. */
MM_NODISCARD mm_status mm_lock_wait(int fd, mm_lock_kind kind, int64_t id, mm_err *err);
void mm_lock_release(int fd, mm_lock_kind kind, int64_t id);
/* Whether another open file holds it; true when it cannot be told. fd -1: false. */
bool mm_lock_is_held(int fd, mm_lock_kind kind, int64_t id);
/* A short sleep of random length, 0.2 to `max_ms` ms: waiting without marching in step. */
void mm_sleep_jittered(double max_ms);

/* This process. boot_id changes with each start of the machine. */
typedef struct mm_process {
    char host[256];
    char boot_id[64];
    int64_t pid;
    int64_t pid_start; /* clock ticks after boot */
} mm_process;
void mm_process_get(mm_process *process);

/* mm_is_network_file_system by the number that statfs gives; NULL for a local one. */
const char *mm_network_file_system_name(uint64_t magic);

#endif
