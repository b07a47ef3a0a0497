/*
 * Training sessions. A session is one run of `steps` optimiser steps; an attempt is a session on a
 * fixed set of parameter hosts. Compute workers may come and go inside an attempt: that is a new
 * assignment. Losing a host ends the attempt, and the next one starts from the last checkpoint that
 * was committed, or from the initial model: the same bits either way.
 *
 * Hosts: the idle workers with role params, each an equal contiguous range of chunks, as many as
 * leave every host two chunks. Who computes what: sched_assign.c.
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

/* ---- who hosts
 * --------------------------------------------------------------------------------------------------
 */
static uint32_t chunks_of(const struct session_plan *p)
{
    return (uint32_t)((p->params + p->chunk_elems - 1) / p->chunk_elems);
}

/* The class with the most idle threads; an already bound job keeps its own. */
static const struct sched_worker *class_pick(struct sched *s, struct sched_job *j)
{
    const struct sched_worker *best = NULL;
    uint64_t best_threads = 0;

    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];
        uint64_t threads = 0;
        bool hosts = false;

        if (!sched_class_fits(s, j, w))
            continue;
        for (int k = 0; k < s->workers_n; k++) {
            const struct sched_worker *o = s->worker[k];

            if (!sched_worker_usable(o) || o->in != NULL || o->running > 0 ||
                strcmp(o->class_id, w->class_id) != 0)
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

static void hosts_pick(struct sched *s, struct sched_stage *st, const char *class_id)
{
    struct sched_session *ss = st->session;
    uint32_t chunks = chunks_of(&st->phase.session);
    uint32_t most = chunks / 2 > 0 ? chunks / 2 : 1, n = 0;

    ss->hosts_n = 0;
    for (int i = 0; i < s->workers_n && n < most && n < SCHED_HOSTS_MAX; i++) {
        const struct sched_worker *w = s->worker[i];

        if (sched_worker_usable(w) && w->in == NULL && w->running == 0 &&
            (w->roles & SCHED_ROLE_PARAMS) != 0 && strcmp(w->class_id, class_id) == 0)
            snprintf(ss->host[n++].worker, SCHED_WORKER_MAX, "%s", w->id);
    }
    ss->hosts_n = (int)n;
    for (uint32_t i = 0; i < n; i++) {
        ss->host[i].chunk_begin = (uint32_t)((uint64_t)chunks * i / n);
        ss->host[i].chunk_end = (uint32_t)((uint64_t)chunks * (i + 1) / n);
        ss->host[i].damaged = 0;
    }
}

/* ---- messages
 * ---------------------------------------------------------------------------------------------------
 */
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

/* ---- opening and closing
 * ---------------------------------------------------------------------------------------- */
uint64_t sched_session_threads(const struct sched *s, const struct sched_stage *st)
{
    uint64_t n = 0;

    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->in == st && (s->worker[i]->roles & SCHED_ROLE_COMPUTE) != 0)
            n += s->worker[i]->threads;
    }
    return n;
}

static bool is_host(const struct sched_session *ss, const char *worker)
{
    for (int i = 0; i < ss->hosts_n; i++) {
        if (strcmp(ss->host[i].worker, worker) == 0)
            return true;
    }
    return false;
}

/* Takes idle workers in until every unit has a thread. Gives how many came. */
static int members_take(struct sched *s, struct sched_stage *st, bool opening,
                        struct sched_actions *a)
{
    int came = 0;

    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];
        bool host = opening && is_host(st->session, w->id);

        if (w->in != NULL || w->running > 0 || !sched_worker_usable(w) ||
            !sched_class_fits(s, st->job, w))
            continue;
        if (!host && ((w->roles & SCHED_ROLE_COMPUTE) == 0 ||
                      sched_session_threads(s, st) >= st->phase.session.units))
            continue;
        w->in = st;
        w->samples = 0;
        came++;
        if (!opening)
            sched_session_tell(a, SCHED_SEND_OPEN, st, w->id);
    }
    return came;
}

