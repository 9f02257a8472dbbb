/* rank.h - answers of a list, ranked by how likely they follow a question. */
#ifndef NM_RANK_H
#define NM_RANK_H

#include "generate/tasks.h"

typedef struct nm_ranked { double score; int64_t answer; } nm_ranked;

/* All answers by the log-probability [vocab] of their id number `at`; among equals the order of the list. malloc'd. */
nm_ranked *nm_rank_first(const nm_texts *answers, int64_t at, const float *log_p);
/* Best first, among equals the order of the list. */
void nm_rank_sort(nm_ranked *list, int64_t n);
noema_status nm_rank_take(const nm_ranked *list, int64_t n, const char *const *answers, noema_generated *out, noema_error *err);

#endif
