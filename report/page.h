/* What the sections of a report share: the records of its runs, read once, and the writer.
 *
 * Internal to this folder. Everything lives in the page's arena until the page is done.
 */
#ifndef MM_REPORT_PAGE_H
#define MM_REPORT_PAGE_H

#include "report/html.h"
#include "report/report.h"
#include "report/svg.h"

/* Limits of a page. What is left out because of one is said in the page. */
enum {
    MM_REPORT_RUNS_MAX = 2000,
    MM_REPORT_BUCKETS_MAX = 400, /* per curve of a run with a colour */
    MM_REPORT_BUCKETS_MIN = 80,  /* at least, however many there are */
    MM_REPORT_BUCKETS_GREY = 48, /* per curve of a run without one */
    MM_REPORT_POINTS = 18000,    /* buckets of all coloured curves together, about */
    MM_REPORT_CHARTS_MAX = 24,
    MM_REPORT_PROMPTS_MAX = 16,
    MM_REPORT_ANSWER_STEPS_MAX = 4, /* per prompt: the first, the last, evenly between */
    MM_REPORT_ANSWER_BYTES = 2000,
    MM_REPORT_EVENTS_MAX = 200,
    MM_REPORT_LINEAGE_MAX = 24
};

typedef struct mm_page_run {
    mm_run_info info;
    const char *label; /* the run's name */
    mm_param *params;
    size_t n_params;
    mm_series_info *series;
    size_t n_series;
    mm_dataset *datasets;
    size_t n_datasets;
    mm_event *events;
    size_t n_events;
    mm_attempt *attempts;
    size_t n_attempts;
    mm_generation_row *generations; /* of runs with a colour only */
    size_t n_generations;
    mm_result *results;
    size_t n_results;
    mm_bucket *val_curve; /* of val_loss */
    size_t n_val;
    const char *tokenizer; /* what identifies it: a digest or a name; NULL: not recorded */
    double bpb;            /* best validation bits per byte; NaN: none */
    double perplexity;     /* best on validation; NaN: none */
    size_t rank;           /* among the finished runs of its stage, from 1; 0: not ranked */
    int style;             /* colour of the page, MM_STYLE_NONE beyond the first eight */
} mm_page_run;

/* One hyperparameter over all runs. */
typedef struct mm_setting {
    const char *name;
    const mm_param **by_run; /* NULL where a run has none */
    bool differs;
    bool is_derived; /* computed from others or counted, not set by anyone */
} mm_setting;

typedef struct mm_page {
    mm_store *store;
    const mm_report_options *options;
    mm_arena arena;
    mm_html html;
    mm_page_run *runs;
    size_t n_runs;
    mm_setting *settings;
    size_t n_settings;
    mm_verdict verdict;
    mm_sweep sweep; /* when has_sweep */
    bool has_sweep;
    int32_t schema_version;
    int64_t newest_ms; /* newest time in the records of these runs: the page has no other clock */
    mm_str data;       /* JSON for the script */
    size_t n_coloured;
} mm_page;

/* model.c: reads the records of the runs and judges them; the curves are left to their section. */
MM_NODISCARD mm_status mm_page_load(mm_page *page, mm_err *err);
/* Text for the reader: without host name and absolute paths unless options say otherwise. */
const char *mm_page_private(mm_page *page, const mm_page_run *run, const char *text);
const mm_series_info *mm_page_series(const mm_page_run *run, const char *name);
bool mm_page_is_finished(const mm_page_run *run);
/* First eight digits of a digest, or the text itself when it is shorter or no digest. */
const char *mm_page_digest(mm_page *page, const char *digest);

/* settings.c: hyperparameters side by side. */
MM_NODISCARD mm_status mm_settings_collect(const mm_page_run *runs, size_t n_runs, mm_arena *arena,
                                           mm_setting **out, size_t *count, mm_err *err);
/* Value of a parameter, NULL when the run has none of that name. */
const char *mm_setting_value(const mm_setting *setting, size_t run_idx);
const char *mm_run_param(const mm_page_run *run, const char *name);

/* verdict_stage.c: what the curves of one run say in the terms of its stage; `with_name` where the
 * remark stands among others. */
void mm_verdict_stage(const mm_page_run *run, bool with_name, mm_arena *arena, mm_verdict *out);
bool mm_run_is_preference(const mm_page_run *run);
/* Held-out preference accuracy of a dpo run, NaN without one. */
double mm_run_preference_accuracy(const mm_page_run *run);
/* verdict.c: adds a remark if there is room. */
void mm_remark_add(mm_verdict *out, mm_arena *arena, mm_remark_kind kind, const char *stage,
                   const char *lead, const char *format, ...) MM_PRINTF(6, 7);
/* Which run is best, by rule; sets `rank` of every run. */
MM_NODISCARD mm_status mm_verdict_make(mm_page_run *runs, size_t n_runs, mm_setting *settings,
                                       size_t n_settings, mm_arena *arena, mm_verdict *out,
                                       mm_err *err);

/* The sections, in the order of the page. A section with nothing to say writes nothing. */
void mm_section_title(mm_page *page);
void mm_section_verdict(mm_page *page);
void mm_section_leaderboard(mm_page *page);
void mm_section_settings(mm_page *page);
MM_NODISCARD mm_status mm_section_curves(mm_page *page, mm_err *err);
MM_NODISCARD mm_status mm_section_sweep(mm_page *page, mm_err *err);
MM_NODISCARD mm_status mm_section_adapters(mm_page *page, mm_err *err);
MM_NODISCARD mm_status mm_section_results(mm_page *page, mm_err *err);
MM_NODISCARD mm_status mm_section_generations(mm_page *page, mm_err *err);
MM_NODISCARD mm_status mm_section_lineage(mm_page *page, mm_err *err);
MM_NODISCARD mm_status mm_section_environment(mm_page *page, mm_err *err);
void mm_section_events(mm_page *page);
void mm_section_data(mm_page *page);
void mm_section_reproduce(mm_page *page);
void mm_section_method(mm_page *page);

/* parts.c: small pieces that several sections use. */
void mm_part_section(mm_page *page, const char *id, const char *heading); /* opens <section> */
void mm_part_run(mm_page *page, const mm_page_run *run); /* key of the run and its name */
void mm_part_table(mm_page *page, const char *class_name, const char *caption, bool sortable);
/* A <td> with a number: text for people, exact value in data-v for sorting and in the title. NaN is
 * a dash. */
void mm_part_number(mm_page *page, double value, const char *text, const char *class_name);
void mm_part_note(mm_page *page, const char *format, ...) MM_PRINTF(2, 3);

#endif
