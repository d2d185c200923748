/* The top of the page: what this is, which run won, the table of runs, what differed. */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/clock.h"
#include "core/base/number.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIFFERENCES_SHOWN = 6, /* keys under the verdict */
    VALUE_COLUMNS = 40,
    VALUES_SHOWN = 6,   /* distinct values of one */
    COLUMNS_OF_RUNS = 6 /* up to this many runs are columns of the settings, else rows */
};

void mm_section_title(mm_page *page)
{
    mm_html *html = &page->html;
    char text[MM_FMT_BYTES];
    mm_html_open(html, "header");
    mm_html_leaf(html, "p", "over", "mmrun report");
    mm_html_begin(html, "h1", NULL);
    if (page->options->title) {
        mm_html_text(html, page->options->title);
    } else if (page->has_sweep) {
        mm_html_text(html, "Sweep ");
        mm_html_leaf(html, "bdi", NULL, page->sweep.name);
    } else if (page->n_runs <= 3) {
        for (size_t i = 0; i < page->n_runs; i++) {
            if (i > 0) mm_html_text(html, i + 1 == page->n_runs ? " and " : ", ");
            mm_html_leaf(html, "bdi", NULL, page->runs[i].label);
        }
    } else {
        mm_html_textf(html, "%zu training runs", page->n_runs);
    }
    mm_html_close(html);
    mm_html_begin(html, "p", "meta");
    mm_fmt_time(page->newest_ms, text);
    mm_html_textf(html, "%zu run%s · records up to %s · ", page->n_runs,
                  page->n_runs == 1 ? "" : "s", text);
    const char *version = page->runs[page->n_runs - 1].info.version;
    mm_html_text(html, "mmrun ");
    mm_html_text(html, version ? version : "?");
    mm_html_textf(html, " · database schema %" PRId32, page->schema_version);
    mm_html_close(html);
    mm_html_close(html);
}

// Distinct values of a setting in the order of the runs; returns how many there are in all.
static size_t distinct_values(const mm_page *page, const mm_setting *setting,
                              const char *values[VALUES_SHOWN])
{
    size_t count = 0;
    for (size_t i = 0; i < page->n_runs; i++) {
        const char *value = mm_setting_value(setting, i);
        bool is_new = value != NULL;
        for (size_t j = 0; j < i && is_new; j++) {
            const char *other = mm_setting_value(setting, j);
            is_new = !other || strcmp(other, value) != 0;
        }
        if (!is_new) continue;
        if (count < VALUES_SHOWN) values[count] = value;
        count++;
    }
    return count;
}

static const char *difference_text(mm_page *page, const char *value)
{
    return mm_fmt_fit(&page->arena, mm_page_private(page, &page->runs[0], value), VALUE_COLUMNS);
}

static void write_difference(mm_page *page, const mm_setting *setting, const char *best)
{
    mm_html *html = &page->html;
    const char *values[VALUES_SHOWN] = {NULL};
    const size_t count = distinct_values(page, setting, values);
    mm_html_leaf(html, "dt", NULL, setting->name);
    mm_html_open(html, "dd");
    bool is_best_shown = false;
    for (size_t i = 0; i < count && i < VALUES_SHOWN; i++) {
        const bool is_best = best && strcmp(values[i], best) == 0;
        is_best_shown = is_best_shown || is_best;
        if (i > 0) mm_html_text(html, " · ");
        mm_html_begin(html, is_best ? "strong" : "span", is_best ? "won" : NULL);
        mm_html_text(html, difference_text(page, values[i]));
        mm_html_close(html);
    }
    if (count > VALUES_SHOWN) mm_html_textf(html, " · %zu more", count - VALUES_SHOWN);
    if (best && !is_best_shown) {
        mm_html_text(html, ", among them ");
        mm_html_leaf(html, "strong", "won", difference_text(page, best));
    }
    mm_html_close(html);
}

// Differs, and not only as a consequence of others: somebody set it in at least one run.
static bool is_chosen_difference(const mm_page *page, const mm_setting *setting)
{
    if (!setting->differs || setting->is_derived) return false;
    for (size_t i = 0; i < page->n_runs; i++)
        if (setting->by_run[i] && !setting->by_run[i]->is_default) return true;
    return false;
}

