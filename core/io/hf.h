/* Hugging Face folders: export of a model so that transformers loads it without remote code, and
 * import.
 *
 * Qwen3ForCausalLM for models with QK-norm, LlamaForCausalLM without. Both spellings of the RoPE
 * and dtype settings are written (transformers 4 and 5). See docs/formats.md.
 */
#ifndef MM_IO_HF_H
#define MM_IO_HF_H

#include "core/nn/model.h"
#include "core/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_hf_provenance {
    const char *run_name;
    const char *json; /* content of mmrun_run.json; NULL: not written */
    const char *card; /* README.md; NULL: a short one is made */
} mm_hf_provenance;

/* Folder: config.json, generation_config.json, model.safetensors (fp32), tokenizer.json,
 * tokenizer_config.json, chat_template.jinja, README.md, mmrun_run.json. An existing folder that is
 * not empty is MM_EEXISTS unless `overwrite`. */
MM_NODISCARD mm_status mm_hf_export(const char *dir, const mm_model *model,
                                    const mm_tokenizer *tokenizer,
                                    const mm_hf_provenance *provenance, bool overwrite,
                                    mm_err *err);
/* Reads such a folder (Qwen3, Llama; .safetensors, also sharded with an index; never pickle).
 * Biases, sliding windows, RoPE scaling and other things the engine lacks are refused by name.
 * *tokenizer is NULL if the folder has none. */
MM_NODISCARD mm_status mm_hf_import(const char *dir, mm_model **model, mm_tokenizer **tokenizer,
                                    mm_err *err);
/* Only config.json. */
MM_NODISCARD mm_status mm_hf_config_read(const char *path, mm_model_config *out, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
