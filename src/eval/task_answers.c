/* task_answers.c - VQA and NLVR2: answers in result files, or of a model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "eval/answers.h"
#include "eval/coco.h"
#include "eval/rows.h"
#include "eval/said.h"
#include "noema/generate.h"

typedef struct question {
    const json_t *row;                     /* in the annotations */
    const char *text, *image, *answer;     /* answer: of the results, or generated */
    char *id, *image_id, *own_answer;
    double accuracy;
} question;

typedef struct answers_job {
    nm_eval *e;
    json_t *annotations, *questions, *results;
    question *q;
    int64_t n;
    nm_ids ids;
} answers_job;

static void job_free(answers_job *j)
{
    for (int64_t i = 0; i < j->n; i++) {
        free(j->q[i].id);
        free(j->q[i].image_id);
        free(j->q[i].own_answer);
    }
    free(j->q);
    nm_ids_free(&j->ids);
    json_decref(j->annotations);
    json_decref(j->questions);
    json_decref(j->results);
}

/* The list in a file: as it is, or under one of the names. */
static const json_t *list_in(const json_t *j, const char *a, const char *b)
{
    const json_t *v = json_is_array(j) ? j : nm_json_get(j, a);
    return v ? v : nm_json_get(j, b);
}

static noema_status add_question(answers_job *j, const json_t *row, const char *path)
{
    question *q = &j->q[j->n];
    *q = (question){ .row = row, .text = nm_json_str(row, "question", NULL), .answer = nm_json_str(row, "prediction", NULL) };
    q->image = nm_json_str(row, "image", nm_json_str(row, "file_name", NULL));
    q->id = nm_id_text(nm_json_get(row, "question_id"));
    q->image_id = nm_id_text(nm_json_get(row, "image_id"));
    j->n++;
    if (!q->id)
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: entry %lld: expected \"question_id\"", path, (long long)j->n - 1);
    if (nm_ids_find(&j->ids, q->id) >= 0)
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: question %s stands there twice", path, q->id);
    return nm_ids_add(&j->ids, nm_strdup(q->id), j->n - 1, j->e->err);
}

static noema_status read_annotations(answers_job *j)
{
    const char *path = j->e->o.annotations;
    json_t *row;
    size_t i;
    noema_status s = NOEMA_OK;
    if (!path)
        return nm_fail(j->e->err, NOEMA_E_ARGUMENT, "expected the right answers (--annotations)");
    if (!(j->annotations = nm_json_load(path, j->e->err)))
        return j->e->err->code;
    const json_t *list = list_in(j->annotations, "annotations", "questions");
    if (!json_is_array(list) || !json_array_size(list))
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: expected {\"annotations\": [...]}, {\"questions\": [...]} or a list", path);
    if (!(j->q = calloc(json_array_size(list), sizeof *j->q)))
        return nm_fail(j->e->err, NOEMA_E_MEMORY, "%s: out of memory", path);
    json_array_foreach(list, i, row)
        if (s == NOEMA_OK && (!j->e->o.limit || j->n < j->e->o.limit))
            s = add_question(j, row, path);
    return s;
}

/* The texts of the questions, from their own file. */
static noema_status read_questions(answers_job *j)
{
    const char *path = j->e->o.questions;
    json_t *row;
    size_t i;
    if (!path)
        return NOEMA_OK;
    if (!(j->questions = nm_json_load(path, j->e->err)))
        return j->e->err->code;
    const json_t *list = list_in(j->questions, "questions", "questions");
    if (!json_is_array(list))
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: expected {\"questions\": [...]} or a list", path);
    json_array_foreach(list, i, row) {
        char *id = nm_id_text(nm_json_get(row, "question_id"));
        int64_t at = id ? nm_ids_find(&j->ids, id) : -1;
        free(id);
        if (at < 0)
            continue;
        j->q[at].text = nm_json_str(row, "question", j->q[at].text);
        j->q[at].image = nm_json_str(row, "image", j->q[at].image);
        if (!j->q[at].image_id)
            j->q[at].image_id = nm_id_text(nm_json_get(row, "image_id"));
    }
    return NOEMA_OK;
}

