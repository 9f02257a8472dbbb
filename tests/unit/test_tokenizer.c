/* test_tokenizer.c - tokenizers without golden files: regular expressions, normal forms, merging (short against long), limits,
 * refusals by name, sharing between threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tokenizer/regex.h"
#include "tokenizer/tokenizer.h"

static void find_all(const char *pattern, const char *text, char *out, size_t cap)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_regex *re;
    nm_u32 a = { 0 };
    size_t from = 0, b, e, used = 0;
    long budget = 100000;
    if (nm_regex_new(&re, pattern, strlen(pattern), "test", &err))
        fail_msg("%s", err.message);
    assert_int_equal(nm_u32_from_utf8(&a, text, strlen(text), &err), 0);
    out[0] = 0;
    while (nm_regex_find(re, a.p, a.n, from, &b, &e, &budget) == 1) {
        nm_buf t = { 0 };
        nm_utf8_from_u32(&t, a.p + b, e - b);
        used += (size_t)snprintf(out + used, cap - used, "[%s]", t.data);
        nm_buf_free(&t);
        from = e > b ? e : e + 1;
        if (from > a.n)
            break;
    }
    nm_u32_free(&a);
    nm_regex_free(re);
}

static void test_regex(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        { "a+", "baaab a", "[aaa][a]" },
        { "a+?", "aa", "[a][a]" },
        { "a++b|a", "aab", "[aab]" },
        { "(?:ab|a)c", "abc ac", "[abc][ac]" },
        { "\\s+(?!\\S)|\\s+", "a   b  ", "[  ][ ][  ]" },
        { "(?i:'S|'re)|x", "'s 'RE X x", "['s]['RE][x]" },
        { "\\p{N}{1,3}", "12345 \xC2\xBD", "[123][45][\xC2\xBD]" },
        { "[^\\s\\p{L}]+", "ab, cd!?", "[,][!?]" },
        { "(?<=a)b|(?<!a)c", "ab bc ac", "[b][c]" },
        { "(?>a+)b|a", "aaab aa", "[aaab][a][a]" },
        { "^a|b$", "a\nb", "[a][b]" },
        { "[a-c-]+", "a-c d", "[a-c]" },
        { "\\x{AC00}|\\u3042", "\xEA\xB0\x80\xE3\x81\x82", "[\xEA\xB0\x80][\xE3\x81\x82]" },
        { "(?:x{2}y?){2}", "xxyxx", "[xxyxx]" },
        { "x*", "ax", "[][x][]" },
    };
    char out[256];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        find_all(cases[k][0], cases[k][1], out, sizeof out);
        if (strcmp(out, cases[k][2]) != 0)
            fail_msg("%s on \"%s\": expected %s, got %s", cases[k][0], cases[k][1], cases[k][2], out);
    }
    static const char *const refused[] = { "(", "a)", "[a", "\\1", "(?P<n>a)", "*a", "(?<=ab)c", "[[:alpha:]]", "(?:ab){2000}", "\\p{Xyz}" };
    for (size_t k = 0; k < sizeof refused / sizeof *refused; k++) {
        nm_regex *re;
        assert_int_not_equal(nm_regex_new(&re, refused[k], strlen(refused[k]), "test", NULL), NOEMA_OK);
        assert_null(re);
    }
    nm_regex *re; /* exponential: ends by its budget */
    nm_u32 a = { 0 };
    size_t b, e;
    long budget = 100000;
    assert_int_equal(nm_regex_new(&re, "(?:a|a)*(?:a|a)*c", 17, "test", NULL), 0);
    for (int k = 0; k < 60; k++)
        nm_u32_put(&a, 'a');
    assert_int_equal(nm_regex_find(re, a.p, a.n, 0, &b, &e, &budget), -1);
    nm_u32_free(&a);
    nm_regex_free(re);
}

