/*
 * Roots to the buddy and from the host before us, and what becomes of a host that stands still.
 *
 * A root is sent as soon as it is complete, from the fold's own buffer, and again until the buddy
 * has it. A frozen host answers STATE_PULL from both its ranges; the question says how the last
 * step was closed, so that a host that is one version behind can follow before it answers.
 */
#include "worker/ps_host_inner.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ps/floats.h"

#define REPLICA_REPEAT_MS 1000
#define REPLICA_REPEAT_MOST_MS 8000
#define SLOW_BYTES_PER_MS                                                                          \
    4000 /* a link that has not shown yet what it can is taken to be no slower */
#define MESSAGE_BYTES_MAX ((size_t)4 << 20)

static void floats_free(void *data, void *hint)
{
    (void)hint;
    floats_release(data);
}

static uint32_t chunks_per_message(const struct hosted *x)
{
    size_t most = MESSAGE_BYTES_MAX / (x->s->plan.chunk_elems * sizeof(float));

    return most < 1 ? 1 : most > PARAMS_FRAMES_MAX ? PARAMS_FRAMES_MAX : (uint32_t)most;
}

/* ---- replication ----------------------------------------------------------------------------- */

/* False: the queue is full. */
static bool replica_send(struct hosted *x, uint32_t begin, uint32_t n)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct link_frame frames[1 + PARAMS_FRAMES_MAX];
    struct params_head h = hosted_head(x, PARAMS_REPLICA, host_version(x->s->host));
    const struct shard *shard = host_shard(x->s->host);
    uint32_t first = x->s->plan.chunk_begin;
    struct fold_sums sums;
    struct err e;

    h.chunk = begin;
    h.count = n;
    for (uint32_t i = 0; i < n; i++) {
        const float *root = host_root(x->s->host, begin + i, &sums, &h.hash[i]);
        h.state[i] = shard_hash(shard, begin + i - first);
        if (begin + i == 0) {
            h.loss = sums.loss;
            h.weight = sums.weight;
            h.tokens = sums.tokens;
        }
        frames[1 + i] =
            (struct link_frame){.data = (void *)(uintptr_t)root,
                                .len = shard_chunk_len(shard, begin + i - first) * sizeof(float)};
        if (!host_root_is_lent(x->s->host, begin + i)) {
            floats_hold(root);
            frames[1 + i].free_fn = floats_free;
        }
    }
    params_pack(&h, head, frames, 1 + (int)n);
    fault_hit(FAULT_PS_REPLICA_BEFORE);
    if (link_send(x->buddy, NULL, frames, 1 + (int)n, &e) == 0) {
        fault_hit(FAULT_PS_REPLICA_AFTER);
        return true;
    }
    for (uint32_t i = 0; i < n; i++)
        if (frames[1 + i].free_fn != NULL)
            floats_release(frames[1 + i].data);
    return false;
}

/* Behind all our roots, an acknowledgement may be so late; later when the link has shown that. */
static uint64_t replica_wait_ms(const struct hosted *x)
{
    uint64_t chunks = x->s->plan.chunk_end - x->s->plan.chunk_begin;
    uint64_t ms =
        REPLICA_REPEAT_MS + chunks * x->s->plan.chunk_elems * sizeof(float) / SLOW_BYTES_PER_MS;

    ms = ms < REPLICA_REPEAT_MOST_MS ? ms : REPLICA_REPEAT_MOST_MS;
    return ms > x->replica_wait_ms ? ms : x->replica_wait_ms;
}

void hosted_replicas_send(struct hosted *x, uint32_t begin, uint32_t end)
{
    uint32_t first = x->s->plan.chunk_begin;
    uint32_t most = chunks_per_message(x);
    uint64_t now = clock_ms(), wait = replica_wait_ms(x);

    while (x->buddy != NULL && begin < end) {
        uint32_t n = 0;
        while (n < most && begin + n < end && host_replica_due(x->s->host, begin + n) &&
               (x->replica_ms[begin + n - first] == 0 ||
                now - x->replica_ms[begin + n - first] >= wait))
            n++;
        if (n > 0 && !replica_send(x, begin, n))
            return; /* the timer goes on */
        /* On a slow link it is under way still, most likely: repeating is to wait longer next. */
        if (n > 0 && x->replica_ms[begin - first] != 0 && 2 * wait <= REPLICA_REPEAT_MOST_MS)
            x->replica_wait_ms = 2 * wait;
        for (uint32_t i = 0; i < n; i++)
            x->replica_ms[begin + i - first] = now;
        begin += n > 0 ? n : 1;
    }
}

void hosted_replica(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                    const struct params_head *h, const struct link_frame *frames)
{
    const struct fold_sums sums = {h->loss, h->weight, h->tokens};
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head answer = hosted_head(x, PARAMS_REPLICA_ACK, h->step);
    struct link_frame out;
    unsigned events = 0;
    struct err e;
    int rc = 0;

    answer.chunk = h->chunk;
    answer.count = h->count;
    for (uint32_t i = 0; rc == 0 && i < h->count; i++) {
        enum host_verdict verdict = HOST_STALE;
        unsigned more = 0;
        rc = host_replica(x->s->host, h->step, h->chunk + i, frames[i].data,
                          frames[i].len / sizeof(float), &sums, h->hash[i], h->state[i], &verdict,
                          &more, &e);
        events |= more;
        if (verdict == HOST_CORRUPT)
            answer.verdict = HOST_CORRUPT;
    }
    if (rc == ERR_CORRUPT || rc == ERR_NUMERIC) {
        hosted_fail(p, x, &e);
        return;
    }
    if (rc != 0) {
        p->dropped++;
        return;
    }
    fault_hit(FAULT_PS_REPLICA_ACK_BEFORE);
    params_pack(&answer, head, &out, 1);
    link_send(p->router, peer, &out, 1, &e); /* lost: it is sent again */
    hosted_events(p, x, events);
}