static noema_status read_results(answers_job *j)
{
    const char *path = j->e->o.results;
    json_t *row;
    size_t i;
    if (!path)
        return NOEMA_OK;
    if (!(j->results = nm_json_load(path, j->e->err)))
        return j->e->err->code;
    if (!json_is_array(j->results))
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: expected [{\"question_id\", \"answer\"}]", path);
    json_array_foreach(j->results, i, row) {
        char *id = nm_id_text(nm_json_get(row, "question_id"));
        const char *answer = nm_json_str(row, "answer", NULL);
        int64_t at = id ? nm_ids_find(&j->ids, id) : -1;
        noema_status s = NOEMA_OK;
        if (!id || !answer)
            s = nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: entry %zu: expected {\"question_id\", \"answer\"}", path, i);
        else if (at < 0 && !j->e->o.limit)
            s = nm_fail(j->e->err, NOEMA_E_MISMATCH, "%s: question %s is not among the annotations", path, id);
        else if (at >= 0 && j->q[at].answer)
            s = nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: question %s has two answers", path, id);
        else if (at >= 0)
            j->q[at].answer = answer;
        free(id);
        if (s != NOEMA_OK)
            return s;
    }
    return NOEMA_OK;
}

/* COCO's names of a picture by its number, as VQA's files give it. */
static char *image_file(answers_job *j, const question *q)
{
    static const char *const forms[] = { "COCO_val2014_%012lld.jpg", "COCO_train2014_%012lld.jpg", "COCO_test2015_%012lld.jpg", "%012lld.jpg", "%lld.jpg", "%lld.png" };
    char name[64];
    const char *beside = j->e->o.annotations;
    if (q->image)
        return nm_eval_image_path(j->e, beside, q->image);
    for (size_t k = 0; q->image_id && k < sizeof forms / sizeof *forms; k++) {
        snprintf(name, sizeof name, forms[k], strtoll(q->image_id, NULL, 10));
        char *path = nm_eval_image_path(j->e, beside, name);
        if (path && nm_file_exists(path))
            return path;
        free(path);
    }
    return q->image_id ? nm_eval_image_path(j->e, beside, q->image_id) : NULL;
}

static bool by_blip(const nm_eval *e) { return strncmp(noema_model_get_info(e->session->model)->family, "blip", 4) == 0; }

typedef struct asking { answers_job *j; noema_generate_options o; } asking;

/* Picture and text as the model gets them; both malloc'd. */
static noema_status question_of(answers_job *j, const question *q, char **path, char **text)
{
    nm_eval *e = j->e;
    nm_buf clean = { 0 };
    *text = NULL;
    *path = image_file(j, q);
    if (!*path || !q->text)
        return nm_fail(e->err, NOEMA_E_FORMAT, "question %s has no %s (--questions)", q->id, *path ? "text" : "picture");
    if (by_blip(e) && nm_blip_text(&clean, q->text, true, 50))
        *text = nm_strdup(clean.data ? clean.data : "");
    else if (!by_blip(e))
        *text = nm_strdup(q->text);
    nm_buf_free(&clean);
    return *text ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: question");
}

static noema_status ask_some(void *arg, int64_t first, int64_t n, nm_said *out)
{
    asking *a = arg;
    noema_picture p[NM_SAID_MOST] = { { 0 } };
    noema_generated g[NM_SAID_MOST] = { { 0 } };
    noema_error why[NM_SAID_MOST] = { NOEMA_ERROR_INIT };
    char *text[NM_SAID_MOST] = { NULL };
    noema_status s = NOEMA_OK;
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        s = question_of(a->j, &a->j->q[first + i], &out[i].input, &text[i]);
        p[i].path = out[i].input;
    }
    if (s == NOEMA_OK)
        s = noema_ask(a->j->e->session, (size_t)n, p, (const char *const *)text, &a->o, g, why, a->j->e->err);
    for (int64_t i = 0; i < n; i++) {
        out[i].text = g[i].text;
        out[i].why = why[i];
        g[i].text = NULL;
        free(text[i]);
    }
    noema_generated_free(g, (size_t)n);
    return s;
}

