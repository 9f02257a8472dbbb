/* spectrum.c - effective rank and its relatives from the eigenvalues of the Gram matrix: Householder's reduction to three diagonals, then
 * QL steps with implicit shifts (Golub and Van Loan, Matrix Computations, 8.3); only eigenvalues, so rotations are not collected. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/metrics.h"

/* a [n, n] symmetric: its lower triangle is reduced; diag and off (off[0] unused) are the three diagonals. */
static void tridiagonal(double *a, int64_t n, double *diag, double *off)
{
    for (int64_t i = n - 1; i > 0; i--) { /* row i: all but its last two numbers become 0 */
        double *u = a + i * n, norm = sqrt(nm_dot64(u, u, i)), h;
        off[i] = u[i - 1];
        if (i > 1 && norm > fabs(u[i - 1])) {
            off[i] = u[i - 1] > 0 ? -norm : norm;
            h = norm * norm - u[i - 1] * off[i]; /* |u|^2 / 2 */
            u[i - 1] -= off[i];
            double k = 0;
            for (int64_t r = 0; r < i; r++) { /* diag holds p = A u / h, then q = p - k u */
                double s = 0;
                for (int64_t c = 0; c <= r; c++)
                    s += a[r * n + c] * u[c];
                for (int64_t c = r + 1; c < i; c++)
                    s += a[c * n + r] * u[c];
                diag[r] = s / h;
                k += diag[r] * u[r];
            }
            k /= 2 * h;
            for (int64_t r = 0; r < i; r++)
                diag[r] -= k * u[r];
            for (int64_t r = 0; r < i; r++)
                for (int64_t c = 0; c <= r; c++)
                    a[r * n + c] -= u[r] * diag[c] + diag[r] * u[c];
        }
    }
    for (int64_t i = 0; i < n; i++)
        diag[i] = a[i * n + i];
}

/* One QL sweep over rows l..m; off[i] couples i and i + 1 here. */
static void sweep(double *diag, double *off, int64_t l, int64_t m)
{
    double g = (diag[l + 1] - diag[l]) / (2 * off[l]), r = hypot(g, 1), s = 1, c = 1, p = 0;
    g = diag[m] - diag[l] + off[l] / (g + copysign(r, g));
    for (int64_t i = m - 1; i >= l; i--) {
        double f = s * off[i], b = c * off[i];
        off[i + 1] = r = hypot(f, g);
        if (r == 0) { /* the matrix splits here */
            diag[i + 1] -= p;
            off[m] = 0;
            return;
        }
        s = f / r;
        c = g / r;
        g = diag[i + 1] - p;
        r = (diag[i] - g) * s + 2 * c * b;
        p = s * r;
        diag[i + 1] = g + p;
        g = c * r - b;
    }
    diag[l] -= p;
    off[l] = g;
    off[m] = 0;
}

static int up(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bool nm_eigenvalues(double *a, int64_t n, double *values, double *work)
{
    tridiagonal(a, n, values, work);
    for (int64_t i = 1; i < n; i++)
        work[i - 1] = work[i];
    if (n)
        work[n - 1] = 0;
    for (int64_t l = 0; l < n; l++)
        for (int tries = 0;; tries++) {
            int64_t m = l;
            while (m + 1 < n && fabs(work[m]) > 1e-16 * (fabs(values[m]) + fabs(values[m + 1])))
                m++;
            if (m == l)
                break;
            if (tries == 60)
                return false;
            sweep(values, work, l, m);
        }
    qsort(values, (size_t)n, sizeof *values, up);
    return true;
}

/* The smaller of X X^T and X^T X; X centred by column on demand. [size, size] */
static double *gram(const nm_vectors *v, bool centred, int64_t *size)
{
    int64_t n = v->n, dim = v->dim, k = n < dim ? n : dim;
    double *x = nm_malloc_array((size_t)n * (size_t)dim + 1, sizeof *x), *g = calloc((size_t)k * (size_t)k + 1, sizeof *g);
    *size = k;
    if (!x || !g) {
        free(x);
        free(g);
        return NULL;
    }
    memcpy(x, v->x, (size_t)(n * dim) * sizeof *x);
    for (int64_t d = 0; centred && d < dim; d++) {
        double mean = 0;
        for (int64_t i = 0; i < n; i++)
            mean += x[i * dim + d];
        mean /= (double)n;
        for (int64_t i = 0; i < n; i++)
            x[i * dim + d] -= mean;
    }
    for (int64_t i = 0; k == dim && i < n; i++)
        for (int64_t a = 0; a < k; a++)
            for (int64_t b = 0; b <= a; b++)
                g[a * k + b] += x[i * dim + a] * x[i * dim + b];
    for (int64_t a = 0; k != dim && a < k; a++)
        for (int64_t b = 0; b <= a; b++)
            g[a * k + b] = nm_dot64(x + a * dim, x + b * dim, dim);
    free(x);
    return g;
}

noema_status nm_spectrum_of(nm_spectrum *s, const nm_vectors *v, bool centred, noema_error *err)
{
    int64_t k;
    double *g = gram(v, centred, &k), *values = nm_malloc_array((size_t)k + 1, 2 * sizeof *values);
    double sum = 0, squares = 0, most = 0, roots = 0, entropy = 0;
    bool ok = g && values;
    if (!ok || !nm_eigenvalues(g, k, values, values + k)) {
        free(g);
        free(values);
        return ok ? nm_fail(err, NOEMA_E_FORMAT, "no spectrum: the vectors are not finite")
                  : nm_fail(err, NOEMA_E_MEMORY, "out of memory: spectrum of %lld numbers", (long long)v->dim);
    }
    for (int64_t i = 0; i < k; i++) {
        double l = fmax(values[i], 0);
        sum += l;
        squares += l * l;
        most = fmax(most, l);
        roots += sqrt(l);
    }
    for (int64_t i = 0; i < k; i++) {
        double p = sqrt(fmax(values[i], 0)) / roots;
        entropy -= p > 0 ? p * log(p) : 0;
    }
    *s = (nm_spectrum){ .effective_rank = exp(entropy), .participation_ratio = sum * sum / squares, .stable_rank = sum / most };
    free(g);
    free(values);
    return NOEMA_OK;
}
