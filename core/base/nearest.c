/* "Did you mean": the one name that is nearest to what was typed. */
#include "core/base/nearest.h"

#include <string.h>

enum { NAME_MAX_BYTES = 64 };

static char folded(char c) { return c == '_' ? '-' : c; }

int mm_edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    if (a_length > NAME_MAX_BYTES) a_length = NAME_MAX_BYTES;
    if (b_length > NAME_MAX_BYTES) b_length = NAME_MAX_BYTES;
    // Three rows of the dynamic programme: the swap of neighbours looks back two.
    int rows[3][NAME_MAX_BYTES + 1];
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= a_length; i++) {
        int *now = rows[i % 3];
        const int *last = rows[(i + 2) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= b_length; j++) {
            const bool same = folded(a[i - 1]) == folded(b[j - 1]);
            int best = last[j - 1] + (same ? 0 : 1);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            const bool swapped = i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                                 folded(a[i - 2]) == folded(b[j - 1]);
            if (swapped && rows[(i + 1) % 3][j - 2] + 1 < best) best = rows[(i + 1) % 3][j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[a_length % 3][b_length];
}

/* A beginning of the name is as good as one wrong letter: "--learn" means --learning-rate. */
static bool is_beginning(const char *typed, const char *name, size_t length)
{
    const size_t typed_length = strlen(typed);
    if (typed_length < 3 || typed_length > length) return false;
    for (size_t i = 0; i < typed_length; i++)
        if (folded(typed[i]) != folded(name[i])) return false;
    return true;
}

void mm_nearest_offer(mm_nearest *nearest, const char *name, size_t length)
{
    const size_t wanted_length = strlen(nearest->wanted);
    int distance = mm_edit_distance(nearest->wanted, wanted_length, name, length);
    if (distance > 1 && is_beginning(nearest->wanted, name, length)) distance = 1;
    // Short names must be nearly right; "ab" is not a misspelt "lr".
    const int allowed = wanted_length < 3 ? 1 : wanted_length < 6 ? 2 : 3;
    const size_t longer = wanted_length > length ? wanted_length : length;
    if (distance > allowed || (size_t)distance * 2 > longer) return;
    if (!nearest->best || distance < nearest->distance) {
        nearest->best = name;
        nearest->best_length = length;
        nearest->distance = distance;
        nearest->is_tied = false;
    } else if (distance == nearest->distance &&
               (length != nearest->best_length || memcmp(name, nearest->best, length) != 0)) {
        nearest->is_tied = true;
    }
}

bool mm_nearest_found(const mm_nearest *nearest) { return nearest->best && !nearest->is_tied; }
