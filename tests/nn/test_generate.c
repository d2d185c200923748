/* Generation: cached decoding equals the training graph's full forward at every position, greedy
 * text is its argmax, the number of threads changes nothing, ends and limits are honoured. */
#include "tests/nn/fixture.h"

#include "core/nn/generate.h"

#include <math.h>

enum { LONG_ROW = 450 }; // crosses key tiles of 64 and prefill blocks of 192

static const double LIMIT = 1e-5;

typedef struct subject {
    mm_model *model;
    mm_engine *engine;
    int32_t vocab;
    fixture_batch row;
    float *logits; /* (LONG_ROW, V) of the training graph */
} subject;

static int32_t argmax(const float *values, int32_t count)
{
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

static subject subject_open(const mm_model_config *config)
{
    static const int32_t lengths[] = {LONG_ROW, 0};
    subject s = {.vocab = config->vocab_size};
    s.model = fixture_model(config, MM_F32, 11);
    const mm_engine_options options = {.max_tokens = LONG_ROW, .threads = 2};
    CHECK_OK(mm_engine_new(&s.engine, s.model, &options, failure));
    fixture_batch_fill(&s.row, lengths, config->vocab_size, 5);
    s.logits = mm_alloc_aligned(sizeof(float) * LONG_ROW * (size_t)config->vocab_size);
    assert_non_null(s.logits);
    const mm_batch batch = {.n_tokens = LONG_ROW,
                            .n_segments = 1,
                            .tokens = s.row.tokens,
                            .labels = s.row.labels,
                            .segments = s.row.segments,
                            .n_labels = 0};
    CHECK_OK(mm_engine_logits(s.engine, &batch, s.logits, failure));
    return s;
}

static void subject_close(subject *s)
{
    mm_free(s->logits);
    mm_engine_free(s->engine);
    mm_model_free(s->model);
}

/* Relative L2 distance of the logits after position `at`; fails beyond the limit. */
static double check_position(const subject *s, int32_t at, const float *found)
{
    const float *expected = s->logits + (int64_t)at * s->vocab;
    double difference = 0;
    double size = 0;
    for (int32_t i = 0; i < s->vocab; i++) {
        const double d = (double)found[i] - (double)expected[i];
        difference += d * d;
        size += (double)expected[i] * (double)expected[i];
    }
    const double distance = sqrt(difference / size);
    if (!(distance <= LIMIT)) fail_msg("position %d: relative distance %.3g", at, distance);
    if (argmax(found, s->vocab) != argmax(expected, s->vocab))
        fail_msg("position %d: another token is the most likely one", at);
    return distance;
}

static void check_teacher_forced(const mm_model_config *config, const char *name)
{
    subject s = subject_open(config);
    mm_generator *generator = NULL;
    const float *logits;
    double worst = 0;
    CHECK_OK(mm_generator_new(&generator, s.model, LONG_ROW, 2, failure));
    for (int32_t at = 0; at < LONG_ROW; at++) {
        CHECK_OK(mm_generator_feed(generator, &s.row.tokens[at], 1, &logits, failure));
        const double distance = check_position(&s, at, logits);
        if (distance > worst) worst = distance;
    }
    print_message("%s, %s: cached logits within %.2e\n", name, mm_engine_isa(MM_F32), worst);
    // Blocks of every kind: one id, a few, exactly a prefill block, more than one.
    static const int32_t blocks[] = {2, 1, 5, 192, 1, 249};
    mm_generator_reset(generator);
    int32_t at = 0;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        CHECK_OK(mm_generator_feed(generator, s.row.tokens + at, blocks[i], &logits, failure));
        at += blocks[i];
        assert_int_equal(mm_generator_tokens(generator), at);
        check_position(&s, at - 1, logits);
    }
    assert_int_equal(at, LONG_ROW);
    mm_generator_free(generator);
    subject_close(&s);
}

static void test_cached_logits_equal_the_full_forward(void **state)
{
    (void)state;
    const mm_model_config v3 = fixture_v3();
    const mm_model_config v2 = fixture_v2();
    check_teacher_forced(&v3, "v3 shape");
    check_teacher_forced(&v2, "v2 shape");
    // Widths that fill whole vectors, and many heads on one key-value head.
    mm_model_config wide = v3;
    wide.hidden_size = 128;
    wide.num_attention_heads = 8;
    wide.num_key_value_heads = 1;
    wide.head_dim = 96;
    wide.intermediate_size = 256;
    check_teacher_forced(&wide, "wide shape");
}

typedef struct collected {
    int32_t ids[LONG_ROW];
    int32_t count;
    int32_t stop_after; /* 0: never */
} collected;

