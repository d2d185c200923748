/* Records of a data file: cutting a byte stream into lines or array elements in bounded memory.
 *
 * The window data[start .. end) holds the unread bytes. It grows to one record and one chunk at
 * most; a record that is longer is dropped as it passes by. An array is cut by counting brackets
 * outside of strings; whether an element is valid JSON is for the reader of the row to say.
 */
#include "core/data/records.h"

#include "core/base/mem.h"

#include <string.h>

enum { CHUNK_BYTES = 1 << 16, BINARY_PROBE_BYTES = 4096 };

struct mm_records {
    mm_source *source;
    mm_record_kind kind;
    bool has_begun;
    bool is_array;
    bool is_array_closed;
    bool is_source_ended;
    int64_t line;     // lines that ended so far
    int64_t elements; // elements that were given out
    char *data;
    size_t capacity;
    size_t start;
    size_t end;
};

mm_status mm_records_open(mm_records **out, const char *path, mm_record_kind kind, mm_err *err)
{
    *out = NULL;
    mm_records *records = mm_calloc(1, sizeof *records);
    if (!records) return MM_FAIL(err, MM_ENOMEM, "%s: no memory to read it", path);
    records->kind = kind;
    const mm_status status = mm_source_open(&records->source, path, err);
    if (status != MM_OK) {
        mm_records_close(records);
        return status;
    }
    *out = records;
    return MM_OK;
}

// Reads one more chunk behind the window; sets is_source_ended when there was none.
static mm_status fill(mm_records *records, mm_err *err)
{
    if (records->start > 0) {
        memmove(records->data, records->data + records->start, records->end - records->start);
        records->end -= records->start;
        records->start = 0;
    }
    if (records->capacity - records->end < CHUNK_BYTES) {
        const size_t capacity = records->capacity == 0 ? 4 * CHUNK_BYTES : 2 * records->capacity;
        char *data = records->data ? mm_realloc(records->data, capacity) : mm_alloc(capacity);
        if (!data)
            return MM_FAIL(err, MM_ENOMEM, "%s: no memory for a row of %zu bytes",
                           mm_source_path(records->source), records->end);
        records->data = data;
        records->capacity = capacity;
    }
    size_t got;
    MM_TRY(mm_source_read(records->source, records->data + records->end,
                          records->capacity - records->end, &got, err));
    records->end += got;
    if (got == 0) records->is_source_ended = true;
    return MM_OK;
}

