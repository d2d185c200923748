/* What the tests of core/nn share: small models, random batches, a check that prints the error. */
#ifndef MM_TESTS_NN_FIXTURE_H
#define MM_TESTS_NN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/nn/engine.h"

/* Fails the test with the message of the error. The call hands its error to `failure`. */
#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        mm_err failure_ = {0};                                                                     \
        mm_err *failure = &failure_;                                                               \
        if ((call) != MM_OK) fail_msg("%s", failure_.message);                                     \
    } while (0)

enum { FIXTURE_MAX_TOKENS = 1024 };

typedef struct fixture_batch {
    mm_batch batch;
    int32_t tokens[FIXTURE_MAX_TOKENS];
    int32_t labels[FIXTURE_MAX_TOKENS];
    int32_t segments[FIXTURE_MAX_TOKENS + 1];
} fixture_batch;

/* Random tokens in the given segments (lengths end with 0); every fifth label is ignored. */
static inline void fixture_batch_fill(fixture_batch *out, const int32_t *lengths,
                                      int32_t vocab_size, uint64_t seed)
{
    mm_rng rng;
    mm_rng_init(&rng, seed, MM_RNG_TEST, 0);
    int32_t n = 0;
    int32_t n_segments = 0;
    out->segments[0] = 0;
    for (; lengths[n_segments] > 0; n_segments++) {
        n += lengths[n_segments];
        assert_true(n <= FIXTURE_MAX_TOKENS);
        out->segments[n_segments + 1] = n;
    }
    int64_t n_labels = 0;
    for (int32_t t = 0; t < n; t++) {
        out->tokens[t] = (int32_t)mm_rng_below(&rng, (uint32_t)vocab_size);
        out->labels[t] = (int32_t)mm_rng_below(&rng, (uint32_t)vocab_size);
        if (t % 5 == 3) out->labels[t] = MM_LABEL_IGNORE;
        n_labels += out->labels[t] != MM_LABEL_IGNORE;
    }
    out->batch = (mm_batch){.n_tokens = n,
                            .n_segments = n_segments,
                            .tokens = out->tokens,
                            .labels = out->labels,
                            .segments = out->segments,
                            .n_labels = n_labels};
}

/* Qwen3-shaped like v3: QK-norm, tied embedding; grouped queries. */
static inline mm_model_config fixture_v3(void)
{
    mm_model_config config;
    CHECK_OK(mm_model_config_preset(&config, "v3", failure));
    config.vocab_size = 37;
    config.hidden_size = 24;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.intermediate_size = 20;
    CHECK_OK(mm_model_config_resolve(&config, failure));
    return config;
}

/* Llama-shaped like v2 with its own head: no QK-norm, untied, FFN dropout where dropout is on. */
static inline mm_model_config fixture_v2(void)
{
    mm_model_config config;
    CHECK_OK(mm_model_config_preset(&config, "v2", failure));
    config.vocab_size = 29;
    config.hidden_size = 12;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 3;
    config.num_key_value_heads = 1;
    config.intermediate_size = 18;
    config.tie_word_embeddings = false;
    CHECK_OK(mm_model_config_resolve(&config, failure));
    return config;
}

/* A model whose every value is random and large enough to matter: norms near 1, matrices of spread
 * 0.3. */
static inline mm_model *fixture_model(const mm_model_config *config, mm_dtype dtype, uint64_t seed)
{
    mm_model *model = NULL;
    CHECK_OK(mm_model_new(&model, config, dtype, failure));
    const mm_tensor *tensors;
    const int32_t n = mm_model_tensors(model, &tensors);
    for (int32_t i = 0; i < n; i++) {
        mm_rng rng;
        mm_rng_init(&rng, seed, MM_RNG_TEST, (uint64_t)i + 1);
        for (int64_t at = 0; at < tensors[i].count; at++) {
            const double value =
                (tensors[i].init == MM_INIT_ONE ? 1.0 : 0.0) + 0.3 * mm_rng_normal(&rng);
            if (dtype == MM_F64) {
                ((double *)tensors[i].data)[at] = value;
            } else {
                ((float *)tensors[i].data)[at] = (float)value;
            }
        }
    }
    return model;
}

#endif
