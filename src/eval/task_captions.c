/* task_captions.c - captions against references, against pictures (CLIPScore), and captions that a model writes first. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "eval/results.h"
#include "eval/rows.h"
#include "eval/said.h"
#include "noema/generate.h"

typedef struct caption_job {
    nm_eval *e;
    nm_id_texts refs, results;
    int64_t n;              /* pictures with a result */
    int64_t *of_ref;        /* [results.n]: the picture's number among the references, -1 */
    int64_t *text_of;       /* [results.n]: number of its caption */
    double *column[12];     /* [n] per picture, for --per-item */
    const char *name[12];
    int n_columns;
} caption_job;

static void job_free(caption_job *j)
{
    nm_id_texts_free(&j->refs);
    nm_id_texts_free(&j->results);
    free(j->of_ref);
    free(j->text_of);
    for (int k = 0; k < j->n_columns; k++)
        free(j->column[k]);
}

static double *new_column(caption_job *j, const char *name)
{
    double *c = calloc((size_t)j->n + 1, sizeof *c);
    if (c) {
        j->column[j->n_columns] = c;
        j->name[j->n_columns++] = name;
    }
    return c;
}

static noema_status no_memory(caption_job *j) { return nm_fail(j->e->err, NOEMA_E_MEMORY, "out of memory: %lld captions", (long long)j->n); }

