/* Tests of core/data/batch.h: properties that every order and packing must have, the exact rows of
 * the unpacked form, resuming, the split, and the counts. */
#include "tests/data/fixtures.h"

#include "core/base/rng.h"

#include <math.h>

static mm_tokenizer *tokenizer;  // 512 tokens
static mm_tokenizer *bytes_only; // no merges: a token per byte
static char *dir;

static mm_token_cache *open_cache(const char *name, const mm_tokenizer *with)
{
    char *data = path_in(dir, name);
    char *folder = path_in(dir, "cache");
    const mm_cache_options options = {.path = data, .dir = folder, .mask = MM_MASK_ALL};
    mm_token_cache *cache;
    CHECK_OK(mm_token_cache_open(&cache, &options, with, ok_err));
    mm_free(data);
    mm_free(folder);
    return cache;
}

static mm_token_cache *synth_cache(const char *name, mm_synth_kind kind, uint64_t seed,
                                   int64_t rows)
{
    char *data = path_in(dir, name);
    const mm_synth_options options = {.kind = kind, .seed = seed, .rows = rows};
    CHECK_OK(mm_synth_file(&options, data, ok_err));
    mm_free(data);
    return open_cache(name, tokenizer);
}

static mm_token_cache *text_cache(const char *name, const char *content, const mm_tokenizer *with)
{
    char *data = path_in(dir, name);
    write_text(data, content);
    mm_free(data);
    return open_cache(name, with);
}

static mm_batcher *batcher_of(mm_token_cache **caches, size_t n_caches,
                              const mm_batcher_options *options)
{
    mm_batcher *batcher;
    CHECK_OK(mm_batcher_new(&batcher, caches, n_caches, tokenizer, options, ok_err));
    return batcher;
}

