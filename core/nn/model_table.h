/* The table of a model's tensors without their memory: what planning and estimates need. Internal
 * to core/nn. */
#ifndef MM_NN_MODEL_TABLE_H
#define MM_NN_MODEL_TABLE_H

#include "core/nn/model.h"

typedef struct mm_model_table {
    mm_tensor *tensors; /* data is NULL here */
    int32_t n_tensors;
    int64_t n_elements;
    int64_t first_trained; /* element */
} mm_model_table;

/* From a resolved configuration. */
MM_NODISCARD mm_status mm_model_table_new(mm_model_table *table, const mm_model_config *config,
                                          mm_err *err);
void mm_model_table_drop(mm_model_table *table);
const mm_tensor *mm_model_table_find(const mm_model_table *table, const char *name);

#endif
