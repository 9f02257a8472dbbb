/* openai.c - OpenAI's own files: the SHA-256 is part of the URL (clip/clip.py, _download), and so the check. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "hub/fetch.h"

/* Where OpenAI's code keeps them: ~/.cache/clip. */
static char *cache_dir(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg)
        return nm_path_join(xdg, "clip");
    return home && *home ? nm_path_join(home, ".cache/clip") : nm_strdup(".cache/clip");
}

static noema_status download(const char *url_path, const char *digest, const char *dest, const nm_hub_options *o, noema_error *err)
{
    const char *base = getenv("NOEMA_OPENAI_ENDPOINT");
    nm_http_info info;
    int lock = -1;
    char *url = nm_sprintf("%s/clip/models/%s", base && *base ? base : "https://openaipublic.azureedge.net", url_path);
    char *lock_path = nm_sprintf("%s.lock", dest);
    nm_http *h = url && lock_path ? nm_http_new(url, NULL) : NULL;
    noema_status s = h ? nm_lock(&lock, lock_path, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK && !nm_file_exists(dest)) {
        s = nm_http_head(h, url, &info, err);
        if (s == NOEMA_OK && info.status != 200)
            s = nm_http_refused(&info, url, err);
        if (s == NOEMA_OK)
            s = nm_fetch(h, url, dest, nm_path_base(dest), info.size, digest, o, err);
    }
    nm_unlock(lock);
    nm_http_free(h);
    free(url);
    free(lock_path);
    return s;
}

noema_status nm_hub_openai(char **path, const char *url_path, const nm_hub_options *o, noema_error *err)
{
    const char *slash = strchr(url_path, '/');
    char digest[65] = "", hex[65];
    *path = NULL;
    if (!slash || slash - url_path != 64 || strchr(slash + 1, '/') || !slash[1])
        return nm_fail(err, NOEMA_E_INTERNAL, "'%s': expected SHA256/NAME", url_path);
    memcpy(digest, url_path, 64);
    char *dir = cache_dir(), *dest = dir ? nm_path_join(dir, slash + 1) : NULL;
    noema_status s = dest ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    /* What is there is taken as it is: the check came with its download, and `models pull` repeats it. */
    if (s == NOEMA_OK && nm_file_exists(dest) && o && o->refresh) {
        s = nm_file_sha256(dest, hex, err);
        if (s == NOEMA_OK && strcasecmp(hex, digest))
            s = nm_fail(err, NOEMA_E_MISMATCH, "%s: expected SHA-256 %s, got %s; remove it and pull again", dest, digest, hex);
    } else if (s == NOEMA_OK && !nm_file_exists(dest)) {
        if (nm_hub_is_offline(o))
            s = nm_fail(err, NOEMA_E_MISSING, "%s: not there, and offline", dest);
        else if ((s = nm_mkdirs(dir, err)) == NOEMA_OK)
            s = download(url_path, digest, dest, o, err);
    }
    free(dir);
    if (s == NOEMA_OK)
        *path = dest;
    else
        free(dest);
    return s;
}
