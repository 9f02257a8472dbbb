/* params.c - the parameter visitor and its basic visitors: see params.h. */
#include "nn/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"

/* ---- declaring ---- */

size_t nm_params_push(nm_params *p, nm_names names, int index)
{
    size_t mark = strlen(p->prefix);
    const char *s = names.scheme[p->scheme];
    if (!s)
        s = names.scheme[0] ? names.scheme[0] : "";
    const char *d = strstr(s, "%d");
    if (d)
        snprintf(p->prefix + mark, sizeof p->prefix - mark, "%.*s%d%s", (int)(d - s), s, index, d + 2);
    else
        snprintf(p->prefix + mark, sizeof p->prefix - mark, "%s", s);
    return mark;
}

void nm_params_pop(nm_params *p, size_t mark) { p->prefix[mark] = 0; }

#define NAME_MAX_LEN 384

void nm_param(nm_params *p, nm_weight *w, nm_shape shape, nm_names names, nm_init init, unsigned flags)
{
    const char *s = names.scheme[p->scheme];
    if (!s)
        return;
    char full[NM_MAX_PARTS][NAME_MAX_LEN];
    nm_param_info info = { .w = w, .shape = shape, .init = init, .flags = flags };
    if (strncmp(s, "T:", 2) == 0) {
        info.layout = NM_LAYOUT_TRANSPOSED;
        s += 2;
    } else if (strncmp(s, "HWIO:", 5) == 0) {
        info.layout = NM_LAYOUT_HWIO;
        s += 5;
    }
    while (info.n_parts < NM_MAX_PARTS) {
        size_t n = strcspn(s, "|");
        snprintf(full[info.n_parts], NAME_MAX_LEN, "%s%.*s", p->prefix, (int)n, s);
        info.part_name[info.n_parts] = full[info.n_parts];
        info.n_parts++;
        if (!s[n])
            break;
        s += n + 1;
    }
    p->visit(p, &info);
}

/* ---- loading ---- */

typedef struct load_state {
    const nm_weights *file;
    const char *prefix; /* in the file, before the declared names */
    nm_load_report *report;
    const nm_wview **used;
    size_t n_used, cap_used;
    nm_buf first; /* the names that the error message lists */
    size_t n_named;
    bool out_of_memory;
} load_state;

static void complain(load_state *s, const char *what, const char *name, const char *detail)
{
    nm_buf_printf(&s->report->text, "%s %s%s%s\n", what, name, detail[0] ? ": " : "", detail);
    if (s->n_named++ < 8)
        nm_buf_printf(&s->first, "%s%s %s%s%s", s->first.len ? "; " : "", what, name, detail[0] ? ": " : "", detail);
}

static const nm_wview *take(load_state *s, const char *name)
{
    char full[NAME_MAX_LEN + 128];
    snprintf(full, sizeof full, "%s%s", s->prefix, name);
    const nm_wview *v = nm_weights_find(s->file, full);
    if (v && s->n_used == s->cap_used) {
        size_t cap = s->cap_used ? 2 * s->cap_used : 512;
        const nm_wview **u = nm_realloc_array(s->used, cap, sizeof *u);
        if (!u) {
            s->out_of_memory = true;
            return NULL;
        }
        s->used = u;
        s->cap_used = cap;
    }
    if (v)
        s->used[s->n_used++] = v;
    return v;
}

/* The stored shape as the declaration sees it: transposed back, [] and [1] the same; false when it cannot be the parameter. */
static bool fits(const nm_param_info *info, const nm_wview *v, nm_shape *got)
{
    *got = (nm_shape){ .ndim = v->ndim };
    for (int d = 0; d < v->ndim; d++)
        got->dim[nm_layout_dim(nm_layout_of(info->layout, v->ndim), d)] = v->shape[d];
    if (info->shape.ndim == 0 && nm_shape_numel(*got) == 1) {
        got->ndim = 0;
        return true;
    }
    if (got->ndim != info->shape.ndim)
        return false;
    for (int i = info->n_parts > 1 ? 1 : 0; i < got->ndim; i++)
        if (info->shape.dim[i] >= 0 && got->dim[i] != info->shape.dim[i])
            return false;
    return true;
}

