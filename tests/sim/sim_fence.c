/*
 * Who may be heard, and by whom. What these fences keep out is mostly harmless here, because whoever computes the same gets
 * the same; so it is not enough that the bits come out right, and each fence is watched itself:
 *
 *   - a host takes gradients of the attempt that they name;
 *   - a worker does nothing for a coordinator of another term;
 *   - a worker that is a new process is another one: what the old one had is given up first.
 */
#include <inttypes.h>

#include "coordinator/roster.h"
#include "sim_check.h"
#include "worker/duty.h"
#include "worker/ps_host_inner.h"

void __real_hosted_push(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                        const struct params_head *h, const struct link_frame *frames);
WRAP(void, hosted_push, struct ps_host *p, struct hosted *x, const struct link_peer *peer,
     const struct params_head *h, const struct link_frame *frames)
{
    if (h->session != x->s->session || h->attempt != x->s->attempt)
        sim_violation("a host at attempt %" PRIu64 " of session %" PRIu64
                      " takes a gradient of attempt %" PRIu64,
                      x->s->attempt, x->s->session, h->attempt);
    __real_hosted_push(p, x, peer, h, frames);
}

void __real_duty_step(struct duty *d, const struct duty_event *event, struct duty_actions *actions);
WRAP(void, duty_step, struct duty *d, const struct duty_event *event, struct duty_actions *actions)
{
    const struct control *m = event->type == DUTY_HEARD ? event->message : NULL;
    bool foreign = m != NULL && m->type != CONTROL_WELCOME && m->type != CONTROL_REJECT &&
                   (!d->live || m->term != d->term);

    __real_duty_step(d, event, actions);
    for (uint32_t i = 0; foreign && i < actions->n; i++)
        if (actions->action[i].type != DUTY_SEND)
            sim_violation("a worker of term %" PRIu64 " does what term %" PRIu64 " says: %s",
                          d->term, m->term, control_type_name(m->type));
}

void __real_roster_step(struct roster *r, const struct roster_event *ev, struct roster_actions *a);
WRAP(void, roster_step, struct roster *r, const struct roster_event *ev, struct roster_actions *a)
{
    const struct roster_worker *w = ev->type == ROSTER_HELLO ? roster_find(r, ev->hello->id) : NULL;
    bool other = w != NULL && roster_is_here(w) && w->boot != ev->hello->boot, told = false;
    int before = a->n;

    __real_roster_step(r, ev, a);
    for (int i = before; i < a->n; i++)
        told = told || a->v[i].type == ROSTER_IS_REPLACED || a->v[i].type == ROSTER_REJECTED;
    if (other && !told)
        sim_violation("a new process of %s is taken for the old one", ev->hello->id);
}
