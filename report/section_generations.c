/* What the models say: the recorded answers, one block per prompt, runs side by side by step. */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FOLD_COLUMNS = 640 /* a longer answer is folded */ };

/* An answer with the run that gave it. */
typedef struct answer {
    const mm_generation_row *row;
    size_t run_idx;
} answer;

typedef struct answer_sheet {
    mm_page *page;
    answer *items; /* by prompt, then step, then run, then newest first */
    size_t count;
    size_t *run_idxs; /* runs with answers: the columns */
    size_t n_runs;
    size_t n_runs_left_out;
    size_t n_steps_left_out;
    size_t n_cut;
    bool has_one_sampling; /* all with the same temperature, top_p, top_k */
} answer_sheet;

static const char *or_empty(const char *text) { return text ? text : ""; }

static int by_prompt(const answer *x, const answer *y)
{
    if (x->row->prompt_idx != y->row->prompt_idx)
        return x->row->prompt_idx < y->row->prompt_idx ? -1 : 1;
    return strcmp(or_empty(x->row->prompt), or_empty(y->row->prompt));
}

static int by_place(const void *a, const void *b)
{
    const answer *x = a;
    const answer *y = b;
    const int order = by_prompt(x, y);
    if (order != 0) return order;
    if (x->row->step != y->row->step) return x->row->step < y->row->step ? -1 : 1;
    if (x->run_idx != y->run_idx) return x->run_idx < y->run_idx ? -1 : 1;
    return (x->row->id < y->row->id) - (x->row->id > y->row->id);
}

static bool is_same_sampling(const mm_generation_row *a, const mm_generation_row *b)
{
    return !(a->temperature < b->temperature || a->temperature > b->temperature ||
             a->top_p < b->top_p || a->top_p > b->top_p || a->top_k != b->top_k);
}

static mm_status collect(answer_sheet *answers, mm_err *err)
{
    mm_page *page = answers->page;
    answers->run_idxs = mm_arena_alloc(&page->arena, page->n_runs * sizeof *answers->run_idxs);
    if (!answers->run_idxs) return MM_FAIL(err, MM_ENOMEM, "collecting answers");
    for (size_t i = 0; i < page->n_runs; i++) {
        answers->n_runs_left_out += page->runs[i].style == MM_STYLE_NONE;
        if (page->runs[i].n_generations > 0) answers->run_idxs[answers->n_runs++] = i;
        answers->count += page->runs[i].n_generations;
    }
    // The best run first; runs without a rank keep their order behind the others.
    for (size_t i = 1; i < answers->n_runs; i++) {
        const size_t moved = answers->run_idxs[i];
        const size_t rank = page->runs[moved].rank;
        size_t at = i;
        for (; at > 0 && rank > 0; at--) {
            const size_t other = page->runs[answers->run_idxs[at - 1]].rank;
            if (other > 0 && other < rank) break;
            answers->run_idxs[at] = answers->run_idxs[at - 1];
        }
        answers->run_idxs[at] = moved;
    }
    answers->items = mm_arena_alloc(&page->arena, (answers->count + 1) * sizeof *answers->items);
    if (!answers->items) return MM_FAIL(err, MM_ENOMEM, "collecting answers");
    size_t n = 0;
    for (size_t i = 0; i < page->n_runs; i++)
        for (size_t j = 0; j < page->runs[i].n_generations; j++)
            answers->items[n++] = (answer){.row = &page->runs[i].generations[j], .run_idx = i};
    qsort(answers->items, n, sizeof *answers->items, by_place);
    answers->has_one_sampling = true;
    for (size_t i = 1; i < n; i++)
        if (!is_same_sampling(answers->items[0].row, answers->items[i].row))
            answers->has_one_sampling = false;
    return MM_OK;
}

static void write_sampling(mm_html *html, const mm_generation_row *row)
{
    char temperature[MM_FMT_BYTES];
    char top_p[MM_FMT_BYTES];
    mm_fmt_number(row->temperature, temperature);
    mm_fmt_number(row->top_p, top_p);
    mm_html_textf(html, "temperature %s, top-p %s, top-k %" PRId64, temperature, top_p, row->top_k);
}

