/* test_weights_hostile.c - damaged and malicious checkpoints: each must be refused with a message that says why, or read whole. Files are
 * built here byte by byte; damage is opened from exact-size heap copies, so that AddressSanitizer sees an overread. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "weights/weights.h"

/* Opens data[0..size) from its own heap copy; reads every element on success. */
static noema_status try_open(const void *data, size_t size, const char *name, noema_error *err)
{
    void *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    nm_weights *w = NULL;
    nm_weights_options o = { .raw = true };
    *err = (noema_error)NOEMA_ERROR_INIT;
    noema_status s = nm_weights_open_memory(&w, copy, size, name, &o, err);
    if (s != NOEMA_OK) {
        assert_null(w);
        assert_int_equal(err->code, s);
        assert_true(strlen(err->message) > 10);
    } else {
        char hex[65];
        for (size_t i = 0; i < nm_weights_count(w); i++)
            assert_true(nm_wview_numel(nm_weights_at(w, i)) < 1 << 20);
        assert_int_equal(nm_weights_sha256(w, NM_IDENTITY_FULL, hex, err), NOEMA_OK);
    }
    nm_weights_close(w);
    free(copy);
    return s;
}

static void refused(const void *data, size_t size, const char *name, const char *word)
{
    noema_error err;
    noema_status s = try_open(data, size, name, &err);
    if (s == NOEMA_OK)
        fail_msg("%s with %s was accepted", name, word);
    if (!strstr(err.message, word))
        fail_msg("expected a message with \"%s\", got \"%s\"", word, err.message);
}

/* ---- safetensors ---- */

static void safetensors(const char *header, size_t data_size, const char *word)
{
    size_t n = strlen(header);
    char *f = calloc(1, 8 + n + data_size);
    for (int i = 0; i < 8; i++)
        f[i] = (char)(unsigned char)(n >> 8 * i);
    memcpy(f + 8, header, n);
    if (word)
        refused(f, 8 + n + data_size, "x.safetensors", word);
    else {
        noema_error err;
        if (try_open(f, 8 + n + data_size, "x.safetensors", &err) != NOEMA_OK)
            fail_msg("%s: %s", header, err.message);
    }
    free(f);
}

static void test_safetensors_lies(void **state)
{
    (void)state;
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL);
    safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[1,9]}}", 9, NULL);
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807],\"data_offsets\":[0,0]}}", 0, "too large");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "truncated");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "end at byte");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "12 bytes");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "data_offsets");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "data_offsets");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "data_offsets");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "dimension");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5],\"data_offsets\":[0,8]}}", 8, "dimension");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8, "too large");
    safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "dimensions");
    safetensors("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, "F8_E4M3");
    safetensors("{\"a\":{\"shape\":[8],\"data_offsets\":[0,8]}}", 8, "dtype");
    safetensors("{\"a\":3}", 0, "object");
    safetensors("[]", 0, "object");
    safetensors("{\"a\":{\"dtype\":\"F32\"", 0, "JSON");
    safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6, "overlap");
    safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}", 9, "hole");
    safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, "duplicate");
    unsigned char huge[16] = { 0, 0, 0, 0, 0, 0, 0, 0x10, '{', '}' };
    refused(huge, sizeof huge, "x.safetensors", "1152921504606846976");
    refused(huge, 3, "x.safetensors", "truncated");
    refused(huge, 0, "x.safetensors", "truncated");
}

static void test_deep_header(void **state)
{
    (void)state;
    size_t n = 1000000;
    char *h = malloc(n + 20);
    strcpy(h, "{\"a\":");
    memset(h + 5, '[', n);
    h[5 + n] = 0;
    safetensors(h, 0, "JSON");
    free(h);
}

/* ---- pickles, in the legacy container: header pickles, then the given one, then an empty list of storages ---- */

static const char legacy_head[] = "\x80\2\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19.\x80\2M\xE9\3.\x80\2}q\0(X\x0D\0\0\0little_endianq\1\x88u.";

static void pickle_bytes(nm_buf *b, const char *p, size_t n)
{
    nm_buf_append(b, legacy_head, sizeof legacy_head - 1);
    nm_buf_append(b, p, n);
    nm_buf_append(b, "\x80\2].", 4);
}

