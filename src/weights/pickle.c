/* pickle.c - the stack machine. Opcodes: CPython Lib/pickletools.py; those of protocols 2 to 5 that torch.save and TorchScript
 * write, with either C or Python pickler. Nothing recurses; values form a graph that may share nodes and hold cycles. */
#include "weights/pickle.h"

#include <stdlib.h>
#include <string.h>

/* Values and places in containers. Copies that a memoised value makes cheap to ask for are charged too (nm_pickle_charge). */
#define VALUES_LIMIT 32000000
#define PICKLE_LIMIT ((size_t)1 << 30)

typedef struct machine {
    nm_pickle *p;
    const unsigned char *data;
    size_t size, at;
    nm_pvalue **stack, **memo;
    size_t n, cap, n_memo, cap_memo;
    size_t *mark;
    size_t n_marks, cap_marks;
    noema_error *err;
    bool stop;
} machine;

static nm_pvalue the_none = { .kind = NM_P_NONE };
static nm_pvalue the_true = { .kind = NM_P_BOOL, .u.i = 1 }, the_false = { .kind = NM_P_BOOL };

noema_status nm_pickle_charge(nm_pickle *p, size_t n, noema_error *err)
{
    if (n > VALUES_LIMIT - p->n_values)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: pickle with more than %d values", p->path, VALUES_LIMIT);
    p->n_values += n;
    return NOEMA_OK;
}

nm_pvalue *nm_pickle_value(nm_pickle *p, nm_pkind kind, noema_error *err)
{
    if (nm_pickle_charge(p, 1, err) != NOEMA_OK)
        return NULL;
    nm_pvalue *v = nm_arena_alloc(p->arena, sizeof *v);
    if (!v) {
        nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path);
        return NULL;
    }
    *v = (nm_pvalue){ .kind = (uint8_t)kind };
    return v;
}

noema_status nm_pickle_push(nm_pickle *p, nm_pvalue *seq, nm_pvalue *item, noema_error *err)
{
    noema_status s = nm_pickle_charge(p, 1, err);
    if (s != NOEMA_OK)
        return s;
    if (seq->n == seq->cap) {
        uint32_t cap = seq->cap ? seq->cap * 2 : 8;
        nm_pvalue **items = seq->cap > UINT32_MAX / 4 ? NULL : nm_arena_alloc(p->arena, (size_t)cap * sizeof *items);
        if (!items)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path);
        if (seq->n)
            memcpy(items, seq->u.item, seq->n * sizeof *items);
        seq->u.item = items;
        seq->cap = cap;
    }
    seq->u.item[seq->n++] = item;
    return NOEMA_OK;
}

/* ---- reading ---- */

static bool fail(machine *m, const char *what)
{
    nm_fail(m->err, NOEMA_E_FORMAT, "%s: damaged pickle: %s at byte %zu", m->p->path, what, m->at);
    return false;
}

static const unsigned char *take(machine *m, uint64_t n)
{
    if (n > m->size - m->at) {
        fail(m, "it ends too early");
        return NULL;
    }
    const unsigned char *p = m->data + m->at;
    m->at += (size_t)n;
    return p;
}

/* n-byte little-endian unsigned number. */
static bool number(machine *m, int n, uint64_t *out)
{
    const unsigned char *p = take(m, (uint64_t)n);
    *out = 0;
    for (int i = n - 1; p && i >= 0; i--)
        *out = *out << 8 | p[i];
    return p != NULL;
}

static const unsigned char *line(machine *m, size_t *len)
{
    const unsigned char *start = m->data + m->at, *nl = memchr(start, '\n', m->size - m->at);
    if (!nl) {
        fail(m, "unfinished line");
        return NULL;
    }
    *len = (size_t)(nl - start);
    m->at += *len + 1;
    return start;
}

/* ---- stack, marks, memo ---- */

static bool grow(machine *m, void **array, size_t *cap, size_t need, size_t item)
{
    if (need <= *cap)
        return true;
    size_t n = *cap ? *cap : 64;
    while (n < need)
        n *= 2;
    void *p = nm_realloc_array(*array, n, item);
    if (!p) {
        nm_fail(m->err, NOEMA_E_MEMORY, "%s: out of memory", m->p->path);
        return false;
    }
    *array = p;
    *cap = n;
    return true;
}

