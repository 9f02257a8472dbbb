/* container.h - what the formats of src/weights share: the table under construction, its memory, checks, and the list of formats.
 *
 * A format is one file that ends in a const nm_container and has one line in weights.c. It adds views with nm_weights_add and owns
 * nothing afterwards: mappings, inflated or re-aligned blocks and names belong to the nm_weights. */
#ifndef NM_WEIGHTS_CONTAINER_H
#define NM_WEIGHTS_CONTAINER_H

#include "base/file.h"
#include "base/mem.h"
#include "weights/strmap.h"
#include "weights/weights.h"
#include "weights/zip.h"

typedef struct nm_wfile {
    char *path;
    nm_map map; /* data == NULL for memory */
    const unsigned char *data;
    size_t size;
    nm_zip *zip; /* opened central directory, or NULL when the file is no zip */
    const struct nm_container *format;
    const char *format_name;
} nm_wfile;

typedef struct nm_container {
    const char *name;
    bool (*probe)(const nm_wfile *f); /* by content, and by suffix where content may be damaged */
    noema_status (*open)(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err);
} nm_container;

extern const nm_container nm_container_safetensors, nm_container_torch_zip, nm_container_torch_legacy, nm_container_npz, nm_container_npy, nm_container_zarr;

struct nm_weights {
    nm_arena *arena; /* names, file table, small copies */
    nm_wview *view;
    size_t n, cap;
    nm_strmap names; /* name -> index of view */
    nm_wfile *file;
    size_t n_files;
    void **block; /* nm_alloc'd: inflated members, re-aligned data */
    size_t n_blocks, cap_blocks;
    json_t *meta;
};

/* Adds a copy of *v with its name copied from name[0..len). Refuses repeated, overlong or non-UTF-8 names, bad shapes. */
noema_status nm_weights_add(nm_weights *w, const nm_wfile *f, const nm_wview *v, const char *name, size_t len, noema_error *err);
/* A block that lives as long as the table; NULL: out of memory. */
void *nm_weights_block(nm_weights *w, size_t bytes);
/* `data` itself when it is aligned to `align`, else a copy of it in a block; NULL: out of memory. */
const void *nm_weights_aligned(nm_weights *w, const void *data, size_t size, size_t align);
/* The content of a zip member: in place when stored, in a block when deflated; NULL on failure. */
const unsigned char *nm_weights_member(nm_weights *w, const nm_wfile *f, const nm_zip_entry *e, noema_error *err);

/* Row-major strides. */
void nm_wview_set_contiguous(nm_wview *v);
/* Product of the dimensions; false for a negative one or more than NM_WVIEW_MAX_NUMEL. */
bool nm_shape_product(int ndim, const int64_t *shape, int64_t *numel);
/* True when every element lies inside [0, n_elements) of its storage, starting at `offset`. */
bool nm_view_in_storage(const nm_wview *v, int64_t offset, int64_t n_elements);

#endif
