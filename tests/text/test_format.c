/* tokenizer.json and tokenizer_config.json: what comes back, what is refused and how, hostile
 * files. */
#include "tests/text/text_fixture.h"

#include "core/base/file.h"
#include "core/base/json.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 330, FLIPS = 3000, TRUNCATION_STEP = 100 };

static char *json;
static size_t json_bytes;

static int take_json(void **state)
{
    (void)state;
    mm_err err;
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    mm_str text;
    mm_str_init(&text, 0);
    assert_ok(mm_tokenizer_json(tokenizer, &text, &err));
    assert_ok(mm_str_take(&text, &json, &json_bytes, &err));
    mm_tokenizer_free(tokenizer);
    return 0;
}

static int drop_json(void **state)
{
    (void)state;
    mm_free(json);
    return 0;
}

/* A copy of the file with the first `from` replaced by `to`; NULL replaces nothing. */
static char *edited(const char *from, const char *to)
{
    mm_err err;
    mm_str text;
    mm_str_init(&text, 0);
    const char *at = strstr(json, from);
    assert_non_null(at);
    mm_str_add_bytes(&text, json, (size_t)(at - json));
    mm_str_add(&text, to);
    mm_str_add(&text, at + strlen(from));
    char *result;
    assert_ok(mm_str_take(&text, &result, NULL, &err));
    return result;
}

/* An edit of the file, and the message that it must lead to; NULL takes any. */
typedef struct edit {
    const char *from;
    const char *to;
    const char *message;
} edit;

static void expect_refused(const edit *edits, size_t n_edits)
{
    for (size_t i = 0; i < n_edits; i++) {
        mm_err err;
        mm_tokenizer *tokenizer = NULL;
        char *text = edited(edits[i].from, edits[i].to);
        const mm_status status =
            mm_tokenizer_parse(&tokenizer, text, strlen(text), NULL, 0, "f.json", &err);
        assert_int_equal(status, MM_EFORMAT);
        assert_null(tokenizer);
        if (edits[i].message && !strstr(err.message, edits[i].message))
            fail_msg("expected: %s\nfound: %s", edits[i].message, err.message);
        mm_free(text);
    }
}

static void every_unsupported_field_is_refused_by_name(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"version\": \"1.0\"", "\"version\": \"2.0\"",
         "f.json: version: expected \"1.0\", found \"2.0\""},
        {"\"truncation\": null", "\"truncation\": {}",
         "f.json: truncation: expected null or nothing, found an object"},
        {"\"padding\": null", "\"padding\": 1",
         "f.json: padding: expected null or nothing, found a number"},
        {"\"padding\": null", "\"paddling\": null",
         "f.json: paddling: this field is not supported"},
        {"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}",
         "f.json: normalizer: expected null or nothing, found an object"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": true",
         "f.json: pre_tokenizer.add_prefix_space: expected false, found true"},
        {"\"use_regex\": true", "\"use_regex\": false",
         "f.json: pre_tokenizer.use_regex: expected true or nothing, found false"},
        {"\"type\": \"ByteLevel\"", "\"type\": \"Split\"",
         "f.json: pre_tokenizer.type: only \"ByteLevel\" is supported, found \"Split\""},
        {"\"post_processor\": null", "\"post_processor\": {\"type\": \"TemplateProcessing\"}",
         "f.json: post_processor.type: only \"ByteLevel\" is supported, found "
         "\"TemplateProcessing\""},
        {"\"decoder\": {\n    \"type\": \"ByteLevel\"",
         "\"decoder\": {\n    \"type\": \"WordPiece\"",
         "f.json: decoder.type: only \"ByteLevel\" is supported, found \"WordPiece\""},
        {"\"type\": \"BPE\"", "\"type\": \"Unigram\"",
         "f.json: model.type: only \"BPE\" is supported, found \"Unigram\""},
        {"\"dropout\": null", "\"dropout\": 0.1",
         "f.json: model.dropout: expected null or nothing, found a number"},
        {"\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"",
         "f.json: model.end_of_word_suffix: expected null \"\" or nothing, found \"</w>\""},
        {"\"byte_fallback\": false", "\"byte_fallback\": true",
         "f.json: model.byte_fallback: expected false or nothing, found true"},
        {"\"ignore_merges\": false", "\"ignore_merges\": true",
         "f.json: model.ignore_merges: expected false or nothing, found true"},
        {"\"lstrip\": false", "\"lstrip\": true",
         "f.json: added_tokens[0].lstrip: expected false, found true"},
        {"\"single_word\": false", "\"single_word\": true",
         "f.json: added_tokens[0].single_word: expected false, found true"},
    };
    expect_refused(edits, sizeof edits / sizeof *edits);
}

