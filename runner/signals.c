/* Stop signals. The handler only sets a flag; SA_RESETHAND lets a second SIGINT end the process at
 * once, which is safe: the run is then found as killed and resumed from its last checkpoint. */
#include "runner/signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) { stop_signal = number; }

void mm_signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

int mm_signals_stop(void) { return stop_signal; }
