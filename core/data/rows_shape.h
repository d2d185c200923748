/* From one JSON object to one normalised row: recognising the shape and reading it strictly.
 * Internal to core/data.
 *
 * A builder owns everything a row points to until the next row is built or the builder is dropped.
 */
#ifndef MM_DATA_ROWS_SHAPE_H
#define MM_DATA_ROWS_SHAPE_H

#include "core/data/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_message_list {
    mm_message *data;
    size_t count;
    size_t capacity;
} mm_message_list;

typedef struct mm_row_builder {
    mm_row row;
    json_t *root; /* the row as read */
    json_t *made; /* JSON array of the values put together for this row */
    mm_message_list chosen;
    mm_message_list rejected;
    const json_t *tools;
    mm_bad_reason reason; /* why the last row was bad */
    char detail[MM_BAD_DETAIL_BYTES];
} mm_row_builder;

/* MM_ROWS_AUTO when nothing is recognised. */
mm_row_format mm_shape_of(const json_t *object);
/* Takes the reference to `root`. MM_EFORMAT: a bad row, see reason and detail (err is not set).
 * With `is_strict` a row that looks like another format is bad even where it could be read as this
 * one. */
MM_NODISCARD mm_status mm_shape_build(mm_row_builder *builder, mm_row_format format, json_t *root,
                                      bool is_strict, mm_err *err);
/* Records why a row is bad and returns MM_EFORMAT. */
mm_status mm_shape_bad(mm_row_builder *builder, mm_bad_reason reason, const char *format, ...)
    MM_PRINTF(3, 4);
void mm_row_builder_drop(mm_row_builder *builder);

#ifdef __cplusplus
}
#endif
#endif
