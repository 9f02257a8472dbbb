/* checkpoint.c - open_clip's epoch_N.pt: written in the layout of open_clip 4, read in that of 2 to 4.
 *
 *     {epoch, name, state_dict, optimizer {state {index: {step, exp_avg, exp_avg_sq}}, param_groups [no_wd, wd]}, global_step,
 *      samples_seen [, state_dict_ema]}
 * Indices run through the groups in order. open_clip <= 3 has the groups [no decay, decay] by another rule (2-D position tables are
 * decayed), `module.` names under DDP, and no global_step. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "train/trainer.h"
#include "weights/weights.h"

/* ---- which parameters are decayed ---- */

static bool old_rule_decays(const nm_train_param *p)
{
    return p->w->shape.ndim >= 2 && !strstr(p->name, "bn") && !strstr(p->name, "ln") && !strstr(p->name, "bias") && !strstr(p->name, "logit_scale");
}

/* ---- saving ---- */

typedef struct writer { nm_wview *views; size_t n; float *steps; size_t n_steps; int64_t *counts; size_t n_counts; } writer;

static json_t *put_tensor(writer *w, nm_shape shape, const float *data)
{
    nm_tensor t = nm_view((void *)(uintptr_t)data, NM_F32, shape);
    nm_wview *v = &w->views[w->n];
    *v = (nm_wview){ .name = "", .dtype = NM_F32, .ndim = t.ndim, .data = data };
    memcpy(v->shape, t.shape, sizeof v->shape);
    memcpy(v->stride, t.stride, sizeof v->stride);
    return json_pack("{s:I}", "$tensor", (json_int_t)w->n++);
}

/* One of the tensors that files hold for a parameter: its name, its shape as declared, where its values begin. */
typedef struct piece { const char *name; nm_shape shape; size_t at, n; } piece;

static piece piece_of(const nm_train_param *p, int k)
{
    piece q = { p->n_parts > 1 ? p->part[k] : p->name, p->w->shape, p->n / (size_t)p->n_parts * (size_t)k, p->n / (size_t)p->n_parts };
    if (p->n_parts > 1)
        q.shape.dim[0] /= p->n_parts;
    return q;
}

/* A piece of a parameter, its moments or its average, in the file's layout. */
static json_t *put_piece(writer *w, const nm_train_param *p, const piece *q, const float *data)
{
    json_t *ref = put_tensor(w, q->shape, data + q->at);
    nm_wview *v = &w->views[w->n - 1], declared = *v;
    if (p->counter) {
        int64_t *count = &w->counts[w->n_counts++];
        *count = (int64_t)data[0];
        v->dtype = NM_I64;
        v->data = count;
    }
    for (int d = 0; d < v->ndim; d++) {
        v->shape[d] = declared.shape[nm_layout_dim(p->layout, d)];
        v->stride[d] = declared.stride[nm_layout_dim(p->layout, d)];
    }
    return ref;
}

static json_t *weights_tree(const nm_trainer *t, writer *w, bool ema)
{
    json_t *o = json_object();
    for (size_t i = 0; i < t->n_params; i++)
        for (int k = 0; k < t->params[i].n_parts; k++) {
            piece q = piece_of(&t->params[i], k);
            json_object_set_new(o, q.name, put_piece(w, &t->params[i], &q, ema ? t->params[i].ema : t->params[i].w->f32));
        }
    return o;
}

