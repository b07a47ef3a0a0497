/*
 * The parameter server by itself: push, fold, AdamW and pull of a vector, one host and one worker:
 * in two processes of this machine that share memory, in two that send bytes over TCP (fp32, and
 * bf16), and in one process. Beside it, a copy of as many bytes by one thread. Then the step time of
 * 1 to 32 workers over TCP that sleep instead of computing, with a small vector.
 * usage: bench_ps [--runs N] [--only pairs|growth] [--json FILE] [MIB ...]      (16 and 64)
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "net/link.h"
#include "ps/half.h"
#include "tests/bench/bench.h"
#include "worker/ps_client.h"
#include "worker/ps_host.h"

#define SESSION 5
#define WORKERS_MAX 32

#define SLEEP_MS 50 /* what a stub worker computes */

static int runs = 15;

/* ---- the host -------------------------------------------------------------------------------- */

static struct tensor tensor = {.name = "w", .cols = 1, .decay = true};
static struct layout layout = {.tensors = 1, .tensor = &tensor};

static int publish(void *self, const void *bytes, size_t len, struct digest *out, struct err *e)
{
    (void)self;
    (void)bytes;
    (void)len;
    (void)e;
    memset(out->hex, '0', DIGEST_HEX);
    out->hex[DIGEST_HEX] = '\0';
    return 0;
}

static void report(void *self, const struct ps_report *r)
{
    (void)self;
    if (r->type == PS_FAILED) {
        fprintf(stderr, "host: %s\n", r->text);
        _exit(1);
    }
}

static void released(void *self, struct ps_session *s)
{
    (void)self;
    free(s);
}

static struct region *region_of(size_t floats)
{
    struct region *r;
    struct err e;

    CHECK(region_new(floats * sizeof(float), true, &r, &e) == 0);
    return r;
}

static uint32_t chunk_elems_of(size_t floats)
{
    return floats < (1u << 20) ? 16384 : 262144;
}

enum way { SHARED, BYTES, HALF };

