/* Reading: runs, references to runs, hyperparameters and the small records. Curves are in curve.c.
 */
#include "store/query.h"

#include "core/base/nearest.h"

#include "store/claim.h"
#include "store/db.h"
#include "store/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- runs --------------------------------------------------------------------------------------
 */

#define RUN_COLUMNS                                                                                \
    "id, name, stage, status, parent_id, parent_step, sweep_id, seed, device, dtype, "             \
    "params_total, params_trainable, steps, steps_planned, tokens, final_loss, best_val_loss, "    \
    "tokens_per_s, created_ms, started_ms, ended_ms, duration_s, error, command, host, version, "  \
    "git_commit, notes, tags"

static void read_run(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    int i = 0;
    mm_run_info *run = item;
    run->id = sqlite3_column_int64(s, i++);
    run->name = mm_db_text(s, i++, arena);
    run->stage = mm_db_text(s, i++, arena);
    run->status = mm_db_text(s, i++, arena);
    run->parent_id = sqlite3_column_int64(s, i++);
    run->parent_step = mm_db_int_or(s, i++, -1);
    run->sweep_id = sqlite3_column_int64(s, i++);
    run->seed = (uint64_t)sqlite3_column_int64(s, i++);
    run->device = mm_db_text(s, i++, arena);
    run->dtype = mm_db_text(s, i++, arena);
    run->params_total = sqlite3_column_int64(s, i++);
    run->params_trainable = sqlite3_column_int64(s, i++);
    run->steps = sqlite3_column_int64(s, i++);
    run->steps_planned = sqlite3_column_int64(s, i++);
    run->tokens = sqlite3_column_int64(s, i++);
    run->final_loss = mm_db_real(s, i++);
    run->best_val_loss = mm_db_real(s, i++);
    run->tokens_per_s = mm_db_real(s, i++);
    run->created_ms = sqlite3_column_int64(s, i++);
    run->started_ms = sqlite3_column_int64(s, i++);
    run->ended_ms = sqlite3_column_int64(s, i++);
    run->duration_s = sqlite3_column_double(s, i++);
    run->error = mm_db_text(s, i++, arena);
    run->command = mm_db_text(s, i++, arena);
    run->host = mm_db_text(s, i++, arena);
    run->version = mm_db_text(s, i++, arena);
    run->git_commit = mm_db_text(s, i++, arena);
    run->notes = mm_db_text(s, i++, arena);
    run->tags = mm_db_text(s, i++, arena);
}

static mm_status read_one_run(mm_store *store, int64_t run_id, mm_rows *list, mm_err *err)
{
    return mm_rows_read(store, "SELECT " RUN_COLUMNS " FROM run_summary WHERE id = ?1",
                        MM_VALUES(mm_v_int(run_id)), read_run, list, err);
}

// What the database says may be out of date: a killed process wrote nothing.
static mm_status correct_status(mm_store *store, mm_run_info *run, mm_arena *arena, mm_err *err)
{
    if (!run->status || strcmp(run->status, "running") != 0) return MM_OK;
    mm_run_life life;
    MM_TRY(mm_run_look(store, run->id, &life, err));
    if (life == MM_RUN_DEAD) run->status = "killed";
    if (life != MM_RUN_ENDED) return MM_OK;
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_run_info)};
    MM_TRY(read_one_run(store, run->id, &list, err));
    if (list.count == 1) *run = *(const mm_run_info *)list.items;
    return MM_OK;
}

