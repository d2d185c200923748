/* Kernels of cached decoding, next to the table of core/nn/ops.h: one token against all weights,
 * and attention over a key-value cache. Internal to core/nn.
 *
 * Cache of one layer, per key-value head: keys in tiles of MM_KEY_TILE positions, each (D,
 * MM_KEY_TILE), so that the scores of a tile need no sum across lanes; values (positions, D).
 * `capacity` positions, a multiple of MM_KEY_TILE. Sums run in an order that depends on the shapes
 * alone.
 */
#ifndef MM_NN_DECODE_H
#define MM_NN_DECODE_H

#include "core/nn/ops.h"

enum { MM_KEY_TILE = 64 };

/* y (n_out) (+)= w (n_out, n_in) x; several parts share x and one round of work items. */
typedef struct mm_matvec_part {
    const void *w;
    void *y;
    int64_t n_out;
    bool add;
} mm_matvec_part;

enum { MM_MATVEC_MAX_PARTS = 3 };

typedef struct mm_cache_args {
    const mm_workspace *work;
    const void *x;    /* (n, (H+2K)D): rotated queries | rotated keys | values */
    void *out;        /* (n, H D), attend only */
    void *keys;       /* (K, capacity / MM_KEY_TILE, D, MM_KEY_TILE) */
    void *values;     /* (K, capacity, D) */
    int64_t capacity; /* positions */
    int64_t n;        /* rows of x */
    int64_t first;    /* position of row 0 */
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
} mm_cache_args;

typedef struct mm_decode_kernels {
    void (*matvec)(const mm_workspace *work, int64_t n_in, const void *x,
                   const mm_matvec_part *parts, int32_t n_parts);
    /* Writes the keys and values of the rows into the cache. */
    void (*cache_put)(const mm_cache_args *args);
    /* Row i attends to positions 0 .. first + i, which are in the cache. */
    void (*cache_attend)(const mm_cache_args *args);
    mm_op_need (*cache_need)(int64_t capacity);
} mm_decode_kernels;

#endif
