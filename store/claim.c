/* Claims, attempts, rewinding, and the repair of runs whose process died. See store.h, claim.h.
 *
 * Order matters: the run's lock is taken before its status says `running` and released after the
 * status says something else, so that `running` without a lock always means a dead process.
 */
#include "store/claim.h"

#include "core/base/clock.h"
#include "store/chunk.h"
#include "store/db.h"
#include "store/lock.h"
#include "store/ring.h"
#include "store/series.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// A heartbeat comes every 5 s; from another machine nothing else can be known.
enum { STALE_MS = 60 * 1000 };

typedef struct owner {
    char host[256];
    char boot_id[64];
    int64_t number;
    int64_t pid;
    int64_t heartbeat_ms;
} owner;

static void copy_text(char *out, size_t capacity, const unsigned char *text)
{
    const size_t length = text ? strnlen((const char *)text, capacity - 1) : 0;
    if (length > 0) memcpy(out, text, length);
    out[length] = '\0';
}

// The newest attempt; number 0: none.
static mm_status read_owner(mm_store *store, int64_t run_id, owner *out, mm_err *err)
{
    *out = (owner){0};
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement,
                       "SELECT number, host, boot_id, pid, heartbeat_ms FROM attempt "
                       "WHERE run_id = ?1 ORDER BY number DESC LIMIT 1",
                       MM_VALUES(mm_v_int(run_id)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, statement, &has_row, err));
    if (!has_row) return MM_OK;
    out->number = sqlite3_column_int64(statement, 0);
    copy_text(out->host, sizeof out->host, sqlite3_column_text(statement, 1));
    copy_text(out->boot_id, sizeof out->boot_id, sqlite3_column_text(statement, 2));
    out->pid = sqlite3_column_int64(statement, 3);
    out->heartbeat_ms = sqlite3_column_int64(statement, 4);
    mm_db_end(statement);
    return MM_OK;
}

// A copy from another machine, whose run may go on over there.
static bool beats_elsewhere(const owner *last)
{
    mm_process here;
    mm_process_get(&here);
    const bool is_elsewhere =
        strcmp(last->boot_id, here.boot_id) != 0 && strcmp(last->host, here.host) != 0;
    return is_elsewhere && mm_now_ms() - last->heartbeat_ms < STALE_MS;
}

mm_status mm_run_look(mm_store *store, int64_t run_id, mm_run_life *life, mm_err *err)
{
    // A run may end, or end and be resumed, between two looks. A process releases its lock after it
    // has stored how it ended, so: lock free first, then `running` in the database, and the same
    // attempt as before the lock was seen free, is a death. A new attempt: look again.
    for (int i = 0; i < 100; i++) {
        owner before;
        owner after;
        MM_TRY(read_owner(store, run_id, &before, err));
        *life = MM_RUN_ALIVE;
        if (mm_lock_is_held(store->lock_fd, MM_LOCK_RUN, run_id)) return MM_OK;
        int64_t is_running = 0;
        MM_TRY(mm_db_int(store, &is_running,
                         "SELECT count(*) FROM run WHERE id = ?1 AND status = 'running'",
                         MM_VALUES(mm_v_int(run_id)), err));
        MM_TRY(read_owner(store, run_id, &after, err));
        if (before.number != after.number) continue;
        *life = is_running ? MM_RUN_DEAD : MM_RUN_ENDED;
        if (is_running && beats_elsewhere(&after)) *life = MM_RUN_ALIVE;
        return MM_OK;
    }
    return MM_OK; // resumed a hundred times while we looked: somebody is alive
}

/* ---- repair ------------------------------------------------------------------------------------
 */

