/* transformer.h - the pre-norm residual block of CLIP's towers and the attention pools at their ends, under the names of
 * openai/CLIP and open_clip, of transformers and of timm.
 *
 *     x += gamma_1 * out(attention(ln_1(x)))        ([rows, width])
 *     x += gamma_2 * proj(act(fc(ln_2(x))))
 */
#ifndef NM_TRANSFORMER_H
#define NM_TRANSFORMER_H

#include "nn/nn.h"
#include "nn/params.h"

/* Naming schemes of the CLIP family. A file is in NM_OPENCLIP or NM_HF; a timm tower inside an open_clip file switches to
 * NM_TIMM while it is declared. */
enum { NM_OPENCLIP = 0, NM_HF = 1, NM_TIMM = 2 };

/* Whose module names and shapes an observer sees: the reference's own, per file format. */
typedef enum nm_naming { NM_VIEW_OPENCLIP, NM_VIEW_OPENAI, NM_VIEW_HF } nm_naming;

typedef struct nm_block_cfg {
    int width, heads, mlp;
    nm_act act;
    float eps;
    bool layer_scale;    /* ls_1.gamma, ls_2.gamma */
    bool cross;          /* keys and values from another sequence, normalised by ln_1_kv (CoCa) */
    /* deviations for drawn weights; 0: PyTorch's defaults (xavier in-projection, kaiming-uniform linears) */
    float qkv_std, out_std, fc_std, proj_std;
} nm_block_cfg;

typedef struct nm_block_w {
    nm_norm_w ln_1, ln_1_kv;  /* [width] */
    nm_linear_w qkv;          /* [3 width, width]: rows of q, k, v */
    nm_linear_w q, kv;        /* cross-attention: views of qkv's rows [0, width) and [width, 3 width) */
    nm_linear_w out;          /* [width, width] */
    nm_weight ls_1, ls_2;     /* [width] */
    nm_norm_w ln_2;           /* [width] */
    nm_linear_w fc;           /* [mlp, width] */
    nm_linear_w proj;         /* [width, mlp] */
} nm_block_w;

void nm_block_params(nm_params *p, nm_block_w *w, const nm_block_cfg *c);
/* After loading: cuts the views that cross-attention needs. */
bool nm_block_ready(nm_block_w *w, const nm_block_cfg *c);
void nm_block_free(nm_block_w *w); /* what nm_params_free does not reach */

/* A copy whose offsets and key biases live until nm_tape_clear: a checkpointed block runs again when their owner is gone. */
nm_mask nm_mask_save(nm_run *r, const nm_mask *mask);

/* x f32 [.., width], overwritten in inference. `index` names the block for observers ("block.3", "block.3.attn_out"). */
nm_tensor nm_block_forward(nm_run *r, nm_tensor x, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask, int index);
/* The same with keys and values of f32 context [.., width]; the mask's q_offsets count rows of x, its k_offsets rows of context. */
nm_tensor nm_block_cross(nm_run *r, nm_tensor x, nm_tensor context, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask);

/* The MLP half alone: x + mlp(ln_2(x)). */
nm_tensor nm_block_mlp(nm_run *r, nm_tensor x, const nm_block_w *w, const nm_block_cfg *c);

/* ---- declaring ---- */
void nm_linear_params(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, nm_names weight, nm_names bias, float std, unsigned bias_flags);
void nm_norm_params(nm_params *p, nm_norm_w *w, int64_t width, nm_names weight, nm_names bias);

/* Shows t under the module above the current one: "text." -> "name", "clip.text." -> "clip.name". */
void nm_observe_above(nm_run *r, nm_tensor t, const char *name);

/* ---- row arithmetic shared by the towers ---- */
/* rows[i] = i * step + first, for i < n, in the run's scratch memory. */
int64_t *nm_every_row(nm_run *r, int64_t n, int64_t step, int64_t first);
/* The first token of each item: x f32 [batch, tokens, width] -> [batch, width]. */
nm_tensor nm_first_token(nm_run *r, nm_tensor x);
/* All tokens but the first of each item, contiguous: x f32 [batch, tokens, width] -> [batch, tokens - 1, width]. */
nm_tensor nm_drop_first(nm_run *r, nm_tensor x);
/* Mean over rows [first, tokens) of each item of x f32 [batch, tokens, width] -> [batch, width]. */
nm_tensor nm_mean_tokens(nm_run *r, nm_tensor x, int64_t first);

#endif
