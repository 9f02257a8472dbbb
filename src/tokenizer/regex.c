/* regex.c - patterns become a program of a few instructions that is run with backtracking on an explicit stack.
 *
 * Subset: literals, . ^ $, classes with ranges, negation and nesting by union, \s \d \w \h and capitals, \p{..} general
 * categories and a few scripts, groups, (?:..) (?i:..) (?i), | alternation, * + ? {m,n} greedy, lazy and possessive, (?=..) (?!..)
 * (?<=..) (?<!..) of one code point, (?>..). A repeated single class is one instruction, so runs cost one step. */
#include "tokenizer/regex.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CODE = 4096, MAX_DEPTH = 40, MAX_ALT = 400, MAX_STACK = 20000 };
enum { OP_SET, OP_ANY, OP_REP, OP_SPLIT, OP_JMP, OP_LOOK, OP_BEHIND, OP_ATOMIC, OP_BOL, OP_EOL, OP_DONE };

/* A set is an ordered list of items; an item adds its code points. Negated sets are inverted at the end. */
typedef struct item { uint8_t kind; bool neg; uint32_t a, b; } item; /* kind: range a..b, category mask a, named class */
enum { I_RANGE, I_CAT, I_SPACE, I_WORD, I_HAN };
typedef struct set { uint32_t first, n; bool neg, fold; } set;

typedef struct code {
    uint8_t op;
    bool neg, lazy, possessive;
    int32_t x, y;      /* jumps; set index; of REP: set and body */
    uint32_t min, max; /* REP */
} code;

struct nm_regex {
    code *code;
    size_t n_code;
    item *item;
    size_t n_item;
    set *set;
    size_t n_set;
};

typedef struct parser {
    nm_regex *re;
    const uint32_t *p;
    size_t n, i;
    int depth, n_alt;
    bool fold;
    const char *bad; /* what is unsupported */
    bool oom;
} parser;

static bool grow(void **p, size_t n, size_t size)
{
    if (n & (n - 1)) /* capacities are the powers of two */
        return true;
    void *q = nm_realloc_array(*p, n ? 2 * n : 1, size);
    if (!q)
        return false;
    *p = q;
    return true;
}

static int emit(parser *s, code c)
{
    nm_regex *re = s->re;
    if (re->n_code >= MAX_CODE || !grow((void **)&re->code, re->n_code, sizeof c)) {
        s->oom = true;
        return 0;
    }
    re->code[re->n_code] = c;
    return (int)re->n_code++;
}

static void add_item(parser *s, item it)
{
    nm_regex *re = s->re;
    if (re->n_item >= MAX_CODE * 4 || !grow((void **)&re->item, re->n_item, sizeof it)) {
        s->oom = true;
        return;
    }
    re->item[re->n_item++] = it;
}

static int new_set(parser *s, size_t first, bool neg)
{
    nm_regex *re = s->re;
    if (!grow((void **)&re->set, re->n_set, sizeof *re->set)) {
        s->oom = true;
        return 0;
    }
    re->set[re->n_set] = (set){ (uint32_t)first, (uint32_t)(re->n_item - first), neg, s->fold };
    return (int)re->n_set++;
}

static bool is_word(uint32_t c)
{
    return (nm_cat(c) & (NM_CAT_L | NM_CAT_M | NM_CAT_ND | 1u << 10 | 1u << 12)) || (c >= 0x24B6 && c <= 0x24E9);
}

static bool is_han(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x323AF) ||
           (c >= 0xF900 && c <= 0xFAD9) || (c >= 0x2E80 && c <= 0x2FD5) || c == 0x3005 || c == 0x3007 ||
           (c >= 0x3021 && c <= 0x3029) || (c >= 0x3038 && c <= 0x303B) || (c >= 0x2F800 && c <= 0x2FA1D);
}

