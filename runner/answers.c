/* Answers to a file of prompts. The prompts are read twice: once to count them and to find what is
 * wrong before anything is computed, once to answer them, a piece at a time. */
#include "runner/answers.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/rng.h"
#include "runner/dialogue.h"
#include "runner/progress.h"
#include "runner/prompts.h"
#include "runner/signals.h"

#include <inttypes.h>
#include <string.h>

/* Prompts of one piece: rows of the generator stand idle at the end of each while the last answers
 * are finished, and what is not flushed is lost with the process. */
enum { PIECE_PROMPTS = 256 };

static const char ROW_END[] = "}]}\n";
static const char REPLACEMENT[] = "\xEF\xBF\xBD"; // U+FFFD

// One prompt of the piece. Offsets, since the buffers move while they grow.
typedef struct waiting {
    size_t ids_begin;
    size_t head_begin; // of its row, up to the text of the answer
    size_t head_end;
    char *question; // last words, for the record
} waiting;

typedef struct writing {
    const mm_context *context;
    const mm_loaded *loaded;
    const mm_answers_request *request;
    mm_answers *counts;
    mm_prompt_reader *reader;
    const mm_prompt_row *held; // read, but not used yet
    mm_generator *generator;
    mm_file_appender out;
    mm_progress *progress;
    mm_ids ids;
    mm_str heads;
    mm_str rows;
    waiting waiting[PIECE_PROMPTS];
    mm_prompt prompts[PIECE_PROMPTS];
    mm_sample samples[PIECE_PROMPTS];
    size_t n;        // prompts of the piece
    int64_t first;   // number of its first prompt
    int32_t started; // prompts of the piece that rows have taken
} writing;

static mm_status open_prompts(const mm_answers_request *request, mm_prompt_reader **out,
                              mm_err *err)
{
    const bool is_chat = request->style == MM_SAMPLE_CHAT;
    return mm_prompt_reader_open(out, request->prompts_path, is_chat ? request->system : NULL, err);
}

static mm_status count_prompts(const mm_context *context, const mm_answers_request *request,
                               int64_t *total, mm_err *err)
{
    mm_status status = MM_OK;
    mm_prompt_reader *reader = NULL;
    const mm_prompt_row *row = NULL;
    *total = 0;
    MM_GO(open_prompts(request, &reader, err));
    do {
        MM_GO(mm_prompt_reader_next(reader, &row, err));
        if (row) ++*total;
    } while (row);
    MM_GO(mm_row_report_check(mm_prompt_reader_report(reader), request->prompts_path, false, err));
    if (mm_prompt_reader_idle(reader) > 0)
        mm_say(context, "%s: %" PRId64 " rows ask nothing and are left out", request->prompts_path,
               mm_prompt_reader_idle(reader));
    if (*total == 0)
        status = MM_FAIL(err, MM_EFORMAT, "%s: no prompts in it", request->prompts_path);
    if (request->limit > 0 && *total > request->limit) *total = request->limit;
done:
    mm_prompt_reader_close(reader);
    return status;
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text) json_object_set_new(object, key, json_string(text));
}

static const char *last_words(const mm_conversation *chat)
{
    return chat->messages[chat->count - 1].content;
}

static json_t *json_of_message(const mm_message *message)
{
    json_t *turn = json_object();
    set_text(turn, "role", message->role);
    set_text(turn, "reasoning_content", message->reasoning_content);
    set_text(turn, "content", message->content);
    // The row holds a reference; the calls are not changed.
    if (message->tool_calls)
        json_object_set(turn, "tool_calls", (json_t *)(uintptr_t)message->tool_calls);
    return turn;
}

/* Appends a row up to the quote in front of which the answer's JSON text goes:
 * {"conversations":[…,{"role":"assistant","content": */
