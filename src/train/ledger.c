/* ledger.c - see ledger.h. */
#include "train/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "train/savepoints.h"

noema_status nm_ledger_open(nm_ledger *l, const char *path, int64_t step, noema_error *err)
{
    *l = (nm_ledger){ 0 };
    if (!path)
        return NOEMA_OK;
    if (!(l->path = nm_strdup(path)))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    return nm_steps_cut(path, step, &l->n, err);
}

noema_status nm_ledger_add(nm_ledger *l, int64_t step, int64_t row, const char *input, const char *error, noema_error *err)
{
    nm_buf b = { 0 };
    l->n++;
    if (!l->path)
        return NOEMA_OK;
    if (!l->f && !(l->f = fopen(l->path, "ae")))
        return nm_fail(err, NOEMA_E_IO, "%s: cannot open for appending", l->path);
    nm_buf_printf(&b, "{\"step\":%lld,\"row\":%lld,\"input\":", (long long)step, (long long)row);
    nm_json_put_str(&b, input, strlen(input));
    nm_buf_puts(&b, ",\"error\":");
    nm_json_put_str(&b, error, strlen(error));
    nm_buf_puts(&b, "}\n");
    bool ok = !b.failed && fwrite(b.data, 1, b.len, l->f) == b.len && fflush(l->f) == 0;
    nm_buf_free(&b);
    return ok ? NOEMA_OK : nm_fail(err, NOEMA_E_IO, "%s: cannot write", l->path);
}

void nm_ledger_close(nm_ledger *l)
{
    if (l->f)
        fclose(l->f);
    free(l->path);
    *l = (nm_ledger){ 0 };
}