static bool item_has(const item *it, uint32_t c)
{
    bool hit = false;
    switch (it->kind) {
    case I_RANGE: hit = c >= it->a && c <= it->b; break;
    case I_CAT: hit = (nm_cat(c) & it->a) != 0; break;
    case I_SPACE: hit = nm_is_white(c); break;
    case I_WORD: hit = is_word(c); break;
    case I_HAN: hit = is_han(c); break;
    }
    return hit != it->neg;
}

static bool in_items(const nm_regex *re, const set *s, uint32_t c)
{
    for (uint32_t k = 0; k < s->n; k++)
        if (item_has(&re->item[s->first + k], c))
            return true;
    return false;
}

static bool set_has(const nm_regex *re, int index, uint32_t c)
{
    const set *s = &re->set[index];
    bool hit = in_items(re, s, c);
    if (!hit && s->fold) {
        uint32_t low = nm_lower_simple(c), up = c < 0x80 && c >= 'a' && c <= 'z' ? c - 32 : c;
        low = c == 0x17F ? 's' : c == 0x212A ? 'k' : low;
        hit = in_items(re, s, low) || in_items(re, s, up) || (low < 0x80 && low >= 'a' && low <= 'z' && in_items(re, s, low - 32));
    }
    return hit != s->neg;
}

/* \p{Name}: general categories by their short names, White_Space, Han. */
static bool property(parser *s, bool neg)
{
    static const struct { char name[4]; uint32_t mask; } cats[] = {
        { "L", NM_CAT_L }, { "M", NM_CAT_M }, { "N", NM_CAT_N }, { "P", NM_CAT_P }, { "S", NM_CAT_S }, { "Z", NM_CAT_Z },
        { "C", NM_CAT_C }, { "Lu", 1u << 1 }, { "Ll", 1u << 2 }, { "Lt", 1u << 3 }, { "Lm", 1u << 4 }, { "Lo", 1u << 5 },
        { "Mn", 1u << 6 }, { "Mc", 1u << 7 }, { "Me", 1u << 8 }, { "Nd", 1u << 9 }, { "Nl", 1u << 10 }, { "No", 1u << 11 },
        { "Pc", 1u << 12 }, { "Pd", 1u << 13 }, { "Ps", 1u << 14 }, { "Pe", 1u << 15 }, { "Pi", 1u << 16 },
        { "Pf", 1u << 17 }, { "Po", 1u << 18 }, { "Sm", 1u << 19 }, { "Sc", 1u << 20 }, { "Sk", 1u << 21 },
        { "So", 1u << 22 }, { "Zs", 1u << 23 }, { "Zl", 1u << 24 }, { "Zp", 1u << 25 }, { "Cc", 1u << 26 },
        { "Cf", 1u << 27 }, { "Cs", 1u << 28 }, { "Co", 1u << 29 }, { "Cn", 1u },
    };
    char name[24];
    size_t k = 0;
    if (s->i < s->n && s->p[s->i] == '{') {
        s->i++;
        if (s->i < s->n && s->p[s->i] == '^')
            neg = !neg, s->i++;
        while (s->i < s->n && s->p[s->i] != '}' && k < sizeof name - 1)
            name[k++] = (char)s->p[s->i++];
        if (s->i == s->n || s->p[s->i] != '}')
            return false;
        s->i++;
    } else if (s->i < s->n) {
        name[k++] = (char)s->p[s->i++];
    }
    name[k] = 0;
    for (size_t j = 0; j < sizeof cats / sizeof *cats; j++)
        if (strcmp(name, cats[j].name) == 0) {
            add_item(s, (item){ I_CAT, neg, cats[j].mask, 0 });
            return true;
        }
    if (strcmp(name, "Han") == 0)
        add_item(s, (item){ I_HAN, neg, 0, 0 });
    else if (strcmp(name, "White_Space") == 0)
        add_item(s, (item){ I_SPACE, neg, 0, 0 });
    else
        return false;
    return true;
}

