/* Families of runs: collecting them by their links, and their order as a tree. See family.h. */
#include "store/family.h"

#include "store/claim.h"
#include "store/db.h"

#include <string.h>

typedef struct collection {
    mm_store *store;
    mm_arena *arena;
    mm_family_run *runs; /* MM_FAMILY_RUNS_MAX */
    int64_t *teacher_ids;
    size_t count;
    size_t n_left_out;
} collection;

static size_t index_of(const collection *all, int64_t id)
{
    for (size_t i = 0; i < all->count; i++) {
        if (all->runs[i].info.id == id) return i;
    }
    return MM_FAMILY_NONE;
}

// Once each; a run that is gone is no failure.
static mm_status add_run(collection *all, int64_t id, mm_err *err)
{
    if (id <= 0 || index_of(all, id) != MM_FAMILY_NONE) return MM_OK;
    int64_t n = 0;
    MM_TRY(mm_db_int(all->store, &n, "SELECT count(*) FROM run WHERE id = ?1",
                     MM_VALUES(mm_v_int(id)), err));
    if (n == 0) return MM_OK;
    if (all->count == MM_FAMILY_RUNS_MAX) {
        all->n_left_out++;
        return MM_OK;
    }
    mm_family_run *run = &all->runs[all->count];
    *run = (mm_family_run){
        .parent = MM_FAMILY_NONE, .teacher = MM_FAMILY_NONE, .teacher_step = -1, .step = -1};
    MM_TRY(mm_store_run(all->store, id, all->arena, &run->info, err));
    all->count++;
    return MM_OK;
}

static void read_checkpoint(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    *(mm_checkpoint_info *)item = (mm_checkpoint_info){
        .sha256 = mm_db_text(s, 0, arena),
        .step = sqlite3_column_int64(s, 1),
        .own_bytes = sqlite3_column_int64(s, 2),
    };
}

// The newest, or the one at a step; of two at one step the full one. *found says whether there is.
static mm_status find_checkpoint(const collection *all, int64_t run_id, int64_t step,
                                 mm_checkpoint_info *out, bool *found, mm_err *err)
{
    mm_rows rows = {.arena = all->arena, .item_bytes = sizeof *out};
    MM_TRY(mm_rows_read(all->store,
                        "SELECT sha256, step, own_bytes FROM checkpoint WHERE run_id = ?1 "
                        "AND state = 'complete' AND (?2 < 0 OR step = ?2) "
                        "ORDER BY step DESC, kind = 'full' DESC, id DESC LIMIT 1",
                        MM_VALUES(mm_v_int(run_id), mm_v_int(step)), read_checkpoint, &rows, err));
    *found = rows.count == 1;
    if (*found) *out = *(const mm_checkpoint_info *)rows.items;
    return MM_OK;
}

static const char *param_of(const mm_param *params, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(params[i].name, name) == 0) return params[i].value;
    }
    return NULL;
}

// -1 where the text is no step.
static int64_t step_of(const char *text)
{
    int64_t step = 0;
    size_t n_digits = 0;
    for (; text && text[n_digits] >= '0' && text[n_digits] <= '9' && n_digits < 18; n_digits++) {
        step = 10 * step + (text[n_digits] - '0');
    }
    return n_digits > 0 && text[n_digits] == '\0' ? step : -1;
}

// The run that the parameter `teacher` names, as an id or a name; 0 where it is gone.
static mm_status find_teacher(const collection *all, const mm_param *params, size_t n_params,
                              mm_family_run *run, int64_t *id, mm_err *err)
{
    *id = 0;
    const char *text = param_of(params, n_params, "teacher");
    if (!text || !*text) return MM_OK;
    mm_run_ref ref;
    const mm_status status = mm_store_resolve(all->store, text, &ref, NULL);
    if (status == MM_ENOTFOUND || status == MM_EUSAGE) return MM_OK;
    if (status != MM_OK) return MM_FAIL(err, status, "cannot look for the teacher '%s'", text);
    *id = ref.run_id;
    run->teacher_step = step_of(param_of(params, n_params, "teacher_step"));
    if (run->teacher_step < 0 && ref.at == MM_AT_STEP) run->teacher_step = ref.step;
    return MM_OK;
}

static mm_status read_details(collection *all, size_t index, mm_err *err)
{
    mm_family_run *run = &all->runs[index];
    mm_store *store = all->store;
    const int64_t id = run->info.id;
    mm_param *params;
    size_t n_params;
    bool found;
    mm_checkpoint_info checkpoint;
    MM_TRY(mm_store_datasets(store, id, all->arena, &run->datasets, &run->n_datasets, err));
    MM_TRY(mm_store_params(store, id, all->arena, &params, &n_params, err));
    run->tokenizer = param_of(params, n_params, "tokenizer_hash");
    for (size_t i = 0; i < run->n_datasets && !run->tokenizer; i++) {
        const char *role = run->datasets[i].role;
        if (role && strcmp(role, "tokenizer") == 0) run->tokenizer = run->datasets[i].sha256;
    }
    MM_TRY(find_checkpoint(all, id, -1, &checkpoint, &found, err));
    if (found) {
        run->sha256 = checkpoint.sha256;
        run->step = checkpoint.step;
        run->own_bytes = checkpoint.own_bytes;
    }
    if (run->info.parent_id > 0 && run->info.parent_step >= 0) {
        MM_TRY(find_checkpoint(all, run->info.parent_id, run->info.parent_step, &checkpoint, &found,
                               err));
        if (found) run->from_sha256 = checkpoint.sha256;
    }
    return find_teacher(all, params, n_params, run, &all->teacher_ids[index], err);
}

