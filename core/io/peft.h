/* Adapters in the folders of `peft`: export, so that PeftModel.from_pretrained loads them over the
 * exported base, and import.
 *
 * A folder holds adapter_model.safetensors and adapter_config.json, and nothing of the base. What
 * peft can do and the engine does not (DoRA, other ranks for other layers, trained biases …) is
 * refused by its name.
 */
#ifndef MM_IO_PEFT_H
#define MM_IO_PEFT_H

#include "core/nn/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* True where the folder holds adapters. */
bool mm_peft_is_folder(const char *dir);
/* `base` is what the settings name as the base: a folder or a name. The model has adapters. An
 * existing folder that is not empty is MM_EEXISTS unless `overwrite`. */
MM_NODISCARD mm_status mm_peft_export(const char *dir, const mm_model *model, const char *base,
                                      bool overwrite, mm_err *err);
/* Adds to the shape of a base what the settings say of the adapters. */
MM_NODISCARD mm_status mm_peft_config_read(const char *dir, mm_model_config *shape, mm_err *err);
/* Fills the adapters of the model; every one of them, and nothing besides, must be in the folder.
 */
MM_NODISCARD mm_status mm_peft_import(const char *dir, mm_model *model, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
