/*
 * daemon_inner: what the files of daemon share. daemon.c: the link, what is done about it, the loop; daemon_start.c,
 * which has the functions here: what a worker is made of, opened and closed.
 */
#ifndef WORKER_DAEMON_INNER_H
#define WORKER_DAEMON_INNER_H

#include "artifact/artifact.h"
#include "worker/cores.h"
#include "worker/daemon.h"
#include "worker/duty.h"
#include "worker/executor.h"
#include "worker/mailbox.h"
#include "worker/session.h"

struct worker {
    struct worker_config config;
    struct worker_paths {
        char id[600], lock[600], cache[600], trees[600], scratch[600], endpoint[600];
    } paths;
    int lock_fd, signal_fd;
    char id[WIRE_ID_MAX], endpoint[WIRE_TEXT_MAX];
    struct blob_store *cache;
    struct artifact_client *artifacts;
    struct mailbox *box; /* struct control *: outcomes of tasks and sessions */
    struct ps_host *host;
    struct executor *executor;
    struct session *session;
    struct cores *cores; /* NULL: compute threads are not pinned */
    struct duty duty;
    struct control *outbox; /* said of tasks, and waiting for more of the same: a chain */
    void *socket;
    char address[WIRE_TEXT_MAX]; /* of the socket */
    bool welcomed;               /* on it */
    bool stop;
    int exit_code;
    uint64_t status_said_ms;
    struct pulse pulse;
};

int worker_open(struct worker *w, const struct worker_config *config, struct err *e);
void worker_close(struct worker *w);                      /* also what was opened in part */
void worker_outcome(void *self, struct control *outcome); /* of a task or a session; any thread */

#endif
