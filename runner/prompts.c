/* Prompts of a file. What the readers of training data do not take for a row, a prompt without an
 * answer, is read here; everything else goes through them. */
#include "runner/prompts.h"

#include "core/base/json.h"

#include <stdio.h>
#include <string.h>

struct mm_prompt_reader {
    mm_row_reader *rows;
    char *path;
    const char *system;
    bool has_prompt_rows; // lines of {"prompt"}
    json_t *root;         // of such a line
    mm_message *messages;
    size_t capacity;
    size_t count;
    mm_prompt_row row;
    int64_t idle;
};

static bool is_prompt_object(const json_t *object)
{
    return json_object_get(object, "prompt") && !json_object_get(object, "completion") &&
           !json_object_get(object, "chosen") && !json_object_get(object, "conversations") &&
           !json_object_get(object, "messages");
}

// Looks at the first line only: a file of prompts has no other shape between.
static mm_status detect(const char *path, mm_row_format *format, bool *has_prompt_rows, mm_err *err)
{
    mm_row_reader *reader = NULL;
    const mm_row *row = NULL;
    json_t *root = NULL;
    mm_status status = MM_OK;
    *format = MM_ROWS_LINES;
    *has_prompt_rows = false;
    MM_GO(mm_row_reader_open(&reader, path, MM_ROWS_LINES, err));
    MM_GO(mm_row_reader_next(reader, &row, err));
    if (!row) goto done;
    const char first = row->text[strspn(row->text, " \t")];
    if (first != '{' && first != '[') goto done;
    const bool is_json = mm_json_parse(row->text, row->text_bytes, path, &root, NULL) == MM_OK;
    *has_prompt_rows = is_json && is_prompt_object(root);
    if (!*has_prompt_rows) *format = MM_ROWS_AUTO;
done:
    json_decref(root);
    mm_row_reader_close(reader);
    return status;
}

mm_status mm_prompt_reader_open(mm_prompt_reader **out, const char *path, const char *system,
                                mm_err *err)
{
    mm_status status = MM_OK;
    mm_row_format format;
    *out = NULL;
    mm_prompt_reader *reader = mm_calloc(1, sizeof *reader);
    if (!reader) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    reader->system = system;
    reader->path = mm_strdup(path);
    if (!reader->path) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
        goto done;
    }
    MM_GO(detect(path, &format, &reader->has_prompt_rows, err));
    MM_GO(mm_row_reader_open(&reader->rows, path, format, err));
    *out = reader;
    reader = NULL;
done:
    mm_prompt_reader_close(reader);
    return status;
}

void mm_prompt_reader_close(mm_prompt_reader *reader)
{
    if (!reader) return;
    json_decref(reader->root);
    mm_row_reader_close(reader->rows);
    mm_free(reader->messages);
    mm_free(reader->path);
    mm_free(reader);
}

static mm_status add_message(mm_prompt_reader *reader, const mm_message *message, mm_err *err)
{
    if (reader->count == reader->capacity) {
        const size_t capacity = reader->capacity == 0 ? 16 : 2 * reader->capacity;
        const size_t bytes = capacity * sizeof *reader->messages;
        mm_message *grown =
            reader->messages ? mm_realloc(reader->messages, bytes) : mm_alloc(bytes);
        if (!grown) return MM_FAIL(err, MM_ENOMEM, "%s: no memory for a row", reader->path);
        reader->messages = grown;
        reader->capacity = capacity;
    }
    reader->messages[reader->count++] = *message;
    return MM_OK;
}

static mm_status add_text(mm_prompt_reader *reader, const char *role, const char *text, mm_err *err)
{
    return add_message(reader, &(mm_message){.role = role, .content = text}, err);
}

static mm_status add_all(mm_prompt_reader *reader, const mm_conversation *chat, mm_err *err)
{
    const bool has_system = chat->count > 0 && strcmp(chat->messages[0].role, "system") == 0;
    if (reader->system && !has_system) MM_TRY(add_text(reader, "system", reader->system, err));
    for (size_t i = 0; i < chat->count; i++)
        MM_TRY(add_message(reader, &chat->messages[i], err));
    return MM_OK;
}