static json_t *group_tree(const nm_trainer *t, bool decayed, size_t first, size_t count)
{
    const nm_train_options *o = &t->o;
    json_t *g = json_object(), *ids = json_array();
    double lr = t->step ? nm_schedule_lr(&o->schedule, t->step - 1) : 0;
    json_object_set_new(g, "weight_decay", json_real(decayed ? o->weight_decay : 0));
    json_object_set_new(g, "group_name", json_string(decayed ? "wd" : "no_wd"));
    json_object_set_new(g, "lr", json_real(lr));
    if (o->opt.kind == NM_OPT_SGD) {
        json_object_update_new(g, json_pack("{s:f,s:f,s:b}", "momentum", o->opt.momentum, "dampening", 0.0, "nesterov", (int)o->opt.nesterov));
    } else {
        json_object_set_new(g, "betas", json_pack("{s:[f,f]}", "$tuple", o->opt.beta1, o->opt.beta2));
        if (o->opt.kind == NM_OPT_ADAMW)
            json_object_update_new(g, json_pack("{s:f,s:b,s:b,s:n,s:b,s:b,s:n,s:b}", "eps", o->opt.eps, "amsgrad", 0, "maximize", 0, "foreach",
                                                "capturable", 0, "differentiable", 0, "fused", "decoupled_weight_decay", 1));
    }
    for (size_t i = 0; i < count; i++)
        json_array_append_new(ids, json_integer((json_int_t)(first + i)));
    json_object_set_new(g, "params", ids);
    return g;
}

static json_t *moments_tree(const nm_trainer *t, writer *w, const nm_train_param *p, const piece *q)
{
    json_t *s = json_object();
    if (t->o.opt.kind != NM_OPT_SGD) {
        float *step = &w->steps[w->n_steps++];
        *step = (float)t->updates;
        json_object_set_new(s, "step", put_tensor(w, NM_SCALAR, step));
    }
    json_object_set_new(s, t->o.opt.kind == NM_OPT_SGD ? "momentum_buffer" : "exp_avg", put_piece(w, p, q, p->m));
    if (p->v)
        json_object_set_new(s, "exp_avg_sq", put_piece(w, p, q, p->v));
    return s;
}

static json_t *optimizer_tree(const nm_trainer *t, writer *w)
{
    json_t *state = json_object(), *groups = json_array();
    size_t index = 0;
    for (int decayed = 0; decayed < 2; decayed++) {
        size_t first = index;
        for (size_t i = 0; i < t->n_params; i++) {
            const nm_train_param *p = &t->params[i];
            for (int k = 0; k < p->n_parts && !p->frozen && p->decayed == (bool)decayed; k++, index++) {
                char key[32];
                piece q = piece_of(p, k);
                snprintf(key, sizeof key, "%zu", index);
                if (t->step > 0)
                    json_object_set_new(state, key, moments_tree(t, w, p, &q));
            }
        }
        json_array_append_new(groups, group_tree(t, decayed, first, index - first));
    }
    return json_pack("{s:{s:o},s:o}", "state", "$int_keys", state, "param_groups", groups);
}

noema_status nm_trainer_save(const nm_trainer *t, const char *path, const char *name, int64_t epoch, int64_t samples_seen, noema_error *err)
{
    size_t pieces = NM_MAX_PARTS * t->n_params;
    writer w = { .views = nm_malloc_array(pieces * 5 + 1, sizeof(nm_wview)), .steps = nm_malloc_array(pieces + 1, sizeof(float)),
                 .counts = nm_malloc_array(2 * t->n_params + 1, sizeof(int64_t)) };
    noema_status s = NOEMA_OK;
    if (!w.views || !w.steps || !w.counts) {
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    } else {
        json_t *tree = json_object();
        json_object_set_new(tree, "epoch", json_integer((json_int_t)epoch));
        json_object_set_new(tree, "name", json_string(name));
        json_object_set_new(tree, "state_dict", weights_tree(t, &w, false));
        json_object_set_new(tree, "optimizer", optimizer_tree(t, &w));
        json_object_set_new(tree, "global_step", json_integer((json_int_t)t->step));
        if (samples_seen >= 0)
            json_object_set_new(tree, "samples_seen", json_integer((json_int_t)samples_seen));
        if (t->o.ema_decay > 0)
            json_object_set_new(tree, "state_dict_ema", weights_tree(t, &w, true));
        s = nm_torch_write(path, tree, w.views, w.n, err);
        json_decref(tree);
    }
    free(w.views);
    free(w.steps);
    free(w.counts);
    return s;
}

