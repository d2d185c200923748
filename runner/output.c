/* stdout and stderr of the program. Text is made printable on its way out, here and nowhere else;
 * colour travels beside the text and never inside it, so that data cannot bring its own. */
#include "runner/output.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/utf8.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TALK_BYTES_MAX = 1 << 20, OUT_BYTES_MAX = 1 << 26, JSON_DEPTH_MAX = 32 };

/* ---- talk --------------------------------------------------------------------------------------
 */

static pthread_mutex_t talk_lock = PTHREAD_MUTEX_INITIALIZER;
static mm_str live_line; // what stands at the end of stderr now; empty: nothing

static void write_all(const char *data, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t n = write(STDERR_FILENO, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; // nobody is left to tell
        data += n;
        bytes -= (size_t)n;
    }
}

static void talk_between(const char *prefix, const char *text, size_t length, const char *suffix)
{
    mm_str line = {.limit = TALK_BYTES_MAX};
    pthread_mutex_lock(&talk_lock);
    if (live_line.length > 0) mm_str_add(&line, "\r\x1b[K");
    mm_str_add(&line, prefix);
    mm_utf8_add_printable(&line, text, length);
    mm_str_add(&line, suffix);
    if (live_line.length > 0) mm_str_add_bytes(&line, live_line.data, live_line.length);
    fflush(stdout); // data printed before this message stands before it
    write_all(mm_str_text(&line), line.length);
    pthread_mutex_unlock(&talk_lock);
    mm_str_drop(&line);
}

void mm_talk_line(const char *prefix, const char *text, size_t length)
{
    talk_between(prefix, text, length, "\n");
}

void mm_talk_prompt(const char *text) { talk_between("", text, strlen(text), ""); }

void mm_talk_live(const char *line)
{
    pthread_mutex_lock(&talk_lock);
    const bool was_shown = live_line.length > 0;
    mm_str_clear(&live_line);
    if (line) mm_str_add(&live_line, line);
    if (line || was_shown) {
        mm_str text = {0};
        // Text first and erasing after it: nothing flickers.
        mm_str_addf(&text, "\r%s\x1b[K", mm_str_text(&live_line));
        write_all(mm_str_text(&text), text.length);
        mm_str_drop(&text);
    }
    if (!line) mm_str_drop(&live_line);
    pthread_mutex_unlock(&talk_lock);
}

static void talk(const char *format, va_list list)
{
    char text[4096];
    const int length = vsnprintf(text, sizeof text, format, list);
    if (length < 0) return;
    size_t bytes = (size_t)length;
    if (bytes >= sizeof text) bytes = sizeof text - 1;
    while (bytes > 0 && text[bytes - 1] == '\n')
        bytes--;
    mm_talk_line("", text, bytes);
}

void mm_say(const mm_context *context, const char *format, ...)
{
    if (context->quiet) return;
    va_list list;
    va_start(list, format);
    talk(format, list);
    va_end(list);
}

void mm_say_dim(const mm_context *context, const char *format, ...)
{
    if (context->quiet) return;
    char text[1024];
    va_list list;
    va_start(list, format);
    const int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (length < 0) return;
    mm_str suffix = {0};
    mm_str_addf(&suffix, "%s\n", mm_color_code(context->color_err, MM_COLOR_NONE));
    talk_between(mm_color_code(context->color_err, MM_COLOR_DIM), text, strnlen(text, sizeof text),
                 mm_str_text(&suffix));
    mm_str_drop(&suffix);
}

void mm_warn(const mm_context *context, const char *format, ...)
{
    (void)context;
    va_list list;
    va_start(list, format);
    talk(format, list);
    va_end(list);
}

/* ---- the terminal ------------------------------------------------------------------------------
 */

static int columns_of(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    const char *columns = getenv("COLUMNS");
    const long value = columns ? strtol(columns, NULL, 10) : 0;
    return value >= 20 && value <= 1000 ? (int)value : 80;
}

int mm_talk_columns(void) { return columns_of(STDERR_FILENO); }

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && *value;
}

static bool is_dumb(void)
{
    const char *term = getenv("TERM");
    return !term || !*term || strcmp(term, "dumb") == 0;
}

const char *mm_locale_name(void)
{
    static const char *const NAMES[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const char *locale = getenv(NAMES[i]);
        if (locale && *locale) return locale;
    }
    return "";
}

bool mm_locale_is_utf8(void)
{
    const char *locale = mm_locale_name();
    return strcasestr(locale, "UTF-8") || strcasestr(locale, "UTF8");
}

void mm_context_terminal(mm_context *context, const char *color)
{
    const bool always = color && strcmp(color, "always") == 0;
    const bool never = color && strcmp(color, "never") == 0;
    const bool is_wanted = !never && (always || (!is_set("NO_COLOR") && !is_dumb()));
    context->color_out = is_wanted && (always || isatty(STDOUT_FILENO));
    context->color_err = is_wanted && (always || isatty(STDERR_FILENO));
    const bool is_utf8 = mm_locale_is_utf8();
    context->utf8_out = is_utf8 && isatty(STDOUT_FILENO);
    context->utf8_err = is_utf8 && isatty(STDERR_FILENO);
    context->columns = isatty(STDOUT_FILENO) ? columns_of(STDOUT_FILENO) : 0;
}

