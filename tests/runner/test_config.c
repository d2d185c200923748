/* Hyperparameters: which stage has which, with what default, and what ends up in the record. */
#include "check.h"

#include "core/nn/lora.h"
#include "runner/config.h"
#include "runner/config_table.h"

#include <stdio.h>

static mm_config *make(const char *stage)
{
    mm_config *config = NULL;
    mm_err err = {0};
    if (mm_config_new(&config, stage, &err) != MM_OK) fail_msg("%s: %s", stage, err.message);
    return config;
}

static void set(mm_config *config, const char *name, const char *value, const char *origin)
{
    mm_err err = {0};
    if (mm_config_set(config, name, value, origin, &err) != MM_OK)
        fail_msg("%s = %s: %s", name, value, err.message);
}

/* A small shape whose query heads are as wide as the model and whose key heads are not. */
static mm_model_config shape_of(mm_config *config)
{
    mm_model_config shape;
    mm_err err = {0};
    set(config, "hidden", "32", "test");
    set(config, "layers", "1", "test");
    set(config, "heads", "2", "test");
    if (!mm_config_is_set(config, "num_key_value_heads")) set(config, "kv-heads", "1", "test");
    if (mm_config_model(config, 300, &shape, &err) != MM_OK) fail_msg("%s", err.message);
    return shape;
}