static mm_status refuse_binary(const mm_records *records, mm_err *err)
{
    const char *path = mm_source_path(records->source);
    const char *data = records->data;
    const size_t bytes = records->end < BINARY_PROBE_BYTES ? records->end : BINARY_PROBE_BYTES;
    if (bytes >= 4 && memcmp(data, "PAR1", 4) == 0)
        return MM_FAIL(err, MM_EFORMAT, "%s: Parquet is not read; convert it to JSONL", path);
    if (bytes >= 2 && (memcmp(data, "\xFF\xFE", 2) == 0 || memcmp(data, "\xFE\xFF", 2) == 0))
        return MM_FAIL(err, MM_EFORMAT, "%s: the text is UTF-16; convert it to UTF-8", path);
    const char *nul = memchr(data, 0, bytes);
    if (nul)
        return MM_FAIL(err, MM_EFORMAT, "%s: not a text file (NUL at byte %zu)", path,
                       (size_t)(nul - data));
    return MM_OK;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// Drops the byte order mark and, for JSON, finds out whether the file is one array.
static mm_status begin(mm_records *records, mm_err *err)
{
    records->has_begun = true;
    while (records->end < BINARY_PROBE_BYTES && !records->is_source_ended)
        MM_TRY(fill(records, err));
    MM_TRY(refuse_binary(records, err));
    if (records->end >= 3 && memcmp(records->data, "\xEF\xBB\xBF", 3) == 0) records->start = 3;
    if (records->kind != MM_RECORDS_JSON) return MM_OK;
    // Only the window is looked at: a file that begins with kilobytes of white space is read as
    // lines.
    size_t at = records->start;
    int64_t lines = 0;
    while (at < records->end && is_space(records->data[at]))
        lines += records->data[at++] == '\n';
    if (at == records->end || records->data[at] != '[') return MM_OK;
    records->is_array = true;
    records->line = lines;
    records->start = at + 1;
    return MM_OK;
}

static mm_status next_line(mm_records *records, mm_record *record, bool *more, mm_err *err)
{
    size_t seen = 0; // bytes of the window that hold no newline
    bool is_too_long = false;
    for (;;) {
        const char *from = records->data + records->start;
        const size_t unread = records->end - records->start;
        const char *newline = seen < unread ? memchr(from + seen, '\n', unread - seen) : NULL;
        if (newline || records->is_source_ended) {
            size_t bytes = newline ? (size_t)(newline - from) : unread;
            if (!newline && bytes == 0 && !is_too_long) {
                *more = false;
                return MM_OK;
            }
            records->start += bytes + (newline ? 1 : 0);
            if (bytes > MM_RECORD_BYTES_MAX) is_too_long = true;
            if (bytes > 0 && from[bytes - 1] == '\r') bytes--;
            *record = (mm_record){.data = from,
                                  .bytes = is_too_long ? 0 : bytes,
                                  .number = ++records->line,
                                  .is_too_long = is_too_long};
            *more = true;
            return MM_OK;
        }
        seen = unread;
        if (seen > MM_RECORD_BYTES_MAX) {
            is_too_long = true;
            records->start = records->end;
            seen = 0;
        }
        MM_TRY(fill(records, err));
    }
}

// After the closing bracket only white space may come.
static mm_status end_of_array(mm_records *records, mm_err *err)
{
    for (;;) {
        for (; records->start < records->end; records->start++) {
            const char c = records->data[records->start];
            if (!is_space(c))
                return MM_FAIL(err, MM_EFORMAT,
                               "%s:%lld: text after the end of the array (a file of JSON lines "
                               "must have one object per line)",
                               mm_source_path(records->source), (long long)records->line + 1);
            records->line += c == '\n';
        }
        if (records->is_source_ended) return MM_OK;
        MM_TRY(fill(records, err));
    }
}

// Where in an element the scan stands.
typedef struct element_scan {
    size_t at; // bytes of the window that are scanned
    int64_t depth;
    bool is_string;
    bool is_escaped;
} element_scan;

// Scans on through the window; true when the element's end (',' or ']') stands at scan->at.
static bool scan_element(mm_records *records, element_scan *scan)
{
    const char *data = records->data + records->start;
    const size_t unread = records->end - records->start;
    for (; scan->at < unread; scan->at++) {
        const char c = data[scan->at];
        if (scan->is_string) {
            if (scan->is_escaped)
                scan->is_escaped = false;
            else if (c == '\\')
                scan->is_escaped = true;
            else if (c == '"')
                scan->is_string = false;
        } else if (c == '"') {
            scan->is_string = true;
        } else if (c == '{' || c == '[') {
            scan->depth++;
        } else if ((c == ',' || c == ']') && scan->depth == 0) {
            return true;
        } else if ((c == '}' || c == ']') && scan->depth > 0) {
            scan->depth--;
        }
        records->line += c == '\n';
    }
    return false;
}

static mm_status next_element(mm_records *records, mm_record *record, bool *more, mm_err *err)
{
    element_scan scan = {0};
    bool is_too_long = false;
    *more = false;
    if (records->is_array_closed) return end_of_array(records, err);
    while (!scan_element(records, &scan)) {
        if (records->is_source_ended)
            return MM_FAIL(err, MM_EFORMAT,
                           "%s:%lld: the array is not closed (file cut short?), %lld elements read",
                           mm_source_path(records->source), (long long)records->line + 1,
                           (long long)records->elements);
        if (scan.at > MM_RECORD_BYTES_MAX) {
            is_too_long = true;
            records->start = records->end;
            scan.at = 0;
        }
        MM_TRY(fill(records, err));
    }
    const char *text = records->data + records->start;
    size_t bytes = scan.at;
    records->is_array_closed = text[bytes] == ']';
    records->start += bytes + 1;
    if (bytes > MM_RECORD_BYTES_MAX) is_too_long = true;
    while (bytes > 0 && is_space(text[bytes - 1]))
        bytes--;
    while (bytes > 0 && is_space(*text)) {
        text++;
        bytes--;
    }
    if (bytes == 0 && !is_too_long && records->is_array_closed && records->elements == 0)
        return end_of_array(records, err); // "[]"
    *record = (mm_record){.data = text,
                          .bytes = is_too_long ? 0 : bytes,
                          .number = ++records->elements,
                          .is_too_long = is_too_long};
    *more = true;
    return MM_OK;
}

static bool is_blank(const mm_record *record)
{
    for (size_t i = 0; i < record->bytes; i++)
        if (!is_space(record->data[i])) return false;
    return !record->is_too_long;
}

mm_status mm_records_next(mm_records *records, mm_record *record, bool *more, mm_err *err)
{
    *more = false;
    if (!records->has_begun) MM_TRY(begin(records, err));
    if (records->is_array) return next_element(records, record, more, err);
    do {
        MM_TRY(next_line(records, record, more, err));
    } while (*more && records->kind == MM_RECORDS_JSON && is_blank(record));
    return MM_OK;
}

bool mm_records_is_array(const mm_records *records) { return records->is_array; }
mm_source *mm_records_source(mm_records *records) { return records->source; }

void mm_records_close(mm_records *records)
{
    if (!records) return;
    mm_source_close(records->source);
    mm_free(records->data);
    mm_free(records);
}
