/* Families of runs: who came from whom, in the order of a tree, with what identifies each link. */
#include "store/family.h"
#include "tests/store/fixture.h"

static int64_t child_run(mm_store *store, const char *name, const char *stage, int64_t parent,
                         const mm_param *params, size_t n_params)
{
    int64_t id = 0;
    const mm_run_new run = {.name = name,
                            .stage = stage,
                            .parent_id = parent,
                            .parent_step = parent > 0 ? 5 : -1,
                            .params = params,
                            .n_params = n_params};
    OK(mm_store_run_create(store, &run, &id, err));
    return id;
}

static void save(mm_store *store, int64_t run, int64_t step)
{
    const float w[2] = {(float)run, (float)step};
    int64_t id;
    const mm_blob blob = {.name = "w",
                          .dtype = "F32",
                          .element_bytes = 4,
                          .ndim = 1,
                          .shape = {2},
                          .data = w,
                          .bytes = sizeof w};
    const mm_checkpoint_new one = {.run_id = run,
                                   .step = step,
                                   .kind = "full",
                                   .val_loss = (double)NAN,
                                   .blobs = &blob,
                                   .n_blobs = 1};
    OK(mm_checkpoint_write(store, &one, &id, err));
}

/* The family as one line: depth, name, and * for a run that was asked for. */
static const char *as_line(const mm_family *family)
{
    static char line[512];
    size_t used = 0;
    line[0] = '\0';
    for (size_t i = 0; i < family->count; i++) {
        const mm_family_run *run = &family->runs[i];
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%d%s%s%s", i ? " " : "",
                                 run->depth, run->info.name, run->is_asked ? "*" : "",
                                 run->is_last ? "." : "");
        assert_true(used < sizeof line);
        // A parent stands before its child and one step above it.
        if (run->parent == MM_FAMILY_NONE) {
            assert_int_equal(run->depth, 0);
            continue;
        }
        assert_true(run->parent < i);
        assert_int_equal(family->runs[run->parent].depth, run->depth - 1);
        assert_int_equal(family->runs[run->parent].info.id, run->info.parent_id);
    }
    return line;
}

static const char *family_of(mm_store *store, const int64_t *ids, size_t n, bool with_descendants)
{
    mm_arena arena = {0};
    mm_family family;
    OK(mm_store_family(store, ids, n, with_descendants, &arena, &family, err));
    const char *line = as_line(&family);
    mm_arena_drop(&arena);
    return line;
}

static void a_family_is_a_tree(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const mm_param taught[] = {{"teacher", "big", false, "command line"},
                               {"teacher_step", "7", false, "command line"}};
    const int64_t base = child_run(store, "base", "pretrain", 0, NULL, 0);
    const int64_t big = child_run(store, "big", "pretrain", 0, NULL, 0);
    const int64_t sft = child_run(store, "sft", "sft", base, NULL, 0);
    const int64_t other = child_run(store, "other", "sft", base, NULL, 0);
    const int64_t lora = child_run(store, "lora", "lora", sft, NULL, 0);
    const int64_t dpo = child_run(store, "dpo", "dpo", sft, NULL, 0);
    const int64_t small = child_run(store, "small", "distill", base, taught, 2);
    assert_string_equal(family_of(store, &sft, 1, true), "0base. 1sft*. 2lora 2dpo.");
    assert_string_equal(family_of(store, &sft, 1, false), "0base. 1sft*.");
    assert_string_equal(family_of(store, &base, 1, true),
                        "0base* 1sft 2lora 2dpo. 1other 1small. 0big.");
    assert_string_equal(family_of(store, &small, 1, false), "0base 1small*. 0big.");
    const int64_t several[] = {dpo, lora, lora, other};
    assert_string_equal(family_of(store, several, 4, false), "0base. 1sft 2lora* 2dpo*. 1other*.");
    const int64_t missing = 99;
    mm_arena arena = {0};
    mm_family family;
    FAILS(MM_ENOTFOUND, "99", mm_store_family(store, &missing, 1, true, &arena, &family, err));
    // One that is gone is not there, and its children are roots.
    OK(mm_store_run_remove(store, sft, err));
    assert_string_equal(family_of(store, &dpo, 1, true), "0dpo*.");
    OK(mm_store_run_remove(store, big, err));
    assert_string_equal(family_of(store, &small, 1, true), "0base. 1small*.");
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void each_link_is_identified(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const mm_param base_params[] = {{"tokenizer_hash", "abcd", true, "data"}};
    const mm_param taught[] = {{"teacher", "1@4", false, "command line"}};
    const int64_t base = child_run(store, "base", "pretrain", 0, base_params, 1);
    save(store, base, 4);
    save(store, base, 5);
    const int64_t sft = child_run(store, "sft", "distill", base, taught, 1);
    save(store, sft, 9);
    const mm_dataset sets[] = {
        {.path = "chat.jsonl", .sha256 = "00ff", .role = "train", .bytes = 1, .rows = 1},
        {.path = "tokenizer.json", .sha256 = "11ee", .role = "tokenizer", .bytes = 1}};
    for (size_t i = 0; i < 2; i++) {
        OK(mm_store_dataset_use(store, sft, &sets[i], err));
    }
    mm_arena arena = {0};
    mm_family family;
    OK(mm_store_family(store, &sft, 1, true, &arena, &family, err));
    assert_int_equal(family.count, 2);
    const mm_family_run *first = &family.runs[0];
    const mm_family_run *second = &family.runs[1];
    assert_string_equal(first->tokenizer, "abcd");
    assert_int_equal(first->step, 5);
    assert_null(first->from_sha256);
    assert_string_equal(second->tokenizer, "11ee");
    assert_string_equal(second->from_sha256, first->sha256);
    assert_int_equal(second->step, 9);
    assert_true(second->own_bytes > 0);
    assert_int_equal(second->n_datasets, 2);
    assert_int_equal(second->teacher, 0);
    assert_int_equal(second->teacher_step, 4);
    assert_int_equal(first->teacher, MM_FAMILY_NONE);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void large_families_are_cut(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t base = child_run(store, "base", "pretrain", 0, NULL, 0);
    int64_t deep = base;
    for (int i = 0; i < MM_FAMILY_RUNS_MAX + 10; i++) {
        child_run(store, NULL, "sft", base, NULL, 0);
        if (i < 40) deep = child_run(store, NULL, "sft", deep, NULL, 0);
    }
    mm_arena arena = {0};
    mm_family family;
    OK(mm_store_family(store, &base, 1, true, &arena, &family, err));
    assert_int_equal(family.count, MM_FAMILY_RUNS_MAX);
    assert_true(family.n_left_out >= 10);
    OK(mm_store_family(store, &deep, 1, false, &arena, &family, err));
    assert_int_equal(family.count, 41);
    assert_int_equal(family.runs[40].depth, 40);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_family_is_a_tree),
        TEST(each_link_is_identified),
        TEST(large_families_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
