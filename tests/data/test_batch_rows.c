/* Tests of the batches that the stages learn from: rows and pairs with their labels, what is drawn
 * for them, and that neither packing nor the size of a micro-batch decides what a step holds. */
#include "tests/data/fixtures.h"

#include "core/data/system_prompts.h"

enum { ROW_MAX = 4096, SIDES = 2 };

static char *dir;
static mm_tokenizer *tokenizer;

static mm_token_cache *cache_of(const char *name, const char *content, mm_mask_kind mask,
                                bool pairs)
{
    char *data = path_in(dir, name);
    char *folder = path_in(dir, "cache");
    mm_token_cache *cache;
    write_text(data, content);
    const mm_cache_options options = {.path = data, .dir = folder, .mask = mask, .pairs = pairs};
    CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
    mm_free(data);
    mm_free(folder);
    return cache;
}

static mm_batcher *batcher_of(mm_token_cache *cache, mm_batcher_options options)
{
    mm_batcher *batcher;
    CHECK_OK(mm_batcher_new(&batcher, &cache, 1, tokenizer, &options, ok_err));
    return batcher;
}

/* Conversations of one to three turns, some with a system turn, some with a thought. */
static void make_conversations(mm_str *out, int rows)
{
    for (int i = 0; i < rows; i++) {
        mm_str_add(out, "{\"conversations\":[");
        if (i % 5 == 0) mm_str_add(out, "{\"role\":\"system\",\"content\":\"Be short.\"},");
        for (int turn = 0; turn <= i % 3; turn++) {
            mm_str_addf(out, "%s{\"role\":\"user\",\"content\":\"question %d of %d, and",
                        turn ? "," : "", turn, i);
            for (int k = 0; k < i % 7; k++)
                mm_str_add(out, " so on");
            mm_str_addf(out, "?\"},{\"role\":\"assistant\",\"content\":\"%s%d\"%s}",
                        i % 4 ? "answer " : "    a", i * 10 + turn,
                        i % 6 == 5 ? ",\"reasoning_content\":\"hm\"" : "");
        }
        mm_str_add(out, "]}\n");
    }
}

static void make_pairs(mm_str *out, int rows)
{
    for (int i = 0; i < rows; i++) {
        mm_str_addf(out, "{\"chosen\":[{\"role\":\"user\",\"content\":\"q%d\"},", i);
        mm_str_addf(out, "{\"role\":\"assistant\",\"content\":\"good %d", i);
        for (int k = 0; k < i % 5; k++)
            mm_str_add(out, " and more");
        mm_str_addf(out, "\"}],\"rejected\":[{\"role\":\"user\",\"content\":\"q%d\"},", i);
        mm_str_addf(out, "{\"role\":\"assistant\",\"content\":\"%s %d\"}]}\n",
                    i % 9 == 4 ? "good" : "bad", i); // row 40: equal sides
    }
}

/* A row as it stands in a batch. */
typedef struct seen_row {
    int64_t row;
    int32_t n_tokens;
    const int32_t *tokens; // points into `store`
    const int32_t *labels;
} seen_row;

typedef struct seen_steps {
    seen_row *rows;
    size_t n_rows;
    size_t *step_ends; // in rows
    size_t n_steps;
    int32_t *store;
    size_t n_store;
    size_t most_batches;
} seen_steps;

static void drop_seen(seen_steps *seen)
{
    mm_free(seen->rows);
    mm_free(seen->step_ends);
    mm_free(seen->store);
}

static void take_batch(seen_steps *seen, const mm_batch *batch)
{
    for (int32_t s = 0; s < batch->n_segments; s++) {
        const int32_t first = batch->segments[s];
        const size_t n = (size_t)(batch->segments[s + 1] - first);
        int32_t *copy = seen->store + seen->n_store;
        memcpy(copy, batch->tokens + first, n * sizeof *copy);
        memcpy(copy + n, batch->labels + first, n * sizeof *copy);
        seen->rows[seen->n_rows++] = (seen_row){
            .row = batch->rows[s], .n_tokens = (int32_t)n, .tokens = copy, .labels = copy + n};
        seen->n_store += 2 * n;
    }
}

