/* The parser of the command line, on a small table of commands of its own. */
#include "check.h"

#include "runner/args.h"

#include <stdio.h>

static const mm_option TRAIN[] = {
    {.name = "data", .aliases = "data_path", .type = MM_OPTION_PATH, .repeats = true},
    {.name = "batch", .aliases = "batch_size", .type = MM_OPTION_INT, .min = 1, .max = 64},
    {.name = "rate", .aliases = "lr", .type = MM_OPTION_REAL, .min = 0, .max = 1},
    {.name = "steps", .type = MM_OPTION_INT, .min = 1, .max = 1e15},
    {.name = "shape", .type = MM_OPTION_CHOICE, .choices = "cosine,constant,linear"},
    {.name = "dry_run", .aliases = "n"},
    {.name = "out", .aliases = "o,output", .type = MM_OPTION_PATH, .value = "FILE"},
    {0},
};

static const mm_option SHOW[] = {
    {.name = "data", .type = MM_OPTION_PATH, .repeats = true},
    {.name = "all", .aliases = "a"},
    {0},
};

static const mm_command COMMANDS[] = {
    {.name = "train", .group = "g", .summary = "s", .options = {TRAIN}},
    {.name = "show",
     .group = "g",
     .summary = "s",
     .usage = "RUN",
     .options = {SHOW},
     .args_min = 1,
     .args_max = 2},
    {.name = "data check",
     .group = "g",
     .summary = "s",
     .usage = "FILE...",
     .args_min = 1,
     .args_max = SIZE_MAX},
    {.name = "data show", .group = "g", .summary = "s", .args_max = 1},
    {.name = "db check", .group = "g", .summary = "s"},
    {0},
};

enum { WORDS_MAX = 16 };

/* Splits at blanks ('~' stands for a blank inside a word) and parses. */
typedef struct parsed {
    char text[256];
    char *argv[WORDS_MAX];
    int argc;
    mm_args *args;
    mm_err err;
    mm_status status;
} parsed;

static void parse(parsed *p, const char *line)
{
    *p = (parsed){.argc = 1};
    p->argv[0] = "mmrun";
    snprintf(p->text, sizeof p->text, "%s", line);
    for (char *at = p->text; *at;) {
        char *end = at + strcspn(at, " ");
        assert_true(p->argc < WORDS_MAX);
        p->argv[p->argc++] = at;
        at = *end ? end + 1 : end;
        *end = '\0';
    }
    for (int i = 1; i < p->argc; i++)
        for (char *c = p->argv[i]; *c; c++)
            if (*c == '~') *c = ' ';
    p->status = mm_args_parse(&p->args, COMMANDS, p->argc, p->argv, &p->err);
}

static void takes_options_anywhere(void **state)
{
    (void)state;
    static const char *const LINES[] = {
        "--db x.db train --batch 4 --json",      "train --db x.db --json --batch=4",
        "train --batch 4 --json --db=x.db",      "--json --db x.db train --batch_size 4",
        "train --batch-size=4 --json --db x.db",
    };
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++) {
        parsed p;
        parse(&p, LINES[i]);
        CHECK_ROW(p.status == MM_OK, i);
        CHECK_ROW(mm_args_command(p.args) == &COMMANDS[0], i);
        CHECK_ROW(mm_args_int(p.args, "batch", 0) == 4, i);
        CHECK_ROW(strcmp(mm_args_text(p.args, "db"), "x.db") == 0, i);
        CHECK_ROW(mm_args_has(p.args, "json") && !mm_args_has(p.args, "dry-run"), i);
        mm_args_free(p.args);
    }
}

static void knows_values(void **state)
{
    (void)state;
    parsed p;
    parse(&p, "train --lr 5e-4 --shape linear -n -o out.txt --steps 7 --steps 8");
    assert_int_equal(p.status, MM_OK);
    assert_true(mm_args_real(p.args, "rate", 0) > 4.99e-4);
    assert_string_equal(mm_args_text(p.args, "shape"), "linear");
    assert_string_equal(mm_args_text(p.args, "out"), "out.txt");
    assert_true(mm_args_has(p.args, "dry-run"));
    assert_true(mm_args_has(p.args, "dry_run"));
    assert_int_equal(mm_args_int(p.args, "steps", 0), 8); // the last one counts
    assert_int_equal(mm_args_int(p.args, "batch", 17), 17);
    assert_null(mm_args_text(p.args, "no such option"));
    mm_args_free(p.args);
    parse(&p, "train -no out.txt");
    assert_int_equal(p.status, MM_OK);
    assert_string_equal(mm_args_text(p.args, "out"), "out.txt");
    mm_args_free(p.args);
    parse(&p, "train -oout.txt");
    assert_string_equal(mm_args_text(p.args, "out"), "out.txt");
    mm_args_free(p.args);
}

