/*
 * ps_state: takes chunks (parameters and moments) from the memory of the frozen hosts of the
 * attempt before. Our own host is one source among others, over inproc.
 */
#ifndef WORKER_PS_STATE_H
#define WORKER_PS_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "ps/host.h"
#include "wire/control.h"

#define PS_STATE_SILENCE_MS 10000

struct ps_state_plan {
    uint64_t session, attempt; /* the frozen one */
    uint64_t version;
    struct host_close close; /* made it; zero at version 0 */
    size_t params;
    uint32_t chunk_elems;
    uint32_t sources_n;
    const struct control_source *source; /* borrowed; endpoints as they are to be dialled */
};

struct ps_state_take {
    void *self;
    bool (*cancelled)(void *self);
    /* A chunk that is needed, [its length] floats each; called once for each. */
    void (*put)(void *self, uint32_t chunk, const float *p, const float *m, const float *v);
};

/* need [chunks of the whole vector]: which. ERR_NOT_FOUND: no source has a chunk at that version;
 * ERR_UNREACHABLE: nothing came for PS_STATE_SILENCE_MS; ERR_CANCELLED. */
int ps_state_fetch(const struct ps_state_plan *plan, const bool *need,
                   const struct ps_state_take *take, struct err *e);

#endif
