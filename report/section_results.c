/* Results of evaluations, a table per task and metric, each share with its interval as a bar; and
 * what adapters are and cost. */
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
    TABLES_MAX = 24,
    NAME_COLUMNS = 48,
    BAR_WIDTH = 168, /* of the whole, 0 to 100 % */
    BAR_HEIGHT = 16,
    BAR_MARGIN = 6
};

/* A result with the run that it is of. */
typedef struct outcome {
    const mm_result *result;
    size_t run_idx;
} outcome;

static const char *or_empty(const char *text) { return text ? text : ""; }

// The data belong to the task: a file that was changed is another one.
static int by_table(const outcome *x, const outcome *y)
{
    int order = strcmp(or_empty(x->result->task), or_empty(y->result->task));
    if (order == 0) order = strcmp(or_empty(x->result->metric), or_empty(y->result->metric));
    if (order == 0)
        order = strcmp(or_empty(x->result->data_sha256), or_empty(y->result->data_sha256));
    return order;
}

// By table, then run; the last step first.
static int by_place(const void *a, const void *b)
{
    const outcome *x = a;
    const outcome *y = b;
    const int order = by_table(x, y);
    if (order != 0) return order;
    if (x->run_idx != y->run_idx) return x->run_idx < y->run_idx ? -1 : 1;
    if (x->result->step != y->result->step) return x->result->step > y->result->step ? -1 : 1;
    return (x->result->id < y->result->id) - (x->result->id > y->result->id);
}

static bool is_share(const mm_result *result)
{
    return result->correct >= 0 && result->value >= 0 && result->value <= 1;
}

static bool has_interval(const mm_result *result)
{
    return is_share(result) && result->low >= 0 && result->low <= result->high && result->high <= 1;
}

// The interval as a line over the whole from 0 to 100 %, the value as the run's marker.
static void draw_bar(mm_page *page, const mm_page_run *run, const mm_result *result)
{
    mm_html *html = &page->html;
    const double y = BAR_HEIGHT / 2.0;
    mm_html_begin(html, "td", "bar-cell");
    if (!has_interval(result)) {
        mm_html_close(html);
        return;
    }
    mm_html_begin(html, "svg", "ival");
    mm_html_attrf(html, "viewBox", "0 0 %d %d", BAR_WIDTH + 2 * BAR_MARGIN, BAR_HEIGHT);
    mm_html_attr(html, "aria-hidden", "true"); // the numbers stand beside it
    mm_html_begin(html, "path", "axis");
    mm_html_attrf(html, "d", "M%d %.1fh%dM%d %.1fv8M%.1f %.1fv4M%d %.1fv8", BAR_MARGIN, y,
                  BAR_WIDTH, BAR_MARGIN, y - 4, BAR_MARGIN + BAR_WIDTH / 2.0, y - 2,
                  BAR_MARGIN + BAR_WIDTH, y - 4);
    mm_html_close(html);
    char class_name[16] = "span sx";
    if (run->style != MM_STYLE_NONE)
        snprintf(class_name, sizeof class_name, "span s%d", run->style);
    mm_html_begin(html, "path", class_name);
    mm_html_attrf(html, "d", "M%.1f %.1fH%.1f", BAR_MARGIN + result->low * BAR_WIDTH, y,
                  BAR_MARGIN + result->high * BAR_WIDTH);
    mm_html_close(html);
    mm_svg_marker(html, run->style, BAR_MARGIN + result->value * BAR_WIDTH, y, NULL);
    mm_html_close(html);
    mm_html_close(html);
}

