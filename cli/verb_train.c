/* verb_train.c - `noema train`: contrastive training of a two-tower model in a run folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/data.h"
#include "train.h"

static const cli_option options[] = {
#include "train_options.inc"
    { "val-data", 0, CLI_STRING, "FILE", "pairs, or rows with a class, that the model is measured on after epochs (none)" },
    { "val-frequency", 0, CLI_INT, "N", "epochs per validation, and after the last (1; 0: never)" },
    { "val-num-samples", 0, CLI_INT, "N", "the first N rows of --val-data (all)" },
    { "init", 0, CLI_STRING, "MODEL", "with --config: its weights in place of drawn ones of the same name and shape" },
    { "class-names", 0, CLI_STRING, "FILE", "names of label 0, 1, ...: one per line, or JSON (what the data says)" },
    { "templates", 0, CLI_STRING, "none|simple|openai|FILE", "captions of class names, {} is the name: one of them is drawn per row and epoch" },
    { "recipe", 0, CLI_STRING, "flip", "FLIP's defaults: betas, eps, decay groups, warm-up from 0, lr by batch, half the patches; options override" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void time_left(char *text, size_t size, double seconds)
{
    long long n = (long long)(seconds + 0.5);
    if (n < 60)
        snprintf(text, size, "%lld s", n);
    else if (n < 3600)
        snprintf(text, size, "%lld min %02lld s", n / 60, n % 60);
    else
        snprintf(text, size, "%lld h %02lld min", n / 3600, n / 60 % 60);
}

static int on_step(void *user, const noema_train_step *s)
{
    cli_train_view *v = user;
    double t = cli_now();
    if (v->first < 0) {
        v->first = s->step;
        v->start = t;
    }
    bool last = s->step + 1 == s->total_steps;
    if (!v->c->quiet && (last || t - v->shown > (v->c->err_tty ? 0.5 : 10))) {
        int64_t done = s->step - v->first;
        double left = done > 0 ? (t - v->start) / (double)done * (double)(s->total_steps - s->step - 1) : 0;
        char share[48] = "", rest[32];
        if (s->peak > 0)
            snprintf(share, sizeof share, "  %.0f GFLOP/s (%.0f %% of peak)", 1e-9 * s->flops_per_second, 100 * s->flops_per_second / s->peak);
        time_left(rest, sizeof rest, left);
        cli_say(v->c, "epoch %lld/%lld  step %lld/%lld  loss %.4f  lr %.2e  |g| %.3g  %.1f samples/s%s  waiting %.0f %%  %s left", (long long)s->epoch + 1,
                (long long)s->epochs, (long long)s->step + 1, (long long)s->total_steps, s->loss, s->lr, s->grad_norm, s->samples_per_second, share,
                100 * s->data_wait, rest);
        v->shown = t;
    }
    return cli_interrupted();
}

static void put_ranks(cli_buf *b, const char *what, const noema_train_ranks *r)
{
    cli_printf(b, "  %s R@1 %.2f %% R@5 %.2f %% R@10 %.2f %% median %.0f", what, 100 * r->recall[0], 100 * r->recall[1], 100 * r->recall[2], r->median);
}

static void on_validated(void *user, const noema_train_validation *x)
{
    cli_train_view *v = user;
    cli_buf b = { 0 };
    if (x->first_skipped)
        cli_warn(v->c, "validation: %lld rows cannot be used; the first: %s", (long long)x->skipped, x->first_skipped->message);
    if (v->c->quiet)
        return;
    cli_printf(&b, "validation after epoch %lld: %lld %s%s  loss %.4f", (long long)x->epoch, (long long)x->rows, x->classes ? "rows" : "pairs",
               x->averaged ? ", averaged weights" : "", x->loss);
    if (x->classes)
        cli_printf(&b, "  top-1 %.2f %% top-5 %.2f %% of %lld classes", 100 * x->top1, 100 * x->top5, (long long)x->classes);
    else {
        put_ranks(&b, "image to text", &x->image_to_text);
        put_ranks(&b, "text to image", &x->text_to_image);
    }
    cli_say(v->c, "%s", b.data);
    cli_buf_free(&b);
}

/* Skipped pictures: the first ones are named, all are counted. */
static void on_failed(void *user, const char *what, const noema_error *why)
{
    cli_train_view *v = user;
    if (v->failed++ < 20)
        cli_warn(v->c, "skipped: %s", strstr(why->message, what) ? why->message : what);
}

