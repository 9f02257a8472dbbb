/* fuzz_eval_tables.c - a table of published figures (CSV), prompts by data set (JSON) and lists of names, as `noema eval` reads them. */
#include "eval/task.h"
#include "fuzz_file.h"
#include "noema/eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void prompts(const char *name, const uint8_t *data, size_t size)
{
    fuzz_file f = fuzz_file_put(name, data, size);
    const char *path = f.path;
    noema_error err = NOEMA_ERROR_INIT;
    noema_eval_options o;
    nm_prompts p;
    noema_eval_options_default(&o);
    o.dataset = "cifar10";
    o.classes = path;
    if (nm_prompts_read(&p, &o, &err) == NOEMA_OK)
        nm_prompts_free(&p);
    o.classes = NULL;
    o.prompts = &path;
    o.n_prompts = 1;
    if (nm_prompts_read(&p, &o, &err) == NOEMA_OK) {
        for (int64_t i = 0; i < p.n_texts; i++)
            if (!strstr(p.text[i], "{}"))
                abort();
        nm_prompts_free(&p);
    }
    fuzz_file_done(&f);
}

static void published(const uint8_t *data, size_t size)
{
    fuzz_file f = fuzz_file_put("published.csv", data, size);
    noema_error err = NOEMA_ERROR_INIT;
    nm_eval e = { .r = nm_eval_report_new("zeroshot"), .err = &err };
    noema_eval_options_default(&e.o);
    e.o.published = f.path;
    e.o.published_name = "ViT-B-32 openai";
    e.o.dataset = "wds/vtab/cifar10";
    nm_eval_report_metric(e.r, "acc1", 0.5, NULL);
    if (nm_eval_published(&e) == NOEMA_OK) {
        char *json = noema_report_json(e.r);
        if (!json)
            abort();
        free(json);
    }
    noema_report_free(e.r);
    fuzz_file_done(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prompts("names.txt", data, size);
    prompts("prompts.json", data, size);
    published(data, size);
    return 0;
}
