/*
 * sim_world: one run. A coordinator and up to seven workers, as the real daemons (coordinator_open()
 * and coordinator_run(), daemon_run()) in simulated processes; clients that submit, repeat, cancel;
 * and a chaos that kills, stops, cuts, slows, drains and fills disks, drawn from the seed. Each seed
 * has a random subset of the faults (swarm testing); in some a machine computes wrongly and all is audited, or the machines
 * are of two numerics classes. After the chaos everything heals, and every job
 * has to end within bounded time, with the outputs of an undisturbed run.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_FAULTS(X)                                                                              \
    X(kill_worker)                                                                                 \
    X(kill_coordinator)                                                                            \
    X(stop_worker)                                                                                 \
    X(stop_coordinator)                                                                            \
    X(cut_control)                                                                                 \
    X(cut_data)                                                                                    \
    X(cut_one_way)                                                                                 \
    X(flap)                                                                                        \
    X(isolate)                                                                                     \
    X(drain_signal)                                                                                \
    X(drain_api)                                                                                   \
    X(join)                                                                                        \
    X(disk_full)                                                                                   \
    X(slow)                                                                                        \
    X(hang)                                                                                        \
    X(drop)                                                                                        \
    X(twice)                                                                                       \
    X(late)                                                                                        \
    X(reorder)                                                                                     \
    X(commit_crash)                                                                                \
    X(commit_error)                                                                                \
    X(failpoint)                                                                                   \
    X(damage)                                                                                      \
    X(task_fails)                                                                                  \
    X(cancel)                                                                                      \
    X(retry)                                                                                       \
    X(pause)                                                                                       \
    X(client_loss)                                                                                 \
    X(lie)                                                                                         \
    X(foreign)                                                                                     \
    X(flip)
struct sim_results {
    uint64_t seed, hash, events, virtual_ms;
    char violation[600]; /* "" = none */
#define X(name) uint64_t name;
    struct {
        SIM_FAULTS(X)
    } faults;
#undef X
    uint64_t counters[32]; /* of the scheduler, in the order of SCHED_COUNTERS */
    uint64_t jobs, cancelled, grants, versions, restarts, adopted, messages;
    uint64_t waived; /* runs in which a lie counted, because nobody was there to be asked */
};

void sim_world_run(uint64_t seed, struct sim_results *out);
/* What undisturbed jobs give; made once, before the first run. */
void sim_world_references(void);

/* ---- for the edges --------------------------------------------------------------------------- */

bool sim_world_coordinator_is_up(void);
void sim_world_coordinator_crash(void); /* does not return */
uint32_t sim_world_slowness(void);      /* of this machine, per cent */
int sim_world_class(void);              /* of this machine's arithmetic: 0, or 1 */
bool sim_world_lies_nan(void);
bool sim_world_lies(void);                  /* this machine computes wrongly now */
bool sim_world_is_liar(const char *worker); /* its id */

#endif
