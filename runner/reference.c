/* The table of reference log-probabilities. See reference.h.
 *
 * A hash table with open addressing; the key is half of the SHA-256 of tokens and labels, so that
 * two answers are taken for one about as soon as a checkpoint's chunks would be. */
#include "runner/reference.h"

#include "core/base/hash.h"
#include "core/base/mem.h"

#include <string.h>

enum { KEY_BYTES = 16, FIRST_SLOTS = 1024 };

typedef struct entry {
    uint8_t key[KEY_BYTES];
    double logprob;
    bool is_used;
} entry;

struct mm_reference {
    entry *slots;
    size_t n_slots; // a power of two
    size_t n_used;
    // Segments that wait to be scored, as a batch.
    int32_t max_tokens;
    int32_t max_segments;
    int32_t n_tokens;
    int32_t n_segments;
    int64_t n_labels;
    int32_t *tokens;
    int32_t *labels;
    int32_t *segments;
    double *logprobs; // (max_tokens)
    uint8_t (*keys)[KEY_BYTES];
};

mm_status mm_reference_new(mm_reference **out, int32_t max_tokens, int32_t max_segments,
                           mm_err *err)
{
    mm_reference *r = mm_calloc(1, sizeof *r);
    *out = r;
    if (!r) return MM_FAIL(err, MM_ENOMEM, "no memory for reference log-probabilities");
    r->max_tokens = max_tokens;
    r->max_segments = max_segments;
    r->n_slots = FIRST_SLOTS;
    r->slots = mm_calloc(r->n_slots, sizeof *r->slots);
    r->tokens = mm_calloc((size_t)max_tokens, sizeof *r->tokens);
    r->labels = mm_calloc((size_t)max_tokens, sizeof *r->labels);
    r->segments = mm_calloc((size_t)max_segments + 1, sizeof *r->segments);
    r->logprobs = mm_calloc((size_t)max_tokens, sizeof *r->logprobs);
    r->keys = mm_calloc((size_t)max_segments, sizeof *r->keys);
    if (r->slots && r->tokens && r->labels && r->segments && r->logprobs && r->keys) return MM_OK;
    mm_reference_free(r);
    *out = NULL;
    return MM_FAIL(err, MM_ENOMEM, "no memory for reference log-probabilities");
}

void mm_reference_free(mm_reference *reference)
{
    if (!reference) return;
    mm_free(reference->slots);
    mm_free(reference->tokens);
    mm_free(reference->labels);
    mm_free(reference->segments);
    mm_free(reference->logprobs);
    mm_free(reference->keys);
    mm_free(reference);
}

static mm_status key_of(const mm_batch *batch, int32_t segment, uint8_t key[KEY_BYTES], mm_err *err)
{
    mm_sha256 hash;
    uint8_t digest[MM_SHA256_BYTES];
    const int32_t first = batch->segments[segment];
    const size_t bytes = (size_t)(batch->segments[segment + 1] - first) * sizeof(int32_t);
    MM_TRY(mm_sha256_init(&hash, err));
    mm_sha256_update(&hash, batch->tokens + first, bytes);
    mm_sha256_update(&hash, batch->labels + first, bytes);
    mm_sha256_final(&hash, digest);
    memcpy(key, digest, KEY_BYTES);
    return MM_OK;
}

// The slot of a key: the one that has it, or the free one where it belongs.
static entry *slot_of(entry *slots, size_t n_slots, const uint8_t key[KEY_BYTES])
{
    uint64_t at;
    memcpy(&at, key, sizeof at);
    for (;; at++) {
        entry *slot = &slots[at & (n_slots - 1)];
        if (!slot->is_used || memcmp(slot->key, key, KEY_BYTES) == 0) return slot;
    }
}

