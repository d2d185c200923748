/* Small pieces of a page that several sections use. */
#include "report/page.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum { TALL_FROM = 24 /* runs; a longer table scrolls within the page, though not on paper */ };

void mm_part_section(mm_page *page, const char *id, const char *heading)
{
    mm_html *html = &page->html;
    mm_html_open(html, "section");
    mm_html_attr(html, "id", id);
    mm_html_leaf(html, "h2", NULL, heading);
}

void mm_part_run(mm_page *page, const mm_page_run *run)
{
    mm_html_begin(&page->html, "span", "run");
    mm_svg_key(&page->html, run->style);
    mm_html_leaf(&page->html, "bdi", NULL, run->label);
    mm_html_close(&page->html);
}

void mm_part_table(mm_page *page, const char *class_name, const char *caption, bool sortable)
{
    mm_html *html = &page->html;
    // The region scrolls sideways on a narrow screen; it takes the focus so that keys can do it.
    const bool is_tall = sortable && page->n_runs > TALL_FROM;
    mm_html_begin(html, "div", is_tall ? "scroll tall" : "scroll");
    mm_html_attr(html, "tabindex", "0");
    mm_html_attr(html, "role", "region");
    mm_html_attr(html, "aria-label", caption);
    mm_html_begin(html, "table", class_name);
    if (sortable) mm_html_attr(html, "data-sort", NULL);
    mm_html_leaf(html, "caption", "vh", caption);
}

void mm_part_number(mm_page *page, double value, const char *text, const char *class_name)
{
    mm_html *html = &page->html;
    mm_html_begin(html, "td", class_name ? class_name : "n");
    if (isnan(value)) {
        mm_html_text(html, "–");
    } else {
        mm_html_attrf(html, "data-v", "%.15g", value);
        mm_html_text(html, text);
    }
    mm_html_close(html);
}

void mm_part_note(mm_page *page, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mm_html_leaf(&page->html, "p", "note", text);
}
