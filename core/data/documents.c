/* Documents in the order of the file, made by several threads.
 *
 * Blocks of records stand in a ring and pass through three hands: cut (by the caller, who alone
 * touches the reader), encoded (by whoever is free, the caller too), taken (by the caller, in
 * order). The mutex guards the counters and the states; the content of a block belongs to the
 * thread that has it in hand. One thread is the same loop with a ring of one block.
 *
 * The subtle rule: an error is a result like any other. It is kept in its block and reported when
 * that block's turn comes, so that the first error of the file wins, whoever found it first.
 * Threads are started only while there are blocks that nobody works on; when none can be started,
 * those that are there do the work.
 */
#include "core/data/documents.h"

#include "core/data/rows_parse.h"

#include <pthread.h>
#include <string.h>

enum {
    BLOCK_BYTES = 1 << 17,        // of records; the last one may reach beyond it
    BLOCK_RECORDS = 1 << 13,      // lines may be short
    KEPT_BYTES = 8 * BLOCK_BYTES, // a buffer that a long row made larger is given back
    FLIGHT_BYTES = 32 << 20,      // of records, cut and not yet taken
    BLOCKS_PER_THREAD = 3,        // one in hand, and enough in store while the caller encodes
};

typedef struct record_place {
    size_t end; // of its bytes in the block
    int64_t number;
    bool is_too_long;
} record_place;

typedef struct row_block {
    mm_str bytes; // records, one behind the other
    record_place *places;
    size_t n_records;
    size_t places_capacity;
    uint64_t bytes_done;
    bool is_last;  // nothing is cut after it: the end of the file, or an error there
    bool is_ready; // to be taken; guarded by the mutex
    mm_ids ids;
    mm_rendering *renderings;
    size_t n_renderings;
    size_t renderings_capacity;
    mm_document *documents;
    size_t n_documents;
    size_t documents_capacity;
    mm_row_report report;
    mm_status status; // behind the documents that are there
    mm_err err;
} row_block;

/* What a thread needs to turn records into documents. */
typedef struct row_encoder {
    const mm_documents *job;
    mm_row_parser parser;
    mm_str text;    // of the row: its key is the hash
    mm_str variant; // without empty think blocks
    mm_str mask;
} row_encoder;

typedef struct worker {
    struct pipeline *line;
    row_encoder encoder;
    pthread_t thread;
} worker;

typedef struct pipeline {
    const mm_documents *job;
    mm_row_reader *reader;
    row_block *ring;
    uint64_t n_ring;
    worker *workers; // [0] is the caller
    int32_t n_workers;
    int32_t n_started; // the caller included
    pthread_mutex_t mutex;
    pthread_cond_t has_work;   // a block was cut, or it is over
    pthread_cond_t has_result; // the next block to be taken is ready
    // Guarded by the mutex; numbers of blocks, counted from the start of the file.
    uint64_t n_cut;
    uint64_t n_claimed;
    uint64_t n_taken;
    size_t flight_bytes;
    bool is_cut_over;
    bool is_over;
} pipeline;

static uint64_t key_of(const char *text, size_t bytes)
{
    uint8_t digest[MM_SHA256_BYTES];
    uint64_t key = 0;
    mm_sha256_of(text, bytes, digest);
    for (int i = 0; i < 8; i++)
        key = key << 8 | digest[i];
    return key;
}

static mm_status no_memory(const mm_documents *job, mm_err *err)
{
    return MM_FAIL(err, MM_ENOMEM, "%s: no memory to tokenize it", job->path);
}

// Room for one more at the end of a list.
static mm_status make_room(const mm_documents *job, void **list, size_t count, size_t *capacity,
                           size_t each, mm_err *err)
{
    if (count < *capacity) return MM_OK;
    const size_t wanted = *capacity ? 2 * *capacity : 256;
    void *grown = *list ? mm_realloc(*list, wanted * each) : mm_alloc(wanted * each);
    if (!grown) return no_memory(job, err);
    *list = grown;
    *capacity = wanted;
    return MM_OK;
}

/* Closes a rendering whose ids begin at `first`; `mask` NULL: all are learned. */
static mm_status put_rendering(const mm_documents *job, row_block *block, size_t first,
                               const mm_str *mask, mm_err *err)
{
    int32_t *ids = block->ids.data + first;
    const size_t count = block->ids.count - first;
    mm_rendering rendering = {.end = block->ids.count, .first_learned = (uint32_t)count};
    void *list = block->renderings;
    MM_ASSERT(!mask || mask->length == count);
    for (size_t i = 0; i < count; i++) {
        if (mask && !mask->data[i]) continue;
        if (rendering.n_learned++ == 0) rendering.first_learned = (uint32_t)i;
        ids[i] |= MM_ID_LEARNED;
    }
    MM_TRY(make_room(job, &list, block->n_renderings, &block->renderings_capacity,
                     sizeof *block->renderings, err));
    block->renderings = list;
    block->renderings[block->n_renderings++] = rendering;
    return MM_OK;
}

