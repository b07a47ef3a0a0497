/*
 * spread: how work on many chunks is shared among threads. Items must not touch each other's data;
 * the order in which they run is nobody's business, so results never depend on it. Pure.
 */
#ifndef PS_SPREAD_H
#define PS_SPREAD_H

#include <stddef.h>
#include <stdint.h>

struct spread {
    /* item(arg, i) once for every i < n, on any threads; returns when all are done. NULL: one after
     * the other, here. */
    void (*each)(void *self, uint32_t n, void (*item)(void *arg, uint32_t i), void *arg);
    void *self;
};

static inline void spread_each(const struct spread *s, uint32_t n,
                               void (*item)(void *arg, uint32_t i), void *arg)
{
    if (s->each != NULL && n > 1) {
        s->each(s->self, n, item, arg);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        item(arg, i);
}

#endif
