/* Whether an answer is the expected one, as far as a rule can tell. */
#ifndef MM_RUNNER_MATCH_H
#define MM_RUNNER_MATCH_H

#include "core/base/mem.h"

typedef enum mm_match_kind {
    MM_MATCH_EXACT = 0, /* the same text */
    MM_MATCH_CONTAINS,  /* the answer holds the expected text */
    MM_MATCH_NUMBER     /* the last number in the answer is the expected one */
} mm_match_kind;
/* The names of --match, in order. */
#define MM_MATCH_KINDS "exact,contains,number"
MM_NODISCARD mm_status mm_match_kind_parse(const char *name, mm_match_kind *out, mm_err *err);

/* Both texts are compared without blanks at their ends and with full-width forms (１２＋Ａ) as
 * ASCII; think blocks of the answer are left out. *is_match is the verdict; MM_EFORMAT: a number is
 * expected and there is none in `expected`. */
MM_NODISCARD mm_status mm_match(mm_match_kind kind, const char *answer, const char *expected,
                                bool *is_match, mm_err *err);

/* The script most of a text is written in; texts without letters have none. */
typedef enum mm_script { MM_SCRIPT_NONE = 0, MM_SCRIPT_LATIN, MM_SCRIPT_HAN } mm_script;
/* Think blocks are left out. */
mm_script mm_script_of(const char *text);

#endif
