/* Tests of batched generation: a row is what it would be alone, bit for bit, in both number types;
 * the queue, the ends of rows, what is refused. */
#include "tests/nn/fixture.h"

#include "core/nn/generate.h"

#include <math.h>

enum { PROMPTS = 23, MAX_PROMPT = 300, MAX_NEW = 40, ROOM = MAX_PROMPT + MAX_NEW };

typedef struct answers {
    int32_t ids[PROMPTS][MAX_NEW];
    double logprobs[PROMPTS][MAX_NEW];
    int32_t count[PROMPTS];
    mm_generation results[PROMPTS];
    int32_t refused;       // this prompt ends ...
    int32_t refused_after; // ... after so many tokens; 0: none does
} answers;

typedef struct subject {
    mm_model *model;
    int32_t ids[PROMPTS][MAX_PROMPT];
    mm_prompt prompts[PROMPTS];
} subject;

/* Prompts of all lengths: one id, many, more than a pass holds beside others. */
static subject *subject_open(const mm_model_config *config)
{
    static subject s;
    mm_rng rng;
    mm_rng_init(&rng, 77, MM_RNG_TEST, 0);
    s.model = fixture_model(config, MM_F32, 19);
    for (int32_t i = 0; i < PROMPTS; i++) {
        const int32_t count = i % 5 == 0 ? 1 + i : 1 + (int32_t)mm_rng_below(&rng, MAX_PROMPT);
        for (int32_t at = 0; at < count; at++)
            s.ids[i][at] = (int32_t)mm_rng_below(&rng, (uint32_t)config->vocab_size);
        s.prompts[i] = (mm_prompt){s.ids[i], count, 1000 + (uint64_t)i};
    }
    return &s;
}

static bool collect(void *context, int32_t prompt_idx, int32_t id, double logprob)
{
    answers *out = context;
    const int32_t at = out->count[prompt_idx]++;
    assert_true(at < MAX_NEW);
    out->ids[prompt_idx][at] = id;
    out->logprobs[prompt_idx][at] = logprob;
    return out->refused_after == 0 || out->refused != prompt_idx || at + 1 < out->refused_after;
}

/* Small vocabularies make text that stops, stops late and does not stop. */
static mm_sampling sampling_of_tests(void)
{
    mm_sampling sampling = mm_sampling_default();
    sampling.temperature = 1.1;
    sampling.top_p = 0.95;
    sampling.top_k = 12;
    sampling.repetition_penalty = 1.05;
    sampling.max_new_tokens = MAX_NEW;
    sampling.stop_ids[0] = 7;
    sampling.n_stop_ids = 1;
    return sampling;
}

static mm_generator *generator_of(const subject *s, int32_t rows, int32_t threads, bool bf16)
{
    const mm_generator_options options = {
        .max_tokens = ROOM, .rows = rows, .threads = threads, .bf16 = bf16};
    mm_generator *generator = NULL;
    CHECK_OK(mm_generator_new_batch(&generator, s->model, &options, failure));
    return generator;
}

static void answer_alone(const subject *s, bool bf16, answers *out)
{
    mm_generator *generator = generator_of(s, 1, 1, bf16);
    const mm_sampling sampling = sampling_of_tests();
    memset(out, 0, sizeof *out);
    for (int32_t i = 0; i < PROMPTS; i++) {
        answers one = {0};
        CHECK_OK(mm_generate_batch(generator, &s->prompts[i], 1, &sampling, collect, &one,
                                   &out->results[i], failure));
        memcpy(out->ids[i], one.ids[0], sizeof one.ids[0]);
        memcpy(out->logprobs[i], one.logprobs[0], sizeof one.logprobs[0]);
        out->count[i] = one.count[0];
    }
    mm_generator_free(generator);
}

static void check_same(const answers *found, const answers *expected, int32_t i)
{
    const mm_generation *a = &found->results[i];
    const mm_generation *b = &expected->results[i];
    if (found->count[i] != expected->count[i] || a->n_tokens != b->n_tokens ||
        memcmp(found->ids[i], expected->ids[i], sizeof found->ids[i]) != 0)
        fail_msg("prompt %d: other tokens than alone", i);
    assert_memory_equal(found->logprobs[i], expected->logprobs[i], sizeof found->logprobs[i]);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->stop_id, b->stop_id);
    assert_memory_equal(&a->logprob_sum, &b->logprob_sum, sizeof(double));
    assert_memory_equal(&a->stop_logprob, &b->stop_logprob, sizeof(double));
}