const char *mm_color_code(bool on, mm_color color)
{
    static const char *const CODES[] = {"\x1b[0m",  "\x1b[1m",  "\x1b[2m", "\x1b[31m",
                                        "\x1b[32m", "\x1b[33m", "\x1b[36m"};
    return on ? CODES[color] : "";
}

/* ---- data --------------------------------------------------------------------------------------
 */

static bool is_lost; // output is incomplete for lack of memory
static int write_errno;

static void put(const char *data, size_t bytes)
{
    if (write_errno != 0 || bytes == 0) return;
    errno = 0;
    if (fwrite(data, 1, bytes, stdout) != bytes) write_errno = errno ? errno : EIO;
}

void mm_out_lost(void) { is_lost = true; }

bool mm_out_failed(void) { return write_errno != 0 || is_lost; }

void mm_out(const char *format, ...)
{
    char text[8192];
    va_list list;
    va_start(list, format);
    const int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (length < 0) return;
    char *whole = text;
    if ((size_t)length >= sizeof text) {
        whole = mm_alloc((size_t)length + 1);
        if (!whole) {
            mm_out_lost();
            return;
        }
        va_start(list, format);
        vsnprintf(whole, (size_t)length + 1, format, list);
        va_end(list);
    }
    mm_str printable = {.limit = OUT_BYTES_MAX};
    mm_utf8_add_printable(&printable, whole, (size_t)length);
    if (printable.status != MM_OK) mm_out_lost();
    put(mm_str_text(&printable), printable.length);
    mm_str_drop(&printable);
    if (whole != text) mm_free(whole);
}

void mm_out_text(const mm_str *text)
{
    if (text->status != MM_OK) mm_out_lost();
    put(mm_str_text(text), text->length);
}

void mm_out_color(const mm_context *context, mm_color color)
{
    const char *code = mm_color_code(context->color_out, color);
    put(code, strlen(code));
}

void mm_out_flush(void)
{
    errno = 0;
    if (fflush(stdout) != 0 && write_errno == 0) write_errno = errno ? errno : EIO;
}

mm_status mm_out_finish(mm_err *err)
{
    mm_out_flush();
    if (is_lost) return MM_FAIL(err, MM_ENOMEM, "out of memory: the output is incomplete");
    if (write_errno == 0 || write_errno == EPIPE) return MM_OK;
    errno = write_errno;
    return MM_FAIL_ERRNO(err, "cannot write to standard output");
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static void add_json(mm_str *out, const json_t *value, int depth);

static void add_object(mm_str *out, const json_t *object, int depth)
{
    const char *separator = "";
    mm_str_add_char(out, '{');
    // jansson's iterators take a non-const object but do not change it.
    json_t *writable = (json_t *)(uintptr_t)object;
    for (void *at = json_object_iter(writable); at; at = json_object_iter_next(writable, at)) {
        mm_str_add(out, separator);
        const char *key = json_object_iter_key(at);
        mm_json_add_string(out, key, strlen(key));
        mm_str_add_char(out, ':');
        add_json(out, json_object_iter_value(at), depth + 1);
        separator = ",";
    }
    mm_str_add_char(out, '}');
}

/* As mm_json_write, but with the shortest text of a number ("0.1", not "0.10000000000000001"). */
static void add_json(mm_str *out, const json_t *value, int depth)
{
    MM_ASSERT(depth < JSON_DEPTH_MAX); // values printed are made by the commands
    if (json_is_object(value)) {
        add_object(out, value, depth);
    } else if (json_is_array(value)) {
        mm_str_add_char(out, '[');
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i > 0) mm_str_add_char(out, ',');
            add_json(out, json_array_get(value, i), depth + 1);
        }
        mm_str_add_char(out, ']');
    } else if (json_is_real(value)) {
        mm_json_add_number(out, json_real_value(value));
    } else {
        mm_json_write(value, out);
    }
}

void mm_out_json(const json_t *value)
{
    if (!value) {
        mm_out_lost();
        return;
    }
    mm_str text = {.limit = OUT_BYTES_MAX};
    add_json(&text, value, 0);
    mm_str_add_char(&text, '\n');
    mm_out_text(&text);
    mm_str_drop(&text);
}

json_t *mm_json_of_text(const char *text)
{
    if (!text) return json_null();
    mm_str valid = {.limit = OUT_BYTES_MAX};
    mm_utf8_add_valid(&valid, text, strlen(text));
    if (valid.status != MM_OK) mm_out_lost();
    json_t *value = json_string(mm_str_text(&valid));
    mm_str_drop(&valid);
    return value;
}

json_t *mm_json_of_real(double value)
{
    if (isnan(value)) return json_null();
    if (isinf(value)) return json_string(value > 0 ? "Infinity" : "-Infinity");
    return json_real(value);
}

json_t *mm_json_of_time(int64_t epoch_ms)
{
    if (epoch_ms == 0) return json_null();
    char text[MM_TIME_ISO_BYTES];
    mm_time_iso(epoch_ms, text);
    return json_string(text);
}
