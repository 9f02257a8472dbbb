/* test_trainer.c - the training step itself: memory is planned (no allocation after a shape's first steps), activation checkpointing and
 * threads change no bit, and what a step keeps is smaller with checkpointing. The model is the tiny CLIP of tests/golden/train/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "models/model.h"
#include "train/trainer.h"

enum { BATCH = 96, STEPS = 4, TOKENS = 7 };

typedef struct outcome { double loss[STEPS], norm[STEPS]; size_t arena, weights; float *values; } outcome;

static nm_model *tiny(void)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_model *m = NULL;
    json_t *config = nm_json_load(NOEMA_SOURCE_DIR "/tests/golden/train/e2e/model_config.json", &err);
    assert_non_null(config);
    assert_int_equal(nm_family_clip.create(&m, NULL, config, 3, &err), NOEMA_OK);
    json_decref(config);
    return m;
}

static void copy_values(const nm_trainer *t, outcome *o)
{
    for (size_t i = 0; i < t->n_params; i++)
        o->weights += t->params[i].n;
    o->values = malloc(o->weights * sizeof *o->values);
    assert_non_null(o->values);
    for (size_t i = 0, at = 0; i < t->n_params; at += t->params[i++].n)
        memcpy(o->values + at, t->params[i].w->f32, t->params[i].n * sizeof(float));
}

static outcome run(nm_train_options o, int threads)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_model *m = tiny();
    nm_pool *pool = nm_pool_new(threads);
    nm_trainer *t;
    o.opt = (nm_opt){ .kind = NM_OPT_ADAMW, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6 };
    o.schedule = (nm_schedule){ .kind = NM_LR_CONST, .base_lr = 1e-3 };
    o.weight_decay = 0.2;
    assert_int_equal(nm_trainer_new(&t, m, pool, &o, &err), NOEMA_OK);
    size_t pixels = (size_t)(BATCH * 3 * m->image_height * m->image_width), mallocs = 0, chunks = 0;
    float *images = nm_alloc(pixels * sizeof *images);
    int32_t ids[BATCH * TOKENS];
    int64_t offsets[BATCH + 1] = { 0 };
    for (size_t i = 0; i < pixels; i++)
        images[i] = (float)(i * 2654435761u >> 8 & 0xFFFF) / 32768.0f - 1.0f;
    for (int i = 0; i < BATCH; i++) {
        offsets[i + 1] = offsets[i] + 3 + i % (TOKENS - 2);
        for (int64_t k = offsets[i]; k < offsets[i + 1]; k++)
            ids[k] = k + 1 == offsets[i + 1] ? 63 : (int32_t)(k * 5 % 60);
    }
    nm_pair_batch b = { .n = BATCH, .images = images, .texts = { .n = BATCH, .offsets = offsets, .ids = ids, .pad_id = -1 } };
    outcome out = { 0 };
    for (int i = 0; i < STEPS; i++) {
        nm_step_result x;
        assert_int_equal(nm_trainer_step(t, &b, &x, &err), NOEMA_OK);
        assert_true(x.flops > 0);
        out.loss[i] = x.loss;
        out.norm[i] = x.grad_norm;
        if (i >= 2) { /* the arena merges its blocks at the start of the second step */
            assert_int_equal(nm_arena_mallocs(t->arena), mallocs);
            assert_int_equal(nm_tape_mallocs(t->run.tape), chunks);
        }
        mallocs = nm_arena_mallocs(t->arena);
        chunks = nm_tape_mallocs(t->run.tape);
    }
    out.arena = nm_arena_peak(t->arena);
    copy_values(t, &out);
    nm_trainer_free(t);
    m->family->free(m);
    nm_pool_free(pool);
    nm_free(images);
    return out;
}

static void same(const outcome *a, const outcome *b)
{
    assert_memory_equal(a->loss, b->loss, sizeof a->loss);
    assert_memory_equal(a->norm, b->norm, sizeof a->norm);
    assert_int_equal(a->weights, b->weights);
    assert_memory_equal(a->values, b->values, a->weights * sizeof *a->values);
}

static void test_bits(void **state)
{
    (void)state;
    const nm_train_options options[] = { { .accum = 1 }, { .accum = 3 }, { .accum = 1, .compute = NM_BF16 }, { .accum = 1, .lock_image = true, .unlocked_groups = 2 } };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        nm_train_options o = options[i];
        outcome plain = run(o, 1), threads = run(o, 3);
        o.checkpointing = true;
        outcome checkpointed = run(o, 2);
        assert_true(plain.loss[STEPS - 1] != plain.loss[0]);
        same(&plain, &threads);
        same(&plain, &checkpointed);
        if (i == 0)
            assert_true(checkpointed.arena < plain.arena);
        free(plain.values), free(threads.values), free(checkpointed.values);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_bits) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
