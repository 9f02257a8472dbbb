/* trainer.c - see trainer.h. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "nn/ops.h"
#include "train/gradsum.h"
#include "train/groups.h"
#include "train/mask.h"

#define LN_100 4.6051701859880914

/* ---- parameters ---- */

typedef struct collect { nm_trainer *t; noema_error *err; noema_status status; } collect;

static noema_status add_param(nm_trainer *t, const char *name, nm_weight *w, bool decayed, nm_layout layout, noema_error *err)
{
    if (t->n_params == t->cap_params) {
        size_t cap = t->cap_params ? 2 * t->cap_params : 256;
        nm_train_param *q = nm_realloc_array(t->params, cap, sizeof *q);
        if (!q)
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: parameters");
        t->params = q;
        t->cap_params = cap;
    }
    nm_train_param *q = &t->params[t->n_params];
    *q = (nm_train_param){ .name = nm_strdup(name), .w = w, .n = (size_t)nm_shape_numel(w->shape), .decayed = decayed, .layout = layout,
                           .lr_scale = 1, .n_parts = 1 };
    t->n_params += q->name != NULL;
    return q->name ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: parameters");
}

/* FLIP's rule, by what a parameter is (utils/adamw.py: no decay for names with `bias`, `scale` of norms, position embeddings). */
static bool flip_decays(const char *name, const nm_weight *w)
{
    bool position = strstr(name, "pos_embed") || strstr(name, "positional_embedding") || strstr(name, "position_embedding");
    bool single = strcmp(name, "logit_scale") == 0 || nm_has_suffix(name, "class_embedding") || nm_has_suffix(name, "cls") || nm_has_suffix(name, "cls_token");
    return !position && (single || (w->shape.ndim > 1 && !nm_has_suffix(name, "bias")));
}

static void collect_visit(nm_params *p, const nm_param_info *info)
{
    collect *c = p->user;
    const char *name = info->part_name[0];
    bool counter = (info->flags & NM_COUNTER) == NM_COUNTER;
    if (c->status != NOEMA_OK || (!nm_has(info->w) && !counter))
        return;
    bool buffer = (info->flags & NM_BUFFER) != 0, decayed = !(info->flags & NM_NO_DECAY) && !buffer && info->w->shape.ndim > 1;
    if (c->t->o.flip_groups)
        decayed = !buffer && flip_decays(name, info->w);
    c->status = nm_weight_own(info->w) ? NOEMA_OK : nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: %s", name); /* a counter that the file lacks is 0 */
    if (c->status == NOEMA_OK)
        c->status = add_param(c->t, name, info->w, decayed, nm_layout_of(info->layout, info->w->shape.ndim), c->err);
    if (c->status != NOEMA_OK)
        return;
    nm_train_param *q = &c->t->params[c->t->n_params - 1];
    q->buffer = buffer;
    q->counter = counter;
    for (q->n_parts = 0; q->n_parts < info->n_parts && c->status == NOEMA_OK; q->n_parts++)
        if (!(q->part[q->n_parts] = nm_strdup(info->part_name[q->n_parts])))
            c->status = nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: parameters");
}

/* What is trained beside the model's parameters: a classifier's head, adapters. */
static noema_status add_extras(nm_trainer *t, noema_error *err)
{
    noema_status s = NOEMA_OK;
    for (size_t i = 0; t->o.lora.rank > 0 && t->o.lora.text && i < t->n_params; i++)
        if (t->params[i].n_parts > 1)
            return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: adapters of towers that store q, k and v apart are not here: --lock-text leaves that tower as it is",
                           t->params[i].name);
    if (t->o.head)
        s = add_param(t, "head.weight", &t->o.head->w.weight, true, NM_LAYOUT_SAME, err);
    if (t->o.head && s == NOEMA_OK)
        s = add_param(t, "head.bias", &t->o.head->w.bias, t->o.decay_head_bias, NM_LAYOUT_SAME, err);
    if (s == NOEMA_OK && t->o.lora.rank > 0)
        s = nm_lora_new(&t->lora, &t->o.lora, t->params, t->n_params, err);
    for (size_t i = 0; s == NOEMA_OK && t->lora && i < nm_lora_count(t->lora); i++)
        s = add_param(t, nm_lora_name(t->lora, i), nm_lora_weight(t->lora, i), true, NM_LAYOUT_SAME, err);
    return s;
}

