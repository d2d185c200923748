/* The golden ids of docs/minimind.md: texts, conversations and their supervised positions. */
#include "tests/text/text_fixture.h"

#include "core/base/json.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static mm_tokenizer *minimind;

static void ids_text(const mm_ids *ids, mm_str *out)
{
    for (size_t i = 0; i < ids->count; i++)
        mm_str_addf(out, i == 0 ? "%d" : " %d", ids->data[i]);
}

/* Positions whose mask is 1, as "16-24 30-31". */
static void mask_text(const mm_str *mask, mm_str *out)
{
    for (size_t i = 0; i < mask->length; i++) {
        if (!mask->data[i]) continue;
        size_t end = i;
        while (end + 1 < mask->length && mask->data[end + 1])
            end++;
        mm_str_addf(out, out->length == 0 ? "%zu-%zu" : " %zu-%zu", i, end);
        i = end;
    }
}

static void texts_give_the_golden_ids(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *ids;
    } cases[] = {
        {"<|im_start|>assistant\n", "1 1388 570 811 234"},
        {"<|im_end|>\n", "2 234"},
        {"<|im_start|>user\n", "1 832 311 234"},
        {"<|im_start|>system\n", "1 118 4849 234"},
        {"<think>\n\n</think>\n\n", "25 234 234 26 234 234"},
        {"Hello, world! 2026", "1602 47 1707 36 1190 53 57"},
        {"你好，世界", "1968 294 1950"},
        {"为什么天空是蓝色的", "4568 993 1273 357 3961 930 296"},
        {"I'm here, it's 12:30.", "76 1422 1904 47 563 628 2216 61 2921 49"},
        {"don't  stop", "103 310 1445 256 580 1506"},
        {"3.14159", "54 49 3095 2316 60"},
        {"中文English混合 123", "3606 72 1685 2685 4890 482 1676"},
        {"东西南北", "2827 2304 2604 3104"},
        {"ｆｕｌｌ", "207 157 264 207 157 279 207 157 270 207 157 270"},
        {"\t x", "233 1390"},
        {"   ", "332 256"},
        {"C++ -> Rust", "70 3420 548 65 1243 1076"},
        {"é ü ñ", "3006 4537 156 4537 145"},
        {"👍🏽", "4544 275 271 4544 273 157"},
        {"🤖", "4544 133 280"},
    };
    if (!minimind) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mm_err err;
        mm_ids ids = {0};
        mm_str found;
        mm_str_init(&found, 0);
        assert_ok(mm_tokenizer_encode(minimind, cases[i].text, strlen(cases[i].text),
                                      MM_ADDED_PARSE, &ids, &err));
        ids_text(&ids, &found);
        assert_string_equal(mm_str_text(&found), cases[i].ids);
        mm_str_clear(&found);
        assert_ok(mm_tokenizer_decode(minimind, ids.data, ids.count, false, &found, &err));
        assert_string_equal(mm_str_text(&found), cases[i].text);
        mm_str_drop(&found);
        mm_ids_drop(&ids);
    }
}

#define CALC_IDS "1 832 311 234 53 45 54 66 2 234 1 1388 570 811 234 25 234 234 26 234 234 21 234"

typedef struct conversation_case {
    mm_message messages[5];
    size_t count;
    const char *tool_calls; /* JSON, for the second message */
    mm_chat_options options;
    const char *ids; /* all of them, or their beginning when n_ids is given */
    size_t n_ids;
    const char *learned;
} conversation_case;

#define OPENING     "1 1388 570 811 234"
#define EMPTY_THINK "25 234 234 26 234 234"

static const conversation_case CONVERSATIONS[] = {
    {.messages = {{.role = "user", .content = "1+1=?"}, {.role = "assistant", .content = "2"}},
     .count = 2,
     .ids = "1 832 311 234 52 46 52 64 66 2 234 " OPENING " " EMPTY_THINK " 53 2 234",
     .learned = "16-24"},
    {.messages = {{.role = "user", .content = "1+1=?"}, {.role = "assistant", .content = "2"}},
     .count = 2,
     .options = {.drop_empty_think = true},
     .ids = "1 832 311 234 52 46 52 64 66 2 234 " OPENING " 53 2 234",
     .learned = "16-18"},
    // The newline melts with the spaces into one id, so a search for the opening's ids would find
    // nothing to learn here.
    {.messages = {{.role = "user", .content = "1+1=?"}, {.role = "assistant", .content = "    2"}},
     .count = 2,
     .options = {.drop_empty_think = true},
     .ids = "1 832 311 234 52 46 52 64 66 2 234 1 1388 570 811 725 546 2 234",
     .learned = "16-18"},
    {.messages = {{.role = "user", .content = "hi"},
                  {.role = "assistant", .content = "Hello.", .reasoning_content = "greet back"}},
     .count = 2,
     .ids = "1 832 311 234 107 108 2 234 " OPENING
            " 25 234 4268 439 3901 234 26 234 234 1602 49 2 234",
     .learned = "13-25"},
    {.messages = {{.role = "system", .content = "Be brief."},
                  {.role = "user", .content = "你好"},
                  {.role = "assistant", .content = "你好！"},
                  {.role = "user", .content = "再见"},
                  {.role = "assistant", .content = "再见！"}},
     .count = 5,
     .ids = "1 118 4849 234 69 104 363 809 3225 49 2 234 1 832 311 234 1968 2 234 " OPENING
            " " EMPTY_THINK " 1968 1364 2 234 1 832 311 234 2223 1558 2 234 " OPENING
            " " EMPTY_THINK " 2223 1558 1364 2 234",
     .learned = "24-33 47-57"},
    {.messages = {{.role = "user", .content = "hi"}},
     .count = 1,
     .options = {.generation_prompt = true},
     .ids = "1 832 311 234 107 108 2 234 " OPENING " " EMPTY_THINK,
     .learned = ""},
    {.messages = {{.role = "user", .content = "hi"}},
     .count = 1,
     .options = {.generation_prompt = true, .open_thinking = true},
     .ids = "1 832 311 234 107 108 2 234 " OPENING " 25 234",
     .learned = ""},
    {.messages = {{.role = "user", .content = "2*3?"},
                  {.role = "assistant", .content = ""},
                  {.role = "tool", .content = "{\"r\": 6}"},
                  {.role = "assistant", .content = "6"}},
     .count = 4,
     .tool_calls = "[{\"name\": \"calc\", \"arguments\": {\"e\": \"2*3\"}}]",
     .ids = CALC_IDS,
     .n_ids = 82,
     .learned = "15-51 73-81"},
};

