/* Where a run comes from: the run whose weights it starts from, the run that teaches it, and the
 * rules that both have to keep.
 *
 * Weights fit one shape and one tokenizer. What does not fit is refused before data are read, with
 * all differences in one message. Order of precedence of the settings: config.h.
 */
#ifndef MM_RUNNER_LINEAGE_H
#define MM_RUNNER_LINEAGE_H

#include "runner/config.h"
#include "store/query.h"

/* A checkpoint of another run, and what that run is. Strings live in the arena of the lineage. */
typedef struct mm_parent {
    int64_t run_id; /* 0: there is none */
    int64_t step;
    const char *name;
    const char *tokenizer_hash;
    mm_param *params;
    size_t n_params;
} mm_parent;

typedef struct mm_lineage {
    mm_arena arena;
    mm_store *store; /* open for writing where there is a parent or a teacher, else NULL */
    mm_parent from;
    mm_parent teacher;
    const char *tokenizer_hash; /* that the run has to use; NULL: it is free */
} mm_lineage;

/* The configuration of a training command: the stage's defaults, --from's shape, --config, the
 * command line; `lists` as in mm_config_from_args. Opens and checks --from and --teacher. The
 * caller frees the configuration and drops the lineage in every case. */
MM_NODISCARD mm_status mm_lineage_configure(mm_lineage *out, const mm_context *context,
                                            const mm_args *args, const char *stage, bool lists,
                                            mm_config **config, mm_err *err);
void mm_lineage_drop(mm_lineage *lineage);
/* Refuses a configuration whose shape the parent's weights, or whose vocabulary the teacher, does
 * not have; the message lists every difference. */
MM_NODISCARD mm_status mm_lineage_check(const mm_lineage *lineage, const mm_config *config,
                                        mm_err *err);
/* The command line as one text for the record, with parents by name and step: what `last` meant
 * yesterday. */
MM_NODISCARD mm_status mm_lineage_command(const mm_lineage *lineage, const mm_context *context,
                                          mm_str *out, mm_err *err);
/* " --from NAME@STEP --teacher NAME@STEP", as far as there are any. */
void mm_lineage_add_flags(const mm_lineage *lineage, mm_str *out);

#endif