static void pickle(const char *p, size_t n, const char *word)
{
    nm_buf b = { 0 };
    pickle_bytes(&b, p, n);
    if (word)
        refused(b.data, b.len, "x.pt", word);
    else {
        noema_error err;
        if (try_open(b.data, b.len, "x.pt", &err) != NOEMA_OK)
            fail_msg("%s", err.message);
    }
    nm_buf_free(&b);
}
#define PICKLE(text, word) pickle(text, sizeof text - 1, word)

static void test_nothing_is_called(void **state)
{
    (void)state;
    PICKLE("\x80\2}.", NULL);
    PICKLE("\x80\2cos\nsystem\n(X\7\0\0\0echo hitR.", "'os.system'; refused");
    PICKLE("\x80\2cposix\nsystem\nX\2\0\0\0ls\x85R.", "'posix.system'; refused");
    PICKLE("\x80\2c__builtin__\neval\nX\1\0\0\0" "1\x85R.", "'__builtin__.eval'; refused");
    PICKLE("\x80\4\x8C\x08" "builtins\x8C\4exec\x93\x8C\1" "1\x85R.", "'builtins.exec'; refused");
    PICKLE("\x80\4\x8C\x08" "builtins\x8C\7getattr\x93.", "'builtins.getattr'; refused");
    PICKLE("\x80\2ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "refused");
    PICKLE("\x80\2ctorch\nload\n.", "'torch.load'; refused");
    PICKLE("\x80\2(cos\nsystem\nX\2\0\0\0lso.", "refused");        /* OBJ */
    PICKLE("\x80\2(X\2\0\0\0lsios\nsystem\n.", "opcode 0x69");       /* INST */
    PICKLE("\x80\2\x82\1.", "opcode 0x82");                         /* EXT1 */
    PICKLE("\x80\2Pabc\n.", "opcode 0x50");                         /* textual persistent id */
    PICKLE("\x80\2c__torch__.x\nY\n)\x81}X\1\0\0\0aK\1sb.", NULL);    /* a TorchScript class is a bag of attributes */
    PICKLE("\x80\2c__torch__x\nY\n.", "refused");
    PICKLE("\x80\2cbuiltins\nint\nK\1\x85R.", "'builtins.int'; refused"); /* may be named, not called */
    PICKLE("\x80\2cnumpy\nndarray\nK\1\x85R.", "'numpy.ndarray'; refused");
}

static void test_broken_machines(void **state)
{
    (void)state;
    PICKLE("\x80\2", "too early");
    PICKLE("\x80\2.", "one value");
    PICKLE("\x80\2}}.", "one value");
    PICKLE("\x80\2(}.", "one value");
    PICKLE("\x80\7}.", "protocol");
    PICKLE("\x80\2" "0.", "mark");
    PICKLE("\x80\2u.", "mark");
    PICKLE("\x80\2}s.", "empty");
    PICKLE("\x80\2(}K\1s.", "empty");
    PICKLE("\x80\2](K\1K\2u.", "no dict");
    PICKLE("\x80\2}(K\1u.", "no dict");
    PICKLE("\x80\2}K\1" "a.", "no list");
    PICKLE("\x80\2h\5.", "memo");
    PICKLE("\x80\2}r\xFF\xFF\xFF\x7F.", "memo");
    PICKLE("\x80\2X\xFF\xFF\xFF\xFF" "abc.", "too early");
    PICKLE("\x80\2\x8D\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF" "abc.", "too early");
    PICKLE("\x80\2K\1K\2R.", "no known name");
    PICKLE("\x80\2K\1}b.", "state");
    PICKLE("\x80\2K\1Q.", "persistent");
    PICKLE("\x80\2K\1K\2\x93.", "no string");
    PICKLE("\x80\2ctorch", "unfinished line");
    PICKLE("\x80\2ccollections\nOrderedDict\n]]K\1\x61\x61\x85R.", "no pair");
}

/* A list that holds itself, a million nested lists, and a list of lists that doubles 60 times. */
static void test_deep_and_shared(void **state)
{
    (void)state;
    PICKLE("\x80\2]q\0h\0a.", "nested");
    nm_buf b = { 0 };
    nm_buf_append(&b, "\x80\2", 2);
    for (int i = 0; i < 1000000; i++)
        nm_buf_putc(&b, ']');
    for (int i = 1; i < 1000000; i++)
        nm_buf_putc(&b, 'a');
    nm_buf_putc(&b, '.');
    pickle(b.data, b.len, "nested");
    b.len = 0;
    nm_buf_append(&b, "\x80\2]q\0", 5);
    for (int i = 1; i < 60; i++) {
        const char op[] = { ']', '(', 'h', (char)(i - 1), 'h', (char)(i - 1), 'e', 'q', (char)i };
        nm_buf_append(&b, op, sizeof op);
    }
    nm_buf_putc(&b, '.');
    nm_buf c = { 0 }; /* all of them lie on the stack: keep only the last, in a dict */
    nm_buf_append(&c, "\x80\2(", 3);
    nm_buf_append(&c, b.data + 2, b.len - 3);
    nm_buf_append(&c, "1}X\1\0\0\0ah\x3Bs.", 12);
    pickle(c.data, c.len, "nested");
    nm_buf_free(&b);
    nm_buf_free(&c);
}

/* ---- tensors over a storage: shapes, strides, offsets ---- */

/* A legacy file with one f32 storage of 6 elements and a tensor of it; shape and stride are tuples of small numbers. */
static void tensor(const char *offset, const char *shape, const char *stride, const char *word)
{
    nm_buf b = { 0 };
    nm_buf_append(&b, legacy_head, sizeof legacy_head - 1);
    nm_buf_append(&b, "\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\6tQ",
                  sizeof "\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\6tQ" - 1);
    const char *part[3] = { offset, shape, stride };
    for (int i = 0; i < 3; i++) { /* text: "3" a number, "(2,3)" a tuple, "L" 2^62 */
        for (const char *p = part[i]; *p; p++)
            if (*p == '(')
                nm_buf_putc(&b, '(');
            else if (*p == ')')
                nm_buf_putc(&b, 't');
            else if (*p == 'L')
                nm_buf_append(&b, "\x8A\x08\0\0\0\0\0\0\0\x40", 10);
            else if (*p == '-')
                nm_buf_append(&b, "J\xFF\xFF\xFF\xFF", 5);
            else if (*p != ',')
                nm_buf_putc(&b, 'K'), nm_buf_putc(&b, (char)(*p - '0'));
    }
    nm_buf_append(&b, "\x89}tRs.\x80\2]X\1\0\0\0" "0a.\6\0\0\0\0\0\0\0", 25);
    for (int i = 0; i < 6; i++) {
        float f = (float)i;
        nm_buf_append(&b, &f, 4);
    }
    noema_error err;
    if (word)
        refused(b.data, b.len, "x.pt", word);
    else if (try_open(b.data, b.len, "x.pt", &err) != NOEMA_OK)
        fail_msg("%s %s %s: %s", offset, shape, stride, err.message);
    nm_buf_free(&b);
}

static void test_views_stay_inside(void **state)
{
    (void)state;
    tensor("0", "(2,3)", "(3,1)", NULL);
    tensor("5", "()", "()", NULL);
    tensor("6", "(0,9)", "(9,1)", NULL);
    tensor("0", "(9,6)", "(0,1)", NULL); /* expanded */
    tensor("0", "(2,2)", "(4,1)", NULL);
    tensor("1", "(2,3)", "(3,1)", "outside");
    tensor("6", "()", "()", "outside");
    tensor("7", "(0)", "(1)", "outside");
    tensor("-", "(1)", "(1)", "outside");
    tensor("L", "(1)", "(1)", "outside");
    tensor("0", "(2,3)", "(4,1)", "outside");
    tensor("0", "(2,3)", "(L,1)", "outside");
    tensor("0", "(3,3)", "(L,L)", "outside");
    tensor("0", "(L,L)", "(0,0)", "too large");
    tensor("0", "(L)", "(0)", "too large");
    tensor("0", "(2,-)", "(1,1)", "without storage");
    tensor("0", "(2,3)", "(-,1)", "without storage");
    tensor("0", "(2,3)", "(1)", "without storage");
    tensor("0", "(1,1,1,1,1,1,1)", "(1,1,1,1,1,1,1)", "dimensions");
    tensor("()", "(1)", "(1)", "without storage");
}

/* ---- zips ---- */

typedef struct zip_file { nm_buf b, dir; int n; } zip_file;

static void le(nm_buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        nm_buf_putc(b, i < 8 ? (char)(unsigned char)(v >> 8 * i) : 0);
}

/* Adds a member; `size` is what the directory claims, `method` likewise; the CRC is that of the data unless overridden. */
static void zip_add(zip_file *z, const char *name, const void *data, size_t stored, uint64_t size, int method, uint32_t crc)
{
    size_t at = z->b.len, n = strlen(name);
    nm_buf_append(&z->b, "PK\3\4\x14\0\0\0", 8);
    le(&z->b, (uint64_t)method, 2);
    le(&z->b, 0, 16);
    le(&z->b, n, 2);
    le(&z->b, 3, 2);
    nm_buf_puts(&z->b, name);
    nm_buf_append(&z->b, "xyz", 3); /* an extra field that only the local header has */
    nm_buf_append(&z->b, data, stored);
    nm_buf_append(&z->dir, "PK\1\2\x14\0\x14\0\0\0", 10);
    le(&z->dir, (uint64_t)method, 2);
    le(&z->dir, 0, 4);
    le(&z->dir, crc, 4);
    le(&z->dir, stored, 4);
    le(&z->dir, size, 4);
    le(&z->dir, n, 2);
    le(&z->dir, 0, 12);
    le(&z->dir, at, 4);
    nm_buf_puts(&z->dir, name);
    z->n++;
}

static void zip_end(zip_file *z)
{
    size_t at = z->b.len;
    nm_buf_append(&z->b, z->dir.data, z->dir.len);
    nm_buf_append(&z->b, "PK\5\6\0\0\0\0", 8);
    le(&z->b, (uint64_t)z->n, 2);
    le(&z->b, (uint64_t)z->n, 2);
    le(&z->b, z->dir.len, 4);
    le(&z->b, at, 4);
    le(&z->b, 0, 2);
}

static void zip_free(zip_file *z)
{
    nm_buf_free(&z->b);
    nm_buf_free(&z->dir);
    *z = (zip_file){ 0 };
}

static uint32_t crc_of(const void *p, size_t n) { return (uint32_t)crc32(0, p, (uInt)n); }

/* {"t": tensor of the whole f32 storage "0", `numel` long} */
static size_t tensor_pickle(char *out, int numel)
{
    static const char a[] = "\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK";
    size_t n = sizeof a - 1;
    memcpy(out, a, n);
    out[n++] = (char)numel;
    memcpy(out + n, "tQK\0K", 5);
    n += 5;
    out[n++] = (char)numel;
    memcpy(out + n, "\x85K\1\x85\x89}tRs.", 10);
    return n + 10;
}

static void zip_case(int numel, const char *storage, size_t stored, uint64_t size, int method, uint32_t crc, const char *word)
{
    char p[256];
    size_t n = tensor_pickle(p, numel);
    zip_file z = { 0 };
    zip_add(&z, "top/data.pkl", p, n, n, 0, crc_of(p, n));
    zip_add(&z, storage, "0123456789abcdef", stored, size, method, crc);
    zip_end(&z);
    noema_error err;
    if (word)
        refused(z.b.data, z.b.len, "x.pt", word);
    else if (try_open(z.b.data, z.b.len, "x.pt", &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    zip_free(&z);
}

static void test_zip_lies(void **state)
{
    (void)state;
    zip_case(4, "top/data/0", 16, 16, 0, 0, NULL);
    zip_case(4, "top/data/1", 16, 16, 0, 0, "not in the archive");
    zip_case(4, "other/data/0", 16, 16, 0, 0, "not in the archive");
    zip_case(3, "top/data/0", 16, 16, 0, 0, "12 bytes");
    zip_case(5, "top/data/0", 16, 16, 0, 0, "20 bytes");
    zip_case(4, "top/data/0", 16, 15, 0, 0, "two sizes");
    zip_case(4, "top/data/0", 16, 16, 12, 0, "compression method 12");
    zip_case(4, "top/data/0", 16, 16, 8, 0, "inflate");
    zip_case(4, "top/data.pkl", 16, 16, 0, 0, "twice");
    zip_case(4, "second/data.pkl", 16, 16, 0, 0, "one data.pkl");

    char p[256];
    size_t n = tensor_pickle(p, 4);
    zip_file z = { 0 };
    zip_add(&z, "top/data.pkl", p, n, n, 0, crc_of(p, n) ^ 1);
    zip_add(&z, "top/data/0", "0123456789abcdef", 16, 16, 0, 0);
    zip_end(&z);
    refused(z.b.data, z.b.len, "x.pt", "CRC-32");
    zip_free(&z);

    zip_add(&z, "readme.txt", "hello", 5, 5, 0, 0);
    zip_end(&z);
    refused(z.b.data, z.b.len, "x.pt", "data.pkl");
    zip_free(&z);

    zip_add(&z, "top/data.pkl", p, n, n, 0, crc_of(p, n)); /* a member whose header lies outside */
    zip_add(&z, "top/data/0", "0123456789abcdef", 16, 16, 0, 0);
    memset(z.dir.data + 46 + 12 + 42, 0x7F, 4);
    zip_end(&z);
    refused(z.b.data, z.b.len, "x.pt", "nothing there");
    zip_free(&z);

    zip_add(&z, "top/data.pkl", p, n, n, 0, crc_of(p, n)); /* a member that is longer than the file */
    zip_add(&z, "top/data/0", "0123456789abcdef", 16, 16, 0, 0);
    z.dir.data[46 + 12 + 20 + 2] = z.dir.data[46 + 12 + 24 + 2] = 1;
    zip_end(&z);
    refused(z.b.data, z.b.len, "x.pt", "outside the file");
    zip_free(&z);

    zip_add(&z, "top/data.pkl", p, n, n, 0, crc_of(p, n)); /* encrypted */
    z.dir.data[8] = 1;
    zip_end(&z);
    refused(z.b.data, z.b.len, "x.pt", "encrypted");
    zip_free(&z);
}

/* CRC of stored data: not looked at when opening, found by verify. */
static void test_verify(void **state)
{
    (void)state;
    char p[256];
    size_t n = tensor_pickle(p, 4);
    zip_file z = { 0 };
    zip_add(&z, "top/data.pkl", p, n, n, 0, crc_of(p, n));
    zip_add(&z, "top/data/0", "0123456789abcdef", 16, 16, 0, 0x1234);
    zip_end(&z);
    nm_weights *w;
    noema_error err = NOEMA_ERROR_INIT;
    assert_int_equal(nm_weights_open_memory(&w, z.b.data, z.b.len, "x.pt", NULL, &err), NOEMA_OK);
    assert_int_equal(nm_weights_verify(w, &err), NOEMA_E_FORMAT);
    assert_non_null(strstr(err.message, "top/data/0"));
    nm_weights_close(w);
    err = (noema_error)NOEMA_ERROR_INIT;
    assert_int_equal(nm_weights_open_memory(&w, z.b.data, z.b.len, "x.pt", &(nm_weights_options){ .verify = true }, &err), NOEMA_E_FORMAT);
    assert_null(w);
    zip_free(&z);
}

/* 1 GiB of zeros in about 1 MB: refused before anything is inflated. */
static void test_zip_bomb(void **state)
{
    (void)state;
    size_t unit = 1 << 20, cap = 2 << 20;
    unsigned char *zeros = calloc(1, unit), *out = malloc(cap);
    z_stream s = { 0 };
    assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    s.next_out = out;
    s.avail_out = (uInt)cap;
    for (int i = 0; i < 1024; i++) {
        s.next_in = zeros;
        s.avail_in = (uInt)unit;
        assert_int_equal(deflate(&s, i == 1023 ? Z_FINISH : Z_NO_FLUSH), i == 1023 ? Z_STREAM_END : Z_OK);
    }
    size_t n = cap - s.avail_out;
    deflateEnd(&s);
    zip_file z = { 0 };
    zip_add(&z, "a.npy", out, n, (uint64_t)1 << 30, 8, 0);
    zip_end(&z);
    refused(z.b.data, z.b.len, "x.npz", "would inflate");
    zip_free(&z);
    free(zeros);
    free(out);
}

/* ---- npy ---- */

static void npy(const char *header, size_t data_size, const char *word)
{
    nm_buf b = { 0 };
    size_t n = strlen(header);
    nm_buf_append(&b, "\x93NUMPY\1\0", 8);
    le(&b, n, 2);
    nm_buf_puts(&b, header);
    for (size_t i = 0; i < data_size; i++)
        nm_buf_putc(&b, 1);
    noema_error err;
    if (word)
        refused(b.data, b.len, "x.npy", word);
    else if (try_open(b.data, b.len, "x.npy", &err) != NOEMA_OK)
        fail_msg("%s: %s", header, err.message);
    nm_buf_free(&b);
}

static void test_npy_lies(void **state)
{
    (void)state;
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, NULL);
    npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", 24, NULL);
    npy("{\"shape\":(), \"descr\":\"<f8\",\"fortran_order\":False}", 8, NULL);
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }\n", 0, NULL);
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 23, "24 bytes");
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 25, "24 bytes");
    npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, "'>f4'");
    npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }\n", 24, "'|O'");
    npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }\n", 24, "structured");
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }\n", 24, "header");
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n", 24, "too large");
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1), }\n", 4, "dimensions");
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n", 4, "header");
    npy("{'descr': '<f4', 'fortran_order': 3, 'shape': (1,), }\n", 4, "header");
    npy("{'descr': '<f4', 'shape': (1,), }\n", 4, "header");
    npy("{'descr': '<f4", 4, "header");
    npy("", 4, "header");
    refused("\x93NUMPY\1\0\xFF\xFF", 10, "x.npy", "truncated");
    refused("\x93NUMPY\x09\0\0\0", 10, "x.npy", "version 9");
}

