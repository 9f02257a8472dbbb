/* validate.c - see validate.h. Source: mlfoundations/open_clip src/open_clip_train/train.py (evaluate), metrics.py (get_clip_metrics). */
#include "train/validate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/stats.h"
#include "nn/ops.h"
#include "train/loss.h"
#include "train/pair_ranks.h"
#include "train/rows.h"

enum { BLOCK = 256, TEXT_IDS = 4096 /* of one forward */ };

struct nm_validation {
    noema_model *model;
    nm_dataset *rows;
    nm_class_texts *captions;
    nm_row_texts texts;
    int64_t n, batch;
    int64_t classes; /* 0: pairs */
    const char *const *templates;
    size_t n_templates;
    int64_t skipped;
    noema_error first;
};

/* One run over the rows. */
typedef struct pass {
    nm_validation *v;
    noema_session *s;
    nm_trainer *t;
    int64_t dim;
    double scale;      /* logarithm */
    noema_error *why;  /* [BLOCK] */
    noema_train_validation *out;
    noema_error *err;
} pass;

/* ---- opening ---- */

static noema_status need_labels(nm_validation *v, const noema_train_options *o, noema_error *err)
{
    if (o->captions) {
        noema_status s = nm_class_texts_open(&v->captions, o->captions, v->rows, err);
        if (s != NOEMA_OK)
            return s;
    }
    v->classes = nm_dataset_classes(v->rows);
    v->templates = o->templates;
    v->n_templates = o->n_templates;
    for (int64_t k = 0; k < v->classes && !v->captions; k++)
        if (!nm_dataset_label_name(v->rows, k))
            return nm_fail(err, NOEMA_E_ARGUMENT, "%s: rows have neither captions nor class names: --class-names FILE gives the names", nm_dataset_source(v->rows));
    for (int64_t i = 0; i < v->n; i++)
        if (nm_dataset_label(v->rows, i) < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld has no label", nm_dataset_source(v->rows), (long long)i);
    return NOEMA_OK;
}

static noema_status look_at_rows(nm_validation *v, const noema_train_options *o, noema_error *err)
{
    nm_row row = { 0 };
    noema_error ignored = NOEMA_ERROR_INIT; /* its picture may be missing */
    nm_dataset_read_text(v->rows, 0, &row, &ignored);
    bool ids = row.ids != NULL, own = row.n_titles > 0, label = row.label >= 0;
    nm_row_release(&row);
    noema_status s = NOEMA_OK;
    if (o->captions || (!ids && !own && label))
        s = need_labels(v, o, err);
    else if (!ids && !own)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: rows have neither captions nor labels: there is nothing to validate with", nm_dataset_source(v->rows));
    if (s == NOEMA_OK && !ids) {
        v->texts.tokenizer = nm_model_tokenizer(v->model, err);
        s = v->texts.tokenizer ? NOEMA_OK : err ? err->code : NOEMA_E_MISSING;
    }
    return s;
}

/* Tensors of another size than the model's are no fault of one row: better found now than after an epoch. */
static noema_status try_picture(const nm_validation *v, noema_error *err)
{
    const nm_model *m = v->model->m;
    nm_row row = { 0 };
    noema_error why = NOEMA_ERROR_INIT;
    nm_preprocess_scratch *scratch = nm_preprocess_scratch_new();
    float *x = nm_malloc_array((size_t)m->image_height, 3 * (size_t)m->image_width * sizeof *x);
    noema_status s = scratch && x ? nm_dataset_read(v->rows, 0, &row, &why) : nm_fail(&why, NOEMA_E_MEMORY, "out of memory: validation");
    if (s == NOEMA_OK)
        s = nm_row_tensor(&row, m, scratch, x, &why);
    nm_row_release(&row);
    nm_preprocess_scratch_free(scratch);
    free(x);
    return s == NOEMA_E_MISMATCH || s == NOEMA_E_MEMORY ? nm_fail(err, s, "%s: %s", nm_dataset_source(v->rows), why.message) : NOEMA_OK;
}

noema_status nm_validation_open(nm_validation **out, noema_model *model, const noema_train_options *o, noema_error *err)
{
    nm_validation *v = calloc(1, sizeof *v);
    nm_dataset_options rows = nm_rows_options(o);
    *out = NULL;
    if (!v)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: validation");
    v->model = model;
    v->batch = o->batch_size;
    noema_status s = nm_dataset_open(&v->rows, o->val_data, &rows, err);
    if (s == NOEMA_OK) {
        v->n = nm_dataset_count(v->rows);
        v->n = o->val_num_samples > 0 && o->val_num_samples < v->n ? o->val_num_samples : v->n;
        v->texts = (nm_row_texts){ .rows = v->rows, .max_ids = model->m->context_length > 0 ? model->m->context_length : 512 };
        s = look_at_rows(v, o, err);
    }
    if (s == NOEMA_OK)
        s = try_picture(v, err);
    if (s != NOEMA_OK) {
        nm_validation_free(v);
        return s;
    }
    *out = v;
    return NOEMA_OK;
}

void nm_validation_free(nm_validation *v)
{
    if (!v)
        return;
    nm_class_texts_free(v->captions);
    nm_dataset_free(v->rows);
    free(v);
}

static void skip(nm_validation *v, const noema_error *why)
{
    if (!v->skipped++)
        nm_fail(&v->first, why->code, "%s", why->message);
}

/* ---- vectors ---- */

/* Pictures of rows [first, first + n), n <= BLOCK, where ok; it becomes false where one cannot be read. */
static noema_status images(pass *p, int64_t first, int64_t n, float *x, bool *ok)
{
    noema_status s = nm_rows_embed(p->s, p->v->rows, first, n, NOEMA_NORMALIZE, x, p->why, p->err);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++)
        if (ok[i] && p->why[i].code != NOEMA_OK) {
            skip(p->v, &p->why[i]);
            ok[i] = false;
        }
    return s;
}

