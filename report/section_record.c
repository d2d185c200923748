/* The record: machine, what happened, data, commands, and how the numbers were made. */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ENV_RUNS_MAX = 8 };

/* One key of the environment over the runs shown. */
typedef struct env_row {
    const char *key;
    const char *values[ENV_RUNS_MAX];
    bool differs;
} env_row;

// These tell who and where, not what; left out unless the reader asked for them.
static bool is_private_key(const char *key)
{
    static const char *const names[] = {"host", "hostname", "user", "username", "home",
                                        "cwd",  "exe",      "argv", "pid",      "boot_id"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], key) == 0) return true;
    return false;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const env_row *)a)->key, ((const env_row *)b)->key);
}

static mm_status collect_env(mm_page *page, env_row **rows, size_t *count, size_t n_runs,
                             mm_err *err)
{
    mm_env *env[ENV_RUNS_MAX] = {NULL};
    size_t n[ENV_RUNS_MAX] = {0};
    size_t total = 0;
    size_t at = 0;
    for (size_t i = 0; i < page->n_runs && at < n_runs; i++) {
        if (page->runs[i].style == MM_STYLE_NONE) continue;
        MM_TRY(mm_store_environment(page->store, page->runs[i].info.id, &page->arena, &env[at],
                                    &n[at], err));
        total += n[at++];
    }
    *rows = mm_arena_alloc(&page->arena, (total + 1) * sizeof **rows);
    *count = 0;
    if (!*rows) return MM_FAIL(err, MM_ENOMEM, "reading the environment");
    for (size_t i = 0; i < at; i++) {
        for (size_t j = 0; j < n[i]; j++) {
            if (!page->options->include_host && is_private_key(env[i][j].key)) continue;
            size_t row = 0;
            while (row < *count && strcmp((*rows)[row].key, env[i][j].key) != 0)
                row++;
            if (row == *count) (*rows)[(*count)++].key = env[i][j].key;
            (*rows)[row].values[i] = env[i][j].value;
        }
    }
    for (size_t i = 0; i < *count; i++) {
        const char *const *values = (*rows)[i].values;
        for (size_t j = 1; j < at; j++)
            (*rows)[i].differs = (*rows)[i].differs || !values[0] != !values[j] ||
                                 (values[0] && values[j] && strcmp(values[0], values[j]) != 0);
    }
    qsort(*rows, *count, sizeof **rows, by_key);
    return MM_OK;
}

static void env_head(mm_page *page, bool by_run, size_t n_runs)
{
    mm_html *html = &page->html;
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\">Property</th>");
    if (!by_run) mm_html_raw_static(html, "<th scope=\"col\">Value in every run</th>");
    size_t at = 0;
    for (size_t i = 0; by_run && i < page->n_runs && at < n_runs; i++) {
        if (page->runs[i].style == MM_STYLE_NONE) continue;
        at++;
        mm_html_open(html, "th");
        mm_html_attr(html, "scope", "col");
        mm_part_run(page, &page->runs[i]);
        mm_html_close(html);
    }
    mm_html_raw_static(html, "</tr></thead>");
}

static void env_cell(mm_page *page, const char *key, const char *value, bool is_changed)
{
    char bytes[MM_FMT_BYTES];
    const char *suffix = strstr(key, "_bytes");
    char *end;
    const long long number = value ? strtoll(value, &end, 10) : 0;
    if (!value) {
        value = "–";
    } else if (suffix && suffix[6] == '\0' && *end == '\0' && number > 0) {
        mm_bytes_text((double)number, bytes);
        value = bytes;
    } else {
        value = mm_page_private(page, &page->runs[0], value);
    }
    mm_html_leaf(&page->html, "td", is_changed ? "chg" : NULL, value);
}

