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

enum { MM_DOCUMENT_THREADS_MAX = 256 };

typedef struct mm_document {
    uint64_t key; /* of its text: rows keep it under another tokenizer */
    size_t end;   /* of its ids, counted from the start of the block */
} mm_document;

/* Consecutive documents; borrowed during the call that hands it over. */
typedef struct mm_document_block {
    const int32_t *ids; /* of documents[0], then of documents[1] ... */
    const mm_document *documents;
    size_t count;
    uint64_t bytes_done; /* of the file, when its last record was read */
} mm_document_block;

typedef struct mm_documents {
    const char *path;
    const mm_tokenizer *tokenizer;
    int32_t threads; /* at most that many work on it; below 2 only the caller's */
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
