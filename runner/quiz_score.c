/* Multiple choice by summed log-probability. See quiz_score.h. */
#include "runner/quiz_score.h"

#include "core/base/utf8.h"
#include "core/text/chat.h"

#include <math.h>
#include <string.h>

/* ---- the words around a question ---------------------------------------------------------------
 */

typedef struct wording {
    const char *head_before; // the subject stands between
    const char *head_after;
    const char *question; // in front of a question without options
    const char *cue;      // of a text to be continued
    const char *ask_letter;
    const char *gap; // between the cue and the answer
} wording;

static const wording ENGLISH = {"The following are multiple choice questions (with answers) about ",
                                ".\n\n",
                                "Question: ",
                                "\nAnswer:",
                                "\nAnswer with the letter only.",
                                " "};
static const wording CHINESE = {"以下是关于",
                                "的单项选择题，请给出正确答案的选项。\n\n",
                                "问题：",
                                "\n答案：",
                                "\n请只回答选项的字母。",
                                ""};

static const wording *wording_of(const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        uint32_t code = 0;
        const int bytes = mm_utf8_next(text, left, &code);
        if (bytes > 0 && code >= 0x4E00 && code <= 0x9FFF) return &CHINESE;
        const size_t step = bytes > 0 ? (size_t)bytes : 1;
        text += step;
        left -= step;
    }
    return &ENGLISH;
}

// The question as it is asked, without the cue for an answer.
static void add_question(mm_str *out, const mm_question *question, const mm_quiz_how *how)
{
    const wording *words = wording_of(question->text);
    if (how->mode == MM_QUIZ_TEXT && how->style == MM_SAMPLE_TEXT) mm_str_add(out, words->question);
    mm_str_add(out, question->text);
    if (how->mode == MM_QUIZ_TEXT) return;
    for (int32_t i = 0; i < question->n_options; i++)
        mm_str_addf(out, "\n%c. %s", 'A' + i, question->options[i]);
    if (how->style == MM_SAMPLE_CHAT) mm_str_add(out, words->ask_letter);
}

static void add_answer(mm_str *out, const mm_question *question, int32_t option,
                       const mm_quiz_how *how)
{
    if (how->style == MM_SAMPLE_TEXT) mm_str_add(out, wording_of(question->text)->gap);
    if (how->mode == MM_QUIZ_LETTER)
        mm_str_addf(out, "%c", 'A' + option);
    else
        mm_str_add(out, question->options[option]);
}

/* ---- rows --------------------------------------------------------------------------------------
 */

// Examples for a question: those of its subject, or the first ones. Returns how many there are.
static int32_t choose_shots(const mm_question *question, const mm_quiz_how *how,
                            const mm_question **out)
{
    int32_t n = 0;
    const size_t count = how->dev ? how->dev->count : 0;
    for (int any = 0; any < 2 && n == 0; any++)
        for (size_t i = 0; i < count && n < how->shots; i++) {
            const mm_question *example = &how->dev->questions[i];
            const bool is_same = question->subject && example->subject &&
                                 strcmp(question->subject, example->subject) == 0;
            if (any || is_same) out[n++] = example;
        }
    return n;
}

static mm_status encode_text(mm_ids *ids, const mm_tokenizer *tokenizer,
                             const mm_question *question, const mm_quiz_how *how,
                             const mm_question *const *shots, int32_t n_shots, mm_err *err)
{
    const wording *words = wording_of(question->text);
    const int32_t bos = mm_tokenizer_bos(tokenizer);
    mm_str text = {0};
    mm_status status = MM_OK;
    if (question->subject && how->mode == MM_QUIZ_LETTER)
        mm_str_addf(&text, "%s%s%s", words->head_before, question->subject, words->head_after);
    for (int32_t i = 0; i < n_shots; i++) {
        add_question(&text, shots[i], how);
        mm_str_add(&text, wording_of(shots[i]->text)->cue);
        add_answer(&text, shots[i], shots[i]->answer, how);
        mm_str_add(&text, "\n\n");
    }
    add_question(&text, question, how);
    mm_str_add(&text, words->cue);
    MM_GO(mm_str_check(&text, err));
    if (bos >= 0) MM_GO(mm_ids_add(ids, bos, err));
    MM_GO(mm_tokenizer_encode(tokenizer, text.data, text.length, MM_ADDED_AS_TEXT, ids, err));
done:
    mm_str_drop(&text);
    return status;
}

