/*
 * Slots in proportion to speed. The step leader says, of closed steps, who had how many units folded
 * and how long after the step was opened; so the time that one unit takes a thread of each worker is
 * known, smoothed. A worker that is much slower than the fastest gets fewer units; not at once and
 * not for small differences, because every change costs a message to all and cuts the tree in other
 * places. A worker so slow that it gets none is tried again after a while, then after twice as long,
 * because what made it slow may be over.
 *
 * This is for machines that stay slow; who is slow once is overtaken (sched_overtake.c).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"
#include "wire/control.h" /* control_who() */

#define SAMPLES_MIN 12
#define SMOOTH 0.1
#define EVEN_MS 5.0  /* what a step costs besides computing: small differences drown in it */
#define SLOW_MIN 1.5 /* times the fastest; less is as good as equal */
#define SLOW_MAX 64.0
#define CHANGE_MIN 1.4 /* so much must the estimate differ from what slots are cut by */
#define LOOK_MS 3000   /* between two looks */
#define RETRY_MS 30000 /* a worker without units is tried again */
#define RETRY_MS_MAX 600000

static struct sched_worker *member_of(const struct sched *s, const struct sched_stage *st,
                                      uint64_t who)
{
    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->in == st && control_who(s->worker[i]->id) == who)
            return s->worker[i];
    }
    return NULL;
}

static void sample_add(struct sched_worker *w, double ms)
{
    w->unit_ms = w->samples > 0 ? (1 - SMOOTH) * w->unit_ms + SMOOTH * ms : ms;
    w->samples++;
}

/* What the leader says of the last closed step. */
void sched_pace_take(struct sched *s, struct sched_stage *st, const struct sched_event *ev)
{
    for (int i = 0; i < ev->shares_n; i++) {
        struct sched_worker *w = member_of(s, st, ev->share[i].who);
        uint32_t rounds;

        if (w == NULL || ev->share[i].units == 0 || w->threads == 0)
            continue;
        rounds = (ev->share[i].units + w->threads - 1) / w->threads;
        sample_add(w, (double)ev->share[i].ms / rounds);
    }
}

/* Its units were given to others: they would have taken it longer than this. */
void sched_pace_overtaken(struct sched *s, const struct sched_slot *slot, double open_ms)
{
    struct sched_worker *w = sched_find_worker(s, slot->worker);
    uint32_t units = slot->leaf_end - slot->leaf_begin;

    if (w != NULL && w->threads > 0 && units > 0)
        sample_add(w, open_ms / ((units + w->threads - 1) / w->threads));
}

static double slowness(const struct sched_worker *w, double fastest)
{
    double slow = (w->unit_ms + EVEN_MS) / (fastest + EVEN_MS);

    return slow < SLOW_MIN ? 1 : slow > SLOW_MAX ? SLOW_MAX : slow;
}

static bool is_new(double now, double before)
{
    return now > before * CHANGE_MIN || before > now * CHANGE_MIN;
}

static void retry(struct sched *s, struct sched_worker *w)
{
    w->pace = 1;
    w->samples = 0;
    w->retry_ms = w->retry_ms == 0                 ? RETRY_MS
                  : w->retry_ms * 2 < RETRY_MS_MAX ? w->retry_ms * 2
                                                   : RETRY_MS_MAX;
    w->paced_ms = s->now_ms;
}

void sched_pace_tick(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    double fastest = -1;
    bool change = false;
    char who[SCHED_WORKER_MAX] = "";

    if (s->config.slow_ms == 0 || s->now_ms - ss->paced_ms < LOOK_MS)
        return;
    ss->paced_ms = s->now_ms;
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        if (w->in == st && w->samples >= SAMPLES_MIN && (fastest < 0 || w->unit_ms < fastest))
            fastest = w->unit_ms;
    }
    for (int i = 0; i < s->workers_n && fastest >= 0; i++) {
        struct sched_worker *w = s->worker[i];
        double slow;

        if (w->in != st || (w->roles & SCHED_ROLE_COMPUTE) == 0)
            continue;
        if (w->pace > 1 && sched_slot_of(ss, w->id) == NULL) {
            if (s->now_ms - w->paced_ms < (w->retry_ms > 0 ? w->retry_ms : RETRY_MS))
                continue;
            retry(s, w);
            slow = 1;
        } else if (w->samples < SAMPLES_MIN) {
            continue;
        } else {
            slow = slowness(w, fastest);
            if (!is_new(slow, sched_pace_of(w)))
                continue;
            w->pace = slow;
            w->paced_ms = s->now_ms;
        }
        change = true;
        snprintf(who, sizeof who, "%s", w->id);
    }
    if (!change)
        return;
    sched_note(a, st->job, st, "session.pace", "units go by measured speed (%s has changed)", who);
    sched_session_assign(s, st, a);
}
