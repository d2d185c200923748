/* Where a run happens: machine, kernel, libraries, source revision, read from /proc and .git. */
#include "runner/environment.h"

#include "core/base/file.h"
#include "core/nn/engine.h"
#include "core/nn/pool.h"
#include "store/store.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { SMALL_FILE_BYTES = 1 << 20 };

// Files in /proc have no size, so they are read to their end through a fixed buffer.
static size_t read_small(const char *path, char *buffer, size_t bytes)
{
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    const size_t got = fread(buffer, 1, bytes - 1, file);
    fclose(file);
    buffer[got] = '\0';
    return got;
}

// Value of the first "key<spaces>: value" line, trimmed; false when there is none.
static bool field_of(const char *text, const char *key, char *out, size_t bytes)
{
    const char *at = text;
    while (at && strncmp(at, key, strlen(key)) != 0) {
        at = strchr(at, '\n');
        if (at) at++;
    }
    if (!at) return false;
    at = strchr(at, ':');
    if (!at) return false;
    at++;
    while (*at == ' ' || *at == '\t')
        at++;
    snprintf(out, bytes, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

static int64_t kilobytes_of(const char *path, const char *key)
{
    char text[8192];
    char value[64];
    if (!read_small(path, text, sizeof text) || !field_of(text, key, value, sizeof value)) return 0;
    return strtoll(value, NULL, 10) * 1024;
}

int64_t mm_memory_used(void)
{
    char text[128];
    if (!read_small("/proc/self/statm", text, sizeof text)) return 0;
    const char *second = strchr(text, ' ');
    return second ? strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE) : 0;
}

int64_t mm_memory_peak(void)
{
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used) != 0) return 0;
    return (int64_t)used.ru_maxrss * 1024;
}

int64_t mm_memory_available(void)
{
    int64_t available = kilobytes_of("/proc/meminfo", "MemAvailable");
    char limit[64];
    char used[64];
    if (read_small("/sys/fs/cgroup/memory.max", limit, sizeof limit) &&
        isdigit((unsigned char)limit[0]) &&
        read_small("/sys/fs/cgroup/memory.current", used, sizeof used)) {
        const int64_t left = strtoll(limit, NULL, 10) - strtoll(used, NULL, 10);
        if (left < available) available = left > 0 ? left : 1;
    }
    return available;
}

/* What the kernel lists for the first processor, of that which matters to the engine. */
static void cpu_features(const char *cpuinfo, char *out, size_t bytes)
{
    static const char *const WANTED[] = {"avx2",     "fma",         "avx512f",
                                         "avx512bw", "avx512_bf16", "amx_tile",
                                         "amx_bf16", "asimd",       "bf16"};
    out[0] = '\0';
    const char *flags = strstr(cpuinfo, "\nflags");
    if (!flags) flags = strstr(cpuinfo, "\nFeatures");
    if (!flags) return;
    flags++;
    const size_t length = strcspn(flags, "\n");
    size_t used = 0;
    for (size_t i = 0; i < sizeof WANTED / sizeof WANTED[0]; i++) {
        char word[32];
        const int n = snprintf(word, sizeof word, " %s", WANTED[i]);
        for (const char *at = strstr(flags, word); at && at < flags + length;
             at = strstr(at + 1, word)) {
            if (at[n] != ' ' && at[n] != '\n' && at[n] != '\0') continue;
            used +=
                (size_t)snprintf(out + used, bytes - used, "%s%s", used > 0 ? " " : "", WANTED[i]);
            break;
        }
        if (used >= bytes) return;
    }
}

