/* The family of a run as a tree: data → tokenizer → pretrain → what was made from it. */
#include "runner/show_family.h"

#include "runner/commands.h"

#include <math.h>
#include <string.h>

enum { HASH_DIGITS = 8 };

/* ---- JSON --------------------------------------------------------------------------------------
 */

static json_t *id_of(const mm_family *family, size_t index)
{
    return index == MM_FAMILY_NONE ? json_null() : json_integer(family->runs[index].info.id);
}

static json_t *step_of(int64_t step) { return step < 0 ? json_null() : json_integer(step); }

static json_t *files_json(const mm_family_run *run)
{
    json_t *list = json_array();
    for (size_t i = 0; i < run->n_datasets; i++)
        json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "role",
                                              mm_json_of_text(run->datasets[i].role), "path",
                                              mm_json_of_text(run->datasets[i].path), "sha256",
                                              mm_json_of_text(run->datasets[i].sha256)));
    return list;
}

json_t *mm_family_json(const mm_family *family)
{
    json_t *list = json_array();
    for (size_t i = 0; i < family->count; i++) {
        const mm_family_run *run = &family->runs[i];
        json_t *entry = json_pack(
            "{s:I, s:o, s:o, s:o, s:i, s:b, s:o, s:o, s:o}", "id", (json_int_t)run->info.id, "name",
            mm_json_of_text(run->info.name), "stage", mm_json_of_text(run->info.stage), "status",
            mm_json_of_text(run->info.status), "depth", run->depth, "is_this", (int)run->is_asked,
            "parent_id", id_of(family, run->parent), "parent_step", step_of(run->info.parent_step),
            "from_sha256", mm_json_of_text(run->from_sha256));
        json_object_set_new(entry, "teacher_id", id_of(family, run->teacher));
        json_object_set_new(entry, "teacher_step", step_of(run->teacher_step));
        json_object_set_new(entry, "step", step_of(run->step));
        json_object_set_new(entry, "sha256", mm_json_of_text(run->sha256));
        json_object_set_new(entry, "own_bytes",
                            run->sha256 ? json_integer(run->own_bytes) : json_null());
        json_object_set_new(entry, "val_loss", mm_json_of_real(run->info.best_val_loss));
        json_object_set_new(entry, "tokenizer", mm_json_of_text(run->tokenizer));
        json_object_set_new(entry, "datasets", files_json(run));
        json_array_append_new(list, entry);
    }
    return list;
}

/* ---- text --------------------------------------------------------------------------------------
 */

typedef struct branch {
    const char *pass; /* an ancestor has more children below */
    const char *gap;
    const char *fork;
    const char *end;
} branch;

static const branch DRAWN = {"\xE2\x94\x82  ", "   ", "\xE2\x94\x9C\xE2\x94\x80 ",
                             "\xE2\x94\x94\xE2\x94\x80 "};
static const branch TYPED = {"|  ", "   ", "|- ", "`- "};

// The lines that pass from the ancestors above to their other children below.
static void print_stems(const mm_family *family, size_t index, const branch *with)
{
    const mm_family_run *run = &family->runs[index];
    if (run->parent == MM_FAMILY_NONE) return;
    print_stems(family, run->parent, with);
    if (family->runs[run->parent].depth > 0)
        mm_out("%s", family->runs[run->parent].is_last ? with->gap : with->pass);
}

static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash && slash[1] ? slash + 1 : path ? path : "?";
}

static bool has_file(const mm_family_run *run, const mm_dataset *file)
{
    for (size_t i = 0; i < run->n_datasets; i++) {
        const char *other = run->datasets[i].sha256;
        if (other && file->sha256 && strcmp(other, file->sha256) == 0) return true;
    }
    return false;
}

static bool is_tokenizer(const mm_dataset *file)
{
    return file->role && strcmp(file->role, "tokenizer") == 0;
}

