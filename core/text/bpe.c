/* Byte-pair merging: repeatedly merge the leftmost pair of the lowest rank.
 *
 * Short words are merged in an array, where a linear search beats any clever structure; long ones
 * in a linked list with a heap of (rank, position), so that a megabyte without a space is no worse
 * than a megabyte of words. Invariant of both: merge_of[i] is the merge of symbols i and the one
 * after it, or NO_MERGE.
 */
#include "core/text/bpe.h"

#include <string.h>

enum {
    SHORT_WORD_BYTES = 48,
    CACHE_SLOTS = 1 << 14,
    CACHED_WORD_BYTES = 32 // longer words hardly repeat
};
#define NO_MERGE UINT64_MAX
#define NO_PAIR  UINT64_MAX // ids are non-negative 31-bit numbers, so no pair looks like this

typedef struct mm_bpe_cached {
    uint64_t hash;
    uint8_t n_bytes;
    uint8_t n_ids;
    unsigned char word[CACHED_WORD_BYTES];
    int32_t ids[]; /* n_ids */
} mm_bpe_cached;

static inline size_t slot_of(const mm_bpe *bpe, uint64_t pair)
{
    // Fibonacci hashing; the fold brings the left id, which sits in the upper half, into play.
    return (size_t)(((pair ^ pair >> 29) * 0x9E3779B97F4A7C15u) >> bpe->shift);
}

mm_status mm_bpe_init(mm_bpe *bpe, size_t n_merges, mm_err *err)
{
    MM_ASSERT(!bpe->pairs);
    size_t n_slots = 16;
    int bits = 4;
    while (n_slots < 2 * n_merges) {
        n_slots *= 2;
        bits++;
    }
    bpe->pairs = mm_alloc(n_slots * sizeof *bpe->pairs);
    bpe->cache = mm_calloc(CACHE_SLOTS, sizeof *bpe->cache);
    if (!bpe->pairs || !bpe->cache) {
        mm_bpe_drop(bpe);
        return MM_FAIL(err, MM_ENOMEM, "out of memory for %zu merges", n_merges);
    }
    for (size_t i = 0; i < n_slots; i++) {
        bpe->pairs[i] = (mm_bpe_pair){.pair = NO_PAIR, .merge = NO_MERGE};
    }
    bpe->n_slots = n_slots;
    bpe->shift = 64 - bits;
    return MM_OK;
}

void mm_bpe_drop(mm_bpe *bpe)
{
    for (size_t i = 0; bpe->cache && i < CACHE_SLOTS; i++) {
        mm_free(atomic_load_explicit(&bpe->cache[i], memory_order_relaxed));
    }
    mm_free(bpe->cache);
    mm_free(bpe->pairs);
    bpe->cache = NULL;
    bpe->pairs = NULL;
}

bool mm_bpe_add(mm_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    MM_ASSERT(left >= 0 && right >= 0 && id >= 0);
    const uint64_t pair = (uint64_t)left << 32 | (uint64_t)right;
    size_t slot = slot_of(bpe, pair);
    while (bpe->pairs[slot].pair != NO_PAIR) {
        if (bpe->pairs[slot].pair == pair) return false;
        slot = (slot + 1) & (bpe->n_slots - 1);
    }
    bpe->pairs[slot] = (mm_bpe_pair){.pair = pair, .merge = (uint64_t)rank << 32 | (uint64_t)id};
    return true;
}

/* Rank and id of merging these two, NO_MERGE if they do not merge. */
static inline uint64_t merge_of_pair(const mm_bpe *bpe, int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)left << 32 | (uint64_t)right;
    size_t slot = slot_of(bpe, pair);
    while (bpe->pairs[slot].pair != pair) {
        if (bpe->pairs[slot].pair == NO_PAIR) return NO_MERGE;
        slot = (slot + 1) & (bpe->n_slots - 1);
    }
    return bpe->pairs[slot].merge;
}

