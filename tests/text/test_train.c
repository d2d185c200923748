/* The trainer against merges worked out by hand. Equality with another implementation on real text
 * is check_tokenizer.py's.
 */
#include "tests/text/text_fixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

/* Trains on one text; the learned tokens in order, '|' before each. */
static void assert_learned(const char *text, int32_t vocab_size, const char *expected)
{
    mm_err err;
    mm_bpe_trainer *trainer;
    mm_tokenizer *tokenizer;
    mm_str found;
    mm_str_init(&found, 0);
    assert_ok(mm_bpe_trainer_new(&trainer, vocab_size, &err));
    assert_ok(mm_bpe_trainer_feed(trainer, text, strlen(text), &err));
    assert_ok(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, &err));
    for (int32_t id = 292; id < mm_tokenizer_vocab(tokenizer); id++) {
        size_t bytes;
        const char *token = mm_tokenizer_token(tokenizer, id, &bytes, NULL);
        mm_str_add_char(&found, '|');
        mm_str_add_bytes(&found, token, bytes);
    }
    assert_string_equal(mm_str_text(&found), expected);
    mm_str_drop(&found);
    mm_tokenizer_free(tokenizer);
    mm_bpe_trainer_free(trainer);
}

static void merges_follow_the_counts(void **state)
{
    (void)state;
    // Words: "ab" once, " ab" twice, " abc" once. Pairs: a+b 4, space+a 3, b+c 1; then space+ab 3,
    // ab+c 1; then " ab"+c 1; then nothing is left, though the vocabulary has room.
    assert_learned("ab ab ab abc", 400, "|ab| ab| abc");
    assert_learned("ab ab ab abc", 294, "|ab| ab");
    assert_learned("ab ab ab abc", 292, "");
    // a+a is counted at every position of "aaaaa", four times; b+c three times.
    assert_learned("aaaaa bc bc bc", 293, "|aa");
    // Five bc against four: the overlapping runs do not hide it.
    assert_learned("aaaaa bc bc bc bc bc", 294, "|bc| bc");
}

static void ties_go_to_the_smaller_pair(void **state)
{
    (void)state;
    // All pairs occur once: x+y is (123,124), z+w (125,122), then space+zw (256,293).
    assert_learned("xy zw", 400, "|xy|zw| zw");
    // u+v (120,121) before x+y, although it comes later in the text.
    assert_learned("xy\nuv", 400, "|uv|xy");
}

static void reserved_text_is_ordinary_while_training(void **state)
{
    (void)state;
    // The words are "<", "think", "><", "think", ">"; h+i is the smallest of four equal pairs, then
    // n+k.
    assert_learned("<think><think>", 294, "|hi|nk");
}

static void impossible_orders_are_refused(void **state)
{
    (void)state;
    mm_err err;
    mm_bpe_trainer *trainer;
    mm_tokenizer *tokenizer;
    assert_int_equal(mm_bpe_trainer_new(&trainer, 291, &err), MM_ECONFIG);
    assert_non_null(strstr(
        err.message, "expected 292 (36 reserved tokens and 256 bytes) to 1048576, found 291"));
    assert_null(trainer);
    assert_int_equal(mm_bpe_trainer_new(&trainer, 2000000, &err), MM_ECONFIG);
    assert_ok(mm_bpe_trainer_new(&trainer, 300, &err));
    assert_int_equal(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, &err), MM_EFORMAT);
    assert_int_equal(mm_bpe_trainer_feed(trainer, "ok \xFF", 4, &err), MM_EFORMAT);
    assert_string_equal(err.message, "invalid UTF-8 at byte 3 (0xff)");
    mm_bpe_trainer_free(trainer);
}

static void note_progress(void *context, int64_t done, int64_t total)
{
    int64_t *last = context;
    assert_true(done >= last[0] && done <= total);
    last[0] = done;
    last[1] = total;
}

static void progress_reaches_the_end(void **state)
{
    (void)state;
    mm_err err;
    int64_t last[2] = {0, 0};
    mm_bpe_trainer *trainer;
    mm_tokenizer *tokenizer;
    assert_ok(mm_bpe_trainer_new(&trainer, 294, &err));
    assert_ok(mm_bpe_trainer_feed(trainer, "ab ab ab abc", 12, &err));
    assert_ok(mm_bpe_trainer_finish(trainer, &tokenizer, note_progress, last, &err));
    assert_int_equal(last[0], 2);
    assert_int_equal(last[1], 2);
    mm_tokenizer_free(tokenizer);
    mm_bpe_trainer_free(trainer);
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    const char *text = "the quick brown fox, the lazy dog; the end";
    for (uint64_t nth = 1;; nth++) {
        mm_err err;
        mm_bpe_trainer *trainer;
        mm_tokenizer *tokenizer = NULL;
        mm_alloc_fail_at(nth);
        mm_status status = mm_bpe_trainer_new(&trainer, 320, &err);
        if (status == MM_OK) status = mm_bpe_trainer_feed(trainer, text, strlen(text), &err);
        if (status == MM_OK) status = mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, &err);
        mm_alloc_fail_at(0);
        mm_tokenizer_free(tokenizer);
        mm_bpe_trainer_free(trainer);
        if (status == MM_OK) break;
        assert_int_equal(status, MM_ENOMEM);
        assert_true(nth < 10000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_follow_the_counts),
        cmocka_unit_test(ties_go_to_the_smaller_pair),
        cmocka_unit_test(reserved_text_is_ordinary_while_training),
        cmocka_unit_test(impossible_orders_are_refused),
        cmocka_unit_test(progress_reaches_the_end),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
