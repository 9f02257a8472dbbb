/* savepoints.h - the files in a run's checkpoints folder: epoch_N.pt after N epochs, step_N.pt after N steps (between epochs; the newest
 * alone is kept), epoch_latest.pt as open_clip's --save-most-recent writes it. */
#ifndef NM_SAVEPOINTS_H
#define NM_SAVEPOINTS_H

#include <stdint.h>

#include "noema/status.h"

/* Path of the file that is furthest in the run, malloc'd; NULL where there is none. */
char *nm_savepoints_latest(const char *folder, int64_t steps_per_epoch);
/* Removes the files of steps before `step` and, with keep > 0, all epochs but the newest `keep`. Called after a newer file is complete. */
void nm_savepoints_prune(const char *folder, int64_t keep, int64_t step);
/* Removes what a process that was killed while it wrote (nm_write_file_atomic) left in the folder. */
void nm_savepoints_sweep(const char *folder);
/* epoch_latest.pt becomes another name of `path`. */
noema_status nm_savepoints_most_recent(const char *folder, const char *path, noema_error *err);
/* Keeps the lines {"step":N, ...} of `path` with N before `step`, for a run that goes on there; what a kill left half written goes too. A file
 * that is not there is none. *kept (may be NULL): how many stay. */
noema_status nm_steps_cut(const char *path, int64_t step, int64_t *kept, noema_error *err);

#endif
