/* Derives the backward list and plans memory. See graph.h.
 *
 * The subtle rule: the backward of an addition costs nothing. The gradients of a residual sum and
 * of both its inputs share one memory, and so do those of a product before and after its adapters;
 * check_shared proves on the finished list that no reader sees a later writer's values.
 *
 * Frozen parameters have no gradient. An operation before which nothing trains has no backward
 * step, and a product with a frozen weight does not keep its input.
 *
 * What costs little to make again is not kept: the results of norms and of SwiGLU, which only the
 * weight gradient of the next product reads. They are a third of what backward would need.
 */
#include "core/nn/graph.h"

#include "core/base/mem.h"

#include <stdio.h>

enum {
    OPS_PER_LAYER = 18, // at most, of which 7 adapters
    OPS_OUTSIDE = 4,
    TENSORS_PER_OP = 2 * MM_OP_MAX_OUT + 1 + 2 * 3, // outputs, their gradients, a second making,
                                                    // parameters with gradient and two moments
    ALIGNMENT = 64                                  // bytes
};

int32_t mm_graph_tensor_add(mm_graph *graph, const char *name, mm_class cls, int64_t rows,
                            int64_t cols, int64_t offset, bool is_real)
{
    MM_ASSERT(graph->n_tensors < graph->tensor_capacity);
    const int32_t index = graph->n_tensors++;
    mm_graph_tensor *tensor = &graph->tensors[index];
    *tensor = (mm_graph_tensor){.cls = cls,
                                .rows = rows,
                                .cols = cols,
                                .offset = offset,
                                .is_real = is_real,
                                .grad = MM_NONE,
                                .storage = index,
                                .first = MM_NONE,
                                .last = MM_NONE};
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    return index;
}

void mm_graph_op_add(mm_graph *graph, const mm_graph_op *op)
{
    MM_ASSERT(graph->n_ops < graph->op_capacity);
    graph->ops[graph->n_ops++] = *op;
    graph->steps[graph->n_steps++] = (mm_graph_step){.op = graph->n_ops - 1, .again = MM_NONE};
}

static int32_t new_grad(mm_graph *graph, int32_t of)
{
    char name[48];
    snprintf(name, sizeof name, "d.%.44s", graph->tensors[of].name);
    const mm_graph_tensor tensor = graph->tensors[of];
    const int32_t grad = mm_graph_tensor_add(graph, name, MM_CLASS_ACTIVATION, tensor.rows,
                                             tensor.cols, 0, tensor.is_real);
    graph->tensors[of].grad = grad;
    return grad;
}

// Gradients and moments have the layout of the parameters that train.
static void add_param_grads(mm_graph *graph, const mm_model_table *table)
{
    const int32_t n = graph->n_tensors;
    for (int32_t i = 0; i < n; i++) {
        mm_graph_tensor tensor = graph->tensors[i];
        if (tensor.cls != MM_CLASS_PARAM || tensor.offset < table->first_trained) continue;
        tensor.offset -= table->first_trained;
        graph->tensors[i].grad = mm_graph_tensor_add(graph, tensor.name, MM_CLASS_GRAD, tensor.rows,
                                                     tensor.cols, tensor.offset, true);
        mm_graph_tensor_add(graph, tensor.name, MM_CLASS_STATE, tensor.rows, tensor.cols,
                            tensor.offset, true);
        mm_graph_tensor_add(graph, tensor.name, MM_CLASS_STATE, tensor.rows, tensor.cols,
                            graph->elements[MM_CLASS_GRAD] + tensor.offset, true);
    }
}

// A gradient that lives in the memory of another.
static void share_grad(mm_graph *graph, int32_t of, int32_t with)
{
    const int32_t grad = new_grad(graph, of);
    graph->tensors[grad].storage = graph->tensors[with].storage;
    graph->tensors[grad].is_real = graph->tensors[with].is_real;
}

// The operation that makes `tensor`, if making it again costs little beside the product that reads
// it; else MM_NONE.
static int32_t cheap_maker(const mm_graph *graph, int32_t tensor)
{
    for (int32_t i = 0; i < graph->n_ops; i++) {
        const mm_op_kind kind = graph->ops[i].kind;
        if (graph->ops[i].out[0] == tensor)
            return kind == MM_OP_RMSNORM || kind == MM_OP_ADD_RMSNORM || kind == MM_OP_SWIGLU
                       ? i
                       : MM_NONE;
    }
    return MM_NONE;
}

static bool has_grads(const mm_graph *graph, const mm_graph_op *op)
{
    for (int i = 0; i < MM_OP_MAX_PARAM; i++)
        if (op->param[i] != MM_NONE && graph->tensors[op->param[i]].grad != MM_NONE) return true;
    return false;
}