/* After a backslash: a class (true) or a literal in *c. */
static bool escape(parser *s, uint32_t *c, bool *is_class)
{
    uint32_t e = s->i < s->n ? s->p[s->i++] : 0;
    *is_class = true;
    switch (e) {
    case 's': case 'S': add_item(s, (item){ I_SPACE, e == 'S', 0, 0 }); return true;
    case 'd': case 'D': add_item(s, (item){ I_CAT, e == 'D', NM_CAT_ND, 0 }); return true;
    case 'w': case 'W': add_item(s, (item){ I_WORD, e == 'W', 0, 0 }); return true;
    case 'p': case 'P': return property(s, e == 'P');
    }
    *is_class = false;
    if (e == 'n' || e == 'r' || e == 't' || e == 'f' || e == 'v') {
        *c = e == 'n' ? '\n' : e == 'r' ? '\r' : e == 't' ? '\t' : e == 'f' ? '\f' : '\v';
        return true;
    }
    if (e == 'x' || e == 'u') {
        uint32_t v = 0;
        size_t want = e == 'u' ? 4 : 2;
        bool brace = s->i < s->n && s->p[s->i] == '{';
        s->i += brace;
        for (size_t k = 0; (brace || k < want) && s->i < s->n && k < 8; k++) {
            uint32_t h = s->p[s->i], l = h | 32;
            if (h - '0' < 10u)
                v = v * 16 + (h - '0');
            else if (l - 'a' < 6u)
                v = v * 16 + (l - 'a' + 10);
            else
                break;
            s->i++;
        }
        if (brace && (s->i == s->n || s->p[s->i++] != '}'))
            return false;
        *c = v;
        return true;
    }
    *c = e;
    return e && !((e | 32) - 'a' < 26u || e - '0' < 10u); /* \b, \1, ...: not here */
}

static bool parse_class(parser *s, bool top, size_t first, int *index)
{
    bool neg = s->i < s->n && s->p[s->i] == '^';
    s->i += neg;
    if (neg && !top)
        return false; /* a negated class inside a class */
    bool start = true;
    while (s->i < s->n && (s->p[s->i] != ']' || start)) {
        uint32_t a = s->p[s->i++], b;
        bool cls = false;
        start = false;
        if (a == '[') {
            if (s->i < s->n && s->p[s->i] == ':')
                return false;
            if (++s->depth > MAX_DEPTH || !parse_class(s, false, first, index))
                return false;
            s->depth--;
            continue;
        }
        if (a == '&' && s->i < s->n && s->p[s->i] == '&')
            return false;
        if (a == '\\' && !escape(s, &a, &cls))
            return false;
        if (cls)
            continue;
        b = a;
        if (s->i + 1 < s->n && s->p[s->i] == '-' && s->p[s->i + 1] != ']') {
            s->i++;
            b = s->p[s->i++];
            if (b == '\\' && (!escape(s, &b, &cls) || cls))
                return false;
            if (b < a)
                return false;
        }
        add_item(s, (item){ I_RANGE, false, a, b });
    }
    if (s->i == s->n)
        return false;
    s->i++;
    if (top)
        *index = new_set(s, first, neg);
    return true;
}

static bool parse_alt(parser *s);

static int literal_set(parser *s, uint32_t c)
{
    size_t first = s->re->n_item;
    add_item(s, (item){ I_RANGE, false, c, c });
    return new_set(s, first, false);
}

