/* `mmrun doctor`: what this machine is, and a line on how to mend each thing that is not right.
 *
 * Nothing is written, apart from an empty probe file that is taken away again. */
#include "core/base/file.h"
#include "core/nn/engine.h"
#include "core/nn/pool.h"
#include "runner/commands.h"
#include "runner/environment.h"
#include "runner/help.h"
#include "runner/output.h"

#include <openssl/crypto.h>
#include <zstd.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum verdict { FINE = 0, NOTE, PROBLEM } verdict;

typedef struct check {
    const char *group;
    const char *name;
    verdict verdict;
    char value[256];
    char fix[256]; /* "" when there is nothing to do */
} check;

enum { CHECKS_MAX = 40, PROBE_MS = 150 };

typedef struct checks {
    check list[CHECKS_MAX];
    size_t count;
} checks;

static check *add(checks *all, const char *group, const char *name, const char *format, ...)
    MM_PRINTF(4, 5);
static check *add(checks *all, const char *group, const char *name, const char *format, ...)
{
    MM_ASSERT(all->count < CHECKS_MAX);
    check *c = &all->list[all->count++];
    *c = (check){.group = group, .name = name};
    va_list list;
    va_start(list, format);
    vsnprintf(c->value, sizeof c->value, format, list);
    va_end(list);
    return c;
}

static void judge(check *c, verdict how, const char *format, ...) MM_PRINTF(3, 4);
static void judge(check *c, verdict how, const char *format, ...)
{
    c->verdict = how;
    va_list list;
    va_start(list, format);
    vsnprintf(c->fix, sizeof c->fix, format, list);
    va_end(list);
}

/* ---- machine -----------------------------------------------------------------------------------
 */

static const char MACHINE[] = "Machine";

typedef struct facts {
    char cpu[256];
    char features[256];
    char os[256];
    char kernel[256];
    char memory_bytes[64];
    char compiler[256];
} facts;

static void take_fact(void *context, const char *key, const char *value)
{
    facts *f = context;
    const struct {
        const char *key;
        char *to;
        size_t bytes;
    } wanted[] = {{"cpu", f->cpu, sizeof f->cpu},
                  {"cpu_features", f->features, sizeof f->features},
                  {"os", f->os, sizeof f->os},
                  {"kernel", f->kernel, sizeof f->kernel},
                  {"memory_bytes", f->memory_bytes, sizeof f->memory_bytes},
                  {"compiler", f->compiler, sizeof f->compiler}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (strcmp(key, wanted[i].key) == 0) snprintf(wanted[i].to, wanted[i].bytes, "%s", value);
}

// What the processor can do, measured; print_json hands it on as numbers.
typedef struct powers {
    int32_t threads;
    mm_dtype dtype; // what --dtype is when it is not given
    double fp32_flops;
    double bf16_flops;
    double read_bytes;
} powers;

static void check_threads(checks *all, int32_t threads)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    const int32_t allowed = mm_cpu_allowed();
    check *c = add(all, MACHINE, "threads", "%d usable of %ld", (int)threads, online);
    if (threads < allowed)
        judge(
            c, NOTE,
            "a CPU quota of the control group takes the rest: docker --cpus, CPUQuota= of systemd");
    else if (allowed < online)
        judge(c, NOTE, "an affinity mask takes the rest: taskset, docker --cpuset-cpus");
    static const char *const VARIABLES[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"};
    for (size_t i = 0; i < sizeof VARIABLES / sizeof VARIABLES[0]; i++) {
        if (!getenv(VARIABLES[i])) continue;
        c = add(all, MACHINE, VARIABLES[i], "%.100s", getenv(VARIABLES[i]));
        judge(c, FINE, "has no effect: mmrun starts threads of its own, --threads says how many");
    }
}

#if defined(__x86_64__)
static bool has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = strstr(list, word); at; at = strstr(at + 1, word))
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
    return false;
}
#endif

