/*
 * executor: the compute threads that run leased tasks (jobs/run.h), one at a time each. Training
 * sessions have threads of their own (worker/session.h). All compute threads stand behind the
 * control and host threads in priority.
 */
#ifndef WORKER_EXECUTOR_H
#define WORKER_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "artifact/artifact.h"
#include "wire/control.h"
#include "worker/pulse.h"

#define EXECUTOR_THREADS_MAX 256

struct executor_env {
    struct artifact_client *artifacts;
    const char *scratch;       /* directory; each task gets one of its own in it */
    const struct cores *cores; /* of the compute threads; NULL: not pinned */
    void *self;
    /* TASK_DONE or TASK_FAILED, given: a chain of those that ended shortly after one another. On a
     * compute thread, or in executor_each(). */
    void (*ended)(void *self, struct control *outcome);
};

struct executor;
struct executor *executor_start(uint32_t threads, const struct executor_env *env);
/* Cancels what runs, and joins. False: a thread has not come to its end in time, at a call that
 * cannot be broken off; all stays as it is, and the process must not go on. */
bool executor_stop(struct executor *x, uint64_t deadline_ms);
void executor_task(struct executor *x,
                   const struct control *task); /* copied; queued until a thread is free */
/* A queued task is forgotten, a running one is told and ends in its own time. */
void executor_cancel(struct executor *x, uint64_t task, uint64_t epoch);
/* Takes the pulse of every thread, and calls fn for every task that is queued or running. moved
 * changes while the thread that runs the task moves, or waits for an artefact; of a queued task, while any thread does that
 * it may get: behind threads that all hang it stands still. */
void executor_each(struct executor *x, struct pulse *pulse,
                   void (*fn)(void *self, uint64_t task, uint64_t epoch, uint64_t done,
                              uint64_t total, uint64_t moved),
                   void *self);
void executor_thread_lower(
    void); /* the calling thread is a compute thread: lower its priority, name it */

#endif
