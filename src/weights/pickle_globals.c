/* pickle_globals.c - what the names in a torch pickle mean. Sources: torch/_utils.py (_rebuild_*), torch/serialization.py
 * (persistent ids), torch/csrc/jit/serialization/unpickler.cpp (TorchScript), numpy/core/src/multiarray (array state). */
#include <limits.h>
#include <string.h>

#include "base/utf8.h"
#include "weights/container.h"
#include "weights/pickle.h"

typedef enum meaning {
    CLASS,       /* an object whose state is a dict of attributes */
    DICT,        /* OrderedDict and relatives, from nothing or from pairs */
    ITEMS,       /* a container built from its first argument */
    FIRST,       /* stands for its first argument */
    INERT,       /* may be named, not called */
    STORAGE, DTYPE,
    TENSOR,      /* _rebuild_tensor, _v2: storage, offset, shape, stride */
    TENSOR_V3,   /* the same with a dtype at index 6 over an untyped storage */
    FROM_TYPE,   /* _rebuild_from_type_v2: function, type, arguments, state */
    ENCODE,      /* _codecs.encode(text, 'latin1'): bytes of Python 3 in protocol 2 */
    NP_DTYPE, NP_SCALAR, NP_ARRAY,
    NP_BUFFER    /* _frombuffer of protocol 5: bytes, dtype, shape, order */
} meaning;

struct nm_pglobal { const char *module, *name; meaning meaning; int dtype; };

#define UNTYPED (-1)
static const nm_pglobal globals[] = {
    { "torch._utils", "_rebuild_tensor_v2", TENSOR, 0 },
    { "torch._utils", "_rebuild_tensor", TENSOR, 0 },
    { "torch._utils", "_rebuild_tensor_v3", TENSOR_V3, 0 },
    { "torch._utils", "_rebuild_parameter", FIRST, 0 },
    { "torch._utils", "_rebuild_parameter_with_state", FIRST, 0 },
    { "torch._tensor", "_rebuild_from_type_v2", FROM_TYPE, 0 },
    { "torch", "FloatStorage", STORAGE, NM_F32 },
    { "torch", "HalfStorage", STORAGE, NM_F16 },
    { "torch", "BFloat16Storage", STORAGE, NM_BF16 },
    { "torch", "DoubleStorage", STORAGE, NM_F64 },
    { "torch", "CharStorage", STORAGE, NM_I8 },
    { "torch", "ByteStorage", STORAGE, NM_U8 },
    { "torch", "ShortStorage", STORAGE, NM_I16 },
    { "torch", "IntStorage", STORAGE, NM_I32 },
    { "torch", "LongStorage", STORAGE, NM_I64 },
    { "torch", "BoolStorage", STORAGE, NM_BOOL },
    { "torch.storage", "UntypedStorage", STORAGE, UNTYPED },
    { "torch", "UntypedStorage", STORAGE, UNTYPED },
    { "torch", "float32", DTYPE, NM_F32 },
    { "torch", "float16", DTYPE, NM_F16 },
    { "torch", "bfloat16", DTYPE, NM_BF16 },
    { "torch", "float64", DTYPE, NM_F64 },
    { "torch", "int8", DTYPE, NM_I8 },
    { "torch", "uint8", DTYPE, NM_U8 },
    { "torch", "int16", DTYPE, NM_I16 },
    { "torch", "int32", DTYPE, NM_I32 },
    { "torch", "int64", DTYPE, NM_I64 },
    { "torch", "bool", DTYPE, NM_BOOL },
    { "torch", "Size", ITEMS, 0 },
    { "torch", "device", FIRST, 0 },
    { "torch", "Tensor", INERT, 0 },
    { "torch.nn.parameter", "Parameter", INERT, 0 },
    { "torch.jit._pickle", "build_intlist", FIRST, 0 },
    { "torch.jit._pickle", "build_doublelist", FIRST, 0 },
    { "torch.jit._pickle", "build_boollist", FIRST, 0 },
    { "torch.jit._pickle", "build_tensorlist", FIRST, 0 },
    { "torch.jit._pickle", "restore_type_tag", FIRST, 0 },
    { "collections", "OrderedDict", DICT, 0 },
    { "collections", "defaultdict", DICT, 0 },
    { "collections", "Counter", DICT, 0 },
    { "builtins", "dict", DICT, 0 },
    { "__builtin__", "dict", DICT, 0 },
    { "builtins", "set", ITEMS, 0 },
    { "__builtin__", "set", ITEMS, 0 },
    { "builtins", "frozenset", ITEMS, 0 },
    { "__builtin__", "frozenset", ITEMS, 0 },
    { "builtins", "list", ITEMS, 0 },
    { "__builtin__", "list", ITEMS, 0 },
    { "builtins", "int", INERT, 0 },
    { "__builtin__", "int", INERT, 0 },
    { "builtins", "float", INERT, 0 },
    { "__builtin__", "float", INERT, 0 },
    { "argparse", "Namespace", CLASS, 0 },
    { "_codecs", "encode", ENCODE, 0 },
    { "numpy", "dtype", NP_DTYPE, 0 },
    { "numpy", "ndarray", INERT, 0 },
    { "numpy.core.multiarray", "scalar", NP_SCALAR, 0 },
    { "numpy._core.multiarray", "scalar", NP_SCALAR, 0 },
    { "numpy.core.multiarray", "_reconstruct", NP_ARRAY, 0 },
    { "numpy._core.multiarray", "_reconstruct", NP_ARRAY, 0 },
    { "numpy.core.numeric", "_frombuffer", NP_BUFFER, 0 },
    { "numpy._core.numeric", "_frombuffer", NP_BUFFER, 0 },
};
static const nm_pglobal script_class = { "__torch__", "module", CLASS, 0 };

