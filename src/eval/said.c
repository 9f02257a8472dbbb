/* said.c - see said.h. */
#include "eval/said.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/journal.h"
#include "base/json.h"
#include "eval/rows.h"

static noema_status no_memory(nm_eval *e, const char *unit) { return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %s", unit); }

static char *part_of(const nm_eval *e) { return e->o.predictions ? nm_sprintf("%s.part", e->o.predictions) : NULL; }

void nm_say_key(nm_sha256 *key, nm_eval *e, const char *kind)
{
    const int facts[] = { e->o.beams, e->o.max_new };
    nm_rows_key(key, e, kind, 0);
    nm_rows_key_text(key, e->o.prompt);
    nm_sha256_update(key, facts, sizeof facts);
}

static noema_status some(nm_eval *e, nm_journal *j, int64_t first, int64_t n, nm_say_fn *fn, void *arg)
{
    nm_said said[NM_SAID_MOST] = { { .why = NOEMA_ERROR_INIT } };
    nm_buf b = { 0 };
    noema_status s = fn(arg, first, n, said);
    for (int64_t i = 0; i < n; i++) {
        const nm_said *x = &said[i];
        const char *value = x->text ? x->text : x->why.message, *input = x->input ? x->input : "";
        nm_buf_printf(&b, "{\"row\":%lld,", (long long)(first + i));
        if (!x->text) {
            nm_buf_puts(&b, "\"input\":");
            nm_json_put_str(&b, input, strlen(input));
            nm_buf_putc(&b, ',');
        }
        nm_buf_puts(&b, x->text ? "\"text\":" : "\"error\":");
        nm_json_put_str(&b, value, strlen(value));
        nm_buf_puts(&b, "}\n");
        free(x->text);
        free(x->input);
    }
    if (s == NOEMA_OK)
        s = nm_journal_add(j, &b, e->err);
    nm_buf_free(&b);
    return s;
}

static noema_status take(nm_eval *e, const json_t *line, const char *unit, char **text)
{
    const char *said = nm_json_str(line, "text", NULL);
    noema_error why = NOEMA_ERROR_INIT;
    if (said)
        return (*text = nm_strdup(said)) ? NOEMA_OK : no_memory(e, unit);
    nm_fail(&why, NOEMA_E_FORMAT, "%s", nm_json_str(line, "error", "?"));
    nm_eval_failed(e, nm_json_str(line, "input", "?"), &why);
    return NOEMA_OK;
}

noema_status nm_eval_say(nm_eval *e, nm_sha256 *key, const char *unit, int64_t n, nm_say_fn *fn, void *arg, char **text)
{
    unsigned char digest[32];
    char hex[65], head[96], *path = part_of(e);
    nm_journal j = { 0 };
    nm_sha256_final(key, digest);
    nm_hex(digest, sizeof digest, hex);
    snprintf(head, sizeof head, "{\"key\":\"%s\"}", hex);
    noema_status s = e->o.predictions && !path ? no_memory(e, unit) : nm_journal_open(&j, path, head, 0, n, e->err);
    for (int64_t i = 0; i < n && s == NOEMA_OK;) {
        int64_t have = (int64_t)json_array_size(j.lines), batch = n - have < NM_SAID_MOST ? n - have : NM_SAID_MOST;
        if (i == have && nm_eval_stopped(e))
            s = nm_fail(e->err, NOEMA_E_CANCELLED, "interrupted after %lld of %lld %s; %s", (long long)i, (long long)n, unit,
                        path ? "the same call goes on from there" : "with --predictions FILE they would be kept");
        else if (i == have)
            s = some(e, &j, i, batch, fn, arg);
        for (; s == NOEMA_OK && i < (int64_t)json_array_size(j.lines); i++)
            s = take(e, json_array_get(j.lines, (size_t)i), unit, &text[i]);
        nm_eval_progress(e, unit, i, n);
    }
    s = nm_journal_close(&j, s, e->err);
    nm_journal_free(&j);
    free(path);
    return s;
}

void nm_eval_said(const nm_eval *e)
{
    char *path = part_of(e);
    if (path)
        unlink(path);
    free(path);
}
