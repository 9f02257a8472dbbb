/* hf_folder.c - a folder in Hugging Face layout. tokenizer_config.json names a class; the class decides how the vocabulary
 * files are used (transformers 5: a class with rules of its own takes vocabulary and merges from tokenizer.json and builds the
 * rest itself; the others do what tokenizer.json declares). Everything ends as the object form of a tokenizer.json, which
 * pipe_json.c loads, plus the special tokens that the configuration adds. */
#include <stdlib.h>

#include "base/file.h"
#include "tokenizer/pipe.h"
#include "tokenizer/spm.h"

typedef enum rules { R_AS_DECLARED, R_CLIP, R_BERT, R_GPT2, R_ROBERTA, R_T5, R_XLMR, R_SIGLIP, R_GEMMA, R_SIGLIP2 } rules;

typedef struct folder {
    const char *dir;
    json_t *config, *root, *model_config, *added, *map;
    rules rules;
    bool fast_file; /* tokenizer.json is there */
    noema_error *err;
} folder;

static const struct { const char *name; rules rules; } classes[] = {
    { "CLIPTokenizer", R_CLIP }, { "BertTokenizer", R_BERT }, { "DistilBertTokenizer", R_BERT }, { "BlipTokenizer", R_BERT },
    { "ElectraTokenizer", R_BERT }, { "MobileBertTokenizer", R_BERT }, { "GPT2Tokenizer", R_GPT2 }, { "OPTTokenizer", R_GPT2 },
    { "RobertaTokenizer", R_ROBERTA }, { "BartTokenizer", R_ROBERTA }, { "T5Tokenizer", R_T5 }, { "MT5Tokenizer", R_T5 },
    { "XLMRobertaTokenizer", R_XLMR }, { "SiglipTokenizer", R_SIGLIP }, { "Siglip2Tokenizer", R_SIGLIP2 },
    { "GemmaTokenizer", R_GEMMA },
};
/* Where no class is declared: by config.json's model_type. */
static const struct { const char *type; rules rules; } types[] = {
    { "clip", R_CLIP }, { "xclip", R_CLIP }, { "bert", R_BERT }, { "blip", R_BERT }, { "blip-2", R_GPT2 }, { "opt", R_GPT2 },
    { "gpt2", R_GPT2 }, { "roberta", R_ROBERTA }, { "t5", R_T5 }, { "xlm-roberta", R_XLMR }, { "siglip", R_SIGLIP },
    { "siglip2", R_SIGLIP2 }, { "grounding-dino", R_BERT },
};

static json_t *load(folder *f, const char *name, bool *failed)
{
    char *path = nm_path_join(f->dir, name);
    json_t *j = NULL;
    if (path && nm_file_exists(path)) {
        j = nm_json_load(path, f->err);
        *failed |= j == NULL;
    }
    free(path);
    return j;
}

static bool has_file(const folder *f, const char *name)
{
    char *path = nm_path_join(f->dir, name);
    bool yes = path && nm_file_exists(path);
    free(path);
    return yes;
}

/* A token of the configuration: a string, or an object with "content". */
static const char *token_text(const json_t *v)
{
    return json_is_string(v) ? json_string_value(v) : nm_json_str(v, "content", NULL);
}

