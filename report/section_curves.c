/* The curves: one chart per metric, and the numbers behind them for the script.
 *
 * A curve is thinned to buckets by the store; a band keeps each bucket's minimum and maximum, so
 * that a spike stays visible. The page has a budget of points, shared by the runs with a colour.
 */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs whose loss is of tokens, and runs whose loss is of pairs, are never in one chart. */
typedef enum runs_of { RUNS_ALL = 0, RUNS_OF_TOKENS, RUNS_OF_PAIRS } runs_of;

enum { PARTS = 2 };

/* What is known about a metric, or two that belong into one chart, by name (docs: contract). */
typedef struct metric_kind {
    const char *names[PARTS];
    const char *parts[PARTS]; /* what tells them apart; NULL: one metric */
    const char *title;
    const char *unit;
    double smoothing;
    double log_ratio;
    runs_of runs;
    bool is_main; /* shown openly; the rest is folded */
} metric_kind;

// clang-format off
static const metric_kind kinds[] = {
    {{"loss"}, {NULL}, "Training loss", "nats per token", 0.8, 0, RUNS_OF_TOKENS, true},
    {{"val_loss"}, {NULL}, "Validation loss", "nats per token", 0, 0, RUNS_OF_TOKENS, true},
    {{"val_loss", "loss"}, {"held-out pairs", "training pairs"}, "Preference loss", "", 0, 0, RUNS_OF_PAIRS, true},
    {{"dpo/val_margin", "dpo/margin"}, {"held-out pairs", "training pairs"}, "Margin", "chosen over rejected", 0, 0, RUNS_ALL, true},
    {{"dpo/val_accuracy", "dpo/accuracy"}, {"held-out pairs", "training pairs"}, "Preference accuracy", "share of pairs", 0, 0, RUNS_ALL, true},
    {{"dpo/logp_chosen", "dpo/logp_rejected"}, {"chosen", "rejected"}, "Log-probability of the answers", "nats", 0.8, 0, RUNS_ALL, true},
    {{"distill/kl"}, {NULL}, "Distance to the teacher", "KL divergence per token", 0.8, 0, RUNS_ALL, true},
    {{"distill/ce"}, {NULL}, "Cross entropy with the labels", "nats per token", 0.8, 0, RUNS_ALL, true},
    {{"lr"}, {NULL}, "Learning rate", "", 0, 0, RUNS_ALL, true},
    {{"grad_norm"}, {NULL}, "Gradient norm", "before clipping", 0.8, 300, RUNS_ALL, true},
    {{"tokens_per_s"}, {NULL}, "Throughput", "tokens per second", 0.8, 0, RUNS_ALL, true},
    {{"val_bpb"}, {NULL}, "Validation bits per byte", "bits per byte", 0, 0, RUNS_ALL, false},
    {{"perplexity"}, {NULL}, "Validation perplexity", "", 0, 30, RUNS_ALL, false},
    {{"step_ms"}, {NULL}, "Time of a step", "milliseconds", 0.8, 300, RUNS_ALL, false},
    {{"mem_bytes"}, {NULL}, "Memory", "bytes", 0, 0, RUNS_ALL, false},
};
// clang-format on
enum { N_KINDS = sizeof kinds / sizeof *kinds };

enum {
    SMOOTH_FROM = 40, /* buckets; a shorter curve is drawn as it is */
    KNOTS = 24,       /* of the map from steps to tokens and time */
    TABLE_ROWS_MAX = 12,
    XS_MAX = 4096 /* different step axes in the data of a page */
};

typedef struct curve_sheet {
    mm_page *page;
    metric_kind *panels; /* charts to draw, the known ones first */
    size_t n_panels;
    size_t n_left_out;
    size_t buckets; /* per coloured curve */
    mm_str xs;      /* JSON: the step axes, each once */
    size_t *x_at;   /* start of each in xs */
    size_t n_xs;
} curve_sheet;

