#include "coordinator/coord_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/settings.h"

const char coord_config_usage[] =
    "usage: steer-coordinator [options]\n"
    "  --dir DIR            state directory (STEER_DIR; default $XDG_STATE_HOME/steer or "
    "~/.local/state/steer)\n"
    "  --http HOST:PORT     HTTP API (STEER_HTTP; default 127.0.0.1:7780; port 0: "
    "any)\n"
    "  --control tcp://H:P  workers' control socket (STEER_CONTROL; default tcp://127.0.0.1:7781; "
    "port 0: any)\n"
    "  --advertise URL      base URL by which workers reach the HTTP API (STEER_ADVERTISE; "
    "default: where it listens)\n"
    "  --token-file FILE    the secret that HTTP and workers' sockets ask for, one line of 16 or "
    "more "
    "characters (or STEER_TOKEN); needed beyond loopback\n"
    "  --open-control       let the control socket listen beyond loopback without a token: only "
    "where everybody on the network is trusted\n"
    "  --crash-limit N      quarantine a task under which N different workers died, 0..8, 0 = "
    "never (default 3)\n"
    "  --lease-ms N         lease of a task, 1000..600000 (default 10000)\n"
    "  --replicate 0|1      keep a copy of each host's parameters at another host, so that a lost "
    "host costs one step (STEER_REPLICATE; default 1)\n"
    "  --respread-ms N      least time between two changes of parameter hosts because a worker "
    "joins, 0 = never (STEER_RESPREAD_MS; default 10000)\n"
    "  --config FILE        any of these in YAML, \"lease-ms: 10000\" (STEER_COORDINATOR_CONFIG); "
    "variables and flags go first\n"
    "  --help, --version, --faults (the failpoints that STEER_FAULT=name:n can name)\n"
    "STEER_TOKEN: key that every request must carry; needed when HTTP listens beyond loopback.\n"
    "DIR/endpoint.json says where it listens. SIGTERM stops it; jobs go on at the next start.\n";

#define AT(member) offsetof(struct coord_config, member), sizeof(((struct coord_config *)0)->member)

static const struct setting settings[] = {
    {"--dir", "STEER_DIR", SETTING_TEXT, AT(dir), 0, 0, NULL},
    {"--http", "STEER_HTTP", SETTING_TEXT, AT(http), 0, 0, NULL},
    {"--control", "STEER_CONTROL", SETTING_TEXT, AT(control), 0, 0, NULL},
    {"--advertise", "STEER_ADVERTISE", SETTING_TEXT, AT(advertise), 0, 0, NULL},
    {"--token-file", NULL, SETTING_SECRET, AT(token), 0, 0, NULL},
    {NULL, "STEER_TOKEN", SETTING_TEXT, AT(token), 0, 0, NULL},
    {"--open-control", NULL, SETTING_FLAG, AT(open_control), 0, 0, NULL},
    {"--crash-limit", NULL, SETTING_NUMBER, AT(crash_limit), 0, 8, NULL},
    {"--lease-ms", NULL, SETTING_NUMBER, AT(lease_ms), 1000, 600000, NULL},
    {"--replicate", "STEER_REPLICATE", SETTING_NUMBER, AT(replicate), 0, 1, NULL},
    {"--respread-ms", "STEER_RESPREAD_MS", SETTING_NUMBER, AT(respread_ms), 0, 86400000, NULL},
    {NULL, NULL, SETTING_TEXT, 0, 0, 0, 0, NULL}};

bool coord_config_is_loopback(const char *endpoint)
{
    return strncmp(endpoint, "tcp://127.", 10) == 0 ||
           strncmp(endpoint, "tcp://localhost:", 16) == 0 ||
           strncmp(endpoint, "tcp://[::1]:", 12) == 0 || strncmp(endpoint, "ipc://", 6) == 0;
}

bool coord_config_url_host(const char *url, char *out, size_t cap)
{
    const char *host = strncmp(url, "http://", 7) == 0    ? url + 7
                       : strncmp(url, "https://", 8) == 0 ? url + 8
                                                          : NULL;
    size_t n = host != NULL ? strcspn(host, ":/") : 0;

    if (n == 0 || n >= cap)
        return false;
    snprintf(out, cap, "%.*s", (int)n, host);
    return true;
}

static int check(const struct coord_config *c, struct err *e)
{
    char host[256];

    if (!c->open_control && c->token[0] == '\0' && !coord_config_is_loopback(c->control))
        return err_set(
            e, ERR_DENIED,
            "--control is %s: beyond loopback anybody who reaches it can act as a "
            "worker; give everybody a secret with --token-file, or add --open-control if "
            "everybody on that network is trusted",
            c->control);
    if (c->advertise[0] != '\0' && !coord_config_url_host(c->advertise, host, sizeof host))
        return err_set(e, ERR_INVALID, "--advertise is %s, must be http://HOST:PORT", c->advertise);
    return 0;
}

static void defaults(struct coord_config *c)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    *c = (struct coord_config){.crash_limit = 3,
                               .lease_ms = 10000,
                               .heartbeat_ms = 500,
                               .replicate = 1,
                               .respread_ms = 10000};
    if (state != NULL && *state != '\0')
        snprintf(c->dir, sizeof c->dir, "%s/steer", state);
    else
        snprintf(c->dir, sizeof c->dir, "%s/.local/state/steer", home != NULL ? home : "");
    snprintf(c->http, sizeof c->http, "127.0.0.1:7780");
    snprintf(c->control, sizeof c->control, "tcp://127.0.0.1:7781");
}

int coord_config_parse(int argc, char **argv, struct coord_config *c, struct err *e)
{
    int rc;

    defaults(c);
    rc = settings_read(settings, "STEER_COORDINATOR_CONFIG", argc, argv, c, &c->help, &c->version,
                       e);
    return rc == 0 && !c->help && !c->version ? check(c, e) : rc;
}