static uint64_t hash_ids(const int32_t *ids, int64_t count)
{
    uint8_t digest[MM_SHA256_BYTES];
    uint64_t hash;
    mm_sha256_of(ids, (size_t)count * sizeof *ids, digest);
    memcpy(&hash, digest, sizeof hash);
    return hash;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a;
    const uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Hashes of all documents, sorted; *count of them. */
static uint64_t *document_hashes(mm_token_cache **caches, size_t n_caches, size_t *count)
{
    uint64_t *hashes = mm_alloc(100000 * sizeof *hashes);
    *count = 0;
    for (size_t i = 0; i < n_caches; i++) {
        for (int64_t k = 0; k < mm_token_cache_info(caches[i])->documents; k++) {
            const int64_t length = mm_token_cache_length(caches[i], (mm_cached){.row = k});
            int32_t *ids = mm_alloc((size_t)length * sizeof *ids);
            mm_token_cache_copy(caches[i], (mm_cached){.row = k}, 0, (int32_t)length, ids, NULL);
            hashes[(*count)++] = hash_ids(ids, length);
            mm_free(ids);
        }
    }
    qsort(hashes, *count, sizeof *hashes, compare_u64);
    return hashes;
}

/* Puts the pieces of an epoch together again: a document ends where a segment's last label is the
 * end mark. What comes out must be the documents, each once. */
typedef struct rebuilt {
    int32_t ids[100000];
    int64_t used;
    uint64_t *hashes;
    size_t count;
} rebuilt;

static void rebuild_segment(rebuilt *epoch, const mm_batch *batch, int32_t segment)
{
    const int32_t from = batch->segments[segment];
    const int32_t to = batch->segments[segment + 1];
    for (int32_t t = from; t < to; t++) {
        // Inside a segment the label is the next input; across documents it would not be.
        if (t + 1 < to) assert_int_equal(batch->labels[t], batch->tokens[t + 1]);
        assert_int_not_equal(batch->labels[t], mm_tokenizer_bos(tokenizer));
        epoch->ids[epoch->used++] = batch->tokens[t];
    }
    if (batch->labels[to - 1] != mm_tokenizer_eos(tokenizer)) return;
    epoch->ids[epoch->used++] = mm_tokenizer_eos(tokenizer);
    assert_int_equal(epoch->ids[0], mm_tokenizer_bos(tokenizer));
    epoch->hashes[epoch->count++] = hash_ids(epoch->ids, epoch->used);
    epoch->used = 0;
}

static void check_packed_epoch(mm_batcher *batcher, const mm_batcher_options *options,
                               int64_t number, const uint64_t *expected, size_t expected_count)
{
    rebuilt *epoch = mm_calloc(1, sizeof *epoch);
    epoch->hashes = mm_alloc((expected_count + 1) * sizeof *epoch->hashes);
    mm_data_position position = {.epoch = number};
    int64_t batches = 0;
    int64_t labels = 0;
    int64_t tokens = 0;
    while (position.epoch == number) {
        const mm_batch *batch;
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        assert_in_range(batch->n_tokens, 1, options->batch_size * options->seq_len);
        assert_int_equal(batch->segments[0], 0);
        assert_int_equal(batch->segments[batch->n_segments], batch->n_tokens);
        for (int32_t i = 0; i < batch->n_segments; i++) {
            assert_in_range(batch->segments[i + 1] - batch->segments[i], 1, options->seq_len);
            rebuild_segment(epoch, batch, i);
        }
        assert_int_equal(batch->n_labels, batch->n_tokens);
        labels += batch->n_labels;
        tokens += batch->n_tokens;
        batches++;
    }
    int64_t count;
    CHECK_OK(mm_batcher_epoch_batches(batcher, number, &count, ok_err));
    assert_int_equal(batches, count);
    assert_int_equal(labels, mm_batcher_labels(batcher));
    assert_int_equal(epoch->used, 0);
    assert_int_equal(epoch->count, expected_count);
    qsort(epoch->hashes, epoch->count, sizeof *epoch->hashes, compare_u64);
    assert_memory_equal(epoch->hashes, expected, expected_count * sizeof *expected);
    // Next-fit leaves at most a piece free at the end of each batch.
    assert_true(tokens >= (batches - 1) * (options->batch_size - 1) * options->seq_len);
    mm_free(epoch->hashes);
    mm_free(epoch);
}

static void test_packing_predicts_every_token_once(void **state)
{
    (void)state;
    mm_token_cache *caches[] = {synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 300),
                                synth_cache("b.jsonl", MM_SYNTH_PRETRAIN, 2, 70)};
    size_t count;
    uint64_t *hashes = document_hashes(caches, 2, &count);
    assert_int_equal(count, 370);
    static const struct {
        int32_t batch_size;
        int32_t seq_len;
    } SHAPES[] = {{1, 3}, {1, 16}, {4, 32}, {3, 97}, {8, 64}, {2, 5000}, {40, 1024}};
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++) {
        for (int shuffle = 0; shuffle < 2; shuffle++) {
            const mm_batcher_options options = {.batch_size = SHAPES[i].batch_size,
                                                .seq_len = SHAPES[i].seq_len,
                                                .mode = MM_BATCH_PACKED,
                                                .shuffle = shuffle,
                                                .seed = 11};
            mm_batcher *batcher = batcher_of(caches, 2, &options);
            for (int64_t epoch = 0; epoch < 3; epoch++)
                check_packed_epoch(batcher, &options, epoch, hashes, count);
            mm_batcher_free(batcher);
        }
    }
    mm_free(hashes);
    mm_token_cache_close(caches[0]);
    mm_token_cache_close(caches[1]);
}

static void test_pieces_of_a_document_are_of_nearly_equal_length(void **state)
{
    (void)state;
    // 100 bytes, so 102 tokens and 101 pairs; by 40 that is 34 + 34 + 33.
    mm_str content = {0};
    mm_str_add(&content, "{\"text\":\"");
    for (int i = 0; i < 100; i++)
        mm_str_add_char(&content, 'x');
    mm_str_add(&content, "\"}\n");
    mm_token_cache *cache = text_cache("long.jsonl", content.data, bytes_only);
    const mm_batcher_options options = {.batch_size = 3, .seq_len = 40, .mode = MM_BATCH_PACKED};
    mm_batcher *batcher;
    const mm_batch *batch;
    mm_data_position position = {0};
    CHECK_OK(mm_batcher_new(&batcher, &cache, 1, bytes_only, &options, ok_err));
    CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
    static const int32_t BOUNDS[] = {0, 34, 68, 101};
    assert_int_equal(batch->n_segments, 3);
    assert_memory_equal(batch->segments, BOUNDS, sizeof BOUNDS);
    assert_int_equal(position.epoch, 1);
    assert_int_equal(position.micro_batch, 0);
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
    mm_str_drop(&content);
}

