/* Checkpoints: writing in short transactions, listing, reading back verified. See checkpoint.h.
 *
 * Order of a write: a row in state 'writing' with a kernel lock that says its writer lives; what is
 * taken over from another checkpoint, in one transaction (refer.c); chunks, a few per transaction,
 * each with the row that refers to it, so that no chunk is ever without an owner; last, in one FULL
 * transaction, the tensors, the manifest hash and 'complete'. Whatever happens in between, a reader
 * sees the old checkpoints only.
 */
#include "store/checkpoint.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "store/chunk.h"
#include "store/claim.h"
#include "store/db.h"
#include "store/lock.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum {
    BATCH_BYTES = 4 * MM_CHUNK_BYTES, /* raw bytes per transaction */
    BATCH_CHUNKS = 64,
    TENSORS_MAX = 1 << 20,
    NDIM_MAX = 4,
};

/* ---- the manifest ------------------------------------------------------------------------------
 */

typedef struct manifest_row {
    const char *name;
    const char *dtype;
    const char *shape; /* "[2,3]" */
    int64_t element_bytes;
    int64_t bytes;
    const uint8_t *sha256;
} manifest_row;

static void manifest_text(mm_sha256 *hash, const char *text)
{
    mm_sha256_update(hash, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void manifest_number(mm_sha256 *hash, int64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    }
    mm_sha256_update(hash, bytes, sizeof bytes);
}

// What the hash of a checkpoint covers: everything that a resume depends on.
static mm_status manifest_begin(mm_sha256 *hash, int64_t step, const char *kind, const char *state,
                                mm_err *err)
{
    MM_TRY(mm_sha256_init(hash, err));
    manifest_number(hash, step);
    manifest_text(hash, kind);
    manifest_text(hash, state);
    return MM_OK;
}

static void manifest_add(mm_sha256 *hash, const manifest_row *row)
{
    manifest_text(hash, row->name);
    manifest_text(hash, row->dtype);
    manifest_text(hash, row->shape);
    manifest_number(hash, row->element_bytes);
    manifest_number(hash, row->bytes);
    mm_sha256_update(hash, row->sha256, MM_SHA256_BYTES);
}

void mm_blob_add_shape(mm_str *out, const mm_blob *blob)
{
    mm_str_add_char(out, '[');
    for (int32_t i = 0; i < blob->ndim; i++) {
        mm_str_addf(out, "%s%" PRId64, i ? "," : "", blob->shape[i]);
    }
    mm_str_add_char(out, ']');
}

// Exactly what mm_blob_add_shape writes.
static bool parse_shape(const char *text, mm_blob *blob)
{
    if (!text || *text++ != '[') return false;
    for (blob->ndim = 0; *text != ']'; blob->ndim++) {
        if (blob->ndim == NDIM_MAX) return false;
        if (blob->ndim > 0 && *text++ != ',') return false;
        int64_t number = 0;
        int n_digits = 0;
        for (; *text >= '0' && *text <= '9' && n_digits < 18; text++, n_digits++) {
            number = 10 * number + (*text - '0');
        }
        if (n_digits == 0) return false;
        blob->shape[blob->ndim] = number;
    }
    return text[1] == '\0';
}

/* ---- writing -----------------------------------------------------------------------------------
 */

typedef struct pending {
    mm_chunk chunk;
    int64_t idx;
    int64_t seq;
} pending;

typedef struct checkpoint_writer {
    mm_store *store;
    const mm_checkpoint_new *checkpoint;
    int64_t id;
    int lock_fd;
    mm_chunk_codec codec;
    uint8_t (*digests)[MM_SHA256_BYTES]; /* one per blob, as is_taken */
    bool *is_taken;                      /* from checkpoint->base_id */
    pending batch[BATCH_CHUNKS];
    size_t n_batch;
    size_t batch_bytes;
    int64_t written_bytes;
} checkpoint_writer;

static mm_status check_new(const mm_checkpoint_new *checkpoint, mm_err *err)
{
    if (strcmp(checkpoint->kind, "full") != 0 && strcmp(checkpoint->kind, "weights") != 0) {
        return MM_FAIL(err, MM_EUSAGE, "kind of checkpoint '%s': 'full' or 'weights' was expected",
                       checkpoint->kind);
    }
    if (checkpoint->n_blobs > TENSORS_MAX) {
        return MM_FAIL(err, MM_ELIMIT, "%zu tensors: at most %d", checkpoint->n_blobs, TENSORS_MAX);
    }
    for (size_t i = 0; i < checkpoint->n_blobs; i++) {
        const mm_blob *blob = &checkpoint->blobs[i];
        MM_ASSERT(blob->ndim >= 0 && blob->ndim <= NDIM_MAX && blob->element_bytes > 0);
        MM_ASSERT(blob->data || blob->bytes == 0);
    }
    return MM_OK;
}

// The row that owns the chunks to come, locked before anybody can see it.
static mm_status begin_row(checkpoint_writer *writer, mm_err *err)
{
    const mm_checkpoint_new *checkpoint = writer->checkpoint;
    mm_store *store = writer->store;
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(mm_run_must_exist(store, checkpoint->run_id, err));
    MM_GO(mm_db_run(
        store,
        "INSERT INTO checkpoint (run_id, step, kind, state, details, val_loss, is_final, "
        "created_ms) VALUES (?1, ?2, ?3, 'writing', ?4, ?5, ?6, ?7)",
        MM_VALUES(mm_v_int(checkpoint->run_id), mm_v_int(checkpoint->step),
                  mm_v_text(checkpoint->kind), mm_v_text(checkpoint->state),
                  mm_v_real(isfinite(checkpoint->val_loss) ? checkpoint->val_loss : (double)NAN),
                  mm_v_int(checkpoint->is_final), mm_v_int(mm_now_ms())),
        err));
    MM_GO(mm_db_int(store, &writer->id, "SELECT last_insert_rowid()", MM_NO_VALUES, err));
    bool is_ours;
    MM_GO(mm_lock_try(writer->lock_fd, MM_LOCK_CHECKPOINT, writer->id, &is_ours, err));
    MM_ASSERT(is_ours);
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

static mm_status flush_batch(checkpoint_writer *writer, mm_err *err)
{
    if (writer->n_batch == 0) return MM_OK;
    mm_store *store = writer->store;
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    for (size_t i = 0; i < writer->n_batch; i++) {
        pending *item = &writer->batch[i];
        int64_t chunk_id;
        MM_GO(mm_chunk_put(store, &writer->codec, &item->chunk, &chunk_id, err));
        MM_GO(mm_db_run(store,
                        "INSERT INTO tensor_chunk (checkpoint_id, idx, seq, chunk_id) "
                        "VALUES (?1, ?2, ?3, ?4)",
                        MM_VALUES(mm_v_int(writer->id), mm_v_int(item->idx), mm_v_int(item->seq),
                                  mm_v_int(chunk_id)),
                        err));
    }
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    for (size_t i = 0; i < writer->n_batch; i++) {
        mm_chunk_drop(&writer->batch[i].chunk);
    }
    writer->n_batch = 0;
    writer->batch_bytes = 0;
    return status;
}

static mm_status write_blob(checkpoint_writer *writer, size_t idx, mm_err *err)
{
    const mm_blob *blob = &writer->checkpoint->blobs[idx];
    const uint8_t *data = blob->data;
    mm_sha256 hash;
    MM_TRY(mm_sha256_init(&hash, err));
    mm_status status = MM_OK;
    int64_t seq = 0;
    for (size_t start = 0; start < blob->bytes; start += MM_CHUNK_BYTES, seq++) {
        const size_t left = blob->bytes - start;
        const size_t bytes = left < MM_CHUNK_BYTES ? left : MM_CHUNK_BYTES;
        pending *item = &writer->batch[writer->n_batch++];
        *item = (pending){.idx = (int64_t)idx, .seq = seq};
        item->chunk = (mm_chunk){
            .raw = data + start, .raw_bytes = bytes, .element_bytes = blob->element_bytes};
        MM_GO(mm_chunk_encode(writer->store, &writer->codec, &item->chunk, err));
        mm_sha256_update(&hash, item->chunk.sha256, MM_SHA256_BYTES);
        writer->batch_bytes += bytes;
        writer->written_bytes += (int64_t)bytes;
        if (writer->n_batch == BATCH_CHUNKS || writer->batch_bytes >= BATCH_BYTES) {
            MM_GO(flush_batch(writer, err));
        }
    }
    mm_sha256_final(&hash, writer->digests[idx]);
done:
    mm_sha256_drop(&hash);
    return status;
}

static mm_status insert_tensors(checkpoint_writer *writer, mm_sha256 *manifest, mm_err *err)
{
    mm_str shape = {0};
    mm_status status = MM_OK;
    for (size_t i = 0; i < writer->checkpoint->n_blobs; i++) {
        const mm_blob *blob = &writer->checkpoint->blobs[i];
        mm_str_clear(&shape);
        mm_blob_add_shape(&shape, blob);
        MM_GO(mm_str_check(&shape, err));
        MM_GO(
            mm_db_run(writer->store,
                      "INSERT INTO tensor (checkpoint_id, idx, name, dtype, element_bytes, shape, "
                      "bytes, sha256) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                      MM_VALUES(mm_v_int(writer->id), mm_v_int((int64_t)i), mm_v_text(blob->name),
                                mm_v_text(blob->dtype), mm_v_int(blob->element_bytes),
                                mm_v_text(shape.data), mm_v_int((int64_t)blob->bytes),
                                mm_v_bytes(writer->digests[i], MM_SHA256_BYTES)),
                      err));
        const manifest_row row = {.name = blob->name,
                                  .dtype = blob->dtype,
                                  .shape = shape.data,
                                  .element_bytes = blob->element_bytes,
                                  .bytes = (int64_t)blob->bytes,
                                  .sha256 = writer->digests[i]};
        manifest_add(manifest, &row);
    }
done:
    mm_str_drop(&shape);
    return status;
}

static int64_t all_bytes(const mm_checkpoint_new *checkpoint)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < checkpoint->n_blobs; i++) {
        bytes += (int64_t)checkpoint->blobs[i].bytes;
    }
    return bytes;
}

