/* Heap memory, checked size arithmetic, and the growable string.
 *
 * The heap is used through these functions only, so that tests can count and fail allocations.
 * Every allocator may return NULL; callers turn that into MM_ENOMEM (MM_NEW does it).
 * Not tied to a thread; an mm_str belongs to one thread at a time.
 */
#ifndef MM_BASE_MEM_H
#define MM_BASE_MEM_H

#include "core/base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* malloc/calloc/realloc/free with counting. mm_free accepts NULL. mm_realloc with 0 bytes is not
 * allowed. */
void *mm_alloc(size_t bytes);
void *mm_calloc(size_t count, size_t bytes);
void *mm_realloc(void *pointer, size_t bytes);
void mm_free(void *pointer);

/* 64-byte aligned and zeroed, for tensors; freed with mm_free. */
void *mm_alloc_aligned(size_t bytes);

/* Copies; NULL when out of memory. mm_strndup ends the copy with a NUL. */
char *mm_strdup(const char *text);
char *mm_strndup(const char *text, size_t length);

/* Allocations asked for since the start of the process: a test reads it around a step. */
uint64_t mm_alloc_count(void);
/* Makes the n-th allocation from now (1 = next) and all later ones fail; 0 switches it off. */
void mm_alloc_fail_at(uint64_t nth);

/* *out = a*b or a+b; false on overflow. */
static inline bool mm_mul_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool mm_add_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* Growable byte string, always NUL-terminated when data is not NULL. `limit` is the largest length
 * it may reach (0 = 1 GiB); going over it gives MM_ELIMIT. Zero-initialise to get an empty string.
 */
typedef struct mm_str {
    char *data;
    size_t length;
    size_t capacity;
    size_t limit;
    mm_status status; /* first failure; later appends do nothing. Check once at the end. */
} mm_str;

void mm_str_init(mm_str *str, size_t limit);
void mm_str_drop(mm_str *str);
void mm_str_clear(mm_str *str); /* keeps the memory */
/* Appending never needs a check of its own: the first failure sticks in str->status. */
void mm_str_add(mm_str *str, const char *text);
void mm_str_add_bytes(mm_str *str, const void *bytes, size_t length);
void mm_str_add_char(mm_str *str, char c);
void mm_str_addf(mm_str *str, const char *format, ...) MM_PRINTF(2, 3);
/* Moves the bytes out (never NULL on success: an empty string is ""); str is empty afterwards.
 * Fails with the sticky status. Caller frees with mm_free. */
MM_NODISCARD mm_status mm_str_take(mm_str *str, char **out, size_t *length, mm_err *err);
/* Turns the sticky status into an error. */
MM_NODISCARD mm_status mm_str_check(const mm_str *str, mm_err *err);
/* The text, "" when empty. Borrowed until the next change. */
const char *mm_str_text(const mm_str *str);

/* Arena: many small allocations that live and die together, such as the answer of one query or one
 * page. Zero-initialise; drop frees everything. Sizes have no individual free. */
typedef struct mm_arena {
    struct mm_arena_block *first;
} mm_arena;

/* Zeroed, 16-byte aligned; NULL when out of memory. */
void *mm_arena_alloc(mm_arena *arena, size_t bytes);
/* Copies into the arena; a NULL text gives NULL. */
char *mm_arena_strdup(mm_arena *arena, const char *text);
char *mm_arena_strndup(mm_arena *arena, const char *text, size_t length);
void mm_arena_drop(mm_arena *arena);

#ifdef __cplusplus
}
#endif
#endif
