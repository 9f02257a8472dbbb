/* tied.h - the tensors of a model that an optimizer sees, for losses outside of trainer.h (BLIP, BLIP-2): every parameter as f32 of its own with a
 * gradient, and parameters that the published training ties as one entry, whose gradient is the sum over all uses. */
#ifndef NM_TIED_H
#define NM_TIED_H

#include "nn/params.h"
#include "tensor/tape.h"

#define NM_TIED_COPIES 3

typedef struct nm_tied_param {
    char *part[NM_MAX_PARTS]; /* official names of the tensors that lie in it one after another */
    int n_parts;
    nm_weight *w, *copy[NM_TIED_COPIES]; /* copies follow w */
    int n_copies;
    nm_grad grad;
    size_t n;
} nm_tied_param;

typedef struct nm_tied { nm_tied_param *params; size_t n, cap; } nm_tied;

/* Every parameter that `declare` visits and the file has. The model must outlive the result; nothing has a gradient before nm_tied_attach. */
noema_status nm_tied_collect(nm_tied *t, nm_declare_fn *declare, void *model, int scheme, noema_error *err);
nm_tied_param *nm_tied_find(const nm_tied *t, const char *name); /* by the first part's name, or NULL */
/* The entry `other` becomes a copy of `name`. false: one of them is not there, or they differ in size. */
bool nm_tied_join(nm_tied *t, const char *name, const char *other);
void nm_tied_attach(nm_tied *t);  /* no entry comes or goes any more */
void nm_tied_zero(nm_tied *t);    /* the gradients */
void nm_tied_changed(nm_tied *t); /* after an optimizer step */
void nm_tied_free(nm_tied *t);

#endif
