/*
 * params: messages of the data plane as plain nouns. A message is this head in frame 0 and raw
 * arrays in the frames behind it: PULL     -                              CHUNKS   one frame a
 * chunk: its parameters PUSH     one frame a chunk: its sum     ACK      - ROOTS    one frame:
 * count doubles       APPLY    - SAVED    one frame: count x 64 hex digits; back to the host
 * without a frame: acknowledged Packing and unpacking allocate nothing.
 */
#ifndef WIRE_PARAMS_H
#define WIRE_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PARAMS_FRAMES_MAX 32 /* raw frames of a message */
#define PARAMS_HEAD_MAX 512

enum params_type {
    PARAMS_PULL = 1, /* chunks [chunk, chunk + count) when version `step` or a later one is there */
    PARAMS_CHUNKS,   /* they are of version `step` */
    PARAMS_PUSH,     /* node (level, index) of step `step` */
    PARAMS_ACK,      /* of a PUSH: same step, node and chunks; verdict */
    PARAMS_ROOTS,    /* host to leader: sums of squares */
    PARAMS_APPLY,    /* leader to host: scale and rate close the step */
    PARAMS_SAVED     /* host to leader: chunk blobs of version `step` are in the artefact store */
};

struct params_head {
    enum params_type type;
    uint64_t session, attempt, step;
    uint32_t level, index;
    uint32_t chunk, count;
    uint64_t hash[PARAMS_FRAMES_MAX]; /* PUSH: [count] */
    double loss, weight;              /* PUSH that holds chunk 0 */
    uint64_t tokens;
    uint32_t verdict;  /* ACK: enum host_verdict (ps/host.h) of the worst chunk */
    float scale, rate; /* APPLY */
    uint64_t who;      /* PUSH: control_who() of the worker */
};

size_t params_pack(const struct params_head *h,
                   uint8_t out[PARAMS_HEAD_MAX]); /* returns the length */
/* frames: raw frames that came with it. ERR_INVALID, ERR_LIMIT, ERR_UNSUPPORTED (protocol version).
 */
int params_unpack(const void *frame, size_t len, int frames, struct params_head *out,
                  struct err *e);

#endif
