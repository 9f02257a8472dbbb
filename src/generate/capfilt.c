/* capfilt.c - see noema/capfilt.h. A shard's journal (NNNNN.jsonl) holds what the model said of each row, in order and appended batch by batch;
 * when it is complete the shard is written from it and the pictures' own bytes. Everything that a later call needs stands in these files. */
#define _GNU_SOURCE
#include "noema/capfilt.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/journal.h"
#include "base/json.h"
#include "data/shards.h"
#include "models/handle.h"

enum { MOST_BATCH = 4096, MOST_SHARD_ROWS = 1000000 };
#define CLAIM "capfilt.json"

void noema_capfilt_options_default(noema_capfilt_options *o)
{
    *o = (noema_capfilt_options){ .struct_size = sizeof *o, .shard_rows = 1000, .batch = 16, .max_skipped = -1, .threshold = 0.5,
                                  .match = { .struct_size = sizeof o->match, .head = 2 } };
}

/* A row of the batch: its picture and texts copied out of the data set, whose rows are valid one at a time. */
typedef struct item { char *name, *bytes, **text; size_t n_bytes, n_texts; bool synthetic; noema_error why; } item;

typedef struct job job;
typedef noema_status step_fn(job *j, int64_t row, size_t n, noema_picture *pictures, size_t *at);

struct job {
    noema_session *s;
    noema_dataset *d;
    const char *dir;
    noema_capfilt_options o;
    noema_generate_options generate;
    bool filter;
    step_fn *step;
    noema_capfilt_counts *counts;
    int64_t total, max_skipped;
    item *items;       /* [batch] */
    nm_buf *lines;     /* [batch] the end of each row's line */
    nm_journal journal; /* of the shard that is being made */
    nm_buf skipped, sizes;
    noema_error *err;
};

static noema_status no_memory(const job *j) { return nm_fail(j->err, NOEMA_E_MEMORY, "%s: out of memory", j->dir); }

/* ---- rows of the input ---- */

static void item_free(item *it)
{
    for (size_t k = 0; k < it->n_texts; k++)
        free(it->text[k]);
    free(it->text);
    free(it->bytes);
    free(it->name);
    *it = (item){ .why = NOEMA_ERROR_INIT };
}

/* A row that cannot be used has it->why; false: no memory. */
static bool take_row(job *j, int64_t i, item *it)
{
    noema_dataset_row row;
    const void *bytes;
    const char *suffix;
    char *own = NULL;
    *it = (item){ .why = NOEMA_ERROR_INIT };
    noema_status s = noema_dataset_read(j->d, i, &row, &it->why);
    if (s == NOEMA_OK)
        s = nm_shard_picture(&row, &bytes, &it->n_bytes, &suffix, &own, &it->why);
    bool ok = (it->name = nm_strdup(row.name)) != NULL;
    if (s != NOEMA_OK) {
        free(own);
        return ok;
    }
    it->synthetic = row.synthetic;
    it->bytes = own;
    if (!own && (ok = ok && (it->bytes = nm_malloc_array(it->n_bytes + 1, 1))))
        memcpy(it->bytes, bytes, it->n_bytes);
    ok = ok && (it->text = calloc(row.n_captions + 1, sizeof *it->text));
    for (size_t k = 0; ok && k < row.n_captions; k++) {
        size_t n;
        const char *text = noema_dataset_caption(j->d, k, &n);
        ok = (it->text[it->n_texts++] = nm_strndup(text, n)) != NULL;
    }
    if (ok && j->filter && !it->n_texts)
        nm_fail(&it->why, NOEMA_E_FORMAT, "%s: no text to compare with the picture", it->name);
    return ok;
}

/* ---- lines of the journal ---- */

static const char *source_of(bool synthetic) { return synthetic ? "synthetic" : "web"; }

