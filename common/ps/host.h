/*
 * host: what a parameter host decides, without sockets. One object is one session attempt on one
 * host.
 *
 * A step: nodes are pushed (host_push) until every chunk of the host has its root; the host then
 * tells the leader (host_roots on the leader) the sum of squares of each of its chunks; the leader,
 * the host of chunk 0, closes the step when it has them all: one norm, one clip scale, one learning
 * rate, so every host applies the same update (host_apply). Norm and loss are combined in fp64
 * along canonical trees (over chunks, over units), so they depend neither on the number of hosts
 * nor on the order of messages. The gradient is divided once, here, by the global weight. Every
 * entry gives back what the shell has to do now, as bits; all of it may be done late or twice
 * without harm. Pure: no clock, no socket, no file. Steady state allocates nothing, apart from a
 * chunk that is still being sent when the next version is made.
 */
#ifndef PS_HOST_H
#define PS_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/optim.h"
#include "ps/fold.h"
#include "ps/shard.h"

struct host_plan {
    const struct layout *layout; /* borrowed for the host's life */
    uint32_t units;
    uint32_t chunks;                 /* of the whole vector */
    uint32_t chunk_begin, chunk_end; /* ours, not empty */
    uint32_t chunk_elems;
    uint64_t steps;
    uint64_t checkpoint_every; /* 0 = only at the end */
    double lr, clip;
    struct adamw adamw;
    struct schedule schedule;
};

/* How a step was closed. */
struct host_close {
    uint64_t step; /* closes version `step`, makes version `step` + 1 */
    float scale, lr;
};

/* Figures of a run, known to the leader; part of the checkpoint, so that they survive a change of
 * hosts. */
struct host_figures {
    double loss;      /* weighted mean of the last closed step */
    double grad_norm; /* of the mean gradient, before clipping */
    uint64_t tokens;  /* since version 0 */
    double tail_loss; /* sum of the loss over the closed ones of the last tenth of the steps */
    uint64_t tail_steps;
};

enum host_event {
    HOST_ROOTS = 1,   /* send host_sumsq() of all our chunks to the leader (never on the leader) */
    HOST_APPLY = 2,   /* leader: send host_last() to the other hosts */
    HOST_VERSION = 4, /* there is a new version: answer the pulls that waited for it */
    HOST_CHECKPOINT = 8 /* the version that we have now is one to keep: copy it (shard_copy) before
                           the next message */
};

enum host_verdict { HOST_ACCEPTED, HOST_DUPLICATE, HOST_STALE, HOST_CONFLICT, HOST_CORRUPT };

struct host;
/* params [our elements] at `version`; figures may be NULL (zero). */
struct host *host_new(const struct host_plan *plan, const float *params, uint64_t version,
                      const struct host_figures *figures);
void host_free(struct host *h);

/* One chunk (global number, ours) of a node. hash as the sender took it: another one over the same
 * bytes means that they were damaged. ERR_INVALID: chunk, node, length or step (of the future) out
 * of bounds; *verdict is then unset. ERR_NUMERIC: the root is not finite. */
int host_push(struct host *h, uint64_t step, struct tree_node node, uint32_t chunk,
              const float *values, size_t n, const struct fold_sums *sums, uint64_t hash,
              enum host_verdict *verdict, unsigned *events, struct err *e);
/* Leader: a host's sums of squares for chunks [begin, begin + n). ERR_STALE: of a closed step:
 * answer with host_last() if that is it. */
int host_roots(struct host *h, uint64_t step, uint32_t begin, const double *sumsq, uint32_t n,
               unsigned *events, struct err *e);
/* Others: the leader has closed the step. ERR_STALE when it was applied before; ERR_INVALID when
 * our roots are not complete. */
int host_apply(struct host *h, const struct host_close *close, unsigned *events, struct err *e);

bool host_is_leader(const struct host *h);
bool host_roots_complete(const struct host *h); /* of the open step: HOST_ROOTS may be repeated */
const double *host_sumsq(const struct host *h); /* [chunk_end - chunk_begin], valid when complete */
const struct host_close *
host_last(const struct host *h); /* the last step that was closed; NULL before the first */
const struct host_figures *host_figures(const struct host *h);
struct shard *host_shard(struct host *h); /* chunk numbers of a shard start at 0 */
uint64_t host_version(const struct host *h);
bool host_is_done(const struct host *h);

/* Sum of x[n] along the canonical tree over n leaves. Used for the norm; the reference program uses
 * its own. */
double host_tree_sum(const double *x, uint32_t n);

/* Spans of units that a chunk of ours still lacks in the open step; see fold_missing(). */
size_t host_missing(struct host *h, struct tree_span *out, size_t cap);

#endif
