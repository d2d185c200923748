/* The matrix tiles of Intel's AMX: eight tiles of 16 rows of 64 bytes per thread, and the sum of
 * dot products of bfloat16 pairs over a whole tile in one instruction. Intel, "Architecture
 * Instruction Set Extensions Programming Reference", chapter 3.
 *
 * Two implementations of the same operations: the instructions, and plain C with their numerics for
 * machines and tests without them (MM_TILES_EMULATED). Tile numbers are literals.
 */
#ifndef MM_NN_KERNELS_TILE_H
#define MM_NN_KERNELS_TILE_H

#include "core/base/err.h"

#include <stdint.h>

enum { TILES = 8, TILE_LINES = 16, TILE_LINE_BYTES = 64 };

/* What LDTILECFG reads. */
typedef struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "the layout is the processor's");

static inline tile_config tile_full_config(void)
{
    tile_config config = {.palette = 1};
    for (int t = 0; t < TILES; t++) {
        config.row_bytes[t] = TILE_LINE_BYTES;
        config.rows[t] = TILE_LINES;
    }
    return config;
}

#if MM_TILES_EMULATED
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef struct tile_state {
    bool is_configured;
    tile_config config;
    uint32_t line[TILES][TILE_LINES][TILE_LINE_BYTES / 4]; /* pairs of bfloat16, or the bits of a
                                                              float */
} tile_state;
static _Thread_local tile_state tiles;

// Of this thread: every tile is zero afterwards.
static inline void tile_configure(const tile_config *config)
{
    MM_ASSERT(config->palette == 1 && config->start_row == 0);
    memset(&tiles, 0, sizeof tiles);
    tiles.config = *config;
    tiles.is_configured = true;
}

static inline void tile_release(void) { tiles.is_configured = false; }

// Loads and stores are not ordered with those of C by themselves.
static inline void tile_fence(void) {}

static inline void tile_zero(int t)
{
    MM_ASSERT(tiles.is_configured);
    memset(tiles.line[t], 0, sizeof tiles.line[t]);
}

static inline void tile_load(int t, const void *from, int64_t stride)
{
    tile_zero(t);
    for (int i = 0; i < tiles.config.rows[t]; i++)
        memcpy(tiles.line[t][i], (const char *)from + i * stride, tiles.config.row_bytes[t]);
}

static inline void tile_store(int t, void *to, int64_t stride)
{
    MM_ASSERT(tiles.is_configured);
    for (int i = 0; i < tiles.config.rows[t]; i++)
        memcpy((char *)to + i * stride, tiles.line[t][i], tiles.config.row_bytes[t]);
}

static inline float tile_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Denormal numbers are taken, and given, as zero.
static inline float tile_flush(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

// sum += left right: the even and the odd k of a pair row are summed apart, and then together. A
// product of two bfloat16 is exact in fp32.
static inline void tile_dot(int sum, int left, int right)
{
    MM_ASSERT(tiles.is_configured);
    const int pairs = tiles.config.row_bytes[left] / 4;
    const int columns = tiles.config.row_bytes[sum] / 4;
    for (int i = 0; i < tiles.config.rows[sum]; i++) {
        float even[TILE_LINE_BYTES / 4] = {0};
        float odd[TILE_LINE_BYTES / 4] = {0};
        for (int p = 0; p < pairs; p++) {
            const uint32_t a = tiles.line[left][i][p];
            const float a_even = tile_flush(tile_float(a << 16));
            const float a_odd = tile_flush(tile_float(a & 0xffff0000));
            for (int j = 0; j < columns; j++) {
                const uint32_t b = tiles.line[right][p][j];
                even[j] = tile_flush(even[j] + a_even * tile_flush(tile_float(b << 16)));
                odd[j] = tile_flush(odd[j] + a_odd * tile_flush(tile_float(b & 0xffff0000)));
            }
        }
        for (int j = 0; j < columns; j++) {
            const float before = tile_flush(tile_float(tiles.line[sum][i][j]));
            const float after = tile_flush(before + tile_flush(even[j] + odd[j]));
            memcpy(&tiles.line[sum][i][j], &after, sizeof after);
        }
    }
}
#else
#include <immintrin.h>

static inline void tile_configure(const tile_config *config)
{
    // Gcc's intrinsic says that it reads eight bytes: all of them must be in memory.
    __asm__ volatile("" ::"r"(config) : "memory");
    _tile_loadconfig(config);
}

static inline void tile_release(void) { _tile_release(); }

// The compilers' intrinsics do not say that they read and write memory: what C stores before stays
// before, what it loads after stays after.
static inline void tile_fence(void) { __asm__ volatile("" ::: "memory"); }

// Macros, since an instruction names its tiles.
#define tile_zero(t)               _tile_zero(t)
#define tile_load(t, from, stride) _tile_loadd(t, from, (size_t)(stride))
#define tile_store(t, to, stride)  _tile_stored(t, to, (size_t)(stride))
#define tile_dot(sum, left, right) _tile_dpbf16ps(sum, left, right)
#endif

#endif
