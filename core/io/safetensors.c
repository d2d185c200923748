/* safetensors: 8 bytes of header length (little-endian), a JSON header, raw tensor bytes.
 *
 * Reading trusts nothing: the header is checked completely before a tensor is handed out, so that
 * every mm_safetensor lies inside the map and holds exactly shape × size bytes. The tensors must
 * tile the byte buffer, which rules out overlap, holes and bytes that nobody checks.
 * Source of the rules: the format's README and the reference reader (tensor.rs of safetensors).
 * A file that another process shortens while it is mapped is outside these checks.
 */
#include "core/io/safetensors.h"

#include "core/base/json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor bytes are copied as they are");

enum {
    PREFIX_BYTES = 8,
    HEADER_BYTES_MAX = 100 * 1000 * 1000, // the reference's limit
    NAME_BYTES_MAX = 1024,
    NDIM_MAX = 8,
    ALIGN_BYTES = 8
};
static_assert(NDIM_MAX == sizeof(((mm_safetensor *)0)->shape) / sizeof(int64_t), "shape holds it");

struct mm_safetensors {
    mm_file_map map;
    mm_arena arena; // names
    mm_safetensor *tensors;
    const mm_safetensor **by_name; // sorted, for find
    size_t count;
};

typedef struct dtype_row {
    const char *name;
    size_t bytes;
} dtype_row;

static const dtype_row DTYPES[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
    {"F32", 4},  {"I64", 8}, {"U64", 8}, {"F64", 8},     {"C64", 8},
};

static const dtype_row *dtype_find(const char *name)
{
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
        if (strcmp(DTYPES[i].name, name) == 0) return &DTYPES[i];
    return NULL;
}

/* *bytes = product of the shape × size of an element; false on overflow or a negative extent. */
static bool shape_bytes(const mm_safetensor *tensor, size_t element_bytes, size_t *bytes)
{
    size_t total = element_bytes;
    for (int32_t i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] < 0 || !mm_mul_ok(total, (size_t)tensor->shape[i], &total))
            return false;
    *bytes = total;
    return true;
}

static mm_status read_shape(mm_safetensor *tensor, const json_t *shape, const char *path,
                            mm_err *err)
{
    if (!json_is_array(shape))
        return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%s\": \"shape\" must be an array", path,
                       tensor->name);
    const size_t ndim = json_array_size(shape);
    if (ndim > NDIM_MAX)
        return MM_FAIL(err, MM_ELIMIT, "%s: tensor \"%s\": %zu dimensions, at most %d are read",
                       path, tensor->name, ndim, NDIM_MAX);
    tensor->ndim = (int32_t)ndim;
    for (size_t i = 0; i < ndim; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return MM_FAIL(err, MM_EFORMAT,
                           "%s: tensor \"%s\": shape[%zu] must be an integer of at least 0", path,
                           tensor->name, i);
        tensor->shape[i] = json_integer_value(extent);
    }
    return MM_OK;
}

/* Fills begin and end relative to the byte buffer of `limit` bytes. */
static mm_status read_offsets(const json_t *offsets, const char *name, size_t limit, size_t *begin,
                              size_t *end, const char *path, mm_err *err)
{
    const json_t *first = json_array_get(offsets, 0);
    const json_t *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: tensor \"%s\": \"data_offsets\" must be two integers [begin, end]",
                       path, name);
    const json_int_t from = json_integer_value(first);
    const json_int_t to = json_integer_value(last);
    if (from < 0 || to < from || (uint64_t)to > limit)
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: tensor \"%s\": data_offsets [%lld, %lld] do not lie in the %zu bytes "
                       "of data",
                       path, name, (long long)from, (long long)to, limit);
    *begin = (size_t)from;
    *end = (size_t)to;
    return MM_OK;
}

