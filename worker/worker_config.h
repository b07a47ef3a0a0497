/* worker_config: options of steer-worker. Flags over STEER_* variables over a YAML file over defaults. */
#ifndef WORKER_WORKER_CONFIG_H
#define WORKER_WORKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/bf16.h"

struct worker_config {
    char dir[512];         /* id, cache, scratch */
    char coordinator[256]; /* tcp://HOST:PORT; "" = coordinator_dir/endpoint.json, read again at
                              every reconnect */
    char coordinator_dir[512];
    char listen[256];    /* tcp://HOST:PORT of the data socket, port 0 = any */
    char advertise[256]; /* tcp://HOST:PORT that other workers dial; "" = what was bound */
    char name[128];      /* for people; default the host name */
    char token[256];     /* the cluster's secret; "" = none, then everything stays on loopback */
    bool open_data;      /* data socket beyond loopback without a secret */
    enum bf16_how bf16;  /* at most, for jobs with numerics: bf16 */
    uint32_t threads;    /* compute threads */
    bool pin;            /* each on a core of its own, where there are enough (worker/cores.h) */
    uint32_t roles;      /* ROLE_COMPUTE | ROLE_PARAMS */
    bool help, version;
};

/* ERR_INVALID names the option, the value and the bound. */
int worker_config_parse(int argc, char **argv, struct worker_config *out, struct err *e);
extern const char worker_config_usage[];

#endif
