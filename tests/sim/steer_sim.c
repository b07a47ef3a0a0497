/*
 * steer-sim: runs seeds.
 *
 *   steer_sim --seed N [--trace]      one, twice; prints its event hash
 *   steer_sim --seeds A..B [--twice] [--all-struck] [--stop] [--results FILE] [--jobs N]
 *
 * Exit 1: a violation; two runs of one seed that differ; with --all-struck: a fault that never
 * struck, or a counter of the scheduler that never moved. --stop: at the first violation. Without --results: STEER_RESULTS.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "coordinator/sched.h"
#include "sim_core.h"
#include "sim_heap.h"
#include "sim_world.h"

#define BATCH 250 /* seeds of one child */
#define JOBS_MAX 16

static const char *const fault_names[] = {
#define X(name) #name,
    SIM_FAULTS(X)
#undef X
};
static const char *const counter_names[] = {
#define X(name, help) #name,
    SCHED_COUNTERS(X)
#undef X
};
#define WAIVED_SHARE 20 /* at most one run in so many may go without the comparison of bits */
#define FAULTS_N (sizeof fault_names / sizeof fault_names[0])
#define COUNTERS_N (sizeof counter_names / sizeof counter_names[0])

struct totals {
    uint64_t seeds, violations, hash, events, virtual_ms, jobs, grants, versions, restarts,
        messages, waived, faults[FAULTS_N], counters[COUNTERS_N], struck[FAULTS_N];
};

struct options {
    uint64_t from, to;
    bool twice, trace, one, all_struck, stop;
    int jobs;
    const char *results;
};

static void add(struct totals *t, const struct sim_results *r)
{
    const uint64_t *faults = (const uint64_t *)(const void *)&r->faults;

    t->seeds++;
    t->violations += r->violation[0] != '\0';
    t->hash ^= r->hash * (2 * r->seed + 1);
    t->events += r->events;
    t->virtual_ms += r->virtual_ms;
    t->jobs += r->jobs;
    t->grants += r->grants;
    t->versions += r->versions;
    t->restarts += r->restarts;
    t->messages += r->messages;
    t->waived += r->waived;
    for (size_t i = 0; i < FAULTS_N; i++) {
        t->faults[i] += faults[i];
        t->struck[i] += faults[i] > 0;
    }
    for (size_t i = 0; i < COUNTERS_N; i++)
        t->counters[i] += r->counters[i];
}

static void merge(struct totals *t, const struct totals *o)
{
    uint64_t *a = (uint64_t *)(void *)t;
    const uint64_t *b = (const uint64_t *)(const void *)o;
    uint64_t hash = t->hash ^ o->hash;

    for (size_t i = 0; i < sizeof *t / sizeof *a; i++)
        a[i] += b[i];
    t->hash = hash;
}

/* Says which seed it was before it dies. */
static uint64_t running;

static void on_crash(int number)
{
    char text[80];
    int n = snprintf(text, sizeof text, "seed %" PRIu64 ": signal %d\n", running, number);

    if (write(STDOUT_FILENO, text, (size_t)n) != n)
        _exit(4);
    _exit(1);
}

static void crashes_say(void)
{
    static char stack[64 << 10];
    const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};

    sigaltstack(&alternative, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
}

static void seed_run(const struct options *o, uint64_t seed, struct totals *t)
{
    struct sim_results r, again;

    running = seed;
    sim_world_run(seed, &r);
    if (o->twice) {
        sim_tracing = false;
        sim_heap_upside_down(true);
        sim_world_run(seed, &again);
        sim_heap_upside_down(false);
        if (r.violation[0] == '\0' && r.hash != again.hash)
            snprintf(r.violation, sizeof r.violation,
                     "two runs of the seed differ: %016" PRIx64 " and %016" PRIx64, r.hash,
                     again.hash);
    }
    if (r.violation[0] != '\0')
        printf("seed %" PRIu64 ": %s\n", seed, r.violation);
    if (o->one)
        printf("seed %" PRIu64 ": hash %016" PRIx64 ", %" PRIu64
               " events in %.1f virtual seconds\n",
               seed, r.hash, r.events, (double)r.virtual_ms / 1e3);
    fflush(stdout);
    add(t, &r);
}

