#include "worker/duty.h"

#include <stdlib.h>
#include <string.h>

#define ACTIONS_RESERVED 4 /* of the list: for what is not a repetition */

void duty_init(struct duty *d, const struct control *hello)
{
    memset(d, 0, sizeof *d);
    d->hello = control_copy(hello);
    d->heartbeat_every_ms = 500;
}

void duty_fini(struct duty *d)
{
    for (uint32_t i = 0; i < d->held_n; i++)
        control_free(d->held[i].outcome);
    for (uint32_t i = 0; i < d->out_n; i++)
        control_free(d->out[i].message);
    control_free(d->frozen.message);
    control_free(d->hello);
    memset(d, 0, sizeof *d);
}

static struct duty_action *act(struct duty_actions *a, enum duty_action_type type)
{
    CHECK(a->n < DUTY_ACTIONS_MAX);
    a->action[a->n] = (struct duty_action){.type = type};
    return &a->action[a->n++];
}

static void act_message(struct duty_actions *a, enum duty_action_type type,
                        const struct control *borrowed)
{
    act(a, type)->message = (struct control *)(uintptr_t)borrowed;
}

/* Sends a copy under the term of now. When the list is full the rest waits for the next tick; false
 * then. */
static bool send_copy(struct duty *d, struct duty_actions *a, const struct control *c)
{
    struct control *copy;

    if (a->n + ACTIONS_RESERVED >= DUTY_ACTIONS_MAX)
        return false;
    copy = control_copy(c);
    memcpy(copy->cluster, d->cluster, sizeof copy->cluster);
    copy->term = d->term;
    act(a, DUTY_SEND)->message = copy;
    return true;
}

/* ---- saying who we are ----------------------------------------------------------------------- */

/* What has ended waits for its acknowledgement, not for its thread: it counts as moving. */
static void pulse_fill(struct duty *d, struct control *c)
{
    memcpy(c->worker, d->hello->worker, sizeof c->worker);
    c->boot = d->hello->boot;
    c->progress = d->progress;
    c->draining = d->draining;
    c->leases_n = d->held_n;
    for (uint32_t i = 0; i < d->held_n; i++) {
        d->held[i].moved += d->held[i].state == DUTY_ENDED;
        c->lease[i] = (struct control_lease){d->held[i].task, d->held[i].epoch, d->held[i].done,
                                             d->held[i].total, d->held[i].moved};
    }
}

static void hello_say(struct duty *d, uint64_t now, struct duty_actions *a)
{
    pulse_fill(d, d->hello);
    d->hello->session = d->session;
    d->hello->session_attempt = d->session_attempt;
    d->hello_ms = now;
    send_copy(d, a, d->hello);
}

/* Until a WELCOME says that it was heard. */
static void hello_again(struct duty *d, uint64_t now, struct duty_actions *a)
{
    if (d->live)
        hello_say(d, now, a);
    d->live = false;
}

static void heartbeat_say(struct duty *d, uint64_t now, struct duty_actions *a)
{
    struct control *c = control_new(CONTROL_HEARTBEAT);

    pulse_fill(d, c);
    d->heartbeat_ms = now;
    send_copy(d, a, c);
    control_free(c);
}

