/* hub.c - the Hugging Face hub: names to URLs, answers to the cache folder. Protocol as in huggingface_hub's file_download.py:
 * HEAD /ORG/NAME/resolve/REV/FILE gives commit, etag and size; the content comes from wherever it redirects to. */
#define _GNU_SOURCE
#include "hub/hub.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "hub/fetch.h"

#define LIST_LIMIT ((size_t)64 << 20)

/* A repository at a revision, and what we know of it. */
typedef struct repo {
    char *id;       /* "org/name" */
    char *revision; /* "main" */
    char *dir;      /* CACHE/models--org--name */
    char *locks;    /* CACHE/.locks/models--org--name */
    char *endpoint; /* without a last slash */
    char *token;
    char commit[72]; /* "" until known */
    const nm_hub_options *o;
    nm_http *http; /* opened at the first need */
} repo;

static char *env_or(const char *a, const char *b)
{
    const char *v = getenv(a);
    if (!v || !*v)
        v = b ? getenv(b) : NULL;
    return v && *v ? nm_strdup(v) : NULL;
}

/* $HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface. */
static char *hf_home(void)
{
    char *home = env_or("HF_HOME", NULL), *cache;
    if (home)
        return home;
    if ((cache = env_or("XDG_CACHE_HOME", NULL)))
        home = nm_path_join(cache, "huggingface");
    else if ((cache = env_or("HOME", NULL)))
        home = nm_path_join(cache, ".cache/huggingface");
    free(cache);
    return home ? home : nm_strdup(".cache/huggingface");
}

char *nm_hub_cache_dir(void)
{
    char *dir = env_or("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE");
    if (dir)
        return dir;
    char *home = hf_home();
    dir = home ? nm_path_join(home, "hub") : NULL;
    free(home);
    return dir;
}

/* HF_TOKEN, else the file that `hf auth login` writes. NULL: none. */
static char *find_token(void)
{
    char *token = env_or("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), *path = NULL, *text = NULL;
    size_t size;
    noema_error e = NOEMA_ERROR_INIT;
    if (token)
        return token;
    if (!(path = env_or("HF_TOKEN_PATH", NULL))) {
        char *home = hf_home();
        path = home ? nm_path_join(home, "token") : NULL;
        free(home);
    }
    if (path && nm_file_exists(path) && nm_read_file(&text, &size, path, 4096, &e) == NOEMA_OK) {
        size_t n = strcspn(text, " \r\n\t");
        token = n ? nm_strndup(text, n) : NULL;
        free(text);
    }
    free(path);
    return token;
}

/* Names that become paths: no empty, "." or ".." parts, no control bytes or backslashes. `slashes`: more than one part is fine. */
static bool safe_name(const char *s, bool slashes)
{
    if (!*s || strlen(s) > 512)
        return false;
    for (const char *p = s; *p;) {
        size_t n = strcspn(p, "/");
        if (!n || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)p[i] < 0x20 || p[i] == '\\' || p[i] == 0x7F)
                return false;
        p += n;
        if (*p == '/' && (!slashes || !*++p))
            return false;
    }
    return true;
}

/* An etag or commit as a file's name: letters, digits, "-", "_" and inner dots. */
static bool safe_token(const char *s)
{
    if (!*s || *s == '.')
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
            return false;
    return true;
}

static bool is_hex(const char *s, size_t n) { return strlen(s) == n && strspn(s, "0123456789abcdefABCDEF") == n; }

static void repo_close(repo *r)
{
    nm_http_free(r->http);
    free(r->id);
    free(r->revision);
    free(r->dir);
    free(r->locks);
    free(r->endpoint);
    free(r->token);
}

