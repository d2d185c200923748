/* Time, work and traffic of every operation, and the probes to hold them against. See profile.h.
 *
 * Work is what the kernels do (attention's backward makes the scores again: five products), traffic
 * what they must move at least once.
 */
#include "core/nn/profile.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ENTRIES = 64 };

struct mm_profile {
    mm_op_profile entries[MAX_ENTRIES];
    int32_t n;
};

mm_profile *mm_profile_new(void) { return mm_calloc(1, sizeof(mm_profile)); }

void mm_profile_clear(mm_profile *profile)
{
    if (profile) profile->n = 0;
}

void mm_profile_add(mm_profile *profile, const char *name, const char *kind, bool is_backward,
                    int64_t ns, double flops, double bytes)
{
    if (!profile) return;
    int32_t i = 0;
    while (i < profile->n && (profile->entries[i].is_backward != is_backward ||
                              strcmp(profile->entries[i].name, name) != 0))
        i++;
    if (i == MAX_ENTRIES) return;
    mm_op_profile *entry = &profile->entries[i];
    if (i == profile->n) {
        *entry = (mm_op_profile){.kind = kind, .is_backward = is_backward};
        snprintf(entry->name, sizeof entry->name, "%s", name);
        profile->n++;
    }
    entry->calls++;
    entry->seconds += (double)ns * 1e-9;
    entry->flops += flops;
    entry->bytes += bytes;
}

int32_t mm_profile_copy(const mm_profile *profile, mm_op_profile *out, int32_t capacity)
{
    if (!profile) return 0;
    for (int32_t i = 0; i < profile->n && i < capacity; i++)
        out[i] = profile->entries[i];
    return profile->n;
}

static bool has_grad(const mm_graph *graph, int32_t tensor)
{
    return tensor != MM_NONE && graph->tensors[tensor].grad != MM_NONE;
}

// A frozen weight saves one product of backward.
static double flops_of(const mm_graph *graph, const mm_graph_op *op, const mm_batch *batch,
                       bool is_backward)
{
    const double product = 2.0 * (double)op->attr.n_in * (double)op->attr.n_out;
    const int n_grads = has_grad(graph, op->param[0]);
    switch (op->kind) {
    case MM_OP_LINEAR:
        return product * batch->n_tokens * (is_backward ? 1 + n_grads : 1);
    case MM_OP_LORA: {
        const double n_in =
            (double)op->attr.n_in * (is_backward ? 1 + has_grad(graph, op->in[0]) : 1);
        const double n_out = (double)op->attr.count * (is_backward ? 2 : 1);
        return 2.0 * batch->n_tokens * op->attr.rank * (n_in + n_out);
    }
    case MM_OP_HEAD_CE: // backward makes the logits too
        return product * (double)batch->n_labels * (is_backward ? 2 + n_grads : 1);
    case MM_OP_ATTENTION: {
        double pairs = 0;
        for (int32_t s = 0; s < batch->n_segments; s++) {
            const double n = batch->segments[s + 1] - batch->segments[s];
            pairs += n * (n + 1) / 2;
        }
        return pairs * 2.0 * op->attr.heads * op->attr.head_dim * (is_backward ? 5 : 2);
    }
    default:
        return 0;
    }
}

static double bytes_of(const mm_graph *graph, int32_t tensor, int64_t rows)
{
    if (tensor == MM_NONE) return 0;
    const mm_graph_tensor *entry = &graph->tensors[tensor];
    if (entry->cls == MM_CLASS_ACTIVATION)
        return (double)(rows * entry->cols) *
               (double)(entry->is_real ? graph->real_bytes : graph->act_bytes);
    return (double)(entry->rows * entry->cols) * (double)graph->real_bytes;
}

static double traffic_of(const mm_graph *graph, const mm_graph_op *op, int64_t rows,
                         const mm_graph_step *step)
{
    const mm_op_info *info = mm_op_info_of(op->kind);
    const bool is_backward = step->kind == MM_STEP_BACKWARD;
    double bytes = 0;
    for (int i = 0; i < MM_OP_MAX_IN; i++) {
        if (op->in[i] == MM_NONE) continue;
        if (!is_backward || (info->reads_in && i == 0)) bytes += bytes_of(graph, op->in[i], rows);
        const bool is_shared = i > 0; // the gradients of a sum are one
        if (is_backward && !is_shared)
            bytes +=
                bytes_of(graph, graph->tensors[op->in[i]].grad, rows) * (step->d_in_add[i] ? 2 : 1);
    }
    const bool is_read[MM_OP_MAX_OUT] = {info->reads_out, info->reads_aux, info->reads_sum};
    for (int i = 0; i < MM_OP_MAX_OUT; i++)
        if (!is_backward || is_read[i]) bytes += bytes_of(graph, op->out[i], rows);
    if (is_backward && op->out[0] != MM_NONE)
        bytes += bytes_of(graph, graph->tensors[op->out[0]].grad, rows);
    // An embedding touches the rows of its tokens only; a weight's gradient is read and written.
    for (int i = 0; i < MM_OP_MAX_PARAM && op->kind != MM_OP_EMBED; i++)
        bytes += bytes_of(graph, op->param[i], rows) *
                 (is_backward && has_grad(graph, op->param[i]) ? 3 : 1);
    if (op->kind == MM_OP_EMBED)
        bytes +=
            (double)(rows * op->attr.n_out) * (double)graph->real_bytes * (is_backward ? 2 : 1);
    return bytes;
}

