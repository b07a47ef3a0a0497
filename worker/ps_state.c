/*
 * One question a chunk, a window of them at a time. A chunk is asked of the sources that hold it in
 * turn: the next one when an answer is late or says no. A source that says no has not got it at
 * this version and is not asked for anything again.
 */
#include "worker/ps_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/link.h"
#include "ps/shard.h"
#include "wire/params.h"
#include "worker/ps_host_inner.h" /* close_pack */

#define POLL_MS 20
#define REPEAT_MS 1000
#define WINDOW_MAX 32
#define WINDOW_BYTES ((size_t)32 << 20)

struct fetching {
    const struct ps_state_plan *plan;
    const struct ps_state_take *take;
    uint32_t chunks, missing, under_way, window;
    bool *need;         /* [chunks] */
    uint64_t *asked_ms; /* [chunks] 0: not yet */
    uint32_t *tries;    /* [chunks] */
    void *socket[WIRE_HOSTS_MAX];
    bool refused[WIRE_HOSTS_MAX];
    uint64_t heard_ms;
};

static bool source_has(const struct control_source *s, uint32_t chunk)
{
    return (chunk >= s->chunk_begin && chunk < s->chunk_end) ||
           (chunk >= s->copy_begin && chunk < s->copy_end);
}

/* The try-th of the sources that may have it; -1 if there is none. */
static int source_pick(const struct fetching *f, uint32_t chunk, uint32_t try)
{
    int candidate[WIRE_HOSTS_MAX];
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->plan->sources_n; i++)
        if (!f->refused[i] && source_has(&f->plan->source[i], chunk))
            candidate[n++] = (int)i;
    return n > 0 ? candidate[try % n] : -1;
}

static int chunk_ask(struct fetching *f, uint32_t chunk, struct err *e)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head h = {.type = PARAMS_STATE_PULL,
                            .session = f->plan->session,
                            .attempt = f->plan->attempt,
                            .step = f->plan->version,
                            .chunk = chunk,
                            .count = 1};
    int source = source_pick(f, chunk, f->tries[chunk]);
    struct link_frame frame;
    struct err ignored;

    if (source < 0)
        return err_set(e, ERR_NOT_FOUND,
                       "nobody has chunk %u of version %" PRIu64 " in memory any more", chunk,
                       f->plan->version);
    close_pack(&f->plan->close, &h);
    params_pack(&h, head, &frame, 1);
    if (link_send(f->socket[source], NULL, &frame, 1, &ignored) == 0) {
        f->under_way += f->asked_ms[chunk] == 0;
        f->asked_ms[chunk] = clock_ms();
        f->tries[chunk]++;
    } else if (clock_ms() - f->heard_ms >= REPEAT_MS) {
        f->tries[chunk]++; /* not connected, it seems */
    }
    return 0;
}

static int chunks_ask(struct fetching *f, struct err *e)
{
    uint64_t now = clock_ms();
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < f->chunks; i++) {
        if (!f->need[i])
            continue;
        if (f->asked_ms[i] == 0 ? f->under_way < f->window : now - f->asked_ms[i] >= REPEAT_MS)
            rc = chunk_ask(f, i, e);
    }
    return rc;
}

static void on_state(struct fetching *f, uint32_t source, const struct params_head *h,
                     const struct link_frame *frames)
{
    size_t at = (size_t)h->chunk * f->plan->chunk_elems;
    size_t n;

    if (h->session != f->plan->session || h->attempt != f->plan->attempt ||
        h->step != f->plan->version || h->type != PARAMS_STATE || h->chunk >= f->chunks)
        return;
    f->heard_ms = clock_ms();
    if (h->count == 0) {
        if (!f->refused[source])
            log_warn("state.refused", "source=%s chunk=%u version=%" PRIu64,
                     f->plan->source[source].worker, h->chunk, h->step);
        f->refused[source] = true;
        if (f->asked_ms[h->chunk] != 0)
            f->asked_ms[h->chunk] = 1; /* of the next one, at once */
        return;
    }
    n = f->plan->params - at < f->plan->chunk_elems ? f->plan->params - at : f->plan->chunk_elems;
    if (h->count != 1 || !f->need[h->chunk] || frames[0].len != n * sizeof(float) ||
        frames[1].len != frames[0].len || frames[2].len != frames[0].len)
        return;
    if (shard_parts_hash(frames[0].data, frames[1].data, frames[2].data, n) != h->hash[0]) {
        log_warn("state.damaged", "source=%s chunk=%u", f->plan->source[source].worker, h->chunk);
        f->asked_ms[h->chunk] = 1;
        return;
    }
    f->take->put(f->take->self, h->chunk, frames[0].data, frames[1].data, frames[2].data);
    f->need[h->chunk] = false;
    f->under_way -= f->asked_ms[h->chunk] != 0;
    f->missing--;
}

