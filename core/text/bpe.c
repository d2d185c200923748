/* Byte-pair merging: repeatedly merge the leftmost pair of the lowest rank.
 *
 * Short words are merged in an array, where a linear search beats any clever structure; long ones
 * in a linked list with a heap of (rank, position), so that a megabyte without a space is no worse
 * than a megabyte of words. Invariant of both: merge_of[i] is the merge of symbols i and the one
 * after it, or NO_MERGE.
 *
 * Scripts without spaces make words of whole sentences, which never come twice. So a word is first
 * cut into pieces that merging cannot join: a merge across a position joins a symbol that ends
 * there with one that begins there, hence where no pair of the table ends and begins as the text
 * does, no merge ever crosses and the two sides are merged independently. The test may say
 * "perhaps" too often (it looks at three bytes on either side, through a hash), never too seldom.
 * It is made between characters of three bytes, where it pays: most pieces of Chinese are one
 * character.
 */
#include "core/text/bpe.h"

#include <string.h>

enum {
    SHORT_WORD_BYTES = 48,
    CACHE_SLOTS = 1 << 14,
    CACHED_WORD_BYTES = 32, // longer words hardly repeat
    SEAM_BYTES = 3,         // looked at on either side of a seam
    SEAM_BITS_PER_MERGE = 16,
    WIDE_BYTES = 3,            // of a character that is remembered by itself
    WIDE_CHARACTERS = 1 << 16, // all that take three bytes
    WIDE_ID_BITS = 21          // three ids to a word of memory
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
    int seam_bits = 6;
    while ((size_t)1 << seam_bits < SEAM_BITS_PER_MERGE * n_merges)
        seam_bits++;
    bpe->pairs = mm_alloc(n_slots * sizeof *bpe->pairs);
    bpe->seams = mm_calloc((size_t)1 << (seam_bits - 6), sizeof *bpe->seams);
    bpe->cache = mm_calloc(CACHE_SLOTS, sizeof *bpe->cache);
    bpe->characters = mm_calloc(WIDE_CHARACTERS, sizeof *bpe->characters);
    if (!bpe->pairs || !bpe->seams || !bpe->cache || !bpe->characters) {
        mm_bpe_drop(bpe);
        return MM_FAIL(err, MM_ENOMEM, "out of memory for %zu merges", n_merges);
    }
    for (size_t i = 0; i < n_slots; i++) {
        bpe->pairs[i] = (mm_bpe_pair){.pair = NO_PAIR, .merge = NO_MERGE};
    }
    bpe->n_slots = n_slots;
    bpe->shift = 64 - bits;
    bpe->seam_shift = 64 - seam_bits;
    return MM_OK;
}

