/* coord_config: options of steer-coordinator. Flags over STEER_* variables over defaults. */
#ifndef COORDINATOR_COORD_CONFIG_H
#define COORDINATOR_COORD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct coord_config {
    char dir[512];       /* state directory */
    char http[256];      /* HOST:PORT to listen on */
    char control[256];   /* tcp://HOST:PORT to listen on */
    char advertise[256]; /* base URL that workers use for artefacts; "" = where HTTP listens */
    int crash_limit;     /* different workers that may die under a task; 0 = any number */
    uint32_t lease_ms, heartbeat_ms;
    bool help, version;
};

/* ERR_INVALID names the option, the value and the bound. */
int coord_config_parse(int argc, char **argv, struct coord_config *out, struct err *e);
extern const char coord_config_usage[];

#endif
