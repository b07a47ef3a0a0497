#include "fake_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

uint32_t fake_draw(struct fake_cluster *c, uint32_t below)
{
    uint64_t n = c->draws++;

    return rng_below(c->seed, RNG_TEST, (uint32_t)(n >> 32), (uint32_t)n, 0, below);
}

bool fake_chance(struct fake_cluster *c, uint32_t in_thousand)
{
    return !c->healed && fake_draw(c, 1000) < in_thousand;
}

/* ---- the network ----------------------------------------------------------------------------- */

static void post_one(struct fake_cluster *c, const struct letter *l)
{
    for (int i = 0; i < NET_MAX; i++) {
        if (!c->net[i].used) {
            c->net[i] = *l;
            c->net[i].used = true;
            c->net[i].at_ms =
                c->now_ms + 1 + (c->healed ? 0 : fake_draw(c, fake_chance(c, 20) ? 3000 : 60));
            return;
        }
    }
    fail_msg("network full");
}

void fake_post(struct fake_cluster *c, const struct letter *l)
{
    if (fake_chance(c, c->loss_rate))
        return;
    post_one(c, l);
    if (fake_chance(c, 50))
        post_one(c, l);
}

bool fake_next(struct fake_cluster *c, int *slot, struct letter *out)
{
    while (*slot < NET_MAX) {
        struct letter *l = &c->net[(*slot)++];

        if (!l->used || l->at_ms > c->now_ms)
            continue;
        *out = *l;
        l->used = false;
        return true;
    }
    return false;
}

/* ---- workers --------------------------------------------------------------------------------- */

int fake_worker_index(const struct fake_cluster *c, const char *id)
{
    for (int i = 0; i < WORKERS; i++) {
        if (strcmp(c->worker[i].id, id) == 0)
            return i;
    }
    fail_msg("message to nobody: %s", id);
    return 0;
}

static void say(struct fake_cluster *c, int from, enum what what, uint64_t task, uint64_t epoch)
{
    const struct fake_worker *w = &c->worker[from];
    struct letter l = {.to = TO_COORDINATOR,
                       .from = from,
                       .what = what,
                       .boot = w->boot,
                       .task = task,
                       .epoch = epoch,
                       .session = w->session,
                       .attempt = w->attempt,
                       .version = w->version,
                       .steps = w->steps};

    for (int i = 0; i < w->held_n; i++) {
        if (w->held[i].task == task && w->held[i].epoch == epoch) {
            snprintf(l.kind, sizeof l.kind, "%s", w->held[i].kind);
            l.index = w->held[i].index;
            l.code = w->held[i].code;
        }
        l.lease[l.leases_n++] = (struct sched_lease){w->held[i].task, w->held[i].epoch, 0, 0, 0};
    }
    fake_post(c, &l);
}

static void held_drop(struct fake_worker *w, uint64_t task, uint64_t epoch)
{
    for (int i = 0; i < w->held_n; i++) {
        if (w->held[i].task == task && w->held[i].epoch == epoch)
            w->held[i--] = w->held[--w->held_n];
    }
}

void fake_worker_hears(struct fake_cluster *c, int me, const struct letter *l)
{
    struct fake_worker *w = &c->worker[me];

    if (!w->alive || c->now_ms < w->hang_until_ms)
        return;
    switch (l->what) {
    case C_REJECT:
        say(c, me, W_HELLO, 0, 0);
        break;
    case C_TASK:
        held_drop(w, l->task, l->epoch);
        if (w->held_n < HELD_MAX) {
            struct held *h = &w->held[w->held_n++];

            *h = (struct held){
                l->task, l->epoch, c->now_ms + 50 + fake_draw(c, 1500), 0, "", l->index, false, 0};
            snprintf(h->kind, sizeof h->kind, "%s", l->kind);
            h->code = fake_chance(c, 40) ? ERR_UNREACHABLE : fake_chance(c, 20) ? ERR_CORRUPT : 0;
        }
        break;
    case C_CANCEL:
    case C_ACK:
        held_drop(w, l->task, l->epoch);
        break;
    case C_OPEN:
        if (w->session == l->session && l->attempt <= w->attempt)
            break;
        w->session = l->session;
        w->attempt = l->attempt;
        w->version = l->version;
        w->steps = l->steps;
        w->assignment = 0;
        w->leads = strcmp(l->leader, w->id) == 0;
        break;
    case C_ASSIGN:
        if (w->session == l->session && w->attempt == l->attempt && l->assignment > w->assignment) {
            w->assignment = l->assignment;
            w->map = *l;
        }
        break;
    case C_CLOSE:
        if (w->session == l->session && l->attempt >= w->attempt)
            w->session = 0;
        break;
    case C_SACK:
        if (w->session == l->session && w->attempt == l->attempt && w->version == w->steps)
            w->session = 0;
        break;
    default:
        break;
    }
}