static mm_status read_entry(mm_safetensors *file, const char *name, const json_t *entry,
                            size_t data_at, const char *path, mm_err *err)
{
    mm_safetensor *tensor = &file->tensors[file->count];
    if (strlen(name) > NAME_BYTES_MAX)
        return MM_FAIL(err, MM_ELIMIT, "%s: a tensor name has %zu bytes, at most %d are read", path,
                       strlen(name), NAME_BYTES_MAX);
    tensor->name = mm_arena_strdup(&file->arena, name);
    if (!tensor->name) return MM_FAIL(err, MM_ENOMEM, "%s: no memory for the header", path);
    const char *dtype_name = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype_name || json_object_size(entry) != 3)
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: tensor \"%s\" must have exactly \"dtype\" (text), \"shape\" and "
                       "\"data_offsets\"",
                       path, name);
    const dtype_row *dtype = dtype_find(dtype_name);
    if (!dtype)
        return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%s\": unknown dtype \"%.32s\"", path, name,
                       dtype_name);
    tensor->dtype = dtype->name;
    MM_TRY(read_shape(tensor, json_object_get(entry, "shape"), path, err));
    size_t begin = 0;
    size_t end = 0;
    MM_TRY(read_offsets(json_object_get(entry, "data_offsets"), name, file->map.bytes - data_at,
                        &begin, &end, path, err));
    if (!shape_bytes(tensor, dtype->bytes, &tensor->bytes))
        return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%s\": its shape overflows 64 bits", path,
                       name);
    if (tensor->bytes != end - begin)
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: tensor \"%s\": shape and dtype %s need %zu bytes, data_offsets hold "
                       "%zu",
                       path, name, dtype->name, tensor->bytes, end - begin);
    tensor->data = file->map.data + data_at + begin;
    file->count++;
    return MM_OK;
}

static mm_status read_metadata(const json_t *metadata, const char *path, mm_err *err)
{
    if (!json_is_object(metadata))
        return MM_FAIL(err, MM_EFORMAT, "%s: \"__metadata__\" must be an object", path);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            return MM_FAIL(err, MM_EFORMAT, "%s: \"__metadata__\": \"%.64s\" must be text", path,
                           key);
    }
    const char *format = json_string_value(json_object_get(metadata, "format"));
    if (!format || strcmp(format, "pt") != 0)
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: \"__metadata__\" must hold \"format\":\"pt\", found %s%.32s", path,
                       format ? "" : "none", format ? format : "");
    return MM_OK;
}

/* By place in the file; empty tensors before the one that starts at the same byte. */
static int compare_place(const void *a, const void *b)
{
    const mm_safetensor *left = a;
    const mm_safetensor *right = b;
    if (left->data != right->data) return (uintptr_t)left->data < (uintptr_t)right->data ? -1 : 1;
    if (left->bytes != right->bytes) return left->bytes < right->bytes ? -1 : 1;
    return strcmp(left->name, right->name);
}

static int compare_name(const void *a, const void *b)
{
    return strcmp((*(const mm_safetensor *const *)a)->name,
                  (*(const mm_safetensor *const *)b)->name);
}

/* The tensors, in order of place, must tile the data exactly. */
static mm_status check_tiling(const mm_safetensors *file, size_t data_at, const char *path,
                              mm_err *err)
{
    const unsigned char *next = file->map.data + data_at;
    for (size_t i = 0; i < file->count; i++) {
        const mm_safetensor *tensor = &file->tensors[i];
        const unsigned char *data = tensor->data;
        if (data != next)
            return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%s\" %s at byte %zu of the data", path,
                           tensor->name,
                           data < next ? "overlaps the one before it" : "leaves a hole before it",
                           (size_t)(data - file->map.data) - data_at);
        next += tensor->bytes;
    }
    const size_t used = (size_t)(next - file->map.data);
    if (used != file->map.bytes)
        return MM_FAIL(err, MM_EFORMAT, "%s: the tensors end at byte %zu, the file has %zu bytes",
                       path, used, file->map.bytes);
    return MM_OK;
}

static mm_status read_header(mm_safetensors *file, const json_t *header, size_t data_at,
                             const char *path, mm_err *err)
{
    if (!json_is_object(header))
        return MM_FAIL(err, MM_EFORMAT, "%s: the header must be a JSON object", path);
    const size_t entries = json_object_size(header);
    file->tensors = mm_calloc(entries + 1, sizeof *file->tensors);
    file->by_name = mm_calloc(entries + 1, sizeof *file->by_name);
    if (!file->tensors || !file->by_name)
        return MM_FAIL(err, MM_ENOMEM, "%s: no memory for %zu header entries", path, entries);
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            MM_TRY(read_metadata(entry, path, err));
        else
            MM_TRY(read_entry(file, name, entry, data_at, path, err));
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_place);
    MM_TRY(check_tiling(file, data_at, path, err));
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_name);
    return MM_OK;
}

