/* csv.h - fields of a table in text, RFC 4180: quoted fields may hold separators, doubled quotes and line ends. */
#ifndef NM_CSV_H
#define NM_CSV_H

#include <stdint.h>

#include "base/mem.h"

/* Set p, end (text of any bytes), sep and line = 1; free field at the end. */
typedef struct nm_csv { const char *p, *end; char sep; int64_t line; nm_buf field; } nm_csv;

/* The next field into c->field (with a NUL after it); returns what ended it: the separator, '\n' or 0, the end of the text (a '\r' before these two
 * is dropped). */
int nm_csv_field(nm_csv *c);

#endif
