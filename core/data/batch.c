/* Batches from token caches. What makes them a pure function of (options, epoch, position): the
 * order of an epoch is a Fisher-Yates shuffle driven by the counter-based generator, and the
 * packing is computed for the whole epoch at once, from lengths alone, into a table of where each
 * micro-batch starts. Seeking is then a look-up. */
#include "core/data/batch.h"

#include "core/base/rng.h"

#include <string.h>

// Where a packed micro-batch starts.
typedef struct batch_start {
    uint32_t order_idx;
    int32_t piece;
} batch_start;

struct mm_batcher {
    const mm_token_cache **caches;
    size_t n_caches;
    const mm_tokenizer *tokenizer;
    mm_batcher_options options;
    int64_t *first_document; // (n_caches + 1), number of the first document of each cache
    uint32_t *documents;     // of the split, in file order
    uint32_t *order;         // of the epoch
    int64_t n_documents;
    int64_t n_labels; // of one epoch
    int64_t epoch;    // that `order` and `starts` are of; -1: none yet
    int64_t n_batches;
    batch_start *starts;
    int64_t starts_max;
    int32_t unlearned_id; // never a label in an unpacked row; -1: none
    int32_t *tokens;
    int32_t *labels;
    int32_t *segments;
    mm_batch batch;
};

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

// The cache of a document, and its number there.
static const mm_token_cache *cache_of(const mm_batcher *batcher, uint32_t document, int64_t *local)
{
    size_t i = 0;
    while ((int64_t)document >= batcher->first_document[i + 1])
        i++;
    *local = (int64_t)document - batcher->first_document[i];
    return batcher->caches[i];
}

static int64_t length_of(const mm_batcher *batcher, uint32_t document)
{
    int64_t local;
    const mm_token_cache *cache = cache_of(batcher, document, &local);
    return mm_token_cache_length(cache, (mm_cached){.row = local});
}

static void copy_tokens(const mm_batcher *batcher, uint32_t document, int64_t first, int32_t count,
                        int32_t *out)
{
    int64_t local;
    const mm_token_cache *cache = cache_of(batcher, document, &local);
    mm_token_cache_copy(cache, (mm_cached){.row = local}, first, count, out, NULL);
}

/* Pieces of a document: as few as possible, lengths differing by one at most, so that no piece is a
 * stump that predicts without context. */
static int32_t piece_count(const mm_batcher *batcher, uint32_t document)
{
    const int64_t pairs = length_of(batcher, document) - 1;
    return (int32_t)((pairs + batcher->options.seq_len - 1) / batcher->options.seq_len);
}

static int32_t piece_bounds(const mm_batcher *batcher, uint32_t document, int32_t piece,
                            int32_t pieces, int64_t *first)
{
    const int64_t pairs = length_of(batcher, document) - 1;
    const int64_t base = pairs / pieces;
    const int64_t longer = pairs % pieces; // the first ones have one pair more
    *first = piece * base + min_i64(piece, longer);
    return (int32_t)(base + (piece < longer ? 1 : 0));
}

// One row of an unpacked batch; returns the number of labels.
static int32_t fill_row(const mm_batcher *batcher, uint32_t document, int32_t *tokens,
                        int32_t *labels)
{
    const int32_t seq_len = batcher->options.seq_len;
    const int64_t length = length_of(batcher, document);
    const int32_t used = (int32_t)min_i64(length, seq_len);
    const int32_t pad = mm_tokenizer_pad(batcher->tokenizer);
    const int32_t eos = mm_tokenizer_eos(batcher->tokenizer);
    int32_t n_labels = 0;
    copy_tokens(batcher, document, 0, used, tokens);
    if (length > seq_len && eos >= 0) {
        // A text keeps its end mark when it is cut. A conversation has none and is just cut.
        int32_t last;
        copy_tokens(batcher, document, length - 1, 1, &last);
        if (last == eos) tokens[seq_len - 1] = eos;
    }
    for (int32_t i = used; i < seq_len; i++)
        tokens[i] = pad >= 0 ? pad : 0;
    for (int32_t i = 0; i < seq_len; i++) {
        const bool is_learned = i + 1 < used && tokens[i + 1] != batcher->unlearned_id;
        labels[i] = is_learned ? tokens[i + 1] : MM_LABEL_IGNORE;
        n_labels += is_learned;
    }
    return n_labels;
}

