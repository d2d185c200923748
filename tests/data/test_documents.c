/* Tests of core/data/documents.h through the caches it builds: for any number of threads the same
 * file, the same count of bad rows, the same first error, the same end when it is stopped. */
#include "tests/data/fixtures.h"

#include "core/base/rng.h"
#include "core/data/rows_parse.h"
#include "core/data/documents.h"

#include <sys/stat.h>

static mm_tokenizer *tokenizer; // 512 tokens

static const int32_t THREADS[] = {1, 2, 3, 8};
enum { N_THREADS = sizeof THREADS / sizeof THREADS[0] };

/* What became of one build. */
typedef struct outcome {
    mm_status status;
    mm_err err;
    char *bytes; // of the cache file
    size_t n_bytes;
    int64_t documents;
    int64_t bad_rows;
} outcome;

static void outcome_drop(outcome *found) { mm_free(found->bytes); }

static outcome build(const char *dir, mm_cache_options options)
{
    outcome found = {0};
    mm_token_cache *cache;
    char *folder = path_in(dir, "cache");
    remove_tree(folder);
    options.dir = folder;
    found.status = mm_token_cache_open(&cache, &options, tokenizer, &found.err);
    if (found.status == MM_OK) {
        assert_true(mm_token_cache_info(cache)->was_built);
        found.documents = mm_token_cache_info(cache)->documents;
        found.bad_rows = mm_token_cache_info(cache)->bad_rows;
        CHECK_OK(mm_file_read(mm_token_cache_path(cache), 1 << 30, &found.bytes, &found.n_bytes,
                              ok_err));
        mm_token_cache_close(cache);
    } else {
        assert_null(cache);
        assert_int_equal(count_entries(folder), 0); // no lock, no part of a file
    }
    mm_free(folder);
    return found;
}

/* Builds with every number of threads and gives the outcome of one, which all others equal. */
static outcome build_all(const char *dir, mm_cache_options options)
{
    outcome first = {0};
    for (int i = 0; i < N_THREADS; i++) {
        options.threads = THREADS[i];
        outcome found = build(dir, options);
        if (i == 0) {
            first = found;
            continue;
        }
        assert_int_equal(found.status, first.status);
        assert_string_equal(found.err.message, first.err.message);
        assert_int_equal(found.n_bytes, first.n_bytes);
        if (found.n_bytes > 0) assert_memory_equal(found.bytes, first.bytes, found.n_bytes);
        assert_int_equal(found.bad_rows, first.bad_rows);
        outcome_drop(&found);
    }
    return first;
}

/* A row of text with about so many bytes. */
static void add_text_row(mm_str *out, mm_rng *rng, size_t bytes)
{
    static const char *const WORDS[] = {"rain ", "雨", "，", "a", " river", "\\n", "1234", "é"};
    mm_str_add(out, "{\"text\":\"x");
    for (const size_t end = out->length + bytes; out->length < end;)
        mm_str_add(out, WORDS[mm_rng_below(rng, 8)]);
    mm_str_add(out, "\"}");
}

/* Rows of one byte to megabytes, in clusters, with empty, broken and overlong ones between. */
static void make_uneven(mm_str *out, const char *separator)
{
    mm_rng rng;
    mm_rng_init(&rng, 7, MM_RNG_TEST, 0);
    for (int i = 0; i < 5000; i++) {
        const uint32_t kind = (uint32_t)mm_rng_below(&rng, 1000);
        if (i > 0) mm_str_add(out, separator);
        if (kind < 3)
            mm_str_add(out, "{\"text\":\"\"}");
        else if (kind < 6)
            mm_str_add(out, "{\"text\":17}");
        else if (kind < 9)
            mm_str_add(out, "{\"text\": nothing}");
        else if (kind < 11)
            add_text_row(out, &rng, 150000);
        else if (kind < 20)
            add_text_row(out, &rng, 9000);
        else
            add_text_row(out, &rng, mm_rng_below(&rng, kind < 500 ? 8 : 300));
        if (i == 2345) {
            mm_str_add(out, separator);
            mm_str_addf(out, "{\"text\":\"%*d\"}", MM_ROW_BYTES_MAX, 1);
        }
    }
    assert_int_equal(out->status, MM_OK);
}

