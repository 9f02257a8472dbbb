/* mem.c - allocation: see mem.h. */
#define _GNU_SOURCE
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

void *nm_alloc(size_t bytes)
{
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : NM_ALIGN, size;
    if (!nm_add_size(bytes ? bytes : 1, NM_ALIGN - 1, &size))
        return NULL;
    size &= ~(size_t)(NM_ALIGN - 1); /* whole huge pages would be a fifth more for matrices of a few MiB */
    void *p = NULL;
    if (posix_memalign(&p, align, size) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE)
        (void)madvise(p, size & ~(HUGE_PAGE - 1), MADV_HUGEPAGE); /* a hint: 5-10 % on packed weights, nothing breaks without it */
#endif
    return p;
}

size_t nm_memory_available(void)
{
    size_t kib = SIZE_MAX;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib > SIZE_MAX / 1024 ? SIZE_MAX : kib * 1024;
}

void *nm_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (!nm_mul_size(n, size, &bytes))
        return NULL;
    void *p = nm_alloc(bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

void nm_free(void *p) { free(p); }

void *nm_malloc_array(size_t n, size_t size)
{
    size_t bytes;
    return nm_mul_size(n, size, &bytes) ? malloc(bytes ? bytes : 1) : NULL;
}

void *nm_realloc_array(void *p, size_t n, size_t size)
{
    size_t bytes;
    return nm_mul_size(n, size, &bytes) ? realloc(p, bytes ? bytes : 1) : NULL;
}

char *nm_strndup(const char *s, size_t n)
{
    char *r = nm_malloc_array(n + 1, 1);
    if (r) {
        memcpy(r, s, n);
        r[n] = 0;
    }
    return r;
}

void nm_strings_free(char **s, int64_t n)
{
    for (int64_t i = 0; s && i < n; i++)
        free(s[i]);
    free(s);
}

int64_t nm_strings_index(char ***s, int64_t *n, const char *text)
{
    for (int64_t i = 0; i < *n; i++)
        if (strcmp((*s)[i], text) == 0)
            return i;
    char **more = nm_realloc_array(*s, (size_t)*n + 1, sizeof *more);
    if (more)
        *s = more;
    if (!more || !(more[*n] = nm_strdup(text)))
        return -1;
    return (*n)++;
}

char *nm_strdup(const char *s) { return nm_strndup(s, strlen(s)); }

char *nm_sprintf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return NULL;
    char *s = nm_malloc_array((size_t)n + 1, 1);
    if (!s)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

/* ---- arena ---- */

#define FIRST_BLOCK ((size_t)1 << 20)
#define LARGEST_BLOCK ((size_t)256 << 20) /* of those that the arena chooses the size of */

typedef struct block { char *data; size_t size, used; } block;

struct nm_arena {
    block *blocks;
    size_t n_blocks, cur; /* blocks after cur are empty */
    size_t total, peak, mallocs;
};

nm_arena *nm_arena_new(size_t first_bytes)
{
    nm_arena *a = calloc(1, sizeof *a);
    if (a && first_bytes && !nm_arena_alloc(a, first_bytes)) {
        nm_arena_free(a);
        return NULL;
    }
    if (a)
        nm_arena_reset(a);
    return a;
}

void nm_arena_free(nm_arena *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n_blocks; i++)
        nm_free(a->blocks[i].data);
    free(a->blocks);
    free(a);
}

static bool arena_add_block(nm_arena *a, size_t bytes)
{
    block *nb = nm_realloc_array(a->blocks, a->n_blocks + 1, sizeof *nb);
    if (!nb)
        return false;
    a->blocks = nb;
    char *data = nm_alloc(bytes);
    if (!data)
        return false;
    a->blocks[a->n_blocks++] = (block){ data, bytes, 0 };
    a->mallocs++;
    return true;
}

/* As much as there is: what does not fit the rest of a block leaves it unused, which should be a small part of a large block. */
static size_t block_size(const nm_arena *a)
{
    size_t sum = 0;
    for (size_t i = 0; i < a->n_blocks; i++)
        sum += a->blocks[i].size;
    return sum < FIRST_BLOCK ? FIRST_BLOCK : sum < LARGEST_BLOCK ? sum : LARGEST_BLOCK;
}

void *nm_arena_alloc(nm_arena *a, size_t bytes)
{
    size_t need;
    if (!nm_add_size(bytes ? bytes : 1, NM_ALIGN - 1, &need))
        return NULL;
    need &= ~(size_t)(NM_ALIGN - 1);
    while (a->cur < a->n_blocks && a->blocks[a->cur].size - a->blocks[a->cur].used < need)
        a->cur++; /* the rest of the block stays unused until the next rewind */
    if (a->cur >= a->n_blocks) {
        size_t more = block_size(a);
        if (!arena_add_block(a, need > more ? need : more)) {
            a->cur = a->n_blocks ? a->n_blocks - 1 : 0;
            return NULL;
        }
        a->cur = a->n_blocks - 1;
    }
    block *b = &a->blocks[a->cur];
    void *p = b->data + b->used;
    b->used += need;
    a->total += need;
    if (a->total > a->peak)
        a->peak = a->total;
    return p;
}

nm_arena_mark nm_arena_get_mark(const nm_arena *a)
{
    return (nm_arena_mark){ a->cur, a->cur < a->n_blocks ? a->blocks[a->cur].used : 0, a->total };
}

void nm_arena_rewind(nm_arena *a, nm_arena_mark m)
{
    for (size_t i = m.block + 1; i < a->n_blocks; i++)
        a->blocks[i].used = 0;
    if (m.block < a->n_blocks)
        a->blocks[m.block].used = m.used;
    a->cur = m.block;
    a->total = m.total;
}

void nm_arena_reset(nm_arena *a)
{
    if (a->n_blocks > 1) {
        size_t sum = 0;
        for (size_t i = 0; i < a->n_blocks; i++)
            sum += a->blocks[i].size;
        for (size_t i = 0; i < a->n_blocks; i++)
            nm_free(a->blocks[i].data);
        a->n_blocks = 0;
        (void)arena_add_block(a, sum); /* on failure the arena is empty and grows again */
    }
    if (a->n_blocks)
        a->blocks[0].used = 0;
    a->cur = 0;
    a->total = 0;
}

size_t nm_arena_peak(const nm_arena *a) { return a->peak; }
size_t nm_arena_mallocs(const nm_arena *a) { return a->mallocs; }

/* ---- byte buffer ---- */

bool nm_buf_reserve(nm_buf *b, size_t extra)
{
    size_t need;
    if (b->failed || !nm_add_size(b->len, extra, &need) || !nm_add_size(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap)
        return true;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = realloc(b->data, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

bool nm_buf_append(nm_buf *b, const void *p, size_t n)
{
    if (!nm_buf_reserve(b, n))
        return false;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return true;
}

bool nm_buf_puts(nm_buf *b, const char *s) { return nm_buf_append(b, s, strlen(s)); }
bool nm_buf_putc(nm_buf *b, char c) { return nm_buf_append(b, &c, 1); }

bool nm_buf_printf(nm_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !nm_buf_reserve(b, (size_t)n))
        return false;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return true;
}

char *nm_buf_take(nm_buf *b)
{
    if (b->failed || (!b->data && !nm_buf_reserve(b, 0))) {
        nm_buf_free(b);
        return NULL;
    }
    b->data[b->len] = 0;
    char *p = b->data;
    *b = (nm_buf){ 0 };
    return p;
}

void nm_buf_free(nm_buf *b)
{
    free(b->data);
    *b = (nm_buf){ 0 };
}
