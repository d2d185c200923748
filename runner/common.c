/* What several commands share: opening the database and tokenizers, reading input, runs as JSON. */
#include "core/base/file.h"
#include "runner/commands.h"
#include "runner/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

mm_status mm_context_store(const mm_context *context, mm_store_mode mode, mm_store **out,
                           mm_err *err)
{
    *out = NULL;
    if (mode != MM_STORE_CREATE && !mm_file_exists(context->db_path))
        return MM_FAIL(err, MM_ENOTFOUND,
                       "there is no database at %s\n"
                       "`mmrun demo` or `mmrun pretrain` makes one; --db PATH names another",
                       context->db_path);
    return mm_store_open(out, context->db_path, mode, err);
}

mm_status mm_context_store_to_record(const mm_context *context, mm_store **out, bool *records,
                                     mm_err *err)
{
    mm_err refused = {0};
    *records = mm_context_store(context, MM_STORE_WRITE, out, &refused) == MM_OK;
    if (*records) return MM_OK;
    MM_TRY(mm_context_store(context, MM_STORE_READ, out, err));
    mm_warn(context, "Nothing will be recorded: %s", refused.message);
    return MM_OK;
}

mm_status mm_context_tokenizer(const mm_context *context, const char *text, mm_tokenizer **out,
                               mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    mm_param *params = NULL;
    size_t n_params = 0;
    mm_run_ref ref;
    mm_status status = MM_OK;
    *out = NULL;
    if (mm_file_exists(text)) return mm_tokenizer_load(out, text, err);
    if (!mm_file_exists(context->db_path))
        return MM_FAIL(err, MM_ENOTFOUND,
                       "there is no tokenizer at %s\n"
                       "a tokenizer.json, a folder that holds one, or a RUN is expected",
                       text);
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    status = mm_store_resolve(store, text, &ref, err);
    if (status != MM_OK) {
        mm_err_context(err, "'%s' is no file, and as a run", text);
        goto done;
    }
    MM_GO(mm_store_params(store, ref.run_id, &arena, &params, &n_params, err));
    const char *hash = mm_param_find(params, n_params, "tokenizer_hash");
    if (!hash) {
        status = MM_FAIL(err, MM_ENOTFOUND, "run '%s' has no tokenizer on record", text);
        goto done;
    }
    MM_GO(mm_load_tokenizer(out, store, hash, err));
done:
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}

mm_status mm_store_resolve_run(mm_store *store, const char *text, int64_t *run_id, mm_err *err)
{
    mm_run_ref ref;
    MM_TRY(mm_store_resolve(store, text, &ref, err));
    if (ref.has_at)
        return MM_FAIL(err, MM_EUSAGE, "a run is expected here, not one of its checkpoints: '%s'",
                       text);
    *run_id = ref.run_id;
    return MM_OK;
}

mm_status mm_input_read(const char *path, size_t limit, char **data, size_t *bytes, mm_err *err)
{
    if (strcmp(path, "-") != 0) return mm_file_read(path, limit, data, bytes, err);
    mm_str text = {.limit = limit};
    char buffer[65536];
    mm_status status = MM_OK;
    while (true) {
        const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            status = MM_FAIL_ERRNO(err, "cannot read standard input");
            break;
        }
        if (n == 0) break;
        mm_str_add_bytes(&text, buffer, (size_t)n);
    }
    if (status == MM_OK) status = mm_str_take(&text, data, bytes, err);
    mm_str_drop(&text);
    return status;
}

static mm_status each_message(const mm_conversation *chat, mm_text_fn each, void *context,
                              mm_err *err)
{
    for (size_t i = 0; i < chat->count; i++) {
        const mm_message *message = &chat->messages[i];
        if (message->reasoning_content)
            MM_TRY(
                each(context, message->reasoning_content, strlen(message->reasoning_content), err));
        MM_TRY(each(context, message->content, strlen(message->content), err));
    }
    return MM_OK;
}

mm_status mm_input_texts(const char *path, int64_t limit, mm_text_fn each, void *context,
                         mm_row_report *report, mm_err *err)
{
    mm_row_reader *reader = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, err));
    for (int64_t i = 0; limit == 0 || i < limit; i++) {
        const mm_row *row = NULL;
        MM_GO(mm_row_reader_next(reader, &row, err));
        if (!row) break;
        if (row->kind == MM_ROW_TEXT)
            MM_GO(each(context, row->text, row->text_bytes, err));
        else
            MM_GO(each_message(&row->chat, each, context, err));
        if (row->kind == MM_ROW_PAIR) MM_GO(each_message(&row->rejected, each, context, err));
    }
    *report = *mm_row_reader_report(reader);
