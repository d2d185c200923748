/* The operations of this build and what they share. */
#ifndef MM_NN_KERNELS_OPS_H
#define MM_NN_KERNELS_OPS_H

#include "core/nn/kernels/gemm.h"

/* Queries of one work item of attention, and in backward keys. */
enum { QUERY_BLOCK = 256 };

#define MM_DECLARE_OP(name)                                                                        \
    void MM_KERNEL(name##_forward)(const mm_op_args *args);                                        \
    void MM_KERNEL(name##_backward)(const mm_op_args *args);                                       \
    mm_op_need MM_KERNEL(name##_need)(const mm_op_attr *attr, int64_t max_tokens);

MM_DECLARE_OP(embed)
MM_DECLARE_OP(rmsnorm)
MM_DECLARE_OP(add_rmsnorm)
MM_DECLARE_OP(linear)
MM_DECLARE_OP(lora)
MM_DECLARE_OP(qknorm_rope)
MM_DECLARE_OP(attention)
MM_DECLARE_OP(swiglu)
MM_DECLARE_OP(dropout)
MM_DECLARE_OP(head_ce)

#define op_rope_tables MM_KERNEL(rope_tables)
void op_rope_tables(void *cos_table, void *sin_table, int64_t positions, int32_t head_dim,
                    double theta);
#define op_sum_squares MM_KERNEL(sum_squares)
double op_sum_squares(const void *values, int64_t n);
#define op_adamw MM_KERNEL(adamw)
void op_adamw(void *p, void *g, void *m, void *v, int64_t n, const mm_adamw_factors *factors);
#define op_peak MM_KERNEL(peak)
double op_peak(int64_t rounds);

/* The product of a LINEAR's or the head's weight: with the packed copy where there is one. */
#define op_weight_forward MM_KERNEL(weight_forward)
void op_weight_forward(const mm_op_args *args, int64_t m, matrix x, target y);
#define op_weight_backward MM_KERNEL(weight_backward)
void op_weight_backward(const mm_op_args *args, int64_t m, matrix dy, target dx);
#define op_packed_bytes MM_KERNEL(packed_bytes)
size_t op_packed_bytes(int64_t n_in, int64_t n_out, bool is_training);
#define op_pack_weight MM_KERNEL(pack_weight)
void op_pack_weight(const mm_workspace *work, const void *w, int64_t n_in, int64_t n_out,
                    bool is_training, void *out);
#define op_gemm_weight MM_KERNEL(gemm_weight)
void op_gemm_weight(const mm_workspace *work, int64_t m, int64_t n_in, int64_t n_out, matrix a,
                    const void *packed, target c);

/* The first and the end row of work item `item`. */
typedef struct row_range {
    int64_t begin;
    int64_t end;
} row_range;

static inline row_range rows_of(int64_t item, int64_t n_rows)
{
    const int64_t begin = item * MM_OP_ROW_BLOCK;
    return (row_range){begin, least(begin + MM_OP_ROW_BLOCK, n_rows)};
}

static inline int64_t row_items(int64_t n_rows)
{
    return (n_rows + MM_OP_ROW_BLOCK - 1) / MM_OP_ROW_BLOCK;
}

/* Elements i to i + min(left, VL) of a row in either type. */
static inline vec row_load(const void *row, int64_t i, int64_t left, bool is_real)
{
    return is_real ? vec_load_n((const real *)row + i, left, 0)
                   : act_load_n((const act *)row + i, left);
}

static inline void row_store(void *row, int64_t i, vec v, int64_t left, bool is_real)
{
    if (is_real) {
        vec_store_n((real *)row + i, v, left);
    } else {
        act_store_n((act *)row + i, v, left);
    }
}

/* Adds the partial sums (n_parts, n) to out (n), part by part. */
static inline void add_parts(real *out, const real *parts, int64_t n_parts, int64_t n)
{
    for (int64_t p = 0; p < n_parts; p++)
        for (int64_t i = 0; i < n; i++)
            out[i] += parts[p * n + i];
}

/* 0 or 1/(1-p) for columns [first, first + n) of row `row` at a dropout site: a pure function of
 * (seed, micro-step, site, row, column), so that backward draws the same mask again. The counter
 * holds the site in its top 16 bits, the row in 28 and a quarter of the column in 20. `first` is a
 * multiple of 4. */
#define op_dropout_row MM_KERNEL(dropout_row)
void op_dropout_row(const mm_pass *pass, const mm_op_attr *attr, int64_t row, int64_t first,
                    real *out, int64_t n);

#endif
