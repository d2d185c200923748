/* Tests of core/base/hash.h: SHA-256 vectors of FIPS 180-4, pieces against the whole, files. */
#include "core/base/file.h"
#include "core/base/hash.h"
#include "tests/base/check.h"

static const struct {
    const char *text;
    size_t repeat;
    const char *hex;
} VECTORS[] = {
    {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
};
enum { VECTOR_COUNT = sizeof VECTORS / sizeof VECTORS[0] };

static mm_str message_of(size_t row)
{
    mm_str message = {0};
    for (size_t i = 0; i < VECTORS[row].repeat; i++)
        mm_str_add(&message, VECTORS[row].text);
    assert_int_equal(mm_str_check(&message, NULL), MM_OK);
    return message;
}

static void expect_hex(const uint8_t digest[MM_SHA256_BYTES], size_t row)
{
    char hex[MM_SHA256_HEX_BYTES];
    mm_sha256_hex(digest, hex);
    if (strcmp(hex, VECTORS[row].hex) != 0) fail_msg("vector %zu: %s", row, hex);
}

static void test_vectors(void **state)
{
    (void)state;
    for (size_t row = 0; row < VECTOR_COUNT; row++) {
        mm_str message = message_of(row);
        uint8_t digest[MM_SHA256_BYTES];
        mm_sha256_of(mm_str_text(&message), message.length, digest);
        expect_hex(digest, row);
        mm_str_drop(&message);
    }
}

static void test_pieces_give_the_same_as_the_whole(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 7, 63, 64, 65, 4096};
    for (size_t row = 0; row < VECTOR_COUNT; row++) {
        mm_str message = message_of(row);
        for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
            mm_sha256 hash;
            uint8_t digest[MM_SHA256_BYTES];
            assert_int_equal(mm_sha256_init(&hash, NULL), MM_OK);
            for (size_t at = 0; at < message.length; at += pieces[p]) {
                const size_t rest = message.length - at;
                mm_sha256_update(&hash, message.data + at, rest < pieces[p] ? rest : pieces[p]);
            }
            mm_sha256_final(&hash, digest);
            assert_null(hash.context); // final drops
            expect_hex(digest, row);
        }
        mm_str_drop(&message);
    }
}

static void test_files(void **state)
{
    char *path = NULL;
    assert_int_equal(mm_path_join(&path, *state, "file", NULL), MM_OK);
    for (size_t row = 0; row < VECTOR_COUNT; row++) {
        mm_str message = message_of(row);
        assert_int_equal(mm_file_write_atomic(path, mm_str_text(&message), message.length, NULL),
                         MM_OK);
        uint8_t digest[MM_SHA256_BYTES];
        uint64_t bytes = 99;
        assert_int_equal(mm_sha256_file(path, digest, &bytes, NULL), MM_OK);
        assert_int_equal(bytes, message.length);
        expect_hex(digest, row);
        assert_int_equal(mm_sha256_file(path, digest, NULL, NULL), MM_OK);
        mm_str_drop(&message);
    }
    uint8_t digest[MM_SHA256_BYTES];
    mm_err err = {0};
    mm_alloc_fail_at(1);
    const mm_status status = mm_sha256_file(path, digest, NULL, &err);
    mm_alloc_fail_at(0);
    assert_int_equal(status, MM_ENOMEM);
    check_message(&err, path);
    assert_int_equal(mm_sha256_file(*state, digest, NULL, &err), MM_EUSAGE); // a folder
    check_message(&err, *state);
    assert_int_equal(mm_sha256_file("/no/such/file", digest, NULL, &err), MM_ENOTFOUND);
    check_message(&err, "/no/such/file");
    mm_free(path);
}

static void test_drop_is_idempotent(void **state)
{
    (void)state;
    mm_sha256 hash = {0};
    mm_sha256_drop(&hash);
    assert_int_equal(mm_sha256_init(&hash, NULL), MM_OK);
    mm_sha256_update(&hash, "given up", 8);
    mm_sha256_drop(&hash);
    mm_sha256_drop(&hash);
    mm_sha256_drop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_pieces_give_the_same_as_the_whole),
        cmocka_unit_test_setup_teardown(test_files, temp_dir_make, temp_dir_remove),
        cmocka_unit_test(test_drop_is_idempotent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