mm_status mm_store_runs(mm_store *store, const mm_run_filter *filter, mm_arena *arena,
                        mm_run_info **out, size_t *count, mm_err *err)
{
    static const mm_run_filter everything;
    if (!filter) filter = &everything;
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_run_info)};
    // Newest first, so that the limit keeps those; a status is compared after its correction.
    MM_TRY(mm_rows_read(
        store,
        "SELECT " RUN_COLUMNS " FROM run_summary "
        "WHERE (?1 IS NULL OR sweep_id = ?1) AND (?2 IS NULL OR stage = ?2) "
        "AND (?3 IS NULL OR id IN (SELECT run_id FROM tag WHERE tag = ?3)) "
        "ORDER BY id DESC LIMIT ?4",
        MM_VALUES(mm_v_id(filter->sweep_id), mm_v_text(filter->stage), mm_v_text(filter->tag),
                  mm_v_int(filter->limit > 0 && !filter->status ? filter->limit : -1)),
        read_run, &list, err));
    mm_run_info *runs = list.items;
    size_t n_kept = 0;
    for (size_t i = 0; i < list.count; i++) {
        MM_TRY(correct_status(store, &runs[i], arena, err));
        const bool is_wanted = !filter->status || strcmp(runs[i].status, filter->status) == 0;
        const bool is_room = filter->limit <= 0 || (int64_t)n_kept < filter->limit;
        if (is_wanted && is_room) runs[n_kept++] = runs[i];
    }
    for (size_t i = 0; i < n_kept / 2; i++) {
        const mm_run_info newer = runs[i];
        runs[i] = runs[n_kept - 1 - i];
        runs[n_kept - 1 - i] = newer;
    }
    *out = runs;
    *count = n_kept;
    return MM_OK;
}

mm_status mm_store_run(mm_store *store, int64_t run_id, mm_arena *arena, mm_run_info *out,
                       mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_run_info)};
    MM_TRY(read_one_run(store, run_id, &list, err));
    if (list.count == 0) return mm_run_must_exist(store, run_id, err);
    *out = *(const mm_run_info *)list.items;
    return correct_status(store, out, arena, err);
}

/* ---- references --------------------------------------------------------------------------------
 */

enum { NEAR_RUNS = 500, NEAR_SHOWN = 3, NEAR_BYTES = 64 };

typedef struct named {
    int64_t id;
    const char *name;
} named;

static void read_named(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    named *entry = item;
    entry->id = sqlite3_column_int64(s, 0);
    entry->name = mm_db_text(s, 1, arena);
}

// MM_ENOTFOUND with the names that look like it.
static mm_status fail_not_found(mm_store *store, const char *what, const char *sql,
                                const char *text, mm_err *err)
{
    mm_arena arena = {0};
    mm_str near = {0};
    mm_rows list = {.arena = &arena, .item_bytes = sizeof(named)};
    mm_status status = MM_OK;
    MM_GO(mm_rows_read(store, sql, MM_VALUES(mm_v_int(NEAR_RUNS)), read_named, &list, err));
    const named *entries = list.items;
    size_t n_shown = 0;
    const int limit = (int)(strnlen(text, NEAR_BYTES) / 3) + 1;
    for (int distance = 0; distance <= limit && n_shown < NEAR_SHOWN; distance++) {
        for (size_t i = 0; i < list.count && n_shown < NEAR_SHOWN; i++) {
            // A name that contains the text counts as the nearest.
            const bool is_part = *text && strstr(entries[i].name, text) != NULL;
            const int found = is_part ? 0
                                      : mm_edit_distance(entries[i].name, strlen(entries[i].name),
                                                         text, strlen(text));
            if (found != distance) continue;
            mm_str_addf(&near, "%s%s (%" PRId64 ")", n_shown ? ", " : "", entries[i].name,
                        entries[i].id);
            n_shown++;
        }
    }
    if (list.count == 0) {
        status = MM_FAIL(err, MM_ENOTFOUND, "%s: there is no %s yet", mm_store_path(store), what);
    } else if (n_shown > 0) {
        status = MM_FAIL(err, MM_ENOTFOUND, "there is no %s '%s'; near: %s", what, text,
                         mm_str_text(&near));
    } else {
        status = MM_FAIL(err, MM_ENOTFOUND, "there is no %s '%s'; the newest is %s (%" PRId64 ")",
                         what, text, entries[0].name, entries[0].id);
    }
done:
    mm_str_drop(&near);
    mm_arena_drop(&arena);
    return status;
}

