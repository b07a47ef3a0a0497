#include "ps/floats.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/err.h"

#define ALIGN 64

/* A count in front of the floats, one cache line long so that they stay aligned. */
struct held {
    atomic_uint refs;
};

static struct held *head_of(const float *floats)
{
    return (struct held *)((char *)(uintptr_t)floats - ALIGN);
}

float *floats_new(size_t n)
{
    size_t bytes = (n * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
    struct held *h = aligned_alloc(ALIGN, bytes);

    CHECK(h != NULL);
    atomic_init(&h->refs, 1);
    return (float *)(void *)((char *)h + ALIGN);
}

void floats_hold(const float *f)
{
    atomic_fetch_add_explicit(&head_of(f)->refs, 1, memory_order_relaxed);
}

void floats_release(const float *f)
{
    if (f != NULL && atomic_fetch_sub_explicit(&head_of(f)->refs, 1, memory_order_acq_rel) == 1)
        free(head_of(f));
}

bool floats_is_shared(const float *f)
{
    return atomic_load_explicit(&head_of(f)->refs, memory_order_acquire) > 1;
}
