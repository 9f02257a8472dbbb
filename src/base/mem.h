/* mem.h - checked sizes, aligned blocks, and the arena that forwards carve their activations from. */
#ifndef NM_MEM_H
#define NM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every block of nm_alloc and every arena piece starts on this boundary (one cache line, one AVX-512 register). */
#define NM_ALIGN 64

/* false when the product or sum does not fit size_t; *out is then untouched. */
static inline bool nm_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
static inline bool nm_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* 64-byte aligned, uninitialised; NULL on failure or n == 0 overflow. Blocks of 4 MiB and more ask for huge pages.
 * Free with nm_free. */
void *nm_alloc(size_t bytes);
void *nm_calloc(size_t n, size_t size);
void nm_free(void *p);

/* Bytes that the system can give without swapping (Linux: MemAvailable); SIZE_MAX: unknown. */
size_t nm_memory_available(void);

/* Plain (malloc) helpers with checked products, for small containers. Free with free(). */
void *nm_malloc_array(size_t n, size_t size);
void *nm_realloc_array(void *p, size_t n, size_t size);
char *nm_strdup(const char *s);
char *nm_strndup(const char *s, size_t n);
void nm_strings_free(char **s, int64_t n); /* a list of such strings; NULL is fine */
/* Where the list of n strings has this one, at its end if it was new (few: the list is searched); -1: out of memory. */
int64_t nm_strings_index(char ***s, int64_t *n, const char *text);
char *nm_sprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Arena: a list of blocks; grows on demand, and after nm_arena_reset merges into one block large enough for what was
 * needed, so that the second pass of the same shape allocates nothing. Not thread safe: one arena, one owner. */
typedef struct nm_arena nm_arena;
typedef struct nm_arena_mark { size_t block, used, total; } nm_arena_mark;

nm_arena *nm_arena_new(size_t first_bytes);
void nm_arena_free(nm_arena *a);
void *nm_arena_alloc(nm_arena *a, size_t bytes); /* 64-byte aligned, uninitialised; NULL on failure */
nm_arena_mark nm_arena_get_mark(const nm_arena *a);
void nm_arena_rewind(nm_arena *a, nm_arena_mark m); /* gives back what was carved after the mark */
void nm_arena_reset(nm_arena *a);                   /* gives everything back; merges blocks */
size_t nm_arena_peak(const nm_arena *a);            /* most bytes in use at once */
size_t nm_arena_mallocs(const nm_arena *a);         /* how often the arena went to the system (tests) */

/* Growing byte buffer; data is NUL-terminated after every append (the NUL is not counted in len). */
typedef struct nm_buf {
    char *data;
    size_t len, cap;
    bool failed; /* an allocation failed: data is what was there before */
} nm_buf;

bool nm_buf_reserve(nm_buf *b, size_t extra);
bool nm_buf_append(nm_buf *b, const void *p, size_t n);
bool nm_buf_puts(nm_buf *b, const char *s);
bool nm_buf_putc(nm_buf *b, char c);
bool nm_buf_printf(nm_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *nm_buf_take(nm_buf *b); /* the caller frees; the buffer is empty again; NULL only on failure */
void nm_buf_free(nm_buf *b);

#endif