static void write_differences(mm_page *page)
{
    mm_html *html = &page->html;
    if (page->n_runs < 2) return;
    size_t n_set = 0;
    size_t n_differ = 0;
    for (size_t i = 0; i < page->n_settings; i++) {
        n_set += is_chosen_difference(page, &page->settings[i]);
        n_differ += page->settings[i].differs;
    }
    mm_html_begin(html, "div", "diff");
    if (n_set == 0) {
        mm_html_leaf(html, "h3", NULL, "What differed");
        mm_html_leaf(html, "p", NULL, "No setting that anybody chose.");
        mm_html_close(html);
        return;
    }
    const size_t best = page->verdict.best_idx;
    mm_html_begin(html, "h3", NULL);
    mm_html_text(html, "What differed");
    if (best != SIZE_MAX) mm_html_leaf(html, "span", "key-won", "marked: the best run");
    mm_html_close(html);
    mm_html_open(html, "dl");
    size_t shown = 0;
    for (size_t i = 0; i < page->n_settings && shown < DIFFERENCES_SHOWN; i++) {
        const mm_setting *setting = &page->settings[i];
        if (!is_chosen_difference(page, setting)) continue;
        write_difference(page, setting, best == SIZE_MAX ? NULL : mm_setting_value(setting, best));
        shown++;
    }
    mm_html_close(html);
    if (n_differ > shown) {
        mm_html_begin(html, "p", "note");
        mm_html_open(html, "a");
        mm_html_attr(html, "href", "#settings");
        mm_html_textf(html, "%zu more %s", n_differ - shown,
                      n_set > shown ? "settings differ" : "differ as a consequence");
        mm_html_close(html);
        mm_html_close(html);
    }
    mm_html_close(html);
}

static void write_remark(mm_page *page, const mm_remark *remark, const char *tag)
{
    mm_html *html = &page->html;
    mm_html_begin(html, tag,
                  remark->kind == MM_REMARK_HEADLINE  ? "head"
                  : remark->kind == MM_REMARK_WARNING ? "warn"
                                                      : "fact");
    if (remark->lead) {
        mm_html_open(html, "strong");
        mm_html_leaf(html, "bdi", NULL, remark->lead);
        mm_html_close(html);
        mm_html_text(html, " ");
    }
    mm_html_text(html, remark->text);
    mm_html_close(html);
}

static bool has_stages(const mm_page *page)
{
    for (size_t i = 1; i < page->n_runs; i++)
        if (strcmp(page->runs[i].info.stage, page->runs[0].info.stage) != 0) return true;
    return false;
}

void mm_section_verdict(mm_page *page)
{
    mm_html *html = &page->html;
    const mm_verdict *verdict = &page->verdict;
    mm_html_begin(html, "section", "verdict");
    mm_html_attr(html, "id", "verdict");
    mm_html_leaf(html, "h2", "vh", "Verdict");
    mm_html_begin(html, "div", "said");
    for (size_t i = 0; i < verdict->count;) {
        const char *stage = verdict->remarks[i].stage;
        if (has_stages(page)) mm_html_leaf(html, "p", "stage", stage);
        if (verdict->remarks[i].kind == MM_REMARK_HEADLINE)
            write_remark(page, &verdict->remarks[i++], "p");
        if (i == verdict->count || strcmp(verdict->remarks[i].stage, stage) != 0) continue;
        mm_html_open(html, "ul");
        for (; i < verdict->count && strcmp(verdict->remarks[i].stage, stage) == 0; i++)
            write_remark(page, &verdict->remarks[i], "li");
        mm_html_close(html);
    }
    mm_html_close(html);
    write_differences(page);
    mm_html_close(html);
}

/* One column of the leaderboard. */
typedef struct board_column {
    const char *name;
    const char *unit; /* second line of the header */
    double (*value_of)(const mm_page_run *);
    void (*format)(double value, char out[MM_FMT_BYTES]);
    int better; /* -1 the lower, 1 the higher, 0 neither */
} board_column;

