/* One token at a time: matrix-vector products and attention over the cache. See core/nn/decode.h.
 *
 * Decoding reads every weight once per token, so that memory sets its pace; packing for the matrix
 * kernel would read and write them twice more.
 */
#include "core/nn/decode.h"
#include "core/nn/kernels/gemm.h"

enum {
    ROWS = 4,                // output rows computed together: independent sums hide the latency
    ITEM_VALUES = 32 * 1024, // weights of one work item
    CHUNK = 4,               // vectors accumulated together
    TILE_VECTORS = MM_KEY_TILE / VL
};
_Static_assert(TILE_VECTORS % CHUNK == 0, "a tile is whole chunks");

typedef struct matvec_job {
    const mm_matvec_part *parts;
    int32_t n_parts;
    int64_t n_in;
    int64_t item_rows;
    const real *x;
} matvec_job;

static void matvec_rows(const real *restrict w, const real *restrict x, int64_t n_in,
                        real *restrict y, bool add)
{
    vec sum[ROWS] = {{0}};
    int64_t i = 0;
    for (; i + VL <= n_in; i += VL) {
        const vec v = vec_load(x + i);
        for (int r = 0; r < ROWS; r++)
            sum[r] += vec_load(w + r * n_in + i) * v;
    }
    if (i < n_in) {
        const vec v = vec_load_n(x + i, n_in - i, 0);
        for (int r = 0; r < ROWS; r++)
            sum[r] += vec_load_n(w + r * n_in + i, n_in - i, 0) * v;
    }
    for (int r = 0; r < ROWS; r++)
        y[r] = add ? y[r] + vec_sum(sum[r]) : vec_sum(sum[r]);
}

static int64_t part_items(const matvec_job *job, int32_t part)
{
    return (job->parts[part].n_out + job->item_rows - 1) / job->item_rows;
}

static void matvec_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const matvec_job *job = context;
    int32_t p = 0;
    while (item >= part_items(job, p))
        item -= part_items(job, p++);
    const mm_matvec_part *part = &job->parts[p];
    const real *w = part->w;
    real *y = part->y;
    const int64_t end = least((item + 1) * job->item_rows, part->n_out);
    int64_t o = item * job->item_rows;
    for (; o + ROWS <= end; o += ROWS)
        matvec_rows(w + o * job->n_in, job->x, job->n_in, y + o, part->add);
    for (; o < end; o++) {
        const real sum = dot_of(w + o * job->n_in, job->x, job->n_in);
        y[o] = part->add ? y[o] + sum : sum;
    }
}

static void matvec(const mm_workspace *work, int64_t n_in, const void *x,
                   const mm_matvec_part *parts, int32_t n_parts)
{
    MM_ASSERT(n_parts > 0 && n_parts <= MM_MATVEC_MAX_PARTS);
    matvec_job job = {.parts = parts, .n_parts = n_parts, .n_in = n_in, .x = x};
    const int64_t rows = ITEM_VALUES / n_in / ROWS * ROWS;
    job.item_rows = rows > ROWS ? rows : ROWS;
    int64_t items = 0;
    for (int32_t p = 0; p < n_parts; p++)
        items += part_items(&job, p);
    mm_pool_run(work->pool, items, matvec_item, &job);
}

static void cache_put(const mm_cache_args *args)
{
    const int64_t D = args->head_dim;
    const int64_t K = args->kv_heads;
    const int64_t width = (args->heads + 2 * K) * D;
    MM_ASSERT(args->first + args->n <= args->capacity);
    for (int64_t i = 0; i < args->n; i++) {
        const int64_t position = args->first + i;
        const real *key = (const real *)args->x + i * width + args->heads * D;
        const real *value = key + K * D;
        for (int64_t kv = 0; kv < K; kv++, key += D, value += D) {
            real *tile = (real *)args->keys +
                         (kv * args->capacity + position / MM_KEY_TILE * MM_KEY_TILE) * D +
                         position % MM_KEY_TILE;
            for (int64_t d = 0; d < D; d++)
                tile[d * MM_KEY_TILE] = key[d];
            memcpy((real *)args->values + (kv * args->capacity + position) * D, value,
                   (size_t)D * sizeof(real));
        }
    }
}

