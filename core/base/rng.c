/* Counter-based random numbers: Philox4x32-10 and the cursor over it. Pure functions, safe from any
 * thread. The counter is (element, step), the key mixes seed and purpose. */
#include "core/base/rng.h"

#include "core/base/err.h"

#include <math.h>

// Multipliers and key increments of Philox4x32 (Salmon et al. 2011, table 2 and section 5.3).
static const uint32_t MULTIPLIER_0 = 0xD2511F53u;
static const uint32_t MULTIPLIER_1 = 0xCD9E8D57u;
static const uint32_t KEY_STEP_0 = 0x9E3779B9u;
static const uint32_t KEY_STEP_1 = 0xBB67AE85u;
enum { ROUNDS = 10 };

void mm_philox(uint64_t seed, uint32_t purpose, uint64_t step, uint64_t element, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)element;
    uint32_t c1 = (uint32_t)(element >> 32);
    uint32_t c2 = (uint32_t)step;
    // The purpose takes the top byte: steps stay below 2^56.
    uint32_t c3 = (uint32_t)(step >> 32) ^ (purpose << 24);
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t p0 = (uint64_t)MULTIPLIER_0 * c0;
        const uint64_t p1 = (uint64_t)MULTIPLIER_1 * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += KEY_STEP_0;
        k1 += KEY_STEP_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void mm_rng_init(mm_rng *rng, uint64_t seed, mm_rng_purpose purpose, uint64_t step)
{
    *rng = (mm_rng){.seed = seed, .purpose = (uint32_t)purpose, .step = step, .used = 4};
}

uint32_t mm_rng_u32(mm_rng *rng)
{
    if (rng->used == 4) {
        mm_philox(rng->seed, rng->purpose, rng->step, rng->element++, rng->buffer);
        rng->used = 0;
    }
    return rng->buffer[rng->used++];
}

double mm_rng_uniform(mm_rng *rng)
{
    const uint64_t high = mm_rng_u32(rng) >> 5;
    const uint64_t low = mm_rng_u32(rng) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

uint32_t mm_rng_below(mm_rng *rng, uint32_t n)
{
    MM_ASSERT(n > 0);
    // Lemire's multiply-shift with rejection of the biased low part (ACM TOMACS 29, 2019).
    uint64_t product = (uint64_t)mm_rng_u32(rng) * n;
    uint32_t low = (uint32_t)product;
    if (low < n) {
        const uint32_t threshold = (0u - n) % n;
        while (low < threshold) {
            product = (uint64_t)mm_rng_u32(rng) * n;
            low = (uint32_t)product;
        }
    }
    return (uint32_t)(product >> 32);
}

double mm_rng_normal(mm_rng *rng)
{
    // Box-Muller; 1 - u is in (0, 1], so the logarithm is finite.
    const double radius = sqrt(-2.0 * log(1.0 - mm_rng_uniform(rng)));
    const double angle = 6.283185307179586 * mm_rng_uniform(rng);
    return radius * cos(angle);
}
