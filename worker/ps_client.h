/*
 * ps_client: one compute thread's connections to the parameter hosts of a session: pulls versions,
 * pushes gradients. Everything is repeated until it is answered, so a lost connection costs time
 * only; hosts recognise what they have.
 */
#ifndef WORKER_PS_CLIENT_H
#define WORKER_PS_CLIENT_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "ps/fold.h"
#include "types/tree.h"
#include "wire/control.h"

struct ps_client_plan {
    uint64_t session, attempt;
    size_t params;
    uint32_t chunk_elems;
    uint64_t who; /* control_who() of this worker: goes with every push */
    uint32_t hosts_n;
    struct {
        char endpoint[WIRE_TEXT_MAX];    /* tcp://... or inproc://... of this process's own host */
        uint32_t chunk_begin, chunk_end; /* together all chunks, in order (CHECKed) */
    } host[WIRE_HOSTS_MAX];
};

struct ps_client;
int ps_client_new(const struct ps_client_plan *plan, struct ps_client **out, struct err *e);
void ps_client_free(struct ps_client *c);

/* check: asked at least every 20 ms while waiting; not 0 ends the wait with that answer. `soft`
 * says that waiting for a version may be broken off harmlessly (nothing of it has arrived); when it
 * is false only errors should be given. */
struct ps_client_check {
    void *self;
    int (*ask)(void *self, bool soft, struct err *e);
};
/* All parameters of one version >= at_least into params. Forgets unanswered pushes: they belong to
 * a closed step. */
int ps_client_pull(struct ps_client *c, uint64_t at_least, float *params, uint64_t *version,
                   const struct ps_client_check *check, struct err *e);
/* Chunks [begin, end) of a node; grad is the flat vector and stays as it is until the next
 * successful pull. Returns when everything is queued. A host
 * that has this node with other bits takes it as an opinion, and asks a third worker. */
int ps_client_push(struct ps_client *c, uint64_t step, struct tree_node node, uint32_t begin,
                   uint32_t end, const float *grad, const struct fold_sums *sums,
                   const struct ps_client_check *check, struct err *e);
/* A host has said that the step is closed: more pushes for it are of no use. */
bool ps_client_is_over(const struct ps_client *c, uint64_t step);

#endif