done:
    mm_row_reader_close(reader);
    return status;
}

static json_t *json_of_id(int64_t id) { return id > 0 ? json_integer(id) : json_null(); }

static json_t *json_of_tags(const char *tags)
{
    json_t *list = json_array();
    const char *at = tags ? tags : "";
    while (*at) {
        const size_t length = strcspn(at, ",");
        json_array_append_new(list, json_stringn(at, length));
        at += length + (at[length] == ',');
    }
    return list;
}

json_t *mm_json_of_run(const mm_run_info *run)
{
    json_t *object = json_object();
    json_object_set_new(object, "id", json_integer(run->id));
    json_object_set_new(object, "name", mm_json_of_text(run->name));
    json_object_set_new(object, "stage", mm_json_of_text(run->stage));
    json_object_set_new(object, "status", mm_json_of_text(run->status));
    json_object_set_new(object, "tags", json_of_tags(run->tags));
    json_object_set_new(object, "parent_id", json_of_id(run->parent_id));
    json_object_set_new(object, "parent_step",
                        run->parent_step >= 0 ? json_integer(run->parent_step) : json_null());
    json_object_set_new(object, "sweep_id", json_of_id(run->sweep_id));
    json_object_set_new(object, "seed", json_integer((json_int_t)run->seed));
    json_object_set_new(object, "device", mm_json_of_text(run->device));
    json_object_set_new(object, "dtype", mm_json_of_text(run->dtype));
    json_object_set_new(object, "params_total", json_integer(run->params_total));
    json_object_set_new(object, "params_trainable", json_integer(run->params_trainable));
    json_object_set_new(object, "steps", json_integer(run->steps));
    json_object_set_new(object, "steps_planned", json_integer(run->steps_planned));
    json_object_set_new(object, "tokens", json_integer(run->tokens));
    json_object_set_new(object, "final_loss", mm_json_of_real(run->final_loss));
    json_object_set_new(object, "best_val_loss", mm_json_of_real(run->best_val_loss));
    json_object_set_new(object, "tokens_per_s", mm_json_of_real(run->tokens_per_s));
    json_object_set_new(object, "created_at", mm_json_of_time(run->created_ms));
    json_object_set_new(object, "started_at", mm_json_of_time(run->started_ms));
    json_object_set_new(object, "ended_at", mm_json_of_time(run->ended_ms));
    json_object_set_new(object, "duration_s", mm_json_of_real(run->duration_s));
    json_object_set_new(object, "error", mm_json_of_text(run->error));
    json_object_set_new(object, "command", mm_json_of_text(run->command));
    json_object_set_new(object, "host", mm_json_of_text(run->host));
    json_object_set_new(object, "version", mm_json_of_text(run->version));
    json_object_set_new(object, "git_commit", mm_json_of_text(run->git_commit));
    json_object_set_new(object, "notes", mm_json_of_text(run->notes));
    return object;
}

mm_color mm_status_color(const char *status)
{
    static const struct {
        const char *status;
        mm_color color;
    } COLORS[] = {{"finished", MM_COLOR_GREEN}, {"running", MM_COLOR_CYAN},
                  {"queued", MM_COLOR_DIM},     {"stopped", MM_COLOR_YELLOW},
                  {"pruned", MM_COLOR_DIM},     {"failed", MM_COLOR_RED},
                  {"killed", MM_COLOR_RED}};
    for (size_t i = 0; status && i < sizeof COLORS / sizeof COLORS[0]; i++)
        if (strcmp(status, COLORS[i].status) == 0) return COLORS[i].color;
    return MM_COLOR_NONE;
}

void mm_age_text(int64_t since_ms, int64_t now_ms, char out[MM_NUMBER_BYTES])
{
    const long long s = since_ms > 0 && now_ms > since_ms ? (now_ms - since_ms) / 1000 : 0;
    if (s < 60)
        snprintf(out, MM_NUMBER_BYTES, "%llds", s);
    else if (s < 3600)
        snprintf(out, MM_NUMBER_BYTES, "%lldm", s / 60);
    else if (s < 48LL * 3600)
        snprintf(out, MM_NUMBER_BYTES, "%lldh", s / 3600);
    else
        snprintf(out, MM_NUMBER_BYTES, "%lldd", s / 86400);
}
