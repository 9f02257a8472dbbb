/* zeroshot.c - classification by class vectors (clip.md section 9). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/handle.h"

/* The template with every "{}" replaced by the label. */
static bool fill(nm_buf *b, const char *template, const char *label)
{
    for (const char *p; (p = strstr(template, "{}")); template = p + 2)
        if (!nm_buf_append(b, template, (size_t)(p - template)) || !nm_buf_puts(b, label))
            return false;
    return nm_buf_puts(b, template);
}

static void normalize(float *v, size_t dim)
{
    double sum = 0;
    for (size_t d = 0; d < dim; d++)
        sum += (double)v[d] * (double)v[d];
    float norm = (float)sqrt(sum);
    for (size_t d = 0; d < dim; d++)
        v[d] /= norm > 1e-12f ? norm : 1e-12f;
}

/* One label: all its templates in one call, their unit vectors averaged, the mean brought to length 1. */
static noema_status class_vector(noema_session *s, const char *label, size_t n, const char *const *templates, char **texts, float *all, float *out,
                                 noema_error *err)
{
    size_t dim = (size_t)s->model->m->embed_dim;
    noema_status st = NOEMA_OK;
    for (size_t t = 0; t < n && st == NOEMA_OK; t++) {
        nm_buf b = { 0 };
        if (!templates[t] || !fill(&b, templates[t], label) || !(texts[t] = nm_buf_take(&b)))
            st = nm_fail(err, templates[t] ? NOEMA_E_MEMORY : NOEMA_E_ARGUMENT, "template %zu", t);
    }
    if (st == NOEMA_OK)
        st = noema_embed_texts(s, n, (const char *const *)texts, NULL, NOEMA_NORMALIZE, all, err);
    for (size_t t = 0; t < n; t++) {
        free(texts[t]);
        texts[t] = NULL;
    }
    for (size_t d = 0; d < dim && st == NOEMA_OK; d++) {
        float sum = 0;
        for (size_t t = 0; t < n; t++)
            sum += all[t * dim + d];
        out[d] = sum / (float)n;
    }
    if (st == NOEMA_OK)
        normalize(out, dim);
    return st;
}

noema_status noema_class_vectors(noema_session *s, size_t n_labels, const char *const *labels, size_t n_templates, const char *const *templates,
                                 float *out, noema_error *err)
{
    if (!s || (n_labels && (!labels || !out)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_class_vectors: a session, labels and room for the result are needed");
    if (!templates || n_templates == 0) /* a label alone: its unit vector */
        return noema_embed_texts(s, n_labels, labels, NULL, NOEMA_NORMALIZE, out, err);
    size_t dim = (size_t)s->model->m->embed_dim, floats;
    float *all = nm_mul_size(n_templates, dim, &floats) ? nm_malloc_array(floats, sizeof *all) : NULL;
    char **texts = calloc(n_templates, sizeof *texts);
    noema_status st = all && texts ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %zu templates", n_templates);
    for (size_t i = 0; i < n_labels && st == NOEMA_OK; i++)
        st = labels[i] ? class_vector(s, labels[i], n_templates, templates, texts, all, out + i * dim, err)
                       : nm_fail(err, NOEMA_E_ARGUMENT, "label %zu is NULL", i);
    free(all);
    free(texts);
    return st;
}

noema_status noema_classify(size_t n, const float *images, size_t n_labels, const float *classes, size_t embed_dim, float scale, float *probs,
                            noema_error *err)
{
    if (n_labels == 0 || (n && (!images || !classes || !probs)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_classify: images, at least one class and room for the result are needed");
    for (size_t i = 0; i < n; i++) {
        const float *x = images + i * embed_dim;
        float *p = probs + i * n_labels, most = -INFINITY, sum = 0;
        for (size_t k = 0; k < n_labels; k++) {
            double dot = 0;
            for (size_t d = 0; d < embed_dim; d++)
                dot += (double)x[d] * (double)classes[k * embed_dim + d];
            p[k] = scale * (float)dot;
            most = p[k] > most ? p[k] : most;
        }
        for (size_t k = 0; k < n_labels; k++)
            sum += p[k] = expf(p[k] - most);
        for (size_t k = 0; k < n_labels; k++)
            p[k] /= sum;
    }
    return NOEMA_OK;
}