static noema_status ask_all(answers_job *j)
{
    nm_eval *e = j->e;
    asking a = { .j = j };
    nm_sha256 key;
    char **text = calloc((size_t)j->n + 1, sizeof *text);
    noema_status s = text ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)j->n);
    noema_generate_options_default(&a.o);
    a.o.prompt = e->o.prompt;
    a.o.beams = e->o.beams;
    a.o.max_new = e->o.max_new;
    nm_say_key(&key, e, "answers");
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        char *path, *question;
        s = question_of(j, &j->q[i], &path, &question);
        nm_rows_key_text(&key, path);
        nm_rows_key_text(&key, question);
        free(path);
        free(question);
    }
    if (s == NOEMA_OK)
        s = nm_eval_say(e, &key, "questions", j->n, ask_some, &a, text);
    for (int64_t i = 0; i < j->n && text; i++)
        j->q[i].answer = j->q[i].own_answer = text[i];
    free(text);
    return s;
}

/* ---- VQA ---- */

/* Answers as strings or as {"answer"}. */
static noema_status accuracy_of(answers_job *j, question *q)
{
    const char *text[64];
    json_t *list = nm_json_get(q->row, "answers"), *v;
    size_t i, n = 0;
    if (!list)
        list = nm_json_get(q->row, "direct_answers");
    json_array_foreach(list, i, v) {
        const char *t = json_is_string(v) ? json_string_value(v) : nm_json_str(v, "answer", NULL);
        if (t && n < 64)
            text[n++] = t;
    }
    if (!n)
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: question %s has no \"answers\"", j->e->o.annotations, q->id);
    return nm_vqa_accuracy(&q->accuracy, q->answer, n, text, j->e->err);
}

/* Means in percent of the questions whose `key` says the same; as metrics, or as facts where there is an object for them. */
static noema_status by_type(answers_job *j, const char *key, json_t *facts)
{
    nm_ids types = { 0 };
    double *sum = calloc((size_t)j->n + 1, 2 * sizeof *sum), *count = sum ? sum + j->n : NULL;
    const char **name = calloc((size_t)j->n + 1, sizeof *name);
    int64_t n = 0;
    noema_status s = sum && name ? NOEMA_OK : nm_fail(j->e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)j->n);
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        const char *type = nm_json_str(j->q[i].row, key, NULL);
        if (!type || !j->q[i].answer)
            continue;
        int64_t at = nm_ids_find(&types, type);
        if (at < 0) {
            name[at = n++] = type;
            s = nm_ids_add(&types, nm_strdup(type), at, j->e->err);
        }
        sum[at] += j->q[i].accuracy;
        count[at]++;
    }
    for (int64_t k = 0; k < n && s == NOEMA_OK; k++) {
        double mean = 100 * sum[k] / count[k];
        if (!facts)
            nm_eval_report_metric(j->e->r, name[k], mean, NULL);
        else if (json_object_set_new(facts, name[k], json_real(mean)) != 0)
            s = nm_fail(j->e->err, NOEMA_E_MEMORY, "out of memory: types of questions");
    }
    nm_ids_free(&types);
    free(sum);
    free(name);
    return s;
}

