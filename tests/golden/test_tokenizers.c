/* test_tokenizers.c - every line of golden/tokenizers: the reference's ids, exactly. The vocabularies and ids that are the
 * project's own are in tests/golden/tokenizers; those with public vocabularies (CLIP, BERT) run when ../shared is there. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

#define SHARED NOEMA_SHARED_DIR "/golden/tokenizers/"

static const char *dir;
static json_t *strings; /* array by i */

/* A .jsonl file as an array of objects (the note, if any, included). */
static json_t *load_lines(const char *name)
{
    char path[8192];
    char *data;
    size_t size;
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s%s", dir, name);
    if (nm_read_file(&data, &size, path, 64 << 20, &err))
        fail_msg("%s", err.message);
    json_t *all = json_array();
    for (char *p = data, *lf; p < data + size; p = lf + 1) {
        lf = memchr(p, '\n', (size_t)(data + size - p));
        lf = lf ? lf : data + size;
        json_t *o = json_loadb(p, (size_t)(lf - p), JSON_ALLOW_NUL, NULL);
        assert_non_null(o);
        json_array_append_new(all, o);
    }
    free(data);
    return all;
}

static void show(const char *what, int i, const json_t *want, const int32_t *ids, size_t n)
{
    char *w = json_dumps(want, JSON_COMPACT);
    print_error("%s: string %d\n  expected %s\n  got      [", what, i, w);
    for (size_t k = 0; k < n; k++)
        print_error("%s%d", k ? "," : "", (int)ids[k]);
    print_error("]\n");
    free(w);
}

static bool same_ids(const json_t *want, const int32_t *ids, size_t n)
{
    if (json_array_size(want) != n)
        return false;
    for (size_t k = 0; k < n; k++)
        if (json_integer_value(json_array_get(want, k)) != ids[k])
            return false;
    return true;
}

/* Ids of every string: from `base`, replaced by those of `name` where it has a note. */
static json_t *expected(const char *base, const char *name)
{
    json_t *ids = json_array(), *v;
    size_t k;
    for (size_t i = 0; i < json_array_size(strings); i++)
        json_array_append_new(ids, json_null());
    for (int pass = 0; pass < 2; pass++) {
        const char *f = pass ? name : base;
        if (!f)
            continue;
        json_t *lines = load_lines(f);
        json_array_foreach(lines, k, v) {
            json_t *want = json_object_get(v, "ids");
            if (want)
                json_array_set(ids, (size_t)json_integer_value(json_object_get(v, "i")), want);
        }
        json_decref(lines);
    }
    return ids;
}

static int check(const char *what, const char *path, const nm_tok_options *o, const char *base, const char *name, int32_t pad)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_tokenizer *t;
    char full[8192];
    int bad = 0, n_checked = 0;
    snprintf(full, sizeof full, "%s%s", path[0] == '/' ? "" : dir, path);
    if (noema_tokenizer_open(&t, full, o, &err))
        fail_msg("%s: %s", what, err.message);
    nm_tok_scratch *s = noema_tokenizer_scratch_new(t);
    json_t *want = expected(base, name), *v;
    size_t i;
    json_array_foreach(strings, i, v) {
        const int32_t *ids = NULL;
        size_t n = 0;
        json_t *w = json_array_get(want, i);
        if (!json_is_array(w))
            continue;
        err = (noema_error)NOEMA_ERROR_INIT;
        if (noema_tokenizer_encode(t, s, json_string_value(v), json_string_length(v), &ids, &n, &err)) {
            print_error("%s: string %zu: %s\n", what, i, err.message);
            bad++;
            continue;
        }
        while (pad >= 0 && json_array_size(w) > n && json_integer_value(json_array_get(w, json_array_size(w) - 1)) == pad)
            json_array_remove(w, json_array_size(w) - 1);
        if (!same_ids(w, ids, n)) {
            show(what, (int)i, w, ids, n);
            bad++;
        }
        n_checked++;
    }
    json_decref(want);
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
    print_message("%s: %d strings, %d wrong\n", what, n_checked, bad);
    assert_true(n_checked > 250);
    return bad;
}

