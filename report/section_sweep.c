/* The sweep: the objective against each hyperparameter that was varied, and against pairs. */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MAX = 6, LEVELS_MAX = 12, WIDTH = 340, HEIGHT = 220, HEAT_LEVELS = 7 };

/* One varied hyperparameter and the distinct values that runs of the sweep have. */
typedef struct swept_key {
    const char *name;
    const char *levels[LEVELS_MAX];
    size_t n_levels;
    size_t n_left_out;
} swept_key;

typedef struct sweep_view {
    mm_page *page;
    const char *objective;
    swept_key axes[KEYS_MAX];
    size_t n_axes;
    double low; /* of the objective over finished runs */
    double high;
    size_t n_runs;
    size_t n_finished;
    size_t n_pruned;
    size_t n_failed;
} sweep_view;

static bool is_member(const sweep_view *view, const mm_page_run *run)
{
    return run->info.sweep_id == view->page->sweep.id;
}

static double objective_of(const sweep_view *view, const mm_page_run *run)
{
    if (!is_member(view, run) || !mm_page_is_finished(run)) return (double)NAN;
    if (strcmp(view->objective, "val_loss") == 0) return run->info.best_val_loss;
    if (strcmp(view->objective, "loss") == 0) return run->info.final_loss;
    const mm_series_info *series = mm_page_series(run, view->objective);
    return series && series->n > 0 ? series->min : (double)NAN;
}

static int by_value(const void *a, const void *b)
{
    const char *x = *(const char *const *)a;
    const char *y = *(const char *const *)b;
    char *end_x;
    char *end_y;
    const double number_x = strtod(x, &end_x);
    const double number_y = strtod(y, &end_y);
    if (end_x == x || end_y == y) return strcmp(x, y);
    return (number_x > number_y) - (number_x < number_y);
}

static void add_axis(sweep_view *view, const char *name)
{
    if (view->n_axes == KEYS_MAX) return;
    swept_key *axis = &view->axes[view->n_axes];
    *axis = (swept_key){.name = name};
    for (size_t i = 0; i < view->page->n_runs; i++) {
        const mm_page_run *run = &view->page->runs[i];
        const char *value = mm_run_param(run, name);
        if (!value || !is_member(view, run)) continue;
        bool is_new = true;
        for (size_t j = 0; j < axis->n_levels; j++)
            is_new = is_new && strcmp(axis->levels[j], value) != 0;
        if (!is_new) continue;
        if (axis->n_levels < LEVELS_MAX)
            axis->levels[axis->n_levels++] = value;
        else
            axis->n_left_out++;
    }
    if (axis->n_levels < 2) return;
    qsort(axis->levels, axis->n_levels, sizeof *axis->levels, by_value);
    view->n_axes++;
}

// The keys of the sweep's space, in its order.
static mm_status collect_axes(sweep_view *view, mm_err *err)
{
    const char *space = view->page->sweep.space;
    if (!space || !*space) return MM_OK;
    json_t *json = NULL;
    MM_TRY(mm_json_parse(space, strlen(space), "the space of the sweep", &json, err));
    const char *key;
    json_t *values;
    mm_status status = MM_OK;
    json_object_foreach(json, key, values)
    {
        const char *name = mm_arena_strdup(&view->page->arena, key);
        if (!name) {
            status = MM_FAIL(err, MM_ENOMEM, "reading the space of the sweep");
            break;
        }
        add_axis(view, name);
    }
    json_decref(json);
    return status;
}

static void survey(sweep_view *view)
{
    view->low = (double)INFINITY;
    view->high = -(double)INFINITY;
    for (size_t i = 0; i < view->page->n_runs; i++) {
        const mm_page_run *run = &view->page->runs[i];
        if (!is_member(view, run)) continue;
        view->n_runs++;
        view->n_finished += mm_page_is_finished(run);
        view->n_pruned += strcmp(run->info.status, "pruned") == 0;
        view->n_failed +=
            strcmp(run->info.status, "failed") == 0 || strcmp(run->info.status, "killed") == 0;
        const double value = objective_of(view, run);
        if (!isfinite(value)) continue;
        view->low = fmin(view->low, value);
        view->high = fmax(view->high, value);
    }
}

static size_t level_of(const swept_key *axis, const mm_page_run *run)
{
    const char *value = mm_run_param(run, axis->name);
    size_t i = 0;
    while (i < axis->n_levels && (!value || strcmp(axis->levels[i], value) != 0))
        i++;
    return i;
}

