/* Curves: points, summary and pyramid kept together. See series.h. */
#include "store/series.h"

#include "store/db.h"

#include <math.h>

const int64_t mm_lod_widths[MM_LOD_LEVELS] = {64, 4096};

static int64_t floor_div(int64_t a, int64_t b)
{
    const int64_t quotient = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

mm_status mm_series_find(mm_store *store, int64_t run_id, const char *name, int64_t *id,
                         mm_err *err)
{
    MM_TRY(mm_db_run(store, "INSERT INTO metric (name) VALUES (?1) ON CONFLICT DO NOTHING",
                     MM_VALUES(mm_v_text(name)), err));
    MM_TRY(mm_db_run(store,
                     "INSERT INTO series (metric_id, run_id) SELECT id, ?2 FROM metric "
                     "WHERE name = ?1 ON CONFLICT DO NOTHING",
                     MM_VALUES(mm_v_text(name), mm_v_int(run_id)), err));
    *id = 0;
    MM_TRY(mm_db_int(store, id,
                     "SELECT s.id FROM metric m JOIN series s ON s.metric_id = m.id "
                     "WHERE m.name = ?1 AND s.run_id = ?2",
                     MM_VALUES(mm_v_text(name), mm_v_int(run_id)), err));
    MM_ASSERT(*id > 0);
    return MM_OK;
}

static mm_status load_newest(mm_store *store, mm_series *series, int level, mm_err *err)
{
    mm_lod *lod = &series->newest[level];
    *lod = (mm_lod){.min = (double)NAN, .max = (double)NAN};
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement,
                       "SELECT bucket, first_step, last_step, time_ms, n, n_bad, min, max, sum "
                       "FROM lod WHERE series_id = ?1 AND level = ?2 ORDER BY bucket DESC LIMIT 1",
                       MM_VALUES(mm_v_int(series->id), mm_v_int(level + 1)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, statement, &has_row, err));
    if (!has_row) return MM_OK;
    *lod = (mm_lod){
        .bucket = sqlite3_column_int64(statement, 0),
        .first_step = sqlite3_column_int64(statement, 1),
        .last_step = sqlite3_column_int64(statement, 2),
        .time_ms = sqlite3_column_int64(statement, 3),
        .n = sqlite3_column_int64(statement, 4),
        .n_bad = sqlite3_column_int64(statement, 5),
        .min = mm_db_real(statement, 6),
        .max = mm_db_real(statement, 7),
        .sum = sqlite3_column_double(statement, 8),
    };
    mm_db_end(statement);
    return MM_OK;
}

mm_status mm_series_load(mm_store *store, int64_t id, mm_series *series, mm_err *err)
{
    *series = (mm_series){.id = id, .rebuild_step = INT64_MAX};
    sqlite3_stmt *statement;
    MM_TRY(
        mm_db_query(store, &statement,
                    "SELECT n, n_bad, first_bad_step, first_step, last_step, last_time_ms, last, "
                    "min, min_step, max, max_step, sum FROM series WHERE id = ?1",
                    MM_VALUES(mm_v_int(id)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, statement, &has_row, err));
    if (!has_row) {
        return MM_FAIL(err, MM_ENOTFOUND, "%s: series %lld is gone", mm_store_path(store),
                       (long long)id);
    }
    series->n = sqlite3_column_int64(statement, 0);
    series->n_bad = sqlite3_column_int64(statement, 1);
    series->first_bad_step = sqlite3_column_int64(statement, 2);
    series->first_step = sqlite3_column_int64(statement, 3);
    series->last_step = sqlite3_column_int64(statement, 4);
    series->last_time_ms = sqlite3_column_int64(statement, 5);
    series->last = mm_db_real(statement, 6);
    series->min = mm_db_real(statement, 7);
    series->min_step = sqlite3_column_int64(statement, 8);
    series->max = mm_db_real(statement, 9);
    series->max_step = sqlite3_column_int64(statement, 10);
    series->sum = sqlite3_column_double(statement, 11);
    mm_db_end(statement);
    for (int level = 0; level < MM_LOD_LEVELS; level++) {
        MM_TRY(load_newest(store, series, level, err));
    }
    return MM_OK;
}

static mm_status save_bucket(mm_store *store, const mm_series *series, int level, mm_err *err)
{
    const mm_lod *lod = &series->newest[level];
    if (lod->n == 0) return MM_OK;
    return mm_db_run(store,
                     "INSERT OR REPLACE INTO lod (series_id, level, bucket, first_step, last_step, "
                     "time_ms, n, n_bad, min, max, sum) "
                     "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                     MM_VALUES(mm_v_int(series->id), mm_v_int(level + 1), mm_v_int(lod->bucket),
                               mm_v_int(lod->first_step), mm_v_int(lod->last_step),
                               mm_v_int(lod->time_ms), mm_v_int(lod->n), mm_v_int(lod->n_bad),
                               mm_v_real(lod->min), mm_v_real(lod->max), mm_v_real(lod->sum)),
                     err);
}