/* A PyTorch module lists its own parameters before those of its children: rank of a name in open_clip's CLIP. */
static int clip_rank(const char *name)
{
    static const char *const first[] = { "positional_embedding", "text_projection", "logit_scale", "logit_bias", "visual.class_embedding",
                                         "visual.positional_embedding", "visual.proj" };
    int n = (int)(sizeof first / sizeof *first);
    for (int i = 0; i < n; i++)
        if (strcmp(name, first[i]) == 0)
            return i;
    if (strncmp(name, "visual.", 7) == 0)
        return strncmp(name, "visual.conv1", 12) == 0 ? n : strncmp(name, "visual.ln_pre", 13) == 0 ? n + 1 : strncmp(name, "visual.ln_post", 14) == 0 ? n + 3 : n + 2;
    return strncmp(name, "transformer.", 12) == 0 ? n + 4 : strncmp(name, "token_embedding", 15) == 0 ? n + 5 : strncmp(name, "ln_final", 8) == 0 ? n + 6 : n + 7;
}

/* The same in its CoCa. */
static int coca_rank(const char *name)
{
    static const char *const order[] = { "logit_scale", "logit_bias", "text.cls_emb", "text.positional_embedding", "text.text_projection", "text.token_embedding",
                                         "text.transformer.", "text.ln_final.", "visual.class_embedding", "visual.positional_embedding", "visual.proj",
                                         "visual.conv1.", "visual.ln_pre.", "visual.transformer.", "visual.attn_pool.", "visual.attn_pool_contrastive.",
                                         "visual.ln_post.", "text_decoder.text_projection", "text_decoder.resblocks.", "text_decoder.cross_attn.", "text_decoder." };
    enum { N = sizeof order / sizeof *order, TRUNK = 11 };
    for (int i = 0; i < N; i++)
        if (strncmp(name, order[i], strlen(order[i])) == 0)
            return i;
    return strncmp(name, "visual.", 7) == 0 ? TRUNK : N; /* a ModifiedResNet in the order of its declaration */
}

/* Stable insertion by rank: blocks keep the declaration's order, which is the module's. */
static void sort_params(nm_trainer *t)
{
    int (*rank)(const char *) = t->model->family == &nm_family_coca ? coca_rank : clip_rank;
    for (size_t i = 1; i < t->n_params; i++) {
        nm_train_param q = t->params[i];
        size_t k = i;
        for (; k > 0 && rank(t->params[k - 1].name) > rank(q.name); k--)
            t->params[k] = t->params[k - 1];
        t->params[k] = q;
    }
}

static int count_blocks(const nm_trainer *t, nm_tower tower)
{
    int n = 0;
    for (size_t i = 0; i < t->n_params; i++)
        if (nm_tower_of(t->params[i].name) == tower && nm_block_of(t->params[i].name) >= n)
            n = nm_block_of(t->params[i].name) + 1;
    return n;
}

/* Whether the options leave a parameter as it is; open_clip's lock_image_tower(unlocked_groups) and
 * lock_text_tower(unlocked_layers). */
static bool is_frozen(const nm_trainer *t, const char *name, int image_blocks, int text_blocks)
{
    const nm_train_options *o = &t->o;
    nm_tower tower = nm_tower_of(name);
    bool head = strncmp(name, "head.", 5) == 0;
    if (head || o->lora.rank > 0)
        return !head && !nm_lora_is_adapter(name);
    if (o->task == &nm_task_labels && (tower != NM_TOWER_IMAGE || nm_is_projection(name)))
        return true;
    if (tower == NM_TOWER_IMAGE && o->lock_image)
        return nm_layer_group(name, image_blocks, NM_GROUPS_OPEN_CLIP) < image_blocks + 2 - o->unlocked_groups;
    if (tower == NM_TOWER_TEXT && o->lock_text && !o->freeze_layer_norm && strstr(name, ".LayerNorm.")) /* towers of transformers alone have that name */
        return false;
    return tower == NM_TOWER_TEXT && o->lock_text && nm_layer_group(name, text_blocks, NM_GROUPS_OPEN_CLIP) < text_blocks + 2 - o->text_unlocked;
}

