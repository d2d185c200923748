/* Charts as SVG, drawn in C. */
#include "report/svg.h"

#include "report/fmt.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* A path is cut here at most this far outside the plot; the clip path does the rest. */
static const double FAR = 3000;

static void add_tenths(mm_str *out, long tenths, bool separate)
{
    char text[24];
    const char *sign = tenths < 0 ? "-" : separate ? " " : "";
    const long size = tenths < 0 ? -tenths : tenths;
    if (size % 10 == 0)
        snprintf(text, sizeof text, "%s%ld", sign, size / 10);
    else if (size < 10)
        snprintf(text, sizeof text, "%s.%ld", sign, size);
    else
        snprintf(text, sizeof text, "%s%ld.%ld", sign, size / 10, size % 10);
    mm_str_add(out, text);
}

static long to_tenths(double value) { return lround(fmin(fmax(value, -FAR), FAR) * 10); }

static void pen_to(mm_pen *pen, char command, double x, double y)
{
    const long to_x = to_tenths(x);
    const long to_y = to_tenths(y);
    const bool repeated = pen->last == command;
    if (!repeated) mm_str_add_char(pen->out, command);
    pen->last = command;
    const bool absolute = command == 'M';
    add_tenths(pen->out, absolute ? to_x : to_x - pen->x, repeated);
    add_tenths(pen->out, absolute ? to_y : to_y - pen->y, true);
    pen->x = to_x;
    pen->y = to_y;
}

void mm_pen_move(mm_pen *pen, double x, double y)
{
    pen->last = '\0'; // a second pair after M would be a line
    pen_to(pen, 'M', x, y);
}

void mm_pen_line(mm_pen *pen, double x, double y) { pen_to(pen, 'l', x, y); }

void mm_pen_close(mm_pen *pen)
{
    mm_str_add_char(pen->out, 'z');
    pen->last = '\0';
}

// "s3", "sx"
static const char *style_class(int style)
{
    static const char *const names[MM_STYLES] = {"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"};
    return style >= 0 && style < MM_STYLES ? names[style] : "sx";
}

// Circle, square, triangle, diamond, triangle down, plus, cross, bar: told apart without colour.
static const char *marker_path(int style)
{
    static const char *const paths[MM_STYLES] = {
        "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
        "M-3.3-3.3h6.6v6.6h-6.6z",
        "M0-4.4l4.2 7.4h-8.4z",
        "M0-4.7l4.7 4.7l-4.7 4.7l-4.7-4.7z",
        "M0 4.4l4.2-7.4h-8.4z",
        "M-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
        "M-3-4.2l3 3 3-3 1.2 1.2-3 3 3 3-1.2 1.2-3-3-3 3-1.2-1.2 3-3-3-3z",
        "M-4.4-1.8h8.8v3.6h-8.8z",
    };
    return style >= 0 && style < MM_STYLES ? paths[style] : "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z";
}

static void coordinate(mm_html *html, const char *name, double value)
{
    mm_html_attrf(html, name, "%.4g", round(value * 10) / 10);
}

static void draw_symbol(mm_html *html, const char *class_name, const char *path, double x, double y,
                        const char *title)
{
    mm_html_begin(html, "path", class_name);
    mm_html_attrf(html, "transform", "translate(%.4g %.4g)", round(x * 10) / 10,
                  round(y * 10) / 10);
    mm_html_attr(html, "d", path);
    if (title) mm_html_leaf(html, "title", NULL, title);
    mm_html_close(html);
}

void mm_svg_marker(mm_html *html, int style, double x, double y, const char *title)
{
    char class_name[8];
    snprintf(class_name, sizeof class_name, "m %s", style_class(style));
    draw_symbol(html, class_name, marker_path(style), x, y, title);
}

void mm_svg_key(mm_html *html, int style)
{
    mm_html_begin(html, "svg", "key");
    mm_html_attr(html, "viewBox", "0 0 34 12");
    mm_html_attr(html, "width", "34");
    mm_html_attr(html, "height", "12");
    mm_html_attr(html, "aria-hidden", "true");
    char class_name[8];
    snprintf(class_name, sizeof class_name, "ln %s", style_class(style));
    mm_html_begin(html, "path", class_name);
    mm_html_attr(html, "d", "M1 6h32");
    mm_html_close(html);
    mm_svg_marker(html, style, 17, 6, NULL);
    mm_html_close(html);
}