static bool push(machine *m, nm_pvalue *v)
{
    if (!v || !grow(m, (void **)&m->stack, &m->cap, m->n + 1, sizeof *m->stack))
        return false;
    m->stack[m->n++] = v;
    return true;
}

static size_t floor_of(const machine *m) { return m->n_marks ? m->mark[m->n_marks - 1] : 0; }

/* The top value, which must lie above the last mark. */
static nm_pvalue *top(machine *m)
{
    if (m->n <= floor_of(m)) {
        fail(m, "the stack is empty");
        return NULL;
    }
    return m->stack[m->n - 1];
}

static nm_pvalue *pop(machine *m)
{
    nm_pvalue *v = top(m);
    if (v)
        m->n--;
    return v;
}

static bool push_mark(machine *m)
{
    if (!grow(m, (void **)&m->mark, &m->cap_marks, m->n_marks + 1, sizeof *m->mark))
        return false;
    m->mark[m->n_marks++] = m->n;
    return true;
}

/* Removes the last mark; *items are the *n values above it, no longer on the stack but valid until the next push. */
static bool pop_mark(machine *m, nm_pvalue ***items, size_t *n)
{
    if (!m->n_marks)
        return fail(m, "a mark is missing");
    size_t at = m->mark[--m->n_marks];
    *items = m->stack + at;
    *n = m->n - at;
    m->n = at;
    return true;
}

static bool memo_put(machine *m, uint64_t i)
{
    nm_pvalue *v = top(m);
    if (!v)
        return false;
    if (i > m->size) /* each entry took a byte at least */
        return fail(m, "memo index out of range");
    if (!grow(m, (void **)&m->memo, &m->cap_memo, (size_t)i + 1, sizeof *m->memo))
        return false;
    while (m->n_memo <= i)
        m->memo[m->n_memo++] = NULL;
    m->memo[i] = v;
    return true;
}

static bool memo_get(machine *m, uint64_t i)
{
    if (i >= m->n_memo || !m->memo[i])
        return fail(m, "memo entry that was never written");
    return push(m, m->memo[i]);
}

/* ---- values ---- */

static bool push_text(machine *m, nm_pkind kind, int count_bytes)
{
    uint64_t n;
    if (!number(m, count_bytes, &n))
        return false;
    const unsigned char *s = take(m, n);
    nm_pvalue *v = s ? nm_pickle_value(m->p, kind, m->err) : NULL;
    if (!v)
        return false;
    v->u.s = (const char *)s;
    v->n = (uint32_t)n; /* the pickle is at most PICKLE_LIMIT long */
    return push(m, v);
}

static bool push_int(machine *m, int64_t i)
{
    nm_pvalue *v = nm_pickle_value(m->p, NM_P_INT, m->err);
    if (v)
        v->u.i = i;
    return push(m, v);
}

static bool push_uint(machine *m, int bytes)
{
    uint64_t u;
    return number(m, bytes, &u) && push_int(m, bytes == 4 ? (int32_t)(uint32_t)u : (int64_t)u);
}

