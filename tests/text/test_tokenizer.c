/* Encoding, decoding, streaming and the splitter: properties that hold for every text. */
#include "tests/text/text_fixture.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/text/split.h"
#include "core/text/tokenizer_internal.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

enum { RANDOM_TEXTS = 4000, VOCAB = 420, N_THREADS = 4 };

/* Encodes both ways, decodes whole and as a stream, and compares with the text. */
static void assert_round_trip(const mm_tokenizer *tokenizer, const char *text, size_t length)
{
    mm_err err;
    mm_str out;
    mm_str streamed;
    mm_str_init(&out, 0);
    mm_str_init(&streamed, 0);
    for (int added = MM_ADDED_AS_TEXT; added <= MM_ADDED_PARSE; added++) {
        mm_ids ids = {0};
        mm_decode_stream stream = {0};
        mm_str_clear(&out);
        mm_str_clear(&streamed);
        assert_ok(mm_tokenizer_encode(tokenizer, text, length, (mm_parse_added)added, &ids, &err));
        assert_ok(mm_tokenizer_decode(tokenizer, ids.data, ids.count, false, &out, &err));
        assert_int_equal(out.length, length);
        assert_memory_equal(mm_str_text(&out), text, length);
        for (size_t i = 0; i < ids.count; i++) {
            assert_ok(
                mm_decode_stream_push(&stream, tokenizer, ids.data[i], false, &streamed, &err));
            // A reader never sees a broken character.
            assert_int_equal(mm_utf8_valid(mm_str_text(&streamed), streamed.length),
                             streamed.length);
            if (added == MM_ADDED_AS_TEXT) assert_true(ids.data[i] >= 36);
        }
        mm_decode_stream_end(&stream, &streamed);
        assert_int_equal(streamed.length, length);
        assert_memory_equal(mm_str_text(&streamed), text, length);
        mm_ids_drop(&ids);
    }
    mm_str_drop(&streamed);
    mm_str_drop(&out);
}

static void decoding_undoes_encoding_on_random_text(void **state)
{
    (void)state;
    mm_tokenizer *own = fixture_tokenizer(VOCAB);
    mm_tokenizer *minimind = fixture_minimind();
    mm_rng rng;
    mm_rng_init(&rng, 7, MM_RNG_TEST, 0);
    for (int i = 0; i < RANDOM_TEXTS; i++) {
        mm_str text;
        mm_str_init(&text, 0);
        fixture_add_text(&rng, &text);
        assert_int_equal(mm_utf8_valid(mm_str_text(&text), text.length), text.length);
        assert_round_trip(own, mm_str_text(&text), text.length);
        if (minimind) assert_round_trip(minimind, mm_str_text(&text), text.length);
        mm_str_drop(&text);
    }
    mm_tokenizer_free(minimind);
    mm_tokenizer_free(own);
}

static void decoding_undoes_encoding_on_real_files(void **state)
{
    (void)state;
    static const char *const files[] = {"tinyshakespeare.txt", "sft_zh.jsonl", "dpo_zh.jsonl",
                                        "rlaif.jsonl", "lora_identity.jsonl"};
    mm_tokenizer *minimind = fixture_minimind();
    if (!minimind) skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        mm_err err;
        char *path;
        char *text;
        size_t length;
        assert_ok(mm_path_join(&path, MM_SHARED_DATA, files[i], &err));
        assert_ok(mm_file_read(path, 1 << 28, &text, &length, &err));
        mm_ids ids = {0};
        mm_str out;
        mm_str_init(&out, 0);
        assert_ok(mm_tokenizer_encode(minimind, text, length, MM_ADDED_PARSE, &ids, &err));
        assert_ok(mm_tokenizer_decode(minimind, ids.data, ids.count, false, &out, &err));
        assert_int_equal(out.length, length);
        assert_memory_equal(out.data, text, length);
        mm_str_drop(&out);
        mm_ids_drop(&ids);
        mm_free(text);
        mm_free(path);
    }
    mm_tokenizer_free(minimind);
}

