/* One micro-batch: packed documents without padding, as flat token arrays with segment bounds.
 *
 * A segment is one document (or one padded row): attention never crosses a bound and positions
 * restart at 0 in each. Labels are already shifted: labels[t] is the token to predict at position
 * t.
 */
#ifndef MM_NN_BATCH_H
#define MM_NN_BATCH_H

#include <stdbool.h>
#include <stdint.h>

enum { MM_LABEL_IGNORE = -100 };

typedef struct mm_batch {
    int32_t n_tokens;
    int32_t n_segments;
    const int32_t *tokens; /* (T) */
    const int32_t *labels; /* (T), MM_LABEL_IGNORE where nothing is learned */
    const int32_t
        *segments;    /* (n_segments + 1), segments[0] = 0, last = n_tokens, strictly rising */
    int64_t n_labels; /* labels that are not MM_LABEL_IGNORE */
    /* (n_segments) number of the row each segment comes from, counted over all data; NULL: not
     * told. The sides of a pair are neighbours with the same number, chosen first. */
    const int64_t *rows;
    bool ends_step; /* the optimizer step ends behind this micro-batch */
} mm_batch;

#endif