static void repeats_options(void **state)
{
    (void)state;
    static const char *const LINES[] = {
        "train --data a b --batch 4 --data c",
        "train --data a --batch 4 --data_path b --json --data c",
        "train --data a b c --batch 4",
        "train --batch 4 --data=a b -n --data c",
    };
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++) {
        parsed p;
        parse(&p, LINES[i]);
        CHECK_ROW(p.status == MM_OK, i);
        size_t count;
        const char *const *files = mm_args_list(p.args, "data", &count);
        CHECK_ROW(count == 3, i);
        CHECK_ROW(strcmp(files[0], "a") == 0 && strcmp(files[1], "b") == 0 &&
                      strcmp(files[2], "c") == 0,
                  i);
        CHECK_ROW(mm_args_int(p.args, "batch", 0) == 4, i);
        mm_args_free(p.args);
    }
    // A command with arguments of its own keeps them.
    parsed p;
    parse(&p, "show --data a last");
    assert_int_equal(p.status, MM_OK);
    size_t count;
    (void)mm_args_list(p.args, "data", &count);
    assert_int_equal(count, 1);
    assert_string_equal(mm_args_at(p.args, 0), "last");
    mm_args_free(p.args);
}

static void takes_arguments(void **state)
{
    (void)state;
    parsed p;
    parse(&p, "show -a one -- --data");
    assert_int_equal(p.status, MM_OK);
    assert_int_equal(mm_args_count(p.args), 2);
    assert_string_equal(mm_args_at(p.args, 0), "one");
    assert_string_equal(mm_args_at(p.args, 1), "--data");
    assert_null(mm_args_at(p.args, 2));
    mm_args_free(p.args);
    parse(&p, "data --json check - f");
    assert_int_equal(p.status, MM_OK);
    assert_string_equal(mm_args_command(p.args)->name, "data check");
    assert_string_equal(mm_args_at(p.args, 0), "-");
    mm_args_free(p.args);
}

static void knows_what_was_not_said(void **state)
{
    (void)state;
    parsed p;
    parse(&p, "");
    assert_int_equal(p.status, MM_OK);
    assert_null(mm_args_command(p.args));
    assert_null(mm_args_family(p.args));
    mm_args_free(p.args);
    parse(&p, "data");
    assert_int_equal(p.status, MM_OK);
    assert_string_equal(mm_args_family(p.args), "data");
    mm_args_free(p.args);
    // Help needs no arguments.
    parse(&p, "show --help");
    assert_int_equal(p.status, MM_OK);
    assert_true(mm_args_has(p.args, "help"));
    mm_args_free(p.args);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *message;
    } ROWS[] = {
        {"tarin", "no command 'tarin'; did you mean `mmrun train`?"},
        {"xyzzy", "`mmrun help` lists them"},
        {"data chekc f", "did you mean `mmrun data check`?"},
        {"data xyzzy", "`mmrun help data` lists them"},
        {"check", "did you mean `mmrun data check` or `mmrun db check`?"},
        {"dta", "did you mean `mmrun data`?"},
        {"train --bach 4", "unknown option --bach; did you mean --batch?"},
        {"train --dryrun", "did you mean --dry-run?"},
        {"train --quux", "unknown option --quux of `mmrun train`"},
        {"--batch 4 train", "unknown global option --batch"},
        {"train -Z", "unknown option -Z"},
        {"train --", NULL},
        {"train --batch", "--batch needs a value"},
        {"train --out --json", "--out needs a value (FILE), found '--json'"},
        {"train --batch 0", "--batch must be between 1 and 64, found 0"},
        {"train --batch 65", "found 65"},
        {"train --batch -3", "found -3"},
        {"train --batch 4.5", "--batch must be a whole number, found '4.5'"},
        {"train --batch 4x", "found '4x'"},
        {"train --batch ~4", "found ' 4'"},
        {"train --batch=", "--batch needs a value"},
        {"train --steps 0", "--steps must be at least 1"},
        {"train --steps 99999999999999999999", "--steps is too large"},
        {"train --lr 2", "--rate must be between 0 and 1"},
        {"train --lr nan", "--rate must be a number, found 'nan'"},
        {"train --lr 1e999", "--rate must be a number"},
        {"train --shape cosin", "cosine, constant, linear, found 'cosin'; did you mean cosine?"},
        {"train --shape square", "must be one of cosine, constant, linear, found 'square'"},
        {"train --json=yes", "--json takes no value, found 'yes'"},
        {"train rest", "`mmrun train` takes no argument, found 'rest'"},
        {"show", "`mmrun show` needs RUN"},
        {"show a b c", "takes no further argument, found 'c'"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        parsed p;
        parse(&p, ROWS[i].line);
        if (!ROWS[i].message) {
            CHECK_ROW(p.status == MM_OK, i);
        } else {
            CHECK_ROW(p.status == MM_EUSAGE, i);
            check_message(&p.err, ROWS[i].message);
        }
        mm_args_free(p.args);
    }
}

static void survives_a_lack_of_memory(void **state)
{
    (void)state;
    char *argv[] = {"mmrun", "train", "--batch", "4"};
    for (uint64_t nth = 1; nth <= 4; nth++) {
        mm_args *args = NULL;
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_args_parse(&args, COMMANDS, 4, argv, &err);
        mm_alloc_fail_at(0);
        assert_int_equal(status, MM_ENOMEM);
        mm_args_free(args);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_options_anywhere),    cmocka_unit_test(knows_values),
        cmocka_unit_test(repeats_options),           cmocka_unit_test(takes_arguments),
        cmocka_unit_test(knows_what_was_not_said),   cmocka_unit_test(refuses),
        cmocka_unit_test(survives_a_lack_of_memory),
    };
    return cmocka_run_group_tests_name("runner/args", tests, NULL, NULL);
}
