/*
 * The thread polls the ROUTER, its mailbox (sessions that open and close, checkpoints that were saved) and, for every session of which
 * it is not the leader, the DEALER to the leader. A pull that cannot be answered yet, or whose answer does not fit the peer's
 * queue, waits in the session's list; the list is tried again when a version is made and on the timer. Timers repeat what may have been lost
 * (ROOTS, SAVED).
 */
#include "worker/ps_host.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/link.h"
#include "wire/params.h"
#include "worker/mailbox.h"
#include "worker/saver.h"

#define SESSIONS_MAX 16
#define PULLS_MAX 4096
#define TICK_MS 20
#define ROOTS_REPEAT_MS 500
#define SAVED_REPEAT_MS 1000
#define STATUS_MS 250
#define SAVING_MAX 2 /* copies of the shard on their way to a slow store; a checkpoint that would be one more is left out */
#define COLLECT_MAX 4 /* checkpoints of one session that are being collected at the same time */
#define MESSAGE_BYTES_MAX ((size_t)4 << 20)

struct pull {
    struct link_peer peer;
    uint64_t at_least;
    uint64_t version;   /* of the chunks sent so far */
    uint32_t next, end; /* chunks still to send */
    uint32_t begin;
};

/* Leader: a checkpoint whose chunks come in. */
struct collect {
    uint64_t version;
    struct host_figures figures;
    uint32_t have;
    struct digest *digest; /* [plan.chunks]; NULL: the place is free */
};

struct hosted {
    struct ps_session *s;
    void *leader;          /* DEALER to the step leader, NULL on it */
    struct pull *pull;
    size_t pulls, pulls_cap;
    uint64_t roots_ms;     /* when ROOTS was sent last */
    bool roots_due;
    struct {               /* leader: the other hosts, as far as they have spoken */
        struct link_peer peer;
        uint32_t chunk_begin;
    } member[WIRE_HOSTS_MAX];
    int members;
    int saving;              /* copies of our chunks that the saver has not published yet */
    struct saver_job *saved; /* published, not yet acknowledged by the leader */
    uint64_t saved_ms;
    struct collect collect[COLLECT_MAX];
    uint64_t status_ms, status_tokens, opened_ms, opened_tokens, status_version;
    double tokens_per_s;
    bool failed;
};

enum note_type { NOTE_OPEN, NOTE_CLOSE, NOTE_SAVED, NOTE_STOP };
struct note {
    enum note_type type;
    uint64_t session, attempt;
    struct ps_session *open;
    struct saver_job *saved;
};

struct ps_host {
    struct ps_host_env env;
    pthread_t thread;
    void *router;
    struct mailbox *box;
    struct saver *saver;
    struct hosted *hosted[SESSIONS_MAX];
    int hosted_n;
    uint64_t dropped; /* messages of other attempts, bad ones */
    bool stop;
};

/* ---- reports ---------------------------------------------------------------------------------------------------- */

static struct ps_report report_of(const struct hosted *x, enum ps_report_type type)
{
    const struct host_close *last = host_last(x->s->host);
    struct ps_report r = {.type = type, .job = x->s->job, .session = x->s->session, .attempt = x->s->attempt,
                          .version = host_version(x->s->host), .figures = *host_figures(x->s->host), .tokens_per_s = x->tokens_per_s};

    r.lr = last != NULL ? last->lr : 0;
    r.tokens_here = r.figures.tokens - x->opened_tokens;
    return r;
}

static void session_fail(struct ps_host *p, struct hosted *x, const struct err *why)
{
    struct ps_report r = report_of(x, PS_FAILED);

    if (x->failed)
        return;
    x->failed = true;
    r.code = (int)why->code;
    snprintf(r.text, sizeof r.text, "%.*s", (int)sizeof r.text - 1, why->msg);
    p->env.report(p->env.self, &r);
}

