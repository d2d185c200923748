/* Matrix product of panels of bfloat16 pairs, for processors that multiply pairs: the dot product
 * of AVX512_BF16 and the matrix tiles of AMX. See gemm.h.
 *
 * Both instructions take two neighbouring k at once, so panels hold pairs. A: tiles of 16 rows and
 * 32 k, row by row, [k/32][16][32]. B: panels of 32 columns, [k/2][32][2]. k is padded with zeros
 * to whole tiles. A tile of A is contiguous for AMX, and gives AVX512_BF16 its pairs to broadcast;
 * a pair row of B is two vectors, or a row of two tiles.
 *
 * The sum of an element starts with what is in c, or with zero, and runs over k in ascending order
 * in fp32; where it is interrupted it is kept in fp32 as it is. So no cut of m, n and k changes it.
 * A result kept as bfloat16 is rounded once. Operands in `real` are rounded to the nearest bfloat16
 * while they are packed. B is read in slices that stay in cache while the tiles of A pass by.
 */
#include "core/nn/kernels/gemm.h"

#if MM_KERNEL_PAIRS
#include "core/nn/kernels/ops.h"
#include "core/nn/kernels/transpose.h"
#if MM_KERNEL_TILES
#include "core/nn/kernels/tile.h"
#else
#include <immintrin.h>
#endif

enum {
    TILE_ROWS = 16,
    TILE_K = 32,
    PANEL = 32,                                    /* columns of a panel of B */
    BLOCK_ROWS = TILE_ROWS * (MM_KERNEL_TILES + 1) /* rows of one call of the register kernel */
};

/* Elements of scratch. A (rows, depth) stays in the second-level cache; rows * depth is what fits,
 * so that few rows run over a long k without interruption. */
enum {
    MAX_ROWS = 512,
    MAX_ACT_ROWS = 128,
    MAX_COLUMNS = GEMM_MAX_ACT_COLUMNS, /* of a B that is packed on the way */
    A_COUNT = 128 * 1024,
    B_COUNT = 256 * 1024,
    SUM_COUNT = MAX_ACT_ROWS * MAX_COLUMNS
};
_Static_assert(A_COUNT / MAX_ROWS >= TILE_K && B_COUNT / MAX_COLUMNS >= TILE_K,
               "scratch holds at least one step of k");

size_t gemm_packed_b_bytes(int64_t k, int64_t n)
{
    return (size_t)(round_up(k, TILE_K) * round_up(n, PANEL)) * sizeof(uint16_t);
}

size_t gemm_packed_a_bytes(void) { return A_COUNT * sizeof(uint16_t) + SUM_COUNT * sizeof(real); }

enum { SQUARE = 16, SV = SQUARE / VL }; // a square of pairs: lines, vectors of one line

// VL pairs (k, k + 1) of one line, which lies in order of k.
static inline vec pairs_along(const void *data, int64_t at, bool is_real)
{
    vec pairs;
    if (is_real) {
        const real *from = (const real *)data + at;
        const act_lanes halves[2] = {act_narrow(vec_load(from)), act_narrow(vec_load(from + VL))};
        memcpy(&pairs, halves, sizeof pairs);
    } else {
        memcpy(&pairs, (const act *)data + at, sizeof pairs);
    }
    return pairs;
}

static inline act_lanes lanes_at(const void *data, int64_t at, bool is_real)
{
    if (is_real) return act_narrow(vec_load((const real *)data + at));
    act_lanes lanes;
    memcpy(&lanes, (const act *)data + at, sizeof lanes);
    return lanes;
}

// VL pairs of two lines, of k and of k + 1.
static inline vec pairs_across(act_lanes low, act_lanes high)
{
    return (vec)(__builtin_convertvector(low, wide_lanes) |
                 __builtin_convertvector(high, wide_lanes) << 16);
}

static inline void transpose_square(vec square[SQUARE * SV])
{
    vec turned[SQUARE * SV];
    for (int i = 0; i < SV; i++)
        for (int j = 0; j < SV; j++) {
            vec part[VL];
            for (int r = 0; r < VL; r++)
                part[r] = square[(j * VL + r) * SV + i];
            transpose(part);
            for (int r = 0; r < VL; r++)
                turned[(i * VL + r) * SV + j] = part[r];
        }
    for (int i = 0; i < SQUARE * SV; i++)
        square[i] = turned[i];
}

