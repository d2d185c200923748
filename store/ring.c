/* The ring file: making it, and bringing what a dead process left in it into the database.
 *
 * A ring file is input like any other: it may be cut short, of another version, or hold handles of
 * series that are gone. Every field is checked before it is used.
 */
#include "store/ring.h"

#include "core/base/file.h"
#include "store/claim.h"
#include "store/db.h"
#include "store/series.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char MAGIC[8] = "mmring1";
static const size_t RING_BYTES =
    MM_RING_HEADER_BYTES + (size_t)MM_RING_RECORDS * sizeof(mm_ring_record);

_Static_assert(sizeof(mm_ring_record) == 32, "the format of the ring file");
_Static_assert(sizeof(mm_ring_header) <= MM_RING_HEADER_BYTES, "the header fits its page");

enum { REPLAY_BATCH = 16384 };

static mm_status ring_path(const char *db_real_path, int64_t run_id, char **out, mm_err *err)
{
    mm_str path = {0};
    mm_str_addf(&path, "%s-ring-%" PRId64, db_real_path, run_id);
    return mm_str_take(&path, out, NULL, err);
}

mm_status mm_ring_create(mm_ring *ring, const char *db_real_path, int64_t run_id, int32_t attempt,
                         mm_err *err)
{
    *ring = (mm_ring){0};
    MM_TRY(ring_path(db_real_path, run_id, &ring->path, err));
    mm_status status = MM_OK;
    const int fd = open(ring->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = MM_FAIL_ERRNO(err, "cannot make %s", ring->path);
        goto done;
    }
    // Every block now: writing to a hole of a mapped file on a full disk would be a SIGBUS.
    const int code = posix_fallocate(fd, 0, (off_t)RING_BYTES);
    if (code != 0) {
        errno = code;
        status = MM_FAIL_ERRNO(err, "cannot allocate %zu bytes for %s", RING_BYTES, ring->path);
        goto done;
    }
    void *map = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        status = MM_FAIL_ERRNO(err, "cannot map %s", ring->path);
        goto done;
    }
    ring->header = map;
    ring->records = (mm_ring_record *)(void *)((char *)map + MM_RING_HEADER_BYTES);
    *ring->header =
        (mm_ring_header){.run_id = run_id, .attempt = attempt, .n_records = MM_RING_RECORDS};
    memcpy(ring->header->magic, MAGIC, sizeof MAGIC);
done:
    if (fd >= 0) close(fd);
    if (status != MM_OK) mm_ring_drop(ring, true);
    return status;
}

void mm_ring_drop(mm_ring *ring, bool remove)
{
    if (ring->header) munmap(ring->header, RING_BYTES);
    if (ring->path && remove) unlink(ring->path);
    mm_free(ring->path);
    *ring = (mm_ring){0};
}

/* ---- replay ------------------------------------------------------------------------------------
 */

typedef struct ring_replay {
    mm_store *store;
    const mm_ring_header *header;
    const mm_ring_record *records;
    mm_series series[MM_SERIES_MAX];
    int64_t n_points;
} ring_replay;

static bool is_ring(const mm_file_map *map, int64_t run_id)
{
    const mm_ring_header *header = (const mm_ring_header *)(const void *)map->data;
    return map->bytes == RING_BYTES && memcmp(header->magic, MAGIC, sizeof MAGIC) == 0 &&
           header->run_id == run_id && header->n_records == MM_RING_RECORDS && header->attempt > 0;
}

// The series a record belongs to, loaded; NULL if the database does not know it for this run.
static mm_status find_series(ring_replay *replay, size_t handle, mm_series **out, mm_err *err)
{
    *out = NULL;
    if (handle >= MM_SERIES_MAX || replay->header->series_ids[handle] <= 0) return MM_OK;
    mm_series *series = &replay->series[handle];
    if (series->id == 0) {
        int64_t id = 0;
        MM_TRY(mm_db_int(replay->store, &id, "SELECT id FROM series WHERE id = ?1 AND run_id = ?2",
                         MM_VALUES(mm_v_int(replay->header->series_ids[handle]),
                                   mm_v_int(replay->header->run_id)),
                         err));
        if (id == 0) return MM_OK;
        MM_TRY(mm_series_load(replay->store, id, series, err));
    }
    *out = series;
    return MM_OK;
}

// Whether record `number` of this attempt has been completed.
static bool has_record(const ring_replay *replay, uint64_t number)
{
    const mm_ring_record *record = &replay->records[(number - 1) % MM_RING_RECORDS];
    return record->tag == mm_ring_tag(replay->header->attempt, number);
}

