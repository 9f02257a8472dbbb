/* test_generate.c - the decoder loop on a toy language whose probabilities are known: beams wide enough find what exhaustive search
 * finds, lengths and penalties do what they say, items do not see each other. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "generate/generate.h"
#include "generate/tasks.h"

enum { VOCAB = 16, EOS = 3, ROWS = 256, LENGTH = 12 };

/* Rows are remembered as whole texts, so that a wrong parent shows at once. */
typedef struct toy { int32_t row[2][ROWS][LENGTH]; int64_t length[2][ROWS]; int side; int64_t steps; float logits[ROWS * VOCAB]; int fail_at; } toy;

/* A number in [0, 12) from the whole row: no two rows have the same continuations. */
static float score_of(const int32_t *ids, int64_t n, int v)
{
    uint32_t h = 2166136261u;
    for (int64_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)ids[i]) * 16777619u;
    h = (h ^ (uint32_t)(v + 77)) * 16777619u;
    h ^= h >> 15;
    return (float)(h % 30011u) / 2500.0f;
}

static float *step(void *user, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets, noema_error *err)
{
    toy *t = user;
    int to = !t->side;
    if (t->steps++ == t->fail_at) {
        nm_fail(err, NOEMA_E_MEMORY, "the step fails");
        return NULL;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t before = parent ? t->length[t->side][parent[i]] : 0;
        memcpy(t->row[to][i], parent ? t->row[t->side][parent[i]] : ids, (size_t)before * sizeof *ids);
        memcpy(t->row[to][i] + before, ids + offsets[i], (size_t)(offsets[i + 1] - offsets[i]) * sizeof *ids);
        t->length[to][i] = before + offsets[i + 1] - offsets[i];
        for (int v = 0; v < VOCAB; v++)
            t->logits[i * VOCAB + v] = score_of(t->row[to][i], t->length[to][i], v);
    }
    t->side = to;
    return t->logits;
}

static nm_rules rules(int beams, int64_t max_length)
{
    return (nm_rules){ .beams = beams, .temperature = 1, .top_p = 0.9, .top_k = 5, .max_length = max_length, .max_new = -1, .min_new = -1,
                       .repetition_penalty = 1, .length_penalty = 1, .n_best = 1, .release = NM_RELEASE_4_15, .eos = EOS };
}

static toy *new_toy(void)
{
    toy *t = calloc(1, sizeof *t);
    t->fail_at = -1;
    return t;
}