static bool is_wanted(const metric_kind *kind, const mm_page_run *run)
{
    return kind->runs == RUNS_ALL || (kind->runs == RUNS_OF_PAIRS) == mm_run_is_preference(run);
}

static bool has_points(const mm_page *page, const metric_kind *kind)
{
    for (size_t i = 0; i < page->n_runs; i++)
        for (size_t part = 0; part < PARTS && is_wanted(kind, &page->runs[i]); part++)
            if (kind->names[part] && mm_page_series(&page->runs[i], kind->names[part])) return true;
    return false;
}

// `tokens` is an axis, not a curve.
static bool is_known(const char *name)
{
    for (size_t i = 0; i < N_KINDS; i++)
        for (size_t part = 0; part < PARTS; part++)
            if (kinds[i].names[part] && strcmp(kinds[i].names[part], name) == 0) return true;
    return strcmp(name, "tokens") == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const metric_kind *)a)->names[0], ((const metric_kind *)b)->names[0]);
}

// Every metric with points, once.
static mm_status collect_panels(curve_sheet *drawing, mm_err *err)
{
    mm_page *page = drawing->page;
    size_t total = N_KINDS;
    for (size_t i = 0; i < page->n_runs; i++)
        total += page->runs[i].n_series;
    drawing->panels = mm_arena_alloc(&page->arena, total * sizeof *drawing->panels);
    if (!drawing->panels) return MM_FAIL(err, MM_ENOMEM, "collecting metrics");
    size_t n = 0;
    for (size_t i = 0; i < N_KINDS; i++)
        if (has_points(page, &kinds[i])) drawing->panels[n++] = kinds[i];
    const size_t n_known = n;
    for (size_t i = 0; i < page->n_runs; i++) {
        for (size_t j = 0; j < page->runs[i].n_series; j++) {
            const char *name = page->runs[i].series[j].name;
            bool is_new = !is_known(name);
            for (size_t k = n_known; k < n && is_new; k++)
                is_new = strcmp(drawing->panels[k].names[0], name) != 0;
            if (is_new)
                drawing->panels[n++] =
                    (metric_kind){.names = {name}, .title = name, .unit = "", .log_ratio = 1000};
        }
    }
    qsort(drawing->panels + n_known, n - n_known, sizeof *drawing->panels, by_name);
    drawing->n_panels = n < MM_REPORT_CHARTS_MAX ? n : MM_REPORT_CHARTS_MAX;
    drawing->n_left_out = n - drawing->n_panels;
    const size_t coloured = drawing->n_panels * page->n_coloured;
    const size_t share = coloured > 0 ? MM_REPORT_POINTS / coloured : MM_REPORT_BUCKETS_MAX;
    drawing->buckets = share > MM_REPORT_BUCKETS_MAX   ? MM_REPORT_BUCKETS_MAX
                       : share < MM_REPORT_BUCKETS_MIN ? MM_REPORT_BUCKETS_MIN
                                                       : share;
    return MM_OK;
}

// Index of this step axis in the page's list; runs of equal length share one.
static mm_status add_axis(curve_sheet *drawing, const mm_bucket *buckets, size_t n, size_t *index,
                          mm_err *err)
{
    mm_str text;
    mm_str_init(&text, 0);
    mm_str_add_char(&text, '[');
    int64_t before = 0;
    for (size_t i = 0; i < n; i++) { // differences: most are equal and short
        const int64_t step = (buckets[i].step_first + buckets[i].step_last) / 2;
        mm_str_addf(&text, i > 0 ? ",%" PRId64 : "%" PRId64, step - before);
        before = step;
    }
    mm_str_add_char(&text, ']');
    mm_status status = MM_OK;
    MM_GO(mm_str_check(&text, err));
    for (*index = 0; *index < drawing->n_xs; (*index)++) {
        const size_t from = drawing->x_at[*index];
        if (drawing->xs.length - from >= text.length &&
            memcmp(drawing->xs.data + from, text.data, text.length) == 0)
            goto done;
    }
    if (drawing->n_xs == XS_MAX) {
        status = MM_FAIL(err, MM_ELIMIT, "curves with more than %d different step axes", XS_MAX);
        goto done;
    }
    if (drawing->n_xs > 0) mm_str_add_char(&drawing->xs, ',');
    drawing->x_at[drawing->n_xs++] = drawing->xs.length;
    mm_str_add_bytes(&drawing->xs, text.data, text.length);
done:
    mm_str_drop(&text);
    return status;
}