/* ---- loading ---- */

typedef struct reader { nm_trainer *t; const nm_weights *f; const char *path; const char *module; noema_error *err; } reader;

static const nm_wview *find(const reader *r, const char *part, const char *name)
{
    char full[512];
    snprintf(full, sizeof full, "%s.%s%s", part, strncmp(part, "state_dict", 10) == 0 ? r->module : "", name);
    return nm_weights_find(r->f, full);
}

/* The stored shape as the declaration sees it; [] and [1] are the same. */
static bool fits(const nm_train_param *p, const piece *q, const nm_wview *v)
{
    const nm_shape *s = &q->shape;
    if (s->ndim == 0)
        return nm_wview_numel(v) == 1;
    if (v->ndim != s->ndim)
        return false;
    for (int i = 0; i < s->ndim; i++)
        if (v->shape[i] != s->dim[nm_layout_dim(p->layout, i)])
            return false;
    return true;
}

static noema_status check(const reader *r, const nm_train_param *p, const piece *q, const char *part, const nm_wview *v)
{
    char want[128], got[128];
    if (!v && p->counter && p->w->still) /* FrozenBatchNorm2d counts nothing */
        return NOEMA_OK;
    if (!v)
        return nm_fail(r->err, NOEMA_E_MISSING, "%s: %s of %s is not there", r->path, part, q->name);
    if (!fits(p, q, v))
        return nm_fail(r->err, NOEMA_E_MISMATCH, "%s: %s of %s: expected %s%s, got %s", r->path, part, q->name,
                       nm_shape_text(q->shape.ndim, q->shape.dim, want), p->layout ? " in the file's order" : "", nm_shape_text(v->ndim, v->shape, got));
    return NOEMA_OK;
}

static void take(const nm_train_param *p, const piece *q, const nm_wview *v, float *dst)
{
    if (!v)
        return;
    nm_wview t = *v;
    for (int d = 0; d < v->ndim; d++) {
        t.shape[nm_layout_dim(p->layout, d)] = v->shape[d];
        t.stride[nm_layout_dim(p->layout, d)] = v->stride[d];
    }
    nm_wview_copy_f32(&t, dst + q->at);
}

/* transformers 5 lists the positions of a RoBERTa tower behind its first norm, transformers 4 behind its words. */
static void order_params(const nm_trainer *t, bool positions_second, size_t *order)
{
    size_t words = t->n_params, n = 0;
    for (size_t i = 0; i < t->n_params; i++) {
        bool positions = nm_has_suffix(t->params[i].name, "embeddings.position_embeddings.weight") && words < i;
        order[n] = i;
        for (size_t k = n++; positions_second && positions && k > words + 1; k--) { /* names are in declared order: nothing moved before */
            size_t other = order[k - 1];
            order[k - 1] = order[k];
            order[k] = other;
        }
        if (nm_has_suffix(t->params[i].name, "embeddings.word_embeddings.weight"))
            words = i;
    }
}

/* The file's index of each parameter by one rule (NULL: one group, group_decays[0], holds all); false when group sizes or shapes do not fit. */
static bool number_by(const reader *r, const json_t *groups, bool (*decays)(const nm_train_param *), const size_t *order, bool group_decays[2], size_t *index)
{
    nm_trainer *t = r->t;
    size_t n_groups = json_array_size(groups), at = 0;
    if (n_groups < 1 || n_groups > 2)
        return false;
    for (size_t g = 0; g < n_groups; g++) {
        const json_t *group = json_array_get(groups, g);
        bool want = nm_json_num(group, "weight_decay", 0) > 0;
        size_t count = 0, size = json_array_size(nm_json_get(group, "params"));
        /* a run without weight decay has two groups of weight_decay 0: then the first is the one without */
        if (n_groups == 2 && !want)
            want = g == 1 && nm_json_num(json_array_get(groups, 0), "weight_decay", 0) == 0;
        group_decays[g] = want;
        if (!decays && size)
            group_decays[0] = want;
        for (size_t o = 0, i; o < t->n_params && (decays || size); o++)
            if (i = order[o], !t->params[i].frozen && (!decays || decays(&t->params[i]) == want)) {
                index[i] = at;
                at += (size_t)t->params[i].n_parts;
                count += (size_t)t->params[i].n_parts;
            }
        if (count != size)
            return false;
    }
    for (size_t i = 0; i < t->n_params; i++)
        for (int k = 0; k < t->params[i].n_parts && !t->params[i].frozen; k++) {
            char name[64];
            piece q = piece_of(&t->params[i], k);
            snprintf(name, sizeof name, "optimizer.state.%zu.exp_avg", index[i] + (size_t)k);
            const nm_wview *v = nm_weights_find(r->f, name);
            if (v && !fits(&t->params[i], &q, v))
                return false;
        }
    return true;
}