void mm_profile_step(mm_profile *profile, const mm_graph *graph, const mm_graph_step *step,
                     const mm_batch *batch, int64_t ns)
{
    if (!profile) return;
    const mm_graph_op *op = &graph->ops[step->op];
    // Layers are one entry: "3.qkv" counts as "qkv". What is made again is part of backward.
    const bool is_forward = step->kind == MM_STEP_FORWARD;
    const char *name = op->out[0] == MM_NONE ? "head" : graph->tensors[op->out[0]].name;
    const char *dot = strchr(name, '.');
    mm_profile_add(profile, dot ? dot + 1 : name, mm_op_info_of(op->kind)->name, !is_forward, ns,
                   flops_of(graph, op, batch, step->kind == MM_STEP_BACKWARD),
                   traffic_of(graph, op, batch->n_tokens, step));
}

typedef struct probe_job {
    const mm_backend *backend;
    const char *memory;
    size_t part_bytes;
    int64_t end_ns;
    double *done; // by item
} probe_job;

static void flops_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    enum { ROUNDS = 20000 };
    const probe_job *job = context;
    while (mm_mono_ns() < job->end_ns)
        job->done[item] += job->backend->peak(ROUNDS);
}

static void bandwidth_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    enum { PIECE = 1 << 20 };
    const probe_job *job = context;
    const char *part = job->memory + (size_t)item * job->part_bytes;
    double sum = 0;
    for (size_t at = 0; mm_mono_ns() < job->end_ns; at = (at + PIECE) % job->part_bytes) {
        sum += job->backend->sum_squares(part + at, PIECE / (int64_t)job->backend->real_bytes);
        job->done[item] += PIECE;
    }
    if (sum != 0) job->done[item] = 0; // the memory is zeros; the use keeps the reads
}

// Runs one item per thread for `ms` milliseconds; returns what they did per second. A worker that
// is late leaves its item to another only after the end, which adds nothing.
static double probe(mm_pool *pool, probe_job *job, mm_pool_fn item, int32_t ms)
{
    enum { MAX_THREADS = 1024 };
    double done[MAX_THREADS] = {0};
    const int32_t n = mm_pool_threads(pool);
    job->done = done;
    const int64_t start_ns = mm_mono_ns();
    job->end_ns = start_ns + (int64_t)ms * 1000000;
    mm_pool_run(pool, n, item, job);
    const double seconds = (double)(mm_mono_ns() - start_ns) * 1e-9;
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += done[i];
    return sum / seconds;
}

double mm_engine_probe_flops(mm_dtype dtype, int32_t threads, int32_t ms)
{
    mm_pool *pool = NULL;
    if (mm_pool_new(&pool, threads, NULL) != MM_OK) return 0;
    probe_job job = {.backend = mm_backend_of(dtype)};
    const double rate = probe(pool, &job, flops_item, ms);
    mm_pool_free(pool);
    return rate;
}

double mm_engine_probe_bandwidth(int32_t threads, int32_t ms)
{
    enum { ALL = 256 << 20, LEAST = 16 << 20, PIECES = 1 << 20 };
    mm_pool *pool = NULL;
    if (mm_pool_new(&pool, threads, NULL) != MM_OK) return 0;
    const size_t n = (size_t)mm_pool_threads(pool);
    const size_t part = ALL / n > LEAST ? ALL / n / PIECES * PIECES : LEAST;
    const size_t bytes = part * n;
    char *memory = mm_alloc_aligned(bytes);
    double rate = 0;
    if (memory) {
        memset(memory, 0, bytes); // pages that were never written are one page of zeros
        probe_job job = {mm_backend_of(MM_F32), memory, part, 0, NULL};
        rate = probe(pool, &job, bandwidth_item, ms);
    }
    mm_free(memory);
    mm_pool_free(pool);
    return rate;
}