static noema_status score(answers_job *j)
{
    nm_eval *e = j->e;
    double *v = nm_malloc_array((size_t)j->n + 1, sizeof *v), sum = 0;
    nm_interval ci = { NAN, NAN };
    int64_t n = 0;
    noema_status s = v ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld questions", (long long)j->n);
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        question *q = &j->q[i];
        if (!q->answer && !e->session)
            s = nm_fail(e->err, NOEMA_E_MISMATCH, "question %s has no answer among the results", q->id);
        else if (q->answer && (s = accuracy_of(j, q)) == NOEMA_OK)
            sum += v[n++] = 100 * q->accuracy;
    }
    if (s == NOEMA_OK && !n)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "no question has an answer");
    if (s == NOEMA_OK && e->o.bootstrap > 0)
        s = nm_bootstrap_ratio(&ci, n, e->o.bootstrap, e->o.seed, v, NULL, e->err);
    free(v);
    if (s != NOEMA_OK)
        return s;
    nm_eval_report_count(e->r, "n", n);
    nm_eval_report_metric(e->r, "overall", sum / (double)n, &ci);
    s = by_type(j, "answer_type", NULL);
    json_t *types = json_object();
    if (s == NOEMA_OK && types)
        s = by_type(j, "question_type", types);
    nm_eval_report_set(e->r, "per_question_type", types);
    return s;
}

static noema_status write_answers(answers_job *j, const char *path)
{
    nm_buf b = { 0 };
    nm_buf_putc(&b, '[');
    for (int64_t i = 0, n = 0; i < j->n; i++) {
        const question *q = &j->q[i];
        if (!q->answer)
            continue;
        nm_buf_puts(&b, n++ ? ",\n{\"question_id\":" : "{\"question_id\":");
        nm_eval_report_write(&b, json_object_get(q->row, "question_id"));
        nm_buf_puts(&b, ",\"answer\":");
        nm_json_put_str(&b, q->answer, strlen(q->answer));
        nm_buf_putc(&b, '}');
    }
    nm_buf_puts(&b, "]\n");
    noema_status s = b.failed ? nm_fail(j->e->err, NOEMA_E_MEMORY, "%s: out of memory", path) : nm_write_file_atomic(path, b.data, b.len, j->e->err);
    nm_buf_free(&b);
    return s;
}

noema_status nm_eval_vqa(nm_eval *e)
{
    answers_job j = { .e = e };
    noema_status s = read_annotations(&j);
    if (s == NOEMA_OK)
        s = read_questions(&j);
    if (s == NOEMA_OK)
        s = read_results(&j);
    if (s == NOEMA_OK && e->session && !e->o.results)
        s = ask_all(&j);
    if (s == NOEMA_OK && e->session && e->o.predictions)
        s = write_answers(&j, e->o.predictions);
    if (s == NOEMA_OK && e->session && !e->o.results)
        nm_eval_said(e);
    if (s == NOEMA_OK)
        s = score(&j);
    job_free(&j);
    return s;
}

/* ---- NLVR2: is the sentence true of the two pictures? ---- */

typedef struct statement { char *id; const char *sentence; bool label, predicted, known; char *image[2]; } statement;
typedef struct nlvr_job { nm_eval *e; json_t *file, *results; statement *s; int64_t n; nm_ids ids; } nlvr_job;

static void nlvr_free(nlvr_job *j)
{
    for (int64_t i = 0; i < j->n; i++) {
        free(j->s[i].id);
        free(j->s[i].image[0]);
        free(j->s[i].image[1]);
    }
    free(j->s);
    nm_ids_free(&j->ids);
    json_decref(j->file);
    json_decref(j->results);
}

/* true, "True", 1 and so on; -1: neither. */
static int truth(const json_t *v)
{
    if (json_is_boolean(v))
        return json_is_true(v);
    if (v && json_is_integer(v))
        return json_integer_value(v) == 0 ? 0 : json_integer_value(v) == 1 ? 1 : -1;
    const char *s = json_string_value(v);
    if (!s)
        return -1;
    return !strcmp(s, "True") || !strcmp(s, "true") || !strcmp(s, "1") ? 1 : !strcmp(s, "False") || !strcmp(s, "false") || !strcmp(s, "0") ? 0 : -1;
}

