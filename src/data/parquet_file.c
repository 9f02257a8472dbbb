/* parquet_file.c - the footer of a Parquet file: schema, row groups, metadata. Field numbers are those of parquet.thrift. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/parquet_impl.h"

#define MAX_FOOTER ((size_t)256 << 20)
#define MAX_DEPTH 24
#define MAX_COLUMNS 10000

static noema_status no_memory(const nm_parquet *p, noema_error *err) { return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->name); }

static char *text(nm_thrift *t, nm_thrift_type type)
{
    const unsigned char *s;
    size_t n = nm_thrift_bytes(t, type, &s);
    return nm_strndup((const char *)s, n);
}

/* ---- schema: a tree written depth first ---- */

typedef struct element { int type, width, repetition, children, converted; bool has_type, text, is_unsigned; char *name; } element;

static bool read_logical(nm_thrift *t, element *e)
{
    int id = 0;
    for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;) {
        if (id == 1) /* STRING */
            e->text = true;
        if (id == 10 && f == NM_TH_STRUCT) { /* INTEGER: bitWidth, isSigned */
            int in = 0;
            for (nm_thrift_type g; (g = nm_thrift_field(t, &in)) != NM_TH_STOP;) {
                if (in == 2)
                    e->is_unsigned = nm_thrift_int(t, g) == 0;
                else
                    nm_thrift_skip(t, g);
            }
        } else
            nm_thrift_skip(t, f);
    }
    return !t->bad;
}

static bool read_element(nm_thrift *t, element *e)
{
    int id = 0;
    *e = (element){ .converted = -1 };
    for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;)
        switch (id) {
        case 1: e->type = (int)nm_thrift_int(t, f); e->has_type = true; break;
        case 2: e->width = (int)nm_thrift_int(t, f); break;
        case 3: e->repetition = (int)nm_thrift_int(t, f); break;
        case 4: free(e->name); e->name = text(t, f); break;
        case 5: e->children = (int)nm_thrift_int(t, f); break;
        case 6: e->converted = (int)nm_thrift_int(t, f); break;
        case 10:
            if (f == NM_TH_STRUCT)
                read_logical(t, e);
            else
                nm_thrift_fail(t);
            break;
        default: nm_thrift_skip(t, f);
        }
    if (e->converted == 0) /* UTF8 */
        e->text = true;
    if (e->converted >= 11 && e->converted <= 14) /* UINT_8 .. UINT_64 */
        e->is_unsigned = true;
    return !t->bad && e->name && e->type >= 0 && e->type <= NM_PQ_FIXED && e->repetition >= 0 && e->repetition <= 2 && e->children >= 0;
}

typedef struct level { int left; int def, rep; size_t path; } level; /* children still to come; path: length of the group's own path */

static noema_status add_column(nm_parquet *p, const element *e, const char *prefix, int def, int rep, int top, noema_error *err)
{
    if (p->n_columns == MAX_COLUMNS)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: more than %d columns", p->name, MAX_COLUMNS);
    if (e->type == NM_PQ_FIXED && (e->width < 1 || e->width > 1 << 20))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: column %s%s: values of %d bytes", p->name, prefix, e->name, e->width);
    nm_parquet_column *c = nm_realloc_array(p->column, (size_t)p->n_columns + 1, sizeof *c);
    if (!c)
        return no_memory(p, err);
    p->column = c;
    c += p->n_columns;
    *c = (nm_parquet_column){ .path = nm_sprintf("%s%s", prefix, e->name), .type = (nm_parquet_type)e->type, .width = e->width, .max_def = def,
                              .max_rep = rep, .is_text = e->text, .is_unsigned = e->is_unsigned, .top = top };
    if (!c->path)
        return no_memory(p, err);
    p->n_columns++;
    return NOEMA_OK;
}

static noema_status bad_schema(const nm_parquet *p, noema_error *err) { return nm_fail(err, NOEMA_E_FORMAT, "%s: the schema in the footer is damaged", p->name); }

/* One element below the open groups of `stack`; opens a group of its own. */
static noema_status place(nm_parquet *p, const element *e, level *stack, int *depth, nm_buf *path, int top, noema_error *err)
{
    level *up = &stack[*depth - 1];
    int def = up->def + (e->repetition != 0), rep = up->rep + (e->repetition == 2);
    up->left--;
    path->len = up->path;
    if (e->children == 0) {
        if (!e->has_type)
            return NOEMA_OK; /* an empty group has no columns */
        path->data[path->len] = 0;
        return add_column(p, e, path->data, def, rep, top, err);
    }
    if (*depth == MAX_DEPTH)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: the schema is nested deeper than %d", p->name, MAX_DEPTH);
    if (path->len + strlen(e->name) > 4096)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: a column's path is longer than 4096 bytes", p->name);
    nm_buf_puts(path, e->name);
    if (!nm_buf_putc(path, '.'))
        return no_memory(p, err);
    stack[(*depth)++] = (level){ e->children, def, rep, path->len };
    return NOEMA_OK;
}