/* What a class calls its tokens when the configuration does not say: bos, eos, unk, sep, pad, cls, mask. */
static const char *const roles[] = { "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token" };
enum { N_ROLES = 7 };
static const char *const defaults[][N_ROLES] = {
    [R_AS_DECLARED] = { NULL },
    [R_CLIP] = { "<|startoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, "<|endoftext|>", NULL, NULL },
    [R_BERT] = { NULL, NULL, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]" },
    [R_GPT2] = { "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, NULL, NULL, NULL },
    [R_ROBERTA] = { "<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>" },
    [R_T5] = { NULL, "</s>", "<unk>", NULL, "<pad>", NULL, NULL },
    [R_XLMR] = { "<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>" },
    [R_SIGLIP] = { NULL, "</s>", "<unk>", NULL, "</s>", NULL, NULL },
    [R_GEMMA] = { "<bos>", "<eos>", "<unk>", NULL, "<pad>", NULL, "<mask>" },
    [R_SIGLIP2] = { "<bos>", "<eos>", "<unk>", NULL, "<pad>", NULL, "<mask>" },
};

/* The token of a role (index into roles): tokenizer_config.json, special_tokens_map.json, the class. NULL: none. */
static const char *token(const folder *f, int role)
{
    json_t *v = nm_json_get(f->config, roles[role]);
    if (!v)
        v = nm_json_get(f->map, roles[role]);
    const char *s = token_text(v);
    return s ? s : defaults[f->rules][role];
}
enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK };

static bool is_class(const char *name, const char *want)
{
    size_t n = strlen(want);
    return strncmp(name, want, n) == 0 && (name[n] == 0 || strcmp(name + n, "Fast") == 0);
}

static noema_status find_rules(folder *f)
{
    const char *name = nm_json_str(f->config, "tokenizer_class", nm_json_str(f->model_config, "tokenizer_class", NULL));
    const char *type = nm_json_str(f->model_config, "model_type", "");
    f->rules = R_AS_DECLARED;
    for (size_t k = 0; name && k < sizeof classes / sizeof *classes; k++)
        if (is_class(name, classes[k].name)) {
            f->rules = classes[k].rules;
            if (f->rules == R_GEMMA && strncmp(type, "siglip", 6) == 0)
                f->rules = R_SIGLIP2; /* the hub's declaration leaves the lower case out */
            return NOEMA_OK;
        }
    for (size_t k = 0; !name && k < sizeof types / sizeof *types; k++)
        if (strcmp(type, types[k].type) == 0)
            f->rules = types[k].rules;
    if (f->rules != R_AS_DECLARED || f->fast_file)
        return NOEMA_OK;
    if (name)
        return nm_fail(f->err, NOEMA_E_UNSUPPORTED, "%s: tokenizer class \"%s\" without a tokenizer.json is not supported", f->dir, name);
    f->rules = has_file(f, "vocab.txt") ? R_BERT
               : has_file(f, "merges.txt") ? R_GPT2
               : has_file(f, "sentencepiece.bpe.model") ? R_XLMR
               : has_file(f, "tokenizer.model") ? R_GEMMA
               : R_T5;
    return NOEMA_OK;
}

/* "#version: 0.2", in CLIP's list behind its name. */
static bool is_header(const char *p, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i++)
        if (memcmp(p + i, "#version", 8) == 0)
            return true;
    return false;
}

/* merges.txt: lines "left right" behind an optional header. */
static json_t *load_merges(folder *f)
{
    char *path = nm_path_join(f->dir, "merges.txt"), *data = NULL;
    size_t size;
    json_t *list = NULL;
    if (path && nm_read_file(&data, &size, path, NM_TOK_FILE_LIMIT, f->err) == NOEMA_OK)
        list = json_array();
    for (char *p = data, *lf; list && p < data + size; p = lf + 1) {
        lf = memchr(p, '\n', (size_t)(data + size - p));
        lf = lf ? lf : data + size;
        size_t n = (size_t)(lf - p);
        n -= n && p[n - 1] == '\r';
        if (n == 0 || (p == data && is_header(p, n)))
            continue;
        json_t *s = json_stringn(p, n);
        if (!s || json_array_append_new(list, s)) {
            nm_fail(f->err, NOEMA_E_FORMAT, "%s: expected lines in UTF-8", path);
            json_decref(list);
            list = NULL;
        }
    }
    free(data), free(path);
    return list;
}

