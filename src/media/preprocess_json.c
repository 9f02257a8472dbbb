/* preprocess_json.c - pipelines from open_clip's and Hugging Face's configuration files.
 *
 * open_clip: factory.py, transform.py (PreprocessCfg). Hugging Face: the defaults of each image processor class of
 * transformers 5 (image_processing_pil_*.py), overridden by the keys of the file. */
#include <string.h>

#include "base/json.h"
#include "media/preprocess.h"

#define MAX_SIZE 16384

static noema_status bad(noema_error *err, const char *name, const char *key, const char *expected)
{
    return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: expected %s", name, key, expected);
}

static noema_status get_triple(float v[3], const json_t *o, const char *key, const char *name, noema_error *err)
{
    const json_t *j = nm_json_get(o, key);
    if (!j)
        return NOEMA_OK;
    for (size_t i = 0; i < 3; i++) {
        const json_t *e = json_is_array(j) && json_array_size(j) == 3 ? json_array_get(j, i) : j;
        if (!json_is_number(e))
            return bad(err, name, key, "a number or three numbers");
        v[i] = (float)json_number_value(e);
    }
    return NOEMA_OK;
}

static bool as_size(const json_t *j, int *v)
{
    if (!json_is_integer(j) || json_integer_value(j) < 1 || json_integer_value(j) > MAX_SIZE)
        return false;
    *v = (int)json_integer_value(j);
    return true;
}

/* int, [h, w], {"height", "width"}, {"shortest_edge"}: *edge is set for the last. */
static bool get_size(const json_t *j, int *h, int *w, int *edge)
{
    *edge = 0;
    if (json_is_integer(j))
        return as_size(j, h) && as_size(j, w);
    if (json_is_array(j) && json_array_size(j) == 2)
        return as_size(json_array_get(j, 0), h) && as_size(json_array_get(j, 1), w);
    if (json_object_get(j, "height"))
        return as_size(json_object_get(j, "height"), h) && as_size(json_object_get(j, "width"), w);
    return as_size(json_object_get(j, "shortest_edge"), edge);
}

static noema_status open_clip(nm_preprocess *p, const json_t *config, const char *name, noema_error *err)
{
    const json_t *c = nm_json_get(config, "preprocess_cfg"), *size = nm_json_get(c, "size");
    int edge;
    noema_status st = nm_preprocess_named(p, "openai", 0, 0, err);
    if (!size)
        size = nm_json_get(nm_json_get(nm_json_get(config, "model_cfg"), "vision_cfg"), "image_size");
    if (!size)
        size = nm_json_get(nm_json_get(config, "vision_cfg"), "image_size");
    if (size && (!get_size(size, &p->size_h, &p->size_w, &edge) || edge))
        return bad(err, name, "size", "a number or [height, width], 1 to 16384");
    const char *mode = nm_json_str(c, "resize_mode", "shortest"), *filter = nm_json_str(c, "interpolation", "bicubic");
    if (!strcmp(mode, "longest"))
        p->fit = NM_FIT_LONGEST;
    else if (!strcmp(mode, "squash"))
        p->fit = NM_FIT_SQUASH;
    else if (strcmp(mode, "shortest"))
        return bad(err, name, "resize_mode", "shortest, longest or squash");
    if (!strcmp(filter, "random")) /* of training only */
        filter = "bicubic";
    if (!nm_filter_from_name(filter, &p->filter))
        return bad(err, name, "interpolation", "bicubic, bilinear, nearest, lanczos, box or hamming");
    const json_t *fill = nm_json_get(c, "fill_color");
    if (fill && (!json_is_integer(fill) || json_integer_value(fill) < 0 || json_integer_value(fill) > 255))
        return bad(err, name, "fill_color", "a number from 0 to 255");
    p->fill = fill ? (int)json_integer_value(fill) : 0;
    const char *colours = nm_json_str(c, "mode", "RGB");
    if (strcmp(colours, "RGB"))
        return bad(err, name, "mode", "RGB");
    if (st == NOEMA_OK)
        st = get_triple(p->mean, c, "mean", name, err);
    return st == NOEMA_OK ? get_triple(p->std, c, "std", name, err) : st;
}

/* Defaults of the image processor classes; `prefix` is compared with the class name, longest first. */
static const struct hf_class {
    const char *prefix;
    nm_fit fit;
    int size;
    nm_filter filter;
    bool half; /* mean and deviation one half, not OpenAI's */
    bool crop;
} classes[] = {
    { "CLIP", NM_FIT_SHORTEST, 224, NM_BICUBIC, false, true },
    { "ChineseCLIP", NM_FIT_SHORTEST, 224, NM_BICUBIC, false, true },
    { "Siglip", NM_FIT_SQUASH, 224, NM_BICUBIC, true, false },
    { "Blip", NM_FIT_SQUASH, 384, NM_BICUBIC, false, false },
    { "ViT", NM_FIT_SQUASH, 224, NM_BILINEAR, true, false },
    { "DeiT", NM_FIT_SQUASH, 256, NM_BICUBIC, true, true },
    { "Bit", NM_FIT_SHORTEST, 224, NM_BICUBIC, false, true },
    { "ConvNext", NM_FIT_SHORTEST, 384, NM_BICUBIC, true, false },
    { "VideoMAE", NM_FIT_SHORTEST, 224, NM_BILINEAR, true, true },
};

static const struct hf_class *find_class(const json_t *c)
{
    const char *type = nm_json_str(c, "image_processor_type", nm_json_str(c, "feature_extractor_type", "CLIPImageProcessor"));
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!strncmp(type, classes[i].prefix, strlen(classes[i].prefix)))
            return &classes[i];
    return NULL;
}