void mm_svg_label(mm_html *html, double x, double y, const char *anchor, const char *class_name,
                  const char *text)
{
    mm_html_begin(html, "text", class_name);
    coordinate(html, "x", x);
    coordinate(html, "y", y);
    if (anchor[0] != 's') mm_html_attr(html, "text-anchor", anchor);
    mm_html_text(html, text);
    mm_html_close(html);
}

void mm_svg_begin(mm_html *html, const char *id, const char *class_name, double width,
                  double height, const char *title, const char *description)
{
    mm_html_begin(html, "svg", class_name);
    mm_html_attrf(html, "viewBox", "0 0 %.0f %.0f", width, height);
    mm_html_attr(html, "role", "img");
    mm_html_attrf(html, "aria-labelledby", "%s-t %s-d", id, id);
    mm_html_open(html, "title");
    mm_html_attrf(html, "id", "%s-t", id);
    mm_html_text(html, title);
    mm_html_close(html);
    mm_html_open(html, "desc");
    mm_html_attrf(html, "id", "%s-d", id);
    mm_html_text(html, description);
    mm_html_close(html);
}

double mm_bucket_step(const mm_bucket *bucket)
{
    return ((double)bucket->step_first + (double)bucket->step_last) / 2;
}

void mm_smooth(const mm_bucket *buckets, size_t n, double weight, double *average)
{
    double sum = 0;
    double norm = 0;
    for (size_t i = 0; i < n; i++) {
        average[i] = (double)NAN;
        if (buckets[i].n == 0 || !isfinite(buckets[i].mean)) continue;
        sum = weight * sum + (1 - weight) * buckets[i].mean;
        norm = weight * norm + (1 - weight);
        average[i] = sum / norm;
    }
}

typedef struct plot_area {
    mm_html *html;
    const mm_chart *chart;
    mm_scale x;
    mm_scale y;
    mm_str path; // reused for each d attribute
} plot_area;

static mm_status fit_scales(plot_area *plot, mm_err *err)
{
    const mm_chart *chart = plot->chart;
    size_t total = 0;
    for (size_t i = 0; i < chart->n_series; i++)
        total += chart->series[i].n_buckets;
    double *values = mm_alloc((total + 1) * sizeof *values);
    if (!values) return MM_FAIL(err, MM_ENOMEM, "drawing the chart %s", chart->title);
    double first = (double)INFINITY;
    double last = -(double)INFINITY;
    size_t n = 0;
    for (size_t i = 0; i < chart->n_series; i++) {
        const mm_chart_series *series = &chart->series[i];
        for (size_t j = 0; j < series->n_buckets; j++) {
            values[n++] = series->buckets[j].n > 0 ? series->buckets[j].mean : (double)NAN;
            first = fmin(first, mm_bucket_step(&series->buckets[j]));
            last = fmax(last, mm_bucket_step(&series->buckets[j]));
        }
    }
    mm_scale_fit(&plot->y, values, n, chart->log_ratio);
    mm_free(values);
    plot->y.from = MM_CHART_HEIGHT - MM_CHART_BOTTOM;
    plot->y.to = MM_CHART_TOP;
    plot->x = (mm_scale){.low = n > 0 ? first : 0,
                         .high = n > 0 ? last : 1,
                         .from = MM_CHART_LEFT,
                         .to = MM_CHART_WIDTH - MM_CHART_RIGHT};
    if (!(plot->x.high > plot->x.low)) {
        plot->x.low -= 1;
        plot->x.high += 1;
    }
    return MM_OK;
}