/* What has not been acknowledged, again. */
static void outcomes_say(struct duty *d, uint64_t now, bool all, struct duty_actions *a)
{
    for (uint32_t i = 0; i < d->held_n; i++) {
        struct duty_held *h = &d->held[i];
        if (h->outcome != NULL && (all || now - h->sent_ms >= DUTY_REPEAT_MS) &&
            send_copy(d, a, h->outcome))
            h->sent_ms = now;
    }
    for (uint32_t i = 0; i < d->out_n; i++)
        if ((all || now - d->out[i].sent_ms >= DUTY_REPEAT_MS) &&
            send_copy(d, a, d->out[i].message))
            d->out[i].sent_ms = now;
    if (d->frozen.message != NULL && (all || now - d->frozen.sent_ms >= DUTY_REPEAT_MS) &&
        send_copy(d, a, d->frozen.message))
        d->frozen.sent_ms = now;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static struct duty_held *held_find(struct duty *d, uint64_t task)
{
    for (uint32_t i = 0; i < d->held_n; i++)
        if (d->held[i].task == task)
            return &d->held[i];
    return NULL;
}

static void held_drop(struct duty *d, struct duty_held *h)
{
    control_free(h->outcome);
    *h = d->held[--d->held_n];
}

static void stop_task(struct duty_held *h, struct duty_actions *a)
{
    struct duty_action *x = act(a, DUTY_TASK_STOP);

    x->task = h->task;
    x->epoch = h->epoch;
}

static void on_task(struct duty *d, const struct control *m, struct duty_actions *a)
{
    struct duty_held *h = held_find(d, m->task);

    if (h != NULL && m->epoch <= h->epoch) { /* known; if it has ended the outcome is on its way */
        d->stale += m->epoch < h->epoch;
        return;
    }
    if (h != NULL) { /* a newer lease of the same task: only its result will count */
        if (h->state == DUTY_RUNNING)
            stop_task(h, a);
        control_free(h->outcome);
        h->outcome = NULL;
    } else {
        if (d->held_n == WIRE_LEASES_MAX || d->draining)
            return; /* the lease runs out and goes to somebody else */
        h = &d->held[d->held_n++];
    }
    *h = (struct duty_held){.state = DUTY_RUNNING, .task = m->task, .epoch = m->epoch};
    act_message(a, DUTY_TASK_START, m);
}

static void on_task_cancel(struct duty *d, const struct control *m, struct duty_actions *a)
{
    struct duty_held *h = held_find(d, m->task);

    if (h == NULL || m->epoch < h->epoch)
        return;
    if (h->state == DUTY_RUNNING)
        stop_task(h, a);
    held_drop(d, h);
}

static void on_task_end(struct duty *d, struct control *outcome, uint64_t now,
                        struct duty_actions *a)
{
    struct duty_held *h = held_find(d, outcome->task);

    if (h == NULL || h->epoch != outcome->epoch) { /* cancelled or superseded meanwhile */
        d->stale++;
        control_free(outcome);
        return;
    }
    h->state = DUTY_ENDED;
    h->outcome = outcome;
    h->sent_ms = now;
    if (d->live)
        send_copy(d, a, outcome);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static void out_drop(struct duty *d, uint32_t i)
{
    control_free(d->out[i].message);
    d->out[i] = d->out[--d->out_n];
}

/* keep: 0, or the attempt that the next one starts from. */
static void session_leave(struct duty *d, uint64_t keep, struct duty_actions *a)
{
    if (d->session != 0) {
        struct duty_action *x = act(a, DUTY_SESSION_CLOSE);
        x->session = d->session;
        x->attempt = keep;
    }
    control_free(d->frozen.message);
    d->frozen.message = NULL;
    for (uint32_t i = 0; i < d->out_n;)
        if (d->out[i].message->session == d->session)
            out_drop(d, i);
        else
            i++;
    d->session = d->session_attempt = 0;
}

static void on_session_open(struct duty *d, const struct control *m, struct duty_actions *a)
{
    if (d->session == m->session && m->session_attempt <= d->session_attempt) {
        d->stale += m->session_attempt < d->session_attempt;
        return;
    }
    session_leave(d, d->session == m->session ? m->from_attempt : 0, a);
    d->session = m->session;
    d->session_attempt = m->session_attempt;
    act_message(a, DUTY_SESSION_OPEN, m);
}

static void on_session_says(struct duty *d, struct control *m, uint64_t now, struct duty_actions *a)
{
    if (m->session != d->session || m->session_attempt != d->session_attempt) {
        d->stale++;
        control_free(m);
        return;
    }
    if (m->type == CONTROL_SESSION_STATUS || m->type == CONTROL_SESSION_OPINION) {
        if (d->live)
            send_copy(d, a, m);
        control_free(m);
        return;
    }
    if (m->type == CONTROL_SESSION_FROZEN) { /* a second one says the same */
        control_free(d->frozen.message);
        d->frozen = (struct duty_out){m, now};
        if (d->live)
            send_copy(d, a, m);
        return;
    }
    if (d->out_n == DUTY_OUTBOX_MAX)
        out_drop(d, 0); /* an old checkpoint; a newer one makes up for it */
    d->out[d->out_n++] = (struct duty_out){m, now};
    if (d->live)
        send_copy(d, a, m);
}

static void on_ack(struct duty *d, const struct control *m)
{
    struct duty_held *h = held_find(d, m->task);

    if (m->task != 0) {
        if (h != NULL && h->state == DUTY_ENDED && m->epoch >= h->epoch)
            held_drop(d, h);
        return;
    }
    for (uint32_t i = 0; i < d->out_n;) {
        const struct control *c = d->out[i].message;
        if (c->session == m->session && c->session_attempt == m->session_attempt &&
            c->version <= m->version)
            out_drop(d, i);
        else
            i++;
    }
}

/* ---- the coordinator ------------------------------------------------------------------------- */

static void on_welcome(struct duty *d, const struct control *m, uint64_t now,
                       struct duty_actions *a)
{
    if (m->term < d->term) {
        d->stale++;
        return;
    }
    memcpy(d->cluster, m->cluster, sizeof d->cluster);
    d->term = m->term;
    if (m->heartbeat_ms >= 50 && m->heartbeat_ms <= 60000)
        d->heartbeat_every_ms = m->heartbeat_ms;
    d->live = true;
    act_message(a, DUTY_TERMS, m);
    outcomes_say(d, now, true, a);
}

static void on_reject(struct duty *d, const struct control *m, uint64_t now, struct duty_actions *a)
{
    if (m->code == ERR_NOT_FOUND || m->code == ERR_STALE) {
        hello_again(d, now, a);
        return;
    }
    act_message(a, DUTY_EXIT, m);
    a->action[a->n - 1].code = m->code != 0 ? m->code : ERR_DENIED;
}

static void drain_begin(struct duty *d, uint64_t now, struct duty_actions *a)
{
    if (d->draining)
        return;
    d->draining = true;
    d->drain_ms = now;
    if (d->live)
        heartbeat_say(d, now, a);
}

static void on_heard(struct duty *d, const struct control *m, uint64_t now, struct duty_actions *a)
{
    d->heard_ms = now;
    if (m->type == CONTROL_WELCOME) {
        on_welcome(d, m, now, a);
        return;
    }
    if (m->type == CONTROL_REJECT) {
        on_reject(d, m, now, a);
        return;
    }
    if (!d->live || m->term != d->term) {
        d->stale++;
        return;
    }
    switch (m->type) {
    case CONTROL_TASK:
        on_task(d, m, a);
        break;
    case CONTROL_TASK_CANCEL:
        on_task_cancel(d, m, a);
        break;
    case CONTROL_ACK:
        on_ack(d, m);
        break;
    case CONTROL_SESSION_OPEN:
        on_session_open(d, m, a);
        break;
    case CONTROL_ASSIGN:
        if (m->session == d->session && m->session_attempt == d->session_attempt)
            act_message(a, DUTY_SESSION_ASSIGN, m);
        break;
    case CONTROL_SESSION_CLOSE:
        if (m->session == d->session && m->session_attempt >= d->session_attempt)
            session_leave(d, 0, a);
        else if (m->session == d->session) {
            struct duty_action *x = act(a, DUTY_SESSION_FORGET);
            x->session = m->session;
            x->attempt = m->session_attempt;
        }
        break;
    case CONTROL_SESSION_FREEZE:
        if (m->session == d->session && m->session_attempt == d->session_attempt)
            act_message(a, DUTY_SESSION_FREEZE, m);
        else
            d->stale++;
        break;
    case CONTROL_SESSION_WAIVE:
        if (m->session == d->session && m->session_attempt == d->session_attempt)
            act_message(a, DUTY_SESSION_WAIVE, m);
        else
            d->stale++;
        break;
    case CONTROL_DRAIN:
        drain_begin(d, now, a);
        break;
    default:
        break;
    }
}

/* Again and again: a coordinator that was started anew may say where it is only after we have looked. */
static void on_silence(struct duty *d, uint64_t now, struct duty_actions *a)
{
    if (d->heard_ms == 0 && d->link_ms == 0)
        d->link_ms = now;
    if (now - (d->link_ms > d->heard_ms ? d->link_ms : d->heard_ms) <= DUTY_SILENCE_MS)
        return;
    d->live = false;
    d->link_ms = now;
    act(a, DUTY_RECONNECT);
}

static void on_tick(struct duty *d, uint64_t now, struct duty_actions *a)
{
    on_silence(d, now, a);
    if (!d->live) {
        if (d->hello_ms == 0 || now - d->hello_ms >= DUTY_HELLO_MS)
            hello_say(d, now, a);
    } else {
        if (now - d->heartbeat_ms >= d->heartbeat_every_ms)
            heartbeat_say(d, now, a);
        outcomes_say(d, now, false, a);
    }
    if (d->draining && !d->said_bye &&
        ((d->held_n == 0 && d->session == 0 && d->out_n == 0) ||
         now - d->drain_ms >= DUTY_DRAIN_MS)) {
        struct control *bye = control_new(CONTROL_BYE);
        d->said_bye = true;
        send_copy(d, a, bye);
        control_free(bye);
        act(a, DUTY_EXIT);
    }
}

void duty_step(struct duty *d, const struct duty_event *event, struct duty_actions *actions)
{
    struct duty_held *h;

    actions->n = 0;
    switch (event->type) {
    case DUTY_TICK:
        d->progress = event->progress;
        on_tick(d, event->now_ms, actions);
        break;
    case DUTY_HEARD:
        on_heard(d, event->message, event->now_ms, actions);
        break;
    case DUTY_TASK_PROGRESS:
        h = held_find(d, event->task);
        if (h != NULL && h->epoch == event->epoch) {
            h->done = event->done;
            h->total = event->total;
            h->moved = event->moved;
        }
        break;
    case DUTY_TASK_END:
        on_task_end(d, event->outcome, event->now_ms, actions);
        break;
    case DUTY_SESSION_SAYS:
        on_session_says(d, event->outcome, event->now_ms, actions);
        break;
    case DUTY_UNSENT:
        d->hello_ms = 0;
        break;
    case DUTY_DAMAGED:
        hello_again(d, event->now_ms, actions);
        break;
    case DUTY_DRAIN:
        drain_begin(d, event->now_ms, actions);
        break;
    }
}
