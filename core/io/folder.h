/* Folders that are written whole: what hf_export.c and peft.c share. Internal to core/io. */
#ifndef MM_IO_FOLDER_H
#define MM_IO_FOLDER_H

#include "core/base/file.h"

/* Makes the folder. One that exists and is not empty is MM_EEXISTS unless `overwrite`; then `mark`
 * goes first, the file without which it is none, so that an interrupted export is never mistaken
 * for a finished one. */
MM_NODISCARD mm_status mm_folder_prepare(const char *dir, const char *mark, bool overwrite,
                                         mm_err *err);
/* Writes the text, and drops it in every case. */
MM_NODISCARD mm_status mm_folder_write(const char *dir, const char *name, mm_str *text,
                                       mm_err *err);
/* Removes a file of the folder, if it is there. */
MM_NODISCARD mm_status mm_folder_remove(const char *dir, const char *name, mm_err *err);

#endif
