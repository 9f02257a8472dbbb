/* spm.c - SentencePiece encoding (src/normalizer.cc, unigram_model.cc, bpe_model.cc, sentencepiece_processor.cc of
 * google/sentencepiece, Apache-2.0, re-implemented) and the id conventions that models put on top of it. */
#include "tokenizer/spm.h"

#include <stdlib.h>

#include "base/utf8.h"

#define SPACE "\xE2\x96\x81" /* U+2581 */

/* One step of the normaliser: what stands at text maps to *to[0..*n_to). Returns the bytes consumed. */
static size_t normal_prefix(const nm_tok_spm *m, const char *text, size_t n, const char **to, size_t *n_to)
{
    int32_t id;
    size_t k = nm_trie_longest(&m->user, text, n, &id);
    *to = text;
    if (k)
        return *n_to = k;
    k = nm_charsmap_find(&m->map, text, n, false, to);
    if (k) {
        *n_to = strlen(*to);
        return k;
    }
    uint32_t c;
    *to = text;
    return *n_to = (size_t)nm_utf8_decode(text, n, &c);
}

static bool ends_with(const nm_buf *b, const char *s, size_t n)
{
    return b->len >= n && memcmp(b->data + b->len - n, s, n) == 0;
}

/* Normalises into s->word. */
static bool normalize(const nm_tok_spm *m, nm_buf *out, const char *text, size_t n)
{
    const char *space = m->escape ? SPACE : " ", *to;
    const size_t n_space = m->escape ? 3 : 1;
    size_t i = 0, k, n_to;
    out->len = 0;
    if (!nm_buf_reserve(out, n + n / 2 + 16))
        return false;
    if (m->remove_extra)
        for (; i < n; i += k) {
            k = normal_prefix(m, text + i, n - i, &to, &n_to);
            if (n_to != 1 || *to != ' ')
                break;
        }
    if (i == n)
        return true;
    if (!m->suffix && m->dummy_prefix)
        nm_buf_append(out, space, n_space);
    bool after_space = m->remove_extra;
    for (; i < n; i += k) {
        k = normal_prefix(m, text + i, n - i, &to, &n_to);
        while (after_space && n_to && *to == ' ')
            to++, n_to--;
        if (!n_to)
            continue;
        for (size_t j = 0; j < n_to; j++) {
            if (to[j] == ' ')
                nm_buf_append(out, space, n_space);
            else
                nm_buf_putc(out, to[j]);
        }
        after_space = m->remove_extra && to[n_to - 1] == ' ';
    }
    while (m->remove_extra && ends_with(out, space, n_space))
        out->len -= n_space;
    if (m->suffix && m->dummy_prefix)
        nm_buf_append(out, space, n_space);
    return !out->failed;
}

/* A part of the text that no piece covers: its bytes, or one unknown id for a whole run of such parts. */
void nm_spm_put_unknown(const nm_tok_spm *m, nm_tok_scratch *s, const char *text, size_t n, bool *after_unk)
{
    if (m->byte_fallback) {
        for (size_t i = 0; i < n; i++)
            nm_tok_put(s, m->byte_id[(unsigned char)text[i]]);
    } else if (!*after_unk) {
        nm_tok_put(s, m->unk_id);
    }
    *after_unk = true;
}

noema_status nm_spm_encode_raw(const nm_tok_spm *m, nm_tok_scratch *s, const char *text, size_t n, noema_error *err)
{
    if (!normalize(m, &s->word, text, n))
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    const char *p = s->word.data;
    size_t len = s->word.len;
    if (m->model_type == NM_SPM_BPE)
        return nm_spm_bpe(m, s, p, len) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    nm_tok_piece *pc;
    size_t k;
    bool after_unk = false;
    if (!nm_unigram_encode(&m->uni, s, p, len, &pc, &k))
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    for (size_t i = 0; i < k; i++) {
        if (pc[i].id == m->unk_id) {
            nm_spm_put_unknown(m, s, p + pc[i].start, pc[i].end - pc[i].start, &after_unk);
            continue;
        }
        nm_tok_put(s, pc[i].id);
        after_unk = false;
    }
    return NOEMA_OK;
}

noema_status nm_tok_spm_encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err)
{
    const nm_tok_spm *m = t->spm;
    if (m->first >= 0)
        nm_tok_put(s, m->first);
    size_t at = s->n_ids, keep = (size_t)(m->last >= 0);
    noema_status st = nm_spm_encode_raw(m, s, text, n, err);
    if (st)
        return st;
    for (size_t i = at; i < s->n_ids && (m->shift || m->unk_to != m->unk_id); i++)
        s->ids[i] = s->ids[i] == m->unk_id ? m->unk_to : s->ids[i] + m->shift;
    s->full_length = s->n_ids + keep;
    if (t->context_length && s->full_length > (size_t)t->context_length)
        s->n_ids = (size_t)t->context_length > keep ? (size_t)t->context_length - keep : 0;
    if (keep)
        nm_tok_put(s, m->last);
    return NOEMA_OK;
}