static mm_status put_document(const mm_documents *job, row_block *block, uint64_t key,
                              uint32_t flags, mm_err *err)
{
    void *list = block->documents;
    MM_TRY(make_room(job, &list, block->n_documents, &block->documents_capacity,
                     sizeof *block->documents, err));
    block->documents = list;
    block->documents[block->n_documents++] =
        (mm_document){.key = key, .flags = flags, .renderings_end = block->n_renderings};
    return MM_OK;
}

static mm_status encode_rendering(row_encoder *encoder, row_block *block,
                                  const mm_conversation *chat, bool drop_empty_think, mm_str *text,
                                  mm_err *err)
{
    const mm_documents *job = encoder->job;
    const mm_chat_options options = {.drop_empty_think = drop_empty_think, .mask = job->mask};
    const size_t first = block->ids.count;
    mm_str_clear(&encoder->mask);
    MM_TRY(mm_chat_encode_text(job->tokenizer, chat, &options, text, &block->ids, &encoder->mask,
                               err));
    return put_rendering(job, block, first, &encoder->mask, err);
}

// One side, in one or two renderings; *varies tells which.
static mm_status encode_side(row_encoder *encoder, row_block *block, const mm_conversation *chat,
                             bool *varies, mm_err *err)
{
    MM_TRY(encode_rendering(encoder, block, chat, false, &encoder->text, err));
    *varies = mm_chat_has_empty_think(chat);
    if (!*varies) return MM_OK;
    mm_str_clear(&encoder->variant);
    return encode_rendering(encoder, block, chat, true, &encoder->variant, err);
}

static mm_status encode_chat(row_encoder *encoder, row_block *block, const mm_row *row, mm_err *err)
{
    bool varies;
    uint32_t flags = 0;
    // The key comes from the text, not from the ids: rows keep their side of the split under
    // another tokenizer.
    mm_str_clear(&encoder->text);
    MM_TRY(encode_side(encoder, block, &row->chat, &varies, err));
    if (varies) flags |= MM_DOCUMENT_VARIES;
    if (strcmp(row->chat.messages[0].role, "system") == 0 || json_array_size(row->chat.tools) > 0)
        flags |= MM_DOCUMENT_HAS_SYSTEM;
    if (row->kind == MM_ROW_PAIR) {
        MM_TRY(encode_side(encoder, block, &row->rejected, &varies, err));
        flags |= MM_DOCUMENT_IS_PAIR;
        if (varies) flags |= MM_DOCUMENT_REJECTED_VARIES;
        if (strcmp(row->rejected.messages[0].role, "system") == 0) flags |= MM_DOCUMENT_HAS_SYSTEM;
    }
    const uint64_t key = key_of(mm_str_text(&encoder->text), encoder->text.length);
    return put_document(encoder->job, block, key, flags, err);
}

static mm_status encode_text(row_encoder *encoder, row_block *block, const mm_row *row, mm_err *err)
{
    const mm_documents *job = encoder->job;
    const int32_t bos = mm_tokenizer_bos(job->tokenizer);
    const int32_t eos = mm_tokenizer_eos(job->tokenizer);
    const size_t first = block->ids.count;
    if (bos >= 0) MM_TRY(mm_ids_add(&block->ids, bos, err));
    MM_TRY(mm_tokenizer_encode(job->tokenizer, row->text, row->text_bytes, MM_ADDED_PARSE,
                               &block->ids, err));
    if (eos >= 0) MM_TRY(mm_ids_add(&block->ids, eos, err));
    if (block->ids.count == first) return MM_OK; // no document without ids
    MM_TRY(put_rendering(job, block, first, NULL, err));
    return put_document(job, block, key_of(row->text, row->text_bytes), MM_DOCUMENT_HAS_SYSTEM,
                        err);
}

static mm_status encode_row(row_encoder *encoder, row_block *block, const mm_row *row, mm_err *err)
{
    const bool is_pair = row->kind == MM_ROW_PAIR;
    if (is_pair && !encoder->job->pairs)
        return MM_FAIL(
            err, MM_EFORMAT,
            "a preference row (chosen and rejected); `mmrun dpo` learns from such files");
    if (!is_pair && encoder->job->pairs)
        return MM_FAIL(err, MM_EFORMAT,
                       "a row without chosen and rejected; `mmrun dpo` learns from preference "
                       "pairs, `mmrun %s` from rows like this",
                       row->kind == MM_ROW_TEXT ? "pretrain" : "sft");
    if (row->kind == MM_ROW_TEXT) return encode_text(encoder, block, row, err);
    return encode_chat(encoder, block, row, err);
}

