/* What a run of the demo can do: held-out questions, answered greedily, and how many of the answers
 * are right. */
#ifndef MM_RUNNER_DEMO_SCORE_H
#define MM_RUNNER_DEMO_SCORE_H

#include "runner/cli.h"
#include "store/store.h"

/* How many of the answers do what is asked. */
typedef struct mm_share {
    int64_t correct;
    int64_t n;
} mm_share;

typedef struct mm_demo_score {
    mm_share exact;    /* the answer's last number is the one asked for */
    mm_share language; /* the answer is written in the script of the question */
    mm_share named;    /* the answer names who the model is to be */
} mm_demo_score;

typedef struct mm_demo_questions {
    const char *arithmetic; /* files of `data synth`: conversations with "gt" */
    const char *persona;
    int64_t limit; /* questions of each */
    int32_t threads;
} mm_demo_questions;

/* Asks the run as its stage was taught, and records answers and shares with it. */
MM_NODISCARD mm_status mm_demo_score_run(mm_store *store, const char *run,
                                         const mm_demo_questions *questions, mm_demo_score *out,
                                         mm_err *err);

#endif
