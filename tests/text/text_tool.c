/* The tokenizer as a filter, so that scripts can compare it with other implementations. Not part of
 * the product. Files are JSONL.
 *
 *   text_tool encode TOKENIZER FILE   lines are strings; prints their ids, a line each
 *   text_tool whole TOKENIZER FILE    the file itself is one text; prints its ids
 *   text_tool split FILE              lines are strings; prints the lengths of their words
 *   text_tool train SIZE FILE DIR     trains on strings, saves into DIR
 *   text_tool render FILE             lines are conversations; prints the texts as JSON strings
 *   text_tool chat TOKENIZER FILE     the same; prints a line of ids and a line of their masks
 *   text_tool template                prints the chat template
 *   text_tool bench TOKENIZER FILE    speed of encoding all strings, best of five
 */
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/text/chat.h"
#include "core/text/split.h"
#include "core/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 30 };

typedef mm_status (*line_function)(void *context, const json_t *line, mm_err *err);

static mm_status for_each_line(const char *path, line_function function, void *context, mm_err *err)
{
    mm_status status = MM_OK;
    char *data = NULL;
    size_t bytes;
    MM_TRY(mm_file_read(path, FILE_BYTES_MAX, &data, &bytes, err));
    const char *at = data;
    while (*at && status == MM_OK) {
        const size_t length = strcspn(at, "\n");
        json_t *line;
        status = mm_json_parse(at, length, path, &line, err);
        if (status == MM_OK) status = function(context, line, err);
        if (status == MM_OK) json_decref(line);
        at += length + (at[length] == '\n');
    }
    mm_free(data);
    return status;
}

static void print_ids(const mm_ids *ids)
{
    for (size_t i = 0; i < ids->count; i++)
        printf(i == 0 ? "%d" : " %d", ids->data[i]);
    printf("\n");
}

static mm_status encode_line(void *context, const json_t *line, mm_err *err)
{
    mm_ids ids = {0};
    MM_TRY(mm_tokenizer_encode(context, json_string_value(line), json_string_length(line),
                               MM_ADDED_PARSE, &ids, err));
    print_ids(&ids);
    mm_ids_drop(&ids);
    return MM_OK;
}

static mm_status encode_whole(const mm_tokenizer *tokenizer, const char *path, mm_err *err)
{
    char *data = NULL;
    size_t bytes;
    mm_ids ids = {0};
    MM_TRY(mm_file_read(path, FILE_BYTES_MAX, &data, &bytes, err));
    const mm_status status = mm_tokenizer_encode(tokenizer, data, bytes, MM_ADDED_PARSE, &ids, err);
    if (status == MM_OK) print_ids(&ids);
    mm_ids_drop(&ids);
    mm_free(data);
    return status;
}

static mm_status split_line(void *context, const json_t *line, mm_err *err)
{
    (void)context;
    (void)err;
    const char *text = json_string_value(line);
    const size_t length = json_string_length(line);
    for (size_t at = 0; at < length;) {
        const size_t word = mm_split_next(text + at, length - at);
        printf("%zu ", word);
        at += word;
    }
    printf("\n");
    return MM_OK;
}

static mm_status feed_line(void *context, const json_t *line, mm_err *err)
{
    return mm_bpe_trainer_feed(context, json_string_value(line), json_string_length(line), err);
}

enum { MESSAGES_MAX = 64 };

/* Renders a conversation as a JSON string or, given a tokenizer, prints its ids and their mask. */
static mm_status render_line(void *context, const json_t *line, mm_err *err)
{
    const mm_tokenizer *tokenizer = context;
    mm_message messages[MESSAGES_MAX];
    const json_t *list = json_object_get(line, "messages");
    size_t count = 0;
    for (; count < json_array_size(list) && count < MESSAGES_MAX; count++) {
        const json_t *message = json_array_get(list, count);
        const char *content = json_string_value(json_object_get(message, "content"));
        messages[count] = (mm_message){
            .role = json_string_value(json_object_get(message, "role")),
            .content = content ? content : "", // what is no string counts as empty
            .reasoning_content = json_string_value(json_object_get(message, "reasoning_content")),
            .tool_calls = json_object_get(message, "tool_calls")};
    }
    const mm_conversation conversation = {
        .messages = messages, .count = count, .tools = json_object_get(line, "tools")};
    const mm_chat_options options = {
        .generation_prompt = json_is_true(json_object_get(line, "add_generation_prompt")),
        .open_thinking = json_is_true(json_object_get(line, "open_thinking"))};
    mm_ids ids = {0};
    mm_str text;
    mm_str_init(&text, 0);
    mm_status status;
    if (tokenizer) {
        MM_GO(mm_chat_encode(tokenizer, &conversation, &options, &ids, &text, err));
        print_ids(&ids);
        for (size_t i = 0; i < text.length; i++)
            printf("%d", text.data[i]);
        printf("\n");
        goto done;
    }
    MM_GO(mm_chat_render(&conversation, &options, &text, err));
    json_t *string = json_stringn(mm_str_text(&text), text.length);
    mm_str_clear(&text);
    mm_json_write(string, &text);
    printf("%s\n", mm_str_text(&text));
    json_decref(string);
done:
    mm_ids_drop(&ids);
    mm_str_drop(&text);
    return status;
}

