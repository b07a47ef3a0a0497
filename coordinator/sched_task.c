/*
 * Tasks: who is given which, what happens to them when time passes or a worker goes, and what an
 * answer does. What a lease is, and how it ends, is in sched_lease.c.
 */
#include "coordinator/sched_lease.h"

#include <stdio.h>
#include <string.h>

#include "wire/control.h" /* control_who(), WIRE_LEASES_MAX */

#define AHEAD_US 20000.0 /* of work that may wait at a worker for a thread */

/* ---- giving out ------------------------------------------------------------------------------ */

/* How many more leases of a stage it may hold, at so many a thread. */
static uint32_t room_of(const struct sched_stage *st, const struct sched_worker *w, uint32_t depth)
{
    uint32_t most = w->threads * depth;

    if (!sched_worker_usable(w) || w->in != NULL || (w->roles & SCHED_ROLE_COMPUTE) == 0 ||
        sched_is_kept(w, st))
        return 0;
    if (most > SCHED_LEASES_MAX)
        most = w->threads > SCHED_LEASES_MAX ? w->threads : SCHED_LEASES_MAX;
    if (most > WIRE_LEASES_MAX) /* it could not name more of them in a heartbeat */
        most = WIRE_LEASES_MAX;
    return most > w->running ? most - w->running : 0;
}

/* Leases a thread: more than one when tasks are so short that a worker would wait for the next one
 * longer than it runs, but never more than AHEAD_US of work, because whoever comes then has to wait
 * for it. So none ahead either while an older session waits for whole workers. */
static uint32_t depth_of(struct sched *s, const struct sched_stage *st)
{
    double more = st->busy_us > 0 ? AHEAD_US / st->busy_us : 0;

    if (more < 1 || sched_open_session_waits(s, st))
        return 1;
    return 1 + (more < SCHED_LEASES_MAX ? (uint32_t)more : SCHED_LEASES_MAX);
}

static bool shy_of(const struct sched_task *t, const struct sched_worker *w)
{
    for (int i = 0; i < t->crashes; i++) {
        if (strcmp(t->crashed[i], w->id) == 0)
            return true;
    }
    if (t->shadow_failed != 0 && t->shadow_failed == control_who(w->id))
        return true;
    return t->faults + t->losses + t->full > 0 && strcmp(t->worker, w->id) == 0;
}

/* Threads of the usable workers of a class: a job that is not bound yet begins on the largest, so
 * that one odd machine does not keep the others out of it. */
static uint64_t class_threads(const struct sched *s, const struct sched_job *j,
                              const char *class_id)
{
    uint64_t n = 0;

    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        n += sched_worker_usable(w) && strcmp(sched_class_of(j, w), class_id) == 0 ? w->threads : 0;
    }
    return n;
}

/* The freest worker; one that this task has not failed on, if there is any. */
static struct sched_worker *worker_pick(struct sched *s, struct sched_stage *st,
                                        const struct sched_task *t, uint32_t depth)
{
    struct sched_worker *best = NULL;
    double best_score = 0;

    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];
        uint32_t spare = room_of(st, w, depth);
        double score = 0;

        s->looked_at++;
        if (spare == 0 || !sched_class_fits(st->job, w) || sched_audit_spoken(t, w->id))
            continue;
        score = (double)spare / (double)w->threads - (shy_of(t, w) ? 2.0 : 0.0);
        if (!st->job->class_bound)
            score += 4.0 * (double)class_threads(s, st->job, sched_class_of(st->job, w));
        if (best == NULL || score > best_score) {
            best = w;
            best_score = score;
        }
    }
    return best;
}

static void task_grant(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a)
{
    sched_class_bind(s, st->job, sched_class_of(st->job, w), a);
    sched_task_move(st, t, TASK_LEASED);
    sched_lease_begin(s, st, t, w, a);
    if (st->state != RUN_RUNNING)
        sched_move_stage(s, st, RUN_RUNNING, "", a);
}

struct sched_worker *sched_task_other(struct sched *s, struct sched_stage *st,
                                      const struct sched_task *t)
{
    struct sched_worker *w = worker_pick(s, st, t, 1);

    return w != NULL && strcmp(w->id, t->worker) != 0 ? w : NULL;
}

static bool has_room(struct sched *s, const struct sched_stage *st, uint32_t depth)
{
    for (int i = 0; i < s->workers_n; i++) {
        s->looked_at++;
        if (room_of(st, s->worker[i], depth) > 0)
            return true;
    }
    return false;
}

