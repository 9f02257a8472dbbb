/* rerank.c - BLIP's retrieval: the first candidates of each query by cosine are scored again by the ITM head (specs/evaluation.md, section 2).
 * Pictures come one by one, each with all texts that it is to be compared with, so that each is encoded once. */
#include <stdlib.h>
#include <string.h>

#include "eval/task.h"
#include "noema/generate.h"

/* The first k candidates of every query, best first, and their scores. */
typedef struct shortlist { int64_t n, m, k; int64_t *index; double *score; } shortlist;

static void list_rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    shortlist *l = arg;
    (void)worker;
    for (int64_t r = 0; r < n; r++) {
        int64_t *index = l->index + (first + r) * l->k;
        nm_largest(scores + r * l->m, l->m, l->k, index);
        for (int64_t c = 0; c < l->k; c++)
            l->score[(first + r) * l->k + c] = scores[r * l->m + index[c]];
    }
}

static noema_status make_list(nm_eval *e, shortlist *l, const nm_vectors *queries, const nm_vectors *items, int64_t k)
{
    *l = (shortlist){ .n = queries->n, .m = items->n, .k = k < items->n ? k : items->n };
    l->index = nm_malloc_array((size_t)(l->n * l->k) + 1, sizeof *l->index);
    l->score = nm_malloc_array((size_t)(l->n * l->k) + 1, sizeof *l->score);
    return l->index && l->score ? nm_scores(e->pool, queries, items, list_rows, l, e->err)
                                : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: candidates of %lld queries", (long long)l->n);
}

static void list_free(shortlist *l)
{
    free(l->index);
    free(l->score);
}

/* Entries of `of_text` by picture: those of picture i are entry[start[i]] .. entry[start[i + 1]]. */
static noema_status by_picture(nm_eval *e, const shortlist *of_text, int64_t n, int64_t **start, int64_t **entry)
{
    int64_t all = of_text->n * of_text->k;
    *start = calloc((size_t)n + 2, sizeof **start);
    *entry = nm_malloc_array((size_t)all + 1, sizeof **entry);
    if (!*start || !*entry)
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: candidates");
    for (int64_t x = 0; x < all; x++)
        (*start)[of_text->index[x] + 2]++;
    for (int64_t i = 2; i < n + 2; i++)
        (*start)[i] += (*start)[i - 1];
    for (int64_t x = 0; x < all; x++)
        (*entry)[(*start)[of_text->index[x] + 1]++] = x;
    return NOEMA_OK;
}

/* Match logits of one picture with its texts, added to the cosines. wanted: places in both lists. */
static noema_status one_picture(nm_eval *e, const char *file, const char *const *text, shortlist *of_image, int64_t i, shortlist *of_text,
                                const int64_t *entry, int64_t n_entries)
{
    int64_t n = of_image->k + n_entries;
    const char **texts = nm_malloc_array((size_t)n + 1, sizeof *texts);
    float *scores = nm_malloc_array((size_t)n + 1, 2 * sizeof *scores);
    noema_match_options o = { .struct_size = sizeof o, .head = 2 };
    noema_picture p = { .path = file };
    noema_status s = texts && scores ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld texts", (long long)n);
    for (int64_t c = 0; s == NOEMA_OK && c < of_image->k; c++)
        texts[c] = text[of_image->index[i * of_image->k + c]];
    for (int64_t c = 0; s == NOEMA_OK && c < n_entries; c++)
        texts[of_image->k + c] = text[entry[c] / of_text->k];
    if (s == NOEMA_OK)
        s = noema_match_pictures(e->session, 1, &p, (size_t)n, texts, NULL, &o, scores, scores + n, NULL, e->err);
    for (int64_t c = 0; s == NOEMA_OK && c < of_image->k; c++)
        of_image->score[i * of_image->k + c] += scores[c];
    for (int64_t c = 0; s == NOEMA_OK && c < n_entries; c++)
        of_text->score[entry[c]] += scores[of_image->k + c];
    free((void *)texts);
    free(scores);
    return s;
}

/* Rank of candidate j of query q: among the list by score, else behind it in the order of the numbers. */
static int64_t rank_in(const shortlist *l, int64_t q, int64_t j)
{
    const int64_t *index = l->index + q * l->k;
    const double *score = l->score + q * l->k;
    int64_t place = 0, front = 0, before = 0;
    while (place < l->k && index[place] != j)
        place++;
    for (int64_t c = 0; c < l->k; c++) {
        before += index[c] < j;
        front += place < l->k && (score[c] > score[place] || (score[c] == score[place] && index[c] < j));
    }
    return place < l->k ? front : l->k + j - before;
}

noema_status nm_eval_rerank(nm_eval *e, nm_retrieval *t, const nm_vectors *images, const nm_vectors *texts, const char *const *files,
                            const char *const *text, const int64_t *owner)
{
    shortlist of_image = { 0 }, of_text = { 0 };
    int64_t *start = NULL, *entry = NULL;
    noema_status s = e->session && noema_model_tasks(e->session->model) & NOEMA_TASK_ITM
                         ? make_list(e, &of_image, images, texts, e->o.rerank_texts)
                         : nm_fail(e->err, NOEMA_E_UNSUPPORTED, "re-ranking needs a model with an ITM head (BLIP)");
    if (s == NOEMA_OK)
        s = make_list(e, &of_text, texts, images, e->o.rerank_images);
    if (s == NOEMA_OK)
        s = by_picture(e, &of_text, images->n, &start, &entry);
    for (int64_t i = 0; s == NOEMA_OK && i < images->n; i++) {
        s = nm_eval_stopped(e) ? nm_fail(e->err, NOEMA_E_CANCELLED, "interrupted after %lld of %lld pictures", (long long)i, (long long)images->n)
                               : one_picture(e, files[i], text, &of_image, i, &of_text, entry + start[i], start[i + 1] - start[i]);
        nm_eval_progress(e, "pictures ranked again", i + 1, images->n);
    }
    for (int64_t i = 0; s == NOEMA_OK && i < images->n; i++)
        t->image_rank[i] = -1;
    for (int64_t j = 0; s == NOEMA_OK && j < texts->n; j++) {
        int64_t i = owner[j];
        t->text_rank[j] = i < 0 ? -1 : rank_in(&of_text, j, i);
        int64_t rank = i < 0 ? -1 : rank_in(&of_image, i, j);
        if (i >= 0 && (t->image_rank[i] < 0 || rank < t->image_rank[i]))
            t->image_rank[i] = rank;
    }
    list_free(&of_image);
    list_free(&of_text);
    free(start);
    free(entry);
    return s;
}
