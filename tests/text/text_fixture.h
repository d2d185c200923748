/* What the tests of core/text share: a small tokenizer trained on the spot, MiniMind's one where
 * the shared data is at hand, and seeded random text.
 */
#ifndef MM_TESTS_TEXT_FIXTURE_H
#define MM_TESTS_TEXT_FIXTURE_H

#include "core/base/rng.h"
#include "core/text/chat.h"
#include "core/text/tokenizer.h"

/* Trained on a few bilingual sentences; never NULL. */
mm_tokenizer *fixture_tokenizer(int32_t vocab_size);
/* NULL after printing why when the shared data is missing. */
mm_tokenizer *fixture_minimind(void);
/* Appends a random well-formed text: letters, digits, spaces of every kind, Chinese, emoji,
 * combining and control characters, U+0085, U+FEFF, planes 1 to 16, and texts of reserved tokens.
 */
void fixture_add_text(mm_rng *rng, mm_str *out);

/* Fails the test if the status is not MM_OK, showing the message. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        if ((expr) != MM_OK) fail_msg("%s: %s", #expr, err.message);                               \
    } while (0)

#endif