void sched_tasks_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    uint32_t depth = depth_of(s, st);

    for (uint32_t i = task_set_next(&st->pending, 0); i != TASK_SET_NONE && has_room(s, st, depth);
         i = task_set_next(&st->pending, i + 1)) {
        struct sched_task *t = &st->task[i];
        struct sched_worker *w = worker_pick(s, st, t, depth);

        if (w == NULL && t->voices_n > 0 && !sched_audit_waits(s, st, t)) {
            t->voices_n = 0; /* whom it waited for has left */
            w = worker_pick(s, st, t, depth);
        }
        if (w != NULL)
            task_grant(s, st, t, w, a);
        else if (t->voices_n == 0)
            break;
    }
}

/* ---- time and workers ------------------------------------------------------------------------ */

void sched_tasks_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE && st->phase_open;
         i = task_set_next(&st->busy, i + 1)) {
        struct sched_task *t = &st->task[i];

        if (t->state == TASK_RETRY_WAIT && s->now_ms >= t->retry_at_ms) {
            sched_task_move(st, t, TASK_PENDING);
            sched_task_save(a, st, t);
            continue;
        }
        if (t->state == TASK_LEASED && t->shadow.epoch != 0 && s->now_ms > t->shadow.lease_until_ms)
            sched_shadow_end(s, st, t, "expired", "the lease ran out", true, a);
        if (t->state == TASK_LEASED && s->now_ms > t->lease_until_ms) {
            sched_lease_cancel(st, t->worker, t->id, t->epoch, a);
            sched_task_lost(s, st, t, "expired", "the lease ran out", false, 0, a);
        }
    }
    if (st->phase_open)
        sched_tasks_overtake(s, st, a);
}

/* Calls fn for every task of an open phase that a worker holds. */
static void each_held(struct sched *s, const char *worker,
                      void (*fn)(struct sched *s, struct sched_stage *st, struct sched_task *t,
                                 void *self, struct sched_actions *a),
                      void *self, struct sched_actions *a)
{
    sched_open_refresh(s);
    for (int k = 0; k < s->open_n; k++) {
        struct sched_stage *st = s->open[k];

        for (uint32_t n = task_set_next(&st->busy, 0); n != TASK_SET_NONE && st->phase_open;
             n = task_set_next(&st->busy, n + 1)) {
            struct sched_task *t = &st->task[n];

            if (t->state == TASK_LEASED &&
                (strcmp(t->worker, worker) == 0 ||
                 (t->shadow.epoch != 0 && strcmp(t->shadow.worker, worker) == 0)))
                fn(s, st, t, self, a);
        }
    }
}

struct goner {
    const char *worker;
    bool crashed;
};

static void task_orphaned(struct sched *s, struct sched_stage *st, struct sched_task *t, void *self,
                          struct sched_actions *a)
{
    const struct goner *g = self;
    const char *why = g->crashed ? "the worker died" : "the worker left";

    if (strcmp(t->worker, g->worker) != 0)
        sched_shadow_end(s, st, t, "lost", why, false, a);
    else
        sched_task_lost(s, st, t, "lost", why, g->crashed, 0, a);
}

void sched_tasks_worker_gone(struct sched *s, const char *worker, bool crashed,
                             struct sched_actions *a)
{
    struct goner g = {worker, crashed};

    each_held(s, worker, task_orphaned, &g, a);
}

/* Its results of open phases that no other worker has agreed to. */
static void results_drop(struct sched *s, struct sched_stage *st, const char *worker,
                         struct sched_actions *a)
{
    uint32_t dropped = 0;

    for (uint32_t i = 0; i < st->tasks_n; i++) {
        struct sched_task *t = &st->task[i];
        bool agreed = false;

        if (t->state != TASK_DONE || strcmp(t->worker, worker) != 0)
            continue;
        for (uint32_t k = 0; k < t->voices_n; k++)
            agreed = agreed || t->voice[k].who != control_who(worker);
        if (agreed)
            continue;
        cJSON_Delete(t->result);
        t->result = NULL;
        t->voices_n = 0;
        st->tasks_done--;
        st->rows_done -= sched_task_rows(t);
        sched_task_move(st, t, TASK_PENDING);
        sched_task_save(a, st, t);
        dropped++;
    }
    s->counters.recomputed += dropped;
    if (dropped > 0)
        sched_note(a, st->job, st, "tasks.again", "%u results of %s do not count any more", dropped,
                   worker);
}

