/* parquet_codec.c - the compression codecs of Parquet pages, by Debian's libraries. A library that the build lacks gives a message that
 * names its package. */
#include <string.h>
#include <zlib.h>

#include "data/parquet_impl.h"

#if NOEMA_HAVE_SNAPPY
#include <snappy-c.h>
#endif
#if NOEMA_HAVE_ZSTD
#include <zstd.h>
#endif
#if NOEMA_HAVE_LZ4
#include <lz4.h>
#endif
#if NOEMA_HAVE_BROTLI
#include <brotli/decode.h>
#endif

enum { UNCOMPRESSED, SNAPPY, GZIP, LZO, BROTLI, LZ4_HADOOP, ZSTD, LZ4_RAW };

const char *nm_pq_codec_name(int codec)
{
    static const char *const names[] = { "UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW" };
    return codec >= 0 && codec < (int)(sizeof names / sizeof *names) ? names[codec] : "unknown";
}

/* Gzip members, one after the other. */
static bool gunzip(const void *in, size_t n_in, void *out, size_t n_out)
{
    z_stream z = { 0 };
    if (n_in > UINT32_MAX || n_out > UINT32_MAX || inflateInit2(&z, 15 + 32) != Z_OK)
        return false;
    z.next_in = (unsigned char *)(uintptr_t)in;
    z.avail_in = (uInt)n_in;
    z.next_out = out;
    z.avail_out = (uInt)n_out;
    int r;
    while ((r = inflate(&z, Z_FINISH)) == Z_STREAM_END && z.avail_in && z.avail_out)
        inflateReset(&z);
    bool ok = r == Z_STREAM_END && z.avail_out == 0;
    inflateEnd(&z);
    return ok;
}

#if NOEMA_HAVE_LZ4
static bool lz4_block(const unsigned char *in, size_t n_in, unsigned char *out, size_t n_out)
{
    return n_in <= INT32_MAX && n_out <= INT32_MAX && LZ4_decompress_safe((const char *)in, (char *)out, (int)n_in, (int)n_out) == (int)n_out;
}

static size_t big_endian(const unsigned char *p) { return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]; }

/* Hadoop's frames: big-endian sizes (decompressed, compressed) before each block; old files have a bare block. */
static bool lz4_hadoop(const unsigned char *in, size_t n_in, unsigned char *out, size_t n_out)
{
    size_t at = 0, done = 0;
    while (at + 8 <= n_in) {
        size_t to = big_endian(in + at), from = big_endian(in + at + 4);
        if (from > n_in - at - 8 || to > n_out - done || !lz4_block(in + at + 8, from, out + done, to))
            break;
        at += 8 + from;
        done += to;
    }
    return (at == n_in && done == n_out) || lz4_block(in, n_in, out, n_out);
}
#endif

#if NOEMA_HAVE_BROTLI
static bool unbrotli(const void *in, size_t n_in, void *out, size_t n_out)
{
    size_t n = n_out;
    return BrotliDecoderDecompress(n_in, in, &n, out) == BROTLI_DECODER_RESULT_SUCCESS && n == n_out;
}
#endif

noema_status nm_pq_decompress(int codec, const void *in, size_t n_in, void *out, size_t n_out, const char *what, noema_error *err)
{
    bool ok = false;
    const char *package = NULL;
    switch (codec) {
    case UNCOMPRESSED:
        if ((ok = n_in == n_out) && n_out)
            memcpy(out, in, n_out);
        break;
    case GZIP: ok = gunzip(in, n_in, out, n_out); break;
#if NOEMA_HAVE_SNAPPY
    case SNAPPY: {
        size_t n = n_out, claimed;
        ok = snappy_uncompressed_length(in, n_in, &claimed) == SNAPPY_OK && claimed == n_out && snappy_uncompress(in, n_in, out, &n) == SNAPPY_OK;
        break;
    }
#else
    case SNAPPY: package = "libsnappy-dev"; break;
#endif
#if NOEMA_HAVE_ZSTD
    case ZSTD: ok = ZSTD_decompress(out, n_out, in, n_in) == n_out; break;
#else
    case ZSTD: package = "libzstd-dev"; break;
#endif
#if NOEMA_HAVE_LZ4
    case LZ4_RAW: ok = lz4_block(in, n_in, out, n_out); break;
    case LZ4_HADOOP: ok = lz4_hadoop(in, n_in, out, n_out); break;
#else
    case LZ4_RAW:
    case LZ4_HADOOP: package = "liblz4-dev"; break;
#endif
#if NOEMA_HAVE_BROTLI
    case BROTLI: ok = unbrotli(in, n_in, out, n_out); break;
#else
    case BROTLI: package = "libbrotli-dev"; break;
#endif
    default: return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: codec %s (%d) is not read", what, nm_pq_codec_name(codec), codec);
    }
    if (package)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: codec %s: this build lacks the package %s", what, nm_pq_codec_name(codec), package);
    return ok ? NOEMA_OK : nm_fail(err, NOEMA_E_FORMAT, "%s: %zu bytes of %s do not decompress to %zu", what, n_in, nm_pq_codec_name(codec), n_out);
}
