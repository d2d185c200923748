/* Progress: stable plain lines, JSON lines, and a live line that never wraps, on a real terminal
 * (a pseudo-terminal) of several widths. */
#include "check.h"

#include "core/base/width.h"
#include "runner/output.h"
#include "runner/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const mm_progress_train NOW = {.step = 1200,
                                      .total = 5000,
                                      .loss = 2.31441,
                                      .val_loss = 2.5,
                                      .lr = 4.1e-4,
                                      .grad_norm = 0.75,
                                      .tokens_per_s = 12345,
                                      .tokens = 987654,
                                      .mem_bytes = 1234567890,
                                      .eta_s = 372};

typedef void (*talk_fn)(mm_progress *progress);

static void one_step(mm_progress *progress) { mm_progress_step(progress, &NOW, true); }

static void no_log_step(mm_progress *progress) { mm_progress_step(progress, &NOW, false); }

static void missing_fields(mm_progress *progress)
{
    const mm_progress_train first = {.step = 1, .loss = (double)NAN, .val_loss = (double)NAN};
    mm_progress_step(progress, &first, true);
}

static void counted(mm_progress *progress)
{
    mm_progress_count(progress, 10, 2048, "bytes"); // too early for a plain line
    mm_progress_count(progress, 2048, 2048, "bytes");
    mm_progress_count(progress, 2048, 2048, "bytes"); // nothing new
}

static void a_line(mm_progress *progress) { mm_progress_line(progress, "saved \x1b[31m%d", 7); }

/* What a child process writes to a descriptor that is its standard error. */
static void talk_in_child(const mm_context *context, const char *label, talk_fn talk, int fd)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fd, STDERR_FILENO);
        mm_progress *progress = NULL;
        if (mm_progress_new(&progress, context, label, NULL) != MM_OK) _exit(2);
        talk(progress);
        mm_progress_end(progress);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void check_plain(mm_progress_mode mode, talk_fn talk, const char *expected)
{
    char text[2048];
    FILE *file = tmpfile();
    assert_non_null(file);
    talk_in_child(&(mm_context){.progress = mode}, "run-7", talk, fileno(file));
    rewind(file);
    const size_t got = fread(text, 1, sizeof text - 1, file);
    text[got] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static void writes_plain_lines(void **state)
{
    (void)state;
    check_plain(MM_PROGRESS_PLAIN, one_step,
                "run-7 step=1200/5000 loss=2.3144 val_loss=2.5000 lr=4.100e-04 grad_norm=0.75 "
                "tokens=987654 tokens_per_s=12345 mem_bytes=1234567890 eta_s=372\n");
    check_plain(MM_PROGRESS_PLAIN, missing_fields, "run-7 step=1\n");
    check_plain(MM_PROGRESS_PLAIN, no_log_step, "");
    check_plain(MM_PROGRESS_PLAIN, counted, "run-7 bytes=2048/2048\n");
    check_plain(MM_PROGRESS_PLAIN, a_line, "saved \\x1b[31m7\n");
    check_plain(MM_PROGRESS_NONE, one_step, "");
}

static void writes_json_lines(void **state)
{
    (void)state;
    check_plain(
        MM_PROGRESS_JSON, one_step,
        "{\"event\":\"step\",\"label\":\"run-7\",\"step\":1200,\"total\":5000,"
        "\"loss\":2.31441,\"val_loss\":2.5,\"lr\":0.00041,\"grad_norm\":0.75,"
        "\"tokens\":987654,\"tokens_per_s\":12345,\"mem_bytes\":1234567890,\"eta_s\":372}\n");
    check_plain(MM_PROGRESS_JSON, a_line,
                "{\"event\":\"line\",\"label\":\"run-7\",\"text\":\"saved \\u001b[31m7\"}\n");
}

/* Live output on a terminal of so many columns. */
static size_t live_output(int columns, const char *label, bool is_colored, talk_fn talk, char *text,
                          size_t bytes)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        print_message("no pseudo-terminal here: %s\n", strerror(errno));
        skip();
    }
    const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    const struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    assert_int_equal(ioctl(slave, TIOCSWINSZ, &size), 0);
    const mm_context context = {.progress = MM_PROGRESS_BAR, .color_err = is_colored};
    talk_in_child(&context, label, talk, slave);
    assert_int_equal(fcntl(master, F_SETFL, O_NONBLOCK), 0);
    size_t used = 0;
    while (used + 1 < bytes) {
        const ssize_t n = read(master, text + used, bytes - 1 - used);
        if (n <= 0) break;
        used += (size_t)n;
    }
    text[used] = '\0';
    close(slave);
    close(master);
    return used;
}

/* Width of the widest line, escape sequences apart. */
static int widest(const char *text)
{
    int widest_line = 0;
    while (*text) {
        char line[1024];
        size_t length = 0;
        while (*text && *text != '\r' && *text != '\n') {
            if (*text == '\x1b') {
                text++;
                text += strcspn(text, "mK");
                if (*text) text++;
                continue;
            }
            line[length++] = *text++;
        }
        if (*text) text++;
        const int width = mm_text_width(line, length);
        if (width > widest_line) widest_line = width;
    }
    return widest_line;
}

static void shows_a_live_line(void **state)
{
    (void)state;
    char text[4096];
    live_output(120, "run-7", false, one_step, text, sizeof text);
    assert_non_null(strstr(text, "\rrun-7  step 1200/5000  24%  loss 2.314  val 2.500  eta 6m12s  "
                                 "12.3k tok/s  lr 0.00041  grad 0.75  1.1 GiB\x1b[K"));
    // Taken away at the end.
    assert_string_equal(text + strlen(text) - 4, "\r\x1b[K");
    live_output(80, "read", false, counted, text, sizeof text);
    assert_non_null(strstr(text, "read  100%  2.0 KiB of 2.0 KiB"));
}

static void never_wraps(void **state)
{
    (void)state;
    static const char *const LABELS[] = {
        "run-7", "一个很长的名字用来测试",
        "a-name-that-is-much-longer-than-any-terminal-would-like-it-to-be"};
    for (int columns = 8; columns <= 132; columns += 4)
        for (size_t i = 0; i < sizeof LABELS / sizeof LABELS[0]; i++) {
            char text[4096];
            live_output(columns, LABELS[i], true, one_step, text, sizeof text);
            if (widest(text) >= columns)
                fail_msg("%d columns, label %zu: a line of %d", columns, i, widest(text));
        }
}

static void keeps_lines_above_the_live_one(mm_progress *progress)
{
    mm_progress_step(progress, &NOW, true);
    mm_progress_line(progress, "kept");
    mm_warn(&(mm_context){0}, "warned");
}

static void prints_around_the_live_line(void **state)
{
    (void)state;
    char text[4096];
    live_output(60, "run-7", false, keeps_lines_above_the_live_one, text, sizeof text);
    const char *kept = strstr(text, "\r\x1b[Kkept\r\nrun-7  step");
    assert_non_null(kept);
    assert_non_null(strstr(kept, "\r\x1b[Kwarned\r\nrun-7  step"));
}

static void accepts_null(void **state)
{
    (void)state;
    mm_progress_step(NULL, &NOW, true);
    mm_progress_count(NULL, 1, 2, "bytes");
    mm_progress_line(NULL, "x");
    mm_progress_end(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_plain_lines),          cmocka_unit_test(writes_json_lines),
        cmocka_unit_test(shows_a_live_line),           cmocka_unit_test(never_wraps),
        cmocka_unit_test(prints_around_the_live_line), cmocka_unit_test(accepts_null),
    };
    return cmocka_run_group_tests_name("runner/progress", tests, NULL, NULL);
}