// The instructions that decide which kernels run, from the oldest to the newest.
static void check_features(checks *all, const facts *f)
{
#if defined(__x86_64__)
    static const char *const WANTED[] = {"avx2",        "fma",      "avx512f", "avx512bw",
                                         "avx512_bf16", "amx_tile", "amx_bf16"};
    char missing[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof WANTED / sizeof WANTED[0]; i++)
        if (!has_word(f->features, WANTED[i]))
            used += (size_t)snprintf(missing + used, sizeof missing - used, " %s", WANTED[i]);
    add(all, MACHINE, "features", "%s%s%s", f->features[0] ? f->features : "none known",
        used > 0 ? "; not there:" : "", missing);
    if (!has_word(f->features, "amx_tile") || !has_word(f->features, "amx_bf16")) return;
    const bool is_permitted = mm_amx_permitted();
    check *c = add(all, MACHINE, "matrix tiles", "%s",
                   is_permitted ? "permitted" : "the kernel does not permit them");
    if (!is_permitted)
        judge(c, NOTE,
              "bf16 loses most of its speed: Linux 5.16 or newer, and a container profile that "
              "allows the system call arch_prctl");
    else if (!getenv("MMRUN_ISA") && strcmp(mm_engine_isa(MM_BF16), "amx") != 0)
        judge(c, NOTE, "mmrun was compiled without them: gcc 11 or clang 12 or newer is needed");
#else
    add(all, MACHINE, "features", "%s", f->features[0] ? f->features : "none known");
#endif
}

static void check_kernels(checks *all, powers *p)
{
    const char *wish = getenv("MMRUN_ISA");
    add(all, MACHINE, "fp32 kernels", "%s", mm_engine_isa(MM_F32));
    check *c = add(all, MACHINE, "bf16 kernels", "%s", mm_engine_isa(MM_BF16));
    if (wish) judge(c, NOTE, "MMRUN_ISA=%s limits them; unset it for the fastest", wish);
    p->dtype = mm_engine_best_dtype();
    c = add(all, MACHINE, "dtype", "%s unless --dtype says another",
            p->dtype == MM_BF16 ? "bf16" : "fp32");
    if (p->dtype != MM_BF16)
        judge(c, FINE, "bf16 works too, but nothing here computes it faster than fp32");
    p->fp32_flops = mm_engine_probe_flops(MM_F32, p->threads, PROBE_MS);
    p->bf16_flops = mm_engine_probe_flops(MM_BF16, p->threads, PROBE_MS);
    p->read_bytes = mm_engine_probe_bandwidth(p->threads, PROBE_MS);
    const char *plural = p->threads == 1 ? "" : "s";
    add(all, MACHINE, "fp32 peak", "%.1f GFLOP/s, measured with %d thread%s", p->fp32_flops * 1e-9,
        (int)p->threads, plural);
    add(all, MACHINE, "bf16 peak", "%.1f GFLOP/s, measured with %d thread%s", p->bf16_flops * 1e-9,
        (int)p->threads, plural);
    c = add(all, MACHINE, "memory speed", "%.1f GB/s, reading with %d thread%s",
            p->read_bytes * 1e-9, (int)p->threads, plural);
    judge(c, FINE, "`mmrun bench` shows what training makes of it");
}

static void check_machine(checks *all, const facts *f, powers *p)
{
    p->threads = mm_cpu_count();
    add(all, MACHINE, "system", "%s, %s", f->os[0] ? f->os : "unknown", f->kernel);
    add(all, MACHINE, "processor", "%s", f->cpu[0] ? f->cpu : "unknown");
    check_threads(all, p->threads);
    check_features(all, f);
    check_kernels(all, p);
    add(all, MACHINE, "device", "cpu");
}

static void check_memory(checks *all, const facts *f)
{
    char total[MM_NUMBER_BYTES];
    char available[MM_NUMBER_BYTES];
    const double free_bytes = (double)mm_memory_available();
    mm_bytes_text(strtod(f->memory_bytes, NULL), total);
    mm_bytes_text(free_bytes, available);
    check *c = add(all, MACHINE, "memory", "%s available of %s", available, total);
    if (free_bytes > 0 && free_bytes < 1e9)
        judge(c, NOTE, "under 1 GB: choose a small model, such as --hidden 256 --layers 4");
}

/* ---- disk --------------------------------------------------------------------------------------
 */