static bool have_shared(const char *what)
{
    if (nm_file_exists(SHARED "strings.jsonl"))
        return true;
    print_message("SKIPPED %s: " SHARED " is not there\n", what);
    return false;
}

static nm_tok_options opt(noema_tokenizer_kind kind)
{
    nm_tok_options o = noema_tokenizer_options_default();
    o.kind = kind;
    return o;
}

#define CLIP_BPE SHARED "bpe_simple_vocab_16e6.txt.gz"

static void test_clip(void **state)
{
    (void)state;
    if (!have_shared("CLIP"))
        return;
    dir = SHARED;
    nm_tok_options o = opt(NOEMA_TOKENIZER_OPENAI);
    int bad = check("clip_openai", CLIP_BPE, &o, NULL, "clip_openai.jsonl", -1);
    o.kind = NOEMA_TOKENIZER_OPEN_CLIP;
    bad += check("clip_openclip", CLIP_BPE, &o, NULL, "clip_openclip.jsonl", -1);
    o.clean = NOEMA_CLEAN_WHITESPACE;
    bad += check("whitespace", CLIP_BPE, &o, "clip_openclip.jsonl", "clip_openclip_whitespace.jsonl", -1);
    o.clean = NOEMA_CLEAN_CANONICALIZE;
    bad += check("canonicalize", CLIP_BPE, &o, "clip_openclip.jsonl", "clip_openclip_canonicalize.jsonl", -1);
    o.clean = NOEMA_CLEAN_DEFAULT, o.context_length = 32;
    bad += check("ctx32", CLIP_BPE, &o, "clip_openclip.jsonl", "clip_openclip_ctx32.jsonl", -1);
    assert_int_equal(bad, 0);
}

/* The cleaned text, the full length, the refusal of long texts, decoding. */
static void test_clip_openai_details(void **state)
{
    (void)state;
    if (!have_shared("CLIP details"))
        return;
    dir = SHARED;
    noema_error err = NOEMA_ERROR_INIT;
    nm_tok_options o = opt(NOEMA_TOKENIZER_OPENAI);
    nm_tokenizer *t;
    o.error_if_longer = 1;
    assert_int_equal(noema_tokenizer_open(&t, CLIP_BPE, &o, &err), NOEMA_OK);
    assert_int_equal(noema_tokenizer_vocab_size(t), 49408);
    nm_tok_scratch *s = noema_tokenizer_scratch_new(t);
    json_t *lines = load_lines("clip_openai.jsonl"), *v;
    size_t k, n;
    int bad = 0, raised = 0;
    json_array_foreach(lines, k, v) {
        json_t *text = json_array_get(strings, (size_t)nm_json_int(v, "i", 0)), *clean = json_object_get(v, "clean");
        bool raises = json_object_get(v, "raises") != NULL;
        const int32_t *ids;
        assert_int_equal(nm_tok_clean_utf8(s, NOEMA_CLEAN_LOWER, json_string_value(text), json_string_length(text), &err), 0);
        if (s->text.len != json_string_length(clean) || memcmp(s->text.data, json_string_value(clean), s->text.len)) {
            print_error("clean %d: expected \"%s\", got \"%s\"\n", (int)nm_json_int(v, "i", 0), json_string_value(clean),
                        s->text.data);
            bad++;
        }
        noema_status st = noema_tokenizer_encode(t, s, json_string_value(text), json_string_length(text), &ids, &n, NULL);
        assert_int_equal(st, raises ? NOEMA_E_LIMIT : NOEMA_OK);
        raised += raises;
        assert_int_equal(noema_tokenizer_full_length(s), nm_json_int(v, "n", -1));
    }
    assert_int_equal(bad, 0);
    assert_true(raised > 5);
    json_decref(lines);
    lines = load_lines("clip_openai_decode.jsonl");
    json_array_foreach(lines, k, v) {
        json_t *ids = json_object_get(v, "ids");
        int32_t id[256];
        const char *text;
        for (n = 0; n < json_array_size(ids) && n < 256; n++)
            id[n] = (int32_t)json_integer_value(json_array_get(ids, n));
        assert_int_equal(noema_tokenizer_decode(t, s, id, n, 0, &text, &n, &err), NOEMA_OK);
        assert_string_equal(text, nm_json_str(v, "text", ""));
    }
    json_decref(lines);
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
}

