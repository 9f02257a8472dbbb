/* verb_data_emoji.c - `noema data emoji`: the pictures of an emoji font as PNG files. */
#include "cli.h"
#include "noema/data.h"

static const cli_option options[] = {
    { "out", 0, CLI_STRING, "DIR", "folder for the PNG files" },
    { "font", 0, CLI_STRING, "FILE", "a bitmap emoji font (Debian's Noto Color Emoji)" },
    { "limit", 0, CLI_INT, "N", "at most N pictures (all)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static int run(cli *c)
{
    const char *dir = cli_str(c, "out", NULL);
    noema_error err = NOEMA_ERROR_INIT;
    size_t n = 0;
    if (!dir)
        return cli_usage(c, "expected --out DIR");
    if (noema_data_emoji(cli_str(c, "font", NOEMA_EMOJI_FONT), dir, (size_t)cli_int(c, "limit", 0), &n, &err) != NOEMA_OK) {
        if (err.code == NOEMA_E_MISSING)
            cli_warn(c, "the font is in Debian's package fonts-noto-color-emoji; another one: --font FILE");
        return cli_fatal(c, &err);
    }
    cli_buf line = { 0 };
    cli_puts(&line, "{\"out\":");
    cli_put_json(&line, dir);
    cli_printf(&line, ",\"pictures\":%zu}", n);
    cli_emit(&line);
    cli_buf_free(&line);
    return CLI_OK;
}

const cli_verb cli_verb_data_emoji = {
    "data emoji", "write the pictures of an emoji font as PNG files", "[options] --out DIR",
    "One file per character, named emoji_uXXXX.png: 136x128 pictures with transparency, about 1,400 of them.", "noema data emoji --out emoji", options,
    CLI_NO_INPUTS, run
};