// Element (line, k) of a view as bfloat16.
static act element_at(matrix from, int64_t line, int64_t k)
{
    const int64_t at = line * from.row_stride + k * from.col_stride;
    if (!from.is_real) return ((const act *)from.data)[at];
    return act_narrow(vec_set(((const real *)from.data)[at]))[0];
}

// Fetches what the next 32 k need into the second-level cache: where neighbouring k are far apart,
// the processor does not guess it.
static inline void prefetch_line(matrix from, int64_t line, int64_t k)
{
    enum { READ = 0, SECOND_LEVEL = 2 };
    __builtin_prefetch(gemm_from(from, line, k).data, READ, SECOND_LEVEL);
}

// Up to 16 lines and 32 k of a view, padded with zeros, as 16 rows of 16 pairs `stride` elements
// apart: one row per line or, turned, one per pair of k. Inlined for each kind of source.
static inline __attribute__((always_inline)) void
pack_square(matrix from, int64_t lines, int64_t k, bool turned, uint16_t *out, int64_t stride)
{
    act copy[SQUARE * TILE_K];
    vec square[SQUARE * SV];
    const bool by_k = from.row_stride == 1 && lines >= SQUARE && k >= TILE_K;
    if (!by_k && (from.col_stride != 1 || k < TILE_K)) {
        memset(copy, 0, sizeof copy);
        for (int64_t line = 0; line < least(lines, SQUARE); line++)
            for (int64_t i = 0; i < least(k, TILE_K); i++)
                copy[line * TILE_K + i] = element_at(from, line, i);
        from = (matrix){copy, TILE_K, 1, false};
    }
    if (by_k) {
        for (int i = 0; i < SQUARE * SV; i++) {
            const int64_t at = 2 * (i / SV) * from.col_stride + i % SV * VL;
            prefetch_line(from, i % SV * VL, TILE_K + 2 * (i / SV));
            prefetch_line(from, i % SV * VL, TILE_K + 2 * (i / SV) + 1);
            square[i] = pairs_across(lanes_at(from.data, at, from.is_real),
                                     lanes_at(from.data, at + from.col_stride, from.is_real));
        }
    } else {
        for (int i = 0; i < SQUARE * SV; i++)
            square[i] = i / SV < lines
                            ? pairs_along(from.data, i / SV * from.row_stride + i % SV * 2 * VL,
                                          from.is_real)
                            : (vec){0};
    }
    if (by_k != turned) transpose_square(square);
    for (int i = 0; i < SQUARE; i++)
        memcpy(out + i * stride, square + i * SV, SV * sizeof(vec));
}

// A (rows,k) in tiles, tile rows one after the other.
static void pack_a(uint16_t *out, int64_t rows, int64_t k, matrix a)
{
    const int64_t depth = round_up(k, TILE_K);
    if (a.row_stride == 1) { // memory is read in order of rows
        for (int64_t p = 0; p < k; p += TILE_K)
            for (int64_t i = 0; i < rows; i += TILE_ROWS)
                pack_square(gemm_from(a, i, p), rows - i, k - p, false,
                            out + i * depth + p * TILE_ROWS, TILE_K);
    } else {
        for (int64_t i = 0; i < rows; i += TILE_ROWS)
            for (int64_t p = 0; p < k; p += TILE_K)
                pack_square(gemm_from(a, i, p), rows - i, k - p, false,
                            out + i * depth + p * TILE_ROWS, TILE_K);
    }
}

static void pack_b_step(uint16_t *out, int64_t k, int64_t columns, matrix turned)
{
    for (int64_t j = 0; j < PANEL; j += SQUARE)
        pack_square(gemm_from(turned, j, 0), columns - j, k, true, out + 2 * j, 2 * PANEL);
}

// B (k,n) in panels, one after the other.
static void pack_b(uint16_t *out, int64_t k, int64_t n, matrix b)
{
    const int64_t depth = round_up(k, TILE_K);
    const matrix turned = {b.data, b.col_stride, b.row_stride, b.is_real};
    if (b.col_stride == 1) {
        for (int64_t p = 0; p < k; p += TILE_K)
            for (int64_t j = 0; j < n; j += PANEL)
                pack_b_step(out + j * depth + p * PANEL, k - p, n - j, gemm_from(turned, j, p));
    } else {
        for (int64_t j = 0; j < n; j += PANEL)
            for (int64_t p = 0; p < k; p += TILE_K)
                pack_b_step(out + j * depth + p * PANEL, k - p, n - j, gemm_from(turned, j, p));
    }
}

