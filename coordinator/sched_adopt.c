/*
 * Taking over what ran while the coordinator was away, and what workers hold that say hello. After
 * a restart an attempt that was open is awaited for a while. If all its hosts come back it goes on;
 * if some are gone (or are new processes) the hosts change (sched_handover.c), and a change that
 * was under way is taken up where it was.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"

/* How many have come back, are lost, and are still awaited. */
struct roll {
    int back, lost, awaited;
};

static bool is_back(const struct sched *s, const struct sched_stage *st, const char *worker)
{
    const struct sched_worker *w = sched_find_worker(s, worker);

    return w != NULL && w->in == st;
}

static struct roll roll_call(struct sched *s, struct sched_stage *st, bool give_up)
{
    struct sched_session *ss = st->session;
    struct roll r = {0, 0, 0};

    for (int i = 0; i < ss->hosts_n; i++) {
        bool back = is_back(s, st, ss->host[i].worker);

        ss->host[i].lost = ss->host[i].lost || (give_up && !back);
        r.back += !ss->host[i].lost && back;
        r.lost += ss->host[i].lost;
        r.awaited += !ss->host[i].lost && !back;
    }
    for (int i = 0; ss->from_attempt != 0 && i < ss->sources_n; i++) {
        bool back = is_back(s, st, ss->source[i].worker);

        ss->source[i].gone = ss->source[i].gone || (give_up && !back);
        r.awaited += !ss->source[i].gone && !back;
    }
    return r;
}

void sched_adopt_settle(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    bool give_up = s->now_ms >= ss->adopt_until_ms;
    struct roll r = roll_call(s, st, give_up);
    bool change = ss->change != CHANGE_NONE;

    if (!give_up && (r.awaited > 0 || sched_session_threads(s, st) == 0))
        return;
    if (sched_session_threads(s, st) == 0) {
        ss->losses++;
        sched_attempt_end(s, st, "nobody came back after a restart of the coordinator", 0, a);
        return;
    }
    ss->adopting = false;
    ss->open = true;
    s->counters.adopted++;
    ss->progress_ms = ss->opened_ms = ss->spread_ms = s->now_ms;
    ss->opened_version = SCHED_VERSION_UNKNOWN;
    sched_move_stage(s, st, RUN_RUNNING, "", a);
    sched_note(a, st->job, st, "session.adopt", "%s attempt %" PRIu64 ": %d of %d hosts came back",
               st->phase.name, ss->attempt, r.back, ss->hosts_n);
    if (change) /* answers may have been lost with us: all are asked again, and not at an edge */
        ss->change = CHANGE_NONE;
    if (change && ss->from_attempt == 0 && ss->stepped && r.lost == 0)
        sched_handover_begin(s, st, CHANGE_AGAIN, "the coordinator was away meanwhile", a);
    else if (r.lost > 0)
        sched_handover_go_on(s, st, "a host did not outlive a restart of the coordinator", a);
    else {
        sched_session_tell_all(s, a, SCHED_SEND_OPEN, st, ""); /* it may never have been heard */
        sched_session_assign(s, st, a);
    }
}

/* An attempt that is over is closed, and those before it are forgotten. */
static void close_old(struct sched_actions *a, const char *worker, uint64_t session,
                      uint64_t attempt)
{
    struct sched_action *act = sched_act(a, SCHED_SEND_CLOSE, NULL, NULL);

    snprintf(act->worker, sizeof act->worker, "%s", worker);
    act->number = session;
    act->epoch = attempt;
    snprintf(act->note, sizeof act->note, "this attempt is over");
}

/* A host that is a new process: the attempt has to go on without what it held. */
static void lost_elsewhere(struct sched *s, const struct sched_stage *but, const char *worker,
                           struct sched_actions *a)
{
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            if (st != but && st->session != NULL && st->session->adopting &&
                sched_handover_holds(st->session, worker))
                sched_handover_lost(s, st, worker, "a host is a new process", a);
        }
    }
}

/* Who was a source of this attempt may have missed that its memory is needed no more. */
static void forget_again(const struct sched_session *ss, const char *worker,
                         struct sched_actions *a)
{
    if (ss->from_attempt == 0 && ss->attempt > 1)
        close_old(a, worker, ss->id, ss->attempt - 1);
}

/* Has it left, as it drains or failed, and only not heard of it? */
static bool has_left(const struct sched *s, const struct sched_session *ss,
                     const struct sched_worker *w)
{
    if (w->in != NULL)
        return false;
    return sched_sits_out(s, w) ||
           (w->draining && !(ss->adopting && sched_handover_holds(ss, w->id)));
}

/* What a worker that says hello holds, against what it should: an attempt that is over is closed,
 * one that runs is joined again, one from whose memory another one starts is kept, and a member
 * that does not know of its session has lost it. */
void sched_session_hello(struct sched *s, struct sched_worker *w, uint64_t session,
                         uint64_t attempt, struct sched_actions *a)
{
    struct sched_stage *st = session != 0 ? sched_session_find(s, session) : NULL;
    const struct sched_session *ss = st != NULL ? st->session : NULL;
    bool live = ss != NULL && (ss->open || ss->adopting);
    bool before = live && ss->from_attempt != 0 && attempt >= ss->from_attempt &&
                  attempt < ss->attempt; /* it has not heard of the newest attempt yet */
    bool ours = before || (live && attempt == ss->attempt), joins = false;

    if (w->in != NULL && (w->in != st || !ours))
        sched_session_lose(s, w->id, "came back without its session", a);
    lost_elsewhere(s, ours ? st : NULL, w->id, a);
    if (!ours || has_left(s, ss, w) || w->running > 0) {
        if (session != 0 && (w->in == NULL || !ours))
            close_old(a, w->id, session, attempt);
        return;
    }
    joins = w->in == NULL;
    w->in = st;
    forget_again(ss, w->id, a);
    if (ss->adopting) {
        sched_adopt_settle(s, st, a);
        return;
    }
    if (before)
        sched_session_tell(a, SCHED_SEND_OPEN, st, w->id);
    if (joins)
        sched_session_assign(s, st, a);
    else if (!sched_session_employ(s, w, a))
        sched_session_tell(a, SCHED_SEND_ASSIGN, st, w->id);
}
