/* Where each model came from: data and tokenizer, then runs, then the runs made from them. */
#include "report/page.h"

#include "report/fmt.h"

#include <stdio.h>
#include <string.h>

enum {
    NODES_MAX = 96,
    EDGES_MAX = 512,
    DEPTH_MAX = 8, /* generations of runs */
    BOX_WIDTH = 172,
    BOX_HEIGHT = 40,
    COLUMN_WIDTH = 232,
    ROW_HEIGHT = 52,
    TEXT_COLUMNS = 20,
    VERTICALS = 5 /* side by side between two columns */
};

typedef struct family_node {
    const char *kind; /* class of the box */
    const char *name;
    const char *detail;
    const char *key; /* digest of a file; NULL for a run */
    int64_t run_id;
    int style;
    int column;
    int row;
} family_node;

typedef struct family {
    mm_page *page;
    family_node nodes[NODES_MAX];
    size_t n_nodes;
    size_t from[EDGES_MAX];
    size_t to[EDGES_MAX];
    size_t n_edges;
    size_t n_left_out;
} family;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static size_t add_node(family *lineage, const family_node *node)
{
    for (size_t i = 0; i < lineage->n_nodes; i++) {
        const family_node *other = &lineage->nodes[i];
        if (node->key ? other->key && strcmp(other->key, node->key) == 0
                      : !other->key && other->run_id == node->run_id)
            return i;
    }
    if (lineage->n_nodes == NODES_MAX) {
        lineage->n_left_out++;
        return SIZE_MAX;
    }
    lineage->nodes[lineage->n_nodes] = *node;
    return lineage->n_nodes++;
}

static void add_edge(family *lineage, size_t from, size_t to)
{
    if (from == SIZE_MAX || to == SIZE_MAX || lineage->n_edges == EDGES_MAX) return;
    for (size_t i = 0; i < lineage->n_edges; i++)
        if (lineage->from[i] == from && lineage->to[i] == to) return;
    lineage->from[lineage->n_edges] = from;
    lineage->to[lineage->n_edges++] = to;
}

static const char *join(mm_page *page, const char *a, const char *b)
{
    mm_str text;
    mm_str_init(&text, 0);
    mm_str_add(&text, a);
    mm_str_add(&text, " ");
    mm_str_add(&text, b ? b : "");
    const char *copy = mm_arena_strdup(&page->arena, mm_str_text(&text));
    mm_str_drop(&text);
    return copy ? copy : a;
}

static size_t add_run(family *lineage, const mm_run_info *info, int style)
{
    return add_node(
        lineage,
        &(family_node){.kind = style == MM_STYLE_NONE ? "box other" : "box",
                       .name = info->name ? info->name : "?",
                       .detail = join(lineage->page, info->stage ? info->stage : "?", info->status),
                       .run_id = info->id,
                       .style = style,
                       .column = 1});
}

// A run that goes on from another one in the report has that one's files already.
static bool is_inherited(const mm_page *page, const mm_page_run *run, const char *digest)
{
    for (size_t i = 0; i < page->n_runs; i++) {
        if (page->runs[i].info.id != run->info.parent_id) continue;
        for (size_t j = 0; j < page->runs[i].n_datasets; j++) {
            const char *other = page->runs[i].datasets[j].sha256;
            if (other && digest && strcmp(other, digest) == 0) return true;
        }
    }
    return false;
}

static void add_files(family *lineage, const mm_page_run *run, size_t run_node)
{
    mm_page *page = lineage->page;
    bool has_tokenizer = false;
    for (size_t i = 0; i < run->n_datasets; i++) {
        const mm_dataset *dataset = &run->datasets[i];
        const char *role = dataset->role ? dataset->role : "data";
        const bool is_tokenizer = strcmp(role, "tokenizer") == 0;
        has_tokenizer = has_tokenizer || is_tokenizer;
        if (is_inherited(page, run, dataset->sha256)) continue;
        const family_node node = {.kind = is_tokenizer ? "box tok" : "box dat",
                                  .name = dataset->path ? base_name(dataset->path) : "?",
                                  .detail = join(page, role, mm_page_digest(page, dataset->sha256)),
                                  .key = dataset->sha256 ? dataset->sha256 : "?",
                                  .style = MM_STYLE_NONE};
        add_edge(lineage, add_node(lineage, &node), run_node);
    }
    if (has_tokenizer || !run->tokenizer) return;
    const family_node node = {.kind = "box tok",
                              .name = "tokenizer",
                              .detail = mm_page_digest(page, run->tokenizer),
                              .key = run->tokenizer,
                              .style = MM_STYLE_NONE};
    add_edge(lineage, add_node(lineage, &node), run_node);
}

