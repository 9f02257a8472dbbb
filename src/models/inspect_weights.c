/* inspect_weights.c - the public face of checkpoint files (noema/inspect.h). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "noema/inspect.h"
#include "weights/weights.h"

/* The handle is the table of weights itself. */
static nm_weights *weights(const noema_checkpoint *c) { return (nm_weights *)(void *)(uintptr_t)c; }

noema_status noema_checkpoint_open(noema_checkpoint **c, const char *path, int verify, noema_error *err)
{
    nm_weights *w = NULL;
    *c = NULL;
    noema_status s = nm_weights_open(&w, path, err);
    if (s == NOEMA_OK && verify)
        s = nm_weights_verify(w, err);
    if (s != NOEMA_OK)
        nm_weights_close(w);
    else
        *c = (noema_checkpoint *)(void *)w;
    return s;
}

void noema_checkpoint_free(noema_checkpoint *c) { nm_weights_close(weights(c)); }
const char *noema_checkpoint_format(const noema_checkpoint *c) { return nm_weights_format(weights(c)); }
size_t noema_checkpoint_count(const noema_checkpoint *c) { return nm_weights_count(weights(c)); }

void noema_checkpoint_tensor(const noema_checkpoint *c, size_t i, noema_tensor_info *info)
{
    const nm_wview *v = nm_weights_at(weights(c), i);
    *info = (noema_tensor_info){ .name = v->name, .dtype = nm_dtype_name(v->dtype), .ndim = v->ndim, .n_elements = nm_wview_numel(v) };
    memcpy(info->shape, v->shape, sizeof info->shape);
}

noema_status noema_checkpoint_sha256(const noema_checkpoint *c, char hex[65], noema_error *err)
{
    return nm_weights_sha256(weights(c), NM_IDENTITY_FULL, hex, err);
}

noema_status noema_safetensors_write(const char *path, size_t n, const noema_f32_tensor *tensors, noema_error *err)
{
    nm_wview *v = nm_malloc_array(n + 1, sizeof *v);
    if (!v)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) {
        int64_t stride = 1;
        v[i] = (nm_wview){ .name = tensors[i].name, .dtype = NM_F32, .ndim = tensors[i].ndim, .data = tensors[i].data };
        for (int d = tensors[i].ndim; d-- > 0; stride *= tensors[i].shape[d]) {
            v[i].shape[d] = tensors[i].shape[d];
            v[i].stride[d] = stride;
        }
    }
    noema_status s = nm_safetensors_write(path, v, n, NULL, err);
    free(v);
    return s;
}