/* Everything of an epoch, and that what the batcher promised about sizes holds. */
static seen_steps see_epoch(mm_batcher *batcher, int64_t epoch)
{
    seen_steps seen = {0};
    int64_t n_batches;
    int64_t n_steps;
    CHECK_OK(mm_batcher_epoch_batches(batcher, epoch, &n_batches, ok_err));
    CHECK_OK(mm_batcher_epoch_steps(batcher, epoch, &n_steps, ok_err));
    const size_t tokens = (size_t)n_batches * (size_t)mm_batcher_max_tokens(batcher);
    seen.rows =
        mm_alloc((size_t)n_batches * (size_t)mm_batcher_max_segments(batcher) * sizeof *seen.rows);
    seen.store = mm_alloc(2 * tokens * sizeof *seen.store);
    seen.step_ends = mm_alloc((size_t)n_steps * sizeof *seen.step_ends);
    assert_true(seen.rows && seen.store && seen.step_ends);
    size_t in_step = 0;
    for (mm_data_position at = {.epoch = epoch}; at.epoch == epoch;) {
        const mm_batch *batch;
        CHECK_OK(mm_batcher_get(batcher, &at, &batch, ok_err));
        assert_in_range(batch->n_tokens, 1, mm_batcher_max_tokens(batcher));
        assert_in_range(batch->n_segments, 1, mm_batcher_max_segments(batcher));
        assert_int_equal(batch->segments[batch->n_segments], batch->n_tokens);
        int64_t labels = 0;
        for (int32_t t = 0; t < batch->n_tokens; t++)
            labels += batch->labels[t] != MM_LABEL_IGNORE;
        assert_int_equal(batch->n_labels, labels);
        take_batch(&seen, batch);
        in_step++;
        assert_in_range(in_step, 1, mm_batcher_max_step_batches(batcher));
        if (!batch->ends_step) continue;
        assert_true(seen.n_steps < (size_t)n_steps);
        seen.step_ends[seen.n_steps++] = seen.n_rows;
        in_step = 0;
    }
    assert_int_equal(in_step, 0); // the epoch ends a step
    assert_int_equal(seen.n_steps, n_steps);
    return seen;
}

static void check_same_row(const seen_row *a, const seen_row *b)
{
    assert_int_equal(a->row, b->row);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof *a->tokens);
    assert_memory_equal(a->labels, b->labels, (size_t)a->n_tokens * sizeof *a->labels);
}

