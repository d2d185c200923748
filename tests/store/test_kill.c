/* kill -9 at any moment: no acknowledged point is lost, none appears twice, the newest complete
 * checkpoint loads, the state of a run is the truth, the file stays sound. And several processes on
 * one file. The other processes are started by fork and exec while no database is open here. */
#include "tests/store/fixture.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { LOG_KILLS = 40, SAVE_KILLS = 20, REFER_KILLS = 20, CHECKPOINT_FLOATS = 600000 };

typedef struct child_process {
    pid_t pid;
    _Atomic int64_t *ack;
} child_process;

static uint32_t random_state = 12345;

static uint32_t next_random(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)random_state * below) >> 32);
}

static void sleep_ms(double ms)
{
    const struct timespec pause = {.tv_sec = (time_t)(ms / 1000.0),
                                   .tv_nsec = (long)(fmod(ms, 1000.0) * 1e6)};
    nanosleep(&pause, NULL);
}

static child_process start_child(const fixture *fix, const char *what, int64_t number, int index)
{
    char ack_path[128];
    char text[32];
    snprintf(ack_path, sizeof ack_path, "%s/ack%d", fix->folder, index);
    snprintf(text, sizeof text, "%" PRId64, number);
    const int fd = open(ack_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 16), 0);
    void *map = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    close(fd);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl(MM_STORE_CHILD, MM_STORE_CHILD, what, fix->path, ack_path, text, (char *)NULL);
        _exit(127);
    }
    return (child_process){.pid = pid, .ack = map};
}

// Until it is ready (word 0) or has acknowledged something (word 1); fails if it ends before.
static void wait_for(const child_process *child, int word)
{
    for (int i = 0; i < 20000; i++) {
        if (atomic_load(&child->ack[word]) != 0) return;
        int status;
        if (waitpid(child->pid, &status, WNOHANG) == child->pid) fail_msg("the child ended early");
        sleep_ms(1.0);
    }
    fail_msg("the child did nothing for 20 s");
}

// The last acknowledged step.
static int64_t kill_child(child_process *child)
{
    kill(child->pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    assert_true(WIFSIGNALED(status));
    const int64_t step = atomic_load(&child->ack[1]);
    munmap((void *)child->ack, 16);
    return step;
}

static void prepare(const fixture *fix)
{
    mm_store *store = open_store(fix->path, MM_STORE_CREATE);
    make_run(store, "victim");
    mm_store_close(store);
}

static void no_acknowledged_point_is_lost(void **state)
{
    const fixture *fix = *state;
    prepare(fix);
    int64_t base = 0;
    int64_t n_acknowledged = 0;
    for (int i = 0; i < LOG_KILLS; i++) {
        child_process child = start_child(fix, "log", base, 0);
        // Mostly in the middle of logging; sometimes while it opens, claims, replays or rewinds.
        const bool is_early = i % 5 == 4;
        if (!is_early) wait_for(&child, 1);
        sleep_ms(1.0 + next_random(is_early ? 40 : 120));
        const int64_t acknowledged = kill_child(&child);

        mm_store *store = open_store(fix->path, MM_STORE_READ);
        mm_arena arena = {0};
        mm_run_info info;
        OK(mm_store_run(store, 1, &arena, &info, err));
        assert_true(strcmp(info.status, "killed") == 0 || (is_early && i == 0));
        mm_arena_drop(&arena);
        mm_store_close(store);
        mm_store_close(open_store(fix->path, MM_STORE_WRITE)); // replays
        assert_string_not_equal(sql_text(fix->path, "SELECT status FROM runs"), "running");
        const int64_t last =
            sql_int(fix->path, "SELECT max(step) FROM metrics WHERE name = 'loss'");
        if (acknowledged > 0) assert_true(last >= acknowledged && last <= acknowledged + 1);
        // Every step from 1 on, once, with its own value.
        char sql[256];
        snprintf(sql, sizeof sql,
                 "SELECT count(*) = %" PRId64 " AND count(DISTINCT step) = count(*) "
                 "AND coalesce(min(value = step), 1) FROM metrics WHERE name = 'loss'",
                 last);
        assert_int_equal(sql_int(fix->path, sql), 1);
        n_acknowledged += acknowledged > base ? acknowledged - base : 0;
        // The next one goes on from some step before the end.
        const int64_t back = (int64_t)next_random(200);
        base = last > back ? last - back : 0;
    }
    assert_true(n_acknowledged > 1000);
    assert_string_equal(sql_text(fix->path, "PRAGMA integrity_check"), "ok");
    mm_store *store = open_store(fix->path, MM_STORE_READ);
    OK(mm_store_check(store, NULL, NULL, err));
    mm_store_close(store);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM series s WHERE s.n <> "
                                        "(SELECT count(*) FROM point p WHERE p.series_id = s.id) "
                                        "OR s.n <> (SELECT sum(n) FROM lod l WHERE "
                                        "l.series_id = s.id AND level = 1)"),
                     0);
    print_message("  %d kills, %" PRId64 " steps acknowledged and kept\n", LOG_KILLS,
                  n_acknowledged);
}

