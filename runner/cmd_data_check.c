/* `mmrun data check FILE...`: can this be trained on, and what is in it. */
#include "core/data/rows.h"
#include "runner/commands.h"
#include "runner/progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const mm_option mm_data_check_options[] = {
    {.name = "tokenizer",
     .aliases = "t",
     .type = MM_OPTION_PATH,
     .value = "PATH|RUN",
     .help = "also count tokens"},
    {.name = "seq-len",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 4,
     .max = 1048576,
     .help = "say how many rows are longer, and how many have nothing to learn within it (with "
             "--tokenizer; 340)"},
    {.name = "mask",
     .type = MM_OPTION_CHOICE,
     .value = "KIND",
     .choices = MM_MASK_KINDS,
     .help = "what of a conversation is learned (all-answers)"},
    {.name = "format",
     .type = MM_OPTION_CHOICE,
     .value = "FORMAT",
     .choices = MM_ROW_FORMATS,
     .help = "shape of the rows, when it is not to be detected"},
    {0},
};

enum { DUPLICATES_SHOWN = 5, DEFAULT_SEQ_LEN = 340 };
static const size_t ROWS_KEPT_MAX = (size_t)1 << 27; // 1 GiB of keys; beyond it no row is compared

/* What is kept of a row. */
typedef struct row_key {
    uint64_t hash; /* of its text */
    int64_t line;
    uint32_t bytes;
    uint32_t tokens;
} row_key;

typedef struct lengths {
    int64_t total;
    uint32_t min;
    uint32_t p50;
    uint32_t p90;
    uint32_t p99;
    uint32_t max;
} lengths;

typedef struct finding {
    const char *path;
    int64_t file_bytes;
    mm_row_report report;
    row_key *keys;
    size_t count;
    size_t capacity;
    lengths bytes;
    lengths tokens;
    int64_t too_long;    /* rows with a side over --seq-len tokens */
    int64_t unlearned;   /* rows with a side that has nothing to learn within it */
    int64_t equal_pairs; /* chosen and rejected are the same */
    int64_t duplicates;
    int64_t duplicate_of[DUPLICATES_SHOWN][2]; /* line, earlier line */
    mm_status status;
    mm_err err;
} finding;

static mm_status keep_key(finding *f, row_key key, mm_err *err)
{
    if (f->count == f->capacity) {
        const size_t capacity = f->capacity == 0 ? 4096 : f->capacity * 2;
        if (capacity > ROWS_KEPT_MAX)
            return MM_FAIL(err, MM_ELIMIT, "%s has more than %zu rows", f->path, ROWS_KEPT_MAX);
        row_key *keys = f->keys ? mm_realloc(f->keys, capacity * sizeof *keys)
                                : mm_alloc(capacity * sizeof *keys);
        if (!keys) return MM_FAIL(err, MM_ENOMEM, "out of memory for %zu rows", capacity);
        f->keys = keys;
        f->capacity = capacity;
    }
    f->keys[f->count++] = key;
    return MM_OK;
}

/* How rows are looked at. */
typedef struct check_options {
    mm_row_format format;
    const mm_tokenizer *tokenizer; /* NULL: no tokens */
    int64_t seq_len;
    mm_mask_kind mask;
} check_options;

/* Text and ids of a row as training would see them. */
typedef struct rendered {
    mm_str text;
    mm_str mask;
    mm_ids ids;
    bool is_too_long;
    bool is_unlearned;
    bool is_equal_pair;
} rendered;

static mm_status add_chat(const mm_conversation *chat, const check_options *options, rendered *out,
                          mm_err *err)
{
    const mm_chat_options how = {.mask = options->mask};
    const size_t first = out->ids.count;
    if (!options->tokenizer) return mm_chat_render(chat, &how, &out->text, err);
    mm_str_clear(&out->mask);
    MM_TRY(mm_chat_encode_text(options->tokenizer, chat, &how, &out->text, &out->ids, &out->mask,
                               err));
    const int64_t n = (int64_t)(out->ids.count - first);
    bool is_learned = false;
    // The first token is never predicted.
    for (int64_t i = 1; i < n && i < options->seq_len; i++)
        is_learned |= out->mask.data[i] != 0;
    out->is_too_long |= n > options->seq_len;
    out->is_unlearned |= !is_learned;
    return MM_OK;
}

