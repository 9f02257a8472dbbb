/* builtin.c - the folders of the models that come with noema: NOEMA_DATA_DIR, else below a folder above the command or the library:
 * "models/NAME" in a source tree with its build tree inside, "share/noema/NAME" where noema is installed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "models/handle.h"
#include "noema/model.h"

enum { LEVELS = 4 }; /* PREFIX/lib/x86_64-linux-gnu/libnoema.so, TREE/build/tests/test_x */

static char *folder_in(const char *dir, const char *below, const char *name)
{
    char *folder = nm_sprintf("%s/%s%s", dir, below, name), *config = folder ? nm_path_join(folder, "open_clip_config.json") : NULL;
    bool there = config && nm_file_exists(config);
    free(config);
    if (!there) {
        free(folder);
        folder = NULL;
    }
    return folder;
}

static char *folder_above(const char *file, const char *name)
{
    char *dir = nm_path_dir(file), *found = NULL;
    for (int i = 0; dir && !found && i < LEVELS; i++) {
        found = folder_in(dir, "share/noema/", name);
        if (!found)
            found = folder_in(dir, "models/", name);
        char *up = nm_path_dir(dir);
        bool top = !up || strcmp(up, dir) == 0 || strcmp(dir, ".") == 0;
        free(dir);
        dir = up;
        if (top)
            break;
    }
    free(dir);
    return found;
}

char *nm_builtin_folder(const char *name)
{
    const char *given = getenv("NOEMA_DATA_DIR");
    if (given && given[0])
        return folder_in(given, "", name);
    char path[4096], *found = NULL;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n > 0) {
        path[n] = 0;
        found = folder_above(path, name);
    }
    Dl_info library;
    char *real = !found && dladdr((const void *)NOEMA_BUILTIN_MODEL, &library) && library.dli_fname ? realpath(library.dli_fname, NULL) : NULL;
    if (real)
        found = folder_above(real, name);
    free(real);
    return found;
}

bool nm_is_builtin(const char *name) { return strcmp(name, NOEMA_BUILTIN_MODEL) == 0 || strcmp(name, NOEMA_BUILTIN_CAPTIONER) == 0; }

int noema_builtin_there(const char *name)
{
    char *folder = name && nm_is_builtin(name) ? nm_builtin_folder(name) : NULL;
    bool there = folder != NULL;
    free(folder);
    return there;
}
