/* The demo's questions. Rules of marking that need no judgement: of a sum the last number of the
 * answer counts, since "3 + 4 = 7" and "The answer is 7." both end on it; the language of a text is
 * the script of most of its letters, and a bare number has none, so it does not match. */
#include "runner/demo_score.h"

#include "core/base/hash.h"
#include "core/base/stat.h"
#include "core/base/utf8.h"
#include "core/data/rows.h"
#include "runner/load.h"
#include "runner/sample.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWER_TOKENS = 32, CONTEXT_TOKENS = 256, ANSWERS_KEPT = 8 };

typedef enum script { SCRIPT_NONE = 0, SCRIPT_LATIN, SCRIPT_HAN } script;

static bool is_latin(uint32_t code)
{
    return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
}

// The unified ideographs and their first extension.
static bool is_han(uint32_t code)
{
    return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF);
}

// An ideograph says about as much as a word: letters are weighed accordingly.
static script script_of(const char *text)
{
    enum { LETTERS_PER_IDEOGRAPH = 4 };
    const size_t bytes = strlen(text);
    int64_t latin = 0;
    int64_t han = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        const int length = mm_utf8_next(text + at, bytes - at, &code);
        at += length > 0 ? (size_t)length : 1;
        latin += is_latin(code);
        han += is_han(code);
    }
    if (latin == 0 && han == 0) return SCRIPT_NONE;
    return LETTERS_PER_IDEOGRAPH * han > latin ? SCRIPT_HAN : SCRIPT_LATIN;
}

// The last number of a text; false when there is none.
static bool last_number(const char *text, long long *value)
{
    const char *digits = NULL;
    for (const char *at = text; *at; at++)
        if (*at >= '0' && *at <= '9' && (at == text || at[-1] < '0' || at[-1] > '9')) digits = at;
    if (!digits) return false;
    *value = strtoll(digits, NULL, 10);
    return true;
}

typedef struct question_list {
    mm_arena arena;
    mm_sample *samples;    // prompt and, later, answer
    const char **expected; // what a right answer holds
    size_t n;
    char sha256[MM_SHA256_HEX_BYTES];
} question_list;

static void drop_questions(question_list *list)
{
    for (size_t i = 0; list->samples && i < list->n; i++)
        mm_str_drop(&list->samples[i].text);
    mm_free(list->samples);
    mm_arena_drop(&list->arena);
}

static mm_status add_question(question_list *list, const mm_row *row, const char *path, mm_err *err)
{
    const char *expected = json_string_value(json_array_get(row->gt, 0));
    if (row->kind != MM_ROW_CHAT || !expected || strcmp(row->chat.messages[0].role, "user") != 0)
        return MM_FAIL(err, MM_EFORMAT, "%s:%lld: expected a question with its \"gt\"", path,
                       (long long)row->line);
    list->samples[list->n].prompt = mm_arena_strdup(&list->arena, row->chat.messages[0].content);
    list->expected[list->n] = mm_arena_strdup(&list->arena, expected);
    if (!list->samples[list->n].prompt || !list->expected[list->n])
        return MM_FAIL(err, MM_ENOMEM, "%s: no memory for its questions", path);
    list->n++;
    return MM_OK;
}

static mm_status read_questions(question_list *list, const char *path, int64_t limit, mm_err *err)
{
    mm_status status = MM_OK;
    mm_row_reader *reader = NULL;
    uint8_t digest[MM_SHA256_BYTES];
    uint64_t bytes;
    *list = (question_list){.n = 0};
    list->samples = mm_calloc((size_t)limit, sizeof *list->samples);
    list->expected = mm_arena_alloc(&list->arena, (size_t)limit * sizeof *list->expected);
    if (!list->samples || !list->expected)
        return MM_FAIL(err, MM_ENOMEM, "%s: no memory for its questions", path);
    MM_GO(mm_sha256_file(path, digest, &bytes, err));
    mm_sha256_hex(digest, list->sha256);
    MM_GO(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, err));
    while ((int64_t)list->n < limit) {
        const mm_row *row;
        MM_GO(mm_row_reader_next(reader, &row, err));
        if (!row) break;
        MM_GO(add_question(list, row, path, err));
    }
done:
    mm_row_reader_close(reader);
    return status;
}

static mm_status ask(const mm_loaded *loaded, int32_t threads, question_list *list, mm_err *err)
{
    mm_generator *generator = NULL;
    mm_sampling sampling = mm_sampling_default();
    sampling.temperature = 0;
    sampling.max_new_tokens = ANSWER_TOKENS;
    MM_TRY(mm_sample_generator(&generator, loaded->model, list->n, CONTEXT_TOKENS, threads,
                               mm_loaded_dtype(loaded, NULL), err));
    const mm_status status = mm_sample_texts(generator, CONTEXT_TOKENS, loaded->tokenizer,
                                             mm_sample_style_of(loaded->run.stage), list->samples,
                                             list->n, &sampling, err);
    mm_generator_free(generator);
    return status;
}

