/* test_eval_texts.c - tokens, answers and captions of src/eval, text by text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "eval/answers.h"
#include "eval/captions.h"

static void ptb(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "He doesn't like the dog's toys.", "he does n't like the dog 's toys" },
        { "A black-and-white cat, at 5:55; 1,000 dogs!", "a black-and-white cat at 5:55 1,000 dogs" },
        { "I cannot (really) say \"hello\" -- gonna go...", "i can not -lrb- really -rrb- say hello gon na go" },
        { "Dr. Smith on Main St. etc.", "dr. smith on main st. etc." },
        { "the U.S. flag & a refrigerator/freezer combo", "the u.s. flag & a refrigerator/freezer combo" },
        { "#25 costs $5 , 50% off", "# 25 costs $ 5 50 % off" },
        { "they're 'quoted' o'clock", "they 're quoted o'clock" },
        { "a man\nand a dog", "a man and a dog" },
        { "half 1/2 and 3.5 dogs.cats", "half 1/2 and 3.5 dogs cats" },
        { "see www.example.com/a,b now", "see www.example.com/a,b now" },
        { "don\xE2\x80\x99t \xE2\x80\x94 \xE2\x80\x9Cstop\xE2\x80\x9D\xE2\x80\xA6", "do n't stop" },
        { "\xC3\x89T\xC3\x89 \xEA\xB3\xA0\xEC\x96\x91\xEC\x9D\xB4.", "\xC3\xA9t\xC3\xA9 \xEA\xB3\xA0\xEC\x96\x91\xEC\x9D\xB4" },
        { "...", "" }, { "", "" }, { "  ", "" }, { "-", "" }, { "'", "" }, { "don't", "do n't" }, { "n't", "n't" }, { "'s", "'s" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nm_buf b = { 0 };
        assert_true(nm_buf_puts(&b, "") && nm_ptb_tokens(&b, cases[i][0]));
        assert_string_equal(b.data, cases[i][1]);
        nm_buf_free(&b);
    }
}

static void answers(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "a dog", "dog" }, { "The Dog.", "dog" }, { "10,000", "10000" }, { "dont", "don't" }, { "two", "2" }, { "None", "0" }, { "t-shirt", "t shirt" },
        { "hi !", "hi" }, { "3.30", "3.30" }, { "1.5.", "1.5" }, { "u.s.a.", "usa" }, { "black/white", "black white" }, { "black, white", "black white" },
        { "it's", "it's" }, { "", "" }, { "a", "" }, { "Im", "im" }, { "\xC3\x89T\xC3\x89", "\xC3\xA9t\xC3\xA9" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nm_buf b = { 0 };
        assert_true(nm_vqa_normalise(&b, cases[i][0]));
        assert_string_equal(b.data, cases[i][1]);
        nm_buf_free(&b);
    }
    noema_error err = NOEMA_ERROR_INIT;
    double accuracy;
    assert_int_equal(nm_vqa_accuracy(&accuracy, "x", 0, NULL, &err), NOEMA_E_FORMAT);
}

static void blip_texts(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "A Dog (big) runs; fast!", "a dog big runs fast" }, { "one two three four", "one two three" }, { "  a\n b ", "a b" }, { "...", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nm_buf b = { 0 };
        assert_true(nm_blip_text(&b, cases[i][0], false, i == 1 ? 3 : 30));
        assert_string_equal(b.data, cases[i][1]);
        nm_buf_free(&b);
    }
    nm_buf b = { 0 };
    assert_true(nm_blip_text(&b, "What is this? (a #1 dog)", true, 50));
    assert_string_equal(b.data, "what is this? a 1 dog");
    nm_buf_free(&b);
}

/* Counts by hand: clipping, the closest reference, the shorter of two equally close ones. */
static void bleu(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_caption_set c = { 0 };
    nm_bleu_counts b = { 0 };
    assert_int_equal(nm_captions_add(&c, "the the the cat", false, &err), NOEMA_OK);
    assert_int_equal(nm_captions_reference(&c, "the cat the", false, &err), NOEMA_OK);
    assert_int_equal(nm_captions_reference(&c, "a cat sat on mats", false, &err), NOEMA_OK);
    assert_int_equal(nm_bleu_count(&b, &c, 0, &err), NOEMA_OK);
    assert_int_equal(b.length, 4);
    assert_int_equal(b.reference, 3); /* 3 and 5 are as close */
    assert_int_equal(b.match[0], 3);  /* the, the, cat */
    assert_int_equal(b.match[1], 1);  /* the cat */
    assert_int_equal(b.match[2], 0);
    assert_int_equal(b.guess[3], 1);
    double rouge = nm_rouge_l(&c, 0, &err), p = 2.0 / 4, r = 2.0 / 3; /* "the cat" or "the the" */
    assert_true(fabs(rouge - (1 + 1.44) * p * r / (r + 1.44 * p)) < 1e-15);
    nm_captions_free(&c);
}

/* One picture: every n-gram stands in all of them, so that all weights are 0. */
static void cider_of_one(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_caption_set c = { 0 };
    nm_cider_options o = { 0 };
    double score[2];
    assert_int_equal(nm_captions_add(&c, "a dog", false, &err), NOEMA_OK);
    assert_int_equal(nm_captions_reference(&c, "a dog", false, &err), NOEMA_OK);
    assert_int_equal(nm_cider(&c, &o, score, &err), NOEMA_OK);
    assert_true(score[0] == 0);
    /* a second picture with other words: the first is perfect at the orders that it has, n = 1 and 2 of 4 */
    assert_int_equal(nm_captions_add(&c, "rain falls here", false, &err), NOEMA_OK);
    assert_int_equal(nm_captions_reference(&c, "snow lies there", false, &err), NOEMA_OK);
    assert_int_equal(nm_cider(&c, &o, score, &err), NOEMA_OK);
    assert_true(fabs(score[0] - 5) < 1e-12 && score[1] == 0);
    nm_captions_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(ptb), cmocka_unit_test(answers), cmocka_unit_test(blip_texts), cmocka_unit_test(bleu),
                                        cmocka_unit_test(cider_of_one) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
