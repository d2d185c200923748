/* `mmrun tag`, `note`, `rename`, `rm`: small changes to the record of a run. */
#include "runner/commands.h"

const mm_option mm_tag_options[] = {
    {.name = "remove", .aliases = "d", .help = "take the tags off"},
    {0},
};

const mm_option mm_rm_options[] = {
    {.name = "dry-run", .help = "only say what would be deleted"},
    {.name = "force", .aliases = "f", .help = "also runs that other runs started from"},
    {0},
};

/* Opens the database, finds the run that the first argument names, and changes it. */
static mm_status change_run(const mm_context *context, const mm_args *args,
                            mm_status (*change)(mm_store *, int64_t, const mm_args *, mm_err *),
                            mm_err *err)
{
    mm_store *store = NULL;
    int64_t run_id = 0;
    mm_status status = MM_OK;
    MM_GO(mm_context_store(context, MM_STORE_WRITE, &store, err));
    MM_GO(mm_store_resolve_run(store, mm_args_at(args, 0), &run_id, err));
    MM_GO(change(store, run_id, args, err));
done:
    mm_store_close(store);
    return status;
}

static mm_status tag(mm_store *store, int64_t run_id, const mm_args *args, mm_err *err)
{
    const bool remove = mm_args_has(args, "remove");
    for (size_t i = 1; i < mm_args_count(args); i++)
        MM_TRY(mm_store_run_tag(store, run_id, mm_args_at(args, i), remove, err));
    return MM_OK;
}

static mm_status note(mm_store *store, int64_t run_id, const mm_args *args, mm_err *err)
{
    return mm_store_run_note(store, run_id, mm_args_at(args, 1), err);
}

static mm_status rename_to(mm_store *store, int64_t run_id, const mm_args *args, mm_err *err)
{
    return mm_store_run_rename(store, run_id, mm_args_at(args, 1), err);
}

mm_status mm_cmd_tag(const mm_context *context, const mm_args *args, mm_err *err)
{
    return change_run(context, args, tag, err);
}

mm_status mm_cmd_note(const mm_context *context, const mm_args *args, mm_err *err)
{
    return change_run(context, args, note, err);
}

mm_status mm_cmd_rename(const mm_context *context, const mm_args *args, mm_err *err)
{
    return change_run(context, args, rename_to, err);
}

static bool is_listed(const int64_t *ids, size_t count, int64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id) return true;
    return false;
}

/* A run that stays must not lose the one it started from. */
static mm_status check_children(mm_store *store, const int64_t *ids, size_t count, mm_arena *arena,
                                mm_err *err)
{
    mm_run_info *runs = NULL;
    size_t n_runs = 0;
    MM_TRY(mm_store_runs(store, &(mm_run_filter){0}, arena, &runs, &n_runs, err));
    for (size_t i = 0; i < n_runs; i++)
        if (is_listed(ids, count, runs[i].parent_id) && !is_listed(ids, count, runs[i].id))
            return MM_FAIL(err, MM_EUSAGE,
                           "run %lld is what '%s' started from; nothing was deleted\n"
                           "--force deletes it all the same",
                           (long long)runs[i].parent_id, runs[i].name);
    return MM_OK;
}

static mm_status remove_one(const mm_context *context, mm_store *store, int64_t run_id, bool is_dry,
                            mm_err *err)
{
    mm_arena arena = {0};
    mm_run_info run;
    mm_checkpoint_info *checkpoints = NULL;
    size_t count = 0;
    int64_t stored = 0;
    char size[MM_NUMBER_BYTES];
    mm_status status = MM_OK;
    MM_GO(mm_store_run(store, run_id, &arena, &run, err));
    MM_GO(mm_checkpoint_list(store, run_id, &arena, &checkpoints, &count, err));
    for (size_t i = 0; i < count; i++)
        stored += checkpoints[i].stored_bytes;
    mm_bytes_text((double)stored, size);
    if (!is_dry) MM_GO(mm_store_run_remove(store, run_id, err));
    mm_say(context, "%s %s (run %lld, %zu checkpoint%s, %s)", is_dry ? "would delete" : "deleted",
           run.name, (long long)run.id, count, count == 1 ? "" : "s", size);
done:
    mm_arena_drop(&arena);
    return status;
}

mm_status mm_cmd_rm(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    const size_t count = mm_args_count(args);
    const bool is_dry = mm_args_has(args, "dry-run");
    mm_status status = MM_OK;
    int64_t *ids = mm_arena_alloc(&arena, count * sizeof *ids);
    if (!ids) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    MM_GO(mm_context_store(context, is_dry ? MM_STORE_READ : MM_STORE_WRITE, &store, err));
    // All names are looked up before the first run goes: a misspelt one deletes nothing.
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t id = 0;
        MM_GO(mm_store_resolve_run(store, mm_args_at(args, i), &id, err));
        if (!is_listed(ids, n, id)) ids[n++] = id;
    }
    if (!mm_args_has(args, "force")) MM_GO(check_children(store, ids, n, &arena, err));
    for (size_t i = 0; i < n; i++)
        MM_GO(remove_one(context, store, ids[i], is_dry, err));
done:
    mm_store_close(store);
    mm_arena_drop(&arena);
    return status;
}
