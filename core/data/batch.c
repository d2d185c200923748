/* Batches from token caches: filling them. What makes them a pure function of (options, epoch,
 * position): the order of an epoch and what is drawn for a row are pure functions of their numbers,
 * and where each micro-batch starts is known for the whole epoch (batch_plan.c). */
#include "core/data/batch_parts.h"

#include <string.h>

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static mm_status check_share(const char *name, double share, mm_err *err)
{
    if (share >= 0.0 && share <= 1.0) return MM_OK;
    return MM_FAIL(err, MM_ECONFIG, "%s is %g, expected 0 to 1", name, share);
}

static mm_status check_options(const mm_batcher_options *options, mm_err *err)
{
    int32_t tokens;
    if (options->batch_size < 1)
        return MM_FAIL(err, MM_ECONFIG, "batch_size is %d, expected at least 1",
                       options->batch_size);
    if (options->accumulation < 0)
        return MM_FAIL(err, MM_ECONFIG, "accumulation_steps is %d, expected at least 1",
                       options->accumulation);
    if (options->seq_len < 3)
        return MM_FAIL(err, MM_ECONFIG, "max_seq_len is %d, expected at least 3", options->seq_len);
    if (__builtin_mul_overflow(options->batch_size, options->seq_len, &tokens) ||
        tokens > INT32_MAX / 2)
        return MM_FAIL(err, MM_ECONFIG, "batch_size %d times max_seq_len %d is too large",
                       options->batch_size, options->seq_len);
    if (options->max_tokens < 0)
        return MM_FAIL(err, MM_ECONFIG, "a micro-batch of %d tokens, expected 0 or more",
                       options->max_tokens);
    if (!(options->val_fraction >= 0.0 && options->val_fraction < 1.0))
        return MM_FAIL(err, MM_ECONFIG, "the validation share is %g, expected 0 to 1 (without 1)",
                       options->val_fraction);
    if (options->max_documents < 0)
        return MM_FAIL(err, MM_ECONFIG, "the number of documents is %lld, expected 0 or more",
                       (long long)options->max_documents);
    MM_TRY(check_share("system_prompt_share", options->system_prompt_share, err));
    return check_share("drop_think_share", options->drop_think_share, err);
}

static mm_status allocate(mm_batcher *batcher, mm_err *err)
{
    const size_t tokens = (size_t)batcher->max_tokens;
    const size_t segments = (size_t)batcher->max_segments;
    const size_t starts = batcher->starts_max > 0 ? (size_t)batcher->starts_max : 1;
    batcher->order = mm_alloc((size_t)batcher->n_documents * sizeof *batcher->order);
    batcher->starts = mm_alloc(starts * sizeof *batcher->starts);
    batcher->tokens = mm_alloc(tokens * sizeof *batcher->tokens);
    batcher->labels = mm_alloc(tokens * sizeof *batcher->labels);
    batcher->segments = mm_alloc((segments + 1) * sizeof *batcher->segments);
    batcher->rows = mm_alloc(segments * sizeof *batcher->rows);
    if (batcher->order && batcher->starts && batcher->tokens && batcher->labels &&
        batcher->segments && batcher->rows)
        return MM_OK;
    return MM_FAIL(err, MM_ENOMEM, "no memory for batches of %zu tokens", tokens);
}

static mm_status allocate_row(mm_batcher *batcher, mm_err *err)
{
    const size_t tokens = (size_t)batcher->options.seq_len + 1;
    batcher->row_tokens = mm_alloc(tokens * sizeof *batcher->row_tokens);
    batcher->row_learned = mm_alloc(tokens);
    if (batcher->row_tokens && batcher->row_learned) return MM_OK;
    return MM_FAIL(err, MM_ENOMEM, "no memory for rows of %zu tokens", tokens);
}

// Pieces predict everything once; a row that is cut has to be looked at.
static void count_labels(mm_batcher *batcher)
{
    static const mm_row_draw PLAIN = {.prompt = -1};
    for (int64_t i = 0; i < batcher->n_documents; i++) {
        const uint32_t document = batcher->documents[i];
        if (!mm_batcher_cuts_rows(batcher)) {
            batcher->n_labels += mm_batch_row_labels(batcher, document);
            continue;
        }
        for (int32_t side = 0; side < batcher->sides; side++) {
            const int32_t used = mm_batch_row_cut(batcher, document, &PLAIN, side);
            for (int32_t t = 1; t < used; t++)
                batcher->n_labels += batcher->row_learned[t];
        }
    }
}