static noema_status read_schema(nm_parquet *p, nm_thrift *t, nm_thrift_type type, noema_error *err)
{
    nm_thrift_type kind;
    size_t n = nm_thrift_list(t, type, &kind);
    level stack[MAX_DEPTH];
    int depth = 0, top = -1;
    nm_buf path = { 0 };
    noema_status s = nm_buf_append(&path, "", 0) && nm_buf_reserve(&path, 64) ? NOEMA_OK : no_memory(p, err);
    if (kind != NM_TH_STRUCT || n == 0 || p->column)
        s = bad_schema(p, err);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        element e = { 0 };
        if (!read_element(t, &e) || (i > 0 && depth == 0))
            s = bad_schema(p, err);
        else if (i == 0)
            stack[depth++] = (level){ e.children, 0, 0, 0 };
        else {
            if (depth == 1)
                top++;
            s = place(p, &e, stack, &depth, &path, top, err);
        }
        free(e.name);
        while (s == NOEMA_OK && depth > 0 && stack[depth - 1].left == 0)
            depth--;
    }
    nm_buf_free(&path);
    return s == NOEMA_OK && depth != 0 ? bad_schema(p, err) : s;
}

/* ---- row groups ---- */

static bool read_chunk_meta(nm_thrift *t, nm_parquet_chunk *c)
{
    int64_t data = -1, dictionary = 0, size = -1;
    int id = 0;
    for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;)
        switch (id) {
        case 4: c->codec = (int)nm_thrift_int(t, f); break;
        case 5: c->n_values = nm_thrift_int(t, f); break;
        case 7: size = nm_thrift_int(t, f); break;
        case 9: data = nm_thrift_int(t, f); break;
        case 11: dictionary = nm_thrift_int(t, f); break;
        default: nm_thrift_skip(t, f);
        }
    if (t->bad || data < 0 || size < 0 || dictionary < 0 || c->n_values < 0)
        return false;
    /* Some writers give a dictionary offset of 0 for none, others one that is no smaller than the data's. */
    c->data_at = (size_t)data;
    c->at = dictionary > 0 && dictionary < data ? (size_t)dictionary : (size_t)data;
    return nm_add_size(c->at, (size_t)size, &c->end);
}

static bool read_chunk(nm_thrift *t, nm_parquet_chunk *c)
{
    int id = 0;
    bool seen = false;
    *c = (nm_parquet_chunk){ 0 };
    for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;) {
        const unsigned char *s;
        if (id == 1)
            c->elsewhere = nm_thrift_bytes(t, f, &s) > 0;
        else if (id == 3 && f == NM_TH_STRUCT)
            seen = read_chunk_meta(t, c);
        else
            nm_thrift_skip(t, f);
    }
    return !t->bad && seen;
}

static bool read_group(nm_parquet *p, nm_thrift *t, nm_parquet_group *g)
{
    int id = 0;
    *g = (nm_parquet_group){ .rows = -1 };
    for (nm_thrift_type f, kind; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;) {
        if (id == 3)
            g->rows = nm_thrift_int(t, f);
        else if (id == 1 && !g->chunk) {
            size_t n = nm_thrift_list(t, f, &kind);
            if (n != (size_t)p->n_columns || (n && kind != NM_TH_STRUCT) || !(g->chunk = calloc(n + 1, sizeof *g->chunk)))
                return false;
            for (size_t i = 0; i < n; i++)
                if (!read_chunk(t, &g->chunk[i]) || (!g->chunk[i].elsewhere && g->chunk[i].end > p->size))
                    return false;
        } else
            nm_thrift_skip(t, f);
    }
    return !t->bad && g->chunk && g->rows >= 0;
}

static noema_status read_groups(nm_parquet *p, nm_thrift *t, nm_thrift_type type, noema_error *err)
{
    nm_thrift_type kind;
    size_t n = nm_thrift_list(t, type, &kind), cap = 0;
    int64_t rows = 0;
    if (p->group || !p->column || n > INT32_MAX)
        n = 0, nm_thrift_fail(t);
    for (size_t i = 0; i < n; i++) {
        if (i == cap) {
            cap = cap ? 2 * cap : 16;
            nm_parquet_group *g = nm_realloc_array(p->group, cap, sizeof *g);
            if (!g)
                return no_memory(p, err);
            p->group = g;
        }
        nm_parquet_group *g = &p->group[p->n_groups++];
        if (!read_group(p, t, g) || __builtin_add_overflow(rows, g->rows, &rows))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: row group %zu in the footer is damaged or reaches past the end of the file", p->name, i);
    }
    p->rows = rows;
    return NOEMA_OK;
}

static noema_status read_meta(nm_parquet *p, nm_thrift *t, nm_thrift_type type, noema_error *err)
{
    nm_thrift_type kind;
    size_t n = nm_thrift_list(t, type, &kind);
    for (size_t i = 0; i < n && !t->bad; i++) {
        void *grown = nm_realloc_array(p->meta, (size_t)p->n_meta + 1, sizeof *p->meta);
        if (!grown)
            return no_memory(p, err);
        p->meta = grown;
        char **key = &p->meta[p->n_meta].key, **value = &p->meta[p->n_meta].value;
        *key = *value = NULL;
        p->n_meta++;
        int id = 0;
        for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;) {
            char **to = id == 1 ? key : id == 2 ? value : NULL;
            if (!to || *to)
                nm_thrift_skip(t, f);
            else if (!(*to = text(t, f)))
                return no_memory(p, err);
        }
    }
    return NOEMA_OK;
}

