/* labels.h - the interrogator's label tables: lists as upstream reads them, one f16 unit vector per label, upstream's cache files. */
#ifndef NM_LABELS_H
#define NM_LABELS_H

#include "base/half.h"
#include "models/handle.h"

typedef struct nm_labels {
    const char *name; /* "artists", ... */
    char **text;
    size_t n, cap;
    nm_f16 *vectors;  /* [n, dim], unit length before rounding */
} nm_labels;

/* Lines of a text: split at LF, CR, CRLF; both ends stripped of Unicode white space; each maximal ill-formed part of the bytes becomes
 * U+FFFD; blank lines and repetitions are kept. `front` and `back` are put around each line. */
bool nm_labels_add_lines(nm_labels *l, const char *front, const char *text, size_t size, const char *back);
bool nm_labels_add(nm_labels *l, const char *front, const char *text, size_t n, const char *back);
void nm_labels_free(nm_labels *l);

/* Embeds all labels, or reads CACHE/PREFIX_NAME.safetensors when its hash fits (and writes it when it did not). `done` is added to.
 * progress may be NULL. */
noema_status nm_labels_embed(nm_labels *l, noema_session *s, const char *cache, const char *prefix, size_t *done, size_t total,
                             int (*progress)(void *, size_t, size_t), void *user, noema_error *err);

typedef struct nm_rank_rule { size_t chunk_size; bool compat; } nm_rank_rule;
typedef struct nm_ranked { size_t row; float score; } nm_ranked;

/* The `top` best rows by scores (smallest first when reverse), ties to the lower row. compat: at most chunk_size / chunks rows of each chunk
 * survive, and with several chunks the survivors come sorted by the positive score even when reverse. Returns the number of rows in
 * out [top]; SIZE_MAX where upstream raises (more chunks than chunk_size) or memory is out. */
size_t nm_rank(const float *scores, size_t n, size_t top, bool reverse, nm_rank_rule rule, nm_ranked *out);

#endif
