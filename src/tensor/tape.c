/* tape.c - see tape.h. */
#include "tensor/tape.h"

#include <stdlib.h>
#include <string.h>

typedef struct node { nm_backward_fn *fn; void *saved; nm_grad *out; } node;
typedef struct chunk { float *data; size_t n; bool used; } chunk;

struct nm_tape {
    node *nodes;
    size_t n, cap;
    chunk *chunks; /* gradient buffers, reused by size */
    size_t n_chunks, cap_chunks;
};

nm_tape *nm_tape_new(void) { return calloc(1, sizeof(nm_tape)); }

void nm_tape_free(nm_tape *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_chunks; i++)
        nm_free(t->chunks[i].data);
    free(t->nodes);
    free(t->chunks);
    free(t);
}

void nm_tape_clear(nm_tape *t)
{
    t->n = 0;
    for (size_t i = 0; i < t->n_chunks; i++)
        t->chunks[i].used = false;
}

/* The smallest free chunk that is large enough and not wastefully larger; else a new one. Not initialised. */
static float *take_chunk(nm_tape *t, size_t n)
{
    chunk *best = NULL;
    for (size_t i = 0; i < t->n_chunks; i++) {
        chunk *c = &t->chunks[i];
        if (!c->used && c->n >= n && c->n <= n + n / 2 + 1024 && (!best || c->n < best->n))
            best = c;
    }
    if (!best) {
        if (t->n_chunks == t->cap_chunks) {
            size_t cap = t->cap_chunks ? 2 * t->cap_chunks : 64;
            chunk *c = nm_realloc_array(t->chunks, cap, sizeof *c);
            if (!c)
                return NULL;
            t->chunks = c;
            t->cap_chunks = cap;
        }
        float *data = nm_alloc(n * sizeof *data);
        if (!data)
            return NULL;
        best = &t->chunks[t->n_chunks++];
        *best = (chunk){ data, n, false };
    }
    best->used = true;
    return best->data;
}

static void give_chunk(nm_tape *t, const float *data)
{
    for (size_t i = 0; i < t->n_chunks; i++)
        if (t->chunks[i].data == data)
            t->chunks[i].used = false;
}

void *nm_save_(nm_run *r, const void *value, size_t bytes)
{
    void *p = nm_scratch(r, bytes);
    if (p)
        memcpy(p, value, bytes);
    return p;
}

static nm_grad *new_grad(nm_run *r, const nm_tensor *t)
{
    return NM_SAVE(r, nm_grad, .base = t->data, .n = (size_t)nm_numel(t));
}

void nm_track(nm_run *r, nm_tensor *y)
{
    if (r->tape && y->data && !y->grad)
        y->grad = new_grad(r, y);
}

void nm_record(nm_run *r, nm_tensor *y, nm_backward_fn *fn, void *saved)
{
    nm_tape *t = r->tape;
    if (!t || !y->data || !saved || !nm_run_ok(r))
        return;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 256;
        node *p = nm_realloc_array(t->nodes, cap, sizeof *p);
        if (!p) {
            nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: tape");
            return;
        }
        t->nodes = p;
        t->cap = cap;
    }
    t->nodes[t->n++] = (node){ fn, saved, y->grad };
}

void nm_want_grad(nm_run *r, nm_tensor *x)
{
    if (!r->tape || !x->data)
        return;
    x->grad = new_grad(r, x);
    if (x->grad)
        x->grad->keep = true;
}

static float *at_view(const nm_grad *g, const nm_tensor *t)
{
    return g->base ? g->data + ((const char *)t->data - (const char *)g->base) / (ptrdiff_t)nm_dtype_size(t->dtype) : g->data;
}

/* *fresh: the buffer was made just now and holds nothing. */
static bool ensure(nm_run *r, nm_grad *g, bool *fresh)
{
    *fresh = !g->data;
    if (*fresh && !(g->data = take_chunk(r->tape, g->n)))
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradients");
    return g->data != NULL;
}

float *nm_grad_data(nm_run *r, const nm_tensor *t)
{
    nm_grad *g = t->grad;
    bool fresh;
    if (!g || !r->tape || !ensure(r, g, &fresh))
        return NULL;
    if (fresh)
        memset(g->data, 0, g->n * sizeof *g->data);
    return at_view(g, t);
}

