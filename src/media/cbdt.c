/* cbdt.c - a small OpenType reader: just enough of sfnt, cmap, GSUB, CBLC and CBDT to take the pictures out of an emoji
 * font. Specification: OpenType 1.9, chapters of those names. Every offset and count is the file's and thus hostile:
 * reads outside a table give 0, loops are bounded by what the table can hold. */
#include "media/cbdt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "media/format.h"

enum { MAX_GLYPHS = 65536, MAX_PNG = 1 << 20, PASSES = 4, MAX_OTHERS = 16384 };

typedef struct table { const unsigned char *p; size_t n; } table;

static unsigned u16(table t, size_t at) { return at <= t.n && t.n - at >= 2 ? nm_be16(t.p + at) : 0; }
static uint32_t u32(table t, size_t at) { return at <= t.n && t.n - at >= 4 ? nm_be32(t.p + at) : 0; }

/* The rest of a table from an offset; empty when outside. */
static table from(table t, size_t at) { return at < t.n ? (table){ t.p + at, t.n - at } : (table){ t.p, 0 }; }

static table find_table(table font, const char *tag)
{
    unsigned n = u16(font, 4);
    for (size_t i = 0; i < n; i++) {
        size_t r = 12 + 16 * i;
        if (r + 16 > font.n || memcmp(font.p + r, tag, 4))
            continue;
        size_t at = u32(font, r + 8), size = u32(font, r + 12);
        if (at <= font.n && size <= font.n - at)
            return (table){ font.p + at, size };
    }
    return (table){ font.p, 0 };
}

/* What a glyph stands for: n == 0 when unknown. */
typedef struct meaning { uint32_t cp[NM_EMOJI_MAX_CP]; int n; } meaning;

/* Fonts repeat each ligature mirrored, for right-to-left text: further sequences of a glyph that has a meaning. */
typedef struct other { meaning m; unsigned glyph; } other;
typedef struct meanings { meaning *of; size_t n_glyphs; other *others; size_t n_others; int64_t steps; } meanings;

/* Ranges and lists of a hostile font can all point at the same large one: the work as a whole is bounded, too. */
enum { MAX_STEPS = 1 << 24 };
static bool spend(meanings *m) { return --m->steps > 0; }

static void set_single(meanings *m, uint32_t glyph, uint32_t cp)
{
    if (glyph < m->n_glyphs && glyph && !m->of[glyph].n && cp <= 0x10FFFF) {
        m->of[glyph].cp[0] = cp;
        m->of[glyph].n = 1;
    }
}

static void read_format12(table t, meanings *m)
{
    size_t n = u32(t, 12);
    if (n > t.n / 12)
        n = t.n / 12;
    for (size_t i = 0; i < n; i++) {
        uint32_t a = u32(t, 16 + 12 * i), z = u32(t, 20 + 12 * i), g = u32(t, 24 + 12 * i);
        for (uint32_t c = a; c >= a && c <= z && c - a < MAX_GLYPHS && g < MAX_GLYPHS && c - a < MAX_GLYPHS - g && spend(m); c++)
            set_single(m, g + (c - a), c);
    }
}

static void read_format4(table t, meanings *m)
{
    size_t n = u16(t, 6) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned end = u16(t, 14 + 2 * i), start = u16(t, 16 + 2 * n + 2 * i), delta = u16(t, 16 + 4 * n + 2 * i);
        size_t range_at = 16 + 6 * n + 2 * i;
        unsigned range = u16(t, range_at);
        for (unsigned c = start; c <= end && c < 0xFFFF && spend(m); c++) {
            unsigned g = range ? u16(t, range_at + range + 2 * (size_t)(c - start)) : c;
            if (g)
                set_single(m, (g + delta) & 0xFFFF, c);
        }
    }
}

static void read_cmap(table cmap, meanings *m)
{
    unsigned n = u16(cmap, 2);
    for (int want = 12; want >= 4; want -= 8) /* the full repertoire first */
        for (size_t i = 0; i < n; i++) {
            table t = from(cmap, u32(cmap, 8 + 8 * i));
            if (u16(t, 0) != (unsigned)want)
                continue;
            if (want == 12)
                read_format12(t, m);
            else
                read_format4(t, m);
            break;
        }
}

