/* Metrics: the producer's side of the ring, and the thread that commits it. See metrics.h, ring.h.
 *
 * Two locks, never held together by one thread in the other order: db_mutex (the connection and the
 * series) is taken first, mutex (waiting and waking) inside it or alone. The producer takes
 * neither.
 */
#include "store/metrics.h"

#include "core/base/clock.h"
#include "core/base/utf8.h"
#include "store/claim.h"
#include "store/db.h"
#include "store/lock.h"
#include "store/ring.h"
#include "store/series.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum {
    WAKE_POINTS = 512,      /* the producer wakes the writer this often */
    BATCH_POINTS = 1 << 15, /* most points in a commit, when there is a backlog */
    TOUCH_AHEAD = 1 << 15,  /* records whose pages are made ready before the producer comes */
    PAGE_RECORDS = 4096 / sizeof(mm_ring_record),
};
static const int64_t COMMIT_NS = 250 * INT64_C(1000000);
static const int64_t RETRY_NS = 1000 * INT64_C(1000000); /* after a failure */
static const int64_t HEARTBEAT_NS = 5000 * INT64_C(1000000);

_Static_assert((MM_RING_RECORDS & (MM_RING_RECORDS - 1)) == 0, "a mask finds the record");

struct mm_metrics {
    mm_ring ring;
    int64_t run_id;
    int32_t attempt;
    int64_t run_start_ms;

    _Atomic uint64_t n_logged;    /* by the producer */
    _Atomic uint64_t n_committed; /* by the writer */
    _Atomic bool is_failing;      /* the last commit failed: do not wait for the writer */
    _Atomic bool was_full;
    bool was_full_recorded; /* writer only */
    uint64_t n_touched;     /* writer only */

    pthread_mutex_t db_mutex;
    mm_store *store;
    mm_series series[MM_SERIES_MAX]; /* id 0: to be loaded */
    char names[MM_SERIES_MAX][MM_METRIC_NAME_BYTES];
    int32_t n_series;

    pthread_mutex_t mutex;
    pthread_cond_t wake;  /* to the writer */
    pthread_cond_t tried; /* after each attempt to commit */
    uint64_t n_wanted;    /* flush: commit up to here at once */
    uint64_t n_tries;
    bool is_closing;
    mm_err failure; /* MM_OK: the last commit went well */
    pthread_t thread;
};

/* ---- the writer --------------------------------------------------------------------------------
 */

static mm_status load_series(mm_metrics *metrics, size_t handle, mm_series **out, mm_err *err)
{
    mm_series *series = &metrics->series[handle];
    if (series->id == 0) {
        MM_TRY(
            mm_series_load(metrics->store, metrics->ring.header->series_ids[handle], series, err));
    }
    *out = series;
    return MM_OK;
}

static mm_status add_records(mm_metrics *metrics, uint64_t first, uint64_t end, mm_err *err)
{
    for (uint64_t number = first; number < end; number++) {
        const mm_ring_record *record = &metrics->ring.records[number & (MM_RING_RECORDS - 1)];
        mm_series *series;
        MM_TRY(load_series(metrics, (size_t)(record->where >> 48), &series, err));
        MM_TRY(mm_series_add(metrics->store, series, record->step,
                             (int64_t)(record->where & ((UINT64_C(1) << 48) - 1)), record->value,
                             err));
    }
    for (int32_t i = 0; i < metrics->n_series; i++) {
        if (metrics->series[i].id) MM_TRY(mm_series_save(metrics->store, &metrics->series[i], err));
    }
    return MM_OK;
}

