/* Tests of core/data/synth.h: rows are pure functions of their number, hardly ever equal, right
 * (every sum is worked out again here, from the text alone), in the language asked, and held-out
 * combinations never show up on the other side. */
#include "tests/data/fixtures.h"

#include "core/data/synth_words.h"

#include <ctype.h>

enum { ROWS = 20000, NUMBERS_MAX = 16, PAIR_RANGE = 100 };

static void row_of(mm_synth_kind kind, bool held_out, uint64_t seed, int64_t row, mm_str *out)
{
    const mm_synth_options options = {.kind = kind, .seed = seed, .held_out = held_out};
    mm_synth_row(&options, row, out);
}

static json_t *parse_row(mm_synth_kind kind, bool held_out, int64_t row)
{
    mm_str text = {0};
    json_t *json;
    row_of(kind, held_out, 9, row, &text);
    assert_int_equal(text.data[text.length - 1], '\n');
    assert_null(memchr(text.data, '\n', text.length - 1));
    CHECK_OK(mm_json_parse(text.data, text.length, "row", &json, ok_err));
    mm_str_drop(&text);
    return json;
}

static void test_a_row_depends_on_its_number_alone(void **state)
{
    (void)state;
    mm_str a = {0};
    mm_str b = {0};
    for (int kind = MM_SYNTH_PRETRAIN; kind < MM_SYNTH_KINDS; kind++) {
        mm_str_clear(&a);
        for (int64_t row = 0; row < 20; row++)
            row_of((mm_synth_kind)kind, false, 1, row, &a);
        size_t end = a.length;
        for (int64_t row = 19; row >= 0; row--) {
            mm_str_clear(&b);
            row_of((mm_synth_kind)kind, false, 1, row, &b);
            end -= b.length;
            assert_memory_equal(a.data + end, b.data, b.length);
        }
        assert_int_equal(end, 0);
        // Another seed and the other side are other rows.
        mm_str_clear(&a);
        mm_str_clear(&b);
        row_of((mm_synth_kind)kind, false, 1, 0, &a);
        row_of((mm_synth_kind)kind, false, 2, 0, &b);
        assert_string_not_equal(a.data, b.data);
        mm_str_clear(&b);
        row_of((mm_synth_kind)kind, true, 1, 0, &b);
        assert_string_not_equal(a.data, b.data);
    }
    mm_str_drop(&a);
    mm_str_drop(&b);
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void test_rows_are_hardly_ever_equal(void **state)
{
    (void)state;
    for (int kind = MM_SYNTH_PRETRAIN; kind <= MM_SYNTH_RL; kind++) {
        mm_arena arena = {0};
        char **rows = mm_alloc(ROWS * sizeof *rows);
        mm_str text = {0};
        for (int64_t i = 0; i < ROWS; i++) {
            mm_str_clear(&text);
            row_of((mm_synth_kind)kind, false, 9, i, &text);
            rows[i] = mm_arena_strdup(&arena, text.data);
        }
        qsort(rows, ROWS, sizeof *rows, compare_text);
        int unique = 1;
        for (int i = 1; i < ROWS; i++)
            unique += strcmp(rows[i - 1], rows[i]) != 0;
        if (unique < ROWS * 95 / 100)
            fail_msg("%s: %d of %d rows are unique", mm_synth_kind_name((mm_synth_kind)kind),
                     unique, ROWS);
        mm_free(rows);
        mm_str_drop(&text);
        mm_arena_drop(&arena);
    }
}

/* An independent reader of numbers: digits, English and Chinese words. */

static const char *const EN_ONES[20] = {"zero",    "one",     "two",       "three",    "four",
                                        "five",    "six",     "seven",     "eight",    "nine",
                                        "ten",     "eleven",  "twelve",    "thirteen", "fourteen",
                                        "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
static const char *const EN_TENS[8] = {"twenty", "thirty",  "forty",  "fifty",
                                       "sixty",  "seventy", "eighty", "ninety"};

// A word of letters and hyphens; -1 when it is no number.
static int english_number(const char *word, size_t length)
{
    char lower[32];
    if (length >= sizeof lower) return -1;
    for (size_t i = 0; i < length; i++)
        lower[i] = (char)tolower((unsigned char)word[i]);
    lower[length] = '\0';
    for (int i = 0; i < 20; i++)
        if (strcmp(lower, EN_ONES[i]) == 0) return i;
    for (int i = 0; i < 8; i++) {
        const size_t tens = strlen(EN_TENS[i]);
        if (strncmp(lower, EN_TENS[i], tens) != 0) continue;
        if (lower[tens] == '\0') return 20 + 10 * i;
        for (int k = 1; k < 10 && lower[tens] == '-'; k++)
            if (strcmp(lower + tens + 1, EN_ONES[k]) == 0) return 20 + 10 * i + k;
    }
    return strcmp(lower, "hundred") == 0 ? 100 : -1;
}

// Bytes of a Chinese number at `text`; 0 when there is none.
static size_t chinese_number(const char *text, int *value)
{
    static const char DIGITS[] = "零一二三四五六七八九";
    size_t used = 0;
    int units = -1;
    *value = 0;
    for (;;) {
        int digit = -1;
        for (int i = 0; i < 10; i++)
            if (strncmp(text + used, DIGITS + 3 * i, 3) == 0) digit = i;
        if (digit >= 0 && units < 0) {
            units = digit;
        } else if (strncmp(text + used, "十", 3) == 0) {
            *value = 10 * (units < 0 ? 1 : units);
            units = -1;
        } else if (strncmp(text + used, "百", 3) == 0) {
            *value = 100 * units;
            units = -1;
        } else {
            break;
        }
        used += 3;
    }
    if (units > 0) *value += units;
    return used;
}

// All numbers of a text, in order. Chinese words count only where no digit stands in the text.
static int numbers_of(const char *text, int out[NUMBERS_MAX])
{
    const bool has_digits = strpbrk(text, "0123456789") != NULL;
    int count = 0;
    for (const char *at = text; *at && count < NUMBERS_MAX;) {
        int value = -1;
        size_t used = 1;
        if (isdigit((unsigned char)*at)) {
            char *end;
            value = (int)strtol(at, &end, 10);
            used = (size_t)(end - at);
        } else if (isalpha((unsigned char)*at)) {
            used = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-");
            value = english_number(at, used);
            // "one hundred" is one number.
            if (value == 100) count--;
        } else if (!has_digits) {
            const size_t chinese = chinese_number(at, &value);
            // "一共", "算一算", "数一数" are no numbers.
            bool is_word = false;
            static const char *const WORDS[] = {"一共", "一算", "一数"};
            for (int k = 0; k < 3; k++)
                is_word = is_word || strncmp(at, WORDS[k], 6) == 0;
            if (chinese == 0 || is_word) value = -1;
            if (chinese > 0) used = chinese;
        }
        if (value >= 0) out[count++] = value;
        at += used;
    }
    return count;
}

typedef enum operation { NONE = -1, ADD = 0, SUBTRACT, MULTIPLY, COMPARE, OPERATIONS } operation;

static bool holds(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strstr(text, *words)) return true;
    return false;
}

// What the words of a text say is to be done.
static operation operation_of(const char *text)
{
    static const char *const COMPARES[] = {"larger", "smaller", " > ",  " < ",
                                           "大",     "小：",    "相比", NULL};
    static const char *const MULTIPLIES[] = {"×", "times", "in each", "乘", "每个", NULL};
    static const char *const SUBTRACTS[] = {"minus", "away", "减",  "－",
                                            "送走",  "拿走", " - ", NULL};
    static const char *const ADDS[] = {"+",   "＋", "plus", "sum",  "more", "Add",
                                       "add", "加", "又给", "的和", NULL};
    if (holds(text, MULTIPLIES)) return MULTIPLY;
    if (holds(text, SUBTRACTS)) return SUBTRACT;
    for (const char *at = text; *at && at[1] && at[2]; at++)
        if (isdigit((unsigned char)at[0]) && at[1] == '-' && isdigit((unsigned char)at[2]))
            return SUBTRACT;
    if (holds(text, ADDS)) return ADD;
    // "3比5小" has its word at the end.
    if (holds(text, COMPARES) || strstr(text, "比")) return COMPARE;
    return NONE;
}

static int result_of(operation what, int a, int b)
{
    switch (what) {
    case ADD:
        return a + b;
    case SUBTRACT:
        return a - b;
    case MULTIPLY:
        return a * b;
    default:
        return a > b ? a : b;
    }
}

/* Which pairs were seen on which side: [0] in the ordinary rows, [1] in the held-out ones. */
static unsigned char seen[2][OPERATIONS][PAIR_RANGE][PAIR_RANGE];

static void note_pair(bool held_out, operation what, int a, int b)
{
    // a + b and b + a are the same fact; a difference is not.
    const bool is_swapped = what != SUBTRACT && a > b;
    assert_in_range(a, 0, PAIR_RANGE - 1);
    assert_in_range(b, 0, PAIR_RANGE - 1);
    seen[held_out][what][is_swapped ? b : a][is_swapped ? a : b] = 1;
}

static bool is_counting(const char *line) { return strstr(line, "、") || strstr(line, ", "); }

// A statement such as "3 + 4 = 7" or "左边有…": its numbers fit its words.
static void check_statement(const char *line, bool held_out)
{
    int n[NUMBERS_MAX];
    const int count = numbers_of(line, n);
    const operation what = operation_of(line);
    if (is_counting(line) && count >= 5) {
        for (int i = 2; i < count; i++)
            if (n[i] - n[i - 1] != n[1] - n[0]) fail_msg("uneven steps: %s", line);
        return;
    }
    if (what == NONE) fail_msg("no operation in: %s", line);
    if (what == COMPARE) {
        // "5比3大", "3 is smaller than 5", "of 3 and 5, 5 is the larger".
        const bool is_larger_first =
            strstr(line, "larger") || strstr(line, "大") || strstr(line, ">");
        if (count == 3) {
            if (n[2] != result_of(COMPARE, n[0], n[1])) fail_msg("wrong: %s", line);
        } else if (count != 2 || (n[0] > n[1]) != is_larger_first) {
            fail_msg("wrong: %s", line);
        }
        note_pair(held_out, COMPARE, n[0], n[1]);
        return;
    }
    // "Take b away from a" names them the other way round.
    const bool is_reversed = strncmp(line, "Take ", 5) == 0;
    if (count != 3 || result_of(what, n[is_reversed], n[!is_reversed]) != n[2])
        fail_msg("%d numbers, operation %d: %s", count, what, line);
    note_pair(held_out, what, n[is_reversed], n[!is_reversed]);
}

static bool is_chinese(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0xE3 && (unsigned char)*text <= 0xE9) return true;
    return false;
}

