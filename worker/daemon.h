/*
 * daemon: the worker's control thread. One DEALER to the coordinator, timers and signals around the
 * pure worker/duty.h; starts and stops the executor, the parameter host and sessions. It never
 * computes and never waits for those who do.
 */
#ifndef WORKER_DAEMON_H
#define WORKER_DAEMON_H

#include "worker/worker_config.h"

/* Runs until drained (0) or refused by the coordinator (its code; the reason is logged). A second
 * SIGTERM ends the process at once. */
int daemon_run(const struct worker_config *config, struct err *e);

#endif
