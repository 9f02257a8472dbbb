/* task_retrieval.c - images by text and texts by image; and the geometry of the same vectors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/answers.h"
#include "eval/task.h"

/* Images and texts with their owners, from files or from a model. */
typedef struct pairs {
    nm_vectors images, texts;
    int64_t *owner;
    nm_pictures p;
    int64_t *keep;      /* [images.n]: number among the pictures */
    const char **text;  /* [texts.n]: captions of p */
} pairs;

static void pairs_free(pairs *a)
{
    nm_vectors_free(&a->images);
    nm_vectors_free(&a->texts);
    nm_pictures_free(&a->p);
    free(a->owner);
    free(a->keep);
    free((void *)a->text);
}

/* --pairs, or as many texts for each image, in order. */
static noema_status read_owner(nm_eval *e, pairs *a)
{
    int64_t n = a->texts.n;
    noema_status s = NOEMA_OK;
    if (e->o.pairs) {
        s = nm_eval_integers(e, e->o.pairs, &a->owner, &n);
        if (s == NOEMA_OK && n != a->texts.n)
            s = nm_fail(e->err, NOEMA_E_MISMATCH, "%s: expected an image for each of %lld texts, got %lld", e->o.pairs, (long long)a->texts.n, (long long)n);
        for (int64_t j = 0; s == NOEMA_OK && j < n; j++)
            if (a->owner[j] >= a->images.n)
                s = nm_fail(e->err, NOEMA_E_MISMATCH, "%s: text %lld belongs to image %lld, there are %lld", e->o.pairs, (long long)j, (long long)a->owner[j],
                            (long long)a->images.n);
        return s;
    }
    if (n % a->images.n)
        return nm_fail(e->err, NOEMA_E_MISMATCH, "%lld texts for %lld images: say whose they are (--pairs)", (long long)n, (long long)a->images.n);
    if (!(a->owner = nm_malloc_array((size_t)n + 1, sizeof *a->owner)))
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld texts", (long long)n);
    for (int64_t j = 0; j < n; j++)
        a->owner[j] = j / (n / a->images.n);
    return s;
}

static noema_status from_files(nm_eval *e, pairs *a)
{
    noema_status s = e->o.images ? nm_eval_vectors(e, e->o.images, &a->images) : NOEMA_OK;
    if (s == NOEMA_OK && e->o.texts)
        s = nm_eval_vectors(e, e->o.texts, &a->texts);
    if (s == NOEMA_OK && a->images.n && a->texts.n && a->images.dim != a->texts.dim)
        s = nm_fail(e->err, NOEMA_E_MISMATCH, "%s has %lld numbers a row, %s %lld", e->o.images, (long long)a->images.dim, e->o.texts, (long long)a->texts.dim);
    return s == NOEMA_OK && a->images.n && a->texts.n ? read_owner(e, a) : s;
}

/* Pictures that failed leave with their captions. */
static noema_status drop_bad(nm_eval *e, pairs *a)
{
    nm_pictures *p = &a->p;
    int64_t *number = nm_malloc_array((size_t)p->n + 1, sizeof *number), n = 0;
    a->keep = nm_malloc_array((size_t)p->n + 1, sizeof *a->keep);
    a->text = nm_malloc_array((size_t)p->n_captions + 1, sizeof *a->text);
    if (!number || !a->keep || !a->text) {
        free(number);
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld pictures", (long long)p->n);
    }
    for (int64_t i = 0; i < p->n; i++)
        number[i] = p->bad[i] ? -1 : n++;
    nm_eval_drop_bad(p, &a->images, NULL, a->keep);
    n = 0;
    for (int64_t j = 0; j < a->texts.n; j++) {
        int64_t owner = number[p->owner[j]];
        if (owner < 0)
            continue;
        a->owner[n] = owner;
        a->text[n] = p->caption[j];
        memmove(a->texts.x + n * a->texts.dim, a->texts.x + j * a->texts.dim, (size_t)a->texts.dim * sizeof *a->texts.x);
        n++;
    }
    a->texts.n = n;
    free(number);
    return a->images.n ? NOEMA_OK : nm_fail(e->err, NOEMA_E_FORMAT, "none of the %lld pictures could be read", (long long)p->n);
}

/* BLIP's authors clean captions before they compare them. */
static noema_status clean_captions(nm_eval *e, nm_pictures *p)
{
    if (!e->session || strncmp(noema_model_get_info(e->session->model)->family, "blip", 4) != 0)
        return NOEMA_OK;
    for (int64_t j = 0; j < p->n_captions; j++) {
        nm_buf b = { 0 };
        char *text = nm_blip_text(&b, p->caption[j], false, 30) ? nm_buf_take(&b) : NULL;
        if (!text) {
            nm_buf_free(&b);
            return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: captions");
        }
        free(p->caption[j]);
        p->caption[j] = text;
    }
    return NOEMA_OK;
}

