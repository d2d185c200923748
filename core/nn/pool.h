/* Worker threads that start once and stay. Work is cut into items by problem size, never by thread
 * count, so that results do not depend on how many threads run them. */
#ifndef MM_NN_POOL_H
#define MM_NN_POOL_H

#include "core/base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_pool mm_pool;
/* One work item; `thread` is in [0, threads) and identifies per-thread scratch. */
typedef void (*mm_pool_fn)(void *context, int64_t item, int32_t thread);

/* threads 0 = processors this process may use. The caller is one of the threads. */
MM_NODISCARD mm_status mm_pool_new(mm_pool **out, int32_t threads, mm_err *err);
void mm_pool_free(mm_pool *pool);
int32_t mm_pool_threads(const mm_pool *pool);
/* Runs items 0..n-1 and returns when all are done. */
void mm_pool_run(mm_pool *pool, int64_t n, mm_pool_fn fn, void *context);
/* Processors available (affinity mask, cgroup quota). */
int32_t mm_cpu_count(void);

#ifdef __cplusplus
}
#endif
#endif
