/* parquet_encoding.c - Parquet's encodings (Encodings.md of the format's repository): see parquet_impl.h. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/parquet_impl.h"

/* `width` bits from bit `bit` of p, little-endian bit order; bytes past end read as zero. */
static uint64_t bits_at(const unsigned char *p, const unsigned char *end, uint64_t bit, int width)
{
    const unsigned char *q = p + (bit >> 3);
    int shift = (int)(bit & 7);
    uint64_t lo = 0, hi = 0;
    if (end - q >= 9) {
        memcpy(&lo, q, 8); /* little-endian machine: see base/cpu.h */
        hi = q[8];
    } else
        for (int i = 0; q + i < end; i++) {
            if (i < 8)
                lo |= (uint64_t)q[i] << 8 * i;
            else
                hi = q[i];
        }
    uint64_t v = lo >> shift;
    if (shift)
        v |= hi << (64 - shift);
    return width == 64 ? v : v & (((uint64_t)1 << width) - 1);
}

bool nm_pq_hybrid(const unsigned char *p, const unsigned char *end, int width, uint32_t *out, int64_t n)
{
    nm_thrift t = { .p = p, .end = end };
    if (width < 0 || width > 32)
        return false;
    if (width == 0) {
        memset(out, 0, (size_t)n * sizeof *out);
        return true;
    }
    while (n > 0) {
        uint64_t head = nm_thrift_varint(&t), count;
        if (t.bad)
            return false;
        if (head & 1) { /* groups of 8 values; the last one may be cut short by the end */
            uint64_t left = (uint64_t)(t.end - t.p), bytes = (head >> 1) > left / (uint64_t)width ? left : (head >> 1) * (uint64_t)width;
            count = bytes * 8 / (uint64_t)width;
            if (count > (uint64_t)n)
                count = (uint64_t)n;
            for (uint64_t i = 0; i < count; i++)
                out[i] = (uint32_t)bits_at(t.p, t.p + bytes, i * (uint64_t)width, width);
            t.p += bytes;
        } else {
            uint32_t v = 0;
            int bytes = (width + 7) / 8;
            count = head >> 1;
            if (t.end - t.p < bytes)
                return false;
            memcpy(&v, t.p, (size_t)bytes);
            t.p += bytes;
            if (count > (uint64_t)n)
                count = (uint64_t)n;
            for (uint64_t i = 0; i < count; i++)
                out[i] = v;
        }
        if (count == 0)
            return false;
        out += count;
        n -= (int64_t)count;
    }
    return true;
}

bool nm_pq_packed_levels(const unsigned char *p, const unsigned char *end, int width, uint32_t *out, int64_t n)
{
    if (((uint64_t)n * (uint64_t)width + 7) / 8 > (uint64_t)(end - p))
        return false;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = 0;
        for (int k = 0; k < width; k++) {
            uint64_t bit = (uint64_t)i * (uint64_t)width + (uint64_t)k;
            v = v << 1 | (p[bit >> 3] >> (7 - (bit & 7)) & 1u);
        }
        out[i] = v;
    }
    return true;
}

bool nm_pq_delta(const unsigned char *p, const unsigned char *end, int64_t *out, int64_t n, const unsigned char **rest)
{
    nm_thrift t = { .p = p, .end = end };
    uint64_t block = nm_thrift_varint(&t), minis = nm_thrift_varint(&t), total = nm_thrift_varint(&t);
    uint64_t value = (uint64_t)nm_unzigzag(nm_thrift_varint(&t));
    if (t.bad || total != (uint64_t)n || minis == 0 || minis > 512 || block == 0 || block > 1 << 20 || block % minis || block / minis % 8)
        return false;
    uint64_t per = block / minis;
    int64_t done = 0;
    if (n > 0)
        out[done++] = (int64_t)value;
    while (done < n) {
        uint64_t least = (uint64_t)nm_unzigzag(nm_thrift_varint(&t));
        const unsigned char *width = t.p;
        if (t.bad || (uint64_t)(t.end - t.p) < minis)
            return false;
        t.p += minis;
        for (uint64_t m = 0; m < minis && done < n; m++) {
            uint64_t bytes = per / 8 * width[m];
            if (width[m] > 64 || bytes > (uint64_t)(t.end - t.p))
                return false;
            for (uint64_t i = 0; i < per && done < n; i++) {
                value += least + (width[m] ? bits_at(t.p, t.p + bytes, i * width[m], width[m]) : 0); /* wraps, as the format says */
                out[done++] = (int64_t)value;
            }
            t.p += bytes;
        }
    }
    *rest = t.p;
    return true;
}

bool nm_pq_delta_lengths(const unsigned char *p, const unsigned char *end, nm_bytes *out, int64_t n, const unsigned char **rest)
{
    int64_t *length = nm_malloc_array((size_t)n + 1, sizeof *length);
    bool ok = length && nm_pq_delta(p, end, length, n, &p);
    for (int64_t i = 0; ok && i < n; i++) {
        ok = length[i] >= 0 && length[i] <= end - p && length[i] <= UINT32_MAX;
        if (ok) {
            out[i] = (nm_bytes){ p, (uint32_t)length[i] };
            p += length[i];
        }
    }
    free(length);
    *rest = p;
    return ok;
}

/* Sizes of all strings together; false when a prefix is longer than the string before it. */
static bool delta_bytes_size(const int64_t *prefix, const nm_bytes *suffix, int64_t n, size_t limit, size_t *size)
{
    uint64_t last = 0;
    *size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (prefix[i] < 0 || (uint64_t)prefix[i] > last)
            return false;
        last = (uint64_t)prefix[i] + suffix[i].n;
        if (last > UINT32_MAX || last > limit - *size)
            return false;
        *size += last;
    }
    return true;
}

bool nm_pq_delta_bytes(const unsigned char *p, const unsigned char *end, nm_bytes *out, int64_t n, size_t limit, unsigned char **block, size_t *size)
{
    int64_t *prefix = nm_malloc_array((size_t)n + 1, sizeof *prefix);
    unsigned char *at = NULL;
    bool ok = prefix && nm_pq_delta(p, end, prefix, n, &p) && nm_pq_delta_lengths(p, end, out, n, &p) && delta_bytes_size(prefix, out, n, limit, size) &&
              (at = *block = malloc(*size + 1)) != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        uint32_t same = (uint32_t)prefix[i], own = out[i].n;
        if (same)
            memcpy(at, out[i - 1].p, same);
        if (own)
            memcpy(at + same, out[i].p, own);
        out[i] = (nm_bytes){ at, same + own };
        at += same + own;
    }
    free(prefix);
    return ok;
}

bool nm_pq_plain_bytes(const unsigned char *p, const unsigned char *end, nm_bytes *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t size;
        if (end - p < 4)
            return false;
        memcpy(&size, p, 4);
        p += 4;
        if (size > (size_t)(end - p))
            return false;
        out[i] = (nm_bytes){ p, size };
        p += size;
    }
    return true;
}