static noema_status read_footer(nm_parquet *p, const unsigned char *at, size_t n, noema_error *err)
{
    nm_thrift t = { .p = at, .end = at + n };
    int id = 0;
    int64_t rows = -1;
    noema_status s = NOEMA_OK;
    for (nm_thrift_type f; s == NOEMA_OK && (f = nm_thrift_field(&t, &id)) != NM_TH_STOP;)
        switch (id) {
        case 2: s = read_schema(p, &t, f, err); break;
        case 3: rows = nm_thrift_int(&t, f); break;
        case 4: s = read_groups(p, &t, f, err); break;
        case 5: s = read_meta(p, &t, f, err); break;
        default: nm_thrift_skip(&t, f);
        }
    if (s == NOEMA_OK && (t.bad || !p->column))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: the footer is damaged", p->name);
    if (s == NOEMA_OK && rows != p->rows)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: the footer says %lld rows, its row groups hold %lld", p->name, (long long)rows, (long long)p->rows);
    return s;
}

static noema_status parse(nm_parquet *p, noema_error *err)
{
    uint32_t n;
    if (p->size >= 4 && memcmp(p->data, "PARE", 4) == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: encrypted Parquet is not read", p->name);
    if (p->size < 12 || memcmp(p->data, "PAR1", 4) != 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: not a Parquet file", p->name);
    if (memcmp(p->data + p->size - 4, "PAR1", 4) != 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: no footer at the end: the file is truncated", p->name);
    memcpy(&n, p->data + p->size - 8, 4);
    if (n > p->size - 12 || n > MAX_FOOTER)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: a footer of %u bytes in a file of %zu", p->name, n, p->size);
    return read_footer(p, p->data + p->size - 8 - n, n, err);
}

noema_status nm_parquet_open_memory(nm_parquet **out, const void *data, size_t size, const char *name, size_t max_page, noema_error *err)
{
    nm_parquet *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p || !(p->name = nm_strdup(name))) {
        free(p);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", name);
    }
    p->data = data;
    p->size = size;
    p->max_page = max_page ? max_page : NM_PARQUET_MAX_PAGE;
    noema_status s = parse(p, err);
    if (s == NOEMA_OK)
        *out = p;
    else
        nm_parquet_close(p);
    return s;
}

noema_status nm_parquet_open(nm_parquet **out, const char *path, noema_error *err)
{
    nm_map m;
    *out = NULL;
    noema_status s = nm_map_file(&m, path, err);
    if (s == NOEMA_OK)
        s = nm_parquet_open_memory(out, m.data, m.size, path, 0, err);
    if (s == NOEMA_OK)
        (*out)->map = m;
    else
        nm_unmap(&m);
    return s;
}

void nm_parquet_close(nm_parquet *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_columns; i++)
        free(p->column[i].path);
    for (int i = 0; i < p->n_groups; i++)
        free(p->group[i].chunk);
    for (int i = 0; i < p->n_meta; i++) {
        free(p->meta[i].key);
        free(p->meta[i].value);
    }
    free(p->column);
    free(p->group);
    free(p->meta);
    free(p->name);
    nm_unmap(&p->map);
    free(p);
}

int64_t nm_parquet_rows(const nm_parquet *p) { return p->rows; }
int nm_parquet_groups(const nm_parquet *p) { return p->n_groups; }
int64_t nm_parquet_group_rows(const nm_parquet *p, int group) { return p->group[group].rows; }
int nm_parquet_columns(const nm_parquet *p) { return p->n_columns; }
const nm_parquet_column *nm_parquet_column_at(const nm_parquet *p, int column) { return &p->column[column]; }
const char *nm_parquet_codec(const nm_parquet *p, int group, int column) { return nm_pq_codec_name(p->group[group].chunk[column].codec); }

/* True when column i is the only leaf of its field of the root, and that field has this name. */
static bool only_leaf(const nm_parquet *p, int i, const char *field)
{
    size_t n = strlen(field);
    const nm_parquet_column *c = &p->column[i];
    return strncmp(c->path, field, n) == 0 && c->path[n] == '.' && !memchr(field, '.', n) && (i == 0 || c[-1].top != c->top) &&
           (i + 1 == p->n_columns || c[1].top != c->top);
}

int nm_parquet_find(const nm_parquet *p, const char *path)
{
    for (int i = 0; i < p->n_columns; i++)
        if (strcmp(p->column[i].path, path) == 0)
            return i;
    for (int i = 0; i < p->n_columns; i++)
        if (p->column[i].max_rep == 1 && only_leaf(p, i, path))
            return i;
    return -1;
}

const char *nm_parquet_meta(const nm_parquet *p, const char *key)
{
    for (int i = 0; i < p->n_meta; i++)
        if (p->meta[i].key && strcmp(p->meta[i].key, key) == 0)
            return p->meta[i].value;
    return NULL;
}