static void check_disk(checks *all, const mm_context *context)
{
    static const char GROUP[] = "Disk";
    const char *network = NULL;
    char size[MM_NUMBER_BYTES];
    char *folder = mm_path_folder(context->db_path);
    if (!folder) return; // out of memory: the least of its troubles
    const double bytes = (double)mm_disk_free(folder);
    mm_bytes_text(bytes, size);
    check *c = add(all, GROUP, "free", "%s in %.180s", size, folder);
    if (!mm_file_is_dir(folder))
        judge(c, PROBLEM, "the folder is not there: mkdir -p '%.180s'", folder);
    else if (bytes < 2e9)
        judge(c, bytes < 1e8 ? PROBLEM : NOTE,
              "little room for checkpoints: --keep 1, or --db on another disk");
    if (mm_file_is_dir(folder) && access(folder, W_OK) != 0) {
        c = add(all, GROUP, "writable", "no: %s", strerror(errno));
        judge(c, PROBLEM, "choose a folder of your own with --db PATH or MMRUN_DB");
    }
    const bool is_network = mm_is_network_file_system(folder, &network);
    c = add(all, GROUP, "file system", "%s", is_network ? network : "local");
    if (is_network)
        judge(c, PROBLEM, "SQLite needs working locks: put the database on a local disk (--db)");
    mm_free(folder);
}

/* ---- libraries, surroundings, database ----------------------------------------------------------
 */

static void check_libraries(checks *all, const facts *f)
{
    static const char GROUP[] = "Software";
    add(all, GROUP, "mmrun", "%s, compiled by %s%.100s", MMRUN_VERSION,
        strstr(f->compiler, "lang") ? "" : "gcc ", f->compiler);
    check *c = add(all, GROUP, "SQLite", "%s", mm_sqlite_version());
    if (mm_sqlite_has_wal_reset_bug())
        judge(c, FINE,
              "has the WAL-reset bug, which mmrun's lock file keeps from happening; "
              "other writers should not be used on the database");
    add(all, GROUP, "zstd", "%s", ZSTD_versionString());
    add(all, GROUP, "jansson", "%s", jansson_version_str());
    add(all, GROUP, "OpenSSL", "%s", OpenSSL_version(OPENSSL_VERSION_STRING));
}

static void check_surroundings(checks *all, const mm_context *context)
{
    static const char GROUP[] = "Surroundings";
    const char *locale = mm_locale_name();
    check *c = add(all, GROUP, "locale", "%.200s", *locale ? locale : "not set");
    if (!mm_locale_is_utf8())
        judge(c, NOTE, "no UTF-8, so no block characters are drawn: export LANG=C.UTF-8");
    const char *term = getenv("TERM");
    add(all, GROUP, "terminal", "%.100s, %s, colour %s", term ? term : "none",
        context->columns > 0 ? "interactive" : "not interactive",
        context->color_out ? "on" : "off");
    static const char *const VARIABLES[] = {"MMRUN_DB", "MMRUN_CACHE", "NO_COLOR", "CI"};
    for (size_t i = 0; i < sizeof VARIABLES / sizeof VARIABLES[0]; i++)
        if (getenv(VARIABLES[i])) add(all, GROUP, VARIABLES[i], "%.200s", getenv(VARIABLES[i]));
}

static void check_database(checks *all, const mm_context *context)
{
    static const char GROUP[] = "Database";
    mm_store *store = NULL;
    mm_store_info info;
    mm_err err = {0};
    char size[MM_NUMBER_BYTES];
    if (!mm_file_exists(context->db_path)) {
        check *c = add(all, GROUP, "file", "none yet at %.200s", context->db_path);
        judge(c, FINE, "`mmrun demo` or any training makes it");
        return;
    }
    mm_status status = mm_store_open(&store, context->db_path, MM_STORE_READ, &err);
    if (status == MM_OK) status = mm_store_info_get(store, &info, &err);
    if (status == MM_OK) {
        mm_bytes_text((double)info.file_bytes, size);
        check *c = add(all, GROUP, "file", "%.120s: %s, schema %d, %lld runs, %lld checkpoints",
                       context->db_path, size, (int)info.schema_version, (long long)info.runs,
                       (long long)info.checkpoints);
        judge(c, FINE, "`mmrun db check` verifies every byte of it");
    } else {
        check *c = add(all, GROUP, "file", "%.*s", (int)strcspn(err.message, "\n"), err.message);
        judge(c, PROBLEM, "move it away, or take back a copy made by `mmrun db backup`");
    }
    mm_store_close(store);
}