static mm_status encode_chat(mm_ids *ids, const mm_tokenizer *tokenizer,
                             const mm_question *question, const mm_quiz_how *how,
                             const mm_question *const *shots, int32_t n_shots, mm_err *err)
{
    static const mm_chat_options options = {.generation_prompt = true};
    const size_t n = 2 * (size_t)n_shots + 1;
    mm_status status = MM_OK;
    mm_message *messages = mm_calloc(n, sizeof *messages);
    mm_str *texts = mm_calloc(n, sizeof *texts);
    if (!messages || !texts) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for %zu turns", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        const mm_question *of = i + 1 < n ? shots[i / 2] : question;
        const bool is_answer = i % 2 == 1;
        if (is_answer)
            add_answer(&texts[i], of, of->answer, how);
        else
            add_question(&texts[i], of, how);
        MM_GO(mm_str_check(&texts[i], err));
        messages[i] = (mm_message){.role = is_answer ? "assistant" : "user",
                                   .content = mm_str_text(&texts[i])};
    }
    const mm_conversation chat = {.messages = messages, .count = n};
    MM_GO(mm_chat_encode(tokenizer, &chat, &options, ids, NULL, err));
done:
    for (size_t i = 0; texts && i < n; i++)
        mm_str_drop(&texts[i]);
    mm_free(texts);
    mm_free(messages);
    return status;
}

static mm_status encode_options(mm_quiz_rows *rows, const mm_tokenizer *tokenizer, size_t at,
                                const mm_quiz_how *how, size_t *longest, mm_err *err)
{
    const mm_question *question = &rows->quiz->questions[at];
    size_t *starts = rows->starts + at * MM_QUIZ_STARTS;
    mm_ids *ids = &rows->ids;
    mm_str text = {0};
    mm_status status = MM_OK;
    *longest = 0;
    for (int32_t i = 0; i < question->n_options; i++) {
        starts[i] = ids->count;
        mm_str_clear(&text);
        add_answer(&text, question, i, how);
        MM_GO(mm_str_check(&text, err));
        MM_GO(mm_tokenizer_encode(tokenizer, text.data, text.length, MM_ADDED_AS_TEXT, ids, err));
        if (ids->count - starts[i] > *longest) *longest = ids->count - starts[i];
    }
    starts[question->n_options] = ids->count;
done:
    mm_str_drop(&text);
    return status;
}

// The prompt, with as many examples as there is room for.
static mm_status encode_prompt(mm_quiz_rows *rows, const mm_tokenizer *tokenizer, size_t at,
                               const mm_quiz_how *how, size_t room, mm_err *err)
{
    const mm_question *question = &rows->quiz->questions[at];
    const mm_question *shots[MM_QUIZ_SHOTS_MAX];
    const int32_t n_all = choose_shots(question, how, shots);
    const size_t begin = rows->ids.count;
    for (int32_t n = n_all; n >= 0; n--) {
        rows->ids.count = begin;
        // The last examples stand nearest to the question and stay.
        if (how->style == MM_SAMPLE_CHAT)
            MM_TRY(encode_chat(&rows->ids, tokenizer, question, how, shots + n_all - n, n, err));
        else
            MM_TRY(encode_text(&rows->ids, tokenizer, question, how, shots + n_all - n, n, err));
        if (rows->ids.count - begin > room) continue;
        rows->n_shortened += n < n_all;
        return MM_OK;
    }
    int32_t *ids = rows->ids.data + begin;
    const size_t excess = rows->ids.count - begin - room;
    memmove(ids, ids + excess, room * sizeof *ids);
    rows->ids.count -= excess;
    rows->n_cut++;
    return MM_OK;
}

