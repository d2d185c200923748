/* Stop signals. The handler sets a flag and takes itself away, so that a second signal ends the
 * process at once, which is safe: the run is then found as killed and resumed from its last
 * checkpoint. In a dialogue SIGINT only interrupts. Whoever waits for input there also waits for
 * the pipe that the handlers write to, so that no signal comes in between unseen. */
#include "runner/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t is_interrupted;
static int wake_pipe[2] = {-1, -1};

static const int STOP_SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_STOP_SIGNALS = sizeof STOP_SIGNALS / sizeof STOP_SIGNALS[0] };

static void wake(void)
{
    const int saved = errno;
    const ssize_t written = wake_pipe[1] >= 0 ? write(wake_pipe[1], "", 1) : 0;
    (void)written; // a full pipe has woken its reader already
    errno = saved;
}

static void on_signal(int number)
{
    stop_signal = number;
    for (int i = 0; i < N_STOP_SIGNALS; i++)
        signal(STOP_SIGNALS[i], SIG_DFL);
    wake();
}

static void on_interrupt(int number)
{
    (void)number;
    is_interrupted = 1;
    wake();
}

void mm_signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < N_STOP_SIGNALS; i++)
        sigaction(STOP_SIGNALS[i], &action, NULL);
}

mm_status mm_signals_install_dialogue(int *wake_fd, mm_err *err)
{
    if (pipe2(wake_pipe, O_NONBLOCK | O_CLOEXEC) != 0) return MM_FAIL_ERRNO(err, "no pipe");
    mm_signals_install();
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    *wake_fd = wake_pipe[0];
    return MM_OK;
}

bool mm_signals_interrupted(void) { return is_interrupted || stop_signal; }

bool mm_signals_take_interrupt(void)
{
    char bytes[64];
    while (read(wake_pipe[0], bytes, sizeof bytes) > 0) {
    }
    const bool was = is_interrupted;
    is_interrupted = 0;
    return was;
}

int mm_signals_stop(void) { return stop_signal; }