static mm_status add_head(mm_str *out, const mm_answers_request *request, const mm_prompt_row *row,
                          mm_err *err)
{
    mm_conversation chat = row->chat;
    if (request->style == MM_SAMPLE_TEXT) { // the one turn that the model saw
        chat.messages += chat.count - 1;
        chat.count = 1;
    }
    json_t *turns = json_array();
    for (size_t i = 0; i < chat.count; i++)
        json_array_append_new(turns, json_of_message(&chat.messages[i]));
    const bool is_complete = json_array_size(turns) == chat.count;
    mm_str_add_char(out, '{');
    if (row->gt) {
        mm_str_add(out, "\"gt\":");
        mm_json_write(row->gt, out);
        mm_str_add_char(out, ',');
    }
    if (chat.tools) {
        mm_str_add(out, "\"tools\":");
        mm_json_write(chat.tools, out);
        mm_str_add_char(out, ',');
    }
    mm_str_add(out, "\"conversations\":");
    if (turns) mm_json_write(turns, out);
    json_decref(turns);
    if (!is_complete) return MM_FAIL(err, MM_ENOMEM, "no memory for a row");
    MM_TRY(mm_str_check(out, err));
    out->length--; // the bracket that closes the turns
    mm_str_add(out, ",{\"role\":\"assistant\",\"content\":");
    return mm_str_check(out, err);
}

static mm_status next_prompt(writing *w, const mm_prompt_row **row, mm_err *err)
{
    *row = w->held;
    w->held = NULL;
    return *row ? MM_OK : mm_prompt_reader_next(w->reader, row, err);
}

// Whether a line of the output, or what was written of it, belongs to the prompt.
static mm_status check_kept(writing *w, const mm_prompt_row *row, const char *line, size_t length,
                            bool is_whole, mm_err *err)
{
    mm_str_clear(&w->heads);
    MM_TRY(add_head(&w->heads, w->request, row, err));
    const size_t compared = !is_whole && length < w->heads.length ? length : w->heads.length;
    if (compared <= length && memcmp(line, mm_str_text(&w->heads), compared) == 0) return MM_OK;
    return MM_FAIL(
        err, MM_EEXISTS,
        "%s: line %" PRId64 " is no answer to prompt %" PRId64 " of %s\nAnother -o starts anew",
        w->request->out_path, w->counts->kept + 1, w->counts->kept + 1, w->request->prompts_path);
}

/* How far the output is: checks that each row there answers its prompt, which steps the reader over
 * it, and finds where the last whole row ends. */
static mm_status keep_rows(writing *w, const mm_file_map *map, uint64_t *keep, mm_err *err)
{
    const char *data = (const char *)map->data;
    size_t at = 0;
    while (at < map->bytes) {
        const char *newline = memchr(data + at, '\n', map->bytes - at);
        const size_t length = newline ? (size_t)(newline - data) - at : map->bytes - at;
        const mm_prompt_row *row = NULL;
        if (w->counts->kept < w->counts->total) MM_TRY(next_prompt(w, &row, err));
        if (!row)
            return MM_FAIL(err, MM_EEXISTS,
                           "%s: has more rows than the %" PRId64 " prompts of %s\nAnother -o "
                           "starts anew",
                           w->request->out_path, w->counts->total, w->request->prompts_path);
        MM_TRY(check_kept(w, row, data + at, length, newline, err));
        if (!newline) {
            w->held = row;
            break;
        }
        at += length + 1;
        w->counts->kept++;
    }
    *keep = at;
    return MM_OK;
}

static mm_status open_output(writing *w, mm_err *err)
{
    mm_status status = MM_OK;
    mm_file_map map = {0};
    uint64_t keep = 0;
    const char *path = w->request->out_path;
    if (mm_file_exists(path)) {
        MM_GO(mm_file_map_open(&map, path, err));
        MM_GO(keep_rows(w, &map, &keep, err));
    }
    MM_GO(mm_file_appender_open(&w->out, path, keep, err));
done:
    mm_file_map_drop(&map);
    return status;
}

static uint64_t seed_of(uint64_t seed, int64_t prompt)
{
    uint32_t drawn[4];
    mm_philox(seed, MM_RNG_SAMPLE, (uint64_t)prompt, UINT64_MAX, drawn);
    return (uint64_t)drawn[0] << 32 | drawn[1];
}

static mm_status add_ids(writing *w, const mm_prompt_row *row, mm_err *err)
{
    const mm_answers_request *request = w->request;
    const mm_tokenizer *tokenizer = w->loaded->tokenizer;
    const int32_t most = request->room - request->sampling.max_new_tokens;
    if (request->style == MM_SAMPLE_CHAT) {
        int32_t dropped = 0;
        const mm_chat_options options = {.open_thinking = request->open_thinking};
        MM_TRY(mm_dialogue_ids(tokenizer, &row->chat, &options, most, &w->ids, &dropped, err));
        w->counts->shortened += dropped != 0;
        return MM_OK;
    }
    bool is_cut = false;
    MM_TRY(mm_text_ids(tokenizer, last_words(&row->chat), most, &w->ids, &is_cut, err));
    w->counts->shortened += is_cut;
    return MM_OK;
}