static bool new_rule_decays(const nm_train_param *p) { return p->decayed; }

/* apply: takes them; else: checks that they are there. */
static noema_status piece_moments(const reader *r, const nm_train_param *p, int part, size_t index, bool apply)
{
    bool sgd = r->t->o.opt.kind == NM_OPT_SGD;
    const char *fields[2] = { sgd ? "momentum_buffer" : "exp_avg", "exp_avg_sq" };
    float *to[2] = { p->m, p->v };
    piece q = piece_of(p, part);
    for (int k = 0; k < 2; k++) {
        char name[96];
        if (!to[k])
            continue;
        snprintf(name, sizeof name, "optimizer.state.%zu.%s", index, fields[k]);
        const nm_wview *v = nm_weights_find(r->f, name);
        bool none = !v && sgd && r->t->o.opt.momentum == 0; /* torch's SGD keeps nothing then */
        noema_status s = apply || none ? NOEMA_OK : check(r, p, &q, name, v);
        if (s != NOEMA_OK)
            return s;
        if (apply)
            take(p, &q, v, to[k]);
    }
    return NOEMA_OK;
}

static noema_status load_moments(const reader *r, const size_t *index, bool apply)
{
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < r->t->n_params; i++)
        for (int k = 0; k < r->t->params[i].n_parts && !r->t->params[i].frozen && s == NOEMA_OK; k++)
            s = piece_moments(r, &r->t->params[i], k, index[i] + (size_t)k, apply);
    return s;
}

/* How often the file's optimizer has updated its first parameter; -1 where it does not say. */
static int64_t updates_of(const reader *r)
{
    const nm_wview *v = nm_weights_find(r->f, "optimizer.state.0.step");
    const json_t *state = nm_json_get(nm_json_get(nm_weights_meta(r->f), "optimizer"), "state"); /* a number before PyTorch 1.12 */
    float n = -1;
    if (v && nm_wview_numel(v) == 1)
        nm_wview_copy_f32(v, &n);
    else
        n = (float)nm_json_num(nm_json_get(state, "0"), "step", -1);
    return n >= 1 && n < 16777216 ? (int64_t)n : -1; /* beyond, f32 no longer counts */
}

static noema_status check_all(const reader *r, const char *part)
{
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < r->t->n_params; i++)
        for (int k = 0; k < r->t->params[i].n_parts && s == NOEMA_OK; k++) {
            piece q = piece_of(&r->t->params[i], k);
            s = check(r, &r->t->params[i], &q, part, find(r, part, q.name));
        }
    return s;
}

static void take_all(const reader *r, const nm_train_param *p, const char *part, float *dst)
{
    for (int k = 0; k < p->n_parts; k++) {
        piece q = piece_of(p, k);
        take(p, &q, find(r, part, q.name), dst);
    }
}

static bool has_average(const reader *r)
{
    return r->t->o.ema_decay > 0 && find(r, "state_dict_ema", piece_of(&r->t->params[0], 0).name);
}

