/* The HTML writer. Escaping is the default and the only path for text of the database. */
#include "report/html.h"

#include "core/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT_BYTES = 512 };

void mm_html_init(mm_html *html, mm_str *out) { *html = (mm_html){.out = out}; }

static const char *entity_of(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

// Control characters are parse errors in HTML, and overrides let text read differently from what it
// is: both are shown by their number instead.
static bool is_shown_by_number(uint32_t code)
{
    if (code == '\n' || code == '\t') return false;
    if (code < 0x20 || (code >= 0x7F && code < 0xA0)) return true;
    if ((code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069)) return true;
    return (code >= 0xFDD0 && code <= 0xFDEF) || (code & 0xFFFE) == 0xFFFE; // noncharacters
}

void mm_html_escape(mm_str *out, const char *text, size_t length)
{
    size_t at = 0;
    size_t plain = 0; // start of the bytes that can be copied as they are
    while (at < length) {
        const char c = text[at];
        const char *entity = entity_of(c);
        uint32_t code = 0;
        int size = 1;
        bool is_plain = !entity;
        if (is_plain && ((unsigned char)c >= 0x7F || (unsigned char)c < 0x20)) {
            size = mm_utf8_next(text + at, length - at, &code);
            is_plain = size > 0 && !is_shown_by_number(code);
        }
        if (is_plain) {
            at += (size_t)size;
            continue;
        }
        mm_str_add_bytes(out, text + plain, at - plain);
        if (entity)
            mm_str_add(out, entity);
        else if (size <= 0)
            mm_str_add(out, "\xEF\xBF\xBD");
        else if (code < 0x100)
            mm_str_addf(out, "\\x%02x", code);
        else
            mm_str_addf(out, "\\u{%04x}", code);
        at += size > 0 ? (size_t)size : 1;
        plain = at;
    }
    mm_str_add_bytes(out, text + plain, length - plain);
}

static bool is_void_element(const char *tag)
{
    static const char *const names[] = {"meta", "br", "col", "input", "hr", "wbr"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], tag) == 0) return true;
    return false;
}

static void finish_tag(mm_html *html)
{
    if (!html->in_tag) return;
    mm_str_add_char(html->out, '>');
    html->in_tag = false;
}

void mm_html_open(mm_html *html, const char *tag)
{
    finish_tag(html);
    mm_str_add_char(html->out, '<');
    mm_str_add(html->out, tag);
    html->in_tag = true;
    if (is_void_element(tag)) return;
    MM_ASSERT(html->depth < MM_HTML_DEPTH_MAX);
    html->open[html->depth++] = tag;
}

void mm_html_attr(mm_html *html, const char *name, const char *value)
{
    MM_ASSERT(html->in_tag);
    MM_ASSERT(strncmp(name, "on", 2) != 0 && strcmp(name, "style") != 0);
    mm_str_add_char(html->out, ' ');
    mm_str_add(html->out, name);
    if (!value || !*value) return; // an empty attribute means the same and is shorter
    mm_str_add(html->out, "=\"");
    mm_html_escape(html->out, value, strlen(value));
    mm_str_add_char(html->out, '"');
}

void mm_html_attrf(mm_html *html, const char *name, const char *format, ...)
{
    char text[FORMAT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mm_html_attr(html, name, text);
}

void mm_html_text(mm_html *html, const char *text)
{
    finish_tag(html);
    if (text) mm_html_escape(html->out, text, strlen(text));
}

void mm_html_textf(mm_html *html, const char *format, ...)
{
    char text[FORMAT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mm_html_text(html, text);
}

void mm_html_close(mm_html *html)
{
    MM_ASSERT(html->depth > 0);
    finish_tag(html);
    mm_str_add(html->out, "</");
    mm_str_add(html->out, html->open[--html->depth]);
    mm_str_add_char(html->out, '>');
}

void mm_html_close_to(mm_html *html, size_t depth)
{
    MM_ASSERT(html->depth >= depth);
    while (html->depth > depth)
        mm_html_close(html);
}

void mm_html_begin(mm_html *html, const char *tag, const char *class_name)
{
    mm_html_open(html, tag);
    if (class_name) mm_html_attr(html, "class", class_name);
}

void mm_html_leaf(mm_html *html, const char *tag, const char *class_name, const char *text)
{
    mm_html_begin(html, tag, class_name);
    mm_html_text(html, text);
    mm_html_close(html);
}

void mm_html_leaff(mm_html *html, const char *tag, const char *class_name, const char *format, ...)
{
    char text[FORMAT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mm_html_leaf(html, tag, class_name, text);
}

void mm_html_raw_literal_(mm_html *html, const char *literal, size_t length)
{
    finish_tag(html);
    mm_str_add_bytes(html->out, literal, length);
}

void mm_html_asset(mm_html *html, const char *tag, const unsigned char *bytes, size_t length)
{
    mm_html_open(html, tag);
    finish_tag(html);
    mm_str_add_bytes(html->out, bytes, length);
    mm_html_close(html);
}

void mm_html_json(mm_html *html, const char *id, const mm_str *json)
{
    mm_html_open(html, "script");
    mm_html_attr(html, "type", "application/json");
    mm_html_attr(html, "id", id);
    finish_tag(html);
    const char *text = mm_str_text(json);
    for (size_t at = 0; at < json->length;) {
        const size_t plain = strcspn(text + at, "<");
        mm_str_add_bytes(html->out, text + at, plain);
        at += plain;
        if (at >= json->length) break;
        mm_str_add(html->out, "\\u003c");
        at += 1;
    }
    if (json->status != MM_OK && html->out->status == MM_OK) html->out->status = json->status;
    mm_html_close(html);
}
