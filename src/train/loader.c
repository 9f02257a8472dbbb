/* loader.c - see loader.h. One background thread fills the batch after the one in use with a pool of its own. */
#define _GNU_SOURCE
#include "train/loader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "media/preprocess.h"
#include "train/ledger.h"
#include "train/rows.h"

#define MAX_TRIES 16 /* rows tried in the place of one that cannot be read */

typedef struct slot {
    int64_t step; /* -1: empty */
    float *images;
    int64_t *offsets, *labels, *group;
    int32_t *ids, *keep;
    size_t cap_ids;
    noema_status status;
    noema_error err;
} slot;

struct nm_loader {
    noema_model *model;
    const nm_dataset *rows;
    nm_loader_options o;
    int64_t steps, image_floats;
    int64_t n;      /* rows in use */
    int64_t *order; /* of the epoch order_epoch */
    int64_t order_epoch;
    nm_pool *pool;
    nm_preprocess_scratch **scratch; /* per worker */
    nm_image *pictures;
    nm_augment_scratch *aug;
    nm_row *row;
    nm_row_texts texts;
    nm_tok_scratch **tok;
    int64_t local, first; /* rows that this loader fills of every batch, and where they begin in it */
    int64_t n_keep;   /* patches that the data keeps of every picture; 0: it names none */
    int32_t *ids;     /* [batch, texts.max_ids] of the batch in preparation */
    int64_t *n_ids;   /* [batch] */
    slot slot[2];
    int64_t wanted;               /* the step the thread shall prepare; -1: none */
    bool stop;
    int64_t failures, max_skipped;
    nm_ledger ledger;
    bool ledger_open;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The rows of an epoch: shuffled by the data set, or a permutation of the picked ones. */
static void order_epoch(nm_loader *l, int64_t epoch)
{
    int64_t n = l->n;
    if (l->order_epoch == epoch)
        return;
    l->order_epoch = epoch;
    if (l->o.shuffle && !l->o.pick) {
        nm_dataset_order(l->rows, l->o.seed, (uint64_t)epoch, l->order);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        l->order[i] = l->o.pick ? l->o.pick[i] : i;
    nm_rng r;
    nm_rng_init(&r, l->o.seed, ((uint64_t)1 << 40) + (uint64_t)epoch);
    for (int64_t i = n - 1; l->o.shuffle && i > 0; i--) {
        int64_t k = (int64_t)nm_rng_below(&r, (uint64_t)i + 1), t = l->order[i];
        l->order[i] = l->order[k];
        l->order[k] = t;
    }
}

/* The reference's last resort: the centre at 224 / (224 + 32) of the shorter side. */
static nm_rect flip_centre(int width, int height)
{
    int side = (int)(224.0 / (224 + 32) * (width < height ? width : height)), x, y;
    side = side < 1 ? 1 : side;
    x = (width - side + 1) / 2, y = (height - side + 1) / 2;
    return (nm_rect){ x, y, x + side, y + side };
}

/* torchvision's RandomResizedCrop with FLIP's scale (0.5, 1) and ratio (3/4, 4/3). */
static nm_rect flip_crop(nm_rng *r, int width, int height)
{
    static const nm_augment flip = { .scale = { 0.5, 1 }, .ratio = { 3.0 / 4, 4.0 / 3 } };
    nm_rect crop;
    return nm_augment_crop(&flip, r, width, height, &crop) ? crop : flip_centre(width, height);
}

static noema_status load_picture(nm_loader *l, int worker, const nm_row *row, uint64_t stream, float *out, noema_error *err)
{
    const nm_model *m = noema_model_internal(l->model);
    nm_image *picture = &l->pictures[worker];
    if (!l->o.augment || row->tensor)
        return nm_row_tensor(row, m, l->scratch[worker], out, err);
    noema_status s = row->path ? nm_image_open(picture, row->path, NULL, err) : nm_image_decode(picture, row->bytes, row->n_bytes, row->name, NULL, err);
    if (s != NOEMA_OK)
        return s;
    nm_rng r;
    nm_rng_init(&r, l->o.seed, stream);
    if (l->o.flip_crops && m->preprocess.fit == NM_FIT_CROP_TF) {
        nm_rect c = flip_crop(&r, picture->width, picture->height);
        return nm_preprocess_run_window(&m->preprocess, l->scratch[worker], picture, c, nm_rng_uniform(&r) < 0.5f, out, err);
    }
    return nm_augment_run(&l->o.augmentation, &m->preprocess, l->scratch[worker], &l->aug[worker], picture, &r, out, err);
}

/* One of the row's captions, drawn by row and epoch, or its ids; to place i of the batch. */
static noema_status take_text(nm_loader *l, int worker, const nm_row *row, int64_t number, int64_t epoch, int64_t i, noema_error *err)
{
    nm_rng r;
    nm_rng_init(&r, l->o.seed, ((uint64_t)1 << 62) + (uint64_t)epoch * (uint64_t)nm_dataset_count(l->rows) + (uint64_t)number);
    return nm_row_ids(&l->texts, l->tok[worker], row, number, nm_rng_u64(&r), l->ids + i * l->texts.max_ids, &l->n_ids[i], err);
}

/* Place i of a step: which pass over the rows, and where in its order. With `samples` epochs begin anywhere in a pass. */
static int64_t pass_of(const nm_loader *l, int64_t step, int64_t i)
{
    return l->o.samples ? (step * l->o.batch + l->first + i) / l->n : step / l->steps;
}

static int64_t place_of(const nm_loader *l, int64_t step, int64_t i)
{
    return l->o.samples ? (step * l->o.batch + l->first + i) % l->n : step % l->steps * l->o.batch + l->first + i;
}

/* The patches that the data keeps of this row: different ones of the model's grid, as many in every row. */
static noema_status take_keep(nm_loader *l, const nm_row *row, int64_t number, int32_t *to, noema_error *err)
{
    int64_t patches = noema_model_internal(l->model)->patches;
    if (row->n_keep != l->n_keep)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld: keep: expected %lld patches as in the first row, got %lld", nm_dataset_source(l->rows),
                       (long long)number, (long long)l->n_keep, (long long)row->n_keep);
    for (int64_t k = 0; k < row->n_keep; k++) {
        bool twice = k >= patches;
        for (int64_t j = 0; !twice && j < k; j++)
            twice = row->keep[j] == row->keep[k];
        if (twice || row->keep[k] < 0 || row->keep[k] >= patches)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld: keep: expected different patches of 0 to %lld, got %d", nm_dataset_source(l->rows),
                           (long long)number, (long long)patches - 1, row->keep[k]);
        to[k] = row->keep[k];
    }
    return NOEMA_OK;
}

