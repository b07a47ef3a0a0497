#include "worker/cores.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

struct core {
    size_t cpu;
    int lock;
};

struct cores {
    uint32_t n;
    struct core core[];
};

/* A file that holds the lock, or -1. */
static int core_lock(const char *dir, size_t cpu)
{
    char path[512];
    int fd;

    snprintf(path, sizeof path, "%s/steer-core-%u-%zu", dir, (unsigned)geteuid(), cpu);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

struct cores *cores_claim(const char *dir, uint32_t threads)
{
    struct cores *c = mem_zalloc(1, sizeof *c + threads * sizeof c->core[0]);
    cpu_set_t allowed;

    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) /* more processors than a cpu_set_t */
        CPU_ZERO(&allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && c->n < threads; cpu++) {
        int lock = CPU_ISSET(cpu, &allowed) ? core_lock(dir, cpu) : -1;

        if (lock >= 0)
            c->core[c->n++] = (struct core){cpu, lock};
    }
    if (c->n == threads && threads > 0)
        return c;
    log_info("cores.unpinned", "threads=%u free=%u allowed=%d", threads, c->n, CPU_COUNT(&allowed));
    cores_free(c);
    return NULL;
}

void cores_free(struct cores *c)
{
    for (uint32_t i = 0; c != NULL && i < c->n; i++)
        close(c->core[i].lock);
    free(c);
}

void cores_pin(const struct cores *c, uint32_t thread)
{
    cpu_set_t one;
    int rc;

    if (c == NULL)
        return;
    CHECK(thread < c->n);
    CPU_ZERO(&one);
    CPU_SET(c->core[thread].cpu, &one);
    rc = pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    if (rc != 0) /* the cpuset has changed meanwhile */
        log_warn("cores.pin", "cpu=%zu error=%s", c->core[thread].cpu, strerror(rc));
}