static bool parse_group(parser *s)
{
    bool fold = s->fold, ok;
    const uint32_t *q = s->p + s->i;
    size_t left = s->n - s->i;
    if (left >= 2 && q[0] == '?' && (q[1] == '=' || q[1] == '!' || q[1] == '>')) {
        s->i += 2;
        int at = emit(s, (code){ .op = q[1] == '>' ? OP_ATOMIC : OP_LOOK, .neg = q[1] == '!' });
        ok = parse_alt(s);
        emit(s, (code){ .op = OP_DONE });
        if (!s->oom)
            s->re->code[at].x = (int32_t)s->re->n_code - at;
    } else if (left >= 3 && q[0] == '?' && q[1] == '<' && (q[2] == '=' || q[2] == '!')) {
        s->i += 3;
        size_t at = s->re->n_code;
        ok = parse_alt(s) && !s->oom && s->re->n_code == at + 1 && s->re->code[at].op == OP_SET;
        if (ok)
            s->re->code[at].op = OP_BEHIND, s->re->code[at].neg = q[2] == '!';
        else
            s->bad = "look-behind of more than one character";
    } else {
        if (left >= 2 && q[0] == '?' && q[1] == ':') {
            s->i += 2;
        } else if (left >= 3 && q[0] == '?' && q[1] == 'i' && (q[2] == ':' || q[2] == ')')) {
            s->i += 3;
            s->fold = true;
            if (q[2] == ')')
                return true; /* until the end of the enclosing group */
        } else if (left && q[0] == '?') {
            s->bad = "group option";
            return false;
        }
        ok = parse_alt(s);
    }
    s->fold = fold;
    if (!ok || s->i == s->n || s->p[s->i] != ')')
        return false;
    s->i++;
    return true;
}

/* One atom; its code starts at the caller's mark. */
static bool parse_atom(parser *s)
{
    uint32_t c = s->p[s->i++];
    bool cls = false, ok = true;
    int index = 0;
    switch (c) {
    case '(':
        if (++s->depth > MAX_DEPTH)
            return false;
        ok = parse_group(s);
        s->depth--;
        return ok;
    case '[':
        if (!parse_class(s, true, s->re->n_item, &index))
            return false;
        emit(s, (code){ .op = OP_SET, .x = index });
        return true;
    case '.': emit(s, (code){ .op = OP_ANY }); return true;
    case '^': emit(s, (code){ .op = OP_BOL }); return true;
    case '$': emit(s, (code){ .op = OP_EOL }); return true;
    case '*': case '+': case '?': s->bad = "quantifier without an atom"; return false;
    case '\\': {
        size_t first = s->re->n_item;
        if (!escape(s, &c, &cls)) {
            s->bad = "escape";
            return false;
        }
        emit(s, (code){ .op = OP_SET, .x = cls ? new_set(s, first, false) : literal_set(s, c) });
        return true;
    }
    default: emit(s, (code){ .op = OP_SET, .x = literal_set(s, c) }); return true;
    }
}

static bool parse_count(parser *s, uint32_t *min, uint32_t *max)
{
    uint32_t v[2] = { 0, 0 };
    bool given[2] = { false, false };
    int k = 0;
    for (; s->i < s->n && s->p[s->i] != '}'; s->i++) {
        if (s->p[s->i] == ',' && k == 0)
            k = 1;
        else if (s->p[s->i] - '0' < 10u && v[k] < 1000)
            v[k] = v[k] * 10 + (s->p[s->i] - '0'), given[k] = true;
        else
            return false;
    }
    if (s->i == s->n || (!given[0] && !given[1]))
        return false;
    s->i++;
    *min = v[0];
    *max = k == 0 ? v[0] : given[1] ? v[1] : UINT32_MAX;
    return *max >= *min;
}

/* Moves the code from `at` on by one, to put an instruction in front; jumps are relative, so that copies stay right. */
static bool insert(parser *s, size_t at, code c)
{
    emit(s, (code){ .op = OP_DONE });
    if (s->oom)
        return false;
    nm_regex *re = s->re;
    memmove(re->code + at + 1, re->code + at, (re->n_code - 1 - at) * sizeof c);
    re->code[at] = c;
    return true;
}

static bool copy_code(parser *s, const code *body, size_t len)
{
    for (size_t k = 0; k < len; k++)
        emit(s, body[k]);
    return !s->oom;
}

