/*
 * Coroutines: made with makecontext(), switched with _setjmp/_longjmp, which make no system call.
 * Stacks are kept for the next run. Under a sanitizer each switch is a swapcontext() that the
 * sanitizer is told about.
 *
 * What a killed process had on the heap is gone with the run (sim_heap.h): nothing of it runs any more.
 */
#include "sim_core.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "sim_heap.h"

#define STACK_BYTES ((size_t)512 << 10)
#define FIBERS_MAX 4096

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

struct sim_fiber {
    struct sim_proc *proc;
    struct sim_fiber *next; /* of the process */
    void *(*fn)(void *);
    void *arg;
    ucontext_t context;
    jmp_buf jump;
    void *stack, *fake;
    bool started, done, blocked, woken, detached;
    uint64_t turn; /* a wake-up names the turn that it is for: older ones are void */
    const void *waits_for;
};

struct event {
    uint64_t at_us, order;
    sim_event_fn fn;
    void *self;
    uint64_t a, b;
};

static struct {
    uint64_t random, now_us, order, hash, events;
    struct event *heap;
    size_t heap_n, heap_cap;
    struct sim_fiber *fiber[FIBERS_MAX];
    int fibers;
    struct sim_proc *proc[512];
    int procs;
    struct sim_fiber *current;
    void *spare[FIBERS_MAX];
    int spares;
    ucontext_t main_context;
    jmp_buf main_jump;
    const void *main_stack;
    size_t main_stack_bytes;
} core;

bool sim_tracing;

/* ---- chance ---------------------------------------------------------------------------------- */

void sim_seed(uint64_t seed)
{
    core.random = seed * 0x9e3779b97f4a7c15u + 1;
    core.hash = seed;
    core.now_us = SIM_EPOCH_US;
    core.events = 0;
}

