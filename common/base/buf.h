/*
 * buf: a growable byte buffer, always followed by a NUL that does not count; and the allocators of the tree.
 * Small allocations abort on failure (mem_*). Anything whose size came from outside is checked by the caller first.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data; /* never NULL after the first append; NUL at data[len] */
    size_t len;
    size_t cap;
};

#define BUF_INIT                                                                                   \
    {                                                                                              \
        NULL, 0, 0                                                                                 \
    }

void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *bytes, size_t len);
void buf_str(struct buf *b, const char *text);
void buf_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_clear(struct buf *b); /* len = 0, memory kept */
void buf_free(struct buf *b);
char *buf_take(struct buf *b); /* gives the bytes (free() them) and leaves b empty; never NULL */

void *mem_alloc(size_t size);                /* aborts on failure */
void *mem_zalloc(size_t count, size_t size); /* zeroed; checks the product; aborts on failure */
/* For arrays of many pages: aligned to a cache line, from 2 MiB on to 2 MiB and backed by huge pages where the system
 * gives some. Not zeroed; free() it; aborts on failure. */
void *mem_large(size_t bytes);
void *mem_grow(void *p, size_t count, size_t size);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