static void write_row(mm_page *page, const outcome *item, bool with_bar)
{
    mm_html *html = &page->html;
    const mm_page_run *run = &page->runs[item->run_idx];
    const mm_result *result = item->result;
    char text[MM_FMT_BYTES];
    mm_html_open(html, "tr");
    mm_html_open(html, "th");
    mm_html_attr(html, "scope", "row");
    mm_part_run(page, run);
    mm_html_leaf(html, "small", NULL, run->info.stage);
    mm_html_close(html);
    mm_fmt_count(result->step, text);
    mm_part_number(page, (double)result->step, text, NULL);
    if (is_share(result))
        snprintf(text, sizeof text, "%.1f %%", 100 * result->value);
    else
        mm_fmt_number(result->value, text);
    mm_part_number(page, result->value, text, NULL);
    if (with_bar) {
        draw_bar(page, run, result);
        mm_html_begin(html, "td", "n");
        if (has_interval(result))
            mm_html_textf(html, "%.1f to %.1f %%", 100 * result->low, 100 * result->high);
        else
            mm_html_text(html, "–");
        mm_html_close(html);
    }
    mm_html_begin(html, "td", "n");
    if (is_share(result)) mm_html_textf(html, "%" PRId64 " of ", result->correct);
    mm_fmt_count(result->n, text);
    mm_html_text(html, text);
    mm_html_close(html);
    mm_html_close(html);
}

// items[from, to) are of one table; of a run with several steps the last one is shown.
static void write_table(mm_page *page, const outcome *items, size_t from, size_t to,
                        size_t *n_left_out)
{
    mm_html *html = &page->html;
    const mm_result *first = items[from].result;
    const size_t depth = html->depth;
    mm_html_begin(html, "div", "prompt");
    mm_html_begin(html, "h3", "task");
    mm_html_text(html, mm_fmt_fit(&page->arena, or_empty(first->task), NAME_COLUMNS));
    mm_html_begin(html, "small", NULL);
    mm_html_text(html, mm_fmt_fit(&page->arena, or_empty(first->metric), NAME_COLUMNS));
    if (first->data_sha256 && *first->data_sha256) {
        mm_html_text(html, " · data ");
        mm_html_text(html, mm_page_digest(page, first->data_sha256));
    }
    mm_html_close(html);
    mm_html_close(html);
    mm_part_table(page, "results", "Results by run", to - from > 1);
    bool with_bar = false;
    for (size_t at = from; at < to; at++)
        with_bar = with_bar || has_interval(items[at].result);
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\">Run</th>"
                             "<th scope=\"col\" class=\"n\">Step</th>"
                             "<th scope=\"col\" class=\"n\">Value</th>");
    if (with_bar)
        mm_html_raw_static(html, "<th scope=\"col\">0 to 100 %</th>"
                                 "<th scope=\"col\" class=\"n\">95 % interval</th>");
    mm_html_raw_static(html, "<th scope=\"col\" class=\"n\">Of</th></tr></thead>");
    mm_html_open(html, "tbody");
    for (size_t at = from; at < to; at++) {
        if (at > from && items[at].run_idx == items[at - 1].run_idx)
            *n_left_out += 1;
        else
            write_row(page, &items[at], with_bar);
    }
    mm_html_close_to(html, depth);
}

mm_status mm_section_results(mm_page *page, mm_err *err)
{
    mm_html *html = &page->html;
    size_t count = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        count += page->runs[i].n_results;
    if (count == 0) return MM_OK;
    outcome *items = mm_arena_alloc(&page->arena, count * sizeof *items);
    if (!items) return MM_FAIL(err, MM_ENOMEM, "collecting results");
    size_t n = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        for (size_t j = 0; j < page->runs[i].n_results; j++)
            items[n++] = (outcome){.result = &page->runs[i].results[j], .run_idx = i};
    qsort(items, n, sizeof *items, by_place);
    const size_t depth = html->depth;
    mm_part_section(page, "results", "Results");
    size_t n_tables = 0;
    size_t n_left_out = 0;
    for (size_t from = 0; from < n;) {
        size_t to = from + 1;
        while (to < n && by_table(&items[from], &items[to]) == 0)
            to++;
        if (n_tables++ < TABLES_MAX)
            write_table(page, items, from, to, &n_left_out);
        else
            n_left_out += to - from;
        from = to;
    }
    mm_part_note(page,
                 "A share with its 95 %% interval by Wilson’s score, as eval recorded it. Where "
                 "intervals overlap, the difference may be chance.");
    if (n_left_out > 0)
        mm_part_note(page, "%zu results of earlier steps or further tasks are in the database.",
                     n_left_out);
    mm_html_close_to(html, depth);
    return MM_OK;
}

