/* rows.c - see rows.h. */
#include "train/rows.h"

#include <stdio.h>
#include <string.h>

nm_dataset_options nm_rows_options(const noema_train_options *o)
{
    return (nm_dataset_options){ .type = o->dataset_type, .img_key = o->img_key, .caption_key = o->caption_key, .label_key = o->label_key,
                                 .class_names = o->class_names, .n_class_names = o->n_class_names, .templates = o->templates,
                                 .n_templates = o->n_templates };
}

static noema_status copy_tensor(const nm_row *row, const nm_model *m, float *out, noema_error *err)
{
    if (row->shape[0] != 3 || row->shape[1] != m->image_height || row->shape[2] != m->image_width)
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: `image` is [%lld, %lld, %lld], the model takes [3, %d, %d]", row->name, (long long)row->shape[0],
                       (long long)row->shape[1], (long long)row->shape[2], m->image_height, m->image_width);
    memcpy(out, row->tensor, (size_t)(row->shape[0] * row->shape[1] * row->shape[2]) * sizeof *out);
    return NOEMA_OK;
}

noema_status nm_row_tensor(const nm_row *row, const nm_model *m, nm_preprocess_scratch *scratch, float *out, noema_error *err)
{
    const nm_preprocess *rule = &m->preprocess;
    const nm_image *im;
    int h = 0, w = 0;
    if (row->tensor)
        return copy_tensor(row, m, out, err);
    noema_status s = row->path ? nm_preprocess_load(rule, scratch, row->path, NULL, &im, err)
                               : nm_preprocess_load_bytes(rule, scratch, row->bytes, row->n_bytes, row->name, NULL, &im, err);
    if (s == NOEMA_OK)
        s = nm_preprocess_size(rule, im->width, im->height, &h, &w, err);
    if (s == NOEMA_OK && (h != m->image_height || w != m->image_width))
        s = nm_fail(err, NOEMA_E_MISMATCH, "%s: preprocessing gives %dx%d, the model takes %dx%d", row->name, h, w, m->image_height, m->image_width);
    return s == NOEMA_OK ? nm_preprocess_run(rule, scratch, im, out, err) : s;
}

static bool class_text(const nm_class_texts *c, const nm_row *row, uint64_t draw, nm_bytes *text)
{
    const char *s = nm_class_texts_pick(c, row->label, draw);
    *text = (nm_bytes){ (const unsigned char *)s, strlen(s) };
    return true;
}

noema_status nm_row_ids(const nm_row_texts *t, nm_tok_scratch *tok, const nm_row *row, int64_t number, uint64_t draw, int32_t *to, int64_t *n, noema_error *err)
{
    char buf[4096];
    nm_bytes text;
    size_t got = 0, most = (size_t)t->max_ids;
    bool there = false;
    if (row->ids && !t->captions) {
        got = (size_t)row->n_ids;
        for (size_t k = 0; k < got && k < most; k++)
            to[k] = (int32_t)row->ids[k];
    } else if (t->captions ? class_text(t->captions, row, draw, &text) : nm_row_title(row, draw >> 1, &text, buf, sizeof buf)) {
        const int32_t *ids;
        noema_status s = noema_tokenizer_encode(t->tokenizer, tok, (const char *)text.p, text.n, &ids, &got, err);
        if (s != NOEMA_OK)
            return s;
        memcpy(to, ids, (got < most ? got : most) * sizeof *to);
        there = true; /* FLIP's tokenizer adds nothing: an empty caption is padding alone */
    }
    *n = (int64_t)got;
    return (there || got) && got <= most ? NOEMA_OK
                              : nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld has no text (or one of %zu tokens; the model takes %lld)", nm_dataset_source(t->rows),
                                        (long long)number, got, (long long)t->max_ids);
}

typedef struct embed_job { const nm_dataset *rows; const nm_model *m; int64_t first; } embed_job;

static noema_status load(void *arg, size_t i, nm_preprocess_scratch *scratch, nm_image *own, float *out, noema_error *err)
{
    embed_job *j = arg;
    nm_row row = { 0 };
    (void)own;
    noema_status s = nm_dataset_read(j->rows, j->first + (int64_t)i, &row, err);
    if (s == NOEMA_OK)
        s = nm_row_tensor(&row, j->m, scratch, out, err);
    nm_row_release(&row);
    return s;
}

noema_status nm_rows_embed(noema_session *s, const nm_dataset *rows, int64_t first, int64_t n, unsigned flags, float *out, noema_error *errors, noema_error *err)
{
    embed_job j = { rows, s->model->m, first };
    return nm_embed_loaded(s, (size_t)n, load, &j, flags, out, errors, err);
}

const char *nm_rows_name(const nm_dataset *rows, int64_t i, char name[256])
{
    nm_row row = { 0 };
    noema_error ignored = NOEMA_ERROR_INIT;
    nm_dataset_read_text(rows, i, &row, &ignored);
    snprintf(name, 256, "%s", row.name);
    nm_row_release(&row);
    return name;
}
