/* inspect.c - the public face of tokenizers with a configuration, preprocessing and checkpoints (noema/inspect.h). */
#include "noema/inspect.h"

#include "base/json.h"
#include "models/tok_config.h"

noema_status noema_tokenizer_open_config(noema_tokenizer **t, const char *path, const char *config, noema_error *err)
{
    noema_tokenizer_options o = noema_tokenizer_options_default();
    if (config) {
        json_t *j = nm_json_load(config, err);
        if (!j)
            return err ? err->code : NOEMA_E_FORMAT;
        bool said = nm_tok_options_from_config(&o, j);
        json_decref(j);
        if (!said)
            return nm_fail(err, NOEMA_E_MISSING, "%s: expected text_cfg (open_clip) or text_config (Hugging Face)", config);
    }
    return noema_tokenizer_open(t, path, &o, err);
}
