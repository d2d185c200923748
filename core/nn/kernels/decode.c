/* Attention over key-value caches. See core/nn/decode.h.
 *
 * The query heads that share a key-value head, of one position or of several neighbouring ones, are
 * attended together: a tile of keys is read once for up to QUERIES of them. In registers QUAD
 * queries meet CHUNK vectors of keys or values. What a query gets does not depend on its company:
 * scores sum over the head's elements, results over positions, both in ascending order.
 */
#include "core/nn/decode.h"
#include "core/nn/kernels/gemm.h"

enum {
#if MM_VECTOR_BYTES == 64 || defined(__aarch64__)
    CHUNK = 4, // with QUAD queries: 16 sums in registers
#else
    CHUNK = 2,
#endif
    QUAD = 4,
    QUERIES = 16,
    TILE_VECTORS = MM_KEY_TILE / VL
};
_Static_assert(TILE_VECTORS % CHUNK == 0, "a tile is whole chunks");

static void put_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_cache_args *args = context;
    const mm_cache_block *block = &args->blocks[item];
    const int64_t D = args->head_dim;
    const int64_t K = args->kv_heads;
    const int64_t width = (args->heads + 2 * K) * D;
    MM_ASSERT(block->first + block->count <= args->capacity);
    for (int64_t i = 0; i < block->count; i++) {
        const int64_t position = block->first + i;
        const act *key = (const act *)args->x + (block->begin + i) * width + args->heads * D;
        const act *value = key + K * D;
        for (int64_t kv = 0; kv < K; kv++, key += D, value += D) {
            const int64_t at = block->row * args->row_stride + kv * args->capacity * D;
            act *tile = (act *)args->keys + at + position / MM_KEY_TILE * MM_KEY_TILE * D +
                        position % MM_KEY_TILE;
            for (int64_t d = 0; d < D; d++)
                tile[d * MM_KEY_TILE] = key[d];
            memcpy((act *)args->values + at + position * D, value, (size_t)D * sizeof(act));
        }
    }
}

static void cache_put(const mm_cache_args *args)
{
    mm_pool_run(args->work->pool, args->n_blocks, put_item, (void *)(uintptr_t)args);
}

/* Up to QUERIES queries of one key-value head. Strides are whole vectors. */
typedef struct query_set {
    int64_t count;
    int64_t D;
    int64_t q_stride;
    int64_t s_stride;
    int64_t valid[QUERIES]; // positions each attends to, rising
    real *q;                // (QUERIES, q_stride)
    real *s;                // (QUERIES, s_stride) scores, then their exponentials
    real *sum;              // (QUERIES, q_stride) weighted values
} query_set;

// s[i][j] = scale q_i . k_j for `count` queries and a tile of keys; positions not yet written give
// numbers nobody reads.
static inline __attribute__((always_inline)) void score_tile(real *s, int64_t s_stride,
                                                             const real *q, int64_t q_stride,
                                                             const act *keys, int64_t D, real scale,
                                                             int count)
{
    for (int c = 0; c < TILE_VECTORS; c += CHUNK) {
        const act *from = keys + c * VL;
        vec sum[QUAD][CHUNK] = {{{0}}};
        for (int64_t d = 0; d < D; d++, from += MM_KEY_TILE)
            for (int v = 0; v < CHUNK; v++) {
                const vec k = act_load(from + v * VL);
                for (int i = 0; i < count; i++)
                    sum[i][v] = vec_fma(k, vec_set(q[i * q_stride + d]), sum[i][v]);
            }
        for (int i = 0; i < count; i++)
            for (int v = 0; v < CHUNK; v++)
                vec_store(s + i * s_stride + (c + v) * VL, sum[i][v] * scale);
    }
}

static void score(const query_set *set, const act *keys, real scale)
{
    const int64_t positions = set->valid[set->count - 1];
    for (int64_t j = 0; j < positions; j += MM_KEY_TILE, keys += set->D * MM_KEY_TILE)
        for (int64_t i = 0; i < set->count;) {
            real *s = set->s + i * set->s_stride + j;
            const real *q = set->q + i * set->q_stride;
            const int64_t left = set->count - i;
            if (left >= QUAD) {
                score_tile(s, set->s_stride, q, set->q_stride, keys, set->D, scale, QUAD);
                i += QUAD;
            } else if (left >= 2) {
                score_tile(s, set->s_stride, q, set->q_stride, keys, set->D, scale, 2);
                i += 2;
            } else {
                score_tile(s, set->s_stride, q, set->q_stride, keys, set->D, scale, 1);
                i++;
            }
        }
}

