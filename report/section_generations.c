/* What the models say: the last answers of all runs to the same prompts in one table per task, and
 * one block per prompt of the runs' own with the answers by step. */
#include "report/page.h"

#include "report/fmt.h"

#include "core/base/width.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    FOLD_COLUMNS = 640, /* a longer answer is folded */
    TASKS_MAX = 12,     /* tables */
    TASK_ROWS_MAX = 24, /* prompts of one task */
    TASK_NAME_COLUMNS = 60,
    EVEN_COLUMNS = 4 /* up to this many runs get columns of equal width */
};

/* An answer with the run that gave it. */
typedef struct answer {
    const mm_generation_row *row;
    size_t run_idx;
    int32_t place; /* of its prompt: the least number that any run gave it */
} answer;

typedef struct answer_sheet {
    mm_page *page;
    answer *items; /* by task, then prompt, then step, then run, then newest first */
    size_t count;
    size_t *run_idxs; /* runs with answers: the columns */
    size_t n_runs;
    size_t n_runs_left_out;
    size_t n_answers_left_out;
    size_t n_cut;
    bool has_one_sampling; /* the prompt at hand: all with the same settings and seed */
} answer_sheet;

static const char *or_empty(const char *text) { return text ? text : ""; }

static int by_task(const answer *x, const answer *y)
{
    return strcmp(or_empty(x->row->task), or_empty(y->row->task));
}

static int by_prompt(const answer *x, const answer *y)
{
    const int order = by_task(x, y);
    if (order != 0) return order;
    if (x->place != y->place) return x->place < y->place ? -1 : 1;
    return strcmp(or_empty(x->row->prompt), or_empty(y->row->prompt));
}