// One transaction: points, summaries, pyramid, heartbeat, and how far the ring has been taken.
static mm_status commit_batch(mm_metrics *metrics, mm_err *err)
{
    mm_store *store = metrics->store;
    const uint64_t first = atomic_load(&metrics->n_committed);
    uint64_t end = atomic_load_explicit(&metrics->n_logged, memory_order_acquire);
    if (end - first > BATCH_POINTS) end = first + BATCH_POINTS;
    const bool is_full_news = atomic_load(&metrics->was_full) && !metrics->was_full_recorded;
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(add_records(metrics, first, end, err));
    if (is_full_news) {
        MM_GO(mm_event_insert(store, metrics->run_id, "warn", "ring_full",
                              "metrics came faster than the database took them; training waited",
                              err));
    }
    MM_GO(mm_db_run(store,
                    "UPDATE attempt SET heartbeat_ms = ?3, ring_seq = ?4 "
                    "WHERE run_id = ?1 AND number = ?2",
                    MM_VALUES(mm_v_int(metrics->run_id), mm_v_int(metrics->attempt),
                              mm_v_int(mm_now_ms()), mm_v_int((int64_t)end)),
                    err));
    MM_GO(mm_db_commit(store, err));
    metrics->was_full_recorded = metrics->was_full_recorded || is_full_news;
    atomic_store_explicit(&metrics->n_committed, end, memory_order_release);
done:
    mm_db_rollback(store);
    if (status != MM_OK) {
        // What the series mirror has been rolled back: load them again.
        for (int32_t i = 0; i < metrics->n_series; i++) {
            metrics->series[i].id = 0;
        }
    }
    return status;
}

// One try, its result told to whoever waits.
static mm_status try_commit(mm_metrics *metrics)
{
    mm_err err = {0};
    pthread_mutex_lock(&metrics->db_mutex);
    const mm_status status = commit_batch(metrics, &err);
    pthread_mutex_unlock(&metrics->db_mutex);
    atomic_store(&metrics->is_failing, status != MM_OK);
    pthread_mutex_lock(&metrics->mutex);
    metrics->failure = err;
    metrics->n_tries++;
    pthread_cond_broadcast(&metrics->tried);
    pthread_mutex_unlock(&metrics->mutex);
    return status;
}

// The first write to a page of a mapped file is a fault of tens of microseconds: taken here instead
// of in the training thread. Changes nothing.
static void touch_ahead(mm_metrics *metrics)
{
    const uint64_t end = atomic_load(&metrics->n_logged) + TOUCH_AHEAD;
    for (; metrics->n_touched < end; metrics->n_touched += PAGE_RECORDS) {
        mm_ring_record *record = &metrics->ring.records[metrics->n_touched & (MM_RING_RECORDS - 1)];
        atomic_fetch_or_explicit(&record->tag, 0, memory_order_relaxed);
    }
}

static uint64_t n_pending(const mm_metrics *metrics)
{
    return atomic_load(&metrics->n_logged) - atomic_load(&metrics->n_committed);
}

// Sleeps until there is something to do. The mutex is held.
static void wait_for_work(mm_metrics *metrics, int64_t last_ns, bool has_failed)
{
    for (;;) {
        const int64_t since = mm_mono_ns() - last_ns;
        const uint64_t pending = n_pending(metrics);
        if (metrics->is_closing) return;
        if (has_failed) {
            if (since >= RETRY_NS) return;
        } else {
            if (metrics->n_wanted > atomic_load(&metrics->n_committed)) return;
            if (pending >= WAKE_POINTS) return;
            if (pending > 0 && since >= COMMIT_NS) return;
            if (since >= HEARTBEAT_NS) return;
        }
        // A signal of the producer may be missed, as it takes no lock: never sleep past one period.
        const int64_t until = mm_mono_ns() + COMMIT_NS;
        const struct timespec deadline = {.tv_sec = (time_t)(until / 1000000000),
                                          .tv_nsec = (long)(until % 1000000000)};
        pthread_cond_timedwait(&metrics->wake, &metrics->mutex, &deadline);
        // A flush wants an answer now, also from a writer that has just failed.
        if (has_failed && metrics->n_wanted > atomic_load(&metrics->n_committed)) return;
    }
}