static void test_norm(void **state)
{
    (void)state;
    nm_u32 a = { 0 }, t = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    /* e + dot below + acute in either order is one NFC; a long run of marks is ordered by class */
    for (int k = 0; k < 2; k++) {
        const uint32_t in[3] = { 'e', k ? 0x301 : 0x323, k ? 0x323 : 0x301 };
        a.n = 0;
        nm_u32_append(&a, in, 3);
        nm_text_norm(&a, NM_NFC, &t);
        assert_int_equal(a.n, 2);
        assert_int_equal(a.p[0], 0x1EB9);
        assert_int_equal(a.p[1], 0x301);
    }
    a.n = 0;
    nm_u32_put(&a, 'x');
    for (int k = 0; k < 20000; k++)
        nm_u32_put(&a, k % 2 ? 0x323 : 0x301);
    nm_text_norm(&a, NM_NFD, &t);
    assert_int_equal(a.n, 20001);
    assert_int_equal(a.p[1], 0x323);
    assert_int_equal(a.p[10001], 0x301);
    static const char *const lower[][2] = { { "\xCE\x9F\xCE\xA3", "\xCE\xBF\xCF\x82" }, { "\xCE\xA3\xCE\x91", "\xCF\x83\xCE\xB1" },
                                            { "\xCE\x91\xCE\xA3.", "\xCE\xB1\xCF\x82." }, { "\xC4\xB0", "i\xCC\x87" } };
    for (int k = 0; k < 4; k++) {
        nm_buf b = { 0 };
        assert_int_equal(nm_u32_from_utf8(&a, lower[k][0], strlen(lower[k][0]), &err), 0);
        nm_lower_full(&a, &t);
        nm_utf8_from_u32(&b, a.p, a.n);
        assert_string_equal(b.data, lower[k][1]);
        nm_buf_free(&b);
    }
    nm_u32_free(&a), nm_u32_free(&t);
}

static void clean(const char *in, const char *want)
{
    nm_u32 a = { 0 };
    nm_buf b = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    assert_int_equal(nm_u32_from_utf8(&a, in, strlen(in), &err), 0);
    assert_int_equal(nm_ftfy_fix(&a, &err), 0);
    nm_utf8_from_u32(&b, a.p, a.n);
    if (strcmp(b.data, want) != 0)
        fail_msg("\"%s\": expected \"%s\", got \"%s\"", in, want, b.data);
    nm_buf_free(&b);
    nm_u32_free(&a);
}

static void test_ftfy(void **state)
{
    (void)state;
    clean("\xC3\xA2\xC5\x93\xE2\x80\x9D No problems", "\xE2\x9C\x94 No problems");             /* ftfy's own first example */
    clean("P&EACUTE;REZ &ntilde; &nTILDE;", "P\xC3\x89REZ \xC3\xB1 &nTILDE;");
    clean("\xC3\x83 la mode", "\xC3\xA0 la mode");
    clean("\xEF\xBC\xA1\xEF\xBC\xA2 \xEF\xAC\x83", "AB ffi");
    clean("a <b> &amp;\n&amp;", "a <b> &amp;\n&amp;");                                          /* '<' turns entities off, also later */
    clean("&amp;\n<", "&\n<");
    clean("\xCE\xB3\xC6\x92\xE2\x80\xA0\xCE\xB3\xE2\x80\x9A? x \xD0\xBC", "\xE3\x83\x86\xCE\xB3'? x \xD0\xBC"); /* embedded, two bad signs */
}

static const char merges[] = "#version\ni n\nt h\na n\nr e\nth e</w>\nin g</w>\na a\naa a</w>\nab ab\na b\nb a\naa b\n";

static nm_tokenizer *open_merges(int context)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_tok_options o = noema_tokenizer_options_default();
    nm_tokenizer *t;
    o.kind = NOEMA_TOKENIZER_OPENAI, o.context_length = context;
    if (nm_tokenizer_open_memory(&t, "merges", merges, sizeof merges - 1, &o, &err))
        fail_msg("%s", err.message);
    return t;
}