void hosted_replica_ack(struct ps_host *p, struct hosted *x, const struct params_head *h)
{
    unsigned events = 0;
    struct err e;
    int rc;

    if (h->verdict == HOST_CORRUPT) { /* damaged on the way: again, at the next tick */
        log_warn("replica.damaged", "session=%" PRIu64 " step=%" PRIu64 " chunk=%u", x->s->session,
                 h->step, h->chunk);
        for (uint32_t i = 0; i < x->s->plan.chunk_end - x->s->plan.chunk_begin; i++)
            x->replica_ms[i] = 0;
        return;
    }
    if (h->chunk >= x->s->plan.chunk_begin && h->chunk < x->s->plan.chunk_end &&
        x->replica_ms[h->chunk - x->s->plan.chunk_begin] != 0) {
        uint64_t took = clock_ms() - x->replica_ms[h->chunk - x->s->plan.chunk_begin];
        if (2 * took > x->replica_wait_ms)
            x->replica_wait_ms =
                2 * took < REPLICA_REPEAT_MOST_MS ? 2 * took : REPLICA_REPEAT_MOST_MS;
    }
    rc = host_replica_acked(x->s->host, h->step, h->chunk, h->count, &events, &e);
    if (rc == ERR_NUMERIC)
        hosted_fail(p, x, &e);
    else if (rc == 0)
        hosted_events(p, x, events);
    else
        p->dropped++;
}

/* ---- standing still -------------------------------------------------------------------------- */

void hosted_frozen(struct ps_host *p, struct hosted *x)
{
    struct ps_report r = hosted_report(x, PS_FROZEN);
    const struct host_close *last = host_last(x->s->host);
    unsigned has = host_roots_here(x->s->host);

    x->roots_due = false;
    fault_hit(FAULT_PS_FROZEN_BEFORE);
    r.roots = ((has & HOST_HAS_ROOTS) != 0 ? ROOTS_OWN : 0u) |
              ((has & HOST_HAS_COPY_ROOTS) != 0 ? ROOTS_COPY : 0u);
    if (last != NULL)
        r.close = *last;
    log_info("session.frozen", "session=%" PRIu64 " attempt=%" PRIu64 " version=%" PRIu64,
             x->s->session, x->s->attempt, r.version);
    p->env.report(p->env.self, &r);
}

void hosted_freeze(struct ps_host *p, struct hosted *x, bool edge)
{
    if (x->failed)
        return; /* what it has is not to be trusted, and that has been said */
    host_freeze(x->s->host, edge);
    if (host_is_frozen(x->s->host))
        hosted_frozen(p, x);
}

/* False: the queue is full, or the peer is gone. */
static bool state_send(struct ps_host *p, const struct link_peer *peer, struct params_head *h,
                       struct shard *shard, uint32_t at)
{
    uint8_t head[PARAMS_HEAD_MAX];
    size_t n = shard_chunk_len(shard, at);
    const float *p_now = shard_params(shard, at);
    const float *m, *v;
    struct link_frame frames[4];
    struct err e;

    shard_moments(shard, at, &m, &v);
    h->count = 1;
    h->hash[0] = shard_parts_hash(p_now, m, v, n);
    frames[1] = (struct link_frame){.data = (void *)(uintptr_t)p_now, .len = n * sizeof *p_now};
    frames[2] = (struct link_frame){.data = (void *)(uintptr_t)m, .len = n * sizeof *m};
    frames[3] = (struct link_frame){.data = (void *)(uintptr_t)v, .len = n * sizeof *v};
    params_pack(h, head, frames, 4);
    return link_send(p->router, peer, frames, 4, &e) == 0;
}

void hosted_state_pull(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                       const struct params_head *h)
{
    struct params_head answer = {
        .type = PARAMS_STATE, .session = h->session, .attempt = h->attempt, .step = h->step};
    uint32_t count = h->count < PARAMS_FRAMES_MAX ? h->count : PARAMS_FRAMES_MAX;

    fault_hit(FAULT_PS_STATE_BEFORE);
    if (x != NULL && host_is_frozen(x->s->host) && host_version(x->s->host) < h->step) {
        const struct host_close close = close_unpack(h);
        host_roll(x->s->host, &close);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = 0;
        struct shard *shard = x != NULL ? host_find(x->s->host, h->chunk + i, h->step, &at) : NULL;
        answer.chunk = h->chunk + i;
        if (shard == NULL) {
            uint8_t head[PARAMS_HEAD_MAX];
            struct link_frame frame;
            struct err e;
            answer.count = 0;
            params_pack(&answer, head, &frame, 1);
            link_send(p->router, peer, &frame, 1, &e);
        } else if (!state_send(p, peer, &answer, shard, at)) {
            return; /* it asks again */
        }
    }
}

void close_pack(const struct host_close *close, struct params_head *h)
{
    h->scale = close->scale;
    h->rate = close->lr;
    h->loss = close->figures.loss;
    h->grad_norm = close->figures.grad_norm;
    h->tokens = close->figures.tokens;
    h->tail_loss = close->figures.tail_loss;
    h->tail_steps = close->figures.tail_steps;
}

/* Of a STATE_PULL, whose step is the version after it. */
struct host_close close_unpack(const struct params_head *h)
{
    return (struct host_close){
        .step = h->type == PARAMS_STATE_PULL ? h->step - 1 : h->step,
        .scale = h->scale,
        .lr = h->rate,
        .figures = {h->loss, h->grad_norm, h->tokens, h->tail_loss, h->tail_steps}};
}
