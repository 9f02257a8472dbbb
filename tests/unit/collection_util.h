/* collection_util.h - a temporary folder and known vectors for the collection tests. */
#ifndef COLLECTION_UTIL_H
#define COLLECTION_UTIL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "noema/collection.h"

enum { DIM = 24 };

static char tmp_dir[64];

static int make_tmp(void **state)
{
    (void)state;
    strcpy(tmp_dir, "/tmp/noema-collection-XXXXXX");
    return mkdtemp(tmp_dir) ? 0 : -1;
}

static int drop_tmp(void **state)
{
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", tmp_dir);
    return system(cmd);
}

__attribute__((unused)) static const char *in_tmp(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", tmp_dir, name);
    return p;
}

/* Vector number i: the same in every run and process. */
__attribute__((unused)) static void vector(int64_t i, float v[DIM])
{
    nm_rng r;
    nm_rng_init(&r, 7, (uint64_t)i);
    double sum = 0;
    for (int k = 0; k < DIM; k++) {
        v[k] = nm_rng_normal(&r);
        sum += (double)v[k] * v[k];
    }
    for (int k = 0; k < DIM; k++)
        v[k] = (float)(v[k] / sqrt(sum));
}

#define OK(call) do { err = (noema_error)NOEMA_ERROR_INIT; noema_status s_ = (call); \
    if (s_ != NOEMA_OK) { print_error("%s\n", err.message); } assert_int_equal(s_, NOEMA_OK); } while (0)
/* The call fails with this code and a message that contains `part`. */
#define FAILS(call, code_, part) do { err = (noema_error)NOEMA_ERROR_INIT; noema_status s_ = (call); \
    assert_int_equal(s_, code_); if (!strstr(err.message, part)) { print_error("message: %s\n", err.message); } \
    assert_non_null(strstr(err.message, part)); } while (0)

/* Adds the vectors [from, to) as files /pics/NNNNNN.jpg in one commit. */
__attribute__((unused)) static noema_status add_range(noema_collection *c, int64_t from, int64_t to, noema_error *err)
{
    size_t n = (size_t)(to - from);
    float *v = malloc(n * DIM * sizeof *v);
    char (*name)[32] = malloc(n * sizeof *name);
    const char **path = malloc(n * sizeof *path);
    for (size_t i = 0; i < n; i++) {
        vector(from + (int64_t)i, v + i * DIM);
        snprintf(name[i], sizeof name[i], "/pics/%06d.jpg", (int)(from + (int64_t)i));
        path[i] = name[i];
    }
    noema_status s = noema_collection_add(c, "space-a", "model-a", NOEMA_ITEM_IMAGE, n, path, DIM, v, err);
    free(v);
    free(name);
    free(path);
    return s;
}

/* Every item k in [0, n) is there once, with its own vector, and nothing else is. */
__attribute__((unused)) static void expect_exactly(noema_collection *c, int64_t n)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_item item = { 0 };
    int64_t seen = 0;
    float want[DIM], got[DIM];
    while (noema_collection_next(c, item.id, &item, NULL) == NOEMA_OK) {
        char path[32];
        snprintf(path, sizeof path, "/pics/%06d.jpg", (int)seen);
        assert_string_equal(item.path, path);
        vector(seen, want);
        OK(noema_collection_vector(c, item.id, got, &err));
        assert_memory_equal(want, got, sizeof want);
        seen++;
    }
    assert_int_equal(seen, n);
    assert_int_equal(noema_collection_get_info(c)->n_items, n);
}

#endif