static mm_status encode_row(mm_quiz_rows *rows, const mm_tokenizer *tokenizer, size_t at,
                            const mm_quiz_how *how, mm_err *err)
{
    const mm_question *question = &rows->quiz->questions[at];
    size_t *starts = rows->starts + at * MM_QUIZ_STARTS;
    size_t longest = 0;
    MM_TRY(encode_options(rows, tokenizer, at, how, &longest, err));
    if (longest + 1 > (size_t)how->max_tokens)
        return MM_FAIL(err, MM_ELIMIT, "line %lld: an option of %zu tokens, %d fit",
                       (long long)question->line, longest, how->max_tokens - 1);
    const size_t begin = rows->ids.count;
    MM_TRY(encode_prompt(rows, tokenizer, at, how, (size_t)how->max_tokens - longest, err));
    starts[question->n_options + 1] = rows->ids.count;
    const int32_t length = (int32_t)(rows->ids.count - begin + longest);
    if (length > rows->longest) rows->longest = length;
    if (rows->ids.count > begin) return MM_OK;
    return MM_FAIL(err, MM_EUSAGE, "line %lld: the prompt has no token", (long long)question->line);
}

mm_status mm_quiz_rows_make(mm_quiz_rows *out, const mm_tokenizer *tokenizer, const mm_quiz *quiz,
                            const mm_quiz_how *how, mm_err *err)
{
    MM_ASSERT(how->shots <= MM_QUIZ_SHOTS_MAX);
    *out = (mm_quiz_rows){.quiz = quiz};
    out->starts = mm_calloc(quiz->count * MM_QUIZ_STARTS, sizeof *out->starts);
    if (!out->starts) return MM_FAIL(err, MM_ENOMEM, "no memory for %zu questions", quiz->count);
    for (size_t i = 0; i < quiz->count; i++)
        MM_TRY(encode_row(out, tokenizer, i, how, err));
    return MM_OK;
}

void mm_quiz_rows_drop(mm_quiz_rows *rows)
{
    mm_ids_drop(&rows->ids);
    mm_free(rows->starts);
    *rows = (mm_quiz_rows){0};
}

/* ---- scores ------------------------------------------------------------------------------------
 */

// A pass while it is filled. Each segment is a prompt with one option, whose ids are its labels.
typedef struct pass {
    mm_engine *engine;
    int32_t max_tokens;
    int32_t *tokens;   // (max_tokens)
    int32_t *labels;   // (max_tokens)
    int32_t *segments; // (max_tokens + 1)
    double *logprobs;  // (max_tokens)
    double **scores;   // (max_tokens) where the sum over a segment goes
    int32_t n_tokens;
    int32_t n_segments;
    int64_t n_labels;
} pass;

static mm_status pass_open(pass *p, mm_err *err)
{
    const size_t n = (size_t)p->max_tokens + 1;
    p->tokens = mm_calloc(n, sizeof *p->tokens);
    p->labels = mm_calloc(n, sizeof *p->labels);
    p->segments = mm_calloc(n, sizeof *p->segments);
    p->logprobs = mm_calloc(n, sizeof *p->logprobs);
    p->scores = mm_calloc(n, sizeof *p->scores);
    if (p->tokens && p->labels && p->segments && p->logprobs && p->scores) return MM_OK;
    return MM_FAIL(err, MM_ENOMEM, "no memory for passes of %d tokens", p->max_tokens);
}

static void pass_close(pass *p)
{
    mm_free(p->tokens);
    mm_free(p->labels);
    mm_free(p->segments);
    mm_free(p->logprobs);
    mm_free(p->scores);
}