static void put_text(nm_buf *b, bool synthetic, const char *text, float score, bool kept)
{
    nm_buf_printf(b, "%s{\"source\":\"%s\",\"text\":", b->len ? "," : "", source_of(synthetic));
    nm_json_put_str(b, text, strlen(text));
    nm_buf_puts(b, ",\"score\":");
    nm_json_put_f32(b, score);
    nm_buf_printf(b, ",\"kept\":%s}", kept ? "true" : "false");
}

/* Sums a line up; the ledger gets the rows that could not be used. */
static noema_status count_line(job *j, const json_t *line, int64_t *kept)
{
    const char *error = nm_json_str(line, "error", NULL), *input = nm_json_str(line, "input", "");
    json_t *text;
    size_t i;
    json_array_foreach(nm_json_get(line, "texts"), i, text) {
        bool synthetic = strcmp(nm_json_str(text, "source", ""), "synthetic") == 0, keep = nm_json_bool(text, "kept", false);
        ++*(synthetic ? &j->counts->synthetic : &j->counts->web);
        *(synthetic ? &j->counts->synthetic_kept : &j->counts->web_kept) += keep;
        *kept += keep;
    }
    j->counts->rows++;
    if (!error)
        return NOEMA_OK;
    noema_error why = NOEMA_ERROR_INIT;
    nm_fail(&why, NOEMA_E_FORMAT, "%s", error);
    nm_buf_printf(&j->skipped, "{\"row\":%lld,\"input\":", (long long)nm_json_int(line, "row", -1));
    nm_json_put_str(&j->skipped, input, strlen(input));
    nm_buf_puts(&j->skipped, ",\"error\":");
    nm_json_put_str(&j->skipped, error, strlen(error));
    nm_buf_puts(&j->skipped, "}\n");
    if (j->o.failed)
        j->o.failed(j->o.user, input, &why);
    if (++j->counts->skipped > j->max_skipped)
        return nm_fail(j->err, NOEMA_E_FORMAT, "%lld rows could not be used, more than --max-skipped %lld; the last: %.300s", (long long)j->counts->skipped,
                       (long long)j->max_skipped, error);
    return NOEMA_OK;
}

static noema_status count_lines(job *j, size_t from, int64_t *kept)
{
    noema_status s = NOEMA_OK;
    for (size_t i = from; i < json_array_size(j->journal.lines) && s == NOEMA_OK; i++)
        s = count_line(j, json_array_get(j->journal.lines, i), kept);
    return s;
}

/* The batch's lines. */
static noema_status append(job *j, int64_t row, size_t n)
{
    nm_buf b = { 0 };
    for (size_t i = 0; i < n; i++) {
        const item *it = &j->items[i];
        nm_buf_printf(&b, "{\"row\":%lld,\"input\":", (long long)row + (long long)i);
        nm_json_put_str(&b, it->name, strlen(it->name));
        if (it->why.code == NOEMA_OK)
            nm_buf_printf(&b, ",\"texts\":[%s]}\n", j->lines[i].data ? j->lines[i].data : "");
        else {
            nm_buf_puts(&b, ",\"error\":");
            nm_json_put_str(&b, it->why.message, strlen(it->why.message));
            nm_buf_puts(&b, "}\n");
        }
        b.failed = b.failed || j->lines[i].failed;
    }
    noema_status s = nm_journal_add(&j->journal, &b, j->err);
    nm_buf_free(&b);
    return s;
}

/* ---- what the model says ---- */

