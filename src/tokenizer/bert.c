/* bert.c - BERT word lists (vocab.txt: a token per line, its id the line number) as a pipeline: the published uncased model, or
 * FLIP's reading of the same file. */
#include <stdlib.h>

#include "tokenizer/pipe.h"

json_t *nm_tok_bert_vocab(const char *what, const char *data, size_t size, noema_error *err)
{
    json_t *v = json_object();
    size_t id = 0;
    for (const char *p = data, *end = data + size, *lf; v && p < end; p = lf + 1, id++) {
        lf = memchr(p, '\n', (size_t)(end - p));
        lf = lf ? lf : end;
        size_t n = (size_t)(lf - p);
        if (n && p[n - 1] == '\r')
            n--;
        char *key = nm_strndup(p, n);
        json_t *token = json_stringn(p, n); /* refuses what is not UTF-8 */
        bool ok = key && token && n <= 4096 && id < NM_VOCAB_LIMIT && !memchr(p, 0, n) &&
                  json_object_set_new(v, key, json_integer((json_int_t)id)) == 0;
        free(key);
        json_decref(token);
        if (!ok) {
            nm_fail(err, NOEMA_E_FORMAT, "%s: line %zu: expected a token in UTF-8, got %zu bytes", what, id + 1, n);
            json_decref(v);
            return NULL;
        }
        if (lf == end)
            break;
    }
    if (v && json_object_size(v) == 0) {
        nm_fail(err, NOEMA_E_FORMAT, "%s: expected a list of tokens, got an empty file", what);
        json_decref(v);
        return NULL;
    }
    return v;
}

static void add_special(json_t *added, const json_t *vocab, const char *token)
{
    json_t *id = nm_json_get(vocab, token);
    if (id)
        json_array_append_new(added, json_pack("{s:O, s:s, s:b, s:b}", "id", id, "content", token, "special", 1, "normalized", 0));
}

noema_status nm_tok_bert_open(nm_tokenizer *t, const char *what, const char *data, size_t size, const nm_tok_options *o,
                              noema_error *err)
{
    const bool flip = o->kind == NOEMA_TOKENIZER_FLIP;
    json_t *vocab = nm_tok_bert_vocab(what, data, size, err), *cls, *sep, *added = json_array();
    if (!vocab) {
        json_decref(added);
        return err && err->code ? err->code : NOEMA_E_FORMAT;
    }
    t->name = nm_strdup(flip ? "flip" : "bert");
    cls = nm_json_get(vocab, "[CLS]"), sep = nm_json_get(vocab, "[SEP]");
    if (!flip && (!cls || !sep)) {
        json_decref(vocab), json_decref(added);
        return nm_fail(err, NOEMA_E_MISSING, "%s: expected [CLS] and [SEP] in the list", what);
    }
    if (!flip)
        for (const char *const *s = (const char *const[]){ "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", NULL }; *s; s++)
            add_special(added, vocab, *s);
    json_t *root = json_pack("{s:{s:s, s:o, s:i}, s:o}", "model", "type", "WordPiece", "vocab", vocab, "max_input_chars_per_word",
                             100, "added_tokens", added);
    json_t *dec = json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1);
    bool ok = root && dec && t->name && json_object_set_new(root, "decoder", dec) == 0;
    if (ok && !flip)
        ok = json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", "BertNormalizer")) == 0 &&
             json_object_set_new(root, "pre_tokenizer", json_pack("{s:s}", "type", "BertPreTokenizer")) == 0 &&
             json_object_set_new(root, "post_processor", json_pack("{s:s, s:[s,O], s:[s,O]}", "type", "BertProcessing", "sep",
                                                                   "[SEP]", sep, "cls", "[CLS]", cls)) == 0;
    noema_status st = ok ? nm_tok_pipe_load(t, what, root, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    json_decref(root);
    if (st)
        return st;
    t->pipe->flip = flip;
    t->pipe->clean_text = true; /* as the authors' BertTokenizer (slow) decodes */
    if (flip) {
        t->pipe->max_in_bytes = true;
        t->context_length = 32;
    }
    t->id.bos = t->id.cls, t->id.eos = t->id.sep;
    return NOEMA_OK;
}