static json_t *load_vocab_txt(folder *f)
{
    char *path = nm_path_join(f->dir, "vocab.txt"), *data = NULL;
    size_t size;
    json_t *v = NULL;
    if (path && nm_read_file(&data, &size, path, NM_TOK_FILE_LIMIT, f->err) == NOEMA_OK)
        v = nm_tok_bert_vocab(path, data, size, f->err);
    free(data), free(path);
    return v;
}

/* The SentencePiece file of the folder, or NULL. */
static char *spm_path(const folder *f)
{
    static const char *const names[] = { "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "sentencepiece.model" };
    const char *given = nm_json_str(f->config, "vocab_file", NULL);
    if (given && nm_has_suffix(given, ".model") && !strchr(given, '/') && has_file(f, given))
        return nm_path_join(f->dir, given);
    for (int k = 0; k < 4; k++)
        if (has_file(f, names[k]))
            return nm_path_join(f->dir, names[k]);
    return NULL;
}

static bool base64_into(json_t *o, const char *key, const char *p, size_t n)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    nm_buf b = { 0 };
    if (!nm_buf_reserve(&b, n / 3 * 4 + 8))
        return false;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t w = (uint32_t)(unsigned char)p[i] << 16 | (i + 1 < n ? (uint32_t)(unsigned char)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? (unsigned char)p[i + 2] : 0);
        for (int k = 0; k < 4; k++)
            nm_buf_putc(&b, i + (size_t)k <= n ? alphabet[w >> (18 - 6 * k) & 63] : '=');
    }
    bool ok = !b.failed && json_object_set_new(o, key, json_stringn(b.data, b.len)) == 0;
    nm_buf_free(&b);
    return ok;
}

static void put(json_t *list, const char *s, size_t n, double score)
{
    json_array_append_new(list, json_pack("[s%, f]", s, n, score));
}

/* A unigram model as Rust's Unigram: T5's list is the model's and <extra_id_N>, N falling; XLM-R's puts its four control
 * tokens first and <mask> last (fairseq's order). */
static json_t *unigram_root(folder *f, const nm_tok_spm *m)
{
    json_t *vocab = json_array(), *norm = json_object();
    int32_t skip = f->rules == R_XLMR ? 3 : 0;
    if (skip)
        for (const char *const *s = (const char *const[]){ "<s>", "<pad>", "</s>", "<unk>", NULL }; *s; s++)
            put(vocab, *s, strlen(*s), 0);
    for (int32_t id = skip; id < m->n_pieces; id++) {
        size_t n;
        const char *s = nm_spm_piece(m, id, &n);
        put(vocab, s, n, (double)m->score[id]);
    }
    if (skip)
        put(vocab, "<mask>", 6, 0);
    int64_t extra = f->rules == R_T5 ? nm_json_int(f->config, "extra_ids", 100) : 0;
    for (int64_t k = extra > 1000 ? 1000 : extra; k-- > 0;) {
        char name[32];
        int n = snprintf(name, sizeof name, "<extra_id_%d>", (int)k);
        put(vocab, name, (size_t)n, 0);
    }
    json_object_set_new(norm, "type", json_string("Precompiled"));
    base64_into(norm, "precompiled_charsmap", m->charsmap_blob ? m->charsmap_blob : "", m->charsmap_size);
    /* transformers 4.33's conversion, the release that BLIP-2's authors use (later ones drop trailing white space); XLM-R's
     * class puts its own rules in place of it */
    return json_pack("{s:{s:s, s:o, s:i}, s:{s:s, s:[o, {s:s, s:{s:s}, s:s}]}, s:{s:s, s:s, s:s}, s:{s:s, s:s, s:s}}",
                     "model", "type", "Unigram", "vocab", vocab, "unk_id", skip ? 3 : m->unk_id, "normalizer", "type", "Sequence",
                     "normalizers", norm, "type", "Replace", "pattern", "Regex", " {2,}", "content", " ", "pre_tokenizer", "type",
                     "Metaspace", "replacement", "\xE2\x96\x81", "prepend_scheme", "always", "decoder", "type", "Metaspace",
                     "replacement", "\xE2\x96\x81", "prepend_scheme", "always");
}

