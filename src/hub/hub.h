/* hub.h - files of published models: the Hugging Face hub's protocol and cache folder, and OpenAI's own download place.
 *
 * A socket opens only for a model that the user named by its hub name and that the cache lacks, never with offline set or
 * HF_HUB_OFFLINE=1. The cache is the hub's own (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub):
 *
 *     models--ORG--NAME/blobs/ETAG            content, named by its etag (SHA-256 for large files)
 *     models--ORG--NAME/refs/REVISION         the commit a branch or tag stood at
 *     models--ORG--NAME/snapshots/COMMIT/F    links into blobs/
 *
 * so that files fetched by other tools are found and the other way round. */
#ifndef NM_HUB_H
#define NM_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Called while a file arrives: bytes so far, bytes in all (-1: unknown). Non-zero: stop (NOEMA_E_CANCELLED). */
typedef int nm_hub_progress_fn(void *user, const char *file, int64_t done, int64_t total);

typedef struct nm_hub_options {
    bool offline;                 /* besides HF_HUB_OFFLINE */
    bool refresh;                 /* ask the hub even when the cache has the revision (`models pull`) */
    nm_hub_progress_fn *progress; /* may be NULL */
    void *progress_user;
} nm_hub_options;

/* The folder (malloc'd, in *dir) of the snapshot of `repo` ("org/name" or "org/name@rev", default revision main) with as many
 * of files[0..n) as the repository has. A name may be "a|b|c": the first that exists. A name that ends in '?' is optional: its
 * absence is no error. Cached files are taken without a socket; `o` may be NULL. */
noema_status nm_hub_resolve(char **dir, const char *repo, size_t n, const char *const *files, const nm_hub_options *o, noema_error *err);

/* The files of a repository at a revision, as the hub lists them (needs a socket): malloc'd array of malloc'd names. */
noema_status nm_hub_list(char ***files, size_t *n, const char *repo, const nm_hub_options *o, noema_error *err);
void nm_hub_list_free(char **files, size_t n);

/* One file of OpenAI's: `url_path` is "SHA256/NAME.pt" below the download place (NOEMA_OPENAI_ENDPOINT overrides its host);
 * the content must have that SHA-256. Kept in $XDG_CACHE_HOME/clip or ~/.cache/clip, where OpenAI's own code keeps it. */
noema_status nm_hub_openai(char **path, const char *url_path, const nm_hub_options *o, noema_error *err);

/* The cache folder in use (malloc'd). */
char *nm_hub_cache_dir(void);

#endif
