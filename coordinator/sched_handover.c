/*
 * Changing the parameter hosts of a session that runs. Nothing is computed twice but the step that
 * is open:
 *
 *   freeze   The hosts change nothing any more and say where they stand. When one was lost, all the
 *            others are asked now; when hosts only join or leave, the leader is asked to do it at
 *            the edge of the open step. Repeated until they have answered.
 *   cover    Out of the answers: the version to go on from, and who holds which chunk at it
 *            (cover.h).
 *   open     The next attempt, on other hosts, from the memory of those that froze (the *sources*).
 *            They keep it until the attempt has closed a step: whoever is lost before, the same
 *            plan is made again from what is left of them.
 *   release  Then the sources forget, and who drains may go.
 *
 * Where chunks are lost, nobody answers, or the new hosts close no step, the session goes back to
 * its last checkpoint: the same bits, more work. All of it survives a restart of the coordinator:
 * that hosts are being frozen and what the sources hold is journalled with the stage, and answers
 * are asked for again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cover.h"
#include "coordinator/sched_inner.h"

static bool lives(const struct sched *s, const struct sched_stage *st, const char *worker)
{
    const struct sched_worker *w = sched_find_worker(s, worker);

    return w != NULL && w->in == st;
}

static struct sched_source *source_of(struct sched_session *ss, const char *worker)
{
    for (int i = 0; i < ss->sources_n; i++) {
        if (strcmp(ss->source[i].worker, worker) == 0)
            return &ss->source[i];
    }
    return NULL;
}

bool sched_handover_holds(const struct sched_session *ss, const char *worker)
{
    for (int i = 0; ss->from_attempt != 0 && i < ss->sources_n; i++) {
        if (!ss->source[i].gone && strcmp(ss->source[i].worker, worker) == 0)
            return true;
    }
    return sched_session_is_host(ss, worker);
}

/* ---- freeze ---------------------------------------------------------------------------------- */

/* Every host that has not answered; at the edge of a step it is the leader who tells the others. */
static void freeze_ask(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    ss->asked_ms = s->now_ms;
    for (int i = 0; i < ss->sources_n; i++) {
        if (ss->source[i].answered || ss->source[i].gone || (ss->edge && i > 0))
            continue;
        sched_session_tell(a, SCHED_SEND_FREEZE, st, ss->source[i].worker);
        a->v[a->n - 1].value = ss->edge;
    }
}

static void sources_make(struct sched_session *ss)
{
    ss->sources_n = ss->hosts_n;
    for (int i = 0; i < ss->hosts_n; i++) {
        struct sched_source *x = &ss->source[i];
        int before = 0;

        *x = (struct sched_source){.chunk_begin = ss->host[i].chunk_begin,
                                   .chunk_end = ss->host[i].chunk_end,
                                   .gone = ss->host[i].lost};
        snprintf(x->worker, sizeof x->worker, "%s", ss->host[i].worker);
        if (ss->replicated && cover_copy_of(i, ss->hosts_n, &before)) {
            x->copy_begin = ss->host[before].chunk_begin;
            x->copy_end = ss->host[before].chunk_end;
        }
    }
}

void sched_handover_begin(struct sched *s, struct sched_stage *st, enum sched_change change,
                          const char *why, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    CHECK(ss->open && ss->change == CHANGE_NONE && ss->from_attempt == 0);
    ss->change = change;
    ss->edge = change == CHANGE_SPREAD;
    ss->change_ms = s->now_ms;
    snprintf(ss->why, sizeof ss->why, "%s", why);
    sources_make(ss);
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    sched_note(a, st->job, st, "session.freeze",
               "attempt %" PRIu64 " stops at version %" PRIu64 " or the next: %.150s", ss->attempt,
               ss->version, why);
    freeze_ask(s, st, a);
}

/* ---- open ------------------------------------------------------------------------------------ */

