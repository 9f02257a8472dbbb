/* verb_verify.c - `noema verify`: are the numbers on this machine the reference's? Pictures through decoders and preprocessing,
 * texts through the tokenizer, forwards of every instruction set and compute type against plain C. */
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"
#include "verify.h"
#include "verify_pictures.inc"

/* Digest of a picture through a pipeline at 32 x 32, or of its decoded bytes. */
static noema_status digest(const char *format, const char *pipeline, char hex[65], noema_error *err)
{
    noema_preprocess *p;
    noema_plane px = { 0 };
    bool u8 = !strcmp(pipeline, "none");
    size_t i = 0;
    while (strcmp(pictures[i].format, format))
        i++;
    noema_status s = noema_preprocess_open(&p, pipeline, u8 ? 0 : 32, u8 ? 0 : 32, err);
    if (s == NOEMA_OK)
        s = noema_preprocess_bytes(p, pictures[i].data, pictures[i].size, format, u8, &px, err);
    if (s == NOEMA_OK)
        noema_sha256(px.data, px.size, hex);
    noema_preprocess_free(p);
    return s;
}

/* A row per pipeline: the four pictures must give the reference's bits. */
static void verify_pictures(cli *c)
{
    static const char *const pipelines[] = { "none", "openai", "hf5_clip", "hf5_siglip", "blip" };
    for (size_t k = 0; k < sizeof pipelines / sizeof *pipelines; k++) {
        char check[64], wrong[128] = "", hex[65];
        int n = 0, bad = 0;
        noema_error err = NOEMA_ERROR_INIT;
        for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
            if (strcmp(digests[i].pipeline, pipelines[k]))
                continue;
            n++;
            if (digest(digests[i].format, pipelines[k], hex, &err) != NOEMA_OK || strcmp(hex, digests[i].sha256)) {
                bad++;
                snprintf(wrong + strlen(wrong), sizeof wrong - strlen(wrong), " %s", digests[i].format);
            }
        }
        snprintf(check, sizeof check, k ? "preprocessing %s" : "decoders", pipelines[k]);
        if (bad)
            verify_row(c, check, VERIFY_FAILED, "%d of %d pictures differ from Pillow's:%s %s", bad, n, wrong, err.message);
        else
            verify_row(c, check, VERIFY_OK, "%d pictures, bit for bit", n);
    }
}

/* What openai/CLIP's tokenizer says of texts whose traps differ: entities, emoji, Hangul, mojibake, digits. */
static const struct { const char *text; size_t n; int32_t ids[16]; } clip_texts[] = {
#include "verify_texts.inc"
};

static void verify_tokens(cli *c, const char *path)
{
    noema_tokenizer *t = NULL;
    noema_tokenizer_options o = noema_tokenizer_options_default();
    noema_error err = NOEMA_ERROR_INIT;
    size_t n = sizeof clip_texts / sizeof *clip_texts, good = 0;
    if (!path) {
        verify_row(c, "tokens", VERIFY_SKIPPED, "--tokenizer bpe_simple_vocab_16e6.txt.gz checks CLIP's texts");
        return;
    }
    if (noema_tokenizer_open(&t, path, &o, &err) != NOEMA_OK || strcmp(noema_tokenizer_name(t), "clip-openai") || noema_tokenizer_vocab_size(t) != 49408) {
        verify_row(c, "tokens", err.code ? VERIFY_FAILED : VERIFY_SKIPPED, "%s", err.code ? err.message : "not CLIP's vocabulary");
        noema_tokenizer_free(t);
        return;
    }
    noema_tokenizer_scratch *s = noema_tokenizer_scratch_new(t);
    for (size_t i = 0; s && i < n; i++) {
        const int32_t *ids;
        size_t n_ids;
        good += noema_tokenizer_encode(t, s, clip_texts[i].text, strlen(clip_texts[i].text), &ids, &n_ids, &err) == NOEMA_OK && n_ids == clip_texts[i].n &&
                !memcmp(ids, clip_texts[i].ids, n_ids * sizeof *ids);
    }
    verify_row(c, "tokens", good == n ? VERIFY_OK : VERIFY_FAILED, "%zu of %zu texts as openai/CLIP", good, n);
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
}

static int run(cli *c)
{
    verify_model(c, cli_str(c, "model", NULL)); /* first: its processes choose their instruction sets before anything has */
    verify_pictures(c);
    verify_tokens(c, cli_str(c, "tokenizer", NULL));
    cli_flush();
    if (cli_interrupted())
        return CLI_INTERRUPTED;
    cli_say(c, "%zu checks well, %zu failed", c->n_done, c->n_failed);
    return c->n_failed ? CLI_SOME_FAILED : CLI_OK;
}

const cli_verb cli_verb_verify = {
    "verify", "are the numbers on this machine the reference's?", "[-m MODEL] [--tokenizer bpe_simple_vocab_16e6.txt.gz]",
    "Decoders and preprocessing against Pillow's and transformers' digests, tokens against openai/CLIP's, then a model (a small one drawn\n"
    "anew, or MODEL): every instruction set and compute type against plain C, one batch against single inputs, one thread against all.\n"
    "Prints {\"check\",\"ok\",\"detail\"} per check; ok null: not possible here. Exit 2 when a check failed.",
    "noema verify", NULL, CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