static void session_open(struct sched *s, struct sched_stage *st,
                         const struct sched_worker *of_class, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    hosts_pick(s, st, of_class->class_id);
    sched_class_bind(s, st->job, of_class, a);
    ss->attempt++;
    ss->open = true;
    ss->assignment = 0;
    ss->version = ss->start_version = ss->manifest_version;
    ss->progress_ms = s->now_ms;
    ss->step_ms = 0;
    ss->step = (struct sched_open){0};
    ss->duplicates = ss->stale = ss->audited = 0;
    ss->questions_n = 0;
    members_take(s, st, true, a);
    sched_move_stage(s, st, RUN_RUNNING, "", a);
    sched_note(a, st->job, st, "session.open",
               "%s attempt %" PRIu64 " from version %" PRIu64 " on %d hosts", st->phase.name,
               ss->attempt, ss->manifest_version, ss->hosts_n);
    sched_session_tell_all(s, a, SCHED_SEND_OPEN, st, "");
    sched_session_assign(s, st, a);
}

void sched_session_dispatch(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    const struct sched_worker *of_class = NULL;

    if (st->session->open) {
        if (sched_session_threads(s, st) < st->phase.session.units &&
            members_take(s, st, false, a) > 0)
            sched_session_assign(s, st, a);
        return;
    }
    if (st->session->adopting || s->now_ms < st->session->retry_at_ms)
        return;
    of_class = class_pick(s, st->job);
    if (of_class != NULL)
        session_open(s, st, of_class, a);
}

void sched_session_close(struct sched *s, struct sched_stage *st, const char *why,
                         struct sched_actions *a)
{
    if (!st->session->open && !st->session->adopting)
        return;
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
                   ss->version - ss->manifest_version);
    sched_session_close(s, st, "paused", a);
    ss->version = ss->manifest_version;
    ss->why[0] = '\0';
}

/* The attempt is over; the session is not, unless attempts end again and again before any step. */
static void attempt_end(struct sched *s, struct sched_stage *st, const char *why, uint64_t wait_ms,
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
    snprintf(st->session->why, sizeof st->session->why, "%s", why);
    sched_note(a, st->job, st, "session.recover",
               "attempt %" PRIu64 " ended at version %" PRIu64 ": %.150s", st->session->attempt,
               st->session->version, why);
    sched_session_close(s, st, why, a);
    st->session->retry_at_ms = s->now_ms + wait_ms;
    sched_move_stage(s, st, RUN_RECOVERING, "SessionRestarts", a);
}

void sched_session_again(struct sched *s, struct sched_stage *st, const char *why,
                         struct sched_actions *a)
{
    attempt_end(s, st, why, 0, a);
}

void sched_session_lose(struct sched *s, const char *worker, const char *why,
                        struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, worker);
    struct sched_stage *st = w != NULL ? w->in : NULL;
    const struct sched_slot *slot = st != NULL ? sched_slot_of(st->session, worker) : NULL;
    char text[SCHED_TEXT_MAX];

    if (st == NULL)
        return;
    snprintf(text, sizeof text, "%s: %s", worker, why);
    if (is_host(st->session, worker)) {
        st->session->losses++;
        attempt_end(s, st, text, 0, a);
        return;
    }
    sched_session_tell(a, SCHED_SEND_CLOSE, st, worker);
    w->in = NULL;
    if (st->session->adopting)
        return;
    sched_note(a, st->job, st, "session.leave", "%.200s", text);
    if (slot != NULL)
        s->counters.recomputed += slot->leaf_end - slot->leaf_begin;
    if (sched_session_threads(s, st) == 0 && members_take(s, st, false, a) == 0)
        attempt_end(s, st, "no compute worker left", 0, a);
    else
        sched_session_assign(s, st, a);
}

/* ---- taking over what ran while the coordinator was away
 * --------------------------------------------------------- */
static void adopt(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    for (int i = 0; i < ss->hosts_n; i++) {
        const struct sched_worker *w = sched_find_worker(s, ss->host[i].worker);

        if (w == NULL || w->in != st)
            return;
    }
    if (sched_session_threads(s, st) == 0)
        return;
    ss->adopting = false;
    ss->open = true;
    s->counters.adopted++;
    sched_move_stage(s, st, RUN_RUNNING, "", a);
    sched_note(a, st->job, st, "session.adopt", "%s attempt %" PRIu64 " goes on", st->phase.name,
               ss->attempt);
    sched_session_assign(s, st, a);
}

static struct sched_stage *session_find(const struct sched *s, uint64_t id);

/* What a worker that says hello holds, against what it should: an attempt that is over is closed,
 * one that runs is joined again, and a member that does not know of its session has lost it. */
