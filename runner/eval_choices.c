/* mmrun eval --choices: multiple choice, overall and per subject. */
#include "runner/eval_parts.h"
#include "runner/quiz_score.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PASS_TOKENS = 2048, ROW_TOKENS_MAX = 4096, METRIC_BYTES = 128 };

// What was right, of all questions or of a subject.
typedef struct tally {
    const char *subject; // NULL: all
    int64_t n;
    int64_t correct;
    int64_t correct_norm;
    double chance; // summed over the questions
} tally;

static void count_pick(tally *t, const mm_question *question, const mm_pick *pick)
{
    t->n++;
    t->correct += pick->option == question->answer;
    t->correct_norm += pick->option_norm == question->answer;
    t->chance += 1.0 / question->n_options;
}

static tally *tally_of(tally *tallies, size_t *n, const char *subject)
{
    for (size_t i = 1; i < *n; i++)
        if (strcmp(tallies[i].subject, subject) == 0) return &tallies[i];
    tallies[*n].subject = subject;
    return &tallies[(*n)++];
}

static void say_bad_rows(const mm_context *context, const mm_quiz *quiz, const char *path)
{
    const int64_t kept = quiz->bad < MM_QUIZ_BAD_KEPT ? quiz->bad : MM_QUIZ_BAD_KEPT;
    for (int64_t i = 0; i < kept; i++)
        mm_warn(context, "%s line %" PRId64 ": %s", path, quiz->first_bad[i].line,
                quiz->first_bad[i].detail);
    if (quiz->bad > 0)
        mm_warn(context, "%s: %" PRId64 " bad questions are left out.", path, quiz->bad);
}

static mm_status read_quiz(const mm_eval *eval, mm_quiz *quiz, const char *path, int64_t limit,
                           mm_err *err)
{
    const mm_status status = mm_quiz_read(quiz, path, limit, mm_eval_skips_bad(eval), err);
    say_bad_rows(eval->context, quiz, path);
    return status;
}

static mm_status add_tally(mm_eval *eval, const tally *t, const char *task, bool has_norm,
                           const char *sha256, json_t *subjects, mm_err *err)
{
    static const char *const METRICS[] = {"choice_accuracy", "choice_accuracy_norm"};
    const int64_t correct[] = {t->correct, t->correct_norm};
    for (int i = 0; i < 1 + has_norm; i++) {
        char metric[METRIC_BYTES];
        snprintf(metric, sizeof metric, "%s%s%.80s", METRICS[i], t->subject ? "/" : "",
                 t->subject ? t->subject : "");
        MM_TRY(mm_eval_add_share(eval, task, metric, correct[i], t->n, sha256, err));
    }
    if (!t->subject) return MM_OK;
    json_array_append_new(subjects,
                          json_pack("{s:s,s:I,s:I,s:o}", "subject", t->subject, "n",
                                    (json_int_t)t->n, "correct", (json_int_t)t->correct, "accuracy",
                                    mm_json_of_real((double)t->correct / (double)t->n)));
    return MM_OK;
}

static void hint_at_chance(const mm_eval *eval, const tally *all, const char *task)
{
    const mm_result *overall = NULL;
    for (size_t i = 0; i < eval->n_results; i++)
        if (strcmp(eval->results[i].task, task) == 0 &&
            strcmp(eval->results[i].metric, "choice_accuracy") == 0)
            overall = &eval->results[i];
    const double chance = all->chance / (double)all->n;
    if (!overall || chance < overall->low || chance > overall->high) return;
    mm_say(eval->context,
           "%s, %s: not told apart from guessing, which gets %.1f %% (interval %.1f to %.1f %%, "
           "%" PRId64 " question%s).",
           eval->loaded.run.name, task, 100 * chance, 100 * overall->low, 100 * overall->high,
           all->n, all->n == 1 ? "" : "s");
}

// Counts, keeps and says what was right.
static mm_status settle(mm_eval *eval, const mm_quiz *quiz, const mm_quiz_how *how,
                        const mm_pick *picks, const char *task, mm_err *err)
{
    size_t n_tallies = 1;
    mm_status status = MM_OK;
    json_t *subjects = json_array();
    tally *tallies = mm_calloc(quiz->count + 1, sizeof *tallies);
    if (!tallies) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for %zu questions", quiz->count);
        goto done;
    }
    for (size_t i = 0; i < quiz->count; i++) {
        const mm_question *question = &quiz->questions[i];
        count_pick(&tallies[0], question, &picks[i]);
        if (!question->subject) continue;
        count_pick(tally_of(tallies, &n_tallies, question->subject), question, &picks[i]);
    }
    const bool has_norm = how->mode == MM_QUIZ_TEXT;
    for (size_t i = 0; i < n_tallies; i++)
        MM_GO(add_tally(eval, &tallies[i], task, has_norm, quiz->sha256, subjects, err));
    hint_at_chance(eval, &tallies[0], task);
    json_object_set_new(
        eval->json, "choices",
        json_pack("{s:s,s:s,s:s,s:i,s:I,s:I,s:I,s:o,s:O}", "task", task, "score",
                  has_norm ? "text" : "letter", "style",
                  how->style == MM_SAMPLE_CHAT ? "chat" : "text", "shots", how->shots, "n",
                  (json_int_t)tallies[0].n, "correct", (json_int_t)tallies[0].correct, "bad_rows",
                  (json_int_t)quiz->bad, "chance",
                  mm_json_of_real(tallies[0].chance / (double)tallies[0].n), "subjects", subjects));
