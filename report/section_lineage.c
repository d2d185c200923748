/* Where each model came from: data and tokenizer at the left, the runs that learned from them, the
 * runs made from those. As a graph, and as a nested list for narrow screens and screen readers. */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/number.h"
#include "store/family.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    FILES_MAX = 48,
    EDGES_MAX = 512,
    BOX_WIDTH = 204,
    BOX_HEIGHT = 76,
    FILE_HEIGHT = 40,
    COLUMN_WIDTH = 250,
    ROW_PITCH = 92,
    FILE_PITCH = 50,
    TEXT_COLUMNS = 28,
    LINE_BYTES = 256,
    COLUMNS_STYLED = 8, /* widths in report.css */
    VERTICALS = 5       /* side by side between two columns */
};

/* A file or a tokenizer that a run without a parent learned from. */
typedef struct file_node {
    const char *key; /* digest */
    const char *name;
    const char *role;
    bool is_tokenizer;
    int y;
} file_node;

typedef struct drawing {
    mm_page *page;
    mm_family family;
    const mm_page_run **shown; /* per run of the family; NULL: not in the report */
    int *y;                    /* top of each run's box */
    file_node files[FILES_MAX];
    size_t n_files;
    size_t edge_file[EDGES_MAX];
    size_t edge_run[EDGES_MAX];
    size_t n_edges;
    size_t n_left_out;
    int columns;
    int height;
} drawing;

static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash && slash[1] ? slash + 1 : path ? path : "?";
}

static bool is_tokenizer(const mm_dataset *file)
{
    return file->role && strcmp(file->role, "tokenizer") == 0;
}

static const char *keep(mm_page *page, const char *text)
{
    const char *copy = mm_arena_strdup(&page->arena, text);
    return copy ? copy : "…";
}

/* ---- what to draw ------------------------------------------------------------------------------
 */

static void add_file(drawing *graph, size_t run, const file_node *file)
{
    size_t at = 0;
    while (at < graph->n_files && strcmp(graph->files[at].key, file->key) != 0)
        at++;
    if (at == graph->n_files) {
        if (at == FILES_MAX) {
            graph->n_left_out++;
            return;
        }
        graph->files[graph->n_files] = *file;
        graph->files[graph->n_files++].y = -1;
    }
    if (graph->n_edges == EDGES_MAX) return;
    graph->edge_file[graph->n_edges] = at;
    graph->edge_run[graph->n_edges++] = run;
}

static void add_files(drawing *graph, size_t index)
{
    const mm_family_run *run = &graph->family.runs[index];
    bool has_tokenizer = false;
    for (size_t i = 0; i < run->n_datasets; i++) {
        const mm_dataset *data = &run->datasets[i];
        has_tokenizer = has_tokenizer || is_tokenizer(data);
        const file_node file = {.key = data->sha256 ? data->sha256 : "?",
                                .name = base_name(data->path),
                                .role = data->role ? data->role : "data",
                                .is_tokenizer = is_tokenizer(data)};
        add_file(graph, index, &file);
    }
    if (has_tokenizer || !run->tokenizer) return;
    const file_node file = {
        .key = run->tokenizer, .name = "tokenizer", .role = "", .is_tokenizer = true};
    add_file(graph, index, &file);
}

// The runs of the report, or of very many those with a colour, with all that they came from.
static mm_status collect(drawing *graph, mm_err *err)
{
    mm_page *page = graph->page;
    int64_t *ids = mm_arena_alloc(&page->arena, page->n_runs * sizeof *ids);
    if (!ids) return MM_FAIL(err, MM_ENOMEM, "drawing the lineage");
    size_t n = 0;
    for (size_t i = 0; i < page->n_runs; i++) {
        if (page->n_runs > MM_REPORT_LINEAGE_MAX && page->runs[i].style == MM_STYLE_NONE)
            graph->n_left_out++;
        else
            ids[n++] = page->runs[i].info.id;
    }
    MM_TRY(mm_store_family(page->store, ids, n, false, &page->arena, &graph->family, err));
    graph->n_left_out += graph->family.n_left_out;
    const size_t count = graph->family.count;
    graph->shown = mm_arena_alloc(&page->arena, (count + 1) * sizeof *graph->shown);
    graph->y = mm_arena_alloc(&page->arena, (count + 1) * sizeof *graph->y);
    if (!graph->shown || !graph->y) return MM_FAIL(err, MM_ENOMEM, "drawing the lineage");
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < page->n_runs; j++)
            if (page->runs[j].info.id == graph->family.runs[i].info.id)
                graph->shown[i] = &page->runs[j];
        if (graph->family.runs[i].depth == 0) add_files(graph, i);
    }
    return MM_OK;
}

