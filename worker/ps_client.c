#include "worker/ps_client.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "net/link.h"
#include "ps/host.h" /* enum host_verdict */
#include "wire/params.h"

#define POLL_MS 20
#define REPEAT_MS 1000
#define REPEAT_MOST_MS 8000
#define REPEAT_FIRST_MS 50
#define MESSAGE_BYTES_MAX ((size_t)4 << 20)

/* A push that has not been answered. */
struct pending {
    uint32_t host, begin, count;
    uint64_t step, sent_ms;
    struct tree_node node;
    const float *grad;
    struct fold_sums sums;
};

struct ps_client {
    struct ps_client_plan plan;
    uint32_t chunks;
    void *socket[WIRE_HOSTS_MAX];
    struct pending *pending;
    size_t pending_n, pending_cap;
    /* the pull in progress */
    uint64_t wanted;                /* version that hosts were asked for; UINT64_MAX: none */
    uint64_t asked[WIRE_HOSTS_MAX]; /* what each host was asked for last */
    uint64_t asked_ms[WIRE_HOSTS_MAX];
    /* Silence: when a host said something last, and how much of it means that something was lost. */
    uint64_t heard_ms[WIRE_HOSTS_MAX], patience_ms[WIRE_HOSTS_MAX], gap_ms[WIRE_HOSTS_MAX];
    bool answered[WIRE_HOSTS_MAX]; /* it knows the session; before that it may not have opened it
                                      yet, and is asked often */
    uint64_t *version;             /* [chunks] of what params hold */
    float *params;                 /* where chunks go; NULL outside a pull */
    uint64_t over;                 /* 1 + the last step that a host had closed without a push */
};

int ps_client_new(const struct ps_client_plan *plan, struct ps_client **out, struct err *e)
{
    struct ps_client *c = mem_zalloc(1, sizeof *c);
    uint32_t at = 0;

    c->plan = *plan;
    c->chunks = (uint32_t)((plan->params + plan->chunk_elems - 1) / plan->chunk_elems);
    c->version = mem_alloc(c->chunks * sizeof *c->version);
    memset(c->version, 0xff, c->chunks * sizeof *c->version);
    c->wanted = UINT64_MAX;
    for (uint32_t i = 0; i < plan->hosts_n; i++) {
        c->patience_ms[i] = REPEAT_MS;
        CHECK(plan->host[i].chunk_begin == at && plan->host[i].chunk_end > at);
        at = plan->host[i].chunk_end;
        c->socket[i] = link_dealer(LINK_DATA, plan->host[i].endpoint, e);
        if (c->socket[i] == NULL) {
            ps_client_free(c);
            return err_wrap(e, "parameter host %u", i);
        }
    }
    CHECK(at == c->chunks);
    *out = c;
    return 0;
}

void ps_client_free(struct ps_client *c)
{
    if (c == NULL)
        return;
    for (uint32_t i = 0; i < c->plan.hosts_n; i++)
        link_close(c->socket[i]);
    free(c->pending);
    free(c->version);
    free(c);
}

static size_t chunk_len(const struct ps_client *c, uint32_t chunk)
{
    size_t at = (size_t)chunk * c->plan.chunk_elems;

    return c->plan.params - at < c->plan.chunk_elems ? c->plan.params - at : c->plan.chunk_elems;
}

/* ---- silence --------------------------------------------------------------------------------- */

/* On a slow link an answer is late because all before it is still under way; repeating the question then
 * would double what is to be sent, and make it later still. So a question is repeated after silence only,
 * and the silence that a link has shown, twice, is what is waited for; each repetition doubles it. */
static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool silent(const struct ps_client *c, uint32_t host, uint64_t sent_ms, uint64_t now)
{
    return now - larger(sent_ms, c->heard_ms[host]) >= c->patience_ms[host];
}

static void repeated(struct ps_client *c, uint32_t host)
{
    if (c->patience_ms[host] < REPEAT_MOST_MS)
        c->patience_ms[host] *= 2;
}

static void heard(struct ps_client *c, uint32_t host)
{
    uint64_t now = clock_ms(), gap = now - larger(c->heard_ms[host], c->asked_ms[host]);

    c->gap_ms[host] = larger(c->gap_ms[host], gap);
    c->heard_ms[host] = now;
}

/* Once a version: what was waited for in vain before may have become shorter. */
static void patience_renew(struct ps_client *c, uint32_t host)
{
    if (2 * c->gap_ms[host] < c->patience_ms[host])
        c->patience_ms[host] = larger(REPEAT_MS, 2 * c->gap_ms[host]);
    c->gap_ms[host] = 0;
}

