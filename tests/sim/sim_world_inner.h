/* sim_world_inner: what sim_world.c and sim_chaos.c share: the machines of a run, and its faults. */
#ifndef SIM_WORLD_INNER_H
#define SIM_WORLD_INNER_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/coordinator.h"
#include "sim_core.h"
#include "sim_world.h"
#include "worker/worker_config.h"

#define WORKERS_MAX 7

struct sim_node {
    struct sim_proc *proc; /* NULL: off */
    struct worker_config config;
    uint32_t slowness;
    bool signal, left; /* left: drained, not to come back before the end of the chaos */
    bool foreign;      /* of the other numerics class */
    bool banned;       /* it lied, is in quarantine and was told so */
    int signal_fd;
};

struct sim_world {
    struct sim_node node[1 + WORKERS_MAX]; /* [0]: the coordinator */
    int workers;
    bool chaos, over;
    uint64_t chaos_until_us, healed_us;
    struct coord_config config;
    uint32_t pace_us; /* pace: between two acts of the chaos, about */
    struct coordinator *coordinator;
    volatile int stop;
    struct sim_results *out;
#define X(name) bool name;
    struct {
        SIM_FAULTS(X)
    } on;
#undef X
    uint32_t failpoint_rate; /* in a million, of each pass */
    int liar;                /* the machine that computes wrongly; 0: none */
    bool liar_nan;           /* its wrong gradients are not even finite */
    uint32_t lie_rate;       /* in a thousand, of its units and tasks */
};
extern struct sim_world sim_world;

void sim_world_start(int node); /* if it is off */
void sim_world_kill(int node,
                    uint64_t away_us); /* a worker's machine; it starts again after that */

/* sim_chaos.c */
void sim_chaos_draw(void);  /* which faults this run has, and how bad they are */
void sim_chaos_slow(void);  /* some machines, once they are there */
void sim_chaos_begin(void); /* acts until world.chaos is false */

#endif
