/* Columns a text takes on a terminal: CJK and emoji two, combining marks none, the rest one.
 *
 * The table is ours, so that alignment does not depend on the locale of the process.
 */
#ifndef MM_BASE_WIDTH_H
#define MM_BASE_WIDTH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_code_range {
    uint32_t first;
    uint32_t last;
} mm_code_range;

/* Sorted, not overlapping; in width_table.c, written by scripts/make_width.py. */
extern const mm_code_range mm_width_wide[];
extern const size_t mm_width_wide_count;
extern const mm_code_range mm_width_none[];
extern const size_t mm_width_none_count;

/* Of a text; control characters count none, an ill-formed byte counts one (it is shown as U+FFFD).
 */
int mm_text_width(const char *text, size_t length);
/* Bytes of the longest beginning that fits into `columns`; combining marks stay with their letter.
 */
size_t mm_text_fit(const char *text, size_t length, int columns);

#ifdef __cplusplus
}
#endif
#endif
