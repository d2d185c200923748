/* The matrix products of training, by every build, against a CBLAS library in double precision: the
 * sizes that a plain triple loop cannot afford. Skipped where no such library was found.
 *
 * The values are multiples of 1/128 up to 1. Every type holds them, and a float holds all sums of
 * their products below 1024, which these do not come near: whatever the order of summation, the
 * results are equal.
 */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#if MM_TEST_CBLAS

#include <cblas.h>

enum { MAX_BACKENDS = 16, THREADS = 2 };

typedef struct product {
    int64_t m, n, k;
    bool a_transposed;
    bool b_transposed;
    bool add;
} product;

/* Forward, gradient of the input and gradient of the weight; sizes are no multiples of any tile. */
static const product PRODUCTS[] = {
    {390, 769, 513, false, true, false},
    {390, 513, 769, false, false, false},
    {769, 513, 390, true, false, true},
    {530, 260, 2049, true, true, true},
};

// The same values as what a build reads, and widened.
typedef struct operand {
    void *narrow;
    double *wide;
} operand;

static operand random_operand(const mm_backend *backend, int64_t count, uint64_t seed)
{
    operand out = {mm_alloc_aligned((size_t)count * backend->act_bytes),
                   mm_alloc_aligned((size_t)count * sizeof(double))};
    assert_true(out.narrow && out.wide);
    mm_rng rng;
    mm_rng_init(&rng, seed, MM_RNG_TEST, 0);
    for (int64_t i = 0; i < count; i++) {
        const float value = (float)((int32_t)mm_rng_below(&rng, 257) - 128) / 128;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        out.wide[i] = (double)value;
        if (backend->act_bytes == sizeof(uint16_t)) {
            ((uint16_t *)out.narrow)[i] = (uint16_t)(bits >> 16);
        } else if (backend->act_bytes == sizeof(float)) {
            ((float *)out.narrow)[i] = value;
        } else {
            ((double *)out.narrow)[i] = out.wide[i];
        }
    }
    return out;
}

static void operand_free(operand *o)
{
    mm_free(o->narrow);
    mm_free(o->wide);
}

static void run_own(const mm_backend *backend, const product *p, const void *a, const void *b,
                    void *c)
{
    mm_pool *pool = NULL;
    CHECK_OK(mm_pool_new(&pool, THREADS, failure));
    mm_workspace work = {.pool = pool, .thread_bytes = backend->gemm_need().thread_bytes};
    work.thread = mm_alloc_aligned(work.thread_bytes * THREADS);
    assert_non_null(work.thread);
    const mm_matrix left =
        p->a_transposed ? (mm_matrix){a, 1, p->m, false} : (mm_matrix){a, p->k, 1, false};
    const mm_matrix right =
        p->b_transposed ? (mm_matrix){b, 1, p->k, false} : (mm_matrix){b, p->n, 1, false};
    backend->gemm(&work, p->m, p->n, p->k, left, right, (mm_target){c, p->n, true, p->add});
    mm_free(work.thread);
    mm_pool_free(pool);
}

static void run_cblas(const product *p, const double *a, const double *b, double *c)
{
    cblas_dgemm(CblasRowMajor, p->a_transposed ? CblasTrans : CblasNoTrans,
                p->b_transposed ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n, (int)p->k, 1, a,
                (int)(p->a_transposed ? p->m : p->k), b, (int)(p->b_transposed ? p->k : p->n),
                p->add ? 1 : 0, c, (int)p->n);
}

static double value_at(const mm_backend *backend, const void *c, int64_t i)
{
    return backend->real_bytes == sizeof(double) ? ((const double *)c)[i]
                                                 : (double)((const float *)c)[i];
}

static void check_product(const mm_backend *backend, const product *p)
{
    const int64_t count = p->m * p->n;
    operand a = random_operand(backend, p->m * p->k, 1);
    operand b = random_operand(backend, p->k * p->n, 2);
    char *c = mm_alloc_aligned((size_t)count * backend->real_bytes);
    double *expected = mm_alloc_aligned((size_t)count * sizeof(double));
    assert_true(c && expected);
    for (int64_t i = 0; i < count; i++) {
        expected[i] = (double)(i % 5) - 2;
        if (backend->real_bytes == sizeof(double)) {
            ((double *)(void *)c)[i] = expected[i];
        } else {
            ((float *)(void *)c)[i] = (float)expected[i];
        }
    }
    run_own(backend, p, a.narrow, b.narrow, c);
    run_cblas(p, a.wide, b.wide, expected);
    for (int64_t i = 0; i < count; i++) {
        const double got = value_at(backend, c, i);
        if (!(got == expected[i]))
            fail_msg("%s %lldx%lldx%lld a%d b%d: element %lld is %.9g, expected %.9g", backend->isa,
                     (long long)p->m, (long long)p->n, (long long)p->k, p->a_transposed,
                     p->b_transposed, (long long)i, got, expected[i]);
    }
    mm_free(expected);
    mm_free(c);
    operand_free(&b);
    operand_free(&a);
}

static void test_products_of_training_match_cblas(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = mm_backends(backends, MAX_BACKENDS);
    for (int32_t i = 0; i < n; i++)
        for (size_t p = 0; p < sizeof PRODUCTS / sizeof PRODUCTS[0]; p++)
            check_product(backends[i], &PRODUCTS[p]);
}

#else

static void test_products_of_training_match_cblas(void **state)
{
    (void)state;
    print_message("no CBLAS library: apt-get install libopenblas-dev\n");
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_training_match_cblas),
    };
    return cmocka_run_group_tests_name("nn/gemm_cblas", tests, NULL, NULL);
}
