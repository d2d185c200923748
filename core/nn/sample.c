/* Sampling: temperature, repetition penalty, top-k, top-p, draw. See sample.h.
 *
 * Candidates come out of a binary heap in the order (score falling, id rising), so that only those
 * that may be drawn are ever sorted; top-k finds the score of its last candidate first, so that
 * only what it keeps gets there. Probabilities are summed as doubles.
 */
#include "core/nn/sample.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/nn/decode.h"

#include <math.h>
#include <string.h>

struct mm_sampler {
    int32_t vocab;
    float *scores;  /* (V) after temperature and penalty */
    int32_t *heap;  /* (V) candidates; popped ones stand behind the heap, in reverse order */
    int32_t n_heap; /* candidates still in the heap */
    int32_t n_candidates;
    bool *seen; /* (V) */
};

mm_sampling mm_sampling_default(void)
{
    return (mm_sampling){.temperature = 0.85,
                         .top_p = 0.85,
                         .top_k = 50,
                         .repetition_penalty = 1.0,
                         .max_new_tokens = 256,
                         .seed = 42,
                         .stop_ids = {2},
                         .n_stop_ids = 1};
}

mm_status mm_sampling_check(const mm_sampling *sampling, mm_err *err)
{
    const int32_t stops_max = (int32_t)(sizeof sampling->stop_ids / sizeof *sampling->stop_ids);
    // The lower bound keeps scores inside the range of a float.
    const bool is_greedy = sampling->temperature >= 0 && !(sampling->temperature > 0);
    if (!is_greedy && !(sampling->temperature >= 1e-6 && sampling->temperature <= 1e6))
        return MM_FAIL(err, MM_EUSAGE,
                       "temperature must be 0 (greedy) or from 1e-6 to 1e6, found %g",
                       sampling->temperature);
    if (!(sampling->top_p > 0 && sampling->top_p <= 1))
        return MM_FAIL(err, MM_EUSAGE, "top_p must be above 0 and at most 1, found %g",
                       sampling->top_p);
    if (sampling->top_k < 0)
        return MM_FAIL(err, MM_EUSAGE, "top_k must be at least 0 (off), found %d", sampling->top_k);
    if (!(sampling->repetition_penalty > 0 && sampling->repetition_penalty <= 1e6))
        return MM_FAIL(err, MM_EUSAGE,
                       "repetition_penalty must be above 0 and at most 1e6, found %g",
                       sampling->repetition_penalty);
    if (sampling->max_new_tokens < 0)
        return MM_FAIL(err, MM_EUSAGE, "max_new_tokens must be at least 0, found %d",
                       sampling->max_new_tokens);
    if (sampling->n_ids < 0)
        return MM_FAIL(err, MM_EUSAGE, "n_ids must be at least 0 (all), found %d", sampling->n_ids);
    if (sampling->n_stop_ids < 0 || sampling->n_stop_ids > stops_max)
        return MM_FAIL(err, MM_EUSAGE, "%d stop ids, expected 0 to %d", sampling->n_stop_ids,
                       stops_max);
    return MM_OK;
}

mm_status mm_sampler_new(mm_sampler **out, int32_t vocab_size, mm_err *err)
{
    MM_ASSERT(vocab_size > 0);
    const size_t count = (size_t)vocab_size;
    *out = NULL;
    mm_sampler *sampler = mm_calloc(1, sizeof *sampler);
    if (sampler) {
        sampler->vocab = vocab_size;
        sampler->scores = mm_calloc(count, sizeof *sampler->scores);
        sampler->heap = mm_calloc(count, sizeof *sampler->heap);
        sampler->seen = mm_calloc(count, sizeof *sampler->seen);
    }
    if (!sampler || !sampler->scores || !sampler->heap || !sampler->seen) {
        mm_sampler_free(sampler);
        return MM_FAIL(err, MM_ENOMEM, "sampler for a vocabulary of %d", vocab_size);
    }
    *out = sampler;
    return MM_OK;
}

void mm_sampler_free(mm_sampler *sampler)
{
    if (!sampler) return;
    mm_free(sampler->seen);
    mm_free(sampler->heap);
    mm_free(sampler->scores);
    mm_free(sampler);
}

