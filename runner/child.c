/* Child processes. A database connection must never cross a fork, so children are spawned, which
 * also gives every arm of a sweep its own memory: one that is killed takes nothing with it. */
#include "runner/child.h"

#include "runner/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 64 };

mm_status mm_child_start(const mm_context *context, const char *const *arguments,
                         mm_child_stdout to, pid_t *pid, mm_err *err)
{
    char *argv[ARGUMENTS_MAX + 2];
    size_t n = 0;
    posix_spawn_file_actions_t actions;
    // posix_spawn takes char *const[] although it changes nothing.
    argv[n++] = (char *)(uintptr_t)context->program;
    for (; arguments[n - 1]; n++) {
        MM_ASSERT(n <= ARGUMENTS_MAX);
        argv[n] = (char *)(uintptr_t)arguments[n - 1];
    }
    argv[n] = NULL;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return MM_FAIL(err, MM_ENOMEM, "no memory for a child process");
    int failed =
        to == MM_CHILD_TO_NOWHERE
            ? posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
            : posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    if (failed == 0) failed = posix_spawn(pid, context->program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    errno = failed;
    return failed == 0 ? MM_OK : MM_FAIL_ERRNO(err, "%s: cannot start", context->program);
}

mm_status mm_child_wait(pid_t pid, int *code, mm_err *err)
{
    enum { POLL_US = 20000 };
    int state = 0;
    int handed_on = 0;
    for (;;) {
        const pid_t got = waitpid(pid, &state, WNOHANG);
        if (got == pid) break;
        if (got < 0 && errno != EINTR)
            return MM_FAIL_ERRNO(err, "cannot wait for process %ld", (long)pid);
        if (mm_signals_stop() != 0 && handed_on == 0) {
            handed_on = mm_signals_stop();
            // From a terminal SIGINT has reached the child already; a second one would end it at
            // once.
            if (handed_on != SIGINT) kill(pid, handed_on);
        }
        usleep(POLL_US);
    }
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return MM_OK;
}