static void load_visit(nm_params *p, const nm_param_info *info)
{
    load_state *s = p->user;
    nm_weight *w = info->w;
    nm_weight_free(w);
    nm_shape whole = info->shape;
    int64_t rows = 0;
    w->transposed = info->layout == NM_LAYOUT_TRANSPOSED;
    for (int i = 0; i < info->n_parts; i++) {
        const nm_wview *v = take(s, info->part_name[i]);
        nm_shape got;
        char a[128], b[128], detail[300];
        if (!v) {
            *w = (nm_weight){ .shape = { .ndim = -1 } };
            if (info->flags & NM_OPTIONAL)
                return;
            s->report->n_missing++;
            complain(s, "missing", info->part_name[i], "");
            return;
        }
        if (!fits(info, v, &got)) {
            *w = (nm_weight){ .shape = { .ndim = -1 } };
            snprintf(detail, sizeof detail, "expected %s, got %s", nm_shape_text(info->shape.ndim, info->shape.dim, a),
                     nm_shape_text(v->ndim, v->shape, b));
            s->report->n_mismatched++;
            complain(s, "mismatched", info->part_name[i], detail);
            return;
        }
        if (i == 0)
            whole = got;
        rows += got.ndim ? got.dim[0] : 0;
        nm_tensor t = { .dtype = v->dtype, .ndim = v->ndim, .data = (void *)(uintptr_t)v->data };
        nm_layout seen = nm_layout_of(info->layout, v->ndim) == NM_LAYOUT_HWIO ? NM_LAYOUT_HWIO : NM_LAYOUT_SAME; /* matrices: w->transposed */
        for (int d = 0; d < v->ndim; d++) {
            t.shape[nm_layout_dim(seen, d)] = v->shape[d];
            t.stride[nm_layout_dim(seen, d)] = v->stride[d];
        }
        w->part[w->n_parts++] = t;
    }
    if (info->n_parts > 1)
        whole.dim[0] = rows;
    w->shape = whole;
    if (info->n_parts > 1 && info->shape.dim[0] >= 0 && rows != info->shape.dim[0]) {
        s->report->n_mismatched++;
        complain(s, "mismatched", info->part_name[0], "the parts do not add up to the declared rows");
        *w = (nm_weight){ .shape = { .ndim = -1 } };
        return;
    }
    s->report->n_params++;
    s->report->n_elements += nm_shape_numel(whole);
    if ((whole.ndim <= 1 || (info->flags & NM_AS_F32)) && !nm_weight_make_f32(w))
        s->out_of_memory = true;
}

static int by_pointer(const void *a, const void *b)
{
    const nm_wview *x = *(const nm_wview *const *)a, *y = *(const nm_wview *const *)b;
    return (x > y) - (x < y);
}

static bool ignored(const char *name, const char *const *ignore)
{
    for (; ignore && *ignore; ignore++) {
        size_t n = strlen(*ignore);
        if (n && (*ignore)[n - 1] == '*' ? strncmp(name, *ignore, n - 1) == 0 : strcmp(name, *ignore) == 0)
            return true;
    }
    return false;
}

static void list_unused(load_state *s, const char *const *ignore)
{
    qsort(s->used, s->n_used, sizeof *s->used, by_pointer);
    for (size_t i = 0; i < nm_weights_count(s->file); i++) {
        const nm_wview *v = nm_weights_at(s->file, i);
        bool used = s->n_used && bsearch(&v, s->used, s->n_used, sizeof *s->used, by_pointer);
        if (used || ignored(v->name, ignore))
            continue;
        s->report->n_unused++;
        nm_buf_printf(&s->report->text, "unused %s\n", v->name);
    }
}

