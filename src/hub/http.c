/* http.c - see http.h. */
#define _GNU_SOURCE
#include "hub/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "noema/version.h"

#define MAX_HOPS 10

struct nm_http {
    CURL *curl;
    char *origin; /* scheme://host[:port] that may see the token */
    char *token;
};

/* One request in flight. */
typedef struct transfer {
    nm_http *h;
    nm_http_info *info;
    nm_buf *text; /* sink of small answers, with its limit */
    size_t limit;
    FILE *file;   /* sink of files */
    int64_t from, done, total, range_start;
    const char *name;
    const nm_hub_options *o;
    bool has_linked, too_large, bad_range, write_failed, cancelled;
    int write_errno;
} transfer;

static void init_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

/* "https://host:443" of a URL, malloc'd. */
static char *origin_of(const char *url)
{
    const char *host = strstr(url, "://");
    return host ? nm_strndup(url, (size_t)(host + 3 - url) + strcspn(host + 3, "/?#")) : nm_strdup("");
}

nm_http *nm_http_new(const char *endpoint, const char *token)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_curl);
    nm_http *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->curl = curl_easy_init();
    h->origin = origin_of(endpoint);
    h->token = token && *token ? nm_strdup(token) : NULL;
    if (!h->curl || !h->origin || (token && *token && !h->token)) {
        nm_http_free(h);
        return NULL;
    }
    return h;
}

void nm_http_free(nm_http *h)
{
    if (!h)
        return;
    if (h->curl)
        curl_easy_cleanup(h->curl);
    free(h->origin);
    free(h->token);
    free(h);
}

/* The value of header `name` in line[0..n), trimmed, cut to cap; false: another header. */
static bool header_value(const char *line, size_t n, const char *name, char *out, size_t cap)
{
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k))
        return false;
    const char *v = line + k + 1, *end = line + n;
    while (v < end && (*v == ' ' || *v == '\t'))
        v++;
    while (end > v && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    size_t len = (size_t)(end - v);
    if (len >= cap)
        len = 0; /* longer than anything the protocol says: as if absent */
    memcpy(out, v, len);
    out[len] = 0;
    return true;
}

static void set_etag(nm_http_info *i, char *v)
{
    if (!strncmp(v, "W/", 2))
        v += 2;
    size_t n = strlen(v);
    if (n >= 2 && v[0] == '"' && v[n - 1] == '"') {
        v[n - 1] = 0;
        v++;
    }
    snprintf(i->etag, sizeof i->etag, "%s", v);
}

static size_t on_header(char *line, size_t one, size_t n, void *user)
{
    transfer *t = user;
    nm_http_info *i = t->info;
    char v[136];
    n *= one;
    if (header_value(line, n, "X-Repo-Commit", i->commit, sizeof i->commit) ||
        header_value(line, n, "X-Error-Code", i->error_code, sizeof i->error_code))
        return n;
    if (header_value(line, n, "Content-Range", v, sizeof v))
        t->range_start = strncasecmp(v, "bytes ", 6) ? -1 : strtoll(v + 6, NULL, 10);
    else if (header_value(line, n, "X-Linked-Etag", v, sizeof v)) {
        set_etag(i, v);
        t->has_linked = true;
    } else if (header_value(line, n, "X-Linked-Size", v, sizeof v))
        i->size = strtoll(v, NULL, 10);
    else if (!t->has_linked && header_value(line, n, "ETag", v, sizeof v))
        set_etag(i, v);
    return n;
}

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    transfer *t = user;
    long status = 0;
    n *= one;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206)
        return n; /* the page of an error or a redirect */
    if (t->text) {
        if (n > t->limit - t->text->len)
            return t->too_large = true, 0;
        return nm_buf_append(t->text, data, n) ? n : 0;
    }
    if (!t->file)
        return n;
    if (status == 206 && t->range_start != t->from)
        return t->bad_range = true, 0;
    if (status == 200 && t->from) { /* the range was not honoured */
        if (fflush(t->file) || ftruncate(fileno(t->file), 0) || fseeko(t->file, 0, SEEK_SET))
            return t->write_failed = true, t->write_errno = errno, 0;
        t->from = t->done = 0;
    }
    if (t->total >= 0 && (int64_t)n > t->total - t->done)
        return t->too_large = true, 0;
    errno = 0;
    if (fwrite(data, 1, n, t->file) != n)
        return t->write_failed = true, t->write_errno = errno, 0;
    t->done += (int64_t)n;
    return n;
}

static int on_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    transfer *t = user;
    (void)total, (void)now, (void)up_total, (void)up_now;
    if (t->o && t->o->progress && t->o->progress(t->o->progress_user, t->name, t->done, t->total)) {
        t->cancelled = true;
        return 1;
    }
    return 0;
}

