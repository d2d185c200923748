/* Tests of core/data/cache.h: what a cache holds, damage of every kind, several builders at once,
 * builders that are killed, a full disk. */
#include "tests/data/fixtures.h"

#include "core/base/rng.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static mm_tokenizer *tokenizer;  // 512 tokens
static mm_tokenizer *bytes_only; // no merges: a token per byte

typedef struct places {
    char *data;  // the data file
    char *cache; // the cache folder
} places;

static places places_in(const char *dir, const char *name)
{
    const places found = {.data = path_in(dir, name), .cache = path_in(dir, "cache")};
    remove_tree(found.cache);
    return found;
}

static void places_drop(places *used)
{
    mm_free(used->data);
    mm_free(used->cache);
}

static mm_token_cache *open_cache(const places *where, const mm_tokenizer *with)
{
    const mm_cache_options options = {.path = where->data, .dir = where->cache};
    mm_token_cache *cache;
    CHECK_OK(mm_token_cache_open(&cache, &options, with, ok_err));
    return cache;
}

static void write_synth(const char *path, mm_synth_kind kind, int64_t rows)
{
    const mm_synth_options options = {.kind = kind, .seed = 5, .rows = rows};
    CHECK_OK(mm_synth_file(&options, path, ok_err));
}

static void check_document(const mm_token_cache *cache, int64_t document, const int32_t *ids,
                           size_t count)
{
    assert_int_equal(mm_token_cache_length(cache, (mm_cached){.row = document}), count);
    int32_t *found = mm_alloc(count * sizeof *found);
    mm_token_cache_copy(cache, (mm_cached){.row = document}, 0, (int32_t)count, found, NULL);
    assert_memory_equal(found, ids, count * sizeof *found);
    // Any part comes out as it stands in the whole.
    mm_token_cache_copy(cache, (mm_cached){.row = document}, (int64_t)count / 2,
                        (int32_t)(count - count / 2), found, NULL);
    assert_memory_equal(found, ids + count / 2, (count - count / 2) * sizeof *found);
    mm_free(found);
}

static void test_a_document_is_bos_text_eos(void **state)
{
    places where = places_in(*state, "t.jsonl");
    write_text(where.data, "{\"text\":\"hello\"}\n{\"text\":\"雨\"}\n{\"text\":\"hello\"}\n");
    mm_token_cache *cache = open_cache(&where, bytes_only);
    const mm_cache_info *info = mm_token_cache_info(cache);
    uint8_t digest[MM_SHA256_BYTES];
    char hex[MM_SHA256_HEX_BYTES];
    uint64_t bytes;
    CHECK_OK(mm_sha256_file(where.data, digest, &bytes, ok_err));
    mm_sha256_hex(digest, hex);
    assert_string_equal(info->data_sha256, hex);
    assert_int_equal(info->data_bytes, bytes);
    assert_int_equal(info->documents, 3);
    assert_int_equal(info->tokens, 7 + 5 + 7);
    assert_int_equal(info->format, MM_ROWS_TEXT);
    assert_true(info->was_built);
    static const char *const TEXTS[] = {"hello", "雨", "hello"};
    for (int i = 0; i < 3; i++) {
        mm_ids ids = {0};
        CHECK_OK(mm_ids_add(&ids, mm_tokenizer_bos(bytes_only), ok_err));
        CHECK_OK(mm_tokenizer_encode(bytes_only, TEXTS[i], strlen(TEXTS[i]), MM_ADDED_PARSE, &ids,
                                     ok_err));
        CHECK_OK(mm_ids_add(&ids, mm_tokenizer_eos(bytes_only), ok_err));
        check_document(cache, i, ids.data, ids.count);
        mm_ids_drop(&ids);
    }
    assert_true(mm_token_cache_key(cache, 0) == mm_token_cache_key(cache, 2));
    assert_true(mm_token_cache_key(cache, 0) != mm_token_cache_key(cache, 1));
    // A row keeps its key under another tokenizer, but not its cache file.
    mm_token_cache *other = open_cache(&where, tokenizer);
    assert_true(mm_token_cache_info(other)->was_built);
    assert_string_not_equal(mm_token_cache_path(cache), mm_token_cache_path(other));
    assert_true(mm_token_cache_key(cache, 1) == mm_token_cache_key(other, 1));
    mm_token_cache_close(other);
    mm_token_cache_close(cache);
    cache = open_cache(&where, bytes_only);
    assert_false(mm_token_cache_info(cache)->was_built);
    assert_int_equal(mm_token_cache_info(cache)->tokens, 19);
    mm_token_cache_close(cache);
    places_drop(&where);
}

