/* What attention's forward and backward share. */
#ifndef MM_NN_KERNELS_ATTENTION_H
#define MM_NN_KERNELS_ATTENTION_H

#include "core/nn/kernels/ops.h"

enum {
    /* Query rows of one product: whole register tiles, and few, because half of what stands on the
     * diagonal is masked. */
    ATTENTION_ROWS = MM_KERNEL_BF16 ? 32 : 24,
    ATTENTION_LINE = 64 /* bytes of a cache line */
};

/* Exponentials are taken to base 2, which saves a multiplication each. */
#define ATTENTION_LOG2_E 1.4426950408889634
#define ATTENTION_LN_2   0.6931471805599453

typedef struct attention_dims {
    int64_t H, K, D;
    int64_t group; /* query heads per key-value head */
    int64_t width; /* columns of the query|key|value rows */
    real scale;
    real scale_2; /* of exponents to base 2 */
} attention_dims;

static inline attention_dims attention_dims_of(const mm_op_attr *attr)
{
    const int64_t D = attr->head_dim;
    const double scale = 1.0 / sqrt((double)D);
    return (attention_dims){.H = attr->heads,
                            .K = attr->kv_heads,
                            .D = D,
                            .group = attr->heads / attr->kv_heads,
                            .width = (attr->heads + 2 * attr->kv_heads) * D,
                            .scale = (real)scale,
                            .scale_2 = (real)(scale * ATTENTION_LOG2_E)};
}

/* The next piece of scratch memory, on a cache line of its own. */
static inline void *attention_take(char **scratch, size_t bytes)
{
    void *piece = *scratch;
    *scratch += round_up((int64_t)bytes, ATTENTION_LINE);
    return piece;
}

static inline real *attention_take_reals(char **scratch, int64_t count)
{
    return attention_take(scratch, (size_t)count * sizeof(real));
}

/* The view of `act`s that starts at (row, col) of rows `stride` elements apart. */
static inline matrix attention_acts(const void *data, int64_t stride, int64_t row, int64_t col)
{
    return (matrix){(const act *)data + row * stride + col, stride, 1, false};
}

static inline matrix attention_transposed(matrix m)
{
    return (matrix){m.data, m.col_stride, m.row_stride, m.is_real};
}

/* Scores become weights of the matrix product in place: an `act` takes no more room than the `real`
 * it replaces. */
enum { ACTS_PER_REAL = (int)(sizeof(real) / sizeof(act)) };

/* All ones in the lanes below `n`. */
static inline ivec attention_lanes_below(int64_t n)
{
    ivec lane = {0};
    for (int i = 0; i < VL; i++)
        lane[i] = i;
    return lane < (real_bits)n;
}

/* 2^x for x not far above 0, relative error below 2e-7 in float; 0 below the smallest normal
 * result; NaN stays NaN. */
static inline vec attention_exp2(vec x)
{
#if MM_KERNEL_F64
    vec y;
    for (int i = 0; i < VL; i++)
        y[i] = exp2(x[i]);
    return y;
#else
    // Adding 1.5 * 2^23 rounds to an integer that sits in the low bits of the sum; the polynomial
    // is the minimax one for |r| <= 1/2. Where x is too low everything but the last line is
    // meaningless, and the integer may be any: unsigned, so that it wraps.
    typedef uint32_t word_lanes __attribute__((vector_size(MM_VECTOR_BYTES)));
    const float shifter = 0x1.8p23f;
    const vec shifted = x + shifter;
    const vec r = x - (shifted - shifter);
    vec y = r * 1.3276472e-3f + 9.6755413e-3f;
    y = y * r + 5.5507133e-2f;
    y = y * r + 2.4022120e-1f;
    y = y * r + 6.9314697e-1f;
    y = y * r + 1.0f;
    y *= (vec)(((word_lanes)shifted - 0x4B400000 + 127) << 23);
    return (vec)((ivec)y & ~(ivec)(x < -126.0f));
#endif
}

/* Bytes of thread scratch that forward needs. */
#define op_attention_forward_bytes MM_KERNEL(attention_forward_bytes)
size_t op_attention_forward_bytes(const mm_op_attr *attr);

#endif