typedef struct fill_job { nm_loader *l; slot *s; int64_t step; int64_t *rows; } fill_job;

static void failed_job(fill_job *j, const noema_error *why)
{
    pthread_mutex_lock(&j->l->lock);
    if (j->s->status == NOEMA_OK)
        j->s->status = nm_fail(&j->s->err, why->code, "%s", why->message);
    pthread_mutex_unlock(&j->l->lock);
}

/* Counts, names and notes a row that cannot be used. */
static noema_status skipped(nm_loader *l, int64_t step, int64_t number, const nm_row *row, const noema_error *why, noema_error *err)
{
    const char *name = row->path ? row->path : row->name;
    pthread_mutex_lock(&l->lock);
    l->failures++;
    if (l->o.failed)
        l->o.failed(l->o.failed_user, name, why);
    noema_status s = nm_ledger_add(&l->ledger, step, number, name, why->message, err);
    if (s == NOEMA_OK && l->ledger.n > l->max_skipped)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: %lld rows could not be read, more than --max-skipped %lld; the last: %.300s", nm_dataset_source(l->rows),
                    (long long)l->ledger.n, (long long)l->max_skipped, why->message);
    pthread_mutex_unlock(&l->lock);
    return s;
}

/* The row that fills place i: the one in order, or the next readable one of those that another step of the pass has. */
static void fill_place(fill_job *j, int64_t i, int worker)
{
    nm_loader *l = j->l;
    nm_row *row = &l->row[worker];
    int64_t pass = pass_of(l, j->step, i), place = place_of(l, j->step, i);
    float *out = j->s->images + i * l->image_floats;
    noema_error why = NOEMA_ERROR_INIT, stop = NOEMA_ERROR_INIT;
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        int64_t number = tries ? j->rows[i] = l->order[(place + l->o.batch * tries + tries) % l->n] : j->rows[i];
        nm_err_clear(&why);
        noema_status s = nm_dataset_read(l->rows, number, row, &why);
        if (s == NOEMA_OK)
            s = load_picture(l, worker, row, ((uint64_t)j->step << 24) + (uint64_t)(l->first + i), out, &why);
        if (s == NOEMA_E_MISMATCH || s == NOEMA_E_MEMORY) { /* no fault of this row alone */
            failed_job(j, &why);
            return;
        }
        if (s == NOEMA_OK) {
            if ((!l->o.labels && take_text(l, worker, row, number, pass, i, &why) != NOEMA_OK) ||
                take_keep(l, row, number, j->s->keep + i * l->n_keep, &why) != NOEMA_OK)
                failed_job(j, &why);
            return;
        }
        if (skipped(l, j->step, number, row, &why, &stop) != NOEMA_OK) {
            failed_job(j, &stop);
            return;
        }
    }
    nm_fail(&stop, NOEMA_E_FORMAT, "%s: too many unreadable pictures (%d in a row)", nm_dataset_source(l->rows), MAX_TRIES);
    failed_job(j, &stop);
}

