/* registry.h - families, published architectures and published checkpoints by name. */
#ifndef NM_REGISTRY_H
#define NM_REGISTRY_H

#include "models/model.h"

/* An architecture of open_clip: its model_configs file. */
typedef struct nm_arch { const char *name, *json; } nm_arch;

typedef enum nm_pre_rule { NM_PRE_OPENAI, NM_PRE_HALF, NM_PRE_OPENAI_SQUASH, NM_PRE_SIGLIP, NM_PRE_CLIPA } nm_pre_rule;

/* A published checkpoint of an architecture (open_clip's pretrained tags). */
typedef struct nm_published {
    const char *arch, *tag;
    const char *hub;    /* repository on the hub, or "" */
    const char *openai; /* "SHA256/NAME.pt" of OpenAI's download place, or "" */
    const char *file;   /* name under which the file is published elsewhere, or "" */
    bool quick_gelu;
    nm_pre_rule pre;
} nm_published;

size_t nm_archs(const nm_arch **list);
size_t nm_published_models(const nm_published **list);
const char *nm_arch_json(const char *name); /* NULL: unknown. "ViT-B/32" is "ViT-B-32" */

/* "ViT-B-32/laion2b_s34b_b79k", OpenAI's "ViT-B/32", "RN50"; NULL: no such name. */
const nm_published *nm_published_find(const char *name);
/* By the published file name ("vit_b_32-quickgelu-laion400m_e31-d867053b.pt") or OpenAI's ("ViT-B-32.pt"). */
const nm_published *nm_published_by_file(const char *file);
/* {"model_cfg", "preprocess_cfg"} of a published checkpoint (activation and preprocessing as its tag says) or, with tag NULL, of
 * an architecture. New reference. */
json_t *nm_published_config(const char *arch, const nm_published *tag, noema_error *err);

/* How a source is recognised: the family with the highest probe, or NULL. */
const nm_family *nm_family_for(const nm_source *s);

#endif