/* ---- adapters ----------------------------------------------------------------------------------
 */

static bool has_adapters(const mm_page_run *run)
{
    const char *rank = mm_run_param(run, "lora_rank");
    return rank && *rank && strcmp(rank, "0") != 0;
}

static void text_cell(mm_page *page, const char *class_name, const char *text)
{
    mm_html_begin(&page->html, "td", class_name);
    mm_html_leaf(&page->html, "bdi", NULL, text && *text ? text : "–");
    mm_html_close(&page->html);
}

static void bytes_cell(mm_page *page, int64_t bytes)
{
    char text[MM_NUMBER_BYTES];
    mm_bytes_text((double)bytes, text);
    mm_part_number(page, bytes > 0 ? (double)bytes : (double)NAN, text, NULL);
}

static mm_status adapter_row(mm_page *page, const mm_page_run *run, mm_err *err)
{
    mm_html *html = &page->html;
    mm_checkpoint_info *list = NULL;
    size_t count = 0;
    char text[MM_FMT_BYTES];
    MM_TRY(mm_checkpoint_list(page->store, run->info.id, &page->arena, &list, &count, err));
    const double total = (double)run->info.params_total;
    const double share = total > 0 ? (double)run->info.params_trainable / total : (double)NAN;
    mm_html_open(html, "tr");
    mm_html_open(html, "th");
    mm_html_attr(html, "scope", "row");
    mm_part_run(page, run);
    mm_html_leaf(html, "small", NULL, run->info.stage);
    mm_html_close(html);
    text_cell(page, "n", mm_run_param(run, "lora_rank"));
    text_cell(page, "n", mm_run_param(run, "lora_alpha"));
    text_cell(page, "k", mm_run_param(run, "lora_targets"));
    mm_fmt_count(run->info.params_trainable, text);
    mm_part_number(page, (double)run->info.params_trainable, text, NULL);
    snprintf(text, sizeof text, "%.2g %%", 100 * share);
    mm_part_number(page, share, text, NULL);
    const mm_checkpoint_info *last = count > 0 ? &list[count - 1] : NULL;
    bytes_cell(page, last ? last->own_bytes : 0);
    bytes_cell(page, last ? last->stored_bytes : 0);
    mm_html_close(html);
    return MM_OK;
}

mm_status mm_section_adapters(mm_page *page, mm_err *err)
{
    mm_html *html = &page->html;
    size_t n = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        n += has_adapters(&page->runs[i]);
    if (n == 0) return MM_OK;
    const size_t depth = html->depth;
    mm_part_section(page, "adapters", "Adapters");
    mm_part_table(page, "results", "Low-rank adapters", n > 1);
    mm_html_raw_static(
        html, "<thead><tr><th scope=\"col\">Run</th><th scope=\"col\" class=\"n\">Rank</th>"
              "<th scope=\"col\" class=\"n\">Alpha</th><th scope=\"col\">Targets</th>"
              "<th scope=\"col\" class=\"n\">Trained</th>"
              "<th scope=\"col\" class=\"n\">Share</th>"
              "<th scope=\"col\" class=\"n\">Own bytes<small>last checkpoint</small></th>"
              "<th scope=\"col\" class=\"n\">With its base<small>stored</small></th></tr></thead>");
    mm_html_open(html, "tbody");
    for (size_t i = 0; i < page->n_runs; i++)
        if (has_adapters(&page->runs[i])) MM_TRY(adapter_row(page, &page->runs[i], err));
    mm_html_close_to(html, depth + 1);
    mm_part_note(page, "The base is frozen: its weights are stored once, with the run that trained "
                       "them, and the adapters’ checkpoints refer to them.");
    mm_html_close_to(html, depth);
    return MM_OK;
}