// Nothing half written, no chunk that nobody refers to, each chunk owned once.
static void expect_no_leftovers(const fixture *fix)
{
    static const char *const NONE[] = {
        "SELECT count(*) FROM checkpoint WHERE state <> 'complete'",
        "SELECT count(*) FROM chunk WHERE id NOT IN (SELECT chunk_id FROM tensor_chunk)",
        "SELECT count(*) FROM tensor_chunk WHERE chunk_id NOT IN (SELECT id FROM chunk)",
        "SELECT total(own_bytes) <> (SELECT total(stored_bytes) FROM chunk) FROM checkpoints",
    };
    for (size_t i = 0; i < sizeof NONE / sizeof NONE[0]; i++) {
        if (sql_int(fix->path, NONE[i]) != 0) fail_msg("%s", NONE[i]);
    }
}

static void the_newest_complete_checkpoint_loads(void **state)
{
    const fixture *fix = *state;
    prepare(fix);
    const size_t bytes = CHECKPOINT_FLOATS * sizeof(float);
    float *weights = malloc(bytes);
    assert_non_null(weights);
    int64_t step = 1;
    for (int i = 0; i < SAVE_KILLS; i++) {
        child_process child = start_child(fix, "save", step, 0);
        wait_for(&child, i % 4 == 3 ? 0 : 1);
        sleep_ms(1.0 + next_random(60));
        const int64_t acknowledged = kill_child(&child);

        mm_store *store = open_store(fix->path, MM_STORE_WRITE);
        const mm_run_ref ref = {.run_id = 1};
        mm_arena arena = {0};
        mm_checkpoint_info info;
        OK(mm_store_resolve_checkpoint(store, &ref, &arena, &info, err));
        assert_true(info.step >= acknowledged);
        mm_blob *blobs;
        size_t count;
        OK(mm_checkpoint_blobs(store, info.id, &arena, &blobs, &count, err));
        OK(mm_checkpoint_read(store, info.id, "w", weights, bytes, err));
        for (size_t k = 0; k < CHECKPOINT_FLOATS; k += 997) {
            assert_true(weights[k] == sinf((float)k * 0.001f + (float)info.step));
        }
        mm_arena_drop(&arena);
        mm_store_close(store);
        expect_no_leftovers(fix);
        step = info.step + 1;
    }
    free(weights);
    mm_store *store = open_store(fix->path, MM_STORE_READ);
    OK(mm_store_check(store, NULL, NULL, err));
    mm_store_close(store);
}

