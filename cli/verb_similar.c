/* verb_similar.c - `noema similar`: what looks like a picture. */
#include <stdlib.h>
#include <string.h>

#include "collections.h"

static const cli_option options[] = {
    CLI_SEARCH_OPTIONS,
    { "exclude-self", 0, CLI_FLAG, NULL, "leave the picture itself out" },
    { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static noema_status one(cli_searcher *s, const cli_input *in, float *v, noema_search_options o, noema_error *err)
{
    int64_t id;
    noema_status st = cli_image_vector(s, in->path, v, err);
    if (st != NOEMA_OK)
        return st;
    if (cli_flag(s->c, "exclude-self") && noema_collection_find(s->col, in->path, &id, NULL) == NOEMA_OK) {
        o.exclude = &id;
        o.n_exclude = 1;
    }
    return cli_run_query(s, in->name, v, &o, err);
}

static int similar(cli_searcher *s)
{
    cli *c = s->c;
    float *v = cli_alloc((size_t)noema_collection_get_info(s->col)->dim + 1, sizeof *v);
    cli_inputs *all = cli_inputs_open(c, c->inputs, c->n_inputs, cli_flag(c, "recursive"), 0);
    cli_input in;
    int code = 0;
    while (!code && cli_inputs_next(all, &in)) {
        noema_error err = NOEMA_ERROR_INIT;
        noema_status st = one(s, &in, v, cli_search_options(c), &err);
        if (st == NOEMA_E_CANCELLED)
            code = CLI_NOTHING_DONE;
        else if (st != NOEMA_OK)
            cli_failed(c, in.name, &err);
        cli_input_free(&in);
    }
    cli_inputs_close(all);
    free(v);
    return code ? code : cli_exit(c);
}

static int run(cli *c)
{
    int code = 0;
    if (!c->n_inputs)
        return cli_usage(c, "expected pictures");
    if (cli_str(c, "contact-sheet", NULL) && c->n_inputs > 1)
        return cli_usage(c, "--contact-sheet shows one query, got %zu", c->n_inputs);
    cli_searcher s = { .c = c, .col = cli_collection_open(c, cli_str(c, "collection", NULL), NOEMA_COLLECTION_READONLY, &code) };
    if (s.col && !noema_collection_get_info(s.col)->dim) {
        cli_warn(c, "%s is empty", noema_collection_get_info(s.col)->path);
        code = CLI_NOTHING_DONE;
    } else if (s.col)
        code = similar(&s);
    cli_searcher_free(&s);
    return code;
}

const cli_verb cli_verb_similar = {
    "similar", "find pictures of a collection that look like a picture", "[options] IMAGE...",
    "Prints {\"query\",\"results\":[{\"id\",\"path\",\"score\",\"kind\"}...]} per picture, best first; scores are cosines. A picture that is in\n"
    "the collection and has not changed since is looked up, any other is embedded with the collection's model.",
    "noema similar --collection photos --exclude-self --kind image beach.jpg", options, CLI_WITH_MODEL, run
};
