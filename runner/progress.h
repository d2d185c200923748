/* Progress of a long operation on stderr: one live line on a terminal, plain lines otherwise. */
#ifndef MM_RUNNER_PROGRESS_H
#define MM_RUNNER_PROGRESS_H

#include "runner/cli.h"

/* What a training line shows; NaN and 0 leave a field out. */
typedef struct mm_progress_train {
    int64_t step;
    int64_t total;
    double loss;
    double val_loss;
    double lr;
    double grad_norm;
    double tokens_per_s;
    int64_t tokens;
    int64_t mem_bytes;
    double eta_s;
} mm_progress_train;

typedef struct mm_progress mm_progress;
/* `label` stands in front ("pretrain-3", "tokenize"). NULL progress is allowed in every call below
 * and does nothing. */
MM_NODISCARD mm_status mm_progress_new(mm_progress **out, const mm_context *context,
                                       const char *label, mm_err *err);
/* Live line: "step 1200/5000 24% loss 2.314 lr 4.1e-4 12.3k tok/s 1.2 GB eta 6m12s", redrawn at
 * most 10 times a second. Plain mode: stable key=value lines, only when `is_log_step`. JSON mode:
 * one object per log step. */
void mm_progress_step(mm_progress *progress, const mm_progress_train *now, bool is_log_step);
/* A counted operation without training fields (tokenizing bytes, merges, report runs). */
void mm_progress_count(mm_progress *progress, uint64_t done, uint64_t total, const char *unit);
/* A full line that stays, above the live line. */
void mm_progress_line(mm_progress *progress, const char *format, ...) MM_PRINTF(2, 3);
/* Clears the live line and frees. */
void mm_progress_end(mm_progress *progress);

#endif