static mm_status check_options(const mm_batcher_options *options, mm_err *err)
{
    int32_t tokens;
    if (options->batch_size < 1)
        return MM_FAIL(err, MM_ECONFIG, "batch_size is %d, expected at least 1",
                       options->batch_size);
    if (options->seq_len < 3)
        return MM_FAIL(err, MM_ECONFIG, "max_seq_len is %d, expected at least 3", options->seq_len);
    if (__builtin_mul_overflow(options->batch_size, options->seq_len, &tokens) ||
        tokens == INT32_MAX)
        return MM_FAIL(err, MM_ECONFIG, "batch_size %d times max_seq_len %d is too large",
                       options->batch_size, options->seq_len);
    if (!(options->val_fraction >= 0.0 && options->val_fraction < 1.0))
        return MM_FAIL(err, MM_ECONFIG, "the validation share is %g, expected 0 to 1 (without 1)",
                       options->val_fraction);
    if (options->max_documents < 0)
        return MM_FAIL(err, MM_ECONFIG, "the number of documents is %lld, expected 0 or more",
                       (long long)options->max_documents);
    return MM_OK;
}

// What the documents' keys say about the split, from a first look at all of them.
typedef struct key_range {
    uint64_t least;
    uint64_t most;
    bool is_any; // has a document of two tokens or more: one alone predicts nothing
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

static mm_status count_documents(mm_batcher *batcher, mm_token_cache *const *caches, mm_err *err)
{
    batcher->first_document = mm_calloc(batcher->n_caches + 1, sizeof *batcher->first_document);
    batcher->caches = mm_calloc(batcher->n_caches, sizeof *batcher->caches);
    if (!batcher->first_document || !batcher->caches)
        return MM_FAIL(err, MM_ENOMEM, "no memory for batches");
    for (size_t i = 0; i < batcher->n_caches; i++) {
        const mm_token_cache *cache = caches[i];
        batcher->caches[i] = cache;
        if (strcmp(mm_token_cache_tokenizer_hash(cache), mm_tokenizer_hash(batcher->tokenizer)) !=
            0)
            return MM_FAIL(err, MM_ECONFIG, "%s: made with another tokenizer",
                           mm_token_cache_path(cache));
        batcher->first_document[i + 1] =
            batcher->first_document[i] + mm_token_cache_info(cache)->documents;
    }
    if (batcher->first_document[batcher->n_caches] >= UINT32_MAX)
        return MM_FAIL(err, MM_ELIMIT, "%lld documents, at most %u are possible",
                       (long long)batcher->first_document[batcher->n_caches], UINT32_MAX);
    return MM_OK;
}

static key_range find_keys(const mm_batcher *batcher, uint32_t total)
{
    key_range keys = {.least = UINT64_MAX};
    for (uint32_t document = 0; document < total; document++) {
        int64_t local;
        const mm_token_cache *cache = cache_of(batcher, document, &local);
        if (mm_token_cache_length(cache, (mm_cached){.row = local}) < 2) continue;
        const uint64_t key = mm_token_cache_key(cache, local);
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
        int64_t local;
        const mm_token_cache *cache = cache_of(batcher, document, &local);
        if (options->max_documents > 0 && batcher->n_documents == options->max_documents) break;
        if (mm_token_cache_length(cache, (mm_cached){.row = local}) < 2) continue;
        const bool is_val =
            is_held_out(&keys, options->val_fraction, mm_token_cache_key(cache, local));
        if (options->split != MM_SPLIT_ALL && is_val != (options->split == MM_SPLIT_VAL)) continue;
        batcher->documents[batcher->n_documents++] = document;
    }
    if (batcher->n_documents > 0) return MM_OK;
    if (!keys.is_any)
        return MM_FAIL(err, MM_EFORMAT, "%s: none of %u documents has two tokens or more",
                       mm_token_cache_path(batcher->caches[0]), total);
    return MM_FAIL(err, MM_EFORMAT, "none of the %u documents is on the validation side (share %g)",
                   total, options->val_fraction);
}

static mm_status allocate(mm_batcher *batcher, mm_err *err)
{
    const mm_batcher_options *options = &batcher->options;
    const size_t tokens = (size_t)options->batch_size * (size_t)options->seq_len;
    // Two neighbours of next-fit hold more than one full batch together, so that is the most.
    batcher->starts_max =
        options->mode == MM_BATCH_PACKED ? 2 * (batcher->n_labels / (int64_t)tokens) + 2 : 1;
    batcher->order = mm_alloc((size_t)batcher->n_documents * sizeof *batcher->order);
    batcher->starts = mm_alloc((size_t)batcher->starts_max * sizeof *batcher->starts);
    batcher->tokens = mm_alloc(tokens * sizeof *batcher->tokens);
    batcher->labels = mm_alloc(tokens * sizeof *batcher->labels);
    batcher->segments = mm_alloc((tokens + 1) * sizeof *batcher->segments);
    if (batcher->order && batcher->starts && batcher->tokens && batcher->labels &&
        batcher->segments)
        return MM_OK;
    return MM_FAIL(err, MM_ENOMEM, "no memory for batches of %zu tokens", tokens);
}

static mm_status count_labels(mm_batcher *batcher, mm_err *err)
{
    if (batcher->options.mode == MM_BATCH_PACKED) {
        for (int64_t i = 0; i < batcher->n_documents; i++)
            batcher->n_labels += length_of(batcher, batcher->documents[i]) - 1;
        return MM_OK;
    }
    // Which ids are labels depends on the ids, so the rows are made once.
    const size_t bytes = (size_t)batcher->options.seq_len * sizeof(int32_t);
    int32_t *tokens = mm_alloc(bytes);
    int32_t *labels = mm_alloc(bytes);
    for (int64_t i = 0; tokens && labels && i < batcher->n_documents; i++)
        batcher->n_labels += fill_row(batcher, batcher->documents[i], tokens, labels);
    const bool is_done = tokens && labels;
    mm_free(tokens);
    mm_free(labels);
    return is_done ? MM_OK : MM_FAIL(err, MM_ENOMEM, "no memory for rows of %zu bytes", bytes);
}

mm_status mm_batcher_new(mm_batcher **out, mm_token_cache *const *caches, size_t n_caches,
                         const mm_tokenizer *tokenizer, const mm_batcher_options *options,
                         mm_err *err)
{
    mm_status status = MM_OK;
    *out = NULL;
    MM_ASSERT(n_caches > 0);
    MM_TRY(check_options(options, err));
    mm_batcher *batcher = mm_calloc(1, sizeof *batcher);
    if (!batcher) return MM_FAIL(err, MM_ENOMEM, "no memory for batches");
    batcher->n_caches = n_caches;
    batcher->tokenizer = tokenizer;
    batcher->options = *options;
    batcher->epoch = -1;
    // A tokenizer that pads with its end mark must still learn the end.
    const int32_t pad = mm_tokenizer_pad(tokenizer);
    const bool is_pad_alone =
        pad != mm_tokenizer_eos(tokenizer) && pad != mm_tokenizer_bos(tokenizer);
    batcher->unlearned_id = is_pad_alone ? pad : -1;
    MM_GO(count_documents(batcher, caches, err));
    MM_GO(choose_documents(batcher, err));
    MM_GO(count_labels(batcher, err));
    MM_GO(allocate(batcher, err));
    *out = batcher;
    batcher = NULL;
done:
    mm_batcher_free(batcher);
    return status;
}

void mm_batcher_free(mm_batcher *batcher)
{
    if (!batcher) return;
    mm_free(batcher->caches);
    mm_free(batcher->first_document);
    mm_free(batcher->documents);
    mm_free(batcher->order);
    mm_free(batcher->starts);
    mm_free(batcher->tokens);
    mm_free(batcher->labels);
    mm_free(batcher->segments);
    mm_free(batcher);
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

// Next-fit over the lengths: fills the table of starts.
static void plan_packing(mm_batcher *batcher)
{
    const int64_t room = (int64_t)batcher->options.batch_size * batcher->options.seq_len;
    int64_t used = room; // the first piece opens the first batch
    batcher->n_batches = 0;
    for (int64_t i = 0; i < batcher->n_documents; i++) {
        const int32_t pieces = piece_count(batcher, batcher->order[i]);
        for (int32_t piece = 0; piece < pieces; piece++) {
            int64_t first;
            const int32_t count = piece_bounds(batcher, batcher->order[i], piece, pieces, &first);
            if (used + count > room) {
                MM_ASSERT(batcher->n_batches < batcher->starts_max);
                batcher->starts[batcher->n_batches++] =
                    (batch_start){.order_idx = (uint32_t)i, .piece = piece};
                used = 0;
            }
            used += count;
        }
    }
}

static void load_epoch(mm_batcher *batcher, int64_t epoch)
{
    if (batcher->epoch == epoch) return;
    shuffle(batcher, epoch);
    if (batcher->options.mode == MM_BATCH_PACKED)
        plan_packing(batcher);
    else
        batcher->n_batches =
            (batcher->n_documents + batcher->options.batch_size - 1) / batcher->options.batch_size;
    batcher->epoch = epoch;
}

mm_status mm_batcher_epoch_batches(mm_batcher *batcher, int64_t epoch, int64_t *count, mm_err *err)
{
    *count = 0;
    if (epoch < 0) return MM_FAIL(err, MM_EFORMAT, "epoch %lld does not exist", (long long)epoch);
    load_epoch(batcher, epoch);
    *count = batcher->n_batches;
    return MM_OK;
}

int64_t mm_batcher_labels(const mm_batcher *batcher) { return batcher->n_labels; }
int64_t mm_batcher_documents(const mm_batcher *batcher) { return batcher->n_documents; }

// Adds pieces of a document from `piece` on; false when one does not fit any more.
static bool add_pieces(mm_batcher *batcher, uint32_t document, int32_t piece, mm_batch *batch)
{
    const int64_t room = (int64_t)batcher->options.batch_size * batcher->options.seq_len;
    const int32_t pieces = piece_count(batcher, document);
    for (; piece < pieces; piece++) {
        int64_t first;
        const int32_t count = piece_bounds(batcher, document, piece, pieces, &first);
        if (batch->n_tokens + count > room) return false;
        copy_tokens(batcher, document, first, count, batcher->tokens + batch->n_tokens);
        copy_tokens(batcher, document, first + 1, count, batcher->labels + batch->n_tokens);
        batch->n_tokens += count;
        batcher->segments[++batch->n_segments] = batch->n_tokens;
    }
    return true;
}

static void fill_packed(mm_batcher *batcher, int64_t index)
{
    const batch_start start = batcher->starts[index];
    int64_t i = start.order_idx;
    batcher->batch = (mm_batch){0};
    batcher->segments[0] = 0;
    bool has_room = add_pieces(batcher, batcher->order[i], start.piece, &batcher->batch);
    for (i++; has_room && i < batcher->n_documents; i++)
        has_room = add_pieces(batcher, batcher->order[i], 0, &batcher->batch);
    batcher->batch.n_labels = batcher->batch.n_tokens;
}

static void fill_unpacked(mm_batcher *batcher, int64_t index)
{
    const int32_t seq_len = batcher->options.seq_len;
    const int64_t first = index * batcher->options.batch_size;
    const int32_t rows =
        (int32_t)min_i64(batcher->options.batch_size, batcher->n_documents - first);
    int64_t n_labels = 0;
    batcher->segments[0] = 0;
    for (int32_t row = 0; row < rows; row++) {
        n_labels += fill_row(batcher, batcher->order[first + row], batcher->tokens + row * seq_len,
                             batcher->labels + row * seq_len);
        batcher->segments[row + 1] = (row + 1) * seq_len;
    }
    batcher->batch =
        (mm_batch){.n_tokens = rows * seq_len, .n_segments = rows, .n_labels = n_labels};
}

mm_status mm_batcher_get(mm_batcher *batcher, mm_data_position *position, const mm_batch **batch,
                         mm_err *err)
{
    *batch = NULL;
    if (position->epoch < 0)
        return MM_FAIL(err, MM_EFORMAT, "data position: epoch %lld does not exist",
                       (long long)position->epoch);
    load_epoch(batcher, position->epoch);
    if (position->micro_batch < 0 || position->micro_batch >= batcher->n_batches)
        return MM_FAIL(err, MM_EFORMAT,
                       "data position: micro-batch %lld of epoch %lld, which has %lld (other data "
                       "or options than before?)",
                       (long long)position->micro_batch, (long long)position->epoch,
                       (long long)batcher->n_batches);
    if (batcher->options.mode == MM_BATCH_PACKED)
        fill_packed(batcher, position->micro_batch);
    else
        fill_unpacked(batcher, position->micro_batch);
    batcher->batch.tokens = batcher->tokens;
    batcher->batch.labels = batcher->labels;
    batcher->batch.segments = batcher->segments;
    position->micro_batch++;
    if (position->micro_batch == batcher->n_batches)
        *position = (mm_data_position){.epoch = position->epoch + 1, .micro_batch = 0};
    *batch = &batcher->batch;
    return MM_OK;
}

int64_t mm_batch_label_bytes(const mm_batch *batch, const mm_tokenizer *tokenizer)
{
    int64_t total = 0;
    for (int32_t i = 0; i < batch->n_tokens; i++) {
        size_t bytes;
        bool is_special;
        if (batch->labels[i] == MM_LABEL_IGNORE) continue;
        (void)mm_tokenizer_token(tokenizer, batch->labels[i], &bytes, &is_special);
        if (!is_special) total += (int64_t)bytes;
    }
    return total;
}