static void a_vocabulary_with_holes_or_doubles_is_refused(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"id\": 1,", "\"id\": 2,",
         "f.json: added_tokens[1].id: \"<|im_start|>\" has id 2 here and 1 in model.vocab"},
        {"\"content\": \"<|im_end|>\"", "\"content\": \"<|im_start|>\"",
         "f.json: added_tokens[2].id: \"<|im_start|>\" has id 2 here and 1 in model.vocab"},
        {"\"content\": \"<|im_end|>\"", "\"content\": \"<|im_end\\u0000|>\"", NULL},
        {"\"!\": 36", "\"!\": 37",
         "f.json: model.vocab: tokens \"!\" and \"\"\" have the same id 37"},
        {"\"!\": 36", "\"!\": 36000",
         "f.json: model.vocab: token \"!\" has id 36000, expected 0..329 without holes"},
        {"\"!\": 36", "\"!\": -1",
         "f.json: model.vocab: token \"!\" has id -1, expected 0..329 without holes"},
        {"\"!\": 36", "\"!\": \"36\"",
         "f.json: model.vocab: the id of \"!\" must be an integer, found a string"},
        {"\"!\": 36", "\"!!!\": 36", "f.json: model.vocab: the symbol of byte 0x21 is missing"},
        {"\"!\": 36", "\"\": 36", "f.json: model.vocab: token 36 is empty"},
        {"\"a\",\n        \"a\"", "\"a\",\n        \"zzz\"", "\"zzz\" is not in the vocabulary"},
        {"\"a\",\n        \"a\"", "\"a\", \"a\", \"a\"",
         "expected two tokens, as [\"a\",\"b\"] or \"a b\""},
        {"\"merges\": [", "\"merges\": [[\"a\", \"a\"], ", "\"a\" + \"a\" occurs twice"},
        {"\"merges\": [", "\"merges\": [\"a a a\", ",
         "f.json: model.merges[0]: expected two tokens"},
        {"\"vocab\": {", "\"vocab\": {\"!\": 36, ", "duplicate object key"},
    };
    expect_refused(edits, sizeof edits / sizeof *edits);
}

static void names_of_the_config_must_exist(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        const char *message;
    } cases[] = {
        {"[]", "dir/tokenizer_config.json: expected an object, found an array"},
        {"{\"bos_token\": \"<s>\"}",
         "dir/tokenizer_config.json: bos_token: \"<s>\" is not in the vocabulary"},
        {"{\"eos_token\": 2}",
         "dir/tokenizer_config.json: eos_token: expected a token's text, found a number"},
        {"{\"add_prefix_space\": true}", "add_prefix_space: only false is supported, found true"},
        {"{", "dir/tokenizer_config.json: not valid JSON at line 1"},
    };
    mm_err err;
    mm_tokenizer *tokenizer;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mm_tokenizer_parse(&tokenizer, json, json_bytes, cases[i].config,
                                            strlen(cases[i].config), "dir/tokenizer.json", &err),
                         MM_EFORMAT);
        assert_non_null(strstr(err.message, cases[i].message));
    }
    const char *config = "{\"bos_token\": {\"content\": \"<|im_start|>\"}, \"eos_token\": null,"
                         " \"chat_template\": [{\"name\": \"tool_use\", \"template\": \"a\"},"
                         " {\"name\": \"default\", \"template\": \"b\"}]}";
    assert_ok(mm_tokenizer_parse(&tokenizer, json, json_bytes, config, strlen(config), "f", &err));
    assert_int_equal(mm_tokenizer_bos(tokenizer), 1);
    assert_int_equal(mm_tokenizer_eos(tokenizer), -1);
    assert_int_equal(mm_tokenizer_pad(tokenizer), -1);
    assert_string_equal(mm_tokenizer_chat_template(tokenizer), "b");
    assert_false(mm_chat_template_is_known(mm_tokenizer_chat_template(tokenizer)));
    mm_tokenizer_free(tokenizer);
}

