/* Tests of core/base/mem.h: allocation with counting and failure injection, checked sizes, the
 * growable string with its sticky failure, the arena. */
#include "tests/base/check.h"

static int injection_off(void **state)
{
    (void)state;
    mm_alloc_fail_at(0);
    return 0;
}

static void test_allocators_give_usable_memory(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 63, 64, 65, 4096, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t bytes = sizes[i];
        unsigned char *plain = mm_alloc(bytes);
        unsigned char *zeroed = mm_calloc(bytes, 1);
        unsigned char *aligned = mm_alloc_aligned(bytes);
        CHECK_ROW(plain && zeroed && aligned, i);
        CHECK_ROW((uintptr_t)aligned % 64 == 0, i);
        for (size_t k = 0; k < bytes; k++)
            CHECK_ROW(zeroed[k] == 0 && aligned[k] == 0, i);
        memset(plain, 0xAB, bytes);
        memset(zeroed, 0xAB, bytes);
        memset(aligned, 0xAB, bytes);
        plain = mm_realloc(plain, bytes + 100);
        CHECK_ROW(plain, i);
        for (size_t k = 0; k < bytes; k++)
            CHECK_ROW(plain[k] == 0xAB, i);
        mm_free(plain);
        mm_free(zeroed);
        mm_free(aligned);
    }
    mm_free(NULL);
}

static void test_impossible_sizes_give_null(void **state)
{
    (void)state;
    assert_null(mm_calloc(SIZE_MAX / 2, 3)); // the product overflows
    assert_null(mm_alloc_aligned(SIZE_MAX));
    assert_null(mm_alloc_aligned(SIZE_MAX - 10));
    mm_arena arena = {0};
    assert_null(mm_arena_alloc(&arena, SIZE_MAX));
    assert_null(mm_arena_alloc(&arena, SIZE_MAX - 40));
    mm_arena_drop(&arena);
}

static void test_counting(void **state)
{
    (void)state;
    const uint64_t before = mm_alloc_count();
    void *a = mm_alloc(1);
    void *b = mm_calloc(1, 1);
    void *c = mm_alloc_aligned(1);
    a = mm_realloc(a, 2);
    char *d = mm_strdup("d");
    assert_int_equal(mm_alloc_count() - before, 5);
    mm_free(a);
    mm_free(b);
    mm_free(c);
    mm_free(d);
    assert_int_equal(mm_alloc_count() - before, 5);
}

static void test_failure_injection_hits_the_nth_and_stays(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 4; nth++) {
        mm_alloc_fail_at(nth);
        for (uint64_t i = 1; i <= 6; i++) {
            void *pointer = mm_alloc(8);
            CHECK_ROW((pointer != NULL) == (i < nth), nth * 10 + i);
            mm_free(pointer);
        }
        assert_null(mm_calloc(1, 1));
        assert_null(mm_alloc_aligned(1));
        assert_null(mm_strdup("x"));
        mm_alloc_fail_at(0);
        void *pointer = mm_alloc(8);
        assert_non_null(pointer);
        mm_free(pointer);
    }
}

