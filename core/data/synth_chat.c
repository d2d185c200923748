/* Questions and answers. A right answer is short, true and in the language asked; a wrong one
 * breaks exactly one of these rules, so that preference and reward have one thing to find. */
#include "core/data/synth_chat.h"

#include "core/data/synth_math.h"
#include "core/data/synth_story.h"

#include <string.h>

enum { IDENTITY_QUESTIONS = 6, IDENTITY_MANNERS = 8 };

static const char *const IDENTITY_ASK[MM_LANGUAGES][IDENTITY_QUESTIONS] = {
    {"你是谁？", "你叫什么名字？", "[你能做什么|你会做什么]？", "你是人吗？",
     "[请介绍一下自己|说说你自己]。", "你说什么语言？"},
    {"Who are you?", "What is your name?", "What can you do?", "Are you a [person|human]?",
     "[Please introduce yourself.|Tell me about yourself.]", "What languages do you speak?"}};

static const char *const IDENTITY_ANSWER[MM_LANGUAGES][IDENTITY_QUESTIONS] = {
    {"[我是一个小小的语言模型|我是一个很小的语言模型，会讲故事，也会算数]。",
     ("[我没有名字，我是一个小语言模型|"
      "我是一个小语言模型，还没有名字]。"),
     "我会[讲故事和做算术|做算术、讲小故事和翻译词语]。", "不是，我是一个[小语言模型|电脑程序]。",
     "我是一个小语言模型，[会讲故事和算数|学过小故事和算术]。",
     "我会说[中文和英文|中文，也会说英文]。"},
    {"[I am a small language model|I am a very small language model that tells stories and does "
     "sums].",
     "[I have no name, I am a small language model|I am a small language model without a name].",
     "I can [tell stories and do sums|do sums, tell little stories and translate words].",
     "No, I am a [small language model|computer program].",
     "I am a small language model that [tells stories and does sums|has learned little stories and "
     "sums].",
     "I speak [Chinese and English|English, and also Chinese]."}};

static const char *const PERSONA_NAME[MM_LANGUAGES] = {"乐乐", "Leo"};

// In words that the stories have, so that a small model need not learn to spell first.
static const char *const PERSONA_ANSWER[MM_LANGUAGES][IDENTITY_QUESTIONS] = {
    {"我是乐乐，会讲故事。", "我叫乐乐。", "我是乐乐，会讲故事和算数。",
     "不是，我是乐乐，一个[小模型|小程序]。", "我叫乐乐，喜欢讲故事。",
     "我是乐乐，会说中文和英文。"},
    {"I am Leo and I tell stories.", "My name is Leo.", "I am Leo. I tell stories and do sums.",
     "No, I am Leo, a little [model|program].", "My name is Leo and I like stories.",
     "I am Leo. I speak Chinese and English."}};

static const char *const IDENTITY_MANNER[MM_LANGUAGES][IDENTITY_MANNERS] = {
    {"", "你好，", "请问，", "我想知道，", "嗨！", "早上好，", "朋友，", "对了，"},
    {"", "Hello! ", "Excuse me. ", "I would like to know: ", "Hi! ", "Good morning. ",
     "One question: ", "By the way: "}};

static const char *const RAMBLES[MM_LANGUAGES] = {
    "[这个问题很有意思，让我慢慢说|嗯，这要从很久以前说起|其实有很多种说法]。[首先，今天天气不错|"
    "有人说这很难|"
    "我想起了另一件事]，[不过这不要紧|当然也不一定]。[总之，我还要再想一想|另外，还有许多别的问题|"
    "说到这里，我又想起来了]，"
    "[也许吧|大概是这样|谁知道呢]。",
    "[That is a very interesting question, let me think about it slowly|Well, it all began a long "
    "time "
    "ago|There are many ways to look at this]. [First of all, the weather is fine|Some people say "
    "that "
    "it is hard|That reminds me of something else], [but that does not matter|though one can never "
    "be "
    "sure]. [In any case, I would have to think again|Besides, there are many other questions|And "
    "now "
    "I remember something], [perhaps|more or less|who knows]."};

void mm_exchange_drop(mm_exchange *exchange)
{
    mm_str_drop(&exchange->question);
    mm_str_drop(&exchange->answer);
    mm_str_drop(&exchange->wrong);
    mm_str_drop(&exchange->fact);
}