static mm_status add_waiting(writing *w, const mm_prompt_row *row, mm_err *err)
{
    waiting *next = &w->waiting[w->n];
    *next = (waiting){.ids_begin = w->ids.count, .head_begin = w->heads.length};
    const mm_status status = add_ids(w, row, err);
    if (status != MM_OK) {
        mm_err_context(err, "%s line %" PRId64, w->request->prompts_path, row->line);
        return status;
    }
    MM_TRY(add_head(&w->heads, w->request, row, err));
    next->head_end = w->heads.length;
    next->question = mm_strdup(last_words(&row->chat));
    if (!next->question) return MM_FAIL(err, MM_ENOMEM, "no memory for a prompt");
    w->n++;
    return MM_OK;
}

static void drop_piece(writing *w)
{
    for (size_t i = 0; i < w->n; i++) {
        mm_str_drop(&w->samples[i].text);
        mm_free(w->waiting[i].question);
    }
    memset(w->samples, 0, sizeof w->samples);
    w->ids.count = 0;
    mm_str_clear(&w->heads);
    w->first += (int64_t)w->n;
    w->n = 0;
    w->started = 0;
}

static mm_status fill_piece(writing *w, mm_err *err)
{
    const int64_t left = w->counts->total - w->first;
    const size_t wanted = left < PIECE_PROMPTS ? (size_t)left : PIECE_PROMPTS;
    mm_str_clear(&w->heads);
    while (w->n < wanted) {
        const mm_prompt_row *row = NULL;
        MM_TRY(next_prompt(w, &row, err));
        if (!row)
            return MM_FAIL(err, MM_EFORMAT, "%s: changed while it was read",
                           w->request->prompts_path);
        MM_TRY(add_waiting(w, row, err));
    }
    for (size_t i = 0; i < w->n; i++) {
        const size_t end = i + 1 < w->n ? w->waiting[i + 1].ids_begin : w->ids.count;
        w->prompts[i] =
            (mm_prompt){.ids = w->ids.data + w->waiting[i].ids_begin,
                        .count = (int32_t)(end - w->waiting[i].ids_begin),
                        .seed = seed_of(w->request->sampling.seed, w->first + (int64_t)i)};
    }
    return MM_OK;
}

// Rows that were there already took no time: rate and rest are of this call.
static void show_progress(const writing *w, int64_t answered)
{
    const int64_t kept = w->counts->kept;
    mm_progress_count(w->progress, (uint64_t)(answered - kept), (uint64_t)(w->counts->total - kept),
                      "answers");
}

// Prompts that began and have left their rows again are answered.
static bool on_token(void *context, int32_t prompt_idx)
{
    writing *w = context;
    const int32_t at_once = mm_generator_rows(w->generator);
    w->counts->tokens++;
    if (prompt_idx >= w->started) {
        w->started = prompt_idx + 1;
        show_progress(w, w->first + (w->started > at_once ? w->started - at_once : 0));
    }
    return mm_signals_stop() == 0;
}

// A NUL would end the text for readers that hold it as a C string.
static void add_answer(mm_str *out, const mm_str *text, bool open_thinking)
{
    mm_str clean = {0};
    if (open_thinking) mm_str_add(&clean, "<think>\n");
    const char *data = mm_str_text(text);
    for (size_t at = 0; at < text->length;) {
        const size_t length = strlen(data + at);
        mm_str_add_bytes(&clean, data + at, length);
        at += length;
        if (at++ < text->length) mm_str_add(&clean, REPLACEMENT);
    }
    json_t *value = json_stringn(mm_str_text(&clean), clean.length);
    if (value) {
        mm_json_write(value, out);
    } else if (out->status == MM_OK) {
        out->status = MM_ENOMEM; // the text is valid: a stream of decoding made it
    }
    json_decref(value);
    mm_str_drop(&clean);
}