static noema_status from_data(nm_eval *e, pairs *a, bool need_texts)
{
    nm_pictures *p = &a->p;
    noema_status s = nm_pictures_open(e, p, e->o.data, e->o.n_data);
    if (s == NOEMA_OK && need_texts && !p->n_captions)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: its pictures have no captions", e->o.data[0]);
    if (s == NOEMA_OK)
        s = clean_captions(e, p);
    if (s == NOEMA_OK)
        s = nm_eval_embed_pictures(e, p, NOEMA_NORMALIZE, &a->images);
    if (s == NOEMA_OK && p->n_captions) {
        s = nm_eval_embed_texts(e, p->n_captions, p->caption, &a->texts);
        if (s == NOEMA_OK && !(a->owner = nm_malloc_array((size_t)p->n_captions + 1, sizeof *a->owner)))
            s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld captions", (long long)p->n_captions);
    }
    return s == NOEMA_OK ? drop_bad(e, a) : s;
}

/* ---- retrieval ---- */

/* Hits of the queries by their image, so that resampling draws images with all their captions. */
static noema_status recall_interval(nm_eval *e, const nm_retrieval *t, const int64_t *owner, bool by_text, int64_t k, nm_interval *ci)
{
    double *hit = calloc((size_t)t->n_images + 1, sizeof *hit), *weight = calloc((size_t)t->n_images + 1, sizeof *weight);
    noema_status s = hit && weight ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: bootstrap");
    for (int64_t q = 0; s == NOEMA_OK && q < (by_text ? t->n_texts : t->n_images); q++) {
        int64_t rank = by_text ? t->text_rank[q] : t->image_rank[q], at = by_text ? owner[q] : q;
        if (rank < 0)
            continue;
        weight[at]++;
        hit[at] += rank < k;
    }
    if (s == NOEMA_OK)
        s = nm_bootstrap_ratio(ci, t->n_images, e->o.bootstrap, e->o.seed, hit, weight, e->err);
    free(hit);
    free(weight);
    return s;
}

static noema_status direction(nm_eval *e, const nm_retrieval *t, const int64_t *owner, bool by_text, double recall[8])
{
    static const int64_t usual[] = { 1, 5, 10 };
    const int64_t *k = e->o.n_k ? e->o.k : usual;
    int n_k = e->o.n_k ? (int)e->o.n_k : 3;
    const char *kind = by_text ? "image_retrieval_" : "text_retrieval_";
    char prefix[64];
    nm_rank_figures r;
    noema_status s = nm_rank_summary(&r, by_text ? t->n_texts : t->n_images, by_text ? t->text_rank : t->image_rank, n_k, k, e->err);
    for (int i = 0; i < n_k && s == NOEMA_OK; i++) {
        nm_interval ci = nm_share_interval(r.recall[i], r.queries);
        snprintf(prefix, sizeof prefix, "%srecall@", kind);
        if (e->o.bootstrap > 0)
            s = recall_interval(e, t, owner, by_text, k[i], &ci);
        nm_eval_report_metric(e->r, nm_eval_name(prefix, k[i]), r.recall[i], &ci);
        recall[i] = r.recall[i];
    }
    snprintf(prefix, sizeof prefix, "%smedian_rank", kind);
    nm_eval_report_metric(e->r, prefix, r.median, NULL);
    snprintf(prefix, sizeof prefix, "%smean_rank", kind);
    nm_eval_report_metric(e->r, prefix, r.mean, NULL);
    return s;
}

static double mean_known(int64_t n, const double *v)
{
    double sum = 0;
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(v[i])) {
            sum += v[i];
            m++;
        }
    return m ? sum / (double)m : NAN;
}

static noema_status rerank(nm_eval *e, pairs *a, nm_retrieval *t)
{
    char buf[512];
    const char **files = calloc((size_t)a->images.n + 1, sizeof *files);
    noema_status s = files ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld pictures", (long long)a->images.n);
    if (s == NOEMA_OK && !a->keep)
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "re-ranking needs pictures and captions, not vectors");
    for (int64_t i = 0; s == NOEMA_OK && i < a->images.n; i++)
        if ((files[i] = nm_pictures_name(&a->p, a->keep[i], buf)) == buf)
            s = nm_fail(e->err, NOEMA_E_UNSUPPORTED, "%s: re-ranking takes pictures that are files", buf);
    if (s == NOEMA_OK)
        s = nm_eval_rerank(e, t, &a->images, &a->texts, files, a->text, a->owner);
    free((void *)files);
    return s;
}

