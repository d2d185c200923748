/* From a record of the file to a row, and the count of good and bad ones. Internal to core/data.
 *
 * Cutting a file into records must happen in order; what is done with one record does not depend on
 * any other. So one thread may cut with mm_row_reader_cut while several parse, each with a parser
 * and a report of its own; adding the reports in the order of the file gives what one thread would
 * have counted.
 */
#ifndef MM_DATA_ROWS_PARSE_H
#define MM_DATA_ROWS_PARSE_H

#include "core/data/records.h"
#include "core/data/rows_shape.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_row_parser {
    mm_row_format format; /* never MM_ROWS_AUTO */
    bool is_strict;       /* the format was found, not given: a row of another shape is bad */
    mm_row_builder builder;
} mm_row_parser;

/* A row of the record, borrowed until the next call, the record's bytes for plain text. *row is
 * NULL when it is bad. Counts it either way. */
MM_NODISCARD mm_status mm_row_parse(mm_row_parser *parser, const mm_record *record,
                                    mm_row_report *report, const mm_row **row, mm_err *err);
void mm_row_parser_drop(mm_row_parser *parser);

/* The record as JSON; MM_EFORMAT: a bad row, see reason and detail in the builder. */
MM_NODISCARD mm_status mm_row_parse_json(mm_row_builder *builder, const mm_record *record,
                                         json_t **root, mm_err *err);
/* Whether a line of plain text can be used; counts it as bad otherwise. */
bool mm_row_accept_line(mm_row_parser *parser, const mm_record *record, mm_row_report *report);
/* Adds what was counted further on in the same file. */
void mm_row_report_add(mm_row_report *report, const mm_row_report *later);

/* The next record, borrowed until the next call: a JSON value that may be bad, or a row of plain
 * text whose bad lines are counted and left out. The other half of mm_row_reader_next; a reader is
 * used with one of the two. *more is false at the end. */
MM_NODISCARD mm_status mm_row_reader_cut(mm_row_reader *reader, mm_record *record, bool *more,
                                         mm_err *err);
/* A parser for the reader's records; outlives it. */
mm_row_parser mm_row_reader_parser(const mm_row_reader *reader);
/* Adds to the report of the reader. */
void mm_row_reader_count(mm_row_reader *reader, const mm_row_report *later);

#ifdef __cplusplus
}
#endif
#endif
