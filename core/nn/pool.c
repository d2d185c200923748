/* Worker threads: they spin briefly for the next job, then sleep.
 *
 * One job at a time. `ticket` holds the number of the job and how many of its items nobody has
 * claimed yet; an item is claimed by taking one off. The caller waits for the items, not for the
 * workers: one that the system keeps from running claims nothing and holds nobody up.
 *
 * The subtle rule: a job's fields are read only after one of its items was claimed. They cannot be
 * rewritten then, because the caller starts the next job only when every item is done.
 */
#include "core/nn/pool.h"

#include "core/base/clock.h"
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
    SPIN_NS = 50000,     // longer than the gap between two operations of a step
    SPINS_PER_LOOK = 64, // between two looks at the clock
    LINE = 64,           // of the cache
    CGROUP_FILE_BYTES = 1 << 16
};

typedef struct worker {
    struct mm_pool *pool;
    int32_t index;
    pthread_t thread;
} worker;

// What one group of threads writes and another reads stands on lines of its own.
struct mm_pool {
    int32_t n_threads;
    int32_t n_started; // workers[1..n_started] run; the caller is thread 0
    int64_t spin_ns;   // 0 where threads outnumber processors: who spins keeps another from working
    pthread_mutex_t mutex;
    pthread_cond_t job_ready;
    pthread_cond_t job_done;
    _Alignas(LINE) atomic_uint_fast64_t ticket; // job number << 32 | items not yet claimed
    _Alignas(LINE) atomic_int_fast64_t done;    // items of the job that are finished
    _Alignas(LINE) atomic_int sleeping;         // workers that need a signal to see a new job
    _Alignas(LINE) atomic_bool stop;
    int64_t n_items;
    mm_pool_fn fn;
    void *context;
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

// Whether to look again: false when the time to spin is over. The first look is at round 0.
static bool spin(const mm_pool *pool, int64_t round, int64_t *until)
{
    if (round % SPINS_PER_LOOK == 0) {
        if (pool->spin_ns == 0) return false;
        const int64_t now = mm_mono_ns();
        if (round == 0) *until = now + pool->spin_ns;
        if (now >= *until) return false;
    }
    relax();
    return true;
}

static uint32_t job_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

// Each sleeper that wakes for a job wakes two more while there is work: nobody pays for all, and a
// job of a few items wakes a few. No item waits for a sleeper, since the caller takes them too.
static void wake(mm_pool *pool, int32_t workers)
{
    if (atomic_load(&pool->sleeping) == 0) return;
    pthread_mutex_lock(&pool->mutex); // who is on the way to sleep is asleep then, or sees the job
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < workers; i++)
        pthread_cond_signal(&pool->job_ready);
}

static void claim_items(mm_pool *pool, int32_t thread)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    for (;;) {
        const uint32_t unclaimed = (uint32_t)ticket;
        if (unclaimed == 0) return;
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket - 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        const int64_t n = pool->n_items;
        pool->fn(pool->context, n - unclaimed, thread);
        if (atomic_fetch_add_explicit(&pool->done, 1, memory_order_acq_rel) == n - 1 &&
            thread != 0) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->job_done);
            pthread_mutex_unlock(&pool->mutex);
        }
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

// Returns the number of a job other than `seen`.
static uint32_t await_job(mm_pool *pool, uint32_t seen)
{
    int64_t until = 0;
    for (int64_t round = 0;; round++) {
        const uint32_t now = job_of(atomic_load_explicit(&pool->ticket, memory_order_acquire));
        if (now != seen) return now;
        if (!spin(pool, round, &until)) break;
    }
    // Sequential consistency here and in announce(): either the caller sees the sleeper, or the
    // sleeper sees the job.
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    uint64_t ticket = atomic_load(&pool->ticket);
    while (job_of(ticket) == seen) {
        pthread_cond_wait(&pool->job_ready, &pool->mutex);
        ticket = atomic_load(&pool->ticket);
    }
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
    if ((uint32_t)ticket > 1) wake(pool, (uint32_t)ticket > 2 ? 2 : 1);
    return job_of(ticket);
}

static void *worker_main(void *context)
{
    const worker *self = context;
    mm_pool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = await_job(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed)) return NULL;
        claim_items(pool, self->index);
    }
}

// Publishes the next job; its fields are in place.
static void announce(mm_pool *pool, uint32_t n_items)
{
    const uint32_t job = job_of(atomic_load_explicit(&pool->ticket, memory_order_relaxed)) + 1;
    atomic_store(&pool->ticket, (uint64_t)job << 32 | n_items);
}

mm_status mm_pool_new(mm_pool **out, int32_t threads, mm_err *err)
{
    *out = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return MM_FAIL(err, MM_ECONFIG, "--threads %d: expected 0 (all) to %d", (int)threads,
                       MAX_THREADS);
    const int32_t n = threads == 0 ? mm_cpu_count() : threads;
    mm_pool *pool = mm_alloc_aligned(sizeof *pool + (size_t)n * sizeof(worker));
    if (!pool) return MM_FAIL(err, MM_ENOMEM, "thread pool of %d threads", (int)n);
    pool->n_threads = n;
    pool->spin_ns = n <= mm_cpu_count() ? SPIN_NS : 0;
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
    announce(pool, 0);
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->job_ready);
    pthread_mutex_unlock(&pool->mutex);
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
    MM_ASSERT(n <= UINT32_MAX);
    pool->n_items = n;
    pool->fn = fn;
    pool->context = context;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    announce(pool, (uint32_t)n);
    wake(pool, 1);
    claim_items(pool, 0);
    int64_t until = 0;
    int64_t round = 0;
    do {
        if (atomic_load_explicit(&pool->done, memory_order_acquire) == n) return;
    } while (spin(pool, round++, &until));
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->done, memory_order_acquire) != n)
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