static noema_status retrieve(nm_eval *e, pairs *a)
{
    static const char *const rules[] = { "lowest", "highest", "optimistic", "pessimistic" };
    nm_retrieval t;
    double tr[8] = { 0 }, ir[8] = { 0 }, sum = 0;
    noema_status s = nm_retrieve(&t, e->pool, &a->images, &a->texts, a->owner, (nm_ties)e->o.ties, e->err);
    bool again = e->o.rerank_texts > 0 || e->o.rerank_images > 0;
    if (s == NOEMA_OK && again && (s = rerank(e, a, &t)) != NOEMA_OK)
        nm_retrieval_free(&t);
    if (s != NOEMA_OK)
        return s;
    nm_eval_report_count(e->r, "images", t.n_images);
    nm_eval_report_count(e->r, "texts", t.n_texts);
    nm_eval_report_text(e->r, "tie_rule", rules[e->o.ties]);
    nm_eval_report_count(e->r, "text_retrieval_ties", t.image_ties);
    nm_eval_report_count(e->r, "image_retrieval_ties", t.text_ties);
    s = direction(e, &t, a->owner, false, tr);
    if (s == NOEMA_OK)
        s = direction(e, &t, a->owner, true, ir);
    if (again) {
        nm_eval_report_count(e->r, "rerank_texts", e->o.rerank_texts);
        nm_eval_report_count(e->r, "rerank_images", e->o.rerank_images);
    } else {
        nm_eval_report_metric(e->r, "text_retrieval_map", mean_known(t.n_images, t.image_ap), NULL);
        nm_eval_report_metric(e->r, "text_retrieval_r_precision", mean_known(t.n_images, t.image_r_precision), NULL);
    }
    for (int i = 0; i < 8; i++)
        sum += tr[i] + ir[i];
    nm_eval_report_metric(e->r, "mean_recall@1", e->o.n_k && e->o.k[0] != 1 ? NAN : (tr[0] + ir[0]) / 2, NULL);
    nm_eval_report_metric(e->r, "rsum", sum, NULL);
    if (s == NOEMA_OK && e->o.predictions) /* ranks of the texts' images, from 1; 0: no image */
        for (int64_t j = 0; j < t.n_texts; j++)
            t.text_rank[j]++;
    if (s == NOEMA_OK && e->o.predictions)
        s = nm_eval_save(e, e->o.predictions, NM_I64, t.text_rank, t.n_texts, 0);
    nm_retrieval_free(&t);
    return s;
}

/* Ready scores [images, texts]: only where --pairs or the order says whose texts they are. */
static noema_status from_scores(nm_eval *e, pairs *a)
{
    double *x;
    int64_t shape[3];
    noema_status s = nm_eval_scores(e, "[images, texts]", &x, shape);
    if (s != NOEMA_OK)
        return s;
    if (shape[1] > 8192) {
        free(x);
        return nm_fail(e->err, NOEMA_E_LIMIT, "%s: scores of %lld texts; at most 8192 are taken (give vectors instead)", e->o.scores, (long long)shape[1]);
    }
    /* texts as unit axes: the product of an image's row with them is its row of scores, bit for bit */
    a->images = (nm_vectors){ .n = shape[0], .dim = shape[1], .x = x };
    a->texts = (nm_vectors){ .n = shape[1], .dim = shape[1], .x = calloc((size_t)shape[1], (size_t)shape[1] * sizeof(double)) };
    if (!a->texts.x)
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld texts", (long long)shape[1]);
    for (int64_t j = 0; j < shape[1]; j++)
        a->texts.x[j * shape[1] + j] = 1;
    return read_owner(e, a);
}

noema_status nm_eval_retrieval(nm_eval *e)
{
    pairs a = { 0 };
    noema_status s;
    if (e->o.scores)
        s = from_scores(e, &a);
    else if (e->o.images && e->o.texts)
        s = from_files(e, &a);
    else if (e->o.n_data)
        s = from_data(e, &a, true);
    else
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "expected pictures with captions (--data), or vectors of both (--images, --texts)");
    if (s == NOEMA_OK)
        s = retrieve(e, &a);
    pairs_free(&a);
    return s;
}

/* ---- geometry ---- */

static noema_status one_side(nm_eval *e, const nm_vectors *v, const char *side)
{
    char name[96];
    double value = NAN;
    nm_spectrum sp;
    noema_status s = nm_uniformity(e->pool, v, 2, &value, e->err);
    snprintf(name, sizeof name, "uniformity_t2_%s", side);
    nm_eval_report_metric(e->r, name, value, NULL);
    snprintf(name, sizeof name, "mean_cosine_%s", side);
    nm_eval_report_metric(e->r, name, nm_anisotropy(v), NULL);
    for (int centred = 0; centred < 2 && s == NOEMA_OK; centred++) {
        const char *how = centred ? "centred" : "uncentred";
        s = nm_spectrum_of(&sp, v, centred, e->err);
        snprintf(name, sizeof name, "effective_rank_%s_%s", side, how);
        nm_eval_report_metric(e->r, name, sp.effective_rank, NULL);
        snprintf(name, sizeof name, "participation_ratio_%s_%s", side, how);
        nm_eval_report_metric(e->r, name, sp.participation_ratio, NULL);
        snprintf(name, sizeof name, "stable_rank_%s_%s", side, how);
        nm_eval_report_metric(e->r, name, sp.stable_rank, NULL);
    }
    return s;
}

