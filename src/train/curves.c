/* curves.c - see curves.h. */
#include "train/curves.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

#define WIDTH 800
#define HEIGHT 220
#define MARGIN 56
#define MOST_POINTS 800 /* one per pixel column: longer runs are averaged into as many bins */

typedef struct series { const char *title, *key, *colour; double *y; } series;

static size_t read_series(const char *text, size_t size, series *s, size_t n_series, size_t cap)
{
    size_t n = 0;
    for (size_t at = 0; at < size && n < cap;) {
        const char *end = memchr(text + at, '\n', size - at);
        if (!end)
            break;
        for (size_t k = 0; k < n_series; k++) {
            const char *hit = strstr(text + at, s[k].key);
            s[k].y[n] = hit && hit < end ? strtod(hit + strlen(s[k].key), NULL) : NAN;
        }
        n++;
        at = (size_t)(end - text) + 1;
    }
    return n;
}

static void draw(nm_buf *b, const series *s, size_t n, int top)
{
    double lo = INFINITY, hi = -INFINITY;
    size_t bins = n < MOST_POINTS ? n : MOST_POINTS;
    for (size_t i = 0; i < n; i++)
        if (isfinite(s->y[i])) {
            lo = s->y[i] < lo ? s->y[i] : lo;
            hi = s->y[i] > hi ? s->y[i] : hi;
        }
    if (!(hi > lo)) {
        lo -= 0.5;
        hi += 0.5;
    }
    int x0 = MARGIN, x1 = WIDTH - 16, y0 = top + 28, y1 = top + HEIGHT - 24;
    nm_buf_printf(b, "<text x='%d' y='%d' font-weight='bold'>%s</text>\n", x0, top + 18, s->title);
    for (int k = 0; k <= 4; k++) {
        double v = hi - (hi - lo) * k / 4;
        int y = y0 + (y1 - y0) * k / 4;
        nm_buf_printf(b, "<path d='M%d %dH%d' stroke='#ddd'/><text x='%d' y='%d' text-anchor='end'>%.3g</text>\n", x0, y, x1, x0 - 6, y + 4, v);
    }
    nm_buf_printf(b, "<text x='%d' y='%d'>0</text><text x='%d' y='%d' text-anchor='end'>step %zu</text>\n<path fill='none' stroke='%s' stroke-width='1.5' d='", x0,
                  y1 + 16, x1, y1 + 16, n, s->colour);
    for (size_t i = 0; i < bins; i++) {
        size_t from = i * n / bins, to = (i + 1) * n / bins;
        double sum = 0;
        for (size_t k = from; k < to; k++)
            sum += s->y[k];
        double v = sum / (double)(to - from), x = bins > 1 ? x0 + (double)(x1 - x0) * (double)i / (double)(bins - 1) : x0;
        if (isfinite(v))
            nm_buf_printf(b, "%c%.1f %.1f", i ? 'L' : 'M', x, y1 - (y1 - y0) * (v - lo) / (hi - lo));
    }
    nm_buf_puts(b, "'/>\n");
}

noema_status nm_curves_write(const char *folder, noema_error *err)
{
    char *log = nm_path_join(folder, "log.jsonl"), *svg = nm_path_join(folder, "curves.svg"), *text = NULL;
    size_t size = 0, lines = 0;
    noema_status s = log && svg ? nm_read_file(&text, &size, log, (size_t)1 << 32, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (s == NOEMA_OK && lines) {
        series all[] = { { "loss", "\"loss\":", "#1f77b4", NULL }, { "learning rate", "\"lr\":", "#2ca02c", NULL }, { "gradient norm", "\"grad_norm\":", "#d62728", NULL } };
        nm_buf b = { 0 };
        nm_buf_printf(&b, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='11'>\n<rect width='100%%' height='100%%' fill='white'/>\n",
                      WIDTH, 3 * HEIGHT);
        bool ok = true;
        for (int k = 0; k < 3; k++)
            ok = ok && (all[k].y = nm_malloc_array(lines, sizeof(double)));
        size_t n = ok ? read_series(text, size, all, 3, lines) : 0;
        for (int k = 0; k < 3; k++) {
            if (ok)
                draw(&b, &all[k], n, k * HEIGHT);
            free(all[k].y);
        }
        nm_buf_puts(&b, "</svg>\n");
        s = ok && !b.failed ? nm_write_file_atomic(svg, b.data, b.len, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
        nm_buf_free(&b);
    }
    free(log);
    free(svg);
    free(text);
    return s;
}