static noema_status caption_step(job *j, int64_t row, size_t n, noema_picture *pictures, size_t *at)
{
    noema_generated *g = calloc(n, sizeof *g);
    noema_error *errors = calloc(n, sizeof *errors);
    uint64_t *seeds = calloc(n, sizeof *seeds);
    noema_status s = g && errors && seeds ? NOEMA_OK : no_memory(j);
    for (size_t i = 0; s == NOEMA_OK && i < n; i++)
        seeds[i] = j->generate.seed + (uint64_t)row + (uint64_t)at[i];
    j->generate.seeds = seeds;
    if (s == NOEMA_OK)
        s = noema_caption(j->s, n, pictures, &j->generate, g, errors, j->err);
    for (size_t i = 0; s == NOEMA_OK && i < n; i++) {
        item *it = &j->items[at[i]];
        nm_buf *b = &j->lines[at[i]];
        if (!g[i].text)
            it->why = errors[i];
        for (size_t k = 0; g[i].text && k < it->n_texts; k++)
            put_text(b, it->synthetic, it->text[k], NAN, true);
        for (size_t k = 0; g[i].text && k < g[i].n_best; k++) /* one that wrote nothing is no caption */
            put_text(b, true, g[i].best[k].text, g[i].best[k].score, g[i].best[k].text[0] != 0);
    }
    if (g)
        noema_generated_free(g, n);
    free(g);
    free(errors);
    free(seeds);
    return s;
}

static noema_status filter_step(job *j, int64_t row, size_t n, noema_picture *pictures, size_t *at)
{
    size_t total = 0;
    bool itm = j->o.match.head == 2;
    (void)row;
    for (size_t i = 0; i < n; i++)
        total += j->items[at[i]].n_texts;
    size_t *first = calloc(n + 1, sizeof *first);
    const char **texts = nm_malloc_array(total, sizeof *texts);
    float *scores = nm_malloc_array(total, sizeof *scores), *probs = nm_malloc_array(total, sizeof *probs);
    noema_error *errors = calloc(n, sizeof *errors);
    noema_status s = first && texts && scores && probs && errors ? NOEMA_OK : no_memory(j);
    for (size_t i = 0; s == NOEMA_OK && i < n; i++) {
        const item *it = &j->items[at[i]];
        for (size_t k = 0; k < it->n_texts; k++)
            texts[first[i] + k] = it->text[k];
        first[i + 1] = first[i] + it->n_texts;
    }
    if (s == NOEMA_OK)
        s = noema_match_own(j->s, n, pictures, first, texts, &j->o.match, scores, probs, errors, j->err);
    for (size_t i = 0; s == NOEMA_OK && i < n; i++) {
        item *it = &j->items[at[i]];
        const float *score = (itm ? probs : scores) + first[i];
        if (errors[i].code != NOEMA_OK)
            it->why = errors[i];
        for (size_t k = 0; errors[i].code == NOEMA_OK && k < it->n_texts; k++)
            put_text(&j->lines[at[i]], it->synthetic, it->text[k], score[k], score[k] >= (float)j->o.threshold /* a printed score is a threshold */);
    }
    free(first);
    free((void *)texts);
    free(scores);
    free(probs);
    free(errors);
    return s;
}

/* Rows [row, row + n): read, shown to the model, written to the journal. */
static noema_status one_batch(job *j, int64_t row, size_t n)
{
    noema_picture *pictures = calloc(n, sizeof *pictures);
    size_t *at = calloc(n, sizeof *at), good = 0;
    noema_status s = pictures && at ? NOEMA_OK : no_memory(j);
    for (size_t i = 0; i < n; i++) {
        j->items[i] = (item){ .why = NOEMA_ERROR_INIT };
        j->lines[i] = (nm_buf){ 0 };
    }
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        item *it = &j->items[i];
        if (!take_row(j, row + (int64_t)i, it))
            s = no_memory(j);
        else if (it->why.code == NOEMA_OK) {
            pictures[good] = (noema_picture){ .bytes = it->bytes, .n_bytes = it->n_bytes, .name = it->name };
            at[good++] = i;
        }
    }
    if (s == NOEMA_OK && good)
        s = j->step(j, row, good, pictures, at);
    if (s == NOEMA_OK)
        s = append(j, row, n);
    for (size_t i = 0; i < n; i++) {
        item_free(&j->items[i]);
        nm_buf_free(&j->lines[i]);
    }
    free(pictures);
    free(at);
    return s;
}