static inline int32_t id_of_merge(uint64_t merge) { return (int32_t)(uint32_t)merge; }

/* Merges in place; returns how many symbols are left. 1 <= n <= SHORT_WORD_BYTES. */
static size_t merge_short(const mm_bpe *bpe, int32_t *symbols, size_t n)
{
    uint64_t merge_of[SHORT_WORD_BYTES];
    for (size_t i = 0; i + 1 < n; i++) {
        merge_of[i] = merge_of_pair(bpe, symbols[i], symbols[i + 1]);
    }
    while (n > 1) {
        size_t best = 0;
        // The id in the lower half does not disturb the order: one rank has one id.
        for (size_t i = 1; i + 1 < n; i++) {
            if (merge_of[i] < merge_of[best]) best = i;
        }
        if (merge_of[best] == NO_MERGE) break;
        symbols[best] = id_of_merge(merge_of[best]);
        for (size_t i = best + 1; i + 1 < n; i++) {
            symbols[i] = symbols[i + 1];
            merge_of[i - 1] = merge_of[i];
        }
        n--;
        if (best > 0) merge_of[best - 1] = merge_of_pair(bpe, symbols[best - 1], symbols[best]);
        if (best + 1 < n) merge_of[best] = merge_of_pair(bpe, symbols[best], symbols[best + 1]);
    }
    return n;
}

typedef struct long_word {
    uint32_t *before; /* position of the symbol before, NONE for the first */
    uint32_t *after;
    uint64_t *merge_of;
    uint64_t *heap; /* rank in the upper half, position in the lower; smallest first */
    size_t n_heap;
} long_word;

#define NONE UINT32_MAX

static void heap_sink(uint64_t *heap, size_t count, size_t at)
{
    const uint64_t moving = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= moving) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void heap_push(long_word *list, uint64_t entry)
{
    size_t at = list->n_heap++;
    while (at > 0 && list->heap[(at - 1) / 2] > entry) {
        list->heap[at] = list->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    list->heap[at] = entry;
}

static inline uint64_t heap_entry(uint64_t merge, size_t at)
{
    return (merge & ~(uint64_t)UINT32_MAX) | at;
}

/* Looks the pair that starts at `at` up again after one of its halves changed. */
static void renew(const mm_bpe *bpe, long_word *list, const int32_t *symbols, uint32_t at)
{
    const uint32_t next = list->after[at];
    list->merge_of[at] = next == NONE ? NO_MERGE : merge_of_pair(bpe, symbols[at], symbols[next]);
    if (list->merge_of[at] != NO_MERGE) heap_push(list, heap_entry(list->merge_of[at], at));
}

static void merge_all(const mm_bpe *bpe, long_word *list, int32_t *symbols)
{
    while (list->n_heap > 0) {
        const uint64_t top = list->heap[0];
        const uint32_t at = (uint32_t)top;
        list->heap[0] = list->heap[--list->n_heap];
        heap_sink(list->heap, list->n_heap, 0);
        // Entries are not removed when their pair changes; a stale one does not match any more.
        if (list->merge_of[at] == NO_MERGE || heap_entry(list->merge_of[at], at) != top) continue;
        const uint32_t gone = list->after[at];
        symbols[at] = id_of_merge(list->merge_of[at]);
        list->merge_of[gone] = NO_MERGE;
        list->after[at] = list->after[gone];
        if (list->after[gone] != NONE) list->before[list->after[gone]] = at;
        renew(bpe, list, symbols, at);
        if (list->before[at] != NONE) renew(bpe, list, symbols, list->before[at]);
    }
}

static mm_status merge_long(const mm_bpe *bpe, int32_t *symbols, size_t n, size_t *left,
                            mm_err *err)
{
    mm_status status = MM_OK;
    long_word list = {
        .before = mm_alloc(n * sizeof *list.before),
        .after = mm_alloc(n * sizeof *list.after),
        .merge_of = mm_alloc(n * sizeof *list.merge_of),
        // At most n-1 at first, and each of at most n-1 merges takes one and adds two.
        .heap = mm_alloc(2 * n * sizeof *list.heap)};
    if (!list.before || !list.after || !list.merge_of || !list.heap) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory for a word of %zu bytes", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        list.before[i] = i == 0 ? NONE : (uint32_t)(i - 1);
        list.after[i] = i + 1 == n ? NONE : (uint32_t)(i + 1);
        list.merge_of[i] = i + 1 == n ? NO_MERGE : merge_of_pair(bpe, symbols[i], symbols[i + 1]);
        if (list.merge_of[i] != NO_MERGE)
            list.heap[list.n_heap++] = heap_entry(list.merge_of[i], i);
    }
    for (size_t i = list.n_heap / 2; i > 0; i--)
        heap_sink(list.heap, list.n_heap, i - 1);
    merge_all(bpe, &list, symbols);
    *left = 0;
    for (uint32_t at = 0; at != NONE; at = list.after[at])
        symbols[(*left)++] = symbols[at];
done:
    mm_free(list.heap);
    mm_free(list.merge_of);
    mm_free(list.after);
    mm_free(list.before);
    return status;
}

