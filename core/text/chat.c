/* The chat template, rendered natively: the logic of docs/minimind.md.
 *
 * Rendering writes the text and, beside it, what each span of it is: words of the template, in
 * which every added token is one; text of the assistant or the system, in which the tag tokens are
 * (<think>, <tool_call>), since recorded conversations hold them; text of users and tools, in which
 * none is. So nobody can type the end of a turn. The text is then encoded as a whole: spans do not
 * cut words.
 */
#include "core/text/chat.h"

#include "core/base/utf8.h"
#include "core/text/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH_MAX = 128 };

static const char *const MASK_NAMES[] = {[MM_MASK_ANSWERS] = "all-answers",
                                         [MM_MASK_LAST_ANSWER] = "last-answer",
                                         [MM_MASK_WITH_SYSTEM] = "with-system",
                                         [MM_MASK_ALL] = "all"};
enum { MASKS = sizeof MASK_NAMES / sizeof MASK_NAMES[0] };

static const char THINK_OPEN[] = "<think>";
static const char THINK_CLOSE[] = "</think>";

/* The preamble of a system turn with tools, around the list of tools. */
#define TOOLS_HEAD                                                                                 \
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"             \
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
#define TOOLS_TAIL                                                                                 \
    "\n</tools>\n\nFor each function call, return a json object with function name and "           \
    "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"                            \
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>"

typedef struct slice {
    const char *text;
    size_t length;
} slice;

/* A stretch of the text that is learned. */
typedef struct learned_range {
    size_t begin;
    size_t end;
} learned_range;

/* What rendering makes. With `text` alone set, spans are not kept. */
typedef struct rendering {
    mm_str *text;
    size_t text_start; /* length of *text before; offsets below count from there */
    mm_mask_kind mask;
    mm_str guards;  /* mm_guard[] as bytes */
    mm_str learned; /* learned_range[] as bytes, in the order of the text */
} rendering;

mm_status mm_mask_kind_parse(const char *name, mm_mask_kind *out, mm_err *err)
{
    for (int i = 0; i < MASKS; i++) {
        if (strcmp(name, MASK_NAMES[i]) != 0) continue;
        *out = (mm_mask_kind)i;
        return MM_OK;
    }
    return MM_FAIL(err, MM_EUSAGE, "unknown mask \"%.40s\"; expected one of: " MM_MASK_KINDS, name);
}

const char *mm_mask_kind_name(mm_mask_kind mask)
{
    MM_ASSERT((int)mask >= 0 && (int)mask < MASKS);
    return MASK_NAMES[mask];
}

/* Marks everything up to the end of the text, since the last mark, as being of this level. */
static void mark(rendering *out, mm_guard_level level)
{
    const size_t end = out->text->length - out->text_start;
    const size_t count = out->guards.length / sizeof(mm_guard);
    mm_guard *last = count > 0 ? (mm_guard *)(void *)out->guards.data + count - 1 : NULL;
    if (end == (last ? last->end : 0)) return;
    if (last && last->level == level) {
        last->end = end;
    } else {
        const mm_guard guard = {.end = end, .level = level};
        mm_str_add_bytes(&out->guards, &guard, sizeof guard);
    }
}

/* Words of the template. */
static void put(rendering *out, const char *text)
{
    mm_str_add(out->text, text);
    mark(out, MM_GUARD_ALL);
}

static void put_slice(rendering *out, slice content, mm_guard_level level)
{
    mm_str_add_bytes(out->text, content.text, content.length);
    mark(out, level);
}

/* Everything from `begin` to the end of the text is learned. */
static void learn_from(rendering *out, size_t begin)
{
    const learned_range range = {.begin = begin, .end = out->text->length - out->text_start};
    mm_str_add_bytes(&out->learned, &range, sizeof range);
}

static void end_system_turn(rendering *out, size_t begin)
{
    put(out, "<|im_end|>\n");
    if (out->mask == MM_MASK_WITH_SYSTEM) learn_from(out, begin);
}

static slice slice_of(const char *text) { return (slice){.text = text, .length = strlen(text)}; }

static slice trim_newlines(slice s, bool at_start, bool at_end)
{
    while (at_start && s.length > 0 && s.text[0] == '\n') {
        s.text++;
        s.length--;
    }
    while (at_end && s.length > 0 && s.text[s.length - 1] == '\n')
        s.length--;
    return s;
}

/* What stands after the last `mark_text` of s; all of s if there is none. */
static slice after_last(slice s, const char *mark_text)
{
    const size_t length = strlen(mark_text);
    for (size_t at = s.length; at >= length; at--) {
        if (memcmp(s.text + at - length, mark_text, length) == 0)
            return (slice){.text = s.text + at, .length = s.length - at};
    }
    return s;
}

