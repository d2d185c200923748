/* Words of the self-made data, in Chinese and English side by side, and how they are put into
 * phrases: measure words, articles, plurals, number words. Internal to core/data.
 *
 * Animals, objects and countable things share no word: a text that names an animal and an object
 * names exactly one combination, which is what the held-out rule counts.
 */
#ifndef MM_DATA_SYNTH_WORDS_H
#define MM_DATA_SYNTH_WORDS_H

#include "core/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_language { MM_ZH = 0, MM_EN, MM_LANGUAGES } mm_language;

typedef struct mm_noun {
    const char *zh;
    const char *measure; /* Chinese measure word */
    const char *en;
    const char *plural;
} mm_noun;

/* One expression per language. */
typedef struct mm_pair {
    const char *text[MM_LANGUAGES];
} mm_pair;

typedef struct mm_name {
    const char *text;
    bool is_female;
} mm_name;

enum {
    MM_ANIMALS = 20,
    MM_OBJECTS = 24,
    MM_THINGS = 16,
    MM_COLOURS = 10,
    MM_PLACES = 14,
    MM_SPOTS = 16,
    MM_ELDERS = 12,
    MM_TIMES = 10,
    MM_WEATHERS = 10,
    MM_NAMES = 24,
    MM_PET_NAMES = 16,
    MM_BAD_FEELINGS = 6,
    MM_GOOD_FEELINGS = 6,
    MM_NUMBER_MAX = 100 /* largest number written in words */
};

extern const mm_noun mm_animals[MM_ANIMALS];
extern const mm_noun mm_objects[MM_OBJECTS];
extern const mm_noun mm_things[MM_THINGS]; /* to be counted */
extern const mm_pair mm_colours[MM_COLOURS];
extern const mm_pair mm_places[MM_PLACES]; /* "in the forest" */
extern const mm_pair mm_spots[MM_SPOTS];   /* where something can be hidden */
extern const mm_pair mm_elders[MM_ELDERS]; /* "the baker" */
extern const mm_pair mm_times[MM_TIMES];
extern const mm_pair mm_weathers[MM_WEATHERS]; /* a clause */
extern const mm_name mm_names[MM_LANGUAGES][MM_NAMES];
extern const char *const mm_pet_names[MM_LANGUAGES][MM_PET_NAMES];
extern const mm_pair mm_bad_feelings[MM_BAD_FEELINGS];
extern const mm_pair mm_good_feelings[MM_GOOD_FEELINGS];

/* Each appends. A number in words (0 to MM_NUMBER_MAX): "twenty-one", "二十一". */
void mm_number_words(mm_str *out, mm_language language, int number);
/* How many of something, with the noun agreeing: "1 leaf", "three leaves", "两片叶子". `colour` is
 * an index into mm_colours, or -1. */
void mm_count_phrase(mm_str *out, mm_language language, const mm_noun *noun, int colour, int count,
                     bool in_words);
/* "a red kite", "an owl", "一只红色的风筝". */
void mm_one_phrase(mm_str *out, mm_language language, const mm_noun *noun, int colour);
/* "red kite", "红色的风筝". */
void mm_bare_phrase(mm_str *out, mm_language language, const mm_noun *noun, int colour);

#ifdef __cplusplus
}
#endif
#endif
