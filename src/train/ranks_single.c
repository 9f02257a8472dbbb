/* ranks_single.c - one process: built where there is no MPI (libopenmpi-dev). */
#include "train/ranks.h"

#if !NOEMA_HAVE_MPI
#include <stdlib.h>
#include <string.h>

noema_status nm_ranks_open(nm_ranks *r, noema_error *err)
{
    const char *size = getenv("OMPI_COMM_WORLD_SIZE") ? getenv("OMPI_COMM_WORLD_SIZE") : getenv("PMI_SIZE");
    *r = (nm_ranks){ 0, 1 };
    if (size && atoi(size) > 1)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "started by mpirun as one of %d processes, but this noema was built without MPI (libopenmpi-dev)", atoi(size));
    return NOEMA_OK;
}

void nm_ranks_close(nm_ranks *r, bool agreed) { (void)r, (void)agreed; }
int nm_ranks_mine(void) { return 0; }
int nm_ranks_most(const nm_ranks *r, int value) { return (void)r, value; }
void nm_ranks_gather(const nm_ranks *r, const float *mine, int64_t n, float *all) { (void)r, memcpy(all, mine, (size_t)n * sizeof *all); }
void nm_ranks_sum(const nm_ranks *r, double *x, int n) { (void)r, (void)x, (void)n; }
void nm_ranks_sum_f32(const nm_ranks *r, float *x, int64_t n) { (void)r, (void)x, (void)n; }
bool nm_ranks_start_sum(const nm_ranks *r, float *x, int64_t n) { return (void)r, (void)x, (void)n, true; }
void nm_ranks_progress(const nm_ranks *r) { (void)r; }
void nm_ranks_wait(const nm_ranks *r) { (void)r; }
#endif
