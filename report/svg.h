/* Charts as SVG, drawn in C: a page is complete without a script, printable, and the same each
 * time.
 *
 * Colours, dashes and line widths come from classes (s0 … s7, sx for runs without a colour of their
 * own). report.js redraws a chart inside the same groups (ax, pl, mk), so the two keep the same
 * geometry: MM_CHART_* below travels in the page's data.
 */
#ifndef MM_REPORT_SVG_H
#define MM_REPORT_SVG_H

#include "report/html.h"
#include "report/scale.h"
#include "store/query.h"

/* View box and plot margins of a line chart, in SVG units. */
enum {
    MM_CHART_WIDTH = 544,
    MM_CHART_HEIGHT = 272,
    MM_CHART_LEFT = 50,
    MM_CHART_RIGHT = 14,
    MM_CHART_TOP = 12,
    MM_CHART_BOTTOM = 34,
    MM_STYLES = 8, /* colours, each with a dash pattern and a marker shape of its own */
    MM_STYLE_NONE = -1
};

/* A path under construction, in relative commands of a tenth of a unit: exact to that tenth however
 * long it gets. */
typedef struct mm_pen {
    mm_str *out;
    long x; /* tenths */
    long y;
    char last; /* command that a bare pair of numbers would continue */
} mm_pen;
void mm_pen_move(mm_pen *pen, double x, double y);
void mm_pen_line(mm_pen *pen, double x, double y);
void mm_pen_close(mm_pen *pen);

/* Marker of a style, centred at (x, y). `title` NULL: none. */
void mm_svg_marker(mm_html *html, int style, double x, double y, const char *title);
/* A piece of line with its marker: the key of a legend. */
void mm_svg_key(mm_html *html, int style);
/* anchor "start", "middle", "end". */
void mm_svg_label(mm_html *html, double x, double y, const char *anchor, const char *class_name,
                  const char *text);
/* Opens <svg> with view box, role, <title> and <desc>; ids are derived from `id`. */
void mm_svg_begin(mm_html *html, const char *id, const char *class_name, double width,
                  double height, const char *title, const char *description);

typedef struct mm_chart_series {
    const char *label; /* of the run */
    int style;         /* 0 … MM_STYLES-1 or MM_STYLE_NONE: thin, grey, no band */
    size_t run_idx;    /* data-r: what a legend entry switches on and off */
    int part;          /* 1: the thinner of two curves of one run, without band and marker */
    const mm_bucket *buckets;
    size_t n_buckets;
} mm_chart_series;

/* Where a run was resumed. */
typedef struct mm_chart_mark {
    size_t series_idx;
    double step;
    const char *title;
} mm_chart_mark;

typedef struct mm_chart {
    const char *id; /* unique in the page, fit for an id */
    const char *title;
    const char *description;
    const mm_chart_series *series;
    size_t n_series;
    const mm_chart_mark *marks; /* resumes; bad and cut-off points are found in the buckets */
    size_t n_marks;
    double smoothing; /* 0: none; else weight of the past in the moving average */
    double log_ratio; /* see mm_scale_fit */
} mm_chart;

/* Centre of a bucket on the step axis. */
double mm_bucket_step(const mm_bucket *bucket);
/* Bias-corrected exponential moving average over buckets: average[i] for each bucket with points,
 * NaN for the others. */
void mm_smooth(const mm_bucket *buckets, size_t n, double weight, double *average);

/* The whole <svg>. *y_is_log tells which axis was chosen. Fails only for want of memory. */
MM_NODISCARD mm_status mm_svg_chart(mm_html *html, const mm_chart *chart, bool *y_is_log,
                                    mm_err *err);

#endif