static mm_status encode_record(row_encoder *encoder, row_block *block, const mm_record *record,
                               mm_err *err)
{
    const mm_row *row;
    MM_TRY(mm_row_parse(&encoder->parser, record, &block->report, &row, err));
    if (!row) return MM_OK;
    const mm_status status = encode_row(encoder, block, row, err);
    if (status != MM_OK) mm_err_context(err, "%s:%lld", encoder->job->path, (long long)row->line);
    return status;
}

// Turns the records of a block into documents, up to the first error.
static void encode_block(row_encoder *encoder, row_block *block)
{
    size_t begin = 0;
    for (size_t i = 0; i < block->n_records; i++) {
        const record_place *place = &block->places[i];
        const mm_record record = {.data = mm_str_text(&block->bytes) + begin,
                                  .bytes = place->end - begin,
                                  .number = place->number,
                                  .is_too_long = place->is_too_long};
        mm_err err = {0};
        const mm_status status = encode_record(encoder, block, &record, &err);
        if (status != MM_OK) {
            // It stands before whatever ended the cutting.
            block->status = status;
            block->err = err;
            return;
        }
        begin = place->end;
    }
}

static mm_status put_record(const mm_documents *job, row_block *block, const mm_record *record,
                            mm_err *err)
{
    void *list = block->places;
    MM_TRY(make_room(job, &list, block->n_records, &block->places_capacity, sizeof *block->places,
                     err));
    block->places = list;
    mm_str_add_bytes(&block->bytes, record->data, record->bytes);
    if (block->bytes.status != MM_OK) return no_memory(job, err);
    block->places[block->n_records++] = (record_place){
        .end = block->bytes.length, .number = record->number, .is_too_long = record->is_too_long};
    return MM_OK;
}

static mm_status cut_records(pipeline *line, row_block *block, mm_err *err)
{
    while (block->bytes.length < BLOCK_BYTES && block->n_records < BLOCK_RECORDS) {
        mm_record record;
        bool more;
        MM_TRY(mm_row_reader_cut(line->reader, &record, &more, err));
        if (!more) {
            block->is_last = true;
            break;
        }
        MM_TRY(put_record(line->job, block, &record, err));
    }
    return MM_OK;
}

static void cut_block(pipeline *line, row_block *block)
{
    block->n_records = block->n_renderings = block->n_documents = 0;
    block->ids.count = 0;
    block->is_last = block->is_ready = false;
    block->report = (mm_row_report){0};
    mm_str_clear(&block->bytes);
    block->status = cut_records(line, block, &block->err);
    if (block->status != MM_OK) block->is_last = true;
    block->bytes_done = mm_row_reader_bytes_done(line->reader);
}

static mm_status take_block(pipeline *line, row_block *block, mm_err *err)
{
    const mm_document_block result = {.ids = block->ids.data,
                                      .renderings = block->renderings,
                                      .documents = block->documents,
                                      .count = block->n_documents,
                                      .bytes_done = block->bytes_done};
    mm_row_reader_count(line->reader, &block->report);
    MM_TRY(line->job->take(line->job->context, &result, err));
    if (block->status != MM_OK && err) *err = block->err;
    const mm_status status = block->status;
    if (block->bytes.capacity > KEPT_BYTES) mm_str_drop(&block->bytes);
    if (block->ids.capacity > KEPT_BYTES) mm_ids_drop(&block->ids);
    return status;
}

/* Encodes the oldest block that nobody has claimed. Called and left with the mutex held. */
static void encode_next(pipeline *line, row_encoder *encoder)
{
    const uint64_t number = line->n_claimed++;
    row_block *block = &line->ring[number % line->n_ring];
    pthread_mutex_unlock(&line->mutex);
    encode_block(encoder, block);
    pthread_mutex_lock(&line->mutex);
    block->is_ready = true;
    if (number == line->n_taken) pthread_cond_signal(&line->has_result);
}

static void *worker_main(void *context)
{
    worker *self = context;
    pipeline *line = self->line;
    pthread_mutex_lock(&line->mutex);
    while (!line->is_over) {
        if (line->n_claimed < line->n_cut)
            encode_next(line, &self->encoder);
        else
            pthread_cond_wait(&line->has_work, &line->mutex);
    }
    pthread_mutex_unlock(&line->mutex);
    return NULL;
}