/* "dev-850-0-0" has the pictures dev-850-0-img0.png and -img1.png; BLIP's files name them in "images". */
static char *pair_file(nlvr_job *j, const json_t *row, const char *id, int which)
{
    const json_t *list = nm_json_get(row, "images");
    const char *named = json_string_value(json_array_get(list, (size_t)which)), *dash = strrchr(id, '-');
    char name[256];
    if (named)
        return nm_eval_image_path(j->e, j->e->o.annotations, named);
    snprintf(name, sizeof name, "%.*s-img%d.png", (int)(dash ? dash - id : (long)strlen(id)), id, which);
    return nm_eval_image_path(j->e, j->e->o.annotations, name);
}

static noema_status add_statement(nlvr_job *j, const json_t *row, const char *path)
{
    statement *x = &j->s[j->n];
    int label = truth(nm_json_get(row, "label"));
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)j->n);
    json_t *id = nm_json_get(row, "identifier");
    *x = (statement){ .id = id ? nm_id_text(id) : nm_strdup(number), .sentence = nm_json_str(row, "sentence", NULL), .label = label == 1 };
    j->n++;
    if (!x->id || label < 0)
        return nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: entry %lld: expected \"identifier\" and \"label\" (True or False)", path, (long long)j->n - 1);
    x->image[0] = pair_file(j, row, x->id, 0);
    x->image[1] = pair_file(j, row, x->id, 1);
    return nm_ids_add(&j->ids, nm_strdup(x->id), j->n - 1, j->e->err);
}

/* A list, or one object per line. */
static noema_status read_rows(nm_eval *e, const char *path, json_t **out)
{
    char **line, where[64];
    int64_t n;
    if (nm_has_suffix(path, ".json")) {
        FILE *f = fopen(path, "rbe"); /* the official files hold a line per object whatever they are called */
        int first = f ? fgetc(f) : '[';
        if (f)
            fclose(f);
        if (first != '{')
            return (*out = nm_json_load(path, e->err)) ? NOEMA_OK : e->err->code;
    }
    noema_status s = nm_read_lines(&line, &n, path, NM_LINES_LIMIT, e->err);
    if (s != NOEMA_OK)
        return s;
    *out = json_array();
    for (int64_t i = 0; s == NOEMA_OK && i < n; i++) {
        snprintf(where, sizeof where, "line %lld", (long long)i + 1);
        json_t *row = nm_json_parse(line[i], strlen(line[i]), where, e->err);
        if (!row || json_array_append_new(*out, row) != 0)
            s = nm_fail_prefix(e->err, path);
    }
    nm_strings_free(line, n);
    return s;
}

static noema_status set_prediction(nlvr_job *j, const char *id, int value)
{
    int64_t at = nm_ids_find(&j->ids, id);
    if (at < 0 && j->e->o.limit)
        return NOEMA_OK;
    if (at < 0 || value < 0)
        return nm_fail(j->e->err, NOEMA_E_MISMATCH, "%s: '%.80s': expected a statement of the annotations with True or False", j->e->o.results, id);
    j->s[at].predicted = value == 1;
    j->s[at].known = true;
    return NOEMA_OK;
}

/* {"id": true}, [{"identifier", "prediction"}], or CSV lines "identifier,True". */
static noema_status read_predictions(nlvr_job *j)
{
    const char *path = j->e->o.results, *id;
    json_t *v;
    size_t i;
    noema_status s = NOEMA_OK;
    if (!nm_has_suffix(path, ".json")) {
        char **line;
        int64_t n;
        s = nm_read_lines(&line, &n, path, NM_LINES_LIMIT, j->e->err);
        for (int64_t k = 0; s == NOEMA_OK && k < n; k++) {
            char *comma = strrchr(line[k], ',');
            json_t *value = comma ? json_string(comma + 1) : NULL;
            if (comma)
                *comma = 0;
            s = k == 0 && value && truth(value) < 0 ? NOEMA_OK /* a header */ : set_prediction(j, line[k], truth(value));
            json_decref(value);
        }
        if (s == NOEMA_OK || n)
            nm_strings_free(line, n);
        return s;
    }
    if (!(j->results = nm_json_load(path, j->e->err)))
        return j->e->err->code;
    json_object_foreach(j->results, id, v)
        if (s == NOEMA_OK)
            s = set_prediction(j, id, truth(v));
    json_array_foreach(j->results, i, v)
        if (s == NOEMA_OK) {
            char *key = nm_id_text(nm_json_get(v, "identifier"));
            s = key ? set_prediction(j, key, truth(nm_json_get(v, "prediction")))
                    : nm_fail(j->e->err, NOEMA_E_FORMAT, "%s: entry %zu: expected {\"identifier\", \"prediction\"}", path, i);
            free(key);
        }
    return s;
}