float *nm_grad_out(nm_run *r, const nm_tensor *t, bool *add)
{
    nm_grad *g = t->grad;
    bool fresh;
    *add = true;
    if (!g || (size_t)nm_numel(t) != g->n || !nm_is_contiguous(t))
        return nm_grad_data(r, t);
    if (!r->tape || !ensure(r, g, &fresh))
        return NULL;
    *add = !fresh;
    return g->data;
}

void nm_grad_pass(nm_run *r, const nm_tensor *from, const nm_tensor *to)
{
    nm_grad *f = from->grad, *g = to->grad;
    if (!g || !f || !f->data)
        return;
    if (!g->data && !g->keep && !f->keep && f->n == g->n && (size_t)nm_numel(to) == g->n && nm_is_contiguous(to)) {
        g->data = f->data;
        f->data = NULL;
        return;
    }
    float *d = nm_grad_data(r, to);
    if (d)
        r->kn->elementwise.add(nm_numel(to), d, at_view(f, from), d);
}

const float *nm_grad_read(const nm_tensor *t)
{
    const nm_grad *g = t->grad;
    if (!g || !g->data)
        return NULL;
    return at_view(g, t);
}

/* Scratch that a backward carves is given back after it; what it made the gradients point to lives in chunks. A backward may record and
 * run records of its own behind the one that it belongs to. */
static void backward_to(nm_run *r, size_t first)
{
    nm_tape *t = r->tape;
    for (size_t i = t->n; i-- > first && nm_run_ok(r);) {
        node nd = t->nodes[i];
        nm_arena_mark m = nm_arena_get_mark(r->arena);
        t->n = i;
        r->backwards++;
        if (nd.out && nd.out->data)
            nd.fn(r, nd.saved);
        if (r->after_backward)
            r->after_backward(r, r->after_user);
        nm_arena_rewind(r->arena, m);
        bool shared = i > first && t->nodes[i - 1].out == nd.out; /* an in-place operator continues the same value */
        if (nd.out && nd.out->data && !nd.out->keep && !shared) {
            give_chunk(t, nd.out->data);
            nd.out->data = NULL;
        }
    }
    t->n = first;
}

void nm_backward(nm_run *r) { backward_to(r, 0); }

/* ---- checkpointing ---- */

typedef struct segment { nm_tensor x, y; nm_segment_fn *fn; void *arg; nm_rng rng; } segment;

static void segment_backward(nm_run *r, void *saved)
{
    segment *s = saved;
    nm_tape *t = r->tape;
    size_t first = t->n;
    nm_rng rng = r->rng;
    r->rng = s->rng;
    nm_tensor y = s->fn(r, s->x, s->arg);
    r->rng = rng;
    nm_grad_pass(r, &s->y, &y);
    if (nm_run_ok(r))
        backward_to(r, first);
}

nm_tensor nm_checkpoint(nm_run *r, nm_tensor x, nm_segment_fn *fn, void *arg)
{
    nm_tape *t = r->tape;
    if (!t || !x.data || !nm_run_ok(r))
        return fn(r, x, arg);
    nm_shape shape = { .ndim = x.ndim };
    memcpy(shape.dim, x.shape, sizeof shape.dim);
    nm_tensor y = nm_new(r, x.dtype, shape);
    nm_rng rng = r->rng;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    size_t first = t->n;
    bool rehearsal = r->rehearsal;
    r->rehearsal = true;
    nm_tensor inner = fn(r, x, arg);
    r->rehearsal = rehearsal;
    t->n = first;
    if (!nm_run_ok(r) || !inner.data)
        return (nm_tensor){ 0 };
    memcpy(y.data, inner.data, (size_t)nm_numel(&y) * nm_dtype_size(y.dtype));
    nm_arena_rewind(r->arena, mark);
    if (inner.grad) /* else nothing inside wants a gradient */
        NM_RECORD(r, y, segment_backward, segment, x, y, fn, arg, rng);
    return y;
}

size_t nm_tape_bytes(const nm_tape *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_chunks; i++)
        n += t->chunks[i].n * sizeof(float);
    return n;
}

size_t nm_tape_mallocs(const nm_tape *t) { return t->n_chunks; }
