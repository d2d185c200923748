/* Ids of prompts. The template is rendered again for every number of turns that is tried: what
 * fits is found by halving. */
#include "runner/dialogue.h"

#include <string.h>

typedef struct dialogue {
    const mm_tokenizer *tokenizer;
    const mm_conversation *whole;
    mm_chat_options options;
    size_t head;          // messages that stay in front: the system turn, or none
    mm_message *messages; // room for as many as `whole` has
} dialogue;

// Appends the head and the messages from `first` on.
static mm_status encode_from(const dialogue *d, size_t first, mm_ids *ids, mm_err *err)
{
    const size_t n = d->whole->count - first;
    memcpy(d->messages, d->whole->messages, d->head * sizeof *d->messages);
    memcpy(d->messages + d->head, d->whole->messages + first, n * sizeof *d->messages);
    const mm_conversation shown = {
        .messages = d->messages, .count = d->head + n, .tools = d->whole->tools};
    return mm_chat_encode(d->tokenizer, &shown, &d->options, ids, NULL, err);
}

static bool is_user(const mm_message *message) { return strcmp(message->role, "user") == 0; }

/* The message that the k-th turn of a user behind the head begins with; of k beyond them the last.
 * *turns is how many there are. */
static size_t user_turn(const dialogue *d, size_t k, size_t *turns)
{
    size_t found = d->head;
    *turns = 0;
    for (size_t i = d->head; i < d->whole->count; i++) {
        if (!is_user(&d->whole->messages[i])) continue;
        if (*turns <= k) found = i;
        (*turns)++;
    }
    return found;
}

/* Appends the ids of the most turns that fit, or of the last alone whether it fits or not. *first
 * is the message they begin with. */
static mm_status encode_fitting(const dialogue *d, size_t most, mm_ids *ids, size_t *first,
                                mm_err *err)
{
    const size_t begin = ids->count;
    size_t turns;
    user_turn(d, 0, &turns);
    size_t low = 1; // the first turn of a user is known not to fit
    size_t high = turns > 0 ? turns - 1 : 0;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        MM_TRY(encode_from(d, user_turn(d, middle, &turns), ids, err));
        const bool fits = ids->count - begin <= most;
        ids->count = begin;
        if (fits) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *first = user_turn(d, high, &turns);
    return encode_from(d, *first, ids, err);
}

/* Cuts what begins at `begin` down to `most` ids: the head stays if it leaves as much for the rest,
 * and the end. */
static mm_status keep_end(const dialogue *d, size_t begin, size_t most, mm_ids *ids, mm_err *err)
{
    size_t kept = 0;
    const size_t count = ids->count - begin;
    if (d->head > 0) {
        const mm_conversation head = {
            .messages = d->whole->messages, .count = d->head, .tools = d->whole->tools};
        MM_TRY(mm_chat_encode(d->tokenizer, &head, NULL, ids, NULL, err));
        kept = ids->count - begin - count;
        ids->count -= kept;
        if (kept > most / 2) kept = 0;
    }
    const size_t skipped = count - most;
    memmove(ids->data + begin + kept, ids->data + begin + kept + skipped,
            (count - kept - skipped) * sizeof *ids->data);
    ids->count -= skipped;
    return MM_OK;
}

mm_status mm_dialogue_ids(const mm_tokenizer *tokenizer, const mm_conversation *conversation,
                          const mm_chat_options *options, int32_t max_tokens, mm_ids *ids,
                          int32_t *dropped, mm_err *err)
{
    mm_status status = MM_OK;
    const size_t begin = ids->count;
    const size_t most = (size_t)max_tokens;
    MM_ASSERT(max_tokens > 0);
    if (dropped) *dropped = 0;
    if (conversation->count == 0)
        return MM_FAIL(err, MM_EUSAGE, "a conversation without messages cannot be answered");
    dialogue d = {.tokenizer = tokenizer, .whole = conversation, .options = *options};
    d.options.generation_prompt = true;
    d.head = strcmp(conversation->messages[0].role, "system") == 0;
    MM_TRY(mm_chat_encode(tokenizer, conversation, &d.options, ids, NULL, err));
    if (ids->count - begin <= most) return MM_OK;

    size_t first = d.head;
    ids->count = begin;
    d.messages = mm_calloc(conversation->count, sizeof *d.messages);
    if (!d.messages)
        return MM_FAIL(err, MM_ENOMEM, "no memory for %zu messages", conversation->count);
    MM_GO(encode_fitting(&d, most, ids, &first, err));
    if (dropped) *dropped = (int32_t)(first - d.head);
    if (ids->count - begin > most) {
        MM_GO(keep_end(&d, begin, most, ids, err));
        if (dropped) *dropped = -1;
    }
done:
    mm_free(d.messages);
    return status;
}

mm_status mm_text_ids(const mm_tokenizer *tokenizer, const char *text, int32_t max_tokens,
                      mm_ids *ids, bool *is_cut, mm_err *err)
{
    const size_t begin = ids->count;
    const size_t most = (size_t)max_tokens;
    const int32_t bos = mm_tokenizer_bos(tokenizer);
    MM_ASSERT(max_tokens > 0);
    if (bos >= 0) MM_TRY(mm_ids_add(ids, bos, err));
    MM_TRY(mm_tokenizer_encode(tokenizer, text, strlen(text), MM_ADDED_AS_TEXT, ids, err));
    const size_t count = ids->count - begin;
    if (count == 0)
        return MM_FAIL(err, MM_EUSAGE, "the prompt is empty and the tokenizer has no begin token");
    const size_t skip = count > most ? count - most : 0;
    memmove(ids->data + begin, ids->data + begin + skip, (count - skip) * sizeof *ids->data);
    ids->count -= skip;
    if (is_cut) *is_cut = skip > 0;
    return MM_OK;
}
