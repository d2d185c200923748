/* A conversation with a model. See chat_session.h.
 *
 * The prompt of a turn is rendered from the texts of the conversation, as training does it, not
 * put together from the ids that were drawn: so an answer depends on what was said alone, and a
 * saved conversation that is taken up again goes on alike. Where the model wrote a text in other
 * tokens than the tokenizer would, the rest of the row is read anew.
 */
#include "runner/chat_session.h"

#include "runner/dialogue.h"

#include <string.h>

enum { EXCHANGES_MAX = 100000 };

static const char THINK_OPEN[] = "<think>";
static const char THINK_CLOSE[] = "</think>";

struct mm_chat_session {
    const mm_tokenizer *tokenizer;
    mm_chat_session_options options;
    mm_generator *generator;
    char *system; // NULL: none
    mm_exchange *exchanges;
    size_t n_exchanges;
    size_t capacity;
    size_t first; // oldest exchange the model is shown
    int32_t think_open;
    int32_t think_close;
};

mm_status mm_chat_session_new(mm_chat_session **out, const mm_model *model,
                              const mm_tokenizer *tokenizer, const mm_chat_session_options *options,
                              mm_err *err)
{
    *out = NULL;
    if (options->style == MM_SAMPLE_CHAT && mm_tokenizer_id(tokenizer, "<|im_start|>") < 0)
        return MM_FAIL(err, MM_EUSAGE,
                       "the model's tokenizer has no <|im_start|>: it cannot hold a conversation\n"
                       "`mmrun generate RUN PROMPT` lets it write on from a text");
    const mm_generator_options how = {.max_tokens = options->max_tokens,
                                      .threads = options->threads,
                                      .bf16 = options->dtype == MM_BF16,
                                      .keeps_prefix = true};
    mm_chat_session *session = mm_calloc(1, sizeof *session);
    if (!session) return MM_FAIL(err, MM_ENOMEM, "no memory for a conversation");
    session->tokenizer = tokenizer;
    session->options = *options;
    session->think_open = mm_tokenizer_id(tokenizer, THINK_OPEN);
    session->think_close = mm_tokenizer_id(tokenizer, THINK_CLOSE);
    const mm_status status = mm_generator_new_batch(&session->generator, model, &how, err);
    if (status == MM_OK)
        *out = session;
    else
        mm_chat_session_free(session);
    return status;
}

static void drop_exchange(mm_exchange *exchange)
{
    mm_free(exchange->question);
    mm_free(exchange->reasoning);
    mm_free(exchange->answer);
    *exchange = (mm_exchange){0};
}

void mm_chat_session_reset(mm_chat_session *session)
{
    for (size_t i = 0; i < session->n_exchanges; i++)
        drop_exchange(&session->exchanges[i]);
    session->n_exchanges = 0;
    session->first = 0;
}

void mm_chat_session_free(mm_chat_session *session)
{
    if (!session) return;
    mm_chat_session_reset(session);
    mm_free(session->exchanges);
    mm_free(session->system);
    mm_generator_free(session->generator);
    mm_free(session);
}

mm_status mm_chat_session_set_system(mm_chat_session *session, const char *text, mm_err *err)
{
    char *copy = *text ? mm_strdup(text) : NULL;
    if (*text && !copy) return MM_FAIL(err, MM_ENOMEM, "no memory for the system turn");
    mm_free(session->system);
    session->system = copy;
    return MM_OK;
}

size_t mm_chat_session_count(const mm_chat_session *session) { return session->n_exchanges; }

char *mm_chat_session_take_back(mm_chat_session *session)
{
    if (session->n_exchanges == 0) return NULL;
    mm_exchange *last = &session->exchanges[--session->n_exchanges];
    char *question = last->question;
    last->question = NULL;
    drop_exchange(last);
    if (session->first > session->n_exchanges) session->first = session->n_exchanges;
    return question;
}

json_t *mm_chat_session_row(const mm_chat_session *session)
{
    json_t *turns = json_array();
    if (session->system)
        json_array_append_new(turns,
                              json_pack("{s:s,s:s}", "role", "system", "content", session->system));
    for (size_t i = 0; i < session->n_exchanges; i++) {
        const mm_exchange *exchange = &session->exchanges[i];
        json_array_append_new(
            turns, json_pack("{s:s,s:s}", "role", "user", "content", exchange->question));
        json_t *answer = json_pack("{s:s,s:s}", "role", "assistant", "content", exchange->answer);
        if (exchange->reasoning)
            json_object_set_new(answer, "reasoning_content", json_string(exchange->reasoning));
        json_array_append_new(turns, answer);
    }
    return json_pack("{s:o}", "conversations", turns);
}

/* ---- the prompt --------------------------------------------------------------------------------
 */