static void both_spellings_of_merges_are_the_same_tokenizer(void **state)
{
    (void)state;
    mm_err err;
    json_t *root;
    assert_ok(mm_json_parse(json, json_bytes, "json", &root, &err));
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i);
        mm_str joined;
        mm_str_init(&joined, 0);
        mm_str_add(&joined, json_string_value(json_array_get(merge, 0)));
        mm_str_add_char(&joined, ' ');
        mm_str_add(&joined, json_string_value(json_array_get(merge, 1)));
        json_array_set_new(merges, i, json_string(joined.data));
        mm_str_drop(&joined);
    }
    mm_str old;
    mm_str_init(&old, 0);
    mm_json_write(root, &old);
    mm_tokenizer *a;
    mm_tokenizer *b;
    assert_ok(mm_tokenizer_parse(&a, json, json_bytes, NULL, 0, "new", &err));
    assert_ok(mm_tokenizer_parse(&b, old.data, old.length, NULL, 0, "old", &err));
    assert_string_equal(mm_tokenizer_hash(a), mm_tokenizer_hash(b));
    assert_int_equal(strlen(mm_tokenizer_hash(a)), 64);
    // One merge less is another tokenizer.
    json_array_remove(merges, json_array_size(merges) - 1);
    mm_str_clear(&old);
    mm_json_write(root, &old);
    mm_tokenizer_free(b);
    assert_ok(mm_tokenizer_parse(&b, old.data, old.length, NULL, 0, "old", &err));
    assert_string_not_equal(mm_tokenizer_hash(a), mm_tokenizer_hash(b));
    mm_tokenizer_free(b);
    mm_tokenizer_free(a);
    mm_str_drop(&old);
    json_decref(root);
}

/* An added token outside model.vocab, one matched in the second pass, and one that would be
 * ambiguous. */
static void added_tokens_may_stand_outside_the_vocabulary(void **state)
{
    (void)state;
    mm_err err;
    mm_tokenizer *tokenizer;
    char *text =
        edited("\"added_tokens\": [",
               "\"added_tokens\": [{\"id\": 331, \"content\": \"the\", \"single_word\": false,"
               " \"lstrip\": false, \"rstrip\": false, \"normalized\": true, \"special\": false},"
               " {\"id\": 330, \"content\": \"<the>é\", \"single_word\": false, \"lstrip\": false,"
               " \"rstrip\": false, \"normalized\": false, \"special\": false},");
    assert_ok(mm_tokenizer_parse(&tokenizer, text, strlen(text), NULL, 0, "f", &err));
    assert_int_equal(mm_tokenizer_vocab(tokenizer), 332);
    const char *sample = "the<the>\xC3\xA9!the";
    const int32_t expected[] = {331, 330, 36, 331};
    mm_ids ids = {0};
    assert_ok(mm_tokenizer_encode(tokenizer, sample, strlen(sample), MM_ADDED_PARSE, &ids, &err));
    assert_int_equal(ids.count, 4);
    assert_memory_equal(ids.data, expected, sizeof expected);
    mm_str out;
    mm_str_init(&out, 0);
    assert_ok(mm_tokenizer_decode(tokenizer, ids.data, ids.count, true, &out, &err));
    assert_string_equal(out.data, sample);
    mm_str_drop(&out);
    mm_ids_drop(&ids);
    mm_tokenizer_free(tokenizer);
    mm_free(text);

    // As an added token it is U+0120, in the vocabulary it spells a space.
    text = edited(
        "\"added_tokens\": [",
        "\"added_tokens\": [{\"id\": 256, \"content\": \"\xC4\xA0\", \"single_word\": false,"
        " \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": false},");
    assert_int_equal(mm_tokenizer_parse(&tokenizer, text, strlen(text), NULL, 0, "f", &err),
                     MM_EFORMAT);
    assert_non_null(strstr(err.message, "is also how the vocabulary spells other text"));
    mm_free(text);
}