static noema_status repo_open(repo *r, const char *name, const nm_hub_options *o, noema_error *err)
{
    const char *at = strchr(name, '@');
    *r = (repo){ .o = o };
    r->id = nm_strndup(name, at ? (size_t)(at - name) : strlen(name));
    r->revision = nm_strdup(at ? at + 1 : "main");
    char *cache = nm_hub_cache_dir();
    if (!r->id || !r->revision || !cache) {
        free(cache);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    const char *slash = strchr(r->id, '/');
    if (!safe_name(r->id, true) || (slash && strchr(slash + 1, '/')) || strstr(r->id, "--") || !safe_name(r->revision, true)) {
        free(cache);
        return nm_fail(err, NOEMA_E_ARGUMENT, "hf-hub:%s: expected ORG/NAME or ORG/NAME@REVISION", name);
    }
    r->dir = slash ? nm_sprintf("%s/models--%.*s--%s", cache, (int)(slash - r->id), r->id, slash + 1) : nm_sprintf("%s/models--%s", cache, r->id);
    r->locks = r->dir ? nm_sprintf("%s/.locks/%s", cache, nm_path_base(r->dir)) : NULL;
    free(cache);
    r->endpoint = env_or("HF_ENDPOINT", NULL);
    if (!r->endpoint)
        r->endpoint = nm_strdup("https://huggingface.co");
    r->token = find_token();
    if (!r->dir || !r->locks || !r->endpoint)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    for (size_t n = strlen(r->endpoint); n && r->endpoint[n - 1] == '/';)
        r->endpoint[--n] = 0;
    return NOEMA_OK;
}

/* The commit that the cache has for the revision: the revision itself, or refs/REVISION. */
static void read_ref(repo *r)
{
    noema_error e = NOEMA_ERROR_INIT;
    char *path = nm_sprintf("%s/refs/%s", r->dir, r->revision), *text = NULL;
    size_t size;
    r->commit[0] = 0;
    if (is_hex(r->revision, 40))
        snprintf(r->commit, sizeof r->commit, "%s", r->revision);
    else if (path && nm_file_exists(path) && nm_read_file(&text, &size, path, 4096, &e) == NOEMA_OK) {
        text[strcspn(text, " \r\n\t")] = 0;
        if (strlen(text) < sizeof r->commit && safe_token(text))
            snprintf(r->commit, sizeof r->commit, "%s", text);
        free(text);
    }
    free(path);
}

static noema_status write_ref(const repo *r, noema_error *err)
{
    if (is_hex(r->revision, 40))
        return NOEMA_OK;
    char *path = nm_sprintf("%s/refs/%s", r->dir, r->revision), *dir = path ? nm_path_dir(path) : NULL;
    noema_status s = dir ? nm_mkdirs(dir, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK)
        s = nm_write_file_atomic(path, r->commit, strlen(r->commit), err);
    free(path);
    free(dir);
    return s;
}

static char *snapshot_path(const repo *r, const char *file) { return nm_sprintf("%s/snapshots/%s/%s", r->dir, r->commit, file); }

static bool is_cached(const repo *r, const char *file)
{
    char *path = r->commit[0] ? snapshot_path(r, file) : NULL;
    bool there = path && nm_file_exists(path);
    free(path);
    return there;
}

/* Percent-encodes everything but unreserved characters; a slash stays when keep_slash. */
static bool put_url(nm_buf *b, const char *s, bool keep_slash)
{
    for (; *s; s++)
        if (isalnum((unsigned char)*s) || strchr("-_.~", *s) || (keep_slash && *s == '/'))
            nm_buf_putc(b, *s);
        else
            nm_buf_printf(b, "%%%02X", (unsigned char)*s);
    return !b->failed;
}

static char *make_url(const repo *r, const char *before, const char *middle, const char *file)
{
    nm_buf b = { 0 };
    nm_buf_puts(&b, r->endpoint);
    nm_buf_puts(&b, before);
    put_url(&b, r->id, true);
    nm_buf_puts(&b, middle);
    put_url(&b, r->revision, false);
    if (file) {
        nm_buf_putc(&b, '/');
        put_url(&b, file, true);
    }
    return nm_buf_take(&b);
}

static noema_status connect(repo *r, noema_error *err)
{
    if (!r->http && !(r->http = nm_http_new(r->endpoint, r->token)))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: cannot start a transfer", r->endpoint);
    return NOEMA_OK;
}

/* A relative link from snapshots/COMMIT/FILE to blobs/ETAG, put in place by a rename. */
static noema_status link_blob(const repo *r, const char *file, const char *etag, noema_error *err)
{
    nm_buf target = { 0 };
    char *path = snapshot_path(r, file), *dir = path ? nm_path_dir(path) : NULL, *tmp = path ? nm_sprintf("%s.tmp.%ld", path, (long)getpid()) : NULL;
    noema_status s = dir && tmp ? nm_mkdirs(dir, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    nm_buf_puts(&target, "../../");
    for (const char *p = file; (p = strchr(p, '/')); p++)
        nm_buf_puts(&target, "../");
    nm_buf_printf(&target, "blobs/%s", etag);
    if (s == NOEMA_OK && target.failed)
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK) {
        unlink(tmp);
        if (symlink(target.data, tmp) || rename(tmp, path))
            s = nm_fail(err, NOEMA_E_IO, "%s: cannot link: %s", path, strerror(errno));
    }
    nm_buf_free(&target);
    free(path);
    free(dir);
    free(tmp);
    return s;
}

/* blobs/ETAG, fetched unless it is there, under the lock that the hub's other clients take too. */
static noema_status fetch_blob(repo *r, const char *url, const char *file, const nm_http_info *info, noema_error *err)
{
    struct stat st;
    int lock = -1;
    char *blobs = nm_path_join(r->dir, "blobs"), *blob = blobs ? nm_path_join(blobs, info->etag) : NULL;
    char *lock_path = nm_sprintf("%s/%s.lock", r->locks, info->etag);
    noema_status s = blob && lock_path ? nm_mkdirs(blobs, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK)
        s = nm_mkdirs(r->locks, err);
    if (s == NOEMA_OK)
        s = nm_lock(&lock, lock_path, err);
    if (s == NOEMA_OK && (stat(blob, &st) || (info->size >= 0 && st.st_size != info->size)))
        s = nm_fetch(r->http, url, blob, file, info->size, is_hex(info->etag, 64) ? info->etag : NULL, r->o, err);
    if (s == NOEMA_OK)
        s = link_blob(r, file, info->etag, err);
    nm_unlock(lock);
    free(blobs);
    free(blob);
    free(lock_path);
    return s;
}

/* One file into the snapshot. *absent: the repository has no such file (not an error here). */
static noema_status fetch_file(repo *r, const char *file, bool *absent, noema_error *err)
{
    nm_http_info info;
    char *url = NULL, *what = NULL;
    noema_status s;
    *absent = false;
    if (!safe_name(file, true))
        return nm_fail(err, NOEMA_E_FORMAT, "hf-hub:%s: '%s' is no name of a file in a repository", r->id, file);
    if ((s = connect(r, err)) != NOEMA_OK)
        return s;
    url = make_url(r, "/", "/resolve/", file);
    what = nm_sprintf("hf-hub:%s@%s: %s", r->id, r->revision, file);
    s = url && what ? nm_http_head(r->http, url, &info, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK && info.status == 404 && (!info.error_code[0] || !strcmp(info.error_code, "EntryNotFound")))
        *absent = true;
    else if (s == NOEMA_OK && info.status != 200)
        s = nm_http_refused(&info, what, err);
    else if (s == NOEMA_OK && (!safe_token(info.etag) || !safe_token(info.commit)))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected the headers X-Repo-Commit and ETag, got '%s' and '%s'; is %s a hub?", what, info.commit,
                    info.etag, r->endpoint);
    if (s == NOEMA_OK && !*absent) {
        if (strcmp(r->commit, info.commit)) {
            snprintf(r->commit, sizeof r->commit, "%s", info.commit);
            s = write_ref(r, err);
        }
        if (s == NOEMA_OK)
            s = fetch_blob(r, url, file, &info, err);
    }
    free(url);
    free(what);
    return s;
}