static bool has_letters(const char *text)
{
    for (; *text; text++)
        if (isalpha((unsigned char)*text)) return true;
    return false;
}

// The word stands in the text; in English as a word of its own.
static bool names(const char *text, const char *word, bool chinese)
{
    const size_t length = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        const bool is_inside =
            (at > text && isalpha((unsigned char)at[-1])) || isalpha((unsigned char)at[length]);
        if (chinese || !is_inside) return true;
    }
    return false;
}

static int only_noun(const char *text, const mm_noun *nouns, int count, bool chinese)
{
    int found = -1;
    for (int i = 0; i < count; i++) {
        if (!names(text, chinese ? nouns[i].zh : nouns[i].en, chinese)) continue;
        if (found >= 0) fail_msg("%s and %s in: %s", nouns[found].en, nouns[i].en, text);
        found = i;
    }
    if (found < 0) fail_msg("nothing named in: %s", text);
    return found;
}

static unsigned char stories[2][MM_ANIMALS][MM_OBJECTS];

static void check_pretrain_text(const char *text, bool held_out)
{
    if (strncmp(text, "中文和英文。", 18) == 0 || strncmp(text, "English and Chinese.", 20) == 0)
        return;
    if (!strchr(text, '\n')) {
        const bool chinese = is_chinese(text);
        if (chinese && has_letters(text)) fail_msg("two languages: %s", text);
        assert_true(strlen(text) > 150);
        stories[held_out][only_noun(text, mm_animals, MM_ANIMALS, chinese)]
               [only_noun(text, mm_objects, MM_OBJECTS, chinese)] = 1;
        return;
    }
    char *copy = mm_strdup(text);
    for (char *line = copy; line;) {
        char *end = strchr(line, '\n');
        if (end) *end = '\0';
        check_statement(line, held_out);
        line = end ? end + 1 : NULL;
    }
    mm_free(copy);
}

