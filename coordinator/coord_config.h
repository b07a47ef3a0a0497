/* coord_config: options of steer-coordinator. Flags over STEER_* variables over a YAML file over defaults. */
#ifndef COORDINATOR_COORD_CONFIG_H
#define COORDINATOR_COORD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct coord_config {
    char dir[512];       /* state directory */
    char http[256];      /* HOST:PORT to listen on */
    char control[256];   /* tcp://HOST:PORT to listen on */
    char advertise[256]; /* base URL that workers use for artefacts; "" = where HTTP listens */
    char token[256];     /* bearer secret of the HTTP API; "" = none: then loopback only */
    bool open_control;   /* the control socket may listen beyond loopback, where anybody who reaches
                            it can act as a worker */
    uint32_t crash_limit; /* different workers that may die under a task; 0 = any number */
    uint32_t lease_ms, heartbeat_ms;
    uint32_t replicate;   /* 1: training on two and more hosts keeps a copy of every chunk */
    uint32_t respread_ms; /* least time between two changes of hosts because one joins; 0 = never */
    bool help, version;
};

/* ERR_INVALID names the option, the value and the bound. */
int coord_config_parse(int argc, char **argv, struct coord_config *out, struct err *e);
extern const char coord_config_usage[];
bool coord_config_is_loopback(const char *endpoint); /* of "tcp://HOST:PORT" */
/* Host of a base URL, for the Host check: "steer.example" of "http://steer.example:7780". false:
 * not a URL of ours. */
bool coord_config_url_host(const char *url, char *out, size_t cap);

#endif
