/* The background saver: one thread, one connection, one job at a time, from a copy of the data.
 * Frozen arrays are not copied: the caller's memory is read, if at all, while the job runs. */
#include "core/base/clock.h"
#include "store/chunk.h"
#include "store/db.h"

#include <pthread.h>
#include <string.h>

struct mm_saver {
    mm_store *store; /* of the thread, as last_id and last_run */
    int64_t last_id; /* its last checkpoint and of which run; 0: none */
    int64_t last_run;
    int32_t keep;
    pthread_t thread;
    pthread_mutex_t mutex; /* over everything below */
    pthread_cond_t changed;
    bool has_job;
    bool is_closing;
    mm_err failure; /* of the last job; MM_OK: none or already reported */
    int64_t stall_ns;
    int64_t write_ns;
    int64_t raw_bytes;
    /* The job: written by submit while has_job is false, read by the thread while it is true. */
    mm_checkpoint_new job;
    mm_arena names;
    mm_blob *blobs;
    char *data;
    size_t data_capacity;
};

// Where frozen arrays come from. If the given one was removed, the run's last checkpoint has them.
static mm_status find_base(mm_saver *saver, mm_err *err)
{
    bool has_base = false;
    if (saver->job.base_id != 0) {
        MM_TRY(mm_checkpoint_is_complete(saver->store, saver->job.base_id, &has_base, err));
    }
    if (!has_base && saver->last_run == saver->job.run_id) saver->job.base_id = saver->last_id;
    return MM_OK;
}

static mm_status write_job(mm_saver *saver, int64_t *written_bytes, mm_err *err)
{
    int64_t id;
    *written_bytes = 0;
    MM_TRY(find_base(saver, err));
    MM_TRY(mm_checkpoint_put(saver->store, &saver->job, &id, written_bytes, err));
    saver->last_id = id;
    saver->last_run = saver->job.run_id;
    if (saver->keep <= 0) return MM_OK;
    return mm_checkpoints_prune(saver->store, saver->job.run_id, saver->keep, err);
}

static void *run_thread(void *context)
{
    mm_saver *saver = context;
    pthread_mutex_lock(&saver->mutex);
    for (;;) {
        while (!saver->has_job && !saver->is_closing) {
            pthread_cond_wait(&saver->changed, &saver->mutex);
        }
        if (!saver->has_job) break;
        pthread_mutex_unlock(&saver->mutex);
        mm_err err = {0};
        int64_t written_bytes;
        const int64_t start = mm_mono_ns();
        const mm_status status = write_job(saver, &written_bytes, &err);
        const int64_t write_ns = mm_mono_ns() - start;
        pthread_mutex_lock(&saver->mutex);
        saver->write_ns += write_ns;
        saver->raw_bytes += written_bytes;
        if (status != MM_OK) saver->failure = err;
        saver->has_job = false;
        pthread_cond_broadcast(&saver->changed);
    }
    pthread_mutex_unlock(&saver->mutex);
    return NULL;
}

mm_status mm_saver_open(mm_saver **out, const char *db_path, int32_t keep, mm_err *err)
{
    *out = NULL;
    mm_saver *saver = mm_calloc(1, sizeof *saver);
    if (!saver) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    saver->keep = keep;
    const mm_status status = mm_store_open(&saver->store, db_path, MM_STORE_WRITE, err);
    if (status != MM_OK) {
        mm_free(saver);
        return status;
    }
    pthread_mutex_init(&saver->mutex, NULL);
    pthread_cond_init(&saver->changed, NULL);
    if (pthread_create(&saver->thread, NULL, run_thread, saver) != 0) {
        mm_store_close(saver->store);
        mm_free(saver);
        return MM_FAIL(err, MM_ENOMEM, "cannot start the thread that saves checkpoints");
    }
    *out = saver;
    return MM_OK;
}

// Waits for the thread to be idle and takes its failure. The mutex is held.
static mm_status wait_idle(mm_saver *saver, mm_err *err)
{
    while (saver->has_job) {
        pthread_cond_wait(&saver->changed, &saver->mutex);
    }
    const mm_status status = saver->failure.status;
    if (status != MM_OK && err) *err = saver->failure;
    saver->failure = (mm_err){0};
    return status;
}