/* Builds f->root from the vocabulary files; for a SentencePiece BPE model or SigLIP the tokenizer is a raw model instead. */
static noema_status from_files(folder *f, nm_tokenizer *t, const nm_tok_options *o)
{
    json_t *vocab, *merges;
    if (f->rules == R_BERT && has_file(f, "vocab.txt")) {
        vocab = load_vocab_txt(f);
        if (!vocab)
            return f->err->code;
        f->root = json_pack("{s:{s:s, s:o}}", "model", "type", "WordPiece", "vocab", vocab);
        return f->root ? NOEMA_OK : nm_fail(f->err, NOEMA_E_MEMORY, "%s: out of memory", f->dir);
    }
    if ((f->rules == R_CLIP || f->rules == R_GPT2 || f->rules == R_ROBERTA) && has_file(f, "vocab.json")) {
        bool failed = false;
        vocab = load(f, "vocab.json", &failed);
        merges = vocab ? load_merges(f) : NULL;
        if (!merges) {
            json_decref(vocab);
            return f->err->code ? f->err->code : NOEMA_E_FORMAT;
        }
        f->root = json_pack("{s:{s:s, s:o, s:o}}", "model", "type", "BPE", "vocab", vocab, "merges", merges);
        return f->root ? NOEMA_OK : nm_fail(f->err, NOEMA_E_MEMORY, "%s: out of memory", f->dir);
    }
    char *path = spm_path(f);
    nm_map map;
    if (!path)
        return nm_fail(f->err, NOEMA_E_MISSING, "%s: expected tokenizer.json, vocab.txt, vocab.json with merges.txt or a SentencePiece "
                       ".model, got none of them", f->dir);
    noema_status st = nm_map_file(&map, path, f->err);
    if (st) {
        free(path);
        return st;
    }
    if (f->rules == R_T5 || f->rules == R_XLMR) {
        nm_tok_spm m;
        st = nm_spm_load(&m, path, map.data, map.size, f->err);
        if (!st && m.model_type != NM_SPM_UNIGRAM)
            st = nm_fail(f->err, NOEMA_E_UNSUPPORTED, "%s: expected a unigram model for this tokenizer class", path);
        if (!st && !(f->root = unigram_root(f, &m)))
            st = nm_fail(f->err, NOEMA_E_MEMORY, "%s: out of memory", path);
        nm_spm_free(&m);
    } else {
        nm_tok_options raw = *o;
        raw.kind = f->rules == R_SIGLIP ? NOEMA_TOKENIZER_SIGLIP : NOEMA_TOKENIZER_SPM;
        st = nm_tok_spm_open(t, path, map.data, map.size, &raw, f->err);
        if (!st && f->rules == R_SIGLIP && !o->clean)
            t->clean = nm_json_bool(f->config, "do_lower_case", true) ? NM_CLEAN_SIGLIP : NM_CLEAN_SIGLIP_CASED;
        if (!st && f->rules != R_SIGLIP) {
            t->spm->first = nm_json_bool(f->config, "add_bos_token", f->rules == R_GEMMA) ? t->spm->bos_id : -1;
            t->spm->last = nm_json_bool(f->config, "add_eos_token", f->rules == R_SIGLIP2) ? t->spm->eos_id : -1;
        }
    }
    nm_unmap(&map);
    free(path);
    return st;
}

static void set(json_t *o, const char *key, json_t *v)
{
    json_object_set_new(o, key, v ? v : json_null());
}

