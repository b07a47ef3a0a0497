/* sched_inner: what the files of the scheduler share. Nobody else includes it but the simulator's checks. */
#ifndef COORDINATOR_SCHED_INNER_H
#define COORDINATOR_SCHED_INNER_H

#include "coordinator/sched.h"

enum { SCHED_ROLE_COMPUTE = 1, SCHED_ROLE_PARAMS = 2 }; /* as on the wire */

/* sched.c */
struct sched_action *sched_act(struct sched_actions *a, enum sched_action_type type,
                               struct sched_job *j, struct sched_stage *st);
void sched_note(struct sched_actions *a, struct sched_job *j, struct sched_stage *st,
                const char *type, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void sched_move_stage(struct sched *s, struct sched_stage *st, enum run_state to,
                      const char *reason, struct sched_actions *a);
void sched_move_job(struct sched *s, struct sched_job *j, enum run_state to, const char *reason,
                    struct sched_actions *a);
void sched_fail(struct sched *s, struct sched_stage *st, const struct sched_failure *why,
                struct sched_actions *a);
/* Blobs that the text names leave the store if they are damaged. */
void sched_mend(struct sched_actions *a, struct sched_stage *st, const char *text);
void sched_discard(struct sched *s, void *p); /* freed by sched_collect() */
bool sched_code_is_loss(int code);
uint64_t sched_backoff(const struct sched *s, uint32_t failures);

/* sched_queue.c: all jobs, and which of them run */
void sched_queue_add(struct sched *s, struct sched_job *j); /* a new or restored body */
void sched_queue_moved(struct sched *s, struct sched_job *j, enum run_state from);
void sched_queue_admit(struct sched *s, struct sched_actions *a);
void sched_queue_loaded(struct sched *s, struct sched_job *j, struct sched_actions *a);
void sched_queue_unload(struct sched *s);
void sched_queue_replace(struct sched *s, struct sched_job *j); /* the body of a job that is over */
void sched_queue_fini(struct sched *s);
void sched_job_advance(struct sched *s, struct sched_job *j, struct sched_actions *a); /* sched.c */
void sched_job_restored(struct sched *s, struct sched_job *j, uint32_t grace_ms);

/* sched_verbs.c: pause, resume, retry */
void sched_on_pause(struct sched *s, struct sched_event *ev, struct sched_actions *a);
void sched_on_resume(struct sched *s, struct sched_event *ev, struct sched_actions *a);
void sched_on_retry(struct sched *s, struct sched_event *ev, struct sched_actions *a);

/* sched_open.c: open phases */
void sched_open_changed(struct sched *s); /* a phase may have been opened or closed */
void sched_open_refresh(struct sched *s); /* s->open is right after it */
/* The task of an id; NULL if it is over or was never ours. */
struct sched_task *sched_open_task(struct sched *s, uint64_t id, struct sched_stage **stage);
/* Does a session wait for workers that comes before st? */
bool sched_open_session_waits(struct sched *s, const struct sched_stage *st);
/* Gives work to whoever is free. */
void sched_open_dispatch(struct sched *s, struct sched_actions *a);
void sched_job_settle(struct sched *s, struct sched_job *j, struct sched_actions *a); /* sched.c */

/* sched_stage.c: from needs to phases to outputs */
void sched_stage_advance(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_stage_reuse(struct sched *s, struct sched_stage *st, cJSON *result,
                       struct sched_actions *a);
void sched_stage_stop(struct sched *s, struct sched_stage *st, enum run_state to,
                      const char *reason, struct sched_actions *a);
void sched_stage_estimate(struct sched *s, struct sched_stage *st); /* sets cost_total */
void sched_phase_finish(struct sched *s, struct sched_stage *st, cJSON *entry,
                        struct sched_actions *a);

/* sched_task.c: who is given which task, and what an answer does */
void sched_tasks_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_tasks_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_tasks_worker_gone(struct sched *s, const char *worker, bool crashed,
                             struct sched_actions *a);
void sched_tasks_reattach(struct sched *s, const struct sched_event *ev, bool whole,
                          struct sched_actions *a);
/* Whatever it alone has made, in phases that are open, is made again. */
void sched_tasks_again(struct sched *s, const char *worker, struct sched_actions *a);
/* The same of a job that was not in memory when workers were put in quarantine. */
void sched_tasks_distrust(struct sched *s, struct sched_job *j, struct sched_actions *a);
/* True: nothing can follow from it but that another task is given out. */
bool sched_on_task_done(struct sched *s, struct sched_event *ev, struct sched_actions *a);
void sched_on_task_failed(struct sched *s, struct sched_event *ev, struct sched_actions *a);
bool sched_task_hangs(const struct sched *s, const struct sched_task *t);
/* A worker with a free thread for a second lease of t; NULL: none. */
struct sched_worker *sched_task_other(struct sched *s, struct sched_stage *st,
                                      const struct sched_task *t);

/* sched_lease.c: how leases begin and end (more in sched_lease.h) */
void sched_tasks_index(struct sched_stage *st); /* after states were set from elsewhere */
void sched_task_cancel(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_actions *a);
/* A worker that was taken for dead lives: no task of an open phase is to blame for it any more. */
void sched_tasks_acquit(struct sched *s, const char *worker, struct sched_actions *a);
/* The lease ends and the task waits to be given out again; nobody is to blame. */
void sched_task_release(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const char *outcome, struct sched_actions *a);
/* Leases a running task to w as well. */
void sched_task_shadow(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a);

/* sched_class.c: numerics classes */
bool sched_class_fits(const struct sched_job *j, const struct sched_worker *w);
/* Of w, for work of j: "" if it can't do such work at all. */
const char *sched_class_of(const struct sched_job *j, const struct sched_worker *w);
bool sched_class_is_any(const struct sched_job *j);
/* Tells the workers that can't do work of a job that is new. */
void sched_class_new(struct sched *s, struct sched_job *j, struct sched_actions *a);
void sched_class_bind(struct sched *s, struct sched_job *j, const char *class_id,
                      struct sched_actions *a);
/* Whether the job may take up what was computed in a class (NULL or "": in none): what is not bound
 * yet is bound to it, unless all workers here are of others. */
bool sched_class_join(struct sched *s, struct sched_job *j, const char *class_id,
                      struct sched_actions *a);
/* A worker has just come. */
void sched_class_up(struct sched *s, struct sched_worker *w, struct sched_actions *a);

/* sched_opinion.c: second opinions, quarantine */
void sched_on_opinion(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a);
void sched_questions_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_quarantine(struct sched *s, const char *worker, const char *reason,
                      struct sched_actions *a);
void sched_release(struct sched *s, const char *worker, struct sched_actions *a);

/* sched_audit.c: results of tasks that two workers must agree about */
enum sched_audit { AUDIT_COUNTS, AUDIT_MORE, AUDIT_FAILED };
/* Does this result count, or is another worker's needed first? FAILED: nobody is left to ask; why:
 * t->text, t->code. */
enum sched_audit sched_audit_take(struct sched *s, struct sched_stage *st, struct sched_task *t,
                                  const char *worker, const cJSON *result, struct sched_actions *a);
/* Is there anybody who could give another result, now or when it has time? */
bool sched_audit_waits(struct sched *s, const struct sched_stage *st, const struct sched_task *t);
bool sched_audit_spoken(const struct sched_task *t, const char *worker);

/* Is it not to compute, because others have to show first whether its gradient can be finite? */
bool sched_is_doubted(const struct sched_session *ss, const char *worker); /* sched_report.c */

/* sched_overtake.c: hung and slow workers */
void sched_workers_watch(struct sched *s, struct sched_actions *a);
void sched_session_overtake(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_session_open_step(struct sched *s, struct sched_stage *st, const struct sched_event *ev);
void sched_tasks_overtake(struct sched *s, struct sched_stage *st, struct sched_actions *a);

/* sched_pace.c: slots in proportion to speed */
void sched_pace_take(struct sched *s, struct sched_stage *st, const struct sched_event *ev);
void sched_pace_overtaken(struct sched *s, const struct sched_slot *slot, double open_ms);
void sched_pace_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a);
static inline double sched_pace_of(const struct sched_worker *w)
{
    return w->pace > 1 ? w->pace : 1;
}

/* sched_assign.c: who computes what in a session */
void sched_session_assign(struct sched *s, struct sched_stage *st, struct sched_actions *a);
/* Gives units to a member that has none and could compute. False: it has some, or is not needed. */
bool sched_session_employ(struct sched *s, struct sched_worker *w, struct sched_actions *a);
/* Tells everybody the slots as they stand, under a new number. */
void sched_session_publish(struct sched *s, struct sched_stage *st, struct sched_actions *a);
/* Adds a slot for the open step only. False: no room. */
bool sched_slot_add(struct sched_stage *st, const char *worker, uint64_t step,
                    struct tree_span span, uint32_t again);
const struct sched_slot *sched_slot_of(const struct sched_session *ss, const char *worker);

/* sched_keep.c: workers that run dry for a session */
void sched_keep_none(struct sched *s); /* a round of giving out begins */
/* Keeps what the session still needs from whoever comes after it. */
void sched_session_keep(struct sched *s, const struct sched_stage *st);
/* Is it kept for somebody who comes before st? */
bool sched_is_kept(const struct sched_worker *w, const struct sched_stage *st);
/* An idle worker that the session is to leave alone; NULL: it may take all. */
const struct sched_worker *sched_session_spares(const struct sched *s,
                                                const struct sched_stage *st);

/* sched_session.c: training sessions */
#define SCHED_ASK_MS 1000 /* what everybody waits for is said again after so long */
bool sched_worker_usable(const struct sched_worker *w);
/* It could not take part in a session. */
void sched_sit_out(struct sched *s, struct sched_worker *w, bool hosts);
bool sched_sits_out(const struct sched *s, const struct sched_worker *w);
/* Could the session have it at once? */
bool sched_session_is_idle(const struct sched_stage *st, const struct sched_worker *w);
uint32_t sched_session_chunks(const struct session_plan *p);
uint64_t sched_session_threads(const struct sched *s, const struct sched_stage *st);
bool sched_session_is_host(const struct sched_session *ss, const char *worker); /* not a lost one */
/* Who would host now: idle workers and members of the session. host: [SCHED_HOSTS_MAX]. */
int sched_hosts_pick(const struct sched *s, const struct sched_stage *st, const char *class_id,
                     struct sched_host *host);
int sched_members_take(struct sched *s, struct sched_stage *st, bool opening,
                       struct sched_actions *a);
void sched_session_tell(struct sched_actions *a, enum sched_action_type type,
                        struct sched_stage *st, const char *worker);
void sched_session_tell_all(struct sched *s, struct sched_actions *a, enum sched_action_type type,
                            struct sched_stage *st, const char *note);
void sched_session_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_session_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_session_close(struct sched *s, struct sched_stage *st, const char *why,
                         struct sched_actions *a);
/* The workers go; the session goes on from its last checkpoint when it is opened again. */
void sched_session_pause(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_session_lose(struct sched *s, const char *worker, const char *why,
                        struct sched_actions *a);
void sched_session_drain(struct sched *s, struct sched_worker *w, struct sched_actions *a);
/* The attempt is over and the session goes back to its last checkpoint after wait_ms. */
void sched_attempt_wait(struct sched *s, struct sched_stage *st, const char *why, uint64_t wait_ms,
                        struct sched_actions *a);
/* The same, but the session fails when attempts end again and again before any step. */
void sched_attempt_end(struct sched *s, struct sched_stage *st, const char *why, uint64_t wait_ms,
                       struct sched_actions *a);

/* sched_adopt.c: after a restart */
void sched_session_hello(struct sched *s, struct sched_worker *w, uint64_t session,
                         uint64_t attempt, struct sched_actions *a);
void sched_adopt_settle(struct sched *s, struct sched_stage *st, struct sched_actions *a);

/* sched_report.c: what hosts say */
struct sched_stage *sched_session_find(const struct sched *s, uint64_t id);
void sched_on_session(struct sched *s, struct sched_event *ev, struct sched_actions *a);

/* sched_handover.c: another set of hosts, from the memory of the one before */
/* Freezes the hosts of an open attempt, at the edge of the step for CHANGE_SPREAD, else now. Needs
 * no change under way: change CHANGE_NONE and from_attempt 0. */
void sched_handover_begin(struct sched *s, struct sched_stage *st, enum sched_change change,
                          const char *why, struct sched_actions *a);
/* The open step has to be computed again, from the version that it began with. */
void sched_handover_again(struct sched *s, struct sched_stage *st, const char *why,
                          struct sched_actions *a);
/* A host or source is lost. Goes on from what is left, or ends the attempt. */
void sched_handover_lost(struct sched *s, struct sched_stage *st, const char *worker,
                         const char *why, struct sched_actions *a);
void sched_handover_go_on(struct sched *s, struct sched_stage *st, const char *why,
                          struct sched_actions *a);
void sched_handover_frozen(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                           struct sched_actions *a);
void sched_handover_stepped(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_handover_spread(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_handover_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a);
void sched_handover_drop(struct sched *s, struct sched_stage *st,
                         struct sched_actions *a); /* sources are told to forget */
bool sched_handover_holds(const struct sched_session *ss,
                          const char *worker); /* a host, or a source that is needed */

#endif
