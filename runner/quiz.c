/* Multiple choice: the questions of a file. See quiz.h. */
#include "runner/quiz.h"

#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/data/records.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One row while it is read: what is wrong with it goes into `detail`. */
typedef struct row_reader {
    mm_quiz *quiz;
    const json_t *root;
    mm_question question;
    char detail[MM_QUIZ_DETAIL_BYTES];
} row_reader;

static bool refuse(row_reader *row, const char *format, ...) MM_PRINTF(2, 3);

static bool refuse(row_reader *row, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(row->detail, sizeof row->detail, format, list);
    va_end(list);
    return false;
}

/* The text of a field; NULL when it is missing, no text, or nothing but blanks. */
static const char *text_of(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && text[strspn(text, " \t\r\n")] ? text : NULL;
}

static bool read_lettered(row_reader *row)
{
    char letter[2] = "A";
    for (; letter[0] <= 'Z'; letter[0]++) {
        const json_t *value = json_object_get(row->root, letter);
        if (!value) break;
        const char *text = text_of(value);
        if (!text) return refuse(row, "%s: expected a text", letter);
        row->question.options[row->question.n_options++] = text;
    }
    return true;
}

static bool read_listed(row_reader *row, const json_t *choices)
{
    const size_t n = json_array_size(choices);
    if (!json_is_array(choices)) return refuse(row, "choices: expected a list");
    if (n > MM_QUIZ_OPTIONS_MAX)
        return refuse(row, "choices: at most %d, found %zu", MM_QUIZ_OPTIONS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        const char *text = text_of(json_array_get(choices, i));
        if (!text) return refuse(row, "choices[%zu]: expected a text", i);
        row->question.options[row->question.n_options++] = text;
    }
    return true;
}

static bool read_answer(row_reader *row)
{
    const json_t *value = json_object_get(row->root, "answer");
    const char *text = json_string_value(value);
    const int32_t n = row->question.n_options;
    int64_t place = -1;
    if (json_is_integer(value)) place = json_integer_value(value);
    if (text) {
        text += strspn(text, " \t");
        const char letter = text[0] >= 'a' && text[0] <= 'z' ? (char)(text[0] - 32) : text[0];
        if (letter >= 'A' && letter <= 'Z' && text[1 + strspn(text + 1, " \t\r\n.")] == '\0')
            place = letter - 'A';
    }
    if (place < 0 || place >= n)
        return refuse(row, "answer: expected a letter from A to %c%s", 'A' + n - 1,
                      json_object_get(row->root, "choices") ? " or a place from 0" : "");
    row->question.answer = (int32_t)place;
    return true;
}

static bool read_row(row_reader *row)
{
    if (!json_is_object(row->root)) return refuse(row, "expected an object");
    const json_t *choices = json_object_get(row->root, "choices");
    const json_t *subject = json_object_get(row->root, "subject");
    row->question.text = text_of(json_object_get(row->root, "question"));
    if (!row->question.text) return refuse(row, "question: expected a text");
    if (!(choices ? read_listed(row, choices) : read_lettered(row))) return false;
    if (row->question.n_options < 2)
        return refuse(row, "expected two options or more (A, B … or choices), found %d",
                      row->question.n_options);
    if (subject && !json_is_null(subject) && !json_is_string(subject))
        return refuse(row, "subject: expected a text");
    row->question.subject = text_of(subject);
    return read_answer(row);
}

static mm_status keep_text(mm_quiz *quiz, const char **text, mm_err *err)
{
    if (!*text) return MM_OK;
    *text = mm_arena_strdup(&quiz->arena, *text);
    return *text ? MM_OK : MM_FAIL(err, MM_ENOMEM, "no memory for questions");
}