static mm_status grow(mm_reference *r, mm_err *err)
{
    const size_t n = 2 * r->n_slots;
    entry *slots = mm_calloc(n, sizeof *slots);
    if (!slots)
        return MM_FAIL(err, MM_ENOMEM, "no memory for %zu reference log-probabilities", n / 2);
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i].is_used) *slot_of(slots, n, r->slots[i].key) = r->slots[i];
    mm_free(r->slots);
    r->slots = slots;
    r->n_slots = n;
    return MM_OK;
}

// Takes the key's slot, so that an answer that comes twice waits once.
static mm_status claim_slot(mm_reference *r, const uint8_t key[KEY_BYTES], bool *is_new,
                            mm_err *err)
{
    if (2 * (r->n_used + 1) > r->n_slots) MM_TRY(grow(r, err));
    entry *slot = slot_of(r->slots, r->n_slots, key);
    *is_new = !slot->is_used;
    if (!*is_new) return MM_OK;
    memcpy(slot->key, key, KEY_BYTES);
    slot->is_used = true;
    r->n_used++;
    return MM_OK;
}

mm_status mm_reference_flush(mm_reference *r, mm_engine *engine, mm_err *err)
{
    if (r->n_segments == 0) return MM_OK;
    r->segments[r->n_segments] = r->n_tokens;
    const mm_batch batch = {.n_tokens = r->n_tokens,
                            .n_segments = r->n_segments,
                            .tokens = r->tokens,
                            .labels = r->labels,
                            .segments = r->segments,
                            .n_labels = r->n_labels};
    MM_TRY(mm_engine_logprobs(engine, &batch, r->logprobs, err));
    for (int32_t i = 0; i < r->n_segments; i++) {
        int64_t labels;
        slot_of(r->slots, r->n_slots, r->keys[i])->logprob =
            mm_segment_sum(&batch, i, r->logprobs, &labels);
    }
    r->n_tokens = 0;
    r->n_segments = 0;
    r->n_labels = 0;
    return MM_OK;
}

mm_status mm_reference_add(mm_reference *r, mm_engine *engine, const mm_batch *batch, mm_err *err)
{
    for (int32_t i = 0; i < batch->n_segments; i++) {
        uint8_t key[KEY_BYTES];
        bool is_new;
        MM_TRY(key_of(batch, i, key, err));
        MM_TRY(claim_slot(r, key, &is_new, err));
        if (!is_new) continue;
        const int32_t first = batch->segments[i];
        const int32_t n = batch->segments[i + 1] - first;
        if (r->n_tokens + n > r->max_tokens || r->n_segments == r->max_segments)
            MM_TRY(mm_reference_flush(r, engine, err));
        memcpy(r->tokens + r->n_tokens, batch->tokens + first, (size_t)n * sizeof *r->tokens);
        memcpy(r->labels + r->n_tokens, batch->labels + first, (size_t)n * sizeof *r->labels);
        memcpy(r->keys[r->n_segments], key, KEY_BYTES);
        r->segments[r->n_segments++] = r->n_tokens;
        r->n_tokens += n;
        for (int32_t t = 0; t < n; t++)
            r->n_labels += batch->labels[first + t] != MM_LABEL_IGNORE;
    }
    return MM_OK;
}

mm_status mm_reference_find(const mm_reference *r, const mm_batch *batch, int32_t segment,
                            double *logprob, mm_err *err)
{
    uint8_t key[KEY_BYTES];
    MM_TRY(key_of(batch, segment, key, err));
    const entry *slot = slot_of(r->slots, r->n_slots, key);
    if (!slot->is_used)
        return MM_FAIL(err, MM_ENOTFOUND, "an answer has no reference log-probability");
    *logprob = slot->logprob;
    return MM_OK;
}

double mm_segment_sum(const mm_batch *batch, int32_t segment, const double *logprobs,
                      int64_t *labels)
{
    double sum = 0;
    *labels = 0;
    for (int32_t t = batch->segments[segment]; t < batch->segments[segment + 1]; t++) {
        if (batch->labels[t] == MM_LABEL_IGNORE) continue;
        sum += logprobs[t];
        (*labels)++;
    }
    return sum;
}
