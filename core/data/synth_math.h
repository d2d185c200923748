/* Arithmetic of the self-made data: problems with computed answers, asked and stated in many ways.
 * Internal to core/data. */
#ifndef MM_DATA_SYNTH_MATH_H
#define MM_DATA_SYNTH_MATH_H

#include "core/data/synth_grammar.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_operation { MM_ADD = 0, MM_SUBTRACT, MM_MULTIPLY, MM_COMPARE } mm_operation;

typedef struct mm_problem {
    mm_operation operation;
    int a;
    int b;
    int result; /* of a comparison: the larger number */
    mm_slots slots;
} mm_problem;

enum { MM_ADD_MAX = 20, MM_ADD_LARGE_MAX = 99, MM_MULTIPLY_MAX = 10 };

/* Draws a problem from this file's side of the held-out line: mostly sums and differences up to 20,
 * some up to 99, products up to 10 times 10, comparisons. */
void mm_problem_draw(mm_synth *synth, mm_problem *problem);
/* The same with numbers up to 20: half comparisons, else sums and differences. */
void mm_problem_draw_small(mm_synth *synth, mm_problem *problem);
/* Appends a statement with its result: "3 + 4 = 7", "Tom has …". */
void mm_problem_state(mm_synth *synth, const mm_problem *problem, mm_str *out);
/* Appends a question, and the answer as a sentence or as the bare number. */
void mm_problem_ask(mm_synth *synth, const mm_problem *problem, mm_str *question);
void mm_problem_answer(mm_synth *synth, const mm_problem *problem, int value, mm_str *answer);
/* Appends a question in words, short and without a story. */
void mm_problem_ask_plainly(mm_synth *synth, const mm_problem *problem, mm_str *question);
/* Appends a sentence of the language with the number as its only one. */
void mm_problem_say(mm_synth *synth, const mm_problem *problem, int value, mm_str *answer);
/* Appends a row of numbers with equal steps, in digits or words. */
void mm_counting_state(mm_synth *synth, mm_str *out);

#ifdef __cplusplus
}
#endif
#endif