static void draw_axes(plot_area *plot)
{
    mm_html *html = plot->html;
    mm_html_begin(html, "g", "ax");
    double ticks[MM_TICKS_MAX];
    double spacing = 0;
    char text[MM_FMT_BYTES];
    size_t count = plot->y.is_log ? mm_ticks_log(plot->y.low, plot->y.high, ticks)
                                  : mm_ticks_linear(plot->y.low, plot->y.high, 5, ticks, &spacing);
    mm_pen pen = {.out = &plot->path};
    mm_str_clear(&plot->path);
    for (size_t i = 0; i < count; i++) {
        const double y = mm_scale_map(&plot->y, ticks[i]);
        mm_pen_move(&pen, plot->x.from, y);
        mm_pen_line(&pen, plot->x.to, y);
        mm_fmt_tick(ticks[i], plot->y.is_log ? ticks[i] : spacing, text);
        mm_svg_label(html, plot->x.from - 7, y + 4, "end", NULL, text);
    }
    mm_html_begin(html, "path", "grid");
    mm_html_attr(html, "d", mm_str_text(&plot->path));
    mm_html_close(html);

    count = mm_ticks_linear(plot->x.low, plot->x.high, 5, ticks, &spacing);
    mm_str_clear(&plot->path);
    mm_pen_move(&pen, plot->x.from, plot->y.from);
    mm_pen_line(&pen, plot->x.to, plot->y.from);
    for (size_t i = 0; i < count; i++) {
        const double x = mm_scale_map(&plot->x, ticks[i]);
        mm_pen_move(&pen, x, plot->y.from);
        mm_pen_line(&pen, x, plot->y.from + 4);
        mm_fmt_tick(ticks[i], spacing, text);
        // The last label would leave the picture, and the name of the axis stands there.
        const bool is_at_end = x > plot->x.to - 12;
        mm_svg_label(html, is_at_end ? plot->x.to : x, plot->y.from + 17,
                     is_at_end ? "end" : "middle", NULL, text);
    }
    mm_html_begin(html, "path", "axis");
    mm_html_attr(html, "d", mm_str_text(&plot->path));
    mm_html_close(html);
    mm_svg_label(html, plot->x.to, plot->y.from + 31, "end", "axn", "step");
    mm_html_close(html);
}

static void path_element(plot_area *plot, const char *kind, const mm_chart_series *series)
{
    if (plot->path.length == 0) return;
    char class_name[24];
    snprintf(class_name, sizeof class_name, "%s %s%s", kind, style_class(series->style),
             series->part > 0 ? " p1" : "");
    mm_html_begin(plot->html, "path", class_name);
    mm_html_attrf(plot->html, "data-r", "%zu", series->run_idx);
    mm_html_attr(plot->html, "d", mm_str_text(&plot->path));
    mm_html_close(plot->html);
}

// The band from minimum to maximum, one closed piece per run of buckets with points.
static void draw_band(plot_area *plot, const mm_chart_series *series)
{
    const mm_bucket *buckets = series->buckets;
    mm_str_clear(&plot->path);
    mm_pen pen = {.out = &plot->path};
    for (size_t from = 0; from < series->n_buckets;) {
        size_t to = from;
        bool has_width = false;
        for (; to < series->n_buckets && buckets[to].n > 0; to++)
            has_width = has_width || buckets[to].max > buckets[to].min;
        if (has_width && to - from >= 2) {
            for (size_t i = from; i < to; i++) {
                const double x = mm_scale_map(&plot->x, mm_bucket_step(&buckets[i]));
                const double y = mm_scale_map(&plot->y, buckets[i].max);
                if (i == from)
                    mm_pen_move(&pen, x, y);
                else
                    mm_pen_line(&pen, x, y);
            }
            for (size_t i = to; i-- > from;)
                mm_pen_line(&pen, mm_scale_map(&plot->x, mm_bucket_step(&buckets[i])),
                            mm_scale_map(&plot->y, buckets[i].min));
            mm_pen_close(&pen);
        }
        from = to + 1;
    }
    path_element(plot, "band", series);
}

static void draw_line(plot_area *plot, const mm_chart_series *series, const char *kind,
                      const double *values)
{
    mm_str_clear(&plot->path);
    mm_pen pen = {.out = &plot->path};
    bool is_down = false;
    for (size_t i = 0; i < series->n_buckets; i++) {
        if (!isfinite(values[i])) {
            is_down = false;
            continue;
        }
        const double x = mm_scale_map(&plot->x, mm_bucket_step(&series->buckets[i]));
        const double y = mm_scale_map(&plot->y, values[i]);
        if (is_down)
            mm_pen_line(&pen, x, y);
        else
            mm_pen_move(&pen, x, y);
        is_down = true;
    }
    path_element(plot, kind, series);
}