static bool collect(void *context, int32_t id)
{
    collected *out = context;
    out->ids[out->count++] = id;
    return out->count != out->stop_after;
}

static mm_sampling greedy(int32_t max_new_tokens)
{
    return (mm_sampling){
        .top_p = 1, .repetition_penalty = 1, .max_new_tokens = max_new_tokens, .seed = 1};
}

/* Recomputes the whole row for every token. */
static void test_greedy_text_is_the_argmax_of_the_full_forward(void **state)
{
    (void)state;
    enum { PROMPT = 7, NEW = 60 };
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    mm_generator *generator = NULL;
    collected out = {0};
    mm_generation result;
    const mm_sampling sampling = greedy(NEW);
    CHECK_OK(mm_generator_new(&generator, s.model, 200, 2, failure));
    CHECK_OK(
        mm_generate(generator, s.row.tokens, PROMPT, &sampling, collect, &out, &result, failure));
    assert_int_equal(out.count, NEW);
    assert_int_equal(result.n_tokens, NEW);
    assert_int_equal(result.finish, MM_FINISH_LENGTH);
    double logprob_sum = 0;
    for (int32_t i = 0; i < NEW; i++) {
        s.row.segments[1] = PROMPT + i;
        const mm_batch batch = {.n_tokens = PROMPT + i,
                                .n_segments = 1,
                                .tokens = s.row.tokens,
                                .labels = s.row.labels,
                                .segments = s.row.segments,
                                .n_labels = 0};
        CHECK_OK(mm_engine_logits(s.engine, &batch, s.logits, failure));
        const float *last = s.logits + (int64_t)(PROMPT + i - 1) * s.vocab;
        const int32_t best = argmax(last, s.vocab);
        assert_int_equal(out.ids[i], best);
        double sum = 0;
        for (int32_t k = 0; k < s.vocab; k++)
            sum += exp((double)last[k] - (double)last[best]);
        logprob_sum -= log(sum);
        s.row.tokens[PROMPT + i] = best;
    }
    assert_true(fabs(result.logprob_sum - logprob_sum) <= 1e-4 * fabs(logprob_sum));
    mm_generator_free(generator);
    subject_close(&s);
}

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    enum { PROMPT = 250, NEW = 80 };
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = NEW;
    sampling.n_stop_ids = 0;
    collected first = {0};
    mm_generation first_result = {0};
    static const int32_t threads[] = {1, 2, 3, 7};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        mm_generator *generator = NULL;
        collected out = {0};
        mm_generation result;
        CHECK_OK(mm_generator_new(&generator, s.model, LONG_ROW, threads[i], failure));
        CHECK_OK(mm_generate(generator, s.row.tokens, PROMPT, &sampling, collect, &out, &result,
                             failure));
        assert_int_equal(out.count, NEW);
        if (i == 0) {
            first = out;
            first_result = result;
        }
        assert_memory_equal(out.ids, first.ids, sizeof out.ids);
        assert_memory_equal(&result.logprob_sum, &first_result.logprob_sum, sizeof(double));
        mm_generator_free(generator);
    }
    subject_close(&s);
}

static void test_a_second_call_starts_anew(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v2();
    subject s = subject_open(&config);
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = 50;
    sampling.repetition_penalty = 1.3;
    sampling.n_stop_ids = 0;
    mm_generator *generator = NULL;
    collected out[3] = {0};
    mm_generation result;
    CHECK_OK(mm_generator_new(&generator, s.model, 128, 1, failure));
    CHECK_OK(
        mm_generate(generator, s.row.tokens, 20, &sampling, collect, &out[0], &result, failure));
    sampling.seed++;
    CHECK_OK(
        mm_generate(generator, s.row.tokens, 20, &sampling, collect, &out[1], &result, failure));
    sampling.seed--;
    CHECK_OK(
        mm_generate(generator, s.row.tokens, 20, &sampling, collect, &out[2], &result, failure));
    assert_memory_equal(out[0].ids, out[2].ids, sizeof out[0].ids);
    assert_memory_not_equal(out[0].ids, out[1].ids, sizeof out[0].ids);
    mm_generator_free(generator);
    subject_close(&s);
}

