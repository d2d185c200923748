/* The page as a whole: head with its content security policy, the sections in order, the data for
 * the script at the end. */
#include "report/report.h"

#include "report/assets.h"
#include "report/page.h"

#include "core/base/file.h"
#include "core/base/hash.h"

#include <string.h>

enum { PAGE_BYTES_MAX = 64 << 20, HASH_BYTES = 60 };

static void add_base64(mm_str *out, const uint8_t *bytes, size_t length)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        const size_t left = length - i;
        const uint32_t group = (uint32_t)bytes[i] << 16 |
                               (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)bytes[i + 2] : 0);
        mm_str_add_char(out, alphabet[group >> 18]);
        mm_str_add_char(out, alphabet[group >> 12 & 63]);
        mm_str_add_char(out, left > 1 ? alphabet[group >> 6 & 63] : '=');
        mm_str_add_char(out, left > 2 ? alphabet[group & 63] : '=');
    }
}

static void add_hash(mm_str *policy, const unsigned char *bytes, size_t length)
{
    uint8_t digest[MM_SHA256_BYTES];
    mm_sha256_of(bytes, length, digest);
    mm_str_add(policy, "'sha256-");
    add_base64(policy, digest, sizeof digest);
    mm_str_add(policy, "'");
}

// Nothing may be loaded, and nothing may run but the one script and the one style sheet below.
static mm_status write_policy(mm_html *html, mm_err *err)
{
    mm_str policy;
    mm_str_init(&policy, 0);
    mm_str_add(&policy, "default-src 'none'; script-src ");
    add_hash(&policy, mm_report_js, mm_report_js_bytes);
    mm_str_add(&policy, "; style-src ");
    add_hash(&policy, mm_report_css, mm_report_css_bytes);
    mm_str_add(&policy, "; base-uri 'none'; form-action 'none'");
    mm_html_open(html, "meta");
    mm_html_attr(html, "http-equiv", "Content-Security-Policy");
    mm_html_attr(html, "content", mm_str_text(&policy));
    const mm_status status = mm_str_check(&policy, err);
    mm_str_drop(&policy);
    return status;
}

static mm_status write_head(mm_page *page, mm_err *err)
{
    mm_html *html = &page->html;
    mm_html_open(html, "head");
    mm_html_raw_static(html, "<meta charset=\"utf-8\">");
    MM_TRY(write_policy(html, err));
    mm_html_raw_static(html, "<meta name=\"viewport\" content=\"width=device-width,"
                             "initial-scale=1\"><meta name=\"referrer\" content=\"no-referrer\">"
                             "<meta name=\"color-scheme\" content=\"light dark\">");
    mm_html_open(html, "title");
    mm_html_text(html, page->options->title ? page->options->title
                       : page->has_sweep    ? page->sweep.name
                                            : page->runs[0].label);
    if (!page->options->title && !page->has_sweep && page->n_runs > 1)
        mm_html_textf(html, " and %zu more", page->n_runs - 1);
    mm_html_text(html, " – mmrun report");
    mm_html_close(html);
    mm_html_asset(html, "style", mm_report_css, mm_report_css_bytes);
    mm_html_close(html);
    return MM_OK;
}

/* The sections as the table of contents names them; a section may turn out to be empty. */
static const struct {
    const char *id;
    const char *name;
} contents[] = {
    {"verdict", "Verdict"},         {"runs", "Runs"},           {"settings", "Settings"},
    {"curves", "Curves"},           {"sweep", "Sweep"},         {"adapters", "Adapters"},
    {"results", "Results"},         {"generations", "Answers"}, {"lineage", "Lineage"},
    {"environment", "Environment"}, {"events", "Events"},       {"data", "Data"},
    {"reproduce", "Reproduce"},     {"method", "Method"},
};

static bool has_section(const mm_str *body, const char *id)
{
    mm_str needle;
    mm_str_init(&needle, 0);
    mm_str_addf(&needle, " id=\"%s\"><h2", id);
    const bool found = strstr(mm_str_text(body), mm_str_text(&needle)) != NULL;
    mm_str_drop(&needle);
    return found;
}

