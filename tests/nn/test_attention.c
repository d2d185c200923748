/* Attention of every build this processor runs, and of the one with matrix tiles emulated, against
 * a plain reference in double: the full square of scores, softmax, and gradients by the chain rule.
 * Segments end before, at and after the bounds of blocks. The number of threads changes no bit, nor
 * does what else is in the batch. */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#include <math.h>

enum { MAX_BACKENDS = 16, MAX_TOKENS = 1536, MAX_THREADS = 8 };

/* Matrix tiles in plain C (CMakeLists.txt), for processors without them. */
extern const mm_backend mm_backend_bf16_emulated;

static const int32_t LENGTHS[] = {1, 63, 64, 65, 130, 512, 257, 300, 0};
static const uint64_t SEED = 0x123456789abcdefULL;
static const uint64_t MICRO_STEP = 77;

typedef struct shape {
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
    double dropout;
} shape;

static const shape SHAPES[] = {{4, 2, 24, 0}, {4, 2, 24, 0.25}, {3, 1, 64, 0}, {2, 2, 7, 0.1}};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0] };

static int32_t all_builds(const mm_backend **out)
{
    const int32_t n = mm_backends(out, MAX_BACKENDS - 1);
    assert_true(n < MAX_BACKENDS);
    out[n] = &mm_backend_bf16_emulated;
    return n + 1;
}

static mm_op_attr attr_of(const shape *s)
{
    return (mm_op_attr){.n_in = (s->heads + 2 * s->kv_heads) * s->head_dim,
                        .n_out = s->heads * s->head_dim,
                        .heads = s->heads,
                        .kv_heads = s->kv_heads,
                        .head_dim = s->head_dim,
                        .dropout = s->dropout,
                        .site = 5};
}

static double get(size_t bytes, const void *data, int64_t i)
{
    if (bytes == sizeof(double)) return ((const double *)data)[i];
    if (bytes == sizeof(float)) return (double)((const float *)data)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void put(size_t bytes, void *data, int64_t i, double value)
{
    const float rounded = (float)value;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    if (bytes == sizeof(double)) {
        ((double *)data)[i] = value;
    } else if (bytes == sizeof(float)) {
        ((float *)data)[i] = rounded;
    } else {
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    }
}

static void *memory(size_t bytes)
{
    void *block = mm_alloc_aligned(bytes + 64);
    assert_non_null(block);
    memset(block, 0xff, bytes); // not a number: what is read before it is written shows
    return block;
}

// Normal numbers that bfloat16 holds exactly, so that every build gets the same.
static double *numbers(int64_t n, double scale, uint64_t stream)
{
    double *values = memory((size_t)n * sizeof(double));
    mm_rng rng;
    mm_rng_init(&rng, 21, MM_RNG_TEST, stream);
    for (int64_t i = 0; i < n; i++) {
        uint16_t kept;
        put(sizeof kept, &kept, 0, scale * mm_rng_normal(&rng));
        values[i] = get(sizeof kept, &kept, 0);
    }
    return values;
}

// The factor of (row, column) as core/nn/kernels/ops.h describes the counter.
static double factor_of(const mm_op_attr *attr, int64_t row, int64_t column)
{
    if (attr->dropout == 0) return 1;
    uint32_t bits[4];
    const uint64_t element =
        (uint64_t)attr->site << 48 | (uint64_t)row << 20 | (uint64_t)column / 4;
    mm_philox(SEED, MM_RNG_DROPOUT, MICRO_STEP, element, bits);
    return bits[column % 4] < attr->dropout * 0x1p32 ? 0 : 1 / (1 - attr->dropout);
}

typedef struct problem {
    mm_op_attr attr;
    int32_t segments[sizeof LENGTHS / sizeof LENGTHS[0]];
    int32_t n_segments;
    int64_t T;
    double *x;    /* (T, n_in) */
    double *dout; /* (T, n_out) */
    double *y;    /* (T, n_out), the reference */
    double *dx;   /* (T, n_in), the reference */
} problem;

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void add(double *out, double factor, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] += factor * from[i];
}

