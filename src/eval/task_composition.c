/* task_composition.c - SugarCrepe, Winoground and ARO: which caption belongs to which picture (specs/evaluation.md, section 4).
 *
 * SugarCrepe: {"0": {"filename", "caption", "negative_caption"}}. Winoground: rows {"image_0", "image_1", "caption_0", "caption_1"}. ARO
 * relations and attributes: [{"image_path", "true_caption", "false_caption", "relation_name" | "attributes", bbox}]; the mean is over
 * relations (macro). Orders: [{"image", "captions": [true, ...]}]. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "eval/coco.h"

/* One question: a picture (or two) and its captions, the right one first. */
typedef struct item { int64_t picture[2], caption[8]; int n_pictures, n_captions; int64_t group; } item;

typedef struct set {
    nm_eval *e;
    nm_pictures p;
    nm_ids seen;      /* pictures by path */
    item *item;
    int64_t n, cap;
    char **group;     /* relations, attribute pairs, subsets */
    int64_t n_groups;
    const char *path;
} set;

static void set_free(set *q)
{
    nm_pictures_free(&q->p);
    nm_ids_free(&q->seen);
    nm_strings_free(q->group, q->n_groups);
    free(q->item);
}

static noema_status no_memory(set *q) { return nm_fail(q->e->err, NOEMA_E_MEMORY, "%s: out of memory", q->path); }

/* The number of a picture; pictures that several questions share are embedded once. */
static noema_status picture(set *q, const char *name, int64_t *number)
{
    char *path = nm_eval_image_path(q->e, q->path, name);
    if (!path)
        return no_memory(q);
    *number = nm_ids_find(&q->seen, path);
    if (*number >= 0) {
        free(path);
        return NOEMA_OK;
    }
    *number = q->p.n;
    noema_status s = nm_ids_add(&q->seen, nm_strdup(path), q->p.n, q->e->err);
    if (s != NOEMA_OK) {
        free(path);
        return s;
    }
    return nm_pictures_add(&q->p, path, q->e->err);
}

static noema_status group_of(set *q, const char *name, int64_t *number)
{
    *number = nm_strings_index(&q->group, &q->n_groups, name);
    return *number < 0 ? no_memory(q) : NOEMA_OK;
}

static noema_status add(set *q, const json_t *row, const char *where, const char *const *images, const char *const *captions, int n_captions, const char *group)
{
    if (q->n == q->cap) {
        int64_t cap = q->cap ? 2 * q->cap : 256;
        item *p = nm_realloc_array(q->item, (size_t)cap, sizeof *p);
        if (!p)
            return no_memory(q);
        q->item = p;
        q->cap = cap;
    }
    item *x = &q->item[q->n];
    *x = (item){ .n_captions = n_captions };
    noema_status s = NOEMA_OK;
    (void)row;
    for (int i = 0; i < 2 && images[i] && s == NOEMA_OK; i++, x->n_pictures++)
        s = picture(q, images[i], &x->picture[i]);
    for (int i = 0; i < n_captions && s == NOEMA_OK; i++) {
        if (!captions[i])
            return nm_fail(q->e->err, NOEMA_E_FORMAT, "%s: %s: expected captions as text", q->path, where);
        x->caption[i] = q->p.n_captions;
        s = nm_pictures_caption(&q->p, captions[i], x->picture[0], q->e->err);
    }
    if (s == NOEMA_OK)
        s = group_of(q, group, &x->group);
    q->n += s == NOEMA_OK;
    return s;
}

/* "black,large" of ["black", "large"], or the relation's name. */
static void group_name(const json_t *row, char out[256])
{
    json_t *list = nm_json_get(row, "attributes"), *v;
    size_t i, n = 0;
    snprintf(out, 256, "%s", nm_json_str(row, "relation_name", ""));
    json_array_foreach(list, i, v)
        if (json_is_string(v) && n < 200)
            n += (size_t)snprintf(out + n, 256 - n, "%s%.48s", n ? "," : "", json_string_value(v));
}

