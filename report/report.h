/* The report: one self-contained HTML file about one run or several.
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

#ifdef __cplusplus
}
#endif
#endif