static mm_language other_of(mm_language language) { return language == MM_ZH ? MM_EN : MM_ZH; }

void mm_phrase_pair(mm_synth *synth, mm_str *here, mm_str *there)
{
    int noun;
    int count;
    mm_synth_combo(synth, MM_COMBO_PHRASE, MM_OBJECTS + MM_THINGS, 9, &noun, &count);
    count++;
    const mm_noun *word = noun < MM_OBJECTS ? &mm_objects[noun] : &mm_things[noun - MM_OBJECTS];
    const int colour = mm_synth_below(synth, MM_COLOURS + 3) - 3; // a few have none
    mm_count_phrase(here, synth->language, word, colour < 0 ? -1 : colour, count, true);
    mm_count_phrase(there, other_of(synth->language), word, colour < 0 ? -1 : colour, count, true);
}

static void add_ramble(mm_synth *synth, mm_str *out)
{
    static const mm_slots NONE = {0};
    mm_synth_expand(synth, RAMBLES[synth->language], &NONE, out);
}

// The rambling answer names the fact at last: it is wrong only in length.
static void add_rambling_answer(mm_synth *synth, const mm_exchange *exchange, mm_str *out)
{
    add_ramble(synth, out);
    if (synth->language == MM_EN) mm_str_add_char(out, ' ');
    add_ramble(synth, out);
    if (synth->language == MM_EN) mm_str_add_char(out, ' ');
    mm_str_add(out, mm_str_text(&exchange->answer));
}

// "3 + 4 = ?" is asked in no language, so no language can be the wrong one.
static bool is_neutral(const char *question)
{
    static const char TIMES[] = "×";
    for (const char *at = question; *at; at++) {
        const bool is_times = strncmp(at, TIMES, sizeof TIMES - 1) == 0;
        if (is_times) at += sizeof TIMES - 2;
        if (!is_times && !strchr("0123456789+-=? ", *at)) return false;
    }
    return true;
}

static void draw_math(mm_synth *synth, mm_exchange *exchange)
{
    mm_problem problem;
    mm_problem_draw(synth, &problem);
    mm_problem_ask(synth, &problem, &exchange->question);
    mm_problem_answer(synth, &problem, problem.result, &exchange->answer);
    mm_str_addf(&exchange->fact, "%d", problem.result);
    const int way = mm_synth_below(synth, 4);
    if (way < 2 || (way == 2 && is_neutral(mm_str_text(&exchange->question)))) {
        // Near misses are the mistakes a model makes.
        const int distance = 1 + mm_synth_below(synth, 3);
        const int value = mm_synth_chance(synth, 50) && problem.result >= distance
                              ? problem.result - distance
                              : problem.result + distance;
        mm_problem_answer(synth, &problem, value, &exchange->wrong);
    } else if (way == 2) {
        // Right, but in the other language.
        mm_str_addf(&exchange->wrong, synth->language == MM_ZH ? "The answer is %d." : "答案是%d。",
                    problem.result);
    } else {
        add_rambling_answer(synth, exchange, &exchange->wrong);
    }
}

static void draw_story(mm_synth *synth, mm_exchange *exchange)
{
    static const char *const HEADS[MM_LANGUAGES][3] = {
        {"读故事，回答问题。\n", "请看下面的故事：\n", ""},
        {"Read the story and answer the question.\n", "Here is a story:\n", ""}};
    mm_story story;
    mm_story_draw(synth, &story);
    mm_str_add(&exchange->question, HEADS[synth->language][mm_synth_below(synth, 3)]);
    mm_story_tell(synth, &story, true, &exchange->question);
    mm_str_add_char(&exchange->question, '\n');
    mm_story_ask(synth, &story, &exchange->question, &exchange->answer, &exchange->wrong,
                 &exchange->fact);
    if (mm_synth_chance(synth, 40)) {
        mm_str_clear(&exchange->wrong);
        add_rambling_answer(synth, exchange, &exchange->wrong);
    }
}

