/* alloc: an allocator for protobuf-c that gives up when one message costs more than its budget. */
#ifndef WIRE_ALLOC_H
#define WIRE_ALLOC_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

struct wire_budget {
    size_t left; /* bytes that may still be allocated; freeing gives nothing back */
};
ProtobufCAllocator
wire_allocator(struct wire_budget *budget); /* borrows budget until the message is freed */

#endif
