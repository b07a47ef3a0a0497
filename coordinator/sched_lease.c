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
 * counts the task's own failures. A disk that is full uses up neither: it is full until somebody
 * makes room, and the same task fits then. What a task reads and nobody has any more is looked for
 * a few times only. A worker that died under a task is remembered by name: several different ones
 * make the task the suspect. Who only could not be reached is struck off when it is back.
 */
#include "coordinator/sched_lease.h"

#include <stdio.h>
#include <string.h>

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

void sched_task_move(struct sched_stage *st, struct sched_task *t, enum task_state to)
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

void sched_task_save(struct sched_actions *a, struct sched_stage *st, struct sched_task *t)
{
    struct sched_action *act = sched_act(a, SCHED_SAVE_TASK, st->job, st);

    st->job->version++;
    act->task = t;
    snprintf(act->text, sizeof act->text, "%s", st->phase.name);
}

void sched_shadow_swap(struct sched_task *t)
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

void sched_lease_cancel(struct sched_stage *st, const char *worker, uint64_t task, uint64_t epoch,
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
void sched_lease_end(struct sched *s, struct sched_stage *st, struct sched_task *t,
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
void sched_shadow_end(struct sched *s, struct sched_stage *st, struct sched_task *t,
                      const char *outcome, const char *why, bool tell, struct sched_actions *a)
{
    if (t->shadow.epoch == 0)
        return;
    if (tell)
        sched_lease_cancel(st, t->shadow.worker, t->id, t->shadow.epoch, a);
    sched_shadow_swap(t);
    sched_lease_end(s, st, t, outcome, why, a);
    sched_shadow_swap(t);
    t->shadow = (struct sched_shadow){0};
}

/* The first lease ends without a result, the second takes its place. False: there is none. */
bool sched_shadow_rises(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const char *outcome, const char *why, struct sched_actions *a)
{
    if (t->shadow.epoch == 0)
        return false;
    sched_shadow_swap(t);
    sched_shadow_end(s, st, t, outcome, why, false, a);
    sched_task_save(a, st, t);
    return true;
}

void sched_task_quarantine(struct sched *s, struct sched_stage *st, struct sched_task *t,
                           const char *class_name, const char *why, struct sched_actions *a)
{
    struct sched_failure f = {.code = t->code, .task = t->id, .attempt = (uint32_t)t->epoch};

    sched_shadow_end(s, st, t, "cancelled", "", true, a);
    sched_task_move(st, t, TASK_QUARANTINED);
    sched_task_save(a, st, t);
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

static bool crash_strike(struct sched_task *t, const char *worker)
{
    for (int i = 0; i < t->crashes; i++) {
        if (strcmp(t->crashed[i], worker) != 0)
            continue;
        t->crashes--;
        memmove(t->crashed[i], t->crashed[i + 1], (size_t)(t->crashes - i) * sizeof t->crashed[0]);
        return true;
    }
    return false;
}

void sched_tasks_acquit(struct sched *s, const char *worker, struct sched_actions *a)
{
    sched_open_refresh(s);
    for (int k = 0; k < s->open_n; k++) {
        struct sched_stage *st = s->open[k];

        for (uint32_t i = 0; i < st->tasks_n; i++) {
            if (crash_strike(&st->task[i], worker))
                sched_task_save(a, st, &st->task[i]);
        }
    }
}

static void loss_count(struct sched_task *t, int code, const char *why)
{
    if (code == ERR_NO_SPACE)
        t->full++;
    else
        t->losses++;
    t->missing += code == ERR_NOT_FOUND;
    t->code = code != 0 ? code : ERR_UNREACHABLE;
    snprintf(t->text, sizeof t->text, "%.*s", (int)sizeof t->text - 1, why);
}

/* What it reads may be gone for good (a damaged blob leaves the store): then no other machine helps. */
static bool is_missing(const struct sched *s, const struct sched_task *t)
{
    return s->config.missing_budget > 0 && t->missing > s->config.missing_budget;
}

/* The class of the failure when it is not tried again; NULL: it is. */
static const char *given_up(struct sched *s, struct sched_task *t, bool crashed, const char *why,
                            char text[SCHED_TEXT_MAX])
{
    if (crashed && crash_counts(s, t)) {
        snprintf(text, SCHED_TEXT_MAX, "%d different workers died while they ran it", t->crashes);
        return "data";
    }
    if (is_missing(s, t)) {
        snprintf(text, SCHED_TEXT_MAX, "it did not find what it reads %u times, last: %.150s",
                 t->missing, why);
        return "data";
    }
    if (t->losses > s->config.loss_budget) {
        snprintf(text, SCHED_TEXT_MAX, "lost %u times, last: %.150s", t->losses, why);
        return "infrastructure";
    }
    return NULL;
}

/* A lease that ended without a verdict on the task itself. */
void sched_task_lost(struct sched *s, struct sched_stage *st, struct sched_task *t,
                     const char *outcome, const char *why, bool crashed, int code,
                     struct sched_actions *a)
{
    const char *over = NULL;
    char text[SCHED_TEXT_MAX];

    loss_count(t, code, why);
    over = given_up(s, t, crashed, why, text);
    if (over == NULL && sched_shadow_rises(s, st, t, outcome, why, a))
        return;
    sched_lease_end(s, st, t, outcome, why, a);
    if (over != NULL) {
        sched_task_quarantine(s, st, t, over, text, a);
        return;
    }
    s->counters.recomputed++;
    if (code != 0 && code != ERR_CANCELLED)
        sched_task_move(st, t, TASK_RETRY_WAIT);
    else
        sched_task_move(st, t, TASK_PENDING);
    t->retry_at_ms = s->now_ms + sched_backoff(s, t->losses + t->full);
    sched_task_save(a, st, t);
}

void sched_task_cancel(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_actions *a)
{
    if (t->state == TASK_LEASED) {
        sched_shadow_end(s, st, t, "cancelled", "", true, a);
        sched_lease_cancel(st, t->worker, t->id, t->epoch, a);
        sched_lease_end(s, st, t, "cancelled", "", a);
    } else if (t->state != TASK_PENDING && t->state != TASK_RETRY_WAIT) {
        return;
    }
    sched_task_move(st, t, TASK_CANCELLED);
    sched_task_save(a, st, t);
}

void sched_task_release(struct sched *s, struct sched_stage *st, struct sched_task *t,
                        const char *outcome, struct sched_actions *a)
{
    if (t->state != TASK_LEASED)
        return;
    sched_shadow_end(s, st, t, outcome, "", true, a);
    sched_lease_cancel(st, t->worker, t->id, t->epoch, a);
    sched_lease_end(s, st, t, outcome, "", a);
    sched_task_move(st, t, TASK_PENDING);
    sched_task_save(a, st, t);
}

/* The next epoch of a task, at w: into the place of the first lease. */
void sched_lease_begin(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a)
{
    struct sched_action *act;

    t->epoch = ++t->granted;
    t->done = t->moved = 0;
    t->leased_ms = t->moved_ms = s->now_ms;
    t->lease_until_ms = s->now_ms + s->config.lease_ms;
    snprintf(t->worker, sizeof t->worker, "%s", w->id);
    w->running++;
    sched_task_save(a, st, t);
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

void sched_task_shadow(struct sched *s, struct sched_stage *st, struct sched_task *t,
                       struct sched_worker *w, struct sched_actions *a)
{
    CHECK(t->state == TASK_LEASED && t->shadow.epoch == 0);
    sched_shadow_swap(t);
    sched_lease_begin(s, st, t, w, a);
    sched_shadow_swap(t);
    s->counters.overtaken++;
}
