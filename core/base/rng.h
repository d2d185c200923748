/* Counter-based random numbers: Philox4x32-10.
 *
 * There is no generator state anywhere: a number is a pure function of (seed, purpose, step,
 * element), so that a resumed run needs nothing but its step, and the order of threads does not
 * matter. Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC
 * 2011.
 */
#ifndef MM_BASE_RNG_H
#define MM_BASE_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the numbers are for; part of the key, so that two purposes never share a number. Values are
 * stored in no file but decide every run: append only. */
typedef enum mm_rng_purpose {
    MM_RNG_INIT = 1,    /* weights; step = tensor index */
    MM_RNG_ORDER = 2,   /* order of documents; step = epoch */
    MM_RNG_DROPOUT = 3, /* step = micro-step, element carries the site */
    MM_RNG_SAMPLE = 4,  /* generation; step = position */
    MM_RNG_SYNTH = 5,   /* self-made data; step = row */
    MM_RNG_SPLIT = 6,
    MM_RNG_TEST = 7,
    MM_RNG_AUGMENT = 8 /* what is drawn for a row: step = epoch, element = row */
} mm_rng_purpose;

/* Four independent 32-bit numbers. */
void mm_philox(uint64_t seed, uint32_t purpose, uint64_t step, uint64_t element, uint32_t out[4]);

/* A cursor over the numbers of one (seed, purpose, step), for sequential use. */
typedef struct mm_rng {
    uint64_t seed;
    uint64_t step;
    uint64_t element;
    uint32_t purpose;
    uint32_t used; /* 4 = buffer is spent */
    uint32_t buffer[4];
} mm_rng;

void mm_rng_init(mm_rng *rng, uint64_t seed, mm_rng_purpose purpose, uint64_t step);
uint32_t mm_rng_u32(mm_rng *rng);
/* Uniform in [0, 1) with 53 random bits; uniform integer in [0, n), n > 0, without bias; standard
 * normal. */
double mm_rng_uniform(mm_rng *rng);
uint32_t mm_rng_below(mm_rng *rng, uint32_t n);
double mm_rng_normal(mm_rng *rng);

#ifdef __cplusplus
}
#endif
#endif
