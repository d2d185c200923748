/* Transposition of squares of vectors, for packing. */
#ifndef MM_NN_KERNELS_TRANSPOSE_H
#define MM_NN_KERNELS_TRANSPOSE_H

#include "core/nn/kernels/simd.h"

// ZIP_LOW and ZIP_HIGH interleave the lower and the upper halves of two vectors.
#if MM_VECTOR_BYTES == 64 && !MM_KERNEL_F64
#define ZIP_LOW(a, b)                                                                              \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b)                                                                             \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif MM_VECTOR_BYTES == 32 && !MM_KERNEL_F64
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif MM_VECTOR_BYTES == 16 && !MM_KERNEL_F64
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#elif MM_VECTOR_BYTES == 16
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 2)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#else
#error "no interleaving for this vector"
#endif

// Transposes VL vectors: log2(VL) rounds of interleaving row i with row i + VL/2.
static inline void transpose(vec rows[VL])
{
    for (int round = 1; round < VL; round *= 2) {
        vec next[VL];
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = ZIP_LOW(rows[i], rows[i + VL / 2]);
            next[2 * i + 1] = ZIP_HIGH(rows[i], rows[i + VL / 2]);
        }
        for (int i = 0; i < VL; i++)
            rows[i] = next[i];
    }
}

#endif
