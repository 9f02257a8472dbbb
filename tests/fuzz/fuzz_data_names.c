/* fuzz_data_names.c - lists of class names (lines, JSON), captions by class, and CLDR's names of emoji. */
#include <sys/stat.h>

#include "data/dataset.h"
#include "fuzz_file.h"
#include "noema/data.h"
#include "train/class_texts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void names(const char *name, const uint8_t *data, size_t size)
{
    fuzz_file f = fuzz_file_put(name, data, size);
    noema_error err = NOEMA_ERROR_INIT;
    noema_names *l;
    size_t n, length = 0;
    if (noema_names_read(&l, f.path, &err) == NOEMA_OK) {
        const char *const *item = noema_names_items(l, &n);
        for (size_t i = 0; i < n; i++)
            length += strlen(item[i]);
        if (!n || length > (size_t)4 << 20)
            abort();
        noema_names_free(l);
    } else if (!err.code || !err.message[0])
        abort();
    fuzz_file_done(&f);
}

/* Captions for the classes "cat" and "개" of two rows. */
static void captions(const uint8_t *data, size_t size)
{
    static const char table[] = "filepath,label\na.png,cat\nb.png,개\n";
    fuzz_file rows = fuzz_file_put("rows.csv", (const uint8_t *)table, sizeof table - 1), f = fuzz_file_put("texts.jsonl", data, size);
    noema_error err = NOEMA_ERROR_INIT;
    nm_dataset *d;
    nm_class_texts *c;
    if (nm_dataset_open(&d, rows.path, NULL, &err) != NOEMA_OK)
        abort();
    if (nm_class_texts_open(&c, f.path, d, &err) == NOEMA_OK) {
        for (int64_t label = 0; label < 2; label++)
            if (!nm_class_texts_pick(c, label, size)[0])
                abort();
        nm_class_texts_free(c);
    }
    nm_dataset_free(d);
    fuzz_file_done(&rows);
    fuzz_file_done(&f);
}

/* A folder with the picture of one emoji. */
static void emoji(const uint8_t *data, size_t size)
{
    fuzz_file f = fuzz_file_put("cldr.xml", data, size);
    char dir[64], picture[96], out[96];
    noema_error err = NOEMA_ERROR_INIT;
    size_t rows = 0;
    snprintf(dir, sizeof dir, "/tmp/noema-fuzz-%d-emoji", (int)getpid());
    snprintf(picture, sizeof picture, "%s/emoji_u1f34e.png", dir);
    snprintf(out, sizeof out, "%s/out.tsv", dir);
    mkdir(dir, 0700);
    FILE *p = fopen(picture, "wb");
    if (!p || fclose(p) != 0)
        abort();
    if (noema_data_emoji_names(dir, (const char *const[]){ f.path, f.path }, 2, out, &rows, &err) == NOEMA_OK && rows > 1)
        abort();
    unlink(out);
    unlink(picture);
    rmdir(dir);
    fuzz_file_done(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    names("names.txt", data, size);
    names("names.json", data, size);
    captions(data, size);
    emoji(data, size);
    return 0;
}
