/* Ids of prompts that must fit: which turns stay, what is cut, and that a fitting dialogue is the
 * template's own. */
#include "runner/dialogue.h"
#include "tests/runner/check.h"

static mm_tokenizer *tokenizer;

static int make_tokenizer(void **state)
{
    (void)state;
    static const char text[] = "one two three four five six seven eight nine ten one two three";
    mm_bpe_trainer *trainer = NULL;
    if (mm_bpe_trainer_new(&trainer, 300, NULL) != MM_OK ||
        mm_bpe_trainer_feed(trainer, text, strlen(text), NULL) != MM_OK ||
        mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, NULL) != MM_OK)
        return 1;
    mm_bpe_trainer_free(trainer);
    return 0;
}

static int free_tokenizer(void **state)
{
    (void)state;
    mm_tokenizer_free(tokenizer);
    return 0;
}

static const mm_message TURNS[] = {
    {.role = "system", .content = "be brief"}, {.role = "user", .content = "one two three"},
    {.role = "assistant", .content = "four"},  {.role = "user", .content = "five six"},
    {.role = "assistant", .content = "seven"}, {.role = "tool", .content = "eight"},
    {.role = "assistant", .content = "nine"},  {.role = "user", .content = "ten"},
};
enum { N_TURNS = sizeof TURNS / sizeof TURNS[0] };

static const mm_chat_options CLOSED = {0};

static mm_ids ids_of(const mm_message *turns, size_t n, int32_t most, int32_t *dropped)
{
    mm_ids ids = {0};
    mm_err err = {0};
    const mm_conversation chat = {.messages = turns, .count = n};
    if (mm_dialogue_ids(tokenizer, &chat, &CLOSED, most, &ids, dropped, &err) != MM_OK)
        fail_msg("%s", err.message);
    assert_true(ids.count > 0 && ids.count <= (size_t)most);
    return ids;
}

// The ids of these turns as the template makes them.
static mm_ids template_ids(const mm_message *turns, size_t n)
{
    mm_ids ids = {0};
    const mm_conversation chat = {.messages = turns, .count = n};
    const mm_chat_options options = {.generation_prompt = true};
    assert_int_equal(mm_chat_encode(tokenizer, &chat, &options, &ids, NULL, NULL), MM_OK);
    return ids;
}

static void check_equal(mm_ids found, mm_ids expected)
{
    assert_int_equal(found.count, expected.count);
    assert_memory_equal(found.data, expected.data, found.count * sizeof *found.data);
    mm_ids_drop(&found);
    mm_ids_drop(&expected);
}

static void test_what_fits_is_the_template(void **state)
{
    (void)state;
    int32_t dropped = 7;
    const mm_ids expected = template_ids(TURNS, N_TURNS);
    check_equal(ids_of(TURNS, N_TURNS, (int32_t)expected.count, &dropped), expected);
    assert_int_equal(dropped, 0);
}

// For every room the most turns that fit are shown, behind the system turn.
static void test_the_oldest_turns_go_first(void **state)
{
    (void)state;
    static const size_t starts[] = {1, 3, 7}; // turns of the user
    size_t sizes[3];
    mm_message shown[N_TURNS] = {TURNS[0]};
    for (int i = 0; i < 3; i++) {
        memcpy(shown + 1, TURNS + starts[i], (N_TURNS - starts[i]) * sizeof *shown);
        mm_ids ids = template_ids(shown, N_TURNS - starts[i] + 1);
        sizes[i] = ids.count;
        mm_ids_drop(&ids);
    }
    assert_true(sizes[0] > sizes[1] && sizes[1] > sizes[2]);
    for (size_t most = sizes[2]; most <= sizes[0] + 3; most++) {
        const int i = most >= sizes[0] ? 0 : most >= sizes[1] ? 1 : 2;
        int32_t dropped;
        memcpy(shown + 1, TURNS + starts[i], (N_TURNS - starts[i]) * sizeof *shown);
        check_equal(ids_of(TURNS, N_TURNS, (int32_t)most, &dropped),
                    template_ids(shown, N_TURNS - starts[i] + 1));
        assert_int_equal(dropped, (int32_t)starts[i] - 1);
    }
}

static void test_a_turn_too_long_keeps_its_end_and_the_system(void **state)
{
    (void)state;
    mm_str words = {0};
    for (int i = 0; i < 500; i++)
        mm_str_addf(&words, "word %d ", i);
    const mm_message turns[] = {TURNS[0], {.role = "user", .content = mm_str_text(&words)}};
    mm_ids whole = template_ids(turns, 2);
    mm_ids head = {0};
    const mm_conversation system = {.messages = turns, .count = 1};
    assert_int_equal(mm_chat_encode(tokenizer, &system, NULL, &head, NULL, NULL), MM_OK);
    int32_t dropped;
    mm_ids cut = ids_of(turns, 2, 100, &dropped);
    assert_int_equal(dropped, -1);
    assert_int_equal(cut.count, 100);
    assert_memory_equal(cut.data, head.data, head.count * sizeof *head.data);
    const size_t tail = 100 - head.count;
    assert_memory_equal(cut.data + head.count, whole.data + whole.count - tail,
                        tail * sizeof *whole.data);
    mm_ids_drop(&cut);
    // A system turn that would leave little else goes too.
    cut = ids_of(turns, 2, (int32_t)head.count + 1, &dropped);
    assert_memory_equal(cut.data, whole.data + whole.count - cut.count,
                        cut.count * sizeof *cut.data);
    mm_ids_drop(&cut);
    mm_ids_drop(&head);
    mm_ids_drop(&whole);
    mm_str_drop(&words);
}

static void test_ids_are_appended(void **state)
{
    (void)state;
    mm_ids ids = {0};
    const mm_conversation chat = {.messages = TURNS, .count = N_TURNS};
    assert_int_equal(mm_ids_add(&ids, 5, NULL), MM_OK);
    assert_int_equal(mm_dialogue_ids(tokenizer, &chat, &CLOSED, 30, &ids, NULL, NULL), MM_OK);
    assert_true(ids.data[0] == 5 && ids.count > 10 && ids.count <= 31);
    bool is_cut = false;
    const size_t before = ids.count;
    assert_int_equal(mm_text_ids(tokenizer, "one two three", 2, &ids, &is_cut, NULL), MM_OK);
    assert_int_equal(ids.count, before + 2);
    assert_true(is_cut);
    mm_ids_drop(&ids);
}

static void test_nothing_to_answer_is_refused(void **state)
{
    (void)state;
    mm_ids ids = {0};
    mm_err err = {0};
    const mm_conversation none = {0};
    assert_int_equal(mm_dialogue_ids(tokenizer, &none, &CLOSED, 30, &ids, NULL, &err), MM_EUSAGE);
    check_message(&err, "without messages");
    const mm_message root = {.role = "root", .content = "x"};
    const mm_conversation bad = {.messages = &root, .count = 1};
    assert_int_equal(mm_dialogue_ids(tokenizer, &bad, &CLOSED, 30, &ids, NULL, &err), MM_EFORMAT);
    assert_int_equal(ids.count, 0);
    mm_ids_drop(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fits_is_the_template),
        cmocka_unit_test(test_the_oldest_turns_go_first),
        cmocka_unit_test(test_a_turn_too_long_keeps_its_end_and_the_system),
        cmocka_unit_test(test_ids_are_appended),
        cmocka_unit_test(test_nothing_to_answer_is_refused),
    };
    return cmocka_run_group_tests_name("runner/dialogue", tests, make_tokenizer, free_tokenizer);
}