static void receive(struct fetching *f)
{
    struct link_frame frames[LINK_FRAMES_MAX];
    uint32_t n = f->plan->sources_n;

    for (uint32_t base = 0; base < n; base += 32) {
        uint32_t some = n - base < 32 ? n - base : 32;
        uint32_t ready = link_poll(f->socket + base, (int)some, NULL, 0, base == 0 ? POLL_MS : 0);
        for (uint32_t i = 0; i < some; i++) {
            struct err bad;
            int got = 0;
            while ((ready & (1u << i)) != 0 &&
                   link_recv(f->socket[base + i], NULL, frames, &got, &bad) == 0 && got > 0) {
                struct params_head h;
                if (params_unpack(frames, got, &h, &bad) == 0)
                    on_state(f, base + i, &h, frames + 1);
                else
                    log_warn("source.bad_message", "error=%s", bad.msg);
                link_frames_release(frames, got);
            }
        }
    }
}

static int fetch_all(struct fetching *f, struct err *e)
{
    int rc = 0;

    while (rc == 0 && f->missing > 0) {
        rc = chunks_ask(f, e);
        if (rc != 0)
            break;
        receive(f);
        if (f->take->cancelled(f->take->self))
            rc = err_set(e, ERR_CANCELLED, "the session was closed");
        else if (f->missing > 0 && clock_ms() - f->heard_ms >= PS_STATE_SILENCE_MS)
            rc = err_set(e, ERR_UNREACHABLE,
                         "version %" PRIu64
                         " from memory: %u chunks are missing, nothing came for %d s",
                         f->plan->version, f->missing, PS_STATE_SILENCE_MS / 1000);
    }
    return rc;
}

int ps_state_fetch(const struct ps_state_plan *plan, const bool *need,
                   const struct ps_state_take *take, struct err *e)
{
    struct fetching f = {.plan = plan, .take = take, .heard_ms = clock_ms()};
    size_t window = WINDOW_BYTES / (3 * plan->chunk_elems * sizeof(float));
    int rc = 0;

    CHECK(plan->sources_n <= WIRE_HOSTS_MAX);
    f.window = window < 2 ? 2 : window > WINDOW_MAX ? WINDOW_MAX : (uint32_t)window;
    f.chunks = (uint32_t)((plan->params + plan->chunk_elems - 1) / plan->chunk_elems);
    f.need = mem_zalloc(f.chunks, sizeof *f.need);
    f.asked_ms = mem_zalloc(f.chunks, sizeof *f.asked_ms);
    f.tries = mem_zalloc(f.chunks, sizeof *f.tries);
    for (uint32_t i = 0; i < f.chunks; i++) {
        f.need[i] = need[i];
        f.missing += need[i];
    }
    for (uint32_t i = 0; rc == 0 && i < plan->sources_n; i++) {
        f.socket[i] = link_dealer(LINK_DATA, plan->source[i].endpoint, e);
        if (f.socket[i] == NULL)
            rc = err_wrap(e, "source %s", plan->source[i].worker);
    }
    if (rc == 0)
        rc = fetch_all(&f, e);
    for (uint32_t i = 0; i < plan->sources_n; i++)
        link_close(f.socket[i]);
    free(f.need);
    free(f.asked_ms);
    free(f.tries);
    return rc;
}
