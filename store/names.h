/* Private to store: what tells an id from the name of a run or a sweep. */
#ifndef MM_STORE_NAMES_H
#define MM_STORE_NAMES_H

#include "store/store.h"

/* Digits only. */
bool mm_text_is_id(const char *text);

#endif
