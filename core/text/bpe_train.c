/* Training byte-pair encoding: repeatedly make the most frequent pair of neighbours a token.
 *
 * Words and their counts come from the splitter; the texts themselves are not kept. Counts of pairs
 * are kept up to date as words change, and a heap gives the best pair: the highest count, then the
 * smaller id pair, as in Hugging Face tokenizers, so that the merges are equal. A heap entry
 * carries the words that hold its pair; when its count is out of date it goes back with the right
 * one.
 *
 * Two merges never give the same string, so every merge is a new token and every pair enters the
 * heap once: while the two ends of a stretch of text are token borders, how it is cut inside
 * depends on the stretch alone, so the merge that first makes a string a token makes it one
 * wherever it could be one.
 */
#include "core/text/tokenizer_internal.h"

#include "core/base/utf8.h"
#include "core/text/chat.h"
#include "core/text/split.h"

#include <string.h>

enum {
    FIRST_LEARNED = MM_RESERVED_TOKENS + MM_BYTE_SYMBOLS,
    VOCAB_MAX = 1 << 20,
    PROGRESS_EVERY = 64 /* merges */
};
#define WORD_BYTES_MAX  ((size_t)1 << 33) /* distinct words, together */
#define TOKEN_BYTES_MAX ((size_t)1 << 28) /* learned tokens, together */
#define EMPTY           UINT32_MAX

typedef struct counted_word {
    size_t offset; /* into text, and later into symbols */
    uint32_t length;
    uint32_t hash;
    int64_t count;
} counted_word;

struct mm_bpe_trainer {
    int32_t vocab_size;
    mm_str text; /* every distinct word once */
    counted_word *words;
    uint32_t n_words;
    uint32_t words_capacity;
    uint32_t *slots; /* open addressing: index of a word or EMPTY */
    size_t n_slots;  /* power of two */
};

mm_status mm_bpe_trainer_new(mm_bpe_trainer **out, int32_t vocab_size, mm_err *err)
{
    *out = NULL;
    if (vocab_size < FIRST_LEARNED || vocab_size > VOCAB_MAX)
        return MM_FAIL(err, MM_ECONFIG,
                       "vocab_size: expected %d (%d reserved tokens and %d bytes) to %d, found %d",
                       FIRST_LEARNED, MM_RESERVED_TOKENS, MM_BYTE_SYMBOLS, VOCAB_MAX, vocab_size);
    mm_bpe_trainer *trainer = mm_calloc(1, sizeof *trainer);
    if (!trainer) return MM_FAIL(err, MM_ENOMEM, "out of memory for a tokenizer trainer");
    trainer->vocab_size = vocab_size;
    mm_str_init(&trainer->text, WORD_BYTES_MAX);
    *out = trainer;
    return MM_OK;
}

void mm_bpe_trainer_free(mm_bpe_trainer *trainer)
{
    if (!trainer) return;
    mm_free(trainer->slots);
    mm_free(trainer->words);
    mm_str_drop(&trainer->text);
    mm_free(trainer);
}

/* Room for one more element; `array` is the address of a pointer to the elements. */
static mm_status grow(void *array, uint32_t count, uint32_t *capacity, size_t element, mm_err *err)
{
    if (count < *capacity) return MM_OK;
    if (count >= UINT32_MAX / 2) return MM_FAIL(err, MM_ELIMIT, "too much text to train on");
    const uint32_t wanted = count < 4 ? 4 : 2 * count;
    void *data;
    memcpy(&data, array, sizeof data);
    data = mm_realloc(data, wanted * element);
    if (!data) return MM_FAIL(err, MM_ENOMEM, "out of memory while training");
    memcpy(array, &data, sizeof data);
    *capacity = wanted;
    return MM_OK;
}

static uint32_t bytes_hash(const char *bytes, size_t length)
{
    uint64_t hash = 0xCBF29CE484222325u; // FNV-1a
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001B3u;
    return (uint32_t)(hash ^ hash >> 32);
}