static json_t *id_of(const folder *f, const char *tok)
{
    json_t *vocab = nm_json_get(nm_json_get(f->root, "model"), "vocab"), *v, *id = nm_json_get(vocab, tok);
    size_t k;
    if (id)
        return json_incref(id);
    json_array_foreach(nm_json_get(f->root, "added_tokens"), k, v)
        if (strcmp(nm_json_str(v, "content", ""), tok) == 0)
            return json_incref(json_object_get(v, "id"));
    if (json_is_array(vocab))
        json_array_foreach(vocab, k, v) {
            const char *s = json_string_value(json_array_get(v, 0));
            if (s && strcmp(s, tok) == 0)
                return json_integer((json_int_t)k);
        }
    const char *key; /* "added_tokens_decoder": {"12": {"content": …}} */
    json_object_foreach(nm_json_get(f->config, "added_tokens_decoder"), key, v)
        if (strcmp(nm_json_str(v, "content", ""), tok) == 0)
            return json_integer(atoi(key));
    return NULL;
}

/* before / after: token strings around the text, NULL: none. A token without id leaves the template as it is. */
static void set_template(folder *f, const char *before, const char *after)
{
    json_t *single = json_array(), *tokens = json_object();
    const char *part[2] = { before, after };
    for (int k = 0; k < 2; k++) {
        json_t *id = part[k] ? id_of(f, part[k]) : NULL;
        if (k == 1)
            json_array_append_new(single, json_pack("{s:{s:s}}", "Sequence", "id", "A"));
        if (!id)
            continue;
        if (k == 0)
            json_array_append_new(single, json_pack("{s:{s:s}}", "SpecialToken", "id", part[k]));
        else
            json_array_append_new(single, json_pack("{s:{s:s}}", "SpecialToken", "id", part[k]));
        json_object_set_new(tokens, part[k], json_pack("{s:[o]}", "ids", id));
    }
    set(f->root, "post_processor", json_pack("{s:s, s:o, s:o}", "type", "TemplateProcessing", "single", single, "special_tokens", tokens));
}

static json_t *parse(const char *text)
{
    return json_loads(text, 0, NULL);
}

static void clip_rules(folder *f)
{
    json_t *m = nm_json_get(f->root, "model");
    set(m, "end_of_word_suffix", json_string("</w>"));
    set(m, "continuing_subword_prefix", json_string(""));
    set(m, "unk_token", json_string(token(f, UNK)));
    set(m, "fuse_unk", json_false());
    set(f->root, "normalizer", parse("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":"
                                     "{\"Regex\":\"\\\\s+\"},\"content\":\" \"},{\"type\":\"Lowercase\"}]}"));
    set(f->root, "pre_tokenizer",
        parse("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"<\\\\|startoftext\\\\|>|"
              "<\\\\|endoftext\\\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+\"},\"behavior\":"
              "\"Removed\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}"));
    set(f->root, "decoder", parse("{\"type\":\"ByteLevel\"}"));
    set(f->root, "noema.clip_decode", json_true());
    set_template(f, token(f, BOS), token(f, EOS));
}

static void bert_rules(folder *f)
{
    bool lower = nm_json_bool(f->config, "do_lower_case", true);
    json_t *accents = nm_json_get(f->config, "strip_accents");
    set(nm_json_get(f->root, "model"), "unk_token", json_string(token(f, UNK)));
    set(f->root, "normalizer",
        json_pack("{s:s, s:b, s:b, s:b, s:b}", "type", "BertNormalizer", "clean_text", 1, "handle_chinese_chars",
                  nm_json_bool(f->config, "tokenize_chinese_chars", true), "lowercase", lower, "strip_accents",
                  json_is_boolean(accents) ? json_is_true(accents) : lower));
    set(f->root, "pre_tokenizer", parse("{\"type\":\"BertPreTokenizer\"}"));
    set(f->root, "decoder", parse("{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}"));
    set_template(f, token(f, CLS), token(f, SEP));
}