uint64_t sim_draw64(void) /* splitmix64 */
{
    uint64_t z = core.random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t sim_draw(uint32_t below)
{
    return below == 0 ? 0 : (uint32_t)((sim_draw64() >> 32) * below >> 32);
}

bool sim_chance(uint32_t in_thousand)
{
    return in_thousand > 0 && sim_draw(1000) < in_thousand;
}

/* ---- the log --------------------------------------------------------------------------------- */

void sim_mix(uint64_t word)
{
    core.hash = (core.hash ^ word) * 0x9fb21c651e98df25u;
    core.hash ^= core.hash >> 29;
}

uint64_t sim_hash(void)
{
    return core.hash;
}

void sim_trace(const char *fmt, ...)
{
    va_list args;

    if (!sim_tracing)
        return;
    printf("%9.3f ", (double)(core.now_us - SIM_EPOCH_US) / 1e6);
    if (core.current != NULL)
        printf("n%d/%u ", core.current->proc->node, core.current->proc->serial);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

/* ---- events ---------------------------------------------------------------------------------- */

uint64_t sim_now_us(void)
{
    return core.now_us;
}

uint64_t sim_now_ms(void)
{
    return core.now_us / 1000;
}

uint64_t sim_events(void)
{
    return core.events;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void sim_at(uint64_t at_us, sim_event_fn fn, void *self, uint64_t a, uint64_t b)
{
    size_t i = core.heap_n++;
    struct event ev = {at_us > core.now_us ? at_us : core.now_us, core.order++, fn, self, a, b};

    if (core.heap_n > core.heap_cap) {
        bool of_run = sim_heap_of_run(false);
        core.heap_cap = core.heap_cap * 2 + 4096;
        core.heap = mem_grow(core.heap, core.heap_cap, sizeof *core.heap);
        sim_heap_of_run(of_run);
    }
    for (; i > 0 && before(&ev, &core.heap[(i - 1) / 2]); i = (i - 1) / 2)
        core.heap[i] = core.heap[(i - 1) / 2];
    core.heap[i] = ev;
}

bool sim_step(void)
{
    struct event first, last;
    size_t i = 0;

    if (core.heap_n == 0)
        return false;
    first = core.heap[0];
    last = core.heap[--core.heap_n];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= core.heap_n)
            break;
        if (child + 1 < core.heap_n && before(&core.heap[child + 1], &core.heap[child]))
            child++;
        if (before(&last, &core.heap[child]))
            break;
        core.heap[i] = core.heap[child];
        i = child;
    }
    core.heap[i] = last;
    core.now_us = first.at_us;
    core.events++;
    first.fn(first.self, first.a, first.b);
    return true;
}

/* ---- coroutines ------------------------------------------------------------------------------ */

struct sim_proc *sim_self(void)
{
    return core.current != NULL ? core.current->proc : NULL;
}

struct sim_fiber *sim_fiber_self(void)
{
    return core.current;
}

/* Back to the loop of events, until somebody resumes us. */
static void leave(struct sim_fiber *f)
{
#if SANITIZED
    __sanitizer_start_switch_fiber(f->done ? NULL : &f->fake, core.main_stack,
                                   core.main_stack_bytes);
    swapcontext(&f->context, &core.main_context);
    __sanitizer_finish_switch_fiber(f->fake, NULL, NULL);
#else
    if (_setjmp(f->jump) == 0)
        _longjmp(core.main_jump, 1);
#endif
}

static void fiber_main(void)
{
    struct sim_fiber *f = core.current;

#if SANITIZED
    __sanitizer_finish_switch_fiber(NULL, &core.main_stack, &core.main_stack_bytes);
#endif
    f->fn(f->arg);
    f->done = true;
    for (struct sim_fiber *o = f->proc->fiber; o != NULL; o = o->next)
        if (!o->done && o->waits_for == f)
            sim_wake(o);
    leave(f);
}

static void resume(struct sim_fiber *f)
{
    f->turn++;
    f->blocked = false;
    core.current = f;
    sim_heap_of_run(true);
#if SANITIZED
    {
        void *fake = NULL;
        bool first = !f->started;

        f->started = true;
        (void)first;
        __sanitizer_start_switch_fiber(&fake, f->stack, STACK_BYTES);
        swapcontext(&core.main_context, &f->context);
        __sanitizer_finish_switch_fiber(fake, NULL, NULL);
    }
#else
    if (_setjmp(core.main_jump) == 0) {
        if (f->started)
            _longjmp(f->jump, 1);
        f->started = true;
        setcontext(&f->context);
    }
#endif
    core.current = NULL;
    sim_heap_of_run(false);
    if (f->done && f->stack != NULL) {
        core.spare[core.spares++] = f->stack;
        f->stack = NULL;
    }
}

static void on_turn(void *self, uint64_t turn, uint64_t woken)
{
    struct sim_fiber *f = self;

    if (f->done || !f->proc->alive || f->turn != turn)
        return;
    if (f->proc->stopped_until_us > core.now_us) {
        sim_at(f->proc->stopped_until_us + sim_draw(200), on_turn, f, turn, woken);
        return;
    }
    f->woken = woken != 0;
    resume(f);
}

static struct sim_fiber *fiber_new(struct sim_proc *p, void *(*fn)(void *), void *arg)
{
    struct sim_fiber *f = mem_zalloc(1, sizeof *f);

    CHECK(core.fibers < FIBERS_MAX);
    core.fiber[core.fibers++] = f;
    f->proc = p;
    f->fn = fn;
    f->arg = arg;
    f->next = p->fiber;
    p->fiber = f;
    if (core.spares > 0) {
        f->stack = core.spare[--core.spares];
    } else {
        f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(f->stack != MAP_FAILED);
        CHECK(mprotect(f->stack, 4096, PROT_NONE) == 0); /* a guard: it is used from the top */
    }
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
    sim_at(core.now_us + sim_draw(50), on_turn, f, 0, 0);
    return f;
}

bool sim_block(uint64_t until_us)
{
    struct sim_fiber *f = core.current;

    CHECK(f != NULL);
    f->blocked = true;
    if (until_us != UINT64_MAX)
        sim_at(until_us, on_turn, f, f->turn, 0);
    leave(f);
    return f->woken;
}

void sim_wake(struct sim_fiber *f)
{
    if (f != NULL && !f->done && f->blocked && f->proc->alive) {
        f->blocked = false;
        sim_at(core.now_us + 1 + sim_draw(30), on_turn, f, f->turn, 1);
    }
}

void sim_sleep_us(uint64_t us)
{
    uint64_t until = core.now_us + us;

    while (core.now_us < until)
        sim_block(until);
}

/* ---- processes ------------------------------------------------------------------------------- */

struct sim_proc *sim_proc_new(int node, void *(*main_fn)(void *), void *arg)
{
    struct sim_proc *p = mem_zalloc(1, sizeof *p);

    CHECK(core.procs < (int)(sizeof core.proc / sizeof core.proc[0]));
    p->node = node;
    p->serial = (uint32_t)core.procs;
    p->alive = true;
    core.proc[core.procs++] = p;
    fiber_new(p, main_fn, arg);
    return p;
}

void sim_proc_kill(struct sim_proc *p)
{
    p->alive = false;
    for (struct sim_fiber *f = p->fiber; f != NULL; f = f->next) {
        if (f != core.current && f->stack != NULL) {
#if SANITIZED
            ASAN_UNPOISON_MEMORY_REGION((char *)f->stack + 4096, STACK_BYTES - 4096);
#endif
            core.spare[core.spares++] = f->stack;
            f->stack = NULL;
        }
        f->done = f != core.current ? true : f->done;
    }
    if (core.current != NULL && core.current->proc == p) {
        core.current->done = true;
        leave(core.current);
    }
}

void sim_proc_stop(struct sim_proc *p, uint64_t until_us)
{
    p->stopped_until_us = until_us;
}

void sim_core_reset(void)
{
    for (int i = 0; i < core.fibers; i++) {
        if (core.fiber[i]->stack != NULL)
            core.spare[core.spares++] = core.fiber[i]->stack;
        free(core.fiber[i]);
    }
    for (int i = 0; i < core.procs; i++)
        free(core.proc[i]);
    core.fibers = core.procs = 0;
    core.heap_n = 0;
    core.order = 0;
    core.current = NULL;
}

/* ---- the clock, as everybody else sees it ---------------------------------------------------- */

WRAP(uint64_t, clock_ms, void)
{
    return sim_now_ms();
}

WRAP(uint64_t, clock_ns, void)
{
    return core.now_us * 1000;
}

WRAP(uint64_t, clock_wall_ms, void)
{
    return 1700000000000u + sim_now_ms();
}

WRAP(void, clock_sleep_ms, uint64_t ms)
{
    sim_sleep_us(ms * 1000);
}

/* ---- threads --------------------------------------------------------------------------------- */

WRAP(int, pthread_create, pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *),
     void *arg)
{
    (void)attr;
    *out = (pthread_t)fiber_new(core.current->proc, fn, arg);
    return 0;
}

