/* Checkpoints that refer: taking arrays over from another checkpoint, and who owns a chunk.
 *
 * A chunk lives as long as a row of tensor_chunk points at it, whichever checkpoint that row
 * belongs to. Taking an array over copies those rows, in a transaction that has seen the other
 * checkpoint complete: from its commit on nothing that happens to the other one can take the chunks
 * away, and before it nothing was taken.
 *
 * The owner of a chunk is the one with the smallest id of the checkpoints that refer to it and are
 * or were complete; own_bytes is kept true in the transactions that change that.
 */
#include "store/chunk.h"
#include "store/db.h"

#include <string.h>

// The array of the other checkpoint with this description, if all its chunks are there.
static mm_status find_same(mm_store *store, int64_t base_id, const mm_blob *blob, int64_t *base_idx,
                           uint8_t sha256[MM_SHA256_BYTES], mm_err *err)
{
    *base_idx = -1;
    mm_str shape = {0};
    sqlite3_stmt *s = NULL;
    mm_status status = MM_OK;
    mm_blob_add_shape(&shape, blob);
    MM_GO(mm_str_check(&shape, err));
    MM_GO(mm_db_query(store, &s,
                      "SELECT t.idx, t.sha256, (SELECT count(*) FROM tensor_chunk r "
                      "JOIN chunk c ON c.id = r.chunk_id "
                      "WHERE r.checkpoint_id = t.checkpoint_id AND r.idx = t.idx) FROM tensor t "
                      "WHERE t.checkpoint_id = ?1 AND t.name = ?2 AND t.dtype = ?3 "
                      "AND t.shape = ?4 AND t.element_bytes = ?5 AND t.bytes = ?6",
                      MM_VALUES(mm_v_int(base_id), mm_v_text(blob->name), mm_v_text(blob->dtype),
                                mm_v_text(shape.data), mm_v_int(blob->element_bytes),
                                mm_v_int((int64_t)blob->bytes)),
                      err));
    bool has_row;
    MM_GO(mm_db_step(store, s, &has_row, err));
    if (!has_row) goto done;
    const int64_t n_chunks = (int64_t)((blob->bytes + MM_CHUNK_BYTES - 1) / MM_CHUNK_BYTES);
    const bool is_whole =
        sqlite3_column_bytes(s, 1) == MM_SHA256_BYTES && sqlite3_column_int64(s, 2) == n_chunks;
    if (is_whole) {
        *base_idx = sqlite3_column_int64(s, 0);
        memcpy(sha256, sqlite3_column_blob(s, 1), MM_SHA256_BYTES);
    }
done:
    mm_db_end(s);
    mm_str_drop(&shape);
    return status;
}

mm_status mm_checkpoint_is_complete(mm_store *store, int64_t id, bool *is_complete, mm_err *err)
{
    int64_t n = 0;
    MM_TRY(mm_db_int(store, &n,
                     "SELECT count(*) FROM checkpoint WHERE id = ?1 "
                     "AND state = 'complete'",
                     MM_VALUES(mm_v_int(id)), err));
    *is_complete = n > 0;
    return MM_OK;
}

mm_status mm_checkpoint_take_over(mm_store *store, int64_t id, const mm_checkpoint_new *checkpoint,
                                  bool *is_taken, uint8_t (*digests)[MM_SHA256_BYTES], mm_err *err)
{
    if (checkpoint->base_id == 0) return MM_OK;
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    bool has_base;
    MM_GO(mm_checkpoint_is_complete(store, checkpoint->base_id, &has_base, err));
    for (size_t i = 0; i < checkpoint->n_blobs && has_base; i++) {
        const mm_blob *blob = &checkpoint->blobs[i];
        int64_t base_idx;
        if (!blob->is_frozen) continue;
        MM_GO(find_same(store, checkpoint->base_id, blob, &base_idx, digests[i], err));
        if (base_idx < 0) continue;
        MM_GO(mm_db_run(store,
                        "INSERT INTO tensor_chunk (checkpoint_id, idx, seq, chunk_id) "
                        "SELECT ?1, ?2, seq, chunk_id FROM tensor_chunk "
                        "WHERE checkpoint_id = ?3 AND idx = ?4",
                        MM_VALUES(mm_v_int(id), mm_v_int((int64_t)i), mm_v_int(checkpoint->base_id),
                                  mm_v_int(base_idx)),
                        err));
        is_taken[i] = true;
    }
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

/* ---- who owns a chunk --------------------------------------------------------------------------
 */

// As a condition on ?1 and what is newer: a checkpoint may be published after a newer one that
// shares its chunks, and takes them from it then.
static const char COUNT_OWN[] =
    "UPDATE checkpoint SET own_bytes = "
    "(SELECT coalesce(sum(c.stored_bytes), 0) FROM chunk c "
    "WHERE c.id IN (SELECT t.chunk_id FROM tensor_chunk t WHERE t.checkpoint_id = checkpoint.id) "
    "AND NOT EXISTS (SELECT 1 FROM tensor_chunk e JOIN checkpoint k ON k.id = e.checkpoint_id "
    "WHERE e.chunk_id = c.id AND k.id < checkpoint.id AND k.state <> 'writing')) "
    "WHERE id >= ?1 AND state <> 'writing'";

mm_status mm_checkpoint_count_own(mm_store *store, int64_t id, mm_err *err)
{
    return mm_db_run(store, COUNT_OWN, MM_VALUES(mm_v_int(id)), err);
}

mm_status mm_chunk_hand_over(mm_store *store, int64_t chunk_id, int64_t from_id, mm_err *err)
{
    // Nothing to do while the old one still refers to it, or was not its owner.
    return mm_db_run(store,
                     "UPDATE checkpoint SET own_bytes = own_bytes + "
                     "(SELECT stored_bytes FROM chunk WHERE id = ?1) WHERE id = "
                     "(SELECT min(t.checkpoint_id) FROM tensor_chunk t "
                     "JOIN checkpoint k ON k.id = t.checkpoint_id "
                     "WHERE t.chunk_id = ?1 AND k.state <> 'writing') AND id > ?2 "
                     "AND (SELECT state FROM checkpoint WHERE id = ?2) <> 'writing'",
                     MM_VALUES(mm_v_int(chunk_id), mm_v_int(from_id)), err);
}
