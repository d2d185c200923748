/* What the golden tests share, see golden.h. */
#include "tests/io/golden.h"

#include "core/io/hf.h"

#include <math.h>

mm_model *golden_model(const char *folder)
{
    char path[512];
    mm_model *model = NULL;
    mm_tokenizer *tokenizer = NULL;
    snprintf(path, sizeof path, "%s/golden/%s", MM_TEST_DATA, folder);
    CHECK_OK(mm_hf_import(path, &model, &tokenizer, err));
    assert_null(tokenizer);
    return model;
}

golden golden_open(const char *name, const char *path)
{
    golden g = {.name = name};
    char full[512];
    snprintf(full, sizeof full, "%s/golden/%s", MM_TEST_DATA, path);
    CHECK_OK(mm_safetensors_open(&g.file, full, err));
    return g;
}

void golden_close(golden *g) { mm_safetensors_close(g->file); }

static const mm_safetensor *find(const golden *g, const char *prefix, const char *name)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return mm_safetensors_find(g->file, full);
}

bool golden_has(const golden *g, const char *prefix, const char *name)
{
    return find(g, prefix, name) != NULL;
}

const mm_safetensor *golden_tensor(const golden *g, const char *prefix, const char *name)
{
    const mm_safetensor *tensor = find(g, prefix, name);
    if (!tensor) fail_msg("%s: the fixture has no \"%s%s\"", g->name, prefix, name);
    return tensor;
}

double golden_number(const golden *g, const char *name, int index)
{
    const mm_safetensor *tensor = golden_tensor(g, "", name);
    double value;
    assert_string_equal(tensor->dtype, "F64");
    assert_true((size_t)index < tensor->bytes / sizeof value);
    // The bytes may be unaligned.
    memcpy(&value, (const char *)tensor->data + (size_t)index * sizeof value, sizeof value);
    return value;
}

void golden_copy(const golden *g, const char *prefix, const char *name, float *out, int64_t count)
{
    CHECK_OK(mm_safetensor_to_f32(golden_tensor(g, prefix, name), out, count, err));
}

/* Line `index` of an I32 matrix; returns its length. */
static int32_t copy_line(const golden *g, const char *name, int index, int32_t *out)
{
    const mm_safetensor *tensor = golden_tensor(g, "", name);
    assert_string_equal(tensor->dtype, "I32");
    assert_int_equal(tensor->ndim, 2);
    assert_true(index < tensor->shape[0] && tensor->shape[1] <= GOLDEN_MAX_LENGTH);
    const size_t bytes = (size_t)tensor->shape[1] * sizeof *out;
    memcpy(out, (const char *)tensor->data + (size_t)index * bytes, bytes);
    return (int32_t)tensor->shape[1];
}

void golden_batch_read(const golden *g, int index, golden_batch *out)
{
    const int32_t widest = copy_line(g, "tokens", index, out->tokens);
    assert_int_equal(copy_line(g, "labels", index, out->labels), widest);
    const int32_t bounds = copy_line(g, "segments", index, out->segments);
    const int32_t n = out->segments[bounds - 1];
    assert_true(n > 0 && n <= widest);
    int64_t n_labels = 0;
    for (int32_t i = 0; i < n; i++)
        n_labels += out->labels[i] != MM_LABEL_IGNORE;
    out->batch = (mm_batch){.n_tokens = n,
                            .n_segments = bounds - 1,
                            .tokens = out->tokens,
                            .labels = out->labels,
                            .segments = out->segments,
                            .n_labels = n_labels};
}

/* |found - expected| / |expected - base|, in L2; base NULL is zero. */
static double distance(const float *found, const float *expected, const float *base, int64_t count)
{
    double difference = 0;
    double size = 0;
    for (int64_t i = 0; i < count; i++) {
        const double d = (double)found[i] - (double)expected[i];
        const double e = (double)expected[i] - (base ? (double)base[i] : 0);
        difference += d * d;
        size += e * e;
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

void golden_check(const golden *g, const char *prefix, const char *name, const float *found,
                  const float *base, int64_t count, double limit, double *worst)
{
    float *expected = mm_alloc_aligned((size_t)count * sizeof *expected);
    assert_non_null(expected);
    golden_copy(g, prefix, name, expected, count);
    const double found_distance = distance(found, expected, base, count);
    mm_free(expected);
    if (!(found_distance <= limit))
        fail_msg("%s: %s%s: relative distance %.3g, at most %.3g allowed", g->name, prefix, name,
                 found_distance, limit);
    if (found_distance > *worst) *worst = found_distance;
}

static void check_near(const golden *g, const char *what, int step, double found, double scale,
                       double *worst)
{
    const double expected = golden_number(g, what, step);
    const double relative = fabs(found - expected) / scale;
    if (!(relative <= GOLDEN_LIMIT))
        fail_msg("%s: %s of step %d: expected %.9g, found %.9g", g->name, what, step + 1, expected,
                 found);
    if (relative > *worst) *worst = relative;
}

void golden_check_number(const golden *g, const char *what, int step, double found, double *worst)
{
    check_near(g, what, step, found, fabs(golden_number(g, what, step)), worst);
}

void golden_check_gap(const golden *g, const char *what, int step, double found, double *worst)
{
    check_near(g, what, step, found, 1, worst);
}

void golden_check_grads(const golden *g, mm_model *model, mm_engine *engine)
{
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    const int64_t first = mm_model_first_trained(model);
    const float *grads = mm_engine_grads(engine);
    double worst = 0;
    int32_t checked = 0;
    for (int32_t t = 0; t < count; t++) {
        if (!tensors[t].trains) continue;
        golden_check(g, "grad/", tensors[t].name, grads + (tensors[t].offset - first), NULL,
                     tensors[t].count, GOLDEN_LIMIT, &worst);
        checked++;
    }
    print_message("%s: worst of %d gradients %.2e\n", g->name, checked, worst);
}

void golden_check_final(const golden *g, mm_model *model, const float *before)
{
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    double worst = 0;
    double worst_change = 0;
    for (int32_t t = 0; t < count; t++) {
        const mm_tensor *tensor = &tensors[t];
        const float *old = before + tensor->offset;
        if (!tensor->trains) {
            if (memcmp(tensor->data, old, (size_t)tensor->count * sizeof *old) != 0)
                fail_msg("%s: %s is frozen and has changed", g->name, tensor->name);
            continue;
        }
        golden_check(g, "final/", tensor->name, tensor->data, NULL, tensor->count, GOLDEN_LIMIT,
                     &worst);
        golden_check(g, "final/", tensor->name, tensor->data, old, tensor->count,
                     GOLDEN_CHANGE_LIMIT, &worst_change);
    }
    print_message("%s: parameters after the steps %.2e, of their change %.2e\n", g->name, worst,
                  worst_change);
}

float *golden_snapshot(mm_model *model)
{
    int64_t elements;
    const float *data = mm_model_data(model, &elements);
    float *copy = mm_alloc_aligned((size_t)elements * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, data, (size_t)elements * sizeof *copy);
    return copy;
}
