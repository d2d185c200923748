/* The report: one self-contained HTML file about one run or several; and its verdict alone.
 *
 * A pure function of the database and the options: same inputs, same bytes. It never looks at the
 * machine it runs on. Every string from the database is escaped.
 */
#ifndef MM_REPORT_REPORT_H
#define MM_REPORT_REPORT_H

#include "store/query.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_report_options {
    const int64_t *run_ids; /* in the order to show */
    size_t n_runs;
    int64_t sweep_id;    /* 0: none; adds the sweep view */
    const char *title;   /* NULL: made from the runs */
    const char *command; /* the command that regenerates the report; NULL: left out */
    bool include_host;   /* host name and absolute paths, otherwise left out */
} mm_report_options;

/* The whole page; appended to `out`. */
MM_NODISCARD mm_status mm_report_html(mm_store *store, const mm_report_options *options,
                                      mm_str *out, mm_err *err);
/* Writes it atomically to `path`. */
MM_NODISCARD mm_status mm_report_write(mm_store *store, const mm_report_options *options,
                                       const char *path, mm_err *err);

/* One sentence of the verdict. `lead` (may be NULL) is printed strongly in front of the text. */
typedef enum mm_remark_kind {
    MM_REMARK_HEADLINE = 0,
    MM_REMARK_FACT,
    MM_REMARK_WARNING
} mm_remark_kind;
typedef struct mm_remark {
    mm_remark_kind kind;
    const char *stage; /* the runs it speaks of */
    const char *lead;
    const char *text;
} mm_remark;

enum { MM_REMARKS_MAX = 64 };
typedef struct mm_verdict {
    mm_remark remarks[MM_REMARKS_MAX];
    size_t count;
    size_t best_idx;    /* run named best in the first stage; SIZE_MAX: none */
    int64_t best_id;    /* of it; 0: none */
    const char *metric; /* what the first stage was ranked by: "val_loss", "val_bpb", "loss"; NULL:
                           nothing */
} mm_verdict;

/* Which of the runs is best, by how much, and what stands against believing it: what the page says,
 * by the same rules (docs/decisions/0017-the-verdict-is-a-rule.md). Its texts live in the arena. */
MM_NODISCARD mm_status mm_report_verdict(mm_store *store, const int64_t *run_ids, size_t n_runs,
                                         mm_arena *arena, mm_verdict *out, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