static noema_status hubs(nm_eval *e, const nm_vectors *queries, const nm_vectors *items, const char *way)
{
    char name[96];
    int64_t k = e->o.n_k ? e->o.k[0] : 10;
    nm_hubness h;
    noema_status s = nm_hubness_of(&h, e->pool, queries, items, k, e->err);
    if (s != NOEMA_OK)
        return s;
    const double value[] = { h.mean, (double)h.max, (double)h.zero, h.zero_share, h.skewness };
    const char *const what[] = { "mean", "max", "zero", "zero_share", "skewness" };
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "hubness_k%lld_%s_%s", (long long)k, way, what[i]);
        nm_eval_report_metric(e->r, name, value[i], NULL);
    }
    return s;
}

/* The contrastive loss over the images and the first text of each. */
static noema_status loss(nm_eval *e, const pairs *a)
{
    int64_t n = a->images.n, dim = a->texts.dim, found = 0;
    nm_vectors first = { .n = n, .dim = dim, .x = nm_malloc_array((size_t)(n * dim) + 1, sizeof(double)) };
    bool *has = calloc((size_t)n + 1, sizeof *has);
    double scale = e->o.logit_scale > 0 ? e->o.logit_scale : e->session ? noema_model_get_info(e->session->model)->logit_scale : 100;
    noema_status s = first.x && has ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld pairs", (long long)n);
    for (int64_t j = 0; s == NOEMA_OK && j < a->texts.n; j++)
        if (a->owner[j] >= 0 && !has[a->owner[j]]) {
            has[a->owner[j]] = true;
            memcpy(first.x + a->owner[j] * dim, a->texts.x + j * dim, (size_t)dim * sizeof *first.x);
            found++;
        }
    if (s == NOEMA_OK && found == n) {
        nm_clip_loss l;
        s = nm_clip_loss_of(&l, e->pool, &a->images, &first, scale, e->err);
        nm_eval_report_set(e->r, "logit_scale", json_real(scale));
        nm_eval_report_metric(e->r, "clip_loss", l.loss, NULL);
        nm_eval_report_metric(e->r, "clip_loss_image_to_text", l.image_to_text, NULL);
        nm_eval_report_metric(e->r, "clip_loss_text_to_image", l.text_to_image, NULL);
    }
    free(has);
    nm_vectors_free(&first);
    return s;
}

static noema_status both_sides(nm_eval *e, const pairs *a)
{
    double gap, cosine;
    nm_eval_report_metric(e->r, "alignment_alpha2", nm_alignment(&a->images, &a->texts, a->owner, 2), NULL);
    nm_eval_report_metric(e->r, "alignment_alpha1", nm_alignment(&a->images, &a->texts, a->owner, 1), NULL);
    noema_status s = nm_modality_gap(&a->images, &a->texts, &gap, &cosine, e->err);
    if (s != NOEMA_OK)
        return s;
    nm_eval_report_metric(e->r, "modality_gap_l2", gap, NULL);
    nm_eval_report_metric(e->r, "modality_gap_centroid_cosine", cosine, NULL);
    s = hubs(e, &a->texts, &a->images, "text_to_image");
    if (s == NOEMA_OK)
        s = hubs(e, &a->images, &a->texts, "image_to_text");
    return s == NOEMA_OK ? loss(e, a) : s;
}

noema_status nm_eval_geometry(nm_eval *e)
{
    pairs a = { 0 };
    noema_status s;
    if (e->o.images || e->o.texts)
        s = from_files(e, &a);
    else if (e->o.n_data)
        s = from_data(e, &a, false);
    else
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "expected pictures (--data) or vectors (--images, --texts)");
    if (s == NOEMA_OK && a.images.n) {
        nm_eval_report_count(e->r, "images", a.images.n);
        s = one_side(e, &a.images, "image");
    }
    if (s == NOEMA_OK && a.texts.n) {
        nm_eval_report_count(e->r, "texts", a.texts.n);
        s = one_side(e, &a.texts, "text");
    }
    if (s == NOEMA_OK && a.images.n && a.texts.n)
        s = both_sides(e, &a);
    pairs_free(&a);
    return s;
}
