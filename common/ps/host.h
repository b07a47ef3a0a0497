/*
 * host: what a parameter host decides, without sockets. One object is one session attempt on one
 * host.
 *
 * A step: nodes are pushed (host_push) until every chunk of the host has its root; the host then
 * tells the leader (host_roots on the leader) the sum of squares of each of its chunks; the leader,
 * the host of chunk 0, closes the step when it has them all: one norm, one clip scale, one learning
 * rate, so every host applies the same update (host_apply). Norm and loss are combined in fp64
 * along canonical trees (over chunks, over units), so they depend neither on the number of hosts
 * nor on the order of messages. The gradient is divided once, here, by the global weight.
 *
 * With replication each host keeps a copy of the chunks of the host before it (ps/replica.h), which
 * is the buddy of that host. A root counts for its owner only when the buddy has it
 * (host_replica_acked), so a closed step has every root at two hosts, and the loss of any one host
 * loses nothing. host_freeze() ends the attempt without ending its memory: a frozen host changes
 * nothing any more. Frozen hosts differ by one version at most, and one that is behind has all
 * roots of the step that it misses, so it can follow (host_roll) when it is told how the step was
 * closed; then the chunks are taken over by the hosts of the next attempt (host_find).
 *
 * Every entry gives back what the shell has to do now, as bits; all of it may be done late or twice
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
#include "ps/opinion.h"
#include "ps/shard.h"
#include "ps/spread.h"

struct host_plan {
    const struct layout *layout; /* borrowed for the host's life */
    uint32_t units;
    uint32_t chunks;                 /* of the whole vector */
    uint32_t chunk_begin, chunk_end; /* ours, not empty */
    bool replicate;                  /* we have a buddy, and are one */
    uint32_t copy_begin, copy_end;   /* with replicate: the chunks of the host before us */
    uint32_t chunk_elems;
    uint64_t steps;
    uint64_t checkpoint_every; /* 0 = only at the end */
    uint64_t seed;             /* with audit: which nodes two workers must agree about */
    double audit;              /* share of them, 0..1; below 0: values are not compared at all */
    double lr, clip;
    struct adamw adamw;
    struct schedule schedule;
    bool half;            /* the run's wire is bf16: nodes and what workers see are rounded to it */
    float *place;         /* where workers read our chunks (shard_show()); NULL: nowhere */
    struct spread spread; /* for work on many chunks */
    /* Before the parameters of a new version are written to place; may be NULL. */
    void (*begins)(void *self, uint64_t version);
    void *begins_self;
};

#define HOST_TOKENS_MAX (1ull << 53) /* of a run: they are written as a JSON number */
#define PUSH_TOKENS_MAX (1ull << 40) /* of a push, so that no sum of them overflows */
/* Figures of a run, known to every host; part of the checkpoint, so that they survive a change of
 * hosts. */
struct host_figures {
    double loss;      /* weighted mean of the last closed step */
    double grad_norm; /* of the mean gradient, before clipping */
    uint64_t tokens;  /* since version 0 */
    double tail_loss; /* sum of the loss over the closed ones of the last tenth of the steps */
    uint64_t tail_steps;
};

/* How a step was closed. */
struct host_close {
    uint64_t step; /* closes version `step`, makes version `step` + 1 */
    float scale, lr;
    struct host_figures figures; /* after it */
};

enum host_event {
    HOST_ROOTS = 1,   /* send host_sumsq() of all our chunks to the leader (never on the leader) */
    HOST_APPLY = 2,   /* leader: send host_last() to the other hosts */
    HOST_VERSION = 4, /* there is a new version: answer the pulls that waited for it */
    HOST_CHECKPOINT = 8, /* the version that we have now is one to keep: copy it (shard_copy) before
                            the next message */
    HOST_REPLICA = 16,   /* the chunk that was pushed has its root: send it to the buddy */
    HOST_FROZEN = 32,    /* frozen, now that the step is closed */
    HOST_OPINION = 64    /* somebody's opinion has come, or is wanted: see host_opinions() */
};

enum host_verdict { HOST_ACCEPTED, HOST_DUPLICATE, HOST_STALE, HOST_CONFLICT, HOST_CORRUPT };

struct host;
/* params [our elements] at `version` (NULL: zero, to be filled with shard_set()); figures may be
 * NULL (zero). The copy is zero: fill host_copy(). */
struct host *host_new(const struct host_plan *plan, const float *params, uint64_t version,
                      const struct host_figures *figures);
void host_free(struct host *h);

/* One chunk (global number, ours) of a node, said by the worker `who`. hash as the sender took it: another one over the same
 * bytes means that they were damaged. ERR_INVALID: chunk, node, length or step (of the future) out
 * of bounds; *verdict is then unset. ERR_NUMERIC: the root is not finite. */
int host_push(struct host *h, uint64_t step, uint64_t who, struct tree_node node, uint32_t chunk,
              const float *values, size_t n, const struct fold_sums *sums, uint64_t hash,
              enum host_verdict *verdict, unsigned *events, struct err *e);
#define HOST_PARTS_MAX 32
/* A push of several chunks at once, in three parts: host_push_begin(); host_push_fold() for each
 * chunk, on any threads; host_push_end(). The same as host_push() for one chunk after the other. */
