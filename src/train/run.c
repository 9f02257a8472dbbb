/* run.c - a training run in its folder:
 *
 *     LOGS/NAME/config.json            the options, as given and as they became
 *     LOGS/NAME/log.jsonl              one object per optimizer step, appended and flushed
 *     LOGS/NAME/skipped.jsonl          rows that could not be read (ledger.h)
 *     LOGS/NAME/curves.svg             loss and learning rate, redrawn after every epoch
 *     LOGS/NAME/checkpoints/epoch_N.pt open_clip's layout, written atomically (savepoints.h)
 *     LOGS/NAME/open_clip_*            the last checkpoint as a model folder, so that `-m LOGS/NAME` is the trained model
 *
 * kill -9 at any moment leaves complete files only; --resume goes on at the last checkpoint's step and cuts the log to it. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "kernels/peak.h"
#include "models/average.h"
#include "models/flip.h"
#include "models/handle.h"
#include "noema/train.h"
#include "train/curves.h"
#include "train/loader.h"
#include "train/rows.h"
#include "train/run.h"
#include "train/savepoints.h"
#include "train/validate.h"

typedef struct run {
    noema_train_options o;
    noema_context *ctx;
    nm_job *job;   /* or NULL */
    noema_model *model;
    nm_trainer *t;
    nm_dataset *rows;
    nm_class_texts *captions;
    nm_loader *loader;
    nm_validation *validation; /* of rank 0; or NULL */
    nm_ranks ranks; /* rank 0 writes the run's files */
    bool agreed;    /* a failure that all ranks know of */
    char *folder, *checkpoints, *log_path, *skipped_path;
    FILE *log;
    bool row_open; /* a step's object in the log, which waits for what is measured after it */
    int64_t steps_per_epoch;
    double peak; /* operations per second, with a progress function */
    noema_error *err;
} run;

void noema_train_options_default(noema_train_options *o)
{
    *o = (noema_train_options){ .struct_size = sizeof *o, .logs = "logs", .name = "run", .batch_size = 64, .accum_freq = 1, .epochs = 32, .val_frequency = 1, .warmup = 10000, .force_patch_dropout = -1,
                                .save_frequency = 1, .max_skipped = -1, .lr = 5e-4, .opt = "adamw", .beta1 = -1, .beta2 = -1, .eps = -1, .momentum = 0.9, .wd = 0.2,
                                .coca_caption_loss_weight = 2, .coca_contrastive_loss_weight = 1, .lr_scheduler = "cosine", .lr_cooldown_power = 1, .precision = "fp32" };
}