/* Below 0 means in noema_train_options what nobody asked for; here it was. */
static bool no_negatives(cli *c)
{
    static const char *const names[] = { "beta1", "beta2", "eps", "force-patch-dropout" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (cli_str(c, names[i], NULL) && cli_num(c, names[i], 0) < 0)
            return cli_usage(c, "--%s %s: expected a number from 0 on", names[i], cli_str(c, names[i], NULL)), false;
    return true;
}

bool cli_train_read(cli *c, noema_train_options *o, cli_train_view *v, const char *recipe)
{
    noema_error err = NOEMA_ERROR_INIT;
    *v = (cli_train_view){ .c = c, .first = -1 };
    noema_train_options_default(o);
    if (recipe && noema_train_recipe(o, recipe, &err) != NOEMA_OK)
        return cli_usage(c, "%s", err.message), false;
    if (!no_negatives(c))
        return false;
    o->model = cli_str(c, "model", NULL);
    o->config = cli_str(c, "config", NULL);
    o->init = cli_str(c, "init", NULL);
    o->tokenizer = cli_str(c, "tokenizer", NULL);
    o->preprocess = cli_str(c, "preprocess", NULL);
    o->train_data = cli_str(c, "train-data", NULL);
    o->logs = cli_str(c, "logs", o->logs);
    o->name = cli_str(c, "name", o->name);
    o->resume = cli_str(c, "resume", NULL);
    o->img_key = cli_str(c, "csv-img-key", NULL);
    o->caption_key = cli_str(c, "csv-caption-key", NULL);
    o->label_key = cli_str(c, "csv-label-key", NULL);
    o->dataset_type = cli_str(c, "dataset-type", NULL);
    o->aug_cfg = cli_str(c, "aug-cfg", NULL);
    o->train_num_samples = cli_int(c, "train-num-samples", 0);
    o->max_skipped = cli_int(c, "max-skipped", -1);
    o->workers = cli_int(c, "workers", 0);
    o->batch_size = cli_int(c, "batch-size", o->batch_size);
    o->accum_freq = cli_int(c, "accum-freq", o->accum_freq);
    o->epochs = cli_int(c, "epochs", o->epochs);
    o->warmup = cli_int(c, "warmup", o->warmup);
    o->save_frequency = cli_int(c, "save-frequency", o->save_frequency);
    o->ema_warmup = cli_flag(c, "ema-warmup");
    o->save_steps = cli_int(c, "save-steps", 0);
    o->keep = cli_int(c, "keep", cli_flag(c, "delete-previous-checkpoint") ? 1 : 0);
    o->save_most_recent = cli_flag(c, "save-most-recent");
    o->grad_checkpointing = cli_flag(c, "grad-checkpointing");
    o->epochs_cooldown = cli_int(c, "epochs-cooldown", 0);
    o->lr_cooldown_end = cli_num(c, "lr-cooldown-end", o->lr_cooldown_end);
    o->lr_cooldown_power = cli_num(c, "lr-cooldown-power", o->lr_cooldown_power);
    o->lock_text_unlocked_layers = cli_int(c, "lock-text-unlocked-layers", 0);
    o->lr = cli_num(c, "lr", o->lr);
    o->opt = cli_str(c, "opt", o->opt);
    o->beta1 = cli_num(c, "beta1", o->beta1);
    o->beta2 = cli_num(c, "beta2", o->beta2);
    o->eps = cli_num(c, "eps", o->eps);
    o->momentum = cli_num(c, "momentum", o->momentum);
    o->wd = cli_num(c, "wd", o->wd);
    o->grad_clip_norm = cli_num(c, "grad-clip-norm", o->grad_clip_norm);
    o->ema_decay = cli_num(c, "ema-decay", o->ema_decay);
    o->force_patch_dropout = cli_num(c, "force-patch-dropout", o->force_patch_dropout);
    o->text_mask_ratio = cli_num(c, "text-mask-ratio", 0);
    o->text_mask = cli_str(c, "text-mask", o->text_mask);
    o->lr_scheduler = cli_str(c, "lr-scheduler", o->lr_scheduler);
    o->precision = cli_str(c, "precision", o->precision);
    o->seed = (uint64_t)cli_int(c, "seed", 0);
    o->lock_image = cli_flag(c, "lock-image");
    o->lock_text = cli_flag(c, "lock-text");
    o->lock_image_unlocked_groups = cli_int(c, "lock-image-unlocked-groups", 0);
    o->lock_image_freeze_bn_stats = cli_flag(c, "lock-image-freeze-bn-stats");
    o->lock_text_freeze_layer_norm = cli_flag(c, "lock-text-freeze-layer-norm");
    o->image_layer_decay = cli_num(c, "image-layer-decay", 0);
    o->text_layer_decay = cli_num(c, "text-layer-decay", 0);
    o->lora_rank = cli_int(c, "lora-rank", 0);
    o->lora_alpha = cli_num(c, "lora-alpha", 0);
    o->lora_targets = cli_str(c, "lora-targets", NULL);
    o->lora = cli_str(c, "lora", NULL);
    o->siglip = cli_flag(c, "siglip");
    o->unicl = cli_flag(c, "unicl");
    o->coca_caption_loss_weight = cli_num(c, "coca-caption-loss-weight", o->coca_caption_loss_weight);
    o->coca_contrastive_loss_weight = cli_num(c, "coca-contrastive-loss-weight", o->coca_contrastive_loss_weight);
    o->captions = cli_str(c, "captions", NULL);
    o->no_shuffle = cli_flag(c, "no-shuffle");
    o->no_augment = cli_flag(c, "no-augment");
    o->progress = on_step;
    o->progress_user = v;
    o->validated = on_validated;
    o->validated_user = v;
    o->failed = on_failed;
    o->failed_user = v;
    return true;
}

int cli_train_end(cli *c, noema_status s, const cli_train_view *v, const noema_error *err)
{
    if (v->failed)
        cli_warn(c, "%lld pictures could not be read and were replaced by other rows", (long long)v->failed);
    if (noema_train_rank() > 0 && strstr(err->message, "another rank has failed"))
        return s == NOEMA_E_ARGUMENT ? CLI_USAGE : CLI_NOTHING_DONE; /* that one says why */
    if (s == NOEMA_E_CANCELLED) {
        cli_warn(c, "%s; --resume latest goes on", err->message);
        return CLI_INTERRUPTED;
    }
    if (s != NOEMA_OK)
        return s == NOEMA_E_ARGUMENT ? cli_usage(c, "%s", err->message) : cli_fatal(c, err);
    return CLI_OK;
}

static const char *const simple_template[] = { "a photo of a {}." };

/* --class-names and --templates; the lists live until they are freed. */
static bool read_names(cli *c, noema_train_options *o, noema_names **names, cli_names *templates, noema_error *err)
{
    const char *classes = cli_str(c, "class-names", NULL), *t = cli_str(c, "templates", "none");
    bool simple = strcmp(t, "simple") == 0;
    if ((classes && noema_names_read(names, classes, err) != NOEMA_OK) || (!simple && !cli_names_templates(templates, t, err)))
        return false;
    o->class_names = noema_names_items(*names, &o->n_class_names);
    o->templates = simple ? simple_template : templates->item;
    o->n_templates = simple ? 1 : templates->n;
    return true;
}

static int run(cli *c)
{
    noema_train_options o;
    noema_error err = NOEMA_ERROR_INIT;
    noema_names *names = NULL;
    cli_names templates = { 0 };
    cli_train_view v;
    if (!cli_train_read(c, &o, &v, cli_str(c, "recipe", NULL)))
        return CLI_USAGE;
    o.val_data = cli_str(c, "val-data", NULL);
    o.val_frequency = cli_int(c, "val-frequency", o.val_frequency);
    o.val_num_samples = cli_int(c, "val-num-samples", 0);
    if (!o.train_data)
        return cli_usage(c, "expected --train-data FILE");
    if (!cli_context(c))
        return CLI_NOTHING_DONE;
    int code = !read_names(c, &o, &names, &templates, &err) ? cli_fatal(c, &err) : cli_train_end(c, noema_train(c->ctx, &o, &err), &v, &err);
    noema_names_free(names);
    cli_names_free(&templates);
    if (code != CLI_OK)
        return code;
    if (noema_train_rank() > 0)
        return CLI_OK;
    cli_buf line = { 0 };
    cli_puts(&line, "{\"run\":");
    char *folder = cli_text("%s/%s", o.logs, o.name);
    cli_put_json(&line, folder);
    cli_puts(&line, "}");
    cli_emit(&line);
    cli_buf_free(&line);
    free(folder);
    return CLI_OK;
}

const cli_verb cli_verb_train = {
    "train", "train a two-tower model contrastively", "[options] --train-data FILE",
    "Starts from -m MODEL, or draws new weights for --config FILE (open_clip's form, or an architecture's name). A run is the folder\n"
    "LOGS/NAME: config.json, log.jsonl, curves.svg, checkpoints/epoch_N.pt in open_clip's layout; `-m LOGS/NAME` is the trained model.",
    "noema train --config ViT-B-32 --tokenizer bpe_simple_vocab_16e6.txt.gz --train-data pairs.jsonl --epochs 1", options, CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
