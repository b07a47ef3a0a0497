/*
 * The thread polls the ROUTER, its mailbox (sessions that open and close, checkpoints that were
 * saved) and, for every session, the DEALERs to the leader and to the buddy. A pull
 * that cannot be answered yet, or whose answer does not fit the peer's queue, waits in the
 * session's list; the list is tried again when a version is made and on the timer. Timers repeat
 * what may have been lost (ROOTS, REPLICA, SAVED). Of a session there is one attempt that runs, and
 * beside it the frozen one that it came from, until that is closed.
 */
#include "worker/ps_host_inner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#define TICK_MS 20
#define ROOTS_REPEAT_MS 500
#define SAVED_REPEAT_MS 1000

enum note_type { NOTE_OPEN, NOTE_CLOSE, NOTE_DROP, NOTE_FREEZE, NOTE_WAIVE, NOTE_SAVED, NOTE_STOP };
struct note {
    enum note_type type;
    uint64_t session, attempt, step;
    struct tree_node node;
    bool edge;
    struct ps_session *open;
    struct saver_job *saved;
};

struct params_head hosted_head(const struct hosted *x, enum params_type type, uint64_t step)
{
    return (struct params_head){
        .type = type, .session = x->s->session, .attempt = x->s->attempt, .step = step};
}

/* ---- messages -------------------------------------------------------------------------------- */

static struct hosted *hosted_find(struct ps_host *p, uint64_t session, uint64_t attempt)
{
    for (int i = 0; i < p->hosted_n; i++)
        if (p->hosted[i]->s->session == session && p->hosted[i]->s->attempt == attempt)
            return p->hosted[i];
    return NULL;
}

static void router_message(struct ps_host *p, const struct link_peer *peer,
                           const struct link_frame *frames, int n)
{
    struct params_head h;
    struct hosted *x;
    struct err e;

    if (params_unpack(frames, n, &h, &e) != 0) {
        p->dropped++;
        log_warn("peer.bad_message", "error=%s", e.msg);
        return;
    }
    x = hosted_find(p, h.session, h.attempt);
    if (x != NULL && x->failed)
        x = NULL;
    if (h.type == PARAMS_STATE_PULL) {
        hosted_state_pull(p, x, peer, &h);
        return;
    }
    if (x == NULL) {
        p->dropped++;
        return;
    }
    switch (h.type) {
    case PARAMS_PULL:
        hosted_pull(p, x, peer, &h);
        break;
    case PARAMS_PUSH:
        hosted_push(p, x, peer, &h, frames + 1);
        break;
    case PARAMS_ROOTS:
        hosted_roots(p, x, peer, &h, frames + 1);
        break;
    case PARAMS_REPLICA:
        hosted_replica(p, x, peer, &h, frames + 1);
        break;
    case PARAMS_SAVED:
        if (h.count > 0)
            hosted_saved_message(p, x, peer, &h, frames + 1);
        break;
    default:
        p->dropped++;
    }
}

/* What the leader or the buddy says to us. */
static void dealer_message(struct ps_host *p, struct hosted *x, const struct link_frame *frames,
                           int n)
{
    struct params_head h;
    struct err e;

    if (params_unpack(frames, n, &h, &e) != 0) {
        p->dropped++;
        log_warn("peer.bad_message", "error=%s", e.msg);
        return;
    }
    if (h.session != x->s->session || h.attempt != x->s->attempt || x->failed) {
        p->dropped++;
        return;
    }
    if (h.type == PARAMS_SAVED && x->saved != NULL && x->saved->version == h.step) {
        saver_job_free(x->saved);
        x->saved = NULL;
    } else if (h.type == PARAMS_APPLY) {
        hosted_apply(p, x, &h);
    } else if (h.type == PARAMS_REPLICA_ACK) {
        hosted_replica_ack(p, x, &h);
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
            dealer_message(p, x, frames, n);
        link_frames_release(frames, n);
    }
}

/* ---- sessions -------------------------------------------------------------------------------- */

static void session_release(struct ps_session *s)
{
    region_release(s->region);
    s->region = NULL;
    s->released(s->self, s);
}

