/* Ids of prompts, shortened to what a model takes: of a whole dialogue up to the opening of its
 * next answer, or of text to be continued. */
#ifndef MM_RUNNER_DIALOGUE_H
#define MM_RUNNER_DIALOGUE_H

#include "core/text/chat.h"

/* Appends the ids of `conversation` with the opening of an answer (`options` says how;
 * generation_prompt is meant in every case). What is longer than max_tokens loses its oldest turns:
 * a system turn at the front stays, and the rest begins with a turn of a user. Where not even the
 * last user's turn fits, the ids keep their end. *dropped (may be NULL) is the number of messages
 * left out, -1 where the text of a message was cut. A conversation without messages is MM_EUSAGE.
 */
MM_NODISCARD mm_status mm_dialogue_ids(const mm_tokenizer *tokenizer,
                                       const mm_conversation *conversation,
                                       const mm_chat_options *options, int32_t max_tokens,
                                       mm_ids *ids, int32_t *dropped, mm_err *err);
/* Appends the ids of text that is to be continued: [bos] + text, of which the last max_tokens stay;
 * *is_cut (may be NULL) tells whether any went. Nothing at all is MM_EUSAGE. */
MM_NODISCARD mm_status mm_text_ids(const mm_tokenizer *tokenizer, const char *text,
                                   int32_t max_tokens, mm_ids *ids, bool *is_cut, mm_err *err);

#endif
