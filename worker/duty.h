/*
 * duty: what a worker does about what the coordinator says, about silence, and about its own work
 * coming to an end. Pure: time and outcomes arrive in events, effects leave as actions.
 *
 * The link is either not yet known to the coordinator (HELLO is repeated) or live; in silence it is
 * looked after (RECONNECT) either way. What has to
 * arrive (ends of tasks, checkpoints of a session) is kept and repeated until it is acknowledged,
 * across reconnects and new terms of the coordinator. Work goes on while the coordinator is away.
 */
#ifndef WORKER_DUTY_H
#define WORKER_DUTY_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/control.h"

#define DUTY_OUTBOX_MAX 16
#define DUTY_ACTIONS_MAX 64
#define DUTY_HELLO_MS 500
#define DUTY_SILENCE_MS 3000
#define DUTY_REPEAT_MS 1000
#define DUTY_DRAIN_MS 60000 /* a drain ends after this, finished or not */

enum duty_held_state { DUTY_RUNNING, DUTY_ENDED };

struct duty_held {
    enum duty_held_state state;
    uint64_t task, epoch, done, total, moved;
    struct control *outcome; /* DUTY_ENDED: until acknowledged */
    uint64_t sent_ms;
};

struct duty_out {
    struct control *message; /* SESSION_CHECKPOINT, _DONE, _FAILED until acknowledged */
    uint64_t sent_ms;
};

struct duty {
    struct control *hello; /* what this worker is; ours */
    bool live, draining, said_bye;
    char cluster[WIRE_ID_MAX];
    uint64_t term;
    uint64_t heard_ms, hello_ms, heartbeat_ms, drain_ms;
    uint64_t link_ms; /* when the link was looked after last: at first, and by DUTY_RECONNECT */
    uint32_t heartbeat_every_ms;
    uint64_t progress;
    struct duty_held held[WIRE_LEASES_MAX];
    uint32_t held_n;
    uint64_t session, session_attempt; /* 0 = none */
    struct duty_out out[DUTY_OUTBOX_MAX];
    uint32_t out_n;
    struct duty_out frozen; /* SESSION_FROZEN of this attempt: until the next one, or the end */
    uint64_t stale;         /* messages of older terms, epochs, attempts */
};

enum duty_event_type {
    DUTY_TICK,          /* now_ms, progress */
    DUTY_HEARD,         /* message (borrowed) */
    DUTY_TASK_PROGRESS, /* task, epoch, done, total, moved */
    DUTY_TASK_END,      /* outcome: TASK_DONE or TASK_FAILED (taken) */
    DUTY_SESSION_SAYS,  /* outcome: any SESSION_* (taken); STATUS is sent once, the others until
                           acknowledged */
    DUTY_UNSENT,  /* the link did not take the last DUTY_SEND: nobody is connected. A HELLO is tried
                    again at the next tick */
    DUTY_DAMAGED, /* a message of the coordinator came damaged. Which, nobody knows: HELLO, after
                     which it says all again that we lack */
    DUTY_DRAIN    /* somebody on this machine asks (SIGTERM) */
};
struct duty_event {
    enum duty_event_type type;
    uint64_t now_ms, progress;
    const struct control *message;
    struct control *outcome;
    uint64_t task, epoch, done, total, moved;
};

enum duty_action_type {
    DUTY_SEND,           /* message (given): the shell sends and frees it */
    DUTY_RECONNECT,      /* the link may be dead, or the coordinator elsewhere: look, and make a new
                            one. Given every DUTY_SILENCE_MS until something is heard */
    DUTY_TERMS,          /* WELCOME: message (borrowed from the event) holds http */
    DUTY_TASK_START,     /* message (borrowed): TASK */
    DUTY_TASK_STOP,      /* task, epoch: cancel it */
    DUTY_SESSION_OPEN,   /* message (borrowed): SESSION_OPEN */
    DUTY_SESSION_FREEZE, /* message (borrowed): SESSION_FREEZE */
    DUTY_SESSION_WAIVE,  /* message (borrowed): SESSION_WAIVE */
    DUTY_SESSION_FORGET, /* session, attempt: the memory of a frozen attempt; the session goes on */
    DUTY_SESSION_ASSIGN, /* message (borrowed): ASSIGN */
    DUTY_SESSION_CLOSE,  /* session; attempt: 0, or the one whose frozen shard is kept, because the
                            next attempt, which follows at once, starts from it */
    DUTY_EXIT            /* code (0 = drained) and text in message (borrowed), NULL when drained */
};
struct duty_action {
    enum duty_action_type type;
    struct control *message;
    uint64_t task, epoch, session, attempt;
    int code;
};
struct duty_actions {
    uint32_t n;
    struct duty_action action[DUTY_ACTIONS_MAX];
};

void duty_init(struct duty *d, const struct control *hello); /* hello: CONTROL_HELLO, copied */
void duty_fini(struct duty *d);
/* actions is emptied first. */
void duty_step(struct duty *d, const struct duty_event *event, struct duty_actions *actions);

#endif