static void test_checked_arithmetic(void **state)
{
    (void)state;
    static const struct {
        size_t a;
        size_t b;
        bool mul_ok;
        bool add_ok;
    } rows[] = {
        {0, SIZE_MAX, true, true},
        {1, SIZE_MAX, true, false},
        {2, SIZE_MAX / 2, true, true},
        {2, SIZE_MAX / 2 + 1, false, true},
        {(size_t)1 << 32, (size_t)1 << 32, false, true},
        {(size_t)1 << 31, (size_t)1 << 32, true, true},
        {SIZE_MAX, SIZE_MAX, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t out = 0;
        CHECK_ROW(mm_mul_ok(rows[i].a, rows[i].b, &out) == rows[i].mul_ok, i);
        if (rows[i].mul_ok) CHECK_ROW(out == rows[i].a * rows[i].b, i);
        CHECK_ROW(mm_add_ok(rows[i].a, rows[i].b, &out) == rows[i].add_ok, i);
        if (rows[i].add_ok) CHECK_ROW(out == rows[i].a + rows[i].b, i);
    }
}

static void test_strdup_copies(void **state)
{
    (void)state;
    char *whole = mm_strdup("grüße");
    char *part = mm_strndup("abcdef", 3);
    char *empty = mm_strndup("abc", 0);
    assert_string_equal(whole, "grüße");
    assert_string_equal(part, "abc");
    assert_string_equal(empty, "");
    mm_free(whole);
    mm_free(part);
    mm_free(empty);
}

static void test_str_builds_text(void **state)
{
    (void)state;
    mm_str str = {0};
    assert_string_equal(mm_str_text(&str), "");
    mm_str_add(&str, "run ");
    mm_str_addf(&str, "%d of %s", 3, "9");
    mm_str_add_char(&str, '!');
    mm_str_add_bytes(&str, "\0x", 2);
    assert_int_equal(str.length, 13);
    assert_memory_equal(str.data, "run 3 of 9!\0x", 14); // with the final NUL
    const char *kept = str.data;
    mm_str_clear(&str);
    assert_int_equal(str.length, 0);
    assert_string_equal(mm_str_text(&str), "");
    mm_str_add(&str, "again");
    assert_ptr_equal(str.data, kept);
    mm_str_drop(&str);
    mm_str_drop(&str);
    mm_str_drop(NULL);
    assert_string_equal(mm_str_text(&str), "");
}

static void test_str_grows_without_losing_a_byte(void **state)
{
    (void)state;
    mm_str str = {0};
    for (int i = 0; i < 100000; i++)
        mm_str_add_char(&str, (char)('a' + i % 26));
    assert_int_equal(mm_str_check(&str, NULL), MM_OK);
    assert_int_equal(str.length, 100000);
    for (int i = 0; i < 100000; i++)
        CHECK_ROW(str.data[i] == (char)('a' + i % 26), i);
    mm_str_drop(&str);
}

static void test_str_limit_sticks(void **state)
{
    (void)state;
    mm_str str;
    mm_str_init(&str, 10);
    mm_str_add(&str, "0123456789"); // exactly the limit
    assert_int_equal(str.status, MM_OK);
    mm_str_add_char(&str, 'x');
    assert_int_equal(str.status, MM_ELIMIT);
    assert_string_equal(mm_str_text(&str), "0123456789");
    mm_str_add(&str, ""); // nothing un-sticks it
    mm_err err = {0};
    assert_int_equal(mm_str_check(&str, &err), MM_ELIMIT);
    check_message(&err, "10 bytes");
    char *out = NULL;
    assert_int_equal(mm_str_take(&str, &out, NULL, &err), MM_ELIMIT);
    assert_null(out);
    mm_str_clear(&str); // a fresh start with the same limit
    mm_str_addf(&str, "%s", "01234567890");
    assert_int_equal(str.status, MM_ELIMIT);
    mm_str_drop(&str);
    assert_int_equal(str.limit, 10);
    assert_int_equal(str.status, MM_OK);
}

static void test_str_out_of_memory_sticks(void **state)
{
    (void)state;
    mm_str str = {0};
    mm_str_add(&str, "kept");
    mm_alloc_fail_at(1);
    for (int i = 0; i < 100; i++)
        mm_str_add(&str, "0123456789");
    mm_alloc_fail_at(0);
    assert_int_equal(str.status, MM_ENOMEM);
    const size_t length = str.length;
    assert_true(length < 64);
    mm_str_add(&str, "later");
    assert_int_equal(str.length, length);
    mm_err err = {0};
    assert_int_equal(mm_str_check(&str, &err), MM_ENOMEM);
    mm_str_drop(&str);
}

static void test_str_take_moves(void **state)
{
    (void)state;
    mm_str str = {0};
    char *out = NULL;
    size_t length = 99;
    assert_int_equal(mm_str_take(&str, &out, &length, NULL), MM_OK);
    assert_string_equal(out, ""); // an empty string is "", not NULL
    assert_int_equal(length, 0);
    mm_free(out);
    mm_str_add(&str, "text");
    assert_int_equal(mm_str_take(&str, &out, &length, NULL), MM_OK);
    assert_string_equal(out, "text");
    assert_int_equal(length, 4);
    assert_null(str.data);
    assert_int_equal(str.length, 0);
    mm_str_add(&str, "next");
    assert_string_equal(out, "text");
    assert_string_equal(mm_str_text(&str), "next");
    mm_free(out);
    mm_str_drop(&str);
}

static void test_arena_gives_zeroed_aligned_separate_memory(void **state)
{
    (void)state;
    mm_arena arena = {0};
    enum { COUNT = 300 };
    unsigned char *parts[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        const size_t bytes = i * 37 % 1000 + (i == 250 ? 200000 : 1); // one beyond a block
        parts[i] = mm_arena_alloc(&arena, bytes);
        CHECK_ROW(parts[i] && (uintptr_t)parts[i] % 16 == 0, i);
        for (size_t k = 0; k < bytes; k++)
            CHECK_ROW(parts[i][k] == 0, i);
        memset(parts[i], (int)(i % 255) + 1, bytes);
    }
    for (size_t i = 0; i < COUNT; i++) {
        const size_t bytes = i * 37 % 1000 + (i == 250 ? 200000 : 1);
        for (size_t k = 0; k < bytes; k++)
            CHECK_ROW(parts[i][k] == i % 255 + 1, i);
    }
    mm_arena_drop(&arena);
    mm_arena_drop(&arena);
    mm_arena_drop(NULL);
}

static void test_arena_strings(void **state)
{
    (void)state;
    mm_arena arena = {0};
    char source[] = "source";
    char *copy = mm_arena_strdup(&arena, source);
    char *part = mm_arena_strndup(&arena, source, 3);
    source[0] = 'x';
    assert_string_equal(copy, "source");
    assert_string_equal(part, "sou");
    assert_null(mm_arena_strdup(&arena, NULL));
    assert_null(mm_arena_strndup(&arena, NULL, 5));
    mm_arena_drop(&arena);
}

static void test_arena_out_of_memory(void **state)
{
    (void)state;
    mm_arena arena = {0};
    assert_non_null(mm_arena_alloc(&arena, 8));
    mm_alloc_fail_at(1);
    assert_non_null(mm_arena_alloc(&arena, 8)); // still fits the first block
    assert_null(mm_arena_alloc(&arena, 1 << 20));
    assert_null(mm_arena_strndup(&arena, "x", 1 << 20));
    mm_alloc_fail_at(0);
    assert_non_null(mm_arena_alloc(&arena, 1 << 20));
    mm_arena_drop(&arena);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, injection_off)
    const struct CMUnitTest tests[] = {
        TEST(test_allocators_give_usable_memory),
        TEST(test_impossible_sizes_give_null),
        TEST(test_counting),
        TEST(test_failure_injection_hits_the_nth_and_stays),
        TEST(test_checked_arithmetic),
        TEST(test_strdup_copies),
        TEST(test_str_builds_text),
        TEST(test_str_grows_without_losing_a_byte),
        TEST(test_str_limit_sticks),
        TEST(test_str_out_of_memory_sticks),
        TEST(test_str_take_moves),
        TEST(test_arena_gives_zeroed_aligned_separate_memory),
        TEST(test_arena_strings),
        TEST(test_arena_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
