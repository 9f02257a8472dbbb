/* ranks_mpi.c - see ranks.h. MPI is started at the first use under mpirun and ended when the process exits; errors inside MPI end the job
 * (MPI_ERRORS_ARE_FATAL, its default). */
#include "train/ranks.h"

#if NOEMA_HAVE_MPI
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { PIECE = 1 << 28 }; /* elements of one call: MPI counts in int */

static struct { bool started, failed; int rank, size; MPI_Request *request; int n, cap; } mpi = { .size = 1 };

static void end(void)
{
    if (mpi.failed)
        MPI_Abort(MPI_COMM_WORLD, 3);
    MPI_Finalize();
    free(mpi.request);
}

static bool under_mpirun(void) { return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK"); }

static noema_status start(noema_error *err)
{
    int thread = MPI_THREAD_SINGLE;
    const char *size = getenv("PMI_SIZE");
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &thread) != MPI_SUCCESS || thread < MPI_THREAD_FUNNELED)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "MPI cannot be started beside threads");
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi.size);
    mpi.started = true;
    atexit(end);
    if (size && atoi(size) > 1 && mpi.size == 1)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "started by the mpirun of another MPI than the one that noema was built with");
    return NOEMA_OK;
}

noema_status nm_ranks_open(nm_ranks *r, noema_error *err)
{
    noema_status s = !mpi.started && under_mpirun() ? start(err) : NOEMA_OK;
    *r = (nm_ranks){ mpi.rank, mpi.size };
    return s;
}

void nm_ranks_close(nm_ranks *r, bool agreed)
{
    if (r->size > 1 && !agreed)
        mpi.failed = true;
}

int nm_ranks_mine(void) { return mpi.rank; }

int nm_ranks_most(const nm_ranks *r, int value)
{
    if (r->size > 1)
        MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return value;
}

void nm_ranks_gather(const nm_ranks *r, const float *mine, int64_t n, float *all)
{
    if (r->size == 1)
        memcpy(all, mine, (size_t)n * sizeof *all);
    for (int from = 0; r->size > 1 && from < r->size; from++) { /* in pieces that an int counts, each rank's in turn */
        float *part = all + from * n;
        if (from == r->rank)
            memcpy(part, mine, (size_t)n * sizeof *part);
        for (int64_t at = 0; at < n; at += PIECE)
            MPI_Bcast(part + at, (int)(n - at < PIECE ? n - at : PIECE), MPI_FLOAT, from, MPI_COMM_WORLD);
    }
}

void nm_ranks_sum(const nm_ranks *r, double *x, int n)
{
    if (r->size > 1)
        MPI_Allreduce(MPI_IN_PLACE, x, n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}

void nm_ranks_sum_f32(const nm_ranks *r, float *x, int64_t n)
{
    for (int64_t at = 0; r->size > 1 && at < n; at += PIECE)
        MPI_Allreduce(MPI_IN_PLACE, x + at, (int)(n - at < PIECE ? n - at : PIECE), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

bool nm_ranks_start_sum(const nm_ranks *r, float *x, int64_t n)
{
    for (int64_t at = 0; r->size > 1 && at < n; at += PIECE) {
        if (mpi.n == mpi.cap) {
            int cap = mpi.cap ? 2 * mpi.cap : 512;
            MPI_Request *p = nm_realloc_array(mpi.request, (size_t)cap, sizeof *p);
            if (!p)
                return false;
            mpi.request = p;
            mpi.cap = cap;
        }
        MPI_Iallreduce(MPI_IN_PLACE, x + at, (int)(n - at < PIECE ? n - at : PIECE), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &mpi.request[mpi.n++]);
    }
    return true;
}

void nm_ranks_progress(const nm_ranks *r)
{
    int done;
    if (r->size > 1 && mpi.n)
        MPI_Testall(mpi.n, mpi.request, &done, MPI_STATUSES_IGNORE);
}

void nm_ranks_wait(const nm_ranks *r)
{
    if (r->size > 1 && mpi.n)
        MPI_Waitall(mpi.n, mpi.request, MPI_STATUSES_IGNORE);
    mpi.n = 0;
}
#endif