typedef struct text_room {
    nm_tok_scratch *tok;
    int32_t *ids;                         /* [TEXT_IDS + max_ids] */
    int64_t offsets[BLOCK + 1], to[BLOCK]; /* where each text of the batch goes */
    int64_t n;
    float *out;                           /* [BLOCK, dim] */
} text_room;

/* The batch's vectors to their places. */
static noema_status flush(pass *p, text_room *room, float *x)
{
    const nm_model *m = p->v->model->m;
    nm_texts t = { .n = room->n, .offsets = room->offsets, .ids = room->ids, .pad_id = -1 };
    nm_run *r = nm_session_run(p->s);
    noema_status s = room->n ? nm_session_take(p->s, m->family->encode_text(r, m, &t), t.n, NOEMA_NORMALIZE, room->out, p->err) : NOEMA_OK;
    for (int64_t i = 0; i < room->n && s == NOEMA_OK; i++)
        memcpy(x + room->to[i] * p->dim, room->out + i * p->dim, (size_t)p->dim * sizeof *x);
    room->n = 0;
    return s;
}

static noema_status some_texts(pass *p, text_room *room, int64_t first, int64_t n, float *x, bool *ok)
{
    nm_row row = { 0 };
    noema_status s = NOEMA_OK;
    for (int64_t i = 0, got; i < n && s == NOEMA_OK; i++) {
        noema_error why = NOEMA_ERROR_INIT, ignored = NOEMA_ERROR_INIT; /* the picture is read later */
        nm_dataset_read_text(p->v->rows, first + i, &row, &ignored);
        int64_t at = room->offsets[room->n];
        ok[i] = nm_row_ids(&p->v->texts, room->tok, &row, first + i, 0, room->ids + at, &got, &why) == NOEMA_OK;
        if (!ok[i]) {
            skip(p->v, &why);
            continue;
        }
        room->to[room->n++] = i;
        room->offsets[room->n] = at + got;
        if (at + got >= TEXT_IDS)
            s = flush(p, room, x);
    }
    nm_row_release(&row);
    return s == NOEMA_OK ? flush(p, room, x) : s;
}

/* ---- pairs ---- */

/* Both vectors of every row, those that cannot be read left out: *n of them. */
static noema_status pair_vectors(pass *p, float *x[2], int64_t *n)
{
    nm_validation *v = p->v;
    text_room room = { .ids = nm_malloc_array((size_t)(TEXT_IDS + v->texts.max_ids), sizeof *room.ids),
                       .out = nm_malloc_array(BLOCK, (size_t)p->dim * sizeof *room.out),
                       .tok = v->texts.tokenizer ? noema_tokenizer_scratch_new(v->texts.tokenizer) : NULL };
    bool ok[BLOCK], room_ok = room.ids && room.out && (room.tok || !v->texts.tokenizer);
    noema_status s = room_ok ? NOEMA_OK : nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: validation");
    *n = 0;
    for (int64_t first = 0; first < v->n && s == NOEMA_OK; first += BLOCK) {
        int64_t rows = v->n - first < BLOCK ? v->n - first : BLOCK;
        float *to[2] = { x[0] + *n * p->dim, x[1] + *n * p->dim };
        s = some_texts(p, &room, first, rows, to[1], ok);
        if (s == NOEMA_OK)
            s = images(p, first, rows, to[0], ok);
        for (int64_t i = 0, kept = 0; i < rows && s == NOEMA_OK; i++) {
            if (!ok[i])
                continue;
            for (int k = 0; k < 2; k++)
                memmove(to[k] + kept * p->dim, to[k] + i * p->dim, (size_t)p->dim * sizeof(float));
            kept++;
            ++*n;
        }
    }
    noema_tokenizer_scratch_free(room.tok);
    free(room.ids);
    free(room.out);
    return s;
}