static void invalid_utf8_is_refused_with_its_offset(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        const char *message;
    } cases[] = {
        {"abc\xFF", 4, "invalid UTF-8 at byte 3 (0xff)"},
        {"\xC0\x80", 2, "invalid UTF-8 at byte 0 (0xc0)"},             // overlong
        {"ab\xED\xA0\x80", 5, "invalid UTF-8 at byte 2 (0xed)"},       // surrogate
        {"\xF4\x90\x80\x80", 4, "invalid UTF-8 at byte 0 (0xf4)"},     // above U+10FFFF
        {"\xE4\xBD\xA0\xE5\xA5", 5, "invalid UTF-8 at byte 3 (0xe5)"}, // cut short
        {"a\x80", 2, "invalid UTF-8 at byte 1 (0x80)"},
    };
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mm_err err;
        mm_ids ids = {0};
        assert_int_equal(mm_tokenizer_encode(tokenizer, cases[i].text, cases[i].length,
                                             MM_ADDED_PARSE, &ids, &err),
                         MM_EFORMAT);
        assert_string_equal(err.message, cases[i].message);
        assert_int_equal(ids.count, 0);
        mm_ids_drop(&ids);
    }
    mm_tokenizer_free(tokenizer);
}

static void a_stream_of_any_ids_equals_the_whole_with_broken_bytes_replaced(void **state)
{
    (void)state;
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    mm_rng rng;
    mm_rng_init(&rng, 8, MM_RNG_TEST, 0);
    for (int round = 0; round < 2000; round++) {
        mm_err err;
        mm_decode_stream stream = {0};
        mm_ids ids = {0};
        mm_str whole;
        mm_str expected;
        mm_str streamed;
        mm_str_init(&whole, 0);
        mm_str_init(&expected, 0);
        mm_str_init(&streamed, 0);
        const uint32_t count = mm_rng_below(&rng, 40);
        for (uint32_t i = 0; i < count; i++) {
            // Mostly bytes of the upper half, which form characters only by chance.
            const uint32_t id = mm_rng_below(&rng, 3) == 0 ? mm_rng_below(&rng, VOCAB)
                                                           : 130 + mm_rng_below(&rng, 100);
            assert_ok(mm_ids_add(&ids, (int32_t)id, &err));
            assert_ok(
                mm_decode_stream_push(&stream, tokenizer, (int32_t)id, true, &streamed, &err));
        }
        mm_decode_stream_end(&stream, &streamed);
        assert_ok(mm_tokenizer_decode(tokenizer, ids.data, ids.count, true, &whole, &err));
        mm_utf8_add_valid(&expected, mm_str_text(&whole), whole.length);
        assert_string_equal(mm_str_text(&streamed), mm_str_text(&expected));
        mm_str_drop(&streamed);
        mm_str_drop(&expected);
        mm_str_drop(&whole);
        mm_ids_drop(&ids);
    }
    mm_tokenizer_free(tokenizer);
}

static void special_tokens_vanish_on_request_and_tags_stay(void **state)
{
    (void)state;
    mm_err err;
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    const char *text = "<|im_start|>assistant\n<think>\nx</think><|im_end|>";
    mm_ids ids = {0};
    mm_str out;
    mm_str_init(&out, 0);
    assert_ok(mm_tokenizer_encode(tokenizer, text, strlen(text), MM_ADDED_PARSE, &ids, &err));
    assert_int_equal(ids.data[0], 1);
    assert_int_equal(ids.data[ids.count - 1], 2);
    assert_ok(mm_tokenizer_decode(tokenizer, ids.data, ids.count, true, &out, &err));
    assert_string_equal(out.data, "assistant\n<think>\nx</think>");
    const int32_t beyond[] = {5, mm_tokenizer_vocab(tokenizer)};
    assert_int_equal(mm_tokenizer_decode(tokenizer, beyond, 2, false, &out, &err), MM_EFORMAT);
    assert_non_null(strstr(err.message, "420"));
    assert_int_equal(mm_tokenizer_decode(tokenizer, &(int32_t){-1}, 1, false, &out, &err),
                     MM_EFORMAT);
    assert_null(mm_tokenizer_token(tokenizer, -1, NULL, NULL));
    mm_str_drop(&out);
    mm_ids_drop(&ids);
    mm_tokenizer_free(tokenizer);
}

