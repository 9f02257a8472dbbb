/* rank.c - see rank.h. */
#include "generate/rank.h"

#include <stdlib.h>

static int best_first(const void *a, const void *b)
{
    const nm_ranked *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->answer > y->answer) - (x->answer < y->answer);
}

void nm_rank_sort(nm_ranked *list, int64_t n) { qsort(list, (size_t)n, sizeof *list, best_first); }

nm_ranked *nm_rank_first(const nm_texts *answers, int64_t at, const float *log_p)
{
    nm_ranked *list = malloc((size_t)answers->n * sizeof *list + 1);
    for (int64_t a = 0; list && a < answers->n; a++)
        list[a] = (nm_ranked){ (double)log_p[answers->ids[answers->offsets[a] + at]], a };
    if (list)
        nm_rank_sort(list, answers->n);
    return list;
}

noema_status nm_rank_take(const nm_ranked *list, int64_t n, const char *const *answers, noema_generated *out, noema_error *err)
{
    noema_scored_text *best = calloc((size_t)n + 1, sizeof *best);
    bool ok = best != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        best[i].score = (float)list[i].score;
        ok = (best[i].text = nm_strdup(answers[list[i].answer])) != NULL;
    }
    if (ok)
        return nm_generated_set(out, best, (size_t)n, err);
    for (int64_t i = 0; best && i < n; i++)
        free(best[i].text);
    free(best);
    return nm_fail(err, NOEMA_E_MEMORY, "out of memory: answers");
}