/* Each picture of the results has one caption and, where there are references, stands among them. */
static noema_status match(caption_job *j)
{
    nm_id_texts *r = &j->results;
    noema_error *err = j->e->err;
    j->n = r->n;
    if (r->n < 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: no captions", j->e->o.results ? j->e->o.results : "results");
    j->of_ref = nm_malloc_array((size_t)r->n, sizeof *j->of_ref);
    j->text_of = nm_malloc_array((size_t)r->n, sizeof *j->text_of);
    if (!j->of_ref || !j->text_of)
        return no_memory(j);
    for (int64_t i = 0; i < r->n; i++) {
        j->text_of[i] = -1;
        j->of_ref[i] = j->e->o.n_references ? nm_id_texts_find(&j->refs, r->id[i]) : -1;
        if (j->e->o.n_references && j->of_ref[i] < 0)
            return nm_fail(err, NOEMA_E_MISMATCH, "%s: picture %s is not among the references", j->e->o.results ? j->e->o.results : "results", r->id[i]);
    }
    for (int64_t k = 0; k < r->n_texts; k++) {
        if (j->text_of[r->owner[k]] >= 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: picture %s has two captions", j->e->o.results, r->id[r->owner[k]]);
        j->text_of[r->owner[k]] = k;
    }
    for (int64_t i = 0; i < r->n; i++)
        if (j->text_of[i] < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: picture %s has no caption", j->e->o.results, r->id[i]);
    nm_eval_report_count(j->e->r, "images", j->n);
    if (j->e->o.n_references && j->refs.n > j->n)
        nm_eval_report_count(j->e->r, "images_without_result", j->refs.n - j->n);
    return NOEMA_OK;
}

/* ---- overlap with references ---- */

static noema_status build(caption_job *j, nm_caption_set *c, bool ptb)
{
    nm_id_texts *r = &j->refs;
    int64_t *next = nm_malloc_array((size_t)r->n_texts + 1, sizeof *next), *first = nm_malloc_array((size_t)r->n + 1, sizeof *first);
    noema_status s = next && first ? NOEMA_OK : no_memory(j);
    for (int64_t i = 0; s == NOEMA_OK && i < r->n; i++)
        first[i] = -1;
    for (int64_t k = r->n_texts; s == NOEMA_OK && k-- > 0;) {
        next[k] = first[r->owner[k]];
        first[r->owner[k]] = k;
    }
    for (int64_t i = 0; s == NOEMA_OK && i < j->n; i++) {
        s = nm_captions_add(c, j->results.text[j->text_of[i]], ptb, j->e->err);
        for (int64_t k = s == NOEMA_OK ? first[j->of_ref[i]] : -1; k >= 0 && s == NOEMA_OK; k = next[k])
            s = nm_captions_reference(c, r->text[k], ptb, j->e->err);
        if (s == NOEMA_OK && c->first[i] == c->first[i + 1])
            s = nm_fail(j->e->err, NOEMA_E_FORMAT, "picture %s has no reference", j->results.id[i]);
    }
    free(next);
    free(first);
    return s;
}

typedef struct bleu_sample { const nm_bleu_counts *each; int order; } bleu_sample;

static double bleu_of(void *arg, int64_t n, const int64_t *drawn)
{
    const bleu_sample *q = arg;
    nm_bleu_counts sum = { 0 };
    double b[4];
    for (int64_t i = 0; i < n; i++) {
        const nm_bleu_counts *x = &q->each[drawn[i]];
        sum.length += x->length;
        sum.reference += x->reference;
        for (int k = 0; k < 4; k++) {
            sum.guess[k] += x->guess[k];
            sum.match[k] += x->match[k];
        }
    }
    nm_bleu_score(&sum, b);
    return b[q->order];
}

static json_t *integers(const int64_t v[4])
{
    return json_pack("[I,I,I,I]", (json_int_t)v[0], (json_int_t)v[1], (json_int_t)v[2], (json_int_t)v[3]);
}

static noema_status bleu(caption_job *j, const nm_caption_set *c)
{
    static const char *const names[] = { "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4" };
    nm_eval *e = j->e;
    nm_bleu_counts *each = calloc((size_t)j->n, sizeof *each), sum = { 0 };
    double *column[4], b[4];
    noema_status s = each ? NOEMA_OK : no_memory(j);
    for (int k = 0; k < 4 && s == NOEMA_OK; k++)
        if (!(column[k] = new_column(j, names[k])))
            s = no_memory(j);
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        s = nm_bleu_count(&each[i], c, i, e->err);
        nm_bleu_score(&each[i], b);
        for (int k = 0; k < 4; k++)
            column[k][i] = b[k];
        sum.length += each[i].length;
        sum.reference += each[i].reference;
        for (int k = 0; k < 4; k++) {
            sum.guess[k] += each[i].guess[k];
            sum.match[k] += each[i].match[k];
        }
    }
    nm_bleu_score(&sum, b);
    nm_eval_report_count(e->r, "testlen", sum.length);
    nm_eval_report_count(e->r, "reflen", sum.reference);
    nm_eval_report_set(e->r, "guess", integers(sum.guess));
    nm_eval_report_set(e->r, "correct", integers(sum.match));
    for (int k = 0; k < 4 && s == NOEMA_OK; k++) {
        bleu_sample q = { each, k };
        nm_interval ci = { NAN, NAN };
        if (e->o.bootstrap > 0)
            s = nm_bootstrap(&ci, j->n, e->o.bootstrap, e->o.seed, bleu_of, &q, e->err);
        nm_eval_report_metric(e->r, names[k], b[k], &ci);
    }
    free(each);
    return s;
}

/* The mean of a column, with its interval. */
static noema_status report_mean(caption_job *j, const char *name, const double *v)
{
    nm_eval *e = j->e;
    nm_interval ci = { NAN, NAN };
    double sum = 0;
    int64_t n = 0;
    noema_status s = NOEMA_OK;
    for (int64_t i = 0; i < j->n; i++)
        if (!isnan(v[i])) {
            sum += v[i];
            n++;
        }
    if (e->o.bootstrap > 0 && n == j->n)
        s = nm_bootstrap_ratio(&ci, n, e->o.bootstrap, e->o.seed, v, NULL, e->err);
    nm_eval_report_metric(e->r, name, n ? sum / (double)n : NAN, &ci);
    return s;
}

static noema_status rouge(caption_job *j, const nm_caption_set *c)
{
    double *v = new_column(j, "ROUGE_L");
    noema_status s = v ? NOEMA_OK : no_memory(j);
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        v[i] = nm_rouge_l(c, i, j->e->err);
        s = isnan(v[i]) ? j->e->err->code : NOEMA_OK;
    }
    return s == NOEMA_OK ? report_mean(j, "ROUGE_L", v) : s;
}

static noema_status cider(caption_job *j, const nm_caption_set *c, bool plain)
{
    const char *name = plain ? "CIDEr" : "CIDEr_D", *file = j->e->o.document_frequency;
    json_t *df = file ? nm_json_load(file, j->e->err) : NULL;
    double *v = new_column(j, name);
    nm_cider_options o = { .plain = plain, .df = df };
    noema_status s = file && !df ? j->e->err->code : v ? nm_cider(c, &o, v, j->e->err) : no_memory(j);
    if (s != NOEMA_OK && df)
        nm_fail_prefix(j->e->err, file);
    json_decref(df);
    return s == NOEMA_OK ? report_mean(j, name, v) : s;
}

/* Each caption against its best reference; the corpus by the sums. */
static noema_status meteor_items(caption_job *j, const nm_caption_set *c, nm_meteor *m, double *v, double *corpus)
{
    nm_meteor_counts sum = { 0 };
    noema_status s = NOEMA_OK;
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        nm_meteor_counts best = { 0 }, one;
        v[i] = -1;
        for (int64_t r = c->first[i]; r < c->first[i + 1] && s == NOEMA_OK; r++) {
            s = nm_meteor_score(m, c->hyp_text[i], c->ref_text[r], &one, j->e->err);
            if (s == NOEMA_OK && nm_meteor_value(&one) > v[i]) {
                v[i] = nm_meteor_value(&one);
                best = one;
            }
        }
        nm_meteor_sum(&sum, &best);
    }
    *corpus = nm_meteor_value(&sum);
    return s;
}

