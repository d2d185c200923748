/* From one JSON object to one normalised row. Every reader below returns MM_EFORMAT for a bad row,
 * with the reason in the builder; other failures are real errors. Strings that have to be put
 * together (Alpaca's instruction and input, tools inside strings) become JSON values owned by
 * builder->made, so one list frees them all. */
#include "core/data/rows_shape.h"

#include "core/base/json.h"
#include "core/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

mm_status mm_shape_bad(mm_row_builder *builder, mm_bad_reason reason, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    // The detail goes to terminals and pages: whole code points, no control characters.
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = ' ';
    size_t bytes = mm_utf8_valid(text, strlen(text));
    if (bytes >= sizeof builder->detail) bytes = mm_utf8_valid(text, sizeof builder->detail - 1);
    memcpy(builder->detail, text, bytes);
    builder->detail[bytes] = '\0';
    builder->reason = reason;
    return MM_EFORMAT;
}

static mm_status no_memory(mm_err *err) { return MM_FAIL(err, MM_ENOMEM, "no memory for a row"); }

static bool has(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value);
}

mm_row_format mm_shape_of(const json_t *object)
{
    if (!json_is_object(object)) return MM_ROWS_AUTO;
    const json_t *turns = json_object_get(object, "conversations");
    if (!turns) turns = json_object_get(object, "messages");
    if (has(object, "chosen") && has(object, "rejected")) {
        if (turns || has(object, "prompt") || has(object, "instruction")) return MM_ROWS_TRIPLE;
        return MM_ROWS_PREFERENCE;
    }
    if (json_is_array(turns) && json_array_size(turns) > 0)
        return has(json_array_get(turns, 0), "from") ? MM_ROWS_SHAREGPT : MM_ROWS_CONVERSATIONS;
    if (has(object, "instruction") && has(object, "output")) return MM_ROWS_ALPACA;
    if (has(object, "prompt") && has(object, "completion")) return MM_ROWS_PROMPT;
    if (json_object_get(object, "text")) return MM_ROWS_TEXT;
    return MM_ROWS_AUTO;
}

static mm_status add_message(mm_message_list *list, mm_message message, mm_err *err)
{
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        const size_t bytes = capacity * sizeof *list->data;
        mm_message *data = list->data ? mm_realloc(list->data, bytes) : mm_alloc(bytes);
        if (!data) return no_memory(err);
        list->data = data;
        list->capacity = capacity;
    }
    list->data[list->count++] = message;
    return MM_OK;
}

// Hands the reference to the builder.
static mm_status keep(mm_row_builder *builder, json_t *value, mm_err *err)
{
    if (!value) return no_memory(err);
    if (!builder->made) builder->made = json_array();
    if (!builder->made) {
        json_decref(value);
        return no_memory(err);
    }
    return json_array_append_new(builder->made, value) == 0 ? MM_OK : no_memory(err);
}

// A string field; *text is NULL when it is absent or null.
static mm_status optional_text(mm_row_builder *builder, const json_t *object, const char *key,
                               const char **text)
{
    *text = NULL;
    if (!has(object, key)) return MM_OK;
    *text = json_string_value(json_object_get(object, key));
    if (*text) return MM_OK;
    return mm_shape_bad(builder, MM_BAD_FIELD, "\"%s\" is not a string", key);
}

static mm_status required_text(mm_row_builder *builder, const json_t *object, const char *key,
                               const char **text)
{
    const char *found;
    *text = ""; // never nothing, also when the row is bad
    MM_TRY(optional_text(builder, object, key, &found));
    if (!found) return mm_shape_bad(builder, MM_BAD_FIELD, "no \"%s\"", key);
    *text = found;
    return MM_OK;
}

static bool is_blank(const char *text) { return text[strspn(text, " \t\r\n")] == '\0'; }

/* A list of objects that may stand there as JSON, as one object, or as JSON text inside a string;
 * *list is NULL when there is none. */
