/* The machinery of the self-made data: a random state with its language, templates with choices and
 * slots, and the rule of what is held out. Internal to core/data.
 *
 * A template is text with [one|of|these] (nested as deep as one likes, each side equally likely)
 * and {name} for a slot; {^name} starts with a capital letter.
 */
#ifndef MM_DATA_SYNTH_GRAMMAR_H
#define MM_DATA_SYNTH_GRAMMAR_H

#include "core/base/rng.h"
#include "core/data/synth.h"
#include "core/data/synth_words.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Domains of the held-out rule. */
typedef enum mm_combo {
    MM_COMBO_STORY = 1, /* animal, object */
    MM_COMBO_ADD,       /* smaller, larger */
    MM_COMBO_SUBTRACT,  /* from, what */
    MM_COMBO_MULTIPLY,  /* smaller, larger */
    MM_COMBO_COMPARE,   /* smaller, larger */
    MM_COMBO_COUNT,     /* first, step */
    MM_COMBO_PHRASE,    /* object or thing, number */
    MM_COMBO_IDENTITY   /* question, manner */
} mm_combo;

typedef struct mm_synth {
    mm_rng rng;
    mm_language language;
    bool held_out;
} mm_synth;

int mm_synth_below(mm_synth *synth, int n);
/* True in `percent` of a hundred cases. */
bool mm_synth_chance(mm_synth *synth, int percent);
/* Draws a < a_count, b < b_count until the combination is on the side of this file. */
void mm_synth_combo(mm_synth *synth, mm_combo domain, int a_count, int b_count, int *a, int *b);

enum { MM_SLOTS_MAX = 32, MM_SLOT_BYTES = 96 };
typedef struct mm_slots {
    int count;
    struct {
        char name[4];
        char text[MM_SLOT_BYTES];
    } slot[MM_SLOTS_MAX];
} mm_slots;

void mm_slots_set(mm_slots *slots, const char *name, const char *text);
const char *mm_slots_get(const mm_slots *slots, const char *name);
/* Appends the template with choices drawn and slots filled in. An unknown slot is a programmer
 * error. */
void mm_synth_expand(mm_synth *synth, const char *template, const mm_slots *slots, mm_str *out);

#ifdef __cplusplus
}
#endif
#endif