noema_status nm_params_load(nm_declare_fn *declare, void *model, int scheme, const nm_weights *file, const char *prefix, const char *const *ignore,
                            nm_load_report *report, noema_error *err)
{
    nm_load_report local = { 0 };
    load_state s = { .file = file, .prefix = prefix ? prefix : "", .report = report ? report : &local };
    nm_params p = { .visit = load_visit, .user = &s, .scheme = scheme, .err = err };
    declare(&p, model);
    list_unused(&s, ignore);
    noema_status st = NOEMA_OK;
    if (s.out_of_memory || s.report->text.failed)
        st = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", nm_weights_path(file, 0));
    else if (s.report->n_missing || s.report->n_mismatched)
        st = nm_fail(err, s.report->n_mismatched ? NOEMA_E_MISMATCH : NOEMA_E_MISSING, "%s: %zu tensors missing, %zu of another shape: %s%s",
                     nm_weights_path(file, 0), s.report->n_missing, s.report->n_mismatched, s.first.data, s.n_named > 8 ? "; ..." : "");
    free(s.used);
    nm_buf_free(&s.first);
    nm_buf_free(&local.text);
    return st;
}

/* ---- drawing new values ---- */

typedef struct init_state { uint64_t seed, stream; noema_error *err; noema_status status; } init_state;

static void init_visit(nm_params *p, const nm_param_info *info)
{
    init_state *s = p->user;
    uint64_t stream = s->stream++;
    int64_t n = nm_shape_numel(info->shape);
    float *v = n >= 0 ? nm_alloc((size_t)n * sizeof *v) : NULL;
    if (!v) {
        s->status = nm_fail(s->err, n < 0 ? NOEMA_E_INTERNAL : NOEMA_E_MEMORY, "cannot make %s", info->part_name[0]);
        return;
    }
    nm_rng r;
    nm_rng_init(&r, s->seed, stream);
    for (int64_t i = 0; i < n; i++)
        switch (info->init.kind) {
        case NM_INIT_ZEROS: v[i] = 0; break;
        case NM_INIT_ONES: v[i] = 1; break;
        case NM_INIT_CONST: v[i] = info->init.value; break;
        case NM_INIT_NORMAL: v[i] = info->init.value * nm_rng_normal(&r); break;
        case NM_INIT_UNIFORM: v[i] = info->init.value * (2 * nm_rng_uniform(&r) - 1); break;
        }
    nm_weight_set(info->w, v, info->shape);
}

noema_status nm_params_init(nm_declare_fn *declare, void *model, uint64_t seed, noema_error *err)
{
    init_state s = { .seed = seed, .err = err };
    nm_params p = { .visit = init_visit, .user = &s, .err = err };
    declare(&p, model);
    return s.status;
}

/* ---- counting, freeing ---- */

static void count_visit(nm_params *p, const nm_param_info *info)
{
    if (nm_has(info->w) && !(info->flags & NM_BUFFER))
        *(int64_t *)p->user += nm_shape_numel(info->w->shape);
}

int64_t nm_params_count(nm_declare_fn *declare, void *model)
{
    int64_t n = 0;
    nm_params p = { .visit = count_visit, .user = &n };
    declare(&p, model);
    return n;
}

static void free_visit(nm_params *p, const nm_param_info *info)
{
    (void)p;
    nm_weight_free(info->w);
}

void nm_params_free(nm_declare_fn *declare, void *model)
{
    nm_params p = { .visit = free_visit };
    declare(&p, model);
}

/* ---- saving ---- */

typedef struct save_state {
    nm_wview *views;
    char **names;
    void **data;
    size_t n, cap;
    nm_dtype dtype;
    noema_status status;
    noema_error *err;
} save_state;

static void *to_dtype(float *f, int64_t n, nm_dtype dtype)
{
    if (dtype == NM_F32)
        return f;
    if (dtype == NM_I64) {
        int64_t *d = nm_alloc((size_t)n * sizeof *d);
        for (int64_t i = 0; d && i < n; i++)
            d[i] = (int64_t)f[i];
        nm_free(f);
        return d;
    }
    uint16_t *h = nm_alloc((size_t)n * 2);
    for (int64_t i = 0; h && i < n; i++)
        h[i] = dtype == NM_F16 ? nm_f32_to_f16(f[i]) : nm_f32_to_bf16(f[i]);
    nm_free(f);
    return h;
}

