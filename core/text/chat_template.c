/* The chat template as Jinja text, for other programs: what chat.c renders, in the words of
 * tokenizer_config.json. tests/text/check_chat.py renders both and compares.
 */
#include "core/text/chat.h"

#include "core/base/hash.h"

#include <string.h>

static const char TEMPLATE[] =
    "{%- set has_system = messages[0].role == 'system' %}\n"
    "{%- if tools %}\n"
    "    {{- '<|im_start|>system\\n' }}\n"
    "    {%- if has_system %}\n"
    "        {{- messages[0].content + '\\n\\n' }}\n"
    "    {%- endif %}\n"
    "    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.' }}\n"
    "    {{- '\\n\\nYou are provided with function signatures within <tools></tools> XML tags:' "
    "}}\n"
    "    {{- '\\n<tools>' }}\n"
    "    {%- for tool in tools %}\n"
    "        {{- '\\n' }}\n"
    "        {{- tool | tojson }}\n"
    "    {%- endfor %}\n"
    "    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name ' "
    "}}\n"
    "    {{- 'and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}\n"
    "    {{- '{\"name\": <function-name>, \"arguments\": <args-json-object>}\\n</tool_call>' }}\n"
    "    {{- '<|im_end|>\\n' }}\n"
    "{%- elif has_system %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- set text = message.content if message.content is string else '' %}\n"
    "    {%- if message.role == 'assistant' %}\n"
    "        {%- set thought = '' %}\n"
    "        {%- if message.reasoning_content is string %}\n"
    "            {%- set thought = message.reasoning_content %}\n"
    "        {%- elif '</think>' in text %}\n"
    "            {%- set thought = text.split('</think>')[0].rstrip('\\n').split('<think>')[-1] "
    "%}\n"
    "            {%- set text = text.split('</think>')[-1].lstrip('\\n') %}\n"
    "        {%- endif %}\n"
    "        {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') }}\n"
    "        {{- '\\n</think>\\n\\n' + text.lstrip('\\n') }}\n"
    "        {%- if message.tool_calls %}\n"
    "            {%- for call in message.tool_calls %}\n"
    "                {%- set inner = call.function if call.function else call %}\n"
    "                {%- if text or not loop.first %}\n"
    "                    {{- '\\n' }}\n"
    "                {%- endif %}\n"
    "                {{- '<tool_call>\\n{\"name\": \"' + inner.name + '\", \"arguments\": ' }}\n"
    "                {%- if inner.arguments is string %}\n"
    "                    {{- inner.arguments }}\n"
    "                {%- else %}\n"
    "                    {{- inner.arguments | tojson }}\n"
    "                {%- endif %}\n"
    "                {{- '}\\n</tool_call>' }}\n"
    "            {%- endfor %}\n"
    "        {%- endif %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- elif message.role == 'tool' %}\n"
    "        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}\n"
    "            {{- '<|im_start|>user' }}\n"
    "        {%- endif %}\n"
    "        {{- '\\n<tool_response>\\n' + text + '\\n</tool_response>' }}\n"
    "        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}\n"
    "            {{- '<|im_end|>\\n' }}\n"
    "        {%- endif %}\n"
    "    {%- elif message.role == 'user' or not loop.first %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + text + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n<think>\\n' }}\n"
    "    {%- if not (open_thinking is defined and open_thinking is true) %}\n"
    "        {{- '\\n</think>\\n\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}";

/* SHA-256 of the chat_template that MiniMind publishes, which says the same in other words. */
static const char MINIMIND_TEMPLATE_HASH[] =
    "97c6a9ef3f8d35044f435bb7773f1af160a7328ab6e8d2e9d67702941320a711";

const char *mm_chat_template_jinja(void) { return TEMPLATE; }

bool mm_chat_template_is_known(const char *chat_template)
{
    uint8_t digest[MM_SHA256_BYTES];
    char hex[MM_SHA256_HEX_BYTES];
    mm_sha256_of(chat_template, strlen(chat_template), digest);
    mm_sha256_hex(digest, hex);
    return strcmp(chat_template, TEMPLATE) == 0 || strcmp(hex, MINIMIND_TEMPLATE_HASH) == 0;
}
