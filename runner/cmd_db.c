/* `mmrun db info|check|backup`: the database itself. */
#include "core/base/file.h"
#include "runner/commands.h"

#include <stdio.h>

static void fact(mm_table *table, const char *name, const char *value)
{
    mm_table_cell(table, "%s", name);
    mm_table_cell(table, "%s", value);
}

static void fact_count(mm_table *table, const char *name, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    fact(table, name, text);
}

static void fact_bytes(mm_table *table, const char *name, int64_t value)
{
    char text[MM_NUMBER_BYTES];
    mm_bytes_text((double)value, text);
    fact(table, name, text);
}

static void print_info_json(const mm_store *store, const mm_store_info *info)
{
    json_t *object = json_pack(
        "{s:{s:o, s:i, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "db", "path",
        mm_json_of_text(mm_store_path(store)), "schema_version", (int)info->schema_version,
        "sqlite_version", info->sqlite_version, "sqlite_has_wal_reset_bug",
        (int)info->sqlite_has_wal_reset_bug, "file_bytes", (json_int_t)info->file_bytes,
        "wal_bytes", (json_int_t)info->wal_bytes, "runs", (json_int_t)info->runs, "points",
        (json_int_t)info->points, "checkpoints", (json_int_t)info->checkpoints, "chunk_bytes",
        (json_int_t)info->chunk_bytes, "generations", (json_int_t)info->generations);
    mm_out_json(object);
    json_decref(object);
}

mm_status mm_cmd_db_info(const mm_context *context, const mm_args *args, mm_err *err)
{
    (void)args;
    static const char *const HEADERS[] = {"", ""};
    mm_store *store = NULL;
    mm_table *table = NULL;
    mm_store_info info;
    mm_status status = MM_OK;
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    MM_GO(mm_store_info_get(store, &info, err));
    if (context->json) {
        print_info_json(store, &info);
        goto done;
    }
    MM_GO(mm_table_new(&table, HEADERS, 2, err));
    fact(table, "path", mm_store_path(store));
    fact_count(table, "schema version", info.schema_version);
    fact_bytes(table, "size", info.file_bytes);
    if (info.wal_bytes > 0) fact_bytes(table, "write-ahead log", info.wal_bytes);
    fact_count(table, "runs", info.runs);
    fact_count(table, "metric points", info.points);
    fact_count(table, "checkpoints", info.checkpoints);
    fact_bytes(table, "checkpoint data", info.chunk_bytes);
    fact_count(table, "generations", info.generations);
    fact(table, "SQLite", info.sqlite_version);
    mm_table_print(table, context);
done:
    mm_store_close(store);
    return status;
}

typedef struct findings {
    json_t *list; // NULL: print each
    int64_t count;
} findings;

static void take_finding(void *context, const char *finding)
{
    findings *found = context;
    found->count++;
    if (found->list)
        json_array_append_new(found->list, mm_json_of_text(finding));
    else
        mm_out("%s\n", finding);
}

mm_status mm_cmd_db_check(const mm_context *context, const mm_args *args, mm_err *err)
{
    (void)args;
    mm_store *store = NULL;
    findings found = {.list = context->json ? json_array() : NULL};
    mm_status status = MM_OK;
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    status = mm_store_check(store, take_finding, &found, err);
    if (status != MM_OK && status != MM_ECORRUPT) goto done;
    if (context->json) {
        json_t *object =
            json_pack("{s:{s:o, s:b, s:O}}", "check", "path", mm_json_of_text(mm_store_path(store)),
                      "ok", status == MM_OK, "findings", found.list);
        mm_out_json(object);
        json_decref(object);
    } else if (status == MM_OK) {
        mm_out("%s: database and checkpoints are intact\n", mm_store_path(store));
    }
    if (status == MM_ECORRUPT)
        status = MM_FAIL(err, MM_ECORRUPT,
                         "%s: %lld finding%s\n"
                         "restore a copy made by `mmrun db backup`, or keep this one and start "
                         "another",
                         mm_store_path(store), (long long)found.count, found.count == 1 ? "" : "s");
done:
    json_decref(found.list);
    mm_store_close(store);
    return status;
}

mm_status mm_cmd_db_backup(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_status status = MM_OK;
    const char *path = mm_args_at(args, 0);
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    MM_GO(mm_store_backup(store, path, err));
    if (context->json) {
        json_t *object = json_pack("{s:{s:o}}", "backup", "path", mm_json_of_text(path));
        mm_out_json(object);
        json_decref(object);
    } else {
        mm_out("%s\n", path);
    }
done:
    mm_store_close(store);
    return status;
}
