/*
 * Open phases: what can be worked on. There are at most as many as jobs run, so lists of them are
 * made anew whenever a phase may have been opened or closed, which is once in very many results.
 * A result in the middle of a phase looks its task up by halving, and gives the thread that became
 * free to the oldest phase that has something to do.
 */
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"

void sched_open_changed(struct sched *s)
{
    s->open_stale = true;
}

static void room_make(struct sched *s)
{
    if (s->open_n < s->open_cap)
        return;
    s->open_cap = s->open_cap * 2 + 32;
    s->open = mem_grow(s->open, (size_t)s->open_cap, sizeof(struct sched_stage *));
    s->open_tasks = mem_grow(s->open_tasks, (size_t)s->open_cap, sizeof(struct sched_stage *));
}

/* Ids rise with time, so the list is nearly in order as it comes. */
static void tasks_add(struct sched *s, struct sched_stage *st)
{
    int at = s->open_tasks_n++;

    for (; at > 0 && s->open_tasks[at - 1]->task[0].id > st->task[0].id; at--)
        s->open_tasks[at] = s->open_tasks[at - 1];
    s->open_tasks[at] = st;
}

void sched_open_refresh(struct sched *s)
{
    if (!s->open_stale)
        return;
    s->open_stale = false;
    s->open_n = s->open_tasks_n = 0;
    for (int i = 0; i < s->jobs_n; i++) {
        struct sched_job *j = s->job[i];

        for (int k = 0; k < j->stages_n && j->admitted && !run_state_is_final(j->state); k++) {
            struct sched_stage *st = &j->stage[k];

            s->looked_at++;
            if (!st->phase_open || run_state_is_final(st->state))
                continue;
            room_make(s);
            s->open[s->open_n++] = st;
            if (st->phase.type == PHASE_TASKS && st->tasks_n > 0)
                tasks_add(s, st);
        }
    }
}

struct sched_task *sched_open_task(struct sched *s, uint64_t id, struct sched_stage **stage)
{
    int low = 0, high = 0;

    sched_open_refresh(s);
    for (high = s->open_tasks_n; low < high;) { /* the last that begins at id or before */
        int mid = low + (high - low) / 2;

        s->looked_at++;
        if (s->open_tasks[mid]->task[0].id <= id)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0)
        return NULL;
    *stage = s->open_tasks[low - 1];
    id -= (*stage)->task[0].id; /* ids of a phase are consecutive */
    return id < (*stage)->tasks_n ? &(*stage)->task[id] : NULL;
}

static bool session_waits(const struct sched *s, const struct sched_stage *st)
{
    return st->phase.type == PHASE_SESSION && st->session != NULL &&
           (!st->session->open || sched_session_threads(s, st) < st->phase.session.units);
}

bool sched_open_session_waits(struct sched *s, const struct sched_stage *st)
{
    sched_open_refresh(s);
    for (int i = 0; i < s->open_n && s->open[i] != st; i++) {
        if (session_waits(s, s->open[i]))
            return true;
    }
    return false;
}

static bool has_idle_worker(const struct sched *s)
{
    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->running == 0 && s->worker[i]->in == NULL)
            return true;
    }
    return false;
}

void sched_open_dispatch(struct sched *s, struct sched_actions *a)
{
    sched_open_refresh(s);
    sched_keep_none(s);
    for (int i = 0; i < s->open_n; i++) {
        struct sched_stage *st = s->open[i];
        enum run_state before = st->state;

        s->looked_at++;
        if (!st->phase_open || run_state_is_final(st->state))
            continue;
        if (st->phase.type == PHASE_TASKS)
            sched_tasks_dispatch(s, st, a);
        else if (has_idle_worker(s))
            sched_session_dispatch(s, st, a);
        else
            sched_session_keep(s, st);
        if (st->state != before)
            sched_job_settle(s, st->job, a);
    }
}
