/* Which build of the kernels runs: the best this processor has, or less where MMRUN_ISA says so. */
#include "core/nn/ops.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

extern const mm_backend mm_backend_f32_generic;
extern const mm_backend mm_backend_f64_generic;
#if MM_KERNELS_X86
extern const mm_backend mm_backend_f32_avx2;
extern const mm_backend mm_backend_f32_avx512;
#endif

enum { MAX_BACKENDS = 4 };

static const mm_op_info INFOS[MM_OP_COUNT] = {
    [MM_OP_EMBED] = {"embed", 0, 1, false, false, false},
    [MM_OP_RMSNORM] = {"rmsnorm", 1, 2, true, false, true},
    [MM_OP_LINEAR] = {"linear", 1, 1, true, false, false},
    [MM_OP_QKNORM_ROPE] = {"qknorm_rope", 1, 2, true, false, true},
    [MM_OP_ATTENTION] = {"attention", 1, 2, true, true, true},
    [MM_OP_SWIGLU] = {"swiglu", 1, 1, true, false, false},
    [MM_OP_ADD] = {"add", 2, 1, false, false, false},
    [MM_OP_DROPOUT] = {"dropout", 1, 1, false, false, false},
    [MM_OP_HEAD_CE] = {"head_ce", 1, 0, true, false, false},
};

const mm_op_info *mm_op_info_of(mm_op_kind kind)
{
    MM_ASSERT(kind < MM_OP_COUNT);
    return &INFOS[kind];
}

int32_t mm_backends(const mm_backend **out, int32_t capacity)
{
    const mm_backend *found[MAX_BACKENDS];
    int32_t n = 0;
#if MM_KERNELS_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found[n++] = &mm_backend_f32_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[n++] = &mm_backend_f32_avx2;
#endif
    found[n++] = &mm_backend_f32_generic;
    found[n++] = &mm_backend_f64_generic;
    for (int32_t i = 0; i < n && i < capacity; i++)
        out[i] = found[i];
    return n;
}

static const mm_backend *chosen[2]; // by dtype
static pthread_once_t choose_once = PTHREAD_ONCE_INIT;

static void choose(void)
{
    const mm_backend *all[MAX_BACKENDS];
    const int32_t n = mm_backends(all, MAX_BACKENDS);
    const char *wish = getenv("MMRUN_ISA");
    for (int32_t i = n - 1; i >= 0; i--) // best last
        chosen[all[i]->dtype] = all[i];
    for (int32_t i = 0; wish && i < n; i++)
        if (all[i]->dtype == MM_F32 && strcmp(all[i]->isa, wish) == 0) chosen[MM_F32] = all[i];
}

const mm_backend *mm_backend_of(mm_dtype dtype)
{
    pthread_once(&choose_once, choose);
    return chosen[dtype];
}

const char *mm_engine_isa(void) { return mm_backend_of(MM_F32)->isa; }
