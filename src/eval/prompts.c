/* prompts.c - class names and templates: one per line, or JSON files in the layout of CLIP_benchmark. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "data/names.h"
#include "eval/task.h"

static bool append(char ***list, int64_t *n, char *s)
{
    char **p = *n & (*n - 1) ? *list : nm_realloc_array(*list, *n ? 2 * (size_t)*n : 1, sizeof **list); /* grows at powers of two */
    if (!p || !s) {
        free(s);
        if (p)
            *list = p;
        return false;
    }
    *list = p;
    p[(*n)++] = s;
    return true;
}

void nm_prompts_free(nm_prompts *p)
{
    nm_strings_free(p->name, p->n_names);
    nm_strings_free(p->wnid, p->n_names);
    nm_strings_free(p->text, p->n_texts);
    *p = (nm_prompts){ 0 };
}

/* CLIP_benchmark writes "{c}" for the name. */
static char *plain_template(const char *t)
{
    nm_buf b = { 0 };
    for (const char *c; (c = strstr(t, "{c}")); t = c + 3) {
        nm_buf_append(&b, t, (size_t)(c - t));
        nm_buf_puts(&b, "{}");
    }
    nm_buf_puts(&b, t);
    return nm_buf_take(&b);
}

/* "wds/vtab/cifar10" stands under "cifar10", "imagenet-a" under "imagenet_a" or the reverse. */
static json_t *entry_of(const json_t *file, const char *dataset)
{
    char name[128];
    for (const char *at = dataset; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        for (int form = 0; form < 3; form++) {
            size_t n = strlen(at);
            if (n >= sizeof name)
                continue;
            for (size_t i = 0; i <= n; i++)
                name[i] = form == 1 && at[i] == '-' ? '_' : form == 2 && at[i] == '_' ? '-' : at[i];
            json_t *v = nm_json_get(file, name);
            if (v)
                return v;
        }
    return NULL;
}

static bool is_template(const char *s) { return strstr(s, "{c}") || strstr(s, "{}"); }

static noema_status take(nm_prompts *p, const json_t *list, const char *path, noema_error *err)
{
    json_t *v;
    size_t i;
    bool templates = json_array_size(list) && json_is_string(json_array_get(list, 0)) && is_template(json_string_value(json_array_get(list, 0)));
    if (templates ? p->n_texts : p->n_names)
        return NOEMA_OK; /* an option or an earlier file said it */
    json_array_foreach(list, i, v) {
        if (!json_is_string(v))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: expected lists of strings", path);
        bool ok = templates ? append(&p->text, &p->n_texts, plain_template(json_string_value(v)))
                            : append(&p->name, &p->n_names, nm_strdup(json_string_value(v)));
        if (!ok)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    return NOEMA_OK;
}

/* One name a line, or JSON with class numbers: data/names.c. */
static noema_status take_names(nm_prompts *p, const char *path, noema_error *err)
{
    noema_names *l = NULL;
    noema_status s = noema_names_read(&l, path, err);
    size_t n = 0;
    const char *const *item = noema_names_items(l, &n);
    bool ok = s != NOEMA_OK || (p->wnid = calloc(n, sizeof *p->wnid)) != NULL;
    for (size_t i = 0; s == NOEMA_OK && ok && i < n; i++) {
        const char *wnid = nm_names_wnid(l, i);
        ok = append(&p->name, &p->n_names, nm_strdup(item[i])) && (!wnid || (p->wnid[i] = nm_strdup(wnid)));
    }
    noema_names_free(l);
    return ok ? s : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
}

/* A file of names or of templates by data set; sets without templates take ImageNet's. */
static noema_status from_json(nm_prompts *p, const char *path, const char *dataset, noema_error *err)
{
    json_t *j = nm_json_load(path, err);
    if (!j)
        return err->code;
    const json_t *list = json_is_array(j) ? j : NULL;
    noema_status s = NOEMA_OK;
    if (!list && !json_is_object(j))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected {\"data set\": [names or templates]} or a list", path);
    else if (!list && !dataset)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: name the data set whose prompts are meant (--dataset)", path);
    if (s == NOEMA_OK && !list && !(list = entry_of(j, dataset))) {
        list = nm_json_get(j, "imagenet1k"); /* CLIP_benchmark's files of names lack the sets that bring their own */
        const json_t *first = json_array_get(list, 0);
        if (!first || !json_is_string(first) || !is_template(json_string_value(first)))
            list = NULL;
    }
    if (s == NOEMA_OK && list && !json_is_array(list))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a list under '%s'", path, dataset ? dataset : "");
    if (s == NOEMA_OK && list)
        s = take(p, list, path, err);
    json_decref(j);
    return s;
}

static noema_status from_dir(nm_prompts *p, const noema_eval_options *o, noema_error *err)
{
    static const char *const names[] = { "classnames", "zeroshot_classification_templates" };
    noema_status s = NOEMA_OK;
    int found = 0;
    for (int i = 0; i < 2 && s == NOEMA_OK; i++) {
        char *path = nm_sprintf("%s/%s_%s.json", o->prompts_dir, o->language ? o->language : "en", names[i]);
        if (!path)
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
        if (nm_file_exists(path)) {
            found++;
            s = from_json(p, path, o->dataset, err);
        }
        free(path);
    }
    if (s == NOEMA_OK && !found)
        s = nm_fail(err, NOEMA_E_MISSING, "%s: expected %s_classnames.json or %s_zeroshot_classification_templates.json there", o->prompts_dir,
                    o->language ? o->language : "en", o->language ? o->language : "en");
    return s;
}

/* [{"label": 0, "name": "a"}, ...], {"0": "a", ...}. */
static bool has_numbers(const json_t *j)
{
    const char *key = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)j));
    return json_is_object(json_array_get(j, 0)) || (key && *key && !key[strspn(key, "0123456789")]);
}

