/* Matrix product: packing, register kernel, tiles. See gemm.h. */
#include "core/nn/kernels/gemm.h"

_Static_assert(GEMM_MC / 4 % GEMM_MR == 0 && GEMM_NC / 4 % GEMM_NR == 0,
               "the least items are whole panels");

enum { NV = GEMM_NR / VL };

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

// Panels of a width that is not a whole number of vectors are written with vectors that reach into
// the next step of k, which is written later; after the last step they reach up to VL elements
// beyond.
_Static_assert((int)GEMM_MR % (int)VL == 0 || (int)GEMM_MR < (int)VL,
               "a panel is whole vectors or less than one");

// The first steps of a panel whose rows lie along k, VL x VL values at a time; returns the steps
// done.
static inline int64_t pack_along_k(real *out, int64_t width, int64_t n_rows, int64_t k,
                                   const real *data, int64_t row_stride)
{
    int64_t p = 0;
    for (; p + VL <= k; p += VL) {
        for (int64_t first = 0; first < width; first += VL) {
            vec rows[VL];
            for (int64_t r = 0; r < VL; r++)
                rows[r] =
                    first + r < n_rows ? vec_load(data + (first + r) * row_stride + p) : (vec){0};
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
                                                             const real *restrict data,
                                                             int64_t row_stride, int64_t k_stride)
{
    if (row_stride == 1 && n_rows == width) {
        for (int64_t p = 0; p < k; p++)
            memcpy(out + p * width, data + p * k_stride, (size_t)width * sizeof(real));
        return;
    }
    for (int64_t p = k_stride == 1 ? pack_along_k(out, width, n_rows, k, data, row_stride) : 0;
         p < k; p++) {
        for (int64_t r = 0; r < n_rows; r++)
            out[p * width + r] = data[r * row_stride + p * k_stride];
        for (int64_t r = n_rows; r < width; r++)
            out[p * width + r] = 0;
    }
}

static void pack_a(real *out, int64_t m, int64_t k, matrix a)
{
    for (int64_t i = 0; i < m; i += GEMM_MR, out += GEMM_MR * k)
        pack_panel(out, GEMM_MR, least(GEMM_MR, m - i), k, a.data + i * a.row_stride, a.row_stride,
                   a.col_stride);
}

static void pack_b_block(real *out, int64_t k, int64_t n, matrix b)
{
    for (int64_t j = 0; j < n; j += GEMM_NR, out += GEMM_NR * k)
        pack_panel(out, GEMM_NR, least(GEMM_NR, n - j), k, b.data + j * b.col_stride, b.col_stride,
                   b.row_stride);
}

packed_b gemm_pack_b(real *out, int64_t k, int64_t n, matrix b)
{
    const int64_t width = round_up(n, GEMM_NR);
    for (int64_t p = 0; p < k; p += GEMM_KC) {
        const matrix block = {b.data + p * b.row_stride, b.row_stride, b.col_stride};
        pack_b_block(out + p * width, least(GEMM_KC, k - p), n, block);
    }
    return (packed_b){out, k, n};
}

// The register kernel: one GEMM_MR x GEMM_NR tile of C; rows and columns beyond m and n are
// dropped.
static void tile(int64_t k, const real *restrict a, const real *restrict b, real *restrict c,
                 int64_t ldc, int64_t m, int64_t n, bool add)
{
    vec sum[GEMM_MR][NV];
    for (int r = 0; r < GEMM_MR; r++)
        for (int v = 0; v < NV; v++)
            sum[r][v] = (vec){0};
    for (int64_t p = 0; p < k; p++, a += GEMM_MR, b += GEMM_NR) {
        const vec b0 = vec_load(b);
        const vec b1 = vec_load(b + VL);
        for (int r = 0; r < GEMM_MR; r++) {
            sum[r][0] += a[r] * b0;
            sum[r][1] += a[r] * b1;
        }
    }
    if (m == GEMM_MR && n == GEMM_NR) {
        for (int r = 0; r < GEMM_MR; r++)
            for (int v = 0; v < NV; v++) {
                real *at = c + r * ldc + v * VL;
                vec_store(at, add ? vec_load(at) + sum[r][v] : sum[r][v]);
            }
        return;
    }
    real edge[GEMM_MR * GEMM_NR];
    for (int r = 0; r < GEMM_MR; r++)
        for (int v = 0; v < NV; v++)
            vec_store(edge + r * GEMM_NR + v * VL, sum[r][v]);
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = 0; j < n; j++)
            c[r * ldc + j] = add ? c[r * ldc + j] + edge[r * GEMM_NR + j] : edge[r * GEMM_NR + j];
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

// c = 0 for a sum without terms.
static void clear(real *c, int64_t m, int64_t n, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        memset(c + i * ldc, 0, (size_t)n * sizeof(real));
}

void gemm_packed(real *scratch, int64_t m, int64_t n, int64_t k, matrix a, const packed_b *b,
                 real *c, int64_t ldc, bool add)
{
    MM_ASSERT(k <= b->k && n <= b->n);
    if (k == 0 && !add) clear(c, m, n, ldc);
    const int64_t width = round_up(b->n, GEMM_NR);
    for (int64_t p = 0; p < k; p += GEMM_KC) {
        const int64_t packed_k = least(GEMM_KC, b->k - p);
        const int64_t used_k = least(GEMM_KC, k - p);
        for (int64_t i = 0; i < m; i += GEMM_MC) {
            const int64_t rows = least(GEMM_MC, m - i);
            const matrix block = {a.data + i * a.row_stride + p * a.col_stride, a.row_stride,
                                  a.col_stride};
            pack_a(scratch, rows, used_k, block);
            for (int64_t r = 0; r < rows; r += GEMM_MR)
                for (int64_t j = 0; j < n; j += GEMM_NR)
                    tile(used_k, scratch + r * used_k, b->data + p * width + j * packed_k,
                         c + (i + r) * ldc + j, ldc, least(GEMM_MR, rows - r),
                         least(GEMM_NR, n - j), add || p > 0);
        }
    }
}

typedef struct gemm_job {
    const mm_workspace *work;
    int64_t m, n, k;
    int64_t item_m; // rows of one item, a multiple of GEMM_MR
    int64_t item_n; // columns of one item, a multiple of GEMM_NR
    int64_t n_across;
    matrix a, b;
    real *c;
    int64_t ldc;
    bool add;
} gemm_job;

static void gemm_item(void *context, int64_t item, int32_t thread)
{
    const gemm_job *job = context;
    const int64_t i = item / job->n_across * job->item_m;
    const int64_t j = item % job->n_across * job->item_n;
    const int64_t rows = least(job->item_m, job->m - i);
    const int64_t cols = least(job->item_n, job->n - j);
    real *packed_a = (real *)(void *)(job->work->thread + (size_t)thread * job->work->thread_bytes);
    real *packed = packed_a + PACKED_A_COUNT;
    const matrix a = job->a;
    const matrix b = job->b;
    real *c = job->c + i * job->ldc + j;
    if (job->k == 0 && !job->add) clear(c, rows, cols, job->ldc);
    for (int64_t p = 0; p < job->k; p += GEMM_KC) {
        const int64_t k = least(GEMM_KC, job->k - p);
        const matrix a_block = {a.data + i * a.row_stride + p * a.col_stride, a.row_stride,
                                a.col_stride};
        const matrix b_block = {b.data + p * b.row_stride + j * b.col_stride, b.row_stride,
                                b.col_stride};
        pack_a(packed_a, rows, k, a_block);
        pack_b_block(packed, k, cols, b_block);
        tiles(rows, cols, k, packed_a, packed, c, job->ldc, job->add || p > 0);
    }
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

void op_gemm(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b, real *c,
             int64_t ldc, bool add)
{
    MM_ASSERT(work->thread_bytes >= op_gemm_need().thread_bytes);
    gemm_job job = {
        .work = work, .m = m, .n = n, .k = k, .a = a, .b = b, .c = c, .ldc = ldc, .add = add};
    choose_items(&job);
    mm_pool_run(work->pool, pieces(m, job.item_m) * job.n_across, gemm_item, &job);
}

mm_op_need op_gemm_need(void)
{
    return (mm_op_need){.thread_bytes = sizeof(real) * (PACKED_A_COUNT + PACKED_B_COUNT)};
}
