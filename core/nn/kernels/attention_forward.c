/* Causal grouped-query attention over packed segments, forward. Contract: core/nn/ops.h.
 *
 * A block of queries of one segment meets the keys up to its own last row, KEY_BLOCK at a time: the
 * scores are one matrix product, a row's exponentials are taken against the largest score so far,
 * and their product with the values adds to a sum that is scaled down when a larger score comes.
 * Neither the full square nor a whole row of it is ever kept. Source: Dao et al.,
 * "FlashAttention", 2022, algorithm 1. Keys and values are packed once per block and serve
 * all query heads of their group.
 *
 * p_j = exp(scale s_j - lse), o = sum_j m_j p_j v_j with the dropout factors m_j.
 */
#include "core/nn/kernels/attention.h"

enum { KEY_BLOCK = 256 };

typedef struct forward_strip {
    const mm_op_args *args;
    attention_dims dims;
    mm_query_block block;
    bool drop;
    packed_b keys;   /* (D, keys) */
    packed_b values; /* (keys, D) */
    void *packing;
    real *scores;  /* (ATTENTION_ROWS, KEY_BLOCK), then weights */
    real *mask;    /* (KEY_BLOCK) */
    real *highest; /* (group, block): the largest score so far, times scale_2 */
    real *sums;    /* (group, block): of exponentials */
    real *out;     /* (group, block, D): weighted sums of values */
} forward_strip;

// Turns scores into exponentials, as weights of the next product, and brings the row's sums up to
// them. `valid` of `n` keys are not after the query.
static void forward_row(const forward_strip *strip, real *s, real *highest, real *sum, real *out,
                        int64_t valid, int64_t n)
{
    const real scale = strip->dims.scale_2;
    act *p = (act *)s;
    const int64_t whole = valid / VL * VL;
    const ivec rest = attention_lanes_below(valid - whole);
    vec tops = vec_set(MINUS_INFINITY);
    for (int64_t j = 0; j < whole; j += VL)
        tops = vec_max(tops, vec_load(s + j));
    if (whole < valid)
        tops = vec_max(tops, vec_select(rest, vec_load(s + whole), vec_set(MINUS_INFINITY)));
    const real top = vec_highest(tops) * scale;
    const real before = *highest;
    const real now = top > before ? top : before;
    vec total = {0};
    for (int64_t j = 0; j < whole; j += VL) {
        const vec e = attention_exp2(vec_load(s + j) * scale - now);
        total += e;
        act_store(p + j, strip->drop ? e * vec_load(strip->mask + j) : e);
    }
    int64_t done = whole;
    if (whole < valid) {
        const vec e =
            vec_select(rest, attention_exp2(vec_load(s + whole) * scale - now), vec_set(0));
        total += e;
        act_store(p + whole,
                  strip->drop ? vec_select(rest, e * vec_load(strip->mask + whole), e) : e);
        done += VL;
    }
    for (; done < n; done += VL)
        act_store(p + done, vec_set(0));
    *highest = now;
    if (now == before) {
        *sum += vec_sum(total);
        return;
    }
    const real shrink = attention_exp2(vec_set(before - now))[0];
    *sum = *sum * shrink + vec_sum(total);
    if (before == MINUS_INFINITY) return; // nothing is in `out` yet
    for (int64_t i = 0; i < strip->dims.D; i++)
        out[i] *= shrink;
}

// Strip rows [first, first + rows) of the block against `keys` keys from `key` of the segment on.
static void forward_part(const forward_strip *strip, int64_t member, int64_t h, int64_t first,
                         int64_t key)
{
    const mm_op_args *args = strip->args;
    const attention_dims *dims = &strip->dims;
    const int64_t begin = strip->block.begin + first;
    const int64_t rows = least(ATTENTION_ROWS, strip->block.end - begin);
    const int64_t n = least(KEY_BLOCK, begin + rows - strip->block.segment_begin - key);
    if (n <= 0) return;
    const matrix q = attention_acts(args->in[0], dims->width, begin, h * dims->D);
    gemm_packed(strip->packing, rows, n, dims->D, q, &strip->keys,
                (target){strip->scores, KEY_BLOCK, true, false});
    const int64_t at = member * QUERY_BLOCK + first;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t last = begin + i - strip->block.segment_begin - key;
        const int64_t valid = last < 0 ? 0 : least(last + 1, n);
        if (strip->drop && valid > 0)
            op_dropout_row(args->pass, args->attr, (begin + i) * dims->H + h, key, strip->mask,
                           valid);
        forward_row(strip, strip->scores + i * KEY_BLOCK, strip->highest + at + i,
                    strip->sums + at + i, strip->out + (at + i) * dims->D, valid, n);
    }
    const matrix p = {strip->scores, KEY_BLOCK * ACTS_PER_REAL, 1, false};
    gemm_packed(strip->packing, rows, dims->D, n, p, &strip->values,
                (target){strip->out + at * dims->D, dims->D, true, key > 0});
}

