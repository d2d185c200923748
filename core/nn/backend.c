/* Which build of the kernels runs: the best this processor has, or less where MMRUN_ISA says so. */
#include "core/nn/ops.h"

#include "core/nn/engine.h"

#if MM_KERNELS_PAIRS
#include <cpuid.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if MM_KERNELS_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
#if MM_KERNELS_TILES
extern const mm_backend mm_backend_bf16_amx;
#endif

enum { MAX_BACKENDS = 16 };

static const mm_op_info INFOS[MM_OP_COUNT] = {
    [MM_OP_EMBED] = {"embed", .n_in = 0, .n_out = 1},
    [MM_OP_RMSNORM] = {"rmsnorm", .n_in = 1, .n_out = 2, .reads_in = true, .reads_aux = true},
    [MM_OP_ADD_RMSNORM] = {"add_rmsnorm", .n_in = 2, .n_out = 3, .reads_aux = true,
                           .reads_sum = true},
    [MM_OP_LINEAR] = {"linear", .n_in = 1, .n_out = 1, .reads_in = true},
    [MM_OP_LORA] = {"lora", .n_in = 2, .n_out = 2, .reads_in = true, .reads_aux = true},
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
// Register words of CPUID leaf 7, asked of the processor itself: not every compiler that has the
// instructions knows their names. Zeros where there is no such leaf.
typedef struct cpu_features {
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;
} cpu_features;

static cpu_features features_of(unsigned subleaf)
{
    enum { LEAF = 7 };
    cpu_features f = {0};
    if (__get_cpuid_count(LEAF, subleaf, &f.eax, &f.ebx, &f.ecx, &f.edx) == 0)
        return (cpu_features){0};
    return f;
}

static bool has_avx512bf16(void)
{
    enum { BF16_BIT = 1 << 5 };
    return has_avx512() && (features_of(1).eax & BF16_BIT) != 0;
}

// The dot product of bfloat16 pairs runs at twice the rate of fp32 on AMD's Zen 4 and later, at
// half of it on the Intel processors that have it without matrix tiles.
static bool has_fast_pairs(void) { return has_avx512bf16() && __builtin_cpu_is("amd"); }
#endif

#if MM_KERNELS_TILES
// Which register state the operating system saves. Needs a processor with AVX.
static uint64_t saved_state(void)
{
    uint32_t low;
    uint32_t high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool amx_granted;
static pthread_once_t amx_once = PTHREAD_ONCE_INIT;

// The tiles are 8 KiB more of state for each thread, which Linux saves for processes that asked.
static void ask_for_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18 };
    amx_granted = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static bool has_amx(void)
{
    enum { BF16_BIT = 1 << 22, TILE_BIT = 1 << 24, TILE_STATE = 3 << 17 };
    const unsigned bits = BF16_BIT | TILE_BIT;
    if (!has_avx512bf16() || (features_of(0).edx & bits) != bits) return false;
    if ((saved_state() & TILE_STATE) != TILE_STATE) return false;
    pthread_once(&amx_once, ask_for_amx);
    return amx_granted;
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
#if MM_KERNELS_TILES
    if (has_amx()) found[n++] = &mm_backend_bf16_amx;
#endif
#if MM_KERNELS_PAIRS
    if (has_fast_pairs()) found[n++] = &mm_backend_bf16_avx512bf16;
#endif
    if (has_avx512()) found[n++] = &mm_backend_bf16_avx512;
#if MM_KERNELS_PAIRS
    if (has_avx512bf16() && !has_fast_pairs()) found[n++] = &mm_backend_bf16_avx512bf16;
#endif
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
    for (int32_t i = 0; i < n; i++) // which need not be the best below its own name
        if (wish && strcmp(all[i]->isa, wish) == 0) chosen[all[i]->dtype] = all[i];
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
#if MM_KERNELS_PAIRS
    if (strcmp(isa, "avx512bf16") == 0 && has_fast_pairs()) return MM_BF16;
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