/* A float as Python's repr writes it: the fewest digits that read back equal, and an exponent
 * outside 1e-4 .. 1e16. */
static void put_real(mm_str *out, double value)
{
    char digits[40];
    for (int precision = 0; precision <= 16; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, value);
        const double back = strtod(digits, NULL);
        if (memcmp(&back, &value, sizeof back) == 0) break;
    }
    // digits is [-]d[.ddd]e[+-]xx
    const bool is_negative = digits[0] == '-';
    char *mantissa = digits + is_negative;
    char *exponent_text = strchr(mantissa, 'e');
    const int exponent = (int)strtol(exponent_text + 1, NULL, 10);
    *exponent_text = '\0';
    if (is_negative) mm_str_add_char(out, '-');
    if (exponent < -4 || exponent >= 16) {
        mm_str_addf(out, "%se%c%02d", mantissa, exponent < 0 ? '-' : '+',
                    exponent < 0 ? -exponent : exponent);
        return;
    }
    if (mantissa[1] == '.') memmove(mantissa + 1, mantissa + 2, strlen(mantissa + 1));
    const int n_digits = (int)strlen(mantissa);
    if (exponent < 0) {
        mm_str_addf(out, "0.%.*s%s", -exponent - 1, "000", mantissa);
    } else if (n_digits <= exponent + 1) {
        mm_str_addf(out, "%s%.*s.0", mantissa, exponent + 1 - n_digits, "0000000000000000");
    } else {
        mm_str_addf(out, "%.*s.%s", exponent + 1, mantissa, mantissa + exponent + 1);
    }
}

/* JSON as Python's json.dumps(ensure_ascii=False) writes it: ", " and ": ", key order kept. */
static mm_status put_json(mm_str *out, const json_t *value, int depth, mm_err *err)
{
    if (depth > JSON_DEPTH_MAX)
        return MM_FAIL(err, MM_ELIMIT, "JSON is nested more than %d deep", JSON_DEPTH_MAX);
    const char *key;
    json_t *item;
    size_t index;
    bool is_first = true;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        mm_str_add_char(out, '{');
        json_object_foreach((json_t *)(uintptr_t)value, key, item)
        {
            if (!is_first) mm_str_add(out, ", ");
            is_first = false;
            mm_text_add_json_string(out, key, strlen(key));
            mm_str_add(out, ": ");
            MM_TRY(put_json(out, item, depth + 1, err));
        }
        mm_str_add_char(out, '}');
        break;
    case JSON_ARRAY:
        mm_str_add_char(out, '[');
        json_array_foreach(value, index, item)
        {
            if (index > 0) mm_str_add(out, ", ");
            MM_TRY(put_json(out, item, depth + 1, err));
        }
        mm_str_add_char(out, ']');
        break;
    case JSON_STRING:
        mm_text_add_json_string(out, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        mm_str_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        put_real(out, json_real_value(value));
        break;
    default:
        mm_str_add(out, json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null");
    }
    return MM_OK;
}

static mm_status render_head(rendering *out, const mm_conversation *conversation, mm_err *err)
{
    const mm_message *first = &conversation->messages[0];
    const bool has_system = strcmp(first->role, "system") == 0;
    const size_t n_tools = json_array_size(conversation->tools);
    if (n_tools == 0 && !has_system) return MM_OK;
    put(out, "<|im_start|>system\n");
    const size_t begin = out->text->length - out->text_start;
    if (has_system) put_slice(out, slice_of(first->content), MM_GUARD_TAGS);
    if (n_tools > 0) {
        put(out, has_system ? "\n\n" : "");
        put(out, TOOLS_HEAD);
        for (size_t i = 0; i < n_tools; i++) {
            put(out, "\n");
            MM_TRY(put_json(out->text, json_array_get(conversation->tools, i), 0, err));
            mark(out, MM_GUARD_TEXT);
        }
        put(out, TOOLS_TAIL);
    }
    end_system_turn(out, begin);
    return MM_OK;
}

static mm_status render_tool_calls(rendering *out, const json_t *calls, bool has_content,
                                   mm_err *err)
{
    if (calls && !json_is_array(calls))
        return MM_FAIL(err, MM_EFORMAT, "tool_calls: expected an array");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        const json_t *function = json_object_get(call, "function");
        if (json_object_size(function) > 0) call = function; // OpenAI wraps it
        const char *name = json_string_value(json_object_get(call, "name"));
        const json_t *arguments = json_object_get(call, "arguments");
        if (!name) return MM_FAIL(err, MM_EFORMAT, "tool_calls[%zu].name: expected a string", i);
        if (!arguments)
            return MM_FAIL(err, MM_EFORMAT, "tool_calls[%zu].arguments: this field is missing", i);
        put(out,
            i > 0 || has_content ? "\n<tool_call>\n{\"name\": \"" : "<tool_call>\n{\"name\": \"");
        put_slice(out, slice_of(name), MM_GUARD_TEXT);
        put(out, "\", \"arguments\": ");
        if (json_is_string(arguments))
            mm_str_add_bytes(out->text, json_string_value(arguments),
                             json_string_length(arguments));
        else
            MM_TRY(put_json(out->text, arguments, 0, err));
        mark(out, MM_GUARD_TEXT);
        put(out, "}\n</tool_call>");
    }
    return MM_OK;
}

