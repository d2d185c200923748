/* Where the micro-batches of an epoch start, and how large they can become. The order of an epoch
 * is a Fisher-Yates shuffle driven by the counter-based generator; the packing is next-fit over
 * lengths alone, for the whole epoch at once. Seeking is then a look-up. */
#include "core/data/batch_parts.h"

#include "core/base/rng.h"

#include <string.h>

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

int32_t mm_batch_piece_count(const mm_batcher *batcher, int64_t length)
{
    return (int32_t)((length - 1 + batcher->options.seq_len - 1) / batcher->options.seq_len);
}

int32_t mm_batch_piece_bounds(int64_t length, int32_t piece, int32_t pieces, int64_t *first)
{
    const int64_t base = (length - 1) / pieces;
    const int64_t longer = (length - 1) % pieces; // the first ones have one more
    *first = piece * base + min_i64(piece, longer);
    return (int32_t)(base + (piece < longer ? 1 : 0));
}

/* How many rows predict so many tokens at least and at most. */
typedef struct length_counts {
    int64_t longest;   // possible
    int64_t *shortest; // (longest + 1), rows by the least they can have
    int64_t *most;     // (longest + 1), rows by the most
    int64_t total;     // of the most
} length_counts;

static mm_status count_lengths(const mm_batcher *batcher, length_counts *counts, mm_err *err)
{
    counts->longest = (int64_t)batcher->sides * batcher->options.seq_len;
    const size_t n = (size_t)counts->longest + 1;
    counts->shortest = mm_calloc(n, sizeof *counts->shortest);
    counts->most = mm_calloc(n, sizeof *counts->most);
    if (!counts->shortest || !counts->most)
        return MM_FAIL(err, MM_ENOMEM, "no memory for batches of rows of %d tokens",
                       batcher->options.seq_len);
    for (int64_t i = 0; i < batcher->n_documents; i++) {
        int64_t shortest;
        int64_t longest;
        mm_batch_row_range(batcher, batcher->documents[i], &shortest, &longest);
        counts->total += longest;
        counts->shortest[min_i64(shortest, counts->longest)]++;
        counts->most[min_i64(longest, counts->longest)]++;
    }
    return MM_OK;
}

// The most that `rows` rows can have together.
static int64_t sum_of_longest(const length_counts *counts, int64_t rows)
{
    int64_t sum = 0;
    for (int64_t length = counts->longest; length > 0 && rows > 0; length--) {
        const int64_t n = min_i64(rows, counts->most[length]);
        sum += n * length;
        rows -= n;
    }
    return sum;
}

// How many rows can fit into so many tokens.
static int64_t most_that_fit(const length_counts *counts, int64_t tokens)
{
    int64_t rows = 0;
    for (int64_t length = 1; length <= counts->longest && length <= tokens; length++) {
        const int64_t n = min_i64(counts->shortest[length], tokens / length);
        tokens -= n * length;
        rows += n;
    }
    return rows;
}

static int64_t longest_row(const length_counts *counts)
{
    int64_t length = counts->longest;
    while (length > 0 && counts->most[length] == 0)
        length--;
    return length;
}

// A step of rows: what the largest step the data can give would need.
static void size_steps(mm_batcher *batcher, const length_counts *counts)
{
    const mm_batcher_options *options = &batcher->options;
    const int64_t rows = min_i64(mm_batcher_step_rows(batcher), batcher->n_documents);
    const int64_t steps = (batcher->n_documents + rows - 1) / rows;
    const int64_t tokens = sum_of_longest(counts, rows);
    batcher->room = options->max_tokens;
    if (batcher->room == 0)
        batcher->room = (int64_t)options->batch_size * options->seq_len * batcher->sides;
    batcher->room = max_i64(batcher->room, longest_row(counts)); // a row is never parted
    batcher->max_tokens = min_i64(batcher->room, tokens);
    batcher->max_segments =
        min_i64(rows, most_that_fit(counts, batcher->max_tokens)) * batcher->sides;
    // Two neighbours of next-fit hold more than one full batch together.
    const int64_t parts = 2 * (tokens / (batcher->room + 1)) + 1;
    batcher->max_step_batches = tokens <= batcher->room ? 1 : min_i64(rows, parts);
    batcher->starts_max = min_i64(batcher->n_documents, steps * batcher->max_step_batches);
}

