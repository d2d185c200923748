/* Every operation: the table has no empty slot, and each backward agrees with central differences
 * of its forward in double precision. The function probed is sum(r * y) with random r; for the head
 * it is the loss.
 */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#include <math.h>

enum { MAX_BACKENDS = 16, MAX_TABLES = 2, POSITIONS = 400, MAX_BLOCKS = FIXTURE_MAX_TOKENS };

static const double STEP = 1e-3;
static const double TOLERANCE = 1e-6;

// A double array with its gradient.
typedef struct table {
    int64_t count;
    double *value;
    double *gradient;
} table;

typedef struct op_case {
    mm_op_kind kind;
    mm_op_attr attr;
    const int32_t *lengths; // of the segments
    int64_t aux_cols;       // of out[1]
    int64_t params[MAX_TABLES];
    bool can_add; // d_in_add is allowed
} op_case;

typedef struct op_run {
    const op_case *test;
    const mm_backend *backend;
    fixture_batch batch;
    int32_t positions[FIXTURE_MAX_TOKENS];
    mm_query_block blocks[MAX_BLOCKS];
    mm_loss loss;
    mm_pass pass;
    table in[MAX_TABLES];
    table param[MAX_TABLES];
    table out;
    double *aux;
    double *sum;         // out[2]
    double sum_gradient; // of every element of it, from elsewhere
    double *direction;   // r
    double *rope_cos;
    double *rope_sin;
} op_run;

static double *doubles(int64_t n)
{
    double *values = mm_alloc_aligned((size_t)(n > 0 ? n : 1) * sizeof(double));
    assert_non_null(values);
    return values;
}

static void fill(double *values, int64_t n, uint64_t stream)
{
    mm_rng rng;
    mm_rng_init(&rng, 11, MM_RNG_TEST, stream);
    for (int64_t i = 0; i < n; i++)
        values[i] = mm_rng_normal(&rng);
}

static table new_table(int64_t count, uint64_t stream)
{
    table t = {count, doubles(count), doubles(count)};
    fill(t.value, count, stream);
    return t;
}

static void drop_table(table *t)
{
    mm_free(t->value);
    mm_free(t->gradient);
}

static void prepare_pass(op_run *run)
{
    const mm_op_attr *attr = &run->test->attr;
    const mm_batch *batch = &run->batch.batch;
    const int32_t width = run->backend->query_block;
    int64_t n_blocks = 0;
    for (int32_t s = 0; s < batch->n_segments; s++) {
        const int32_t begin = batch->segments[s];
        const int32_t end = batch->segments[s + 1];
        for (int32_t t = begin; t < end; t++)
            run->positions[t] = t - begin;
        for (int32_t t = begin; t < end; t += width)
            run->blocks[n_blocks++] = (mm_query_block){begin, t, t + width < end ? t + width : end};
    }
    run->rope_cos = doubles(POSITIONS * (attr->head_dim / 2));
    run->rope_sin = doubles(POSITIONS * (attr->head_dim / 2));
    if (attr->head_dim > 0)
        run->backend->rope_tables(run->rope_cos, run->rope_sin, POSITIONS, attr->head_dim, 100.0);
    const mm_op_need need = run->backend->ops[run->test->kind].need(attr, batch->n_tokens);
    run->pass = (mm_pass){.batch = batch,
                          .positions = run->positions,
                          .query_blocks = run->blocks,
                          .n_query_blocks = n_blocks,
                          .rope_cos = run->rope_cos,
                          .rope_sin = run->rope_sin,
                          .dropout_on = true,
                          .seed = 4,
                          .micro_step = 9,
                          .loss_scale = 0.25,
                          .loss = &run->loss,
                          .work = {.shared = mm_alloc_aligned(need.shared_bytes + 64),
                                   .thread = mm_alloc_aligned(need.thread_bytes + 64),
                                   .thread_bytes = need.thread_bytes}};
    assert_true(run->pass.work.shared && run->pass.work.thread);
}

