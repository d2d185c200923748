/* Who runs a sweep, and whether that process is still there. Like a run's claim, but the process
 * holds only a lock: the database is open while a sweep is recorded or settled, not while its arms
 * train. */
#include "store/claim.h"
#include "store/db.h"
#include "store/lock.h"

#include <inttypes.h>
#include <unistd.h>

struct mm_sweep_claim {
    int lock_fd;
    int64_t sweep_id;
};

static mm_status set_status(mm_store *store, int64_t sweep_id, const char *text, mm_err *err)
{
    mm_status status = MM_OK;
    int64_t n_changed = 0;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_db_run(store, "UPDATE sweep SET status = ?2 WHERE id = ?1",
                    MM_VALUES(mm_v_int(sweep_id), mm_v_text(text)), err));
    MM_GO(mm_db_int(store, &n_changed, "SELECT changes()", MM_NO_VALUES, err));
    if (n_changed == 0) {
        status = MM_FAIL(err, MM_ENOTFOUND, "there is no sweep %" PRId64, sweep_id);
        goto done;
    }
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_sweep_claim_take(mm_sweep_claim **out, mm_store *store, int64_t sweep_id, mm_err *err)
{
    mm_status status = MM_OK;
    bool is_ours = false;
    *out = NULL;
    mm_sweep_claim *claim = mm_calloc(1, sizeof *claim);
    if (!claim) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    claim->sweep_id = sweep_id;
    MM_GO(mm_lock_open(&claim->lock_fd, store->real_path, true, err));
    MM_GO(mm_lock_try(claim->lock_fd, MM_LOCK_SWEEP, sweep_id, &is_ours, err));
    if (!is_ours) {
        status =
            MM_FAIL(err, MM_EBUSY, "sweep %" PRId64 " is being run by another process", sweep_id);
        goto done;
    }
    MM_GO(set_status(store, sweep_id, "running", err));
    *out = claim;
    claim = NULL;
done:
    mm_sweep_claim_drop(claim);
    return status;
}

mm_status mm_sweep_end(mm_sweep_claim *claim, mm_store *store, const char *text, mm_err *err)
{
    const mm_status status = set_status(store, claim->sweep_id, text, err);
    mm_sweep_claim_drop(claim);
    return status;
}

void mm_sweep_claim_drop(mm_sweep_claim *claim)
{
    if (!claim) return;
    if (claim->lock_fd >= 0) close(claim->lock_fd);
    mm_free(claim);
}

mm_status mm_sweep_is_dead(mm_store *store, int64_t sweep_id, bool *is_dead, mm_err *err)
{
    int64_t is_running = 0;
    *is_dead = false;
    // The lock is freed after the status is stored: free first and `running` afterwards is a death.
    if (mm_lock_is_held(store->lock_fd, MM_LOCK_SWEEP, sweep_id)) return MM_OK;
    MM_TRY(mm_db_int(store, &is_running,
                     "SELECT count(*) FROM sweep WHERE id = ?1 AND status = 'running'",
                     MM_VALUES(mm_v_int(sweep_id)), err));
    *is_dead = is_running > 0;
    return MM_OK;
}

mm_status mm_sweeps_repair(mm_store *store, mm_err *err)
{
    for (int64_t id = 0;;) {
        bool is_dead = false;
        MM_TRY(
            mm_db_int(store, &id,
                      "SELECT coalesce(min(id), 0) FROM sweep WHERE status = 'running' AND id > ?1",
                      MM_VALUES(mm_v_int(id)), err));
        if (id == 0) return MM_OK;
        MM_TRY(mm_sweep_is_dead(store, id, &is_dead, err));
        if (is_dead) MM_TRY(set_status(store, id, "killed", err));
    }
}
