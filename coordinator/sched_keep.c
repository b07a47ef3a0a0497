/*
 * Workers that are kept free for a session. A session takes whole workers, so it would never get one
 * from a younger job that has a task for every thread that becomes free: while it waits, workers that
 * it can use get nothing younger, until as many run dry as it has units for. Who is kept is found
 * anew in every round of giving out, oldest first, so nothing has to be undone.
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

/* Could the session begin on w alone, or on w and a host that waits for somebody who computes? */
static bool could_open(const struct sched *s, const struct sched_stage *st,
                       const struct sched_worker *w)
{
    const char *class_id = sched_class_of(st->job, w);

    if ((w->roles & SCHED_ROLE_PARAMS) != 0)
        return true;
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *h = s->worker[i];

        if (sched_session_is_idle(st, h) && (h->roles & SCHED_ROLE_PARAMS) != 0 &&
            strcmp(sched_class_of(st->job, h), class_id) == 0)
            return true;
    }
    return false;
}

/* Of those that are idle, or of the others, until every unit has a thread; gives the threads. */
static uint64_t keep_some(struct sched *s, const struct sched_stage *st, bool idle,
                          uint64_t threads)
{
    for (int i = 0; i < s->workers_n && threads < st->phase.session.units; i++) {
        struct sched_worker *w = s->worker[i];

        if ((w->running == 0) != idle || !can_join(st, w) ||
            (!st->session->open && !could_open(s, st, w)))
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
    threads = keep_some(s, st, true, threads); /* it waits for its next attempt */
    keep_some(s, st, false, threads);
}