// Equal prompts beside each other, whatever number each run gave them.
static int by_text(const void *a, const void *b)
{
    const answer *x = a;
    const answer *y = b;
    int order = by_task(x, y);
    if (order == 0) order = strcmp(or_empty(x->row->prompt), or_empty(y->row->prompt));
    if (order != 0) return order;
    return (x->row->prompt_idx > y->row->prompt_idx) - (x->row->prompt_idx < y->row->prompt_idx);
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

static void sort_answers(answer *items, size_t count)
{
    qsort(items, count, sizeof *items, by_text);
    for (size_t i = 0; i < count; i++) {
        const bool is_same =
            i > 0 && by_task(&items[i - 1], &items[i]) == 0 &&
            strcmp(or_empty(items[i - 1].row->prompt), or_empty(items[i].row->prompt)) == 0;
        items[i].place = is_same ? items[i - 1].place : items[i].row->prompt_idx;
    }
    qsort(items, count, sizeof *items, by_place);
}

static bool is_same_sampling(const mm_generation_row *a, const mm_generation_row *b)
{
    return !(a->temperature < b->temperature || a->temperature > b->temperature ||
             a->top_p < b->top_p || a->top_p > b->top_p || a->top_k != b->top_k ||
             a->seed != b->seed);
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
    // The best run first; runs without a rank keep their order behind the others. Ranks of several
    // stages say nothing about each other: those runs stand in the order of the page.
    bool has_one_stage = true;
    for (size_t i = 1; i < page->n_runs; i++)
        has_one_stage =
            has_one_stage && strcmp(page->runs[0].info.stage, page->runs[i].info.stage) == 0;
    for (size_t i = 1; i < answers->n_runs && has_one_stage; i++) {
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
    sort_answers(answers->items, n);
    return MM_OK;
}

static void write_sampling(mm_html *html, const mm_generation_row *row)
{
    char temperature[MM_FMT_BYTES];
    char top_p[MM_FMT_BYTES];
    mm_fmt_number(row->temperature, temperature);
    mm_fmt_number(row->top_p, top_p);
    mm_html_textf(html, "temperature %s, top-p %s, top-k %" PRId64 ", seed %" PRIu64, temperature,
                  top_p, row->top_k, row->seed);
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

static void write_answer(answer_sheet *answers, const mm_generation_row *row, bool with_step)
{
    mm_html *html = &answers->page->html;
    bool is_cut;
    const char *text = cut_text(answers, or_empty(row->text), &is_cut);
    const bool is_folded = mm_text_width(text, strlen(text)) > FOLD_COLUMNS;
    if (is_folded) {
        mm_html_open(html, "details");
        mm_html_begin(html, "summary", NULL);
        mm_html_leaf(html, "bdi", NULL, mm_fmt_fit(&answers->page->arena, text, 120));
        mm_html_close(html);
    }
    write_quote(answers, "p", *text ? "said" : "said none", *text ? text : "(empty)");
    if (is_folded) mm_html_close(html);
    mm_html_begin(html, "small", NULL);
    if (with_step) mm_html_textf(html, "step %" PRId64 ", ", row->step);
    mm_html_textf(html, "%" PRId64 " token%s", row->tokens, row->tokens == 1 ? "" : "s");
    if (row->finish_reason && *row->finish_reason) {
        mm_html_text(html, ", ");
        mm_html_text(html, row->finish_reason);
    }
    if (is_cut) mm_html_text(html, ", cut here");
    if (!answers->has_one_sampling) {
        mm_html_text(html, "; ");
        write_sampling(html, row);
    }
    mm_html_close(html);
}

/* The answers of one run to one prompt, newest of each step, in order of steps. */
typedef struct run_answers {
    const mm_generation_row **rows;
    size_t count;
} run_answers;

// items[from, to) are of one prompt; they come by step, then run, then newest first.
static mm_status split_by_run(answer_sheet *answers, size_t from, size_t to, run_answers **out,
                              mm_err *err)
{
    mm_arena *arena = &answers->page->arena;
    *out = mm_arena_alloc(arena, answers->n_runs * sizeof **out);
    if (!*out) return MM_FAIL(err, MM_ENOMEM, "writing answers");
    for (size_t i = 0; i < answers->n_runs; i++) {
        run_answers *mine = &(*out)[i];
        mine->rows = mm_arena_alloc(arena, (to - from) * sizeof *mine->rows);
        if (!mine->rows) return MM_FAIL(err, MM_ENOMEM, "writing answers");
        for (size_t at = from; at < to; at++) {
            const mm_generation_row *row = answers->items[at].row;
            if (answers->items[at].run_idx != answers->run_idxs[i]) continue;
            if (mine->count > 0 && mine->rows[mine->count - 1]->step == row->step) continue;
            mine->rows[mine->count++] = row;
        }
    }
    return MM_OK;
}

// What a run shows in line `line` of `n_lines`: its last answer in line 0, its first in the last
// line, evenly between; NULL when it has too few.
static const mm_generation_row *pick(const run_answers *run, size_t line, size_t n_lines)
{
    if (run->count == 0) return NULL;
    if (run->count < n_lines) return line < run->count ? run->rows[run->count - 1 - line] : NULL;
    if (n_lines == 1) return run->rows[run->count - 1];
    return run->rows[(run->count - 1) * (n_lines - 1 - line) / (n_lines - 1)];
}

// Runs of different lengths rarely answer at the same steps: a line is a stage of training, and
// says its step once when the runs agree in it.
static void write_line(answer_sheet *answers, const run_answers *runs, size_t line, size_t n_lines)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    bool has_one_step = true;
    int64_t step = -1;
    for (size_t i = 0; i < answers->n_runs; i++) {
        const mm_generation_row *row = pick(&runs[i], line, n_lines);
        if (!row) continue;
        has_one_step = has_one_step && (step < 0 || step == row->step);
        step = row->step;
    }
    mm_html_open(html, "tr");
    mm_html_open(html, "th");
    mm_html_attr(html, "scope", "row");
    if (has_one_step)
        mm_html_textf(html, "step %" PRId64, step);
    else
        mm_html_text(html, line == 0 ? "last" : line + 1 == n_lines ? "first" : "between");
    mm_html_close(html);
    for (size_t i = 0; i < answers->n_runs; i++) {
        mm_html_open(html, "td");
        mm_html_attr(html, "data-run", page->runs[answers->run_idxs[i]].label);
        const mm_generation_row *row = pick(&runs[i], line, n_lines);
        if (row)
            write_answer(answers, row, !has_one_step);
        else
            mm_html_leaf(html, "small", NULL, "–");
        mm_html_close(html);
    }
    mm_html_close(html);
}

static void write_head(answer_sheet *answers, const char *first, bool with_stage)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    mm_html_open(html, "thead");
    mm_html_open(html, "tr");
    mm_html_open(html, "th");
    mm_html_attr(html, "scope", "col");
    mm_html_text(html, first);
    mm_html_close(html);
    for (size_t i = 0; i < answers->n_runs; i++) {
        const mm_page_run *run = &page->runs[answers->run_idxs[i]];
        mm_html_open(html, "th");
        mm_html_attr(html, "scope", "col");
        mm_part_run(page, run);
        if (with_stage) mm_html_leaf(html, "small", NULL, run->info.stage);
        mm_html_close(html);
    }
    mm_html_close(html);
    mm_html_close(html);
}

// The last answers come first: they are what one wants to read.
static mm_status write_prompt(answer_sheet *answers, size_t from, size_t to, mm_err *err)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    run_answers *runs;
    MM_TRY(split_by_run(answers, from, to, &runs, err));
    size_t most = 0;
    for (size_t i = 0; i < answers->n_runs; i++)
        most = runs[i].count > most ? runs[i].count : most;
    const size_t n_lines = most < MM_REPORT_ANSWER_STEPS_MAX ? most : MM_REPORT_ANSWER_STEPS_MAX;
    for (size_t i = 0; i < answers->n_runs; i++)
        if (runs[i].count > n_lines) answers->n_answers_left_out += runs[i].count - n_lines;
    answers->has_one_sampling = true;
    for (size_t i = from + 1; i < to; i++)
        if (!is_same_sampling(answers->items[from].row, answers->items[i].row))
            answers->has_one_sampling = false;
    const size_t depth = html->depth;
    mm_html_begin(html, "div", "prompt");
    bool is_cut;
    write_quote(answers, "h3", NULL,
                cut_text(answers, or_empty(answers->items[from].row->prompt), &is_cut));
    if (answers->has_one_sampling) {
        mm_html_begin(html, "p", "note");
        write_sampling(html, answers->items[from].row);
        mm_html_close(html);
    }
    mm_part_table(page, answers->n_runs <= EVEN_COLUMNS ? "gen even" : "gen",
                  "Answers by step and run", false);
    write_head(answers, "When", false);
    mm_html_open(html, "tbody");
    for (size_t line = 0; line < n_lines; line++)
        write_line(answers, runs, line, n_lines);
    mm_html_close_to(html, depth);
    return MM_OK;
}

