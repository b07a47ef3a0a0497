/*
 * ps_host_inner: what the files of ps_host share. ps_host.c: threads, sessions, messages;
 * ps_host_step.c: pulls, pushes and the close of a step; ps_host_save.c: checkpoints and reports;
 * ps_host_copy.c: roots to and from the buddy, and chunks for the next attempt.
 * All of it runs on the host thread.
 */
#ifndef WORKER_PS_HOST_INNER_H
#define WORKER_PS_HOST_INNER_H

#include <pthread.h>
#include <stdbool.h>

#include "net/link.h"
#include "wire/params.h"
#include "worker/crew.h"
#include "worker/mailbox.h"
#include "worker/ps_host.h"
#include "worker/saver.h"

#define SESSIONS_MAX 15 /* two sockets each, and one for all: what one poll can wait for */
#define COLLECT_MAX 4   /* checkpoints of one session that are being collected at the same time */

#define LENDERS_MAX 1024 /* regions of one session that gradients are lent in */
#define LENDER_STEPS 16  /* one that was not named for so long is let go: its owner may be gone */

struct pull {
    struct link_peer peer;
    bool near;    /* the peer sees our region */
    bool offered; /* it asked for that */
    uint64_t at_least;
    uint64_t version;   /* of the chunks sent so far */
    uint32_t next, end; /* chunks still to send */
    uint32_t begin;
    uint64_t served_ms; /* all of it is on its way since then; 0: not yet */
};

/* Leader: a checkpoint whose chunks come in. */
struct collect {
    uint64_t version;
    struct host_figures figures;
    uint32_t have;
    struct digest *digest; /* [plan.chunks]; NULL: the place is free */
};

struct hosted {
    struct ps_session *s;
    void *leader;               /* DEALER to the step leader, NULL on it */
    void *buddy;                /* DEALER to the host after us, NULL without replication */
    uint64_t *replica_ms;       /* [our chunks] when its root was sent last; 0 = not in this step */
    uint64_t replica_wait_ms;   /* how late its acknowledgement may be: twice what the link needs */
    uint64_t duplicates, stale; /* pushes */
    struct pull *pull;
    size_t pulls, pulls_cap;
    struct {
        struct region *region;
        uint64_t named; /* the version that we had when it was named last */
    } lender[LENDERS_MAX];
    uint32_t lenders;
    float *parts; /* half: what was pushed, unpacked; [PARAMS_FRAMES_MAX * chunk_elems] */
    uint16_t *packed;
    uint64_t roots_ms; /* when ROOTS was sent last */
    bool roots_due;
    struct { /* leader: the other hosts, as far as they have spoken */
        struct link_peer peer;
        uint32_t chunk_begin;
        uint64_t duplicates, stale;
    } member[WIRE_HOSTS_MAX];
    int members;
    int saving;              /* copies of our chunks that the saver has not published yet */
    struct saver_job *saved; /* published, not yet acknowledged by the leader */
    uint64_t saved_ms;
    struct collect collect[COLLECT_MAX];
    uint64_t status_ms, rate_ms, status_tokens, opened_ms, opened_tokens, status_version;
    double tokens_per_s;
    uint64_t version_ms;            /* when the open step was opened */
    uint64_t damaged, damaged_told; /* pushes with a wrong hash */
    struct control_share share[WIRE_SHARES_MAX],
        closed[WIRE_SHARES_MAX]; /* of the open step, and of
                                                                             the one before */
    uint32_t shares_n, closed_n;
    uint64_t opinions_ms; /* when they were reported last */
    bool opinions_due;    /* there are new ones */
    uint64_t judged_from; /* verdicts before this one have been told often enough */
    uint32_t judged_told;
    bool failed;
};

struct ps_host {
    struct ps_host_env env;
    pthread_t thread;
    void *router;
    struct mailbox *box;
    struct saver *saver;
    struct crew *crew;
    struct hosted *hosted[SESSIONS_MAX];
    int hosted_n;
    uint64_t dropped; /* messages of other attempts, bad ones */
    bool stop;
};

struct params_head hosted_head(const struct hosted *x, enum params_type type, uint64_t step);

/* ps_host_step.c */
void hosted_pull(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                 const struct params_head *h);
void hosted_pulls_serve(
    struct ps_host *p, struct hosted *x); /* what waits for the version that we have, or for room */
void hosted_push(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                 const struct params_head *h, const struct link_frame *frames);
void hosted_roots(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                  const struct params_head *h, const struct link_frame *frame);
void hosted_roots_send(struct hosted *x); /* to the leader, again */
void hosted_apply(struct ps_host *p, struct hosted *x, const struct params_head *h);

void hosted_events(struct ps_host *p, struct hosted *x, unsigned events); /* HOST_* bits */

/* ps_host_copy.c */
/* Sends roots of chunks [begin, end) that the buddy is not known to have: those never sent, and
 * those sent long ago. */
void hosted_replicas_send(struct hosted *x, uint32_t begin, uint32_t end);
void hosted_replica(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                    const struct params_head *h, const struct link_frame *frames);
void hosted_replica_ack(struct ps_host *p, struct hosted *x, const struct params_head *h);
void hosted_freeze(struct ps_host *p, struct hosted *x, bool edge);
void hosted_frozen(struct ps_host *p, struct hosted *x); /* has just frozen, or is asked again */
void hosted_state_pull(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                       const struct params_head *h); /* x NULL: unknown here */
/* A close and the figures with it, as fields of a message. */
void close_pack(const struct host_close *close, struct params_head *h);
struct host_close close_unpack(const struct params_head *h);

/* ps_host_opinion.c: what several workers say about the same node */
void hosted_opinions_report(struct ps_host *p, struct hosted *x, uint64_t now);
void hosted_waive(struct ps_host *p, struct hosted *x, uint64_t step, struct tree_node node);

/* ps_host_save.c */
void hosted_checkpoint(struct ps_host *p,
                       struct hosted *x); /* copies the shard and hands it to the saver */
void hosted_saved(struct ps_host *p, struct hosted *x,
                  struct saver_job *j);   /* takes j: the saver is done with it */
void hosted_saved_send(struct hosted *x); /* to the leader, again */
void hosted_saved_message(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                          const struct params_head *h, const struct link_frame *frame);
void hosted_fail(struct ps_host *p, struct hosted *x, const struct err *why);
void hosted_status(struct ps_host *p, struct hosted *x, uint64_t now);
/* Notes who has pushed what of the open step, and that a step is closed. */
void hosted_share_note(struct hosted *x, uint64_t who, uint32_t units);
void hosted_shares_close(struct hosted *x);
struct ps_report hosted_report(const struct hosted *x, enum ps_report_type type);

#endif