static void size_batches(mm_batcher *batcher, const length_counts *counts)
{
    const mm_batcher_options *options = &batcher->options;
    const int64_t rows = min_i64(options->batch_size, batcher->n_documents);
    batcher->max_step_batches = options->accumulation;
    batcher->room = (int64_t)options->batch_size * options->seq_len;
    if (options->mode == MM_BATCH_PADDED) {
        batcher->max_segments = rows;
        batcher->max_tokens = rows * options->seq_len;
        batcher->starts_max = 0;
    } else {
        batcher->max_tokens = min_i64(batcher->room, counts->total);
        batcher->max_segments = batcher->max_tokens; // pieces of one token
        batcher->starts_max = 2 * (counts->total / batcher->room) + 2;
    }
}

mm_status mm_batch_plan_sizes(mm_batcher *batcher, mm_err *err)
{
    mm_status status = MM_OK;
    length_counts counts = {0};
    const mm_batch_mode mode = batcher->options.mode;
    MM_GO(count_lengths(batcher, &counts, err));
    if (mode == MM_BATCH_ROWS || mode == MM_BATCH_PAIRS)
        size_steps(batcher, &counts);
    else
        size_batches(batcher, &counts);
    if (batcher->max_tokens > INT32_MAX || batcher->max_step_batches > INT32_MAX)
        status = MM_FAIL(err, MM_ECONFIG, "a step of %lld rows is too large",
                         (long long)mm_batcher_step_rows(batcher));
done:
    mm_free(counts.shortest);
    mm_free(counts.most);
    return status;
}

static void shuffle(mm_batcher *batcher, int64_t epoch)
{
    mm_rng rng;
    memcpy(batcher->order, batcher->documents,
           (size_t)batcher->n_documents * sizeof *batcher->order);
    if (!batcher->options.shuffle) return;
    mm_rng_init(&rng, batcher->options.seed, MM_RNG_ORDER, (uint64_t)epoch);
    for (int64_t i = batcher->n_documents - 1; i > 0; i--) {
        const uint32_t other = mm_rng_below(&rng, (uint32_t)(i + 1));
        const uint32_t kept = batcher->order[i];
        batcher->order[i] = batcher->order[other];
        batcher->order[other] = kept;
    }
}

static void put_start(mm_batcher *batcher, int64_t order_idx, int32_t piece)
{
    MM_ASSERT(batcher->n_batches < batcher->starts_max);
    batcher->starts[batcher->n_batches++] =
        (mm_batch_start){.order_idx = (uint32_t)order_idx, .piece = piece};
}

static void plan_pieces(mm_batcher *batcher, int64_t epoch)
{
    int64_t used = batcher->room; // the first piece opens the first batch
    for (int64_t i = 0; i < batcher->n_documents; i++) {
        const uint32_t document = batcher->order[i];
        const mm_row_draw draw = mm_batch_row_draw(batcher, document, epoch);
        const int64_t length = mm_batch_row_length(batcher, document, &draw, 0);
        const int32_t pieces = mm_batch_piece_count(batcher, length);
        for (int32_t piece = 0; piece < pieces; piece++) {
            int64_t first;
            const int32_t count = mm_batch_piece_bounds(length, piece, pieces, &first);
            if (used + count > batcher->room) {
                put_start(batcher, i, piece);
                used = 0;
            }
            used += count;
        }
    }
}

static void plan_rows(mm_batcher *batcher, int64_t epoch)
{
    const int64_t step_rows = mm_batcher_step_rows(batcher);
    int64_t used = 0;
    for (int64_t i = 0; i < batcher->n_documents; i++) {
        const uint32_t document = batcher->order[i];
        const mm_row_draw draw = mm_batch_row_draw(batcher, document, epoch);
        int64_t count = 0;
        for (int32_t side = 0; side < batcher->sides; side++)
            count += min_i64(mm_batch_row_length(batcher, document, &draw, side),
                             batcher->options.seq_len) -
                     1;
        if (i % step_rows == 0 || used + count > batcher->room) {
            put_start(batcher, i, 0);
            used = 0;
        }
        used += count;
    }
}

void mm_batch_plan_epoch(mm_batcher *batcher, int64_t epoch)
{
    if (batcher->epoch == epoch) return;
    shuffle(batcher, epoch);
    batcher->n_batches = 0;
    switch (batcher->options.mode) {
    case MM_BATCH_PACKED:
        plan_pieces(batcher, epoch);
        break;
    case MM_BATCH_PADDED:
        batcher->n_batches =
            (batcher->n_documents + batcher->options.batch_size - 1) / batcher->options.batch_size;
        break;
    case MM_BATCH_ROWS:
    case MM_BATCH_PAIRS:
        plan_rows(batcher, epoch);
        break;
    }
    batcher->epoch = epoch;
}