/* "a|b?" -> the first of a, b in the cache or on the hub. *found says whether there is one; `online`: ask the hub. */
static noema_status resolve_one(repo *r, const char *spec, bool online, bool *found, noema_error *err)
{
    size_t n = strlen(spec);
    char *names = nm_strndup(spec, n && spec[n - 1] == '?' ? n - 1 : n), *save = NULL;
    noema_status s = names ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    *found = false;
    for (char *name = names ? strtok_r(names, "|", &save) : NULL; name && s == NOEMA_OK && !*found; name = strtok_r(NULL, "|", &save)) {
        bool absent = true;
        if (!online)
            absent = !is_cached(r, name);
        else
            s = fetch_file(r, name, &absent, err);
        *found = s == NOEMA_OK && !absent;
    }
    free(names);
    return s;
}

static bool is_optional(const char *spec)
{
    size_t n = strlen(spec);
    return n && spec[n - 1] == '?';
}

/* All files that are not optional are in the cache. */
static noema_status all_cached(repo *r, size_t n, const char *const *files, bool *all, noema_error *err)
{
    *all = r->commit[0] != 0;
    for (size_t i = 0; i < n && *all; i++) {
        noema_status s = resolve_one(r, files[i], false, all, err);
        if (s != NOEMA_OK)
            return s;
        if (is_optional(files[i]))
            *all = true;
    }
    return NOEMA_OK;
}

