/* interval.c - how sure a share is: Wilson's interval, of a figure that may be missing. */
#include <math.h>

#include "eval/metrics.h"

nm_interval nm_share_interval(double share, int64_t n)
{
    double bounds[2];
    if (n < 1 || isnan(share))
        return (nm_interval){ NAN, NAN };
    nm_wilson((int64_t)llround(share * (double)n), n, bounds);
    return (nm_interval){ bounds[0], bounds[1] };
}