/* Memory of a parameter that is trained. A frozen one that an adapter changes has a gradient, but no state. */
static noema_status attach_one(nm_trainer *t, nm_train_param *q, noema_error *err)
{
    bool adapted = t->lora && nm_lora_adapts(t->lora, q->w), adamw = t->o.opt.kind == NM_OPT_ADAMW;
    if (!q->frozen || adapted)
        q->w->grad = &q->grad;
    if (!q->frozen) {
        q->m = nm_calloc(q->n, sizeof *q->m);
        q->v = adamw ? nm_calloc(q->n, sizeof *q->v) : NULL;
        if (!q->m || (adamw && !q->v))
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: optimizer state");
    }
    if (t->o.ema_decay > 0) {
        if (!(q->ema = nm_alloc(q->n * sizeof *q->ema)))
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: averages");
        memcpy(q->ema, q->w->f32, q->n * sizeof *q->ema);
    }
    return NOEMA_OK;
}

static noema_status attach(nm_trainer *t, noema_error *err)
{
    const double decay[] = { [NM_TOWER_NONE] = 0, [NM_TOWER_IMAGE] = t->o.image_layer_decay, [NM_TOWER_TEXT] = t->o.text_layer_decay };
    int blocks[] = { [NM_TOWER_NONE] = 0, [NM_TOWER_IMAGE] = count_blocks(t, NM_TOWER_IMAGE), [NM_TOWER_TEXT] = count_blocks(t, NM_TOWER_TEXT) };
    /* A classifier's frozen layers give fixed features, and adapters are for the model as it is: only pairs follow open_clip here. */
    bool stills = t->o.freeze_bn_stats || t->o.task == &nm_task_labels || t->o.lora.rank > 0;
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < t->n_params && s == NOEMA_OK; i++) {
        nm_train_param *q = &t->params[i];
        nm_tower tower = nm_tower_of(q->name);
        bool frozen = is_frozen(t, q->name, blocks[NM_TOWER_IMAGE], blocks[NM_TOWER_TEXT]);
        q->frozen = q->buffer || frozen;
        q->w->still = frozen && stills;
        if (decay[tower] > 0)
            q->lr_scale = nm_layer_scale(q->name, blocks[tower], decay[tower], NM_GROUPS_OPEN_CLIP);
        if (strcmp(q->name, "logit_scale") == 0)
            t->logit_scale = q;
        if (strcmp(q->name, "logit_bias") == 0)
            t->logit_bias = q;
        bool wanted = !q->frozen || (t->lora && nm_lora_adapts(t->lora, q->w));
        t->image_trains = t->image_trains || (tower == NM_TOWER_IMAGE && wanted);
        t->text_trains = t->text_trains || (tower == NM_TOWER_TEXT && wanted);
        s = attach_one(t, q, err);
    }
    if (s == NOEMA_OK && (t->o.task == &nm_task_pairs || t->o.task == &nm_task_coca) && !t->logit_scale)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "the model has no logit_scale: it cannot be trained contrastively");
    if (s == NOEMA_OK && t->o.patch_dropout > 0 && t->model->patches == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "patch dropout needs a vision transformer as image tower");
    if (s == NOEMA_OK && t->o.text_mask_ratio > 0 && t->model->text_positions == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "text masking needs a text tower of CLIP, SigLIP or FLIP");
    if (s == NOEMA_OK && t->o.siglip && !t->logit_bias)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "the sigmoid loss needs a model with logit_bias");
    return s;
}