/* ---- shards ---- */

/* The samples of a row: one for each text that is kept, cls, picture, source, txt. */
static noema_status put_samples(job *j, nm_shard *w, const json_t *line, int64_t shard, int64_t *sample)
{
    noema_dataset_row row;
    noema_error why = NOEMA_ERROR_INIT;
    const void *bytes;
    const char *suffix;
    char *own = NULL, key[48], number[32];
    size_t n, i;
    json_t *entry;
    noema_status s = noema_dataset_read(j->d, nm_json_int(line, "row", -1), &row, &why);
    if (s == NOEMA_OK)
        s = nm_shard_picture(&row, &bytes, &n, &suffix, &own, &why);
    if (s != NOEMA_OK)
        s = nm_fail(j->err, s, "%.300s: could be read before, but not again", why.message);
    snprintf(number, sizeof number, "%lld", (long long)row.label);
    json_array_foreach(nm_json_get(line, "texts"), i, entry) {
        const char *source = nm_json_str(entry, "source", "web"), *text = nm_json_str(entry, "text", "");
        size_t n_text = strlen(text);
        if (s != NOEMA_OK || !nm_json_bool(entry, "kept", false))
            continue;
        if (i < row.n_captions) /* the original, whatever its bytes are */
            text = noema_dataset_caption(j->d, i, &n_text);
        snprintf(key, sizeof key, "%05lld%06lld", (long long)shard, (long long)(*sample)++);
        if (row.label >= 0)
            s = nm_shard_member(w, key, "cls", number, strlen(number));
        if (s == NOEMA_OK)
            s = nm_shard_member(w, key, suffix, bytes, n);
        if (s == NOEMA_OK)
            s = nm_shard_member(w, key, "source", source, strlen(source));
        if (s == NOEMA_OK)
            s = nm_shard_member(w, key, "txt", text, n_text);
    }
    free(own);
    return s;
}

static noema_status put_shard(job *j, const char *path, int64_t shard)
{
    nm_shard w;
    json_t *line;
    size_t i;
    int64_t sample = 0;
    noema_status s = nm_shard_create(&w, path, j->err);
    json_array_foreach(j->journal.lines, i, line)
        if (s == NOEMA_OK && nm_json_get(line, "texts"))
            s = put_samples(j, &w, line, shard, &sample);
    return nm_shard_close(&w, s);
}

/* The rows that the journal lacks. */
static noema_status complete(job *j, int64_t first, int64_t last, int64_t *kept)
{
    noema_status s = NOEMA_OK;
    for (int64_t row = first + (int64_t)json_array_size(j->journal.lines); row < last && s == NOEMA_OK;) {
        size_t n = (size_t)(last - row) < j->o.batch ? (size_t)(last - row) : j->o.batch, from = json_array_size(j->journal.lines);
        s = one_batch(j, row, n);
        if (s == NOEMA_OK)
            s = count_lines(j, from, kept);
        row += (int64_t)n;
        if (s == NOEMA_OK && j->o.progress && j->o.progress(j->o.user, row, j->total) && row < j->total)
            s = nm_fail(j->err, NOEMA_E_CANCELLED, "%s: stopped after %lld of %lld rows; the same call goes on", j->dir, (long long)row, (long long)j->total);
    }
    return nm_journal_close(&j->journal, s, j->err);
}