static void check_rows_are_independent(const mm_model_config *config, bool bf16)
{
    static answers alone;
    subject *s = subject_open(config);
    answer_alone(s, bf16, &alone);
    int32_t finishes[3] = {0};
    for (int32_t i = 0; i < PROMPTS; i++) {
        const mm_generation *result = &alone.results[i];
        double sum = result->stop_logprob;
        finishes[result->finish]++;
        assert_int_equal(result->n_tokens, alone.count[i]);
        assert_int_equal(result->stop_id, result->finish == MM_FINISH_STOP ? 7 : -1);
        for (int32_t at = 0; at < alone.count[i]; at++) {
            assert_true(alone.logprobs[i][at] < 0 && alone.ids[i][at] != 7);
            sum += alone.logprobs[i][at];
        }
        assert_true(fabs(sum - result->logprob_sum) < 1e-9);
    }
    // The queue is longer than the rows, and rows end at different times.
    assert_true(finishes[MM_FINISH_STOP] > 0 && finishes[MM_FINISH_LENGTH] > 0);
    static const int32_t rows[] = {1, 3, 8, PROMPTS, 40};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        static answers together;
        memset(&together, 0, sizeof together);
        mm_generator *generator = generator_of(s, rows[r], 1 + (int32_t)r, bf16);
        const mm_sampling sampling = sampling_of_tests();
        CHECK_OK(mm_generate_batch(generator, s->prompts, PROMPTS, &sampling, collect, &together,
                                   together.results, failure));
        for (int32_t i = 0; i < PROMPTS; i++)
            check_same(&together, &alone, i);
        mm_generator_free(generator);
    }
    mm_model_free(s->model);
}

/* Widths of whole vectors and of none; heads alone and in groups. */
static void test_a_row_is_what_it_would_be_alone(void **state)
{
    (void)state;
    mm_model_config wide = fixture_v3();
    wide.hidden_size = 128;
    wide.num_attention_heads = 8;
    wide.num_key_value_heads = 2;
    wide.head_dim = 96;
    wide.intermediate_size = 320;
    const mm_model_config v3 = fixture_v3();
    const mm_model_config v2 = fixture_v2();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_rows_are_independent(&v3, bf16);
        check_rows_are_independent(&v2, bf16);
        check_rows_are_independent(&wide, bf16);
    }
}

/* The promise of generate.h for one row: blocks of any size give the same bits. */
static void test_logits_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    const size_t bytes = (size_t)config.vocab_size * sizeof(float);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        static float expected[MAX_PROMPT][64];
        int32_t ids[MAX_PROMPT];
        const float *logits;
        mm_generator *generator = generator_of(s, 1, 2, bf16);
        for (int32_t at = 0; at < MAX_PROMPT; at++) {
            ids[at] = at * 5 % config.vocab_size;
            CHECK_OK(mm_generator_feed(generator, &ids[at], 1, &logits, failure));
            memcpy(expected[at], logits, bytes);
        }
        static const int32_t blocks[] = {2, 1, 5, 31, 64, 7, 13, 177};
        mm_generator_reset(generator);
        int32_t at = 0;
        for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
            CHECK_OK(mm_generator_feed(generator, ids + at, blocks[i], &logits, failure));
            at += blocks[i];
            assert_memory_equal(logits, expected[at - 1], bytes);
        }
        assert_int_equal(at, MAX_PROMPT);
        mm_generator_free(generator);
    }
    mm_model_free(s->model);
}

/* Relative L2 distance over all positions from the engine that computes in the same type. */
static void test_bf16_logits_are_those_of_the_bf16_engine(void **state)
{
    (void)state;
    enum { TOKENS = 150 };
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    mm_engine *engine = NULL;
    const mm_engine_options options = {.max_tokens = TOKENS, .threads = 2, .bf16 = true};
    CHECK_OK(mm_engine_new(&engine, s->model, &options, failure));
    fixture_batch row;
    fixture_batch_fill(&row, (const int32_t[]){TOKENS, 0}, config.vocab_size, 5);
    float *expected = mm_alloc_aligned(sizeof(float) * TOKENS * (size_t)config.vocab_size);
    assert_non_null(expected);
    CHECK_OK(mm_engine_logits(engine, &row.batch, expected, failure));
    mm_generator *generator = generator_of(s, 1, 2, true);
    mm_generator *exact = generator_of(s, 1, 2, false);
    double difference = 0;
    double rounding = 0;
    double size = 0;
    for (int32_t at = 0; at < TOKENS; at++) {
        const float *logits;
        const float *full;
        CHECK_OK(mm_generator_feed(generator, &row.tokens[at], 1, &logits, failure));
        CHECK_OK(mm_generator_feed(exact, &row.tokens[at], 1, &full, failure));
        for (int32_t i = 0; i < config.vocab_size; i++) {
            const double e = (double)expected[at * config.vocab_size + i];
            difference += pow((double)logits[i] - e, 2);
            rounding += pow((double)full[i] - e, 2);
            size += e * e;
        }
    }
    print_message("bf16 (%s): %.2e from the engine, which is %.2e from fp32\n",
                  mm_engine_isa(MM_BF16), sqrt(difference / size), sqrt(rounding / size));
    assert_true(sqrt(difference / size) <= 1e-2);
    assert_true(rounding > 0); // the option does something
    mm_generator_free(exact);
    mm_generator_free(generator);
    mm_free(expected);
    mm_engine_free(engine);
    mm_model_free(s->model);
}