// The moment the checkpoint comes to be.
static mm_status publish(checkpoint_writer *writer, mm_err *err)
{
    const mm_checkpoint_new *checkpoint = writer->checkpoint;
    mm_store *store = writer->store;
    const mm_value id = mm_v_int(writer->id);
    const mm_value run = mm_v_int(checkpoint->run_id);
    mm_sha256 manifest = {0};
    uint8_t digest[MM_SHA256_BYTES];
    char hex[MM_SHA256_HEX_BYTES];
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(manifest_begin(&manifest, checkpoint->step, checkpoint->kind, checkpoint->state, err));
    MM_GO(insert_tensors(writer, &manifest, err));
    mm_sha256_final(&manifest, digest);
    mm_sha256_hex(digest, hex);
    MM_GO(mm_db_run(store,
                    "UPDATE checkpoint SET state = 'removing' WHERE run_id = ?1 AND step = ?2 "
                    "AND kind = ?3 AND state = 'complete'",
                    MM_VALUES(run, mm_v_int(checkpoint->step), mm_v_text(checkpoint->kind)), err));
    if (checkpoint->is_final) {
        MM_GO(mm_db_run(store, "UPDATE checkpoint SET is_final = 0 WHERE run_id = ?1 AND id <> ?2",
                        MM_VALUES(run, id), err));
    }
    MM_GO(mm_db_run(
        store,
        "UPDATE checkpoint SET state = 'complete', sha256 = ?2, raw_bytes = ?3, "
        "created_ms = ?4, stored_bytes = (SELECT coalesce(sum(c.stored_bytes), 0) "
        "FROM chunk c WHERE c.id IN (SELECT chunk_id FROM tensor_chunk "
        "WHERE checkpoint_id = ?1)) WHERE id = ?1",
        MM_VALUES(id, mm_v_text(hex), mm_v_int(all_bytes(checkpoint)), mm_v_int(mm_now_ms())),
        err));
    MM_GO(mm_checkpoint_count_own(store, writer->id, err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    mm_sha256_drop(&manifest);
    return status;
}

static void drop_batch(checkpoint_writer *writer)
{
    for (size_t i = 0; i < writer->n_batch; i++) {
        mm_chunk_drop(&writer->batch[i].chunk);
    }
    writer->n_batch = 0;
}

mm_status mm_checkpoint_put(mm_store *store, const mm_checkpoint_new *checkpoint, int64_t *id,
                            int64_t *written_bytes, mm_err *err)
{
    *id = 0;
    *written_bytes = 0;
    MM_TRY(check_new(checkpoint, err));
    checkpoint_writer *writer = mm_calloc(1, sizeof *writer);
    if (!writer) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    writer->store = store;
    writer->checkpoint = checkpoint;
    writer->lock_fd = -1;
    mm_status status = MM_OK;
    writer->digests = mm_calloc(checkpoint->n_blobs + 1, sizeof *writer->digests);
    writer->is_taken = mm_calloc(checkpoint->n_blobs + 1, sizeof *writer->is_taken);
    if (!writer->digests || !writer->is_taken) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory");
        goto done;
    }
    MM_GO(mm_chunk_codec_init(&writer->codec, err));
    MM_GO(mm_lock_open(&writer->lock_fd, store->real_path, true, err));
    MM_GO(begin_row(writer, err));
    MM_GO(mm_checkpoint_take_over(store, writer->id, checkpoint, writer->is_taken, writer->digests,
                                  err));
    for (size_t i = 0; i < checkpoint->n_blobs; i++) {
        if (!writer->is_taken[i]) MM_GO(write_blob(writer, i, err));
    }
    MM_GO(flush_batch(writer, err));
    MM_GO(publish(writer, err));
    *id = writer->id;
    *written_bytes = writer->written_bytes;
done:
    if (status != MM_OK) {
        mm_err_context(err, "writing the checkpoint of run %" PRId64 " at step %" PRId64,
                       checkpoint->run_id, checkpoint->step);
    }
    drop_batch(writer);
    if (writer->lock_fd >= 0) close(writer->lock_fd);
    // The one that was replaced, or what a failure left. If this fails the next writer does it.
    const bool has_leftovers = writer->id != 0;
    if (has_leftovers && mm_checkpoints_collect(store, NULL) != MM_OK) mm_db_rollback(store);
    mm_chunk_codec_drop(&writer->codec);
    mm_free(writer->digests);
    mm_free(writer->is_taken);
    mm_free(writer);
    return status;
}

mm_status mm_checkpoint_write(mm_store *store, const mm_checkpoint_new *checkpoint, int64_t *id,
                              mm_err *err)
{
    int64_t written_bytes;
    return mm_checkpoint_put(store, checkpoint, id, &written_bytes, err);
}

/* ---- listing -----------------------------------------------------------------------------------
 */

static void read_info(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    *(mm_checkpoint_info *)item = (mm_checkpoint_info){
        .id = sqlite3_column_int64(s, 0),
        .run_id = sqlite3_column_int64(s, 1),
        .step = sqlite3_column_int64(s, 2),
        .kind = mm_db_text(s, 3, arena),
        .state = mm_db_text(s, 4, arena),
        .sha256 = mm_db_text(s, 5, arena),
        .raw_bytes = sqlite3_column_int64(s, 6),
        .stored_bytes = sqlite3_column_int64(s, 7),
        .created_ms = sqlite3_column_int64(s, 8),
        .val_loss = mm_db_real(s, 9),
        .is_final = sqlite3_column_int(s, 10) != 0,
        .own_bytes = sqlite3_column_int64(s, 11),
    };
}

mm_status mm_checkpoint_list(mm_store *store, int64_t run_id, mm_arena *arena,
                             mm_checkpoint_info **out, size_t *count, mm_err *err)
{
    mm_rows rows = {.arena = arena, .item_bytes = sizeof(mm_checkpoint_info)};
    *out = NULL;
    *count = 0;
    MM_TRY(mm_rows_read(store,
                        "SELECT id, run_id, step, kind, details, sha256, raw_bytes, stored_bytes, "
                        "created_ms, val_loss, is_final, own_bytes FROM checkpoint "
                        "WHERE run_id = ?1 AND state = 'complete' ORDER BY step, id",
                        MM_VALUES(mm_v_int(run_id)), read_info, &rows, err));
    *out = rows.items;
    *count = rows.count;
    // Of equal losses the earliest, as in the view.
    mm_checkpoint_info *best = NULL;
    for (size_t i = 0; i < rows.count; i++) {
        mm_checkpoint_info *info = &(*out)[i];
        if (!isnan(info->val_loss) && (!best || info->val_loss < best->val_loss)) best = info;
    }
    if (best) best->is_best = true;
    return MM_OK;
}

typedef struct checkpoint_head {
    int64_t run_id;
    int64_t step;
    char *kind;
    char *state;
    char *sha256;
} checkpoint_head;

static mm_status read_head(mm_store *store, int64_t id, mm_arena *arena, checkpoint_head *out,
                           mm_err *err)
{
    sqlite3_stmt *s;
    MM_TRY(mm_db_query(store, &s,
                       "SELECT run_id, step, kind, details, sha256 FROM checkpoint "
                       "WHERE id = ?1 AND state = 'complete'",
                       MM_VALUES(mm_v_int(id)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, s, &has_row, err));
    if (!has_row) return MM_FAIL(err, MM_ENOTFOUND, "there is no checkpoint %" PRId64, id);
    *out = (checkpoint_head){
        .run_id = sqlite3_column_int64(s, 0),
        .step = sqlite3_column_int64(s, 1),
        .kind = mm_db_text(s, 2, arena),
        .state = mm_db_text(s, 3, arena),
        .sha256 = mm_db_text(s, 4, arena),
    };
    mm_db_end(s);
    return MM_OK;
}

// One row of `tensor` into a blob and the running hash of the manifest.
static mm_status read_tensor(sqlite3_stmt *s, mm_arena *arena, mm_sha256 *manifest, mm_blob *blob,
                             mm_err *err)
{
    const char *shape = (const char *)sqlite3_column_text(s, 3);
    *blob = (mm_blob){
        .name = mm_db_text(s, 0, arena),
        .dtype = mm_db_text(s, 1, arena),
        .element_bytes = sqlite3_column_int(s, 2),
        .bytes = (size_t)sqlite3_column_int64(s, 4),
    };
    const uint8_t *digest = sqlite3_column_blob(s, 5);
    const bool is_sound = blob->name && blob->dtype && parse_shape(shape, blob) &&
                          sqlite3_column_int64(s, 4) >= 0 &&
                          sqlite3_column_bytes(s, 5) == MM_SHA256_BYTES;
    if (!is_sound) {
        return MM_FAIL(err, MM_ECORRUPT, "the description of tensor '%s' is damaged",
                       blob->name ? blob->name : "");
    }
    const manifest_row row = {.name = blob->name,
                              .dtype = blob->dtype,
                              .shape = shape,
                              .element_bytes = sqlite3_column_int64(s, 2),
                              .bytes = sqlite3_column_int64(s, 4),
                              .sha256 = digest};
    manifest_add(manifest, &row);
    uint8_t *kept = mm_arena_alloc(arena, MM_SHA256_BYTES);
    if (!kept) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    memcpy(kept, digest, MM_SHA256_BYTES);
    blob->sha256 = kept;
    return MM_OK;
}

static mm_status read_tensors(mm_store *store, int64_t id, const checkpoint_head *head,
                              mm_arena *arena, mm_blob **out, size_t *count, mm_err *err)
{
    int64_t n = 0;
    MM_TRY(mm_db_int(store, &n, "SELECT count(*) FROM tensor WHERE checkpoint_id = ?1",
                     MM_VALUES(mm_v_int(id)), err));
    mm_blob *list = mm_arena_alloc(arena, (size_t)(n + 1) * sizeof *list);
    if (!list) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    mm_sha256 manifest = {0};
    uint8_t digest[MM_SHA256_BYTES];
    char hex[MM_SHA256_HEX_BYTES];
    sqlite3_stmt *s = NULL;
    mm_status status = MM_OK;
    MM_GO(manifest_begin(&manifest, head->step, head->kind, head->state, err));
    MM_GO(mm_db_query(store, &s,
                      "SELECT name, dtype, element_bytes, shape, bytes, sha256 FROM tensor "
                      "WHERE checkpoint_id = ?1 ORDER BY idx",
                      MM_VALUES(mm_v_int(id)), err));
    for (bool has_row; (int64_t)*count < n;) {
        MM_GO(mm_db_step(store, s, &has_row, err));
        if (!has_row) break;
        MM_GO(read_tensor(s, arena, &manifest, &list[(*count)++], err));
    }
    mm_sha256_final(&manifest, digest);
    mm_sha256_hex(digest, hex);
    if (!head->sha256 || strcmp(hex, head->sha256) != 0) {
        status = MM_FAIL(err, MM_ECORRUPT, "the manifest does not match its SHA-256");
        goto done;
    }
    *out = list;
done:
    mm_db_end(s);
    mm_sha256_drop(&manifest);
    return status;
}

mm_status mm_checkpoint_blobs(mm_store *store, int64_t id, mm_arena *arena, mm_blob **out,
                              size_t *count, mm_err *err)
{
    *out = NULL;
    *count = 0;
    checkpoint_head head = {0};
    MM_TRY(read_head(store, id, arena, &head, err));
    const mm_status status = read_tensors(store, id, &head, arena, out, count, err);
    if (status != MM_OK) {
        *count = 0;
        mm_err_context(err, "checkpoint of run %" PRId64 " at step %" PRId64, head.run_id,
                       head.step);
    }
    return status;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

typedef struct tensor_row {
    int64_t idx;
    int64_t bytes;
    uint8_t sha256[MM_SHA256_BYTES];
} tensor_row;

static mm_status find_tensor(mm_store *store, int64_t id, const char *name, tensor_row *out,
                             mm_err *err)
{
    sqlite3_stmt *s;
    MM_TRY(mm_db_query(
        store, &s, "SELECT idx, bytes, sha256 FROM tensor WHERE checkpoint_id = ?1 AND name = ?2",
        MM_VALUES(mm_v_int(id), mm_v_text(name)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, s, &has_row, err));
    if (!has_row) return MM_FAIL(err, MM_ENOTFOUND, "it is not in the checkpoint");
    *out = (tensor_row){.idx = sqlite3_column_int64(s, 0), .bytes = sqlite3_column_int64(s, 1)};
    const bool is_sound = sqlite3_column_bytes(s, 2) == MM_SHA256_BYTES;
    if (is_sound) memcpy(out->sha256, sqlite3_column_blob(s, 2), MM_SHA256_BYTES);
    mm_db_end(s);
    return is_sound ? MM_OK : MM_FAIL(err, MM_ECORRUPT, "its digest is damaged");
}

static mm_status read_chunks(mm_store *store, mm_chunk_codec *codec, int64_t id,
                             const tensor_row *tensor, uint8_t *data, size_t bytes, mm_err *err)
{
    mm_sha256 hash;
    MM_TRY(mm_sha256_init(&hash, err));
    mm_status status = MM_OK;
    sqlite3_stmt *s = NULL;
    uint8_t digest[MM_SHA256_BYTES];
    MM_GO(mm_db_query(store, &s,
                      "SELECT chunk_id FROM tensor_chunk WHERE checkpoint_id = ?1 AND idx = ?2 "
                      "ORDER BY seq",
                      MM_VALUES(mm_v_int(id), mm_v_int(tensor->idx)), err));
    for (size_t start = 0; start < bytes; start += MM_CHUNK_BYTES) {
        bool has_row;
        MM_GO(mm_db_step(store, s, &has_row, err));
        if (!has_row) {
            status = MM_FAIL(err, MM_ECORRUPT, "chunks are missing after %zu of %zu bytes", start,
                             bytes);
            goto done;
        }
        const size_t left = bytes - start;
        MM_GO(mm_chunk_get(store, codec, sqlite3_column_int64(s, 0), data + start,
                           left < MM_CHUNK_BYTES ? left : MM_CHUNK_BYTES, digest, err));
        mm_sha256_update(&hash, digest, sizeof digest);
    }
    // Each chunk is what it says; this shows that they are the right ones in the right order.
    mm_sha256_final(&hash, digest);
    if (memcmp(digest, tensor->sha256, sizeof digest) != 0) {
        status = MM_FAIL(err, MM_ECORRUPT, "its chunks do not match its digest");
    }
done:
    mm_db_end(s);
    mm_sha256_drop(&hash);
    return status;
}

static mm_status read_verified(mm_store *store, mm_chunk_codec *codec, int64_t id, const char *name,
                               void *data, size_t bytes, mm_err *err)
{
    tensor_row tensor;
    MM_TRY(find_tensor(store, id, name, &tensor, err));
    if (tensor.bytes < 0 || (size_t)tensor.bytes != bytes) {
        return MM_FAIL(err, MM_EFORMAT, "it has %" PRId64 " bytes, %zu were expected", tensor.bytes,
                       bytes);
    }
    return read_chunks(store, codec, id, &tensor, data, bytes, err);
}

mm_status mm_checkpoint_read(mm_store *store, int64_t id, const char *name, void *data,
                             size_t bytes, mm_err *err)
{
    mm_chunk_codec codec = {0};
    mm_arena arena = {0};
    checkpoint_head head = {0};
    mm_status status = MM_OK;
    MM_GO(read_head(store, id, &arena, &head, err));
    MM_GO(mm_chunk_codec_init(&codec, err));
    status = read_verified(store, &codec, id, name, data, bytes, err);
    if (status != MM_OK) {
        mm_err_context(err, "checkpoint of run %" PRId64 " at step %" PRId64 ", tensor '%s'",
                       head.run_id, head.step, name);
    }
done:
    mm_chunk_codec_drop(&codec);
    mm_arena_drop(&arena);
    return status;
}

/* ---- check -------------------------------------------------------------------------------------
 */

static mm_status list_complete(mm_store *store, mm_arena *arena, int64_t **ids, size_t *count,
                               mm_err *err)
{
    int64_t n = 0;
    *count = 0;
    MM_TRY(mm_db_int(store, &n, "SELECT count(*) FROM checkpoint WHERE state = 'complete'",
                     MM_NO_VALUES, err));
    *ids = mm_arena_alloc(arena, (size_t)(n + 1) * sizeof **ids);
    if (!*ids) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    sqlite3_stmt *s;
    MM_TRY(mm_db_query(store, &s, "SELECT id FROM checkpoint WHERE state = 'complete' ORDER BY id",
                       MM_NO_VALUES, err));
    mm_status status = MM_OK;
    for (bool has_row; (int64_t)*count < n;) {
        MM_GO(mm_db_step(store, s, &has_row, err));
        if (!has_row) break;
        (*ids)[(*count)++] = sqlite3_column_int64(s, 0);
    }
done:
    mm_db_end(s);
    return status;
}

// A finding is a report, not a failure: the check goes on. Anything else stops it.
static mm_status finding(mm_status status, const mm_err *found,
                         void (*report)(void *context, const char *finding), void *context,
                         mm_err *err)
{
    if (status == MM_ECORRUPT || status == MM_EFORMAT) {
        report(context, found->message);
        return MM_OK;
    }
    if (status != MM_OK && err) *err = *found;
    return status;
}

mm_status mm_chunks_check(mm_store *store, void (*report)(void *context, const char *finding),
                          void *context, mm_err *err)
{
    mm_arena arena = {0};
    int64_t *ids;
    size_t count;
    uint8_t *data = NULL;
    size_t capacity = 0;
    mm_status status = MM_OK;
    mm_err local;
    MM_GO(list_complete(store, &arena, &ids, &count, err));
    for (size_t i = 0; i < count; i++) {
        mm_blob *blobs;
        size_t n_blobs;
        status = mm_checkpoint_blobs(store, ids[i], &arena, &blobs, &n_blobs, &local);
        if (status == MM_ENOTFOUND) continue; // removed meanwhile
        MM_GO(finding(status, &local, report, context, err));
        for (size_t b = 0; b < n_blobs; b++) {
            if (blobs[b].bytes > capacity) {
                mm_free(data);
                capacity = blobs[b].bytes;
                data = mm_alloc(capacity);
            }
            if (!data && capacity > 0) {
                status = MM_FAIL(err, MM_ENOMEM, "out of memory");
                goto done;
            }
            status = mm_checkpoint_read(store, ids[i], blobs[b].name, data, blobs[b].bytes, &local);
            if (status == MM_ENOTFOUND) break;
            MM_GO(finding(status, &local, report, context, err));
        }
    }
    status = MM_OK;
done:
    mm_free(data);
    mm_arena_drop(&arena);
    return status;
}