/* Words just below and above the length where the merge loop changes its method give what a plain loop gives. */
static void test_merge_long(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    for (int all = 0; all < 2; all++) {
        nm_bpe b = { .all = all };
        nm_bpe_work w = { 0 };
        assert_true(nm_bpe_init(&b, 16));
        static const int rule[][3] = { { 0, 1, 3 }, { 3, 3, 4 }, { 0, 0, 5 }, { 5, 1, 6 }, { 1, 2, 7 }, { 4, 7, 8 }, { 2, 2, 9 }, { 9, 2, 10 } };
        for (uint32_t k = 0; k < 8; k++)
            assert_true(nm_bpe_add(&b, rule[k][0], rule[k][1], k, rule[k][2]));
        for (int round = 0; round < 300; round++) {
            int32_t x[400], y[400];
            size_t n = 41 + (size_t)round, m = n;
            for (size_t i = 0; i < n; i++) {
                seed = seed * 1664525 + 1013904223;
                x[i] = y[i] = (int32_t)(seed >> 16) % 3;
            }
            n = nm_bpe_merge(&b, &w, x, n);
            for (;;) { /* the definition */
                int best = 8;
                for (size_t i = 0; i + 1 < m; i++)
                    for (int k = 0; k < best; k++)
                        if (rule[k][0] == y[i] && rule[k][1] == y[i + 1])
                            best = k;
                if (best == 8)
                    break;
                size_t k = 0;
                bool done = false;
                for (size_t i = 0; i < m; i++) {
                    if (i + 1 < m && (all || !done) && rule[best][0] == y[i] && rule[best][1] == y[i + 1])
                        y[k++] = rule[best][2], i++, done = true;
                    else
                        y[k++] = y[i];
                }
                m = k;
            }
            assert_int_equal(n, m);
            assert_memory_equal(x, y, n * sizeof *x);
        }
        nm_bpe_work_free(&w);
        nm_bpe_free(&b);
    }
}

static void test_limits(void **state)
{
    (void)state;
    nm_tokenizer *t = open_merges(77);
    nm_tok_scratch *s = noema_tokenizer_scratch_new(t);
    noema_error err = NOEMA_ERROR_INIT;
    const int32_t *ids;
    size_t n, size = 1 << 20;
    char *big = malloc(size);
    assert_int_equal(noema_tokenizer_encode(t, s, "abc\xC3(", 5, &ids, &n, &err), NOEMA_E_FORMAT);
    assert_non_null(strstr(err.message, "0xC3 at offset 3"));
    assert_int_equal(noema_tokenizer_encode(t, s, "a\0b", 3, &ids, &n, NULL), 0); /* NUL is a control character: dropped */
    assert_int_equal(n, 4); /* start, a, b</w>, end */
    clock_t t0 = clock();
    memset(big, 'a', size); /* one word of a megabyte */
    assert_int_equal(noema_tokenizer_encode(t, s, big, size, &ids, &n, NULL), 0);
    assert_int_equal(n, 77);
    assert_int_equal(ids[76], noema_tokenizer_special_ids(t).eos);
    for (size_t i = 0; i + 3 < size; i += 3)
        memcpy(big + i, "\xCC\x81\xC3", 3); /* not UTF-8 at the end */
    assert_int_equal(noema_tokenizer_encode(t, s, big, size, &ids, &n, NULL), NOEMA_E_FORMAT);
    for (size_t i = 0; i < size; i += 4)
        memcpy(big + i, i ? "amp;" : " &am", 4); /* nested entities: refused, not quadratic for ever */
    big[3] = '&';
    assert_int_equal(noema_tokenizer_encode(t, s, big, size, &ids, &n, NULL), NOEMA_E_LIMIT);
    assert_true((double)(clock() - t0) / CLOCKS_PER_SEC < 20);
    nm_tokenizer *other = open_merges(0);
    assert_int_equal(noema_tokenizer_encode(other, s, "a", 1, &ids, &n, NULL), NOEMA_E_ARGUMENT);
    noema_tokenizer_free(other);
    free(big);
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
}

static void refuse(const char *data, size_t size, const char *name, noema_status want, const char *part)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_tokenizer *t;
    noema_status st = nm_tokenizer_open_memory(&t, name, data, size, NULL, &err);
    if (st != want || !strstr(err.message, part))
        fail_msg("%s: expected status %d and \"%s\", got %d and \"%s\"", data, want, part, st, err.message);
    assert_null(t);
}