static void the_splitter_follows_the_rule(void **state)
{
    (void)state;
    // '|' stands between the words.
    static const char *const cases[] = {
        "Hello|,| world|!| 2026",
        "don|'t|  |\t|stop",
        "don|'t| | stop",
        "I|'ll| we|'ve|'s|'|x",
        "'|SHE",
        "a| | b",
        "a|\n|\n|b",
        "a|\n\n",
        "x| \t|\n|y",
        "x|  \t|\xC2\xA0|y",
        "3|.|14159|abc|123",
        " 中文| ½²| !?",
        "e|\xCC\x81|e",        // a combining accent is neither letter nor number nor space
        "a|\xE2\x80\x8B|b",    // U+200B is no white space
        "a| |\xC2\x85|b",      // U+0085 is
        "a| \xEF\xBB\xBF|b",   // U+FEFF is not
        "\xF0\xB1\x8D\x90z|!", // U+31350, a letter since Unicode 15
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64];
        size_t ends[32];
        size_t n_ends = 0;
        size_t length = 0;
        for (const char *c = cases[i]; *c; c++) {
            if (*c != '|')
                text[length++] = *c;
            else if (length > 0)
                ends[n_ends++] = length;
        }
        ends[n_ends++] = length;
        size_t at = 0;
        for (size_t word = 0; word < n_ends; word++) {
            at += mm_split_next(text + at, length - at);
            if (at != ends[word])
                fail_msg("%s: word %zu ends at %zu, not %zu", cases[i], word, at, ends[word]);
        }
    }
}

static void added_tokens_match_longest_first(void **state)
{
    (void)state;
    mm_err err;
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    const struct {
        const char *text;
        int32_t ids[6];
        size_t count;
    } cases[] = {
        {"<tts_text_bos_single><tts_text_bos>", {20, 18}, 2},
        {"<|im_start|><|im_end|><|endoftext|>", {1, 2, 0}, 3},
        {"<<think>", {63, 25}, 2},
        {"<think><", {25, 63}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mm_ids ids = {0};
        assert_ok(mm_tokenizer_encode(tokenizer, cases[i].text, strlen(cases[i].text),
                                      MM_ADDED_PARSE, &ids, &err));
        assert_int_equal(ids.count, cases[i].count);
        assert_memory_equal(ids.data, cases[i].ids, ids.count * sizeof *ids.data);
        mm_ids_drop(&ids);
    }
    mm_tokenizer_free(tokenizer);
}

/* A megabyte without a space takes a fraction of a second; a quadratic merge would run into the
 * time limit of the test. */
static void long_words_are_not_quadratic(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 20 };
    static const char *const letters[] = {"a", "ab", "quick", "\xE4\xBB\x8A\xE5\xA4\xA9"};
    mm_err err;
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++) {
        mm_str text;
        mm_str_init(&text, 0);
        while (text.length < LENGTH)
            mm_str_add(&text, letters[i]);
        mm_ids ids = {0};
        assert_ok(
            mm_tokenizer_encode(tokenizer, text.data, text.length, MM_ADDED_PARSE, &ids, &err));
        mm_str out;
        mm_str_init(&out, 0);
        assert_ok(mm_tokenizer_decode(tokenizer, ids.data, ids.count, false, &out, &err));
        assert_int_equal(out.length, text.length);
        assert_memory_equal(out.data, text.data, text.length);
        mm_str_drop(&out);
        mm_ids_drop(&ids);
        mm_str_drop(&text);
    }
    mm_tokenizer_free(tokenizer);
}

/* The merges of a tokenizer in their order, as pairs of ids. */
typedef struct merge_list {
    int32_t (*pairs)[2];
    size_t count;
} merge_list;

static merge_list merges_of(const mm_tokenizer *tokenizer)
{
    mm_err err;
    mm_str json = {0};
    json_t *root;
    assert_ok(mm_tokenizer_json(tokenizer, &json, &err));
    assert_ok(mm_json_parse(json.data, json.length, "json", &root, &err));
    const json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    merge_list list = {.count = json_array_size(merges)};
    list.pairs = mm_alloc(list.count * sizeof *list.pairs);
    for (size_t i = 0; i < list.count; i++) {
        for (size_t side = 0; side < 2; side++)
            list.pairs[i][side] = mm_tokenizer_id(
                tokenizer, json_string_value(json_array_get(json_array_get(merges, i), side)));
    }
    json_decref(root);
    mm_str_drop(&json);
    return list;
}

