/* Child processes: this same program with other arguments, started without a shell. */
#ifndef MM_RUNNER_CHILD_H
#define MM_RUNNER_CHILD_H

#include "runner/cli.h"

#include <sys/types.h>

/* Starts `program` with the arguments (NULL-terminated, without argv[0]); standard streams are
 * shared, stdout goes to stderr when `quiet_stdout`, so that the parent's stdout stays its own. */
MM_NODISCARD mm_status mm_child_start(const mm_context *context, const char *const *arguments,
                                      bool quiet_stdout, pid_t *pid, mm_err *err);
/* Waits; a stop signal that reaches this process meanwhile is handed on to the child. *code is the
 * exit code, or 128 + signal. */
MM_NODISCARD mm_status mm_child_wait(pid_t pid, int *code, mm_err *err);

#endif