/* ---- side by side ------------------------------------------------------------------------------
 */

/* Right and checked answers of a run in one table. */
typedef struct tally {
    size_t n_right;
    size_t n_checked;
} tally;

// The newest answer of the last step of each run to one prompt; items come by step, newest first.
static const mm_generation_row *last_answer(const answer_sheet *answers, size_t from, size_t to,
                                            size_t run_idx)
{
    const mm_generation_row *last = NULL;
    for (size_t at = from; at < to; at++) {
        const mm_generation_row *row = answers->items[at].row;
        if (answers->items[at].run_idx == run_idx && (!last || row->step > last->step)) last = row;
    }
    return last;
}

static void write_cell(answer_sheet *answers, size_t column, const mm_generation_row *row,
                       tally *counts)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    mm_html_begin(html, "td", row && row->is_correct == 0 ? "wrong" : NULL);
    mm_html_attr(html, "data-run", page->runs[answers->run_idxs[column]].label);
    if (!row) {
        mm_html_leaf(html, "small", NULL, "–");
        mm_html_close(html);
        return;
    }
    if (row->is_correct >= 0) {
        counts->n_checked++;
        counts->n_right += row->is_correct == 1;
        mm_html_leaf(html, "span", row->is_correct ? "mark yes" : "mark no",
                     row->is_correct ? "✓ right" : "✗ wrong");
    }
    write_answer(answers, row, true);
    mm_html_close(html);
}

