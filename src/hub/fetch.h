/* fetch.h - one file from a URL to a path, resumed, checked and renamed into place; shared by the hub and OpenAI's files. */
#ifndef NM_FETCH_H
#define NM_FETCH_H

#include "hub/http.h"

/* Downloads url to `path` through PATH.incomplete: continues what an earlier try left, tries again when the connection breaks,
 * checks the size (>= 0) and the SHA-256 (64 hex digits, or NULL), fsyncs, renames. A wrong digest removes what came. */
noema_status nm_fetch(nm_http *h, const char *url, const char *path, const char *name, int64_t size, const char *sha256, const nm_hub_options *o,
                      noema_error *err);
noema_status nm_file_sha256(const char *path, char hex[65], noema_error *err);

/* Holds flock(2) on `path` (made when absent) until nm_unlock: one process fetches, the others wait and find the file. */
noema_status nm_lock(int *fd, const char *path, noema_error *err);
void nm_unlock(int fd);

/* The message of an answer that is not 200: what the user can do about it. */
noema_status nm_http_refused(const nm_http_info *info, const char *what, noema_error *err);
/* HF_HUB_OFFLINE is set to a true value, or o->offline. */
bool nm_hub_is_offline(const nm_hub_options *o);

#endif
