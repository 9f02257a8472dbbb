/* spm_file.c - reads SentencePiece's ModelProto (sentencepiece_model.proto, Apache-2.0) with a protobuf reader of its own:
 * only the fields that encoding needs, each length checked, nothing trusted. */
#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/spm.h"

typedef struct pb { const unsigned char *p, *end; } pb;

/* Next field of a message: number and wire type; a length-delimited value in *sub, a scalar in *v. 0: end, -1: damaged. */
static int next_field(pb *m, int *wire, uint64_t *v, pb *sub)
{
    uint64_t key = 0;
    for (int pass = 0; pass < 2; pass++) {
        uint64_t x = 0;
        int shift = 0;
        if (pass == 0 && m->p == m->end)
            return 0;
        if (pass == 1) {
            *wire = (int)(key & 7);
            if (*wire == 1 || *wire == 5) {
                size_t n = *wire == 1 ? 8 : 4;
                if ((size_t)(m->end - m->p) < n)
                    return -1;
                for (size_t i = 0; i < n; i++)
                    x |= (uint64_t)m->p[i] << 8 * i;
                m->p += n;
                *v = x;
                break;
            }
            if (*wire != 0 && *wire != 2)
                return -1;
        }
        for (;; shift += 7) {
            if (m->p == m->end || shift > 63)
                return -1;
            x |= (uint64_t)(*m->p & 0x7F) << shift;
            if (!(*m->p++ & 0x80))
                break;
        }
        if (pass == 0) {
            key = x;
            continue;
        }
        *v = x;
        if (*wire == 2) {
            if (x > (uint64_t)(m->end - m->p))
                return -1;
            *sub = (pb){ m->p, m->p + x };
            m->p += x;
        }
    }
    return key >> 3 > 0 && key >> 3 < 1 << 29 ? (int)(key >> 3) : -1;
}

static bool count_pieces(pb m, int32_t *n)
{
    int f, wire;
    uint64_t v;
    pb sub;
    *n = 0;
    while ((f = next_field(&m, &wire, &v, &sub)) > 0)
        if (f == 1 && wire == 2 && ++*n > NM_VOCAB_LIMIT)
            return false;
    return f == 0;
}

static bool parse_trainer(nm_tok_spm *m, pb p)
{
    int f, wire;
    uint64_t v;
    pb sub;
    while ((f = next_field(&p, &wire, &v, &sub)) > 0) {
        if (wire != 0)
            continue;
        switch (f) {
        case 3: m->model_type = (int)v; break;
        case 24: m->suffix = v != 0; break;
        case 35: m->byte_fallback = v != 0; break;
        case 40: m->unk_id = (int32_t)v; break;
        case 41: m->bos_id = (int32_t)v; break;
        case 42: m->eos_id = (int32_t)v; break;
        case 43: m->pad_id = (int32_t)v; break;
        }
    }
    return f == 0;
}

static bool parse_normalizer(nm_tok_spm *m, pb p)
{
    int f, wire;
    uint64_t v;
    pb sub;
    while ((f = next_field(&p, &wire, &v, &sub)) > 0) {
        if (f == 2 && wire == 2) {
            m->charsmap_blob = (const char *)sub.p;
            m->charsmap_size = (size_t)(sub.end - sub.p);
        } else if (wire == 0 && f == 3) {
            m->dummy_prefix = v != 0;
        } else if (wire == 0 && f == 4) {
            m->remove_extra = v != 0;
        } else if (wire == 0 && f == 5) {
            m->escape = v != 0;
        }
    }
    return f == 0;
}

static noema_status add_piece(nm_tok_spm *m, const char *what, int32_t id, pb p, noema_error *err)
{
    int f, wire;
    uint64_t v;
    pb sub, text = { NULL, NULL };
    float score = 0;
    uint64_t type = NM_SPM_NORMAL;
    while ((f = next_field(&p, &wire, &v, &sub)) > 0) {
        uint32_t bits = (uint32_t)v;
        if (f == 1 && wire == 2)
            text = sub;
        else if (f == 2 && wire == 5)
            memcpy(&score, &bits, 4);
        else if (f == 3 && wire == 0)
            type = v;
    }
    size_t n = (size_t)(text.end - text.p);
    const char *s = (const char *)text.p;
    if (f < 0 || n == 0 || n > 4096 || type < 1 || type > 6 || !nm_utf8_valid(s, n) || !(score > -1e30f && score < 1e30f))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: piece %d: expected a string, a score and a type 1..6, got %zu bytes, %g, %llu", what,
                       (int)id, n, (double)score, (unsigned long long)type);
    bool is_text = type == NM_SPM_NORMAL || type == NM_SPM_USER || type == NM_SPM_UNUSED;
    nm_vocab *v1 = is_text ? &m->vocab : &m->reserved;
    if (nm_vocab_find(v1, s, n) >= 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: piece %d: \"%.*s\" is defined twice", what, (int)id, n > 60 ? 60 : (int)n, s);
    if (!nm_vocab_set(v1, (uint32_t)id, s, n))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    m->score[id] = score, m->type[id] = (uint8_t)type;
    int byte = type == NM_SPM_BYTE ? nm_byte_piece(s, n) : -1;
    if (byte >= 0)
        m->byte_id[byte] = id;
    return NOEMA_OK;
}