noema_status nm_trainer_new(nm_trainer **out, nm_model *model, nm_pool *pool, const nm_train_options *o, noema_error *err)
{
    nm_trainer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    t->model = model;
    t->o = *o;
    if (!t->o.task)
        t->o.task = &nm_task_pairs;
    t->pool = pool;
    t->arena = nm_arena_new(1 << 20);
    collect c = { .t = t, .err = err };
    nm_params p = { .visit = collect_visit, .user = &c, .scheme = model->family->save_scheme, .err = err };
    model->family->declare(&p, model);
    noema_status s = c.status;
    if (s == NOEMA_OK && (t->o.task == &nm_task_coca || t->o.task == &nm_task_captions) && model->family != &nm_family_coca)
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "the model has no caption decoder");
    if (s == NOEMA_OK)
        s = add_extras(t, err);
    sort_params(t);
    if (s == NOEMA_OK)
        s = attach(t, err);
    if (s == NOEMA_OK && t->o.ranks.size > 1 && !(t->sum = nm_gradsum_new(&t->o.ranks, t->params, t->n_params)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    nm_tape *tape = nm_tape_new();
    if (s == NOEMA_OK && (!t->arena || !tape))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    if (t->arena)
        nm_run_init(&t->run, nm_kernels_get(), pool, t->arena, o->compute);
    t->run.tape = tape;
    t->run.training = true;
    t->run.checkpoint = o->checkpointing;
    if (s != NOEMA_OK) {
        nm_trainer_free(t);
        return s;
    }
    *out = t;
    return NOEMA_OK;
}

void nm_trainer_free(nm_trainer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *q = &t->params[i];
        q->w->grad = NULL;
        q->w->still = false;
        nm_free(q->grad.data);
        nm_free(q->m);
        nm_free(q->v);
        nm_free(q->ema);
        free(q->name);
        for (int k = 0; k < NM_MAX_PARTS; k++)
            free(q->part[k]);
    }
    free(t->params);
    nm_lora_free(t->lora);
    nm_gradsum_free(t->sum);
    nm_tape_free(t->run.tape);
    nm_arena_free(t->arena);
    free(t);
}

/* ---- what broke ---- */

static void first_bad(void *user, const char *name, const nm_tensor *x)
{
    nm_trainer *t = user;
    if (t->failed_at[0] || x->dtype != NM_F32 || !nm_is_contiguous(x))
        return;
    for (int64_t i = 0, n = nm_numel(x); i < n; i++)
        if (!isfinite(((const float *)x->data)[i])) {
            strncpy(t->failed_at, name, sizeof t->failed_at - 1);
            return;
        }
}

static void find_bad_param(nm_trainer *t)
{
    t->failed_at[0] = 0;
    for (size_t i = 0; i < t->n_params && !t->failed_at[0]; i++)
        for (size_t k = 0; k < t->params[i].n; k++)
            if (!isfinite(t->params[i].w->f32[k])) {
                strncpy(t->failed_at, t->params[i].name, sizeof t->failed_at - 1);
                break;
            }
}

noema_status nm_trainer_check(nm_trainer *t, noema_error *err)
{
    find_bad_param(t);
    return !t->failed_at[0] ? NOEMA_OK : nm_fail(err, NOEMA_E_FORMAT, "step %lld: its update made %s not finite", (long long)t->step - 1, t->failed_at);
}

static noema_status not_finite(nm_trainer *t, const nm_pair_batch *b, double loss, noema_error *err)
{
    find_bad_param(t);
    if (!t->failed_at[0]) { /* run once more, watching every named activation */
        nm_tape *tape = t->run.tape;
        t->run.tape = NULL;
        t->run.rehearsal = true;
        t->run.observe = first_bad;
        t->run.observe_user = t;
        (void)t->o.task->forward(t, b, 0, b->n, true);
        t->run.observe = NULL;
        t->run.rehearsal = false;
        t->run.tape = tape;
    }
    for (size_t i = 0; i < t->n_params && !t->failed_at[0]; i++)
        if (t->params[i].grad.data && !isfinite(nm_squared_norm(t->pool, t->params[i].grad.data, t->params[i].n)))
            strncpy(t->failed_at, t->params[i].name, sizeof t->failed_at - 1);
    return nm_fail(err, NOEMA_E_FORMAT, "step %lld: %s is not finite; first seen at %s", (long long)t->step, isfinite(loss) ? "the gradient" : "the loss",
                   t->failed_at[0] ? t->failed_at : "the loss itself");
}