static void stages_begin_with_the_numbers_of_the_recipe(void **state)
{
    static const struct {
        const char *stage;
        const char *name;
        const char *value;
        const char *minimind;
    } ROWS[] = {
        {"pretrain", "batch_size", "8", "32"},
        {"pretrain", "accumulation_steps", "1", "8"},
        {"pretrain", "learning_rate", "5e-4", NULL},
        {"pretrain", "max_seq_len", "340", NULL},
        {"pretrain", "epochs", "1", "2"},
        {"pretrain", "pack", "true", "false"},
        {"sft", "epochs", "2", NULL},
        {"sft", "batch_size", "16", NULL},
        {"sft", "learning_rate", "1e-5", NULL},
        {"sft", "max_seq_len", "768", NULL},
        {"sft", "mask", "all-answers", NULL},
        {"sft", "pack", "true", "false"},
        {"lora", "epochs", "10", NULL},
        {"lora", "batch_size", "32", NULL},
        {"lora", "learning_rate", "1e-4", NULL},
        {"lora", "max_seq_len", "340", NULL},
        {"lora", "lora_rank", "16", NULL},
        {"lora", "lora_targets", "square", NULL},
        {"dpo", "epochs", "1", NULL},
        {"dpo", "batch_size", "4", NULL},
        {"dpo", "learning_rate", "1e-6", "4e-8"},
        {"dpo", "max_seq_len", "1024", NULL},
        {"dpo", "beta", "0.15", NULL},
        {"dpo", "dpo_loss", "sigmoid", NULL},
        {"dpo", "lora_rank", "0", NULL},
        {"distill", "epochs", "6", NULL},
        {"distill", "batch_size", "32", NULL},
        {"distill", "learning_rate", "5e-6", NULL},
        {"distill", "max_seq_len", "340", NULL},
        {"distill", "distill_alpha", "0.5", NULL},
        {"distill", "distill_temperature", "1.5", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        mm_config *config = make(ROWS[i].stage);
        mm_config *wanted = make(ROWS[i].stage);
        set(wanted, ROWS[i].name, ROWS[i].value, "test");
        const char *value = mm_config_text(wanted, ROWS[i].name);
        CHECK_ROW(strcmp(mm_config_text(config, ROWS[i].name), value) == 0, i);
        CHECK_ROW(!mm_config_is_set(config, ROWS[i].name), i);
        set(config, "compat", "minimind", "command line");
        if (ROWS[i].minimind) {
            set(wanted, ROWS[i].name, ROWS[i].minimind, "test");
            value = mm_config_text(wanted, ROWS[i].name);
        }
        CHECK_ROW(strcmp(mm_config_text(config, ROWS[i].name), value) == 0, i);
        CHECK_ROW(!mm_config_is_set(config, ROWS[i].name), i);
        mm_config_free(wanted);
        mm_config_free(config);
    }
}

static void compat_leaves_what_was_chosen(void **state)
{
    (void)state;
    mm_config *config = make("dpo");
    set(config, "lr", "1e-5", "file");
    set(config, "compat", "minimind", "file");
    assert_string_equal(mm_config_text(config, "learning_rate"), "1e-05");
    mm_config_free(config);
    config = make("dpo");
    set(config, "compat", "minimind", "file");
    set(config, "lr", "1e-5", "command line");
    assert_string_equal(mm_config_text(config, "learning_rate"), "1e-05");
    mm_config_free(config);
    // The command line takes back what a file asked for.
    config = make("dpo");
    set(config, "compat", "minimind", "file");
    set(config, "compat", "off", "command line");
    assert_string_equal(mm_config_text(config, "learning_rate"), "1e-06");
    mm_config_free(config);
}

static void a_flag_means_one_thing_in_a_stage(void **state)
{
    (void)state;
    for (int i = 0; i < MM_HYPERS; i++)
        for (int k = i + 1; k < MM_HYPERS; k++) {
            const mm_hyper *a = &mm_hyper_table[i];
            const mm_hyper *b = &mm_hyper_table[k];
            if ((a->stages & b->stages) == 0) continue;
            if (strcmp(a->flag, b->flag) == 0 || strcmp(a->name, b->name) == 0)
                fail_msg("two rows are called --%s or %s", b->flag, b->name);
        }
    mm_config *lora = make("lora");
    mm_config *distill = make("distill");
    mm_config *sft = make("sft");
    set(lora, "dropout", "0.1", "test");
    set(lora, "alpha", "32", "test");
    set(distill, "alpha", "0.25", "test");
    set(sft, "dropout", "0.2", "test");
    assert_string_equal(mm_config_text(lora, "lora_dropout"), "0.1");
    assert_string_equal(mm_config_text(lora, "dropout"), "");
    assert_string_equal(mm_config_text(lora, "lora_alpha"), "32");
    assert_string_equal(mm_config_text(distill, "distill_alpha"), "0.25");
    assert_string_equal(mm_config_text(sft, "dropout"), "0.2");
    mm_config_free(sft);
    mm_config_free(distill);
    mm_config_free(lora);
}

static void the_options_of_a_stage_are_its_own(void **state)
{
    static const struct {
        const char *stage;
        const char *flag;
        bool has;
    } ROWS[] = {
        {"pretrain", "beta", false}, {"pretrain", "mask", false}, {"sft", "mask", true},
        {"sft", "rank", false},      {"lora", "rank", true},      {"dpo", "rank", true},
        {"dpo", "beta", true},       {"dpo", "beta1", true},      {"distill", "alpha", true},
        {"", "beta", true},          {"", "alpha", true},         {"", "batch", true}};
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        int n = 0;
        for (const mm_option *row = mm_config_options(ROWS[i].stage); row->name; row++)
            n += strcmp(row->name, ROWS[i].flag) == 0;
        CHECK_ROW(n == (ROWS[i].has ? 1 : 0), i);
    }
}

static void what_another_stage_has_is_said(void **state)
{
    mm_err err = {0};
    (void)state;
    mm_config *sft = make("sft");
    assert_int_equal(mm_config_set(sft, "beta", "0.1", "test", &err), MM_EUSAGE);
    check_message(&err, "'beta'");
    check_message(&err, "belongs to dpo");
    assert_int_equal(mm_config_set(sft, "rank", "4", "test", &err), MM_EUSAGE);
    check_message(&err, "belongs to lora, dpo");
    assert_int_equal(mm_config_set(sft, "epoch", "4", "test", &err), MM_EUSAGE);
    check_message(&err, "did you mean 'epochs'?");
    // Code that several stages share may ask for what one of them does not have.
    assert_int_equal(mm_config_int(sft, "lora_rank"), 0);
    assert_false(mm_config_is_set(sft, "lora_rank"));
    mm_config_free(sft);
    mm_config *none = NULL;
    assert_int_equal(mm_config_new(&none, "ppo", &err), MM_EUSAGE);
    check_message(&err, "pretrain,sft,lora,dpo,distill");
    mm_config *import = make("import");
    assert_string_equal(mm_config_stage(import), "pretrain");
    mm_config_free(import);
}

