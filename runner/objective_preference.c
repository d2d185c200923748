/* Learning from pairs of answers: a loss of how much more the policy prefers the chosen one than
 * the model it started from does (core/nn/preference.h).
 *
 * That reference is not kept in memory. Its log-probabilities of all answers that the run will
 * still see are taken in one pass before the first step, while the model has the starting weights:
 * which answers those are is known, since batches are a function of their position. */
#include "core/nn/preference.h"
#include "runner/reference.h"
#include "runner/signals.h"
#include "runner/train.h"
#include "runner/train_parts.h"

#include <stdint.h>
#include <string.h>

typedef struct preferring {
    mm_preference how;
    mm_reference *reference; // NULL: the loss has none
    double *logprobs;        // (max_tokens)
    double *weights;         // (max_tokens)
} preferring;

// Sums over pairs, in the order of mm_objective.series behind the loss.
enum { LOSS, MARGIN, ACCURACY, LOGP_CHOSEN, LOGP_REJECTED, VALUES };

static void close_pairs(mm_session *s)
{
    preferring *p = s->objective_state;
    if (!p) return;
    mm_reference_free(p->reference);
    mm_free(p->logprobs);
    mm_free(p->weights);
    mm_free(p);
    s->objective_state = NULL;
}

static mm_status read_preference(const mm_config *config, mm_preference *out, mm_err *err)
{
    MM_TRY(mm_preference_kind_parse(mm_config_text(config, "dpo_loss"), &out->kind, err));
    out->mean = strcmp(mm_config_text(config, "logp"), "mean") == 0;
    out->beta = mm_config_real(config, "beta");
    out->label_smoothing = mm_config_real(config, "label_smoothing");
    out->gamma = mm_config_real(config, "simpo_gamma");
    return MM_OK;
}

static mm_status open_pairs(mm_session *s, mm_err *err)
{
    const mm_engine_options sizes = mm_train_engine(s->config, s->train, s->val, true);
    const size_t n = (size_t)sizes.max_tokens;
    preferring *p = mm_calloc(1, sizeof *p);
    if (!p) return MM_FAIL(err, MM_ENOMEM, "no memory for pairs of %zu tokens", n);
    s->objective_state = p;
    MM_TRY(read_preference(s->config, &p->how, err));
    p->logprobs = mm_calloc(n, sizeof *p->logprobs);
    p->weights = mm_calloc(n, sizeof *p->weights);
    if (!p->logprobs || !p->weights)
        return MM_FAIL(err, MM_ENOMEM, "no memory for pairs of %zu tokens", n);
    s->needs_start = p->how.kind != MM_PREFERENCE_SIMPO;
    if (!s->needs_start) return MM_OK;
    return mm_reference_new(&p->reference, sizes.max_tokens, sizes.max_segments, err);
}

// ---- the reference pass ------------------------------------------------------------------------

// The answers of one epoch from a position on, while any of the `total` steps of rows are left.
static mm_status add_epoch(mm_session *s, mm_batcher *batcher, mm_data_position *position,
                           int64_t *left, int64_t total, mm_err *err)
{
    const preferring *p = s->objective_state;
    const int64_t epoch = position->epoch;
    const mm_batch *batch = NULL;
    while (position->epoch == epoch && *left > 0) {
        MM_TRY(mm_batcher_get(batcher, position, &batch, err));
        MM_TRY(mm_reference_add(p->reference, s->engine, batch, err));
        *left -= batch->ends_step;
        mm_progress_count(s->progress, (uint64_t)(total - *left), (uint64_t)total,
                          "reference steps");
        if (mm_signals_stop() != 0)
            return MM_FAIL(err, MM_ECANCELED, "stopped by signal %d before step %lld",
                           mm_signals_stop(), (long long)s->at.step + 1);
    }
    return MM_OK;
}

// How many answers there are is not known before: another epoch may draw other variants of them.
// Steps are, and each is one of the run's or, ahead of them, as many held-out pairs.
static mm_status prepare_reference(mm_session *s, mm_err *err)
{
    const preferring *p = s->objective_state;
    int64_t left = s->steps - s->at.step;
    int64_t val_steps = 0;
    if (s->val) MM_TRY(mm_batcher_epoch_steps(s->val, 0, &val_steps, err));
    left += val_steps;
    const int64_t total = left;
    mm_data_position at = {0};
    if (s->val) MM_TRY(add_epoch(s, s->val, &at, &left, total, err));
    MM_ASSERT(left == total - val_steps);
    at = s->at.data;
    while (left > 0)
        MM_TRY(add_epoch(s, s->train, &at, &left, total, err));
    return mm_reference_flush(p->reference, s->engine, err);
}

// ---- a micro-batch -----------------------------------------------------------------------------

