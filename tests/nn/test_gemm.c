/* The matrix product of every build this processor runs, and of the build for matrix tiles with the
 * tiles emulated, against a plain triple loop in double. All ways to the same product give the same
 * bits: any number of threads, B packed before or on the way, within an operation or over the pool.
 */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#include <math.h>

enum { MAX_BACKENDS = 16, GAP = 3, MORE_K = 5, MORE_N = 40 };

static float float_of(uint16_t bfloat)
{
    const uint32_t bits = (uint32_t)bfloat << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Element i of values of `bytes` each: bfloat16, float or double.
static double get(size_t bytes, const void *data, int64_t i)
{
    if (bytes == sizeof(uint16_t)) return (double)float_of(((const uint16_t *)data)[i]);
    return bytes == sizeof(double) ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static void put(size_t bytes, void *data, int64_t i, double value)
{
    if (bytes == sizeof(uint16_t)) {
        const float rounded = (float)value;
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    } else if (bytes == sizeof(double)) {
        ((double *)data)[i] = value;
    } else {
        ((float *)data)[i] = (float)value;
    }
}

static void fill(size_t bytes, void *data, int64_t n, uint64_t seed)
{
    mm_rng rng;
    mm_rng_init(&rng, seed, MM_RNG_TEST, 0);
    for (int64_t i = 0; i < n; i++)
        put(bytes, data, i, mm_rng_uniform(&rng) * 2 - 1);
}

/* What gemm.h declares within a build. */
typedef struct packed_b {
    const void *data;
    int64_t k;
    int64_t n;
} packed_b;

typedef struct matrix_kernel {
    const mm_backend *backend;
    size_t (*packed_b_bytes)(int64_t k, int64_t n);
    size_t (*packed_a_bytes)(void);
    packed_b (*pack_b)(void *out, int64_t k, int64_t n, mm_matrix b);
    void (*packed)(void *scratch, int64_t m, int64_t n, int64_t k, mm_matrix a, const packed_b *b,
                   mm_target c);
    packed_b (*pack)(const mm_workspace *work, void *out, int64_t k, int64_t n, mm_matrix b);
    void (*weights)(const mm_workspace *work, int64_t m, mm_matrix a, const packed_b *b,
                    mm_target c);
    bool rounds_reals; /* multiplies bfloat16, whatever the operands are kept in */
} matrix_kernel;

#define DECLARE(build)                                                                             \
    extern const mm_backend mm_backend_##build;                                                    \
    size_t mm_gemm_packed_b_bytes_##build(int64_t k, int64_t n);                                   \
    size_t mm_gemm_packed_a_bytes_##build(void);                                                   \
    packed_b mm_gemm_pack_b_##build(void *out, int64_t k, int64_t n, mm_matrix b);                 \
    void mm_gemm_packed_##build(void *scratch, int64_t m, int64_t n, int64_t k, mm_matrix a,       \
                                const packed_b *b, mm_target c);                                   \
    packed_b mm_gemm_pack_##build(const mm_workspace *work, void *out, int64_t k, int64_t n,       \
                                  mm_matrix b);                                                    \
    void mm_gemm_weights_##build(const mm_workspace *work, int64_t m, mm_matrix a,                 \
                                 const packed_b *b, mm_target c);
#define KERNEL(build, rounds_reals)                                                                \
    {                                                                                              \
        &mm_backend_##build, mm_gemm_packed_b_bytes_##build, mm_gemm_packed_a_bytes_##build,       \
            mm_gemm_pack_b_##build, mm_gemm_packed_##build, mm_gemm_pack_##build,                  \
            mm_gemm_weights_##build, rounds_reals                                                  \
    }

DECLARE(f32_generic)
DECLARE(f64_generic)
DECLARE(bf16_generic)
DECLARE(bf16_emulated)
#if MM_KERNELS_X86
DECLARE(f32_avx2)
DECLARE(bf16_avx2)
DECLARE(f32_avx512)
DECLARE(bf16_avx512)
#endif
#if MM_KERNELS_PAIRS
DECLARE(bf16_avx512bf16)
#endif
#if MM_KERNELS_TILES
DECLARE(bf16_amx)
#endif

