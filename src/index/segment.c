/* segment.c - see segment.h. */
#define _GNU_SOURCE
#include "index/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"

static const char magic[8] = { 'N', 'O', 'E', 'M', 'A', 'S', 'E', 'G' };
enum { CODE_F32 = 1, CODE_F16 = 2 }; /* element types in the file; nm_dtype's numbers may change */

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static void put(unsigned char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++, v >>= 8)
        p[i] = (unsigned char)v;
}

noema_status nm_segment_parse(nm_segment_header *h, const void *data, size_t size, const char *what, noema_error *err)
{
    const unsigned char *p = data;
    if (size < NM_SEG_HEADER_BYTES)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a header of %d bytes, got %zu", what, NM_SEG_HEADER_BYTES, size);
    if (memcmp(p, magic, 8) != 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a vector segment, got something else", what);
    if (get(p + 8, 4) != NM_SEG_VERSION)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected segment version %d, got %u", what, NM_SEG_VERSION, (unsigned)get(p + 8, 4));
    if (get(p + 56, 8) != nm_hash64(p, 56, 0))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: the header does not match its checksum", what);
    uint64_t code = get(p + 12, 4), dim = get(p + 16, 4), block = get(p + 20, 4), capacity = get(p + 24, 8);
    if (code != CODE_F32 && code != CODE_F16)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected element type 1 (f32) or 2 (f16), got %u", what, (unsigned)code);
    if (dim < 1 || dim > NM_SEG_MAX_DIM || block != NM_SEG_BLOCK)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected 1 to %d dimensions in blocks of %d, got %u in blocks of %u", what, NM_SEG_MAX_DIM,
                       NM_SEG_BLOCK, (unsigned)dim, (unsigned)block);
    if (capacity < NM_SEG_BLOCK || capacity > NM_SEG_CAPACITY || capacity % NM_SEG_BLOCK)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected room for at most %d rows, got %llu", what, NM_SEG_CAPACITY, (unsigned long long)capacity);
    *h = (nm_segment_header){ .uid = get(p + 40, 8), .id = get(p + 32, 8), .dtype = code == CODE_F32 ? NM_F32 : NM_F16, .dim = (int)dim,
                              .capacity = (int64_t)capacity };
    return NOEMA_OK;
}

void nm_segment_write_header(const nm_segment_header *h, unsigned char out[NM_SEG_HEADER_BYTES])
{
    memset(out, 0, NM_SEG_HEADER_BYTES);
    memcpy(out, magic, 8);
    put(out + 8, NM_SEG_VERSION, 4);
    put(out + 12, h->dtype == NM_F16 ? CODE_F16 : CODE_F32, 4);
    put(out + 16, (uint64_t)h->dim, 4);
    put(out + 20, NM_SEG_BLOCK, 4);
    put(out + 24, (uint64_t)h->capacity, 8);
    put(out + 32, h->id, 8);
    put(out + 40, h->uid, 8);
    put(out + 56, nm_hash64(out, 56, 0), 8);
}

nm_segment *nm_segment_new(const nm_segment_header *h, const char *path)
{
    nm_segment *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    size_t words = (size_t)h->capacity / 64;
    s->h = *h;
    s->path = nm_strdup(path);
    s->checksums = calloc((size_t)h->capacity / NM_SEG_BLOCK, 8);
    s->deleted = calloc(words, 8);
    s->skip = calloc(words, 8);
    if (!s->path || !s->checksums || !s->deleted || !s->skip) {
        nm_segment_free(s);
        return NULL;
    }
    return s;
}

static void unmap(nm_segment *s)
{
    if (s->map_bytes)
        munmap((void *)(uintptr_t)(s->data - NM_SEG_DATA_AT), s->map_bytes);
    s->data = NULL;
    s->map_bytes = 0;
    s->usable = 0;
}

void nm_segment_free(nm_segment *s)
{
    if (!s)
        return;
    unmap(s);
    free(s->path);
    free(s->checksums);
    free(s->deleted);
    free(s->skip);
    free(s->pending);
    free(s);
}

size_t nm_segment_row_bytes(const nm_segment *s)
{
    return (size_t)s->h.dim * nm_dtype_size(s->h.dtype);
}

