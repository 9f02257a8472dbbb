/* gradsum.c - see gradsum.h. */
#include "train/gradsum.h"

#include <stdlib.h>
#include <string.h>

#include "nn/ops.h"

typedef struct entry { nm_train_param *p; uint64_t last; size_t place; bool started; } entry; /* last: number of the backward that completes it */

struct nm_gradsum {
    nm_ranks ranks;
    entry *e; /* by `last`, then place */
    size_t n, next;
    uint64_t backwards; /* of the step that `last` is from; 0: not known yet */
    bool failed;
};

nm_gradsum *nm_gradsum_new(const nm_ranks *ranks, nm_train_param *params, size_t n)
{
    nm_gradsum *g = calloc(1, sizeof *g);
    if (!g || !(g->e = calloc(n ? n : 1, sizeof *g->e))) {
        free(g);
        return NULL;
    }
    g->ranks = *ranks;
    g->n = n;
    for (size_t i = 0; i < n; i++)
        g->e[i] = (entry){ .p = &params[i], .place = i };
    return g;
}

void nm_gradsum_free(nm_gradsum *g)
{
    if (!g)
        return;
    free(g->e);
    free(g);
}

static void start(nm_gradsum *g, entry *e)
{
    e->started = true;
    if (!e->p->grad.data || e->p->buffer)
        return;
    if (e->p->grad.stale) /* nothing was added in this step */
        memset(e->p->grad.data, 0, e->p->n * sizeof(float));
    e->p->grad.stale = false;
    e->p->grad.busy = true;
    g->failed = !nm_ranks_start_sum(&g->ranks, e->p->grad.data, (int64_t)e->p->n) || g->failed;
}

/* After each backward: what it completed is on its way. */
static void after_backward(nm_run *r, void *user)
{
    nm_gradsum *g = user;
    while (g->backwards && g->next < g->n && g->e[g->next].last <= r->backwards)
        start(g, &g->e[g->next++]);
    nm_ranks_progress(&g->ranks);
}

void nm_gradsum_begin(nm_gradsum *g, nm_run *r)
{
    r->backwards = 0;
    r->after_backward = after_backward;
    r->after_user = g;
    g->next = 0;
    g->failed = false;
    for (size_t i = 0; i < g->n; i++)
        g->e[i].started = false;
}

static int by_last(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return x->last != y->last ? (x->last > y->last) - (x->last < y->last) : (x->place > y->place) - (x->place < y->place);
}

static void average(void *arg, int64_t b, int64_t e, int worker)
{
    const nm_gradsum *g = arg;
    float share = 1 / (float)g->ranks.size;
    (void)worker;
    for (int64_t i = b; i < e; i++)
        for (size_t k = 0; g->e[i].p->grad.data && !g->e[i].p->buffer && k < g->e[i].p->n; k++)
            g->e[i].p->grad.data[k] *= share;
}

void nm_gradsum_end(nm_gradsum *g, nm_run *r)
{
    r->after_backward = NULL;
    for (; g->next < g->n; g->next++)
        start(g, &g->e[g->next]);
    nm_ranks_wait(&g->ranks);
    nm_parallel_for(r->pool, (int64_t)g->n, 1, average, g);
    bool same = g->backwards == r->backwards;
    for (size_t i = 0; i < g->n; i++) {
        g->e[i].p->grad.busy = false;
        if (!same)
            g->e[i].last = g->e[i].p->grad.touched;
    }
    g->backwards = r->backwards;
    if (!same)
        qsort(g->e, g->n, sizeof *g->e, by_last);
    if (g->failed)
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: sums of gradients");
}
