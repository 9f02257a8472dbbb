/* tok_config.h - what a model configuration says about the tokenizer. */
#ifndef NM_TOK_CONFIG_H
#define NM_TOK_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "noema/tokenizer.h"

/* open_clip's configuration (text_cfg: context_length, vocab_size, hf_tokenizer_name, tokenizer_kwargs.clean and
 * .strip_sep_token) or a Hugging Face CLIP one (text_config.max_position_embeddings, vocab_size). false: it says nothing. */
bool nm_tok_options_from_config(noema_tokenizer_options *o, const json_t *config);

#endif
