/*
 * run_train: the step loop of one compute thread in a training session.
 *
 * A thread owns a span of the units of every step. It waits for a version of the parameters,
 * computes the units of its span in order, merges their gradients along the canonical tree while it
 * goes, and pushes each node of the tree that lies whole in its span, chunk by chunk as the last
 * unit's backward makes them final. The first unit's forward begins as soon as something of the
 * version is there, and waits for each layer's parameters when it comes to them. The world is reached only through struct train_env: arrays in
 * tests, sockets in the worker. Buffers are sized before the first step (gradient buffers: in the
 * first step of an assignment); after that nothing is allocated.
 */
#ifndef JOBS_RUN_TRAIN_H
#define JOBS_RUN_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "data/examples.h"
#include "jobs/spec.h"
#include "model/transformer.h"
#include "ps/fold.h" /* struct fold_sums */
#include "types/tree.h"

/* What a session trains; borrowed by every thread of it, never written. */
struct train_task {
    const struct dims *dims;
    size_t params; /* layout.count */
    const struct examples *examples;
    struct drop drop;
    uint64_t seed, steps;
    uint32_t global_batch, units, chunk_elems;
    bool half;      /* gradients are rounded to bf16 at every node of the tree (ps/half.h) */
    bool recompute; /* in less memory (workspace_new_lean()); the same bits */
    enum gemm_kind arithmetic; /* of the matrix products */
    uint32_t join; /* units computed at once, 1, 2, 4 or 8; 0: as many as pay. The same bits */
};

/* Answers beside 0 and errors. params_wait: no new version, but the work has changed. grads_push:
 * the step was closed without this gradient, so the rest of it is not worth computing. */
enum { TRAIN_REASSIGNED = 1000, TRAIN_OVER };

struct train_env {
    void *self;
    /* Waits until something of version `at_least` or of a later one is there, says which that is and
     * where the flat vector lies. 0, TRAIN_REASSIGNED, or an error (ERR_CANCELLED when the session
     * ends). */
    int (*params_wait)(void *self, uint64_t at_least, const float **params, uint64_t *version,
                       struct err *e);
    /* Waits until elements [begin, end) are there too; TRAIN_OVER: they never will, the step was
     * closed. When all have been waited for, what was pushed before is not read any more. May be
     * NULL: params_wait waits for all. */
    int (*params_need)(void *self, uint64_t version, size_t begin, size_t end, struct err *e);
    /* What was read of this version since params_wait was that version. False: the step was closed,
     * and what was made of them is of no use. May be NULL: always. */
    bool (*params_still)(void *self, uint64_t version);
    /* A gradient: task->params floats, aligned, whose owner frees them after run_train(); NULL: there
     * is no such memory. May be NULL: run_train() has its own. */
    float *(*floats_new)(void *self);
    struct tree_span (*span)(void *self); /* this thread's of every step, now; may be empty */
    /* Units of step `step` only (a straggler's, or a second opinion) that one thread must compute
     * whole, whether it has computed them before or not; each is given to one thread, once. False:
     * none. May be NULL. */
    bool (*extra)(void *self, uint64_t step, struct tree_span *span);
    /* Chunks [begin, end) of a node are final in grad (flat vector), and given: they may be written
     * to. sums: not NULL when begin is 0. Untouched by run_train() until all of a later version has
     * been waited for. */
    int (*grads_push)(void *self, uint64_t step, struct tree_node node, uint32_t begin,
                      uint32_t end, float *grad, const struct fold_sums *sums, struct err *e);
    bool (*cancelled)(void *self); /* asked between units */
    uint64_t *progress;            /* bumped by the numerics; may be NULL */
    struct team *team;       /* threads that share the numerics of this one; NULL: none */
};

/* Runs steps from version `start` on until version task->steps. 0, ERR_CANCELLED, ERR_NUMERIC
 * ("step 7, units [0, 4): ..."), or what env gave. */
int run_train(const struct train_task *task, uint64_t start, const struct train_env *env,
              struct err *e);
/* Bounds of one unit under units_deal(): rows, sequences, targets. For memory estimates, and for
 * those who walk the units themselves. */
void run_train_bounds(const struct train_task *task, int32_t *rows, int32_t *seqs,
                      int32_t *targets);
/* Part `part` of `parts` of a span: contiguous, sizes differ by one at most. */
struct tree_span run_train_part(struct tree_span span, uint32_t part, uint32_t parts);

#endif
