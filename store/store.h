/* The store: one SQLite file that holds every run. Opening, runs, liveness, rewinding, small
 * records.
 *
 * Plain sqlite3 reads everything through the views of schemas/views.sql; the tables below them are
 * ours to change by migration. Only this folder (and schemas/) contains SQL.
 *
 * Durability: metric batches survive kill -9; state changes (run created, ended, checkpoint
 * published) are committed with synchronous=FULL. Every write transaction and every WAL checkpoint
 * happens inside one advisory lock on "<db>.lock": SQLite 3.7.0-3.51.2 may corrupt a WAL database
 * when one connection commits while another checkpoints (docs/decisions).
 *
 * Threads: an mm_store is one connection and belongs to one thread at a time. Several stores, in
 * threads or processes, may be open on one file. Ownership: strings in results live in the caller's
 * mm_arena.
 */
#ifndef MM_STORE_STORE_H
#define MM_STORE_STORE_H

#include "core/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_store mm_store;

typedef enum mm_store_mode {
    MM_STORE_READ =
        0, /* must exist; read-only, also from a read-only folder or another machine's copy */
    MM_STORE_WRITE, /* must exist; migrated if older (after an automatic backup) */
    MM_STORE_CREATE /* as WRITE, made if missing */
} mm_store_mode;

/* Errors name the path and what to do: not a database, not an mmrun database (application_id),
 * newer schema (MM_EVERSION), truncated (MM_ECORRUPT), network file system, read-only folder, disk
 * full. Opening for writing also repairs: runs whose process died are marked `killed` and their
 * metric rings are replayed. */
MM_NODISCARD mm_status mm_store_open(mm_store **out, const char *path, mm_store_mode mode,
                                     mm_err *err);
void mm_store_close(mm_store *store);
const char *mm_store_path(const mm_store *store);

/* Everything written between begin and commit is there together or not at all, whatever happens to
 * the process. After a failed call in between the owner aborts; closing aborts too. The database is
 * locked meanwhile: for records, not for work. */
MM_NODISCARD mm_status mm_store_begin(mm_store *store, mm_err *err);
MM_NODISCARD mm_status mm_store_commit(mm_store *store, mm_err *err);
void mm_store_abort(mm_store *store);

/* ---- runs: writing ----------------------------------------------------------------------------
 */

typedef struct mm_param {
    const char *name;  /* database name: "hidden_size" */
    const char *value; /* canonical text: "512", "5e-04", "true", "cosine" */
    bool is_default;
    const char
        *origin; /* "default", "preset", "file", "command line", "sweep", "resume", "parent" */
} mm_param;

typedef struct mm_run_new {
    const char *name;  /* NULL: "<stage>-<id>"; must be unique (MM_EEXISTS) and not look like an id
                          or contain '@' */
    const char *stage; /* "pretrain", "sft", … */
    int64_t parent_id; /* 0: none */
    int64_t parent_step; /* -1: none */
    int64_t sweep_id;    /* 0: none */
    uint64_t seed;
    const char *device; /* "cpu", "cuda" */
    const char *dtype;  /* "fp32" */
    int64_t params_total;
    int64_t params_trainable;
    int64_t steps_planned;
    const char *command;    /* the command line that reproduces it */
    const char *version;    /* of mmrun */
    const char *git_commit; /* NULL: none */
    const char *notes;
    const char *const *tags;
    size_t n_tags;
    const mm_param *params;
    size_t n_params;
} mm_run_new;

/* A new run with status `queued`. FULL commit. Host is recorded by the store. */
MM_NODISCARD mm_status mm_store_run_create(mm_store *store, const mm_run_new *run, int64_t *run_id,
                                           mm_err *err);
/* What mm_store_run_create would say about this name, known before anything is prepared; with
 * `store` NULL only whether it may be a name at all. */