packed_b gemm_pack_b(void *out, int64_t k, int64_t n, matrix b)
{
    pack_b(out, k, n, b);
    return (packed_b){out, k, n};
}

#if MM_KERNEL_TILES
// Two tiles of A (`next` elements apart) times the two tiles of a panel, in tiles 0 to 3. Operands
// are loaded just before their first use, so that loads run beside dot products.
static void kernel_2(int64_t steps, const uint16_t *a, int64_t next, const uint16_t *b, real *c,
                     int64_t stride, bool from_zero)
{
    const int64_t c_bytes = stride * (int64_t)sizeof(real);
    const int64_t a_bytes = TILE_K * sizeof(uint16_t);
    const int64_t b_bytes = 2 * PANEL * sizeof(uint16_t);
    real *c1 = c + TILE_ROWS * stride;
    if (from_zero) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else {
        tile_load(0, c, c_bytes);
        tile_load(1, c + PANEL / 2, c_bytes);
        tile_load(2, c1, c_bytes);
        tile_load(3, c1 + PANEL / 2, c_bytes);
    }
    for (int64_t step = 0; step < steps; step++, a += TILE_ROWS * TILE_K, b += PANEL * TILE_K) {
        tile_load(6, b, b_bytes);
        tile_load(4, a, a_bytes);
        tile_dot(0, 4, 6);
        tile_load(7, b + PANEL, b_bytes);
        tile_dot(1, 4, 7);
        tile_load(5, a + next, a_bytes);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
    }
    tile_store(0, c, c_bytes);
    tile_store(1, c + PANEL / 2, c_bytes);
    tile_store(2, c1, c_bytes);
    tile_store(3, c1 + PANEL / 2, c_bytes);
}

static void kernel_1(int64_t steps, const uint16_t *a, const uint16_t *b, real *c, int64_t stride,
                     bool from_zero)
{
    const int64_t c_bytes = stride * (int64_t)sizeof(real);
    const int64_t a_bytes = TILE_K * sizeof(uint16_t);
    const int64_t b_bytes = 2 * PANEL * sizeof(uint16_t);
    if (from_zero) {
        tile_zero(0);
        tile_zero(1);
    } else {
        tile_load(0, c, c_bytes);
        tile_load(1, c + PANEL / 2, c_bytes);
    }
    for (int64_t step = 0; step < steps; step++, a += TILE_ROWS * TILE_K, b += PANEL * TILE_K) {
        tile_load(6, b, b_bytes);
        tile_load(4, a, a_bytes);
        tile_dot(0, 4, 6);
        tile_load(7, b + PANEL, b_bytes);
        tile_dot(1, 4, 7);
    }
    tile_store(0, c, c_bytes);
    tile_store(1, c + PANEL / 2, c_bytes);
}

// c (rows, 32) = or += the product of one or two rows of tiles, of which `rows` count, and a panel;
// whole tiles are read and written.
static void block_kernel(int64_t rows, int64_t steps, const uint16_t *a, const uint16_t *b, real *c,
                         int64_t stride, bool from_zero)
{
    tile_fence();
    if (rows > TILE_ROWS) {
        kernel_2(steps, a, steps * TILE_ROWS * TILE_K, b, c, stride, from_zero);
    } else {
        kernel_1(steps, a, b, c, stride, from_zero);
    }
    tile_fence();
}

// Tiles belong to a thread, and are given back because a thread with live tiles is slow to switch.
static void kernel_begin(void)
{
    const tile_config config = tile_full_config();
    tile_configure(&config);
}

static void kernel_end(void) { tile_release(); }

double op_peak(int64_t rounds)
{
    // Four sums hide the latency, as in the kernel.
    enum { SUMS = 4, OPS = 2 * TILE_ROWS * (PANEL / 2) * TILE_K /* of one instruction */ };
    kernel_begin(); // all tiles are zero
    for (int64_t round = 0; round < rounds; round++) {
        tile_dot(0, 4, 6);
        tile_dot(1, 4, 7);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
    }
    kernel_end();
    return (double)SUMS * OPS * (double)rounds;
}
#else
static inline __m512bh pair_row(const uint16_t *b)
{
    return (__m512bh)_mm512_loadu_si512((const void *)b);
}

