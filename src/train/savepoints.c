/* savepoints.c - see savepoints.h. */
#define _GNU_SOURCE
#include "train/savepoints.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "train/trainer.h"

/* N of "PREFIX_N.pt", or -1. */
static int64_t number_in(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9')
        return -1;
    long long v = strtoll(name + n, &end, 10);
    return strcmp(end, ".pt") == 0 ? v : -1;
}

/* Steps of the run that a file holds, or -1. */
static int64_t steps_of(const char *folder, const char *name, int64_t steps_per_epoch)
{
    int64_t step = number_in(name, "step_"), epoch = number_in(name, "epoch_");
    if (step >= 0)
        return step;
    if (epoch >= 0)
        return epoch > INT64_MAX / (steps_per_epoch + 1) ? -1 : epoch * steps_per_epoch;
    if (strcmp(name, "epoch_latest.pt") != 0)
        return -1;
    char *path = nm_path_join(folder, name);
    noema_error err = NOEMA_ERROR_INIT;
    if (!path || nm_trainer_peek(path, &epoch, &step, &err) != NOEMA_OK)
        step = -1;
    else if (step < 0)
        step = epoch * steps_per_epoch;
    free(path);
    return step;
}

char *nm_savepoints_latest(const char *folder, int64_t steps_per_epoch)
{
    DIR *d = opendir(folder);
    int64_t best = -1;
    char name[256] = "";
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t n = steps_of(folder, e->d_name, steps_per_epoch);
        if (n > best) {
            best = n;
            snprintf(name, sizeof name, "%s", e->d_name);
        }
    }
    if (d)
        closedir(d);
    return best >= 0 ? nm_path_join(folder, name) : NULL;
}

static int64_t newest_epoch_below(const char *folder, int64_t below)
{
    DIR *d = opendir(folder);
    int64_t best = -1;
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t n = number_in(e->d_name, "epoch_");
        if (n < below && n > best)
            best = n;
    }
    if (d)
        closedir(d);
    return best;
}

void nm_savepoints_prune(const char *folder, int64_t keep, int64_t step)
{
    int64_t first = INT64_MAX; /* epochs before it go */
    for (int64_t i = 0; keep > 0 && i < keep && first >= 0; i++)
        first = newest_epoch_below(folder, first);
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t s = number_in(e->d_name, "step_"), n = number_in(e->d_name, "epoch_");
        bool old = (s >= 0 && s < step) || (keep > 0 && n >= 0 && n < first);
        char *path = old ? nm_path_join(folder, e->d_name) : NULL;
        if (path)
            (void)unlink(path); /* what cannot be removed stays: nothing depends on it */
        free(path);
    }
    if (d)
        closedir(d);
}

void nm_savepoints_sweep(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *at = strstr(e->d_name, ".tmp.");
        char *path = at && at[5] && strspn(at + 5, "0123456789") == strlen(at + 5) ? nm_path_join(folder, e->d_name) : NULL;
        if (path)
            (void)unlink(path);
        free(path);
    }
    if (d)
        closedir(d);
}

noema_status nm_savepoints_most_recent(const char *folder, const char *path, noema_error *err)
{
    char *latest = nm_path_join(folder, "epoch_latest.pt"), *other = nm_path_join(folder, ".epoch_latest.tmp");
    noema_status s = latest && other ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", folder);
    if (s == NOEMA_OK) {
        (void)unlink(other);
        if (link(path, other) != 0 || rename(other, latest) != 0)
            s = nm_fail(err, NOEMA_E_IO, "%s: cannot be made another name of %s", latest, path);
    }
    free(latest);
    free(other);
    return s;
}

noema_status nm_steps_cut(const char *path, int64_t step, int64_t *kept, noema_error *err)
{
    char *text = NULL;
    size_t size = 0, keep = 0;
    int64_t lines = 0;
    noema_status s = nm_file_exists(path) ? nm_read_file(&text, &size, path, (size_t)1 << 32, err) : NOEMA_OK;
    for (size_t at = 0; s == NOEMA_OK && at < size; lines++) {
        char *end = memchr(text + at, '\n', size - at);
        long long n;
        if (!end || sscanf(text + at, "{\"step\":%lld", &n) != 1 || n >= step)
            break;
        keep = at = (size_t)(end - text) + 1;
    }
    if (s == NOEMA_OK && keep < size)
        s = nm_write_file_atomic(path, text, keep, err);
    if (kept)
        *kept = lines;
    free(text);
    return s;
}