void sched_session_hello(struct sched *s, struct sched_worker *w, uint64_t session,
                         uint64_t attempt, struct sched_actions *a)
{
    struct sched_stage *st = session != 0 ? session_find(s, session) : NULL;
    bool same = st != NULL && st->session->attempt == attempt &&
                (st->session->open || st->session->adopting);

    if (w->in != NULL && (w->in != st || !same))
        sched_session_lose(s, w->id, "came back without its session", a);
    for (int i = 0; !same && i < s->jobs_n;
         i++) { /* a host that is a new process: its attempt cannot go on */
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *other = &s->job[i]->stage[k];

            if (other->session != NULL && other->session->adopting &&
                is_host(other->session, w->id))
                attempt_end(s, other, "a host is a new process", 0, a);
        }
    }
    if (!same || w->draining || w->running > 0) {
        if (session != 0 && (w->in == NULL || !same)) {
            struct sched_action *act = sched_act(a, SCHED_SEND_CLOSE, NULL, NULL);

            snprintf(act->worker, sizeof act->worker, "%s", w->id);
            act->number = session;
            act->epoch = attempt;
            snprintf(act->note, sizeof act->note, "this attempt is over");
        }
        return;
    }
    if (w->in != NULL)
        return;
    w->in = st;
    if (st->session->adopting)
        adopt(s, st, a);
    else
        sched_session_assign(s, st, a);
}

void sched_session_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    uint64_t limit = s->config.stall_ms > 20 * ss->step_ms ? s->config.stall_ms : 20 * ss->step_ms;
    char text[SCHED_TEXT_MAX];

    if (ss->adopting && s->now_ms >= ss->adopt_until_ms) {
        ss->losses++;
        attempt_end(s, st, "not all hosts came back after a restart of the coordinator", 0, a);
    }
    if (ss->open)
        sched_questions_tick(s, st, a);
    if (ss->open)
        sched_pace_tick(s, st, a);
    if (ss->open)
        sched_session_overtake(s, st, a);
    if (ss->open && s->now_ms - ss->progress_ms > s->config.resend_ms &&
        s->now_ms - ss->resent_ms > s->config.resend_ms) {
        ss->resent_ms =
            s->now_ms; /* a message may be lost with a connection; saying it twice is harmless */
        sched_session_tell_all(s, a, SCHED_SEND_OPEN, st, "");
        sched_session_tell_all(s, a, SCHED_SEND_ASSIGN, st, "");
    }
    if (!ss->open || s->now_ms - ss->progress_ms <= limit)
        return;
    snprintf(text, sizeof text, "no progress past version %" PRIu64 " for %" PRIu64 " s",
             ss->version, limit / 1000);
    ss->losses++;
    attempt_end(s, st, text, sched_backoff(s, ss->losses), a);
}

/* ---- what the step leader says
 * ---------------------------------------------------------------------------------- */
static struct sched_stage *session_find(const struct sched *s, uint64_t id)
{
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            if (st->phase_open && st->session != NULL && st->session->id == id)
                return st;
        }
    }
    return NULL;
}

static void series_add(struct sched_actions *a, struct sched_stage *st, const char *name,
                       double value, uint64_t step)
{
    struct sched_action *act = sched_act(a, SCHED_SERIES, st->job, st);
    const char *phase = strcmp(st->phase.name, "train.0") == 0 ? "train" : st->phase.name;

    if (st->job->kind == KIND_PIPELINE)
        snprintf(act->text, sizeof act->text, "%s/%s.%s", st->name, phase, name);
    else
        snprintf(act->text, sizeof act->text, "%s.%s", phase, name);
    act->value = value;
    act->number = step;
}

static void on_status(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    sched_session_open_step(s, st, ev);
    if (ev->partial || ev->version <= ss->version)
        return;
    if (ss->version > ss->manifest_version) {
        uint64_t ms = (s->now_ms - ss->progress_ms) / (ev->version - ss->version);

        ss->step_ms = ms > ss->step_ms ? ms : ss->step_ms;
    }
    ss->version = ev->version < st->phase.session.steps ? ev->version : st->phase.session.steps;
    ss->progress_ms = s->now_ms;
    ss->loss = ev->loss;
    ss->grad_norm = ev->grad_norm;
    ss->lr = ev->lr;
    ss->tokens = ev->tokens;
    ss->tokens_per_s = ev->tokens_per_s;
    st->job->version++;
    series_add(a, st, "loss", ev->loss, ss->version);
    series_add(a, st, "lr", ev->lr, ss->version);
    series_add(a, st, "grad_norm", ev->grad_norm, ss->version);
    series_add(a, st, "tokens_per_s", ev->tokens_per_s, ss->version);
}

