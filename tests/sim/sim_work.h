/*
 * sim_work: made-up work with real arithmetic. A model is a short vector; the gradient of a unit is
 * a function of the parameters and of the samples that the step deals to it, so a step that counts
 * a unit twice, not at all, or with parameters of another version gives other bits. A task's output
 * is a function of what its context names. sim_work_expect() does a whole training run in one
 * straight loop, without hosts, folds or threads.
 */
#ifndef SIM_WORK_H
#define SIM_WORK_H

#include <stdint.h>

#include "base/digest.h"
#include "ps/host.h"

struct sim_work_faults { /* in a thousand, of a unit */
    uint32_t hang;       /* a compute thread that stands still for a while */
    uint32_t unit_us;    /* how long one takes on an ordinary machine */
    uint32_t task_fails; /* in a thousand, of a task */
};
extern struct sim_work_faults sim_work_faults;
struct sim_work_counts {
    uint64_t units, hangs, tasks, task_failures, faults, lies;
};
extern struct sim_work_counts sim_work_counts;

/* What a training run is. */
struct sim_run {
    uint64_t seed;
    struct digest init, examples;
    uint32_t global_batch;
    int class;             /* of the arithmetic */
    struct host_plan plan; /* without a layout */
};
struct sim_expected {
    size_t params;
    uint64_t steps;
    float *version; /* [steps + 1][params] */
};
/* Kept until the program ends. */
const struct sim_expected *sim_work_expect(const struct sim_run *run);
void sim_work_reset(void);

#endif
