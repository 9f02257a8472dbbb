/* task.c - see task.h. */
#include "train/task.h"

#include <math.h>
#include <string.h>

#include "models/clip.h"
#include "nn/ops.h"
#include "train/loss.h"
#include "train/trainer.h"

/* Rows [begin, end) of the batch's pictures as a tensor. */
static nm_tensor pixels_of(const nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end)
{
    int64_t h = t->model->image_height, w = t->model->image_width;
    return nm_view((void *)(uintptr_t)(b->images + begin * 3 * h * w), NM_F32, NM_SHAPE(end - begin, 3, h, w));
}

/* The patches that the step has chosen for rows from `begin` on, for the next forward of the image tower; n 0: all. */
static nm_keep patches_of(const nm_trainer *t, int64_t begin) { return (nm_keep){ t->keep.patch + begin * t->keep.n, t->keep.n }; }

/* The image tower on rows [begin, end), with the patches that the step has chosen. */
static nm_tensor image_tower(nm_trainer *t, nm_tensor (*encode)(nm_run *, const nm_model *, nm_tensor), const nm_pair_batch *b, int64_t begin, int64_t end)
{
    nm_keep keep = patches_of(t, begin);
    t->run.keep = keep.n ? &keep : NULL;
    nm_tensor x = encode(&t->run, t->model, pixels_of(t, b, begin, end));
    t->run.keep = NULL;
    return x;
}

/* Texts [begin, end) of the batch; n 0: out of memory. */
static nm_texts texts_of(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end)
{
    int64_t n = end - begin, *offsets = nm_scratch(&t->run, (size_t)(n + 1) * sizeof *offsets);
    for (int64_t i = 0; offsets && i <= n; i++)
        offsets[i] = b->texts.offsets[begin + i] - b->texts.offsets[begin];
    nm_texts texts = b->texts;
    texts.n = offsets ? n : 0;
    texts.offsets = offsets;
    texts.ids = b->texts.ids + b->texts.offsets[begin];
    texts.n_keep = t->words.n;
    texts.keep = t->words.n ? t->words.patch + begin * t->words.n : NULL;
    return texts;
}

/* ---- pairs ---- */

static int64_t pairs_width(const nm_trainer *t, int k)
{
    (void)k;
    return t->model->embed_dim;
}

/* Both towers, normalised. A locked tower runs without the tape. */
static nm_outputs pairs_forward(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, bool row_loss)
{
    nm_run *r = &t->run;
    const nm_model *m = t->model;
    nm_outputs f = { 0 };
    nm_texts texts = texts_of(t, b, begin, end);
    nm_tape *tape = r->tape;
    (void)row_loss;
    if (!nm_run_ok(r))
        return f;
    r->tape = t->image_trains ? tape : NULL;
    f.t[0] = nm_normalize(r, image_tower(t, m->family->encode_image, b, begin, end), 1e-12f);
    r->tape = t->text_trains ? tape : NULL;
    f.t[1] = nm_normalize(r, m->family->encode_text(r, m, &texts), 1e-12f);
    r->tape = tape;
    return f;
}

static void scalar_grad(nm_trainer *t, nm_train_param *p, double d)
{
    if (p && !p->frozen) {
        float *g = nm_weight_grad(&t->run, p->w);
        if (g)
            g[0] += (float)d;
    }
}

/* The ranks' features beside each other, [size n, dim], and room for their gradients, zeroed. */
static bool gather(nm_trainer *t, int64_t n, int64_t dim, const float *mine, float **all, float **d)
{
    size_t values = (size_t)(t->o.ranks.size * n * dim);
    *all = nm_scratch(&t->run, values * sizeof **all);
    *d = nm_scratch(&t->run, values * sizeof **d);
    if (!*all || !*d)
        return false;
    nm_ranks_gather(&t->o.ranks, mine, n * dim, *all);
    memset(*d, 0, values * sizeof **d);
    return true;
}

