/* rng.c - see rng.h. */
#include "base/rng.h"

#include <math.h>

static void philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1], c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void nm_rng_init(nm_rng *r, uint64_t seed, uint64_t stream)
{
    *r = (nm_rng){ .key = { (uint32_t)seed, (uint32_t)(seed >> 32) }, .stream = stream };
}

uint32_t nm_rng_u32(nm_rng *r)
{
    if (r->left == 0) {
        uint32_t ctr[4] = { (uint32_t)r->counter, (uint32_t)(r->counter >> 32), (uint32_t)r->stream, (uint32_t)(r->stream >> 32) };
        philox(r->key, ctr, r->out);
        r->counter++;
        r->left = 4;
    }
    return r->out[4 - r->left--];
}

uint64_t nm_rng_u64(nm_rng *r)
{
    uint64_t lo = nm_rng_u32(r);
    return lo | (uint64_t)nm_rng_u32(r) << 32;
}

uint64_t nm_rng_below(nm_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do
        x = nm_rng_u64(r);
    while (x >= limit);
    return x % n;
}

float nm_rng_uniform(nm_rng *r) { return (float)(nm_rng_u32(r) >> 8) * 0x1p-24f; }

float nm_rng_normal(nm_rng *r)
{
    double u = ((double)nm_rng_u32(r) + 1.0) * 0x1p-32, v = (double)nm_rng_u32(r) * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}
