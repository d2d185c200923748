/* Progress: composes the live line or the plain line; output.c puts it on the terminal. */
#include "runner/progress.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/base/width.h"
#include "runner/output.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES_MAX = 4096, LABEL_COLUMNS_MAX = 24 };
static const int64_t REDRAW_NS = 100 * 1000 * 1000;         // live line: ten times a second
static const int64_t COUNT_PLAIN_NS = 5LL * 1000 * 1000000; // plain lines of a counted operation

struct mm_progress {
    mm_progress_mode mode;
    bool is_colored;
    char *label;
    int64_t started_ns;
    int64_t drawn_ns; // 0: not yet
    uint64_t count;   // last values of a counted operation
    uint64_t total;
    bool is_count_shown; // the last values were shown
};

mm_status mm_progress_new(mm_progress **out, const mm_context *context, const char *label,
                          mm_err *err)
{
    *out = NULL;
    if (context->progress == MM_PROGRESS_NONE) return MM_OK;
    mm_progress *progress = mm_calloc(1, sizeof *progress);
    if (!progress) return MM_FAIL(err, MM_ENOMEM, "out of memory for the progress display");
    progress->mode = context->progress;
    progress->is_colored = context->color_err;
    progress->started_ns = mm_mono_ns();
    // Plain lines tell of what takes long; an operation of less is told of once, at its end.
    if (progress->mode != MM_PROGRESS_BAR) progress->drawn_ns = progress->started_ns;
    mm_str text = {.limit = LINE_BYTES_MAX};
    mm_utf8_add_printable(&text, label, strlen(label));
    size_t length = 0;
    const mm_status status = mm_str_take(&text, &progress->label, &length, err);
    if (status != MM_OK) {
        mm_str_drop(&text);
        mm_free(progress);
        return status;
    }
    *out = progress;
    return MM_OK;
}

/* A live line is built from fields in order of importance; what does not fit is left out. */
typedef struct live {
    mm_str text;
    int columns; // left
    bool is_colored;
} live;

static void add_field(live *line, mm_color color, const char *format, ...) MM_PRINTF(3, 4);
static void add_field(live *line, mm_color color, const char *format, ...)
{
    char field[256];
    va_list list;
    va_start(list, format);
    vsnprintf(field, sizeof field, format, list);
    va_end(list);
    const int width = mm_text_width(field, strlen(field));
    const int gap = line->text.length > 0 ? 2 : 0;
    if (width + gap > line->columns) {
        line->columns = 0; // fields behind it would look like its neighbours
        return;
    }
    if (gap > 0) mm_str_add(&line->text, "  ");
    if (color != MM_COLOR_NONE) mm_str_add(&line->text, mm_color_code(line->is_colored, color));
    mm_str_add(&line->text, field);
    if (color != MM_COLOR_NONE)
        mm_str_add(&line->text, mm_color_code(line->is_colored, MM_COLOR_NONE));
    line->columns -= width + gap;
}

static void begin_live(live *line, const mm_progress *progress)
{
    // The last column stays free: writing into it makes some terminals wrap.
    *line = (live){.columns = mm_talk_columns() - 1, .is_colored = progress->is_colored};
    line->text.limit = LINE_BYTES_MAX;
    const size_t length = strlen(progress->label);
    const int room = line->columns < LABEL_COLUMNS_MAX ? line->columns : LABEL_COLUMNS_MAX;
    const size_t bytes = mm_text_fit(progress->label, length, room);
    char label[4 * LABEL_COLUMNS_MAX + 64];
    snprintf(label, sizeof label, "%.*s", (int)bytes, progress->label);
    add_field(line, MM_COLOR_BOLD, "%s", label);
}

static void show_live(live *line)
{
    if (line->text.status == MM_OK) mm_talk_live(mm_str_text(&line->text));
    mm_str_drop(&line->text);
}

