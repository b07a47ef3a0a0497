#include "sim_world.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_id.h"
#include "sim_check.h"
#include "sim_core.h"
#include "sim_disk.h"
#include "sim_heap.h"
#include "sim_http.h"
#include "sim_jobs.h"
#include "sim_memory.h"
#include "sim_net.h"
#include "sim_work.h"
#include "sim_world_inner.h"
#include "worker/daemon.h"

#define CONTROL "tcp://coordinator:7781"
#define SECOND ((uint64_t)1000000)
#define HEALED_S_MAX 400 /* after the chaos every job ends within so many seconds */

struct sim_world sim_world;
#define world sim_world

static char *expected[SIM_JOBS][2]; /* by kind and class */

/* ---- processes ------------------------------------------------------------------------------- */

static void counters_take(void)
{
    struct coordinator *c = world.coordinator;
    int i = 0;

    if (c == NULL)
        return;
#define X(name, help) world.out->counters[i++] += c->sched.counters.name;
    SCHED_COUNTERS(X)
#undef X
    world.coordinator = NULL;
}

static void on_start(void *self, uint64_t node, uint64_t b);

static void coordinator_gone(void)
{
    counters_take();
    sim_check_coordinator_gone();
    sim_http_reset();
    world.node[0].proc = NULL;
    world.out->restarts++;
    sim_at(sim_now_us() + sim_draw(world.chaos ? 5000000 : 1000000), on_start, NULL, 0, 0);
}

static void *coordinator_main(void *arg)
{
    struct coord_config config = world.config;
    struct coordinator *c = NULL;
    struct err e = {0};
    struct sim_proc *me = sim_self();

    (void)arg;
    if (coordinator_open(&config, &c, &e) == 0) {
        world.coordinator = c;
        sim_trace("coordinator is up");
        coordinator_run(c, &world.stop);
    } else if (e.code != ERR_NO_SPACE && e.code != ERR_IO) {
        sim_violation("the coordinator does not start: %s", e.msg);
    }
    coordinator_gone(); /* its storage failed, or it could not open it: somebody starts it again */
    sim_proc_kill(me);
    return NULL;
}

static void *worker_main(void *arg)
{
    struct sim_node *n = arg;
    struct sim_proc *me = sim_self();
    struct err e = {0};
    int rc = daemon_run(&n->config, &e);

    sim_trace("worker ends: %d", rc);
    if (rc == ERR_DENIED && sim_check_quarantined() && n == &world.node[world.liar])
        n->banned = true;
    else if (rc != 0)
        sim_violation("a worker was refused: %s", e.msg);
    n->proc = NULL;
    n->left = true;
    sim_proc_kill(me);
    return NULL;
}

__attribute__((noreturn)) void __real__exit(int code);
__attribute__((noreturn)) void __wrap__exit(int code);
WRAP(void, _exit, int code)
{
    struct sim_proc *p = sim_self();

    if (p == NULL || p->node == 0)
        __real__exit(code);
    sim_trace("worker exits at once: %d", code);
    world.node[p->node].proc = NULL;
    world.node[p->node].left = true;
    sim_proc_kill(p);
    abort();
}

static void on_start(void *self, uint64_t node, uint64_t b)
{
    struct sim_node *n = &world.node[node];

    (void)self;
    (void)b;
    if (n->proc != NULL || n->banned || (node > 0 && n->left && world.chaos))
        return;
    n->signal = n->left = false;
    n->proc = sim_proc_new((int)node, node == 0 ? coordinator_main : worker_main, n);
    n->proc->self = n;
    sim_trace("start node %d as %u", (int)node, n->proc->serial);
}

void sim_world_start(int node)
{
    on_start(NULL, (uint64_t)node, 0);
}

void sim_world_kill(int node, uint64_t away_us)
{
    struct sim_node *n = &world.node[node];
    struct sim_proc *p = n->proc;

    if (p == NULL)
        return;
    sim_trace("kill node %d", node);
    n->proc = NULL;
    sim_at(sim_now_us() + away_us, on_start, NULL, (uint64_t)node, 0);
    sim_proc_kill(p);
}

void sim_world_coordinator_crash(void)
{
    struct sim_proc *p = world.node[0].proc;

    if (p == NULL)
        return;
    sim_trace("kill the coordinator");
    coordinator_gone();
    sim_proc_kill(p);
}

bool sim_world_coordinator_is_up(void)
{
    return world.coordinator != NULL && world.node[0].proc != NULL &&
           world.node[0].proc->stopped_until_us <= sim_now_us();
}

