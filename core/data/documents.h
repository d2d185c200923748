/* The rows of a data file as documents of token ids, made by several threads, given out in the
 * order of the file. Internal to core/data.
 *
 * The caller's thread cuts the file into blocks of records, several threads parse and encode them,
 * and the caller takes the results block by block. What it gets, up to the first error and
 * including it, does not depend on the number of threads. The blocks in flight are bounded in
 * number and in bytes, so memory does not grow with the file.
 */
#ifndef MM_DATA_DOCUMENTS_H
#define MM_DATA_DOCUMENTS_H

#include "core/data/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MM_DOCUMENT_THREADS_MAX = 256,
    MM_ID_LEARNED = 1 << 30 /* set in the ids that are learned */
};

/* What there is of a row, in this order: the text, the same without its empty think blocks, the
 * rejected side, the same without. */
typedef enum mm_document_flag {
    MM_DOCUMENT_VARIES = 1,          /* has the second */
    MM_DOCUMENT_IS_PAIR = 2,         /* has the third */
    MM_DOCUMENT_REJECTED_VARIES = 4, /* has the fourth */
    MM_DOCUMENT_HAS_SYSTEM = 8,      /* opens with a system turn, names tools, or is plain text */
    MM_DOCUMENT_FLAGS = 15
} mm_document_flag;

typedef struct mm_document {
    uint64_t key;          /* of its text: rows keep it under another tokenizer */
    uint32_t flags;        /* mm_document_flag */
    size_t renderings_end; /* of its renderings, counted from the start of the block */
} mm_document;

typedef struct mm_rendering {
    size_t end;             /* of its ids, counted from the start of the block */
    uint32_t first_learned; /* place of the first id that is learned; the length: none is */
    uint32_t n_learned;
} mm_rendering;

/* Consecutive documents; borrowed during the call that hands it over. */
typedef struct mm_document_block {
    const int32_t *ids; /* of renderings[0], then of renderings[1] ... */
    const mm_rendering *renderings;
    const mm_document *documents;
    size_t count;        /* documents */
    uint64_t bytes_done; /* of the file, when its last record was read */
} mm_document_block;

typedef struct mm_documents {
    const char *path;
    const mm_tokenizer *tokenizer;
    mm_mask_kind mask; /* of conversations */
    bool pairs;        /* preference pairs are wanted; without it they are an error */
    int32_t threads;   /* at most that many work on it; below 2 only the caller's */
    /* Called on the caller's thread; a failure ends the pass. */
    mm_status (*take)(void *context, const mm_document_block *block, mm_err *err);
    void *context;
} mm_documents;

/* Goes through a fresh reader. Bad rows are counted in its report; a row that cannot be trained on
 * is an error that names its line. */
MM_NODISCARD mm_status mm_documents_each(const mm_documents *documents, mm_row_reader *reader,
                                         mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