static void forward_finish(const forward_strip *strip, int64_t member, int64_t h)
{
    const attention_dims *dims = &strip->dims;
    const int64_t rows = strip->block.end - strip->block.begin;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t t = strip->block.begin + i;
        const int64_t at = member * QUERY_BLOCK + i;
        const real inverse = 1 / strip->sums[at];
        act *y = (act *)strip->args->out[0] + (t * dims->H + h) * dims->D;
        for (int64_t c = 0; c < dims->D; c += VL)
            act_store_n(y + c, vec_load_n(strip->out + at * dims->D + c, dims->D - c, 0) * inverse,
                        dims->D - c);
        ((real *)strip->args->out[1])[t * dims->H + h] =
            strip->highest[at] * (real)ATTENTION_LN_2 + real_log(strip->sums[at]);
    }
}

static void attention_forward_item(void *context, int64_t item, int32_t thread)
{
    const mm_op_args *args = context;
    const mm_pass *pass = args->pass;
    const attention_dims dims = attention_dims_of(args->attr);
    // The blocks at the ends of segments, which take longest, come first.
    const int64_t kv = item % dims.K;
    forward_strip strip = {.args = args,
                           .dims = dims,
                           .block = pass->query_blocks[pass->n_query_blocks - 1 - item / dims.K],
                           .drop = pass->dropout_on && args->attr->dropout > 0};
    const int64_t n_rows = dims.group * QUERY_BLOCK;
    char *scratch = pass->work.thread + (size_t)thread * pass->work.thread_bytes;
    strip.packing = attention_take(&scratch, gemm_packed_a_bytes());
    strip.scores = attention_take_reals(&scratch, ATTENTION_ROWS * KEY_BLOCK);
    strip.mask = attention_take_reals(&scratch, KEY_BLOCK);
    strip.highest = attention_take_reals(&scratch, n_rows);
    strip.sums = attention_take_reals(&scratch, n_rows);
    strip.out = attention_take_reals(&scratch, n_rows * dims.D);
    void *keys = attention_take(&scratch, gemm_packed_b_bytes(dims.D, KEY_BLOCK));
    void *values = attention_take(&scratch, gemm_packed_b_bytes(KEY_BLOCK, dims.D));
    for (int64_t i = 0; i < n_rows; i++) {
        strip.highest[i] = MINUS_INFINITY;
        strip.sums[i] = 0;
    }
    const int64_t n = strip.block.end - strip.block.segment_begin;
    for (int64_t key = 0; key < n; key += KEY_BLOCK) {
        const int64_t t = strip.block.segment_begin + key;
        const int64_t n_keys = least(KEY_BLOCK, n - key);
        const matrix k = attention_acts(args->in[0], dims.width, t, (dims.H + kv) * dims.D);
        strip.keys = gemm_pack_b(keys, dims.D, n_keys, attention_transposed(k));
        strip.values = gemm_pack_b(values, n_keys, dims.D, gemm_from(k, 0, dims.K * dims.D));
        for (int64_t member = 0; member < dims.group; member++)
            for (int64_t first = strip.block.begin; first < strip.block.end;
                 first += ATTENTION_ROWS)
                forward_part(&strip, member, kv * dims.group + member, first - strip.block.begin,
                             key);
    }
    for (int64_t member = 0; member < dims.group; member++)
        forward_finish(&strip, member, kv * dims.group + member);
}

void MM_KERNEL(attention_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, args->pass->n_query_blocks * args->attr->kv_heads,
                attention_forward_item, (void *)args);
}

size_t op_attention_forward_bytes(const mm_op_attr *attr)
{
    enum { PIECES = 8 };
    const attention_dims dims = attention_dims_of(attr);
    const int64_t n_rows = dims.group * QUERY_BLOCK;
    const int64_t reals = ATTENTION_ROWS * KEY_BLOCK + KEY_BLOCK + n_rows * (2 + dims.D);
    return (size_t)reals * sizeof(real) + gemm_packed_a_bytes() +
           gemm_packed_b_bytes(dims.D, KEY_BLOCK) + gemm_packed_b_bytes(KEY_BLOCK, dims.D) +
           (size_t)PIECES * ATTENTION_LINE;
}
