/*
 * session_inner: what the files of session share. session.c: the session's thread, opening and
 * closing; session_needs.c: what is fetched and checked first; session_host.c: our shard;
 * session_compute.c: the compute threads. On the session's thread but for what is said otherwise.
 */
#ifndef WORKER_SESSION_INNER_H
#define WORKER_SESSION_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "jobs/run_train.h"
#include "modelfile/modeldir.h"
#include "worker/session.h"

#define CLAIMS_MAX 64

/* Work of one step that a thread of ours has taken. */
struct claim {
    uint64_t only_step;
    uint32_t begin, end, again;
};

struct session {
    struct session_env env;
    struct control *open;
    atomic_uint refs; /* the opener, the session's thread, the hosted shard */
    atomic_bool closed, failed;
    uint64_t keep;        /* set with `closed` */
    pthread_mutex_t lock; /* guards the slots of `open` and closing */
    pthread_cond_t changed;
    atomic_uint_fast64_t assignments; /* how many have come: threads notice a change by it */
    struct spec *spec;
    struct model model;
    bool has_model;
    struct examples *examples;
    struct train_task task;
    struct region *region; /* the flat vector of parameters: ours live there, others' are shown */
    bool shared;           /* somebody else of this machine may take part */
    struct ps_view *view;
    bool half;                      /* the wire is bf16 */
    uint64_t *progress;             /* [threads], each bumped by one thread */
    struct pulse_thread *pulse;     /* [threads], of the control thread */
    atomic_bool computing;          /* the compute threads run */
    atomic_bool *over;              /* [threads] it has ended */
    struct claim claim[CLAIMS_MAX]; /* the last ones, a ring; guarded by lock */
    uint32_t claims;
};

/* Any thread. */
void session_unref(struct session *s);
/* The first one is said, unless the session is closed. Any thread. */
void session_fail(struct session *s, int code, const struct err *e);

/* An artefact into the cache; self is the session. ERR_CANCELLED once it is closed. */
int session_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e);
/* The spec and the initial model, whose weights are read only if our shard begins with them. */
int session_needs(struct session *s, struct err *e);
int session_examples(struct session *s, struct err *e); /* and the task of the compute threads */
/* Us among the hosts of the session; NULL: we are none. */
const struct control_host *session_host_of(const struct session *s);

int session_region(struct session *s, struct err *e);
/* Makes our shard, if we are a host, and hands it to the host thread. */
int session_host(struct session *s, struct err *e);
/* Until all compute threads have ended. */
int session_compute(struct session *s, struct err *e);

#endif
