/* ranks.h - the processes that train one model together. Nothing else knows MPI: ranks_mpi.c where the build found it, else
 * ranks_single.c. Every call is collective and is made by the thread that opened. A process that dies ends the job: mpirun says which one,
 * and what rank 0 wrote atomically stays. */
#ifndef NM_RANKS_H
#define NM_RANKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct nm_ranks { int rank, size; } nm_ranks;

/* Those that mpirun started, or this process alone (rank 0 of 1). NOEMA_E_UNSUPPORTED: started by mpirun, built without MPI. */
noema_status nm_ranks_open(nm_ranks *r, noema_error *err);
/* agreed false: this rank alone has failed; the others are ended when the process exits. */
void nm_ranks_close(nm_ranks *r, bool agreed);
/* Rank of this process since the last nm_ranks_open. */
int nm_ranks_mine(void);

/* The largest of the ranks' numbers. */
int nm_ranks_most(const nm_ranks *r, int value);
/* all [size, n] <- mine [n] of every rank, in their order. */
void nm_ranks_gather(const nm_ranks *r, const float *mine, int64_t n, float *all);
/* Sums over the ranks, in place; the same bits on every rank. */
void nm_ranks_sum(const nm_ranks *r, double *x, int n);
void nm_ranks_sum_f32(const nm_ranks *r, float *x, int64_t n);
/* The same in the background: x must not be touched until nm_ranks_wait. Every rank starts the same sums in the same order.
 * nm_ranks_progress lets them move on. false: out of memory. */
bool nm_ranks_start_sum(const nm_ranks *r, float *x, int64_t n);
void nm_ranks_progress(const nm_ranks *r);
void nm_ranks_wait(const nm_ranks *r);

#endif
