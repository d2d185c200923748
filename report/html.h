/* The HTML writer: every text and attribute value is escaped, every tag is closed by the one that
 * opened it.
 *
 * Order of calls: open, any attributes, then text and children, close. The only ways around the
 * escaping are mm_html_raw_static (string literals) and the three functions for embedded assets and
 * JSON, which take no text from the database. The first failure sticks in the mm_str written to;
 * check that once at the end.
 */
#ifndef MM_REPORT_HTML_H
#define MM_REPORT_HTML_H

#include "core/base/mem.h"

enum { MM_HTML_DEPTH_MAX = 64 };

typedef struct mm_html {
    mm_str *out;                         /* borrowed */
    const char *open[MM_HTML_DEPTH_MAX]; /* tags to close, innermost last; static strings */
    size_t depth;
    bool in_tag; /* "<tag attr" is written, ">" is not */
} mm_html;

void mm_html_init(mm_html *html, mm_str *out);

/* "<tag"; `tag` is a string literal. A void element (meta, br, col, input) is not to be closed. */
void mm_html_open(mm_html *html, const char *tag);
/* Right after open. Event handlers and style attributes are programmer errors. */
void mm_html_attr(mm_html *html, const char *name, const char *value);
void mm_html_attrf(mm_html *html, const char *name, const char *format, ...) MM_PRINTF(3, 4);
/* Escaped. NULL writes nothing. Control characters and bidirectional overrides become visible
 * (\x1b, \u{202e}), ill-formed UTF-8 becomes U+FFFD. */
void mm_html_text(mm_html *html, const char *text);
void mm_html_textf(mm_html *html, const char *format, ...) MM_PRINTF(2, 3);
void mm_html_close(mm_html *html);
/* Closes until `depth` elements are open; for sections that remember html->depth. */
void mm_html_close_to(mm_html *html, size_t depth);

/* Shorthands: class_name NULL leaves the attribute out. */
void mm_html_begin(mm_html *html, const char *tag, const char *class_name);
void mm_html_leaf(mm_html *html, const char *tag, const char *class_name, const char *text);
void mm_html_leaff(mm_html *html, const char *tag, const char *class_name, const char *format, ...)
    MM_PRINTF(4, 5);

/* Markup as it stands; compiles with string literals only. */
#define mm_html_raw_static(html, literal)                                                          \
    mm_html_raw_literal_((html), "" literal "", sizeof(literal) - 1)
void mm_html_raw_literal_(mm_html *html, const char *literal, size_t length);

/* The element with exactly these bytes as content, as a content security policy hash needs it.
 * `tag` is "script" or "style". */
void mm_html_asset(mm_html *html, const char *tag, const unsigned char *bytes, size_t length);
/* <script type="application/json" id="…">; any '<' that the JSON still holds becomes \u003c. */
void mm_html_json(mm_html *html, const char *id, const mm_str *json);

/* The escaping itself, for tests: appends `length` bytes fit for text and quoted attributes. */
void mm_html_escape(mm_str *out, const char *text, size_t length);

#endif
