#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/team.h"
#include "ps/host.h" /* enum host_verdict */
#include "worker/ps_client_inner.h"

static void copy_free(void *data, void *hint)
{
    (void)hint;
    free(data);
}

static void region_let_go(void *data, void *hint)
{
    (void)data;
    region_release(hint);
}

struct hashing {
    const struct ps_client *c;
    struct pending *p;
};

static void hash_part(void *self, size_t part, size_t parts)
{
    const struct hashing *x = self;
    const struct ps_client *c = x->c;
    struct pending *p = x->p;

    for (size_t i = p->count * part / parts; i < p->count * (part + 1) / parts; i++) {
        uint32_t chunk = p->begin + (uint32_t)i;
        p->hash[i] = fold_hash(p->grad + (size_t)chunk * c->plan.chunk_elems, chunk_len(c, chunk),
                               chunk == 0 ? &p->sums : NULL);
    }
}

/* Hashes what p pushes. */
static void pending_hash(const struct ps_client *c, struct pending *p)
{
    team_run(c->plan.team, hash_part, &(struct hashing){c, p});
}

/* The raw frames of p: without a copy where the gradient can be held. */
static void pending_frames(struct ps_client *c, const struct pending *p, struct link_frame *frames)
{
    size_t at = 0;

    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t chunk = p->begin + i;
        float *values = p->grad + (size_t)chunk * c->plan.chunk_elems;
        size_t n = chunk_len(c, chunk);
        frames[i] = (struct link_frame){.data = values, .len = chunk_bytes(c, chunk)};
        if (c->plan.half) {
            half_pack(c->packed + at, values, n);
            frames[i].data = c->packed + at;
            at += n;
        } else if (p->region != NULL) {
            region_hold(p->region);
            frames[i].free_fn = region_let_go;
            frames[i].hint = p->region;
        }
    }
}

/* What a bad cable or bad memory does to a push on its way: one bit of the first chunk, or of the hash that goes with
 * memory that stays where it is. */
static void push_damage(struct params_head *h, struct link_frame *frames, int n)
{
    char *copy;

    if (n == 1) {
        h->hash[0] ^= 1;
        return;
    }
    copy = mem_zalloc(frames[1].len, 1);
    memcpy(copy, frames[1].data, frames[1].len);
    copy[frames[1].len / 2] ^= 1;
    if (frames[1].free_fn != NULL)
        frames[1].free_fn(frames[1].data, frames[1].hint);
    frames[1] = (struct link_frame){.data = copy, .len = frames[1].len, .free_fn = copy_free};
}

static int pending_send(struct ps_client *c, struct pending *p, const struct ps_client_check *check,
                        struct err *e)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct link_frame frames[1 + PARAMS_FRAMES_MAX];
    struct params_head h = {.type = PARAMS_PUSH,
                            .session = c->plan.session,
                            .attempt = c->plan.attempt,
                            .step = p->step,
                            .level = p->node.level,
                            .index = p->node.index,
                            .chunk = p->begin,
                            .count = p->count,
                            .loss = p->sums.loss,
                            .weight = p->sums.weight,
                            .tokens = p->sums.tokens,
                            .who = c->plan.who};
    bool near = p->region != NULL && !p->as_bytes && c->plan.near != NULL &&
                atomic_load(&c->plan.near[p->host]);
    uint32_t host = p->host;
    int n = 1;
    int rc;

    memcpy(h.hash, p->hash, p->count * sizeof h.hash[0]);
    if (near) {
        const struct region_key key = region_key(p->region);
        h.region = (struct params_region){key.id, key.bytes, key.pid, key.fd};
    } else {
        pending_frames(c, p, frames + 1);
        n += (int)p->count;
    }
    if (fault_hit(FAULT_PS_PUSH_DAMAGE))
        push_damage(&h, frames, n);
    params_pack(&h, head, frames, n);
    p->sent_ms = clock_ms();
    p->first_ms = p->first_ms != 0 ? p->first_ms : p->sent_ms;
    rc = client_send(c, host, frames, n, check, e); /* p may have moved when this returns */
    for (int i = 1; rc != 0 && i < n; i++)
        if (frames[i].free_fn != NULL)
            frames[i].free_fn(frames[i].data, frames[i].hint);
    return rc;
}