static void test_a_conversation_is_what_the_template_renders(void **state)
{
    places where = places_in(*state, "sft.jsonl");
    write_synth(where.data, MM_SYNTH_SFT, 20);
    mm_token_cache *cache = open_cache(&where, tokenizer);
    mm_row_reader *reader;
    const mm_row *row;
    CHECK_OK(mm_row_reader_open(&reader, where.data, MM_ROWS_AUTO, ok_err));
    for (int64_t i = 0; i < 20; i++) {
        mm_ids ids = {0};
        const mm_chat_options whole = {0};
        CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
        CHECK_OK(mm_chat_encode(tokenizer, &row->chat, &whole, &ids, NULL, ok_err));
        check_document(cache, i, ids.data, ids.count);
        mm_ids_drop(&ids);
    }
    mm_row_reader_close(reader);
    mm_token_cache_close(cache);
    places_drop(&where);
}

// The small tokenizer with entries that nothing reaches, so that ids need 32 bits.
static mm_tokenizer *wide_tokenizer(void)
{
    mm_str text = {0};
    json_t *root;
    mm_tokenizer *wide;
    CHECK_OK(mm_tokenizer_json(tokenizer, &text, ok_err));
    CHECK_OK(mm_json_parse(text.data, text.length, "tokenizer", &root, ok_err));
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (int i = (int)mm_tokenizer_vocab(tokenizer); i < 32769; i++) {
        char name[32];
        snprintf(name, sizeof name, "unused-%d", i);
        json_object_set_new(vocab, name, json_integer(i));
    }
    mm_str_clear(&text);
    mm_json_write(root, &text);
    CHECK_OK(mm_tokenizer_parse(&wide, text.data, text.length, NULL, 0, "wide", ok_err));
    json_decref(root);
    mm_str_drop(&text);
    return wide;
}

// One rendering beside the conversation encoded by itself.
static void check_rendering(const mm_token_cache *cache, mm_cached which,
                            const mm_conversation *chat, mm_mask_kind mask)
{
    const mm_chat_options options = {.drop_empty_think = which.has_no_empty_think, .mask = mask};
    mm_ids ids = {0};
    mm_str learned = {0};
    CHECK_OK(mm_chat_encode(tokenizer, chat, &options, &ids, &learned, ok_err));
    assert_int_equal(mm_token_cache_length(cache, which), ids.count);
    int32_t *found = mm_alloc(ids.count * sizeof *found);
    uint8_t *flags = mm_alloc(ids.count);
    int64_t n_learned = 0;
    int64_t first = (int64_t)ids.count;
    assert_true(found && flags);
    mm_token_cache_copy(cache, which, 0, (int32_t)ids.count, found, flags);
    assert_memory_equal(found, ids.data, ids.count * sizeof *found);
    assert_memory_equal(flags, learned.data, ids.count);
    for (int64_t i = (int64_t)ids.count - 1; i >= 0; i--) {
        n_learned += flags[i];
        if (flags[i]) first = i;
    }
    assert_int_equal(mm_token_cache_n_learned(cache, which), n_learned);
    assert_int_equal(mm_token_cache_first_learned(cache, which), first);
    mm_free(found);
    mm_free(flags);
    mm_ids_drop(&ids);
    mm_str_drop(&learned);
}

static void check_renderings(const places *where, const mm_tokenizer *with, mm_mask_kind mask,
                             bool pairs)
{
    const mm_cache_options options = {
        .path = where->data, .dir = where->cache, .mask = mask, .pairs = pairs, .threads = 2};
    mm_token_cache *cache;
    mm_row_reader *reader;
    const mm_row *row;
    int64_t n = 0;
    int64_t tokens = 0;
    CHECK_OK(mm_token_cache_open(&cache, &options, with, ok_err));
    CHECK_OK(mm_row_reader_open(&reader, where->data, MM_ROWS_AUTO, ok_err));
    for (;; n++) {
        CHECK_OK(mm_row_reader_next(reader, &row, ok_err));
        if (!row) break;
        for (int k = 0; k < (pairs ? 4 : 2); k++) {
            const mm_cached which = {
                .row = n, .is_rejected = k / 2 == 1, .has_no_empty_think = k % 2 == 1};
            check_rendering(cache, which, k < 2 ? &row->chat : &row->rejected, mask);
            if (k % 2 == 0) tokens += mm_token_cache_length(cache, which);
        }
        const bool is_system = strcmp(row->chat.messages[0].role, "system") == 0;
        assert_int_equal(mm_token_cache_has_system(cache, n), is_system || row->chat.tools);
    }
    const mm_cache_info *info = mm_token_cache_info(cache);
    assert_int_equal(info->documents, n);
    assert_int_equal(info->tokens, tokens);
    assert_int_equal(info->mask, mask);
    assert_int_equal(info->pairs, pairs);
    mm_row_reader_close(reader);
    mm_token_cache_close(cache);
}

