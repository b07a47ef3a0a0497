/*
 * Leases. A grant raises the task's epoch and names a worker; the grant is committed before the
 * worker hears of it. Whatever ends a lease (result, failure, silence, good-bye) ends exactly that
 * epoch; anything that comes later under it is stale.
 *
 * Two budgets: `losses` counts machines that went away or could not (network, disk), `faults`
 * counts the task's own failures. A worker that died under a task is remembered by name: several
 * different ones make the task the suspect.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/sched_inner.h"

static const uint32_t task_next[] = {
#define X(name, next) [name] = next,
    TASK_STATES(X)
#undef X
};

static void task_move(struct sched_task *t, enum task_state to)
{
    CHECK(task_next[t->state] & BIT(to)); /* task_next[] is made from TASK_STATES */
    t->state = to;
}

static void task_pend(struct sched_stage *st, struct sched_task *t)
{
    task_move(t, TASK_PENDING);
    st->pending_from = t->index < st->pending_from ? t->index : st->pending_from;
}

static void task_save(struct sched_actions *a, struct sched_stage *st, struct sched_task *t)
{
    struct sched_action *act = sched_act(a, SCHED_SAVE_TASK, st->job, st);

    st->job->version++;
    act->task = t;
    snprintf(act->text, sizeof act->text, "%s", st->phase.name);
}

/* The task of an id among the open phases; NULL if it is over or was never ours. */
static struct sched_task *task_find(const struct sched *s, uint64_t id, struct sched_stage **stage)
{
    for (int i = 0; i < s->jobs_n; i++) {
        if (run_state_is_final(s->job[i]->state))
            continue;
        for (int k = 0; k < s->job[i]->stages_n; k++) {
            struct sched_stage *st = &s->job[i]->stage[k];
            uint64_t first = st->tasks_n > 0 ? st->task[0].id : 0;

            if (st->tasks_n > 0 && id >= first &&
                id - first < st->tasks_n) { /* ids of a phase are consecutive */
                *stage = st;
                return &st->task[id - first];
            }
        }
    }
    return NULL;
}

/* Ends the running attempt: outcome is succeeded, failed, lost, expired, returned or cancelled. */
static void lease_end(struct sched *s, struct sched_stage *st, struct sched_task *t,
                      const char *outcome, const char *why, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, t->worker);
    struct sched_action *act = sched_act(a, SCHED_ATTEMPT_END, st->job, st);

    if (w != NULL && w->running > 0)
        w->running--;
    act->task = t;
    act->number = t->id;
    act->epoch = t->epoch;
    snprintf(act->worker, sizeof act->worker, "%s", t->worker);
    snprintf(act->text, sizeof act->text, "%s", outcome);
    snprintf(act->note, sizeof act->note, "%s", why);
    act->value = (double)(s->now_ms - t->leased_ms);
    t->done = 0;
    t->lease_until_ms = 0;
}

static void quarantine(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       const char *class_name, const char *why, struct sched_actions *a)
{
    struct sched_failure f = {.code = t->code, .task = t->id, .attempt = (uint32_t)t->epoch};

    task_move(t, TASK_QUARANTINED);
    task_save(a, st, t);
    snprintf(f.class_name, sizeof f.class_name, "%s", class_name);
    snprintf(f.worker, sizeof f.worker, "%s", t->worker);
    snprintf(f.message, sizeof f.message, "task %u of phase %s: %s", t->index, st->phase.name, why);
    sched_note(a, st->job, st, "task.quarantined", "task %u: %.180s", t->index, why);
    sched_fail(s, st, &f, a);
}

static bool crash_counts(struct sched *s, struct sched_task *t)
{
    for (int i = 0; i < t->crashes; i++) {
        if (strcmp(t->crashed[i], t->worker) == 0)
            return false;
    }
    if (t->crashes < SCHED_CRASHES_MAX)
        snprintf(t->crashed[t->crashes++], SCHED_WORKER_MAX, "%s", t->worker);
    return s->config.crash_limit > 0 && t->crashes >= s->config.crash_limit;
}

