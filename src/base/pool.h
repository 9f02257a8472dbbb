/* pool.h - one thread pool per context. Kernels start no threads; they are called from nm_parallel_for. */
#ifndef NM_POOL_H
#define NM_POOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct nm_pool nm_pool;

/* n_threads counts the caller; 0 = nm_cpu_count(). With 1 everything runs on the caller. NULL on failure. */
nm_pool *nm_pool_new(int n_threads);
void nm_pool_free(nm_pool *p);
int nm_pool_size(const nm_pool *p); /* NULL counts as 1 */

/* Calls fn(arg, begin, end, worker) over [0, n) in pieces of at most `grain`, on all threads including the caller's;
 * returns when all are done. `worker` is in [0, size): use it to pick per-thread scratch. Pieces are handed out
 * dynamically, so fn must not let results depend on who runs what. Calls from several threads on one pool queue up;
 * a call from inside fn runs serially on that thread. Never allocates. */
typedef void nm_parallel_fn(void *arg, int64_t begin, int64_t end, int worker);
void nm_parallel_for(nm_pool *p, int64_t n, int64_t grain, nm_parallel_fn *fn, void *arg);

#endif