/* ---- other files ---- */

static void test_named_strangers(void **state)
{
    (void)state;
    char tar[512] = "name";
    memcpy(tar + 257, "ustar", 5);
    refused(tar, sizeof tar, "x.tar", "tar archive");
    refused("version https://git-lfs.github.com/spec/v1\n", 43, "x.bin", "git-lfs");
    refused("GGUF\3\0\0\0", 8, "x.gguf", "GGUF");
    refused("<!DOCTYPE html>", 15, "x.pt", "HTML");
    refused("\x80\4}.", 4, "x.pkl", "pickle");
    refused("", 0, "x.pt", "empty");
    refused("hello, world", 12, "x.pt", "none of them");
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w;
    assert_int_equal(nm_weights_open(&w, "/nonexistent/model.safetensors", &err), NOEMA_E_MISSING);
    assert_null(w);
}

/* ---- shards ---- */

static char dir[] = "/tmp/noema-shards-XXXXXX";

static void write_text(const char *name, const char *text)
{
    char path[128];
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(nm_write_file_atomic(path, text, strlen(text), &err), NOEMA_OK);
}

static void index_case(const char *text, const char *word)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w = NULL;
    write_text("model.safetensors.index.json", text);
    noema_status s = nm_weights_open(&w, dir, &err);
    if (word && (s == NOEMA_OK || !strstr(err.message, word)))
        fail_msg("expected \"%s\", got \"%s\"", word, err.message);
    if (!word && s != NOEMA_OK)
        fail_msg("%s", err.message);
    if (!word) {
        assert_int_equal(nm_weights_count(w), 2);
        assert_int_equal(nm_weights_file_count(w), 2);
    }
    nm_weights_close(w);
}

