/* Private to store: curves. One writer for points, summaries and the pyramid, used by the metrics
 * thread, by the replay of a ring and by rewinding, so that the three can never disagree.
 *
 * An mm_series mirrors one row of `series` and the newest bucket of each level of `lod`. It is only
 * valid inside the transactions of one owner: after a rollback it must be loaded again.
 */
#ifndef MM_STORE_SERIES_H
#define MM_STORE_SERIES_H

#include "store/store.h"

enum { MM_LOD_LEVELS = 2, MM_METRIC_NAME_BYTES = 128 };
/* Steps per bucket of level 1 and 2. */
extern const int64_t mm_lod_widths[MM_LOD_LEVELS];

typedef struct mm_lod {
    int64_t bucket;
    int64_t first_step;
    int64_t last_step;
    int64_t time_ms;
    int64_t n; /* 0: no bucket yet */
    int64_t n_bad;
    double min; /* NaN: no finite value */
    double max;
    double sum;
} mm_lod;

typedef struct mm_series {
    int64_t id; /* 0: not loaded */
    int64_t n;
    int64_t n_bad;
    int64_t first_bad_step; /* valid while n_bad > 0 */
    int64_t first_step;     /* valid while n > 0 */
    int64_t last_step;
    int64_t last_time_ms;
    double last;
    double min; /* NaN: no finite value */
    int64_t min_step;
    double max;
    int64_t max_step;
    double sum;
    mm_lod newest[MM_LOD_LEVELS];
    bool is_dirty;
    int64_t rebuild_step; /* a point came out of order at this step; INT64_MAX: none */
} mm_series;

/* All of these inside a write transaction. */

/* Row of (run, metric name), made where it is missing. */
MM_NODISCARD mm_status mm_series_find(mm_store *store, int64_t run_id, const char *name,
                                      int64_t *id, mm_err *err);
MM_NODISCARD mm_status mm_series_load(mm_store *store, int64_t id, mm_series *series, mm_err *err);
/* A point; one at the same step is replaced. */
MM_NODISCARD mm_status mm_series_add(mm_store *store, mm_series *series, int64_t step,
                                     int64_t time_ms, double value, mm_err *err);
/* Writes summary and newest buckets; to be called before commit for every dirty series. */
MM_NODISCARD mm_status mm_series_save(mm_store *store, mm_series *series, mm_err *err);
/* Moves points after `step` of all curves of a run to point_old and brings the rest up to date. */
MM_NODISCARD mm_status mm_series_rewind(mm_store *store, int64_t run_id, int64_t step,
                                        int32_t attempt, mm_err *err);
/* Deletes all curves of a run. */
MM_NODISCARD mm_status mm_series_remove(mm_store *store, int64_t run_id, mm_err *err);

#endif
