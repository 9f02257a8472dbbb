/* collections.h - what the verbs on collections share: where a collection is, its model, queries and their results. */
#ifndef NOEMA_CLI_COLLECTIONS_H
#define NOEMA_CLI_COLLECTIONS_H

#include "cli.h"
#include "noema/collection.h"

/* A name without "/" is a folder below $XDG_DATA_HOME/noema/collections (~/.local/share); anything else is a path. malloc'd. */
char *cli_collection_path(const char *name);
char *cli_collection_root(void);

/* Opens --collection (default: "default"), says on stderr what was dropped. NULL after a message; *code is then the exit code. */
noema_collection *cli_collection_open(cli *c, const char *name, unsigned flags, int *code);

/* The model of a job: -m and its options, or what the collection notes. Opened at the first need. */
typedef struct cli_searcher {
    cli *c;
    noema_collection *col;
    noema_model *model;
    noema_session *session;
} cli_searcher;
int cli_searcher_model(cli_searcher *s); /* 0, or an exit code after a message; the space must be the collection's */
void cli_searcher_free(cli_searcher *s);
/* Notes how the model was opened, for later runs without -m. */
noema_status cli_note_model(cli *c, noema_collection *col, const noema_model *m, noema_error *err);

/* Vectors of one text or picture, [dim], unit. A picture that is in the collection and has not changed needs no model. */
noema_status cli_text_vector(cli_searcher *s, const char *text, float *v, noema_error *err);
noema_status cli_image_vector(cli_searcher *s, const char *path, float *v, noema_error *err);
/* "a dog + 0.5*snow - @cat.jpg" (see the help of search). */
noema_status cli_query_vector(cli_searcher *s, const char *query, float *v, noema_error *err);

/* The options of search and similar that say what may be found and how it is shown. */
#define CLI_SEARCH_OPTIONS \
    { "collection", 'c', CLI_STRING, "DIR", "the collection: a folder, or a name (default: default)" }, \
    { "top", 'k', CLI_INT, "K", "results per query (default 10)" }, \
    { "threshold", 0, CLI_NUMBER, "S", "only scores of at least S" }, \
    { "path", 0, CLI_STRING, "GLOB", "only paths that match, such as '*/2019/*.jpg'" }, \
    { "name", 0, CLI_STRING, "WORDS", "only paths with words that begin with each of these" }, \
    { "kind", 0, CLI_STRING, "any|image|text", "what to find (default any)" }, \
    { "contact-sheet", 0, CLI_STRING, "FILE", "also a picture of the results, .png or .jpg (one query)" }

noema_search_options cli_search_options(const cli *c);
/* Searches and prints one query; ids to leave out in o. */
noema_status cli_run_query(cli_searcher *s, const char *name, const float *v, const noema_search_options *o, noema_error *err);

#endif