static void check_disjoint(const unsigned char *ordinary, const unsigned char *held, size_t count,
                           double least, double most, const char *what)
{
    size_t n_ordinary = 0;
    size_t n_held = 0;
    for (size_t i = 0; i < count; i++) {
        if (ordinary[i] && held[i]) fail_msg("%s: combination %zu is on both sides", what, i);
        n_ordinary += ordinary[i];
        n_held += held[i];
    }
    const double share = (double)n_held / (double)(n_held + n_ordinary);
    if (!(share > least && share < most)) fail_msg("%s: %g held out", what, share);
}

static void test_statements_are_true_and_combinations_held_out(void **state)
{
    static const char *const NAMES[OPERATIONS] = {"sums", "differences", "products", "comparisons"};
    (void)state;
    memset(seen, 0, sizeof seen);
    for (int held_out = 0; held_out < 2; held_out++) {
        for (int64_t i = 0; i < ROWS; i++) {
            json_t *row = parse_row(MM_SYNTH_PRETRAIN, held_out, i);
            check_pretrain_text(json_string_value(json_object_get(row, "text")), held_out);
            json_decref(row);
        }
    }
    for (int what = 0; what < OPERATIONS; what++)
        check_disjoint(&seen[0][what][0][0], &seen[1][what][0][0], PAIR_RANGE * PAIR_RANGE, 0.1,
                       0.6, NAMES[what]);
    // Sums up to 20 are complete: every pair is on one of the sides, a fifth of them held out.
    int held = 0;
    for (int a = 0; a <= 20; a++) {
        for (int b = a; b <= 20; b++) {
            assert_int_equal(seen[0][ADD][a][b] + seen[1][ADD][a][b], 1);
            held += seen[1][ADD][a][b];
        }
    }
    assert_in_range(held, 231 * 15 / 100, 231 * 25 / 100);
    check_disjoint(&stories[0][0][0], &stories[1][0][0], MM_ANIMALS * MM_OBJECTS, 0.05, 0.15,
                   "stories");
    for (int a = 0; a < MM_ANIMALS; a++)
        for (int o = 0; o < MM_OBJECTS; o++)
            assert_int_equal(stories[0][a][o] + stories[1][a][o], 1);
}

