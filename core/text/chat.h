/* Conversations and the chat template, rendered natively: MiniMind's template of v3 (minimind.md 3.3).
 *
 * Rendering yields pieces, so that template text is encoded with added tokens on and message content with them
 * off (a user cannot smuggle in a role by typing <|im_start|>). Where this changes ids against the reference
 * rendering (which encodes one string) the golden ids of the spec win: content pieces are joined with their
 * surroundings before splitting whenever they hold no added-token text.
 */
#ifndef MM_TEXT_CHAT_H
#define MM_TEXT_CHAT_H

#include "core/text/tokenizer.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_message {
    const char *role;              /* "system", "user", "assistant", "tool" */
    const char *content;           /* never NULL */
    const char *reasoning_content; /* NULL when absent */
    const json_t *tool_calls;      /* JSON array or NULL */
} mm_message;

typedef struct mm_conversation {
    const mm_message *messages;
    size_t count;
    const json_t *tools; /* JSON array or NULL */
} mm_conversation;

typedef struct mm_chat_options {
    bool generation_prompt; /* ends with the opening of an assistant turn */
    bool open_thinking;     /* that opening leaves <think> open */
} mm_chat_options;

/* The rendered text; appended. Borrowed inputs. */
MM_NODISCARD mm_status mm_chat_render(const mm_conversation *conversation, const mm_chat_options *options, mm_str *out,
                                      mm_err *err);
/* The ids. If `mask` is not NULL it gets one byte per id: 1 where the assistant's words are learned (minimind.md 4.4:
 * think block, content, <|im_end|> and the newline after it). */
MM_NODISCARD mm_status mm_chat_encode(const mm_tokenizer *tokenizer, const mm_conversation *conversation,
                                      const mm_chat_options *options, mm_ids *ids, mm_str *mask, mm_err *err);
/* Jinja text of the template for tokenizer_config.json and chat_template.jinja, written by us. */
const char *mm_chat_template_jinja(void);

#ifdef __cplusplus
}
#endif
#endif
