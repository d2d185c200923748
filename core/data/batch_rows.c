/* The rows of a batcher: which documents are on its side of the split, and what each of them is in
 * an epoch, with the system prompt and the think blocks that are drawn for it.
 *
 * A draw that would push all labels of a row behind seq_len is not taken, so which rows are left
 * out does not depend on the epoch. */
#include "core/data/batch_parts.h"

#include "core/base/rng.h"

#include <string.h>

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

static const mm_row_draw PLAIN = {.prompt = -1};

// The cache of a document, and which rendering of it is meant.
static const mm_token_cache *cache_of(const mm_batcher *batcher, uint32_t document,
                                      const mm_row_draw *draw, int32_t side, mm_cached *which)
{
    size_t i = 0;
    while ((int64_t)document >= batcher->first_document[i + 1])
        i++;
    *which = (mm_cached){.row = (int64_t)document - batcher->first_document[i],
                         .is_rejected = side == 1,
                         .has_no_empty_think = draw->drops_think[side]};
    return batcher->caches[i];
}

static int32_t prompt_length(const mm_batcher *batcher, const mm_row_draw *draw)
{
    if (draw->prompt < 0) return 0;
    return batcher->prompt_begins[draw->prompt + 1] - batcher->prompt_begins[draw->prompt];
}

int64_t mm_batch_row_length(const mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                            int32_t side)
{
    mm_cached which;
    const mm_token_cache *cache = cache_of(batcher, document, draw, side, &which);
    return prompt_length(batcher, draw) + mm_token_cache_length(cache, which);
}

static void copy_prompt(const mm_batcher *batcher, int32_t prompt, mm_mask_kind mask, int64_t first,
                        int32_t count, int32_t *tokens, uint8_t *learned)
{
    const int64_t from = batcher->prompt_begins[prompt] + first;
    for (int32_t i = 0; i < count; i++) {
        const bool is_system = batcher->prompt_learned.data[from + i] != 0;
        tokens[i] = batcher->prompt_ids.data[from + i];
        learned[i] = mask == MM_MASK_ALL || (mask == MM_MASK_WITH_SYSTEM && is_system);
    }
}

void mm_batch_row_copy(const mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                       int32_t side, int64_t first, int32_t count, int32_t *tokens,
                       uint8_t *learned)
{
    mm_cached which;
    const mm_token_cache *cache = cache_of(batcher, document, draw, side, &which);
    const int32_t before = prompt_length(batcher, draw);
    int32_t n = 0;
    if (first < before) {
        n = (int32_t)min_i64(count, before - first);
        copy_prompt(batcher, draw->prompt, mm_token_cache_info(cache)->mask, first, n, tokens,
                    learned);
    }
    mm_token_cache_copy(cache, which, first + n - before, count - n, tokens + n, learned + n);
}

int32_t mm_batch_row_cut(mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                         int32_t side)
{
    const int64_t length = mm_batch_row_length(batcher, document, draw, side);
    const int32_t used = (int32_t)min_i64(length, batcher->options.seq_len);
    const int32_t eos = mm_tokenizer_eos(batcher->tokenizer);
    int32_t *tokens = batcher->row_tokens;
    uint8_t *learned = batcher->row_learned;
    mm_batch_row_copy(batcher, document, draw, side, 0, used, tokens, learned);
    if (length > used && eos >= 0) {
        // A text keeps its end mark when it is cut. A conversation has none and is just cut.
        int32_t last;
        uint8_t is_learned;
        mm_batch_row_copy(batcher, document, draw, side, length - 1, 1, &last, &is_learned);
        if (last == eos) tokens[used - 1] = eos;
    }
    for (int32_t i = 0; i < used; i++)
        if (tokens[i] == batcher->unlearned_id) learned[i] = 0;
    return used;
}

/* Whether something of a side is predicted. What the prompt teaches does not count. */
static bool has_label(const mm_batcher *batcher, uint32_t document, const mm_row_draw *draw,
                      int32_t side)
{
    mm_cached which;
    const mm_token_cache *cache = cache_of(batcher, document, draw, side, &which);
    const int64_t before = prompt_length(batcher, draw);
    const int64_t length = before + mm_token_cache_length(cache, which);
    const int64_t first = before + mm_token_cache_first_learned(cache, which);
    if (mm_batcher_cuts_rows(batcher))
        return max_i64(first, 1) < min_i64(length, batcher->options.seq_len);
    // The very first token is never predicted.
    return mm_token_cache_n_learned(cache, which) > (first == 0 ? 1 : 0);
}

