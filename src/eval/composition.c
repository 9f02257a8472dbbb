/* composition.c - captions that differ in who does what (specs/evaluation.md, section 4). All comparisons are strict. */
#include <math.h>

#include "eval/metrics.h"

nm_winoground nm_winoground_scores(int64_t n, const double *s)
{
    nm_winoground w = { 0 };
    if (n < 1)
        return (nm_winoground){ NAN, NAN, NAN };
    for (int64_t k = 0; k < n; k++) {
        double c0i0 = s[4 * k], c0i1 = s[4 * k + 1], c1i0 = s[4 * k + 2], c1i1 = s[4 * k + 3];
        bool text = c0i0 > c1i0 && c1i1 > c0i1, image = c0i0 > c0i1 && c1i1 > c1i0;
        w.text += text;
        w.image += image;
        w.group += text && image;
    }
    w.text /= (double)n;
    w.image /= (double)n;
    w.group /= (double)n;
    return w;
}

double nm_first_wins(int64_t n, int64_t choices, const double *s)
{
    int64_t right = 0;
    for (int64_t k = 0; k < n; k++) {
        bool first = true;
        for (int64_t c = 1; c < choices; c++)
            first = first && s[k * choices] > s[k * choices + c];
        right += first;
    }
    return n ? (double)right / (double)n : NAN;
}
