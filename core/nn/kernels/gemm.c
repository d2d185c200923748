/* Matrix product of `real` panels: packing, register kernel, tiles. See gemm.h. The builds with
 * instructions for pairs of bfloat16 take gemm_pairs.c instead.
 *
 * Operands kept as bfloat16 are widened while they are packed, which loses nothing; a result that
 * is kept as bfloat16 is summed in a block of `real` and rounded once.
 */
#include "core/nn/kernels/gemm.h"

#if !MM_KERNEL_PAIRS
#include "core/nn/kernels/transpose.h"

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
    GEMM_MC = 384,                 /* 4 times a multiple of every GEMM_MR */
    GEMM_NC = GEMM_MAX_ACT_COLUMNS /* 4 times a multiple of every GEMM_NR */
};

enum { PACKED_A_COUNT = GEMM_MC * GEMM_KC + VL, PACKED_B_COUNT = GEMM_NC * GEMM_KC };
#if MM_KERNEL_BF16
enum { SUM_COUNT = GEMM_MC * GEMM_NC }; // a block of sums before rounding
#else
enum { SUM_COUNT = 0 };
#endif

_Static_assert(GEMM_MC / 4 % GEMM_MR == 0 && GEMM_NC / 4 % GEMM_NR == 0,
               "the least items are whole panels");

enum { NV = GEMM_NR / VL };

// Panels of a width that is not a whole number of vectors are written with vectors that reach into
// the next step of k, which is written later; after the last step they reach up to VL elements
// beyond.
_Static_assert((int)GEMM_MR % (int)VL == 0 || (int)GEMM_MR < (int)VL,
               "a panel is whole vectors or less than one");

