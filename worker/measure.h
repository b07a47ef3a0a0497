/*
 * measure: how fast this machine does each part of a training step of one spec: what `steerctl plan` predicts from (jobs/scale.h).
 * Own threads and random weights and tokens; no network, no coordinator.
 */
#ifndef WORKER_MEASURE_H
#define WORKER_MEASURE_H

#include <stdint.h>

#include "base/err.h"

struct measure_args {
    const char *spec;    /* path of a spec that trains */
    uint32_t threads;    /* that compute at once, 1..256 */
    uint32_t row_tokens; /* of a sequence; 0: as many as the spec's data may have */
};
/* argv after "--measure": SPEC [--threads N] [--row-tokens N]. ERR_INVALID. */
int measure_args_parse(int argc, char **argv, struct measure_args *out, struct err *e);
/* Takes some seconds; prints one JSON object to stdout. ERR_INVALID: the spec does not train. Others: of reading spec and model. */
int measure_run(const struct measure_args *args, struct err *e);

#endif
