/* What a run shows of itself at intervals: answers to its prompts, and its scores on held-out rows.
 */
#include "runner/sample.h"
#include "runner/score.h"
#include "runner/train_parts.h"

#include <inttypes.h>

mm_status mm_session_log(mm_session *s, const char *name, double value, mm_err *err)
{
    int32_t id;
    MM_TRY(mm_metrics_series(s->metrics, name, &id, err));
    mm_metric_log(s->metrics, id, s->at.step, value);
    return MM_OK;
}

static mm_status answer_prompts(mm_session *s, mm_err *err)
{
    if (!s->generator) return MM_OK;
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = (int32_t)mm_config_int(s->config, "gen_tokens");
    sampling.seed = s->run.seed;
    const int32_t room = (int32_t)mm_config_int(s->config, "max_seq_len") + sampling.max_new_tokens;
    const size_t n = json_array_size(s->prompts);
    mm_sample *samples = mm_calloc(n, sizeof *samples);
    if (!samples) return MM_FAIL(err, MM_ENOMEM, "no memory for %zu prompts", n);
    mm_status status = MM_OK;
    for (size_t i = 0; i < n; i++) {
        const char *prompt = json_string_value(json_array_get(s->prompts, i));
        samples[i].prompt = prompt ? prompt : "";
    }
    mm_generator_reload(s->generator);
    MM_GO(mm_sample_texts(s->generator, room, s->corpus->tokenizer,
                          mm_sample_style_of(s->run.stage), samples, n, &sampling, err));
    for (size_t i = 0; i < n; i++)
        MM_GO(mm_sample_record(s->store, s->run_id, s->at.step, (int32_t)i, samples[i].prompt,
                               &samples[i].text, &sampling, &samples[i].generation, err));
done:
    for (size_t i = 0; i < n; i++)
        mm_str_drop(&samples[i].text);
    mm_free(samples);
    return status;
}

mm_status mm_session_score_language(mm_session *s, mm_err *err)
{
    mm_score score;
    MM_TRY(mm_score_batches(s->engine, s->val, s->corpus->tokenizer, NULL, &score, err));
    s->last_val_loss = score.loss;
    MM_TRY(mm_session_log(s, "val_loss", score.loss, err));
    MM_TRY(mm_session_log(s, "val_bpb", score.bits_per_byte, err));
    MM_TRY(mm_session_log(s, "perplexity", score.perplexity, err));
    mm_progress_line(s->progress,
                     "%s step %" PRId64 ": val_loss %.4f, %.3f bits per byte, perplexity %.*g",
                     s->run.name, s->at.step, score.loss, score.bits_per_byte,
                     score.perplexity < 1e4 ? 6 : 3, score.perplexity);
    return MM_OK;
}

mm_status mm_session_evaluate(mm_session *s, mm_err *err)
{
    MM_TRY(answer_prompts(s, err));
    return s->val ? s->objective->evaluate(s, err) : MM_OK;
}
