/* zip.c - see zip.h. Format: PKWARE APPNOTE 6.3.9, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14-16 (ends).
 *
 * The central directory is the truth about names and sizes; of a local header only the signature and the lengths of its variable
 * fields are used, because data starts after them (torch pads the extra field so that data is 64-byte aligned). */
#include "weights/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/mem.h"

#define END_BYTES 22
#define LOCAL_BYTES 30
#define CENTRAL_BYTES 46
#define ZIP64_END_BYTES 56
#define ZIP64_LOCATOR_BYTES 20

/* What may be inflated from one archive: 64 times its size, but 256 MiB in any case. Weights do not compress like that. */
#define INFLATE_FLOOR ((uint64_t)256 << 20)
#define INFLATE_RATIO 64

static uint16_t u16(const unsigned char *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const unsigned char *p) { return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16; }
static uint64_t u64(const unsigned char *p) { return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32; }

typedef struct directory { uint64_t n, size, offset; } directory;

static const unsigned char *find_end(const unsigned char *data, size_t size)
{
    if (size < END_BYTES)
        return NULL;
    size_t lowest = size > END_BYTES + 65535 ? size - END_BYTES - 65535 : 0;
    for (size_t at = size - END_BYTES + 1; at-- > lowest;)
        if (memcmp(data + at, "PK\5\6", 4) == 0 && at + END_BYTES + u16(data + at + 20) == size)
            return data + at;
    return NULL;
}

static noema_status read_end(directory *d, const unsigned char *data, size_t size, const char *path, noema_error *err)
{
    const unsigned char *e = find_end(data, size);
    if (!e)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: zip without its end record: the file is truncated or damaged", path);
    if (u16(e + 4) != 0 && u16(e + 4) != 0xFFFF)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: zip spread over several disks", path);
    *d = (directory){ u16(e + 10), u32(e + 12), u32(e + 16) };
    uint64_t end = (uint64_t)(e - data);
    if (d->n == 0xFFFF || d->size == UINT32_MAX || d->offset == UINT32_MAX) {
        if (end < ZIP64_LOCATOR_BYTES + ZIP64_END_BYTES || memcmp(e - ZIP64_LOCATOR_BYTES, "PK\6\7", 4) != 0) {
            if (d->size == UINT32_MAX || d->offset == UINT32_MAX)
                return nm_fail(err, NOEMA_E_FORMAT, "%s: zip64 without its locator", path);
        } else {
            uint64_t at = u64(e - ZIP64_LOCATOR_BYTES + 8);
            if (at > end - ZIP64_LOCATOR_BYTES - ZIP64_END_BYTES || memcmp(data + at, "PK\6\6", 4) != 0)
                return nm_fail(err, NOEMA_E_FORMAT, "%s: zip64 end record expected at %ju", path, (uintmax_t)at);
            *d = (directory){ u64(data + at + 32), u64(data + at + 40), u64(data + at + 48) };
            end = at;
        }
    }
    if (d->offset > end || d->size > end - d->offset || d->n > d->size / CENTRAL_BYTES)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: zip directory of %ju entries, %ju bytes at %ju does not fit before %ju", path,
                       (uintmax_t)d->n, (uintmax_t)d->size, (uintmax_t)d->offset, (uintmax_t)end);
    return NOEMA_OK;
}

/* Fills 64-bit sizes from the zip64 extra field, in the fixed order size, stored size, offset, only those that are 0xFFFFFFFF. */
static bool read_zip64_extra(const unsigned char *x, size_t len, uint64_t *size, uint64_t *stored, uint64_t *offset)
{
    uint64_t *want[3];
    int n = 0;
    if (*size == UINT32_MAX)
        want[n++] = size;
    if (*stored == UINT32_MAX)
        want[n++] = stored;
    if (*offset == UINT32_MAX)
        want[n++] = offset;
    for (size_t at = 0; n && len - at >= 4;) {
        size_t field = u16(x + at + 2);
        if (field > len - at - 4)
            return false;
        if (u16(x + at) == 1) {
            if (field < 8 * (size_t)n)
                return false;
            for (int i = 0; i < n; i++)
                *want[i] = u64(x + at + 4 + 8 * i);
            return true;
        }
        at += 4 + field;
    }
    return n == 0;
}