mm_status mm_section_environment(mm_page *page, mm_err *err)
{
    mm_html *html = &page->html;
    const size_t n_runs = page->n_coloured < ENV_RUNS_MAX ? page->n_coloured : ENV_RUNS_MAX;
    env_row *rows;
    size_t count;
    MM_TRY(collect_env(page, &rows, &count, n_runs, err));
    if (count == 0) return MM_OK;
    bool by_run = false;
    for (size_t i = 0; i < count; i++)
        by_run = by_run || rows[i].differs;
    const size_t depth = html->depth;
    mm_part_section(page, "environment", "Environment");
    mm_part_table(page, "cfg", "Environment of the newest attempt", false);
    env_head(page, by_run, n_runs);
    mm_html_open(html, "tbody");
    for (size_t i = 0; i < count; i++) {
        mm_html_open(html, "tr");
        mm_html_begin(html, "th", "k");
        mm_html_attr(html, "scope", "row");
        mm_html_text(html, rows[i].key);
        mm_html_close(html);
        for (size_t j = 0; j < (by_run ? n_runs : 1); j++)
            env_cell(page, rows[i].key, rows[i].values[j], j > 0 && rows[i].differs);
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
    return MM_OK;
}

/* Something that happened to a run: an attempt that began or ended, or an event. */
typedef struct happening {
    int64_t time_ms;
    const mm_page_run *run;
    const mm_attempt *attempt; /* or */
    const mm_event *event;
    bool is_end; /* of the attempt */
    size_t order;
} happening;

static int by_time(const void *a, const void *b)
{
    const happening *x = a;
    const happening *y = b;
    if (x->time_ms != y->time_ms) return x->time_ms < y->time_ms ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static size_t collect_happenings(mm_page *page, happening **out)
{
    size_t total = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        total += page->runs[i].n_events + 2 * page->runs[i].n_attempts;
    *out = mm_arena_alloc(&page->arena, (total + 1) * sizeof **out);
    if (!*out) return 0;
    size_t n = 0;
    for (size_t i = 0; i < page->n_runs; i++) {
        const mm_page_run *run = &page->runs[i];
        for (size_t j = 0; j < run->n_attempts; j++) {
            const mm_attempt *attempt = &run->attempts[j];
            (*out)[n] = (happening){
                .time_ms = attempt->started_ms, .run = run, .attempt = attempt, .order = n};
            n++;
            if (!attempt->ended) continue;
            // A killed process could not write when it ended: shown with its start.
            const int64_t time_ms = attempt->ended_ms ? attempt->ended_ms : attempt->started_ms;
            (*out)[n] = (happening){
                .time_ms = time_ms, .run = run, .attempt = attempt, .is_end = true, .order = n};
            n++;
        }
        for (size_t j = 0; j < run->n_events; j++) {
            (*out)[n] = (happening){.time_ms = run->events[j].time_ms,
                                    .run = run,
                                    .event = &run->events[j],
                                    .order = n};
            n++;
        }
    }
    qsort(*out, n, sizeof **out, by_time);
    return n;
}

static void write_happening(mm_page *page, const happening *item)
{
    mm_html *html = &page->html;
    char time[MM_FMT_BYTES];
    mm_fmt_time(item->time_ms, time);
    const bool is_unknown_end = item->is_end && item->attempt->ended_ms == 0;
    const char *level = item->event && item->event->level ? item->event->level : "info";
    if (item->is_end && strcmp(item->attempt->ended, "killed") == 0) level = "warn";
    if (item->is_end && strcmp(item->attempt->ended, "failed") == 0) level = "error";
    mm_html_open(html, "tr");
    mm_html_leaf(html, "td", NULL, is_unknown_end ? "time not known" : time);
    mm_html_open(html, "td");
    mm_html_leaf(html, "bdi", NULL, item->run->label);
    mm_html_close(html);
    const bool is_warning = strcmp(level, "warn") == 0;
    mm_html_leaf(html, "td", is_warning ? "lw" : strcmp(level, "error") == 0 ? "le" : NULL, level);
    mm_html_open(html, "td");
    if (item->event) {
        if (item->event->kind) {
            mm_html_leaf(html, "b", NULL, item->event->kind);
            mm_html_text(html, " ");
        }
        mm_html_text(html, mm_page_private(page, item->run, item->event->message));
    } else if (item->is_end) {
        mm_html_textf(html, "attempt %" PRId32 " ended: ", item->attempt->number);
        mm_html_leaf(html, "b", NULL, item->attempt->ended);
    } else {
        mm_html_textf(html, "attempt %" PRId32 " started at step %" PRId64, item->attempt->number,
                      item->attempt->from_step);
    }
    mm_html_close(html);
    mm_html_close(html);
}

// A start or a clean end is no news: of several runs, those are left out.
static bool is_news(const happening *item)
{
    if (item->event) return true;
    if (!item->is_end) return item->attempt->number > 1;
    return strcmp(item->attempt->ended, "finished") != 0;
}

void mm_section_events(mm_page *page)
{
    mm_html *html = &page->html;
    happening *items;
    const size_t n = collect_happenings(page, &items);
    if (n == 0) return;
    const size_t depth = html->depth;
    mm_part_section(page, "events", "Attempts and events");
    size_t n_news = 0;
    for (size_t i = 0; i < n; i++)
        n_news += is_news(&items[i]);
    const bool only_news = page->n_runs > 1;
    if (only_news)
        mm_part_note(page,
                     "%zu resumes, ends out of the ordinary and events; %zu plain starts and "
                     "ends are left out.",
                     n_news, n - n_news);
    if (only_news && n_news == 0) {
        mm_html_close_to(html, depth);
        return;
    }
    mm_part_table(page, "log", "Attempts and events", n > 1);
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\">Time</th><th scope=\"col\">Run</th>"
                             "<th scope=\"col\">Level</th><th scope=\"col\">What happened</th></tr>"
                             "</thead>");
    mm_html_open(html, "tbody");
    size_t shown = 0;
    for (size_t i = 0; i < n && shown < MM_REPORT_EVENTS_MAX; i++) {
        if (only_news && !is_news(&items[i])) continue;
        write_happening(page, &items[i]);
        shown++;
    }
    mm_html_close_to(html, depth + 1);
    const size_t n_due = only_news ? n_news : n;
    if (shown < n_due) mm_part_note(page, "%zu more entries are in the database.", n_due - shown);
    mm_html_close_to(html, depth);
}

static bool is_first_use(const mm_page *page, size_t run_idx, size_t dataset_idx)
{
    const mm_dataset *dataset = &page->runs[run_idx].datasets[dataset_idx];
    for (size_t i = 0; i <= run_idx; i++) {
        for (size_t j = 0; j < page->runs[i].n_datasets; j++) {
            if (i == run_idx && j == dataset_idx) return true;
            const mm_dataset *other = &page->runs[i].datasets[j];
            if (other->id == dataset->id && strcmp(other->role, dataset->role) == 0) return false;
        }
    }
    return true;
}

static size_t count_uses(const mm_page *page, const mm_dataset *dataset)
{
    size_t count = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        for (size_t j = 0; j < page->runs[i].n_datasets; j++)
            count += page->runs[i].datasets[j].id == dataset->id &&
                     strcmp(page->runs[i].datasets[j].role, dataset->role) == 0;
    return count;
}

static void count_cell(mm_page *page, int64_t value)
{
    char text[MM_FMT_BYTES];
    mm_fmt_count(value, text);
    mm_part_number(page, (double)value, value > 0 ? text : "–", NULL);
}

static void write_dataset(mm_page *page, const mm_page_run *run, const mm_dataset *dataset)
{
    mm_html *html = &page->html;
    char text[MM_FMT_BYTES];
    mm_html_open(html, "tr");
    mm_html_open(html, "th");
    mm_html_attr(html, "scope", "row");
    mm_html_leaf(html, "bdi", NULL,
                 dataset->path ? mm_page_private(page, run, dataset->path) : "?");
    if (dataset->source && strcmp(dataset->source, "file") != 0)
        mm_html_leaf(html, "small", NULL, mm_page_private(page, run, dataset->source));
    mm_html_close(html);
    mm_html_leaf(html, "td", NULL, dataset->role);
    mm_bytes_text((double)dataset->bytes, text);
    mm_part_number(page, (double)dataset->bytes, text, NULL);
    count_cell(page, dataset->rows);
    count_cell(page, dataset->tokens);
    const size_t uses = count_uses(page, dataset);
    mm_html_leaff(html, "td", "n", "%zu of %zu", uses, page->n_runs);
    mm_html_leaf(html, "td", "hash", dataset->sha256);
    mm_html_close(html);
}

void mm_section_data(mm_page *page)
{
    mm_html *html = &page->html;
    size_t total = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        for (size_t j = 0; j < page->runs[i].n_datasets; j++) {
            if (!page->runs[i].datasets[j].role) page->runs[i].datasets[j].role = "data";
            total++;
        }
    if (total == 0) return;
    const size_t depth = html->depth;
    mm_part_section(page, "data", "Data");
    mm_part_table(page, "data", "Data files used", false);
    mm_html_raw_static(
        html, "<thead><tr><th scope=\"col\">File</th><th scope=\"col\">Used for</th>"
              "<th scope=\"col\" class=\"n\">Size</th><th scope=\"col\" class=\"n\">Rows</th>"
              "<th scope=\"col\" class=\"n\">Tokens</th><th scope=\"col\" class=\"n\">Runs</th>"
              "<th scope=\"col\">SHA-256</th></tr></thead>");
    mm_html_open(html, "tbody");
    for (size_t i = 0; i < page->n_runs; i++)
        for (size_t j = 0; j < page->runs[i].n_datasets; j++)
            if (is_first_use(page, i, j))
                write_dataset(page, &page->runs[i], &page->runs[i].datasets[j]);
    mm_html_close_to(html, depth);
}

void mm_section_reproduce(mm_page *page)
{
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_section(page, "reproduce", "Reproduce");
    const bool is_folded = page->n_runs > MM_STYLES;
    if (is_folded) {
        mm_html_open(html, "details");
        mm_html_leaff(html, "summary", NULL, "Commands of %zu runs", page->n_runs);
    }
    for (size_t i = 0; i < page->n_runs; i++) {
        const mm_run_info *info = &page->runs[i].info;
        mm_html_begin(html, "div", "cmd");
        mm_html_open(html, "p");
        mm_part_run(page, &page->runs[i]);
        mm_html_begin(html, "small", NULL);
        mm_html_textf(html, "seed %" PRIu64 " · ", info->seed);
        mm_html_text(html, info->device ? info->device : "?");
        mm_html_text(html, " ");
        mm_html_text(html, info->dtype ? info->dtype : "");
        mm_html_text(html, " · mmrun ");
        mm_html_text(html, info->version ? info->version : "?");
        if (info->git_commit && *info->git_commit) {
            mm_html_text(html, " · commit ");
            mm_html_text(html, mm_fmt_fit(&page->arena, info->git_commit, 16));
        }
        mm_html_close(html);
        mm_html_close(html);
        mm_html_open(html, "pre");
        mm_html_leaf(html, "code", NULL,
                     info->command && *info->command ? info->command : "(not recorded)");
        mm_html_close(html);
        mm_html_close(html);
    }
    if (is_folded) mm_html_close(html);
    if (page->options->command) {
        mm_html_begin(html, "div", "cmd");
        mm_html_leaf(html, "p", NULL, "This report");
        mm_html_open(html, "pre");
        mm_html_leaf(html, "code", NULL, page->options->command);
        mm_html_close(html);
        mm_html_close(html);
    }
    mm_part_note(page,
                 "Commands stand as they were typed, paths included. The same build, data, seed, "
                 "device and number of threads give the same losses bit for bit.");
    mm_html_close_to(html, depth);
}

void mm_section_method(mm_page *page)
{
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_section(page, "method", "How to read this");
    mm_html_raw_static(
        html,
        "<dl class=\"method\">"
        "<dt>Loss</dt><dd>Mean cross-entropy per token in nats. Validation loss is measured on "
        "text "
        "that was not trained on; the table shows its lowest value, which was also used to choose, "
        "so it is a little too good.</dd>"
        "<dt>Preference loss</dt><dd>Of dpo runs: mean loss of a pair of answers, in the units of "
        "its "
        "own settings; no cross-entropy, never in one chart or ranking with one. Margin: how much "
        "more likely than for the starting model the chosen answer is than the rejected one, times "
        "beta. Pairs right: share of held-out pairs with a positive margin.</dd>"
        "<dt>Perplexity</dt><dd>e to the power of the validation loss. Comparable between runs "
        "with "
        "the same tokenizer only.</dd>"
        "<dt>Bits per byte</dt><dd>Validation loss in bits, per byte of text instead of per token: "
        "comparable across tokenizers.</dd>"
        "<dt>Best</dt><dd>The lowest best validation loss among finished runs of one stage; the "
        "last "
        "training loss when some run has no validation loss; bits per byte when tokenizers differ. "
        "Preference losses of different settings do not rank; the share of held-out pairs does. "
        "Unfinished runs are never ranked against finished ones. Smoothed values never rank.</dd>"
        "<dt>Spread</dt><dd>Runs that agree in everything but the seed count as one configuration. "
        "Two or three seeds: lowest to highest. Four or more: 95 % interval of the mean by "
        "Student’s t.</dd>"
        "<dt>Curves</dt><dd>Long curves are thinned to buckets of equally many steps; the line is "
        "the "
        "mean of a bucket, the band its lowest and highest value. Values that are not finite are "
        "marked and left out of mean and band.</dd>"
        "<dt>Time</dt><dd>Summed over all attempts of a run, pauses between them not "
        "included.</dd></dl>");
    mm_html_close_to(html, depth);
}
