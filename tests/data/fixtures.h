/* What the tests of core/data share: files with given content, a small trained tokenizer, rows
 * written as one line of text. */
#ifndef MM_TESTS_DATA_FIXTURES_H
#define MM_TESTS_DATA_FIXTURES_H

#include "tests/base/check.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/data/batch.h"
#include "core/data/synth.h"

#include <zlib.h>
#include <zstd.h>

/* "dir/name"; freed by the caller. */
static inline char *path_in(const char *dir, const char *name)
{
    char *path;
    assert_int_equal(mm_path_join(&path, dir, name, NULL), MM_OK);
    return path;
}

static inline void write_bytes(const char *path, const void *data, size_t bytes)
{
    mm_err err = {0};
    if (mm_file_write_atomic(path, data, bytes, &err) != MM_OK) fail_msg("%s", err.message);
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

/* Fails the test with the message when a call failed. */
#define CHECK_OK(expr)                                                                             \
    do {                                                                                           \
        mm_err check_err_ = {0};                                                                   \
        mm_err *const ok_err = &check_err_;                                                        \
        if ((expr) != MM_OK) fail_msg("%s: %s", #expr, check_err_.message);                        \
    } while (0)

/* Trained on synthetic rows, once per program. */
static inline mm_tokenizer *small_tokenizer(int32_t vocab)
{
    mm_bpe_trainer *trainer;
    mm_tokenizer *tokenizer;
    CHECK_OK(mm_bpe_trainer_new(&trainer, vocab, ok_err));
    const mm_synth_options options = {.kind = MM_SYNTH_PRETRAIN, .seed = 1, .rows = 200};
    mm_str row = {0};
    for (int64_t i = 0; i < options.rows; i++) {
        json_t *json;
        mm_str_clear(&row);
        mm_synth_row(&options, i, &row);
        CHECK_OK(mm_json_parse(row.data, row.length, "row", &json, ok_err));
        const char *text = json_string_value(json_object_get(json, "text"));
        CHECK_OK(mm_bpe_trainer_feed(trainer, text, strlen(text), ok_err));
        json_decref(json);
    }
    CHECK_OK(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, ok_err));
    mm_bpe_trainer_free(trainer);
    mm_str_drop(&row);
    return tokenizer;
}

static inline void describe_chat(const mm_conversation *chat, mm_str *out)
{
    for (size_t i = 0; i < chat->count; i++) {
        const mm_message *message = &chat->messages[i];
        mm_str_addf(out, "%s%c:%s", i ? " " : "", message->role[0], message->content);
        if (message->reasoning_content) mm_str_addf(out, "(%s)", message->reasoning_content);
        if (message->tool_calls) {
            mm_str_add(out, "!");
            mm_json_write(message->tool_calls, out);
        }
    }
    if (chat->tools) {
        mm_str_add(out, " #");
        mm_json_write(chat->tools, out);
    }
}

/* One line per row: "3 text", "1 u:question a:answer", "2 u:q a:good / u:q a:bad". */
static inline void describe_row(const mm_row *row, mm_str *out)
{
    mm_str_addf(out, "%lld ", (long long)row->line);
    if (row->kind == MM_ROW_TEXT) mm_str_add_bytes(out, row->text, row->text_bytes);
    if (row->kind != MM_ROW_TEXT) describe_chat(&row->chat, out);
    if (row->kind == MM_ROW_PAIR) {
        mm_str_add(out, " / ");
        describe_chat(&row->rejected, out);
    }
    if (row->gt) {
        mm_str_add(out, " =");
        mm_json_write(row->gt, out);
    }
    mm_str_add(out, "\n");
}

/* Appends the text as one gzip member or zstd frame. */
static inline void gzip_to(mm_str *out, const char *text, size_t bytes)
{
    unsigned char buffer[4096];
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (unsigned char *)(uintptr_t)text;
    stream.avail_in = (unsigned)bytes;
    int code;
    do {
        stream.next_out = buffer;
        stream.avail_out = sizeof buffer;
        code = deflate(&stream, Z_FINISH);
        mm_str_add_bytes(out, buffer, sizeof buffer - stream.avail_out);
    } while (code == Z_OK);
    assert_int_equal(code, Z_STREAM_END);
    deflateEnd(&stream);
}

static inline void zstd_to(mm_str *out, const char *text, size_t bytes)
{
    const size_t bound = ZSTD_compressBound(bytes);
    char *buffer = mm_alloc(bound);
    // With a checksum, as the zstd program writes it.
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    const size_t used = ZSTD_compress2(context, buffer, bound, text, bytes);
    assert_false(ZSTD_isError(used));
    mm_str_add_bytes(out, buffer, used);
    ZSTD_freeCCtx(context);
    mm_free(buffer);
}

/* Path of a file of the shared real data; skips the test when it is missing. */
static inline char *shared_file(const char *name)
{
    char *path = path_in(MM_SHARED_DATA, name);
    if (!mm_file_exists(path)) {
        print_message("skipped: %s is not there\n", path);
        mm_free(path);
        skip();
    }
    return path;
}

#endif
