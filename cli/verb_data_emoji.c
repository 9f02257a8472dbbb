/* verb_data_emoji.c - `noema data emoji`: the pictures of an emoji font as PNG files. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/data.h"

static const cli_option options[] = {
    { "out", 0, CLI_STRING, "DIR", "folder for the PNG files" },
    { "font", 0, CLI_STRING, "FILE", "a bitmap emoji font (Debian's Noto Color Emoji)" },
    { "limit", 0, CLI_INT, "N", "at most N pictures (all)" },
    { "names", 0, CLI_STRING, "LANGUAGE,...", "write names and keywords to DIR/emoji.tsv, e.g. en,ko (CLDR)" },
    { "annotations", 0, CLI_STRING, "DIR", "CLDR's folder with LANGUAGE.xml (Debian's unicode-cldr-core)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

/* DIR/emoji.tsv for the languages of --names; rows < 0: not asked for. */
static noema_status names(cli *c, const char *dir, long long *rows, noema_error *err)
{
    char *list = cli_dup(cli_str(c, "names", "")), *file[16], *out = cli_text("%s/emoji.tsv", dir);
    size_t n = 0, found = 0;
    noema_status s = NOEMA_OK;
    for (char *l = strtok(list, ","); l && n < 16; l = strtok(NULL, ","))
        file[n++] = cli_text("%s/%s.xml", cli_str(c, "annotations", NOEMA_EMOJI_ANNOTATIONS), l);
    if (n && (s = noema_data_emoji_names(dir, (const char *const *)file, n, out, &found, err)) == NOEMA_OK)
        *rows = (long long)found;
    while (n)
        free(file[--n]);
    free(list);
    free(out);
    return s;
}

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
    long long rows = -1;
    if (names(c, dir, &rows, &err) != NOEMA_OK) {
        if (err.code == NOEMA_E_MISSING || err.code == NOEMA_E_IO)
            cli_warn(c, "the names are in Debian's package unicode-cldr-core; another place: --annotations DIR");
        return cli_fatal(c, &err);
    }
    cli_buf line = { 0 };
    cli_puts(&line, "{\"out\":");
    cli_put_json(&line, dir);
    cli_printf(&line, ",\"pictures\":%zu", n);
    if (rows >= 0)
        cli_printf(&line, ",\"named\":%lld", rows);
    cli_puts(&line, "}");
    cli_emit(&line);
    cli_buf_free(&line);
    return CLI_OK;
}

const cli_verb cli_verb_data_emoji = {
    "data emoji", "write the pictures of an emoji font as PNG files", "[options] --out DIR",
    "One file per character, named emoji_uXXXX.png: 136x128 pictures with transparency, about 1,400 of them. --names adds emoji.tsv:\n"
    "picture, label, name in each language, keywords in each.", "noema data emoji --out emoji", options,
    CLI_NO_INPUTS, run
};
