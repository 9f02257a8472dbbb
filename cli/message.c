/* message.c - stderr: notes, failures, the progress bar; signals; the exit code. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

static volatile sig_atomic_t interrupted;
static bool bar_shown; /* a bar is on the current line of stderr */

static void wipe_bar(void)
{
    if (bar_shown)
        fputs("\r\033[K", stderr);
    bar_shown = false;
}

static void vsay(const cli *c, const char *fmt, va_list ap)
{
    fflush(stdout);
    wipe_bar();
    fprintf(stderr, "noema%s%s: ", c && c->verb ? " " : "", c && c->verb ? c->verb->name : "");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void cli_say(const cli *c, const char *fmt, ...)
{
    va_list ap;
    if (c && c->quiet)
        return;
    va_start(ap, fmt);
    vsay(c, fmt, ap);
    va_end(ap);
}

void cli_warn(const cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(c, fmt, ap);
    va_end(ap);
}

int cli_usage(const cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(c, fmt, ap);
    va_end(ap);
    fprintf(stderr, "`noema%s%s --help` tells how to use it\n", c->verb ? " " : "", c->verb ? c->verb->name : "");
    return CLI_USAGE;
}

int cli_fatal(const cli *c, const noema_error *err)
{
    cli_warn(c, "%s", err->message[0] ? err->message : noema_status_name(err->code));
    return cli_interrupted() ? CLI_INTERRUPTED : CLI_NOTHING_DONE;
}

void cli_failed(cli *c, const char *input, const noema_error *err)
{
    if (strstr(err->message, input))
        cli_warn(c, "%s", err->message);
    else
        cli_warn(c, "%s: %s", input, err->message[0] ? err->message : noema_status_name(err->code));
    c->n_failed++;
}

void cli_failed_msg(cli *c, const char *input, const char *fmt, ...)
{
    noema_error e = NOEMA_ERROR_INIT;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e.message, sizeof e.message, fmt, ap);
    va_end(ap);
    cli_failed(c, input, &e);
}

int cli_exit(const cli *c)
{
    cli_flush();
    if (cli_interrupted()) {
        cli_warn(c, "interrupted after %zu input%s", c->n_done, c->n_done == 1 ? "" : "s");
        return CLI_INTERRUPTED;
    }
    if (!c->n_failed)
        return CLI_OK;
    if (c->n_done + c->n_failed > 1)
        cli_warn(c, "%zu of %zu inputs failed", c->n_failed, c->n_done + c->n_failed);
    return c->n_done ? CLI_SOME_FAILED : CLI_NOTHING_DONE;
}

static void on_signal(int sig)
{
    interrupted = 1;
    signal(sig, SIG_DFL);
}

void cli_catch_signals(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal; /* no SA_RESTART: a read of stdin returns */
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN); /* sockets of the hub; stdout is handled by cli_emit() */
}

bool cli_interrupted(void) { return interrupted; }

double cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_progress_begin(cli_progress *p, const cli *c, const char *unit, int64_t total)
{
    double now = cli_now();
    *p = (cli_progress){ c, unit, 0, total, now, now, c->err_tty && !c->quiet };
}

static void put_time(double s)
{
    long t = (long)ceil(s);
    if (t >= 3600)
        fprintf(stderr, "%ld:%02ld:%02ld", t / 3600, t / 60 % 60, t % 60);
    else
        fprintf(stderr, "%ld:%02ld", t / 60, t % 60);
}

void cli_progress_set(cli_progress *p, int64_t done)
{
    double now = cli_now(), rate;
    p->done = done;
    if (!p->on || now - p->shown < 0.1)
        return;
    p->shown = now;
    rate = (double)done / (now - p->start);
    wipe_bar();
    if (p->total > 0) {
        int width = 24, full = (int)((double)width * (double)done / (double)p->total);
        fprintf(stderr, "%.*s%.*s ", full, "########################", width - full, "........................");
        fprintf(stderr, "%lld/%lld %s  %.3g/s  ", (long long)done, (long long)p->total, p->unit, rate);
        if (rate > 0)
            put_time((double)(p->total - done) / rate), fputs(" left", stderr);
    } else
        fprintf(stderr, "%lld %s  %.3g/s", (long long)done, p->unit, rate);
    bar_shown = true;
    fflush(stderr);
}

void cli_progress_end(cli_progress *p)
{
    if (p->on)
        wipe_bar();
    p->on = false;
}