/* *data_at receives the first byte of the tensor data. */
static mm_status header_bounds(const mm_file_map *map, size_t *data_at, const char *path,
                               mm_err *err)
{
    if (map->bytes < PREFIX_BYTES)
        return MM_FAIL(err, MM_EFORMAT, "%s: %zu bytes are too few for a safetensors file", path,
                       map->bytes);
    uint64_t header_bytes;
    memcpy(&header_bytes, map->data, sizeof header_bytes);
    if (header_bytes > HEADER_BYTES_MAX)
        return MM_FAIL(err, MM_ELIMIT,
                       "%s: header of %llu bytes, at most %d are read (not a safetensors file?)",
                       path, (unsigned long long)header_bytes, HEADER_BYTES_MAX);
    if (header_bytes > map->bytes - PREFIX_BYTES)
        return MM_FAIL(err, MM_EFORMAT, "%s: header of %llu bytes in a file of %zu (cut short?)",
                       path, (unsigned long long)header_bytes, map->bytes);
    if (header_bytes == 0 || map->data[PREFIX_BYTES] != '{')
        return MM_FAIL(err, MM_EFORMAT, "%s: the header must begin with '{'", path);
    *data_at = PREFIX_BYTES + (size_t)header_bytes;
    return MM_OK;
}

mm_status mm_safetensors_open(mm_safetensors **out, const char *path, mm_err *err)
{
    *out = NULL;
    mm_status status = MM_OK;
    json_t *header = NULL;
    size_t data_at = 0;
    mm_safetensors *file = mm_calloc(1, sizeof *file);
    if (!file) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", path);
    MM_GO(mm_file_map_open(&file->map, path, err));
    MM_GO(header_bounds(&file->map, &data_at, path, err));
    MM_GO(mm_json_parse((const char *)file->map.data + PREFIX_BYTES, data_at - PREFIX_BYTES, path,
                        &header, err));
    MM_GO(read_header(file, header, data_at, path, err));
    *out = file;
    file = NULL;
done:
    if (header) json_decref(header);
    mm_safetensors_close(file);
    return status;
}

void mm_safetensors_close(mm_safetensors *file)
{
    if (!file) return;
    mm_free(file->by_name);
    mm_free(file->tensors);
    mm_arena_drop(&file->arena);
    mm_file_map_drop(&file->map);
    mm_free(file);
}

size_t mm_safetensors_count(const mm_safetensors *file) { return file->count; }

const mm_safetensor *mm_safetensors_at(const mm_safetensors *file, size_t index)
{
    MM_ASSERT(index < file->count);
    return &file->tensors[index];
}

const mm_safetensor *mm_safetensors_find(const mm_safetensors *file, const char *name)
{
    const mm_safetensor wanted = {.name = name};
    const mm_safetensor *key = &wanted;
    const mm_safetensor **found =
        bsearch(&key, file->by_name, file->count, sizeof *file->by_name, compare_name);
    return found ? *found : NULL;
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16; every value is exact in binary32. */
static float float_of_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1Fu;
    const uint32_t mantissa = half & 0x3FFu;
    if (exponent == 0x1F) return float_of_bits(sign | 0x7F800000u | mantissa << 13);
    if (exponent != 0) return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    const float magnitude = (float)mantissa * 0x1p-24f; // subnormal or zero
    return sign ? -magnitude : magnitude;
}