static mm_status render_row(const mm_row *row, const check_options *options, rendered *out,
                            mm_err *err)
{
    mm_str_clear(&out->text);
    out->ids.count = 0;
    out->is_too_long = out->is_unlearned = out->is_equal_pair = false;
    if (row->kind == MM_ROW_TEXT) {
        mm_str_add_bytes(&out->text, row->text, row->text_bytes);
        if (options->tokenizer)
            MM_TRY(mm_tokenizer_encode(options->tokenizer, row->text, row->text_bytes,
                                       MM_ADDED_PARSE, &out->ids, err));
        out->is_too_long = (int64_t)out->ids.count > options->seq_len;
        return mm_str_check(&out->text, err);
    }
    MM_TRY(add_chat(&row->chat, options, out, err));
    const size_t half = out->text.length;
    if (row->kind == MM_ROW_PAIR) {
        MM_TRY(add_chat(&row->rejected, options, out, err));
        out->is_equal_pair = out->text.length == 2 * half &&
                             memcmp(out->text.data, out->text.data + half, half) == 0;
    }
    return mm_str_check(&out->text, err);
}

static uint64_t hash_of(const mm_str *text)
{
    uint8_t digest[MM_SHA256_BYTES];
    uint64_t hash;
    mm_sha256_of(mm_str_text(text), text->length, digest);
    memcpy(&hash, digest, sizeof hash);
    return hash;
}

static mm_status read_rows(const mm_context *context, finding *f, const check_options *options,
                           mm_err *err)
{
    mm_row_reader *reader = NULL;
    mm_progress *progress = NULL;
    rendered row_text = {.is_too_long = false};
    mm_status status = MM_OK;
    MM_GO(mm_row_reader_open(&reader, f->path, options->format, err));
    MM_GO(mm_progress_new(&progress, context, f->path, err));
    while (true) {
        const mm_row *row = NULL;
        MM_GO(mm_row_reader_next(reader, &row, err));
        if (!row) break;
        MM_GO(render_row(row, options, &row_text, err));
        const row_key key = {.hash = hash_of(&row_text.text),
                             .line = row->line,
                             .bytes = (uint32_t)row_text.text.length,
                             .tokens = (uint32_t)row_text.ids.count};
        MM_GO(keep_key(f, key, err));
        f->too_long += row_text.is_too_long;
        f->unlearned += row_text.is_unlearned;
        f->equal_pairs += row_text.is_equal_pair;
        if (f->count % 256 == 0) mm_progress_count(progress, f->count, 0, "rows");
    }
    f->report = *mm_row_reader_report(reader);
done:
    mm_progress_end(progress);
    mm_row_reader_close(reader);
    mm_ids_drop(&row_text.ids);
    mm_str_drop(&row_text.mask);
    mm_str_drop(&row_text.text);
    return status;
}

static int by_u32(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int by_hash(const void *a, const void *b)
{
    const row_key *x = a;
    const row_key *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}

static mm_status measure(const finding *f, bool is_tokens, lengths *out, mm_err *err)
{
    *out = (lengths){0};
    if (f->count == 0) return MM_OK;
    uint32_t *values = mm_alloc(f->count * sizeof *values);
    if (!values) return MM_FAIL(err, MM_ENOMEM, "out of memory for %zu rows", f->count);
    for (size_t i = 0; i < f->count; i++) {
        values[i] = is_tokens ? f->keys[i].tokens : f->keys[i].bytes;
        out->total += values[i];
    }
    qsort(values, f->count, sizeof *values, by_u32);
    out->min = values[0];
    out->p50 = values[f->count / 2];
    out->p90 = values[f->count - 1 - f->count / 10];
    out->p99 = values[f->count - 1 - f->count / 100];
    out->max = values[f->count - 1];
    mm_free(values);
    return MM_OK;
}

/* Rows with an earlier equal row; the first few by line. Destroys the order of the keys. */
static void find_duplicates(finding *f)
{
    qsort(f->keys, f->count, sizeof *f->keys, by_hash);
    for (size_t i = 1, first = 0; i < f->count; i++) {
        if (f->keys[i].hash != f->keys[first].hash) {
            first = i;
            continue;
        }
        int64_t line = f->keys[i].line;
        int64_t earlier = f->keys[first].line;
        f->duplicates++;
        // Insertion into the short sorted list of the smallest lines.
        for (size_t k = 0; k < DUPLICATES_SHOWN; k++) {
            int64_t *entry = f->duplicate_of[k];
            if (entry[0] != 0 && entry[0] <= line) continue;
            const int64_t moved[2] = {entry[0], entry[1]};
            entry[0] = line;
            entry[1] = earlier;
            line = moved[0];
            earlier = moved[1];
            if (line == 0) break;
        }
    }
}

static void examine(const mm_context *context, finding *f, const check_options *options)
{
    struct stat info;
    if (stat(f->path, &info) == 0) f->file_bytes = info.st_size;
    f->status = read_rows(context, f, options, &f->err);
    if (f->status == MM_OK) f->status = measure(f, false, &f->bytes, &f->err);
    if (f->status == MM_OK && options->tokenizer) f->status = measure(f, true, &f->tokens, &f->err);
    if (f->status == MM_OK) find_duplicates(f);
    if (f->status == MM_OK) f->status = mm_row_report_check(&f->report, f->path, false, &f->err);
    if (f->status == MM_OK && f->report.rows == 0)
        f->status = MM_FAIL(&f->err, MM_EFORMAT, "%s holds no row to learn from", f->path);
}

/* ---- output ------------------------------------------------------------------------------------
 */

static json_t *lengths_json(const lengths *l)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)l->total, "min",
                     (json_int_t)l->min, "p50", (json_int_t)l->p50, "p90", (json_int_t)l->p90,
                     "p99", (json_int_t)l->p99, "max", (json_int_t)l->max);
}