// One query of one head: forward and its part of every gradient.
static void reference_row(problem *p, int64_t begin, int64_t t, int64_t h)
{
    const mm_op_attr *attr = &p->attr;
    const int64_t D = attr->head_dim;
    const int64_t W = attr->n_in;
    const int64_t k_column = (attr->heads + h / (attr->heads / attr->kv_heads)) * D;
    const int64_t v_column = k_column + attr->kv_heads * D;
    const int64_t row = t * attr->heads + h;
    const double *q = p->x + t * W + h * D;
    const double *dout = p->dout + row * D;
    const double scale = 1 / sqrt((double)D);
    const int64_t n = t - begin + 1;
    double weight[MAX_TOKENS];
    double highest = -(double)INFINITY;
    double sum = 0;
    double pull = 0;
    for (int64_t j = 0; j < n; j++) {
        weight[j] = scale * dot(q, p->x + (begin + j) * W + k_column, D);
        highest = fmax(highest, weight[j]);
    }
    for (int64_t j = 0; j < n; j++)
        sum += weight[j] = exp(weight[j] - highest);
    for (int64_t j = 0; j < n; j++) {
        weight[j] /= sum;
        const double factor = factor_of(attr, row, j);
        const double *v = p->x + (begin + j) * W + v_column;
        add(p->y + row * D, weight[j] * factor, v, D);
        add(p->dx + (begin + j) * W + v_column, weight[j] * factor, dout, D);
        pull += weight[j] * factor * dot(dout, v, D);
    }
    for (int64_t j = 0; j < n; j++) {
        const double *k = p->x + (begin + j) * W + k_column;
        const double d_weight =
            factor_of(attr, row, j) * dot(dout, p->x + (begin + j) * W + v_column, D);
        const double d_score = weight[j] * (d_weight - pull) * scale;
        add(p->dx + t * W + h * D, d_score, k, D);
        add(p->dx + (begin + j) * W + k_column, d_score, q, D);
    }
}

static void problem_new(problem *p, const shape *s, double scale)
{
    *p = (problem){.attr = attr_of(s)};
    for (; LENGTHS[p->n_segments] > 0; p->n_segments++)
        p->segments[p->n_segments + 1] = p->segments[p->n_segments] + LENGTHS[p->n_segments];
    p->T = p->segments[p->n_segments];
    assert_true(p->T <= MAX_TOKENS);
    p->x = numbers(p->T * p->attr.n_in, scale, 1);
    p->dout = numbers(p->T * p->attr.n_out, 1, 2);
    p->y = mm_calloc((size_t)(p->T * p->attr.n_out), sizeof(double));
    p->dx = mm_calloc((size_t)(p->T * p->attr.n_in), sizeof(double));
    assert_true(p->y && p->dx);
    for (int32_t i = 0; i < p->n_segments; i++)
        for (int64_t t = p->segments[i]; t < p->segments[i + 1]; t++)
            for (int64_t h = 0; h < p->attr.heads; h++)
                reference_row(p, p->segments[i], t, h);
}

static void problem_drop(problem *p)
{
    mm_free(p->x);
    mm_free(p->dout);
    mm_free(p->y);
    mm_free(p->dx);
}

// What one build makes of the segments [first, first + n) of a problem.
typedef struct result {
    int64_t T;
    void *y;
    void *lse;
    void *dx;
} result;

static void *converted(const mm_backend *backend, const double *from, int64_t n)
{
    void *out = memory((size_t)n * backend->act_bytes);
    for (int64_t i = 0; i < n; i++)
        put(backend->act_bytes, out, i, from[i]);
    return out;
}