/* Back to a piece of the model, or -1 for an id that only the convention knows. */
static int32_t unshift(const nm_tok_spm *m, int32_t id)
{
    if (!m->shift)
        return id >= 0 && id < m->n_pieces ? id : -1;
    if (id == m->unk_to)
        return m->unk_id;
    return id > m->unk_to && id - m->shift < m->n_pieces ? id - m->shift : -1;
}

noema_status nm_tok_spm_decode(const nm_tokenizer *t, nm_tok_scratch *s, const int32_t *ids, size_t n, bool skip,
                               noema_error *err)
{
    const nm_tok_spm *m = t->spm;
    (void)skip; /* control pieces have no surface in SentencePiece */
    bool begin = true;
    s->text.len = 0;
    for (size_t k = 0; k < n; k++) {
        int32_t id = unshift(m, ids[k]);
        size_t len;
        if (id < 0 && (ids[k] < 0 || ids[k] >= m->vocab_size))
            return nm_fail(err, NOEMA_E_ARGUMENT, "id %d: expected 0..%d", (int)ids[k], (int)m->vocab_size - 1);
        if (id < 0 || m->type[id] == NM_SPM_CONTROL)
            continue;
        const char *p = nm_spm_piece(m, id, &len);
        if (m->type[id] == NM_SPM_UNKNOWN) {
            nm_buf_puts(&s->text, " \xE2\x81\x87 "); /* SentencePiece's default surface, U+2047 between spaces */
        } else if (m->type[id] == NM_SPM_BYTE && nm_byte_piece(p, len) >= 0) {
            nm_buf_putc(&s->text, (char)nm_byte_piece(p, len));
        } else {
            for (size_t i = 0; i < len;) {
                if (len - i >= 3 && memcmp(p + i, SPACE, 3) == 0) {
                    if (!(begin && i == 0 && (m->dummy_prefix || m->remove_extra)))
                        nm_buf_putc(&s->text, ' ');
                    i += 3;
                } else {
                    nm_buf_putc(&s->text, p[i++]);
                }
            }
        }
        begin = false;
    }
    return s->text.failed ? nm_fail(err, NOEMA_E_MEMORY, "decoding %zu ids: out of memory", n) : NOEMA_OK;
}

int32_t nm_tok_spm_id(const nm_tok_spm *m, const char *s, size_t n)
{
    static const struct { const char *s; int id; } xlmr[] = { { "<s>", 0 }, { "<pad>", 1 }, { "</s>", 2 }, { "<unk>", 3 } };
    for (int k = 0; m->shift && k < 4; k++)
        if (strlen(xlmr[k].s) == n && memcmp(xlmr[k].s, s, n) == 0)
            return xlmr[k].id;
    if (m->shift && n == 6 && memcmp(s, "<mask>", 6) == 0)
        return m->vocab_size - 1;
    int32_t id = nm_vocab_find(&m->reserved, s, n);
    if (id < 0)
        id = nm_vocab_find(&m->vocab, s, n);
    return id < 0 ? -1 : id + m->shift;
}

static void set_convention(nm_tokenizer *t, const nm_tok_options *o)
{
    nm_tok_spm *m = t->spm;
    m->unk_to = m->unk_id, m->first = m->last = -1;
    t->id.unk = m->unk_id, t->id.bos = m->bos_id, t->id.eos = m->eos_id, t->id.pad = m->pad_id;
    switch (o->kind) {
    case NOEMA_TOKENIZER_T5:
        m->last = m->eos_id;
        break;
    case NOEMA_TOKENIZER_SIGLIP:
        m->last = m->eos_id, t->id.pad = m->eos_id; /* pad = eos = 1 in the published vocabularies */
        t->clean = o->clean ? (int)o->clean : NOEMA_CLEAN_CANONICALIZE;
        t->context_length = o->context_length ? o->context_length : 64;
        break;
    case NOEMA_TOKENIZER_XLMR:
        m->shift = 1, m->unk_to = 3, m->first = 0, m->last = 2;
        m->vocab_size = m->n_pieces + 2;
        t->id = (noema_tokenizer_ids){ 0, 2, 1, 3, 0, 2, m->vocab_size - 1, -1 };
        break;
    default: break;
    }
}

noema_status nm_tok_spm_open(nm_tokenizer *t, const char *what, const unsigned char *data, size_t size, const nm_tok_options *o,
                             noema_error *err)
{
    static const char *const names[] = { [NOEMA_TOKENIZER_T5] = "t5", [NOEMA_TOKENIZER_XLMR] = "xlm-roberta",
                                         [NOEMA_TOKENIZER_SIGLIP] = "siglip" };
    const char *name = o->kind >= NOEMA_TOKENIZER_T5 && o->kind <= NOEMA_TOKENIZER_SIGLIP ? names[o->kind] : "sentencepiece";
    t->spm = calloc(1, sizeof *t->spm);
    t->name = nm_strdup(name);
    if (!t->spm || !t->name)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    noema_status st = nm_spm_load(t->spm, what, data, size, err);
    if (st)
        return st;
    t->spm->charsmap_blob = NULL;
    t->clean = (int)o->clean;
    t->context_length = o->context_length;
    set_convention(t, o);
    return NOEMA_OK;
}