static noema_status add_row(set *q, const json_t *row, const char *where)
{
    const char *images[3] = { nm_json_str(row, "filename", nm_json_str(row, "image_path", nm_json_str(row, "image", NULL))) }, *captions[8];
    char group[256];
    json_t *list = nm_json_get(row, "captions"), *v;
    size_t i;
    group_name(row, group);
    if (nm_json_str(row, "image_0", NULL)) {
        images[0] = nm_json_str(row, "image_0", NULL);
        images[1] = nm_json_str(row, "image_1", NULL);
        captions[0] = nm_json_str(row, "caption_0", NULL);
        captions[1] = nm_json_str(row, "caption_1", NULL);
        return images[1] ? add(q, row, where, images, captions, 2, group)
                         : nm_fail(q->e->err, NOEMA_E_FORMAT, "%s: %s: expected \"image_1\" beside \"image_0\"", q->path, where);
    }
    if (!images[0])
        return nm_fail(q->e->err, NOEMA_E_FORMAT, "%s: %s: expected \"filename\", \"image_path\", \"image\" or \"image_0\"", q->path, where);
    if (nm_json_get(row, "bbox_x"))
        return nm_fail(q->e->err, NOEMA_E_UNSUPPORTED, "%s: %s: cut the pictures by their bbox_* first and leave those out", q->path, where);
    if (nm_json_str(row, "negative_caption", NULL)) {
        captions[0] = nm_json_str(row, "caption", NULL);
        captions[1] = nm_json_str(row, "negative_caption", NULL);
        return add(q, row, where, images, captions, 2, group);
    }
    if (nm_json_str(row, "false_caption", NULL)) {
        captions[0] = nm_json_str(row, "true_caption", NULL);
        captions[1] = nm_json_str(row, "false_caption", NULL);
        return add(q, row, where, images, captions, 2, group);
    }
    if (json_array_size(list) < 2 || json_array_size(list) > 8)
        return nm_fail(q->e->err, NOEMA_E_FORMAT, "%s: %s: expected \"negative_caption\", \"false_caption\" or 2 to 8 \"captions\"", q->path, where);
    json_array_foreach(list, i, v)
        captions[i] = json_string_value(v);
    return add(q, row, where, images, captions, (int)json_array_size(list), group);
}

/* JSON, or one object per line. */
static noema_status read_set(set *q, const char *path)
{
    char where[64];
    const char *key;
    json_t *v;
    size_t i;
    noema_status s = NOEMA_OK;
    q->path = path;
    if (nm_has_suffix(path, ".jsonl")) {
        char **line;
        int64_t n;
        s = nm_read_lines(&line, &n, path, NM_LINES_LIMIT, q->e->err);
        for (int64_t k = 0; s == NOEMA_OK && k < n; k++) {
            snprintf(where, sizeof where, "line %lld", (long long)k + 1);
            json_t *row = nm_json_parse(line[k], strlen(line[k]), where, q->e->err);
            s = row ? add_row(q, row, where) : q->e->err->code;
            json_decref(row);
        }
        if (q->n || s == NOEMA_OK)
            nm_strings_free(line, n);
        return s;
    }
    json_t *j = nm_json_load(path, q->e->err);
    if (!j)
        return q->e->err->code;
    if (json_is_array(j))
        json_array_foreach(j, i, v) {
            snprintf(where, sizeof where, "entry %zu", i);
            s = s == NOEMA_OK ? add_row(q, v, where) : s;
        }
    else
        json_object_foreach(j, key, v) {
            snprintf(where, sizeof where, "entry %.40s", key);
            s = s == NOEMA_OK ? add_row(q, v, where) : s;
        }
    json_decref(j);
    return s == NOEMA_OK && !q->n ? nm_fail(q->e->err, NOEMA_E_FORMAT, "%s: no questions", path) : s;
}

/* ---- figures ---- */

static double score(const nm_vectors *images, const nm_vectors *texts, int64_t i, int64_t j)
{
    return nm_dot64(images->x + i * images->dim, texts->x + j * texts->dim, texts->dim);
}

static noema_status winoground(nm_eval *e, int64_t n, const double *s)
{
    static const char *const names[] = { "text_score", "image_score", "group_score" };
    double *hit = nm_malloc_array((size_t)n + 1, sizeof *hit);
    noema_status st = hit ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)n);
    for (int k = 0; k < 3 && st == NOEMA_OK; k++) {
        for (int64_t i = 0; i < n; i++) {
            nm_winoground w = nm_winoground_scores(1, s + 4 * i);
            hit[i] = k == 0 ? w.text : k == 1 ? w.image : w.group;
        }
        st = nm_eval_share(e, names[k], n, hit);
    }
    free(hit);
    nm_eval_report_set(e->r, "chance", json_pack("[f,f,f]", 0.25, 0.25, 1.0 / 6));
    return st;
}

/* Macro mean over groups that have one; each subset's own figure where there are few. */
static void by_group(nm_eval *e, const set *q, const bool *use, const double *hit)
{
    double macro = 0;
    int64_t used = 0;
    for (int64_t g = 0; g < q->n_groups; g++) {
        double sum = 0;
        int64_t n = 0;
        for (int64_t i = 0; i < q->n; i++)
            if (use[i] && q->item[i].group == g) {
                sum += hit[i];
                n++;
            }
        if (n) {
            macro += sum / (double)n;
            used++;
        }
    }
    if (q->n_groups > 1)
        nm_eval_report_metric(e->r, "macro_acc", macro / (double)used, NULL);
}