static nm_generation generate_one(const int32_t *prompt, int64_t n, const nm_rules *r)
{
    toy *t = new_toy();
    nm_generation g;
    int64_t offsets[2] = { 0, n };
    noema_error err = NOEMA_ERROR_INIT;
    nm_decoder d = { t, VOCAB, step };
    if (nm_generate(&d, 1, prompt, offsets, r, &g, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    free(t);
    return g;
}

/* The best text of at most max_length ids by sum / length^penalty, over all texts. */
typedef struct best { double score; int32_t ids[LENGTH]; int64_t n; } best;

static void search_all(int32_t *ids, int64_t n, double sum, const nm_rules *r, int64_t prompt, best *b)
{
    float x[VOCAB];
    for (int v = 0; v < VOCAB; v++)
        x[v] = score_of(ids, n, v);
    nm_log_softmax(x, VOCAB);
    for (int v = 0; v < VOCAB; v++) {
        bool end = v == EOS, last = n + 1 == r->max_length;
        double s = sum + (double)x[v];
        int64_t length = n + !end, counted = r->release >= NM_RELEASE_5 ? n + 1 - prompt : length;
        ids[n] = v;
        if (end || last) {
            double score = s / pow((double)counted, r->length_penalty);
            if (score > b->score) {
                b->score = score;
                b->n = length;
                memcpy(b->ids, ids, (size_t)length * sizeof *ids);
            }
        } else
            search_all(ids, n + 1, s, r, prompt, b);
    }
}

/* What a search returns is never better than the best text, and is it where nothing that can win falls off. */
static void test_beams_find_the_best(void **state)
{
    (void)state;
    static const int releases[] = { NM_RELEASE_4_15, NM_RELEASE_4_33, NM_RELEASE_5 };
    static const double penalties[] = { 0, 1, 2 };
    for (int i = 0; i < 9; i++) {
        int32_t prompt[LENGTH] = { 1, 7 };
        nm_rules r = rules(8, 5);
        r.release = releases[i / 3];
        r.length_penalty = penalties[i % 3];
        best b = { .score = -INFINITY };
        nm_generation g = generate_one(prompt, 2, &r);
        search_all(prompt, 2, 0, &r, 2, &b);
        /* 8 of 16 words are kept at each step: the search may miss the best, but not exceed it, and its score is that of its text */
        assert_true(g.best[0].score <= b.score + 1e-9);
        double sum = 0;
        for (int64_t n = 2; n < g.best[0].n + g.best[0].ended; n++) {
            float x[VOCAB];
            for (int v = 0; v < VOCAB; v++)
                x[v] = score_of(g.best[0].ids, n, v);
            nm_log_softmax(x, VOCAB);
            sum += (double)x[n < g.best[0].n ? g.best[0].ids[n] : EOS];
        }
        assert_true(fabs(sum - g.best[0].sum) < 1e-5);
        nm_generation_free(&g, 1);
    }
    int32_t prompt[LENGTH] = { 1, 7 };
    nm_rules r = rules(8, 4); /* two new ids: the search keeps all that can win */
    r.length_penalty = 0;
    for (int release = 0; release < 3; release++) {
        best b = { .score = -INFINITY };
        r.release = releases[release];
        nm_generation g = generate_one(prompt, 2, &r);
        search_all(prompt, 2, 0, &r, 2, &b);
        assert_true(fabs(g.best[0].score - b.score) < 1e-5);
        assert_int_equal(g.best[0].n, b.n);
        assert_memory_equal(g.best[0].ids, b.ids, (size_t)b.n * sizeof *b.ids);
        nm_generation_free(&g, 1);
    }
}

/* 4.33 asks whether a text one id longer could still win, 4.15 does not: it searches on where 4.15 stops, and never less. */
static void test_releases_stop_differently(void **state)
{
    (void)state;
    int longer = 0;
    for (int k = 0; k < 600; k++) {
        int64_t steps[2];
        for (int i = 0; i < 2; i++) {
            const int32_t prompt[] = { 4 + k % 12, k / 12 };
            const int64_t offsets[] = { 0, 2 };
            toy *t = new_toy();
            nm_decoder d = { t, VOCAB, step };
            nm_rules r = rules(2, LENGTH);
            nm_generation g;
            noema_error err = NOEMA_ERROR_INIT;
            r.length_penalty = 1 + k % 2;
            r.release = i ? NM_RELEASE_4_33 : NM_RELEASE_4_15;
            assert_int_equal(nm_generate(&d, 1, prompt, offsets, &r, &g, &err), NOEMA_OK);
            steps[i] = t->steps;
            nm_generation_free(&g, 1);
            free(t);
        }
        assert_true(steps[1] >= steps[0]);
        longer += steps[1] > steps[0];
    }
    assert_true(longer > 0);
}

static void test_greedy_takes_the_likeliest(void **state)
{
    (void)state;
    const int32_t prompt[] = { 1 };
    nm_rules r = rules(1, 10);
    nm_generation g = generate_one(prompt, 1, &r);
    for (int64_t n = 1; n < g.best[0].n + g.best[0].ended; n++) {
        int top = 0;
        for (int v = 1; v < VOCAB; v++)
            if (score_of(g.best[0].ids, n, v) > score_of(g.best[0].ids, n, top))
                top = v;
        assert_int_equal(n < g.best[0].n ? g.best[0].ids[n] : EOS, top);
    }
    assert_true(isnan(g.best[0].score) && (g.best[0].ended || g.best[0].n == 10));
    nm_generation_free(&g, 1);
}

static void test_lengths(void **state)
{
    (void)state;
    const int32_t prompt[] = { 1, 5, 9 };
    for (int release = 0; release < 2; release++)
        for (int beams = 1; beams <= 4; beams += 3)
            for (int64_t least = 0; least < 8; least++) {
                nm_rules r = rules(beams, 10);
                r.release = release ? NM_RELEASE_5 : NM_RELEASE_4_15;
                r.min_length = least;
                nm_generation g = generate_one(prompt, 3, &r);
                assert_true(g.best[0].n <= 10 && g.best[0].n >= least);
                nm_generation_free(&g, 1);
                r.min_length = 0;
                r.min_new = least < 5 ? least : 5;
                r.max_new = 6; /* in place of max_length */
                g = generate_one(prompt, 3, &r);
                assert_true(g.best[0].n <= 9 && g.best[0].n >= 3 + r.min_new);
                nm_generation_free(&g, 1);
            }
}

/* Items of different prompts together give what each gives alone, by beams, greedily and drawn. */
static void test_items_are_alone(void **state)
{
    (void)state;
    const int32_t prompts[] = { 1, 5, 9, 2, 1, 4, 4, 4 };
    const int64_t offsets[] = { 0, 3, 4, 5, 8 };
    for (int mode = 0; mode < 4; mode++) {
        nm_rules r = rules(mode == 0 ? 1 : 4, 11);
        r.n_best = mode == 0 ? 1 : 3;
        r.sample = mode == 3;
        r.release = mode == 2 ? NM_RELEASE_5 : NM_RELEASE_4_15;
        r.seed = 99;
        toy *t = new_toy();
        nm_generation all[4];
        noema_error err = NOEMA_ERROR_INIT;
        nm_decoder d = { t, VOCAB, step };
        assert_int_equal(nm_generate(&d, 4, prompts, offsets, &r, all, &err), NOEMA_OK);
        for (int i = 0; i < 4; i++) {
            nm_generation g = generate_one(prompts + offsets[i], offsets[i + 1] - offsets[i], &r);
            assert_int_equal(g.n, all[i].n);
            for (int k = 0; k < g.n; k++) {
                assert_int_equal(g.best[k].n, all[i].best[k].n);
                assert_memory_equal(g.best[k].ids, all[i].best[k].ids, (size_t)g.best[k].n * sizeof(int32_t));
            }
            nm_generation_free(&g, 1);
        }
        nm_generation_free(all, 4);
        free(t);
    }
}

static void test_bad_rules_and_failing_steps(void **state)
{
    (void)state;
    const int32_t prompt[] = { 1, 5 };
    const int64_t offsets[] = { 0, 2 };
    toy *t = new_toy();
    nm_decoder d = { t, VOCAB, step };
    for (int i = 0; i < 9; i++) {
        nm_rules r = rules(3, 8);
        if (i == 0) r.beams = 0;
        if (i == 1) r.beams = 9; /* more than half of the vocabulary */
        if (i == 2) r.n_best = 4;
        if (i == 3) r.max_length = 2;
        if (i == 4) r.repetition_penalty = 0;
        if (i == 5) r.length_penalty = NAN;
        if (i == 6) r.top_p = 0;
        if (i == 7) r.beams = 65;
        if (i == 8) r.max_length = INT64_MAX / 2;
        nm_generation g;
        noema_error err = NOEMA_ERROR_INIT;
        assert_int_equal(nm_generate(&d, 1, prompt, offsets, &r, &g, &err), NOEMA_E_ARGUMENT);
        assert_true(err.message[0] != 0);
    }
    for (int at = 0; at < 3; at++) {
        nm_rules r = rules(3, 8);
        nm_generation g;
        noema_error err = NOEMA_ERROR_INIT;
        r.min_length = 7;
        t->steps = 0;
        t->fail_at = at;
        assert_int_equal(nm_generate(&d, 1, prompt, offsets, &r, &g, &err), NOEMA_E_MEMORY);
    }
    free(t);
}

static void test_penalty(void **state)
{
    (void)state;
    float x[4] = { -1, 2, 0.5f, -4 };
    const int32_t ids[] = { 0, 1, 1, 0, 99, -1 }; /* repeated ids count once, foreign ones not at all */
    nm_penalise(x, 4, ids, 6, 2);
    assert_true(x[0] == -2 && x[1] == 1 && x[2] == 0.5f && x[3] == -4);
}

static void test_sampling_set(void **state)
{
    (void)state;
    const float logits[6] = { logf(0.05f), logf(0.4f), logf(0.2f), logf(0.3f), logf(0.03f), logf(0.02f) };
    int32_t ids[6];
    float p[6];
    assert_int_equal(nm_sample_set(logits, 6, 1, 0, 0.65, ids, p), 2); /* 0.4 + 0.3 crosses 0.65 */
    assert_true(ids[0] == 1 && ids[1] == 3 && fabsf(p[0] - 4 / 7.0f) < 1e-6f);
    assert_int_equal(nm_sample_set(logits, 6, 1, 3, 0.99, ids, p), 3);
    assert_true(ids[2] == 2 && fabsf(p[2] - 2 / 9.0f) < 1e-6f);
    assert_int_equal(nm_sample_set(logits, 6, 1, 0, 1, ids, p), 6);
    assert_int_equal(nm_sample_set(logits, 6, 1, 0, 1e-9, ids, p), 1); /* one is always kept */
    nm_sample_set(logits, 6, 0.5, 0, 1, ids, p);
    assert_true(fabsf(p[0] / p[1] - 16 / 9.0f) < 1e-5f); /* temperature 0.5 squares the odds */
}

/* A byte-level vocabulary has pieces for every control character: what the references strip with str.strip() goes, what they keep stays. */
static void test_outer_space(void **state)
{
    (void)state;
    static const struct { const char *text; size_t cut; const char *want; } cases[] = {
        { " a dog\x1d", 0, "a dog" },        { "\x1c\x1f a\x1e" "b \x85", 0, "a\x1e" "b \x85" }, /* a lone byte 0x85 is no U+0085 */
        { "\xC2\xA0\xE3\x80\x80 개 \xC2\x85", 0, "개" }, { "\xE2\x80\x8B a", 0, "\xE2\x80\x8B a" }, /* U+200B is no white space */
        { "a picture of  a cat\t\n", 13, "a cat" }, { "ab", 5, "" }, { " \x1d ", 0, "" }, { "", 0, "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char t[64];
        snprintf(t, sizeof t, "%s", cases[i].text);
        nm_trim_text(t, cases[i].cut);
        assert_string_equal(t, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beams_find_the_best),  cmocka_unit_test(test_greedy_takes_the_likeliest), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_items_are_alone),      cmocka_unit_test(test_bad_rules_and_failing_steps), cmocka_unit_test(test_penalty),
        cmocka_unit_test(test_sampling_set),         cmocka_unit_test(test_releases_stop_differently),
        cmocka_unit_test(test_outer_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