// [bos] + the first seq_len - 2 of the text + [eos], padded with 0; labels are the next ids, never
// 0.
static void expected_row(const mm_token_cache *cache, int64_t document, int32_t seq_len,
                         int32_t *tokens, int32_t *labels)
{
    const int64_t length = mm_token_cache_length(cache, (mm_cached){.row = document});
    int32_t *ids = mm_alloc((size_t)length * sizeof *ids);
    mm_token_cache_copy(cache, (mm_cached){.row = document}, 0, (int32_t)length, ids, NULL);
    const int64_t text = length - 2 < seq_len - 2 ? length - 2 : seq_len - 2;
    memset(tokens, 0, (size_t)seq_len * sizeof *tokens);
    tokens[0] = 1;
    memcpy(tokens + 1, ids + 1, (size_t)text * sizeof *tokens);
    tokens[text + 1] = 2;
    for (int32_t t = 0; t + 1 < seq_len; t++)
        labels[t] = tokens[t + 1] == 0 ? MM_LABEL_IGNORE : tokens[t + 1];
    labels[seq_len - 1] = MM_LABEL_IGNORE;
    mm_free(ids);
}

static void check_unpacked(mm_token_cache *cache, int32_t batch_size, int32_t seq_len)
{
    const mm_batcher_options options = {
        .mode = MM_BATCH_PADDED, .batch_size = batch_size, .seq_len = seq_len};
    mm_batcher *batcher = batcher_of(&cache, 1, &options);
    int32_t *tokens = mm_alloc((size_t)seq_len * sizeof *tokens);
    int32_t *labels = mm_alloc((size_t)seq_len * sizeof *labels);
    mm_data_position position = {0};
    int64_t document = 0;
    int64_t total = 0;
    while (position.epoch == 0) {
        const mm_batch *batch;
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        int64_t n_labels = 0;
        assert_int_equal(batch->n_tokens, batch->n_segments * seq_len);
        for (int32_t row = 0; row < batch->n_segments; row++, document++) {
            assert_int_equal(batch->segments[row + 1], (row + 1) * seq_len);
            expected_row(cache, document, seq_len, tokens, labels);
            const size_t bytes = (size_t)seq_len * sizeof *tokens;
            assert_memory_equal(batch->tokens + row * seq_len, tokens, bytes);
            assert_memory_equal(batch->labels + row * seq_len, labels, bytes);
            for (int32_t t = 0; t < seq_len; t++)
                n_labels += labels[t] != MM_LABEL_IGNORE;
        }
        assert_int_equal(batch->n_labels, n_labels);
        total += n_labels;
    }
    assert_int_equal(document, mm_token_cache_info(cache)->documents);
    assert_int_equal(total, mm_batcher_labels(batcher));
    mm_free(tokens);
    mm_free(labels);
    mm_batcher_free(batcher);
}

static void test_unpacked_rows_are_minimind_rows(void **state)
{
    (void)state;
    assert_int_equal(mm_tokenizer_pad(tokenizer), 0);
    assert_int_equal(mm_tokenizer_bos(tokenizer), 1);
    assert_int_equal(mm_tokenizer_eos(tokenizer), 2);
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 101);
    check_unpacked(cache, 4, 32); // all are cut
    check_unpacked(cache, 7, 700);
    check_unpacked(cache, 1, 3);
    mm_token_cache_close(cache);
    // The pad's text inside a row becomes id 0 and is not learned.
    cache = text_cache("pad.jsonl", "{\"text\":\"ab<|endoftext|>cd\"}\n", tokenizer);
    int32_t ids[16];
    const int64_t length = mm_token_cache_length(cache, (mm_cached){.row = 0});
    assert_in_range(length, 5, 16);
    mm_token_cache_copy(cache, (mm_cached){.row = 0}, 0, (int32_t)length, ids, NULL);
    int zeros = 0;
    for (int64_t i = 0; i < length; i++)
        zeros += ids[i] == 0;
    assert_int_equal(zeros, 1);
    check_unpacked(cache, 1, 32);
    mm_token_cache_close(cache);
}

