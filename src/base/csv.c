/* csv.c - see csv.h. */
#include "base/csv.h"

#include <stdbool.h>

int nm_csv_field(nm_csv *c)
{
    nm_buf *f = &c->field;
    int end = 0;
    f->len = 0;
    nm_buf_append(f, "", 0);
    bool quoted = c->p < c->end && *c->p == '"';
    c->p += quoted;
    while (c->p < c->end && !end) {
        char ch = *c->p++;
        c->line += ch == '\n';
        if (quoted && ch == '"') {
            quoted = c->p < c->end && *c->p == '"';
            if (quoted)
                nm_buf_putc(f, *c->p++);
        } else if (!quoted && (ch == c->sep || ch == '\n'))
            end = ch;
        else
            nm_buf_putc(f, ch);
    }
    if (end != c->sep && !quoted && f->len && f->data[f->len - 1] == '\r')
        f->data[--f->len] = 0;
    return end;
}
