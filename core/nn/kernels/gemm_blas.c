/* Products in fp32 by a CBLAS library, for builds with -DMMRUN_BLAS=ON. See gemm.h.
 *
 * The library works on one thread and the threads of the pool call it side by side: there is no
 * second pool. How a library sums may depend on the size of what it is asked for, so items are cut
 * by the size of the product alone: the bits do not depend on the number of threads as long as the
 * library gives the same bits for the same call. They do depend on the library, on its version and
 * on the kernels that it chooses for the processor; the name of the build carries the first two.
 */
#include "core/nn/kernels/gemm.h"

#if MM_KERNEL_BLAS

#include <cblas.h>
#include <limits.h>
#include <pthread.h>

// What tells a library to stay on the calling thread, where the linked one has it. OpenMP's setting
// is one of each thread. Others (BLIS, the reference) do so unless their environment variables say
// otherwise.
extern void openblas_set_num_threads(int n) __attribute__((weak));
extern void omp_set_num_threads(int n) __attribute__((weak));

static void stay_on_one_thread(void)
{
    if (openblas_set_num_threads) openblas_set_num_threads(1);
}

typedef struct blas_operand {
    matrix view;
    CBLAS_TRANSPOSE transposed;
    int stride;
} blas_operand;

typedef struct blas_job {
    int64_t m, n, k;
    int64_t item_m, item_n;
    int64_t n_across;
    blas_operand a, b;
    target c;
} blas_job;

// False for what CBLAS cannot express: neighbours neither in rows nor in columns.
static bool describe(blas_operand *out, matrix view, int64_t rows, int64_t cols)
{
    const bool by_rows = view.col_stride == 1 && view.row_stride >= cols;
    const bool by_cols = view.row_stride == 1 && view.col_stride >= rows;
    const int64_t stride = by_rows ? view.row_stride : view.col_stride;
    *out = (blas_operand){view, by_rows ? CblasNoTrans : CblasTrans, (int)stride};
    return (by_rows || by_cols) && stride > 0 && stride <= INT_MAX;
}

static void blas_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    static _Thread_local bool is_told;
    if (!is_told && omp_set_num_threads) omp_set_num_threads(1);
    is_told = true;
    const blas_job *job = context;
    const int64_t i = item / job->n_across * job->item_m;
    const int64_t j = item % job->n_across * job->item_n;
    const matrix a = gemm_from(job->a.view, i, 0);
    const matrix b = gemm_from(job->b.view, 0, j);
    const target c = gemm_at(job->c, i, j);
    cblas_sgemm(CblasRowMajor, job->a.transposed, job->b.transposed,
                (int)least(job->item_m, job->m - i), (int)least(job->item_n, job->n - j),
                (int)job->k, 1, a.data, job->a.stride, b.data, job->b.stride, c.add ? 1 : 0, c.data,
                (int)c.stride);
}

static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

bool gemm_blas(const mm_workspace *work, int64_t m, int64_t n, int64_t k, matrix a, matrix b,
               target c)
{
    enum { MOST = 512, LEAST = 128, WANTED = 32 };
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    blas_job job = {.m = m, .n = n, .k = k, .item_m = MOST, .item_n = MOST, .c = c};
    if (!describe(&job.a, a, m, k) || !describe(&job.b, b, k, n)) return false;
    if (m > INT_MAX || n > INT_MAX || k > INT_MAX || c.stride > INT_MAX || c.stride < n)
        return false;
    pthread_once(&once, stay_on_one_thread);
    while (pieces(m, job.item_m) * pieces(n, job.item_n) < WANTED) {
        int64_t *larger = job.item_m >= job.item_n ? &job.item_m : &job.item_n;
        if (*larger == LEAST) break;
        *larger /= 2;
    }
    job.n_across = pieces(n, job.item_n);
    mm_pool_run(work->pool, pieces(m, job.item_m) * job.n_across, blas_item, &job);
    return true;
}

#endif
