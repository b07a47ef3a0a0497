/*
 * Second opinions. A parameter host says which node of the open step is questioned (audited, or
 * disputed), and by whom it has been computed; another worker is asked to compute it, by a slot for
 * that step only. When two agree the host says so, and who was outvoted: that worker is put in
 * quarantine, with the reason, until an operator releases it. If what had been added up was the
 * outvoted value, the hosts go back to the version before the step.
 *
 * When there is nobody else: an audit is waived; in a dispute the same workers are asked again
 * (memory that flipped once tells the truth the next time), and if they stick to it the job fails
 * and names them. If only one of them is still here, nobody can say who was wrong, and nobody is
 * left to contradict: the step is computed anew from the last checkpoint.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"
#include "wire/control.h" /* control_who() */

#define ASK_MS 2000      /* then somebody else is asked */
#define PATIENCE_MS 1000 /* before an audit is waived while there is a worker that could be asked */
#define FORGET_MS 5000   /* a question that no host repeats is over */
#define AGAIN_MS 500     /* between two asks of those who have spoken already */
#define ASKS_MAX 6       /* of them, about one node */

/* ---- quarantine ------------------------------------------------------------------------------ */

const struct sched_quarantine *sched_quarantined(const struct sched *s, const char *worker)
{
    for (int i = 0; i < s->quarantine_n; i++) {
        if (strcmp(s->quarantine[i].worker, worker) == 0)
            return &s->quarantine[i];
    }
    return NULL;
}

void sched_quarantine_restore(struct sched *s, const char *worker, const char *reason,
                              uint64_t since_wall_ms)
{
    struct sched_quarantine *q;

    if (s->quarantine_n == s->quarantine_cap) {
        s->quarantine_cap = s->quarantine_cap * 2 + 8;
        s->quarantine = mem_grow(s->quarantine, (size_t)s->quarantine_cap, sizeof *s->quarantine);
    }
    q = &s->quarantine[s->quarantine_n++];
    *q = (struct sched_quarantine){.since_wall_ms = since_wall_ms};
    snprintf(q->worker, sizeof q->worker, "%s", worker);
    snprintf(q->reason, sizeof q->reason, "%s", reason);
}

void sched_quarantine(struct sched *s, const char *worker, const char *reason,
                      struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, worker);
    struct sched_action *act = NULL;

    if (sched_quarantined(s, worker) != NULL)
        return;
    sched_quarantine_restore(s, worker, reason, s->wall_ms);
    s->counters.quarantined++;
    act = sched_act(a, SCHED_QUARANTINE, NULL, NULL);
    snprintf(act->worker, sizeof act->worker, "%s", worker);
    snprintf(act->note, sizeof act->note, "%s", reason);
    if (w != NULL)
        w->quarantined = true;
    sched_tasks_again(s, worker, a);
    if (w == NULL)
        return;
    sched_session_lose(s, worker, "in quarantine", a);
    sched_tasks_worker_gone(s, worker, false, a);
}

void sched_release(struct sched *s, const char *worker, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, worker);

    for (int i = 0; i < s->quarantine_n; i++) {
        if (strcmp(s->quarantine[i].worker, worker) != 0)
            continue;
        s->quarantine[i] = s->quarantine[--s->quarantine_n];
        snprintf(sched_act(a, SCHED_RELEASE, NULL, NULL)->worker, SCHED_WORKER_MAX, "%s", worker);
        if (w != NULL)
            w->quarantined = false;
        return;
    }
}

/* ---- questions ------------------------------------------------------------------------------- */

static struct sched_question *question_of(struct sched_session *ss, const struct sched_event *ev)
{
    for (int i = 0; i < ss->questions_n; i++) {
        struct sched_question *q = &ss->question[i];

        if (q->step == ev->version && q->node.level == ev->node.level &&
            q->node.index == ev->node.index)
            return q;
    }
    return NULL;
}

