#include "worker/ps_client.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/team.h"
#include "net/link.h"
#include "ps/half.h"
#include "ps/host.h" /* enum host_verdict */
#include "wire/params.h"
#include "worker/ps_patience.h"

#define POLL_MS 20
#define REPEAT_FIRST_MS 50
#define MESSAGE_BYTES_MAX ((size_t)4 << 20)

/* A push that has not been answered. */
struct pending {
    uint32_t host, begin, count;
    uint64_t step, sent_ms, first_ms; /* sent last (0: at once), and first */
    struct tree_node node;
    float *grad;
    struct region *region;
    bool as_bytes;    /* whatever the host is */
    uint32_t damaged; /* so often what came there had another hash */
    struct fold_sums sums;
    /* Taken once, before the first push: a near host may add to the values since, and what changes them otherwise must
     * not pass for the gradient. */
    uint64_t hash[PARAMS_FRAMES_MAX];
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
    uint64_t asked_ms[WIRE_HOSTS_MAX]; /* and when */
    struct ps_patience patience[WIRE_HOSTS_MAX];
    bool answered[WIRE_HOSTS_MAX]; /* it knows the session; before that it may not have opened it
                                      yet, and is asked often */
    _Atomic uint64_t *version;     /* [chunks] of what params hold; set when they do */
    _Atomic uint64_t newest;
    struct region *shown[WIRE_HOSTS_MAX]; /* where near hosts keep their parameters */
    bool is_shown[WIRE_HOSTS_MAX];        /* in our view; else they are copied to it */
    bool far[WIRE_HOSTS_MAX];             /* its memory could not be attached */
    bool damaged[WIRE_HOSTS_MAX];         /* something that it said: perhaps chunks */
    uint16_t *packed;                     /* half: [chunk_elems * PARAMS_FRAMES_MAX] */
    float *params;                        /* where chunks go; NULL outside a pull */
    uint64_t over; /* 1 + the last step that a host had closed without a push */
};

static uint32_t chunks_per_message(const struct ps_client *c)
{
    size_t most = MESSAGE_BYTES_MAX / (c->plan.chunk_elems * sizeof(float));

    return most < 1 ? 1 : most > PARAMS_FRAMES_MAX ? PARAMS_FRAMES_MAX : (uint32_t)most;
}

/* What a host has of a vector. */
static uint64_t host_bytes(const struct ps_client *c, uint32_t host)
{
    uint64_t chunks = c->plan.host[host].chunk_end - c->plan.host[host].chunk_begin;

    return chunks * c->plan.chunk_elems * (c->plan.half ? sizeof(uint16_t) : sizeof(float));
}