static void fill_places(void *arg, int64_t b, int64_t e, int worker)
{
    fill_job *j = arg;
    for (int64_t i = b; i < e; i++)
        fill_place(j, i, worker);
    nm_row_release(&j->l->row[worker]);
}

static bool reserve_ids(slot *s, size_t need)
{
    if (need <= s->cap_ids)
        return true;
    size_t cap = need + need / 2 + 1024;
    int32_t *p = nm_realloc_array(s->ids, cap, sizeof *p);
    if (!p)
        return false;
    s->ids = p;
    s->cap_ids = cap;
    return true;
}

/* Rows of one class are one group; rows without a class are one where their tokens are equal. */
static void fill_groups(nm_loader *l, slot *s, const int64_t *rows)
{
    for (int64_t i = 0; i < l->local; i++) {
        int64_t label = nm_dataset_label(l->rows, rows[i]), n = s->offsets[i + 1] - s->offsets[i];
        s->group[i] = label >= 0 ? label : -1 - i;
        for (int64_t j = 0; label < 0 && j < i; j++)
            if (s->group[j] < 0 && s->offsets[j + 1] - s->offsets[j] == n &&
                memcmp(s->ids + s->offsets[j], s->ids + s->offsets[i], (size_t)n * sizeof *s->ids) == 0) {
                s->group[i] = s->group[j];
                break;
            }
    }
}

/* The ids of all places without gaps. */
static noema_status pack_texts(nm_loader *l, slot *s, const int64_t *rows)
{
    size_t used = 0;
    for (int64_t i = 0; i < l->local; i++) {
        size_t n = (size_t)l->n_ids[i];
        s->offsets[i] = (int64_t)used;
        if (!reserve_ids(s, used + n))
            return nm_fail(&s->err, NOEMA_E_MEMORY, "out of memory: texts");
        memcpy(s->ids + used, l->ids + i * l->texts.max_ids, n * sizeof *s->ids);
        used += n;
    }
    s->offsets[l->local] = (int64_t)used;
    if (l->o.groups)
        fill_groups(l, s, rows);
    return NOEMA_OK;
}

static noema_status fill_labels(nm_loader *l, slot *s, const int64_t *rows)
{
    for (int64_t i = 0; i < l->local; i++)
        if ((s->labels[i] = nm_dataset_label(l->rows, rows[i])) < 0)
            return nm_fail(&s->err, NOEMA_E_FORMAT, "%s: row %lld has no label", nm_dataset_source(l->rows), (long long)rows[i]);
    return NOEMA_OK;
}

static void prepare(nm_loader *l, slot *s, int64_t step)
{
    nm_err_clear(&s->err);
    int64_t *rows = nm_malloc_array((size_t)l->local, sizeof *rows);
    fill_job j = { .l = l, .s = s, .step = step, .rows = rows };
    if (!rows) {
        s->status = nm_fail(&s->err, NOEMA_E_MEMORY, "out of memory: batch");
    } else {
        s->status = NOEMA_OK;
        for (int64_t i = 0; i < l->local; i++) {
            order_epoch(l, pass_of(l, step, i));
            rows[i] = l->order[place_of(l, step, i)];
        }
        nm_parallel_for(l->pool, l->local, 4, fill_places, &j);
        if (s->status == NOEMA_OK)
            s->status = l->o.labels ? fill_labels(l, s, rows) : pack_texts(l, s, rows);
    }
    free(rows);
}

