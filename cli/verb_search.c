/* verb_search.c - `noema search`: pictures and texts of a collection that fit a text, a picture, or a sum of several. */
#include <stdlib.h>
#include <string.h>

#include "collections.h"

static const cli_option options[] = {
    CLI_SEARCH_OPTIONS,
    { "text", 't', CLI_LIST, "T", "a text, taken as it is" },
    { "text-file", 0, CLI_LIST, "FILE", "a text per line" },
    { "image", 'i', CLI_LIST, "FILE", "a picture" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef noema_status vector_fn(cli_searcher *s, const char *what, float *v, noema_error *err);

/* One query; false: stop. A model that cannot be opened has told so and ends the job. */
static bool query(cli_searcher *s, const char *what, vector_fn *vector, float *v, const noema_search_options *o, int *code)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_status st = vector(s, what, v, &err);
    if (st == NOEMA_OK)
        st = cli_run_query(s, what, v, o, &err);
    if (st == NOEMA_E_CANCELLED) {
        *code = CLI_NOTHING_DONE;
        return false;
    }
    if (st != NOEMA_OK)
        cli_failed(s->c, what, &err);
    return !cli_interrupted();
}

static int search(cli_searcher *s, const cli_texts *t)
{
    cli *c = s->c;
    size_t n_images = 0;
    int code = 0, dim = noema_collection_get_info(s->col)->dim;
    const char **image = cli_list(c, "image", &n_images);
    noema_search_options o = cli_search_options(c);
    float *v = cli_alloc((size_t)dim + 1, sizeof *v);
    bool go = true;
    for (size_t i = 0; i < t->n && go; i++)
        go = query(s, t->text[i], cli_text_vector, v, &o, &code);
    for (size_t i = 0; i < n_images && go; i++)
        go = query(s, image[i], cli_image_vector, v, &o, &code);
    for (size_t i = 0; i < c->n_inputs && go; i++)
        go = query(s, c->inputs[i], cli_query_vector, v, &o, &code);
    free(v);
    free((void *)image);
    return code ? code : cli_exit(c);
}

static int run(cli *c)
{
    cli_texts t;
    size_t n_images = 0;
    int code = 0;
    free((void *)cli_list(c, "image", &n_images));
    if (!cli_texts_read(c, &t))
        return CLI_NOTHING_DONE;
    size_t n = t.n + n_images + c->n_inputs;
    if (!n)
        code = cli_usage(c, "expected a query: words, --text T or --image FILE");
    else if (cli_str(c, "contact-sheet", NULL) && n > 1)
        code = cli_usage(c, "--contact-sheet shows one query, got %zu", n);
    if (code) {
        cli_texts_free(&t);
        return code;
    }
    cli_searcher s = { .c = c, .col = cli_collection_open(c, cli_str(c, "collection", NULL), NOEMA_COLLECTION_READONLY, &code) };
    if (s.col && !noema_collection_get_info(s.col)->dim) {
        cli_warn(c, "%s is empty", noema_collection_get_info(s.col)->path);
        code = CLI_NOTHING_DONE;
    } else if (s.col)
        code = search(&s, &t);
    cli_searcher_free(&s);
    cli_texts_free(&t);
    return code;
}

const cli_verb cli_verb_search = {
    "search", "find pictures and texts of a collection", "[options] [--text T | --image FILE | QUERY]...",
    "A QUERY is one argument: terms joined by + and - that stand between blanks. A term is a text, or @FILE, a picture; 0.5*TERM weighs\n"
    "it, and \"...\" keeps + and - inside a text. Vectors of length 1 are added and brought to length 1 again. Scores are cosines.\n"
    "Prints {\"query\",\"results\":[{\"id\",\"path\",\"score\",\"kind\"}...]} per query, best first. The search is exact.\n"
    "Without -m the model that made the collection is used.",
    "noema search --collection photos 'a dog on a beach - \"a person\"' --top 5", options, CLI_WITH_MODEL, run
};