static void status_report(struct ps_host *p, struct hosted *x, uint64_t now)
{
    const struct host_figures *f = host_figures(x->s->host);
    struct ps_report r;

    if (now - x->status_ms < STATUS_MS || host_version(x->s->host) == x->status_version)
        return;
    if (now > x->status_ms) {
        double rate = (double)(f->tokens - x->status_tokens) * 1000 / (double)(now - x->status_ms);
        x->tokens_per_s = x->tokens_per_s > 0 ? 0.8 * x->tokens_per_s + 0.2 * rate : rate;
    }
    x->status_ms = now;
    x->status_tokens = f->tokens;
    x->status_version = host_version(x->s->host);
    r = report_of(x, PS_STATUS);
    p->env.report(p->env.self, &r);
}

/* ---- pulls ------------------------------------------------------------------------------------------------------ */

static void chunk_release(void *data, void *hint)
{
    (void)hint;
    shard_release(data);
}

static struct params_head head_of(const struct hosted *x, enum params_type type, uint64_t step)
{
    return (struct params_head){.type = type, .session = x->s->session, .attempt = x->s->attempt, .step = step};
}

/* Sends what is left of a pull. 0: all sent or the peer is gone; ERR_BUSY: go on later. */
static int pull_serve(struct ps_host *p, struct hosted *x, struct pull *q)
{
    struct shard *shard = host_shard(x->s->host);
    uint32_t first = x->s->plan.chunk_begin;
    uint32_t most = (uint32_t)(MESSAGE_BYTES_MAX / (x->s->plan.chunk_elems * sizeof(float)));

    most = most < 1 ? 1 : most > PARAMS_FRAMES_MAX ? PARAMS_FRAMES_MAX : most;
    if (q->version != shard_version(shard)) { /* the start, or a new version was made on the way */
        q->version = shard_version(shard);
        q->next = q->begin;
    }
    while (q->next < q->end) {
        uint8_t head[PARAMS_HEAD_MAX];
        struct link_frame frames[1 + PARAMS_FRAMES_MAX];
        struct params_head h = head_of(x, PARAMS_CHUNKS, q->version);
        struct err e;
        int rc;
        h.chunk = q->next;
        h.count = q->end - q->next < most ? q->end - q->next : most;
        frames[0] = (struct link_frame){.data = head, .len = params_pack(&h, head)};
        for (uint32_t i = 0; i < h.count; i++) {
            const float *held = shard_hold(shard, q->next + i - first);
            frames[1 + i] = (struct link_frame){(void *)(uintptr_t)held, shard_chunk_len(shard, q->next + i - first) * sizeof(float),
                                                chunk_release, NULL, NULL};
        }
        rc = link_send(p->router, &q->peer, frames, 1 + (int)h.count, &e);
        if (rc != 0) {
            for (uint32_t i = 0; i < h.count; i++)
                shard_release(frames[1 + i].data);
            return rc == ERR_BUSY ? rc : 0;
        }
        q->next += h.count;
    }
    return 0;
}

static void pulls_serve(struct ps_host *p, struct hosted *x)
{
    for (size_t i = 0; i < x->pulls;) {
        if (x->pull[i].at_least <= host_version(x->s->host) && pull_serve(p, x, &x->pull[i]) == 0)
            x->pull[i] = x->pull[--x->pulls];
        else
            i++;
    }
}

static void on_pull(struct ps_host *p, struct hosted *x, const struct link_peer *peer, const struct params_head *h)
{
    struct pull *q = NULL;

    if (h->count == 0 || h->chunk < x->s->plan.chunk_begin || h->chunk + h->count > x->s->plan.chunk_end) {
        p->dropped++;
        return;
    }
    for (size_t i = 0; i < x->pulls && q == NULL; i++)
        if (x->pull[i].peer.len == peer->len && memcmp(x->pull[i].peer.id, peer->id, peer->len) == 0)
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
    } else if (q->at_least == h->step && q->begin == h->chunk && q->end == h->chunk + h->count) {
        return; /* being answered */
    }
    *q = (struct pull){*peer, h->step, UINT64_MAX, h->chunk, h->chunk + h->count, h->chunk};
    pulls_serve(p, x);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------ */