static noema_status resolve_all(repo *r, size_t n, const char *const *files, noema_error *err)
{
    bool found;
    for (size_t i = 0; i < n; i++) {
        noema_status s = resolve_one(r, files[i], true, &found, err);
        if (s != NOEMA_OK)
            return s;
        if (!found && !is_optional(files[i]))
            return nm_fail(err, NOEMA_E_MISSING, "hf-hub:%s@%s: has no file %s", r->id, r->revision, files[i]);
    }
    return NOEMA_OK;
}

noema_status nm_hub_resolve(char **dir, const char *name, size_t n, const char *const *files, const nm_hub_options *o, noema_error *err)
{
    repo r;
    bool cached = false;
    *dir = NULL;
    noema_status s = repo_open(&r, name, o, err);
    if (s == NOEMA_OK) {
        read_ref(&r);
        if (nm_hub_is_offline(o) || !o || !o->refresh)
            s = all_cached(&r, n, files, &cached, err);
    }
    if (s == NOEMA_OK && !cached) {
        if (nm_hub_is_offline(o))
            s = nm_fail(err, NOEMA_E_MISSING, "hf-hub:%s: not in the cache %s, and offline; `noema models pull hf-hub:%s` fetches it", name, r.dir, name);
        else
            s = resolve_all(&r, n, files, err);
    }
    if (s == NOEMA_OK && !r.commit[0])
        s = nm_fail(err, NOEMA_E_MISSING, "hf-hub:%s: none of the files asked for is there", name);
    if (s == NOEMA_OK && !(*dir = nm_sprintf("%s/snapshots/%s", r.dir, r.commit)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    repo_close(&r);
    return s;
}

/* {"sha": COMMIT, "siblings": [{"rfilename": NAME}, ...]} */
static noema_status read_listing(const repo *r, const nm_buf *b, char ***files, size_t *n, noema_error *err)
{
    json_t *j = nm_json_parse(b->data, b->len, r->id, err), *list = nm_json_get(j, "siblings");
    size_t count = list && json_is_array(list) ? json_array_size(list) : 0;
    noema_status s = j ? NOEMA_OK : NOEMA_E_FORMAT;
    if (s == NOEMA_OK && !(*files = calloc(count + 1, sizeof **files)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    for (size_t i = 0; i < count && s == NOEMA_OK; i++) {
        const char *name = nm_json_str(json_array_get(list, i), "rfilename", NULL);
        if (!name || !safe_name(name, true))
            continue;
        if (!((*files)[(*n)++] = nm_strdup(name)))
            s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    if (s == NOEMA_OK && !count)
        s = nm_fail(err, NOEMA_E_MISSING, "hf-hub:%s: the hub lists no files", r->id);
    json_decref(j);
    return s;
}

noema_status nm_hub_list(char ***files, size_t *n, const char *name, const nm_hub_options *o, noema_error *err)
{
    repo r;
    nm_buf b = { 0 };
    nm_http_info info;
    char *url = NULL;
    *files = NULL;
    *n = 0;
    noema_status s = repo_open(&r, name, o, err);
    if (s == NOEMA_OK && nm_hub_is_offline(o))
        s = nm_fail(err, NOEMA_E_MISSING, "hf-hub:%s: offline, cannot ask the hub", name);
    if (s == NOEMA_OK)
        s = connect(&r, err);
    if (s == NOEMA_OK && !(url = make_url(&r, "/api/models/", "/revision/", NULL)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK)
        s = nm_http_get_text(r.http, url, LIST_LIMIT, &b, &info, err);
    if (s == NOEMA_OK && info.status != 200) {
        char *what = nm_sprintf("hf-hub:%s", name);
        s = nm_http_refused(&info, what ? what : name, err);
        free(what);
    }
    if (s == NOEMA_OK)
        s = read_listing(&r, &b, files, n, err);
    if (s != NOEMA_OK) {
        nm_hub_list_free(*files, *n);
        *files = NULL;
        *n = 0;
    }
    nm_buf_free(&b);
    free(url);
    repo_close(&r);
    return s;
}

void nm_hub_list_free(char **files, size_t n)
{
    for (size_t i = 0; files && i < n; i++)
        free(files[i]);
    free(files);
}
