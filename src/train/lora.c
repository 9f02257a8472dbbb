/* lora.c - see lora.h. */
#include "train/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "train/groups.h"
#include "train/trainer.h"
#include "weights/weights.h"

typedef struct site {
    char *name_a, *name_b;
    nm_weight *w;            /* the adapted matrix [out, in] */
    int64_t first, rows, in; /* its rows that this site adapts */
    float *base;             /* [rows, in] W0 */
    nm_weight a, b;
} site;

struct nm_lora { int64_t rank; double scale; char *targets; site *sites; size_t n; };

/* Ends of names in the order of `third`: rows of a fused matrix, -1: the whole. */
static const struct { const char *target, *end; int third; } places[] = {
    { "q", "attn.in_proj_weight", 0 }, { "k", "attn.in_proj_weight", 1 }, { "v", "attn.in_proj_weight", 2 },
    { "q", "attn.qkv.weight", 0 },     { "k", "attn.qkv.weight", 1 },     { "v", "attn.qkv.weight", 2 },
    { "out", "attn.out_proj.weight", -1 }, { "out", "attn.proj.weight", -1 },
    { "fc", "mlp.c_fc.weight", -1 },   { "fc", "mlp.fc1.weight", -1 },
    { "proj", "mlp.c_proj.weight", -1 }, { "proj", "mlp.fc2.weight", -1 },
};
enum { PLACES = sizeof places / sizeof *places };

static bool listed(const char *targets, const char *word, size_t n)
{
    for (const char *p = targets; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && strncmp(p, word, n) == 0)
            return true;
    return false;
}

static noema_status check_targets(const char *targets, noema_error *err)
{
    for (const char *p = targets; *p; p += strcspn(p, ","), p += *p == ',') {
        size_t n = strcspn(p, ",");
        bool known = false;
        for (int i = 0; i < PLACES; i++)
            known = known || (strlen(places[i].target) == n && strncmp(places[i].target, p, n) == 0);
        if (!known)
            return nm_fail(err, NOEMA_E_ARGUMENT, "LoRA targets '%s': expected some of q,k,v,out,fc,proj", targets);
    }
    return *targets ? NOEMA_OK : nm_fail(err, NOEMA_E_ARGUMENT, "LoRA targets: expected some of q,k,v,out,fc,proj");
}

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n > k && s[n - k - 1] == '.' && strcmp(s + n - k, with) == 0;
}

static bool matrix(nm_weight *w, int64_t rows, int64_t cols)
{
    float *p = nm_calloc((size_t)(rows * cols), sizeof *p);
    if (p)
        nm_weight_set(w, p, NM_SHAPE(rows, cols));
    return p;
}

static noema_status add_site(nm_lora *l, const nm_train_param *q, int place, uint64_t seed, noema_error *err)
{
    site *s = &l->sites[l->n];
    int64_t out = q->w->shape.dim[0], in = q->w->shape.dim[1];
    int third = places[place].third;
    *s = (site){ .w = q->w, .rows = third < 0 ? out : out / 3, .in = in };
    s->first = third < 0 ? 0 : third * s->rows;
    if (l->rank > s->rows || l->rank > in)
        return nm_fail(err, NOEMA_E_ARGUMENT, "LoRA rank %lld: %s has only %lld x %lld", (long long)l->rank, q->name, (long long)s->rows, (long long)in);
    size_t stem = strlen(q->name) - strlen(places[place].end); /* "visual.transformer.resblocks.0." */
    const char *module = strncmp(places[place].end, "attn.", 5) == 0 ? "attn." : "mlp.";
    s->name_a = nm_sprintf("%.*s%s%s.lora_A", (int)stem, q->name, module, places[place].target);
    s->name_b = nm_sprintf("%.*s%s%s.lora_B", (int)stem, q->name, module, places[place].target);
    s->base = nm_alloc((size_t)(s->rows * in) * sizeof *s->base);
    l->n++;
    if (!s->name_a || !s->name_b || !s->base || !matrix(&s->a, l->rank, in) || !matrix(&s->b, s->rows, l->rank))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: LoRA of %s", q->name);
    memcpy(s->base, q->w->f32 + s->first * in, (size_t)(s->rows * in) * sizeof *s->base);
    nm_rng r;
    nm_rng_init(&r, seed, ((uint64_t)1 << 48) + l->n);
    float bound = 1 / sqrtf((float)in); /* kaiming_uniform(sqrt 5), as the authors' code */
    for (int64_t i = 0; i < l->rank * in; i++)
        s->a.f32[i] = (2 * nm_rng_uniform(&r) - 1) * bound;
    return NOEMA_OK;
}