/* ---- what hosts say -------------------------------------------------------------------------- */

static void on_chunks(struct ps_client *c, uint32_t host, const struct params_head *h,
                      const struct link_frame *frames)
{
    if (c->params == NULL || h->chunk < c->plan.host[host].chunk_begin ||
        h->chunk + h->count > c->plan.host[host].chunk_end)
        return;
    c->answered[host] = true;
    for (uint32_t i = 0; i < h->count; i++)
        if (frames[i].len != chunk_len(c, h->chunk + i) * sizeof(float))
            return; /* not ours to guess: the pull is repeated */
    for (uint32_t i = 0; i < h->count; i++) {
        uint64_t have = c->version[h->chunk + i];
        if (have != UINT64_MAX && h->step < have)
            continue; /* a late answer to a repeated question */
        memcpy(c->params + (size_t)(h->chunk + i) * c->plan.chunk_elems, frames[i].data,
               frames[i].len);
        c->version[h->chunk + i] = h->step;
    }
}

static void on_ack(struct ps_client *c, const struct params_head *h)
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
        } else {
            *p = c->pending[--c->pending_n];
        }
        return;
    }
}

static void on_message(struct ps_client *c, uint32_t host, struct link_frame *frames, int n)
{
    struct params_head h;
    struct err bad;

    if (params_unpack(frames[0].data, frames[0].len, n - 1, &h, &bad) != 0) {
        log_warn("host.bad_message", "host=%s error=%s", c->plan.host[host].endpoint, bad.msg);
        return;
    }
    if (h.session != c->plan.session || h.attempt != c->plan.attempt)
        return;
    heard(c, host);
    if (h.type == PARAMS_CHUNKS)
        on_chunks(c, host, &h, frames + 1);
    else if (h.type == PARAMS_ACK)
        on_ack(c, &h);
}

/* Reads what has come, waiting timeout_ms for something. */
static int receive(struct ps_client *c, int timeout_ms, struct err *e)
{
    struct link_frame frames[LINK_FRAMES_MAX];

    for (uint32_t base = 0; base < c->plan.hosts_n; base += 32) {
        uint32_t some = c->plan.hosts_n - base < 32 ? c->plan.hosts_n - base : 32;
        uint32_t ready =
            link_poll(c->socket + base, (int)some, NULL, 0, base == 0 ? timeout_ms : 0);
        for (uint32_t i = 0; i < some; i++) {
            int n = 0;
            if ((ready & (1u << i)) == 0)
                continue;
            while (link_recv(c->socket[base + i], NULL, frames, &n, e) == 0 && n > 0) {
                on_message(c, base + i, frames, n);
                link_frames_release(frames, n);
            }
        }
    }
    return 0;
}

/* Sends head and raw frames to a host; waits while its queue is full. */
static int send_wait(struct ps_client *c, uint32_t host, struct link_frame *frames, int n,
                     const struct ps_client_check *check, struct err *e)
{
    int rc;

    while ((rc = link_send(c->socket[host], NULL, frames, n, e)) == ERR_BUSY) {
        rc = receive(c, POLL_MS, e);
        if (rc == 0)
            rc = check->ask(check->self, false, e);
        if (rc != 0)
            return rc;
    }
    return rc;
}

/* ---- push ------------------------------------------------------------------------------------ */

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
    uint32_t host = p->host;

    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t chunk = p->begin + i;
        const float *values = p->grad + (size_t)chunk * c->plan.chunk_elems;
        h.hash[i] = fold_hash(values, chunk_len(c, chunk), chunk == 0 ? &p->sums : NULL);
        frames[1 + i] = (struct link_frame){.data = (void *)(uintptr_t)values,
                                            .len = chunk_len(c, chunk) * sizeof(float)};
    }
    frames[0] = (struct link_frame){.data = head, .len = params_pack(&h, head)};
    p->sent_ms = clock_ms();
    return send_wait(c, host, frames, 1 + (int)h.count, check,
                     e); /* p may have moved when this returns */
}

int ps_client_push(struct ps_client *c, uint64_t step, struct tree_node node, uint32_t begin,
                   uint32_t end, const float *grad, const struct fold_sums *sums,
                   const struct ps_client_check *check, struct err *e)
{
    uint32_t most = (uint32_t)(MESSAGE_BYTES_MAX / (c->plan.chunk_elems * sizeof(float)));
    int rc = 0;

    CHECK(begin < end && end <= c->chunks && (begin > 0 || sums != NULL));
    most = most < 1 ? 1 : most > PARAMS_FRAMES_MAX ? PARAMS_FRAMES_MAX : most;
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
                                  .grad = grad};
            if (at == 0)
                p->sums = *sums;
            rc = pending_send(c, p, check, e);
        }
    }
    fault_hit(FAULT_PS_PUSH_AFTER);
    return rc == 0 ? receive(c, 0, e) : rc;
}

