/* What the curves of one run say in the terms of its stage.
 *
 * A preference loss is no cross entropy: it starts at a value that its formula gives, it says
 * nothing about tokens, and what counts is whether the margin grew and whether held-out pairs are
 * put in order more often than at the start. Adapters and teachers have their own facts.
 */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/number.h"
#include "core/base/stat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where remarks about one run go. */
typedef struct speaker {
    const mm_page_run *run;
    const char *of; /* " (NAME)" where several runs were compared, else "" */
    mm_arena *arena;
    mm_verdict *out;
} speaker;

// Further than this from the value of the formula, the two models did not start equal.
static const double FIRST_LOSS_SLACK = 0.02;
static const double TIE_SLACK = 1e-9; /* of a margin */

bool mm_run_is_preference(const mm_page_run *run)
{
    return run->info.stage && strcmp(run->info.stage, "dpo") == 0;
}

double mm_run_preference_accuracy(const mm_page_run *run)
{
    const mm_series_info *accuracy = mm_page_series(run, "dpo/val_accuracy");
    return accuracy && accuracy->n > 0 ? accuracy->last : (double)NAN;
}

static double number_of(const mm_page_run *run, const char *name, double otherwise)
{
    const char *text = mm_run_param(run, name);
    char *end = NULL;
    const double value = text ? strtod(text, &end) : otherwise;
    return text && end != text && *end == '\0' ? value : otherwise;
}

/* ---- dpo ---------------------------------------------------------------------------------------
 */

// The loss of a pair while policy and reference are one model: all margins are zero.
static double first_loss_of(const mm_page_run *run, const char **why)
{
    const char *kind = mm_run_param(run, "dpo_loss");
    const double beta = number_of(run, "beta", (double)NAN);
    if (!kind || strcmp(kind, "sigmoid") == 0) {
        *why = "ln 2";
        return log(2);
    }
    if (strcmp(kind, "hinge") == 0) {
        *why = "1";
        return 1;
    }
    *why = "1 / (4 beta²)";
    return strcmp(kind, "ipo") == 0 ? 1 / (4 * beta * beta) : (double)NAN;
}

static void say_first_loss(const speaker *say)
{
    const mm_series_info *loss = mm_page_series(say->run, "loss");
    const char *why;
    const double expected = first_loss_of(say->run, &why);
    if (!loss || loss->first_step != 1 || !isfinite(loss->first) || !isfinite(expected)) return;
    char found[MM_FMT_BYTES];
    char wanted[MM_FMT_BYTES];
    mm_fmt_number(loss->first, found);
    mm_fmt_number(expected, wanted);
    if (fabs(loss->first - expected) <= FIRST_LOSS_SLACK * fmax(1, expected))
        mm_remark_add(say->out, say->arena, MM_REMARK_FACT, say->run->info.stage, "First loss",
                      "%s, as it must be: with policy and reference the same model every pair "
                      "costs %s = %s%s.",
                      found, why, wanted, say->of);
    else
        mm_remark_add(say->out, say->arena, MM_REMARK_WARNING, say->run->info.stage, "First loss",
                      "%s, where %s = %s was expected: policy and reference were not the same "
                      "model at the start%s.",
                      found, why, wanted, say->of);
}

static void say_margin(const speaker *say)
{
    const mm_series_info *held = mm_page_series(say->run, "dpo/val_margin");
    const mm_series_info *margin =
        held && held->n > 1 ? held : mm_page_series(say->run, "dpo/margin");
    if (!margin || margin->n < 2 || !isfinite(margin->first) || !isfinite(margin->last)) return;
    char first[MM_FMT_BYTES];
    char last[MM_FMT_BYTES];
    mm_fmt_number(margin->first, first);
    mm_fmt_number(margin->last, last);
    const bool has_grown = margin->last > margin->first;
    mm_remark_add(say->out, say->arena, has_grown ? MM_REMARK_FACT : MM_REMARK_WARNING,
                  say->run->info.stage, margin == held ? "Held-out margin" : "Margin",
                  "%s from %s to %s%s.", has_grown ? "grew" : "did not grow: it went", first, last,
                  say->of);
}