int ps_client_new(const struct ps_client_plan *plan, struct ps_client **out, struct err *e)
{
    struct ps_client *c = mem_zalloc(1, sizeof *c);
    uint32_t at = 0;

    c->plan = *plan;
    c->chunks = (uint32_t)((plan->params + plan->chunk_elems - 1) / plan->chunk_elems);
    c->version = mem_alloc(c->chunks * sizeof *c->version);
    for (uint32_t i = 0; i < c->chunks; i++)
        atomic_init(&c->version[i], UINT64_MAX);
    atomic_init(&c->newest, UINT64_MAX);
    if (plan->half)
        c->packed = mem_alloc(chunks_per_message(c) * plan->chunk_elems * sizeof *c->packed);
    c->wanted = UINT64_MAX;
    for (uint32_t i = 0; i < plan->hosts_n; i++) {
        CHECK(plan->host[i].chunk_begin == at && plan->host[i].chunk_end > at);
        ps_patience_init(&c->patience[i], host_bytes(c, i));
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
    for (uint32_t i = 0; i < c->plan.hosts_n; i++) {
        link_close(c->socket[i]);
        region_release(c->shown[i]);
    }
    free(c->pending);
    free(c->packed);
    free(c->version);
    free(c);
}

static size_t chunk_len(const struct ps_client *c, uint32_t chunk)
{
    size_t at = (size_t)chunk * c->plan.chunk_elems;

    return c->plan.params - at < c->plan.chunk_elems ? c->plan.params - at : c->plan.chunk_elems;
}

/* ---- what hosts say -------------------------------------------------------------------------- */

static size_t chunk_bytes(const struct ps_client *c, uint32_t chunk)
{
    return chunk_len(c, chunk) * (c->plan.half ? sizeof(uint16_t) : sizeof(float));
}

static void chunk_put(struct ps_client *c, uint32_t chunk, const void *data)
{
    float *to = c->params + (size_t)chunk * c->plan.chunk_elems;

    if (c->plan.half)
        half_unpack(to, data, chunk_len(c, chunk));
    else
        memcpy(to, data, chunk_bytes(c, chunk));
}

/* Before floats of a version are written over those of an older one: who sees any of them sees this
 * too, in ps_client_still(). */
static void newest_raise(struct ps_client *c, uint64_t version)
{
    uint64_t newest = atomic_load_explicit(&c->newest, memory_order_relaxed);

    if (newest != UINT64_MAX && version <= newest)
        return;
    atomic_store(&c->newest, version);
    atomic_thread_fence(memory_order_seq_cst);
}

static void chunk_note(struct ps_client *c, uint32_t chunk, uint64_t version)
{
    newest_raise(c, version); /* floats that are shown were not written here */
    atomic_store_explicit(&c->version[chunk], version, memory_order_release);
}

/* Newer than what we have, which repeated questions do not give. */
static bool is_news(const struct ps_client *c, uint32_t chunk, uint64_t version)
{
    uint64_t have = atomic_load_explicit(&c->version[chunk], memory_order_relaxed);

    return have == UINT64_MAX || version >= have;
}

/* A near host says where its chunks lie. */
static void on_region(struct ps_client *c, uint32_t host, const struct params_head *h)
{
    const struct region_key key = {h->region.id, h->region.bytes, h->region.pid, h->region.fd};
    size_t at = (size_t)h->chunk * c->plan.chunk_elems;
    size_t to = (size_t)(h->chunk + h->count) * c->plan.chunk_elems;
    struct region *r = c->shown[host];
    struct err ignored;

    to = to < c->plan.params ? to : c->plan.params;
    if (c->plan.view == NULL || c->far[host])
        return;
    if (r == NULL) {
        if (key.bytes != c->plan.params * sizeof(float) || region_attach(&key, &r, &ignored) != 0) {
            c->far[host] = true; /* and is asked for bytes */
            c->asked[host] = UINT64_MAX;
            return;
        }
        c->shown[host] = r;
        c->is_shown[host] =
            region_show(c->plan.view, r, at * sizeof(float), (to - at) * sizeof(float));
        atomic_store(&c->plan.near[host], true);
    }
    if (region_stamped(r) == h->step && !c->is_shown[host]) {
        newest_raise(c, h->step);
        memcpy(c->params + at, (const float *)region_data(r) + at, (to - at) * sizeof(float));
    }
    if (region_stamped(r) != h->step) {
        c->asked[host] = UINT64_MAX; /* it has gone on: ask again */
        return;
    }
    for (uint32_t i = 0; i < h->count; i++)
        if (is_news(c, h->chunk + i, h->step))
            chunk_note(c, h->chunk + i, h->step);
}

static void on_chunks(struct ps_client *c, uint32_t host, const struct params_head *h,
                      const struct link_frame *frames)
{
    if (c->params == NULL || h->chunk < c->plan.host[host].chunk_begin ||
        h->chunk + h->count > c->plan.host[host].chunk_end)
        return;
    c->answered[host] = true;
    if (h->region.bytes != 0) {
        on_region(c, host, h);
        return;
    }
    for (uint32_t i = 0; i < h->count; i++)
        if (frames[i].len != chunk_bytes(c, h->chunk + i))
            return; /* not ours to guess: the pull is repeated */
    for (uint32_t i = 0; i < h->count; i++) {
        if (!is_news(c, h->chunk + i, h->step))
            continue; /* a late answer to a repeated question */
        newest_raise(c, h->step);
        chunk_put(c, h->chunk + i, frames[i].data);
        chunk_note(c, h->chunk + i, h->step);
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
            p->as_bytes = true;
            p->damaged++;
        } else {
            ps_patience_ease(&c->patience[p->host], p->first_ms, clock_ms());
            *p = c->pending[--c->pending_n];
        }
        return;
    }
}

static void on_message(struct ps_client *c, uint32_t host, struct link_frame *frames, int n)
{
    struct params_head h;
    struct err bad;

    if (params_unpack(frames, n, &h, &bad) != 0) {
        log_warn("host.bad_message", "host=%s error=%s", c->plan.host[host].endpoint, bad.msg);
        c->damaged[host] = true;
        c->asked[host] = UINT64_MAX; /* ask again */
        return;
    }
    if (h.session != c->plan.session || h.attempt != c->plan.attempt)
        return;
    ps_patience_heard(&c->patience[host], clock_ms());
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
    rc = send_wait(c, host, frames, n, check, e); /* p may have moved when this returns */
    for (int i = 1; rc != 0 && i < n; i++)
        if (frames[i].free_fn != NULL)
            frames[i].free_fn(frames[i].data, frames[i].hint);
    return rc;
}

