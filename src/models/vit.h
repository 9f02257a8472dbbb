/* vit.h - the vision transformer of CLIP, open_clip, SigLIP (timm) and transformers; other families (BLIP, ...) use the same
 * tower with their own numbers.
 *
 *     pixels [n, 3, H, W] -> patches [n, g, width] -> (class token) -> + positions -> (ln_pre) -> blocks -> pool -> [n, embed_dim]
 */
#ifndef NM_VIT_H
#define NM_VIT_H

#include "models/attn_pool.h"

typedef enum nm_vit_pool {
    NM_VIT_POOL_TOK,  /* the class token after ln_post */
    NM_VIT_POOL_AVG,  /* mean of the patch tokens */
    NM_VIT_POOL_MAP,  /* SigLIP: one learned query attends to all tokens, then a residual MLP */
    NM_VIT_POOL_NONE  /* tokens only: behind an attention pool with a contrastive query */
} nm_vit_pool;

typedef struct nm_vit_cfg {
    int image_height, image_width, patch_height, patch_width;
    int width, layers, heads, mlp;
    int embed_dim;            /* of the projection; width where there is none */
    bool class_token, ln_pre, patch_bias, layer_scale, proj, ln_post;
    bool final_ln_after_pool; /* ln_post on the pooled vector instead of on every token (CLIPA) */
    bool timm;                /* names of timm in open_clip files (visual.trunk.*) */
    bool head_proj, head_proj_bias; /* timm: visual.head.proj.* */
    nm_vit_pool pool;
    int map_mlp;              /* of the MAP head */
    int pool_queries, pool_heads;   /* attentional pool of CoCa; 0: none */
    enum { NM_VIT_SINGLE, NM_VIT_PARALLEL, NM_VIT_CASCADE } pool_kind; /* further contrastive query, see open_clip's attentional_pool */
    nm_act act;
    float eps;
    bool from_file;           /* the position table has the file's rows until nm_vit_ready */
    nm_naming observed;         /* whose names and shapes observers see */
    nm_interp resize;         /* how the reference resizes the position table */
} nm_vit_cfg;

/* timm's AttentionPoolLatent, transformers' SiglipMultiheadAttentionPoolingHead. */
typedef struct nm_map_pool_w {
    nm_weight latent;  /* [1, 1, width] */
    nm_linear_w qkv;   /* transformers stores [3 width, width]; moved into q and kv */
    nm_linear_w q, kv; /* [width, width], [2 width, width] */
    nm_linear_w proj;
    nm_norm_w norm;
    nm_linear_w fc1, fc2;
} nm_map_pool_w;

typedef struct nm_vit_w {
    nm_linear_w conv1;              /* [width, 3, ph, pw] */
    nm_weight class_embedding;      /* [width] */
    nm_weight positional_embedding; /* [extra + grid, width] */
    nm_norm_w ln_pre, ln_post;
    nm_block_w *blocks;             /* [layers] */
    nm_weight proj;                 /* [embed_dim, width] */
    nm_linear_w head_proj;          /* timm: [embed_dim, width] */
    nm_map_pool_w map;
    nm_attn_pool_w attn_pool, attn_pool_contrastive;
} nm_vit_w;

bool nm_vit_alloc(nm_vit_w *w, const nm_vit_cfg *c); /* the block array */
void nm_vit_free(nm_vit_w *w, const nm_vit_cfg *c);
/* Declares the tower below the caller's prefix ("visual." in open_clip files; transformers' full names). */
void nm_vit_params(nm_params *p, nm_vit_w *w, const nm_vit_cfg *c);
/* After loading: view cuts, and the position table resized to the configured image size. */
noema_status nm_vit_ready(nm_vit_w *w, const nm_vit_cfg *c, noema_error *err);

/* pixels f32 [n, 3, H, W] -> [n, embed_dim] f32. *tokens (may be NULL): what CoCa's decoder attends to, [n, queries - 1, embed_dim]. */
nm_tensor nm_vit_forward(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels, nm_tensor *tokens);
/* The same before the projection: what linear probes see, f32 [n, nm_vit_feature_dim]. */
nm_tensor nm_vit_features(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels);
static inline int nm_vit_feature_dim(const nm_vit_cfg *c) { return c->pool_queries > 0 ? c->embed_dim : c->width; }

/* Features per patch in the joint space, [n, grid_h * grid_w, embed_dim], not normalised (clip.md section 10). */
enum {
    NM_DENSE_PLAIN = 0,           /* patch tokens after the last block */
    NM_DENSE_MASKCLIP = 1,        /* arXiv 2112.01071: the last block's attention replaced by its value path */
    NM_DENSE_NO_RESIDUAL = 1 << 1,/* with MASKCLIP: v' alone instead of x + v' */
    NM_DENSE_NO_MLP = 1 << 2      /* with MASKCLIP: without the last block's MLP */
};
nm_tensor nm_vit_dense(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels, unsigned flags);

static inline int nm_vit_extra(const nm_vit_cfg *c) { return c->class_token ? 1 : 0; }
nm_block_cfg nm_vit_block_cfg(const nm_vit_cfg *c);

#endif