static void set_up(transfer *t, const char *url, bool head)
{
    CURL *c = t->h->curl;
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_NOBODY, (long)head);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_USERAGENT, "noema/" NOEMA_VERSION_STRING);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 15L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L); /* a connection that says nothing for half a minute is dead */
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 30L);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    if (t->from) { /* not CURLOPT_RESUME_FROM: that fails where a server sends the whole file */
        char range[32];
        snprintf(range, sizeof range, "%lld-", (long long)t->from);
        curl_easy_setopt(c, CURLOPT_RANGE, range);
    }
}

/* One answer from one host. *next: malloc'd target of a redirect, else NULL. */
static noema_status one_hop(transfer *t, const char *url, bool head, char **next, noema_error *err)
{
    CURL *c = t->h->curl;
    char detail[CURL_ERROR_SIZE] = "", *target = NULL, *origin = origin_of(url);
    struct curl_slist *headers = curl_slist_append(NULL, "Accept-Encoding: identity");
    curl_off_t length = -1;
    *next = NULL;
    if (!origin || !headers) {
        free(origin);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", url);
    }
    set_up(t, url, head);
    if (t->h->token && !strcasecmp(origin, t->h->origin)) {
        char *line = nm_sprintf("Authorization: Bearer %s", t->h->token);
        struct curl_slist *more = line ? curl_slist_append(headers, line) : NULL;
        headers = more ? more : headers;
        free(line);
    }
    free(origin);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
    CURLcode rc = curl_easy_perform(c);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &t->info->status);
    if (t->cancelled)
        return nm_fail(err, NOEMA_E_CANCELLED, "%s: stopped after %lld bytes; the next try goes on there", t->name, (long long)t->done);
    if (t->too_large)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: the answer is longer than expected", url);
    if (t->bad_range)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: asked for bytes from %lld, got them from %lld", url, (long long)t->from, (long long)t->range_start);
    if (t->write_failed)
        return nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", t->name, strerror(t->write_errno));
    if (rc != CURLE_OK)
        return nm_fail(err, NOEMA_E_IO, "%s: %s", url, detail[0] ? detail : curl_easy_strerror(rc));
    curl_easy_getinfo(c, CURLINFO_REDIRECT_URL, &target);
    if (target && t->info->status >= 300 && t->info->status < 400) {
        if (!strncasecmp(url, "https:", 6) && strncasecmp(target, "https:", 6))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: redirects from https to %s, refused", url, target);
        return (*next = nm_strdup(target)) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    curl_easy_getinfo(c, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (!t->has_linked && t->info->status == 200 && length >= 0)
        t->info->size = length;
    return NOEMA_OK;
}

/* Follows redirects. A HEAD stops where the hub points to another host but has said etag and size itself. */
static noema_status perform(transfer *t, const char *url, bool head, noema_error *err)
{
    char *at = nm_strdup(url), *next = NULL;
    noema_status s = at ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    *t->info = (nm_http_info){ .size = -1 };
    for (int hop = 0; s == NOEMA_OK; hop++) {
        s = one_hop(t, at, head, &next, err);
        if (s != NOEMA_OK || !next)
            break;
        if (hop == MAX_HOPS)
            s = nm_fail(err, NOEMA_E_LIMIT, "%s: more than %d redirects", url, MAX_HOPS);
        if (head && t->has_linked) {
            t->info->status = 200;
            break;
        }
        free(at);
        at = next;
        next = NULL;
    }
    free(at);
    free(next);
    return s;
}

noema_status nm_http_head(nm_http *h, const char *url, nm_http_info *info, noema_error *err)
{
    transfer t = { .h = h, .info = info, .name = url };
    return perform(&t, url, true, err);
}

noema_status nm_http_get_text(nm_http *h, const char *url, size_t limit, nm_buf *b, nm_http_info *info, noema_error *err)
{
    transfer t = { .h = h, .info = info, .name = url, .text = b, .limit = limit, .total = -1 };
    return perform(&t, url, false, err);
}

noema_status nm_http_get_file(nm_http *h, const char *url, FILE *f, int64_t from, const char *name, int64_t total, const nm_hub_options *o,
                              int64_t *done, nm_http_info *info, noema_error *err)
{
    transfer t = { .h = h, .info = info, .file = f, .from = from, .done = from, .total = total, .name = name, .o = o };
    noema_status s = perform(&t, url, false, err);
    if (fflush(f) && s == NOEMA_OK)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", name, strerror(errno));
    *done = t.done;
    return s;
}
