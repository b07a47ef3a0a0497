/*
 * Leases. A grant raises the task's epoch and names a worker; the grant is committed before the
 * worker hears of it. Whatever ends a lease (result, failure, silence, good-bye) ends exactly that
 * epoch; anything that comes later under it is stale.
 *
 * A task that is slow or hangs gets a shadow: a second lease of a higher epoch elsewhere
 * (sched_overtake.c says when). Whichever result is here first is the task's; when the first lease
 * ends otherwise the shadow takes its place, so a task never waits while somebody works on it.
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
#include "wire/control.h" /* control_who() */

#define AHEAD_US 20000.0 /* of work that may wait at a worker for a thread */

static const uint32_t task_next[] = {
#define X(name, next) [name] = next,
    TASK_STATES(X)
#undef X
};

static void task_index(struct sched_stage *st, const struct sched_task *t)
{
    if (t->state == TASK_PENDING)
        task_set_add(&st->pending, t->index);
    else
        task_set_drop(&st->pending, t->index);
    if (t->state == TASK_LEASED || t->state == TASK_RETRY_WAIT)
        task_set_add(&st->busy, t->index);
    else
        task_set_drop(&st->busy, t->index);
}

static void task_move(struct sched_stage *st, struct sched_task *t, enum task_state to)
{
    CHECK(task_next[t->state] & BIT(to)); /* task_next[] is made from TASK_STATES */
    t->state = to;
    task_index(st, t);
}

void sched_tasks_index(struct sched_stage *st)
{
    task_set_init(&st->pending, st->tasks_n, false);
    task_set_init(&st->busy, st->tasks_n, false);
    st->rows_done = 0;
    for (uint32_t i = 0; i < st->tasks_n; i++) {
        task_index(st, &st->task[i]);
        st->rows_done += st->task[i].state == TASK_DONE ? sched_task_rows(&st->task[i]) : 0;
    }
}

static void task_save(struct sched_actions *a, struct sched_stage *st, struct sched_task *t)
{
    struct sched_action *act = sched_act(a, SCHED_SAVE_TASK, st->job, st);

    st->job->version++;
    act->task = t;
    snprintf(act->text, sizeof act->text, "%s", st->phase.name);
}

static void shadow_swap(struct sched_task *t)
{
    struct sched_shadow other = {.epoch = t->epoch,
                                 .lease_until_ms = t->lease_until_ms,
                                 .leased_ms = t->leased_ms,
                                 .done = t->done,
                                 .total = t->total,
                                 .moved = t->moved,
                                 .moved_ms = t->moved_ms};

    memcpy(other.worker, t->worker, sizeof other.worker);
    t->epoch = t->shadow.epoch;
    memcpy(t->worker, t->shadow.worker, sizeof t->worker);
    t->lease_until_ms = t->shadow.lease_until_ms;
    t->leased_ms = t->shadow.leased_ms;
    t->done = t->shadow.done;
    t->total = t->shadow.total;
    t->moved = t->shadow.moved;
    t->moved_ms = t->shadow.moved_ms;
    t->shadow = other;
}

static void cancel_tell(struct sched_stage *st, const char *worker, uint64_t task, uint64_t epoch,
                        struct sched_actions *a)
{
    struct sched_action *act =
        sched_act(a, SCHED_SEND_TASK_CANCEL, st != NULL ? st->job : NULL, st);

    snprintf(act->worker, sizeof act->worker, "%s", worker);
    act->number = task;
    act->epoch = epoch;
}

/* Ends the running attempt: outcome is succeeded, failed, lost, expired, returned, overtaken or
 * cancelled. */
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

/* The second lease ends, the first goes on. */
static void shadow_end(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       const char *outcome, const char *why, bool tell, struct sched_actions *a)
{
    if (t->shadow.epoch == 0)
        return;
    if (tell)
        cancel_tell(st, t->shadow.worker, t->id, t->shadow.epoch, a);
    shadow_swap(t);
    lease_end(s, st, t, outcome, why, a);
    shadow_swap(t);
    t->shadow = (struct sched_shadow){0};
}

