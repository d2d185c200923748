/* Folders that are written whole. See folder.h. */
#include "core/io/folder.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

mm_status mm_folder_write(const char *dir, const char *name, mm_str *text, mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    MM_GO(mm_str_check(text, err));
    MM_GO(mm_path_join(&path, dir, name, err));
    MM_GO(mm_file_write_atomic(path, mm_str_text(text), text->length, err));
done:
    mm_free(path);
    mm_str_drop(text);
    return status;
}

mm_status mm_folder_remove(const char *dir, const char *name, mm_err *err)
{
    char *path = NULL;
    MM_TRY(mm_path_join(&path, dir, name, err));
    mm_status status = MM_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = MM_FAIL_ERRNO(err, "%s: cannot remove", path);
    mm_free(path);
    return status;
}

static bool is_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return false;
    bool is_empty = true;
    for (const struct dirent *entry = readdir(dir); entry && is_empty; entry = readdir(dir))
        is_empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(dir);
    return is_empty;
}

mm_status mm_folder_prepare(const char *dir, const char *mark, bool overwrite, mm_err *err)
{
    if (!mm_file_exists(dir)) return mm_dir_make(dir, err);
    if (!mm_file_is_dir(dir))
        return MM_FAIL(err, MM_EEXISTS, "%s: exists and is not a folder", dir);
    if (is_empty_dir(dir)) return MM_OK;
    if (!overwrite)
        return MM_FAIL(err, MM_EEXISTS,
                       "%s: the folder exists and is not empty; name another or allow overwriting",
                       dir);
    return mm_folder_remove(dir, mark, err);
}