int sim_world_class(void)
{
    return sim_self() != NULL && world.node[sim_self()->node].foreign;
}

bool sim_world_lies(void)
{
    return world.liar != 0 && sim_self()->node == world.liar && sim_chance(world.lie_rate);
}

bool sim_world_lies_nan(void)
{
    return world.liar_nan;
}

bool sim_world_is_liar(const char *worker)
{
    const struct roster_worker *w =
        world.coordinator != NULL ? roster_find(&world.coordinator->roster, worker) : NULL;

    return world.liar != 0 && w != NULL && atoi(w->name + 1) == world.liar; /* "w3" */
}

uint32_t sim_world_slowness(void)
{
    return sim_self() != NULL ? world.node[sim_self()->node].slowness : 100;
}

/* ---- signals, logs --------------------------------------------------------------------------- */

static bool signal_ready(void *self)
{
    return ((struct sim_node *)self)->signal;
}

WRAP(int, signalfd, int fd, const sigset_t *set, int flags)
{
    struct sim_node *n = &world.node[sim_self()->node];

    (void)fd;
    (void)set;
    (void)flags;
    return n->signal_fd = sim_fd_new(signal_ready, n);
}

WRAP(int, pthread_sigmask, int how, const sigset_t *set, sigset_t *old)
{
    (void)how;
    (void)set;
    (void)old;
    return 0;
}

WRAP(ssize_t, read, int fd, void *out, size_t len)
{
    struct sim_node *n = sim_self() != NULL ? &world.node[sim_self()->node] : NULL;

    CHECK(n != NULL && fd == n->signal_fd && len == sizeof(struct signalfd_siginfo));
    if (!n->signal) {
        errno = EAGAIN;
        return -1;
    }
    n->signal = false;
    memset(out, 0, len);
    ((struct signalfd_siginfo *)out)->ssi_signo = SIGTERM;
    return (ssize_t)len;
}

WRAP(void, log_event, enum log_level level, const char *event, const char *fmt, ...)
{
    char text[600];
    va_list args;

    (void)level;
    if (!sim_tracing)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sim_trace("log %s %s", event, text);
}

/* ---- failpoints: the places that the daemons name themselves --------------------------------- */

static bool strikes(void)
{
    return world.chaos && world.on.failpoint && sim_draw(1000000) < world.failpoint_rate;
}

static void place_dies(enum fault f)
{
    int node = sim_self()->node;

    sim_trace("failpoint %s", fault_name(f));
    world.out->faults.failpoint++;
    if (node == 0)
        sim_world_coordinator_crash();
    else
        sim_world_kill(node, sim_draw(4000000));
}

WRAP(bool, fault_strike, enum fault f)
{
    if (sim_self() == NULL || f == FAULT_WORKER_GRAD_CORRUPT || f == FAULT_WORKER_ROWS_CORRUPT ||
        f == FAULT_WORKER_COMPUTE_HANG || f == FAULT_WORKER_COMPUTE_SKIP ||
        f == FAULT_WORKER_COMPUTE_SLOW || f == FAULT_PS_PUSH_DAMAGE)
        return false;
    if (strikes())
        place_dies(f);
    return false;
}

WRAP(int, fault_strike_error, enum fault f, struct err *e)
{
    (void)e;
    __wrap_fault_strike(f);
    return 0;
}

static void on_heal(void *self, uint64_t a, uint64_t b)
{
    (void)self;
    (void)a;
    (void)b;
    sim_trace("everything heals");
    world.chaos = false;
    world.healed_us = sim_now_us();
    world.out->faults.commit_crash = sim_disk_counts.crash_before + sim_disk_counts.crash_after;
    world.out->faults.commit_error = sim_disk_counts.io_errors;
    sim_net_heal();
    sim_disk_faults.full = false;
    sim_disk_faults.crash_before = sim_disk_faults.crash_after = sim_disk_faults.io_error = 0;
    sim_work_faults.hang = sim_work_faults.task_fails = 0;
    world.lie_rate = 0;
    sim_http_heal();
    for (int i = 0; i <= world.workers; i++) {
        struct sim_node *n = &world.node[i];

        n->slowness = 100;
        if (n->proc != NULL && n->proc->stopped_until_us > sim_now_us())
            sim_proc_stop(n->proc, sim_now_us());
        sim_at(sim_now_us() + sim_draw(1000000), on_start, NULL, (uint64_t)i, 0);
    }
}