static noema_status fail_os(const nm_segment *s, const char *what, noema_error *err)
{
    int e = errno;
    return nm_fail(err, e == ENOENT ? NOEMA_E_MISSING : NOEMA_E_IO, "%s: %s: %s", s->path, what, strerror(e));
}

/* The header on disk must say what the catalogue says. */
static noema_status check_header(const nm_segment *s, const void *p, size_t size, noema_error *err)
{
    nm_segment_header h;
    noema_status st = nm_segment_parse(&h, p, size, s->path, err);
    if (st != NOEMA_OK)
        return st;
    if (h.uid != s->h.uid || h.id != s->h.id)
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: expected segment %llu of collection %016llx, got segment %llu of %016llx", s->path,
                       (unsigned long long)s->h.id, (unsigned long long)s->h.uid, (unsigned long long)h.id, (unsigned long long)h.uid);
    if (h.dim != s->h.dim || h.dtype != s->h.dtype || h.capacity != s->h.capacity)
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: expected %s [%lld, %d], got %s [%lld, %d]", s->path, nm_dtype_name(s->h.dtype),
                       (long long)s->h.capacity, s->h.dim, nm_dtype_name(h.dtype), (long long)h.capacity, h.dim);
    return NOEMA_OK;
}

noema_status nm_segment_map(nm_segment *s, int64_t rows, noema_error *err)
{
    unmap(s);
    int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_os(s, "cannot open", err);
    struct stat st;
    size_t row = nm_segment_row_bytes(s), want = NM_SEG_DATA_AT + (size_t)rows * row;
    noema_status r = NOEMA_OK;
    if (fstat(fd, &st) != 0)
        r = fail_os(s, "cannot stat", err);
    else if (!S_ISREG(st.st_mode) || st.st_size < NM_SEG_DATA_AT)
        r = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a segment of %zu bytes, got %lld", s->path, want, (long long)st.st_size);
    else {
        size_t have = (size_t)st.st_size < want ? (size_t)st.st_size : want;
        unsigned char *p = mmap(NULL, have, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            r = fail_os(s, "cannot map", err);
        else if ((r = check_header(s, p, have, err)) != NOEMA_OK)
            munmap(p, have);
        else {
            s->data = p + NM_SEG_DATA_AT;
            s->map_bytes = have;
            s->usable = (int64_t)((have - NM_SEG_DATA_AT) / row);
        }
    }
    close(fd);
    return r;
}

uint64_t nm_segment_checksum(const nm_segment *s, int64_t block, int64_t rows)
{
    int64_t first = block * NM_SEG_BLOCK, n = rows - first < NM_SEG_BLOCK ? rows - first : NM_SEG_BLOCK;
    size_t row = nm_segment_row_bytes(s);
    return nm_hash64(s->data + (size_t)first * row, (size_t)n * row, (uint64_t)block);
}

bool nm_segment_block_good(const nm_segment *s, int64_t b)
{
    int64_t end = (b + 1) * NM_SEG_BLOCK < s->rows ? (b + 1) * NM_SEG_BLOCK : s->rows;
    return s->data && end <= s->usable && nm_segment_checksum(s, b, s->rows) == s->checksums[b];
}

void nm_segment_drop_block(nm_segment *s, int64_t b)
{
    for (int64_t i = b * NM_SEG_BLOCK; i < (b + 1) * NM_SEG_BLOCK && i < s->rows; i++)
        if (!nm_bit(s->skip, i)) {
            nm_bit_set(s->skip, i);
            s->n_dropped++;
        }
}

int64_t nm_segment_verify(nm_segment *s)
{
    int64_t before = s->n_dropped;
    for (int64_t b = 0; b < nm_segment_blocks(s->rows); b++)
        if (!nm_segment_block_good(s, b))
            nm_segment_drop_block(s, b);
    return s->n_dropped - before;
}

bool nm_segment_good(const nm_segment *s, int64_t row)
{
    return s->data && row >= 0 && row < s->rows && row < s->usable && !nm_bit(s->skip, row);
}

bool nm_segment_can_append(const nm_segment *s)
{
    if (s->rows + s->n_pending >= s->h.capacity)
        return false;
    if (s->fresh || s->rows == 0)
        return true;
    /* Extending a block gives it a new checksum: never over rows that no longer match the old one. */
    return s->data && s->usable >= s->rows &&
           nm_segment_checksum(s, (s->rows - 1) / NM_SEG_BLOCK, s->rows) == s->checksums[(s->rows - 1) / NM_SEG_BLOCK];
}

static unsigned char *pending_row(nm_segment *s)
{
    size_t row = nm_segment_row_bytes(s);
    if (s->n_pending == s->cap_pending) {
        int64_t cap = s->cap_pending ? 2 * s->cap_pending : 64;
        unsigned char *p = nm_realloc_array(s->pending, (size_t)cap, row);
        if (!p)
            return NULL;
        s->pending = p;
        s->cap_pending = cap;
    }
    return s->pending + (size_t)s->n_pending * row;
}

bool nm_segment_put_raw(nm_segment *s, const void *src)
{
    unsigned char *p = pending_row(s);
    if (!p)
        return false;
    memcpy(p, src, nm_segment_row_bytes(s));
    s->n_pending++;
    return true;
}

bool nm_segment_put(nm_segment *s, const float *v)
{
    if (s->h.dtype == NM_F32)
        return nm_segment_put_raw(s, v);
    nm_f16 *p = (nm_f16 *)(void *)pending_row(s);
    if (!p)
        return false;
    for (int i = 0; i < s->h.dim; i++)
        p[i] = nm_f32_to_f16(v[i]);
    s->n_pending++;
    return true;
}

static noema_status write_at(const nm_segment *s, int fd, const void *data, size_t size, size_t at, noema_error *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)data + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_os(s, "cannot write", err);
        done += (size_t)n;
    }
    return NOEMA_OK;
}