/* x{min,max} of a body that is not one set: copies, then optional copies or a loop. */
static bool repeat(parser *s, size_t at, uint32_t min, uint32_t max, bool lazy)
{
    size_t len = s->re->n_code - at;
    if (min > 64 || (max != UINT32_MAX && max > 64) || len > 256)
        return false;
    code body[256];
    for (size_t k = 0; k < len; k++)
        body[k] = s->re->code[at + k];
    s->re->n_code = at;
    for (uint32_t k = 0; k < min; k++)
        copy_code(s, body, len);
    if (max == UINT32_MAX) {
        emit(s, (code){ .op = OP_SPLIT, .x = 1, .y = (int32_t)len + 2, .lazy = lazy });
        copy_code(s, body, len);
        emit(s, (code){ .op = OP_JMP, .x = -(int32_t)len - 1 });
    } else {
        for (uint32_t k = min; k < max; k++) {
            emit(s, (code){ .op = OP_SPLIT, .x = 1, .y = (int32_t)len + 1, .lazy = lazy });
            copy_code(s, body, len);
        }
    }
    return !s->oom;
}

static bool parse_quantifier(parser *s, size_t at)
{
    uint32_t min, max, q = s->i < s->n ? s->p[s->i] : 0;
    if (q == '*' || q == '+' || q == '?') {
        min = q == '+', max = q == '?' ? 1 : UINT32_MAX;
        s->i++;
    } else if (q == '{') {
        s->i++;
        if (!parse_count(s, &min, &max))
            return false;
    } else {
        return true;
    }
    bool lazy = s->i < s->n && s->p[s->i] == '?', possessive = s->i < s->n && s->p[s->i] == '+' && q != '{';
    s->i += lazy || possessive;
    if (s->oom || s->re->n_code == at)
        return false;
    code *c = &s->re->code[at];
    if (s->re->n_code == at + 1 && (c->op == OP_SET || c->op == OP_ANY) && !lazy) {
        *c = (code){ .op = OP_REP, .x = c->op == OP_ANY ? -1 : c->x, .min = min, .max = max, .possessive = possessive };
        return true;
    }
    if (!repeat(s, at, min, max, lazy))
        return false;
    if (!possessive)
        return true;
    if (!insert(s, at, (code){ .op = OP_ATOMIC }))
        return false;
    emit(s, (code){ .op = OP_DONE });
    if (!s->oom)
        s->re->code[at].x = (int32_t)(s->re->n_code - at);
    return !s->oom;
}

static bool parse_seq(parser *s)
{
    while (s->i < s->n && s->p[s->i] != '|' && s->p[s->i] != ')') {
        size_t at = s->re->n_code;
        if (!parse_atom(s) || s->oom)
            return false;
        if (!parse_quantifier(s, at))
            return false;
    }
    return true;
}

static bool parse_alt(parser *s)
{
    size_t at = s->re->n_code;
    if (!parse_seq(s))
        return false;
    if (s->i == s->n || s->p[s->i] != '|')
        return true;
    s->i++;
    size_t len = s->re->n_code - at;
    if (!insert(s, at, (code){ .op = OP_SPLIT, .x = 1, .y = (int32_t)len + 2 }))
        return false;
    int jmp = emit(s, (code){ .op = OP_JMP });
    if (s->oom || ++s->n_alt > MAX_ALT || !parse_alt(s))
        return false;
    s->re->code[jmp].x = (int32_t)s->re->n_code - jmp;
    return true;
}

noema_status nm_regex_new(nm_regex **out, const char *pattern, size_t n, const char *what, noema_error *err)
{
    nm_u32 p = { 0 };
    nm_regex *re = calloc(1, sizeof *re);
    *out = NULL;
    noema_status st = re ? nm_u32_from_utf8(&p, pattern, n, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    if (!st) {
        parser s = { .re = re, .p = p.p, .n = p.n };
        bool ok = parse_alt(&s) && s.i == s.n;
        emit(&s, (code){ .op = OP_DONE });
        if (s.oom)
            st = nm_fail(err, NOEMA_E_LIMIT, "%s: regular expression too large", what);
        else if (!ok)
            st = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: regular expression \"%.*s\": unsupported %s at character %zu", what,
                         n > 200 ? 200 : (int)n, pattern, s.bad ? s.bad : "syntax", s.i);
    }
    nm_u32_free(&p);
    if (st) {
        nm_regex_free(re);
        return st;
    }
    *out = re;
    return NOEMA_OK;
}