static void set_options(mm_batcher *batcher, const mm_batcher_options *options)
{
    batcher->options = *options;
    batcher->sides = options->mode == MM_BATCH_PAIRS ? 2 : 1;
    if (options->accumulation == 0) batcher->options.accumulation = 1;
    if (options->split == MM_SPLIT_VAL)
        batcher->options.system_prompt_share = batcher->options.drop_think_share = 0;
    // A tokenizer that pads with its end mark must still learn the end.
    const int32_t pad = mm_tokenizer_pad(batcher->tokenizer);
    const bool is_pad_alone =
        pad != mm_tokenizer_eos(batcher->tokenizer) && pad != mm_tokenizer_bos(batcher->tokenizer);
    batcher->unlearned_id = is_pad_alone ? pad : -1;
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
    batcher->epoch = -1;
    set_options(batcher, options);
    MM_GO(mm_batch_rows_choose(batcher, caches, err));
    MM_GO(allocate_row(batcher, err));
    MM_GO(mm_batch_plan_sizes(batcher, err));
    MM_GO(allocate(batcher, err));
    count_labels(batcher);
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
    mm_ids_drop(&batcher->prompt_ids);
    mm_str_drop(&batcher->prompt_learned);
    mm_free(batcher->starts);
    mm_free(batcher->tokens);
    mm_free(batcher->labels);
    mm_free(batcher->segments);
    mm_free(batcher->rows);
    mm_free(batcher->row_tokens);
    mm_free(batcher->row_learned);
    mm_free(batcher);
}

mm_status mm_batcher_epoch_batches(mm_batcher *batcher, int64_t epoch, int64_t *count, mm_err *err)
{
    *count = 0;
    if (epoch < 0) return MM_FAIL(err, MM_EFORMAT, "epoch %lld does not exist", (long long)epoch);
    mm_batch_plan_epoch(batcher, epoch);
    *count = batcher->n_batches;
    return MM_OK;
}

static bool steps_by_rows(const mm_batcher *batcher)
{
    return batcher->options.mode == MM_BATCH_ROWS || batcher->options.mode == MM_BATCH_PAIRS;
}

mm_status mm_batcher_epoch_steps(mm_batcher *batcher, int64_t epoch, int64_t *count, mm_err *err)
{
    MM_TRY(mm_batcher_epoch_batches(batcher, epoch, count, err));
    const int64_t parts = steps_by_rows(batcher) ? batcher->n_documents : batcher->n_batches;
    const int64_t each =
        steps_by_rows(batcher) ? mm_batcher_step_rows(batcher) : batcher->options.accumulation;
    *count = (parts + each - 1) / each;
    return MM_OK;
}

int64_t mm_batcher_labels(const mm_batcher *batcher) { return batcher->n_labels; }
int64_t mm_batcher_documents(const mm_batcher *batcher) { return batcher->n_documents; }
int64_t mm_batcher_left_out(const mm_batcher *batcher) { return batcher->n_left_out; }
int32_t mm_batcher_max_tokens(const mm_batcher *batcher) { return (int32_t)batcher->max_tokens; }
int32_t mm_batcher_max_segments(const mm_batcher *batcher)
{
    return (int32_t)batcher->max_segments;
}
int32_t mm_batcher_max_step_batches(const mm_batcher *batcher)
{
    return (int32_t)batcher->max_step_batches;
}

/* Adds the first n tokens of the row buffer, each predicting the one behind it; the last of all has
 * nothing to predict where `n` is all there is. */
static void add_tokens(mm_batcher *batcher, int32_t n, int32_t n_row)
{
    mm_batch *batch = &batcher->batch;
    int32_t *tokens = batcher->tokens + batch->n_tokens;
    int32_t *labels = batcher->labels + batch->n_tokens;
    memcpy(tokens, batcher->row_tokens, (size_t)n * sizeof *tokens);
    for (int32_t i = 0; i < n; i++) {
        const bool is_learned = i + 1 < n_row && batcher->row_learned[i + 1];
        labels[i] = is_learned ? batcher->row_tokens[i + 1] : MM_LABEL_IGNORE;
        batch->n_labels += is_learned;
    }
    batch->n_tokens += n;
}

static void end_segment(mm_batcher *batcher, uint32_t document)
{
    mm_batch *batch = &batcher->batch;
    batcher->rows[batch->n_segments] = document;
    batcher->segments[++batch->n_segments] = batch->n_tokens;
}

