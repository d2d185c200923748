/* "Did you mean": how far names are apart, and the one that is nearest to what was typed. */
#ifndef MM_BASE_NEAREST_H
#define MM_BASE_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Edit distance with swaps of neighbours (optimal string alignment), dashes equal to underscores.
 */
int mm_edit_distance(const char *a, size_t a_length, const char *b, size_t b_length);

/* Collects candidates for "did you mean": offer any number of names, then ask for the one nearest.
 * NULL when none is near or two are equally near. Zero-initialise but for `wanted`. */
typedef struct mm_nearest {
    const char *wanted;
    const char *best; /* borrowed from the offers */
    size_t best_length;
    int distance;
    bool is_tied;
} mm_nearest;
void mm_nearest_offer(mm_nearest *nearest, const char *name, size_t length);
bool mm_nearest_found(const mm_nearest *nearest);

#ifdef __cplusplus
}
#endif
#endif
