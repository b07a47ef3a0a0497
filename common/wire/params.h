/*
 * params: messages of the data plane as plain nouns. A message is this head in frame 0 and raw
 * arrays in the frames behind it:
 *
 *   CHUNKS   one frame a chunk: its parameters; with a region: none
 *   PUSH     one frame a chunk: its sum; with a region: none
 *   ROOTS    one frame: count doubles
 *   SAVED    one frame: count x 64 hex digits; back to the host without a frame: acknowledged
 *   REPLICA  one frame a chunk: its root
 *   STATE    three frames a chunk: parameters and both moments; count 0: they are not here
 *
 * and none for the others. Packing and unpacking allocate nothing.
 */
#ifndef WIRE_PARAMS_H
#define WIRE_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/link.h"

#define PARAMS_FRAMES_MAX 32 /* raw frames of a message */
#define PARAMS_HEAD_MAX 1024

enum params_type {
    PARAMS_PULL = 1, /* chunks [chunk, chunk + count) when version `step` or a later one is there */
    PARAMS_CHUNKS,   /* they are of version `step` */
    PARAMS_PUSH,     /* node (level, index) of step `step` */
    PARAMS_ACK,      /* of a PUSH: same step, node and chunks; verdict */
    PARAMS_ROOTS,    /* host to leader: sums of squares */
    PARAMS_APPLY,    /* leader to host: scale and rate close the step */
    PARAMS_SAVED,    /* host to leader: chunk blobs of version `step` are in the artefact store */
    PARAMS_REPLICA,  /* host to its buddy: roots of step `step` */
    PARAMS_REPLICA_ACK, /* of a REPLICA: same step and chunks; verdict */
    PARAMS_STATE_PULL,  /* new host to a frozen one: its chunks at version `step`, which it may have
                           to reach first by the close that is here */
    PARAMS_STATE        /* they are */
};

struct params_head {
    enum params_type type;
    uint64_t session, attempt, step;
    uint32_t level, index;
    uint32_t chunk, count;
    uint64_t hash[PARAMS_FRAMES_MAX];  /* PUSH, REPLICA, STATE: [count], of what a chunk's frames
                                          hold */
    uint64_t state[PARAMS_FRAMES_MAX]; /* REPLICA: [count], of its parameters at version `step` */
    double loss, weight;               /* PUSH that holds chunk 0; loss: APPLY, STATE_PULL too */
    uint64_t tokens;
    uint32_t verdict;  /* ACK, REPLICA_ACK: enum host_verdict (ps/host.h) of the worst chunk; PULL:
                          corrupt: something of the answer was, so it is wanted at once */
    float scale, rate; /* APPLY, STATE_PULL: how the step before was closed, */
    double grad_norm, tail_loss; /* and the figures of the run after it */
    uint64_t tail_steps;
    bool freeze;                /* APPLY: and stand still then */
    uint64_t who;               /* PUSH: control_who() of the worker */
    uint64_t duplicates, stale; /* ROOTS: pushes that were so at this host, since it was opened */
    /* PULL, CHUNKS, PUSH: memory of the sender, as net/region.h names it; bytes 0: none. */
    struct params_region {
        uint64_t id, bytes;
        uint32_t pid, fd;
    } region;
};

/* Makes frames[0] of it, in `head`, after frames 1..n-1 have been filled in. */
void params_pack(const struct params_head *h, uint8_t head[PARAMS_HEAD_MAX],
                 struct link_frame *frames, int n);
/* A message of n frames. ERR_INVALID, ERR_LIMIT, ERR_UNSUPPORTED (protocol version), ERR_CORRUPT
 * (changed on its way: wire/seal.h). */
int params_unpack(const struct link_frame *frames, int n, struct params_head *out, struct err *e);

#endif
