/* safetensors: reading with every rule enforced, writing in the reference's layout.
 *
 * Read rules: header at most 100 MB, offsets inside the file without holes or overlap, shape × size
 * equal to the length, no duplicate names, "format":"pt" when metadata is present. The file is
 * memory-mapped.
 */
#ifndef MM_IO_SAFETENSORS_H
#define MM_IO_SAFETENSORS_H

#include "core/base/file.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_safetensor {
    const char *name;
    const char *dtype; /* "F32", "F16", "BF16" … */
    int32_t ndim;
    int64_t shape[8];
    const void *data; /* into the map; may be unaligned */
    size_t bytes;
} mm_safetensor;

typedef struct mm_safetensors mm_safetensors;
MM_NODISCARD mm_status mm_safetensors_open(mm_safetensors **out, const char *path, mm_err *err);
void mm_safetensors_close(mm_safetensors *file);
size_t mm_safetensors_count(const mm_safetensors *file);
const mm_safetensor *mm_safetensors_at(const mm_safetensors *file, size_t index);
const mm_safetensor *mm_safetensors_find(const mm_safetensors *file,
                                         const char *name); /* NULL: none */
/* Copies as fp32, converting F16 and BF16 exactly; other dtypes are MM_EFORMAT. `count` elements
 * expected. */
MM_NODISCARD mm_status mm_safetensor_to_f32(const mm_safetensor *tensor, float *out, int64_t count,
                                            mm_err *err);

/* Writes atomically; tensors in the given order, metadata {"format":"pt"}. */
MM_NODISCARD mm_status mm_safetensors_write(const char *path, const mm_safetensor *tensors,
                                            size_t count, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
