/* fuzz_eval_answers.c - VQA's and NLVR2's files through noema_eval, and the normalisation of answers. The input is split at its first NUL:
 * annotations, then results. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/answers.h"
#include "noema/eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(const char *path, const uint8_t *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t first = nul ? (size_t)(nul - data) : size;
    char a[64], r[64], *text = strndup((const char *)data, first);
    nm_buf b = { 0 };
    snprintf(a, sizeof a, "/tmp/noema-fuzz-a-%d.json", (int)getpid());
    snprintf(r, sizeof r, "/tmp/noema-fuzz-r-%d.json", (int)getpid());
    if (!text)
        return 0;
    put(a, data, first);
    put(r, nul ? nul + 1 : data, nul ? size - first - 1 : 0);
    if (nm_vqa_normalise(&b, text) && b.len > 8 * first + 8)
        abort();
    nm_buf_free(&b);
    for (int task = 0; task < 2; task++) {
        noema_error err = NOEMA_ERROR_INIT;
        noema_eval_options o;
        noema_report *report = NULL;
        noema_eval_options_default(&o);
        o.annotations = a;
        o.results = nul ? r : NULL;
        if (noema_eval(task ? NOEMA_EVAL_NLVR : NOEMA_EVAL_VQA, NULL, &o, &report, &err) == NOEMA_OK) {
            char *json = noema_report_json(report);
            if (!json)
                abort();
            free(json);
        }
        noema_report_free(report);
    }
    free(text);
    unlink(a);
    unlink(r);
    return 0;
}