// The conversation that the model is shown, up to the question; `messages` holds all of it.
static mm_conversation visible(const mm_chat_session *session, const char *question,
                               mm_message *messages)
{
    size_t n = 0;
    if (session->system) messages[n++] = (mm_message){.role = "system", .content = session->system};
    for (size_t i = session->first; i < session->n_exchanges; i++) {
        const mm_exchange *exchange = &session->exchanges[i];
        messages[n++] = (mm_message){.role = "user", .content = exchange->question};
        messages[n++] = (mm_message){.role = "assistant",
                                     .content = exchange->answer,
                                     .reasoning_content = exchange->reasoning};
    }
    messages[n++] = (mm_message){.role = "user", .content = question};
    return (mm_conversation){.messages = messages, .count = n};
}

static mm_status add_ids(mm_chat_session *session, const mm_conversation *chat, int32_t room,
                         bool thinks, mm_ids *ids, size_t *n_forgotten, mm_err *err)
{
    const mm_chat_options options = {.generation_prompt = true, .open_thinking = thinks};
    int32_t dropped = 0;
    MM_TRY(mm_dialogue_ids(session->tokenizer, chat, &options, room, ids, &dropped, err));
    if (dropped > 0) {
        // Some room is made at once, else every further turn would move the context by a little
        // and all of it would be read anew each time.
        const int32_t exact = dropped;
        ids->count = 0;
        MM_TRY(mm_dialogue_ids(session->tokenizer, chat, &options, room - room / 4, ids, &dropped,
                               err));
        if (dropped < 0) {
            ids->count = 0;
            MM_TRY(mm_dialogue_ids(session->tokenizer, chat, &options, room, ids, &dropped, err));
            dropped = exact;
        }
    }
    if (dropped < 0)
        return MM_FAIL(err, MM_ELIMIT,
                       "the question does not fit: %d tokens are left beside the answer\n"
                       "a shorter question or system turn, or a smaller --max-new-tokens",
                       room);
    *n_forgotten = (size_t)dropped / 2;
    return MM_OK;
}

static mm_status make_prompt(mm_chat_session *session, const char *question, int32_t room,
                             bool thinks, mm_ids *ids, size_t *n_forgotten, mm_err *err)
{
    const int64_t history = session->options.history;
    if (history >= 0 && session->n_exchanges - session->first > (size_t)history)
        session->first = session->n_exchanges - (size_t)history;
    const size_t n = 2 * (session->n_exchanges - session->first) + 2;
    mm_message *messages = mm_calloc(n, sizeof *messages);
    if (!messages) return MM_FAIL(err, MM_ENOMEM, "no memory for %zu turns", n);
    const mm_conversation chat = visible(session, question, messages);
    const mm_status status = add_ids(session, &chat, room, thinks, ids, n_forgotten, err);
    mm_free(messages);
    return status;
}

/* ---- the answer --------------------------------------------------------------------------------
 */

typedef struct listener {
    const mm_chat_session *session;
    mm_decode_stream stream;
    mm_str raw;   // everything the model wrote, tags too
    size_t shown; // bytes of it that were handed on
    bool is_reasoning;
    bool has_begun; // the part that is being written has a character that is no newline
    mm_reply_fn on_text;
    void *context;
    mm_status status;
    mm_err *err;
} listener;

// Hands on what is new, without the empty lines that a part begins or ends with.
static bool hand_on(listener *l)
{
    const char *raw = mm_str_text(&l->raw);
    size_t end = l->raw.length;
    while (end > l->shown && raw[end - 1] == '\n')
        end--;
    while (!l->has_begun && l->shown < end && raw[l->shown] == '\n')
        l->shown++;
    if (end == l->shown) return true;
    const char *piece = raw + l->shown;
    const size_t bytes = end - l->shown;
    l->has_begun = true;
    l->shown = end;
    return !l->on_text || l->on_text(l->context, piece, bytes, l->is_reasoning);
}

static bool take_token(void *context, int32_t id)
{
    listener *l = context;
    const bool opens = id == l->session->think_open;
    if (opens || id == l->session->think_close) {
        mm_decode_stream_end(&l->stream, &l->raw);
        const bool goes_on = hand_on(l);
        mm_str_add(&l->raw, opens ? THINK_OPEN : THINK_CLOSE);
        l->shown = l->raw.length;
        l->is_reasoning = opens;
        l->has_begun = false;
        return goes_on;
    }
    l->status = mm_decode_stream_push(&l->stream, l->session->tokenizer, id, true, &l->raw, l->err);
    return l->status == MM_OK && hand_on(l);
}

static mm_status end_text(listener *l)
{
    MM_TRY(l->status);
    mm_decode_stream_end(&l->stream, &l->raw);
    hand_on(l);
    return mm_str_check(&l->raw, l->err);
}

static char *without_newlines(const char *text, size_t length)
{
    while (length > 0 && *text == '\n') {
        text++;
        length--;
    }
    while (length > 0 && text[length - 1] == '\n')
        length--;
    return mm_strndup(text, length);
}