noema_status nm_lora_new(nm_lora **out, const nm_lora_options *o, nm_train_param *params, size_t n, noema_error *err)
{
    const char *targets = o->targets ? o->targets : "q,v";
    nm_lora *l = calloc(1, sizeof *l);
    *out = NULL;
    noema_status s = check_targets(targets, err);
    if (s == NOEMA_OK && (o->rank < 1 || !isfinite(o->alpha)))
        s = nm_fail(err, NOEMA_E_ARGUMENT, "LoRA: expected a rank of at least 1 and a finite alpha");
    if (s == NOEMA_OK && (!l || !(l->targets = nm_strdup(targets)) || !(l->sites = nm_malloc_array(3 * n + 1, sizeof *l->sites))))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: LoRA");
    if (s == NOEMA_OK) {
        l->rank = o->rank;
        l->scale = o->alpha / (double)o->rank;
    }
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        nm_tower tower = nm_tower_of(params[i].name);
        if (params[i].w->shape.ndim != 2 || !((tower == NM_TOWER_IMAGE && o->image) || (tower == NM_TOWER_TEXT && o->text)))
            continue;
        for (int k = 0; k < PLACES && s == NOEMA_OK; k++)
            if (ends(params[i].name, places[k].end) && listed(targets, places[k].target, strlen(places[k].target)))
                s = add_site(l, &params[i], k, o->seed, err);
    }
    if (s == NOEMA_OK && l->n == 0)
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "LoRA: the model has no matrix of the targets %s", targets);
    if (s != NOEMA_OK) {
        nm_lora_free(l);
        return s;
    }
    *out = l;
    return NOEMA_OK;
}

void nm_lora_free(nm_lora *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n; i++) {
        site *s = &l->sites[i];
        free(s->name_a);
        free(s->name_b);
        nm_free(s->base);
        nm_weight_free(&s->a);
        nm_weight_free(&s->b);
    }
    free(l->sites);
    free(l->targets);
    free(l);
}

size_t nm_lora_count(const nm_lora *l) { return 2 * l->n; }
const char *nm_lora_name(const nm_lora *l, size_t i) { return i & 1 ? l->sites[i / 2].name_b : l->sites[i / 2].name_a; }
nm_weight *nm_lora_weight(nm_lora *l, size_t i) { return i & 1 ? &l->sites[i / 2].b : &l->sites[i / 2].a; }

bool nm_lora_is_adapter(const char *name) { return nm_has_suffix(name, ".lora_A") || nm_has_suffix(name, ".lora_B"); }

bool nm_lora_adapts(const nm_lora *l, const nm_weight *w)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->sites[i].w == w)
            return true;
    return false;
}

/* ---- merging and gradients: a few operations per element of W, rank times ---- */

static void merge_sites(void *arg, int64_t begin, int64_t end, int worker)
{
    nm_lora *l = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        site *s = &l->sites[i];
        float *w = s->w->f32 + s->first * s->in;
        memcpy(w, s->base, (size_t)(s->rows * s->in) * sizeof *w);
        for (int64_t o = 0; o < s->rows; o++)
            for (int64_t k = 0; k < l->rank; k++) {
                float f = (float)(l->scale * (double)s->b.f32[o * l->rank + k]);
                const float *a = s->a.f32 + k * s->in;
                for (int64_t c = 0; c < s->in; c++)
                    w[o * s->in + c] += f * a[c];
            }
    }
}

void nm_lora_merge(nm_lora *l, nm_pool *pool)
{
    nm_parallel_for(pool, (int64_t)l->n, 1, merge_sites, l);
    for (size_t i = 0; i < l->n; i++)
        nm_weight_changed(l->sites[i].w);
}

