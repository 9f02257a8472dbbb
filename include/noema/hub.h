/* noema/hub.h - fetch published models into the hub's cache folder, before they are needed. */
#ifndef NOEMA_HUB_H
#define NOEMA_HUB_H

#include <stddef.h>
#include <stdint.h>

#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called while a file arrives: its name, bytes so far and in all (-1: unknown). Non-zero: stop; the next pull goes on there. */
typedef int noema_pull_fn(void *user, const char *file, int64_t done, int64_t total);

typedef struct noema_pull_options {
    size_t struct_size;
    int all;              /* every file of the repository, not only what noema opens */
    int offline;          /* only look into the cache */
    noema_pull_fn *progress;
    void *progress_user;
    void *reserved[8];
} noema_pull_options;

NOEMA_API void noema_pull_options_default(noema_pull_options *o);

/* Fetches "hf-hub:org/name[@rev]" (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE are honoured), continues what
 * an earlier pull left, checks sizes and SHA-256 digests. out: the folder of the snapshot, at most cap bytes with its NUL. */
NOEMA_API noema_status noema_hub_pull(const char *name, const noema_pull_options *o, char *out, size_t cap, noema_error *err);

/* The same for whatever has to be fetched: also published names ("ViT-B-32/laion2b_s34b_b79k", "ViT-B/32"; OpenAI's files are
 * checked against the SHA-256 in their address). out: a folder, or OpenAI's file. */
NOEMA_API noema_status noema_model_pull(const char *name, const noema_pull_options *o, char *out, size_t cap, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