static void job_results_drop(struct sched *s, struct sched_job *j, const char *worker,
                             struct sched_actions *a)
{
    for (int k = 0; k < j->stages_n && !run_state_is_final(j->state); k++) {
        if (!run_state_is_final(j->stage[k].state))
            results_drop(s, &j->stage[k], worker, a);
    }
}

void sched_tasks_again(struct sched *s, const char *worker, struct sched_actions *a)
{
    for (int i = 0; i < s->jobs_n; i++)
        job_results_drop(s, s->job[i], worker, a);
}

void sched_tasks_distrust(struct sched *s, struct sched_job *j, struct sched_actions *a)
{
    for (int i = 0; i < s->quarantine_n; i++)
        job_results_drop(s, j, s->quarantine[i].worker, a);
}

static const struct sched_lease *lease_of(const struct sched_event *ev, uint64_t task,
                                          uint64_t epoch)
{
    for (int i = 0; i < ev->leases_n; i++) {
        if (ev->lease[i].task == task && ev->lease[i].epoch == epoch)
            return &ev->lease[i];
    }
    return NULL;
}

static bool is_still(const struct sched *s, const struct sched_task *t, uint32_t limit_ms)
{
    return limit_ms > 0 && t->moved > 0 && s->now_ms > t->moved_ms &&
           s->now_ms - t->moved_ms > limit_ms;
}

bool sched_task_hangs(const struct sched *s, const struct sched_task *t)
{
    return is_still(s, t, s->config.hang_ms);
}

/* A worker may say that it lives while the thread of this lease hangs: then, in the end, the lease
 * runs out. */
static void lease_renew(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const struct sched_lease *l)
{
    if (l->moved != t->moved)
        t->moved_ms = s->now_ms;
    t->moved = l->moved;
    if (t->leased_ms == 0) { /* granted before a restart of the coordinator */
        t->leased_ms = s->now_ms;
        s->counters.adopted++;
    }
    if (t->done != l->done || t->total != l->total)
        st->job->version++;
    t->done = l->done;
    t->total = l->total;
    if (!is_still(s, t, s->config.abandon_ms))
        t->lease_until_ms = s->now_ms + s->config.lease_ms;
}

/* 1: the first lease of t, 2: its shadow, 0: neither. */
static int lease_which(const struct sched_task *t, const char *worker, uint64_t epoch)
{
    if (t->state != TASK_LEASED)
        return 0;
    if (t->epoch == epoch && strcmp(t->worker, worker) == 0)
        return 1;
    return t->shadow.epoch != 0 && t->shadow.epoch == epoch && strcmp(t->shadow.worker, worker) == 0
               ? 2
               : 0;
}

struct returner {
    const struct sched_event *ev;
    uint32_t running;
};

static void task_claimed(struct sched *s, struct sched_stage *st, struct sched_task *t, void *self,
                         struct sched_actions *a)
{
    struct returner *r = self;
    const char *why = "the worker came back without it";
    bool first = strcmp(t->worker, r->ev->worker) == 0;

    if (lease_of(r->ev, t->id, first ? t->epoch : t->shadow.epoch) != NULL)
        r->running++;
    else if (first)
        sched_task_lost(s, st, t, "lost", why, false, 0, a);
    else
        sched_shadow_end(s, st, t, "lost", why, false, a);
}

/* whole: the worker has just said hello, so its list is all that it has, and what it does not hold
 * is lost. */
void sched_tasks_reattach(struct sched *s, const struct sched_event *ev, bool whole,
                          struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, ev->worker);
    struct returner r = {ev, 0};

    if (w == NULL)
        return;
    for (int i = 0; i < ev->leases_n; i++) {
        struct sched_stage *st = NULL;
        struct sched_task *t = sched_open_task(s, ev->lease[i].task, &st);
        int which = t != NULL ? lease_which(t, ev->worker, ev->lease[i].epoch) : 0;

        if (which == 0) {
            sched_lease_cancel(NULL, ev->worker, ev->lease[i].task, ev->lease[i].epoch, a);
            s->counters.fenced++;
            continue;
        }
        if (which == 2)
            sched_shadow_swap(t);
        lease_renew(s, st, t, &ev->lease[i]);
        if (which == 2)
            sched_shadow_swap(t);
    }
    if (!whole)
        return;
    each_held(s, ev->worker, task_claimed, &r, a);
    w->running = r.running;
}

/* ---- answers --------------------------------------------------------------------------------- */