/* A worker that had its drain after the chaos comes back too, or nobody might be left. */
static void on_watch(void *self, uint64_t a, uint64_t b)
{
    (void)self;
    (void)a;
    (void)b;
    if (world.healed_us != 0) {
        for (int i = 1; i <= world.workers; i++)
            if (world.node[i].proc == NULL)
                on_start(NULL, (uint64_t)i, 0);
        if (sim_http_all_over(world.coordinator))
            world.over = true;
        else if (sim_now_us() - world.healed_us > HEALED_S_MAX * SECOND)
            sim_violation("not over %d s after the chaos: %s", HEALED_S_MAX,
                          sim_http_why(world.coordinator));
    }
    sim_at(sim_now_us() + 250000, on_watch, NULL, 0, 0);
}

/* ---- a run ----------------------------------------------------------------------------------- */

/* What an installation without any settings has. */
static void coordinator_set(void)
{
    char *argv[] = {(char *)(uintptr_t) "steer-coordinator", NULL};
    struct err e = {0};

    CHECK(coord_config_parse(1, argv, &world.config, &e) == 0);
    world.config.crash_limit = 0; /* so many die here that no task is to blame */
    snprintf(world.config.dir, sizeof world.config.dir, "/c");
    snprintf(world.config.control, sizeof world.config.control, "%s", CONTROL);
}

static void worker_set(struct worker_config *config, int i)
{
    char *argv[] = {(char *)(uintptr_t) "steer-worker", NULL};
    struct err e = {0};

    CHECK(worker_config_parse(1, argv, config, &e) == 0);
    snprintf(config->dir, sizeof config->dir, "/w%d", i);
    snprintf(config->name, sizeof config->name, "w%d", i);
    snprintf(config->listen, sizeof config->listen, "tcp://w%d:0", i);
    snprintf(config->coordinator, sizeof config->coordinator, "%s", CONTROL);
}

static void world_reset(struct sim_results *out, uint64_t seed)
{
    sim_core_reset();
    sim_net_reset();
    sim_memory_reset();
    sim_disk_reset();
    sim_work_reset();
    sim_check_reset();
    sim_http_reset_all();
    sim_heap_end_run();
    memset(&world, 0, sizeof world);
    memset(out, 0, sizeof *out);
    world.out = out;
    out->seed = seed;
    sim_seed(seed);
    sim_jobs_files();
    coordinator_set();
}

static void nodes_set(int workers, int hosts, uint32_t threads_max)
{
    world.workers = workers;
    for (int i = 0; i <= workers; i++) {
        struct sim_node *n = &world.node[i];

        n->slowness = 100;
        worker_set(&n->config, i);
        n->config.threads = 1 + sim_draw(threads_max);
        n->config.roles = i <= hosts ? ROLE_COMPUTE | ROLE_PARAMS : ROLE_COMPUTE;
        if (i > 0 && i <= hosts && i < workers && sim_chance(100))
            n->config.roles = ROLE_PARAMS;
        sim_at(sim_now_us() + (i == 0 || sim_chance(700) ? sim_draw(100000) : sim_draw(9000000)),
               on_start, NULL, (uint64_t)i, 0);
    }
}

/* One machine computes wrongly. Enough others are there that somebody can be asked, and all is audited. */
static void liar_set(void)
{
    world.liar = 1 + (int)sim_draw((uint32_t)world.workers);
    world.lie_rate = sim_chance(300) ? 1000 : 20 + sim_draw(300);
    world.liar_nan = sim_chance(300);
    world.node[world.liar].config.roles |= ROLE_COMPUTE;
}

/* Machines of another class, of which each can do everything. The first one is of the usual class. */
static void foreign_set(void)
{
    for (int i = 2; i <= world.workers; i++)
        if (sim_chance(400)) {
            world.node[i].foreign = true;
            world.node[i].config.roles = ROLE_COMPUTE | ROLE_PARAMS;
            world.out->faults.foreign++;
        }
}

/* Pipelines take what another job has made, of whatever class: their outputs may be a mixture. */
static int job_draw(void)
{
    int kind = (int)(sim_chance(500) ? sim_draw(5) : sim_draw(SIM_JOBS));

    if (world.liar != 0)
        return sim_chance(700) ? SIM_JOB_LIES_TRAIN : SIM_JOB_LIES_ROWS;
    return world.on.foreign && (kind == 6 || kind == 7) ? kind - 6 : kind;
}