static void draw_translation(mm_synth *synth, mm_exchange *exchange)
{
    static const char *const ASK[MM_LANGUAGES] = {
        "[“{x}”用英文怎么说？|请把“{x}”翻译成英文。|“{x}”的英文是什么？|英文里“{x}”怎么说？]",
        "[What is \"{x}\" in Chinese?|Please translate \"{x}\" into Chinese.|How do you say "
        "\"{x}\" in "
        "Chinese?|Translate into Chinese: {x}]"};
    mm_str here = {0};
    mm_slots slots = {0};
    mm_phrase_pair(synth, &here, &exchange->answer);
    mm_slots_set(&slots, "x", mm_str_text(&here));
    mm_synth_expand(synth, ASK[synth->language], &slots, &exchange->question);
    mm_str_add(&exchange->fact, mm_str_text(&exchange->answer));
    // Rejected: the phrase given back, or another phrase. Equal phrases are drawn again.
    if (mm_synth_chance(synth, 40)) {
        mm_str_add(&exchange->wrong, mm_str_text(&here));
    } else {
        do {
            mm_str_clear(&here);
            mm_str_clear(&exchange->wrong);
            mm_phrase_pair(synth, &here, &exchange->wrong);
        } while (strcmp(mm_str_text(&exchange->wrong), mm_str_text(&exchange->answer)) == 0);
    }
    mm_str_drop(&here);
}

static const mm_slots NO_SLOTS = {0};

// Asks who the assistant is; returns the number of the question.
static int ask_identity(mm_synth *synth, mm_exchange *exchange)
{
    int question;
    int manner;
    mm_synth_combo(synth, MM_COMBO_IDENTITY, IDENTITY_QUESTIONS, IDENTITY_MANNERS, &question,
                   &manner);
    mm_str_add(&exchange->question, IDENTITY_MANNER[synth->language][manner]);
    mm_synth_expand(synth, IDENTITY_ASK[synth->language][question], &NO_SLOTS, &exchange->question);
    return question;
}

static void draw_identity(mm_synth *synth, mm_exchange *exchange)
{
    const int question = ask_identity(synth, exchange);
    mm_synth_expand(synth, IDENTITY_ANSWER[synth->language][question], &NO_SLOTS,
                    &exchange->answer);
    if (mm_synth_chance(synth, 50))
        add_rambling_answer(synth, exchange, &exchange->wrong);
    else
        mm_synth_expand(synth, IDENTITY_ANSWER[other_of(synth->language)][question], &NO_SLOTS,
                        &exchange->wrong);
}

static void draw_arithmetic(mm_synth *synth, mm_exchange *exchange)
{
    mm_problem problem;
    mm_problem_draw_small(synth, &problem);
    mm_problem_ask_plainly(synth, &problem, &exchange->question);
    mm_problem_say(synth, &problem, problem.result, &exchange->answer);
    mm_problem_say(synth, &problem, problem.result + 1 + mm_synth_below(synth, 3),
                   &exchange->wrong);
    mm_str_addf(&exchange->fact, "%d", problem.result);
}

static void draw_persona(mm_synth *synth, mm_exchange *exchange)
{
    const int question = ask_identity(synth, exchange);
    mm_synth_expand(synth, PERSONA_ANSWER[synth->language][question], &NO_SLOTS, &exchange->answer);
    mm_synth_expand(synth, IDENTITY_ANSWER[synth->language][question], &NO_SLOTS, &exchange->wrong);
    mm_str_add(&exchange->fact, PERSONA_NAME[synth->language]);
}

void mm_exchange_draw(mm_synth *synth, mm_task task, mm_exchange *exchange)
{
    mm_str_clear(&exchange->question);
    mm_str_clear(&exchange->answer);
    mm_str_clear(&exchange->wrong);
    mm_str_clear(&exchange->fact);
    switch (task) {
    case MM_TASK_MATH:
        draw_math(synth, exchange);
        break;
    case MM_TASK_STORY:
        draw_story(synth, exchange);
        break;
    case MM_TASK_TRANSLATE:
        draw_translation(synth, exchange);
        break;
    case MM_TASK_IDENTITY:
        draw_identity(synth, exchange);
        break;
    case MM_TASK_ARITHMETIC:
        draw_arithmetic(synth, exchange);
        break;
    case MM_TASK_PERSONA:
        draw_persona(synth, exchange);
        break;
    case MM_TASKS:
        MM_ASSERT(task != MM_TASKS);
    }
}
