/* Kernels of cached decoding, next to the table of core/nn/ops.h: attention over key-value caches
 * and what sampling needs of the logits. Internal to core/nn.
 *
 * Cache of one layer and row, per key-value head, in `act`: keys in tiles of MM_KEY_TILE positions,
 * each (D, MM_KEY_TILE), so that the scores of a tile need no sum across lanes; values (positions,
 * D). `capacity` positions, a multiple of MM_KEY_TILE. A sum runs over all elements of a head, or
 * over the positions from the first on, whatever is computed beside it.
 */
#ifndef MM_NN_DECODE_H
#define MM_NN_DECODE_H

#include "core/nn/ops.h"

enum { MM_KEY_TILE = 64, MM_CACHE_BLOCK = 32 };

/* At most MM_CACHE_BLOCK neighbouring positions of one row. */
typedef struct mm_cache_block {
    int32_t row;
    int32_t first; /* position in the row */
    int32_t begin; /* first of their places in x and out */
    int32_t count;
} mm_cache_block;

typedef struct mm_cache_args {
    const mm_workspace *work;
    const void *x;      /* (T, (H+2K)D): rotated queries | rotated keys | values */
    void *out;          /* (T, H D), attend only */
    void *keys;         /* (rows, K, capacity / MM_KEY_TILE, D, MM_KEY_TILE) */
    void *values;       /* (rows, K, capacity, D) */
    int64_t row_stride; /* elements from one row's keys or values to the next row's */
    int64_t capacity;   /* positions */
    const mm_cache_block *blocks;
    int64_t n_blocks;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
} mm_cache_args;

typedef struct mm_decode_kernels {
    /* Writes the keys and values of all blocks into the caches. */
    void (*cache_put)(const mm_cache_args *args);
    /* Every position of the blocks attends to the positions of its row up to itself, which are in
     * the cache. */
    void (*cache_attend)(const mm_cache_args *args);
    mm_op_need (*cache_need)(int64_t capacity, int32_t head_dim);
    /* For choosing among `n` > 0 values in `real`, which are not NaN: the index of the first that
     * is highest, and of the first from `from` on that is above `bound` (n: none). */
    int64_t (*highest)(const void *values, int64_t n);
    int64_t (*next_above)(const void *values, int64_t from, int64_t n, double bound);
    /* log(sum(e^v)); not finite when a value is NaN or +infinite. */
    double (*log_sum_exp)(const void *values, int64_t n);
    /* Turns the values into e^(v - the highest of them). */
    void (*exponentials)(void *values, int64_t n);
} mm_decode_kernels;

#endif
