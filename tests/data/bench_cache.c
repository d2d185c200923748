/* Speed of turning a data file into tokens: encoding alone, and the whole way into a cache.
 *
 *   bench_cache [THREADS] [TOKENIZER FILE...]
 *
 * Without files, self-made rows and a tokenizer trained on some of them. Each figure is the fastest
 * of several runs, taken in turn so that a machine whose speed drifts drifts for all of them; MB
 * are 10^6 bytes of the file, or of text where text alone is encoded. THREADS: at most that many
 * (default: all processors).
 */
#include "tests/data/fixtures.h"

#include "core/base/clock.h"

#include <sched.h>
#include <unistd.h>

enum { ROUNDS = 5, THREADS_MAX = 256, VOCAB = 2048, SELF_MADE_ROWS = 60000 };

/* The documents of a file, one after the other, for encoding without reading. */
typedef struct texts {
    mm_str bytes;
    mm_ids ends;
} texts;

static void texts_read(texts *out, const char *path)
{
    mm_row_reader *reader;
    const mm_row *row;
    CHECK_OK(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, ok_err));
    for (;;) {
        CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
        if (!row) break;
        if (row->kind == MM_ROW_TEXT) mm_str_add_bytes(&out->bytes, row->text, row->text_bytes);
        for (size_t i = 0; i < row->chat.count; i++)
            mm_str_add(&out->bytes, row->chat.messages[i].content);
        CHECK_OK(mm_ids_add(&out->ends, (int32_t)out->bytes.length, ok_err));
    }
    CHECK_OK(mm_str_check(&out->bytes, ok_err));
    mm_row_reader_close(reader);
}

static double seconds_since(int64_t start) { return (double)(mm_mono_ns() - start) * 1e-9; }

static double encode_seconds(const mm_tokenizer *tokenizer, const texts *all, size_t *tokens)
{
    mm_ids ids = {0};
    size_t begin = 0;
    *tokens = 0;
    const int64_t start = mm_mono_ns();
    for (size_t i = 0; i < all->ends.count; i++) {
        const size_t end = (size_t)all->ends.data[i];
        ids.count = 0;
        CHECK_OK(mm_tokenizer_encode(tokenizer, all->bytes.data + begin, end - begin,
                                     MM_ADDED_AS_TEXT, &ids, ok_err));
        *tokens += ids.count;
        begin = end;
    }
    const double seconds = seconds_since(start);
    mm_ids_drop(&ids);
    return seconds;
}

static double cache_seconds(const mm_tokenizer *tokenizer, const char *path, const char *dir,
                            int32_t threads, uint64_t *bytes)
{
    const mm_cache_options options = {
        .path = path, .dir = dir, .skip_bad_rows = true, .threads = threads};
    mm_token_cache *cache;
    const int64_t start = mm_mono_ns();
    CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
    const double seconds = seconds_since(start);
    assert_true(mm_token_cache_info(cache)->was_built);
    *bytes = mm_token_cache_info(cache)->data_bytes;
    assert_int_equal(unlink(mm_token_cache_path(cache)), 0);
    mm_token_cache_close(cache);
    return seconds;
}

static void keep_least(double *best, double seconds)
{
    if (*best <= 0 || seconds < *best) *best = seconds;
}

static void bench_file(const mm_tokenizer *tokenizer, const char *path, const char *dir,
                       int32_t threads)
{
    texts all = {0};
    double encode = 0;
    double cache[THREADS_MAX] = {0};
    size_t tokens = 0;
    uint64_t bytes = 0;
    texts_read(&all, path);
    for (int round = 0; round < ROUNDS; round++) {
        keep_least(&encode, encode_seconds(tokenizer, &all, &tokens));
        for (int32_t n = 1; n <= threads; n *= 2)
            keep_least(&cache[n - 1], cache_seconds(tokenizer, path, dir, n, &bytes));
    }
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    printf("encode %s  %.1f MB/s (%.2f bytes per token)\n", name,
           (double)all.bytes.length / encode * 1e-6, (double)all.bytes.length / (double)tokens);
    for (int32_t n = 1; n <= threads; n *= 2)
        printf("cache %s, threads %d  %.1f MB/s\n", name, n, (double)bytes / cache[n - 1] * 1e-6);
    mm_ids_drop(&all.ends);
    mm_str_drop(&all.bytes);
}

static int32_t processors(void)
{
    cpu_set_t set;
    const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < THREADS_MAX ? count : THREADS_MAX;
}

static void bench_self_made(const char *dir, int32_t threads)
{
    static const mm_synth_kind KINDS[] = {MM_SYNTH_PRETRAIN, MM_SYNTH_SFT};
    static const char *const NAMES[] = {"pretrain.jsonl", "sft.jsonl"};
    mm_tokenizer *tokenizer = small_tokenizer(VOCAB);
    for (int i = 0; i < 2; i++) {
        char *path = path_in(dir, NAMES[i]);
        const mm_synth_options options = {.kind = KINDS[i], .seed = 3, .rows = SELF_MADE_ROWS};
        CHECK_OK(mm_synth_file(&options, path, ok_err));
        bench_file(tokenizer, path, dir, threads);
        mm_free(path);
    }
    mm_tokenizer_free(tokenizer);
}

int main(int argc, char **argv)
{
    void *dir = NULL;
    int32_t threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : processors();
    if (threads < 1 || threads > THREADS_MAX || argc == 3) {
        fprintf(stderr, "usage: bench_cache [THREADS] [TOKENIZER FILE...]\n");
        return 2;
    }
    if (temp_dir_make(&dir) != 0) return 1;
    if (argc < 3) bench_self_made(dir, threads);
    if (argc > 3) {
        mm_tokenizer *tokenizer;
        CHECK_OK(mm_tokenizer_load(&tokenizer, argv[2], ok_err));
        for (int i = 3; i < argc; i++)
            bench_file(tokenizer, argv[i], dir, threads);
        mm_tokenizer_free(tokenizer);
    }
    return temp_dir_remove(&dir);
}
