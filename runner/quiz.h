/* Multiple choice: the questions of a file.
 *
 * A row is {"question", "A", "B", …, "answer": "B"}, as C-Eval and CMMLU write it, or {"question",
 * "choices": [TEXT …], "answer": place from 0 or letter}; "subject" may name a group. JSONL or one
 * JSON array; zstd and gzip are read through. Other fields are ignored.
 */
#ifndef MM_RUNNER_QUIZ_H
#define MM_RUNNER_QUIZ_H

#include "core/base/hash.h"
#include "core/base/mem.h"

enum {
    MM_QUIZ_OPTIONS_MAX = 26,
    MM_QUIZ_QUESTIONS_MAX = 10000000,
    MM_QUIZ_BAD_KEPT = 10,
    MM_QUIZ_DETAIL_BYTES = 120
};

/* Strings live in the arena of the quiz. */
typedef struct mm_question {
    int64_t line;
    const char *subject; /* NULL: none */
    const char *text;
    const char *options[MM_QUIZ_OPTIONS_MAX];
    int32_t n_options;
    int32_t answer; /* place of the right one */
} mm_question;

typedef struct mm_quiz {
    mm_arena arena;
    mm_question *questions;
    size_t count;
    size_t capacity;
    int64_t bad;
    struct {
        int64_t line;
        char detail[MM_QUIZ_DETAIL_BYTES];
    } first_bad[MM_QUIZ_BAD_KEPT];
    char sha256[MM_SHA256_HEX_BYTES]; /* of the file */
} mm_quiz;

/* Reads the first `limit` good rows (0: all). Bad rows are counted, the first ones kept with their
 * line. More than 0.1 % of them are MM_EFORMAT unless `skip_bad`; so is a file without a question.
 * The caller drops it in every case. */
MM_NODISCARD mm_status mm_quiz_read(mm_quiz *out, const char *path, int64_t limit, bool skip_bad,
                                    mm_err *err);
void mm_quiz_drop(mm_quiz *quiz);

#endif
