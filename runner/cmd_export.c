/* `mmrun export`: a run's model as a Hugging Face folder, its adapters as one of peft's, or its
 * metrics as CSV or JSON lines. */
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/hf.h"
#include "core/io/peft.h"
#include "runner/commands.h"
#include "runner/load.h"

#include <math.h>
#include <string.h>

const mm_option mm_export_options[] = {
    {.name = "out",
     .aliases = "o,output",
     .type = MM_OPTION_PATH,
     .value = "PATH",
     .help = "folder of the model, or file of the metrics (metrics: standard output)"},
    {.name = "format",
     .aliases = "f",
     .type = MM_OPTION_CHOICE,
     .value = "FORMAT",
     .choices = "hf,peft,gguf,csv,jsonl",
     .help = "hf (default) is the model, adapters merged into it; peft the adapters alone"},
    {.name = "base",
     .type = MM_OPTION_TEXT,
     .value = "PATH",
     .help = "peft: where the settings say the base is (the name of its run)"},
    {.name = "metric",
     .type = MM_OPTION_TEXT,
     .value = "NAME",
     .help = "only this metric",
     .repeats = true},
    {.name = "overwrite", .help = "write into a folder that is not empty"},
    {0},
};

/* ---- the model ---------------------------------------------------------------------------------
 */

static mm_status provenance_json(const mm_loaded *loaded, mm_store *store, mm_str *out, mm_err *err)
{
    mm_arena arena = {0};
    mm_param *params = NULL;
    size_t n_params = 0;
    mm_status status = MM_OK;
    json_t *object = NULL;
    MM_GO(mm_store_params(store, loaded->run.id, &arena, &params, &n_params, err));
    object = json_object();
    json_object_set_new(object, "run", mm_json_of_run(&loaded->run));
    // The machine that trained a model is nobody else's business.
    json_t *run = json_object_get(object, "run");
    json_object_del(run, "host");
    json_object_del(run, "command");
    json_object_set_new(object, "step", json_integer(loaded->checkpoint.step));
    json_object_set_new(object, "checkpoint_sha256", mm_json_of_text(loaded->checkpoint.sha256));
    json_t *values = json_object();
    for (size_t i = 0; i < n_params; i++)
        json_object_set_new(values, params[i].name, mm_json_of_text(params[i].value));
    json_object_set_new(object, "params", values);
    mm_json_write(object, out);
    mm_str_add_char(out, '\n');
    status = mm_str_check(out, err);
done:
    json_decref(object);
    mm_arena_drop(&arena);
    return status;
}

static void say_folder(const mm_context *context, const mm_loaded *loaded, const char *dir,
                       const char *format)
{
    if (context->json) {
        json_t *object = json_pack(
            "{s:{s:o, s:s, s:I, s:I}}", "export", "path", mm_json_of_text(dir), "format", format,
            "run_id", (json_int_t)loaded->run.id, "step", (json_int_t)loaded->checkpoint.step);
        mm_out_json(object);
        json_decref(object);
    } else {
        mm_out("%s\n", dir);
    }
}

static mm_status export_model(const mm_context *context, const mm_args *args, mm_store *store,
                              mm_err *err)
{
    mm_loaded loaded = {0};
    mm_str json = {0};
    mm_status status = MM_OK;
    const char *dir = mm_args_text(args, "out");
    if (!dir) return MM_FAIL(err, MM_EUSAGE, "--format hf needs a folder\nadd -o DIR");
    MM_GO(mm_load_merged(&loaded, store, mm_args_at(args, 0), err));
    MM_GO(provenance_json(&loaded, store, &json, err));
    const mm_hf_provenance provenance = {.run_name = loaded.run.name, .json = mm_str_text(&json)};
    MM_GO(mm_hf_export(dir, loaded.model, loaded.tokenizer, &provenance,
                       mm_args_has(args, "overwrite"), err));
    mm_say(context, "%s at step %lld, %lld parameters, for AutoModelForCausalLM.from_pretrained",
           loaded.run.name, (long long)loaded.checkpoint.step,
           (long long)mm_model_config_params(mm_model_config_of(loaded.model)));
    say_folder(context, &loaded, dir, "hf");
done:
    mm_str_drop(&json);
    mm_loaded_drop(&loaded);
    return status;
}

