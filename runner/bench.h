/* What the parts of `mmrun bench` share: the probes beside which every rate stands, and one
 * function for each thing that is measured.
 *
 * Rates of two moments on a shared machine cannot be compared; rates beside a probe of the same
 * moment can. So every measurement is taken between two probes, and nothing here touches a
 * database.
 */
#ifndef MM_RUNNER_BENCH_H
#define MM_RUNNER_BENCH_H

#include "core/nn/engine.h"
#include "runner/corpus.h"

/* The best this machine has shown: what nothing that was measured beside it can exceed by much. */
typedef struct mm_bench_probe {
    int32_t threads;   /* 0: all processors */
    double fp32_flops; /* multiply-adds counted twice, per second */
    double bf16_flops; /* of the kernels for bf16 products, whatever they compute with */
    double read_bytes; /* per second, from memory far larger than the caches; 0: not measured */
} mm_bench_probe;

/* Probes both peaks, for a third of a second, and keeps what is higher than before. */
void mm_bench_probe_flops(mm_bench_probe *probe);
/* The same for memory. Takes 256 MiB for as long as it runs. */
void mm_bench_probe_memory(mm_bench_probe *probe);
double mm_bench_probe_peak(const mm_bench_probe *probe, mm_dtype dtype);
/* The middle one; of an even number the mean of the middle two. Sorts. NaN when there is none. */
double mm_bench_median(double *values, size_t n);

enum { MM_BENCH_ROUNDS_MAX = 1000 };

/* Training steps on the corpus as the configuration says, `rounds` of them after one that is not
 * counted. `probe` holds a probe from before; this adds one from after. Prints the table, or
 * returns the object under "train" in *json when that is wanted (--json). */
MM_NODISCARD mm_status mm_bench_train(const mm_context *context, const mm_corpus *corpus,
                                      mm_config *config, int32_t rounds, mm_bench_probe *probe,
                                      json_t **json, mm_err *err);

typedef struct mm_bench_decode {
    int32_t rows;          /* decoded together */
    int32_t prompt_tokens; /* of each row */
    int32_t new_tokens;    /* of each row */
    int32_t rounds;
} mm_bench_decode;
/* Prefill and greedy decode of a model with drawn weights; else as mm_bench_train. */
MM_NODISCARD mm_status mm_bench_generate(const mm_context *context, mm_config *config,
                                         const mm_bench_decode *size, mm_bench_probe *probe,
                                         json_t **json, mm_err *err);

/* Encoding of all texts of a file in one thread, and learning a vocabulary of the tokenizer's size
 * from them. */
MM_NODISCARD mm_status mm_bench_tokenizer(const mm_context *context, const char *path,
                                          const mm_tokenizer *tokenizer, mm_bench_probe *probe,
                                          json_t **json, mm_err *err);

#endif
