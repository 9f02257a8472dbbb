/* math_avx2.h - math_impl.h on 8 lanes. Include after vec_avx2.h and kernels/gemm.h, inside the target region. */
NM_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); } /* b when either is NaN */
NM_INLINE vf vf_abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
NM_INLINE vf vf_copysign(vf x, vf sign) /* x >= 0 */
{
    return _mm256_or_ps(x, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
NM_INLINE vf vf_gt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
NM_INLINE vf vf_select(vf m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }

#include "kernels/x86/math_impl.h"
