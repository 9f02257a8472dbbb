/* verify_model.c - one model in several processes: NOEMA_CPU is read once per process, so each case is a child that sends its
 * vectors through a pipe. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "noema/inspect.h"
#include "verify.h"

enum { IMAGES = 3 };
static const char *const texts[] = { "a photo of a cat", "강아지 사진", "two red cars on a street" };
enum { TEXTS = sizeof texts / sizeof *texts };

typedef struct setting { const char *cpu; noema_dtype dtype; int threads; bool singly; } setting;

/* What a child says first; then n * dim floats follow. */
typedef struct answer { int ok, n_images, n_texts, dim; noema_dtype dtype; char cpu[16]; char message[256]; } answer;
typedef struct vectors { answer a; float *v; } vectors;

/* Numbers in about -2..2, the same everywhere (a linear congruential generator). */
static void fill(float *x, size_t n)
{
    uint32_t s = 12345;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) * 0x1p-22f - 2.0f;
    }
}

static noema_status embed_all(noema_session *s, const noema_model_info *i, bool singly, answer *a, float *out, noema_error *err)
{
    size_t pixels = 3 * (size_t)i->image_height * (size_t)i->image_width, dim = (size_t)i->embed_dim, picture = cli_image_floats(i);
    noema_status st = NOEMA_OK;
    if (i->has_image) {
        float *x = cli_alloc(IMAGES * pixels, sizeof *x);
        fill(x, IMAGES * pixels);
        a->n_images = IMAGES * i->image_vectors; /* rows */
        for (size_t k = 0; k < IMAGES && st == NOEMA_OK; k += singly ? 1 : IMAGES)
            st = noema_embed_tensors(s, singly ? 1 : IMAGES, x + k * pixels, NOEMA_NORMALIZE | NOEMA_ALL_VECTORS, out + k * picture, err);
        free(x);
    }
    float *rest = out + (size_t)a->n_images * dim;
    noema_error no_tokenizer = NOEMA_ERROR_INIT;
    if (st != NOEMA_OK || !i->has_text || noema_embed_texts(s, 1, texts, NULL, NOEMA_NORMALIZE, rest, &no_tokenizer) == NOEMA_E_MISSING)
        return st;
    a->n_texts = TEXTS;
    for (size_t k = 0; k < TEXTS && st == NOEMA_OK; k += singly ? 1 : TEXTS)
        st = noema_embed_texts(s, singly ? 1 : TEXTS, texts + k, NULL, NOEMA_NORMALIZE, rest + k * dim, err);
    return st;
}

static void send_all(int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k <= 0)
            _exit(1);
        p += k;
        n -= (size_t)k;
    }
}

static void child(cli *c, const char *name, const setting *set, int fd)
{
    noema_model_options o;
    noema_context_options co;
    noema_context *ctx = NULL;
    noema_model *m = NULL;
    noema_session *s = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    answer a = { 0 };
    float *out = NULL;
    if (set->cpu)
        setenv("NOEMA_CPU", set->cpu, 1);
    noema_context_options_default(&co);
    co.n_threads = set->threads;
    bool fine = cli_model_options(c, &o);
    o.dtype = set->dtype;
    if (fine && noema_context_create(&ctx, &co, &err) == NOEMA_OK && noema_model_open(&m, ctx, name, &o, &err) == NOEMA_OK &&
        noema_session_create(&s, m, &err) == NOEMA_OK) {
        const noema_model_info *i = noema_model_get_info(m);
        out = cli_alloc(IMAGES * cli_image_floats(i) + TEXTS * (size_t)i->embed_dim, sizeof *out);
        a.dim = i->embed_dim;
        a.dtype = i->dtype;
        snprintf(a.cpu, sizeof a.cpu, "%s", noema_context_cpu(ctx));
        a.ok = embed_all(s, i, set->singly, &a, out, &err) == NOEMA_OK;
    }
    snprintf(a.message, sizeof a.message, "%.255s", err.message);
    send_all(fd, &a, sizeof a);
    if (a.ok)
        send_all(fd, out, (size_t)(a.n_images + a.n_texts) * (size_t)a.dim * sizeof *out);
    _exit(0);
}