/* facebookresearch/flip configs: an "epoch" there is 1,281,167 pictures, whatever the data. */
noema_status noema_train_recipe(noema_train_options *o, const char *recipe, noema_error *err)
{
    if (strcmp(recipe, "flip") != 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--recipe %s: expected flip", recipe);
    o->recipe = "flip";
    o->opt = "adamw";
    o->beta1 = 0.9;
    o->beta2 = 0.95;
    o->eps = 1e-8;
    o->wd = 0.2;
    o->lr = -1;
    o->warmup = -1;
    o->force_patch_dropout = 0.5;
    return NOEMA_OK;
}

/* What the recipe says of what was left open, once the batch is known. */
static noema_status resolve_recipe(noema_train_options *o, noema_error *err)
{
    int64_t batch = o->batch_size * o->accum_freq;
    if (!o->recipe)
        return NOEMA_OK;
    if (strcmp(o->recipe, "flip") != 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "recipe \"%s\": expected \"flip\"", o->recipe);
    if (o->lr < 0)
        o->lr = 4e-6 * (double)batch / 256;
    if (o->warmup < 0 && batch > 0)
        o->warmup = 40 * (1281167 / batch);
    return NOEMA_OK;
}

static noema_status train_options(const noema_train_options *o, bool transformer, nm_train_options *t, noema_error *err)
{
    *t = (nm_train_options){ .weight_decay = o->wd, .clip_norm = o->grad_clip_norm, .ema_decay = o->ema_decay, .siglip = o->siglip != 0, .unicl = o->unicl != 0,
                             .lock_image = o->lock_image != 0, .freeze_bn_stats = o->lock_image_freeze_bn_stats != 0, .lock_text = o->lock_text != 0, .accum = o->accum_freq, .seed = o->seed,
                             .unlocked_groups = (int)o->lock_image_unlocked_groups, .image_layer_decay = o->image_layer_decay,
                             .text_layer_decay = o->text_layer_decay };
    t->lora = (nm_lora_options){ .rank = o->lora_rank, .alpha = o->lora_alpha != 0 ? o->lora_alpha : (double)o->lora_rank, .targets = o->lora_targets,
                                 .image = !o->lock_image, .text = !o->lock_text, .seed = o->seed };
    if (o->lock_image_unlocked_groups < 0 || o->lock_image_unlocked_groups > 1 << 16 || o->lora_rank < 0 || o->lora_rank > 1 << 16 ||
        !(o->image_layer_decay >= 0) || !(o->text_layer_decay >= 0) || (!o->lora_rank && (o->lora || o->lora_targets || o->lora_alpha != 0)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "unlocked groups, LoRA rank and layer decay must not be negative; the other LoRA options need a rank");
    if (strcmp(o->opt, "adamw") == 0)
        t->opt.kind = NM_OPT_ADAMW;
    else if (strcmp(o->opt, "sgd") == 0)
        t->opt.kind = NM_OPT_SGD;
    else if (strcmp(o->opt, "lion") == 0)
        t->opt.kind = NM_OPT_LION;
    else
        return nm_fail(err, NOEMA_E_ARGUMENT, "--opt %s: expected adamw, sgd or lion", o->opt);
    t->opt.beta1 = o->beta1 >= 0 ? o->beta1 : 0.9;
    t->opt.beta2 = o->beta2 >= 0 ? o->beta2 : transformer ? 0.98 : 0.999;
    t->opt.eps = o->eps >= 0 ? o->eps : transformer ? 1e-6 : 1e-8;
    t->opt.momentum = o->momentum;
    if (!(o->momentum >= 0 && t->opt.beta1 < 1 && t->opt.beta2 < 1 && o->ema_decay >= 0 && o->ema_decay < 1 && o->grad_clip_norm >= 0))
        return nm_fail(err, NOEMA_E_ARGUMENT, "expected beta1, beta2 and the average's decay below 1, and nothing of them, of momentum and of the norm to clip at below 0");
    if (strcmp(o->precision, "fp32") != 0 && strcmp(o->precision, "amp_bf16") != 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--precision %s: expected fp32 or amp_bf16", o->precision);
    t->compute = strcmp(o->precision, "fp32") == 0 ? NM_F32 : NM_BF16;
    static const char *const kinds[] = { [NM_LR_COSINE] = "cosine", [NM_LR_CONST] = "const", [NM_LR_CONST_COOLDOWN] = "const-cooldown" };
    int kind = 0, n_kinds = (int)(sizeof kinds / sizeof *kinds);
    while (kind < n_kinds && strcmp(o->lr_scheduler, kinds[kind]) != 0)
        kind++;
    if (kind == n_kinds)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--lr-scheduler %s: expected cosine, const or const-cooldown", o->lr_scheduler);
    if (kind == NM_LR_CONST_COOLDOWN && (o->epochs_cooldown < 1 || o->epochs_cooldown > o->epochs))
        return nm_fail(err, NOEMA_E_ARGUMENT, "--lr-scheduler const-cooldown needs --epochs-cooldown N, 1 <= N <= %lld", (long long)o->epochs);
    t->schedule = (nm_schedule){ .kind = (nm_schedule_kind)kind, .base_lr = o->lr, .warmup = o->warmup, .power = o->lr_cooldown_power,
                                 .end_lr = o->lr_cooldown_end, .warmup_from_zero = o->recipe != NULL };
    t->flip_groups = o->recipe != NULL;
    if (!(o->force_patch_dropout < 1))
        return nm_fail(err, NOEMA_E_ARGUMENT, "--force-patch-dropout %g: expected a share from 0 to below 1", o->force_patch_dropout);
    if (!(o->text_mask_ratio >= 0 && o->text_mask_ratio < 1))
        return nm_fail(err, NOEMA_E_ARGUMENT, "--text-mask-ratio %g: expected a share from 0 to below 1", o->text_mask_ratio);
    t->text_mask_ratio = o->text_mask_ratio;
    t->text_mask_random = o->text_mask && strcmp(o->text_mask, "random") == 0;
    if (o->text_mask && !t->text_mask_random && strcmp(o->text_mask, "prioritized") != 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--text-mask %s: expected prioritized or random", o->text_mask);
    t->contrastive_weight = o->coca_contrastive_loss_weight;
    t->caption_weight = o->coca_caption_loss_weight;
    if (!(t->contrastive_weight >= 0) || !(t->caption_weight >= 0) || !isfinite(t->contrastive_weight) || !isfinite(t->caption_weight) ||
        t->contrastive_weight + t->caption_weight == 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--coca-contrastive-loss-weight %g, --coca-caption-loss-weight %g: expected numbers from 0 on, not both 0",
                       t->contrastive_weight, t->caption_weight);
    t->ema_warmup = o->ema_warmup != 0;
    t->checkpointing = o->grad_checkpointing != 0;
    t->text_unlocked = (int)o->lock_text_unlocked_layers;
    t->freeze_layer_norm = o->lock_text_freeze_layer_norm != 0;
    if (o->val_frequency < 0 || o->val_num_samples < 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--val-frequency and --val-num-samples must not be negative");
    if (o->save_steps < 0 || o->keep < 0 || o->lock_text_unlocked_layers < 0 || o->lock_text_unlocked_layers > 1 << 16 || !(o->lr_cooldown_power >= 0) ||
        !(o->lr_cooldown_end >= 0))
        return nm_fail(err, NOEMA_E_ARGUMENT, "steps per checkpoint, files to keep, unlocked layers and the cooldown's power and end must not be negative");
    if (o->batch_size < 1 || o->accum_freq < 1 || o->epochs < 1 || o->save_frequency < 1 || !(o->lr >= 0) || !(o->wd >= 0))
        return nm_fail(err, NOEMA_E_ARGUMENT, "batch size, accumulation, epochs and save frequency must be at least 1; lr and wd at least 0");
    if (o->unicl && o->siglip)
        return nm_fail(err, NOEMA_E_ARGUMENT, "--unicl and --siglip are two losses: one of them");
    return NOEMA_OK;
}

/* ---- the model ---- */

/* --init: weights of another model in place of drawn ones. */
static noema_status take_weights(run *r, nm_model *m)
{
    noema_model_options o;
    noema_model *from = NULL;
    size_t taken = 0, all = 0;
    noema_model_options_default(&o);
    o.dtype = NOEMA_DTYPE_F32;
    noema_status s = noema_model_open(&from, r->ctx, r->o.init, &o, r->err);
    if (s == NOEMA_OK)
        s = nm_model_take(m, from->m, &taken, &all, r->err);
    noema_model_free(from);
    if (s == NOEMA_OK && !taken)
        return nm_fail(r->err, NOEMA_E_MISMATCH, "--init %s: none of its weights has the name and shape of one of %s", r->o.init, r->o.config);
    if (s == NOEMA_OK && r->ranks.rank == 0)
        nm_log(r->ctx, NOEMA_LOG_INFO, "%zu of %zu weights are those of %s, the others are drawn", taken, all, r->o.init);
    return s;
}

static noema_status open_model(run *r)
{
    noema_model_options mo;
    noema_model_options_default(&mo);
    mo.dtype = NOEMA_DTYPE_F32;
    mo.tokenizer = r->o.tokenizer;
    mo.preprocess = r->o.preprocess;
    if (r->o.init && (r->o.model || !r->o.config))
        return nm_fail(r->err, NOEMA_E_ARGUMENT, "--init MODEL fills a new model of --config FILE; -m MODEL goes on with a model as it is");
    if (r->o.model) {
        mo.config = r->o.config;
        return noema_model_open(&r->model, r->ctx, r->o.model, &mo, r->err);
    }
    if (!r->o.config)
        return nm_fail(r->err, NOEMA_E_ARGUMENT, "training needs -m MODEL to start from, or --config FILE (or an architecture's name) to draw new weights");
    json_t *config = nm_file_exists(r->o.config) ? nm_json_load(r->o.config, r->err) : NULL;
    nm_model *m = NULL;
    if (!config && nm_file_exists(r->o.config))
        return r->err ? r->err->code : NOEMA_E_FORMAT;
    const char *type = nm_json_str(nm_json_get(config, "model_cfg") ? nm_json_get(config, "model_cfg") : config, "model_type", "clip");
    const nm_family *family = strcmp(type, "flip") == 0 ? &nm_family_flip : &nm_family_clip;
    noema_status s = family->create(&m, config ? NULL : r->o.config, config, r->o.seed, r->err);
    if (s == NOEMA_OK)
        s = nm_model_adopt(&r->model, r->ctx, m, r->o.config, &mo, r->err);
    json_decref(config);
    return s == NOEMA_OK && r->o.init ? take_weights(r, m) : s;
}

/* ---- files of the run ---- */

static char *in_folder(const run *r, const char *name) { return nm_path_join(r->folder, name); }

static noema_status write_json(const run *r, const char *name, const json_t *j)
{
    char *path = in_folder(r, name), *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    noema_status s = path && text ? nm_write_file_atomic(path, text, strlen(text), r->err) : nm_fail(r->err, NOEMA_E_MEMORY, "out of memory: %s", name);
    free(path);
    free(text);
    return s;
}

static json_t *options_json(const noema_train_options *o, const nm_train_options *t, int64_t steps)
{
    json_t *j = json_object();
    const struct { const char *key, *value; } texts[] = {
        { "model", o->model }, { "config", o->config }, { "init", o->init }, { "tokenizer", o->tokenizer }, { "preprocess", o->preprocess }, { "train_data", o->train_data },
        { "val_data", o->val_data }, { "lora_targets", o->lora_targets }, { "lora", o->lora }, { "captions", o->captions },
        { "opt", o->opt }, { "recipe", o->recipe }, { "lr_scheduler", o->lr_scheduler }, { "text_mask", o->text_mask ? o->text_mask : "prioritized" }, { "precision", o->precision }, { "aug_cfg", o->aug_cfg },
    };
    const struct { const char *key; double value; } numbers[] = {
        { "lr", o->lr }, { "beta1", t->opt.beta1 }, { "beta2", t->opt.beta2 }, { "eps", t->opt.eps }, { "momentum", o->momentum }, { "wd", o->wd },
        { "image_layer_decay", o->image_layer_decay }, { "text_layer_decay", o->text_layer_decay }, { "lora_alpha", t->lora.alpha },
        { "grad_clip_norm", o->grad_clip_norm }, { "ema_decay", o->ema_decay }, { "lr_cooldown_end", o->lr_cooldown_end },
        { "lr_cooldown_power", o->lr_cooldown_power }, { "patch_dropout", t->patch_dropout }, { "text_mask_ratio", t->text_mask_ratio },
        { "coca_contrastive_loss_weight", o->coca_contrastive_loss_weight }, { "coca_caption_loss_weight", o->coca_caption_loss_weight },
    };
    const struct { const char *key; int64_t value; } ints[] = {
        { "batch_size", o->batch_size }, { "accum_freq", o->accum_freq }, { "epochs", o->epochs }, { "warmup", o->warmup }, { "total_steps", steps },
        { "val_frequency", o->val_frequency }, { "val_num_samples", o->val_num_samples }, { "save_frequency", o->save_frequency }, { "seed", (int64_t)o->seed }, { "lock_image", o->lock_image }, { "lock_text", o->lock_text },
        { "ema_warmup", o->ema_warmup }, { "save_steps", o->save_steps }, { "keep", o->keep }, { "save_most_recent", o->save_most_recent }, { "epochs_cooldown", o->epochs_cooldown },
        { "grad_checkpointing", o->grad_checkpointing }, { "lock_text_unlocked_layers", o->lock_text_unlocked_layers },
        { "lock_image_unlocked_groups", o->lock_image_unlocked_groups }, { "lock_image_freeze_bn_stats", o->lock_image_freeze_bn_stats },
        { "lock_text_freeze_layer_norm", o->lock_text_freeze_layer_norm }, { "lora_rank", o->lora_rank },
        { "siglip", o->siglip }, { "unicl", o->unicl }, { "no_shuffle", o->no_shuffle }, { "no_augment", o->no_augment }, { "train_num_samples", o->train_num_samples }, { "max_skipped", o->max_skipped },
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        json_object_set_new(j, texts[i].key, texts[i].value ? json_string(texts[i].value) : json_null());
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(j, numbers[i].key, json_real(numbers[i].value));
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        json_object_set_new(j, ints[i].key, json_integer((json_int_t)ints[i].value));
    return j;
}

static noema_status save_model_folder(run *r)
{
    nm_model *m = r->t->model;
    json_t *config = m->family->config ? m->family->config(m) : NULL;
    noema_status s = config ? write_json(r, "open_clip_config.json", config) : NOEMA_OK;
    json_decref(config);
    char *path = in_folder(r, "open_clip_model.safetensors");
    if (s == NOEMA_OK)
        s = path ? nm_params_save(m->family->declare, m, m->family->save_scheme, path, NM_F32, r->err) : nm_fail(r->err, NOEMA_E_MEMORY, "out of memory: %s", r->folder);
    free(path);
    path = s == NOEMA_OK && r->t->lora ? in_folder(r, "lora.safetensors") : NULL;
    if (path)
        s = nm_lora_save(r->t->lora, path, r->err);
    free(path);
    if (s == NOEMA_OK && r->job && r->job->save)
        s = r->job->save(r->job->self, r->folder, r->err);
    /* The tokenizer that the texts were read with goes along, under the name that is looked for beside a checkpoint. */
    return s == NOEMA_OK ? nm_model_copy_tokenizer(r->model, r->folder, r->err) : s;
}

static noema_status write_state(run *r, const char *name, char **path)
{
    *path = nm_path_join(r->checkpoints, name);
    return *path ? nm_trainer_save(r->t, *path, r->o.name, r->t->step / r->steps_per_epoch, r->t->step * r->o.batch_size * r->o.accum_freq, r->err)
                 : nm_fail(r->err, NOEMA_E_MEMORY, "out of memory: %s", name);
}

/* After an epoch. Older files go when the new one is complete. */
static noema_status save_epoch(run *r, bool numbered)
{
    char name[64] = "epoch_latest.pt", *path;
    if (numbered)
        snprintf(name, sizeof name, "epoch_%lld.pt", (long long)(r->t->step / r->steps_per_epoch));
    noema_status s = write_state(r, name, &path);
    if (s == NOEMA_OK && numbered && r->o.save_most_recent)
        s = nm_savepoints_most_recent(r->checkpoints, path, r->err);
    free(path);
    if (s == NOEMA_OK)
        s = save_model_folder(r);
    if (s == NOEMA_OK)
        nm_savepoints_prune(r->checkpoints, r->o.keep, r->t->step);
    return s == NOEMA_OK ? nm_curves_write(r->folder, r->err) : s;
}

/* Inside an epoch: the state alone. */
static noema_status save_step(run *r)
{
    char name[64], *path;
    snprintf(name, sizeof name, "step_%lld.pt", (long long)r->t->step);
    noema_status s = write_state(r, name, &path);
    free(path);
    if (s == NOEMA_OK)
        nm_savepoints_prune(r->checkpoints, 0, r->t->step);
    return s;
}

/* Whether the model is measured after this many steps. */
static bool measures_after(const run *r, int64_t steps)
{
    bool able = r->validation || (r->job && r->job->measure && r->o.val_data), epoch = steps % r->steps_per_epoch == 0;
    return able && epoch && r->o.val_frequency > 0 && (steps / r->steps_per_epoch % r->o.val_frequency == 0 || steps == r->t->o.schedule.total);
}

/* Ends the last step's object, with what was measured (or NULL). A run that is killed before this does the step again. */
static noema_status end_row(run *r, const char *val)
{
    if (!r->row_open)
        return NOEMA_OK;
    r->row_open = false;
    if (val)
        fprintf(r->log, ",\"val\":%s", val);
    fprintf(r->log, "}\n");
    return fflush(r->log) ? nm_fail(r->err, NOEMA_E_IO, "%s: cannot write", r->log_path) : NOEMA_OK;
}

/* Before the checkpoint: a run that goes on from there has the figures already, one that goes on before it gets them again. */
static noema_status validate(run *r)
{
    noema_train_validation x = { 0 };
    nm_buf b = { 0 };
    if (!measures_after(r, r->t->step))
        return NOEMA_OK;
    noema_status s = r->validation ? nm_validation_run(r->validation, r->t, &x, r->err) : r->job->measure(r->job->self, r->t, &x, r->err);
    if (s != NOEMA_OK) {
        char place[64];
        snprintf(place, sizeof place, "measuring after step %lld", (long long)r->t->step - 1);
        (void)nm_fail_prefix(r->err, place);
    }
    x.epoch = r->t->step / r->steps_per_epoch;
    if (s == NOEMA_OK && !nm_validation_json(&x, &b))
        s = nm_fail(r->err, NOEMA_E_MEMORY, "out of memory: validation");
    noema_status ended = end_row(r, s == NOEMA_OK ? b.data : NULL);
    s = s == NOEMA_OK ? ended : s;
    nm_buf_free(&b);
    if (s == NOEMA_OK && r->o.validated)
        r->o.validated(r->o.validated_user, &x);
    return s;
}

/* What is due after a step; `stop`: the run ends here. */
static noema_status save_what_is_due(run *r, bool stop)
{
    int64_t step = r->t->step, done = step / r->steps_per_epoch;
    bool epoch = step % r->steps_per_epoch == 0, inside = stop || (r->o.save_steps > 0 && step % r->o.save_steps == 0);
    noema_status s = epoch || inside ? nm_trainer_check(r->t, r->err) : NOEMA_OK;
    if (s != NOEMA_OK)
        return s;
    if (epoch) {
        noema_status measured = validate(r);
        bool numbered = done % r->o.save_frequency == 0 || step == r->t->o.schedule.total || measured != NOEMA_OK;
        if (numbered || r->o.save_most_recent) { /* also where the measuring failed and ends the run: the epoch is not lost */
            s = save_epoch(r, numbered);
            return s == NOEMA_OK ? measured : s;
        }
    }
    return inside ? save_step(r) : NOEMA_OK;
}

/* ---- resuming ---- */

static noema_status cut_log(run *r, int64_t step) { return r->ranks.rank > 0 ? NOEMA_OK : nm_steps_cut(r->log_path, step, NULL, r->err); }

static noema_status resume(run *r)
{
    const char *file = r->o.resume;
    char *latest = NULL;
    int64_t epoch = 0, step = -1, total = r->t->o.schedule.total;
    if (!file)
        return NOEMA_OK;
    if (r->ranks.rank == 0) {
        nm_savepoints_sweep(r->folder);
        nm_savepoints_sweep(r->checkpoints);
    }
    if (strcmp(file, "latest") == 0 && !(file = latest = nm_savepoints_latest(r->checkpoints, r->steps_per_epoch)))
        return cut_log(r, 0); /* nothing was saved yet: from the start */
    noema_status s = nm_trainer_load(r->t, file, &epoch, &step, r->err);
    if (s == NOEMA_OK && step < 0)
        r->t->step = epoch * r->steps_per_epoch;
    if (s == NOEMA_OK && r->t->updates < 0)
        r->t->updates = r->t->step;
    if (s == NOEMA_OK && r->t->step > total)
        s = nm_fail(r->err, NOEMA_E_MISMATCH, "%s: it is %lld steps on; this run has %lld (%lld epochs of %lld steps)", file, (long long)r->t->step,
                    (long long)total, (long long)r->o.epochs, (long long)r->steps_per_epoch);
    if (s == NOEMA_OK)
        s = cut_log(r, r->t->step);
    free(latest);
    return s;
}

/* ---- the loop ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static noema_status log_step(run *r, int64_t step, const nm_step_result *x)
{
    if (r->ranks.rank > 0)
        return NOEMA_OK;
    fprintf(r->log, "{\"step\":%lld,\"epoch\":%lld,\"lr\":%.17g,\"loss\":%.9g,\"grad_norm\":%.9g,\"logit_scale\":%.9g", (long long)step,
            (long long)(step / r->steps_per_epoch), x->lr, x->loss, x->grad_norm, x->logit_scale);
    if (r->t->o.task->row_loss) /* open_clip's names, weights included */
        fprintf(r->log, ",\"contrastive_loss\":%.9g,\"caption_loss\":%.9g", x->loss - x->row_loss, x->row_loss);
    r->row_open = true;
    return measures_after(r, step + 1) ? NOEMA_OK : end_row(r, NULL);
}

static int report(run *r, int64_t step, const nm_step_result *x, double seconds, double waited)
{
    noema_train_step p = { .step = step, .total_steps = r->t->o.schedule.total, .epoch = step / r->steps_per_epoch, .epochs = r->o.epochs, .lr = x->lr,
                           .loss = x->loss, .grad_norm = x->grad_norm, .logit_scale = x->logit_scale,
                           .samples_per_second = (double)(r->o.batch_size * r->o.accum_freq) / (seconds > 0 ? seconds : 1e-9),
                           .data_wait = seconds > 0 ? waited / seconds : 0, .flops_per_second = seconds > 0 ? x->flops / seconds : 0, .peak = r->peak };
    return r->o.progress && r->ranks.rank == 0 ? r->o.progress(r->o.progress_user, &p) : 0;
}

/* The same outcome on every rank: where one fails, all end; those without a failure of their own leave it to that one to say why. */
static noema_status agree(run *r, noema_status s)
{
    int worst = nm_ranks_most(&r->ranks, -(int)s);
    r->agreed = worst != 0;
    return s == NOEMA_OK && worst ? nm_fail(r->err, (noema_status)-worst, "another rank has failed") : s;
}

static noema_status loop(run *r)
{
    int64_t total = r->t->o.schedule.total;
    noema_status s = NOEMA_OK;
    if (r->t->step == total) { /* killed between the last checkpoint and what is written from it */
        s = r->ranks.rank == 0 ? save_model_folder(r) : NOEMA_OK;
        return s == NOEMA_OK && r->ranks.rank == 0 ? nm_curves_write(r->folder, r->err) : s;
    }
    while (s == NOEMA_OK && r->t->step < total) {
        int64_t step = r->t->step;
        double start = now(), waited = 0;
        nm_pair_batch b;
        nm_step_result x;
        s = agree(r, nm_loader_get(r->loader, step, &b, &waited, r->err));
        if (s == NOEMA_OK)
            s = nm_trainer_step(r->t, &b, &x, r->err);
        r->agreed = r->agreed || s == NOEMA_E_FORMAT; /* NaN: loss and gradients are those of all ranks */
        if (s == NOEMA_E_MISMATCH) { /* a token that the model does not have */
            char place[320];
            snprintf(place, sizeof place, "%.280s: step %lld", r->o.train_data, (long long)step);
            (void)nm_fail_prefix(r->err, place);
        }
        if (s == NOEMA_OK)
            s = log_step(r, step, &x);
        bool stop = s == NOEMA_OK && report(r, step, &x, now() - start, waited) != 0;
        stop = s == NOEMA_OK && nm_ranks_most(&r->ranks, stop) != 0;
        if (s == NOEMA_OK)
            s = agree(r, r->ranks.rank > 0 ? NOEMA_OK : save_what_is_due(r, stop));
        r->agreed = r->agreed || stop;
        if (stop)
            return s == NOEMA_OK ? nm_fail(r->err, NOEMA_E_CANCELLED, "stopped after step %lld", (long long)step) : s;
    }
    return s;
}

static noema_status prepare(run *r)
{
    nm_train_options to;
    noema_status s = open_model(r);
    if (s != NOEMA_OK)
        return s;
    nm_model *m = noema_model_internal(r->model);
    nm_dataset_options rows = nm_rows_options(&r->o);
    s = resolve_recipe(&r->o, r->err);
    if (s == NOEMA_OK)
        s = train_options(&r->o, m->patches > 0, &to, r->err);
    to.patch_dropout = r->o.force_patch_dropout >= 0 ? r->o.force_patch_dropout : m->patch_dropout;
    if (s == NOEMA_OK)
        s = nm_dataset_open(&r->rows, r->o.train_data, &rows, r->err);
    if (s == NOEMA_OK && r->job)
        s = r->job->opened(r->job->self, r->model, r->rows, &r->o, &to, r->err);
    if (s == NOEMA_OK && !to.task && m->family == &nm_family_coca)
        to.task = to.contrastive_weight > 0 ? &nm_task_coca : &nm_task_captions;
    to.accum = r->o.accum_freq;
    to.ranks = r->ranks;
    if (s == NOEMA_OK && r->o.unicl && r->ranks.size > 1)
        s = nm_fail(r->err, NOEMA_E_UNSUPPORTED, "--unicl compares rows of one process only: run it without mpirun");
    if (s == NOEMA_OK && r->o.batch_size % r->ranks.size)
        s = nm_fail(r->err, NOEMA_E_ARGUMENT, "--batch-size %lld is no multiple of %d processes", (long long)r->o.batch_size, r->ranks.size);
    nm_loader_options lo = { .batch = r->o.batch_size * r->o.accum_freq, .rank = r->ranks.rank, .ranks = r->ranks.size, .seed = r->o.seed, .shuffle = !r->o.no_shuffle, .augment = !r->o.no_augment, .flip_crops = r->o.recipe != NULL,
                             .labels = to.task == &nm_task_labels, .pick = r->job ? r->job->pick : NULL, .n_pick = r->job ? r->job->n_pick : 0,
                             .samples = r->o.train_num_samples, .max_skipped = r->o.max_skipped, .ledger = r->ranks.rank == 0 ? r->skipped_path : NULL, .workers = (int)r->o.workers,
                             .groups = r->o.unicl != 0, .failed = r->o.failed, .failed_user = r->o.failed_user };
    nm_augment_default(&lo.augmentation);
    if (r->o.recipe) { /* FLIP's crops and mirrors; pictures of its own preprocessing take them another way (loader.c) */
        lo.augmentation.scale[0] = 0.5;
        lo.augmentation.hflip = 0.5;
    }
    if (s == NOEMA_OK && r->o.aug_cfg)
        s = nm_augment_parse(&lo.augmentation, r->o.aug_cfg, r->err);
    if (s == NOEMA_OK && r->o.captions)
        s = nm_class_texts_open(&r->captions, r->o.captions, r->rows, r->err);
    lo.captions = r->captions;
    if (s == NOEMA_OK)
        s = nm_loader_new(&r->loader, r->model, r->rows, &lo, r->err);
    if (s != NOEMA_OK)
        return s;
    r->steps_per_epoch = nm_loader_steps(r->loader);
    to.schedule.total = r->steps_per_epoch * r->o.epochs;
    to.schedule.cooldown = r->steps_per_epoch * r->o.epochs_cooldown;
    if (r->o.warmup < 0)
        r->o.warmup = to.schedule.warmup = to.schedule.total / 10 < 500 ? to.schedule.total / 10 : 500;
    s = nm_trainer_new(&r->t, m, r->ctx->pool, &to, r->err);
    if (s == NOEMA_OK && r->o.val_data && !r->job && r->ranks.rank == 0)
        s = nm_validation_open(&r->validation, r->model, &r->o, r->err);
    if (s == NOEMA_OK && r->o.lora)
        s = nm_lora_load(r->t->lora, r->o.lora, r->ctx->pool, r->err);
    if (s == NOEMA_OK)
        s = nm_mkdirs(r->checkpoints, r->err);
    if (s == NOEMA_OK && r->ranks.rank == 0 && !r->o.resume && nm_file_exists(r->log_path))
        s = nm_fail(r->err, NOEMA_E_ARGUMENT, "%s holds a run already: --resume latest goes on with it, another --name starts a new one", r->folder);
    if (s == NOEMA_OK)
        s = resume(r);
    if (s != NOEMA_OK || r->ranks.rank > 0)
        return s;
    json_t *config = options_json(&r->o, &to, to.schedule.total);
    if (r->job && r->job->describe)
        r->job->describe(r->job->self, config);
    s = write_json(r, "config.json", config);
    json_decref(config);
    if (r->o.progress)
        r->peak = nm_peak_per_second(r->ctx->pool, to.compute);
    if (s == NOEMA_OK && !(r->log = fopen(r->log_path, "ae")))
        s = nm_fail(r->err, NOEMA_E_IO, "%s: cannot open for appending", r->log_path);
    return s;
}

noema_status nm_run_training(noema_context *ctx, const noema_train_options *o, nm_job *job, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    err = err ? err : &local;
    run r = { .o = *o, .ctx = ctx, .job = job, .err = err };
    noema_status s = nm_ranks_open(&r.ranks, err);
    if (s != NOEMA_OK)
        return s;
    r.folder = nm_path_join(o->logs, o->name);
    r.log_path = r.folder ? in_folder(&r, "log.jsonl") : NULL;
    r.skipped_path = r.folder ? in_folder(&r, "skipped.jsonl") : NULL;
    r.checkpoints = r.folder ? in_folder(&r, "checkpoints") : NULL;
    if (!r.log_path || !r.skipped_path || !r.checkpoints)
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", o->name);
    if (s == NOEMA_OK)
        s = prepare(&r);
    s = agree(&r, s);
    if (s == NOEMA_OK)
        s = loop(&r);
    if (s == NOEMA_OK && job && job->finished && r.ranks.rank == 0)
        s = job->finished(job->self, r.t, r.folder, err);
    (void)end_row(&r, NULL); /* of a run that has failed already */
    if (r.log && fclose(r.log) != 0 && s == NOEMA_OK)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write", r.log_path);
    nm_ranks_close(&r.ranks, s == NOEMA_OK || r.agreed);
    nm_loader_free(r.loader);
    nm_validation_free(r.validation);
    nm_trainer_free(r.t);
    nm_class_texts_free(r.captions);
    nm_dataset_free(r.rows);
    noema_model_free(r.model);
    free(r.folder);
    free(r.log_path);
    free(r.skipped_path);
    free(r.checkpoints);
    return s;
}

noema_status noema_train(noema_context *ctx, const noema_train_options *o, noema_error *err)
{
    if (!o || o->struct_size != sizeof *o || !o->train_data)
        return nm_fail(err, NOEMA_E_ARGUMENT, "training needs --train-data FILE");
    return nm_run_training(ctx, o, NULL, err);
}

int noema_train_rank(void) { return nm_ranks_mine(); }
