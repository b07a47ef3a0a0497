/*
 * Hung and slow workers. A worker is hung when its control thread talks but its busy compute threads
 * have not all moved for hang_ms: then it gets nothing to do until they move again; the units of a
 * step that were its own go to others at once by a new assignment, and each row range that stands
 * still is leased a second time.
 *
 * A step is open for too long when it takes more than SLOW_FACTOR of what the faster half of the
 * workers usually needs (and more than slow_ms). Then the units that hosts still miss of the worker whose finish is predicted
 * latest are given, for this step only, to workers that are done with their own. A row range is
 * overtaken when nothing else is left to give out and a fresh start elsewhere would be over before
 * it. What is done twice is equal, and the second to come is a duplicate or stale.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"

#define SLOW_FACTOR 3.0
#define SAID_FRESH_MS 1500 /* what hosts said they miss is believed for so long */
#define PIECES_MAX 64      /* spans given out at once */

/* ---- hung workers ---------------------------------------------------------------------------- */

static uint32_t span_missing(const struct sched_open *o, struct tree_span span)
{
    uint32_t n = 0;

    for (int i = 0; i < o->missing_n; i++) {
        uint32_t begin = o->missing[i].begin > span.begin ? o->missing[i].begin : span.begin;
        uint32_t end = o->missing[i].end < span.end ? o->missing[i].end : span.end;

        n += end > begin ? end - begin : 0;
    }
    return n;
}

static bool step_is_told(const struct sched *s, const struct sched_session *ss)
{
    return ss->step.version == ss->version && ss->step.said_ms > 0 &&
           s->now_ms - ss->step.said_ms < SAID_FRESH_MS;
}

static void worker_hangs(struct sched *s, struct sched_worker *w, struct sched_actions *a)
{
    struct sched_stage *st = w->in;
    const struct sched_slot *slot = NULL;

    w->hung = true;
    if (st == NULL || !st->session->open || (w->roles & SCHED_ROLE_COMPUTE) == 0)
        return;
    slot = sched_slot_of(st->session, w->id);
    if (slot != NULL) {
        struct tree_span span = {slot->leaf_begin, slot->leaf_end};

        s->counters.overtaken += step_is_told(s, st->session)
                                     ? span_missing(&st->session->step, span)
                                     : span.end - span.begin;
    }
    sched_note(a, st->job, st, "session.hung",
               "%s: its compute threads have not moved for %u s, others do its units", w->id,
               s->config.hang_ms / 1000);
    sched_session_assign(s, st, a);
}

static void worker_moves(struct sched *s, struct sched_worker *w, struct sched_actions *a)
{
    w->hung = false;
    if (w->in == NULL || !w->in->session->open || (w->roles & SCHED_ROLE_COMPUTE) == 0)
        return;
    sched_note(a, w->in->job, w->in, "session.moves", "%s: its compute threads move again", w->id);
    sched_session_assign(s, w->in, a);
}

void sched_workers_watch(struct sched *s, struct sched_actions *a)
{
    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];
        bool still = s->config.hang_ms > 0 && w->moved_ms > 0 && s->now_ms > w->moved_ms &&
                     s->now_ms - w->moved_ms > s->config.hang_ms;

        if (still && !w->hung)
            worker_hangs(s, w, a);
        else if (!still && w->hung)
            worker_moves(s, w, a);
    }
}

/* ---- slow steps ------------------------------------------------------------------------------ */

/* Until half of the workers were done with the last step: what a step takes without those that are
 * slow. -1: there are too few to tell. */
static double half_done_ms(const struct sched_event *ev)
{
    uint32_t ms[SCHED_SHARES_MAX];
    int n = ev->shares_n < SCHED_SHARES_MAX ? ev->shares_n : SCHED_SHARES_MAX;

    if (n < 2)
        return -1;
    for (int i = 0; i < n; i++) {
        int at = i;

        for (; at > 0 && ms[at - 1] > ev->share[i].ms; at--)
            ms[at] = ms[at - 1];
        ms[at] = ev->share[i].ms;
    }
    return ms[(n - 1) / 2] + 1;
}