// Element i of a view's data, and a vector from there on.
static inline real source_at(const void *data, int64_t i, bool is_real)
{
#if MM_KERNEL_BF16
    if (!is_real) {
        const uint32_t bits = (uint32_t)((const act *)data)[i] << 16;
        real value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
#else
    (void)is_real;
#endif
    return ((const real *)data)[i];
}

static inline vec source_load(const void *data, int64_t i, bool is_real)
{
    return is_real ? vec_load((const real *)data + i) : act_load((const act *)data + i);
}

// The first steps of a panel whose rows lie along k, VL x VL values at a time; returns the steps
// done.
static inline int64_t pack_along_k(real *out, int64_t width, int64_t n_rows, int64_t k,
                                   const void *data, int64_t row_stride, bool is_real)
{
    int64_t p = 0;
    for (; p + VL <= k; p += VL) {
        for (int64_t first = 0; first < width; first += VL) {
            vec rows[VL];
            for (int64_t r = 0; r < VL; r++)
                rows[r] = first + r < n_rows
                              ? source_load(data, (first + r) * row_stride + p, is_real)
                              : (vec){0};
            transpose(rows);
            for (int64_t r = 0; r < VL; r++)
                vec_store(out + (p + r) * width + first, rows[r]);
        }
    }
    return p;
}

// Copies up to `width` rows of a strided view, k steps long, as out[k][width]; missing rows become
// zeros.
static inline __attribute__((always_inline)) void pack_panel(real *restrict out, int64_t width,
                                                             int64_t n_rows, int64_t k,
                                                             const void *data, int64_t row_stride,
                                                             int64_t k_stride, bool is_real)
{
    if (width == 1) {
        for (int64_t p = 0; p < k; p++)
            out[p] = source_at(data, p * k_stride, is_real);
        return;
    }
    if (row_stride == 1 && n_rows == width) {
        for (int64_t p = 0; p < k; p++)
            for (int64_t r = 0; r < width; r++)
                out[p * width + r] = source_at(data, p * k_stride + r, is_real);
        return;
    }
    for (int64_t p = k_stride == 1 ? pack_along_k(out, width, n_rows, k, data, row_stride, is_real)
                                   : 0;
         p < k; p++) {
        for (int64_t r = 0; r < n_rows; r++)
            out[p * width + r] = source_at(data, r * row_stride + p * k_stride, is_real);
        for (int64_t r = n_rows; r < width; r++)
            out[p * width + r] = 0;
    }
}

// Rows of the A panel that holds the next of `m` rows: few rows get a panel, and a register kernel,
// of their own.
static inline int64_t panel_rows(int64_t m)
{
    for (int64_t rows = 1; rows < GEMM_MR; rows *= 2)
        if (m <= rows) return rows;
    return GEMM_MR;
}

static void pack_a(real *out, int64_t m, int64_t k, matrix a)
{
    for (int64_t i = 0; i < m; i += GEMM_MR, out += GEMM_MR * k) {
        const matrix rows = gemm_from(a, i, 0);
        const int64_t n_rows = least(GEMM_MR, m - i);
        if (n_rows < GEMM_MR) {
            pack_panel(out, panel_rows(n_rows), n_rows, k, rows.data, a.row_stride, a.col_stride,
                       a.is_real);
        } else if (a.is_real) {
            pack_panel(out, GEMM_MR, n_rows, k, rows.data, a.row_stride, a.col_stride, true);
        } else {
            pack_panel(out, GEMM_MR, n_rows, k, rows.data, a.row_stride, a.col_stride, false);
        }
    }
}

static void pack_b_block(real *out, int64_t k, int64_t n, matrix b)
{
    for (int64_t j = 0; j < n; j += GEMM_NR, out += GEMM_NR * k) {
        const matrix cols = gemm_from(b, 0, j);
        const int64_t n_cols = least(GEMM_NR, n - j);
        if (b.is_real) {
            pack_panel(out, GEMM_NR, n_cols, k, cols.data, b.col_stride, b.row_stride, true);
        } else {
            pack_panel(out, GEMM_NR, n_cols, k, cols.data, b.col_stride, b.row_stride, false);
        }
    }
}

size_t gemm_packed_b_bytes(int64_t k, int64_t n)
{
    enum { LINE = 64 };
    const int64_t bytes = k * round_up(n, GEMM_NR) * (int64_t)sizeof(real);
    return (size_t)round_up(bytes, LINE);
}

size_t gemm_packed_a_bytes(void) { return sizeof(real) * (PACKED_A_COUNT + SUM_COUNT); }

// Panels [first, first + cols) of B, at their place in the packed whole.
static void pack_b_columns(real *out, int64_t k, int64_t n, matrix b, int64_t first, int64_t cols)
{
    const int64_t width = round_up(n, GEMM_NR);
    for (int64_t p = 0; p < k; p += GEMM_KC) {
        const int64_t steps = least(GEMM_KC, k - p);
        pack_b_block(out + p * width + first * steps, steps, cols, gemm_from(b, p, first));
    }
}

packed_b gemm_pack_b(void *out, int64_t k, int64_t n, matrix b)
{
    pack_b_columns(out, k, n, b, 0, n);
    return (packed_b){out, k, n};
}

// The register kernel: one tile of C from panels of `rows` rows and GEMM_NR columns; rows and
// columns beyond m and n are dropped. Inlined for each number of rows.
static inline __attribute__((always_inline)) void
tile_of(int rows, int64_t k, const real *restrict a, const real *restrict b, real *restrict c,
        int64_t ldc, int64_t m, int64_t n, bool add)
{
    vec sum[GEMM_MR][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            sum[r][v] = (vec){0};
    for (int64_t p = 0; p < k; p++, a += rows, b += GEMM_NR) {
        const vec b0 = vec_load(b);
        const vec b1 = vec_load(b + VL);
        for (int r = 0; r < rows; r++) {
            sum[r][0] = vec_fma(vec_set(a[r]), b0, sum[r][0]);
            sum[r][1] = vec_fma(vec_set(a[r]), b1, sum[r][1]);
        }
    }
    if (m == rows && n == GEMM_NR) {
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < NV; v++) {
                real *at = c + r * ldc + v * VL;
                vec_store(at, add ? vec_load(at) + sum[r][v] : sum[r][v]);
            }
        return;
    }
    real edge[GEMM_MR * GEMM_NR];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            vec_store(edge + r * GEMM_NR + v * VL, sum[r][v]);
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = 0; j < n; j++)
            c[r * ldc + j] = add ? c[r * ldc + j] + edge[r * GEMM_NR + j] : edge[r * GEMM_NR + j];
}

