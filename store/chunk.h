/* Private to store: content-addressed pieces of checkpoints, and removing what nobody refers to. */
#ifndef MM_STORE_CHUNK_H
#define MM_STORE_CHUNK_H

#include "core/base/hash.h"
#include "store/checkpoint.h"

/* Scratch memory of one thread. */
typedef struct mm_chunk_codec {
    void *compressor; /* ZSTD_CCtx */
    void *decompressor;
    uint8_t *planes; /* MM_CHUNK_BYTES */
    uint8_t *packed; /* ZSTD_compressBound(MM_CHUNK_BYTES) */
    size_t packed_bytes;
} mm_chunk_codec;

MM_NODISCARD mm_status mm_chunk_codec_init(mm_chunk_codec *codec, mm_err *err);
void mm_chunk_codec_drop(mm_chunk_codec *codec);

/* One piece on its way into the database. `raw` is borrowed. */
typedef struct mm_chunk {
    uint8_t sha256[MM_SHA256_BYTES];
    const uint8_t *raw;
    size_t raw_bytes;
    int32_t element_bytes;
    int32_t codec; /* 0: as it is; else element bytes of the planes */
    uint8_t *data; /* owned; NULL: the database has this content already, or codec is 0 */
    size_t bytes;
    bool is_known;
} mm_chunk;

/* Hashes, and compresses what the database does not have yet. Outside a transaction: this is the
 * slow part, and nobody should wait for it. */
MM_NODISCARD mm_status mm_chunk_encode(mm_store *store, mm_chunk_codec *codec, mm_chunk *chunk,
                                       mm_err *err);
void mm_chunk_drop(mm_chunk *chunk);
/* Inside a transaction: the row of this content, stored if it is new. */
MM_NODISCARD mm_status mm_chunk_put(mm_store *store, mm_chunk_codec *codec, mm_chunk *chunk,
                                    int64_t *chunk_id, mm_err *err);
/* Reads exactly raw_bytes, verified against the hash. Errors name the chunk, not where it is used.
 */
MM_NODISCARD mm_status mm_chunk_get(mm_store *store, mm_chunk_codec *codec, int64_t chunk_id,
                                    uint8_t *raw, size_t raw_bytes, uint8_t sha256[MM_SHA256_BYTES],
                                    mm_err *err);

/* "[2,3]", as the manifest and the table spell it. */
void mm_blob_add_shape(mm_str *out, const mm_blob *blob);
/* mm_checkpoint_write; *written_bytes: without what was taken over. */
MM_NODISCARD mm_status mm_checkpoint_put(mm_store *store, const mm_checkpoint_new *checkpoint,
                                         int64_t *id, int64_t *written_bytes, mm_err *err);
MM_NODISCARD mm_status mm_checkpoint_is_complete(mm_store *store, int64_t id, bool *is_complete,
                                                 mm_err *err);
/* Lets checkpoint `id`, which is being written, refer to the frozen arrays that
 * checkpoint->base_id has as well: is_taken and digests, one per array, say which. One transaction.
 */
MM_NODISCARD mm_status mm_checkpoint_take_over(mm_store *store, int64_t id,
                                               const mm_checkpoint_new *checkpoint, bool *is_taken,
                                               uint8_t (*digests)[MM_SHA256_BYTES], mm_err *err);
/* Inside the transaction that publishes `id`: own_bytes of it and of newer ones. */
MM_NODISCARD mm_status mm_checkpoint_count_own(mm_store *store, int64_t id, mm_err *err);
/* Inside the transaction in which `from_id` stopped referring to a chunk: its bytes go to the next
 * owner. */
MM_NODISCARD mm_status mm_chunk_hand_over(mm_store *store, int64_t chunk_id, int64_t from_id,
                                          mm_err *err);

/* Verifies every chunk of every complete checkpoint and every manifest; findings name run, step and
 * tensor. */
MM_NODISCARD mm_status mm_chunks_check(mm_store *store,
                                       void (*report)(void *context, const char *finding),
                                       void *context, mm_err *err);

/* Removes checkpoints that a dead process left half written or half removed, with their chunks, in
 * short transactions. */
MM_NODISCARD mm_status mm_checkpoints_collect(mm_store *store, mm_err *err);
/* Removes the checkpoints of a run with a step greater than `step`. */
MM_NODISCARD mm_status mm_checkpoints_remove_after(mm_store *store, int64_t run_id, int64_t step,
                                                   mm_err *err);
/* Keeps the newest `keep` checkpoints, the best and the final. */
MM_NODISCARD mm_status mm_checkpoints_prune(mm_store *store, int64_t run_id, int32_t keep,
                                            mm_err *err);
/* Gives free pages back to the file system. */
MM_NODISCARD mm_status mm_store_vacuum(mm_store *store, mm_err *err);

#endif