// Adds a point that comes after all others to the bucket it belongs to; a bucket that is left is
// written.
static mm_status fold_bucket(mm_store *store, mm_series *series, int level, int64_t step,
                             int64_t time_ms, double value, mm_err *err)
{
    mm_lod *lod = &series->newest[level];
    const int64_t bucket = floor_div(step, mm_lod_widths[level]);
    if (lod->n > 0 && lod->bucket != bucket) {
        MM_ASSERT(bucket > lod->bucket);
        MM_TRY(save_bucket(store, series, level, err));
        lod->n = 0;
    }
    if (lod->n == 0) {
        *lod =
            (mm_lod){.bucket = bucket, .first_step = step, .min = (double)NAN, .max = (double)NAN};
    }
    lod->n++;
    lod->last_step = step;
    lod->time_ms = time_ms;
    if (isfinite(value)) {
        // Comparisons with NaN are false: written so that the first finite value is taken.
        if (!(lod->min <= value)) lod->min = value;
        if (!(lod->max >= value)) lod->max = value;
        lod->sum += value;
    } else {
        lod->n_bad++;
    }
    return MM_OK;
}

static void fold_summary(mm_series *series, int64_t step, int64_t time_ms, double value)
{
    if (series->n == 0) series->first_step = step;
    series->n++;
    series->last_step = step;
    series->last_time_ms = time_ms;
    series->last = value;
    if (!isfinite(value)) {
        if (series->n_bad == 0) series->first_bad_step = step;
        series->n_bad++;
        return;
    }
    if (!(series->min <= value)) {
        series->min = value;
        series->min_step = step;
    }
    if (!(series->max >= value)) {
        series->max = value;
        series->max_step = step;
    }
    series->sum += value;
}

// Computes the summary again from the points, and the pyramid from the bucket of from_step on.
static mm_status rebuild(mm_store *store, mm_series *series, int64_t from_step, mm_err *err)
{
    *series = (mm_series){.id = series->id,
                          .min = (double)NAN,
                          .max = (double)NAN,
                          .last = (double)NAN,
                          .is_dirty = true,
                          .rebuild_step = INT64_MAX};
    int64_t first_bucket[MM_LOD_LEVELS];
    for (int level = 0; level < MM_LOD_LEVELS; level++) {
        first_bucket[level] = floor_div(from_step, mm_lod_widths[level]);
        MM_TRY(mm_db_run(
            store, "DELETE FROM lod WHERE series_id = ?1 AND level = ?2 AND bucket >= ?3",
            MM_VALUES(mm_v_int(series->id), mm_v_int(level + 1), mm_v_int(first_bucket[level])),
            err));
        MM_TRY(load_newest(store, series, level, err));
    }
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement,
                       "SELECT step, time_ms, value FROM point WHERE series_id = ?1 ORDER BY step",
                       MM_VALUES(mm_v_int(series->id)), err));
    mm_status status = MM_OK;
    for (;;) {
        bool has_row;
        MM_GO(mm_db_step(store, statement, &has_row, err));
        if (!has_row) break;
        const int64_t step = sqlite3_column_int64(statement, 0);
        const int64_t time_ms = sqlite3_column_int64(statement, 1);
        const double value = mm_db_real(statement, 2);
        fold_summary(series, step, time_ms, value);
        for (int level = 0; level < MM_LOD_LEVELS; level++) {
            if (floor_div(step, mm_lod_widths[level]) < first_bucket[level]) continue;
            MM_GO(fold_bucket(store, series, level, step, time_ms, value, err));
        }
    }
done:
    mm_db_end(statement);
    return status;
}

mm_status mm_series_add(mm_store *store, mm_series *series, int64_t step, int64_t time_ms,
                        double value, mm_err *err)
{
    MM_ASSERT(series->id > 0);
    MM_TRY(mm_db_run(
        store,
        "INSERT OR REPLACE INTO point (series_id, step, time_ms, value) "
        "VALUES (?1, ?2, ?3, ?4)",
        MM_VALUES(mm_v_int(series->id), mm_v_int(step), mm_v_int(time_ms), mm_v_real(value)), err));
    series->is_dirty = true;
    if (series->n > 0 && step <= series->last_step) {
        if (step < series->rebuild_step) series->rebuild_step = step;
    }
    // Once out of order, the numbers are computed from the points when the batch is saved.
    if (series->rebuild_step != INT64_MAX) return MM_OK;
    for (int level = 0; level < MM_LOD_LEVELS; level++) {
        MM_TRY(fold_bucket(store, series, level, step, time_ms, value, err));
    }
    fold_summary(series, step, time_ms, value);
    return MM_OK;
}