// Whole characters of at most MM_REPORT_ANSWER_BYTES.
static const char *cut_text(answer_sheet *answers, const char *text, bool *is_cut)
{
    const size_t length = strlen(text);
    *is_cut = length > MM_REPORT_ANSWER_BYTES;
    if (!*is_cut) return text;
    answers->n_cut++;
    size_t end = MM_REPORT_ANSWER_BYTES;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80)
        end--;
    const char *copy = mm_arena_strndup(&answers->page->arena, text, end);
    return copy ? copy : "";
}

static void write_quote(answer_sheet *answers, const char *tag, const char *class_name,
                        const char *text)
{
    mm_html *html = &answers->page->html;
    mm_html_begin(html, tag, class_name);
    mm_html_attr(html, "dir", "auto");
    const char *language = mm_fmt_language(text);
    if (language) mm_html_attr(html, "lang", language);
    mm_html_text(html, text);
    mm_html_close(html);
}

static void write_answer(answer_sheet *answers, const mm_generation_row *row)
{
    mm_html *html = &answers->page->html;
    bool is_cut;
    const char *text = cut_text(answers, or_empty(row->text), &is_cut);
    const bool is_folded = mm_fmt_columns(text) > FOLD_COLUMNS;
    if (is_folded) {
        mm_html_open(html, "details");
        mm_html_begin(html, "summary", NULL);
        mm_html_leaf(html, "bdi", NULL, mm_fmt_fit(&answers->page->arena, text, 120));
        mm_html_close(html);
    }
    write_quote(answers, "p", *text ? "said" : "said none", *text ? text : "(empty)");
    if (is_folded) mm_html_close(html);
    mm_html_begin(html, "small", NULL);
    mm_html_textf(html, "%" PRId64 " tokens", row->tokens);
    if (row->finish_reason && *row->finish_reason) {
        mm_html_text(html, ", ");
        mm_html_text(html, row->finish_reason);
    }
    if (is_cut) mm_html_text(html, ", cut here");
    if (!answers->has_one_sampling) {
        mm_html_text(html, "; ");
        write_sampling(html, row);
        mm_html_textf(html, ", seed %" PRIu64, row->seed);
    }
    mm_html_close(html);
}

// One row of the table: what each run said at this step. items[from, to) are of one step.
static void write_step(answer_sheet *answers, size_t from, size_t to)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    mm_html_open(html, "tr");
    mm_html_begin(html, "th", "n");
    mm_html_attr(html, "scope", "row");
    mm_html_leaf(html, "span", "stepword", "step ");
    mm_html_textf(html, "%" PRId64, answers->items[from].row->step);
    mm_html_close(html);
    for (size_t i = 0; i < answers->n_runs; i++) {
        const mm_page_run *run = &page->runs[answers->run_idxs[i]];
        mm_html_open(html, "td");
        mm_html_attr(html, "data-run", run->label);
        size_t at = from;
        while (at < to && answers->items[at].run_idx != answers->run_idxs[i])
            at++;
        if (at < to) // the newest of this run, prompt and step
            write_answer(answers, answers->items[at].row);
        else
            mm_html_leaf(html, "small", NULL, "–");
        mm_html_close(html);
    }
    mm_html_close(html);
}

// The last step of every run, and the first and some between while there is room. Returns how many.
static size_t choose_steps(const answer_sheet *answers, const size_t *starts, size_t n_steps,
                           bool *is_shown)
{
    size_t count = 0;
    for (size_t i = 0; i < answers->n_runs; i++) {
        size_t step = n_steps;
        for (bool found = false; step > 0 && !found; step--)
            for (size_t at = starts[step - 1]; at < starts[step] && !found; at++)
                found = answers->items[at].run_idx == answers->run_idxs[i];
        // `step` now is the index of the run's last one, or 0 when it has none here.
        count += !is_shown[step];
        is_shown[step] = true;
    }
    for (size_t i = 0; i < MM_REPORT_ANSWER_STEPS_MAX && count < MM_REPORT_ANSWER_STEPS_MAX; i++) {
        const size_t step = i * (n_steps - 1) / (MM_REPORT_ANSWER_STEPS_MAX - 1);
        count += !is_shown[step];
        is_shown[step] = true;
    }
    return count;
}