static void test_refusing_one_row_leaves_the_others(void **state)
{
    (void)state;
    static answers alone;
    static answers together;
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    answer_alone(s, false, &alone);
    int32_t refused = 0;
    while (alone.count[refused] < 4)
        refused++;
    memset(&together, 0, sizeof together);
    together.refused = refused;
    together.refused_after = 3;
    const mm_sampling sampling = sampling_of_tests();
    mm_generator *generator = generator_of(s, 4, 2, false);
    CHECK_OK(mm_generate_batch(generator, s->prompts, PROMPTS, &sampling, collect, &together,
                               together.results, failure));
    for (int32_t i = 0; i < PROMPTS; i++)
        if (i != refused) check_same(&together, &alone, i);
    assert_int_equal(together.results[refused].finish, MM_FINISH_CANCELED);
    assert_int_equal(together.results[refused].n_tokens, 3);
    assert_memory_equal(together.ids[refused], alone.ids[refused], 3 * sizeof(int32_t));
    mm_generator_free(generator);
    mm_model_free(s->model);
}

static void test_a_full_cache_ends_a_row(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    const mm_generator_options options = {.max_tokens = 20, .rows = 2, .threads = 1};
    mm_generator *generator = NULL;
    mm_generation results[3];
    const mm_prompt prompts[] = {{s->ids[1], 19, 1}, {s->ids[1], 4, 1}, {s->ids[1], 15, 1}};
    mm_sampling sampling = sampling_of_tests();
    sampling.n_stop_ids = 0;
    sampling.max_new_tokens = 9;
    CHECK_OK(mm_generator_new_batch(&generator, s->model, &options, failure));
    CHECK_OK(mm_generate_batch(generator, prompts, 3, &sampling, NULL, NULL, results, failure));
    assert_int_equal(results[0].n_tokens, 1);
    assert_int_equal(results[1].n_tokens, 9);
    assert_int_equal(results[2].n_tokens, 5);
    sampling.max_new_tokens = 0;
    CHECK_OK(mm_generate_batch(generator, prompts, 3, &sampling, NULL, NULL, results, failure));
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(results[i].n_tokens, 0);
        assert_int_equal(results[i].finish, MM_FINISH_LENGTH);
    }
    CHECK_OK(mm_generate_batch(generator, NULL, 0, &sampling, NULL, NULL, NULL, failure));
    mm_generator_free(generator);
    mm_model_free(s->model);
}

static void test_impossible_requests_are_refused(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    mm_generator *generator = NULL;
    mm_generation results[2];
    mm_err err = {0};
    const mm_generator_options too_many = {.max_tokens = 8, .rows = MM_GENERATOR_MAX_ROWS + 1};
    assert_int_equal(mm_generator_new_batch(&generator, s->model, &too_many, &err), MM_ELIMIT);
    assert_null(generator);
    generator = generator_of(s, 2, 1, false);
    mm_sampling sampling = sampling_of_tests();
    mm_prompt prompts[] = {s->prompts[0], {s->ids[0], 0, 1}};
    assert_int_equal(mm_generate_batch(generator, prompts, 2, &sampling, NULL, NULL, results, &err),
                     MM_EUSAGE);
    assert_non_null(strstr(err.message, "prompt 1"));
    const int32_t wrong[] = {1, 2, config.vocab_size};
    prompts[1] = (mm_prompt){wrong, 3, 1};
    assert_int_equal(mm_generate_batch(generator, prompts, 2, &sampling, NULL, NULL, results, &err),
                     MM_EFORMAT);
    assert_non_null(strstr(err.message, "prompt 1: token 2 has id 37"));
    prompts[1] = (mm_prompt){s->ids[0], ROOM, 1};
    assert_int_equal(mm_generate_batch(generator, prompts, 2, &sampling, NULL, NULL, results, &err),
                     MM_ELIMIT);
    prompts[1] = s->prompts[1];
    sampling.top_p = 0;
    assert_int_equal(mm_generate_batch(generator, prompts, 2, &sampling, NULL, NULL, results, &err),
                     MM_EUSAGE);
    mm_generator_free(generator);
    mm_model_free(s->model);
}