static json_t *finding_json(const finding *f, bool has_tokens)
{
    json_t *object = json_object();
    json_object_set_new(object, "path", mm_json_of_text(f->path));
    json_object_set_new(object, "usable", json_boolean(f->status == MM_OK));
    json_object_set_new(object, "message",
                        f->status == MM_OK ? json_null() : mm_json_of_text(f->err.message));
    json_object_set_new(object, "format", mm_json_of_text(mm_row_format_name(f->report.format)));
    json_object_set_new(object, "file_bytes", json_integer(f->file_bytes));
    json_object_set_new(object, "rows", json_integer(f->report.rows));
    json_object_set_new(object, "bad_rows", json_integer(f->report.bad));
    json_t *reasons = json_object();
    for (int i = 0; i < MM_BAD_REASONS; i++)
        if (f->report.bad_by_reason[i] > 0)
            json_object_set_new(reasons, mm_bad_reason_text((mm_bad_reason)i),
                                json_integer(f->report.bad_by_reason[i]));
    json_object_set_new(object, "bad_by_reason", reasons);
    json_t *first = json_array();
    for (int i = 0; i < f->report.n_first; i++)
        json_array_append_new(
            first, json_pack("{s:I, s:s, s:o}", "line", (json_int_t)f->report.first[i].line,
                             "reason", mm_bad_reason_text(f->report.first[i].reason), "detail",
                             mm_json_of_text(f->report.first[i].detail)));
    json_object_set_new(object, "first_bad", first);
    json_object_set_new(object, "bytes", lengths_json(&f->bytes));
    json_object_set_new(object, "tokens", has_tokens ? lengths_json(&f->tokens) : json_null());
    json_object_set_new(object, "rows_over_seq_len",
                        has_tokens ? json_integer(f->too_long) : json_null());
    json_object_set_new(object, "rows_without_label",
                        has_tokens ? json_integer(f->unlearned) : json_null());
    json_object_set_new(object, "equal_pairs", json_integer(f->equal_pairs));
    json_object_set_new(object, "duplicates", json_integer(f->duplicates));
    return object;
}

static void add_lengths(mm_table *table, const char *what, const lengths *l)
{
    char total[MM_NUMBER_BYTES];
    mm_count_text((double)l->total, total);
    mm_table_cell(table, "%s", what);
    mm_table_cell(table, "%s", total);
    mm_table_cell(table, "%u", l->min);
    mm_table_cell(table, "%u", l->p50);
    mm_table_cell(table, "%u", l->p90);
    mm_table_cell(table, "%u", l->p99);
    mm_table_cell(table, "%u", l->max);
}

static mm_status print_lengths(const mm_context *context, const finding *f, bool has_tokens,
                               int64_t seq_len, mm_err *err)
{
    static const char *const HEADERS[] = {"per row", "in all", "min", "median",
                                          "90 %",    "99 %",   "max"};
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, 7, err));
    mm_table_indent(table, 2);
    add_lengths(table, "bytes", &f->bytes);
    if (has_tokens) add_lengths(table, "tokens", &f->tokens);
    mm_table_print(table, context);
    if (has_tokens && f->tokens.total > 0)
        mm_out("  %.2f bytes per token; %lld of %zu rows are longer than %lld tokens\n",
               (double)f->bytes.total / (double)f->tokens.total, (long long)f->too_long, f->count,
               (long long)seq_len);
    if (f->unlearned > 0)
        mm_out("  %lld rows have nothing to learn within them and will be left out\n",
               (long long)f->unlearned);
    return MM_OK;
}

