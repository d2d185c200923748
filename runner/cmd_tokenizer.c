/* `mmrun tokenizer train|encode|decode|show`. */
#include "core/base/file.h"
#include "core/base/utf8.h"
#include "core/data/rows.h"
#include "runner/commands.h"
#include "runner/progress.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKENIZER_OPTION                                                                           \
    {                                                                                              \
        .name = "tokenizer", .aliases = "t", .type = MM_OPTION_PATH, .value = "PATH|RUN",          \
        .help = "tokenizer.json, a folder with one, or a run (else `last`)"                        \
    }

const mm_option mm_tokenizer_train_options[] = {
    {.name = "data",
     .aliases = "data_path",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .help = "what to learn from, in any row shape",
     .repeats = true},
    {.name = "vocab",
     .aliases = "vocab_size",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 292, // 36 reserved tokens and 256 bytes
     .max = 1000000,
     .help = "size of the vocabulary (6400)"},
    {.name = "out",
     .aliases = "o,output",
     .type = MM_OPTION_PATH,
     .value = "DIR",
     .help = "folder for tokenizer.json and tokenizer_config.json (./tokenizer)"},
    {.name = "limit",
     .type = MM_OPTION_INT,
     .value = "ROWS",
     .min = 1,
     .max = 1e15,
     .help = "learn from the first rows of each file only"},
    {0},
};

const mm_option mm_tokenizer_encode_options[] = {
    TOKENIZER_OPTION,
    {.name = "plain", .help = "<|im_start|> and the like are ordinary text"},
    {.name = "pieces", .help = "also show the text of each token"},
    {0},
};

const mm_option mm_tokenizer_decode_options[] = {
    TOKENIZER_OPTION,
    {.name = "skip-special", .help = "leave special tokens out"},
    {0},
};

const mm_option mm_tokenizer_show_options[] = {
    TOKENIZER_OPTION,
    {.name = "data",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .help = "measure compression on this file",
     .repeats = true},
    {0},
};

static const int64_t DEFAULT_VOCAB = 6400;
static const size_t INPUT_BYTES_MAX = (size_t)1 << 28;

static mm_status open_tokenizer(const mm_context *context, const mm_args *args, mm_tokenizer **out,
                                mm_err *err)
{
    const char *named = mm_args_text(args, "tokenizer");
    if (named) return mm_context_tokenizer(context, named, out, err);
    if (!mm_file_exists(context->db_path))
        return MM_FAIL(err, MM_EUSAGE, "which tokenizer?\nname one with --tokenizer PATH or RUN");
    return mm_context_tokenizer(context, "last", out, err);
}

/* ---- train -------------------------------------------------------------------------------------
 */

typedef struct feeding {
    mm_bpe_trainer *trainer;
    mm_progress *progress;
    uint64_t bytes;
} feeding;

static mm_status feed(void *context, const char *text, size_t length, mm_err *err)
{
    feeding *f = context;
    f->bytes += length;
    mm_progress_count(f->progress, f->bytes, 0, "bytes");
    return mm_bpe_trainer_feed(f->trainer, text, length, err);
}

static void merges_done(void *context, int64_t done, int64_t total)
{
    mm_progress_count(context, (uint64_t)done, (uint64_t)total, "merges");
}

static mm_status train(const mm_context *context, const mm_args *args, mm_tokenizer **out,
                       uint64_t *bytes, mm_err *err)
{
    feeding f = {0};
    mm_progress *merging = NULL;
    mm_status status = MM_OK;
    size_t n_files;
    const char *const *files = mm_args_list(args, "data", &n_files);
    const int64_t limit = mm_args_int(args, "limit", 0);
    MM_GO(mm_bpe_trainer_new(&f.trainer, (int32_t)mm_args_int(args, "vocab", DEFAULT_VOCAB), err));
    MM_GO(mm_progress_new(&f.progress, context, "reading", err));
    for (size_t i = 0; i < n_files; i++) {
        mm_row_report report = {0};
        MM_GO(mm_input_texts(files[i], limit, feed, &f, &report, err));
        MM_GO(mm_row_report_check(&report, files[i], false, err));
        if (report.bad > 0)
            mm_warn(context, "%s: %lld bad rows were left out; `mmrun data check` names them",
                    files[i], (long long)report.bad);
    }
    mm_progress_end(f.progress);
    f.progress = NULL;
    *bytes = f.bytes;
    MM_GO(mm_progress_new(&merging, context, "merging", err));
    MM_GO(mm_bpe_trainer_finish(f.trainer, out, merges_done, merging, err));
done:
    mm_progress_end(merging);
    mm_progress_end(f.progress);
    mm_bpe_trainer_free(f.trainer);
    return status;
}