#define TURN(role, content) "{\"role\":\"" role "\",\"content\":\"" content "\"}"

static void test_every_rendering_is_as_encoded_alone(void **state)
{
    static const char ROWS[] = "{\"messages\":[" TURN("user", "U") "," TURN(
        "assistant",
        "   A") "]}\n"
                "{\"messages\":[" TURN("system", "S") "," TURN("user", "U") "," TURN("assistant", "A") "," TURN("user", "V") "," TURN(
                    "assistant",
                    "<think>R</think>B") "]}\n"
                                         "{\"messages\":[" TURN(
                                             "assistant",
                                             "<think>R</think>A") "],\"tools\":[{\"name\":\"f\"}]}"
                                                                  "\n"
                                                                  "{\"messages\":[" TURN(
                                                                      "assistant",
                                                                      "A") "," TURN("assistant",
                                                                                    "") "]}\n"
                                                                                        "{\"message"
                                                                                        "s\":"
                                                                                        "[" TURN(
                                                                                            "user",
                                                                                            "no "
                                                                                            "answe"
                                                                                            "r") "]"
                                                                                                 "}"
                                                                                                 "\n";
    static const char PAIRS[] =
        "{\"chosen\":[" TURN("user", "U") "," TURN("assistant", "A") "],\"rejected\":[" TURN("user", "U") "," TURN(
            "assistant",
            "<think>R</think>B") "]}\n"
                                 "{\"chosen\":[" TURN("user", "U") "," TURN(
                                     "assistant",
                                     "<think>R<"
                                     "/think>A") "],\"rejected\":[" TURN("user",
                                                                         "U") "," TURN("assistant",
                                                                                       "  longer") "]}\n"
                                                                                                   "{\"chosen\":[" TURN("system", "S") "," TURN("user", "U") "," TURN(
                                                                                                       "assistant",
                                                                                                       "A") "],"
                                                                                                            "\"rejected\""
                                                                                                            ":[" TURN(
                                                                                                                "sy"
                                                                                                                "st"
                                                                                                                "e"
                                                                                                                "m",
                                                                                                                "S") "," TURN("user",
                                                                                                                              "U") "," TURN("assistant",
                                                                                                                                            "A") "]}\n";
    places where = places_in(*state, "t.jsonl");
    mm_tokenizer *wide = wide_tokenizer();
    for (int mask = MM_MASK_ANSWERS; mask <= MM_MASK_ALL; mask++) {
        write_text(where.data, ROWS);
        check_renderings(&where, tokenizer, (mm_mask_kind)mask, false);
        check_renderings(&where, wide, (mm_mask_kind)mask, false);
        write_text(where.data, PAIRS);
        check_renderings(&where, tokenizer, (mm_mask_kind)mask, true);
    }
    mm_tokenizer_free(wide);
    places_drop(&where);
}

