/* inspect_tokens.c - `noema inspect tokens`: the ids of texts, as a model or a tokenizer file makes them. */
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"

static const cli_option options[] = {
    { "text", 't', CLI_LIST, "T", "a text" },
    { "text-file", 0, CLI_LIST, "FILE", "one text per line, kept as it is" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void put_line(cli_buf *b, const char *text, size_t n, const int32_t *ids, size_t n_ids)
{
    cli_puts(b, "{\"text\":");
    cli_put_jsonn(b, text, n);
    cli_puts(b, ",\"ids\":[");
    for (size_t i = 0; i < n_ids; i++)
        cli_printf(b, i ? ",%d" : "%d", ids[i]);
    cli_puts(b, "]}");
    cli_emit(b);
}

static void encode_all(cli *c, const noema_tokenizer *t, const cli_texts *texts)
{
    noema_tokenizer_scratch *s = noema_tokenizer_scratch_new(t);
    cli_buf line = { 0 };
    for (size_t i = 0; i < texts->n && s && !cli_interrupted(); i++) {
        noema_error err = NOEMA_ERROR_INIT;
        const int32_t *ids;
        size_t n_ids;
        if (noema_tokenizer_encode(t, s, texts->text[i], texts->len[i], &ids, &n_ids, &err) != NOEMA_OK) {
            cli_failed_msg(c, texts->text[i], "%s", err.message);
            continue;
        }
        put_line(&line, texts->text[i], texts->len[i], ids, n_ids);
        c->n_done++;
    }
    cli_buf_free(&line);
    noema_tokenizer_scratch_free(s);
}

static int run(cli *c)
{
    cli_texts texts;
    noema_tokenizer *own = NULL;
    const noema_tokenizer *t = NULL;
    noema_model *m = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    const char *path = cli_str(c, "tokenizer", NULL);
    int code = CLI_OK;
    if (!cli_texts_read(c, &texts)) {
        cli_texts_free(&texts);
        return CLI_NOTHING_DONE;
    }
    if (path && !cli_str(c, "model", NULL)) {
        if (noema_tokenizer_open_config(&own, path, cli_str(c, "config", NULL), &err) != NOEMA_OK)
            code = cli_fatal(c, &err);
        t = own;
    } else if ((code = cli_open_model(c, &m, NULL)) == CLI_OK && !(t = noema_model_tokenizer(m, &err)))
        code = cli_fatal(c, &err);
    if (code == CLI_OK) {
        encode_all(c, t, &texts);
        code = cli_exit(c);
    }
    noema_tokenizer_free(own);
    noema_model_free(m);
    cli_texts_free(&texts);
    return code;
}

const cli_verb cli_verb_inspect_tokens = {
    "inspect tokens", "the token ids of texts", "-m MODEL|--tokenizer FILE|DIR [--config FILE] [--text T]... [--text-file F]",
    "Prints {\"text\",\"ids\":[...]} per text: special ids included, cut to the context length, no padding.",
    "noema inspect tokens --text \"a photo of a cat\"", options, CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