static void *loader_main(void *arg)
{
    nm_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        int64_t step = l->wanted;
        if (step < 0 || l->slot[step & 1].step == step) {
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        slot *s = &l->slot[step & 1];
        s->step = -1;
        pthread_mutex_unlock(&l->lock);
        prepare(l, s, step);
        pthread_mutex_lock(&l->lock);
        s->step = step;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static noema_status check_rows(nm_loader *l, noema_error *err)
{
    if (l->n < l->o.batch)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: %lld rows are less than one batch of %lld", nm_dataset_source(l->rows), (long long)l->n,
                       (long long)l->o.batch);
    return NOEMA_OK;
}

static bool allocate(nm_loader *l)
{
    const nm_model *m = noema_model_internal(l->model);
    int workers = nm_pool_size(l->pool);
    l->image_floats = 3 * (int64_t)m->image_height * m->image_width;
    l->texts.max_ids = m->context_length > 0 ? m->context_length : 512;
    l->order = nm_malloc_array((size_t)l->n, sizeof *l->order);
    l->ids = nm_malloc_array((size_t)(l->local * l->texts.max_ids), sizeof *l->ids);
    l->n_ids = nm_malloc_array((size_t)l->local, sizeof *l->n_ids);
    l->row = calloc((size_t)workers, sizeof *l->row);
    l->tok = calloc((size_t)workers, sizeof *l->tok);
    l->scratch = calloc((size_t)workers, sizeof *l->scratch);
    l->pictures = calloc((size_t)workers, sizeof *l->pictures);
    l->aug = calloc((size_t)workers, sizeof *l->aug);
    bool ok = l->order && l->ids && l->n_ids && l->row && l->tok && l->scratch && l->pictures && l->aug;
    for (int i = 0; ok && i < workers; i++)
        ok = (l->scratch[i] = nm_preprocess_scratch_new()) != NULL && (!l->texts.tokenizer || (l->tok[i] = noema_tokenizer_scratch_new(l->texts.tokenizer)) != NULL);
    for (int i = 0; ok && i < 2; i++) {
        l->slot[i].step = -1;
        l->slot[i].images = nm_alloc((size_t)(l->local * l->image_floats) * sizeof(float));
        l->slot[i].offsets = nm_malloc_array((size_t)l->local + 1, sizeof(int64_t));
        l->slot[i].labels = nm_malloc_array((size_t)l->local, sizeof(int64_t));
        l->slot[i].keep = nm_malloc_array((size_t)(l->local * l->n_keep) + 1, sizeof(int32_t));
        l->slot[i].group = nm_malloc_array((size_t)l->local, sizeof(int64_t));
        ok = l->slot[i].images && l->slot[i].offsets && l->slot[i].labels && l->slot[i].keep && l->slot[i].group;
    }
    return ok;
}

/* Looks at the first row: a tokenizer where texts are to be read, a clear word where there are none. */
static noema_status need_texts(nm_loader *l, noema_error *err)
{
    nm_row row = { 0 };
    noema_error ignored = NOEMA_ERROR_INIT; /* its picture may be missing */
    nm_dataset_read_text(l->rows, l->o.pick ? l->o.pick[0] : 0, &row, &ignored);
    bool ids = row.ids != NULL && !l->o.captions, texts = nm_row_titles(&row) > 0 || l->o.captions;
    const char *name = nm_dataset_label_name(l->rows, row.label);
    noema_status s = NOEMA_OK;
    if (!ids && !texts && name)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: rows have a class (\"%s\") but no caption: --templates FILE makes captions of class names, --class-names FILE replaces them",
                    nm_dataset_source(l->rows), name);
    else if (!ids && !texts && row.label >= 0)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: rows have class numbers but no caption: --class-names FILE with --templates FILE makes captions of them",
                    nm_dataset_source(l->rows));
    else if (!ids) {
        l->texts.tokenizer = nm_model_tokenizer(l->model, err);
        s = l->texts.tokenizer ? NOEMA_OK : err ? err->code : NOEMA_E_MISSING;
    }
    nm_row_release(&row);
    return s;
}

/* All lists are checked before the run begins. */
static noema_status look_for_keep(nm_loader *l, noema_error *err)
{
    nm_row row = { 0 };
    noema_error ignored = NOEMA_ERROR_INIT; /* its picture may be missing */
    nm_dataset_read_text(l->rows, l->o.pick ? l->o.pick[0] : 0, &row, &ignored);
    l->n_keep = row.n_keep;
    noema_status s = NOEMA_OK;
    int32_t *list = nm_malloc_array((size_t)l->n_keep + 1, sizeof *list);
    if (!list)
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: patches to keep");
    else if (l->n_keep && noema_model_internal(l->model)->patches == 0)
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: patches to keep need a vision transformer as image tower", nm_dataset_source(l->rows));
    for (int64_t i = 0; s == NOEMA_OK && l->n_keep && i < nm_dataset_count(l->rows); i++) {
        nm_dataset_read_text(l->rows, i, &row, &ignored);
        s = take_keep(l, &row, i, list, err);
    }
    nm_row_release(&row);
    free(list);
    return s;
}