static bool same(const char *s, const char *p, size_t n) { return strlen(s) == n && memcmp(s, p, n) == 0; }

nm_pvalue *nm_pickle_global(nm_pickle *p, const char *module, size_t module_len, const char *name, size_t name_len, noema_error *err)
{
    const nm_pglobal *g = NULL;
    for (size_t i = 0; i < sizeof globals / sizeof *globals && !g; i++)
        if (same(globals[i].module, module, module_len) && same(globals[i].name, name, name_len))
            g = &globals[i];
    if (!g && module_len >= 9 && memcmp(module, "__torch__", 9) == 0 && (module_len == 9 || module[9] == '.'))
        g = &script_class;
    if (!g) {
        nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: pickle wants to call '%.*s.%.*s'; refused", p->path, module_len > 200 ? 200 : (int)module_len,
                module, name_len > 200 ? 200 : (int)name_len, name);
        return NULL;
    }
    nm_pvalue *v = nm_pickle_value(p, g->meaning == DTYPE ? NM_P_DTYPE : NM_P_GLOBAL, err);
    if (v && g->meaning == DTYPE)
        v->u.i = g->dtype;
    else if (v)
        v->u.global = g;
    return v;
}

static nm_pvalue *fail(nm_pickle *p, const char *what, noema_error *err)
{
    nm_fail(err, NOEMA_E_FORMAT, "%s: damaged pickle: %s", p->path, what);
    return NULL;
}

/* ---- storages and tensors ---- */

static nm_pvalue *storage_value(nm_pickle *p, const nm_pstorage *s, noema_error *err)
{
    if (p->n_storages == p->cap_storages) {
        size_t cap = p->cap_storages ? p->cap_storages * 2 : 64;
        nm_pstorage *all = nm_realloc_array(p->storage, cap, sizeof *all);
        if (!all) {
            nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path);
            return NULL;
        }
        p->storage = all;
        p->cap_storages = cap;
    }
    nm_pvalue *v = nm_pickle_value(p, NM_P_STORAGE, err);
    if (!v)
        return NULL;
    v->u.i = (int64_t)p->n_storages;
    p->storage[p->n_storages++] = *s;
    return v;
}

/* ('storage', class, key, location, number of elements[, view]): the same key may come again, for shared memory. */
nm_pvalue *nm_pickle_persistent(nm_pickle *p, const nm_pvalue *id, noema_error *err)
{
    if (id->kind != NM_P_TUPLE || id->n < 5 || id->u.item[0]->kind != NM_P_STR || !same("storage", id->u.item[0]->u.s, id->u.item[0]->n))
        return fail(p, "a persistent id that is no storage", err);
    const nm_pvalue *cls = id->u.item[1], *key = id->u.item[2], *numel = id->u.item[4];
    if (cls->kind != NM_P_GLOBAL || cls->u.global->meaning != STORAGE || key->kind != NM_P_STR || numel->kind != NM_P_INT || numel->u.i < 0 ||
        numel->u.i > INT64_MAX / 8)
        return fail(p, "a storage without type, key or size", err);
    if (id->n > 5 && id->u.item[5]->kind != NM_P_NONE)
        return fail(p, "a storage that is a view of another one (torch 0.3), which is not read here", err);
    nm_pstorage s = { .key = key->u.s, .key_len = key->n, .untyped = cls->u.global->dtype == UNTYPED };
    s.dtype = s.untyped ? NM_U8 : (nm_dtype)cls->u.global->dtype;
    s.bytes = (uint64_t)numel->u.i * nm_dtype_size(s.dtype);
    uint32_t old = nm_strmap_get(&p->keys, s.key, s.key_len);
    if (old == NM_STRMAP_NONE) {
        if (nm_strmap_add(&p->keys, s.key, s.key_len, (uint32_t)p->n_storages) < 0) {
            nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path);
            return NULL;
        }
        return storage_value(p, &s, err);
    }
    if (p->storage[old].bytes != s.bytes || p->storage[old].dtype != s.dtype)
        return fail(p, "one storage with two types or sizes", err);
    nm_pvalue *v = nm_pickle_value(p, NM_P_STORAGE, err);
    if (v)
        v->u.i = old;
    return v;
}