static noema_status meteor(caption_job *j, const nm_caption_set *c)
{
    nm_eval *e = j->e;
    nm_meteor *m;
    double corpus = NAN;
    noema_status s = nm_meteor_open(&m, e->o.meteor_words, e->o.meteor_synonyms, e->o.meteor_paraphrases, e->err);
    if (s != NOEMA_OK)
        return s;
    double *v = new_column(j, "METEOR");
    s = v ? meteor_items(j, c, m, v, &corpus) : no_memory(j);
    if (s == NOEMA_OK)
        nm_eval_report_metric(e->r, nm_meteor_name(m), corpus, NULL);
    nm_meteor_free(m);
    return s;
}

static noema_status overlap(caption_job *j)
{
    nm_caption_set c = { 0 };
    const char *tokens = j->e->o.tokens ? j->e->o.tokens : "ptb";
    if (strcmp(tokens, "ptb") != 0 && strcmp(tokens, "space") != 0)
        return nm_fail(j->e->err, NOEMA_E_ARGUMENT, "tokens '%s': expected ptb or space", tokens);
    nm_eval_report_text(j->e->r, "tokens", tokens);
    noema_status s = build(j, &c, tokens[0] == 'p');
    if (s == NOEMA_OK)
        s = bleu(j, &c);
    if (s == NOEMA_OK)
        s = rouge(j, &c);
    if (s == NOEMA_OK)
        s = cider(j, &c, false);
    if (s == NOEMA_OK)
        s = cider(j, &c, true);
    if (s == NOEMA_OK)
        s = meteor(j, &c);
    nm_captions_free(&c);
    return s;
}

/* ---- CLIPScore: 2.5 max(cos, 0) of picture and "A photo depicts " + caption (arXiv 2104.08718) ---- */

/* The file of result i: COCO's file name, else its id with or without an ending. */
static char *picture_path(caption_job *j, int64_t i)
{
    static const char *const endings[] = { "", ".jpg", ".png", ".jpeg", ".webp", ".JPEG" };
    nm_eval *e = j->e;
    const char *file = j->results.file[i] ? j->results.file[i] : j->of_ref[i] >= 0 ? j->refs.file[j->of_ref[i]] : NULL;
    const char *beside = e->o.n_references ? e->o.references[0] : e->o.results ? e->o.results : ".";
    if (file)
        return nm_eval_image_path(e, beside, file);
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++) {
        char *name = nm_sprintf("%s%s", j->results.id[i], endings[k]), *path = name ? nm_eval_image_path(e, beside, name) : NULL;
        free(name);
        if (path && nm_file_exists(path))
            return path;
        free(path);
    }
    return nm_eval_image_path(e, beside, j->results.id[i]);
}

static noema_status prompted(nm_eval *e, char *const *text, int64_t n, nm_vectors *v)
{
    char **with = calloc((size_t)n + 1, sizeof *with);
    noema_status s = with ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: captions");
    for (int64_t i = 0; s == NOEMA_OK && i < n; i++)
        if (!(with[i] = nm_sprintf("%s%s", e->o.prompt ? e->o.prompt : "A photo depicts ", text[i])))
            s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: captions");
    if (s == NOEMA_OK)
        s = nm_eval_embed_texts(e, n, with, v);
    nm_strings_free(with, n);
    return s;
}

