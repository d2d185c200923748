/* Private to store: the ring file in front of the metrics thread, and its replay.
 *
 * "<db>-ring-<run>" is a header of one page and MM_RING_RECORDS records of 32 bytes, all allocated
 * at once and mapped. The producer fills a record and releases its tag last; the tag holds the
 * attempt and the record's number, counted from 1, so that a record of an earlier lap or attempt is
 * never taken for a new one. Being a shared map it survives kill -9; it is not flushed, so a power
 * cut loses what a commit had not yet taken. attempt.ring_seq, written in the transaction of the
 * points, says up to which record the database has them: replaying twice adds nothing.
 */
#ifndef MM_STORE_RING_H
#define MM_STORE_RING_H

#include "store/metrics.h"

enum { MM_RING_RECORDS = 1 << 18, MM_RING_HEADER_BYTES = 4096 };

typedef struct mm_ring_record {
    _Atomic uint64_t tag; /* attempt << 40 | number; written last */
    int64_t step;
    uint64_t where; /* series handle << 48 | milliseconds since the run's start */
    double value;
} mm_ring_record;

typedef struct mm_ring_header {
    char magic[8]; /* "mmring1" */
    int64_t run_id;
    int32_t attempt;
    uint32_t n_records;
    int64_t series_ids[MM_SERIES_MAX]; /* row of each handle; 0: not given out */
} mm_ring_header;

typedef struct mm_ring {
    mm_ring_header *header;
    mm_ring_record *records;
    char *path;
} mm_ring;

/* Makes the file anew; MM_ENOSPC where it does not fit. */
MM_NODISCARD mm_status mm_ring_create(mm_ring *ring, const char *db_real_path, int64_t run_id,
                                      int32_t attempt, mm_err *err);
/* Unmaps; removes the file if asked. */
void mm_ring_drop(mm_ring *ring, bool remove);
static inline uint64_t mm_ring_tag(int32_t attempt, uint64_t number)
{
    return ((uint64_t)attempt << 40) | number;
}

/* Puts what the ring of a run still holds into the database and removes the file. The caller owns
 * the run's lock. No file: nothing to do. */
MM_NODISCARD mm_status mm_ring_replay(mm_store *store, int64_t run_id, mm_err *err);
/* Run ids that have a ring file beside the database. */
MM_NODISCARD mm_status mm_ring_list(const char *db_real_path, mm_arena *arena, int64_t **run_ids,
                                    size_t *count, mm_err *err);

#endif