static bool read_dims(const nm_pvalue *v, int64_t *out, int *n)
{
    if ((v->kind != NM_P_TUPLE && v->kind != NM_P_LIST) || v->n > NM_WVIEW_DIMS)
        return false;
    for (uint32_t i = 0; i < v->n; i++) {
        if (v->u.item[i]->kind != NM_P_INT || v->u.item[i]->u.i < 0)
            return false;
        out[i] = v->u.item[i]->u.i;
    }
    *n = (int)v->n;
    return true;
}

static nm_pvalue *tensor_value(nm_pickle *p, const nm_ptensor *t, noema_error *err)
{
    int64_t numel;
    const nm_pstorage *s = &p->storage[t->storage];
    if (!nm_shape_product(t->view.ndim, t->view.shape, &numel))
        return fail(p, "a tensor with too large a shape", err);
    if (!nm_view_in_storage(&t->view, t->offset, (int64_t)(s->bytes / nm_dtype_size(t->view.dtype))))
        return fail(p, "a tensor that reaches outside its storage", err);
    nm_pvalue *v = nm_pickle_value(p, NM_P_TENSOR, err);
    if (!v)
        return NULL;
    v->u.tensor = nm_arena_alloc(p->arena, sizeof *t);
    if (!v->u.tensor) {
        nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path);
        return NULL;
    }
    *v->u.tensor = *t;
    return v;
}

static nm_pvalue *rebuild_tensor(nm_pickle *p, const nm_pvalue *args, bool v3, noema_error *err)
{
    nm_pvalue **a = args->u.item;
    nm_ptensor t = { 0 };
    int n_strides = 0;
    if (args->n < 4 || a[0]->kind != NM_P_STORAGE || a[1]->kind != NM_P_INT || !read_dims(a[2], t.view.shape, &t.view.ndim) ||
        !read_dims(a[3], t.view.stride, &n_strides) || n_strides != t.view.ndim)
        return fail(p, "a tensor without storage, offset, shape (at most 6 dimensions) and strides", err);
    t.storage = (uint32_t)a[0]->u.i;
    t.offset = a[1]->u.i;
    t.view.dtype = p->storage[t.storage].dtype;
    if (v3) {
        if (args->n < 7 || a[6]->kind != NM_P_DTYPE)
            return fail(p, "a tensor without dtype", err);
        t.view.dtype = (nm_dtype)a[6]->u.i;
    }
    if (v3 != p->storage[t.storage].untyped)
        return fail(p, "a tensor whose storage has no type", err);
    if (!v3 && args->n > 6 && !(a[6]->kind == NM_P_NONE || (a[6]->kind == NM_P_DICT && a[6]->n == 0)))
        return fail(p, "a tensor stored conjugated or negated, which is not read here", err);
    return tensor_value(p, &t, err);
}

/* ---- dicts, bytes ---- */

static nm_pvalue *make_dict(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    nm_pvalue *d = nm_pickle_value(p, NM_P_DICT, err);
    for (uint32_t i = 0; d && i < args->n; i++) {
        const nm_pvalue *a = args->u.item[i];
        for (uint32_t k = 0; a->kind == NM_P_DICT && k < a->n; k++)
            if (nm_pickle_push(p, d, a->u.item[k], err) != NOEMA_OK)
                return NULL;
        for (uint32_t k = 0; a->kind == NM_P_LIST && k < a->n; k++) {
            nm_pvalue *pair = a->u.item[k];
            if ((pair->kind != NM_P_LIST && pair->kind != NM_P_TUPLE) || pair->n != 2)
                return fail(p, "a dict built from something that is no pair", err);
            if (nm_pickle_push(p, d, pair->u.item[0], err) != NOEMA_OK || nm_pickle_push(p, d, pair->u.item[1], err) != NOEMA_OK)
                return NULL;
        }
    }
    return d;
}