// Adds pieces of a document from `piece` on; false when one does not fit any more.
static bool add_pieces(mm_batcher *batcher, uint32_t document, int32_t piece)
{
    const mm_row_draw draw = mm_batch_row_draw(batcher, document, batcher->epoch);
    const int64_t length = mm_batch_row_length(batcher, document, &draw, 0);
    const int32_t pieces = mm_batch_piece_count(batcher, length);
    for (; piece < pieces; piece++) {
        int64_t first;
        const int32_t count = mm_batch_piece_bounds(length, piece, pieces, &first);
        if (batcher->batch.n_tokens + count > batcher->room) return false;
        mm_batch_row_copy(batcher, document, &draw, 0, first, count + 1, batcher->row_tokens,
                          batcher->row_learned);
        add_tokens(batcher, count, count + 1);
        end_segment(batcher, document);
    }
    return true;
}

static void fill_pieces(mm_batcher *batcher, int64_t index)
{
    const mm_batch_start start = batcher->starts[index];
    int64_t i = start.order_idx;
    bool has_room = add_pieces(batcher, batcher->order[i], start.piece);
    for (i++; has_room && i < batcher->n_documents; i++)
        has_room = add_pieces(batcher, batcher->order[i], 0);
}

static void fill_padded(mm_batcher *batcher, int64_t index)
{
    const int32_t seq_len = batcher->options.seq_len;
    const int32_t pad = mm_tokenizer_pad(batcher->tokenizer);
    const int64_t first = index * batcher->options.batch_size;
    const int64_t last = min_i64(first + batcher->options.batch_size, batcher->n_documents);
    for (int64_t i = first; i < last; i++) {
        const uint32_t document = batcher->order[i];
        const mm_row_draw draw = mm_batch_row_draw(batcher, document, batcher->epoch);
        const int32_t used = mm_batch_row_cut(batcher, document, &draw, 0);
        for (int32_t t = used; t < seq_len; t++)
            batcher->row_tokens[t] = pad >= 0 ? pad : 0;
        add_tokens(batcher, seq_len, used);
        end_segment(batcher, document);
    }
}

static void fill_rows(mm_batcher *batcher, int64_t index)
{
    const int64_t last = index + 1 < batcher->n_batches ? batcher->starts[index + 1].order_idx
                                                        : batcher->n_documents;
    for (int64_t i = batcher->starts[index].order_idx; i < last; i++) {
        const uint32_t document = batcher->order[i];
        const mm_row_draw draw = mm_batch_row_draw(batcher, document, batcher->epoch);
        for (int32_t side = 0; side < batcher->sides; side++) {
            const int32_t used = mm_batch_row_cut(batcher, document, &draw, side);
            add_tokens(batcher, used - 1, used);
            end_segment(batcher, document);
        }
    }
    batcher->batch.ends_step = last % mm_batcher_step_rows(batcher) == 0;
}

static void fill(mm_batcher *batcher, int64_t index)
{
    batcher->batch = (mm_batch){.tokens = batcher->tokens,
                                .labels = batcher->labels,
                                .segments = batcher->segments,
                                .rows = batcher->rows};
    batcher->segments[0] = 0;
    if (steps_by_rows(batcher))
        fill_rows(batcher, index);
    else if (batcher->options.mode == MM_BATCH_PADDED)
        fill_padded(batcher, index);
    else
        fill_pieces(batcher, index);
    if (!steps_by_rows(batcher))
        batcher->batch.ends_step = (index + 1) % batcher->options.accumulation == 0;
    if (index + 1 == batcher->n_batches) batcher->batch.ends_step = true;
}

mm_status mm_batcher_get(mm_batcher *batcher, mm_data_position *position, const mm_batch **batch,
                         mm_err *err)
{
    *batch = NULL;
    if (position->epoch < 0)
        return MM_FAIL(err, MM_EFORMAT, "data position: epoch %lld does not exist",
                       (long long)position->epoch);
    mm_batch_plan_epoch(batcher, position->epoch);
    if (position->micro_batch < 0 || position->micro_batch >= batcher->n_batches)
        return MM_FAIL(err, MM_EFORMAT,
                       "data position: micro-batch %lld of epoch %lld, which has %lld (other data "
                       "or options than before?)",
                       (long long)position->micro_batch, (long long)position->epoch,
                       (long long)batcher->n_batches);
    fill(batcher, position->micro_batch);
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
