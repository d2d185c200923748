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
    CACHED_PARTS = 3, // of eight bytes: longer words hardly repeat
    CACHED_IDS = 8,
    SEAM_BYTES = 3, // looked at on either side of a seam
    SEAM_BITS_PER_MERGE = 16,
    WIDE_BYTES = 3,            // of a character that is remembered by itself
    WIDE_CHARACTERS = 1 << 16, // all that take three bytes
    WIDE_ID_BITS = 21          // three ids to a word of memory
};
#define NO_MERGE UINT64_MAX
#define NO_PAIR  UINT64_MAX // ids are non-negative 31-bit numbers, so no pair looks like this

/* A word and its ids in one line of the processor's cache. Written once: whoever takes `state` from
 * EMPTY to FILLING owns the rest until it is FILLED, and after that nobody writes any more. */
typedef struct mm_bpe_cached {
    atomic_uchar state;
    uint8_t n_bytes;
    uint8_t n_ids;
    uint64_t parts[CACHED_PARTS]; /* see word_parts */
    int32_t ids[CACHED_IDS];
} mm_bpe_cached;

enum { EMPTY = 0, FILLING, FILLED };

_Static_assert(sizeof(mm_bpe_cached) == 64, "a look-up touches one line");

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
    bpe->cache = mm_alloc_aligned(CACHE_SLOTS * sizeof *bpe->cache);
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

/* Copies a word of 1 .. 8 * CACHED_PARTS bytes into numbers of eight, such that words of one length
 * are equal when the numbers are; gives how many there are. */
static inline size_t word_parts(const unsigned char *word, size_t length,
                                uint64_t parts[CACHED_PARTS])
{
    size_t n = 0;
    for (; length >= sizeof *parts; length -= sizeof *parts, word += sizeof *parts)
        memcpy(&parts[n++], word, sizeof *parts);
    if (length >= 4) { // the two halves overlap
        uint32_t halves[2];
        memcpy(&halves[0], word, 4);
        memcpy(&halves[1], word + length - 4, 4);
        parts[n++] = (uint64_t)halves[1] << 32 | halves[0];
    } else if (length > 0) {
        parts[n++] =
            (uint64_t)word[0] | (uint64_t)word[length / 2] << 8 | (uint64_t)word[length - 1] << 16;
    }
    return n;
}

static inline mm_bpe_cached *cache_slot(const mm_bpe *bpe, const uint64_t *parts, size_t n_parts,
                                        size_t length)
{
    uint64_t hash = length;
    for (size_t i = 0; i < n_parts; i++) {
        hash = (hash ^ parts[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return &bpe->cache[hash % CACHE_SLOTS];
}

static inline bool is_cached(const mm_bpe_cached *slot, const uint64_t *parts, size_t n_parts,
                             size_t length)
{
    if (slot->n_bytes != length) return false;
    uint64_t difference = 0;
    for (size_t i = 0; i < n_parts; i++)
        difference |= slot->parts[i] ^ parts[i];
    return difference == 0;
}

/* Puts the word into its slot if that is empty. Losing the race does no harm. */
static void cache_fill(mm_bpe_cached *slot, const uint64_t *parts, size_t n_parts, size_t length,
                       const int32_t *ids, size_t n_ids)
{
    unsigned char expected = EMPTY;
    if (n_ids > CACHED_IDS ||
        !atomic_compare_exchange_strong_explicit(&slot->state, &expected, FILLING,
                                                 memory_order_relaxed, memory_order_relaxed))
        return;
    slot->n_bytes = (uint8_t)length;
    slot->n_ids = (uint8_t)n_ids;
    memcpy(slot->parts, parts, n_parts * sizeof *parts);
    memcpy(slot->ids, ids, n_ids * sizeof *ids);
    atomic_store_explicit(&slot->state, FILLED, memory_order_release);
}

/* Ids of a piece without looking at what is known; `symbols` has room for its bytes. */
static mm_status merge_piece(const mm_bpe *bpe, const unsigned char *piece, size_t length,
                             int32_t *symbols, size_t *n, mm_err *err)
{
    for (size_t i = 0; i < length; i++)
        symbols[i] = bpe->byte_ids[piece[i]];
    if (length > SHORT_WORD_BYTES) return merge_long(bpe, symbols, length, n, err);
    *n = merge_short(bpe, symbols, length);
    return MM_OK;
}

/* Appends the ids of a piece that is merged by itself. */
static mm_status encode_piece(const mm_bpe *bpe, const unsigned char *piece, size_t length,
                              mm_ids *out, mm_err *err)
{
    MM_TRY(mm_ids_reserve(out, length + CACHED_IDS, err));
    int32_t *symbols = out->data + out->count;
    size_t n = 0;
    if (length > CACHED_PARTS * sizeof(uint64_t)) {
        MM_TRY(merge_piece(bpe, piece, length, symbols, &n, err));
        out->count += n;
        return MM_OK;
    }
    uint64_t parts[CACHED_PARTS];
    const size_t n_parts = word_parts(piece, length, parts);
    mm_bpe_cached *slot = cache_slot(bpe, parts, n_parts, length);
    const unsigned char state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (state == FILLED && is_cached(slot, parts, n_parts, length)) {
        // All of them, needed or not: a copy of known size is a few instructions.
        memcpy(symbols, slot->ids, sizeof slot->ids);
        out->count += slot->n_ids;
        return MM_OK;
    }
    MM_TRY(merge_piece(bpe, piece, length, symbols, &n, err));
    out->count += n;
    if (state == EMPTY) cache_fill(slot, parts, n_parts, length, symbols, n);
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
