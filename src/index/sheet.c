/* sheet.c - contact sheets of search results. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/store.h"
#include "media/write.h"

enum { MAX_CELLS = 4096, MAX_CELL_PX = 1024 };

/* The stored thumbnail of an item. */
static bool stored(noema_collection *c, const noema_match *m, nm_image *out)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_THUMB_GET, NULL);
    if (!st)
        return false;
    sqlite3_bind_int64(st, 1, m->id);
    bool ok = nm_catalog_step(&c->cat, st, NULL) > 0 &&
              nm_image_decode(out, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0), m->path, NULL, NULL) == NOEMA_OK;
    sqlite3_reset(st);
    return ok;
}

/* The picture of one match, at most cell_px wide and high: the thumbnail if it is large enough, else the file. false: neither. */
static bool cell(noema_collection *c, const noema_match *m, int cell_px, nm_image *out)
{
    nm_image small = { 0 }, full = { 0 };
    if (m->kind != NOEMA_ITEM_IMAGE)
        return false;
    bool have = stored(c, m, &small), large = have && (small.width >= cell_px || small.height >= cell_px);
    bool use_file = !large && nm_image_open(&full, m->path, NULL, NULL) == NOEMA_OK;
    bool ok = (use_file || have) && nm_thumbnail(out, use_file ? &full : &small, cell_px, NULL) == NOEMA_OK;
    if (ok && use_file && full.orientation > 1)
        ok = nm_image_transpose(out, full.orientation, NULL) == NOEMA_OK;
    nm_image_free(&small);
    nm_image_free(&full);
    return ok;
}

noema_status noema_collection_contact_sheet(noema_collection *c, size_t n, const noema_match *matches, int cell_px, const char *path,
                                            noema_error *err)
{
    static const unsigned char background[3] = { 24, 24, 24 };
    if (n < 1 || n > MAX_CELLS || cell_px < 0 || cell_px > MAX_CELL_PX)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected 1 to %d pictures of at most %d pixels, got %zu of %d", path, MAX_CELLS, MAX_CELL_PX, n,
                       cell_px);
    if (!cell_px)
        cell_px = n > 64 ? 128 : 224;
    nm_image *im = calloc(n, sizeof *im), sheet = { 0 };
    const nm_image **list = calloc(n, sizeof *list);
    noema_status s = im && list ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        list[i] = &im[i];
        if (!cell(c, &matches[i], cell_px, &im[i])) {
            s = nm_image_reset(&im[i], NM_MODE_RGB, cell_px, cell_px, err);
            for (int y = 0; s == NOEMA_OK && y < cell_px; y++)
                memset(im[i].data + (size_t)y * im[i].stride, 60, (size_t)cell_px * 3);
        }
    }
    int columns = (int)ceil(sqrt((double)n));
    if (s == NOEMA_OK)
        s = nm_contact_sheet(&sheet, list, (int)n, columns, cell_px, 6, background, err);
    if (s == NOEMA_OK)
        s = nm_image_write(path, &sheet, err);
    for (size_t i = 0; im && i < n; i++)
        nm_image_free(&im[i]);
    nm_image_free(&sheet);
    free(im);
    free(list);
    return s;
}