static bool is_exact(const char *answer, const char *expected)
{
    long long value;
    return last_number(answer, &value) && value == strtoll(expected, NULL, 10);
}

static bool is_named(const char *answer, const char *expected)
{
    return strstr(answer, expected) != NULL;
}

static bool is_same_script(const char *answer, const char *question)
{
    return script_of(answer) == script_of(question);
}

static mm_status record_share(mm_store *store, const mm_loaded *loaded, const question_list *list,
                              const char *task, const char *metric, mm_share share, mm_err *err)
{
    const mm_interval interval = mm_wilson_interval(share.correct, share.n);
    const mm_result result = {.run_id = loaded->run.id,
                              .step = loaded->checkpoint.step,
                              .task = task,
                              .metric = metric,
                              .value = (double)share.correct / (double)share.n,
                              .low = interval.low,
                              .high = interval.high,
                              .n = share.n,
                              .correct = share.correct,
                              .data_sha256 = list->sha256};
    return mm_store_result_add(store, &result, err);
}

// A few answers to look at; all are counted.
static mm_status record_answers(mm_store *store, const mm_loaded *loaded, const question_list *list,
                                const char *task, bool (*is_right)(const char *, const char *),
                                mm_err *err)
{
    for (size_t i = 0; i < list->n && i < ANSWERS_KEPT; i++) {
        const mm_sample *sample = &list->samples[i];
        const char *text = mm_str_text(&sample->text);
        const mm_generation_row row = {.run_id = loaded->run.id,
                                       .step = loaded->checkpoint.step,
                                       .prompt_idx = (int32_t)i,
                                       .prompt = sample->prompt,
                                       .text = text,
                                       .tokens = sample->generation.n_tokens,
                                       .finish_reason = mm_finish_text(sample->generation.finish),
                                       .top_p = 1,
                                       .task = task,
                                       .expected = list->expected[i],
                                       .is_correct = is_right(text, list->expected[i])};
        MM_TRY(mm_store_generation_add(store, &row, err));
    }
    return MM_OK;
}

static void count_right(const question_list *list, bool (*is_right)(const char *, const char *),
                        mm_share *share)
{
    *share = (mm_share){.n = (int64_t)list->n};
    for (size_t i = 0; i < list->n; i++)
        share->correct += is_right(mm_str_text(&list->samples[i].text), list->expected[i]);
}

static mm_status score_arithmetic(mm_store *store, const mm_loaded *loaded,
                                  const mm_demo_questions *questions, mm_demo_score *out,
                                  mm_err *err)
{
    static const char TASK[] = "arithmetic";
    question_list list;
    mm_status status = MM_OK;
    MM_GO(read_questions(&list, questions->arithmetic, questions->limit, err));
    MM_GO(ask(loaded, questions->threads, &list, err));
    count_right(&list, is_exact, &out->exact);
    out->language = (mm_share){.n = (int64_t)list.n};
    for (size_t i = 0; i < list.n; i++)
        out->language.correct +=
            is_same_script(mm_str_text(&list.samples[i].text), list.samples[i].prompt);
    MM_GO(record_share(store, loaded, &list, TASK, "exact_match", out->exact, err));
    MM_GO(record_share(store, loaded, &list, TASK, "language_match", out->language, err));
    MM_GO(record_answers(store, loaded, &list, TASK, is_exact, err));
done:
    drop_questions(&list);
    return status;
}

static mm_status score_persona(mm_store *store, const mm_loaded *loaded,
                               const mm_demo_questions *questions, mm_demo_score *out, mm_err *err)
{
    static const char TASK[] = "persona";
    question_list list;
    mm_status status = MM_OK;
    MM_GO(read_questions(&list, questions->persona, questions->limit, err));
    MM_GO(ask(loaded, questions->threads, &list, err));
    count_right(&list, is_named, &out->named);
    MM_GO(record_share(store, loaded, &list, TASK, "name_match", out->named, err));
    MM_GO(record_answers(store, loaded, &list, TASK, is_named, err));
done:
    drop_questions(&list);
    return status;
}

mm_status mm_demo_score_run(mm_store *store, const char *run, const mm_demo_questions *questions,
                            mm_demo_score *out, mm_err *err)
{
    mm_loaded loaded;
    *out = (mm_demo_score){.exact = {0}};
    mm_status status = mm_load_run(&loaded, store, run, err);
    if (status == MM_OK) status = score_arithmetic(store, &loaded, questions, out, err);
    if (status == MM_OK) status = score_persona(store, &loaded, questions, out, err);
    mm_loaded_drop(&loaded);
    return status;
}