static nm_pvalue *make_items(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    nm_pvalue *v = nm_pickle_value(p, NM_P_LIST, err);
    if (!v || args->n == 0)
        return v;
    const nm_pvalue *from = args->u.item[0];
    if (from->kind != NM_P_LIST && from->kind != NM_P_TUPLE)
        return fail(p, "a container built from something that is no list", err);
    for (uint32_t i = 0; i < from->n; i++)
        if (nm_pickle_push(p, v, from->u.item[i], err) != NOEMA_OK)
            return NULL;
    return v;
}

/* Code points U+0000..U+00FF as UTF-8, back to one byte each. */
static nm_pvalue *encode_latin1(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    const nm_pvalue *text = args->n ? args->u.item[0] : NULL;
    if (!text || text->kind != NM_P_STR)
        return fail(p, "_codecs.encode of something that is no text", err);
    if (nm_pickle_charge(p, text->n / 32, err) != NOEMA_OK)
        return NULL;
    nm_pvalue *v = nm_pickle_value(p, NM_P_BYTES, err);
    char *out = v ? nm_arena_alloc(p->arena, text->n + 1) : NULL;
    if (!out) {
        nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path);
        return NULL;
    }
    for (size_t i = 0; i < text->n;) {
        uint32_t cp;
        i += (size_t)nm_utf8_decode(text->u.s + i, text->n - i, &cp);
        if (cp > 255)
            return fail(p, "_codecs.encode of text that is not latin1", err);
        out[v->n++] = (char)(unsigned char)cp;
    }
    v->u.s = out;
    return v;
}

/* ---- numpy ---- */

static nm_pvalue *np_dtype(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    static const struct { const char *code; nm_dtype dtype; } codes[] = {
        { "f4", NM_F32 }, { "f2", NM_F16 }, { "f8", NM_F64 }, { "i1", NM_I8 }, { "u1", NM_U8 },
        { "i2", NM_I16 }, { "i4", NM_I32 }, { "i8", NM_I64 }, { "b1", NM_BOOL },
    };
    const nm_pvalue *code = args->n ? args->u.item[0] : NULL;
    for (size_t i = 0; code && code->kind == NM_P_STR && i < sizeof codes / sizeof *codes; i++)
        if (same(codes[i].code, code->u.s, code->n)) {
            nm_pvalue *v = nm_pickle_value(p, NM_P_DTYPE, err);
            if (v)
                v->u.i = codes[i].dtype;
            return v;
        }
    return fail(p, "a numpy dtype that is not read here", err);
}

static noema_status np_dtype_state(nm_pickle *p, const nm_pvalue *state, noema_error *err)
{
    if (state->kind == NM_P_TUPLE && state->n >= 2 && state->u.item[1]->kind == NM_P_STR && !same(">", state->u.item[1]->u.s, state->u.item[1]->n))
        return NOEMA_OK;
    fail(p, "a numpy dtype that is not little-endian", err);
    return NOEMA_E_FORMAT;
}

static nm_pvalue *np_scalar(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    if (args->n != 2 || args->u.item[0]->kind != NM_P_DTYPE || args->u.item[1]->kind != NM_P_BYTES ||
        args->u.item[1]->n != nm_dtype_size((nm_dtype)args->u.item[0]->u.i))
        return fail(p, "a numpy scalar without dtype and bytes", err);
    nm_dtype t = (nm_dtype)args->u.item[0]->u.i;
    int64_t buf = 0;
    memcpy(&buf, args->u.item[1]->u.s, args->u.item[1]->n);
    nm_wview one = { .dtype = t, .data = &buf };
    bool real = t == NM_F32 || t == NM_F16 || t == NM_F64;
    nm_pvalue *v = nm_pickle_value(p, real ? NM_P_FLOAT : t == NM_BOOL ? NM_P_BOOL : NM_P_INT, err);
    if (v && real)
        v->u.f = nm_wview_first(&one);
    else if (v)
        v->u.i = t == NM_I64 ? buf : (int64_t)nm_wview_first(&one);
    return v;
}

