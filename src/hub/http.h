/* http.h - HEAD and GET over libcurl, with redirects followed by our own hand: the token goes to the endpoint's own host only. */
#ifndef NM_HTTP_H
#define NM_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/mem.h"
#include "hub/hub.h"

/* What the hub says of a file; from the redirect itself where it says it there (X-Linked-*), else from the last answer. */
typedef struct nm_http_info {
    long status;           /* of the last answer */
    char etag[136];        /* without quotes and W/; "" when unknown */
    char commit[72];       /* X-Repo-Commit */
    char error_code[48];   /* X-Error-Code: RepoNotFound, EntryNotFound, RevisionNotFound, GatedRepo */
    int64_t size;          /* -1: unknown */
} nm_http_info;

/* One connection; keeps alive between calls. Not shared between threads. */
typedef struct nm_http nm_http;
nm_http *nm_http_new(const char *endpoint, const char *token); /* token may be NULL; NULL on failure */
void nm_http_free(nm_http *h);

/* Any HTTP status is success here (info->status); an error means that no answer came. */
noema_status nm_http_head(nm_http *h, const char *url, nm_http_info *info, noema_error *err);
/* A small answer into b, refused above `limit` bytes. */
noema_status nm_http_get_text(nm_http *h, const char *url, size_t limit, nm_buf *b, nm_http_info *info, noema_error *err);
/* Appends to f from byte `from` on (a server that ignores the range makes f start again). *done: bytes f then has. A connection
 * that breaks is NOEMA_E_IO with what came kept in f. */
noema_status nm_http_get_file(nm_http *h, const char *url, FILE *f, int64_t from, const char *name, int64_t total, const nm_hub_options *o,
                              int64_t *done, nm_http_info *info, noema_error *err);

#endif
