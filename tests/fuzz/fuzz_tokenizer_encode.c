/* fuzz_tokenizer_encode.c - any bytes as a text, through every kind of tokenizer: invalid UTF-8 is refused, valid text always
 * gives ids that exist. The vocabularies are tiny and built in. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

static const char merges[] = "#version\ni n\nt h\na n\nth e</w>\nin g</w>\n\xC3\xB0 \xC5\x81\n";
static const char words[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##a\n##b\nthe\n.\n!\n";
static const char json[] =
    "{\"added_tokens\":[{\"id\":7,\"content\":\"<m>\",\"lstrip\":true,\"rstrip\":true,\"normalized\":true},{\"id\":8,\"content\":\"</s>\","
    "\"special\":true,\"single_word\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Nmt\"},"
    "{\"type\":\"Strip\"},{\"type\":\"StripAccents\"},{\"type\":\"Lowercase\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}|[^a-z]+$\"},"
    "\"content\":\" \"}]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
    "\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
    "\"behavior\":\"MergedWithPrevious\"},{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Metaspace\",\"replacement\":"
    "\"\xE2\x96\x81\",\"prepend_scheme\":\"first\"}]},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"\xE2\x96\x81\",-2],"
    "[\"a\",-3],[\"b\",-3],[\"\xE2\x96\x81th\",-4],[\"e\",-3.5],[\"the\",-5]]},\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\"}}";
static const char bytes[] =
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
    "\"fuse_unk\":true,\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"ab\":3,\"\xC4\xA0\":4,\"\xC4\xA0"
    "a\":5},\"merges\":[\"a b\",[\"\xC4\xA0\",\"a\"]]}}";

enum { N = 6 };
static nm_tokenizer *tok[N];
static nm_tok_scratch *scratch[N];

static void open_all(void)
{
    static const struct { const char *data; size_t size; noema_tokenizer_kind kind; noema_tokenizer_clean clean; } form[N] = {
        { merges, sizeof merges - 1, NOEMA_TOKENIZER_OPENAI, NOEMA_CLEAN_DEFAULT },
        { merges, sizeof merges - 1, NOEMA_TOKENIZER_OPEN_CLIP, NOEMA_CLEAN_CANONICALIZE },
        { words, sizeof words - 1, NOEMA_TOKENIZER_BERT, NOEMA_CLEAN_DEFAULT },
        { words, sizeof words - 1, NOEMA_TOKENIZER_FLIP, NOEMA_CLEAN_DEFAULT },
        { json, sizeof json - 1, NOEMA_TOKENIZER_AUTO, NOEMA_CLEAN_DEFAULT },
        { bytes, sizeof bytes - 1, NOEMA_TOKENIZER_AUTO, NOEMA_CLEAN_DEFAULT },
    };
    for (int k = 0; k < N; k++) {
        nm_tok_options o = noema_tokenizer_options_default();
        o.kind = form[k].kind, o.clean = form[k].clean;
        noema_error err = NOEMA_ERROR_INIT;
        if (nm_tokenizer_open_memory(&tok[k], "built in", form[k].data, form[k].size, &o, &err) ||
            !(scratch[k] = noema_tokenizer_scratch_new(tok[k])))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tok[0])
        open_all();
    for (int k = 0; k < N; k++) {
        nm_tok_scratch *s = scratch[k];
        const int32_t *ids;
        size_t n;
        noema_error err = NOEMA_ERROR_INIT;
        noema_status st = noema_tokenizer_encode(tok[k], s, (const char *)data, size, &ids, &n, &err);
        if ((st == NOEMA_E_FORMAT) != !nm_utf8_valid((const char *)data, size))
            abort();
        for (size_t i = 0; !st && i < n; i++)
            if (ids[i] < 0 || ids[i] >= noema_tokenizer_vocab_size(tok[k]))
                abort();
    }
    return 0;
}
