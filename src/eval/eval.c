/* eval.c - noema_eval: defaults and the choice of the task. */
#include <string.h>

#include "eval/task.h"

void noema_eval_options_default(noema_eval_options *o)
{
    *o = (noema_eval_options){ .struct_size = sizeof *o, .temperature = 0.07, .max_new = -1 };
}

static const char *const names[] = { "zeroshot_classification", "zeroshot_retrieval", "linear_probe", "knn", "geometry", "image_caption_selection",
                                     "captions", "captioning", "vqa", "nlvr2", "clipscore" };

static noema_status run_task(nm_eval *e, noema_eval_task task)
{
    switch (task) {
    case NOEMA_EVAL_ZEROSHOT: return nm_eval_zeroshot(e);
    case NOEMA_EVAL_RETRIEVAL: return nm_eval_retrieval(e);
    case NOEMA_EVAL_PROBE: return nm_eval_neighbours(e, true);
    case NOEMA_EVAL_KNN: return nm_eval_neighbours(e, false);
    case NOEMA_EVAL_GEOMETRY: return nm_eval_geometry(e);
    case NOEMA_EVAL_COMPOSITION: return nm_eval_composition(e);
    case NOEMA_EVAL_CAPTIONS: return nm_eval_captions(e, false);
    case NOEMA_EVAL_CAPTION: return nm_eval_captions(e, true);
    case NOEMA_EVAL_CLIPSCORE: return nm_eval_clipscore(e);
    case NOEMA_EVAL_VQA: return nm_eval_vqa(e);
    case NOEMA_EVAL_NLVR: return nm_eval_nlvr(e);
    }
    return nm_fail(e->err, NOEMA_E_ARGUMENT, "task %d", (int)task);
}

noema_status noema_eval(noema_eval_task task, noema_session *session, const noema_eval_options *o, noema_report **report, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    nm_eval e = { .session = session, .err = err ? err : &local };
    if (!o || !report || o->struct_size > sizeof e.o || (size_t)task >= sizeof names / sizeof *names)
        return nm_fail(e.err, NOEMA_E_ARGUMENT, "noema_eval: a task, options and a place for the report are needed");
    noema_eval_options_default(&e.o);
    memcpy(&e.o, o, o->struct_size);
    for (size_t i = 0; i < e.o.n_k; i++)
        if (e.o.k[i] < 1 || e.o.n_k > 8)
            return nm_fail(e.err, NOEMA_E_ARGUMENT, "k: expected at most 8 numbers from 1 on");
    if (session)
        e.pool = session->model->ctx->pool;
    *report = NULL;
    if (!(e.r = nm_eval_report_new(names[task])))
        return nm_fail(e.err, NOEMA_E_MEMORY, "out of memory: report");
    nm_eval_describe(&e);
    noema_status s = run_task(&e, task);
    if (s == NOEMA_OK && e.n_failed)
        nm_eval_report_count(e.r, "failed", e.n_failed);
    if (s == NOEMA_OK && e.o.published)
        s = nm_eval_published(&e);
    if (s == NOEMA_OK)
        s = nm_eval_report_check(e.r, e.err);
    if (s == NOEMA_OK)
        *report = e.r;
    else
        noema_report_free(e.r);
    return s;
}
