/* The matrix product of every build this processor runs, against a plain triple loop in double. */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#include <math.h>

enum { MAX_BACKENDS = 16, GAP = 3 };

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

static void fill(size_t bytes, void *data, int64_t n, uint64_t seed)
{
    mm_rng rng;
    mm_rng_init(&rng, seed, MM_RNG_TEST, 0);
    for (int64_t i = 0; i < n; i++) {
        const double value = mm_rng_uniform(&rng) * 2 - 1;
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
}

typedef struct gemm_shape {
    int64_t m, n, k;
} gemm_shape;

static const gemm_shape SHAPES[] = {
    {1, 1, 1},    {1, 1, 0},     {3, 5, 7},      {12, 32, 256},  {13, 33, 257}, {11, 31, 255},
    {1, 700, 64}, {192, 512, 9}, {193, 513, 10}, {200, 40, 600}, {7, 1, 1000},  {2, 530, 33},
};

typedef struct gemm_case {
    const mm_backend *backend;
    gemm_shape shape;
    bool a_transposed;
    bool b_transposed;
    bool add;
} gemm_case;

static mm_matrix matrix_of(const void *data, int64_t rows, int64_t cols, bool transposed)
{
    return transposed ? (mm_matrix){data, 1, rows + GAP, false}
                      : (mm_matrix){data, cols + GAP, 1, false};
}

static int64_t room(int64_t rows, int64_t cols) { return (rows + GAP) * (cols + GAP) + 1; }

// Runs the product on `threads` threads into c, which starts with the contents of `before`.
static void run(const gemm_case *test, const void *a, const void *b, void *c, int32_t threads)
{
    mm_pool *pool = NULL;
    CHECK_OK(mm_pool_new(&pool, threads, failure));
    mm_workspace work = {.pool = pool, .thread_bytes = test->backend->gemm_need().thread_bytes};
    work.thread = mm_alloc_aligned(work.thread_bytes * (size_t)threads);
    assert_non_null(work.thread);
    const gemm_shape s = test->shape;
    test->backend->gemm(&work, s.m, s.n, s.k, matrix_of(a, s.m, s.k, test->a_transposed),
                        matrix_of(b, s.k, s.n, test->b_transposed),
                        (mm_target){c, s.n + GAP, true, test->add});
    mm_free(work.thread);
    mm_pool_free(pool);
}

static void check_values(const gemm_case *test, const void *a, const void *b, const void *before,
                         const void *c)
{
    const gemm_shape s = test->shape;
    const mm_backend *backend = test->backend;
    const mm_matrix left = matrix_of(a, s.m, s.k, test->a_transposed);
    const mm_matrix right = matrix_of(b, s.k, s.n, test->b_transposed);
    const double unit = backend->dtype == MM_F64 ? 0x1p-52 : 0x1p-23;
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n + GAP; j++) {
            const int64_t at = i * (s.n + GAP) + j;
            double sum = test->add || j >= s.n ? get(backend->real_bytes, before, at) : 0;
            double size = fabs(sum);
            for (int64_t p = 0; p < s.k && j < s.n; p++) {
                const double term =
                    get(backend->act_bytes, a, i * left.row_stride + p * left.col_stride) *
                    get(backend->act_bytes, b, p * right.row_stride + j * right.col_stride);
                sum += term;
                size += fabs(term);
            }
            // k roundings of sums up to `size` add up like a random walk; values beyond n stay
            // untouched.
            const double limit = j < s.n ? unit * (1 + sqrt((double)s.k)) * size : 0;
            if (!(fabs(get(backend->real_bytes, c, at) - sum) <= limit))
                fail_msg("%s %lldx%lldx%lld a%d b%d add%d: c[%lld,%lld] is %.9g, expected %.9g",
                         backend->isa, (long long)s.m, (long long)s.n, (long long)s.k,
                         test->a_transposed, test->b_transposed, test->add, (long long)i,
                         (long long)j, get(backend->real_bytes, c, at), sum);
        }
    }
}

static void check_case(const gemm_case *test)
{
    const gemm_shape s = test->shape;
    const size_t bytes = test->backend->act_bytes;
    const size_t real_bytes = test->backend->real_bytes;
    const size_t c_bytes = (size_t)(s.m * (s.n + GAP)) * real_bytes;
    void *a = mm_alloc((size_t)room(s.m, s.k) * bytes);
    void *b = mm_alloc((size_t)room(s.k, s.n) * bytes);
    char *before = mm_alloc(c_bytes);
    char *c = mm_alloc(c_bytes);
    char *again = mm_alloc(c_bytes);
    assert_true(a && b && before && c && again);
    fill(bytes, a, room(s.m, s.k), 1);
    fill(bytes, b, room(s.k, s.n), 2);
    fill(real_bytes, before, s.m * (s.n + GAP), 3);
    memcpy(c, before, c_bytes);
    run(test, a, b, c, 1);
    check_values(test, a, b, before, c);
    for (int32_t threads = 2; threads <= 3; threads++) {
        memcpy(again, before, c_bytes);
        run(test, a, b, again, threads);
        assert_memory_equal(again, c, c_bytes);
    }
    mm_free(again);
    mm_free(c);
    mm_free(before);
    mm_free(b);
    mm_free(a);
}

static void test_products_match_a_triple_loop(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = mm_backends(backends, MAX_BACKENDS);
    for (int32_t i = 0; i < n; i++)
        for (size_t shape = 0; shape < sizeof SHAPES / sizeof SHAPES[0]; shape++)
            for (int bits = 0; bits < 8; bits++)
                check_case(&(gemm_case){backends[i], SHAPES[shape], bits & 1, bits & 2, bits & 4});
}

static void test_not_a_number_reaches_the_result(void **state)
{
    (void)state;
    const mm_backend *backend = mm_backend_of(MM_F32);
    float a[4] = {1, NAN, 0, 1};
    float b[4] = {1, 0, 0, 1};
    float c[4];
    mm_workspace work = {.thread_bytes = backend->gemm_need().thread_bytes};
    work.thread = mm_alloc_aligned(work.thread_bytes);
    assert_non_null(work.thread);
    backend->gemm(&work, 2, 2, 2, (mm_matrix){a, 2, 1, true}, (mm_matrix){b, 2, 1, true},
                  (mm_target){c, 2, true, false});
    assert_true(isnan(c[0]) && isnan(c[1]));
    assert_true(c[2] == 0 && c[3] == 1);
    mm_free(work.thread);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_match_a_triple_loop),
        cmocka_unit_test(test_not_a_number_reaches_the_result),
    };
    return cmocka_run_group_tests_name("nn/gemm", tests, NULL, NULL);
}