static void add_values(mm_str *data, const char *key, const mm_chart_series *series,
                       double (*value_of)(const mm_bucket *))
{
    mm_str_addf(data, ",\"%s\":[", key);
    for (size_t i = 0; i < series->n_buckets; i++) {
        if (i > 0) mm_str_add_char(data, ',');
        const mm_bucket *bucket = &series->buckets[i];
        mm_fmt_json(data, bucket->n > 0 ? value_of(bucket) : (double)NAN, 5);
    }
    mm_str_add_char(data, ']');
}

static double mean_of(const mm_bucket *bucket) { return bucket->mean; }
static double min_of(const mm_bucket *bucket) { return bucket->min; }
static double max_of(const mm_bucket *bucket) { return bucket->max; }

static mm_status add_series_data(curve_sheet *drawing, const mm_chart_series *series, mm_err *err)
{
    mm_str *data = &drawing->page->data;
    size_t axis;
    MM_TRY(add_axis(drawing, series->buckets, series->n_buckets, &axis, err));
    mm_str_addf(data, "{\"r\":%zu,\"x\":%zu", series->run_idx, axis);
    if (series->part > 0) mm_str_addf(data, ",\"p\":%d", series->part);
    add_values(data, "v", series, mean_of);
    bool has_band = false;
    bool has_bad = false;
    for (size_t i = 0; i < series->n_buckets; i++) {
        const mm_bucket *bucket = &series->buckets[i];
        has_band = has_band || (bucket->n > 0 && bucket->max > bucket->min);
        has_bad = has_bad || bucket->n_bad > 0;
    }
    if (has_band && series->style != MM_STYLE_NONE) {
        add_values(data, "lo", series, min_of);
        add_values(data, "hi", series, max_of);
    }
    if (has_bad) {
        mm_str_add(data, ",\"bad\":[");
        const char *comma = "";
        for (size_t i = 0; i < series->n_buckets; i++) {
            if (series->buckets[i].n_bad == 0) continue;
            mm_str_addf(data, "%s%zu", comma, i);
            comma = ",";
        }
        mm_str_add_char(data, ']');
    }
    mm_str_add_char(data, '}');
    return MM_OK;
}

// One curve per run and part; the first parts first, so that a run's marker belongs to them.
static mm_status load_series(curve_sheet *drawing, const metric_kind *kind, mm_chart_series *series,
                             size_t *count, mm_err *err)
{
    mm_page *page = drawing->page;
    *count = 0;
    for (size_t i = 0; i < page->n_runs * PARTS; i++) {
        const size_t part = i / page->n_runs;
        const size_t run_idx = i % page->n_runs;
        const mm_page_run *run = &page->runs[run_idx];
        const char *name = kind->names[part];
        if (!name || !is_wanted(kind, run) || !mm_page_series(run, name)) continue;
        mm_bucket *buckets = NULL;
        size_t n = 0;
        MM_TRY(
            mm_store_curve(page->store, run->info.id, name,
                           run->style == MM_STYLE_NONE ? MM_REPORT_BUCKETS_GREY : drawing->buckets,
                           &page->arena, &buckets, &n, err));
        if (n == 0) continue;
        series[(*count)++] = (mm_chart_series){.label = run->label,
                                               .style = run->style,
                                               .run_idx = run_idx,
                                               .part = (int)part,
                                               .buckets = buckets,
                                               .n_buckets = n};
    }
    return MM_OK;
}

