/* Where a run happens: machine, kernel, libraries, source revision. Facts for the record, never
 * decisions. */
#ifndef MM_RUNNER_ENVIRONMENT_H
#define MM_RUNNER_ENVIRONMENT_H

#include <stdbool.h>
#include <stdint.h>

/* Calls `each` for every fact: "cpu", "cpu_features", "cores", "memory_bytes", "os",
 * "kernel", "hostname", "cwd", "compiler", "sqlite", "zstd" … */
void mm_environment(void (*each)(void *context, const char *key, const char *value), void *context);
/* Processors of the affinity mask; mm_cpu_count() also counts a quota of the control group. */
int32_t mm_cpu_allowed(void);
/* Whether the operating system lets this process use the processor's matrix tiles; asked after the
 * kernels were chosen, which is when permission is requested. */
bool mm_amx_permitted(void);
/* Commit of the git work tree the process stands in, 40 hexadecimal digits, or "" (read from .git,
 * nothing is run). */
void mm_git_commit(char out[41]);
/* Resident set of this process in bytes; 0 when unknown. */
int64_t mm_memory_used(void);
/* The most it ever was. */
int64_t mm_memory_peak(void);
/* Memory the system can still give, in bytes (also within a cgroup limit); 0 when unknown. */
int64_t mm_memory_available(void);

#endif