// The pair of k that a row of A has at `a`, in every lane.
static inline __m512bh pair_of(const uint16_t *a)
{
    int32_t pair;
    memcpy(&pair, a, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

// `rows` rows of packed A times one panel; all sums stay in registers. Inlined for each number of
// rows.
static inline __attribute__((always_inline)) void
rows_kernel(int rows, int64_t steps, const uint16_t *restrict a, const uint16_t *restrict b,
            real *restrict c, int64_t stride, bool from_zero)
{
    __m512 sum[8][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            sum[r][v] = from_zero ? _mm512_setzero_ps() : _mm512_loadu_ps(c + r * stride + v * VL);
    for (int64_t step = 0; step < steps; step++, a += TILE_ROWS * TILE_K) {
        for (int p = 0; p < TILE_K; p += 2, b += 2 * PANEL) {
            const __m512bh b0 = pair_row(b);
            const __m512bh b1 = pair_row(b + PANEL);
            for (int r = 0; r < rows; r++) {
                const __m512bh pair = pair_of(a + r * TILE_K + p);
                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], pair, b0);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], pair, b1);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            _mm512_storeu_ps(c + r * stride + v * VL, sum[r][v]);
}

#define DEFINE_ROWS_KERNEL(rows)                                                                   \
    static void kernel_##rows(int64_t steps, const uint16_t *restrict a,                           \
                              const uint16_t *restrict b, real *restrict c, int64_t stride,        \
                              bool from_zero)                                                      \
    {                                                                                              \
        rows_kernel(rows, steps, a, b, c, stride, from_zero);                                      \
    }

DEFINE_ROWS_KERNEL(1)
DEFINE_ROWS_KERNEL(2)
DEFINE_ROWS_KERNEL(4)
DEFINE_ROWS_KERNEL(8)

// c (rows, 32) = or += the product of a row of tiles, of which `rows` count, and a panel.
static void block_kernel(int64_t rows, int64_t steps, const uint16_t *a, const uint16_t *b, real *c,
                         int64_t stride, bool from_zero)
{
    while (rows > 0) {
        int64_t done = 8;
        if (rows >= 8) {
            kernel_8(steps, a, b, c, stride, from_zero);
        } else if (rows >= 4) {
            kernel_4(steps, a, b, c, stride, from_zero);
            done = 4;
        } else if (rows >= 2) {
            kernel_2(steps, a, b, c, stride, from_zero);
            done = 2;
        } else {
            kernel_1(steps, a, b, c, stride, from_zero);
            done = 1;
        }
        rows -= done;
        a += done * TILE_K;
        c += done * stride;
    }
}

static void kernel_begin(void) {}
static void kernel_end(void) {}

double op_peak(int64_t rounds)
{
    // Enough independent sums to hide the latency, few enough to stay in registers.
    enum { SUMS = 12, OPS = 4 * VL /* of one instruction */ };
    __m512 sums[SUMS];
    for (int s = 0; s < SUMS; s++)
        sums[s] = _mm512_set1_ps((float)s);
    volatile int32_t seed = 0x3f003f00; // a pair of 0.5
    const __m512bh factor = (__m512bh)_mm512_set1_epi32(seed);
    for (int64_t round = 0; round < rounds; round++)
        for (int s = 0; s < SUMS; s++)
            sums[s] = _mm512_dpbf16_ps(sums[s], factor, factor);
    vec total = {0};
    for (int s = 0; s < SUMS; s++)
        total += (vec)sums[s];
    seed = (int32_t)vec_sum(total); // the result is used, so the loop stays
    return (double)SUMS * OPS * (double)rounds;
}
#endif

// What one call of the register kernel works on, read and written in a block of sums of its own
// where c is not in `real` or the block is not whole.
static void sums_load(real *sums, target c, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += VL)
            vec_store(sums + i * PANEL + j,
                      row_load(c.data, i * c.stride + j, columns - j, c.is_real));
}

static void sums_store(const real *sums, target c, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += VL)
            row_store(c.data, i * c.stride + j, vec_load(sums + i * PANEL + j), columns - j,
                      c.is_real);
}

// A stretch of k of one product.
typedef struct stretch {
    int64_t k;
    bool is_first;
    bool is_last;
} stretch;

// Rows and columns of c (+)= one block of A times one panel.
static void block(const stretch *part, int64_t rows, int64_t columns, const uint16_t *a,
                  const uint16_t *b, real *sums, target c)
{
    const int64_t steps = round_up(part->k, TILE_K) / TILE_K;
    const bool is_new = part->is_first && !c.add;
    if (c.is_real && columns == PANEL && rows % TILE_ROWS == 0) {
        block_kernel(rows, steps, a, b, c.data, c.stride, is_new);
        return;
    }
    if (!is_new && (c.is_real || part->is_first)) sums_load(sums, c, rows, columns);
    block_kernel(rows, steps, a, b, sums, PANEL, is_new);
    if (c.is_real || part->is_last) sums_store(sums, c, rows, columns);
}

