/* The tokenizer itself: look-ups, encoding with added tokens, decoding whole and as a stream.
 *
 * Encoding order, as Hugging Face tokenizers does it: added tokens that are matched on raw text,
 * then in what is left those matched on normalised text (there is no normaliser, so only the order
 * differs), then GPT-2's splitting rule, then byte pairs. A cut by an added token is an end of text
 * to the splitting rule.
 */
#include "core/text/tokenizer_internal.h"

#include "core/base/file.h"
#include "core/base/utf8.h"
#include "core/text/split.h"

#include <string.h>

enum { IDS_MIN_CAPACITY = 64 };

mm_status mm_ids_reserve(mm_ids *ids, size_t more, mm_err *err)
{
    if (more <= ids->capacity - ids->count) return MM_OK;
    size_t needed;
    size_t bytes;
    if (!mm_add_ok(ids->count, more, &needed) || needed > SIZE_MAX / 2)
        return MM_FAIL(err, MM_ELIMIT, "too many token ids");
    size_t capacity = ids->capacity < IDS_MIN_CAPACITY ? IDS_MIN_CAPACITY : 2 * ids->capacity;
    if (capacity < needed) capacity = needed;
    int32_t *data = mm_mul_ok(capacity, sizeof *data, &bytes) ? mm_realloc(ids->data, bytes) : NULL;
    if (!data) return MM_FAIL(err, MM_ENOMEM, "out of memory for %zu token ids", capacity);
    ids->data = data;
    ids->capacity = capacity;
    return MM_OK;
}

mm_status mm_ids_add(mm_ids *ids, int32_t id, mm_err *err)
{
    MM_TRY(mm_ids_reserve(ids, 1, err));
    ids->data[ids->count++] = id;
    return MM_OK;
}

void mm_ids_drop(mm_ids *ids)
{
    mm_free(ids->data);
    *ids = (mm_ids){0};
}

void mm_tokenizer_free(mm_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    mm_bpe_drop(&tokenizer->bpe);
    for (int pass = 0; pass < MM_ADDED_PASSES; pass++)
        mm_free(tokenizer->added[pass].ids);
    mm_free(tokenizer->by_text);
    mm_free(tokenizer->tokens);
    mm_arena_drop(&tokenizer->strings);
    mm_free(tokenizer->chat_template);
    mm_free(tokenizer->config);
    mm_free(tokenizer->json);
    mm_free(tokenizer);
}

