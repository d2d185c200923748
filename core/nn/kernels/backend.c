/* The table of this build. */
#include "core/nn/decode.h"
#include "core/nn/kernels/ops.h"

#define SLOT(name)                                                                                 \
    {                                                                                              \
        MM_KERNEL(name##_forward), MM_KERNEL(name##_backward), MM_KERNEL(name##_need)              \
    }

// A library for the products is part of the name that the record of a run keeps.
#if MM_KERNEL_BLAS
#define BLAS_TEXT "+" MM_BLAS_NAME
#else
#define BLAS_TEXT
#endif

extern const mm_decode_kernels MM_KERNEL(decode_kernels);
extern const mm_backend MM_KERNEL(backend);
const mm_backend MM_KERNEL(backend) = {
    .isa = MM_KERNEL_TEXT(MM_KERNEL_ISA) BLAS_TEXT,
    .dtype = MM_KERNEL_F64    ? MM_F64
             : MM_KERNEL_BF16 ? MM_BF16
                              : MM_F32,
    .real_bytes = sizeof(real),
    .act_bytes = sizeof(act),
    .query_block = QUERY_BLOCK,
    .ops =
        {
            [MM_OP_EMBED] = SLOT(embed),
            [MM_OP_RMSNORM] = SLOT(rmsnorm),
            [MM_OP_ADD_RMSNORM] = SLOT(add_rmsnorm),
            [MM_OP_LINEAR] = SLOT(linear),
            [MM_OP_LORA] = SLOT(lora),
            [MM_OP_QKNORM_ROPE] = SLOT(qknorm_rope),
            [MM_OP_ATTENTION] = SLOT(attention),
            [MM_OP_SWIGLU] = SLOT(swiglu),
            [MM_OP_DROPOUT] = SLOT(dropout),
            [MM_OP_HEAD_CE] = SLOT(head_ce),
        },
    .gemm = op_gemm,
    .gemm_need = op_gemm_need,
    .packed_bytes = op_packed_bytes,
    .pack_weight = op_pack_weight,
    .gemm_weight = op_gemm_weight,
    .rope_tables = op_rope_tables,
    .sum_squares = op_sum_squares,
    .adamw = op_adamw,
    .peak = op_peak,
    .decode = &MM_KERNEL(decode_kernels),
};