static void test_pairs_and_other_rows_are_told_apart(void **state)
{
    static const char PAIR[] = "{\"prompt\":\"U\",\"chosen\":\"A\",\"rejected\":\"B\"}\n";
    static const char CHAT[] = "{\"messages\":[" TURN("assistant", "A") "]}\n";
    const struct {
        const char *content;
        bool pairs;
        const char *message;
    } CASES[] = {{PAIR, false, "t.jsonl:1: a preference row (chosen and rejected); `mmrun dpo`"},
                 {CHAT, true, "t.jsonl:1: a row without chosen and rejected; `mmrun dpo`"},
                 {"{\"text\":\"t\"}\n", true, "`mmrun pretrain` from rows like this"}};
    places where = places_in(*state, "t.jsonl");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        mm_cache_options options = {.path = where.data, .dir = where.cache};
        mm_token_cache *cache;
        mm_err err = {0};
        write_text(where.data, CASES[i].content);
        // A cache of the right kind does not help the wrong one.
        options.pairs = !CASES[i].pairs;
        CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
        mm_token_cache_close(cache);
        options.pairs = CASES[i].pairs;
        assert_int_equal(mm_token_cache_open(&cache, &options, tokenizer, &err), MM_EFORMAT);
        check_message(&err, CASES[i].message);
    }
    // Texts are learned as a whole, so one cache serves every mask.
    write_text(where.data, "{\"text\":\"t\"}\n");
    for (int mask = MM_MASK_ANSWERS; mask <= MM_MASK_ALL; mask++) {
        const mm_cache_options options = {
            .path = where.data, .dir = where.cache, .mask = (mm_mask_kind)mask};
        mm_token_cache *cache;
        CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
        assert_int_equal(mm_token_cache_info(cache)->was_built, false);
        mm_token_cache_close(cache);
    }
    places_drop(&where);
}

static void test_large_vocabularies_take_four_bytes(void **state)
{
    places where = places_in(*state, "t.jsonl");
    mm_tokenizer *wide = wide_tokenizer();
    write_synth(where.data, MM_SYNTH_PRETRAIN, 50);
    mm_token_cache *narrow_cache = open_cache(&where, tokenizer);
    mm_token_cache *wide_cache = open_cache(&where, wide);
    struct stat narrow_file;
    struct stat wide_file;
    assert_int_equal(stat(mm_token_cache_path(narrow_cache), &narrow_file), 0);
    assert_int_equal(stat(mm_token_cache_path(wide_cache), &wide_file), 0);
    const int64_t tokens = mm_token_cache_info(wide_cache)->tokens;
    assert_in_range(wide_file.st_size - 4 * tokens, 50 * 32, 50 * 32 + 512);
    for (int64_t i = 0; i < 50; i++) {
        // Without its configuration the wide one has no bos and eos; the text is the same.
        const int64_t text = mm_token_cache_length(narrow_cache, (mm_cached){.row = i}) - 2;
        const bool has_marks = mm_tokenizer_bos(wide) >= 0;
        int32_t *ids = mm_alloc((size_t)(text + 2) * sizeof *ids);
        mm_token_cache_copy(narrow_cache, (mm_cached){.row = i}, 0, (int32_t)text + 2, ids, NULL);
        check_document(wide_cache, i, has_marks ? ids : ids + 1,
                       (size_t)(has_marks ? text + 2 : text));
        mm_free(ids);
    }
    mm_token_cache_close(narrow_cache);
    mm_token_cache_close(wide_cache);
    mm_tokenizer_free(wide);
    places_drop(&where);
}

static char *read_file(const char *path, size_t *bytes)
{
    char *data;
    CHECK_OK(mm_file_read(path, 1 << 30, &data, bytes, ok_err));
    return data;
}

