/* groups.c - see groups.h. */
#include "train/groups.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool starts(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* The name below its tower: "visual.trunk.cls_token" -> "cls_token". */
static const char *below(const char *name)
{
    static const char *const modules[] = { "visual.", "text.", "trunk.", "img_encoder.", "txt_encoder." };
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
        if (starts(name, modules[i]))
            name += strlen(modules[i]);
    return name;
}

nm_tower nm_tower_of(const char *name)
{
    static const char *const outside[] = { "logit_scale", "logit_bias", "text_decoder.", "head." };
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        if (starts(name, outside[i]))
            return NM_TOWER_NONE;
    return starts(name, "visual.") || starts(name, "img_") ? NM_TOWER_IMAGE : NM_TOWER_TEXT;
}

/* open_clip's "transformer.resblocks.3.", timm's "blocks.3.", transformers' "encoder.layer.3.", FLIP's "Transformer.encoderblock_03.",
 * the stages "layer1." to "layer4." of a ModifiedResNet. */
int nm_block_of(const char *name)
{
    static const struct { const char *list; int first; } lists[] = { { "transformer.resblocks.", 0 }, { "blocks.", 0 }, { "transformer.encoder.layer.", 0 },
                                                                     { "Transformer.encoderblock_", 0 }, { "layer", 1 } };
    name = below(name);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (starts(name, lists[i].list)) {
            const char *digits = name + strlen(lists[i].list);
            char *end;
            long n = strtol(digits, &end, 10) - lists[i].first;
            if (end != digits && *end == '.' && n >= 0 && n < 1 << 16)
                return (int)n;
        }
    return -1;
}

static bool is_any(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (starts(name, list[i]))
            return true;
    return false;
}
#define IS_ANY(name, list) is_any(name, list, sizeof(list) / sizeof *(list))

int nm_layer_group(const char *name, int layers, nm_group_rule rule)
{
    static const char *const embeddings[] = { "conv1.", "patch_embed.", "class_embedding", "cls_token", "positional_embedding", "pos_embed",
                                              "token_embedding.", "cls_emb", "transformer.embeddings.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.",
                                              "embedding.", "cls", "posembed_encoder." };
    static const char *const first_norm[] = { "ln_pre.", "norm_pre." }, *const last_norm[] = { "ln_post.", "ln_final.", "norm.", "Transformer.encoder_norm." };
    int block = nm_block_of(name);
    if (block >= 0)
        return block + 1;
    name = below(name);
    if (IS_ANY(name, embeddings) || (rule == NM_GROUPS_OPEN_CLIP && IS_ANY(name, first_norm)))
        return 0;
    return rule == NM_GROUPS_OPEN_CLIP && IS_ANY(name, last_norm) ? layers : layers + 1;
}

bool nm_is_projection(const char *name)
{
    return nm_tower_of(name) == NM_TOWER_IMAGE && (strcmp(below(name), "proj") == 0 || starts(below(name), "head.proj.") || starts(name, "img_mlp1."));
}

double nm_layer_scale(const char *name, int layers, double decay, nm_group_rule rule)
{
    return nm_tower_of(name) == NM_TOWER_NONE ? 1 : pow(decay, layers + 1 - nm_layer_group(name, layers, rule));
}