/* ---- output ------------------------------------------------------------------------------------
 */

static void print_text(const mm_context *context, const checks *all)
{
    static const char *const MARKS[] = {"\xE2\x9C\x93", "!", "\xE2\x9C\x97"};
    static const char *const PLAIN_MARKS[] = {"ok", "!!", "XX"};
    static const mm_color COLORS[] = {MM_COLOR_GREEN, MM_COLOR_YELLOW, MM_COLOR_RED};
    const char *group = "";
    for (size_t i = 0; i < all->count; i++) {
        const check *c = &all->list[i];
        if (strcmp(group, c->group) != 0) {
            mm_out_color(context, MM_COLOR_BOLD);
            mm_out("%s%s", i > 0 ? "\n" : "", c->group);
            mm_out_color(context, MM_COLOR_NONE);
            mm_out("\n");
            group = c->group;
        }
        mm_out("  ");
        mm_out_color(context, COLORS[c->verdict]);
        mm_out("%s", context->utf8_out ? MARKS[c->verdict] : PLAIN_MARKS[c->verdict]);
        mm_out_color(context, MM_COLOR_NONE);
        mm_out(" %-12s %s\n", c->name, c->value);
        if (c->fix[0]) {
            mm_out_color(context, MM_COLOR_DIM);
            mm_out_wrapped(context, c->fix, context->utf8_out ? 17 : 18, 0);
            mm_out_color(context, MM_COLOR_NONE);
        }
    }
}

static json_t *json_of_powers(const powers *p)
{
    return json_pack(
        "{s:i, s:s, s:{s:s, s:s}, s:o, s:o, s:o}", "threads", (int)p->threads, "dtype",
        p->dtype == MM_BF16 ? "bf16" : "fp32", "isa", "fp32", mm_engine_isa(MM_F32), "bf16",
        mm_engine_isa(MM_BF16), "fp32_gflops", mm_json_of_real(p->fp32_flops * 1e-9), "bf16_gflops",
        mm_json_of_real(p->bf16_flops * 1e-9), "read_gbs", mm_json_of_real(p->read_bytes * 1e-9));
}

static void print_json(const checks *all, const powers *p, size_t problems)
{
    static const char *const VERDICTS[] = {"ok", "note", "problem"};
    json_t *list = json_array();
    for (size_t i = 0; i < all->count; i++) {
        const check *c = &all->list[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:o}", "group", c->group,
                                              "name", c->name, "verdict", VERDICTS[c->verdict],
                                              "value", mm_json_of_text(c->value), "fix",
                                              c->fix[0] ? mm_json_of_text(c->fix) : json_null()));
    }
    json_t *object = json_pack("{s:{s:I, s:o, s:o}}", "doctor", "problems", (json_int_t)problems,
                               "machine", json_of_powers(p), "checks", list);
    mm_out_json(object);
    json_decref(object);
}

mm_status mm_cmd_doctor(const mm_context *context, const mm_args *args, mm_err *err)
{
    (void)args;
    facts f = {0};
    powers p = {0};
    checks all = {.count = 0};
    mm_environment(take_fact, &f);
    check_machine(&all, &f, &p);
    check_memory(&all, &f);
    check_disk(&all, context);
    check_libraries(&all, &f);
    check_surroundings(&all, context);
    check_database(&all, context);
    size_t problems = 0;
    for (size_t i = 0; i < all.count; i++)
        problems += all.list[i].verdict == PROBLEM;
    if (context->json)
        print_json(&all, &p, problems);
    else
        print_text(context, &all);
    if (problems > 0)
        return MM_FAIL(err, MM_EIO, "%zu problem%s found; the line under each says what helps",
                       problems, problems == 1 ? "" : "s");
    mm_say(context, "\nEverything is in order.");
    return MM_OK;
}
