/* Private to store: what may be the name of a run or a sweep, and references to them. */
#ifndef MM_STORE_NAMES_H
#define MM_STORE_NAMES_H

#include "store/store.h"

/* Digits only. */
bool mm_text_is_id(const char *text);
/* MM_EUSAGE for a name that could be taken for a reference of another kind. `what` is "run" or
 * "sweep". */
MM_NODISCARD mm_status mm_name_check(const char *what, const char *name, mm_err *err);

#endif