/* The embedding row of an id that only the second prompt holds. */
static void test_a_row_of_nan_is_an_error(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    static const int32_t good[] = {1, 2, 3};
    static const int32_t bad[] = {1, 36, 3};
    const mm_prompt prompts[] = {{good, 3, 1}, {bad, 3, 1}};
    mm_generation results[2];
    mm_err err = {0};
    float *embedding = mm_model_find(s->model, "model.embed_tokens.weight")->data;
    embedding[36 * config.hidden_size] = NAN;
    mm_generator *generator = generator_of(s, 2, 2, false);
    const mm_sampling sampling = sampling_of_tests();
    assert_int_equal(mm_generate_batch(generator, prompts, 2, &sampling, NULL, NULL, results, &err),
                     MM_ENAN);
    // The generator can be used on; the embedding is the head too, where it may not be NaN.
    embedding[36 * config.hidden_size] = 0;
    mm_generator_reload(generator);
    CHECK_OK(mm_generate_batch(generator, prompts, 2, &sampling, NULL, NULL, results, failure));
    mm_generator_free(generator);
    mm_model_free(s->model);
}

static void test_reload_takes_in_new_weights(void **state)
{
    (void)state;
    static answers before;
    static answers after;
    static answers fresh;
    const mm_model_config config = fixture_v2();
    subject *s = subject_open(&config);
    const mm_sampling sampling = sampling_of_tests();
    mm_generator *generator = generator_of(s, 8, 2, true);
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    CHECK_OK(mm_generate_batch(generator, s->prompts, PROMPTS, &sampling, collect, &before,
                               before.results, failure));
    const mm_tensor *tensors;
    const int32_t n = mm_model_tensors(s->model, &tensors);
    for (int32_t i = 0; i < n; i++)
        for (int64_t at = 0; at < tensors[i].count; at++)
            ((float *)tensors[i].data)[at] *= 1.25f;
    mm_generator_reload(generator);
    CHECK_OK(mm_generate_batch(generator, s->prompts, PROMPTS, &sampling, collect, &after,
                               after.results, failure));
    answer_alone(s, true, &fresh);
    for (int32_t i = 0; i < PROMPTS; i++)
        check_same(&after, &fresh, i);
    assert_memory_not_equal(after.logprobs, before.logprobs, sizeof before.logprobs);
    mm_generator_free(generator);
    mm_model_free(s->model);
}

static void test_generating_allocates_nothing(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject *s = subject_open(&config);
    static mm_generation results[PROMPTS];
    const mm_sampling sampling = sampling_of_tests();
    mm_generator *generator = generator_of(s, 5, 2, true);
    const uint64_t before = mm_alloc_count();
    CHECK_OK(
        mm_generate_batch(generator, s->prompts, PROMPTS, &sampling, NULL, NULL, results, failure));
    assert_int_equal(mm_alloc_count(), before);
    mm_generator_free(generator);
    for (uint64_t nth = 1;; nth++) {
        const mm_generator_options options = {.max_tokens = 32, .rows = 4, .threads = 1};
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_generator_new_batch(&generator, s->model, &options, &err);
        mm_alloc_fail_at(0);
        if (status == MM_OK) break;
        assert_int_equal(status, MM_ENOMEM);
        assert_null(generator);
    }
    mm_generator_free(generator);
    mm_model_free(s->model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_is_what_it_would_be_alone),
        cmocka_unit_test(test_logits_do_not_depend_on_the_cut),
        cmocka_unit_test(test_bf16_logits_are_those_of_the_bf16_engine),
        cmocka_unit_test(test_refusing_one_row_leaves_the_others),
        cmocka_unit_test(test_a_full_cache_ends_a_row),
        cmocka_unit_test(test_impossible_requests_are_refused),
        cmocka_unit_test(test_a_row_of_nan_is_an_error),
        cmocka_unit_test(test_reload_takes_in_new_weights),
        cmocka_unit_test(test_generating_allocates_nothing),
    };
    return cmocka_run_group_tests_name("nn/generate_batch", tests, NULL, NULL);
}