static const matrix_kernel KERNELS[] = {
    KERNEL(f32_generic, false),    KERNEL(f64_generic, false),
    KERNEL(bf16_generic, false),   KERNEL(bf16_emulated, true),
#if MM_KERNELS_X86
    KERNEL(f32_avx2, false),       KERNEL(bf16_avx2, false),
    KERNEL(f32_avx512, false),     KERNEL(bf16_avx512, false),
#endif
#if MM_KERNELS_PAIRS
    KERNEL(bf16_avx512bf16, true),
#endif
#if MM_KERNELS_TILES
    KERNEL(bf16_amx, true),
#endif
};
enum { KERNEL_COUNT = sizeof KERNELS / sizeof KERNELS[0] };

static bool can_run(const matrix_kernel *kernel)
{
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = mm_backends(backends, MAX_BACKENDS);
    bool found = strcmp(kernel->backend->isa, "emulated") == 0;
    for (int32_t i = 0; i < n; i++)
        found = found || backends[i] == kernel->backend;
    return found;
}

typedef struct gemm_shape {
    int64_t m, n, k;
} gemm_shape;

/* Around the sizes of register tiles, panels and the stretches into which k is cut. */
static const gemm_shape SHAPES[] = {
    {1, 1, 1},      {1, 1, 0},    {3, 5, 7},      {12, 32, 256},  {13, 33, 257},
    {11, 31, 255},  {1, 700, 64}, {192, 512, 9},  {193, 513, 10}, {200, 33, 530},
    {7, 1, 1000},   {2, 530, 33}, {16, 64, 32},   {64, 32, 512},  {33, 35, 2050},
    {130, 34, 930}, {4, 9, 6400}, {40, 33, 2800}, {17, 33, 4200},
};

typedef struct gemm_case {
    const matrix_kernel *kernel;
    gemm_shape shape;
    bool a_transposed;
    bool b_transposed;
    bool add;
    bool a_is_real;
    bool b_is_real;
    bool c_is_real;
} gemm_case;

/* Operands of one case. b has MORE_K rows and MORE_N columns more than the product takes, c has GAP
 * columns more. */
typedef struct gemm_data {
    void *a;
    void *b;
    char *before;
    char *c;
    char *again;
    size_t c_bytes;
} gemm_data;

static size_t bytes_of(const gemm_case *test, bool is_real)
{
    return is_real ? test->kernel->backend->real_bytes : test->kernel->backend->act_bytes;
}

static mm_matrix matrix_of(const void *data, int64_t rows, int64_t cols, bool transposed,
                           bool is_real)
{
    return transposed ? (mm_matrix){data, 1, rows + GAP, is_real}
                      : (mm_matrix){data, cols + GAP, 1, is_real};
}

static mm_matrix left_of(const gemm_case *test, const gemm_data *data)
{
    return matrix_of(data->a, test->shape.m, test->shape.k, test->a_transposed, test->a_is_real);
}

static mm_matrix right_of(const gemm_case *test, const gemm_data *data)
{
    return matrix_of(data->b, test->shape.k + MORE_K, test->shape.n + MORE_N, test->b_transposed,
                     test->b_is_real);
}

static int64_t room(int64_t rows, int64_t cols) { return (rows + GAP) * (cols + GAP) + 1; }

static mm_target target_of(const gemm_case *test, void *c)
{
    return (mm_target){c, test->shape.n + GAP, test->c_is_real, test->add};
}

// Packs both operands on the way, on `threads` threads.
static void run_plain(const gemm_case *test, const gemm_data *data, const mm_workspace *work,
                      void *c)
{
    const gemm_shape s = test->shape;
    test->kernel->backend->gemm(work, s.m, s.n, s.k, left_of(test, data), right_of(test, data),
                                target_of(test, c));
}

// With a B packed before.
static void run_weights(const gemm_case *test, const gemm_data *data, const mm_workspace *work,
                        void *c)
{
    const gemm_shape s = test->shape;
    void *panels = mm_alloc_aligned(test->kernel->packed_b_bytes(s.k, s.n) + 1);
    assert_non_null(panels);
    const packed_b b = test->kernel->pack(work, panels, s.k, s.n, right_of(test, data));
    test->kernel->weights(work, s.m, left_of(test, data), &b, target_of(test, c));
    mm_free(panels);
}

