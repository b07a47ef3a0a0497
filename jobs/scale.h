/*
 * scale: how long a training step takes on n workers behind a given link, before anybody owns them.
 *
 * The model adds up what one step does, phase by phase, from counts that follow from the plan (units,
 * canonical tree, chunks: the same functions that the daemons use) and from speeds that
 * `steer-worker --measure` took on a machine of the kind in question. Nothing is assumed: without
 * measured speeds there is no prediction.
 *
 *   compute   units of the busiest thread x seconds of a unit
 *   push      bytes of the busiest host or worker in one direction / its rate, less what hides behind the
 *             backward of a node's last unit (layers leave early; the embedding leaves at the end)
 *   fold      bytes that the busiest host hashes and adds / its rate, as far as longer than the push
 *   apply     parameters of a host, own and copy, / AdamW's rate
 *   pull      as push, the other way, once a process, less what comes while the first layers compute
 *             (both in half the bytes where train.wire is bf16; folding and copies stay fp32)
 *   replica   root gradients to the neighbour, where there are two hosts or more
 *   latency   messages of a step that wait for each other x one-way latency, and what push, copies and pull lose until
 *             connections that were idle fill the link (slow start)
 *
 * Rate of a wire: line rate x share of frames and acknowledgements that is payload, or half of what one core encrypts (it decrypts as
 * much), whichever is less. Not in it: how unequally TCP shares a link among a machine's connections, whose slowest ends a step;
 * with four workers and more that has cost a tenth, with deep queues in front of links a fifth.
 * Pure. Tests: tests/unit/jobs/test_scale.c; against real daemons on shaped links: tests/bench/bench_plan.sh.
 */
#ifndef JOBS_SCALE_H
#define JOBS_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "json/json.h"

/* Speeds of one machine on one model, as steer-worker --measure prints them. */
struct scale_measured {
    uint64_t params;
    uint32_t threads, unit_rows; /* threads that computed at once; sequences of a unit */
    double unit_s;               /* a unit's forward and backward, on each of them */
    double
        backward; /* share of unit_s in which the gradient leaves, 0: nothing leaves before the end */
    double early; /* share of the parameters whose gradient is final before the end */
    double
        forward; /* share of unit_s that has begun before the last parameters are needed, 0: all are at once */
    double later;          /* share of the parameters that the start does not need */
    double fold_bytes_s;   /* hashing and adding pushed gradients, one core */
    double apply_params_s; /* AdamW, one core */
    double crypt_bytes_s;  /* encrypting and authenticating, one core */
};
/* ERR_INVALID names the key that is missing or out of range. */
int scale_measured_read(const cJSON *j, struct scale_measured *out, struct err *e);

struct scale_link {
    double bits_s;    /* of each machine, in each direction */
    double latency_s; /* one way */
    bool encrypted;
};
/* "1Gb/s", "100Mb/s", "2.5Gb/s": bits a second. ERR_INVALID. */
int scale_rate_parse(const char *text, double *bits_s, struct err *e);
/* "0.5ms", "200us", "2s": seconds. ERR_INVALID. */
int scale_time_parse(const char *text, double *seconds, struct err *e);

struct scale_plan {
    uint32_t workers, threads; /* threads of each */
    uint32_t units;            /* a step */
    uint32_t unit_rows;        /* global_batch / units; may differ from the measured */
    uint32_t chunk_elems;
    bool
        half; /* train.wire is bf16: gradients and parameters travel in half the bytes, copies do not */
    bool replicate;
};

enum scale_bound {
    SCALE_COMPUTE,
    SCALE_PUSH,
    SCALE_FOLD,
    SCALE_APPLY,
    SCALE_PULL,
    SCALE_REPLICA,
    SCALE_LATENCY,
    SCALE_BOUNDS
};
const char *scale_bound_name(enum scale_bound b);

struct scale_step {
    double part_s[SCALE_BOUNDS]; /* what each adds to the step */
    double step_s;
    enum scale_bound rules;        /* the largest */
    uint32_t hosts, units_most;    /* units of the busiest thread */
    double push_bytes, pull_bytes; /* of the busiest link, in its busier direction */
    double efficiency;             /* compute of a perfect split / step_s */
};
/* workers >= 1, threads >= 1, units >= 1 (CHECKed). */
void scale_predict(const struct scale_measured *m, const struct scale_plan *p,
                   const struct scale_link *l, struct scale_step *out);

#endif
