/* safetensors: what is written reads back, and whatever is malformed is a clean error that names
 * what is wrong. */
#include "tests/base/check.h"

#include "core/io/safetensors.h"

#include <math.h>
#include <unistd.h>

typedef struct file_bytes {
    unsigned char data[4096];
    size_t bytes;
} file_bytes;

/* A file of this header and `data_bytes` bytes 0, 1, 2 …; the length field may lie. */
static file_bytes file_of(const char *header, uint64_t header_bytes, size_t data_bytes)
{
    file_bytes file = {0};
    const size_t length = strlen(header);
    assert_true(8 + length + data_bytes <= sizeof file.data);
    memcpy(file.data, &header_bytes, 8);
    memcpy(file.data + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++)
        file.data[8 + length + i] = (unsigned char)i;
    file.bytes = 8 + length + data_bytes;
    return file;
}

/* Without the flush of mm_file_write_atomic, and into a new file because some file systems flush
 * one that is emptied and written anew: there are thousands of cases. */
static void write_bytes(const char *path, const void *data, size_t bytes)
{
    unlink(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Opens a file of exactly these bytes. */
static mm_status open_bytes(const char *dir, const void *data, size_t bytes, mm_safetensors **out,
                            mm_err *err)
{
    char path[512];
    snprintf(path, sizeof path, "%s/case.safetensors", dir);
    write_bytes(path, data, bytes);
    return mm_safetensors_open(out, path, err);
}

typedef struct bad_header {
    const char *header;
    size_t data_bytes;
    const char *message; /* part of the error */
} bad_header;

#define ENTRY(shape, offsets) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const bad_header BAD_HEADERS[] = {
    {"[]", 0, "must begin with '{'"},
    {" {}", 0, "must begin with '{'"},
    {"{", 0, "not valid JSON"},
    {"{}x", 0, "not valid JSON"},
    {"{}", 1, "the tensors end at byte"},
    {"{\"a\":1}", 0, "must have exactly"},
    {"{\"a\":{}}", 0, "must have exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4,
     "must have exactly"},
    {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "must have exactly"},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "unknown dtype \"F31\""},
    {"{\"a\":" ENTRY("4", "[0,4]") "}", 4, "must be an array"},
    {"{\"a\":" ENTRY("[-1]", "[0,4]") "}", 4, "shape[0]"},
    {"{\"a\":" ENTRY("[1.0]", "[0,4]") "}", 4, "shape[0]"},
    {"{\"a\":" ENTRY("[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "9 dimensions"},
    {"{\"a\":" ENTRY("[4294967296,4294967296]", "[0,4]") "}", 4, "overflows"},
    {"{\"a\":" ENTRY("[9223372036854775807,2]", "[0,4]") "}", 4, "overflows"},
    // 2^62 values of 4 bytes are 2^64 bytes, which is 0 without a check.
    {"{\"a\":" ENTRY("[4611686018427387904]", "[0,0]") "}", 0, "overflows"},
    {"{\"a\":" ENTRY("[18446744073709551616]", "[0,4]") "}", 4, "not valid JSON"},
    {"{\"a\":" ENTRY("[2]", "[0,4]") "}", 4, "need 8 bytes, data_offsets hold 4"},
    {"{\"a\":" ENTRY("[1]", "[0]") "}", 4, "two integers"},
    {"{\"a\":" ENTRY("[1]", "[0,4,8]") "}", 4, "two integers"},
    {"{\"a\":" ENTRY("[1]", "[0,\"4\"]") "}", 4, "two integers"},
    {"{\"a\":" ENTRY("[1]", "{}") "}", 4, "two integers"},
    {"{\"a\":" ENTRY("[1]", "[4,0]") "}", 4, "do not lie in"},
    {"{\"a\":" ENTRY("[1]", "[-4,0]") "}", 4, "do not lie in"},
    {"{\"a\":" ENTRY("[1]", "[4,8]") "}", 4, "do not lie in"},
    {"{\"a\":" ENTRY("[1]", "[0,9223372036854775807]") "}", 4, "do not lie in"},
    {"{\"a\":" ENTRY("[1]", "[4,8]") "}", 8, "leaves a hole"},
    {"{\"a\":" ENTRY("[1]", "[0,4]") ",\"b\":" ENTRY("[1]", "[8,12]") "}", 12, "leaves a hole"},
    {"{\"a\":" ENTRY("[2]", "[0,8]") ",\"b\":" ENTRY("[2]", "[4,12]") "}", 12, "overlaps"},
    {"{\"a\":" ENTRY("[1]", "[0,4]") ",\"b\":" ENTRY("[1]", "[0,4]") "}", 4, "overlaps"},
    {"{\"a\":" ENTRY("[1]", "[0,4]") "}", 5, "the tensors end at byte"},
    {"{\"a\":" ENTRY("[1]", "[0,4]") ",\"a\":" ENTRY("[1]", "[4,8]") "}", 8, "not valid JSON"},
    {"{\"a\\u0000b\":" ENTRY("[1]", "[0,4]") "}", 4, "not valid JSON"},
    {"{\"\xff\":" ENTRY("[1]", "[0,4]") "}", 4, "not valid JSON"},
    {"{\"__metadata__\":{}}", 0, "\"format\":\"pt\""},
    {"{\"__metadata__\":{\"format\":\"tf\"}}", 0, "found tf"},
    {"{\"__metadata__\":{\"format\":1}}", 0, "must be text"},
    {"{\"__metadata__\":{\"format\":\"pt\",\"n\":{}}}", 0, "must be text"},
    {"{\"__metadata__\":[]}", 0, "must be an object"},
};

static void test_malformed_headers_are_refused_by_name(void **state)
{
    for (size_t i = 0; i < sizeof BAD_HEADERS / sizeof *BAD_HEADERS; i++) {
        const bad_header *row = &BAD_HEADERS[i];
        const file_bytes file = file_of(row->header, strlen(row->header), row->data_bytes);
        mm_safetensors *found = NULL;
        mm_err err = {0};
        const mm_status status = open_bytes(*state, file.data, file.bytes, &found, &err);
        CHECK_ROW(status == MM_EFORMAT || status == MM_ELIMIT, i);
        CHECK_ROW(!found, i);
        if (!strstr(err.message, row->message))
            fail_msg("row %zu: \"%s\" does not contain \"%s\"", i, err.message, row->message);
        CHECK_ROW(strstr(err.message, "case.safetensors"), i);
    }
}

static void test_lengths_that_lie_are_refused(void **state)
{
    static const uint64_t lengths[] = {0, 3, 1000, 100000001, UINT64_MAX, UINT64_MAX - 7, 1u << 31};
    const char header[] = "{}  ";
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const file_bytes file = file_of(header, lengths[i], 0);
        mm_safetensors *found = NULL;
        mm_err err = {0};
        const mm_status status = open_bytes(*state, file.data, file.bytes, &found, &err);
        CHECK_ROW(status == MM_EFORMAT || status == MM_ELIMIT, i);
        CHECK_ROW(!found && err.message[0], i);
    }
}

static const char GOOD[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" ENTRY("[2,1]", "[4,12]") //
    ",\"a\":" ENTRY("[]", "[0,4]") ",\"none\":" ENTRY("[0,7]", "[4,4]") "} ";

static void test_a_file_cut_anywhere_is_refused(void **state)
{
    const file_bytes file = file_of(GOOD, strlen(GOOD), 12);
    mm_safetensors *found = NULL;
    mm_err err = {0};
    if (open_bytes(*state, file.data, file.bytes, &found, &err) != MM_OK)
        fail_msg("%s", err.message);
    mm_safetensors_close(found);
    for (size_t bytes = 0; bytes < file.bytes; bytes++) {
        err = (mm_err){0};
        CHECK_ROW(open_bytes(*state, file.data, bytes, &found, &err) == MM_EFORMAT, bytes);
        CHECK_ROW(!found && err.message[0], bytes);
    }
}

/* Any byte of the header may be anything: an error or a valid file, never a crash or a tensor
 * outside the file. Reads every byte of what is accepted, for the address sanitizer. */
static void test_flipped_header_bytes_never_escape_the_file(void **state)
{
    static const unsigned char values[] = {0, ' ', '"', '0', '9', '-', '[', ']', '}', 0x7F, 0xFF};
    const size_t header_end = 8 + strlen(GOOD);
    unsigned sum = 0;
    for (size_t at = 0; at < header_end; at++) {
        for (size_t v = 0; v < sizeof values; v++) {
            file_bytes file = file_of(GOOD, strlen(GOOD), 12);
            mm_safetensors *found = NULL;
            mm_err err = {0};
            file.data[at] = values[v];
            if (open_bytes(*state, file.data, file.bytes, &found, &err) != MM_OK) {
                CHECK_ROW(!found && err.message[0], at);
                continue;
            }
            size_t total = 0;
            for (size_t i = 0; i < mm_safetensors_count(found); i++) {
                const mm_safetensor *tensor = mm_safetensors_at(found, i);
                for (size_t k = 0; k < tensor->bytes; k++)
                    sum += ((const unsigned char *)tensor->data)[k];
                total += tensor->bytes;
            }
            CHECK_ROW(total == 12, at);
            mm_safetensors_close(found);
        }
    }
    assert_true(sum > 0);
}

static void test_tensors_are_found_in_order_of_place(void **state)
{
    const file_bytes file = file_of(GOOD, strlen(GOOD), 12);
    mm_safetensors *found = NULL;
    mm_err err = {0};
    if (open_bytes(*state, file.data, file.bytes, &found, &err) != MM_OK)
        fail_msg("%s", err.message);
    assert_int_equal(mm_safetensors_count(found), 3);
    assert_string_equal(mm_safetensors_at(found, 0)->name, "a");
    assert_string_equal(mm_safetensors_at(found, 1)->name, "none");
    assert_string_equal(mm_safetensors_at(found, 2)->name, "b");
    const mm_safetensor *b = mm_safetensors_find(found, "b");
    assert_non_null(b);
    assert_int_equal(b->ndim, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 1);
    assert_int_equal(b->bytes, 8);
    assert_int_equal(((const unsigned char *)b->data)[0], 4);
    assert_int_equal(mm_safetensors_find(found, "a")->ndim, 0);
    assert_null(mm_safetensors_find(found, "c"));
    assert_null(mm_safetensors_find(found, "__metadata__"));
    mm_safetensors_close(found);
}

typedef struct conversion {
    const char *dtype;
    uint32_t bits;
    double value; /* NaN: not a number expected */
} conversion;

static void test_half_and_bfloat_convert_exactly(void **state)
{
    (void)state;
    static const conversion rows[] = {
        {"F16", 0x0000, 0.0},
        {"F16", 0x3C00, 1.0},
        {"F16", 0xC000, -2.0},
        {"F16", 0x0001, 0x1p-24},    // smallest subnormal
        {"F16", 0x83FF, -0x3FFp-24}, // largest subnormal
        {"F16", 0x0400, 0x1p-14},    // smallest normal
        {"F16", 0x7BFF, 65504.0},
        {"F16", 0x3555, 0x1.554p-2},
        {"F16", 0x7C00, (double)INFINITY},
        {"F16", 0xFC00, (double)-INFINITY},
        {"F16", 0x7E00, (double)NAN},
        {"BF16", 0x3F80, 1.0},
        {"BF16", 0xC040, -3.0},
        {"BF16", 0x0001, 0x1p-133}, // subnormal in fp32 too
        {"BF16", 0x7F80, (double)INFINITY},
        {"BF16", 0x7FC0, (double)NAN},
        {"F32", 0x3F800001, 0x1.000002p0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char bytes[8] = {0};
        const size_t size = strcmp(rows[i].dtype, "F32") == 0 ? 4 : 2;
        memcpy(bytes + 1, &rows[i].bits, size); // unaligned on purpose
        const mm_safetensor tensor = {
            .name = "x", .dtype = rows[i].dtype, .data = bytes + 1, .bytes = size};
        float value = 7;
        mm_err err = {0};
        CHECK_ROW(mm_safetensor_to_f32(&tensor, &value, 1, &err) == MM_OK, i);
        if (isnan(rows[i].value))
            CHECK_ROW(isnan(value), i);
        else
            CHECK_ROW(memcmp(&(double){(double)value}, &rows[i].value, sizeof(double)) == 0, i);
    }
    float negative_zero = 1;
    const uint16_t bits = 0x8000;
    const mm_safetensor zero = {.name = "z", .dtype = "F16", .data = &bits, .bytes = 2};
    assert_int_equal(mm_safetensor_to_f32(&zero, &negative_zero, 1, NULL), MM_OK);
    assert_true(signbit(negative_zero));
}

static void test_wrong_count_and_dtype_are_refused(void **state)
{
    (void)state;
    const int64_t data[2] = {1, 2};
    float out[4];
    mm_err err = {0};
    const mm_safetensor integers = {.name = "ids", .dtype = "I64", .data = data, .bytes = 16};
    assert_int_equal(mm_safetensor_to_f32(&integers, out, 2, &err), MM_EFORMAT);
    check_message(&err, "expected dtype F32, F16 or BF16, found I64");
    const mm_safetensor floats = {.name = "w", .dtype = "F32", .data = data, .bytes = 16};
    assert_int_equal(mm_safetensor_to_f32(&floats, out, 3, &err), MM_EFORMAT);
    check_message(&err, "expected 3 elements, found 4");
}

static void test_what_is_written_reads_back(void **state)
{
    static const float floats[6] = {1.5f, -0.0f, 3e-45f, 7, 8, 9};
    static const uint16_t halves[3] = {0x3C00, 0x7C00, 1};
    const mm_safetensor tensors[] = {
        {.name = "z.last", .dtype = "F32", .ndim = 2, .shape = {2, 3}, .data = floats, .bytes = 24},
        {.name = "a \"quoted\" 名",
         .dtype = "F16",
         .ndim = 1,
         .shape = {3},
         .data = halves,
         .bytes = 6},
        {.name = "scalar", .dtype = "F32", .ndim = 0, .data = floats + 3, .bytes = 4},
        {.name = "empty", .dtype = "I64", .ndim = 2, .shape = {0, 5}, .data = floats, .bytes = 0},
    };
    enum { N = sizeof tensors / sizeof *tensors };
    char path[512];
    snprintf(path, sizeof path, "%s/out.safetensors", (const char *)*state);
    mm_err err = {0};
    if (mm_safetensors_write(path, tensors, N, &err) != MM_OK) fail_msg("%s", err.message);
    assert_int_equal(count_entries(*state), 1);
    char *text = NULL;
    size_t bytes = 0;
    assert_int_equal(mm_file_read(path, 1 << 20, &text, &bytes, &err), MM_OK);
    uint64_t header_bytes;
    memcpy(&header_bytes, text, 8);
    assert_int_equal(header_bytes % 8, 0);
    assert_memory_equal(text + 8, "{\"__metadata__\":{\"format\":\"pt\"}", 31);
    mm_free(text);
    mm_safetensors *file = NULL;
    if (mm_safetensors_open(&file, path, &err) != MM_OK) fail_msg("%s", err.message);
    assert_int_equal(mm_safetensors_count(file), N);
    for (int i = 0; i < N; i++) {
        const mm_safetensor *found = mm_safetensors_find(file, tensors[i].name);
        CHECK_ROW(found, i);
        CHECK_ROW(strcmp(found->dtype, tensors[i].dtype) == 0, i);
        CHECK_ROW(found->ndim == tensors[i].ndim && found->bytes == tensors[i].bytes, i);
        CHECK_ROW(memcmp(found->shape, tensors[i].shape, sizeof found->shape) == 0, i);
        CHECK_ROW(memcmp(found->data, tensors[i].data, found->bytes) == 0, i);
    }
    mm_safetensors_close(file);
}

static void test_impossible_tensors_are_not_written(void **state)
{
    static const float data[4] = {0};
    static const mm_safetensor rows[][2] = {
        {{.name = "a", .dtype = "F32", .ndim = 1, .shape = {3}, .data = data, .bytes = 16},
         {.name = "b", .dtype = "F32", .data = data, .bytes = 4}},
        {{.name = "a", .dtype = "X", .ndim = 1, .shape = {4}, .data = data, .bytes = 16},
         {.name = "b", .dtype = "F32", .data = data, .bytes = 4}},
        {{.name = "a", .dtype = "F32", .ndim = 1, .shape = {-1}, .data = data, .bytes = 16},
         {.name = "b", .dtype = "F32", .data = data, .bytes = 4}},
        {{.name = "a", .dtype = "F32", .data = data, .bytes = 4},
         {.name = "a", .dtype = "F32", .data = data, .bytes = 4}},
    };
    char path[512];
    snprintf(path, sizeof path, "%s/out.safetensors", (const char *)*state);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mm_err err = {0};
        CHECK_ROW(mm_safetensors_write(path, rows[i], 2, &err) == MM_EUSAGE, i);
        CHECK_ROW(strstr(err.message, "\"a\""), i);
        CHECK_ROW(count_entries(*state) == 0, i);
    }
}

static void test_running_out_of_memory_is_clean(void **state)
{
    const file_bytes file = file_of(GOOD, strlen(GOOD), 12);
    char path[512];
    snprintf(path, sizeof path, "%s/case.safetensors", (const char *)*state);
    write_bytes(path, file.data, file.bytes);
    for (uint64_t nth = 1;; nth++) {
        mm_safetensors *found = NULL;
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_safetensors_open(&found, path, &err);
        mm_alloc_fail_at(0);
        if (status == MM_OK) {
            mm_safetensors_close(found);
            assert_true(nth > 3);
            break;
        }
        CHECK_ROW(status == MM_ENOMEM && !found, nth);
    }
}

static void test_a_file_that_is_not_there_is_named(void **state)
{
    char path[512];
    mm_safetensors *found = NULL;
    mm_err err = {0};
    snprintf(path, sizeof path, "%s/none.safetensors", (const char *)*state);
    assert_int_equal(mm_safetensors_open(&found, path, &err), MM_ENOTFOUND);
    check_message(&err, "none.safetensors");
    assert_null(found);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_make, temp_dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIR(test_malformed_headers_are_refused_by_name),
        WITH_DIR(test_lengths_that_lie_are_refused),
        WITH_DIR(test_a_file_cut_anywhere_is_refused),
        WITH_DIR(test_flipped_header_bytes_never_escape_the_file),
        WITH_DIR(test_tensors_are_found_in_order_of_place),
        cmocka_unit_test(test_half_and_bfloat_convert_exactly),
        cmocka_unit_test(test_wrong_count_and_dtype_are_refused),
        WITH_DIR(test_what_is_written_reads_back),
        WITH_DIR(test_impossible_tensors_are_not_written),
        WITH_DIR(test_running_out_of_memory_is_clean),
        WITH_DIR(test_a_file_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests_name("io/safetensors", tests, NULL, NULL);
}