static void test_shards(void **state)
{
    (void)state;
    static const float one = 1;
    char path[128];
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(nm_weights_open(&w, dir, &err), NOEMA_E_MISSING);
    assert_non_null(strstr(err.message, "no checkpoint"));
    nm_wview a = { "a", NM_F32, 0, { 0 }, { 0 }, &one }, b = { "b", NM_F32, 0, { 0 }, { 0 }, &one };
    snprintf(path, sizeof path, "%s/s1.safetensors", dir);
    assert_int_equal(nm_safetensors_write(path, &a, 1, NULL, &err), NOEMA_OK);
    nm_weights_options o = { 0 };
    assert_int_equal(nm_weights_open(&w, dir, &(noema_error)NOEMA_ERROR_INIT), NOEMA_OK); /* the only checkpoint of the folder */
    nm_weights_close(w);
    const char *twice[2] = { path, path };
    assert_int_equal(nm_weights_open_many(&w, twice, 2, &o, &(noema_error)NOEMA_ERROR_INIT), NOEMA_E_FORMAT); /* names repeat */
    snprintf(path, sizeof path, "%s/s2.safetensors", dir);
    assert_int_equal(nm_safetensors_write(path, &b, 1, NULL, &err), NOEMA_OK);
    assert_int_equal(nm_weights_open(&w, dir, &(noema_error)NOEMA_ERROR_INIT), NOEMA_E_MISSING); /* two: which? */
    index_case("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}", NULL);
    index_case("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}}", "s3.safetensors is not there");
    index_case("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\"}}", "'b' is not in its shard");
    index_case("{\"weight_map\":{\"a\":\"../../../etc/passwd\"}}", "no plain file name");
    index_case("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "no plain file name");
    index_case("{\"weight_map\":{\"a\":\"..\"}}", "no plain file name");
    index_case("{\"weight_map\":{\"a\":7}}", "no plain file name");
    index_case("{\"weight_map\":{}}", "weight_map");
    index_case("[]", "weight_map");
    index_case("{", "JSON");
    const char *names[] = { "s1.safetensors", "s2.safetensors", "model.safetensors.index.json" };
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* ---- damage: every container cut at 50 places and with single bits flipped ---- */

/* A small real file of each kind, from the writers (torch, safetensors, npy) or built here (legacy, npz). */
static void damage(const char *name, const char *data, size_t size)
{
    noema_error err;
    if (try_open(data, size, name, &err) != NOEMA_OK)
        fail_msg("%s is refused whole: %s", name, err.message);
    for (size_t i = 0; i < 50; i++) {
        size_t cut = size * i / 50;
        if (try_open(data, cut, name, &err) == NOEMA_OK)
            fail_msg("%s: accepted when cut to %zu of %zu bytes", name, cut, size);
    }
    if (try_open(data, size - 1, name, &err) == NOEMA_OK)
        fail_msg("%s: accepted without its last byte", name);
    char *copy = malloc(size);
    memcpy(copy, data, size);
    size_t step = size * 8 / 6000 + 1;
    for (size_t bit = 0; bit < size * 8; bit += step) { /* accepted or refused, but never read outside */
        copy[bit / 8] ^= (char)(1 << bit % 8);
        (void)try_open(copy, size, name, &err);
        copy[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(copy);
}

static void test_damage(void **state)
{
    (void)state;
    static const float f[24] = { 1, 2, 3 };
    static const int64_t l[4] = { 1, 2, 3, 4 };
    nm_wview v[3] = { { "a.weight", NM_F32, 2, { 4, 6 }, { 6, 1 }, f }, { "b", NM_I64, 1, { 4 }, { 1 }, l }, { "c", NM_F32, 0, { 0 }, { 0 }, f } };
    noema_error err = NOEMA_ERROR_INIT;
    char path[] = "/tmp/noema-damage-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    json_t *tree = json_pack("{s:i, s:{s:{s:i}, s:{s:i}, s:{s:i}}}", "epoch", 1, "state_dict", "a.weight", "$tensor", 0, "b", "$tensor", 1, "c",
                             "$tensor", 2);
    char *data;
    size_t size;
    assert_int_equal(nm_torch_write(path, tree, v, 3, &err), NOEMA_OK);
    assert_int_equal(nm_read_file(&data, &size, path, 1 << 20, &err), NOEMA_OK);
    damage("x.pt", data, size);
    free(data);
    assert_int_equal(nm_safetensors_write(path, v, 3, NULL, &err), NOEMA_OK);
    assert_int_equal(nm_read_file(&data, &size, path, 1 << 20, &err), NOEMA_OK);
    damage("x.safetensors", data, size);
    free(data);
    assert_int_equal(nm_npy_write(path, &v[0], &err), NOEMA_OK);
    assert_int_equal(nm_read_file(&data, &size, path, 1 << 20, &err), NOEMA_OK);
    damage("x.npy", data, size);
    unsigned char packed[1024];
    z_stream s = { .next_in = (Bytef *)data, .avail_in = (uInt)size, .next_out = packed, .avail_out = sizeof packed };
    assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
    deflateEnd(&s);
    zip_file z = { 0 };
    zip_add(&z, "stored.npy", data, size, size, 0, crc_of(data, size));
    zip_add(&z, "packed.npy", packed, sizeof packed - s.avail_out, size, 8, crc_of(data, size));
    zip_end(&z);
    damage("x.npz", z.b.data, z.b.len);
    zip_free(&z);
    free(data);
    json_decref(tree);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_lies), cmocka_unit_test(test_deep_header),       cmocka_unit_test(test_nothing_is_called),
        cmocka_unit_test(test_broken_machines),  cmocka_unit_test(test_deep_and_shared),   cmocka_unit_test(test_views_stay_inside),
        cmocka_unit_test(test_zip_lies),         cmocka_unit_test(test_verify),            cmocka_unit_test(test_zip_bomb),
        cmocka_unit_test(test_npy_lies),         cmocka_unit_test(test_named_strangers),   cmocka_unit_test(test_shards),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
