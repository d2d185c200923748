/* Runs: making, changing, removing. */
#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/utf8.h"
#include "store/checkpoint.h"
#include "store/chunk.h"
#include "store/claim.h"
#include "store/db.h"
#include "store/lock.h"
#include "store/names.h"
#include "store/ring.h"
#include "store/series.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { NAME_BYTES_MAX = 200, RUN_PARAMS_MAX = 4096 };

bool mm_text_is_id(const char *text)
{
    return *text != '\0' && strspn(text, "0123456789") == strlen(text);
}

// Characters that show nothing, or turn around what stands beside them: two names that look the
// same would be different, or one would read as another.
static bool is_unseen(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x200b || code == 0x200e ||
           code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

// MM_EUSAGE for a name that could be taken for a reference of another kind. `what` is "run" or
// "sweep".
static mm_status check_name(const char *what, const char *name, mm_err *err)
{
    if (*name == '\0' || strlen(name) > NAME_BYTES_MAX) {
        return MM_FAIL(err, MM_EUSAGE, "%s name of %zu bytes: 1 to %d were expected", what,
                       strlen(name), NAME_BYTES_MAX);
    }
    if (mm_text_is_id(name) || strcmp(name, "last") == 0) {
        return MM_FAIL(err, MM_EUSAGE, "%s name '%s' would be taken for an id or for 'last'", what,
                       name);
    }
    const size_t length = strlen(name);
    if (mm_utf8_valid(name, length) != length)
        return MM_FAIL(err, MM_EUSAGE, "%s name '%s' is not valid UTF-8", what, name);
    if (name[0] == ' ' || name[length - 1] == ' ')
        return MM_FAIL(err, MM_EUSAGE, "%s name '%s' begins or ends with a space", what, name);
    for (size_t at = 0; at < length;) {
        uint32_t code = 0;
        at += (size_t)mm_utf8_next(name + at, length - at, &code);
        if (code == '@' || is_unseen(code))
            return MM_FAIL(err, MM_EUSAGE,
                           "%s name '%s': '@' and control characters are not allowed", what, name);
    }
    return MM_OK;
}

static const char RUN_NAME_TAKEN[] = "SELECT count(*) FROM run WHERE name = ?1";
static const char SWEEP_NAME_TAKEN[] = "SELECT count(*) FROM sweep WHERE name = ?1";

static mm_status must_be_free(mm_store *store, const char *sql, const char *what, const char *name,
                              mm_err *err)
{
    int64_t n_taken = 0;
    MM_TRY(mm_db_int(store, &n_taken, sql, MM_VALUES(mm_v_text(name)), err));
    if (n_taken == 0) return MM_OK;
    return MM_FAIL(err, MM_EEXISTS, "a %s named '%s' exists already", what, name);
}

mm_status mm_store_run_name_check(mm_store *store, const char *name, mm_err *err)
{
    MM_TRY(check_name("run", name, err));
    return store ? must_be_free(store, RUN_NAME_TAKEN, "run", name, err) : MM_OK;
}

mm_status mm_run_must_exist(mm_store *store, int64_t run_id, mm_err *err)
{
    int64_t n = 0;
    MM_TRY(mm_db_int(store, &n, "SELECT count(*) FROM run WHERE id = ?1",
                     MM_VALUES(mm_v_int(run_id)), err));
    if (n == 1) return MM_OK;
    return MM_FAIL(err, MM_ENOTFOUND, "%s: there is no run %" PRId64, mm_store_path(store), run_id);
}

// 12 hexadecimal digits of time, 20 of chance: sortable, unique over machines without asking.
static void make_uid(char out[33])
{
    uint8_t random[10];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        // Before the kernel has entropy: what is unique here and now.
        const int64_t parts[2] = {mm_mono_ns(), getpid()};
        uint8_t digest[MM_SHA256_BYTES];
        mm_sha256_of(parts, sizeof parts, digest);
        memcpy(random, digest, sizeof random);
    }
    snprintf(out, 33, "%012" PRIx64, (uint64_t)mm_now_ms());
    for (size_t i = 0; i < sizeof random; i++) {
        snprintf(out + 12 + 2 * i, 3, "%02x", random[i]);
    }
}

static const char *skip_digits(const char *c)
{
    while (*c >= '0' && *c <= '9') {
        c++;
    }
    return c;
}

// RFC 8259, section 6. strtod would also take hexadecimal, "inf" and blanks.
static bool is_json_number(const char *text)
{
    const char *c = *text == '-' ? text + 1 : text;
    if (*c < '0' || *c > '9') return false;
    if (*c == '0' && c[1] >= '0' && c[1] <= '9') return false;
    c = skip_digits(c);
    if (*c == '.') {
        if (c[1] < '0' || c[1] > '9') return false;
        c = skip_digits(c + 1);
    }
    if (*c == 'e' || *c == 'E') {
        c++;
        if (*c == '+' || *c == '-') c++;
        if (*c < '0' || *c > '9') return false;
        c = skip_digits(c);
    }
    return *c == '\0';
}