static void run_new(op_run *run, const op_case *test)
{
    *run = (op_run){.test = test, .backend = mm_backend_of(MM_F64)};
    const bool is_head = test->kind == MM_OP_HEAD_CE;
    const int32_t vocab_size = is_head ? (int32_t)test->attr.n_out : (int32_t)test->attr.n_in;
    fixture_batch_fill(&run->batch, test->lengths, vocab_size, 5);
    const int64_t T = run->batch.batch.n_tokens;
    const mm_op_info *info = mm_op_info_of(test->kind);
    for (int i = 0; i < MAX_TABLES; i++) {
        const bool is_sum = i == 1 && test->kind == MM_OP_LORA;
        const int64_t cols = is_sum ? test->attr.n_out : test->attr.n_in;
        run->in[i] = new_table(i < info->n_in ? T * cols : 0, (uint64_t)i + 1);
        run->param[i] = new_table(test->params[i], (uint64_t)i + 3);
    }
    run->out = new_table(info->n_out > 0 ? T * test->attr.n_out : 0, 5);
    run->aux = doubles(T * test->aux_cols);
    run->sum = doubles(run->out.count);
    run->direction = doubles(run->out.count);
    fill(run->direction, run->out.count, 6);
    prepare_pass(run);
}

static void run_drop(op_run *run)
{
    for (int i = 0; i < MAX_TABLES; i++) {
        drop_table(&run->in[i]);
        drop_table(&run->param[i]);
    }
    drop_table(&run->out);
    mm_free(run->aux);
    mm_free(run->sum);
    mm_free(run->direction);
    mm_free(run->rope_cos);
    mm_free(run->rope_sin);
    mm_free(run->pass.work.shared);
    mm_free(run->pass.work.thread);
}

static mm_op_args args_of(op_run *run)
{
    mm_op_args args = {.pass = &run->pass, .attr = &run->test->attr};
    for (int i = 0; i < MAX_TABLES; i++) {
        args.in[i] = run->in[i].value;
        args.param[i] = run->param[i].value;
        args.d_in[i] = run->in[i].gradient;
        args.d_param[i] = run->param[i].gradient;
    }
    args.out[0] = run->out.value;
    args.out[1] = run->aux;
    args.out[2] = run->sum;
    if (run->test->kind == MM_OP_ADD_RMSNORM) {
        args.d_in[1] = args.d_in[0];
    } else if (mm_op_info_of(run->test->kind)->n_in == 1) {
        args.in[1] = NULL;
    }
    args.d_out = run->direction;
    return args;
}

static double function_of(op_run *run)
{
    mm_op_args args = args_of(run);
    if (run->test->kind == MM_OP_LORA) { // adds to its second input in place
        memcpy(run->out.value, run->in[1].value, (size_t)run->out.count * sizeof(double));
        args.in[1] = args.out[0];
    }
    run->loss = (mm_loss){0};
    run->backend->ops[run->test->kind].forward(&args);
    if (run->test->kind == MM_OP_HEAD_CE) return run->loss.sum * run->pass.loss_scale;
    double sum = 0;
    for (int64_t i = 0; i < run->out.count; i++)
        sum += run->out.value[i] * run->direction[i] + run->sum[i] * run->sum_gradient;
    return sum;
}

static double difference_quotient(op_run *run, double *value)
{
    static const double weights[] = {1, -8, 8, -1};
    static const double at[] = {-2, -1, 1, 2};
    const double kept = *value;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *value = kept + at[i] * STEP;
        sum += weights[i] * function_of(run);
    }
    *value = kept;
    return sum / (12 * STEP);
}