/* add_bos_token, add_eos_token: said explicitly, they replace the file's template. */
static void bos_eos(folder *f, bool bos, bool eos)
{
    if (!nm_json_get(f->config, "add_bos_token") && !nm_json_get(f->config, "add_eos_token") && nm_json_get(f->root, "post_processor"))
        return;
    bos = nm_json_bool(f->config, "add_bos_token", bos), eos = nm_json_bool(f->config, "add_eos_token", eos);
    set_template(f, bos ? token(f, BOS) : NULL, eos ? token(f, EOS) : NULL);
}

static void byte_level_rules(folder *f)
{
    json_t *m = nm_json_get(f->root, "model");
    set(m, "end_of_word_suffix", json_string(""));
    set(m, "continuing_subword_prefix", json_string(""));
    set(m, "unk_token", NULL);
    set(f->root, "pre_tokenizer", json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                                            nm_json_bool(f->config, "add_prefix_space", false), "use_regex", 1));
    set(f->root, "normalizer", NULL);
    set(f->root, "decoder", parse("{\"type\":\"ByteLevel\"}"));
}

static void gemma_rules(folder *f)
{
    json_t *m = nm_json_get(f->root, "model");
    set(m, "fuse_unk", json_true());
    set(m, "byte_fallback", json_true());
    set(m, "unk_token", json_string(token(f, UNK)));
    set(f->root, "pre_tokenizer", parse("{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\"}"));
    set(f->root, "normalizer",
        parse(f->rules == R_SIGLIP2 ? "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},{\"type\":\"Replace\","
                                      "\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]}"
                                    : "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}"));
    set(f->root, "decoder", parse("{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"
                                  "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}"));
    bos_eos(f, false, false);
}

/* The charsmap of the file alone; words by white space, each with U+2581 in front. */
static void xlmr_rules(folder *f)
{
    json_t *norm = nm_json_get(f->root, "normalizer"), *list = nm_json_get(norm, "normalizers"), *v, *map = NULL;
    size_t k;
    if (strcmp(nm_json_str(norm, "type", ""), "Precompiled") == 0)
        map = json_incref(norm);
    json_array_foreach(list, k, v)
        if (!map && strcmp(nm_json_str(v, "type", ""), "Precompiled") == 0)
            map = json_incref(v);
    const char *scheme = nm_json_bool(f->config, "add_prefix_space", true) ? "always" : "never";
    set(f->root, "normalizer", map);
    set(f->root, "pre_tokenizer", json_pack("{s:s, s:[{s:s}, {s:s, s:s, s:s}]}", "type", "Sequence", "pretokenizers", "type",
                                            "WhitespaceSplit", "type", "Metaspace", "replacement", "\xE2\x96\x81", "prepend_scheme", scheme));
    set(f->root, "decoder", json_pack("{s:s, s:s, s:s}", "type", "Metaspace", "replacement", "\xE2\x96\x81", "prepend_scheme", scheme));
    set_template(f, token(f, BOS), token(f, EOS));
}

static void apply_rules(folder *f)
{
    switch (f->rules) {
    case R_CLIP: clip_rules(f); break;
    case R_BERT: bert_rules(f); break;
    case R_GPT2:
        byte_level_rules(f);
        bos_eos(f, false, false);
        break;
    case R_ROBERTA:
        byte_level_rules(f);
        set_template(f, token(f, CLS), token(f, SEP));
        break;
    case R_T5:
        if (!f->fast_file)
            set_template(f, NULL, token(f, EOS));
        break;
    case R_XLMR:
        xlmr_rules(f);
        break;
    case R_SIGLIP: {
        json_t *norm = json_incref(nm_json_get(f->root, "normalizer"));
        set(f->root, "normalizer", norm ? json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "normalizers", "type",
                                                    "noema.Canonicalize", "lowercase",
                                                    nm_json_bool(f->config, "do_lower_case", true), norm)
                                        : json_pack("{s:s, s:b}", "type", "noema.Canonicalize", "lowercase",
                                                    nm_json_bool(f->config, "do_lower_case", true)));
        set_template(f, NULL, token(f, EOS));
        break;
    }
    case R_GEMMA:
    case R_SIGLIP2: gemma_rules(f); break;
    default:
        if (nm_json_get(f->config, "add_bos_token") || nm_json_get(f->config, "add_eos_token"))
            bos_eos(f, false, false);
    }
}