static mm_status pass_run(pass *p, mm_err *err)
{
    if (p->n_segments == 0) return MM_OK;
    const mm_batch batch = {.n_tokens = p->n_tokens,
                            .n_segments = p->n_segments,
                            .tokens = p->tokens,
                            .labels = p->labels,
                            .segments = p->segments,
                            .n_labels = p->n_labels};
    MM_TRY(mm_engine_logprobs(p->engine, &batch, p->logprobs, err));
    for (int32_t i = 0; i < p->n_segments; i++) {
        double sum = 0;
        for (int32_t t = p->segments[i]; t < p->segments[i + 1]; t++)
            sum += p->logprobs[t]; // 0 where a label is ignored
        *p->scores[i] = sum;
    }
    p->n_tokens = 0;
    p->n_segments = 0;
    p->n_labels = 0;
    return MM_OK;
}

static mm_status pass_add(pass *p, const int32_t *prompt, size_t n_prompt, const int32_t *option,
                          size_t n_option, double *score, mm_err *err)
{
    const int32_t length = (int32_t)(n_prompt + n_option) - 1; // the last id is only a label
    MM_ASSERT(n_prompt > 0 && n_option > 0 && length <= p->max_tokens);
    if (p->n_tokens + length > p->max_tokens) MM_TRY(pass_run(p, err));
    int32_t *tokens = p->tokens + p->n_tokens;
    int32_t *labels = p->labels + p->n_tokens;
    for (int32_t t = 0; t < length; t++) {
        const size_t next = (size_t)t + 1;
        tokens[t] = (size_t)t < n_prompt ? prompt[t] : option[(size_t)t - n_prompt];
        labels[t] = next < n_prompt ? MM_LABEL_IGNORE : option[next - n_prompt];
    }
    p->scores[p->n_segments++] = score;
    p->n_tokens += length;
    p->n_labels += (int64_t)n_option;
    p->segments[p->n_segments] = p->n_tokens;
    return MM_OK;
}

static mm_pick pick_of(const mm_question *question, const double *scores)
{
    mm_pick pick = {-1, -1};
    double best_norm = (double)-INFINITY;
    for (int32_t i = 0; i < question->n_options; i++) {
        if (isnan(scores[i])) return (mm_pick){-1, -1};
        const double norm = scores[i] / (double)strlen(question->options[i]);
        if (pick.option < 0 || scores[i] > scores[pick.option]) pick.option = i;
        if (pick.option_norm >= 0 && !(norm > best_norm)) continue;
        pick.option_norm = i;
        best_norm = norm;
    }
    return pick;
}

static mm_status score_rows(const mm_quiz_rows *rows, pass *p, mm_progress *progress,
                            double *scores, mm_err *err)
{
    const size_t count = rows->quiz->count;
    for (size_t i = 0; i < count; i++) {
        const int32_t n = rows->quiz->questions[i].n_options;
        const size_t *starts = rows->starts + i * MM_QUIZ_STARTS;
        const int32_t *ids = rows->ids.data;
        for (int32_t k = 0; k < n; k++)
            MM_TRY(pass_add(p, ids + starts[n], starts[n + 1] - starts[n], ids + starts[k],
                            starts[k + 1] - starts[k], &scores[i * MM_QUIZ_OPTIONS_MAX + (size_t)k],
                            err));
        mm_progress_count(progress, i + 1, count, "questions");
    }
    return pass_run(p, err);
}

mm_status mm_quiz_score(const mm_quiz_rows *rows, mm_engine *engine, int32_t max_tokens,
                        mm_progress *progress, mm_pick *picks, mm_err *err)
{
    const size_t count = rows->quiz->count;
    pass p = {.engine = engine, .max_tokens = max_tokens};
    mm_status status = MM_OK;
    double *scores = mm_calloc(count * MM_QUIZ_OPTIONS_MAX, sizeof *scores);
    if (!scores) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for %zu questions", count);
        goto done;
    }
    MM_GO(pass_open(&p, err));
    MM_GO(score_rows(rows, &p, progress, scores, err));
    for (size_t i = 0; i < count; i++)
        picks[i] = pick_of(&rows->quiz->questions[i], scores + i * MM_QUIZ_OPTIONS_MAX);
done:
    pass_close(&p);
    mm_free(scores);
    return status;
}