/* Mean over the rows of InfoNCE in batches of the run's size, the last one as it comes. */
static noema_status pair_loss(pass *p, float *const x[2], int64_t n)
{
    double sum = 0;
    for (int64_t at = 0; at < n; at += p->v->batch) {
        int64_t rows = n - at < p->v->batch ? n - at : p->v->batch;
        nm_run *r = nm_session_run(p->s);
        size_t bytes = (size_t)(2 * rows * p->dim) * sizeof(float);
        float *d = nm_scratch(r, bytes);
        if (d) {
            memset(d, 0, bytes);
            sum += nm_clip_loss(r, rows, p->dim, x[0] + at * p->dim, x[1] + at * p->dim, p->scale, 0, rows, d, d + rows * p->dim).loss * (double)rows;
        }
        if (!nm_run_ok(r))
            return nm_fail(p->err, r->err.code, "%s", r->err.message);
    }
    p->out->loss = sum / (double)n;
    return NOEMA_OK;
}

static noema_status figures(noema_train_ranks *to, int64_t n, const int64_t *rank, noema_error *err)
{
    static const int64_t k[] = { 1, 5, 10 };
    nm_rank_figures f;
    noema_status s = nm_rank_summary(&f, n, rank, 3, k, err);
    memcpy(to->recall, f.recall, sizeof to->recall);
    to->mean = f.mean;
    to->median = floor(f.median); /* as open_clip */
    return s;
}

static noema_status pairs(pass *p)
{
    size_t n = (size_t)p->v->n, floats;
    float *x[2] = { NULL, NULL };
    int64_t *rank = nm_malloc_array(n, 2 * sizeof *rank), used = 0;
    if (nm_mul_size(n, (size_t)p->dim, &floats))
        for (int k = 0; k < 2; k++)
            x[k] = nm_malloc_array(floats, sizeof(float));
    noema_status s = rank && x[0] && x[1] ? NOEMA_OK : nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: vectors of %zu pairs", n);
    if (s == NOEMA_OK)
        s = pair_vectors(p, x, &used);
    p->out->rows = used;
    if (s == NOEMA_OK && used)
        s = pair_loss(p, x, used);
    if (s == NOEMA_OK && used) {
        nm_run r;
        nm_arena_reset(p->s->arena);
        nm_run_init(&r, p->s->run.kn, p->s->run.pool, p->s->arena, NM_F32);
        nm_pair_ranks(&r, used, p->dim, x[0], x[1], rank, rank + n);
        s = nm_run_ok(&r) ? figures(&p->out->image_to_text, used, rank, p->err) : nm_fail(p->err, r.err.code, "%s", r.err.message);
        if (s == NOEMA_OK)
            s = figures(&p->out->text_to_image, used, rank + n, p->err);
    }
    free(rank);
    free(x[0]);
    free(x[1]);
    return s;
}

/* ---- classes ---- */

/* A class's vector: the mean of its texts' unit vectors, of length 1. Classes without rows may lack captions: zeros, which no picture is near. */
static noema_status class_vectors(pass *p, float *c)
{
    static const char *const itself = "{}";
    nm_validation *v = p->v;
    noema_status s = NOEMA_OK;
    for (int64_t k = 0; k < v->classes && s == NOEMA_OK; k++) {
        size_t n = v->n_templates;
        const char *const *texts = v->captions ? nm_class_texts_of(v->captions, k, &n) : v->templates;
        const char *name = v->captions ? itself : nm_dataset_label_name(v->rows, k);
        if (n || !v->captions)
            s = noema_class_vectors(p->s, 1, &name, n, texts, c + k * p->dim, p->err);
    }
    return s;
}

/* Rows [first, first + n): the sum of their losses, and how many have the right class first or among five. */
static noema_status classify(pass *p, const float *c, int64_t first, int64_t n, float *x, int64_t hits[2], double *loss)
{
    nm_validation *v = p->v;
    bool ok[BLOCK];
    int64_t label[BLOCK];
    memset(ok, true, sizeof ok);
    noema_status s = images(p, first, n, x, ok);
    nm_run r;
    nm_arena_reset(p->s->arena);
    nm_run_init(&r, p->s->run.kn, p->s->run.pool, p->s->arena, NM_F32);
    float *logits = s == NOEMA_OK ? nm_scratch(&r, (size_t)(n * v->classes) * sizeof *logits) : NULL;
    if (logits)
        nm_gradient_product(&r, n, v->classes, p->dim, x, NM_F32, p->dim, c, NM_F32, p->dim, false, logits, v->classes, false);
    if (s == NOEMA_OK && !nm_run_ok(&r))
        s = nm_fail(p->err, r.err.code, "%s", r.err.message);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        float *z = logits + i * v->classes;
        int64_t own = nm_dataset_label(v->rows, first + i), rank = 0;
        label[i] = ok[i] ? own : NM_NO_LABEL;
        for (int64_t k = 0; k < v->classes; k++)
            rank += z[k] > z[own] || (z[k] == z[own] && k < own);
        for (int64_t k = 0; k < v->classes; k++)
            z[k] = ok[i] ? (float)(exp(p->scale) * (double)z[k]) : 0;
        p->out->rows += ok[i];
        hits[0] += ok[i] && rank < 1;
        hits[1] += ok[i] && rank < 5;
    }
    if (s == NOEMA_OK)
        *loss += nm_cross_entropy_sum(logits, label, n, v->classes, 0, NULL, 1, NULL);
    return s;
}

