/* Prompts of a file: every row becomes a conversation that waits for its next answer.
 *
 * Read are JSONL rows {"prompt": TEXT or messages}, every shape of core/data/rows.h (the answer
 * that ends a conversation is left out, of a pair the chosen one) and plain text, a prompt per
 * line. The file is streamed. A reader belongs to one thread.
 */
#ifndef MM_RUNNER_PROMPTS_H
#define MM_RUNNER_PROMPTS_H

#include "core/data/rows.h"

typedef struct mm_prompt_reader mm_prompt_reader;

/* One prompt; everything is borrowed until the next call. */
typedef struct mm_prompt_row {
    int64_t line;         /* of the file, or element of its array */
    mm_conversation chat; /* ends with a turn that is not the assistant's */
    const json_t *gt;     /* list of right answers, NULL when absent */
} mm_prompt_row;

/* `system` (may be NULL) goes in front of conversations without a system turn; borrowed. */
MM_NODISCARD mm_status mm_prompt_reader_open(mm_prompt_reader **out, const char *path,
                                             const char *system, mm_err *err);
/* *row is NULL at the end. Rows that ask nothing are stepped over; so are bad rows of the shapes of
 * core/data/rows.h, while a bad row of {"prompt"} is MM_EFORMAT naming the line. */
MM_NODISCARD mm_status mm_prompt_reader_next(mm_prompt_reader *reader, const mm_prompt_row **row,
                                             mm_err *err);
/* After the last row. */
const mm_row_report *mm_prompt_reader_report(const mm_prompt_reader *reader);
int64_t mm_prompt_reader_idle(const mm_prompt_reader *reader); /* rows that ask nothing */
void mm_prompt_reader_close(mm_prompt_reader *reader);

#endif