static void test_rows_are_the_padded_rows_without_pads(void **state)
{
    static const int32_t SEQ_LENS[] = {3, 60, 90, 500};
    (void)state;
    mm_str lines = {0};
    make_conversations(&lines, 61);
    for (int mask = MM_MASK_ANSWERS; mask <= MM_MASK_ALL; mask++) {
        mm_token_cache *cache = cache_of("rows.jsonl", lines.data, (mm_mask_kind)mask, false);
        for (size_t i = mask == MM_MASK_ALL ? 0 : 1; i < 4; i++) {
            mm_batcher_options options = {.mode = MM_BATCH_ROWS,
                                          .batch_size = 4,
                                          .accumulation = 2,
                                          .seq_len = SEQ_LENS[i],
                                          .shuffle = true,
                                          .seed = 3,
                                          .system_prompt_share = 0.5,
                                          .drop_think_share = 0.5};
            mm_batcher *rows = batcher_of(cache, options);
            options.mode = MM_BATCH_PADDED;
            mm_batcher *padded = batcher_of(cache, options);
            assert_int_equal(mm_batcher_labels(rows), mm_batcher_labels(padded));
            assert_int_equal(mm_batcher_left_out(rows), mm_batcher_left_out(padded));
            assert_int_equal(mm_batcher_left_out(rows) + mm_batcher_documents(rows), 61);
            seen_steps a = see_epoch(rows, 2);
            seen_steps b = see_epoch(padded, 2);
            assert_int_equal(a.n_rows, mm_batcher_documents(rows));
            assert_int_equal(a.n_rows, b.n_rows);
            assert_int_equal(a.n_steps, b.n_steps);
            assert_memory_equal(a.step_ends, b.step_ends, a.n_steps * sizeof *a.step_ends);
            for (size_t r = 0; r < a.n_rows; r++) {
                seen_row cut = b.rows[r];
                assert_int_equal(cut.n_tokens, SEQ_LENS[i]);
                for (int32_t t = a.rows[r].n_tokens; t < cut.n_tokens; t++)
                    assert_int_equal(cut.labels[t], MM_LABEL_IGNORE);
                cut.n_tokens = a.rows[r].n_tokens;
                check_same_row(&a.rows[r], &cut);
            }
            drop_seen(&a);
            drop_seen(&b);
            mm_batcher_free(rows);
            mm_batcher_free(padded);
        }
        mm_token_cache_close(cache);
    }
    mm_str_drop(&lines);
}

/* The same steps for every size of micro-batch, down to a row in each. */
static void check_sizes(mm_token_cache *cache, mm_batch_mode mode)
{
    static const int32_t SIZES[] = {0, 1, 50, 97, 300, 100000};
    mm_batcher_options options = {.mode = mode,
                                  .batch_size = 5,
                                  .accumulation = 3,
                                  .seq_len = 60,
                                  .shuffle = true,
                                  .seed = 9,
                                  .system_prompt_share = 0.3,
                                  .drop_think_share = 0.6};
    mm_batcher *whole = batcher_of(cache, options);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        seen_steps expected = see_epoch(whole, epoch);
        for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
            options.max_tokens = SIZES[i];
            mm_batcher *batcher = batcher_of(cache, options);
            assert_true(mm_batcher_max_tokens(batcher) <= (SIZES[i] > 120 ? SIZES[i] : 1000000));
            if (SIZES[i] == 100000) assert_int_equal(mm_batcher_max_step_batches(batcher), 1);
            seen_steps found = see_epoch(batcher, epoch);
            assert_int_equal(found.n_rows, expected.n_rows);
            assert_int_equal(found.n_steps, expected.n_steps);
            assert_memory_equal(found.step_ends, expected.step_ends,
                                found.n_steps * sizeof *found.step_ends);
            for (size_t r = 0; r < found.n_rows; r++)
                check_same_row(&found.rows[r], &expected.rows[r]);
            drop_seen(&found);
            mm_batcher_free(batcher);
        }
        drop_seen(&expected);
    }
    mm_batcher_free(whole);
}

static void test_the_size_of_a_micro_batch_decides_no_step(void **state)
{
    (void)state;
    mm_str lines = {0};
    make_conversations(&lines, 47);
    mm_token_cache *rows = cache_of("sizes.jsonl", lines.data, MM_MASK_ANSWERS, false);
    check_sizes(rows, MM_BATCH_ROWS);
    mm_str_clear(&lines);
    make_pairs(&lines, 47);
    mm_token_cache *pairs = cache_of("pairs.jsonl", lines.data, MM_MASK_ANSWERS, true);
    check_sizes(pairs, MM_BATCH_PAIRS);
    mm_token_cache_close(pairs);
    mm_token_cache_close(rows);
    mm_str_drop(&lines);
}

