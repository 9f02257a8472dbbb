/* test_tokenizers.c - every line of golden/tokenizers: the reference's ids, exactly. The vocabularies and ids that are the
 * project's own are in tests/golden/tokenizers; those with public vocabularies (CLIP, BERT) run when ../shared is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    char path[4096];
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
    char full[4096];
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
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
