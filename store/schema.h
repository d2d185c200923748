/* Private to store: what a database file is, making it, and bringing an old one up to date.
 *
 * schemas/NNNN_name.sql are applied in order, each once; user_version is the number of the last.
 * The views are dropped and made again after every migration.
 */
#ifndef MM_STORE_SCHEMA_H
#define MM_STORE_SCHEMA_H

#include "store/store.h"

enum { MM_APPLICATION_ID = 0x6d6d726e }; /* "mmrn" */

typedef struct mm_migration {
    int32_t version; /* the n-th has version n */
    const char *name;
    const char *sql;
} mm_migration;

/* Generated from schemas/. */
extern const mm_migration mm_schema_migrations[];
extern const int32_t mm_schema_migration_count;
extern const char *const mm_schema_views;

/* Checks that an open file is a database of ours and neither newer nor older. For reading. */
MM_NODISCARD mm_status mm_schema_check(mm_store *store, mm_err *err);
/* Makes an empty file ours (if may_create), or migrates an older one after copying it to
 * "<db>.v<N>-<time>.backup". The list is an argument so that a test can bring its own. */
MM_NODISCARD mm_status mm_schema_update(mm_store *store, bool may_create,
                                        const mm_migration *migrations, int32_t count,
                                        const char *views, mm_err *err);

#endif