static void hosted_free(struct hosted *x)
{
    struct ps_session *s = x->s;

    link_close(x->leader);
    link_close(x->buddy);
    free(x->replica_ms);
    for (int i = 0; i < COLLECT_MAX; i++)
        free(x->collect[i].digest);
    saver_job_free(x->saved);
    free(x->pull);
    for (int i = 0; i < PS_UNSAVED_MAX; i++)
        if (s->unsaved[i] != NULL)
            saver_job_drop(s->unsaved[i]);
    host_free(s->host);
    s->host = NULL;
    for (uint32_t i = 0; i < x->lenders; i++)
        region_release(x->lender[i].region);
    free(x->parts);
    free(x->packed);
    free(x);
    session_release(s);
}

/* Closes attempts [from, to] of a session, but not one that is kept for what it remembers. */
static void sessions_close(struct ps_host *p, uint64_t session, uint64_t from, uint64_t to,
                           uint64_t keep)
{
    for (int i = 0; i < p->hosted_n;) {
        struct hosted *x = p->hosted[i];
        bool kept = x->s->attempt == keep && host_is_frozen(x->s->host) && !x->failed;
        if (x->s->session == session && x->s->attempt >= from && x->s->attempt <= to && !kept) {
            p->hosted[i] = p->hosted[--p->hosted_n];
            hosted_free(x);
        } else {
            i++;
        }
    }
}

static int sockets_open(struct hosted *x, struct err *e)
{
    const struct ps_session *s = x->s;

    if (s->leader[0] != '\0' && (x->leader = link_dealer(LINK_DATA, s->leader, e)) == NULL)
        return err_wrap(e, "step leader");
    if (s->buddy[0] != '\0' && (x->buddy = link_dealer(LINK_DATA, s->buddy, e)) == NULL)
        return err_wrap(e, "buddy");
    return 0;
}

/* A version that was about to be saved when its hosts stood still. */
static bool is_checkpoint(const struct ps_session *s)
{
    uint64_t version = host_version(s->host);

    return host_is_done(s->host) ||
           (s->from_attempt != 0 && version > 0 && s->plan.checkpoint_every != 0 &&
            version % s->plan.checkpoint_every == 0);
}

static void session_open(struct ps_host *p, struct ps_session *s)
{
    struct hosted *x = mem_zalloc(1, sizeof *x);
    bool old = false;
    struct err e;

    x->s = s;
    for (int i = 0; i < p->hosted_n; i++)
        old = old ||
              (p->hosted[i]->s->session == s->session && p->hosted[i]->s->attempt >= s->attempt);
    if (old) {
        hosted_free(x);
        return;
    }
    sessions_close(p, s->session, 0, s->attempt - 1, s->from_attempt);
    x->opened_ms = x->status_ms = x->rate_ms = x->version_ms = clock_ms();
    x->opened_tokens = x->status_tokens = host_figures(s->host)->tokens;
    x->status_version = host_version(s->host);
    if (s->plan.half) {
        x->parts = mem_alloc((size_t)PARAMS_FRAMES_MAX * s->plan.chunk_elems * sizeof *x->parts);
        x->packed = mem_alloc((size_t)PARAMS_FRAMES_MAX * s->plan.chunk_elems * sizeof *x->packed);
    }
    x->replica_ms = mem_zalloc(s->plan.chunk_end - s->plan.chunk_begin, sizeof *x->replica_ms);
    if (p->hosted_n == SESSIONS_MAX) {
        err_set(&e, ERR_LIMIT, "this host has %d sessions already", SESSIONS_MAX);
        hosted_fail(p, x, &e);
        hosted_free(x);
        return;
    }
    if (sockets_open(x, &e) != 0) {
        hosted_fail(p, x, &e);
        hosted_free(x);
        return;
    }
    p->hosted[p->hosted_n++] = x;
    if (is_checkpoint(s))
        hosted_checkpoint(p, x);
}