void nm_regex_free(nm_regex *re)
{
    if (!re)
        return;
    free(re->code), free(re->item), free(re->set);
    free(re);
}

typedef struct frame { int32_t pc; size_t pos, floor; } frame; /* a repeat may give back down to `floor` */

/* Runs from pc at pos; 1: matched, *end; 0: not; -1: out of budget. */
static int run(const nm_regex *re, int32_t pc, const uint32_t *p, size_t n, size_t pos, size_t *end, long *budget, int depth)
{
    frame local[64], *st = local;
    size_t top = 0, cap = 64;
    int result = 0;
    for (;;) {
        const code *c = &re->code[pc];
        bool ok = true;
        if (--*budget < 0 || depth > MAX_DEPTH) {
            result = -1;
            break;
        }
        if (top + 1 >= cap) { /* rare: nested optional parts over a long text */
            if (cap >= MAX_STACK) {
                result = -1;
                break;
            }
            frame *q = nm_malloc_array(cap * 4, sizeof *q);
            if (!q) {
                result = -1;
                break;
            }
            memcpy(q, st, top * sizeof *q);
            if (st != local)
                free(st);
            st = q, cap *= 4;
        }
        switch (c->op) {
        case OP_DONE:
            *end = pos;
            result = 1;
            goto out;
        case OP_SET:
            ok = pos < n && set_has(re, c->x, p[pos]);
            pos++, pc++;
            break;
        case OP_ANY:
            ok = pos < n && p[pos] != '\n';
            pos++, pc++;
            break;
        case OP_REP: {
            size_t k = pos;
            while (k < n && k - pos < c->max && (c->x < 0 ? p[k] != '\n' : set_has(re, c->x, p[k])))
                k++;
            ok = k - pos >= c->min;
            if (ok && !c->possessive && k - pos > c->min)
                st[top++] = (frame){ pc + 1, k - 1, pos + c->min };
            pos = k, pc++;
            break;
        }
        case OP_SPLIT:
            st[top++] = (frame){ pc + (c->lazy ? c->x : c->y), pos, pos };
            pc += c->lazy ? c->y : c->x;
            break;
        case OP_JMP: pc += c->x; break;
        case OP_LOOK:
        case OP_ATOMIC: {
            size_t e = pos;
            int r = run(re, pc + 1, p, n, pos, &e, budget, depth + 1);
            if (r < 0) {
                result = -1;
                goto out;
            }
            ok = (r == 1) != c->neg;
            if (c->op == OP_ATOMIC && r == 1)
                pos = e;
            pc += c->x;
            break;
        }
        case OP_BEHIND: ok = (pos > 0 && set_has(re, c->x, p[pos - 1])) != c->neg; pc++; break;
        case OP_BOL: ok = pos == 0 || p[pos - 1] == '\n'; pc++; break;
        default: ok = pos == n || p[pos] == '\n'; pc++; break;
        }
        if (ok)
            continue;
        if (!top)
            break;
        frame *f = &st[top - 1];
        pc = f->pc, pos = f->pos;
        if (f->pos > f->floor)
            f->pos--;
        else
            top--;
    }
out:
    if (st != local)
        free(st);
    return result;
}

int nm_regex_find(const nm_regex *re, const uint32_t *p, size_t n, size_t from, size_t *start, size_t *end, long *budget)
{
    for (size_t i = from; i <= n; i++) {
        int r = run(re, 0, p, n, i, end, budget, 0);
        if (r) {
            *start = i;
            return r;
        }
    }
    return 0;
}
