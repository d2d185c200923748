/* The verdict: which run is best, by how much, and what stands against believing it.
 *
 * Rules. Runs of one stage are compared with each other only. Finished runs are ranked, others are
 * named. The measure is the best validation loss when every finished run has one, else the final
 * training loss; with different tokenizers only bits per byte count, and runs that were scored on
 * different text are not ranked at all. Runs that agree in everything
 * but the seed are one configuration, and its runs give the spread. Smoothed values never rank.
 */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    NAMED_MAX = 4,     /* runs listed by name in one sentence */
    NAME_COLUMNS = 40, /* of a name inside a sentence */
    REMARK_BYTES = 1024
};

/* One configuration: runs that differ in nothing but the seed. */
typedef struct seed_group {
    size_t first; /* run */
    size_t n;
    double sum;
    double sum_sq;
    double low;
    double high;
} seed_group;

typedef struct judgement {
    mm_page_run *runs;
    size_t n_runs;
    mm_setting *settings;
    size_t n_settings;
    mm_arena *arena;
    mm_verdict *out;
    const char *stage;
    size_t *ranked; /* finished runs of the stage, best first */
    size_t n_ranked;
    double (*value_of)(const mm_page_run *); /* NULL: not comparable */
    const char *metric;                      /* for people */
} judgement;

static void add_remark(mm_verdict *out, mm_arena *arena, mm_remark head, const char *format,
                       va_list args)
{
    if (out->count >= MM_REMARKS_MAX) return;
    char line[REMARK_BYTES];
    vsnprintf(line, sizeof line, format, args);
    head.text = mm_arena_strdup(arena, line);
    if (head.text) out->remarks[out->count++] = head;
}

void mm_remark_add(mm_verdict *out, mm_arena *arena, mm_remark_kind kind, const char *stage,
                   const char *lead, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_remark(out, arena, (mm_remark){.kind = kind, .stage = stage, .lead = lead}, format, args);
    va_end(args);
}

static void remark(judgement *judge, mm_remark_kind kind, const char *lead, const char *format, ...)
    MM_PRINTF(4, 5);
static void remark(judgement *judge, mm_remark_kind kind, const char *lead, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_remark(judge->out, judge->arena,
               (mm_remark){.kind = kind, .stage = judge->stage, .lead = lead}, format, args);
    va_end(args);
}

static double val_loss_of(const mm_page_run *run) { return run->info.best_val_loss; }
static double final_loss_of(const mm_page_run *run) { return run->info.final_loss; }
static double bpb_of(const mm_page_run *run) { return run->bpb; }
static double preference_error_of(const mm_page_run *run)
{
    return 1 - mm_run_preference_accuracy(run);
}

static const char *name_of(const judgement *judge, const mm_page_run *run)
{
    return mm_fmt_fit(judge->arena, run->label, NAME_COLUMNS);
}

static bool is_of_stage(const judgement *judge, size_t i)
{
    return strcmp(judge->runs[i].info.stage, judge->stage) == 0;
}

static bool has_bad_loss(const mm_page_run *run)
{
    static const char *const names[] = {"loss", "val_loss", "grad_norm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const mm_series_info *series = mm_page_series(run, names[i]);
        if (series && series->n_bad > 0) return true;
    }
    return false;
}

// A run that diverged has no finite value; it does not keep the others from being ranked.
static bool all_have(const judgement *judge, double (*value_of)(const mm_page_run *))
{
    size_t count = 0;
    for (size_t i = 0; i < judge->n_ranked; i++) {
        const mm_page_run *run = &judge->runs[judge->ranked[i]];
        if (isfinite(value_of(run)))
            count++;
        else if (!has_bad_loss(run))
            return false;
    }
    return count > 0;
}

static bool is_same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : !a && !b; }

static size_t count_of_role(const mm_page_run *run, const char *role)
{
    size_t count = 0;
    for (size_t i = 0; i < run->n_datasets; i++)
        count += is_same(run->datasets[i].role, role);
    return count;
}

