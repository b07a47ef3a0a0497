/*
 * Training sessions. A session is one run of `steps` optimiser steps; an attempt is a session on a
 * fixed set of parameter hosts. Compute workers may come and go inside an attempt: that is a new
 * assignment. When hosts change the next attempt starts from what the hosts hold in memory
 * (sched_handover.c), or, where that is lost, from the last checkpoint that was committed, or from
 * the initial model: the same bits each time.
 *
 * Hosts: the idle workers with role params, each an equal contiguous range of chunks, as many as
 * leave every host two chunks. Whom it leaves to others: sched_keep.c. Who computes what: sched_assign.c; what hosts report:
 * sched_report.c; what workers hold that say hello: sched_adopt.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"

bool sched_worker_usable(const struct sched_worker *w)
{
    return !w->suspect && !w->draining && !w->hung && !w->quarantined;
}

bool sched_sits_out(const struct sched *s, const struct sched_worker *w)
{
    return s->now_ms < w->sits_out_ms;
}

/* Twice as long as the session itself ever waits: it is not at hand when that begins again. A host
 * is more than that: what it takes with it is all that was done since the last checkpoint. */
void sched_sit_out(struct sched *s, struct sched_worker *w, bool hosts)
{
    w->sits_out_n++;
    w->sits_out_ms = s->now_ms + 2 * sched_backoff(s, w->sits_out_n);
    w->failed_as_host = w->failed_as_host || hosts;
    if (hosts)
        w->hosts_after = 1u << (w->sits_out_n < 6 ? w->sits_out_n - 1 : 5);
}

bool sched_session_is_idle(const struct sched_stage *st, const struct sched_worker *w)
{
    return sched_worker_usable(w) && w->in == NULL && w->running == 0 &&
           sched_class_fits(st->job, w) && !sched_is_kept(w, st);
}

/* ---- who hosts ------------------------------------------------------------------------------- */

uint32_t sched_session_chunks(const struct session_plan *p)
{
    return (uint32_t)((p->params + p->chunk_elems - 1) / p->chunk_elems);
}

/* The class with the most idle threads; an already bound job keeps its own. all: also of those who
 * sit out. */
static const struct sched_worker *class_pick_of(struct sched *s, const struct sched_stage *st,
                                                bool all)
{
    const struct sched_job *j = st->job;
    const struct sched_worker *best = NULL, *spare = sched_session_spares(s, st);
    uint64_t best_threads = 0;

    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];
        uint64_t threads = 0;
        bool hosts = false;

        if (!sched_class_fits(j, w))
            continue;
        for (int k = 0; k < s->workers_n; k++) {
            const struct sched_worker *o = s->worker[k];

            if (o == spare || !sched_session_is_idle(st, o) || (!all && sched_sits_out(s, o)) ||
                strcmp(sched_class_of(j, o), sched_class_of(j, w)) != 0)
                continue;
            hosts = hosts || (o->roles & SCHED_ROLE_PARAMS) != 0;
            threads += (o->roles & SCHED_ROLE_COMPUTE) != 0 ? o->threads : 0;
        }
        if (hosts && threads > best_threads) {
            best = w;
            best_threads = threads;
        }
    }
    return best;
}

static const struct sched_worker *class_pick(struct sched *s, const struct sched_stage *st)
{
    const struct sched_worker *best = class_pick_of(s, st, false);

    return best != NULL ? best : class_pick_of(s, st, true);
}

/* Ready to host: idle, or in this session already, where even hung compute threads do no harm. */
static bool can_host(const struct sched_stage *st, const struct sched_worker *w,
                     const char *class_id)
{
    return (w->in == st ? !w->suspect && !w->draining && !w->quarantined
                        : sched_session_is_idle(st, w)) &&
           (w->roles & SCHED_ROLE_PARAMS) != 0 && sched_class_fits(st->job, w) &&
           (strcmp(sched_class_of(st->job, w), class_id) == 0 ||
            strcmp(class_id, SCHED_ANY_CLASS) == 0);
}

