/* report.c - see report.h. */
#include "train/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/stats.h"

static double accuracy(const nm_score *s) { return s->rows ? (double)s->right / (double)s->rows : NAN; }

static json_t *text_or_null(const char *s) { return s ? json_string(s) : json_null(); }

static json_t *score_json(const nm_score *s, const char *key, json_t *value)
{
    json_t *j = s->classes ? nm_score_json(s) : json_null();
    if (s->classes && key)
        json_object_set_new(j, key, value);
    else
        json_decref(value);
    return j;
}

static json_t *report_json(const nm_report *r)
{
    const nm_score *before = r->before.classes ? &r->before : NULL;
    json_t *j = json_object();
    json_object_set_new(j, "model", text_or_null(r->model));
    json_object_set_new(j, "train_data", text_or_null(r->train_data));
    json_object_set_new(j, "val_data", text_or_null(r->val_data));
    json_object_set_new(j, "measured_on", json_string(r->val_data ? "val_data" : "train_data"));
    json_object_set_new(j, "classes", json_integer((json_int_t)r->after.classes));
    json_object_set_new(j, "train_rows", json_integer((json_int_t)r->rows));
    json_object_set_new(j, "steps", json_integer((json_int_t)r->steps));
    json_object_set_new(j, "parameters", json_integer((json_int_t)r->parameters));
    json_object_set_new(j, "trained_parameters", json_integer((json_int_t)r->trained));
    json_object_set_new(j, "seconds", json_real(r->seconds));
    json_object_set_new(j, "before", score_json(&r->before, "head", text_or_null(r->before_head)));
    json_object_set_new(j, "after", score_json(&r->after, NULL, NULL));
    json_object_set_new(j, "wise_ft", score_json(&r->wise, "alpha", json_real(r->alpha)));
    json_object_set_new(j, "difference", before ? nm_score_difference(before, &r->after) : json_null());
    json_object_set_new(j, "per_class", nm_score_classes(r->names, before, &r->after));
    return j;
}

/* ---- for people: names come last, whatever their width ---- */

static void put_share(nm_buf *b, const json_t *v)
{
    if (json_is_number(v))
        nm_buf_printf(b, "%7.2f %%", 100 * json_number_value(v));
    else
        nm_buf_printf(b, "%9s", "-");
}

static void put_interval(nm_buf *b, const json_t *v)
{
    if (json_is_array(v))
        nm_buf_printf(b, "  [%6.2f, %6.2f]", 100 * json_number_value(json_array_get(v, 0)), 100 * json_number_value(json_array_get(v, 1)));
    else
        nm_buf_printf(b, "  %16s", "");
}

static void put_line(nm_buf *b, const json_t *score, const char *what, const char *more)
{
    if (!json_is_object(score))
        return;
    put_share(b, json_object_get(score, "accuracy"));
    put_interval(b, json_object_get(score, "interval"));
    nm_buf_printf(b, "  %s%s%s\n", what, *more ? ": " : "", more);
}

static bool report_text(const nm_report *r, const json_t *j, nm_buf *b)
{
    char alpha[32];
    json_t *row;
    size_t i;
    nm_buf_printf(b, "model       %s\ntrained on  %s, %lld rows of %lld classes, %lld steps, %.0f s\nparameters  %lld trained of %lld\nmeasured on %s, %lld rows",
                  r->model, r->train_data, (long long)r->rows, (long long)r->after.classes, (long long)r->steps, r->seconds, (long long)r->trained,
                  (long long)r->parameters, r->val_data ? r->val_data : "the training rows", (long long)r->after.rows);
    if (r->after.unreadable)
        nm_buf_printf(b, " (%lld cannot be read)", (long long)r->after.unreadable);
    nm_buf_puts(b, "\n\n accuracy  95 % interval\n");
    snprintf(alpha, sizeof alpha, "alpha %g", r->alpha);
    put_line(b, json_object_get(j, "before"), "before", r->before_head ? r->before_head : "");
    put_line(b, json_object_get(j, "after"), "after", "");
    put_line(b, json_object_get(j, "wise_ft"), "WiSE-FT", alpha);
    put_line(b, json_object_get(j, "difference"), "after - before", "paired bootstrap");
    nm_buf_puts(b, "\n   before      after  95 % interval        rows  class\n");
    json_array_foreach(json_object_get(j, "per_class"), i, row) {
        put_share(b, json_object_get(row, "before"));
        nm_buf_puts(b, "  ");
        put_share(b, json_object_get(row, "after"));
        put_interval(b, json_object_get(row, "interval"));
        nm_buf_printf(b, "  %6lld  %s\n", (long long)json_integer_value(json_object_get(row, "rows")), json_string_value(json_object_get(row, "class")));
    }
    return !b->failed;
}

static noema_status write_text(const char *folder, const char *name, const char *text, size_t n, noema_error *err)
{
    char *path = nm_path_join(folder, name);
    noema_status s = path && text ? nm_write_file_atomic(path, text, n, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory: %s", folder, name);
    free(path);
    return s;
}

noema_status nm_report_write(const nm_report *r, const char *folder, noema_error *err)
{
    nm_buf b = { 0 };
    json_t *j = report_json(r);
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    noema_status s = write_text(folder, "report.json", text, text ? strlen(text) : 0, err);
    if (s == NOEMA_OK)
        s = report_text(r, j, &b) ? write_text(folder, "report.txt", b.data, b.len, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    nm_buf_free(&b);
    free(text);
    json_decref(j);
    return s;
}

void nm_report_result(const nm_report *r, noema_finetune_result *out)
{
    *out = (noema_finetune_result){ .rows = r->rows, .classes = r->after.classes, .trained_parameters = r->trained,
                                    .before = r->before.classes ? accuracy(&r->before) : NAN, .after = accuracy(&r->after),
                                    .wise_ft = r->wise.classes ? accuracy(&r->wise) : NAN };
    nm_wilson(r->after.right, r->after.rows, out->interval);
}

void nm_report_free(nm_report *r)
{
    nm_score_free(&r->before);
    nm_score_free(&r->after);
    nm_score_free(&r->wise);
}