static mm_status list_field(mm_row_builder *builder, const json_t *value, const char *key,
                            const json_t **list, mm_err *err)
{
    *list = NULL;
    if (!value || json_is_null(value)) return MM_OK;
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        if (is_blank(text)) return MM_OK;
        json_t *parsed;
        mm_err detail = {0};
        const mm_status status =
            mm_json_parse(text, json_string_length(value), key, &parsed, &detail);
        if (status == MM_EFORMAT) return mm_shape_bad(builder, MM_BAD_FIELD, "%s", detail.message);
        if (status != MM_OK) return no_memory(err);
        MM_TRY(keep(builder, parsed, err));
        value = parsed;
    }
    if (json_is_object(value)) {
        json_t *wrapped = json_array();
        MM_TRY(keep(builder, wrapped, err));
        // The list holds a new reference; the object itself is not changed.
        if (json_array_append(wrapped, (json_t *)(uintptr_t)value) != 0) return no_memory(err);
        value = wrapped;
    }
    if (json_is_null(value)) return MM_OK;
    if (!json_is_array(value))
        return mm_shape_bad(builder, MM_BAD_FIELD, "\"%s\" is not a list", key);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_is_object(json_array_get(value, i)))
            return mm_shape_bad(builder, MM_BAD_FIELD, "\"%s\": entry %zu is not an object", key,
                                i + 1);
    if (json_array_size(value) > 0) *list = value;
    return MM_OK;
}

static mm_status read_tools(mm_row_builder *builder, const json_t *object, mm_err *err)
{
    const json_t *tools;
    MM_TRY(list_field(builder, json_object_get(object, "tools"), "tools", &tools, err));
    if (tools) builder->tools = tools;
    return MM_OK;
}

// A turn of ShareGPT: {"from", "value"}.
static mm_status add_sharegpt_turn(mm_row_builder *builder, mm_message_list *list,
                                   const json_t *turn, mm_err *err)
{
    static const struct {
        const char *from;
        const char *role;
    } ROLES[] = {{"human", "user"},       {"gpt", "assistant"}, {"system", "system"},
                 {"observation", "tool"}, {"user", "user"},     {"assistant", "assistant"},
                 {"tool", "tool"}};
    const char *from;
    mm_message message = {0};
    MM_TRY(required_text(builder, turn, "from", &from));
    MM_TRY(required_text(builder, turn, "value", &message.content));
    if (strcmp(from, "function_call") == 0) {
        message.role = "assistant";
        MM_TRY(list_field(builder, json_object_get(turn, "value"), "function_call",
                          &message.tool_calls, err));
        message.content = "";
        return add_message(list, message, err);
    }
    for (size_t i = 0; i < sizeof ROLES / sizeof ROLES[0]; i++)
        if (strcmp(from, ROLES[i].from) == 0) message.role = ROLES[i].role;
    if (!message.role)
        return mm_shape_bad(builder, MM_BAD_ROLE,
                            "\"%.40s\" (expected human, gpt, system, function_call or observation)",
                            from);
    return add_message(list, message, err);
}

static mm_status read_role(mm_row_builder *builder, const json_t *turn, const char **role)
{
    static const char *const ROLES[] = {"system", "user", "assistant", "tool"};
    const char *found;
    MM_TRY(required_text(builder, turn, "role", &found));
    for (size_t i = 0; i < sizeof ROLES / sizeof ROLES[0]; i++) {
        if (strcmp(found, ROLES[i]) == 0) {
            *role = ROLES[i];
            return MM_OK;
        }
    }
    return mm_shape_bad(builder, MM_BAD_ROLE,
                        "\"%.40s\" (expected system, user, assistant or tool)", found);
}

/* A turn of MiniMind and OpenAI: {"role", "content"} and the optional fields. `default_role` stands
 * in where the row has no roles at all. */
static mm_status add_turn(mm_row_builder *builder, mm_message_list *list, const json_t *turn,
                          const char *default_role, mm_err *err)
{
    if (!json_is_object(turn))
        return mm_shape_bad(builder, MM_BAD_FIELD, "message %zu is not an object", list->count + 1);
    if (has(turn, "from")) return add_sharegpt_turn(builder, list, turn, err);
    mm_message message = {.role = default_role};
    if (!default_role) MM_TRY(read_role(builder, turn, &message.role));
    MM_TRY(list_field(builder, json_object_get(turn, "tool_calls"), "tool_calls",
                      &message.tool_calls, err));
    MM_TRY(optional_text(builder, turn, "reasoning_content", &message.reasoning_content));
    // OpenAI's files leave the content null where the turn is a call.
    if (message.tool_calls)
        MM_TRY(optional_text(builder, turn, "content", &message.content));
    else
        MM_TRY(required_text(builder, turn, "content", &message.content));
    if (!message.content) message.content = "";
    MM_TRY(read_tools(builder, turn, err));
    return add_message(list, message, err);
}