static int64_t list_blocks(const mm_batch *batch, int32_t width, mm_query_block *out)
{
    int64_t n = 0;
    for (int32_t s = 0; s < batch->n_segments; s++)
        for (int32_t t = batch->segments[s]; t < batch->segments[s + 1]; t += width) {
            const int32_t end = batch->segments[s + 1];
            out[n++] = (mm_query_block){batch->segments[s], t, end - t < width ? end : t + width};
        }
    return n;
}

static result run(const problem *p, const mm_backend *backend, int32_t first, int32_t n,
                  int32_t threads)
{
    const mm_op_attr *attr = &p->attr;
    const int64_t start = p->segments[first];
    const int64_t T = p->segments[first + n] - start;
    int32_t segments[sizeof LENGTHS / sizeof LENGTHS[0]];
    for (int32_t i = 0; i <= n; i++)
        segments[i] = p->segments[first + i] - (int32_t)start;
    const mm_batch batch = {.n_tokens = (int32_t)T, .n_segments = n, .segments = segments};
    static mm_query_block blocks[MAX_TOKENS];
    mm_pool *pool = NULL;
    CHECK_OK(mm_pool_new(&pool, threads, failure));
    const mm_op_slot *op = &backend->ops[MM_OP_ATTENTION];
    const mm_op_need need = op->need(attr, T);
    const mm_pass pass = {.batch = &batch,
                          .query_blocks = blocks,
                          .n_query_blocks = list_blocks(&batch, backend->query_block, blocks),
                          .dropout_on = attr->dropout > 0,
                          .seed = SEED,
                          .micro_step = MICRO_STEP,
                          .work = {.pool = pool,
                                   .shared = memory(need.shared_bytes),
                                   .thread = memory(need.thread_bytes * (size_t)threads),
                                   .thread_bytes = need.thread_bytes}};
    result out = {.T = T,
                  .y = memory((size_t)(T * attr->n_out) * backend->act_bytes),
                  .lse = memory((size_t)(T * attr->heads) * backend->real_bytes),
                  .dx = memory((size_t)(T * attr->n_in) * backend->act_bytes)};
    void *x = converted(backend, p->x + start * attr->n_in, T * attr->n_in);
    void *dout = converted(backend, p->dout + start * attr->n_out, T * attr->n_out);
    const mm_op_args args = {.pass = &pass,
                             .attr = attr,
                             .in = {x},
                             .out = {out.y, out.lse},
                             .d_out = dout,
                             .d_in = {out.dx}};
    op->forward(&args);
    op->backward(&args);
    mm_free(dout);
    mm_free(x);
    mm_free(pass.work.thread);
    mm_free(pass.work.shared);
    mm_pool_free(pool);
    return out;
}

static void result_drop(result *r)
{
    mm_free(r->y);
    mm_free(r->lse);
    mm_free(r->dx);
}

// Columns [first, first + width) of rows of `stride`: relative L2 error and cosine.
static void check_columns(const problem *p, const mm_backend *backend, const char *name,
                          const void *found, const double *expected, int64_t stride, int64_t first,
                          int64_t width, double limit)
{
    double error = 0;
    double norm = 0;
    double other = 0;
    double product = 0;
    for (int64_t t = 0; t < p->T; t++)
        for (int64_t i = t * stride + first; i < t * stride + first + width; i++) {
            const double value = get(backend->act_bytes, found, i);
            error += (value - expected[i]) * (value - expected[i]);
            norm += expected[i] * expected[i];
            other += value * value;
            product += value * expected[i];
        }
    const double relative = sqrt(error / norm);
    const double cosine = product / sqrt(norm * other);
    if (!(relative <= limit && cosine >= 0.9995))
        fail_msg("%s %s, %d heads of %d, dropout %g: relative error %.3g (limit %.3g), cosine %.6f",
                 backend->isa, name, (int)p->attr.heads, (int)p->attr.head_dim, p->attr.dropout,
                 relative, limit, cosine);
}