static void test_the_sides_of_a_pair_stay_together(void **state)
{
    (void)state;
    mm_str lines = {0};
    make_pairs(&lines, 50);
    mm_token_cache *cache = cache_of("together.jsonl", lines.data, MM_MASK_ANSWERS, true);
    mm_batcher *batcher = batcher_of(cache, (mm_batcher_options){.mode = MM_BATCH_PAIRS,
                                                                 .batch_size = 4,
                                                                 .seq_len = 200,
                                                                 .max_tokens = 90,
                                                                 .shuffle = true});
    for (mm_data_position at = {0}; at.epoch == 0;) {
        const mm_batch *batch;
        CHECK_OK(mm_batcher_get(batcher, &at, &batch, ok_err));
        assert_int_equal(batch->n_segments % SIDES, 0);
        for (int32_t s = 0; s < batch->n_segments; s += SIDES) {
            assert_int_equal(batch->rows[s], batch->rows[s + 1]);
            for (int32_t side = 0; side < SIDES; side++) {
                int32_t ids[ROW_MAX];
                const mm_cached which = {.row = batch->rows[s], .is_rejected = side == 1};
                const int32_t length = (int32_t)mm_token_cache_length(cache, which);
                const int32_t first = batch->segments[s + side];
                mm_token_cache_copy(cache, which, 0, length, ids, NULL);
                assert_int_equal(batch->segments[s + side + 1] - first, length - 1);
                assert_memory_equal(batch->tokens + first, ids, (size_t)(length - 1) * 4);
            }
        }
    }
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
    mm_str_drop(&lines);
}

// How often the rows of some epochs were drawn something.
typedef struct draw_counts {
    int64_t rows;
    int64_t with_prompt;
    int64_t without_think;
    int64_t apart; // sides with different draws
} draw_counts;

static bool has_think(const seen_row *row)
{
    const int32_t think = mm_tokenizer_id(tokenizer, "<think>");
    for (int32_t t = 0; t < row->n_tokens; t++)
        if (row->tokens[t] == think) return true;
    return false;
}

static draw_counts count_draws(mm_token_cache *cache, mm_batcher_options options)
{
    draw_counts counts = {0};
    options.batch_size = 7;
    options.seq_len = 400;
    mm_batcher *batcher = batcher_of(cache, options);
    const int sides = options.mode == MM_BATCH_PAIRS ? SIDES : 1;
    for (int64_t epoch = 0; epoch < 20; epoch++) {
        seen_steps seen = see_epoch(batcher, epoch);
        for (size_t r = 0; r < seen.n_rows; r += (size_t)sides) {
            const mm_cached plain = {.row = seen.rows[r].row, .has_no_empty_think = true};
            const bool is_bare = !has_think(&seen.rows[r]);
            counts.rows++;
            counts.without_think += is_bare;
            counts.with_prompt +=
                seen.rows[r].n_tokens > mm_token_cache_length(cache, plain) + (is_bare ? 0 : 6);
            if (sides == SIDES) counts.apart += is_bare != !has_think(&seen.rows[r + 1]);
        }
        drop_seen(&seen);
    }
    mm_batcher_free(batcher);
    return counts;
}

static void test_shares_are_what_was_asked_for(void **state)
{
    (void)state;
    mm_str lines = {0};
    make_pairs(&lines, 60);
    mm_token_cache *cache = cache_of("shares.jsonl", lines.data, MM_MASK_ANSWERS, true);
    const mm_batcher_options together = {
        .mode = MM_BATCH_PAIRS, .system_prompt_share = 0.2, .drop_think_share = 0.8};
    draw_counts counts = count_draws(cache, together);
    assert_int_equal(counts.rows, 1200);
    assert_in_range(counts.with_prompt, 180, 300); // 240, 14 is one standard deviation
    assert_in_range(counts.without_think, 900, 1020);
    assert_int_equal(counts.apart, 0);
    mm_batcher_options apart = together;
    apart.draws_sides_apart = true;
    counts = count_draws(cache, apart);
    assert_in_range(counts.without_think, 900, 1020);
    assert_in_range(counts.apart, 320, 450); // 2 · 0.8 · 0.2 of them
    counts = count_draws(cache, (mm_batcher_options){.mode = MM_BATCH_PAIRS,
                                                     .system_prompt_share = 1.0,
                                                     .drop_think_share = 1.0});
    assert_int_equal(counts.with_prompt, counts.rows);
    assert_int_equal(counts.without_think, counts.rows);
    // The validation side draws nothing.
    counts = count_draws(cache, (mm_batcher_options){.mode = MM_BATCH_PAIRS,
                                                     .split = MM_SPLIT_VAL,
                                                     .val_fraction = 0.3,
                                                     .system_prompt_share = 1.0,
                                                     .drop_think_share = 1.0});
    assert_true(counts.rows > 0);
    assert_int_equal(counts.with_prompt + counts.without_think, 0);
    mm_token_cache_close(cache);
    mm_str_drop(&lines);
}