/* dA += s B^T dW, dB += s dW A^T. */
static void fold_sites(void *arg, int64_t begin, int64_t end, int worker)
{
    nm_lora *l = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        site *s = &l->sites[i];
        const float *dw = s->w->grad->data ? s->w->grad->data + s->first * s->in : NULL;
        float *da = s->a.grad->data, *db = s->b.grad->data;
        for (int64_t o = 0; dw && o < s->rows; o++)
            for (int64_t k = 0; k < l->rank; k++) {
                const float *a = s->a.f32 + k * s->in, *row = dw + o * s->in;
                float f = (float)(l->scale * (double)s->b.f32[o * l->rank + k]), lane[8] = { 0 };
                for (int64_t c = 0; c < s->in; c++) {
                    da[k * s->in + c] += f * row[c];
                    lane[c & 7] += row[c] * a[c];
                }
                double dot = 0;
                for (int c = 0; c < 8; c++)
                    dot += (double)lane[c];
                db[o * l->rank + k] += (float)(l->scale * dot);
            }
    }
}

bool nm_lora_gradients(nm_lora *l, nm_pool *pool)
{
    for (size_t i = 0; i < nm_lora_count(l); i++) {
        nm_weight *w = nm_lora_weight(l, i);
        size_t n = (size_t)nm_shape_numel(w->shape);
        if (!w->grad->data && !(w->grad->data = nm_calloc(n, sizeof(float))))
            return false;
    }
    nm_parallel_for(pool, (int64_t)l->n, 1, fold_sites, l);
    return true;
}

/* ---- files ---- */

noema_status nm_lora_load(nm_lora *l, const char *path, nm_pool *pool, noema_error *err)
{
    nm_weights *f = NULL;
    char want[128], got[128];
    noema_status s = nm_weights_open(&f, path, err);
    for (int apply = 0; apply < 2; apply++) /* everything is checked before anything is changed */
        for (size_t i = 0; i < nm_lora_count(l) && s == NOEMA_OK; i++) {
            const nm_weight *w = nm_lora_weight(l, i);
            const nm_wview *v = nm_weights_find(f, nm_lora_name(l, i));
            if (!v)
                s = nm_fail(err, NOEMA_E_MISSING, "%s: expected a tensor %s", path, nm_lora_name(l, i));
            else if (v->ndim != 2 || v->shape[0] != w->shape.dim[0] || v->shape[1] != w->shape.dim[1])
                s = nm_fail(err, NOEMA_E_MISMATCH, "%s: %s: expected %s, got %s", path, nm_lora_name(l, i), nm_shape_text(2, w->shape.dim, want),
                            nm_shape_text(v->ndim, v->shape, got));
            else if (apply)
                nm_wview_copy_f32(v, w->f32);
        }
    nm_weights_close(f);
    if (s == NOEMA_OK)
        nm_lora_merge(l, pool);
    return s;
}

noema_status nm_lora_save(const nm_lora *l, const char *path, noema_error *err)
{
    size_t n = nm_lora_count(l);
    nm_wview *v = nm_malloc_array(n, sizeof *v);
    char rank[32], alpha[32];
    snprintf(rank, sizeof rank, "%lld", (long long)l->rank);
    snprintf(alpha, sizeof alpha, "%.17g", l->scale * (double)l->rank);
    json_t *meta = json_pack("{s:s,s:s,s:s,s:s}", "format", "pt", "r", rank, "lora_alpha", alpha, "target_modules", l->targets);
    noema_status s = v && meta ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        const site *at = &l->sites[i / 2];
        const nm_weight *w = i & 1 ? &at->b : &at->a;
        v[i] = (nm_wview){ .name = nm_lora_name(l, i), .dtype = NM_F32, .ndim = 2, .shape = { w->shape.dim[0], w->shape.dim[1] },
                           .stride = { w->shape.dim[1], 1 }, .data = w->f32 };
    }
    if (s == NOEMA_OK)
        s = nm_safetensors_write(path, v, n, meta, err);
    json_decref(meta);
    free(v);
    return s;
}
