/* The thread pool: every item once, many short jobs, thread numbers in range, sleepers that wake.
 */
#include "tests/nn/fixture.h"

#include "core/base/clock.h"
#include "core/nn/pool.h"

#include <stdatomic.h>
#include <time.h>

enum { MAX_ITEMS = 1000, MAX_THREADS = 64 };

typedef struct count_job {
    int64_t sums[MAX_ITEMS];        // written by the item's owner alone
    int64_t by_thread[MAX_THREADS]; // written by the thread alone
    int32_t threads;
    atomic_int strays;
} count_job;

static void count_item(void *context, int64_t item, int32_t thread)
{
    count_job *job = context;
    if (thread < 0 || thread >= job->threads) {
        atomic_fetch_add(&job->strays, 1);
        return;
    }
    job->sums[item] += item + 1;
    job->by_thread[thread]++;
}

static void test_every_item_runs_once(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 2, 7, MAX_ITEMS};
    for (int32_t threads = 1; threads <= 4; threads++) {
        mm_pool *pool = NULL;
        CHECK_OK(mm_pool_new(&pool, threads, failure));
        assert_int_equal(mm_pool_threads(pool), threads);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            count_job job = {.threads = threads};
            mm_pool_run(pool, sizes[s], count_item, &job);
            int64_t total = 0;
            for (int32_t t = 0; t < threads; t++)
                total += job.by_thread[t];
            assert_int_equal(total, sizes[s]);
            assert_int_equal(atomic_load(&job.strays), 0);
            for (int64_t i = 0; i < sizes[s]; i++)
                assert_int_equal(job.sums[i], i + 1);
        }
        mm_pool_free(pool);
    }
}

static void test_many_short_jobs_follow_each_other(void **state)
{
    (void)state;
    enum { JOBS = 3000, ITEMS = 5 };
    mm_pool *pool = NULL;
    CHECK_OK(mm_pool_new(&pool, 3, failure));
    count_job job = {.threads = 3};
    for (int i = 0; i < JOBS; i++)
        mm_pool_run(pool, ITEMS, count_item, &job);
    for (int64_t i = 0; i < ITEMS; i++)
        assert_int_equal(job.sums[i], (i + 1) * JOBS);
    mm_pool_free(pool);
}

static void sleep_us(int64_t us) { nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL); }

static void test_more_threads_than_processors_make_progress(void **state)
{
    (void)state;
    enum { JOBS = 600 };
    static count_job job;
    mm_pool *pool = NULL;
    CHECK_OK(mm_pool_new(&pool, MAX_THREADS, failure));
    job = (count_job){.threads = MAX_THREADS};
    int64_t expected = 0;
    for (int64_t i = 0; i < JOBS; i++) {
        const int64_t items = 1 + i * 37 % (3 * MAX_THREADS); // fewer and more than threads
        expected += items;
        mm_pool_run(pool, items, count_item, &job);
        if (i % 16 == 0) sleep_us(200); // some fall asleep
    }
    int64_t total = 0;
    for (int32_t t = 0; t < MAX_THREADS; t++)
        total += job.by_thread[t];
    assert_int_equal(total, expected);
    assert_int_equal(atomic_load(&job.strays), 0);
    mm_pool_free(pool);
}

typedef struct meeting {
    atomic_int here;
    int expected;
    atomic_int missed;
} meeting;

// Waits until every item has begun, which takes as many threads as there are items.
static void meet(void *context, int64_t item, int32_t thread)
{
    (void)item;
    (void)thread;
    enum { PATIENCE_S = 20 };
    meeting *all = context;
    atomic_fetch_add(&all->here, 1);
    const int64_t until = mm_mono_ns() + PATIENCE_S * INT64_C(1000000000);
    while (atomic_load(&all->here) < all->expected) {
        if (mm_mono_ns() > until) {
            atomic_fetch_add(&all->missed, 1);
            return;
        }
        sleep_us(20);
    }
}

static void test_sleepers_wake_for_work(void **state)
{
    (void)state;
    static const int32_t counts[] = {2, 3, 64};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        mm_pool *pool = NULL;
        CHECK_OK(mm_pool_new(&pool, counts[c], failure));
        for (int32_t round = 0; round < 20; round++) {
            sleep_us(round % 2 == 0 ? 1000 : 30); // longer and shorter than workers look for work
            meeting all = {.expected = 1 + round * 7 % counts[c]};
            if (round < 4) all.expected = counts[c];
            mm_pool_run(pool, all.expected, meet, &all);
            assert_int_equal(atomic_load(&all.missed), 0);
        }
        mm_pool_free(pool);
    }
}

static void test_no_pool_runs_on_the_caller(void **state)
{
    (void)state;
    count_job job = {.threads = 1};
    mm_pool_run(NULL, 3, count_item, &job);
    assert_int_equal(job.by_thread[0], 3);
    assert_int_equal(mm_pool_threads(NULL), 1);
    mm_pool_free(NULL);
}

static void test_bad_thread_counts_are_refused(void **state)
{
    (void)state;
    mm_err err = {0};
    mm_pool *pool = NULL;
    assert_int_equal(mm_pool_new(&pool, -1, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "--threads -1"));
    assert_int_equal(mm_pool_new(&pool, 100000, &err), MM_ECONFIG);
    assert_null(pool);
    assert_true(mm_cpu_count() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_runs_once),
        cmocka_unit_test(test_many_short_jobs_follow_each_other),
        cmocka_unit_test(test_more_threads_than_processors_make_progress),
        cmocka_unit_test(test_sleepers_wake_for_work),
        cmocka_unit_test(test_no_pool_runs_on_the_caller),
        cmocka_unit_test(test_bad_thread_counts_are_refused),
    };
    return cmocka_run_group_tests_name("nn/pool", tests, NULL, NULL);
}