/* The tries: text pieces for Unigram, user-defined symbols for both models. */
static bool build_tries(nm_tok_spm *m)
{
    nm_trie_key *keys = nm_malloc_array((size_t)m->n_pieces + 1, sizeof *keys);
    size_t n = 0, len;
    bool ok = keys != NULL;
    for (int32_t id = 0; ok && id < m->n_pieces; id++)
        if (m->type[id] == NM_SPM_USER) {
            const char *s = nm_spm_piece(m, id, &len);
            keys[n++] = (nm_trie_key){ s, (uint32_t)len, id };
        }
    ok = ok && (n == 0 || nm_trie_build(&m->user, keys, n));
    if (ok && m->model_type == NM_SPM_UNIGRAM) {
        nm_unigram *u = &m->uni;
        u->score = nm_malloc_array((size_t)m->n_pieces, sizeof *u->score);
        u->user = calloc((size_t)m->n_pieces, 1);
        ok = u->score && u->user;
        u->f32 = true, u->unk_id = m->unk_id;
        u->min_score = 3.4e38, u->max_score = -3.4e38;
        n = 0;
        for (int32_t id = 0; ok && id < m->n_pieces; id++) {
            u->score[id] = m->score[id];
            u->user[id] = m->type[id] == NM_SPM_USER;
            if (m->type[id] == NM_SPM_NORMAL) {
                u->min_score = m->score[id] < u->min_score ? m->score[id] : u->min_score;
                u->max_score = m->score[id] > u->max_score ? m->score[id] : u->max_score;
            }
            if (m->type[id] == NM_SPM_NORMAL || m->type[id] == NM_SPM_USER) {
                const char *s = nm_spm_piece(m, id, &len);
                keys[n++] = (nm_trie_key){ s, (uint32_t)len, id };
            }
        }
        ok = ok && nm_trie_build(&u->trie, keys, n);
    }
    free(keys);
    return ok;
}

static noema_status parse(nm_tok_spm *m, const char *what, pb file, noema_error *err)
{
    int f, wire;
    uint64_t v;
    pb sub;
    int32_t id = 0;
    while ((f = next_field(&file, &wire, &v, &sub)) > 0) {
        if (wire != 2)
            continue;
        noema_status st = NOEMA_OK;
        if (f == 1)
            st = add_piece(m, what, id++, sub, err);
        else if ((f == 2 && !parse_trainer(m, sub)) || (f == 3 && !parse_normalizer(m, sub)))
            st = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a SentencePiece model, got a damaged %s", what,
                         f == 2 ? "trainer spec" : "normalizer spec");
        if (st)
            return st;
    }
    if (m->model_type != NM_SPM_UNIGRAM && m->model_type != NM_SPM_BPE)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: SentencePiece model type %d: only unigram (1) and BPE (2) are read", what,
                       m->model_type);
    if (m->unk_id < 0 || m->unk_id >= m->n_pieces || m->type[m->unk_id] != NM_SPM_UNKNOWN)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected the unknown piece at id %d", what, (int)m->unk_id);
    for (int b = 0; m->byte_fallback && b < 256; b++)
        if (m->byte_id[b] < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: byte fallback is on, but the piece of byte 0x%02X is missing", what, (unsigned)b);
    return NOEMA_OK;
}

noema_status nm_spm_load(nm_tok_spm *m, const char *what, const unsigned char *data, size_t size, noema_error *err)
{
    pb file = { data, data + size };
    *m = (nm_tok_spm){ .model_type = NM_SPM_UNIGRAM, .dummy_prefix = true, .remove_extra = true, .escape = true,
                       .unk_id = 0, .bos_id = 1, .eos_id = 2, .pad_id = -1 };
    memset(m->byte_id, 0xFF, sizeof m->byte_id);
    if (!count_pieces(file, &m->n_pieces) || m->n_pieces == 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a SentencePiece model, got %zu bytes that are none", what, size);
    m->score = nm_malloc_array((size_t)m->n_pieces, sizeof *m->score);
    m->type = calloc((size_t)m->n_pieces, 1);
    if (!m->score || !m->type)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    noema_status st = parse(m, what, file, err);
    if (!st)
        st = nm_charsmap_load(&m->map, m->charsmap_blob, m->charsmap_size, what, err);
    if (!st && !build_tries(m))
        st = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    m->vocab_size = m->n_pieces;
    return st;
}

void nm_spm_free(nm_tok_spm *m)
{
    if (!m)
        return;
    nm_vocab_free(&m->vocab), nm_vocab_free(&m->reserved);
    free(m->score), free(m->type);
    nm_charsmap_free(&m->map);
    nm_unigram_free(&m->uni);
    nm_trie_free(&m->user);
}

const char *nm_spm_piece(const nm_tok_spm *m, int32_t id, size_t *n)
{
    return nm_vocab_str(nm_vocab_has(&m->vocab, id) ? &m->vocab : &m->reserved, id, n);
}

int32_t nm_spm_find(const nm_tok_spm *m, const char *s, size_t n)
{
    int32_t id = nm_vocab_find(&m->reserved, s, n);
    if (id < 0)
        id = nm_vocab_find(&m->vocab, s, n);
    return id < 0 ? m->unk_id : id;
}