/* Prompt and row together are the ids of the conversation with that system turn, labels included.
 */
static void test_a_system_prompt_gives_the_ids_of_the_whole_text(void **state)
{
    static const char CONTENT[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"  hi\"},"
                                  "{\"role\":\"assistant\",\"content\":\"   hello\"}]}\n";
    static const mm_message MESSAGES[] = {{.role = "system", .content = ""},
                                          {.role = "user", .content = "  hi"},
                                          {.role = "assistant", .content = "   hello"}};
    (void)state;
    for (int mask = MM_MASK_ANSWERS; mask <= MM_MASK_ALL; mask++) {
        bool is_seen[MM_SYSTEM_PROMPTS] = {false};
        mm_token_cache *cache = cache_of("one.jsonl", CONTENT, (mm_mask_kind)mask, false);
        mm_batcher *batcher = batcher_of(cache, (mm_batcher_options){.mode = MM_BATCH_ROWS,
                                                                     .batch_size = 1,
                                                                     .seq_len = 1000,
                                                                     .system_prompt_share = 1.0,
                                                                     .drop_think_share = 0.5});
        for (int64_t epoch = 0; epoch < 200; epoch++) {
            seen_steps seen = see_epoch(batcher, epoch);
            const seen_row *row = &seen.rows[0];
            bool is_found = false;
            for (int32_t k = 0; k < 2 * MM_SYSTEM_PROMPTS; k++) {
                mm_message messages[3];
                mm_ids ids = {0};
                mm_str learned = {0};
                memcpy(messages, MESSAGES, sizeof messages);
                messages[0].content = mm_system_prompt(k / 2);
                const mm_conversation chat = {.messages = messages, .count = 3};
                const mm_chat_options options = {.drop_empty_think = k % 2,
                                                 .mask = (mm_mask_kind)mask};
                CHECK_OK(mm_chat_encode(tokenizer, &chat, &options, &ids, &learned, ok_err));
                if (ids.count == (size_t)row->n_tokens + 1 &&
                    memcmp(ids.data, row->tokens, (size_t)row->n_tokens * 4) == 0) {
                    is_found = is_seen[k / 2] = true;
                    for (int32_t t = 0; t < row->n_tokens; t++)
                        assert_int_equal(row->labels[t],
                                         learned.data[t + 1] ? ids.data[t + 1] : MM_LABEL_IGNORE);
                }
                mm_str_drop(&learned);
                mm_ids_drop(&ids);
            }
            assert_true(is_found);
            drop_seen(&seen);
        }
        for (int32_t k = 0; k < MM_SYSTEM_PROMPTS; k++)
            assert_true(is_seen[k]);
        mm_batcher_free(batcher);
        mm_token_cache_close(cache);
    }
}

static void test_nothing_is_put_before_system_turns_tools_and_texts(void **state)
{
    static const char *const CONTENTS[] = {
        "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":"
        "\"U\"},{\"role\":\"assistant\",\"content\":\"A\",\"reasoning_content\":\"R\"}]}\n",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"U\"},{\"role\":\"assistant\",\"content\":"
        "\"A\",\"reasoning_content\":\"R\"}],\"tools\":[{\"name\":\"f\"}]}\n",
        "{\"text\":\"some text\"}\n"};
    (void)state;
    for (size_t i = 0; i < sizeof CONTENTS / sizeof *CONTENTS; i++) {
        mm_token_cache *cache = cache_of("bare.jsonl", CONTENTS[i], MM_MASK_ANSWERS, false);
        mm_batcher *batcher = batcher_of(cache, (mm_batcher_options){.mode = MM_BATCH_ROWS,
                                                                     .batch_size = 1,
                                                                     .seq_len = 1000,
                                                                     .system_prompt_share = 1.0,
                                                                     .drop_think_share = 1.0});
        for (int64_t epoch = 0; epoch < 5; epoch++) {
            seen_steps seen = see_epoch(batcher, epoch);
            assert_int_equal(seen.rows[0].n_tokens + 1,
                             mm_token_cache_length(cache, (mm_cached){.row = 0}));
            drop_seen(&seen);
        }
        mm_batcher_free(batcher);
        mm_token_cache_close(cache);
    }
}

static void test_draws_depend_on_seed_epoch_and_row_alone(void **state)
{
    (void)state;
    mm_str lines = {0};
    make_conversations(&lines, 40);
    mm_token_cache *cache = cache_of("pure.jsonl", lines.data, MM_MASK_ANSWERS, false);
    mm_batcher_options options = {.mode = MM_BATCH_ROWS,
                                  .batch_size = 3,
                                  .seq_len = 200,
                                  .shuffle = true,
                                  .seed = 5,
                                  .system_prompt_share = 0.5,
                                  .drop_think_share = 0.5};
    mm_batcher *first = batcher_of(cache, options);
    options.batch_size = 1; // another batch, unshuffled: the same rows
    options.shuffle = false;
    mm_batcher *second = batcher_of(cache, options);
    options.seed = 6;
    mm_batcher *third = batcher_of(cache, options);
    int different_epoch = 0;
    int different_seed = 0;
    for (int64_t epoch = 3; epoch >= 0; epoch--) {
        seen_steps a = see_epoch(first, epoch);
        seen_steps b = see_epoch(second, epoch);
        seen_steps c = see_epoch(third, epoch);
        seen_steps later = see_epoch(second, epoch + 1);
        for (size_t r = 0; r < a.n_rows; r++) {
            assert_int_equal(b.rows[a.rows[r].row].row, a.rows[r].row);
            check_same_row(&a.rows[r], &b.rows[a.rows[r].row]);
        }
        for (size_t r = 0; r < b.n_rows; r++) {
            different_seed += b.rows[r].n_tokens != c.rows[r].n_tokens;
            different_epoch += b.rows[r].n_tokens != later.rows[r].n_tokens;
        }
        drop_seen(&a);
        drop_seen(&b);
        drop_seen(&c);
        drop_seen(&later);
    }
    assert_true(different_epoch > 40 && different_seed > 40);
    mm_batcher_free(first);
    mm_batcher_free(second);
    mm_batcher_free(third);
    mm_token_cache_close(cache);
    mm_str_drop(&lines);
}

static void test_any_position_is_direct(void **state)
{
    (void)state;
    mm_str lines = {0};
    make_pairs(&lines, 33);
    mm_token_cache *cache = cache_of("seek.jsonl", lines.data, MM_MASK_ANSWERS, true);
    const mm_batcher_options options = {.mode = MM_BATCH_PAIRS,
                                        .batch_size = 2,
                                        .accumulation = 3,
                                        .seq_len = 100,
                                        .max_tokens = 150,
                                        .shuffle = true,
                                        .drop_think_share = 0.5};
    mm_batcher *steady = batcher_of(cache, options);
    for (mm_data_position at = {0}; at.epoch < 2;) {
        const mm_batch *expected;
        const mm_batch *found;
        mm_data_position again = at;
        mm_batcher *fresh = batcher_of(cache, options);
        CHECK_OK(mm_batcher_get(steady, &at, &expected, ok_err));
        CHECK_OK(mm_batcher_get(fresh, &again, &found, ok_err));
        assert_int_equal(found->n_tokens, expected->n_tokens);
        assert_int_equal(found->ends_step, expected->ends_step);
        const size_t bytes = (size_t)found->n_tokens * sizeof *found->tokens;
        assert_memory_equal(found->tokens, expected->tokens, bytes);
        assert_memory_equal(found->labels, expected->labels, bytes);
        assert_int_equal(again.micro_batch, at.micro_batch);
        mm_batcher_free(fresh);
    }
    mm_batcher_free(steady);
    mm_token_cache_close(cache);
    mm_str_drop(&lines);
}

#define ASK    "{\"role\":\"user\",\"content\":\"U\"}"
#define ANSWER "{\"role\":\"assistant\",\"content\":\"A\"}"
#define LONG   "long long long long long long long long long long long long long long long long"

static void test_odd_rows(void **state)
{
    static const struct {
        const char *content;
        bool pairs;
        int64_t documents;
        int64_t left_out;
    } CASES[] = {
        // Empty answers teach the end of the turn.
        {"{\"messages\":[" ASK ",{\"role\":\"assistant\",\"content\":\"\"}]}", false, 1, 0},
        {"{\"messages\":[" ANSWER "," ASK "]}", false, 1, 0},
        {"{\"messages\":[" ANSWER "," ANSWER "," ASK "," ANSWER "]}", false, 1, 0},
        // Behind the context, or nothing at all.
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"" LONG "\"}," ANSWER "]}\n{\"messages\":"
         "[" ASK "," ANSWER "]}\n{\"messages\":[" ASK "]}",
         false, 1, 2},
        {"{\"messages\":[" ASK ",{\"role\":\"assistant\",\"content\":\"" LONG LONG "\"}]}", false,
         1, 0},
        // Pairs: equal sides are kept, one side without labels is not.
        {"{\"chosen\":[" ASK "," ANSWER "],\"rejected\":[" ASK "," ANSWER "]}", true, 1, 0},
        {"{\"chosen\":[" ASK "," ANSWER "],\"rejected\":[{\"role\":\"user\",\"content\":\"" LONG
         "\"}," ANSWER "]}\n{\"chosen\":[" ASK "," ANSWER "],\"rejected\":[" ASK
         ",{\"role\":\"assistant\",\"content\":\"B\"}]}",
         true, 1, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        mm_token_cache *cache =
            cache_of("odd.jsonl", CASES[i].content, MM_MASK_ANSWERS, CASES[i].pairs);
        mm_batcher *batcher = batcher_of(
            cache, (mm_batcher_options){.mode = CASES[i].pairs ? MM_BATCH_PAIRS : MM_BATCH_ROWS,
                                        .batch_size = 3,
                                        .seq_len = 48,
                                        .system_prompt_share = 0.5,
                                        .drop_think_share = 0.5});
        assert_int_equal(mm_batcher_documents(batcher), CASES[i].documents);
        assert_int_equal(mm_batcher_left_out(batcher), CASES[i].left_out);
        for (int64_t epoch = 0; epoch < 30; epoch++) {
            seen_steps seen = see_epoch(batcher, epoch);
            for (size_t r = 0; r < seen.n_rows; r++) {
                int32_t labels = 0;
                for (int32_t t = 0; t < seen.rows[r].n_tokens; t++)
                    labels += seen.rows[r].labels[t] != MM_LABEL_IGNORE;
                assert_true(labels > 0); // whatever was drawn
                assert_true(seen.rows[r].n_tokens < 48);
            }
            drop_seen(&seen);
        }
        mm_batcher_free(batcher);
        mm_token_cache_close(cache);
    }
}

static void test_packed_conversations_predict_what_is_learned(void **state)
{
    (void)state;
    mm_str lines = {0};
    make_conversations(&lines, 50);
    mm_token_cache *cache = cache_of("packed.jsonl", lines.data, MM_MASK_ANSWERS, false);
    mm_batcher *batcher =
        batcher_of(cache, (mm_batcher_options){.batch_size = 2, .accumulation = 3, .seq_len = 40});
    int64_t expected = 0;
    int64_t found = 0;
    for (int64_t i = 0; i < 50; i++)
        expected += mm_token_cache_n_learned(cache, (mm_cached){.row = i});
    assert_int_equal(mm_batcher_labels(batcher), expected);
    seen_steps seen = see_epoch(batcher, 0);
    for (size_t r = 0; r < seen.n_rows; r++)
        for (int32_t t = 0; t < seen.rows[r].n_tokens; t++)
            found += seen.rows[r].labels[t] != MM_LABEL_IGNORE;
    assert_int_equal(found, expected);
    drop_seen(&seen);
    mm_batcher_free(batcher);
    mm_token_cache_close(cache);
    mm_str_drop(&lines);
}

static void test_impossible_wishes_are_refused(void **state)
{
    (void)state;
    mm_token_cache *rows =
        cache_of("no.jsonl", "{\"messages\":[" ASK "," ANSWER "]}", MM_MASK_ANSWERS, false);
    const struct {
        mm_batcher_options options;
        mm_status status;
        const char *message;
    } CASES[] = {
        {{.mode = MM_BATCH_PAIRS, .batch_size = 1, .seq_len = 9}, MM_ECONFIG, "preference pairs"},
        {{.mode = MM_BATCH_ROWS, .batch_size = 1, .seq_len = 9}, MM_EFORMAT, "max_seq_len 9"},
        {{.mode = MM_BATCH_ROWS, .batch_size = 1, .seq_len = 64, .drop_think_share = 1.5},
         MM_ECONFIG,
         "drop_think_share is 1.5"},
        {{.mode = MM_BATCH_ROWS, .batch_size = 1, .seq_len = 64, .system_prompt_share = -1},
         MM_ECONFIG,
         "system_prompt_share is -1"},
        {{.mode = MM_BATCH_ROWS, .batch_size = 1, .seq_len = 64, .accumulation = -2},
         MM_ECONFIG,
         "accumulation_steps is -2"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        mm_batcher *batcher;
        mm_err err = {0};
        assert_int_equal(mm_batcher_new(&batcher, &rows, 1, tokenizer, &CASES[i].options, &err),
                         CASES[i].status);
        assert_null(batcher);
        if (!strstr(err.message, CASES[i].message)) fail_msg("%zu: %s", i, err.message);
    }
    mm_token_cache_close(rows);
}

static int set_up(void **state)
{
    tokenizer = small_tokenizer(512);
    const int code = temp_dir_make(state);
    dir = *state;
    return code;
}

static int tear_down(void **state)
{
    mm_tokenizer_free(tokenizer);
    return temp_dir_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_the_padded_rows_without_pads),
        cmocka_unit_test(test_the_size_of_a_micro_batch_decides_no_step),
        cmocka_unit_test(test_the_sides_of_a_pair_stay_together),
        cmocka_unit_test(test_shares_are_what_was_asked_for),
        cmocka_unit_test(test_a_system_prompt_gives_the_ids_of_the_whole_text),
        cmocka_unit_test(test_nothing_is_put_before_system_turns_tools_and_texts),
        cmocka_unit_test(test_draws_depend_on_seed_epoch_and_row_alone),
        cmocka_unit_test(test_any_position_is_direct),
        cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_packed_conversations_predict_what_is_learned),
        cmocka_unit_test(test_impossible_wishes_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