// The chain of parents; a parent outside the report is read for its name, one that was removed is
// skipped.
static mm_status add_parents(family *lineage, const mm_run_info *info, size_t child, mm_err *err)
{
    mm_page *page = lineage->page;
    int64_t parent_id = info->parent_id;
    for (int depth = 0; parent_id > 0 && depth < DEPTH_MAX; depth++) {
        mm_run_info parent = {0};
        int style = MM_STYLE_NONE;
        for (size_t i = 0; i < page->n_runs; i++) {
            if (page->runs[i].info.id != parent_id) continue;
            parent = page->runs[i].info;
            style = page->runs[i].style;
        }
        if (parent.id == 0) {
            const mm_status status =
                mm_store_run(page->store, parent_id, &page->arena, &parent, err);
            if (status == MM_ENOTFOUND) return MM_OK;
            MM_TRY(status);
        }
        const size_t node = add_run(lineage, &parent, style);
        add_edge(lineage, node, child);
        child = node;
        parent_id = parent.parent_id;
    }
    return MM_OK;
}

// A run stands one column right of its parent. Bounded: a cycle cannot come out of the store, and
// would stop here.
static void place(family *lineage)
{
    for (int pass = 0; pass < DEPTH_MAX; pass++) {
        for (size_t i = 0; i < lineage->n_edges; i++) {
            const family_node *from = &lineage->nodes[lineage->from[i]];
            family_node *to = &lineage->nodes[lineage->to[i]];
            if (to->column <= from->column && from->column < DEPTH_MAX)
                to->column = from->column + 1;
        }
    }
    for (int column = 0; column <= DEPTH_MAX; column++) {
        int row = 0;
        for (size_t i = 0; i < lineage->n_nodes; i++)
            if (lineage->nodes[i].column == column) lineage->nodes[i].row = row++;
    }
}

static void extent(const family *lineage, int *columns, int *rows)
{
    *columns = 1;
    *rows = 1;
    for (size_t i = 0; i < lineage->n_nodes; i++) {
        const family_node *node = &lineage->nodes[i];
        *columns = node->column + 1 > *columns ? node->column + 1 : *columns;
        *rows = node->row + 1 > *rows ? node->row + 1 : *rows;
    }
}

// Right-angled, on a vertical of the source's own, with a dot where it leaves that: many edges stay
// readable, and crossings do not look like joints.
static void draw_edge(mm_html *html, const family_node *from, const family_node *to)
{
    const int x0 = from->column * COLUMN_WIDTH + BOX_WIDTH + 1;
    const int y0 = from->row * ROW_HEIGHT + BOX_HEIGHT / 2 + 1;
    const int x1 = to->column * COLUMN_WIDTH;
    const int y1 = to->row * ROW_HEIGHT + BOX_HEIGHT / 2 + 1;
    const int bus = x0 + 10 + from->row % VERTICALS * 7;
    mm_html_begin(html, "path", "edge");
    if (to->column == from->column + 1)
        mm_html_attrf(html, "d", "M%d %dH%dV%dH%d", x0, y0, bus, y1, x1 - 4);
    else // past the boxes between, then down to the target
        mm_html_attrf(html, "d", "M%d %dC%d %d %d %d %d %d", x0, y0, bus, y0, x1 - 40, y1, x1 - 4,
                      y1);
    mm_html_close(html);
    if (to->column == from->column + 1 && y1 != y0) {
        mm_html_begin(html, "path", "tip");
        mm_html_attrf(html, "d", "M%d %da2 2 0 1 0 4 0a2 2 0 1 0-4 0z", bus - 2, y1);
        mm_html_close(html);
    }
    mm_html_begin(html, "path", "tip");
    mm_html_attrf(html, "d", "M%d %dl-7-3.5v7z", x1, y1);
    mm_html_close(html);
}

