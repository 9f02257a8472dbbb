/* math_ref.h - the activations as they are defined, through libm: what the vector polynomials are tested against. */
#ifndef NM_MATH_REF_H
#define NM_MATH_REF_H

#include <math.h>

#include "kernels/gemm.h"

static inline float nm_activate_ref(float x, nm_act act)
{
    switch (act) {
    case NM_ACT_QUICK_GELU: return x / (1 + expf(-1.702f * x));
    case NM_ACT_GELU: return 0.5f * x * (1 + erff(x * 0.70710678f));
    case NM_ACT_GELU_TANH: return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case NM_ACT_RELU: return x < 0 ? 0 : x;
    case NM_ACT_SILU: return x / (1 + expf(-x));
    case NM_ACT_TANH: return tanhf(x);
    default: return x;
    }
}

#endif