noema_status nm_loader_new(nm_loader **out, noema_model *model, const nm_dataset *rows, const nm_loader_options *o, noema_error *err)
{
    nm_loader *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: loader");
    *l = (nm_loader){ .model = model, .rows = rows, .o = *o, .order_epoch = -1, .wanted = -1, .texts = { rows, o->captions, NULL, 0 }, .n = o->pick ? o->n_pick : nm_dataset_count(rows) };
    l->local = o->batch / (o->ranks > 0 ? o->ranks : 1);
    l->first = l->local * o->rank;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    noema_status s = check_rows(l, err);
    if (s == NOEMA_OK)
        s = look_for_keep(l, err);
    if (s == NOEMA_OK && !o->labels)
        s = need_texts(l, err);
    l->pool = s == NOEMA_OK ? nm_pool_new(o->workers) : NULL;
    if (s == NOEMA_OK && (!l->pool || !allocate(l)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: loader");
    l->steps = (o->samples ? o->samples : l->n) / o->batch;
    l->max_skipped = o->max_skipped >= 0 ? o->max_skipped : l->n / 10 > 100 ? l->n / 10 : 100;
    if (s == NOEMA_OK && l->steps < 1)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%lld samples an epoch are less than one batch of %lld", (long long)o->samples, (long long)o->batch);
    if (s == NOEMA_OK && pthread_create(&l->thread, NULL, loader_main, l) != 0)
        s = nm_fail(err, NOEMA_E_IO, "cannot start the loader's thread");
    else if (s == NOEMA_OK)
        l->running = true;
    if (s != NOEMA_OK) {
        nm_loader_free(l);
        return s;
    }
    *out = l;
    return NOEMA_OK;
}

void nm_loader_free(nm_loader *l)
{
    if (!l)
        return;
    if (l->running) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    for (int i = 0; l->scratch && i < nm_pool_size(l->pool); i++) {
        nm_preprocess_scratch_free(l->scratch[i]);
        nm_image_free(&l->pictures[i]);
        nm_augment_scratch_free(&l->aug[i]);
        if (l->tok)
            noema_tokenizer_scratch_free(l->tok[i]);
    }
    for (int i = 0; i < 2; i++) {
        nm_free(l->slot[i].images);
        free(l->slot[i].offsets);
        free(l->slot[i].labels);
        free(l->slot[i].group);
        free(l->slot[i].ids);
        free(l->slot[i].keep);
    }
    nm_pool_free(l->pool);
    nm_ledger_close(&l->ledger);

    free(l->tok);
    free(l->row);
    free(l->ids);
    free(l->n_ids);
    free(l->scratch);
    free(l->pictures);
    free(l->aug);
    free(l->order);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
}

int64_t nm_loader_steps(const nm_loader *l) { return l->steps; }
int64_t nm_loader_failures(const nm_loader *l) { return l->failures; }

noema_status nm_loader_get(nm_loader *l, int64_t step, nm_pair_batch *b, double *waited_s, noema_error *err)
{
    double start = now();
    slot *s = &l->slot[step & 1];
    if (!l->ledger_open) {
        noema_status st = nm_ledger_open(&l->ledger, l->o.ledger, step, err);
        if (st != NOEMA_OK)
            return st;
        l->ledger_open = true;
    }
    pthread_mutex_lock(&l->lock);
    if (s->step != step) {
        l->wanted = step;
        pthread_cond_broadcast(&l->changed);
        while (s->step != step)
            pthread_cond_wait(&l->changed, &l->lock);
    }
    l->wanted = step + 1; /* the other slot, while the caller computes */
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    *waited_s += now() - start;
    if (s->status != NOEMA_OK)
        return nm_fail(err, s->status, "%s", s->err.message);
    *b = (nm_pair_batch){ .n = l->local, .first = l->first, .images = s->images, .texts = { .n = l->local, .offsets = s->offsets, .ids = s->ids, .pad_id = -1 },
                          .labels = l->o.labels ? s->labels : NULL, .group = l->o.groups ? s->group : NULL, .keep = { s->keep, l->n_keep } };
    return NOEMA_OK;
}