static void checkpoint_begin(struct ps_host *p, struct hosted *x)
{
    const struct shard *shard = host_shard(x->s->host);
    struct saver_job *j;
    size_t floats = 0;

    if (x->saving >= SAVING_MAX && !host_is_done(x->s->host)) {
        log_warn("checkpoint.left_out", "session=%" PRIu64 " version=%" PRIu64 " waiting=%d", x->s->session, shard_version(shard), x->saving);
        return;
    }
    x->saving++;
    j = mem_zalloc(1, sizeof *j);
    j->session = x->s->session;
    j->attempt = x->s->attempt;
    j->version = shard_version(shard);
    j->chunk_begin = x->s->plan.chunk_begin;
    j->chunks = shard_chunks(shard);
    j->chunk_floats = mem_zalloc(j->chunks, sizeof *j->chunk_floats);
    j->digest = mem_zalloc(j->chunks, sizeof *j->digest);
    for (uint32_t i = 0; i < j->chunks; i++) {
        j->chunk_floats[i] = 3 * shard_chunk_len(shard, i);
        floats += j->chunk_floats[i];
    }
    j->floats = mem_alloc(floats * sizeof(float));
    floats = 0;
    for (uint32_t i = 0; i < j->chunks; i++) {
        shard_copy(shard, i, j->floats + floats);
        floats += j->chunk_floats[i];
    }
    if (host_is_leader(x->s->host)) {
        struct collect *c = &x->collect[0];
        for (int i = 1; i < COLLECT_MAX; i++) /* a free place, else the oldest: it will never be complete */
            if (c->digest != NULL && (x->collect[i].digest == NULL || x->collect[i].version < c->version))
                c = &x->collect[i];
        free(c->digest);
        *c = (struct collect){j->version, *host_figures(x->s->host), 0, mem_zalloc(x->s->plan.chunks, sizeof *c->digest)};
    }
    saver_put(p->saver, j);
}

/* Leader: digests of chunks [begin, begin + n). Publishes the manifest when all are there. */
static void collect_add(struct ps_host *p, struct hosted *x, uint64_t version, uint32_t begin, uint32_t n, const struct digest *digest)
{
    struct collect *c = NULL;
    struct saver_job *j;

    for (int i = 0; i < COLLECT_MAX; i++)
        if (x->collect[i].digest != NULL && x->collect[i].version == version)
            c = &x->collect[i];
    if (c == NULL)
        return; /* published before, or given up */
    for (uint32_t i = begin; i < begin + n; i++) {
        if (c->digest[i].hex[0] == '\0')
            c->have++;
        c->digest[i] = digest[i - begin];
    }
    if (c->have < x->s->plan.chunks)
        return;
    j = mem_zalloc(1, sizeof *j);
    j->session = x->s->session;
    j->attempt = x->s->attempt;
    j->version = version;
    j->manifest = mem_zalloc(1, sizeof *j->manifest);
    *j->manifest = (struct ckpt_manifest){.params = x->s->plan.layout->count, .step = version, .steps = x->s->plan.steps, .seed = x->s->seed,
                                          .chunk_elems = x->s->plan.chunk_elems, .units = x->s->units, .global_batch = x->s->global_batch,
                                          .init = x->s->init, .examples = x->s->examples, .figures = c->figures,
                                          .chunks = x->s->plan.chunks, .chunk = c->digest};
    c->digest = NULL;
    saver_put(p->saver, j);
}

static void saved_send(struct hosted *x)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head h = head_of(x, PARAMS_SAVED, x->saved->version);
    struct buf hex = BUF_INIT;
    struct err e;

    h.chunk = x->saved->chunk_begin;
    h.count = x->saved->chunks;
    for (uint32_t i = 0; i < x->saved->chunks; i++)
        buf_add(&hex, x->saved->digest[i].hex, DIGEST_HEX);
    link_send(x->leader, NULL,
              (struct link_frame[]){{.data = head, .len = params_pack(&h, head)}, {.data = hex.data, .len = hex.len}}, 2, &e);
    x->saved_ms = clock_ms();
    buf_free(&hex);
}