// What the run brought in itself: its parent's files and tokenizer are said there.
static void print_files(const mm_context *context, const mm_family *family, size_t index,
                        const branch *with)
{
    const mm_family_run *run = &family->runs[index];
    const mm_family_run *parent = run->parent == MM_FAMILY_NONE ? NULL : &family->runs[run->parent];
    const bool has_children = index + 1 < family->count && family->runs[index + 1].parent == index;
    const bool has_tokenizer = run->tokenizer && !(parent && parent->tokenizer &&
                                                   strcmp(parent->tokenizer, run->tokenizer) == 0);
    bool is_first = true;
    for (size_t i = 0; i <= run->n_datasets; i++) {
        const mm_dataset *file = i < run->n_datasets ? &run->datasets[i] : NULL;
        if (file ? (is_tokenizer(file) || (parent && has_file(parent, file))) : !has_tokenizer)
            continue;
        if (is_first) {
            mm_out("  ");
            print_stems(family, index, with);
            if (run->depth > 0) mm_out("%s", run->is_last ? with->gap : with->pass);
            mm_out("%s", has_children ? with->pass : with->gap);
            mm_out_color(context, MM_COLOR_DIM);
        }
        mm_out("%s", is_first ? "" : context->utf8_out ? " \xC2\xB7 " : ", ");
        is_first = false;
        if (file)
            mm_out("%s %s %.*s", file->role ? file->role : "data", base_name(file->path),
                   HASH_DIGITS, file->sha256 ? file->sha256 : "?");
        else
            mm_out("tokenizer %.*s", HASH_DIGITS, run->tokenizer);
    }
    if (is_first) return;
    mm_out_color(context, MM_COLOR_NONE);
    mm_out("\n");
}

static void print_run(const mm_context *context, const mm_family *family, size_t index,
                      const branch *with)
{
    const mm_family_run *run = &family->runs[index];
    const mm_run_info *info = &run->info;
    char number[MM_NUMBER_BYTES];
    mm_out("  ");
    print_stems(family, index, with);
    if (run->depth > 0) mm_out("%s", run->is_last ? with->end : with->fork);
    mm_out("%s ", info->stage ? info->stage : "?");
    mm_out_color(context, run->is_asked ? MM_COLOR_BOLD : MM_COLOR_CYAN);
    mm_out("%s", info->name ? info->name : "?");
    mm_out_color(context, MM_COLOR_NONE);
    mm_out(" (run %lld)", (long long)info->id);
    if (run->parent != MM_FAMILY_NONE && info->parent_step >= 0)
        mm_out("  from step %lld", (long long)info->parent_step);
    if (run->teacher != MM_FAMILY_NONE) {
        mm_out("  taught by %s", family->runs[run->teacher].info.name);
        if (run->teacher_step >= 0) mm_out(" at step %lld", (long long)run->teacher_step);
    }
    mm_real_text(info->best_val_loss, number);
    const bool is_preference = info->stage && strcmp(info->stage, "dpo") == 0;
    if (!isnan(info->best_val_loss))
        mm_out("  %s %s", is_preference ? "preference loss" : "val loss", number);
    if (run->sha256) {
        mm_out_color(context, MM_COLOR_DIM);
        mm_out("  %.*s at step %lld", HASH_DIGITS, run->sha256, (long long)run->step);
        mm_out_color(context, MM_COLOR_NONE);
    }
    if (info->status && strcmp(info->status, "finished") != 0) {
        mm_out("  ");
        mm_out_color(context, mm_status_color(info->status));
        mm_out("%s", info->status);
        mm_out_color(context, MM_COLOR_NONE);
    }
    mm_out("\n");
}

void mm_show_family(const mm_context *context, const mm_family *family)
{
    const branch *with = context->utf8_out ? &DRAWN : &TYPED;
    for (size_t i = 0; i < family->count; i++) {
        print_run(context, family, i, with);
        print_files(context, family, i, with);
    }
    if (family->n_left_out > 0) mm_out("  (more runs of this family are left out)\n");
}
