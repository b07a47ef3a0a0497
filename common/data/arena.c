#include "data/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

enum { BLOCK_BYTES = 1 << 18 };

struct arena_block {
    struct arena_block *next;
    size_t used, size; /* of bytes */
    _Alignas(16) char bytes[];
};

void *arena_alloc(struct arena *a, size_t size)
{
    struct arena_block *block = a->block;
    void *p;

    CHECK(size < SIZE_MAX / 2);
    size = (size + 15) & ~(size_t)15;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        block = mem_alloc(sizeof *block + room);
        block->next = a->block;
        block->used = 0;
        block->size = room;
        a->block = block;
    }
    p = block->bytes + block->used;
    block->used += size;
    memset(p, 0, size);
    return p;
}

char *arena_text(struct arena *a, const char *bytes, size_t len)
{
    char *p = arena_alloc(a, len + 1);

    if (len > 0)
        memcpy(p, bytes, len);
    return p;
}

void arena_clear(struct arena *a)
{
    struct arena_block *keep = a->block;

    if (keep == NULL)
        return;
    while (keep->next != NULL) {
        struct arena_block *next = keep->next->next;
        free(keep->next);
        keep->next = next;
    }
    keep->used = 0;
}

void arena_free(struct arena *a)
{
    arena_clear(a);
    free(a->block);
    a->block = NULL;
}