int32_t mm_tokenizer_vocab(const mm_tokenizer *tokenizer) { return tokenizer->n_tokens; }
int32_t mm_tokenizer_bos(const mm_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t mm_tokenizer_eos(const mm_tokenizer *tokenizer) { return tokenizer->eos; }
int32_t mm_tokenizer_pad(const mm_tokenizer *tokenizer) { return tokenizer->pad; }
const char *mm_tokenizer_hash(const mm_tokenizer *tokenizer) { return tokenizer->hash; }
const char *mm_tokenizer_chat_template(const mm_tokenizer *tokenizer)
{
    return tokenizer->chat_template;
}

const char *mm_tokenizer_token(const mm_tokenizer *tokenizer, int32_t id, size_t *bytes,
                               bool *is_special)
{
    if (id < 0 || id >= tokenizer->n_tokens) return NULL;
    const mm_token *token = &tokenizer->tokens[id];
    if (bytes) *bytes = token->n_bytes;
    if (is_special) *is_special = token->is_special;
    return token->bytes;
}

/* One walk over a guarded text. */
typedef struct encoder {
    const mm_tokenizer *tokenizer;
    const char *text;
    const mm_guard *guards;
    size_t at_guard[MM_ADDED_PASSES]; /* each pass moves forward only */
    mm_ids *out;
} encoder;

/* First of list[low, high) whose byte at `depth` is at least `wanted`. */
static size_t lower_bound(const mm_tokenizer *tokenizer, const mm_added_list *list, size_t low,
                          size_t high, size_t depth, int wanted)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const char *text = tokenizer->tokens[list->ids[middle]].text;
        if ((unsigned char)text[depth] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest allowed added token that `text` begins with, -1 if none. The candidates are a range
 * of the sorted list that each further byte narrows. */
static int32_t match_added(const mm_tokenizer *tokenizer, const mm_added_list *list,
                           const char *text, size_t length, mm_guard_level level)
{
    int32_t found = -1;
    size_t low = 0;
    size_t high = list->count;
    for (size_t depth = 0; depth < length && low < high; depth++) {
        const int wanted = (unsigned char)text[depth];
        low = lower_bound(tokenizer, list, low, high, depth, wanted);
        high = lower_bound(tokenizer, list, low, high, depth, wanted + 1);
        if (low == high) break;
        const mm_token *first = &tokenizer->tokens[list->ids[low]];
        if (first->text[depth + 1] != '\0') continue;
        if (level == MM_GUARD_ALL || !first->is_special) found = list->ids[low];
        low++; // it has no further byte
    }
    return found;
}

static mm_status encode_words(const encoder *e, size_t begin, size_t end, mm_err *err)
{
    while (begin < end) {
        const char *word = e->text + begin;
        const size_t length = mm_split_next(word, end - begin);
        MM_TRY(mm_bpe_word(&e->tokenizer->bpe, (const unsigned char *)word, length, e->out, err));
        begin += length;
    }
    return MM_OK;
}

/* Encodes text[begin, end): added tokens of this pass, everything between them by the next pass. */
static mm_status encode_range(encoder *e, int pass, size_t begin, size_t end, mm_err *err)
{
    while (pass < MM_ADDED_PASSES && e->tokenizer->added[pass].count == 0)
        pass++;
    if (pass == MM_ADDED_PASSES) return encode_words(e, begin, end, err);

    const mm_added_list *list = &e->tokenizer->added[pass];
    size_t *guard = &e->at_guard[pass];
    size_t pending = begin; // where the text not yet encoded starts
    size_t at = begin;
    while (at < end) {
        while (e->guards[*guard].end <= at)
            (*guard)++;
        const mm_guard *span = &e->guards[*guard];
        const size_t span_end = span->end < end ? span->end : end;
        if (span->level == MM_GUARD_TEXT) {
            at = span_end;
            continue;
        }
        while (at < span_end && !list->starts[(unsigned char)e->text[at]])
            at++;
        if (at == span_end) continue;
        const int32_t id =
            match_added(e->tokenizer, list, e->text + at, span_end - at, span->level);
        if (id < 0) {
            at++;
            continue;
        }
        MM_TRY(encode_range(e, pass + 1, pending, at, err));
        MM_TRY(mm_ids_add(e->out, id, err));
        at += strlen(e->tokenizer->tokens[id].text);
        pending = at;
    }
    return encode_range(e, pass + 1, pending, end, err);
}

mm_status mm_tokenizer_encode_guarded(const mm_tokenizer *tokenizer, const char *text,
                                      size_t length, const mm_guard *guards, size_t n_guards,
                                      mm_ids *out, mm_err *err)
{
    if (length == 0) return MM_OK;
    if (length > MM_TEXT_BYTES_MAX)
        return MM_FAIL(err, MM_ELIMIT,
                       "a text of %zu bytes is too long to encode, the limit is %zu", length,
                       MM_TEXT_BYTES_MAX);
    MM_ASSERT(n_guards > 0 && guards[n_guards - 1].end == length);
    const size_t valid = mm_utf8_valid(text, length);
    if (valid != length)
        return MM_FAIL(err, MM_EFORMAT, "invalid UTF-8 at byte %zu (0x%02x)", valid,
                       (unsigned char)text[valid]);
    encoder e = {.tokenizer = tokenizer, .text = text, .guards = guards, .out = out};
    const size_t count = out->count;
    const mm_status status = encode_range(&e, 0, 0, length, err);
    if (status != MM_OK) out->count = count; // all of the text or nothing
    return status;
}

mm_status mm_tokenizer_encode(const mm_tokenizer *tokenizer, const char *text, size_t length,
                              mm_parse_added added, mm_ids *out, mm_err *err)
{
    const mm_guard whole = {.end = length,
                            .level = added == MM_ADDED_PARSE ? MM_GUARD_ALL : MM_GUARD_TEXT};
    return mm_tokenizer_encode_guarded(tokenizer, text, length, &whole, 1, out, err);
}

/* NULL when the id is out of range. */
static const mm_token *token_of(const mm_tokenizer *tokenizer, int32_t id, mm_err *err)
{
    if (id >= 0 && id < tokenizer->n_tokens) return &tokenizer->tokens[id];
    (void)MM_FAIL(err, MM_EFORMAT, "token id %d is out of range, the vocabulary has %d", id,
                  tokenizer->n_tokens);
    return NULL;
}

mm_status mm_tokenizer_decode(const mm_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              bool skip_special, mm_str *out, mm_err *err)
{
    for (size_t i = 0; i < count; i++) {
        const mm_token *token = token_of(tokenizer, ids[i], err);
        if (!token) return MM_EFORMAT;
        if (skip_special && token->is_special) continue;
        mm_str_add_bytes(out, token->bytes, token->n_bytes);
    }
    return mm_str_check(out, err);
}

/* Appends what of held + bytes forms whole characters, and holds back a proper beginning. */
static void stream_bytes(mm_decode_stream *stream, const char *bytes, size_t length, mm_str *out)
{
    size_t at = 0;
    // Complete or refute the held beginning byte by byte; a refuted one may hold a beginning of its
    // own.
    while (stream->n_held > 0 && at < length) {
        stream->held[stream->n_held++] = bytes[at++];
        for (;;) {
            uint32_t code;
            const int size = mm_utf8_next(stream->held, (size_t)stream->n_held, &code);
            if (size < 0) break;
            const int taken = size == 0 ? 1 : size;
            mm_utf8_add_valid(out, stream->held, (size_t)taken);
            stream->n_held -= taken;
            memmove(stream->held, stream->held + taken, (size_t)stream->n_held);
        }
    }
    if (stream->n_held > 0) return;
    // At most the last three bytes can be a character cut short.
    size_t whole = length;
    for (size_t back = 1; back <= 3 && back <= length - at; back++) {
        uint32_t code;
        if (mm_utf8_next(bytes + length - back, back, &code) < 0) whole = length - back;
    }
    mm_utf8_add_valid(out, bytes + at, whole - at);
    stream->n_held = (int32_t)(length - whole);
    memcpy(stream->held, bytes + whole, length - whole);
}

mm_status mm_decode_stream_push(mm_decode_stream *stream, const mm_tokenizer *tokenizer, int32_t id,
                                bool skip_special, mm_str *out, mm_err *err)
{
    MM_ASSERT(stream->n_held >= 0 && stream->n_held <= 3);
    const mm_token *token = token_of(tokenizer, id, err);
    if (!token) return MM_EFORMAT;
    if (!skip_special || !token->is_special)
        stream_bytes(stream, token->bytes, token->n_bytes, out);
    return mm_str_check(out, err);
}

void mm_decode_stream_end(mm_decode_stream *stream, mm_str *out)
{
    mm_utf8_add_valid(out, stream->held, (size_t)stream->n_held);
    stream->n_held = 0;
}