// Puts damaged bytes in place of the cache, opens, and expects the sound ones back.
static void check_rebuilt(const places *where, const char *path, const char *damaged, size_t bytes,
                          const char *sound, size_t sound_bytes)
{
    // Written over, as a bad disk does it.
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(damaged, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    mm_token_cache *cache = open_cache(where, tokenizer);
    assert_true(mm_token_cache_info(cache)->was_built);
    mm_token_cache_close(cache);
    size_t now_bytes;
    char *now = read_file(path, &now_bytes);
    assert_int_equal(now_bytes, sound_bytes);
    assert_memory_equal(now, sound, sound_bytes);
    mm_free(now);
}

static void test_damage_is_found_and_the_cache_built_anew(void **state)
{
    enum { HEADER_BYTES = 288, STRIDE = 1000 };
    places where = places_in(*state, "t.jsonl");
    write_synth(where.data, MM_SYNTH_PRETRAIN, 60);
    mm_token_cache *cache = open_cache(&where, tokenizer);
    char *path = mm_strdup(mm_token_cache_path(cache));
    mm_token_cache_close(cache);
    size_t bytes;
    char *sound = read_file(path, &bytes);
    char *damaged = mm_alloc(bytes + 1);
    assert_true(bytes > 10000);
    // Bytes in every field of the header, then every 1000th.
    for (size_t at = 0; at < bytes; at += at < HEADER_BYTES ? 5 : STRIDE) {
        memcpy(damaged, sound, bytes);
        damaged[at] ^= 0x41;
        check_rebuilt(&where, path, damaged, bytes, sound, bytes);
    }
    memcpy(damaged, sound, bytes);
    damaged[bytes] = 0;
    static const size_t CUTS[] = {0, 1, 100, 287, 288, 5000};
    for (size_t i = 0; i < sizeof CUTS / sizeof CUTS[0]; i++)
        check_rebuilt(&where, path, damaged, CUTS[i], sound, bytes);
    check_rebuilt(&where, path, damaged, bytes - 1, sound, bytes);
    check_rebuilt(&where, path, damaged, bytes + 1, sound, bytes);
    assert_int_equal(count_entries(where.cache), 1);
    mm_free(damaged);
    mm_free(sound);
    mm_free(path);
    places_drop(&where);
}

static void test_changed_data_gets_another_cache(void **state)
{
    places where = places_in(*state, "t.jsonl");
    write_text(where.data, "{\"text\":\"one\"}\n");
    mm_token_cache *first = open_cache(&where, tokenizer);
    write_text(where.data, "{\"text\":\"two\"}\n");
    mm_token_cache *second = open_cache(&where, tokenizer);
    assert_true(mm_token_cache_info(second)->was_built);
    assert_string_not_equal(mm_token_cache_path(first), mm_token_cache_path(second));
    mm_token_cache_close(first);
    mm_token_cache_close(second);
    places_drop(&where);
}

static void test_bad_rows_stop_the_build_unless_skipped(void **state)
{
    places where = places_in(*state, "t.jsonl");
    mm_cache_options options = {.path = where.data, .dir = where.cache};
    mm_token_cache *cache;
    mm_err err = {0};
    write_text(where.data, "{\"text\":\"a\"}\n{\"text\":4}\n{\"text\":\"b\"}\n");
    for (int round = 0; round < 2; round++) {
        // The second round finds a cache that was built with skipping: the rows still count.
        assert_int_equal(mm_token_cache_open(&cache, &options, tokenizer, &err), MM_EFORMAT);
        check_message(&err, "t.jsonl: 1 of 3 rows are bad");
        check_message(&err, "line 2");
        assert_null(cache);
        assert_int_equal(count_entries(where.cache), round);
        options.skip_bad_rows = true;
        CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
        assert_int_equal(mm_token_cache_info(cache)->bad_rows, 1);
        assert_int_equal(mm_token_cache_info(cache)->documents, 2);
        assert_int_equal(mm_token_cache_info(cache)->was_built, round == 0);
        mm_token_cache_close(cache);
        options.skip_bad_rows = false;
    }
    places_drop(&where);
}

static void test_unusable_input_leaves_nothing(void **state)
{
    places where = places_in(*state, "p.jsonl");
    mm_cache_options options = {.path = where.data, .dir = where.cache};
    mm_token_cache *cache;
    mm_err err = {0};
    write_synth(where.data, MM_SYNTH_PREFERENCE, 3);
    assert_int_equal(mm_token_cache_open(&cache, &options, tokenizer, &err), MM_EFORMAT);
    check_message(&err, "p.jsonl:1: a preference row");
    check_message(&err, "mmrun dpo");
    assert_int_equal(count_entries(where.cache), 0);
    // The cache folder is a file.
    write_synth(where.data, MM_SYNTH_PRETRAIN, 3);
    options.dir = where.data;
    assert_int_equal(mm_token_cache_open(&cache, &options, tokenizer, &err), MM_EIO);
    check_message(&err, "p.jsonl");
    options.path = "/nonexistent.jsonl";
    assert_int_equal(mm_token_cache_open(&cache, &options, tokenizer, &err), MM_ENOTFOUND);
    places_drop(&where);
}

static void check_default_dir(const places *where, const char *expected)
{
    const mm_cache_options options = {.path = where->data};
    mm_token_cache *cache;
    CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
    const char *path = mm_token_cache_path(cache);
    if (strncmp(path, expected, strlen(expected)) != 0) fail_msg("%s, not in %s", path, expected);
    mm_token_cache_close(cache);
}

static void test_the_folder_comes_from_the_environment(void **state)
{
    places where = places_in(*state, "t.jsonl");
    char *home = path_in(*state, "home");
    char *home_cache = path_in(home, ".cache/mmrun/");
    char *xdg = path_in(*state, "xdg");
    char *xdg_cache = path_in(xdg, "mmrun/");
    char *old_home = mm_strdup(getenv("HOME") ? getenv("HOME") : "/");
    write_text(where.data, "{\"text\":\"a\"}\n");
    setenv("MMRUN_CACHE", where.cache, 1);
    setenv("XDG_CACHE_HOME", xdg, 1);
    setenv("HOME", home, 1);
    check_default_dir(&where, where.cache);
    unsetenv("MMRUN_CACHE");
    check_default_dir(&where, xdg_cache);
    // A folder that cannot be made is passed over.
    setenv("XDG_CACHE_HOME", where.data, 1);
    check_default_dir(&where, home_cache);
    setenv("HOME", old_home, 1);
    unsetenv("XDG_CACHE_HOME");
    mm_free(old_home);
    mm_free(xdg_cache);
    mm_free(xdg);
    mm_free(home_cache);
    mm_free(home);
    places_drop(&where);
}

typedef struct progress_seen {
    uint64_t done;
    int calls;
} progress_seen;

static bool see_progress(void *context, uint64_t done, uint64_t total)
{
    progress_seen *seen = context;
    assert_true(done >= seen->done && done <= total);
    seen->done = done;
    seen->calls++;
    return true;
}

static void test_progress_rises_to_the_end(void **state)
{
    places where = places_in(*state, "t.jsonl");
    progress_seen seen = {0};
    mm_token_cache *cache;
    const mm_cache_options options = {
        .path = where.data, .dir = where.cache, .progress = see_progress, .context = &seen};
    write_synth(where.data, MM_SYNTH_PRETRAIN, 5000);
    CHECK_OK(mm_token_cache_open(&cache, &options, tokenizer, ok_err));
    assert_true(seen.calls >= 3);
    assert_true(seen.done == mm_token_cache_info(cache)->data_bytes);
    mm_token_cache_close(cache);
    places_drop(&where);
}

// Opens in a child; its exit code is 10 when it built, 11 when it found, 1 on failure.
static pid_t open_in_child(const places *where, const int *go)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    char byte;
    // All children start when the last copy of the other end is closed.
    if (go) {
        close(go[1]);
        (void)!read(go[0], &byte, 1);
    }
    const mm_cache_options options = {.path = where->data, .dir = where->cache, .threads = 3};
    mm_token_cache *cache;
    if (mm_token_cache_open(&cache, &options, tokenizer, NULL) != MM_OK) _exit(1);
    _exit(mm_token_cache_info(cache)->was_built ? 10 : 11);
}