bool ps_client_is_over(const struct ps_client *c, uint64_t step)
{
    return c->over > step;
}

static int pushes_repeat(struct ps_client *c, const struct ps_client_check *check, struct err *e)
{
    bool told[WIRE_HOSTS_MAX] = {false};
    uint64_t now = clock_ms();

    for (size_t i = 0; i < c->pending_n; i++) {
        uint32_t host = c->pending[i].host;
        if (c->pending[i].sent_ms == 0 || silent(c, host, c->pending[i].sent_ms, now)) {
            int rc = pending_send(c, &c->pending[i], check, e);
            if (rc != 0)
                return rc;
            told[host] = true;
        }
    }
    for (uint32_t i = 0; i < c->plan.hosts_n; i++)
        if (told[i])
            repeated(c, i);
    return 0;
}

/* ---- pull ------------------------------------------------------------------------------------ */

static void host_ask(struct ps_client *c, uint32_t host, uint64_t at_least)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head h = {.type = PARAMS_PULL,
                            .session = c->plan.session,
                            .attempt = c->plan.attempt,
                            .step = at_least,
                            .chunk = c->plan.host[host].chunk_begin,
                            .count = c->plan.host[host].chunk_end - c->plan.host[host].chunk_begin};
    struct link_frame frame = {.data = head, .len = params_pack(&h, head)};
    struct err ignored;

    /* A full queue or a host that is not there yet: asked again by the timer, soon. */
    if (link_send(c->socket[host], NULL, &frame, 1, &ignored) == 0)
        c->asked[host] = at_least;
    else
        c->asked[host] = UINT64_MAX;
    c->asked_ms[host] = clock_ms();
}

/* The version that all chunks should have: the newest of what came, at_least at first. *whole: they
 * all have it. *some: a part came. */
static uint64_t target_version(const struct ps_client *c, uint64_t at_least, bool *whole,
                               bool *some)
{
    uint64_t target = at_least;

    *some = false;
    for (uint32_t i = 0; i < c->chunks; i++) {
        if (c->version[i] == UINT64_MAX || c->version[i] < at_least)
            continue;
        *some = true;
        if (c->version[i] > target)
            target = c->version[i];
    }
    *whole = true;
    for (uint32_t i = 0; i < c->chunks; i++)
        *whole = *whole && c->version[i] == target;
    return target;
}

static bool host_has(const struct ps_client *c, uint32_t host, uint64_t version)
{
    for (uint32_t i = c->plan.host[host].chunk_begin; i < c->plan.host[host].chunk_end; i++)
        if (c->version[i] != version)
            return false;
    return true;
}

/* Asks hosts that lack the target version and have not been asked for it, or not lately. */
static void hosts_ask(struct ps_client *c, uint64_t target)
{
    uint64_t now = clock_ms();

    for (uint32_t i = 0; i < c->plan.hosts_n; i++) {
        bool again = c->asked[i] == target && c->wanted == target;
        if (host_has(c, i, target) ||
            (again && (c->answered[i] ? !silent(c, i, c->asked_ms[i], now)
                                      : now - c->asked_ms[i] < REPEAT_FIRST_MS)))
            continue;
        if (again && c->answered[i])
            repeated(c, i);
        else if (!again)
            patience_renew(c, i);
        host_ask(c, i, target);
    }
    c->wanted = target;
}

int ps_client_pull(struct ps_client *c, uint64_t at_least, float *params, uint64_t *version,
                   const struct ps_client_check *check, struct err *e)
{
    int rc = 0;

    c->params = params;
    for (;;) {
        bool whole, some;
        uint64_t target = target_version(c, at_least, &whole, &some);
        if (whole) {
            *version = target;
            c->pending_n = 0;
            break;
        }
        hosts_ask(c, target);
        rc = receive(c, POLL_MS, e);
        if (rc == 0)
            rc = pushes_repeat(c, check, e);
        if (rc != 0)
            break;
        target_version(c, at_least, &whole, &some);
        rc = whole ? 0 : check->ask(check->self, !some, e);
        if (rc != 0)
            break;
    }
    c->params = NULL;
    return rc;
}