static bool save_one(save_state *s, const char *name, nm_shape shape, float *f, nm_dtype dtype)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        nm_wview *v = nm_realloc_array(s->views, cap, sizeof *v);
        if (v)
            s->views = v;
        char **nn = v ? nm_realloc_array(s->names, cap, sizeof *nn) : NULL;
        if (nn)
            s->names = nn;
        void **d = nn ? nm_realloc_array(s->data, cap, sizeof *d) : NULL;
        if (!d) {
            nm_free(f);
            return false;
        }
        s->data = d;
        s->cap = cap;
    }
    char *copy = nm_strdup(name);
    void *data = f ? to_dtype(f, nm_shape_numel(shape), dtype) : NULL;
    s->names[s->n] = copy;
    s->data[s->n] = data;
    nm_tensor t = nm_view(data, dtype, shape);
    nm_wview *v = &s->views[s->n++];
    *v = (nm_wview){ .name = copy, .dtype = dtype, .ndim = t.ndim, .data = data };
    memcpy(v->shape, t.shape, sizeof v->shape);
    memcpy(v->stride, t.stride, sizeof v->stride);
    return copy && data;
}

/* f in the declared layout becomes what is stored. */
static float *stored_layout(float *f, nm_shape *shape, nm_layout layout)
{
    nm_tensor t = nm_view(f, NM_F32, *shape);
    nm_wview v = { .dtype = NM_F32, .ndim = shape->ndim, .data = f };
    for (int d = 0; d < shape->ndim; d++) {
        v.shape[d] = t.shape[nm_layout_dim(layout, d)];
        v.stride[d] = t.stride[nm_layout_dim(layout, d)];
    }
    float *out = f ? nm_alloc((size_t)nm_shape_numel(*shape) * sizeof *out) : NULL;
    if (out)
        nm_wview_copy_f32(&v, out);
    nm_free(f);
    memcpy(shape->dim, v.shape, sizeof shape->dim[0] * (size_t)shape->ndim);
    return out;
}

static void save_visit(nm_params *p, const nm_param_info *info)
{
    save_state *s = p->user;
    const nm_weight *w = info->w;
    if (!nm_has(w) || s->status != NOEMA_OK)
        return;
    int64_t n = nm_shape_numel(w->shape), each = n / info->n_parts;
    float *all = nm_alloc((size_t)(n ? n : 1) * sizeof *all);
    bool ok = all != NULL;
    if (ok)
        nm_weight_copy_f32(w, all);
    for (int i = 0; ok && i < info->n_parts; i++) {
        nm_shape shape = w->shape;
        if (info->n_parts > 1)
            shape.dim[0] /= info->n_parts;
        float *part = nm_alloc((size_t)(each ? each : 1) * sizeof *part);
        if (part)
            memcpy(part, all + i * each, (size_t)each * sizeof *part);
        if (nm_layout_of(info->layout, shape.ndim) != NM_LAYOUT_SAME)
            part = stored_layout(part, &shape, info->layout);
        ok = part && save_one(s, info->part_name[i], shape, part, (info->flags & NM_COUNTER) == NM_COUNTER ? NM_I64 : shape.ndim > 1 ? s->dtype : NM_F32);
    }
    nm_free(all);
    if (!ok)
        s->status = nm_fail(s->err, NOEMA_E_MEMORY, "out of memory: saving %s", info->part_name[0]);
}

noema_status nm_params_save(nm_declare_fn *declare, void *model, int scheme, const char *path, nm_dtype dtype, noema_error *err)
{
    save_state s = { .dtype = dtype, .err = err };
    nm_params p = { .visit = save_visit, .user = &s, .scheme = scheme, .err = err };
    declare(&p, model);
    if (s.status == NOEMA_OK)
        s.status = nm_safetensors_write(path, s.views, s.n, NULL, err);
    for (size_t i = 0; i < s.n; i++) {
        free(s.names[i]);
        nm_free(s.data[i]);
    }
    free(s.views);
    free(s.names);
    free(s.data);
    return s.status;
}
