/* The table of this build. */
#include "core/nn/decode.h"
#include "core/nn/kernels/ops.h"

static void gemm_slot(const mm_workspace *work, int64_t m, int64_t n, int64_t k, mm_matrix a,
                      mm_matrix b, void *c, int64_t ldc, bool add)
{
    op_gemm(work, m, n, k, (matrix){a.data, a.row_stride, a.col_stride},
            (matrix){b.data, b.row_stride, b.col_stride}, c, ldc, add);
}

#define SLOT(name)                                                                                 \
    {                                                                                              \
        MM_KERNEL(name##_forward), MM_KERNEL(name##_backward), MM_KERNEL(name##_need)              \
    }

extern const mm_decode_kernels MM_KERNEL(decode_kernels);
extern const mm_backend MM_KERNEL(backend);
const mm_backend MM_KERNEL(backend) = {
    .isa = MM_KERNEL_TEXT(MM_KERNEL_ISA),
    .dtype = MM_KERNEL_F64 ? MM_F64 : MM_F32,
    .element_bytes = sizeof(real),
    .ops =
        {
            [MM_OP_EMBED] = SLOT(embed),
            [MM_OP_RMSNORM] = SLOT(rmsnorm),
            [MM_OP_LINEAR] = SLOT(linear),
            [MM_OP_QKNORM_ROPE] = SLOT(qknorm_rope),
            [MM_OP_ATTENTION] = SLOT(attention),
            [MM_OP_SWIGLU] = SLOT(swiglu),
            [MM_OP_ADD] = SLOT(add),
            [MM_OP_DROPOUT] = SLOT(dropout),
            [MM_OP_HEAD_CE] = SLOT(head_ce),
        },
    .gemm = gemm_slot,
    .gemm_need = op_gemm_need,
    .rope_tables = op_rope_tables,
    .sum_squares = op_sum_squares,
    .adamw = op_adamw,
    .peak = op_peak,
    .decode = &MM_KERNEL(decode_kernels),
};
