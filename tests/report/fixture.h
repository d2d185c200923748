/* Databases for the tests of the report, filled through the store's own interface. */
#ifndef MM_TEST_REPORT_FIXTURE_H
#define MM_TEST_REPORT_FIXTURE_H

#include "store/query.h"

/* Plausible runs: a sweep over width and learning rate with two seeds, one run killed and resumed,
 * one with a spike and NaN, one stopped early, a child of the best, and bilingual answers. Fills
 * `sweep_id` and the ids of all runs in order. */
enum { FIXTURE_RUNS = 8 };
mm_status fixture_demo(const char *path, int64_t runs[FIXTURE_RUNS], int64_t *sweep_id,
                       mm_err *err);

/* A family: pretrain, sft, lora, two dpo and distill, with checkpoints, answers, results. */
enum { FIXTURE_STAGES = 6 };
mm_status fixture_stages(const char *path, int64_t runs[FIXTURE_STAGES], mm_err *err);

/* n_runs finished runs of n_steps steps with n_metrics metrics each. */
mm_status fixture_bulk(const char *path, size_t n_runs, int64_t n_steps, size_t n_metrics,
                       int64_t *runs, mm_err *err);

/* Two runs, the second made from the first and taught by it, in which every text the store keeps is
 * a hostile one, each payload in several places. */
enum { FIXTURE_PAYLOADS = 60 };
extern const char *const fixture_payloads[FIXTURE_PAYLOADS];
mm_status fixture_hostile(const char *path, int64_t runs[2], int64_t *sweep_id, mm_err *err);

/* An empty folder under $TMPDIR; remove with fixture_remove. */
char *fixture_folder(void);
void fixture_remove(char *folder);

#endif
