/* mask.c - region masks of Alpha-CLIP: from pictures and boxes, and through the geometry of a pipeline. The resize is
 * torchvision's of a float tensor (bilinear, align_corners false, antialias): the same weights as Pillow's, unrounded, f32
 * between the passes. */
#include <string.h>

#include "base/mem.h"
#include "media/preprocess.h"

void nm_mask_from_image(float *mask, const nm_image *im)
{
    for (int y = 0; y < im->height; y++)
        for (int x = 0; x < im->width; x++) {
            unsigned char rgb[3];
            nm_row_to_rgb(rgb, im, y, x, 1);
            *mask++ = rgb[0] == 255 ? 1.0f : 0.0f;
        }
}

void nm_mask_from_alpha(float *mask, const nm_image *im)
{
    for (int y = 0; y < im->height; y++)
        for (int x = 0; x < im->width; x++) {
            unsigned char rgba[4];
            nm_row_to_rgba(rgba, im, y, x, 1);
            *mask++ = rgba[3] == 255 ? 1.0f : 0.0f;
        }
}

void nm_mask_from_box(float *mask, int width, int height, int x0, int y0, int x1, int y1)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            *mask++ = x >= x0 && x < x1 && y >= y0 && y < y1 ? 1.0f : 0.0f;
}

/* One axis of one line: n_out outputs, `step` floats from sample to sample on both sides. */
static void line(const nm_resize_plan *p, int d, float *dst, size_t dst_step, const float *src, size_t src_step)
{
    const nm_resize_axis *a = &p->axis[d];
    int n = (int)(p->span[d].crop1 - p->span[d].crop0);
    for (int o = 0; o < n; o++) {
        if (!p->pass[d]) {
            dst[(size_t)o * dst_step] = src[(size_t)(p->span[d].crop0 + o) * src_step];
            continue;
        }
        const double *k = p->wide[d] + (size_t)o * (size_t)a->taps;
        double sum = 0.0;
        for (int i = 0; i < a->count[o]; i++)
            sum += k[i] * (double)src[(size_t)(a->first[o] + i) * src_step];
        dst[(size_t)o * dst_step] = (float)sum;
    }
}

static noema_status resize(nm_resize_plan *plan, const nm_placement *g, const float *mask, float *out, noema_error *err)
{
    int n_x = (int)(g->span[0].crop1 - g->span[0].crop0), h = g->span[1].in;
    size_t bytes;
    noema_status st = nm_resize_plan_set(plan, NULL, NM_BILINEAR, 0, g->span[0], g->span[1], err);
    if (st != NOEMA_OK)
        return st;
    float *tmp = nm_mul_size((size_t)n_x * 4, (size_t)h, &bytes) ? nm_alloc(bytes) : NULL;
    if (!tmp)
        return nm_fail(err, NOEMA_E_MEMORY, "mask: no memory for %d x %d values", n_x, h);
    for (int y = plan->need.y0; y < plan->need.y1; y++)
        line(plan, 0, tmp + (size_t)y * (size_t)n_x, 1, mask + (size_t)y * (size_t)g->span[0].in, 1);
    memset(out, 0, (size_t)g->out[0] * (size_t)g->out[1] * 4);
    for (int x = 0; x < n_x; x++)
        line(plan, 1, out + (size_t)g->at[1] * (size_t)g->out[0] + (size_t)(g->at[0] + x), (size_t)g->out[0], tmp + x, (size_t)n_x);
    nm_free(tmp);
    return NOEMA_OK;
}

noema_status nm_preprocess_mask(const nm_preprocess *p, nm_preprocess_scratch *s, const float *mask, int w, int h, float *out,
                                noema_error *err)
{
    nm_placement g;
    nm_resize_plan plan = { 0 };
    float *square = NULL;
    (void)s; /* its plan stays that of the pictures */
    noema_status st = nm_preprocess_place(p, w, h, &g, err);
    if (st != NOEMA_OK)
        return st;
    if (p->fit == NM_FIT_PAD && w != h) {
        size_t side = (size_t)(w > h ? w : h), x = (side - (size_t)w) / 2, y = (side - (size_t)h) / 2;
        square = side * side <= NM_IMAGE_MAX_PIXELS ? nm_calloc(side * side, 4) : NULL;
        if (!square)
            return nm_fail(err, NOEMA_E_MEMORY, "mask: no memory for a square of %zu", side);
        for (size_t r = 0; r < (size_t)h; r++)
            memcpy(square + (y + r) * side + x, mask + r * (size_t)w, (size_t)w * 4);
        mask = square;
    }
    st = resize(&plan, &g, mask, out, err);
    nm_resize_plan_free(&plan);
    nm_free(square);
    return st;
}