/* The first lease ends without a result, the second takes its place. False: there is none. */
static bool shadow_rises(struct sched *s, struct sched_stage *st, struct sched_task *t,
                         const char *outcome, const char *why, struct sched_actions *a)
{
    if (t->shadow.epoch == 0)
        return false;
    shadow_swap(t);
    shadow_end(s, st, t, outcome, why, false, a);
    task_save(a, st, t);
    return true;
}

static void quarantine(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       const char *class_name, const char *why, struct sched_actions *a)
{
    struct sched_failure f = {.code = t->code, .task = t->id, .attempt = (uint32_t)t->epoch};

    shadow_end(s, st, t, "cancelled", "", true, a);
    task_move(st, t, TASK_QUARANTINED);
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
    crashed = crashed && crash_counts(s, t);
    if (!crashed && t->losses <= s->config.loss_budget && shadow_rises(s, st, t, outcome, why, a))
        return;
    lease_end(s, st, t, outcome, why, a);
    if (crashed) {
        snprintf(text, sizeof text, "%d different workers died while they ran it", t->crashes);
        quarantine(s, st, t, "data", text, a);
        return;
    }
    if (t->losses > s->config.loss_budget) {
        snprintf(text, sizeof text, "lost %u times, last: %.150s", t->losses, why);
        quarantine(s, st, t, "infrastructure", text, a);
        return;
    }
    s->counters.recomputed++;
    if (wait)
        task_move(st, t, TASK_RETRY_WAIT);
    else
        task_move(st, t, TASK_PENDING);
    t->retry_at_ms = s->now_ms + sched_backoff(s, t->losses);
    task_save(a, st, t);
}

void sched_task_cancel(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_actions *a)
{
    if (t->state == TASK_LEASED) {
        shadow_end(s, st, t, "cancelled", "", true, a);
        cancel_tell(st, t->worker, t->id, t->epoch, a);
        lease_end(s, st, t, "cancelled", "", a);
    } else if (t->state != TASK_PENDING && t->state != TASK_RETRY_WAIT) {
        return;
    }
    task_move(st, t, TASK_CANCELLED);
    task_save(a, st, t);
}

void sched_task_release(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const char *outcome, struct sched_actions *a)
{
    if (t->state != TASK_LEASED)
        return;
    shadow_end(s, st, t, outcome, "", true, a);
    cancel_tell(st, t->worker, t->id, t->epoch, a);
    lease_end(s, st, t, outcome, "", a);
    task_move(st, t, TASK_PENDING);
    task_save(a, st, t);
}

/* ---- giving out
 * -------------------------------------------------------------------------------------------------
 */
const char *sched_class_of(const struct sched_job *j, const struct sched_worker *w)
{
    return j->bf16 ? w->class_bf16 : w->class_id;
}

bool sched_class_fits(const struct sched_job *j, const struct sched_worker *w)
{
    const char *class_id = sched_class_of(j, w);

    if (j->bf16 && class_id[0] == '\0')
        return false;
    return !j->class_bound || sched_class_is_any(j) || strcmp(j->class_id, class_id) == 0;
}

bool sched_class_is_any(const struct sched_job *j)
{
    return j->class_bound && strcmp(j->class_id, SCHED_ANY_CLASS) == 0;
}

/* A worker whose arithmetic is not the job's is told so, once, and so is the job. */
static void class_tell(struct sched *s, struct sched_job *j, struct sched_worker *w,
                       struct sched_actions *a)
{
    const char *class_id = sched_class_of(j, w);
    struct sched_action *act;

    if (w->other_class || run_state_is_final(j->state) || sched_class_fits(j, w))
        return;
    w->other_class = true;
    s->counters.refused++;
    act = sched_act(a, SCHED_SEND_NOTE, NULL, NULL);
    snprintf(act->worker, sizeof act->worker, "%s", w->id);
    if (class_id[0] == '\0') {
        sched_note(a, j, NULL, "worker.other_class",
                   "%s gets no work: the job trains with numerics: bf16, which it does not do",
                   w->id);
        snprintf(act->note, sizeof act->note,
                 "no work of jobs with `numerics: bf16`: they need AVX512_BF16, or AVX2 and FMA, "
                 "and a worker without --bf16 off");
        return;
    }
    sched_note(a, j, NULL, "worker.other_class",
               "%s gets no work: its numerics class is %.12s, the job runs on %.12s", w->id,
               class_id, j->class_id);
    snprintf(
        act->note, sizeof act->note,
        "no work of jobs that run on numerics class %.12s: the class of this machine is %.12s, "
        "so its results would differ in the last bits; jobs with `numerics: any` take it",
        j->class_id, class_id);
}