mm_status mm_safetensor_to_f32(const mm_safetensor *tensor, float *out, int64_t count, mm_err *err)
{
    const dtype_row *dtype = dtype_find(tensor->dtype);
    MM_ASSERT(dtype);
    MM_ASSERT(count >= 0);
    if (tensor->bytes / dtype->bytes != (size_t)count)
        return MM_FAIL(err, MM_EFORMAT, "tensor \"%s\": expected %lld elements, found %zu",
                       tensor->name, (long long)count, tensor->bytes / dtype->bytes);
    const unsigned char *bytes = tensor->data;
    if (strcmp(dtype->name, "F32") == 0) {
        if (count > 0) memcpy(out, bytes, tensor->bytes);
        return MM_OK;
    }
    const bool is_half = strcmp(dtype->name, "F16") == 0;
    if (!is_half && strcmp(dtype->name, "BF16") != 0)
        return MM_FAIL(err, MM_EFORMAT, "tensor \"%s\": expected dtype F32, F16 or BF16, found %s",
                       tensor->name, dtype->name);
    for (int64_t i = 0; i < count; i++) {
        uint16_t value; // may be unaligned in the file
        memcpy(&value, bytes + 2 * i, sizeof value);
        out[i] = is_half ? float_of_half(value) : float_of_bits((uint32_t)value << 16);
    }
    return MM_OK;
}

/* Sorted copies find equal names without comparing every pair. */
static mm_status check_names(const char *path, const mm_safetensor *tensors, size_t count,
                             mm_err *err)
{
    const mm_safetensor **sorted = mm_calloc(count + 1, sizeof *sorted);
    if (!sorted) return MM_FAIL(err, MM_ENOMEM, "%s: no memory for %zu names", path, count);
    mm_status status = MM_OK;
    for (size_t i = 0; i < count; i++)
        sorted[i] = &tensors[i];
    qsort(sorted, count, sizeof *sorted, compare_name);
    for (size_t i = 0; i + 1 < count && status == MM_OK; i++)
        if (strcmp(sorted[i]->name, sorted[i + 1]->name) == 0)
            status =
                MM_FAIL(err, MM_EUSAGE, "%s: two tensors are named \"%s\"", path, sorted[i]->name);
    mm_free(sorted);
    return status;
}

/* The header without its length, padded with spaces as the reference does. */
static mm_status build_header(mm_str *header, const char *path, const mm_safetensor *tensors,
                              size_t count, mm_err *err)
{
    mm_str_init(header, HEADER_BYTES_MAX);
    mm_str_add(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const mm_safetensor *tensor = &tensors[i];
        const dtype_row *dtype = dtype_find(tensor->dtype);
        size_t bytes;
        size_t end;
        if (!dtype || tensor->ndim < 0 || tensor->ndim > NDIM_MAX ||
            !shape_bytes(tensor, dtype->bytes, &bytes) || bytes != tensor->bytes ||
            !mm_add_ok(at, bytes, &end))
            return MM_FAIL(err, MM_EUSAGE,
                           "%s: tensor \"%s\": dtype, shape and length do not agree", path,
                           tensor->name);
        mm_str_add_char(header, ',');
        mm_json_add_string(header, tensor->name, strlen(tensor->name));
        mm_str_addf(header, ":{\"dtype\":\"%s\",\"shape\":[", dtype->name);
        for (int32_t k = 0; k < tensor->ndim; k++)
            mm_str_addf(header, k ? ",%lld" : "%lld", (long long)tensor->shape[k]);
        mm_str_addf(header, "],\"data_offsets\":[%zu,%zu]}", at, end);
        at = end;
    }
    mm_str_add_char(header, '}');
    while (header->status == MM_OK && header->length % ALIGN_BYTES != 0)
        mm_str_add_char(header, ' ');
    return mm_str_check(header, err);
}

mm_status mm_safetensors_write(const char *path, const mm_safetensor *tensors, size_t count,
                               mm_err *err)
{
    mm_status status = MM_OK;
    mm_str header = {0};
    mm_file_writer writer = {.fd = -1};
    MM_GO(check_names(path, tensors, count, err));
    MM_GO(build_header(&header, path, tensors, count, err));
    MM_GO(mm_file_writer_open(&writer, path, err));
    const uint64_t header_bytes = header.length;
    MM_GO(mm_file_writer_write(&writer, &header_bytes, sizeof header_bytes, err));
    MM_GO(mm_file_writer_write(&writer, header.data, header.length, err));
    for (size_t i = 0; i < count; i++)
        MM_GO(mm_file_writer_write(&writer, tensors[i].data, tensors[i].bytes, err));
    MM_GO(mm_file_writer_commit(&writer, err));
done:
    mm_file_writer_drop(&writer);
    mm_str_drop(&header);
    return status;
}