static mm_status draw_series(plot_area *plot, const mm_chart_series *series, mm_err *err)
{
    const size_t n = series->n_buckets;
    double *values = mm_alloc((2 * n + 1) * sizeof *values);
    if (!values) return MM_FAIL(err, MM_ENOMEM, "drawing the chart %s", plot->chart->title);
    double *average = values + n;
    for (size_t i = 0; i < n; i++)
        values[i] = series->buckets[i].n > 0 ? series->buckets[i].mean : (double)NAN;
    mm_smooth(series->buckets, n, plot->chart->smoothing, average);
    if (series->style == MM_STYLE_NONE) {
        draw_line(plot, series, "ln", values); // few buckets, means already
    } else {
        if (series->part == 0) draw_band(plot, series);
        if (plot->chart->smoothing > 0) draw_line(plot, series, "raw", values);
        draw_line(plot, series, "ln", average);
    }
    mm_free(values);
    return MM_OK;
}

static void begin_mark(plot_area *plot, const mm_chart_series *series)
{
    mm_html_open(plot->html, "g");
    mm_html_attrf(plot->html, "data-r", "%zu", series->run_idx);
}

// The last point carries the marker of its run; a long line carries a few more on its way.
static void draw_markers(plot_area *plot, const mm_chart_series *series)
{
    if (series->style == MM_STYLE_NONE || series->part > 0 || series->n_buckets == 0) return;
    double *average = mm_alloc(series->n_buckets * sizeof *average);
    if (!average) return; // the line itself has been drawn; draw_series reports the lack of memory
    mm_smooth(series->buckets, series->n_buckets, plot->chart->smoothing, average);
    size_t last = series->n_buckets;
    while (last > 0 && !isfinite(average[last - 1]))
        last--;
    begin_mark(plot, series);
    for (size_t i = 0; i < 4 && last > 0; i++) {
        const size_t at = i == 3 ? last - 1 : last * (i + 1) / 4;
        if ((i < 3 && last < 12) || !isfinite(average[at])) continue;
        if (!mm_scale_contains(&plot->y, average[at])) continue;
        mm_svg_marker(plot->html, series->style,
                      mm_scale_map(&plot->x, mm_bucket_step(&series->buckets[at])),
                      mm_scale_map(&plot->y, average[at]), NULL);
    }
    mm_html_close(plot->html);
    mm_free(average);
}

enum { TROUBLE_MARKS_MAX = 12 }; /* of a kind and series; more would hide the curve */

static bool is_cut(const plot_area *plot, const mm_bucket *bucket)
{
    return bucket->n > 0 && bucket->max > plot->y.high;
}

static void mark_bad(plot_area *plot, const mm_chart_series *series, size_t from, size_t to)
{
    const mm_bucket *buckets = series->buckets;
    int64_t count = 0;
    for (size_t i = from; i < to; i++)
        count += buckets[i].n_bad;
    char title[160];
    snprintf(title, sizeof title, "%" PRId64 " value%s not finite, step %" PRId64 " to %" PRId64,
             count, count == 1 ? "" : "s", buckets[from].step_first, buckets[to - 1].step_last);
    begin_mark(plot, series);
    draw_symbol(plot->html, "bad", "M-4-4l8 8m0-8l-8 8",
                mm_scale_map(&plot->x, mm_bucket_step(&buckets[from])), plot->y.to + 6, title);
    mm_html_close(plot->html);
}

static void mark_cut(plot_area *plot, const mm_chart_series *series, size_t from, size_t to)
{
    const mm_bucket *buckets = series->buckets;
    double highest = buckets[from].max;
    for (size_t i = from; i < to; i++)
        highest = fmax(highest, buckets[i].max);
    char value[MM_FMT_BYTES];
    char title[160];
    char class_name[8];
    mm_fmt_number(highest, value);
    snprintf(title, sizeof title, "off the scale: up to %s, step %" PRId64 " to %" PRId64, value,
             buckets[from].step_first, buckets[to - 1].step_last);
    snprintf(class_name, sizeof class_name, "m %s", style_class(series->style));
    begin_mark(plot, series);
    draw_symbol(plot->html, class_name, "M0-4l4 6h-8z",
                mm_scale_map(&plot->x, mm_bucket_step(&buckets[from])), plot->y.to + 4, title);
    mm_html_close(plot->html);
}