// Room for a copy of all arrays that may change, kept for the next time.
static mm_status reserve(mm_saver *saver, const mm_checkpoint_new *checkpoint, mm_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < checkpoint->n_blobs; i++) {
        if (checkpoint->blobs[i].is_frozen) continue;
        if (!mm_add_ok(bytes, checkpoint->blobs[i].bytes, &bytes)) {
            return MM_FAIL(err, MM_ELIMIT, "checkpoint too large");
        }
    }
    if (bytes <= saver->data_capacity) return MM_OK;
    mm_free(saver->data);
    saver->data_capacity = 0;
    saver->data = mm_alloc(bytes);
    if (!saver->data) {
        return MM_FAIL(err, MM_ENOMEM, "out of memory: %zu bytes for the copy of a checkpoint",
                       bytes);
    }
    saver->data_capacity = bytes;
    return MM_OK;
}

static mm_status copy_job(mm_saver *saver, const mm_checkpoint_new *checkpoint, mm_err *err)
{
    MM_TRY(reserve(saver, checkpoint, err));
    mm_arena_drop(&saver->names);
    saver->blobs = mm_arena_alloc(&saver->names, (checkpoint->n_blobs + 1) * sizeof *saver->blobs);
    saver->job = *checkpoint;
    saver->job.blobs = saver->blobs;
    saver->job.kind = mm_arena_strdup(&saver->names, checkpoint->kind);
    saver->job.state = mm_arena_strdup(&saver->names, checkpoint->state);
    bool is_copied = saver->blobs && saver->job.kind && (saver->job.state || !checkpoint->state);
    size_t used = 0;
    for (size_t i = 0; i < checkpoint->n_blobs && is_copied; i++) {
        const mm_blob *from = &checkpoint->blobs[i];
        mm_blob *to = &saver->blobs[i];
        *to = *from;
        to->name = mm_arena_strdup(&saver->names, from->name);
        to->dtype = mm_arena_strdup(&saver->names, from->dtype);
        is_copied = to->name && to->dtype;
        if (from->bytes == 0 || from->is_frozen) continue;
        to->data = saver->data + used;
        memcpy(saver->data + used, from->data, from->bytes);
        used += from->bytes;
    }
    return is_copied ? MM_OK : MM_FAIL(err, MM_ENOMEM, "out of memory");
}

mm_status mm_saver_submit(mm_saver *saver, const mm_checkpoint_new *checkpoint, mm_err *err)
{
    const int64_t start = mm_mono_ns();
    pthread_mutex_lock(&saver->mutex);
    mm_status status = wait_idle(saver, err);
    if (status == MM_OK) status = copy_job(saver, checkpoint, err);
    if (status == MM_OK) {
        saver->has_job = true;
        pthread_cond_broadcast(&saver->changed);
    }
    saver->stall_ns += mm_mono_ns() - start;
    pthread_mutex_unlock(&saver->mutex);
    return status;
}

mm_status mm_saver_wait(mm_saver *saver, mm_err *err)
{
    const int64_t start = mm_mono_ns();
    pthread_mutex_lock(&saver->mutex);
    const mm_status status = wait_idle(saver, err);
    saver->stall_ns += mm_mono_ns() - start;
    pthread_mutex_unlock(&saver->mutex);
    return status;
}

void mm_saver_stats(const mm_saver *saver, double *stall_s, double *write_s, int64_t *raw_bytes)
{
    // The lock is an implementation detail: to the caller this reads.
    mm_saver *lockable = (mm_saver *)(uintptr_t)saver;
    pthread_mutex_lock(&lockable->mutex);
    *stall_s = (double)saver->stall_ns / 1e9;
    *write_s = (double)saver->write_ns / 1e9;
    *raw_bytes = saver->raw_bytes;
    pthread_mutex_unlock(&lockable->mutex);
}

mm_status mm_saver_close(mm_saver *saver, mm_err *err)
{
    if (!saver) return MM_OK;
    const mm_status status = mm_saver_wait(saver, err);
    pthread_mutex_lock(&saver->mutex);
    saver->is_closing = true;
    pthread_cond_broadcast(&saver->changed);
    pthread_mutex_unlock(&saver->mutex);
    pthread_join(saver->thread, NULL);
    pthread_cond_destroy(&saver->changed);
    pthread_mutex_destroy(&saver->mutex);
    mm_store_close(saver->store);
    mm_arena_drop(&saver->names);
    mm_free(saver->data);
    mm_free(saver);
    return status;
}