/* Rather somebody else: it could not, lately, and holds nothing yet. */
static bool is_no_host_now(const struct sched *s, const struct sched_stage *st,
                           const struct sched_worker *w)
{
    return (w->in != st && sched_sits_out(s, w)) ||
           (w->hosts_after > 0 && !(w->in == st && sched_session_is_host(st->session, w->id)));
}

static uint32_t hosts_of(const struct sched *s, const struct sched_stage *st, const char *class_id,
                         bool all, uint32_t most, struct sched_host *host)
{
    const struct sched_worker *spare = sched_session_spares(s, st);
    uint32_t n = 0;

    for (int i = 0; i < s->workers_n && n < most; i++) {
        const struct sched_worker *w = s->worker[i];

        if (w == spare || !can_host(st, w, class_id) || (!all && is_no_host_now(s, st, w)))
            continue;
        host[n] = (struct sched_host){.lost = false};
        snprintf(host[n++].worker, SCHED_WORKER_MAX, "%s", w->id);
    }
    return n;
}

int sched_hosts_pick(const struct sched *s, const struct sched_stage *st, const char *class_id,
                     struct sched_host *host)
{
    uint32_t chunks = sched_session_chunks(&st->phase.session);
    uint32_t most = chunks / 2 > 0 ? chunks / 2 : 1, n = 0;

    most = most < SCHED_HOSTS_MAX ? most : SCHED_HOSTS_MAX;
    n = hosts_of(s, st, class_id, false, most, host);
    if (n == 0)
        n = hosts_of(s, st, class_id, true, most, host);
    for (uint32_t i = 0; i < n; i++) {
        host[i].chunk_begin = (uint32_t)((uint64_t)chunks * i / n);
        host[i].chunk_end = (uint32_t)((uint64_t)chunks * (i + 1) / n);
    }
    return (int)n;
}

/* ---- messages -------------------------------------------------------------------------------- */

void sched_session_tell(struct sched_actions *a, enum sched_action_type type,
                        struct sched_stage *st, const char *worker)
{
    struct sched_action *act = sched_act(a, type, st->job, st);

    snprintf(act->worker, sizeof act->worker, "%s", worker);
    act->number = st->session->id;
    act->epoch = st->session->attempt;
}

void sched_session_tell_all(struct sched *s, struct sched_actions *a, enum sched_action_type type,
                            struct sched_stage *st, const char *note)
{
    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->in == st) {
            sched_session_tell(a, type, st, s->worker[i]->id);
            snprintf(a->v[a->n - 1].note, sizeof a->v[a->n - 1].note, "%s", note);
        }
    }
}

/* ---- opening and closing --------------------------------------------------------------------- */

uint64_t sched_session_threads(const struct sched *s, const struct sched_stage *st)
{
    uint64_t n = 0;

    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->in == st && (s->worker[i]->roles & SCHED_ROLE_COMPUTE) != 0)
            n += s->worker[i]->threads;
    }
    return n;
}

bool sched_session_is_host(const struct sched_session *ss, const char *worker)
{
    for (int i = 0; i < ss->hosts_n; i++) {
        if (!ss->host[i].lost && strcmp(ss->host[i].worker, worker) == 0)
            return true;
    }
    return false;
}

static int members_take_of(struct sched *s, struct sched_stage *st, bool opening, bool all,
                           struct sched_actions *a)
{
    const struct sched_worker *spare = sched_session_spares(s, st);
    int came = 0;

    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];
        bool host = opening && sched_session_is_host(st->session, w->id);

        if (w == spare || !sched_session_is_idle(st, w))
            continue;
        if (!host && ((w->roles & SCHED_ROLE_COMPUTE) == 0 ||
                      sched_session_threads(s, st) >= st->phase.session.units ||
                      (!all && sched_sits_out(s, w))))
            continue;
        w->in = st;
        w->samples = 0;
        came++;
        if (!opening)
            sched_session_tell(a, SCHED_SEND_OPEN, st, w->id);
    }
    return came;
}

/* Takes idle workers in until every unit has a thread; when opening, the hosts too. Gives how many
 * came. */