static void report_of(const struct sched *s, const struct sched_stage *st,
                      const struct sched_source *x, struct cover_report *out)
{
    *out = (struct cover_report){.here = x->answered && !x->gone && lives(s, st, x->worker),
                                 .version = x->frozen.version,
                                 .roots = x->frozen.roots,
                                 .closed = x->frozen.version > 0 &&
                                           x->frozen.close_step + 1 == x->frozen.version &&
                                           x->frozen.scale > 0,
                                 .begin = x->chunk_begin,
                                 .end = x->chunk_end,
                                 .copy_begin = x->copy_begin,
                                 .copy_end = x->copy_end};
}

/* What is no use any more leaves the list; of the rest stays what is held at the version. */
static void sources_keep(struct sched_session *ss, const struct cover_report *report)
{
    int n = 0;

    for (int i = 0; i < ss->sources_n; i++) {
        struct sched_source *x = &ss->source[i];

        if (report[i].usable == 0)
            continue;
        if ((report[i].usable & COVER_OWN) == 0)
            x->chunk_end = x->chunk_begin;
        if ((report[i].usable & COVER_COPY) == 0)
            x->copy_end = x->copy_begin;
        ss->source[n++] = *x;
    }
    ss->sources_n = n;
}

static void attempt_next(struct sched *s, struct sched_stage *st, uint64_t version,
                         struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    const char *type = ss->change == CHANGE_LOSS     ? "session.promote"
                       : ss->change == CHANGE_SPREAD ? "session.respread"
                                                     : "session.again";

    s->counters.promoted += ss->change == CHANGE_LOSS;
    s->counters.respread += ss->change == CHANGE_SPREAD;
    if (ss->from_attempt == 0)
        ss->from_attempt = ss->attempt;
    ss->attempt++;
    ss->assignment = 0;
    ss->slots_n = 0;
    ss->step = (struct sched_open){0};
    ss->duplicates = ss->stale = ss->audited = 0;
    ss->questions_n = 0;
    ss->version = ss->start_version = version;
    ss->replicated = s->config.replicate && ss->hosts_n >= 2;
    ss->stepped = ss->edge = false;
    ss->change = CHANGE_NONE;
    ss->progress_ms = ss->opened_ms = ss->spread_ms = ss->resent_ms = s->now_ms;
    ss->opened_version = version;
    sched_note(a, st->job, st, type,
               "attempt %" PRIu64 " from version %" PRIu64
               " on %d hosts, from the memory of %d: %.120s",
               ss->attempt, version, ss->hosts_n, ss->sources_n, ss->why);
    sched_members_take(s, st, true, a);
    sched_session_tell_all(s, a, SCHED_SEND_OPEN, st, "");
    sched_session_assign(s, st, a); /* saves the stage */
}

/* Opens the next attempt from memory. False: it cannot be, and `why` says why. */
static bool reopen(struct sched *s, struct sched_stage *st, char *why, size_t cap,
                   struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct cover_report report[SCHED_HOSTS_MAX];
    struct sched_host host[SCHED_HOSTS_MAX];
    struct cover c;
    int n = 0;

    for (int i = 0; i < ss->sources_n; i++)
        report_of(s, st, &ss->source[i], &report[i]);
    if (!cover_find(report, ss->sources_n, sched_session_chunks(&st->phase.session),
                    ss->from_attempt != 0 ? ss->start.version : 0, &c)) {
        snprintf(why, cap, "nobody holds chunk %u at version %" PRIu64, c.missing, c.version);
        return false;
    }
    if (c.version >= st->phase.session.steps) {
        snprintf(why, cap, "no step is left to take");
        return false;
    }
    n = sched_hosts_pick(s, st, st->job->class_id, host);
    if (n == 0) {
        snprintf(why, cap, "no worker can host");
        return false;
    }
    if (c.ahead >= 0)
        ss->start = ss->source[c.ahead].frozen;
    sources_keep(ss, report);
    ss->hosts_n = n;
    memcpy(ss->host, host, sizeof host);
    attempt_next(s, st, c.version, a);
    return true;
}