/* What the parser accepts must work; everything else must be an error. */
static void assert_error_or_usable(const char *text, size_t length)
{
    mm_err err = {.message = ""};
    mm_tokenizer *tokenizer;
    if (mm_tokenizer_parse(&tokenizer, text, length, NULL, 0, "f", &err) != MM_OK) {
        assert_null(tokenizer);
        assert_true(strlen(err.message) > 0);
        return;
    }
    const char *sample = "The quick <|im_start|>don't 今天\t\xF0\x9F\xA4\x96 <think>";
    mm_ids ids = {0};
    mm_str out;
    mm_str_init(&out, 0);
    assert_ok(mm_tokenizer_encode(tokenizer, sample, strlen(sample), MM_ADDED_PARSE, &ids, &err));
    assert_ok(mm_tokenizer_decode(tokenizer, ids.data, ids.count, false, &out, &err));
    assert_string_equal(out.data, sample);
    mm_str_drop(&out);
    mm_ids_drop(&ids);
    mm_tokenizer_free(tokenizer);
}

static void truncated_files_are_errors(void **state)
{
    (void)state;
    for (size_t length = 0; length < json_bytes; length += TRUNCATION_STEP) {
        mm_err err;
        mm_tokenizer *tokenizer;
        char *copy =
            mm_strndup(json, length); // exact size, so that a sanitizer sees a read beyond it
        assert_int_equal(mm_tokenizer_parse(&tokenizer, copy, length, NULL, 0, "f", &err),
                         MM_EFORMAT);
        mm_free(copy);
    }
}

static void flipped_bytes_are_errors_or_another_working_tokenizer(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 11, MM_RNG_TEST, 0);
    char *copy = mm_strndup(json, json_bytes);
    for (int i = 0; i < FLIPS; i++) {
        const size_t at = mm_rng_below(&rng, (uint32_t)json_bytes);
        // A bit, or a character that means something in JSON.
        if (i % 2 == 0)
            copy[at] = (char)(copy[at] ^ 1 << mm_rng_below(&rng, 8));
        else
            copy[at] = "\"{}[],:0-\\"[mm_rng_below(&rng, 10)];
        assert_error_or_usable(copy, json_bytes);
        copy[at] = json[at];
    }
    mm_free(copy);
}

/* Failing the n-th allocation of our own for all n leaves an error and no leak (the sanitizer
 * watches). */
static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    int n_failed = 0;
    for (uint64_t nth = 1; nth < 2000; nth++) {
        mm_err err;
        mm_tokenizer *tokenizer;
        mm_ids ids = {0};
        mm_str out;
        mm_str_init(&out, 0);
        mm_alloc_fail_at(nth);
        mm_status status = mm_tokenizer_parse(&tokenizer, json, json_bytes, "{}", 2, "f", &err);
        if (status == MM_OK)
            status = mm_tokenizer_encode(tokenizer, "The fox 1", 9, MM_ADDED_PARSE, &ids, &err);
        if (status == MM_OK)
            status = mm_tokenizer_decode(tokenizer, ids.data, ids.count, false, &out, &err);
        mm_alloc_fail_at(0);
        if (status != MM_OK) assert_int_equal(status, MM_ENOMEM);
        n_failed += status != MM_OK;
        mm_str_drop(&out);
        mm_ids_drop(&ids);
        mm_tokenizer_free(tokenizer);
        if (status == MM_OK) break;
    }
    assert_true(n_failed > 5);
}

