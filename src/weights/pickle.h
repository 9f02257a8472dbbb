/* pickle.h - reads the pickles of torch checkpoints as data. Nothing is imported and nothing is called: the few globals that
 * build tensors, storages, dicts and numpy arrays are known by name and done here; any other name is refused. */
#ifndef NM_PICKLE_H
#define NM_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"
#include "base/mem.h"
#include "weights/strmap.h"
#include "weights/weights.h"

typedef enum nm_pkind {
    NM_P_NONE, NM_P_BOOL, NM_P_INT, NM_P_FLOAT, NM_P_STR, NM_P_BYTES, NM_P_TUPLE, NM_P_LIST, NM_P_DICT,
    NM_P_GLOBAL,  /* a known name that was not called */
    NM_P_OBJECT,  /* TorchScript module, argparse.Namespace: its attributes, a dict */
    NM_P_STORAGE,
    NM_P_TENSOR,
    NM_P_DTYPE,
    NM_P_NDARRAY, /* a numpy array before its state has come */
    NM_P_OTHER    /* an integer of more than 64 bits */
} nm_pkind;

typedef struct nm_pglobal nm_pglobal;
typedef struct nm_pvalue nm_pvalue;
typedef struct nm_ptensor { nm_wview view; /* no data yet */ int64_t offset; uint32_t storage; } nm_ptensor;

struct nm_pvalue {
    uint8_t kind;
    uint32_t n, cap; /* of item (dict: keys and values alternate, n counts both) or bytes of s */
    union {
        int64_t i; /* NM_P_BOOL, NM_P_INT, NM_P_DTYPE; index of NM_P_STORAGE */
        double f;
        const char *s; /* not NUL-terminated */
        nm_pvalue **item;
        const nm_pglobal *global;
        nm_ptensor *tensor;
    } u;
};

/* One torch storage, or the bytes of a numpy array (data set already). `bytes` follows from the pickle; the container finds the data. */
typedef struct nm_pstorage {
    const char *key;
    uint32_t key_len;
    bool untyped; /* bytes; the tensor says the dtype */
    nm_dtype dtype;
    uint64_t bytes;
    const unsigned char *data;
} nm_pstorage;

typedef struct nm_pickle {
    nm_arena *arena; /* all values */
    const char *path;
    nm_pvalue *root;
    nm_pstorage *storage;
    size_t n_storages, cap_storages, n_values;
    nm_strmap keys; /* storage key -> index */
} nm_pickle;

/* Reads one pickle from data[0..size); *used gets its length. The bytes must outlive *p (strings point into them).
 * Free also after a failure. */
noema_status nm_pickle_read(nm_pickle *p, const unsigned char *data, size_t size, size_t *used, const char *path, noema_error *err);
void nm_pickle_free(nm_pickle *p);

/* Depth to which the tree is followed; its containers may hold themselves. */
#define NM_PICKLE_DEPTH 100

/* ---- between pickle.c (the stack machine) and pickle_globals.c (what names mean) ---- */
nm_pvalue *nm_pickle_value(nm_pickle *p, nm_pkind kind, noema_error *err); /* NULL: out of memory or too many */
nm_pvalue *nm_pickle_global(nm_pickle *p, const char *module, size_t module_len, const char *name, size_t name_len, noema_error *err);
nm_pvalue *nm_pickle_call(nm_pickle *p, const nm_pvalue *callee, const nm_pvalue *args, noema_error *err);
noema_status nm_pickle_build(nm_pickle *p, nm_pvalue *obj, const nm_pvalue *state, noema_error *err);
nm_pvalue *nm_pickle_persistent(nm_pickle *p, const nm_pvalue *id, noema_error *err);
noema_status nm_pickle_charge(nm_pickle *p, size_t n, noema_error *err); /* n more values against the limit */
noema_status nm_pickle_push(nm_pickle *p, nm_pvalue *seq, nm_pvalue *item, noema_error *err);

#endif
