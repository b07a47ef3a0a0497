#include "base/beat.h"

#include <stddef.h>

static _Thread_local uint64_t *mine;

void beat_to(uint64_t *counter)
{
    mine = counter;
}

void beat(void)
{
    if (mine != NULL)
        __atomic_add_fetch(mine, 1, __ATOMIC_RELAXED);
}
