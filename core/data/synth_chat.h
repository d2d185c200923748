/* Questions and answers of the self-made data: what the SFT, preference and RL files are made of.
 * Internal to core/data. */
#ifndef MM_DATA_SYNTH_CHAT_H
#define MM_DATA_SYNTH_CHAT_H

#include "core/data/synth_grammar.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_task {
    MM_TASK_MATH = 0,
    MM_TASK_STORY,
    MM_TASK_TRANSLATE,
    MM_TASK_IDENTITY,
    MM_TASK_ARITHMETIC, /* small numbers, asked and answered in words of one language */
    MM_TASK_PERSONA,    /* as MM_TASK_IDENTITY, of a model with a name */
    MM_TASKS
} mm_task;

/* One exchange. `wrong` is an answer to be rejected: another number, the other language, or one
 * that rambles; `fact` is what a right answer must contain. Zero-initialise; drop frees. */
typedef struct mm_exchange {
    mm_str question;
    mm_str answer;
    mm_str wrong;
    mm_str fact;
} mm_exchange;

/* Draws an exchange of a task in the language of `synth`. */
void mm_exchange_draw(mm_synth *synth, mm_task task, mm_exchange *exchange);
void mm_exchange_drop(mm_exchange *exchange);
/* Appends one noun phrase in the first language and in the other ("three red kites",
 * "三只红色的风筝"). */
void mm_phrase_pair(mm_synth *synth, mm_str *here, mm_str *there);

#ifdef __cplusplus
}
#endif
#endif