MM_NODISCARD mm_status mm_store_run_name_check(mm_store *store, const char *name, mm_err *err);
/* Sets what only becomes known at the start of training (NULL / 0 keep). */
MM_NODISCARD mm_status mm_store_run_params(mm_store *store, int64_t run_id, const mm_param *params,
                                           size_t n_params, mm_err *err);
MM_NODISCARD mm_status mm_store_run_rename(mm_store *store, int64_t run_id, const char *name,
                                           mm_err *err);
MM_NODISCARD mm_status mm_store_run_note(mm_store *store, int64_t run_id, const char *note,
                                         mm_err *err); /* appended, dated */
MM_NODISCARD mm_status mm_store_run_tag(mm_store *store, int64_t run_id, const char *tag,
                                        bool remove, mm_err *err);
/* Deletes a run with all that belongs to it; chunks that nobody refers to any more are freed. A
 * live run is MM_EBUSY. */
MM_NODISCARD mm_status mm_store_run_remove(mm_store *store, int64_t run_id, mm_err *err);

/* A claim is the right to write a run, and the proof that its process lives: a lock that the kernel
 * frees when the process dies. Claiming sets status `running` and opens an attempt; a second
 * claimer gets MM_EBUSY naming the pid. `rewind_step` >= 0 (resume): in the same transaction points
 * and generations after that step are moved aside. */
typedef struct mm_claim mm_claim;
MM_NODISCARD mm_status mm_run_claim(mm_claim **out, mm_store *store, int64_t run_id,
                                    int64_t rewind_step, mm_err *err);
/* Ends the attempt with "finished", "stopped", "failed", "pruned"; error may be NULL. FULL commit.
 * Frees the claim in every case. Dropping without end (mm_claim_drop) leaves the run to be found as
 * `killed`. */
MM_NODISCARD mm_status mm_run_end(mm_claim *claim, const char *status, const char *error,
                                  mm_err *err);
void mm_claim_drop(mm_claim *claim);

/* ---- small records ----------------------------------------------------------------------------
 */

/* level "info", "warn", "error"; kind: one word such as "resume", "retry", "nan", "pruned",
 * "checkpoint". */
MM_NODISCARD mm_status mm_store_event(mm_store *store, int64_t run_id, const char *level,
                                      const char *kind, const char *message, mm_err *err);
/* Environment of the current attempt: "cpu", "cores", "isa", "threads", "os", "sqlite", "cwd" … */
MM_NODISCARD mm_status mm_store_env(mm_store *store, int64_t run_id, const char *key,
                                    const char *value, mm_err *err);

typedef struct mm_dataset {
    int64_t id;
    const char *path;
    const char *source; /* "file", "synth", "modelscope:…" */
    const char *sha256; /* hexadecimal */
    int64_t bytes;
    int64_t rows;
    int64_t tokens;
    const char *role; /* in lists of a run: "train", "val", "tokenizer" */
} mm_dataset;
/* Adds the dataset (same sha256: the same row) and its use by the run. */
MM_NODISCARD mm_status mm_store_dataset_use(mm_store *store, int64_t run_id,
                                            const mm_dataset *dataset, mm_err *err);

/* Tokenizers are kept inside the database, keyed by their hash; storing one twice is fine. */
MM_NODISCARD mm_status mm_store_tokenizer_put(mm_store *store, const char *hash, const char *json,
                                              size_t json_bytes, const char *config,
                                              size_t config_bytes, mm_err *err);
MM_NODISCARD mm_status mm_store_tokenizer_get(mm_store *store, const char *hash, mm_str *json,
                                              mm_str *config, mm_err *err);

typedef struct mm_generation_row {
    int64_t id;
    int64_t run_id;
    int64_t step;
    int32_t prompt_idx;
    const char *prompt;
    const char *text;
    int64_t tokens;
    const char *finish_reason;
    double temperature;
    double top_p;
    int64_t top_k;
    uint64_t seed;
    double tokens_per_s;
    int64_t created_ms;   /* 0 when adding: now */
    const char *task;     /* file of prompts, "chat", NULL: the run's own prompts */
    const char *expected; /* right answer of a verifiable prompt, NULL: none */
    int32_t is_correct;   /* 1, 0; -1: not verified */
} mm_generation_row;
MM_NODISCARD mm_status mm_store_generation_add(mm_store *store, const mm_generation_row *row,
                                               mm_err *err);

