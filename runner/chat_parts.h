/* What the parts of `mmrun chat` share: the state of the dialogue, and its slash commands. */
#ifndef MM_RUNNER_CHAT_PARTS_H
#define MM_RUNNER_CHAT_PARTS_H

#include "runner/chat_session.h"
#include "runner/load.h"

typedef struct mm_chat {
    const mm_context *context;
    const mm_loaded *loaded;
    mm_store *store; /* gets every exchange; NULL: nothing is recorded */
    mm_chat_session *session;
    mm_sampling sampling;
    bool thinks;
    bool is_terminal; /* somebody types: mistakes are said and the dialogue goes on */
    bool shows_reasoning;
    bool is_dim; /* colour of what is being written */
    bool is_over;
} mm_chat;

/* Asks, shows the answer as it comes, and records it. */
MM_NODISCARD mm_status mm_chat_ask(mm_chat *chat, const char *question, mm_err *err);
/* A line that begins with a slash. MM_EUSAGE: no such command, or not with this argument. */
MM_NODISCARD mm_status mm_chat_command(mm_chat *chat, const char *line, mm_err *err);

#endif