static mm_status add_turns(mm_row_builder *builder, mm_message_list *list, const json_t *turns,
                           const char *key, mm_err *err)
{
    if (!json_is_array(turns))
        return mm_shape_bad(builder, MM_BAD_FIELD, "\"%s\" is not a list", key);
    // MiniMind's second version wrote rows without roles: user and assistant take turns.
    bool has_roles = false;
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const json_t *turn = json_array_get(turns, i);
        has_roles = has_roles || has(turn, "role") || has(turn, "from");
    }
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const char *role = has_roles ? NULL : i % 2 == 0 ? "user" : "assistant";
        MM_TRY(add_turn(builder, list, json_array_get(turns, i), role, err));
    }
    return MM_OK;
}

static mm_status add_text(mm_message_list *list, const char *role, const char *text, mm_err *err)
{
    return add_message(list, (mm_message){.role = role, .content = text}, err);
}

/* What somebody said, as a string, a message or a list of messages. */
static mm_status add_side(mm_row_builder *builder, mm_message_list *list, const json_t *object,
                          const char *key, const char *role, mm_err *err)
{
    const json_t *side = json_object_get(object, key);
    if (!side || json_is_null(side)) return mm_shape_bad(builder, MM_BAD_FIELD, "no \"%s\"", key);
    if (json_is_string(side)) return add_text(list, role, json_string_value(side), err);
    if (json_is_object(side)) return add_turn(builder, list, side, NULL, err);
    if (json_is_array(side)) return add_turns(builder, list, side, key, err);
    return mm_shape_bad(builder, MM_BAD_FIELD, "\"%s\" is neither text nor messages", key);
}

// A top-level "system" goes in front, unless the conversation brings its own.
static mm_status put_system_first(mm_row_builder *builder, mm_message_list *list,
                                  const json_t *object, mm_err *err)
{
    const char *text;
    MM_TRY(optional_text(builder, object, "system", &text));
    if (!text || is_blank(text)) return MM_OK;
    if (list->count > 0 && strcmp(list->data[0].role, "system") == 0) return MM_OK;
    MM_TRY(add_text(list, "system", text, err));
    const mm_message system = list->data[list->count - 1];
    memmove(list->data + 1, list->data, (list->count - 1) * sizeof *list->data);
    list->data[0] = system;
    return MM_OK;
}

static const json_t *turns_of(const json_t *object, const char **key)
{
    *key = has(object, "conversations") || !has(object, "messages") ? "conversations" : "messages";
    return json_object_get(object, *key);
}

static mm_status add_conversation(mm_row_builder *builder, mm_message_list *list,
                                  const json_t *object, mm_err *err)
{
    const char *key;
    const json_t *turns = turns_of(object, &key);
    if (!turns) return mm_shape_bad(builder, MM_BAD_FIELD, "no \"conversations\" or \"messages\"");
    MM_TRY(add_turns(builder, list, turns, key, err));
    MM_TRY(put_system_first(builder, list, object, err));
    return read_tools(builder, object, err);
}