static mm_status grow_slots(mm_bpe_trainer *trainer, mm_err *err)
{
    if (trainer->n_slots > 2 * (size_t)trainer->n_words) return MM_OK;
    const size_t n_slots = trainer->n_slots == 0 ? 1024 : 2 * trainer->n_slots;
    uint32_t *slots = mm_alloc(n_slots * sizeof *slots);
    if (!slots) return MM_FAIL(err, MM_ENOMEM, "out of memory for %u words", trainer->n_words);
    memset(slots, 0xFF, n_slots * sizeof *slots); // all EMPTY
    for (uint32_t i = 0; i < trainer->n_words; i++) {
        size_t slot = trainer->words[i].hash & (n_slots - 1);
        while (slots[slot] != EMPTY)
            slot = (slot + 1) & (n_slots - 1);
        slots[slot] = i;
    }
    mm_free(trainer->slots);
    trainer->slots = slots;
    trainer->n_slots = n_slots;
    return MM_OK;
}

static mm_status count_word(mm_bpe_trainer *trainer, const char *word, size_t length, mm_err *err)
{
    MM_TRY(grow_slots(trainer, err));
    const uint32_t hash = bytes_hash(word, length);
    size_t slot = hash & (trainer->n_slots - 1);
    while (trainer->slots[slot] != EMPTY) {
        counted_word *known = &trainer->words[trainer->slots[slot]];
        if (known->hash == hash && known->length == length &&
            memcmp(trainer->text.data + known->offset, word, length) == 0) {
            known->count++;
            return MM_OK;
        }
        slot = (slot + 1) & (trainer->n_slots - 1);
    }
    MM_TRY(grow(&trainer->words, trainer->n_words, &trainer->words_capacity, sizeof *trainer->words,
                err));
    const size_t offset = trainer->text.length;
    mm_str_add_bytes(&trainer->text, word, length);
    MM_TRY(mm_str_check(&trainer->text, err));
    trainer->words[trainer->n_words] =
        (counted_word){.offset = offset, .length = (uint32_t)length, .hash = hash, .count = 1};
    trainer->slots[slot] = trainer->n_words++;
    return MM_OK;
}

mm_status mm_bpe_trainer_feed(mm_bpe_trainer *trainer, const char *text, size_t length, mm_err *err)
{
    if (length > MM_TEXT_BYTES_MAX)
        return MM_FAIL(err, MM_ELIMIT, "a text of %zu bytes is too long, the limit is %zu", length,
                       MM_TEXT_BYTES_MAX);
    const size_t valid = mm_utf8_valid(text, length);
    if (valid != length)
        return MM_FAIL(err, MM_EFORMAT, "invalid UTF-8 at byte %zu (0x%02x)", valid,
                       (unsigned char)text[valid]);
    for (size_t at = 0; at < length;) {
        const size_t word = mm_split_next(text + at, length - at);
        MM_TRY(count_word(trainer, text + at, word, err));
        at += word;
    }
    return MM_OK;
}

/* A pair of neighbouring ids. `pending` are the words in which it has appeared and that are not
 * in the heap yet. */
typedef struct pair_state {
    uint64_t pair; /* left id in the upper half */
    int64_t count;
    uint32_t *pending;
    uint32_t n_pending;
    uint32_t pending_capacity;
} pair_state;

typedef struct heap_entry {
    int64_t count;
    uint64_t pair;
    uint32_t state; /* index into pairs */
    uint32_t n_words;
    uint32_t *words; /* owned */
} heap_entry;

typedef struct learner {
    const mm_bpe_trainer *trainer;
    int32_t *symbols;  /* the words as ids, shrinking in place */
    uint32_t *lengths; /* of each word, in symbols */
    pair_state *pairs;
    uint32_t n_pairs;
    uint32_t pairs_capacity;
    uint32_t *slots; /* open addressing over pairs */
    size_t n_slots;
    uint32_t *touched; /* pairs with something pending */
    uint32_t n_touched;
    uint32_t touched_capacity;
    heap_entry *heap;
    uint32_t n_heap;
    uint32_t heap_capacity;
    mm_arena strings;
    const char **tokens;    /* bytes of every id */
    uint32_t *token_bytes;  /* their lengths */
    size_t all_token_bytes; /* sum of token_bytes */
    int32_t n_tokens;
    int32_t (*merges)[2];
    uint32_t n_merges;
    uint32_t merges_capacity;
    mm_err *err;
} learner;