static noema_status scores(caption_job *j, const nm_pictures *p, const nm_vectors *images, const nm_vectors *texts, const nm_vectors *refs)
{
    double *clip = new_column(j, "CLIPScore"), *ref = refs->n ? new_column(j, "RefCLIPScore") : NULL;
    int64_t dim = images->dim;
    if (!clip || (refs->n && !ref))
        return no_memory(j);
    for (int64_t i = 0; i < j->n; i++) {
        const double *t = texts->x + j->text_of[i] * dim;
        clip[i] = p->bad[i] ? NAN : 2.5 * fmax(0, nm_dot64(images->x + i * dim, t, dim));
        if (ref)
            ref[i] = -1;
    }
    for (int64_t i = 0; refs->n && i < j->n; i++)
        for (int64_t k = 0; k < j->refs.n_texts; k++)
            if (j->refs.owner[k] == j->of_ref[i])
                ref[i] = fmax(ref[i], nm_dot64(texts->x + j->text_of[i] * dim, refs->x + k * dim, dim));
    for (int64_t i = 0; refs->n && i < j->n; i++)
        ref[i] = clip[i] + ref[i] > 0 ? 2 * clip[i] * ref[i] / (clip[i] + ref[i]) : isnan(clip[i]) ? NAN : 0;
    noema_status s = report_mean(j, "CLIPScore", clip);
    return s == NOEMA_OK && ref ? report_mean(j, "RefCLIPScore", ref) : s;
}

static noema_status clipscore(caption_job *j)
{
    nm_eval *e = j->e;
    nm_pictures p = { 0 };
    nm_vectors images = { 0 }, texts = { 0 }, refs = { 0 };
    noema_status s = nm_eval_need_model(e, true, true);
    for (int64_t i = 0; s == NOEMA_OK && i < j->n; i++)
        s = nm_pictures_add(&p, picture_path(j, i), e->err);
    if (s == NOEMA_OK)
        s = nm_eval_embed_pictures(e, &p, NOEMA_NORMALIZE, &images);
    if (s == NOEMA_OK)
        s = prompted(e, j->results.text, j->results.n_texts, &texts);
    if (s == NOEMA_OK && j->refs.n_texts)
        s = prompted(e, j->refs.text, j->refs.n_texts, &refs);
    if (s == NOEMA_OK)
        s = scores(j, &p, &images, &texts, &refs);
    nm_pictures_free(&p);
    nm_vectors_free(&images);
    nm_vectors_free(&texts);
    nm_vectors_free(&refs);
    return s;
}

/* ---- captions that the model writes ---- */

typedef struct writing { caption_job *j; noema_generate_options o; } writing;

static char *ref_path(caption_job *j, int64_t i)
{
    return nm_eval_image_path(j->e, j->e->o.references[0], j->refs.file[i] ? j->refs.file[i] : j->refs.id[i]);
}

static noema_status write_some(void *arg, int64_t first, int64_t n, nm_said *out)
{
    writing *w = arg;
    noema_picture p[NM_SAID_MOST] = { { 0 } };
    noema_generated g[NM_SAID_MOST] = { { 0 } };
    noema_error why[NM_SAID_MOST] = { NOEMA_ERROR_INIT };
    noema_status s = NOEMA_OK;
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++)
        if (!(p[i].path = out[i].input = ref_path(w->j, first + i)))
            s = no_memory(w->j);
    if (s == NOEMA_OK)
        s = noema_caption(w->j->e->session, (size_t)n, p, &w->o, g, why, w->j->e->err);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        out[i].text = g[i].text;
        out[i].why = why[i];
        g[i].text = NULL;
    }
    noema_generated_free(g, (size_t)n);
    return s;
}

static noema_status generate(caption_job *j)
{
    nm_eval *e = j->e;
    writing w = { .j = j };
    nm_sha256 key;
    int64_t n = e->o.limit && e->o.limit < j->refs.n ? e->o.limit : j->refs.n;
    char **text = calloc((size_t)n + 1, sizeof *text);
    noema_status s = text ? NOEMA_OK : no_memory(j);
    noema_generate_options_default(&w.o);
    w.o.prompt = e->o.prompt;
    w.o.beams = e->o.beams;
    w.o.max_new = e->o.max_new;
    nm_say_key(&key, e, "captions");
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        char *path = ref_path(j, i);
        nm_rows_key_text(&key, path);
        free(path);
    }
    if (s == NOEMA_OK)
        s = nm_eval_say(e, &key, "captions", n, write_some, &w, text);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++)
        if (text[i])
            s = nm_id_texts_add(&j->results, j->refs.id[i], text[i], e->err);
    if (text)
        nm_strings_free(text, n);
    return s;
}