static noema_status zero_shot(pass *p)
{
    nm_validation *v = p->v;
    size_t floats = 0;
    bool fits = nm_mul_size((size_t)v->classes, (size_t)p->dim, &floats);
    float *c = fits ? nm_calloc(floats, sizeof *c) : NULL, *x = nm_malloc_array(BLOCK, (size_t)p->dim * sizeof *x);
    int64_t hits[2] = { 0 };
    double loss = 0;
    noema_status s = c && x ? class_vectors(p, c) : nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: vectors of %lld classes", (long long)v->classes);
    for (int64_t first = 0; first < v->n && s == NOEMA_OK; first += BLOCK)
        s = classify(p, c, first, v->n - first < BLOCK ? v->n - first : BLOCK, x, hits, &loss);
    double n = (double)p->out->rows;
    p->out->classes = v->classes;
    if (p->out->rows) {
        p->out->loss = loss / n;
        p->out->top1 = (double)hits[0] / n;
        p->out->top5 = (double)hits[1] / n;
    }
    nm_free(c);
    free(x);
    return s;
}

noema_status nm_validation_run(nm_validation *v, nm_trainer *t, noema_train_validation *out, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    pass p = { .v = v, .t = t, .dim = v->model->m->embed_dim, .out = out, .err = err ? err : &local };
    *out = (noema_train_validation){ .loss = NAN, .averaged = t->o.ema_decay > 0 };
    v->skipped = 0;
    nm_err_clear(&v->first);
    p.why = calloc(BLOCK, sizeof *p.why);
    noema_status s = p.why ? noema_session_create(&p.s, v->model, p.err) : nm_fail(p.err, NOEMA_E_MEMORY, "out of memory: validation");
    if (s == NOEMA_OK) {
        nm_run_init(&p.s->run, p.s->run.kn, p.s->run.pool, p.s->arena, t->o.compute);
        nm_trainer_swap_averages(t);
        p.scale = nm_trainer_log_scale(t);
        s = v->classes ? zero_shot(&p) : pairs(&p);
        nm_trainer_swap_averages(t);
    }
    if (s == NOEMA_OK && !out->rows)
        s = nm_fail(p.err, NOEMA_E_FORMAT, "%s: none of %lld rows can be used; the first: %s", nm_dataset_source(v->rows), (long long)v->n, v->first.message);
    out->skipped = v->skipped;
    out->first_skipped = v->skipped ? &v->first : NULL;
    noema_session_free(p.s);
    free(p.why);
    return s;
}

/* ---- in files ---- */

static void put_ranks(nm_buf *b, const char *name, const noema_train_ranks *r)
{
    nm_buf_printf(b, ",\"%s_mean_rank\":%.9g,\"%s_median_rank\":%.9g,\"%s_R@1\":%.9g,\"%s_R@5\":%.9g,\"%s_R@10\":%.9g", name, r->mean, name, r->median, name,
                  r->recall[0], name, r->recall[1], name, r->recall[2]);
}

bool nm_validation_json(const noema_train_validation *x, nm_buf *b)
{
    const char *how = x->head ? "" : "zeroshot-";
    nm_buf_puts(b, x->classes ? "{\"val_loss\":" : "{\"clip_val_loss\":");
    if (isfinite(x->loss))
        nm_buf_printf(b, "%.9g", x->loss);
    else
        nm_buf_puts(b, "null");
    if (x->classes)
        nm_buf_printf(b, ",\"%sval-top1\":%.9g,\"%sval-top5\":%.9g,\"classes\":%lld", how, x->top1, how, x->top5, (long long)x->classes);
    else {
        put_ranks(b, "image_to_text", &x->image_to_text);
        put_ranks(b, "text_to_image", &x->text_to_image);
    }
    return nm_buf_printf(b, ",\"epoch\":%lld,\"num_samples\":%lld,\"skipped\":%lld}", (long long)x->epoch, (long long)x->rows, (long long)x->skipped);
}
