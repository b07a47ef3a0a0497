#include "worker/ps_host_inner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ps/half.h"

#define PULLS_MAX 4096
#define SERVED_MS 4000 /* what is on its way for longer was lost, if it is asked for again */
#define MESSAGE_BYTES_MAX ((size_t)4 << 20)

/* ---- pulls ----------------------------------------------------------------------------------- */

static void chunk_release(void *data, void *hint)
{
    (void)hint;
    shard_release(data);
}

/* Frames of h->count chunks from h->chunk on: as bf16, as bytes of a place that will be written to,
 * or held. */
static void pull_frames(struct hosted *x, const struct params_head *h, struct link_frame *frames)
{
    struct shard *shard = host_shard(x->s->host);
    uint32_t first = h->chunk - x->s->plan.chunk_begin;
    uint16_t *packed = x->packed;

    for (uint32_t i = 0; i < h->count; i++) {
        size_t n = shard_chunk_len(shard, first + i);
        struct link_frame *f = &frames[i];

        if (x->s->plan.half) {
            half_pack(packed, shard_shown(shard, first + i), n);
            *f = (struct link_frame){.data = packed, .len = n * sizeof *packed};
            packed += n;
            continue;
        }
        *f = (struct link_frame){.len = n * sizeof(float)};
        if (shard_is_shown(shard)) {
            f->data = (void *)(uintptr_t)shard_shown(shard, first + i);
        } else {
            f->data = (void *)(uintptr_t)shard_hold(shard, first + i);
            f->free_fn = chunk_release;
        }
    }
}

/* Sends what is left of a pull. 0: all sent or the peer is gone; ERR_BUSY: go on later. */
static int pull_serve(struct ps_host *p, struct hosted *x, struct pull *q)
{
    struct shard *shard = host_shard(x->s->host);
    uint32_t most = (uint32_t)(MESSAGE_BYTES_MAX / (x->s->plan.chunk_elems * sizeof(float)));

    most = most < 1 ? 1 : most > PARAMS_FRAMES_MAX ? PARAMS_FRAMES_MAX : most;
    if (q->near)
        most = q->end - q->begin;
    if (q->version != shard_version(shard)) { /* the start, or a new version was made on the way */
        q->version = shard_version(shard);
        q->next = q->begin;
    }
    while (q->next < q->end) {
        uint8_t head[PARAMS_HEAD_MAX];
        struct link_frame frames[1 + PARAMS_FRAMES_MAX];
        struct params_head h = hosted_head(x, PARAMS_CHUNKS, q->version);
        int n = 1;
        struct err e;
        int rc;
        h.chunk = q->next;
        h.count = q->end - q->next < most ? q->end - q->next : most;
        if (q->near) {
            const struct region_key key = region_key(x->s->region);
            h.region = (struct params_region){key.id, key.bytes, key.pid, key.fd};
        } else {
            pull_frames(x, &h, frames + 1);
            n += (int)h.count;
        }
        params_pack(&h, head, frames, n);
        rc = link_send(p->router, &q->peer, frames, n, &e);
        if (rc != 0) {
            for (int i = 1; i < n; i++)
                if (frames[i].free_fn != NULL)
                    chunk_release(frames[i].data, NULL);
            return rc == ERR_BUSY ? rc : 0;
        }
        q->next += h.count;
    }
    return 0;
}

static bool is_under_way(const struct pull *q, uint64_t now)
{
    return q->served_ms != 0 && now - q->served_ms < SERVED_MS;
}

/* A pull that is answered is remembered while the answer may be on its way: on a slow link the same
 * question comes again meanwhile, and must not double what is to be sent. */
void hosted_pulls_serve(struct ps_host *p, struct hosted *x)
{
    uint64_t now = clock_ms();

    for (size_t i = 0; i < x->pulls;) {
        struct pull *q = &x->pull[i];

        if (q->served_ms == 0 && q->at_least <= host_version(x->s->host) &&
            pull_serve(p, x, q) == 0)
            q->served_ms = now;
        if (q->served_ms != 0 && (q->near || !is_under_way(q, now)))
            *q = x->pull[--x->pulls];
        else
            i++;
    }
}

/* Memory that the peer has named; NULL: it is not of this machine. */
static struct region *lender_find(struct hosted *x, const struct params_head *h)
{
    const struct region_key key = {h->region.id, h->region.bytes, h->region.pid, h->region.fd};
    struct err ignored;

