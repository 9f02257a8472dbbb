/* expected.h - expected values of a reference: NAME.safetensors, NAME.json, and comparisons with them; `err` is the test's. */
#ifndef NM_TEST_EXPECTED_H
#define NM_TEST_EXPECTED_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "weights/weights.h"

static noema_error err;

static inline void ok(noema_status st)
{
    if (st != NOEMA_OK)
        fail_msg("%s: %s", noema_status_name(st), err.message);
}

typedef struct expected { nm_weights *w; json_t *json; } expected;

static inline void load_expected(expected *e, const char *folder, const char *tensors, const char *json)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s.safetensors", folder, tensors);
    ok(nm_weights_open(&e->w, path, &err));
    snprintf(path, sizeof path, "%s%s.json", folder, json);
    e->json = nm_json_load(path, &err);
    assert_non_null(e->json);
}

static inline void unload(expected *e)
{
    nm_weights_close(e->w);
    json_decref(e->json);
}

static inline const nm_wview *view(const expected *e, const char *name)
{
    const nm_wview *v = nm_weights_find(e->w, name);
    if (!v)
        fail_msg("no expected %s", name);
    return v;
}

static inline float *values(const expected *e, const char *name)
{
    const nm_wview *v = view(e, name);
    float *f = malloc((size_t)nm_wview_numel(v) * sizeof *f + 1);
    nm_wview_copy_f32(v, f);
    return f;
}

static double worst; /* difference so far */

static inline void near(const char *what, const float *got, const float *want, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= tolerance))
            fail_msg("%s[%zu]: got %.9g, expected %.9g, difference %.3g over %.3g", what, i, (double)got[i], (double)want[i], d, tolerance);
        worst = d > worst ? d : worst;
    }
}

#endif