// One transaction of at most REPLAY_BATCH records from *number on.
static mm_status replay_batch(ring_replay *replay, uint64_t *number, int64_t run_start_ms,
                              mm_err *err)
{
    mm_store *store = replay->store;
    mm_status status = MM_OK;
    int64_t time_ms = 0;
    memset(replay->series, 0, sizeof replay->series);
    MM_TRY(mm_db_begin(store, MM_SYNC_FULL, err));
    for (int i = 0; i < REPLAY_BATCH && has_record(replay, *number); i++, (*number)++) {
        const mm_ring_record *record = &replay->records[(*number - 1) % MM_RING_RECORDS];
        mm_series *series;
        MM_GO(find_series(replay, (size_t)(record->where >> 48), &series, err));
        if (!series) continue;
        time_ms = (int64_t)(record->where & ((UINT64_C(1) << 48) - 1));
        MM_GO(mm_series_add(store, series, record->step, time_ms, record->value, err));
        replay->n_points++;
    }
    for (size_t i = 0; i < MM_SERIES_MAX; i++) {
        if (replay->series[i].id) MM_GO(mm_series_save(store, &replay->series[i], err));
    }
    // The last point is also the last sign of life.
    MM_GO(mm_db_run(store,
                    "UPDATE attempt SET ring_seq = ?3, heartbeat_ms = max(heartbeat_ms, ?4) "
                    "WHERE run_id = ?1 AND number = ?2",
                    MM_VALUES(mm_v_int(replay->header->run_id), mm_v_int(replay->header->attempt),
                              mm_v_int((int64_t)*number - 1), mm_v_int(run_start_ms + time_ms)),
                    err));
    MM_GO(mm_db_commit(store, err));
done:
    mm_db_rollback(store);
    return status;
}

static mm_status replay_map(ring_replay *replay, mm_err *err)
{
    const mm_value run = mm_v_int(replay->header->run_id);
    int64_t ring_seq = -1;
    MM_TRY(mm_db_int(replay->store, &ring_seq,
                     "SELECT ring_seq FROM attempt WHERE run_id = ?1 AND number = ?2",
                     MM_VALUES(run, mm_v_int(replay->header->attempt)), err));
    int64_t newest = 0;
    MM_TRY(mm_db_int(replay->store, &newest, "SELECT max(number) FROM attempt WHERE run_id = ?1",
                     MM_VALUES(run), err));
    // Of a run that is gone, or of an attempt that has been rewound: nothing to bring in.
    if (ring_seq < 0 || newest != replay->header->attempt) return MM_OK;
    int64_t start_ms = 0;
    MM_TRY(mm_db_int(replay->store, &start_ms, "SELECT started_ms FROM run WHERE id = ?1",
                     MM_VALUES(run), err));
    uint64_t number = (uint64_t)ring_seq + 1;
    while (has_record(replay, number)) {
        MM_TRY(replay_batch(replay, &number, start_ms, err));
    }
    return MM_OK;
}

mm_status mm_ring_replay(mm_store *store, int64_t run_id, mm_err *err)
{
    char *path = NULL;
    mm_file_map map = {0};
    ring_replay *state = NULL;
    mm_status status = MM_OK;
    MM_GO(ring_path(store->real_path, run_id, &path, err));
    if (!mm_file_exists(path)) goto done;
    MM_GO(mm_file_map_open(&map, path, err));
    if (is_ring(&map, run_id)) {
        state = mm_calloc(1, sizeof *state);
        if (!state) {
            status = MM_FAIL(err, MM_ENOMEM, "out of memory");
            goto done;
        }
        state->store = store;
        state->header = (const mm_ring_header *)(const void *)map.data;
        state->records = (const mm_ring_record *)(const void *)(map.data + MM_RING_HEADER_BYTES);
        MM_GO(replay_map(state, err));
    }
    unlink(path);
done:
    if (status != MM_OK) mm_err_context(err, "replaying %s", path ? path : "a ring");
    mm_free(state);
    mm_file_map_drop(&map);
    mm_free(path);
    return status;
}

mm_status mm_ring_list(const char *db_real_path, mm_arena *arena, int64_t **run_ids, size_t *count,
                       mm_err *err)
{
    enum { LISTED_MAX = 1024 }; // more are left for the next time
    *count = 0;
    *run_ids = mm_arena_alloc(arena, LISTED_MAX * sizeof **run_ids);
    if (!*run_ids) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    const char *slash = strrchr(db_real_path, '/');
    MM_ASSERT(slash);
    const char *name = slash + 1;
    char *folder = mm_path_folder(db_real_path);
    if (!folder) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    DIR *dir = opendir(folder);
    const mm_status status = dir ? MM_OK : MM_FAIL_ERRNO(err, "cannot list %s", folder);
    mm_free(folder);
    MM_TRY(status);
    const size_t name_length = strlen(name);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL && *count < LISTED_MAX;) {
        if (strncmp(entry->d_name, name, name_length) != 0) continue;
        const char *rest = entry->d_name + name_length;
        if (strncmp(rest, "-ring-", 6) != 0) continue;
        char *end;
        errno = 0;
        const int64_t run_id = strtoll(rest + 6, &end, 10);
        if (errno == 0 && end != rest + 6 && *end == '\0' && run_id > 0) {
            (*run_ids)[(*count)++] = run_id;
        }
    }
    closedir(dir);
    return MM_OK;
}
