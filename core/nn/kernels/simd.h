/* Vectors of `real` in the compiler's vector extensions: one source for SSE2, AVX2, AVX-512 and
 * NEON.
 *
 * Reductions keep one partial sum per lane and add the lanes in a fixed tree, so that a result
 * depends on the build but never on threads or alignment. All loads and stores accept any address.
 */
#ifndef MM_NN_KERNELS_SIMD_H
#define MM_NN_KERNELS_SIMD_H

#include "core/nn/kernels/real.h"

#include <stdbool.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { VL = MM_VECTOR_BYTES / (int)sizeof(real) }; /* lanes */

typedef real vec __attribute__((vector_size(MM_VECTOR_BYTES)));
typedef real_bits ivec __attribute__((vector_size(MM_VECTOR_BYTES)));
typedef real vec_any
    __attribute__((vector_size(MM_VECTOR_BYTES), aligned(sizeof(real)), may_alias));

static inline vec vec_load(const real *p) { return *(const vec_any *)p; }
static inline void vec_store(real *p, vec v) { *(vec_any *)p = v; }

/* s less zero is s, and compilers leave nothing of it; zero plus s is an addition, since it would
 * make -0 into 0. */
static inline vec vec_set(real s) { return s - (vec){0}; }

/* a b + c, rounded once where the processor can. Elsewhere the compiler chooses which product it
 * joins to which sum, and may choose otherwise in another copy of the same code: what must have the
 * same bits in several copies says what it wants. */
static inline vec vec_fma(vec a, vec b, vec c)
{
#if MM_KERNEL_F64
    return a * b + c;
#elif defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* The first min(left, VL) values of p; the other lanes are `fill`. left > 0. */
static inline vec vec_load_n(const real *p, int64_t left, real fill)
{
    if (left >= VL) return vec_load(p);
    vec v = vec_set(fill);
    memcpy(&v, p, (size_t)left * sizeof(real));
    return v;
}

static inline void vec_store_n(real *p, vec v, int64_t left)
{
    if (left >= VL) {
        vec_store(p, v);
    } else {
        memcpy(p, &v, (size_t)left * sizeof(real));
    }
}

#if MM_KERNEL_BF16
typedef uint16_t act_lanes __attribute__((vector_size(MM_VECTOR_BYTES / 2)));
typedef uint32_t wide_lanes __attribute__((vector_size(MM_VECTOR_BYTES)));

static inline vec act_widen(act_lanes a)
{
#if defined(__AVX512F__) // compilers make the conversion of 16 lanes out of two of 8
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)a), 16);
#else
    return (vec)(__builtin_convertvector(a, wide_lanes) << 16);
#endif
}

/* Rounds to the nearest bfloat16, ties to even; NaN stays NaN. */
static inline act_lanes act_narrow(vec v)
{
#if defined(__AVX512BF16__)
    return (act_lanes)_mm512_cvtneps_pbh(v);
#else
    const wide_lanes bits = (wide_lanes)v;
    const wide_lanes rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const wide_lanes is_nan = (wide_lanes)(v != v);
    return __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0), act_lanes);
#endif
}

static inline vec act_load(const act *p)
{
    act_lanes a;
    memcpy(&a, p, sizeof a);
    return act_widen(a);
}

static inline void act_store(act *p, vec v)
{
    const act_lanes a = act_narrow(v);
    memcpy(p, &a, sizeof a);
}

/* The first min(left, VL) values of p; the other lanes are 0. left > 0. */
static inline vec act_load_n(const act *p, int64_t left)
{
    if (left >= VL) return act_load(p);
    act_lanes a = {0};
    memcpy(&a, p, (size_t)left * sizeof(act));
    return act_widen(a);
}