void sched_class_up(struct sched *s, struct sched_worker *w, struct sched_actions *a)
{
    w->other_class = false;
    for (int i = 0; i < s->jobs_n && !w->other_class; i++)
        class_tell(s, s->job[i], w, a);
}

void sched_class_new(struct sched *s, struct sched_job *j, struct sched_actions *a)
{
    for (int i = 0; i < s->workers_n; i++)
        class_tell(s, j, s->worker[i], a);
}

void sched_class_bind(struct sched *s, struct sched_job *j, const char *class_id,
                      struct sched_actions *a)
{
    if (j->class_bound)
        return;
    j->class_bound = true;
    snprintf(j->class_id, sizeof j->class_id, "%s", class_id);
    sched_act(a, SCHED_SAVE_JOB, j, NULL);
    sched_class_new(s, j, a);
}

bool sched_class_join(struct sched *s, struct sched_job *j, const char *class_id,
                      struct sched_actions *a)
{
    bool here = s->workers_n == 0;

    if (class_id == NULL || class_id[0] == '\0' || sched_class_is_any(j))
        return true;
    for (int i = 0; i < s->workers_n && !here; i++)
        here = strcmp(sched_class_of(j, s->worker[i]), class_id) == 0;
    if (here)
        sched_class_bind(s, j, class_id, a);
    return j->class_bound && strcmp(j->class_id, class_id) == 0;
}

/* How many more leases it may hold, at so many a thread. */
static uint32_t room_of(const struct sched_worker *w, uint32_t depth)
{
    uint32_t most = w->threads * depth;

    if (!sched_worker_usable(w) || w->in != NULL || (w->roles & SCHED_ROLE_COMPUTE) == 0)
        return 0;
    if (most > SCHED_LEASES_MAX)
        most = w->threads > SCHED_LEASES_MAX ? w->threads : SCHED_LEASES_MAX;
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
    return t->faults + t->losses > 0 && strcmp(t->worker, w->id) == 0;
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
        uint32_t spare = room_of(w, depth);
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

/* The next epoch of a task, at w: into the place of the first lease. */
static void lease_begin(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        struct sched_worker *w, struct sched_actions *a)
{
    struct sched_action *act;

    t->epoch = ++t->granted;
    t->done = t->moved = 0;
    t->leased_ms = t->moved_ms = s->now_ms;
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
}

static void task_grant(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a)
{
    sched_class_bind(s, st->job, sched_class_of(st->job, w), a);
    task_move(st, t, TASK_LEASED);
    lease_begin(s, st, t, w, a);
    if (st->state != RUN_RUNNING)
        sched_move_stage(s, st, RUN_RUNNING, "", a);
}

struct sched_worker *sched_task_other(struct sched *s, struct sched_stage *st,
                                      const struct sched_task *t)
{
    struct sched_worker *w = worker_pick(s, st, t, 1);

    return w != NULL && strcmp(w->id, t->worker) != 0 ? w : NULL;
}

void sched_task_shadow(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a)
{
    CHECK(t->state == TASK_LEASED && t->shadow.epoch == 0);
    shadow_swap(t);
    lease_begin(s, st, t, w, a);
    shadow_swap(t);
    s->counters.overtaken++;
}

static bool has_room(struct sched *s, uint32_t depth)
{
    for (int i = 0; i < s->workers_n; i++) {
        s->looked_at++;
        if (room_of(s->worker[i], depth) > 0)
            return true;
    }
    return false;
}

void sched_tasks_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    uint32_t depth = depth_of(s, st);

    for (uint32_t i = task_set_next(&st->pending, 0); i != TASK_SET_NONE && has_room(s, depth);
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

/* ---- time and workers
 * ------------------------------------------------------------------------------------------- */
void sched_tasks_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE && st->phase_open;
         i = task_set_next(&st->busy, i + 1)) {
        struct sched_task *t = &st->task[i];

        if (t->state == TASK_RETRY_WAIT && s->now_ms >= t->retry_at_ms) {
            task_move(st, t, TASK_PENDING);
            task_save(a, st, t);
            continue;
        }
        if (t->state == TASK_LEASED && t->shadow.epoch != 0 && s->now_ms > t->shadow.lease_until_ms)
            shadow_end(s, st, t, "expired", "the lease ran out", true, a);
        if (t->state == TASK_LEASED && s->now_ms > t->lease_until_ms) {
            cancel_tell(st, t->worker, t->id, t->epoch, a);
            task_lost(s, st, t, "expired", "the lease ran out", false, false, a);
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
        shadow_end(s, st, t, "lost", why, false, a);
    else
        task_lost(s, st, t, "lost", why, g->crashed, false, a);
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
        task_move(st, t, TASK_PENDING);
        task_save(a, st, t);
        dropped++;
    }
    s->counters.recomputed += dropped;
    if (dropped > 0)
        sched_note(a, st->job, st, "tasks.again", "%u results of %s do not count any more", dropped,
                   worker);
}

void sched_tasks_again(struct sched *s, const char *worker, struct sched_actions *a)
{
    for (int i = 0; i < s->jobs_n; i++) {
        struct sched_job *j = s->job[i];

        for (int k = 0; k < j->stages_n && !run_state_is_final(j->state); k++)
            if (!run_state_is_final(j->stage[k].state))
                results_drop(s, &j->stage[k], worker, a);
    }
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
        task_lost(s, st, t, "lost", why, false, false, a);
    else
        shadow_end(s, st, t, "lost", why, false, a);
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
            cancel_tell(NULL, ev->worker, ev->lease[i].task, ev->lease[i].epoch, a);
            s->counters.fenced++;
            continue;
        }
        if (which == 2)
            shadow_swap(t);
        lease_renew(s, st, t, &ev->lease[i]);
        if (which == 2)
            shadow_swap(t);
    }
    if (!whole)
        return;
    each_held(s, ev->worker, task_claimed, &r, a);
    w->running = r.running;
}

