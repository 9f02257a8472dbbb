/* task.c - what the tasks of noema_eval do alike: failures, progress, shares, the description of the run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/task.h"

void nm_eval_failed(nm_eval *e, const char *what, const noema_error *why)
{
    e->n_failed++;
    if (e->o.failed)
        e->o.failed(e->o.user, what, why);
}

void nm_eval_progress(nm_eval *e, const char *unit, int64_t done, int64_t total)
{
    if (e->o.progress)
        e->o.progress(e->o.user, unit, done, total);
}

bool nm_eval_stopped(nm_eval *e) { return e->o.stop && e->o.stop(e->o.user); }

noema_status nm_eval_need_model(nm_eval *e, bool image, bool text)
{
    if (!e->session)
        return nm_fail(e->err, NOEMA_E_ARGUMENT, "expected a model (-m), or its vectors in files");
    const noema_model_info *info = noema_model_get_info(e->session->model);
    if ((image && !info->has_image) || (text && !info->has_text))
        return nm_fail(e->err, NOEMA_E_UNSUPPORTED, "%s: expected a model of pictures and texts, this one has no %s tower", info->name,
                       image && !info->has_image ? "image" : "text");
    return NOEMA_OK;
}

const char *nm_eval_name(const char *prefix, int64_t k)
{
    static _Thread_local char name[4][64];
    static _Thread_local int at;
    at = (at + 1) % 4;
    snprintf(name[at], sizeof name[at], "%s%lld", prefix, (long long)k);
    return name[at];
}

noema_status nm_eval_share(nm_eval *e, const char *name, int64_t n, const double *hit)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += hit[i];
    double share = n ? sum / (double)n : NAN;
    nm_interval ci;
    if (e->o.bootstrap < 1) {
        nm_eval_report_share(e->r, name, share, n);
        return NOEMA_OK;
    }
    noema_status s = nm_bootstrap_ratio(&ci, n, e->o.bootstrap, e->o.seed, hit, NULL, e->err);
    nm_eval_report_metric(e->r, name, share, &ci);
    return s;
}

/* "ViT-B-32/openai" is a model and a pretrained tag. */
static void describe_model(nm_eval *e)
{
    const noema_model_info *info = noema_model_get_info(e->session->model);
    const char *slash = strchr(info->name, '/');
    static const char *const dtypes[] = { "auto", "f32", "bf16", "f16", "int8" };
    if (slash && !strchr(slash + 1, '/') && info->name[0] != '/' && info->name[0] != '.') {
        char *model = nm_strndup(info->name, (size_t)(slash - info->name));
        nm_eval_report_text(e->r, "model", model ? model : info->name);
        nm_eval_report_text(e->r, "pretrained", slash + 1);
        free(model);
    } else
        nm_eval_report_text(e->r, "model", info->name);
    nm_eval_report_text(e->r, "weights", info->identity);
    nm_eval_report_text(e->r, "preprocess", info->preprocess);
    nm_eval_report_text(e->r, "precision", (size_t)info->dtype < 5 ? dtypes[info->dtype] : NULL);
}

void nm_eval_describe(nm_eval *e)
{
    const char *dataset = e->o.dataset ? e->o.dataset : e->o.n_data ? e->o.data[0] : e->o.n_references ? e->o.references[0] : e->o.annotations;
    nm_eval_report_text(e->r, "dataset", dataset ? dataset : e->o.images ? e->o.images : e->o.scores);
    if (e->session)
        describe_model(e);
    if (e->o.language)
        nm_eval_report_text(e->r, "language", e->o.language);
    if (e->o.bootstrap > 0) {
        nm_eval_report_count(e->r, "bootstrap", e->o.bootstrap);
        nm_eval_report_count(e->r, "seed", (int64_t)e->o.seed);
    }
}
