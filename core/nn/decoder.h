/* The forward pass over key-value caches: pieces of rows in, logits out. Internal to core/nn.
 *
 * The same operations and products as in the training graph, which the spans of a pass go through
 * together. A row's values do not depend on what else is in a pass (generate.h). All memory is
 * taken by mm_decoder_new.
 */
#ifndef MM_NN_DECODER_H
#define MM_NN_DECODER_H

#include "core/nn/decode.h"
#include "core/nn/generate.h"

typedef struct mm_decoder mm_decoder;

/* `count` ids that follow the first `first` ids of a row, which are in its cache. */
typedef struct mm_span {
    int32_t row;
    int32_t first;
    int32_t count;
    bool wants_logits; /* of what follows its last id */
} mm_span;

/* Options are checked against the model: MM_ELIMIT. */
MM_NODISCARD mm_status mm_decoder_new(mm_decoder **out, const mm_model *model,
                                      const mm_generator_options *options, mm_err *err);
void mm_decoder_free(mm_decoder *decoder);
/* Copies the weights of the model anew. */
void mm_decoder_reload(mm_decoder *decoder);

/* Most ids and spans of one pass: at least the number of rows. */
int32_t mm_decoder_capacity(const mm_decoder *decoder);
mm_pool *mm_decoder_pool(const mm_decoder *decoder);
/* Runs the spans, of different rows; their ids follow each other in `ids` and are in the
 * vocabulary. Returns the logits of the spans that want them, in order (n, V) in float, borrowed
 * until the next call. */
const float *mm_decoder_run(mm_decoder *decoder, const mm_span *spans, int32_t n_spans,
                            const int32_t *ids);

#endif