static void read_id(sqlite3_stmt *s, void *item, mm_arena *arena)
{
    (void)arena;
    *(int64_t *)item = sqlite3_column_int64(s, 0);
}

static mm_status add_children(collection *all, int64_t id, mm_err *err)
{
    mm_rows rows = {.arena = all->arena, .item_bytes = sizeof(int64_t)};
    MM_TRY(mm_rows_read(all->store, "SELECT id FROM run WHERE parent_id = ?1 ORDER BY id",
                        MM_VALUES(mm_v_int(id)), read_id, &rows, err));
    for (size_t i = 0; i < rows.count; i++) {
        MM_TRY(add_run(all, ((const int64_t *)rows.items)[i], err));
    }
    return MM_OK;
}

// First the runs asked for and what came of them, then what all of those came from.
static mm_status collect(collection *all, const int64_t *run_ids, size_t n_runs,
                         bool with_descendants, mm_err *err)
{
    for (size_t i = 0; i < n_runs; i++) {
        MM_TRY(mm_run_must_exist(all->store, run_ids[i], err));
        MM_TRY(add_run(all, run_ids[i], err));
    }
    for (size_t i = 0; i < all->count; i++) {
        all->runs[i].is_asked = true;
    }
    for (size_t i = 0; i < all->count && with_descendants; i++) {
        MM_TRY(add_children(all, all->runs[i].info.id, err));
    }
    for (size_t i = 0; i < all->count; i++) {
        MM_TRY(read_details(all, i, err));
        MM_TRY(add_run(all, all->runs[i].info.parent_id, err));
        MM_TRY(add_run(all, all->teacher_ids[i], err));
    }
    return MM_OK;
}

// The run with the least id above `after` whose parent is this one, or that is a root.
static size_t next_child(const collection *all, const size_t *parents, size_t parent, int64_t after)
{
    size_t best = MM_FAMILY_NONE;
    for (size_t i = 0; i < all->count; i++) {
        const int64_t id = all->runs[i].info.id;
        if (parents[i] != parent || id <= after) continue;
        if (best == MM_FAMILY_NONE || id < all->runs[best].info.id) best = i;
    }
    return best;
}

// Depth first, by rising id. Links that run in a circle, which the store does not make, are cut by
// taking a parent with a greater id for none.
static mm_status order(const collection *all, mm_family *out, mm_err *err)
{
    size_t *parents = mm_arena_alloc(all->arena, (all->count + 1) * sizeof *parents);
    size_t *placed = mm_arena_alloc(all->arena, (all->count + 1) * sizeof *placed);
    out->runs = mm_arena_alloc(all->arena, (all->count + 1) * sizeof *out->runs);
    if (!parents || !placed || !out->runs) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    for (size_t i = 0; i < all->count; i++) {
        const mm_run_info *info = &all->runs[i].info;
        parents[i] = info->parent_id < info->id ? index_of(all, info->parent_id) : MM_FAMILY_NONE;
    }
    size_t at = MM_FAMILY_NONE; /* whose children are being placed */
    int64_t after = 0;
    int depth = 0;
    while (out->count < all->count || at != MM_FAMILY_NONE) {
        const size_t child = next_child(all, parents, at, after);
        if (child == MM_FAMILY_NONE) {
            MM_ASSERT(at != MM_FAMILY_NONE);
            after = all->runs[at].info.id;
            at = parents[at];
            depth--;
            continue;
        }
        mm_family_run *run = &out->runs[out->count];
        *run = all->runs[child];
        run->depth = depth++;
        run->parent = at == MM_FAMILY_NONE ? MM_FAMILY_NONE : placed[at];
        run->is_last = next_child(all, parents, at, all->runs[child].info.id) == MM_FAMILY_NONE;
        placed[child] = out->count++;
        at = child;
        after = 0;
    }
    for (size_t i = 0; i < all->count; i++) {
        const size_t teacher = index_of(all, all->teacher_ids[i]);
        out->runs[placed[i]].teacher = teacher == MM_FAMILY_NONE ? MM_FAMILY_NONE : placed[teacher];
    }
    return MM_OK;
}

mm_status mm_store_family(mm_store *store, const int64_t *run_ids, size_t n_runs,
                          bool with_descendants, mm_arena *arena, mm_family *out, mm_err *err)
{
    *out = (mm_family){0};
    collection all = {.store = store, .arena = arena};
    all.runs = mm_arena_alloc(arena, MM_FAMILY_RUNS_MAX * sizeof *all.runs);
    all.teacher_ids = mm_arena_alloc(arena, MM_FAMILY_RUNS_MAX * sizeof *all.teacher_ids);
    if (!all.runs || !all.teacher_ids) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    MM_TRY(collect(&all, run_ids, n_runs, with_descendants, err));
    out->n_left_out = all.n_left_out;
    return order(&all, out, err);
}