static mm_status keep_question(mm_quiz *quiz, const mm_question *found, mm_err *err)
{
    if (quiz->count == MM_QUIZ_QUESTIONS_MAX)
        return MM_FAIL(err, MM_ELIMIT, "more than %d questions", MM_QUIZ_QUESTIONS_MAX);
    if (quiz->count == quiz->capacity) {
        const size_t capacity = quiz->capacity > 0 ? 2 * quiz->capacity : 64;
        void *grown = mm_realloc(quiz->questions, capacity * sizeof *quiz->questions);
        if (!grown) return MM_FAIL(err, MM_ENOMEM, "no memory for %zu questions", capacity);
        quiz->questions = grown;
        quiz->capacity = capacity;
    }
    mm_question *question = &quiz->questions[quiz->count];
    *question = *found;
    MM_TRY(keep_text(quiz, &question->text, err));
    MM_TRY(keep_text(quiz, &question->subject, err));
    for (int32_t i = 0; i < question->n_options; i++)
        MM_TRY(keep_text(quiz, &question->options[i], err));
    quiz->count++;
    return MM_OK;
}

static void keep_bad(mm_quiz *quiz, int64_t line, const char *detail)
{
    if (quiz->bad < MM_QUIZ_BAD_KEPT) {
        quiz->first_bad[quiz->bad].line = line;
        snprintf(quiz->first_bad[quiz->bad].detail, MM_QUIZ_DETAIL_BYTES, "%s", detail);
    }
    quiz->bad++;
}

static mm_status take_record(mm_quiz *quiz, const mm_record *record, mm_err *err)
{
    row_reader row = {.quiz = quiz};
    mm_err bad = {0};
    json_t *root = NULL;
    if (record->is_too_long) {
        keep_bad(quiz, record->number, "longer than 16 MiB");
        return MM_OK;
    }
    if (mm_json_parse(record->data, record->bytes, "", &root, &bad) != MM_OK) {
        keep_bad(quiz, record->number, "not valid JSON");
        return MM_OK;
    }
    row.root = root;
    row.question.line = record->number;
    mm_status status = MM_OK;
    if (read_row(&row))
        status = keep_question(quiz, &row.question, err);
    else
        keep_bad(quiz, record->number, row.detail);
    json_decref(root);
    return status;
}

static mm_status check_quiz(const mm_quiz *quiz, const char *path, bool skip_bad, mm_err *err)
{
    const int64_t all = (int64_t)quiz->count + quiz->bad;
    if (quiz->count > 0 && (skip_bad || quiz->bad * 1000 <= all)) return MM_OK;
    if (quiz->bad == 0) return MM_FAIL(err, MM_EFORMAT, "%s: there is no question in it", path);
    return MM_FAIL(err, MM_EFORMAT,
                   "%s: %" PRId64 " of %" PRId64 " questions are bad, first at line %" PRId64
                   ": %s%s",
                   path, quiz->bad, all, quiz->first_bad[0].line, quiz->first_bad[0].detail,
                   quiz->count > 0 ? "\n--on-bad-row skip leaves them out" : "");
}

mm_status mm_quiz_read(mm_quiz *out, const char *path, int64_t limit, bool skip_bad, mm_err *err)
{
    mm_records *records = NULL;
    mm_record record;
    uint8_t digest[MM_SHA256_BYTES];
    uint64_t bytes = 0;
    bool more = true;
    mm_status status = MM_OK;
    *out = (mm_quiz){0};
    MM_GO(mm_records_open(&records, path, MM_RECORDS_JSON, err));
    while (limit == 0 || (int64_t)out->count < limit) {
        MM_GO(mm_records_next(records, &record, &more, err));
        if (!more) break;
        MM_GO(take_record(out, &record, err));
    }
    MM_GO(check_quiz(out, path, skip_bad, err));
    MM_GO(mm_sha256_file(path, digest, &bytes, err));
    mm_sha256_hex(digest, out->sha256);
done:
    mm_records_close(records);
    return status;
}

void mm_quiz_drop(mm_quiz *quiz)
{
    mm_free(quiz->questions);
    mm_arena_drop(&quiz->arena);
    *quiz = (mm_quiz){0};
}
