/* Removing checkpoints and giving their space back.
 *
 * A checkpoint is first made invisible ('removing'), then its chunks go a few per transaction, last
 * its row: at every moment a crash leaves something that the next call finds and finishes.
 */
#include "store/chunk.h"
#include "store/db.h"
#include "store/lock.h"

#include <inttypes.h>
#include <unistd.h>

enum { REMOVED_PER_COMMIT = 64, VACUUM_PAGES_PER_COMMIT = 1024 };

typedef struct reference {
    int64_t idx;
    int64_t seq;
    int64_t chunk_id;
} reference;

static mm_status read_references(mm_store *store, int64_t id, reference *out, size_t *count,
                                 mm_err *err)
{
    *count = 0;
    sqlite3_stmt *s;
    MM_TRY(mm_db_query(
        store, &s, "SELECT idx, seq, chunk_id FROM tensor_chunk WHERE checkpoint_id = ?1 LIMIT ?2",
        MM_VALUES(mm_v_int(id), mm_v_int(REMOVED_PER_COMMIT)), err));
    for (;;) {
        bool has_row;
        MM_TRY(mm_db_step(store, s, &has_row, err));
        if (!has_row) return MM_OK;
        MM_ASSERT(*count < REMOVED_PER_COMMIT);
        out[(*count)++] = (reference){.idx = sqlite3_column_int64(s, 0),
                                      .seq = sqlite3_column_int64(s, 1),
                                      .chunk_id = sqlite3_column_int64(s, 2)};
    }
}

// One transaction; *is_done when the checkpoint is gone.
static mm_status remove_some(mm_store *store, int64_t id, bool *is_done, mm_err *err)
{
    reference references[REMOVED_PER_COMMIT];
    size_t count;
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(read_references(store, id, references, &count, err));
    for (size_t i = 0; i < count; i++) {
        MM_GO(mm_db_run(
            store, "DELETE FROM tensor_chunk WHERE checkpoint_id = ?1 AND idx = ?2 AND seq = ?3",
            MM_VALUES(mm_v_int(id), mm_v_int(references[i].idx), mm_v_int(references[i].seq)),
            err));
        MM_GO(mm_chunk_hand_over(store, references[i].chunk_id, id, err));
        MM_GO(mm_db_run(store,
                        "DELETE FROM chunk WHERE id = ?1 AND NOT EXISTS "
                        "(SELECT 1 FROM tensor_chunk WHERE chunk_id = ?1)",
                        MM_VALUES(mm_v_int(references[i].chunk_id)), err));
    }
    *is_done = count < REMOVED_PER_COMMIT;
    if (*is_done) {
        MM_GO(mm_db_run(store, "DELETE FROM tensor WHERE checkpoint_id = ?1",
                        MM_VALUES(mm_v_int(id)), err));
        MM_GO(
            mm_db_run(store, "DELETE FROM checkpoint WHERE id = ?1", MM_VALUES(mm_v_int(id)), err));
    }
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

// Nothing happens to one whose writer, or another collector, lives.
static mm_status remove_one(mm_store *store, int64_t id, mm_err *err)
{
    int fd;
    MM_TRY(mm_lock_open(&fd, store->real_path, true, err));
    bool is_ours = false;
    mm_status status = MM_OK;
    MM_GO(mm_lock_try(fd, MM_LOCK_CHECKPOINT, id, &is_ours, err));
    if (!is_ours) goto done;
    // It may have been completed between the listing and the lock.
    int64_t is_garbage = 0;
    MM_GO(mm_db_int(store, &is_garbage,
                    "SELECT count(*) FROM checkpoint WHERE id = ?1 AND state <> 'complete'",
                    MM_VALUES(mm_v_int(id)), err));
    for (bool is_done = !is_garbage; !is_done;) {
        MM_GO(remove_some(store, id, &is_done, err));
    }
done:
    close(fd);
    return status;
}

mm_status mm_checkpoints_collect(mm_store *store, mm_err *err)
{
    // By rising id, one after the other: whatever is skipped is not met again.
    int64_t after = 0;
    for (;;) {
        int64_t id = 0;
        MM_TRY(mm_db_int(store, &id,
                         "SELECT min(id) FROM checkpoint WHERE state <> 'complete' AND id > ?1",
                         MM_VALUES(mm_v_int(after)), err));
        if (id == 0) return MM_OK;
        MM_TRY(remove_one(store, id, err));
        after = id;
    }
}

mm_status mm_checkpoints_remove_after(mm_store *store, int64_t run_id, int64_t step, mm_err *err)
{
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_db_run(store,
                    "UPDATE checkpoint SET state = 'removing' "
                    "WHERE run_id = ?1 AND step > ?2 AND state = 'complete'",
                    MM_VALUES(mm_v_int(run_id), mm_v_int(step)), err));
    MM_GO(mm_db_commit(store, err));
    MM_GO(mm_checkpoints_collect(store, err));
    int64_t n_left = 0;
    MM_GO(mm_db_int(store, &n_left,
                    "SELECT count(*) FROM checkpoint WHERE run_id = ?1 AND step > ?2",
                    MM_VALUES(mm_v_int(run_id), mm_v_int(step)), err));
    if (n_left > 0) {
        status = MM_FAIL(err, MM_EBUSY, "a checkpoint of run %" PRId64 " is being written", run_id);
    }
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_checkpoints_prune(mm_store *store, int64_t run_id, int32_t keep, mm_err *err)
{
    MM_ASSERT(keep > 0);
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_db_run(store,
                    "UPDATE checkpoint SET state = 'removing' "
                    "WHERE run_id = ?1 AND state = 'complete' AND NOT is_final "
                    "AND id NOT IN (SELECT id FROM checkpoint WHERE run_id = ?1 "
                    "AND state = 'complete' ORDER BY step DESC, id DESC LIMIT ?2) "
                    "AND id NOT IN (SELECT id FROM checkpoint WHERE run_id = ?1 "
                    "AND state = 'complete' AND val_loss IS NOT NULL ORDER BY val_loss, step, id "
                    "LIMIT 1)",
                    MM_VALUES(mm_v_int(run_id), mm_v_int(keep)), err));
    MM_GO(mm_db_commit(store, err));
    MM_GO(mm_checkpoints_collect(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_vacuum(mm_store *store, mm_err *err)
{
    mm_str pragma = {0};
    mm_status status = MM_OK;
    mm_str_addf(&pragma, "PRAGMA incremental_vacuum(%d)", VACUUM_PAGES_PER_COMMIT);
    MM_GO(mm_str_check(&pragma, err));
    for (int64_t n_free = 1, n_before = INT64_MAX;;) {
        MM_GO(mm_db_int(store, &n_free, "PRAGMA freelist_count", MM_NO_VALUES, err));
        if (n_free == 0 || n_free >= n_before) break;
        n_before = n_free;
        MM_GO(mm_db_begin(store, MM_SYNC_NORMAL, err));
        MM_GO(mm_db_script(store, pragma.data, err));
        MM_GO(mm_db_commit(store, err));
    }
done:
    mm_db_rollback(store);
    mm_str_drop(&pragma);
    return status;
}
