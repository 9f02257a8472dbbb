/* presets.c - the named pipelines of --preprocess. Sources: openai/CLIP clip.py (_transform); transformers 4.46
 * image_processing_clip.py (slow); transformers 5 image_processing_pil_{clip,siglip,blip}.py; BLIP and LAVIS
 * blip_processors.py; facebookresearch/flip input_pipeline_laion.py. */
#include <string.h>

#include "media/preprocess.h"

const float nm_mean_openai[3] = { 0.48145466f, 0.4578275f, 0.40821073f };
const float nm_std_openai[3] = { 0.26862954f, 0.26130258f, 0.27577711f };
const float nm_mean_imagenet[3] = { 0.485f, 0.456f, 0.406f };
const float nm_std_imagenet[3] = { 0.229f, 0.224f, 0.225f };
static const float half[3] = { 0.5f, 0.5f, 0.5f }, zero[3] = { 0, 0, 0 }, one[3] = { 1, 1, 1 };

static const struct preset {
    const char *name;
    nm_fit fit;
    nm_colour_order order;
    nm_crop_rule crop;
    nm_scale_rule scale;
    bool normalise;
    const float *mean, *std;
    int size; /* default */
} presets[] = {
    { "openai", NM_FIT_SHORTEST, NM_OWN_MODE, NM_CROP_HALF_EVEN, NM_SCALE_TORCH, true, nm_mean_openai, nm_std_openai, 224 },
    { "hf4_clip", NM_FIT_SHORTEST, NM_RGB_FIRST, NM_CROP_FLOOR, NM_SCALE_HF, true, nm_mean_openai, nm_std_openai, 224 },
    { "hf5_clip", NM_FIT_SHORTEST, NM_RGB_ON_WHITE, NM_CROP_FLOOR, NM_SCALE_HF, true, nm_mean_openai, nm_std_openai, 224 },
    { "hf5_siglip", NM_FIT_SQUASH, NM_RGB_ON_WHITE, NM_CROP_FLOOR, NM_SCALE_HF, true, half, half, 224 },
    { "hf5_blip", NM_FIT_SQUASH, NM_RGB_ON_WHITE, NM_CROP_FLOOR, NM_SCALE_HF, true, nm_mean_openai, nm_std_openai, 384 },
    { "blip", NM_FIT_SQUASH, NM_RGB_FIRST, NM_CROP_HALF_EVEN, NM_SCALE_TORCH, true, nm_mean_openai, nm_std_openai, 384 },
    { "flip", NM_FIT_CROP_TF, NM_RGB_FIRST, NM_CROP_FLOOR, NM_SCALE_HF_FUSED, true, nm_mean_imagenet, nm_std_imagenet, 224 },
    { "none", NM_FIT_NONE, NM_RGB_FIRST, NM_CROP_HALF_EVEN, NM_SCALE_TORCH, false, zero, one, 0 },
};

const char *nm_preprocess_names(void) { return "openai, hf4_clip, hf5_clip, hf5_siglip, hf5_blip, blip, flip, none"; }

noema_status nm_preprocess_named(nm_preprocess *p, const char *name, int size_h, int size_w, noema_error *err)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        const struct preset *r = &presets[i];
        if (strcmp(name, r->name))
            continue;
        memset(p, 0, sizeof *p);
        p->fit = r->fit;
        p->order = r->order;
        p->crop = r->crop;
        p->scale = r->scale;
        p->normalise = r->normalise;
        p->rescale = 1.0 / 255.0;
        p->filter = NM_BICUBIC;
        p->size_h = r->fit == NM_FIT_NONE ? 0 : size_h > 0 ? size_h : r->size;
        p->size_w = r->fit == NM_FIT_NONE ? 0 : size_w > 0 ? size_w : p->size_h;
        if (r->fit == NM_FIT_SHORTEST && p->crop == NM_CROP_FLOOR) /* transformers: the edge is a number, not a size */
            p->edge = p->size_h < p->size_w ? p->size_w : p->size_h;
        memcpy(p->mean, r->mean, sizeof p->mean);
        memcpy(p->std, r->std, sizeof p->std);
        return NOEMA_OK;
    }
    return nm_fail(err, NOEMA_E_ARGUMENT, "preprocessing: expected a file or one of %s, got \"%s\"", nm_preprocess_names(), name);
}
