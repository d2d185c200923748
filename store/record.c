/* Small records of a run: events, environment, datasets, tokenizers, generations, results. */
#include "core/base/clock.h"
#include "store/claim.h"
#include "store/db.h"

mm_status mm_event_insert(mm_store *store, int64_t run_id, const char *level, const char *kind,
                          const char *message, mm_err *err)
{
    return mm_db_run(store,
                     "INSERT INTO event (run_id, time_ms, level, kind, message) "
                     "VALUES (?1, ?2, ?3, ?4, ?5)",
                     MM_VALUES(mm_v_int(run_id), mm_v_int(mm_now_ms()), mm_v_text(level),
                               mm_v_text(kind), mm_v_text(message ? message : "")),
                     err);
}

mm_status mm_store_event(mm_store *store, int64_t run_id, const char *level, const char *kind,
                         const char *message, mm_err *err)
{
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    MM_GO(mm_event_insert(store, run_id, level, kind, message, err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_env(mm_store *store, int64_t run_id, const char *key, const char *value,
                       mm_err *err)
{
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    MM_GO(mm_db_run(store,
                    "INSERT OR REPLACE INTO env (run_id, attempt, key, value) VALUES (?1, "
                    "(SELECT coalesce(max(number), 0) FROM attempt WHERE run_id = ?1), ?2, ?3)",
                    MM_VALUES(mm_v_int(run_id), mm_v_text(key), mm_v_text(value ? value : "")),
                    err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_dataset_use(mm_store *store, int64_t run_id, const mm_dataset *dataset,
                               mm_err *err)
{
    MM_ASSERT(dataset->sha256 && dataset->path && dataset->role);
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_run_must_exist(store, run_id, err));
    // The same content under another name is the same data; a count that was not known is filled
    // in.
    MM_GO(mm_db_run(store,
                    "INSERT INTO dataset (sha256, path, source, bytes, rows, tokens) "
                    "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (sha256) DO UPDATE SET "
                    "rows = iif(rows > 0, rows, excluded.rows), "
                    "tokens = iif(tokens > 0, tokens, excluded.tokens)",
                    MM_VALUES(mm_v_text(dataset->sha256), mm_v_text(dataset->path),
                              mm_v_text(dataset->source), mm_v_int(dataset->bytes),
                              mm_v_int(dataset->rows), mm_v_int(dataset->tokens)),
                    err));
    MM_GO(mm_db_run(
        store,
        "INSERT OR IGNORE INTO run_dataset (run_id, dataset_id, role) "
        "SELECT ?1, id, ?3 FROM dataset WHERE sha256 = ?2",
        MM_VALUES(mm_v_int(run_id), mm_v_text(dataset->sha256), mm_v_text(dataset->role)), err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_tokenizer_put(mm_store *store, const char *hash, const char *json,
                                 size_t json_bytes, const char *config, size_t config_bytes,
                                 mm_err *err)
{
    mm_status status = MM_OK;
    int64_t n_there = 0;
    MM_TRY(mm_db_int(store, &n_there, "SELECT count(*) FROM tokenizer WHERE hash = ?1",
                     MM_VALUES(mm_v_text(hash)), err));
    if (n_there > 0) return MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    MM_GO(mm_db_run(store,
                    "INSERT OR IGNORE INTO tokenizer (hash, json, config, created_ms) "
                    "VALUES (?1, ?2, ?3, ?4)",
                    MM_VALUES(mm_v_text(hash), mm_v_text_bytes(json, json_bytes),
                              config ? mm_v_text_bytes(config, config_bytes)
                                     : (mm_value){.type = MM_VALUE_NULL},
                              mm_v_int(mm_now_ms())),
                    err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_tokenizer_get(mm_store *store, const char *hash, mm_str *json, mm_str *config,
                                 mm_err *err)
{
    mm_str_clear(json);
    mm_str_clear(config);
    sqlite3_stmt *statement;
    MM_TRY(mm_db_query(store, &statement, "SELECT json, config FROM tokenizer WHERE hash = ?1",
                       MM_VALUES(mm_v_text(hash)), err));
    bool has_row;
    MM_TRY(mm_db_step(store, statement, &has_row, err));
    if (!has_row) {
        return MM_FAIL(err, MM_ENOTFOUND, "%s: there is no tokenizer %s", mm_store_path(store),
                       hash);
    }
    mm_str *const outs[2] = {json, config};
    for (int i = 0; i < 2; i++) {
        const void *text = sqlite3_column_text(statement, i);
        if (text) mm_str_add_bytes(outs[i], text, (size_t)sqlite3_column_bytes(statement, i));
    }
    mm_db_end(statement);
    MM_TRY(mm_str_check(json, err));
    return mm_str_check(config, err);
}

static mm_value int_or_null(bool is_known, int64_t value)
{
    return is_known ? mm_v_int(value) : (mm_value){.type = MM_VALUE_NULL};
}

mm_status mm_store_generation_add(mm_store *store, const mm_generation_row *row, mm_err *err)
{
    MM_ASSERT(row->is_correct >= -1 && row->is_correct <= 1);
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(mm_run_must_exist(store, row->run_id, err));
    // What has no right answer was not verified, whatever the field says.
    const bool is_verified = row->expected && row->is_correct >= 0;
    MM_GO(mm_db_run(
        store,
        "INSERT INTO generation (run_id, step, prompt_idx, prompt, text, tokens, finish_reason, "
        "temperature, top_p, top_k, seed, tokens_per_s, created_ms, task, expected, is_correct) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        MM_VALUES(mm_v_int(row->run_id), mm_v_int(row->step), mm_v_int(row->prompt_idx),
                  mm_v_text(row->prompt ? row->prompt : ""), mm_v_text(row->text ? row->text : ""),
                  mm_v_int(row->tokens), mm_v_text(row->finish_reason), mm_v_real(row->temperature),
                  mm_v_real(row->top_p), mm_v_int(row->top_k), mm_v_int((int64_t)row->seed),
                  mm_v_real(row->tokens_per_s),
                  mm_v_int(row->created_ms ? row->created_ms : mm_now_ms()), mm_v_text(row->task),
                  mm_v_text(row->expected), int_or_null(is_verified, row->is_correct)),
        err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

mm_status mm_store_result_add(mm_store *store, const mm_result *result, mm_err *err)
{
    MM_ASSERT(result->task && result->metric);
    mm_status status = MM_OK;
    MM_TRY(mm_db_begin(store, MM_SYNC_NORMAL, err));
    MM_GO(mm_run_must_exist(store, result->run_id, err));
    MM_GO(mm_db_run(
        store,
        "INSERT INTO result (run_id, step, task, metric, value, low, high, n, correct, "
        "data_sha256, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        MM_VALUES(mm_v_int(result->run_id), mm_v_int(result->step), mm_v_text(result->task),
                  mm_v_text(result->metric), mm_v_real(result->value), mm_v_real(result->low),
                  mm_v_real(result->high), mm_v_int(result->n),
                  int_or_null(result->correct >= 0, result->correct),
                  mm_v_text(result->data_sha256),
                  mm_v_int(result->created_ms ? result->created_ms : mm_now_ms())),
        err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}