static void note_do(struct ps_host *p, struct note *note)
{
    struct hosted *x;

    switch (note->type) {
    case NOTE_OPEN:
        session_open(p, note->open);
        break;
    case NOTE_CLOSE:
        sessions_close(p, note->session, 0, note->attempt, UINT64_MAX);
        break;
    case NOTE_DROP:
        sessions_close(p, note->session, note->attempt, note->attempt, UINT64_MAX);
        break;
    case NOTE_FREEZE:
        x = hosted_find(p, note->session, note->attempt);
        if (x != NULL)
            hosted_freeze(p, x, note->edge);
        break;
    case NOTE_WAIVE:
        x = hosted_find(p, note->session, note->attempt);
        if (x != NULL && !x->failed)
            hosted_waive(p, x, note->step, note->node);
        break;
    case NOTE_SAVED:
        x = hosted_find(p, note->saved->session, note->saved->attempt);
        if (x != NULL)
            hosted_saved(p, x, note->saved);
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
        hosted_pulls_serve(p, x);
        if (x->roots_due && now - x->roots_ms >= ROOTS_REPEAT_MS)
            hosted_roots_send(x);
        hosted_replicas_send(x, x->s->plan.chunk_begin, x->s->plan.chunk_end);
        if (x->saved != NULL && now - x->saved_ms >= SAVED_REPEAT_MS)
            hosted_saved_send(x);
        if (!x->failed) {
            hosted_status(p, x, now);
            hosted_opinions_report(p, x, now);
        }
    }
}

static void *host_main(void *self)
{
    struct ps_host *p = self;
    uint64_t ticked = clock_ms();

    while (!p->stop) {
        void *sockets[1 + 2 * SESSIONS_MAX] = {p->router};
        struct hosted *of[1 + 2 * SESSIONS_MAX] = {NULL};
        int fd = mailbox_fd(p->box);
        int n = 1;
        uint32_t ready;
        struct note *note;
        for (int i = 0; i < p->hosted_n; i++) {
            void *dealer[2] = {p->hosted[i]->leader, p->hosted[i]->buddy};
            for (int k = 0; k < 2; k++) {
                if (dealer[k] != NULL) {
                    of[n] = p->hosted[i];
                    sockets[n++] = dealer[k];
                }
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
        hosted_free(p->hosted[--p->hosted_n]);
    return NULL;
}

/* ---- from other threads ---------------------------------------------------------------------- */

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

int ps_host_start(const char *listen, const char *inproc, const struct ps_host_env *env,
                  char *endpoint, size_t cap, struct ps_host **out, struct err *e)
{
    struct ps_host *p = mem_zalloc(1, sizeof *p);
    int rc;

    p->router = link_router(LINK_DATA, listen, endpoint, cap, e);
    if (p->router == NULL ||
        (rc = link_bind(p->router, inproc != NULL ? inproc : PS_HOST_INPROC, e)) != 0) {
        link_close(p->router);
        free(p);
        return err_wrap(e, "data socket");
    }
    p->env = *env;
    p->box = mailbox_new();
    p->crew = crew_new(env->helpers);
    p->saver = saver_start(env->publish, env->self, saver_says, p);
    CHECK(pthread_create(&p->thread, NULL, host_main, p) == 0);
    *out = p;
    return 0;
}

struct spread ps_host_spread(struct ps_host *p)
{
    return crew_spread(p->crew);
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
            session_release(note->open);
        }
        if (note->type == NOTE_SAVED)
            saver_job_free(note->saved);
        free(note);
    }
    mailbox_free(p->box);
    crew_free(p->crew);
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

void ps_host_drop(struct ps_host *p, uint64_t session, uint64_t attempt)
{
    note_put(p, (struct note){.type = NOTE_DROP, .session = session, .attempt = attempt});
}

void ps_host_freeze(struct ps_host *p, uint64_t session, uint64_t attempt, bool edge)
{
    note_put(p, (struct note){
                    .type = NOTE_FREEZE, .session = session, .attempt = attempt, .edge = edge});
}

void ps_host_waive(struct ps_host *p, uint64_t session, uint64_t attempt, uint64_t step,
                   struct tree_node node)
{
    note_put(p, (struct note){.type = NOTE_WAIVE,
                              .session = session,
                              .attempt = attempt,
                              .step = step,
                              .node = node});
}
