/* flip.h - FLIP's configuration and weights: see flip.c. */
#ifndef NM_FLIP_H
#define NM_FLIP_H

#include "models/model.h"
#include "models/transformer.h"

typedef struct nm_flip_tower { int width, layers, heads, mlp; } nm_flip_tower;

typedef struct nm_flip_cfg {
    int patch, grid;                /* 16, 14 */
    int embed_dim;
    int vocab_size, context_length; /* 30523, 32 */
    nm_flip_tower image, text;
} nm_flip_cfg;

typedef struct nm_flip_block_w {
    nm_norm_w norm[2];                  /* LayerNorm_0, LayerNorm_1 */
    nm_linear_w query, key, value, out; /* [width, width] */
    nm_linear_w dense[2];               /* [mlp, width], [width, mlp] */
} nm_flip_block_w;

typedef struct nm_flip_tower_w { nm_flip_block_w *block; nm_norm_w norm; } nm_flip_tower_w;

typedef struct nm_flip {
    nm_model base;
    nm_flip_cfg cfg;
    bool drawn;                /* not from a file */
    bool positions_known;      /* the table has the configured grid's rows (before: the file's) */
    nm_linear_w embedding;     /* [width, 3, patch, patch] */
    nm_weight cls;             /* [1, 1, width] */
    nm_weight image_positions; /* [1, 1 + grid^2, width], never trained */
    nm_flip_tower_w image, text;
    nm_weight token_embedding; /* [vocab, width] */
    nm_weight text_positions;  /* [1, context, width] */
    nm_weight img_mlp1, txt_mlp1; /* [embed_dim, width] */
    nm_weight logit_scale;     /* [1] */
} nm_flip;

extern const nm_family nm_family_flip;

/* The fixed sin-cos table, rows [1 + grid^2, width]; false: the width is no multiple of 4. */
bool nm_flip_positions(float *rows, int grid, int width);

#endif
