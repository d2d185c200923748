/* Metrics: a ring in front of one writer thread, so that training never waits for the disk.
 *
 * mm_metric_log costs a few stores into a memory-mapped ring file beside the database
 * ("<db>-ring-<run>"); the ring survives kill -9 and is replayed before the run is resumed or shown
 * as killed. The writer thread commits points, per-series summaries, the min/max/mean pyramid and
 * the heartbeat at most every 250 ms or 512 points (sooner on flush). One thread logs (the training
 * thread). NaN and infinities are kept as such.
 */
#ifndef MM_STORE_METRICS_H
#define MM_STORE_METRICS_H

#include "store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_metrics mm_metrics;
enum { MM_SERIES_MAX = 64 };

/* Starts the writer thread with its own connection. The claim must outlive it. */
MM_NODISCARD mm_status mm_metrics_open(mm_metrics **out, mm_claim *claim, mm_err *err);
/* Handle of a metric name of this run; known names give the same handle. Not for the hot path. */
MM_NODISCARD mm_status mm_metrics_series(mm_metrics *metrics, const char *name, int32_t *series,
                                         mm_err *err);
/* Never fails, never blocks on the disk; if the ring is full it waits for the writer and records an
 * event. Only while the ring is full and the writer is failing (see mm_metrics_status) are points
 * given up. */
void mm_metric_log(mm_metrics *metrics, int32_t series, int64_t step, double value);
/* Returns when every point logged before is committed; reports the writer's failure (disk full …).
 */
MM_NODISCARD mm_status mm_metrics_flush(mm_metrics *metrics, mm_err *err);
/* How the writer's last commit went, without waiting. A failed one (disk full ...) is tried again
 * every second; the points wait in the ring, and MM_OK comes back when they are in. */
MM_NODISCARD mm_status mm_metrics_status(mm_metrics *metrics, mm_err *err);
/* Flushes, stops the thread, removes the ring; if that fails the ring stays and is replayed by the
 * next who opens the database for writing. To be called before mm_run_end. Frees in every case. */
MM_NODISCARD mm_status mm_metrics_close(mm_metrics *metrics, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
