/* coca.c - see coca.h. Source: open_clip transformer.py (MultimodalTransformer), coca_model.py. */
#include "models/coca.h"

#include <math.h>
#include <stdlib.h>

static nm_block_cfg block_cfg(const nm_coca_cfg *c, bool cross)
{
    float attn = 1 / sqrtf((float)c->width), deep = attn / sqrtf(2 * (float)c->layers);
    return (nm_block_cfg){ .width = c->width, .heads = c->heads, .mlp = c->mlp, .act = c->act, .eps = c->eps, .cross = cross,
                           .qkv_std = attn, .out_std = deep, .fc_std = 1 / sqrtf(2 * (float)c->width), .proj_std = deep };
}

bool nm_coca_alloc(nm_coca_w *w, const nm_coca_cfg *c)
{
    w->self = calloc((size_t)c->layers + 1, sizeof *w->self);
    w->cross = calloc((size_t)c->layers + 1, sizeof *w->cross);
    return w->self && w->cross;
}

void nm_coca_free(nm_coca_w *w, const nm_coca_cfg *c)
{
    for (int i = 0; w->cross && i < c->layers; i++)
        nm_block_free(&w->cross[i]);
    free(w->self);
    free(w->cross);
    w->self = w->cross = NULL;
}

void nm_coca_params(nm_params *p, nm_coca_w *w, const nm_coca_cfg *c)
{
    nm_block_cfg self = block_cfg(c, false), cross = block_cfg(c, true);
    size_t mark = nm_params_push(p, NM_NAMES("text_decoder."), 0);
    for (int i = 0; i < c->layers; i++) {
        size_t m = nm_params_push(p, NM_NAMES("resblocks.%d."), i);
        nm_block_params(p, &w->self[i], &self);
        nm_params_pop(p, m);
    }
    for (int i = 0; i < c->layers; i++) {
        size_t m = nm_params_push(p, NM_NAMES("cross_attn.%d."), i);
        nm_block_params(p, &w->cross[i], &cross);
        nm_params_pop(p, m);
    }
    nm_norm_params(p, &w->ln_final, c->width, NM_NAMES("ln_final.weight"), NM_NAMES("ln_final.bias"));
    nm_param(p, &w->text_projection, NM_SHAPE(c->vocab_size, c->width), NM_NAMES("T:text_projection"), NM_NORMAL(1 / sqrtf((float)c->width)),
             NM_DECAY);
    nm_params_pop(p, mark);
}

bool nm_coca_ready(nm_coca_w *w, const nm_coca_cfg *c)
{
    nm_block_cfg cross = block_cfg(c, true);
    bool ok = true;
    for (int i = 0; ok && i < c->layers; i++)
        ok = nm_block_ready(&w->cross[i], &cross);
    return ok;
}

nm_tensor nm_coca_logits(nm_run *r, const nm_coca_w *w, const nm_coca_cfg *c, nm_tensor image, nm_tensor tokens, const int64_t *offsets,
                         nm_coca_rows which)
{
    if (!image.data || !tokens.data)
        return (nm_tensor){ 0 };
    int64_t n = image.shape[0];
    if (image.shape[2] != c->width || tokens.shape[1] != c->width)
        return nm_run_fail(r, NOEMA_E_MISMATCH, "caption decoder of width %d gets image tokens of width %lld and text rows of width %lld", c->width,
                           (long long)image.shape[2], (long long)tokens.shape[1]);
    nm_block_cfg self = block_cfg(c, false), cross = block_cfg(c, true);
    nm_mask causal = { .causal = true, .n_seq = n, .q_offsets = offsets, .k_offsets = offsets };
    nm_mask to_image = { .n_seq = n, .q_offsets = offsets, .k_offsets = nm_every_row(r, n + 1, image.shape[1], 0) };
    nm_tensor x = nm_cast(r, tokens, NM_F32), context = nm_flatten(image, 2); /* a copy: blocks write in place */
    for (int i = 0; i < c->layers; i++) {
        x = nm_block_forward(r, x, &w->self[i], &self, &causal, -1);
        x = nm_block_cross(r, x, context, &w->cross[i], &cross, &to_image);
    }
    if (which != NM_COCA_ALL) {
        int64_t k = 0, *rows = nm_scratch(r, (size_t)(offsets[n] + 1) * sizeof *rows);
        for (int64_t i = 0; rows && i < n; i++)
            for (int64_t row = which == NM_COCA_LAST ? offsets[i + 1] - 1 : offsets[i]; row < offsets[i + 1] - (which == NM_COCA_BUT_LAST); row++)
                rows[k++] = row;
        x = rows ? nm_gather_rows(r, x, rows, k) : (nm_tensor){ 0 };
    }
    x = nm_layernorm(r, x, &w->ln_final, c->eps);
    return nm_matmul_w(r, x, &w->text_projection, (nm_epilogue){ .f32 = true });
}
