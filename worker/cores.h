/*
 * cores: one core for each compute thread, agreed upon among the workers of one machine.
 *
 * A core is claimed by a lock on a file of its name, which ends with the process that holds it, however that ends. All or
 * nothing: with fewer cores that are allowed (sched_getaffinity: taskset, cgroup cpusets) and unclaimed than threads,
 * nobody is pinned, because two threads on one core are worse than what pinning gains. Other programs are not asked.
 * Tests: tests/unit/worker/test_cores.c.
 */
#ifndef WORKER_CORES_H
#define WORKER_CORES_H

#include <stdint.h>

#define CORES_DIR "/dev/shm" /* seen by all workers of a machine, empty after a restart of it */

struct cores;
struct cores *cores_claim(const char *dir, uint32_t threads); /* NULL: not enough */
void cores_free(struct cores *c);                             /* threads that were pinned stay so */
/* The calling thread stays on core `thread` < threads of those claimed; threads that it starts inherit that. NULL: does nothing. */
void cores_pin(const struct cores *c, uint32_t thread);

#endif
