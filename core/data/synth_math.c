/* Arithmetic: a problem is two numbers and an operation; the templates say it with signs, with
 * words or as a little story. Slots: a b c the numbers, A B C the same in words, at bt ct numbers
 * of things, d the bare things, h and k two people. The words that tell the operation ("more",
 * "gives away", "each") belong to one operation only. */
#include "core/data/synth_math.h"

#include <stdio.h>

static const char *const STATEMENTS[4][MM_LANGUAGES] = {
    {"[{a} + {b} = {c}|{a}+{b}={c}|{a}加{b}等于{c}|{A}加{B}等于{C}|{a}和{b}的和是{c}|"
     "{h}有{at}，{k}又给了{h}{bt}，现在{h}一共有{ct}|左边有{at}，右边有{bt}，加起来是{ct}]。",
     "[{a} + {b} = {c}|{a}+{b}={c}|{a} plus {b} [is|equals|makes] {c}|{^A} plus {B} is {C}|The sum "
     "of "
     "{a} and {b} is {c}|{h} has {at}. {k} brings {bt} more. Now {h} has {ct}|Add {at} to {bt} and "
     "you "
     "get {ct}]."},
    {"[{a} - {b} = {c}|{a}-{b}={c}|{a}减{b}等于{c}|{A}减{B}等于{C}|{a}减去{b}还剩{c}|"
     "{h}有{at}，送走了{bt}，还剩{ct}|{at}里面拿走{bt}，剩下{ct}]。",
     "[{a} - {b} = {c}|{a}-{b}={c}|{a} minus {b} [is|equals|leaves] {c}|{^A} minus {B} is {C}|Take "
     "{b} "
     "away from {a} and {c} is left|{h} has {at} and gives {bt} away. Now {h} has {ct}]."},
    {"[{a} × {b} = {c}|{a}×{b}={c}|{a}乘{b}等于{c}|{A}乘{B}等于{C}|{a}乘以{b}是{c}|"
     "{h}有{a}个袋子，每个袋子里有{bt}，合起来是{ct}]。",
     "[{a} × {b} = {c}|{a}×{b}={c}|{a} times {b} [is|equals|makes] {c}|{^A} times {B} is {C}|{h} "
     "has {a} "
     "[bag|row|pile]s with {bt} in each. That makes {ct}]."},
    {"[{a}和{b}相比，{c}更大|{l}比{c}小|{c}比{l}大|{c} > {l}|{l} < {c}]。",
     "[Of {a} and {b}, {c} is the larger number|{l} is smaller than {c}|{c} is larger than {l}|{c} "
     "> "
     "{l}|{l} < {c}]."}};

static const char *const QUESTIONS[4][MM_LANGUAGES] = {
    {"[[请问|你知道|告诉我，|算一算，||]{a}[加| + |＋]{b}[等于几|是多少|等于多少]？|{a} + {b} = ?|"
     "{A}加{B}等于几？|{a}和{b}的和是多少？|{h}有{at}，{k}又给了{h}{bt}。{h}一共有[几|多少]{m}{d}"
     "？|"
     "[左边|桌上]有{at}，[右边|盒里]有{bt}，加起来是多少？]",
     "[[What is|How much is|Please tell me:|Can you work out|Calculate] {a} [plus|+] {b}?|{a} + "
     "{b} = "
     "?|How much is {A} plus {B}?|What is the sum of {a} and {b}?|{h} has {at}. {k} brings {bt} "
     "more. How "
     "many {d} does {h} have now?|[Add {b} to {a}.|If you add {bt} to {at}, how many do you "
     "have?]]"},
    {"[[请问|你知道|告诉我，|算一算，||]{a}[减| - |－]{b}[等于几|是多少|等于多少]？|{a} - {b} = ?|"
     "{A}减{B}等于几？|{a}减去{b}还剩多少？|{h}有{at}，送走了{bt}。还剩[几|多少]{m}{d}？|"
     "[篮子里|桌上]有{at}，拿走{bt}，剩下多少？]",
     "[[What is|How much is|Please tell me:|Can you work out|Calculate] {a} [minus|-] {b}?|{a} - "
     "{b} = "
     "?|How much is {A} minus {B}?|Take {b} away from {a}. What is left?|{h} has {at} and gives "
     "{bt} "
     "away. How many {d} does {h} have left?]"},
    {"[[请问|你知道|告诉我，|算一算，||]{a}[乘| × |乘以]{b}[等于几|是多少|等于多少]？|{a} × {b} = "
     "?|"
     "{A}乘{B}等于几？|{h}有{a}个袋子，每个袋子里有{bt}。{h}有[几|多少]{m}{d}？]",
     "[[What is|How much is|Please tell me:|Can you work out|Calculate] {a} [times|×] {b}?|{a} × "
     "{b} = "
     "?|How much is {A} times {B}?|{h} has {a} [bag|row|pile]s with {bt} in each. How many {d} is "
     "that?]"},
    {"[[请问，|你知道吗，||]{a}和{b}哪个[更大|大]？|{a}和{b}相比，较大的数是哪个？]",
     "[[Which is larger|Which number is larger|Please tell me which is larger], {a} or {b}?|Of {a} "
     "and "
     "{b}, which is the larger number?]"}};