/* A batch in a child; its totals come back through a pipe. */
static pid_t batch_start(const struct options *o, uint64_t from, uint64_t to, int *out)
{
    int ends[2];
    pid_t pid;

    CHECK(pipe(ends) == 0);
    fflush(stdout);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct totals t = {0};
        for (uint64_t seed = from; seed < to; seed++)
            seed_run(o, seed, &t);
        if (write(ends[1], &t, sizeof t) != sizeof t)
            _exit(3);
        fflush(stdout);
        _exit(0);
    }
    close(ends[1]);
    *out = ends[0];
    return pid;
}

static void batch_end(int pipe_end, pid_t pid, uint64_t from, uint64_t to, struct totals *t)
{
    struct totals part = {0};
    FILE *in = fdopen(pipe_end, "r");
    int status = 0;
    bool whole = fread(&part, sizeof part, 1, in) == 1;

    fclose(in);
    waitpid(pid, &status, 0);
    if (!whole) {
        printf("seeds %" PRIu64 "..%" PRIu64 ": the simulator died (status %d)\n", from, to - 1,
               status);
        part = (struct totals){.violations = 1};
    }
    merge(t, &part);
}

static void campaign(const struct options *o, struct totals *t)
{
    struct {
        pid_t pid;
        int end;
        uint64_t from, to;
    } child[JOBS_MAX];
    uint64_t next = o->from;
    int n = 0;

    while (n > 0 || (next <= o->to && !(o->stop && t->violations > 0))) {
        while (n < o->jobs && next <= o->to && !(o->stop && t->violations > 0)) {
            uint64_t to = next + BATCH <= o->to ? next + BATCH : o->to + 1;
            child[n].from = next;
            child[n].to = to;
            child[n].pid = batch_start(o, next, to, &child[n].end);
            n++;
            next = to;
        }
        batch_end(child[0].end, child[0].pid, child[0].from, child[0].to, t);
        memmove(child, child + 1, (size_t)--n * sizeof child[0]);
    }
}

static void say(const struct options *o, const struct totals *t, double seconds)
{
    printf("figure: simulator: %" PRIu64 " seeds (%" PRIu64 "..%" PRIu64 "), %" PRIu64
           " violations, %.1f s, %.0f seeds/s; %" PRIu64 " jobs, %" PRIu64 " leases, %" PRIu64
           " coordinator restarts, %" PRIu64 " shard versions compared, %" PRIu64 " messages, %.0f "
           "virtual hours, %" PRIu64
           " lies counted where nobody was there to be asked; hash %016" PRIx64 "\n",
           t->seeds, o->from, o->to, t->violations, seconds, (double)t->seeds / seconds, t->jobs,
           t->grants, t->restarts, t->versions, t->messages, (double)t->virtual_ms / 3.6e6,
           t->waived, t->hash);
    printf("figure: simulator: faults that struck:");
    for (size_t i = 0; i < FAULTS_N; i++)
        printf(" %s %" PRIu64 " (%" PRIu64 " runs)", fault_names[i], t->faults[i], t->struck[i]);
    printf("\nfigure: simulator: counters:");
    for (size_t i = 0; i < COUNTERS_N; i++)
        printf(" %s %" PRIu64, counter_names[i], t->counters[i]);
    printf("\n");
}