struct host_push {
    uint64_t step, who;
    struct tree_node node;
    struct fold_sums sums; /* of chunk 0 */
    bool lent;             /* values stay there, for the fold to write to, until the next version */
    uint32_t begin, count;
    float *values[HOST_PARTS_MAX];
    size_t n[HOST_PARTS_MAX];
    uint64_t hash[HOST_PARTS_MAX];
    struct host_pushed {
        enum host_verdict verdict;
        bool folded, news; /* news: the chunk has its root now */
        double sumsq;      /* of that */
    } out[HOST_PARTS_MAX];
};
int host_push_begin(const struct host *h, struct host_push *p, struct err *e); /* ERR_INVALID */
void host_push_fold(struct host *h, struct host_push *p, uint32_t i);
int host_push_end(struct host *h, struct host_push *p, unsigned *events,
                  struct err *e); /* ERR_NUMERIC */
/* Leader: a host's sums of squares for chunks [begin, begin + n). ERR_STALE: of a closed step:
 * answer with host_last() if that is it. */
int host_roots(struct host *h, uint64_t step, uint32_t begin, const double *sumsq, uint32_t n,
               unsigned *events, struct err *e);
/* Others: the leader has closed the step. ERR_STALE when it was applied before; ERR_INVALID when
 * our roots are not complete. */
int host_apply(struct host *h, const struct host_close *close, unsigned *events, struct err *e);

/* Buddy: the root of one chunk of the host before us; hash and sums as in host_push(), state: the
 * owner's shard_hash() of the chunk. *verdict: accepted, duplicate, stale or corrupt (send it
 * again). ERR_INVALID: not ours. ERR_STALE: frozen, no answer. ERR_CORRUPT: owner and copy differ,
 * the session cannot go on. */
int host_replica(struct host *h, uint64_t step, uint32_t chunk, const float *values, size_t n,
                 const struct fold_sums *sums, uint64_t hash, uint64_t state,
                 enum host_verdict *verdict, unsigned *events, struct err *e);
/* Owner: the buddy has the roots of chunks [begin, begin + n). */
int host_replica_acked(struct host *h, uint64_t step, uint32_t begin, uint32_t n, unsigned *events,
                       struct err *e);
bool host_replica_due(
    const struct host *h,
    uint32_t chunk); /* ours; has its root, which the buddy is not known to have */
const float *host_root(const struct host *h, uint32_t chunk, struct fold_sums *sums,
                       uint64_t *hash); /* of a chunk of ours that has it */
bool host_root_is_lent(const struct host *h, uint32_t chunk); /* else it may be held (ps/floats.h) */

#define HOST_JUDGED_MAX 8
/* A question of whichever step that found somebody odd, or the sum tainted. */
struct host_judged {
    uint64_t step;
    struct opinion opinion;
};
/* The i-th since the host was made; the last HOST_JUDGED_MAX are kept, NULL for others. */
const struct host_judged *host_judged(const struct host *h, uint64_t i);
uint64_t host_judged_n(const struct host *h);
uint64_t host_audited(const struct host *h); /* nodes of our first chunk about which two agreed */
/* What is questioned in the open step; chunks of an opinion count from our first. */
const struct opinions *host_opinions(const struct host *h);
/* There is nobody to ask about this node. ERR_STALE: of another step. */
int host_waive(struct host *h, uint64_t step, struct tree_node node, unsigned *events,
               struct err *e);

/* ---- changing hosts ---- */

/* edge: once the open step is closed. Twice is harmless. */
void host_freeze(struct host *h, bool edge);
bool host_is_frozen(const struct host *h);
enum { HOST_HAS_ROOTS = 1, HOST_HAS_COPY_ROOTS = 2 };
unsigned
host_roots_here(const struct host *h); /* for which of its ranges all roots of the step are here */
/* Frozen: makes the version after `close` of what stands at close->step and has all its roots; does
 * nothing to the rest. */
void host_roll(struct host *h, const struct host_close *close);
/* Frozen: the shard, own or copy, that has this chunk (global number) at this version, and the
 * chunk's number there. NULL: neither has. */
struct shard *host_find(struct host *h, uint32_t chunk, uint64_t version, uint32_t *at);

bool host_is_leader(const struct host *h);
bool host_roots_complete(
    const struct host *h); /* of the open step, and replicated: HOST_ROOTS may be repeated */
const double *host_sumsq(const struct host *h); /* [chunk_end - chunk_begin], valid when complete */
const struct host_close *
host_last(const struct host *h); /* the last step that was closed; NULL before the first */
const struct host_figures *host_figures(const struct host *h);
struct shard *host_shard(struct host *h); /* chunk numbers of a shard start at 0 */
struct shard *host_copy(struct host *h);  /* of the host before us; NULL without replication */
uint64_t host_version(const struct host *h);
bool host_is_done(const struct host *h);

/* Sum of x[n] along the canonical tree over n leaves. Used for the norm; the reference program uses
 * its own. */
double host_tree_sum(const double *x, uint32_t n);

/* Spans of units that a chunk of ours still lacks in the open step; see fold_missing(). */
size_t host_missing(struct host *h, struct tree_span *out, size_t cap);

#endif