// Alpaca's question: history, instruction, and the input on a new line.
static mm_status add_instruction(mm_row_builder *builder, mm_message_list *list,
                                 const json_t *object, mm_err *err)
{
    const char *instruction;
    const char *input;
    MM_TRY(required_text(builder, object, "instruction", &instruction));
    MM_TRY(optional_text(builder, object, "input", &input));
    const json_t *history = json_object_get(object, "history");
    if (history && !json_is_null(history) && !json_is_array(history))
        return mm_shape_bad(builder, MM_BAD_FIELD, "\"history\" is not a list");
    for (size_t i = 0; i < json_array_size(history); i++) {
        const json_t *pair = json_array_get(history, i);
        const char *question = json_string_value(json_array_get(pair, 0));
        const char *answer = json_string_value(json_array_get(pair, 1));
        if (!question || !answer || json_array_size(pair) != 2)
            return mm_shape_bad(builder, MM_BAD_FIELD, "\"history\": entry %zu is not two strings",
                                i + 1);
        MM_TRY(add_text(list, "user", question, err));
        MM_TRY(add_text(list, "assistant", answer, err));
    }
    if (input && !is_blank(input) && !is_blank(instruction)) {
        json_t *joined = json_sprintf("%s\n%s", instruction, input);
        MM_TRY(keep(builder, joined, err));
        instruction = json_string_value(joined);
    } else if (input && !is_blank(input)) {
        instruction = input;
    }
    if (is_blank(instruction))
        return mm_shape_bad(builder, MM_BAD_EMPTY, "\"instruction\" is empty");
    MM_TRY(add_text(list, "user", instruction, err));
    return put_system_first(builder, list, object, err);
}

static bool is_empty_message(const mm_message *message)
{
    return is_blank(message->content) && !message->tool_calls &&
           (!message->reasoning_content || is_blank(message->reasoning_content));
}

static mm_status check_not_empty(mm_row_builder *builder, const mm_message_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (!is_empty_message(&list->data[i])) return MM_OK;
    return mm_shape_bad(builder, MM_BAD_EMPTY,
                        list->count ? "all messages are empty" : "no messages");
}

static mm_status build_text(mm_row_builder *builder)
{
    mm_row *row = &builder->row;
    row->kind = MM_ROW_TEXT;
    MM_TRY(required_text(builder, builder->root, "text", &row->text));
    row->text_bytes = json_string_length(json_object_get(builder->root, "text"));
    if (is_blank(row->text)) return mm_shape_bad(builder, MM_BAD_EMPTY, "\"text\" is empty");
    return MM_OK;
}

static mm_status build_chat(mm_row_builder *builder, mm_row_format format, mm_err *err)
{
    mm_message_list *list = &builder->chosen;
    const json_t *root = builder->root;
    builder->row.kind = MM_ROW_CHAT;
    if (format == MM_ROWS_ALPACA) {
        MM_TRY(add_instruction(builder, list, root, err));
        const char *output;
        MM_TRY(required_text(builder, root, "output", &output));
        if (is_blank(output)) return mm_shape_bad(builder, MM_BAD_EMPTY, "\"output\" is empty");
        return add_text(list, "assistant", output, err);
    }
    if (format == MM_ROWS_PROMPT) {
        MM_TRY(add_side(builder, list, root, "prompt", "user", err));
        const size_t prompt = list->count;
        MM_TRY(add_side(builder, list, root, "completion", "assistant", err));
        if (list->count == prompt || is_empty_message(&list->data[prompt]))
            return mm_shape_bad(builder, MM_BAD_EMPTY, "\"completion\" is empty");
        MM_TRY(put_system_first(builder, list, root, err));
        return read_tools(builder, root, err);
    }
    MM_TRY(add_conversation(builder, list, root, err));
    MM_TRY(check_not_empty(builder, list));
    const json_t *gt = json_object_get(root, "gt");
    if (gt && !json_is_null(gt) && !json_is_array(gt))
        return mm_shape_bad(builder, MM_BAD_FIELD, "\"gt\" is not a list");
    if (json_is_array(gt)) builder->row.gt = gt;
    return MM_OK;
}

// The question that both answers of a triple share.
static mm_status add_prompt(mm_row_builder *builder, mm_message_list *list, mm_err *err)
{
    const json_t *root = builder->root;
    if (has(root, "conversations") || has(root, "messages"))
        return add_conversation(builder, list, root, err);
    if (has(root, "instruction")) return add_instruction(builder, list, root, err);
    MM_TRY(add_side(builder, list, root, "prompt", "user", err));
    MM_TRY(put_system_first(builder, list, root, err));
    return read_tools(builder, root, err);
}

static bool asks(const mm_message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(messages[i].role, "user") == 0) return true;
    return false;
}

