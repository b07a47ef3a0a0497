/*
 * Opinions on their way to the coordinator. Every node that is questioned is reported once in
 * OPINIONS_MS, by the first chunk of ours that is still open; news at once. Verdicts outlive their
 * step: each is told JUDGED_TELLS times, because a report may be lost with a connection; one that holds its step, as long as it does.
 */
#include "worker/ps_host_inner.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"

#define OPINIONS_MS 500
#define NEWS_MS 20
#define REPORTS_MAX 16 /* nodes in one round; the others come when these are settled */
#define JUDGED_TELLS 10

static void opinion_report(struct ps_host *p, struct hosted *x, uint64_t step,
                           const struct opinion *op)
{
    struct ps_report r = hosted_report(x, PS_OPINION);

    r.step = step;
    r.opinion = *op;
    r.opinion.chunk += x->s->plan.chunk_begin;
    p->env.report(p->env.self, &r);
}

static bool is_new(const struct tree_node *told, uint32_t n, struct tree_node node)
{
    for (uint32_t i = 0; i < n; i++)
        if (told[i].level == node.level && told[i].index == node.index)
            return false;
    return true;
}

static void judged_report(struct ps_host *p, struct hosted *x)
{
    uint64_t n = host_judged_n(x->s->host);

    if (x->judged_from == n)
        return;
    for (uint64_t i = x->judged_from; i < n; i++) {
        const struct host_judged *j = host_judged(x->s->host, i);
        if (j != NULL)
            opinion_report(p, x, j->step, &j->opinion);
    }
    if (++x->judged_told < JUDGED_TELLS)
        return;
    x->judged_from = n;
    x->judged_told = 0;
}

void hosted_opinions_report(struct ps_host *p, struct hosted *x, uint64_t now)
{
    const struct opinions *o = host_opinions(x->s->host);
    struct tree_node told[REPORTS_MAX];
    uint32_t n = 0;

    if (host_is_frozen(x->s->host) ||
        now - x->opinions_ms < (x->opinions_due ? NEWS_MS : OPINIONS_MS))
        return;
    x->opinions_due = false;
    x->opinions_ms = now;
    judged_report(p, x);
    for (uint32_t i = 0; i < opinions_n(o) && n < REPORTS_MAX; i++) {
        const struct opinion *op = opinions_at(o, i);
        /* What holds the step is told until something is done about it. */
        if ((op->state == OPINION_SETTLED && !op->tainted) || !is_new(told, n, op->node))
            continue;
        told[n++] = op->node;
        opinion_report(p, x, host_version(x->s->host), op);
    }
}

void hosted_waive(struct ps_host *p, struct hosted *x, uint64_t step, struct tree_node node)
{
    unsigned events = 0;
    struct err e;
    int rc = host_waive(x->s->host, step, node, &events, &e);

    if (rc == 0)
        hosted_events(p, x, events);
    else if (rc == ERR_NUMERIC)
        hosted_fail(p, x, &e);
    else
        p->dropped++;
}
