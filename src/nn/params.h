/* params.h - the parameter visitor: each model declares every parameter once; loading, counting, listing, initialising, saving
 * and (later) optimising and quantising are visitors of that declaration.
 *
 * A name is given per naming scheme. A scheme's string may say how the stored layout differs:
 *     "T:name"      stored transposed ([in, out])
 *     "HWIO:name"   a convolution's kernel stored [h, w, in, out], declared [out, in, h, w]
 *     "a|b|c"       stored in parts, stacked along dimension 0 (split q, k, v)
 *     NULL          the scheme has no such parameter
 */
#ifndef NM_PARAMS_H
#define NM_PARAMS_H

#include "nn/weight.h"
#include "weights/weights.h"

#define NM_MAX_SCHEMES 4

typedef enum nm_layout { NM_LAYOUT_SAME, NM_LAYOUT_TRANSPOSED, NM_LAYOUT_HWIO } nm_layout;
/* The declared dimension that the stored dimension d is. */
static inline int nm_layout_dim(nm_layout l, int d)
{
    static const signed char hwio[4] = { 2, 3, 1, 0 };
    return l == NM_LAYOUT_HWIO ? hwio[d] : l == NM_LAYOUT_TRANSPOSED ? 1 - d : d;
}
/* Whether a stored tensor of that many dimensions has the layout at all: vectors are stored as they are. */
static inline nm_layout nm_layout_of(nm_layout l, int ndim) { return ndim == (l == NM_LAYOUT_HWIO ? 4 : 2) ? l : NM_LAYOUT_SAME; }

typedef struct nm_names { const char *scheme[NM_MAX_SCHEMES]; } nm_names;
#define NM_NAMES(...) ((nm_names){ { __VA_ARGS__ } })

typedef enum nm_init_kind { NM_INIT_ZEROS, NM_INIT_ONES, NM_INIT_NORMAL, NM_INIT_UNIFORM, NM_INIT_CONST } nm_init_kind;
typedef struct nm_init { nm_init_kind kind; float value; /* deviation, bound or constant */ } nm_init;
#define NM_ZEROS ((nm_init){ NM_INIT_ZEROS, 0 })
#define NM_ONES ((nm_init){ NM_INIT_ONES, 1 })
#define NM_NORMAL(std) ((nm_init){ NM_INIT_NORMAL, (std) })
#define NM_UNIFORM(bound) ((nm_init){ NM_INIT_UNIFORM, (bound) })
#define NM_CONST(v) ((nm_init){ NM_INIT_CONST, (v) })

enum {
    NM_DECAY = 0,
    NM_NO_DECAY = 1 << 0, /* optimiser group: no weight decay */
    NM_OPTIONAL = 1 << 1, /* absent in some files of the family */
    NM_AS_F32 = 1 << 2,   /* operators read it as contiguous f32 (vectors always are) */
    NM_BUFFER = 1 << 3,   /* not trained (running statistics) */
    NM_COUNTER = NM_BUFFER | 1 << 4 /* a buffer that files hold as int64 */
};

typedef struct nm_params nm_params;

/* What a visitor sees of one parameter. `name` is the full name of the visitor's scheme with its T: and | marks resolved for
 * parts: name of part i in part_name[i]. */
typedef struct nm_param_info {
    nm_weight *w;
    nm_shape shape;
    nm_init init;
    unsigned flags;
    int n_parts;
    const char *part_name[NM_MAX_PARTS];
    nm_layout layout;
} nm_param_info;

typedef void nm_visit_fn(nm_params *p, const nm_param_info *info);

struct nm_params {
    nm_visit_fn *visit;
    void *user;
    int scheme;
    char prefix[256];
    noema_error *err; /* first failure; later parameters are still visited by loading so that all problems are listed */
};

/* Declares one parameter: shape with dimension -1 meaning "as in the file". */
void nm_param(nm_params *p, nm_weight *w, nm_shape shape, nm_names names, nm_init init, unsigned flags);
/* Enters a module: its name per scheme is appended to the prefix ("%d" is replaced by index). Returns what nm_params_pop needs. */
size_t nm_params_push(nm_params *p, nm_names names, int index);
void nm_params_pop(nm_params *p, size_t mark);

/* ---- visitors ---- */

/* Loads from an open checkpoint: every declared tensor is looked up, its shape checked and its view taken. Problems are collected:
 * `report` (may be NULL) gets one line each for missing, mismatched and unused tensors; a missing or mismatched tensor is an error
 * that names up to 8 of them. Names in `ignore` (NULL-terminated, trailing '*' is a wildcard) do not count as unused. */
typedef struct nm_load_report { size_t n_params, n_missing, n_mismatched, n_unused; int64_t n_elements; nm_buf text; } nm_load_report;
typedef void nm_declare_fn(nm_params *p, void *model);
noema_status nm_params_load(nm_declare_fn *declare, void *model, int scheme, const nm_weights *file, const char *prefix, const char *const *ignore,
                            nm_load_report *report, noema_error *err);
/* Draws new values: Philox stream per parameter in declaration order, so that a seed means the same model everywhere. */
noema_status nm_params_init(nm_declare_fn *declare, void *model, uint64_t seed, noema_error *err);
int64_t nm_params_count(nm_declare_fn *declare, void *model);
/* Writes all loaded parameters as safetensors (f32, or f16/bf16 when asked) in `scheme`'s names. */
noema_status nm_params_save(nm_declare_fn *declare, void *model, int scheme, const char *path, nm_dtype dtype, noema_error *err);
void nm_params_free(nm_declare_fn *declare, void *model);

#endif