/* ---- loss and gradients ---- */

static void copy_rows(float *dst, const nm_tensor *src)
{
    if (src->data)
        memcpy(dst, src->data, (size_t)nm_numel(src) * sizeof *dst);
}

static void add_rows(nm_run *r, const nm_tensor *y, const float *d)
{
    float *g = nm_grad_data(r, y);
    for (int64_t i = 0, n = nm_numel(y); g && i < n; i++)
        g[i] += d[i];
}

/* Room for the outputs of n rows and their gradients, zeroed; false: out of memory. */
static bool outputs_room(nm_trainer *t, int64_t n, float *out[NM_TASK_OUTPUTS], float *d[NM_TASK_OUTPUTS])
{
    for (int k = 0; k < t->o.task->n_outputs; k++) {
        size_t bytes = (size_t)(n * t->o.task->width(t, k)) * sizeof(float);
        out[k] = nm_scratch(&t->run, bytes);
        d[k] = nm_scratch(&t->run, bytes);
        if (!out[k] || !d[k])
            return false;
        memset(d[k], 0, bytes);
    }
    return true;
}

/* Feeds the gradients of the outputs of rows [at, ..) and runs the backward. */
static void backward(nm_trainer *t, const nm_outputs *f, float *const *d, int64_t at, bool last)
{
    if (last && t->sum)
        nm_gradsum_begin(t->sum, &t->run);
    for (int k = 0; k < t->o.task->n_outputs; k++)
        add_rows(&t->run, &f->t[k], d[k] + at * t->o.task->width(t, k));
    nm_backward(&t->run);
    nm_tape_clear(t->run.tape);
}

/* Micro-batches whose losses add up: one pass. */
static double rowwise_gradients(nm_trainer *t, const nm_pair_batch *b, int64_t micro, double *row_loss)
{
    nm_run *r = &t->run;
    const nm_task *task = t->o.task;
    nm_arena_mark mark = nm_arena_get_mark(t->arena);
    double loss = 0;
    for (int64_t at = 0; at < b->n && nm_run_ok(r); at += micro) {
        int64_t end = at + micro < b->n ? at + micro : b->n;
        float *out[NM_TASK_OUTPUTS], *d[NM_TASK_OUTPUTS];
        nm_outputs f = task->forward(t, b, at, end, true);
        if (!nm_run_ok(r) || !outputs_room(t, end - at, out, d))
            break;
        for (int k = 0; k < task->n_outputs; k++)
            copy_rows(out[k], &f.t[k]);
        if (task->loss)
            loss += task->loss(t, b, at, end, out, d, true);
        if (task->row_loss)
            *row_loss += task->row_loss(t, b, at, end, &f);
        backward(t, &f, d, 0, end == b->n);
        nm_arena_rewind(t->arena, mark);
    }
    return loss;
}

/* Fills all gradients; returns the loss without its row loss. Everything is carved from the arena, which the caller resets. */
static double loss_and_gradients(nm_trainer *t, const nm_pair_batch *b, double *row_loss)
{
    nm_run *r = &t->run;
    const nm_task *task = t->o.task;
    int64_t micro = (b->n + t->o.accum - 1) / t->o.accum;
    float *out[NM_TASK_OUTPUTS], *d[NM_TASK_OUTPUTS];
    if (task->rowwise)
        return rowwise_gradients(t, b, micro, row_loss);
    if (!outputs_room(t, b->n, out, d))
        return NAN;
    nm_arena_mark mark = nm_arena_get_mark(t->arena);
    nm_outputs f = { 0 };
    for (int64_t at = 0; at < b->n && nm_run_ok(r); at += micro) {
        nm_tape *tape = r->tape;
        r->rehearsal = t->o.accum > 1;
        if (t->o.accum > 1)
            r->tape = NULL;
        f = task->forward(t, b, at, at + micro < b->n ? at + micro : b->n, t->o.accum == 1);
        r->tape = tape;
        r->rehearsal = false;
        for (int k = 0; k < task->n_outputs; k++)
            copy_rows(out[k] + at * task->width(t, k), &f.t[k]);
        if (t->o.accum > 1)
            nm_arena_rewind(t->arena, mark);
    }
    if (!nm_run_ok(r))
        return NAN;
    double loss = task->loss(t, b, 0, b->n, out, d, true);
    for (int64_t at = 0; at < b->n && nm_run_ok(r); at += micro) {
        int64_t end = at + micro < b->n ? at + micro : b->n;
        if (t->o.accum > 1)
            f = task->forward(t, b, at, end, true);
        if (task->row_loss && nm_run_ok(r))
            *row_loss += task->row_loss(t, b, at, end, &f);
        backward(t, &f, d, at, end == b->n);
        if (t->o.accum > 1)
            nm_arena_rewind(t->arena, mark);
    }
    return loss;
}