static const char *const ANSWERS[4][MM_LANGUAGES] = {
    {"[{c}|{c}。|答案是{c}。|{a} + {b} = {c}|一共是{c}。|等于{c}。]",
     "[{c}|{c}.|The answer is {c}.|{a} + {b} = {c}|That makes {c}.|It is {c}.]"},
    {"[{c}|{c}。|答案是{c}。|{a} - {b} = {c}|还剩{c}。|等于{c}。]",
     "[{c}|{c}.|The answer is {c}.|{a} - {b} = {c}|{c} is left.|It is {c}.]"},
    {"[{c}|{c}。|答案是{c}。|{a} × {b} = {c}|等于{c}。]",
     "[{c}|{c}.|The answer is {c}.|{a} × {b} = {c}|It is {c}.]"},
    {"[{c}|{c}。|{c}更大。|较大的数是{c}。]",
     "[{c}|{c}.|{c} is larger.|The larger number is {c}.]"}};

static void set_number(mm_slots *slots, const char *name, const char *word_name,
                       mm_language language, int number, bool in_words)
{
    char digits[16];
    mm_str words = {0};
    snprintf(digits, sizeof digits, "%d", number);
    mm_slots_set(slots, name, digits);
    if (in_words)
        mm_number_words(&words, language, number);
    else
        mm_str_add(&words, digits);
    mm_slots_set(slots, word_name, mm_str_text(&words));
    mm_str_drop(&words);
}

static void set_things(mm_synth *synth, mm_problem *problem)
{
    mm_slots *slots = &problem->slots;
    const mm_language language = synth->language;
    const mm_noun *thing = &mm_things[mm_synth_below(synth, MM_THINGS)];
    const int first = mm_synth_below(synth, MM_NAMES);
    const int second = (first + 1 + mm_synth_below(synth, MM_NAMES - 1)) % MM_NAMES;
    const struct {
        const char *name;
        int number;
    } counts[] = {{"at", problem->a}, {"bt", problem->b}, {"ct", problem->result}};
    mm_str text = {0};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        mm_count_phrase(&text, language, thing, -1, counts[i].number, false);
        mm_slots_set(slots, counts[i].name, mm_str_text(&text));
        mm_str_clear(&text);
    }
    mm_str_drop(&text);
    mm_slots_set(slots, "d", language == MM_ZH ? thing->zh : thing->plural);
    mm_slots_set(slots, "m", thing->measure);
    mm_slots_set(slots, "h", mm_names[language][first].text);
    mm_slots_set(slots, "k", mm_names[language][second].text);
}

// Draws a pair without order from this side of the line and puts it into a drawn order.
static void draw_unordered(mm_synth *synth, mm_combo domain, int count, mm_problem *problem)
{
    int low;
    int high;
    do {
        mm_synth_combo(synth, domain, count, count, &low, &high);
    } while (low > high || (domain == MM_COMBO_COMPARE && low == high));
    const bool is_swapped = mm_synth_chance(synth, 50);
    problem->a = is_swapped ? high : low;
    problem->b = is_swapped ? low : high;
}

static void draw_numbers(mm_synth *synth, int largest, mm_problem *problem)
{
    switch (problem->operation) {
    case MM_ADD:
        draw_unordered(synth, MM_COMBO_ADD, largest + 1, problem);
        problem->result = problem->a + problem->b;
        break;
    case MM_SUBTRACT:
        do {
            mm_synth_combo(synth, MM_COMBO_SUBTRACT, largest + 1, largest + 1, &problem->a,
                           &problem->b);
        } while (problem->a < problem->b);
        problem->result = problem->a - problem->b;
        break;
    case MM_MULTIPLY:
        do {
            draw_unordered(synth, MM_COMBO_MULTIPLY, MM_MULTIPLY_MAX + 1, problem);
        } while (problem->a < 2); // "one bags" would be wrong, none is no bag
        problem->result = problem->a * problem->b;
        break;
    case MM_COMPARE:
        draw_unordered(synth, MM_COMBO_COMPARE, MM_ADD_LARGE_MAX + 1, problem);
        problem->result = problem->a > problem->b ? problem->a : problem->b;
        break;
    }
}

static void set_slots(mm_synth *synth, mm_problem *problem)
{
    mm_slots *slots = &problem->slots;
    slots->count = 0;
    // A line is in digits as a whole when one of its numbers has no words.
    const bool in_words = problem->result <= MM_NUMBER_MAX;
    const int smaller = problem->a < problem->b ? problem->a : problem->b;
    set_number(slots, "a", "A", synth->language, problem->a, in_words);
    set_number(slots, "b", "B", synth->language, problem->b, in_words);
    set_number(slots, "c", "C", synth->language, problem->result, in_words);
    set_number(slots, "l", "L", synth->language, smaller, in_words);
    set_things(synth, problem);
}