static void on_checkpoint(struct sched_stage *st, const struct sched_event *ev,
                          struct sched_actions *a)
{
    struct sched_action *act;

    if (ev->digest.hex[0] == '\0' || ev->version < st->session->manifest_version ||
        ev->version > st->phase.session.steps)
        return;
    st->session->manifest = ev->digest;
    st->session->manifest_version = ev->version;
    act = sched_act(a, SCHED_CHECKPOINT, st->job, st);
    act->digest = ev->digest;
    act->number = ev->version;
    act->epoch = ev->attempt;
    snprintf(act->text, sizeof act->text, "%s", st->phase.name);
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    sched_note(a, st->job, st, "session.checkpoint", "version %" PRIu64 " %s", ev->version,
               ev->digest.hex);
}

static void on_done(struct sched *s, struct sched_stage *st, struct sched_event *ev,
                    struct sched_actions *a)
{
    cJSON *entry = NULL, *outputs = NULL, *metrics = NULL;

    if (ev->digest.hex[0] == '\0' || ev->version != st->phase.session.steps) {
        attempt_end(s, st, "the session ended before its last step", s->config.backoff_ms, a);
        return;
    }
    on_checkpoint(st, ev, a);
    entry = cJSON_CreateObject();
    outputs = cJSON_AddObjectToObject(entry, "outputs");
    cJSON_AddStringToObject(outputs, "checkpoint", ev->digest.hex);
    cJSON_AddArrayToObject(entry, "parts");
    metrics = json_get(ev->result, "metrics") != NULL
                  ? cJSON_Duplicate(json_get(ev->result, "metrics"), true)
                  : cJSON_Duplicate(ev->result, true);
    cJSON_AddItemToObject(entry, "metrics",
                          cJSON_IsObject(metrics) ? metrics : cJSON_CreateObject());
    if (!cJSON_IsObject(metrics))
        cJSON_Delete(metrics);
    sched_session_close(s, st, "done", a);
    sched_phase_finish(s, st, entry, a);
}

static void on_failed(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct sched_failure f = {.code = ev->code, .attempt = (uint32_t)ss->attempt};
    const char *why = ev->text != NULL ? ev->text : "";
    bool loss = sched_code_is_loss(ev->code);

    if (loss)
        ss->losses++;
    else
        ss->faults++;
    if (ss->faults < s->config.fault_budget && ss->losses <= s->config.loss_budget) {
        /* Space comes back when somebody frees it; other losses are over as soon as other workers
         * take the work. */
        attempt_end(s, st, why,
                    sched_backoff(s, ev->code == ERR_NO_SPACE ? ss->losses
                                     : loss                   ? 1
                                                              : ss->faults),
                    a);
        return;
    }
    snprintf(f.class_name, sizeof f.class_name, "%s",
             loss                      ? "infrastructure"
             : ev->code == ERR_NUMERIC ? "data"
                                       : "user");
    snprintf(f.worker, sizeof f.worker, "%s", ev->worker);
    snprintf(f.message, sizeof f.message, "phase %s: %.600s", st->phase.name, why);
    sched_fail(s, st, &f, a);
}

void sched_on_session(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_stage *st = session_find(s, ev->session);
    bool live = st != NULL && (st->session->open || st->session->adopting) &&
                st->session->attempt == ev->attempt;

    if (ev->type != SCHED_SESSION_STATUS && ev->type != SCHED_SESSION_OPINION) {
        struct sched_action *act = sched_act(a, SCHED_SEND_SESSION_ACK, NULL, NULL);

        act->value = (double)ev->version;

        snprintf(act->worker, sizeof act->worker, "%s", ev->worker);
        act->number = ev->session;
        act->epoch = ev->attempt;
    }
    if (!live) {
        s->counters.stale++;
        return;
    }
    if (ev->type == SCHED_SESSION_STATUS)
        on_status(s, st, ev, a);
    else if (ev->type == SCHED_SESSION_OPINION)
        sched_on_opinion(s, st, ev, a);
    else if (ev->type == SCHED_SESSION_CHECKPOINT)
        on_checkpoint(st, ev, a);
    else if (ev->type == SCHED_SESSION_DONE)
        on_done(s, st, ev, a);
    else
        on_failed(s, st, ev, a);
}