static noema_status judge_some(void *arg, int64_t first, int64_t n, nm_said *out)
{
    nlvr_job *j = arg;
    nm_eval *e = j->e;
    noema_picture p[2 * NM_SAID_MOST] = { { 0 } };
    noema_error why[2 * NM_SAID_MOST] = { NOEMA_ERROR_INIT };
    nm_buf clean[NM_SAID_MOST] = { { 0 } };
    const char *text[NM_SAID_MOST] = { NULL };
    float score[NM_SAID_MOST], prob[NM_SAID_MOST];
    size_t own[NM_SAID_MOST + 1] = { 0 };
    noema_status s = NOEMA_OK;
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        const statement *x = &j->s[first + i];
        p[2 * i].path = x->image[0];
        p[2 * i + 1].path = x->image[1];
        own[i + 1] = (size_t)i + 1;
        if (!nm_blip_text(&clean[i], x->sentence, false, 40))
            s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: sentence");
        text[i] = clean[i].data ? clean[i].data : "";
    }
    if (s == NOEMA_OK)
        s = noema_match_own(e->session, 2 * (size_t)n, p, own, text, NULL, score, prob, why, e->err);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        int bad = why[2 * i].code != NOEMA_OK ? 0 : why[2 * i + 1].code != NOEMA_OK ? 1 : -1;
        if (bad >= 0) {
            out[i].input = nm_strdup(p[2 * i + bad].path);
            out[i].why = why[2 * i + bad];
        } else if (!(out[i].text = nm_strdup(prob[i] > 0.5f ? "True" : "False")))
            s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: statements");
    }
    for (int64_t i = 0; i < n; i++)
        nm_buf_free(&clean[i]);
    return s;
}

static noema_status predict(nlvr_job *j)
{
    nm_eval *e = j->e;
    nm_sha256 key;
    if (!(noema_model_tasks(e->session->model) & NOEMA_TASK_PAIR))
        return nm_fail(e->err, NOEMA_E_UNSUPPORTED, "%s: expected a model of pairs of pictures (BLIP's NLVR2 files)", e->session->model->name);
    char **text = calloc((size_t)j->n + 1, sizeof *text);
    noema_status s = text ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld statements", (long long)j->n);
    nm_say_key(&key, e, "statements");
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        const statement *x = &j->s[i];
        if (!x->sentence || !x->image[0] || !x->image[1])
            s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: statement %s has no \"sentence\"", e->o.annotations, x->id);
        nm_rows_key_text(&key, x->image[0]);
        nm_rows_key_text(&key, x->image[1]);
        nm_rows_key_text(&key, x->sentence);
    }
    if (s == NOEMA_OK)
        s = nm_eval_say(e, &key, "statements", j->n, judge_some, j, text);
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        j->s[i].known = text[i] != NULL;
        j->s[i].predicted = text[i] && text[i][0] == 'T';
    }
    if (text)
        nm_strings_free(text, j->n);
    return s;
}