static real highest_of(const real *values, int64_t n)
{
    vec highest = vec_set(MINUS_INFINITY);
    for (int64_t i = 0; i < n; i += VL)
        highest = vec_max(highest, vec_load_n(values + i, n - i, MINUS_INFINITY));
    return vec_highest(highest);
}

// s[0, n) becomes e^(s - max); returns 1 / their sum. s is padded to whole vectors.
static real softmax(real *s, int64_t n)
{
    const real top = highest_of(s, n);
    vec sums = {0};
    for (int64_t j = 0; j < n; j += VL) {
        const vec e = vec_exp(vec_load_n(s + j, n - j, MINUS_INFINITY) - top);
        vec_store(s + j, e);
        sums += e;
    }
    return 1 / vec_sum(sums);
}

// `count` queries and `width` vectors of columns, of which `columns` are there: adds p[j] values[j]
// for j in [begin, end), for each query as far as it attends.
static inline __attribute__((always_inline)) void weigh(const query_set *set, int64_t query,
                                                        const act *restrict values, int64_t begin,
                                                        int64_t end, int64_t column, int count,
                                                        int width)
{
    const int64_t D = set->D;
    const int64_t columns = D - column;
    const bool is_full = columns >= width * VL;
    MM_ASSERT(columns > (width - 1) * VL);
    const real *p[QUAD];
    real *total[QUAD];
    vec sum[QUAD][CHUNK];
    for (int i = 0; i < count; i++) {
        p[i] = set->s + (query + i) * set->s_stride;
        total[i] = set->sum + (query + i) * set->q_stride + column;
        for (int v = 0; v < width; v++)
            sum[i][v] = vec_load(total[i] + v * VL);
    }
    const int64_t *valid = set->valid + query; // of the first query: the least
    const int64_t common = least(end, valid[0]);
    int64_t j = begin;
    for (; j < common; j++)
        for (int v = 0; v < width; v++) {
            const act *from = values + j * D + column + v * VL;
            const vec value = is_full ? act_load(from) : act_load_n(from, columns - v * VL);
            for (int i = 0; i < count; i++)
                sum[i][v] = vec_fma(value, vec_set(p[i][j]), sum[i][v]);
        }
    for (; j < least(end, valid[count - 1]); j++)
        for (int v = 0; v < width; v++) {
            const act *from = values + j * D + column + v * VL;
            const vec value = is_full ? act_load(from) : act_load_n(from, columns - v * VL);
            for (int i = 0; i < count; i++)
                if (j < valid[i]) sum[i][v] = vec_fma(value, vec_set(p[i][j]), sum[i][v]);
        }
    for (int i = 0; i < count; i++)
        for (int v = 0; v < width; v++)
            vec_store(total[i] + v * VL, sum[i][v]);
}

static inline __attribute__((always_inline)) void weigh_columns(const query_set *set, int64_t query,
                                                                const act *values, int64_t begin,
                                                                int64_t end, int count)
{
    int64_t d = 0;
    for (; d + (CHUNK - 1) * VL < set->D; d += CHUNK * VL)
        weigh(set, query, values, begin, end, d, count, CHUNK);
    for (; d + VL < set->D; d += 2 * VL)
        weigh(set, query, values, begin, end, d, count, 2);
    for (; d < set->D; d += VL)
        weigh(set, query, values, begin, end, d, count, 1);
}

static void weighted_values(const query_set *set, const act *values)
{
    const int64_t positions = set->valid[set->count - 1];
    memset(set->sum, 0, (size_t)(set->count * set->q_stride) * sizeof(real));
    for (int64_t j = 0; j < positions; j += MM_KEY_TILE) // the tile stays in cache for all queries
        for (int64_t i = 0; i < set->count;) {
            const int64_t left = set->count - i;
            if (left >= QUAD) {
                weigh_columns(set, i, values, j, j + MM_KEY_TILE, QUAD);
                i += QUAD;
            } else if (left >= 2) {
                weigh_columns(set, i, values, j, j + MM_KEY_TILE, 2);
                i += 2;
            } else {
                weigh_columns(set, i, values, j, j + MM_KEY_TILE, 1);
                i++;
            }
        }
}

// A query's head among all queries of the block: positions in order, the heads of the group within.
typedef struct query_place {
    int64_t position; // within the block
    int64_t head;
} query_place;