// Stretches of buckets with values that are not finite, or above the drawn range: one mark each,
// where they begin.
static void draw_trouble(plot_area *plot, const mm_chart_series *series)
{
    const mm_bucket *buckets = series->buckets;
    size_t n_bad = 0;
    size_t n_cut = 0;
    for (size_t from = 0; from < series->n_buckets; from++) {
        size_t to = from;
        while (to < series->n_buckets && buckets[to].n_bad > 0)
            to++;
        const bool starts_bad = to > from && (from == 0 || buckets[from - 1].n_bad == 0);
        if (starts_bad && n_bad++ < TROUBLE_MARKS_MAX) mark_bad(plot, series, from, to);
        if (series->style == MM_STYLE_NONE) continue;
        for (to = from; to < series->n_buckets && is_cut(plot, &buckets[to]);)
            to++;
        // A curve that begins above the range is seen coming from there.
        const bool starts_cut = to > from && from > 0 && !is_cut(plot, &buckets[from - 1]);
        if (starts_cut && n_cut++ < TROUBLE_MARKS_MAX) mark_cut(plot, series, from, to);
    }
}

static void draw_resumes(plot_area *plot)
{
    for (size_t i = 0; i < plot->chart->n_marks; i++) {
        const mm_chart_mark *mark = &plot->chart->marks[i];
        const mm_chart_series *series = &plot->chart->series[mark->series_idx];
        const double x = mm_scale_map(&plot->x, mark->step);
        if (x < plot->x.from - 1 || x > plot->x.to + 1) continue;
        begin_mark(plot, series);
        char class_name[12];
        snprintf(class_name, sizeof class_name, "res %s", style_class(series->style));
        mm_html_begin(plot->html, "path", class_name);
        mm_html_attrf(plot->html, "d", "M%.4g %dv%d", round(x * 10) / 10, (int)plot->y.to,
                      (int)(plot->y.from - plot->y.to));
        mm_html_leaf(plot->html, "title", NULL, mark->title);
        mm_html_close(plot->html);
        snprintf(class_name, sizeof class_name, "m %s", style_class(series->style));
        draw_symbol(plot->html, class_name, "M-3.5 0l7-4v8z", x, plot->y.from - 6, mark->title);
        mm_html_close(plot->html);
    }
}

mm_status mm_svg_chart(mm_html *html, const mm_chart *chart, bool *y_is_log, mm_err *err)
{
    plot_area plot = {.html = html, .chart = chart};
    mm_str_init(&plot.path, 0);
    mm_status status = MM_OK;
    MM_GO(fit_scales(&plot, err));
    *y_is_log = plot.y.is_log;
    mm_svg_begin(html, chart->id, "plot", MM_CHART_WIDTH, MM_CHART_HEIGHT, chart->title,
                 chart->description);
    draw_axes(&plot);
    mm_html_open(html, "clipPath");
    mm_html_attrf(html, "id", "%s-k", chart->id);
    mm_html_open(html, "rect");
    mm_html_attrf(html, "x", "%d", MM_CHART_LEFT);
    mm_html_attrf(html, "y", "%d", MM_CHART_TOP);
    mm_html_attrf(html, "width", "%d", MM_CHART_WIDTH - MM_CHART_LEFT - MM_CHART_RIGHT);
    mm_html_attrf(html, "height", "%d", MM_CHART_HEIGHT - MM_CHART_TOP - MM_CHART_BOTTOM);
    mm_html_close(html);
    mm_html_close(html);
    mm_html_begin(html, "g", "pl");
    mm_html_attrf(html, "clip-path", "url(#%s-k)", chart->id);
    // Grey runs first, so that the named ones lie on top.
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < chart->n_series; i++)
            if ((chart->series[i].style >= 0) == (pass == 1))
                MM_GO(draw_series(&plot, &chart->series[i], err));
    mm_html_close(html);
    mm_html_begin(html, "g", "mk");
    draw_resumes(&plot);
    for (size_t i = 0; i < chart->n_series; i++) {
        draw_markers(&plot, &chart->series[i]);
        draw_trouble(&plot, &chart->series[i]);
    }
    mm_html_close(html);
    mm_html_close(html);
    status = mm_str_check(&plot.path, err);
done:
    mm_str_drop(&plot.path);
    return status;
}
