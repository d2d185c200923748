/* What the golden tests share: a fixture's tensors and comparisons with them. Everything here ends
 * the test on failure and names the fixture, so callers need no checks of their own. */
#ifndef MM_TESTS_IO_GOLDEN_H
#define MM_TESTS_IO_GOLDEN_H

#include "tests/base/check.h"

#include "core/io/safetensors.h"
#include "core/nn/engine.h"

/* Relative L2 distance allowed to one tensor, and relative distance to one number. */
static const double GOLDEN_LIMIT = 1e-5;
/* Of what the steps changed, not of the tensor. The change is a few thousandths of a norm weight
 * near 1, so that rounding the weight alone gives 1e-4. */
static const double GOLDEN_CHANGE_LIMIT = 1e-3;

enum { GOLDEN_MAX_LENGTH = 256 };

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        mm_err check_err_ = {0};                                                                   \
        mm_err *err = &check_err_;                                                                 \
        if ((call) != MM_OK) fail_msg("%s", check_err_.message);                                   \
    } while (0)

/* A model imported from tests/data/golden/<folder>. */
mm_model *golden_model(const char *folder);

typedef struct golden {
    const char *name;
    mm_safetensors *file;
} golden;

/* tests/data/golden/<path>. */
golden golden_open(const char *name, const char *path);
void golden_close(golden *g);

const mm_safetensor *golden_tensor(const golden *g, const char *prefix, const char *name);
bool golden_has(const golden *g, const char *prefix, const char *name);
/* Element `index` of an F64 vector. */
double golden_number(const golden *g, const char *name, int index);
/* The fp32 tensor into out. */
void golden_copy(const golden *g, const char *prefix, const char *name, float *out, int64_t count);

typedef struct golden_batch {
    mm_batch batch;
    int32_t tokens[GOLDEN_MAX_LENGTH];
    int32_t labels[GOLDEN_MAX_LENGTH];
    int32_t segments[GOLDEN_MAX_LENGTH];
} golden_batch;

/* Line `index` of tokens, labels and segments; the last bound is the length. */
void golden_batch_read(const golden *g, int index, golden_batch *out);

/* |found - expected| / |expected - base| in L2 is within the limit; base NULL is zero. Keeps the
 * largest distance in *worst. */
void golden_check(const golden *g, const char *prefix, const char *name, const float *found,
                  const float *base, int64_t count, double limit, double *worst);
/* Element `step` of `what`, within the limit of itself. */
void golden_check_number(const golden *g, const char *what, int step, double found, double *worst);
/* The same for a difference of larger numbers, within the limit of 1. */
void golden_check_gap(const golden *g, const char *what, int step, double found, double *worst);

/* Every tensor that trains from `first` on: gradients, or parameters and what was changed of them
 * since `before` (the model's block as it was). */
void golden_check_grads(const golden *g, mm_model *model, mm_engine *engine);
void golden_check_final(const golden *g, mm_model *model, const float *before);
/* A copy of the model's block, for golden_check_final; freed by mm_free. */
float *golden_snapshot(mm_model *model);

#endif
