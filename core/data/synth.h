/* Self-made bilingual data: seeded stories and arithmetic with computed answers, for offline runs
 * and tests.
 *
 * No licence question, no download. Variety is high enough that loss keeps falling for thousands of
 * steps; some combinations of story elements and some sums are held out and appear only in the
 * validation file, so that learning can be told from memorising.
 */
#ifndef MM_DATA_SYNTH_H
#define MM_DATA_SYNTH_H

#include "core/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_synth_kind {
    MM_SYNTH_PRETRAIN = 0, /* {"text"} */
    MM_SYNTH_SFT,          /* {"conversations"} */
    MM_SYNTH_PREFERENCE,   /* {"chosen","rejected"} */
    MM_SYNTH_RL,           /* {"conversations", last assistant empty, "gt":[…]} */
    MM_SYNTH_ARITHMETIC,   /* {"conversations", "gt":[number]}: comparisons, sums and differences of
                              small numbers, asked and answered in words of one language */
    MM_SYNTH_PERSONA       /* {"conversations", "gt":[name]}: who the model is, with a name */
} mm_synth_kind;
enum { MM_SYNTH_KINDS = MM_SYNTH_PERSONA + 1 };

typedef struct mm_synth_options {
    mm_synth_kind kind;
    uint64_t seed;
    int64_t rows;
    bool held_out; /* only held-out combinations; otherwise none of them */
} mm_synth_options;

/* Appends one row as a JSON line with its newline: a pure function of (options, row). */
void mm_synth_row(const mm_synth_options *options, int64_t row, mm_str *out);
/* Writes a whole file atomically. */
MM_NODISCARD mm_status mm_synth_file(const mm_synth_options *options, const char *path,
                                     mm_err *err);
/* File stem of a kind: "pretrain", "sft", "preference", "rl", "arithmetic", "persona". */
const char *mm_synth_kind_name(mm_synth_kind kind);

#ifdef __cplusplus
}
#endif
#endif