#define OWN NOEMA_SOURCE_DIR "/tests/golden/tokenizers/"

static void write_text(const char *path, const char *text)
{
    noema_error err = NOEMA_ERROR_INIT;
    if (nm_write_file_atomic(path, text, strlen(text), &err))
        fail_msg("%s", err.message);
}

static void copy_to(const char *folder, const char *name, const char *from)
{
    char path[8192], *data;
    size_t size;
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (nm_read_file(&data, &size, from, 64 << 20, &err) || nm_write_file_atomic(path, data, size, &err))
        fail_msg("%s", err.message);
    free(data);
}

/* A folder in Hugging Face layout under the build directory: a class, its options, and the files. */
static const char *make_folder(const char *config, const char *const files[][2])
{
    static char path[2048];
    static int n;
    noema_error err = NOEMA_ERROR_INIT;
    const char *tmp = getenv("TMPDIR");
    char file[4200];
    snprintf(path, sizeof path, "%s/noema-tok-%ld-%d", tmp ? tmp : "/tmp", (long)getpid(), n++);
    if (nm_mkdirs(path, &err))
        fail_msg("%s", err.message);
    snprintf(file, sizeof file, "%s/tokenizer_config.json", path);
    if (config)
        write_text(file, config);
    for (int k = 0; files[k][0]; k++)
        copy_to(path, files[k][0], files[k][1]);
    return path;
}

static void remove_folder(const char *path)
{
    char cmd[5000];
    snprintf(cmd, sizeof cmd, "rm -r '%s'", path);
    if (system(cmd))
        print_error("cannot remove %s\n", path);
}

static int check_folder(const char *what, const char *config, const char *const files[][2], const nm_tok_options *o, const char *base,
                        const char *name)
{
    const char *path = make_folder(config, files);
    int bad = check(what, path, o, base, name, -1);
    remove_folder(path);
    return bad;
}

static void test_byte_level(void **state)
{
    (void)state;
    dir = OWN;
    nm_tok_options o = opt(NOEMA_TOKENIZER_AUTO);
    int bad = check("gpt2", "bytelevel.tokenizer.json", &o, NULL, "gpt2.jsonl", -1);
    const char *const fast[][2] = { { "tokenizer.json", OWN "bytelevel.tokenizer.json" }, { NULL, NULL } };
    const char *const slow[][2] = { { "vocab.json", OWN "bytelevel.vocab.json" }, { "merges.txt", OWN "bytelevel.merges.txt" },
                                    { NULL, NULL } };
    for (int k = 0; k < 2; k++) {
        bad += check_folder("gpt2 folder", "{\"tokenizer_class\":\"GPT2Tokenizer\",\"pad_token\":\"<pad>\",\"eos_token\":\"</s>\"}",
                            k ? slow : fast, &o, NULL, "gpt2.jsonl");
        bad += check_folder("gpt2 add_prefix_space",
                            "{\"tokenizer_class\":\"GPT2TokenizerFast\",\"add_prefix_space\":true,\"pad_token\":\"<pad>\","
                            "\"eos_token\":\"</s>\"}",
                            k ? slow : fast, &o, "gpt2.jsonl", "gpt2_prefix_space.jsonl");
    }
    assert_int_equal(bad, 0);
}