static void draw_step(mm_progress *progress, const mm_progress_train *now)
{
    char number[MM_NUMBER_BYTES];
    char eta[MM_TIME_ISO_BYTES];
    live line;
    begin_live(&line, progress);
    if (now->total > 0)
        add_field(&line, MM_COLOR_NONE, "step %lld/%lld  %d%%", (long long)now->step,
                  (long long)now->total, (int)(100 * now->step / now->total));
    else
        add_field(&line, MM_COLOR_NONE, "step %lld", (long long)now->step);
    mm_real_text(now->loss, number);
    if (!isnan(now->loss)) add_field(&line, MM_COLOR_GREEN, "loss %s", number);
    mm_real_text(now->val_loss, number);
    if (!isnan(now->val_loss)) add_field(&line, MM_COLOR_CYAN, "val %s", number);
    mm_duration_text(now->eta_s, eta);
    if (now->eta_s > 0) add_field(&line, MM_COLOR_NONE, "eta %s", eta);
    mm_count_text(now->tokens_per_s, number);
    if (now->tokens_per_s > 0) add_field(&line, MM_COLOR_NONE, "%s tok/s", number);
    if (now->lr > 0) add_field(&line, MM_COLOR_DIM, "lr %.2g", now->lr);
    if (now->grad_norm > 0) add_field(&line, MM_COLOR_DIM, "grad %.3g", now->grad_norm);
    mm_bytes_text((double)now->mem_bytes, number);
    if (now->mem_bytes > 0) add_field(&line, MM_COLOR_DIM, "%s", number);
    show_live(&line);
}

/* Stable fields for grep; documented in docs/json.md, never translated. */
static void plain_step(const mm_progress *progress, const mm_progress_train *now)
{
    mm_str line = {.limit = LINE_BYTES_MAX};
    mm_str_addf(&line, "%s step=%lld", progress->label, (long long)now->step);
    if (now->total > 0) mm_str_addf(&line, "/%lld", (long long)now->total);
    if (!isnan(now->loss)) mm_str_addf(&line, " loss=%.4f", now->loss);
    if (!isnan(now->val_loss)) mm_str_addf(&line, " val_loss=%.4f", now->val_loss);
    if (now->lr > 0) mm_str_addf(&line, " lr=%.3e", now->lr);
    if (now->grad_norm > 0) mm_str_addf(&line, " grad_norm=%.4g", now->grad_norm);
    if (now->tokens > 0) mm_str_addf(&line, " tokens=%lld", (long long)now->tokens);
    if (now->tokens_per_s > 0) mm_str_addf(&line, " tokens_per_s=%.0f", now->tokens_per_s);
    if (now->mem_bytes > 0) mm_str_addf(&line, " mem_bytes=%lld", (long long)now->mem_bytes);
    if (now->eta_s > 0) mm_str_addf(&line, " eta_s=%.0f", now->eta_s);
    mm_talk_line("", mm_str_text(&line), line.length);
    mm_str_drop(&line);
}

static void add_json_text(mm_str *out, const char *key, const char *text)
{
    mm_str_add(out, out->length > 1 ? ",\"" : "\"");
    mm_str_addf(out, "%s\":", key);
    mm_json_add_string(out, text, strlen(text));
}

static void add_json_number(mm_str *out, const char *key, double value)
{
    mm_str_addf(out, ",\"%s\":", key);
    mm_json_add_number(out, value);
}

static void json_step(const mm_progress *progress, const mm_progress_train *now)
{
    mm_str line = {.limit = LINE_BYTES_MAX};
    mm_str_add_char(&line, '{');
    add_json_text(&line, "event", "step");
    add_json_text(&line, "label", progress->label);
    add_json_number(&line, "step", (double)now->step);
    if (now->total > 0) add_json_number(&line, "total", (double)now->total);
    if (!isnan(now->loss)) add_json_number(&line, "loss", now->loss);
    if (!isnan(now->val_loss)) add_json_number(&line, "val_loss", now->val_loss);
    if (now->lr > 0) add_json_number(&line, "lr", now->lr);
    if (now->grad_norm > 0) add_json_number(&line, "grad_norm", now->grad_norm);
    if (now->tokens > 0) add_json_number(&line, "tokens", (double)now->tokens);
    if (now->tokens_per_s > 0) add_json_number(&line, "tokens_per_s", now->tokens_per_s);
    if (now->mem_bytes > 0) add_json_number(&line, "mem_bytes", (double)now->mem_bytes);
    if (now->eta_s > 0) add_json_number(&line, "eta_s", now->eta_s);
    mm_str_add_char(&line, '}');
    mm_talk_line("", mm_str_text(&line), line.length);
    mm_str_drop(&line);
}

/* True when a tenth of a second has passed since the last drawing, or for the last state. */
static bool is_due(mm_progress *progress, int64_t interval_ns, bool is_last)
{
    const int64_t now = mm_mono_ns();
    if (!is_last && progress->drawn_ns != 0 && now - progress->drawn_ns < interval_ns) return false;
    progress->drawn_ns = now;
    return true;
}

