/*
 * sim_core: virtual time, one heap of events, and threads that are coroutines. One thread of the
 * machine runs the whole simulated cluster, so a seed names a run exactly.
 *
 * Simulated processes run the real daemons' code. Whatever blocks there (a mutex, a condition, a
 * join, a sleep, a poll) is linked to this file instead (`ld --wrap`, see the macro WRAP), gives
 * the turn back, and goes on when its event comes. A process can be stopped (its events wait),
 * continued, and killed (its coroutines never run again).
 */
#ifndef SIM_CORE_H
#define SIM_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Defines __wrap_NAME, which everybody who calls NAME from another file reaches instead of it. The
 * Makefile finds these by this macro. */
#define WRAP(type, name, ...)                                                                      \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

struct sim_fiber;
struct sim_proc {
    int node;        /* 0: the coordinator's machine; 1..: workers' */
    uint32_t serial; /* of all processes of this world */
    bool alive;
    uint64_t stopped_until_us;
    struct sim_fiber *fiber; /* all that it ever had */
    void *self;              /* sim_world.c */
};

/* ---- chance: the only source of it ----------------------------------------------------------- */

void sim_seed(uint64_t seed);
uint64_t sim_draw64(void);
uint32_t sim_draw(uint32_t below); /* [0, below) */
bool sim_chance(uint32_t in_thousand);

/* ---- time and events ------------------------------------------------------------------------- */

#define SIM_EPOCH_US 1000000000u /* where the clock starts: 0 often means "never" */
uint64_t sim_now_us(void);
uint64_t sim_now_ms(void);
typedef void (*sim_event_fn)(void *self, uint64_t a, uint64_t b);
void sim_at(uint64_t at_us, sim_event_fn fn, void *self, uint64_t a, uint64_t b);
bool sim_step(void); /* the next event; false: there is none */
uint64_t sim_events(void);

/* ---- the log of a run ------------------------------------------------------------------------ */

void sim_mix(uint64_t word); /* into the hash of everything that happened */
uint64_t sim_hash(void);
extern bool sim_tracing;
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- processes and coroutines ---------------------------------------------------------------- */

struct sim_proc *sim_proc_new(int node, void *(*main_fn)(void *), void *arg);
void sim_proc_kill(struct sim_proc *p); /* does not return when the caller is one of its threads */
void sim_proc_stop(struct sim_proc *p, uint64_t until_us);
struct sim_proc *sim_self(void); /* whose coroutine runs; NULL: an event of the world */
struct sim_fiber *sim_fiber_self(void);
bool sim_block(uint64_t until_us); /* UINT64_MAX: until woken. false: time is up */
void sim_wake(struct sim_fiber *f);
void sim_sleep_us(uint64_t us);

void sim_core_reset(void); /* frees everything of the run before */

#endif