// `start` stood in every gradient before backward and must have been added to.
static void check_table(op_run *run, table *t, const char *role, double start)
{
    const char *name = mm_op_info_of(run->test->kind)->name;
    double largest = 0;
    double worst = 0;
    for (int64_t i = 0; i < t->count; i++) {
        const double expected = difference_quotient(run, &t->value[i]);
        largest = fmax(largest, fabs(expected));
        worst = fmax(worst, fabs(expected - (t->gradient[i] - start)));
    }
    if (t->count > 0 && !(largest > 0)) fail_msg("%s, %s: no gradient at all", name, role);
    if (!(worst <= TOLERANCE * largest))
        fail_msg("%s, %s: off by %.3g of %.3g", name, role, worst, largest);
}

static void set_all(table *t, double value)
{
    for (int64_t i = 0; i < t->count; i++)
        t->gradient[i] = value;
}

static void check_op(const op_case *test, bool add)
{
    op_run run;
    run_new(&run, test);
    const bool is_stream = test->kind == MM_OP_ADD_RMSNORM; // adds to the gradient of the sum
    run.sum_gradient = is_stream && add ? 0.5 : 0;
    const double start = add && !is_stream ? 0.5 : 0;
    function_of(&run);
    mm_op_args args = args_of(&run);
    for (int i = 0; i < MAX_TABLES; i++) {
        args.d_in_add[i] = add;
        set_all(&run.in[i], add ? 0.5 : (double)NAN); // what is overwritten may hold anything
        set_all(&run.param[i], 0.25);
    }
    run.loss = (mm_loss){0};
    run.backend->ops[test->kind].backward(&args);
    if (test->kind == MM_OP_LORA) // hands the gradient of the sum on: its memory is d_out's
        for (int64_t i = 0; i < run.in[1].count; i++)
            run.in[1].gradient[i] = run.direction[i] + start;
    if (test->kind == MM_OP_HEAD_CE) { // backward finds the same loss
        const double loss = run.loss.sum * run.pass.loss_scale;
        assert_int_equal(run.loss.count, run.batch.batch.n_labels);
        assert_true(loss == function_of(&run));
    }
    if (is_stream)
        memcpy(run.in[1].gradient, run.in[0].gradient, (size_t)run.in[0].count * sizeof(double));
    for (int i = 0; i < MAX_TABLES; i++) {
        check_table(&run, &run.in[i], i == 0 ? "first input" : "second input", start);
        check_table(&run, &run.param[i], i == 0 ? "first parameter" : "second parameter", 0.25);
    }
    run_drop(&run);
}

static const int32_t THREE[] = {5, 1, 9, 0};
static const int32_t TWO_ROW_BLOCKS[] = {30, 41, 0};
static const int32_t TWO_QUERY_BLOCKS[] = {80, 3, 0};
static const int32_t TWO_HEAD_BLOCKS[] = {100, 300,
                                          0}; // more rows than one block of logits in any build