/* [{"image_id", "caption"}], ids as numbers where they are numbers. */
static noema_status write_results(caption_job *j, const char *path)
{
    nm_buf b = { 0 };
    nm_buf_putc(&b, '[');
    for (int64_t k = 0; k < j->results.n_texts; k++) {
        const char *id = j->results.id[j->results.owner[k]], *text = j->results.text[k];
        bool number = *id && strspn(id, "0123456789") == strlen(id) && strlen(id) < 18 && (id[0] != '0' || !id[1]);
        nm_buf_puts(&b, k ? ",\n{\"image_id\":" : "{\"image_id\":");
        if (number)
            nm_buf_puts(&b, id);
        else
            nm_json_put_str(&b, id, strlen(id));
        nm_buf_puts(&b, ",\"caption\":");
        nm_json_put_str(&b, text, strlen(text));
        nm_buf_putc(&b, '}');
    }
    nm_buf_puts(&b, "]\n");
    noema_status s = b.failed ? no_memory(j) : nm_write_file_atomic(path, b.data, b.len, j->e->err);
    nm_buf_free(&b);
    return s;
}

static noema_status write_items(caption_job *j)
{
    nm_buf b = { 0 };
    nm_buf_puts(&b, "image_id");
    for (int k = 0; k < j->n_columns; k++)
        nm_buf_printf(&b, ",%s", j->name[k]);
    for (int64_t i = 0; i < j->n; i++) {
        bool quote = strpbrk(j->results.id[i], ",\"\r\n") != NULL;
        nm_buf_puts(&b, quote ? "\n\"" : "\n");
        for (const char *c = j->results.id[i]; *c; c++) {
            if (*c == '"')
                nm_buf_putc(&b, '"');
            nm_buf_putc(&b, *c);
        }
        if (quote)
            nm_buf_putc(&b, '"');
        for (int k = 0; k < j->n_columns; k++)
            nm_buf_printf(&b, ",%.9g", j->column[k][i]);
    }
    nm_buf_putc(&b, '\n');
    noema_status s = b.failed ? no_memory(j) : nm_write_file_atomic(j->e->o.per_item, b.data, b.len, j->e->err);
    nm_buf_free(&b);
    return s;
}

static noema_status read_inputs(caption_job *j, bool results)
{
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < j->e->o.n_references && s == NOEMA_OK; i++)
        s = nm_id_texts_read(&j->refs, j->e->o.references[i], j->e->err);
    if (s == NOEMA_OK && results && !j->e->o.results)
        s = nm_fail(j->e->err, NOEMA_E_ARGUMENT, "expected the captions to measure (--results)");
    return s == NOEMA_OK && results ? nm_id_texts_read(&j->results, j->e->o.results, j->e->err) : s;
}

noema_status nm_eval_captions(nm_eval *e, bool write)
{
    caption_job j = { .e = e };
    noema_status s = e->o.n_references ? NOEMA_OK : nm_fail(e->err, NOEMA_E_ARGUMENT, "expected the captions to compare with (--references)");
    if (s == NOEMA_OK && write && !e->session)
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "expected a model that writes captions (-m)");
    if (s == NOEMA_OK)
        s = read_inputs(&j, !write);
    if (s == NOEMA_OK && write)
        s = generate(&j);
    if (s == NOEMA_OK && write && e->o.predictions)
        s = write_results(&j, e->o.predictions);
    if (s == NOEMA_OK && write)
        nm_eval_said(e);
    if (s == NOEMA_OK)
        s = match(&j);
    if (s == NOEMA_OK)
        s = overlap(&j);
    if (s == NOEMA_OK && !write && e->session)
        s = clipscore(&j);
    if (s == NOEMA_OK && e->o.per_item)
        s = write_items(&j);
    job_free(&j);
    return s;
}

noema_status nm_eval_clipscore(nm_eval *e)
{
    caption_job j = { .e = e };
    noema_status s = nm_eval_need_model(e, true, true);
    if (s == NOEMA_OK)
        s = read_inputs(&j, true);
    if (s == NOEMA_OK)
        s = match(&j);
    if (s == NOEMA_OK)
        s = clipscore(&j);
    if (s == NOEMA_OK && e->o.per_item)
        s = write_items(&j);
    job_free(&j);
    return s;
}