static noema_status choices(nm_eval *e, const set *q, const nm_vectors *images, const nm_vectors *texts)
{
    double *hit = nm_malloc_array((size_t)q->n + 1, sizeof *hit), chance = 0;
    double *kept = nm_malloc_array((size_t)q->n + 1, sizeof *kept);
    bool *use = calloc((size_t)q->n + 1, sizeof *use);
    int64_t n = 0, ties = 0;
    noema_status s = hit && kept && use ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)q->n);
    for (int64_t i = 0; s == NOEMA_OK && i < q->n; i++) {
        const item *x = &q->item[i];
        double v[8];
        bool tie = false;
        if (q->p.bad[x->picture[0]])
            continue;
        for (int c = 0; c < x->n_captions; c++) {
            v[c] = score(images, texts, x->picture[0], x->caption[c]);
            tie = tie || (c && v[c] == v[0]);
        }
        use[i] = true;
        hit[i] = kept[n++] = nm_first_wins(1, x->n_captions, v);
        chance += 1.0 / x->n_captions;
        ties += tie;
    }
    if (s == NOEMA_OK) {
        nm_eval_report_count(e->r, "n", n);
        nm_eval_report_count(e->r, "ties", ties);
        nm_eval_report_set(e->r, "chance", json_real(chance / (double)(n ? n : 1)));
        s = nm_eval_share(e, "acc", n, kept);
        by_group(e, q, use, hit);
    }
    free(hit);
    free(kept);
    free(use);
    return s;
}

static noema_status pairs(nm_eval *e, const set *q, const nm_vectors *images, const nm_vectors *texts)
{
    double *v = nm_malloc_array((size_t)q->n, 4 * sizeof *v);
    int64_t n = 0;
    if (!v)
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)q->n);
    for (int64_t i = 0; i < q->n; i++) {
        const item *x = &q->item[i];
        if (x->n_pictures != 2 || q->p.bad[x->picture[0]] || q->p.bad[x->picture[1]])
            continue;
        for (int c = 0; c < 2; c++)
            for (int k = 0; k < 2; k++)
                v[4 * n + 2 * c + k] = score(images, texts, x->picture[k], x->caption[c]);
        n++;
    }
    nm_eval_report_count(e->r, "n", n);
    noema_status s = winoground(e, n, v);
    free(v);
    return s;
}

static noema_status from_data(nm_eval *e)
{
    set q = { .e = e };
    nm_vectors images = { 0 }, texts = { 0 };
    noema_status s = nm_eval_need_model(e, true, true);
    for (size_t i = 0; i < e->o.n_data && s == NOEMA_OK; i++)
        s = read_set(&q, e->o.data[i]);
    if (s == NOEMA_OK && e->o.limit && q.n > e->o.limit)
        q.n = e->o.limit;
    if (s == NOEMA_OK)
        s = nm_eval_embed_pictures(e, &q.p, NOEMA_NORMALIZE, &images);
    if (s == NOEMA_OK)
        s = nm_eval_embed_texts(e, q.p.n_captions, q.p.caption, &texts);
    if (s == NOEMA_OK && e->n_failed == q.p.n)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "none of the %lld pictures could be read", (long long)q.p.n);
    if (s == NOEMA_OK)
        s = q.item[0].n_pictures == 2 ? pairs(e, &q, &images, &texts) : choices(e, &q, &images, &texts);
    nm_vectors_free(&images);
    nm_vectors_free(&texts);
    set_free(&q);
    return s;
}

/* Ready scores: [n, 2, 2] (caption, image), or [n, choices] with the right one first. */
static noema_status from_scores(nm_eval *e)
{
    double *x;
    int ndim = 0;
    int64_t shape[3];
    noema_status s = nm_eval_array(e, e->o.scores, &x, &ndim, shape);
    if (s != NOEMA_OK)
        return s;
    nm_eval_report_count(e->r, "n", shape[0]);
    if (ndim == 3 && shape[1] == 2 && shape[2] == 2)
        s = winoground(e, shape[0], x);
    else if (ndim == 2 && shape[1] >= 2) {
        double *hit = nm_malloc_array((size_t)shape[0] + 1, sizeof *hit);
        for (int64_t i = 0; hit && i < shape[0]; i++)
            hit[i] = nm_first_wins(1, shape[1], x + i * shape[1]);
        nm_eval_report_set(e->r, "chance", json_real(1 / (double)shape[1]));
        s = hit ? nm_eval_share(e, "acc", shape[0], hit) : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)shape[0]);
        free(hit);
    } else
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected scores [n, 2, 2] (caption, image) or [n, choices], the right one first", e->o.scores);
    free(x);
    return s;
}

noema_status nm_eval_composition(nm_eval *e)
{
    if (e->o.scores)
        return from_scores(e);
    return e->o.n_data ? from_data(e) : nm_fail(e->err, NOEMA_E_ARGUMENT, "expected questions (--data FILE.json) or scores (--scores)");
}
