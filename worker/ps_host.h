/*
 * ps_host: the thread that hosts parameter shards: one ROUTER for all sessions, around the pure
 * ps/host.h. A second thread, the saver, publishes checkpoints, so that a slow store never holds a
 * step up.
 */
#ifndef WORKER_PS_HOST_H
#define WORKER_PS_HOST_H

#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "net/region.h"
#include "ps/host.h"
#include "wire/control.h"

#define PS_HOST_INPROC "inproc://steer-data"

/* What hosts report; called on the host or saver thread, must not block. */
enum ps_report_type {
    PS_STATUS,     /* leader: version, figures, tokens_per_s; a few times a second. All hosts, while
                      a step stays open: what it still lacks */
    PS_CHECKPOINT, /* leader: manifest of `version` is published; `last`: the run is complete */
    PS_FAILED,     /* the session cannot go on: code, text */
    PS_OPINION,    /* about a node: opinion, and its step and first chunk of ours */
    PS_FROZEN      /* version, figures, roots, close (zero: no step was closed in this attempt) */
};
struct ps_report {
    enum ps_report_type type;
    uint64_t job, session, attempt, version;
    struct host_figures figures;
    float lr;
    double tokens_per_s;
    uint64_t tokens_here; /* processed since this attempt was opened */
    bool partial;         /* STATUS of another host than the leader */
    uint64_t open_ms, damaged, audited;
    uint64_t step;          /* OPINION */
    struct opinion opinion; /* the same; its chunk is a global number */
    uint32_t missing_n, shares_n;
    struct tree_span missing[WIRE_MISSING_MAX];
    struct control_share share[WIRE_SHARES_MAX];
    uint64_t duplicates, stale; /* STATUS: pushes of this attempt that were so, at all hosts */
    uint32_t roots;             /* FROZEN: bits, ROOTS_OWN, ROOTS_COPY */
    struct host_close close;    /* FROZEN: of the step before `version` */
    struct digest manifest;
    bool last;
    int code;
    char text[512];
};

struct ps_host_env {
    void *self;
    /* Bytes into the artefact store, durable on return. Saver thread. */
    int (*publish)(void *self, const void *bytes, size_t len, struct digest *out, struct err *e);
    void (*report)(void *self, const struct ps_report *report);
    uint32_t helpers; /* threads that help with many chunks, beside the host thread */
};

#define PS_UNSAVED_MAX 4

/* A session to host, ready to serve. */
struct ps_session {
    uint64_t job, session, attempt;
    struct host_plan plan;
    uint64_t from_attempt;      /* 0, or the frozen attempt whose memory stays */
    struct host *host;          /* taken */
    struct region *region;      /* holds plan.place: the flat vector; NULL: no place. Held by us */
    char leader[WIRE_TEXT_MAX]; /* endpoint of the step leader; "" if this host is it */
    char buddy[WIRE_TEXT_MAX];  /* endpoint of the host after this one; "" without replication */
    uint32_t units, global_batch;
    uint64_t seed;
    struct digest init, examples; /* for the manifest */
    bool bf16;                    /* the same */
    void (*released)(
        void *self,
        struct ps_session *s); /* the host is freed; layout is not needed any more; frees s */
    void *self;
    struct saver_job
        *unsaved[PS_UNSAVED_MAX]; /* of the host: what reads the shard; NULL at first */
};
/* host_plan.begins of a session that shows its parameters or saves them; begins_self: the session. */
void ps_session_begins(void *session, uint64_t version);

struct ps_host;
struct spread ps_host_spread(struct ps_host *p); /* for host_plan.spread of its sessions */
/* listen: tcp://host:port, port 0 = any. endpoint: what was bound. PS_HOST_INPROC is bound too when
 * inproc is NULL, else that name. */
int ps_host_start(const char *listen, const char *inproc, const struct ps_host_env *env,
                  char *endpoint, size_t cap, struct ps_host **out, struct err *e);
void ps_host_stop(struct ps_host *p); /* joins both threads */
/* From any thread. An attempt that is not known is never an error. */
/* Takes s and replaces older attempts of the same session, except a frozen s->from_attempt; a lower
 * attempt is dropped. */
void ps_host_open(struct ps_host *p, struct ps_session *s);
/* Closes all attempts up to this one. */
void ps_host_close(struct ps_host *p, uint64_t session, uint64_t attempt);
/* Closes this attempt only. */
void ps_host_drop(struct ps_host *p, uint64_t session, uint64_t attempt);
/* Stands still, at once or (edge) when the open step is closed, and reports PS_FROZEN, each time
 * that it is asked. What is frozen serves its chunks to the next attempt until it is closed. */
void ps_host_freeze(struct ps_host *p, uint64_t session, uint64_t attempt, bool edge);
/* There is nobody to ask about this node: go on without. */
void ps_host_waive(struct ps_host *p, uint64_t session, uint64_t attempt, uint64_t step,
                   struct tree_node node);

#endif