static const char *content_of(const json_t *messages, size_t index)
{
    const char *text =
        json_string_value(json_object_get(json_array_get(messages, index), "content"));
    assert_non_null(text);
    return text;
}

typedef enum task { MATH, STORY, TRANSLATION, OTHER } task;

static task task_of(const char *question)
{
    if (strstr(question, "英文") || strstr(question, "in Chinese") ||
        strstr(question, "into Chinese"))
        return TRANSLATION;
    int n[NUMBERS_MAX];
    if (strlen(question) > 200) return STORY;
    return numbers_of(question, n) >= 2 ? MATH : OTHER;
}

// The right answer of a question that asks for a number.
static int solve(const char *question, bool held_out)
{
    int n[NUMBERS_MAX];
    const int count = numbers_of(question, n);
    const operation what = operation_of(question);
    if (count != 2 || what == NONE) fail_msg("%d numbers, operation %d: %s", count, what, question);
    // "Take b away from a", "take away 3": only the first form is reversed.
    const bool is_reversed = strstr(question, "Take ") != NULL;
    note_pair(held_out, what, n[is_reversed], n[!is_reversed]);
    return result_of(what, n[is_reversed], n[!is_reversed]);
}

static void check_answer(const char *question, const char *answer, bool held_out)
{
    int n[NUMBERS_MAX];
    const bool chinese = is_chinese(question);
    const bool is_neutral = !chinese && !has_letters(question);
    const task what = task_of(question);
    if (what == MATH) {
        const int count = numbers_of(answer, n);
        if (count < 1 || n[count - 1] != solve(question, held_out))
            fail_msg("%s -> %s", question, answer);
    }
    if (what == TRANSLATION) {
        if (is_chinese(answer) == (strstr(question, "英文") != NULL))
            fail_msg("%s -> %s", question, answer);
    } else if (!is_neutral &&
               ((is_chinese(answer) && !chinese) || (has_letters(answer) && chinese))) {
        fail_msg("another language: %s -> %s", question, answer);
    }
}

static void test_conversations_are_right_and_in_the_language_asked(void **state)
{
    (void)state;
    memset(seen, 0, sizeof seen);
    int tasks[OTHER + 1] = {0};
    for (int held_out = 0; held_out < 2; held_out++) {
        for (int64_t i = 0; i < ROWS / 2; i++) {
            json_t *row = parse_row(MM_SYNTH_SFT, held_out, i);
            const json_t *messages = json_object_get(row, "conversations");
            assert_true(json_array_size(messages) % 2 == 0);
            for (size_t k = 0; k < json_array_size(messages); k += 2) {
                check_answer(content_of(messages, k), content_of(messages, k + 1), held_out);
                tasks[task_of(content_of(messages, k))]++;
            }
            json_decref(row);
        }
    }
    for (int what = 0; what < OPERATIONS; what++)
        check_disjoint(&seen[0][what][0][0], &seen[1][what][0][0], PAIR_RANGE * PAIR_RANGE, 0.1,
                       0.5, "questions");
    for (int i = 0; i <= OTHER; i++)
        assert_true(tasks[i] > ROWS / 40);
}