static double params_of(const mm_page_run *run) { return (double)run->info.params_total; }
static double tokens_of(const mm_page_run *run) { return (double)run->info.tokens; }
static double loss_of(const mm_page_run *run) { return run->info.final_loss; }
static double val_loss_of(const mm_page_run *run) { return run->info.best_val_loss; }
static double bpb_of(const mm_page_run *run) { return run->bpb; }
static double perplexity_of(const mm_page_run *run) { return run->perplexity; }
static double time_of(const mm_page_run *run) { return run->info.duration_s; }
static double rate_of(const mm_page_run *run) { return run->info.tokens_per_s; }
static void format_time(double value, char out[MM_FMT_BYTES])
{
    char text[MM_TIME_ISO_BYTES];
    mm_duration_text(value, text);
    snprintf(out, MM_FMT_BYTES, "%s", text);
}

static void format_share(double value, char out[MM_FMT_BYTES])
{
    snprintf(out, MM_FMT_BYTES, "%.1f %%", 100 * value);
}

static const board_column columns[] = {
    {"Val loss", "best", val_loss_of, mm_fmt_number, -1},
    {"Loss", "last", loss_of, mm_fmt_number, -1},
    {"Bits/byte", "validation", bpb_of, mm_fmt_number, -1},
    {"Perplexity", "validation", perplexity_of, mm_fmt_number, -1},
    {"Pairs right", "held out", mm_run_preference_accuracy, format_share, 1},
    {"Params", "", params_of, mm_count_text, 0},
    {"Tokens", "trained on", tokens_of, mm_count_text, 0},
    {"Tokens/s", "", rate_of, mm_count_text, 1},
    {"Time", "of training", time_of, format_time, 0},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

// Best value of the column among the finished runs; NaN when fewer than two can be compared.
static double best_of(const mm_page *page, const board_column *column)
{
    double best = (double)NAN;
    size_t count = 0;
    for (size_t i = 0; i < page->n_runs; i++) {
        const double value = column->value_of(&page->runs[i]);
        if (!mm_page_is_finished(&page->runs[i]) || !isfinite(value)) continue;
        if (strcmp(page->runs[i].info.stage, page->runs[0].info.stage) != 0) return (double)NAN;
        count++;
        if (isnan(best) || (column->better < 0 ? value < best : value > best)) best = value;
    }
    return column->better != 0 && count > 1 ? best : (double)NAN;
}

static void leaderboard_head(mm_page *page, const bool *has)
{
    mm_html *html = &page->html;
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\" class=\"n\">Rank</th>"
                             "<th scope=\"col\">Run</th>");
    if (has_stages(page)) mm_html_raw_static(html, "<th scope=\"col\">Stage</th>");
    for (size_t i = 0; i < N_COLUMNS; i++) {
        if (!has[i]) continue;
        mm_html_begin(html, "th", "n");
        mm_html_attr(html, "scope", "col");
        mm_html_text(html, columns[i].name);
        if (columns[i].unit[0]) mm_html_leaf(html, "small", NULL, columns[i].unit);
        mm_html_close(html);
    }
    mm_html_raw_static(html, "<th scope=\"col\" class=\"n\">Seed</th>"
                             "<th scope=\"col\">Status</th></tr></thead>");
}

static void leaderboard_row(mm_page *page, const mm_page_run *run, const bool *has,
                            const double *best)
{
    mm_html *html = &page->html;
    const bool is_finished = mm_page_is_finished(run);
    mm_html_begin(html, "tr", is_finished ? run->rank == 1 ? "first" : NULL : "open");
    char text[MM_FMT_BYTES] = "–";
    if (run->rank > 0) snprintf(text, sizeof text, "%zu", run->rank);
    mm_part_number(page, run->rank > 0 ? (double)run->rank : (double)NAN, text, "n");
    mm_html_begin(html, "th", NULL);
    mm_html_attr(html, "scope", "row");
    mm_part_run(page, run);
    mm_html_close(html);
    if (has_stages(page)) mm_html_leaf(html, "td", NULL, run->info.stage);
    for (size_t i = 0; i < N_COLUMNS; i++) {
        if (!has[i]) continue;
        const double value = columns[i].value_of(run);
        columns[i].format(value, text);
        const bool is_best = is_finished && value <= best[i] && value >= best[i];
        mm_html_begin(html, "td", is_best ? "n best" : "n");
        if (isnan(value)) {
            mm_html_text(html, "–");
        } else {
            mm_html_attrf(html, "data-v", "%.15g", value);
            if (is_best)
                mm_html_raw_static(html, "<abbr title=\"best of this column\">best</abbr> ");
            mm_html_text(html, text);
        }
        mm_html_close(html);
    }
    mm_html_leaff(html, "td", "n", "%" PRIu64, run->info.seed);
    mm_html_begin(html, "td", "st");
    mm_html_text(html, run->info.status);
    if (!is_finished) mm_html_leaff(html, "small", NULL, "at step %" PRId64, run->info.steps);
    mm_html_close(html);
    mm_html_close(html);
}