static mm_status insert_params(mm_store *store, int64_t run_id, const mm_param *params,
                               size_t count, mm_err *err)
{
    if (count > RUN_PARAMS_MAX) {
        return MM_FAIL(err, MM_ELIMIT, "%zu hyperparameters: at most %d", count, RUN_PARAMS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const mm_param *param = &params[i];
        const bool is_number = is_json_number(param->value);
        MM_TRY(mm_db_run(
            store,
            "INSERT OR REPLACE INTO param (run_id, name, value, number, is_default, origin) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            MM_VALUES(mm_v_int(run_id), mm_v_text(param->name), mm_v_text(param->value),
                      is_number ? mm_v_real(strtod(param->value, NULL))
                                : (mm_value){.type = MM_VALUE_NULL},
                      mm_v_int(param->is_default),
                      mm_v_text(param->origin ? param->origin
                                              : (param->is_default ? "default" : "unknown"))),
            err));
    }
    return MM_OK;
}

// "<stage>-<id>", with a number behind it if somebody has given that name to another run.
static mm_status name_by_id(mm_store *store, const char *table_is_taken, const char *update,
                            const char *stem, int64_t id, mm_err *err)
{
    for (int attempt = 1; attempt <= 1000; attempt++) {
        mm_str name = {0};
        mm_str_addf(&name, "%s-%" PRId64, stem, id);
        if (attempt > 1) mm_str_addf(&name, "-%d", attempt);
        int64_t n_taken = 0;
        mm_status status = mm_str_check(&name, err);
        const mm_value text = mm_v_text(mm_str_text(&name));
        if (status == MM_OK) {
            status = mm_db_int(store, &n_taken, table_is_taken, MM_VALUES(text), err);
        }
        if (status == MM_OK && n_taken == 0) {
            status = mm_db_run(store, update, MM_VALUES(mm_v_int(id), text), err);
        }
        mm_str_drop(&name);
        if (status != MM_OK || n_taken == 0) return status;
    }
    return MM_FAIL(err, MM_EEXISTS, "no free name for %s %" PRId64, stem, id);
}

static mm_status insert_run(mm_store *store, const mm_run_new *run, int64_t *run_id, mm_err *err)
{
    char uid[33];
    make_uid(uid);
    mm_process process;
    mm_process_get(&process);
    MM_TRY(mm_db_run(
        store,
        "INSERT INTO run (uid, name, stage, status, parent_id, parent_step, sweep_id, seed, "
        "device, "
        "dtype, params_total, params_trainable, steps_planned, created_ms, command, host, version, "
        "git_commit, notes) VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
        "?13, ?14, ?15, ?16, ?17, ?18)",
        MM_VALUES(mm_v_text(uid), mm_v_text(run->name ? run->name : uid), mm_v_text(run->stage),
                  mm_v_id(run->parent_id),
                  run->parent_id && run->parent_step >= 0 ? mm_v_int(run->parent_step)
                                                          : (mm_value){.type = MM_VALUE_NULL},
                  mm_v_id(run->sweep_id), mm_v_int((int64_t)run->seed), mm_v_text(run->device),
                  mm_v_text(run->dtype), mm_v_int(run->params_total),
                  mm_v_int(run->params_trainable), mm_v_int(run->steps_planned),
                  mm_v_int(mm_now_ms()), mm_v_text(run->command), mm_v_text(process.host),
                  mm_v_text(run->version), mm_v_text(run->git_commit), mm_v_text(run->notes)),
        err));
    return mm_db_int(store, run_id, "SELECT last_insert_rowid()", MM_NO_VALUES, err);
}