static bool parse_id(const char *text, int64_t *out)
{
    if (!mm_text_is_id(text)) return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

static mm_status find_run(mm_store *store, const char *text, int64_t *run_id, mm_err *err)
{
    *run_id = 0;
    int64_t id = 0;
    if (strcmp(text, "last") == 0) {
        MM_TRY(mm_db_int(store, run_id, "SELECT max(id) FROM run", MM_NO_VALUES, err));
    } else if (parse_id(text, &id)) {
        MM_TRY(mm_db_int(store, run_id, "SELECT id FROM run WHERE id = ?1", MM_VALUES(mm_v_int(id)),
                         err));
    } else {
        MM_TRY(mm_db_int(store, run_id, "SELECT id FROM run WHERE name = ?1",
                         MM_VALUES(mm_v_text(text)), err));
    }
    if (*run_id != 0) return MM_OK;
    return fail_not_found(store, "run", "SELECT id, name FROM run ORDER BY id DESC LIMIT ?1", text,
                          err);
}

mm_status mm_store_resolve(mm_store *store, const char *text, mm_run_ref *out, mm_err *err)
{
    *out = (mm_run_ref){0};
    const char *at = strchr(text, '@');
    char *name = mm_strndup(text, at ? (size_t)(at - text) : strlen(text));
    if (!name) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    const mm_status status = find_run(store, name, &out->run_id, err);
    mm_free(name);
    MM_TRY(status);
    if (!at) return MM_OK;
    out->has_at = true;
    if (strcmp(at + 1, "best") == 0) {
        out->at = MM_AT_BEST;
    } else if (parse_id(at + 1, &out->step)) {
        out->at = MM_AT_STEP;
    } else if (strcmp(at + 1, "final") != 0) {
        return MM_FAIL(err, MM_EUSAGE,
                       "'%s': after '@' a step, 'best' or 'final' was expected, found '%s'", text,
                       at + 1);
    }
    return MM_OK;
}

mm_status mm_store_resolve_checkpoint(mm_store *store, const mm_run_ref *ref, mm_arena *arena,
                                      mm_checkpoint_info *out, mm_err *err)
{
    mm_checkpoint_info *list;
    size_t count;
    MM_TRY(mm_run_must_exist(store, ref->run_id, err));
    MM_TRY(mm_checkpoint_list(store, ref->run_id, arena, &list, &count, err));
    if (count == 0) {
        return MM_FAIL(err, MM_ENOTFOUND,
                       "run %" PRId64 " has no checkpoint: it ended before its first\n"
                       "`mmrun resume %" PRId64 "` trains it",
                       ref->run_id, ref->run_id);
    }
    MM_ASSERT(list);
    // Oldest first: the newest that fits wins, and of two at one step the full one.
    const mm_checkpoint_info *found = NULL;
    for (size_t i = 0; i < count; i++) {
        const mm_checkpoint_info *one = &list[i];
        const bool fits = ref->at == MM_AT_FINAL || (ref->at == MM_AT_BEST && one->is_best) ||
                          (ref->at == MM_AT_STEP && one->step == ref->step);
        const bool is_lesser = found && found->step == one->step &&
                               strcmp(found->kind, "full") == 0 && strcmp(one->kind, "full") != 0;
        if (fits && !is_lesser) found = one;
    }
    // Without a validation loss there is no best; the newest is the honest reading of it.
    if (!found && ref->at == MM_AT_BEST) found = &list[count - 1];
    if (found) {
        *out = *found;
        return MM_OK;
    }
    mm_str steps = {0};
    for (size_t i = 0; i < count; i++) {
        const bool is_repeated = i > 0 && list[i].step == list[i - 1].step;
        if (!is_repeated) mm_str_addf(&steps, "%s%" PRId64, steps.length ? ", " : "", list[i].step);
    }
    const mm_status status = MM_FAIL(
        err, MM_ENOTFOUND, "run %" PRId64 " has no checkpoint at step %" PRId64 "; there are: %s",
        ref->run_id, ref->step, mm_str_text(&steps));
    mm_str_drop(&steps);
    return status;
}

/* ---- small records -----------------------------------------------------------------------------
 */

static void read_param(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_param *param = item;
    param->name = mm_db_text(s, 0, arena);
    param->value = mm_db_text(s, 1, arena);
    param->is_default = sqlite3_column_int(s, 2) != 0;
    param->origin = mm_db_text(s, 3, arena);
}

mm_status mm_store_params(mm_store *store, int64_t run_id, mm_arena *arena, mm_param **out,
                          size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_param)};
    MM_TRY(mm_rows_read(store,
                        "SELECT name, value, is_default, origin FROM param WHERE run_id = ?1 "
                        "ORDER BY name",
                        MM_VALUES(mm_v_int(run_id)), read_param, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

static void read_generation(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    int i = 0;
    mm_generation_row *row = item;
    row->id = sqlite3_column_int64(s, i++);
    row->run_id = sqlite3_column_int64(s, i++);
    row->step = sqlite3_column_int64(s, i++);
    row->prompt_idx = sqlite3_column_int(s, i++);
    row->prompt = mm_db_text(s, i++, arena);
    row->text = mm_db_text(s, i++, arena);
    row->tokens = sqlite3_column_int64(s, i++);
    row->finish_reason = mm_db_text(s, i++, arena);
    row->temperature = mm_db_real(s, i++);
    row->top_p = mm_db_real(s, i++);
    row->top_k = sqlite3_column_int64(s, i++);
    row->seed = (uint64_t)sqlite3_column_int64(s, i++);
    row->tokens_per_s = mm_db_real(s, i++);
    row->created_ms = sqlite3_column_int64(s, i++);
    row->task = mm_db_text(s, i++, arena);
    row->expected = mm_db_text(s, i++, arena);
    row->is_correct = (int32_t)mm_db_int_or(s, i++, -1);
}

mm_status mm_store_generations(mm_store *store, int64_t run_id, mm_arena *arena,
                               mm_generation_row **out, size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_generation_row)};
    MM_TRY(mm_rows_read(store,
                        "SELECT id, run_id, step, prompt_idx, prompt, text, tokens, finish_reason, "
                        "temperature, top_p, top_k, seed, tokens_per_s, created_ms, task, "
                        "expected, is_correct FROM generation "
                        "WHERE run_id = ?1 AND superseded_by IS NULL ORDER BY step, prompt_idx, id",
                        MM_VALUES(mm_v_int(run_id)), read_generation, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

static void read_result(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_result *result = item;
    result->id = sqlite3_column_int64(s, 0);
    result->run_id = sqlite3_column_int64(s, 1);
    result->step = sqlite3_column_int64(s, 2);
    result->task = mm_db_text(s, 3, arena);
    result->metric = mm_db_text(s, 4, arena);
    result->value = mm_db_real(s, 5);
    result->low = mm_db_real(s, 6);
    result->high = mm_db_real(s, 7);
    result->n = sqlite3_column_int64(s, 8);
    result->correct = mm_db_int_or(s, 9, -1);
    result->data_sha256 = mm_db_text(s, 10, arena);
    result->created_ms = sqlite3_column_int64(s, 11);
}

mm_status mm_store_results(mm_store *store, int64_t run_id, mm_arena *arena, mm_result **out,
                           size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_result)};
    // As in the view: an evaluation done again replaces the one before.
    MM_TRY(mm_rows_read(store,
                        "SELECT id, run_id, step, task, metric, value, low, high, n, correct, "
                        "data_sha256, created_ms FROM result WHERE id IN "
                        "(SELECT max(id) FROM result WHERE run_id = ?1 AND superseded_by IS NULL "
                        "GROUP BY step, task, metric, data_sha256) ORDER BY id",
                        MM_VALUES(mm_v_int(run_id)), read_result, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

static void read_dataset(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_dataset *dataset = item;
    dataset->id = sqlite3_column_int64(s, 0);
    dataset->path = mm_db_text(s, 1, arena);
    dataset->source = mm_db_text(s, 2, arena);
    dataset->sha256 = mm_db_text(s, 3, arena);
    dataset->bytes = sqlite3_column_int64(s, 4);
    dataset->rows = sqlite3_column_int64(s, 5);
    dataset->tokens = sqlite3_column_int64(s, 6);
    dataset->role = mm_db_text(s, 7, arena);
}

mm_status mm_store_datasets(mm_store *store, int64_t run_id, mm_arena *arena, mm_dataset **out,
                            size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_dataset)};
    MM_TRY(
        mm_rows_read(store,
                     "SELECT d.id, d.path, d.source, d.sha256, d.bytes, d.rows, d.tokens, u.role "
                     "FROM run_dataset u JOIN dataset d ON d.id = u.dataset_id "
                     "WHERE u.run_id = ?1 ORDER BY d.id, u.role",
                     MM_VALUES(mm_v_int(run_id)), read_dataset, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

static void read_event(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_event *event = item;
    event->run_id = sqlite3_column_int64(s, 0);
    event->time_ms = sqlite3_column_int64(s, 1);
    event->level = mm_db_text(s, 2, arena);
    event->kind = mm_db_text(s, 3, arena);
    event->message = mm_db_text(s, 4, arena);
}

mm_status mm_store_events(mm_store *store, int64_t run_id, mm_arena *arena, mm_event **out,
                          size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_event)};
    MM_TRY(mm_rows_read(store,
                        "SELECT run_id, time_ms, level, kind, message FROM event WHERE run_id = ?1 "
                        "ORDER BY id",
                        MM_VALUES(mm_v_int(run_id)), read_event, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

static void read_env(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_env *env = item;
    env->key = mm_db_text(s, 0, arena);
    env->value = mm_db_text(s, 1, arena);
}

mm_status mm_store_environment(mm_store *store, int64_t run_id, mm_arena *arena, mm_env **out,
                               size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_env)};
    MM_TRY(mm_rows_read(store,
                        "SELECT key, value FROM env WHERE run_id = ?1 AND attempt = "
                        "(SELECT max(attempt) FROM env WHERE run_id = ?1) ORDER BY key",
                        MM_VALUES(mm_v_int(run_id)), read_env, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

static void read_attempt(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_attempt *attempt = item;
    attempt->number = sqlite3_column_int(s, 0);
    attempt->from_step = sqlite3_column_int64(s, 1);
    attempt->started_ms = sqlite3_column_int64(s, 2);
    attempt->ended_ms = sqlite3_column_int64(s, 3);
    attempt->ended = mm_db_text(s, 4, arena);
}

static mm_status read_attempts(mm_store *store, int64_t run_id, mm_arena *arena, mm_attempt **out,
                               size_t *count, mm_err *err)
{
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_attempt)};
    MM_TRY(mm_rows_read(store,
                        "SELECT number, from_step, started_ms, ended_ms, ended FROM attempt "
                        "WHERE run_id = ?1 ORDER BY number",
                        MM_VALUES(mm_v_int(run_id)), read_attempt, &list, err));
    *out = list.items;
    *count = list.count;
    return MM_OK;
}

mm_status mm_store_attempts(mm_store *store, int64_t run_id, mm_arena *arena, mm_attempt **out,
                            size_t *count, mm_err *err)
{
    MM_TRY(read_attempts(store, run_id, arena, out, count, err));
    if (*count == 0 || (*out)[*count - 1].ended) return MM_OK;
    mm_run_life life;
    MM_TRY(mm_run_look(store, run_id, &life, err));
    if (life == MM_RUN_DEAD) (*out)[*count - 1].ended = "killed";
    return life == MM_RUN_ENDED ? read_attempts(store, run_id, arena, out, count, err) : MM_OK;
}

/* ---- proof of a resume -------------------------------------------------------------------------
 */

static void read_recomputed(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    (void)arena;
    mm_recomputed *counts = item;
    counts->points = sqlite3_column_int64(s, 0);
    counts->different = sqlite3_column_int64(s, 1);
}

mm_status mm_store_recomputed(mm_store *store, int64_t run_id, mm_recomputed *out, mm_err *err)
{
    mm_arena arena = {0};
    mm_rows list = {.arena = &arena, .item_bytes = sizeof *out};
    const mm_status status =
        mm_rows_read(store,
                     "SELECT count(*), coalesce(sum(o.value IS NOT p.value), 0)"
                     "  FROM series s"
                     "  JOIN metric m ON m.id = s.metric_id"
                     "  JOIN point_old o ON o.series_id = s.id"
                     "  JOIN point p ON p.series_id = s.id AND p.step = o.step"
                     " WHERE s.run_id = ?1"
                     "   AND m.name NOT IN ('tokens_per_s', 'step_ms', 'mem_bytes')"
                     "   AND m.name NOT LIKE 'sys/%' AND m.name NOT LIKE 'gpu/%'",
                     MM_VALUES(mm_v_int(run_id)), read_recomputed, &list, err);
    if (status == MM_OK) *out = *(const mm_recomputed *)list.items;
    mm_arena_drop(&arena);
    return status;
}

/* ---- sweeps ------------------------------------------------------------------------------------
 */

#define SWEEP_COLUMNS "id, name, stage, search, space, status, objective, command, created_ms"

static void read_sweep(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    mm_sweep *sweep = item;
    sweep->id = sqlite3_column_int64(s, 0);
    sweep->name = mm_db_text(s, 1, arena);
    sweep->stage = mm_db_text(s, 2, arena);
    sweep->search = mm_db_text(s, 3, arena);
    sweep->space = mm_db_text(s, 4, arena);
    sweep->status = mm_db_text(s, 5, arena);
    sweep->objective = mm_db_text(s, 6, arena);
    sweep->command = mm_db_text(s, 7, arena);
    sweep->created_ms = sqlite3_column_int64(s, 8);
}

// What was read as `running` may be over, or its process gone.
static mm_status settle_sweep(mm_store *store, mm_sweep *sweep, mm_err *err)
{
    bool is_dead = false;
    if (strcmp(sweep->status, "running") != 0) return MM_OK;
    MM_TRY(mm_sweep_is_dead(store, sweep->id, &is_dead, err));
    if (is_dead) sweep->status = "killed";
    return MM_OK;
}

mm_status mm_store_sweep(mm_store *store, const char *text, mm_arena *arena, mm_sweep *out,
                         mm_err *err)
{
    int64_t id = 0;
    mm_rows list = {.arena = arena, .item_bytes = sizeof(mm_sweep)};
    if (strcmp(text, "last") == 0) {
        MM_TRY(mm_db_int(store, &id, "SELECT max(id) FROM sweep", MM_NO_VALUES, err));
    } else if (!parse_id(text, &id)) {
        MM_TRY(mm_db_int(store, &id, "SELECT id FROM sweep WHERE name = ?1",
                         MM_VALUES(mm_v_text(text)), err));
    }
    MM_TRY(mm_rows_read(store, "SELECT " SWEEP_COLUMNS " FROM sweep WHERE id = ?1",
                        MM_VALUES(mm_v_int(id)), read_sweep, &list, err));
    if (list.count == 1) {
        *out = *(const mm_sweep *)list.items;
        return settle_sweep(store, out, err);
    }
    return fail_not_found(store, "sweep", "SELECT id, name FROM sweep ORDER BY id DESC LIMIT ?1",
                          text, err);
}