static void *run_thread(void *context)
{
    mm_metrics *metrics = context;
    bool has_failed = false;
    int64_t last_ns = mm_mono_ns();
    for (bool is_closing = false; !is_closing;) {
        touch_ahead(metrics);
        pthread_mutex_lock(&metrics->mutex);
        wait_for_work(metrics, last_ns, has_failed);
        is_closing = metrics->is_closing;
        pthread_mutex_unlock(&metrics->mutex);
        do {
            has_failed = try_commit(metrics) != MM_OK;
        } while (!has_failed && n_pending(metrics) >= (is_closing ? 1 : WAKE_POINTS));
        last_ns = mm_mono_ns();
    }
    return NULL;
}

/* ---- the producer ------------------------------------------------------------------------------
 */

// False when the point has to be given up: the ring is full and the writer cannot empty it.
static bool wait_for_room(mm_metrics *metrics, uint64_t number)
{
    atomic_store(&metrics->was_full, true);
    while (number - atomic_load_explicit(&metrics->n_committed, memory_order_acquire) >
           MM_RING_RECORDS) {
        if (atomic_load(&metrics->is_failing)) return false;
        pthread_cond_signal(&metrics->wake);
        mm_sleep_jittered(1.0);
    }
    return true;
}

void mm_metric_log(mm_metrics *metrics, int32_t series, int64_t step, double value)
{
    MM_ASSERT(series >= 0 && series < metrics->n_series);
    const uint64_t number = atomic_load_explicit(&metrics->n_logged, memory_order_relaxed) + 1;
    const uint64_t n_committed = atomic_load_explicit(&metrics->n_committed, memory_order_acquire);
    if (number - n_committed > MM_RING_RECORDS && !wait_for_room(metrics, number)) return;
    const int64_t since = mm_now_ms() - metrics->run_start_ms;
    const uint64_t time_ms = since > 0 ? (uint64_t)since & ((UINT64_C(1) << 48) - 1) : 0;
    mm_ring_record *record = &metrics->ring.records[(number - 1) & (MM_RING_RECORDS - 1)];
    record->step = step;
    record->where = ((uint64_t)series << 48) | time_ms;
    record->value = value;
    atomic_store_explicit(&record->tag, mm_ring_tag(metrics->attempt, number),
                          memory_order_release);
    atomic_store_explicit(&metrics->n_logged, number, memory_order_release);
    if ((number & (WAKE_POINTS - 1)) == 0) pthread_cond_signal(&metrics->wake);
}

static mm_status check_name(const char *name, mm_err *err)
{
    const size_t length = strlen(name);
    if (length == 0 || length >= MM_METRIC_NAME_BYTES || mm_utf8_valid(name, length) != length) {
        return MM_FAIL(err, MM_EUSAGE,
                       "metric name of %zu bytes: 1 to %d bytes of UTF-8 were expected", length,
                       MM_METRIC_NAME_BYTES - 1);
    }
    return MM_OK;
}

static mm_status add_series(mm_metrics *metrics, const char *name, mm_err *err)
{
    mm_store *store = metrics->store;
    const int32_t handle = metrics->n_series;
    if (handle == MM_SERIES_MAX) {
        return MM_FAIL(err, MM_ELIMIT, "metric '%s': a run has at most %d metrics", name,
                       MM_SERIES_MAX);
    }
    int64_t id;
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(mm_series_find(store, metrics->run_id, name, &id, err));
    MM_GO(mm_series_load(store, id, &metrics->series[handle], err));
    MM_GO(mm_db_commit(store, err));
    // Only a committed row may be named in the ring.
    metrics->ring.header->series_ids[handle] = id;
    memcpy(metrics->names[handle], name, strlen(name) + 1);
    metrics->n_series++;
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_metrics_series(mm_metrics *metrics, const char *name, int32_t *series, mm_err *err)
{
    MM_TRY(check_name(name, err));
    mm_status status = MM_OK;
    pthread_mutex_lock(&metrics->db_mutex);
    int32_t found = 0;
    while (found < metrics->n_series && strcmp(metrics->names[found], name) != 0) {
        found++;
    }
    if (found == metrics->n_series) status = add_series(metrics, name, err);
    if (status == MM_OK) *series = found;
    pthread_mutex_unlock(&metrics->db_mutex);
    return status;
}

/* ---- opening, waiting, closing -----------------------------------------------------------------
 */

static mm_status start_thread(mm_metrics *metrics, mm_err *err)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&metrics->wake, &attributes);
    pthread_cond_init(&metrics->tried, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&metrics->mutex, NULL);
    pthread_mutex_init(&metrics->db_mutex, NULL);
    if (pthread_create(&metrics->thread, NULL, run_thread, metrics) == 0) return MM_OK;
    return MM_FAIL(err, MM_ENOMEM, "cannot start the thread that writes metrics");
}