void mm_problem_draw(mm_synth *synth, mm_problem *problem)
{
    static const mm_operation SHARES[10] = {MM_ADD,      MM_ADD,      MM_ADD,      MM_ADD,
                                            MM_SUBTRACT, MM_SUBTRACT, MM_SUBTRACT, MM_MULTIPLY,
                                            MM_MULTIPLY, MM_COMPARE};
    problem->operation = SHARES[mm_synth_below(synth, 10)];
    draw_numbers(synth, mm_synth_chance(synth, 20) ? MM_ADD_LARGE_MAX : MM_ADD_MAX, problem);
    set_slots(synth, problem);
}

void mm_problem_draw_small(mm_synth *synth, mm_problem *problem)
{
    static const mm_operation SHARES[4] = {MM_COMPARE, MM_COMPARE, MM_ADD, MM_SUBTRACT};
    problem->operation = SHARES[mm_synth_below(synth, 4)];
    if (problem->operation == MM_COMPARE) {
        draw_unordered(synth, MM_COMBO_COMPARE, MM_ADD_MAX + 1, problem);
        problem->result = problem->a > problem->b ? problem->a : problem->b;
    } else {
        draw_numbers(synth, MM_ADD_MAX, problem);
    }
    set_slots(synth, problem);
}

void mm_problem_state(mm_synth *synth, const mm_problem *problem, mm_str *out)
{
    mm_synth_expand(synth, STATEMENTS[problem->operation][synth->language], &problem->slots, out);
}

void mm_problem_ask(mm_synth *synth, const mm_problem *problem, mm_str *question)
{
    // Bare sums are few; who asks, and how, makes them many.
    static const char *const HEADS[MM_LANGUAGES] = {
        "[||{k}问：|{k}想知道：|{k}的作业：|老师问{k}：|{k}考{h}：]",
        "[||{k} asks: |{k} wants to know: |Homework of {k}: |A question for {k}: |{k} asks {h}: ]"};
    mm_synth_expand(synth, HEADS[synth->language], &problem->slots, question);
    mm_synth_expand(synth, QUESTIONS[problem->operation][synth->language], &problem->slots,
                    question);
}

void mm_problem_answer(mm_synth *synth, const mm_problem *problem, int value, mm_str *answer)
{
    mm_slots slots = problem->slots;
    set_number(&slots, "c", "C", synth->language, value, false);
    mm_synth_expand(synth, ANSWERS[problem->operation][synth->language], &slots, answer);
}

void mm_problem_ask_plainly(mm_synth *synth, const mm_problem *problem, mm_str *question)
{
    static const char *const PLAIN[4][MM_LANGUAGES] = {
        [MM_ADD] = {"{a}加{b}[等于几|是多少]？", "[What|How much] is {a} plus {b}?"},
        [MM_SUBTRACT] = {"{a}减{b}[等于几|是多少]？", "[What|How much] is {a} minus {b}?"},
        [MM_MULTIPLY] = {"{a}乘{b}[等于几|是多少]？", "[What|How much] is {a} times {b}?"},
        [MM_COMPARE] = {"{a}和{b}哪个[更大|大]？", "Which [is|number is] larger, {a} or {b}?"}};
    mm_synth_expand(synth, PLAIN[problem->operation][synth->language], &problem->slots, question);
}

void mm_problem_say(mm_synth *synth, const mm_problem *problem, int value, mm_str *answer)
{
    static const char *const SENTENCES[MM_LANGUAGES] = {"[答案是{c}|等于{c}|是{c}]。",
                                                        "[The answer is|It is|That makes] {c}."};
    mm_slots slots = problem->slots;
    set_number(&slots, "c", "C", synth->language, value, false);
    mm_synth_expand(synth, SENTENCES[synth->language], &slots, answer);
}

void mm_counting_state(mm_synth *synth, mm_str *out)
{
    static const char *const HEADS[MM_LANGUAGES] = {"[数一数：|接着数：|]",
                                                    "[Count: |Count on: |]"};
    static const mm_slots NONE = {0};
    int first;
    int step;
    mm_synth_combo(synth, MM_COMBO_COUNT, 50, 9, &first, &step);
    const int count = 5 + mm_synth_below(synth, 4);
    const bool in_words = mm_synth_chance(synth, 40) && first + 9 * count <= MM_NUMBER_MAX;
    mm_synth_expand(synth, HEADS[synth->language], &NONE, out);
    for (int i = 0; i < count; i++) {
        const int number = first + i * (step + 1);
        if (i > 0) mm_str_add(out, synth->language == MM_ZH ? "、" : ", ");
        if (in_words)
            mm_number_words(out, synth->language, number);
        else
            mm_str_addf(out, "%d", number);
    }
    mm_str_add(out, synth->language == MM_ZH ? "。" : ".");
}