/* The saver is done with something of ours. */
static void on_saved(struct ps_host *p, struct hosted *x, struct saver_job *j)
{
    x->saving -= j->manifest == NULL;
    if (j->rc != 0) {
        err_wrap(&j->err, "checkpoint of version %" PRIu64, j->version);
        session_fail(p, x, &j->err);
    } else if (j->manifest != NULL) {
        struct ps_report r = report_of(x, PS_CHECKPOINT);
        uint64_t took = clock_ms() - x->opened_ms;
        r.version = j->version;
        r.figures = j->manifest->figures;
        r.figures.loss = host_figures(x->s->host)->loss;
        r.figures.grad_norm = host_figures(x->s->host)->grad_norm;
        r.manifest = j->manifest_digest;
        r.last = j->version == x->s->plan.steps;
        r.tokens_here = r.figures.tokens - x->opened_tokens;
        r.tokens_per_s = took > 0 ? (double)r.tokens_here * 1000 / (double)took : 0;
        p->env.report(p->env.self, &r);
    } else if (x->leader == NULL) {
        collect_add(p, x, j->version, j->chunk_begin, j->chunks, j->digest);
    } else {
        saver_job_free(x->saved); /* an older one that the leader has not heard of will never be complete there */
        x->saved = j;
        saved_send(x);
        return;
    }
    saver_job_free(j);
}

/* Leader: another host has published its chunks. */
static void on_saved_message(struct ps_host *p, struct hosted *x, const struct link_peer *peer, const struct params_head *h,
                             const struct link_frame *frame)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head answer = head_of(x, PARAMS_SAVED, h->step);
    struct digest *digest;
    struct link_frame out;
    struct err e;

    if (x->leader != NULL || h->count > x->s->plan.chunks || h->chunk > x->s->plan.chunks - h->count ||
        frame->len != (size_t)h->count * DIGEST_HEX) {
        p->dropped++;
        return;
    }
    digest = mem_zalloc(h->count, sizeof *digest);
    for (uint32_t i = 0; i < h->count; i++) {
        memcpy(digest[i].hex, (const char *)frame->data + (size_t)i * DIGEST_HEX, DIGEST_HEX);
        if (!digest_is_valid(digest[i].hex)) {
            p->dropped++;
            free(digest);
            return;
        }
    }
    collect_add(p, x, h->step, h->chunk, h->count, digest);
    free(digest);
    out = (struct link_frame){.data = head, .len = params_pack(&answer, head)};
    link_send(p->router, peer, &out, 1, &e);
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

static void roots_send(struct hosted *x)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head h = head_of(x, PARAMS_ROOTS, host_version(x->s->host));
    struct err e;

    h.chunk = x->s->plan.chunk_begin;
    h.count = x->s->plan.chunk_end - x->s->plan.chunk_begin;
    link_send(x->leader, NULL,
              (struct link_frame[]){{.data = head, .len = params_pack(&h, head)},
                                    {.data = (void *)(uintptr_t)host_sumsq(x->s->host), .len = h.count * sizeof(double)}},
              2, &e);
    x->roots_ms = clock_ms();
    x->roots_due = true;
}

static void apply_send(struct ps_host *p, struct hosted *x, const struct link_peer *peer)
{
    uint8_t head[PARAMS_HEAD_MAX];
    const struct host_close *last = host_last(x->s->host);
    struct params_head h = head_of(x, PARAMS_APPLY, last->step);
    struct link_frame frame;
    struct err e;

    h.scale = last->scale;
    h.rate = last->lr;
    frame = (struct link_frame){.data = head, .len = params_pack(&h, head)};
    link_send(p->router, peer, &frame, 1, &e); /* lost: the host repeats its ROOTS */
}