static void print_bad(const mm_context *context, const finding *f)
{
    if (f->report.bad == 0) return;
    const int64_t n_rows = f->report.bad + f->report.rows;
    mm_out("  bad rows    ");
    mm_out_color(context, MM_COLOR_YELLOW);
    mm_out("%lld of %lld", (long long)f->report.bad, (long long)n_rows);
    mm_out_color(context, MM_COLOR_NONE);
    const char *separator = ": ";
    for (int i = 0; i < MM_BAD_REASONS; i++) {
        if (f->report.bad_by_reason[i] == 0) continue;
        mm_out("%s%lld %s", separator, (long long)f->report.bad_by_reason[i],
               mm_bad_reason_text((mm_bad_reason)i));
        separator = ", ";
    }
    mm_out("\n");
    for (int i = 0; i < f->report.n_first; i++)
        mm_out("    line %lld: %s%s%s\n", (long long)f->report.first[i].line,
               mm_bad_reason_text(f->report.first[i].reason),
               f->report.first[i].detail[0] ? ": " : "", f->report.first[i].detail);
}

static mm_status print_finding(const mm_context *context, const finding *f, bool has_tokens,
                               int64_t seq_len, mm_err *err)
{
    const bool is_read = f->report.rows + f->report.bad > 0;
    char size[MM_NUMBER_BYTES];
    mm_bytes_text((double)f->file_bytes, size);
    mm_out_color(context, MM_COLOR_BOLD);
    mm_out("%s", f->path);
    mm_out_color(context, MM_COLOR_NONE);
    mm_out("  ");
    mm_out_color(context, f->status == MM_OK ? MM_COLOR_GREEN : MM_COLOR_RED);
    mm_out("%s\n", f->status == MM_OK ? "usable" : "not usable");
    mm_out_color(context, MM_COLOR_NONE);
    if (!is_read) return MM_OK;
    mm_out("  schema      %s\n", mm_row_format_name(f->report.format));
    mm_out("  rows        %lld (%s)\n", (long long)f->report.rows, size);
    print_bad(context, f);
    if (f->count == 0) return MM_OK;
    mm_out("  duplicates  %lld", (long long)f->duplicates);
    for (int i = 0; i < DUPLICATES_SHOWN && f->duplicate_of[i][0] > 0; i++)
        mm_out("%sline %lld = line %lld", i == 0 ? ": " : ", ", (long long)f->duplicate_of[i][0],
               (long long)f->duplicate_of[i][1]);
    mm_out("%s\n", f->duplicates > DUPLICATES_SHOWN ? ", ..." : "");
    if (f->equal_pairs > 0)
        mm_out(
            "  equal pairs %lld: chosen and rejected are the same, nothing is learned from them\n",
            (long long)f->equal_pairs);
    return print_lengths(context, f, has_tokens, seq_len, err);
}

mm_status mm_cmd_data_check(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_tokenizer *tokenizer = NULL;
    json_t *list = context->json ? json_array() : NULL;
    const char *mask = mm_args_text(args, "mask");
    const char *named = mm_args_text(args, "tokenizer");
    const char *format_name = mm_args_text(args, "format");
    check_options options = {.seq_len = mm_args_int(args, "seq-len", DEFAULT_SEQ_LEN)};
    mm_status status = MM_OK;
    mm_status worst = MM_OK;
    if (format_name) MM_GO(mm_row_format_parse(format_name, &options.format, err));
    if (mask) MM_GO(mm_mask_kind_parse(mask, &options.mask, err));
    if (named) MM_GO(mm_context_tokenizer(context, named, &tokenizer, err));
    options.tokenizer = tokenizer;
    for (size_t i = 0; i < mm_args_count(args); i++) {
        finding f = {.path = mm_args_at(args, i)};
        examine(context, &f, &options);
        if (list)
            json_array_append_new(list, finding_json(&f, tokenizer != NULL));
        else
            status = print_finding(context, &f, tokenizer != NULL, options.seq_len, err);
        // All files are looked at; the first bad one is the error.
        if (f.status != MM_OK && worst == MM_OK) {
            worst = f.status;
            if (err) *err = f.err;
        }
        mm_free(f.keys);
        if (status != MM_OK) goto done;
    }
    if (list) {
        json_t *object = json_pack("{s:O}", "files", list);
        mm_out_json(object);
        json_decref(object);
    }
    status = worst;
done:
    json_decref(list);
    mm_tokenizer_free(tokenizer);
    return status;
}
