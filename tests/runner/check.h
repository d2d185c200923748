/* What the tests of runner share: cmocka's headers in the order it wants them, and a stand-in for a
 * terminal. */
#ifndef MM_TESTS_RUNNER_CHECK_H
#define MM_TESTS_RUNNER_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/mem.h"

#include <string.h>

/* cmocka reports a source line; in a loop over a table that is not enough. */
#define CHECK_ROW(condition, row)                                                                  \
    do {                                                                                           \
        if (!(condition)) fail_msg("row %d: %s", (int)(row), #condition);                          \
    } while (0)

/* `part` stands somewhere in the message. */
static inline void check_message(const mm_err *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("message \"%s\" does not contain \"%s\"", err->message, part);
}

#endif