void mm_sampler_reset(mm_sampler *sampler)
{
    memset(sampler->seen, 0, (size_t)sampler->vocab * sizeof *sampler->seen);
}

void mm_sampler_see(mm_sampler *sampler, int32_t id)
{
    MM_ASSERT(id >= 0 && id < sampler->vocab);
    sampler->seen[id] = true;
}

static bool comes_before(const mm_sampler *sampler, int32_t a, int32_t b)
{
    const float left = sampler->scores[a];
    const float right = sampler->scores[b];
    return left > right || (!(left < right) && a < b);
}

static void sift_down(mm_sampler *sampler, int32_t at)
{
    int32_t *heap = sampler->heap;
    const int32_t moving = heap[at];
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= sampler->n_heap) break;
        if (child + 1 < sampler->n_heap && comes_before(sampler, heap[child + 1], heap[child]))
            child++;
        if (!comes_before(sampler, heap[child], moving)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void heap_build(mm_sampler *sampler, int32_t n_candidates)
{
    sampler->n_candidates = n_candidates;
    sampler->n_heap = n_candidates;
    for (int32_t i = n_candidates / 2 - 1; i >= 0; i--)
        sift_down(sampler, i);
}

/* Moves the best candidate behind the heap. */
static void heap_pop(mm_sampler *sampler)
{
    int32_t *heap = sampler->heap;
    const int32_t best = heap[0];
    sampler->n_heap--;
    heap[0] = heap[sampler->n_heap];
    heap[sampler->n_heap] = best;
    if (sampler->n_heap > 1) sift_down(sampler, 0);
}

/* The i-th best of those popped. */
static int32_t popped(const mm_sampler *sampler, int32_t i)
{
    return sampler->heap[sampler->n_candidates - 1 - i];
}

/* What the kernels do with scores, always in fp32. */
static const mm_decode_kernels *kernels(void) { return mm_backend_of(MM_F32)->decode; }

static double weight_of(const mm_sampler *sampler, int32_t id, float top)
{
    return exp((double)sampler->scores[id] - (double)top);
}

/* The k-th highest score, 0 < k < V: the lowest of a heap of the k highest, worst first. */
static float kth_score(const mm_sampler *sampler, int32_t k)
{
    const float *scores = sampler->scores;
    int32_t *heap = sampler->heap;
    for (int32_t i = 0; i < k; i++) { // rises from the end
        int32_t at = i;
        for (; at > 0 && scores[i] < scores[heap[(at - 1) / 2]]; at = (at - 1) / 2)
            heap[at] = heap[(at - 1) / 2];
        heap[at] = i;
    }
    const int64_t n = sampler->vocab;
    for (int64_t i = k; (i = kernels()->next_above(scores, i, n, (double)scores[heap[0]])) < n;
         i++) { // sinks from the top, in place of the worst
        int32_t at = 0;
        for (int32_t child = 1; child < k; child = 2 * at + 1) {
            if (child + 1 < k && scores[heap[child + 1]] < scores[heap[child]]) child++;
            if (!(scores[heap[child]] < scores[i])) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = (int32_t)i;
    }
    return scores[heap[0]];
}

/* Sorts what top-k keeps: k candidates and all that tie with the k-th, none of those that have no
 * weight. Returns how many. */
static int32_t pop_top_k(mm_sampler *sampler, int32_t k)
{
    const double bound = (double)nextafterf(kth_score(sampler, k), -INFINITY);
    const int64_t n = sampler->vocab;
    int32_t count = 0;
    for (int64_t i = 0; (i = kernels()->next_above(sampler->scores, i, n, bound)) < n; i++)
        sampler->heap[count++] = (int32_t)i;
    heap_build(sampler, count);
    while (sampler->n_heap > 0)
        heap_pop(sampler);
    return count;
}

/* Draws among all ids, in the order of ids. */
static int32_t draw_from_all(mm_sampler *sampler, double uniform)
{
    float *weights = sampler->scores;
    kernels()->exponentials(weights, sampler->vocab);
    double total = 0;
    for (int32_t i = 0; i < sampler->vocab; i++)
        total += (double)weights[i];
    double sum = 0;
    int32_t last = 0; // of those with any weight: rounding may leave the sum below the target
    for (int32_t i = 0; i < sampler->vocab; i++) {
        sum += (double)weights[i];
        if (weights[i] > 0) last = i;
        if (sum > uniform * total) return i;
    }
    return last;
}

/* Makes all ids candidates; returns the sum of their weights. */
static double candidates_of_all(mm_sampler *sampler, float top)
{
    for (int32_t i = 0; i < sampler->vocab; i++)
        sampler->heap[i] = i;
    heap_build(sampler, sampler->vocab);
    const double sum = kernels()->log_sum_exp(sampler->scores, sampler->vocab);
    return exp(sum - (double)top);
}

/* Draws among what top-k and top-p leave, best first. */
static int32_t draw_from_best(mm_sampler *sampler, const mm_sampling *sampling, double uniform,
                              float top)
{
    const bool has_k = sampling->top_k > 0 && sampling->top_k < sampler->vocab;
    int32_t count = has_k ? pop_top_k(sampler, sampling->top_k) : 0;
    double total = has_k ? 0 : candidates_of_all(sampler, top);
    for (int32_t i = 0; i < count; i++)
        total += weight_of(sampler, popped(sampler, i), top);
    // A candidate stays when those before it sum up to no more than top_p: the one that crosses
    // stays.
    double kept = 0;
    int32_t n_kept = 0;
    while (kept <= sampling->top_p * total) {
        if (n_kept == count) {
            if (has_k || sampler->n_heap == 0) break;
            heap_pop(sampler);
            count++;
        }
        kept += weight_of(sampler, popped(sampler, n_kept), top);
        n_kept++;
    }
    double sum = 0;
    for (int32_t i = 0; i < n_kept; i++) {
        sum += weight_of(sampler, popped(sampler, i), top);
        if (sum > uniform * kept) return popped(sampler, i);
    }
    return popped(sampler, n_kept - 1);
}

/* Fills the scores: temperature first, then the penalty over the ids seen. Ids that may not be
 * drawn get no weight. */
static void fill_scores(mm_sampler *sampler, const float *logits, const mm_sampling *sampling)
{
    const double divisor = sampling->temperature > 0 ? sampling->temperature : 1;
    const double penalty = sampling->repetition_penalty;
    const bool has_penalty = penalty < 1 || penalty > 1;
    for (int32_t i = 0; i < sampler->vocab; i++)
        sampler->scores[i] = (float)((double)logits[i] / divisor);
    for (int32_t i = 0; has_penalty && i < sampler->vocab; i++) {
        if (!sampler->seen[i]) continue;
        const double score = (double)logits[i] / divisor;
        sampler->scores[i] = (float)(score > 0 ? score / penalty : score * penalty);
    }
    for (int32_t i = sampling->n_ids; i > 0 && i < sampler->vocab; i++)
        sampler->scores[i] = -INFINITY;
}

mm_status mm_sampler_draw(mm_sampler *sampler, const float *logits, const mm_sampling *sampling,
                          int64_t position, mm_choice *out, mm_err *err)
{
    const double normalizer = kernels()->log_sum_exp(logits, sampler->vocab);
    if (!isfinite(normalizer))
        return MM_FAIL(err, MM_ENAN, "the logits at position %lld are not finite",
                       (long long)position);
    fill_scores(sampler, logits, sampling);
    out->id = (int32_t)kernels()->highest(sampler->scores, sampler->vocab);
    if (sampling->temperature > 0) {
        mm_rng rng;
        mm_rng_init(&rng, sampling->seed, MM_RNG_SAMPLE, (uint64_t)position);
        const double uniform = mm_rng_uniform(&rng);
        const bool is_cut =
            (sampling->top_k > 0 && sampling->top_k < sampler->vocab) || sampling->top_p < 1;
        const float top = sampler->scores[out->id];
        out->id = is_cut ? draw_from_best(sampler, sampling, uniform, top)
                         : draw_from_all(sampler, uniform);
    }
    out->logprob = (double)logits[out->id] - normalizer;
    return MM_OK;
}
