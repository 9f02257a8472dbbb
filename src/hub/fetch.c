/* fetch.c - see fetch.h. */
#define _GNU_SOURCE
#include "hub/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"

#define TRIES 5 /* in a row without a byte more; pauses double from 0.2 s */

bool nm_hub_is_offline(const nm_hub_options *o)
{
    static const char *const yes[] = { "1", "on", "yes", "true" };
    const char *v = getenv("HF_HUB_OFFLINE");
    for (size_t i = 0; v && i < sizeof yes / sizeof *yes; i++)
        if (!strcasecmp(v, yes[i]))
            return true;
    return o && o->offline;
}

noema_status nm_http_refused(const nm_http_info *info, const char *what, noema_error *err)
{
    const char *code = info->error_code[0] ? info->error_code : "no reason given";
    if (info->status == 401)
        return nm_fail(err, NOEMA_E_MISSING, "%s: no such repository, or it needs a token: set HF_TOKEN (HTTP 401, %s)", what, code);
    if (info->status == 403)
        return nm_fail(err, NOEMA_E_MISSING, "%s: not allowed; accept its terms on the hub and set HF_TOKEN (HTTP 403, %s)", what, code);
    if (info->status == 404)
        return nm_fail(err, NOEMA_E_MISSING, "%s: not on the hub (HTTP 404, %s)", what, code);
    return nm_fail(err, NOEMA_E_IO, "%s: expected HTTP 200, got %ld (%s)", what, info->status, code);
}

noema_status nm_lock(int *fd, const char *path, noema_error *err)
{
    *fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (*fd < 0)
        return nm_fail(err, NOEMA_E_IO, "%s: %s", path, strerror(errno));
    while (flock(*fd, LOCK_EX))
        if (errno != EINTR) {
            noema_status s = nm_fail(err, NOEMA_E_IO, "%s: cannot lock: %s", path, strerror(errno));
            close(*fd);
            *fd = -1;
            return s;
        }
    return NOEMA_OK;
}

void nm_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

noema_status nm_file_sha256(const char *path, char hex[65], noema_error *err)
{
    unsigned char digest[32];
    size_t chunk = (size_t)1 << 20, n;
    FILE *f = fopen(path, "rb");
    unsigned char *buf = f ? malloc(chunk) : NULL;
    nm_sha256 s;
    if (!f || !buf) {
        noema_status st = nm_fail(err, f ? NOEMA_E_MEMORY : NOEMA_E_IO, "%s: %s", path, strerror(errno));
        if (f)
            fclose(f);
        return st;
    }
    nm_sha256_init(&s);
    while ((n = fread(buf, 1, chunk, f)) > 0)
        nm_sha256_update(&s, buf, n);
    bool bad = ferror(f);
    fclose(f);
    free(buf);
    if (bad)
        return nm_fail(err, NOEMA_E_IO, "%s: cannot read", path);
    nm_sha256_final(&s, digest);
    nm_hex(digest, 32, hex);
    return NOEMA_OK;
}

/* Fetches until the file is whole, the server refuses or TRIES connections in a row brought nothing. */
static noema_status fill(nm_http *h, const char *url, FILE *f, const char *name, int64_t size, const nm_hub_options *o, noema_error *err)
{
    nm_http_info info = { 0 };
    int64_t have = 0;
    fseeko(f, 0, SEEK_END);
    have = ftello(f);
    for (int tries = 0;;) {
        noema_error e = NOEMA_ERROR_INIT;
        int64_t before = have;
        if (size >= 0 && have == size)
            return NOEMA_OK;
        if (size < 0 || have > size) { /* nothing to go on from */
            if (ftruncate(fileno(f), 0) || fseeko(f, 0, SEEK_SET))
                return nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", name, strerror(errno));
            before = have = 0;
        }
        noema_status s = nm_http_get_file(h, url, f, have, name, size, o, &have, &info, &e);
        if (s == NOEMA_OK && info.status == 416) { /* "range not satisfiable": what is there is no prefix of the file */
            if (ftruncate(fileno(f), 0))
                return nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", name, strerror(errno));
            have = 0;
        } else if (s == NOEMA_OK && info.status != 200 && info.status != 206 && info.status < 500)
            return nm_http_refused(&info, name, err);
        else if (s == NOEMA_OK && info.status < 300 && (size < 0 || have == size))
            return NOEMA_OK;
        else if (s == NOEMA_E_CANCELLED || s == NOEMA_E_LIMIT || s == NOEMA_E_FORMAT || ferror(f))
            return nm_fail(err, s ? s : NOEMA_E_IO, "%s", e.message);
        tries = have > before ? 1 : tries + 1;
        if (tries == TRIES)
            return s == NOEMA_OK ? nm_http_refused(&info, name, err)
                                 : nm_fail(err, s, "%s: %lld of %lld bytes came; the next try goes on there: %s", name, (long long)have,
                                           (long long)size, e.message);
        struct timespec pause = { 0, 200000000L << (tries > 2 ? 2 : tries - 1) };
        nanosleep(&pause, NULL);
        fseeko(f, 0, SEEK_END);
    }
}

noema_status nm_fetch(nm_http *h, const char *url, const char *path, const char *name, int64_t size, const char *sha256, const nm_hub_options *o,
                      noema_error *err)
{
    char hex[65];
    char *part = nm_sprintf("%s.incomplete", path);
    FILE *f = part ? fopen(part, "ab") : NULL;
    noema_status s;
    if (!f) {
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", part ? part : path, strerror(errno));
        free(part);
        return s;
    }
    s = fill(h, url, f, name, size, o, err);
    if (s == NOEMA_OK && fsync(fileno(f)))
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", part, strerror(errno));
    if (fclose(f) && s == NOEMA_OK)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write: %s", part, strerror(errno));
    if (s == NOEMA_OK && sha256)
        s = nm_file_sha256(part, hex, err);
    if (s == NOEMA_OK && sha256 && strcasecmp(hex, sha256)) {
        unlink(part);
        s = nm_fail(err, NOEMA_E_MISMATCH, "%s: expected SHA-256 %s, got %s; what came was removed", name, sha256, hex);
    }
    if (s == NOEMA_OK && rename(part, path))
        s = nm_fail(err, NOEMA_E_IO, "%s: %s", path, strerror(errno));
    free(part);
    return s;
}
