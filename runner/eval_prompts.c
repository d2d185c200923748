/* mmrun eval --prompts: answers to the prompts of a file, recorded side by side for every stage,
 * and scored where the right answer is known. Of all it is counted how many are in the language of
 * their prompt, as far as the script tells.
 *
 * The file holds a prompt per line, rows {"prompt": TEXT, "expected"?: TEXT or number}, or
 * conversations {"conversations": [{"role": "user", "content": TEXT}, …], "gt"?: [TEXT]}. */
#include "runner/eval_parts.h"
#include "runner/match.h"

#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/data/records.h"
#include "runner/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PROMPTS_MAX = 1000000, PROMPTS_AT_A_TIME = 256 }; // answered and recorded together

typedef struct prompt_list {
    mm_arena arena; // of the prompts
    mm_sample *samples;
    const char **expected; // NULL: none
    size_t count;
    size_t capacity;
    int64_t n_expected;
    char sha256[MM_SHA256_HEX_BYTES];
} prompt_list;

static void drop_prompts(prompt_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mm_str_drop(&list->samples[i].text);
    mm_free(list->samples);
    mm_free(list->expected);
    mm_arena_drop(&list->arena);
}

static mm_status grow(prompt_list *list, mm_err *err)
{
    if (list->count == PROMPTS_MAX)
        return MM_FAIL(err, MM_ELIMIT, "more than %d prompts", PROMPTS_MAX);
    if (list->count < list->capacity) return MM_OK;
    const size_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
    mm_sample *samples = mm_realloc(list->samples, capacity * sizeof *samples);
    if (samples) list->samples = samples;
    const char **expected = mm_realloc((void *)list->expected, capacity * sizeof *expected);
    if (expected) list->expected = expected;
    if (!samples || !expected)
        return MM_FAIL(err, MM_ENOMEM, "no memory for %zu prompts", capacity);
    list->capacity = capacity;
    return MM_OK;
}

static mm_status add_prompt(prompt_list *list, const char *prompt, size_t length,
                            const char *expected, mm_err *err)
{
    MM_TRY(grow(list, err));
    mm_sample *sample = &list->samples[list->count];
    *sample = (mm_sample){.prompt = mm_arena_strndup(&list->arena, prompt, length)};
    list->expected[list->count] = mm_arena_strdup(&list->arena, expected);
    if (!sample->prompt || (expected && !list->expected[list->count]))
        return MM_FAIL(err, MM_ENOMEM, "no memory for prompts");
    list->count++;
    list->n_expected += expected != NULL;
    return MM_OK;
}

// The expected answer as text; a number as it would be written.
static mm_status expected_text(const json_t *value, mm_str *out, const char **text, mm_err *err)
{
    *text = json_string_value(value);
    if (*text || !value || json_is_null(value)) return MM_OK;
    if (json_is_integer(value))
        mm_str_addf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        mm_json_add_number(out, json_real_value(value));
    else
        return MM_FAIL(err, MM_EFORMAT, "expected: a text or a number is expected here");
    *text = mm_str_text(out);
    return mm_str_check(out, err);
}

static mm_status read_pair(const json_t *root, const char **prompt, const json_t **right,
                           mm_err *err)
{
    *prompt = json_string_value(json_object_get(root, "prompt"));
    *right = json_object_get(root, "expected");
    if (*prompt && **prompt) return MM_OK;
    return MM_FAIL(err, MM_EFORMAT, "prompt: expected a text, as in {\"prompt\": \"…\"}");
}

