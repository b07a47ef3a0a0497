#include "wire/alloc.h"

#include <stdlib.h>

static void *budget_alloc(void *self, size_t size)
{
    struct wire_budget *b = self;

    if (size > b->left)
        return NULL; /* protobuf-c then fails to unpack and frees what it has */
    b->left -= size;
    return malloc(size != 0 ? size : 1);
}

static void budget_free(void *self, void *p)
{
    (void)self;
    free(p);
}

ProtobufCAllocator wire_allocator(struct wire_budget *budget)
{
    return (ProtobufCAllocator){budget_alloc, budget_free, budget};
}