/* Gradients of the last step are overwritten by the first backward that reaches them. */
static void zero_gradients(nm_trainer *t)
{
    for (size_t i = 0; i < t->n_params; i++)
        t->params[i].grad.stale = t->params[i].grad.data != NULL;
}

/* What no backward reached. */
static void settle_gradients(nm_trainer *t)
{
    for (size_t i = 0; i < t->n_params; i++) {
        nm_grad *g = &t->params[i].grad;
        if (g->stale)
            memset(g->data, 0, t->params[i].n * sizeof *g->data);
        g->stale = false;
    }
}

static void update(nm_trainer *t, double factor, double lr)
{
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *p = &t->params[i];
        if (p->frozen || !p->grad.data)
            continue;
        nm_opt_update(&t->o.opt, t->pool, p->n, p->w->f32, p->grad.data, factor, p->m, p->v, t->updates + 1, lr * p->lr_scale,
                      p->decayed ? t->o.weight_decay : 0);
        nm_weight_changed(p->w);
    }
    if (t->lora)
        nm_lora_merge(t->lora, t->pool);
    if (t->logit_scale && !t->logit_scale->frozen) {
        float *s = t->logit_scale->w->f32, inside = s[0] < 0 ? 0 : s[0] > (float)LN_100 ? (float)LN_100 : s[0];
        if (!t->model->scale_clipped)
            s[0] = inside;
        t->model->logit_scale = exp((double)inside);
    }
    if (t->logit_bias)
        t->model->logit_bias = (double)t->logit_bias->w->f32[0];
    double decay = t->o.ema_warmup ? nm_ema_warm_decay(t->o.ema_decay, t->step + 1) : t->o.ema_decay;
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].ema && t->params[i].counter) /* timm's ModelEmaV3 averages buffers too, and copies what is no fraction */
            t->params[i].ema[0] = t->params[i].w->f32[0];
        else if (t->params[i].ema)
            nm_ema_update(t->pool, t->params[i].n, t->params[i].ema, t->params[i].w->f32, decay);
}

/* The patches that this step computes: those of the batch, else random ones. Carved from the arena. */
static bool choose_patches(nm_trainer *t, const nm_pair_batch *b)
{
    int64_t n = t->model->patches, kept = nm_mask_kept(n, t->o.patch_dropout);
    t->keep = b->keep;
    if (b->keep.n || t->o.patch_dropout <= 0 || kept >= n)
        return true;
    int32_t *patch = nm_scratch(&t->run, (size_t)(b->n * kept) * sizeof *patch), *work = nm_scratch(&t->run, (size_t)n * sizeof *work);
    if (!patch || !work)
        return false;
    nm_mask_draw(patch, b->first, b->n, n, kept, t->o.seed, t->step, work);
    t->keep = (nm_keep){ patch, kept };
    return true;
}

/* The same of the positions of its texts. */
static bool choose_words(nm_trainer *t, const nm_pair_batch *b)
{
    int64_t n = t->model->text_positions, kept = nm_mask_kept(n, t->o.text_mask_ratio);
    t->words = (nm_keep){ 0 };
    if (t->o.text_mask_ratio <= 0 || kept >= n || !b->texts.offsets)
        return true;
    int32_t *word = nm_scratch(&t->run, (size_t)(b->n * kept) * sizeof *word), *work = nm_scratch(&t->run, (size_t)n * sizeof *work);
    if (!word || !work)
        return false;
    nm_mask_draw_text(word, b->first, b->n, b->texts.offsets, b->texts.ids, n, kept, !t->o.text_mask_random, t->o.seed, t->step, work);
    t->words = (nm_keep){ word, kept };
    return true;
}