// The caller owns the run's lock.
static mm_status mark_killed(mm_store *store, int64_t run_id, mm_err *err)
{
    mm_status status = MM_OK;
    owner last;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    int64_t is_running = 0;
    MM_GO(mm_db_int(store, &is_running,
                    "SELECT count(*) FROM run WHERE id = ?1 AND status = 'running'",
                    MM_VALUES(mm_v_int(run_id)), err));
    if (!is_running) goto done;
    MM_GO(read_owner(store, run_id, &last, err));
    MM_GO(mm_db_run(store,
                    "UPDATE attempt SET ended = 'killed', ended_ms = heartbeat_ms "
                    "WHERE run_id = ?1 AND ended IS NULL",
                    MM_VALUES(mm_v_int(run_id)), err));
    MM_GO(mm_db_run(store,
                    "UPDATE run SET status = 'killed', ended_ms = (SELECT max(heartbeat_ms) "
                    "FROM attempt WHERE run_id = ?1) WHERE id = ?1",
                    MM_VALUES(mm_v_int(run_id)), err));
    char message[128];
    snprintf(message, sizeof message, "process %" PRId64 " ended without saying why", last.pid);
    MM_GO(mm_event_insert(store, run_id, "warn", "killed", message, err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

static mm_status repair_run(mm_store *store, int64_t run_id, mm_err *err)
{
    mm_run_life life;
    MM_TRY(mm_run_look(store, run_id, &life, err));
    if (life == MM_RUN_ALIVE) return MM_OK;
    int fd;
    MM_TRY(mm_lock_open(&fd, store->real_path, true, err));
    bool is_ours = false;
    mm_status status = MM_OK;
    MM_GO(mm_lock_try(fd, MM_LOCK_RUN, run_id, &is_ours, err));
    if (!is_ours) goto done; // another process repairs or resumes it just now
    MM_GO(mm_ring_replay(store, run_id, err));
    MM_GO(mark_killed(store, run_id, err));
done:
    close(fd);
    return status;
}

static mm_status repair_runs(mm_store *store, const int64_t *run_ids, size_t count, mm_err *err)
{
    for (size_t i = 0; i < count; i++) {
        const mm_status status = repair_run(store, run_ids[i], err);
        if (status == MM_OK) continue;
        mm_err_context(err, "repairing run %" PRId64, run_ids[i]);
        return status;
    }
    return MM_OK;
}

static mm_status list_running(mm_store *store, mm_arena *arena, int64_t **ids, size_t *count,
                              mm_err *err)
{
    int64_t n = 0;
    *count = 0;
    MM_TRY(mm_db_int(store, &n, "SELECT count(*) FROM run WHERE status = 'running'", MM_NO_VALUES,
                     err));
    *ids = mm_arena_alloc(arena, (size_t)(n + 1) * sizeof **ids);
    if (!*ids) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, "SELECT id FROM run WHERE status = 'running'",
                       MM_NO_VALUES, err));
    mm_status status = MM_OK;
    // Another process may have added one since the count: that one is alive.
    for (bool has_row; (int64_t)*count < n;) {
        MM_GO(mm_db_step(store, statement, &has_row, err));
        if (!has_row) break;
        (*ids)[(*count)++] = sqlite3_column_int64(statement, 0);
    }
done:
    mm_db_end(statement);
    return status;
}

mm_status mm_runs_repair(mm_store *store, mm_err *err)
{
    mm_arena arena = {0};
    int64_t *ids;
    size_t count;
    mm_status status = MM_OK;
    MM_GO(list_running(store, &arena, &ids, &count, err));
    MM_GO(repair_runs(store, ids, count, err));
    MM_GO(mm_ring_list(store->real_path, &arena, &ids, &count, err));
    MM_GO(repair_runs(store, ids, count, err));
    MM_GO(mm_sweeps_repair(store, err));
    MM_GO(mm_checkpoints_collect(store, err));
done:
    mm_arena_drop(&arena);
    return status;
}

/* ---- claims ------------------------------------------------------------------------------------
 */

static mm_status fail_busy(mm_store *store, int64_t run_id, mm_err *err)
{
    owner last;
    MM_TRY(read_owner(store, run_id, &last, err));
    return MM_FAIL(err, MM_EBUSY, "run %" PRId64 " is being written by process %" PRId64 " on %s",
                   run_id, last.pid, last.host);
}

static mm_status open_attempt(mm_claim *claim, int64_t rewind_step, mm_err *err)
{
    mm_store *store = claim->store;
    const mm_value run = mm_v_int(claim->run_id);
    const int64_t now = mm_now_ms();
    mm_process here;
    mm_process_get(&here);
    int64_t number = 0;
    MM_TRY(mm_db_int(store, &number, "SELECT max(number) FROM attempt WHERE run_id = ?1",
                     MM_VALUES(run), err));
    claim->attempt = (int32_t)number + 1;
    MM_TRY(mm_db_run(store,
                     "INSERT INTO attempt (run_id, number, from_step, host, boot_id, pid, "
                     "pid_start, started_ms, "
                     "heartbeat_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
                     MM_VALUES(run, mm_v_int(claim->attempt),
                               mm_v_int(rewind_step > 0 ? rewind_step : 0), mm_v_text(here.host),
                               mm_v_text(here.boot_id), mm_v_int(here.pid),
                               mm_v_int(here.pid_start), mm_v_int(now)),
                     err));
    MM_TRY(mm_db_run(store,
                     "UPDATE run SET status = 'running', started_ms = coalesce(started_ms, ?2), "
                     "ended_ms = NULL, error = NULL WHERE id = ?1",
                     MM_VALUES(run, mm_v_int(now)), err));
    return mm_db_int(store, &claim->run_start_ms, "SELECT started_ms FROM run WHERE id = ?1",
                     MM_VALUES(run), err);
}

static mm_status rewind_run(mm_claim *claim, int64_t step, mm_err *err)
{
    mm_store *store = claim->store;
    MM_TRY(mm_series_rewind(store, claim->run_id, step, claim->attempt, err));
    MM_TRY(mm_db_run(store,
                     "UPDATE generation SET superseded_by = ?3 "
                     "WHERE run_id = ?1 AND step > ?2 AND superseded_by IS NULL",
                     MM_VALUES(mm_v_int(claim->run_id), mm_v_int(step), mm_v_int(claim->attempt)),
                     err));
    MM_TRY(mm_db_run(store,
                     "UPDATE result SET superseded_by = ?3 "
                     "WHERE run_id = ?1 AND step > ?2 AND superseded_by IS NULL",
                     MM_VALUES(mm_v_int(claim->run_id), mm_v_int(step), mm_v_int(claim->attempt)),
                     err));
    // Made invisible here, deleted in pieces after the commit.
    MM_TRY(mm_db_run(store,
                     "UPDATE checkpoint SET state = 'removing' "
                     "WHERE run_id = ?1 AND step > ?2 AND state = 'complete'",
                     MM_VALUES(mm_v_int(claim->run_id), mm_v_int(step)), err));
    char message[96];
    snprintf(message, sizeof message, "attempt %d goes on from step %" PRId64, (int)claim->attempt,
             step);
    return mm_event_insert(store, claim->run_id, "info", "resume", message, err);
}

mm_status mm_run_claim(mm_claim **out, mm_store *store, int64_t run_id, int64_t rewind_step,
                       mm_err *err)
{
    *out = NULL;
    MM_TRY(mm_run_must_exist(store, run_id, err));
    mm_claim *claim = mm_calloc(1, sizeof *claim);
    if (!claim) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    *claim = (mm_claim){.store = store, .run_id = run_id, .lock_fd = -1};
    mm_status status = MM_OK;
    MM_GO(mm_lock_open(&claim->lock_fd, store->real_path, true, err));
    bool is_ours = false;
    MM_GO(mm_lock_try(claim->lock_fd, MM_LOCK_RUN, run_id, &is_ours, err));
    if (!is_ours) {
        status = fail_busy(store, run_id, err);
        goto done;
    }
    // An earlier process may have died since the database was opened. Its points come first, so
    // that a rewind finds them.
    MM_GO(mm_ring_replay(store, run_id, err));
    MM_GO(mark_killed(store, run_id, err));
    MM_GO(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(open_attempt(claim, rewind_step, err));
    if (rewind_step >= 0) MM_GO(rewind_run(claim, rewind_step, err));
    MM_GO(mm_db_commit(store, err));
    if (rewind_step >= 0) MM_GO(mm_checkpoints_collect(store, err));
    *out = claim;
done:
    mm_db_rollback(store);
    if (status != MM_OK) mm_claim_drop(claim);
    return status;
}

mm_status mm_run_end(mm_claim *claim, const char *status_text, const char *error, mm_err *err)
{
    MM_ASSERT(strcmp(status_text, "finished") == 0 || strcmp(status_text, "stopped") == 0 ||
              strcmp(status_text, "failed") == 0 || strcmp(status_text, "pruned") == 0);
    mm_store *store = claim->store;
    const mm_value now = mm_v_int(mm_now_ms());
    const mm_value run = mm_v_int(claim->run_id);
    mm_status status = MM_OK;
    MM_GO(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_db_run(store,
                    "UPDATE attempt SET ended = ?3, ended_ms = ?4, heartbeat_ms = ?4 "
                    "WHERE run_id = ?1 AND number = ?2",
                    MM_VALUES(run, mm_v_int(claim->attempt), mm_v_text(status_text), now), err));
    MM_GO(mm_db_run(store, "UPDATE run SET status = ?2, error = ?3, ended_ms = ?4 WHERE id = ?1",
                    MM_VALUES(run, mm_v_text(status_text), mm_v_text(error), now), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    mm_claim_drop(claim);
    return status;
}

void mm_claim_drop(mm_claim *claim)
{
    if (!claim) return;
    if (claim->lock_fd >= 0) close(claim->lock_fd);
    mm_free(claim);
}
