/* Tests of core/base/nearest.h: edits, and when nothing is near enough to be suggested. */
#include "core/base/nearest.h"
#include "tests/base/check.h"

static void measures_distance(void **state)
{
    (void)state;
    static const struct {
        const char *a;
        const char *b;
        int distance;
    } ROWS[] = {{"", "", 0},
                {"", "abc", 3},
                {"abc", "", 3},
                {"hidden", "hiden", 1},
                {"lr", "rl", 1},
                {"dry_run", "dry-run", 0},
                {"kitten", "sitting", 3},
                {"ca", "abc", 3},
                {"pretrain", "pretrian", 1}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        const int forth =
            mm_edit_distance(ROWS[i].a, strlen(ROWS[i].a), ROWS[i].b, strlen(ROWS[i].b));
        const int back =
            mm_edit_distance(ROWS[i].b, strlen(ROWS[i].b), ROWS[i].a, strlen(ROWS[i].a));
        CHECK_ROW(forth == ROWS[i].distance && back == ROWS[i].distance, i);
    }
    char longer[500];
    memset(longer, 'x', sizeof longer);
    assert_true(mm_edit_distance(longer, sizeof longer, "y", 1) > 0);
}

static void suggests_only_what_is_near(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"hidden", "heads", "layers", "learning-rate", "lr", "log"};
    static const struct {
        const char *typed;
        const char *found; /* NULL: none */
    } ROWS[] = {{"hiden", "hidden"},
                {"head", "heads"},
                {"learn", "learning-rate"},
                {"learning_rate", "learning-rate"},
                {"xyz", NULL},
                {"l", "lr"},
                {"layer_s", "layers"},
                {"", NULL}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        mm_nearest nearest = {.wanted = ROWS[i].typed};
        for (size_t k = 0; k < sizeof NAMES / sizeof NAMES[0]; k++)
            mm_nearest_offer(&nearest, NAMES[k], strlen(NAMES[k]));
        CHECK_ROW(mm_nearest_found(&nearest) == (ROWS[i].found != NULL), i);
        if (ROWS[i].found) CHECK_ROW(strcmp(nearest.best, ROWS[i].found) == 0, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measures_distance),
        cmocka_unit_test(suggests_only_what_is_near),
    };
    return cmocka_run_group_tests_name("base/nearest", tests, NULL, NULL);
}
