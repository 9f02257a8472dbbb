/* fuzz_eval_answers.c - VQA's and NLVR2's files through noema_eval, and the normalisation of answers. The input is split at its first NUL:
 * annotations, then results. */
#include "base/mem.h"
#include "eval/answers.h"
#include "fuzz_file.h"
#include "noema/eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool both = size && memchr(data, 0, size);
    char *text = nm_strndup((const char *)data, size);
    nm_buf b = { 0 };
    if (!text)
        return 0;
    if (nm_vqa_normalise(&b, text) && b.len > 8 * strlen(text) + 8)
        abort();
    nm_buf_free(&b);
    free(text);
    fuzz_file a = fuzz_file_next("a.json", &data, &size), r = fuzz_file_put("r.json", data, size);
    for (int task = 0; task < 2; task++) {
        noema_error err = NOEMA_ERROR_INIT;
        noema_eval_options o;
        noema_report *report = NULL;
        noema_eval_options_default(&o);
        o.annotations = a.path;
        o.results = both ? r.path : NULL;
        if (noema_eval(task ? NOEMA_EVAL_NLVR : NOEMA_EVAL_VQA, NULL, &o, &report, &err) == NOEMA_OK) {
            char *json = noema_report_json(report);
            if (!json)
                abort();
            free(json);
        }
        noema_report_free(report);
    }
    fuzz_file_done(&a);
    fuzz_file_done(&r);
    return 0;
}
