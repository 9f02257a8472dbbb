/* sentence.c - sentence embeddings by BERT-like encoders in sentence-transformers folders (or plain transformers folders, then
 * with the mean over tokens): modules.json, N_Pooling/config.json, sentence_bert_config.json.
 *
 *     ids -> encoder -> mean over all tokens | first token -> (unit length) */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/bert.h"
#include "models/clip.h"

typedef struct nm_sentence {
    nm_model base;
    nm_bert_cfg cfg;
    nm_bert_w w;
    nm_bert_pool pool;
    bool normalize;  /* the folder's last module */
    char prefix[16]; /* of the names: "", "bert.", "roberta.", "mpnet." */
    bool old_names;
} nm_sentence;

static const char *const prefixes[] = { "", "bert.", "roberta.", "mpnet.", "model." };

/* Index into prefixes of the one that the file uses; -1: these are no encoder's names. */
static int find_prefix(const nm_source *s)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        char name[96];
        snprintf(name, sizeof name, "%sembeddings.word_embeddings.weight", prefixes[i]);
        if (nm_source_has(s, name))
            return (int)i;
    }
    return -1;
}

static int sentence_probe(const nm_source *s)
{
    static const char *const types[] = { "bert", "roberta", "xlm-roberta", "camembert", "mpnet" };
    const char *type = nm_json_str(s->config, "model_type", "");
    if (find_prefix(s) < 0)
        return 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0)
            return 60;
    return type[0] ? 0 : 20;
}

static void sentence_params(nm_params *p, void *model)
{
    nm_sentence *m = model;
    size_t mark = nm_params_push(p, (nm_names){ { m->prefix, m->prefix } }, 0);
    nm_bert_params(p, &m->w, &m->cfg);
    nm_params_pop(p, mark);
}

static void sentence_free(nm_model *base)
{
    nm_sentence *m = (nm_sentence *)base;
    if (!m)
        return;
    if (m->w.layers_w)
        nm_params_free(sentence_params, m);
    nm_bert_free(&m->w);
    free(m->base.tok_path);
    nm_buf_free(&m->base.report.text);
    free(m);
}

static noema_status encoder_config(nm_sentence *m, const nm_source *s, noema_error *err)
{
    const json_t *j = s->config;
    const char *type = nm_json_str(j, "model_type", "bert");
    char word[128];
    snprintf(word, sizeof word, "%sembeddings.word_embeddings.weight", m->prefix);
    nm_bert_cfg *c = &m->cfg;
    c->roberta_positions = strstr(type, "roberta") || strcmp(type, "camembert") == 0 || strcmp(type, "mpnet") == 0;
    c->mpnet = strcmp(type, "mpnet") == 0;
    c->width = (int)nm_source_dim(s, word, 1);
    c->vocab_size = (int)nm_source_dim(s, word, 0);
    c->layers = (int)nm_json_int(j, "num_hidden_layers", 12);
    c->heads = (int)nm_json_int(j, "num_attention_heads", 12);
    c->mlp = (int)nm_json_int(j, "intermediate_size", 3072);
    c->max_positions = (int)nm_json_int(j, "max_position_embeddings", c->roberta_positions ? 514 : 512);
    c->type_vocab = c->mpnet ? 0 : (int)nm_json_int(j, "type_vocab_size", 2);
    c->pad_id = (int)nm_json_int(j, "pad_token_id", c->roberta_positions ? 1 : 0);
    c->eps = (float)nm_json_num(j, "layer_norm_eps", 1e-12);
    c->bias_buckets = (int)nm_json_int(j, "relative_attention_num_buckets", 32);
    const char *kind = nm_json_str(j, "position_embedding_type", "absolute");
    if (strcmp(kind, "absolute") != 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: position_embedding_type \"%s\" is not supported", s->name, kind);
    if (!nm_act_from_name(nm_json_str(j, "hidden_act", "gelu"), &c->act))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not supported", s->name, nm_json_str(j, "hidden_act", ""));
    if (c->width < 1 || c->vocab_size < 1 || c->layers < 1 || c->layers > 1024 || c->heads < 1 || c->width % c->heads || c->mlp < 1 || c->mlp > 1 << 18 ||
        c->max_positions < 4 || c->type_vocab < 0 || c->bias_buckets < 4 || c->bias_buckets > 4096)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: width %d, %d layers, %d heads, %d positions make no encoder", s->name, c->width, c->layers,
                       c->heads, c->max_positions);
    return NOEMA_OK;
}

static json_t *load_json(const char *dir, const char *sub, const char *file, noema_status *st, noema_error *err)
{
    char *folder = nm_path_join(dir, sub), *path = folder ? nm_path_join(folder, file) : NULL;
    json_t *j = NULL;
    if (path && nm_file_exists(path) && !(j = nm_json_load(path, err)))
        *st = err ? err->code : NOEMA_E_FORMAT;
    free(folder);
    free(path);
    return j;
}