int sched_members_take(struct sched *s, struct sched_stage *st, bool opening,
                       struct sched_actions *a)
{
    int came = members_take_of(s, st, opening, false, a);

    if (sched_session_threads(s, st) == 0)
        came += members_take_of(s, st, opening, true, a);
    return came;
}

static void session_open(struct sched *s, struct sched_stage *st,
                         const struct sched_worker *of_class, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    ss->hosts_n = sched_hosts_pick(s, st, sched_class_of(st->job, of_class), ss->host);
    sched_class_bind(s, st->job, sched_class_of(st->job, of_class), a);
    ss->attempt++;
    ss->assignment = 0;
    ss->version = ss->start_version = ss->manifest_version;
    ss->progress_ms = ss->opened_ms = ss->spread_ms = s->now_ms;
    ss->opened_version = ss->version;
    ss->step_ms = 0;
    ss->step = (struct sched_open){0};
    ss->duplicates = ss->stale = ss->audited = 0;
    ss->questions_n = 0;
    ss->replicated = s->config.replicate && ss->hosts_n >= 2;
    ss->stepped = false;
    sched_members_take(s, st, true, a);
    ss->open = true;
    sched_move_stage(s, st, RUN_RUNNING, "", a);
    sched_note(a, st->job, st, "session.open",
               "%s attempt %" PRIu64 " from version %" PRIu64 " on %d hosts", st->phase.name,
               ss->attempt, ss->manifest_version, ss->hosts_n);
    sched_session_tell_all(s, a, SCHED_SEND_OPEN, st, "");
    sched_session_assign(s, st, a);
}

static void workers_take(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    const struct sched_worker *of_class = NULL;

    if (st->session->open) {
        if (sched_session_threads(s, st) < st->phase.session.units &&
            sched_members_take(s, st, false, a) > 0)
            sched_session_assign(s, st, a);
        sched_handover_spread(s, st, a);
        return;
    }
    if (st->session->adopting || s->now_ms < st->session->retry_at_ms)
        return;
    of_class = class_pick(s, st);
    if (of_class != NULL)
        session_open(s, st, of_class, a);
}

void sched_session_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    workers_take(s, st, a);
    sched_session_keep(s, st);
}

void sched_session_close(struct sched *s, struct sched_stage *st, const char *why,
                         struct sched_actions *a)
{
    if (!st->session->open && !st->session->adopting)
        return;
    sched_handover_drop(s, st, a);
    sched_session_tell_all(s, a, SCHED_SEND_CLOSE, st, why);
    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->in == st)
            s->worker[i]->in = NULL;
    }
    st->session->open = st->session->adopting = false;
    st->session->hosts_n = st->session->slots_n = 0;
}

void sched_session_pause(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    if (ss->open || ss->adopting)
        sched_note(a, st->job, st, "session.pause",
                   "%s attempt %" PRIu64 " stopped at version %" PRIu64
                   "; it goes on from checkpoint %" PRIu64 ", %" PRIu64 " steps are done again",
                   st->phase.name, ss->attempt, ss->version, ss->manifest_version,
                   ss->version > ss->manifest_version ? ss->version - ss->manifest_version : 0);
    sched_session_close(s, st, "paused", a);
    ss->version = ss->manifest_version;
    ss->why[0] = '\0';
}

void sched_attempt_wait(struct sched *s, struct sched_stage *st, const char *why, uint64_t wait_ms,
                        struct sched_actions *a)
{
    if (st->session->version > st->session->start_version)
        st->session->barren = 0;
    snprintf(st->session->why, sizeof st->session->why, "%s", why);
    s->counters.rolled_back++;
    sched_note(a, st->job, st, "session.recover",
               "attempt %" PRIu64 " ended at version %" PRIu64 ": %.150s", st->session->attempt,
               st->session->version, why);
    sched_session_close(s, st, why, a);
    st->session->retry_at_ms = s->now_ms + wait_ms;
    sched_move_stage(s, st, RUN_RECOVERING, "SessionRestarts", a);
}