    for (uint32_t i = 0; i < x->lenders; i++) {
        const struct region_key has = region_key(x->lender[i].region);
        if (has.id == key.id && has.bytes == key.bytes) {
            x->lender[i].named = host_version(x->s->host);
            return x->lender[i].region;
        }
    }
    if (key.bytes != x->s->plan.layout->count * sizeof(float) || x->lenders == LENDERS_MAX ||
        region_attach(&key, &x->lender[x->lenders].region, &ignored) != 0)
        return NULL;
    x->lender[x->lenders].named = host_version(x->s->host);
    return x->lender[x->lenders++].region;
}

/* After a step: nothing is lent beyond it, and who names a region again has it attached again. */
static void lenders_release(struct hosted *x)
{
    uint64_t version = host_version(x->s->host);

    for (uint32_t i = 0; i < x->lenders;) {
        if (version - x->lender[i].named < LENDER_STEPS) {
            i++;
            continue;
        }
        region_release(x->lender[i].region);
        x->lender[i] = x->lender[--x->lenders];
    }
}

void hosted_pull(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                 const struct params_head *h)
{
    struct pull *q = NULL;

    if (h->count == 0 || h->chunk < x->s->plan.chunk_begin ||
        h->chunk + h->count > x->s->plan.chunk_end) {
        p->dropped++;
        return;
    }
    for (size_t i = 0; i < x->pulls && q == NULL; i++)
        if (x->pull[i].peer.len == peer->len &&
            memcmp(x->pull[i].peer.id, peer->id, peer->len) == 0)
            q = &x->pull[i]; /* a repeated question, or a newer one: one pull per peer */
    if (q == NULL) {
        if (x->pulls == PULLS_MAX) {
            p->dropped++;
            return;
        }
        if (x->pulls == x->pulls_cap) {
            x->pulls_cap = x->pulls_cap * 2 + 8;
            x->pull = mem_grow(x->pull, x->pulls_cap, sizeof *x->pull);
        }
        q = &x->pull[x->pulls++];
    } else if (h->verdict != HOST_CORRUPT && q->at_least == h->step && q->begin == h->chunk && q->end == h->chunk + h->count &&
               q->offered == (h->region.bytes != 0) &&
               (q->served_ms == 0 ||
                (q->version == host_version(x->s->host) && is_under_way(q, clock_ms())))) {
        return; /* being answered */
    }
    *q = (struct pull){.peer = *peer,
                       .offered = h->region.bytes != 0,
                       .near = x->s->region != NULL && h->region.bytes != 0 &&
                               lender_find(x, h) != NULL,
                       .at_least = h->step,
                       .version = UINT64_MAX,
                       .next = h->chunk,
                       .end = h->chunk + h->count,
                       .begin = h->chunk};
    hosted_pulls_serve(p, x);
}

/* ---- steps ----------------------------------------------------------------------------------- */

void hosted_roots_send(struct hosted *x)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head h = hosted_head(x, PARAMS_ROOTS, host_version(x->s->host));
    struct link_frame frames[2];
    struct err e;

    h.chunk = x->s->plan.chunk_begin;
    h.count = x->s->plan.chunk_end - x->s->plan.chunk_begin;
    h.duplicates = x->duplicates;
    h.stale = x->stale;
    fault_hit(FAULT_PS_ROOTS_BEFORE);
    frames[1] = (struct link_frame){.data = (void *)(uintptr_t)host_sumsq(x->s->host),
                                    .len = h.count * sizeof(double)};
    params_pack(&h, head, frames, 2);
    link_send(x->leader, NULL, frames, 2, &e);
    fault_hit(FAULT_PS_ROOTS_AFTER);
    x->roots_ms = clock_ms();
    x->roots_due = true;
}

static void apply_send(struct ps_host *p, struct hosted *x, const struct link_peer *peer)
{
    uint8_t head[PARAMS_HEAD_MAX];
    const struct host_close *last = host_last(x->s->host);
    struct params_head h = hosted_head(x, PARAMS_APPLY, last->step);
    struct link_frame frame;
    struct err e;

    close_pack(last, &h);
    h.freeze = host_is_frozen(x->s->host);
    params_pack(&h, head, &frame, 1);
    link_send(p->router, peer, &frame, 1, &e); /* lost: the host repeats its ROOTS */
    fault_hit(FAULT_PS_CLOSE_AFTER);
}