static void results_append(const struct options *o, const struct totals *t, double seconds)
{
    FILE *out = o->results != NULL ? fopen(o->results, "a") : NULL;

    if (out == NULL)
        return;
    fprintf(out,
            "suite=sim commit=%s seeds=%" PRIu64 "..%" PRIu64 " violations=%" PRIu64
            " hash=%016" PRIx64 " seconds=%.1f jobs=%" PRIu64 " leases=%" PRIu64
            " restarts=%" PRIu64 " versions=%" PRIu64 " faults=",
            STEER_VERSION, o->from, o->to, t->violations, t->hash, seconds, t->jobs, t->grants,
            t->restarts, t->versions);
    for (size_t i = 0; i < FAULTS_N; i++)
        fprintf(out, "%s%s:%" PRIu64, i > 0 ? "," : "", fault_names[i], t->faults[i]);
    fprintf(out, " counters=");
    for (size_t i = 0; i < COUNTERS_N; i++)
        fprintf(out, "%s%s:%" PRIu64, i > 0 ? "," : "", counter_names[i], t->counters[i]);
    fprintf(out, "\n");
    fclose(out);
}

/* A campaign in which some fault never struck, or some counter never moved, shows nothing about it; one in which nothing was
 * compared, nothing at all. */
static bool is_complete(const struct totals *t)
{
    bool complete = t->versions > 0 && t->grants > 0 && t->restarts > 0;

    if (!complete)
        printf("no shard version was compared, no lease given, or no coordinator restarted\n");
    if (t->waived * WAIVED_SHARE > t->seeds) {
        printf("in %" PRIu64 " of %" PRIu64 " runs a lie counted, so that bits were not compared\n",
               t->waived, t->seeds);
        complete = false;
    }
    for (size_t i = 0; i < FAULTS_N; i++) {
        if (t->faults[i] == 0) {
            printf("the fault %s never struck\n", fault_names[i]);
            complete = false;
        }
    }
    for (size_t i = 0; i < COUNTERS_N; i++) {
        if (t->counters[i] == 0) {
            printf("the counter %s never moved\n", counter_names[i]);
            complete = false;
        }
    }
    return complete;
}

static bool options_read(int argc, char **argv, struct options *o)
{
    *o = (struct options){.jobs = 2, .results = getenv("STEER_RESULTS")};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--trace") == 0)
            o->trace = true;
        else if (strcmp(argv[i], "--all-struck") == 0)
            o->all_struck = true;
        else if (strcmp(argv[i], "--stop") == 0)
            o->stop = true;
        else if (strcmp(argv[i], "--twice") == 0)
            o->twice = true;
        else if (strcmp(argv[i], "--seed") == 0 && sscanf(value, "%" SCNu64, &o->from) == 1 && ++i)
            o->to = o->from, o->one = o->twice = true;
        else if (strcmp(argv[i], "--seeds") == 0 &&
                 sscanf(value, "%" SCNu64 "..%" SCNu64, &o->from, &o->to) == 2 && ++i)
            o->one = false;
        else if (strcmp(argv[i], "--jobs") == 0 && sscanf(value, "%d", &o->jobs) == 1 && ++i)
            o->jobs = o->jobs < 1 ? 1 : o->jobs > JOBS_MAX ? JOBS_MAX : o->jobs;
        else if (strcmp(argv[i], "--results") == 0 && *value != '\0' && ++i)
            o->results = value;
        else
            return false;
    }
    return o->to >= o->from && argc > 1;
}

int main(int argc, char **argv)
{
    struct options o;
    struct totals t = {0};
    struct timespec begun, ended;
    double seconds;

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts(STEER_VERSION);
        return 0;
    }
    if (!options_read(argc, argv, &o)) {
        fprintf(stderr, "usage: steer_sim --seed N [--trace] | --seeds A..B [--twice] "
                        "[--all-struck] [--jobs N] [--results FILE]\n");
        return 2;
    }
    crashes_say();
    clock_gettime(CLOCK_MONOTONIC, &begun);
    sim_world_references();
    if (o.one) {
        sim_tracing = o.trace;
        seed_run(&o, o.from, &t);
    } else {
        campaign(&o, &t);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        seconds =
            (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
        say(&o, &t, seconds);
        results_append(&o, &t, seconds);
    }
    return t.violations > 0 || (o.all_struck && !is_complete(&t));
}