/* OPT puts id 2 in front of GPT-2's ids. */
static void test_opt(void **state)
{
    (void)state;
    dir = OWN;
    noema_error err = NOEMA_ERROR_INIT;
    const char *const files[][2] = { { "vocab.json", OWN "bytelevel.vocab.json" }, { "merges.txt", OWN "bytelevel.merges.txt" },
                                     { NULL, NULL } };
    const char *path = make_folder("{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true,\"bos_token\":\"</s>\",\"eos_token\":"
                                   "\"</s>\",\"unk_token\":\"</s>\",\"pad_token\":\"<pad>\"}", files);
    nm_tokenizer *t;
    if (noema_tokenizer_open(&t, path, NULL, &err))
        fail_msg("%s", err.message);
    remove_folder(path);
    nm_tok_scratch *s = noema_tokenizer_scratch_new(t);
    json_t *want = expected("gpt2.jsonl", "opt.jsonl"), *v;
    size_t i, n;
    json_array_foreach(strings, i, v) {
        const int32_t *ids;
        assert_int_equal(noema_tokenizer_encode(t, s, json_string_value(v), json_string_length(v), &ids, &n, &err), 0);
        assert_true(n > 0);
        assert_int_equal(ids[0], 2);
        if (!same_ids(json_array_get(want, i), ids + 1, n - 1)) {
            show("opt", (int)i, json_array_get(want, i), ids + 1, n - 1);
            fail();
        }
    }
    json_decref(want);
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
}

static void test_sentencepiece(void **state)
{
    (void)state;
    dir = OWN;
    nm_tok_options o = opt(NOEMA_TOKENIZER_AUTO), slow = o, siglip = opt(NOEMA_TOKENIZER_SIGLIP);
    slow.flavor = NOEMA_FLAVOR_HF4_SLOW;
    siglip.context_length = 16;
    int bad = check("t5", "t5.tokenizer.json", &o, NULL, "t5.jsonl", -1);
    bad += check("t5_slow", "t5.tokenizer.json", &slow, "t5.jsonl", "t5_slow.jsonl", -1);
    bad += check("xlmr", "xlmr.tokenizer.json", &o, NULL, "xlmr.jsonl", -1);
    bad += check("xlmr_slow", "xlmr.tokenizer.json", &slow, "xlmr.jsonl", "xlmr_slow.jsonl", -1);
    const char *const spm[][2] = { { "sentencepiece.bpe.model", OWN "xlmr.sentencepiece.bpe.model" }, { NULL, NULL } };
    const char *const fast[][2] = { { "tokenizer.json", OWN "xlmr.tokenizer.json" }, { NULL, NULL } };
    for (int k = 0; k < 2; k++)
        bad += check_folder("xlmr folder", "{\"tokenizer_class\":\"XLMRobertaTokenizer\"}", k ? spm : fast, &o, "xlmr.jsonl", "xlmr_class.jsonl");
    const char *const t5[][2] = { { "tokenizer.json", OWN "t5.tokenizer.json" }, { NULL, NULL } };
    bad += check_folder("t5 folder", "{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":0,\"model_max_length\":1000000000000000019884624838656}",
                        t5, &o, NULL, "t5.jsonl");
    bad += check("gemma_style", "gemma_style.model", &o, NULL, "gemma_style.jsonl", -1);
    o.kind = NOEMA_TOKENIZER_T5;
    bad += check("t5_spm", "t5.spiece.model", &o, "t5.jsonl", "t5_spm.jsonl", -1);
    o.kind = NOEMA_TOKENIZER_XLMR;
    bad += check("xlmr_spm", "xlmr.sentencepiece.bpe.model", &o, "xlmr.jsonl", "xlmr_spm.jsonl", -1);
    bad += check("siglip_ctx16", "t5.spiece.model", &siglip, NULL, "siglip_ctx16.jsonl", 1);
    assert_int_equal(bad, 0);
}

