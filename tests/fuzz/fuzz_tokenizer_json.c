/* fuzz_tokenizer_json.c - any bytes as a tokenizer.json; what loads must encode and decode without harm. */
#include <stdint.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "A photo\tof <s> caf\xC3\xA9 123's \xED\x95\x9C\xEA\xB8\x80 \xF0\x9F\x98\x80  [MASK]!";
    noema_error err = NOEMA_ERROR_INIT;
    nm_tokenizer *t;
    if (nm_tokenizer_open_memory(&t, "fuzz.json", data, size, NULL, &err))
        return 0;
    nm_tok_scratch *s = noema_tokenizer_scratch_new(t);
    const int32_t *ids;
    const char *out;
    size_t n, m;
    if (s && noema_tokenizer_encode(t, s, text, sizeof text - 1, &ids, &n, NULL) == NOEMA_OK && n < 4096) {
        int32_t copy[4096];
        memcpy(copy, ids, n * sizeof *ids);
        noema_tokenizer_decode(t, s, copy, n, 1, &out, &m, NULL);
    }
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
    return 0;
}