int64_t mm_batch_row_labels(const mm_batcher *batcher, uint32_t document)
{
    mm_cached which;
    const mm_token_cache *cache = cache_of(batcher, document, &PLAIN, 0, &which);
    const bool is_first_learned = mm_token_cache_first_learned(cache, which) == 0;
    return mm_token_cache_n_learned(cache, which) - is_first_learned;
}

static bool has_labels(const mm_batcher *batcher, uint32_t document, const mm_row_draw *draw)
{
    for (int32_t side = 0; side < batcher->sides; side++)
        if (!has_label(batcher, document, draw, side)) return false;
    return true;
}

static bool takes_prompt(const mm_batcher *batcher, uint32_t document)
{
    mm_cached which;
    const mm_token_cache *cache = cache_of(batcher, document, &PLAIN, 0, &which);
    return !mm_token_cache_has_system(cache, which.row);
}

mm_row_draw mm_batch_row_draw(const mm_batcher *batcher, uint32_t document, int64_t epoch)
{
    const mm_batcher_options *options = &batcher->options;
    const double prompt_share = options->system_prompt_share;
    const double think_share = options->drop_think_share;
    mm_row_draw draw = PLAIN;
    if (!(prompt_share > 0) && !(think_share > 0)) return draw;
    uint32_t random[4];
    mm_philox(options->seed, MM_RNG_AUGMENT, (uint64_t)epoch, document, random);
    if (random[0] * 0x1p-32 < prompt_share && takes_prompt(batcher, document)) {
        draw.prompt = (int32_t)(((uint64_t)random[1] * MM_SYSTEM_PROMPTS) >> 32);
        if (!has_labels(batcher, document, &draw)) draw.prompt = -1;
    }
    for (int32_t side = 0; side < batcher->sides; side++) {
        const uint32_t drawn = random[options->draws_sides_apart ? 2 + side : 2];
        draw.drops_think[side] = drawn * 0x1p-32 < think_share;
        if (!has_label(batcher, document, &draw, side)) draw.drops_think[side] = false;
    }
    return draw;
}

void mm_batch_row_range(const mm_batcher *batcher, uint32_t document, int64_t *shortest,
                        int64_t *longest)
{
    const bool drops = batcher->options.drop_think_share > 0;
    const mm_row_draw bare = {.prompt = -1, .drops_think = {drops, drops}};
    const bool cuts = mm_batcher_cuts_rows(batcher);
    int64_t prompt = 0;
    if (batcher->options.system_prompt_share > 0 && takes_prompt(batcher, document))
        for (int32_t i = 0; i < MM_SYSTEM_PROMPTS; i++)
            prompt = max_i64(prompt, prompt_length(batcher, &(mm_row_draw){.prompt = i}));
    *shortest = *longest = 0;
    for (int32_t side = 0; side < batcher->sides; side++) {
        int64_t least = mm_batch_row_length(batcher, document, &bare, side);
        int64_t most = mm_batch_row_length(batcher, document, &PLAIN, side) + prompt;
        if (cuts) least = min_i64(least, batcher->options.seq_len);
        if (cuts) most = min_i64(most, batcher->options.seq_len);
        *shortest += least - 1;
        *longest += most - 1;
    }
}

// What the documents' keys say about the split, from a first look at all of them.
typedef struct key_range {
    uint64_t least;
    uint64_t most;
    bool is_any; // has a document that teaches something
} key_range;

// The top 53 bits of the key as a number in [0, 1): a larger share keeps what a smaller one held.
static bool is_below_share(uint64_t key, double share)
{
    return (double)(key >> 11) * 0x1p-53 < share;
}

// A share of a few documents can come to none or all of them: then the document of the least key is
// held out, or that of the greatest is trained on. Where all texts are equal nothing is held out.
static bool is_held_out(const key_range *keys, double share, uint64_t key)
{
    if (!(share > 0) || keys->least == keys->most) return false;
    if (!is_below_share(keys->least, share)) return key == keys->least;
    if (is_below_share(keys->most, share)) return key != keys->most;
    return is_below_share(key, share);
}

static uint64_t key_of(const mm_batcher *batcher, uint32_t document)
{
    mm_cached which;
    const mm_token_cache *cache = cache_of(batcher, document, &PLAIN, 0, &which);
    return mm_token_cache_key(cache, which.row);
}

static mm_status take_cache(mm_batcher *batcher, size_t i, const mm_token_cache *cache, mm_err *err)
{
    const mm_cache_info *info = mm_token_cache_info(cache);
    const bool wants_pairs = batcher->options.mode == MM_BATCH_PAIRS;
    batcher->caches[i] = cache;
    batcher->first_document[i + 1] = batcher->first_document[i] + info->documents;
    if (strcmp(mm_token_cache_tokenizer_hash(cache), mm_tokenizer_hash(batcher->tokenizer)) != 0)
        return MM_FAIL(err, MM_ECONFIG, "%s: made with another tokenizer",
                       mm_token_cache_path(cache));
    if (info->pairs == wants_pairs) return MM_OK;
    return MM_FAIL(err, MM_ECONFIG, "%s: a cache %s preference pairs where others are wanted",
                   mm_token_cache_path(cache), info->pairs ? "of" : "without");
}