static void events_do(struct ps_host *p, struct hosted *x, unsigned events)
{
    if ((events & HOST_CHECKPOINT) != 0)
        checkpoint_begin(p, x);
    if ((events & HOST_APPLY) != 0)
        for (int i = 0; i < x->members; i++)
            apply_send(p, x, &x->member[i].peer);
    if ((events & HOST_VERSION) != 0) {
        x->roots_due = false;
        pulls_serve(p, x);
        if (x->leader == NULL)
            status_report(p, x, clock_ms());
    }
    if ((events & HOST_ROOTS) != 0)
        roots_send(x);
}

static void on_push(struct ps_host *p, struct hosted *x, const struct link_peer *peer, const struct params_head *h, const struct link_frame *frames)
{
    const struct fold_sums sums = {h->loss, h->weight, h->tokens};
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head answer = head_of(x, PARAMS_ACK, h->step);
    struct link_frame out;
    unsigned events = 0;
    struct err e;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < h->count; i++) {
        enum host_verdict verdict = HOST_STALE;
        unsigned more = 0;
        rc = host_push(x->s->host, h->step, (struct tree_node){h->level, h->index}, h->chunk + i, frames[i].data,
                       frames[i].len / sizeof(float), &sums, h->hash[i], &verdict, &more, &e);
        events |= more;
        if ((uint32_t)verdict > answer.verdict)
            answer.verdict = (uint32_t)verdict;
    }
    if (rc == ERR_NUMERIC) {
        session_fail(p, x, &e);
        return;
    }
    if (rc != 0) {
        p->dropped++;
        log_warn("push.refused", "session=%" PRIu64 " error=%s", x->s->session, e.msg);
        return;
    }
    answer.level = h->level;
    answer.index = h->index;
    answer.chunk = h->chunk;
    answer.count = h->count;
    out = (struct link_frame){.data = head, .len = params_pack(&answer, head)};
    link_send(p->router, peer, &out, 1, &e); /* lost: it is pushed again */
    events_do(p, x, events);
}

static void member_note(struct hosted *x, const struct link_peer *peer, uint32_t chunk_begin)
{
    int i = 0;

    while (i < x->members && x->member[i].chunk_begin != chunk_begin)
        i++;
    if (i == WIRE_HOSTS_MAX)
        return;
    if (i == x->members)
        x->members++;
    x->member[i].peer = *peer;
    x->member[i].chunk_begin = chunk_begin;
}

static void on_roots(struct ps_host *p, struct hosted *x, const struct link_peer *peer, const struct params_head *h, const struct link_frame *frame)
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
    member_note(x, peer, h->chunk);
    rc = host_roots(x->s->host, h->step, h->chunk, sumsq, h->count, &events, &e);
    free(sumsq);
    last = host_last(x->s->host);
    if (rc == 0)
        events_do(p, x, events);
    else if (rc == ERR_STALE && last != NULL && last->step == h->step)
        apply_send(p, x, peer);
    else if (rc == ERR_NUMERIC)
        session_fail(p, x, &e);
    else
        p->dropped++;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static struct hosted *hosted_find(struct ps_host *p, uint64_t session)
{
    for (int i = 0; i < p->hosted_n; i++)
        if (p->hosted[i]->s->session == session)
            return p->hosted[i];
    return NULL;
}

static void router_message(struct ps_host *p, const struct link_peer *peer, const struct link_frame *frames, int n)
{
    struct params_head h;
    struct hosted *x;
    struct err e;

    if (params_unpack(frames[0].data, frames[0].len, n - 1, &h, &e) != 0) {
        p->dropped++;
        log_warn("peer.bad_message", "error=%s", e.msg);
        return;
    }
    x = hosted_find(p, h.session);
    if (x == NULL || x->s->attempt != h.attempt || x->failed) {
        p->dropped++;
        return;
    }
    switch (h.type) {
    case PARAMS_PULL:
        on_pull(p, x, peer, &h);
        break;
    case PARAMS_PUSH:
        on_push(p, x, peer, &h, frames + 1);
        break;
    case PARAMS_ROOTS:
        on_roots(p, x, peer, &h, frames + 1);
        break;
    case PARAMS_SAVED:
        if (h.count > 0)
            on_saved_message(p, x, peer, &h, frames + 1);
        break;
    default:
        p->dropped++;
    }
}