static void tile(int64_t k, const real *a, const real *b, real *c, int64_t ldc, int64_t m,
                 int64_t n, bool add)
{
    switch (panel_rows(m)) {
    case 1:
        tile_of(1, k, a, b, c, ldc, m, n, add);
        break;
    case 2:
        tile_of(2, k, a, b, c, ldc, m, n, add);
        break;
#if MM_VECTOR_BYTES > 16 || defined(__aarch64__)
    case 4:
        tile_of(4, k, a, b, c, ldc, m, n, add);
        break;
#endif
#if MM_VECTOR_BYTES == 64
    case 8:
        tile_of(8, k, a, b, c, ldc, m, n, add);
        break;
#endif
    default:
        tile_of(GEMM_MR, k, a, b, c, ldc, m, n, add);
    }
}

// All register tiles of packed A (m,k) times packed B panels (k,n). One A panel stays in the
// first-level cache while the B panels pass by.
static void tiles(int64_t m, int64_t n, int64_t k, const real *a, const real *b, real *c,
                  int64_t ldc, bool add)
{
    for (int64_t i = 0; i < m; i += GEMM_MR)
        for (int64_t j = 0; j < n; j += GEMM_NR)
            tile(k, a + i * k, b + j * k, c + i * ldc + j, ldc, least(GEMM_MR, m - i),
                 least(GEMM_NR, n - j), add);
}

// Where the sums of a block of c are kept while they grow: c itself, or scratch that is rounded
// into c at the end.
typedef struct sums {
    real *data;
    int64_t stride;
    bool add; /* the first terms are added to what is there */
} sums;

static sums sums_begin(real *scratch, int64_t m, int64_t n, int64_t k, target c)
{
    sums out = {c.data, c.stride, c.add};
#if MM_KERNEL_BF16
    if (!c.is_real) {
        MM_ASSERT(m <= GEMM_MC && n <= GEMM_NC);
        out = (sums){scratch, GEMM_NC, c.add};
        for (int64_t i = 0; c.add && i < m; i++)
            for (int64_t j = 0; j < n; j += VL)
                vec_store_n(scratch + i * GEMM_NC + j,
                            act_load_n((const act *)c.data + i * c.stride + j, n - j), n - j);
    }
#else
    (void)scratch;
#endif
    if (k > 0 || c.add) return out;
    for (int64_t i = 0; i < m; i++) // a sum without terms
        memset(out.data + i * out.stride, 0, (size_t)n * sizeof(real));
    return out;
}

static void sums_end(const sums *done, int64_t m, int64_t n, target c)
{
#if MM_KERNEL_BF16
    if (c.is_real) return;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j += VL)
            act_store_n((act *)c.data + i * c.stride + j,
                        vec_load_n(done->data + i * done->stride + j, n - j, 0), n - j);
#else
    (void)done;
    (void)m;
    (void)n;
    (void)c;
#endif
}

void gemm_packed(void *scratch, int64_t m, int64_t n, int64_t k, matrix a, const packed_b *b,
                 target c)
{
    MM_ASSERT(k <= b->k && n <= b->n);
    const int64_t width = round_up(b->n, GEMM_NR);
    real *packed_a = scratch;
    for (int64_t i = 0; i < m; i += GEMM_MC) {
        const int64_t rows = least(GEMM_MC, m - i);
        const target c_rows = gemm_at(c, i, 0);
        const sums sum = sums_begin(packed_a + PACKED_A_COUNT, rows, n, k, c_rows);
        for (int64_t p = 0; p < k; p += GEMM_KC) {
            const int64_t packed_k = least(GEMM_KC, b->k - p);
            const int64_t used_k = least(GEMM_KC, k - p);
            pack_a(packed_a, rows, used_k, gemm_from(a, i, p));
            for (int64_t r = 0; r < rows; r += GEMM_MR)
                for (int64_t j = 0; j < n; j += GEMM_NR)
                    tile(used_k, packed_a + r * used_k,
                         (const real *)b->data + p * width + j * packed_k,
                         sum.data + r * sum.stride + j, sum.stride, least(GEMM_MR, rows - r),
                         least(GEMM_NR, n - j), sum.add || p > 0);
        }
        sums_end(&sum, rows, n, c_rows);
    }
}

