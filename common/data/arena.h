/* arena: memory that is freed whole. Pointers stay valid until arena_clear() or arena_free(). Aborts when memory is out;
 * whoever allocates by a size from outside has checked it before. */
#ifndef DATA_ARENA_H
#define DATA_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *block;
};

#define ARENA_INIT                                                                                 \
    {                                                                                              \
        NULL                                                                                       \
    }

void *arena_alloc(struct arena *a, size_t size);                  /* zeroed, aligned to 16 */
char *arena_text(struct arena *a, const char *bytes, size_t len); /* a copy with a NUL behind it */
void arena_clear(struct arena *a);                                /* keeps one block for reuse */
void arena_free(struct arena *a);

#endif