static void attend_set(const mm_cache_args *args, const mm_cache_block *block, query_set *set,
                       const query_place *places, int64_t kv)
{
    const int64_t D = args->head_dim;
    const int64_t width = (args->heads + 2 * (int64_t)args->kv_heads) * D;
    const int64_t at = block->row * args->row_stride + kv * args->capacity * D;
    for (int64_t i = 0; i < set->count; i++) {
        const act *q =
            (const act *)args->x + (block->begin + places[i].position) * width + places[i].head * D;
        for (int64_t d = 0; d < D; d += VL)
            vec_store(set->q + i * set->q_stride + d, act_load_n(q + d, D - d));
        set->valid[i] = block->first + places[i].position + 1;
    }
    score(set, (const act *)args->keys + at, (real)(1.0 / sqrt((double)D)));
    real factor[QUERIES];
    for (int64_t i = 0; i < set->count; i++)
        factor[i] = softmax(set->s + i * set->s_stride, set->valid[i]);
    weighted_values(set, (const act *)args->values + at);
    for (int64_t i = 0; i < set->count; i++) {
        act *out = (act *)args->out +
                   ((block->begin + places[i].position) * args->heads + places[i].head) * D;
        const real *sum = set->sum + i * set->q_stride;
        for (int64_t d = 0; d < D; d += VL)
            act_store_n(out + d, vec_load(sum + d) * factor[i], D - d);
    }
}

static void attend_item(void *context, int64_t item, int32_t thread)
{
    const mm_cache_args *args = context;
    const int64_t K = args->kv_heads;
    const int64_t group = args->heads / K;
    const mm_cache_block *block = &args->blocks[item / K];
    const int64_t kv = item % K;
    query_set set = {.D = args->head_dim,
                     .q_stride = round_up(args->head_dim, CHUNK * VL),
                     .s_stride = args->capacity};
    set.q = (real *)(void *)(args->work->thread + (size_t)thread * args->work->thread_bytes);
    set.sum = set.q + QUERIES * set.q_stride;
    set.s = set.sum + QUERIES * set.q_stride;
    query_place places[QUERIES];
    const int64_t queries = block->count * group;
    for (int64_t first = 0; first < queries; first += QUERIES) {
        set.count = least(QUERIES, queries - first);
        for (int64_t i = 0; i < set.count; i++)
            places[i] = (query_place){(first + i) / group, kv * group + (first + i) % group};
        attend_set(args, block, &set, places, kv);
    }
}

static void cache_attend(const mm_cache_args *args)
{
    MM_ASSERT(args->capacity % MM_KEY_TILE == 0);
    mm_pool_run(args->work->pool, args->n_blocks * args->kv_heads, attend_item,
                (void *)(uintptr_t)args);
}

static mm_op_need cache_need(int64_t capacity, int32_t head_dim)
{
    const int64_t reals = 2 * round_up(head_dim, CHUNK * VL) + capacity;
    return (mm_op_need){.thread_bytes = (size_t)(QUERIES * reals) * sizeof(real)};
}

// The first i >= from with v[i] > bound, or n. Stretches of vectors without one are passed over.
static int64_t first_above(const real *v, int64_t from, int64_t n, real bound)
{
    enum { STRETCH = 4 };
    int64_t i = from;
    for (; i + STRETCH * VL <= n; i += STRETCH * VL) {
        ivec is_above = {0};
        for (int s = 0; s < STRETCH; s++)
            is_above |= vec_load(v + i + s * VL) > bound;
        real_bits any = 0;
        for (int lane = 0; lane < VL; lane++)
            any |= is_above[lane];
        if (any) break;
    }
    while (i < n && !(v[i] > bound))
        i++;
    return i;
}

static int64_t next_above(const void *values, int64_t from, int64_t n, double bound)
{
    return first_above(values, from, n, (real)bound);
}

static int64_t highest(const void *values, int64_t n)
{
    const real top = highest_of(values, n);
    const int64_t i = first_above(values, 0, n, real_next(top, MINUS_INFINITY));
    return i < n ? i : 0; // all are -infinite
}

static double log_sum_exp(const void *values, int64_t n)
{
    const real *v = values;
    const real top = highest_of(v, n);
    vec sums = {0};
    for (int64_t i = 0; i < n; i += VL)
        sums += vec_exp(vec_load_n(v + i, n - i, MINUS_INFINITY) - top);
    return (double)top + log((double)vec_sum(sums));
}

static void exponentials(void *values, int64_t n)
{
    real *v = values;
    const real top = highest_of(v, n);
    for (int64_t i = 0; i < n; i += VL)
        vec_store_n(v + i, vec_exp(vec_load_n(v + i, n - i, 0) - top), n - i);
}

extern const mm_decode_kernels MM_KERNEL(decode_kernels);
const mm_decode_kernels MM_KERNEL(decode_kernels) = {
    .cache_put = cache_put,
    .cache_attend = cache_attend,
    .cache_need = cache_need,
    .highest = highest,
    .next_above = next_above,
    .log_sum_exp = log_sum_exp,
    .exponentials = exponentials,
};