static void what_was_loaded_comes_back_byte_for_byte(void **state)
{
    (void)state;
    mm_tokenizer *tokenizer = fixture_minimind();
    if (!tokenizer) skip();
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};
    mm_err err;
    char folder[] = "text-format-XXXXXX";
    assert_non_null(mkdtemp(folder));
    assert_ok(mm_tokenizer_save(tokenizer, folder, &err));
    mm_tokenizer *again;
    assert_ok(mm_tokenizer_load(&again, folder, &err));
    assert_string_equal(mm_tokenizer_hash(tokenizer), mm_tokenizer_hash(again));
    mm_tokenizer_free(again);
    for (int i = 0; i < 2; i++) {
        char *paths[2];
        char *data[2];
        size_t bytes[2];
        assert_ok(mm_path_join(&paths[0], MM_SHARED_DATA "/minimind-tokenizer", names[i], &err));
        assert_ok(mm_path_join(&paths[1], folder, names[i], &err));
        for (int k = 0; k < 2; k++)
            assert_ok(mm_file_read(paths[k], 1 << 24, &data[k], &bytes[k], &err));
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(data[0], data[1], bytes[0]);
        assert_int_equal(unlink(paths[1]), 0);
        for (int k = 0; k < 2; k++) {
            mm_free(data[k]);
            mm_free(paths[k]);
        }
    }
    assert_int_equal(rmdir(folder), 0);
    mm_tokenizer_free(tokenizer);
}

static void a_trained_tokenizer_is_written_in_full(void **state)
{
    (void)state;
    mm_err err;
    char folder[] = "text-format-XXXXXX";
    assert_non_null(mkdtemp(folder));
    mm_tokenizer *tokenizer = fixture_tokenizer(VOCAB);
    mm_tokenizer *again;
    assert_ok(mm_tokenizer_save(tokenizer, folder, &err));
    assert_ok(mm_tokenizer_load(&again, folder, &err));
    assert_string_equal(mm_tokenizer_hash(tokenizer), mm_tokenizer_hash(again));
    assert_int_equal(mm_tokenizer_bos(again), 1);
    assert_int_equal(mm_tokenizer_eos(again), 2);
    assert_int_equal(mm_tokenizer_pad(again), 0);
    assert_string_equal(mm_tokenizer_chat_template(again), mm_chat_template_jinja());
    mm_tokenizer_free(again);
    mm_tokenizer_free(tokenizer);

    // The config may be missing, and the template may stand in a file of its own.
    char *path;
    assert_ok(mm_path_join(&path, folder, "tokenizer_config.json", &err));
    assert_int_equal(unlink(path), 0);
    mm_free(path);
    assert_ok(mm_path_join(&path, folder, "chat_template.jinja", &err));
    assert_ok(mm_file_write_atomic(path, "hello", 5, &err));
    assert_ok(mm_tokenizer_load(&again, folder, &err));
    assert_int_equal(mm_tokenizer_bos(again), -1);
    assert_string_equal(mm_tokenizer_chat_template(again), "hello");
    mm_tokenizer_free(again);
    assert_int_equal(unlink(path), 0);
    mm_free(path);
    assert_ok(mm_path_join(&path, folder, "tokenizer.json", &err));
    assert_int_equal(unlink(path), 0);
    assert_int_not_equal(mm_tokenizer_load(&again, folder, &err), MM_OK);
    assert_non_null(strstr(err.message, path));
    mm_free(path);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unsupported_field_is_refused_by_name),
        cmocka_unit_test(a_vocabulary_with_holes_or_doubles_is_refused),
        cmocka_unit_test(names_of_the_config_must_exist),
        cmocka_unit_test(both_spellings_of_merges_are_the_same_tokenizer),
        cmocka_unit_test(added_tokens_may_stand_outside_the_vocabulary),
        cmocka_unit_test(truncated_files_are_errors),
        cmocka_unit_test(flipped_bytes_are_errors_or_another_working_tokenizer),
        cmocka_unit_test(running_out_of_memory_is_an_error),
        cmocka_unit_test(what_was_loaded_comes_back_byte_for_byte),
        cmocka_unit_test(a_trained_tokenizer_is_written_in_full),
    };
    return cmocka_run_group_tests(tests, take_json, drop_json);
}