static void draw_frame(sweep_view *view, const swept_key *axis, const mm_scale *x,
                       const mm_scale *y)
{
    mm_html *html = &view->page->html;
    double ticks[MM_TICKS_MAX];
    double spacing = 0;
    char text[MM_FMT_BYTES];
    const size_t count = mm_ticks_linear(y->low, y->high, 4, ticks, &spacing);
    for (size_t i = 0; i < count; i++) {
        const double at = mm_scale_map(y, ticks[i]);
        mm_html_begin(html, "path", "grid");
        mm_html_attrf(html, "d", "M%.0f %.1fH%.0f", x->from - 12, at, x->to + 12);
        mm_html_close(html);
        mm_fmt_tick(ticks[i], spacing, text);
        mm_svg_label(html, x->from - 19, at + 4, "end", NULL, text);
    }
    mm_html_begin(html, "path", "axis");
    mm_html_attrf(html, "d", "M%.0f %.0fH%.0f", x->from - 12, y->from, x->to + 12);
    mm_html_close(html);
    for (size_t i = 0; i < axis->n_levels; i++)
        mm_svg_label(html, mm_scale_map(x, (double)i), y->from + 17, "middle", NULL,
                     mm_fmt_fit(&view->page->arena, axis->levels[i], 10));
    mm_svg_label(html, x->to + 12, y->from + 33, "end", "axn",
                 mm_fmt_fit(&view->page->arena, axis->name, 36));
}

// Each run a point; a line joins the best of each value.
static void draw_points(sweep_view *view, const swept_key *axis, const mm_scale *x,
                        const mm_scale *y)
{
    mm_html *html = &view->page->html;
    double best[LEVELS_MAX];
    for (size_t i = 0; i < axis->n_levels; i++)
        best[i] = (double)INFINITY;
    for (size_t i = 0; i < view->page->n_runs; i++) {
        const double value = objective_of(view, &view->page->runs[i]);
        const size_t level = level_of(axis, &view->page->runs[i]);
        if (isfinite(value) && level < axis->n_levels) best[level] = fmin(best[level], value);
    }
    mm_str path;
    mm_str_init(&path, 0);
    mm_pen pen = {.out = &path};
    for (size_t i = 0; i < axis->n_levels; i++) {
        if (!isfinite(best[i])) continue;
        const double at = mm_scale_map(x, (double)i);
        if (path.length == 0)
            mm_pen_move(&pen, at, mm_scale_map(y, best[i]));
        else
            mm_pen_line(&pen, at, mm_scale_map(y, best[i]));
    }
    mm_html_begin(html, "path", "lead");
    mm_html_attr(html, "d", mm_str_text(&path));
    mm_html_close(html);
    mm_str_drop(&path);
    for (size_t i = 0; i < view->page->n_runs; i++) {
        const mm_page_run *run = &view->page->runs[i];
        const double value = objective_of(view, run);
        const size_t level = level_of(axis, run);
        if (!isfinite(value) || level == axis->n_levels) continue;
        mm_str title;
        mm_str_init(&title, 0);
        char number[MM_FMT_BYTES];
        mm_fmt_number(value, number);
        mm_str_add(&title, run->label);
        mm_str_addf(&title, ": %s", number);
        mm_svg_marker(html, run->style, mm_scale_map(x, (double)level), mm_scale_map(y, value),
                      mm_str_text(&title));
        mm_str_drop(&title);
    }
}

static void draw_axis_chart(sweep_view *view, size_t index)
{
    mm_html *html = &view->page->html;
    const swept_key *axis = &view->axes[index];
    const double pad = fmax((view->high - view->low) * 0.08, fabs(view->high) * 1e-6 + 1e-12);
    const mm_scale y = {
        .low = view->low - pad, .high = view->high + pad, .from = HEIGHT - 42, .to = 12};
    const mm_scale x = {
        .low = 0, .high = (double)(axis->n_levels - 1), .from = 68, .to = WIDTH - 28};
    char id[24];
    snprintf(id, sizeof id, "w%zu", index);
    mm_str title;
    mm_str_init(&title, 0);
    mm_str_add(&title, view->objective);
    mm_str_add(&title, " against ");
    mm_str_add(&title, axis->name);
    mm_html_begin(html, "figure", "chart");
    mm_html_open(html, "figcaption");
    mm_html_leaf(html, "b", NULL, axis->name);
    mm_html_leaf(html, "span", NULL, view->objective);
    mm_html_close(html);
    mm_svg_begin(html, id, "plot", WIDTH, HEIGHT, mm_str_text(&title),
                 "Each point is one finished run; the line joins the best of each value. The "
                 "numbers are in the table of runs.");
    mm_str_drop(&title);
    draw_frame(view, axis, &x, &y);
    draw_points(view, axis, &x, &y);
    mm_html_close(html);
    if (axis->n_left_out > 0)
        mm_part_note(view->page, "%zu more values are not drawn.", axis->n_left_out);
    mm_html_close(html);
}