// With the corner of a larger B packed before.
static void run_packed(const gemm_case *test, const gemm_data *data, const mm_workspace *work,
                       void *c)
{
    (void)work;
    const gemm_shape s = test->shape;
    const matrix_kernel *kernel = test->kernel;
    void *scratch = mm_alloc_aligned(kernel->packed_a_bytes());
    void *panels = mm_alloc_aligned(kernel->packed_b_bytes(s.k + MORE_K, s.n + MORE_N));
    assert_true(scratch && panels);
    const packed_b b = kernel->pack_b(panels, s.k + MORE_K, s.n + MORE_N, right_of(test, data));
    kernel->packed(scratch, s.m, s.n, s.k, left_of(test, data), &b, target_of(test, c));
    mm_free(panels);
    mm_free(scratch);
}

typedef void (*run_fn)(const gemm_case *test, const gemm_data *data, const mm_workspace *work,
                       void *c);

static void run(run_fn fn, const gemm_case *test, const gemm_data *data, char *c, int32_t threads)
{
    mm_pool *pool = NULL;
    CHECK_OK(mm_pool_new(&pool, threads, failure));
    mm_workspace work = {.pool = pool,
                         .thread_bytes = test->kernel->backend->gemm_need().thread_bytes};
    work.thread = mm_alloc_aligned(work.thread_bytes * (size_t)threads);
    assert_non_null(work.thread);
    memcpy(c, data->before, data->c_bytes);
    fn(test, data, &work, c);
    mm_free(work.thread);
    mm_pool_free(pool);
}

static float round_to_bfloat(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return float_of((uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
}

// The elements of an operand, as the kernel takes them.
static double *operand(const gemm_case *test, mm_matrix from, int64_t count)
{
    double *values = mm_alloc((size_t)count * sizeof *values);
    assert_non_null(values);
    const size_t bytes = bytes_of(test, from.is_real);
    const bool rounds = test->kernel->rounds_reals && from.is_real;
    for (int64_t i = 0; i < count; i++) {
        const double value = get(bytes, from.data, i);
        values[i] = rounds ? (double)round_to_bfloat((float)value) : value;
    }
    return values;
}

static int64_t a_count(gemm_shape s) { return room(s.m, s.k); }
static int64_t b_count(gemm_shape s) { return room(s.k + MORE_K, s.n + MORE_N); }
static int64_t c_count(gemm_shape s) { return s.m * (s.n + GAP); }

static void check_values(const gemm_case *test, const gemm_data *data)
{
    const gemm_shape s = test->shape;
    const mm_backend *backend = test->kernel->backend;
    const mm_matrix left = left_of(test, data);
    const mm_matrix right = right_of(test, data);
    const size_t bytes = bytes_of(test, test->c_is_real);
    const double unit = backend->dtype == MM_F64 ? 0x1p-52 : 0x1p-23;
    const double rounding = bytes == sizeof(uint16_t) ? 0x1p-8 : 0;
    double *a = operand(test, left, a_count(s));
    double *b = operand(test, right, b_count(s));
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n + GAP; j++) {
            const int64_t at = i * (s.n + GAP) + j;
            double sum = test->add || j >= s.n ? get(bytes, data->before, at) : 0;
            double size = fabs(sum);
            for (int64_t p = 0; p < s.k && j < s.n; p++) {
                const double term = a[i * left.row_stride + p * left.col_stride] *
                                    b[p * right.row_stride + j * right.col_stride];
                sum += term;
                size += fabs(term);
            }
            // k roundings of sums up to `size` add up like a random walk; values beyond n stay
            // untouched.
            const double limit =
                j < s.n ? unit * (1 + sqrt((double)s.k)) * size + rounding * fabs(sum) : 0;
            if (!(fabs(get(bytes, data->c, at) - sum) <= limit))
                fail_msg("%s %lldx%lldx%lld a%d%d b%d%d c%d%d: c[%lld,%lld] is %.9g, not %.9g",
                         backend->isa, (long long)s.m, (long long)s.n, (long long)s.k,
                         test->a_transposed, test->a_is_real, test->b_transposed, test->b_is_real,
                         test->add, test->c_is_real, (long long)i, (long long)j,
                         get(bytes, data->c, at), sum);
        }
    }
    mm_free(b);
    mm_free(a);
}

