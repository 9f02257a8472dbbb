/* peak.h - what the processor can multiply and add at most: from registers only, nothing loaded. The yardstick of `noema bench` and
 * of bench/. */
#ifndef NM_PEAK_H
#define NM_PEAK_H

#include "base/dtype.h"
#include "base/pool.h"

/* Runs one thread's loop of the instruction set in use for products of that type (F32, BF16 or I8, the wider where the CPU lacks
 * it); returns how many operations (two per multiply-add) it did, 0 where there is no such loop. */
double nm_peak_run(nm_dtype compute);
/* Operations per second of all threads together by their processor time, best of 20 short runs. */
double nm_peak_per_second(nm_pool *pool, nm_dtype compute);

#endif
