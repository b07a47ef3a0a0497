#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"

#define CACHE_LINE ((size_t)64)
#define HUGE_PAGE ((size_t)2 << 20)

void buf_reserve(struct buf *b, size_t more)
{
    size_t need;

    CHECK(more < SIZE_MAX / 4 && b->len < SIZE_MAX / 4);
    need = b->len + more + 1;
    if (need <= b->cap)
        return;
    b->cap = b->cap * 2 > need ? b->cap * 2 : need + 32;
    b->data = mem_grow(b->data, b->cap, 1);
}

void buf_add(struct buf *b, const void *bytes, size_t len)
{
    buf_reserve(b, len);
    if (len > 0)
        memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_str(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    size_t room;

    buf_reserve(b, 0);
    room = b->cap - b->len;
    va_start(ap, fmt);
    n = vsnprintf(b->data + b->len, room, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    if ((size_t)n < room) {
        b->len += (size_t)n;
        return;
    }
    buf_reserve(b, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->data != NULL)
        b->data[0] = '\0';
}

void buf_free(struct buf *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

char *buf_take(struct buf *b)
{
    char *data;

    buf_reserve(b, 0);
    b->data[b->len] = '\0';
    data = b->data;
    b->data = NULL;
    b->len = b->cap = 0;
    return data;
}

void *mem_alloc(size_t size)
{
    void *p = malloc(size != 0 ? size : 1);

    CHECK(p != NULL);
    return p;
}

void *mem_large(size_t bytes)
{
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : CACHE_LINE;
    void *p = aligned_alloc(align, (bytes + align - 1) / align * align);

    CHECK(p != NULL);
#ifdef MADV_HUGEPAGE
    /* A unit of 4 x 256 rows of a 15M model takes 1.6 % less time than with prctl(PR_SET_THP_DISABLE). */
    if (align == HUGE_PAGE)
        madvise(p, (bytes + align - 1) / align * align, MADV_HUGEPAGE); /* a wish */
#endif
    return p;
}

void *mem_zalloc(size_t count, size_t size)
{
    void *p = calloc(count != 0 ? count : 1, size != 0 ? size : 1);

    CHECK(p != NULL);
    return p;
}

void *mem_grow(void *p, size_t count, size_t size)
{
    size_t bytes;

    CHECK(!__builtin_mul_overflow(count, size, &bytes));
    p = realloc(p, bytes != 0 ? bytes : 1);
    CHECK(p != NULL);
    return p;
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);

    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    CHECK(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    return text;
}