static void learner_drop(learner *l)
{
    for (uint32_t i = 0; i < l->n_heap; i++)
        mm_free(l->heap[i].words);
    for (uint32_t i = 0; i < l->n_pairs; i++)
        mm_free(l->pairs[i].pending);
    mm_free(l->merges);
    mm_free(l->token_bytes);
    mm_free(l->tokens);
    mm_arena_drop(&l->strings);
    mm_free(l->heap);
    mm_free(l->touched);
    mm_free(l->slots);
    mm_free(l->pairs);
    mm_free(l->lengths);
    mm_free(l->symbols);
}

static size_t pair_slot(const learner *l, uint64_t pair)
{
    size_t slot = (size_t)((pair ^ pair >> 29) * 0x9E3779B97F4A7C15u >> 20) & (l->n_slots - 1);
    while (l->slots[slot] != EMPTY && l->pairs[l->slots[slot]].pair != pair) {
        slot = (slot + 1) & (l->n_slots - 1);
    }
    return slot;
}

static mm_status grow_pair_slots(learner *l)
{
    if (l->n_slots > 2 * (size_t)l->n_pairs) return MM_OK;
    const size_t n_slots = l->n_slots == 0 ? 1 << 16 : 2 * l->n_slots;
    uint32_t *slots = mm_alloc(n_slots * sizeof *slots);
    if (!slots) return MM_FAIL(l->err, MM_ENOMEM, "out of memory for %u pairs", l->n_pairs);
    memset(slots, 0xFF, n_slots * sizeof *slots); // all EMPTY
    mm_free(l->slots);
    l->slots = slots;
    l->n_slots = n_slots;
    for (uint32_t i = 0; i < l->n_pairs; i++)
        l->slots[pair_slot(l, l->pairs[i].pair)] = i;
    return MM_OK;
}

/* Adds `change` to the count of a pair; a rise also notes the word. */
static mm_status count_pair(learner *l, int32_t left, int32_t right, int64_t change, uint32_t word)
{
    const uint64_t pair = (uint64_t)left << 32 | (uint64_t)right;
    MM_TRY(grow_pair_slots(l));
    const size_t slot = pair_slot(l, pair);
    if (l->slots[slot] == EMPTY) {
        MM_TRY(grow(&l->pairs, l->n_pairs, &l->pairs_capacity, sizeof *l->pairs, l->err));
        l->pairs[l->n_pairs] = (pair_state){.pair = pair};
        l->slots[slot] = l->n_pairs++;
    }
    const uint32_t index = l->slots[slot];
    pair_state *state = &l->pairs[index];
    state->count += change;
    if (change <= 0) return MM_OK;
    // Words are handled one after the other, so a repetition can only be the last one.
    if (state->n_pending > 0 && state->pending[state->n_pending - 1] == word) return MM_OK;
    if (state->n_pending == 0) {
        MM_TRY(grow(&l->touched, l->n_touched, &l->touched_capacity, sizeof *l->touched, l->err));
        l->touched[l->n_touched++] = index;
    }
    MM_TRY(grow(&state->pending, state->n_pending, &state->pending_capacity, sizeof *state->pending,
                l->err));
    state->pending[state->n_pending++] = word;
    return MM_OK;
}

/* Whether a comes out of the heap before b: the higher count, then the smaller pair. */
static bool is_before(const heap_entry *a, const heap_entry *b)
{
    return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

static void heap_sink(learner *l, uint32_t at)
{
    const heap_entry moving = l->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= l->n_heap) break;
        if (child + 1 < l->n_heap && is_before(&l->heap[child + 1], &l->heap[child])) child++;
        if (!is_before(&l->heap[child], &moving)) break;
        l->heap[at] = l->heap[child];
        at = child;
    }
    l->heap[at] = moving;
}

