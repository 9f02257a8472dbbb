/* intake.h - bringing a collection up to date with files: shared by files.c (which files) and embed.c (what becomes of them). */
#ifndef NM_INDEX_INTAKE_H
#define NM_INDEX_INTAKE_H

#include "index/store.h"
#include "models/handle.h"

enum {
    NM_WAVE = 2048,         /* files that are decided about together: bounds memory, amortises the pipeline's start */
    NM_COMMIT_ITEMS = 256,  /* a commit at the latest after so many items, */
    NM_COMMIT_SECONDS = 5   /* or so much time: what a kill costs */
};

/* A file that needs work. */
typedef struct nm_file {
    char *path;
    int64_t size, mtime_ns;
    unsigned char hash[32];
    bool hashed, settled;   /* settled: nothing to embed */
    int width, height;
    void *thumb;
    size_t thumb_bytes;
} nm_file;

typedef struct nm_index_job {
    noema_collection *c;
    noema_session *s;
    noema_index_options o;
    noema_index_report now, committed; /* counts, and those of the last commit */
    nm_file *file;          /* [NM_WAVE] */
    size_t n_files;
    nm_file **todo;         /* [NM_WAVE]: those of a wave that are embedded */
    noema_error *errors;    /* [NM_WAVE] */
    float *vectors;         /* [batch, dim] */
    size_t batch;
    int64_t total, done;    /* for the progress; total -1: unknown */
    int since_commit;
    double last_commit;
    noema_error *err;
} nm_index_job;

/* embed.c: decides and works on the files that have been gathered, and forgets them. */
noema_status nm_index_wave(nm_index_job *j);

/* files.c */
noema_status nm_index_progress(nm_index_job *j, int64_t n, const char *path); /* NOEMA_E_CANCELLED when the caller wants to stop */
noema_status nm_index_failed(nm_index_job *j, const nm_file *f, const noema_error *why); /* counts, tells and remembers */
noema_status nm_index_commit(nm_index_job *j, bool due_only);
noema_status nm_index_use_model(noema_collection *c, noema_session *s, noema_error *err); /* its space must be the collection's */
noema_status nm_index_lookup(nm_index_job *j, const char *path, nm_item *item, bool *found); /* item->path is not kept */

#endif
