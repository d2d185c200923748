/* Records of a data file: lines, or the elements of one JSON array, one at a time. Internal to
 * core/data.
 *
 * A record of more than MM_RECORD_BYTES_MAX is stepped over and reported without its bytes, so
 * memory is bounded. A byte order mark at the start is dropped, carriage returns before a newline
 * too. What is no text at all (NUL bytes, UTF-16) is refused. Belongs to one thread.
 */
#ifndef MM_DATA_RECORDS_H
#define MM_DATA_RECORDS_H

#include "core/data/source.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_RECORD_BYTES_MAX = 16 << 20 };

typedef enum mm_record_kind {
    MM_RECORDS_LINES = 0, /* every line, empty ones too */
    MM_RECORDS_JSON       /* elements if the file starts with '[', else lines that are not blank */
} mm_record_kind;

typedef struct mm_record {
    const char *data; /* borrowed until the next call; not NUL-terminated */
    size_t bytes;
    int64_t number; /* 1-based line, or element of the array */
    bool is_too_long;
} mm_record;

typedef struct mm_records mm_records;

MM_NODISCARD mm_status mm_records_open(mm_records **out, const char *path, mm_record_kind kind,
                                       mm_err *err);
/* *more is false at the end. A file that is damaged as a whole (compressed data cut short, array
 * not closed) is an error naming the file and line. */
MM_NODISCARD mm_status mm_records_next(mm_records *records, mm_record *record, bool *more,
                                       mm_err *err);
/* Known after the first call of next. */
bool mm_records_is_array(const mm_records *records);
mm_source *mm_records_source(mm_records *records);
void mm_records_close(mm_records *records);

#ifdef __cplusplus
}
#endif
#endif
