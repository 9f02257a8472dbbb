/* out.c - results on stdout: JSON text, and what happens when stdout is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "noema/json.h"

static void die(const char *what)
{
    fprintf(stderr, "noema: %s\n", what);
    _exit(CLI_NOTHING_DONE);
}

void *cli_alloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        die("out of memory");
    return p;
}

void *cli_grow(void *p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return p;
    size_t n = *cap ? *cap : 16;
    while (n < need)
        n *= 2;
    if (n > SIZE_MAX / size || !(p = realloc(p, n * size)))
        die("out of memory");
    *cap = n;
    return p;
}

char *cli_dup(const char *s)
{
    char *p = cli_alloc(strlen(s) + 1, 1);
    memcpy(p, s, strlen(s));
    return p;
}

static void vput(cli_buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0)
        die("a message could not be formatted");
    b->data = cli_grow(b->data, &b->cap, b->len + (size_t)n + 1, 1);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
}

char *cli_text(const char *fmt, ...)
{
    cli_buf b = { 0 };
    va_list ap;
    va_start(ap, fmt);
    vput(&b, fmt, ap);
    va_end(ap);
    return b.data;
}

void cli_printf(cli_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vput(b, fmt, ap);
    va_end(ap);
}

void cli_putn(cli_buf *b, const char *s, size_t n)
{
    b->data = cli_grow(b->data, &b->cap, b->len + n + 1, 1);
    if (n)
        memcpy(b->data + b->len, s, n);
    b->len += n;
    b->data[b->len] = 0;
}

void cli_puts(cli_buf *b, const char *s) { cli_putn(b, s, strlen(s)); }

void cli_put_jsonn(cli_buf *b, const char *s, size_t n)
{
    size_t most = 6 * n + 3; /* \u00XX per byte, two quotes, NUL */
    b->data = cli_grow(b->data, &b->cap, b->len + most, 1);
    b->len += noema_json_string(b->data + b->len, most, s, n);
}

void cli_put_json(cli_buf *b, const char *s) { cli_put_jsonn(b, s, strlen(s)); }

void cli_put_f32(cli_buf *b, float v)
{
    char t[32];
    cli_putn(b, t, noema_json_f32(t, v));
}

void cli_put_f32s(cli_buf *b, const float *v, size_t n)
{
    cli_puts(b, "[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            cli_puts(b, ",");
        cli_put_f32(b, v[i]);
    }
    cli_puts(b, "]");
}

void cli_buf_free(cli_buf *b)
{
    free(b->data);
    *b = (cli_buf){ 0 };
}

/* stdout refused. The reader of a pipe went away: end as SIGPIPE would have ended us, without a word. */
static void stdout_failed(int why)
{
    if (why == EPIPE) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    fprintf(stderr, "noema: cannot write the results: %s\n", strerror(why));
    _exit(CLI_NOTHING_DONE);
}

void cli_flush(void)
{
    errno = 0;
    if (fflush(stdout) || ferror(stdout))
        stdout_failed(errno);
}

void cli_emit(cli_buf *b)
{
    static int tty = -1;
    cli_putn(b, "\n", 1);
    errno = 0;
    if (fwrite(b->data, 1, b->len, stdout) != b->len)
        stdout_failed(errno);
    b->len = 0;
    if (tty < 0)
        tty = isatty(STDOUT_FILENO);
    if (tty)
        cli_flush();
}

bool cli_tables(const cli *c) { return c->out_tty && !c->json; }
