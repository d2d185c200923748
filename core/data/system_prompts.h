/* The system prompts that are put before conversations which have none, so that a model learns to
 * live with one and without. */
#ifndef MM_DATA_SYSTEM_PROMPTS_H
#define MM_DATA_SYSTEM_PROMPTS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_SYSTEM_PROMPTS = 10 };

/* One sentence; five are Chinese, five English. The order decides every run: append only. */
const char *mm_system_prompt(int32_t index);

#ifdef __cplusplus
}
#endif
#endif
