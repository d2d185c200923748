/* Checkpoints: per tensor, byte planes split, zstd, chunks addressed by SHA-256, visible only when
 * complete.
 *
 * Equal chunks are stored once (best == last), and what is known to be equal is not even looked at
 * (a frozen base). A reader verifies every chunk; one
 * wrong byte is MM_ECORRUPT naming run, step and tensor. The saver writes in a background thread
 * from a copy.
 */
#ifndef MM_STORE_CHECKPOINT_H
#define MM_STORE_CHECKPOINT_H

#include "store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_CHUNK_BYTES = 1 << 20 };

/* One named array. The store knows nothing of tensors but its element size (for the byte planes).
 */
typedef struct mm_blob {
    const char *name;  /* "model.norm.weight", "adam.m/model.norm.weight" */
    const char *dtype; /* safetensors spelling: "F32" */
    int32_t element_bytes;
    int32_t ndim;
    int64_t shape[4];
    const void *data;
    size_t bytes;
    const uint8_t *sha256; /* of an array that was read; equal arrays have equal ones */
    /* Its data never change: not copied by the saver (they must stay until it is waited for or
     * closed), and taken over by reference where mm_checkpoint_new.base_id has an array of the same
     * name, type and shape, which the caller knows to be equal. */
    bool is_frozen;
} mm_blob;

typedef struct mm_checkpoint_new {
    int64_t run_id;
    int64_t step;
    const char *kind;  /* "full" (can be resumed) or "weights" */
    const char *state; /* JSON text: data position, epoch, tokens, … */
    double val_loss;   /* NaN: not known; decides @best */
    bool is_final;
    const mm_blob *blobs;
    size_t n_blobs;
    int64_t base_id; /* complete checkpoint that frozen arrays come from; 0: none. If it is gone
                      * they are written from their data. */
} mm_checkpoint_new;

typedef struct mm_checkpoint_info {
    int64_t id;
    int64_t run_id;
    int64_t step;
    const char *kind;
    const char *state;
    const char
        *sha256; /* of the manifest: step, kind, state, and of all blobs names, shapes, digests */
    int64_t raw_bytes;
    int64_t stored_bytes; /* compressed size of the chunks this checkpoint refers to */
    int64_t own_bytes;    /* of those no older checkpoint refers to */
    int64_t created_ms;
    double val_loss;
    bool is_best;
    bool is_final;
} mm_checkpoint_info;

/* Writes at once, FULL commit at the end; a complete checkpoint at the same (run, step, kind) is
 * replaced. */
MM_NODISCARD mm_status mm_checkpoint_write(mm_store *store, const mm_checkpoint_new *checkpoint,
                                           int64_t *id, mm_err *err);

/* Background saver with its own connection. submit copies the data and returns; if the previous one
 * is still being written it waits. If the previous one failed, submit says so and takes nothing;
 * the next submit starts afresh. keep > 0: afterwards only the newest `keep`, the best and the
 * final stay. One thread submits. */
typedef struct mm_saver mm_saver;
MM_NODISCARD mm_status mm_saver_open(mm_saver **out, const char *db_path, int32_t keep,
                                     mm_err *err);
MM_NODISCARD mm_status mm_saver_submit(mm_saver *saver, const mm_checkpoint_new *checkpoint,
                                       mm_err *err);
/* Waits for all; reports the first failure. */
MM_NODISCARD mm_status mm_saver_wait(mm_saver *saver, mm_err *err);
/* Seconds the caller waited or copied so far, and bytes (without what was taken over by reference)
 * and seconds of writing: the stall a run reports. */
void mm_saver_stats(const mm_saver *saver, double *stall_s, double *write_s, int64_t *raw_bytes);
MM_NODISCARD mm_status mm_saver_close(mm_saver *saver, mm_err *err);

/* All complete checkpoints of a run, oldest first. */
MM_NODISCARD mm_status mm_checkpoint_list(mm_store *store, int64_t run_id, mm_arena *arena,
                                          mm_checkpoint_info **out, size_t *count, mm_err *err);
/* Blobs of one checkpoint; data is NULL. */
MM_NODISCARD mm_status mm_checkpoint_blobs(mm_store *store, int64_t id, mm_arena *arena,
                                           mm_blob **out, size_t *count, mm_err *err);
/* Reads one blob of exactly `bytes` bytes into `data`, verified. */
MM_NODISCARD mm_status mm_checkpoint_read(mm_store *store, int64_t id, const char *name, void *data,
                                          size_t bytes, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
