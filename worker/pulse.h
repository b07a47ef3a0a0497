/*
 * pulse: does every compute thread that has work move? Threads bump a counter of their own while
 * they compute and while they wait (jobs/run.h: at least every 100 ms of work); the control thread
 * reads them at every tick. A round is over when each thread that has work has moved since the last
 * one, so the number of rounds, which the heartbeat carries as progress, stands still as soon as
 * one thread hangs, however busy the others are. Pure, apart from reading the counters.
 */
#ifndef WORKER_PULSE_H
#define WORKER_PULSE_H

#include <stdbool.h>
#include <stdint.h>

struct pulse {
    uint64_t rounds;
    uint32_t still; /* threads that have not moved in this round, of those asked since its begin */
};

/* One of each thread, zeroed at first, written by the control thread only. */
struct pulse_thread {
    uint64_t seen, round, moved;
};

/* excused: the thread has nothing to do, or waits for something that has a deadline of its own.
 * moved of the thread rises whenever it moved or was excused. */
static inline void pulse_thread_take(struct pulse *p, struct pulse_thread *t,
                                     const uint64_t *counter, bool excused)
{
    uint64_t now = __atomic_load_n(counter, __ATOMIC_RELAXED);

    if (excused || now != t->seen) {
        t->seen = now;
        t->round = p->rounds + 1;
        t->moved++;
    }
    p->still += t->round != p->rounds + 1;
}

/* After all threads have been taken. */
static inline void pulse_end(struct pulse *p)
{
    p->rounds += p->still == 0;
    p->still = 0;
}

#endif
