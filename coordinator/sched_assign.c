/*
 * Who computes what in a training session. Slots: the units of a step over the compute workers,
 * contiguous, in proportion to threads and their speed (sched_pace.c), cut at the most aligned place that does not make the
 * longest share longer (an aligned span is few tree nodes, so less to push).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"

struct share {
    struct sched_worker *worker;
    uint32_t cut; /* its span begins here */
};

/* Rounds of one unit a thread, in units of the fastest's. */
static double load(uint32_t span, const struct sched_worker *w)
{
    return (span + w->threads - 1) / w->threads * sched_pace_of(w);
}

static double longest(const struct share *v, int n, uint32_t units)
{
    double most = 0;

    for (int i = 0; i < n; i++) {
        uint32_t end = i + 1 < n ? v[i + 1].cut : units;
        double l = load(end - v[i].cut, v[i].worker);

        most = l > most ? l : most;
    }
    return most;
}

static void cuts_align(struct share *v, int n, uint32_t units)
{
    for (int i = 1; i < n; i++) {
        uint32_t low = v[i - 1].cut, high = i + 1 < n ? v[i + 1].cut : units, best = v[i].cut;
        double limit = longest(v, n, units);
        uint32_t reach = v[i].worker->threads < 8 ? 8 : v[i].worker->threads;
        uint32_t from = best > low + reach ? best - reach : low,
                 to = high - best > reach ? best + reach : high;

        for (uint32_t c = from; c <= to; c++) {
            uint32_t zeros_c = c == 0 ? 32 : (uint32_t)__builtin_ctz(c),
                     zeros_b = best == 0 ? 32 : (uint32_t)__builtin_ctz(best);

            v[i].cut = c;
            if (c != low && c != high && longest(v, n, units) <= limit && zeros_c > zeros_b)
                best = c;
        }
        v[i].cut = best;
    }
}

const struct sched_slot *sched_slot_of(const struct sched_session *ss, const char *worker)
{
    for (int i = 0; i < ss->slots_n; i++) {
        if (ss->slot[i].only_step == 0 && strcmp(ss->slot[i].worker, worker) == 0)
            return &ss->slot[i];
    }
    return NULL;
}

int sched_session_computing(const struct sched_session *ss)
{
    int n = 0;

    for (int i = 0; i < ss->slots_n; i++)
        n += ss->slot[i].only_step == 0;
    return n;
}

/* Those of a step that has closed. */
static void slots_drop_old(struct sched_session *ss)
{
    int kept = 0;

    for (int i = 0; i < ss->slots_n; i++) {
        if (ss->slot[i].only_step == 0 || ss->slot[i].only_step > ss->version)
            ss->slot[kept++] = ss->slot[i];
    }
    ss->slots_n = kept;
}

bool sched_slot_add(struct sched_stage *st, const char *worker, uint64_t step,
                    struct tree_span span, uint32_t again)
{
    struct sched_session *ss = st->session;
    struct sched_slot *slot;

    slots_drop_old(ss);
    if (ss->slots_n == SCHED_SLOTS_MAX)
        return false;
    slot = &ss->slot[ss->slots_n];
    *slot = (struct sched_slot){
        .leaf_begin = span.begin, .leaf_end = span.end, .only_step = step + 1, .again = again};
    snprintf(slot->worker, sizeof slot->worker, "%s", worker);
    ss->slots_n++;
    return true;
}

/* Who can compute: members that are well and whose arithmetic nobody doubts; all members, if none is. */
static int shares_make(struct sched *s, struct sched_stage *st, bool anybody, struct share *v,
                       uint64_t *threads)
{
    uint32_t units = st->phase.session.units;
    int n = 0;

    *threads = 0;
    for (int i = 0; i < s->workers_n && n < SCHED_SLOTS_MAX / 2; i++) {
        struct sched_worker *w = s->worker[i];

        if (w->in == st &&
            (anybody || (sched_worker_usable(w) && !sched_is_doubted(st->session, w->id))) &&
            (w->roles & SCHED_ROLE_COMPUTE) != 0 && *threads < units) {
            v[n++].worker = w;
            *threads += w->threads;
        }
    }
    return n;
}

/* Those of the open step stay, the latest ones when there is no room for all: somebody has the same
 * units in a standing slot, and what is missed too long is given out again. */
static void slots_keep(struct sched_session *ss, int room)
{
    int open = 0, kept = 0;

    slots_drop_old(ss);
    open = ss->slots_n - sched_session_computing(ss);
    for (int i = 0; i < ss->slots_n; i++) {
        if (ss->slot[i].only_step != 0 && open-- <= room)
            ss->slot[kept++] = ss->slot[i];
    }
    ss->slots_n = kept;
}

/* Standing slots anew. */
static void slots_make(struct sched *s, struct sched_stage *st)
{
    struct sched_session *ss = st->session;
    uint32_t units = st->phase.session.units;
    struct share v[SCHED_SLOTS_MAX];
    uint64_t threads = 0;
    double speed = 0, before = 0;
    int n = shares_make(s, st, false, v, &threads);

    if (n == 0)
        n = shares_make(s, st, true, v, &threads);
    for (int i = 0; i < n; i++)
        speed += v[i].worker->threads / sched_pace_of(v[i].worker);
    for (int i = 0; i < n; i++) {
        v[i].cut = (uint32_t)(units * before / speed + 0.5);
        before += v[i].worker->threads / sched_pace_of(v[i].worker);
    }
    cuts_align(v, n, units);
    slots_keep(ss, SCHED_SLOTS_MAX - n);
    for (int i = 0; i < n; i++) {
        uint32_t end = i + 1 < n ? v[i + 1].cut : units;

        if (end > v[i].cut) {
            ss->slot[ss->slots_n] = (struct sched_slot){.leaf_begin = v[i].cut, .leaf_end = end};
            snprintf(ss->slot[ss->slots_n++].worker, SCHED_WORKER_MAX, "%s", v[i].worker->id);
        }
    }
}

void sched_session_publish(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    slots_drop_old(ss);
    ss->assignment++;
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    sched_session_tell_all(s, a, SCHED_SEND_ASSIGN, st, "");
}

void sched_session_assign(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    slots_make(s, st);
    st->session->progress_ms = s->now_ms;
    sched_note(a, st->job, st, "session.assign",
               "assignment %" PRIu64 ": %d hosts, %d compute workers", st->session->assignment + 1,
               st->session->hosts_n, sched_session_computing(st->session));
    sched_session_publish(s, st, a);
}

static uint64_t threads_with_units(const struct sched *s, const struct sched_stage *st)
{
    uint64_t n = 0;

    for (int i = 0; i < s->workers_n; i++)
        n += sched_slot_of(st->session, s->worker[i]->id) != NULL ? s->worker[i]->threads : 0;
    return n;
}

bool sched_session_employ(struct sched *s, struct sched_worker *w, struct sched_actions *a)
{
    struct sched_stage *st = w->in;

    if (st == NULL || !st->session->open || !sched_worker_usable(w) ||
        (w->roles & SCHED_ROLE_COMPUTE) == 0 || sched_is_doubted(st->session, w->id) ||
        sched_slot_of(st->session, w->id) != NULL ||
        threads_with_units(s, st) >= st->phase.session.units)
        return false;
    sched_session_assign(s, st, a);
    return true;
}
