/*
 * fake_cluster: the surroundings of the coordinator's pure cores: a virtual clock, a network that
 * loses, doubles and delays letters, and workers that do what the protocol asks of them and die,
 * hang, drain and come back. No threads, sockets or arithmetic: who holds which lease and which step
 * of a session is all there is. Every choice is drawn from the seed, so a seed names a run exactly.
 *
 * Times are milliseconds of the virtual clock (*_ms), rates are in a thousand. A cluster starts as
 * zeros, then seed and rates; it is plain values, letters are copied, and there is nothing to free.
 */
#ifndef FAKE_CLUSTER_H
#define FAKE_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/sched.h"

#define WORKERS 5
#define NET_MAX 4096
#define HELD_MAX 16

enum { TO_COORDINATOR = -1 };
/* W_: a worker says it; C_: the coordinator does. */
enum what {
    W_HELLO,
    W_BEAT,
    W_DONE,
    W_FAILED,
    W_STATUS,
    W_CHECKPOINT,
    W_SDONE,
    W_BYE,
    C_REJECT,
    C_WELCOME,
    C_TASK,
    C_CANCEL,
    C_ACK,
    C_OPEN,
    C_ASSIGN,
    C_CLOSE,
    C_SACK
};

struct letter {
    bool used;
    uint64_t at_ms;
    int to, from;
    enum what what;
    uint64_t boot, task, epoch, session, attempt, version, steps, assignment;
    char kind[32];
    uint32_t index;
    int leases_n, code;
    struct sched_lease lease[HELD_MAX];
    char leader[SCHED_WORKER_MAX];
    int members_n;
    char member[WORKERS][SCHED_WORKER_MAX];
};

/* A task under a lease, at its worker: done at ready_ms, then said again until it is acknowledged. */
struct held {
    uint64_t task, epoch, ready_ms, resend_ms;
    char kind[32];
    uint32_t index;
    bool finished;
    int code;
};

struct fake_worker {
    char id[SCHED_WORKER_MAX];
    bool alive, draining;
    uint64_t boot, up_ms, hang_until_ms, beat_ms;
    int held_n;
    struct held held[HELD_MAX];
    uint64_t session, attempt, assignment, version, steps, step_ms, resend_ms;
    struct letter map; /* of the last assignment */
    bool leads;
};

struct fake_cluster {
    uint64_t seed, draws, now_ms;
    bool healed; /* nothing goes wrong any more */
    uint32_t loss_rate, kill_rate;
    struct letter net[NET_MAX]; /* on their way */
    struct fake_worker worker[WORKERS];
    uint64_t kills;
};

uint32_t fake_draw(struct fake_cluster *c, uint32_t below);     /* [0, below) */
bool fake_chance(struct fake_cluster *c, uint32_t in_thousand); /* never when healed */

/* Copies it; it may get lost, or come twice. */
void fake_post(struct fake_cluster *c, const struct letter *l);
/* Takes the next letter that is due off the network. *slot: where to look on, 0 at first; false: no
 * more. Letters posted meanwhile are not due before the clock goes on. */
bool fake_next(struct fake_cluster *c, int *slot, struct letter *out);

int fake_worker_index(const struct fake_cluster *c, const char *id); /* asserts that there is one */
void fake_worker_hears(struct fake_cluster *c, int me, const struct letter *l);
void fake_workers_act(struct fake_cluster *c); /* each does what is due, then may break */

#endif
