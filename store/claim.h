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

/* Whether the process of a run that is stored as `running` still lives. */
MM_NODISCARD mm_status mm_run_is_alive(mm_store *store, int64_t run_id, bool *is_alive,
                                       mm_err *err);
/* Marks runs whose process died as `killed`, after replaying their rings; also replays rings left
 * by a full disk. */
MM_NODISCARD mm_status mm_runs_repair(mm_store *store, mm_err *err);
/* MM_ENOTFOUND naming the run unless it exists. */
MM_NODISCARD mm_status mm_run_must_exist(mm_store *store, int64_t run_id, mm_err *err);
/* Inside a transaction. */
MM_NODISCARD mm_status mm_event_insert(mm_store *store, int64_t run_id, const char *level,
                                       const char *kind, const char *message, mm_err *err);

#endif