static void heat_cell(sweep_view *view, const swept_key *rows, size_t row, const swept_key *columns,
                      size_t column)
{
    mm_page *page = view->page;
    double best = (double)INFINITY;
    size_t count = 0;
    for (size_t i = 0; i < page->n_runs; i++) {
        const double value = objective_of(view, &page->runs[i]);
        if (!isfinite(value) || level_of(rows, &page->runs[i]) != row ||
            level_of(columns, &page->runs[i]) != column)
            continue;
        best = fmin(best, value);
        count++;
    }
    if (count == 0) {
        mm_html_leaf(&page->html, "td", "n", "–");
        return;
    }
    // 0 is the best: the darkest cell, whose number also says so.
    const double part = view->high > view->low ? (best - view->low) / (view->high - view->low) : 0;
    int level = (int)(part * HEAT_LEVELS);
    if (level >= HEAT_LEVELS) level = HEAT_LEVELS - 1;
    char class_name[32];
    snprintf(class_name, sizeof class_name, "n h%d%s", level, best <= view->low ? " best" : "");
    char text[MM_FMT_BYTES];
    mm_fmt_number(best, text);
    mm_html_begin(&page->html, "td", class_name);
    mm_html_text(&page->html, text);
    if (best <= view->low) mm_html_leaf(&page->html, "small", NULL, "best");
    if (count > 1) mm_html_leaff(&page->html, "small", NULL, "of %zu", count);
    mm_html_close(&page->html);
}

static void draw_heat(sweep_view *view, const swept_key *rows, const swept_key *columns)
{
    mm_page *page = view->page;
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_str caption;
    mm_str_init(&caption, 0);
    mm_str_add(&caption, "Best ");
    mm_str_add(&caption, view->objective);
    mm_str_add(&caption, " for each pair of ");
    mm_str_add(&caption, rows->name);
    mm_str_add(&caption, " and ");
    mm_str_add(&caption, columns->name);
    mm_html_begin(html, "figure", "chart");
    mm_html_leaf(html, "figcaption", NULL, mm_str_text(&caption));
    mm_part_table(page, "heat", mm_str_text(&caption), false);
    mm_str_drop(&caption);
    mm_html_open(html, "thead");
    mm_html_open(html, "tr");
    mm_html_begin(html, "th", "k");
    mm_html_attr(html, "scope", "col");
    mm_html_text(html, rows->name);
    mm_html_text(html, " ↓  ");
    mm_html_text(html, columns->name);
    mm_html_text(html, " →");
    mm_html_close(html);
    for (size_t i = 0; i < columns->n_levels; i++) {
        mm_html_begin(html, "th", "n");
        mm_html_attr(html, "scope", "col");
        mm_html_text(html, columns->levels[i]);
        mm_html_close(html);
    }
    mm_html_close(html);
    mm_html_close(html);
    mm_html_open(html, "tbody");
    for (size_t row = 0; row < rows->n_levels; row++) {
        mm_html_open(html, "tr");
        mm_html_begin(html, "th", "n");
        mm_html_attr(html, "scope", "row");
        mm_html_text(html, rows->levels[row]);
        mm_html_close(html);
        for (size_t column = 0; column < columns->n_levels; column++)
            heat_cell(view, rows, row, columns, column);
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
}

mm_status mm_section_sweep(mm_page *page, mm_err *err)
{
    if (!page->has_sweep) return MM_OK;
    sweep_view view = {.page = page};
    view.objective = page->sweep.objective ? page->sweep.objective : "val_loss";
    survey(&view);
    MM_TRY(collect_axes(&view, err));
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_section(page, "sweep", "Sweep");
    mm_html_open(html, "p");
    mm_html_leaf(html, "bdi", NULL, page->sweep.name);
    mm_html_textf(html, ": %zu run%s shown, %zu finished, %zu pruned, %zu failed or killed. ",
                  view.n_runs, view.n_runs == 1 ? "" : "s", view.n_finished, view.n_pruned,
                  view.n_failed);
    mm_html_text(html, "Search: ");
    mm_html_text(html, page->sweep.search ? page->sweep.search : "?");
    mm_html_text(html, ". Lower ");
    mm_html_text(html, view.objective);
    mm_html_text(html, " is better.");
    mm_html_close(html);
    if (view.low <= view.high) {
        mm_html_begin(html, "div", "charts three");
        for (size_t i = 0; i < view.n_axes; i++)
            draw_axis_chart(&view, i);
        for (size_t i = 0; i < view.n_axes && i < 2; i++)
            for (size_t j = i + 1; j < view.n_axes && j < 3; j++)
                draw_heat(&view, &view.axes[i], &view.axes[j]);
        mm_html_close(html);
    } else {
        mm_html_leaf(html, "p", NULL, "No finished run has the objective yet.");
    }
    mm_html_close_to(html, depth);
    return MM_OK;
}