mm_status mm_cmd_tokenizer_train(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_tokenizer *tokenizer = NULL;
    uint64_t bytes = 0;
    char size[MM_NUMBER_BYTES];
    mm_status status = MM_OK;
    const char *dir = mm_args_text(args, "out");
    const int64_t wanted = mm_args_int(args, "vocab", DEFAULT_VOCAB);
    if (!dir) dir = "./tokenizer";
    if (!mm_args_has(args, "data"))
        return MM_FAIL(err, MM_EUSAGE,
                       "`mmrun tokenizer train` needs --data FILE\n"
                       "`mmrun data synth` makes some");
    MM_GO(train(context, args, &tokenizer, &bytes, err));
    MM_GO(mm_tokenizer_save(tokenizer, dir, err));
    const int32_t vocab = mm_tokenizer_vocab(tokenizer);
    mm_bytes_text((double)bytes, size);
    mm_say(context, "%d tokens learned from %s of text", (int)vocab, size);
    if (vocab < wanted)
        mm_warn(context, "only %d of %lld tokens: the text has no more pairs to merge", (int)vocab,
                (long long)wanted);
    if (context->json) {
        json_t *object = json_pack("{s:{s:o, s:i, s:s}}", "tokenizer", "path", mm_json_of_text(dir),
                                   "vocab_size", (int)vocab, "hash", mm_tokenizer_hash(tokenizer));
        mm_out_json(object);
        json_decref(object);
    } else {
        mm_out("%s\n", dir);
    }
done:
    mm_tokenizer_free(tokenizer);
    return status;
}

/* ---- encode and decode -------------------------------------------------------------------------
 */

/* Text of one token in quotes, with what is no whole character as \xNN. */
static void add_piece(mm_str *out, const mm_tokenizer *tokenizer, int32_t id)
{
    size_t length = 0;
    bool is_special = false;
    const char *text = mm_tokenizer_token(tokenizer, id, &length, &is_special);
    mm_str_add_char(out, '\'');
    for (size_t at = 0; at < length;) {
        uint32_t code;
        const int size = mm_utf8_next(text + at, length - at, &code);
        if (size <= 0) {
            mm_str_addf(out, "\\x%02x", (unsigned char)text[at]);
            at++;
        } else {
            if (code == '\n')
                mm_str_add(out, "\\n");
            else
                mm_str_add_bytes(out, text + at, (size_t)size);
            at += (size_t)size;
        }
    }
    mm_str_add_char(out, '\'');
}

static mm_status print_ids(const mm_context *context, const mm_tokenizer *tokenizer,
                           const mm_ids *ids, bool has_pieces, mm_err *err)
{
    mm_str text = {0};
    if (context->json) {
        json_t *list = json_array();
        json_t *pieces = json_array();
        for (size_t i = 0; i < ids->count; i++) {
            json_array_append_new(list, json_integer(ids->data[i]));
            mm_str_clear(&text);
            add_piece(&text, tokenizer, ids->data[i]);
            if (has_pieces) json_array_append_new(pieces, mm_json_of_text(mm_str_text(&text)));
        }
        json_t *object = json_pack("{s:o, s:I, s:O}", "ids", list, "count", (json_int_t)ids->count,
                                   "pieces", has_pieces ? pieces : json_null());
        mm_out_json(object);
        json_decref(object);
        json_decref(pieces);
    } else {
        for (size_t i = 0; i < ids->count; i++) {
            if (i > 0) mm_str_add_char(&text, has_pieces ? '\n' : ' ');
            mm_str_addf(&text, "%d", (int)ids->data[i]);
            if (!has_pieces) continue;
            mm_str_add_char(&text, ' ');
            add_piece(&text, tokenizer, ids->data[i]);
        }
        mm_out("%s\n", mm_str_text(&text));
    }
    const mm_status status = mm_str_check(&text, err);
    mm_str_drop(&text);
    return status;
}