// The same files by content, in any order.
static bool has_same_data(const mm_page_run *a, const mm_page_run *b, const char *role)
{
    if (count_of_role(a, role) != count_of_role(b, role)) return false;
    for (size_t i = 0; i < a->n_datasets; i++) {
        if (!is_same(a->datasets[i].role, role)) continue;
        bool is_found = false;
        for (size_t j = 0; j < b->n_datasets && !is_found; j++)
            is_found = is_same(b->datasets[j].role, role) &&
                       is_same(a->datasets[i].sha256, b->datasets[j].sha256);
        if (!is_found) return false;
    }
    return true;
}

static bool tokenizers_differ(const judgement *judge)
{
    for (size_t i = 1; i < judge->n_ranked; i++)
        if (!is_same(judge->runs[judge->ranked[0]].tokenizer,
                     judge->runs[judge->ranked[i]].tokenizer))
            return true;
    return false;
}

static bool datasets_differ(const judgement *judge, const char *role)
{
    for (size_t i = 1; i < judge->n_ranked; i++)
        if (!has_same_data(&judge->runs[judge->ranked[0]], &judge->runs[judge->ranked[i]], role))
            return true;
    return false;
}

// Without validation files the rows held out of the training files are what is scored.
static bool scored_texts_differ(const judgement *judge)
{
    if (judge->n_ranked == 0) return false;
    return datasets_differ(judge, "val") ||
           (count_of_role(&judge->runs[judge->ranked[0]], "val") == 0 &&
            datasets_differ(judge, "train"));
}

static bool settings_differ(const judgement *judge, const char *name)
{
    for (size_t i = 1; i < judge->n_ranked; i++)
        if (!is_same(mm_run_param(&judge->runs[judge->ranked[0]], name),
                     mm_run_param(&judge->runs[judge->ranked[i]], name)))
            return true;
    return false;
}