/* Merges by the definition: again and again the leftmost of the best pairs. */
static void reference_merge(const merge_list *merges, mm_ids *ids)
{
    for (;;) {
        size_t best_rank = merges->count;
        size_t best = 0;
        for (size_t i = 0; i + 1 < ids->count; i++) {
            for (size_t rank = 0; rank < best_rank; rank++) {
                if (merges->pairs[rank][0] != ids->data[i] ||
                    merges->pairs[rank][1] != ids->data[i + 1])
                    continue;
                best_rank = rank;
                best = i;
            }
        }
        if (best_rank == merges->count) return;
        ids->data[best] = 292 + (int32_t)best_rank; // merge number m gives id 292 + m
        memmove(ids->data + best + 1, ids->data + best + 2,
                (ids->count - best - 2) * sizeof *ids->data);
        ids->count--;
    }
}

/* Of one word. */
static void check_by_definition(const mm_tokenizer *tokenizer, const merge_list *merges,
                                const char *word, size_t length)
{
    mm_err err;
    mm_ids expected = {0};
    mm_ids found = {0};
    for (size_t i = 0; i < length; i++) {
        mm_str symbol = {0};
        mm_byte_symbols_add(&symbol, word + i, 1);
        assert_ok(mm_ids_add(&expected, mm_tokenizer_id(tokenizer, symbol.data), &err));
        mm_str_drop(&symbol);
    }
    reference_merge(merges, &expected);
    assert_ok(mm_tokenizer_encode(tokenizer, word, length, MM_ADDED_PARSE, &found, &err));
    assert_int_equal(found.count, expected.count);
    assert_memory_equal(found.data, expected.data, found.count * sizeof *found.data);
    mm_ids_drop(&found);
    mm_ids_drop(&expected);
}

/* Words around the length where the algorithm changes; each length twice, so that the cache answers
 * too. */
static void fast_merging_equals_the_definition(void **state)
{
    (void)state;
    mm_tokenizer *tokenizer = fixture_tokenizer(330);
    merge_list merges = merges_of(tokenizer);
    mm_rng rng;
    mm_rng_init(&rng, 9, MM_RNG_TEST, 0);
    char word[80] = {0};
    for (int round = 0; round < 160; round++) {
        const size_t length = 1 + (size_t)round / 2;
        for (size_t i = 0; i < length && round % 2 == 0; i++)
            word[i] = "thequickdog"[mm_rng_below(&rng, 11)];
        check_by_definition(tokenizer, &merges, word, length);
    }
    mm_free(merges.pairs);
    mm_tokenizer_free(tokenizer);
}

/* Letters of three bytes, and a few of other sizes: of a few different words, or such that share
 * most of their bytes, so that the ends of letters are merged with the beginnings of others. */
static void add_wide_word(mm_rng *rng, mm_str *out, int letters, bool is_regular)
{
    static const char *const WORDS[] = {"春天", "雨水", "河", "明月光", "春雨", "ありがとう"};
    static const char *const OTHERS[] = {"a", "b", "é", "я", "𠀀", "𠀁"};
    const bool varies = mm_rng_below(rng, 2) == 0;
    for (int i = 0; i < letters; i++) {
        if (mm_rng_below(rng, 16) == 0) {
            mm_str_add(out, OTHERS[mm_rng_below(rng, 6)]);
        } else if (is_regular) {
            mm_str_add(out, WORDS[mm_rng_below(rng, 6)]);
        } else {
            const char text[3] = {(char)(0xE4 + (varies ? 0 : mm_rng_below(rng, 3))),
                                  (char)(0xB8 + mm_rng_below(rng, varies ? 7 : 2)),
                                  (char)(0x80 + mm_rng_below(rng, varies ? 2 : 9))};
            mm_str_add_bytes(out, text, sizeof text);
        }
    }
}