static void test_any_number_of_threads_builds_the_same_file(void **state)
{
    mm_str lines = {0};
    make_uneven(&lines, "\n");
    mm_str with_blanks = {0};
    make_uneven(&with_blanks, "\r\n\r\n");
    mm_str array = {0};
    mm_str_add(&array, "[");
    make_uneven(&array, " ,\n");
    mm_str_add(&array, "]\n");
    const mm_str *const files[] = {&lines, &with_blanks, &array};
    int64_t documents = 0;
    for (int i = 0; i < 3; i++) {
        char *path = path_in(*state, "uneven.jsonl");
        write_bytes(path, files[i]->data, files[i]->length);
        outcome found = build_all(*state, (mm_cache_options){.path = path, .skip_bad_rows = true});
        assert_int_equal(found.status, MM_OK);
        assert_int_equal(found.documents + found.bad_rows, 5001);
        assert_in_range(found.bad_rows, 20, 100);
        if (i > 0) assert_int_equal(found.documents, documents);
        documents = found.documents;
        outcome_drop(&found);
        // The message counts them all and names the first.
        found = build_all(*state, (mm_cache_options){.path = path});
        assert_int_equal(found.status, MM_EFORMAT);
        check_message(&found.err, "of 5001 rows are bad");
        check_message(&found.err, "1 longer than 16 MiB");
        mm_free(path);
    }
    mm_str_drop(&array);
    mm_str_drop(&with_blanks);
    mm_str_drop(&lines);
}

static void test_compressed_files_give_what_plain_ones_give(void **state)
{
    static void (*const COMPRESS[])(mm_str *, const char *, size_t) = {gzip_to, zstd_to};
    static const char *const NAMES[] = {"t.jsonl.gz", "t.jsonl.zst"};
    const mm_synth_options rows = {.kind = MM_SYNTH_SFT, .seed = 3};
    mm_str plain = {0};
    for (int i = 0; i < 3000; i++)
        mm_synth_row(&rows, i, &plain);
    for (int i = 0; i < 2; i++) {
        char *path = path_in(*state, NAMES[i]);
        mm_str packed = {0};
        COMPRESS[i](&packed, plain.data, plain.length);
        write_bytes(path, packed.data, packed.length);
        outcome found = build_all(*state, (mm_cache_options){.path = path});
        assert_int_equal(found.status, MM_OK);
        assert_int_equal(found.documents, 3000);
        outcome_drop(&found);
        // Damage behind thousands of good rows is found by all alike.
        write_bytes(path, packed.data, packed.length - 5);
        found = build_all(*state, (mm_cache_options){.path = path});
        assert_int_equal(found.status, MM_ECORRUPT);
        check_message(&found.err, "ends too early");
        mm_str_drop(&packed);
        mm_free(path);
    }
    mm_str_drop(&plain);
}

static void test_plain_text_gives_the_same_rows(void **state)
{
    mm_rng rng;
    mm_str text = {0};
    mm_rng_init(&rng, 9, MM_RNG_TEST, 0);
    for (int i = 0; i < 30000; i++) {
        const uint64_t kind = mm_rng_below(&rng, 2000);
        if (kind == 0)
            mm_str_add(&text, "ill-formed \xFF here");
        else if (kind > 300)
            mm_str_addf(&text, "Line %d, %.*s雨。", i, (int)mm_rng_below(&rng, 30),
                        "of all the lines that there are here");
        mm_str_add(&text, "\n");
    }
    char *path = path_in(*state, "t.txt");
    write_bytes(path, text.data, text.length);
    static const mm_row_format FORMATS[] = {MM_ROWS_AUTO, MM_ROWS_LINES};
    for (int i = 0; i < 2; i++) {
        const mm_cache_options options = {
            .path = path, .format = FORMATS[i], .skip_bad_rows = true};
        outcome found = build_all(*state, options);
        assert_int_equal(found.status, MM_OK);
        assert_in_range(found.bad_rows, 3, 40);
        assert_true(found.documents > (i == 0 ? 200 : 20000));
        outcome_drop(&found);
    }
    mm_free(path);
    mm_str_drop(&text);
}

/* Ids and keys of all documents as they arrive. */
typedef struct collected {
    mm_ids ids;
    mm_ids lengths;
    uint64_t bytes_done;
    int blocks;
} collected;

static mm_status collect(void *context, const mm_document_block *block, mm_err *err)
{
    collected *all = context;
    size_t begin = 0;
    for (size_t i = 0; i < block->count; i++) {
        // Texts: one rendering each, all of it learned.
        assert_int_equal(block->documents[i].renderings_end, i + 1);
        assert_int_equal(block->documents[i].flags, MM_DOCUMENT_HAS_SYSTEM);
        const size_t end = block->renderings[i].end;
        assert_true(end > begin);
        assert_int_equal(block->renderings[i].first_learned, 0);
        assert_int_equal(block->renderings[i].n_learned, end - begin);
        for (size_t k = begin; k < end; k++) {
            assert_true(block->ids[k] & MM_ID_LEARNED);
            MM_TRY(mm_ids_add(&all->ids, block->ids[k] & ~MM_ID_LEARNED, err));
        }
        MM_TRY(mm_ids_add(&all->lengths, (int32_t)(end - begin), err));
        begin = end;
    }
    assert_true(block->bytes_done >= all->bytes_done);
    all->bytes_done = block->bytes_done;
    all->blocks++;
    return MM_OK;
}

