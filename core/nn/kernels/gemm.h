/* Matrix product of packed panels, for the operations of the same build.
 *
 * The five-loop scheme of Goto and van de Geijn ("Anatomy of High-Performance Matrix
 * Multiplication", ACM TOMS 34, 2008): A and B are copied into panels that the register kernel
 * reads in order. Packing takes any strides, so that NN, NT and TN products are one function. The
 * sum over k runs in blocks of GEMM_KC in ascending order, whatever the tiles and threads.
 */
#ifndef MM_NN_KERNELS_GEMM_H
#define MM_NN_KERNELS_GEMM_H

#include "core/nn/kernels/simd.h"
#include "core/nn/ops.h"

enum {
#if MM_VECTOR_BYTES == 64
    GEMM_MR = 12, /* 24 of 32 registers accumulate */
#elif MM_VECTOR_BYTES == 32
    GEMM_MR = 6, /* 12 of 16 */
#elif defined(__aarch64__)
    GEMM_MR = 8, /* 16 of 32 */
#else
    GEMM_MR = 4, /* 8 of 16: SSE needs a register for the product */
#endif
    GEMM_NR = 2 * VL,
    GEMM_KC = 256,
    GEMM_MC = 384, /* 4 times a multiple of every GEMM_MR */
    GEMM_NC = 512  /* 4 times a multiple of every GEMM_NR */
};

/* A view of `real`s, see mm_matrix. */
typedef struct matrix {
    const real *data;
    int64_t row_stride;
    int64_t col_stride;
} matrix;

static inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Elements of a packed B (k,n), and of the A scratch of gemm_packed. */
static inline int64_t packed_b_count(int64_t k, int64_t n) { return k * round_up(n, GEMM_NR); }
enum { PACKED_A_COUNT = GEMM_MC * GEMM_KC + VL, PACKED_B_COUNT = GEMM_NC * GEMM_KC };

/* B (k,n) in blocks of GEMM_KC rows, each cut into panels of GEMM_NR columns, padded with zeros. */
typedef struct packed_b {
    const real *data;
    int64_t k; /* full size it was packed with */
    int64_t n;
} packed_b;

#define gemm_pack_b MM_KERNEL(gemm_pack_b)
packed_b gemm_pack_b(real *out, int64_t k, int64_t n, matrix b);

/* c (m,n) (+)= a (m,k) b (k,n) on the calling thread, where k and n may be less than what was
 * packed: then the first k rows and n columns of b count. `scratch` holds PACKED_A_COUNT elements.
 */
#define gemm_packed MM_KERNEL(gemm_packed)
void gemm_packed(real *scratch, int64_t m, int64_t n, int64_t k, matrix a, const packed_b *b,
                 real *c, int64_t ldc, bool add);

/* The same over all threads of the pool, packing both sides. */
#define op_gemm MM_KERNEL(gemm)
void op_gemm(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b, real *c,
             int64_t ldc, bool add);
#define op_gemm_need MM_KERNEL(gemm_need)
mm_op_need op_gemm_need(void);

#endif