/* One central directory record at p, `left` bytes to the end of the directory; *used is its length. */
static noema_status read_entry(nm_zip_entry *e, size_t *used, const unsigned char *p, uint64_t left, const unsigned char *data,
                               uint64_t data_end, const char *path, noema_error *err)
{
    if (left < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: damaged zip directory", path);
    size_t name_len = u16(p + 28), extra_len = u16(p + 30), comment_len = u16(p + 32);
    *used = CENTRAL_BYTES + name_len + extra_len + comment_len;
    if (*used > left)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: damaged zip directory: entry longer than the directory", path);
    *e = (nm_zip_entry){ .name = (const char *)p + CENTRAL_BYTES, .name_len = name_len, .stored_size = u32(p + 20), .size = u32(p + 24),
                         .crc = u32(p + 16), .method = u16(p + 10) };
    uint64_t at = u32(p + 42);
    int show = name_len > 200 ? 200 : (int)name_len;
    if (!read_zip64_extra(p + CENTRAL_BYTES + name_len, extra_len, &e->size, &e->stored_size, &at))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: member '%.*s': damaged zip64 field", path, show, e->name);
    if (u16(p + 8) & 1)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: member '%.*s' is encrypted", path, show, e->name);
    if (e->method != 0 && e->method != 8)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: member '%.*s' has compression method %d; expected stored or deflated", path, show,
                       e->name, e->method);
    if (e->method == 0 && e->size != e->stored_size)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: stored member '%.*s' has two sizes, %ju and %ju", path, show, e->name,
                       (uintmax_t)e->stored_size, (uintmax_t)e->size);
    if (at > data_end || data_end - at < LOCAL_BYTES || memcmp(data + at, "PK\3\4", 4) != 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: member '%.*s' expected at %ju, nothing there", path, show, e->name, (uintmax_t)at);
    uint64_t start = at + LOCAL_BYTES + u16(data + at + 26) + u16(data + at + 28);
    if (start > data_end || e->stored_size > data_end - start)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: member '%.*s', %ju bytes at %ju, ends outside the file", path, show, e->name,
                       (uintmax_t)e->stored_size, (uintmax_t)start);
    e->data = data + start;
    return NOEMA_OK;
}

noema_status nm_zip_open(nm_zip **out, const unsigned char *data, size_t size, const char *path, noema_error *err)
{
    *out = NULL;
    directory d = { 0 };
    noema_status s = read_end(&d, data, size, path, err);
    if (s != NOEMA_OK)
        return s;
    nm_zip *z = calloc(1, sizeof *z);
    if (!z || !(z->entry = nm_malloc_array(d.n ? (size_t)d.n : 1, sizeof *z->entry))) {
        free(z);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory for %ju zip entries", path, (uintmax_t)d.n);
    }
    z->path = path;
    z->inflate_left = size > INFLATE_FLOOR / INFLATE_RATIO ? (uint64_t)size * INFLATE_RATIO : INFLATE_FLOOR;
    const unsigned char *p = data + d.offset, *end = p + d.size;
    for (; z->n < d.n && s == NOEMA_OK; z->n++) {
        nm_zip_entry *e = &z->entry[z->n];
        size_t used = 0;
        s = read_entry(e, &used, p, (uint64_t)(end - p), data, d.offset, path, err);
        if (s != NOEMA_OK)
            break;
        p += used;
        int added = nm_strmap_add(&z->names, e->name, e->name_len, (uint32_t)z->n);
        if (added == 0)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: member '%.*s' is there twice", path, e->name_len > 200 ? 200 : (int)e->name_len,
                        e->name);
        else if (added < 0)
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    if (s != NOEMA_OK) {
        nm_zip_close(z);
        return s;
    }
    *out = z;
    return NOEMA_OK;
}

void nm_zip_close(nm_zip *z)
{
    if (!z)
        return;
    nm_strmap_free(&z->names);
    free(z->entry);
    free(z);
}

const nm_zip_entry *nm_zip_find(const nm_zip *z, const char *name, size_t len)
{
    uint32_t i = nm_strmap_get(&z->names, name, len);
    return i == NM_STRMAP_NONE ? NULL : &z->entry[i];
}

static noema_status fail_crc(const nm_zip *z, const nm_zip_entry *e, uint32_t got, noema_error *err)
{
    return nm_fail(err, NOEMA_E_FORMAT, "%s: member '%.*s' is damaged: CRC-32 %08x expected, got %08x", z->path,
                   e->name_len > 200 ? 200 : (int)e->name_len, e->name, (unsigned)e->crc, (unsigned)got);
}

static uint32_t crc_of(const unsigned char *p, uint64_t size)
{
    uLong crc = crc32(0, NULL, 0);
    while (size) {
        uInt n = size > (1u << 30) ? 1u << 30 : (uInt)size;
        crc = crc32(crc, p, n);
        p += n;
        size -= n;
    }
    return (uint32_t)crc;
}

noema_status nm_zip_check_crc(const nm_zip *z, const nm_zip_entry *e, noema_error *err)
{
    if (e->method != 0 || e->crc == 0)
        return NOEMA_OK;
    uint32_t got = crc_of(e->data, e->size);
    return got == e->crc ? NOEMA_OK : fail_crc(z, e, got, err);
}

noema_status nm_zip_inflate(nm_zip *z, const nm_zip_entry *e, void *dst, noema_error *err)
{
    int show = e->name_len > 200 ? 200 : (int)e->name_len;
    z_stream s = { 0 };
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", z->path);
    uint64_t in = e->stored_size, out = e->size;
    s.next_in = (Bytef *)(uintptr_t)e->data;
    unsigned char none;
    s.next_out = e->size ? dst : &none;
    int r = Z_OK;
    while (r == Z_OK) {
        uInt give = in > (1u << 30) ? 1u << 30 : (uInt)in, take = out > (1u << 30) ? 1u << 30 : (uInt)out;
        s.avail_in = give;
        s.avail_out = take;
        r = inflate(&s, Z_NO_FLUSH);
        in -= give - s.avail_in;
        out -= take - s.avail_out;
    }
    inflateEnd(&s);
    if (r != Z_STREAM_END || out)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: member '%.*s' does not inflate to its %ju bytes", z->path, show, e->name,
                       (uintmax_t)e->size);
    uint32_t got = crc_of(dst, e->size);
    return got == e->crc ? NOEMA_OK : fail_crc(z, e, got, err);
}