// One more thread while blocks lie about. Where none can be had, work goes on without it.
static void start_worker(pipeline *line)
{
    worker *next = &line->workers[line->n_started];
    if (pthread_create(&next->thread, NULL, worker_main, next) == 0)
        line->n_started++;
    else
        line->n_workers = line->n_started;
}

// Called and left with the mutex held.
static void cut_next(pipeline *line)
{
    row_block *block = &line->ring[line->n_cut % line->n_ring];
    pthread_mutex_unlock(&line->mutex);
    cut_block(line, block);
    pthread_mutex_lock(&line->mutex);
    line->n_cut++;
    line->flight_bytes += block->bytes.length;
    line->is_cut_over = block->is_last;
    pthread_cond_signal(&line->has_work);
    // The caller encodes the first block of a file itself, if it is the only one.
    if (line->n_cut - line->n_claimed > 1 && line->n_started < line->n_workers) start_worker(line);
}

static bool may_cut(const pipeline *line)
{
    const uint64_t in_flight = line->n_cut - line->n_taken;
    return !line->is_cut_over && in_flight < line->n_ring &&
           (in_flight == 0 || line->flight_bytes < FLIGHT_BYTES);
}

/* The caller's part. Taking comes first, since it makes room; then cutting, since the others live
 * on it. */
static mm_status run_caller(pipeline *line, mm_err *err)
{
    mm_status status = MM_OK;
    bool is_done = false;
    pthread_mutex_lock(&line->mutex);
    while (!is_done) {
        row_block *first = &line->ring[line->n_taken % line->n_ring];
        if (line->n_taken < line->n_cut && first->is_ready) {
            const size_t bytes = first->bytes.length;
            pthread_mutex_unlock(&line->mutex);
            status = take_block(line, first, err);
            pthread_mutex_lock(&line->mutex);
            line->n_taken++;
            line->flight_bytes -= bytes;
            is_done = status != MM_OK || first->is_last;
        } else if (may_cut(line)) {
            cut_next(line);
        } else if (line->n_claimed < line->n_cut) {
            encode_next(line, &line->workers[0].encoder);
        } else {
            pthread_cond_wait(&line->has_result, &line->mutex);
        }
    }
    line->is_over = true;
    pthread_cond_broadcast(&line->has_work);
    pthread_mutex_unlock(&line->mutex);
    return status;
}

static mm_status line_open(pipeline *line, mm_err *err)
{
    const int32_t wanted = line->job->threads < 1 ? 1 : line->job->threads;
    const int32_t most = MM_DOCUMENT_THREADS_MAX;
    line->n_workers = wanted < most ? wanted : most;
    line->n_started = 1;
    line->n_ring = wanted == 1 ? 1 : (uint64_t)line->n_workers * BLOCKS_PER_THREAD;
    line->ring = mm_calloc(line->n_ring, sizeof *line->ring);
    line->workers = mm_calloc((size_t)line->n_workers, sizeof *line->workers);
    if (!line->ring || !line->workers) return no_memory(line->job, err);
    for (int32_t i = 0; i < line->n_workers; i++) {
        line->workers[i].line = line;
        line->workers[i].encoder =
            (row_encoder){.job = line->job, .parser = mm_row_reader_parser(line->reader)};
    }
    return MM_OK;
}

static void line_drop(pipeline *line)
{
    for (int32_t i = 0; line->workers && i < line->n_workers; i++) {
        mm_row_parser_drop(&line->workers[i].encoder.parser);
        mm_str_drop(&line->workers[i].encoder.text);
        mm_str_drop(&line->workers[i].encoder.variant);
        mm_str_drop(&line->workers[i].encoder.mask);
    }
    for (uint64_t i = 0; line->ring && i < line->n_ring; i++) {
        mm_str_drop(&line->ring[i].bytes);
        mm_ids_drop(&line->ring[i].ids);
        mm_free(line->ring[i].places);
        mm_free(line->ring[i].renderings);
        mm_free(line->ring[i].documents);
    }
    mm_free(line->workers);
    mm_free(line->ring);
}

mm_status mm_documents_each(const mm_documents *documents, mm_row_reader *reader, mm_err *err)
{
    pipeline line = {.job = documents,
                     .reader = reader,
                     .mutex = PTHREAD_MUTEX_INITIALIZER,
                     .has_work = PTHREAD_COND_INITIALIZER,
                     .has_result = PTHREAD_COND_INITIALIZER};
    mm_status status = line_open(&line, err);
    if (status == MM_OK) status = run_caller(&line, err);
    for (int32_t i = 1; i < line.n_started; i++)
        pthread_join(line.workers[i].thread, NULL);
    pthread_cond_destroy(&line.has_result);
    pthread_cond_destroy(&line.has_work);
    pthread_mutex_destroy(&line.mutex);
    line_drop(&line);
    return status;
}