/* ---- the adapters ------------------------------------------------------------------------------
 */

static mm_status export_adapters(const mm_context *context, const mm_args *args, mm_store *store,
                                 mm_err *err)
{
    mm_loaded loaded = {0};
    mm_run_info parent = {0};
    mm_status status = MM_OK;
    const char *dir = mm_args_text(args, "out");
    const char *base = mm_args_text(args, "base");
    if (!dir) return MM_FAIL(err, MM_EUSAGE, "--format peft needs a folder\nadd -o DIR");
    MM_GO(mm_load_run(&loaded, store, mm_args_at(args, 0), err));
    const mm_model_config *shape = mm_model_config_of(loaded.model);
    if (shape->lora_rank == 0) {
        status = MM_FAIL(err, MM_EUSAGE,
                         "run '%s' is a %s run without adapters\nexport it with --format hf",
                         loaded.run.name, loaded.run.stage);
        goto done;
    }
    if (!base && loaded.run.parent_id > 0)
        MM_GO(mm_store_run(store, loaded.run.parent_id, &loaded.arena, &parent, err));
    if (!base) base = parent.name ? parent.name : "";
    MM_GO(mm_peft_export(dir, loaded.model, base, mm_args_has(args, "overwrite"), err));
    mm_say(context, "%s at step %lld, %lld parameters, for PeftModel.from_pretrained",
           loaded.run.name, (long long)loaded.checkpoint.step,
           (long long)mm_model_config_trainable(shape));
    say_folder(context, &loaded, dir, "peft");
done:
    mm_loaded_drop(&loaded);
    return status;
}

/* ---- the metrics -------------------------------------------------------------------------------
 */

/* Where the lines go: standard output, or a file that appears when it is complete. */
typedef struct sink {
    bool is_csv;
    bool is_file;
    mm_file_writer writer;
    mm_str buffer;
} sink;

enum { SINK_FLUSH_BYTES = 1 << 16 };

static mm_status sink_flush(sink *s, mm_err *err)
{
    mm_status status = mm_str_check(&s->buffer, err);
    if (status == MM_OK && s->is_file)
        status = mm_file_writer_write(&s->writer, mm_str_text(&s->buffer), s->buffer.length, err);
    else if (status == MM_OK)
        mm_out_text(&s->buffer);
    mm_str_clear(&s->buffer);
    return status;
}

/* RFC 4180: a field with a comma, quote or line break is quoted. */
static void add_csv_text(mm_str *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        mm_str_add(out, text);
        return;
    }
    mm_str_add_char(out, '"');
    for (; *text; text++) {
        if (*text == '"') mm_str_add_char(out, '"');
        mm_str_add_char(out, *text);
    }
    mm_str_add_char(out, '"');
}

static void add_point(sink *s, const mm_run_info *run, const char *name, const mm_bucket *point)
{
    mm_str *out = &s->buffer;
    char time[MM_TIME_ISO_BYTES];
    const int64_t start = run->started_ms > 0 ? run->started_ms : run->created_ms;
    mm_time_iso(start + point->time_ms, time);
    // A point without a finite value comes back as NaN: it was there, and it was no number.
    const double value = point->n > 0 ? point->mean : (double)NAN;
    if (s->is_csv) {
        add_csv_text(out, run->name);
        mm_str_addf(out, ",%lld,", (long long)point->step_first);
        add_csv_text(out, name);
        mm_str_add_char(out, ',');
        if (isnan(value))
            mm_str_add(out, "NaN");
        else
            mm_json_add_number(out, value);
        mm_str_addf(out, ",%s\n", time);
    } else {
        mm_str_add(out, "{\"run\":");
        mm_json_add_string(out, run->name, strlen(run->name));
        mm_str_addf(out, ",\"step\":%lld,\"name\":", (long long)point->step_first);
        mm_json_add_string(out, name, strlen(name));
        mm_str_add(out, ",\"value\":");
        mm_json_add_number(out, value);
        mm_str_addf(out, ",\"time\":\"%s\"}\n", time);
    }
}

