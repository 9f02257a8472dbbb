/* journal.h - results of a long call as JSON lines, appended as they come, so that the next call goes on where this one ended: each line is an
 * object with "row", counted up without a gap. A line that was half written when the call was killed is written again. */
#ifndef NM_JOURNAL_H
#define NM_JOURNAL_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"

typedef struct nm_journal {
    json_t *lines;    /* objects, of rows first, first + 1, ... */
    char *path;       /* NULL: in memory alone */
    const char *head;
    size_t size;      /* bytes of the file that count */
    FILE *f;          /* from the first nm_journal_add on */
} nm_journal;

/* Reads what there is of rows first .. last and cuts the file behind them. head: a first line that says what the rows were made of, as long as the journal lives; a file
 * that begins with another one is refused. NULL: none. */
noema_status nm_journal_open(nm_journal *j, const char *path, const char *head, int64_t first, int64_t last, noema_error *err);
/* Complete lines, written and parsed. */
noema_status nm_journal_add(nm_journal *j, const nm_buf *lines, noema_error *err);
/* Closes the file, synced when s, which is returned, is NOEMA_OK. The lines stay until nm_journal_free. */
noema_status nm_journal_close(nm_journal *j, noema_status s, noema_error *err);
void nm_journal_free(nm_journal *j);

#endif