// A preference loss is measured in the units of its own settings.
static bool preference_losses_differ(const judgement *judge)
{
    static const char *const names[] = {"dpo_loss", "beta", "label_smoothing", "logp",
                                        "simpo_gamma"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (settings_differ(judge, names[i])) return true;
    return false;
}

static void choose_preference_metric(judgement *judge)
{
    if (!preference_losses_differ(judge) && all_have(judge, val_loss_of)) {
        judge->value_of = val_loss_of;
        judge->metric = "held-out preference loss";
    } else if (all_have(judge, preference_error_of)) {
        judge->value_of = preference_error_of;
        judge->metric = "share of held-out pairs put the wrong way round";
    }
}

static void choose_metric(judgement *judge)
{
    judge->metric = NULL;
    judge->value_of = NULL;
    if (judge->n_ranked == 0 || scored_texts_differ(judge)) return;
    if (mm_run_is_preference(&judge->runs[judge->ranked[0]])) {
        choose_preference_metric(judge);
    } else if (tokenizers_differ(judge)) {
        if (all_have(judge, bpb_of)) {
            judge->value_of = bpb_of;
            judge->metric = "bits per byte";
        }
    } else if (all_have(judge, val_loss_of)) {
        judge->value_of = val_loss_of;
        judge->metric = "validation loss";
    } else if (all_have(judge, final_loss_of)) {
        judge->value_of = final_loss_of;
        judge->metric = "final training loss";
    }
}

static const char *metric_name(const judgement *judge)
{
    return judge->value_of == val_loss_of           ? "val_loss"
           : judge->value_of == bpb_of              ? "val_bpb"
           : judge->value_of == preference_error_of ? "dpo/val_accuracy"
                                                    : "loss";
}

static const char *why_not_ranked(const judgement *judge)
{
    if (scored_texts_differ(judge))
        return "they were scored on different text. Score them on the same: mmrun eval RUN --data "
               "FILE";
    if (mm_run_is_preference(&judge->runs[judge->ranked[0]]))
        return preference_losses_differ(judge)
                   ? "their preference losses are of different kinds, and not every run has a "
                     "held-out accuracy"
                   : "not every finished run has a held-out preference loss";
    return tokenizers_differ(judge) ? "the tokenizers differ and bits per byte are not known"
                                    : "not every finished run has a loss";
}

static void drop_diverged(judgement *judge)
{
    size_t kept = 0;
    for (size_t i = 0; i < judge->n_ranked; i++)
        if (isfinite(judge->value_of(&judge->runs[judge->ranked[i]])))
            judge->ranked[kept++] = judge->ranked[i];
    judge->n_ranked = kept;
}

// Insertion keeps equal runs in the order of the page.
static void rank_runs(judgement *judge)
{
    for (size_t i = 1; i < judge->n_ranked; i++) {
        const size_t moved = judge->ranked[i];
        const double value = judge->value_of(&judge->runs[moved]);
        size_t at = i;
        while (at > 0 && judge->value_of(&judge->runs[judge->ranked[at - 1]]) > value) {
            judge->ranked[at] = judge->ranked[at - 1];
            at--;
        }
        judge->ranked[at] = moved;
    }
    for (size_t i = 0; i < judge->n_ranked; i++)
        judge->runs[judge->ranked[i]].rank = i + 1;
}

static bool is_same_but_seed(const judgement *judge, size_t a, size_t b)
{
    for (size_t i = 0; i < judge->n_settings; i++) {
        const mm_setting *setting = &judge->settings[i];
        if (!setting->differs || strcmp(setting->name, "seed") == 0) continue;
        if (!is_same(mm_setting_value(setting, a), mm_setting_value(setting, b))) return false;
    }
    return true;
}

static size_t find_arms(const judgement *judge, seed_group *arms)
{
    size_t count = 0;
    for (size_t i = 0; i < judge->n_ranked; i++) {
        const size_t run = judge->ranked[i];
        const double value = judge->value_of(&judge->runs[run]);
        size_t at = 0;
        while (at < count && !is_same_but_seed(judge, arms[at].first, run))
            at++;
        if (at == count) arms[count++] = (seed_group){.first = run, .low = value, .high = value};
        arms[at].n++;
        arms[at].sum += value;
        arms[at].sum_sq += value * value;
        arms[at].low = fmin(arms[at].low, value);
        arms[at].high = fmax(arms[at].high, value);
    }
    for (size_t i = 1; i < count; i++) { // by mean, best first
        const seed_group moved = arms[i];
        size_t at = i;
        while (at > 0 && arms[at - 1].sum / (double)arms[at - 1].n > moved.sum / (double)moved.n) {
            arms[at] = arms[at - 1];
            at--;
        }
        arms[at] = moved;
    }
    return count;
}

// Two-sided 95 % quantile of Student's t.
static double student_t(size_t freedom)
{
    static const double table[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365,
                                   2.306,  2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
                                   2.131,  2.120, 2.110, 2.101, 2.093, 2.086};
    if (freedom == 0) return (double)INFINITY;
    return freedom <= sizeof table / sizeof *table ? table[freedom - 1] : 2.0;
}

// All points for two or three seeds, the 95 % interval of the mean from four on.
static void arm_range(const seed_group *arm, double *low, double *high)
{
    *low = arm->low;
    *high = arm->high;
    if (arm->n < 4) return;
    const double n = (double)arm->n;
    const double mean = arm->sum / n;
    const double variance = fmax(0, (arm->sum_sq - n * mean * mean) / (n - 1));
    const double half = student_t(arm->n - 1) * sqrt(variance / n);
    *low = mean - half;
    *high = mean + half;
}

static void say_difference(judgement *judge, const char *lead, double best, double other,
                           const char *other_name)
{
    char a[MM_FMT_BYTES];
    char b[MM_FMT_BYTES];
    mm_fmt_number(best, a);
    snprintf(b, sizeof b, "%.3g", other - best);
    if (other - best <= fabs(best) * 1e-9)
        remark(judge, MM_REMARK_HEADLINE, lead, "and %s tie at a %s of %s.", other_name,
               judge->metric, a);
    else
        remark(judge, MM_REMARK_HEADLINE, lead, "has the lowest %s: %s, %s (%.2g %%) below %s.",
               judge->metric, a, b, 100 * (other - best) / fabs(other), other_name);
}

static void say_seeds(judgement *judge, const seed_group *best, const seed_group *next)
{
    if (best->n == 1 && (!next || next->n == 1)) {
        remark(judge, MM_REMARK_WARNING, "One seed per configuration:",
               "no spread is known, so a small difference may be chance. Repeat with other seeds "
               "to find out.");
        return;
    }
    double low;
    double high;
    char a[MM_FMT_BYTES];
    char b[MM_FMT_BYTES];
    char c[MM_FMT_BYTES];
    arm_range(best, &low, &high);
    mm_fmt_number(best->sum / (double)best->n, a);
    mm_fmt_number(low, b);
    mm_fmt_number(high, c);
    if (best->n == 1)
        remark(judge, MM_REMARK_WARNING, "One seed",
               "of the best configuration: no spread is known for it.");
    else
        remark(judge, MM_REMARK_FACT,
               "Best configuration:", "mean %s over %zu seeds (%s %s to %s).", a, best->n,
               best->n < 4 ? "range" : "95 % interval", b, c);
    if (!next) return;
    double next_low;
    double next_high;
    arm_range(next, &next_low, &next_high);
    mm_fmt_number(next->sum / (double)next->n, a);
    mm_fmt_number(next_low, b);
    mm_fmt_number(next_high, c);
    if (next->n > 1)
        remark(judge, MM_REMARK_FACT,
               "Next configuration:", "mean %s over %zu seeds (%s %s to %s).", a, next->n,
               next->n < 4 ? "range" : "95 % interval", b, c);
    if (next_low <= high)
        remark(judge, MM_REMARK_WARNING,
               "Not distinguishable:", "the ranges of the two best configurations overlap.");
}

static mm_status judge_several(judgement *judge, mm_err *err)
{
    rank_runs(judge);
    seed_group *arms = mm_arena_alloc(judge->arena, judge->n_ranked * sizeof *arms);
    if (!arms) return MM_FAIL(err, MM_ENOMEM, "comparing runs");
    const size_t n_arms = find_arms(judge, arms);
    const mm_page_run *best = &judge->runs[judge->ranked[0]];
    const mm_page_run *next = &judge->runs[judge->ranked[1]];
    const double value = judge->value_of(best);
    say_difference(judge, best->label, value, judge->value_of(next), name_of(judge, next));
    size_t base = judge->ranked[0]; // the first run of the stage is what others are held against
    for (size_t i = 0; i < judge->n_ranked; i++)
        base = judge->ranked[i] < base ? judge->ranked[i] : base;
    const mm_page_run *baseline = &judge->runs[base];
    if (baseline != best && baseline != next) {
        char text[MM_FMT_BYTES];
        snprintf(text, sizeof text, "%.3g", judge->value_of(baseline) - value);
        remark(judge, MM_REMARK_FACT, "Against the baseline",
               "%s, the first run shown: %s lower (%.2g %%).", name_of(judge, baseline), text,
               100 * (judge->value_of(baseline) - value) / fabs(judge->value_of(baseline)));
    }
    say_seeds(judge, &arms[0], n_arms > 1 ? &arms[1] : NULL);
    if (n_arms >= 6)
        remark(judge, MM_REMARK_FACT, "Best of many:",
               "%zu configurations were tried; the lowest of many flatters itself a little.",
               n_arms);
    return MM_OK;
}

static void judge_one(judgement *judge, const mm_page_run *run)
{
    char value[MM_FMT_BYTES] = "";
    char time[MM_TIME_ISO_BYTES];
    char steps[MM_FMT_BYTES];
    mm_duration_text(run->info.duration_s, time);
    mm_fmt_count(run->info.steps, steps);
    if (judge->metric) mm_fmt_number(judge->value_of(run), value);
    remark(judge, MM_REMARK_HEADLINE, run->label, "finished %s steps in %s%s%s%s%s.", steps, time,
           judge->metric ? " with a " : "", judge->metric ? judge->metric : "",
           judge->metric ? " of " : "", value);
    const mm_series_info *loss = mm_page_series(run, "loss");
    const mm_series_info *val = mm_page_series(run, "val_loss");
    if (val && val->n > 0 && mm_run_is_preference(run)) {
        mm_fmt_number(val->min, value);
        remark(judge, MM_REMARK_FACT, "Best validation",
               "at step %" PRId64 ", a preference loss of %s.", val->min_step, value);
    } else if (val && val->n > 0) {
        char perplexity[MM_FMT_BYTES];
        mm_fmt_number(run->perplexity, perplexity);
        remark(judge, MM_REMARK_FACT, "Best validation", "at step %" PRId64 ", perplexity %s.",
               val->min_step, perplexity);
    }
    if (loss && loss->n > 1 && isfinite(loss->max)) {
        char last[MM_FMT_BYTES];
        mm_fmt_number(loss->max, value);
        mm_fmt_number(loss->last, last);
        remark(judge, MM_REMARK_FACT, "Training loss",
               "went from at most %s (step %" PRId64 ") to %s.", value, loss->max_step, last);
    }
    if (judge->n_runs == 1) remark(judge, MM_REMARK_WARNING, "One seed:", "no spread is known.");
}

// Names of up to NAMED_MAX runs for which `holds` is true, then "and N more"; NULL when none.
static const char *list_runs(judgement *judge, bool (*holds)(const mm_page_run *), size_t *count)
{
    mm_str text;
    mm_str_init(&text, 0);
    *count = 0;
    for (size_t i = 0; i < judge->n_runs; i++) {
        if (!is_of_stage(judge, i) || !holds(&judge->runs[i])) continue;
        if (++*count > NAMED_MAX) continue;
        mm_str_add(&text, *count > 1 ? ", " : "");
        mm_str_add(&text, name_of(judge, &judge->runs[i]));
        if (!mm_page_is_finished(&judge->runs[i]))
            mm_str_addf(&text, " (%s at step %" PRId64 ")", judge->runs[i].info.status,
                        judge->runs[i].info.steps);
    }
    if (*count > NAMED_MAX) mm_str_addf(&text, " and %zu more", *count - NAMED_MAX);
    const char *copy = mm_arena_strdup(judge->arena, mm_str_text(&text));
    mm_str_drop(&text);
    return *count > 0 ? copy : NULL;
}

static bool is_unfinished(const mm_page_run *run) { return !mm_page_is_finished(run); }

static bool goes_on(const mm_page_run *run) { return run->info.parent_id > 0; }

// The last validation is more than 2 % above the best one, and there were enough to tell.
static bool rose_again(const mm_page_run *run)
{
    const mm_series_info *val = mm_page_series(run, "val_loss");
    return val && val->n >= 4 && isfinite(val->last) && val->last > val->min * 1.02;
}

static bool parents_differ(const judgement *judge)
{
    const mm_run_info *first = &judge->runs[judge->ranked[0]].info;
    for (size_t i = 1; i < judge->n_ranked; i++) {
        const mm_run_info *other = &judge->runs[judge->ranked[i]].info;
        if (first->parent_id <= 0 || other->parent_id <= 0) continue;
        if (first->parent_id != other->parent_id || first->parent_step != other->parent_step)
            return true;
    }
    return false;
}

static void warn_of_lengths(judgement *judge)
{
    int64_t least = INT64_MAX;
    int64_t most = 0;
    for (size_t i = 0; i < judge->n_ranked; i++) {
        const int64_t steps = judge->runs[judge->ranked[i]].info.steps;
        least = steps < least ? steps : least;
        most = steps > most ? steps : most;
    }
    if (judge->n_ranked < 2 || least == most) return;
    // Who leads where all of them still were: the last validation up to the common step.
    const mm_page_run *leader = NULL;
    double leading = (double)INFINITY;
    for (size_t i = 0; i < judge->n_ranked; i++) {
        const mm_page_run *run = &judge->runs[judge->ranked[i]];
        double value = (double)INFINITY;
        for (size_t j = 0; j < run->n_val && run->val_curve[j].step_last <= least; j++)
            if (run->val_curve[j].n > 0) value = run->val_curve[j].mean;
        if (value < leading) {
            leading = value;
            leader = run;
        }
    }
    char value[MM_FMT_BYTES];
    mm_fmt_number(leading, value);
    if (leader)
        remark(judge, MM_REMARK_WARNING, "Different lengths:",
               "%" PRId64 " to %" PRId64 " steps. Up to the common step %" PRId64
               ", %s leads with a validation loss of %s.",
               least, most, least, name_of(judge, leader), value);
    else
        remark(judge, MM_REMARK_WARNING, "Different lengths:",
               "%" PRId64 " to %" PRId64 " steps; compare the curves at equal steps.", least, most);
}

static void warn(judgement *judge)
{
    size_t count;
    const char *names = list_runs(judge, is_unfinished, &count);
    if (names) remark(judge, MM_REMARK_WARNING, "Not finished, not ranked:", "%s.", names);
    if (judge->n_ranked > 1) {
        if (parents_differ(judge))
            remark(judge, MM_REMARK_WARNING, "Different starting points:",
                   "the runs go on from different models, so the difference may come from those.");
        if (tokenizers_differ(judge) && !mm_run_is_preference(&judge->runs[judge->ranked[0]]))
            remark(judge, MM_REMARK_WARNING, "Different tokenizers:",
                   "loss per token cannot be compared, only bits per byte.");
        if (!scored_texts_differ(judge) && datasets_differ(judge, "train"))
            remark(judge, MM_REMARK_WARNING,
                   "Different training data:", "the difference may come from the data.");
        if (judge->value_of == final_loss_of)
            remark(judge, MM_REMARK_WARNING, "No validation loss for all runs:",
                   "ranked by the last training loss, which is noisy and seen data.");
        warn_of_lengths(judge);
    }
    size_t n_of_stage = 0;
    for (size_t i = 0; i < judge->n_runs; i++)
        n_of_stage += is_of_stage(judge, i);
    names = list_runs(judge, goes_on, &count);
    if (names && count < n_of_stage && judge->n_ranked > 1)
        remark(judge, MM_REMARK_WARNING, "Not all start from nothing:",
               "%s continued another run, so its steps come on top of those.", names);
    names = list_runs(judge, has_bad_loss, &count);
    if (names)
        remark(judge, MM_REMARK_WARNING, "Values that are not finite", "were logged by %s.", names);
    names = list_runs(judge, rose_again, &count);
    if (names)
        remark(judge, MM_REMARK_WARNING, "Validation loss rose again", "before the end: %s.",
               names);
}

static mm_status judge_stage(judgement *judge, mm_err *err)
{
    const size_t first_remark = judge->out->count;
    judge->n_ranked = 0;
    for (size_t i = 0; i < judge->n_runs; i++)
        if (is_of_stage(judge, i) && mm_page_is_finished(&judge->runs[i]))
            judge->ranked[judge->n_ranked++] = i;
    choose_metric(judge);
    if (judge->metric) drop_diverged(judge);
    if (judge->n_ranked == 0) {
        remark(judge, MM_REMARK_HEADLINE, NULL, "No run has finished yet, so none is ranked.");
    } else if (judge->n_ranked == 1) {
        judge->runs[judge->ranked[0]].rank = judge->metric ? 1 : 0;
        judge_one(judge, &judge->runs[judge->ranked[0]]);
    } else if (!judge->metric) {
        remark(judge, MM_REMARK_HEADLINE, NULL, "No best run can be named: %s.",
               why_not_ranked(judge));
    } else {
        MM_TRY(judge_several(judge, err));
    }
    if (judge->n_ranked > 0 && (judge->metric || judge->n_ranked == 1))
        mm_verdict_stage(&judge->runs[judge->ranked[0]], judge->n_ranked > 1, judge->arena,
                         judge->out);
    warn(judge);
    if (first_remark == 0 && judge->n_ranked > 0 && judge->metric) {
        judge->out->best_idx = judge->ranked[0];
        judge->out->best_id = judge->runs[judge->ranked[0]].info.id;
        judge->out->metric = metric_name(judge);
    }
    return MM_OK;
}

mm_status mm_verdict_make(mm_page_run *runs, size_t n_runs, mm_setting *settings, size_t n_settings,
                          mm_arena *arena, mm_verdict *out, mm_err *err)
{
    *out = (mm_verdict){.best_idx = SIZE_MAX};
    judgement judge = {.runs = runs,
                       .n_runs = n_runs,
                       .settings = settings,
                       .n_settings = n_settings,
                       .arena = arena,
                       .out = out};
    judge.ranked = mm_arena_alloc(arena, (n_runs + 1) * sizeof *judge.ranked);
    if (!judge.ranked) return MM_FAIL(err, MM_ENOMEM, "comparing %zu runs", n_runs);
    for (size_t i = 0; i < n_runs; i++) {
        bool is_new = true;
        for (size_t j = 0; j < i; j++)
            is_new = is_new && strcmp(runs[j].info.stage, runs[i].info.stage) != 0;
        if (!is_new) continue;
        judge.stage = runs[i].info.stage;
        MM_TRY(judge_stage(&judge, err));
    }
    return MM_OK;
}
