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

typedef struct point { double step, y; } point;
typedef struct series { const char *name, *key, *colour; point *p; size_t n; } series;
enum { PANEL_SERIES = 3, PANELS = 4 };
typedef struct panel { const char *title; series of[PANEL_SERIES]; } panel;

static bool read_series(const char *text, size_t size, series *s, size_t cap)
{
    if (!(s->p = nm_malloc_array(cap, sizeof *s->p)))
        return false;
    for (size_t at = 0; at < size && s->n < cap;) {
        const char *end = memchr(text + at, '\n', size - at), *hit;
        long long step;
        if (!end || sscanf(text + at, "{\"step\":%lld", &step) != 1)
            break;
        char *rest = NULL;
        double y = (hit = strstr(text + at, s->key)) && hit < end ? strtod(hit + strlen(s->key), &rest) : NAN;
        if (isfinite(y) && rest > hit + strlen(s->key)) /* null: not finite */
            s->p[s->n++] = (point){ (double)step, y };
        at = (size_t)(end - text) + 1;
    }
    return true;
}

/* Long runs are averaged into one point per bin. */
static void draw_line(nm_buf *b, const series *s, double steps, double lo, double hi, int top)
{
    int x0 = MARGIN, x1 = WIDTH - 16, y0 = top + 28, y1 = top + HEIGHT - 24;
    size_t bins = s->n < MOST_POINTS ? s->n : MOST_POINTS;
    bool on = false;
    nm_buf_printf(b, "<path fill='none' stroke='%s' stroke-width='1.5' d='", s->colour);
    for (size_t i = 0; i < bins; i++) {
        size_t from = i * s->n / bins, to = (i + 1) * s->n / bins;
        double sum = 0, at = 0;
        for (size_t k = from; k < to; k++) {
            sum += s->p[k].y;
            at += s->p[k].step;
        }
        double n = (double)(to - from), v = sum / n, x = x0 + (double)(x1 - x0) * at / n / (steps > 1 ? steps - 1 : 1);
        if (!isfinite(v))
            continue;
        double y = y1 - (y1 - y0) * (v - lo) / (hi - lo);
        nm_buf_printf(b, "%c%.1f %.1f", on ? 'L' : 'M', x, y);
        on = true;
        if (s->n == 1)
            nm_buf_printf(b, "h3");
    }
    nm_buf_puts(b, "'/>\n");
}

static void draw(nm_buf *b, const panel *p, size_t steps, int top)
{
    double lo = INFINITY, hi = -INFINITY;
    for (int k = 0; k < PANEL_SERIES; k++)
        for (size_t i = 0; i < p->of[k].n; i++)
            if (isfinite(p->of[k].p[i].y)) {
                lo = fmin(lo, p->of[k].p[i].y);
                hi = fmax(hi, p->of[k].p[i].y);
            }
    if (!(hi > lo)) {
        lo -= 0.5;
        hi += 0.5;
    }
    int x0 = MARGIN, x1 = WIDTH - 16, y0 = top + 28, y1 = top + HEIGHT - 24, at = x0;
    nm_buf_printf(b, "<text x='%d' y='%d' font-weight='bold'>%s</text>\n", x0, top + 18, p->title);
    for (int k = 0; k < PANEL_SERIES; k++)
        if (p->of[k].name && p->of[k].n)
            nm_buf_printf(b, "<text x='%d' y='%d' fill='%s'>%s</text>\n", at += 160, top + 18, p->of[k].colour, p->of[k].name);
    for (int k = 0; k <= 4; k++) {
        double v = hi - (hi - lo) * k / 4;
        int y = y0 + (y1 - y0) * k / 4;
        nm_buf_printf(b, "<path d='M%d %dH%d' stroke='#ddd'/><text x='%d' y='%d' text-anchor='end'>%.3g</text>\n", x0, y, x1, x0 - 6, y + 4, v);
    }
    nm_buf_printf(b, "<text x='%d' y='%d'>0</text><text x='%d' y='%d' text-anchor='end'>step %zu</text>\n", x0, y1 + 16, x1, y1 + 16, steps);
    for (int k = 0; k < PANEL_SERIES; k++)
        if (p->of[k].n)
            draw_line(b, &p->of[k], (double)steps, lo, hi, top);
}

static noema_status write_picture(const char *svg, const char *text, size_t size, size_t lines, const char *folder, noema_error *err)
{
    panel all[PANELS] = {
        { "loss", { { NULL, ",\"loss\":", "#1f77b4", NULL, 0 }, { "validation", "val_loss\":", "#ff7f0e", NULL, 0 } } },
        { "validation", { { "image to text R@1", "\"image_to_text_R@1\":", "#1f77b4", NULL, 0 }, { "text to image R@1", "\"text_to_image_R@1\":", "#ff7f0e", NULL, 0 },
                          { "top-1", "val-top1\":", "#9467bd", NULL, 0 } } },
        { "learning rate", { { NULL, "\"lr\":", "#2ca02c", NULL, 0 } } },
        { "gradient norm", { { NULL, "\"grad_norm\":", "#d62728", NULL, 0 } } },
    };
    nm_buf b = { 0 };
    bool ok = true;
    int drawn = 0;
    for (int k = 0; k < PANELS; k++)
        for (int i = 0; i < PANEL_SERIES; i++)
            ok = ok && (!all[k].of[i].key || read_series(text, size, &all[k].of[i], lines));
    for (int k = 0; k < PANELS; k++)
        drawn += all[k].of[0].n || all[k].of[1].n || all[k].of[2].n;
    nm_buf_printf(&b, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='11'>\n<rect width='100%%' height='100%%' fill='white'/>\n",
                  WIDTH, drawn * HEIGHT);
    for (int k = 0, top = 0; k < PANELS && ok; k++)
        if (all[k].of[0].n || all[k].of[1].n || all[k].of[2].n) {
            draw(&b, &all[k], all[0].of[0].n, top);
            top += HEIGHT;
        }
    for (int k = 0; k < PANELS; k++)
        for (int i = 0; i < PANEL_SERIES; i++)
            free(all[k].of[i].p);
    nm_buf_puts(&b, "</svg>\n");
    noema_status s = ok && !b.failed ? nm_write_file_atomic(svg, b.data, b.len, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    nm_buf_free(&b);
    return s;
}

noema_status nm_curves_write(const char *folder, noema_error *err)
{
    char *log = nm_path_join(folder, "log.jsonl"), *svg = nm_path_join(folder, "curves.svg"), *text = NULL;
    size_t size = 0, lines = 0;
    noema_status s = log && svg ? nm_read_file(&text, &size, log, (size_t)1 << 32, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (s == NOEMA_OK && lines)
        s = write_picture(svg, text, size, lines, folder, err);
    free(log);
    free(svg);
    free(text);
    return s;
}
