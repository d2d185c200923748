/* Whole pages from databases made through the store. */
#include "core/base/file.h"
#include "report/report.h"
#include "tests/report/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The demonstration database, made once. */
typedef struct demo_base {
    char *folder;
    char *path;
    int64_t runs[FIXTURE_RUNS];
    int64_t sweep_id;
} demo_base;

static void must(mm_status status, const mm_err *err)
{
    if (status != MM_OK) fail_msg("%s", err->message);
}

static int make_demo(void **state)
{
    static demo_base demo;
    mm_err err = {0};
    demo.folder = fixture_folder();
    if (!demo.folder) return -1;
    if (mm_path_join(&demo.path, demo.folder, "runs.db", &err) != MM_OK ||
        fixture_demo(demo.path, demo.runs, &demo.sweep_id, &err) != MM_OK) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    *state = &demo;
    return 0;
}

static int drop_demo(void **state)
{
    demo_base *demo = *state;
    mm_free(demo->path);
    fixture_remove(demo->folder);
    return 0;
}

static void render(const demo_base *demo, const mm_report_options *options, mm_str *out)
{
    mm_err err = {0};
    mm_store *store = NULL;
    must(mm_store_open(&store, demo->path, MM_STORE_READ, &err), &err);
    must(mm_report_html(store, options, out, &err), &err);
    mm_store_close(store);
}

static void assert_holds(const mm_str *page, const char *text)
{
    if (!strstr(mm_str_text(page), text)) fail_msg("the page does not hold: %s", text);
}

static void assert_lacks(const mm_str *page, const char *text)
{
    if (strstr(mm_str_text(page), text)) fail_msg("the page holds: %s", text);
}

static void test_same_bytes_twice(void **state)
{
    const demo_base *demo = *state;
    const mm_report_options options = {
        .run_ids = demo->runs, .n_runs = FIXTURE_RUNS, .sweep_id = demo->sweep_id};
    mm_str first = {0};
    mm_str second = {0};
    render(demo, &options, &first);
    render(demo, &options, &second);
    assert_int_equal(first.length, second.length);
    assert_memory_equal(first.data, second.data, first.length);
    assert_true(first.length < 1000000);
    mm_str_drop(&first);
    mm_str_drop(&second);
}

static void test_content(void **state)
{
    const demo_base *demo = *state;
    const mm_report_options options = {.run_ids = demo->runs,
                                       .n_runs = FIXTURE_RUNS,
                                       .sweep_id = demo->sweep_id,
                                       .title = "Title <of> the page",
                                       .command = "mmrun report --all"};
    mm_str page = {0};
    render(demo, &options, &page);
    assert_holds(&page, "<h1>Title &lt;of&gt; the page</h1>");
    // The winner is the child; the failed and the stopped run are named and not ranked.
    assert_holds(&page, "<strong><bdi>诗-continued</bdi></strong> has the lowest validation loss");
    assert_holds(&page, "width-96-hot (failed at step 540), width-64-early (stopped at step 400)");
    assert_holds(&page, "Values that are not finite</bdi></strong> were logged by width-96-hot");
    assert_holds(&page, "resumed at step 700 (attempt 2)");
    assert_holds(&page, "not finite, step");
    assert_holds(&page, "明月松间照，清泉石上流。");
    assert_holds(&page, " lang=\"zh\"");
    assert_holds(&page, "mmrun report --all");
    assert_holds(&page, "Against the baseline");
    // The spike of one step survives the thinning of 1200.
    assert_holds(&page, "41.50");
    mm_str_drop(&page);
}

static void test_privacy(void **state)
{
    const demo_base *demo = *state;
    mm_report_options options = {.run_ids = demo->runs, .n_runs = 2};
    mm_str page = {0};
    mm_err err = {0};
    render(demo, &options, &page);
    assert_lacks(&page, "/home/somebody");
    assert_holds(&page, "…/stories.jsonl");
    mm_store *store = NULL;
    mm_arena arena = {0};
    mm_run_info info;
    must(mm_store_open(&store, demo->path, MM_STORE_READ, &err), &err);
    must(mm_store_run(store, demo->runs[0], &arena, &info, &err), &err);
    if (info.host && strlen(info.host) >= 2) assert_lacks(&page, info.host);
    mm_arena_drop(&arena);
    mm_store_close(store);
    mm_str_clear(&page);
    options.include_host = true;
    render(demo, &options, &page);
    assert_holds(&page, "/home/somebody/data/stories.jsonl");
    assert_holds(&page, "/home/somebody/experiments");
    mm_str_drop(&page);
}

static void test_one_run(void **state)
{
    const demo_base *demo = *state;
    const mm_report_options options = {.run_ids = demo->runs, .n_runs = 1};
    mm_str page = {0};
    render(demo, &options, &page);
    assert_holds(&page, "finished 1,200 steps");
    assert_holds(&page, "One seed:");
    assert_lacks(&page, "What differed");
    assert_lacks(&page, "id=\"sweep\"");
    mm_str_drop(&page);
}