void mm_progress_step(mm_progress *progress, const mm_progress_train *now, bool is_log_step)
{
    if (!progress) return;
    if (progress->mode == MM_PROGRESS_BAR) {
        if (is_due(progress, REDRAW_NS, now->step == now->total)) draw_step(progress, now);
    } else if (is_log_step) {
        if (progress->mode == MM_PROGRESS_JSON)
            json_step(progress, now);
        else
            plain_step(progress, now);
    }
}

static void count_text(uint64_t value, const char *unit, char out[MM_NUMBER_BYTES])
{
    if (strcmp(unit, "bytes") == 0)
        mm_bytes_text((double)value, out);
    else
        mm_count_text((double)value, out);
}

static void draw_count(mm_progress *progress, const char *unit)
{
    char done[MM_NUMBER_BYTES];
    char total[MM_NUMBER_BYTES];
    char eta[MM_TIME_ISO_BYTES];
    const bool is_bytes = strcmp(unit, "bytes") == 0;
    const double share =
        progress->total > 0 ? (double)progress->count / (double)progress->total : 0;
    const double spent_s = (double)(progress->drawn_ns - progress->started_ns) * 1e-9;
    live line;
    begin_live(&line, progress);
    count_text(progress->count, unit, done);
    count_text(progress->total, unit, total);
    if (progress->total > 0)
        add_field(&line, MM_COLOR_NONE, "%d%%  %s of %s%s%s", (int)(100 * share), done, total,
                  is_bytes ? "" : " ", is_bytes ? "" : unit);
    else
        add_field(&line, MM_COLOR_NONE, "%s%s%s", done, is_bytes ? "" : " ", is_bytes ? "" : unit);
    if (share > 0 && share < 1 && spent_s > 1) {
        if (!is_bytes) {
            mm_real_text((double)progress->count / spent_s, done);
            add_field(&line, MM_COLOR_NONE, "%s %s/s", done, unit);
        }
        mm_duration_text(spent_s * (1 - share) / share, eta);
        add_field(&line, MM_COLOR_NONE, "eta %s", eta);
    }
    show_live(&line);
}

static void plain_count(const mm_progress *progress, const char *unit)
{
    mm_str line = {.limit = LINE_BYTES_MAX};
    if (progress->mode == MM_PROGRESS_JSON) {
        mm_str_add_char(&line, '{');
        add_json_text(&line, "event", "count");
        add_json_text(&line, "label", progress->label);
        add_json_number(&line, "done", (double)progress->count);
        add_json_number(&line, "total", (double)progress->total);
        add_json_text(&line, "unit", unit);
        mm_str_add_char(&line, '}');
    } else {
        mm_str_addf(&line, "%s %s=%llu", progress->label, unit,
                    (unsigned long long)progress->count);
        if (progress->total > 0) mm_str_addf(&line, "/%llu", (unsigned long long)progress->total);
    }
    mm_talk_line("", mm_str_text(&line), line.length);
    mm_str_drop(&line);
}

void mm_progress_count(mm_progress *progress, uint64_t done, uint64_t total, const char *unit)
{
    if (!progress) return;
    const bool is_new = progress->count != done || progress->total != total;
    if (!is_new && progress->is_count_shown) return;
    progress->count = done;
    progress->total = total;
    progress->is_count_shown = false;
    const bool is_last = total > 0 && done >= total;
    const bool is_live = progress->mode == MM_PROGRESS_BAR;
    if (!is_due(progress, is_live ? REDRAW_NS : COUNT_PLAIN_NS, is_last)) return;
    progress->is_count_shown = true;
    if (is_live)
        draw_count(progress, unit);
    else
        plain_count(progress, unit);
}

void mm_progress_line(mm_progress *progress, const char *format, ...)
{
    if (!progress) return;
    char text[LINE_BYTES_MAX];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (progress->mode == MM_PROGRESS_JSON) {
        mm_str line = {.limit = 4 * LINE_BYTES_MAX};
        mm_str_add_char(&line, '{');
        add_json_text(&line, "event", "line");
        add_json_text(&line, "label", progress->label);
        add_json_text(&line, "text", text);
        mm_str_add_char(&line, '}');
        mm_talk_line("", mm_str_text(&line), line.length);
        mm_str_drop(&line);
        return;
    }
    mm_talk_line("", text, strlen(text));
}

void mm_progress_end(mm_progress *progress)
{
    if (!progress) return;
    if (progress->mode == MM_PROGRESS_BAR) mm_talk_live(NULL);
    mm_free(progress->label);
    mm_free(progress);
}
