/* fuzz_meteor.c - METEOR's files (the input is split at its NULs: function words, synonym sets, paraphrases), and a score with them. */
#include <math.h>

#include "eval/captions.h"
#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file words = fuzz_file_next("words", &data, &size), sets = fuzz_file_next("sets", &data, &size), phrases = fuzz_file_next("phrases", &data, &size);
    noema_error err = NOEMA_ERROR_INIT;
    nm_meteor *m;
    if (nm_meteor_open(&m, words.path, sets.path, phrases.path, &err) == NOEMA_OK) {
        nm_meteor_counts c = { 0 };
        if (nm_meteor_score(m, "the cat sat on the small mat", "a cat was sitting on a little mat", &c, &err) == NOEMA_OK) {
            double v = nm_meteor_value(&c);
            if (!(v >= 0 && v <= 1))
                abort();
        }
        nm_meteor_free(m);
    } else if (!err.code || !err.message[0])
        abort();
    fuzz_file_done(&words);
    fuzz_file_done(&sets);
    fuzz_file_done(&phrases);
    return 0;
}