static bool is_wanted(const mm_args *args, const char *name)
{
    size_t count;
    const char *const *names = mm_args_list(args, "metric", &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return count == 0;
}

static mm_status export_series(mm_store *store, const mm_run_info *run,
                               const mm_series_info *series, sink *s, mm_err *err)
{
    mm_arena arena = {0};
    mm_bucket *points = NULL;
    size_t count = 0;
    mm_status status = MM_OK;
    // As many buckets as there are steps: every bucket is one raw point.
    const size_t steps = (size_t)(series->last_step - series->first_step) + 1;
    const size_t buckets = steps > (size_t)series->n ? steps : (size_t)series->n;
    MM_GO(mm_store_curve(store, run->id, series->name, buckets, &arena, &points, &count, err));
    for (size_t i = 0; i < count; i++) {
        add_point(s, run, series->name, &points[i]);
        if (s->buffer.length > SINK_FLUSH_BYTES) MM_GO(sink_flush(s, err));
        if (!s->is_file && mm_out_failed()) break;
    }
done:
    mm_arena_drop(&arena);
    return status;
}

static mm_status export_metrics(const mm_context *context, const mm_args *args, mm_store *store,
                                bool is_csv, mm_err *err)
{
    mm_arena arena = {0};
    mm_run_info run;
    mm_series_info *series = NULL;
    size_t count = 0;
    int64_t run_id = 0;
    const char *path = mm_args_text(args, "out");
    sink s = {.is_csv = is_csv, .is_file = path && strcmp(path, "-") != 0};
    mm_status status = MM_OK;
    MM_GO(mm_store_resolve_run(store, mm_args_at(args, 0), &run_id, err));
    MM_GO(mm_store_run(store, run_id, &arena, &run, err));
    MM_GO(mm_store_series(store, run_id, &arena, &series, &count, err));
    if (s.is_file) MM_GO(mm_file_writer_open(&s.writer, path, err));
    if (is_csv) mm_str_add(&s.buffer, "run,step,name,value,time\n");
    for (size_t i = 0; i < count; i++)
        if (is_wanted(args, series[i].name)) MM_GO(export_series(store, &run, &series[i], &s, err));
    MM_GO(sink_flush(&s, err));
    if (s.is_file) {
        MM_GO(mm_file_writer_commit(&s.writer, err));
        if (context->json) {
            json_t *object =
                json_pack("{s:{s:o, s:s, s:I}}", "export", "path", mm_json_of_text(path), "format",
                          is_csv ? "csv" : "jsonl", "run_id", (json_int_t)run_id);
            mm_out_json(object);
            json_decref(object);
        } else {
            mm_out("%s\n", path);
        }
    }
done:
    mm_file_writer_drop(&s.writer);
    mm_str_drop(&s.buffer);
    mm_arena_drop(&arena);
    return status;
}

mm_status mm_cmd_export(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_status status = MM_OK;
    const char *format = mm_args_text(args, "format");
    if (!format) format = "hf";
    if (strcmp(format, "gguf") == 0)
        return MM_FAIL(err, MM_EUSAGE,
                       "--format gguf is not there yet\n"
                       "export --format hf, and convert the folder with llama.cpp's tools");
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    if (strcmp(format, "hf") == 0)
        MM_GO(export_model(context, args, store, err));
    else if (strcmp(format, "peft") == 0)
        MM_GO(export_adapters(context, args, store, err));
    else
        MM_GO(export_metrics(context, args, store, strcmp(format, "csv") == 0, err));
done:
    mm_store_close(store);
    return status;
}
