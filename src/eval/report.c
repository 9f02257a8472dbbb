/* report.c - see report.h and noema/eval.h. */
#include "eval/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "noema/version.h"

enum { MAX_METRICS = 512 };

struct noema_report {
    json_t *root, *metrics, *intervals; /* metrics and intervals join root when the report is written */
    noema_metric metric[MAX_METRICS];   /* names are the keys of `metrics` */
    size_t n;
    bool failed;
};

noema_report *nm_eval_report_new(const char *task)
{
    noema_report *r = calloc(1, sizeof *r);
    if (r && (r->root = json_object()) && (r->metrics = json_object()) && (r->intervals = json_object())) {
        nm_eval_report_text(r, "task", task);
        return r;
    }
    noema_report_free(r);
    return NULL;
}

void noema_report_free(noema_report *r)
{
    if (!r)
        return;
    json_decref(r->root);
    json_decref(r->metrics);
    json_decref(r->intervals);
    free(r);
}

json_t *nm_eval_report_root(noema_report *r) { return r->root; }

void nm_eval_report_set(noema_report *r, const char *key, json_t *value) { r->failed |= !value || json_object_set_new(r->root, key, value) != 0; }

void nm_eval_report_text(noema_report *r, const char *key, const char *text)
{
    if (text)
        nm_eval_report_set(r, key, json_stringn_nocheck(text, strlen(text)));
}

void nm_eval_report_count(noema_report *r, const char *key, int64_t n) { nm_eval_report_set(r, key, json_integer(n)); }

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

void nm_eval_report_metric(noema_report *r, const char *name, double value, const nm_interval *interval)
{
    if (r->n == MAX_METRICS || json_object_get(r->metrics, name)) {
        r->failed |= r->n == MAX_METRICS;
        return;
    }
    r->failed |= json_object_set_new(r->metrics, name, number(value)) != 0;
    void *entry = json_object_iter_at(r->metrics, name);
    r->metric[r->n++] = (noema_metric){ .name = entry ? json_object_iter_key(entry) : "", .value = value, .low = interval ? interval->low : NAN,
                                        .high = interval ? interval->high : NAN };
    if (interval && !isnan(interval->low)) {
        json_t *pair = json_array();
        r->failed |= !pair || json_array_append_new(pair, number(interval->low)) != 0 || json_array_append_new(pair, number(interval->high)) != 0 ||
                     json_object_set_new(r->intervals, name, pair) != 0;
    }
}

void nm_eval_report_share(noema_report *r, const char *name, double share, int64_t n)
{
    nm_interval w = nm_share_interval(share, n);
    nm_eval_report_metric(r, name, share, &w);
}

noema_status nm_eval_report_check(const noema_report *r, noema_error *err)
{
    return r->failed ? nm_fail(err, NOEMA_E_MEMORY, "out of memory: report (at most %d metrics)", MAX_METRICS) : NOEMA_OK;
}

static void put_real(nm_buf *b, double v)
{
    char t[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, v);
        if (digits == 17 || strtod(t, NULL) == v)
            break;
    }
    nm_buf_puts(b, t);
    if (!strpbrk(t, ".en")) /* a real stays one for the reader */
        nm_buf_puts(b, ".0");
}

bool nm_eval_report_write(nm_buf *b, const json_t *j)
{
    const char *key;
    json_t *v;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        nm_buf_putc(b, '{');
        json_object_foreach((json_t *)(uintptr_t)j, key, v) {
            if (b->data[b->len - 1] != '{')
                nm_buf_putc(b, ',');
            nm_json_put_str(b, key, strlen(key));
            nm_buf_putc(b, ':');
            nm_eval_report_write(b, v);
        }
        return nm_buf_putc(b, '}');
    case JSON_ARRAY:
        nm_buf_putc(b, '[');
        json_array_foreach(j, i, v) {
            if (i)
                nm_buf_putc(b, ',');
            nm_eval_report_write(b, v);
        }
        return nm_buf_putc(b, ']');
    case JSON_STRING: return nm_json_put_str(b, json_string_value(j), json_string_length(j));
    case JSON_INTEGER: return nm_buf_printf(b, "%lld", (long long)json_integer_value(j));
    case JSON_REAL: put_real(b, json_real_value(j)); return !b->failed;
    default: return nm_buf_puts(b, json_is_true(j) ? "true" : json_is_false(j) ? "false" : "null");
    }
}

size_t noema_report_metrics(const noema_report *r, const noema_metric **m)
{
    *m = r->metric;
    return r->n;
}

const char *noema_report_text(const noema_report *r, const char *key)
{
    const json_t *v = json_object_get(r->root, key);
    return v && json_is_string(v) ? json_string_value(v) : NULL;
}

char *noema_report_json(const noema_report *r)
{
    nm_buf b = { 0 };
    json_t *whole = json_copy(r->root);
    bool ok = whole && json_object_set(whole, "metrics", r->metrics) == 0;
    if (ok && json_object_size(r->intervals))
        ok = json_object_set(whole, "ci95", r->intervals) == 0;
    ok = ok && json_object_set_new(whole, "noema", json_string(NOEMA_VERSION_STRING)) == 0 && nm_eval_report_write(&b, whole);
    json_decref(whole);
    if (ok && !b.failed)
        return nm_buf_take(&b);
    nm_buf_free(&b);
    return NULL;
}