static mm_status train(const char *size, const char *path, const char *dir, mm_err *err)
{
    mm_bpe_trainer *trainer = NULL;
    mm_tokenizer *tokenizer = NULL;
    mm_status status;
    const int64_t start = mm_mono_ns();
    MM_GO(mm_bpe_trainer_new(&trainer, (int32_t)strtol(size, NULL, 10), err));
    MM_GO(for_each_line(path, feed_line, trainer, err));
    const int64_t fed = mm_mono_ns();
    MM_GO(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, err));
    fprintf(stderr, "fed %.2f s, finished %.2f s\n", (double)(fed - start) * 1e-9,
            (double)(mm_mono_ns() - fed) * 1e-9);
    MM_GO(mm_tokenizer_save(tokenizer, dir, err));
done:
    mm_tokenizer_free(tokenizer);
    mm_bpe_trainer_free(trainer);
    return status;
}

/* All strings of a file one after the other, for the benchmark. */
typedef struct strings {
    mm_str text;
    size_t *ends;
    size_t count;
} strings;

static mm_status keep_line(void *context, const json_t *line, mm_err *err)
{
    strings *all = context;
    mm_str_add_bytes(&all->text, json_string_value(line), json_string_length(line));
    if ((all->count & (all->count + 1)) == 0) {
        size_t *ends = mm_realloc(all->ends, (2 * all->count + 2) * sizeof *ends);
        if (!ends) return MM_FAIL(err, MM_ENOMEM, "out of memory");
        all->ends = ends;
    }
    all->ends[all->count++] = all->text.length;
    return mm_str_check(&all->text, err);
}

static mm_status bench(const char *dir, const char *path, mm_err *err)
{
    mm_status status = MM_OK;
    strings all = {0};
    mm_ids ids = {0};
    double best = 1e9;
    mm_tokenizer *tokenizer = NULL;
    MM_GO(for_each_line(path, keep_line, &all, err));
    for (int round = 0; round < 5; round++) {
        MM_GO(mm_tokenizer_load(&tokenizer, dir, err)); // a fresh one: no word is known yet
        ids.count = 0;
        const int64_t start = mm_mono_ns();
        for (size_t i = 0, begin = 0; i < all.count; begin = all.ends[i++])
            MM_GO(mm_tokenizer_encode(tokenizer, mm_str_text(&all.text) + begin,
                                      all.ends[i] - begin, MM_ADDED_PARSE, &ids, err));
        const double seconds = (double)(mm_mono_ns() - start) * 1e-9;
        if (seconds < best) best = seconds;
        mm_tokenizer_free(tokenizer);
        tokenizer = NULL;
    }
    printf("%zu texts, %zu bytes, %zu ids, %.3f s, %.1f MB/s\n", all.count, all.text.length,
           ids.count, best, (double)all.text.length * 1e-6 / best);
done:
    mm_tokenizer_free(tokenizer);
    mm_ids_drop(&ids);
    mm_str_drop(&all.text);
    mm_free(all.ends);
    return status;
}

static mm_status run(int argc, char **argv, mm_err *err)
{
    mm_tokenizer *tokenizer = NULL;
    mm_status status = MM_OK;
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "split") == 0 && argc == 3)
        return for_each_line(argv[2], split_line, NULL, err);
    if (strcmp(command, "render") == 0 && argc == 3)
        return for_each_line(argv[2], render_line, NULL, err);
    if (strcmp(command, "template") == 0) return puts(mm_chat_template_jinja()), MM_OK;
    if (strcmp(command, "train") == 0 && argc == 5) return train(argv[2], argv[3], argv[4], err);
    if (strcmp(command, "bench") == 0 && argc == 4) return bench(argv[2], argv[3], err);
    if (argc != 4) return MM_FAIL(err, MM_EUSAGE, "see the head of text_tool.c");
    MM_GO(mm_tokenizer_load(&tokenizer, argv[2], err));
    if (strcmp(command, "encode") == 0)
        status = for_each_line(argv[3], encode_line, tokenizer, err);
    else if (strcmp(command, "chat") == 0)
        status = for_each_line(argv[3], render_line, tokenizer, err);
    else if (strcmp(command, "whole") == 0)
        status = encode_whole(tokenizer, argv[3], err);
    else
        status = MM_FAIL(err, MM_EUSAGE, "unknown command %s", command);
done:
    mm_tokenizer_free(tokenizer);
    return status;
}

int main(int argc, char **argv)
{
    mm_err err;
    const mm_status status = run(argc, argv, &err);
    if (status != MM_OK) fprintf(stderr, "text_tool: %s\n", err.message);
    return mm_status_exit_code(status);
}
