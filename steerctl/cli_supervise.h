/*
 * cli_supervise: the process that `steerctl up` leaves behind. It starts one coordinator and N workers, restarts what ends
 * (after 0.2 s, doubling to 10 s; from the start again once a process has lived half a minute), and on SIGTERM stops them all:
 * workers first, SIGKILL after a deadline. Its children get SIGTERM from the kernel if it dies itself.
 *
 * In the state directory: supervisor.lock (flock; held while it lives, so a stale pid is never trusted), supervisor.json (what
 * runs), logs/NAME.log.
 */
#ifndef STEERCTL_CLI_SUPERVISE_H
#define STEERCTL_CLI_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define SUPERVISE_WORKERS_MAX 64
#define SUPERVISE_STOP_MS 10000 /* for the workers, and again for the coordinator */

struct supervise_config {
    const char *dir;
    const char *bin_dir; /* where steer-coordinator and steer-worker lie */
    int workers, threads;
    int http_port; /* 0: the kernel chooses at the first start; kept over restarts */
};

/* Detaches from the terminal and supervises. Returns in the caller once the supervisor holds its lock.
 * ERR_CONFLICT: one runs already. */
int supervise_start(const struct supervise_config *config, struct err *e);
/* Pid of the supervisor that holds dir's lock, or 0. */
pid_t supervise_pid(const char *dir);
/* True when some process there has been restarted three times or more; its name. */
bool supervise_failing(const char *dir, char name[32]);

#endif
