/* convnet_impl.h - gradients of convolution weights and batch normalisation: a template, included inside a target region after a vec_*.h;
 * NAME(x) adds the suffix. */

/* A block of OB outputs x 2 vectors of channels in registers: every pixel gives OB broadcasts of dy against two loads of x. */
#define OB 6

/* The part of the picture rows that tap (ky, kx) sees: output columns [begin, end). */
NM_INLINE void tap_columns(const nm_conv_shape *s, int64_t kx, int64_t *begin, int64_t *end)
{
    int64_t first = s->pad - kx, last = s->w - 1 + s->pad - kx; /* first <= ox * stride <= last */
    *begin = first > 0 ? (first + s->stride - 1) / s->stride : 0;
    *end = last < 0 ? 0 : last / s->stride + 1;
    if (*end > s->ow)
        *end = s->ow;
}

/* dw[ob outputs at o][one tap][cn channels at c], cn <= 2 VL */
NM_INLINE void tap_block(const nm_conv_shape *s, int64_t n, const float *x, const float *dy, int64_t ky, int64_t kx, const int64_t ob, const int64_t cn, float *dw,
                         int64_t ldw)
{
    vf acc[OB][2];
    int64_t begin, end, step = s->stride * s->c;
    const bool full = cn == 2 * VL;
    const int64_t n0 = cn < VL ? cn : VL, n1 = cn - n0;
    tap_columns(s, kx, &begin, &end);
    NM_UNROLL
    for (int i = 0; i < ob; i++) {
        acc[i][0] = vf_load_n(dw + i * ldw, n0);
        acc[i][1] = n1 > 0 ? vf_load_n(dw + i * ldw + VL, n1) : vf_zero();
    }
    for (int64_t p = 0; p < n; p++)
        for (int64_t oy = 0; oy < s->oh; oy++) {
            int64_t iy = oy * s->stride + ky - s->pad;
            if (iy < 0 || iy >= s->h || begin >= end)
                continue;
            const float *xp = x + ((p * s->h + iy) * s->w + begin * s->stride + kx - s->pad) * s->c;
            const float *g = dy + ((p * s->oh + oy) * s->ow + begin) * s->o;
            for (int64_t ox = begin; ox < end; ox++, xp += step, g += s->o) {
                vf a = full ? vf_load(xp) : vf_load_n(xp, n0), b = full ? vf_load(xp + VL) : n1 > 0 ? vf_load_n(xp + VL, n1) : vf_zero();
                NM_UNROLL
                for (int i = 0; i < ob; i++) {
                    vf w = vf_set1(g[i]);
                    acc[i][0] = vf_fma(w, a, acc[i][0]);
                    acc[i][1] = vf_fma(w, b, acc[i][1]);
                }
            }
        }
    NM_UNROLL
    for (int i = 0; i < ob; i++) {
        vf_store_n(dw + i * ldw, acc[i][0], n0);
        if (n1 > 0)
            vf_store_n(dw + i * ldw + VL, acc[i][1], n1);
    }
}

void NAME(nm_conv_weight_grad)(const nm_conv_shape *s, int64_t n, const float *x, const float *dy, int64_t o_begin, int64_t o_end, float *dw)
{
    int64_t taps = s->kh * s->kw, ldw = taps * s->c;
    for (int64_t o = o_begin; o < o_end;) {
        int64_t ob = o_end - o >= OB ? OB : o_end - o >= 4 ? 4 : o_end - o >= 2 ? 2 : 1;
        for (int64_t c = 0; c < s->c; c += 2 * VL) {
            int64_t cn = s->c - c < 2 * VL ? s->c - c : 2 * VL;
            for (int64_t t = 0; t < taps; t++) {
                float *d = dw + o * ldw + t * s->c + c;
                const float *xc = x + c, *g = dy + o;
                if (ob == OB && cn == 2 * VL)
                    tap_block(s, n, xc, g, t / s->kw, t % s->kw, OB, 2 * VL, d, ldw);
                else if (ob == 4 && cn == 2 * VL)
                    tap_block(s, n, xc, g, t / s->kw, t % s->kw, 4, 2 * VL, d, ldw);
                else if (ob == 2 && cn == 2 * VL)
                    tap_block(s, n, xc, g, t / s->kw, t % s->kw, 2, 2 * VL, d, ldw);
                else if (ob == OB)
                    tap_block(s, n, xc, g, t / s->kw, t % s->kw, OB, cn, d, ldw);
                else
                    for (int64_t i = 0; i < ob; i++)
                        tap_block(s, n, xc, g + i, t / s->kw, t % s->kw, 1, cn, d + i * ldw, ldw);
            }
        }
        o += ob;
    }
}