static noema_status one_shard(job *j, int64_t shard)
{
    char *path = nm_shard_path(j->dir, shard, "tar"), *lines = nm_shard_path(j->dir, shard, "jsonl");
    int64_t first = shard * j->o.shard_rows, last = first + j->o.shard_rows < j->total ? first + j->o.shard_rows : j->total, kept = 0;
    noema_status s = path && lines ? nm_journal_open(&j->journal, lines, NULL, first, last, j->err) : no_memory(j);
    bool whole = s == NOEMA_OK && (int64_t)json_array_size(j->journal.lines) == last - first;
    if (s == NOEMA_OK)
        s = count_lines(j, 0, &kept);
    if (s == NOEMA_OK && !whole)
        s = complete(j, first, last, &kept);
    if (s == NOEMA_OK && (!whole || !nm_file_exists(path)))
        s = put_shard(j, path, shard);
    if (whole && s == NOEMA_OK && j->o.progress)
        j->o.progress(j->o.user, last, j->total);
    nm_buf_printf(&j->sizes, "%s\"%05lld.tar\": %lld", shard ? ", " : "{", (long long)shard, (long long)kept);
    nm_journal_free(&j->journal);
    free(path);
    free(lines);
    return s;
}

/* ---- the folder ---- */

static void put_number(nm_buf *b, const char *key, double v) { nm_buf_printf(b, isnan(v) ? ",\"%s\":null" : ",\"%s\":%.17g", key, v); }

/* What the results depend on; the batch is not among it. */
static noema_status claim(job *j)
{
    const noema_model_info *info = noema_model_get_info(j->s->model);
    const noema_generate_options *g = &j->generate;
    nm_buf b = { 0 };
    nm_buf_printf(&b, "{\"task\":\"%s\",\"model\":", j->filter ? "filter" : "caption");
    nm_json_put_str(&b, info->space ? info->space : info->identity, strlen(info->space ? info->space : info->identity));
    nm_buf_printf(&b, ",\"rows\":%lld,\"shard_rows\":%lld", (long long)j->total, (long long)j->o.shard_rows);
    if (j->filter) {
        nm_buf_printf(&b, ",\"head\":\"%s\",\"first_token\":%d", j->o.match.head == 2 ? "itm" : "itc", j->o.match.first_token);
        put_number(&b, "threshold", j->o.threshold);
    } else {
        nm_buf_puts(&b, ",\"prompt\":");
        if (g->prompt)
            nm_json_put_str(&b, g->prompt, strlen(g->prompt));
        else
            nm_buf_puts(&b, "null");
        nm_buf_printf(&b, ",\"beams\":%d,\"sample\":%d,\"top_k\":%d,\"seed\":%llu,\"max_length\":%d,\"min_length\":%d,\"max_new\":%d,\"min_new\":%d", g->beams,
                      g->sample, g->top_k, (unsigned long long)g->seed, g->max_length, g->min_length, g->max_new, g->min_new);
        nm_buf_printf(&b, ",\"early_stopping\":%d,\"n_best\":%d,\"beam_rule\":%d", g->early_stopping, g->n_best, g->beam_rule);
        put_number(&b, "temperature", g->temperature);
        put_number(&b, "top_p", g->top_p);
        put_number(&b, "repetition_penalty", g->repetition_penalty);
        put_number(&b, "length_penalty", g->length_penalty);
    }
    nm_buf_putc(&b, ',');
    nm_shards_put_parts(&b, j->d);
    nm_buf_puts(&b, "}\n");
    return nm_shards_claim(j->dir, CLAIM, &b, j->err);
}

/* Two calls must not write one folder at a time. The lock goes with the descriptor. */
static noema_status lock(const job *j, int *fd)
{
    char *path = nm_path_join(j->dir, CLAIM);
    *fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    free(path);
    if (*fd < 0)
        return nm_fail(j->err, NOEMA_E_IO, "%s: cannot open %s", j->dir, CLAIM);
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return nm_fail(j->err, NOEMA_E_IO, "%s: another call is writing there", j->dir);
    return NOEMA_OK;
}

static noema_status all_shards(job *j)
{
    int64_t shards = (j->total + j->o.shard_rows - 1) / j->o.shard_rows;
    noema_error late = NOEMA_ERROR_INIT;
    noema_status s = NOEMA_OK;
    for (int64_t k = 0; k < shards && s == NOEMA_OK; k++)
        s = one_shard(j, k);
    nm_buf_puts(&j->sizes, "}\n");
    if (s == NOEMA_OK)
        s = nm_shards_write(j->dir, "sizes.json", &j->sizes, j->err);
    if (s == NOEMA_OK)
        s = nm_shards_class_names(j->d, j->dir, j->err);
    noema_status ledger = nm_shards_write(j->dir, "skipped.jsonl", &j->skipped, s == NOEMA_OK ? j->err : &late);
    return s == NOEMA_OK ? ledger : s;
}

