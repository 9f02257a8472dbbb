/* intake.c - decoding and preprocessing beside computation. Two batches of tensors: while the caller computes one, workers fill
 * the other; a worker waits when both are full, the caller when the next is not yet. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "models/handle.h"

struct nm_intake {
    int n_workers;
    nm_preprocess_scratch **scratch; /* [n_workers] */
    nm_image *own;                   /* [n_workers]: pictures made from memory */
    float *tensors;                  /* [2, batch, floats] */
    size_t cap;
    bool *ok;                        /* [2, batch] */
    size_t cap_ok;
};

nm_intake *nm_intake_new(int workers)
{
    nm_intake *in = calloc(1, sizeof *in);
    if (!in)
        return NULL;
    in->n_workers = workers < 1 ? 1 : workers;
    in->scratch = calloc((size_t)in->n_workers, sizeof *in->scratch);
    in->own = calloc((size_t)in->n_workers, sizeof *in->own);
    bool ok = in->scratch && in->own;
    for (int i = 0; ok && i < in->n_workers; i++)
        ok = (in->scratch[i] = nm_preprocess_scratch_new()) != NULL;
    if (!ok) {
        nm_intake_free(in);
        return NULL;
    }
    return in;
}

void nm_intake_free(nm_intake *in)
{
    if (!in)
        return;
    for (int i = 0; i < in->n_workers; i++) {
        if (in->scratch)
            nm_preprocess_scratch_free(in->scratch[i]);
        if (in->own)
            nm_image_free(&in->own[i]);
    }
    free(in->scratch);
    free(in->own);
    nm_free(in->tensors);
    free(in->ok);
    free(in);
}

typedef struct shared {
    nm_intake *in;
    nm_intake_load_fn *load;
    void *arg;
    noema_error *errors, *err;
    size_t n, batch, floats;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next;          /* first picture that nobody has taken */
    size_t ready[2];      /* pictures done in each half */
    size_t consumed;      /* batches computed */
    bool stop;            /* a failure ends everything */
} shared;

typedef struct worker { shared *s; int index; pthread_t thread; } worker;

static size_t batch_size(const shared *s, size_t b) { return s->n - b * s->batch < s->batch ? s->n - b * s->batch : s->batch; }

/* One picture; a bad one fails alone when the caller keeps errors, else it ends the run. */
static bool load_one(shared *s, size_t i, int index)
{
    size_t slot = i / s->batch % 2 * s->batch + i % s->batch;
    noema_error e = NOEMA_ERROR_INIT;
    bool ok = s->load(s->arg, i, s->in->scratch[index], &s->in->own[index], s->in->tensors + slot * s->floats, &e) == NOEMA_OK;
    s->in->ok[slot] = ok;
    if (!ok) /* finite numbers for the rows that nobody will read */
        memset(s->in->tensors + slot * s->floats, 0, s->floats * sizeof(float));
    if (!ok && s->errors)
        s->errors[i] = e;
    if (ok || s->errors)
        return true;
    pthread_mutex_lock(&s->lock);
    nm_fail(s->err, e.code, "%s", e.message);
    pthread_mutex_unlock(&s->lock);
    return false;
}

static void *work(void *arg)
{
    worker *w = arg;
    shared *s = w->s;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && s->next < s->n && s->next / s->batch >= s->consumed + 2)
            pthread_cond_wait(&s->changed, &s->lock);
        if (s->stop || s->next >= s->n)
            break;
        size_t i = s->next++;
        pthread_mutex_unlock(&s->lock);
        bool ok = load_one(s, i, w->index);
        pthread_mutex_lock(&s->lock);
        size_t b = i / s->batch;
        s->stop |= !ok;
        if (++s->ready[b % 2] == batch_size(s, b) || s->stop)
            pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static bool reserve(nm_intake *in, size_t batch, size_t floats)
{
    size_t need = 2 * batch * floats, flags = 2 * batch;
    if (need > in->cap) {
        nm_free(in->tensors);
        in->tensors = nm_alloc(need * sizeof(float));
        in->cap = in->tensors ? need : 0;
    }
    if (flags > in->cap_ok) {
        free(in->ok);
        in->ok = nm_malloc_array(flags, sizeof *in->ok);
        in->cap_ok = in->ok ? flags : 0;
    }
    return in->tensors && in->ok;
}

/* Computes batch after batch as they become full. */
static noema_status consume(shared *s, nm_intake_batch_fn *compute)
{
    noema_status st = NOEMA_OK;
    for (size_t b = 0; b * s->batch < s->n && st == NOEMA_OK; b++) {
        size_t half = b % 2, size = batch_size(s, b);
        pthread_mutex_lock(&s->lock);
        while (!s->stop && s->ready[half] < size)
            pthread_cond_wait(&s->changed, &s->lock);
        bool stop = s->stop;
        pthread_mutex_unlock(&s->lock);
        if (stop)
            return s->err ? s->err->code : NOEMA_E_IO;
        st = compute(s->arg, b * s->batch, size, s->in->tensors + half * s->batch * s->floats, s->in->ok + half * s->batch, s->err);
        pthread_mutex_lock(&s->lock);
        s->ready[half] = 0;
        s->consumed++;
        s->stop |= st != NOEMA_OK;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
    }
    return st;
}

/* A single batch needs no threads of its own when it is one picture. */
static noema_status run_alone(shared *s, nm_intake_batch_fn *compute)
{
    if (!load_one(s, 0, 0))
        return s->err ? s->err->code : NOEMA_E_IO;
    return compute(s->arg, 0, 1, s->in->tensors, s->in->ok, s->err);
}

noema_status nm_intake_run(nm_intake *in, size_t n, size_t batch, size_t tensor_floats, nm_intake_load_fn *load, nm_intake_batch_fn *compute, void *arg,
                           noema_error *errors, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    if (n == 0)
        return NOEMA_OK;
    if (batch > n)
        batch = n;
    if (!reserve(in, batch, tensor_floats))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: a batch of %zu pictures", batch);
    shared s = { .in = in, .load = load, .arg = arg, .errors = errors, .err = err ? err : &local, .n = n, .batch = batch, .floats = tensor_floats,
                 .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    if (n == 1)
        return run_alone(&s, compute);
    worker workers[64];
    int count = in->n_workers < 64 ? in->n_workers : 64, started = 0;
    while (started < count && (size_t)started < n) {
        workers[started] = (worker){ .s = &s, .index = started };
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0)
            break;
        started++;
    }
    noema_status st = started ? consume(&s, compute) : nm_fail(err, NOEMA_E_MEMORY, "cannot start a decoding thread");
    pthread_mutex_lock(&s.lock);
    s.stop = true;
    pthread_cond_broadcast(&s.changed);
    pthread_mutex_unlock(&s.lock);
    for (int i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    return st;
}