static void test_a_rejected_answer_is_wrong_foreign_or_rambling(void **state)
{
    (void)state;
    int wrong = 0;
    int foreign = 0;
    int rambling = 0;
    int longest = 0;
    for (int64_t i = 0; i < ROWS / 2; i++) {
        json_t *row = parse_row(MM_SYNTH_PREFERENCE, false, i);
        const json_t *chosen = json_object_get(row, "chosen");
        const json_t *rejected = json_object_get(row, "rejected");
        const char *question = content_of(chosen, 0);
        const char *good = content_of(chosen, 1);
        const char *bad = content_of(rejected, 1);
        assert_string_equal(question, content_of(rejected, 0));
        assert_string_not_equal(good, bad);
        check_answer(question, good, false);
        if ((int)strlen(good) > longest) longest = (int)strlen(good);
        int n[NUMBERS_MAX];
        if (task_of(question) == MATH) {
            const int count = numbers_of(bad, n);
            const bool is_wrong = count < 1 || n[count - 1] != solve(question, false);
            const bool is_long = strlen(bad) > strlen(good) + 100;
            const bool is_foreign = is_chinese(question)    ? has_letters(bad)
                                    : has_letters(question) ? is_chinese(bad)
                                                            : false;
            if (!is_wrong && !is_long && !is_foreign) fail_msg("%s -> %s", question, bad);
            wrong += is_wrong;
            rambling += is_long;
            foreign += is_foreign;
        }
        json_decref(row);
    }
    assert_true(wrong > 1000 && foreign > 500 && rambling > 500);
    assert_in_range(longest, 1, 100);
}

static void test_rewards_have_the_right_answer(void **state)
{
    (void)state;
    for (int64_t i = 0; i < ROWS / 4; i++) {
        json_t *row = parse_row(MM_SYNTH_RL, false, i);
        const json_t *messages = json_object_get(row, "conversations");
        const json_t *gt = json_object_get(row, "gt");
        assert_int_equal(json_array_size(messages), 2);
        assert_string_equal(content_of(messages, 1), "");
        assert_int_equal(json_array_size(gt), 1);
        const char *question = content_of(messages, 0);
        const char *fact = json_string_value(json_array_get(gt, 0));
        if (task_of(question) == MATH) {
            assert_int_equal(strtol(fact, NULL, 10), solve(question, false));
        } else if (task_of(question) == STORY) {
            // What is asked for stands in the story.
            if (!strcasestr(question, fact)) fail_msg("%s -> %s", question, fact);
        }
        json_decref(row);
    }
}

// Question and answer are in the same language, and the answer names the fact.
static void check_fact(const json_t *row, const char **question, const char **answer,
                       const char **fact)
{
    const json_t *messages = json_object_get(row, "conversations");
    const json_t *gt = json_object_get(row, "gt");
    assert_int_equal(json_array_size(messages), 2);
    assert_int_equal(json_array_size(gt), 1);
    *question = content_of(messages, 0);
    *answer = content_of(messages, 1);
    *fact = json_string_value(json_array_get(gt, 0));
    assert_true(is_chinese(*question) != has_letters(*question));
    if (is_chinese(*question) != is_chinese(*answer) ||
        has_letters(*question) != has_letters(*answer) || !strstr(*answer, *fact))
        fail_msg("%s -> %s (%s)", *question, *answer, *fact);
}

static void test_facts_are_right_and_said_in_the_language_asked(void **state)
{
    (void)state;
    const char *question;
    const char *answer;
    const char *fact;
    int n[NUMBERS_MAX];
    int chinese = 0;
    memset(seen, 0, sizeof seen);
    for (int held_out = 0; held_out < 2; held_out++) {
        for (int64_t i = 0; i < ROWS / 2; i++) {
            json_t *row = parse_row(MM_SYNTH_ARITHMETIC, held_out, i);
            check_fact(row, &question, &answer, &fact);
            assert_int_equal(strtol(fact, NULL, 10), solve(question, held_out));
            assert_int_equal(numbers_of(answer, n), 1);
            assert_int_equal(n[0], strtol(fact, NULL, 10));
            assert_in_range(n[0], 0, 40);
            chinese += is_chinese(question);
            json_decref(row);
            row = parse_row(MM_SYNTH_PERSONA, held_out, i);
            check_fact(row, &question, &answer, &fact);
            assert_true(strcmp(fact, "Leo") == 0 || strcmp(fact, "乐乐") == 0);
            json_decref(row);
        }
    }
    assert_in_range(chinese, 2 * ROWS / 5, 3 * ROWS / 5);
    for (size_t i = 0; i < sizeof seen[0]; i++)
        assert_false(((const unsigned char *)seen[0])[i] && ((const unsigned char *)seen[1])[i]);
}

