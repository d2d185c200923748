/* Child processes: this same program with other arguments, started without a shell. */
#ifndef MM_RUNNER_CHILD_H
#define MM_RUNNER_CHILD_H

#include "runner/cli.h"

#include <sys/types.h>

/* Where a child's stdout goes. Its stderr is always the parent's. */
typedef enum mm_child_stdout {
    MM_CHILD_TO_STDERR = 0, /* so that the parent's stdout stays its own */
    MM_CHILD_TO_NOWHERE
} mm_child_stdout;

/* Starts `program` with the arguments (NULL-terminated, without argv[0]). */
MM_NODISCARD mm_status mm_child_start(const mm_context *context, const char *const *arguments,
                                      mm_child_stdout to, pid_t *pid, mm_err *err);
/* Waits; a stop signal that reaches this process meanwhile is handed on to the child. *code is the
 * exit code, or 128 + signal. */
MM_NODISCARD mm_status mm_child_wait(pid_t pid, int *code, mm_err *err);

#endif