static void test_a_conversation_is_cut_without_an_end_mark(void **state)
{
    (void)state;
    mm_token_cache *cache = synth_cache("sft.jsonl", MM_SYNTH_SFT, 1, 30);
    const mm_batcher_options options = {.mode = MM_BATCH_PADDED, .batch_size = 1, .seq_len = 12};
    mm_batcher *batcher = batcher_of(&cache, 1, &options);
    mm_data_position position = {0};
    for (int64_t document = 0; document < 30; document++) {
        const mm_batch *batch;
        int32_t ids[12];
        mm_token_cache_copy(cache, (mm_cached){.row = document}, 0, 12, ids, NULL);
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        assert_memory_equal(batch->tokens, ids, sizeof ids);
    }
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
}

static uint64_t hash_batch(const mm_batch *batch)
{
    return hash_ids(batch->tokens, batch->n_tokens) * 3 +
           hash_ids(batch->labels, batch->n_tokens) * 5 +
           hash_ids(batch->segments, batch->n_segments + 1);
}

static void test_a_position_gives_the_same_batch_after_a_fresh_start(void **state)
{
    enum { BATCHES = 120 };
    (void)state;
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 200);
    for (int pack = 0; pack < 2; pack++) {
        const mm_batcher_options options = {.batch_size = 3,
                                            .seq_len = 256,
                                            .mode = pack ? MM_BATCH_PACKED : MM_BATCH_PADDED,
                                            .shuffle = true,
                                            .seed = 4,
                                            .split = MM_SPLIT_TRAIN,
                                            .val_fraction = 0.2};
        uint64_t hashes[BATCHES];
        mm_data_position positions[BATCHES];
        const mm_batch *batch;
        mm_batcher *batcher = batcher_of(&cache, 1, &options);
        mm_data_position position = {0};
        for (int i = 0; i < BATCHES; i++) {
            positions[i] = position;
            CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
            hashes[i] = hash_batch(batch);
        }
        assert_true(position.epoch >= 1); // more than one epoch was read
        mm_batcher_free(batcher);
        mm_rng rng;
        mm_rng_init(&rng, 1, MM_RNG_TEST, (uint64_t)pack);
        for (int round = 0; round < 40; round++) {
            const uint32_t at = mm_rng_below(&rng, BATCHES - 1);
            position = positions[at];
            batcher = batcher_of(&cache, 1, &options);
            for (uint32_t i = at; i < at + 2; i++) {
                CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
                assert_true(hash_batch(batch) == hashes[i]);
            }
            mm_batcher_free(batcher);
        }
    }
    mm_token_cache_close(cache);
}

static void test_orders_differ_by_epoch_and_seed(void **state)
{
    (void)state;
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 100);
    uint64_t hashes[6];
    for (int i = 0; i < 6; i++) {
        const mm_batcher_options options = {.batch_size = 2,
                                            .seq_len = 64,
                                            .mode = MM_BATCH_PACKED,
                                            .shuffle = i < 4,
                                            .seed = (uint64_t)i / 2};
        const mm_batch *batch;
        mm_batcher *batcher = batcher_of(&cache, 1, &options);
        mm_data_position position = {.epoch = i % 2};
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        hashes[i] = hash_batch(batch);
        mm_batcher_free(batcher);
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_true(hashes[i] != hashes[k]);
    assert_true(hashes[4] == hashes[5]); // file order is the same every time
    mm_token_cache_close(cache);
}

// Keys of the documents on one side, from what the batches hold.
static int64_t side_documents(mm_token_cache *cache, mm_split split, double fraction, uint64_t seed,
                              uint64_t *hashes)
{
    const mm_batcher_options options = {.mode = MM_BATCH_PADDED,
                                        .batch_size = 1,
                                        .seq_len = 2000,
                                        .shuffle = true,
                                        .seed = seed,
                                        .split = split,
                                        .val_fraction = fraction};
    mm_batcher *batcher = batcher_of(&cache, 1, &options);
    const int64_t count = mm_batcher_documents(batcher);
    mm_data_position position = {0};
    for (int64_t i = 0; i < count; i++) {
        const mm_batch *batch;
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        hashes[i] = hash_ids(batch->tokens, batch->n_tokens);
    }
    assert_int_equal(position.epoch, 1);
    qsort(hashes, (size_t)count, sizeof *hashes, compare_u64);
    mm_batcher_free(batcher);
    return count;
}

