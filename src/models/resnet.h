/* resnet.h - CLIP's ModifiedResNet: three-convolution stem, anti-aliased strides, attention pooling (clip.md section 3). */
#ifndef NM_RESNET_H
#define NM_RESNET_H

#include "models/attn_pool.h"

typedef struct nm_resnet_cfg {
    int blocks[4];  /* bottlenecks per stage: 3, 4, 6, 3 (RN50) */
    int width;      /* of stage 1: 64 */
    int image_size; /* grid of the last stage x 32 */
    int embed_dim, heads;
    /* An attentional pool in place of CLIP's (CoCa): queries and heads, and whose grid it looks at; 0: none. */
    int pool_queries, pool_heads, pool_stage; /* stages after it are not there */
} nm_resnet_cfg;

typedef struct nm_conv_bn_w { nm_weight conv; nm_batchnorm_w bn; } nm_conv_bn_w;
typedef struct nm_bottleneck_w { nm_conv_bn_w c1, c2, c3, down; } nm_bottleneck_w; /* 1x1, 3x3, 1x1; 1x1 in block 0 */

typedef struct nm_resnet_w {
    nm_conv_bn_w stem[3];
    nm_bottleneck_w *blocks;        /* all stages, one after another */
    nm_weight positional_embedding; /* [grid^2 + 1, 32 width] */
    nm_linear_w q, k, v, c;         /* [C, C], c: [embed_dim, C] */
    nm_attn_pool_w attn_pool;       /* instead of these five */
    nm_norm_w ln_post;              /* [embed_dim] */
    nm_weight proj;                 /* [embed_dim, embed_dim] */
} nm_resnet_w;

bool nm_resnet_alloc(nm_resnet_w *w, const nm_resnet_cfg *c);
void nm_resnet_free(nm_resnet_w *w);
void nm_resnet_params(nm_params *p, nm_resnet_w *w, const nm_resnet_cfg *c);
bool nm_resnet_ready(nm_resnet_w *w, const nm_resnet_cfg *c); /* after loading or drawing */
/* pixels f32 [n, 3, S, S] -> [n, embed_dim] f32. *tokens (may be NULL; with an attentional pool): what CoCa's decoder attends to, [n, queries - 1, embed_dim]. */
nm_tensor nm_resnet_forward(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor pixels, nm_tensor *tokens);
/* Per position c_proj(v_proj(x)), [n, grid^2, embed_dim] (arXiv 2112.01071). */
nm_tensor nm_resnet_dense(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor pixels);

static inline int nm_resnet_stages(const nm_resnet_cfg *c) { return c->pool_stage ? c->pool_stage : 4; }
static inline int nm_resnet_count(const nm_resnet_cfg *c) { return c->blocks[0] + c->blocks[1] + c->blocks[2] + c->blocks[3]; }

#endif