static mm_status heap_push(learner *l, const heap_entry *entry)
{
    MM_TRY(grow(&l->heap, l->n_heap, &l->heap_capacity, sizeof *l->heap, l->err));
    uint32_t at = l->n_heap++;
    while (at > 0 && is_before(entry, &l->heap[(at - 1) / 2])) {
        l->heap[at] = l->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    l->heap[at] = *entry;
    return MM_OK;
}

/* Moves what is pending into the heap. */
static mm_status push_pending(learner *l)
{
    for (uint32_t i = 0; i < l->n_touched; i++) {
        pair_state *state = &l->pairs[l->touched[i]];
        const heap_entry entry = {.count = state->count,
                                  .pair = state->pair,
                                  .state = l->touched[i],
                                  .n_words = state->n_pending,
                                  .words = state->pending};
        if (state->count > 0)
            MM_TRY(heap_push(l, &entry));
        else
            mm_free(state->pending);
        state->pending = NULL;
        state->n_pending = state->pending_capacity = 0;
    }
    l->n_touched = 0;
    return MM_OK;
}

/* The next id, for these bytes, which must outlive the learner. */
static int32_t add_token(learner *l, const char *bytes, uint32_t length)
{
    MM_ASSERT(l->n_tokens < l->trainer->vocab_size);
    l->tokens[l->n_tokens] = bytes;
    l->token_bytes[l->n_tokens] = length;
    return l->n_tokens++;
}

static mm_status learner_init(learner *l)
{
    const mm_bpe_trainer *trainer = l->trainer;
    const size_t vocab_size = (size_t)trainer->vocab_size;
    l->symbols = mm_alloc(trainer->text.length * sizeof *l->symbols);
    l->lengths = mm_alloc(trainer->n_words * sizeof *l->lengths);
    l->tokens = mm_alloc(vocab_size * sizeof *l->tokens);
    l->token_bytes = mm_alloc(vocab_size * sizeof *l->token_bytes);
    char *bytes = mm_arena_alloc(&l->strings, MM_BYTE_SYMBOLS);
    if (!l->symbols || !l->lengths || !l->tokens || !l->token_bytes || !bytes)
        return MM_FAIL(l->err, MM_ENOMEM, "out of memory for %zu bytes of words",
                       trainer->text.length);

    for (int id = 0; id < MM_RESERVED_TOKENS; id++) {
        const char *text = mm_reserved_tokens[id].text;
        (void)add_token(l, text, (uint32_t)strlen(text));
    }
    int32_t byte_ids[256];
    for (int order = 0; order < MM_BYTE_SYMBOLS; order++) {
        bytes[order] = (char)mm_byte_of_order(order);
        byte_ids[(unsigned char)bytes[order]] = add_token(l, bytes + order, 1);
    }
    for (size_t i = 0; i < trainer->text.length; i++)
        l->symbols[i] = byte_ids[(unsigned char)trainer->text.data[i]];
    for (uint32_t i = 0; i < trainer->n_words; i++) {
        const counted_word *word = &trainer->words[i];
        l->lengths[i] = word->length;
        const int32_t *symbols = l->symbols + word->offset;
        for (uint32_t k = 0; k + 1 < word->length; k++)
            MM_TRY(count_pair(l, symbols[k], symbols[k + 1], word->count, i));
    }
    return push_pending(l);
}

/* Replaces every (left, right) of one word by `merged`, and counts the neighbourhoods that change.
 */
static mm_status merge_in_word(learner *l, uint32_t word, int32_t left, int32_t right,
                               int32_t merged)
{
    const int64_t count = l->trainer->words[word].count;
    int32_t *symbols = l->symbols + l->trainer->words[word].offset;
    const uint32_t length = l->lengths[word];
    uint32_t to = 0;
    for (uint32_t from = 0; from < length; from++) {
        if (symbols[from] != left || from + 1 == length || symbols[from + 1] != right) {
            symbols[to++] = symbols[from];
            continue;
        }
        if (to > 0) {
            MM_TRY(count_pair(l, symbols[to - 1], left, -count, word));
            MM_TRY(count_pair(l, symbols[to - 1], merged, count, word));
        }
        if (from + 2 < length) {
            MM_TRY(count_pair(l, right, symbols[from + 2], -count, word));
            MM_TRY(count_pair(l, merged, symbols[from + 2], count, word));
        }
        symbols[to++] = merged;
        from++;
    }
    l->lengths[word] = to;
    return MM_OK;
}

/* The id for left + right joined. */
static mm_status join_tokens(learner *l, int32_t left, int32_t right, int32_t *id)
{
    const uint32_t left_bytes = l->token_bytes[left];
    const uint32_t right_bytes = l->token_bytes[right];
    l->all_token_bytes += left_bytes + right_bytes;
    if (l->all_token_bytes > TOKEN_BYTES_MAX)
        return MM_FAIL(l->err, MM_ELIMIT,
                       "the learned tokens are too long (over %zu bytes together): "
                       "the text has very long words",
                       TOKEN_BYTES_MAX);
    char *bytes = mm_arena_alloc(&l->strings, left_bytes + right_bytes);
    if (!bytes) return MM_FAIL(l->err, MM_ENOMEM, "out of memory for tokens");
    memcpy(bytes, l->tokens[left], left_bytes);
    memcpy(bytes + left_bytes, l->tokens[right], right_bytes);
    *id = add_token(l, bytes, left_bytes + right_bytes);
    return MM_OK;
}

/* Makes the pair on top of the heap a token. *is_over: nothing is left to merge. */
static mm_status learn_one(learner *l, bool *is_over)
{
    while (l->n_heap > 0 && l->heap[0].count != l->pairs[l->heap[0].state].count) {
        l->heap[0].count = l->pairs[l->heap[0].state].count;
        heap_sink(l, 0);
    }
    *is_over = l->n_heap == 0 || l->heap[0].count < 1;
    if (*is_over) return MM_OK;

    mm_status status = MM_OK;
    const heap_entry top = l->heap[0];
    l->heap[0] = l->heap[--l->n_heap];
    heap_sink(l, 0);
    const int32_t left = (int32_t)(top.pair >> 32);
    const int32_t right = (int32_t)(uint32_t)top.pair;
    int32_t merged = -1;
    MM_GO(join_tokens(l, left, right, &merged));
    MM_GO(grow(&l->merges, l->n_merges, &l->merges_capacity, sizeof *l->merges, l->err));
    l->merges[l->n_merges][0] = left;
    l->merges[l->n_merges++][1] = right;
    for (uint32_t i = 0; i < top.n_words; i++)
        MM_GO(merge_in_word(l, top.words[i], left, right, merged));
    MM_GO(push_pending(l));
done:
    mm_free(top.words);
    return status;
}

/* Writes what was learned as a tokenizer's files and reads them: one way to build a tokenizer, and
 * a check of the writer each time. */
static mm_status build(learner *l, mm_tokenizer **out)
{
    mm_status status = MM_OK;
    mm_str json;
    mm_str config;
    mm_str_init(&json, 0);
    mm_str_init(&config, 0);
    mm_tokenizer *plain = NULL;
    const mm_trained trained = {.tokens = l->tokens + FIRST_LEARNED,
                                .token_bytes = l->token_bytes + FIRST_LEARNED,
                                .n_tokens = (size_t)(l->n_tokens - FIRST_LEARNED),
                                .merges = (const int32_t(*)[2])l->merges,
                                .n_merges = l->n_merges};
    mm_trained_json(&trained, &json);
    MM_GO(mm_str_check(&json, l->err));
    MM_GO(mm_tokenizer_parse(&plain, json.data, json.length, NULL, 0, "trained tokenizer", l->err));
    plain->pad = mm_tokenizer_id(plain, "<|endoftext|>");
    plain->bos = mm_tokenizer_id(plain, "<|im_start|>");
    plain->eos = mm_tokenizer_id(plain, "<|im_end|>");
    mm_tokenizer_config_write(plain, mm_chat_template_jinja(), &config);
    MM_GO(mm_str_check(&config, l->err));
    MM_GO(mm_tokenizer_parse(out, json.data, json.length, config.data, config.length,
                             "trained tokenizer", l->err));
done:
    mm_tokenizer_free(plain);
    mm_str_drop(&config);
    mm_str_drop(&json);
    return status;
}

mm_status mm_bpe_trainer_finish(mm_bpe_trainer *trainer, mm_tokenizer **out,
                                void (*progress)(void *context, int64_t done, int64_t total),
                                void *context, mm_err *err)
{
    mm_status status = MM_OK;
    learner l = {.trainer = trainer, .err = err};
    *out = NULL;
    if (trainer->n_words == 0)
        return MM_FAIL(err, MM_EFORMAT, "no text was given to train the tokenizer on");
    MM_GO(learner_init(&l));
    bool is_over = false;
    while (l.n_tokens < trainer->vocab_size && !is_over) {
        MM_GO(learn_one(&l, &is_over));
        if (progress && l.n_merges % PROGRESS_EVERY == 0)
            progress(context, l.n_tokens - FIRST_LEARNED, trainer->vocab_size - FIRST_LEARNED);
    }
    if (progress)
        progress(context, l.n_tokens - FIRST_LEARNED, trainer->vocab_size - FIRST_LEARNED);
    MM_GO(build(&l, out));
done:
    learner_drop(&l);
    return status;
}