static void write_prompt_row(answer_sheet *answers, size_t from, size_t to, tally *counts)
{
    mm_html *html = &answers->page->html;
    const mm_generation_row *first = answers->items[from].row;
    bool is_cut;
    mm_html_open(html, "tr");
    mm_html_open(html, "th");
    mm_html_attr(html, "scope", "row");
    write_quote(answers, "span", "asked", cut_text(answers, or_empty(first->prompt), &is_cut));
    if (first->expected) {
        mm_html_begin(html, "small", NULL);
        mm_html_text(html, "expected ");
        mm_html_leaf(html, "bdi", NULL, mm_fmt_fit(&answers->page->arena, first->expected, 80));
        mm_html_close(html);
    }
    mm_html_close(html);
    for (size_t i = 0; i < answers->n_runs; i++)
        write_cell(answers, i, last_answer(answers, from, to, answers->run_idxs[i]), &counts[i]);
    mm_html_close(html);
}

static void write_tally(answer_sheet *answers, const tally *counts)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    size_t n_checked = 0;
    for (size_t i = 0; i < answers->n_runs; i++)
        n_checked += counts[i].n_checked;
    if (n_checked == 0) return;
    mm_html_begin(html, "tr", "sum");
    mm_html_raw_static(html, "<th scope=\"row\">right, of those above</th>");
    for (size_t i = 0; i < answers->n_runs; i++) {
        mm_html_open(html, "td");
        mm_html_attr(html, "data-run", page->runs[answers->run_idxs[i]].label);
        if (counts[i].n_checked > 0)
            mm_html_textf(html, "%zu of %zu", counts[i].n_right, counts[i].n_checked);
        else
            mm_html_text(html, "–");
        mm_html_close(html);
    }
    mm_html_close(html);
}

static bool is_shared(const answer_sheet *answers, size_t from, size_t to)
{
    for (size_t i = from + 1; i < to; i++)
        if (answers->items[i].run_idx != answers->items[from].run_idx) return true;
    return false;
}

static size_t end_of_prompt(const answer_sheet *answers, size_t from)
{
    size_t to = from + 1;
    while (to < answers->count && by_prompt(&answers->items[from], &answers->items[to]) == 0)
        to++;
    return to;
}

// Of the runs' own prompts only those that several runs answered stand side by side.
static bool is_row(const answer_sheet *answers, size_t from, size_t to)
{
    return answers->items[from].row->task || is_shared(answers, from, to);
}

static bool has_rows(const answer_sheet *answers, size_t from, size_t to)
{
    for (size_t at = from; at < to; at = end_of_prompt(answers, at))
        if (is_row(answers, at, end_of_prompt(answers, at))) return true;
    return false;
}

// One table: items[from, to) are of one task; prompts are rows, runs are columns.
static mm_status write_task(answer_sheet *answers, size_t from, size_t to,
                            size_t *n_prompts_left_out, mm_err *err)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    tally *counts = mm_arena_alloc(&page->arena, answers->n_runs * sizeof *counts);
    if (!counts) return MM_FAIL(err, MM_ENOMEM, "writing answers");
    const size_t depth = html->depth;
    const char *task = answers->items[from].row->task;
    mm_html_begin(html, "div", "prompt");
    mm_html_begin(html, "h3", "task");
    mm_html_text(html, task ? mm_fmt_fit(&page->arena, task, TASK_NAME_COLUMNS)
                            : "The runs’ own prompts, last answers");
    mm_html_close(html);
    mm_part_table(page, answers->n_runs <= EVEN_COLUMNS ? "gen even matrix" : "gen matrix",
                  "Answers by prompt and run", false);
    write_head(answers, "Prompt", true);
    mm_html_open(html, "tbody");
    answers->has_one_sampling = true; // said by the runs' records
    size_t n_rows = 0;
    for (size_t at = from; at < to; at = end_of_prompt(answers, at)) {
        const size_t next = end_of_prompt(answers, at);
        if (!is_row(answers, at, next)) continue;
        if (n_rows++ < TASK_ROWS_MAX)
            write_prompt_row(answers, at, next, counts);
        else
            *n_prompts_left_out += 1;
    }
    write_tally(answers, counts);
    mm_html_close_to(html, depth);
    return MM_OK;
}