/* The i-th glyph of a coverage table; -1 past its end. */
static int covered(table t, unsigned i, meanings *m)
{
    if (u16(t, 0) == 1)
        return i < u16(t, 2) && 4 + 2 * (size_t)i + 2 <= t.n ? (int)u16(t, 4 + 2 * (size_t)i) : -1;
    if (u16(t, 0) != 2)
        return -1;
    for (size_t r = 0, n = u16(t, 2); r < n && 10 + 6 * r <= t.n && spend(m); r++) {
        unsigned a = u16(t, 4 + 6 * r), z = u16(t, 6 + 6 * r), first = u16(t, 8 + 6 * r);
        if (z >= a && i >= first && i - first <= z - a)
            return (int)(a + (i - first));
    }
    return -1;
}

/* Appends what a glyph stands for, without variation selectors; false when it is unknown or too long. */
static bool append(meaning *to, const meanings *m, unsigned glyph)
{
    if (glyph >= m->n_glyphs)
        return false;
    const meaning *part = &m->of[glyph];
    for (int i = 0; i < part->n; i++) {
        if (part->cp[i] == 0xFE0F)
            continue;
        if (to->n == NM_EMOJI_MAX_CP)
            return false;
        to->cp[to->n++] = part->cp[i];
    }
    return part->n != 0;
}

static bool same(const meaning *a, const meaning *b) { return a->n == b->n && !memcmp(a->cp, b->cp, (size_t)a->n * sizeof *a->cp); }

/* One ligature: first glyph + components -> its glyph. Returns whether a glyph got its first meaning. */
static bool read_ligature(table t, unsigned first, meanings *m)
{
    unsigned glyph = u16(t, 0), n = u16(t, 2);
    meaning seq = { .n = 0 };
    if (!n || n > 2 * NM_EMOJI_MAX_CP || !glyph || glyph >= m->n_glyphs || !append(&seq, m, first))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!append(&seq, m, u16(t, 4 + 2 * (i - 1))))
            return false;
    if (!seq.n)
        return false;
    if (!m->of[glyph].n) {
        m->of[glyph] = seq;
        return true;
    }
    if (!same(&m->of[glyph], &seq) && m->n_others < (m->n_glyphs < MAX_OTHERS ? m->n_glyphs : MAX_OTHERS))
        m->others[m->n_others++] = (other){ seq, glyph };
    return false;
}

static bool read_ligatures(table t, meanings *m)
{
    bool learnt = false;
    if (u16(t, 0) != 1)
        return false;
    table coverage = from(t, u16(t, 2));
    unsigned n_sets = u16(t, 4);
    for (unsigned s = 0; s < n_sets && 6 + 2 * (size_t)s + 2 <= t.n && spend(m); s++) {
        int first = covered(coverage, s, m);
        table set = from(t, u16(t, 6 + 2 * (size_t)s));
        unsigned n = u16(set, 0);
        for (size_t k = 0; k < n && first >= 0 && 2 + 2 * k + 2 <= set.n && spend(m); k++)
            learnt |= read_ligature(from(set, u16(set, 2 + 2 * k)), (unsigned)first, m);
    }
    return learnt;
}

/* Ligatures of ligatures (a skin tone, then a profession) need the meaning of their parts first: a few passes. */
static void read_gsub(table gsub, meanings *m)
{
    table list = from(gsub, u16(gsub, 8));
    unsigned n = u16(list, 0);
    bool learnt = true;
    for (int pass = 0; pass < PASSES && learnt; pass++) {
        learnt = false;
        m->n_others = 0; /* each pass sees all of them again */
        for (size_t i = 0; i < n && 2 + 2 * i + 2 <= list.n; i++) {
            table lookup = from(list, u16(list, 2 + 2 * i));
            unsigned type = u16(lookup, 0), n_sub = u16(lookup, 4);
            for (size_t k = 0; k < n_sub && 6 + 2 * k + 2 <= lookup.n && spend(m); k++) {
                table sub = from(lookup, u16(lookup, 6 + 2 * k));
                if (type == 7 && u16(sub, 2) == 4) /* an extension holds a far ligature table */
                    learnt |= read_ligatures(from(sub, u32(sub, 4)), m);
                else if (type == 4)
                    learnt |= read_ligatures(sub, m);
            }
        }
    }
}

