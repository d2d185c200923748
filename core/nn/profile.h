/* Adds up where the time of an engine goes, by operation. Internal to core/nn.
 *
 * All functions accept NULL, which counts nothing: an engine has a profile only when asked.
 */
#ifndef MM_NN_PROFILE_H
#define MM_NN_PROFILE_H

#include "core/nn/graph.h"

typedef struct mm_profile mm_profile;

/* NULL when there is no memory. Freed by mm_free. */
mm_profile *mm_profile_new(void);
void mm_profile_clear(mm_profile *profile);
void mm_profile_add(mm_profile *profile, const char *name, const char *kind, bool is_backward,
                    int64_t ns, double flops, double bytes);
/* One step of the graph over `batch`. */
void mm_profile_step(mm_profile *profile, const mm_graph *graph, const mm_graph_step *step,
                     const mm_batch *batch, int64_t ns);
int32_t mm_profile_copy(const mm_profile *profile, mm_op_profile *out, int32_t capacity);

#endif
