/*
 * A job is announced by one counter (`round`); a member that sees it rise runs its part and counts
 * itself out of `running`. Both sides spin for about 50 microseconds before they sleep. Who wants to
 * sleep says so first and the kernel compares the counter once more, so no call is missed: either
 * the announcer sees the sleeper, or the sleeper sees the new counter.
 */
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"

#define SPINS 2000 /* of a pause of about 20 to 40 cycles each */

struct member {
    struct team *team;
    size_t part;
    pthread_t thread;
};
struct team {
    /* Apart from each other, because the announcer and the members write them. */
    _Alignas(64) uint32_t round;
    _Alignas(64) uint32_t running;
    _Alignas(64) uint32_t sleepers, caller_sleeps;
    void (*job)(void *self, size_t part, size_t parts);
    void *self;
    bool ends;
    size_t parts;
    struct member member[TEAM_MAX];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(uint32_t *at, uint32_t value)
{
    (void)syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(uint32_t *at)
{
    (void)syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Until *at is not `value`; *sleeps counts who sleeps on it. */
static uint32_t change_await(uint32_t *at, uint32_t value, uint32_t *sleeps)
{
    uint32_t now;

    for (int i = 0; i < SPINS; i++) {
        now = __atomic_load_n(at, __ATOMIC_ACQUIRE);
        if (now != value)
            return now;
        relax();
    }
    __atomic_fetch_add(sleeps, 1, __ATOMIC_SEQ_CST);
    while ((now = __atomic_load_n(at, __ATOMIC_SEQ_CST)) == value)
        futex_wait(at, value);
    __atomic_fetch_sub(sleeps, 1, __ATOMIC_SEQ_CST);
    return now;
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct team *t = m->team;
    uint32_t round = 0;

    for (;;) {
        round = change_await(&t->round, round, &t->sleepers);
        if (t->ends)
            return NULL;
        t->job(t->self, m->part, t->parts);
        if (__atomic_sub_fetch(&t->running, 1, __ATOMIC_SEQ_CST) == 0 &&
            __atomic_load_n(&t->caller_sleeps, __ATOMIC_SEQ_CST) != 0)
            futex_wake(&t->running);
    }
}

static void round_announce(struct team *t)
{
    __atomic_fetch_add(&t->round, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&t->sleepers, __ATOMIC_SEQ_CST) != 0)
        futex_wake(&t->round);
}

struct team *team_new(int threads)
{
    struct team *t = aligned_alloc(64, (sizeof(*t) + 63) / 64 * 64);

    CHECK(t != NULL && threads >= 1 && threads <= TEAM_MAX);
    *t = (struct team){.parts = (size_t)threads};
    for (size_t i = 1; i < t->parts; i++) {
        t->member[i] = (struct member){.team = t, .part = i};
        CHECK(pthread_create(&t->member[i].thread, NULL, member_main, &t->member[i]) == 0);
    }
    return t;
}

void team_free(struct team *t)
{
    if (t == NULL)
        return;
    t->ends = true;
    round_announce(t);
    for (size_t i = 1; i < t->parts; i++)
        pthread_join(t->member[i].thread, NULL);
    free(t);
}

size_t team_parts(const struct team *t)
{
    return t == NULL ? 1 : t->parts;
}

void team_run(struct team *t, void (*job)(void *self, size_t part, size_t parts), void *self)
{
    uint32_t left;

    if (team_parts(t) == 1) {
        job(self, 0, 1);
        return;
    }
    t->job = job;
    t->self = self;
    __atomic_store_n(&t->running, (uint32_t)(t->parts - 1), __ATOMIC_SEQ_CST);
    round_announce(t);
    job(self, 0, t->parts);
    left = __atomic_load_n(&t->running, __ATOMIC_ACQUIRE);
    while (left != 0)
        left = change_await(&t->running, left, &t->caller_sleeps);
}