typedef struct found {
    nm_emoji *list;
    size_t n, cap;
    meanings *m;
    uint32_t *seen; /* per glyph: 1 + its index in list */
    table cbdt;
} found;

static bool add(found *f, const meaning *m, const unsigned char *png, size_t size)
{
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 1024;
        nm_emoji *list = nm_realloc_array(f->list, cap, sizeof *list);
        if (!list)
            return false;
        f->list = list;
        f->cap = cap;
    }
    nm_emoji *e = &f->list[f->n++];
    memcpy(e->cp, m->cp, sizeof e->cp);
    e->n_cp = m->n;
    e->png = png;
    e->png_size = size;
    return true;
}

static bool add_picture(found *f, unsigned glyph, unsigned format, size_t at)
{
    size_t head = format == 17 ? 5 : format == 18 ? 8 : 0;
    if (!spend(f->m) || glyph >= f->m->n_glyphs || !f->m->of[glyph].n || f->seen[glyph] || format < 17 || format > 19)
        return true;
    table t = from(f->cbdt, at);
    size_t n = u32(t, head);
    table png = from(t, head + 4);
    if (n < 8 || n > MAX_PNG || n > png.n || memcmp(png.p, "\x89PNG\r\n\x1a\n", 8))
        return true;
    f->seen[glyph] = (uint32_t)f->n + 1;
    return add(f, &f->m->of[glyph], png.p, n);
}

/* One index subtable: glyphs first..last and where their images lie in CBDT. */
static bool read_index(found *f, table t, unsigned first, unsigned last)
{
    unsigned format = u16(t, 0), image = u16(t, 2);
    size_t base = u32(t, 4);
    bool ok = true;
    if (f->m->steps <= 0)
        return true;
    size_t step = format == 4 ? 4 : 2, listed = format == 4 ? u32(t, 8) : u32(t, 20), at = format == 4 ? 12 : 24;
    switch (format) {
    case 1: for (unsigned g = first; g <= last && ok && 12 + 4 * (size_t)(g - first) <= t.n; g++)
            ok = add_picture(f, g, image, base + u32(t, 8 + 4 * (size_t)(g - first)));
        break;
    case 2: for (unsigned g = first; g <= last && ok; g++)
            ok = add_picture(f, g, image, base + (size_t)(g - first) * u32(t, 8));
        break;
    case 3: for (unsigned g = first; g <= last && ok && 10 + 2 * (size_t)(g - first) <= t.n; g++)
            ok = add_picture(f, g, image, base + u16(t, 8 + 2 * (size_t)(g - first)));
        break;
    case 4:
    case 5: for (size_t i = 0; i < listed && ok && at + step * i + step <= t.n; i++)
            ok = add_picture(f, u16(t, at + step * i), image, base + (format == 4 ? u16(t, at + step * i + 2) : i * u32(t, 8)));
        break;
    default: break;
    }
    return ok;
}

/* The first strike (size) of the font; later ones would repeat its glyphs. */
static bool read_strikes(found *f, table cblc)
{
    bool ok = true;
    table array = from(cblc, u32(cblc, 8));
    size_t n = u32(cblc, 4) ? u32(cblc, 16) : 0;
    for (size_t i = 0; i < n && i < MAX_GLYPHS && 8 * i + 8 <= array.n && ok; i++)
        ok = read_index(f, from(array, u32(array, 8 * i + 4)), u16(array, 8 * i), u16(array, 8 * i + 2));
    return ok;
}

static int compare(const void *x, const void *y)
{
    const nm_emoji *a = x, *b = y;
    if ((a->n_cp == 1) != (b->n_cp == 1))
        return a->n_cp == 1 ? -1 : 1;
    for (int i = 0; i < a->n_cp && i < b->n_cp; i++)
        if (a->cp[i] != b->cp[i])
            return a->cp[i] < b->cp[i] ? -1 : 1;
    return a->n_cp - b->n_cp;
}