static void adapters_fit_the_shape(void **state)
{
    static const struct {
        const char *kv_heads;
        const char *targets;
        const char *resolved;
    } ROWS[] = {{"1", NULL, "q_proj+o_proj"},
                {"2", NULL, "q_proj+k_proj+v_proj+o_proj"},
                {"1", "all", "all"},
                {"1", "v_proj,q_proj", "q_proj+v_proj"}};
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        uint32_t targets = 0;
        mm_config *config = make("lora");
        set(config, "kv-heads", ROWS[i].kv_heads, "test");
        set(config, "rank", "4", "test");
        if (ROWS[i].targets) set(config, "targets", ROWS[i].targets, "test");
        const mm_model_config shape = shape_of(config);
        CHECK_ROW(strcmp(mm_config_text(config, "lora_targets"), ROWS[i].resolved) == 0, i);
        CHECK_ROW(mm_lora_targets_parse(ROWS[i].resolved, &targets, NULL) == MM_OK, i);
        CHECK_ROW(shape.lora_targets == targets, i);
        CHECK_ROW(shape.lora_rank == 4, i);
        // Unscaled, as the original: alpha is the rank.
        CHECK_ROW(strcmp(mm_config_text(config, "lora_alpha"), "4") == 0, i);
        mm_config_free(config);
    }
    mm_err err = {0};
    mm_config *config = make("lora");
    assert_int_equal(mm_config_set(config, "targets", "q_proj+qproj", "test", &err), MM_EUSAGE);
    check_message(&err, "--targets");
    mm_config_free(config);
}

static void preferences_without_a_rank_train_all_weights(void **state)
{
    mm_arena arena = {0};
    mm_param *params = NULL;
    size_t n = 0;
    mm_err err = {0};
    (void)state;
    mm_config *config = make("dpo");
    assert_int_equal(shape_of(config).lora_rank, 0);
    assert_int_equal(mm_config_params(config, &arena, &params, &n, &err), MM_OK);
    for (size_t i = 0; i < n; i++)
        if (strncmp(params[i].name, "lora_", 5) == 0 && strcmp(params[i].name, "lora_rank") != 0)
            fail_msg("the record speaks of %s", params[i].name);
    mm_config_free(config);
    config = make("dpo");
    set(config, "rank", "2", "test");
    assert_int_equal(shape_of(config).lora_rank, 2);
    mm_config_free(config);
    config = make("dpo");
    set(config, "alpha", "8", "command line");
    mm_model_config shape;
    assert_int_equal(mm_config_model(config, 300, &shape, &err), MM_ECONFIG);
    check_message(&err, "--alpha");
    mm_config_free(config);
    mm_arena_drop(&arena);
}

static void what_one_loss_looks_at_is_not_given_to_another(void **state)
{
    static const struct {
        const char *loss;
        const char *name;
        const char *value;
        bool fits;
    } ROWS[] = {
        {"ipo", "label-smoothing", "0.1", false}, {"sigmoid", "label-smoothing", "0.1", true},
        {"sigmoid", "gamma", "1", false},         {"simpo", "gamma", "1", true},
        {"simpo", "logp", "sum", false},          {"hinge", "logp", "mean", true}};
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        mm_model_config shape;
        mm_err err = {0};
        mm_config *config = make("dpo");
        set(config, "loss", ROWS[i].loss, "test");
        set(config, ROWS[i].name, ROWS[i].value, "test");
        const mm_status status = mm_config_model(config, 300, &shape, &err);
        CHECK_ROW(status == (ROWS[i].fits ? MM_OK : MM_ECONFIG), i);
        if (!ROWS[i].fits) check_message(&err, ROWS[i].name);
        mm_config_free(config);
    }
    mm_config *simpo = make("dpo");
    set(simpo, "loss", "simpo", "test");
    shape_of(simpo);
    assert_string_equal(mm_config_text(simpo, "logp"), "mean");
    mm_config_free(simpo);
}