static unsigned flags_of(const json_t *v, bool special)
{
    bool sp = nm_json_bool(v, "special", special);
    return (sp ? NM_T_SPECIAL : 0u) | (nm_json_bool(v, "normalized", !sp) ? NM_T_NORMALIZED : 0u) |
           (nm_json_bool(v, "lstrip", false) ? NM_T_LSTRIP : 0u) | (nm_json_bool(v, "rstrip", false) ? NM_T_RSTRIP : 0u) |
           (nm_json_bool(v, "single_word", false) ? NM_T_SINGLE_WORD : 0u);
}

static noema_status add_one(folder *f, nm_tokenizer *t, const json_t *v, int64_t id, bool special)
{
    const char *s = token_text(v);
    nm_tok_pipe *p = t->pipe;
    if (!s || !*s)
        return NOEMA_OK;
    size_t n = strlen(s);
    if (nm_vocab_find(&p->added_vocab, s, n) >= 0)
        return NOEMA_OK;
    if (id < 0)
        id = nm_pipe_id(p, s, n);
    if (id < 0)
        id = p->max_id + 1;
    if (id >= NM_VOCAB_LIMIT)
        return nm_fail(f->err, NOEMA_E_FORMAT, "%s: added token \"%.60s\": id %lld is out of range", f->dir, s, (long long)id);
    p->max_id = id > p->max_id ? (int32_t)id : p->max_id;
    return nm_pipe_add_token(p, f->dir, s, n, (int32_t)id, json_is_object(v) ? flags_of(v, special) : special ? NM_T_SPECIAL : NM_T_NORMALIZED,
                             f->err);
}

/* Special tokens that only the configuration knows. */
static noema_status add_tokens(folder *f, nm_tokenizer *t)
{
    const char *key;
    json_t *v;
    size_t k;
    noema_status st = NOEMA_OK;
    json_object_foreach(nm_json_get(f->config, "added_tokens_decoder"), key, v) {
        char *end;
        long id = strtol(key, &end, 10);
        if (!st && *end == 0 && id >= 0 && id < NM_VOCAB_LIMIT)
            st = add_one(f, t, v, id, false);
    }
    json_object_foreach(f->added, key, v)
        if (!st && json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < NM_VOCAB_LIMIT) {
            json_t *s = json_string(key);
            st = add_one(f, t, s, json_integer_value(v), true);
            json_decref(s);
        }
    for (k = 0; !st && k < N_ROLES; k++) {
        v = nm_json_get(f->config, roles[k]);
        v = json_incref(v ? v : nm_json_get(f->map, roles[k]));
        if (!v && defaults[f->rules][k] && nm_pipe_id(t->pipe, defaults[f->rules][k], strlen(defaults[f->rules][k])) >= 0)
            v = json_string(defaults[f->rules][k]); /* the class's own token, when the vocabulary has it */
        st = add_one(f, t, v, -1, true);
        json_decref(v);
    }
    json_t *more = nm_json_get(f->config, "additional_special_tokens");
    json_array_foreach(more ? more : nm_json_get(f->config, "extra_special_tokens"), k, v)
        if (!st)
            st = add_one(f, t, v, -1, true);
    if (f->rules == R_T5 && !f->fast_file) { /* the sentinels that unigram_root appended */
        char name[32];
        for (k = 0; !st && k < 1000; k++) {
            snprintf(name, sizeof name, "<extra_id_%d>", (int)k);
            if (nm_pipe_id(t->pipe, name, strlen(name)) < 0)
                break;
            v = json_string(name);
            st = add_one(f, t, v, -1, true);
            json_decref(v);
        }
    }
    if (!st && !nm_pipe_build_added(t))
        st = nm_fail(f->err, NOEMA_E_MEMORY, "%s: out of memory", f->dir);
    return st;
}