static void reopen_or_roll_back(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    char why[SCHED_TEXT_MAX], text[SCHED_TEXT_MAX];

    if (reopen(s, st, why, sizeof why, a))
        return;
    snprintf(text, sizeof text, "%.120s; %.120s", st->session->why, why);
    sched_attempt_end(s, st, text, 0, a);
}

static bool all_answered(const struct sched_session *ss)
{
    for (int i = 0; i < ss->sources_n; i++) {
        if (!ss->source[i].answered && !ss->source[i].gone)
            return false;
    }
    return true;
}

void sched_handover_frozen(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                           struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct sched_source *x = source_of(ss, ev->worker);

    if (ss->change == CHANGE_NONE || x == NULL || x->gone || !lives(s, st, ev->worker)) {
        s->counters.stale++;
        return;
    }
    x->frozen = ev->frozen;
    x->frozen.version = ev->version;
    x->answered = true;
    if (all_answered(ss))
        reopen_or_roll_back(s, st, a);
}

void sched_handover_again(struct sched *s, struct sched_stage *st, const char *why,
                          struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    if (!ss->open || ss->change != CHANGE_NONE)
        return; /* what is open is thrown away already */
    if (ss->from_attempt == 0) {
        sched_handover_begin(s, st, CHANGE_AGAIN, why, a);
        return;
    }
    snprintf(ss->why, sizeof ss->why, "%s", why);
    ss->change = CHANGE_AGAIN;
    reopen_or_roll_back(s, st, a);
}

/* ---- losses on the way ----------------------------------------------------------------------- */

/* From an orderly change to one in which somebody is missing: not at the edge any more, but now. */
static void freeze_now(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    if (ss->edge)
        ss->change_ms = s->now_ms;
    ss->edge = false;
    freeze_ask(s, st, a);
}

void sched_handover_go_on(struct sched *s, struct sched_stage *st, const char *why,
                          struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    snprintf(ss->why, sizeof ss->why, "%s", why);
    if (ss->change != CHANGE_NONE) {
        ss->change = CHANGE_LOSS;
        sched_act(a, SCHED_SAVE_STAGE, st->job, st);
        if (all_answered(ss))
            reopen_or_roll_back(s, st, a);
        else
            freeze_now(s, st, a);
    } else if (ss->from_attempt != 0) {
        ss->change = CHANGE_LOSS;
        reopen_or_roll_back(s, st, a);
    } else if (ss->stepped && ss->replicated) {
        sched_handover_begin(s, st, CHANGE_LOSS, why, a);
        if (all_answered(ss))
            reopen_or_roll_back(s, st, a);
    } else {
        sched_attempt_end(s, st, why, 0, a);
    }
}

void sched_handover_lost(struct sched *s, struct sched_stage *st, const char *worker,
                         const char *why, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct sched_source *x = source_of(ss, worker);

    for (int i = 0; i < ss->hosts_n; i++) {
        if (strcmp(ss->host[i].worker, worker) == 0)
            ss->host[i].lost = true;
    }
    if (x != NULL)
        x->gone = true;
    if (ss->adopting)
        sched_adopt_settle(s, st, a);
    else if (ss->open)
        sched_handover_go_on(s, st, why, a);
}

/* ---- release --------------------------------------------------------------------------------- */

/* Sources forget. Everybody is told: one that was left out of the list may hold something too. */
void sched_handover_drop(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    for (int i = 0; ss->from_attempt != 0 && i < s->workers_n; i++) {
        if (s->worker[i]->in != st)
            continue;
        sched_session_tell(a, SCHED_SEND_CLOSE, st, s->worker[i]->id);
        a->v[a->n - 1].epoch = ss->from_attempt;
        snprintf(a->v[a->n - 1].note, sizeof a->v[a->n - 1].note, "the hosts have changed");
    }
    ss->from_attempt = 0;
    ss->sources_n = 0;
    ss->change = CHANGE_NONE;
    ss->edge = false;
}