void sched_attempt_end(struct sched *s, struct sched_stage *st, const char *why, uint64_t wait_ms,
                       struct sched_actions *a)
{
    struct sched_failure f = {.code = ERR_UNREACHABLE, .attempt = (uint32_t)st->session->attempt};

    st->session->barren =
        st->session->version > st->session->start_version ? 0 : st->session->barren + 1;
    if (s->config.barren_limit > 0 && st->session->barren >= s->config.barren_limit) {
        snprintf(f.class_name, sizeof f.class_name, "infrastructure");
        snprintf(f.message, sizeof f.message,
                 "phase %s: %u attempts in a row ended before a step was done, last: %.400s",
                 st->phase.name, st->session->barren, why);
        sched_fail(s, st, &f, a);
        return;
    }
    if (st->session->barren > 3 && wait_ms < sched_backoff(s, st->session->barren - 3))
        wait_ms = sched_backoff(s, st->session->barren - 3);
    sched_attempt_wait(s, st, why, wait_ms, a);
}

void sched_session_lose(struct sched *s, const char *worker, const char *why,
                        struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, worker);
    struct sched_stage *st = w != NULL ? w->in : NULL;
    const struct sched_slot *slot = st != NULL ? sched_slot_of(st->session, worker) : NULL;
    bool held = false;
    char text[SCHED_TEXT_MAX];

    if (st == NULL)
        return;
    snprintf(text, sizeof text, "%s: %s", worker, why);
    if (slot != NULL && st->session->open)
        s->counters.recomputed += slot->leaf_end - slot->leaf_begin;
    held = sched_handover_holds(st->session, worker);
    if (held)
        st->session->losses++;
    sched_session_tell(a, SCHED_SEND_CLOSE, st, worker);
    w->in = NULL;
    if (held) {
        sched_handover_lost(s, st, worker, text, a);
        return;
    }
    if (st->session->adopting)
        return;
    sched_note(a, st->job, st, "session.leave", "%.200s", text);
    if (sched_session_threads(s, st) == 0 && sched_members_take(s, st, false, a) == 0)
        sched_attempt_end(s, st, "no compute worker left", 0, a);
    else
        sched_session_assign(s, st, a);
}

void sched_session_drain(struct sched *s, struct sched_worker *w, struct sched_actions *a)
{
    if (w->in != NULL && sched_handover_holds(w->in->session, w->id))
        return; /* until somebody else holds what it holds: sched_handover_spread() */
    sched_session_lose(s, w->id, "worker drains", a);
}

/* A message may be lost with a connection; saying it twice is harmless. */
static void resend(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    uint64_t wait = s->config.resend_ms;

    if (ss->from_attempt != 0 && wait > SCHED_ASK_MS)
        wait = SCHED_ASK_MS; /* everybody waits for it */
    if (s->now_ms - ss->progress_ms <= wait || s->now_ms - ss->resent_ms <= wait)
        return;
    ss->resent_ms = s->now_ms;
    sched_session_tell_all(s, a, SCHED_SEND_OPEN, st, "");
    sched_session_tell_all(s, a, SCHED_SEND_ASSIGN, st, "");
}

void sched_session_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    uint64_t limit = s->config.stall_ms > 20 * ss->step_ms ? s->config.stall_ms : 20 * ss->step_ms;
    char text[SCHED_TEXT_MAX];

    if (ss->adopting)
        sched_adopt_settle(s, st, a);
    if (ss->open)
        sched_handover_tick(s, st, a);
    if (!ss->open || ss->change != CHANGE_NONE)
        return;
    sched_questions_tick(s, st, a);
    sched_pace_tick(s, st, a);
    sched_session_overtake(s, st, a);
    resend(s, st, a);
    if (s->now_ms - ss->progress_ms <= limit)
        return;
    snprintf(text, sizeof text, "no progress past version %" PRIu64 " for %" PRIu64 " s",
             ss->version, limit / 1000);
    ss->losses++;
    sched_attempt_end(s, st, text, sched_backoff(s, ss->losses), a);
}
