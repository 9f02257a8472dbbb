/* weights.h - checkpoints: a file or folder in any published container becomes a table from tensor name to view.
 *
 * Views point into the mapped file in the stored dtype (zero copy) wherever the container allows it; they may be
 * non-contiguous and may share memory. They live until nm_weights_close. An opened nm_weights is immutable: any number of
 * threads may read it.
 *
 * What opening checks, always: every size, offset, stride and count against the file, duplicate names, shards that exist,
 * checksums of pickles and of inflated members. What only `verify` (or nm_weights_verify) checks: CRC-32 of stored zip members, since that
 * reads the whole file. safetensors and legacy torch files carry no checksums. */
#ifndef NM_WEIGHTS_H
#define NM_WEIGHTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"

#define NM_WVIEW_DIMS 6
/* Logical elements of one tensor: strides of 0 make a large shape cheap to write, so the shape is limited by itself. */
#define NM_WVIEW_MAX_NUMEL ((int64_t)1 << 36)

typedef struct nm_wview {
    const char *name;
    nm_dtype dtype;
    int ndim;                      /* 0: a scalar, one element */
    int64_t shape[NM_WVIEW_DIMS];
    int64_t stride[NM_WVIEW_DIMS]; /* elements, >= 0 */
    const void *data;              /* aligned to the element size; not NULL, even for an empty tensor */
} nm_wview;

typedef struct nm_weights nm_weights;

/* Names. By default a torch file's single top container (state_dict, model_state_dict, model, module) is entered, its siblings keep
 * their full dotted path, optimizer-like siblings are left out, and a `module.` that all names of the chosen part share is dropped. */
typedef struct nm_weights_options {
    bool raw;            /* every tensor under its full dotted path, optimizer included, nothing stripped */
    const char *subtree; /* only tensors under this dotted path ("state_dict_ema"), named relative to it; NULL: default */
    bool verify;         /* also check the CRC-32 of every stored zip member (reads the file) */
} nm_weights_options;

/* `path`: a checkpoint file, an *.index.json of shards, a folder in the layout of Hugging Face or open_clip, or one of T5X (zarr arrays;
 * also as a zip). */
noema_status nm_weights_open(nm_weights **w, const char *path, noema_error *err);
/* Several files as one table (names must not repeat). `o` may be NULL. */
noema_status nm_weights_open_many(nm_weights **w, const char *const *paths, size_t n, const nm_weights_options *o, noema_error *err);
/* From memory, which must stay as it is until close; `name` is used in messages and, by its suffix, as a format hint. */
noema_status nm_weights_open_memory(nm_weights **w, const void *data, size_t size, const char *name, const nm_weights_options *o,
                                    noema_error *err);
void nm_weights_close(nm_weights *w); /* NULL is fine */

size_t nm_weights_count(const nm_weights *w);
const nm_wview *nm_weights_at(const nm_weights *w, size_t i);              /* file order */
const nm_wview *nm_weights_find(const nm_weights *w, const char *name);    /* NULL: not there */
/* A one-element tensor of any dtype ([] or [1] or [1,1]...) as a number; false when absent or larger. */
bool nm_weights_scalar(const nm_weights *w, const char *name, double *out);

/* Of the first file: "safetensors", "torch zip", "torchscript", "torch legacy", "npz", "npy", "zarr". */
const char *nm_weights_format(const nm_weights *w);
size_t nm_weights_file_count(const nm_weights *w);
const char *nm_weights_path(const nm_weights *w, size_t i);

/* Never NULL; borrowed. safetensors: __metadata__. Torch: the file's nested dicts and lists with numbers, strings, booleans and None; tensors are
 * left out of dicts and are null in lists. TorchScript modules, npy and npz: {}. Several files: the first one's. */
const json_t *nm_weights_meta(const nm_weights *w);

/* Identity of the content, independent of container, tensor order and strides: SHA-256 over each tensor in name order: name, dtype,
 * shape and elements. NM_IDENTITY_QUICK takes 5 runs of up to 64 elements spread over each tensor (cache keys; a change of single
 * weights can escape it), NM_IDENTITY_FULL takes all. */
typedef enum nm_identity { NM_IDENTITY_QUICK, NM_IDENTITY_FULL } nm_identity;
noema_status nm_weights_sha256(const nm_weights *w, nm_identity kind, char hex[65], noema_error *err);

/* CRC-32 of every zip member against the central directory. NOEMA_OK for formats without checksums. */
noema_status nm_weights_verify(const nm_weights *w, noema_error *err);

/* ---- views ---- */
int64_t nm_wview_numel(const nm_wview *v);
bool nm_wview_contiguous(const nm_wview *v);
double nm_wview_first(const nm_wview *v); /* element 0 as a number; v must not be empty */
/* dst [numel] contiguous row-major, from any dtype (bool: 0 or 1; 64-bit values are rounded). */
void nm_wview_copy_f32(const nm_wview *v, float *dst);
/* dst [numel] contiguous row-major in the view's own dtype. */
void nm_wview_copy_raw(const nm_wview *v, void *dst);

/* ---- writers: all write a temporary file, sync it and rename it over `path` ---- */

/* Tensors ordered by element size (largest first), then name, as the official writer does. `metadata`: an object of strings, or NULL. */
noema_status nm_safetensors_write(const char *path, const nm_wview *views, size_t n, const json_t *metadata, noema_error *err);

/* .npy [n, row shape...] written row by row; the count is put into the header at close. f32, f16, f64, i64, i32, u8, i8, bool. */
typedef struct nm_npy_writer nm_npy_writer;
noema_status nm_npy_open(nm_npy_writer **w, const char *path, nm_dtype dtype, int row_ndim, const int64_t *row_shape, noema_error *err);
noema_status nm_npy_append(nm_npy_writer *w, const void *rows, int64_t n_rows, noema_error *err);
noema_status nm_npy_close(nm_npy_writer *w, noema_error *err); /* finishes the file; w is gone also on failure */
void nm_npy_discard(nm_npy_writer *w);                         /* removes what was written; NULL is fine */
noema_status nm_npy_write(const char *path, const nm_wview *v, noema_error *err);

/* A file that torch.load(weights_only=True) reads. `tree` is JSON; {"$tensor": i} stands for views[i], {"$tuple": [...]} for a
 * tuple, {"$int_keys": {...}} for a dict whose keys are integers. Tensors are stored contiguous. */
noema_status nm_torch_write(const char *path, const json_t *tree, const nm_wview *views, size_t n, noema_error *err);

#endif
