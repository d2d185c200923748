/* The table of commands: what parser and help take for granted about it. */
#include "check.h"

#include "runner/args.h"
#include "runner/commands.h"

#include <ctype.h>

enum { NAMES_MAX = 512 };

typedef struct names {
    const char *text[NAMES_MAX];
    size_t length[NAMES_MAX];
    size_t count;
} names;

static bool is_same(const char *a, size_t a_length, const char *b, size_t b_length)
{
    if (a_length != b_length) return false;
    for (size_t i = 0; i < a_length; i++)
        if ((a[i] == '_' ? '-' : a[i]) != (b[i] == '_' ? '-' : b[i])) return false;
    return true;
}

static void take(names *all, const mm_command *command, const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_')
            fail_msg("%s: option '%.*s' has a strange letter", command->name, (int)length, name);
    for (size_t i = 0; i < all->count; i++)
        if (is_same(all->text[i], all->length[i], name, length))
            fail_msg("%s: two options are called '%.*s'", command->name, (int)length, name);
    assert_true(all->count < NAMES_MAX);
    all->text[all->count] = name;
    all->length[all->count++] = length;
}

static void take_table(names *all, const mm_command *command, const mm_option *table)
{
    for (const mm_option *option = table; option->name; option++) {
        take(all, command, option->name, strlen(option->name));
        const char *at = option->aliases;
        const char *alias;
        size_t length;
        while (mm_list_next(&at, &alias, &length))
            // The canonical name may be listed again as the database name.
            if (!is_same(alias, length, option->name, strlen(option->name)))
                take(all, command, alias, length);
        if (!option->help) fail_msg("%s --%s has no help", command->name, option->name);
        if (option->type == MM_OPTION_CHOICE && !option->choices)
            fail_msg("%s --%s has no choices", command->name, option->name);
    }
}

static void options_have_names_of_their_own(void **state)
{
    (void)state;
    for (const mm_command *command = mm_commands; command->name; command++) {
        names all = {.count = 0};
        const mm_option *tables[MM_TABLES_MAX];
        const size_t n = mm_command_tables(command, tables);
        take_table(&all, command, mm_global_options);
        for (size_t t = 0; t < n; t++)
            take_table(&all, command, tables[t]);
    }
}

static void commands_are_complete(void **state)
{
    (void)state;
    for (const mm_command *command = mm_commands; command->name; command++) {
        if (!command->run || !command->group || !command->summary)
            fail_msg("%s is incomplete", command->name);
        if (command->args_min > command->args_max)
            fail_msg("%s: args_min over args_max", command->name);
        if ((command->args_max > 0) != (command->usage != NULL))
            fail_msg("%s: usage and number of arguments disagree", command->name);
        assert_ptr_equal(mm_command_find(mm_commands, command->name), command);
    }
}

/* Help prints a heading when the group changes: a group that comes back would be printed twice. */
static void groups_stand_together(void **state)
{
    (void)state;
    for (const mm_command *a = mm_commands; a->name; a++)
        for (const mm_command *b = a + 1; b->name; b++)
            if (strcmp(a->group, b->group) == 0 && strcmp(b[-1].group, b->group) != 0)
                fail_msg("%s stands apart from its group", b->name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_have_names_of_their_own),
        cmocka_unit_test(commands_are_complete),
        cmocka_unit_test(groups_stand_together),
    };
    return cmocka_run_group_tests_name("runner/commands", tests, NULL, NULL);
}