/* A lease that ended without a verdict on the task itself. */
static void task_lost(struct sched *s, struct sched_stage *st, struct sched_task *t,
                      const char *outcome, const char *why, bool crashed, bool wait,
                      struct sched_actions *a)
{
    char text[SCHED_TEXT_MAX];

    t->losses++;
    t->code = ERR_UNREACHABLE;
    snprintf(t->text, sizeof t->text, "%.*s", (int)sizeof t->text - 1, why);
    lease_end(s, st, t, outcome, why, a);
    if (crashed && crash_counts(s, t)) {
        snprintf(text, sizeof text, "%d different workers died while they ran it", t->crashes);
        quarantine(s, st, t, "data", text, a);
        return;
    }
    if (t->losses > s->config.loss_budget) {
        snprintf(text, sizeof text, "lost %u times, last: %.150s", t->losses, why);
        quarantine(s, st, t, "infrastructure", text, a);
        return;
    }
    if (wait)
        task_move(t, TASK_RETRY_WAIT);
    else
        task_pend(st, t);
    t->retry_at_ms = s->now_ms + sched_backoff(s, t->losses);
    task_save(a, st, t);
}

void sched_task_cancel(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_actions *a)
{
    if (t->state == TASK_LEASED) {
        struct sched_action *act = sched_act(a, SCHED_SEND_TASK_CANCEL, st->job, st);

        snprintf(act->worker, sizeof act->worker, "%s", t->worker);
        act->number = t->id;
        act->epoch = t->epoch;
        lease_end(s, st, t, "cancelled", "", a);
    } else if (t->state != TASK_PENDING && t->state != TASK_RETRY_WAIT) {
        return;
    }
    task_move(t, TASK_CANCELLED);
    task_save(a, st, t);
}

void sched_task_release(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const char *outcome, struct sched_actions *a)
{
    struct sched_action *act;

    if (t->state != TASK_LEASED)
        return;
    act = sched_act(a, SCHED_SEND_TASK_CANCEL, st->job, st);
    snprintf(act->worker, sizeof act->worker, "%s", t->worker);
    act->number = t->id;
    act->epoch = t->epoch;
    lease_end(s, st, t, outcome, "", a);
    task_pend(st, t);
    task_save(a, st, t);
}

/* ---- giving out
 * -------------------------------------------------------------------------------------------------
 */
bool sched_class_fits(struct sched *s, struct sched_job *j, const struct sched_worker *w)
{
    (void)s;
    return !j->class_bound || strcmp(j->class_id, w->class_id) == 0;
}

void sched_class_bind(struct sched_job *j, const struct sched_worker *w, struct sched_actions *a)
{
    if (j->class_bound)
        return;
    j->class_bound = true;
    snprintf(j->class_id, sizeof j->class_id, "%s", w->class_id);
    sched_act(a, SCHED_SAVE_JOB, j, NULL);
}

static uint32_t free_threads(const struct sched_worker *w)
{
    if (w->suspect || w->draining || w->in != NULL || (w->roles & SCHED_ROLE_COMPUTE) == 0)
        return 0;
    return w->threads > w->running ? w->threads - w->running : 0;
}

static bool shy_of(const struct sched_task *t, const struct sched_worker *w)
{
    for (int i = 0; i < t->crashes; i++) {
        if (strcmp(t->crashed[i], w->id) == 0)
            return true;
    }
    return t->faults + t->losses > 0 && strcmp(t->worker, w->id) == 0;
}

