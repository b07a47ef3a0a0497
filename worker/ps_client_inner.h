/*
 * ps_client_inner: what the files of ps_client share. ps_client.c: sockets, what hosts say, pulls; ps_client_push.c:
 * pushes and their answers.
 */
#ifndef WORKER_PS_CLIENT_INNER_H
#define WORKER_PS_CLIENT_INNER_H

#include "ps/half.h"
#include "wire/params.h"
#include "worker/ps_client.h"
#include "worker/ps_patience.h"

/* A push that has not been answered. */
struct pending {
    uint32_t host, begin, count;
    uint64_t step, sent_ms, first_ms; /* sent last (0: at once), and first */
    struct tree_node node;
    float *grad;
    struct region *region;
    bool as_bytes;    /* whatever the host is */
    uint32_t damaged; /* so often what came there had another hash */
    struct fold_sums sums;
    /* Taken once, before the first push: a near host may add to the values since, and what changes them otherwise must
     * not pass for the gradient. */
    uint64_t hash[PARAMS_FRAMES_MAX];
};

struct ps_client {
    struct ps_client_plan plan;
    uint32_t chunks;
    void *socket[WIRE_HOSTS_MAX];
    struct pending *pending;
    size_t pending_n, pending_cap;
    /* the pull in progress */
    uint64_t wanted;                   /* version that hosts were asked for; UINT64_MAX: none */
    uint64_t asked[WIRE_HOSTS_MAX];    /* what each host was asked for last */
    uint64_t asked_ms[WIRE_HOSTS_MAX]; /* and when */
    struct ps_patience patience[WIRE_HOSTS_MAX];
    bool answered[WIRE_HOSTS_MAX]; /* it knows the session; before that it may not have opened it
                                      yet, and is asked often */
    _Atomic uint64_t *version;     /* [chunks] of what params hold; set when they do */
    _Atomic uint64_t newest;
    struct region *shown[WIRE_HOSTS_MAX]; /* where near hosts keep their parameters */
    bool is_shown[WIRE_HOSTS_MAX];        /* in our view; else they are copied to it */
    bool far[WIRE_HOSTS_MAX];             /* its memory could not be attached */
    bool damaged[WIRE_HOSTS_MAX];         /* something that it said: perhaps chunks */
    uint16_t *packed;                     /* half: [chunk_elems * PARAMS_FRAMES_MAX] */
    float *params;                        /* where chunks go; NULL outside a pull */
    uint64_t over; /* 1 + the last step that a host had closed without a push */
};

static inline size_t chunk_len(const struct ps_client *c, uint32_t chunk)
{
    size_t at = (size_t)chunk * c->plan.chunk_elems;

    return c->plan.params - at < c->plan.chunk_elems ? c->plan.params - at : c->plan.chunk_elems;
}

/* On the wire. */
static inline size_t chunk_bytes(const struct ps_client *c, uint32_t chunk)
{
    return chunk_len(c, chunk) * (c->plan.half ? sizeof(uint16_t) : sizeof(float));
}

/* ps_client.c */
uint32_t client_chunks_most(const struct ps_client *c); /* of one message */
/* Reads what has come, waiting timeout_ms for something. */
int client_receive(struct ps_client *c, int timeout_ms, struct err *e);
/* Sends head and raw frames to a host; waits while its queue is full. */
int client_send(struct ps_client *c, uint32_t host, struct link_frame *frames, int n,
                const struct ps_client_check *check, struct err *e);

/* ps_client_push.c */
void client_acked(struct ps_client *c, const struct params_head *h);
/* Pushes that got no answer, or a bad one, again. */
int client_pushes_repeat(struct ps_client *c, const struct ps_client_check *check, struct err *e);

#endif