static mm_status add_question(mm_prompt_reader *reader, const char *text, mm_err *err)
{
    const mm_message question = {.role = "user", .content = text};
    return add_all(reader, &(mm_conversation){.messages = &question, .count = 1}, err);
}

static mm_status bad_prompt(const mm_prompt_reader *reader, const char *what, mm_err *err)
{
    return MM_FAIL(err, MM_EFORMAT,
                   "%s line %lld: %s: expected {\"prompt\": TEXT} or {\"prompt\": [{\"role\", "
                   "\"content\"}, ...]}",
                   reader->path, (long long)reader->row.line, what);
}

static bool is_role(const char *role)
{
    static const char *const ROLES[] = {"system", "user", "assistant", "tool"};
    for (int i = 0; role && i < 4; i++)
        if (strcmp(role, ROLES[i]) == 0) return true;
    return false;
}

// A line of {"prompt"}.
static mm_status read_prompt(mm_prompt_reader *reader, const mm_row *row, mm_err *err)
{
    char what[64];
    snprintf(what, sizeof what, "line %lld", (long long)row->line);
    json_decref(reader->root);
    reader->root = NULL;
    const mm_status status = mm_json_parse(row->text, row->text_bytes, what, &reader->root, err);
    if (status != MM_OK) {
        mm_err_context(err, "%s", reader->path);
        return status;
    }
    const json_t *prompt = json_object_get(reader->root, "prompt");
    const json_t *gt = json_object_get(reader->root, "gt");
    if (json_is_array(gt)) reader->row.gt = gt;
    if (json_is_string(prompt)) return add_question(reader, json_string_value(prompt), err);
    if (!json_is_array(prompt)) return bad_prompt(reader, "no text in \"prompt\"", err);
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        const json_t *turn = json_array_get(prompt, i);
        const char *role = json_string_value(json_object_get(turn, "role"));
        const char *content = json_string_value(json_object_get(turn, "content"));
        if (!is_role(role) || !content) return bad_prompt(reader, "a message of another form", err);
        if (i == 0 && reader->system && strcmp(role, "system") != 0)
            MM_TRY(add_text(reader, "system", reader->system, err));
        MM_TRY(add_text(reader, role, content, err));
    }
    return MM_OK;
}

static mm_status read_row(mm_prompt_reader *reader, const mm_row *row, mm_err *err)
{
    reader->count = 0;
    reader->row = (mm_prompt_row){.line = row->line};
    if (reader->has_prompt_rows) return read_prompt(reader, row, err);
    if (row->kind == MM_ROW_TEXT) return add_question(reader, row->text, err);
    reader->row.chat.tools = row->chat.tools;
    reader->row.gt = row->gt;
    return add_all(reader, &row->chat, err);
}

// The answers at the end are not shown to whom shall give one.
static bool leaves_a_question(mm_prompt_reader *reader)
{
    while (reader->count > 0 && strcmp(reader->messages[reader->count - 1].role, "assistant") == 0)
        reader->count--;
    return reader->count > 0 && strcmp(reader->messages[reader->count - 1].role, "system") != 0;
}

mm_status mm_prompt_reader_next(mm_prompt_reader *reader, const mm_prompt_row **row, mm_err *err)
{
    *row = NULL;
    for (;;) {
        const mm_row *next;
        MM_TRY(mm_row_reader_next(reader->rows, &next, err));
        if (!next) return MM_OK;
        MM_TRY(read_row(reader, next, err));
        if (leaves_a_question(reader)) break;
        reader->idle++;
    }
    reader->row.chat.messages = reader->messages;
    reader->row.chat.count = reader->count;
    *row = &reader->row;
    return MM_OK;
}

const mm_row_report *mm_prompt_reader_report(const mm_prompt_reader *reader)
{
    return mm_row_reader_report(reader->rows);
}

int64_t mm_prompt_reader_idle(const mm_prompt_reader *reader) { return reader->idle; }