void sched_handover_stepped(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    if (ss->stepped)
        return;
    ss->stepped = true;
    ss->barren = 0;
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    if (ss->change != CHANGE_NONE)
        return;
    sched_handover_drop(s, st, a);
    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];

        if (w->in != st || !w->draining || sched_session_is_host(ss, w->id))
            continue;
        sched_session_lose(s, w->id, "others hold what it held", a); /* and compute its units */
    }
}

/* ---- spread ---------------------------------------------------------------------------------- */

#define LEFT_JOIN 16 /* steps that must be left so that a change of hosts is worth its while */
#define LEFT_DRAIN 4

static const char *drainer(const struct sched *s, const struct sched_session *ss)
{
    for (int i = 0; i < ss->hosts_n; i++) {
        const struct sched_worker *w = sched_find_worker(s, ss->host[i].worker);

        if (!ss->host[i].lost && w != NULL && w->draining)
            return w->id;
    }
    return NULL;
}

/* Is it long enough ago, and is enough left to do? */
static bool worth_it(const struct sched *s, const struct sched_stage *st, uint64_t left)
{
    const struct sched_session *ss = st->session;
    bool known = ss->opened_version != SCHED_VERSION_UNKNOWN;
    uint64_t steps = known ? ss->version - ss->opened_version : 0;
    uint64_t pace_ms = steps > 0 ? (ss->progress_ms - ss->opened_ms) / steps : 0;

    return s->config.respread_ms > 0 && s->now_ms - ss->spread_ms >= s->config.respread_ms &&
           left >= LEFT_JOIN && left * pace_ms >= s->config.respread_ms;
}

void sched_handover_spread(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    uint64_t left = st->phase.session.steps - ss->version;
    struct sched_host host[SCHED_HOSTS_MAX];
    const char *leaves = NULL;
    char why[SCHED_TEXT_MAX];
    int n = 0;

    if (!ss->open || !ss->stepped || ss->change != CHANGE_NONE || ss->from_attempt != 0)
        return;
    leaves = drainer(s, ss);
    if (leaves != NULL ? left < LEFT_DRAIN : !worth_it(s, st, left))
        return;
    n = sched_hosts_pick(s, st, st->job->class_id, host);
    if (leaves != NULL && n == 0)
        sched_session_lose(s, leaves, "worker drains, and nobody can host in its place", a);
    else if (leaves != NULL)
        snprintf(why, sizeof why, "%s: worker drains", leaves);
    else if (n > ss->hosts_n)
        snprintf(why, sizeof why, "%d hosts instead of %d", n, ss->hosts_n);
    if (n > 0 && (leaves != NULL || n > ss->hosts_n))
        sched_handover_begin(s, st, CHANGE_SPREAD, why, a);
}

/* ---- time ------------------------------------------------------------------------------------ */

static uint64_t at_least(uint64_t ms, uint64_t steps, uint64_t step_ms)
{
    return ms > steps * step_ms ? ms : steps * step_ms;
}

void sched_handover_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    uint64_t limit = ss->edge ? at_least(s->config.freeze_ms, 2, ss->step_ms) : s->config.freeze_ms;
    char text[SCHED_TEXT_MAX];

    if (ss->change == CHANGE_NONE) {
        if (ss->from_attempt == 0 ||
            s->now_ms - ss->opened_ms <= at_least(s->config.first_ms, 20, ss->step_ms))
            return;
        snprintf(text, sizeof text, "the hosts of attempt %" PRIu64 " closed no step", ss->attempt);
        sched_attempt_end(s, st, text, 0, a);
    } else if (s->now_ms - ss->change_ms < limit) {
        if (s->now_ms - ss->asked_ms >= SCHED_ASK_MS)
            freeze_ask(s, st, a);
    } else if (ss->edge) {
        freeze_now(s, st, a); /* the step does not come to its end */
    } else {
        reopen_or_roll_back(s, st, a); /* with those that have answered */
    }
}
