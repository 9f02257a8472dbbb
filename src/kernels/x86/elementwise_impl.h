/* elementwise_impl.h - conversions, sums, patches and pooling: a template, included inside a target region after a math_*.h;
 * NAME(x) adds the suffix. Results equal elementwise_ref.c bit for bit, but for
 * the activations, which are the polynomials of math_impl.h as in the products. */

NM_INLINE vf load_any(const void *p, nm_dtype t, int64_t i)
{
    return t == NM_F32 ? vf_load((const float *)p + i) : t == NM_BF16 ? vf_of_bf16((const uint16_t *)p + i) : vf_of_f16((const uint16_t *)p + i);
}

NM_INLINE vf load_any_n(const void *p, nm_dtype t, int64_t i, int64_t n)
{
    return t == NM_F32  ? vf_load_n((const float *)p + i, n)
         : t == NM_BF16 ? vf_of_bf16_n((const uint16_t *)p + i, n)
                        : vf_of_f16_n((const uint16_t *)p + i, n);
}

NM_INLINE void store_any(void *p, nm_dtype t, int64_t i, vf x)
{
    if (t == NM_F32)
        vf_store((float *)p + i, x);
    else if (t == NM_BF16)
        vf_store_bf16((uint16_t *)p + i, x);
    else
        vf_store_f16((uint16_t *)p + i, x);
}

NM_INLINE void store_any_n(void *p, nm_dtype t, int64_t i, vf x, int64_t n)
{
    if (t == NM_F32)
        vf_store_n((float *)p + i, x, n);
    else if (t == NM_BF16)
        vf_store_bf16_n((uint16_t *)p + i, x, n);
    else
        vf_store_f16_n((uint16_t *)p + i, x, n);
}

NM_INLINE void convert(int64_t n, const void *src, const nm_dtype from, void *dst, const nm_dtype to)
{
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        vf a = load_any(src, from, i), b = load_any(src, from, i + VL);
        store_any(dst, to, i, a);
        store_any(dst, to, i + VL, b);
    }
    for (; i < n; i += VL) {
        int64_t left = n - i < VL ? n - i : VL;
        store_any_n(dst, to, i, load_any_n(src, from, i, left), left);
    }
}

void NAME(nm_cast)(int64_t n, const void *src, nm_dtype src_dtype, void *dst, nm_dtype dst_dtype)
{
    if (src_dtype == NM_F32 && dst_dtype == NM_BF16)
        convert(n, src, NM_F32, dst, NM_BF16);
    else if (src_dtype == NM_F32 && dst_dtype == NM_F16)
        convert(n, src, NM_F32, dst, NM_F16);
    else if (src_dtype == NM_BF16 && dst_dtype == NM_F32)
        convert(n, src, NM_BF16, dst, NM_F32);
    else if (src_dtype == NM_F16 && dst_dtype == NM_F32)
        convert(n, src, NM_F16, dst, NM_F32);
    else if (src_dtype == NM_BF16 && dst_dtype == NM_F16)
        convert(n, src, NM_BF16, dst, NM_F16);
    else if (src_dtype == NM_F16 && dst_dtype == NM_BF16)
        convert(n, src, NM_F16, dst, NM_BF16);
    else
        nm_cast_ref(n, src, src_dtype, dst, dst_dtype); /* a copy */
}

NM_INLINE void activate(int64_t n, const float *x, const nm_act act, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_activate(vf_load(x + i), act));
    if (i < n)
        vf_store_n(y + i, vf_activate(vf_load_n(x + i, n - i), act), n - i);
}

/* One loop per activation, each without a branch inside. */
void NAME(nm_act)(int64_t n, const float *x, nm_act act, float *y)
{
    switch (act) {
    case NM_ACT_QUICK_GELU: activate(n, x, NM_ACT_QUICK_GELU, y); break;
    case NM_ACT_GELU: activate(n, x, NM_ACT_GELU, y); break;
    case NM_ACT_GELU_TANH: activate(n, x, NM_ACT_GELU_TANH, y); break;
    case NM_ACT_RELU: activate(n, x, NM_ACT_RELU, y); break;
    case NM_ACT_SILU: activate(n, x, NM_ACT_SILU, y); break;
    case NM_ACT_TANH: activate(n, x, NM_ACT_TANH, y); break;
    default: activate(n, x, NM_ACT_NONE, y); break;
    }
}

void NAME(nm_add)(int64_t n, const float *a, const float *b, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_add(vf_load(a + i), vf_load(b + i)));
    if (i < n)
        vf_store_n(y + i, vf_add(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

void NAME(nm_mul)(int64_t n, const float *a, const float *b, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_mul(vf_load(a + i), vf_load(b + i)));
    if (i < n)
        vf_store_n(y + i, vf_mul(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

void NAME(nm_patchify)(const float *image, int64_t channels, int64_t height, int64_t width, int64_t ph, int64_t pw, void *dst,
                       nm_dtype dst_dtype)
{
    int64_t grid_h = height / ph, grid_w = width / pw, o = 0;
    for (int64_t gy = 0; gy < grid_h; gy++)
        for (int64_t gx = 0; gx < grid_w; gx++)
            for (int64_t c = 0; c < channels; c++)
                for (int64_t y = 0; y < ph; y++, o += pw) {
                    const float *src = image + (c * height + gy * ph + y) * width + gx * pw;
                    if (dst_dtype == NM_F32)
                        convert(pw, src, NM_F32, (float *)dst + o, NM_F32);
                    else if (dst_dtype == NM_BF16)
                        convert(pw, src, NM_F32, (uint16_t *)dst + o, NM_BF16);
                    else
                        nm_cast_ref(pw, src, NM_F32, (uint16_t *)dst + o, dst_dtype);
                }
}

/* Each channel adds its s*s pixels in row order, as the reference. */
void NAME(nm_avgpool)(const float *x, int64_t h, int64_t w, int64_t c, int64_t s, float *y)
{
    vf inv = vf_set1(1 / (float)(s * s));
    for (int64_t oy = 0; oy < h / s; oy++)
        for (int64_t ox = 0; ox < w / s; ox++, y += c)
            for (int64_t i = 0; i < c; i += VL) {
                int64_t n = c - i < VL ? c - i : VL;
                vf acc = vf_zero();
                for (int64_t ky = 0; ky < s; ky++)
                    for (int64_t kx = 0; kx < s; kx++)
                        acc = vf_add(acc, vf_load_n(x + ((oy * s + ky) * w + ox * s + kx) * c + i, n));
                vf_store_n(y + i, vf_mul(acc, inv), n);
            }
}