// Fetches the rows of a block of c, whose addresses are too far apart for the processor to guess.
static void prefetch_block(target c, int64_t rows)
{
    enum { LINE = 64 };
    const size_t bytes = PANEL * (c.is_real ? sizeof(real) : sizeof(act));
    for (int64_t i = 0; i < rows; i++) {
        const char *row = gemm_at(c, i, 0).data;
        for (size_t at = 0; at < bytes; at += LINE)
            __builtin_prefetch(row + at, 1);
    }
}

// The longest stretch of k for which an A (rows, k) and, unless it is packed already, a B (k,
// columns) fit into the scratch.
static int64_t depth_of(int64_t rows, int64_t columns, bool is_ready)
{
    int64_t depth = A_COUNT / round_up(rows, TILE_ROWS);
    if (!is_ready) depth = least(depth, B_COUNT / round_up(columns, PANEL));
    return depth / TILE_K * TILE_K;
}

typedef struct product {
    int64_t m, n, k;
    matrix a, b;
    const packed_b *ready; // NULL: b is packed on the way
    int64_t ready_column;  // where the columns of this product begin in it, a multiple of PANEL
    target c;
} product;

// Whether sums live in scratch from one stretch to the next.
static bool keeps_sums(const product *job)
{
    return !job->c.is_real && job->k > depth_of(job->m, job->n, job->ready);
}

// A product that fits into the scratch: A, then the sums, then B if it is not ready.
static void product_run(const product *job, void *scratch)
{
    uint16_t *a = scratch;
    real *sums = (real *)(void *)(a + A_COUNT);
    uint16_t *b = (uint16_t *)(void *)(sums + SUM_COUNT);
    const int64_t depth = depth_of(job->m, job->n, job->ready);
    const int64_t rows = round_up(job->m, BLOCK_ROWS);
    const bool keeps = keeps_sums(job);
    MM_ASSERT(depth > 0 && (!keeps || rows * round_up(job->n, PANEL) <= SUM_COUNT));
    kernel_begin();
    int64_t p = 0;
    do { // at least once: a sum without terms is written too
        const stretch part = {least(depth, job->k - p), p == 0, p + depth >= job->k};
        const uint16_t *panels = b;
        int64_t panel_count = round_up(part.k, TILE_K) * PANEL;
        if (job->ready) {
            const int64_t ready_k = round_up(job->ready->k, TILE_K);
            panels = (const uint16_t *)job->ready->data + job->ready_column * ready_k + p * PANEL;
            panel_count = ready_k * PANEL;
        } else {
            pack_b(b, part.k, job->n, gemm_from(job->b, p, 0));
        }
        pack_a(a, job->m, part.k, gemm_from(job->a, 0, p));
        const int64_t tiles_count = round_up(part.k, TILE_K) * BLOCK_ROWS;
        for (int64_t j = 0; j < job->n; j += PANEL)
            for (int64_t i = 0; i < job->m; i += BLOCK_ROWS) {
                prefetch_block(gemm_at(job->c, i + BLOCK_ROWS, j),
                               least(BLOCK_ROWS, job->m - i - BLOCK_ROWS));
                block(&part, least(BLOCK_ROWS, job->m - i), least(PANEL, job->n - j),
                      a + i / BLOCK_ROWS * tiles_count, panels + j / PANEL * panel_count,
                      keeps ? sums + j * rows + i * PANEL : sums, gemm_at(job->c, i, j));
            }
        p += depth;
    } while (p < job->k);
    kernel_end();
}

void gemm_packed(void *scratch, int64_t m, int64_t n, int64_t k, matrix a, const packed_b *b,
                 target c)
{
    MM_ASSERT(k <= b->k && n <= b->n && (c.is_real || n <= GEMM_MAX_ACT_COLUMNS));
    const int64_t most = c.is_real ? MAX_ROWS / 2 : MAX_ACT_ROWS;
    for (int64_t i = 0; i < m; i += most)
        product_run(&(product){.m = least(most, m - i),
                               .n = n,
                               .k = k,
                               .a = gemm_from(a, i, 0),
                               .ready = b,
                               .c = gemm_at(c, i, 0)},
                    scratch);
}

