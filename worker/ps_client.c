#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/link.h"
#include "ps/host.h" /* enum host_verdict */
#include "worker/ps_client_inner.h"

#define POLL_MS 20
#define REPEAT_FIRST_MS 50
#define MESSAGE_BYTES_MAX ((size_t)4 << 20)

uint32_t client_chunks_most(const struct ps_client *c)
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
        c->packed = mem_alloc(client_chunks_most(c) * plan->chunk_elems * sizeof *c->packed);
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

/* ---- what hosts say -------------------------------------------------------------------------- */

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
        client_acked(c, &h);
}

int client_receive(struct ps_client *c, int timeout_ms, struct err *e)
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

int client_send(struct ps_client *c, uint32_t host, struct link_frame *frames, int n,
                const struct ps_client_check *check, struct err *e)
{
    int rc;

    while ((rc = link_send(c->socket[host], NULL, frames, n, e)) == ERR_BUSY) {
        rc = client_receive(c, POLL_MS, e);
        if (rc == 0)
            rc = check->ask(check->self, false, e);
        if (rc != 0)
            return rc;
    }
    return rc;
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
    rc = client_receive(c, timeout_ms, e);
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
            rc = client_pushes_repeat(c, check, e);
        target_version(c, at_least, &whole, &some);
        if (rc == 0 && !whole)
            rc = check->ask(check->self, !some, e);
        if (rc != 0)
            return rc;
    }
}