/* The outcome of an evaluation: one number of one task, with its interval where it is a share. */
typedef struct mm_result {
    int64_t id;
    int64_t run_id;
    int64_t step;
    const char *task;   /* name of the file */
    const char *metric; /* "val_loss", "perplexity", "bpb", "choice_accuracy", "exact_match" … */
    double value;
    double low; /* 95 % interval, NaN: none */
    double high;
    int64_t n;               /* tokens, questions, prompts */
    int64_t correct;         /* of a share; -1: it is none */
    const char *data_sha256; /* of the file, NULL: none */
    int64_t created_ms;      /* 0 when adding: now */
} mm_result;
MM_NODISCARD mm_status mm_store_result_add(mm_store *store, const mm_result *result, mm_err *err);

/* ---- sweeps ------------------------------------------------------------------------------------
 */

typedef struct mm_sweep {
    int64_t id;
    const char *name;
    const char *stage;
    const char *search;    /* "grid" */
    const char *space;     /* JSON: {"hidden_size":[512,768]} */
    const char *status;    /* "running", "finished", "stopped" */
    const char *objective; /* metric to minimise: "val_loss" */
    const char *command;
    int64_t created_ms;
} mm_sweep;
/* name NULL: "sweep-<id>". */
MM_NODISCARD mm_status mm_store_sweep_create(mm_store *store, const mm_sweep *sweep,
                                             int64_t *sweep_id, mm_err *err);
/* The right to run a sweep's arms, held as a lock that the kernel frees when the process dies: the
 * sweep then reads `killed`. Taking it sets the status `running`; MM_EBUSY while another process
 * has it. It holds no connection. */
typedef struct mm_sweep_claim mm_sweep_claim;
MM_NODISCARD mm_status mm_sweep_claim_take(mm_sweep_claim **out, mm_store *store, int64_t sweep_id,
                                           mm_err *err);
/* Stores "finished" or "stopped" and frees the claim in every case. */
MM_NODISCARD mm_status mm_sweep_end(mm_sweep_claim *claim, mm_store *store, const char *status,
                                    mm_err *err);
void mm_sweep_claim_drop(mm_sweep_claim *claim);

/* ---- the database itself ------------------------------------------------------------------------
 */

typedef struct mm_store_info {
    int32_t schema_version;
    const char *sqlite_version; /* static */
    bool sqlite_has_wal_reset_bug;
    int64_t file_bytes;
    int64_t wal_bytes;
    int64_t runs;
    int64_t points;
    int64_t checkpoints;
    int64_t chunk_bytes;
    int64_t generations;
} mm_store_info;
MM_NODISCARD mm_status mm_store_info_get(mm_store *store, mm_store_info *info, mm_err *err);
/* integrity_check, foreign_key_check, every checkpoint's chunks against their hashes. Each finding
 * is reported through `report` (may be NULL); MM_ECORRUPT when there is one. */
MM_NODISCARD mm_status mm_store_check(mm_store *store,
                                      void (*report)(void *context, const char *finding),
                                      void *context, mm_err *err);
/* A consistent compact copy at `path` (must not exist) while others may write; verified after
 * writing. */
MM_NODISCARD mm_status mm_store_backup(mm_store *store, const char *path, mm_err *err);

/* Whether the file system of the folder `path`, or of a file, may be changed by another machine: no
 * shared memory there, so no WAL; a database on it is refused. *name is its kind. */
bool mm_is_network_file_system(const char *path, const char **name);
/* True for SQLite 3.7.0-3.51.2 without a back-ported fix (3.44.6+, 3.50.7+). */
bool mm_sqlite_has_wal_reset_bug(void);
const char *mm_sqlite_version(void);

#ifdef __cplusplus
}
#endif
#endif
