/* verb_data_vocab.c - `noema data vocab`: a tokenizer's merge list learned from texts. */
#include "cli.h"
#include "noema/tokenizer.h"

static const cli_option options[] = {
    { "text-file", 0, CLI_STRING, "FILE", "texts, one per line" },
    { "size", 0, CLI_INT, "N", "rows of the token table: 514 and one per merge (2048)" },
    { "out", 0, CLI_STRING, "FILE", "the merge list, CLIP's form (.txt.gz or .txt)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static int run(cli *c)
{
    const char *text = cli_str(c, "text-file", NULL), *out = cli_str(c, "out", NULL);
    int64_t size = cli_int(c, "size", 2048);
    noema_error err = NOEMA_ERROR_INIT;
    int32_t rows = 0;
    if (!text || !out)
        return cli_usage(c, "expected --text-file FILE and --out FILE");
    if (size < 514 || size > INT32_MAX)
        return cli_usage(c, "--size: expected at least 514");
    if (noema_tokenizer_train_bpe(text, (int32_t)size, out, &rows, &err) != NOEMA_OK)
        return cli_fatal(c, &err);
    if (rows < size)
        cli_warn(c, "%s: no pair comes twice after %d merges: the vocabulary has %d rows", text, (int)rows - 514, (int)rows);
    cli_buf line = { 0 };
    cli_puts(&line, "{\"out\":");
    cli_put_json(&line, out);
    cli_printf(&line, ",\"rows\":%d}", (int)rows);
    cli_emit(&line);
    cli_buf_free(&line);
    return CLI_OK;
}

const cli_verb cli_verb_data_vocab = {
    "data vocab", "learn a tokenizer's vocabulary from texts", "[options] --text-file FILE --out FILE",
    "Byte-pair merges in the form of CLIP's list: texts are cleaned and split as CLIP's tokenizer does it, words are bytes of UTF-8, so\n"
    "that every language works. `vocab_size` in the model's configuration is the number of rows.",
    "noema data vocab --text-file captions.txt --size 2048 --out bpe_simple_vocab_16e6.txt.gz", options, CLI_NO_INPUTS, run
};
