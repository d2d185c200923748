/* Matrix product of packed panels, for the operations of the same build.
 *
 * The five-loop scheme of Goto and van de Geijn ("Anatomy of High-Performance Matrix
 * Multiplication", ACM TOMS 34, 2008): A and B are copied into panels that the register kernel
 * reads in order. Packing takes any strides, so that NN, NT and TN products are one function. Sums
 * are kept in `real`; the order of summation depends on k alone, never on tiles and threads.
 * Implemented by gemm.c with panels of `real`, or by gemm_pairs.c with panels of bfloat16 pairs.
 */
#ifndef MM_NN_KERNELS_GEMM_H
#define MM_NN_KERNELS_GEMM_H

#include "core/nn/kernels/simd.h"
#include "core/nn/ops.h"

/* A view of `act`s or `real`s, see mm_matrix and mm_target. In builds where the two are one type
 * the flag means nothing. */
typedef mm_matrix matrix;
typedef mm_target target;

static inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

enum { GEMM_MAX_ACT_COLUMNS = 512 };

/* The view that starts `rows` and `cols` further on. */
static inline matrix gemm_from(matrix m, int64_t rows, int64_t cols)
{
    const int64_t skip = rows * m.row_stride + cols * m.col_stride;
    m.data = (const char *)m.data + skip * (int64_t)(m.is_real ? sizeof(real) : sizeof(act));
    return m;
}

static inline target gemm_at(target c, int64_t rows, int64_t cols)
{
    const int64_t skip = rows * c.stride + cols;
    c.data = (char *)c.data + skip * (int64_t)(c.is_real ? sizeof(real) : sizeof(act));
    return c;
}

/* Bytes of a packed B (k,n), a multiple of the cache line, and of the A scratch of gemm_packed. */
#define gemm_packed_b_bytes MM_KERNEL(gemm_packed_b_bytes)
size_t gemm_packed_b_bytes(int64_t k, int64_t n);
#define gemm_packed_a_bytes MM_KERNEL(gemm_packed_a_bytes)
size_t gemm_packed_a_bytes(void);

/* B (k,n) in the order in which the register kernel reads it. */
typedef struct packed_b {
    const void *data; /* aligned to a cache line */
    int64_t k;        /* full size it was packed with */
    int64_t n;
} packed_b;

#define gemm_pack_b MM_KERNEL(gemm_pack_b)
packed_b gemm_pack_b(void *out, int64_t k, int64_t n, matrix b);

/* c (m,n) (+)= a (m,k) b (k,n) on the calling thread, where k and n may be less than what was
 * packed: then the first k rows and n columns of b count. `scratch` holds gemm_packed_a_bytes().
 * When c holds `act`s, n is at most GEMM_MAX_ACT_COLUMNS. */
#define gemm_packed MM_KERNEL(gemm_packed)
void gemm_packed(void *scratch, int64_t m, int64_t n, int64_t k, matrix a, const packed_b *b,
                 target c);

/* The same over all threads of the pool, packing both sides. */
#define op_gemm MM_KERNEL(gemm)
void op_gemm(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b,
             target c);
/* The same with a whole B packed before, for weights; m may be small. */
#define op_gemm_weights MM_KERNEL(gemm_weights)
void op_gemm_weights(const mm_workspace *work, int64_t m, matrix a, const packed_b *b, target c);
/* Packs a whole B over all threads of the pool. */
#define op_gemm_pack MM_KERNEL(gemm_pack)
packed_b op_gemm_pack(const mm_workspace *work, void *out, int64_t k, int64_t n, matrix b);
#define op_gemm_need MM_KERNEL(gemm_need)
mm_op_need op_gemm_need(void);

/* The same as op_gemm by a CBLAS library, in builds that have one; false: nothing was done, because
 * the strides are none that CBLAS knows. Implemented by gemm_blas.c. */
#define gemm_blas MM_KERNEL(gemm_blas)
bool gemm_blas(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b,
               target c);

#endif