typedef struct gemm_job {
    const mm_workspace *work;
    product whole;
    int64_t item_m;
    int64_t item_n;
    int64_t n_across;
} gemm_job;

static void gemm_item(void *context, int64_t item, int32_t thread)
{
    const gemm_job *job = context;
    const int64_t i = item / job->n_across * job->item_m;
    const int64_t j = item % job->n_across * job->item_n;
    product part = job->whole;
    part.m = least(job->item_m, part.m - i);
    part.n = least(job->item_n, part.n - j);
    part.a = gemm_from(part.a, i, 0);
    if (!part.ready) part.b = gemm_from(part.b, 0, j);
    part.ready_column = j;
    part.c = gemm_at(part.c, i, j);
    product_run(&part, job->work->thread + (size_t)thread * job->work->thread_bytes);
}

static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// What the thread with the most items takes, in products of one k; the packing of a row or column
// costs as much as some products. 0: an item does not fit into the scratch.
static int64_t cost_of(const gemm_job *job, int64_t item_m, int64_t item_n)
{
    enum { PACKING = 10 };
    product item = job->whole;
    item.m = item_m;
    item.n = item_n;
    if (keeps_sums(&item) && round_up(item_m, BLOCK_ROWS) * round_up(item_n, PANEL) > SUM_COUNT)
        return 0;
    const int64_t items = pieces(job->whole.m, item_m) * pieces(job->whole.n, item_n);
    const int64_t packed = item_m + (job->whole.ready ? 0 : item_n);
    return pieces(items, mm_pool_threads(job->work->pool)) * (item_m * item_n + PACKING * packed);
}

// The size of items with which the last thread is done first. Sums do not depend on it.
static void choose_items(gemm_job *job)
{
    static const int64_t rows[] = {MAX_ROWS, 384, 256, 192, 128, 96, 64, 32};
    static const int64_t columns[] = {1 << 22, 1024, MAX_COLUMNS, 256, 128, 64, PANEL};
    int64_t best = INT64_MAX;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++) {
            if (!job->whole.ready && columns[c] > MAX_COLUMNS) continue;
            // Items of one size, as near to the wish as whole blocks allow.
            const product *whole = &job->whole;
            const int64_t item_m =
                round_up(pieces(whole->m, pieces(whole->m, rows[r])), BLOCK_ROWS);
            const int64_t item_n = round_up(pieces(whole->n, pieces(whole->n, columns[c])), PANEL);
            const int64_t cost = cost_of(job, item_m, item_n);
            if (cost == 0 || cost >= best) continue;
            best = cost;
            job->item_m = item_m;
            job->item_n = item_n;
        }
    }
    job->n_across = pieces(job->whole.n, job->item_n);
}

static void run(const mm_workspace *work, const product *whole)
{
    MM_ASSERT(work->thread_bytes >= op_gemm_need().thread_bytes);
    if (whole->m == 0 || whole->n == 0) return;
    gemm_job job = {.work = work, .whole = *whole};
    choose_items(&job);
    mm_pool_run(work->pool, pieces(whole->m, job.item_m) * job.n_across, gemm_item, &job);
}

void op_gemm(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b,
             target c)
{
    run(work, &(product){.m = m, .n = n, .k = k, .a = a, .b = b, .c = c});
}

void op_gemm_weights(const mm_workspace *work, int64_t m, matrix a, const packed_b *b, target c)
{
    run(work, &(product){.m = m, .n = b->n, .k = b->k, .a = a, .ready = b, .c = c});
}

typedef struct pack_job {
    uint16_t *out;
    int64_t k;
    int64_t n;
    matrix b;
} pack_job;

static void pack_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const pack_job *job = context;
    const int64_t j = item * PANEL;
    pack_b(job->out + j * round_up(job->k, TILE_K), job->k, least(PANEL, job->n - j),
           gemm_from(job->b, 0, j));
}

packed_b op_gemm_pack(const mm_workspace *work, void *out, int64_t k, int64_t n, matrix b)
{
    pack_job job = {out, k, n, b};
    mm_pool_run(work->pool, pieces(n, PANEL), pack_item, &job);
    return (packed_b){out, k, n};
}

mm_op_need op_gemm_need(void)
{
    return (mm_op_need){.thread_bytes = gemm_packed_a_bytes() + B_COUNT * sizeof(uint16_t)};
}

#endif