static void test_text_ends_where_it_should(void **state)
{
    (void)state;
    enum { PROMPT = 5 };
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    mm_generator *generator = NULL;
    mm_generation result;
    CHECK_OK(mm_generator_new(&generator, s.model, 24, 1, failure));

    collected free_run = {0};
    mm_sampling sampling = greedy(1000);
    CHECK_OK(mm_generate(generator, s.row.tokens, PROMPT, &sampling, collect, &free_run, &result,
                         failure));
    assert_int_equal(result.finish, MM_FINISH_LENGTH);
    assert_int_equal(result.n_tokens, 24 - PROMPT); // the cache is full

    // The stop id ends the text and is not handed on.
    int32_t until = 1;
    for (bool is_new = false; !is_new; until += !is_new) {
        is_new = true;
        for (int32_t i = 0; i < until; i++)
            is_new = is_new && free_run.ids[i] != free_run.ids[until];
        if (until == result.n_tokens - 1) break;
    }
    collected stopped = {0};
    sampling.stop_ids[1] = free_run.ids[until];
    sampling.stop_ids[0] = free_run.ids[until];
    sampling.n_stop_ids = 2;
    CHECK_OK(mm_generate(generator, s.row.tokens, PROMPT, &sampling, collect, &stopped, &result,
                         failure));
    assert_int_equal(result.finish, MM_FINISH_STOP);
    assert_int_equal(result.n_tokens, until);
    assert_memory_equal(stopped.ids, free_run.ids, (size_t)until * sizeof(int32_t));

    collected refused = {.stop_after = 3};
    sampling.n_stop_ids = 0;
    CHECK_OK(mm_generate(generator, s.row.tokens, PROMPT, &sampling, collect, &refused, &result,
                         failure));
    assert_int_equal(result.finish, MM_FINISH_CANCELED);
    assert_int_equal(result.n_tokens, 3);

    sampling.max_new_tokens = 0;
    CHECK_OK(mm_generate(generator, s.row.tokens, PROMPT, &sampling, NULL, NULL, &result, failure));
    assert_int_equal(result.finish, MM_FINISH_LENGTH);
    assert_int_equal(result.n_tokens, 0);
    assert_string_equal(mm_finish_text(MM_FINISH_STOP), "stop");
    assert_string_equal(mm_finish_text(MM_FINISH_LENGTH), "length");
    assert_string_equal(mm_finish_text(MM_FINISH_CANCELED), "canceled");
    mm_generator_free(generator);
    subject_close(&s);
}

/* A conversation: the second prompt is the first, its answer and more; the third is cut off in the
 * middle. Kept or not, the tokens and every bit of their log-probabilities are the same. */
static void test_a_prompt_goes_on_behind_what_its_row_holds(void **state)
{
    (void)state;
    enum { FIRST = 300, NEW = 8, MORE = 9 };
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    const mm_generator_options keeping = {
        .max_tokens = LONG_ROW, .threads = 2, .keeps_prefix = true};
    mm_generator *generators[2] = {NULL, NULL};
    CHECK_OK(mm_generator_new_batch(&generators[0], s.model, &keeping, failure));
    CHECK_OK(mm_generator_new(&generators[1], s.model, LONG_ROW, 2, failure));
    mm_sampling sampling = mm_sampling_default();
    sampling.repetition_penalty = 1.3; // looks at every id of the row
    sampling.n_stop_ids = 0;
    sampling.max_new_tokens = NEW;
    const struct {
        int32_t length;
        int32_t kept;
    } turns[] = {{FIRST, 0}, {FIRST + NEW + MORE, FIRST + NEW - 1}, {FIRST / 2, FIRST / 2 - 1}};
    int32_t ids[LONG_ROW];
    memcpy(ids, s.row.tokens, sizeof ids);
    for (size_t turn = 0; turn < 3; turn++) {
        collected texts[2] = {0};
        mm_generation results[2];
        for (size_t i = 0; i < 2; i++)
            CHECK_OK(mm_generate(generators[i], ids, turns[turn].length, &sampling, collect,
                                 &texts[i], &results[i], failure));
        assert_int_equal(results[0].n_kept, turns[turn].kept);
        assert_int_equal(results[1].n_kept, 0);
        assert_int_equal(results[0].n_tokens, NEW);
        assert_memory_equal(texts[0].ids, texts[1].ids, NEW * sizeof(int32_t));
        assert_memory_equal(&results[0].logprob_sum, &results[1].logprob_sum, sizeof(double));
        memcpy(ids + turns[turn].length, texts[0].ids, NEW * sizeof(int32_t));
    }
    // Other weights: nothing of the row holds any more.
    ((float *)mm_model_find(s.model, "model.norm.weight")->data)[0] += 1;
    mm_generation result;
    mm_generator_reload(generators[0]);
    CHECK_OK(mm_generate(generators[0], ids, FIRST / 2, &sampling, NULL, NULL, &result, failure));
    assert_int_equal(result.n_kept, 0);
    mm_generator_free(generators[1]);
    mm_generator_free(generators[0]);
    subject_close(&s);
}

