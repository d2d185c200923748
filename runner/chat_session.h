/* A conversation with a model: what was said, what of it the model still sees, and the next answer.
 *
 * The generator keeps what it has read (mm_generator_options.keeps_prefix), so a turn costs the new
 * words alone. When the context is full the oldest exchanges are no longer shown to the model; they
 * stay in the record. Belongs to one thread.
 */
#ifndef MM_RUNNER_CHAT_SESSION_H
#define MM_RUNNER_CHAT_SESSION_H

#include "core/nn/generate.h"
#include "core/text/chat.h"
#include "runner/sample.h"

typedef struct mm_exchange {
    char *question;
    char *reasoning; /* NULL: none */
    char *answer;
} mm_exchange;

typedef struct mm_chat_session_options {
    mm_sample_style style; /* MM_SAMPLE_TEXT: each question is continued, nothing is remembered */
    int32_t max_tokens;    /* of a prompt and its answer */
    int64_t history;       /* earlier exchanges the model is shown; -1: all that fit */
    int32_t threads;
    mm_dtype dtype;
} mm_chat_session_options;

typedef struct mm_chat_session mm_chat_session;

/* Keeps borrowed pointers to model and tokenizer. A tokenizer without the marks of the template is
 * MM_EUSAGE. */
MM_NODISCARD mm_status mm_chat_session_new(mm_chat_session **out, const mm_model *model,
                                           const mm_tokenizer *tokenizer,
                                           const mm_chat_session_options *options, mm_err *err);
void mm_chat_session_free(mm_chat_session *session);

/* Forgets the exchanges; the system turn stays. */
void mm_chat_session_reset(mm_chat_session *session);
/* The system turn from now on; "" takes it away. */
MM_NODISCARD mm_status mm_chat_session_set_system(mm_chat_session *session, const char *text,
                                                  mm_err *err);
size_t mm_chat_session_count(const mm_chat_session *session);
/* Forgets the last exchange and hands out its question (mm_free); NULL when there is none. */
char *mm_chat_session_take_back(mm_chat_session *session);
/* The conversation as a row of a data file; NULL when out of memory. */
json_t *mm_chat_session_row(const mm_chat_session *session);

/* Pieces of complete characters as they come; returning false ends the answer. */
typedef bool (*mm_reply_fn)(void *context, const char *piece, size_t bytes, bool is_reasoning);

typedef struct mm_reply {
    const mm_exchange *exchange; /* borrowed until the next change of the session */
    mm_generation generation;
    int32_t prompt_tokens;
    size_t n_forgotten; /* exchanges that are from now on no longer shown to the model */
} mm_reply;

/* Asks and adds the exchange. `thinks` leaves the think block to the model. A question that does
 * not fit beside the answer is MM_ELIMIT and changes nothing; nor does an answer that was ended
 * before its first token, whose reply has no exchange. */
MM_NODISCARD mm_status mm_chat_session_ask(mm_chat_session *session, const char *question,
                                           const mm_sampling *sampling, bool thinks,
                                           mm_reply_fn on_text, void *context, mm_reply *out,
                                           mm_err *err);

#endif
