/* kv_cache.c - see kv_cache.h. */
#include "models/kv_cache.h"

#include <string.h>

size_t nm_kv_bytes(const nm_run *r, int layers, int64_t width, int64_t max_rows, int64_t max_length)
{
    size_t rows, bytes, all;
    bool ok = nm_mul_size((size_t)max_rows, (size_t)max_length, &rows) && nm_mul_size(rows, (size_t)width * nm_dtype_size(r->act), &bytes) &&
              nm_mul_size(bytes, (size_t)layers + 1, &all);
    return ok ? all : 0;
}

bool nm_kv_init(nm_run *r, nm_kv_cache *k, int layers, int64_t width, int64_t items, int64_t max_rows, int64_t max_length)
{
    size_t all = nm_kv_bytes(r, layers, width, max_rows, max_length);
    *k = (nm_kv_cache){ .layers = layers, .width = width, .dtype = r->act, .items = items, .max_rows = max_rows, .max_length = max_length };
    if (!all) {
        nm_run_fail(r, NOEMA_E_LIMIT, "a search of %lld rows and %lld ids is too large", (long long)max_rows, (long long)max_length);
        return false;
    }
    for (int s = 0; s < 2; s++) {
        k->offsets[s] = nm_scratch(r, (size_t)(max_rows + 1) * sizeof *k->offsets[s]);
        k->item[s] = nm_scratch(r, (size_t)(max_rows + 1) * sizeof *k->item[s]);
    }
    k->kv = nm_scratch(r, (size_t)(layers + 1) * sizeof *k->kv);
    for (int i = 0; k->kv && i <= layers; i++)
        k->kv[i] = nm_scratch(r, all / (size_t)(layers + 1));
    return nm_run_ok(r);
}

/* The row that row i continues; -1: none. */
static int64_t parent_of(const nm_kv_cache *k, const int64_t *parent, int64_t i) { return parent ? parent[i] : k->n ? i : -1; }

bool nm_kv_begin(nm_run *r, nm_kv_cache *k, int64_t n, const int64_t *parent, const int64_t *new_offsets)
{
    const int64_t *from = k->offsets[k->side];
    int64_t *to = k->offsets[!k->side], *item = k->item[!k->side], row = 0;
    bool ok = nm_run_ok(r) && n <= k->max_rows;
    for (int64_t i = 0; ok && i < n; i++) {
        int64_t p = parent_of(k, parent, i), before = 0;
        ok = p < k->n;
        if (ok && p >= 0)
            before = from[p + 1] - from[p];
        int64_t length = before + new_offsets[i + 1] - new_offsets[i];
        item[i] = ok && p >= 0 ? k->item[k->side][p] : i;
        to[i] = row;
        to[i + 1] = row += length;
        ok = ok && length <= k->max_length && item[i] < k->items && (i == 0 || item[i] >= item[i - 1]);
    }
    if (!ok)
        nm_run_fail(r, NOEMA_E_INTERNAL, "a step of %lld rows does not fit its cache", (long long)n);
    k->n_new = n;
    return ok;
}

nm_tensor nm_kv_extend(nm_kv_cache *k, int layer, nm_tensor kv, const int64_t *parent, const int64_t *new_offsets)
{
    if (!kv.data)
        return kv;
    const int64_t *from = k->offsets[k->side], *to = k->offsets[!k->side];
    size_t size = nm_dtype_size(kv.dtype), row = (size_t)k->width * size, step = (size_t)kv.stride[kv.ndim - 2] * size;
    char *old = k->kv[layer], *dst = k->kv[k->layers];
    bool in_place = k->n_new == 1 && k->n == 1; /* a single row grows where it is */
    if (in_place)
        dst = old;
    for (int64_t i = 0; i < k->n_new; i++) {
        int64_t p = parent_of(k, parent, i), before = p >= 0 ? from[p + 1] - from[p] : 0;
        if (before && !in_place)
            memcpy(dst + (size_t)to[i] * row, old + (size_t)from[p] * row, (size_t)before * row);
        for (int64_t j = new_offsets[i]; j < new_offsets[i + 1]; j++)
            memcpy(dst + (size_t)(to[i] + before + j - new_offsets[i]) * row, (const char *)kv.data + (size_t)j * step, row);
    }
    if (!in_place) {
        k->kv[k->layers] = old;
        k->kv[layer] = dst;
    }
    return nm_view(dst, kv.dtype, NM_SHAPE(to[k->n_new], k->width));
}

void nm_kv_end(nm_kv_cache *k)
{
    k->side = !k->side;
    k->n = k->n_new;
}

int32_t *nm_kv_positions(nm_run *r, const nm_kv_cache *k, const int64_t *new_offsets)
{
    const int64_t *to = nm_kv_offsets(k);
    int32_t *pos = nm_scratch(r, (size_t)new_offsets[k->n_new] * sizeof *pos + 1);
    for (int64_t i = 0; pos && i < k->n_new; i++)
        for (int64_t j = new_offsets[i]; j < new_offsets[i + 1]; j++) /* the last ones of the sequence */
            pos[j] = (int32_t)(to[i + 1] - to[i] - (new_offsets[i + 1] - j));
    return pos;
}

int64_t *nm_kv_item_rows(nm_run *r, const nm_kv_cache *k, const int64_t *new_offsets)
{
    int64_t *queries = nm_scratch(r, (size_t)(k->items + 1) * sizeof *queries);
    for (int64_t t = 0, i = 0; queries && t <= k->items; t++) {
        while (i < k->n_new && nm_kv_items(k)[i] < t)
            i++;
        queries[t] = new_offsets[i];
    }
    return queries;
}