static inline void act_store_n(act *p, vec v, int64_t left)
{
    const act_lanes a = act_narrow(v);
    if (left >= VL) {
        memcpy(p, &a, sizeof a);
    } else {
        memcpy(p, &a, (size_t)left * sizeof(act));
    }
}
#else
static inline vec act_load(const act *p) { return vec_load(p); }
static inline void act_store(act *p, vec v) { vec_store(p, v); }
static inline vec act_load_n(const act *p, int64_t left) { return vec_load_n(p, left, 0); }
static inline void act_store_n(act *p, vec v, int64_t left) { vec_store_n(p, v, left); }
#endif

/* Lane-wise mask ? a : b, where a mask lane is all ones or all zeros. */
static inline vec vec_select(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* a > b ? a : b in each lane: b where one of them is not a number. */
static inline vec vec_max(vec a, vec b)
{
#if defined(__x86_64__) && !MM_KERNEL_F64 && MM_VECTOR_BYTES == 64
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__x86_64__) && !MM_KERNEL_F64 && MM_VECTOR_BYTES == 32
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__) && !MM_KERNEL_F64
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vec_select(a > b, a, b);
#endif
}

/* Reductions go by halves: lane i with lane i + VL/2, and so on; down to four lanes in vectors. */
#if MM_KERNEL_F64
enum { VEC_PART = 2 };
#else
enum { VEC_PART = 4 };
#endif
typedef real vec_part __attribute__((vector_size(VEC_PART * sizeof(real))));
typedef real_bits vec_part_bits __attribute__((vector_size(VEC_PART * sizeof(real))));

static inline real vec_sum(vec v)
{
    vec_part part[VL / VEC_PART];
    memcpy(part, &v, sizeof v);
    for (int width = VL / VEC_PART / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            part[i] += part[i + width];
    const vec_part last = part[0];
#if MM_KERNEL_F64
    return last[0] + last[1];
#else
    return (last[0] + last[2]) + (last[1] + last[3]);
#endif
}

static inline real vec_highest(vec v)
{
    vec_part part[VL / VEC_PART];
    memcpy(part, &v, sizeof v);
    for (int width = VL / VEC_PART / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) {
            const vec_part_bits is_more = part[i] > part[i + width];
            part[i] = (vec_part)((is_more & (vec_part_bits)part[i]) |
                                 (~is_more & (vec_part_bits)part[i + width]));
        }
    real highest = part[0][0];
    for (int j = 1; j < VEC_PART; j++)
        highest = part[0][j] > highest ? part[0][j] : highest;
    return highest;
}

/* e^x, relative error below 1e-7 in float; 0 below the smallest normal result; NaN stays NaN. */
static inline vec vec_exp(vec x)
{
#if MM_KERNEL_F64
    // The double build is the yardstick of gradient checks: it takes the library's accuracy.
    vec y;
    for (int i = 0; i < VL; i++)
        y[i] = exp(x[i]);
    return y;
#else
    // x = n ln2 + r with |r| <= ln2/2; e^r by its Taylor series to r^7, whose rest is below 7e-9.
    // Adding 1.5 * 2^23 rounds to an integer that sits in the low bits of the sum.
    const float shifter = 0x1.8p23f;
    const vec lowest = vec_set(-87.3365f);
    const vec highest = vec_set(88.3762f);
    vec bounded = vec_select(x < lowest, lowest, x);
    bounded = vec_select(bounded > highest, highest, bounded);
    const vec shifted = bounded * 0x1.715476p0f + shifter;
    const vec n = shifted - shifter;
    // ln2 in two parts: n times the first has no rounding error.
    const vec r = (bounded - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    vec y = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
    y = y * r + 1.0f / 120.0f;
    y = y * r + 1.0f / 24.0f;
    y = y * r + 1.0f / 6.0f;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    const ivec exponent = ((ivec)shifted - 0x4B400000 + 127) << 23;
    y *= (vec)exponent;
    return (vec)((ivec)y & ~(ivec)(x < lowest));
#endif
}

static inline real dot_of(const real *a, const real *b, int64_t n)
{
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL)
        sum += vec_load_n(a + i, n - i, 0) * vec_load_n(b + i, n - i, 0);
    return vec_sum(sum);
}

#endif