mm_status mm_store_run_create(mm_store *store, const mm_run_new *run, int64_t *run_id, mm_err *err)
{
    MM_ASSERT(run->stage != NULL);
    *run_id = 0;
    mm_status status = MM_OK;
    if (run->name) MM_TRY(check_name("run", run->name, err));
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    if (run->name) MM_GO(must_be_free(store, RUN_NAME_TAKEN, "run", run->name, err));
    if (run->parent_id) MM_GO(mm_run_must_exist(store, run->parent_id, err));
    MM_GO(insert_run(store, run, run_id, err));
    if (!run->name) {
        MM_GO(name_by_id(store, RUN_NAME_TAKEN, "UPDATE run SET name = ?2 WHERE id = ?1",
                         run->stage, *run_id, err));
    }
    MM_GO(insert_params(store, *run_id, run->params, run->n_params, err));
    for (size_t i = 0; i < run->n_tags; i++) {
        MM_GO(mm_db_run(store, "INSERT OR IGNORE INTO tag (run_id, tag) VALUES (?1, ?2)",
                        MM_VALUES(mm_v_int(*run_id), mm_v_text(run->tags[i])), err));
    }
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_run_params(mm_store *store, int64_t run_id, const mm_param *params,
                              size_t n_params, mm_err *err)
{
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    MM_GO(insert_params(store, run_id, params, n_params, err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_run_rename(mm_store *store, int64_t run_id, const char *name, mm_err *err)
{
    MM_TRY(check_name("run", name, err));
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    int64_t n_others = 0;
    MM_GO(mm_db_int(store, &n_others, "SELECT count(*) FROM run WHERE name = ?1 AND id <> ?2",
                    MM_VALUES(mm_v_text(name), mm_v_int(run_id)), err));
    if (n_others > 0) {
        status = MM_FAIL(err, MM_EEXISTS, "a run named '%s' exists already", name);
        goto done;
    }
    MM_GO(mm_db_run(store, "UPDATE run SET name = ?2 WHERE id = ?1",
                    MM_VALUES(mm_v_int(run_id), mm_v_text(name)), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_run_note(mm_store *store, int64_t run_id, const char *note, mm_err *err)
{
    char time[MM_TIME_ISO_BYTES];
    mm_time_iso(mm_now_ms(), time);
    mm_str line = {0};
    mm_status status = MM_OK;
    mm_str_addf(&line, "%.10s %.5s UTC: %s", time, time + 11, note);
    MM_TRY(mm_str_check(&line, err));
    MM_GO(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    MM_GO(mm_db_run(store,
                    "UPDATE run SET notes = coalesce(notes || char(10), '') || ?2 WHERE id = ?1",
                    MM_VALUES(mm_v_int(run_id), mm_v_text(line.data)), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    mm_str_drop(&line);
    return status;
}

mm_status mm_store_run_tag(mm_store *store, int64_t run_id, const char *tag, bool remove,
                           mm_err *err)
{
    if (*tag == '\0' || strlen(tag) > NAME_BYTES_MAX || strchr(tag, ',')) {
        return MM_FAIL(err, MM_EUSAGE, "tag '%s': 1 to %d bytes without a comma were expected", tag,
                       NAME_BYTES_MAX);
    }
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    MM_GO(mm_db_run(store,
                    remove ? "DELETE FROM tag WHERE run_id = ?1 AND tag = ?2"
                           : "INSERT OR IGNORE INTO tag (run_id, tag) VALUES (?1, ?2)",
                    MM_VALUES(mm_v_int(run_id), mm_v_text(tag)), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

static mm_status remove_rows(mm_store *store, int64_t run_id, mm_err *err)
{
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_series_remove(store, run_id, err));
    MM_GO(mm_db_run(store, "DELETE FROM run WHERE id = ?1", MM_VALUES(mm_v_int(run_id)), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_run_remove(mm_store *store, int64_t run_id, mm_err *err)
{
    MM_TRY(mm_run_must_exist(store, run_id, err));
    // Holding the run's lock keeps anybody from starting it meanwhile.
    int fd;
    MM_TRY(mm_lock_open(&fd, store->real_path, true, err));
    bool is_ours = false;
    mm_status status = MM_OK;
    MM_GO(mm_lock_try(fd, MM_LOCK_RUN, run_id, &is_ours, err));
    if (!is_ours) {
        status = MM_FAIL(err, MM_EBUSY, "run %" PRId64 " is running: stop it first", run_id);
        goto done;
    }
    MM_GO(mm_ring_replay(store, run_id, err));
    MM_GO(mm_checkpoints_remove_after(store, run_id, INT64_MIN, err));
    MM_GO(remove_rows(store, run_id, err));
    MM_GO(mm_store_vacuum(store, err));
done:
    close(fd);
    return status;
}

/* ---- sweeps ------------------------------------------------------------------------------------
 */

mm_status mm_store_sweep_create(mm_store *store, const mm_sweep *sweep, int64_t *sweep_id,
                                mm_err *err)
{
    *sweep_id = 0;
    mm_status status = MM_OK;
    char uid[33];
    make_uid(uid);
    if (sweep->name) MM_TRY(check_name("sweep", sweep->name, err));
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    if (sweep->name) MM_GO(must_be_free(store, SWEEP_NAME_TAKEN, "sweep", sweep->name, err));
    int64_t is_json = 0;
    MM_GO(mm_db_int(store, &is_json, "SELECT json_valid(?1)", MM_VALUES(mm_v_text(sweep->space)),
                    err));
    if (!is_json) {
        status = MM_FAIL(err, MM_EFORMAT, "the space of a sweep must be JSON, found '%s'",
                         sweep->space ? sweep->space : "");
        goto done;
    }
    MM_GO(mm_db_run(
        store,
        "INSERT INTO sweep (name, stage, search, space, status, objective, command, created_ms) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        MM_VALUES(mm_v_text(sweep->name ? sweep->name : uid), mm_v_text(sweep->stage),
                  mm_v_text(sweep->search ? sweep->search : "grid"), mm_v_text(sweep->space),
                  mm_v_text(sweep->status ? sweep->status : "running"),
                  mm_v_text(sweep->objective ? sweep->objective : "val_loss"),
                  mm_v_text(sweep->command), mm_v_int(mm_now_ms())),
        err));
    MM_GO(mm_db_int(store, sweep_id, "SELECT last_insert_rowid()", MM_NO_VALUES, err));
    if (!sweep->name) {
        MM_GO(name_by_id(store, SWEEP_NAME_TAKEN, "UPDATE sweep SET name = ?2 WHERE id = ?1",
                         "sweep", *sweep_id, err));
    }
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}