static void test_clip_hf(void **state)
{
    (void)state;
    if (!have_shared("CLIP, Hugging Face"))
        return;
    dir = SHARED;
    nm_tok_options o = opt(NOEMA_TOKENIZER_OPENAI);
    o.flavor = NOEMA_FLAVOR_HF4_SLOW;
    int bad = check("clip_hf4_slow_ftfy", CLIP_BPE, &o, "clip_openai.jsonl", "clip_hf4_slow_ftfy.jsonl", -1);
    o.flavor = NOEMA_FLAVOR_HF4_SLOW_NO_FTFY;
    bad += check("clip_hf4_slow_noftfy", CLIP_BPE, &o, "clip_openai.jsonl", "clip_hf4_slow_noftfy.jsonl", -1);
    /* the folder's files, made of the merge list */
    noema_error err = NOEMA_ERROR_INIT;
    nm_tokenizer *t;
    assert_int_equal(noema_tokenizer_open(&t, CLIP_BPE, NULL, &err), 0);
    const nm_vocab *v = nm_tok_clip_vocab(t->clip);
    char name[] = "/tmp/noema-clip-XXXXXX", path[256];
    assert_non_null(mkdtemp(name));
    snprintf(path, sizeof path, "%s/vocab.json", name);
    nm_buf b = { 0 };
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n;
        const char *p = nm_vocab_str(v, (int32_t)id, &n);
        nm_buf_puts(&b, id ? "," : "{");
        nm_json_put_str(&b, p, n);
        nm_buf_printf(&b, ":%u", id);
    }
    nm_buf_puts(&b, "}");
    assert_int_equal(nm_write_file_atomic(path, b.data, b.len, &err), 0);
    nm_buf_free(&b);
    noema_tokenizer_free(t);
    snprintf(path, sizeof path, "gzip -dc '%s' | head -48895 > %s/merges.txt", CLIP_BPE, name);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", name);
    write_text(path, "{\"tokenizer_class\":\"CLIPTokenizer\",\"model_max_length\":77,\"bos_token\":\"<|startoftext|>\",\"eos_token\":"
                     "\"<|endoftext|>\",\"unk_token\":\"<|endoftext|>\",\"pad_token\":\"<|endoftext|>\"}");
    o = opt(NOEMA_TOKENIZER_AUTO);
    bad += check("clip_hf_fast", name, &o, NULL, "clip_hf_fast.jsonl", -1);
    o.flavor = NOEMA_FLAVOR_HF4_FAST;
    bad += check("clip_hf4_fast", name, &o, "clip_hf_fast.jsonl", "clip_hf4_fast.jsonl", -1);
    remove_folder(name);
    assert_int_equal(bad, 0);
}

static void test_bert(void **state)
{
    (void)state;
    if (!have_shared("BERT"))
        return;
    dir = SHARED;
    nm_tok_options o = opt(NOEMA_TOKENIZER_AUTO);
    int bad = check("bert_uncased", "bert_uncased.vocab.txt", &o, NULL, "bert_uncased.jsonl", -1);
    const char *const files[][2] = { { "vocab.txt", SHARED "bert_uncased.vocab.txt" }, { NULL, NULL } };
    bad += check_folder("bert folder", "{\"tokenizer_class\":\"BertTokenizer\",\"do_lower_case\":true}", files, &o, NULL,
                        "bert_uncased.jsonl");
    o.flavor = NOEMA_FLAVOR_HF4_SLOW;
    bad += check("bert_uncased_slow", "bert_uncased.vocab.txt", &o, "bert_uncased.jsonl", "bert_uncased_slow.jsonl", -1);
    assert_int_equal(bad, 0);
}

#define GOLDEN NOEMA_SHARED_DIR "/golden/"

typedef struct open_tok { nm_tokenizer *t; nm_tok_scratch *s; } open_tok;

