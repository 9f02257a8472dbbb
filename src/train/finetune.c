/* finetune.c - `noema_finetune`: a run whose task is a linear head on the image tower's features, with a report at its end. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "models/average.h"
#include "train/report.h"
#include "train/run.h"
#include "train/softmax.h"

#define ZERO_SHOT_SCALE 100.0 /* as in classification: softmax of 100 * cosine */

typedef struct finetune {
    const noema_finetune_options *o;
    noema_context *ctx;
    noema_model *model;
    nm_labelled train, val;
    json_t *names;        /* of the classes, or NULL: numbers */
    nm_head head, start;  /* trained; as it began */
    int64_t *pick, n_pick;
    nm_job job;
    nm_report report;
    nm_score last;        /* of val_data after last_step steps */
    int64_t last_step;
    noema_error unreadable; /* the first row of val_data that is */
    double began;
    noema_finetune_result *result;
} finetune;

void noema_finetune_options_default(noema_finetune_options *o)
{
    *o = (noema_finetune_options){ .struct_size = sizeof *o, .unlocked_layers = -1, .wise_ft = -1 };
    noema_train_options_default(&o->train);
    o->train.epochs = 10;
    o->train.lr = 3e-5;
    o->train.wd = 0.1;
    o->train.beta2 = 0.999;
    o->train.eps = 1e-8;
    o->train.warmup = -1;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- classes ---- */

/* Line k of --labels names class k; a list in another order than the data's own names would be taken for what it is not. */
static noema_status name_classes(finetune *f, noema_error *err)
{
    const noema_finetune_options *o = f->o;
    const char *data = nm_dataset_source(f->train.rows);
    if (!o->labels) {
        f->names = nm_labelled_names(&f->train);
        return NOEMA_OK;
    }
    if (o->n_labels != (size_t)f->train.classes)
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: has %lld classes, %zu labels were given", data, (long long)f->train.classes, o->n_labels);
    f->names = json_array();
    for (size_t k = 0; k < o->n_labels; k++) {
        for (int64_t i = 0; nm_dataset_label_name(f->train.rows, i); i++)
            if (i != (int64_t)k && strcmp(nm_dataset_label_name(f->train.rows, i), o->labels[k]) == 0)
                return nm_fail(err, NOEMA_E_MISMATCH, "%s: '%s' is class %lld of the data and line %zu of the labels; they count classes in the order in which "
                               "the data first name them", data, o->labels[k], (long long)i, k);
        json_array_append_new(f->names, json_string(o->labels[k]));
    }
    return NOEMA_OK;
}

/* ---- the head's start ---- */

/* Mean length of the vectors that the features of some training rows are projected to. */
static noema_status mean_length(finetune *f, noema_session *s, const float *p, const float *bias, int64_t embed, double *length, noema_error *err)
{
    int64_t dim = f->train.dim, n = f->train.n < NM_FEATURE_ROWS ? f->train.n : NM_FEATURE_ROWS, used = 0;
    float *x = nm_malloc_array((size_t)(n * dim), sizeof *x);
    bool ok[NM_FEATURE_ROWS];
    noema_status st = x ? nm_labelled_features(&f->train, s, 0, n, x, ok, NULL, NULL, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: features");
    *length = 0;
    for (int64_t i = 0; i < n && st == NOEMA_OK; i++) {
        double square = 0;
        for (int64_t e = 0; ok[i] && e < embed; e++) {
            double v = bias ? (double)bias[e] : 0;
            for (int64_t k = 0; k < dim; k++)
                v += (p ? (double)p[e * dim + k] : k == e) * (double)x[i * dim + k];
            square += v * v;
        }
        *length += sqrt(square);
        used += ok[i];
    }
    free(x);
    *length = used ? *length / (double)used : 1;
    return st;
}

/* W = s C P, b = s C bias: logits are proportional, row by row, to the cosines with the class vectors C [classes, embed_dim], and on
 * average as large as 100 times the cosine. */
static noema_status project_classes(finetune *f, noema_session *s, const float *classes, noema_error *err)
{
    const nm_model *m = f->model->m;
    const nm_weight *w = NULL, *b = NULL;
    int64_t dim = f->train.dim, embed = m->embed_dim;
    double length = 1;
    m->family->projection(m, &w, &b);
    float *p = w ? nm_malloc_array((size_t)(embed * dim), sizeof *p) : NULL, *bias = b ? nm_malloc_array((size_t)embed, sizeof *bias) : NULL;
    noema_status st = (w && !p) || (b && !bias) ? nm_fail(err, NOEMA_E_MEMORY, "out of memory: projection") : NOEMA_OK;
    if (p)
        nm_weight_copy_f32(w, p);
    if (bias)
        nm_weight_copy_f32(b, bias);
    if (st == NOEMA_OK)
        st = mean_length(f, s, p, bias, embed, &length, err);
    for (int64_t k = 0; k < f->head.classes && st == NOEMA_OK; k++) {
        const float *c = classes + k * embed;
        double scale = ZERO_SHOT_SCALE / length, sum = 0;
        for (int64_t e = 0; bias && e < embed; e++)
            sum += (double)c[e] * (double)bias[e];
        f->head.w.bias.f32[k] = (float)(scale * sum);
        for (int64_t i = 0; i < dim; i++) {
            sum = p ? 0 : (double)c[i];
            for (int64_t e = 0; p && e < embed; e++)
                sum += (double)c[e] * (double)p[e * dim + i];
            f->head.w.weight.f32[k * dim + i] = (float)(scale * sum);
        }
    }
    free(p);
    free(bias);
    return st;
}

static noema_status head_from_text(finetune *f, noema_session *s, noema_error *err)
{
    size_t n = (size_t)f->head.classes;
    const char **label = nm_malloc_array(n, sizeof *label);
    float *classes = nm_malloc_array(n, (size_t)f->model->m->embed_dim * sizeof *classes);
    noema_status st = label && classes ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: class vectors");
    if (st == NOEMA_OK && !f->names)
        st = nm_fail(err, NOEMA_E_ARGUMENT, "%s: its labels are numbers; a head from text needs --labels", nm_dataset_source(f->train.rows));
    if (st == NOEMA_OK && (!f->model->m->has_text || !f->model->m->family->projection))
        st = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: a head from text needs a model with a text tower", f->model->name);
    for (size_t k = 0; st == NOEMA_OK && k < n; k++)
        label[k] = json_string_value(json_array_get(f->names, k));
    if (st == NOEMA_OK)
        st = noema_class_vectors(s, n, label, f->o->n_templates, f->o->templates, classes, err);
    if (st == NOEMA_OK)
        st = project_classes(f, s, classes, err);
    free((void *)label);
    free(classes);
    return st;
}

static noema_status start_head(finetune *f, noema_error *err)
{
    noema_session *session = NULL;
    noema_status s = nm_head_new(&f->head, f->train.classes, f->train.dim, err);
    if (s == NOEMA_OK)
        s = nm_head_new(&f->start, f->train.classes, f->train.dim, err);
    if (s == NOEMA_OK && f->o->head)
        s = nm_head_load(&f->head, f->o->head, f->names, err);
    else if (s == NOEMA_OK && f->o->head_from_text) {
        s = noema_session_create(&session, f->model, err);
        if (s == NOEMA_OK)
            s = head_from_text(f, session, err);
        noema_session_free(session);
    }
    if (s == NOEMA_OK) {
        memcpy(f->start.w.weight.f32, f->head.w.weight.f32, (size_t)(f->head.classes * f->head.dim) * sizeof(float));
        memcpy(f->start.w.bias.f32, f->head.w.bias.f32, (size_t)f->head.classes * sizeof(float));
    }
    return s;
}

/* ---- the run ---- */

/* The rows of the shots; a batch is no larger than what there is. */
static noema_status draw_shots(finetune *f, noema_train_options *o, noema_error *err)
{
    int64_t n = f->train.n, *all = nm_malloc_array((size_t)n, sizeof *all);
    f->n_pick = n;
    noema_status s = NOEMA_OK;
    if (f->o->shots > 0) {
        f->pick = nm_malloc_array((size_t)n, sizeof *f->pick);
        for (int64_t i = 0; all && i < n; i++)
            all[i] = i;
        s = all && f->pick ? nm_labelled_shots(&f->train, all, n, f->o->shots, o->seed, f->pick, &f->n_pick, err)
                           : nm_fail(err, NOEMA_E_MEMORY, "out of memory: shots");
        f->job.pick = f->pick;
        f->job.n_pick = f->n_pick;
    }
    free(all);
    if (s == NOEMA_OK && o->accum_freq * o->batch_size > f->n_pick) {
        o->accum_freq = o->accum_freq < f->n_pick ? o->accum_freq : f->n_pick;
        o->batch_size = f->n_pick / o->accum_freq;
    }
    return s;
}

static noema_status opened(void *self, noema_model *model, nm_dataset *rows, noema_train_options *o, nm_train_options *t, noema_error *err)
{
    finetune *f = self;
    f->model = model;
    f->began = now();
    noema_status s = nm_labelled_of(&f->train, rows, NULL, model, err);
    if (s == NOEMA_OK && o->val_data)
        s = nm_labelled_open(&f->val, o->val_data, &(nm_dataset_options){ .img_key = o->img_key, .label_key = o->label_key }, &f->train, model, err);
    if (s == NOEMA_OK)
        s = name_classes(f, err);
    if (s == NOEMA_OK)
        s = draw_shots(f, o, err);
    if (s == NOEMA_OK)
        s = start_head(f, err);
    if (f->o->unlocked_layers >= 0) {
        t->lock_image = true;
        t->unlocked_groups = f->o->unlocked_layers > 0 ? (int)f->o->unlocked_layers + 1 : 0;
    }
    t->task = &nm_task_labels;
    t->head = &f->head;
    t->label_smoothing = f->o->label_smoothing;
    t->siglip = false;
    t->lora.text = false;
    t->decay_head_bias = t->lock_image && !t->unlocked_groups;
    return s;
}

static void describe(void *self, json_t *config)
{
    const finetune *f = self;
    const noema_finetune_options *o = f->o;
    json_object_set_new(config, "task", json_string("finetune"));
    json_object_set_new(config, "classes", json_integer((json_int_t)f->head.classes));
    json_object_set_new(config, "head", o->head ? json_string(o->head) : json_null());
    json_object_set_new(config, "head_from_text", json_boolean(o->head_from_text));
    json_object_set_new(config, "label_smoothing", json_real(o->label_smoothing));
    json_object_set_new(config, "unlocked_layers", o->unlocked_layers < 0 ? json_null() : json_integer((json_int_t)o->unlocked_layers));
    json_object_set_new(config, "shots", json_integer((json_int_t)o->shots));
    json_object_set_new(config, "wise_ft", o->wise_ft < 0 ? json_null() : json_real(o->wise_ft));
}

static noema_status write_head(const finetune *f, const nm_head *h, const char *folder, noema_error *err)
{
    char *path = nm_path_join(folder, "head.safetensors");
    noema_status s = path ? nm_head_write(path, h->classes, h->dim, h->w.weight.f32, h->w.bias.f32, f->names, err)
                          : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    free(path);
    return s;
}

static noema_status save(void *self, const char *folder, noema_error *err) { return write_head(self, &((const finetune *)self)->head, folder, err); }

/* ---- measuring ---- */

static const nm_labelled *measured(const finetune *f) { return f->val.rows ? &f->val : &f->train; }

static noema_status score_with(finetune *f, noema_model *model, const nm_head *h, nm_score *sc, nm_failed_fn *failed, void *user, noema_error *err)
{
    noema_session *session = NULL;
    noema_status s = noema_session_create(&session, model, err);
    if (s == NOEMA_OK)
        s = nm_score_rows(sc, session, measured(f), h, failed, user, err);
    noema_session_free(session);
    return s;
}

static noema_status score(finetune *f, noema_model *model, const nm_head *h, nm_score *sc, noema_error *err)
{
    return score_with(f, model, h, sc, f->o->train.failed, f->o->train.failed_user, err);
}

static void note_unreadable(void *user, const char *what, const noema_error *why)
{
    noema_error *first = user;
    (void)what;
    if (first->code == NOEMA_OK)
        (void)nm_fail(first, why->code, "%s", why->message);
}

/* Share of the rows whose class is among the five likeliest. */
static double top5(const nm_score *sc, const int64_t *label)
{
    int64_t hits = 0;
    for (int64_t i = 0; i < sc->n; i++) {
        const float *p = sc->probs + i * sc->classes;
        int64_t above = 0;
        for (int64_t k = 0; k < sc->classes && sc->answer[i] >= 0; k++)
            above += p[k] > p[label[i]] || (p[k] == p[label[i]] && k < label[i]);
        hits += sc->answer[i] >= 0 && above < 5;
    }
    return sc->rows ? (double)hits / (double)sc->rows : 0;
}

/* After an epoch; the averaged weights where the run keeps an average, as in training on pairs. */
static noema_status measure(void *self, nm_trainer *t, noema_train_validation *out, noema_error *err)
{
    finetune *f = self;
    nm_score_free(&f->last);
    nm_err_clear(&f->unreadable);
    nm_trainer_swap_averages(t);
    noema_status s = score_with(f, f->model, &f->head, &f->last, note_unreadable, &f->unreadable, err);
    nm_trainer_swap_averages(t);
    f->last_step = t->step;
    const nm_score *sc = &f->last;
    if (s == NOEMA_OK && !sc->rows)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: none of %lld rows can be used; the first: %s", nm_dataset_source(f->val.rows), (long long)sc->n, f->unreadable.message);
    if (s == NOEMA_OK)
        *out = (noema_train_validation){ .rows = sc->rows, .skipped = sc->unreadable, .first_skipped = sc->unreadable ? &f->unreadable : NULL,
                                         .averaged = t->o.ema_decay > 0, .loss = sc->loss, .classes = sc->classes, .head = 1,
                                         .top1 = (double)sc->right / (double)sc->rows, .top5 = top5(sc, f->val.label) };
    return s;
}

static int64_t picked(const finetune *f, int64_t i) { return f->pick ? f->pick[i] : i; }

/* h: a linear probe on the start's features of the rows that are trained on. */
static noema_status fit_probe(finetune *f, noema_model *start, nm_head *h, noema_error *err)
{
    noema_session *session = NULL;
    int64_t dim = f->train.dim, k = h->classes, n = 0;
    float *x = (size_t)f->n_pick <= SIZE_MAX / sizeof(float) / (size_t)dim ? nm_malloc_array((size_t)(f->n_pick * dim), sizeof *x) : NULL;
    int64_t *label = nm_malloc_array((size_t)f->n_pick, sizeof *label);
    double *w = nm_malloc_array((size_t)(k * (dim + 1)), sizeof *w);
    bool ok[NM_FEATURE_ROWS];
    noema_status s = x && label && w ? noema_session_create(&session, start, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: features of the start");
    for (int64_t i = 0, rows; i < f->n_pick && s == NOEMA_OK; i += rows) { /* runs of neighbouring rows */
        int64_t first = picked(f, i);
        for (rows = 1; i + rows < f->n_pick && rows < NM_FEATURE_ROWS && picked(f, i + rows) == first + rows;)
            rows++;
        s = nm_labelled_features(&f->train, session, first, rows, x + n * dim, ok, NULL, NULL, err);
        for (int64_t r = 0, at = n; r < rows && s == NOEMA_OK; r++, at++)
            if (ok[r]) { /* unreadable ones are closed over */
                memmove(x + n * dim, x + at * dim, (size_t)dim * sizeof *x);
                label[n++] = f->train.label[first + r];
            }
    }
    noema_session_free(session);
    nm_softmax_data d = { .x = x, .label = label, .rows = n, .dim = dim, .classes = k, .pool = f->ctx->pool };
    nm_lbfgs_result fit;
    if (s == NOEMA_OK)
        s = nm_softmax_fit(&d, 0.316, 1000, w, &fit, err);
    for (int64_t c = 0; c < k && s == NOEMA_OK; c++) {
        for (int64_t i = 0; i < dim; i++)
            h->w.weight.f32[c * dim + i] = (float)w[i * k + c];
        h->w.bias.f32[c] = (float)w[dim * k + c];
    }
    free(x);
    free(label);
    free(w);
    return s;
}

static noema_status open_start(finetune *f, noema_model **start, noema_error *err)
{
    const noema_train_options *o = &f->o->train;
    noema_model_options mo;
    noema_model_options_default(&mo);
    mo.dtype = NOEMA_DTYPE_F32;
    mo.tokenizer = o->tokenizer;
    mo.preprocess = o->preprocess;
    mo.config = o->config;
    return noema_model_open(start, f->ctx, o->model, &mo, err);
}

static noema_status measure_before(finetune *f, noema_error *err)
{
    bool given = f->o->head || f->o->head_from_text;
    const char *what = f->o->before ? f->o->before : given ? "head" : "probe";
    noema_model *start = NULL;
    nm_head probe = { 0 };
    if (strcmp(what, "none") == 0)
        return NOEMA_OK;
    bool fit = strcmp(what, "probe") == 0;
    f->report.before_head = fit ? "linear probe" : f->o->head ? "given" : f->o->head_from_text ? "zero-shot" : "zeros";
    noema_status s = open_start(f, &start, err);
    if (s == NOEMA_OK && fit)
        s = nm_head_new(&probe, f->head.classes, f->head.dim, err);
    if (s == NOEMA_OK && fit)
        s = fit_probe(f, start, &probe, err);
    if (s == NOEMA_OK)
        s = score(f, start, fit ? &probe : &f->start, &f->report.before, err);
    nm_head_free(&probe);
    noema_model_free(start);
    return s;
}

static void mix_head(float *to, const float *a, const float *b, int64_t n, double alpha)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)((1 - alpha) * (double)a[i] + alpha * (double)b[i]);
}

/* Writes the interpolated model and head into FOLDER/wise_ft and measures what lies there. */
static noema_status wise_ft(finetune *f, const char *folder, noema_error *err)
{
    double alpha = f->o->wise_ft;
    noema_model *mixed = NULL;
    nm_head head = { 0 };
    if (alpha < 0)
        return NOEMA_OK;
    char *dir = nm_path_join(folder, "wise_ft");
    noema_status s = dir ? open_start(f, &mixed, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    if (s == NOEMA_OK)
        s = nm_model_mix(mixed->m, 1 - alpha, f->model->m, alpha, err);
    if (s == NOEMA_OK)
        s = noema_model_save(mixed, dir, NOEMA_LAYOUT_OPEN_CLIP, NOEMA_DTYPE_F32, err);
    noema_model_free(mixed);
    mixed = NULL;
    if (s == NOEMA_OK)
        s = nm_head_new(&head, f->head.classes, f->head.dim, err);
    if (s == NOEMA_OK) {
        mix_head(head.w.weight.f32, f->start.w.weight.f32, f->head.w.weight.f32, head.classes * head.dim, alpha);
        mix_head(head.w.bias.f32, f->start.w.bias.f32, f->head.w.bias.f32, head.classes, alpha);
        s = write_head(f, &head, dir, err);
    }
    noema_model_options mo;
    noema_model_options_default(&mo);
    mo.dtype = NOEMA_DTYPE_F32;
    mo.preprocess = f->o->train.preprocess;
    if (s == NOEMA_OK)
        s = noema_model_open(&mixed, f->ctx, dir, &mo, err);
    if (s == NOEMA_OK)
        s = score(f, mixed, &head, &f->report.wise, err);
    noema_model_free(mixed);
    nm_head_free(&head);
    free(dir);
    return s;
}

static noema_status finished(void *self, nm_trainer *t, const char *folder, noema_error *err)
{
    finetune *f = self;
    nm_report *r = &f->report;
    r->names = f->names;
    r->alpha = f->o->wise_ft;
    r->train_data = f->o->train.train_data;
    r->val_data = f->o->train.val_data;
    r->model = f->o->train.model;
    r->rows = f->n_pick;
    r->steps = t->step;
    r->seconds = now() - f->began;
    for (size_t i = 0; i < t->n_params; i++) {
        r->parameters += nm_lora_is_adapter(t->params[i].name) ? 0 : (int64_t)t->params[i].n;
        r->trained += t->params[i].frozen ? 0 : (int64_t)t->params[i].n;
    }
    noema_status s = NOEMA_OK;
    if (f->last.n && f->last_step == t->step && t->o.ema_decay <= 0) { /* these weights on these rows */
        r->after = f->last;
        f->last = (nm_score){ 0 };
    } else
        s = score(f, f->model, &f->head, &r->after, err);
    if (s == NOEMA_OK && f->o->predictions)
        s = nm_score_write(&r->after, f->o->predictions, err);
    if (s == NOEMA_OK)
        s = wise_ft(f, folder, err);
    if (s == NOEMA_OK)
        s = measure_before(f, err);
    if (s == NOEMA_OK)
        s = nm_report_write(r, folder, err);
    if (s == NOEMA_OK && f->result)
        nm_report_result(r, f->result);
    return s;
}

static noema_status check(const noema_finetune_options *o, noema_error *err)
{
    static const char *const before[] = { "head", "probe", "none" };
    bool known = !o->before;
    for (int i = 0; i < 3 && o->before; i++)
        known = known || strcmp(o->before, before[i]) == 0;
    if (!o->train.train_data || !o->train.model)
        return nm_fail(err, NOEMA_E_ARGUMENT, "fine-tuning needs -m MODEL to start from and --train-data FILE");
    if (o->head && o->head_from_text)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--head and --head-from-text: expected one start of the head");
    if (!(o->label_smoothing >= 0 && o->label_smoothing < 1))
        return nm_fail(err, NOEMA_E_ARGUMENT, "label smoothing %g: expected at least 0 and less than 1", o->label_smoothing);
    if (!known || o->shots < 0 || isnan(o->wise_ft) || o->wise_ft > 1 || o->unlocked_layers > 1 << 16)
        return nm_fail(err, NOEMA_E_ARGUMENT, "expected shots of at least 1, WiSE-FT's alpha in 0..1, `before` head, probe or none");
    if (o->train.lora_rank > 0 && (o->unlocked_layers >= 0 || o->train.lock_image))
        return nm_fail(err, NOEMA_E_ARGUMENT, "adapters are trained in all blocks: --lora-rank does not go with --unlocked-layers and --lock-image");
    if (o->train.text_mask_ratio > 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--text-mask-ratio is for training on pairs: a classifier reads no texts");
    if (o->train.siglip || o->train.lock_text)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--siglip and --lock-text are for contrastive training: a classifier trains the image tower alone");
    return NOEMA_OK;
}

noema_status noema_finetune(noema_context *ctx, const noema_finetune_options *o, noema_finetune_result *result, noema_error *err)
{
    if (!ctx || !o || o->struct_size != sizeof *o)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_finetune: a context and options are needed");
    finetune f = { .o = o, .ctx = ctx, .result = result };
    f.job = (nm_job){ .self = &f, .opened = opened, .describe = describe, .save = save, .measure = measure, .finished = finished };
    if (result)
        *result = (noema_finetune_result){ .before = NAN, .after = NAN, .wise_ft = NAN };
    noema_status s = check(o, err);
    if (s == NOEMA_OK)
        s = nm_run_training(ctx, &o->train, &f.job, err);
    nm_report_free(&f.report);
    nm_score_free(&f.last);
    nm_labelled_free(&f.train);
    nm_labelled_free(&f.val);
    nm_head_free(&f.head);
    nm_head_free(&f.start);
    json_decref(f.names);
    free(f.pick);
    return s;
}