int ps_client_push(struct ps_client *c, uint64_t step, struct tree_node node, uint32_t begin,
                   uint32_t end, float *grad, struct region *region, const struct fold_sums *sums,
                   const struct ps_client_check *check, struct err *e)
{
    uint32_t most = client_chunks_most(c);
    int rc = 0;

    CHECK(begin < end && end <= c->chunks && (begin > 0 || sums != NULL));
    fault_hit(FAULT_PS_PUSH_BEFORE);
    for (uint32_t host = 0; rc == 0 && host < c->plan.hosts_n; host++) {
        uint32_t at =
            begin > c->plan.host[host].chunk_begin ? begin : c->plan.host[host].chunk_begin;
        uint32_t to = end < c->plan.host[host].chunk_end ? end : c->plan.host[host].chunk_end;
        for (; rc == 0 && at < to; at += most) {
            struct pending *p;
            if (c->pending_n == c->pending_cap) {
                c->pending_cap = c->pending_cap * 2 + 16;
                c->pending = mem_grow(c->pending, c->pending_cap, sizeof *c->pending);
            }
            p = &c->pending[c->pending_n++];
            *p = (struct pending){.host = host,
                                  .begin = at,
                                  .count = to - at < most ? to - at : most,
                                  .step = step,
                                  .node = node,
                                  .grad = grad,
                                  .region = region};
            if (at == 0)
                p->sums = *sums;
            pending_hash(c, p);
            rc = pending_send(c, p, check, e);
        }
    }
    fault_hit(FAULT_PS_PUSH_AFTER);
    return rc == 0 ? client_receive(c, 0, e) : rc;
}

bool ps_client_is_over(const struct ps_client *c, uint64_t step)
{
    return c->over > step;
}

/* ---- answers, and none ----------------------------------------------------------------------- */

void client_acked(struct ps_client *c, const struct params_head *h)
{
    for (size_t i = 0; i < c->pending_n; i++) {
        struct pending *p = &c->pending[i];
        if (p->step != h->step || p->node.level != h->level || p->node.index != h->index ||
            p->begin != h->chunk || p->count != h->count)
            continue;
        if (h->verdict == HOST_CONFLICT) /* the host asks a third: one of us is wrong */
            log_warn("push.conflict", "step=%" PRIu64 " node=%u/%u chunk=%u", h->step + 1, h->level,
                     h->index, h->chunk);
        if (h->verdict == HOST_STALE && h->step >= c->over)
            c->over = h->step + 1;
        if (h->verdict == HOST_CORRUPT) {
            log_warn("push.damaged", "step=%" PRIu64 " chunk=%u", h->step, h->chunk);
            p->sent_ms = 0; /* repeat at once */
            p->as_bytes = true;
            p->damaged++;
        } else {
            ps_patience_ease(&c->patience[p->host], p->first_ms, clock_ms());
            *p = c->pending[--c->pending_n];
        }
        return;
    }
}

/* A cable damages one push in very many. When the same one comes wrong again and again, it is our own memory that is not
 * what was hashed. */
#define DAMAGED_MAX 4

int client_pushes_repeat(struct ps_client *c, const struct ps_client_check *check, struct err *e)
{
    bool told[WIRE_HOSTS_MAX] = {false};
    uint64_t now = clock_ms();

    for (size_t i = 0; i < c->pending_n; i++) {
        uint32_t host = c->pending[i].host;
        if (c->pending[i].damaged > DAMAGED_MAX)
            return err_set(e, ERR_CORRUPT,
                           "gradient of step %" PRIu64
                           ", chunks [%u, %u): came to %s %u times with another hash than it had "
                           "when it was summed: this machine's memory may be damaged",
                           c->pending[i].step + 1, c->pending[i].begin,
                           c->pending[i].begin + c->pending[i].count, c->plan.host[host].endpoint,
                           c->pending[i].damaged);
        bool was_silent = c->pending[i].sent_ms != 0 &&
                          ps_patience_is_over(&c->patience[host], c->pending[i].sent_ms, now);
        if (c->pending[i].sent_ms == 0 || was_silent) {
            int rc = pending_send(c, &c->pending[i], check, e);
            if (rc != 0)
                return rc;
            told[host] = told[host] || was_silent;
        }
    }
    for (uint32_t i = 0; i < c->plan.hosts_n; i++)
        if (told[i])
            ps_patience_repeated(&c->patience[i]);
    return 0;
}

int ps_client_tend(struct ps_client *c, int timeout_ms, const struct ps_client_check *check,
                   size_t *open, struct err *e)
{
    int rc = client_receive(c, timeout_ms, e);

    if (rc == 0)
        rc = client_pushes_repeat(c, check, e);
    *open = c->pending_n;
    return rc;
}

void ps_client_forget(struct ps_client *c)
{
    c->pending_n = 0;
}