/* {"identifier": true, ...}: what --results reads. */
static noema_status write_predictions(const nlvr_job *j, const char *path)
{
    nm_buf b = { 0 };
    bool any = false;
    for (int64_t i = 0; i < j->n; i++) {
        if (!j->s[i].known)
            continue;
        nm_buf_puts(&b, any ? ",\n" : "{");
        nm_json_put_str(&b, j->s[i].id, strlen(j->s[i].id));
        nm_buf_puts(&b, j->s[i].predicted ? ":true" : ":false");
        any = true;
    }
    nm_buf_puts(&b, any ? "}\n" : "{}\n");
    noema_status s = b.failed ? nm_fail(j->e->err, NOEMA_E_MEMORY, "%s: out of memory", path) : nm_write_file_atomic(path, b.data, b.len, j->e->err);
    nm_buf_free(&b);
    return s;
}

/* Consistency: sentences that are judged rightly for all their pairs of pictures. */
static noema_status nlvr_score(nlvr_job *j)
{
    double *hit = nm_malloc_array((size_t)j->n + 1, sizeof *hit);
    nm_ids sentences = { 0 };
    bool *right = calloc((size_t)j->n + 1, sizeof *right);
    int64_t n = 0, groups = 0, all = 0;
    noema_status s = hit && right ? NOEMA_OK : nm_fail(j->e->err, NOEMA_E_MEMORY, "out of memory: %lld statements", (long long)j->n);
    for (int64_t i = 0; i < j->n && s == NOEMA_OK; i++) {
        statement *x = &j->s[i];
        if (!x->known && !j->e->session)
            s = nm_fail(j->e->err, NOEMA_E_MISMATCH, "%s: no prediction for %s", j->e->o.results, x->id);
        if (!x->known || s != NOEMA_OK)
            continue;
        hit[n] = x->predicted == x->label;
        int64_t group = x->sentence ? nm_ids_find(&sentences, x->sentence) : -1;
        if (group < 0 && x->sentence) {
            s = nm_ids_add(&sentences, nm_strdup(x->sentence), group = groups++, j->e->err);
            right[group] = true;
        }
        if (group >= 0)
            right[group] = right[group] && hit[n] == 1;
        n++;
    }
    for (int64_t g = 0; s == NOEMA_OK && g < groups; g++)
        all += right[g];
    if (s == NOEMA_OK) {
        nm_eval_report_count(j->e->r, "n", n);
        s = nm_eval_share(j->e, "acc", n, hit);
    }
    if (s == NOEMA_OK && groups)
        nm_eval_report_share(j->e->r, "consistency", (double)all / (double)groups, groups);
    nm_ids_free(&sentences);
    free(hit);
    free(right);
    return s;
}

noema_status nm_eval_nlvr(nm_eval *e)
{
    nlvr_job j = { .e = e };
    json_t *row;
    size_t i;
    noema_status s = e->o.annotations ? read_rows(e, e->o.annotations, &j.file)
                                      : nm_fail(e->err, NOEMA_E_ARGUMENT, "expected statements with labels (--annotations)");
    if (s == NOEMA_OK && (!json_is_array(j.file) || !json_array_size(j.file)))
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected statements, a list or one per line", e->o.annotations);
    if (s == NOEMA_OK && !(j.s = calloc(json_array_size(j.file), sizeof *j.s)))
        s = nm_fail(e->err, NOEMA_E_MEMORY, "%s: out of memory", e->o.annotations);
    if (s == NOEMA_OK)
        json_array_foreach(j.file, i, row)
            if (s == NOEMA_OK && (!e->o.limit || j.n < e->o.limit))
                s = add_statement(&j, row, e->o.annotations);
    if (s == NOEMA_OK && !e->o.results && !e->session)
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "expected predictions (--results) or a model (-m)");
    if (s == NOEMA_OK)
        s = e->o.results ? read_predictions(&j) : predict(&j);
    if (s == NOEMA_OK && !e->o.results && e->o.predictions)
        s = write_predictions(&j, e->o.predictions);
    if (s == NOEMA_OK && !e->o.results)
        nm_eval_said(e);
    if (s == NOEMA_OK)
        s = nlvr_score(&j);
    nlvr_free(&j);
    return s;
}