static void test_impossible_requests_are_refused(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    mm_generator *generator = NULL;
    mm_generation result;
    mm_err err = {0};
    const float *logits;
    const mm_sampling sampling = greedy(4);
    assert_int_equal(mm_generator_new(&generator, s.model, 1, 1, &err), MM_ELIMIT);
    assert_int_equal(
        mm_generator_new(&generator, s.model, config.max_position_embeddings + 1, 1, &err),
        MM_ELIMIT);
    assert_null(generator);
    CHECK_OK(mm_generator_new(&generator, s.model, 16, 1, failure));
    const int32_t *ids = s.row.tokens;
    assert_int_equal(mm_generate(generator, ids, 0, &sampling, NULL, NULL, &result, &err),
                     MM_EUSAGE);
    assert_int_equal(mm_generate(generator, ids, 16, &sampling, NULL, NULL, &result, &err),
                     MM_ELIMIT);
    const int32_t wrong[] = {1, config.vocab_size, 2};
    assert_int_equal(mm_generate(generator, wrong, 3, &sampling, NULL, NULL, &result, &err),
                     MM_EFORMAT);
    assert_non_null(strstr(err.message, "token 1 has id 37"));
    const int32_t negative = -1;
    mm_generator_reset(generator);
    CHECK_OK(mm_generator_feed(generator, ids, 10, &logits, failure));
    assert_int_equal(mm_generator_feed(generator, &negative, 1, &logits, &err), MM_EFORMAT);
    assert_int_equal(mm_generator_feed(generator, ids, 7, &logits, &err), MM_ELIMIT);
    assert_int_equal(mm_generator_feed(generator, ids, 0, &logits, &err), MM_EUSAGE);
    assert_int_equal(mm_generator_tokens(generator), 10);
    CHECK_OK(mm_generator_feed(generator, ids + 10, 6, &logits, failure));
    check_position(&s, 15, logits);
    mm_generator_free(generator);
    subject_close(&s);
}

static void test_nan_weights_are_an_error_not_a_token(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    mm_generator *generator = NULL;
    mm_generation result;
    mm_err err = {0};
    const mm_sampling sampling = greedy(4);
    float *norm = mm_model_find(s.model, "model.norm.weight")->data;
    norm[3] = NAN;
    CHECK_OK(mm_generator_new(&generator, s.model, 16, 1, failure));
    assert_int_equal(mm_generate(generator, s.row.tokens, 3, &sampling, NULL, NULL, &result, &err),
                     MM_ENAN);
    mm_generator_free(generator);
    subject_close(&s);
}

static void test_generating_allocates_nothing(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    subject s = subject_open(&config);
    mm_generator *generator = NULL;
    mm_generation result;
    mm_sampling sampling = mm_sampling_default();
    sampling.n_stop_ids = 0;
    sampling.repetition_penalty = 1.1;
    CHECK_OK(mm_generator_new(&generator, s.model, LONG_ROW, 2, failure));
    const uint64_t before = mm_alloc_count();
    CHECK_OK(mm_generate(generator, s.row.tokens, 200, &sampling, NULL, NULL, &result, failure));
    assert_int_equal(mm_alloc_count(), before);
    assert_int_equal(result.n_tokens, LONG_ROW - 200);
    mm_generator_free(generator);
    subject_close(&s);
}

static void test_running_out_of_memory_is_clean(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_model *model = fixture_model(&config, MM_F32, 3);
    for (uint64_t nth = 1;; nth++) {
        mm_generator *generator = NULL;
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_generator_new(&generator, model, 64, 1, &err);
        mm_alloc_fail_at(0);
        if (status == MM_OK) {
            mm_generator_free(generator);
            assert_true(nth > 4);
            break;
        }
        assert_int_equal(status, MM_ENOMEM);
        assert_null(generator);
    }
    mm_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cached_logits_equal_the_full_forward),
        cmocka_unit_test(test_greedy_text_is_the_argmax_of_the_full_forward),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_a_second_call_starts_anew),
        cmocka_unit_test(test_text_ends_where_it_should),
        cmocka_unit_test(test_a_prompt_goes_on_behind_what_its_row_holds),
        cmocka_unit_test(test_impossible_requests_are_refused),
        cmocka_unit_test(test_nan_weights_are_an_error_not_a_token),
        cmocka_unit_test(test_generating_allocates_nothing),
        cmocka_unit_test(test_running_out_of_memory_is_clean),
    };
    return cmocka_run_group_tests_name("nn/generate", tests, NULL, NULL);
}