static int64_t common(const uint64_t *a, int64_t a_count, const uint64_t *b, int64_t b_count)
{
    int64_t found = 0;
    for (int64_t i = 0; i < a_count; i++)
        found += bsearch(&a[i], b, (size_t)b_count, sizeof *b, compare_u64) != NULL;
    return found;
}

static void test_sides_are_disjoint_and_do_not_move(void **state)
{
    enum { ROWS = 1000 };
    (void)state;
    static uint64_t train[2 * ROWS];
    static uint64_t val[2 * ROWS];
    static uint64_t other[2 * ROWS];
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, ROWS);
    const int64_t n_train = side_documents(cache, MM_SPLIT_TRAIN, 0.1, 1, train);
    const int64_t n_val = side_documents(cache, MM_SPLIT_VAL, 0.1, 1, val);
    assert_int_equal(n_train + n_val, ROWS);
    assert_in_range(n_val, 70, 130); // four standard deviations around 100
    assert_int_equal(common(train, n_train, val, n_val), 0);
    // Another seed moves nothing; a larger share keeps what a smaller one held.
    assert_int_equal(side_documents(cache, MM_SPLIT_VAL, 0.1, 2, other), n_val);
    assert_memory_equal(other, val, (size_t)n_val * sizeof *val);
    const int64_t n_other = side_documents(cache, MM_SPLIT_VAL, 0.3, 1, other);
    assert_true(n_other > n_val);
    assert_int_equal(common(val, n_val, other, n_other), n_val);
    mm_token_cache_close(cache);
    // More rows move no old one: the first file begins the second.
    mm_token_cache *longer = synth_cache("a2.jsonl", MM_SYNTH_PRETRAIN, 1, 2 * ROWS);
    const int64_t n_longer = side_documents(longer, MM_SPLIT_VAL, 0.1, 1, other);
    assert_int_equal(common(val, n_val, other, n_longer), n_val);
    assert_int_equal(common(train, n_train, other, n_longer), 0);
    mm_token_cache_close(longer);
}

static void test_few_rows_are_on_both_sides(void **state)
{
    (void)state;
    static const double SHARES[] = {0.001, 0.01, 0.5, 0.999};
    static const char *const TEXTS[] = {"first row", "another row", "and one more"};
    mm_str content = {0};
    for (int rows = 1; rows <= 3; rows++) {
        mm_str_addf(&content, "{\"text\":\"%s\"}\n", TEXTS[rows - 1]);
        mm_token_cache *cache = text_cache("few.jsonl", content.data, tokenizer);
        for (size_t i = 0; i < sizeof SHARES / sizeof SHARES[0]; i++) {
            uint64_t train[4];
            uint64_t val[4];
            const int64_t n_train = side_documents(cache, MM_SPLIT_TRAIN, SHARES[i], 1, train);
            if (rows == 1) {
                // One text cannot be on both: it is learned from.
                mm_batcher *none;
                const mm_batcher_options options = {.mode = MM_BATCH_PADDED,
                                                    .batch_size = 1,
                                                    .seq_len = 32,
                                                    .split = MM_SPLIT_VAL,
                                                    .val_fraction = SHARES[i]};
                assert_int_equal(n_train, 1);
                assert_int_equal(mm_batcher_new(&none, &cache, 1, tokenizer, &options, NULL),
                                 MM_EFORMAT);
                continue;
            }
            const int64_t n_val = side_documents(cache, MM_SPLIT_VAL, SHARES[i], 1, val);
            assert_true(n_train > 0 && n_val > 0);
            assert_int_equal(n_train + n_val, rows);
            assert_int_equal(common(train, n_train, val, n_val), 0);
        }
        mm_token_cache_close(cache);
    }
    mm_str_drop(&content);
}

