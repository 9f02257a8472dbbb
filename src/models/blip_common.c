/* blip_common.c - see blip_common.h. */
#include "models/blip_common.h"

#include <stdlib.h>

#include "base/file.h"
#include "models/clip.h"

noema_status nm_blip_heads(int *out, const json_t *j, int width, int dflt, const char *what, const nm_source *s, noema_error *err)
{
    int64_t n = nm_json_int(j, "num_attention_heads", dflt);
    if (n < 1 || n > width || width % n)
        return nm_fail(err, NOEMA_E_MISSING, "%s: a %s width of %d does not tell the number of heads (%lld): give %s.num_attention_heads with --config",
                       s->name, what, width, (long long)n, what);
    *out = (int)n;
    return NOEMA_OK;
}

noema_status nm_blip_eps(float *out, const json_t *j, const char *key, double dflt, const nm_source *s, noema_error *err)
{
    double v = nm_json_num(j, key, dflt);
    if (!(v >= 0 && v < 1))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: %s is %g", s->name, key, v);
    *out = (float)v;
    return NOEMA_OK;
}

noema_status nm_blip_activation(nm_act *act, const char *name, const nm_source *s, noema_error *err)
{
    return nm_act_from_name(name, act) ? NOEMA_OK : nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: the activation \"%s\" is not supported", s->name, name);
}

noema_status nm_blip_image_size(nm_vit_cfg *c, const nm_source *s, noema_error *err)
{
    const noema_model_options *o = s->options;
    if (o && o->image_height > 0) {
        c->image_height = o->image_height;
        c->image_width = o->image_width > 0 ? o->image_width : o->image_height;
    }
    if (c->image_height % c->patch_height || c->image_width % c->patch_width)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: an image size of %dx%d is no multiple of the patch size %dx%d", s->name, c->image_height,
                       c->image_width, c->patch_height, c->patch_width);
    return NOEMA_OK;
}

noema_status nm_blip_preprocessing(nm_model *b, bool official, const nm_source *s, noema_error *err)
{
    if (official)
        return nm_preprocess_named(&b->preprocess, "blip", b->image_height, b->image_width, err);
    char *path = nm_path_join(s->dir, "preprocessor_config.json");
    noema_status st = path && nm_file_exists(path) ? nm_preprocess_from_file(&b->preprocess, path, err)
                                                   : nm_preprocess_named(&b->preprocess, "hf5_blip", b->image_height, b->image_width, err);
    free(path);
    if (st == NOEMA_OK && (b->preprocess.fit == NM_FIT_SQUASH || (s->options && s->options->image_height > 0))) {
        b->preprocess.size_h = b->image_height;
        b->preprocess.size_w = b->image_width;
    }
    return st;
}

static double rule(const nm_blip_generation *g, const char *key, double dflt)
{
    return nm_json_num(g->generation, key, nm_json_num(g->config, key, nm_json_num(g->text, key, dflt)));
}

/* transformers' defaults: greedy, 20 ids. */
noema_status nm_blip_folder_generation(nm_blip_generation *g, const nm_source *s, noema_error *err)
{
    char *path = nm_path_join(s->dir, "generation_config.json");
    *g = (nm_blip_generation){ .config = s->config, .text = nm_json_get(s->config, "text_config") };
    if (path && nm_file_exists(path) && !(g->generation = nm_json_load(path, err))) {
        free(path);
        return err ? err->code : NOEMA_E_FORMAT;
    }
    free(path);
    nm_blip_defaults *r = &g->rules;
    r->beam_rule = 500;
    double beams = rule(g, "num_beams", 1), most = rule(g, "max_length", 20), least = rule(g, "min_length", 0), fresh = rule(g, "max_new_tokens", 0);
    r->beams = beams >= 1 && beams <= 1024 ? (int)beams : 1;
    r->max_length = most >= 2 && most <= 1 << 20 ? (int)most : 20;
    r->max_new = fresh >= 1 && fresh <= 1 << 20 ? (int)fresh : 0;
    r->min_length = least >= 0 && least <= 1 << 20 ? (int)least : 0;
    r->repetition_penalty = rule(g, "repetition_penalty", 1);
    r->length_penalty = rule(g, "length_penalty", 1);
    r->early_stopping = nm_json_bool(g->generation, "early_stopping", false);
    double k = rule(g, "top_k", 50), p = rule(g, "top_p", 1), t = rule(g, "temperature", 1), least_new = rule(g, "min_new_tokens", 0);
    r->sample = nm_json_bool(g->generation, "do_sample", false);
    r->top_k = k >= 1 && k <= 1 << 20 ? (int)k : 1 << 20; /* 0 takes all */
    r->top_p = p > 0 && p <= 1 ? p : 1;
    r->temperature = t > 0 && t < 1e6 ? t : 1;
    r->min_new = least_new >= 1 && least_new <= 1 << 20 ? (int)least_new : 0;
    return NOEMA_OK;
}
