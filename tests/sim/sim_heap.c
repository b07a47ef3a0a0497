/*
 * Blocks of a class of sizes, each with a list of free ones; new ones are cut off one end of a reserved range. No block is
 * ever joined with another and nothing goes back to the kernel: a run takes a few MiB and the next one has the same pages.
 *
 * A head before each block names its class and heap, so that anybody may free anything.
 */
#include "sim_heap.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

bool sim_heap_of_run(bool on)
{
    return on;
}

void sim_heap_end_run(void)
{
}

void sim_heap_upside_down(bool on)
{
    (void)on;
}

#else

#define RANGE_BYTES ((size_t)16 << 30) /* of addresses, not of memory */
#define FINE 64                        /* classes of 16 bytes each; above, four to a power of two */
#define CLASSES (FINE + 4 * 26)

struct head {
    uint32_t class;
    uint16_t heap;
    uint16_t live; /* LIVE, or it was freed before */
    uint64_t back; /* an aligned block: bytes to the start of the one that it lies in */
};
#define LIVE 0xa11e

struct block {
    struct head head;
    struct block *next; /* when it is free */
};

static struct heap {
    char *begin, *low, *high; /* free: [low, high) */
    struct block *free[CLASSES];
} heaps[2]; /* [1]: of the run */
static bool of_run, upside_down;

__attribute__((noreturn)) static void stop(const char *why)
{
    if (write(STDERR_FILENO, why, strlen(why)) < 0)
        _exit(4);
    abort();
}

static uint32_t class_of(size_t bytes)
{
    uint32_t bits;

    if (bytes <= 16 * FINE)
        return bytes == 0 ? 0 : (uint32_t)((bytes - 1) / 16);
    bits = 63u - (uint32_t)__builtin_clzl(bytes - 1); /* >= 10 */
    return FINE + 4 * (bits - 10) + (uint32_t)((bytes - 1) >> (bits - 2) & 3);
}

static size_t class_bytes(uint32_t class)
{
    uint32_t c = class - FINE;

    return class < FINE ? 16 * ((size_t) class + 1) : (size_t)(5 + c % 4) << (8 + c / 4);
}

static struct block *cut(struct heap *h, uint16_t index, uint32_t class)
{
    size_t bytes = sizeof(struct head) + class_bytes(class);
    struct block *b;

    if (h->begin == NULL) {
        h->begin = mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (h->begin == MAP_FAILED)
            stop("sim_heap: no addresses\n");
        h->low = h->begin;
        h->high = h->begin + RANGE_BYTES;
    }
    if ((size_t)(h->high - h->low) < bytes)
        stop("sim_heap: used up\n");
    if (index == 1 && upside_down) {
        h->high -= bytes;
        b = (struct block *)(void *)h->high;
    } else {
        b = (struct block *)(void *)h->low;
        h->low += bytes;
    }
    b->head = (struct head){class, index, 0, 0};
    return b;
}

void *malloc(size_t bytes)
{
    uint16_t index = of_run ? 1 : 0;
    struct heap *h = &heaps[index];
    uint32_t class;
    struct block *b;

    if (bytes > RANGE_BYTES / 8) {
        errno = ENOMEM;
        return NULL;
    }
    class = class_of(bytes);
    b = h->free[class];
    if (b != NULL)
        h->free[class] = b->next;
    else
        b = cut(h, index, class);
    b->head.live = LIVE;
    return &b->next;
}

static struct head *head_of(void *p)
{
    struct head *h = (struct head *)p - 1;

    if (h->live != LIVE)
        stop("sim_heap: freed twice, or never allocated\n");
    return h;
}

void free(void *p)
{
    struct head *h;
    struct block *b;

    if (p == NULL)
        return;
    h = head_of(p);
    if (h->back != 0) {
        h->live = 0;
        h = head_of((char *)p - h->back);
    }
    h->live = 0;
    b = (struct block *)(void *)h;
    b->next = heaps[h->heap].free[h->class];
    heaps[h->heap].free[h->class] = b;
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    p = malloc(bytes);
    return p != NULL ? memset(p, 0, bytes) : NULL;
}

size_t malloc_usable_size(void *p)
{
    return p == NULL ? 0 : class_bytes(head_of(p)->class);
}

void *realloc(void *p, size_t bytes)
{
    size_t had = malloc_usable_size(p);
    uint16_t index = p != NULL ? head_of(p)->heap : 0;
    bool before = of_run;
    void *more;

    if (p != NULL && bytes <= had && bytes >= had / 4)
        return p;
    if (p != NULL)
        of_run = index == 1; /* it stays where it lives */
    more = malloc(bytes);
    of_run = before;
    if (p != NULL && more != NULL) {
        memcpy(more, p, had < bytes ? had : bytes);
        free(p);
    }
    return more;
}

void *memalign(size_t align, size_t bytes)
{
    char *p, *at;

    if (align <= 16)
        return malloc(bytes);
    p = malloc(bytes + align + sizeof(struct head));
    if (p == NULL)
        return NULL;
    at = (char *)(((uintptr_t)p + sizeof(struct head) + align - 1) / align * align);
    ((struct head *)(void *)at)[-1] =
        (struct head){class_of(bytes), of_run, LIVE, (uint64_t)(at - p)};
    return at;
}

void *aligned_alloc(size_t align, size_t bytes)
{
    return memalign(align, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes)
{
    *out = memalign(align, bytes);
    return *out != NULL ? 0 : ENOMEM;
}

bool sim_heap_of_run(bool on)
{
    bool before = of_run;

    of_run = on;
    return before;
}

void sim_heap_end_run(void)
{
    memset(heaps[1].free, 0, sizeof heaps[1].free);
    heaps[1].low = heaps[1].begin;
    heaps[1].high = heaps[1].begin + RANGE_BYTES;
}

void sim_heap_upside_down(bool on)
{
    upside_down = on;
}

#endif
