/* Where runs come from and what came of them: parents up to the first, teachers, descendants, with
 * the data, tokenizers and checkpoints that identify each link.
 *
 * What was removed is not there: a run whose parent is gone is the root of its tree. Everything
 * lives in the caller's arena.
 */
#ifndef MM_STORE_FAMILY_H
#define MM_STORE_FAMILY_H

#include "store/query.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_FAMILY_RUNS_MAX = 96 };
#define MM_FAMILY_NONE SIZE_MAX

typedef struct mm_family_run {
    mm_run_info info;
    bool is_asked;           /* one of those that the family was made for */
    int depth;               /* parents above it */
    bool is_last;            /* of the children of its parent, or of the roots */
    size_t parent;           /* index into the family, MM_FAMILY_NONE: none here */
    size_t teacher;          /* the same, for a run that was distilled */
    int64_t teacher_step;    /* -1: not known */
    const char *from_sha256; /* of the checkpoint it started from, NULL: none, or gone */
    const char *sha256;      /* of its newest checkpoint, NULL: none */
    int64_t step;            /* of that checkpoint, -1: none */
    int64_t own_bytes;       /* of that checkpoint */
    const char *tokenizer;   /* hash, NULL: not recorded */
    mm_dataset *datasets;
    size_t n_datasets;
} mm_family_run;

typedef struct mm_family {
    mm_family_run
        *runs; /* parents before their children, which follow them by id, as a tree does */
    size_t count;
    size_t n_left_out; /* beyond MM_FAMILY_RUNS_MAX */
} mm_family;

/* Ancestors and teachers of all the runs and, if asked for, their descendants. MM_ENOTFOUND where
 * one of the ids is of no run. */
MM_NODISCARD mm_status mm_store_family(mm_store *store, const int64_t *run_ids, size_t n_runs,
                                       bool with_descendants, mm_arena *arena, mm_family *out,
                                       mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
