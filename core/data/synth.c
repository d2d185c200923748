/* Self-made data: one row from (options, row number), and whole files. The random numbers of a row
 * come from its number alone, so rows can be made in any order and a file can be extended. */
#include "core/data/synth.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/data/synth_chat.h"
#include "core/data/synth_math.h"
#include "core/data/synth_story.h"

enum { FLUSH_BYTES = 1 << 18 };

static const char *const KIND_NAMES[] = {"pretrain", "sft",        "preference",
                                         "rl",       "arithmetic", "persona"};
_Static_assert(sizeof KIND_NAMES / sizeof KIND_NAMES[0] == MM_SYNTH_KINDS, "a name for each");

const char *mm_synth_kind_name(mm_synth_kind kind)
{
    MM_ASSERT((int)kind >= 0 && (int)kind < MM_SYNTH_KINDS);
    return KIND_NAMES[kind];
}

static void add_quoted(mm_str *out, const mm_str *text)
{
    mm_json_add_string(out, mm_str_text(text), text->length);
}

// Sums, comparisons and counting in one row, one to a line.
static void add_arithmetic(mm_synth *synth, mm_str *out)
{
    const int count = 3 + mm_synth_below(synth, 5);
    for (int i = 0; i < count; i++) {
        if (i > 0) mm_str_add_char(out, '\n');
        if (mm_synth_chance(synth, 15)) {
            mm_counting_state(synth, out);
            continue;
        }
        mm_problem problem;
        mm_problem_draw(synth, &problem);
        mm_problem_state(synth, &problem, out);
    }
}

// Phrases in both languages, which ties the two vocabularies together.
static void add_phrases(mm_synth *synth, mm_str *out)
{
    mm_str here = {0};
    mm_str there = {0};
    const int count = 2 + mm_synth_below(synth, 4);
    mm_str_add(out, synth->language == MM_ZH ? "中文和英文。\n" : "English and Chinese.\n");
    for (int i = 0; i < count; i++) {
        mm_phrase_pair(synth, &here, &there);
        mm_str_addf(out, synth->language == MM_ZH ? "%s：%s。\n" : "%s: %s.\n", mm_str_text(&here),
                    mm_str_text(&there));
        mm_str_clear(&here);
        mm_str_clear(&there);
    }
    out->data[--out->length] = '\0';
    mm_str_drop(&here);
    mm_str_drop(&there);
}

static void pretrain_row(mm_synth *synth, mm_str *out)
{
    mm_str text = {0};
    const int kind = mm_synth_below(synth, 100);
    if (kind < 62) {
        mm_story story;
        mm_story_draw(synth, &story);
        mm_story_tell(synth, &story, false, &text);
    } else if (kind < 90) {
        add_arithmetic(synth, &text);
    } else {
        add_phrases(synth, &text);
    }
    mm_str_add(out, "{\"text\": ");
    add_quoted(out, &text);
    mm_str_add(out, "}\n");
    mm_str_drop(&text);
}

static mm_task draw_task(mm_synth *synth)
{
    const int share = mm_synth_below(synth, 100);
    if (share < 50) return MM_TASK_MATH;
    return share < 75 ? MM_TASK_STORY : MM_TASK_TRANSLATE;
}

static void add_message(mm_str *out, const char *role, const mm_str *content, bool is_last)
{
    mm_str_addf(out, "{\"role\": \"%s\", \"content\": ", role);
    add_quoted(out, content);
    mm_str_add(out, is_last ? "}" : "}, ");
}

static void sft_row(mm_synth *synth, mm_str *out)
{
    mm_exchange exchange = {0};
    // Who somebody is makes few different rows, so something else follows it.
    const bool is_identity = mm_synth_chance(synth, 6);
    const int turns = is_identity                  ? 2
                      : mm_synth_chance(synth, 70) ? 1
                                                   : 2 + mm_synth_below(synth, 2);
    mm_str_add(out, "{\"conversations\": [");
    for (int i = 0; i < turns; i++) {
        // Either turn may be in the other language: the answer follows the question.
        if (i > 0 && mm_synth_chance(synth, 30))
            synth->language = (mm_language)mm_synth_below(synth, MM_LANGUAGES);
        const mm_task task = is_identity && i == 0 ? MM_TASK_IDENTITY : draw_task(synth);
        mm_exchange_draw(synth, task, &exchange);
        add_message(out, "user", &exchange.question, false);
        add_message(out, "assistant", &exchange.answer, i + 1 == turns);
    }
    mm_str_add(out, "]}\n");
    mm_exchange_drop(&exchange);
}

