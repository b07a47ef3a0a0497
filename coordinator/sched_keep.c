/*
 * Workers that are kept free for a session. A session takes whole workers, so it would never get one
 * from a younger job that has a task for every thread that becomes free: while it waits, workers that
 * it can use get nothing younger, until as many run dry as it has units for. Who is kept is found
 * anew in every round of giving out, oldest first, so nothing has to be undone.
 *
 * And one that a session leaves to an older stage which has nothing to give out just now: a session
 * that took the last one would have it to its end, for a pause of milliseconds between two stages.
 */
#include <string.h>

#include "coordinator/sched_inner.h"

#define KEEP_MS 1000 /* before the next attempt */

void sched_keep_none(struct sched *s)
{
    for (int i = 0; i < s->workers_n; i++)
        s->worker[i]->kept_job = 0;
}

bool sched_is_kept(const struct sched_worker *w, const struct sched_stage *st)
{
    return w->kept_job != 0 &&
           (w->kept_job < st->job->id || (w->kept_job == st->job->id && w->kept_stage < st->index));
}

/* Has it no tasks, or does it lose them by and by? */
static bool can_join(const struct sched_stage *st, const struct sched_worker *w)
{
    return sched_worker_usable(w) && w->in == NULL && (w->roles & SCHED_ROLE_COMPUTE) != 0 &&
           sched_class_fits(st->job, w) && !sched_is_kept(w, st);
}

/* Could the session begin on w alone, or on w and a host, not `but`, that waits for somebody who
 * computes? */
static bool could_open(const struct sched *s, const struct sched_stage *st,
                       const struct sched_worker *w, const struct sched_worker *but)
{
    const char *class_id = sched_class_of(st->job, w);

    if ((w->roles & SCHED_ROLE_PARAMS) != 0)
        return true;
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *h = s->worker[i];

        if (h != but && sched_session_is_idle(st, h) && (h->roles & SCHED_ROLE_PARAMS) != 0 &&
            strcmp(sched_class_of(st->job, h), class_id) == 0)
            return true;
    }
    return false;
}

/* Of those that are idle, or of the others, until every unit has a thread; gives the threads. all:
 * also of those who sit out. */
static uint64_t keep_some(struct sched *s, const struct sched_stage *st, bool idle, bool all,
                          uint64_t threads)
{
    for (int i = 0; i < s->workers_n && threads < st->phase.session.units; i++) {
        struct sched_worker *w = s->worker[i];

        if ((w->running == 0) != idle || !can_join(st, w) || (!all && sched_sits_out(s, w)) ||
            (!st->session->open && !could_open(s, st, w, NULL)))
            continue;
        w->kept_job = st->job->id;
        w->kept_stage = st->index;
        threads += w->threads;
    }
    return threads;
}

void sched_session_keep(struct sched *s, const struct sched_stage *st)
{
    const struct sched_session *ss = st->session;
    uint64_t threads = 0;

    if (run_state_is_final(st->state) || ss == NULL || ss->adopting ||
        (!ss->open && s->now_ms + KEEP_MS < ss->retry_at_ms))
        return;
    threads = sched_session_threads(s, st);
    for (int all = 0; all < 2 && (all == 0 || threads == 0); all++) {
        threads = keep_some(s, st, true, all != 0, threads); /* it waits for its next attempt */
        threads = keep_some(s, st, false, all != 0, threads);
    }
}

/* ---- one for an older stage ------------------------------------------------------------------ */

static bool comes_before(const struct sched_stage *x, const struct sched_stage *st)
{
    return x->job->id < st->job->id || (x->job == st->job && x->index < st->index);
}

/* Will it have tasks in a moment, though none waits or runs? It asks whether there is something to
 * reuse, or what failed is tried again. */
static bool is_between(const struct sched_stage *x)
{
    if (!x->phase_open)
        return x->state == RUN_STARTING;
    if (x->phase.type != PHASE_TASKS || x->pending.count > 0 || run_state_is_final(x->state))
        return false;
    for (uint32_t i = task_set_next(&x->busy, 0); i != TASK_SET_NONE;
         i = task_set_next(&x->busy, i + 1)) {
        if (x->task[i].state == TASK_LEASED)
            return false;
    }
    return x->busy.count > 0;
}

/* Does a worker with tasks stay outside of sessions? Its next free thread is for the oldest. */
static bool has_another(const struct sched *s, const struct sched_stage *x)
{
    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->running > 0 && can_join(x, s->worker[i]))
            return true;
    }
    return false;
}

/* Does the session get on without `but`? */
static bool can_spare(const struct sched *s, const struct sched_stage *st,
                      const struct sched_worker *but)
{
    if (st->session->open)
        return sched_session_threads(s, st) > 0;
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        if (w != but && (w->roles & SCHED_ROLE_COMPUTE) != 0 && sched_session_is_idle(st, w) &&
            could_open(s, st, w, but))
            return true;
    }
    return false;
}

static bool has_idle(const struct sched *s, const struct sched_stage *st)
{
    for (int i = 0; i < s->workers_n; i++) {
        if (sched_session_is_idle(st, s->worker[i]))
            return true;
    }
    return false;
}

static const struct sched_worker *spare_for(const struct sched *s, const struct sched_stage *st,
                                            const struct sched_stage *x)
{
    if (!comes_before(x, st) || !is_between(x) || has_another(s, x))
        return NULL;
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        if (sched_session_is_idle(st, w) && can_join(x, w) && can_spare(s, st, w))
            return w;
    }
    return NULL;
}

const struct sched_worker *sched_session_spares(const struct sched *s, const struct sched_stage *st)
{
    const struct sched_worker *w = NULL;

    if (!has_idle(s, st)) /* which is most often so, and there may be many jobs */
        return NULL;
    for (int i = 0; i < s->jobs_n && s->job[i]->id <= st->job->id; i++) {
        const struct sched_job *j = s->job[i];

        for (int k = 0; k < j->stages_n && j->admitted && w == NULL; k++)
            w = spare_for(s, st, &j->stage[k]);
    }
    return w;
}
