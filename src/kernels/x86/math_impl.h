/* math_impl.h - exp, erf, tanh and the activations on vectors. A template in the words of vec_*.h; included by math_*.h.
 *
 * Errors against exact values, found by tests/kernels/test_gemm.c over the whole range: exp 1 ulp, tanh 2 ulp; an activation
 * x f(x) at most 1.2e-7 |x|. Polynomials are minimax fits (exp, erf, tanh: N. Juffa's published single-precision ones).
 * NaN stays NaN; exp overflows to infinity and goes to 0 below e^-104. */

NM_INLINE vf vf_poly(vf x, vf high, float low) { return vf_fma(high, x, vf_set1(low)); }

/* e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; ln 2 in two parts, the first short enough that n times it is exact. */
NM_INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_set1(104), vf_max(vf_set1(-104), x)); /* this order of operands keeps NaN */
    vf n = vf_round(vf_mul(x, vf_set1(0x1.715476p+0f)));
    vf r = vf_fma(n, vf_set1(-0x1.62e400p-1f), x);
    r = vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), r);
    vf p = vf_poly(r, vf_set1(0x1.694000p-10f), 0x1.125edcp-7f);
    p = vf_poly(r, p, 0x1.555b5ap-5f);
    p = vf_poly(r, p, 0x1.555450p-3f);
    p = vf_poly(r, p, 0x1.fffff6p-2f);
    p = vf_poly(r, p, 1);
    p = vf_poly(r, p, 1);
    return vf_scale2(p, n);
}

/* Below 0.93 an odd polynomial, above 1 - e^q(|x|). */
NM_INLINE vf vf_erf(vf x)
{
    vf t = vf_abs(x), s = vf_mul(x, x);
    vf q = vf_poly(t, vf_set1(-0x1.220000p-16f), 0x1.91cfb2p-12f);
    vf u = vf_poly(t, vf_set1(-0x1.fd1438p-9f), 0x1.8d6342p-6f);
    q = vf_fma(q, s, u);
    q = vf_poly(t, q, -0x1.b55cb8p-4f);
    q = vf_poly(t, q, -0x1.450aa0p-1f);
    q = vf_poly(t, q, -0x1.079d0cp-3f);
    q = vf_fma(q, t, vf_sub(vf_zero(), t));
    vf large = vf_copysign(vf_sub(vf_set1(1), vf_exp(q)), x);
    vf p = vf_poly(s, vf_set1(-0x1.38e000p-11f), 0x1.471a58p-8f);
    p = vf_poly(s, p, -0x1.b691b2p-6f);
    p = vf_poly(s, p, 0x1.ce1c44p-4f);
    p = vf_poly(s, p, -0x1.812700p-2f);
    p = vf_poly(s, p, 0x1.06eba8p-3f);
    return vf_select(vf_gt(t, vf_set1(0.927734375f)), large, vf_fma(p, x, x));
}

NM_INLINE vf vf_tanh(vf x)
{
    vf t = vf_abs(x), s = vf_mul(x, x), e = vf_exp(vf_add(t, t));
    vf large = vf_copysign(vf_sub(vf_set1(1), vf_div(vf_set1(2), vf_add(e, vf_set1(1)))), x);
    vf p = vf_poly(s, vf_set1(0x1.01e000p-6f), -0x1.ac766ap-5f);
    p = vf_poly(s, p, 0x1.10b23ep-3f);
    p = vf_poly(s, p, -0x1.5553dap-2f);
    return vf_select(vf_gt(t, vf_set1(0.599609375f)), large, vf_fma(vf_mul(p, s), x, x));
}

/* x Phi(x). With 16 lanes: Phi(|x|) - 1/2 is one of 16 polynomials, whose coefficients one permutation each picks from a register;
 * about 17 instead of 41 cycles per vector (Zen 4) for the form with erf. Beyond 5.6 Phi is 0 or 1 to f32. */
#if VL == 16
#include "kernels/x86/gelu_table.inc"

NM_INLINE vf vf_gelu(vf x)
{
    vf u = vf_fma(vf_min(vf_set1(5.599999f), vf_abs(x)), vf_set1(1 / 0.35f), vf_set1(-0.5f));
    vf v = vf_add(u, vf_set1(0x1.8p23f)); /* the low bits of v are the nearest integer */
    vf f = vf_sub(u, vf_sub(v, vf_set1(0x1.8p23f))), q = vf_pick(vi_of_f(v), gelu_table[5]);
    UNROLL for (int p = 4; p >= 0; p--)
        q = vf_fma(q, f, vf_pick(vi_of_f(v), gelu_table[p]));
    return vf_mul(x, vf_add(vf_set1(0.5f), vf_copysign(q, x)));
}
#else
NM_INLINE vf vf_gelu(vf x) { return vf_mul(vf_mul(vf_set1(0.5f), x), vf_add(vf_set1(1), vf_erf(vf_mul(x, vf_set1(0.70710678f))))); }
#endif

/* x / (1 + e^z) */
NM_INLINE vf vf_times_sigmoid(vf x, vf z) { return vf_div(x, vf_add(vf_set1(1), vf_exp(z))); }

/* See nm_act. 0.5 (1 + tanh z) is taken as 1 / (1 + e^-2z), which has no cancellation. `act` is a constant where this is used. */
NM_INLINE vf vf_activate(vf x, nm_act act)
{
    vf s, z;
    switch (act) {
    case NM_ACT_QUICK_GELU: return vf_times_sigmoid(x, vf_mul(vf_set1(-1.702f), x));
    case NM_ACT_GELU: return vf_gelu(x);
    case NM_ACT_GELU_TANH:
        s = vf_mul(x, x);
        z = vf_mul(x, vf_poly(s, vf_set1(-2 * 0.79788456f * 0.044715f), -2 * 0.79788456f));
        return vf_times_sigmoid(x, z);
    case NM_ACT_RELU: return vf_max(vf_zero(), x);
    case NM_ACT_SILU: return vf_times_sigmoid(x, vf_sub(vf_zero(), x));
    case NM_ACT_TANH: return vf_tanh(x);
    default: return x;
    }
}
