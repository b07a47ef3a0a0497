/*
 * carve: cuts one allocation into aligned arrays. Run once with base NULL to learn the size, then again to get pointers.
 */
#ifndef MODEL_CARVE_H
#define MODEL_CARVE_H

#include <stddef.h>
#include <stdint.h>

#include "model/real.h"

#define CARVE_ALIGN 64

struct carve {
    char *base; /* NULL: only counting */
    size_t used;
};

static inline void *carve_bytes(struct carve *c, size_t bytes)
{
    size_t at = c->used;

    c->used += (bytes + CARVE_ALIGN - 1) / CARVE_ALIGN * CARVE_ALIGN;
    return c->base == NULL ? NULL : c->base + at;
}

static inline real *carve_real(struct carve *c, size_t n)
{
    return carve_bytes(c, n * sizeof(real));
}

static inline int32_t *carve_int(struct carve *c, size_t n)
{
    return carve_bytes(c, n * sizeof(int32_t));
}

#endif