static void test_of_several_processes_one_builds(void **state)
{
    enum { CHILDREN = 5 };
    places where = places_in(*state, "t.jsonl");
    write_synth(where.data, MM_SYNTH_PRETRAIN, 1500);
    for (int round = 0; round < 3; round++) {
        int go[2];
        pid_t children[CHILDREN];
        int built = 0;
        int found = 0;
        remove_tree(where.cache);
        assert_int_equal(pipe(go), 0);
        for (int i = 0; i < CHILDREN; i++)
            children[i] = open_in_child(&where, go);
        close(go[0]);
        close(go[1]);
        for (int i = 0; i < CHILDREN; i++) {
            int status;
            assert_int_equal(waitpid(children[i], &status, 0), children[i]);
            assert_true(WIFEXITED(status));
            built += WEXITSTATUS(status) == 10;
            found += WEXITSTATUS(status) == 11;
        }
        assert_int_equal(built, 1);
        assert_int_equal(found, CHILDREN - 1);
        assert_int_equal(count_entries(where.cache), 1); // no lock, no temporary file
    }
    places_drop(&where);
}

static void test_a_killed_build_leaves_no_wrong_cache(void **state)
{
    places where = places_in(*state, "t.jsonl");
    mm_rng rng;
    write_synth(where.data, MM_SYNTH_PRETRAIN, 3000);
    mm_token_cache *cache = open_cache(&where, tokenizer);
    size_t bytes;
    char *sound = read_file(mm_token_cache_path(cache), &bytes);
    mm_token_cache_close(cache);
    mm_rng_init(&rng, (uint64_t)getpid(), MM_RNG_TEST, 0);
    int killed = 0;
    for (int round = 0; round < 20; round++) {
        remove_tree(where.cache);
        const pid_t child = open_in_child(&where, NULL);
        usleep(mm_rng_below(&rng, 200000));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        killed += WIFSIGNALED(status);
        cache = open_cache(&where, tokenizer);
        size_t now_bytes;
        char *now = read_file(mm_token_cache_path(cache), &now_bytes);
        assert_int_equal(now_bytes, bytes);
        assert_memory_equal(now, sound, bytes);
        mm_free(now);
        mm_token_cache_close(cache);
        // Whoever builds takes the leftovers away; who only finds a cache leaves them.
        assert_in_range(count_entries(where.cache), 1, 2);
    }
    if (killed == 0) print_message("no build was slow enough to be killed\n");
    mm_free(sound);
    places_drop(&where);
}

