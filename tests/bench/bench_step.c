/*
 * What a training step costs beside the numerics: push, fold, close, apply, pull, over real
 * sockets, with gradients that cost nothing. One process with H hosts and H compute threads, each
 * thread beside "its" host as in a fleet: its own host over shared memory, the others over TCP.
 * usage: bench_step [params chunk_elems]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "worker/ps_client.h"
#include "worker/ps_host.h"

#define HOSTS_MAX 4

static struct layout layout;
static struct tensor tensor;
static uint32_t chunk_elems, chunks;
static uint64_t steps;
static int hosts;
static struct ps_host *host[HOSTS_MAX];
static char endpoint[HOSTS_MAX][WIRE_TEXT_MAX], inproc[HOSTS_MAX][WIRE_TEXT_MAX];

static int publish(void *self, const void *bytes, size_t len, struct digest *out, struct err *e)
{
    (void)self;
    (void)bytes;
    (void)len;
    (void)out;
    return err_set(e, ERR_CANCELLED, "the bench keeps no checkpoints");
}

static void report(void *self, const struct ps_report *r)
{
    (void)self;
    (void)r;
}

static void released(void *self, struct ps_session *s)
{
    (void)self;
    free(s);
}

static uint32_t cut(int i)
{
    return chunks * (uint32_t)i / (uint32_t)hosts;
}

static void host_open(int i)
{
    struct ps_session *s = mem_zalloc(1, sizeof *s);
    float *params = mem_zalloc(layout.count, sizeof *params);

    *s = (struct ps_session){
        .session = 1, .attempt = 1, .units = (uint32_t)hosts, .released = released};
    s->plan = (struct host_plan){.layout = &layout,
                                 .units = (uint32_t)hosts,
                                 .chunks = chunks,
                                 .chunk_begin = cut(i),
                                 .chunk_end = cut(i + 1),
                                 .chunk_elems = chunk_elems,
                                 .steps = steps,
                                 .lr = 1e-3,
                                 .clip = 1,
                                 .adamw = {0.9f, 0.98f, 1e-8f, 0.01f},
                                 .schedule = {SCHEDULE_CONSTANT, 0, 0}};
    if (i > 0)
        memcpy(s->leader, endpoint[0], sizeof s->leader);
    s->host = host_new(&s->plan, params, 0, NULL);
    free(params);
    ps_host_open(host[i], s);
}

static int ask(void *self, bool soft, struct err *e)
{
    (void)self;
    (void)soft;
    (void)e;
    return 0;
}

static void *compute(void *self)
{
    int me = (int)(intptr_t)self;
    struct ps_client_plan plan = {.session = 1,
                                  .attempt = 1,
                                  .params = layout.count,
                                  .chunk_elems = chunk_elems,
                                  .hosts_n = (uint32_t)hosts};
    const struct ps_client_check check = {NULL, ask};
    float *params = mem_zalloc(layout.count, sizeof *params);
    float *grad = mem_zalloc(layout.count, sizeof *grad);
    const struct fold_sums sums = {1, 1, 1};
    struct ps_client *client;
    uint64_t version;
    struct err e;

    for (size_t i = 0; i < layout.count; i++)
        grad[i] = (float)(i % 1000) * 1e-3f;
    for (int i = 0; i < hosts; i++) {
        memcpy(plan.host[i].endpoint, i == me ? inproc[i] : endpoint[i],
               sizeof plan.host[i].endpoint);
        plan.host[i].chunk_begin = cut(i);
        plan.host[i].chunk_end = cut(i + 1);
    }
    CHECK(ps_client_new(&plan, &client, &e) == 0);
    CHECK(ps_client_pull(client, 0, params, &version, &check, &e) == 0);
    while (version < steps) {
        CHECK(ps_client_push(client, version, (struct tree_node){0, (uint32_t)me}, 0, chunks, grad,
                             NULL, &sums, &check, &e) == 0);
        CHECK(ps_client_pull(client, version + 1, params, &version, &check, &e) == 0);
    }
    ps_client_free(client);
    free(params);
    free(grad);
    return NULL;
}

static void run(void)
{
    struct ps_host_env env = {.publish = publish, .report = report};
    pthread_t thread[HOSTS_MAX];
    struct timespec cpu[2];
    uint64_t begun;
    struct err e;

    for (int i = 0; i < hosts; i++) {
        snprintf(inproc[i], sizeof inproc[i], "inproc://bench-%d-%d", hosts, i);
        CHECK(ps_host_start("tcp://127.0.0.1:0", inproc[i], &env, endpoint[i], sizeof endpoint[i],
                            &host[i], &e) == 0);
    }
    for (int i = 0; i < hosts; i++)
        host_open(i);
    clock_sleep_ms(20);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[0]);
    begun = clock_ns();
    for (int i = 0; i < hosts; i++)
        CHECK(pthread_create(&thread[i], NULL, compute, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < hosts; i++)
        pthread_join(thread[i], NULL);
    begun = clock_ns() - begun;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[1]);
    printf("figure: step overhead, %zu parameters in %u chunks, %d host(s) and compute thread(s): "
           "%.2f ms, %.2f ms of processor\n",
           layout.count, chunks, hosts, (double)begun / 1e6 / (double)steps,
           ((double)(cpu[1].tv_sec - cpu[0].tv_sec) * 1e3 +
            (double)(cpu[1].tv_nsec - cpu[0].tv_nsec) / 1e6) /
               (double)steps);
    for (int i = 0; i < hosts; i++)
        ps_host_stop(host[i]);
}

int main(int argc, char **argv)
{
    size_t params = argc > 2 ? strtoull(argv[1], NULL, 10) : 262144;

    chunk_elems = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 16384;
    CHECK(params > 0 && chunk_elems > 0);
    chunks = (uint32_t)((params + chunk_elems - 1) / chunk_elems);
    tensor = (struct tensor){.name = "w", .rows = (int32_t)params, .cols = 1, .decay = true};
    layout = (struct layout){.count = params, .tensors = 1, .tensor = &tensor};
    steps = 400;
    for (hosts = 1; hosts <= HOSTS_MAX; hosts *= 2)
        run();
    return 0;
}