WRAP(int, pthread_join, pthread_t thread, void **result)
{
    struct sim_fiber *other = (struct sim_fiber *)thread;

    (void)result;
    while (!other->done) {
        core.current->waits_for = other;
        sim_block(UINT64_MAX);
        core.current->waits_for = NULL;
    }
    return 0;
}

WRAP(int, pthread_detach, pthread_t thread)
{
    ((struct sim_fiber *)thread)->detached = true;
    return 0;
}

/* Threads of sessions are the only ones that nobody joins. (The count in session.c is one for all
 * processes here.) */
WRAP(bool, session_wait_all, uint64_t deadline_ms)
{
    uint64_t until = core.now_us + deadline_ms * 1000;

    for (;;) {
        const struct sim_fiber *f = core.current->proc->fiber;

        while (f != NULL && (f->done || !f->detached))
            f = f->next;
        if (f == NULL || core.now_us >= until)
            return f == NULL;
        sim_sleep_us(20000);
    }
}

WRAP(int, pthread_setname_np, pthread_t thread, const char *name)
{
    (void)thread;
    (void)name;
    return 0;
}

/* One thread runs at a time and gives the turn back only where it blocks; nobody blocks with a
 * mutex in hand other than in a condition wait. */
WRAP(int, pthread_mutex_lock, pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

WRAP(int, pthread_mutex_unlock, pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

WRAP(int, pthread_cond_wait, pthread_cond_t *c, pthread_mutex_t *m)
{
    (void)m;
    core.current->waits_for = c;
    sim_block(UINT64_MAX);
    core.current->waits_for = NULL;
    return 0;
}

WRAP(int, pthread_cond_timedwait, pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *at)
{
    (void)m;
    (void)at;
    core.current->waits_for = c;
    sim_block(core.now_us + 100000);
    core.current->waits_for = NULL;
    return 0;
}

static void cond_wake(const void *c, bool all)
{
    if (core.current == NULL)
        return;
    for (struct sim_fiber *f = core.current->proc->fiber; f != NULL; f = f->next) {
        if (f->done || f->waits_for != c || !f->blocked)
            continue;
        sim_wake(f);
        if (!all)
            return;
    }
}

WRAP(int, pthread_cond_signal, pthread_cond_t *c)
{
    cond_wake(c, false);
    return 0;
}

WRAP(int, pthread_cond_broadcast, pthread_cond_t *c)
{
    cond_wake(c, true);
    return 0;
}

WRAP(int, getpriority, int which, unsigned who)
{
    (void)which;
    (void)who;
    return 0;
}

WRAP(int, setpriority, int which, unsigned who, int nice)
{
    (void)which;
    (void)who;
    (void)nice;
    return 0;
}