static open_tok open_file(const char *path, const nm_tok_options *o)
{
    noema_error err = NOEMA_ERROR_INIT;
    open_tok x;
    if (noema_tokenizer_open(&x.t, path, o, &err))
        fail_msg("%s", err.message);
    x.s = noema_tokenizer_scratch_new(x.t);
    assert_non_null(x.s);
    return x;
}

static void close_tok(open_tok x)
{
    noema_tokenizer_scratch_free(x.s);
    noema_tokenizer_free(x.t);
}

/* Each case: text -> ids (trailing zeros are padding where `padded`), and ids -> the text under `decoded`. */
static int check_cases(const char *what, open_tok x, const json_t *cases, const char *decoded, bool padded)
{
    noema_error err = NOEMA_ERROR_INIT;
    json_t *v;
    size_t k, n, len;
    int bad = 0;
    json_array_foreach((json_t *)(uintptr_t)cases, k, v) {
        json_t *text = json_object_get(v, "text"), *want = json_object_get(v, "ids");
        const int32_t *ids;
        const char *out;
        if (noema_tokenizer_encode(x.t, x.s, json_string_value(text), json_string_length(text), &ids, &n, &err))
            fail_msg("%s: %s", what, err.message);
        while (padded && json_array_size(want) > n && json_integer_value(json_array_get(want, json_array_size(want) - 1)) == 0)
            json_array_remove(want, json_array_size(want) - 1);
        if (!same_ids(want, ids, n)) {
            show(what, (int)k, want, ids, n);
            bad++;
            continue;
        }
        if (!decoded)
            continue;
        int32_t copy[512];
        assert_true(n <= 512);
        memcpy(copy, ids, n * sizeof *ids);
        assert_int_equal(noema_tokenizer_decode(x.t, x.s, copy, n, 1, &out, &len, &err), 0);
        if (strcmp(out, nm_json_str(v, decoded, "")) != 0) {
            print_error("%s: decode %zu: expected \"%s\", got \"%s\"\n", what, k, nm_json_str(v, decoded, ""), out);
            bad++;
        }
    }
    assert_true(k > 5);
    print_message("%s: %zu cases, %d wrong\n", what, k, bad);
    return bad;
}

static json_t *golden_json(const char *name)
{
    noema_error err = NOEMA_ERROR_INIT;
    char path[8192];
    snprintf(path, sizeof path, "%s%s", GOLDEN, name);
    json_t *j = nm_json_load(path, &err);
    if (!j)
        fail_msg("%s", err.message);
    return j;
}

static void test_models(void **state)
{
    (void)state;
    if (!have_shared("tokenizers of BLIP, BLIP-2, FLIP"))
        return;
    static const char *const extra[] = { "[DEC]", "[ENC]" };
    nm_tok_options o = opt(NOEMA_TOKENIZER_AUTO);
    json_t *blip = golden_json("blip/tokenizer.json"), *blip2 = golden_json("blip2/tokenizers.json"), *flip = golden_json("flip/tokens.json");
    int bad = 0;
    o.extra_tokens = extra, o.n_extra_tokens = 2;
    open_tok x = open_file(GOLDEN "blip/vocab.txt", &o);
    assert_int_equal(noema_tokenizer_token_id(x.t, "[DEC]", 5), 30522);
    assert_int_equal(noema_tokenizer_token_id(x.t, "[ENC]", 5), 30523);
    bad += check_cases("blip", x, nm_json_get(blip, "encode"), "decoded_skip_special", false);
    close_tok(x);
    static const char *const t5[] = { "blip2/lavis/flan_t5", "blip2/hf_t5", "blip2/hf_t5/tokenizer.json" };
    static const char *const gpt[] = { "blip2/lavis/opt", "blip2/hf_opt", "blip2/hf_opt/tokenizer.json" };
    for (int k = 0; k < 6; k++) {
        char path[8192];
        const char *name = k < 3 ? t5[k] : gpt[k - 3];
        snprintf(path, sizeof path, "%s%s", GOLDEN, name);
        x = open_file(path, NULL);
        bad += check_cases(name, x, nm_json_get(nm_json_get(blip2, k < 3 ? "t5" : "opt"), "cases"), "decoded", false);
        close_tok(x);
    }
    o = opt(NOEMA_TOKENIZER_FLIP);
    x = open_file(GOLDEN "flip/vocab_bert_base.txt", &o);
    bad += check_cases("flip", x, nm_json_get(flip, "cases"), NULL, true);
    close_tok(x);
    json_decref(blip), json_decref(blip2), json_decref(flip);
    assert_int_equal(bad, 0);
}