static void check_case(const gemm_case *test)
{
    const gemm_shape s = test->shape;
    const bool fits_packed = test->c_is_real || s.n <= 512; // GEMM_MAX_ACT_COLUMNS
    gemm_data data = {.c_bytes = (size_t)c_count(s) * bytes_of(test, test->c_is_real)};
    data.a = mm_alloc((size_t)a_count(s) * bytes_of(test, test->a_is_real));
    data.b = mm_alloc((size_t)b_count(s) * bytes_of(test, test->b_is_real));
    data.before = mm_alloc(data.c_bytes);
    data.c = mm_alloc(data.c_bytes);
    data.again = mm_alloc(data.c_bytes);
    assert_true(data.a && data.b && data.before && data.c && data.again);
    fill(bytes_of(test, test->a_is_real), data.a, a_count(s), 1);
    fill(bytes_of(test, test->b_is_real), data.b, b_count(s), 2);
    fill(bytes_of(test, test->c_is_real), data.before, c_count(s), 3);
    run(run_plain, test, &data, data.c, 1);
    check_values(test, &data);
    for (int32_t threads = 2; threads <= 3; threads++) {
        run(run_plain, test, &data, data.again, threads);
        assert_memory_equal(data.again, data.c, data.c_bytes);
        run(run_weights, test, &data, data.again, threads);
        assert_memory_equal(data.again, data.c, data.c_bytes);
    }
    if (fits_packed) {
        run(run_packed, test, &data, data.again, 1);
        assert_memory_equal(data.again, data.c, data.c_bytes);
    }
    mm_free(data.again);
    mm_free(data.c);
    mm_free(data.before);
    mm_free(data.b);
    mm_free(data.a);
}

static void test_products_match_a_triple_loop(void **state)
{
    (void)state;
    for (int i = 0; i < KERNEL_COUNT; i++) {
        if (!can_run(&KERNELS[i])) continue;
        for (unsigned shape = 0; shape < sizeof SHAPES / sizeof SHAPES[0]; shape++)
            for (unsigned bits = 0; bits < 8; bits++) {
                // Each shape meets every type once, the shapes together every pair of the two.
                const unsigned types = (bits + shape) % 8 * 3;
                check_case(&(gemm_case){
                    .kernel = &KERNELS[i],
                    .shape = SHAPES[shape],
                    .a_transposed = (bits & 1) != 0,
                    .b_transposed = (bits & 2) != 0,
                    .add = (bits & 4) != 0,
                    .a_is_real = (types & 1) != 0,
                    .b_is_real = (types & 2) != 0,
                    .c_is_real = (types & 4) != 0,
                });
            }
    }
}

static void test_not_a_number_reaches_the_result(void **state)
{
    (void)state;
    for (int i = 0; i < KERNEL_COUNT; i++) {
        if (!can_run(&KERNELS[i])) continue;
        const mm_backend *backend = KERNELS[i].backend;
        double values[8] = {0}; // room for four values of any type
        float c[4];
        double c64[4];
        mm_workspace work = {.thread_bytes = backend->gemm_need().thread_bytes};
        work.thread = mm_alloc_aligned(work.thread_bytes);
        assert_non_null(work.thread);
        void *a = values;
        void *b = values + 4;
        const double left[4] = {1, (double)NAN, 0, 1};
        const double right[4] = {1, 0, 0, 1};
        for (int e = 0; e < 4; e++) {
            put(backend->act_bytes, a, e, left[e]);
            put(backend->act_bytes, b, e, right[e]);
        }
        void *out = backend->real_bytes == sizeof(double) ? (void *)c64 : (void *)c;
        backend->gemm(&work, 2, 2, 2, (mm_matrix){a, 2, 1, false}, (mm_matrix){b, 2, 1, false},
                      (mm_target){out, 2, true, false});
        assert_true(isnan(get(backend->real_bytes, out, 0)));
        assert_true(isnan(get(backend->real_bytes, out, 1)));
        assert_true(get(backend->real_bytes, out, 2) == 0);
        assert_true(get(backend->real_bytes, out, 3) == 1);
        mm_free(work.thread);
    }
}

static void test_peak_counts_operations(void **state)
{
    (void)state;
    for (int i = 0; i < KERNEL_COUNT; i++) {
        if (!can_run(&KERNELS[i])) continue;
        const double one = KERNELS[i].backend->peak(1);
        assert_true(one > 0 && KERNELS[i].backend->peak(3) == 3 * one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_match_a_triple_loop),
        cmocka_unit_test(test_not_a_number_reaches_the_result),
        cmocka_unit_test(test_peak_counts_operations),
    };
    return cmocka_run_group_tests_name("nn/gemm", tests, NULL, NULL);
}