static noema_status pooling_config(nm_sentence *m, const nm_source *s, const char *folder, noema_error *err)
{
    noema_status st = NOEMA_OK;
    if (strstr(folder, "..") || folder[0] == '/')
        return nm_fail(err, NOEMA_E_FORMAT, "%s: modules.json: path \"%s\"", s->name, folder);
    json_t *j = load_json(s->dir, folder, "config.json", &st, err);
    const char *mode = nm_json_str(j, "pooling_mode", "");
    if (nm_json_bool(j, "pooling_mode_cls_token", false) || strcmp(mode, "cls") == 0)
        m->pool = NM_BERT_CLS;
    else if (st == NOEMA_OK && j && !nm_json_bool(j, "pooling_mode_mean_tokens", mode[0] == 0) && strcmp(mode, "mean") != 0)
        st = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: of the pooling modes the mean over tokens and the first token are supported", s->name);
    json_decref(j);
    return st;
}

/* modules.json: Transformer, Pooling, Normalize in this order. */
static noema_status modules_config(nm_sentence *m, const nm_source *s, noema_error *err)
{
    noema_status st = NOEMA_OK;
    json_t *modules = load_json(s->dir, ".", "modules.json", &st, err);
    for (size_t i = 0; st == NOEMA_OK && i < json_array_size(modules); i++) {
        const json_t *e = json_array_get(modules, i);
        const char *type = nm_json_str(e, "type", ""), *dot = strrchr(type, '.'), *kind = dot ? dot + 1 : type;
        if (strcmp(kind, "Pooling") == 0)
            st = pooling_config(m, s, nm_json_str(e, "path", "1_Pooling"), err);
        else if (strcmp(kind, "Normalize") == 0)
            m->normalize = true;
        else if (strcmp(kind, "Transformer") != 0)
            st = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: modules.json: module \"%s\" is not supported", s->name, kind);
    }
    json_decref(modules);
    return st;
}

/* The limit of sentence-transformers: its own file, else the tokenizer's, never more than there are positions. */
static noema_status length_config(nm_sentence *m, const nm_source *s, noema_error *err)
{
    noema_status st = NOEMA_OK;
    int64_t most = m->cfg.max_positions - (m->cfg.roberta_positions ? m->cfg.pad_id + 1 : 0), limit = most;
    json_t *own = load_json(s->dir, ".", "sentence_bert_config.json", &st, err);
    json_t *tok = st == NOEMA_OK ? load_json(s->dir, ".", "tokenizer_config.json", &st, err) : NULL;
    limit = (int64_t)nm_json_num(tok, "model_max_length", (double)limit) < most ? nm_json_int(tok, "model_max_length", limit) : limit;
    limit = nm_json_int(own, "max_seq_length", limit);
    json_decref(own);
    json_decref(tok);
    m->base.context_length = (int)(limit < 3 || limit > most ? most : limit);
    return st;
}

static noema_status sentence_open(nm_model **out, const nm_source *s, noema_error *err)
{
    static const char *const ignore[] = { "embeddings.position_ids", "bert.embeddings.position_ids", "roberta.embeddings.position_ids", "pooler.*",
                                          "bert.pooler.*", "roberta.pooler.*", "mpnet.pooler.*", "cls.*", "lm_head.*", NULL };
    nm_sentence *m = calloc(1, sizeof *m);
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    m->base.family = &nm_family_sentence;
    snprintf(m->prefix, sizeof m->prefix, "%s", prefixes[find_prefix(s)]);
    char old[64];
    snprintf(old, sizeof old, "%sembeddings.LayerNorm.gamma", m->prefix);
    noema_status st = s->config ? encoder_config(m, s, err)
                                : nm_fail(err, NOEMA_E_MISSING, "%s: the number of heads stands in config.json: give it with --config", s->name);
    if (st == NOEMA_OK)
        st = modules_config(m, s, err);
    if (st == NOEMA_OK)
        st = length_config(m, s, err);
    if (st == NOEMA_OK && !nm_bert_alloc(&m->w, &m->cfg))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (st == NOEMA_OK)
        st = nm_params_load(sentence_params, m, nm_source_has(s, old) ? NM_BERT_OLD_NAMES : NM_BERT_NAMES, s->file, "", ignore, &m->base.report, err);
    if (st != NOEMA_OK) {
        sentence_free(&m->base);
        return st;
    }
    m->base.embed_dim = m->cfg.width;
    m->base.has_text = true;
    m->base.logit_scale = 1;
    m->base.tok = noema_tokenizer_options_default();
    m->base.tok.context_length = m->base.context_length;
    *out = &m->base;
    return NOEMA_OK;
}

static nm_tensor sentence_encode(nm_run *r, const nm_model *base, const nm_texts *texts)
{
    const nm_sentence *m = (const nm_sentence *)base;
    nm_bert_rows l;
    if (!nm_run_ok(r) || !nm_bert_layout(r, &l, texts, &m->cfg, r->observe ? m->base.context_length : 0))
        return (nm_tensor){ 0 };
    nm_tensor x = nm_bert_encode(r, &m->w, &m->cfg, &l);
    x = m->pool == NM_BERT_CLS ? nm_bert_first(r, x, &l) : nm_bert_mean(r, x, &l);
    return m->normalize ? nm_normalize(r, x, 1e-12f) : x;
}

const nm_family nm_family_sentence = { .name = "bert", .probe = sentence_probe, .open = sentence_open, .encode_text = sentence_encode,
                                       .declare = sentence_params, .save_scheme = NM_BERT_NAMES, .free = sentence_free };
