/* average.h - weighted means of weights. */
#ifndef NM_AVERAGE_H
#define NM_AVERAGE_H

#include "models/model.h"

/* dst = a dst + b src, parameter by parameter (f32, sums in double); NOEMA_E_MISMATCH names the first that differs in name or shape. */
noema_status nm_model_mix(nm_model *dst, double a, nm_model *src, double b, noema_error *err);

#endif