static void write_notes(mm_page *page)
{
    mm_html *html = &page->html;
    bool has_any = false;
    for (size_t i = 0; i < page->n_runs; i++) {
        const mm_page_run *run = &page->runs[i];
        const bool has_notes = run->info.notes && *run->info.notes;
        const bool has_tags = run->info.tags && *run->info.tags;
        const bool has_error = run->info.error && *run->info.error;
        if (!has_notes && !has_tags && !has_error) continue;
        if (!has_any) mm_html_begin(html, "dl", "notes");
        has_any = true;
        mm_html_leaf(html, "dt", NULL, run->label);
        mm_html_open(html, "dd");
        if (has_tags) mm_html_leaf(html, "span", "tags", run->info.tags);
        if (has_notes)
            mm_html_leaf(html, "span", "pre", mm_page_private(page, run, run->info.notes));
        if (has_error)
            mm_html_leaf(html, "span", "err", mm_page_private(page, run, run->info.error));
        mm_html_close(html);
    }
    if (has_any) mm_html_close(html);
}

void mm_section_leaderboard(mm_page *page)
{
    mm_html *html = &page->html;
    bool has[N_COLUMNS] = {false};
    double best[N_COLUMNS];
    for (size_t i = 0; i < N_COLUMNS; i++) {
        best[i] = best_of(page, &columns[i]);
        for (size_t j = 0; j < page->n_runs; j++) {
            const double value = columns[i].value_of(&page->runs[j]);
            has[i] = has[i] || (isfinite(value) && value > 0);
        }
    }
    const size_t depth = html->depth;
    mm_part_section(page, "runs", "Runs");
    mm_part_table(page, "runs", "Runs with their results", page->n_runs > 1);
    leaderboard_head(page, has);
    mm_html_open(html, "tbody");
    for (size_t rank = 1; rank <= page->n_runs; rank++)
        for (size_t i = 0; i < page->n_runs; i++)
            if (page->runs[i].rank == rank) leaderboard_row(page, &page->runs[i], has, best);
    for (size_t i = 0; i < page->n_runs; i++)
        if (page->runs[i].rank == 0) leaderboard_row(page, &page->runs[i], has, best);
    mm_html_close_to(html, depth + 1);
    write_notes(page);
    mm_html_close_to(html, depth);
}

static void setting_cell(mm_page *page, const mm_setting *setting, size_t run_idx)
{
    mm_html *html = &page->html;
    const mm_param *param = setting->by_run[run_idx];
    const char *base = mm_setting_value(setting, 0);
    if (!param) {
        mm_html_leaf(html, "td", NULL, "–");
        return;
    }
    const bool is_changed = run_idx > 0 && (!base || strcmp(base, param->value) != 0);
    const bool is_set = !param->is_default && !setting->is_derived;
    mm_html_begin(html, "td", is_changed ? is_set ? "chg set" : "chg" : is_set ? "set" : NULL);
    char count[MM_FMT_BYTES];
    if (setting->is_derived) mm_fmt_count(strtoll(param->value, NULL, 10), count);
    mm_html_leaf(html, "bdi", NULL,
                 setting->is_derived ? count
                                     : mm_page_private(page, &page->runs[run_idx], param->value));
    if (param->origin && *param->origin) mm_html_leaf(html, "small", NULL, param->origin);
    mm_html_close(html);
}