/* open_clip's --local-loss --gather-with-grad: this rank's rows of both logit matrices against the features of all ranks; gradients of
 * features go back to the rank they came from. The gradients of parameters are then averaged over the ranks. SigLIP's loss is evaluated
 * whole on every rank. */
static nm_pair_loss ranks_loss(nm_trainer *t, int64_t n, int64_t dim, double s, float *const *out, float *const *d)
{
    const nm_ranks *ranks = &t->o.ranks;
    int64_t all_n = n * ranks->size, from = n * ranks->rank;
    float *all[2], *da[2];
    nm_pair_loss l = { .loss = NAN };
    if (!gather(t, n, dim, out[0], &all[0], &da[0]) || !gather(t, n, dim, out[1], &all[1], &da[1]))
        return l;
    l = t->o.siglip ? nm_siglip_loss(&t->run, all_n, dim, all[0], all[1], s, (double)t->logit_bias->w->f32[0], da[0], da[1])
                    : nm_clip_loss(&t->run, all_n, dim, all[0], all[1], s, from, n, da[0], da[1]);
    for (int k = 0; k < 2; k++) {
        float share = t->o.siglip ? (float)ranks->size : 1;
        if (!t->o.siglip)
            nm_ranks_sum_f32(ranks, da[k], all_n * dim);
        for (int64_t i = 0; i < n * dim; i++)
            d[k][i] += share * da[k][from * dim + i];
    }
    return l;
}

/* d holds zeros. */
static double contrastive(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, float *const *out, float *const *d, bool scalars, double weight)
{
    int64_t dim = t->model->embed_dim, n = end - begin;
    double raw = (double)t->logit_scale->w->f32[0], s = nm_trainer_log_scale(t);
    nm_pair_loss l = t->o.ranks.size > 1 ? ranks_loss(t, n, dim, s, out, d)
                     : t->o.siglip ? nm_siglip_loss(&t->run, n, dim, out[0], out[1], s, (double)t->logit_bias->w->f32[0], d[0], d[1])
                     : t->o.unicl && b->group ? nm_unicl_loss(&t->run, n, dim, out[0], out[1], s, b->group + begin, d[0], d[1])
                                 : nm_clip_loss(&t->run, n, dim, out[0], out[1], s, 0, n, d[0], d[1]);
    if (scalars) {
        scalar_grad(t, t->logit_scale, s == raw ? weight * l.d_scale : 0);
        if (t->o.siglip)
            scalar_grad(t, t->logit_bias, weight * l.d_bias);
    }
    for (int64_t i = 0; weight != 1 && i < n * dim; i++) {
        d[0][i] *= (float)weight;
        d[1][i] *= (float)weight;
    }
    return weight * l.loss;
}

static double pairs_loss(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, float *const *out, float *const *d, bool scalars)
{
    return contrastive(t, b, begin, end, out, d, scalars, 1);
}

const nm_task nm_task_pairs = { .n_outputs = 2, .width = pairs_width, .forward = pairs_forward, .loss = pairs_loss };

/* ---- pairs and captions ---- */

enum { PAD = 0 }; /* of open_clip's CoCa: its loss leaves this label out, also where a text has the id */

/* Row j of a text has the id behind it as its label; the end token's row has none. */
static int64_t next_tokens(const nm_texts *x, int64_t *label)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < x->n; i++)
        for (int64_t j = x->offsets[i] + 1; j < x->offsets[i + 1]; j++, rows++)
            label[rows] = x->ids[j - x->offsets[0]] == PAD ? NM_NO_LABEL : x->ids[j - x->offsets[0]];
    return rows;
}