static mm_status record(const writing *w, size_t i, mm_err *err)
{
    mm_sampling sampling = w->request->sampling;
    sampling.seed = w->prompts[i].seed;
    return mm_sample_record(w->request->store, w->loaded->run.id, w->loaded->checkpoint.step,
                            (int32_t)(w->first + (int64_t)i), w->waiting[i].question,
                            &w->samples[i].text, &sampling, &w->samples[i].generation, err);
}

// Writes the answers up to the first that a signal cut off.
static mm_status write_piece(writing *w, mm_err *err)
{
    size_t n = 0;
    mm_str_clear(&w->rows);
    for (; n < w->n && w->samples[n].generation.finish != MM_FINISH_CANCELED; n++) {
        const waiting *row = &w->waiting[n];
        const mm_generation *done = &w->samples[n].generation;
        mm_str_add_bytes(&w->rows, w->heads.data + row->head_begin,
                         row->head_end - row->head_begin);
        add_answer(&w->rows, &w->samples[n].text, w->request->open_thinking);
        mm_str_add(&w->rows, ROW_END);
        w->counts->cut += done->finish == MM_FINISH_LENGTH;
        w->counts->empty += done->n_tokens == 0;
    }
    MM_TRY(mm_str_check(&w->rows, err));
    MM_TRY(mm_file_appender_add(&w->out, mm_str_text(&w->rows), w->rows.length, err));
    w->counts->written += (int64_t)n;
    for (size_t i = 0; i < n && w->request->store; i++)
        MM_TRY(record(w, i, err));
    if (mm_signals_stop() != 0)
        return MM_FAIL(err, MM_ECANCELED,
                       "stopped by signal %d after %" PRId64 " of %" PRId64
                       " answers\nThe same command goes on from there",
                       mm_signals_stop(), w->counts->kept + w->counts->written, w->counts->total);
    return MM_OK;
}

static mm_status answer_all(writing *w, mm_err *err)
{
    const mm_answers_request *request = w->request;
    const int64_t left = w->counts->total - w->counts->kept;
    const int64_t start_ns = mm_mono_ns();
    w->first = w->counts->kept;
    if (left == 0) return MM_OK;
    const size_t at_once =
        request->rows > 0 && request->rows < left ? (size_t)request->rows : (size_t)left;
    MM_TRY(mm_sample_generator(&w->generator, w->loaded->model, at_once, request->room,
                               request->threads, request->dtype, err));
    MM_TRY(mm_progress_new(&w->progress, w->context, w->loaded->run.name, err));
    while (w->first < w->counts->total) {
        MM_TRY(fill_piece(w, err));
        MM_TRY(mm_sample_prompts(w->generator, w->loaded->tokenizer, w->prompts, w->samples, w->n,
                                 &request->sampling, on_token, w, err));
        MM_TRY(write_piece(w, err));
        drop_piece(w);
        w->counts->seconds = (double)(mm_mono_ns() - start_ns) * 1e-9;
        show_progress(w, w->first);
    }
    return MM_OK;
}

mm_status mm_answers_write(const mm_context *context, const mm_loaded *loaded,
                           const mm_answers_request *request, mm_answers *out, mm_err *err)
{
    mm_status status = MM_OK;
    *out = (mm_answers){0};
    writing *w = mm_calloc(1, sizeof *w);
    if (!w) return MM_FAIL(err, MM_ENOMEM, "no memory for prompts");
    *w = (writing){.context = context, .loaded = loaded, .request = request, .counts = out};
    MM_ASSERT(request->room > request->sampling.max_new_tokens);
    MM_GO(count_prompts(context, request, &out->total, err));
    MM_GO(open_prompts(request, &w->reader, err));
    MM_GO(open_output(w, err));
    if (out->kept > 0)
        mm_say(context, "%s: %" PRId64 " of %" PRId64 " answers are there already",
               request->out_path, out->kept, out->total);
    MM_GO(answer_all(w, err));
done:
    mm_progress_end(w->progress);
    drop_piece(w);
    mm_str_drop(&w->rows);
    mm_str_drop(&w->heads);
    mm_ids_drop(&w->ids);
    mm_file_appender_drop(&w->out);
    mm_generator_free(w->generator);
    mm_prompt_reader_close(w->reader);
    mm_free(w);
    return status;
}
