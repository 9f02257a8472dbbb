/* math_avx512.h - math_impl.h on 16 lanes. Include after vec_avx512.h and kernels/gemm.h, inside the target region. */
NM_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); } /* b when either is NaN */
NM_INLINE vf vf_abs(vf x) { return _mm512_abs_ps(x); }
NM_INLINE vf vf_copysign(vf x, vf sign) /* x >= 0 */
{
    return _mm512_or_ps(x, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
NM_INLINE __mmask16 vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
NM_INLINE vf vf_select(__mmask16 m, vf yes, vf no) { return _mm512_mask_mov_ps(no, m, yes); }
NM_INLINE vf vf_pick(vi i, const float t[16]) { return _mm512_permutexvar_ps(i, _mm512_loadu_ps(t)); } /* t[i % 16] */

#include "kernels/x86/math_impl.h"
