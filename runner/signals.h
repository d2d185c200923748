/* Stop signals: SIGINT and SIGTERM ask a run to end after the current step; a second signal ends at
 * once. */
#ifndef MM_RUNNER_SIGNALS_H
#define MM_RUNNER_SIGNALS_H

#include <stdbool.h>

void mm_signals_install(void);
/* Number of the signal that asked to stop, 0 when none did. */
int mm_signals_stop(void);

#endif
