/* From a record of the file to a row. Whatever is wrong with a record makes it a bad row, counted
 * with its line and its reason; only a lack of memory is an error. */
#include "core/data/rows_parse.h"

#include "core/base/json.h"
#include "core/base/utf8.h"

#include <string.h>

static void count_bad(mm_row_report *report, const mm_row_builder *builder, int64_t line)
{
    report->bad++;
    report->bad_by_reason[builder->reason]++;
    if (report->n_first == MM_BAD_ROWS_KEPT) return;
    report->first[report->n_first].line = line;
    report->first[report->n_first].reason = builder->reason;
    memcpy(report->first[report->n_first].detail, builder->detail, sizeof builder->detail);
    report->n_first++;
}

void mm_row_report_add(mm_row_report *report, const mm_row_report *later)
{
    report->rows += later->rows;
    report->bad += later->bad;
    for (int i = 0; i < MM_BAD_REASONS; i++)
        report->bad_by_reason[i] += later->bad_by_reason[i];
    for (int32_t i = 0; i < later->n_first && report->n_first < MM_BAD_ROWS_KEPT; i++)
        report->first[report->n_first++] = later->first[i];
}

mm_status mm_row_parse_json(mm_row_builder *builder, const mm_record *record, json_t **root,
                            mm_err *err)
{
    mm_err detail = {0};
    *root = NULL;
    if (record->is_too_long)
        return mm_shape_bad(builder, MM_BAD_LONG, "over %d bytes", MM_ROW_BYTES_MAX);
    const mm_status status = mm_json_parse(record->data, record->bytes, "row", root, &detail);
    if (status == MM_OK) return MM_OK;
    if (status != MM_EFORMAT) return MM_FAIL(err, status, "no memory for a row");
    const size_t valid = mm_utf8_valid(record->data, record->bytes);
    if (valid < record->bytes)
        return mm_shape_bad(builder, MM_BAD_UTF8, "ill-formed at byte %zu", valid + 1);
    // The reason says that it is no JSON and the report in which line of the file.
    static const char SAID[] = "row: not valid JSON at line 1 ";
    const size_t skip = strncmp(detail.message, SAID, strlen(SAID)) == 0
                            ? strlen(SAID)
                            : strlen("row: not valid JSON ");
    return mm_shape_bad(builder, MM_BAD_JSON, "%s", detail.message + skip);
}

bool mm_row_accept_line(mm_row_parser *parser, const mm_record *record, mm_row_report *report)
{
    const char *nul = record->bytes ? memchr(record->data, 0, record->bytes) : NULL;
    const size_t valid = mm_utf8_valid(record->data, record->bytes);
    if (record->is_too_long)
        (void)mm_shape_bad(&parser->builder, MM_BAD_LONG, "over %d bytes", MM_ROW_BYTES_MAX);
    else if (valid < record->bytes)
        (void)mm_shape_bad(&parser->builder, MM_BAD_UTF8, "ill-formed at byte %zu", valid + 1);
    else if (nul)
        (void)mm_shape_bad(&parser->builder, MM_BAD_UTF8, "NUL at byte %zu",
                           (size_t)(nul - record->data) + 1);
    else
        return true;
    count_bad(report, &parser->builder, record->number);
    return false;
}

mm_status mm_row_parse(mm_row_parser *parser, const mm_record *record, mm_row_report *report,
                       const mm_row **row, mm_err *err)
{
    mm_row_builder *builder = &parser->builder;
    mm_status status = MM_OK;
    json_t *root;
    *row = NULL;
    MM_ASSERT(parser->format != MM_ROWS_AUTO);
    if (parser->format == MM_ROWS_LINES || parser->format == MM_ROWS_JOINED) {
        builder->row =
            (mm_row){.kind = MM_ROW_TEXT, .text = record->data, .text_bytes = record->bytes};
    } else {
        status = mm_row_parse_json(builder, record, &root, err);
        if (status == MM_OK)
            status = mm_shape_build(builder, parser->format, root, parser->is_strict, err);
    }
    if (status == MM_EFORMAT) {
        count_bad(report, builder, record->number);
        return MM_OK;
    }
    MM_TRY(status);
    builder->row.line = record->number;
    report->rows++;
    *row = &builder->row;
    return MM_OK;
}

void mm_row_parser_drop(mm_row_parser *parser) { mm_row_builder_drop(&parser->builder); }