static void write_contents(mm_html *html, const mm_str *body)
{
    mm_html_open(html, "nav");
    mm_html_attr(html, "aria-label", "Contents");
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        if (!has_section(body, contents[i].id)) continue;
        mm_html_open(html, "a");
        mm_html_attrf(html, "href", "#%s", contents[i].id);
        mm_html_text(html, contents[i].name);
        mm_html_close(html);
    }
    mm_html_close(html);
}

static mm_status write_sections(mm_page *page, mm_err *err)
{
    mm_section_verdict(page);
    mm_section_leaderboard(page);
    mm_section_settings(page);
    MM_TRY(mm_section_curves(page, err));
    MM_TRY(mm_section_sweep(page, err));
    MM_TRY(mm_section_adapters(page, err));
    MM_TRY(mm_section_results(page, err));
    MM_TRY(mm_section_generations(page, err));
    MM_TRY(mm_section_lineage(page, err));
    MM_TRY(mm_section_environment(page, err));
    mm_section_events(page);
    mm_section_data(page);
    mm_section_reproduce(page);
    mm_section_method(page);
    return MM_OK;
}

static mm_status write_page(mm_page *page, mm_str *body, mm_str *out, mm_err *err)
{
    // The body first: the contents name only sections that turned out to have something.
    mm_html_init(&page->html, body);
    MM_TRY(write_sections(page, err));
    MM_ASSERT(page->html.depth == 0);
    mm_html *html = &page->html;
    mm_html_init(html, out);
    mm_html_raw_static(html, "<!DOCTYPE html>\n");
    mm_html_open(html, "html");
    mm_html_attr(html, "lang", "en");
    MM_TRY(write_head(page, err));
    mm_html_open(html, "body");
    mm_html_begin(html, "a", "skip");
    mm_html_attr(html, "href", "#verdict");
    mm_html_text(html, "Skip to the verdict");
    mm_html_close(html);
    mm_section_title(page);
    write_contents(html, body);
    mm_html_open(html, "main");
    mm_html_text(html, "");
    mm_str_add_bytes(out, mm_str_text(body), body->length); // markup of the writer above
    mm_html_close(html);
    mm_html_json(html, "mm-data", &page->data);
    mm_html_asset(html, "script", mm_report_js, mm_report_js_bytes);
    mm_html_close_to(html, 0);
    mm_html_raw_static(html, "\n");
    MM_TRY(mm_str_check(body, err));
    MM_TRY(mm_str_check(&page->data, err));
    return mm_str_check(out, err);
}

mm_status mm_report_html(mm_store *store, const mm_report_options *options, mm_str *out,
                         mm_err *err)
{
    mm_status status = MM_OK;
    mm_str body;
    mm_str_init(&body, PAGE_BYTES_MAX);
    mm_page *page = mm_calloc(1, sizeof *page);
    if (!page) {
        status = MM_FAIL(err, MM_ENOMEM, "writing a report");
        goto done;
    }
    page->store = store;
    page->options = options;
    mm_str_init(&page->data, PAGE_BYTES_MAX);
    MM_GO(mm_page_load(page, err));
    MM_GO(write_page(page, &body, out, err));
done:
    if (page) {
        mm_str_drop(&page->data);
        mm_arena_drop(&page->arena);
    }
    mm_free(page);
    mm_str_drop(&body);
    return status;
}

mm_status mm_report_write(mm_store *store, const mm_report_options *options, const char *path,
                          mm_err *err)
{
    mm_str page;
    mm_str_init(&page, PAGE_BYTES_MAX);
    mm_status status = MM_OK;
    MM_GO(mm_report_html(store, options, &page, err));
    MM_GO(mm_file_write_atomic(path, page.data, page.length, err));
done:
    mm_str_drop(&page);
    return status;
}
