/* Stop signals. The handler sets a flag and takes itself away, so that a second signal ends the
 * process at once, which is safe: the run is then found as killed and resumed from its last
 * checkpoint. */
#include "runner/signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t stop_signal;

static const int STOP_SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_STOP_SIGNALS = sizeof STOP_SIGNALS / sizeof STOP_SIGNALS[0] };

static void on_signal(int number)
{
    stop_signal = number;
    for (int i = 0; i < N_STOP_SIGNALS; i++)
        signal(STOP_SIGNALS[i], SIG_DFL);
}

void mm_signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < N_STOP_SIGNALS; i++)
        sigaction(STOP_SIGNALS[i], &action, NULL);
}

int mm_signals_stop(void) { return stop_signal; }
