/*
 * coordinator: the daemon's state and its reactor. One thread owns everything here. An event goes
 * through roster or sched step -> journal commit (state and actions in one transaction) -> messages
 * are sent, requests answered so nobody hears of anything that a power cut could undo. While the
 * disk is full the coordinator is *parked*: it answers heartbeats and reads, refuses submits, keeps
 * the uncommitted batch, and tries to write it once a second.
 */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/coord_config.h"
#include "coordinator/http.h"
#include "coordinator/journal.h"
#include "coordinator/roster.h"
#include "coordinator/sched.h"
#include "net/link.h"
#include "store/blob.h"
#include "wire/control.h"

#define COORDINATOR_WAITS_MAX 256
#define COORDINATOR_SUBMITS_MAX 64

struct coordinator_peer {
    char worker[ROSTER_ID_MAX];
    struct link_peer peer;
    /* What was decided about tasks and waits to share a frame; sent in this order. */
    struct control *acks, *cancels, *tasks;
};

struct coordinator_wait { /* a long poll */
    void *ticket;
    uint64_t job, since, until_ms;
};

struct coordinator_submit { /* in the open transaction: not acknowledged, not scheduled */
    void *ticket;
    uint64_t id;
    struct sched_job *job; /* owned; NULL: the same key came twice, job `id` comes before */
};

#define COORDINATOR_SOUND_MAX 8
struct coordinator_sound { /* a blob that was said to be damaged, and is not */
    struct digest digest;
    uint64_t at_ms; /* when it was read */
};

struct coordinator_counters {
    uint64_t frames_bad, stale_term, send_refused, events, commits;
};

struct coordinator {
    struct coord_config config;
    int lock_fd;
    struct journal *journal;
    struct blob_store *blobs;
    struct http *http;
    void *router;
    char control[256]; /* where the router listens */
    char http_base[256];
    struct sched sched;
    struct roster roster;
    struct roster_actions *roster_actions;
    struct sched_actions actions;       /* not yet committed */
    struct sched_actions actions_spare; /* empty; memory for the next batch */
    int peers_n, peers_cap, peer_last;  /* last: who was found last */
    struct coordinator_peer *peer;
    bool grouping; /* submits wait for one commit */
    int submits_n;
    struct err submit_error; /* .code 0: none; else they are not written */
    struct coordinator_submit submit[COORDINATOR_SUBMITS_MAX];
    int waits_n;
    struct coordinator_wait wait[COORDINATOR_WAITS_MAX];
    bool parked;
    uint64_t parked_try_ms, tick_ms;
    uint64_t next_job;
    uint32_t sound_next;
    struct coordinator_sound sound[COORDINATOR_SOUND_MAX]; /* the last ones, a ring */
    struct coordinator_counters counters;
    int exit_code; /* set with stop */
    bool stop;
};

int coordinator_open(const struct coord_config *config, struct coordinator **out, struct err *e);
void coordinator_close(struct coordinator *c);
/* Serves until *stop is set (by a signal) or the storage fails; gives the process's exit code. */
int coordinator_run(struct coordinator *c, const volatile int *stop);

/* For handlers.c and the API. Fills the times in, steps the scheduler; nothing is sent before
 * coordinator_flush(). */
void coordinator_event(struct coordinator *c, struct sched_event *ev);
/* Commits and performs what is pending. False: parked, or stopping. */
bool coordinator_flush(struct coordinator *c);
/* Takes message. What is said of tasks waits for more of the same, until coordinator_send_all() or
 * until something else is said to that worker. */
void coordinator_send(struct coordinator *c, const char *worker, struct control *message);
void coordinator_send_all(struct coordinator *c);
void coordinator_peers_free(struct coordinator *c);
/* Brings the body of a job into memory, for the event that comes next. False: storage failed. */
bool coordinator_load(struct coordinator *c, uint64_t job);
/* For storage errors that came from elsewhere: parks, or stops. */
void coordinator_storage_failed(struct coordinator *c, const struct err *e);
uint64_t coordinator_job_id(struct coordinator *c);

/* dispatch.c: performing the scheduler's second group of actions. */
void dispatch_action(struct coordinator *c, const struct sched_action *act);

/* handlers.c: one message of a worker. */
void handlers_message(struct coordinator *c, const struct link_peer *peer, const void *frame,
                      size_t len);
void handlers_roster(struct coordinator *c); /* carries roster_actions over to the scheduler */
void handlers_log_path(const struct coordinator *c, uint64_t job, char *path, size_t cap);

#endif