mm_status mm_cmd_tokenizer_encode(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_tokenizer *tokenizer = NULL;
    mm_ids ids = {0};
    char *input = NULL;
    const char *text = mm_args_at(args, 0);
    size_t length = strlen(text);
    mm_status status = MM_OK;
    const mm_parse_added added = mm_args_has(args, "plain") ? MM_ADDED_AS_TEXT : MM_ADDED_PARSE;
    MM_GO(open_tokenizer(context, args, &tokenizer, err));
    if (strcmp(text, "-") == 0) {
        MM_GO(mm_input_read("-", INPUT_BYTES_MAX, &input, &length, err));
        text = input;
    }
    MM_GO(mm_tokenizer_encode(tokenizer, text, length, added, &ids, err));
    MM_GO(print_ids(context, tokenizer, &ids, mm_args_has(args, "pieces"), err));
done:
    mm_free(input);
    mm_ids_drop(&ids);
    mm_tokenizer_free(tokenizer);
    return status;
}

/* Ids separated by blanks, commas or brackets, as people and programs write lists. */
static mm_status parse_ids(const char *text, mm_ids *ids, mm_err *err)
{
    const char *at = text + strspn(text, " \t\r\n,[]");
    while (*at) {
        char *end;
        errno = 0;
        const long id = strtol(at, &end, 10);
        if (end == at || errno != 0 || id < 0 || id > INT32_MAX ||
            (*end && !strchr(" \t\r\n,[]", *end)))
            return MM_FAIL(
                err, MM_EUSAGE, "a token id is expected, found '%.*s'",
                (int)strcspn(at, " \t\r\n,[]") > 40 ? 40 : (int)strcspn(at, " \t\r\n,[]"), at);
        MM_TRY(mm_ids_add(ids, (int32_t)id, err));
        at = end + strspn(end, " \t\r\n,[]");
    }
    return MM_OK;
}

mm_status mm_cmd_tokenizer_decode(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_tokenizer *tokenizer = NULL;
    mm_ids ids = {0};
    mm_str text = {0};
    char *input = NULL;
    size_t length = 0;
    mm_status status = MM_OK;
    MM_GO(open_tokenizer(context, args, &tokenizer, err));
    if (strcmp(mm_args_at(args, 0), "-") == 0 && mm_args_count(args) == 1) {
        MM_GO(mm_input_read("-", INPUT_BYTES_MAX, &input, &length, err));
        MM_GO(parse_ids(input, &ids, err));
    } else {
        for (size_t i = 0; i < mm_args_count(args); i++)
            MM_GO(parse_ids(mm_args_at(args, i), &ids, err));
    }
    MM_GO(mm_tokenizer_decode(tokenizer, ids.data, ids.count, mm_args_has(args, "skip-special"),
                              &text, err));
    if (context->json) {
        json_t *object = json_pack("{s:o}", "text", mm_json_of_text(mm_str_text(&text)));
        mm_out_json(object);
        json_decref(object);
    } else if (isatty(STDOUT_FILENO)) {
        mm_out("%s\n", mm_str_text(&text));
    } else {
        mm_out_text(&text); // exact bytes: decode after encode gives the file back
    }
done:
    mm_free(input);
    mm_str_drop(&text);
    mm_ids_drop(&ids);
    mm_tokenizer_free(tokenizer);
    return status;
}

/* ---- show --------------------------------------------------------------------------------------
 */

typedef struct measuring {
    const mm_tokenizer *tokenizer;
    mm_ids ids;
    int64_t bytes;
    int64_t characters;
    int64_t tokens;
} measuring;

static mm_status count_text(void *context, const char *text, size_t length, mm_err *err)
{
    measuring *m = context;
    m->ids.count = 0;
    MM_TRY(mm_tokenizer_encode(m->tokenizer, text, length, MM_ADDED_AS_TEXT, &m->ids, err));
    m->tokens += (int64_t)m->ids.count;
    m->bytes += (int64_t)length;
    for (size_t i = 0; i < length; i++)
        m->characters += ((unsigned char)text[i] & 0xC0) != 0x80;
    return MM_OK;
}

static void add_fact(mm_table *table, const char *name, const char *format, ...) MM_PRINTF(3, 4);
static void add_fact(mm_table *table, const char *name, const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    mm_table_cell(table, "%s", name);
    mm_table_cell(table, "%s", text);
}