int ps_client_push(struct ps_client *c, uint64_t step, struct tree_node node, uint32_t begin,
                   uint32_t end, float *grad, struct region *region, const struct fold_sums *sums,
                   const struct ps_client_check *check, struct err *e)
{
    uint32_t most = chunks_per_message(c);
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
    return rc == 0 ? receive(c, 0, e) : rc;
}

bool ps_client_is_over(const struct ps_client *c, uint64_t step)
{
    return c->over > step;
}

/* A cable damages one push in very many. When the same one comes wrong again and again, it is our own memory that is not
 * what was hashed. */
#define DAMAGED_MAX 4

static int pushes_repeat(struct ps_client *c, const struct ps_client_check *check, struct err *e)
{
    bool told[WIRE_HOSTS_MAX] = {false};
    uint64_t now = clock_ms();

    for (size_t i = 0; i < c->pending_n; i++) {
        uint32_t host = c->pending[i].host;
        if (c->pending[i].damaged > DAMAGED_MAX)
            return err_set(e, ERR_CORRUPT,
                           "gradient of step %" PRIu64 ", chunks [%u, %u): came to %s %u times with another hash than it had "
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
    int rc = receive(c, timeout_ms, e);

    if (rc == 0)
        rc = pushes_repeat(c, check, e);
    *open = c->pending_n;
    return rc;
}

void ps_client_forget(struct ps_client *c)
{
    c->pending_n = 0;
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
    struct link_frame frame;
    struct err ignored;

    if (c->plan.view != NULL && !c->far[host]) {
        const struct region_key key = region_key(c->plan.view);
        h.region = (struct params_region){key.id, key.bytes, key.pid, key.fd};
    }
    h.verdict = c->damaged[host] ? HOST_CORRUPT : HOST_ACCEPTED;
    c->damaged[host] = false;
    params_pack(&h, head, &frame, 1);
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
            (again && (c->answered[i] ? !ps_patience_is_over(&c->patience[i], c->asked_ms[i], now)
                                      : now - c->asked_ms[i] < REPEAT_FIRST_MS)))
            continue;
        if (again && c->answered[i])
            ps_patience_repeated(&c->patience[i]);
        else if (!again)
            ps_patience_renew(&c->patience[i], now);
        host_ask(c, i, target);
    }
    c->wanted = target;
}

int ps_client_pump(struct ps_client *c, uint64_t at_least, float *params, int timeout_ms,
                   struct err *e)
{
    bool whole, some;
    int rc;

    c->params = params;
    hosts_ask(c, target_version(c, at_least, &whole, &some));
    rc = receive(c, timeout_ms, e);
    c->params = NULL;
    return rc;
}

uint64_t ps_client_newest(const struct ps_client *c)
{
    return atomic_load(&c->newest);
}

bool ps_client_has(const struct ps_client *c, uint64_t version, size_t begin, size_t end,
                   bool *over)
{
    bool all = true;

    *over = false;
    for (size_t i = begin / c->plan.chunk_elems;
         begin < end && i <= (end - 1) / c->plan.chunk_elems; i++) {
        uint64_t have = atomic_load_explicit(&c->version[i], memory_order_acquire);
        all = all && have == version;
        *over = *over || (have != UINT64_MAX && have > version);
    }
    return all;
}

bool ps_client_still(const struct ps_client *c, uint64_t version)
{
    uint64_t newest;

    atomic_thread_fence(memory_order_acquire); /* what was read came before this look */
    newest = atomic_load(&c->newest);
    if (newest != UINT64_MAX && newest > version)
        return false;
    for (uint32_t i = 0; c->plan.near != NULL && i < c->plan.hosts_n; i++)
        if (atomic_load(&c->plan.near[i]) && region_stamped(c->shown[i]) > version)
            return false;
    return true;
}

int ps_client_pull(struct ps_client *c, uint64_t at_least, float *params, uint64_t *version,
                   const struct ps_client_check *check, struct err *e)
{
    for (;;) {
        bool whole, some;
        int rc;

        *version = target_version(c, at_least, &whole, &some);
        if (whole) {
            c->pending_n = 0;
            return 0;
        }
        rc = ps_client_pump(c, at_least, params, POLL_MS, e);
        if (rc == 0)
            rc = pushes_repeat(c, check, e);
        target_version(c, at_least, &whole, &some);
        if (rc == 0 && !whole)
            rc = check->ask(check->self, !some, e);
        if (rc != 0)
            return rc;
    }
}
