/* regex.h - the regular expressions of tokenizer.json files: a small backtracking matcher over code points (Oniguruma's
 * meaning of the subset that tokenizers use), with a budget of steps so that no file can make it hang. */
#ifndef NM_TOK_REGEX_H
#define NM_TOK_REGEX_H

#include "tokenizer/text.h"

typedef struct nm_regex nm_regex;

/* Compiles pattern[0..n) (UTF-8). What is outside the subset is NOEMA_E_UNSUPPORTED and named. */
noema_status nm_regex_new(nm_regex **re, const char *pattern, size_t n, const char *what, noema_error *err);
void nm_regex_free(nm_regex *re);

/* First match at or after `from`: 1 and its range, 0: none, -1: the budget (counted down over the calls) ran out. */
int nm_regex_find(const nm_regex *re, const uint32_t *p, size_t n, size_t from, size_t *start, size_t *end, long *budget);

#endif
