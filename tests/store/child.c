/* The other process of the crash tests: logs, saves or holds a claim until it is done or killed.
 *
 *   store_child log DB ACK FIRST         claims run 1, rewinds to FIRST, logs steps from FIRST + 1
 * on store_child save DB ACK FIRST        writes checkpoints of run 1 from step FIRST on
 *   store_child refer DB ACK FIRST       checkpoints of run 2 that refer to those of run 1, which
 * go store_child run DB ACK STEPS         a whole run of its own: claim, metrics, events, end
 *   store_child hold DB ACK RUN          claims the run and waits to be killed
 *
 * ACK is a file of 16 bytes, mapped and shared, so that it says after a kill how far the child
 * came: [0] is 1 when the child is ready, [1] the last step that has been acknowledged to it.
 */
#include "store/chunk.h"
#include "store/metrics.h"
#include "store/query.h"

#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { CHECKPOINT_FLOATS = 600000 };

typedef _Atomic int64_t ack_word;

static void must(mm_status status, const mm_err *err)
{
    if (status == MM_OK) return;
    fprintf(stderr, "store_child: %s\n", err->message);
    exit(1);
}

static ack_word *map_ack(const char *path)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) exit(2);
    void *map = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) exit(2);
    return map;
}

static void pause_us(long us)
{
    const struct timespec pause = {.tv_nsec = us * 1000};
    nanosleep(&pause, NULL);
}

static void log_steps(mm_store *store, ack_word *ack, int64_t first)
{
    mm_err err;
    mm_claim *claim;
    mm_metrics *metrics;
    int32_t loss;
    int32_t lr;
    must(mm_run_claim(&claim, store, 1, first, &err), &err);
    must(mm_metrics_open(&metrics, claim, &err), &err);
    must(mm_metrics_series(metrics, "loss", &loss, &err), &err);
    must(mm_metrics_series(metrics, "lr", &lr, &err), &err);
    atomic_store(&ack[0], 1);
    for (int64_t step = first + 1;; step++) {
        mm_metric_log(metrics, loss, step, (double)step);
        mm_metric_log(metrics, lr, step, (double)-step);
        atomic_store(&ack[1], step); // from here on it may not be lost
        if (step % 4 == 0) pause_us(50);
    }
}

static void save_steps(mm_store *store, ack_word *ack, int64_t first)
{
    mm_err err;
    float *weights = malloc(CHECKPOINT_FLOATS * sizeof *weights);
    if (!weights) exit(2);
    atomic_store(&ack[0], 1);
    for (int64_t step = first;; step++) {
        for (size_t i = 0; i < CHECKPOINT_FLOATS; i++) {
            weights[i] = sinf((float)i * 0.001f + (float)step);
        }
        const mm_blob blob = {.name = "w",
                              .dtype = "F32",
                              .element_bytes = 4,
                              .ndim = 1,
                              .shape = {CHECKPOINT_FLOATS},
                              .data = weights,
                              .bytes = CHECKPOINT_FLOATS * sizeof *weights};
        int64_t id;
        const mm_checkpoint_new one = {.run_id = 1,
                                       .step = step,
                                       .kind = "full",
                                       .state = "{}",
                                       .val_loss = (double)NAN,
                                       .blobs = &blob,
                                       .n_blobs = 1};
        must(mm_checkpoint_write(store, &one, &id, &err), &err);
        atomic_store(&ack[1], step);
    }
}

static mm_blob blob_of(const char *name, const float *data, int64_t n, bool is_frozen)
{
    return (mm_blob){.name = name,
                     .dtype = "F32",
                     .element_bytes = 4,
                     .ndim = 1,
                     .shape = {n},
                     .data = data,
                     .bytes = (size_t)n * sizeof *data,
                     .is_frozen = is_frozen};
}

// A base, an adapter that refers to it, and the base before it removed: in every round.
static void refer_steps(mm_store *store, ack_word *ack, int64_t first)
{
    enum { N = CHECKPOINT_FLOATS, N_ADAPTER = 1000 };
    mm_err err;
    float *w = malloc(N * sizeof *w);
    float a[N_ADAPTER];
    if (!w) exit(2);
    atomic_store(&ack[0], 1);
    for (int64_t step = first;; step++) {
        for (size_t i = 0; i < N; i++) {
            w[i] = sinf((float)i * 0.001f + (float)step);
        }
        for (size_t i = 0; i < N_ADAPTER; i++) {
            a[i] = cosf((float)i + (float)step);
        }
        const mm_blob blobs[] = {blob_of("w", w, N, true), blob_of("a", a, N_ADAPTER, false)};
        mm_checkpoint_new one = {.run_id = 1,
                                 .step = step,
                                 .kind = "full",
                                 .state = "{}",
                                 .val_loss = (double)NAN,
                                 .blobs = blobs,
                                 .n_blobs = 1};
        int64_t base_id;
        int64_t id;
        must(mm_checkpoint_write(store, &one, &base_id, &err), &err);
        one.run_id = 2;
        one.n_blobs = 2;
        one.base_id = base_id;
        must(mm_checkpoint_write(store, &one, &id, &err), &err);
        atomic_store(&ack[1], step);
        must(mm_checkpoints_prune(store, 1, 1, &err), &err);
        must(mm_checkpoints_prune(store, 2, 2, &err), &err);
    }
}

static void whole_run(mm_store *store, ack_word *ack, int64_t steps)
{
    mm_err err;
    int64_t id;
    mm_claim *claim;
    mm_metrics *metrics;
    int32_t series[8];
    must(mm_store_run_create(store, &(mm_run_new){.stage = "pretrain", .parent_step = -1}, &id,
                             &err),
         &err);
    must(mm_run_claim(&claim, store, id, -1, &err), &err);
    must(mm_metrics_open(&metrics, claim, &err), &err);
    for (int m = 0; m < 8; m++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", m);
        must(mm_metrics_series(metrics, name, &series[m], &err), &err);
    }
    atomic_store(&ack[0], 1);
    for (int64_t step = 1; step <= steps; step++) {
        for (int m = 0; m < 8; m++) {
            mm_metric_log(metrics, series[m], step, (double)(step * (m + 1)));
        }
        if (step % 100 == 0) {
            must(mm_store_event(store, id, "info", "eval", "a hundred more", &err), &err);
            must(mm_metrics_flush(metrics, &err), &err);
        }
    }
    must(mm_metrics_close(metrics, &err), &err);
    must(mm_run_end(claim, "finished", NULL, &err), &err);
}

static void hold(mm_store *store, ack_word *ack, int64_t run_id)
{
    mm_err err;
    mm_claim *claim;
    must(mm_run_claim(&claim, store, run_id, -1, &err), &err);
    atomic_store(&ack[0], 1);
    for (;;) {
        pause();
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    ack_word *ack = map_ack(argv[3]);
    const int64_t number = strtoll(argv[4], NULL, 10);
    mm_err err;
    mm_store *store;
    must(mm_store_open(&store, argv[2], MM_STORE_WRITE, &err), &err);
    if (strcmp(argv[1], "log") == 0) log_steps(store, ack, number);
    if (strcmp(argv[1], "save") == 0) save_steps(store, ack, number);
    if (strcmp(argv[1], "refer") == 0) refer_steps(store, ack, number);
    if (strcmp(argv[1], "run") == 0) whole_run(store, ack, number);
    if (strcmp(argv[1], "hold") == 0) hold(store, ack, number);
    mm_store_close(store);
    return 0;
}