typedef struct gemm_job {
    const mm_workspace *work;
    int64_t m, n, k;
    int64_t item_m; // rows of one item, a multiple of GEMM_MR
    int64_t item_n; // columns of one item, a multiple of GEMM_NR
    int64_t n_across;
    matrix a, b;
    const packed_b *ready; // NULL: b is packed on the way
    target c;
} gemm_job;

static void gemm_item(void *context, int64_t item, int32_t thread)
{
    const gemm_job *job = context;
    const int64_t i = item / job->n_across * job->item_m;
    const int64_t j = item % job->n_across * job->item_n;
    const int64_t rows = least(job->item_m, job->m - i);
    const int64_t cols = least(job->item_n, job->n - j);
    real *packed_a = (real *)(void *)(job->work->thread + (size_t)thread * job->work->thread_bytes);
    real *packed = packed_a + PACKED_A_COUNT + SUM_COUNT;
    const target c = gemm_at(job->c, i, j);
    const sums sum = sums_begin(packed_a + PACKED_A_COUNT, rows, cols, job->k, c);
    for (int64_t p = 0; p < job->k; p += GEMM_KC) {
        const int64_t k = least(GEMM_KC, job->k - p);
        const real *panels = packed;
        if (job->ready) {
            panels = (const real *)job->ready->data + p * round_up(job->n, GEMM_NR) + j * k;
        } else {
            pack_b_block(packed, k, cols, gemm_from(job->b, p, j));
        }
        pack_a(packed_a, rows, k, gemm_from(job->a, i, p));
        tiles(rows, cols, k, packed_a, panels, sum.data, sum.stride, sum.add || p > 0);
    }
    sums_end(&sum, rows, cols, c);
}

static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Items as large as the cache takes, unless that leaves threads without work. Sums do not depend on
// this: every element of c has the same terms in the same order in any tile.
static void choose_items(gemm_job *job)
{
    enum { ITEMS_PER_THREAD = 4, LEAST_M = GEMM_MC / 4, LEAST_N = GEMM_NC / 4 };
    const int64_t wanted = (int64_t)ITEMS_PER_THREAD * mm_pool_threads(job->work->pool);
    job->item_m = GEMM_MC;
    job->item_n = GEMM_NC;
    while (pieces(job->m, job->item_m) * pieces(job->n, job->item_n) < wanted) {
        if (job->item_n > LEAST_N && job->item_n >= job->item_m) {
            job->item_n /= 2;
        } else if (job->item_m > LEAST_M) {
            job->item_m /= 2;
        } else {
            break;
        }
    }
    job->n_across = pieces(job->n, job->item_n);
}

static void run(gemm_job *job)
{
    MM_ASSERT(job->work->thread_bytes >= op_gemm_need().thread_bytes);
    choose_items(job);
    mm_pool_run(job->work->pool, pieces(job->m, job->item_m) * job->n_across, gemm_item, job);
}

void op_gemm(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b,
             target c)
{
#if MM_KERNEL_BLAS
    if (gemm_blas(work, m, n, k, a, b, c)) return;
#endif
    run(&(gemm_job){.work = work, .m = m, .n = n, .k = k, .a = a, .b = b, .c = c});
}

void op_gemm_weights(const mm_workspace *work, int64_t m, matrix a, const packed_b *b, target c)
{
    run(&(gemm_job){.work = work, .m = m, .n = b->n, .k = b->k, .a = a, .ready = b, .c = c});
}

typedef struct pack_job {
    real *out;
    int64_t k, n;
    matrix b;
} pack_job;

static void pack_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const pack_job *job = context;
    const int64_t first = item * GEMM_NR;
    pack_b_columns(job->out, job->k, job->n, job->b, first, least(GEMM_NR, job->n - first));
}

packed_b op_gemm_pack(const mm_workspace *work, void *out, int64_t k, int64_t n, matrix b)
{
    pack_job job = {out, k, n, b};
    mm_pool_run(work->pool, pieces(n, GEMM_NR), pack_item, &job);
    return (packed_b){out, k, n};
}

mm_op_need op_gemm_need(void)
{
    return (mm_op_need){.thread_bytes =
                            sizeof(real) * (PACKED_A_COUNT + SUM_COUNT + PACKED_B_COUNT)};
}

#endif
