/* rows.h - long computations of f32 rows in a file that is appended to, so that the next run goes on where this one ended. */
#ifndef NM_EVAL_ROWS_H
#define NM_EVAL_ROWS_H

#include "base/hash.h"
#include "eval/task.h"

/* out: rows first .. first + n. A row that failed is NaN throughout (and has been reported). */
typedef noema_status nm_stored_rows_fn(void *arg, int64_t first, int64_t n, float *out);

/* What the rows depend on: model and call; the caller adds its inputs with nm_sha256_update. */
void nm_rows_key(nm_sha256 *key, nm_eval *e, const char *kind, unsigned flags);
void nm_rows_key_text(nm_sha256 *key, const char *text);
void nm_rows_key_file(nm_sha256 *key, const char *path); /* name, size and time of change */

/* x [n, dim]: from the cache as far as it goes, the rest by fn, `step` rows a call. unit: of the progress. */
noema_status nm_stored_rows(nm_eval *e, nm_sha256 *key, const char *unit, int64_t n, int64_t dim, int64_t step, nm_stored_rows_fn *fn, void *arg, float *x);

#endif
