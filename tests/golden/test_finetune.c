/* test_finetune.c - what fine-tuning is made of, against PyTorch's, open_clip's and BEiT's figures (tests/golden/train/groups, partial,
 * finetune, optim/averages), with the tolerances stated there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "train/groups.h"
#include "weights/weights.h"

static json_t *load_json(const char *name)
{
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s/tests/golden/train/%s", NOEMA_SOURCE_DIR, name);
    json_t *j = nm_json_load(path, &err);
    assert_non_null(j);
    return j;
}

static void check_scale(const char *name, const char *what, const json_t *want, double got)
{
    if (!json_is_number(want) || fabs(json_number_value(want) - got) <= 1e-12)
        return;
    print_error("%s: %s scale %.9g, want %.9g\n", name, what, got, json_number_value(want));
    fail();
}

/* Two towers of two blocks: image decay 0.75, text decay 0.65 (groups.json, layer_decay_reference). */
static void test_groups(void **state)
{
    (void)state;
    json_t *j = load_json("groups/groups.json"), *p;
    size_t i;
    json_array_foreach(nm_json_get(j, "parameters"), i, p) {
        const char *name = nm_json_str(p, "name", "");
        double decay = nm_tower_of(name) == NM_TOWER_TEXT ? 0.65 : 0.75;
        check_scale(name, "open_clip", json_object_get(p, "open_clip_lr_scale"), nm_layer_scale(name, 2, decay, NM_GROUPS_OPEN_CLIP));
        check_scale(name, "BEiT", json_object_get(p, "beit_lr_scale"), nm_layer_scale(name, 2, 0.75, NM_GROUPS_BEIT));
    }
    assert_int_equal(i, 62);
    json_decref(j);
}

/* The same places under the names of other files. */
static void test_other_names(void **state)
{
    (void)state;
    static const struct { const char *name; nm_tower tower; int block, group; } want[] = {
        { "visual.trunk.patch_embed.proj.weight", NM_TOWER_IMAGE, -1, 0 }, { "visual.trunk.pos_embed", NM_TOWER_IMAGE, -1, 0 },
        { "visual.trunk.blocks.11.attn.qkv.weight", NM_TOWER_IMAGE, 11, 12 }, { "visual.trunk.norm.weight", NM_TOWER_IMAGE, -1, 12 },
        { "visual.trunk.attn_pool.latent", NM_TOWER_IMAGE, -1, 13 }, { "visual.trunk.norm_pre.weight", NM_TOWER_IMAGE, -1, 0 },
        { "text.transformer.resblocks.3.ln_1.bias", NM_TOWER_TEXT, 3, 4 }, { "text.cls_emb", NM_TOWER_TEXT, -1, 0 },
        { "text.ln_final.weight", NM_TOWER_TEXT, -1, 12 }, { "text.text_projection", NM_TOWER_TEXT, -1, 13 },
        { "text_decoder.resblocks.0.ln_1.bias", NM_TOWER_NONE, -1, 13 }, { "logit_bias", NM_TOWER_NONE, -1, 13 },
        { "head.weight", NM_TOWER_NONE, -1, 13 }, { "visual.transformer.resblocks.x.ln_1.bias", NM_TOWER_IMAGE, -1, 13 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(nm_tower_of(want[i].name), want[i].tower);
        assert_int_equal(nm_block_of(want[i].name), want[i].block);
        assert_int_equal(nm_layer_group(want[i].name, 12, NM_GROUPS_OPEN_CLIP), want[i].group);
    }
    assert_true(nm_layer_scale("head.weight", 12, 0.5, NM_GROUPS_OPEN_CLIP) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_groups), cmocka_unit_test(test_other_names) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