static bool needs_backward(const mm_graph *graph, const mm_graph_op *op)
{
    for (int i = 0; i < MM_OP_MAX_IN; i++)
        if (op->in[i] != MM_NONE && graph->tensors[op->in[i]].needs_grad) return true;
    return has_grads(graph, op);
}

static void find_needs(mm_graph *graph)
{
    for (int32_t at = 0; at < graph->n_ops; at++) {
        const mm_graph_op *op = &graph->ops[at];
        const bool needs = needs_backward(graph, op);
        for (int i = 0; i < MM_OP_MAX_OUT; i++)
            if (op->out[i] != MM_NONE) graph->tensors[op->out[i]].needs_grad = needs;
    }
}

// Whether the backward of this operation multiplies with its input: for the gradient of a weight.
static bool multiplies_input(const mm_graph *graph, const mm_graph_op *op)
{
    return op->kind == MM_OP_LORA || (op->kind == MM_OP_LINEAR && has_grads(graph, op));
}

// Appends the step that makes the input of a product again, once for all that read it; returns the
// tensor it makes.
static int32_t make_again(mm_graph *graph, int32_t tensor)
{
    const int32_t maker = cheap_maker(graph, tensor);
    if (maker == MM_NONE) return MM_NONE;
    for (int32_t s = graph->n_ops; s < graph->n_steps; s++)
        if (graph->steps[s].kind == MM_STEP_AGAIN && graph->steps[s].op == maker)
            return graph->steps[s].again;
    char name[48];
    snprintf(name, sizeof name, "%.40s.again", graph->tensors[tensor].name);
    const mm_graph_tensor kept = graph->tensors[tensor];
    const int32_t again = mm_graph_tensor_add(graph, name, MM_CLASS_ACTIVATION, kept.rows,
                                              kept.cols, 0, kept.is_real);
    graph->steps[graph->n_steps++] =
        (mm_graph_step){.op = maker, .kind = MM_STEP_AGAIN, .again = again};
    return again;
}

// Whether the gradient of input i is that of the result, which this operation leaves as it is.
static bool passes_on(const mm_graph_op *op, int i) { return op->kind == MM_OP_LORA && i == 1; }

// The gradients of the sum and of both its inputs are one, whether both are wanted or not.
static void derive_sum(mm_graph *graph, const mm_graph_op *op, mm_graph_step *step)
{
    const int32_t sum = op->out[2];
    step->d_in_add[0] = graph->tensors[sum].grad != MM_NONE;
    if (!step->d_in_add[0]) new_grad(graph, sum);
    for (int i = 0; i < 2; i++) {
        MM_ASSERT(graph->tensors[op->in[i]].grad == MM_NONE);
        share_grad(graph, op->in[i], graph->tensors[sum].grad);
    }
}

// The gradients of the other operations' inputs.
static void derive_inputs(mm_graph *graph, const mm_graph_op *op, mm_graph_step *step)
{
    for (int i = 0; i < MM_OP_MAX_IN; i++) {
        const int32_t x = op->in[i];
        if (x == MM_NONE || !graph->tensors[x].needs_grad) continue;
        step->d_in_add[i] = graph->tensors[x].grad != MM_NONE;
        if (passes_on(op, i)) {
            MM_ASSERT(!step->d_in_add[i]);
            share_grad(graph, x, graph->tensors[op->out[0]].grad);
        } else if (!step->d_in_add[i]) {
            new_grad(graph, x);
        }
    }
}

// Walks the forward list backwards. The first step that writes a gradient overwrites, later ones
// add.
static void derive_backward(mm_graph *graph, bool keep_all)
{
    for (int32_t at = graph->n_ops - 1; at >= 0; at--) {
        const mm_graph_op *op = &graph->ops[at];
        mm_graph_step step = {.op = at, .kind = MM_STEP_BACKWARD, .again = MM_NONE};
        if (!needs_backward(graph, op)) continue;
        if (multiplies_input(graph, op) && !keep_all) step.again = make_again(graph, op->in[0]);
        if (op->kind == MM_OP_ADD_RMSNORM) {
            derive_sum(graph, op, &step);
        } else {
            derive_inputs(graph, op, &step);
        }
        graph->steps[graph->n_steps++] = step;
    }
}

static void touch(mm_graph *graph, int32_t tensor, int32_t step)
{
    if (tensor == MM_NONE) return;
    mm_graph_tensor *root = &graph->tensors[graph->tensors[tensor].storage];
    if (root->first == MM_NONE) root->first = step;
    root->last = step;
}

