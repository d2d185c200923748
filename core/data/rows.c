/* Rows of a data file: which format it has, and one good row after the other.
 *
 * The format is found by reading the first rows once and then opening the file again from the
 * start, so detection holds nothing in memory. The most frequent shape wins, so that one odd row at
 * the top does not decide for the file; rows of another shape are bad. */
#include "core/data/rows.h"

#include "core/base/utf8.h"
#include "core/data/rows_parse.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { DETECT_ROWS = 100, JOINED_BYTES = 2048, FIRST_FIELDS_BYTES = 200 };
static const double BAD_ROWS_MAX = 0.001; // share of all rows that may be bad

_Static_assert((int)MM_ROW_BYTES_MAX == (int)MM_RECORD_BYTES_MAX, "one limit for rows and records");

static const char *const FORMAT_NAMES[] = {[MM_ROWS_AUTO] = "auto",
                                           [MM_ROWS_TEXT] = "text",
                                           [MM_ROWS_CONVERSATIONS] = "conversations",
                                           [MM_ROWS_SHAREGPT] = "sharegpt",
                                           [MM_ROWS_ALPACA] = "alpaca",
                                           [MM_ROWS_PROMPT] = "prompt",
                                           [MM_ROWS_PREFERENCE] = "preference",
                                           [MM_ROWS_TRIPLE] = "triple",
                                           [MM_ROWS_LINES] = "lines",
                                           [MM_ROWS_JOINED] = "joined"};
enum { FORMATS = sizeof FORMAT_NAMES / sizeof FORMAT_NAMES[0] };

static const char *const REASON_TEXTS[MM_BAD_REASONS] = {
    [MM_BAD_JSON] = "not valid JSON",
    [MM_BAD_UTF8] = "not valid UTF-8",
    [MM_BAD_FIELD] = "field missing or of the wrong type",
    [MM_BAD_EMPTY] = "empty",
    [MM_BAD_ROLE] = "unknown role",
    [MM_BAD_LONG] = "longer than 16 MiB",
    [MM_BAD_SHAPE] = "another shape than the rest of the file"};

struct mm_row_reader {
    mm_records *records;
    mm_row_parser parser;
    mm_row_report report;
    bool has_ended;
    mm_str text; // of the row, for plain text
};

mm_status mm_row_format_parse(const char *name, mm_row_format *out, mm_err *err)
{
    for (int i = 0; i < FORMATS; i++) {
        if (strcasecmp(name, FORMAT_NAMES[i]) == 0) {
            *out = (mm_row_format)i;
            return MM_OK;
        }
    }
    mm_str names = {0};
    for (int i = 0; i < FORMATS; i++)
        mm_str_addf(&names, "%s%s", i ? ", " : "", FORMAT_NAMES[i]);
    const mm_status status =
        MM_FAIL(err, MM_EUSAGE, "unknown row format \"%s\"; expected one of: %s", name,
                mm_str_text(&names));
    mm_str_drop(&names);
    return status;
}

const char *mm_row_format_name(mm_row_format format)
{
    MM_ASSERT((int)format >= 0 && (int)format < FORMATS);
    return FORMAT_NAMES[format];
}

const char *mm_bad_reason_text(mm_bad_reason reason)
{
    MM_ASSERT((int)reason >= 0 && reason < MM_BAD_REASONS);
    return REASON_TEXTS[reason];
}

static bool is_plain(mm_row_format format)
{
    return format == MM_ROWS_LINES || format == MM_ROWS_JOINED;
}

// Whether the name, less .gz or .zst, ends like a text file's.
static bool is_text_name(const char *path)
{
    static const char *const TAILS[] = {".txt", ".text", ".md"};
    size_t length = strlen(path);
    if (length > 3 && strcasecmp(path + length - 3, ".gz") == 0)
        length -= 3;
    else if (length > 4 && strcasecmp(path + length - 4, ".zst") == 0)
        length -= 4;
    for (size_t i = 0; i < sizeof TAILS / sizeof TAILS[0]; i++) {
        const size_t tail = strlen(TAILS[i]);
        if (length > tail && strncasecmp(path + length - tail, TAILS[i], tail) == 0) return true;
    }
    return false;
}

// What detection saw, for the message when it found nothing.
typedef struct first_look {
    int64_t counts[FORMATS]; // MM_ROWS_AUTO: not recognised
    int64_t rows;
    bool is_array;
    bool is_json;                     // some row was valid JSON
    char problem[FIRST_FIELDS_BYTES]; // of the first row that was not recognised
} first_look;