/* The mean is over the labels of the whole batch, whatever it is cut into; gradients are averaged over the ranks afterwards. */
static void captions_begin(nm_trainer *t, const nm_pair_batch *b)
{
    int64_t ranks = t->o.ranks.size > 1 ? t->o.ranks.size : 1, *label = nm_scratch(&t->run, (size_t)(b->texts.offsets[b->n] + 1) * sizeof *label);
    double labels = 0;
    for (int64_t i = 0, n = label ? next_tokens(&b->texts, label) : 0; i < n; i++)
        labels += label[i] != NM_NO_LABEL;
    if (ranks > 1)
        nm_ranks_sum(&t->o.ranks, &labels, 1);
    t->label_weight = labels > 0 ? t->o.caption_weight * (double)ranks / labels : 0;
}

static nm_outputs coca_forward(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, bool row_loss)
{
    nm_run *r = &t->run;
    const nm_clip *m = (const nm_clip *)t->model;
    bool vectors = t->o.task == &nm_task_coca;
    nm_outputs f = { 0 };
    nm_texts texts = texts_of(t, b, begin, end);
    nm_keep keep = patches_of(t, begin);
    nm_tape *tape = r->tape;
    nm_tensor picture = { 0 }, words = { 0 };
    if (!nm_run_ok(r))
        return f;
    r->tape = t->image_trains ? tape : NULL;
    r->keep = keep.n ? &keep : NULL;
    nm_tensor image = nm_clip_image_tokens(r, m, pixels_of(t, b, begin, end), vectors ? &picture : NULL);
    r->keep = NULL;
    if (vectors)
        f.t[0] = nm_normalize(r, picture, 1e-12f);
    r->tape = t->text_trains ? tape : NULL;
    nm_tensor text = nm_text_forward_tokens(r, &m->text, &m->cfg.text, &texts, &words);
    if (vectors)
        f.t[1] = nm_normalize(r, text, 1e-12f);
    r->tape = tape;
    if (row_loss)
        f.logits = nm_coca_logits(r, &m->decoder, &m->cfg.decoder, image, words, texts.offsets, NM_COCA_BUT_LAST);
    return f;
}

static double coca_loss(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, float *const *out, float *const *d, bool scalars)
{
    return contrastive(t, b, begin, end, out, d, scalars, t->o.contrastive_weight);
}

static double captions_loss(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, const nm_outputs *f)
{
    nm_texts texts = texts_of(t, b, begin, end);
    int64_t *label = nm_run_ok(&t->run) ? nm_scratch(&t->run, (size_t)(texts.offsets[texts.n] + 1) * sizeof *label) : NULL;
    if (!label)
        return NAN;
    (void)next_tokens(&texts, label);
    return nm_rows_loss(&t->run, &f->logits, label, 0, NULL, t->label_weight);
}

const nm_task nm_task_coca = { .n_outputs = 2, .width = pairs_width, .begin = captions_begin, .forward = coca_forward, .loss = coca_loss, .row_loss = captions_loss };
const nm_task nm_task_captions = { .rowwise = true, .begin = captions_begin, .forward = coca_forward, .row_loss = captions_loss };

/* ---- labels ---- */

static int64_t labels_width(const nm_trainer *t, int k)
{
    (void)k;
    return t->o.head->classes;
}

static nm_outputs labels_forward(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, bool row_loss)
{
    nm_run *r = &t->run;
    (void)row_loss;
    nm_tape *tape = r->tape;
    r->tape = t->image_trains ? tape : NULL;
    nm_tensor x = image_tower(t, t->model->family->encode_features, b, begin, end);
    r->tape = tape;
    return (nm_outputs){ .t = { nm_linear(r, x, &t->o.head->w, (nm_epilogue){ .f32 = true }) } };
}

static double labels_loss(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end, float *const *out, float *const *d, bool scalars)
{
    (void)scalars;
    return nm_cross_entropy_sum(out[0], b->labels + begin, end - begin, t->o.head->classes, t->o.label_smoothing, NULL, 1 / (double)b->n, d[0]);
}

const nm_task nm_task_labels = { .n_outputs = 1, .rowwise = true, .width = labels_width, .forward = labels_forward, .loss = labels_loss };