/* GLIP's captions: ids, and the code points that each token stands for. */
static void test_offsets(void **state)
{
    (void)state;
    if (!have_shared("offsets of GLIP's captions"))
        return;
    nm_tok_options o = opt(NOEMA_TOKENIZER_BERT);
    o.context_length = 256;
    open_tok x = open_file(GOLDEN "glip/bert_base_uncased_vocab.txt", &o);
    json_t *all = golden_json("glip/text.json"), *v;
    int n_cases = 0;
    for (int part = 0; part < 2; part++) {
        size_t i, n;
        json_array_foreach(nm_json_get(all, part ? "grounding" : "detection"), i, v) {
            json_t *text = json_object_get(v, "caption"), *want = json_object_get(v, "offsets");
            const int32_t *ids;
            const nm_tok_offset *off;
            noema_error err = NOEMA_ERROR_INIT;
            if (nm_tok_encode_offsets(x.t, x.s, json_string_value(text), json_string_length(text), &ids, &off, &n, &err))
                fail_msg("%s", err.message);
            if (!same_ids(json_object_get(v, "ids"), ids, n)) {
                show("glip", (int)i, json_object_get(v, "ids"), ids, n);
                fail();
            }
            assert_int_equal(json_array_size(want), n);
            for (size_t k = 0; k < n; k++) {
                json_t *w = json_array_get(want, k);
                if (json_integer_value(json_array_get(w, 0)) != off[k].start || json_integer_value(json_array_get(w, 1)) != off[k].end)
                    fail_msg("%s %zu, token %zu: got [%u, %u)", json_string_value(text), i, k, off[k].start, off[k].end);
            }
            n_cases++;
        }
    }
    print_message("glip: %d captions\n", n_cases);
    assert_true(n_cases > 15);
    json_decref(all);
    /* the same ids as without offsets, on every string */
    json_t *s;
    size_t i;
    json_array_foreach(strings, i, s) {
        const int32_t *ids;
        const nm_tok_offset *off;
        int32_t first[4096];
        size_t n, m;
        assert_int_equal(noema_tokenizer_encode(x.t, x.s, json_string_value(s), json_string_length(s), &ids, &n, NULL), 0);
        memcpy(first, ids, n * sizeof *ids);
        assert_int_equal(nm_tok_encode_offsets(x.t, x.s, json_string_value(s), json_string_length(s), &ids, &off, &m, NULL), 0);
        assert_int_equal(n, m);
        assert_memory_equal(first, ids, n * sizeof *ids);
    }
    close_tok(x);
}

static int setup(void **state)
{
    (void)state;
    dir = NOEMA_SOURCE_DIR "/tests/golden/tokenizers/";
    json_t *lines = load_lines("strings.jsonl"), *v;
    size_t k;
    strings = json_array();
    json_array_foreach(lines, k, v)
        json_array_append(strings, json_object_get(v, "text"));
    json_decref(lines);
    return json_array_size(strings) == 300 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(strings);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_clip_openai_details),
        cmocka_unit_test(test_clip_hf),
        cmocka_unit_test(test_bert),
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_opt),
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_offsets),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
