/* The memory plan: tensors alive together never overlap, and reuse pays. */
#include "tests/nn/fixture.h"

#include "core/nn/graph.h"
#include "core/nn/lora.h"

static mm_graph *new_graph(const mm_model_config *config, mm_graph_options options)
{
    mm_model_table table;
    mm_graph *graph = NULL;
    CHECK_OK(mm_model_table_new(&table, config, failure));
    CHECK_OK(mm_graph_new(&graph, config, &table, &options, failure));
    mm_model_table_drop(&table);
    return graph;
}

static int64_t bytes_of(const mm_graph *graph, const mm_graph_tensor *tensor)
{
    return tensor->rows * tensor->cols *
           (int64_t)(tensor->is_real ? graph->real_bytes : graph->act_bytes);
}

static void check_plan(const mm_graph *graph)
{
    for (int32_t i = 0; i < graph->n_tensors; i++) {
        const mm_graph_tensor *a = &graph->tensors[i];
        if (a->cls != MM_CLASS_ACTIVATION || a->storage != i) continue;
        assert_true(a->offset >= 0 &&
                    a->offset + bytes_of(graph, a) <= graph->elements[MM_CLASS_ACTIVATION]);
        assert_true(a->first >= 0 && a->first <= a->last);
        for (int32_t j = 0; j < i; j++) {
            const mm_graph_tensor *b = &graph->tensors[j];
            if (b->cls != MM_CLASS_ACTIVATION || b->storage != j) continue;
            const bool together = a->first <= b->last && b->first <= a->last;
            const bool apart = a->offset + bytes_of(graph, a) <= b->offset ||
                               b->offset + bytes_of(graph, b) <= a->offset;
            if (together && !apart) fail_msg("%s and %s overlap", a->name, b->name);
        }
    }
}

static void test_tensors_alive_together_do_not_overlap(void **state)
{
    (void)state;
    for (int variant = 0; variant < 64; variant++) {
        mm_model_config config = variant & 1 ? fixture_v2() : fixture_v3();
        if (variant & 2) config.dropout = 0.1;
        if (variant & 16) {
            config.lora_rank = 3;
            config.lora_alpha = 3;
            config.lora_targets =
                variant & 32 ? MM_LORA_ALL : MM_LORA_Q_PROJ | MM_LORA_O_PROJ | MM_LORA_DOWN_PROJ;
        }
        const mm_graph_options options = {.max_tokens = 50,
                                          .real_bytes = 4,
                                          .act_bytes = variant & 8 ? 2 : 4,
                                          .is_training = variant & 4};
        mm_graph *graph = new_graph(&config, options);
        check_plan(graph);
        mm_graph_free(graph);
    }
}

static void test_reuse_saves_memory(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    config.num_hidden_layers = 8;
    int64_t elements[2][2];
    for (int training = 0; training < 2; training++) {
        for (int no_reuse = 0; no_reuse < 2; no_reuse++) {
            const mm_graph_options options = {.max_tokens = 50,
                                              .real_bytes = 4,
                                              .act_bytes = 4,
                                              .is_training = training,
                                              .no_reuse = no_reuse};
            mm_graph *graph = new_graph(&config, options);
            elements[training][no_reuse] = graph->elements[MM_CLASS_ACTIVATION];
            mm_graph_free(graph);
        }
    }
    assert_true(elements[0][0] * 8 < elements[0][1]);      // forward keeps nothing
    assert_true(elements[1][0] * 10 < elements[1][1] * 8); // training keeps what backward reads
}

static void test_every_parameter_belongs_to_one_operation(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_graph *graph = new_graph(
        &config,
        (mm_graph_options){.max_tokens = 8, .real_bytes = 4, .act_bytes = 4, .is_training = true});
    int64_t covered = 0;
    for (int32_t i = 0; i < graph->n_tensors; i++)
        if (graph->tensors[i].cls == MM_CLASS_PARAM)
            covered += graph->tensors[i].rows * graph->tensors[i].cols;
    assert_int_equal(covered, mm_model_config_params(&config));
    assert_int_equal(graph->elements[MM_CLASS_STATE], 2 * covered);
    mm_graph_free(graph);
}

static const mm_graph_tensor *find_tensor(const mm_graph *graph, const char *name)
{
    for (int32_t i = 0; i < graph->n_tensors; i++)
        if (strcmp(graph->tensors[i].name, name) == 0) return &graph->tensors[i];
    return NULL;
}

static void test_what_is_frozen_costs_nothing(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    const mm_graph_options options = {
        .max_tokens = 50, .real_bytes = 4, .act_bytes = 4, .is_training = true};
    mm_graph *full = new_graph(&config, options);
    config.lora_rank = 2;
    config.lora_alpha = 2;
    config.lora_targets = MM_LORA_O_PROJ;
    mm_graph *graph = new_graph(&config, options);
    assert_int_equal(graph->elements[MM_CLASS_GRAD], mm_model_config_trainable(&config));
    assert_int_equal(graph->elements[MM_CLASS_STATE], 2 * mm_model_config_trainable(&config));
    assert_true(graph->elements[MM_CLASS_ACTIVATION] < full->elements[MM_CLASS_ACTIVATION]);
    // Nothing trains before the first layer's output projection.
    assert_int_equal(find_tensor(graph, "0.heads")->grad, MM_NONE);
    assert_int_equal(find_tensor(graph, "0.qkv")->grad, MM_NONE);
    assert_int_not_equal(find_tensor(graph, "1.qkv")->grad, MM_NONE);
    // Only the weight gradient of a product would read these.
    assert_null(find_tensor(graph, "0.swiglu.again"));
    assert_non_null(find_tensor(full, "0.swiglu.again"));
    mm_graph_free(graph);
    mm_graph_free(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_alive_together_do_not_overlap),
        cmocka_unit_test(test_reuse_saves_memory),
        cmocka_unit_test(test_what_is_frozen_costs_nothing),
        cmocka_unit_test(test_every_parameter_belongs_to_one_operation),
    };
    return cmocka_run_group_tests_name("nn/graph", tests, NULL, NULL);
}