// In a child with a file system of its own; exit code 77 where that is not allowed.
static int fill_disk_in_child(const places *where)
{
    mm_token_cache *cache;
    mm_err err = {0};
    const mm_cache_options options = {.path = where->data, .dir = where->cache, .threads = 2};
    if (mm_dir_make(where->cache, NULL) != MM_OK) return 1;
    if (unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0) return 77;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", where->cache, "tmpfs", 0, "size=256k") != 0) return 77;
    const mm_status status = mm_token_cache_open(&cache, &options, tokenizer, &err);
    if (status != MM_ENOSPC || !strstr(err.message, where->cache)) {
        print_message("%s: %s\n", mm_status_text(status), err.message);
        return 2;
    }
    return count_entries(where->cache) == 0 ? 0 : 3;
}

static void test_a_full_disk_leaves_nothing_behind(void **state)
{
    places where = places_in(*state, "t.jsonl");
    write_synth(where.data, MM_SYNTH_PRETRAIN, 3000);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(fill_disk_in_child(&where));
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    places_drop(&where);
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: a small file system cannot be mounted here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_no_memory_leaves_nothing_behind(void **state)
{
    places where = places_in(*state, "t.jsonl");
    const mm_cache_options options = {.path = where.data, .dir = where.cache};
    write_synth(where.data, MM_SYNTH_SFT, 3);
    uint64_t nth = 0;
    mm_status status;
    do {
        mm_token_cache *cache;
        nth++;
        mm_alloc_fail_at(nth);
        status = mm_token_cache_open(&cache, &options, tokenizer, NULL);
        mm_alloc_fail_at(0);
        if (status == MM_OK) {
            mm_token_cache_close(cache);
        } else {
            assert_int_equal(status, MM_ENOMEM);
            assert_null(cache);
        }
    } while (status != MM_OK && nth < 5000);
    assert_int_equal(status, MM_OK);
    assert_true(nth > 20);
    assert_int_equal(count_entries(where.cache), 1);
    places_drop(&where);
}

static int make_tokenizers(void **state)
{
    tokenizer = small_tokenizer(512);
    bytes_only = small_tokenizer(292);
    return temp_dir_make(state);
}

static int drop_tokenizers(void **state)
{
    mm_tokenizer_free(tokenizer);
    mm_tokenizer_free(bytes_only);
    return temp_dir_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_document_is_bos_text_eos),
        cmocka_unit_test(test_a_conversation_is_what_the_template_renders),
        cmocka_unit_test(test_every_rendering_is_as_encoded_alone),
        cmocka_unit_test(test_pairs_and_other_rows_are_told_apart),
        cmocka_unit_test(test_large_vocabularies_take_four_bytes),
        cmocka_unit_test(test_damage_is_found_and_the_cache_built_anew),
        cmocka_unit_test(test_changed_data_gets_another_cache),
        cmocka_unit_test(test_bad_rows_stop_the_build_unless_skipped),
        cmocka_unit_test(test_unusable_input_leaves_nothing),
        cmocka_unit_test(test_the_folder_comes_from_the_environment),
        cmocka_unit_test(test_progress_rises_to_the_end),
        cmocka_unit_test(test_of_several_processes_one_builds),
        cmocka_unit_test(test_a_killed_build_leaves_no_wrong_cache),
        cmocka_unit_test(test_a_full_disk_leaves_nothing_behind),
        cmocka_unit_test(test_no_memory_leaves_nothing_behind)};
    return cmocka_run_group_tests_name("data/cache", tests, make_tokenizers, drop_tokenizers);
}
