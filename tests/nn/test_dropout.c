/* The masks of dropout are the numbers of mm_philox, in every build: runs of one seed drop the same
 * values wherever they go on. */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

enum { MAX_BACKENDS = 16, ROWS = 70, MAX_COLUMNS = 523 };

typedef struct draw {
    double dropout;
    uint64_t seed;
    uint64_t micro_step;
    uint32_t site;
    int64_t columns;
} draw;

static const draw DRAWS[] = {
    {0.1, 1, 1, 0, 1},
    {0.5, UINT64_MAX, 1ULL << 40 | 3, 17, 64},
    {0.25, 0x0123456789abcdefULL, UINT32_MAX, 65535, MAX_COLUMNS},
    {0.999999, 0xffffffff00000000ULL, 2, 3, 130},
    {0, 9, 2, 3, 31},
};
enum { N_DRAWS = sizeof DRAWS / sizeof DRAWS[0] };

// The residual stream is in `real`, so that its factors are seen as they are.
static double value_of(const mm_backend *backend, const void *data, int64_t i)
{
    return backend->real_bytes == sizeof(double) ? ((const double *)data)[i]
                                                 : (double)((const float *)data)[i];
}

static void check_draw(const mm_backend *backend, const draw *d)
{
    const mm_op_attr attr = {.n_in = d->columns,
                             .n_out = d->columns,
                             .is_real = true,
                             .dropout = d->dropout,
                             .site = d->site};
    const mm_batch batch = {.n_tokens = ROWS};
    const mm_op_need need = backend->ops[MM_OP_DROPOUT].need(&attr, ROWS);
    const mm_pass pass = {.batch = &batch,
                          .dropout_on = true,
                          .seed = d->seed,
                          .micro_step = d->micro_step,
                          .work = {.thread = mm_alloc_aligned(need.thread_bytes + 64),
                                   .thread_bytes = need.thread_bytes}};
    const int64_t count = ROWS * d->columns;
    void *ones = mm_alloc_aligned((size_t)count * backend->real_bytes);
    void *factors = mm_alloc_aligned((size_t)count * backend->real_bytes);
    assert_true(pass.work.thread && ones && factors);
    for (int64_t i = 0; i < count; i++) {
        if (backend->real_bytes == sizeof(double)) {
            ((double *)ones)[i] = 1;
        } else {
            ((float *)ones)[i] = 1;
        }
    }
    const mm_op_args args = {.pass = &pass, .attr = &attr, .in = {ones}, .out = {factors}};
    backend->ops[MM_OP_DROPOUT].forward(&args);
    const double kept = 1.0 / (1.0 - d->dropout);
    for (int64_t t = 0; t < ROWS; t++)
        for (int64_t c = 0; c < d->columns; c++) {
            uint32_t bits[4];
            const uint64_t element = (uint64_t)d->site << 48 | (uint64_t)t << 20 | (uint64_t)c / 4;
            mm_philox(d->seed, MM_RNG_DROPOUT, d->micro_step, element, bits);
            double expected = bits[c % 4] < d->dropout * 0x1p32 ? 0 : kept;
            if (backend->real_bytes == sizeof(float)) expected = (double)(float)expected;
            if (value_of(backend, factors, t * d->columns + c) != expected)
                fail_msg("%s: row %d, column %d of %d", backend->isa, (int)t, (int)c,
                         (int)d->columns);
        }
    mm_free(factors);
    mm_free(ones);
    mm_free(pass.work.thread);
}

static void test_masks_are_those_of_the_generator(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = mm_backends(backends, MAX_BACKENDS);
    for (int32_t i = 0; i < n; i++)
        for (int d = 0; d < N_DRAWS; d++)
            check_draw(backends[i], &DRAWS[d]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks_are_those_of_the_generator)};
    return cmocka_run_group_tests_name("nn/dropout", tests, NULL, NULL);
}