/* ---- answers
 * ----------------------------------------------------------------------------------------------------
 */
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
    if (shadow_rises(s, st, t, "succeeded", "", a)) /* somebody is at it */
        return;
    lease_end(s, st, t, "succeeded", "", a);
    task_move(st, t, TASK_PENDING);
    task_save(a, st, t);
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
        shadow_swap(t);
    verdict = sched_audit_take(s, st, t, ev->worker, ev->result, a);
    if (verdict == AUDIT_MORE)
        task_again(s, st, t, a);
    if (verdict == AUDIT_FAILED) {
        lease_end(s, st, t, "failed", t->text, a);
        quarantine(s, st, t, "infrastructure", t->text, a);
    }
    if (verdict != AUDIT_COUNTS || t->state != TASK_LEASED)
        return false;
    shadow_end(s, st, t, "overtaken", "another worker was done before", true, a);
    pace_take(s, st, t, ev);
    lease_end(s, st, t, "succeeded", "", a);
    task_move(st, t, TASK_DONE);
    t->result = ev->result;
    ev->result = NULL;
    t->code = 0;
    t->text[0] = '\0';
    st->tasks_done++;
    st->rows_done += sched_task_rows(t);
    task_save(a, st, t);
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
        shadow_end(s, st, t, "failed", why, false, a);
        return;
    }
    if (which == 2)
        shadow_swap(t); /* a fault of the task's own counts whoever met it */
    if (sched_code_is_loss(ev->code)) {
        task_lost(s, st, t, ev->code == ERR_CANCELLED ? "returned" : "failed", why, false,
                  ev->code != ERR_CANCELLED, a);
        t->code = ev->code;
        return;
    }
    t->faults++;
    t->code = ev->code;
    snprintf(t->text, sizeof t->text, "%.*s", (int)sizeof t->text - 1, why);
    if (t->faults < s->config.fault_budget && shadow_rises(s, st, t, "failed", why, a))
        return;
    lease_end(s, st, t, "failed", why, a);
    if (t->faults >= s->config.fault_budget) {
        quarantine(s, st, t, ev->code == ERR_CORRUPT || ev->code == ERR_NUMERIC ? "data" : "user",
                   why, a);
        return;
    }
    task_move(st, t, TASK_RETRY_WAIT);
    t->retry_at_ms = s->now_ms + sched_backoff(s, t->faults);
    task_save(a, st, t);
}