/* What a host says about the step that is open. */
void sched_session_open_step(struct sched *s, struct sched_stage *st, const struct sched_event *ev)
{
    struct sched_session *ss = st->session;
    struct sched_open *o = &ss->step;

    if (!ev->partial && ev->version > o->version && ev->version > ss->version) {
        double took = o->since_ms > 0 && s->now_ms > o->since_ms
                          ? (double)(s->now_ms - o->since_ms) / (double)(ev->version - o->version)
                          : 0;
        double half = half_done_ms(ev);

        sched_pace_take(s, st, ev);
        if (half >= 0 && half < took)
            took = half;
        if (o->usual_ms > 0 && took > 2 * o->usual_ms)
            took = 2 * o->usual_ms; /* one slow step does not make slow steps usual */
        if (o->since_ms > 0)
            o->usual_ms = o->usual_ms > 0 ? 0.8 * o->usual_ms + 0.2 * took : took;
        o->version = ev->version;
        o->since_ms = s->now_ms;
        o->said_ms = o->overtaken_ms = 0;
        o->missing_n = 0;
    }
    if (ev->duplicates > ss->duplicates && !ev->partial) {
        s->counters.duplicate += ev->duplicates - ss->duplicates;
        ss->duplicates = ev->duplicates;
    }
    if (ev->audited > ss->audited && !ev->partial) {
        s->counters.audited += ev->audited - ss->audited;
        ss->audited = ev->audited;
    }
    if (ev->late > ss->stale && !ev->partial) {
        s->counters.stale += ev->late - ss->stale;
        ss->stale = ev->late;
    }
    for (int i = 0; i < ss->hosts_n; i++) {
        if (strcmp(ss->host[i].worker, ev->worker) != 0 || ev->damaged <= ss->host[i].damaged)
            continue;
        s->counters.damaged += ev->damaged - ss->host[i].damaged;
        ss->host[i].damaged = ev->damaged;
    }
    if (ev->missing_n == 0 || ev->version != o->version || ev->missing_n > SCHED_MISSING_MAX)
        return;
    o->said_ms = s->now_ms;
    o->missing_n = ev->missing_n;
    for (int i = 0; i < ev->missing_n; i++)
        o->missing[i] = ev->missing[i];
}

static struct tree_span slot_span(const struct sched_slot *slot)
{
    return (struct tree_span){slot->leaf_begin, slot->leaf_end};
}

static bool overtaken_already(const struct sched_session *ss, uint32_t leaf)
{
    for (int i = 0; i < ss->slots_n; i++) {
        if (ss->slot[i].only_step == ss->version + 1 && ss->slot[i].leaf_begin <= leaf &&
            leaf < ss->slot[i].leaf_end)
            return true;
    }
    return false;
}

/* The missing units of a slot that nobody else was given yet, in runs. */
static int outstanding(const struct sched_session *ss, const struct sched_slot *slot,
                       struct tree_span out[PIECES_MAX])
{
    int n = 0;

    for (uint32_t leaf = slot->leaf_begin; leaf < slot->leaf_end; leaf++) {
        if (span_missing(&ss->step, (struct tree_span){leaf, leaf + 1}) == 0 ||
            overtaken_already(ss, leaf))
            continue;
        if (n > 0 && out[n - 1].end == leaf)
            out[n - 1].end++;
        else if (n < PIECES_MAX)
            out[n++] = (struct tree_span){leaf, leaf + 1};
    }
    return n;
}

/* The slot whose missing units are predicted to come last; by how much of it is done since the step
 * was opened. */
static const struct sched_slot *slowest(const struct sched_session *ss)
{
    const struct sched_slot *worst = NULL;
    double worst_left = 0;
    struct tree_span out[PIECES_MAX];

    for (int i = 0; i < ss->slots_n; i++) {
        const struct sched_slot *slot = &ss->slot[i];
        uint32_t n = slot->leaf_end - slot->leaf_begin,
                 missing = slot->only_step == 0 ? span_missing(&ss->step, slot_span(slot)) : 0;
        double left = missing == 0  ? 0
                      : missing < n ? (double)missing / (double)(n - missing)
                                    : 1e9;

        if (left > worst_left && outstanding(ss, slot, out) > 0) {
            worst = slot;
            worst_left = left;
        }
    }
    return worst;
}

/* Members that are done with their own units, one entry a thread. */
static int helpers(const struct sched *s, const struct sched_stage *st, const char *not_this,
                   const struct sched_worker **out, int cap)
{
    const struct sched_session *ss = st->session;
    int n = 0;

    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];
        const struct sched_slot *own = sched_slot_of(ss, w->id);

        if (w->in != st || !sched_worker_usable(w) || sched_is_doubted(st->session, w->id) ||
            (w->roles & SCHED_ROLE_COMPUTE) == 0 || strcmp(w->id, not_this) == 0 ||
            (own != NULL && span_missing(&ss->step, slot_span(own)) > 0))
            continue;
        for (uint32_t t = 0; t < w->threads && n < cap; t++)
            out[n++] = w;
    }
    return n;
}

/* Deals runs of units over the helpers' threads, in pieces of about the same size. Gives how many
 * units. */
static uint32_t deal(struct sched_stage *st, const struct tree_span *run, int runs,
                     const struct sched_worker **helper, int helpers_n)
{
    uint32_t units = 0, piece, given = 0;
    int next = 0;

    for (int i = 0; i < runs; i++)
        units += run[i].end - run[i].begin;
    piece = (units + (uint32_t)helpers_n - 1) / (uint32_t)helpers_n;
    for (int i = 0; i < runs; i++) {
        for (uint32_t at = run[i].begin; at < run[i].end; at += piece) {
            struct tree_span part = {at, run[i].end - at < piece ? run[i].end : at + piece};

            if (!sched_slot_add(st, helper[next++ % helpers_n]->id, st->session->version, part, 0))
                return given;
            given += part.end - part.begin;
        }
    }
    return given;
}