static void draw_node(mm_page *page, const family_node *node)
{
    mm_html *html = &page->html;
    const int x = node->column * COLUMN_WIDTH + 1;
    const int y = node->row * ROW_HEIGHT + 1;
    mm_html_open(html, "g");
    mm_html_begin(html, "rect", node->kind);
    mm_html_attrf(html, "x", "%d", x);
    mm_html_attrf(html, "y", "%d", y);
    mm_html_attrf(html, "width", "%d", BOX_WIDTH);
    mm_html_attrf(html, "height", "%d", BOX_HEIGHT);
    mm_html_attr(html, "rx", "4");
    mm_html_close(html);
    if (node->style != MM_STYLE_NONE) mm_svg_marker(html, node->style, x + 13, y + 15, NULL);
    mm_svg_label(html, x + (node->style != MM_STYLE_NONE ? 24 : 10), y + 18, "start", "nam",
                 mm_fmt_fit(&page->arena, node->name, TEXT_COLUMNS - 2));
    mm_svg_label(html, x + (node->style != MM_STYLE_NONE ? 24 : 10), y + 33, "start", "det",
                 mm_fmt_fit(&page->arena, node->detail ? node->detail : "", TEXT_COLUMNS + 2));
    mm_html_close(html);
}

static void draw(family *lineage)
{
    mm_page *page = lineage->page;
    mm_html *html = &page->html;
    int columns;
    int rows;
    extent(lineage, &columns, &rows);
    const size_t depth = html->depth;
    mm_part_section(page, "lineage", "Lineage");
    mm_html_begin(html, "div", "scroll");
    mm_html_attr(html, "tabindex", "0");
    mm_html_attr(html, "role", "region");
    mm_html_attr(html, "aria-label", "Lineage graph");
    char class_name[24];
    snprintf(class_name, sizeof class_name, "graph g%d", columns);
    mm_svg_begin(html, "lineage-g", class_name, (columns - 1) * COLUMN_WIDTH + BOX_WIDTH + 2,
                 (rows - 1) * ROW_HEIGHT + BOX_HEIGHT + 2, "Lineage",
                 "Data and tokenizer at the left, runs made from them to the right. The section "
                 "Data lists the digests.");
    for (size_t i = 0; i < lineage->n_edges; i++)
        draw_edge(html, &lineage->nodes[lineage->from[i]], &lineage->nodes[lineage->to[i]]);
    for (size_t i = 0; i < lineage->n_nodes; i++)
        draw_node(page, &lineage->nodes[i]);
    mm_html_close(html);
    mm_html_close(html);
    if (lineage->n_left_out > 0)
        mm_part_note(page, "%zu more runs or files are not drawn.", lineage->n_left_out);
    mm_html_close_to(html, depth);
}

mm_status mm_section_lineage(mm_page *page, mm_err *err)
{
    family *lineage = mm_arena_alloc(&page->arena, sizeof *lineage);
    if (!lineage) return MM_FAIL(err, MM_ENOMEM, "drawing the lineage");
    lineage->page = page;
    size_t drawn = 0;
    for (size_t i = 0; i < page->n_runs; i++) {
        const mm_page_run *run = &page->runs[i];
        // Of many runs, those with a colour.
        if (page->n_runs > MM_REPORT_LINEAGE_MAX && run->style == MM_STYLE_NONE) {
            lineage->n_left_out++;
            continue;
        }
        drawn++;
        const size_t node = add_run(lineage, &run->info, run->style);
        if (node == SIZE_MAX) continue;
        add_files(lineage, run, node);
        MM_TRY(add_parents(lineage, &run->info, node, err));
    }
    place(lineage);
    if (lineage->n_edges > 0 && drawn > 0) draw(lineage);
    return MM_OK;
}