// Parts what the model wrote as the template will read it: up to the first end of a think block,
// and behind the last one.
static mm_status part_answer(const char *raw, bool thinks, mm_exchange *out, mm_err *err)
{
    const char *close = strstr(raw, THINK_CLOSE);
    const char *begin = strstr(raw, THINK_OPEN);
    const char *reasoning = thinks || close ? raw : NULL;
    if (begin == raw) reasoning = raw + strlen(THINK_OPEN);
    const char *answer = reasoning ? "" : raw;
    size_t length = reasoning ? strlen(reasoning) : 0;
    for (const char *at = close; at; at = strstr(answer, THINK_CLOSE)) {
        if (at == close) length = (size_t)(close - reasoning);
        answer = at + strlen(THINK_CLOSE);
    }
    while (*answer == '\n')
        answer++;
    out->answer = mm_strdup(answer);
    out->reasoning = length > 0 ? without_newlines(reasoning, length) : NULL;
    if (!out->answer || (length > 0 && !out->reasoning))
        return MM_FAIL(err, MM_ENOMEM, "no memory for the answer");
    if (out->reasoning && !*out->reasoning) { // nothing but empty lines
        mm_free(out->reasoning);
        out->reasoning = NULL;
    }
    return MM_OK;
}

static mm_status add_exchange(mm_chat_session *session, const mm_exchange *exchange, mm_err *err)
{
    if (session->n_exchanges == EXCHANGES_MAX)
        return MM_FAIL(err, MM_ELIMIT, "a conversation of more than %d turns", EXCHANGES_MAX);
    if (session->n_exchanges == session->capacity) {
        const size_t capacity = session->capacity > 0 ? 2 * session->capacity : 16;
        void *grown = mm_realloc(session->exchanges, capacity * sizeof *session->exchanges);
        if (!grown) return MM_FAIL(err, MM_ENOMEM, "no memory for a longer conversation");
        session->exchanges = grown;
        session->capacity = capacity;
    }
    session->exchanges[session->n_exchanges++] = *exchange;
    return MM_OK;
}

static mm_status text_prompt(const mm_chat_session *session, const char *question, int32_t room,
                             mm_ids *ids, mm_err *err)
{
    const int32_t bos = mm_tokenizer_bos(session->tokenizer);
    if (bos >= 0) MM_TRY(mm_ids_add(ids, bos, err));
    MM_TRY(mm_tokenizer_encode(session->tokenizer, question, strlen(question), MM_ADDED_AS_TEXT,
                               ids, err));
    if (ids->count <= (size_t)room) return MM_OK;
    return MM_FAIL(err, MM_ELIMIT, "the text has %zu tokens, %d fit beside the answer", ids->count,
                   room);
}

static mm_status keep(mm_chat_session *session, const char *question, bool thinks,
                      const listener *l, mm_reply *out, mm_err *err)
{
    mm_exchange exchange = {.question = mm_strdup(question)};
    mm_status status = MM_OK;
    if (!exchange.question) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for the question");
        goto done;
    }
    MM_GO(part_answer(mm_str_text(&l->raw), thinks, &exchange, err));
    MM_GO(add_exchange(session, &exchange, err));
    out->exchange = &session->exchanges[session->n_exchanges - 1];
    exchange = (mm_exchange){0};
done:
    drop_exchange(&exchange);
    return status;
}

mm_status mm_chat_session_ask(mm_chat_session *session, const char *question,
                              const mm_sampling *sampling, bool thinks, mm_reply_fn on_text,
                              void *context, mm_reply *out, mm_err *err)
{
    const bool is_chat = session->options.style == MM_SAMPLE_CHAT;
    const int32_t room = session->options.max_tokens - sampling->max_new_tokens;
    const mm_sampling how = mm_sample_sampling(sampling, session->tokenizer);
    mm_ids ids = {0};
    listener l = {.session = session,
                  .is_reasoning = is_chat && thinks,
                  .on_text = on_text,
                  .context = context,
                  .err = err};
    mm_status status = MM_OK;
    *out = (mm_reply){0};
    if (is_chat)
        MM_GO(make_prompt(session, question, room, thinks, &ids, &out->n_forgotten, err));
    else
        MM_GO(text_prompt(session, question, room, &ids, err));
    session->first += out->n_forgotten;
    out->prompt_tokens = (int32_t)ids.count;
    MM_GO(mm_generate(session->generator, ids.data, out->prompt_tokens, &how, take_token, &l,
                      &out->generation, err));
    MM_GO(end_text(&l));
    const bool is_nothing = out->generation.finish == MM_FINISH_CANCELED && l.raw.length == 0;
    if (!is_nothing) MM_GO(keep(session, question, is_chat && thinks, &l, out, err));
done:
    mm_str_drop(&l.raw);
    mm_ids_drop(&ids);
    return status;
}