noema_status nm_trainer_step(nm_trainer *t, const nm_pair_batch *b, nm_step_result *result, noema_error *err)
{
    nm_run *r = &t->run;
    double lr = nm_schedule_lr(&t->o.schedule, t->step);
    nm_arena_reset(t->arena);
    (void)(choose_patches(t, b) && choose_words(t, b)); /* r->err says what went wrong */
    nm_rng_init(&r->rng, t->o.seed, (uint64_t)t->step);
    zero_gradients(t);
    r->flops = 0;
    if (t->o.task->begin)
        t->o.task->begin(t, b);
    double part[2] = { 0, 0 }, sum = 0;
    part[0] = loss_and_gradients(t, b, &part[1]);
    if (t->sum && nm_run_ok(r)) {
        nm_gradsum_end(t->sum, r);
        nm_ranks_sum(&t->o.ranks, part, 2);
        part[0] /= t->o.ranks.size;
        part[1] /= t->o.ranks.size;
    }
    double loss = part[0] + part[1];
    if (!nm_run_ok(r))
        return nm_fail(err, r->err.code, "%s", r->err.message);
    settle_gradients(t);
    if (t->lora && !nm_lora_gradients(t->lora, t->pool))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: gradients of the adapters");
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].grad.data && !t->params[i].frozen)
            sum += nm_squared_norm(t->pool, t->params[i].grad.data, t->params[i].n);
    if (!isfinite(loss) || !isfinite(sum))
        return not_finite(t, b, loss, err);
    update(t, nm_clip_factor(sqrt(sum), t->o.clip_norm), lr);
    t->step++;
    t->updates++;
    *result = (nm_step_result){ loss, lr, sqrt(sum), t->logit_scale ? (double)t->logit_scale->w->f32[0] : 0, r->flops, part[1] };
    return NOEMA_OK;
}

void nm_trainer_swap_averages(nm_trainer *t)
{
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *p = &t->params[i];
        for (size_t k = 0; p->ema && k < p->n; k++) {
            float w = p->w->f32[k];
            p->w->f32[k] = p->ema[k];
            p->ema[k] = w;
        }
        if (p->ema)
            nm_weight_changed(p->w);
    }
}

double nm_trainer_log_scale(const nm_trainer *t)
{
    double s = t->logit_scale ? (double)t->logit_scale->w->f32[0] : 0;
    return !t->model->scale_clipped ? s : s < 0 ? 0 : s > LN_100 ? LN_100 : s; /* inside the graph: no gradient outside */
}

noema_status nm_trainer_loss(nm_trainer *t, const nm_pair_batch *b, double *loss, noema_error *err)
{
    nm_run *r = &t->run;
    nm_tape *tape = r->tape;
    float *out[NM_TASK_OUTPUTS], *d[NM_TASK_OUTPUTS];
    nm_arena_reset(t->arena);
    t->keep = (nm_keep){ 0 };
    r->tape = NULL;
    r->training = false; /* batch norms use their running statistics */
    if (t->o.task->begin)
        t->o.task->begin(t, b);
    nm_outputs f = t->o.task->forward(t, b, 0, b->n, true);
    r->training = true;
    if (nm_run_ok(r) && outputs_room(t, b->n, out, d)) {
        for (int k = 0; k < t->o.task->n_outputs; k++)
            copy_rows(out[k], &f.t[k]);
        *loss = (t->o.task->loss ? t->o.task->loss(t, b, 0, b->n, out, d, false) : 0) + (t->o.task->row_loss ? t->o.task->row_loss(t, b, 0, b->n, &f) : 0);
    }
    r->tape = tape;
    return nm_run_ok(r) ? NOEMA_OK : nm_fail(err, r->err.code, "%s", r->err.message);
}