static bool has_spoken(const struct sched_event *ev, const char *worker)
{
    for (int i = 0; i < ev->voices_n; i++) {
        if (ev->voice[i].who == control_who(worker))
            return true;
    }
    return false;
}

static bool is_disputed(const struct sched_event *ev)
{
    for (int i = 1; i < ev->voices_n; i++) {
        if (ev->voice[i].hash != ev->voice[0].hash)
            return true;
    }
    return false;
}

/* A member to ask: one that has not spoken (spoken: that has), rather not the last that was asked.
 * *later: there is one, but it cannot be asked now. */
static const struct sched_worker *member_pick(const struct sched *s, const struct sched_stage *st,
                                              const struct sched_event *ev,
                                              const struct sched_question *q, bool spoken,
                                              bool *later)
{
    const struct sched_worker *best = NULL;
    int best_slots = 0;

    *later = false;
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];
        int slots = strcmp(w->id, q->asked) == 0 ? SCHED_SLOTS_MAX : 0;

        if (w->in != st || (w->roles & SCHED_ROLE_COMPUTE) == 0 ||
            has_spoken(ev, w->id) != spoken || w->quarantined ||
            sched_is_doubted(st->session, w->id))
            continue;
        if (!sched_worker_usable(w)) {
            *later = true;
            continue;
        }
        for (int k = 0; k < st->session->slots_n; k++)
            slots += st->session->slot[k].only_step > st->session->version &&
                     strcmp(st->session->slot[k].worker, w->id) == 0;
        if (best == NULL || slots < best_slots) {
            best = w;
            best_slots = slots;
        }
    }
    return best;
}

static void names_of(const struct sched *s, const struct sched_event *ev, char *out, size_t cap)
{
    size_t n = 0;

    out[0] = '\0';
    for (int i = 0; i < s->workers_n; i++) {
        if (has_spoken(ev, s->worker[i]->id) && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n > 0 ? " and " : "", s->worker[i]->id);
    }
}

static void dispute_fails(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                          struct sched_actions *a)
{
    struct tree_span units = tree_leaves(st->phase.session.units, ev->node);
    struct sched_failure f = {.class_name = "infrastructure", .code = ERR_CONFLICT};
    char names[300];

    names_of(s, ev, names, sizeof names);
    f.attempt = (uint32_t)st->session->attempt;
    snprintf(f.message, sizeof f.message,
             "step %" PRIu64
             ", units [%u, %u): %s compute different gradients, and there is nobody "
             "else to ask; one of these machines is broken",
             ev->version + 1, units.begin, units.end, names);
    sched_fail(s, st, &f, a);
}

static int speakers_here(const struct sched *s, const struct sched_stage *st,
                         const struct sched_event *ev)
{
    int n = 0;

    for (int i = 0; i < s->workers_n; i++)
        n += s->worker[i]->in == st && has_spoken(ev, s->worker[i]->id);
    return n;
}

static void waive(struct sched_stage *st, const struct sched_event *ev, struct sched_actions *a)
{
    for (int i = 0; i < st->session->hosts_n; i++) {
        struct sched_action *act;

        sched_session_tell(a, SCHED_SEND_WAIVE, st, st->session->host[i].worker);
        act = &a->v[a->n - 1];
        act->step = ev->version;
        act->node = ev->node;
    }
}

/* While hosts freeze, or have not been told of their next attempt, nobody computes. */
static bool is_computed(const struct sched_session *ss)
{
    for (int i = 0; i < ss->slots_n && ss->change == CHANGE_NONE; i++)
        if (ss->slot[i].only_step == 0)
            return true;
    return false;
}