// The first question of a conversation; its right answer is the first of "gt".
static mm_status read_conversation(const json_t *root, const char **prompt, const json_t **right,
                                   mm_err *err)
{
    const json_t *first = json_array_get(json_object_get(root, "conversations"), 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    *prompt = json_string_value(json_object_get(first, "content"));
    *right = json_array_get(json_object_get(root, "gt"), 0);
    if (role && strcmp(role, "user") == 0 && *prompt && **prompt) return MM_OK;
    return MM_FAIL(err, MM_EFORMAT, "conversations: expected a user's question at their beginning");
}

static mm_status add_row(prompt_list *list, const json_t *root, mm_err *err)
{
    const char *prompt = NULL;
    const char *expected = NULL;
    const json_t *right = NULL;
    mm_str number = {0};
    mm_status status = MM_OK;
    MM_TRY(json_object_get(root, "conversations") ? read_conversation(root, &prompt, &right, err)
                                                  : read_pair(root, &prompt, &right, err));
    MM_GO(expected_text(right, &number, &expected, err));
    MM_GO(add_prompt(list, prompt, strlen(prompt), expected, err));
done:
    mm_str_drop(&number);
    return status;
}

static mm_status add_record(prompt_list *list, const mm_record *record, bool is_json, mm_err *err)
{
    if (record->is_too_long) return MM_FAIL(err, MM_ELIMIT, "longer than 16 MiB");
    if (!is_json) {
        if (mm_utf8_valid(record->data, record->bytes) != record->bytes)
            return MM_FAIL(err, MM_EFORMAT, "not valid UTF-8");
        return record->bytes > 0 ? add_prompt(list, record->data, record->bytes, NULL, err) : MM_OK;
    }
    json_t *root = NULL;
    mm_err bad = {0};
    if (mm_json_parse(record->data, record->bytes, "the row", &root, &bad) != MM_OK)
        return MM_FAIL(err, MM_EFORMAT, "%s", bad.message);
    const mm_status status = add_row(list, root, err);
    json_decref(root);
    return status;
}

static mm_status read_prompts(prompt_list *list, const char *path, int64_t limit, mm_err *err)
{
    const size_t length = strlen(path);
    const bool is_text = length > 4 && strcmp(path + length - 4, ".txt") == 0;
    mm_records *records = NULL;
    mm_record record;
    uint8_t digest[MM_SHA256_BYTES];
    uint64_t bytes = 0;
    bool more = true;
    bool is_json = false;
    bool is_first = true;
    mm_status status = MM_OK;
    MM_GO(mm_records_open(&records, path, is_text ? MM_RECORDS_LINES : MM_RECORDS_JSON, err));
    while (limit == 0 || (int64_t)list->count < limit) {
        MM_GO(mm_records_next(records, &record, &more, err));
        if (!more) break;
        if (is_first && !is_text)
            is_json = mm_records_is_array(records) || (record.bytes > 0 && record.data[0] == '{');
        is_first = false;
        status = add_record(list, &record, is_json, err);
        if (status == MM_OK) continue;
        mm_err_context(err, "%s line %" PRId64, path, record.number);
        goto done;
    }
    if (list->count == 0) status = MM_FAIL(err, MM_EFORMAT, "%s: there is no prompt in it", path);
    if (status == MM_OK) status = mm_sha256_file(path, digest, &bytes, err);
    if (status == MM_OK) mm_sha256_hex(digest, list->sha256);
done:
    mm_records_close(records);
    return status;
}

/* ---- answers -----------------------------------------------------------------------------------
 */

// A line of its own for each: a line's end within is written as it would be in C.
static void add_in_line(mm_str *out, const char *text, size_t length)
{
    const char *end = text + length;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        mm_utf8_add_printable(out, text, (size_t)((stop ? stop : end) - text));
        if (stop) mm_str_add(out, "\\n");
        text = stop ? stop + 1 : end;
    }
}

static void show_answer(const mm_eval *eval, const mm_sample *sample, const char *expected,
                        bool is_correct)
{
    mm_str shown = {0};
    add_in_line(&shown, sample->prompt, strlen(sample->prompt));
    mm_str_add(&shown, " → ");
    add_in_line(&shown, mm_str_text(&sample->text), sample->text.length);
    mm_out_text(&shown);
    mm_str_drop(&shown);
    if (expected) {
        mm_out_color(eval->context, is_correct ? MM_COLOR_GREEN : MM_COLOR_RED);
        if (is_correct)
            mm_out("  [right]");
        else
            mm_out("  [wrong: %s]", expected);
        mm_out_color(eval->context, MM_COLOR_NONE);
    }
    mm_out("\n");
}

typedef struct answering {
    mm_eval *eval;
    prompt_list *list;
    const char *task;
    mm_sampling sampling;
    mm_match_kind match;
    int64_t correct;
    int64_t n_scripts;   // prompts with letters
    int64_t same_script; // of them, answered in theirs
    json_t *answers;
} answering;