#define EACH_VECTOR(j, m) for (int64_t j = 0, m; j < c && (m = c - j < VL ? c - j : VL, 1); j += VL)

void NAME(nm_bn_sums)(int64_t rows, int64_t c, const float *x, const float *shift, float *sum, float *square)
{
    EACH_VECTOR(j, m) {
        vf s = vf_load_n(sum + j, m), q = vf_load_n(square + j, m), t = vf_load_n(shift + j, m);
        for (int64_t i = 0; i < rows; i++) {
            vf d = vf_sub(m == VL ? vf_load(x + i * c + j) : vf_load_n(x + i * c + j, m), t);
            s = vf_add(s, d);
            q = vf_fma(d, d, q);
        }
        vf_store_n(sum + j, s, m);
        vf_store_n(square + j, q, m);
    }
}

void NAME(nm_bn_apply)(int64_t rows, int64_t c, const float *x, const float *scale, const float *bias, nm_act act, float *y)
{
    vf low = vf_set1(act == NM_ACT_RELU ? 0 : -INFINITY);
    for (int64_t i = 0; i < rows; i++, x += c, y += c)
        EACH_VECTOR(j, m) {
            if (m == VL)
                vf_store(y + j, vf_max(low, vf_fma(vf_load(x + j), vf_load(scale + j), vf_load(bias + j))));
            else
                vf_store_n(y + j, vf_max(low, vf_fma(vf_load_n(x + j, m), vf_load_n(scale + j, m), vf_load_n(bias + j, m))), m);
        }
}

/* dy where y > 0, for ReLU; all of it else. */
NM_INLINE vf passed(const float *dy, const float *y, int64_t m, bool relu)
{
    vf g = m == VL ? vf_load(dy) : vf_load_n(dy, m);
    return relu ? vf_where_positive(m == VL ? vf_load(y) : vf_load_n(y, m), g) : g;
}

void NAME(nm_bn_back_sums)(int64_t rows, int64_t c, const float *x, const float *y, const float *dy, const float *mean, const float *rstd, nm_act act,
                           float *d_bias, float *d_scale)
{
    bool relu = act == NM_ACT_RELU;
    EACH_VECTOR(j, m) {
        vf s = vf_load_n(d_bias + j, m), q = vf_load_n(d_scale + j, m), mu = vf_load_n(mean + j, m), r = vf_load_n(rstd + j, m);
        for (int64_t i = 0; i < rows; i++) {
            vf g = passed(dy + i * c + j, y + i * c + j, m, relu), v = m == VL ? vf_load(x + i * c + j) : vf_load_n(x + i * c + j, m);
            s = vf_add(s, g);
            q = vf_fma(g, vf_mul(vf_sub(v, mu), r), q);
        }
        vf_store_n(d_bias + j, s, m);
        vf_store_n(d_scale + j, q, m);
    }
}

void NAME(nm_bn_back_apply)(int64_t rows, int64_t c, const float *x, const float *y, const float *dy, const float *a, const float *b, const float *d, nm_act act,
                            float *dx)
{
    bool relu = act == NM_ACT_RELU;
    for (int64_t i = 0; i < rows; i++, x += c, y += c, dy += c, dx += c)
        EACH_VECTOR(j, m) {
            vf g = passed(dy + j, y + j, m, relu), t = vf_fma(vf_load_n(b + j, m), vf_load_n(x + j, m), vf_load_n(d + j, m));
            vf_store_n(dx + j, vf_add(vf_load_n(dx + j, m), vf_fma(vf_load_n(a + j, m), g, t)), m);
        }
}
