/* Conversations and the chat template, rendered natively: MiniMind's template of v3
 * (docs/minimind.md).
 *
 * The rendered text is encoded as a whole, as the reference does it, except for added tokens that
 * stand in the messages: text of the assistant and the system may hold the tag tokens (those not
 * marked special, such as <think>), text of users and tools none at all. So a user cannot smuggle
 * in a role by typing <|im_start|>; it becomes ordinary bytes. Without such text the ids are those
 * of the reference.
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

/* What of a conversation is learned. */
typedef enum mm_mask_kind {
    MM_MASK_ANSWERS = 0, /* all of the assistant's words: think block, content, end of the turn */
    MM_MASK_LAST_ANSWER, /* of the last assistant turn only */
    MM_MASK_WITH_SYSTEM, /* the assistant's words and system turns, through their ends */
    MM_MASK_ALL          /* every token: pretraining on conversations */
} mm_mask_kind;
/* The names of --mask. */
#define MM_MASK_KINDS "all-answers,last-answer,with-system,all"
MM_NODISCARD mm_status mm_mask_kind_parse(const char *name, mm_mask_kind *out, mm_err *err);
const char *mm_mask_kind_name(mm_mask_kind mask);

typedef struct mm_chat_options {
    bool generation_prompt; /* ends with the opening of an assistant turn */
    bool open_thinking;     /* that opening leaves <think> open */
    bool drop_empty_think;  /* assistant turns without reasoning get no think block */
    mm_mask_kind mask;
} mm_chat_options;

/* Whether some assistant turn is rendered with an empty think block. */
bool mm_chat_has_empty_think(const mm_conversation *conversation);

/* The rendered text; appended. Borrowed inputs. */
MM_NODISCARD mm_status mm_chat_render(const mm_conversation *conversation,
                                      const mm_chat_options *options, mm_str *out, mm_err *err);
/* The ids. If `mask` is not NULL it gets one byte per id: 1 where it is learned. A word of a turn
 * that melts into one id with the newline before it belongs to the template, the rest of the turn
 * is learned (docs/minimind.md). */
MM_NODISCARD mm_status mm_chat_encode(const mm_tokenizer *tokenizer,
                                      const mm_conversation *conversation,
                                      const mm_chat_options *options, mm_ids *ids, mm_str *mask,
                                      mm_err *err);
/* The same with the rendered text, which is appended too. */
MM_NODISCARD mm_status mm_chat_encode_text(const mm_tokenizer *tokenizer,
                                           const mm_conversation *conversation,
                                           const mm_chat_options *options, mm_str *text,
                                           mm_ids *ids, mm_str *mask, mm_err *err);
/* Jinja text of the template for tokenizer_config.json and chat_template.jinja, written by us. */
const char *mm_chat_template_jinja(void);
/* Whether this template text is one that mm_chat_render follows: ours or the one MiniMind
 * publishes. */
bool mm_chat_template_is_known(const char *chat_template);

#ifdef __cplusplus
}
#endif
#endif