static void touch_again(mm_graph *graph, const mm_graph_op *op, int32_t step)
{
    touch(graph, op->kind == MM_OP_ADD_RMSNORM ? op->out[2] : op->in[0], step);
    touch(graph, op->out[1], step);
    touch(graph, graph->steps[step].again, step);
}

static void touch_backward(mm_graph *graph, const mm_graph_op *op, int32_t step)
{
    const mm_op_info *info = mm_op_info_of(op->kind);
    // Rotation alone is undone by rotating back.
    const bool reads_in = info->reads_in && !(op->kind == MM_OP_QKNORM_ROPE && !op->attr.qk_norm) &&
                          !(op->kind == MM_OP_LINEAR && !multiplies_input(graph, op));
    const int32_t again = graph->steps[step].again;
    if (reads_in) touch(graph, again == MM_NONE ? op->in[0] : again, step);
    for (int i = 0; i < MM_OP_MAX_IN; i++)
        if (op->in[i] != MM_NONE) touch(graph, graph->tensors[op->in[i]].grad, step);
    if (info->reads_out) touch(graph, op->out[0], step);
    if (info->reads_aux) touch(graph, op->out[1], step);
    if (info->reads_sum) touch(graph, op->out[2], step);
    if (op->out[0] != MM_NONE) touch(graph, graph->tensors[op->out[0]].grad, step);
}

static void find_lives(mm_graph *graph)
{
    for (int32_t s = 0; s < graph->n_steps; s++) {
        const mm_graph_op *op = &graph->ops[graph->steps[s].op];
        if (graph->steps[s].kind == MM_STEP_BACKWARD) {
            touch_backward(graph, op, s);
            continue;
        }
        if (graph->steps[s].kind == MM_STEP_AGAIN) {
            touch_again(graph, op, s);
            continue;
        }
        for (int i = 0; i < MM_OP_MAX_IN; i++)
            touch(graph, op->in[i], s);
        for (int i = 0; i < MM_OP_MAX_OUT; i++)
            touch(graph, op->out[i], s);
    }
}

// Whether the backward of step s reads gradient `grad`: as its d_out, or to add to it.
static bool reads_grad(const mm_graph *graph, int32_t s, int32_t grad)
{
    if (graph->steps[s].kind != MM_STEP_BACKWARD) return false;
    const mm_graph_op *op = &graph->ops[graph->steps[s].op];
    for (int i = 0; i < MM_OP_MAX_OUT; i++)
        if (op->out[i] != MM_NONE && graph->tensors[op->out[i]].grad == grad) return true;
    return false;
}

static bool writes_storage(const mm_graph *graph, int32_t s, int32_t storage)
{
    if (graph->steps[s].kind != MM_STEP_BACKWARD) return false;
    const mm_graph_op *op = &graph->ops[graph->steps[s].op];
    for (int i = 0; i < MM_OP_MAX_IN; i++) {
        const int32_t grad = op->in[i] == MM_NONE ? MM_NONE : graph->tensors[op->in[i]].grad;
        if (grad == MM_NONE || passes_on(op, i)) continue;
        if (graph->tensors[grad].storage == storage) return true;
    }
    return false;
}

// Whether the sharing gradient of `owner` is complete with the backward of this operation.
static bool completes(const mm_graph_op *op, int32_t owner)
{
    if (op->kind == MM_OP_LORA) return op->in[1] == owner;
    return op->kind == MM_OP_ADD_RMSNORM && (op->in[0] == owner || op->in[1] == owner);
}

// From the addition that completes a sharing gradient on, no other step may write into the memory
// before the last read of this one.
static void check_shared(const mm_graph *graph)
{
    for (int32_t owner = 0; owner < graph->n_tensors; owner++) {
        const int32_t grad = graph->tensors[owner].grad;
        if (grad == MM_NONE || graph->tensors[grad].storage == grad) continue;
        bool is_foreign = true;
        for (int32_t s = graph->n_ops; s < graph->n_steps; s++) {
            const mm_graph_op *op = &graph->ops[graph->steps[s].op];
            if (reads_grad(graph, s, grad)) MM_ASSERT(!is_foreign);
            if (graph->steps[s].kind != MM_STEP_BACKWARD) continue;
            const bool is_own = op->in[0] == owner || op->in[1] == owner;
            if (completes(op, owner)) {
                is_foreign = false;
            } else if (!is_own && writes_storage(graph, s, graph->tensors[grad].storage)) {
                is_foreign = true;
            }
        }
    }
}