static void test_wrong_use(void **state)
{
    const demo_base *demo = *state;
    mm_err err = {0};
    mm_store *store = NULL;
    mm_str page = {0};
    must(mm_store_open(&store, demo->path, MM_STORE_READ, &err), &err);
    mm_report_options options = {.run_ids = demo->runs, .n_runs = 0};
    assert_int_equal(mm_report_html(store, &options, &page, &err), MM_EUSAGE);
    const int64_t missing = 12345;
    options = (mm_report_options){.run_ids = &missing, .n_runs = 1};
    assert_int_equal(mm_report_html(store, &options, &page, &err), MM_ENOTFOUND);
    options = (mm_report_options){.run_ids = demo->runs, .n_runs = 1, .sweep_id = 99};
    assert_int_equal(mm_report_html(store, &options, &page, &err), MM_ENOTFOUND);
    options = (mm_report_options){.run_ids = demo->runs, .n_runs = 1};
    assert_int_equal(mm_report_write(store, &options, "/nonexistent-folder/report.html", &err),
                     MM_ENOTFOUND);
    assert_non_null(strstr(err.message, "/nonexistent-folder"));
    mm_str_drop(&page);
    mm_store_close(store);
}

// Every stage in one page: curves, verdict, adapters, results, answers, lineage.
static void test_stages(void **state)
{
    const demo_base *demo = *state;
    demo_base stages = {.folder = demo->folder};
    mm_err err = {0};
    int64_t runs[FIXTURE_STAGES];
    must(mm_path_join(&stages.path, demo->folder, "stages.db", &err), &err);
    must(fixture_stages(stages.path, runs, &err), &err);
    const mm_report_options options = {.run_ids = runs, .n_runs = FIXTURE_STAGES};
    mm_str page = {0};
    mm_str again = {0};
    render(&stages, &options, &page);
    render(&stages, &options, &again);
    assert_string_equal(mm_str_text(&page), mm_str_text(&again));
    // Losses of pairs and of tokens are never in one chart.
    assert_holds(&page, "<b>Preference loss</b>");
    assert_holds(&page, "thick: chosen, thin: rejected");
    assert_holds(&page, "<b>Distance to the teacher</b>");
    assert_holds(&page, "the lowest held-out preference loss");
    assert_holds(&page, "as it must be: with policy and reference the same model");
    // 24,576 of 1,034,112, and its own bytes beside a base of 156 KiB.
    assert_holds(&page, "of rank 16: 24.6k of 1.03M parameters were trained (2.4 %)");
    assert_holds(&page, "q_proj,o_proj");
    // The interval of 17 of 40.
    assert_holds(&page, "28.5 to 57.8 %");
    assert_holds(&page, "17 of 40");
    assert_holds(&page, "<span class=\"mark no\">✗ wrong</span>");
    assert_holds(&page, "expected <bdi>42</bdi>");
    assert_holds(&page, "right, of those above");
    assert_lacks(&page, "Answers by step"); // all at one step
    // The tree says the same as the picture.
    assert_holds(&page, "class=\"graph g4\"");
    assert_holds(&page, ", taught by <bdi>chat</bdi> at step 400");
    assert_holds(&page, "class=\"edge taught\"");
    assert_holds(&page, "preferences.jsonl 7712b0cf");
    assert_lacks(&page, "/home/somebody");
    mm_str_drop(&page);
    // One of them alone brings its ancestors.
    const mm_report_options one = {.run_ids = &runs[2], .n_runs = 1};
    render(&stages, &one, &page);
    assert_holds(&page, "<strong>base</strong>");
    assert_holds(&page, "class=\"box other\"");
    assert_lacks(&page, "<strong>polite</strong>");
    mm_str_drop(&page);
    mm_str_drop(&again);
    mm_free(stages.path);
}

// A run named twice is shown once.
static void test_repeated_run(void **state)
{
    const demo_base *demo = *state;
    const int64_t twice[] = {demo->runs[0], demo->runs[0]};
    mm_report_options options = {.run_ids = twice, .n_runs = 2};
    mm_str repeated = {0};
    mm_str once = {0};
    render(demo, &options, &repeated);
    options.n_runs = 1;
    render(demo, &options, &once);
    assert_string_equal(mm_str_text(&repeated), mm_str_text(&once));
    mm_str_drop(&repeated);
    mm_str_drop(&once);
}

// Every allocation fails once: an error, no crash, no leak (the address sanitizer would tell).
static void test_out_of_memory(void **state)
{
    const demo_base *demo = *state;
    const mm_report_options options = {
        .run_ids = demo->runs, .n_runs = 2, .sweep_id = demo->sweep_id};
    mm_err err = {0};
    mm_store *store = NULL;
    must(mm_store_open(&store, demo->path, MM_STORE_READ, &err), &err);
    mm_str page = {0};
    const uint64_t before = mm_alloc_count();
    must(mm_report_html(store, &options, &page, &err), &err);
    const uint64_t needed = mm_alloc_count() - before;
    mm_str_drop(&page);
    assert_true(needed > 20);
    for (uint64_t nth = 1; nth <= needed; nth += nth < 60 ? 1 : needed / 40 + 1) {
        mm_str partial = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_report_html(store, &options, &partial, &err);
        mm_alloc_fail_at(0);
        if (status != MM_ENOMEM && status != MM_EDB)
            fail_msg("allocation %u: status %d", (unsigned)nth, status);
        mm_str_drop(&partial);
    }
    mm_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_twice), cmocka_unit_test(test_content),
        cmocka_unit_test(test_privacy),          cmocka_unit_test(test_one_run),
        cmocka_unit_test(test_stages),           cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_repeated_run),     cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, make_demo, drop_demo);
}