static struct sched_task *answered(struct sched *s, const struct sched_event *ev,
                                   struct sched_stage **st, int *which, struct sched_actions *a)
{
    struct sched_task *t = sched_open_task(s, ev->task, st);
    struct sched_action *act = sched_act(a, SCHED_SEND_ACK, NULL, NULL);

    snprintf(act->worker, sizeof act->worker, "%s", ev->worker);
    act->number = ev->task;
    act->epoch = ev->epoch;
    *which = t != NULL ? lease_which(t, ev->worker, ev->epoch) : 0;
    if (*which == 0) {
        s->counters.stale++;
        return NULL;
    }
    return t;
}

/* The result is remembered; another worker's is wanted as well. */
static void task_again(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_actions *a)
{
    if (sched_shadow_rises(s, st, t, "succeeded", "", a)) /* somebody is at it */
        return;
    sched_lease_end(s, st, t, "succeeded", "", a);
    sched_task_move(st, t, TASK_PENDING);
    sched_task_save(a, st, t);
}

static void pace_take(struct sched *s, struct sched_stage *st, const struct sched_task *t,
                      const struct sched_event *ev)
{
    double took = (double)(s->now_ms - t->leased_ms), busy = (double)ev->busy_us;

    st->task_ms = st->task_ms > 0 ? 0.8 * st->task_ms + 0.2 * took : took;
    if (busy > 0)
        st->busy_us = st->busy_us > 0 ? 0.8 * st->busy_us + 0.2 * busy : busy;
}

bool sched_on_task_done(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_stage *st = NULL;
    int which = 0;
    struct sched_task *t = answered(s, ev, &st, &which, a);
    enum sched_audit verdict;
    bool plain;

    if (t == NULL)
        return true;
    plain = t->shadow.epoch == 0 && t->voices_n == 0;
    if (which == 2)
        sched_shadow_swap(t);
    verdict = sched_audit_take(s, st, t, ev->worker, ev->result, a);
    if (verdict == AUDIT_MORE)
        task_again(s, st, t, a);
    if (verdict == AUDIT_FAILED) {
        sched_lease_end(s, st, t, "failed", t->text, a);
        sched_task_quarantine(s, st, t, "infrastructure", t->text, a);
    }
    if (verdict != AUDIT_COUNTS || t->state != TASK_LEASED)
        return false;
    sched_shadow_end(s, st, t, "overtaken", "another worker was done before", true, a);
    pace_take(s, st, t, ev);
    sched_lease_end(s, st, t, "succeeded", "", a);
    sched_task_move(st, t, TASK_DONE);
    t->result = ev->result;
    ev->result = NULL;
    t->code = 0;
    t->text[0] = '\0';
    st->tasks_done++;
    st->rows_done += sched_task_rows(t);
    sched_task_save(a, st, t);
    return plain && st->tasks_done < st->tasks_n;
}

void sched_on_task_failed(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_stage *st = NULL;
    int which = 0;
    struct sched_task *t = answered(s, ev, &st, &which, a);
    const char *why = ev->text != NULL ? ev->text : "";

    if (t == NULL)
        return;
    s->counters.parked += ev->code == ERR_NO_SPACE;
    if (which == 2 && sched_code_is_loss(ev->code)) {
        t->shadow_failed = control_who(ev->worker);
        t->shadow_retry_ms = s->now_ms + sched_backoff(s, ++t->shadow_fails);
        sched_shadow_end(s, st, t, "failed", why, false, a);
        return;
    }
    if (which == 2)
        sched_shadow_swap(t); /* a fault of the task's own counts whoever met it */
    if (sched_code_is_loss(ev->code)) {
        sched_task_lost(s, st, t, ev->code == ERR_CANCELLED ? "returned" : "failed", why, false,
                        ev->code, a);
        return;
    }
    if (ev->code == ERR_CORRUPT) /* what it read may be damaged here already */
        sched_mend(a, st, why);
    t->faults++;
    t->code = ev->code;
    snprintf(t->text, sizeof t->text, "%.*s", (int)sizeof t->text - 1, why);
    if (t->faults < s->config.fault_budget && sched_shadow_rises(s, st, t, "failed", why, a))
        return;
    sched_lease_end(s, st, t, "failed", why, a);
    if (t->faults >= s->config.fault_budget) {
        sched_task_quarantine(
            s, st, t, ev->code == ERR_CORRUPT || ev->code == ERR_NUMERIC ? "data" : "user", why, a);
        return;
    }
    sched_task_move(st, t, TASK_RETRY_WAIT);
    t->retry_at_ms = s->now_ms + sched_backoff(s, t->faults);
    sched_task_save(a, st, t);
}