/* Tokens that hold parts of two characters are what makes cutting words delicate. */
static int tokens_across_characters(const mm_tokenizer *tokenizer)
{
    int count = 0;
    for (int32_t id = 292; id < mm_tokenizer_vocab(tokenizer); id++) {
        size_t bytes;
        const char *text = mm_tokenizer_token(tokenizer, id, &bytes, NULL);
        for (size_t i = 1; i < bytes; i++)
            count += ((unsigned char)text[i] & 0xF0) == 0xE0 && (i < 3 || bytes - i < 3);
    }
    return count;
}

static void words_of_wide_letters_are_merged_by_the_definition(void **state)
{
    (void)state;
    mm_err err;
    static const int32_t VOCABS[] = {293, 300, 330, 340, 360, 500, 900};
    for (size_t k = 0; k < sizeof VOCABS / sizeof VOCABS[0]; k++) {
        mm_rng rng;
        mm_str text = {0};
        mm_bpe_trainer *trainer;
        mm_tokenizer *tokenizer;
        const bool is_regular = k % 2 == 0;
        mm_rng_init(&rng, 21, MM_RNG_TEST, (uint64_t)k);
        assert_ok(mm_bpe_trainer_new(&trainer, VOCABS[k], &err));
        for (int i = 0; i < 300; i++) {
            mm_str_clear(&text);
            add_wide_word(&rng, &text, 2 + (int)mm_rng_below(&rng, 12), is_regular);
            assert_ok(mm_bpe_trainer_feed(trainer, text.data, text.length, &err));
        }
        assert_ok(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, &err));
        mm_bpe_trainer_free(trainer);
        if (!is_regular && VOCABS[k] > 300) assert_true(tokens_across_characters(tokenizer) > 3);
        merge_list merges = merges_of(tokenizer);
        for (int i = 0; i < 300; i++) {
            mm_str_clear(&text);
            add_wide_word(&rng, &text, 1 + i % 30, is_regular);
            // Twice, so that what is remembered answers too.
            check_by_definition(tokenizer, &merges, text.data, text.length);
            check_by_definition(tokenizer, &merges, text.data, text.length);
        }
        mm_free(merges.pairs);
        mm_tokenizer_free(tokenizer);
        mm_str_drop(&text);
    }
}

typedef struct thread_job {
    const mm_tokenizer *tokenizer;
    mm_ids ids;
    bool is_ok;
} thread_job;

static void *encode_many(void *argument)
{
    thread_job *job = argument;
    mm_rng rng;
    mm_rng_init(&rng, 10, MM_RNG_TEST, 0);
    mm_str text;
    mm_str_init(&text, 0);
    job->is_ok = true;
    for (int i = 0; i < 400 && job->is_ok; i++) {
        mm_str_clear(&text);
        fixture_add_text(&rng, &text);
        job->is_ok = mm_tokenizer_encode(job->tokenizer, mm_str_text(&text), text.length,
                                         MM_ADDED_PARSE, &job->ids, NULL) == MM_OK;
    }
    mm_str_drop(&text);
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    thread_job jobs[N_THREADS] = {{0}};
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        jobs[i].tokenizer = tokenizer;
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, &jobs[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N_THREADS; i++) {
        assert_true(jobs[i].is_ok);
        assert_int_equal(jobs[i].ids.count, jobs[0].ids.count);
        assert_memory_equal(jobs[i].ids.data, jobs[0].ids.data,
                            jobs[0].ids.count * sizeof(int32_t));
    }
    for (int i = 0; i < N_THREADS; i++)
        mm_ids_drop(&jobs[i].ids);
    mm_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_splitter_follows_the_rule),
        cmocka_unit_test(decoding_undoes_encoding_on_random_text),
        cmocka_unit_test(decoding_undoes_encoding_on_real_files),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_offset),
        cmocka_unit_test(a_stream_of_any_ids_equals_the_whole_with_broken_bytes_replaced),
        cmocka_unit_test(special_tokens_vanish_on_request_and_tags_stay),
        cmocka_unit_test(added_tokens_match_longest_first),
        cmocka_unit_test(fast_merging_equals_the_definition),
        cmocka_unit_test(words_of_wide_letters_are_merged_by_the_definition),
        cmocka_unit_test(long_words_are_not_quadratic),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