/* ConvNext: below 384 the shortest edge goes to size / crop_pct and the centre is cut out; from 384 on it is squashed. */
static void set_convnext(nm_preprocess *p, const json_t *c, int edge)
{
    double pct = nm_json_num(c, "crop_pct", 224.0 / 256.0);
    if (edge < 384 && pct > 0.1 && pct <= 1.0) {
        p->fit = NM_FIT_SHORTEST;
        p->edge = (int)(edge / pct);
    } else {
        p->fit = NM_FIT_SQUASH;
        p->edge = 0;
    }
    p->size_h = p->size_w = edge;
}

static noema_status hf_size(nm_preprocess *p, const json_t *c, const struct hf_class *k, const char *name, noema_error *err)
{
    int h = k->size, w = k->size, edge = k->fit == NM_FIT_SHORTEST ? k->size : 0;
    const json_t *size = nm_json_get(c, "size"), *crop = nm_json_get(c, "crop_size");
    if (json_object_get(size, "longest_edge"))
        return bad(err, name, "size", "shortest_edge, or height and width (longest_edge is not supported)");
    if (size && !get_size(size, &h, &w, &edge))
        return bad(err, name, "size", "a number, shortest_edge, or height and width, 1 to 16384");
    if (json_is_integer(size) && k->fit == NM_FIT_SHORTEST)
        edge = h;
    bool do_crop = nm_json_bool(c, "do_center_crop", k->crop), do_resize = nm_json_bool(c, "do_resize", true);
    if (!strcmp(k->prefix, "ConvNext") && do_resize) {
        set_convnext(p, c, edge ? edge : h);
        return NOEMA_OK;
    }
    p->fit = !do_resize ? NM_FIT_NONE : edge ? NM_FIT_SHORTEST : NM_FIT_SQUASH;
    p->edge = p->fit == NM_FIT_SHORTEST ? edge : 0;
    p->size_h = p->fit == NM_FIT_SQUASH ? h : 0;
    p->size_w = p->fit == NM_FIT_SQUASH ? w : 0;
    if (!do_crop)
        return NOEMA_OK;
    int ch = 224, cw = 224, cedge = 0;
    if (crop && (!get_size(crop, &ch, &cw, &cedge)))
        return bad(err, name, "crop_size", "a number, or height and width, 1 to 16384");
    if (cedge)
        ch = cw = cedge;
    if (p->fit == NM_FIT_SQUASH && (ch != h || cw != w))
        p->squash_h = h, p->squash_w = w;
    p->size_h = ch;
    p->size_w = cw;
    return NOEMA_OK;
}

static noema_status hugging_face(nm_preprocess *p, const json_t *c, const char *name, noema_error *err)
{
    const struct hf_class *k = find_class(c);
    if (!k)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: image_processor_type: expected CLIP, Siglip, Blip, ViT, DeiT, Bit, ConvNext "
                       "or VideoMAE, got %s", name, nm_json_str(c, "image_processor_type", nm_json_str(c, "feature_extractor_type", "?")));
    static const float half[3] = { 0.5f, 0.5f, 0.5f };
    const float *mean = k->half ? half : nm_mean_openai, *std = k->half ? half : nm_std_openai;
    memset(p, 0, sizeof *p);
    memcpy(p->mean, mean, sizeof p->mean);
    memcpy(p->std, std, sizeof p->std);
    p->order = NM_RGB_ON_WHITE;
    p->crop = NM_CROP_FLOOR;
    p->scale = NM_SCALE_HF;
    int64_t resample = nm_json_int(c, "resample", k->filter);
    if (resample < 0 || resample > 5)
        return bad(err, name, "resample", "a number from 0 to 5");
    p->filter = (nm_filter)resample;
    p->rescale = nm_json_bool(c, "do_rescale", true) ? nm_json_num(c, "rescale_factor", 1.0 / 255.0) : 1.0;
    p->normalise = nm_json_bool(c, "do_normalize", true);
    noema_status st = hf_size(p, c, k, name, err);
    if (st == NOEMA_OK)
        st = get_triple(p->mean, c, "image_mean", name, err);
    return st == NOEMA_OK ? get_triple(p->std, c, "image_std", name, err) : st;
}

noema_status nm_preprocess_from_json(nm_preprocess *p, const json_t *config, const char *name, noema_error *err)
{
    if (!json_is_object(config))
        return bad(err, name, "top level", "an object");
    if (json_is_object(nm_json_get(config, "preprocess_cfg")))
        return open_clip(p, config, name, err);
    const json_t *inner = nm_json_get(config, "image_processor"); /* a processor_config.json */
    if (json_is_object(inner))
        config = inner;
    if (!nm_json_get(config, "size") && !nm_json_get(config, "image_mean") && !nm_json_get(config, "image_processor_type") &&
        !nm_json_get(config, "feature_extractor_type"))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected preprocess_cfg (open_clip) or the keys of a preprocessor_config.json "
                       "(size, image_mean, image_processor_type)", name);
    return hugging_face(p, config, name, err);
}

noema_status nm_preprocess_from_file(nm_preprocess *p, const char *path, noema_error *err)
{
    json_t *j = nm_json_load(path, err);
    if (!j)
        return err ? err->code : NOEMA_E_FORMAT;
    noema_status st = nm_preprocess_from_json(p, j, path, err);
    json_decref(j);
    return st;
}
