/*
 * roster: who is there. Pure: roster_step(state, event, actions); time arrives in the event.
 * A worker is READY after its HELLO, SUSPECT when it has been silent for 1.5 s, LOST after 2.5 s;
 * DRAINING by its own wish or an operator's; LEFT after BYE. A HELLO with a new boot nonce means
 * that the process before it died.
 */
#ifndef COORDINATOR_ROSTER_H
#define COORDINATOR_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#define ROSTER_ID_MAX 40
#define ROSTER_TEXT_MAX 256
#define ROSTER_WORKERS_MAX 1024
#define ROSTER_THREADS_MAX 1024

enum roster_state { ROSTER_READY, ROSTER_SUSPECT, ROSTER_DRAINING, ROSTER_LOST, ROSTER_LEFT };
const char *roster_state_name(enum roster_state s); /* "READY" */

struct roster_worker {
    char id[ROSTER_ID_MAX];
    uint64_t boot;
    char name[ROSTER_TEXT_MAX], endpoint[ROSTER_TEXT_MAX];
    char build[ROSTER_TEXT_MAX], fingerprint[ROSTER_TEXT_MAX], blas[ROSTER_TEXT_MAX];
    char fingerprint_bf16[ROSTER_TEXT_MAX]; /* "" = takes no job with numerics: bf16 */
    uint32_t roles, threads;
    uint64_t memory_bytes;
    enum roster_state state;
    bool draining;
    uint64_t heard_ms; /* last heartbeat or hello */
    uint64_t progress, progress_ms;
    uint64_t joined_wall_ms;
    uint64_t losses; /* times it was lost */
};

struct roster_config {
    uint32_t suspect_ms, lost_ms; /* 1500, 2500 */
    uint32_t forget_ms; /* 3600000: lost and left ones are shown this long, or until one that comes
                           needs the place */
};

struct roster {
    struct roster_config config;
    int n, cap;
    struct roster_worker **worker;
};

enum roster_event_type {
    ROSTER_HELLO,
    ROSTER_HEARTBEAT,
    ROSTER_BYE,
    ROSTER_DRAIN,
    ROSTER_TICK,
    ROSTER_REARM
};
struct roster_event {
    enum roster_event_type type;
    uint64_t now_ms, wall_ms;
    const char *worker;
    const struct roster_worker *hello; /* HELLO: what it says of itself */
    uint64_t progress;
    bool draining;
};

enum roster_action_type {
    ROSTER_IS_UP,       /* hello, first or again */
    ROSTER_IS_REPLACED, /* its former process died: comes before IS_UP */
    ROSTER_IS_SUSPECT,
    ROSTER_IS_OK, /* no longer suspect */
    ROSTER_IS_DRAINING,
    ROSTER_IS_LOST,
    ROSTER_IS_GONE,  /* said good-bye */
    ROSTER_REJECTED, /* text says why */
    ROSTER_UNKNOWN   /* a heartbeat of somebody who is not on the list: ask for a hello */
};
struct roster_action {
    enum roster_action_type type;
    char worker[ROSTER_ID_MAX];
    bool returned; /* IS_UP: it was taken for dead, and is the same process */
    char text[ROSTER_TEXT_MAX];
};
#define ROSTER_ACTIONS_MAX (ROSTER_WORKERS_MAX + 4)
struct roster_actions {
    int n;
    struct roster_action v[ROSTER_ACTIONS_MAX];
};

void roster_init(struct roster *r, struct roster_config config);
void roster_fini(struct roster *r);
void roster_step(struct roster *r, const struct roster_event *ev,
                 struct roster_actions *actions); /* appends */
const struct roster_worker *roster_find(const struct roster *r, const char *id);
bool roster_is_here(const struct roster_worker *w); /* READY, SUSPECT or DRAINING */

#endif