mm_status mm_metrics_open(mm_metrics **out, mm_claim *claim, mm_err *err)
{
    *out = NULL;
    mm_metrics *metrics = mm_calloc(1, sizeof *metrics);
    if (!metrics) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    metrics->run_id = claim->run_id;
    metrics->attempt = claim->attempt;
    metrics->run_start_ms = claim->run_start_ms;
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&metrics->store, claim->store->real_path, MM_STORE_WRITE, err));
    MM_GO(mm_ring_create(&metrics->ring, claim->store->real_path, claim->run_id, claim->attempt,
                         err));
    MM_GO(start_thread(metrics, err));
    *out = metrics;
done:
    if (status != MM_OK) {
        mm_ring_drop(&metrics->ring, true);
        mm_store_close(metrics->store);
        mm_free(metrics);
    }
    return status;
}

mm_status mm_metrics_flush(mm_metrics *metrics, mm_err *err)
{
    const uint64_t target = atomic_load(&metrics->n_logged);
    mm_status status = MM_OK;
    pthread_mutex_lock(&metrics->mutex);
    if (target > metrics->n_wanted) metrics->n_wanted = target;
    const uint64_t n_tries = metrics->n_tries;
    pthread_cond_signal(&metrics->wake);
    while (atomic_load(&metrics->n_committed) < target) {
        if (metrics->n_tries > n_tries && metrics->failure.status != MM_OK) {
            status = metrics->failure.status;
            if (err) *err = metrics->failure;
            break;
        }
        pthread_cond_wait(&metrics->tried, &metrics->mutex);
    }
    pthread_mutex_unlock(&metrics->mutex);
    return status;
}

mm_status mm_metrics_status(mm_metrics *metrics, mm_err *err)
{
    pthread_mutex_lock(&metrics->mutex);
    const mm_status status = metrics->failure.status;
    if (status != MM_OK && err) *err = metrics->failure;
    pthread_mutex_unlock(&metrics->mutex);
    return status;
}

mm_status mm_metrics_close(mm_metrics *metrics, mm_err *err)
{
    if (!metrics) return MM_OK;
    pthread_mutex_lock(&metrics->mutex);
    metrics->is_closing = true;
    pthread_cond_signal(&metrics->wake);
    pthread_mutex_unlock(&metrics->mutex);
    pthread_join(metrics->thread, NULL);
    mm_status status = MM_OK;
    const bool is_complete = n_pending(metrics) == 0;
    if (!is_complete) {
        status = metrics->failure.status;
        if (err) *err = metrics->failure;
    }
    // What could not be committed stays in the ring for the next one who opens the database.
    mm_ring_drop(&metrics->ring, is_complete);
    mm_store_close(metrics->store);
    pthread_cond_destroy(&metrics->wake);
    pthread_cond_destroy(&metrics->tried);
    pthread_mutex_destroy(&metrics->mutex);
    pthread_mutex_destroy(&metrics->db_mutex);
    mm_free(metrics);
    return status;
}