void hosted_events(struct ps_host *p, struct hosted *x, unsigned events)
{
    if ((events & HOST_CHECKPOINT) != 0)
        hosted_checkpoint(p, x);
    if ((events & HOST_APPLY) != 0)
        fault_hit(FAULT_PS_CLOSE_BEFORE);
    if ((events & HOST_APPLY) != 0)
        for (int i = 0; i < x->members; i++)
            apply_send(p, x, &x->member[i].peer);
    if ((events & HOST_VERSION) != 0) {
        x->roots_due = false;
        hosted_shares_close(x);
        lenders_release(x);
        x->replica_wait_ms -= x->replica_wait_ms / 8; /* a loss made it longer; the link says so again */
        memset(x->replica_ms, 0,
               (x->s->plan.chunk_end - x->s->plan.chunk_begin) * sizeof *x->replica_ms);
        fault_hit(FAULT_PS_CHUNKS_BEFORE);
        hosted_pulls_serve(p, x);
        if (x->leader == NULL)
            hosted_status(p, x, clock_ms());
    }
    if ((events & HOST_OPINION) != 0)
        x->opinions_due = true;
    if ((events & HOST_ROOTS) != 0)
        hosted_roots_send(x);
    if ((events & HOST_FROZEN) != 0)
        hosted_frozen(p, x);
}

/* Where the pushed values are: in a region of the sender, in the frames, or unpacked from them.
 * False: what was sent cannot be that. */
static bool push_values(struct hosted *x, const struct params_head *h,
                        const struct link_frame *frames, struct host_push *push)
{
    size_t chunk_elems = x->s->plan.chunk_elems, count = x->s->plan.layout->count;
    struct region *r = h->region.bytes != 0 ? lender_find(x, h) : NULL;
    float *parts = x->parts;

    push->lent = r != NULL;
    if (h->region.bytes != 0 &&
        (r == NULL || h->count > x->s->plan.chunks || h->chunk > x->s->plan.chunks - h->count))
        return false;
    for (uint32_t i = 0; i < h->count; i++) {
        size_t at = (size_t)(h->chunk + i) * chunk_elems;
        if (r != NULL) {
            push->values[i] = (float *)region_data(r) + at;
            push->n[i] = count - at < chunk_elems ? count - at : chunk_elems;
        } else if (!x->s->plan.half) {
            push->values[i] = frames[i].data;
            push->n[i] = frames[i].len / sizeof(float);
        } else {
            push->n[i] = frames[i].len / sizeof(uint16_t);
            if (push->n[i] > chunk_elems)
                return false;
            half_unpack(parts, frames[i].data, push->n[i]);
            push->values[i] = parts;
            parts += push->n[i];
        }
    }
    return true;
}

struct folding {
    struct host *host;
    struct host_push *push;
};

static void fold_one(void *arg, uint32_t i)
{
    const struct folding *f = arg;

    host_push_fold(f->host, f->push, i);
}

#define SPREAD_BYTES_MIN ((size_t)1 << 20) /* less is not worth waking anybody */

/* Folds what was pushed; the answer to give, and what it made possible. */
static int push_take(struct hosted *x, const struct params_head *h, struct host_push *push,
                     struct params_head *answer, unsigned *events, struct err *e)
{
    struct folding folding = {x->s->host, push};
    struct spread spread = {NULL, NULL};
    struct tree_span units;
    int rc = host_push_begin(x->s->host, push, e);

    if (rc != 0)
        return rc;
    if ((size_t)h->count * x->s->plan.chunk_elems * sizeof(float) >= SPREAD_BYTES_MIN)
        spread = x->s->plan.spread;
    spread_each(&spread, h->count, fold_one, &folding);
    units = tree_leaves(x->s->plan.units, push->node);
    for (uint32_t i = 0; i < h->count; i++) {
        enum host_verdict verdict = push->out[i].verdict;
        x->duplicates += verdict == HOST_DUPLICATE;
        x->stale += verdict == HOST_STALE;
        x->damaged += verdict == HOST_CORRUPT;
        if ((uint32_t)verdict > answer->verdict)
            answer->verdict = (uint32_t)verdict;
        if (verdict == HOST_CONFLICT)
            log_warn("push.conflict",
                     "session=%" PRIu64 " step=%" PRIu64 " node=%u/%u chunk=%u who=%016" PRIx64,
                     x->s->session, h->step + 1, h->level, h->index, h->chunk + i, h->who);
        if (verdict == HOST_ACCEPTED && h->chunk + i == 0)
            hosted_share_note(x, h->who, units.end - units.begin);
    }
    return host_push_end(x->s->host, push, events, e);
}