void mm_environment(void (*each)(void *context, const char *key, const char *value), void *context)
{
    char text[65536];
    char value[256];
    struct utsname system;
    if (read_small("/proc/cpuinfo", text, sizeof text)) {
        if (field_of(text, "model name", value, sizeof value) ||
            field_of(text, "CPU part", value, sizeof value))
            each(context, "cpu", value);
        cpu_features(text, value, sizeof value);
        each(context, "cpu_features", value);
    }
    snprintf(value, sizeof value, "%d", mm_cpu_count());
    each(context, "cores", value);
    snprintf(value, sizeof value, "%lld", (long long)kilobytes_of("/proc/meminfo", "MemTotal"));
    each(context, "memory_bytes", value);
    if (read_small("/etc/os-release", text, sizeof text)) {
        const char *name = strstr(text, "PRETTY_NAME=\"");
        if (name) {
            name += strlen("PRETTY_NAME=\"");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(name, "\"\n"), name);
            each(context, "os", value);
        }
    }
    if (uname(&system) == 0) {
        snprintf(value, sizeof value, "%s %s %s", system.sysname, system.release, system.machine);
        each(context, "kernel", value);
        each(context, "hostname", system.nodename);
    }
    char cwd[4096];
    if (getcwd(cwd, sizeof cwd)) each(context, "cwd", cwd);
    each(context, "compiler", __VERSION__);
    each(context, "sqlite", mm_sqlite_version());
}

int32_t mm_cpu_allowed(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
    return (int32_t)sysconf(_SC_NPROCESSORS_ONLN); // more processors than the set has room for
}

bool mm_amx_permitted(void)
{
#if defined(__x86_64__) && defined(SYS_arch_prctl)
    enum { GET_PERMISSION = 0x1022 /* ARCH_GET_XCOMP_PERM */, TILE_DATA = 18 };
    uint64_t granted = 0;
    if (mm_engine_isa(MM_BF16) && syscall(SYS_arch_prctl, GET_PERMISSION, &granted) != 0)
        return false;
    return (granted >> TILE_DATA & 1) != 0;
#else
    return false;
#endif
}

// First line of a file without its newline; "" when unreadable.
static void first_line(const char *path, char *out, size_t bytes)
{
    if (!read_small(path, out, bytes)) out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

static bool is_commit(const char *text)
{
    size_t i = 0;
    while (isxdigit((unsigned char)text[i]))
        i++;
    return i == 40 && text[i] == '\0';
}

static void packed_ref(const char *git, const char *ref, char out[41])
{
    char path[4300];
    snprintf(path, sizeof path, "%s/packed-refs", git);
    char *text = NULL;
    size_t bytes = 0;
    if (mm_file_read(path, SMALL_FILE_BYTES, &text, &bytes, NULL) != MM_OK) return;
    const size_t length = strlen(ref);
    for (const char *line = text; line && *line;) {
        const size_t used = strcspn(line, "\n");
        if (used == 41 + length && memcmp(line + 41, ref, length) == 0) {
            memcpy(out, line, 40);
            out[40] = '\0';
        }
        line = strchr(line, '\n');
        if (line) line++;
    }
    mm_free(text);
}

void mm_git_commit(char out[41])
{
    char folder[4096];
    char path[4200];
    char line[512];
    out[0] = '\0';
    if (!getcwd(folder, sizeof folder)) return;
    for (;;) {
        snprintf(path, sizeof path, "%s/.git", folder);
        if (mm_file_is_dir(path)) break;
        char *slash = strrchr(folder, '/');
        if (!slash || slash == folder) return;
        *slash = '\0';
    }
    char git[4200];
    snprintf(git, sizeof git, "%s", path);
    char head[4300];
    snprintf(head, sizeof head, "%s/HEAD", git);
    first_line(head, line, sizeof line);
    if (strncmp(line, "ref: ", 5) == 0) {
        const char *ref = line + 5;
        char file[5000];
        char target[512];
        snprintf(file, sizeof file, "%s/%s", git, ref);
        first_line(file, target, sizeof target);
        if (is_commit(target))
            memcpy(out, target, 41);
        else
            packed_ref(git, ref, out);
    } else if (is_commit(line)) {
        memcpy(out, line, 41);
    }
    if (!is_commit(out)) out[0] = '\0';
}