static void test_equal_rows_are_on_one_side(void **state)
{
    (void)state;
    mm_str content = {0};
    for (int copy = 0; copy < 2; copy++)
        for (int i = 0; i < 200; i++)
            mm_str_addf(&content, "{\"text\":\"row %d\"}\n", i);
    mm_token_cache *cache = text_cache("twice.jsonl", content.data, tokenizer);
    const mm_batcher_options options = {.mode = MM_BATCH_PADDED,
                                        .batch_size = 1,
                                        .seq_len = 32,
                                        .split = MM_SPLIT_VAL,
                                        .val_fraction = 0.25};
    static uint64_t hashes[400];
    const int64_t count = side_documents(cache, MM_SPLIT_VAL, 0.25, 1, hashes);
    assert_in_range(count, 40, 160);
    for (int64_t i = 0; i < count; i += 2)
        assert_true(hashes[i] == hashes[i + 1]);
    mm_batcher *batcher = batcher_of(&cache, 1, &options);
    assert_int_equal(mm_batcher_documents(batcher), count);
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
    mm_str_drop(&content);
}

static void test_max_documents_takes_the_first_of_the_side(void **state)
{
    (void)state;
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 100);
    const mm_batcher_options options = {.mode = MM_BATCH_PADDED,
                                        .batch_size = 1,
                                        .seq_len = 32,
                                        .shuffle = true,
                                        .max_documents = 7};
    mm_batcher *batcher = batcher_of(&cache, 1, &options);
    assert_int_equal(mm_batcher_documents(batcher), 7);
    int64_t count;
    CHECK_OK(mm_batcher_epoch_batches(batcher, 0, &count, ok_err));
    assert_int_equal(count, 7);
    for (mm_data_position position = {0}; position.epoch == 0;) {
        const mm_batch *batch;
        bool is_found = false;
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        for (int64_t i = 0; i < 7; i++) {
            int32_t ids[31];
            mm_token_cache_copy(cache, (mm_cached){.row = i}, 0, 31, ids, NULL);
            is_found = is_found || memcmp(ids, batch->tokens, sizeof ids) == 0;
        }
        assert_true(is_found);
    }
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
}

static void test_get_allocates_nothing(void **state)
{
    (void)state;
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 100);
    for (int pack = 0; pack < 2; pack++) {
        const mm_batcher_options options = {.batch_size = 2,
                                            .seq_len = 64,
                                            .mode = pack ? MM_BATCH_PACKED : MM_BATCH_PADDED,
                                            .shuffle = true};
        mm_batcher *batcher = batcher_of(&cache, 1, &options);
        const mm_batch *batch;
        mm_data_position position = {0};
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        const uint64_t before = mm_alloc_count();
        while (position.epoch < 5)
            CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        assert_true(mm_alloc_count() == before);
        mm_batcher_free(batcher);
    }
    mm_token_cache_close(cache);
}

static void test_bytes_of_a_case_by_hand(void **state)
{
    (void)state;
    // Labels: a a b b eos.
    mm_token_cache *cache = text_cache("hand.jsonl", "{\"text\":\"aabb\"}\n", bytes_only);
    for (int pack = 0; pack < 2; pack++) {
        const mm_batcher_options options = {
            .batch_size = 1, .seq_len = 16, .mode = pack ? MM_BATCH_PACKED : MM_BATCH_PADDED};
        mm_batcher *batcher;
        mm_data_position position = {0};
        const mm_batch *batch;
        CHECK_OK(mm_batcher_new(&batcher, &cache, 1, bytes_only, &options, ok_err));
        assert_int_equal(mm_batcher_labels(batcher), 5);
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        assert_int_equal(batch->n_labels, 5);
        assert_int_equal(mm_batch_label_bytes(batch, bytes_only), 4); // the end mark counts 0
        mm_batcher_free(batcher);
    }
    mm_token_cache_close(cache);
}

static void test_label_bytes_are_the_bytes_of_the_text(void **state)
{
    (void)state;
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 50);
    const mm_batcher_options options = {.batch_size = 4, .seq_len = 64, .mode = MM_BATCH_PACKED};
    mm_batcher *batcher = batcher_of(&cache, 1, &options);
    int64_t bytes = 0;
    for (mm_data_position position = {0}; position.epoch == 0;) {
        const mm_batch *batch;
        CHECK_OK(mm_batcher_get(batcher, &position, &batch, ok_err));
        bytes += mm_batch_label_bytes(batch, tokenizer);
    }
    char *path = path_in(dir, "a.jsonl");
    mm_row_reader *reader;
    const mm_row *row;
    int64_t expected = 0;
    CHECK_OK(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, ok_err));
    do {
        CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
        if (row) expected += (int64_t)row->text_bytes;
    } while (row);
    assert_int_equal(bytes, expected);
    mm_row_reader_close(reader);
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
    mm_free(path);
}

