/* fuzz_clip_config.c - open_clip configurations: whatever they say, a model is declared within limits or refused. */
#include <stdint.h>
#include <stdlib.h>

#include "models/clip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visit(nm_params *p, const nm_param_info *info)
{
    if (nm_shape_numel(info->shape) < -1)
        abort();
    ++*(long *)p->user;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    json_t *config = nm_json_parse((const char *)data, size, "fuzz", &err);
    nm_clip *m = calloc(1, sizeof *m);
    nm_source s = { .name = "fuzz", .dir = "/nonexistent", .config = config };
    if (config && m && nm_clip_config_openclip(m, &s, &err) == NOEMA_OK) {
        const nm_clip_cfg *c = &m->cfg;
        bool ok = c->resnet ? nm_resnet_alloc(&m->rn, &c->rn) : nm_vit_alloc(&m->vit, &c->vit);
        ok = ok && (c->text_tower == NM_TEXT_BERT ? nm_bert_alloc(&m->bert, &c->bert) : nm_text_alloc(&m->text, &c->text));
        ok = ok && (!c->coca || nm_coca_alloc(&m->decoder, &c->decoder));
        long n = 0;
        nm_params p = { .visit = visit, .user = &n };
        if (ok) {
            nm_family_clip.declare(&p, m);
            json_decref(nm_family_clip.config(&m->base));
            nm_family_clip.free(&m->base);
            m = NULL;
        }
    }
    if (m)
        json_decref(m->config);
    free(m);
    json_decref(config);
    return 0;
}