static void test_refusals(void **state)
{
    (void)state;
#define J(x) x, sizeof x - 1, "x.json"
    refuse(J("{\"model\":{\"type\":\"Magic\"}}"), NOEMA_E_UNSUPPORTED, "\"Magic\"");
    refuse(J("{\"normalizer\":{\"type\":\"Rot13\"},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}"), NOEMA_E_UNSUPPORTED, "Rot13");
    refuse(J("{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Odd\"}]},\"model\":{}}"), NOEMA_E_UNSUPPORTED, "Odd");
    refuse(J("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}"), NOEMA_E_FORMAT, "given twice");
    refuse(J("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-5},\"merges\":[]}}"), NOEMA_E_FORMAT, "out of range");
    refuse(J("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}"), NOEMA_E_FORMAT, "not in the vocabulary");
    refuse(J("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}"), NOEMA_E_FORMAT, "[UNK]");
    refuse(J("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":7}}"), NOEMA_E_FORMAT, "unk_id");
    refuse(J("{\"model\""), NOEMA_E_FORMAT, "JSON");
#undef J
    refuse("\x1F\x8B\x08", 3, "x.txt.gz", NOEMA_E_FORMAT, "truncated");
    refuse("#version\nab\n", 12, "x.txt.gz", NOEMA_E_FORMAT, "two symbols");
    refuse("\x0A\x7F", 2, "x.model", NOEMA_E_FORMAT, "SentencePiece");
    refuse("", 0, "vocab.txt", NOEMA_E_FORMAT, "empty");
    refuse("a\n\xFF\n", 4, "vocab.txt", NOEMA_E_FORMAT, "line 2");
}

/* Rows of the token table say how many merges count. */
static void test_vocab_size(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_tok_options o = noema_tokenizer_options_default();
    nm_tokenizer *t;
    o.kind = NOEMA_TOKENIZER_OPENAI;
    for (o.vocab_size = 514; o.vocab_size <= 526; o.vocab_size++) {
        assert_int_equal(nm_tokenizer_open_memory(&t, "merges", merges, sizeof merges - 1, &o, &err), 0);
        assert_int_equal(noema_tokenizer_vocab_size(t), o.vocab_size);
        assert_int_equal(noema_tokenizer_special_ids(t).eos, o.vocab_size - 1);
        noema_tokenizer_free(t);
    }
    assert_int_equal(nm_tokenizer_open_memory(&t, "merges", merges, sizeof merges - 1, &o, &err), NOEMA_E_MISMATCH);
}

typedef struct job { const nm_tokenizer *t; int id; bool ok; } job;

static void *work(void *arg)
{
    job *j = arg;
    nm_tok_scratch *s = noema_tokenizer_scratch_new(j->t);
    j->ok = s != NULL;
    for (int k = 0; j->ok && k < 2000; k++) {
        char text[64];
        const int32_t *ids;
        size_t n, m;
        int len = snprintf(text, sizeof text, "the thing %d caf\xC3\xA9 &eacute;", (k * 7 + j->id) % 50);
        const char *out;
        int32_t copy[64];
        j->ok = noema_tokenizer_encode(j->t, s, text, (size_t)len, &ids, &n, NULL) == 0 && n < 64;
        if (!j->ok)
            break;
        memcpy(copy, ids, n * sizeof *ids);
        j->ok = noema_tokenizer_decode(j->t, s, copy, n, 1, &out, &m, NULL) == 0 && strncmp(out, "the thing ", 10) == 0;
    }
    noema_tokenizer_scratch_free(s);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    nm_tokenizer *t = open_merges(0);
    pthread_t th[4];
    job j[4];
    for (int k = 0; k < 4; k++) {
        j[k] = (job){ t, k, false };
        assert_int_equal(pthread_create(&th[k], NULL, work, &j[k]), 0);
    }
    for (int k = 0; k < 4; k++) {
        pthread_join(th[k], NULL);
        assert_true(j[k].ok);
    }
    noema_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regex),      cmocka_unit_test(test_norm),     cmocka_unit_test(test_ftfy),
        cmocka_unit_test(test_merge_long), cmocka_unit_test(test_limits),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_vocab_size), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