/* What an assistant turn says and what it thought before, by the rules of the template. */
typedef struct assistant_parts {
    slice content;
    slice reasoning;
} assistant_parts;

static assistant_parts part_assistant(const mm_message *message)
{
    assistant_parts parts = {.content = slice_of(message->content),
                             .reasoning = {.text = "", .length = 0}};
    const char *close = strstr(message->content, THINK_CLOSE);
    if (message->reasoning_content) {
        parts.reasoning = slice_of(message->reasoning_content);
    } else if (close) {
        parts.reasoning.text = message->content;
        parts.reasoning.length = (size_t)(close - message->content);
        parts.reasoning = after_last(trim_newlines(parts.reasoning, false, true), THINK_OPEN);
        parts.content = trim_newlines(after_last(parts.content, THINK_CLOSE), true, false);
    }
    parts.reasoning = trim_newlines(parts.reasoning, true, true);
    return parts;
}

bool mm_chat_has_empty_think(const mm_conversation *conversation)
{
    for (size_t i = 0; i < conversation->count; i++) {
        const mm_message *message = &conversation->messages[i];
        if (strcmp(message->role, "assistant") == 0 &&
            part_assistant(message).reasoning.length == 0)
            return true;
    }
    return false;
}

static mm_status render_assistant(rendering *out, const mm_message *message,
                                  const mm_chat_options *options, mm_err *err)
{
    const assistant_parts parts = part_assistant(message);
    const slice reasoning = parts.reasoning;
    const slice content = parts.content;
    const bool has_content = content.length > 0; // before its leading newlines go

    put(out, "<|im_start|>assistant\n");
    const size_t begin = out->text->length - out->text_start;
    if (reasoning.length > 0 || !options->drop_empty_think) {
        put(out, "<think>\n");
        put_slice(out, reasoning, MM_GUARD_TAGS);
        put(out, "\n</think>\n\n");
    }
    put_slice(out, trim_newlines(content, true, false), MM_GUARD_TAGS);
    MM_TRY(render_tool_calls(out, message->tool_calls, has_content, err));
    put(out, "<|im_end|>\n");
    if (out->mask == MM_MASK_LAST_ANSWER) mm_str_clear(&out->learned);
    learn_from(out, begin);
    return MM_OK;
}

static mm_status render_message(rendering *out, const mm_conversation *conversation, size_t index,
                                const mm_chat_options *options, mm_err *err)
{
    const mm_message *messages = conversation->messages;
    const mm_message *message = &messages[index];
    const bool is_system = strcmp(message->role, "system") == 0;
    if (is_system && index == 0) return MM_OK; // in the head already
    if (strcmp(message->role, "assistant") == 0)
        return render_assistant(out, message, options, err);
    if (strcmp(message->role, "tool") == 0) {
        const bool is_first = index == 0 || strcmp(messages[index - 1].role, "tool") != 0;
        const bool is_last =
            index + 1 == conversation->count || strcmp(messages[index + 1].role, "tool") != 0;
        if (is_first) put(out, "<|im_start|>user");
        put(out, "\n<tool_response>\n");
        put_slice(out, slice_of(message->content), MM_GUARD_TEXT);
        put(out, "\n</tool_response>");
        if (is_last) put(out, "<|im_end|>\n");
        return MM_OK;
    }
    put(out, is_system ? "<|im_start|>system\n" : "<|im_start|>user\n");
    const size_t begin = out->text->length - out->text_start;
    put_slice(out, slice_of(message->content), is_system ? MM_GUARD_TAGS : MM_GUARD_TEXT);
    if (is_system)
        end_system_turn(out, begin);
    else
        put(out, "<|im_end|>\n");
    return MM_OK;
}

static mm_status check_utf8(const char *text, const char *field, mm_err *err)
{
    const size_t length = text ? strlen(text) : 0;
    const size_t valid = text ? mm_utf8_valid(text, length) : 0;
    if (valid == length) return MM_OK;
    return MM_FAIL(err, MM_EFORMAT, "%s: invalid UTF-8 at byte %zu", field, valid);
}