/* What the leader says to us. */
static void leader_message(struct ps_host *p, struct hosted *x, const struct link_frame *frames, int n)
{
    struct params_head h;
    unsigned events = 0;
    struct err e;

    if (params_unpack(frames[0].data, frames[0].len, n - 1, &h, &e) != 0 || h.session != x->s->session || h.attempt != x->s->attempt) {
        p->dropped++;
        return;
    }
    if (h.type == PARAMS_SAVED && x->saved != NULL && x->saved->version == h.step) {
        saver_job_free(x->saved);
        x->saved = NULL;
    } else if (h.type == PARAMS_APPLY) {
        const struct host_close close = {h.step, h.scale, h.rate};
        int rc = host_apply(x->s->host, &close, &events, &e);
        if (rc == 0)
            events_do(p, x, events);
        else if (rc != ERR_STALE)
            p->dropped++;
    }
}

static void socket_drain(struct ps_host *p, void *socket, struct hosted *x)
{
    struct link_frame frames[LINK_FRAMES_MAX];
    struct link_peer peer;
    struct err e;
    int n;

    /* Bounded, so that a flood on one socket cannot starve the others. */
    for (int i = 0; i < 64; i++) {
        int rc = link_recv(socket, x == NULL ? &peer : NULL, frames, &n, &e);
        if (rc != 0) {
            p->dropped++;
            continue;
        }
        if (n == 0)
            return;
        if (x == NULL)
            router_message(p, &peer, frames, n);
        else
            leader_message(p, x, frames, n);
        link_frames_release(frames, n);
    }
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

static void hosted_free(struct hosted *x)
{
    struct ps_session *s = x->s;

    link_close(x->leader);
    for (int i = 0; i < COLLECT_MAX; i++)
        free(x->collect[i].digest);
    saver_job_free(x->saved);
    free(x->pull);
    free(x);
    host_free(s->host);
    s->host = NULL;
    s->released(s->self, s);
}

static void session_close(struct ps_host *p, uint64_t session)
{
    for (int i = 0; i < p->hosted_n; i++) {
        if (p->hosted[i]->s->session == session) {
            hosted_free(p->hosted[i]);
            p->hosted[i] = p->hosted[--p->hosted_n];
            return;
        }
    }
}

static void session_open(struct ps_host *p, struct ps_session *s)
{
    struct hosted *old = hosted_find(p, s->session);
    struct hosted *x = mem_zalloc(1, sizeof *x);
    struct err e;

    x->s = s;
    if (old != NULL && old->s->attempt >= s->attempt) {
        hosted_free(x);
        return;
    }
    session_close(p, s->session);
    x->opened_ms = x->status_ms = clock_ms();
    x->opened_tokens = x->status_tokens = host_figures(s->host)->tokens;
    x->status_version = host_version(s->host);
    if (p->hosted_n == SESSIONS_MAX) {
        err_set(&e, ERR_LIMIT, "this host has %d sessions already", SESSIONS_MAX);
        session_fail(p, x, &e);
        hosted_free(x);
        return;
    }
    if (s->leader[0] != '\0' && (x->leader = link_dealer(LINK_DATA, s->leader, &e)) == NULL) {
        session_fail(p, x, &e);
        hosted_free(x);
        return;
    }
    p->hosted[p->hosted_n++] = x;
    if (host_is_done(s->host)) /* opened at its last version: only the checkpoint is missing */
        checkpoint_begin(p, x);
}

static void note_do(struct ps_host *p, struct note *note)
{
    struct hosted *x;

    switch (note->type) {
    case NOTE_OPEN:
        session_open(p, note->open);
        break;
    case NOTE_CLOSE:
        x = hosted_find(p, note->session);
        if (x != NULL && x->s->attempt <= note->attempt)
            session_close(p, note->session);
        break;
    case NOTE_SAVED:
        x = hosted_find(p, note->saved->session);
        if (x != NULL && x->s->attempt == note->saved->attempt)
            on_saved(p, x, note->saved);
        else
            saver_job_free(note->saved);
        break;
    case NOTE_STOP:
        p->stop = true;
        break;
    }
    free(note);
}

static void timers_do(struct ps_host *p)
{
    uint64_t now = clock_ms();

    for (int i = 0; i < p->hosted_n; i++) {
        struct hosted *x = p->hosted[i];
        pulls_serve(p, x);
        if (x->roots_due && now - x->roots_ms >= ROOTS_REPEAT_MS)
            roots_send(x);
        if (x->saved != NULL && now - x->saved_ms >= SAVED_REPEAT_MS)
            saved_send(x);
        if (x->leader == NULL && !x->failed)
            status_report(p, x, now);
    }
}

static void *host_main(void *self)
{
    struct ps_host *p = self;
    uint64_t ticked = clock_ms();

    while (!p->stop) {
        void *sockets[1 + SESSIONS_MAX] = {p->router};
        struct hosted *of[1 + SESSIONS_MAX] = {NULL};
        int fd = mailbox_fd(p->box);
        int n = 1;
        uint32_t ready;
        struct note *note;
        for (int i = 0; i < p->hosted_n; i++) {
            if (p->hosted[i]->leader != NULL) {
                of[n] = p->hosted[i];
                sockets[n++] = p->hosted[i]->leader;
            }
        }
        ready = link_poll(sockets, n, &fd, 1, TICK_MS);
        for (int i = 0; i < n; i++)
            if ((ready & (1u << i)) != 0)
                socket_drain(p, sockets[i], of[i]);
        while ((note = mailbox_take(p->box)) != NULL)
            note_do(p, note);
        if (clock_ms() - ticked >= TICK_MS) {
            timers_do(p);
            ticked = clock_ms();
        }
    }
    while (p->hosted_n > 0)
        session_close(p, p->hosted[0]->s->session);
    return NULL;
}

/* ---- from other threads ----------------------------------------------------------------------------------------- */

static void note_put(struct ps_host *p, struct note note)
{
    struct note *copy = mem_alloc(sizeof *copy);

    *copy = note;
    mailbox_put(p->box, copy);
}

static void saver_says(void *self, struct saver_job *j)
{
    note_put(self, (struct note){.type = NOTE_SAVED, .saved = j});
}

int ps_host_start(const char *listen, const char *inproc, const struct ps_host_env *env, char *endpoint, size_t cap, struct ps_host **out,
                  struct err *e)
{
    struct ps_host *p = mem_zalloc(1, sizeof *p);
    int rc;

    p->router = link_router(LINK_DATA, listen, endpoint, cap, e);
    if (p->router == NULL || (rc = link_bind(p->router, inproc != NULL ? inproc : PS_HOST_INPROC, e)) != 0) {
        link_close(p->router);
        free(p);
        return err_wrap(e, "data socket");
    }
    p->env = *env;
    p->box = mailbox_new();
    p->saver = saver_start(env->publish, env->self, saver_says, p);
    CHECK(pthread_create(&p->thread, NULL, host_main, p) == 0);
    *out = p;
    return 0;
}

void ps_host_stop(struct ps_host *p)
{
    struct note *note;

    if (p == NULL)
        return;
    note_put(p, (struct note){.type = NOTE_STOP});
    pthread_join(p->thread, NULL);
    saver_stop(p->saver);
    while ((note = mailbox_take(p->box)) != NULL) {
        if (note->type == NOTE_OPEN) {
            host_free(note->open->host);
            note->open->host = NULL;
            note->open->released(note->open->self, note->open);
        }
        if (note->type == NOTE_SAVED)
            saver_job_free(note->saved);
        free(note);
    }
    mailbox_free(p->box);
    link_close(p->router);
    free(p);
}

void ps_host_open(struct ps_host *p, struct ps_session *s)
{
    note_put(p, (struct note){.type = NOTE_OPEN, .open = s});
}

void ps_host_close(struct ps_host *p, uint64_t session, uint64_t attempt)
{
    note_put(p, (struct note){.type = NOTE_CLOSE, .session = session, .attempt = attempt});
}
