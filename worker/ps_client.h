/*
 * ps_client: connections to the parameter hosts of a session: pulls versions, pushes gradients.
 * Everything is repeated until it is answered, so a lost connection costs time only; hosts
 * recognise what they have. One thread at a time.
 *
 * A host on this machine gets and gives memory by name instead of bytes (net/region.h): of a push
 * it hears where the gradient lies, and adds there; its parameters are read where it keeps them.
 * Everything else is as with bytes: versions, hashes, answers, repetition.
 */
#ifndef WORKER_PS_CLIENT_H
#define WORKER_PS_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/region.h"
#include "ps/fold.h"
#include "types/tree.h"
#include "wire/control.h"

struct team;

struct ps_client_plan {
    uint64_t session, attempt;
    size_t params;
    uint32_t chunk_elems;
    uint64_t who; /* control_who() of this worker: goes with every push */
    bool half;    /* bytes travel as bf16 (ps/half.h) */
    /* The flat vector that pulls fill, or that shows what near hosts have; NULL: no host is near.
     * Borrowed. */
    struct region *view;
    /* [WIRE_HOSTS_MAX] which hosts are near: found out by who pulls into a view, read by who
     * pushes. NULL: none. Borrowed. */
    atomic_bool *near;
    struct team *team; /* shares the hashing of what is pushed; NULL: none. Borrowed. */
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
/* The parts of a pull, for those who share one among threads. Asks for what is missing, and reads
 * what has come, waiting timeout_ms for something. */
int ps_client_pump(struct ps_client *c, uint64_t at_least, float *params, int timeout_ms,
                   struct err *e);
/* Of any chunk, be it one that is being written; UINT64_MAX: nothing came. Any thread. */
uint64_t ps_client_newest(const struct ps_client *c);
/* Elements [begin, end) are there at this version. over: some are newer. Any thread. */
bool ps_client_has(const struct ps_client *c, uint64_t version, size_t begin, size_t end,
                   bool *over);
/* No near host has begun to write a later version where we read, and no chunk of one came or
 * began to be written. Any thread. */
bool ps_client_still(const struct ps_client *c, uint64_t version);
/* Chunks [begin, end) of a node; grad is the flat vector and stays as it is until the next
 * successful pull, unless region is given: the one that it lies at the beginning of; then near hosts
 * write to it, and it is kept until all are done with it. Returns when everything is queued. A host
 * that has this node with other bits takes it as an opinion, and asks a third worker. */
int ps_client_push(struct ps_client *c, uint64_t step, struct tree_node node, uint32_t begin,
                   uint32_t end, float *grad, struct region *region, const struct fold_sums *sums,
                   const struct ps_client_check *check, struct err *e);
/* Reads answers to pushes for timeout_ms, and repeats those that got none. How many are open. */
int ps_client_tend(struct ps_client *c, int timeout_ms, const struct ps_client_check *check,
                   size_t *open, struct err *e);
void ps_client_forget(struct ps_client *c); /* unanswered pushes: their step is closed */
/* A host has said that the step is closed: more pushes for it are of no use. */
bool ps_client_is_over(const struct ps_client *c, uint64_t step);

#endif