static noema_status check(const job *j, noema_status s)
{
    const noema_capfilt_options *o = &j->o;
    if (s != NOEMA_OK)
        return s;
    if (o->shard_rows < 1 || o->shard_rows > MOST_SHARD_ROWS)
        return nm_fail(j->err, NOEMA_E_ARGUMENT, "%lld rows a shard: expected 1 to %d", (long long)o->shard_rows, MOST_SHARD_ROWS);
    if (o->batch < 1 || o->batch > MOST_BATCH)
        return nm_fail(j->err, NOEMA_E_ARGUMENT, "batch of %zu pictures: expected 1 to %d", o->batch, MOST_BATCH);
    if (j->filter && o->match.head == 2 && !(noema_model_tasks(j->s->model) & NOEMA_TASK_ITM))
        return nm_fail(j->err, NOEMA_E_UNSUPPORTED, "%s has no ITM head: ITC (a threshold on cosines) is what it can be filtered by", j->s->model->name);
    if (isnan(o->threshold))
        return nm_fail(j->err, NOEMA_E_ARGUMENT, "the threshold is no number");
    return NOEMA_OK;
}

static noema_status run(job *j, const noema_capfilt_options *options, noema_capfilt_counts *counts)
{
    noema_capfilt_counts none;
    int fd = -1;
    if (!j->s || !j->d || !j->dir)
        return nm_fail(j->err, NOEMA_E_ARGUMENT, "noema_data_caption, noema_data_filter: a session, a data set and a folder are needed");
    noema_capfilt_options_default(&j->o);
    if (options && options->struct_size < offsetof(noema_capfilt_options, reserved))
        return nm_fail(j->err, NOEMA_E_ARGUMENT, "noema_capfilt_options: struct_size is %zu", options->struct_size);
    if (options)
        j->o = *options;
    noema_generate_options_default(&j->generate);
    if (j->o.generate)
        j->generate = *j->o.generate;
    j->counts = counts ? counts : &none;
    *j->counts = (noema_capfilt_counts){ 0 };
    j->total = noema_dataset_count(j->d);
    j->max_skipped = j->o.max_skipped >= 0 ? j->o.max_skipped : j->total / 10 > 100 ? j->total / 10 : 100;
    noema_status s = check(j, NOEMA_OK);
    if (s == NOEMA_OK && (!(j->items = calloc(j->o.batch, sizeof *j->items)) || !(j->lines = calloc(j->o.batch, sizeof *j->lines))))
        s = no_memory(j);
    if (s == NOEMA_OK)
        s = claim(j);
    if (s == NOEMA_OK)
        s = lock(j, &fd);
    if (s == NOEMA_OK)
        s = all_shards(j);
    if (fd >= 0)
        close(fd);
    nm_buf_free(&j->skipped);
    nm_buf_free(&j->sizes);
    free(j->items);
    free(j->lines);
    return s;
}

noema_status noema_data_caption(noema_session *s, noema_dataset *d, const char *dir, const noema_capfilt_options *o, noema_capfilt_counts *counts,
                                noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    job j = { .s = s, .d = d, .dir = dir, .step = caption_step, .err = err ? err : &local };
    return run(&j, o, counts);
}

noema_status noema_data_filter(noema_session *s, noema_dataset *d, const char *dir, const noema_capfilt_options *o, noema_capfilt_counts *counts,
                               noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    job j = { .s = s, .d = d, .dir = dir, .step = filter_step, .filter = true, .err = err ? err : &local };
    return run(&j, o, counts);
}