static void what_is_referred_to_survives_a_kill(void **state)
{
    const fixture *fix = *state;
    prepare(fix);
    mm_store *store = open_store(fix->path, MM_STORE_WRITE);
    make_run(store, "adapter");
    mm_store_close(store);
    const size_t bytes = CHECKPOINT_FLOATS * sizeof(float);
    float *weights = malloc(bytes);
    assert_non_null(weights);
    int64_t step = 1;
    for (int i = 0; i < REFER_KILLS; i++) {
        child_process child = start_child(fix, "refer", step, 0);
        wait_for(&child, i % 4 == 3 ? 0 : 1);
        sleep_ms(1.0 + next_random(80));
        const int64_t acknowledged = kill_child(&child);
        store = open_store(fix->path, MM_STORE_WRITE);
        mm_arena arena = {0};
        mm_checkpoint_info *list;
        size_t count;
        OK(mm_checkpoint_list(store, 2, &arena, &list, &count, err));
        assert_true(count >= 1 && list[count - 1].step >= acknowledged);
        for (size_t k = 0; k < count; k++) {
            OK(mm_checkpoint_read(store, list[k].id, "w", weights, bytes, err));
            for (size_t n = 0; n < CHECKPOINT_FLOATS; n += 997) {
                assert_true(weights[n] == sinf((float)n * 0.001f + (float)list[k].step));
            }
            OK(mm_checkpoint_read(store, list[k].id, "a", weights, 4000, err));
            assert_true(weights[7] == cosf(7.0f + (float)list[k].step));
        }
        step = list[count - 1].step + 1;
        mm_arena_drop(&arena);
        mm_store_close(store);
        expect_no_leftovers(fix);
    }
    free(weights);
    store = open_store(fix->path, MM_STORE_READ);
    OK(mm_store_check(store, NULL, NULL, err));
    mm_store_close(store);
}

static void processes_share_one_file(void **state)
{
    enum { N = 3, STEPS = 1500 };
    const fixture *fix = *state;
    prepare(fix);
    child_process children[N];
    for (int i = 0; i < N; i++) {
        children[i] = start_child(fix, "run", STEPS, i);
    }
    // A reader looks on all the while.
    int n_left = N;
    while (n_left > 0) {
        mm_store *store = open_store(fix->path, MM_STORE_READ);
        mm_arena arena = {0};
        mm_run_info *runs;
        size_t count;
        OK(mm_store_runs(store, NULL, &arena, &runs, &count, err));
        for (size_t r = 0; r < count; r++) {
            assert_string_not_equal(runs[r].status, "killed");
        }
        mm_arena_drop(&arena);
        mm_store_close(store);
        int status;
        const pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            n_left--;
        }
        sleep_ms(5.0);
    }
    for (int i = 0; i < N; i++) {
        munmap((void *)children[i].ack, 16);
    }
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM runs WHERE status = 'finished'"), N);
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM metrics"), N * STEPS * 8);
    assert_int_equal(sql_int(fix->path, "SELECT sum(value) FROM metrics WHERE name = 'm2'"),
                     N * 3 * (STEPS * (STEPS + 1) / 2));
    assert_int_equal(sql_int(fix->path, "SELECT count(*) FROM events"), N * STEPS / 100);
    assert_string_equal(sql_text(fix->path, "PRAGMA integrity_check"), "ok");
}

static void a_claim_dies_with_its_process_at_once(void **state)
{
    const fixture *fix = *state;
    prepare(fix);
    child_process child = start_child(fix, "hold", 1, 0);
    wait_for(&child, 0);
    mm_store *store = open_store(fix->path, MM_STORE_WRITE);
    mm_claim *claim;
    char pid[32];
    snprintf(pid, sizeof pid, "process %d", (int)child.pid);
    FAILS(MM_EBUSY, pid, mm_run_claim(&claim, store, 1, 0, err));
    mm_arena arena = {0};
    mm_run_info info;
    OK(mm_store_run(store, 1, &arena, &info, err));
    assert_string_equal(info.status, "running");
    kill_child(&child);
    OK(mm_store_run(store, 1, &arena, &info, err));
    assert_string_equal(info.status, "killed");
    OK(mm_run_claim(&claim, store, 1, 0, err));
    OK(mm_run_end(claim, "finished", NULL, err));
    mm_attempt *attempts;
    size_t count;
    OK(mm_store_attempts(store, 1, &arena, &attempts, &count, err));
    assert_int_equal(count, 2);
    assert_string_equal(attempts[0].ended, "killed");
    assert_string_equal(attempts[1].ended, "finished");
    mm_arena_drop(&arena);
    mm_store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_acknowledged_point_is_lost),         TEST(the_newest_complete_checkpoint_loads),
        TEST(what_is_referred_to_survives_a_kill),   TEST(processes_share_one_file),
        TEST(a_claim_dies_with_its_process_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