static const op_case CASES[] = {
    {.kind = MM_OP_EMBED, .attr = {.n_in = 7, .n_out = 70}, .lengths = THREE, .params = {490}},
    {.kind = MM_OP_RMSNORM,
     .attr = {.n_in = 11, .n_out = 11, .eps = 1e-3},
     .lengths = TWO_ROW_BLOCKS,
     .aux_cols = 1,
     .params = {11},
     .can_add = true},
    {.kind = MM_OP_LINEAR,
     .attr = {.n_in = 5, .n_out = 6},
     .lengths = THREE,
     .params = {30},
     .can_add = true},
    {.kind = MM_OP_LORA, // of the last columns
     .attr = {.n_in = 9, .n_out = 13, .rank = 3, .first = 6, .count = 7, .scale = 1},
     .lengths = THREE,
     .aux_cols = 3,
     .params = {27, 21},
     .can_add = true},
    {.kind = MM_OP_LORA,
     .attr = {.n_in = 6,
              .n_out = 11,
              .rank = 2,
              .count = 5,
              .scale = 1.75,
              .dropout = 0.3,
              .site = 9000},
     .lengths = TWO_ROW_BLOCKS,
     .aux_cols = 2,
     .params = {12, 10},
     .can_add = true},
    {.kind = MM_OP_QKNORM_ROPE,
     .attr = {.n_in = 30,
              .n_out = 30,
              .heads = 3,
              .kv_heads = 1,
              .head_dim = 6,
              .qk_norm = true,
              .eps = 1e-3},
     .lengths = TWO_ROW_BLOCKS,
     .aux_cols = 4,
     .params = {6, 6}},
    {.kind = MM_OP_QKNORM_ROPE,
     .attr = {.n_in = 32, .n_out = 32, .heads = 2, .kv_heads = 1, .head_dim = 8},
     .lengths = THREE},
    {.kind = MM_OP_ATTENTION,
     .attr = {.n_in = 16, .n_out = 8, .heads = 2, .kv_heads = 1, .head_dim = 4},
     .lengths = TWO_QUERY_BLOCKS,
     .aux_cols = 2},
    {.kind = MM_OP_ATTENTION,
     .attr = {.n_in = 32,
              .n_out = 16,
              .heads = 4,
              .kv_heads = 2,
              .head_dim = 4,
              .dropout = 0.25,
              .site = 3},
     .lengths = THREE,
     .aux_cols = 4},
    {.kind = MM_OP_SWIGLU, .attr = {.n_in = 10, .n_out = 5}, .lengths = THREE},
    {.kind = MM_OP_ADD_RMSNORM,
     .attr = {.n_in = 11, .n_out = 11, .eps = 1e-3},
     .lengths = TWO_ROW_BLOCKS,
     .aux_cols = 1,
     .params = {11},
     .can_add = true},
    {.kind = MM_OP_DROPOUT,
     .attr = {.n_in = 7, .n_out = 7, .dropout = 0.4, .site = 2},
     .lengths = THREE,
     .can_add = true},
    {.kind = MM_OP_HEAD_CE, .attr = {.n_in = 6, .n_out = 9}, .lengths = THREE, .params = {54}},
    {.kind = MM_OP_HEAD_CE,
     .attr = {.n_in = 2, .n_out = 3},
     .lengths = TWO_HEAD_BLOCKS,
     .params = {6}},
};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static void test_gradients_match_differences(void **state)
{
    (void)state;
    bool is_seen[MM_OP_COUNT] = {false};
    for (int i = 0; i < N_CASES; i++) {
        is_seen[CASES[i].kind] = true;
        check_op(&CASES[i], false);
        if (CASES[i].can_add) check_op(&CASES[i], true);
    }
    for (int kind = 0; kind < MM_OP_COUNT; kind++)
        if (!is_seen[kind])
            fail_msg("%s has no gradient check", mm_op_info_of((mm_op_kind)kind)->name);
}

static void test_tables_have_no_empty_slot(void **state)
{
    (void)state;
    const mm_backend *backends[MAX_BACKENDS];
    const int32_t n = mm_backends(backends, MAX_BACKENDS);
    assert_true(n >= 2);
    for (int32_t i = 0; i < n; i++) {
        const mm_backend *backend = backends[i];
        for (int kind = 0; kind < MM_OP_COUNT; kind++) {
            const mm_op_slot *slot = &backend->ops[kind];
            if (!slot->forward || !slot->backward || !slot->need)
                fail_msg("%s: slot %d is empty", backend->isa, kind);
            assert_non_null(mm_op_info_of((mm_op_kind)kind)->name);
        }
        assert_true(backend->gemm && backend->gemm_need && backend->packed_bytes &&
                    backend->pack_weight && backend->gemm_weight && backend->rope_tables &&
                    backend->sum_squares && backend->adamw && backend->peak);
        assert_int_equal(backend->real_bytes, backend->dtype == MM_F64 ? 8 : 4);
        assert_int_equal(backend->act_bytes,
                         backend->dtype == MM_BF16 ? 2 : (int)backend->real_bytes);
        assert_true(backend->query_block <= MM_OP_MAX_QUERY_BLOCK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_have_no_empty_slot),
        cmocka_unit_test(test_gradients_match_differences),
    };
    return cmocka_run_group_tests_name("nn/grad_ops", tests, NULL, NULL);
}
