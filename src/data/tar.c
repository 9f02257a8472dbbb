/* tar.c - see tar.h. Field offsets are those of POSIX's ustar header. */
#include "data/tar.h"

#include <string.h>

#define BLOCK 512
#define MAX_NAME ((size_t)1 << 16)

/* Octal with blanks around it, or base-256 when the first bit is set; -1: neither. */
static int64_t number(const unsigned char *p, int n)
{
    uint64_t v = 0;
    if (p[0] & 0x80) {
        v = p[0] & 0x3F;
        for (int i = 1; i < n; i++) {
            if (v >> 54)
                return -1;
            v = v << 8 | p[i];
        }
        return p[0] & 0x40 ? -1 : (int64_t)v; /* negative */
    }
    int i = 0;
    while (i < n && p[i] == ' ')
        i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
        v = v << 3 | (uint64_t)(p[i] - '0');
    return i < n && p[i] && p[i] != ' ' ? -1 : (int64_t)v;
}

static bool sum_fits(const unsigned char *h)
{
    int64_t sum = 0, signed_sum = 0, want = number(h + 148, 8);
    for (int i = 0; i < BLOCK; i++) {
        unsigned char c = i >= 148 && i < 156 ? ' ' : h[i];
        sum += c;
        signed_sum += (signed char)c; /* old writers */
    }
    return want == sum || want == signed_sum;
}

static bool is_zero(const unsigned char *h)
{
    for (int i = 0; i < BLOCK; i++)
        if (h[i])
            return false;
    return true;
}

static bool put_name(nm_buf *b, const void *p, size_t n)
{
    const char *end = memchr(p, 0, n);
    b->len = 0;
    return nm_buf_append(b, p, end ? (size_t)(end - (const char *)p) : n);
}

/* The ustar name, with its prefix (GNU's own headers keep other things there). */
static bool header_name(nm_buf *b, const unsigned char *h)
{
    b->len = 0;
    if (memcmp(h + 257, "ustar", 6) == 0 && h[345]) {
        if (!put_name(b, h + 345, 155) || !nm_buf_putc(b, '/'))
            return false;
    }
    const char *end = memchr(h, 0, 100);
    return nm_buf_append(b, h, end ? (size_t)(end - (const char *)h) : 100);
}

/* "LENGTH KEY=VALUE\n" records: path and size matter. */
static void read_pax(nm_tar *t, const unsigned char *p, size_t n, int64_t *size)
{
    const unsigned char *end = p + n;
    while (p < end) {
        size_t length = 0;
        const unsigned char *at = p;
        while (at < end && *at >= '0' && *at <= '9' && length < MAX_NAME * 16)
            length = 10 * length + (size_t)(*at++ - '0');
        if (at >= end || *at != ' ' || length < (size_t)(at - p) + 2 || length > (size_t)(end - p))
            return;
        const unsigned char *key = at + 1, *stop = p + length - 1, *eq = memchr(key, '=', (size_t)(stop - key));
        if (eq && eq - key == 4 && memcmp(key, "path", 4) == 0)
            put_name(&t->pax_name, eq + 1, (size_t)(stop - eq) - 1);
        else if (eq && eq - key == 4 && memcmp(key, "size", 4) == 0) {
            *size = 0;
            for (const unsigned char *d = eq + 1; d < stop && *d >= '0' && *d <= '9' && *size < INT64_MAX / 16; d++)
                *size = 10 * *size + (*d - '0');
        }
        p += length;
    }
}

noema_status nm_tar_next(nm_tar *t, nm_tar_member *m, bool *more, noema_error *err)
{
    int64_t pax_size = -1;
    *more = false;
    t->pax_name.len = 0;
    while (t->size - t->at >= BLOCK) {
        const unsigned char *h = t->data + t->at;
        if (is_zero(h))
            return NOEMA_OK;
        int64_t size = pax_size >= 0 && h[156] != 'x' && h[156] != 'L' ? pax_size : number(h + 124, 12);
        if (!sum_fits(h) || size < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: byte %zu: no tar header (its checksum differs)", t->file, t->at);
        size_t at = t->at + BLOCK;
        if ((uint64_t)size > t->size - at)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: the archive is truncated: member %.100s of %lld bytes at byte %zu", t->file, (const char *)h,
                           (long long)size, t->at);
        size_t padded = ((size_t)size + BLOCK - 1) / BLOCK * BLOCK;
        t->at = padded > t->size - at ? t->size : at + padded;
        switch (h[156]) {
        case 'L':
        case 'x':
            if ((size_t)size > MAX_NAME * 16)
                return nm_fail(err, NOEMA_E_LIMIT, "%s: a header of %lld bytes", t->file, (long long)size);
            if (h[156] == 'L')
                put_name(&t->pax_name, t->data + at, (size_t)size);
            else
                read_pax(t, t->data + at, (size_t)size, &pax_size);
            break;
        case 0:
        case '0':
        case '7':
            if (t->pax_name.len > MAX_NAME)
                return nm_fail(err, NOEMA_E_LIMIT, "%s: a name of %zu bytes", t->file, t->pax_name.len);
            if (!(t->pax_name.len ? put_name(&t->name, t->pax_name.data, t->pax_name.len) : header_name(&t->name, h)))
                return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", t->file);
            *m = (nm_tar_member){ t->name.data, at, (size_t)size };
            *more = true;
            return NOEMA_OK;
        default: /* folders, links, devices, global headers */
            t->pax_name.len = 0;
            pax_size = -1;
        }
    }
    for (size_t i = t->at; i < t->size; i++)
        if (t->data[i])
            return nm_fail(err, NOEMA_E_FORMAT, "%s: the archive is truncated: %zu bytes instead of a header at byte %zu", t->file, t->size - t->at, t->at);
    return NOEMA_OK;
}

void nm_tar_free(nm_tar *t)
{
    nm_buf_free(&t->name);
    nm_buf_free(&t->pax_name);
}

bool nm_tar_key(const char *name, size_t *key_bytes)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name, *dot = strchr(base, '.'), *end;
    if (name[0] == '_' && name[1] == '_' && (end = strstr(name + 2, "__")) && !memchr(name, '/', (size_t)(end - name)))
        return false;
    if (!dot)
        return false;
    *key_bytes = (size_t)(dot - name);
    if (dot > base)
        return true;
    /* "dir/.x": webdataset's expression gives the key "dir/" when the last folder has no dot */
    if (!slash || slash == name)
        return false;
    const char *folder = slash;
    while (folder > name && folder[-1] != '/')
        folder--;
    return folder < slash && !memchr(folder, '.', (size_t)(slash - folder));
}