// Reads the same file row by row and encodes each by itself.
static void check_collected(const collected *all, const mm_row_report *report, const char *path)
{
    mm_row_reader *reader;
    size_t at = 0;
    size_t document = 0;
    CHECK_OK(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, ok_err));
    for (;;) {
        const mm_row *row;
        mm_ids ids = {0};
        CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
        if (!row) break;
        CHECK_OK(mm_ids_add(&ids, mm_tokenizer_bos(tokenizer), ok_err));
        CHECK_OK(mm_tokenizer_encode(tokenizer, row->text, row->text_bytes, MM_ADDED_PARSE, &ids,
                                     ok_err));
        CHECK_OK(mm_ids_add(&ids, mm_tokenizer_eos(tokenizer), ok_err));
        assert_true(document < all->lengths.count);
        assert_int_equal(all->lengths.data[document], ids.count);
        assert_memory_equal(all->ids.data + at, ids.data, ids.count * sizeof *ids.data);
        at += ids.count;
        document++;
        mm_ids_drop(&ids);
    }
    assert_int_equal(document, all->lengths.count);
    const mm_row_report *expected = mm_row_reader_report(reader);
    assert_int_equal(report->rows, expected->rows);
    assert_int_equal(report->bad, expected->bad);
    assert_memory_equal(report->bad_by_reason, expected->bad_by_reason,
                        sizeof expected->bad_by_reason);
    assert_int_equal(report->n_first, expected->n_first);
    for (int32_t i = 0; i < expected->n_first; i++) {
        assert_int_equal(report->first[i].line, expected->first[i].line);
        assert_int_equal(report->first[i].reason, expected->first[i].reason);
        assert_string_equal(report->first[i].detail, expected->first[i].detail);
    }
    mm_row_reader_close(reader);
}

static void test_documents_are_the_rows_one_by_one(void **state)
{
    char *path = path_in(*state, "uneven.jsonl");
    mm_str lines = {0};
    make_uneven(&lines, "\n");
    write_bytes(path, lines.data, lines.length);
    for (int i = 0; i < N_THREADS; i++) {
        collected all = {0};
        mm_row_reader *reader;
        const mm_documents documents = {.path = path,
                                        .tokenizer = tokenizer,
                                        .threads = THREADS[i],
                                        .take = collect,
                                        .context = &all};
        CHECK_OK(mm_row_reader_open(&reader, path, MM_ROWS_AUTO, ok_err));
        CHECK_OK(mm_documents_each(&documents, reader, ok_err));
        assert_true(all.blocks > 6);
        assert_int_equal(all.bytes_done, lines.length);
        check_collected(&all, mm_row_reader_report(reader), path);
        mm_row_reader_close(reader);
        mm_ids_drop(&all.lengths);
        mm_ids_drop(&all.ids);
    }
    mm_str_drop(&lines);
    mm_free(path);
}

static const char NAMELESS_CALL[] =
    "{\"conversations\":[{\"role\":\"user\",\"content\":\"go\"},{\"role\":\"assistant\","
    "\"content\":\"\",\"tool_calls\":[{\"arguments\":{}}]}]}\n";

static void test_the_first_error_of_the_file_wins(void **state)
{
    const mm_synth_options rows = {.kind = MM_SYNTH_SFT, .seed = 3};
    char *path = path_in(*state, "t.jsonl.gz");
    // The line of the bad row, and what stands further on: a second such row, and a cut.
    static const int LINES[] = {1, 2, 1700, 4999};
    for (size_t k = 0; k < sizeof LINES / sizeof LINES[0]; k++) {
        mm_str text = {0};
        mm_str packed = {0};
        char expected[64];
        for (int line = 1; line <= 5000; line++) {
            if (line == LINES[k] || (line > LINES[k] && line % 1000 == 900))
                mm_str_add(&text, NAMELESS_CALL);
            else
                mm_synth_row(&rows, line, &text);
        }
        gzip_to(&packed, text.data, text.length);
        write_bytes(path, packed.data, packed.length - 9);
        outcome found = build_all(*state, (mm_cache_options){.path = path, .skip_bad_rows = true});
        snprintf(expected, sizeof expected, "t.jsonl.gz:%d: messages[1]: tool_calls[0].name",
                 LINES[k]);
        assert_int_equal(found.status, MM_EFORMAT);
        check_message(&found.err, expected);
        mm_str_drop(&packed);
        mm_str_drop(&text);
    }
    mm_free(path);
}