static struct ps_host *host_start(size_t floats, uint32_t units, enum way way, const char *inproc,
                                  char *endpoint)
{
    struct ps_host_env env = {NULL, publish, report, 1};
    struct ps_session *s = mem_zalloc(1, sizeof *s);
    uint32_t chunk = chunk_elems_of(floats);
    struct ps_host *h;
    struct err e;

    layout.count = floats;
    tensor.rows = (int32_t)floats;
    if (ps_host_start("tcp://127.0.0.1:0", inproc, &env, endpoint, WIRE_TEXT_MAX, &h, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    *s = (struct ps_session){
        .job = 1, .session = SESSION, .attempt = 1, .units = units, .released = released};
    s->plan = (struct host_plan){.layout = &layout,
                                 .units = units,
                                 .chunk_elems = chunk,
                                 .chunks = (uint32_t)((floats + chunk - 1) / chunk),
                                 .steps = 1u << 30,
                                 .lr = 1e-3,
                                 .clip = 1,
                                 .adamw = {0.9f, 0.95f, 1e-8f, 0.1f},
                                 .schedule = {SCHEDULE_CONSTANT, 0, 1}};
    s->plan.chunk_end = s->plan.chunks;
    s->plan.spread = ps_host_spread(h);
    s->plan.half = way == HALF;
    s->region = region_of(floats);
    s->plan.place = region_data(s->region);
    s->plan.begins = ps_session_begins;
    s->plan.begins_self = s;
    s->host = host_new(&s->plan, NULL, 0, NULL);
    ps_host_open(h, s);
    return h;
}

/* ---- the worker ------------------------------------------------------------------------------ */

static int keep_waiting(void *self, bool soft, struct err *e)
{
    (void)self;
    (void)soft;
    (void)e;
    return 0;
}

struct stub {
    const char *endpoint;
    enum way way;
    size_t floats;
    uint32_t units;
    struct tree_span span;
    int steps;
    bool sleeps;
    double *seconds; /* [steps] of each step; NULL: not wanted */
    pthread_t thread;
};

static void *stub_main(void *self)
{
    const struct stub *s = self;
    const struct ps_client_check check = {NULL, keep_waiting};
    struct ps_client_plan plan = {.session = SESSION,
                                  .attempt = 1,
                                  .params = s->floats,
                                  .chunk_elems = chunk_elems_of(s->floats),
                                  .hosts_n = 1};
    uint32_t chunks = (uint32_t)((s->floats + plan.chunk_elems - 1) / plan.chunk_elems);
    struct tree_node node[TREE_COVER_MAX];
    size_t n = tree_cover(s->units, s->span, node, TREE_COVER_MAX);
    struct region *view = region_of(s->floats), *lent = region_of(s->floats);
    float *params = region_data(view), *grad = region_data(lent);
    atomic_bool near[WIRE_HOSTS_MAX] = {false};
    struct ps_client *client;
    uint64_t version;
    struct err e;

    snprintf(plan.host[0].endpoint, sizeof plan.host[0].endpoint, "%s", s->endpoint);
    plan.host[0].chunk_end = chunks;
    plan.half = s->way == HALF;
    if (s->way == SHARED) {
        plan.view = view;
        plan.near = near;
    }
    for (size_t i = 0; i < s->floats; i++)
        grad[i] = (float)(i % 101) * 1e-3f - 0.05f;
    if (s->way == HALF)
        half_round(grad, s->floats);
    CHECK(ps_client_new(&plan, &client, &e) == 0);
    CHECK(ps_client_pull(client, 0, params, &version, &check, &e) == 0);
    for (int i = 0; i < s->steps; i++) {
        uint64_t start;
        if (s->sleeps)
            clock_sleep_ms(SLEEP_MS);
        start = clock_ns();
        if (s->way == SHARED) /* what was added up there is no gradient any more */
            for (size_t k = 0; k < s->floats; k++)
                grad[k] = (float)(k % 101) * 1e-3f - 0.05f;
        start = s->sleeps ? start - SLEEP_MS * 1000000u : clock_ns();
        for (size_t k = 0; k < n; k++) {
            const struct fold_sums sums = {1, 1, 1};
            for (uint32_t at = chunks; at > 0;) { /* from the end down, as a backward does */
                uint32_t begin = at > 4 ? at - 4 : 0;
                CHECK(ps_client_push(client, version, node[k], begin, at, grad, lent,
                                     begin == 0 ? &sums : NULL, &check, &e) == 0);
                at = begin;
            }
        }
        CHECK(ps_client_pull(client, version + 1, params, &version, &check, &e) == 0);
        if (s->seconds != NULL)
            s->seconds[i] = (double)(clock_ns() - start) * 1e-9;
    }
    ps_client_free(client);
    region_release(view);
    region_release(lent);
    return NULL;
}

/* ---- figures --------------------------------------------------------------------------------- */

static double copy_seconds(size_t bytes)
{
    char *from = mem_zalloc(bytes, 1), *to = mem_zalloc(bytes, 1);
    double took[9];

    memset(from, 1, bytes);
    memset(to, 1, bytes);
    for (int i = 0; i < 9; i++) {
        uint64_t start = clock_ns();
        memcpy(to, from, bytes);
        __asm__ volatile("" ::"r"(to) : "memory");
        took[i] = (double)(clock_ns() - start) * 1e-9;
    }
    free(from);
    free(to);
    return bench_spread_of(took, 9).median;
}

static void say(const char *name, double *seconds, int n, size_t floats)
{
    struct bench_spread spread;

    for (int i = 0; i < n; i++)
        seconds[i] *= 1e3;
    spread = bench_spread_of(seconds, n);
    bench_say(name, &spread, "ms", 1e3 * copy_seconds(floats * sizeof(float)) / spread.median,
              "of one memcpy of as much");
}

/* One worker here, its host in a process of its own (or here). */
static void pair(int mib, enum way way, bool one_process)
{
    static const char *const names[] = {"shared memory", "bytes over TCP", "bf16 over TCP"};
    size_t floats = (size_t)mib << 18;
    double *seconds = mem_zalloc((size_t)runs + 3, sizeof *seconds);
    char endpoint[WIRE_TEXT_MAX] = "inproc://bench-ps", name[100];
    struct stub s = {endpoint, way, floats, 1, {0, 1}, runs + 3, false, seconds, 0};
    struct ps_host *h = NULL;
    int pipes[2];
    pid_t child = -1;

    if (one_process) {
        char unused[WIRE_TEXT_MAX];
        h = host_start(floats, 1, way, endpoint, unused);
    } else {
        CHECK(pipe(pipes) == 0);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            host_start(floats, 1, way, NULL, endpoint);
            CHECK(write(pipes[1], endpoint, sizeof endpoint) == sizeof endpoint);
            for (;;)
                pause();
        }
        CHECK(read(pipes[0], endpoint, sizeof endpoint) == sizeof endpoint);
    }
    stub_main(&s);
    snprintf(name, sizeof name, "push, fold, AdamW, pull of %d MiB, %s, %s", mib,
             one_process ? "one process" : "two processes", names[way]);
    say(name, seconds + 3, runs, floats); /* the first ones touch every page */
    free(seconds);
    ps_host_stop(h);
    if (child > 0) {
        link_context_term(); /* nothing of ZeroMQ may be alive at the next fork */
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(pipes[0]);
        close(pipes[1]);
    }
}

/* Workers that compute nothing, as threads of this process over TCP; 64 units whoever computes. */
static void growth(int workers)
{
    size_t floats = 65536;
    double *seconds = mem_zalloc(43, sizeof *seconds);
    char endpoint[WIRE_TEXT_MAX], name[100], inproc[40];
    struct stub stub[WORKERS_MAX];
    struct bench_spread spread;
    struct ps_host *h;

    snprintf(inproc, sizeof inproc, "inproc://bench-growth-%d", workers);
    h = host_start(floats, 64, BYTES, inproc, endpoint);
    for (int i = 0; i < workers; i++) {
        stub[i] = (struct stub){.endpoint = endpoint,
                                .way = BYTES,
                                .floats = floats,
                                .units = 64,
                                .steps = 43,
                                .sleeps = true};
        stub[i].span =
            (struct tree_span){(uint32_t)(64 * i / workers), (uint32_t)(64 * (i + 1) / workers)};
        stub[i].seconds = i == 0 ? seconds : NULL;
        CHECK(pthread_create(&stub[i].thread, NULL, stub_main, &stub[i]) == 0);
    }
    for (int i = 0; i < workers; i++)
        pthread_join(stub[i].thread, NULL);
    snprintf(name, sizeof name, "step of %d stub worker%s that sleep 50 ms, 65536 parameters",
             workers, workers > 1 ? "s" : "");
    for (int i = 3; i < 43; i++)
        seconds[i] *= 1e3;
    spread = bench_spread_of(seconds + 3, 40);
    bench_say(name, &spread, "ms", SLEEP_MS / spread.median, "of what it sleeps");
    ps_host_stop(h);
    free(seconds);
}

int main(int argc, char **argv)
{
    int mib[8] = {16, 64}, n = 2;
    const char *only = NULL;

    argc = bench_args(argc, argv);
    for (int i = 1, given = 0; i < argc; i++) {
        if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
            runs = atoi(argv[++i]);
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            only = argv[++i];
        else if (given < 8)
            n = given + 1, mib[given++] = atoi(argv[i]);
    }
    n = only != NULL && strcmp(only, "growth") == 0 ? 0 : n;
    for (int i = 0; i < n; i++)
        for (enum way way = SHARED; way <= HALF; way++)
            pair(mib[i], way, false); /* forks: before this process has threads */
    for (int i = 0; i < n; i++) {
        pair(mib[i], SHARED, true);
        clock_sleep_ms(50); /* ZeroMQ gives the name back */
    }
    for (int workers = 1; workers <= WORKERS_MAX && (only == NULL || n == 0); workers *= 2)
        growth(workers);
    link_context_term();
    return 0;
}
