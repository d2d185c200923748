/* Encoding and learning, on the texts of a file that are read into memory before the clock starts.
 */
#include "runner/bench.h"

#include "core/base/clock.h"
#include "runner/commands.h"

#include <string.h>

enum { ENCODE_ROUNDS = 5 };
static const size_t TEXT_BYTES_MAX = (size_t)64 << 20;

// All texts in one block, with the bounds between them.
typedef struct texts {
    mm_str block;
    size_t *ends;
    size_t n;
    size_t capacity;
} texts;

// MM_ELIMIT when there is enough; the caller takes that for the end of the file.
static mm_status keep_text(void *context, const char *text, size_t length, mm_err *err)
{
    texts *all = context;
    if (all->block.length + length > TEXT_BYTES_MAX)
        return MM_FAIL(err, MM_ELIMIT, "over %zu MB of text", TEXT_BYTES_MAX >> 20);
    if (all->n == all->capacity) {
        const size_t capacity = all->capacity == 0 ? 4096 : all->capacity * 2;
        size_t *ends = all->ends ? mm_realloc(all->ends, capacity * sizeof *ends)
                                 : mm_alloc(capacity * sizeof *ends);
        if (!ends) return MM_FAIL(err, MM_ENOMEM, "no memory for the texts");
        all->ends = ends;
        all->capacity = capacity;
    }
    mm_str_add_bytes(&all->block, text, length);
    all->ends[all->n++] = all->block.length;
    return mm_str_check(&all->block, err);
}

static mm_status read_texts(const mm_context *context, const char *path, texts *all, mm_err *err)
{
    mm_row_report report = {0};
    mm_err why = {0};
    const mm_status status = mm_input_texts(path, 0, keep_text, all, &report, &why);
    if (status == MM_ELIMIT && all->n > 0) {
        mm_say(context, "%s: the first %zu MB of its text are used.", path,
               all->block.length / 1000000);
        return MM_OK;
    }
    if (status != MM_OK && err) *err = why;
    MM_TRY(status);
    if (all->block.length == 0) return MM_FAIL(err, MM_EFORMAT, "%s: no text", path);
    return MM_OK;
}

static mm_status encode_all(const texts *all, const mm_tokenizer *tokenizer, mm_ids *ids,
                            double *seconds, mm_err *err)
{
    size_t begin = 0;
    ids->count = 0;
    const int64_t start = mm_mono_ns();
    for (size_t i = 0; i < all->n; i++) {
        MM_TRY(mm_tokenizer_encode(tokenizer, all->block.data + begin, all->ends[i] - begin,
                                   MM_ADDED_PARSE, ids, err));
        begin = all->ends[i];
    }
    *seconds = (double)(mm_mono_ns() - start) * 1e-9;
    return MM_OK;
}

static mm_status learn(const texts *all, int32_t vocab, double *seconds, int32_t *learned,
                       mm_err *err)
{
    mm_bpe_trainer *trainer = NULL;
    mm_tokenizer *tokenizer = NULL;
    mm_status status = MM_OK;
    size_t begin = 0;
    const int64_t start = mm_mono_ns();
    MM_GO(mm_bpe_trainer_new(&trainer, vocab, err));
    for (size_t i = 0; i < all->n; i++) {
        MM_GO(mm_bpe_trainer_feed(trainer, all->block.data + begin, all->ends[i] - begin, err));
        begin = all->ends[i];
    }
    MM_GO(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, err));
    *seconds = (double)(mm_mono_ns() - start) * 1e-9;
    *learned = mm_tokenizer_vocab(tokenizer);
done:
    mm_tokenizer_free(tokenizer);
    mm_bpe_trainer_free(trainer);
    return status;
}

mm_status mm_bench_tokenizer(const mm_context *context, const char *path,
                             const mm_tokenizer *tokenizer, mm_bench_probe *probe, json_t **json,
                             mm_err *err)
{
    texts all = {.block = {.limit = TEXT_BYTES_MAX}};
    mm_ids ids = {0};
    mm_status status = MM_OK;
    double rates[ENCODE_ROUNDS];
    double seconds = 0;
    double train_s = 0;
    int32_t learned = 0;
    MM_GO(read_texts(context, path, &all, err));
    // The first round fills the cache of words and is not counted.
    for (int i = -1; i < ENCODE_ROUNDS; i++) {
        MM_GO(encode_all(&all, tokenizer, &ids, &seconds, err));
        if (i >= 0) rates[i] = (double)all.block.length / seconds * 1e-6;
    }
    MM_GO(learn(&all, mm_tokenizer_vocab(tokenizer), &train_s, &learned, err));
    mm_bench_probe_flops(probe);
    const double rate = mm_bench_median(rates, ENCODE_ROUNDS);
    if (json) {
        *json = json_pack("{s:I, s:I, s:I, s:o, s:i, s:o}", "texts", (json_int_t)all.n, "bytes",
                          (json_int_t)all.block.length, "tokens", (json_int_t)ids.count,
                          "encode_mb_per_s", mm_json_of_real(rate), "vocab_size", (int)learned,
                          "train_s", mm_json_of_real(train_s));
        goto done;
    }
    mm_out("Encoding, one thread: %.1f MB/s (%zu bytes, %zu tokens), median of %d rounds\n", rate,
           all.block.length, ids.count, ENCODE_ROUNDS);
    mm_out("Learning %d tokens from the same text: %.2f s\n", (int)learned, train_s);
done:
    mm_ids_drop(&ids);
    mm_free(all.ends);
    mm_str_drop(&all.block);
    return status;
}