static noema_status sync_folder(const nm_segment *s, noema_error *err)
{
    char *dir = nm_path_dir(s->path);
    if (!dir)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", s->path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    noema_status r = fd < 0 || fsync(fd) != 0 ? fail_os(s, "cannot sync the folder", err) : NOEMA_OK;
    if (fd >= 0)
        close(fd);
    free(dir);
    return r;
}

noema_status nm_segment_flush(nm_segment *s, uint64_t *sums, noema_error *err)
{
    size_t row = nm_segment_row_bytes(s);
    bool made = s->fresh && s->rows == 0;
    int fd = open(s->path, O_RDWR | O_CLOEXEC | (made ? O_CREAT | O_TRUNC : 0), 0666);
    if (fd < 0)
        return fail_os(s, made ? "cannot create" : "cannot open for writing", err);
    noema_status r = NOEMA_OK;
    if (made) {
        unsigned char area[NM_SEG_DATA_AT] = { 0 };
        nm_segment_write_header(&s->h, area);
        r = write_at(s, fd, area, sizeof area, 0, err);
    }
    if (r == NOEMA_OK)
        r = write_at(s, fd, s->pending, (size_t)s->n_pending * row, NM_SEG_DATA_AT + (size_t)s->rows * row, err);
    if (r == NOEMA_OK && fdatasync(fd) != 0)
        r = fail_os(s, "cannot sync", err);
    if (close(fd) != 0 && r == NOEMA_OK)
        r = fail_os(s, "cannot close", err);
    if (r == NOEMA_OK && made)
        r = sync_folder(s, err);
    int64_t rows = s->rows + s->n_pending;
    if (r == NOEMA_OK)
        r = nm_segment_map(s, rows, err);
    if (r != NOEMA_OK)
        return r;
    int64_t kept = s->rows / NM_SEG_BLOCK; /* whole blocks that stay as they are */
    memcpy(sums, s->checksums, (size_t)kept * 8);
    for (int64_t b = kept; b < nm_segment_blocks(rows); b++)
        sums[b] = nm_segment_checksum(s, b, rows);
    return NOEMA_OK;
}

void nm_segment_commit(nm_segment *s, const uint64_t *sums)
{
    s->rows += s->n_pending;
    s->n_pending = 0;
    s->fresh = false;
    memcpy(s->checksums, sums, (size_t)nm_segment_blocks(s->rows) * 8);
}

void nm_segment_read(const nm_segment *s, int64_t row, float *out)
{
    const unsigned char *p = s->data + (size_t)row * nm_segment_row_bytes(s);
    if (s->h.dtype == NM_F32)
        memcpy(out, p, (size_t)s->h.dim * 4);
    else
        for (int i = 0; i < s->h.dim; i++) {
            nm_f16 h;
            memcpy(&h, p + 2 * i, 2);
            out[i] = nm_f16_to_f32(h);
        }
}