static void describe_unknown(first_look *look, const json_t *root)
{
    if (look->problem[0]) return;
    mm_str fields = {.limit = 1 << 12};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        mm_str_addf(&fields, "%s%.30s", fields.length ? ", " : "", key);
    }
    const char *text = mm_str_text(&fields);
    if (!json_is_object(root))
        snprintf(look->problem, sizeof look->problem, "not a JSON object");
    else
        snprintf(look->problem, sizeof look->problem, "fields: %.*s",
                 (int)mm_utf8_valid(text, fields.length < 150 ? fields.length : 150), text);
    mm_str_drop(&fields);
}

static mm_status look_at_rows(const char *path, first_look *look, mm_err *err)
{
    mm_status status = MM_OK;
    mm_records *records = NULL;
    mm_row_builder builder = {0};
    mm_record record;
    bool more;
    MM_GO(mm_records_open(&records, path, MM_RECORDS_JSON, err));
    for (int i = 0; i < DETECT_ROWS; i++) {
        json_t *root;
        MM_GO(mm_records_next(records, &record, &more, err));
        if (!more) break;
        look->rows++;
        look->is_array = mm_records_is_array(records);
        status = mm_row_parse_json(&builder, &record, &root, err);
        if (status == MM_EFORMAT) {
            if (!look->problem[0])
                snprintf(look->problem, sizeof look->problem, "%s: %s",
                         mm_bad_reason_text(builder.reason), builder.detail);
            status = MM_OK;
            continue;
        }
        MM_GO(status);
        look->is_json = true;
        const mm_row_format shape = mm_shape_of(root);
        if (shape == MM_ROWS_AUTO) describe_unknown(look, root);
        json_decref(root);
        look->counts[shape]++;
    }
done:
    mm_row_builder_drop(&builder);
    mm_records_close(records);
    return status;
}

static mm_status detect(const char *path, mm_row_format *format, mm_err *err)
{
    first_look look = {0};
    if (is_text_name(path)) {
        *format = MM_ROWS_JOINED;
        return MM_OK;
    }
    MM_TRY(look_at_rows(path, &look, err));
    int64_t most = 0;
    for (int i = MM_ROWS_AUTO + 1; i < FORMATS; i++) {
        if (look.counts[i] > most) {
            most = look.counts[i];
            *format = (mm_row_format)i;
        }
    }
    if (most > 0) return MM_OK;
    if (look.rows == 0) return MM_FAIL(err, MM_EFORMAT, "%s: no rows in it", path);
    return MM_FAIL(
        err, MM_EFORMAT,
        "%s: none of the first %lld %s is recognised (the first: %s); expected "
        "{\"text\"}, {\"conversations\"}, {\"messages\"}, {\"instruction\", \"output\"}, "
        "{\"prompt\", \"completion\"} or {\"chosen\", \"rejected\"}%s",
        path, (long long)look.rows, look.is_array ? "elements" : "lines", look.problem,
        look.is_json ? "" : "; for plain text give --format lines or joined");
}

mm_status mm_row_reader_open(mm_row_reader **out, const char *path, mm_row_format format,
                             mm_err *err)
{
    mm_status status = MM_OK;
    *out = NULL;
    mm_row_reader *reader = mm_calloc(1, sizeof *reader);
    if (!reader) return MM_FAIL(err, MM_ENOMEM, "%s: no memory to read it", path);
    reader->parser.is_strict = format == MM_ROWS_AUTO;
    mm_str_init(&reader->text, (size_t)MM_ROW_BYTES_MAX + JOINED_BYTES + 2);
    if (format == MM_ROWS_AUTO) {
        mm_records *probe = NULL;
        // Opened once for the plain errors (missing, folder, empty) before the name is judged.
        MM_GO(mm_records_open(&probe, path, MM_RECORDS_LINES, err));
        mm_records_close(probe);
        MM_GO(detect(path, &format, err));
    }
    reader->report.format = reader->parser.format = format;
    MM_GO(mm_records_open(&reader->records, path,
                          is_plain(format) ? MM_RECORDS_LINES : MM_RECORDS_JSON, err));
    *out = reader;
    reader = NULL;
done:
    mm_row_reader_close(reader);
    return status;
}

static bool is_blank_line(const mm_record *record)
{
    for (size_t i = 0; i < record->bytes; i++)
        if (!strchr(" \t\r", record->data[i]) || record->data[i] == '\0') return false;
    return true;
}

/* Lines: the next one that is not blank. Joined: lines until the row is long enough; blank lines
 * stay inside (they part paragraphs and verses), but not at its edges. */
