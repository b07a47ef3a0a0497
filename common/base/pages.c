#include "base/pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define MAP_BYTES_MIN (2 * HUGE_BYTES)
#define LINE 64

static size_t rounded(size_t bytes, size_t to)
{
    CHECK(bytes <= SIZE_MAX - to);
    return (bytes + to - 1) / to * to;
}

void *pages_new(size_t bytes)
{
    size_t len = rounded(bytes, HUGE_BYTES);
    char *p, *at;

    if (bytes < MAP_BYTES_MIN) {
        p = aligned_alloc(LINE, rounded(bytes + (bytes == 0), LINE));
        CHECK(p != NULL);
        memset(p, 0, rounded(bytes + (bytes == 0), LINE));
        return p;
    }
    /* The kernel aligns to 4 KiB: what is too much goes back. */
    p = mmap(NULL, len + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    at = p + (HUGE_BYTES - (uintptr_t)p % HUGE_BYTES) % HUGE_BYTES;
    if (at > p)
        munmap(p, (size_t)(at - p));
    munmap(at + len, HUGE_BYTES - (size_t)(at - p));
    madvise(at, len, MADV_HUGEPAGE); /* a wish */
    return at;
}

void pages_free(void *p, size_t bytes)
{
    if (p != NULL && bytes >= MAP_BYTES_MIN)
        munmap(p, rounded(bytes, HUGE_BYTES));
    else
        free(p);
}
