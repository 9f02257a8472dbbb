/* tok_config.c - see tok_config.h. Source: open_clip factory.py get_tokenizer, tokenizer.py (SimpleTokenizer, HFTokenizer). */
#include "models/tok_config.h"

#include <string.h>

#include "base/json.h"

static noema_tokenizer_clean clean_mode(const char *s, noema_tokenizer_clean dflt)
{
    if (!s)
        return dflt;
    if (!strcmp(s, "lower"))
        return NOEMA_CLEAN_LOWER;
    if (!strcmp(s, "whitespace"))
        return NOEMA_CLEAN_WHITESPACE;
    return strcmp(s, "canonicalize") ? dflt : NOEMA_CLEAN_CANONICALIZE;
}

static int bounded(int64_t v) { return v > 0 && v < 1 << 24 ? (int)v : 0; }

bool nm_tok_options_from_config(noema_tokenizer_options *o, const json_t *config)
{
    const json_t *model = nm_json_get(config, "model_cfg");
    const json_t *text = nm_json_get(model ? model : config, "text_cfg"), *kwargs = nm_json_get(text, "tokenizer_kwargs");
    const json_t *hf = nm_json_get(config, "text_config");
    const char *clean = nm_json_str(kwargs, "clean", NULL);
    if (text && nm_json_str(text, "hf_tokenizer_name", NULL)) {
        /* the Hugging Face tokenizer behind open_clip's wrapper: cleans first, then does what the files say */
        o->clean = clean_mode(clean, NOEMA_CLEAN_WHITESPACE);
        o->kind = o->clean == NOEMA_CLEAN_CANONICALIZE ? NOEMA_TOKENIZER_SIGLIP : NOEMA_TOKENIZER_AUTO;
        o->sep_to_zero = nm_json_bool(kwargs, "strip_sep_token", false);
        o->context_length = bounded(nm_json_int(text, "context_length", 77));
        return true;
    }
    if (text) {
        o->kind = NOEMA_TOKENIZER_OPEN_CLIP;
        o->clean = clean_mode(clean, NOEMA_CLEAN_LOWER);
        o->context_length = bounded(nm_json_int(text, "context_length", 77));
        o->vocab_size = bounded(nm_json_int(text, "vocab_size", 49408));
        return true;
    }
    if (!hf)
        return false;
    o->context_length = bounded(nm_json_int(hf, "max_position_embeddings", 77));
    o->vocab_size = bounded(nm_json_int(hf, "vocab_size", 49408));
    return true;
}