// A run stands beside its first child; a file beside the first run that read it.
static void place(drawing *graph)
{
    int y = 0;
    int file_y = 0;
    graph->columns = 1;
    for (size_t i = 0; i < graph->family.count; i++) {
        const mm_family_run *run = &graph->family.runs[i];
        const bool has_child = i + 1 < graph->family.count && graph->family.runs[i + 1].parent == i;
        if (run->depth == 0 && graph->n_files > 0) {
            bool is_first = true;
            for (size_t e = 0; e < graph->n_edges; e++) {
                file_node *file = &graph->files[graph->edge_file[e]];
                if (graph->edge_run[e] != i || file->y >= 0) continue;
                // What was drawn for the run before it may reach further down than that run.
                if (is_first && file_y > y) y = file_y;
                if (is_first) file_y = y;
                is_first = false;
                file->y = file_y;
                file_y += FILE_PITCH;
            }
        }
        graph->y[i] = y;
        if (!has_child) y += ROW_PITCH;
        if (run->depth + 2 > graph->columns) graph->columns = run->depth + 2;
    }
    graph->height = y - (ROW_PITCH - BOX_HEIGHT);
    if (file_y - (FILE_PITCH - FILE_HEIGHT) > graph->height)
        graph->height = file_y - (FILE_PITCH - FILE_HEIGHT);
}

/* ---- the lines of a box ------------------------------------------------------------------------
 */

static const char *loss_name(const mm_family_run *run)
{
    return run->info.stage && strcmp(run->info.stage, "dpo") == 0 ? "preference loss" : "val loss";
}

static const char *state_line(mm_page *page, const mm_family_run *run)
{
    char text[LINE_BYTES];
    const char *stage = mm_fmt_fit(&page->arena, run->info.stage ? run->info.stage : "?", 12);
    if (run->sha256)
        snprintf(text, sizeof text, "%s · step %" PRId64 " · %s", stage, run->step,
                 mm_page_digest(page, run->sha256));
    else
        snprintf(text, sizeof text, "%s · step %" PRId64, stage, run->info.steps);
    return keep(page, text);
}

static const char *loss_line(mm_page *page, const mm_family_run *run)
{
    char text[LINE_BYTES];
    char value[MM_FMT_BYTES];
    const char *status = run->info.status ? run->info.status : "?";
    mm_fmt_number(run->info.best_val_loss, value);
    if (isnan(run->info.best_val_loss))
        snprintf(text, sizeof text, "%s", status);
    else
        snprintf(text, sizeof text, "%s %s%s%s", loss_name(run), value,
                 strcmp(status, "finished") == 0 ? "" : " · ",
                 strcmp(status, "finished") == 0 ? "" : status);
    return keep(page, text);
}

// The file that a run with a parent learned from; the parameters of one without.
static const char *data_line(mm_page *page, const mm_family_run *run)
{
    char text[LINE_BYTES];
    size_t n_more = 0;
    const mm_dataset *first = NULL;
    for (size_t i = 0; i < run->n_datasets; i++) {
        const char *role = run->datasets[i].role;
        if (!role || strcmp(role, "train") != 0) continue;
        if (first) n_more++;
        if (!first) first = &run->datasets[i];
    }
    if (run->depth > 0 && first) {
        const char *name = mm_fmt_fit(&page->arena, base_name(first->path), TEXT_COLUMNS - 11);
        const char *digest = first->sha256 ? mm_page_digest(page, first->sha256) : "";
        if (n_more > 0)
            snprintf(text, sizeof text, "%s %s +%zu", name, digest, n_more);
        else
            snprintf(text, sizeof text, "%s %s", name, digest);
    } else if (run->info.params_total > 0) {
        char count[MM_NUMBER_BYTES];
        mm_count_text((double)run->info.params_total, count);
        snprintf(text, sizeof text, "%s parameters", count);
    } else {
        text[0] = '\0';
    }
    return keep(page, text);
}

/* ---- the graph ---------------------------------------------------------------------------------
 */

static int run_x(const mm_family_run *run) { return (run->depth + 1) * COLUMN_WIDTH; }

static void draw_tip(mm_html *html, int x, int y)
{
    mm_html_begin(html, "path", "tip");
    mm_html_attrf(html, "d", "M%d %dl-7-3.5v7z", x, y);
    mm_html_close(html);
}

// Right-angled, on a vertical of the source's own, with a dot where it leaves that: many edges stay
// readable, and crossings do not look like joints.
static void draw_edge(mm_html *html, int x0, int y0, int bus, int x1, int y1)
{
    mm_html_begin(html, "path", "edge");
    mm_html_attrf(html, "d", "M%d %dH%dV%dH%d", x0, y0, bus, y1, x1 - 4);
    mm_html_close(html);
    if (y1 != y0) {
        mm_html_begin(html, "path", "tip");
        mm_html_attrf(html, "d", "M%d %da2 2 0 1 0 4 0a2 2 0 1 0-4 0z", bus - 2, y1);
        mm_html_close(html);
    }
    draw_tip(html, x1, y1);
}