static mm_status cut_plain(mm_row_reader *reader, mm_record *row, bool *more, mm_err *err)
{
    const bool is_joined = reader->report.format == MM_ROWS_JOINED;
    mm_str *text = &reader->text;
    size_t blank_lines = 0;
    int64_t line = 0;
    mm_str_clear(text);
    while (text->length < (is_joined ? JOINED_BYTES : 1)) {
        mm_record record;
        MM_TRY(mm_records_next(reader->records, &record, more, err));
        if (!*more) break;
        if (!mm_row_accept_line(&reader->parser, &record, &reader->report)) continue;
        if (is_blank_line(&record)) {
            blank_lines++;
            continue;
        }
        for (size_t i = 0; text->length > 0 && i <= blank_lines; i++)
            mm_str_add_char(text, '\n');
        if (text->length == 0) line = record.number;
        mm_str_add_bytes(text, record.data, record.bytes);
        MM_TRY(mm_str_check(text, err));
        blank_lines = 0;
    }
    *more = text->length > 0;
    *row = (mm_record){.data = text->data, .bytes = text->length, .number = line};
    return MM_OK;
}

mm_status mm_row_reader_cut(mm_row_reader *reader, mm_record *record, bool *more, mm_err *err)
{
    *more = false;
    if (reader->has_ended) return MM_OK;
    if (is_plain(reader->report.format)) {
        MM_TRY(cut_plain(reader, record, more, err));
    } else {
        MM_TRY(mm_records_next(reader->records, record, more, err));
        reader->report.is_array = mm_records_is_array(reader->records);
    }
    reader->has_ended = !*more;
    return MM_OK;
}

mm_row_parser mm_row_reader_parser(const mm_row_reader *reader)
{
    return (mm_row_parser){.format = reader->parser.format, .is_strict = reader->parser.is_strict};
}

void mm_row_reader_count(mm_row_reader *reader, const mm_row_report *later)
{
    mm_row_report_add(&reader->report, later);
}

mm_status mm_row_reader_next(mm_row_reader *reader, const mm_row **row, mm_err *err)
{
    bool more = true;
    *row = NULL;
    while (!*row) {
        mm_record record;
        MM_TRY(mm_row_reader_cut(reader, &record, &more, err));
        if (!more) return MM_OK;
        MM_TRY(mm_row_parse(&reader->parser, &record, &reader->report, row, err));
    }
    return MM_OK;
}

const mm_row_report *mm_row_reader_report(const mm_row_reader *reader) { return &reader->report; }

mm_status mm_row_report_check(const mm_row_report *report, const char *path, bool skip, mm_err *err)
{
    const int64_t rows = report->rows + report->bad;
    if (rows == 0) return MM_FAIL(err, MM_EFORMAT, "%s: no rows in it", path);
    const bool is_over = (double)report->bad > BAD_ROWS_MAX * (double)rows;
    if (report->rows > 0 && (skip || !is_over)) return MM_OK;
    const char *unit = report->is_array ? "element" : "line";
    mm_str reasons = {0};
    for (int i = 0; i < MM_BAD_REASONS; i++)
        if (report->bad_by_reason[i] > 0)
            mm_str_addf(&reasons, "%s%lld %s", reasons.length ? ", " : "",
                        (long long)report->bad_by_reason[i], REASON_TEXTS[i]);
    const mm_status status = MM_FAIL(
        err, MM_EFORMAT, "%s: %lld of %lld rows are bad (%s; first at %s %lld: %s, %s)%s", path,
        (long long)report->bad, (long long)rows, mm_str_text(&reasons), unit,
        (long long)report->first[0].line, REASON_TEXTS[report->first[0].reason],
        report->first[0].detail,
        report->rows > 0 ? "\ntraining and eval go on without them with --on-bad-row skip" : "");
    mm_str_drop(&reasons);
    return status;
}

mm_status mm_row_reader_hash_start(mm_row_reader *reader, mm_err *err)
{
    return mm_source_hash_start(mm_records_source(reader->records), err);
}

void mm_row_reader_hash_end(mm_row_reader *reader, uint8_t digest[MM_SHA256_BYTES])
{
    MM_ASSERT(reader->has_ended);
    mm_source_hash_end(mm_records_source(reader->records), digest);
}

uint64_t mm_row_reader_bytes_done(const mm_row_reader *reader)
{
    return mm_source_bytes_done(mm_records_source(reader->records));
}

void mm_row_reader_close(mm_row_reader *reader)
{
    if (!reader) return;
    mm_records_close(reader->records);
    mm_row_parser_drop(&reader->parser);
    mm_str_drop(&reader->text);
    mm_free(reader);
}
