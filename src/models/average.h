/* average.h - weighted means of weights, and weights of another model. */
#ifndef NM_AVERAGE_H
#define NM_AVERAGE_H

#include "models/model.h"

/* dst = a dst + b src, parameter by parameter (f32, sums in double); NOEMA_E_MISMATCH names the first that differs in name or shape. */
noema_status nm_model_mix(nm_model *dst, double a, nm_model *src, double b, noema_error *err);

/* dst takes every weight (an f32 copy) that src has under the same name and in the same shape; a text tower with and without "text." before its names is
 * one. *taken of *all weights of dst. */
noema_status nm_model_take(nm_model *dst, nm_model *src, size_t *taken, size_t *all, noema_error *err);

#endif