static mm_value value_if(bool is_known, int64_t value)
{
    return is_known ? mm_v_int(value) : (mm_value){.type = MM_VALUE_NULL};
}

mm_status mm_series_save(mm_store *store, mm_series *series, mm_err *err)
{
    if (!series->is_dirty) return MM_OK;
    if (series->rebuild_step != INT64_MAX) {
        MM_TRY(rebuild(store, series, series->rebuild_step, err));
    }
    for (int level = 0; level < MM_LOD_LEVELS; level++) {
        MM_TRY(save_bucket(store, series, level, err));
    }
    const bool has_points = series->n > 0;
    const bool has_finite = series->n > series->n_bad;
    MM_TRY(mm_db_run(
        store,
        "UPDATE series SET n = ?2, n_bad = ?3, first_bad_step = ?4, first_step = ?5, "
        "last_step = ?6, last_time_ms = ?7, last = ?8, min = ?9, min_step = ?10, max = ?11, "
        "max_step = ?12, sum = ?13 WHERE id = ?1",
        MM_VALUES(mm_v_int(series->id), mm_v_int(series->n), mm_v_int(series->n_bad),
                  value_if(series->n_bad > 0, series->first_bad_step),
                  value_if(has_points, series->first_step), value_if(has_points, series->last_step),
                  value_if(has_points, series->last_time_ms), mm_v_real(series->last),
                  mm_v_real(series->min), value_if(has_finite, series->min_step),
                  mm_v_real(series->max), value_if(has_finite, series->max_step),
                  mm_v_real(series->sum)),
        err));
    series->is_dirty = false;
    return MM_OK;
}

// Ids of all curves of a run that have points after `step`.
static mm_status list_after(mm_store *store, int64_t run_id, int64_t step, mm_arena *arena,
                            int64_t **ids, size_t *count, mm_err *err)
{
    int64_t n = 0;
    MM_TRY(mm_db_int(store, &n, "SELECT count(*) FROM series WHERE run_id = ?1",
                     MM_VALUES(mm_v_int(run_id)), err));
    *count = 0;
    *ids = mm_arena_alloc(arena, (size_t)(n + 1) * sizeof **ids);
    if (!*ids) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement,
                       "SELECT id FROM series WHERE run_id = ?1 AND last_step > ?2",
                       MM_VALUES(mm_v_int(run_id), mm_v_int(step)), err));
    for (;;) {
        bool has_row;
        MM_TRY(mm_db_step(store, statement, &has_row, err));
        if (!has_row) return MM_OK;
        MM_ASSERT((int64_t)*count < n);
        (*ids)[(*count)++] = sqlite3_column_int64(statement, 0);
    }
}

mm_status mm_series_rewind(mm_store *store, int64_t run_id, int64_t step, int32_t attempt,
                           mm_err *err)
{
    mm_arena arena = {0};
    int64_t *ids;
    size_t count;
    mm_status status = MM_OK;
    MM_GO(list_after(store, run_id, step, &arena, &ids, &count, err));
    for (size_t i = 0; i < count; i++) {
        const mm_value id = mm_v_int(ids[i]);
        MM_GO(
            mm_db_run(store,
                      "INSERT OR REPLACE INTO point_old (series_id, attempt, step, time_ms, value) "
                      "SELECT series_id, ?3, step, time_ms, value FROM point "
                      "WHERE series_id = ?1 AND step > ?2",
                      MM_VALUES(id, mm_v_int(step), mm_v_int(attempt)), err));
        MM_GO(mm_db_run(store, "DELETE FROM point WHERE series_id = ?1 AND step > ?2",
                        MM_VALUES(id, mm_v_int(step)), err));
        mm_series series = {.id = ids[i]};
        MM_GO(rebuild(store, &series, step, err));
        MM_GO(mm_series_save(store, &series, err));
    }
done:
    mm_arena_drop(&arena);
    return status;
}

mm_status mm_series_remove(mm_store *store, int64_t run_id, mm_err *err)
{
    const mm_value run = mm_v_int(run_id);
    MM_TRY(mm_db_run(
        store, "DELETE FROM point WHERE series_id IN (SELECT id FROM series WHERE run_id = ?1)",
        MM_VALUES(run), err));
    MM_TRY(mm_db_run(store,
                     "DELETE FROM point_old WHERE series_id IN "
                     "(SELECT id FROM series WHERE run_id = ?1)",
                     MM_VALUES(run), err));
    MM_TRY(mm_db_run(store,
                     "DELETE FROM lod WHERE series_id IN (SELECT id FROM series WHERE run_id = ?1)",
                     MM_VALUES(run), err));
    return mm_db_run(store, "DELETE FROM series WHERE run_id = ?1", MM_VALUES(run), err);
}
