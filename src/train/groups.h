/* groups.h - where a parameter stands in its tower, by its saved name: what layer-wise learning rates (open_clip's and BEiT's rule) and
 * partly locked towers are made of.
 *
 * A tower of n blocks (a ModifiedResNet: 4 stages) has n + 2 groups: 0 the embeddings, 1 + i block i, n + 1 what follows (projection, pools, a head). open_clip
 * (open_clip_train/optim.py, layer_decay_param_groups) counts ln_pre to the embeddings and ln_post, ln_final to the last block; BEiT
 * (arXiv 2106.08254, as MAE re-states it) puts everything that is neither embedding nor block into the last group. */
#ifndef NM_GROUPS_H
#define NM_GROUPS_H

#include <stdbool.h>

typedef enum nm_tower { NM_TOWER_NONE, NM_TOWER_IMAGE, NM_TOWER_TEXT } nm_tower;
typedef enum nm_group_rule { NM_GROUPS_OPEN_CLIP, NM_GROUPS_BEIT } nm_group_rule;

/* NONE: logit_scale, logit_bias, a caption decoder, a classifier's head. */
nm_tower nm_tower_of(const char *name);
/* Number of the block that the name speaks of, or -1. */
int nm_block_of(const char *name);
int nm_layer_group(const char *name, int layers, nm_group_rule rule);
/* The projection of the image tower, behind the features. */
bool nm_is_projection(const char *name);
/* decay^(layers + 1 - group); 1 outside the towers. */
double nm_layer_scale(const char *name, int layers, double decay, nm_group_rule rule);

#endif
