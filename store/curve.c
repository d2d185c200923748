/* Curves for charts: summaries, and buckets from the pyramid or from the points. */
#include "store/db.h"
#include "store/query.h"
#include "store/series.h"

#include <math.h>

static void read_series(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_series_info *info = item;
    *info = (mm_series_info){
        .name = mm_db_text(s, 0, arena),
        .n = sqlite3_column_int64(s, 1),
        .n_bad = sqlite3_column_int64(s, 2),
        .first_bad_step = mm_db_int_or(s, 3, -1),
        .first_step = sqlite3_column_int64(s, 4),
        .last_step = sqlite3_column_int64(s, 5),
        .last = mm_db_real(s, 6),
        .min = mm_db_real(s, 7),
        .min_step = mm_db_int_or(s, 8, -1),
        .max = mm_db_real(s, 9),
        .max_step = mm_db_int_or(s, 10, -1),
        .first = mm_db_real(s, 12),
    };
    const int64_t n_finite = info->n - info->n_bad;
    info->mean = n_finite > 0 ? sqlite3_column_double(s, 11) / (double)n_finite : (double)NAN;
}

mm_status mm_store_series(mm_store *store, int64_t run_id, mm_arena *arena, mm_series_info **out,
                          size_t *count, mm_err *err)
{
    mm_rows rows = {.arena = arena, .item_bytes = sizeof(mm_series_info)};
    *out = NULL;
    *count = 0;
    MM_TRY(mm_rows_read(store,
                        "SELECT m.name, s.n, s.n_bad, s.first_bad_step, s.first_step, s.last_step, "
                        "s.last, s.min, s.min_step, s.max, s.max_step, s.sum, "
                        "(SELECT p.value FROM point p "
                        "WHERE p.series_id = s.id AND p.step = s.first_step) FROM series s JOIN "
                        "metric m ON m.id = s.metric_id "
                        "WHERE s.run_id = ?1 AND s.n > 0 ORDER BY m.name",
                        MM_VALUES(mm_v_int(run_id)), read_series, &rows, err));
    *out = rows.items;
    *count = rows.count;
    return MM_OK;
}

typedef struct curve_info {
    int64_t series_id; /* 0: there is none */
    int64_t n;
    int64_t first_step;
    int64_t last_step;
} curve_info;