// The table of every task, and of the runs' own prompts where several runs answered the same.
static mm_status write_tasks(answer_sheet *answers, size_t *n_prompts_left_out, mm_err *err)
{
    size_t n_tasks = 0;
    for (size_t from = 0; from < answers->count;) {
        size_t to = from + 1;
        while (to < answers->count && by_task(&answers->items[from], &answers->items[to]) == 0)
            to++;
        const bool is_shown = has_rows(answers, from, to);
        if (is_shown && n_tasks++ < TASKS_MAX)
            MM_TRY(write_task(answers, from, to, n_prompts_left_out, err));
        else if (is_shown)
            *n_prompts_left_out += 1;
        from = to;
    }
    return MM_OK;
}

/* ---- the section -------------------------------------------------------------------------------
 */

// Whether all of the runs' own answers stand side by side already: one step each, shared prompts.
static bool is_all_said(const answer_sheet *answers)
{
    for (size_t from = 0; from < answers->count && !answers->items[from].row->task;) {
        const size_t to = end_of_prompt(answers, from);
        if (!is_shared(answers, from, to)) return false;
        for (size_t i = from; i < to; i++)
            for (size_t j = from; j < i; j++)
                if (answers->items[i].run_idx == answers->items[j].run_idx &&
                    answers->items[i].row->step != answers->items[j].row->step)
                    return false;
        from = to;
    }
    return true;
}

// A block per prompt of the runs' own, with the answers of several steps.
static mm_status write_steps(answer_sheet *answers, size_t *n_left_out, mm_err *err)
{
    mm_html *html = &answers->page->html;
    const size_t depth = html->depth;
    size_t end = 0;
    while (end < answers->count && !answers->items[end].row->task)
        end++;
    if (is_all_said(answers)) return MM_OK;
    const bool is_folded = has_rows(answers, 0, end);
    if (is_folded) {
        mm_html_open(html, "details");
        mm_html_leaf(html, "summary", NULL, "Answers by step");
    }
    size_t n_prompts = 0;
    for (size_t from = 0; from < answers->count && !answers->items[from].row->task;) {
        size_t to = from + 1;
        while (to < answers->count && by_prompt(&answers->items[from], &answers->items[to]) == 0)
            to++;
        if (n_prompts < MM_REPORT_PROMPTS_MAX) {
            MM_TRY(write_prompt(answers, from, to, err));
            n_prompts++;
        } else {
            *n_left_out += 1;
        }
        from = to;
    }
    mm_html_close_to(html, depth);
    return MM_OK;
}

static mm_status write_all(answer_sheet *answers, mm_err *err)
{
    mm_page *page = answers->page;
    mm_html *html = &page->html;
    const size_t depth = html->depth;
    mm_part_section(page, "generations", "What the models say");
    size_t n_prompts_left_out = 0;
    MM_TRY(write_tasks(answers, &n_prompts_left_out, err));
    MM_TRY(write_steps(answers, &n_prompts_left_out, err));
    const size_t cuts[] = {n_prompts_left_out, answers->n_runs_left_out,
                           answers->n_answers_left_out, answers->n_cut};
    static const char *const names[] = {"prompts", "runs", "answers at steps between",
                                        "ends of long texts"};
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