static void loop(void)
{
    sim_at(sim_now_us() + 250000, on_watch, NULL, 0, 0);
    while (!world.over && sim_violated() == NULL && sim_step())
        ;
    if (sim_violated() == NULL)
        sim_http_outcomes(world.coordinator, expected);
}

static void results(void)
{
    struct sim_results *out = world.out;

    out->adopted = 0;
    counters_take();
    out->hash = sim_hash();
    out->events = sim_events();
    out->virtual_ms = (sim_now_us() - SIM_EPOCH_US) / 1000;
    out->grants = sim_check_counts.grants;
    out->versions = sim_check_counts.versions;
    out->messages = sim_net_counts.sent;
    out->faults.drop = sim_net_counts.dropped;
    out->faults.twice = sim_net_counts.doubled;
    out->faults.late = sim_net_counts.late;
    out->faults.reorder = sim_net_counts.reordered;
    out->faults.flip = sim_net_counts.flipped;
    out->faults.lie = sim_work_counts.lies;
    out->waived = sim_check_excused();
    out->faults.hang = sim_work_counts.hangs;
    out->faults.task_fails = sim_work_counts.task_failures;
    if (sim_violated() != NULL)
        snprintf(out->violation, sizeof out->violation, "%s", sim_violated());
}

static enum sim_http_whim whim(void)
{
    return world.on.cancel && sim_chance(300)  ? SIM_HTTP_CANCELS
           : world.on.retry && sim_chance(300) ? SIM_HTTP_RETRIES
           : world.on.pause && sim_chance(300) ? SIM_HTTP_PAUSES
                                               : SIM_HTTP_WAITS;
}

void sim_world_run(uint64_t seed, struct sim_results *out)
{
    int workers, jobs;
    bool burst; /* all submits at once: several in one turn of the coordinator */

    world_reset(out, seed);
    workers = sim_chance(600) ? 3 + (int)sim_draw(WORKERS_MAX - 2) : 1 + (int)sim_draw(WORKERS_MAX);
    sim_chaos_draw();
    world.on.lie = sim_chance(150);
    world.on.foreign = !world.on.lie && sim_chance(150);
    workers = world.on.lie && workers < 4 ? 4 : workers;
    nodes_set(workers, world.on.lie || sim_chance(600) ? workers : 1 + (int)sim_draw(4), 3);
    sim_chaos_slow();
    if (world.on.lie)
        liar_set();
    if (world.on.foreign)
        foreign_set();
    world.chaos = true;
    world.config.lease_ms = 3000 + sim_draw(8000);
    world.config.replicate = sim_chance(850);
    world.pace_us = 100000 + sim_draw(2000000);
    sim_work_faults.unit_us = sim_chance(200) ? 2000 : 10000 + sim_draw(200000);
    world.chaos_until_us = sim_now_us() + 3 * SECOND + sim_draw(20000000);
    fault_armed = world.on.failpoint;
    jobs = 1 + (int)sim_draw(sim_chance(300) ? 5 : 2);
    burst = sim_chance(250);
    for (int i = 0; i < jobs; i++)
        sim_http_client(job_draw(), sim_now_us() + (burst ? 1500000 : sim_draw(4000000)), whim(),
                        world.on.client_loss ? 200 : 0);
    sim_chaos_begin();
    sim_at(world.chaos_until_us, on_heal, NULL, 0, 0);
    loop();
    out->jobs = (uint64_t)jobs;
    sim_http_counts(out);
    results();
    fault_armed = false;
}

static void reference(int kind, int class)
{
    struct sim_results out;

    world_reset(&out, 1000000000u + (uint64_t)kind);
    nodes_set(1, 1, 1);
    world.node[1].foreign = class != 0;
    sim_work_faults.unit_us = 1000;
    sim_http_client(kind, sim_now_us() + 1000, SIM_HTTP_WAITS, 0);
    world.healed_us = sim_now_us();
    sim_at(sim_now_us() + 250000, on_watch, NULL, 0, 0);
    while (!world.over && sim_violated() == NULL && sim_step())
        ;
    if (sim_violated() == NULL)
        expected[kind][class] = sim_http_outputs(world.coordinator, 0);
    if (sim_violated() != NULL || expected[kind][class] == NULL) {
        fprintf(stderr, "steer-sim: the undisturbed job %d fails: %s\n", kind,
                sim_violated() != NULL ? sim_violated() : "no outputs");
        exit(2);
    }
    results();
}

void sim_world_references(void)
{
    for (int kind = 0; kind < SIM_JOBS; kind++)
        for (int class = 0; class < 2; class ++)
            reference(kind, class);
}