static void add_special_fact(mm_table *table, const mm_tokenizer *tokenizer, const char *name,
                             int32_t id)
{
    if (id < 0) {
        add_fact(table, name, "none");
        return;
    }
    mm_str text = {0};
    add_piece(&text, tokenizer, id);
    add_fact(table, name, "%s (%d)", mm_str_text(&text), (int)id);
    mm_str_drop(&text);
}

static void print_special(const mm_tokenizer *tokenizer)
{
    mm_out("\nspecial tokens\n");
    for (int32_t id = 0; id < mm_tokenizer_vocab(tokenizer); id++) {
        size_t length = 0;
        bool is_special = false;
        (void)mm_tokenizer_token(tokenizer, id, &length, &is_special);
        if (!is_special) continue;
        mm_str text = {0};
        add_piece(&text, tokenizer, id);
        mm_out("  %5d  %s\n", (int)id, mm_str_text(&text));
        mm_str_drop(&text);
    }
}

static json_t *special_json(const mm_tokenizer *tokenizer)
{
    json_t *list = json_array();
    for (int32_t id = 0; id < mm_tokenizer_vocab(tokenizer); id++) {
        size_t length = 0;
        bool is_special = false;
        const char *text = mm_tokenizer_token(tokenizer, id, &length, &is_special);
        if (is_special)
            json_array_append_new(
                list, json_pack("{s:i, s:o}", "id", (int)id, "text", json_stringn(text, length)));
    }
    return list;
}

static void print_show_json(const mm_tokenizer *tokenizer, const measuring *m)
{
    json_t *object = json_pack(
        "{s:{s:i, s:s, s:i, s:i, s:i, s:o}}", "tokenizer", "vocab_size",
        (int)mm_tokenizer_vocab(tokenizer), "hash", mm_tokenizer_hash(tokenizer), "bos_id",
        (int)mm_tokenizer_bos(tokenizer), "eos_id", (int)mm_tokenizer_eos(tokenizer), "pad_id",
        (int)mm_tokenizer_pad(tokenizer), "special", special_json(tokenizer));
    if (m->tokens > 0)
        json_object_set_new(object, "compression",
                            json_pack("{s:I, s:I, s:I, s:f}", "bytes", (json_int_t)m->bytes,
                                      "characters", (json_int_t)m->characters, "tokens",
                                      (json_int_t)m->tokens, "bytes_per_token",
                                      (double)m->bytes / (double)m->tokens));
    mm_out_json(object);
    json_decref(object);
}

mm_status mm_cmd_tokenizer_show(const mm_context *context, const mm_args *args, mm_err *err)
{
    static const char *const HEADERS[] = {"", ""};
    mm_tokenizer *tokenizer = NULL;
    mm_table *table = NULL;
    measuring m = {0};
    mm_status status = MM_OK;
    size_t n_files;
    const char *const *files = mm_args_list(args, "data", &n_files);
    MM_GO(open_tokenizer(context, args, &tokenizer, err));
    m.tokenizer = tokenizer;
    for (size_t i = 0; i < n_files; i++) {
        mm_row_report report = {0};
        MM_GO(mm_input_texts(files[i], 0, count_text, &m, &report, err));
    }
    if (context->json) {
        print_show_json(tokenizer, &m);
        goto done;
    }
    MM_GO(mm_table_new(&table, HEADERS, 2, err));
    add_fact(table, "vocabulary", "%d", (int)mm_tokenizer_vocab(tokenizer));
    add_fact(table, "hash", "%s", mm_tokenizer_hash(tokenizer));
    add_special_fact(table, tokenizer, "begin of text", mm_tokenizer_bos(tokenizer));
    add_special_fact(table, tokenizer, "end of text", mm_tokenizer_eos(tokenizer));
    add_special_fact(table, tokenizer, "padding", mm_tokenizer_pad(tokenizer));
    if (m.tokens > 0) {
        add_fact(table, "bytes per token", "%.3f", (double)m.bytes / (double)m.tokens);
        add_fact(table, "characters per token", "%.3f", (double)m.characters / (double)m.tokens);
        add_fact(table, "measured on", "%lld bytes, %lld tokens", (long long)m.bytes,
                 (long long)m.tokens);
    }
    mm_table_print(table, context);
    print_special(tokenizer);
done:
    mm_ids_drop(&m.ids);
    mm_tokenizer_free(tokenizer);
    return status;
}