// Pair i of a batch whose policy log-probabilities are in `logprobs`.
static mm_status pair_of(const preferring *p, const mm_batch *batch, int32_t i, mm_pair *pair,
                         mm_err *err)
{
    *pair = (mm_pair){0};
    pair->chosen = mm_segment_sum(batch, 2 * i, p->logprobs, &pair->chosen_tokens);
    pair->rejected = mm_segment_sum(batch, 2 * i + 1, p->logprobs, &pair->rejected_tokens);
    if (!p->reference) return MM_OK;
    MM_TRY(mm_reference_find(p->reference, batch, 2 * i, &pair->reference_chosen, err));
    return mm_reference_find(p->reference, batch, 2 * i + 1, &pair->reference_rejected, err);
}

// An answer's log-probability as the loss takes it.
static double compared(const preferring *p, double sum, int64_t tokens)
{
    const bool is_mean = p->how.mean || p->how.kind == MM_PREFERENCE_SIMPO;
    if (!is_mean) return sum;
    return tokens > 0 ? sum / (double)tokens : 0;
}

static void weigh(const preferring *p, const mm_batch *batch, int32_t segment, double slope)
{
    // Backward takes the derivative of minus the log-probability.
    for (int32_t t = batch->segments[segment]; t < batch->segments[segment + 1]; t++)
        p->weights[t] = batch->labels[t] == MM_LABEL_IGNORE ? 0 : -slope;
}

// Adds a batch's pairs to the sums; `weights` gets what the loss makes of each token.
static mm_status add_pairs(const preferring *p, const mm_batch *batch, double *sums, mm_err *err)
{
    MM_ASSERT(batch->n_segments % 2 == 0);
    for (int32_t i = 0; i < batch->n_segments / 2; i++) {
        mm_pair pair;
        MM_TRY(pair_of(p, batch, i, &pair, err));
        const mm_pair_loss loss = mm_preference_loss(&p->how, &pair);
        weigh(p, batch, 2 * i, loss.d_chosen);
        weigh(p, batch, 2 * i + 1, loss.d_rejected);
        sums[LOSS] += loss.loss;
        sums[MARGIN] += loss.margin;
        sums[ACCURACY] += loss.margin > 0; // a tie is no preference
        sums[LOGP_CHOSEN] += compared(p, pair.chosen, pair.chosen_tokens);
        sums[LOGP_REJECTED] += compared(p, pair.rejected, pair.rejected_tokens);
    }
    return MM_OK;
}

static mm_status backward_pairs(mm_session *s, const mm_batch *batch, double scale, double *sums,
                                mm_err *err)
{
    const preferring *p = s->objective_state;
    mm_loss loss;
    MM_TRY(mm_engine_forward(s->engine, batch, s->at.micro_step, p->logprobs, &loss, err));
    MM_TRY(add_pairs(p, batch, sums, err));
    return mm_engine_backward_weighted(s->engine, batch, p->weights, scale, s->at.micro_step, err);
}

// ---- held-out pairs ----------------------------------------------------------------------------

static mm_status evaluate_pairs(mm_session *s, mm_err *err)
{
    const preferring *p = s->objective_state;
    double sums[VALUES] = {0};
    int64_t n_pairs = 0;
    mm_data_position position = {0};
    while (position.epoch == 0) {
        const mm_batch *batch = NULL;
        MM_TRY(mm_batcher_get(s->val, &position, &batch, err));
        MM_TRY(mm_engine_logprobs(s->engine, batch, p->logprobs, err));
        MM_TRY(add_pairs(p, batch, sums, err));
        n_pairs += batch->n_segments / 2;
    }
    const double n = (double)n_pairs;
    s->last_val_loss = sums[LOSS] / n;
    MM_TRY(mm_session_log(s, "val_loss", s->last_val_loss, err));
    MM_TRY(mm_session_log(s, "dpo/val_accuracy", sums[ACCURACY] / n, err));
    MM_TRY(mm_session_log(s, "dpo/val_margin", sums[MARGIN] / n, err));
    mm_progress_line(s->progress,
                     "%s step %lld: val_loss %.4f, prefers the chosen answer in %.1f %% of %lld "
                     "pairs, margin %.4f",
                     s->run.name, (long long)s->at.step, s->last_val_loss, 100 * sums[ACCURACY] / n,
                     (long long)n_pairs, sums[MARGIN] / n);
    return MM_OK;
}

const mm_objective mm_objective_preference = {
    .is_of_pairs = true,
    .series = {"dpo/margin", "dpo/accuracy", "dpo/logp_chosen", "dpo/logp_rejected"},
    .open = open_pairs,
    .close = close_pairs,
    .prepare = prepare_reference,
    .backward = backward_pairs,
    .evaluate = evaluate_pairs};