/* What a run's record says makes the same configuration again. */
static void a_record_reads_back_equal(void **state)
{
    static const char *const STAGES[] = {"pretrain", "sft", "lora", "dpo", "distill"};
    (void)state;
    for (size_t k = 0; k < sizeof STAGES / sizeof STAGES[0]; k++) {
        mm_arena arena = {0};
        mm_param *params[2] = {NULL, NULL};
        size_t n[2] = {0, 0};
        mm_err err = {0};
        mm_config *first = make(STAGES[k]);
        mm_config *second = make(STAGES[k]);
        set(first, "compat", "minimind", "command line");
        set(first, "lr", "3e-4", "command line");
        shape_of(first);
        assert_int_equal(mm_config_params(first, &arena, &params[0], &n[0], &err), MM_OK);
        assert_int_equal(mm_config_from_params(second, params[0], n[0], NULL, &err), MM_OK);
        mm_model_config shape;
        assert_int_equal(mm_config_model(second, 300, &shape, &err), MM_OK);
        assert_int_equal(mm_config_params(second, &arena, &params[1], &n[1], &err), MM_OK);
        CHECK_ROW(n[0] == n[1], k);
        for (size_t i = 0; i < n[0]; i++) {
            CHECK_ROW(strcmp(params[0][i].name, params[1][i].name) == 0, i);
            CHECK_ROW(strcmp(params[0][i].value, params[1][i].value) == 0, i);
            CHECK_ROW(strcmp(params[0][i].origin, params[1][i].origin) == 0, i);
        }
        mm_config_free(second);
        mm_config_free(first);
        mm_arena_drop(&arena);
    }
}

static void a_child_takes_shape_and_dtype_of_its_parent(void **state)
{
    mm_arena arena = {0};
    mm_param *params = NULL;
    size_t n = 0;
    mm_err err = {0};
    mm_str flags = {0};
    (void)state;
    mm_config *parent = make("pretrain");
    mm_config *child = make("sft");
    shape_of(parent);
    set(parent, "dtype", "bf16", "command line");
    set(parent, "dropout", "0.3", "command line");
    set(parent, "batch", "3", "command line");
    assert_int_equal(mm_config_params(parent, &arena, &params, &n, &err), MM_OK);
    assert_int_equal(mm_config_shape_from_params(child, params, n, &err), MM_OK);
    assert_int_equal(mm_config_int(child, "hidden_size"), 32);
    assert_int_equal(mm_config_int(child, "num_key_value_heads"), 1);
    assert_string_equal(mm_config_text(child, "dtype"), "bf16");
    assert_string_equal(mm_config_text(child, "dropout"), "0");
    assert_int_equal(mm_config_int(child, "batch_size"), 16);
    set(child, "lr", "1e-4", "command line");
    mm_config_add_flags(child, &flags);
    assert_string_equal(mm_str_text(&flags), " --lr 0.0001");
    mm_str_drop(&flags);
    mm_config_free(child);
    mm_config_free(parent);
    mm_arena_drop(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_begin_with_the_numbers_of_the_recipe),
        cmocka_unit_test(compat_leaves_what_was_chosen),
        cmocka_unit_test(a_flag_means_one_thing_in_a_stage),
        cmocka_unit_test(the_options_of_a_stage_are_its_own),
        cmocka_unit_test(what_another_stage_has_is_said),
        cmocka_unit_test(adapters_fit_the_shape),
        cmocka_unit_test(preferences_without_a_rank_train_all_weights),
        cmocka_unit_test(what_one_loss_looks_at_is_not_given_to_another),
        cmocka_unit_test(a_record_reads_back_equal),
        cmocka_unit_test(a_child_takes_shape_and_dtype_of_its_parent),
    };
    return cmocka_run_group_tests_name("runner/config", tests, NULL, NULL);
}
