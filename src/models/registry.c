/* registry.c - see registry.h. The tables are open_clip's own (scripts/gen_clip_registry.py). */
#include "models/registry.h"

#include <string.h>

#include "base/mem.h"
#include "models/blip.h"
#include "models/flip.h"
#include "models/blip2.h"

#include "models/clip_registry.inc"

/* Every family, most specific first; a new one is one line here. */
static const nm_family *const families[] = { &nm_family_clip, &nm_family_blip, &nm_family_blip2, &nm_family_flip, &nm_family_sentence, NULL };

const nm_family *const *nm_families(void) { return families; }

const nm_family *nm_family_for(const nm_source *s)
{
    const nm_family *best = NULL;
    int most = 0;
    for (const nm_family *const *f = families; *f; f++) {
        int sure = (*f)->probe(s);
        if (sure > most) {
            most = sure;
            best = *f;
        }
    }
    return best;
}

size_t nm_archs(const nm_arch **list)
{
    *list = archs;
    return sizeof archs / sizeof *archs;
}

size_t nm_published_models(const nm_published **list)
{
    *list = published;
    return sizeof published / sizeof *published;
}

/* OpenAI's names of its models, and open_clip's. */
static const struct { const char *openai, *arch; } openai_names[] = {
    { "ViT-B/32", "ViT-B-32" }, { "ViT-B/16", "ViT-B-16" }, { "ViT-L/14", "ViT-L-14" }, { "ViT-L/14@336px", "ViT-L-14-336" },
};

static const char *plain_arch(const char *name)
{
    for (size_t i = 0; i < sizeof openai_names / sizeof *openai_names; i++)
        if (strcmp(name, openai_names[i].openai) == 0)
            return openai_names[i].arch;
    return name;
}

const char *nm_arch_json(const char *name)
{
    name = plain_arch(name);
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strcmp(archs[i].name, name) == 0)
            return archs[i].json;
    return NULL;
}

static const nm_published *find_tag(const char *arch, size_t n, const char *tag)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++)
        if (strlen(published[i].arch) == n && memcmp(published[i].arch, arch, n) == 0 && strcmp(published[i].tag, tag) == 0)
            return &published[i];
    return NULL;
}

const nm_published *nm_published_find(const char *name)
{
    const char *plain = plain_arch(name), *slash = strrchr(name, '/');
    const nm_published *p = find_tag(plain, strlen(plain), "openai");
    if (p && (plain != name || strncmp(name, "RN", 2) == 0))
        return p;
    return slash ? find_tag(name, (size_t)(slash - name), slash + 1) : NULL;
}

const nm_published *nm_published_by_file(const char *file)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const char *slash = strchr(published[i].openai, '/'), *name = slash ? slash + 1 : published[i].file;
        if (*name && strcmp(name, file) == 0)
            return &published[i];
    }
    return NULL;
}

static json_t *triple(double a, double b, double c) { return json_pack("[f,f,f]", a, b, c); }

static json_t *preprocess_cfg(nm_pre_rule rule)
{
    json_t *mean, *std;
    if (rule == NM_PRE_HALF || rule == NM_PRE_SIGLIP) {
        mean = triple(0.5, 0.5, 0.5);
        std = triple(0.5, 0.5, 0.5);
    } else if (rule == NM_PRE_CLIPA) {
        mean = triple(0.485, 0.456, 0.406);
        std = triple(0.229, 0.224, 0.225);
    } else {
        mean = triple(0.48145466, 0.4578275, 0.40821073);
        std = triple(0.26862954, 0.26130258, 0.27577711);
    }
    bool squash = rule == NM_PRE_SIGLIP || rule == NM_PRE_CLIPA || rule == NM_PRE_OPENAI_SQUASH;
    return json_pack("{s:o,s:o,s:s,s:s}", "mean", mean, "std", std, "interpolation", rule == NM_PRE_CLIPA ? "bilinear" : "bicubic", "resize_mode",
                     squash ? "squash" : "shortest");
}

json_t *nm_published_config(const char *arch, const nm_published *tag, noema_error *err)
{
    const char *text = nm_arch_json(tag ? tag->arch : arch);
    if (!text) {
        nm_fail(err, NOEMA_E_MISSING, "%s: no architecture of that name is registered", arch);
        return NULL;
    }
    json_t *model = nm_json_parse(text, strlen(text), tag ? tag->arch : arch, err);
    if (!model)
        return NULL;
    if (tag) /* the weights know better than the architecture's file: "ViT-B-32/openai" is QuickGELU all the same */
        json_object_set_new(model, "quick_gelu", json_boolean(tag->quick_gelu));
    bool siglip = strstr(tag ? tag->arch : arch, "SigLIP") != NULL, clipa = strstr(tag ? tag->arch : arch, "CLIPA") != NULL;
    json_t *pre = preprocess_cfg(tag ? tag->pre : siglip ? NM_PRE_SIGLIP : clipa ? NM_PRE_CLIPA : NM_PRE_OPENAI);
    json_t *out = json_pack("{s:o,s:o}", "model_cfg", model, "preprocess_cfg", pre);
    if (!out)
        nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    return out;
}