static mm_status take_caches(mm_batcher *batcher, mm_token_cache *const *caches, mm_err *err)
{
    batcher->first_document = mm_calloc(batcher->n_caches + 1, sizeof *batcher->first_document);
    batcher->caches = mm_calloc(batcher->n_caches, sizeof *batcher->caches);
    if (!batcher->first_document || !batcher->caches)
        return MM_FAIL(err, MM_ENOMEM, "no memory for batches");
    for (size_t i = 0; i < batcher->n_caches; i++)
        MM_TRY(take_cache(batcher, i, caches[i], err));
    if (batcher->first_document[batcher->n_caches] >= UINT32_MAX)
        return MM_FAIL(err, MM_ELIMIT, "%lld documents, at most %u are possible",
                       (long long)batcher->first_document[batcher->n_caches], UINT32_MAX);
    return MM_OK;
}

static key_range find_keys(const mm_batcher *batcher, uint32_t total)
{
    key_range keys = {.least = UINT64_MAX};
    for (uint32_t document = 0; document < total; document++) {
        if (!has_labels(batcher, document, &PLAIN)) continue;
        const uint64_t key = key_of(batcher, document);
        if (key < keys.least) keys.least = key;
        if (key > keys.most) keys.most = key;
        keys.is_any = true;
    }
    return keys;
}

static mm_status choose_documents(mm_batcher *batcher, mm_err *err)
{
    const mm_batcher_options *options = &batcher->options;
    const uint32_t total = (uint32_t)batcher->first_document[batcher->n_caches];
    batcher->documents = mm_alloc(total * sizeof *batcher->documents);
    if (!batcher->documents) return MM_FAIL(err, MM_ENOMEM, "no memory for %u documents", total);
    const key_range keys = find_keys(batcher, total);
    for (uint32_t document = 0; document < total; document++) {
        if (options->max_documents > 0 && batcher->n_documents == options->max_documents) break;
        const bool is_val = is_held_out(&keys, options->val_fraction, key_of(batcher, document));
        if (options->split != MM_SPLIT_ALL && is_val != (options->split == MM_SPLIT_VAL)) continue;
        if (has_labels(batcher, document, &PLAIN))
            batcher->documents[batcher->n_documents++] = document;
        else
            batcher->n_left_out++;
    }
    if (batcher->n_documents > 0) return MM_OK;
    if (!keys.is_any)
        return MM_FAIL(err, MM_EFORMAT,
                       "none of %u rows has anything to learn within max_seq_len %d\n"
                       "`mmrun data show FILE --tokenizer RUN --seq-len %d` shows what of them is "
                       "learned; a longer --seq-len may reach more",
                       total, options->seq_len, options->seq_len);
    return MM_FAIL(err, MM_EFORMAT, "none of the %u documents is on the validation side (share %g)",
                   total, options->val_fraction);
}

static mm_status encode_prompts(mm_batcher *batcher, mm_err *err)
{
    static const mm_chat_options WITH_SYSTEM = {.mask = MM_MASK_WITH_SYSTEM};
    if (!(batcher->options.system_prompt_share > 0)) return MM_OK;
    // Where a turn begins with a token of its own, ids of prompt and row together are those of the
    // whole text.
    if (mm_tokenizer_id(batcher->tokenizer, "<|im_start|>") < 0)
        return MM_FAIL(err, MM_ECONFIG,
                       "system_prompt_share is %g, but the tokenizer has no token <|im_start|>",
                       batcher->options.system_prompt_share);
    for (int32_t i = 0; i < MM_SYSTEM_PROMPTS; i++) {
        const mm_message message = {.role = "system", .content = mm_system_prompt(i)};
        const mm_conversation chat = {.messages = &message, .count = 1};
        MM_TRY(mm_chat_encode(batcher->tokenizer, &chat, &WITH_SYSTEM, &batcher->prompt_ids,
                              &batcher->prompt_learned, err));
        batcher->prompt_begins[i + 1] = (int32_t)batcher->prompt_ids.count;
    }
    return MM_OK;
}

mm_status mm_batch_rows_choose(mm_batcher *batcher, mm_token_cache *const *caches, mm_err *err)
{
    MM_TRY(take_caches(batcher, caches, err));
    MM_TRY(encode_prompts(batcher, err));
    return choose_documents(batcher, err);
}
