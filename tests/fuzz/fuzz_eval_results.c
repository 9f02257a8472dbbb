/* fuzz_eval_results.c - result and reference files of `noema eval captions`: read, tokenised and measured, or refused. */
#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"
#include "eval/results.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every caption against all captions of its picture. */
static void measure(const nm_id_texts *t)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_caption_set c = { 0 };
    double score[64];
    bool ok = true;
    for (int64_t i = 0; ok && i < t->n_texts && i < 64; i++) {
        ok = nm_captions_add(&c, t->text[i], i % 2 == 0, &err) == NOEMA_OK;
        for (int64_t k = 0; ok && k < t->n_texts && k < 64; k++)
            if (t->owner[k] == t->owner[i])
                ok = nm_captions_reference(&c, t->text[k], i % 2 == 0, &err) == NOEMA_OK;
    }
    nm_cider_options o = { .plain = t->n_texts % 2 == 1 };
    if (ok && nm_cider(&c, &o, score, &err) == NOEMA_OK)
        for (int64_t i = 0; i < c.n; i++) {
            nm_bleu_counts b = { 0 };
            double bleu[4];
            if (nm_bleu_count(&b, &c, i, &err) == NOEMA_OK)
                nm_bleu_score(&b, bleu);
            if (b.match[0] > b.guess[0] || !(nm_rouge_l(&c, i, &err) <= 1.0000001) || score[i] != score[i])
                abort();
        }
    nm_captions_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    json_t *j = nm_json_parse((const char *)data, size, "fuzz", &err);
    nm_id_texts t = { 0 };
    if (j && nm_id_texts_json(&t, j, "fuzz", &err) == NOEMA_OK)
        measure(&t);
    nm_id_texts_free(&t);
    json_decref(j);
    return 0;
}
