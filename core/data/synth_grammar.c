/* Templates with choices and slots, and the held-out rule. */
#include "core/data/synth_grammar.h"

#include <string.h>

// Fixed for all times: another value would move examples across the line.
static const uint64_t HELD_OUT_SEED = 0x73796E7468ull;

// One in five, one in ten of the stories. The same for every seed.
static bool is_held_out(mm_combo domain, int a, int b)
{
    uint32_t random[4];
    MM_ASSERT(a >= 0 && b >= 0);
    mm_philox(HELD_OUT_SEED, MM_RNG_SPLIT, (uint64_t)domain, (uint64_t)a << 32 | (uint64_t)b,
              random);
    return random[0] % (domain == MM_COMBO_STORY ? 10 : 5) == 0;
}

int mm_synth_below(mm_synth *synth, int n) { return (int)mm_rng_below(&synth->rng, (uint32_t)n); }

bool mm_synth_chance(mm_synth *synth, int percent) { return mm_synth_below(synth, 100) < percent; }

void mm_synth_combo(mm_synth *synth, mm_combo domain, int a_count, int b_count, int *a, int *b)
{
    // Both sides hold a good share of every domain, so a few dozen tries are plenty.
    for (int tries = 0; tries < 10000; tries++) {
        *a = mm_synth_below(synth, a_count);
        *b = mm_synth_below(synth, b_count);
        if (is_held_out(domain, *a, *b) == synth->held_out) return;
    }
    const bool has_both_sides = false;
    MM_ASSERT(has_both_sides);
}

void mm_slots_set(mm_slots *slots, const char *name, const char *text)
{
    const size_t bytes = strlen(text);
    int i = 0;
    MM_ASSERT(strlen(name) < sizeof slots->slot[0].name);
    MM_ASSERT(bytes < MM_SLOT_BYTES);
    while (i < slots->count && strcmp(slots->slot[i].name, name) != 0)
        i++;
    MM_ASSERT(i < MM_SLOTS_MAX);
    if (i == slots->count) slots->count++;
    memcpy(slots->slot[i].name, name, strlen(name) + 1);
    memcpy(slots->slot[i].text, text, bytes + 1);
}

static const char *find_slot(const mm_slots *slots, const char *name, size_t length)
{
    for (int i = 0; i < slots->count; i++)
        if (strlen(slots->slot[i].name) == length && memcmp(slots->slot[i].name, name, length) == 0)
            return slots->slot[i].text;
    const bool is_known = false;
    MM_ASSERT(is_known);
    return "";
}

const char *mm_slots_get(const mm_slots *slots, const char *name)
{
    return find_slot(slots, name, strlen(name));
}

// The bracket that closes the one at `at`, or the end of the alternative that starts there.
static const char *skip_to(const char *at, const char *end, char wanted)
{
    int depth = 0;
    for (; at < end; at++) {
        if (depth == 0 && (*at == wanted || *at == ']')) break;
        if (*at == '[') depth++;
        if (*at == ']') depth--;
    }
    MM_ASSERT(at < end);
    return at;
}

static void add_slot(const char *name, size_t length, const mm_slots *slots, mm_str *out)
{
    const bool is_capital = length > 0 && name[0] == '^';
    const char *text = find_slot(slots, name + is_capital, length - is_capital);
    if (is_capital && text[0] >= 'a' && text[0] <= 'z') {
        mm_str_add_char(out, (char)(text[0] - 'a' + 'A'));
        text++;
    }
    mm_str_add(out, text);
}

// Recursion is as deep as the brackets of our own tables.
static void expand(mm_synth *synth, const char *at, const char *end, const mm_slots *slots,
                   mm_str *out)
{
    while (at < end) {
        if (*at == '{') {
            const char *close = memchr(at, '}', (size_t)(end - at));
            MM_ASSERT(close);
            add_slot(at + 1, (size_t)(close - at - 1), slots, out);
            at = close + 1;
        } else if (*at == '[') {
            int count = 1;
            for (const char *bar = skip_to(at + 1, end, '|'); *bar == '|';
                 bar = skip_to(bar + 1, end, '|'))
                count++;
            const char *from = at + 1;
            for (int skipped = mm_synth_below(synth, count); skipped > 0; skipped--)
                from = skip_to(from, end, '|') + 1;
            expand(synth, from, skip_to(from, end, '|'), slots, out);
            at = skip_to(at + 1, end, ']') + 1;
        } else {
            mm_str_add_char(out, *at++);
        }
    }
}

void mm_synth_expand(mm_synth *synth, const char *template, const mm_slots *slots, mm_str *out)
{
    expand(synth, template, template + strlen(template), slots, out);
}