static void apply_weights(const reader *r)
{
    nm_trainer *t = r->t;
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *p = &t->params[i];
        take_all(r, p, "state_dict", p->w->f32);
        nm_weight_changed(p->w);
        if (p->ema && has_average(r))
            take_all(r, p, "state_dict_ema", p->ema);
        else if (p->ema)
            memcpy(p->ema, p->w->f32, p->n * sizeof *p->ema);
    }
    if (t->logit_scale)
        t->model->logit_scale = exp((double)t->logit_scale->w->f32[0]);
    if (t->lora)
        nm_lora_merge(t->lora, t->pool);
}

static noema_status load_from(reader *r, int64_t *epoch, int64_t *step)
{
    nm_trainer *t = r->t;
    const json_t *meta = nm_weights_meta(r->f), *groups = nm_json_get(nm_json_get(meta, "optimizer"), "param_groups");
    r->module = find(r, "state_dict", t->params[0].name) ? "" : "module.";
    noema_status s = check_all(r, "state_dict");
    if (s == NOEMA_OK && has_average(r))
        s = check_all(r, "state_dict_ema");
    if (s != NOEMA_OK)
        return s;
    *epoch = nm_json_int(meta, "epoch", 0);
    *step = nm_json_int(meta, "global_step", -1);
    size_t *index = calloc(t->n_params, 2 * sizeof *index), *order = index + t->n_params;
    bool (*const rules[])(const nm_train_param *) = { new_rule_decays, old_rule_decays, NULL }, (*rule)(const nm_train_param *) = NULL;
    bool by_group[2] = { 0 }, fits = false;
    if (!index)
        return nm_fail(r->err, NOEMA_E_MEMORY, "%s: out of memory", r->path);
    for (int k = 0; groups && k < 6 && !fits; k++) {
        order_params(t, k & 1, order);
        fits = number_by(r, groups, rule = rules[k / 2], order, by_group, index);
    }
    if (!fits)
        s = nm_fail(r->err, groups ? NOEMA_E_MISMATCH : NOEMA_E_MISSING,
                    "%s: the optimizer state %s this model; expected open_clip's groups [no decay, decay], or one group, of its %zu parameters", r->path,
                    groups ? "does not fit" : "is missing for", t->n_params);
    bool fresh = *step == 0 || (groups && json_object_size(nm_json_get(nm_json_get(meta, "optimizer"), "state")) == 0 && *step <= 0 && *epoch == 0);
    if (s == NOEMA_OK && !fresh)
        s = load_moments(r, index, false);
    if (s == NOEMA_OK) {
        apply_weights(r);
        if (!fresh)
            (void)load_moments(r, index, true);
        for (size_t i = 0; rule != new_rule_decays && i < t->n_params; i++)
            t->params[i].decayed = rule ? rule(&t->params[i]) : by_group[0];
        if (*step >= 0)
            t->step = *step;
        t->updates = fresh ? 0 : updates_of(r);
    }
    free(index);
    return s;
}

noema_status nm_trainer_load(nm_trainer *t, const char *path, int64_t *epoch, int64_t *step, noema_error *err)
{
    nm_weights *f = NULL;
    nm_weights_options raw = { .raw = true };
    noema_status s = nm_weights_open_many(&f, &path, 1, &raw, err);
    if (s != NOEMA_OK)
        return s;
    reader r = { .t = t, .f = f, .path = path, .module = "", .err = err };
    s = load_from(&r, epoch, step);
    nm_weights_close(f);
    return s;
}

noema_status nm_trainer_peek(const char *path, int64_t *epoch, int64_t *step, noema_error *err)
{
    nm_weights *f = NULL;
    nm_weights_options raw = { .raw = true };
    noema_status s = nm_weights_open_many(&f, &path, 1, &raw, err);
    if (s != NOEMA_OK)
        return s;
    *epoch = nm_json_int(nm_weights_meta(f), "epoch", 0);
    *step = nm_json_int(nm_weights_meta(f), "global_step", -1);
    nm_weights_close(f);
    return NOEMA_OK;
}