static bool receive(int fd, void *data, size_t n)
{
    char *p = data;
    while (n) {
        ssize_t k = read(fd, p, n);
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* Runs one case. v.a.ok 0: it failed, v.a.message says why. */
static vectors run_case(cli *c, const char *name, setting set)
{
    vectors r = { 0 };
    int fd[2], status;
    cli_flush();
    if (pipe(fd)) {
        snprintf(r.a.message, sizeof r.a.message, "no pipe");
        return r;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(fd[0]);
        child(c, name, &set, fd[1]);
    }
    close(fd[1]);
    bool got = pid > 0 && receive(fd[0], &r.a, sizeof r.a);
    if (got && r.a.ok) {
        size_t n = (size_t)(r.a.n_images + r.a.n_texts) * (size_t)r.a.dim;
        r.v = cli_alloc(n, sizeof *r.v);
        got = receive(fd[0], r.v, n * sizeof *r.v);
    }
    close(fd[0]);
    if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
        snprintf(r.a.message, sizeof r.a.message, "the process died of %s", strsignal(WTERMSIG(status)));
    if (!got)
        r.a.ok = 0;
    return r;
}

/* Smallest cosine of the unit rows and largest difference of an element. */
static void compare(const vectors *x, const vectors *y, double *cosine, double *diff)
{
    *cosine = 1;
    *diff = 0;
    for (int i = 0; i < x->a.n_images + x->a.n_texts; i++) {
        double dot = 0;
        for (int d = 0; d < x->a.dim; d++) {
            float a = x->v[(size_t)i * (size_t)x->a.dim + (size_t)d], b = y->v[(size_t)i * (size_t)x->a.dim + (size_t)d];
            dot += (double)a * b;
            *diff = fmax(*diff, isfinite(a) && isfinite(b) ? fabs((double)a - b) : INFINITY);
        }
        *cosine = dot < *cosine ? dot : *cosine;
    }
}

static const char *dtype_name(noema_dtype d) { return d == NOEMA_DTYPE_F32 ? "f32" : d == NOEMA_DTYPE_BF16 ? "bf16" : "int8"; }

/* Bounds on the worst cosine to f32 in plain C: rounding of f32; of bf16 operands; of int8 operands. */
static double least_cosine(noema_dtype d) { return d == NOEMA_DTYPE_F32 ? 0.999999 : d == NOEMA_DTYPE_BF16 ? 0.999 : 0.98; }

static void verify_level(cli *c, const char *name, const vectors *ref, const char *cpu, noema_dtype d)
{
    char check[64];
    double cosine, diff;
    snprintf(check, sizeof check, "%s %s against plain C f32", cpu, dtype_name(d));
    vectors v = run_case(c, name, (setting){ .cpu = cpu, .dtype = d });
    if (!v.a.ok)
        verify_row(c, check, v.a.message[0] ? VERIFY_FAILED : VERIFY_SKIPPED, "%s", v.a.message);
    else if (strcmp(v.a.cpu, cpu))
        verify_row(c, check, VERIFY_SKIPPED, "this machine has %s at most", v.a.cpu);
    else {
        compare(ref, &v, &cosine, &diff);
        verify_row(c, check, cosine >= least_cosine(d) && (d != NOEMA_DTYPE_F32 || diff <= 1e-5) ? VERIFY_OK : VERIFY_FAILED,
                   "cosine at least %.7f, largest difference %.2e%s", cosine, diff, v.a.dtype == d ? "" : " (computes in f32)");
    }
    free(v.v);
}

/* The same bits alone and in a batch, with one thread and with all. */
static void verify_invariance(cli *c, const char *name, noema_dtype d)
{
    vectors all = run_case(c, name, (setting){ .dtype = d });
    static const struct { const char *what; int threads; bool singly; } ways[] = { { "one thread", 1, false }, { "three threads", 3, false }, { "one by one", 0, true } };
    for (size_t i = 0; i < sizeof ways / sizeof *ways && !cli_interrupted(); i++) {
        char check[64];
        vectors v = run_case(c, name, (setting){ .dtype = d, .threads = ways[i].threads, .singly = ways[i].singly });
        snprintf(check, sizeof check, "%s: %s", dtype_name(d), ways[i].what);
        if (!all.a.ok || !v.a.ok)
            verify_row(c, check, VERIFY_FAILED, "%s", all.a.ok ? v.a.message : all.a.message);
        else {
            size_t n = (size_t)(v.a.n_images + v.a.n_texts) * (size_t)v.a.dim;
            double cosine, diff;
            compare(&all, &v, &cosine, &diff);
            bool same = !memcmp(all.v, v.v, n * sizeof *v.v);
            verify_row(c, check, same ? VERIFY_OK : VERIFY_FAILED, same ? "the same bits" : "differs by up to %.2e", diff);
        }
        free(v.v);
    }
    free(all.v);
}

/* A small ViT with drawn weights. */
static bool draw_into(const char *folder)
{
    static const char config[] = "{\"model_cfg\":{\"embed_dim\":64,\"vision_cfg\":{\"image_size\":64,\"layers\":3,\"width\":192,\"head_width\":64,"
                                 "\"patch_size\":8},\"text_cfg\":{\"context_length\":32,\"vocab_size\":1000,\"width\":128,\"heads\":4,\"layers\":3}}}";
    char path[96];
    noema_error err = NOEMA_ERROR_INIT;
    noema_context *ctx = NULL;
    noema_model *m = NULL;
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(config, f) >= 0;
    if (f && fclose(f))
        ok = false;
    ok = ok && noema_context_create(&ctx, NULL, &err) == NOEMA_OK && noema_model_new(&m, ctx, NULL, path, 1, NULL, &err) == NOEMA_OK &&
         noema_model_save(m, folder, NOEMA_LAYOUT_OPEN_CLIP, NOEMA_DTYPE_F32, &err) == NOEMA_OK;
    if (!ok)
        fprintf(stderr, "noema verify: cannot draw a model: %s\n", err.message);
    return ok;
}

/* In a process of its own too, in a folder below /tmp; false: a row says why not. */
static bool draw_model(cli *c, char folder[64])
{
    int status = 1;
    snprintf(folder, 64, "/tmp/noema-verify-XXXXXX");
    if (!mkdtemp(folder)) {
        verify_row(c, "model", VERIFY_SKIPPED, "cannot make %s", folder);
        return false;
    }
    cli_flush();
    pid_t pid = fork();
    if (pid == 0)
        _exit(!draw_into(folder));
    bool ok = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    if (!ok)
        verify_row(c, "model", VERIFY_FAILED, "cannot draw one");
    return ok;
}

static void remove_model(const char *folder)
{
    static const char *const files[] = { "open_clip_model.safetensors", "open_clip_config.json", "config.json" };
    char path[128];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

void verify_model(cli *c, const char *name)
{
    static const char *const levels[] = { "ref", "avx2", "avx512", "avx512_bf16", "amx" };
    static const noema_dtype dtypes[] = { NOEMA_DTYPE_F32, NOEMA_DTYPE_BF16, NOEMA_DTYPE_INT8 };
    char folder[64] = "";
    if (!name && !draw_model(c, folder)) {
        remove_model(folder);
        return;
    }
    const char *model = name ? name : folder;
    vectors ref = run_case(c, model, (setting){ .cpu = "ref", .dtype = NOEMA_DTYPE_F32 });
    if (ref.a.ok && strcmp(ref.a.cpu, "ref")) {
        ref.a.ok = 0;
        snprintf(ref.a.message, sizeof ref.a.message, "NOEMA_CPU=ref gave %s", ref.a.cpu);
    }
    if (!ref.a.ok)
        verify_row(c, "model", VERIFY_FAILED, "%s", ref.a.message);
    for (size_t d = 0; ref.a.ok && d < 3; d++)
        for (size_t i = 0; i < 5 && !cli_interrupted(); i++)
            if (d || i)
                verify_level(c, model, &ref, levels[i], dtypes[d]);
    for (size_t d = 0; ref.a.ok && d < 3 && !cli_interrupted(); d++)
        verify_invariance(c, model, dtypes[d]);
    free(ref.v);
    if (!name)
        remove_model(folder);
}
