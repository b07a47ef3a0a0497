/*
 * session: this worker's part in a training session: its compute threads (jobs/run_train.h over
 * worker/ps_client.h) and, if it is one of the hosts, its shard (handed to worker/ps_host.h). Each
 * session attempt has a thread of its own that fetches what is needed, starts the compute threads,
 * waits for them and cleans up, so opening and closing never block the caller.
 */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "artifact/artifact.h"
#include "wire/control.h"
#include "worker/ps_host.h"
#include "worker/pulse.h"

struct session_env {
    struct artifact_client *artifacts;
    struct ps_host *host; /* NULL: role params is not ours */
    char worker[WIRE_ID_MAX];
    uint32_t threads;          /* 0: role compute is not ours */
    const struct cores *cores; /* of the compute threads; NULL: not pinned; outlives them */
    void *self;
    void (*says)(void *self, struct control *message); /* SESSION_FAILED (given); on any thread */
};

struct session;
/* open: CONTROL_SESSION_OPEN, copied. env is copied. */
struct session *session_open(const struct session_env *env, const struct control *open);
void session_assign(struct session *s,
                    const struct control *assign);          /* an older number is ignored */
void session_pulse(struct session *s, struct pulse *pulse); /* of its compute threads */
/* Takes s; its threads end in their own time, and its shard is forgotten with all older ones. keep:
 * 0, or the from_attempt of the attempt that comes next: only a shard of another attempt is
 * forgotten then. */
void session_close(struct session *s, uint64_t keep);
/* Until every closed session is gone, for a clean stop; false: some thread is still in one. */
bool session_wait_all(uint64_t deadline_ms);

/* What a host reports, as the message that tells it to the coordinator (gives). */
struct control *session_report(const struct ps_report *r);

#endif
