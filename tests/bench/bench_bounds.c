/*
 * What this machine can do at most, measured now: sgemm by the BLAS that ours uses, memory read and
 * copied, a small append made durable, bytes and round trips over loopback. The other benches print
 * their figures as shares of these.
 * usage: bench_bounds [--json FILE] [sgemm|read|copy|fsync|loopback [THREADS]]   with a name: the
 * number alone (GFLOP/s, GB/s, GB/s, ms, GB/s), for scripts
 */
#include <fcntl.h>
#include <math.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "tests/bench/bench.h"

#define ROUNDS 7
#define COPY_BYTES ((size_t)256 << 20)
#define LOOPBACK_BYTES ((size_t)1 << 30)
#define LOOPBACK_PART ((size_t)1 << 20)

static double sgemm(int threads)
{
    return bench_sgemm(threads, 1024, 0.3);
}

static double read_rate(int threads)
{
    return bench_memory(threads, 0.3);
}

struct copying {
    char *from, *to;
    int threads;
};

static void copy_part(void *self, int thread)
{
    struct copying *c = self;
    size_t part = COPY_BYTES / (size_t)c->threads;

    memcpy(c->to + part * (size_t)thread, c->from + part * (size_t)thread, part);
}

static double copy_rate(int threads)
{
    struct copying c = {mem_alloc(COPY_BYTES), mem_alloc(COPY_BYTES), threads};
    double took[3];

    memset(c.from, 1, COPY_BYTES);
    memset(c.to, 1, COPY_BYTES);
    bench_time(threads, 3, copy_part, &c, took);
    free(c.from);
    free(c.to);
    return (double)COPY_BYTES / bench_spread_of(took, 3).median * 1e-9;
}

/* Milliseconds of an append of 4 KiB and fdatasync, in the working directory: there the state of a
 * coordinator that is started here would be. */
static double fsync_ms(int threads)
{
    char path[] = "bench-fsync.XXXXXX";
    char page[4096] = "page";
    double took[50];
    int fd = mkstemp(path);

    (void)threads;
    CHECK(fd >= 0);
    unlink(path);
    for (int i = 0; i < 50; i++) {
        uint64_t start = clock_ns();
        CHECK(write(fd, page, sizeof page) == (ssize_t)sizeof page && fdatasync(fd) == 0);
        took[i] = (double)(clock_ns() - start) * 1e-6;
    }
    close(fd);
    return bench_spread_of(took, 50).median;
}

static void *sender(void *arg)
{
    int fd = *(int *)arg;
    char *part = mem_zalloc(1, LOOPBACK_PART);

    for (size_t sent = 0; sent < LOOPBACK_BYTES;) {
        ssize_t n = write(fd, part, LOOPBACK_PART);
        CHECK(n > 0);
        sent += (size_t)n;
    }
    free(part);
    shutdown(fd, SHUT_WR);
    return NULL;
}

/* GB/s over one TCP connection to 127.0.0.1, parts of 1 MiB into a buffer that is used again. */
static double loopback_rate(int threads)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0), in;
    char *part = mem_alloc(LOOPBACK_PART);
    pthread_t thread;
    uint64_t start;
    ssize_t n;
    size_t got = 0;

    (void)threads;
    CHECK(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    CHECK(connect(out, (struct sockaddr *)&at, sizeof at) == 0);
    in = accept(listener, NULL, NULL);
    CHECK(in >= 0);
    start = clock_ns();
    CHECK(pthread_create(&thread, NULL, sender, &out) == 0);
    while ((n = read(in, part, LOOPBACK_PART)) > 0)
        got += (size_t)n;
    pthread_join(thread, NULL);
    CHECK(got == LOOPBACK_BYTES);
    close(in);
    close(out);
    close(listener);
    free(part);
    return (double)got / (double)(clock_ns() - start);
}

/* The same between two processes, of two machines or two places of one: GB/s that come to `address`, once. */
#define WIRE_PORT 7799

static int wire_socket(const char *address, struct sockaddr_in *at)
{
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(WIRE_PORT)};
    CHECK(inet_pton(AF_INET, address, &at->sin_addr) == 1);
    return socket(AF_INET, SOCK_STREAM, 0);
}

static double wire_listen(const char *address)
{
    struct sockaddr_in at;
    int listener = wire_socket(address, &at), in;
    char *part = mem_alloc(LOOPBACK_PART);
    uint64_t start;
    size_t got = 0;
    ssize_t n;

    CHECK(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 1) == 0);
    in = accept(listener, NULL, NULL);
    CHECK(in >= 0);
    start = clock_ns();
    while ((n = read(in, part, LOOPBACK_PART)) > 0)
        got += (size_t)n;
    close(in);
    close(listener);
    free(part);
    return (double)got / (double)(clock_ns() - start);
}

static void wire_send(const char *address)
{
    struct sockaddr_in at;
    int out = wire_socket(address, &at);

    CHECK(connect(out, (struct sockaddr *)&at, sizeof at) == 0);
    sender(&out);
    close(out);
}

static const struct bound {
    const char *name, *unit, *what;
    double (*measure)(int threads);
    int threads_max;
} bounds[] = {{"sgemm", "GFLOP/s", "sgemm 1024 x 1024 x 1024", sgemm, 2},
              {"read", "GB/s", "memory read, 256 MiB", read_rate, 2},
              {"copy", "GB/s", "memcpy of 256 MiB, bytes copied", copy_rate, 2},
              {"fsync", "ms", "4 KiB appended and synced", fsync_ms, 1},
              {"loopback", "GB/s", "TCP to 127.0.0.1 in parts of 1 MiB", loopback_rate, 1}};

static void bound_say(const struct bound *b, int threads)
{
    double value[ROUNDS];
    struct bench_spread spread;
    char name[128];

    for (int i = 0; i < ROUNDS; i++)
        value[i] = b->measure(threads);
    spread = bench_spread_of(value, ROUNDS);
    if (b->threads_max > 1)
        snprintf(name, sizeof name, "%s, %d thread%s", b->what, threads, threads > 1 ? "s" : "");
    else
        snprintf(name, sizeof name, "%s", b->what);
    bench_say(name, &spread, b->unit, (double)NAN, "");
}

int main(int argc, char **argv)
{
    argc = bench_args(argc, argv);
    if (argc == 3 && strcmp(argv[1], "listen") == 0) {
        printf("%.6g\n", wire_listen(argv[2]));
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "send") == 0) {
        wire_send(argv[2]);
        return 0;
    }
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        const struct bound *b = &bounds[i];
        if (argc > 1 && strcmp(argv[1], b->name) == 0) {
            printf("%.6g\n", b->measure(argc > 2 ? atoi(argv[2]) : 1));
            return 0;
        }
    }
    if (argc > 1) {
        fprintf(stderr, "bench_bounds: no bound is called %s\n", argv[1]);
        return 2;
    }
    bench_machine();
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
        for (int threads = 1; threads <= bounds[i].threads_max; threads++)
            bound_say(&bounds[i], threads);
    return 0;
}
