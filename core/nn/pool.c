/* Worker threads: they spin briefly for the next job, then sleep.
 *
 * One job at a time. The job's fields are written before `generation` rises (release) and read
 * after it was seen to rise (acquire); every worker reports back once per job, so that the fields
 * are never rewritten under a late worker. Items are claimed from one counter.
 */
#include "core/nn/pool.h"

#include "core/base/file.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_THREADS = 1024,
    SPINS = 4000, // about 50 us: longer than the gap between two operations of a step
    CGROUP_FILE_BYTES = 1 << 16
};

typedef struct worker {
    struct mm_pool *pool;
    int32_t index;
    pthread_t thread;
} worker;

struct mm_pool {
    int32_t n_threads;
    int32_t n_started; // workers[1..n_started] run; the caller is thread 0
    atomic_uint generation;
    atomic_int working; // workers that have not reported back
    atomic_bool stop;
    atomic_int_fast64_t next;
    int64_t n_items;
    mm_pool_fn fn;
    void *context;
    pthread_mutex_t mutex;
    pthread_cond_t job_ready;
    pthread_cond_t job_done;
    worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void claim_items(mm_pool *pool, int32_t thread)
{
    for (;;) {
        const int64_t item = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (item >= pool->n_items) return;
        pool->fn(pool->context, item, thread);
    }
}

// Returns once `generation` differs from `seen`.
static unsigned await_job(mm_pool *pool, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        const unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
    while (now == seen) {
        pthread_cond_wait(&pool->job_ready, &pool->mutex);
        now = atomic_load_explicit(&pool->generation, memory_order_acquire);
    }
    pthread_mutex_unlock(&pool->mutex);
    return now;
}

static void *worker_main(void *context)
{
    const worker *self = context;
    mm_pool *pool = self->pool;
    unsigned seen = 0;
    for (;;) {
        seen = await_job(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed)) return NULL;
        claim_items(pool, self->index);
        if (atomic_fetch_sub_explicit(&pool->working, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->job_done);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

static void announce(mm_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->job_ready);
    pthread_mutex_unlock(&pool->mutex);
}

mm_status mm_pool_new(mm_pool **out, int32_t threads, mm_err *err)
{
    *out = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return MM_FAIL(err, MM_ECONFIG, "--threads %d: expected 0 (all) to %d", (int)threads,
                       MAX_THREADS);
    const int32_t n = threads == 0 ? mm_cpu_count() : threads;
    mm_pool *pool = mm_calloc(1, sizeof *pool + (size_t)n * sizeof(worker));
    if (!pool) return MM_FAIL(err, MM_ENOMEM, "thread pool of %d threads", (int)n);
    pool->n_threads = n;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->job_ready, NULL);
    pthread_cond_init(&pool->job_done, NULL);
    for (int32_t i = 1; i < n; i++) {
        pool->workers[i] = (worker){.pool = pool, .index = i};
        const int failure =
            pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]);
        if (failure) {
            mm_pool_free(pool);
            return MM_FAIL(err, MM_ENOMEM, "starting thread %d of %d: %s", (int)i + 1, (int)n,
                           strerror(failure));
        }
        pool->n_started = i;
    }
    *out = pool;
    return MM_OK;
}

void mm_pool_free(mm_pool *pool)
{
    if (!pool) return;
    atomic_store_explicit(&pool->stop, true, memory_order_relaxed);
    announce(pool);
    for (int32_t i = 1; i <= pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->job_done);
    pthread_cond_destroy(&pool->job_ready);
    pthread_mutex_destroy(&pool->mutex);
    mm_free(pool);
}

int32_t mm_pool_threads(const mm_pool *pool) { return pool ? pool->n_threads : 1; }

void mm_pool_run(mm_pool *pool, int64_t n, mm_pool_fn fn, void *context)
{
    if (!pool || pool->n_started == 0 || n <= 1) {
        for (int64_t item = 0; item < n; item++)
            fn(context, item, 0);
        return;
    }
    pool->n_items = n;
    pool->fn = fn;
    pool->context = context;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->working, pool->n_started, memory_order_relaxed);
    announce(pool);
    claim_items(pool, 0);
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->working, memory_order_acquire) == 0) return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->working, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->job_done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

// Whole processors granted by a "quota period" pair of a version 2 cgroup file, rounded up; 0 when
// unlimited or unreadable.
static int32_t quota_of(const char *folder)
{
    char path[512];
    const int length = snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    if (length < 0 || (size_t)length >= sizeof path) return 0;
    char *text = NULL;
    if (mm_file_read(path, CGROUP_FILE_BYTES, &text, &(size_t){0}, NULL) != MM_OK) return 0;
    char *end = text;
    const long long quota = strtoll(text, &end, 10); // "max" leaves 0
    const long long period = strtoll(end, NULL, 10);
    mm_free(text);
    if (quota <= 0 || period <= 0) return 0;
    const long long processors = (quota + period - 1) / period;
    return processors > MAX_THREADS ? MAX_THREADS : (int32_t)processors;
}

// The tightest quota on the way from this process' cgroup to the root.
static int32_t cgroup_quota(void)
{
    char *text = NULL;
    if (mm_file_read("/proc/self/cgroup", CGROUP_FILE_BYTES, &text, &(size_t){0}, NULL) != MM_OK)
        return 0;
    char *folder = strstr(text, "0::/");
    int32_t tightest = 0;
    if (folder) {
        folder += strlen("0::");
        folder[strcspn(folder, "\n")] = '\0';
        for (;;) {
            const int32_t quota = quota_of(folder);
            if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
            char *slash = strrchr(folder, '/');
            if (!slash) break;
            *slash = '\0';
        }
    }
    mm_free(text);
    return tightest;
}

int32_t mm_cpu_count(void)
{
    int32_t count = 0;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
    if (count < 1) count = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1) count = 1;
    if (count > MAX_THREADS) count = MAX_THREADS;
    const int32_t quota = cgroup_quota();
    return quota > 0 && quota < count ? quota : count;
}