// items[from, to) are of one prompt. The last step comes first: it is what one wants to read.
static mm_status write_prompt(answer_sheet *answers, size_t from, size_t to, mm_err *err)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    size_t *starts = mm_arena_alloc(&page->arena, (to - from + 1) * sizeof *starts);
    bool *is_shown = mm_arena_alloc(&page->arena, (to - from + 1) * sizeof *is_shown);
    if (!starts || !is_shown) return MM_FAIL(err, MM_ENOMEM, "writing answers");
    size_t n_steps = 0;
    for (size_t i = from; i < to; i++)
        if (i == from || answers->items[i].row->step != answers->items[i - 1].row->step)
            starts[n_steps++] = i;
    starts[n_steps] = to;
    const size_t depth = html->depth;
    mm_html_begin(html, "div", "prompt");
    bool is_cut;
    const char *prompt = or_empty(answers->items[from].row->prompt);
    write_quote(answers, "h3", NULL, cut_text(answers, prompt, &is_cut));
    mm_part_table(page, "gen", "Answers by step and run", false);
    mm_html_raw_static(html, "<thead><tr><th scope=\"col\" class=\"n\">Step</th>");
    for (size_t i = 0; i < answers->n_runs; i++) {
        mm_html_open(html, "th");
        mm_html_attr(html, "scope", "col");
        mm_part_run(page, &page->runs[answers->run_idxs[i]]);
        mm_html_close(html);
    }
    mm_html_raw_static(html, "</tr></thead>");
    mm_html_open(html, "tbody");
    const size_t shown = choose_steps(answers, starts, n_steps, is_shown);
    answers->n_steps_left_out += n_steps - shown;
    for (size_t i = n_steps; i-- > 0;)
        if (is_shown[i]) write_step(answers, starts[i], starts[i + 1]);
    mm_html_close_to(html, depth);
    return MM_OK;
}

static mm_status write_all(answer_sheet *answers, mm_err *err)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_section(page, "generations", "What the models say");
    if (answers->has_one_sampling) {
        mm_html_begin(html, "p", "note");
        mm_html_text(html, "All answers with ");
        write_sampling(html, answers->items[0].row);
        mm_html_text(html, ".");
        mm_html_close(html);
    }
    size_t n_prompts = 0;
    size_t n_prompts_left_out = 0;
    for (size_t from = 0; from < answers->count;) {
        size_t to = from + 1;
        while (to < answers->count && by_prompt(&answers->items[from], &answers->items[to]) == 0)
            to++;
        if (n_prompts < MM_REPORT_PROMPTS_MAX) {
            MM_TRY(write_prompt(answers, from, to, err));
            n_prompts++;
        } else {
            n_prompts_left_out++;
        }
        from = to;
    }
    const size_t cuts[] = {n_prompts_left_out, answers->n_runs_left_out, answers->n_steps_left_out,
                           answers->n_cut};
    static const char *const names[] = {"prompts", "runs", "rows of steps", "ends of long texts"};
    const char *comma = "Left out to keep the page small, and in the database: ";
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        if (cuts[i] == 0) continue;
        if (comma[0] == 'L') mm_html_begin(html, "p", "note");
        mm_html_textf(html, "%s%zu %s", comma, cuts[i], names[i]);
        comma = ", ";
    }
    if (comma[0] == ',') {
        mm_html_text(html, ".");
        mm_html_close(html);
    }
    mm_html_close_to(html, depth);
    return MM_OK;
}

mm_status mm_section_generations(mm_page *page, mm_err *err)
{
    answer_sheet answers = {.page = page};
    MM_TRY(collect(&answers, err));
    return answers.count > 0 ? write_all(&answers, err) : MM_OK;
}
