/* Which build of the kernels runs: the best this processor has, or less where MMRUN_ISA says so. */
#include "core/nn/ops.h"

#include "core/nn/engine.h"

#if MM_KERNELS_PAIRS
#include <cpuid.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

extern const mm_backend mm_backend_f32_generic;
extern const mm_backend mm_backend_f64_generic;
extern const mm_backend mm_backend_bf16_generic;
#if MM_KERNELS_X86
extern const mm_backend mm_backend_f32_avx2;
extern const mm_backend mm_backend_f32_avx512;
extern const mm_backend mm_backend_bf16_avx2;
extern const mm_backend mm_backend_bf16_avx512;
#endif
#if MM_KERNELS_PAIRS
extern const mm_backend mm_backend_bf16_avx512bf16;
#endif

enum { MAX_BACKENDS = 16 };

static const mm_op_info INFOS[MM_OP_COUNT] = {
    [MM_OP_EMBED] = {"embed", .n_in = 0, .n_out = 1},
    [MM_OP_RMSNORM] = {"rmsnorm", .n_in = 1, .n_out = 2, .reads_in = true, .reads_aux = true},
    [MM_OP_ADD_RMSNORM] = {"add_rmsnorm", .n_in = 2, .n_out = 3, .reads_aux = true,
                           .reads_sum = true},
    [MM_OP_LINEAR] = {"linear", .n_in = 1, .n_out = 1, .reads_in = true},
    [MM_OP_QKNORM_ROPE] = {"qknorm_rope", .n_in = 1, .n_out = 2, .reads_in = true,
                           .reads_aux = true},
    [MM_OP_ATTENTION] = {"attention", .n_in = 1, .n_out = 2, .reads_in = true, .reads_out = true,
                         .reads_aux = true},
    [MM_OP_SWIGLU] = {"swiglu", .n_in = 1, .n_out = 1, .reads_in = true},
    [MM_OP_DROPOUT] = {"dropout", .n_in = 1, .n_out = 1},
    [MM_OP_HEAD_CE] = {"head_ce", .n_in = 1, .n_out = 0, .reads_in = true},
};

const mm_op_info *mm_op_info_of(mm_op_kind kind)
{
    MM_ASSERT(kind < MM_OP_COUNT);
    return &INFOS[kind];
}

#if MM_KERNELS_X86
static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#if MM_KERNELS_PAIRS
// Asked of the processor itself: not every compiler that has the instructions knows their names.
static bool has_avx512bf16(void)
{
    enum { LEAF = 7, SUBLEAF = 1, BIT = 1 << 5 };
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;
    return has_avx512() && __get_cpuid_count(LEAF, SUBLEAF, &eax, &ebx, &ecx, &edx) != 0 &&
           (eax & BIT) != 0;
}
#endif

int32_t mm_backends(const mm_backend **out, int32_t capacity)
{
    const mm_backend *found[MAX_BACKENDS];
    int32_t n = 0;
#if MM_KERNELS_X86
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has_avx512()) found[n++] = &mm_backend_f32_avx512;
    if (has_avx2) found[n++] = &mm_backend_f32_avx2;
#if MM_KERNELS_PAIRS
    if (has_avx512bf16()) found[n++] = &mm_backend_bf16_avx512bf16;
#endif
    if (has_avx512()) found[n++] = &mm_backend_bf16_avx512;
    if (has_avx2) found[n++] = &mm_backend_bf16_avx2;
#endif
    found[n++] = &mm_backend_f32_generic;
    found[n++] = &mm_backend_bf16_generic;
    found[n++] = &mm_backend_f64_generic;
    MM_ASSERT(n <= MAX_BACKENDS);
    for (int32_t i = 0; i < n && i < capacity; i++)
        out[i] = found[i];
    return n;
}

// Every build, from the least to the most of a processor.
static const char *const ISAS[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
enum { RANKS = sizeof ISAS / sizeof ISAS[0] };

enum { DTYPES = 3 };
static const mm_backend *chosen[DTYPES]; // by dtype
static pthread_once_t choose_once = PTHREAD_ONCE_INIT;

// Place in the order of builds, without the library behind a plus; what is unknown is above all.
static int32_t rank_of(const char *isa)
{
    const size_t length = strcspn(isa, "+");
    int32_t rank = 0;
    while (rank < RANKS && (strncmp(ISAS[rank], isa, length) != 0 || ISAS[rank][length] != '\0'))
        rank++;
    return rank;
}

static void choose(void)
{
    const mm_backend *all[MAX_BACKENDS];
    const int32_t n = mm_backends(all, MAX_BACKENDS);
    const char *wish = getenv("MMRUN_ISA");
    for (int32_t i = n - 1; i >= 0; i--) // best last
        chosen[all[i]->dtype] = all[i];
    // The wish is a ceiling: builds are listed best first, per dtype.
    const int32_t ceiling = wish ? rank_of(wish) : RANKS;
    for (int32_t i = n - 1; i >= 0; i--)
        if (rank_of(all[i]->isa) <= ceiling) chosen[all[i]->dtype] = all[i];
}

const mm_backend *mm_backend_of(mm_dtype dtype)
{
    pthread_once(&choose_once, choose);
    return chosen[dtype];
}

const char *mm_engine_isa(mm_dtype dtype) { return mm_backend_of(dtype)->isa; }

mm_dtype mm_engine_best_dtype(void)
{
    const char *isa = mm_engine_isa(MM_BF16);
    if (strcmp(isa, "amx") == 0) return MM_BF16;
#if MM_KERNELS_X86
    // The dot product of bfloat16 pairs runs at twice the rate of fp32 on AMD's Zen 4 and later, at
    // half of it on the Intel processors that have it without matrix tiles.
    if (strcmp(isa, "avx512bf16") == 0 && __builtin_cpu_is("amd")) return MM_BF16;
#endif
    return MM_F32;
}

mm_status mm_engine_isa_check(mm_err *err)
{
    const char *wish = getenv("MMRUN_ISA");
    if (!wish || rank_of(wish) < RANKS) return MM_OK;
    return MM_FAIL(err, MM_ECONFIG,
                   "MMRUN_ISA=%.32s: expected generic, avx2, avx512, avx512bf16 or amx", wish);
}