static mm_status collect_resumes(mm_page *page, const mm_chart_series *series, size_t n_series,
                                 mm_chart_mark **marks, size_t *count, mm_err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < n_series; i++)
        total += page->runs[series[i].run_idx].n_attempts;
    *marks = mm_arena_alloc(&page->arena, (total + 1) * sizeof **marks);
    *count = 0;
    if (!*marks) return MM_FAIL(err, MM_ENOMEM, "marking resumes");
    for (size_t i = 0; i < n_series; i++) {
        const mm_page_run *run = &page->runs[series[i].run_idx];
        if (series[i].style == MM_STYLE_NONE || series[i].part > 0) continue;
        for (size_t j = 0; j < run->n_attempts; j++) {
            if (run->attempts[j].number <= 1) continue;
            mm_str title;
            mm_str_init(&title, 0);
            mm_str_add(&title, run->label);
            mm_str_addf(&title, " resumed at step %" PRId64 " (attempt %" PRId32 ")",
                        run->attempts[j].from_step, run->attempts[j].number);
            (*marks)[(*count)++] =
                (mm_chart_mark){.series_idx = i,
                                .step = (double)run->attempts[j].from_step,
                                .title = mm_arena_strdup(&page->arena, mm_str_text(&title))};
            mm_str_drop(&title);
        }
    }
    return MM_OK;
}

static void value_cell(mm_page *page, double value)
{
    char text[MM_FMT_BYTES];
    mm_fmt_number(value, text);
    mm_part_number(page, value, text, NULL);
}

static void bucket_cell(mm_page *page, const mm_bucket *bucket)
{
    value_cell(page, bucket->n > 0 ? bucket->mean : (double)NAN);
}

static void extreme_cell(mm_page *page, double value, int64_t step)
{
    mm_html *html = &page->html;
    char text[MM_FMT_BYTES];
    mm_html_begin(html, "td", "n");
    if (isfinite(value)) {
        mm_fmt_number(value, text);
        mm_html_attrf(html, "data-v", "%.15g", value);
        mm_html_text(html, text);
        mm_html_leaff(html, "small", NULL, "at %" PRId64, step);
    } else {
        mm_html_text(html, "–");
    }
    mm_html_close(html);
}

