/* The family of a run, as `mmrun show` prints it. */
#ifndef MM_RUNNER_SHOW_FAMILY_H
#define MM_RUNNER_SHOW_FAMILY_H

#include "runner/output.h"
#include "store/family.h"

/* An indented tree: a line per run and, below it, the files that came in there. Nothing for a run
 * that has neither parent, child, nor files. */
void mm_show_family(const mm_context *context, const mm_family *family);
/* The same as a list in the order of the tree (docs/json.md). */
json_t *mm_family_json(const mm_family *family);

#endif