done:
    mm_free(tallies);
    json_decref(subjects);
    return status;
}

static mm_quiz_how how_of(const mm_eval *eval, const mm_quiz *dev)
{
    const char *mode = mm_args_text(eval->args, "score");
    const int32_t limit = mm_model_config_of(eval->loaded.model)->max_position_embeddings;
    int64_t room = mm_args_int(eval->args, "seq-len", ROW_TOKENS_MAX);
    if (room > limit) room = limit;
    return (mm_quiz_how){.mode = mode && strcmp(mode, "text") == 0 ? MM_QUIZ_TEXT : MM_QUIZ_LETTER,
                         .style = mm_eval_style(eval),
                         .dev = dev,
                         .shots = (int32_t)mm_args_int(eval->args, "shots", dev ? 5 : 0),
                         .max_tokens = (int32_t)room};
}

static void say_rows(const mm_eval *eval, const mm_quiz_rows *rows)
{
    const int64_t trained = mm_config_int(eval->loaded.config, "max_seq_len");
    if (rows->n_shortened > 0)
        mm_warn(eval->context, "%" PRId64 " prompts have fewer examples, for want of room.",
                rows->n_shortened);
    if (rows->n_cut > 0)
        mm_warn(eval->context, "%" PRId64 " prompts lost their beginning, for want of room.",
                rows->n_cut);
    if (rows->longest > trained)
        mm_say(eval->context, "Prompts have up to %d tokens; %s was trained on %" PRId64 ".",
               rows->longest, eval->loaded.run.name, trained);
}

static mm_status score_quiz(mm_eval *eval, const mm_quiz *quiz, const mm_quiz_how *how,
                            mm_pick *picks, mm_err *err)
{
    mm_quiz_rows rows = {0};
    mm_engine *engine = NULL;
    mm_progress *progress = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_quiz_rows_make(&rows, eval->loaded.tokenizer, quiz, how, err));
    say_rows(eval, &rows);
    const int32_t tokens = rows.longest > PASS_TOKENS ? rows.longest : PASS_TOKENS;
    const mm_engine_options options = {.max_tokens = tokens,
                                       .threads = (int32_t)mm_args_int(eval->args, "threads", 0),
                                       .bf16 = mm_eval_dtype(eval) == MM_BF16};
    MM_GO(mm_engine_new(&engine, eval->loaded.model, &options, err));
    MM_GO(mm_progress_new(&progress, eval->context, eval->loaded.run.name, err));
    MM_GO(mm_quiz_score(&rows, engine, tokens, progress, picks, err));
done:
    mm_progress_end(progress);
    mm_engine_free(engine);
    mm_quiz_rows_drop(&rows);
    return status;
}

mm_status mm_eval_choices(mm_eval *eval, mm_err *err)
{
    const char *path = mm_args_text(eval->args, "choices");
    const char *dev_path = mm_args_text(eval->args, "dev");
    mm_quiz quiz = {0};
    mm_quiz dev = {0};
    mm_pick *picks = NULL;
    mm_status status = MM_OK;
    if (mm_args_has(eval->args, "shots") && !dev_path)
        return MM_FAIL(err, MM_EUSAGE, "--shots needs --dev FILE: answered examples");
    MM_GO(read_quiz(eval, &quiz, path, mm_args_int(eval->args, "limit", 0), err));
    if (dev_path) MM_GO(read_quiz(eval, &dev, dev_path, 0, err));
    picks = mm_calloc(quiz.count, sizeof *picks);
    if (!picks) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory for its questions", path);
        goto done;
    }
    const mm_quiz_how how = how_of(eval, dev_path ? &dev : NULL);
    status = score_quiz(eval, &quiz, &how, picks, err);
    if (status != MM_OK) {
        mm_err_context(err, "%s", path);
        goto done;
    }
    MM_GO(settle(eval, &quiz, &how, picks, mm_eval_task(path), err));
done:
    mm_free(picks);
    mm_quiz_drop(&dev);
    mm_quiz_drop(&quiz);
    return status;
}