static uint64_t word_hash(const unsigned char *word, size_t length)
{
    uint64_t hash = length;
    while (length > 0) {
        uint64_t part = 0;
        const size_t take = length < sizeof part ? length : sizeof part;
        memcpy(&part, word, take);
        hash = (hash ^ part) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
        word += take;
        length -= take;
    }
    return hash;
}

/* Puts the word into its slot if that is free. Losing the race or the memory does no harm. */
static void cache_fill(const mm_bpe *bpe, uint64_t hash, const unsigned char *word, size_t length,
                       const int32_t *ids, size_t n_ids)
{
    mm_bpe_cached *entry = mm_alloc(sizeof *entry + n_ids * sizeof *ids);
    if (!entry) return;
    *entry = (mm_bpe_cached){.hash = hash, .n_bytes = (uint8_t)length, .n_ids = (uint8_t)n_ids};
    memcpy(entry->word, word, length);
    memcpy(entry->ids, ids, n_ids * sizeof *ids);
    mm_bpe_cached *expected = NULL;
    if (!atomic_compare_exchange_strong_explicit(&bpe->cache[hash % CACHE_SLOTS], &expected, entry,
                                                 memory_order_release, memory_order_relaxed))
        mm_free(entry);
}

mm_status mm_bpe_word(const mm_bpe *bpe, const unsigned char *word, size_t length, mm_ids *out,
                      mm_err *err)
{
    MM_ASSERT(length > 0 && length <= MM_TEXT_BYTES_MAX);
    MM_TRY(mm_ids_reserve(out, length, err));
    int32_t *symbols = out->data + out->count;
    const bool is_cacheable = length <= CACHED_WORD_BYTES;
    bool is_slot_free = false;
    uint64_t hash = 0;
    if (is_cacheable) {
        hash = word_hash(word, length);
        const mm_bpe_cached *known =
            atomic_load_explicit(&bpe->cache[hash % CACHE_SLOTS], memory_order_acquire);
        if (known && known->hash == hash && known->n_bytes == length &&
            memcmp(known->word, word, length) == 0) {
            memcpy(symbols, known->ids, known->n_ids * sizeof *symbols);
            out->count += known->n_ids;
            return MM_OK;
        }
        is_slot_free = !known;
    }
    for (size_t i = 0; i < length; i++)
        symbols[i] = bpe->byte_ids[word[i]];
    size_t n = length;
    if (length <= SHORT_WORD_BYTES)
        n = merge_short(bpe, symbols, length);
    else
        MM_TRY(merge_long(bpe, symbols, length, &n, err));
    out->count += n;
    if (is_cacheable && is_slot_free) cache_fill(bpe, hash, word, length, symbols, n);
    return MM_OK;
}
