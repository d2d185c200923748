/* The number types and the names of one build of the kernels.
 *
 * Every file of this folder is compiled once per (number type, instruction set). `real` is what is
 * computed and summed in: float in the builds that train, double in the build that serves the
 * gradient checks. `act` is what activations are kept in: the same, or in the bf16 builds bfloat16
 * as its 16 bits. MM_KERNEL(name) makes the external names of the builds differ:
 * mm_name_f32_avx512.
 */
#ifndef MM_NN_KERNELS_REAL_H
#define MM_NN_KERNELS_REAL_H

#include <math.h>
#include <stdint.h>

#if MM_KERNEL_F64
typedef double real;
typedef int64_t real_bits; /* integer of the same width */
#define real_sqrt sqrt
#define real_log  log
#define real_next nextafter
#else
typedef float real;
typedef int32_t real_bits;
#define real_sqrt sqrtf
#define real_log  logf
#define real_next nextafterf
#endif

#if MM_KERNEL_BF16
typedef uint16_t act; /* the upper half of a float */
#else
typedef real act;
#endif

#define MINUS_INFINITY ((real)-INFINITY)

#define MM_KERNEL_PASTE_(name, dtype, isa) mm_##name##_##dtype##_##isa
#define MM_KERNEL_PASTE(name, dtype, isa)  MM_KERNEL_PASTE_(name, dtype, isa)
#define MM_KERNEL(name)                    MM_KERNEL_PASTE(name, MM_KERNEL_DTYPE, MM_KERNEL_ISA)
#define MM_KERNEL_TEXT_(x)                 #x
#define MM_KERNEL_TEXT(x)                  MM_KERNEL_TEXT_(x)

#endif
