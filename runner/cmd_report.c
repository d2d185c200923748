/* `mmrun report`: one HTML page about one run or several. */
#include "core/base/file.h"
#include "report/report.h"
#include "runner/commands.h"
#include "runner/train.h"

#include <string.h>
#include <sys/stat.h>

const mm_option mm_report_options_table[] = {
    {.name = "out",
     .aliases = "o,output",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .help = "where to write the page (./report.html); - is stdout"},
    {.name = "sweep",
     .type = MM_OPTION_TEXT,
     .value = "SWEEP",
     .help = "all runs of a sweep (id, name or `last`)"},
    {.name = "all", .help = "every run of the database"},
    {.name = "title", .type = MM_OPTION_TEXT, .value = "TEXT", .help = "title of the page"},
    {.name = "host", .help = "also show host name and absolute paths"},
    {0},
};

enum { LATEST_RUNS = 20 };

typedef struct choice {
    int64_t *ids;
    size_t count;
    int64_t sweep_id;
} choice;

static mm_status take_runs(const mm_run_info *runs, size_t count, mm_arena *arena, choice *out,
                           mm_err *err)
{
    out->ids = mm_arena_alloc(arena, (count + 1) * sizeof *out->ids);
    if (!out->ids) return MM_FAIL(err, MM_ENOMEM, "out of memory for the report");
    for (size_t i = 0; i < count; i++)
        out->ids[i] = runs[i].id;
    out->count = count;
    return MM_OK;
}

static mm_status choose_by_filter(mm_store *store, const mm_run_filter *filter, mm_arena *arena,
                                  choice *out, mm_err *err)
{
    mm_run_info *runs = NULL;
    size_t count = 0;
    MM_TRY(mm_store_runs(store, filter, arena, &runs, &count, err));
    out->sweep_id = filter->sweep_id;
    return take_runs(runs, count, arena, out, err);
}

/* What a person most likely means: the sweep that the newest run belongs to, else what was trained
 * last. */
static mm_status choose_latest(mm_store *store, mm_arena *arena, choice *out, mm_err *err)
{
    mm_run_info *newest = NULL;
    size_t count = 0;
    MM_TRY(mm_store_runs(store, &(mm_run_filter){.limit = 1}, arena, &newest, &count, err));
    const mm_run_filter filter = count > 0 && newest[0].sweep_id > 0
                                     ? (mm_run_filter){.sweep_id = newest[0].sweep_id}
                                     : (mm_run_filter){.limit = LATEST_RUNS};
    return choose_by_filter(store, &filter, arena, out, err);
}

static mm_status choose(mm_store *store, const mm_args *args, mm_arena *arena, choice *out,
                        mm_err *err)
{
    const char *sweep = mm_args_text(args, "sweep");
    const size_t n_named = mm_args_count(args);
    if ((sweep != NULL) + mm_args_has(args, "all") + (n_named > 0) > 1)
        return MM_FAIL(err, MM_EUSAGE, "give runs, --sweep or --all, not several of them");
    if (sweep) {
        mm_sweep found;
        MM_TRY(mm_store_sweep(store, sweep, arena, &found, err));
        return choose_by_filter(store, &(mm_run_filter){.sweep_id = found.id}, arena, out, err);
    }
    if (mm_args_has(args, "all"))
        return choose_by_filter(store, &(mm_run_filter){0}, arena, out, err);
    if (n_named == 0) return choose_latest(store, arena, out, err);
    out->ids = mm_arena_alloc(arena, n_named * sizeof *out->ids);
    if (!out->ids) return MM_FAIL(err, MM_ENOMEM, "out of memory for the report");
    for (size_t i = 0; i < n_named; i++) {
        int64_t id = 0;
        MM_TRY(mm_store_resolve_run(store, mm_args_at(args, i), &id, err));
        bool is_twice = false;
        for (size_t k = 0; k < out->count; k++)
            is_twice |= out->ids[k] == id;
        if (!is_twice) out->ids[out->count++] = id;
    }
    return MM_OK;
}

mm_status mm_cmd_report(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    mm_str command = {0};
    choice chosen = {0};
    mm_status status = MM_OK;
    const char *path = mm_args_text(args, "out");
    if (!path) path = "report.html";
    if (mm_file_is_dir(path))
        return MM_FAIL(err, MM_EUSAGE, "-o %s: is a folder; a file is expected", path);
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    MM_GO(choose(store, args, &arena, &chosen, err));
    if (chosen.count == 0) {
        status =
            MM_FAIL(err, MM_ENOTFOUND, "there is no run to report on\nstart with `mmrun demo`");
        goto done;
    }
    MM_GO(mm_command_text(context, &command, err));
    const mm_report_options options = {.run_ids = chosen.ids,
                                       .n_runs = chosen.count,
                                       .sweep_id = chosen.sweep_id,
                                       .title = mm_args_text(args, "title"),
                                       .command = mm_str_text(&command),
                                       .include_host = mm_args_has(args, "host")};
    if (strcmp(path, "-") == 0) {
        mm_str page = {0};
        status = mm_report_html(store, &options, &page, err);
        if (status == MM_OK) mm_out_text(&page);
        mm_str_drop(&page);
        goto done;
    }
    MM_GO(mm_report_write(store, &options, path, err));
    if (context->json) {
        struct stat info = {0};
        (void)stat(path, &info);
        json_t *object =
            json_pack("{s:{s:o, s:I, s:I}}", "report", "path", mm_json_of_text(path), "runs",
                      (json_int_t)chosen.count, "bytes", (json_int_t)info.st_size);
        mm_out_json(object);
        json_decref(object);
    } else {
        mm_out("%s\n", path);
    }
done:
    mm_str_drop(&command);
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}