void sched_session_overtake(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct sched_open *o = &ss->step;
    const struct sched_worker *helper[PIECES_MAX];
    struct tree_span run[PIECES_MAX];
    double limit = SLOW_FACTOR * o->usual_ms > s->config.slow_ms ? SLOW_FACTOR * o->usual_ms
                                                                 : s->config.slow_ms;
    const struct sched_slot *worst = NULL;
    struct sched_slot slot;
    char worker[SCHED_WORKER_MAX];
    uint32_t given = 0;
    int runs, n;

    if (!step_is_told(s, ss) || o->usual_ms <= 0 || s->config.slow_ms == 0 ||
        (double)(s->now_ms - o->since_ms) < limit ||
        (o->overtaken_ms > 0 && (double)(s->now_ms - o->overtaken_ms) < o->usual_ms))
        return;
    worst = slowest(ss);
    if (worst == NULL)
        return;
    snprintf(worker, sizeof worker, "%s", worst->worker);
    slot = *worst;
    runs = outstanding(ss, worst, run);
    n = helpers(s, st, worker, helper, PIECES_MAX);
    if (n == 0)
        return;
    given = deal(st, run, runs, helper, n);
    if (given == 0)
        return;
    o->overtaken_ms = s->now_ms;
    sched_pace_overtaken(s, &slot, (double)(s->now_ms - o->since_ms));
    s->counters.overtaken += given;
    sched_note(a, st->job, st, "session.overtake",
               "step %" PRIu64 " is open for %.1f s (usually %.1f s): %u units of %s go to others "
               "as well",
               ss->version + 1, (double)(s->now_ms - o->since_ms) / 1000, o->usual_ms / 1000, given,
               worker);
    sched_session_publish(s, st, a);
}

/* ---- slow ranges ----------------------------------------------------------------------------- */

/* Milliseconds until a range is done, at its pace so far; -1: it cannot be told. */
static double time_left(const struct sched *s, const struct sched_task *t)
{
    double elapsed = (double)(s->now_ms - t->leased_ms);

    if (t->done == 0 || t->total < t->done)
        return -1;
    return elapsed * (double)(t->total - t->done) / (double)t->done;
}

/* Would a fresh start elsewhere be over sooner? What has shown no progress for as long as two whole
 * ranges usually take is slow, too. */
static double lateness(const struct sched *s, const struct sched_stage *st,
                       const struct sched_task *t)
{
    double left = time_left(s, t), elapsed = (double)(s->now_ms - t->leased_ms);

    if (st->task_ms <= 0 || elapsed < s->config.slow_ms || elapsed < 1.5 * st->task_ms)
        return 0;
    if (left < 0)
        return elapsed > 2 * st->task_ms ? elapsed : 0;
    return left > 1.2 * st->task_ms ? left : 0;
}

/* Its thread stands still, or it waits there for threads that do: it was leased ahead, or they hold
 * what we have counted as over since others have done it. */
static bool is_stuck(const struct sched *s, const struct sched_task *t)
{
    const struct sched_worker *w = sched_find_worker(s, t->worker);

    return sched_task_hangs(s, t) ||
           (w != NULL && w->hung && (t->moved == 0 || w->running > w->threads));
}

static bool overtake(struct sched *s, struct sched_stage *st, struct sched_task *t, bool stuck,
                     struct sched_actions *a)
{
    struct sched_worker *w = sched_task_other(s, st, t);

    if (w == NULL)
        return false;
    sched_note(a, st->job, st, "task.overtake", "task %u at %s is %s: leased to %s as well",
               t->index, t->worker, stuck ? "hung" : "slow", w->id);
    sched_task_shadow(s, st, t, w, a);
    return true;
}

void sched_tasks_overtake(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_task *worst = NULL;
    double worst_by = 0;

    if (s->config.slow_ms == 0)
        return;
    for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE;
         i = task_set_next(&st->busy, i + 1)) {
        struct sched_task *t = &st->task[i];
        double by;

        if (t->state != TASK_LEASED || t->shadow.epoch != 0 || s->now_ms < t->shadow_retry_ms)
            continue;
        if (is_stuck(s, t)) {
            if (!overtake(s, st, t, true, a))
                return; /* nobody has a thread for it */
            continue;
        }
        by = st->pending.count == 0 ? lateness(s, st, t) : 0;
        if (by > worst_by) {
            worst = t;
            worst_by = by;
        }
    }
    if (worst != NULL)
        overtake(s, st, worst, false, a);
}
