/* Heap memory, checked size arithmetic, and the growable string: the one file that calls malloc. */
#include "core/base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };
static const size_t STR_DEFAULT_LIMIT = (size_t)1 << 30;

static atomic_uint_fast64_t allocations;
static atomic_uint_fast64_t
    fail_at; // 0: never; otherwise the value of `allocations` from which on all fail

static bool may_allocate(void)
{
    const uint64_t limit = atomic_load_explicit(&fail_at, memory_order_relaxed);
    const uint64_t number = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    return limit == 0 || number < limit;
}

uint64_t mm_alloc_count(void) { return atomic_load_explicit(&allocations, memory_order_relaxed); }

void mm_alloc_fail_at(uint64_t nth)
{
    const uint64_t now = atomic_load_explicit(&allocations, memory_order_relaxed);
    atomic_store_explicit(&fail_at, nth == 0 ? 0 : now + nth, memory_order_relaxed);
}

void *mm_alloc(size_t bytes) { return may_allocate() ? malloc(bytes == 0 ? 1 : bytes) : NULL; }

void *mm_calloc(size_t count, size_t bytes)
{
    if (count == 0 || bytes == 0) count = bytes = 1;
    size_t total;
    if (!mm_mul_ok(count, bytes, &total)) return NULL;
    return may_allocate() ? calloc(count, bytes) : NULL;
}

void *mm_realloc(void *pointer, size_t bytes)
{
    MM_ASSERT(bytes > 0);
    return may_allocate() ? realloc(pointer, bytes) : NULL;
}

void mm_free(void *pointer) { free(pointer); }

void *mm_alloc_aligned(size_t bytes)
{
    size_t rounded;
    if (!mm_add_ok(bytes, ALIGNMENT, &rounded)) return NULL;
    rounded -= rounded % ALIGNMENT;
    if (!may_allocate()) return NULL;
    void *pointer = aligned_alloc(ALIGNMENT, rounded);
    if (pointer) memset(pointer, 0, rounded);
    return pointer;
}

char *mm_strdup(const char *text) { return mm_strndup(text, strlen(text)); }

char *mm_strndup(const char *text, size_t length)
{
    char *copy = mm_alloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

void mm_str_init(mm_str *str, size_t limit) { *str = (mm_str){.limit = limit}; }

void mm_str_drop(mm_str *str)
{
    if (!str) return;
    mm_free(str->data);
    *str = (mm_str){.limit = str->limit};
}

void mm_str_clear(mm_str *str)
{
    str->length = 0;
    str->status = MM_OK;
    if (str->data) str->data[0] = '\0';
}

// Makes room for `extra` bytes and the final NUL; records the failure otherwise.
static bool reserve(mm_str *str, size_t extra)
{
    if (str->status != MM_OK) return false;
    const size_t limit = str->limit ? str->limit : STR_DEFAULT_LIMIT;
    if (extra > limit || str->length > limit - extra) {
        str->status = MM_ELIMIT;
        return false;
    }
    const size_t need = str->length + extra + 1;
    if (need <= str->capacity) return true;
    size_t capacity = str->capacity ? str->capacity : 64;
    while (capacity < need)
        capacity *= 2;
    char *data = str->data ? mm_realloc(str->data, capacity) : mm_alloc(capacity);
    if (!data) {
        str->status = MM_ENOMEM;
        return false;
    }
    str->data = data;
    str->capacity = capacity;
    return true;
}

void mm_str_add_bytes(mm_str *str, const void *bytes, size_t length)
{
    if (!reserve(str, length)) return;
    if (length) memcpy(str->data + str->length, bytes, length);
    str->length += length;
    str->data[str->length] = '\0';
}

void mm_str_add(mm_str *str, const char *text) { mm_str_add_bytes(str, text, strlen(text)); }

void mm_str_add_char(mm_str *str, char c) { mm_str_add_bytes(str, &c, 1); }

void mm_str_addf(mm_str *str, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0 && str->status == MM_OK) str->status = MM_ELIMIT; // more than INT_MAX bytes
    if (length < 0 || !reserve(str, (size_t)length)) return;
    va_start(args, format);
    vsnprintf(str->data + str->length, (size_t)length + 1, format, args);
    va_end(args);
    str->length += (size_t)length;
}

mm_status mm_str_check(const mm_str *str, mm_err *err)
{
    if (str->status == MM_OK) return MM_OK;
    return MM_FAIL(err, str->status, "text of %zu bytes: %s", str->length,
                   mm_status_text(str->status));
}

mm_status mm_str_take(mm_str *str, char **out, size_t *length, mm_err *err)
{
    *out = NULL;
    mm_str_add_bytes(str, "", 0); // an empty string gets its NUL here
    MM_TRY(mm_str_check(str, err));
    *out = str->data;
    if (length) *length = str->length;
    str->data = NULL;
    str->length = str->capacity = 0;
    return MM_OK;
}

const char *mm_str_text(const mm_str *str) { return str->data ? str->data : ""; }

enum { ARENA_BLOCK_BYTES = 1 << 16, ARENA_ALIGNMENT = 16 };

typedef struct mm_arena_block {
    struct mm_arena_block *next;
    size_t used;
    size_t capacity;
    size_t padding; // keeps the bytes behind the header aligned
} mm_arena_block;

_Static_assert(sizeof(mm_arena_block) % ARENA_ALIGNMENT == 0, "arena blocks start aligned");

void *mm_arena_alloc(mm_arena *arena, size_t bytes)
{
    size_t rounded;
    if (!mm_add_ok(bytes, ARENA_ALIGNMENT - 1, &rounded)) return NULL;
    rounded -= rounded % ARENA_ALIGNMENT;
    mm_arena_block *block = arena->first;
    if (!block || block->capacity - block->used < rounded) {
        const size_t capacity = rounded > ARENA_BLOCK_BYTES ? rounded : ARENA_BLOCK_BYTES;
        size_t total;
        if (!mm_add_ok(capacity, sizeof *block, &total)) return NULL;
        block = mm_calloc(1, total);
        if (!block) return NULL;
        block->capacity = capacity;
        block->next = arena->first;
        arena->first = block;
    }
    char *at = (char *)(block + 1) + block->used;
    block->used += rounded;
    return at;
}

char *mm_arena_strndup(mm_arena *arena, const char *text, size_t length)
{
    if (!text) return NULL;
    char *copy = mm_arena_alloc(arena, length + 1);
    if (copy) memcpy(copy, text, length);
    return copy;
}

char *mm_arena_strdup(mm_arena *arena, const char *text)
{
    return text ? mm_arena_strndup(arena, text, strlen(text)) : NULL;
}

void mm_arena_drop(mm_arena *arena)
{
    if (!arena) return;
    while (arena->first) {
        mm_arena_block *next = arena->first->next;
        mm_free(arena->first);
        arena->first = next;
    }
}