// s[j] = scale q . k_j for whole tiles; positions not yet written give numbers nobody reads.
static void scores_of(real *restrict s, const real *restrict q, const real *restrict keys,
                      int64_t tiles, int64_t D, real scale)
{
    for (int64_t tile = 0; tile < tiles; tile++, keys += D * MM_KEY_TILE, s += MM_KEY_TILE) {
        for (int c = 0; c < TILE_VECTORS; c += CHUNK) {
            const real *from = keys + c * VL;
            vec sum[CHUNK] = {{0}};
            for (int64_t d = 0; d < D; d++, from += MM_KEY_TILE)
                for (int v = 0; v < CHUNK; v++)
                    sum[v] += vec_load(from + v * VL) * q[d];
            for (int v = 0; v < CHUNK; v++)
                vec_store(s + (c + v) * VL, sum[v] * scale);
        }
    }
}

// s[0, n) becomes e^(s - max); returns 1 / their sum. s is padded to whole vectors.
static real exponentials(real *s, int64_t n)
{
    vec highest = vec_set(MINUS_INFINITY);
    for (int64_t j = 0; j < n; j += VL)
        highest = vec_max(highest, vec_load_n(s + j, n - j, MINUS_INFINITY));
    const real top = vec_highest(highest);
    vec sums = {0};
    for (int64_t j = 0; j < n; j += VL) {
        const vec e = vec_exp(vec_load_n(s + j, n - j, MINUS_INFINITY) - top);
        vec_store(s + j, e);
        sums += e;
    }
    return 1 / vec_sum(sums);
}

// `count` neighbouring vectors of out = factor * sum over j of p[j] values[j]; `left` columns are
// there.
static inline void weigh(real *restrict out, const real *restrict p, const real *restrict values,
                         int64_t n, int64_t D, int64_t left, int count, real factor)
{
    vec sum[CHUNK] = {{0}};
    for (int64_t j = 0; j < n; j++, values += D)
        for (int v = 0; v < count; v++)
            sum[v] += (left >= count * VL ? vec_load(values + v * VL)
                                          : vec_load_n(values + v * VL, left - v * VL, 0)) *
                      p[j];
    for (int v = 0; v < count; v++)
        vec_store_n(out + v * VL, sum[v] * factor, left - v * VL);
}

static void weighted_values(real *out, const real *p, const real *values, int64_t n, int64_t D,
                            real factor)
{
    int64_t d = 0;
    for (; d + CHUNK * VL <= D; d += CHUNK * VL)
        weigh(out + d, p, values + d, n, D, D - d, CHUNK, factor);
    for (; d + 2 * VL <= D; d += 2 * VL)
        weigh(out + d, p, values + d, n, D, D - d, 2, factor);
    for (; d < D; d += VL)
        weigh(out + d, p, values + d, n, D, D - d, 1, factor);
}

static void attend_item(void *context, int64_t item, int32_t thread)
{
    const mm_cache_args *args = context;
    const int64_t D = args->head_dim;
    const int64_t K = args->kv_heads;
    const int64_t group = args->heads / K;
    const int64_t row = item / K;
    const int64_t kv = item % K;
    const int64_t n = args->first + row + 1; // positions attended to
    const int64_t tiles = (n + MM_KEY_TILE - 1) / MM_KEY_TILE;
    const real *keys = (const real *)args->keys + kv * args->capacity * D;
    const real *values = (const real *)args->values + kv * args->capacity * D;
    const real *queries = (const real *)args->x + row * (args->heads + 2 * K) * D;
    const real scale = (real)(1.0 / sqrt((double)D));
    real *s = (real *)(void *)(args->work->thread + (size_t)thread * args->work->thread_bytes);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
        scores_of(s, queries + h * D, keys, tiles, D, scale);
        const real factor = exponentials(s, n);
        weighted_values((real *)args->out + (row * args->heads + h) * D, s, values, n, D, factor);
    }
}

static void cache_attend(const mm_cache_args *args)
{
    MM_ASSERT(args->capacity % MM_KEY_TILE == 0 && args->first + args->n <= args->capacity);
    mm_pool_run(args->work->pool, args->n * args->kv_heads, attend_item, (void *)(uintptr_t)args);
}

static mm_op_need cache_need(int64_t capacity)
{
    return (mm_op_need){.thread_bytes = (size_t)capacity * sizeof(real)};
}

extern const mm_decode_kernels MM_KERNEL(decode_kernels);
const mm_decode_kernels MM_KERNEL(decode_kernels) = {
    .matvec = matvec,
    .cache_put = cache_put,
    .cache_attend = cache_attend,
    .cache_need = cache_need,
};