// Few runs: one row per setting, one column per run, the first being the baseline.
static void settings_by_row(mm_page *page, bool differing)
{
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_table(page, "cfg", differing ? "Settings that differ" : "Settings", false);
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\">Setting</th>");
    for (size_t i = 0; i < page->n_runs; i++) {
        mm_html_open(html, "th");
        mm_html_attr(html, "scope", "col");
        mm_part_run(page, &page->runs[i]);
        if (page->n_runs > 1 && i == 0) mm_html_leaf(html, "small", NULL, "baseline");
        mm_html_close(html);
    }
    mm_html_raw_static(html, "</tr></thead>");
    mm_html_open(html, "tbody");
    for (size_t i = 0; i < page->n_settings; i++) {
        const mm_setting *setting = &page->settings[i];
        if (setting->differs != differing) continue;
        mm_html_open(html, "tr");
        mm_html_begin(html, "th", "k");
        mm_html_attr(html, "scope", "row");
        mm_html_text(html, setting->name);
        mm_html_close(html);
        for (size_t j = 0; j < page->n_runs; j++)
            setting_cell(page, setting, j);
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
}

// Many runs: one row per run, one column per differing setting.
static void settings_by_column(mm_page *page)
{
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_table(page, "cfg", "Settings that differ", true);
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\">Run</th>");
    for (size_t i = 0; i < page->n_settings; i++) {
        if (!page->settings[i].differs) continue;
        mm_html_begin(html, "th", "k");
        mm_html_attr(html, "scope", "col");
        mm_html_text(html, page->settings[i].name);
        mm_html_close(html);
    }
    mm_html_raw_static(html, "</tr></thead>");
    mm_html_open(html, "tbody");
    for (size_t j = 0; j < page->n_runs; j++) {
        mm_html_open(html, "tr");
        mm_html_open(html, "th");
        mm_html_attr(html, "scope", "row");
        mm_part_run(page, &page->runs[j]);
        mm_html_close(html);
        for (size_t i = 0; i < page->n_settings; i++)
            if (page->settings[i].differs) setting_cell(page, &page->settings[i], j);
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
}

// Settings that all runs share, once each.
static void settings_in_common(mm_page *page)
{
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_table(page, "cfg", "Settings that are the same in all runs", false);
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\">Setting</th>"
                             "<th scope=\"col\">Value in every run</th></tr></thead>");
    mm_html_open(html, "tbody");
    for (size_t i = 0; i < page->n_settings; i++) {
        if (page->settings[i].differs) continue;
        mm_html_open(html, "tr");
        mm_html_begin(html, "th", "k");
        mm_html_attr(html, "scope", "row");
        mm_html_text(html, page->settings[i].name);
        mm_html_close(html);
        setting_cell(page, &page->settings[i], 0);
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
}

void mm_section_settings(mm_page *page)
{
    mm_html *html = &page->html;
    size_t n_differ = 0;
    for (size_t i = 0; i < page->n_settings; i++)
        n_differ += page->settings[i].differs;
    if (page->n_settings == 0) return;
    const size_t depth = html->depth;
    mm_part_section(page, "settings", page->n_runs > 1 ? "What differed" : "Settings");
    if (page->n_runs > 1) {
        if (n_differ == 0)
            mm_html_leaf(html, "p", NULL, "The runs were configured alike.");
        else if (page->n_runs <= COLUMNS_OF_RUNS)
            settings_by_row(page, true);
        else
            settings_by_column(page);
    }
    if (n_differ < page->n_settings) {
        mm_html_open(html, "details");
        mm_html_leaff(html, "summary", NULL,
                      page->n_runs > 1 ? "%zu settings the same in all runs" : "All %zu settings",
                      page->n_settings - n_differ);
        if (page->n_runs > 1)
            settings_in_common(page);
        else
            settings_by_row(page, false);
        mm_html_close(html);
    }
    mm_part_note(page, "Strong: set by someone; the small word says where. Plain: a default%s.",
                 page->n_runs > 1 ? ". ≠ marks what differs from the baseline, the first run" : "");
    mm_html_close_to(html, depth);
}