/* A step closes when all members are alive, in the same attempt and under the leader's assignment.
 */
static bool step_possible(const struct fake_cluster *c, const struct fake_worker *w)
{
    if (w->assignment == 0)
        return false;
    for (int i = 0; i < w->map.members_n; i++) {
        const struct fake_worker *m = &c->worker[fake_worker_index(c, w->map.member[i])];

        if (!m->alive || m->session != w->session || m->attempt != w->attempt ||
            m->assignment != w->assignment)
            return false;
    }
    return true;
}

static void worker_leads(struct fake_cluster *c, int me)
{
    struct fake_worker *w = &c->worker[me];

    if (w->version < w->steps && c->now_ms >= w->step_ms && step_possible(c, w)) {
        w->version++;
        w->step_ms = c->now_ms + 40;
        say(c, me, W_STATUS, 0, 0);
        if (w->version % 10 == 0)
            say(c, me, W_CHECKPOINT, 0, 0);
    }
    if (w->version == w->steps && c->now_ms >= w->resend_ms) {
        w->resend_ms = c->now_ms + 1000;
        say(c, me, W_SDONE, 0, 0);
    }
}

static void worker_acts(struct fake_cluster *c, int me)
{
    struct fake_worker *w = &c->worker[me];

    if (!w->alive) {
        if (c->now_ms >= w->up_ms) {
            *w = (struct fake_worker){.alive = true, .boot = w->boot + 1};
            snprintf(w->id, sizeof w->id, "w%d", me);
            say(c, me, W_HELLO, 0, 0);
        }
        return;
    }
    if (c->now_ms < w->hang_until_ms)
        return;
    if (c->now_ms >= w->beat_ms) {
        w->beat_ms = c->now_ms + 500;
        say(c, me, W_BEAT, 0, 0);
    }
    for (int i = 0; i < w->held_n; i++) {
        struct held *h = &w->held[i];

        if (c->now_ms < h->ready_ms || c->now_ms < h->resend_ms)
            continue;
        h->resend_ms = c->now_ms + 1000;
        say(c, me, h->code == 0 ? W_DONE : W_FAILED, h->task, h->epoch);
    }
    if (w->session != 0 && w->leads)
        worker_leads(c, me);
}

static void worker_faults(struct fake_cluster *c, int me)
{
    struct fake_worker *w = &c->worker[me];

    if (!w->alive)
        return;
    if (fake_chance(c, c->kill_rate)) {
        w->alive = false;
        w->session = 0;
        w->up_ms = c->now_ms + fake_draw(c, 4000);
        c->kills++;
    } else if (fake_chance(c, c->kill_rate)) {
        w->hang_until_ms = c->now_ms + fake_draw(c, 15000);
    } else if (c->kill_rate > 0 && fake_chance(c, 1)) {
        say(c, me, W_BYE, 0, 0);
        w->alive = false;
        w->session = 0;
        w->up_ms = c->now_ms + fake_draw(c, 5000);
    }
}

void fake_workers_act(struct fake_cluster *c)
{
    for (int i = 0; i < WORKERS; i++) {
        worker_acts(c, i);
        worker_faults(c, i);
    }
}
