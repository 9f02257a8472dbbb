/* hash.h - SHA-256 (identities that leave the process) and a fast 64-bit hash (tables, checksums of our own files). */
#ifndef NM_HASH_H
#define NM_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct nm_sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    unsigned char block[64];
} nm_sha256;

void nm_sha256_init(nm_sha256 *s);
void nm_sha256_update(nm_sha256 *s, const void *data, size_t size);
void nm_sha256_final(nm_sha256 *s, unsigned char digest[32]);
void nm_sha256_hex(const void *data, size_t size, char hex[65]); /* one shot, lower case, NUL-terminated */
void nm_hex(const unsigned char *p, size_t n, char *hex);        /* 2n+1 bytes */

/* Not cryptographic, stable across machines and releases (stored in files): FNV-1a over 8-byte little-endian words with a
 * final avalanche. */
uint64_t nm_hash64(const void *data, size_t size, uint64_t seed);

#endif