/* The freest worker; one that this task has not failed on, if there is any. */
static struct sched_worker *worker_pick(struct sched *s, struct sched_stage *st,
                                        const struct sched_task *t)
{
    struct sched_worker *best = NULL;
    double best_score = 0;

    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];
        uint32_t spare = free_threads(w);
        double score = 0;

        if (spare == 0 || !sched_class_fits(s, st->job, w))
            continue;
        score = (double)spare / (double)w->threads - (shy_of(t, w) ? 2.0 : 0.0);
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
    struct sched_action *act;

    sched_class_bind(st->job, w, a);
    task_move(t, TASK_LEASED);
    t->epoch++;
    t->done = 0;
    t->leased_ms = s->now_ms;
    t->lease_until_ms = s->now_ms + s->config.lease_ms;
    snprintf(t->worker, sizeof t->worker, "%s", w->id);
    w->running++;
    task_save(a, st, t);
    act = sched_act(a, SCHED_ATTEMPT_BEGIN, st->job, st);
    act->task = t;
    act->number = t->id;
    act->epoch = t->epoch;
    snprintf(act->worker, sizeof act->worker, "%s", w->id);
    act = sched_act(a, SCHED_SEND_TASK, st->job, st);
    act->task = t;
    act->epoch = t->epoch;
    snprintf(act->worker, sizeof act->worker, "%s", w->id);
    if (st->state != RUN_RUNNING)
        sched_move_stage(s, st, RUN_RUNNING, "", a);
}

void sched_tasks_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    for (; st->pending_from < st->tasks_n; st->pending_from++) {
        struct sched_task *t = &st->task[st->pending_from];
        struct sched_worker *w = NULL;

        if (t->state != TASK_PENDING)
            continue;
        w = worker_pick(s, st, t);
        if (w == NULL)
            break;
        task_grant(s, st, t, w, a);
    }
}

/* ---- time and workers
 * ------------------------------------------------------------------------------------------- */
void sched_tasks_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    for (uint32_t i = 0; i < st->tasks_n && st->phase_open; i++) {
        struct sched_task *t = &st->task[i];

        if (t->state == TASK_RETRY_WAIT && s->now_ms >= t->retry_at_ms) {
            task_pend(st, t);
            task_save(a, st, t);
        } else if (t->state == TASK_LEASED && s->now_ms > t->lease_until_ms) {
            struct sched_action *act = sched_act(a, SCHED_SEND_TASK_CANCEL, st->job, st);

            snprintf(act->worker, sizeof act->worker, "%s", t->worker);
            act->number = t->id;
            act->epoch = t->epoch;
            task_lost(s, st, t, "expired", "the lease ran out", false, false, a);
        }
    }
}

void sched_tasks_worker_gone(struct sched *s, const char *worker, bool crashed,
                             struct sched_actions *a)
{
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            for (uint32_t t = 0; t < st->tasks_n && st->phase_open; t++) {
                struct sched_task *task = &st->task[t];

                if (task->state == TASK_LEASED && strcmp(task->worker, worker) == 0)
                    task_lost(s, st, task, "lost", crashed ? "the worker died" : "the worker left",
                              crashed, false, a);
            }
        }
    }
}

static const struct sched_lease *lease_of(const struct sched_event *ev, const struct sched_task *t)
{
    for (int i = 0; i < ev->leases_n; i++) {
        if (ev->lease[i].task == t->id && ev->lease[i].epoch == t->epoch)
            return &ev->lease[i];
    }
    return NULL;
}

static void lease_renew(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const struct sched_lease *l)
{
    t->lease_until_ms = s->now_ms + s->config.lease_ms;
    if (t->leased_ms == 0)
        t->leased_ms = s->now_ms;
    if (t->done != l->done || t->total != l->total)
        st->job->version++;
    t->done = l->done;
    t->total = l->total;
}

/* A worker may say that it lives while its compute threads hang: then the lease runs out, and
 * somebody else does the work. */
static bool is_hung(const struct sched *s, const struct sched_event *ev, const struct sched_task *t)
{
    uint64_t moved = ev->progress_ms > t->leased_ms ? ev->progress_ms : t->leased_ms;

    return s->config.hang_ms > 0 && ev->progress_ms > 0 && t->leased_ms > 0 && s->now_ms > moved &&
           s->now_ms - moved > s->config.hang_ms;
}

