/* Rows of a data file: detection of the shape, strict reading, normalisation.
 *
 * Accepted (contract, section 3): {"text"}; {"conversations"} and {"messages"} with role/content;
 * ShareGPT from/value; Alpaca; prompt/completion; preference pairs implicit and explicit; plain
 * text by line or joined. JSONL or one JSON array; zstd and gzip are read through. A bad row is
 * counted by reason and the first ten are kept with their line. The file is streamed: memory is
 * bounded by the longest row allowed. A reader belongs to one thread.
 */
#ifndef MM_DATA_ROWS_H
#define MM_DATA_ROWS_H

#include "core/text/chat.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_row_format {
    MM_ROWS_AUTO = 0,
    MM_ROWS_TEXT,          /* {"text"} */
    MM_ROWS_CONVERSATIONS, /* {"conversations":[{"role","content"}]} or {"messages"} */
    MM_ROWS_SHAREGPT,      /* {"conversations":[{"from","value"}]} */
    MM_ROWS_ALPACA,        /* {"instruction","input"?,"output"} */
    MM_ROWS_PROMPT,        /* {"prompt","completion"} */
    MM_ROWS_PREFERENCE,    /* {"chosen":[…],"rejected":[…]} */
    MM_ROWS_TRIPLE,        /* {"prompt"|"instruction"|"conversations","chosen","rejected"} */
    MM_ROWS_LINES,         /* plain text, a row per non-empty line */
    MM_ROWS_JOINED         /* plain text, consecutive lines joined into rows of about 2 KiB */
} mm_row_format;

/* The names of the formats in their order, as the choices of an option. */
#define MM_ROW_FORMATS                                                                             \
    "auto,text,conversations,sharegpt,alpaca,prompt,preference,triple,lines,joined"
/* "auto", "text", … for --format; unknown is MM_EUSAGE listing them. */
MM_NODISCARD mm_status mm_row_format_parse(const char *name, mm_row_format *out, mm_err *err);
const char *mm_row_format_name(mm_row_format format);

typedef enum mm_row_kind { MM_ROW_TEXT = 0, MM_ROW_CHAT, MM_ROW_PAIR } mm_row_kind;

/* One normalised row; everything is borrowed until the next call. */
typedef struct mm_row {
    mm_row_kind kind;
    int64_t line;     /* 1-based line of the file, or element of the array */
    const char *text; /* MM_ROW_TEXT */
    size_t text_bytes;
    mm_conversation chat;     /* MM_ROW_CHAT; of MM_ROW_PAIR: chosen */
    mm_conversation rejected; /* MM_ROW_PAIR */
    const json_t *gt;         /* MM_ROW_CHAT: the row's list of right answers, NULL when absent */
} mm_row;

enum { MM_BAD_ROWS_KEPT = 10, MM_BAD_DETAIL_BYTES = 120, MM_ROW_BYTES_MAX = 16 << 20 };

typedef enum mm_bad_reason {
    MM_BAD_JSON = 0, /* not valid JSON */
    MM_BAD_UTF8,     /* ill-formed bytes, or NUL in plain text */
    MM_BAD_FIELD,    /* a required field is missing or has another type */
    MM_BAD_EMPTY,    /* nothing to learn from */
    MM_BAD_ROLE,     /* unknown role */
    MM_BAD_LONG,     /* over MM_ROW_BYTES_MAX */
    MM_BAD_SHAPE,    /* another shape than the rest of the file */
    MM_BAD_REASONS
} mm_bad_reason;
const char *mm_bad_reason_text(mm_bad_reason reason);

typedef struct mm_row_report {
    mm_row_format format;
    bool is_array; /* one JSON array: `line` counts its elements */
    int64_t rows;  /* good */
    int64_t bad;
    int64_t bad_by_reason[MM_BAD_REASONS];
    struct {
        int64_t line;
        mm_bad_reason reason;
        char detail[MM_BAD_DETAIL_BYTES];
    } first[MM_BAD_ROWS_KEPT];
    int32_t n_first;
} mm_row_report;

typedef struct mm_row_reader mm_row_reader;

/* Opens and detects the format from the first rows. Empty file, unreadable, undetectable: an error
 * naming the file and what was seen. */
MM_NODISCARD mm_status mm_row_reader_open(mm_row_reader **out, const char *path,
                                          mm_row_format format, mm_err *err);
/* *row is NULL at the end. Bad rows are counted and stepped over. */
MM_NODISCARD mm_status mm_row_reader_next(mm_row_reader *reader, const mm_row **row, mm_err *err);
const mm_row_report *mm_row_reader_report(const mm_row_reader *reader);
/* MM_EFORMAT "FILE: 12 of 800 rows are bad (…, first at line 7: …)" when more than 0.1 % were,
 * unless `skip`. */
MM_NODISCARD mm_status mm_row_report_check(const mm_row_report *report, const char *path, bool skip,
                                           mm_err *err);
/* From now on (before the first row) takes the SHA-256 of the file's own bytes; the digest is valid
 * once, after the last row. */
MM_NODISCARD mm_status mm_row_reader_hash_start(mm_row_reader *reader, mm_err *err);
void mm_row_reader_hash_end(mm_row_reader *reader, uint8_t digest[MM_SHA256_BYTES]);
/* Bytes of the file (as stored, compressed or not) that were read so far. */
uint64_t mm_row_reader_bytes_done(const mm_row_reader *reader);
void mm_row_reader_close(mm_row_reader *reader);

#ifdef __cplusplus
}
#endif
#endif