static void say_accuracy(const speaker *say)
{
    const mm_series_info *accuracy = mm_page_series(say->run, "dpo/val_accuracy");
    if (!accuracy || accuracy->n == 0 || !isfinite(accuracy->last)) return;
    const int64_t n = (int64_t)number_of(say->run, "val_rows", 0);
    const char *stage = say->run->info.stage;
    if (n < 1 || accuracy->last < 0 || accuracy->last > 1) {
        mm_remark_add(say->out, say->arena, MM_REMARK_FACT, stage, "Held-out accuracy",
                      "ended at %.1f %% of the pairs; how many there were is not recorded%s.",
                      100 * accuracy->last, say->of);
        return;
    }
    const mm_interval interval = mm_wilson_interval(llround(accuracy->last * (double)n), n);
    const double low = interval.low;
    const double high = interval.high;
    if (accuracy->n < 2 || !isfinite(accuracy->first)) {
        mm_remark_add(say->out, say->arena, MM_REMARK_FACT, stage, "Held-out accuracy",
                      "%.1f %% of %" PRId64 " pairs (95 %% interval %.1f to %.1f %%)%s.",
                      100 * accuracy->last, n, 100 * low, 100 * high, say->of);
        return;
    }
    // Before the first step every pair is a tie, which is no preference: chance would be a half.
    const mm_series_info *margin = mm_page_series(say->run, "dpo/val_margin");
    const bool was_tied = accuracy->first <= 0 && margin && fabs(margin->first) < TIE_SLACK;
    const double start = was_tied ? 0.5 : accuracy->first;
    const bool has_moved = start < low || start > high;
    char from[MM_FMT_BYTES];
    snprintf(from, sizeof from, "%.1f", 100 * accuracy->first);
    mm_remark_add(say->out, say->arena,
                  has_moved && accuracy->last > start ? MM_REMARK_FACT : MM_REMARK_WARNING, stage,
                  "Held-out accuracy",
                  "went from %s to %.1f %% of %" PRId64
                  " pairs (95 %% interval %.1f to %.1f %%)%s%s.",
                  was_tied ? "ties" : from, 100 * accuracy->last, n, 100 * low, 100 * high,
                  !has_moved               ? ", which chance alone explains"
                  : accuracy->last < start ? ", the wrong way"
                                           : "",
                  say->of);
}

/* ---- lora, distill -----------------------------------------------------------------------------
 */

static void say_adapters(const speaker *say)
{
    const mm_run_info *info = &say->run->info;
    const char *rank = mm_run_param(say->run, "lora_rank");
    if (!rank || strcmp(rank, "0") == 0 || info->params_total <= 0) return;
    char trained[MM_NUMBER_BYTES];
    char total[MM_NUMBER_BYTES];
    mm_count_text((double)info->params_trainable, trained);
    mm_count_text((double)info->params_total, total);
    mm_remark_add(say->out, say->arena, MM_REMARK_FACT, info->stage, "Adapters",
                  "of rank %s: %s of %s parameters were trained (%.2g %%)%s.", rank, trained, total,
                  100 * (double)info->params_trainable / (double)info->params_total, say->of);
}

static void say_teacher(const speaker *say)
{
    const mm_series_info *kl = mm_page_series(say->run, "distill/kl");
    if (!kl || kl->n < 2 || !isfinite(kl->first) || !isfinite(kl->last)) return;
    char first[MM_FMT_BYTES];
    char last[MM_FMT_BYTES];
    mm_fmt_number(kl->first, first);
    mm_fmt_number(kl->last, last);
    const bool has_come_closer = kl->last < kl->first;
    mm_remark_add(say->out, say->arena, has_come_closer ? MM_REMARK_FACT : MM_REMARK_WARNING,
                  say->run->info.stage, "Distance to the teacher",
                  "(KL divergence per token) went from %s to %s%s.", first, last, say->of);
}

void mm_verdict_stage(const mm_page_run *run, bool with_name, mm_arena *arena, mm_verdict *out)
{
    enum { NAME_COLUMNS = 40, OF_BYTES = 256 };
    char of[OF_BYTES] = "";
    if (with_name) snprintf(of, sizeof of, " (%s)", mm_fmt_fit(arena, run->label, NAME_COLUMNS));
    const speaker say = {.run = run, .of = of, .arena = arena, .out = out};
    if (mm_run_is_preference(run)) {
        say_first_loss(&say);
        say_margin(&say);
        say_accuracy(&say);
    }
    say_adapters(&say);
    say_teacher(&say);
}