static nm_pvalue *np_array(nm_pickle *p, const nm_pvalue *shape, const nm_pvalue *dtype, bool fortran, const nm_pvalue *bytes, noema_error *err)
{
    nm_ptensor t = { 0 };
    int64_t numel, step = 1;
    if (!read_dims(shape, t.view.shape, &t.view.ndim) || dtype->kind != NM_P_DTYPE || bytes->kind != NM_P_BYTES ||
        !nm_shape_product(t.view.ndim, t.view.shape, &numel))
        return fail(p, "a numpy array without shape (at most 6 dimensions), dtype and bytes", err);
    t.view.dtype = (nm_dtype)dtype->u.i;
    if ((uint64_t)numel * nm_dtype_size(t.view.dtype) != bytes->n)
        return fail(p, "a numpy array whose bytes do not fit its shape", err);
    if (nm_pickle_charge(p, bytes->n / 32, err) != NOEMA_OK) /* each array is copied when its views are made */
        return NULL;
    nm_wview_set_contiguous(&t.view);
    for (int i = 0; fortran && i < t.view.ndim; i++) {
        t.view.stride[i] = step;
        step *= t.view.shape[i] ? t.view.shape[i] : 1;
    }
    nm_pstorage s = { .dtype = t.view.dtype, .bytes = bytes->n, .data = (const unsigned char *)bytes->u.s };
    nm_pvalue *storage = storage_value(p, &s, err);
    if (!storage)
        return NULL;
    t.storage = (uint32_t)storage->u.i;
    return tensor_value(p, &t, err);
}

/* (version, shape, dtype, fortran order, bytes): the array becomes a tensor in place. */
static noema_status np_array_state(nm_pickle *p, nm_pvalue *obj, const nm_pvalue *state, noema_error *err)
{
    nm_pvalue **a = state->u.item, *v = NULL;
    if (state->kind != NM_P_TUPLE || state->n != 5 || a[3]->kind != NM_P_BOOL)
        fail(p, "a numpy array without its state", err);
    else if ((v = np_array(p, a[1], a[2], a[3]->u.i != 0, a[4], err)))
        *obj = *v;
    return v ? NOEMA_OK : NOEMA_E_FORMAT;
}

static nm_pvalue *np_buffer(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    nm_pvalue **a = args->u.item;
    if (args->n != 4 || a[3]->kind != NM_P_STR)
        return fail(p, "a numpy array without its buffer", err);
    return np_array(p, a[2], a[1], same("F", a[3]->u.s, a[3]->n), a[0], err);
}

/* ---- calls ---- */

static nm_pvalue *first(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    return args->n ? args->u.item[0] : fail(p, "a call without arguments", err);
}

static nm_pvalue *from_type(nm_pickle *p, const nm_pvalue *args, noema_error *err)
{
    if (args->n < 3 || args->u.item[0]->kind != NM_P_GLOBAL || args->u.item[2]->kind != NM_P_TUPLE ||
        args->u.item[0]->u.global->meaning == FROM_TYPE)
        return fail(p, "a tensor subclass without its function and arguments", err);
    return nm_pickle_call(p, args->u.item[0], args->u.item[2], err);
}

nm_pvalue *nm_pickle_call(nm_pickle *p, const nm_pvalue *callee, const nm_pvalue *args, noema_error *err)
{
    const nm_pglobal *g = callee->u.global;
    switch (g->meaning) {
    case CLASS: return nm_pickle_value(p, NM_P_OBJECT, err);
    case DICT: return make_dict(p, args, err);
    case ITEMS: return make_items(p, args, err);
    case FIRST: return first(p, args, err);
    case TENSOR: return rebuild_tensor(p, args, false, err);
    case TENSOR_V3: return rebuild_tensor(p, args, true, err);
    case FROM_TYPE: return from_type(p, args, err);
    case ENCODE: return encode_latin1(p, args, err);
    case NP_DTYPE: return np_dtype(p, args, err);
    case NP_SCALAR: return np_scalar(p, args, err);
    case NP_BUFFER: return np_buffer(p, args, err);
    case NP_ARRAY: return nm_pickle_value(p, NM_P_NDARRAY, err);
    case INERT: case STORAGE: case DTYPE: break;
    }
    nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: pickle wants to call '%s.%s'; refused", p->path, g->module, g->name);
    return NULL;
}

noema_status nm_pickle_build(nm_pickle *p, nm_pvalue *obj, const nm_pvalue *state, noema_error *err)
{
    switch (obj->kind) {
    case NM_P_OBJECT:
        if (state->kind != NM_P_DICT)
            break;
        obj->u.item = state->u.item;
        obj->n = state->n;
        obj->cap = state->n;
        return NOEMA_OK;
    case NM_P_DICT:   /* OrderedDict's own attributes, such as _metadata of a state dict */
    case NM_P_TENSOR: /* attributes of a Parameter */
        return NOEMA_OK;
    case NM_P_DTYPE: return np_dtype_state(p, state, err);
    case NM_P_NDARRAY: return np_array_state(p, obj, state, err);
    default: break;
    }
    fail(p, "a state for something that has none", err);
    return NOEMA_E_FORMAT;
}