static bool lives_overlap(const mm_graph_tensor *a, const mm_graph_tensor *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int64_t size_of(const mm_graph *graph, const mm_graph_tensor *tensor)
{
    const size_t element = tensor->is_real ? graph->real_bytes : graph->act_bytes;
    return (tensor->rows * tensor->cols * (int64_t)element + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

// Lowest offset at which `tensor` meets none of the placed tensors alive at the same time.
static int64_t lowest_gap(const mm_graph *graph, const int32_t *placed, int32_t n_placed,
                          const mm_graph_tensor *tensor)
{
    int64_t offset = 0;
    bool is_moved = true;
    while (is_moved) {
        is_moved = false;
        for (int32_t i = 0; i < n_placed; i++) {
            const mm_graph_tensor *other = &graph->tensors[placed[i]];
            const bool apart = offset + size_of(graph, tensor) <= other->offset ||
                               other->offset + size_of(graph, other) <= offset;
            if (apart || !lives_overlap(tensor, other)) continue;
            offset = other->offset + size_of(graph, other);
            is_moved = true;
        }
    }
    return offset;
}

// Largest first, each at the lowest free place: close to the peak of what is alive at once.
static mm_status plan_activations(mm_graph *graph, bool no_reuse, mm_err *err)
{
    int32_t *order = mm_calloc((size_t)graph->n_tensors, sizeof *order);
    if (!order) return MM_FAIL(err, MM_ENOMEM, "plan of %d tensors", (int)graph->n_tensors);
    int32_t n = 0;
    for (int32_t i = 0; i < graph->n_tensors; i++) {
        const mm_graph_tensor *tensor = &graph->tensors[i];
        if (tensor->cls != MM_CLASS_ACTIVATION || tensor->storage != i || tensor->first == MM_NONE)
            continue;
        int32_t at = n++;
        for (; at > 0 && size_of(graph, &graph->tensors[order[at - 1]]) < size_of(graph, tensor);
             at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    int64_t end = 0;
    for (int32_t i = 0; i < n; i++) {
        mm_graph_tensor *tensor = &graph->tensors[order[i]];
        tensor->offset = no_reuse ? end : lowest_gap(graph, order, i, tensor);
        if (tensor->offset + size_of(graph, tensor) > end)
            end = tensor->offset + size_of(graph, tensor);
    }
    for (int32_t i = 0; i < graph->n_tensors; i++)
        graph->tensors[i].offset = graph->tensors[graph->tensors[i].storage].offset;
    graph->elements[MM_CLASS_ACTIVATION] = end;
    mm_free(order);
    return MM_OK;
}

mm_status mm_graph_new(mm_graph **out, const mm_model_config *config, const mm_model_table *table,
                       const mm_graph_options *options, mm_err *err)
{
    mm_status status = MM_OK;
    *out = NULL;
    MM_ASSERT(options->max_tokens > 0 && options->max_tokens <= MM_OP_MAX_TOKENS);
    mm_graph *graph = mm_calloc(1, sizeof *graph);
    if (!graph) return MM_FAIL(err, MM_ENOMEM, "graph");
    graph->max_tokens = options->max_tokens;
    graph->real_bytes = options->real_bytes;
    graph->act_bytes = options->act_bytes;
    graph->is_training = options->is_training;
    graph->op_capacity = config->num_hidden_layers * OPS_PER_LAYER + OPS_OUTSIDE;
    graph->tensor_capacity = graph->op_capacity * TENSORS_PER_OP;
    graph->ops = mm_calloc((size_t)graph->op_capacity, sizeof *graph->ops);
    graph->steps = mm_calloc((size_t)graph->op_capacity * 3, sizeof *graph->steps);
    graph->tensors = mm_calloc((size_t)graph->tensor_capacity, sizeof *graph->tensors);
    if (!graph->ops || !graph->steps || !graph->tensors) {
        status = MM_FAIL(err, MM_ENOMEM, "graph of %d operations", (int)graph->op_capacity);
        goto done;
    }
    mm_graph_decoder_build(graph, config, table);
    graph->elements[MM_CLASS_PARAM] = table->n_elements;
    if (options->is_training) {
        graph->elements[MM_CLASS_GRAD] = table->n_elements - table->first_trained;
        graph->elements[MM_CLASS_STATE] = 2 * graph->elements[MM_CLASS_GRAD];
        add_param_grads(graph, table);
        find_needs(graph);
        derive_backward(graph, options->keep_all);
    }
    find_lives(graph);
    check_shared(graph);
    MM_GO(plan_activations(graph, options->no_reuse, err));
    *out = graph;
    graph = NULL;
done:
    mm_graph_free(graph);
    return status;
}

void mm_graph_free(mm_graph *graph)
{
    if (!graph) return;
    mm_free(graph->ops);
    mm_free(graph->steps);
    mm_free(graph->tensors);
    mm_free(graph);
}