static void ask(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                struct sched_question *q, struct sched_actions *a)
{
    struct tree_span units = tree_leaves(st->phase.session.units, ev->node);
    bool later, also_later, again = false;
    const struct sched_worker *w;

    if (!is_computed(st->session))
        return; /* hosts repeat it in the attempt that comes */
    w = member_pick(s, st, ev, q, false, &later);
    if (w == NULL && q->disputed && s->now_ms - q->since_ms >= PATIENCE_MS) {
        if (q->asked_ms > 0 && s->now_ms - q->asked_ms < AGAIN_MS)
            return;
        w = member_pick(s, st, ev, q, true, &also_later);
        again = w != NULL;
    }
    if (w == NULL && !q->disputed && (!later || s->now_ms - q->since_ms >= PATIENCE_MS)) {
        waive(st, ev, a);
        return;
    }
    if (again && ++q->agains > ASKS_MAX) {
        if (speakers_here(s, st, ev) > 1)
            dispute_fails(s, st, ev, a);
        else
            sched_attempt_end(s, st, "who computed another gradient has gone",
                              s->config.backoff_ms, a);
        return;
    }
    if (w == NULL || !sched_slot_add(st, w->id, ev->version, units, ++q->asks))
        return;
    q->asked_ms = s->now_ms;
    snprintf(q->asked, sizeof q->asked, "%s", w->id);
    sched_session_publish(s, st, a);
}

static void question_new(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                         struct sched_question **q)
{
    struct sched_session *ss = st->session;

    if (ss->questions_n == SCHED_QUESTIONS_MAX)
        return; /* hosts repeat it when others are settled */
    *q = &ss->question[ss->questions_n++];
    **q = (struct sched_question){.step = ev->version, .node = ev->node, .since_ms = s->now_ms};
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void on_verdict(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                       struct sched_actions *a)
{
    struct tree_span units = tree_leaves(st->phase.session.units, ev->node);
    char reason[SCHED_TEXT_MAX], id[SCHED_WORKER_MAX] = "";

    for (int i = 0; i < s->workers_n && ev->odd != 0; i++) {
        if (control_who(s->worker[i]->id) == ev->odd)
            snprintf(id, sizeof id, "%s", s->worker[i]->id);
    }
    snprintf(reason, sizeof reason,
             "its gradient of step %" PRIu64 ", units [%u, %u), is not what two others compute",
             ev->version + 1, units.begin, units.end);
    if (id[0] != '\0' && sched_quarantined(s, id) == NULL) {
        sched_note(a, st->job, st, "worker.quarantined", "%s: %s", id, reason);
        sched_quarantine(s, id, reason, a);
    }
    if (ev->tainted && st->session->open && st->session->attempt == ev->attempt)
        sched_handover_again(s, st, "a wrong gradient had been added up", a);
}

void sched_on_opinion(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct sched_question *q = question_of(ss, ev);
    uint64_t patience =
        ASK_MS > 3 * (uint64_t)ss->step.usual_ms ? ASK_MS : 3 * (uint64_t)ss->step.usual_ms;

    if (!ss->open || !tree_node_is_valid(st->phase.session.units, ev->node))
        return;
    if (q == NULL && !ev->settled)
        question_new(s, st, ev, &q);
    if (q != NULL && !q->disputed && is_disputed(ev)) {
        struct tree_span units = tree_leaves(st->phase.session.units, ev->node);

        q->disputed = true;
        s->counters.disputed++;
        sched_note(a, st->job, st, "session.disputed",
                   "step %" PRIu64 ", units [%u, %u): two workers compute different gradients",
                   ev->version + 1, units.begin, units.end);
    }
    if (ev->settled) {
        on_verdict(s, st, ev, a);
        return;
    }
    if (q != NULL)
        q->said_ms = s->now_ms;
    if (q != NULL &&
        (q->asked_ms == 0 || s->now_ms - q->asked_ms >= patience || has_spoken(ev, q->asked)))
        ask(s, st, ev, q, a);
}

void sched_questions_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    (void)a;
    for (int i = 0; i < ss->questions_n; i++) {
        const struct sched_question *q = &ss->question[i];

        if (q->step < ss->version || s->now_ms - q->said_ms > FORGET_MS)
            ss->question[i--] = ss->question[--ss->questions_n];
    }
}