static void check_result(const problem *p, const mm_backend *backend, const result *r)
{
    const mm_op_attr *attr = &p->attr;
    const int64_t W = attr->n_in;
    const int64_t q = attr->n_out;
    const int64_t kv = attr->kv_heads * attr->head_dim;
    static const double limits[] = {[MM_F32] = 1e-5, [MM_F64] = 1e-12, [MM_BF16] = 1e-2};
    const double limit = limits[backend->dtype];
    const double grad_limit = backend->dtype == MM_BF16 ? 2 * limit : limit;
    check_columns(p, backend, "y", r->y, p->y, q, 0, q, limit);
    check_columns(p, backend, "dq", r->dx, p->dx, W, 0, q, grad_limit);
    check_columns(p, backend, "dk", r->dx, p->dx, W, q, kv, grad_limit);
    check_columns(p, backend, "dv", r->dx, p->dx, W, q + kv, kv, grad_limit);
}

static void test_every_build_matches_the_reference(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = all_builds(backends);
    for (int s = 0; s < N_SHAPES; s++) {
        problem p;
        problem_new(&p, &SHAPES[s], 1);
        for (int32_t i = 0; i < n; i++) {
            result r = run(&p, backends[i], 0, p.n_segments, 2);
            check_result(&p, backends[i], &r);
            result_drop(&r);
        }
        problem_drop(&p);
    }
}

static void assert_same(const problem *p, const mm_backend *backend, const result *a, int64_t from,
                        const result *b)
{
    const mm_op_attr *attr = &p->attr;
    const size_t y = (size_t)attr->n_out * backend->act_bytes;
    const size_t lse = (size_t)attr->heads * backend->real_bytes;
    const size_t dx = (size_t)attr->n_in * backend->act_bytes;
    const size_t T = (size_t)b->T;
    assert_memory_equal((const char *)a->y + (size_t)from * y, b->y, T * y);
    assert_memory_equal((const char *)a->lse + (size_t)from * lse, b->lse, T * lse);
    assert_memory_equal((const char *)a->dx + (size_t)from * dx, b->dx, T * dx);
}

static void test_threads_and_neighbours_do_not_change_a_bit(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = all_builds(backends);
    static const int32_t threads[] = {2, 3, MAX_THREADS};
    for (int s = 0; s < 2; s++) {
        problem p;
        problem_new(&p, &SHAPES[s], 1);
        for (int32_t i = 0; i < n; i++) {
            result whole = run(&p, backends[i], 0, p.n_segments, 1);
            for (int j = 0; j < 3; j++) {
                result again = run(&p, backends[i], 0, p.n_segments, threads[j]);
                assert_same(&p, backends[i], &whole, 0, &again);
                result_drop(&again);
            }
            // Masks are drawn by place in the batch: without dropout a segment stands for itself.
            for (int32_t j = 0; p.attr.dropout == 0 && j < p.n_segments; j++) {
                result alone = run(&p, backends[i], j, 1, 1);
                assert_same(&p, backends[i], &whole, p.segments[j], &alone);
                result_drop(&alone);
            }
            result_drop(&whole);
        }
        problem_drop(&p);
    }
}

// One key takes nearly all of the weight, and what earlier blocks of keys left is scaled to
// nothing.
static void test_large_scores_stay_finite(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = all_builds(backends);
    problem p;
    problem_new(&p, &SHAPES[0], 50);
    for (int32_t i = 0; i < n; i++) {
        result r = run(&p, backends[i], 0, p.n_segments, 1);
        check_columns(&p, backends[i], "y", r.y, p.y, p.attr.n_out, 0, p.attr.n_out, 2e-2);
        for (int64_t at = 0; at < p.T * p.attr.n_in; at++)
            assert_true(isfinite(get(backends[i]->act_bytes, r.dx, at)));
        result_drop(&r);
    }
    problem_drop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_build_matches_the_reference),
        cmocka_unit_test(test_threads_and_neighbours_do_not_change_a_bit),
        cmocka_unit_test(test_large_scores_stay_finite),
    };
    return cmocka_run_group_tests_name("nn/attention", tests, NULL, NULL);
}