// A dashed bow from the teacher to the run that it taught, whichever side that is on.
static void draw_teaching(drawing *graph, size_t teacher, size_t taught)
{
    mm_html *html = &graph->page->html;
    const mm_family_run *from = &graph->family.runs[teacher];
    const mm_family_run *to = &graph->family.runs[taught];
    const int y0 = graph->y[teacher] + BOX_HEIGHT - 14;
    const int y1 = graph->y[taught] + BOX_HEIGHT - 14;
    const int x1 = run_x(to) + 1;
    const bool is_right = to->depth > from->depth;
    const int x0 = is_right ? run_x(from) + BOX_WIDTH + 1 : run_x(from) + 1;
    const int bend = is_right ? x0 + 20 : x0 - 20;
    mm_html_begin(html, "path", "edge taught");
    mm_html_attrf(html, "d", "M%d %dC%d %d %d %d %d %d", x0, y0, bend, y0, x1 - 20, y1, x1 - 4, y1);
    mm_html_close(html);
    draw_tip(html, x1, y1);
}

static void draw_edges(drawing *graph)
{
    mm_html *html = &graph->page->html;
    for (size_t e = 0; e < graph->n_edges; e++) {
        const size_t at = graph->edge_file[e];
        const file_node *file = &graph->files[at];
        const mm_family_run *run = &graph->family.runs[graph->edge_run[e]];
        draw_edge(html, BOX_WIDTH + 1, file->y + FILE_HEIGHT / 2 + 1,
                  BOX_WIDTH + 10 + (int)(at % VERTICALS) * 6, run_x(run) + 1,
                  graph->y[graph->edge_run[e]] + BOX_HEIGHT / 2 + 1);
    }
    for (size_t i = 0; i < graph->family.count; i++) {
        const mm_family_run *run = &graph->family.runs[i];
        if (run->parent != MM_FAMILY_NONE) {
            const int x0 = run_x(run) - COLUMN_WIDTH + BOX_WIDTH + 1;
            draw_edge(html, x0, graph->y[run->parent] + BOX_HEIGHT / 2 + 1, x0 + 18, run_x(run) + 1,
                      graph->y[i] + BOX_HEIGHT / 2 + 1);
        }
        if (run->teacher != MM_FAMILY_NONE) draw_teaching(graph, run->teacher, i);
    }
}

static void draw_box(mm_html *html, const char *class_name, int x, int y, int height)
{
    mm_html_begin(html, "rect", class_name);
    mm_html_attrf(html, "x", "%d", x + 1);
    mm_html_attrf(html, "y", "%d", y + 1);
    mm_html_attrf(html, "width", "%d", BOX_WIDTH);
    mm_html_attrf(html, "height", "%d", height);
    mm_html_attr(html, "rx", "4");
    mm_html_close(html);
}

static void draw_file(mm_page *page, const file_node *file)
{
    mm_html *html = &page->html;
    char detail[LINE_BYTES];
    snprintf(detail, sizeof detail, "%s%s%s", mm_fmt_fit(&page->arena, file->role, 16),
             *file->role ? " " : "", mm_page_digest(page, file->key));
    mm_html_open(html, "g");
    draw_box(html, file->is_tokenizer ? "box tok" : "box dat", 0, file->y, FILE_HEIGHT);
    mm_svg_label(html, 11, file->y + 18, "start", "nam",
                 mm_fmt_fit(&page->arena, file->name, TEXT_COLUMNS - 2));
    mm_svg_label(html, 11, file->y + 33, "start", "det", detail);
    mm_html_close(html);
}

static void draw_run(drawing *graph, size_t index)
{
    mm_page *page = graph->page;
    mm_html *html = &page->html;
    const mm_family_run *run = &graph->family.runs[index];
    const mm_page_run *shown = graph->shown[index];
    const int x = run_x(run);
    const int y = graph->y[index];
    const bool has_marker = shown && shown->style != MM_STYLE_NONE;
    mm_html_open(html, "g");
    draw_box(html, shown ? "box" : "box other", x, y, BOX_HEIGHT);
    if (has_marker) mm_svg_marker(html, shown->style, x + 14, y + 14, NULL);
    mm_svg_label(html, x + (has_marker ? 26 : 11), y + 18, "start", "nam",
                 mm_fmt_fit(&page->arena, run->info.name ? run->info.name : "?",
                            TEXT_COLUMNS - (has_marker ? 5 : 2)));
    const char *lines[] = {state_line(page, run), loss_line(page, run), data_line(page, run)};
    for (int i = 0; i < 3; i++)
        mm_svg_label(html, x + 11, y + 36 + 16 * i, "start", "det",
                     mm_fmt_fit(&page->arena, lines[i], TEXT_COLUMNS + 4));
    mm_html_close(html);
}

