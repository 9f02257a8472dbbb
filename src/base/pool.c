/* pool.c - see pool.h. Workers spin briefly (a forward issues hundreds of loops within milliseconds), then sleep. */
#define _GNU_SOURCE
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cpu.h"

#define SPINS 4000 /* about 50-100 us with pause: longer than the gap between two operators */

typedef struct job {
    nm_parallel_fn *fn;
    void *arg;
    int64_t n, grain;
    _Atomic int64_t next;
} job;

/* gate = epoch << 17 | OPEN | workers inside. A worker joins the current loop only while it is open, so a loop never waits
 * for a worker that has not woken up yet (decoders share the processors with us). */
#define OPEN ((uint64_t)1 << 16)
#define INSIDE (OPEN - 1)
#define EPOCH_SHIFT 17

struct nm_pool {
    int size;
    pthread_t *threads;
    pthread_mutex_t submit; /* one loop at a time */
    pthread_mutex_t lock;   /* guards sleeping */
    pthread_cond_t wake, done;
    _Atomic uint64_t gate;
    _Atomic int sleepers;
    _Atomic bool waiting, stop;
    job job;
};

typedef struct worker_arg { nm_pool *pool; int id; } worker_arg;

static _Thread_local nm_pool *tls_inside; /* the pool whose loop this thread runs: nested calls run serially */
static _Thread_local int tls_worker;

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

static void run_job(job *j, int worker)
{
    for (;;) {
        int64_t b = atomic_fetch_add_explicit(&j->next, j->grain, memory_order_relaxed);
        if (b >= j->n)
            return;
        int64_t e = j->n - b < j->grain ? j->n : b + j->grain;
        j->fn(j->arg, b, e, worker);
    }
}

/* Joins the open loop, if there still is one; returns the epoch that was seen. */
static uint64_t take_part(nm_pool *pool, int id)
{
    uint64_t g = atomic_load(&pool->gate);
    while (g & OPEN) {
        if (!atomic_compare_exchange_weak(&pool->gate, &g, g + 1))
            continue;
        run_job(&pool->job, id);
        uint64_t before = atomic_fetch_sub(&pool->gate, 1);
        if ((before & INSIDE) == 1 && atomic_load(&pool->waiting)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
        break;
    }
    return g >> EPOCH_SHIFT;
}

static void *worker_main(void *p)
{
    worker_arg w = *(worker_arg *)p;
    free(p);
    nm_pool *pool = w.pool;
    tls_inside = pool;
    tls_worker = w.id;
    uint64_t seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&pool->gate) >> EPOCH_SHIFT == seen; i++)
            cpu_relax();
        if (atomic_load(&pool->gate) >> EPOCH_SHIFT == seen) {
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleepers, 1);
            while (atomic_load(&pool->gate) >> EPOCH_SHIFT == seen)
                pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->stop))
            return NULL;
        seen = take_part(pool, w.id);
    }
}

nm_pool *nm_pool_new(int n_threads)
{
    nm_pool *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    if (n_threads <= 0)
        n_threads = nm_cpu_count();
    if (n_threads > 1024)
        n_threads = 1024;
    pthread_mutex_init(&p->submit, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->size = 1;
    p->threads = calloc((size_t)n_threads, sizeof *p->threads);
    for (int i = 1; p->threads && i < n_threads; i++) {
        worker_arg *w = malloc(sizeof *w);
        if (!w)
            break;
        *w = (worker_arg){ p, i };
        if (pthread_create(&p->threads[i], NULL, worker_main, w) != 0) {
            free(w);
            break; /* fewer threads than asked for is still a working pool */
        }
        p->size = i + 1;
    }
    return p;
}

static void publish(nm_pool *p, uint64_t flags)
{
    uint64_t epoch = (atomic_load(&p->gate) >> EPOCH_SHIFT) + 1;
    atomic_store(&p->gate, epoch << EPOCH_SHIFT | flags);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void nm_pool_free(nm_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    publish(p, 0);
    for (int i = 1; i < p->size; i++)
        pthread_join(p->threads[i], NULL);
    free(p->threads);
    pthread_mutex_destroy(&p->submit);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p);
}

int nm_pool_size(const nm_pool *p) { return p ? p->size : 1; }

void nm_parallel_for(nm_pool *p, int64_t n, int64_t grain, nm_parallel_fn *fn, void *arg)
{
    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    if (!p || p->size == 1 || n <= grain || tls_inside == p) {
        int worker = p && tls_inside == p ? tls_worker : 0;
        for (int64_t b = 0; b < n; b += grain)
            fn(arg, b, n - b < grain ? n : b + grain, worker);
        return;
    }
    pthread_mutex_lock(&p->submit);
    p->job.fn = fn;
    p->job.arg = arg;
    p->job.n = n;
    p->job.grain = grain;
    atomic_store(&p->job.next, 0);
    atomic_store(&p->waiting, false);
    publish(p, OPEN);
    nm_pool *outer = tls_inside;
    int outer_worker = tls_worker;
    tls_inside = p;
    tls_worker = 0;
    run_job(&p->job, 0);
    tls_inside = outer;
    tls_worker = outer_worker;
    atomic_fetch_and(&p->gate, ~OPEN);
    for (int i = 0; i < SPINS && (atomic_load(&p->gate) & INSIDE); i++)
        cpu_relax();
    if (atomic_load(&p->gate) & INSIDE) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->waiting, true);
        while (atomic_load(&p->gate) & INSIDE)
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&p->submit);
}
