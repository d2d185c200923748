/* Tables for people: columns aligned by display width, fitted to the terminal. */
#include "core/base/utf8.h"
#include "core/base/width.h"
#include "runner/output.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { COLUMNS_MAX = 40, CELL_BYTES_MAX = 65536, GAP = 2, CUT_COLUMNS_MIN = 8 };

typedef struct table_cell {
    char *text; // printable, without line breaks
    int width;
    mm_color color;
} table_cell;

typedef struct table_column {
    int width;
    int rank;
    bool is_number;
    bool is_hidden;
} table_column;

struct mm_table {
    size_t n_columns;
    table_column columns[COLUMNS_MAX];
    table_cell *cells; // rows of n_columns, the headers first
    size_t n_cells;
    size_t capacity;
    int indent;
    bool is_broken; // out of memory
};

static void add_cell(mm_table *table, const char *text, size_t length)
{
    if (table->is_broken) return;
    if (table->n_cells == table->capacity) {
        const size_t capacity = table->capacity == 0 ? 64 : table->capacity * 2;
        table_cell *cells = table->cells ? mm_realloc(table->cells, capacity * sizeof *cells)
                                         : mm_alloc(capacity * sizeof *cells);
        if (!cells) {
            table->is_broken = true;
            return;
        }
        table->cells = cells;
        table->capacity = capacity;
    }
    mm_str printable = {.limit = CELL_BYTES_MAX};
    mm_utf8_add_printable(&printable, text, length);
    for (size_t i = 0; i < printable.length; i++)
        if (printable.data[i] == '\n' || printable.data[i] == '\t') printable.data[i] = ' ';
    table_cell new_cell = {.color = MM_COLOR_NONE};
    size_t bytes = 0;
    if (mm_str_take(&printable, &new_cell.text, &bytes, NULL) != MM_OK) {
        mm_str_drop(&printable);
        table->is_broken = true;
        return;
    }
    new_cell.width = mm_text_width(new_cell.text, bytes);
    table->cells[table->n_cells++] = new_cell;
}

mm_status mm_table_new(mm_table **out, const char *const *headers, size_t n, mm_err *err)
{
    MM_ASSERT(n > 0 && n <= COLUMNS_MAX);
    mm_table *table = mm_calloc(1, sizeof *table);
    *out = table;
    if (!table) return MM_FAIL(err, MM_ENOMEM, "out of memory for a table");
    table->n_columns = n;
    for (size_t i = 0; i < n; i++) {
        add_cell(table, headers[i], strlen(headers[i]));
        mm_table_color(table, MM_COLOR_BOLD);
    }
    return MM_OK;
}

void mm_table_cell(mm_table *table, const char *format, ...)
{
    char text[2048];
    va_list list;
    va_start(list, format);
    const int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    // Longer cells would not be read in a table; the cut may fall inside a character, which then
    // shows as U+FFFD.
    add_cell(table, text, length < 0 ? 0 : strlen(text));
}

void mm_table_color(mm_table *table, mm_color color)
{
    if (table->is_broken) return;
    MM_ASSERT(table->n_cells > 0);
    table->cells[table->n_cells - 1].color = color;
}

void mm_table_drops(mm_table *table, size_t column, int rank)
{
    MM_ASSERT(column < table->n_columns);
    table->columns[column].rank = rank;
}

void mm_table_indent(mm_table *table, int columns) { table->indent = columns; }

/* "12", "-3.5", "4m12s", "300/300", "-" and "" go to the right. */
static bool is_number_text(const char *text)
{
    if (*text == '\0' || strcmp(text, "-") == 0) return true;
    if (*text == '-' || *text == '+' || *text == '<') text++;
    return isdigit((unsigned char)*text) || strcmp(text, "inf") == 0 || strcmp(text, "NaN") == 0;
}

static void measure(mm_table *table)
{
    for (size_t c = 0; c < table->n_columns; c++) {
        table_column *column = &table->columns[c];
        column->is_number = table->n_cells > table->n_columns;
        bool has_digit = false;
        for (size_t i = c; i < table->n_cells; i += table->n_columns) {
            const table_cell *cell = &table->cells[i];
            if (cell->width > column->width) column->width = cell->width;
            if (i < table->n_columns) continue;
            if (!is_number_text(cell->text)) column->is_number = false;
            has_digit |= isdigit((unsigned char)cell->text[strcspn(cell->text, "0123456789")]) != 0;
        }
        column->is_number = column->is_number && has_digit;
    }
}