static noema_status classes_file(nm_prompts *p, const char *path, const char *dataset, noema_error *err)
{
    json_t *j = nm_has_suffix(path, ".json") ? nm_json_load(path, err) : NULL;
    bool by_set = j && !has_numbers(j);
    json_decref(j);
    if (!j && nm_has_suffix(path, ".json"))
        return err->code;
    return by_set ? from_json(p, path, dataset, err) : take_names(p, path, err);
}

static noema_status templates_file(nm_prompts *p, const char *path, const char *dataset, noema_error *err)
{
    return nm_has_suffix(path, ".json") ? from_json(p, path, dataset, err) : nm_read_lines(&p->text, &p->n_texts, path, NM_LINES_LIMIT, err);
}

noema_status nm_prompts_read(nm_prompts *p, const noema_eval_options *o, noema_error *err)
{
    noema_status s = NOEMA_OK;
    *p = (nm_prompts){ 0 };
    if (o->classes)
        s = classes_file(p, o->classes, o->dataset, err);
    if (s == NOEMA_OK && o->templates)
        s = templates_file(p, o->templates, o->dataset, err);
    for (size_t i = 0; i < o->n_prompts && s == NOEMA_OK; i++)
        s = from_json(p, o->prompts[i], o->dataset, err);
    if (s == NOEMA_OK && o->prompts_dir)
        s = from_dir(p, o, err);
    if (s == NOEMA_OK && (o->n_prompts || o->prompts_dir) && !p->n_names && !p->n_texts)
        s = nm_fail(err, NOEMA_E_MISSING, "%s: neither names nor templates of the data set '%s'", o->n_prompts ? o->prompts[0] : o->prompts_dir,
                    o->dataset ? o->dataset : "");
    for (size_t i = 0; s == NOEMA_OK && !o->templates && i < o->n_templates; i++) {
        if (i == 0) { /* the caller's list goes before the files' */
            nm_strings_free(p->text, p->n_texts);
            p->text = NULL;
            p->n_texts = 0;
        }
        if (!append(&p->text, &p->n_texts, nm_strdup(o->template_list[i])))
            s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: templates");
    }
    for (int64_t i = 0; s == NOEMA_OK && i < p->n_texts; i++) {
        char *t = plain_template(p->text[i]);
        if (!t || !strstr(t, "{}"))
            s = nm_fail(err, t ? NOEMA_E_FORMAT : NOEMA_E_MEMORY, "%s: template '%s': expected {} for the name", o->templates ? o->templates : "templates",
                        p->text[i]);
        free(p->text[i]);
        p->text[i] = t ? t : nm_strdup("");
    }
    if (s != NOEMA_OK)
        nm_prompts_free(p);
    return s;
}