static void test_impossible_wishes_are_refused(void **state)
{
    (void)state;
    mm_token_cache *cache = synth_cache("a.jsonl", MM_SYNTH_PRETRAIN, 1, 20);
    static const struct {
        mm_batcher_options options;
        mm_status status;
        const char *message;
    } CASES[] = {
        {{.batch_size = 0, .seq_len = 8}, MM_ECONFIG, "batch_size is 0"},
        {{.batch_size = 1, .seq_len = 2}, MM_ECONFIG, "max_seq_len is 2"},
        {{.batch_size = 1 << 20, .seq_len = 1 << 20}, MM_ECONFIG, "too large"},
        {{.batch_size = 1, .seq_len = 8, .val_fraction = 1.0}, MM_ECONFIG, "validation share"},
        {{.batch_size = 1, .seq_len = 8, .val_fraction = (double)NAN},
         MM_ECONFIG,
         "validation share"},
        {{.batch_size = 1, .seq_len = 8, .max_documents = -1}, MM_ECONFIG, "documents is -1"},
        {{.batch_size = 1, .seq_len = 8, .split = MM_SPLIT_VAL}, MM_EFORMAT, "validation side"}};
    mm_batcher *batcher;
    mm_err err = {0};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CHECK_ROW(mm_batcher_new(&batcher, &cache, 1, tokenizer, &CASES[i].options, &err) ==
                      CASES[i].status,
                  i);
        check_message(&err, CASES[i].message);
        assert_null(batcher);
    }
    const mm_batcher_options options = {.mode = MM_BATCH_PADDED, .batch_size = 1, .seq_len = 8};
    assert_int_equal(mm_batcher_new(&batcher, &cache, 1, bytes_only, &options, &err), MM_ECONFIG);
    check_message(&err, "another tokenizer");
    batcher = batcher_of(&cache, 1, &options);
    static const mm_data_position POSITIONS[] = {
        {.epoch = -1}, {.micro_batch = -1}, {.micro_batch = 20}};
    for (size_t i = 0; i < sizeof POSITIONS / sizeof POSITIONS[0]; i++) {
        mm_data_position position = POSITIONS[i];
        const mm_batch *batch;
        CHECK_ROW(mm_batcher_get(batcher, &position, &batch, &err) == MM_EFORMAT, i);
        check_message(&err, "data position");
    }
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
}

static int set_up(void **state)
{
    tokenizer = small_tokenizer(512);
    bytes_only = small_tokenizer(292);
    const int code = temp_dir_make(state);
    dir = *state;
    return code;
}

static int tear_down(void **state)
{
    mm_tokenizer_free(tokenizer);
    mm_tokenizer_free(bytes_only);
    return temp_dir_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing_predicts_every_token_once),
        cmocka_unit_test(test_pieces_of_a_document_are_of_nearly_equal_length),
        cmocka_unit_test(test_unpacked_rows_are_minimind_rows),
        cmocka_unit_test(test_a_conversation_is_cut_without_an_end_mark),
        cmocka_unit_test(test_a_position_gives_the_same_batch_after_a_fresh_start),
        cmocka_unit_test(test_orders_differ_by_epoch_and_seed),
        cmocka_unit_test(test_sides_are_disjoint_and_do_not_move),
        cmocka_unit_test(test_few_rows_are_on_both_sides),
        cmocka_unit_test(test_equal_rows_are_on_one_side),
        cmocka_unit_test(test_max_documents_takes_the_first_of_the_side),
        cmocka_unit_test(test_get_allocates_nothing),
        cmocka_unit_test(test_bytes_of_a_case_by_hand),
        cmocka_unit_test(test_label_bytes_are_the_bytes_of_the_text),
        cmocka_unit_test(test_impossible_wishes_are_refused)};
    return cmocka_run_group_tests_name("data/batch", tests, set_up, tear_down);
}