static int total_width(const mm_table *table)
{
    int width = table->indent;
    int shown = 0;
    for (size_t c = 0; c < table->n_columns; c++) {
        if (table->columns[c].is_hidden) continue;
        width += table->columns[c].width;
        shown++;
    }
    return width + GAP * (shown > 0 ? shown - 1 : 0);
}

static void fit(mm_table *table, int columns)
{
    while (total_width(table) > columns) {
        table_column *worst = NULL;
        for (size_t c = 0; c < table->n_columns; c++) {
            table_column *column = &table->columns[c];
            if (!column->is_hidden && column->rank > 0 && (!worst || column->rank > worst->rank))
                worst = column;
        }
        if (!worst) break;
        worst->is_hidden = true;
    }
    // What is still too wide is cut, the widest text column at a time, a column by a column.
    while (total_width(table) > columns) {
        table_column *widest = NULL;
        for (size_t c = 0; c < table->n_columns; c++) {
            table_column *column = &table->columns[c];
            if (!column->is_hidden && !column->is_number &&
                (!widest || column->width > widest->width))
                widest = column;
        }
        if (!widest || widest->width <= CUT_COLUMNS_MIN) return;
        widest->width--;
    }
}

static void add_padding(mm_str *out, int columns)
{
    for (int i = 0; i < columns; i++)
        mm_str_add_char(out, ' ');
}

static void add_cell_text(mm_str *out, const table_cell *cell, const table_column *column,
                          bool is_last, const mm_context *context)
{
    const char *ellipsis = context->utf8_out ? "\xE2\x80\xA6" : "..";
    size_t bytes = strlen(cell->text);
    int width = cell->width;
    const bool is_cut = width > column->width;
    if (is_cut) {
        const int room = column->width - (context->utf8_out ? 1 : 2);
        bytes = mm_text_fit(cell->text, bytes, room);
        width = mm_text_width(cell->text, bytes) + (context->utf8_out ? 1 : 2);
    }
    const int padding = column->width - width;
    if (column->is_number) add_padding(out, padding);
    if (cell->color != MM_COLOR_NONE)
        mm_str_add(out, mm_color_code(context->color_out, cell->color));
    mm_str_add_bytes(out, cell->text, bytes);
    if (is_cut) mm_str_add(out, ellipsis);
    if (cell->color != MM_COLOR_NONE)
        mm_str_add(out, mm_color_code(context->color_out, MM_COLOR_NONE));
    if (!column->is_number && !is_last) add_padding(out, padding);
}

static void add_row(mm_str *out, const mm_table *table, size_t first, const mm_context *context)
{
    // Nothing is written behind the last cell that has a text.
    size_t last = 0;
    for (size_t c = 0; c < table->n_columns; c++)
        if (!table->columns[c].is_hidden && table->cells[first + c].text[0]) last = c;
    add_padding(out, table->indent);
    bool is_first = true;
    for (size_t c = 0; c <= last; c++) {
        if (table->columns[c].is_hidden) continue;
        if (!is_first) add_padding(out, GAP);
        is_first = false;
        add_cell_text(out, &table->cells[first + c], &table->columns[c], c == last, context);
    }
    mm_str_add_char(out, '\n');
}

void mm_table_print(mm_table *table, const mm_context *context)
{
    if (!table) return;
    if (table->is_broken) {
        mm_out_lost();
    } else {
        MM_ASSERT(table->n_cells % table->n_columns == 0);
        measure(table);
        if (context->columns > 0) fit(table, context->columns);
        mm_str text = {0};
        // A table whose headers are all empty is a plain list of facts.
        bool has_header = false;
        for (size_t c = 0; c < table->n_columns; c++)
            has_header |= table->cells[c].text[0] != '\0';
        for (size_t i = has_header ? 0 : table->n_columns; i < table->n_cells;
             i += table->n_columns)
            add_row(&text, table, i, context);
        mm_out_text(&text);
        mm_str_drop(&text);
    }
    for (size_t i = 0; i < table->n_cells; i++)
        mm_free(table->cells[i].text);
    mm_free(table->cells);
    mm_free(table);
}