/* Stops at the n-th call. */
typedef struct stopper {
    int calls;
    int stop_at;
} stopper;

static bool count_down(void *context, uint64_t done, uint64_t total)
{
    stopper *stop = context;
    assert_true(done <= total);
    return ++stop->calls != stop->stop_at;
}

static void test_a_stopped_build_ends_and_leaves_nothing(void **state)
{
    char *path = path_in(*state, "uneven.jsonl");
    mm_str lines = {0};
    make_uneven(&lines, "\n");
    write_bytes(path, lines.data, lines.length);
    for (int stop_at = 1; stop_at <= 3; stop_at++) {
        for (int i = 0; i < N_THREADS; i++) {
            stopper stop = {.stop_at = stop_at};
            outcome found = build(*state, (mm_cache_options){.path = path,
                                                             .skip_bad_rows = true,
                                                             .threads = THREADS[i],
                                                             .progress = count_down,
                                                             .context = &stop});
            assert_int_equal(found.status, MM_ECANCELED);
            assert_int_equal(stop.calls, stop_at);
            check_message(&found.err, "uneven.jsonl: tokenizing was stopped");
        }
    }
    mm_str_drop(&lines);
    mm_free(path);
}

static void test_without_memory_threads_fail_as_one_does(void **state)
{
    char *path = path_in(*state, "t.jsonl");
    const mm_synth_options rows = {.kind = MM_SYNTH_SFT, .seed = 5, .rows = 1500};
    CHECK_OK(mm_synth_file(&rows, path, ok_err));
    uint64_t nth = 1;
    int failed = 0;
    for (;; nth += 1 + nth / 3) {
        char *folder = path_in(*state, "cache");
        remove_tree(folder);
        const mm_cache_options options = {.path = path, .dir = folder, .threads = 3};
        mm_token_cache *cache;
        mm_alloc_fail_at(nth);
        const mm_status status = mm_token_cache_open(&cache, &options, tokenizer, NULL);
        mm_alloc_fail_at(0);
        mm_free(folder);
        if (status == MM_OK) {
            mm_token_cache_close(cache);
            break;
        }
        failed++;
        assert_int_equal(status, MM_ENOMEM);
        assert_null(cache);
    }
    assert_true(failed > 15);
    mm_free(path);
}

static void test_real_files_give_the_same_file(void **state)
{
    static const struct {
        const char *name;
        bool pairs;
    } FILES[] = {{"sft_zh.jsonl", false},
                 {"rlaif.jsonl", false},
                 {"lora_identity.jsonl", false},
                 {"tinyshakespeare.txt", false},
                 {"pretrain_poetry.jsonl", false},
                 {"dpo_zh.jsonl", true},
                 {"raw/alpaca_zh_demo.json", false},
                 {"raw/glaive_toolcall_zh_demo.json", false},
                 {"raw/dpo_zh_demo.json", true}};
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char *path = shared_file(FILES[i].name);
        outcome found =
            build_all(*state, (mm_cache_options){.path = path, .pairs = FILES[i].pairs});
        assert_int_equal(found.status, MM_OK);
        assert_int_equal(found.bad_rows, 0);
        assert_true(found.documents > 50);
        outcome_drop(&found);
        // The other kind of stage refuses the file, whoever reads its first row.
        found = build_all(*state, (mm_cache_options){.path = path, .pairs = !FILES[i].pairs});
        assert_int_equal(found.status, MM_EFORMAT);
        check_message(&found.err, "`mmrun dpo` learns from");
        mm_free(path);
    }
}

static int make_tokenizer(void **state)
{
    tokenizer = small_tokenizer(512);
    return temp_dir_make(state);
}

static int drop_tokenizer(void **state)
{
    mm_tokenizer_free(tokenizer);
    return temp_dir_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_threads_builds_the_same_file),
        cmocka_unit_test(test_compressed_files_give_what_plain_ones_give),
        cmocka_unit_test(test_plain_text_gives_the_same_rows),
        cmocka_unit_test(test_documents_are_the_rows_one_by_one),
        cmocka_unit_test(test_the_first_error_of_the_file_wins),
        cmocka_unit_test(test_a_stopped_build_ends_and_leaves_nothing),
        cmocka_unit_test(test_without_memory_threads_fail_as_one_does),
        cmocka_unit_test(test_real_files_give_the_same_file)};
    return cmocka_run_group_tests_name("data/documents", tests, make_tokenizer, drop_tokenizer);
}