static void preference_row(mm_synth *synth, mm_str *out)
{
    mm_exchange exchange = {0};
    mm_exchange_draw(synth, draw_task(synth), &exchange);
    mm_str_add(out, "{\"chosen\": [");
    add_message(out, "user", &exchange.question, false);
    add_message(out, "assistant", &exchange.answer, true);
    mm_str_add(out, "], \"rejected\": [");
    add_message(out, "user", &exchange.question, false);
    add_message(out, "assistant", &exchange.wrong, true);
    mm_str_add(out, "]}\n");
    mm_exchange_drop(&exchange);
}

static void rl_row(mm_synth *synth, mm_str *out)
{
    static const mm_str NOTHING = {0};
    mm_exchange exchange = {0};
    mm_exchange_draw(synth, draw_task(synth), &exchange);
    mm_str_add(out, "{\"conversations\": [");
    add_message(out, "user", &exchange.question, false);
    add_message(out, "assistant", &NOTHING, true);
    mm_str_add(out, "], \"gt\": [");
    add_quoted(out, &exchange.fact);
    mm_str_add(out, "]}\n");
    mm_exchange_drop(&exchange);
}

// One question, its answer, and what a right answer must hold.
static void fact_row(mm_synth *synth, mm_task task, mm_str *out)
{
    mm_exchange exchange = {0};
    mm_exchange_draw(synth, task, &exchange);
    mm_str_add(out, "{\"conversations\": [");
    add_message(out, "user", &exchange.question, false);
    add_message(out, "assistant", &exchange.answer, true);
    mm_str_add(out, "], \"gt\": [");
    add_quoted(out, &exchange.fact);
    mm_str_add(out, "]}\n");
    mm_exchange_drop(&exchange);
}

void mm_synth_row(const mm_synth_options *options, int64_t row, mm_str *out)
{
    mm_synth synth = {.held_out = options->held_out};
    MM_ASSERT(row >= 0);
    // Kind and side are part of the counter: files of one seed are independent of one another.
    // The first four have their place below the row's number; those that came later stand above.
    const uint64_t kind = (uint64_t)options->kind;
    const uint64_t step =
        kind >> 2 << 60 | (uint64_t)row << 3 | (kind & 3) << 1 | (options->held_out ? 1u : 0u);
    mm_rng_init(&synth.rng, options->seed, MM_RNG_SYNTH, step);
    synth.language = (mm_language)mm_synth_below(&synth, MM_LANGUAGES);
    switch (options->kind) {
    case MM_SYNTH_PRETRAIN:
        pretrain_row(&synth, out);
        break;
    case MM_SYNTH_SFT:
        sft_row(&synth, out);
        break;
    case MM_SYNTH_PREFERENCE:
        preference_row(&synth, out);
        break;
    case MM_SYNTH_RL:
        rl_row(&synth, out);
        break;
    case MM_SYNTH_ARITHMETIC:
        fact_row(&synth, MM_TASK_ARITHMETIC, out);
        break;
    case MM_SYNTH_PERSONA:
        fact_row(&synth, MM_TASK_PERSONA, out);
        break;
    }
}

mm_status mm_synth_file(const mm_synth_options *options, const char *path, mm_err *err)
{
    mm_status status = MM_OK;
    mm_file_writer writer = {.fd = -1};
    mm_str rows = {0};
    if (options->rows < 1)
        return MM_FAIL(err, MM_EUSAGE, "%lld rows wanted, expected at least 1",
                       (long long)options->rows);
    MM_TRY(mm_file_writer_open(&writer, path, err));
    for (int64_t row = 0; row < options->rows; row++) {
        mm_synth_row(options, row, &rows);
        if (rows.length < FLUSH_BYTES && row + 1 < options->rows) continue;
        MM_GO(mm_str_check(&rows, err));
        MM_GO(mm_file_writer_write(&writer, rows.data, rows.length, err));
        mm_str_clear(&rows);
    }
    MM_GO(mm_file_writer_commit(&writer, err));
done:
    mm_file_writer_drop(&writer);
    mm_str_drop(&rows);
    return status;
}