// Verifies, records and shows one answer.
static mm_status keep_answer(answering *a, size_t i, mm_err *err)
{
    const mm_eval *eval = a->eval;
    const mm_sample *sample = &a->list->samples[i];
    const char *expected = a->list->expected[i];
    const char *text = mm_str_text(&sample->text);
    bool is_correct = false;
    if (expected) {
        const mm_status status = mm_match(a->match, text, expected, &is_correct, err);
        if (status != MM_OK) {
            mm_err_context(err, "prompt %zu", i + 1);
            return status;
        }
    }
    const mm_script script = mm_script_of(sample->prompt);
    a->n_scripts += script != MM_SCRIPT_NONE;
    a->same_script += script != MM_SCRIPT_NONE && mm_script_of(text) == script;
    a->correct += is_correct;
    mm_generation_row row = mm_sample_row(sample->prompt, text, &a->sampling, &sample->generation);
    row.run_id = eval->loaded.run.id;
    row.step = eval->loaded.checkpoint.step;
    row.prompt_idx = (int32_t)i;
    row.task = a->task;
    row.expected = expected;
    if (expected) row.is_correct = is_correct;
    if (eval->records) MM_TRY(mm_store_generation_add(eval->store, &row, err));
    if (!eval->context->json) show_answer(eval, sample, expected, is_correct);
    json_t *answer = json_pack("{s:s,s:s,s:i,s:s}", "prompt", sample->prompt, "text", text,
                               "tokens", sample->generation.n_tokens, "finish_reason",
                               mm_finish_text(sample->generation.finish));
    if (expected) {
        json_object_set_new(answer, "expected", json_string(expected));
        json_object_set_new(answer, "correct", json_boolean(is_correct));
    }
    json_array_append_new(a->answers, answer);
    return MM_OK;
}

static mm_status answer_all(answering *a, mm_err *err)
{
    const mm_loaded *loaded = &a->eval->loaded;
    const prompt_list *list = a->list;
    mm_generator *generator = NULL;
    mm_progress *progress = NULL;
    mm_status status = MM_OK;
    const int32_t limit = mm_model_config_of(loaded->model)->max_position_embeddings;
    const int32_t trained = (int32_t)mm_config_int(loaded->config, "max_seq_len");
    const int32_t wanted = a->sampling.max_new_tokens;
    const int32_t room = wanted < limit - trained ? trained + wanted : limit;
    MM_GO(mm_sample_generator(&generator, loaded->model, list->count, room,
                              (int32_t)mm_args_int(a->eval->args, "threads", 0),
                              mm_eval_dtype(a->eval), err));
    MM_GO(mm_progress_new(&progress, a->eval->context, loaded->run.name, err));
    for (size_t first = 0; first < list->count; first += PROMPTS_AT_A_TIME) {
        const size_t left = list->count - first;
        const size_t n = left < PROMPTS_AT_A_TIME ? left : PROMPTS_AT_A_TIME;
        MM_GO(mm_sample_texts(generator, room, loaded->tokenizer, mm_eval_style(a->eval),
                              list->samples + first, n, &a->sampling, err));
        for (size_t i = first; i < first + n; i++)
            MM_GO(keep_answer(a, i, err));
        mm_progress_count(progress, first + n, list->count, "prompts");
    }
done:
    mm_progress_end(progress);
    mm_generator_free(generator);
    return status;
}

static mm_status settle(answering *a, mm_err *err)
{
    static const char *const METRICS[] = {"exact_match", "contains_match", "number_match"};
    static const char *const NAMES[] = {"exact", "contains", "number"};
    const prompt_list *list = a->list;
    json_object_set(a->eval->json, "generations", a->answers);
    if (list->n_expected > 0) {
        json_object_set_new(a->eval->json, "prompts",
                            json_pack("{s:s,s:s,s:I,s:I}", "task", a->task, "match",
                                      NAMES[a->match], "n", (json_int_t)list->n_expected, "correct",
                                      (json_int_t)a->correct));
        MM_TRY(mm_eval_add_share(a->eval, a->task, METRICS[a->match], a->correct, list->n_expected,
                                 list->sha256, err));
    }
    if (a->n_scripts == 0) return MM_OK;
    return mm_eval_add_share(a->eval, a->task, "language_match", a->same_script, a->n_scripts,
                             list->sha256, err);
}

mm_status mm_eval_prompts(mm_eval *eval, mm_err *err)
{
    const char *path = mm_args_text(eval->args, "prompts");
    const char *match = mm_args_text(eval->args, "match");
    prompt_list list = {0};
    answering a = {.eval = eval,
                   .list = &list,
                   .task = mm_eval_task(path),
                   .sampling = mm_sampling_default(),
                   .answers = json_array()};
    mm_status status = MM_OK;
    if (match) MM_GO(mm_match_kind_parse(match, &a.match, err));
    MM_GO(read_prompts(&list, path, mm_args_int(eval->args, "limit", 0), err));
    // What is verified is the likeliest answer.
    a.sampling.temperature =
        mm_args_real(eval->args, "temperature", list.n_expected > 0 ? 0 : a.sampling.temperature);
    a.sampling.max_new_tokens = (int32_t)mm_args_int(eval->args, "max-new-tokens", 64);
    a.sampling.seed = eval->loaded.run.seed;
    MM_GO(answer_all(&a, err));
    MM_GO(settle(&a, err));
done:
    json_decref(a.answers);
    drop_prompts(&list);
    return status;
}
