/* Stories of the self-made data and questions about them. Internal to core/data.
 *
 * A story has a child, an animal friend with a name, an elder and one coloured object; who helps
 * and who fails, where things are and how the child feels are drawn first and then told, so a
 * question has one right answer and a model has to carry facts across the text.
 */
#ifndef MM_DATA_SYNTH_STORY_H
#define MM_DATA_SYNTH_STORY_H

#include "core/data/synth_grammar.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_story {
    int plot;
    mm_slots slots;
} mm_story;

/* Draws the facts. */
void mm_story_draw(mm_synth *synth, mm_story *story);
/* Appends the text. A short one leaves out the decorations. */
void mm_story_tell(mm_synth *synth, const mm_story *story, bool is_short, mm_str *out);
/* Appends a question about the story, its answer in words, the same answer with another fact, and
 * the bare fact. */
void mm_story_ask(mm_synth *synth, const mm_story *story, mm_str *question, mm_str *answer,
                  mm_str *wrong, mm_str *fact);

#ifdef __cplusplus
}
#endif
#endif