void hosted_push(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                 const struct params_head *h, const struct link_frame *frames)
{
    struct host_push push = {.step = h->step,
                             .who = h->who,
                             .node = {h->level, h->index},
                             .sums = {h->loss, h->weight, h->tokens},
                             .begin = h->chunk,
                             .count = h->count};
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head answer = hosted_head(x, PARAMS_ACK, h->step);
    struct link_frame out;
    unsigned events = 0;
    struct err e;
    int rc = 0;

    memcpy(push.hash, h->hash, h->count * sizeof push.hash[0]);
    if (push_values(x, h, frames, &push))
        rc = push_take(x, h, &push, &answer, &events, &e);
    else
        answer.verdict = HOST_CORRUPT; /* it is sent again, as bytes */
    if (rc == ERR_NUMERIC || rc == ERR_CONFLICT) {
        hosted_fail(p, x, &e);
        return;
    }
    if (rc != 0) {
        p->dropped++;
        log_warn("push.refused", "session=%" PRIu64 " error=%s", x->s->session, e.msg);
        return;
    }
    if ((events & HOST_REPLICA) != 0)
        hosted_replicas_send(x, h->chunk, h->chunk + h->count);
    answer.level = h->level;
    answer.index = h->index;
    answer.chunk = h->chunk;
    answer.count = h->count;
    params_pack(&answer, head, &out, 1);
    fault_hit(FAULT_PS_PUSH_ACK_BEFORE);
    link_send(p->router, peer, &out, 1, &e); /* lost: it is pushed again */
    hosted_events(p, x, events);
}

static void member_note(struct hosted *x, const struct link_peer *peer, const struct params_head *h)
{
    int i = 0;

    while (i < x->members && x->member[i].chunk_begin != h->chunk)
        i++;
    if (i == WIRE_HOSTS_MAX)
        return;
    if (i == x->members)
        x->members++;
    x->member[i].peer = *peer;
    x->member[i].chunk_begin = h->chunk;
    x->member[i].duplicates = h->duplicates;
    x->member[i].stale = h->stale;
}

void hosted_roots(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                  const struct params_head *h, const struct link_frame *frame)
{
    const struct host_close *last;
    unsigned events = 0;
    double *sumsq;
    struct err e;
    int rc;

    if (h->count > x->s->plan.chunks || frame->len != h->count * sizeof *sumsq) {
        p->dropped++;
        return;
    }
    sumsq = mem_alloc(frame->len);
    memcpy(sumsq, frame->data, frame->len);
    member_note(x, peer, h);
    rc = host_roots(x->s->host, h->step, h->chunk, sumsq, h->count, &events, &e);
    free(sumsq);
    last = host_last(x->s->host);
    if (rc == 0)
        hosted_events(p, x, events);
    else if (rc == ERR_STALE && last != NULL && last->step == h->step)
        apply_send(p, x, peer);
    else if (rc == ERR_NUMERIC)
        hosted_fail(p, x, &e);
    else
        p->dropped++;
}

/* The leader has closed the step. */
void hosted_apply(struct ps_host *p, struct hosted *x, const struct params_head *h)
{
    const struct host_close close = close_unpack(h);
    unsigned events = 0;
    struct err e;
    int rc;

    fault_hit(FAULT_PS_APPLY_BEFORE);
    rc = host_apply(x->s->host, &close, &events, &e);
    if (rc == 0)
        fault_hit(FAULT_PS_APPLY_AFTER);
    if (rc == 0)
        hosted_events(p, x, events);
    else if (rc != ERR_STALE)
        p->dropped++;
    if (h->freeze && host_version(x->s->host) == h->step + 1 && !host_is_frozen(x->s->host))
        hosted_freeze(p, x, false);
}
