/* torch_tree.h - from the tree of values of a torch pickle to named views and to JSON. */
#ifndef NM_TORCH_TREE_H
#define NM_TORCH_TREE_H

#include "weights/container.h"
#include "weights/pickle.h"

/* All storages of *p have their data. Adds the tensors that `o` selects, and the first file's metadata. */
noema_status nm_torch_add_tree(nm_weights *w, const nm_wfile *f, nm_pickle *p, const nm_weights_options *o, noema_error *err);

#endif