static void draw(drawing *graph)
{
    mm_page *page = graph->page;
    mm_html *html = &page->html;
    mm_html_begin(html, "div", "scroll");
    mm_html_attr(html, "tabindex", "0");
    mm_html_attr(html, "role", "region");
    mm_html_attr(html, "aria-label", "Lineage graph");
    char class_name[24];
    snprintf(class_name, sizeof class_name, "graph g%d",
             graph->columns < COLUMNS_STYLED ? graph->columns : COLUMNS_STYLED);
    mm_svg_begin(html, "lineage-g", class_name, (graph->columns - 1) * COLUMN_WIDTH + BOX_WIDTH + 2,
                 graph->height + 2, "Lineage",
                 "Data and tokenizer at the left, runs made from them to the right; a dashed line "
                 "leads from a teacher. The list below says the same.");
    draw_edges(graph);
    for (size_t i = 0; i < graph->n_files; i++)
        draw_file(page, &graph->files[i]);
    for (size_t i = 0; i < graph->family.count; i++)
        draw_run(graph, i);
    mm_html_close(html);
    mm_html_close(html);
}

/* ---- the same as text --------------------------------------------------------------------------
 */

static void list_files(mm_page *page, const mm_family_run *run)
{
    mm_html *html = &page->html;
    for (size_t i = 0; i < run->n_datasets; i++) {
        const mm_dataset *data = &run->datasets[i];
        mm_html_text(html, i == 0 ? "; " : ", ");
        mm_html_text(html, data->role ? data->role : "data");
        mm_html_text(html, " ");
        mm_html_leaf(html, "bdi", NULL, base_name(data->path));
        mm_html_text(html, " ");
        mm_html_text(html, data->sha256 ? mm_page_digest(page, data->sha256) : "");
    }
    if (run->depth > 0 || !run->tokenizer) return;
    mm_html_text(html, ", tokenizer ");
    mm_html_text(html, mm_page_digest(page, run->tokenizer));
}

static void list_run(drawing *graph, size_t index)
{
    mm_page *page = graph->page;
    mm_html *html = &page->html;
    const mm_family_run *run = &graph->family.runs[index];
    mm_html_leaf(html, "strong", NULL, run->info.name ? run->info.name : "?");
    mm_html_text(html, ": ");
    mm_html_text(html, state_line(page, run));
    mm_html_text(html, ", ");
    mm_html_text(html, loss_line(page, run));
    if (run->parent != MM_FAMILY_NONE && run->info.parent_step >= 0)
        mm_html_textf(html, ", from step %" PRId64, run->info.parent_step);
    if (run->teacher != MM_FAMILY_NONE) {
        mm_html_text(html, ", taught by ");
        mm_html_leaf(html, "bdi", NULL, graph->family.runs[run->teacher].info.name);
        if (run->teacher_step >= 0) mm_html_textf(html, " at step %" PRId64, run->teacher_step);
    }
    list_files(page, run);
}

// Nesting as deep as the writer allows; deeper runs stand at the deepest level.
static void list_all(drawing *graph)
{
    enum { NESTED_MAX = 16 };
    mm_html *html = &graph->page->html;
    const size_t outside = html->depth;
    int level = -1;
    for (size_t i = 0; i < graph->family.count; i++) {
        const int depth = graph->family.runs[i].depth;
        const int wanted = depth < NESTED_MAX ? depth : NESTED_MAX;
        if (wanted > level)
            mm_html_begin(html, "ul", level < 0 ? "tree" : NULL);
        else
            mm_html_close_to(html, outside + 2 * (size_t)wanted + 1);
        level = wanted;
        mm_html_open(html, "li");
        list_run(graph, i);
    }
    mm_html_close_to(html, outside);
}

mm_status mm_section_lineage(mm_page *page, mm_err *err)
{
    drawing *graph = mm_arena_alloc(&page->arena, sizeof *graph);
    if (!graph) return MM_FAIL(err, MM_ENOMEM, "drawing the lineage");
    graph->page = page;
    MM_TRY(collect(graph, err));
    if (graph->n_edges == 0 && graph->family.count < 2) return MM_OK;
    place(graph);
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_section(page, "lineage", "Lineage");
    draw(graph);
    list_all(graph);
    if (graph->n_left_out > 0)
        mm_part_note(page, "%zu more runs or files are not drawn.", graph->n_left_out);
    mm_html_close_to(html, depth);
    return MM_OK;
}
