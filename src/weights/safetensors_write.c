/* safetensors_write.c - the writer of safetensors: official order (safetensors/src/tensor.rs prepare(): dtype by falling alignment, then
 * name), so that every tensor is aligned to its element size, header padded with spaces to a multiple of 8. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "weights/out.h"
#include "weights/strmap.h"

static const char *const dtype_names[NM_DTYPES] = { "F32", "BF16", "F16", "F64", "I8", "U8", "I16", "I32", "I64", "BOOL" };

static int by_size_and_name(const void *a, const void *b)
{
    const nm_wview *const *x = a, *const *y = b;
    size_t sx = nm_dtype_size((*x)->dtype), sy = nm_dtype_size((*y)->dtype);
    if (sx != sy)
        return sx > sy ? -1 : 1;
    if ((*x)->dtype != (*y)->dtype)
        return (*x)->dtype > (*y)->dtype ? -1 : 1;
    return strcmp((*x)->name, (*y)->name);
}

static void put_tensor(nm_buf *b, const nm_wview *v, uint64_t *at)
{
    uint64_t end = *at + (uint64_t)nm_wview_numel(v) * nm_dtype_size(v->dtype);
    nm_json_put_str(b, v->name, strlen(v->name));
    nm_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_names[v->dtype]);
    for (int i = 0; i < v->ndim; i++)
        nm_buf_printf(b, "%s%lld", i ? "," : "", (long long)v->shape[i]);
    nm_buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at, (unsigned long long)end);
    *at = end;
}

static noema_status make_header(nm_buf *b, const nm_wview *const *v, size_t n, const json_t *metadata, const char *path, noema_error *err)
{
    const char *key;
    json_t *value;
    uint64_t at = 0;
    bool first = true;
    nm_buf_putc(b, '{');
    if (metadata && json_object_size(metadata)) {
        nm_buf_puts(b, "\"__metadata__\":{");
        json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
            if (!json_is_string(value))
                return nm_fail(err, NOEMA_E_ARGUMENT, "%s: metadata '%s' is no string; safetensors holds only strings", path, key);
            if (!first)
                nm_buf_putc(b, ',');
            nm_json_put_str(b, key, strlen(key));
            nm_buf_putc(b, ':');
            nm_json_put_str(b, json_string_value(value), json_string_length(value));
            first = false;
        }
        nm_buf_putc(b, '}');
    }
    for (size_t i = 0; i < n; i++) {
        if (!first)
            nm_buf_putc(b, ',');
        put_tensor(b, v[i], &at);
        first = false;
    }
    nm_buf_putc(b, '}');
    while (b->len % 8)
        nm_buf_putc(b, ' ');
    return b->failed ? nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path) : NOEMA_OK;
}

static noema_status check_names(const nm_wview *const *v, size_t n, const char *path, noema_error *err)
{
    nm_strmap names = { 0 };
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        size_t len = strlen(v[i]->name);
        int added = nm_strmap_add(&names, v[i]->name, len, 0);
        if (added < 0)
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
        else if (!added || strcmp(v[i]->name, "__metadata__") == 0 || !nm_utf8_valid(v[i]->name, len))
            s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: tensor name '%.300s' is repeated, reserved or no UTF-8", path, v[i]->name);
    }
    nm_strmap_free(&names);
    return s;
}

noema_status nm_safetensors_write(const char *path, const nm_wview *views, size_t n, const json_t *metadata, noema_error *err)
{
    const nm_wview **v = nm_malloc_array(n ? n : 1, sizeof *v);
    if (!v)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < n; i++)
        v[i] = &views[i];
    qsort(v, n, sizeof *v, by_size_and_name);
    nm_buf header = { 0 };
    nm_out o = { 0 };
    unsigned char size[8];
    noema_status s = check_names(v, n, path, err);
    if (s == NOEMA_OK)
        s = make_header(&header, v, n, metadata, path, err);
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)header.len >> 8 * i);
    if (s == NOEMA_OK)
        s = nm_out_open(&o, path, err);
    if (s == NOEMA_OK)
        s = nm_out_write(&o, size, 8, err);
    if (s == NOEMA_OK)
        s = nm_out_write(&o, header.data, header.len, err);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++)
        s = nm_out_view(&o, v[i], err);
    s = nm_out_close(&o, s, err);
    nm_buf_free(&header);
    free(v);
    return s;
}