static void conversations_give_the_golden_ids_and_labels(void **state)
{
    (void)state;
    if (!minimind) skip();
    for (size_t i = 0; i < sizeof CONVERSATIONS / sizeof *CONVERSATIONS; i++) {
        conversation_case c = CONVERSATIONS[i];
        mm_err err;
        json_t *calls = NULL;
        if (c.tool_calls) {
            assert_ok(mm_json_parse(c.tool_calls, strlen(c.tool_calls), "calls", &calls, &err));
            c.messages[1].tool_calls = calls;
        }
        const mm_conversation conversation = {.messages = c.messages, .count = c.count};
        mm_ids ids = {0};
        mm_str mask;
        mm_str found;
        mm_str_init(&mask, 0);
        mm_str_init(&found, 0);
        assert_ok(mm_chat_encode(minimind, &conversation, &c.options, &ids, &mask, &err));
        assert_int_equal(mask.length, ids.count);
        ids_text(&ids, &found);
        if (c.n_ids > 0) {
            assert_int_equal(ids.count, c.n_ids);
            assert_memory_equal(mm_str_text(&found), c.ids, strlen(c.ids));
        } else {
            assert_string_equal(mm_str_text(&found), c.ids);
        }
        mm_str_clear(&found);
        mask_text(&mask, &found);
        assert_string_equal(mm_str_text(&found), c.learned);

        // Encoding the rendered text as one string gives the same.
        mm_ids again = {0};
        mm_str_clear(&found);
        assert_ok(mm_chat_render(&conversation, &c.options, &found, &err));
        assert_ok(
            mm_tokenizer_encode(minimind, found.data, found.length, MM_ADDED_PARSE, &again, &err));
        assert_int_equal(again.count, ids.count);
        assert_memory_equal(again.data, ids.data, ids.count * sizeof *ids.data);
        mm_ids_drop(&again);
        mm_str_drop(&found);
        mm_str_drop(&mask);
        mm_ids_drop(&ids);
        json_decref(calls);
    }
}

static void reserved_tokens_and_properties_are_those_of_the_specification(void **state)
{
    (void)state;
    if (!minimind) skip();
    assert_int_equal(mm_tokenizer_vocab(minimind), 6400);
    assert_int_equal(mm_tokenizer_bos(minimind), 1);
    assert_int_equal(mm_tokenizer_eos(minimind), 2);
    assert_int_equal(mm_tokenizer_pad(minimind), 0);
    assert_true(mm_chat_template_is_known(mm_tokenizer_chat_template(minimind)));
    mm_tokenizer *trained = fixture_tokenizer(300);
    for (int32_t id = 0; id < 292; id++) {
        size_t bytes[2];
        bool is_special[2];
        const char *ours = mm_tokenizer_token(trained, id, &bytes[0], &is_special[0]);
        const char *theirs = mm_tokenizer_token(minimind, id, &bytes[1], &is_special[1]);
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(ours, theirs, bytes[0]);
        assert_int_equal(is_special[0], is_special[1]);
    }
    mm_tokenizer_free(trained);
    static const struct {
        const char *text;
        int32_t id;
    } symbols[] = {{"!", 36},  {"0", 51},  {"A", 68},           {"a", 100},
                   {"Ċ", 234}, {"Ġ", 256}, {"<|buffer9|>", 35}, {"no such token", -1}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        assert_int_equal(mm_tokenizer_id(minimind, symbols[i].text), symbols[i].id);
}

int main(void)
{
    minimind = fixture_minimind();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_give_the_golden_ids),
        cmocka_unit_test(conversations_give_the_golden_ids_and_labels),
        cmocka_unit_test(reserved_tokens_and_properties_are_those_of_the_specification),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (!minimind && failed == 0) return 77;
    mm_tokenizer_free(minimind);
    return failed;
}
