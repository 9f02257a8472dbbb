/* test_labels.c - the interrogator's lists and its ranking against clip-interrogator 0.6.0 (tests/golden/clip-interrogator). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "generate/labels.h"
#include "weights/weights.h"

#define DIR NOEMA_SOURCE_DIR "/tests/golden/clip-interrogator/"

static void test_lists(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    json_t *j = nm_json_load(DIR "labels.json", &err);
    assert_non_null(j);
    static const char *const names[] = { "artists", "flavors", "mediums", "movements", "negative" };
    for (size_t i = 0; i < 5; i++) {
        char path[512], *text;
        size_t size;
        nm_labels l = { 0 };
        snprintf(path, sizeof path, DIR "data/%s.txt", names[i]);
        assert_int_equal(nm_read_file(&text, &size, path, 1 << 20, &err), NOEMA_OK);
        if (i == 0) {
            assert_true(nm_labels_add_lines(&l, "by ", text, size, ""));
            assert_true(nm_labels_add_lines(&l, "inspired by ", text, size, ""));
        } else
            assert_true(nm_labels_add_lines(&l, "", text, size, ""));
        json_t *want = nm_json_get(j, names[i]);
        assert_int_equal(l.n, json_array_size(want));
        for (size_t k = 0; k < l.n; k++)
            assert_string_equal(l.text[k], json_string_value(json_array_get(want, k)));
        nm_labels_free(&l);
        free(text);
    }
    json_decref(j);
}

static void compare(const json_t *want, const float *scores, size_t n, size_t top, bool reverse, nm_rank_rule rule)
{
    nm_ranked *out = calloc(n + 1, sizeof *out);
    size_t got = nm_rank(scores, n, top, reverse, rule, out);
    if (json_is_null(want)) {
        assert_true(got == SIZE_MAX);
    } else {
        assert_int_equal(got, json_array_size(want));
        for (size_t i = 0; i < got; i++)
            assert_int_equal(out[i].row, json_integer_value(json_array_get(want, i)));
    }
    free(out);
}

static void test_rank(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    json_t *j = nm_json_load(DIR "rank.json", &err), *c;
    nm_weights *w = NULL;
    assert_non_null(j);
    assert_int_equal(nm_weights_open(&w, DIR "rank.safetensors", &err), NOEMA_OK);
    size_t i;
    json_array_foreach(nm_json_get(j, "cases"), i, c) {
        char name[128];
        float image[16], rows[70 * 16], scores[70];
        snprintf(name, sizeof name, "%s.image", nm_json_str(c, "name", ""));
        nm_wview_copy_f32(nm_weights_find(w, name), image);
        snprintf(name, sizeof name, "%s.embeds", nm_json_str(c, "name", ""));
        const nm_wview *e = nm_weights_find(w, name);
        assert_non_null(e);
        nm_wview_copy_f32(e, rows);
        size_t n = (size_t)e->shape[0];
        for (size_t r = 0; r < n; r++) {
            double s = 0;
            for (size_t k = 0; k < 16; k++)
                s += (double)image[k] * (double)rows[r * 16 + k];
            scores[r] = (float)s;
        }
        size_t chunk = (size_t)nm_json_int(c, "chunk_size", 0), top = (size_t)nm_json_int(c, "top", 0);
        bool reverse = nm_json_bool(c, "reverse", false);
        compare(json_object_get(c, "compat"), scores, n, top, reverse, (nm_rank_rule){ chunk, true });
        compare(json_object_get(c, "exact"), scores, n, top, reverse, (nm_rank_rule){ chunk, false });
    }
    assert_true(i >= 10);
    nm_weights_close(w);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lists), cmocka_unit_test(test_rank) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
