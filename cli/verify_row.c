/* verify_row.c - a row of `noema verify`. */
#include <stdarg.h>
#include <stdio.h>

#include "verify.h"

void verify_row(cli *c, const char *check, verify_result r, const char *fmt, ...)
{
    static const char *const words[] = { "ok", "FAILED", "skipped" }, *const json[] = { "true", "false", "null" };
    cli_buf b = { 0 };
    char detail[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    if (cli_tables(c))
        cli_printf(&b, "%-8s %-44s %s", words[r], check, detail);
    else {
        cli_puts(&b, "{\"check\":");
        cli_put_json(&b, check);
        cli_printf(&b, ",\"ok\":%s,\"detail\":", json[r]);
        cli_put_json(&b, detail);
        cli_puts(&b, "}");
    }
    cli_emit(&b);
    cli_buf_free(&b);
    c->n_done += r == VERIFY_OK;
    c->n_failed += r == VERIFY_FAILED;
}