static void test_files_read_as_the_stages_want_them(void **state)
{
    static const mm_row_format FORMATS[MM_SYNTH_KINDS] = {
        MM_ROWS_TEXT,          MM_ROWS_CONVERSATIONS, MM_ROWS_PREFERENCE,
        MM_ROWS_CONVERSATIONS, MM_ROWS_CONVERSATIONS, MM_ROWS_CONVERSATIONS};
    for (int kind = 0; kind < MM_SYNTH_KINDS; kind++) {
        char *path = path_in(*state, mm_synth_kind_name((mm_synth_kind)kind));
        const mm_synth_options options = {.kind = (mm_synth_kind)kind, .seed = 1, .rows = 1000};
        mm_row_reader *reader;
        const mm_row *row;
        CHECK_OK(mm_synth_file(&options, path, ok_err));
        CHECK_OK(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, ok_err));
        do {
            CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
            if (row && kind >= MM_SYNTH_RL) assert_non_null(row->gt);
        } while (row);
        assert_int_equal(mm_row_reader_report(reader)->format, FORMATS[kind]);
        assert_int_equal(mm_row_reader_report(reader)->rows, 1000);
        assert_int_equal(mm_row_reader_report(reader)->bad, 0);
        mm_row_reader_close(reader);
        mm_free(path);
    }
    mm_err err = {0};
    const mm_synth_options none = {.rows = 0};
    assert_int_equal(mm_synth_file(&none, "/nonexistent/x", &err), MM_EUSAGE);
    const mm_synth_options one = {.rows = 1};
    assert_int_equal(mm_synth_file(&one, "/nonexistent/x", &err), MM_ENOTFOUND);
    check_message(&err, "/nonexistent/x");
}

static void test_words_agree(void **state)
{
    (void)state;
    mm_str out = {0};
    static const struct {
        int number;
        const char *zh;
        const char *en;
    } NUMBERS[] = {{0, "零", "zero"},
                   {10, "十", "ten"},
                   {13, "十三", "thirteen"},
                   {20, "二十", "twenty"},
                   {47, "四十七", "forty-seven"},
                   {100, "一百", "one hundred"}};
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        mm_number_words(&out, MM_ZH, NUMBERS[i].number);
        mm_str_add_char(&out, '|');
        mm_number_words(&out, MM_EN, NUMBERS[i].number);
        assert_int_equal(strncmp(out.data, NUMBERS[i].zh, strlen(NUMBERS[i].zh)), 0);
        assert_string_equal(strchr(out.data, '|') + 1, NUMBERS[i].en);
        mm_str_clear(&out);
    }
    // Leaf, leaves; an orange leaf; 两 before a measure word.
    mm_count_phrase(&out, MM_EN, &mm_things[3], -1, 1, false);
    mm_str_add(&out, "|");
    mm_count_phrase(&out, MM_EN, &mm_things[3], 1, 2, true);
    mm_str_add(&out, "|");
    mm_one_phrase(&out, MM_EN, &mm_things[3], 1);
    mm_str_add(&out, "|");
    mm_count_phrase(&out, MM_ZH, &mm_things[3], 1, 2, true);
    mm_str_add(&out, "|");
    mm_one_phrase(&out, MM_EN, &mm_animals[2], -1);
    assert_string_equal(out.data, "1 leaf|two orange leaves|an orange leaf|两片橙色的叶子|an owl");
    mm_str_drop(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_depends_on_its_number_alone),
        cmocka_unit_test(test_rows_are_hardly_ever_equal),
        cmocka_unit_test(test_statements_are_true_and_combinations_held_out),
        cmocka_unit_test(test_conversations_are_right_and_in_the_language_asked),
        cmocka_unit_test(test_a_rejected_answer_is_wrong_foreign_or_rambling),
        cmocka_unit_test(test_rewards_have_the_right_answer),
        cmocka_unit_test(test_facts_are_right_and_said_in_the_language_asked),
        cmocka_unit_test(test_files_read_as_the_stages_want_them),
        cmocka_unit_test(test_words_agree)};
    return cmocka_run_group_tests_name("data/synth", tests, temp_dir_make, temp_dir_remove);
}