static void set_roles(folder *f, nm_tokenizer *t)
{
    int32_t *id[] = { &t->id.bos, &t->id.eos, &t->id.unk, &t->id.sep, &t->id.pad, &t->id.cls, &t->id.mask };
    for (int k = 0; k < N_ROLES; k++) {
        const char *s = token(f, k);
        if (!s)
            continue;
        int32_t v = noema_tokenizer_token_id(t, s, strlen(s));
        *id[k] = v >= 0 ? v : *id[k];
    }
    double max = nm_json_num(f->config, "model_max_length", 0);
    if (max >= 1 && max < 1e6)
        t->context_length = (int)max;
    else if (f->rules == R_SIGLIP && !t->context_length)
        t->context_length = 64;
    if (t->pipe && t->pipe->model != NM_M_BPE)
        t->pipe->clean_text = nm_json_bool(f->config, "clean_up_tokenization_spaces", false);
    t->pad_left = strcmp(nm_json_str(f->config, "padding_side", "right"), "left") == 0;
    if (t->pipe && strcmp(nm_json_str(f->config, "truncation_side", "right"), "left") == 0)
        t->pipe->cut_left = true;
}

/* transformers 4's fast CLIP finds its special strings after lower-casing. */
static void hf4_clip(nm_tokenizer *t)
{
    for (size_t k = 0; k < t->pipe->n_added; k++)
        t->pipe->added[k].normalized = true;
    nm_pipe_build_added(t);
}

static noema_status open_folder(folder *f, nm_tokenizer *t, const nm_tok_options *o)
{
    bool failed = false;
    f->config = load(f, "tokenizer_config.json", &failed);
    f->model_config = load(f, "config.json", &failed);
    f->added = load(f, "added_tokens.json", &failed);
    f->map = load(f, "special_tokens_map.json", &failed);
    f->root = load(f, "tokenizer.json", &failed);
    if (failed)
        return f->err->code ? f->err->code : NOEMA_E_FORMAT;
    f->fast_file = f->root != NULL;
    noema_status st = find_rules(f);
    if (!st && f->rules == R_SIGLIP && f->fast_file) { /* this class reads the SentencePiece file */
        char *path = spm_path(f);
        if (path) {
            json_decref(f->root);
            f->root = NULL;
        }
        free(path);
    }
    if (!st && !f->root)
        st = from_files(f, t, o);
    if (st)
        return st;
    if (f->root) {
        apply_rules(f);
        free(t->name);
        t->name = nm_strdup(nm_json_str(f->config, "tokenizer_class", "tokenizer.json"));
        st = t->name ? nm_tok_pipe_load(t, f->dir, f->root, f->err) : nm_fail(f->err, NOEMA_E_MEMORY, "%s: out of memory", f->dir);
        if (!st)
            st = add_tokens(f, t);
        if (!st && f->rules == R_CLIP && o->flavor == NOEMA_FLAVOR_HF4_FAST)
            hf4_clip(t);
    }
    if (!st && f->rules == R_SIGLIP2 && t->spm && !t->clean)
        t->clean = NM_CLEAN_LOWER_ONLY;
    if (!st)
        set_roles(f, t);
    return st;
}

noema_status nm_tok_folder_open(nm_tokenizer *t, const char *dir, const nm_tok_options *o, noema_error *err)
{
    noema_error own = NOEMA_ERROR_INIT;
    folder f = { .dir = dir, .err = err ? err : &own };
    noema_status st = open_folder(&f, t, o);
    json_decref(f.config), json_decref(f.root), json_decref(f.model_config), json_decref(f.added), json_decref(f.map);
    return st;
}
