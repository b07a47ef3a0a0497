/*
 * After a pause of the coordinator itself (stopped process, sleeping machine) everybody looks
 * silent. The shell sees the gap in its own loop and sends ROSTER_REARM, which counts all silences
 * from now.
 */
#include "coordinator/roster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

const char *roster_state_name(enum roster_state s)
{
    static const char *const names[] = {"READY", "SUSPECT", "DRAINING", "LOST", "LEFT"};

    return names[s];
}

bool roster_is_here(const struct roster_worker *w)
{
    return w->state == ROSTER_READY || w->state == ROSTER_SUSPECT || w->state == ROSTER_DRAINING;
}

void roster_init(struct roster *r, struct roster_config config)
{
    *r = (struct roster){.config = config};
}

void roster_fini(struct roster *r)
{
    for (int i = 0; i < r->n; i++)
        free(r->worker[i]);
    free(r->worker);
}

static struct roster_worker *find(const struct roster *r, const char *id)
{
    for (int i = 0; i < r->n; i++) {
        if (strcmp(r->worker[i]->id, id) == 0)
            return r->worker[i];
    }
    return NULL;
}

const struct roster_worker *roster_find(const struct roster *r, const char *id)
{
    return find(r, id);
}

static void act(struct roster_actions *a, enum roster_action_type type, const char *worker,
                const char *text)
{
    CHECK(a->n < ROSTER_ACTIONS_MAX);
    a->v[a->n].type = type;
    a->v[a->n].returned = false;
    snprintf(a->v[a->n].worker, ROSTER_ID_MAX, "%s", worker);
    snprintf(a->v[a->n++].text, ROSTER_TEXT_MAX, "%s", text);
}

static bool id_is_valid(const char *id)
{
    size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

    return n > 0 && n < ROSTER_ID_MAX && id[n] == '\0';
}

/* Who has been gone longest; -1: all are here. */
static int longest_gone(const struct roster *r)
{
    int at = -1;

    for (int i = 0; i < r->n; i++) {
        if (!roster_is_here(r->worker[i]) &&
            (at < 0 || r->worker[i]->heard_ms < r->worker[at]->heard_ms))
            at = i;
    }
    return at;
}

static const char *refusal(const struct roster *r, const struct roster_event *ev)
{
    const struct roster_worker *h = ev->hello;

    if (!id_is_valid(h->id))
        return "a worker id is 1..39 letters, digits, '_', '.' or '-'";
    if (h->threads < 1 || h->threads > ROSTER_THREADS_MAX)
        return "threads must be 1..1024";
    if ((h->roles & 3u) == 0 || (h->roles & ~3u) != 0)
        return "roles must be compute, params or both";
    if (find(r, h->id) == NULL && r->n >= ROSTER_WORKERS_MAX && longest_gone(r) < 0)
        return "there are 1024 workers already";
    return NULL;
}

static void forget(struct roster *r, int at)
{
    free(r->worker[at]);
    r->worker[at] = r->worker[--r->n];
}

static struct roster_worker *add(struct roster *r, const char *id)
{
    struct roster_worker *w = mem_zalloc(1, sizeof *w);

    if (r->n >= ROSTER_WORKERS_MAX)
        forget(r, longest_gone(r));
    if (r->n == r->cap) {
        r->cap = r->cap * 2 + 16;
        r->worker = mem_grow(r->worker, (size_t)r->cap, sizeof(struct roster_worker *));
    }
    r->worker[r->n++] = w;
    snprintf(w->id, sizeof w->id, "%s", id);
    w->state = ROSTER_LEFT;
    return w;
}

