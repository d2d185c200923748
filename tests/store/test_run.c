/* Runs and what hangs on them: names, claims, records, sweeps, references. */
#include "tests/store/fixture.h"

/* ---- runs --------------------------------------------------------------------------------------
 */

static void a_run_comes_back_as_it_was_made(void **state)
{
    const fixture *fix = *state;
    const char *tags[] = {"baseline", "paper"};
    const mm_param params[] = {{"hidden_size", "512", false, "sweep"},
                               {"learning_rate", "5e-04", true, NULL},
                               {"lr_schedule", "cosine", true, "preset"}};
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t parent = make_run(store, "parent");
    const mm_run_new run = {.stage = "sft",
                            .parent_id = parent,
                            .parent_step = 0,
                            .seed = UINT64_MAX,
                            .device = "cpu",
                            .dtype = "fp32",
                            .params_total = 63912192,
                            .params_trainable = 5,
                            .steps_planned = 300,
                            .command = "mmrun sft --data 'a b.jsonl'",
                            .version = "0.1.0",
                            .git_commit = "abc",
                            .notes = "first",
                            .tags = tags,
                            .n_tags = 2,
                            .params = params,
                            .n_params = 3};
    int64_t id;
    OK(mm_store_run_create(store, &run, &id, err));
    OK(mm_store_run_params(store, id, &(mm_param){"vocab_size", "6400", false, "tokenizer"}, 1,
                           err));
    OK(mm_store_run_note(store, id, "looks good", err));
    OK(mm_store_run_tag(store, id, "paper", true, err));
    OK(mm_store_run_tag(store, id, "best", false, err));
    mm_store_close(store);

    store = open_store(fix->path, MM_STORE_READ);
    mm_arena arena = {0};
    mm_run_info info;
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_string_equal(info.name, "sft-2");
    assert_string_equal(info.status, "queued");
    assert_int_equal(info.parent_id, parent);
    assert_int_equal(info.parent_step, 0);
    assert_true(info.seed == UINT64_MAX);
    assert_int_equal(info.params_total, 63912192);
    assert_int_equal(info.steps_planned, 300);
    assert_string_equal(info.command, "mmrun sft --data 'a b.jsonl'");
    assert_non_null(strstr(info.notes, "first\n2"));
    assert_non_null(strstr(info.notes, "UTC: looks good"));
    assert_string_equal(info.tags, "baseline,best");
    assert_true(isnan(info.final_loss) && isnan(info.best_val_loss) && isnan(info.tokens_per_s));
    assert_int_equal(info.started_ms, 0);
    assert_null(info.error);
    mm_param *found;
    size_t count;
    OK(mm_store_params(store, id, &arena, &found, &count, err));
    assert_int_equal(count, 4);
    assert_string_equal(found[1].name, "learning_rate");
    assert_string_equal(found[1].value, "5e-04");
    assert_true(found[1].is_default);
    assert_string_equal(found[1].origin, "default");
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void plain_sql_sees_parameters_as_columns(void **state)
{
    const fixture *fix = *state;
    const mm_param params[] = {{"hidden_size", "512", false, "sweep"},
                               {"learning_rate", "5e-04", true, NULL}};
    const mm_run_new run = {.stage = "sft", .parent_step = -1, .params = params, .n_params = 2};
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    int64_t id;
    OK(mm_store_run_create(store, &run, &id, err));
    mm_store_close(store);
    assert_string_equal(sql_text(fix->path, "SELECT hidden_size + learning_rate FROM run_wide"),
                        "512.0005");
    assert_string_equal(sql_text(fix->path, "SELECT substr(created_at, 11, 1) || "
                                            "substr(created_at, 20, 1) || substr(created_at, -1) "
                                            "FROM runs"),
                        "T.Z");
}

static void names_are_unique_and_cannot_be_mistaken(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t first = make_run(store, "pretrain-2");
    int64_t id = 0;
    mm_run_new run = {.stage = "pretrain", .parent_step = -1};
    OK(mm_store_run_create(store, &run, &id, err)); // its natural name is taken
    mm_arena arena = {0};
    mm_run_info info;
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_string_equal(info.name, "pretrain-2-2");
    run.name = "pretrain-2";
    FAILS(MM_EEXISTS, "pretrain-2", mm_store_run_create(store, &run, &id, err));
    FAILS(MM_EEXISTS, "pretrain-2-2", mm_store_run_rename(store, first, "pretrain-2-2", err));
    OK(mm_store_run_rename(store, first, "pretrain-2", err)); // to itself
    static const char *const BAD[] = {"", "17", "a@b", "last", "line\nbreak"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        run.name = BAD[i];
        FAILS(MM_EUSAGE, "name", mm_store_run_create(store, &run, &id, err));
        FAILS(MM_EUSAGE, "name", mm_store_run_rename(store, first, BAD[i], err));
    }
    run = (mm_run_new){.stage = "sft", .parent_id = 99, .parent_step = 1};
    FAILS(MM_ENOTFOUND, "99", mm_store_run_create(store, &run, &id, err));
    FAILS(MM_ENOTFOUND, "77", mm_store_event(store, 77, "info", "x", "y", err));
    FAILS(MM_EUSAGE, "comma", mm_store_run_tag(store, first, "a,b", false, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM runs"), 2);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void filters_keep_the_newest_in_order(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    int64_t sweep_id;
    const mm_sweep sweep = {.stage = "pretrain", .space = "{}", .objective = "loss"};
    OK(mm_store_sweep_create(store, &sweep, &sweep_id, err));
    for (int i = 0; i < 5; i++) {
        int64_t id;
        const mm_run_new run = {.stage = i == 3 ? "sft" : "pretrain",
                                .sweep_id = i % 2 ? sweep_id : 0};
        OK(mm_store_run_create(store, &run, &id, err));
    }
    OK(mm_run_end(claim_run(store, 1, -1), "finished", NULL, err));
    mm_arena arena = {0};
    mm_run_info *runs;
    size_t count;
    OK(mm_store_runs(store, NULL, &arena, &runs, &count, err));
    assert_int_equal(count, 5);
    OK(mm_store_runs(store, &(mm_run_filter){.limit = 2}, &arena, &runs, &count, err));
    assert_int_equal(count, 2);
    assert_int_equal(runs[0].id, 4);
    assert_int_equal(runs[1].id, 5);
    OK(mm_store_runs(store, &(mm_run_filter){.sweep_id = sweep_id, .stage = "sft"}, &arena, &runs,
                     &count, err));
    assert_int_equal(count, 1);
    assert_int_equal(runs[0].id, 4);
    OK(mm_store_runs(store, &(mm_run_filter){.status = "finished", .limit = 9}, &arena, &runs,
                     &count, err));
    assert_int_equal(count, 1);
    OK(mm_store_runs(store, &(mm_run_filter){.tag = "none"}, &arena, &runs, &count, err));
    assert_int_equal(count, 0);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

/* ---- claims ------------------------------------------------------------------------------------
 */

static void a_run_has_one_owner(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    mm_store *other = open_store(fix->path, MM_STORE_WRITE);
    const int64_t id = make_run(store, "a");
    mm_claim *claim = claim_run(store, id, -1);
    mm_claim *second;
    char pid[32];
    snprintf(pid, sizeof pid, "process %d", (int)getpid());
    FAILS(MM_EBUSY, pid, mm_run_claim(&second, other, id, 0, err));
    assert_null(second);
    FAILS(MM_EBUSY, "running", mm_store_run_remove(other, id, err));
    FAILS(MM_ENOTFOUND, "12", mm_run_claim(&second, other, 12, -1, err));
    mm_arena arena = {0};
    mm_run_info info;
    OK(mm_store_run(other, id, &arena, &info, err));
    assert_string_equal(info.status, "running");
    OK(mm_run_end(claim, "failed", "loss is NaN", err));
    OK(mm_store_run(other, id, &arena, &info, err));
    assert_string_equal(info.status, "failed");
    assert_string_equal(info.error, "loss is NaN");
    claim = claim_run(other, id, 5);
    OK(mm_run_end(claim, "finished", NULL, err));
    mm_attempt *attempts;
    size_t count;
    OK(mm_store_attempts(store, id, &arena, &attempts, &count, err));
    assert_int_equal(count, 2);
    assert_string_equal(attempts[0].ended, "failed");
    assert_int_equal(attempts[1].number, 2);
    assert_int_equal(attempts[1].from_step, 5);
    assert_string_equal(attempts[1].ended, "finished");
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_null(info.error);
    mm_arena_drop(&arena);
    mm_store_close(other);
    mm_store_close(store);
}

static void a_dropped_claim_reads_killed_and_is_repaired(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_claim_drop(claim_run(store, id, -1));
    mm_store_close(store);
    // A reader tells the truth without writing it.
    store = open_store(fix->path, MM_STORE_READ);
    mm_arena arena = {0};
    mm_run_info info;
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_string_equal(info.status, "killed");
    mm_attempt *attempts;
    size_t count;
    OK(mm_store_attempts(store, id, &arena, &attempts, &count, err));
    assert_string_equal(attempts[0].ended, "killed");
    mm_store_close(store);
    assert_string_equal(sql_text(fix->path, "SELECT status FROM runs"), "running");
    // A writer writes it.
    store = open_store(fix->path, MM_STORE_WRITE);
    assert_string_equal(sql_text(fix->path, "SELECT status FROM runs"), "killed");
    assert_string_equal(sql_text(fix->path, "SELECT kind FROM events"), "killed");
    assert_string_equal(sql_text(fix->path, "SELECT ended FROM attempt"), "killed");
    assert_string_not_equal(sql_text(fix->path, "SELECT ended_at FROM runs"), "");
    OK(mm_store_runs(store, &(mm_run_filter){.status = "killed"}, &arena, &(mm_run_info *){NULL},
                     &count, err));
    assert_int_equal(count, 1);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void a_run_of_another_machine_is_believed_while_it_beats(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_claim_drop(claim_run(store, id, -1));
    mm_store_close(store);
    sql_run(fix->path, "UPDATE attempt SET host = 'elsewhere', boot_id = 'other'");
    mm_arena arena = {0};
    mm_run_info info;
    store = open_store(fix->path, MM_STORE_READ);
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_string_equal(info.status, "running");
    sql_run(fix->path, "UPDATE attempt SET heartbeat_ms = heartbeat_ms - 61000");
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_string_equal(info.status, "killed");
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void a_silent_run_reads_killed_in_plain_sql(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    mm_claim *claim = claim_run(store, make_run(store, "a"), -1);
    assert_string_equal(sql_text(fix->path, "SELECT status FROM runs"), "running");
    sql_run(fix->path, "UPDATE attempt SET heartbeat_ms = heartbeat_ms - 61000");
    assert_string_equal(sql_text(fix->path, "SELECT status FROM runs"), "killed");
    // The lock knows better.
    mm_arena arena = {0};
    mm_run_info info;
    OK(mm_store_run(store, 1, &arena, &info, err));
    assert_string_equal(info.status, "running");
    mm_arena_drop(&arena);
    OK(mm_run_end(claim, "finished", NULL, err));
    mm_store_close(store);
}

/* ---- records -----------------------------------------------------------------------------------
 */

static const char HOSTILE[] = "'; DROP TABLE run; -- \"</script><img src=x onerror=alert(1)>\n\t\\ "
                              "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 \xe2\x80\xae%s%n";

static void hostile_text_comes_back_byte_for_byte(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    int64_t id = 0;
    const mm_param param = {HOSTILE, HOSTILE, false, HOSTILE};
    const mm_run_new run = {
        .stage = HOSTILE, .command = HOSTILE, .notes = HOSTILE, .params = &param, .n_params = 1};
    OK(mm_store_run_create(store, &run, &id, err));
    OK(mm_store_event(store, id, "warn", "nan", HOSTILE, err));
    OK(mm_store_env(store, id, HOSTILE, HOSTILE, err));
    const mm_generation_row generation = {.run_id = id,
                                          .step = 3,
                                          .prompt_idx = 1,
                                          .prompt = HOSTILE,
                                          .text = "cut \xf0\x9f here",
                                          .tokens = 4,
                                          .finish_reason = "length",
                                          .temperature = 0.7,
                                          .top_p = 0.9,
                                          .top_k = 50,
                                          .seed = 1,
                                          .tokens_per_s = (double)NAN,
                                          .task = HOSTILE,
                                          .expected = HOSTILE,
                                          .is_correct = 1};
    OK(mm_store_generation_add(store, &generation, err));
    mm_arena arena = {0};
    size_t count;
    mm_run_info info;
    OK(mm_store_run(store, id, &arena, &info, err));
    assert_string_equal(info.command, HOSTILE);
    assert_string_equal(info.notes, HOSTILE);
    mm_event *events;
    OK(mm_store_events(store, id, &arena, &events, &count, err));
    assert_int_equal(count, 1);
    assert_string_equal(events[0].message, HOSTILE);
    assert_string_equal(events[0].level, "warn");
    mm_env *env;
    OK(mm_store_environment(store, id, &arena, &env, &count, err));
    assert_int_equal(count, 1);
    assert_string_equal(env[0].key, HOSTILE);
    mm_generation_row *rows;
    OK(mm_store_generations(store, id, &arena, &rows, &count, err));
    assert_int_equal(count, 1);
    assert_string_equal(rows[0].prompt, HOSTILE);
    assert_non_null(strstr(rows[0].text, "cut \xef\xbf\xbd")); // not UTF-8: replaced
    assert_non_null(strstr(rows[0].text, " here"));
    assert_true(rows[0].temperature > 0.69 && rows[0].temperature < 0.71);
    assert_true(isnan(rows[0].tokens_per_s));
    assert_true(rows[0].created_ms > 0);
    assert_string_equal(rows[0].task, HOSTILE);
    assert_string_equal(rows[0].expected, HOSTILE);
    assert_int_equal(rows[0].is_correct, 1);
    mm_param *params;
    OK(mm_store_params(store, id, &arena, &params, &count, err));
    assert_string_equal(params[0].value, HOSTILE);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void an_evaluation_done_again_replaces_the_one_before(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_result result = {.run_id = id,
                        .step = 10,
                        .task = "sums.jsonl",
                        .metric = "exact_match",
                        .value = 0.25,
                        .low = 0.1,
                        .high = 0.5,
                        .n = 20,
                        .correct = 5,
                        .data_sha256 = "aa"};
    OK(mm_store_result_add(store, &result, err));
    result.value = 0.5;
    result.correct = 10;
    OK(mm_store_result_add(store, &result, err));
    result.step = 20;
    OK(mm_store_result_add(store, &result, err));
    const mm_result loss = {.run_id = id,
                            .step = 20,
                            .task = "sums.jsonl",
                            .metric = "val_loss",
                            .value = (double)INFINITY,
                            .low = (double)NAN,
                            .high = (double)NAN,
                            .n = 900,
                            .correct = -1};
    OK(mm_store_result_add(store, &loss, err));
    result.run_id = 99;
    FAILS(MM_ENOTFOUND, "99", mm_store_result_add(store, &result, err));
    result.run_id = make_run(store, "hostile");
    result.task = HOSTILE;
    result.metric = HOSTILE;
    result.data_sha256 = HOSTILE;
    OK(mm_store_result_add(store, &result, err));
    mm_arena arena = {0};
    mm_result *found;
    size_t count;
    OK(mm_store_results(store, id, &arena, &found, &count, err));
    assert_int_equal(count, 3);
    assert_int_equal(found[0].step, 10);
    assert_int_equal(found[0].correct, 10);
    assert_true(found[0].value == 0.5 && found[0].low == 0.1 && found[0].high == 0.5);
    assert_string_equal(found[0].data_sha256, "aa");
    assert_int_equal(found[2].correct, -1);
    assert_int_equal(found[2].n, 900);
    assert_true(isinf(found[2].value) && isnan(found[2].low) && !found[2].data_sha256);
    assert_true(found[2].created_ms > 0);
    OK(mm_store_results(store, result.run_id, &arena, &found, &count, err));
    assert_int_equal(count, 1);
    assert_string_equal(found[0].task, HOSTILE);
    assert_string_equal(found[0].metric, HOSTILE);
    assert_string_equal(found[0].data_sha256, HOSTILE);
    OK(mm_store_run_remove(store, result.run_id, err));
    assert_string_equal(
        sql_text(fix->path, "SELECT group_concat(step || ' ' || coalesce(correct, '-') || ' ' || "
                            "coalesce(value, '-')) FROM (SELECT * FROM results ORDER BY step, "
                            "metric)"),
        "10 10 0.5,20 10 0.5,20 - -");
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void a_resume_moves_results_aside(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_arena arena = {0};
    mm_result *found;
    size_t count;
    for (int64_t step = 10; step <= 20; step += 10) {
        const mm_result result = {
            .run_id = id, .step = step, .task = "sums.jsonl", .metric = "exact_match", .n = 4};
        const mm_generation_row answer = {
            .run_id = id, .step = step, .prompt = "1+1", .text = "3", .expected = "2"};
        OK(mm_store_result_add(store, &result, err));
        OK(mm_store_generation_add(store, &answer, err));
    }
    mm_claim *claim = claim_run(store, id, 15);
    OK(mm_run_end(claim, "finished", NULL, err));
    OK(mm_store_results(store, id, &arena, &found, &count, err));
    assert_int_equal(count, 1);
    assert_int_equal(found[0].step, 10);
    assert_int_equal(sql_int(fix->path, "SELECT sum(step) FROM results"), 10);
    assert_int_equal(sql_int(fix->path, "SELECT sum(step) FROM generations"), 10);
    OK(mm_store_run_remove(store, id, err));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM result"), 0);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void what_has_no_right_answer_is_not_wrong(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t id = make_run(store, "a");
    mm_generation_row row = {.run_id = id, .step = 1, .prompt = "p", .text = "a"};
    OK(mm_store_generation_add(store, &row, err)); // is_correct 0 means nothing here
    row.expected = "b";
    OK(mm_store_generation_add(store, &row, err));
    row.is_correct = -1;
    OK(mm_store_generation_add(store, &row, err));
    assert_string_equal(sql_text(fix->path, "SELECT group_concat(coalesce(is_correct, '-')) "
                                            "FROM generations"),
                        "-,0,-");
    mm_arena arena = {0};
    mm_generation_row *rows;
    size_t count;
    OK(mm_store_generations(store, id, &arena, &rows, &count, err));
    assert_int_equal(count, 3);
    assert_int_equal(rows[0].is_correct, -1);
    assert_int_equal(rows[1].is_correct, 0);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void datasets_are_one_row_per_content(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const int64_t a = make_run(store, "a");
    const int64_t b = make_run(store, "b");
    mm_dataset dataset = {.path = "x.jsonl",
                          .source = "file",
                          .sha256 = "00ff",
                          .bytes = 10,
                          .rows = 2,
                          .role = "train"};
    OK(mm_store_dataset_use(store, a, &dataset, err));
    dataset.path = "copy of x.jsonl";
    dataset.tokens = 99; // known by now
    dataset.role = "val";
    OK(mm_store_dataset_use(store, b, &dataset, err));
    OK(mm_store_dataset_use(store, b, &dataset, err));
    mm_arena arena = {0};
    mm_dataset *list;
    size_t count;
    OK(mm_store_datasets(store, b, &arena, &list, &count, err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].path, "x.jsonl");
    assert_string_equal(list[0].role, "val");
    assert_int_equal(list[0].tokens, 99);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM datasets"), 1);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM run_datasets"), 2);
    mm_arena_drop(&arena);
    mm_store_close(store);
}

static void tokenizers_are_kept_by_hash(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    const char json[] = "{\"model\":\"\xe4\xbd\xa0\"}";
    OK(mm_store_tokenizer_put(store, "h1", json, strlen(json), "{}", 2, err));
    OK(mm_store_tokenizer_put(store, "h1", json, strlen(json), "{}", 2, err));
    OK(mm_store_tokenizer_put(store, "h2", json, strlen(json), NULL, 0, err));
    mm_str text = {0};
    mm_str config = {0};
    OK(mm_store_tokenizer_get(store, "h1", &text, &config, err));
    assert_string_equal(mm_str_text(&text), json);
    assert_string_equal(mm_str_text(&config), "{}");
    OK(mm_store_tokenizer_get(store, "h2", &text, &config, err));
    assert_string_equal(mm_str_text(&config), "");
    FAILS(MM_ENOTFOUND, "h3", mm_store_tokenizer_get(store, "h3", &text, &config, err));
    mm_str_drop(&text);
    mm_str_drop(&config);
    mm_store_close(store);
}

static void a_sweep_has_a_leaderboard(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    int64_t sweep_id;
    mm_sweep sweep = {.name = "grid",
                      .stage = "pretrain",
                      .space = "{\"hidden_size\":[64,96],\"lr_schedule\":[\"a\\\"b\"]}",
                      .objective = "val_loss",
                      .command = "mmrun sweep"};
    OK(mm_store_sweep_create(store, &sweep, &sweep_id, err));
    FAILS(MM_EEXISTS, "grid", mm_store_sweep_create(store, &sweep, &sweep_id, err));
    sweep.name = NULL;
    sweep.space = "{not json";
    FAILS(MM_EFORMAT, "JSON", mm_store_sweep_create(store, &sweep, &sweep_id, err));
    static const double LOSS[3] = {2.5, (double)NAN, 1.5};
    for (int i = 0; i < 3; i++) {
        char hidden[8];
        snprintf(hidden, sizeof hidden, "%d", 64 + i);
        const mm_param params[] = {{"hidden_size", hidden, false, "sweep"},
                                   {"lr_schedule", "a\"b", false, "sweep"},
                                   {"seed", "42", true, NULL}};
        const mm_run_new run = {
            .stage = "pretrain", .sweep_id = 1, .params = params, .n_params = 3};
        int64_t id;
        OK(mm_store_run_create(store, &run, &id, err));
        mm_claim *claim = claim_run(store, id, -1);
        mm_metrics *metrics;
        OK(mm_metrics_open(&metrics, claim, err));
        mm_metric_log(metrics, add_metric(metrics, "val_loss"), 10, LOSS[i]);
        OK(mm_metrics_close(metrics, err));
        OK(mm_run_end(claim, "finished", NULL, err));
    }
    mm_sweep_claim *first;
    mm_sweep_claim *second;
    mm_arena looks = {0};
    mm_sweep seen;
    // Recorded as running, but nobody runs it: its process is gone.
    OK(mm_store_sweep(store, "1", &looks, &seen, err));
    assert_string_equal(seen.status, "killed");
    OK(mm_sweep_claim_take(&first, store, 1, err));
    FAILS(MM_EBUSY, "sweep 1", mm_sweep_claim_take(&second, store, 1, err));
    FAILS(MM_ENOTFOUND, "5", mm_sweep_claim_take(&second, store, 5, err));
    OK(mm_store_sweep(store, "1", &looks, &seen, err));
    assert_string_equal(seen.status, "running");
    mm_sweep_claim_drop(first);
    OK(mm_store_sweep(store, "1", &looks, &seen, err));
    assert_string_equal(seen.status, "killed");
    OK(mm_sweep_claim_take(&first, store, 1, err));
    OK(mm_sweep_end(first, store, "finished", err));
    mm_arena_drop(&looks);
    mm_arena arena = {0};
    mm_sweep found;
    OK(mm_store_sweep(store, "last", &arena, &found, err));
    assert_string_equal(found.name, "grid");
    OK(mm_store_sweep(store, "1", &arena, &found, err));
    assert_string_equal(found.status, "finished");
    FAILS(MM_ENOTFOUND, "grid", mm_store_sweep(store, "gird", &arena, &found, err));
    mm_store_close(store);
    assert_string_equal(sql_text(fix->path, "SELECT group_concat(rank || ':' || run_id || ':' || "
                                            "coalesce(objective, '-')) FROM sweep_leaderboard"),
                        "1:3:1.5,2:1:2.5,3:2:-");
    assert_string_equal(sql_text(fix->path, "SELECT params FROM sweep_leaderboard WHERE rank = 1"),
                        "{\"hidden_size\":66,\"lr_schedule\":\"a\\\"b\"}");
    assert_int_equal(sql_int(fix->path, "SELECT min(json_valid(params)) FROM sweep_leaderboard"),
                     1);
    mm_arena_drop(&arena);
}

/* ---- references --------------------------------------------------------------------------------
 */

static void references_name_runs_and_checkpoints(void **state)
{
    const fixture *fix = *state;
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    mm_run_ref ref;
    FAILS(MM_ENOTFOUND, "no run yet", mm_store_resolve(store, "last", &ref, err));
    const int64_t a = make_run(store, "poetry-512");
    const int64_t b = make_run(store, "poetry-768");
    OK(mm_store_resolve(store, "last", &ref, err));
    assert_int_equal(ref.run_id, b);
    assert_false(ref.has_at);
    OK(mm_store_resolve(store, "poetry-512@best", &ref, err));
    assert_int_equal(ref.run_id, a);
    assert_int_equal(ref.at, MM_AT_BEST);
    OK(mm_store_resolve(store, "2@40", &ref, err));
    assert_int_equal(ref.at, MM_AT_STEP);
    assert_int_equal(ref.step, 40);
    FAILS(MM_ENOTFOUND, "poetry-512", mm_store_resolve(store, "poetry-51", &ref, err));
    FAILS(MM_ENOTFOUND, "poetry-768", mm_store_resolve(store, "potery-768", &ref, err));
    FAILS(MM_ENOTFOUND, "newest", mm_store_resolve(store, "99999999999999999999999", &ref, err));
    FAILS(MM_EUSAGE, "worst", mm_store_resolve(store, "1@worst", &ref, err));

    mm_arena arena = {0};
    mm_checkpoint_info info;
    ref = (mm_run_ref){.run_id = a};
    FAILS(MM_ENOTFOUND, "no checkpoint",
          mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
    static const double LOSS[4] = {3.0, 1.0, 2.0, (double)NAN};
    for (int i = 0; i < 4; i++) {
        int64_t id;
        const mm_checkpoint_new one = {
            .run_id = a, .step = 10 * (i + 1), .kind = "full", .val_loss = LOSS[i]};
        OK(mm_checkpoint_write(store, &one, &id, err));
    }
    OK(mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
    assert_int_equal(info.step, 40);
    ref.at = MM_AT_BEST;
    OK(mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
    assert_int_equal(info.step, 20);
    assert_true(info.is_best);
    ref = (mm_run_ref){.run_id = a, .at = MM_AT_STEP, .step = 30};
    OK(mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
    assert_int_equal(info.step, 30);
    ref.step = 35;
    FAILS(MM_ENOTFOUND, "10, 20, 30, 40",
          mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
    mm_arena_drop(&arena);
    mm_store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_run_comes_back_as_it_was_made),
        TEST(plain_sql_sees_parameters_as_columns),
        TEST(names_are_unique_and_cannot_be_mistaken),
        TEST(filters_keep_the_newest_in_order),
        TEST(a_run_has_one_owner),
        TEST(a_dropped_claim_reads_killed_and_is_repaired),
        TEST(a_run_of_another_machine_is_believed_while_it_beats),
        TEST(a_silent_run_reads_killed_in_plain_sql),
        TEST(hostile_text_comes_back_byte_for_byte),
        TEST(an_evaluation_done_again_replaces_the_one_before),
        TEST(a_resume_moves_results_aside),
        TEST(what_has_no_right_answer_is_not_wrong),
        TEST(datasets_are_one_row_per_content),
        TEST(tokenizers_are_kept_by_hash),
        TEST(a_sweep_has_a_leaderboard),
        TEST(references_name_runs_and_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