noema_status nm_emoji_list(nm_emoji **out, size_t *n, const void *font, size_t size, const char *name, noema_error *err)
{
    table t = { font, size };
    table cmap = find_table(t, "cmap"), cblc = find_table(t, "CBLC"), cbdt = find_table(t, "CBDT");
    *out = NULL;
    *n = 0;
    if (!cmap.n || !cblc.n || !cbdt.n)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: not a bitmap emoji font: expected the tables cmap, CBLC and CBDT, missing %s%s%s", name,
                       cmap.n ? "" : "cmap ", cblc.n ? "" : "CBLC ", cbdt.n ? "" : "CBDT");
    /* a glyph with a picture takes at least four bytes of index: a small file needs no large tables */
    size_t glyphs = size / 4 < MAX_GLYPHS ? size / 4 : MAX_GLYPHS, others = glyphs < MAX_OTHERS ? glyphs : MAX_OTHERS;
    meanings m = { nm_calloc(glyphs, sizeof *m.of), glyphs, nm_calloc(others, sizeof *m.others), 0, MAX_STEPS };
    found f = { .m = &m, .seen = nm_calloc(glyphs, sizeof *f.seen), .cbdt = cbdt };
    bool ok = m.of && m.others && f.seen;
    if (ok) {
        read_cmap(cmap, &m);
        read_gsub(find_table(t, "GSUB"), &m);
        ok = read_strikes(&f, cblc);
        for (size_t i = 0; i < m.n_others && ok; i++) {
            uint32_t at = f.seen[m.others[i].glyph];
            if (at)
                ok = add(&f, &m.others[i].m, f.list[at - 1].png, f.list[at - 1].png_size);
        }
    }
    nm_free(m.of);
    nm_free(m.others);
    nm_free(f.seen);
    if (!ok) {
        free(f.list);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", name);
    }
    if (!f.n) {
        free(f.list);
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected pictures of characters, got none", name);
    }
    qsort(f.list, f.n, sizeof *f.list, compare);
    size_t unique = 1;
    for (size_t i = 1; i < f.n; i++)
        if (compare(&f.list[unique - 1], &f.list[i]))
            f.list[unique++] = f.list[i];
    f.n = unique;
    *out = f.list;
    *n = f.n;
    return NOEMA_OK;
}

int nm_emoji_file_name(const nm_emoji *e, char name[160])
{
    int n = snprintf(name, 160, "emoji_u");
    for (int i = 0; i < e->n_cp; i++)
        n += snprintf(name + n, 160 - (size_t)n, "%s%04x", i ? "_" : "", e->cp[i]);
    return n + snprintf(name + n, 160 - (size_t)n, ".png");
}

bool nm_emoji_single(void *arg, const nm_emoji *e)
{
    (void)arg;
    return e->n_cp == 1;
}

noema_status nm_emoji_extract(const char *font_path, const char *out_dir, size_t limit, nm_emoji_keep *keep, void *arg,
                              size_t *n_written, noema_error *err)
{
    nm_map map;
    nm_emoji *list = NULL;
    size_t n = 0, done = 0;
    keep = keep ? keep : nm_emoji_single;
    if (n_written)
        *n_written = 0;
    noema_status st = nm_map_file(&map, font_path, err);
    if (st != NOEMA_OK)
        return st;
    st = nm_emoji_list(&list, &n, map.data, map.size, font_path, err);
    if (st == NOEMA_OK)
        st = nm_mkdirs(out_dir, err);
    for (size_t i = 0; st == NOEMA_OK && i < n && (!limit || done < limit); i++) {
        char name[160];
        if (!keep(arg, &list[i]))
            continue;
        nm_emoji_file_name(&list[i], name);
        char *path = nm_path_join(out_dir, name);
        st = path ? nm_write_file_atomic(path, list[i].png, list[i].png_size, err)
                  : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", out_dir);
        free(path);
        done += st == NOEMA_OK;
    }
    if (n_written)
        *n_written = done;
    free(list);
    nm_unmap(&map);
    return st;
}
