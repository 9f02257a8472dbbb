/* observed.h - the named intermediates that a forward shows to an observer, copied. */
#ifndef OBSERVED_H
#define OBSERVED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expected.h"

enum { OBSERVED = 160 };
typedef struct seen { char name[96]; int64_t n; float *data; } seen;
typedef struct observed { seen item[OBSERVED]; int n; } observed;

static void observe(void *user, const char *name, const nm_tensor *t)
{
    observed *o = user;
    assert_true(o->n < OBSERVED && t->dtype == NM_F32 && nm_is_contiguous(t));
    seen *s = &o->item[o->n++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->n = nm_numel(t);
    s->data = malloc((size_t)s->n * sizeof(float) + 1);
    memcpy(s->data, t->data, (size_t)s->n * sizeof(float));
}

static void forget(observed *o)
{
    for (int i = 0; i < o->n; i++)
        free(o->item[i].data);
    o->n = 0;
}

static const seen *find_seen(const observed *o, const char *name)
{
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->item[i].name, name) == 0)
            return &o->item[i];
    fail_msg("%s: not shown to the observer", name);
    return NULL;
}

#endif