static void on_hello(struct roster *r, const struct roster_event *ev, struct roster_actions *a)
{
    const char *why = refusal(r, ev);
    struct roster_worker *w = NULL;
    uint64_t losses = 0, joined = ev->wall_ms;
    bool draining = ev->hello->draining, returned = false;

    if (why != NULL) {
        act(a, ROSTER_REJECTED, ev->hello->id, why);
        return;
    }
    w = find(r, ev->hello->id);
    if (w == NULL)
        w = add(r, ev->hello->id);
    if (roster_is_here(w)) {
        if (w->boot != ev->hello->boot)
            act(a, ROSTER_IS_REPLACED, w->id, "a new process of it said hello");
        else {
            joined = w->joined_wall_ms;
            draining = draining || w->draining; /* asked for, and not yet heard of there */
        }
    }
    losses = w->losses + (roster_is_here(w) && w->boot != ev->hello->boot);
    returned = w->state == ROSTER_LOST && w->boot == ev->hello->boot;
    *w = *ev->hello;
    w->losses = losses;
    w->draining = draining;
    w->joined_wall_ms = joined;
    w->state = w->draining ? ROSTER_DRAINING : ROSTER_READY;
    w->heard_ms = w->progress_ms = ev->now_ms;
    act(a, ROSTER_IS_UP, w->id, "");
    a->v[a->n - 1].returned = returned;
}

static void drain(struct roster_worker *w, struct roster_actions *a)
{
    if (w->draining)
        return;
    w->draining = true;
    w->state = ROSTER_DRAINING;
    act(a, ROSTER_IS_DRAINING, w->id, "");
}

static void on_heartbeat(const struct roster *r, const struct roster_event *ev,
                         struct roster_actions *a)
{
    struct roster_worker *w = find(r, ev->worker);

    if (w == NULL || !roster_is_here(w)) {
        act(a, ROSTER_UNKNOWN, ev->worker, "");
        return;
    }
    w->heard_ms = ev->now_ms;
    if (w->progress != ev->progress) {
        w->progress = ev->progress;
        w->progress_ms = ev->now_ms;
    }
    if (w->state == ROSTER_SUSPECT) {
        w->state = w->draining ? ROSTER_DRAINING : ROSTER_READY;
        act(a, ROSTER_IS_OK, w->id, "");
    }
    if (ev->draining)
        drain(w, a);
}

static void on_bye(const struct roster *r, const struct roster_event *ev, struct roster_actions *a)
{
    struct roster_worker *w = find(r, ev->worker);

    if (w == NULL || !roster_is_here(w))
        return;
    w->state = ROSTER_LEFT;
    w->heard_ms = ev->now_ms;
    act(a, ROSTER_IS_GONE, w->id, "");
}

static void on_tick(struct roster *r, const struct roster_event *ev, struct roster_actions *a)
{
    for (int i = 0; i < r->n; i++) {
        struct roster_worker *w = r->worker[i];
        uint64_t silent = ev->now_ms > w->heard_ms ? ev->now_ms - w->heard_ms : 0;

        if (!roster_is_here(w)) {
            if (silent > r->config.forget_ms)
                forget(r, i--);
        } else if (silent >= r->config.lost_ms) {
            w->state = ROSTER_LOST;
            w->losses++;
            act(a, ROSTER_IS_LOST, w->id, "");
        } else if (silent >= r->config.suspect_ms && w->state != ROSTER_SUSPECT) {
            w->state = ROSTER_SUSPECT;
            act(a, ROSTER_IS_SUSPECT, w->id, "");
        }
    }
}

void roster_step(struct roster *r, const struct roster_event *ev, struct roster_actions *a)
{
    struct roster_worker *w = NULL;

    switch (ev->type) {
    case ROSTER_HELLO:
        on_hello(r, ev, a);
        break;
    case ROSTER_HEARTBEAT:
        on_heartbeat(r, ev, a);
        break;
    case ROSTER_BYE:
        on_bye(r, ev, a);
        break;
    case ROSTER_DRAIN:
        w = find(r, ev->worker);
        if (w != NULL && roster_is_here(w))
            drain(w, a);
        break;
    case ROSTER_TICK:
        on_tick(r, ev, a);
        break;
    case ROSTER_REARM:
        for (int i = 0; i < r->n; i++)
            r->worker[i]->heard_ms = r->worker[i]->progress_ms = ev->now_ms;
        break;
    }
}
