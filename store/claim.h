/* Private to store: the right to write a run, and finding runs whose process is gone. */
#ifndef MM_STORE_CLAIM_H
#define MM_STORE_CLAIM_H

#include "store/store.h"

struct mm_claim {
    mm_store *store;
    int lock_fd; /* its own descriptor: closing it ends the claim */
    int64_t run_id;
    int32_t attempt;
    int64_t run_start_ms; /* of the first attempt; times of points count from here */
};

/* What a run that was read as `running` really is. ENDED: it ended properly after it was read; what
 * was read is out of date. */
typedef enum mm_run_life { MM_RUN_ALIVE = 0, MM_RUN_DEAD, MM_RUN_ENDED } mm_run_life;
MM_NODISCARD mm_status mm_run_look(mm_store *store, int64_t run_id, mm_run_life *life, mm_err *err);
/* Marks runs whose process died as `killed`, after replaying their rings; also replays rings left
 * by a full disk. */
MM_NODISCARD mm_status mm_runs_repair(mm_store *store, mm_err *err);
/* The same for sweeps. A sweep that was read as `running` is dead when nobody holds its lock. */
MM_NODISCARD mm_status mm_sweeps_repair(mm_store *store, mm_err *err);
MM_NODISCARD mm_status mm_sweep_is_dead(mm_store *store, int64_t sweep_id, bool *is_dead,
                                        mm_err *err);
/* MM_ENOTFOUND naming the run unless it exists. */
MM_NODISCARD mm_status mm_run_must_exist(mm_store *store, int64_t run_id, mm_err *err);
/* Inside a transaction. */
MM_NODISCARD mm_status mm_event_insert(mm_store *store, int64_t run_id, const char *level,
                                       const char *kind, const char *message, mm_err *err);

#endif
