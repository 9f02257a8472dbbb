/* answers.h - accuracy of short answers (specs/evaluation.md, section 6), and the clean-up of texts that BLIP's authors apply. */
#ifndef NM_EVAL_ANSWERS_H
#define NM_EVAL_ANSWERS_H

#include "base/err.h"
#include "base/mem.h"

/* Line ends and tabs as blanks, outer white space dropped; appended to b. */
bool nm_vqa_trim(nm_buf *b, const char *text);
/* A trimmed answer as the official evaluation compares it: punctuation, numbers as digits, articles, contractions. */
bool nm_vqa_normalise(nm_buf *b, const char *text);
/* Mean over the n answers of min(1, how many of the others equal the prediction / 3), with normalisation where the answers differ. */
noema_status nm_vqa_accuracy(double *accuracy, const char *prediction, size_t n, const char *const *answers, noema_error *err);

/* BLIP's pre_caption and pre_question: lower case, . ! " ( ) * # : ; ~ dropped (a blank in captions), at most `words` words. */
bool nm_blip_text(nm_buf *b, const char *text, bool question, int words);

#endif