static mm_status find_curve(mm_store *store, int64_t run_id, const char *name, curve_info *out,
                            mm_err *err)
{
    *out = (curve_info){0};
    sqlite3_stmt *s;
    MM_TRY(mm_db_query(store, &s,
                       "SELECT s.id, s.n, s.first_step, s.last_step FROM metric m "
                       "JOIN series s ON s.metric_id = m.id "
                       "WHERE m.name = ?1 AND s.run_id = ?2 AND s.n > 0",
                       MM_VALUES(mm_v_text(name), mm_v_int(run_id)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, s, &has_row, err));
    if (!has_row) return MM_OK;
    *out = (curve_info){
        .series_id = sqlite3_column_int64(s, 0),
        .n = sqlite3_column_int64(s, 1),
        .first_step = sqlite3_column_int64(s, 2),
        .last_step = sqlite3_column_int64(s, 3),
    };
    mm_db_end(s);
    return MM_OK;
}

// A bucket with the sum in `mean` until the end.
static void merge(mm_bucket *into, const mm_bucket *from)
{
    if (into->n == 0) {
        *into = *from;
        return;
    }
    into->step_last = from->step_last;
    into->time_ms = from->time_ms;
    into->n += from->n;
    into->n_bad += from->n_bad;
    into->mean += from->mean;
    if (!(into->min <= from->min) && !isnan(from->min)) into->min = from->min;
    if (!(into->max >= from->max) && !isnan(from->max)) into->max = from->max;
}

static void read_point(sqlite3_stmt *s, mm_bucket *out)
{
    const double value = mm_db_real(s, 2);
    const bool is_finite = isfinite(value);
    *out = (mm_bucket){
        .step_first = sqlite3_column_int64(s, 0),
        .step_last = sqlite3_column_int64(s, 0),
        .time_ms = sqlite3_column_int64(s, 1),
        .n = 1,
        .n_bad = is_finite ? 0 : 1,
        .min = is_finite ? value : (double)NAN,
        .max = is_finite ? value : (double)NAN,
        .mean = is_finite ? value : 0.0,
    };
}

static void read_lod(sqlite3_stmt *s, mm_bucket *out)
{
    *out = (mm_bucket){
        .step_first = sqlite3_column_int64(s, 0),
        .step_last = sqlite3_column_int64(s, 1),
        .time_ms = sqlite3_column_int64(s, 2),
        .n = sqlite3_column_int64(s, 3),
        .n_bad = sqlite3_column_int64(s, 4),
        .min = mm_db_real(s, 5),
        .max = mm_db_real(s, 6),
        .mean = sqlite3_column_double(s, 7),
    };
}

// Level 0 is the points. A coarser level is taken as soon as it still fills the picture: the points
// of a short curve cost nothing, those of a long one are never touched.
static int choose_level(const curve_info *curve, size_t max_buckets)
{
    const double n_wanted = (double)max_buckets;
    if ((double)curve->n <= 16.0 * n_wanted) return 0;
    const double span = (double)(curve->last_step - curve->first_step) + 1.0;
    return span / (double)mm_lod_widths[1] >= n_wanted ? 2 : 1;
}

static mm_status query_level(mm_store *store, const curve_info *curve, int level, sqlite3_stmt **s,
                             mm_err *err)
{
    const mm_value id = mm_v_int(curve->series_id);
    if (level == 0) {
        return mm_db_query(
            store, s, "SELECT step, time_ms, value FROM point WHERE series_id = ?1 ORDER BY step",
            MM_VALUES(id), err);
    }
    return mm_db_query(store, s,
                       "SELECT first_step, last_step, time_ms, n, n_bad, min, max, sum FROM lod "
                       "WHERE series_id = ?1 AND level = ?2 ORDER BY bucket",
                       MM_VALUES(id, mm_v_int(level)), err);
}

mm_status mm_store_curve(mm_store *store, int64_t run_id, const char *name, size_t max_buckets,
                         mm_arena *arena, mm_bucket **out, size_t *count, mm_err *err)
{
    MM_ASSERT(max_buckets > 0);
    *out = NULL;
    *count = 0;
    curve_info curve;
    MM_TRY(find_curve(store, run_id, name, &curve, err));
    if (curve.series_id == 0) return MM_OK;
    // One bucket more than asked for can be needed while a live run grows; it is merged into the
    // last.
    mm_bucket *buckets = mm_arena_alloc(arena, max_buckets * sizeof *buckets);
    if (!buckets) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    const int level = choose_level(&curve, max_buckets);
    const bool is_raw = level == 0 && (size_t)curve.n <= max_buckets;
    const int64_t unit = level == 0 ? 1 : mm_lod_widths[level - 1];
    const int64_t origin = curve.first_step - curve.first_step % unit;
    // Whole units of the level, so that no stored bucket is torn in two.
    const int64_t n_units = (curve.last_step - origin) / unit + 1;
    const int64_t width = unit * ((n_units + (int64_t)max_buckets - 1) / (int64_t)max_buckets);
    int64_t current = -1;
    sqlite3_stmt *s;
    MM_TRY(query_level(store, &curve, level, &s, err));
    mm_status status = MM_OK;
    for (;;) {
        bool has_row;
        MM_GO(mm_db_step(store, s, &has_row, err));
        if (!has_row) break;
        mm_bucket item;
        (level == 0 ? read_point : read_lod)(s, &item);
        const int64_t bucket = is_raw ? (int64_t)*count : (item.step_first - origin) / width;
        const bool is_new = *count == 0 || bucket != current;
        if (is_new && *count < max_buckets) {
            buckets[(*count)++] = (mm_bucket){0};
            current = bucket;
        }
        merge(&buckets[*count - 1], &item);
    }
    for (size_t i = 0; i < *count; i++) {
        const int64_t n_finite = buckets[i].n - buckets[i].n_bad;
        buckets[i].mean = n_finite > 0 ? buckets[i].mean / (double)n_finite : (double)NAN;
    }
    *out = buckets;
done:
    mm_db_end(s);
    return status;
}