void mm_bpe_drop(mm_bpe *bpe)
{
    for (size_t i = 0; bpe->cache && i < CACHE_SLOTS; i++) {
        mm_free(atomic_load_explicit(&bpe->cache[i], memory_order_relaxed));
    }
    mm_free(bpe->characters);
    mm_free(bpe->cache);
    mm_free(bpe->seams);
    mm_free(bpe->pairs);
    bpe->characters = NULL;
    bpe->cache = NULL;
    bpe->seams = NULL;
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

/* Number of the bit for a seam between left[-3 .. 0) and right[0 .. 3). */
static inline size_t seam_of(const mm_bpe *bpe, const unsigned char *left_end,
                             const unsigned char *right)
{
    uint64_t bytes = 0;
    for (int i = 0; i < SEAM_BYTES; i++)
        bytes = bytes << 16 | (uint64_t)(left_end[i - SEAM_BYTES] << 8) | right[i];
    return (size_t)((bytes * 0x9E3779B97F4A7C15u) >> bpe->seam_shift);
}

void mm_bpe_add_seam(mm_bpe *bpe, const char *left, size_t left_bytes, const char *right,
                     size_t right_bytes)
{
    MM_ASSERT(left_bytes > 0 && right_bytes > 0);
    const unsigned char *left_end = (const unsigned char *)left + left_bytes;
    const unsigned char *begin = (const unsigned char *)right;
    if (left_bytes >= SEAM_BYTES && right_bytes >= SEAM_BYTES) {
        const size_t bit = seam_of(bpe, left_end, begin);
        bpe->seams[bit / 64] |= (uint64_t)1 << bit % 64;
    } else {
        const size_t bit = (size_t)left_end[-1] << 8 | begin[0];
        bpe->short_seams[bit / 64] |= (uint64_t)1 << bit % 64;
    }
}

/* Whether a merge may join what ends at `at` with what begins there, three bytes on either side. */
static inline bool may_join(const mm_bpe *bpe, const unsigned char *at)
{
    const size_t pair = (size_t)at[-1] << 8 | at[0];
    if (bpe->short_seams[pair / 64] >> pair % 64 & 1) return true;
    const size_t bit = seam_of(bpe, at, at);
    return bpe->seams[bit / 64] >> bit % 64 & 1;
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

/* Appends the ids of a piece that is merged by itself. */
static mm_status encode_piece(const mm_bpe *bpe, const unsigned char *piece, size_t length,
                              mm_ids *out, mm_err *err)
{
    MM_TRY(mm_ids_reserve(out, length, err));
    int32_t *symbols = out->data + out->count;
    const bool is_cacheable = length <= CACHED_WORD_BYTES;
    bool is_slot_free = false;
    uint64_t hash = 0;
    if (is_cacheable) {
        hash = word_hash(piece, length);
        const mm_bpe_cached *known =
            atomic_load_explicit(&bpe->cache[hash % CACHE_SLOTS], memory_order_acquire);
        if (known && known->hash == hash && known->n_bytes == length &&
            memcmp(known->word, piece, length) == 0) {
            memcpy(symbols, known->ids, known->n_ids * sizeof *symbols);
            out->count += known->n_ids;
            return MM_OK;
        }
        is_slot_free = !known;
    }
    for (size_t i = 0; i < length; i++)
        symbols[i] = bpe->byte_ids[piece[i]];
    size_t n = length;
    if (length <= SHORT_WORD_BYTES)
        n = merge_short(bpe, symbols, length);
    else
        MM_TRY(merge_long(bpe, symbols, length, &n, err));
    out->count += n;
    if (is_cacheable && is_slot_free) cache_fill(bpe, hash, piece, length, symbols, n);
    return MM_OK;
}

static inline bool is_wide(unsigned char lead) { return (lead & 0xF0) == 0xE0; }

/* Appends the ids of one character of three bytes, a piece of its own. Its ids, each plus one, fill
 * one word of memory, which is complete or 0 whatever other threads do. */
static mm_status encode_wide(const mm_bpe *bpe, const unsigned char *text, mm_ids *out, mm_err *err)
{
    const uint64_t mask = ((uint64_t)1 << WIDE_ID_BITS) - 1;
    const size_t code =
        (size_t)(text[0] & 0x0F) << 12 | (size_t)(text[1] & 0x3F) << 6 | (size_t)(text[2] & 0x3F);
    uint64_t packed = atomic_load_explicit(&bpe->characters[code], memory_order_relaxed);
    MM_TRY(mm_ids_reserve(out, WIDE_BYTES, err));
    if (packed != 0) {
        for (; packed != 0; packed >>= WIDE_ID_BITS)
            out->data[out->count++] = (int32_t)(packed & mask) - 1;
        return MM_OK;
    }
    int32_t *symbols = out->data + out->count;
    for (int i = 0; i < WIDE_BYTES; i++)
        symbols[i] = bpe->byte_ids[text[i]];
    const size_t n = merge_short(bpe, symbols, WIDE_BYTES);
    out->count += n;
    for (size_t i = 0; i < n; i++) {
        if ((uint64_t)symbols[i] + 1 > mask) return MM_OK; // too large to remember
        packed |= ((uint64_t)symbols[i] + 1) << i * WIDE_ID_BITS;
    }
    atomic_store_explicit(&bpe->characters[code], packed, memory_order_relaxed);
    return MM_OK;
}

/* Bytes of the first piece of the text. */
static size_t piece_bytes(const mm_bpe *bpe, const unsigned char *text, size_t length)
{
    bool follows_wide = false;
    for (size_t at = 0; at < length;) {
        const unsigned char lead = text[at];
        if (!is_wide(lead)) {
            at += lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : 4;
            follows_wide = false;
            continue;
        }
        if (follows_wide && !may_join(bpe, text + at)) return at;
        at += WIDE_BYTES;
        follows_wide = true;
    }
    return length;
}

mm_status mm_bpe_word(const mm_bpe *bpe, const unsigned char *word, size_t length, mm_ids *out,
                      mm_err *err)
{
    MM_ASSERT(length > 0 && length <= MM_TEXT_BYTES_MAX);
    while (length > 0) {
        const size_t bytes = piece_bytes(bpe, word, length);
        MM_ASSERT(bytes <= length);
        if (bytes == WIDE_BYTES && is_wide(word[0]))
            MM_TRY(encode_wide(bpe, word, out, err));
        else
            MM_TRY(encode_piece(bpe, word, bytes, out, err));
        word += bytes;
        length -= bytes;
    }
    return MM_OK;
}