static mm_status check_message(const mm_message *message, mm_err *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    size_t i = 0;
    while (i < 4 && strcmp(message->role, roles[i]) != 0)
        i++;
    if (i == 4)
        return MM_FAIL(err, MM_EFORMAT,
                       "role: expected system, user, assistant or tool, found \"%.32s\"",
                       mm_utf8_valid(message->role, strlen(message->role)) == strlen(message->role)
                           ? message->role
                           : "?");
    MM_TRY(check_utf8(message->content, "content", err));
    return check_utf8(message->reasoning_content, "reasoning_content", err);
}

static mm_status render(rendering *out, const mm_conversation *conversation,
                        const mm_chat_options *options, mm_err *err)
{
    static const mm_chat_options plain = {0};
    if (!options) options = &plain;
    out->mask = options->mask;
    if (conversation->count == 0)
        return MM_FAIL(err, MM_EFORMAT, "a conversation without messages");
    if (conversation->tools && !json_is_array(conversation->tools))
        return MM_FAIL(err, MM_EFORMAT, "tools: expected an array");
    for (size_t i = 0; i < conversation->count; i++) {
        const mm_status status = check_message(&conversation->messages[i], err);
        if (status != MM_OK) {
            mm_err_context(err, "messages[%zu]", i);
            return status;
        }
    }
    MM_TRY(render_head(out, conversation, err));
    for (size_t i = 0; i < conversation->count; i++) {
        const mm_status status = render_message(out, conversation, i, options, err);
        if (status != MM_OK) {
            mm_err_context(err, "messages[%zu]", i);
            return status;
        }
    }
    if (options->generation_prompt) {
        put(out, "<|im_start|>assistant\n<think>\n");
        if (!options->open_thinking) put(out, "\n</think>\n\n");
    }
    if (out->mask == MM_MASK_ALL) {
        mm_str_clear(&out->learned);
        learn_from(out, 0);
    }
    MM_TRY(mm_str_check(out->text, err));
    MM_TRY(mm_str_check(&out->guards, err));
    return mm_str_check(&out->learned, err);
}

static void rendering_drop(rendering *out)
{
    mm_str_drop(&out->learned);
    mm_str_drop(&out->guards);
}

mm_status mm_chat_render(const mm_conversation *conversation, const mm_chat_options *options,
                         mm_str *out, mm_err *err)
{
    rendering result = {.text = out, .text_start = out->length};
    const mm_status status = render(&result, conversation, options, err);
    rendering_drop(&result);
    return status;
}

/* One byte per id from `first_id` on: whether the id starts inside a learned range. An id that
 * begins before the range, as a newline merged with the spaces after it, belongs to the template.
 */
static void add_mask(const mm_tokenizer *tokenizer, const rendering *result, const mm_ids *ids,
                     size_t first_id, mm_str *mask)
{
    const learned_range *ranges = (const learned_range *)(const void *)result->learned.data;
    const size_t n_ranges = result->learned.length / sizeof *ranges;
    size_t range = 0;
    size_t at = 0;
    for (size_t i = first_id; i < ids->count; i++) {
        while (range < n_ranges && ranges[range].end <= at)
            range++;
        mm_str_add_char(mask, range < n_ranges && at >= ranges[range].begin ? 1 : 0);
        at += tokenizer->tokens[ids->data[i]].n_bytes;
    }
}

mm_status mm_chat_encode_text(const mm_tokenizer *tokenizer, const mm_conversation *conversation,
                              const mm_chat_options *options, mm_str *text, mm_ids *ids,
                              mm_str *mask, mm_err *err)
{
    rendering result = {.text = text, .text_start = text->length};
    const size_t first_id = ids->count;
    mm_status status = MM_OK;
    MM_GO(render(&result, conversation, options, err));
    const size_t length = text->length - result.text_start;
    if (length > 0)
        MM_GO(mm_tokenizer_encode_guarded(tokenizer, text->data + result.text_start, length,
                                          (const mm_guard *)(const void *)result.guards.data,
                                          result.guards.length / sizeof(mm_guard), ids, err));
    if (mask) {
        add_mask(tokenizer, &result, ids, first_id, mask);
        MM_GO(mm_str_check(mask, err));
    }
done:
    rendering_drop(&result);
    return status;
}

mm_status mm_chat_encode(const mm_tokenizer *tokenizer, const mm_conversation *conversation,
                         const mm_chat_options *options, mm_ids *ids, mm_str *mask, mm_err *err)
{
    mm_str text = {0};
    const mm_status status =
        mm_chat_encode_text(tokenizer, conversation, options, &text, ids, mask, err);
    mm_str_drop(&text);
    return status;
}