static bool push_long(machine *m, int count_bytes)
{
    uint64_t n;
    const unsigned char *p;
    if (!number(m, count_bytes, &n) || !(p = take(m, n)))
        return false;
    if (n > 8)
        return push(m, nm_pickle_value(m->p, NM_P_OTHER, m->err));
    uint64_t u = n && p[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (uint64_t i = n; i-- > 0;)
        u = u << 8 | p[i];
    return push_int(m, (int64_t)u);
}

static bool push_float(machine *m)
{
    const unsigned char *p = take(m, 8);
    nm_pvalue *v = p ? nm_pickle_value(m->p, NM_P_FLOAT, m->err) : NULL;
    if (!v)
        return false;
    uint64_t u = 0;
    for (int i = 0; i < 8; i++) /* big-endian, unlike all else in a pickle */
        u = u << 8 | p[i];
    memcpy(&v->u.f, &u, 8);
    return push(m, v);
}

static bool add_items(machine *m, nm_pvalue *seq, nm_pvalue **items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (nm_pickle_push(m->p, seq, items[i], m->err) != NOEMA_OK)
            return false;
    return true;
}

static bool push_seq(machine *m, nm_pkind kind, nm_pvalue **items, size_t n)
{
    nm_pvalue *v = nm_pickle_value(m->p, kind, m->err);
    return v && add_items(m, v, items, n) && push(m, v);
}

static bool push_tuple_n(machine *m, size_t n)
{
    if (m->n - floor_of(m) < n)
        return fail(m, "the stack is empty");
    m->n -= n;
    return push_seq(m, NM_P_TUPLE, m->stack + m->n, n);
}

static bool push_marked(machine *m, nm_pkind kind)
{
    nm_pvalue **items;
    size_t n;
    if (!pop_mark(m, &items, &n))
        return false;
    if (kind == NM_P_DICT && n % 2)
        return fail(m, "a dict key without value");
    return push_seq(m, kind, items, n);
}

static bool extend(machine *m, nm_pkind kind, nm_pvalue **items, size_t n)
{
    nm_pvalue *v = top(m);
    if (!v)
        return false;
    if (kind == NM_P_DICT && (v->kind != NM_P_DICT || n % 2))
        return fail(m, "items for something that is no dict");
    if (kind == NM_P_LIST && v->kind != NM_P_LIST)
        return fail(m, "items for something that is no list");
    return add_items(m, v, items, n);
}

static bool extend_marked(machine *m, nm_pkind kind)
{
    nm_pvalue **items;
    size_t n;
    return pop_mark(m, &items, &n) && extend(m, kind, items, n);
}

static bool extend_n(machine *m, nm_pkind kind, size_t n)
{
    if (m->n - floor_of(m) < n + 1)
        return fail(m, "the stack is empty");
    m->n -= n;
    return extend(m, kind, m->stack + m->n, n);
}

/* ---- globals, calls ---- */

static bool push_global(machine *m)
{
    size_t module_len, name_len;
    const unsigned char *module = line(m, &module_len), *name = module ? line(m, &name_len) : NULL;
    return name && push(m, nm_pickle_global(m->p, (const char *)module, module_len, (const char *)name, name_len, m->err));
}

static bool push_stack_global(machine *m)
{
    nm_pvalue *name = pop(m), *module = name ? pop(m) : NULL;
    if (!module)
        return false;
    if (name->kind != NM_P_STR || module->kind != NM_P_STR)
        return fail(m, "a global's name that is no string");
    return push(m, nm_pickle_global(m->p, module->u.s, module->n, name->u.s, name->n, m->err));
}

static bool call(machine *m, bool with_keywords)
{
    nm_pvalue *keywords = with_keywords ? pop(m) : &the_none;
    nm_pvalue *args = keywords ? pop(m) : NULL, *callee = args ? pop(m) : NULL;
    if (!callee)
        return false;
    if (args->kind != NM_P_TUPLE || callee->kind != NM_P_GLOBAL || (with_keywords && (keywords->kind != NM_P_DICT || keywords->n)))
        return fail(m, "a call of something that is no known name");
    return push(m, nm_pickle_call(m->p, callee, args, m->err));
}

static bool build(machine *m)
{
    nm_pvalue *state = pop(m), *obj = state ? top(m) : NULL;
    return obj && nm_pickle_build(m->p, obj, state, m->err) == NOEMA_OK;
}

static bool persistent(machine *m)
{
    nm_pvalue *id = pop(m);
    return id && push(m, nm_pickle_persistent(m->p, id, m->err));
}

static bool protocol(machine *m)
{
    uint64_t v;
    if (!number(m, 1, &v))
        return false;
    return v <= 5 || fail(m, "protocol above 5");
}

static bool refuse(machine *m, int op)
{
    nm_fail(m->err, NOEMA_E_UNSUPPORTED, "%s: pickle opcode 0x%02x at byte %zu is not one that torch writes; refused", m->p->path, op,
            m->at - 1);
    return false;
}

static bool step(machine *m, int op)
{
    uint64_t i;
    nm_pvalue **items;
    size_t n;
    switch (op) {
    case 0x80: return protocol(m);
    case 0x95: return number(m, 8, &i); /* FRAME: only a hint for buffered readers */
    case '.': m->stop = true; return true;
    case '(': return push_mark(m);
    case '0': return m->n > floor_of(m) ? pop(m) != NULL : pop_mark(m, &items, &n);
    case '1': return pop_mark(m, &items, &n);
    case '2': return push(m, top(m));
    case 'N': return push(m, &the_none);
    case 0x88: return push(m, &the_true);
    case 0x89: return push(m, &the_false);
    case 'J': return push_uint(m, 4);
    case 'K': return push_uint(m, 1);
    case 'M': return push_uint(m, 2);
    case 0x8A: return push_long(m, 1);
    case 0x8B: return push_long(m, 4);
    case 'G': return push_float(m);
    case 'X': return push_text(m, NM_P_STR, 4);
    case 0x8C: return push_text(m, NM_P_STR, 1);
    case 0x8D: return push_text(m, NM_P_STR, 8);
    case 'T': return push_text(m, NM_P_STR, 4); /* strings of Python 2 */
    case 'U': return push_text(m, NM_P_STR, 1);
    case 'B': return push_text(m, NM_P_BYTES, 4);
    case 'C': return push_text(m, NM_P_BYTES, 1);
    case 0x8E: return push_text(m, NM_P_BYTES, 8);
    case 0x96: return push_text(m, NM_P_BYTES, 8);
    case ')': return push_seq(m, NM_P_TUPLE, NULL, 0);
    case 0x85: return push_tuple_n(m, 1);
    case 0x86: return push_tuple_n(m, 2);
    case 0x87: return push_tuple_n(m, 3);
    case 't': return push_marked(m, NM_P_TUPLE);
    case ']': return push_seq(m, NM_P_LIST, NULL, 0);
    case 'l': return push_marked(m, NM_P_LIST);
    case 'a': return extend_n(m, NM_P_LIST, 1);
    case 'e': return extend_marked(m, NM_P_LIST);
    case 0x8F: return push_seq(m, NM_P_LIST, NULL, 0); /* sets are lists here */
    case 0x90: return extend_marked(m, NM_P_LIST);
    case 0x91: return push_marked(m, NM_P_LIST);
    case '}': return push_seq(m, NM_P_DICT, NULL, 0);
    case 'd': return push_marked(m, NM_P_DICT);
    case 's': return extend_n(m, NM_P_DICT, 2);
    case 'u': return extend_marked(m, NM_P_DICT);
    case 'q': return number(m, 1, &i) && memo_put(m, i);
    case 'r': return number(m, 4, &i) && memo_put(m, i);
    case 0x94: return memo_put(m, m->n_memo);
    case 'h': return number(m, 1, &i) && memo_get(m, i);
    case 'j': return number(m, 4, &i) && memo_get(m, i);
    case 'c': return push_global(m);
    case 0x93: return push_stack_global(m);
    case 'R': return call(m, false);
    case 0x81: return call(m, false); /* cls.__new__(cls, *args) */
    case 0x92: return call(m, true);
    case 'b': return build(m);
    case 'Q': return persistent(m);
    default: return refuse(m, op);
    }
}

noema_status nm_pickle_read(nm_pickle *p, const unsigned char *data, size_t size, size_t *used, const char *path, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    *p = (nm_pickle){ .path = path, .arena = nm_arena_new(1 << 16) };
    if (!p->arena)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    machine m = { .p = p, .data = data, .size = size, .err = &local };
    if (size > PICKLE_LIMIT)
        m.size = PICKLE_LIMIT;
    bool ok = true;
    while (ok && !m.stop) {
        const unsigned char *op = take(&m, 1);
        ok = op && step(&m, *op);
    }
    if (ok && (m.n != 1 || m.n_marks))
        ok = fail(&m, "it leaves more or less than one value");
    if (ok) {
        p->root = m.stack[0];
        *used = m.at;
    }
    free(m.stack);
    free(m.memo);
    free(m.mark);
    return ok ? NOEMA_OK : nm_fail(err, local.code, "%s", local.message);
}

void nm_pickle_free(nm_pickle *p)
{
    nm_arena_free(p->arena);
    free(p->storage);
    nm_strmap_free(&p->keys);
    *p = (nm_pickle){ 0 };
}
