/* Stop signals: SIGINT and SIGTERM ask a run to end after the current step; a second signal ends at
 * once. */
#ifndef MM_RUNNER_SIGNALS_H
#define MM_RUNNER_SIGNALS_H

#include "core/base/err.h"

void mm_signals_install(void);
/* For a dialogue: SIGINT interrupts what is being done, any number of times; the others as above.
 * Each makes *wake_fd readable. Once per process. */
MM_NODISCARD mm_status mm_signals_install_dialogue(int *wake_fd, mm_err *err);
/* Whether to stop what is being done, for an interrupt or for good. */
bool mm_signals_interrupted(void);
/* Forgets the interrupt and quiets the descriptor; whether there was one. */
bool mm_signals_take_interrupt(void);
/* Number of the signal that asked to stop, 0 when none did. */
int mm_signals_stop(void);

#endif
