/* Errors: one status code, one fixed-size record that carries the message.
 *
 * Three kinds, never mixed: a programmer error trips MM_ASSERT and aborts; an operating error and a
 * user error are a returned mm_status with the detail in an mm_err. Libraries never print and never
 * exit. An mm_err is owned by the caller, needs no clean-up, and may be NULL wherever it is taken.
 *
 * A message names the thing (file, line, option, tensor), what was expected and what was found.
 */
#ifndef MM_BASE_ERR_H
#define MM_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* name, text shown when no better message is known, exit code of the program (contract). */
#define MM_STATUS_LIST(X)                                                                          \
    X(OK, "success", 0)                                                                            \
    X(ENOMEM, "out of memory", 6)                                                                  \
    X(EIO, "input/output error", 1)                                                                \
    X(ENOSPC, "no space left on the disk", 6)                                                      \
    X(EDB, "database error", 1)                                                                    \
    X(EBUSY, "busy: another process holds it", 1)                                                  \
    X(EFORMAT, "malformed input", 2)                                                               \
    X(ECORRUPT, "verification failed: data is damaged", 4)                                         \
    X(EVERSION, "made by a newer version", 2)                                                      \
    X(ECONFIG, "impossible configuration", 2)                                                      \
    X(EUSAGE, "wrong usage", 2)                                                                    \
    X(ENOTFOUND, "not found", 2)                                                                   \
    X(EEXISTS, "exists already", 2)                                                                \
    X(EDEVICE, "device error", 1)                                                                  \
    X(ENAN, "loss or gradient is not finite", 1)                                                   \
    X(ECANCELED, "stopped early", 3)                                                               \
    X(ELIMIT, "a limit was exceeded", 2)

typedef enum mm_status {
#define X(name, text, code) MM_##name,
    MM_STATUS_LIST(X)
#undef X
        MM_STATUS_COUNT
} mm_status;

enum { MM_ERR_MESSAGE_BYTES = 1024 };

typedef struct mm_err {
    mm_status status;
    const char *file; /* static string, source position that raised it */
    int line;
    char message[MM_ERR_MESSAGE_BYTES];
} mm_err;

#define MM_NODISCARD         __attribute__((warn_unused_result))
#define MM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Text and process exit code of a status. Never NULL. */
const char *mm_status_text(mm_status status);
int mm_status_exit_code(mm_status status);

/* Fills `err` (if not NULL) and returns `status`, so that it can stand in a return statement.
 * Use through MM_FAIL. */
mm_status mm_err_set(mm_err *err, mm_status status, const char *file, int line, const char *format,
                     ...) MM_PRINTF(5, 6);

/* The same with ": <strerror(errno)>" appended; ENOSPC, EDQUOT and EFBIG become MM_ENOSPC, ENOMEM
 * MM_ENOMEM, ENOENT MM_ENOTFOUND, EISDIR and ENOTDIR MM_EUSAGE, everything else MM_EIO. Use through
 * MM_FAIL_ERRNO, directly after the failing call. */
mm_status mm_err_set_errno(mm_err *err, const char *file, int line, const char *format, ...)
    MM_PRINTF(4, 5);

/* Puts "<context>: " in front of the message. For use on the way up. */
void mm_err_context(mm_err *err, const char *format, ...) MM_PRINTF(2, 3);

#ifdef __clang_analyzer__
/* The analyser does not look into err.c: it must be told that these never give MM_OK. */
#define MM_FAIL(err, status, ...)                                                                  \
    ((void)mm_err_set((err), (status), __FILE__, __LINE__, __VA_ARGS__), (status))
#define MM_FAIL_ERRNO(err, ...)                                                                    \
    ((void)mm_err_set_errno((err), __FILE__, __LINE__, __VA_ARGS__), MM_EIO)
#else
#define MM_FAIL(err, status, ...) mm_err_set((err), (status), __FILE__, __LINE__, __VA_ARGS__)
#define MM_FAIL_ERRNO(err, ...)   mm_err_set_errno((err), __FILE__, __LINE__, __VA_ARGS__)
#endif

/* The only two macros that hide control flow. MM_TRY returns a failing status when there is nothing
 * to clean up; MM_GO stores it in the local `status` and jumps to the label `done`. */
#define MM_TRY(expr)                                                                               \
    do {                                                                                           \
        mm_status try_status_ = (expr);                                                            \
        if (try_status_ != MM_OK) return try_status_;                                              \
    } while (0)
#define MM_GO(expr)                                                                                \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != MM_OK) goto done;                                                            \
    } while (0)

/* Programmer errors; on in every build. */
#define MM_ASSERT(x) ((x) ? (void)0 : mm_assert_fail(#x, __FILE__, __LINE__))
__attribute__((noreturn)) void mm_assert_fail(const char *expr, const char *file, int line);

#ifdef __cplusplus
}
#endif
#endif