/* whole: the worker has just said hello, so its list is all that it has, and what it does not hold
 * is lost. */
void sched_tasks_reattach(struct sched *s, const struct sched_event *ev, bool whole,
                          struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, ev->worker);
    uint32_t running = 0;

    if (w == NULL)
        return;
    for (int i = 0; i < ev->leases_n; i++) {
        struct sched_stage *st = NULL;
        struct sched_task *t = task_find(s, ev->lease[i].task, &st);

        if (t == NULL || t->state != TASK_LEASED || t->epoch != ev->lease[i].epoch ||
            strcmp(t->worker, ev->worker) != 0) {
            struct sched_action *act = sched_act(a, SCHED_SEND_TASK_CANCEL, NULL, NULL);

            snprintf(act->worker, sizeof act->worker, "%s", ev->worker);
            act->number = ev->lease[i].task;
            act->epoch = ev->lease[i].epoch;
            s->counters.fenced++;
        } else if (!is_hung(s, ev, t)) {
            lease_renew(s, st, t, &ev->lease[i]);
        }
    }
    if (!whole)
        return;
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            for (uint32_t n = 0; n < st->tasks_n && st->phase_open; n++) {
                struct sched_task *t = &st->task[n];

                if (t->state != TASK_LEASED || strcmp(t->worker, ev->worker) != 0)
                    continue;
                if (lease_of(ev, t) != NULL)
                    running++;
                else
                    task_lost(s, st, t, "lost", "the worker came back without it", false, false, a);
            }
        }
    }
    w->running = running;
}

/* ---- answers
 * ----------------------------------------------------------------------------------------------------
 */
static struct sched_task *answered(struct sched *s, const struct sched_event *ev,
                                   struct sched_stage **st, struct sched_actions *a)
{
    struct sched_task *t = task_find(s, ev->task, st);
    struct sched_action *act = sched_act(a, SCHED_SEND_ACK, NULL, NULL);

    snprintf(act->worker, sizeof act->worker, "%s", ev->worker);
    act->number = ev->task;
    act->epoch = ev->epoch;
    if (t == NULL || t->state != TASK_LEASED || t->epoch != ev->epoch ||
        strcmp(t->worker, ev->worker) != 0) {
        s->counters.stale++;
        return NULL;
    }
    return t;
}

void sched_on_task_done(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_stage *st = NULL;
    struct sched_task *t = answered(s, ev, &st, a);

    if (t == NULL)
        return;
    lease_end(s, st, t, "succeeded", "", a);
    task_move(t, TASK_DONE);
    t->result = ev->result;
    ev->result = NULL;
    t->code = 0;
    t->text[0] = '\0';
    st->tasks_done++;
    task_save(a, st, t);
}

void sched_on_task_failed(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_stage *st = NULL;
    struct sched_task *t = answered(s, ev, &st, a);
    const char *why = ev->text != NULL ? ev->text : "";

    if (t == NULL)
        return;
    if (sched_code_is_loss(ev->code)) {
        task_lost(s, st, t, ev->code == ERR_CANCELLED ? "returned" : "failed", why, false,
                  ev->code != ERR_CANCELLED, a);
        t->code = ev->code;
        return;
    }
    t->faults++;
    t->code = ev->code;
    snprintf(t->text, sizeof t->text, "%.*s", (int)sizeof t->text - 1, why);
    lease_end(s, st, t, "failed", why, a);
    if (t->faults >= s->config.fault_budget) {
        quarantine(s, st, t, ev->code == ERR_CORRUPT || ev->code == ERR_NUMERIC ? "data" : "user",
                   why, a);
        return;
    }
    task_move(t, TASK_RETRY_WAIT);
    t->retry_at_ms = s->now_ms + sched_backoff(s, t->faults);
    task_save(a, st, t);
}