// The numbers behind a chart, for readers who cannot or do not want to read the picture.
static void write_table(mm_page *page, const metric_kind *kind, const mm_chart_series *series,
                        size_t n_series)
{
    mm_html *html = &page->html;
    mm_html_open(html, "details");
    mm_html_leaf(html, "summary", NULL, "Values");
    const size_t depth = html->depth;
    mm_part_table(page, "vals", kind->title, n_series > 1);
    mm_html_raw_static(
        html, "<thead><tr><th scope=\"col\">Run</th><th scope=\"col\" class=\"n\">First</th>"
              "<th scope=\"col\" class=\"n\">Quarter</th><th scope=\"col\" class=\"n\">Half</th>"
              "<th scope=\"col\" class=\"n\">Last</th><th scope=\"col\" class=\"n\">Lowest</th>"
              "<th scope=\"col\" class=\"n\">Highest</th><th scope=\"col\" class=\"n\">Points</th>"
              "<th scope=\"col\" class=\"n\">Not finite</th></tr></thead>");
    mm_html_open(html, "tbody");
    size_t shown = 0;
    for (size_t i = 0; i < n_series; i++) {
        const mm_page_run *run = &page->runs[series[i].run_idx];
        const mm_series_info *info = mm_page_series(run, kind->names[series[i].part]);
        if (n_series > TABLE_ROWS_MAX && series[i].style == MM_STYLE_NONE) continue;
        shown++;
        mm_html_open(html, "tr");
        mm_html_open(html, "th");
        mm_html_attr(html, "scope", "row");
        mm_html_leaf(html, "bdi", NULL, run->label);
        if (kind->parts[series[i].part])
            mm_html_leaf(html, "small", NULL, kind->parts[series[i].part]);
        mm_html_close(html);
        const size_t last = series[i].n_buckets - 1;
        bucket_cell(page, &series[i].buckets[0]);
        bucket_cell(page, &series[i].buckets[last / 4]);
        bucket_cell(page, &series[i].buckets[last / 2]);
        value_cell(page, info->last);
        extreme_cell(page, info->min, info->min_step);
        extreme_cell(page, info->max, info->max_step);
        char text[MM_FMT_BYTES];
        mm_fmt_count(info->n, text);
        mm_part_number(page, (double)info->n, text, NULL);
        mm_fmt_count(info->n_bad, text);
        mm_part_number(page, (double)info->n_bad, text, NULL);
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
    if (shown < n_series)
        mm_part_note(page, "%zu curves of the runs with a colour; %zu more are in the database.",
                     shown, n_series - shown);
    mm_html_close(html);
}

static size_t longest(const mm_chart_series *series, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = series[i].n_buckets > most ? series[i].n_buckets : most;
    return most;
}

static void write_caption(mm_html *html, const metric_kind *kind)
{
    mm_html_open(html, "figcaption");
    mm_html_leaf(html, "b", NULL, kind->title);
    mm_html_begin(html, "span", NULL);
    mm_html_text(html, kind->unit);
    if (kind->parts[1])
        mm_html_textf(html, "%sthick: %s, thin: %s", kind->unit[0] ? "; " : "", kind->parts[0],
                      kind->parts[1]);
    mm_html_close(html);
    mm_html_close(html);
}

static mm_status add_chart_data(curve_sheet *drawing, const mm_chart *chart,
                                const metric_kind *kind, bool is_log, mm_err *err)
{
    mm_str *data = &drawing->page->data;
    mm_str_addf(data, "%s\"%s\":{\"sm\":%g,\"log\":%s,",
                data->data[data->length - 1] == '{' ? "" : ",", chart->id, chart->smoothing,
                is_log ? "true" : "false");
    if (kind->parts[1])
        mm_str_addf(data, "\"parts\":[\"%s\",\"%s\"],", kind->parts[0], kind->parts[1]);
    mm_str_add(data, "\"s\":[");
    for (size_t i = 0; i < chart->n_series; i++) {
        if (i > 0) mm_str_add_char(data, ',');
        MM_TRY(add_series_data(drawing, &chart->series[i], err));
    }
    mm_str_add(data, "]}");
    return MM_OK;
}

static mm_status write_chart(curve_sheet *drawing, size_t index, mm_err *err)
{
    mm_page *page = drawing->page;
    mm_html *html = &page->html;
    const metric_kind *kind = &drawing->panels[index];
    mm_chart_series *series = mm_arena_alloc(&page->arena, PARTS * page->n_runs * sizeof *series);
    if (!series) return MM_FAIL(err, MM_ENOMEM, "drawing %s", kind->title);
    size_t n_series;
    MM_TRY(load_series(drawing, kind, series, &n_series, err));
    if (n_series == 0) return MM_OK;
    mm_chart_mark *marks;
    size_t n_marks;
    MM_TRY(collect_resumes(page, series, n_series, &marks, &n_marks, err));
    char id[24];
    char description[256];
    snprintf(id, sizeof id, "c%zu", index);
    snprintf(description, sizeof description,
             "Line chart of %zu curve%s over training steps, at most %zu points each; the band "
             "spans the lowest and highest value of a point. The numbers are in the table below.",
             n_series, n_series == 1 ? "" : "s", drawing->buckets);
    const mm_chart chart = {.id = id,
                            .title = kind->title,
                            .description = description,
                            .series = series,
                            .n_series = n_series,
                            .marks = marks,
                            .n_marks = n_marks,
                            .smoothing =
                                longest(series, n_series) >= SMOOTH_FROM ? kind->smoothing : 0,
                            .log_ratio = kind->log_ratio};
    mm_html_begin(html, "figure", "chart");
    mm_html_attr(html, "id", id);
    write_caption(html, kind);
    bool is_log;
    MM_TRY(mm_svg_chart(html, &chart, &is_log, err));
    write_table(page, kind, series, n_series);
    mm_html_close(html);
    return add_chart_data(drawing, &chart, kind, is_log, err);
}

// Per run: its name, its colour, and a map from steps to tokens and seconds.
static mm_status add_run_data(curve_sheet *drawing, size_t index, mm_err *err)
{
    mm_page *page = drawing->page;
    const mm_page_run *run = &page->runs[index];
    mm_str *data = &page->data;
    const bool has_tokens = mm_page_series(run, "tokens") != NULL;
    mm_bucket *buckets = NULL;
    size_t n = 0;
    if (has_tokens || mm_page_series(run, "loss"))
        MM_TRY(mm_store_curve(page->store, run->info.id, has_tokens ? "tokens" : "loss", KNOTS,
                              &page->arena, &buckets, &n, err));
    mm_str_add(data, index > 0 ? ",{\"n\":" : "{\"n\":");
    mm_json_add_string(data, run->label, strlen(run->label));
    mm_str_addf(data, ",\"c\":%d", run->style);
    const char *comma = ",\"res\":[";
    for (size_t i = 0; i < run->n_attempts; i++) {
        if (run->attempts[i].number <= 1) continue;
        mm_str_addf(data, "%s%" PRId64, comma, run->attempts[i].from_step);
        comma = ",";
    }
    if (comma[1] == '\0') mm_str_add_char(data, ']');
    if (n > 1) {
        size_t axis;
        MM_TRY(add_axis(drawing, buckets, n, &axis, err));
        const double per_step =
            run->info.steps > 0 ? (double)run->info.tokens / (double)run->info.steps : 0;
        mm_str_addf(data, ",\"x\":%zu,\"tok\":[", axis);
        for (size_t i = 0; i < n; i++) {
            if (i > 0) mm_str_add_char(data, ',');
            const double tokens =
                has_tokens ? buckets[i].mean : per_step * mm_bucket_step(&buckets[i]);
            mm_fmt_json(data, tokens, 7);
        }
        mm_str_add(data, "],\"sec\":[");
        for (size_t i = 0; i < n; i++) {
            if (i > 0) mm_str_add_char(data, ',');
            mm_fmt_json(data, (double)buckets[i].time_ms / 1000, 6);
        }
        mm_str_add_char(data, ']');
    }
    mm_str_add_char(data, '}');
    return MM_OK;
}

static void write_legend(mm_page *page)
{
    mm_html *html = &page->html;
    mm_html_begin(html, "div", "bar");
    mm_html_begin(html, "ul", "legend");
    for (size_t i = 0; i < page->n_runs; i++) {
        if (page->runs[i].style == MM_STYLE_NONE) continue;
        mm_html_open(html, "li");
        mm_html_attrf(html, "data-r", "%zu", i);
        mm_part_run(page, &page->runs[i]);
        mm_html_close(html);
    }
    if (page->n_runs > page->n_coloured) {
        mm_html_open(html, "li");
        mm_html_attr(html, "data-r", "x");
        mm_html_begin(html, "span", "run");
        mm_svg_key(html, MM_STYLE_NONE);
        mm_html_textf(html, "%zu more", page->n_runs - page->n_coloured);
        mm_html_close(html);
        mm_html_close(html);
    }
    mm_html_close(html);
    // Controls that need the script; it shows them.
    mm_html_raw_static(
        html,
        "<form id=\"ctl\" hidden><label>Axis <select id=\"cx\"><option value=\"step\">step</option>"
        "<option value=\"tok\">tokens</option><option value=\"sec\">time</option></select></label>"
        "<label>Smoothing <input id=\"cs\" type=\"range\" min=\"0\" max=\"0.98\" step=\"0.02\" "
        "value=\"0.8\"><output id=\"co\">0.80</output></label>"
        "<label><input id=\"cl\" type=\"checkbox\"> logarithmic</label></form>");
    mm_html_close(html);
}

static mm_status write_all(curve_sheet *drawing, mm_err *err)
{
    mm_page *page = drawing->page;
    mm_html *html = &page->html;
    mm_str *data = &page->data;
    mm_part_section(page, "curves", "Curves");
    if (drawing->n_panels == 0) {
        mm_html_leaf(html, "p", NULL, "No metric was logged.");
        mm_html_close(html);
        return MM_OK;
    }
    write_legend(page);
    mm_str_addf(data, "{\"geo\":[%d,%d,%d,%d,%d,%d],\"charts\":{", MM_CHART_WIDTH, MM_CHART_HEIGHT,
                MM_CHART_LEFT, MM_CHART_RIGHT, MM_CHART_TOP, MM_CHART_BOTTOM);
    const size_t depth = html->depth;
    // Two large charts and a row of three, when those five are there and no other.
    size_t n_main = 0;
    while (n_main < drawing->n_panels && drawing->panels[n_main].is_main)
        n_main++;
    mm_html_begin(html, "div", n_main == 5 ? "charts lead2" : "charts");
    for (size_t i = 0; i < n_main; i++)
        MM_TRY(write_chart(drawing, i, err));
    mm_html_close_to(html, depth);
    if (n_main < drawing->n_panels) {
        // Folded only when there is something in front of the fold.
        mm_html_open(html, n_main > 0 ? "details" : "div");
        if (n_main > 0)
            mm_html_leaff(html, "summary", NULL, "%zu more metric%s", drawing->n_panels - n_main,
                          drawing->n_panels - n_main == 1 ? "" : "s");
        mm_html_begin(html, "div", "charts");
        for (size_t i = n_main; i < drawing->n_panels; i++)
            MM_TRY(write_chart(drawing, i, err));
        mm_html_close_to(html, depth);
    }
    mm_str_add(data, "},\"runs\":[");
    for (size_t i = 0; i < page->n_runs; i++)
        MM_TRY(add_run_data(drawing, i, err));
    mm_str_add(data, "],\"xs\":[");
    mm_str_add_bytes(data, mm_str_text(&drawing->xs), drawing->xs.length);
    mm_str_add(data, "]}");
    MM_TRY(mm_str_check(&drawing->xs, err));
    mm_part_note(
        page,
        "Faint: the points as logged, at most %zu per run (the band keeps the lowest and "
        "highest of each). Strong: smoothed where the metric is noisy, by a bias-corrected "
        "exponential average. ◀ and a dashed line: resumed. × at the top: not finite. "
        "▲ at the top: off the scale.",
        drawing->buckets);
    if (drawing->n_left_out > 0)
        mm_part_note(page, "%zu more metrics are in the database and not drawn.",
                     drawing->n_left_out);
    mm_html_close(html);
    return MM_OK;
}

mm_status mm_section_curves(mm_page *page, mm_err *err)
{
    curve_sheet drawing = {.page = page};
    mm_str_init(&drawing.xs, 0);
    mm_status status = MM_OK;
    drawing.x_at = mm_alloc(XS_MAX * sizeof *drawing.x_at);
    if (!drawing.x_at) {
        status = MM_FAIL(err, MM_ENOMEM, "drawing curves");
        goto done;
    }
    MM_GO(collect_panels(&drawing, err));
    MM_GO(write_all(&drawing, err));
done:
    mm_free(drawing.x_at);
    mm_str_drop(&drawing.xs);
    return status;
}