static mm_status build_answer(mm_row_builder *builder, mm_message_list *list, const char *key,
                              bool has_prompt, mm_err *err)
{
    if (has_prompt) MM_TRY(add_prompt(builder, list, err));
    const size_t prompt = list->count;
    MM_TRY(add_side(builder, list, builder->root, key, "assistant", err));
    const size_t added = list->count - prompt;
    if (added == 0) return mm_shape_bad(builder, MM_BAD_EMPTY, "\"%s\" is empty", key);
    // Some files give the prompt and, all the same, the whole conversation on both sides.
    if (prompt > 0 && asks(list->data + prompt, added)) {
        memmove(list->data, list->data + prompt, added * sizeof *list->data);
        list->count = added;
    }
    if (!asks(list->data, list->count))
        return mm_shape_bad(builder, MM_BAD_FIELD, "\"%s\": no question in front of the answer",
                            key);
    if (strcmp(list->data[list->count - 1].role, "assistant") != 0)
        return mm_shape_bad(builder, MM_BAD_ROLE, "\"%s\" does not end with the assistant", key);
    return MM_OK;
}

static mm_status build_pair(mm_row_builder *builder, mm_row_format format, mm_err *err)
{
    const bool has_prompt = format == MM_ROWS_TRIPLE;
    builder->row.kind = MM_ROW_PAIR;
    MM_TRY(build_answer(builder, &builder->chosen, "chosen", has_prompt, err));
    MM_TRY(build_answer(builder, &builder->rejected, "rejected", has_prompt, err));
    if (is_empty_message(&builder->chosen.data[builder->chosen.count - 1]))
        return mm_shape_bad(builder, MM_BAD_EMPTY, "the chosen answer is empty");
    return read_tools(builder, builder->root, err);
}

static mm_status build(mm_row_builder *builder, mm_row_format format, mm_err *err)
{
    switch (format) {
    case MM_ROWS_TEXT:
        return build_text(builder);
    case MM_ROWS_CONVERSATIONS:
    case MM_ROWS_SHAREGPT:
    case MM_ROWS_ALPACA:
    case MM_ROWS_PROMPT:
        return build_chat(builder, format, err);
    case MM_ROWS_PREFERENCE:
    case MM_ROWS_TRIPLE:
        return build_pair(builder, format, err);
    case MM_ROWS_AUTO:
    case MM_ROWS_LINES:
    case MM_ROWS_JOINED:
        break;
    }
    const bool is_read_from_json = false;
    MM_ASSERT(is_read_from_json);
    return MM_EFORMAT;
}

static mm_status bad_shape(mm_row_builder *builder, mm_row_format expected, mm_row_format found)
{
    return mm_shape_bad(builder, MM_BAD_SHAPE, "a %s row in a file of %s rows",
                        mm_row_format_name(found), mm_row_format_name(expected));
}

mm_status mm_shape_build(mm_row_builder *builder, mm_row_format format, json_t *root,
                         bool is_strict, mm_err *err)
{
    json_decref(builder->root);
    json_decref(builder->made);
    builder->root = root;
    builder->made = NULL;
    builder->tools = NULL;
    builder->chosen.count = builder->rejected.count = 0;
    builder->row = (mm_row){0};
    if (!json_is_object(root)) return mm_shape_bad(builder, MM_BAD_FIELD, "not a JSON object");
    const mm_row_format found = mm_shape_of(root);
    const bool is_other = found != MM_ROWS_AUTO && found != format;
    if (is_strict && is_other) return bad_shape(builder, format, found);
    const mm_status status = build(builder, format, err);
    if (status == MM_EFORMAT && builder->reason == MM_BAD_FIELD && is_other)
        return bad_shape(builder, format, found);
    MM_TRY(status);
    builder->row.chat = (mm_conversation){
        .messages = builder->chosen.data, .count = builder->chosen.count, .tools = builder->tools};
    builder->row.rejected = (mm_conversation){.messages = builder->rejected.data,
                                              .count = builder->rejected.count,
                                              .tools = builder->tools};
    return MM_OK;
}

void mm_row_builder_drop(mm_row_builder *builder)
{
    json_decref(builder->root);
    json_decref(builder->made);
    mm_free(builder->chosen.data);
    mm_free(builder->rejected.data);
    *builder = (mm_row_builder){0};
}
