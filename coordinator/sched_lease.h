/* sched_lease: how a task's leases begin and end (sched_lease.c). For sched_task.c only. */
#ifndef COORDINATOR_SCHED_LEASE_H
#define COORDINATOR_SCHED_LEASE_H

#include "coordinator/sched_inner.h"

/* Along TASK_STATES, CHECKed; the stage's sets of pending and busy tasks follow. */
void sched_task_move(struct sched_stage *st, struct sched_task *t, enum task_state to);
void sched_task_save(struct sched_actions *a, struct sched_stage *st, struct sched_task *t);

/* The next epoch of a task, at w: into the place of the first lease. */
void sched_lease_begin(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a);
/* Ends the running attempt: outcome is succeeded, failed, lost, expired, returned, overtaken or
 * cancelled. The task's state is the caller's business. */
void sched_lease_end(struct sched *s, struct sched_stage *st, struct sched_task *t,
                     const char *outcome, const char *why, struct sched_actions *a);
/* Tells a worker to stop. st: NULL if the task is not ours, or not any more. */
void sched_lease_cancel(struct sched_stage *st, const char *worker, uint64_t task, uint64_t epoch,
                        struct sched_actions *a);

/* The first lease and the shadow change places, so that what is done to the one is done to the
 * other. */
void sched_shadow_swap(struct sched_task *t);
/* The second lease ends, the first goes on. tell: its worker is told to stop. */
void sched_shadow_end(struct sched *s, struct sched_stage *st, struct sched_task *t,
                      const char *outcome, const char *why, bool tell, struct sched_actions *a);
/* The first lease ends without a result, the second takes its place. False: there is none. */
bool sched_shadow_rises(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const char *outcome, const char *why, struct sched_actions *a);

/* A lease that ended without a verdict on the task itself. crashed: its worker died; code: what its
 * worker said, and then it is not given out again at once (but after ERR_CANCELLED); 0: nothing. */
void sched_task_lost(struct sched *s, struct sched_stage *st, struct sched_task *t,
                     const char *outcome, const char *why, bool crashed, int code,
                     struct sched_actions *a);
/* Given up, and the stage with it; class_name says whose fault it is. */
void sched_task_quarantine(struct sched *s, struct sched_stage *st, struct sched_task *t,
                           const char *class_name, const char *why, struct sched_actions *a);

#endif
